"""Elements in order: sorting, the greatest few, medians and quantiles, values without repetition."""

from __future__ import annotations

import builtins
import math
from numbers import Real
from typing import TYPE_CHECKING, NamedTuple

from .. import _core
from .._core import launch, record
from ..checks import a_tensor, among, integer
from .create import as_tensor, int64
from .index import _gather_backward, gather, index_select
from .math import ne, sub, where
from .operands import constant
from .scan import cumsum
from .scatter import nonzero, scatter
from .shape import _axis, flatten, reshape, squeeze, to
from .slices import cat, slice_view, stack

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["argsort", "kthvalue", "median", "msort", "nanmedian", "quantile", "sort", "topk", "unique", "unique_consecutive"]


class Sorted(NamedTuple):
    """What `sort`, `topk`, `kthvalue` and `median` along an axis give."""

    values: Tensor
    indices: Tensor


def _line_axis(name: str, x: Tensor, dim: int) -> int:
    return _axis(name, dim, max(a_tensor(name, x).ndim, 1))


def _sorted(x: Tensor, axis: int, descending: bool, keep: int = -1) -> Sorted:
    values, indices = launch.sort(x, axis=axis, descending=descending, keep=keep)
    return Sorted(*record(_sort_backward, (x,), (values, indices), saved=(indices,), context=(x.shape, axis)))


def _sort_backward(node, dvalues, _):
    return _gather_backward(node, dvalues) if node.context[0] else dvalues


def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = True) -> Sorted:
    """The elements along an axis in order, and where they were.

    Parameters
    ----------
    input : Tensor
        Any shape and dtype.
    dim : int
        The axis.
    descending : bool
        Whether the greatest come first. NaN is above all.
    stable : bool
        Equal elements stay in order, asked for or not.

    Returns
    -------
    (values, indices)
        A named tuple, both of `input`'s shape; indices are int64.

    Raises
    ------
    IndexError
        If there is no such axis.

    References
    ----------
    Knuth, "The Art of Computer Programming", volume 3, 5.2.5 (sorting by digits).
    """
    x = as_tensor(input)
    return _sorted(x, _line_axis("sort", x, dim), descending)


def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """Where the elements along an axis are, in their order, int64; parameters as `sort`."""
    return sort(input, dim, descending, stable).indices


def msort(input: Tensor) -> Tensor:
    """The elements along the first axis in ascending order; see `sort`."""
    return sort(input, 0).values


def _extent(x: Tensor, axis: int) -> int:
    return x.shape[axis] if x.ndim else 1


def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Sorted:
    """The `k` greatest elements along an axis, and where they are.

    Parameters
    ----------
    input : Tensor
        Any shape and dtype.
    k : int
        How many, from 0 to the axis's extent.
    dim : int
        The axis.
    largest : bool
        False: the least ones.
    sorted : bool
        They come in order, asked for or not.

    Returns
    -------
    (values, indices)
        A named tuple, both with `k` elements along the axis; of equals the first. NaN is above all.

    Raises
    ------
    ValueError
        If there are fewer than `k` elements.
    IndexError
        If there is no such axis.
    """
    axis, k = _line_axis("topk", input, dim), integer("topk", "k", k)
    n = _extent(input, axis)
    if not 0 <= k <= n:
        raise ValueError(f"topk: k is {k}, but must lie between 0 and the {n} elements of axis {axis}")
    return _sorted(input, axis, largest, k)


def _at(ordered: Sorted, axis: int, place: int, keepdim: bool) -> Sorted:
    """One place along the axis of what is sorted."""
    if ordered.values.ndim == 0:
        return ordered
    key = (slice(None),) * axis + (slice(place, place + 1),)
    parts = (slice_view(t, key) for t in ordered)
    return Sorted(*(t if keepdim else squeeze(t, axis) for t in parts))


def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Sorted:
    """The `k`-th least element along an axis, counted from 1, and where it is.

    Parameters
    ----------
    input : Tensor
        Any shape and dtype.
    k : int
        Which, from 1 to the axis's extent.
    dim : int
        The axis.
    keepdim : bool
        Whether the axis stays, with one element.

    Returns
    -------
    (values, indices)
        A named tuple.

    Raises
    ------
    ValueError
        If there are fewer than `k` elements.
    IndexError
        If there is no such axis.
    """
    axis, k = _line_axis("kthvalue", input, dim), integer("kthvalue", "k", k)
    n = _extent(input, axis)
    if not 1 <= k <= n:
        raise ValueError(f"kthvalue: k is {k}, but must lie between 1 and the {n} elements of axis {axis}")
    return _at(_sorted(input, axis, False, k), axis, k - 1, keepdim)


