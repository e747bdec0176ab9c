"""Einstein summation and contraction of axes, as batched matrix products."""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import _core
from .._core import TensorBase, launch, record
from ..checks import a_tensor, integers
from .linear import matmul
from .reduce import sum as sum_over
from .shape import _axis, permute, reshape

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["einsum", "tensordot"]


def einsum(equation: str, *operands: Tensor) -> Tensor:
    """Sums products of elements, the axes named by letters, as ``numpy.einsum``.

    Operands are taken two at a time from the left; each pair is one batched matrix product.

    Parameters
    ----------
    equation : str
        For example "bij,bjk->bik". Letters that are missing on the right are summed over; without an arrow, the letters
        that occur once remain, in alphabetical order. A letter twice in one operand takes its diagonal.
    *operands : Tensor
        One for each comma-separated part, with one axis for each of its letters.

    Returns
    -------
    Tensor
        With one axis for each letter on the right.

    Raises
    ------
    ValueError
        If the equation is malformed, does not fit the operands, or extents of one letter differ.
    """
    inputs, output = _parse(equation, operands)
    terms = [_take_diagonals(x, letters) for x, letters in zip(operands, inputs)]
    x, letters = terms[0]
    for k, (y, others) in enumerate(terms[1:], 1):
        later = set(output).union(*(rest for _, rest in terms[k + 1:]))
        x, letters = _product(x, letters, y, others, later)
    x, letters = _sum_out(x, letters, set(output))
    return permute(x, *(letters.index(c) for c in output)) if output else x


def tensordot(a: Tensor, b: Tensor, dims: int | Sequence[Sequence[int]] = 2) -> Tensor:
    """Sums products of elements over axes of two tensors, as ``numpy.tensordot``.

    Parameters
    ----------
    a, b : Tensor
        Any shapes in which the axes that are summed over have the same extents.
    dims : int or two sequences of int
        Which axes these are: so many, the last of `a` and the first of `b`; or those of `a`, and those of `b` in their order.

    Returns
    -------
    Tensor
        The other axes of `a`, then those of `b`.

    Raises
    ------
    ValueError
        If `dims` is something else, names an axis twice, or extents differ.
    IndexError
        If there is no such axis.
    """
    a_tensor("tensordot", a, "a"), a_tensor("tensordot", b, "b")
    inner = _contracted(a, b, dims)
    if any(a.shape[d] != b.shape[e] for d, e in zip(*inner)):
        raise ValueError(f"tensordot: axes {inner[0]} of a {a.shape} and {inner[1]} of b {b.shape} have different extents")
    left = [d for d in range(a.ndim) if d not in inner[0]]
    right = [d for d in range(b.ndim) if d not in inner[1]]
    rows, columns, shared = [a.shape[d] for d in left], [b.shape[d] for d in right], [a.shape[d] for d in inner[0]]
    y = matmul(reshape(permute(a, *left, *inner[0]), (math.prod(rows), math.prod(shared))),
               reshape(permute(b, *inner[1], *right), (math.prod(shared), math.prod(columns))))
    return reshape(y, (*rows, *columns))


