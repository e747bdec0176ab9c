"""Where values belong among sorted ones, which of them occur, and how many lie in each bin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import _core
from .._core import launch
from ..checks import a_tensor, real, whole
from .create import bool_, float32, full_like, int32, int64
from .index import gather, index_select
from .math import eq, minimum, ne
from .operands import constant, operands
from .order import sort
from .reduce import amax, amin
from .shape import flatten, reshape, to
from .slices import slice_view

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["bucketize", "histc", "isin", "searchsorted"]


def searchsorted(sorted_sequence: Tensor, input: Tensor | float, *, out_int32: bool = False, right: bool = False,
                 side: str | None = None, sorter: Tensor | None = None) -> Tensor:
    """Where values can be put into sorted sequences that these stay sorted.

    Parameters
    ----------
    sorted_sequence : Tensor
        (N,), or (..., N) with the leading axes of `input`; ascending along the last axis, which is not checked.
    input : Tensor or number
        Any shape with a single sequence, else (..., M).
    out_int32 : bool
        Whether the result is int32 instead of int64.
    right : bool
        Behind elements that are equal, not before them.
    side : {"left", "right"}, optional
        The same in words.
    sorter : Tensor, optional
        int64, of sorted_sequence's shape: the order that sorts it, as `argsort` gives it, where it is not sorted itself.

    Returns
    -------
    Tensor
        The shape of `input`: places from 0 to N; NaN belongs behind all.

    Raises
    ------
    ValueError
        If shapes do not fit, or `side` is another word or contradicts `right`.
    """
    if side not in (None, "left", "right") or side == "left" and right:
        raise ValueError(f"searchsorted: side is {side!r} with right={right}, but must be 'left', 'right' or None, and not contradict")
    if sorter is not None:
        sorted_sequence = gather(sorted_sequence, -1, sorter)
    return _places(sorted_sequence, input, right or side == "right", out_int32)


def bucketize(input: Tensor | float, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """In which of the intervals between boundaries elements lie.

    Parameters
    ----------
    input : Tensor or number
        Any shape.
    boundaries : Tensor
        (N,), ascending, which is not checked.
    out_int32 : bool
        Whether the result is int32 instead of int64.
    right : bool
        False: intervals include their upper boundary; True: their lower one.

    Returns
    -------
    Tensor
        The shape of `input`: 0 below all boundaries, N above all.

    Raises
    ------
    ValueError
        If `boundaries` has another number of axes than one.
    """
    if a_tensor("bucketize", boundaries, "boundaries").ndim != 1:
        raise ValueError(f"bucketize: boundaries has shape {boundaries.shape}, but must have one axis")
    return _places(boundaries, input, right, out_int32)


def _places(sorted_sequence: Tensor, values: Tensor | float, right: bool, narrow: bool) -> Tensor:
    one, many = operands("searchsorted", a_tensor("searchsorted", sorted_sequence, "sorted_sequence").detach(), values)
    if not one.dtype.is_floating:
        one, many = to(one, int64), to(many, int64)
    places = launch.searchsorted(one, many.detach(), right=bool(right))
    return to(places, int32) if narrow else places


def isin(elements: Tensor | float, test_elements: Tensor | float, *, invert: bool = False) -> Tensor:
    """Which elements occur among others.

    Parameters
    ----------
    elements : Tensor or number
        Any shape.
    test_elements : Tensor or number
        Any shape.
    invert : bool
        Which do not, instead.

    Returns
    -------
    Tensor
        bool, the shape of `elements`; NaN does not occur anywhere.
    """
    x, others = operands("isin", elements, test_elements)
    ordered = sort(flatten(others.detach())).values
    if not ordered.numel():
        return full_like(x, invert, bool_)
    places = minimum(_places(ordered, x, False, False), ordered.numel() - 1)
    there = reshape(index_select(ordered, 0, flatten(places)), x.shape)
    return ne(there, x) if invert else eq(there, x)


def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """How many elements lie in each of `bins` equal bins between `min` and `max`.

    Parameters
    ----------
    input : Tensor
        Any shape, float32 or float64.
    bins : int
        At least 1.
    min, max : float
        The outer edges; where they are equal, the least and the greatest element, or if these are equal one less and one more.

    Returns
    -------
    Tensor
        (bins,), of input's type. Elements outside and NaN are not counted; an edge belongs to the bin above it, `max` to the last.
        Where the least or greatest element, if these are the edges, is not finite, the counts mean nothing.

    Raises
    ------
    TypeError
        If `input` holds integers or bools.
    ValueError
        If `bins` is below 1, or above 2^24 for float32, `min` or `max` not finite, or `max` below `min`.
    """
    x, bins = a_tensor("histc", input).detach(), whole("histc: bins", bins, 1)
    low, high = real("histc: min", min), real("histc: max", max)
    if not x.dtype.is_floating:
        raise TypeError(f"histc: input has dtype {x.dtype}, but must be float32 or float64")
    if bins > 2**24 and x.dtype == float32:
        raise ValueError(f"histc: bins is {bins}, but must be at most {2**24}, up to where float32 counts")
    if not low <= high:
        raise ValueError(f"histc: max is {max}, but must be at least min, {min}")
    edges = (constant(low, x.dtype), constant(high, x.dtype)) if low < high else _outer_edges(x, low)
    counts = _core.empty((bins + 1,), int64, contiguous=True)  # the last: outside
    places = launch.copy(launch.histc_place(reshape(x, x.numel()), *edges, bins=float(bins)), dtype=int64.code)
    launch.bincount(places, out=counts)
    return launch.copy(slice_view(counts, (slice(bins),)), dtype=x.dtype.code)


def _outer_edges(x: Tensor, both: float) -> tuple[Tensor, Tensor]:
    """The least and the greatest element, or where there is one value around it; of nothing, around `both`."""
    low, high = (amin(x), amax(x)) if x.numel() else (constant(both, x.dtype),) * 2
    apart = to(eq(low, high), x.dtype)
    return launch.sub(low, apart), launch.add(high, apart)
