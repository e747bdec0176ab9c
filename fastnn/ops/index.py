"""Selection by integer arrays and boolean masks, with gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from ..checks import a_tensor, shown
from .._core import TensorBase, launch, record, with_ellipsis
from .create import as_tensor, int64
from .shape import _axis, reshape
from .slices import slice_view

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["gather", "index_select", "put", "take"]


def _zeros(shape: tuple[int, ...], dtype: Any) -> Tensor:
    result = _core.empty(shape, dtype)
    launch.fill(value=0.0, out=result)
    return result


def _as_index(name: str, index: Any, argument: str = "index") -> Tensor:
    """`index` as an int64 tensor."""
    index = as_tensor(index)
    if index.dtype is int64:
        return index
    if index.dtype.is_floating or index.dtype.name == "bool":
        raise TypeError(f"{name}: {argument} has dtype {index.dtype}, but must hold integers")
    return as_tensor(index, int64)


def agree_beside(a: Tensor, b: Tensor, axis: int) -> bool:
    """Whether the shapes are the same but for one axis."""
    a, b = a.shape, b.shape
    return a[:axis] == b[:axis] and a[axis + 1:] == b[axis + 1:]


def index_select(input: Tensor, dim: int, index: Any) -> Tensor:
    """The slices of `input` along `dim` that `index` names.

    Parameters
    ----------
    input : Tensor
        Any shape and dtype.
    dim : int
        The axis to pick along.
    index : Tensor or array_like
        (J,) integers, or one: J is 1. Negative ones count from the end; equal ones repeat a slice.

    Returns
    -------
    Tensor
        Of `input`'s shape with J at axis `dim`.

    Raises
    ------
    IndexError
        If an index lies outside the axis; it is named with its place.
    """
    axis, index = _axis("index_select", dim, a_tensor("index_select", input).ndim), _as_index("index_select", index)
    index = index if index.ndim else reshape(index, 1)
    y = launch.index_select(input, index, axis=axis)
    return record(_index_select_backward, (input,), y, saved=(index,), context=(input.shape, axis))


def _index_select_backward(node, dy):
    (index,) = node.saved
    shape, axis = node.context
    dx = _zeros(shape, dy.dtype)
    launch.index_add(index, dy, axis=axis, out=dx)
    return dx


def gather(input: Tensor, dim: int, index: Any) -> Tensor:
    """One element of `input` along `dim` for every element of `index`: y[i, j, k] = x[i, index[i, j, k], k] for dim = 1.

    Parameters
    ----------
    input : Tensor
        Any shape and dtype.
    dim : int
        The axis to pick along.
    index : Tensor or array_like
        Integers from 0 on, with as many axes as `input`; but for `dim` none longer than `input`'s.

    Returns
    -------
    Tensor
        Of index's shape.

    Raises
    ------
    IndexError
        If an index lies outside the axis.
    ValueError
        If `index` has another number of axes, or a longer one.
    """
    axis, index = _axis("gather", dim, a_tensor("gather", input).ndim), _as_index("gather", index)
    if index.ndim == input.ndim and not agree_beside(index, input, axis):
        input = slice_view(input, tuple(slice(None if d == axis else n) for d, n in enumerate(index.shape)))
    y = launch.gather(input, index, axis=axis)
    return record(_gather_backward, (input,), y, saved=(index,), context=(input.shape, axis))


def _gather_backward(node, dy):
    (index,) = node.saved
    shape, axis = node.context
    dx = _zeros(shape, dy.dtype)
    launch.scatter_add(index, dy, axis=axis, out=dx)
    return dx


# ---- x[key] -----------------------------------------------------------------------------------------------------------


def _is_array(part: Any) -> bool:
    return isinstance(part, (TensorBase, np.ndarray, list, tuple, range, bool, np.bool_))


def _array(part: Any) -> Any:
    """An index or mask as a NumPy array; tensors of int64 stay what they are, so that nobody reads them."""
    if isinstance(part, TensorBase):
        return part if part.dtype.name == "int64" else np.asarray(memoryview(part))
    try:
        array = np.asarray(part)
    except ValueError as error:  # rows of different lengths
        raise TypeError(f"index: {shown(part)} is no array of integers or bools: {error}") from None
    if array.size == 0 and array.dtype != np.bool_:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iub":
        raise TypeError(f"index: arrays must hold integers or bools, not {array.dtype}")
    return array


def _is_mask(array: Any) -> bool:
    return isinstance(array, np.ndarray) and array.dtype == np.bool_


def _separate(x: Tensor, key: tuple) -> tuple[tuple, list]:
    """`key` as a basic key with full slices where arrays stand, and the arrays, each with its first axis in that view."""
    if not isinstance(key, tuple):
        raise TypeError(f"index: key is {key!r}, but must be a tuple")
    parts = [_array(part) if _is_array(part) else part for part in key]
    if sum(isinstance(part, (np.ndarray, TensorBase)) for part in parts) > 1:  # arrays of one number are numbers, as in PyTorch
        parts = [int(part) if isinstance(part, (np.ndarray, TensorBase)) and not part.ndim and not _is_mask(part) else part
                 for part in parts]
    used = sum(part.ndim if _is_mask(part) else part is not None and part is not Ellipsis for part in parts)
    parts = with_ellipsis(tuple(parts), used, a_tensor("index", x).ndim)
    basic, arrays, axis, source = [], [], 0, 0
    for part in parts:
        if part is Ellipsis:
            rest = x.ndim - used
            basic += [slice(None)] * rest
            axis, source = axis + rest, source + rest
        elif isinstance(part, (np.ndarray, TensorBase)):
            width = part.ndim if _is_mask(part) else 1
            if _is_mask(part) and part.shape != x.shape[source:source + width]:
                raise IndexError(f"index: a mask of shape {part.shape} does not fit axes {source} to "
                                 f"{source + width - 1} of {x.shape}")
            arrays.append((axis, part))
            basic += [slice(None)] * width
            axis, source = axis + width, source + width
        else:
            basic.append(part)
            axis += part is None or isinstance(part, slice)
            source += part is not None
    return tuple(basic), arrays


def _numpy_key(arrays: list) -> tuple:
    """The arrays as a key for NumPy on the basic view."""
    key, axis = [], 0
    for first, array in arrays:
        key += [slice(None)] * (first - axis)
        key.append(np.asarray(memoryview(array)) if isinstance(array, TensorBase) else array)
        axis = first + (array.ndim if _is_mask(array) else 1)
    return tuple(key)


def take(input: Tensor, key: tuple) -> Tensor:
    """``x[key]`` where the key holds integer arrays or boolean masks: a copy, with a gradient.

    Parameters
    ----------
    input : Tensor
        Any shape and dtype.
    key : tuple
        Integers, slices, None, Ellipsis, and integer or boolean tensors, arrays or lists. Integers and slices are
        applied first, as in PyTorch; several arrays are broadcast together, as in NumPy.

    Returns
    -------
    Tensor

    Raises
    ------
    IndexError
        If an index lies outside its axis, a mask has another shape, or there are too many.
    """
    basic, arrays = _separate(input, key)
    view = slice_view(input, basic)
    if len(arrays) == 1 and (not _is_mask(arrays[0][1]) or arrays[0][1].ndim == 1):
        axis, index = arrays[0]
        index = as_tensor(np.flatnonzero(index) if _is_mask(index) else index)
        shape = index.shape
        y = index_select(view, axis, index if len(shape) == 1 else reshape(index, (index.numel(),)))
        return y if len(shape) == 1 else reshape(y, (*view.shape[:axis], *shape, *view.shape[axis + 1:]))
    if len(arrays) == 1 and tuple(arrays[0][1].shape) == view.shape:  # one mask over all axes
        return index_select(reshape(view, (view.numel(),)), 0, np.flatnonzero(np.asarray(arrays[0][1])))
    places = np.arange(view.numel()).reshape(view.shape)
    try:
        places = places[_numpy_key(arrays)]
    except IndexError as error:
        raise IndexError(f"index: {error}") from None
    return reshape(index_select(reshape(view, (view.numel(),)), 0, places.ravel()), places.shape)


def put(input: Tensor, key: tuple, value: Any) -> None:
    """``x[key] = value`` where the key holds integer arrays or boolean masks; off the tape.

    Parameters
    ----------
    input : Tensor
        Any shape and dtype; writable.
    key : tuple
        As for `take`.
    value : Tensor, number or array_like
        Broadcast to the selection; among equal indices the last wins.

    Raises
    ------
    IndexError
        If an index lies outside its axis, a mask has another shape, or there are too many.
    """
    basic, arrays = _separate(input, key)
    view = slice_view(input, basic)
    target = np.asarray(memoryview(view))
    try:
        target[_numpy_key(arrays)] = np.asarray(memoryview(value)) if isinstance(value, TensorBase) else value
    except IndexError as error:
        raise IndexError(f"index: {error}") from None
    except OverflowError:
        raise ValueError(f"index: value is {value!r}, but must fit {input.dtype}, and indices 64 bits") from None
    input.bump_version()
