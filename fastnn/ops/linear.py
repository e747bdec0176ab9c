"""Products: the fully connected layer's, and matrix multiplication."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core import TensorBase, launch, record
from .create import as_tensor
from .math import add
from .operands import written
from .shape import flatten, reshape, transpose, unbroadcast

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["linear", "matmul"]


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x W^T + b.

    Parameters
    ----------
    input : Tensor
        (..., in_features).
    weight : Tensor
        (out_features, in_features).
    bias : Tensor, optional
        (out_features,).

    Returns
    -------
    Tensor
        (..., out_features).

    Raises
    ------
    ValueError
        If the shapes do not fit one another.
    """
    try:
        y = launch.linear_forward(input, weight, bias)
    except TypeError:  # asked only here: small networks' steps would notice
        if any(not isinstance(t, TensorBase) or t.dtype.is_floating for t in (input, weight)):
            raise
        y = matmul(input, transpose(weight))
        return y if bias is None else add(y, bias)
    return record(_linear_backward, (input, weight, bias), y, (input, weight))


def _linear_backward(node, dy):
    x, weight = node.saved
    dx = launch.linear_backward_input(dy, weight) if node.needs[0] else None
    dweight = launch.linear_backward_weight(dy, x) if node.needs[1] else None
    dbias = launch.sum(dy, axes=(1 << dy.ndim - 1) - 1, keepdim=0, divisor=1.0) if node.needs[2] else None
    return dx, dweight, dbias


def matmul(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Matrix product over the last two axes; leading axes broadcast.

    Parameters
    ----------
    input : Tensor or array_like
        (..., n, k), or (k,): a row. Integers are multiplied exactly, and sums wrap around.
    other : Tensor or array_like
        (..., k, m), or (k,): a column; of `input`'s type.
    out : Tensor, optional
        Where the result is written, off the tape: of its shape.

    Returns
    -------
    Tensor
        (..., n, m), without the axes that a vector did not have; `out` where it is given.

    Raises
    ------
    ValueError
        If an operand is 0-d or the shapes do not fit.
    TypeError
        If the types differ, or are bool.
    RuntimeError
        If a gradient was to flow through `out`.
    """
    if out is not None:
        return written("matmul", matmul(input, other), out)
    if not (isinstance(input, TensorBase) and isinstance(other, TensorBase)):
        input, other = as_tensor(input), as_tensor(other)
    if input.ndim == 0 or other.ndim == 0:
        raise ValueError(f"matmul: shapes {input.shape} and {other.shape}: both operands need at least one axis")
    if input.ndim == other.ndim == 1 and input.shape != other.shape:
        raise ValueError(f"matmul: vectors of shapes {input.shape} and {other.shape} are not of one length")
    if input.ndim == other.ndim == 1 and input.dtype.is_floating:
        y = launch.matmul(reshape(input.detach(), (1, -1)), reshape(other.detach(), (-1, 1)))
        return record(_dot_backward, (input, other), reshape(y, ()), (input, other))
    if input.ndim == 1:
        y = matmul(reshape(input, 1, -1), other)
        return reshape(y, (*y.shape[:-2], y.shape[-1])) if other.ndim > 1 else reshape(y, ())
    if other.ndim == 1:
        y = matmul(input, reshape(other, -1, 1))
        return reshape(y, y.shape[:-1])
    if not input.dtype.is_floating and not other.dtype.is_floating:
        return launch.integer_matmul(input, other)
    return record(_matmul_backward, (input, other), launch.matmul(input, other), (input, other))


def _dot_backward(node, dy):
    a, b = node.saved
    return (launch.mul(b, dy) if node.needs[0] else None), (launch.mul(a, dy) if node.needs[1] else None)


def _matmul_backward(node, dy):
    a, b = node.saved
    da = unbroadcast(launch.matmul(dy, transpose(b)), a.shape) if node.needs[0] else None
    if not node.needs[1]:
        return da, None
    if b.ndim == 2 and a.ndim > 2:  # one product over all leading axes together
        return da, launch.matmul(transpose(flatten(a, 0, -2)), flatten(dy, 0, -2))
    return da, unbroadcast(launch.matmul(transpose(a), dy), b.shape)
