"""Views and rearrangements: reshape, transpose, slices, concatenation, padding, conversion."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .. import _core
from .._core import DType, TensorBase, as_dtype, launch, record
from ..checks import check_device, integer, is_device, whole
from .create import fill

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["broadcast_to", "cat", "chunk", "clone", "concat", "contiguous", "expand", "flatten", "movedim", "narrow", "pad",
           "permute", "reshape", "slice_view", "split", "squeeze", "stack", "t", "to", "transpose", "unbind", "unflatten",
           "unsqueeze"]


def _axis(name: str, dim: int, rank: int) -> int:
    """`dim` counted from the front; an error that names the operation if there is no such axis."""
    dim = integer(name, "dim", dim)
    if not -rank <= dim < rank:
        raise IndexError(f"{name}: dim is {dim}, but a tensor of {rank} axes has dims {-rank} to {rank - 1}")
    return dim % rank


# ---- permutations -----------------------------------------------------------------------------------------------------


def permute(x: Tensor, *dims: int) -> Tensor:
    """The axes of `x` in another order; a view.

    Parameters
    ----------
    x : Tensor
        Any shape.
    *dims : int
        Each axis of `x` once, as numbers or as one tuple.

    Returns
    -------
    Tensor
        Of shape ``tuple(x.shape[d] for d in dims)``.

    Raises
    ------
    ValueError
        If `dims` is not a permutation of the axes.
    """
    order = dims[0] if len(dims) == 1 and isinstance(dims[0], (tuple, list)) else dims
    order = [_axis("permute", d, x.ndim) for d in order]
    if sorted(order) != list(range(x.ndim)):
        raise ValueError(f"permute: dims is {tuple(dims)}, but must name each of the {x.ndim} axes once")
    shape, strides = x.shape, x.strides
    view = x.as_strided([shape[d] for d in order], [strides[d] for d in order])
    return record(_permute_backward, (x,), view, context=order)


def _permute_backward(node, dy):
    inverse = sorted(range(dy.ndim), key=node.context.__getitem__)
    return permute(dy, *inverse)


def transpose(x: Tensor, dim0: int = -2, dim1: int = -1) -> Tensor:
    """Swaps two axes; a view."""
    dim0, dim1 = _axis("transpose", dim0, x.ndim), _axis("transpose", dim1, x.ndim)
    order = list(range(x.ndim))
    order[dim0], order[dim1] = dim1, dim0
    return permute(x, *order)


def t(x: Tensor) -> Tensor:
    """The transpose of a matrix, a view; vectors and single numbers as they are."""
    if x.ndim > 2:
        raise ValueError(f"t: x has shape {x.shape}, but must have at most 2 axes")
    return transpose(x, 0, 1) if x.ndim == 2 else x


def movedim(x: Tensor, source: int, destination: int) -> Tensor:
    """Moves one axis to another place; a view."""
    order = list(range(x.ndim))
    order.insert(_axis("movedim", destination, x.ndim), order.pop(_axis("movedim", source, x.ndim)))
    return permute(x, *order)


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


def reshape(x: Tensor, *shape: int) -> Tensor:
    """The same elements in logical (C) order under another shape; a view where the layout allows it.

    Parameters
    ----------
    x : Tensor
        Any shape.
    *shape : int
        The new extents, as numbers or as one tuple; one may be -1: what is left.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        If the number of elements differs.
    """
    shape = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    extents = _resolve("reshape", shape, x.numel())
    strides = _view_strides(x.shape, x.strides, extents) if x.numel() else [1] * len(extents)
    if strides is None:
        view = launch.contiguous(x)
        view = view.as_strided(extents, _view_strides(view.shape, view.strides, extents))
    else:
        view = x.as_strided(extents, strides)
    return record(_reshape_backward, (x,), view, context=x.shape)


def _reshape_backward(node, dy):
    return reshape(dy, node.context)


def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Merges the axes from `start_dim` to `end_dim`, both included, into one."""
    if x.ndim == 0:
        return reshape(x, 1)
    start, end = _axis("flatten", start_dim, x.ndim), _axis("flatten", end_dim, x.ndim)
    if start > end:
        raise ValueError(f"flatten: start_dim {start_dim} lies behind end_dim {end_dim}")
    merged = 1
    for n in x.shape[start:end + 1]:
        merged *= n
    return reshape(x, (*x.shape[:start], merged, *x.shape[end + 1:]))


