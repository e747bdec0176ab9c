"""Softmax and its logarithm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core import DType, launch, record
from ..checks import a_tensor
from .math import neg
from .shape import _axis, to

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["log_softmax", "softmax", "softmin"]


def softmax(input: Tensor, dim: int = -1, dtype: DType | None = None) -> Tensor:
    """exp(x) over its sum along an axis; every row is shifted by its maximum first, so that nothing overflows.

    Parameters
    ----------
    input : Tensor
        Any shape.
    dim : int
        The axis whose elements add up to 1.
    dtype : dtype, optional
        What `input` is made before; by default it stays what it is.

    Returns
    -------
    Tensor
        Of `input`'s shape; a row whose maximum is not finite gives NaN.
    """
    x = input if dtype is None else to(input, dtype)
    axis = _axis("softmax", dim, max(a_tensor("softmax", x).ndim, 1))
    y = launch.softmax_forward(x, axis=axis)
    return record(_softmax_backward, (x,), y, saved=(y,), context=axis)


def _softmax_backward(node, dy):
    (y,) = node.saved
    return launch.softmax_backward(dy, y, axis=node.context)


def softmin(input: Tensor, dim: int = -1, dtype: DType | None = None) -> Tensor:
    """`softmax` of -x: the smallest gets the most. Parameters as there."""
    return softmax(neg(input if dtype is None else to(input, dtype)), dim)


def log_softmax(input: Tensor, dim: int = -1, dtype: DType | None = None) -> Tensor:
    """The logarithm of `softmax`, exact where the softmax itself would vanish.

    Parameters
    ----------
    input : Tensor
        Any shape.
    dim : int
        The axis whose exponentials add up to 1.
    dtype : dtype, optional
        What `input` is made before; by default it stays what it is.

    Returns
    -------
    Tensor
        Of `input`'s shape; a row whose maximum is not finite gives NaN.
    """
    x = input if dtype is None else to(input, dtype)
    axis = _axis("log_softmax", dim, max(a_tensor("log_softmax", x).ndim, 1))
    y = launch.log_softmax_forward(x, axis=axis)
    return record(_log_softmax_backward, (x,), y, saved=(y,), context=axis)


def _log_softmax_backward(node, dy):
    (y,) = node.saved
    return launch.log_softmax_backward(dy, y, axis=node.context)
