"""Shapes and types: transposition, reshaping, broadcasting, copies, conversion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .._core import (DType, TensorBase, as_dtype, expanded, flattened, launch, permuted, record, reshaped, resolved, swapped,
                     unsqueezed)
from .._core import axis as _axis
from ..checks import a_tensor, check_device, integer, integers, is_device
from .create import extents_of
from .layout import MemoryFormat, channels_last, contiguous_format, format_wanted, preserve_format

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["broadcast_to", "clone", "contiguous", "expand", "flatten", "movedim", "permute", "reshape", "squeeze", "t", "to",
           "transpose", "unflatten", "unsqueeze"]


def _axes_of_none(name: str, dims: Sequence[int]) -> tuple[int, ...]:
    """The axes of a 0-d tensor, of which there are none; as if it had one, 0 and -1 may be given, as in PyTorch."""
    for dim in dims:
        if integer(name, "dim", dim) not in (-1, 0):
            raise IndexError(f"{name}: dim is {dim}, but a 0-d tensor has but dims -1 and 0")
    return ()


# ---- permutations -----------------------------------------------------------------------------------------------------


def permute(input: Tensor, *axes: int, dims: Sequence[int] | None = None) -> Tensor:
    """The axes of `input` in another order; a view.

    Parameters
    ----------
    input : Tensor
        Any shape.
    *axes : int
        Each axis of `input` once, as numbers or as one tuple.
    dims : sequence of int, optional
        The same by name.

    Returns
    -------
    Tensor
        Of shape ``tuple(x.shape[d] for d in axes)``.

    Raises
    ------
    ValueError
        If it is not a permutation of the axes.
    """
    return permuted(_permute_backward, input, extents_of(axes, dims, "permute: dims"))


def _permute_backward(node, dy):
    return permuted(_permute_backward, dy, sorted(range(dy.ndim), key=node.context.__getitem__))


def transpose(input: Tensor, dim0: int = -2, dim1: int = -1) -> Tensor:
    """Swaps two axes; a view.

    Parameters
    ----------
    input : Tensor
        At least as many axes as `dim0` and `dim1` name.
    dim0, dim1 : int
        The axes; negative ones count from the end.

    Returns
    -------
    Tensor

    Raises
    ------
    IndexError
        If there is no such axis.
    """
    return swapped(_permute_backward, "transpose", input, dim0, dim1)


def t(input: Tensor) -> Tensor:
    """The transpose of a matrix, a view; vectors and single numbers as they are.

    Parameters
    ----------
    input : Tensor
        (M, N), (N,) or ().

    Returns
    -------
    Tensor
        (N, M), (N,) or ().

    Raises
    ------
    ValueError
        If `input` has more than two axes.
    """
    rank = a_tensor("t", input).ndim
    if rank > 2:
        raise ValueError(f"t: input has shape {input.shape}, but must have at most 2 axes")
    return swapped(_permute_backward, "t", input, 0, 1) if rank == 2 else input


def movedim(input: Tensor, source: int, destination: int) -> Tensor:
    """Moves one axis to another place, the others keep their order; a view.

    Parameters
    ----------
    input : Tensor
        Any shape but ().
    source, destination : int
        Where the axis is and where it is to be; negative numbers count from the end.

    Returns
    -------
    Tensor

    Raises
    ------
    IndexError
        If there is no such axis.
    """
    order = list(range(a_tensor("movedim", input).ndim))
    order.insert(_axis("movedim", destination, input.ndim), order.pop(_axis("movedim", source, input.ndim)))
    return permuted(_permute_backward, input, order)


# ---- reshaping --------------------------------------------------------------------------------------------------------


def reshape(input: Tensor, *extents: int, shape: Sequence[int] | None = None) -> Tensor:
    """The same elements in logical (C) order under another shape; a view where the layout allows it.

    Parameters
    ----------
    input : Tensor
        Any shape.
    *extents : int
        The new ones, as numbers or as one tuple; one may be -1: what is left.
    shape : sequence of int, optional
        The same by name.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        If the number of elements differs.
    """
    return reshaped(_reshape_backward, input, extents_of(extents, shape, "reshape: shape"))


def _reshape_backward(node, dy):
    return reshaped(_reshape_backward, dy, node.context)


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Merges the axes from `start_dim` to `end_dim`, both included, into one.

    Parameters
    ----------
    input : Tensor
        Any shape; a 0-d tensor becomes (1,).
    start_dim, end_dim : int
        The first and the last axis to be merged; negative numbers count from the end.

    Returns
    -------
    Tensor
        A view where the layout allows it.

    Raises
    ------
    IndexError
        If there is no such axis.
    ValueError
        If `start_dim` lies behind `end_dim`.
    """
    if a_tensor("flatten", input).ndim == 0:
        _axes_of_none("flatten", (start_dim, end_dim))
        return reshape(input, 1)
    return flattened(_reshape_backward, input, start_dim, end_dim)


