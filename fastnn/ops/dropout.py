"""Dropout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core import launch, record
from ..checks import real
from ..random import Generator, generator_state
from .math import mul

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["dropout"]


def dropout(x: Tensor, p: float = 0.5, training: bool = True, inverted: bool = True,
            generator: Generator | None = None) -> Tensor:
    """Sets each element to 0 with probability `p`, in training only.

    Parameters
    ----------
    x : Tensor
        float32 or float64, any shape.
    p : float
        Probability of dropping an element, between 0 and 1.
    training : bool
        Whether to drop. Otherwise the result is what dropping gives on average.
    inverted : bool
        Whether elements that stay are divided by 1 - p in training, so that inference changes nothing (the usual form).
        The original form, False, leaves them as they are, and inference multiplies by 1 - p.
    generator : Generator, optional
        Where random numbers come from; by default `fastnn.manual_seed`'s.

    Returns
    -------
    Tensor
        Shape and type of `x`. A dropped element is 0 even where `x` is NaN or infinite; PyTorch multiplies by the mask,
        which leaves NaN there.

    Raises
    ------
    ValueError
        If `p` is not between 0 and 1.

    References
    ----------
    Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15, 2014.
    """
    p = real("dropout: p", p, 0, 1)
    if p == 0:
        return x
    if not training:
        return x if inverted else mul(x, 1 - p)
    scale = 1 / (1 - p) if inverted and p < 1 else 1.0
    y, mask = launch.dropout_forward(x, generator_state(generator), p=p, scale=scale, ordinal=0)
    record(_dropout_backward, (x,), y, saved=(mask,), context=scale)
    return y


def _dropout_backward(node, dy):
    return launch.dropout_backward(dy, node.saved[0], scale=node.context)