def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor | Sorted:
    """The middle element, of two the lower; NaN where there is one.

    Parameters
    ----------
    input : Tensor
        Any shape and dtype, not empty along the axis.
    dim : int, optional
        The axis; by default all elements are one line.
    keepdim : bool
        Whether the axis stays, with one element.

    Returns
    -------
    Tensor or (values, indices)
        Without `dim` the value, with it a named tuple of values and places. The gradient goes to that element.

    Raises
    ------
    ValueError
        If there is no element.
    """
    return _middle("median", input, dim, keepdim, False)


def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor | Sorted:
    """The middle of the elements other than NaN, of two the lower; NaN where there is none. See `median`."""
    return _middle("nanmedian", input, dim, keepdim, True)


def _middle(name: str, x: Tensor, dim: int | None, keepdim: bool, ignores: bool) -> Tensor | Sorted:
    if dim is None:
        return _middle(name, reshape(x, (a_tensor(name, x).numel(),)), 0, False, ignores).values
    axis = _line_axis(name, x, dim)
    n = _extent(x, axis)
    if n == 0:
        raise ValueError(f"{name}: axis {axis} of input {x.shape} is empty")
    ordered = _sorted(x, axis, False)
    middle = _at(ordered, axis, (n - 1) // 2, True)
    if not x.dtype.is_floating or x.ndim == 0:
        return middle if keepdim or x.ndim == 0 else Sorted(*(squeeze(t, axis) for t in middle))
    numbers = ordered.values.detach()
    # places that are NaN come last: all of them shift the middle, or the first of them takes its place
    count = launch.sum(launch.copy(launch.eq(numbers, numbers), dtype=x.dtype.code), axes=1 << axis, keepdim=1, divisor=1.0)
    count = to(count, int64)
    if ignores:
        place = where(ne(count, 0), (count - 1) // 2, 0)
    else:
        place = where(ne(count, n), count, (n - 1) // 2)
    picked = Sorted(gather(ordered.values, axis, place), launch.gather(ordered.indices, place, axis=axis))
    return picked if keepdim else Sorted(*(squeeze(t, axis) for t in picked))


_BETWEEN = ("linear", "lower", "higher", "midpoint", "nearest")


def quantile(input: Tensor, q: float | Tensor, dim: int | None = None, keepdim: bool = False, interpolation: str = "linear") -> Tensor:
    """What a share of the elements lies below: the element at q (n - 1) of the n in order, between two by interpolation.

    Parameters
    ----------
    input : Tensor
        float32 or float64, not empty along the axis.
    q : float or Tensor
        Between 0 and 1; a vector of them gives results along a new first axis. Tensors are read: a step that gives one is not
        captured.
    dim : int, optional
        The axis; by default all elements are one line.
    keepdim : bool
        Whether the axis stays, with one element.
    interpolation : str
        "linear", "lower", "higher", "midpoint" or "nearest".

    Returns
    -------
    Tensor
        NaN where an element is NaN.

    Raises
    ------
    ValueError
        If `q` lies outside 0 to 1 or has more than one axis, `interpolation` is another, or there is no element.
    TypeError
        If `input` holds integers or bools.
    """
    among("quantile: interpolation", interpolation, _BETWEEN)
    if not a_tensor("quantile", input).dtype.is_floating:
        raise TypeError(f"quantile: input has dtype {input.dtype}, but must be float32 or float64: convert it first, x.float()")
    given = q.tolist() if hasattr(q, "tolist") else q
    shares = given if isinstance(given, (list, tuple)) else [given]
    if not all(isinstance(share, Real) and 0 <= share <= 1 for share in shares):
        raise ValueError(f"quantile: q is {q!r}, but must be a number between 0 and 1, or a vector of them")
    lines = reshape(input, (input.numel(),)) if dim is None else input
    axis = 0 if dim is None else _line_axis("quantile", input, dim)
    n = _extent(lines, axis)
    if n == 0:
        raise ValueError(f"quantile: axis {axis} of input {lines.shape} is empty")
    ordered = _sorted(lines, axis, False)
    found = [_interpolated(ordered, axis, share * (n - 1), n, keepdim, interpolation) for share in shares]
    if dim is None and keepdim:
        found = [reshape(y, (1,) * input.ndim) for y in found]
    return found[0] if shares is not given else stack(found, 0)


def _interpolated(ordered: Sorted, axis: int, place: float, n: int, keepdim: bool, interpolation: str) -> Tensor:
    low, high = math.floor(place), builtins.min(math.ceil(place), n - 1)
    weight = {"lower": 0.0, "higher": 1.0, "midpoint": 0.5, "nearest": float(builtins.round(place) - low)}.get(interpolation,
                                                                                                               place - low)
    a, b = (_at(ordered, axis, k, keepdim).values for k in (low, high))
    y = a if low == high or weight == 0 else a + (b - a) * weight
    last = _at(ordered, axis, n - 1, keepdim).values.detach()
    return where(ne(last, last), constant(math.nan, y.dtype), y)  # NaN, which is above all, wins


# ---- values without repetition ----------------------------------------------------------------------------------------


def unique(input: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False,
           dim: int | None = None) -> Tensor | tuple[Tensor, ...]:
    """The distinct elements, in order.

    Parameters
    ----------
    input : Tensor
        Any shape and dtype.
    sorted : bool
        They come in order, asked for or not.
    return_inverse : bool
        Whether to give too, for each element of `input`, which of the distinct ones it is.
    return_counts : bool
        Whether to give too how often each is there.
    dim : int, optional
        The only axis of a tensor that has one: PyTorch's distinct slices along one of several are not offered.

    Returns
    -------
    Tensor or tuple of Tensor
        Their number depends on the elements: a step that asks for them is not captured. NaNs differ from each other.

    Raises
    ------
    ValueError
        If `dim` is given and `input` has not one axis.
    """
    x = _line_at_most("unique", input, dim)
    _core.depends_on_elements("unique")
    values, order = launch.sort(flatten(x), axis=0, descending=0, keep=-1)
    groups = _groups(values)
    inverse = None
    if return_inverse:
        number = sub(cumsum(groups, 0), 1)
        inverse = reshape(scatter(number, 0, order, number), x.shape)
    return _distinct(values, groups, inverse, return_counts)


def unique_consecutive(input: Tensor, return_inverse: bool = False, return_counts: bool = False,
                       dim: int | None = None) -> Tensor | tuple[Tensor, ...]:
    """The elements but for those that equal the one before, in logical order; see `unique`."""
    values = flatten(_line_at_most("unique_consecutive", input, dim))
    _core.depends_on_elements("unique_consecutive")
    groups = _groups(values)
    inverse = reshape(sub(cumsum(groups, 0), 1), input.shape) if return_inverse else None
    return _distinct(values, groups, inverse, return_counts)


def _line_at_most(name: str, x: Tensor, dim: int | None) -> Tensor:
    """`x` off the tape, a line if `dim` names its axis: slices along one of several are not compared."""
    if dim is not None and a_tensor(name, x).ndim != 1:
        raise ValueError(f"{name}: dim is {dim!r}, but only elements are compared: for input {x.shape} dim must be None")
    if dim is not None:
        _axis(name, dim, 1)
    return a_tensor(name, x).detach()


def _groups(values: Tensor) -> Tensor:
    """Where a line's elements differ from the ones before; the first does."""
    if values.shape[0] == 0:
        return to(values, "bool")
    first = as_tensor([True])
    return cat([first, ne(slice_view(values, (slice(1, None),)), slice_view(values, (slice(None, -1),)))])


def _distinct(values: Tensor, groups: Tensor, inverse: Tensor | None, return_counts: bool) -> Tensor | tuple[Tensor, ...]:
    starts = reshape(nonzero(groups), (-1,))
    answer = [index_select(values, 0, starts)]
    if inverse is not None:
        answer.append(inverse)
    if return_counts:
        ends = cat([slice_view(starts, (slice(1, None),)), as_tensor([values.shape[0]])]) if starts.shape[0] else starts
        answer.append(sub(ends, starts))
    return tuple(answer) if len(answer) > 1 else answer[0]