def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """Splits one axis into several: `flatten` undone.

    Parameters
    ----------
    input : Tensor
        Any shape but ().
    dim : int
        The axis.
    sizes : sequence of int
        The extents that stand in its place; one may be -1: what is left.

    Returns
    -------
    Tensor
        A view where the layout allows it.

    Raises
    ------
    IndexError
        If there is no such axis.
    ValueError
        If the product of `sizes` is not the axis' extent.
    """
    dim = _axis("unflatten", dim, a_tensor("unflatten", input).ndim)
    sizes = resolved("unflatten", integers("unflatten", "sizes", sizes), input.shape[dim])
    return reshape(input, (*input.shape[:dim], *sizes, *input.shape[dim + 1:]))


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """Puts in an axis of extent 1, so that it becomes axis `dim`; a view.

    Parameters
    ----------
    input : Tensor
        Any shape.
    dim : int
        From -n - 1 to n for n axes.

    Returns
    -------
    Tensor

    Raises
    ------
    IndexError
        If `dim` is out of range.
    """
    return unsqueezed(_reshape_backward, input, dim)


def squeeze(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Drops axes of extent 1; a view.

    Parameters
    ----------
    input : Tensor
        Any shape.
    dim : int or sequence of int, optional
        The axis to drop, or several; where an extent is not 1, nothing changes. Without it all such axes are dropped.

    Returns
    -------
    Tensor

    Raises
    ------
    IndexError
        If there is no such axis.
    """
    if dim is None:
        return reshape(input, tuple(n for n in a_tensor("squeeze", input).shape if n != 1))
    rank = a_tensor("squeeze", input).ndim
    if isinstance(dim, (tuple, list)):
        dims = {_axis("squeeze", d, rank) for d in dim}
        return reshape(input, tuple(n for d, n in enumerate(input.shape) if n != 1 or d not in dims))
    dim = _axis("squeeze", dim, rank)
    return reshape(input, (*input.shape[:dim], *input.shape[dim + 1:])) if input.shape[dim] == 1 else input


def expand(input: Tensor, *shape: int) -> Tensor:
    """Repeats axes of extent 1 (and new leading axes) without copying; -1 keeps an extent.

    Parameters
    ----------
    input : Tensor
        Any shape.
    *shape : int
        The new extents, as numbers or as one tuple.

    Returns
    -------
    Tensor
        A view whose repeated elements share memory.

    Raises
    ------
    ValueError
        If an axis of another extent than 1 would change.
    """
    shape = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    return expanded(_expand_backward, input, shape)


def _expand_backward(node, dy):
    return unbroadcast(dy, node.context)


broadcast_to = expand


def unbroadcast(dy: Tensor | None, shape: tuple[int, ...]) -> Tensor | None:
    """`dy` summed over the axes along which a tensor of `shape` was broadcast to `dy`'s shape: the gradient of broadcasting."""
    if dy is None or dy.shape == shape:
        return dy
    new = dy.ndim - len(shape)
    axes = sum(1 << d for d in range(dy.ndim) if d < new or (shape[d - new] == 1 and dy.shape[d] != 1))
    return reshape(launch.sum(dy, axes=axes, keepdim=1, divisor=1.0), shape)


# ---- copies -----------------------------------------------------------------------------------------------------------


def contiguous(input: Tensor, memory_format: MemoryFormat = contiguous_format) -> Tensor:
    """`input` in C order, or in that of `memory_format`: itself if it already is.

    Parameters
    ----------
    input : Tensor
        Any shape.
    memory_format : MemoryFormat
        `contiguous_format`; of four axes also `channels_last`: in N, H, W, C order, as the engine's results are; or
        `preserve_format`: as it lies.

    Returns
    -------
    Tensor

    Raises
    ------
    TypeError
        If `memory_format` is none.
    ValueError
        If it does not suit the number of axes.
    """
    if memory_format is contiguous_format:  # the common case
        return input if a_tensor("contiguous", input).is_contiguous() else record(_copy_backward, (input,), launch.contiguous(input))
    return _laid_out(input, format_wanted("contiguous", memory_format, a_tensor("contiguous", input).ndim))


def _laid_out(x: Tensor, memory_format: MemoryFormat | None) -> Tensor:
    """`x` in this format; itself if it already is."""
    if memory_format is contiguous_format:
        return contiguous(x)
    return clone(x) if memory_format is channels_last and not x.is_channels_last() else x


def clone(input: Tensor, memory_format: MemoryFormat = preserve_format) -> Tensor:
    """A copy with memory of its own, of four axes in N, H, W, C order, of others in C order; or as `contiguous` has it."""
    if memory_format is preserve_format:
        return record(_copy_backward, (input,), launch.copy(input, dtype=-1))
    wanted = format_wanted("clone", memory_format, a_tensor("clone", input).ndim)
    return record(_copy_backward, (input,), launch.contiguous(input)) if wanted is contiguous_format else clone(input)


def _copy_backward(node, dy):
    return dy


def to(input: Tensor, *target: Any, dtype: DType | None = None, device: Any = None, non_blocking: bool = False, copy: bool = False,
       memory_format: MemoryFormat | None = None) -> Tensor:
    """`input` with elements of another type; itself if it has that type. Reals become integers by truncation, saturating.

    Parameters
    ----------
    input : Tensor
        Any shape.
    *target : dtype, Tensor or "cpu"
        What to become: a type, that of a tensor, or, which changes nothing, the CPU's.
    dtype : dtype, optional
        The type.
    device : None or "cpu"
        There is no other.
    non_blocking : bool
        Taken for PyTorch's sake: there is nothing to wait for.
    copy : bool
        Whether to copy also what has the type.
    memory_format : MemoryFormat, optional
        How elements are to lie; see `contiguous`.

    Returns
    -------
    Tensor

    Raises
    ------
    TypeError
        If the type is unknown, or `memory_format` is none.
    ValueError
        If the device is another, or `memory_format` does not suit the number of axes.
    """
    wanted = type_wanted("to", target, dtype, device)
    kept = a_tensor("to", input).dtype
    if wanted is not None and wanted is not kept:
        y = launch.copy(input, dtype=wanted.code)
        input = record(_to_backward, (input,), y, context=kept) if wanted.is_floating else y
    elif copy:
        input = clone(input)
    return input if memory_format is None else _laid_out(input, format_wanted("to", memory_format, input.ndim))


def type_wanted(name: str, target: tuple, dtype: Any, device: Any) -> DType | None:
    """The type that PyTorch's ``to(...)`` asks for by a type, a tensor or a keyword; None where it names a device only."""
    for value in target:
        if isinstance(value, TensorBase):
            dtype = value.dtype
        elif isinstance(value, bool):
            continue  # whether it may be waited for, as in to(device, True)
        elif value is None or is_device(value):
            device = value
        else:
            dtype = value
    check_device(name, device)
    return None if dtype is None else as_dtype(dtype)


def _to_backward(node, dy):
    return launch.copy(dy, dtype=node.context.code)
