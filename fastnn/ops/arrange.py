"""Turning round, repeating and cutting out parts of tensors; products under the names of matrices and vectors."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .. import _core
from .._core import launch, record
from ..checks import a_tensor, integer, integers, whole
from .create import extents_of
from .linear import matmul
from .math import add, mul, scaled
from .shape import _axis, expand, reshape, unsqueeze
from .slices import _joinable, cat, slice_view

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["addmm", "bmm", "broadcast_tensors", "column_stack", "dot", "flip", "hstack", "meshgrid", "mm", "mv", "outer", "roll",
           "select", "tile", "tril", "triu", "vstack"]


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joins tensors side by side: along axis 1, numbers and vectors along their only one.

    Parameters
    ----------
    tensors : sequence of Tensor
        At least one; of the same extents along all other axes.

    Returns
    -------
    Tensor
        As of `cat`.

    Raises
    ------
    ValueError
        If there is none, or shapes differ elsewhere.
    """
    tensors = [reshape(t, (1,)) if t.ndim == 0 else t for t in _joinable("hstack", tensors)]
    return cat(tensors, 1 if tensors and tensors[0].ndim > 1 else 0)


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joins tensors one under the other: along axis 0, vectors as rows; parameters as `hstack`."""
    return cat([reshape(t, (1, t.numel())) if t.ndim < 2 else t for t in _joinable("vstack", tensors)], 0)


def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Joins tensors side by side: along axis 1, numbers and vectors as columns; parameters as `hstack`."""
    return cat([reshape(t, (t.numel(), 1)) if t.ndim < 2 else t for t in _joinable("column_stack", tensors)], 1)


