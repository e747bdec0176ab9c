"""Bags of rows of a table: their sums, means or greatest elements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import _core
from .._core import launch, record
from ..checks import a_tensor, integer, positive
from .create import as_tensor
from .embedding import _limit_norms
from .index import _as_index
from .shape import reshape

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["embedding_bag"]

_MODES = {"sum": 0, "mean": 1, "max": 2}


def embedding_bag(input: Any, weight: Tensor, offsets: Any = None, max_norm: float | None = None, norm_type: float = 2.0,
                  scale_grad_by_freq: bool = False, mode: str = "mean", per_sample_weights: Any = None,
                  include_last_offset: bool = False, padding_idx: int | None = None) -> Tensor:
    """The sum, mean or greatest elements of the rows of `weight` that each bag names, as `embedding` and a reduction
    give, but without the rows between.

    Parameters
    ----------
    input : Tensor or array_like
        (B, L) integers, a bag a row; or (J,) with `offsets`. Negative ones count from the table's end.
    weight : Tensor
        (V, D).
    offsets : Tensor or array_like, optional
        (B,): where each bag begins in `input`, from 0 on, never falling; a bag may be empty.
    max_norm : float, optional
        Rows that `input` names are first scaled down to this norm, in place, if theirs is greater.
    norm_type : float
        Which norm: the p of (sum of |w|^p)^(1/p).
    scale_grad_by_freq : bool
        Whether a row's gradient is divided by how often `input` names it; not with mode "max".
    mode : str
        "sum", "mean" or "max".
    per_sample_weights : Tensor or array_like, optional
        Of `input`'s shape: factors for the rows; with mode "sum" alone.
    include_last_offset : bool
        Whether `offsets` is (B + 1,) and ends with the number of indices.
    padding_idx : int, optional
        A row that does not count, neither in a bag nor in its length, and takes no gradient.

    Returns
    -------
    Tensor
        (B, D); 0 for a bag without rows. Of equal greatest elements the first one takes the gradient; a NaN is greater
        than all numbers.

    Raises
    ------
    IndexError
        If an index lies outside the table.
    ValueError
        If shapes do not fit, offsets do not begin with 0, fall or point behind the last index, options do not go
        together, or `padding_idx` is no row.
    """
    name = "embedding_bag"
    index = _as_index(name, input, "input")
    offsets = None if offsets is None else _as_index(name, offsets, "offsets")
    rows = weight.shape[0] if a_tensor("embedding_bag", weight, "weight").ndim == 2 else 0
    if not isinstance(mode, str) or mode not in _MODES:
        raise ValueError(f"{name}: mode is {mode!r}, but must be 'sum', 'mean' or 'max'")
    if index.ndim == 2 and offsets is not None:
        raise ValueError(f"{name}: input has shape {index.shape}, whose rows are the bags: offsets must not be given")
    if scale_grad_by_freq and mode == "max":
        raise ValueError(f"{name}: scale_grad_by_freq does not go with mode 'max'")
    if padding_idx is not None and not -rows <= integer(name, "padding_idx", padding_idx) < rows:
        raise ValueError(f"{name}: padding_idx is {padding_idx}, but must be a row of the table of {rows} rows")
    if per_sample_weights is not None:
        per_sample_weights = as_tensor(per_sample_weights, weight.dtype)
    if max_norm is not None:
        _limit_norms(weight, reshape(index, -1), positive(f"{name}: max_norm", max_norm),
                     positive(f"{name}: norm_type", norm_type))
    bags = {"include_last": bool(include_last_offset), "padding": -1 if padding_idx is None else padding_idx % rows}
    y, argmax = launch.embedding_bag_forward(weight, index, offsets, per_sample_weights, mode=_MODES[mode], **bags)
    # The weights' gradient needs the table, and nothing else does: it may change in place before backward otherwise.
    is_weighted = per_sample_weights is not None and per_sample_weights.requires_grad
    saved = (index, offsets, per_sample_weights, argmax if mode == "max" else None, weight if is_weighted else None)
    inputs = (weight,) if per_sample_weights is None else (weight, per_sample_weights)
    options = {"mode": _MODES[mode], "by_frequency": bool(scale_grad_by_freq)}
    return record(_embedding_bag_backward, inputs, y, saved, (weight.shape, options, bags))


def _embedding_bag_backward(node, dy):
    index, offsets, per_sample_weights, argmax, weight = node.saved
    shape, options, bags = node.context
    dweight = None
    if node.needs[0]:
        dweight = _core.empty(shape, dy.dtype)
        launch.embedding_bag_backward(dy, index, offsets, per_sample_weights, argmax, out=dweight, **options, **bags)
    if per_sample_weights is None:
        return dweight
    dfactors = launch.embedding_bag_backward_weights(dy, weight, index, offsets, **bags) if node.needs[1] else None
    return dweight, dfactors