def unflatten(x: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """Splits axis `dim` into axes of the given `sizes` (one may be -1)."""
    dim = _axis("unflatten", dim, x.ndim)
    return reshape(x, (*x.shape[:dim], *_resolve("unflatten", sizes, x.shape[dim]), *x.shape[dim + 1:]))


def unsqueeze(x: Tensor, dim: int) -> Tensor:
    """Puts an axis of extent 1 before axis `dim`."""
    dim = _axis("unsqueeze", dim, x.ndim + 1)
    return reshape(x, (*x.shape[:dim], 1, *x.shape[dim:]))


def squeeze(x: Tensor, dim: int | None = None) -> Tensor:
    """Drops axis `dim` if its extent is 1, or every such axis."""
    if dim is None:
        return reshape(x, tuple(n for n in x.shape if n != 1))
    dim = _axis("squeeze", dim, x.ndim)
    return reshape(x, (*x.shape[:dim], *x.shape[dim + 1:])) if x.shape[dim] == 1 else x


def expand(x: Tensor, *shape: int) -> Tensor:
    """Repeats axes of extent 1 (and new leading axes) without copying; -1 keeps an extent.

    Parameters
    ----------
    x : Tensor
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
    new = len(shape) - x.ndim
    if new < 0:
        raise ValueError(f"expand: shape {tuple(shape)} has fewer axes than the tensor's shape {x.shape}")
    extents, strides = [], []
    for d, n in enumerate(shape):
        have, step = (1, 0) if d < new else (x.shape[d - new], x.strides[d - new])
        if n == -1 and d >= new:
            n = have
        if n != have and have != 1 or n < 0:
            raise ValueError(f"expand: shape {x.shape} cannot be expanded to {tuple(shape)}")
        extents.append(n)
        strides.append(step if n == have else 0)
    return record(_expand_backward, (x,), x.as_strided(extents, strides), context=x.shape)


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


# ---- slices -----------------------------------------------------------------------------------------------------------


def slice_view(x: Tensor, key: tuple) -> Tensor:
    """``x[key]`` for integers, slices, None and Ellipsis: a view."""
    used = sum(part is not None and part is not Ellipsis for part in key)
    if used > x.ndim:
        raise IndexError(f"index: {used} indices for a tensor of {x.ndim} axes")
    if sum(part is Ellipsis for part in key) > 1:
        raise IndexError("index: more than one Ellipsis")
    if Ellipsis not in key:
        key = (*key, Ellipsis)
    extents, strides, offset, d = [], [], 0, 0
    for part in key:
        if part is None:
            extents.append(1)
            strides.append(1)
        elif part is Ellipsis:
            rest = x.ndim - used
            extents += x.shape[d:d + rest]
            strides += x.strides[d:d + rest]
            d += rest
        elif isinstance(part, slice):
            start, stop, step = part.indices(x.shape[d])
            extents.append(len(range(start, stop, step)))
            strides.append(x.strides[d] * step)
            offset += x.strides[d] * start if extents[-1] else 0
            d += 1
        else:
            k = integer("index", "an index", part)
            if not -x.shape[d] <= k < x.shape[d]:
                raise IndexError(f"index: {k} is out of range for axis {d} of extent {x.shape[d]}")
            offset += x.strides[d] * (k % x.shape[d])
            d += 1
    return record(_slice_backward, (x,), x.as_strided(extents, strides, offset), context=(x.shape, x.dtype, key))


def _slice_backward(node, dy):
    shape, dtype, key = node.context
    dx = _core.empty(shape, dtype)
    launch.fill(value=0.0, out=dx)
    launch.copy(dy, dtype=-1, out=slice_view(dx, key))
    return dx


def split(x: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Cuts `x` along `dim` into views of the given size (the last may be shorter) or of the given sizes."""
    dim = _axis("split", dim, x.ndim)
    sizes = split_size_or_sections
    if isinstance(sizes, int):
        if sizes < 1:
            raise ValueError(f"split: split_size is {sizes}, but must be at least 1")
        sizes = [min(sizes, x.shape[dim] - k) for k in range(0, x.shape[dim], sizes)]
    if sum(sizes) != x.shape[dim]:
        raise ValueError(f"split: sections {tuple(sizes)} do not add up to the extent {x.shape[dim]} of dim {dim}")
    parts, start = [], 0
    for n in sizes:
        parts.append(slice_view(x, (slice(None),) * dim + (slice(start, start + n),)))
        start += n
    return tuple(parts)


def chunk(x: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Cuts `x` along `dim` into at most so many views of one size, but for the last, which may be shorter."""
    dim, chunks = _axis("chunk", dim, x.ndim), whole("chunk: chunks", chunks, 1)
    return split(x, max(-(-x.shape[dim] // chunks), 1), dim) if x.shape[dim] else (x,)


def narrow(x: Tensor, dim: int, start: int, length: int) -> Tensor:
    """The view of `length` places along `dim`, from `start` on; a negative `start` counts from the end."""
    dim, length = _axis("narrow", dim, x.ndim), whole("narrow: length", length, 0)
    start = integer("narrow", "start", start)
    first = start + (x.shape[dim] if start < 0 else 0)
    if not 0 <= first <= x.shape[dim] - length:
        raise IndexError(f"narrow: start is {start} and length {length}, but dim {dim} has {x.shape[dim]} places")
    return slice_view(x, (slice(None),) * dim + (slice(first, first + length),))


def unbind(x: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The views of each place along `dim`, without that axis."""
    dim = _axis("unbind", dim, x.ndim)
    return tuple(slice_view(x, (slice(None),) * dim + (k,)) for k in range(x.shape[dim]))


# ---- copies -----------------------------------------------------------------------------------------------------------


def contiguous(x: Tensor) -> Tensor:
    """`x` in C order: itself if it already is."""
    return x if x.is_contiguous() else record(_copy_backward, (x,), launch.contiguous(x))


def clone(x: Tensor) -> Tensor:
    """A copy with memory of its own."""
    return record(_copy_backward, (x,), launch.copy(x, dtype=-1))


def _copy_backward(node, dy):
    return dy


def to(x: Tensor, *target: Any, dtype: DType | None = None, device: Any = None) -> Tensor:
    """`x` with elements of another type; itself if it has that type. Reals become integers by truncation, saturating.

    Parameters
    ----------
    x : Tensor
        Any shape.
    *target : dtype, Tensor or "cpu"
        What to become: a type, that of a tensor, or, which changes nothing, the CPU's.
    dtype : dtype, optional
        The type.
    device : None or "cpu"
        There is no other.

    Returns
    -------
    Tensor

    Raises
    ------
    TypeError
        If the type is unknown.
    ValueError
        If the device is another.
    """
    wanted = type_wanted("to", target, dtype, device)
    if wanted is None or wanted is x.dtype:
        return x
    y = launch.copy(x, dtype=wanted.code)
    return record(_to_backward, (x,), y, context=x.dtype) if wanted.is_floating else y


def type_wanted(name: str, target: tuple, dtype: Any, device: Any) -> DType | None:
    """The type that PyTorch's ``to(...)`` asks for by a type, a tensor or a keyword; None where it names a device only."""
    for value in target:
        if isinstance(value, TensorBase):
            dtype = value.dtype
        elif value is None or is_device(value):
            device = value
        else:
            dtype = value
    check_device(name, device)
    return None if dtype is None else as_dtype(dtype)


def _to_backward(node, dy):
    return launch.copy(dy, dtype=node.context.code)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Joins tensors along an existing axis.

    Parameters
    ----------
    tensors : sequence of Tensor
        At least one; same dtype, and same shape but along `dim`.
    dim : int
        The axis to join along.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        If `tensors` is empty or shapes differ elsewhere.
    TypeError
        If dtypes differ, or an entry is no tensor.
    """
    tensors = _joinable("cat", tensors)
    first = tensors[0]
    dim = _axis("cat", dim, first.ndim)
    for t in tensors:
        if t.ndim != first.ndim or any(d != dim and t.shape[d] != n for d, n in enumerate(first.shape)):
            raise ValueError(f"cat: shapes {first.shape} and {t.shape} differ in another axis than dim {dim}")
    extents = list(first.shape)
    extents[dim] = sum(t.shape[dim] for t in tensors)
    result, start = _core.empty(extents, first.dtype), 0
    for t in tensors:
        place = (slice(None),) * dim + (slice(start, start + t.shape[dim]),)
        launch.copy(t, dtype=-1, out=slice_view(result, place))
        start += t.shape[dim]
    return record(_cat_backward, tensors, result, context=(dim, [t.shape[dim] for t in tensors]))


def _joinable(name: str, tensors: Any) -> tuple[Tensor, ...]:
    """What to join: at least one, tensors only, of one dtype."""
    if not isinstance(tensors, Iterable):
        raise TypeError(f"{name}: tensors is a {type(tensors).__name__}, but must hold tensors")
    tensors = tuple(tensors)
    if not tensors:
        raise ValueError(f"{name}: tensors is empty, but needs at least one tensor")
    for t in tensors:
        if not isinstance(t, TensorBase):
            raise TypeError(f"{name}: tensors holds a {type(t).__name__}, but must hold tensors only")
        if t.dtype is not tensors[0].dtype:
            raise TypeError(f"{name}: dtypes {tensors[0].dtype} and {t.dtype} differ")
    return tensors


def _cat_backward(node, dy):
    dim, sizes = node.context
    return split(dy, sizes, dim)


concat = cat


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Joins tensors of one shape along a new axis `dim`."""
    tensors = _joinable("stack", tensors)
    for t in tensors:
        if t.shape != tensors[0].shape:
            raise ValueError(f"stack: shapes {tensors[0].shape} and {t.shape} differ")
    return cat([unsqueeze(t, dim) for t in tensors], dim)


def pad(x: Tensor, pad: Sequence[int], mode: str = "constant", value: float = 0.0) -> Tensor:
    """Surrounds `x` with a constant or with elements of its own.

    Parameters
    ----------
    x : Tensor
        Any shape; for modes other than "constant" at most 4 axes.
    pad : sequence of int
        Before and after the last axis, then the one before it, and so on, as in PyTorch; negative numbers crop. Modes other
        than "constant" pad the last axis or the last two.
    mode : str
        "constant"; "reflect": the mirror image, without the edge itself; "replicate": the edge, repeated; "circular": the
        other end.
    value : float
        What to surround with, for "constant".

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        If `pad` has an odd length, names more axes than there are, crops more than there is, or mirrors or wraps more
        than there is.
    """
    if not isinstance(pad, (tuple, list)):
        raise TypeError(f"pad: pad is {pad!r}, but must be a tuple of integers")
    padding = [integer("pad", "pad", n) for n in pad]
    if mode in ("reflect", "replicate", "circular"):
        from .resample import pad_by  # stands on this module

        return pad_by(x, padding, mode)
    if mode != "constant":
        raise ValueError(f"pad: mode is {mode!r}, but must be 'constant', 'reflect', 'replicate' or 'circular'")
    if len(padding) % 2 or len(padding) > 2 * x.ndim:
        raise ValueError(f"pad: pad is {tuple(padding)}, but must hold two numbers for each of at most {x.ndim} axes")
    before = [0] * x.ndim
    after = [0] * x.ndim
    for k in range(len(padding) // 2):
        before[-1 - k], after[-1 - k] = padding[2 * k], padding[2 * k + 1]
    extents = [n + b + a for n, b, a in zip(x.shape, before, after)]
    if any(n < 0 for n in extents):
        raise ValueError(f"pad: pad {tuple(padding)} crops more than the shape {x.shape} has")
    source = tuple(slice(max(-b, 0), n + min(a, 0)) for n, b, a in zip(x.shape, before, after))
    place = tuple(slice(max(b, 0), n - max(a, 0)) for n, b, a in zip(extents, before, after))
    result = fill(_core.empty(extents, x.dtype), value)
    launch.copy(slice_view(x.detach(), source), dtype=-1, out=slice_view(result, place))
    return record(_pad_backward, (x,), result, context=(x.shape, source, place))


def _pad_backward(node, dy):
    shape, source, place = node.context
    dx = _core.empty(shape, dy.dtype)
    launch.fill(value=0.0, out=dx)
    launch.copy(slice_view(dy, place), dtype=-1, out=slice_view(dx, source))
    return dx
