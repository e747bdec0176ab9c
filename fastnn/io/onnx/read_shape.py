"""Operators that move elements and make them: shapes, slices, joins, padding, constants."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ... import functional as F
from ..._core import as_dtype
from ...ops.create import arange, full, tensor
from ...tensor import Tensor
from .operators import only, reads

# ONNX's numbers of the types that tensors here may have.
TYPES = {1: "float32", 2: "uint8", 6: "int32", 7: "int64", 9: "bool", 11: "float64"}
_LARGEST = 1 << 40  # elements: what no machine holds is refused before its size overflows


def _numbers(array: np.ndarray) -> list[int]:
    return [int(n) for n in array.reshape(-1)]


def _sized(shape: list[int]) -> list[int]:
    """A shape from a file, or an error where it cannot be one."""
    if any(n < 0 for n in shape) or math.prod(shape) > _LARGEST:
        raise ValueError(f"the shape {tuple(shape)} is asked for, but extents must be at least 0, and elements at most {_LARGEST:,}")
    return shape


# ---- shapes ----


@reads("Shape")
def _shape(x: Tensor, *, start: int = 0, end: int | None = None) -> np.ndarray:
    return np.array(x.shape[start:end], np.int64)


@reads("Size")
def _size(x: Tensor) -> np.ndarray:
    return np.array(x.numel(), np.int64)


@reads("Reshape", plain=(1,))
def _reshape(x: Tensor, shape: np.ndarray, *, allowzero: int = 0) -> Tensor:
    wanted = _numbers(shape)
    if not allowzero:
        if any(n == 0 and k >= x.ndim for k, n in enumerate(wanted)):
            raise ValueError(f"the shape {wanted} keeps an axis that the input, {tuple(x.shape)}, does not have")
        wanted = [x.shape[k] if n == 0 else n for k, n in enumerate(wanted)]
    return F.reshape(x, wanted)


@reads("Flatten")
def _flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    first = axis + x.ndim if axis < 0 else axis
    if not 0 <= first <= x.ndim:
        raise ValueError(f"axis is {axis}, but the input has shape {tuple(x.shape)}")
    return F.reshape(x, (math.prod(x.shape[:first]), math.prod(x.shape[first:])))


@reads("Transpose")
def _transpose(x: Tensor, *, perm: list[int] | None = None) -> Tensor:
    return F.permute(x, *(range(x.ndim)[::-1] if perm is None else perm)) if x.ndim else x


@reads("Squeeze", plain=(1,))
def _squeeze(x: Tensor, given: np.ndarray | None = None, *, axes: list[int] | None = None) -> Tensor:
    wanted = axes if given is None else _numbers(given)
    if wanted is None:
        wanted = [k for k, n in enumerate(x.shape) if n == 1]
    if any(not -x.ndim <= k < x.ndim or x.shape[k] != 1 for k in wanted):
        raise ValueError(f"axes are {wanted}, but must be axes of extent 1 of the input, whose shape is {tuple(x.shape)}")
    gone = {k % x.ndim for k in wanted}
    return F.reshape(x, [n for k, n in enumerate(x.shape) if k not in gone])


@reads("Unsqueeze", plain=(1,))
def _unsqueeze(x: Tensor, given: np.ndarray | None = None, *, axes: list[int] | None = None) -> Tensor:
    wanted = (axes or []) if given is None else _numbers(given)
    rank = x.ndim + len(wanted)
    places = {k % rank for k in wanted if -rank <= k < rank}
    if len(places) != len(wanted):
        raise ValueError(f"axes are {wanted}, but must be different places among {rank}")
    extents = iter(x.shape)
    return F.reshape(x, [1 if k in places else next(extents) for k in range(rank)])


@reads("Expand", plain=(1,))
def _expand(x: Tensor, shape: np.ndarray) -> Tensor:
    return F.broadcast_to(x, tuple(np.broadcast_shapes(tuple(x.shape), tuple(_sized(_numbers(shape))))))


@reads("Tile", plain=(1,))
def _tile(x: Tensor, repeats: np.ndarray) -> Tensor:
    counts = _numbers(repeats)
    if len(counts) != x.ndim:
        raise ValueError(f"repeats are {counts}, but the input has shape {tuple(x.shape)}")
    _sized([n * k for n, k in zip(x.shape, counts)])
    return F.tile(x, *counts) if counts else x


# ---- parts and joins ----


@reads("Concat")
def _concat(*parts: Tensor, axis: int = 1) -> Tensor:
    return F.cat(parts, axis)


@reads("Split", plain=(1,))
def _split(x: Tensor, given: np.ndarray | None = None, *, axis: int = 0, split: list[int] | None = None,
           num_outputs: int | None = None, outputs: int) -> tuple[Tensor, ...]:
    sizes = split if given is None else _numbers(given)
    if sizes is None:
        size = -(-x.shape[axis] // outputs)
        sizes = [size] * (outputs - 1) + [x.shape[axis] - size * (outputs - 1)]
    if min(sizes) < 0:
        raise ValueError(f"the axis has {x.shape[axis]} elements, which make no {outputs} parts")
    return F.split(x, sizes, axis)


@reads("Slice", plain=(1, 2, 3, 4))
def _slice(x: Tensor, first: np.ndarray | None = None, last: np.ndarray | None = None, along: np.ndarray | None = None,
           steps: np.ndarray | None = None, *, starts: list[int] | None = None, ends: list[int] | None = None,
           axes: list[int] | None = None) -> Tensor:
    begin, end = (words if array is None else _numbers(array) for array, words in ((first, starts), (last, ends)))
    if begin is None or end is None:
        raise ValueError("starts and ends are not given")
    dims = (list(range(len(begin))) if axes is None else axes) if along is None else _numbers(along)
    strides = [1] * len(begin) if steps is None else _numbers(steps)
    if not len(begin) == len(end) == len(dims) == len(strides) or 0 in strides:
        raise ValueError(f"starts {begin}, ends {end}, axes {dims} and steps {strides} must be as many, and no step 0")
    key = [slice(None)] * x.ndim
    for dim, start, stop, step in zip(dims, begin, end, strides):
        if step > 0:
            key[dim] = slice(start, stop, step)
        else:
            x = F.index_select(x, dim, np.arange(*slice(start, stop, step).indices(x.shape[dim])))
    return F.slice_view(x, tuple(key))


@reads("Gather")
def _gather(x: Tensor, index: Tensor, *, axis: int = 0) -> Tensor:
    dim = axis % x.ndim if x.ndim else 0
    picked = F.index_select(x, axis, F.reshape(index, (index.numel(),)))
    return F.reshape(picked, (*x.shape[:dim], *index.shape, *x.shape[dim + 1:]))


@reads("GatherElements")
def _gather_elements(x: Tensor, index: Tensor, *, axis: int = 0) -> Tensor:
    return F.gather(x, axis, index)


@reads("ScatterElements", "Scatter")
def _scatter_elements(x: Tensor, index: Tensor, updates: Tensor, *, axis: int = 0, reduction: str = "none") -> Tensor:
    only("reduction", reduction, "none", "add")
    return (F.scatter_add if reduction == "add" else F.scatter)(x, axis, index, updates)


def _rows(x: Tensor, index: np.ndarray, batch: int) -> tuple[int, np.ndarray]:
    """How many axes an index of GatherND or ScatterND names, and which row of x, these merged, each one is: (indices,)."""
    count = batch + index.shape[-1] if index.ndim else 0
    if not 0 <= batch < index.ndim or count > x.ndim or tuple(index.shape[:batch]) != tuple(x.shape[:batch]):
        raise ValueError(f"the input has shape {tuple(x.shape)}, the index {index.shape}, with {batch} axes of a batch: they do not fit")
    extents = tuple(x.shape[:count])
    places = np.moveaxis(index, -1, 0)
    places = np.where(places < 0, places + np.reshape(extents[batch:], (-1, *(1,) * (index.ndim - 1))), places)
    if any(len(part.ravel()) and not 0 <= part.min() <= part.max() < n for part, n in zip(places, extents[batch:])):
        raise IndexError(f"an index lies outside the axes {extents[batch:]}")
    own = np.indices(extents[:batch]).reshape(batch, *extents[:batch], *(1,) * (index.ndim - 1 - batch)) if batch else ()
    axes = np.broadcast_arrays(*own, *places)
    return count, np.ravel_multi_index(axes, extents).reshape(-1) if axes else np.zeros(math.prod(index.shape[:-1]), np.int64)


def _merged(x: Tensor, count: int) -> Tensor:
    """x with its first axes made one."""
    return F.reshape(x, (math.prod(x.shape[:count]), *x.shape[count:]))


@reads("GatherND", plain=(1,))
def _gather_nd(x: Tensor, index: np.ndarray, *, batch_dims: int = 0) -> Tensor:
    count, rows = _rows(x, index, batch_dims)
    return F.reshape(F.index_select(_merged(x, count), 0, rows), (*index.shape[:-1], *x.shape[count:]))


@reads("ScatterND", plain=(1,))
def _scatter_nd(x: Tensor, index: np.ndarray, updates: Tensor, *, reduction: str = "none") -> Tensor:
    only("reduction", reduction, "none", "add")
    count, rows = _rows(x, index, 0)
    function = F.index_add if reduction == "add" else F.index_copy
    return F.reshape(function(_merged(x, count), 0, rows, F.reshape(updates, (len(rows), *x.shape[count:]))), x.shape)


@reads("Trilu", plain=(1,))
def _trilu(x: Tensor, k: np.ndarray | None = None, *, upper: int = 1) -> Tensor:
    return (F.triu if upper else F.tril)(x, 0 if k is None else int(k.item()))


@reads("DepthToSpace")
def _depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    only("mode", mode, "DCR", "CRD")
    if mode == "CRD":
        return F.pixel_shuffle(x, blocksize)
    n, c, h, w = x.shape
    y = F.reshape(x, (n, blocksize, blocksize, c // blocksize**2, h, w))
    return F.reshape(F.permute(y, 0, 3, 4, 1, 5, 2), (n, c // blocksize**2, h * blocksize, w * blocksize))


@reads("SpaceToDepth")
def _space_to_depth(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    only("mode", mode, "DCR", "CRD")
    if mode == "CRD":
        return F.pixel_unshuffle(x, blocksize)
    n, c, h, w = x.shape
    y = F.reshape(x, (n, c, h // blocksize, blocksize, w // blocksize, blocksize))
    return F.reshape(F.permute(y, 0, 3, 5, 1, 2, 4), (n, c * blocksize**2, h // blocksize, w // blocksize))


@reads("Pad", plain=(1, 2, 3))
def _pad(x: Tensor, given: np.ndarray | None = None, filling: np.ndarray | None = None, along: np.ndarray | None = None, *,
         mode: str = "constant", pads: list[int] | None = None, value: float = 0.0) -> Tensor:
    only("mode", mode, "constant", "reflect", "edge", "wrap")
    numbers = (pads or []) if given is None else _numbers(given)
    dims = list(range(x.ndim)) if along is None else _numbers(along)
    if len(numbers) != 2 * len(dims) or any(not -x.ndim <= dim < x.ndim for dim in dims):
        raise ValueError(f"pads are {numbers} for axes {dims} of an input of shape {tuple(x.shape)}")
    sides = [(0, 0)] * x.ndim
    for k, dim in enumerate(dims):
        sides[dim] = numbers[k], numbers[k + len(dims)]
    _sized([max(n + before + after, 0) for n, (before, after) in zip(x.shape, sides)])
    while sides and sides[0] == (0, 0):  # only the last axes are named
        sides.pop(0)
    flat = tuple(n for side in reversed(sides) for n in side)
    if not flat:
        return x
    if mode == "constant":
        return F.pad(x, flat, "constant", value if filling is None else filling.item())
    return F.pad(x, flat, {"edge": "replicate", "wrap": "circular"}.get(mode, mode))


# ---- constants and types ----


@reads("Constant")
def _constant(*, value: Any = None, value_float: float | None = None, value_floats: list[float] | None = None,
              value_int: int | None = None, value_ints: list[int] | None = None) -> np.ndarray:
    for given, kind in ((value_float, np.float32), (value_floats, np.float32), (value_int, np.int64), (value_ints, np.int64)):
        if given is not None:
            return np.array(given, kind)
    if value is None:
        raise ValueError("it has no value of a type that is allowed")
    return value


@reads("ConstantOfShape", plain=(0,))
def _constant_of_shape(shape: np.ndarray, *, value: np.ndarray | None = None) -> Tensor:
    filling = np.zeros(1, np.float32) if value is None else value
    return full(_sized(_numbers(shape)), filling.reshape(-1)[0].item(), dtype=as_dtype(str(filling.dtype)))


@reads("Range", plain=(0, 1, 2))
def _range(start: np.ndarray, limit: np.ndarray, delta: np.ndarray) -> Tensor:
    first, last, step = start.item(), limit.item(), delta.item()
    if step == 0 or not (last - first) / step < _LARGEST:
        raise ValueError(f"from {first} to {last} by {step} is no range")
    return arange(first, last, step, dtype=as_dtype(str(start.dtype)))


@reads("Cast")
def _cast(x: Tensor, *, to: int, saturate: int = 1) -> Tensor:
    if to not in TYPES:
        raise ValueError(f"to is type number {to}, but must be one of {', '.join(f'{n} ({name})' for n, name in TYPES.items())}")
    return F.ne(x, 0) if TYPES[to] == "bool" else F.to(x, as_dtype(TYPES[to]))


@reads("CastLike")
def _cast_like(x: Tensor, like: Tensor, *, saturate: int = 1) -> Tensor:
    return F.ne(x, 0) if str(like.dtype) == "bool" else F.to(x, like.dtype)


@reads("OneHot", plain=(1, 2))
def _one_hot(index: Tensor, depth: np.ndarray, values: np.ndarray, *, axis: int = -1) -> Tensor:
    classes = int(depth.reshape(-1)[0])
    _sized([*index.shape, classes])
    ones = F.one_hot(F.remainder(F.to(index, as_dtype("int64")), classes), classes)
    y = F.where(F.ne(ones, 0), tensor(values[1]), tensor(values[0]))
    return F.movedim(y, -1, axis)


@reads("NonZero")
def _non_zero(x: Tensor) -> Tensor:
    return F.transpose(F.nonzero(x))