def _contracted(a: Tensor, b: Tensor, dims: int | Sequence[Sequence[int]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes of `a` and of `b` that `dims` names, counted from the front."""
    if isinstance(dims, (tuple, list)) and len(dims) == 2:
        pair = tuple(tuple(_axis("tensordot", d, x.ndim) for d in integers("tensordot", "dims", part))
                     for x, part in zip((a, b), dims))
        if len(pair[0]) == len(pair[1]) and all(len(set(axes)) == len(axes) for axes in pair):
            return pair
    elif isinstance(dims, numbers.Integral) and not isinstance(dims, bool) and 0 <= dims <= min(a.ndim, b.ndim):
        return tuple(range(a.ndim - dims, a.ndim)), tuple(range(dims))
    raise ValueError(f"tensordot: dims is {dims!r}, but must be a number of axes from 0 to {min(a.ndim, b.ndim)}, or two sequences "
                     "of as many different axes")


def _parse(equation: str, operands: tuple) -> tuple[tuple[str, ...], str]:
    """The letters of each operand and of the result, checked against the operands."""
    if not isinstance(equation, str):
        raise TypeError(f"einsum: equation is {equation!r}, but must be a str")
    if not operands or not all(isinstance(x, TensorBase) for x in operands):
        raise ValueError(f"einsum: needs tensors after the equation, not {[type(x).__name__ for x in operands]}")
    inputs, output = _letters(equation)
    if len(inputs) != len(operands):
        raise ValueError(f"einsum: equation {equation!r} names {len(inputs)} operands, but {len(operands)} are given")
    extents: dict[str, int] = {}
    for letters, x in zip(inputs, operands):
        if len(letters) != x.ndim:
            raise ValueError(f"einsum: '{letters}' names {len(letters)} axes, but the operand's shape is {x.shape}")
        for c, n in zip(letters, x.shape):
            if extents.setdefault(c, n) != n:
                raise ValueError(f"einsum: axis '{c}' has extents {extents[c]} and {n}")
    return inputs, output


@functools.lru_cache(maxsize=256)
def _letters(equation: str) -> tuple[tuple[str, ...], str]:
    """The letters of each operand that an equation names, and of the result."""
    left, arrow, output = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    if not all(part.isalpha() or not part for part in (*inputs, output)):
        raise ValueError(f"einsum: equation {equation!r} may hold letters, commas and one '->' only")
    if not arrow:
        output = "".join(sorted(c for c in set(left) if c.isalpha() and left.count(c) == 1))
    if len(set(output)) != len(output) or not set(output) <= set(left.replace(",", "")):
        raise ValueError(f"einsum: '{output}' must hold letters of the operands, each once")
    return tuple(inputs), output


def _take_diagonals(x: Tensor, letters: str) -> tuple[Tensor, str]:
    """Merges axes of one letter: element i, i becomes element i; a view."""
    kept = "".join(dict.fromkeys(letters))
    if kept == letters:
        return x, letters
    shape = [x.shape[letters.index(c)] for c in kept]
    view = _diagonal(x, letters, kept, shape)
    return record(_diagonal_backward, (x,), view, context=(x.shape, letters, kept, shape)), kept


def _diagonal(x: Tensor, letters: str, kept: str, shape: list[int]) -> Tensor:
    return x.as_strided(shape, [sum(s for s, c in zip(x.strides, letters) if c == k) for k in kept])


def _diagonal_backward(node, dy):
    shape, letters, kept, extents = node.context
    dx = _core.empty(shape, dy.dtype)
    launch.fill(value=0.0, out=dx)
    launch.copy(dy, dtype=-1, out=_diagonal(dx, letters, kept, extents))
    return dx


def _sum_out(x: Tensor, letters: str, needed: set[str]) -> tuple[Tensor, str]:
    """Sums over the axes nobody needs."""
    axes = tuple(d for d, c in enumerate(letters) if c not in needed)
    return (sum_over(x, dim=axes), "".join(c for c in letters if c in needed)) if axes else (x, letters)


def _product(x: Tensor, a: str, y: Tensor, b: str, later: set[str]) -> tuple[Tensor, str]:
    """The product of two operands, summed over the letters that only they have."""
    x, a = _sum_out(x, a, later | set(b))
    y, b = _sum_out(y, b, later | set(a))
    left, right, sizes, letters = _orders(a, b, "".join(sorted(later)))
    x, y = permute(x, dims=left), permute(y, dims=right)
    batch, rows, inner = sizes
    y_shape = y.shape
    extents = (*x.shape[:batch + rows], *y_shape[batch + inner:])
    shared, depth = extents[:batch], math.prod(y_shape[batch:batch + inner])
    product = matmul(reshape(x, (*shared, math.prod(extents[batch:batch + rows]), depth)),
                     reshape(y, (*shared, depth, math.prod(extents[batch + rows:]))))
    return reshape(product, extents), letters


@functools.lru_cache(maxsize=1024)
def _orders(a: str, b: str, later: str) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, int, int], str]:
    """In which order two operands' axes make (batch, rows, inner) and (batch, inner, columns), how many axes the first three have,
    and the letters of the product."""
    batch = [c for c in a if c in b and c in later]
    inner = [c for c in a if c in b and c not in later]
    rows = [c for c in a if c not in b]
    columns = [c for c in b if c not in a]
    return (tuple(a.index(c) for c in batch + rows + inner), tuple(b.index(c) for c in batch + inner + columns),
            (len(batch), len(rows), len(inner)), "".join(batch + rows + columns))