def broadcast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Views of the one shape to which tensors broadcast together.

    Parameters
    ----------
    *tensors : Tensor
        Any types; shapes that broadcast together.

    Returns
    -------
    tuple of Tensor
        One for each.

    Raises
    ------
    ValueError
        If the shapes do not broadcast.
    """
    shapes = [a_tensor("broadcast_tensors", t, "one of tensors").shape for t in tensors]
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError:
        raise ValueError(f"broadcast_tensors: shapes {shapes} do not broadcast together") from None
    return tuple(expand(t, shape) for t in tensors)


def meshgrid(*tensors: Tensor, indexing: str = "ij") -> tuple[Tensor, ...]:
    """The coordinates of a grid's points: for each vector a view of the grid's shape that varies along its own axis.

    Parameters
    ----------
    *tensors : Tensor
        Vectors, or one sequence of them.
    indexing : str
        "ij": the first vector belongs to axis 0, the second to axis 1; "xy": the other way round.

    Returns
    -------
    tuple of Tensor
        One for each vector.

    Raises
    ------
    ValueError
        If there is no vector, one has another number of axes, or `indexing` is something else.
    """
    vectors = tuple(tensors[0]) if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)) else tensors
    vectors = _joinable("meshgrid", vectors)
    if indexing not in ("ij", "xy"):
        raise ValueError(f"meshgrid: indexing is {indexing!r}, but must be 'ij' or 'xy'")
    if not vectors or any(v.ndim > 1 for v in vectors):
        raise ValueError(f"meshgrid: tensors have the shapes {[v.shape for v in vectors]}, but must be vectors, at least one")
    axes = list(range(len(vectors)))
    if indexing == "xy":
        axes[:2] = axes[:2][::-1]
    extents = [0] * len(vectors)
    for v, axis in zip(vectors, axes):
        extents[axis] = v.numel()
    lying = [[-1 if k == axis else 1 for k in range(len(vectors))] for axis in axes]
    return tuple(expand(reshape(v, tuple(shape)), tuple(extents)) for v, shape in zip(vectors, lying))


def flip(input: Tensor, dims: int | Sequence[int]) -> Tensor:
    """Turns axes round: the last element comes first.

    Parameters
    ----------
    input : Tensor
        Any shape.
    dims : int or sequence of int
        The axes.

    Returns
    -------
    Tensor
        Shape and type of `input`.
    """
    axes = [_axis("flip", dim, a_tensor("flip", input).ndim) for dim in integers("flip", "dims", dims)]
    # The view behind the copy has steps below 0; an axis that is named twice is as it was.
    turned = tuple(slice(None, None, -1 if axes.count(d) % 2 else 1) for d in range(input.ndim))
    return record(_flip_backward, (input,), _turned(input, turned), context=turned)


def _turned(x: Tensor, key: tuple[slice, ...]) -> Tensor:
    view = slice_view(x.detach(), key)
    return launch.contiguous(view) if x.lies_in_rows else launch.copy(view, dtype=-1)


def _flip_backward(node, dy):
    return _turned(dy, node.context)


def roll(input: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
    """Moves elements along axes; what leaves at an end comes in at the other.

    Parameters
    ----------
    input : Tensor
        Any shape.
    shifts : int or sequence of int
        By how many places, one for each axis.
    dims : int or sequence of int, optional
        The axes; by default all elements are one row.

    Returns
    -------
    Tensor
        Shape and type of `input`.

    Raises
    ------
    ValueError
        If there is not one shift for each axis.
    """
    if dims is None:
        return reshape(roll(reshape(input, (-1,)), shifts, 0), input.shape)
    shifts, dims = integers("roll", "shifts", shifts), integers("roll", "dims", dims)
    if len(shifts) != len(dims):
        raise ValueError(f"roll: shifts is {shifts} and dims {dims}, but there must be one shift for each axis")
    first = [0] * a_tensor("roll", input).ndim  # what comes first along each axis
    for shift, dim in zip(shifts, dims):
        axis = _axis("roll", dim, input.ndim)
        first[axis] = (first[axis] - integer("roll", "shifts", shift)) % max(input.shape[axis], 1)
    return record(_roll_backward, (input,), _rolled(input, first), context=first)


def _rolled(x: Tensor, first: Sequence[int]) -> Tensor:
    """A copy in which place first[d] of axis d comes first, from both sides of it for each such axis."""
    y = _core.empty(x.shape, x.dtype, contiguous=x.lies_in_rows)
    cuts = [((slice(k, None), slice(None, n - k)), (slice(None, k), slice(n - k, None))) if k else ((slice(None), slice(None)),)
            for k, n in zip(first, x.shape)]
    for corner in itertools.product(*cuts):
        source, place = zip(*corner)
        launch.copy(slice_view(x.detach(), source), dtype=-1, out=slice_view(y.detach(), place))
    return y


def _roll_backward(node, dy):
    return _rolled(dy, [-k % n if n else 0 for k, n in zip(node.context, dy.shape)])


def tile(input: Tensor, *counts: int, dims: Sequence[int] | None = None) -> Tensor:
    """Repeats a tensor along its axes.

    Parameters
    ----------
    input : Tensor
        Any shape.
    *counts : int
        How often, as numbers or as one tuple; the last for the last axis. Where there are more than axes, new ones come
        in front.
    dims : sequence of int, optional
        The same by name.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        If a number is negative.
    """
    counts = [whole("tile: dims", n, 0) for n in extents_of(counts, dims, "tile: dims")]
    counts = [1] * (a_tensor("tile", input).ndim - len(counts)) + counts
    shape = (1,) * (len(counts) - input.ndim) + tuple(input.shape)
    pairs = [extent for n, size in zip(counts, shape) for extent in ((n, size) if n != 1 else (size,))]
    single = [extent for n, size in zip(counts, shape) for extent in ((1, size) if n != 1 else (size,))]
    if 0 in counts:
        input = slice_view(reshape(input, shape), tuple(slice(0) for _ in shape))
    elif len(pairs) > 8:  # too many axes for one view: one after the other
        for axis, n in enumerate(counts):
            input = cat([reshape(input, (*[c * s for c, s in zip(counts[:axis], shape)], *shape[axis:]))] * n, axis)
    else:
        input = expand(reshape(input, single), pairs)
    return reshape(input, [n * size for n, size in zip(counts, shape)])


def select(input: Tensor, dim: int, index: int) -> Tensor:
    """One place along an axis, without that axis: a view.

    Parameters
    ----------
    input : Tensor
        At least one axis.
    dim : int
        The axis.
    index : int
        The place.

    Returns
    -------
    Tensor
    """
    return slice_view(input, ((slice(None),) * _axis("select", dim, a_tensor("select", input).ndim) + (integer("select", "index", index),)))


def _triangle(name: str, x: Tensor, diagonal: int, upper: bool) -> Tensor:
    if a_tensor(name, x).ndim < 2:
        raise ValueError(f"{name}: input has shape {x.shape}, but must have at least two axes")
    diagonal = integer(name, "diagonal", diagonal)
    rows, columns = x.shape[-2:]
    kept = {"diagonal": max(-rows, min(diagonal, columns)), "upper": upper}  # of any size in Python
    return record(_triangle_backward, (x,), launch.triangle(x, **kept), context=kept)


def _triangle_backward(node, dy):
    return launch.triangle(dy, **node.context)


def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """The last two axes' lower triangle, 0 above it.

    Parameters
    ----------
    input : Tensor
        At least two axes.
    diagonal : int
        The uppermost diagonal that is kept; 1 lies above the main one.

    Returns
    -------
    Tensor
        Shape and type of `input`.

    Raises
    ------
    ValueError
        If `input` has fewer axes.
    """
    return _triangle("tril", input, diagonal, False)


def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """The last two axes' upper triangle, from `diagonal` on, 0 below it; parameters as `tril`."""
    return _triangle("triu", input, diagonal, True)


