"""Writing to places that an index names, and finding places: scatter, index_add, masked_select, nonzero."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._core import TensorBase, launch, record
from ..checks import a_tensor, among, integer, whole
from .create import as_tensor, bool_, float64, full_like, int64, zeros
from .index import _as_index, agree_beside, gather, index_select
from .math import div, maximum, mul, ne, where
from .operands import constant
from .reduce import Dim, sum
from .shape import _axis, broadcast_to, clone, contiguous, expand, flatten, reshape, to, unsqueeze
from .slices import slice_view, unbind

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["argwhere", "bincount", "count_nonzero", "index_add", "index_copy", "index_fill", "masked_fill", "masked_scatter",
           "masked_select", "nonzero", "repeat_interleave", "scatter", "scatter_add", "scatter_reduce", "take_along_dim"]

_NEUTRAL = {"sum": 0.0, "mean": 0.0, "prod": 1.0, "amax": -np.inf, "amin": np.inf}
_NEUTRAL_INTEGERS = {"sum": 0, "mean": 0, "prod": 1, "amax": -2**63, "amin": 2**63 - 1}
_LONG = 8  # elements behind an axis from which on repeating its places copies rows faster than picking them
_HOW = {"write": 0, "prod": 1, "amax": 2, "amin": 3}


# ---- an index of its own for every element ----------------------------------------------------------------------------


def _part(x: Tensor, shape: Sequence[int], axis: int | None = None) -> Tensor:
    """The first elements of `x` along every axis but `axis`, as many as `shape` has."""
    if all(n == m or d == axis for d, (n, m) in enumerate(zip(x.shape, shape))):
        return x
    return slice_view(x, tuple(slice(None) if d == axis else slice(n) for d, n in enumerate(shape)))


def _operands(name: str, x: Tensor, dim: int, index: Any, src: Any) -> tuple[int, Tensor, Tensor]:
    """The axis, the index and as much of the source as the index has places for."""
    axis, index = _axis(name, dim, a_tensor(name, x).ndim), _as_index(name, index)
    if index.ndim != x.ndim or any(n > m for d, (n, m) in enumerate(zip(index.shape, x.shape)) if d != axis):
        raise ValueError(f"{name}: index has shape {index.shape}, but must have {x.ndim} axes and, but for dim {axis}, "
                         f"no longer ones "
                         f"than input {x.shape}")
    if not isinstance(src, TensorBase):
        number = isinstance(src, (int, float)) and x.dtype.is_floating
        return axis, index, expand(constant(src, x.dtype) if number else as_tensor(src, x.dtype), index.shape)
    if src.dtype is not x.dtype:
        raise TypeError(f"{name}: src is {src.dtype}, but must be {x.dtype} like input")
    if src.ndim != x.ndim or any(n > m for n, m in zip(index.shape, src.shape)):
        raise ValueError(f"{name}: src has shape {src.shape}, but must have {x.ndim} axes, none shorter than those of index "
                         f"{index.shape}")
    return axis, index, _part(src, index.shape)


def _write(x: Tensor, axis: int, index: Tensor, src: Tensor, how: str) -> Tensor:
    """A copy of `x` with `src` written, multiplied or compared into it, off the tape."""
    y = clone(x.detach())
    launch.scatter(index, src.detach(), axis=axis, how=_HOW[how], out=_part(y, index.shape, axis))
    return y


def scatter(input: Tensor, dim: int, index: Any, src: Tensor | float | None = None, *, reduce: str | None = None,
            value: float | None = None) -> Tensor:
    """A copy of `input` with elements replaced: y[i, index[i, j, k], k] = src[i, j, k] for dim = 1.

    Parameters
    ----------
    input : Tensor
        Any shape and dtype.
    dim : int
        The axis that the index points into.
    index : Tensor or array_like
        Integers from 0 on, with as many axes as `input`; but for `dim` none longer than `input`'s.
    src : Tensor or number
        What to write, no axis shorter than the index's.
    reduce : str, optional
        "add" or "multiply": what is there and what comes, together.
    value : number, optional
        PyTorch's name for `src` where that is a number.

    Returns
    -------
    Tensor
        Shape and type of `input`. Of equal indices the last one holds.

    Raises
    ------
    IndexError
        If an index lies outside the axis.
    TypeError
        If `src` has another type than `input`, or neither or both of `src` and `value` are given.
    ValueError
        If shapes do not fit, or `reduce` is another.
    """
    if (src is None) is (value is None):
        raise TypeError(f"scatter: {'neither' if src is None else 'both'} of src and value given, but must be one")
    src = value if src is None else src
    if reduce == "add":
        return scatter_add(input, dim, index, src)
    if reduce == "multiply":
        return scatter_reduce(input, dim, index, src, "prod")
    if reduce is not None:
        raise ValueError(f"scatter: reduce is {reduce!r}, but must be 'add', 'multiply' or None")
    axis, index, src = _operands("scatter", input, dim, index, src)
    return record(_scatter_backward, (input, src), _write(input, axis, index, src, "write"), saved=(index,), context=axis)


def _scatter_backward(node, dy):
    (index,) = node.saved
    axis = node.context
    dx = _write(dy, axis, index, expand(constant(0.0, dy.dtype), index.shape), "write") if node.needs[0] else None
    return dx, launch.gather(_part(dy, index.shape, axis), index, axis=axis) if node.needs[1] else None


def scatter_add(input: Tensor, dim: int, index: Any, src: Tensor | float) -> Tensor:
    """A copy of `input` with elements added: y[i, index[i, j, k], k] += src[i, j, k] for dim = 1.

    Parameters
    ----------
    input : Tensor
        Any shape and dtype; sums of integers wrap around.
    dim : int
        The axis that the index points into.
    index : Tensor or array_like
        As for `scatter`.
    src : Tensor or number
        What to add, no axis shorter than the index's.

    Returns
    -------
    Tensor
        Shape and type of `input`. Equal indices add in order, whatever the number of threads.

    Raises
    ------
    IndexError
        If an index lies outside the axis.
    TypeError
        If `src` has another type than `input`.
    ValueError
        If shapes do not fit.
    """
    axis, index, src = _operands("scatter_add", input, dim, index, src)
    if not input.dtype.is_floating and input.dtype is not int64:
        return to(scatter_add(to(input, int64), axis, index, to(src, int64)), input.dtype)
    y = clone(input.detach())
    launch.scatter_add(index, src.detach(), axis=axis, out=_part(y, index.shape, axis))
    return record(_scatter_add_backward, (input, src), y, saved=(index,), context=axis)


def _scatter_add_backward(node, dy):
    (index,) = node.saved
    return dy, launch.gather(_part(dy, index.shape, node.context), index, axis=node.context) if node.needs[1] else None


def scatter_reduce(input: Tensor, dim: int, index: Any, src: Tensor | float, reduce: str, *, include_self: bool = True) -> Tensor:
    """A copy of `input` in which all that one index names is reduced to one element.

    Parameters
    ----------
    input : Tensor
        Any shape and dtype; means of integers are rounded down.
    dim : int
        The axis that the index points into.
    index : Tensor or array_like
        As for `scatter`.
    src : Tensor or number
        What is reduced, no axis shorter than the index's.
    reduce : str
        "sum", "prod", "mean", "amax" or "amin".
    include_self : bool
        Whether the element of `input` counts too where an index names it.

    Returns
    -------
    Tensor
        Shape and type of `input`; where no index points, x. The gradient of extrema is shared among equals.

    Raises
    ------
    IndexError
        If an index lies outside the axis.
    TypeError
        If types do not fit, or a gradient of products is asked for, which there is not.
    ValueError
        If shapes do not fit, or `reduce` is another.
    """
    among("scatter_reduce: reduce", reduce, _NEUTRAL)
    axis, index, src = _operands("scatter_reduce", input, dim, index, src)
    if not input.dtype.is_floating and input.dtype is not int64:
        return to(scatter_reduce(to(input, int64), axis, index, to(src, int64), reduce, include_self=include_self), input.dtype)
    base = input if include_self else scatter(input, axis, index, (_NEUTRAL if input.dtype.is_floating else _NEUTRAL_INTEGERS)[reduce])
    if reduce in ("sum", "mean"):
        y = scatter_add(base, axis, index, src)
        rounding = None if input.dtype.is_floating else "floor"
        return y if reduce == "sum" else div(y, _counts(input, axis, index, include_self), rounding_mode=rounding)
    if reduce == "prod" and _core.is_grad_enabled() and (input.requires_grad or src.requires_grad):
        raise TypeError("scatter_reduce: products have no gradient: use logarithms, or no_grad()")
    y = _write(base, axis, index, src, reduce)
    return y if reduce == "prod" else record(_scatter_extremum_backward, (base, src), y, saved=(base, src, index, y), context=axis)


def _counts(x: Tensor, axis: int, index: Tensor, include_self: bool) -> Tensor:
    """How many elements each mean is of: of x's shape, or one number a slice where the index says the same for whole slices."""
    covers = all(n == m or d == axis for d, (n, m) in enumerate(zip(index.shape, x.shape)))
    if covers and all(step == 0 or n == 1 or d == axis for d, (n, step) in enumerate(zip(index.shape, index.strides))):
        one = tuple(slice(None) if d == axis else slice(1) for d in range(x.ndim))
        x, index = slice_view(x, one), slice_view(index, one)
    start = full_like(x, int(include_self))
    ones = expand(constant(1, x.dtype), index.shape)
    launch.scatter_add(index, ones, axis=axis, out=_part(start, index.shape, axis))
    return start if include_self else maximum(start, 1)


