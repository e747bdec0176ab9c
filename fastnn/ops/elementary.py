"""More elementary functions, element by element: rounding, near 0, reciprocals, what kind of number."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .._core import launch, record
from .create import as_tensor, zeros_like
from .math import abs, add, div, eq, floating, lt, mul, ne, sub

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["addcdiv", "addcmul", "ceil", "expm1", "floor", "isfinite", "isinf", "isnan", "lerp", "log1p", "reciprocal", "round",
           "rsqrt", "trunc"]


def floor(x: Tensor) -> Tensor:
    """The greatest whole number that is not above x; its gradient is 0.

    Parameters
    ----------
    x : Tensor
        Any shape; integers stay as they are.

    Returns
    -------
    Tensor
        Shape and type of `x`.
    """
    return _rounded(launch.floor, x)


def ceil(x: Tensor) -> Tensor:
    """The least whole number that is not below x; parameters as `floor`."""
    return _rounded(launch.ceil, x)


def round(x: Tensor) -> Tensor:
    """The nearest whole number, of two the even one; parameters as `floor`."""
    return _rounded(launch.round, x)


def trunc(x: Tensor) -> Tensor:
    """The next whole number towards 0; parameters as `floor`."""
    return _rounded(lambda t: launch.mul(launch.floor(launch.abs(t)), launch.sign(t)), x)


def _rounded(op: Any, x: Any) -> Tensor:
    x = as_tensor(x)
    return record(_flat_backward, (x,), op(x)) if x.dtype.is_floating else x


def _flat_backward(node, dy):
    return zeros_like(dy)


def expm1(x: Tensor) -> Tensor:
    """exp(x) - 1, exact where x is near 0.

    Parameters
    ----------
    x : Tensor
        Any shape; integers become float32.

    Returns
    -------
    Tensor
        Shape of `x`.
    """
    x = floating("expm1", x)
    y = launch.expm1(x)
    return record(_expm1_backward, (x,), y, saved=(y,))


def _expm1_backward(node, dy):
    return launch.add(launch.mul(dy, node.saved[0]), dy)


def log1p(x: Tensor) -> Tensor:
    """log(1 + x), exact where x is near 0; -inf at -1, NaN below; parameters as `expm1`."""
    x = floating("log1p", x)
    return record(_log1p_backward, (x,), launch.log1p(x), saved=(x,))


def _log1p_backward(node, dy):
    return div(dy, add(node.saved[0], 1.0))


def reciprocal(x: Tensor) -> Tensor:
    """1 / x; parameters as `expm1`."""
    return div(1.0, floating("reciprocal", x))


def rsqrt(x: Tensor) -> Tensor:
    """1 / sqrt(x): inf at 0, NaN below; parameters as `expm1`."""
    x = floating("rsqrt", x)
    y = div(1.0, launch.sqrt(x.detach()))
    return record(_rsqrt_backward, (x,), y, saved=(y,))


def _rsqrt_backward(node, dy):
    (y,) = node.saved
    return mul(launch.mul(launch.mul(dy, y), launch.square(y)), -0.5)


def isnan(x: Tensor) -> Tensor:
    """Where x is NaN.

    Parameters
    ----------
    x : Tensor
        Any shape and type.

    Returns
    -------
    Tensor
        bool, shape of `x`.
    """
    x = as_tensor(x).detach()
    return ne(x, x)


def isinf(x: Tensor) -> Tensor:
    """Where x is infinite; parameters as `isnan`."""
    x = as_tensor(x).detach()
    return eq(abs(x), math.inf) if x.dtype.is_floating else ne(x, x)


def isfinite(x: Tensor) -> Tensor:
    """Where x is neither infinite nor NaN; parameters as `isnan`."""
    x = as_tensor(x).detach()
    return lt(abs(x), math.inf) if x.dtype.is_floating else eq(x, x)


def lerp(start: Tensor, end: Tensor, weight: Tensor | float) -> Tensor:
    """Part of the way from one tensor to another: start + weight (end - start).

    Parameters
    ----------
    start, end : Tensor
        Shapes that broadcast.
    weight : Tensor or float
        0: start, 1: end.

    Returns
    -------
    Tensor
        The common shape.
    """
    return add(start, mul(weight, sub(end, start)))


def addcmul(x: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1.0) -> Tensor:
    """x + value tensor1 tensor2.

    Parameters
    ----------
    x, tensor1, tensor2 : Tensor
        Shapes that broadcast.
    value : float
        A factor.

    Returns
    -------
    Tensor
        The common shape.
    """
    return add(x, mul(mul(tensor1, value), tensor2))


def addcdiv(x: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1.0) -> Tensor:
    """x + value tensor1 / tensor2; parameters as `addcmul`."""
    return add(x, div(mul(tensor1, value), tensor2))