# ---- products --------------------------------------------------------------------------------------------------------


def _product(name: str, a: Tensor, b: Tensor, rank_a: int, rank_b: int, arguments: tuple[str, str] = ("input", "mat2")) -> Tensor:
    if (a_tensor(name, a, arguments[0]).ndim, a_tensor(name, b, arguments[1]).ndim) != (rank_a, rank_b):
        raise ValueError(f"{name}: the factors have shapes {a.shape} and {b.shape}, but must have {rank_a} and {rank_b} axes")
    return matmul(a, b)


def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """The product of two matrices.

    Parameters
    ----------
    input, mat2 : Tensor
        (N, K) and (K, M).

    Returns
    -------
    Tensor
        (N, M).

    Raises
    ------
    ValueError
        If shapes do not fit.
    """
    return _product("mm", input, mat2, 2, 2)


def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """The products of two batches of matrices, (B, N, K) and (B, K, M); see `mm`."""
    if a_tensor("bmm", input, "input").ndim == a_tensor("bmm", mat2, "mat2").ndim == 3 and input.shape[0] != mat2.shape[0]:
        raise ValueError(f"bmm: the factors have shapes {input.shape} and {mat2.shape}, but must be of one batch")
    return _product("bmm", input, mat2, 3, 3)


def mv(input: Tensor, vec: Tensor) -> Tensor:
    """The product of a matrix, (N, K), and a vector, (K,); see `mm`."""
    return _product("mv", input, vec, 2, 1, ("input", "vec"))


def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """The product of two vectors, (K,), a number; see `mm`."""
    return _product("dot", input, tensor, 1, 1, ("input", "tensor"))


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """All products of an element of one vector, (N,), with one of the other, (M,): (N, M); see `mm`."""
    if (a_tensor("outer", input, "input").ndim, a_tensor("outer", vec2, "vec2").ndim) != (1, 1):
        raise ValueError(f"outer: the factors have shapes {input.shape} and {vec2.shape}, but must have one axis")
    return mul(unsqueeze(input, 1), vec2)


def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, beta: float = 1.0, alpha: float = 1.0) -> Tensor:
    """beta input + alpha mat1 mat2.

    Parameters
    ----------
    input : Tensor
        Broadcasts to (N, M).
    mat1, mat2 : Tensor
        (N, K) and (K, M).
    beta, alpha : float
        Factors, whole ones for integers; with `beta` 0, `input` is not read.

    Returns
    -------
    Tensor
        (N, M).

    Raises
    ------
    ValueError
        If shapes do not fit.
    """
    product = scaled("addmm: alpha", _product("addmm", mat1, mat2, 2, 2, ("mat1", "mat2")), alpha)
    return product if beta == 0 else add(scaled("addmm: beta", input, beta), product)