def _scatter_extremum_backward(node, dy):
    base, src, index, y = node.saved
    axis, zero = node.context, constant(0.0, dy.dtype)

    def picked(t):
        return launch.gather(_part(t, index.shape, axis), index, axis=axis)

    here, there = launch.eq(base, y), launch.eq(src, picked(y))
    count = launch.copy(here, dtype=dy.dtype.code)
    launch.scatter_add(index, launch.copy(there, dtype=dy.dtype.code), axis=axis, out=_part(count, index.shape, axis))
    share = launch.div(dy, count)
    return launch.where(here, share, zero), launch.where(there, picked(share), zero)


def take_along_dim(input: Tensor, indices: Any, dim: int | None = None) -> Tensor:
    """One element of `input` along `dim` for every index, as `gather`; the other axes broadcast together.

    Parameters
    ----------
    input : Tensor
        Any shape and dtype.
    indices : Tensor or array_like
        Integers from 0 on.
    dim : int, optional
        The axis; by default all elements of `input` in logical order are one.

    Returns
    -------
    Tensor

    Raises
    ------
    IndexError
        If an index lies outside the axis.
    ValueError
        If the shapes do not broadcast.
    """
    indices = _as_index("take_along_dim", indices, "indices")
    if dim is None:
        return gather(flatten(input), 0, flatten(indices))
    axis = _axis("take_along_dim", dim, a_tensor("take_along_dim", input).ndim)
    if indices.ndim != input.ndim:
        raise ValueError(f"take_along_dim: indices has shape {indices.shape}, but must have {input.ndim} axes like input")
    if agree_beside(indices, input, axis):
        return gather(input, axis, indices)
    shapes = [[1 if d == axis else n for d, n in enumerate(t.shape)] for t in (input, indices)]
    try:
        common = list(np.broadcast_shapes(*shapes))
    except ValueError:
        raise ValueError(f"take_along_dim: shapes {input.shape} and {indices.shape} do not broadcast but for dim {axis}") from None
    wide = [broadcast_to(t, (*common[:axis], t.shape[axis], *common[axis + 1:])) for t in (input, indices)]
    return gather(wide[0], axis, wide[1])


