"""Products: the fully connected layer's, and matrix multiplication."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core import TensorBase, launch, record
from .create import as_tensor
from .math import add
from .shape import flatten, reshape, transpose, unbroadcast

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["linear", "matmul"]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x W^T + b.

    Parameters
    ----------
    x : Tensor
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
        y = launch.linear_forward(x, weight, bias)
    except TypeError:  # asked only here: small networks' steps would notice
        if any(not isinstance(t, TensorBase) or t.dtype.is_floating for t in (x, weight)):
            raise
        y = matmul(x, transpose(weight))
        return y if bias is None else add(y, bias)
    return record(_linear_backward, (x, weight, bias), y, (x, weight))


def _linear_backward(node, dy):
    x, weight = node.saved
    dx = launch.linear_backward_input(dy, weight) if node.needs[0] else None
    dweight = launch.linear_backward_weight(dy, x) if node.needs[1] else None
    dbias = launch.sum(dy, axes=(1 << dy.ndim - 1) - 1, keepdim=0, divisor=1.0) if node.needs[2] else None
    return dx, dweight, dbias


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Matrix product over the last two axes; leading axes broadcast.

    Parameters
    ----------
    a : Tensor or array_like
        (..., n, k), or (k,): a row. Integers are multiplied exactly, and sums wrap around.
    b : Tensor or array_like
        (..., k, m), or (k,): a column; of a's type.

    Returns
    -------
    Tensor
        (..., n, m), without the axes that a vector did not have.

    Raises
    ------
    ValueError
        If an operand is 0-d or the shapes do not fit.
    TypeError
        If the types differ, or are bool.
    """
    if not (isinstance(a, TensorBase) and isinstance(b, TensorBase)):
        a, b = as_tensor(a), as_tensor(b)
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError(f"matmul: shapes {a.shape} and {b.shape}: both operands need at least one axis")
    if a.ndim == 1:
        y = matmul(reshape(a, 1, -1), b)
        return reshape(y, (*y.shape[:-2], y.shape[-1])) if b.ndim > 1 else reshape(y, ())
    if b.ndim == 1:
        y = matmul(a, reshape(b, -1, 1))
        return reshape(y, y.shape[:-1])
    if not a.dtype.is_floating and not b.dtype.is_floating:
        return launch.integer_matmul(a, b)
    return record(_matmul_backward, (a, b), launch.matmul(a, b), (a, b))


def _matmul_backward(node, dy):
    a, b = node.saved
    da = unbroadcast(launch.matmul(dy, transpose(b)), a.shape) if node.needs[0] else None
    if not node.needs[1]:
        return da, None
    if b.ndim == 2 and a.ndim > 2:  # one product over all leading axes together
        return da, launch.matmul(transpose(flatten(a, 0, -2)), flatten(dy, 0, -2))
    return da, unbroadcast(launch.matmul(transpose(a), dy), b.shape)
