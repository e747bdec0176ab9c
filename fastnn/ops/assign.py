"""Writing in place: x[key] = value, off the tape, or on it as a new tensor that takes x's place."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core import TensorBase, empty, record
from .create import as_tensor
from .index import put, take
from .scatter import masked_fill
from .shape import clone, expand, to, unbroadcast
from .slices import slice_view

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["assign", "assigned", "is_basic", "overlaps", "replaced", "write_through"]


def is_basic(key: tuple) -> bool:
    """Whether a key takes a view: it has integers, slices, None and Ellipsis only."""
    return all(part is None or part is Ellipsis or isinstance(part, slice)
               or isinstance(part, (int, np.integer)) and not isinstance(part, bool) for part in key)


def assign(input: Tensor, key: tuple, value: Any) -> None:
    """``x[key] = value``, off the tape.

    Parameters
    ----------
    input : Tensor
        Any shape and dtype; writable.
    key : tuple
        Integers, slices, None, Ellipsis, and integer or boolean tensors, arrays or lists.
    value : Tensor, number or array_like
        Broadcast to the selection; among equal indices the last wins.

    Raises
    ------
    IndexError
        If an index lies outside its axis, a mask has another shape, or there are too many.
    """
    if is_basic(key):
        slice_view(input.detach(), key).copy_(value.detach() if isinstance(value, TensorBase) else value)
    else:
        put(input.detach(), key, value)


def assigned(input: Tensor, key: tuple, value: Any) -> Tensor:
    """A copy of `input` after ``x[key] = value``, with gradients of both.

    Parameters
    ----------
    input : Tensor
        Any shape and dtype.
    key : tuple
        As for `assign`.
    value : Tensor, number or array_like
        Broadcast to the selection. Of equal indices the last wins; each has the gradient of the place.

    Returns
    -------
    Tensor
        Shape and type of `input`.

    Raises
    ------
    IndexError
        If an index lies outside its axis, a mask has another shape, or there are too many.
    """
    is_number = not isinstance(value, TensorBase) and np.ndim(value) == 0
    if is_number and len(key) == 1 and isinstance(key[0], TensorBase) and key[0].dtype.name == "bool" and key[0].shape == input.shape:
        return masked_fill(input, key[0], value)  # which no mask in Python is needed for
    value = as_tensor(value, None if isinstance(value, TensorBase) else input.dtype)
    key = tuple(clone(part.detach()) if isinstance(part, TensorBase) else np.array(part) if isinstance(part, (np.ndarray, list))
                else part for part in key)  # as they are now
    y = clone(input.detach())
    assign(y, key, value)
    return record(_assigned_backward, (input, value), y, context=(key, value.shape, value.dtype))


def _assigned_backward(node, dy):
    key, shape, dtype = node.context
    dinput = dvalue = None
    if node.needs[0]:
        dinput = clone(dy)
        assign(dinput, key, 0.0)
    if node.needs[1]:
        dvalue = to(unbroadcast(slice_view(dy, key) if is_basic(key) else take(dy, key), shape), dtype)
    return dinput, dvalue


def replaced(input: Tensor, value: Any) -> Tensor:
    """`value` as a tensor of `input`'s shape and type, with its gradient: what ``input.copy_(value)`` leaves on the tape.

    Parameters
    ----------
    input : Tensor
        What is written over.
    value : Tensor, number or array_like
        Broadcast to `input`'s shape.

    Returns
    -------
    Tensor
        Shape and type of `input`.
    """
    return to(expand(as_tensor(value, None if isinstance(value, TensorBase) else input.dtype), input.shape), input.dtype)


def overlaps(view: Tensor) -> bool:
    """Whether several elements of a view lie in one place, as along an axis that was expanded."""
    return any(extent > 1 and step == 0 for extent, step in zip(view.shape, view.strides))


def write_through(view: Tensor, root: Tensor, value: Tensor) -> None:
    """Writes `value` to `view` and so to `root`, of which it is a view: both get new memory and new places on the tape.

    Parameters
    ----------
    view : Tensor
        Elements of `root`, each once.
    root : Tensor
        Has all of its memory, without gaps.
    value : Tensor
        Of `view`'s shape and type, with its gradient.
    """
    part = view.shape, view.strides, (view.data_ptr() - root.data_ptr()) // view.element_size()
    layout = root.shape, root.strides, root.dtype
    after = _laid_out(layout, root.detach())
    after.as_strided(*part).copy_(value.detach())
    root.become(record(_written_backward, (root.on_tape(), value), after, context=(layout, part)))
    view.become(record(_part_backward, (root,), root.as_strided(*part), context=(layout, part)))


def _laid_out(layout: tuple, values: Any) -> Tensor:
    """Memory of its own with a tensor's shape, strides and type, and `values` (one number, or a tensor of the shape) in it."""
    shape, strides, dtype = layout
    return empty((math.prod(shape),), dtype).as_strided(shape, strides).copy_(values)


def _written_backward(node, dy):
    layout, part = node.context
    dinput = _laid_out(layout, dy)
    written = dinput.as_strided(*part)
    dvalue = clone(written) if node.needs[1] else None
    written.fill_(0.0)
    return dinput if node.needs[0] else None, dvalue


def _part_backward(node, dy):
    layout, part = node.context
    dinput = _laid_out(layout, 0.0)
    dinput.as_strided(*part).copy_(dy)
    return dinput
