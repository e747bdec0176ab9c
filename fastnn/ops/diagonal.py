"""Diagonals of matrices: taken out, written, added up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core import launch, record
from ..checks import a_tensor, integer
from .index import _zeros
from .reduce import sum
from .shape import _axis, clone, flatten

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["diag", "diag_embed", "diagflat", "diagonal", "trace"]


def _two_axes(name: str, dim1: int, dim2: int, rank: int) -> tuple[int, int]:
    first, second = _axis(name, dim1, rank), _axis(name, dim2, rank)
    if first == second:
        raise ValueError(f"{name}: dim1 is {dim1} and dim2 {dim2}, but they must be two axes")
    return first, second


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A diagonal of the matrices along two axes, as a last axis: a view.

    Parameters
    ----------
    input : Tensor
        At least two axes.
    offset : int
        Which: 0 the main one, 1 the one above.
    dim1, dim2 : int
        The matrices' rows and columns.

    Returns
    -------
    Tensor
        Without the two axes and with the diagonal's behind the others.

    Raises
    ------
    IndexError
        If there is no such axis.
    ValueError
        If both are one.
    """
    rows, columns = _two_axes("diagonal", dim1, dim2, a_tensor("diagonal", input).ndim)
    offset = integer("diagonal", "offset", offset)
    return record(_diagonal_backward, (input,), _diagonal_view(input, offset, rows, columns), context=(input.shape, offset, rows, columns))


def _diagonal_view(x: Tensor, offset: int, rows: int, columns: int) -> Tensor:
    down, along = max(-offset, 0), max(offset, 0)
    length = max(min(x.shape[rows] - down, x.shape[columns] - along), 0)
    rest = [d for d in range(x.ndim) if d not in (rows, columns)]
    start = down * x.strides[rows] + along * x.strides[columns] if length else 0
    return x.detach().as_strided([x.shape[d] for d in rest] + [length],
                                 [x.strides[d] for d in rest] + [x.strides[rows] + x.strides[columns]], start)


def _diagonal_backward(node, dy):
    shape, offset, rows, columns = node.context
    dx = _zeros(shape, dy.dtype)
    launch.copy(dy, dtype=-1, out=_diagonal_view(dx, offset, rows, columns))
    return dx


def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Square matrices, along two new axes, with the last axis of `input` as a diagonal and 0 elsewhere.

    Parameters
    ----------
    input : Tensor
        At least one axis.
    offset : int
        Which diagonal: 0 the main one, 1 the one above.
    dim1, dim2 : int
        Where the result has the matrices' rows and columns.

    Returns
    -------
    Tensor
        With one axis more.

    Raises
    ------
    IndexError
        If there is no such axis.
    ValueError
        If both are one, or `input` has no axis.
    """
    if a_tensor("diag_embed", input).ndim == 0:
        raise ValueError("diag_embed: input has no axis, but must have at least one")
    rows, columns = _two_axes("diag_embed", dim1, dim2, input.ndim + 1)
    offset = integer("diag_embed", "offset", offset)
    extent = input.shape[-1] + abs(offset)
    rest = iter(input.shape[:-1])
    y = _zeros(tuple(extent if d in (rows, columns) else next(rest) for d in range(input.ndim + 1)), input.dtype)
    launch.copy(input.detach(), dtype=-1, out=_diagonal_view(y, offset, rows, columns))
    return record(_diag_embed_backward, (input,), y, context=(offset, rows, columns))


def _diag_embed_backward(node, dy):
    return _diagonal_view(dy, *node.context)


def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """A vector as the diagonal of a matrix, or a matrix's diagonal as a vector.

    Parameters
    ----------
    input : Tensor
        (N,) or (N, M).
    diagonal : int
        Which: 0 the main one, 1 the one above.

    Returns
    -------
    Tensor
        With memory of its own.

    Raises
    ------
    ValueError
        If `input` has neither one nor two axes.
    """
    if a_tensor("diag", input).ndim not in (1, 2):
        raise ValueError(f"diag: input has shape {input.shape}, but must have one axis or two")
    return diag_embed(input, diagonal) if input.ndim == 1 else clone(_DIAGONAL(input, diagonal))


_DIAGONAL = diagonal  # `diag` has an argument of that name


def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """All elements, in logical order, as a diagonal of a square matrix; see `diag_embed`."""
    return diag_embed(flatten(input), offset)


def trace(input: Tensor) -> Tensor:
    """The sum of a matrix's main diagonal.

    Parameters
    ----------
    input : Tensor
        (N, M).

    Returns
    -------
    Tensor
        A single number.

    Raises
    ------
    ValueError
        If `input` has not two axes.
    """
    if a_tensor("trace", input).ndim != 2:
        raise ValueError(f"trace: input has shape {input.shape}, but must have two axes")
    if not input.dtype.is_floating:
        return sum(diagonal(input))
    y = launch.sum(_diagonal_view(input, 0, 0, 1), axes=1, keepdim=0, divisor=1.0)
    return record(_trace_backward, (input,), y, context=input.shape)


def _trace_backward(node, dy):
    dx = _zeros(node.context, dy.dtype)
    diagonal = _diagonal_view(dx, 0, 0, 1)
    launch.copy(dy.expand(diagonal.shape), dtype=-1, out=diagonal)
    return dx
