"""The norm of tensors as vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .._core import launch, record
from ..checks import a_tensor, positive
from .math import abs, div, eq, mul, square, where
from .power import pow
from .reduce import _axes, amax, sum
from .shape import reshape

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["norm"]

_GREATEST = 2.0**128  # where float32 ends


def norm(input: Tensor, p: float = 2.0, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """(sum |x|^p)^(1/p), over axes taken together as one vector.

    Parameters
    ----------
    input : Tensor
        float32 or float64, any shape.
    p : float
        Which norm, above 0; ``math.inf``: the greatest magnitude.
    dim : int or sequence of int, optional
        The axes; by default all.
    keepdim : bool
        Whether these axes stay, with one element.

    Returns
    -------
    Tensor
        `input`'s shape without the axes. Its gradient at a vector of zeros is 0.

    Raises
    ------
    ValueError
        If `p` is out of range.
    """
    p = order_of("norm: p", p)
    if p == math.inf:
        return amax(abs(input), dim, keepdim)
    if p == 1:
        return sum(abs(input), dim, keepdim)
    fixed = a_tensor("norm", input).detach()
    total = sum(square(fixed) if p == 2 else pow(abs(fixed), p), dim, True)
    y = launch.sqrt(total) if p == 2 else pow(total, 1 / p)
    kept = y if keepdim else reshape(y, _without(input, dim))
    return record(_norm_backward, (input,), kept, saved=(input, y), context=p)


def order_of(name: str, p: float) -> float:
    """Which norm: above 0. Beyond what float32 holds it is infinity: powers of such orders say nothing, and their root is 1."""
    p = math.inf if isinstance(p, float) and p == math.inf else positive(name, p)
    return math.inf if p >= _GREATEST else p


def _without(x: Tensor, dim: int | Sequence[int] | None) -> tuple[int, ...]:
    """The shape of `x` without some of its axes."""
    axes = _axes("norm", dim, x.ndim)
    return tuple(n for d, n in enumerate(x.shape) if d not in axes)


def _norm_backward(node, dy):
    """dy sign(x) (|x| / y)^(p - 1), and 0 where y is 0."""
    x, y = node.saved
    p, dy = node.context, reshape(dy, y.shape)
    if p == 2:
        return mul(x, where(eq(y, 0.0), 0.0, div(dy, y)))
    share = div(abs(x), where(eq(y, 0.0), 1.0, y))
    steep = where(eq(x, 0.0), 0.0, pow(share, p - 1))
    return mul(mul(launch.sign(x), steep), dy)
