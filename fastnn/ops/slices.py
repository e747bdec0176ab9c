"""Parts of tensors, and tensors made of parts: slices, splitting, concatenation, padding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .. import _core
from .._core import PartOfGradient, TensorBase, are_alike, joined, launch, narrowed, parts, record, sliced
from ..checks import a_tensor, either, integer, integers, whole
from .create import common_dtype, fill
from .shape import _axis, to, unsqueeze

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["cat", "chunk", "concat", "narrow", "pad", "slice_view", "split", "stack", "unbind"]

_MOST_PIECES = 1 << 20


# ---- slices -----------------------------------------------------------------------------------------------------------


def slice_view(x: Tensor, key: tuple) -> Tensor:
    """``x[key]`` for integers, slices, None and Ellipsis: a view.

    Parameters
    ----------
    x : Tensor
        Any shape.
    key : tuple
        Integers drop an axis, slices keep a part of it (of any step), None puts one of extent 1 in, an Ellipsis stands for
        all that the others do not name.

    Returns
    -------
    Tensor

    Raises
    ------
    IndexError
        If an integer lies outside its axis, or there are more parts than axes.
    TypeError
        If a part is none of these.
    """
    if not isinstance(key, tuple):
        raise TypeError(f"slice_view: key is {key!r}, but must be a tuple")
    view = sliced(_slice_backward, x, key)
    if view is None:  # NumPy's integers, or something else
        key = tuple(part if part is None or part is Ellipsis or isinstance(part, slice) else integer("index", "an index", part)
                    for part in key)
        view = sliced(_slice_backward, x, key)
    return view


def _slice_backward(node, dy):
    shape, key = node.context
    return PartOfGradient(dy, shape, lambda dx: slice_view(dx, key))


def split(tensor: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Cuts `tensor` along an axis into views.

    Parameters
    ----------
    tensor : Tensor
        Any shape but ().
    split_size_or_sections : int or sequence of int
        The size of each part, where the last may be shorter; or the sizes, which must add up to the axis' extent.
    dim : int
        The axis to cut.

    Returns
    -------
    tuple of Tensor

    Raises
    ------
    IndexError
        If there is no such axis.
    ValueError
        If sizes are below 1 or do not add up.
    """
    dim = _axis("split", dim, a_tensor("split", tensor).ndim)
    sizes = split_size_or_sections
    if isinstance(sizes, int):
        if sizes < 1:
            raise ValueError(f"split: split_size is {sizes}, but must be at least 1")
        return parts(_slice_backward, tensor, dim, int(sizes))
    sizes = integers("split", "split_size_or_sections", sizes)
    if any(n < 0 for n in sizes):
        raise ValueError(f"split: sections {sizes} must not be negative")
    if sum(sizes) != tensor.shape[dim]:
        raise ValueError(f"split: sections {sizes} do not add up to the extent {tensor.shape[dim]} of dim {dim}")
    return parts(_slice_backward, tensor, dim, sizes)


def check_pieces(name: str, count: int) -> None:
    """Refuses more empty pieces than anybody can want: they would fill the memory."""
    if count > _MOST_PIECES:
        raise ValueError(f"{name} is {count}, but may be at most {_MOST_PIECES}")


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Cuts `input` along an axis into at most so many views of one size, but for the last, which may be shorter; or into empty ones.

    Parameters
    ----------
    input : Tensor
        Any shape but ().
    chunks : int
        The most parts there may be, at least 1.
    dim : int
        The axis to cut.

    Returns
    -------
    tuple of Tensor

    Raises
    ------
    IndexError
        If there is no such axis.
    ValueError
        If `chunks` is below 1.
    """
    dim, chunks = _axis("chunk", dim, a_tensor("chunk", input).ndim), whole("chunk: chunks", chunks, 1)
    if not input.shape[dim]:
        check_pieces("chunk: chunks", chunks)
        return parts(_slice_backward, input, dim, [0] * chunks)
    return parts(_slice_backward, input, dim, -(-input.shape[dim] // chunks))


def narrow(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """The view of some neighbouring places along an axis.

    Parameters
    ----------
    input : Tensor
        Any shape but ().
    dim : int
        The axis.
    start : int
        The first place; a negative one counts from the end.
    length : int
        How many places, at least 0.

    Returns
    -------
    Tensor

    Raises
    ------
    IndexError
        If there is no such axis, or it has no such places.
    ValueError
        If `length` is below 0.
    """
    dim, length = _axis("narrow", dim, a_tensor("narrow", input).ndim), whole("narrow: length", length, 0)
    start = integer("narrow", "start", start)
    first = start + (input.shape[dim] if start < 0 else 0)
    if not 0 <= first <= input.shape[dim] - length:
        raise IndexError(f"narrow: start is {start} and length {length}, but dim {dim} has {input.shape[dim]} places")
    return narrowed(_slice_backward, input, dim, first, length)


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The views of each place along an axis, without that axis.

    Parameters
    ----------
    input : Tensor
        Any shape but ().
    dim : int
        The axis.

    Returns
    -------
    tuple of Tensor

    Raises
    ------
    IndexError
        If there is no such axis.
    """
    dim = _axis("unbind", dim, a_tensor("unbind", input).ndim)
    return parts(_slice_backward, input, dim, None)