# ---- one index for all places along an axis ---------------------------------------------------------------------------


def _rows(name: str, x: Tensor, dim: int, index: Any) -> tuple[int, Tensor, tuple[int, ...]]:
    """The axis, the index as a vector, and the shape of what it picks."""
    axis, index = _axis(name, dim, a_tensor(name, x).ndim), _as_index(name, index)
    if index.ndim > 1:
        raise ValueError(f"{name}: index has shape {index.shape}, but must have one axis")
    return axis, reshape(index, (-1,)), (*x.shape[:axis], index.numel(), *x.shape[axis + 1:])


def _along(index: Tensor, axis: int, shape: Sequence[int]) -> Tensor:
    """A vector of indices as an index of its own for every element."""
    return expand(reshape(index, [-1 if d == axis else 1 for d in range(len(shape))]), shape)


def _check_source(name: str, source: Tensor, x: Tensor, shape: Sequence[int]) -> None:
    if not isinstance(source, TensorBase) or source.shape != tuple(shape) or source.dtype is not x.dtype:
        given = f"{source.dtype} {source.shape}" if isinstance(source, TensorBase) else f"a {type(source).__name__}"
        raise ValueError(f"{name}: source is {given}, but must be a {x.dtype} tensor of shape {tuple(shape)}")


def index_add(input: Tensor, dim: int, index: Any, source: Tensor, *, alpha: float = 1.0) -> Tensor:
    """A copy of `input` with alpha times the slices of `source` added to those that `index` names along `dim`.

    Parameters
    ----------
    input : Tensor
        Any shape and dtype; sums of integers wrap around.
    dim : int
        The axis.
    index : Tensor or array_like
        (J,) integers; negative ones count from the end.
    source : Tensor
        Of `input`'s shape with J at axis `dim`.
    alpha : float
        A factor.

    Returns
    -------
    Tensor
        Shape of `input`. Equal indices add in order, whatever the number of threads.

    Raises
    ------
    IndexError
        If an index lies outside the axis.
    ValueError
        If shapes or types do not fit.
    """
    axis, index, shape = _rows("index_add", input, dim, index)
    _check_source("index_add", source, input, shape)
    if not input.dtype.is_floating:
        alpha = int(alpha) if alpha == int(alpha) else alpha
        source = to(source if alpha == 1 else mul(source, alpha), input.dtype)
        return scatter_add(input, axis, _along(_from_0(index, input.shape[axis]), axis, shape), source)
    source = source if alpha == 1 else mul(source, alpha)
    y = clone(input.detach())
    launch.index_add(index, source.detach(), axis=axis, out=y)
    return record(_index_add_backward, (input, source), y, saved=(index,), context=axis)


