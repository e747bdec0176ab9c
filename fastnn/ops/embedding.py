"""Embedding: rows of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._core import launch, record
from ..checks import a_tensor, integer, number
from .create import ones, zeros
from .index import _as_index
from .operands import constant
from .shape import reshape

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["embedding"]


def embedding(input: Any, weight: Tensor, padding_idx: int | None = None, max_norm: float | None = None,
              norm_type: float = 2.0, scale_grad_by_freq: bool = False) -> Tensor:
    """The rows of `weight` that `input` names.

    Parameters
    ----------
    input : Tensor or array_like
        (...) integers from 0 on (negative ones count from the end).
    weight : Tensor
        (V, D).
    padding_idx : int, optional
        A row that takes no gradient.
    max_norm : float, optional
        Rows that `input` names are first scaled down to this norm, in place, if theirs is greater.
    norm_type : float
        Which norm: the p of (sum of |w|^p)^(1/p).
    scale_grad_by_freq : bool
        Whether a row's gradient is divided by how often `input` names it.

    Returns
    -------
    Tensor
        (..., D).

    Raises
    ------
    IndexError
        If an index lies outside the table.
    ValueError
        If `padding_idx` does, or the table is no matrix.
    """
    index = _as_index("embedding", input)
    if a_tensor("embedding", weight, "weight").ndim != 2:
        raise ValueError(f"embedding: weight has shape {weight.shape}, but must be (rows, D)")
    rows = weight.shape[0]
    if padding_idx is not None and not -rows <= integer("embedding", "padding_idx", padding_idx) < rows:
        raise ValueError(f"embedding: padding_idx is {padding_idx}, but must be a row of the table of {rows} rows")
    flat = reshape(index, -1)
    if max_norm is not None:
        _limit_norms(weight, flat, number("embedding: max_norm", max_norm), number("embedding: norm_type", norm_type))
    y = launch.index_select(weight, flat, axis=0)
    context = (weight.shape, None if padding_idx is None else padding_idx % rows, scale_grad_by_freq)
    y = record(_embedding_backward, (weight,), y, (flat,), context)
    return reshape(y, (*index.shape, weight.shape[1]))


def _counts(index: Tensor, rows: int, dtype: Any) -> Tensor:
    """(rows, 1): how often each row is named."""
    counts = zeros(rows, 1, dtype=dtype)
    launch.index_add(index, ones(index.shape[0], 1, dtype=dtype), axis=0, out=counts)
    return counts


def _embedding_backward(node, dy):
    (index,) = node.saved
    shape, padding, by_frequency = node.context
    dweight = zeros(*shape, dtype=dy.dtype)
    if by_frequency:
        dy = launch.div(dy, launch.index_select(_counts(index, shape[0], dy.dtype), index, axis=0))
    launch.index_add(index, dy, axis=0, out=dweight)
    if padding is not None:
        launch.fill(value=0.0, out=dweight[padding])
    return dweight


def _limit_norms(weight: Tensor, index: Tensor, most: float, p: float) -> None:
    """weight *= min(1, most / (norm + 1e-7)) for the rows named, as PyTorch."""
    w, dtype = weight.detach(), weight.dtype
    powers = launch.pow(launch.abs(w), constant(p, dtype))
    norms = launch.pow(launch.sum(powers, axes=2, keepdim=1, divisor=1.0), constant(1 / p, dtype))
    factor = launch.div(constant(most, dtype), launch.add(norms, constant(1e-7, dtype)))
    named = launch.gt(launch.mul(norms, launch.minimum(_counts(index, w.shape[0], dtype), constant(1.0, dtype))),
                      constant(most, dtype))
    launch.mul(w, launch.where(named, factor, constant(1.0, dtype)), out=w)