# ---- joining and padding ----------------------------------------------------------------------------------------------


def cat(tensors: Sequence[Tensor], dim: int | None = None, *, axis: int | None = None) -> Tensor:
    """Joins tensors along an existing axis.

    Parameters
    ----------
    tensors : sequence of Tensor
        At least one; same shape but along `dim`. Ones of shape (0,) among others add nothing but their dtype.
    dim : int, optional
        The axis to join along; by default the first.
    axis : int, optional
        NumPy's name for `dim`.

    Returns
    -------
    Tensor
        Of the type that holds all: the floating one, or the widest.

    Raises
    ------
    ValueError
        If `tensors` is empty or shapes differ elsewhere.
    TypeError
        If an entry is no tensor, or `dim` and `axis` are both given.
    """
    dim = either("cat", dim, axis)
    if not are_alike(tensors) or tensors[0].ndim < 2:
        tensors = _joinable("cat", tensors)
        if (0,) in [t.shape for t in tensors]:
            tensors = tuple(t for t in tensors if t.shape != (0,)) or tensors
    tensors = tuple(tensors)
    first = tensors[0]
    dim = _axis("cat", 0 if dim is None else dim, first.ndim)
    for t in tensors:
        if t.ndim != first.ndim:
            raise ValueError(f"cat: shapes {first.shape} and {t.shape} differ in another axis than dim {dim}, but must not")
    result, sizes = joined(tensors, dim)
    return record(_cat_backward, tensors, result, context=(dim, sizes))


def _joinable(name: str, tensors: Any) -> tuple[Tensor, ...]:
    """What to join: at least one, tensors only, brought to one dtype."""
    if not isinstance(tensors, Iterable):
        raise TypeError(f"{name}: tensors is a {type(tensors).__name__}, but must hold tensors")
    tensors = tuple(tensors)
    if not tensors:
        raise ValueError(f"{name}: tensors is empty, but needs at least one tensor")
    for t in tensors:
        if not isinstance(t, TensorBase):
            raise TypeError(f"{name}: tensors holds a {type(t).__name__}, but must hold tensors only")
    dtypes = {t.dtype for t in tensors}
    if len(dtypes) > 1:
        dtype = common_dtype(dtypes)
        tensors = tuple(to(t, dtype) for t in tensors)
    return tensors


def _cat_backward(node, dy):
    dim, sizes = node.context
    return parts(_slice_backward, dy, dim, sizes)


concat = cat


def stack(tensors: Sequence[Tensor], dim: int | None = None, *, axis: int | None = None) -> Tensor:
    """Joins tensors of one shape along a new axis.

    Parameters
    ----------
    tensors : sequence of Tensor
        At least one; same shape.
    dim : int, optional
        Which axis of the result the new one is; by default the first.
    axis : int, optional
        NumPy's name for `dim`.

    Returns
    -------
    Tensor
        Of the type that holds all: the floating one, or the widest.

    Raises
    ------
    IndexError
        If `dim` is out of range.
    ValueError
        If `tensors` is empty or shapes differ.
    TypeError
        If an entry is no tensor, or `dim` and `axis` are both given.
    """
    dim = either("stack", dim, axis)
    tensors = _joinable("stack", tensors)
    for t in tensors:
        if t.shape != tensors[0].shape:
            raise ValueError(f"stack: shapes {tensors[0].shape} and {t.shape} differ, but must be the same")
    dim = 0 if dim is None else dim
    return cat([unsqueeze(t, dim) for t in tensors], dim)


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float = 0.0) -> Tensor:
    """Surrounds `input` with a constant or with elements of its own.

    Parameters
    ----------
    input : Tensor
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

        return pad_by(input, padding, mode)
    if mode != "constant":
        raise ValueError(f"pad: mode is {mode!r}, but must be 'constant', 'reflect', 'replicate' or 'circular'")
    if len(padding) % 2 or len(padding) > 2 * a_tensor("pad", input).ndim:
        raise ValueError(f"pad: pad is {tuple(padding)}, but must hold two numbers for each of at most {input.ndim} axes")
    before = [0] * input.ndim
    after = [0] * input.ndim
    for k in range(len(padding) // 2):
        before[-1 - k], after[-1 - k] = padding[2 * k], padding[2 * k + 1]
    extents = [n + b + a for n, b, a in zip(input.shape, before, after)]
    if any(n < 0 for n in extents):
        raise ValueError(f"pad: pad {tuple(padding)} crops more than the shape {input.shape} has")
    source = tuple(slice(max(-b, 0), n + min(a, 0)) for n, b, a in zip(input.shape, before, after))
    place = tuple(slice(max(b, 0), n - max(a, 0)) for n, b, a in zip(extents, before, after))
    result = fill(_core.empty(extents, input.dtype, contiguous=input.lies_in_rows), value)
    launch.copy(slice_view(input.detach(), source), dtype=-1, out=slice_view(result, place))
    return record(_pad_backward, (input,), result, context=(input.shape, source, place))


def _pad_backward(node, dy):
    shape, source, place = node.context
    dx = _core.empty(shape, dy.dtype)
    launch.fill(value=0.0, out=dx)
    launch.copy(slice_view(dy, place), dtype=-1, out=slice_view(dx, source))
    return dx