def _index_add_backward(node, dy):
    return dy, launch.index_select(dy, node.saved[0], axis=node.context) if node.needs[1] else None


def _from_0(index: Tensor, extent: int) -> Tensor:
    """Negative indices counted from the front."""
    return where(index < 0, index + extent, index)


def index_copy(input: Tensor, dim: int, index: Any, source: Tensor) -> Tensor:
    """A copy of `input` with the slices that `index` names along `dim` replaced by those of `source`; see `index_add`."""
    axis, index, shape = _rows("index_copy", input, dim, index)
    _check_source("index_copy", source, input, shape)
    return scatter(input, axis, _along(_from_0(index, input.shape[axis]), axis, shape), source)


def index_fill(input: Tensor, dim: int, index: Any, value: float) -> Tensor:
    """A copy of `input` with one number in the slices that `index` names along `dim`; see `index_add`."""
    axis, index, shape = _rows("index_fill", input, dim, index)
    return scatter(input, axis, _along(_from_0(index, input.shape[axis]), axis, shape), value)


def repeat_interleave(input: Tensor, repeats: int | Tensor, dim: int | None = None) -> Tensor:
    """Each place along an axis several times, one after the other.

    Parameters
    ----------
    input : Tensor
        Any shape and dtype.
    repeats : int or Tensor
        How often, for all places or for each. Tensors are read: a step that gives one is not captured.
    dim : int, optional
        The axis; by default all elements are one line.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        If a number is negative, or there is not one for each place.
    """
    if dim is None:
        return repeat_interleave(flatten(input), repeats, 0)
    axis = _axis("repeat_interleave", dim, a_tensor("repeat_interleave", input).ndim)
    is_tensor = isinstance(repeats, TensorBase)
    counts = np.asarray(memoryview(repeats) if is_tensor else integer("repeat_interleave", "repeats", repeats))
    if counts.dtype.kind not in "iu" or counts.ndim > 1 or counts.size not in (1, input.shape[axis]) or (counts < 0).any():
        raise ValueError(f"repeat_interleave: repeats is {repeats!r}, but must be an integer of at least 0, or one for each of "
                         f"{input.shape[axis]} places")
    before, behind = input.shape[:axis + 1], input.shape[axis + 1:]
    if not is_tensor and repeats > 1 and input.ndim not in (4, 8) and math.prod(behind) >= _LONG:  # of four, results lie as those do
        whole = contiguous(expand(unsqueeze(input, axis + 1), (*before, repeats, *behind)))
        return reshape(whole, (*before[:-1], before[-1] * repeats, *behind))
    return index_select(input, axis, as_tensor(np.repeat(np.arange(input.shape[axis]), counts)))


# ---- finding places: how many there are depends on the elements -------------------------------------------------------


def nonzero(input: Tensor, *, as_tuple: bool = False) -> Tensor | tuple[Tensor, ...]:
    """Where elements are other than 0, in logical order.

    Parameters
    ----------
    input : Tensor
        Any shape and dtype; NaN is other than 0.
    as_tuple : bool
        One vector for each axis, as a key for ``x[...]``, in place of a matrix.

    Returns
    -------
    Tensor or tuple of Tensor
        (how many, axes), int64. Their number is read: a step that asks for it is not captured.
    """
    if as_tuple:
        return unbind(nonzero(input if a_tensor("nonzero", input).ndim else reshape(input, (1,))), 1)
    _core.depends_on_elements("nonzero")
    count = int(count_nonzero(input).item())
    return launch.nonzero(input.detach(), out=_core.empty((count, input.ndim), int64, contiguous=True))


def argwhere(input: Tensor) -> Tensor:
    """Where elements are other than 0: (how many, axes); see `nonzero`."""
    return nonzero(input)


def count_nonzero(input: Tensor, dim: Dim = None) -> Tensor:
    """How many elements are other than 0, over axes, as for `sum`: int64."""
    return sum(ne(a_tensor("count_nonzero", input).detach(), 0), dim)


