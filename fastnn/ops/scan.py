"""Running sums, products and extrema along an axis; products over axes; differences of neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._core import launch, record
from ..checks import a_tensor, whole
from .create import as_tensor, int64
from .index import _gather_backward
from .math import ne, sub
from .reduce import Dim, Extremum, _axes, _count, _kept, numpy_words
from .shape import _axis, permute, reshape, to, unsqueeze
from .slices import cat, slice_view

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["cummax", "cummin", "cumprod", "cumsum", "diff", "prod"]


def _scanned(name: str, x: Any, dim: int, dtype: Any) -> tuple[Tensor, int]:
    """`x` in a type that is counted in, and its axis; that of a 0-d tensor is one of a single element."""
    x = as_tensor(x)
    if dtype is not None:
        x = to(x, dtype)
    return x if x.dtype.is_floating else to(x, int64), _axis(name, dim, max(x.ndim, 1))


def cumsum(input: Tensor, dim: int | None = None, dtype: object = None, *, axis: int | None = None) -> Tensor:
    """Running sums along an axis: y_i = x_0 + ... + x_i.

    Parameters
    ----------
    input : Tensor
        Any shape; integers and bools become int64 and wrap around.
    dim : int
        The axis.
    dtype : dtype, optional
        What to convert `input` to first.
    axis : optional
        NumPy's name for `dim`.

    Returns
    -------
    Tensor
        Shape of `input`. Sums are carried in double precision.

    Raises
    ------
    IndexError
        If there is no such axis.
    """
    if axis is not None:
        dim, _ = numpy_words("cumsum", dim, False, axis)
    x, axis = _scanned("cumsum", input, dim, dtype)
    return record(_cumsum_backward, (x,), launch.cumsum(x, axis=axis, reverse=0), context=axis)


def _cumsum_backward(node, dy):
    return launch.cumsum(dy, axis=node.context, reverse=1)


def cumprod(input: Tensor, dim: int | None = None, dtype: object = None, *, axis: int | None = None) -> Tensor:
    """Running products along an axis: y_i = x_0 ... x_i; parameters as `cumsum`. Its gradient is exact where elements are 0."""
    if axis is not None:
        dim, _ = numpy_words("cumprod", dim, False, axis)
    x, axis = _scanned("cumprod", input, dim, dtype)
    return record(_cumprod_backward, (x,), launch.cumprod(x, axis=axis), saved=(x,), context=axis)


def _cumprod_backward(node, dy):
    return launch.cumprod_backward(dy, node.saved[0], axis=node.context)


def prod(input: Tensor, dim: Dim = None, keepdim: bool = False, dtype: object = None, *, axis: Dim = None,
         keepdims: bool | None = None) -> Tensor:
    """The product over axes, 1 of nothing; its gradient is exact where elements are 0.

    Parameters
    ----------
    input : Tensor
        Any shape; integers and bools become int64 and wrap around.
    dim : int or sequence of int, optional
        Axes to multiply over; by default all.
    keepdim : bool
        Whether these axes stay, with one element.
    dtype : dtype, optional
        What to convert `input` to first.
    axis, keepdims : optional
        NumPy's names for `dim` and `keepdim`.

    Returns
    -------
    Tensor
        Products are carried in double precision.
    """
    if axis is not None or keepdims is not None:
        dim, keepdim = numpy_words("prod", dim, keepdim, axis, keepdims)
    x, _ = _scanned("prod", input, 0, dtype)
    axes = _axes("prod", dim, x.ndim)
    if len(axes) == 1 or x.ndim == 0:
        return _product(x, axes[0] if axes else 0, keepdim and x.ndim > 0)
    rest = [d for d in range(x.ndim) if d not in axes]
    lines = permute(x, *rest, *axes) if rest else x
    y = _product(reshape(lines, (*(x.shape[d] for d in rest), _count(x.shape, axes))), len(rest), False)
    return reshape(y, _kept(x.shape, axes)) if keepdim else y


def _product(x: Tensor, axis: int, keepdim: bool) -> Tensor:
    return record(_prod_backward, (x,), launch.prod(x, axis=axis, keepdim=keepdim), saved=(x,), context=(axis, keepdim))


def _prod_backward(node, dy):
    axis, keepdim = node.context
    (x,) = node.saved
    return launch.prod_backward(dy if keepdim or not x.ndim else unsqueeze(dy, axis), x, axis=axis)


def cummax(input: Tensor, dim: int) -> Extremum:
    """The greatest element so far along an axis, and where it is.

    Parameters
    ----------
    input : Tensor
        Any shape and dtype.
    dim : int
        The axis.

    Returns
    -------
    (values, indices)
        A named tuple, both of `input`'s shape: of equals the last; NaN stays. The gradient goes to the places named.

    Raises
    ------
    IndexError
        If there is no such axis.
    """
    return _cumulated("cummax", input, dim)


def cummin(input: Tensor, dim: int) -> Extremum:
    """The least element so far along an axis, and where it is; see `cummax`."""
    return _cumulated("cummin", input, dim)


def _cumulated(name: str, x: Tensor, dim: int) -> Extremum:
    axis = _axis(name, dim, max(a_tensor(name, x).ndim, 1))
    wide = x if x.dtype.is_floating else to(x, int64)
    values, indices = launch.cummax(wide, axis=axis, smallest=name == "cummin")
    if wide is not x:
        return Extremum(to(values, x.dtype), indices)
    return Extremum(*record(_cumulated_backward, (x,), (values, indices), saved=(indices,), context=(x.shape, axis)))


def _cumulated_backward(node, dvalues, _):
    return _gather_backward(node, dvalues) if node.context[0] else dvalues


def diff(input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None) -> Tensor:
    """Differences of neighbours along an axis, `n` times: y_i = x_(i + 1) - x_i, whether they differ of bools.

    Parameters
    ----------
    input : Tensor
        Any shape and dtype.
    n : int
        How often.
    dim : int
        The axis.
    prepend, append : Tensor, optional
        What to join in front of `input` and behind it along the axis first.

    Returns
    -------
    Tensor
        The axis is shorter by `n`, at least empty.

    Raises
    ------
    IndexError
        If there is no such axis.
    """
    axis, n = _axis("diff", dim, a_tensor("diff", input).ndim), whole("diff: n", n, 0)
    if n and (prepend is not None or append is not None):
        input = cat([t for t in (prepend, input, append) if t is not None], axis)
    every = (slice(None),) * axis
    for _ in range(min(n, input.shape[axis])):  # then it is empty and stays so
        later, earlier = slice_view(input, (*every, slice(1, None))), slice_view(input, (*every, slice(None, -1)))
        input = ne(later, earlier) if input.dtype.name == "bool" else sub(later, earlier)
    return input
