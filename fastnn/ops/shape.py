"""Shapes and types: transposition, reshaping, broadcasting, copies, conversion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .._core import DType, TensorBase, as_dtype, launch, record
from ..checks import a_tensor, check_device, integer, integers, is_device
from .create import extents_of
from .layout import MemoryFormat, channels_last, contiguous_format, format_wanted, preserve_format

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["broadcast_to", "clone", "contiguous", "expand", "flatten", "movedim", "permute", "reshape", "squeeze", "t", "to",
           "transpose", "unflatten", "unsqueeze"]


def _axis(name: str, dim: int, rank: int) -> int:
    """`dim` counted from the front; an error that names the operation if there is no such axis."""
    dim = integer(name, "dim", dim)
    if not -rank <= dim < rank:
        allowed = f"a tensor of {rank} axes has dims {-rank} to {rank - 1}" if rank else "the tensor has no axes"
        raise IndexError(f"{name}: dim is {dim}, but {allowed}")
    return dim % rank


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
    dims = extents_of(axes, dims, "permute: dims")
    rank = a_tensor("permute", input).ndim
    order = [_axis("permute", d, rank) for d in dims]
    if sorted(order) != list(range(rank)):
        raise ValueError(f"permute: dims is {tuple(dims)}, but must name each of the {rank} axes once")
    shape, strides = input.shape, input.strides
    view = input.as_strided([shape[d] for d in order], [strides[d] for d in order])
    return record(_permute_backward, (input,), view, context=order)


def _permute_backward(node, dy):
    inverse = sorted(range(dy.ndim), key=node.context.__getitem__)
    return permute(dy, *inverse)


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
    dim0, dim1 = _axis("transpose", dim0, a_tensor("transpose", input).ndim), _axis("transpose", dim1, input.ndim)
    order = list(range(input.ndim))
    order[dim0], order[dim1] = dim1, dim0
    return permute(input, *order)


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
    if a_tensor("t", input).ndim > 2:
        raise ValueError(f"t: input has shape {input.shape}, but must have at most 2 axes")
    return transpose(input, 0, 1) if input.ndim == 2 else input


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
    return permute(input, *order)


# ---- reshaping --------------------------------------------------------------------------------------------------------


def _view_strides(shape: Sequence[int], strides: Sequence[int], new_shape: Sequence[int]) -> list[int] | None:
    """Strides with which `new_shape` walks the same elements in the same logical order, or None if no view can."""
    # Runs of axes that lie as one: each new axis must be cut from a single run.
    old = [(n, s) for n, s in zip(shape, strides) if n != 1]
    result = [1] * len(new_shape)
    k = len(old) - 1
    run, step = (old[k] if old else (1, 1))
    for d in reversed(range(len(new_shape))):
        n = new_shape[d]
        if n == 1:
            continue
        if run == 1:
            k -= 1
            run, step = old[k]
        while run % n or run < n:
            if k == 0 or old[k - 1][1] != step * run:
                return None
            k -= 1
            run *= old[k][0]
        result[d] = step
        step *= n
        run //= n
    return result


def _resolve(name: str, shape: Sequence[int], numel: int) -> list[int]:
    """`shape` with its -1, if any, replaced by what is left."""
    extents = [integer(name, "an extent", n) for n in shape]
    unknown = [d for d, n in enumerate(extents) if n == -1]
    known = 1
    for n in extents:
        known *= n if n != -1 else 1
    if len(unknown) > 1 or any(n < -1 for n in extents):
        raise ValueError(f"{name}: shape is {tuple(shape)}, but may hold one -1 and no other negative extent")
    if unknown and known:
        extents[unknown[0]] = numel // known
        known *= numel // known
    if known != numel or (unknown and -1 in extents):
        raise ValueError(f"{name}: shape {tuple(shape)} does not hold the tensor's {numel} elements")
    return extents


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
    extents = _resolve("reshape", extents_of(extents, shape, "reshape: shape"), a_tensor("reshape", input).numel())
    strides = _view_strides(input.shape, input.strides, extents) if input.numel() else [1] * len(extents)
    if strides is None:
        view = launch.contiguous(input)
        view = view.as_strided(extents, _view_strides(view.shape, view.strides, extents))
    else:
        view = input.as_strided(extents, strides)
    return record(_reshape_backward, (input,), view, context=input.shape)


def _reshape_backward(node, dy):
    return reshape(dy, node.context)


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
    start, end = _axis("flatten", start_dim, input.ndim), _axis("flatten", end_dim, input.ndim)
    if start > end:
        raise ValueError(f"flatten: start_dim {start_dim} lies behind end_dim {end_dim}")
    merged = 1
    for n in input.shape[start:end + 1]:
        merged *= n
    return reshape(input, (*input.shape[:start], merged, *input.shape[end + 1:]))


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
    sizes = _resolve("unflatten", integers("unflatten", "sizes", sizes), input.shape[dim])
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
    dim = _axis("unsqueeze", dim, a_tensor("unsqueeze", input).ndim + 1)
    return reshape(input, (*input.shape[:dim], 1, *input.shape[dim:]))


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
    new = len(shape) - a_tensor("expand", input).ndim
    if new < 0:
        raise ValueError(f"expand: shape {tuple(shape)} has fewer axes than the tensor's shape {input.shape}")
    extents, strides = [], []
    for d, n in enumerate(shape):
        have, step = (1, 0) if d < new else (input.shape[d - new], input.strides[d - new])
        n = n if type(n) is int else integer("expand", "an extent", n)
        if n == -1 and d >= new:
            n = have
        if n != have and have != 1 or n < 0:
            raise ValueError(f"expand: shape {input.shape} cannot be expanded to {tuple(shape)}")
        extents.append(n)
        strides.append(step if n == have else 0)
    return record(_expand_backward, (input,), input.as_strided(extents, strides), context=input.shape)


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