def _places(name: str, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """`x` as one line, broadcast with the mask, where that holds, and the shape of both."""
    mask = as_tensor(mask)
    if mask.dtype is not bool_:
        raise TypeError(f"{name}: mask is {mask.dtype}, but must be bool")
    try:
        shape = np.broadcast_shapes(a_tensor(name, x).shape, mask.shape)
    except ValueError:
        raise ValueError(f"{name}: input {x.shape} and mask {mask.shape} do not broadcast together") from None
    return flatten(broadcast_to(x, shape)), reshape(nonzero(flatten(broadcast_to(mask, shape))), (-1,)), shape


def masked_fill(input: Tensor, mask: Tensor, value: Tensor | float) -> Tensor:
    """One number where a mask holds, `input` elsewhere.

    Parameters
    ----------
    input : Tensor
        Any type.
    mask : Tensor
        bool; its shape and `input`'s broadcast together.
    value : Tensor or number
        The number, as such or as a 0-d tensor, which may take a gradient.

    Returns
    -------
    Tensor
        The broadcast shape, of `input`'s type.

    Raises
    ------
    TypeError
        If `mask` is not bool.
    ValueError
        If `value` is more than one number or shapes do not fit.
    """
    if getattr(value, "ndim", 0):
        raise ValueError(f"masked_fill: value has shape {value.shape}, but must be one number")
    if isinstance(value, float) and math.isfinite(value) and a_tensor("masked_fill", input).dtype.name in ("int64", "int32", "uint8"):
        value = int(value)  # as the elements are: beside a float they would all be rounded to float32
    return to(where(mask, value, input), a_tensor("masked_fill", input).dtype)


def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where a mask holds, as one line in logical order.

    Parameters
    ----------
    input : Tensor
        Any shape and dtype.
    mask : Tensor
        bool; the shapes broadcast together.

    Returns
    -------
    Tensor
        One axis. Its length is read: a step that asks for it is not captured.

    Raises
    ------
    TypeError
        If the mask is not bool.
    ValueError
        If the shapes do not broadcast.
    """
    _core.depends_on_elements("masked_select")
    line, places, _ = _places("masked_select", input, mask)
    return index_select(line, 0, places)


def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """A copy of `input` with the elements where a mask holds replaced by the first of `source`, in logical order.

    Parameters
    ----------
    input : Tensor
        Any shape and dtype.
    mask : Tensor
        bool; broadcasts with `input`.
    source : Tensor
        Of `input`'s type, at least as many elements as the mask picks.

    Returns
    -------
    Tensor

    Raises
    ------
    TypeError
        If the mask is not bool, or types differ.
    ValueError
        If the shapes do not broadcast, or `source` is too short.
    """
    _core.depends_on_elements("masked_scatter")
    line, places, shape = _places("masked_scatter", input, mask)
    if a_tensor("masked_scatter", source, "source").numel() < places.shape[0]:
        raise ValueError(f"masked_scatter: source has {source.numel()} elements, but the mask picks {places.shape[0]}")
    return reshape(scatter(line, 0, places, flatten(source)), shape)


def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each number from 0 on is there, or the sum of its weights.

    Parameters
    ----------
    input : Tensor
        (N,) integers from 0 on.
    weights : Tensor, optional
        (N,), what each counts.
    minlength : int
        The least length of the result.

    Returns
    -------
    Tensor
        As long as the greatest number needs, which is read: a step that asks for it is not captured. int64, or the weights' type.

    Raises
    ------
    ValueError
        If shapes do not fit or a number is negative.
    """
    x = _as_index("bincount", input, "input")
    if (x.shape if weights is None else a_tensor("bincount", weights, "weights").shape) != x.shape or x.ndim != 1:
        raise ValueError(f"bincount: input has shape {x.shape}{'' if weights is None else f' and weights {weights.shape}'}, but "
                         "must have one axis, weights the same")
    _core.depends_on_elements("bincount")
    top = int(x.max().item()) + 1 if x.numel() else 0
    if weights is None:
        counts = _core.empty((max(top, whole("bincount: minlength", minlength, 0)),), int64, contiguous=True)
        launch.bincount(x, out=counts)
        return counts
    if x.numel() and int(x.min().item()) < 0:
        raise ValueError(f"bincount: input holds {int(x.min().item())}, but must hold numbers from 0 on")
    length = max(top, whole("bincount: minlength", minlength, 0))
    dtype = weights.dtype if weights.dtype.is_floating else float64
    return scatter_add(zeros(length, dtype=dtype), 0, x, to(weights, dtype))
