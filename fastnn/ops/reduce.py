"""Sums, means, extrema, variances over any axes. `dim` names one axis, several, or (None) all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from .. import _core
from ..checks import a_tensor, either, number
from .._core import TensorBase, launch, record
from .create import int64
from .math import eq, maximum, minimum, ne
from .operands import constant
from .shape import _axes_of_none, _axis, expand, permute, reshape, squeeze, to

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["all", "amax", "amin", "any", "argmax", "argmin", "logsumexp", "max", "mean", "min", "std", "std_mean", "sum", "var",
           "var_mean"]

Dim = int | Sequence[int] | None


class Extremum(NamedTuple):
    """What `max` and `min` along one axis give."""

    values: Tensor
    indices: Tensor


def _axes(name: str, dim: Dim, rank: int) -> tuple[int, ...]:
    """The axes `dim` names, counted from the front; None and () name all."""
    if type(dim) is int and -rank <= dim < rank:  # the common case, kept cheap
        return (dim % rank,)
    if dim is None or (isinstance(dim, (tuple, list)) and not dim):
        return tuple(range(rank))
    dims = dim if isinstance(dim, (tuple, list)) else (dim,)
    axes = tuple(_axis(name, d, rank) for d in dims) if rank else _axes_of_none(name, dims)
    if len(set(axes)) != len(axes):
        raise ValueError(f"{name}: dim is {tuple(dims)}, which names an axis twice")
    return axes


def numpy_words(name: str, dim: Dim, keepdim: bool, axis: Dim, keepdims: bool | None = None) -> tuple[Dim, bool]:
    """`dim` and `keepdim`, which may have been given under NumPy's names, as in PyTorch."""
    return either(name, dim, axis), keepdim if keepdims is None else keepdims


def _mask(axes: Sequence[int]) -> int:
    mask = 0
    for axis in axes:
        mask |= 1 << axis
    return mask


def _kept(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, ...]:
    """`shape` with an extent of 1 at the reduced axes."""
    return tuple(1 if d in axes else n for d, n in enumerate(shape))


def _count(shape: Sequence[int], axes: Sequence[int]) -> int:
    count = 1
    for axis in axes:
        count *= shape[axis]
    return count


def _check_real(name: str, x: Tensor) -> None:
    if not a_tensor(name, x).dtype.is_floating:
        raise TypeError(f"{name}: input has dtype {x.dtype}, but must be float32 or float64: convert it first, x.float()")


def _divided(x: Tensor, divisor: float) -> Tensor:
    """x / divisor off the tape: a sum over no axis."""
    return launch.sum(x, axes=0, keepdim=0, divisor=divisor)


# ---- sums -------------------------------------------------------------------------------------------------------------


def sum(input: Tensor, dim: Dim = None, keepdim: bool = False, dtype: object = None, *, axis: Dim = None,
        keepdims: bool | None = None) -> Tensor:
    """The sum over axes.

    Parameters
    ----------
    input : Tensor
        Any shape and dtype. Integers and bools add up to int64, exactly; sums wrap around.
    dim : int or sequence of int, optional
        Axes to sum over; by default all.
    keepdim : bool
        Whether summed axes stay, with one element.
    dtype : dtype, optional
        What to convert `input` to first.
    axis, keepdims : optional
        NumPy's names for `dim` and `keepdim`.

    Returns
    -------
    Tensor
        0 where there is nothing to add. Fixed chunks are added in a fixed tree: the error grows much slower than the
        count, and the bits depend neither on strides nor on the number of threads.
    """
    if axis is not None or keepdims is not None:
        dim, keepdim = numpy_words("sum", dim, keepdim, axis, keepdims)
    if dtype is not None:
        input = to(input, dtype)
    axes = _axes("sum", dim, a_tensor("sum", input).ndim)
    if not input.dtype.is_floating:
        return launch.sum(to(input, int64), axes=_mask(axes), keepdim=keepdim, divisor=1.0)
    y = launch.sum(input, axes=_mask(axes), keepdim=keepdim, divisor=1.0)
    return record(_sum_backward, (input,), y, context=(input.shape, axes))


def any(input: Tensor, dim: Dim = None, keepdim: bool = False, *, axis: Dim = None, keepdims: bool | None = None) -> Tensor:
    """Whether there is an element that is not 0, over axes, as for `sum`: bool. NaN is not 0."""
    if axis is not None or keepdims is not None:
        dim, keepdim = numpy_words("any", dim, keepdim, axis, keepdims)
    return ne(sum(ne(input, 0), dim, keepdim), 0)


def all(input: Tensor, dim: Dim = None, keepdim: bool = False, *, axis: Dim = None, keepdims: bool | None = None) -> Tensor:
    """Whether no element is 0, over axes, as for `sum`: bool. True where there is nothing."""
    if axis is not None or keepdims is not None:
        dim, keepdim = numpy_words("all", dim, keepdim, axis, keepdims)
    return eq(sum(eq(input, 0), dim, keepdim), 0)


def _sum_backward(node, dy):
    shape, axes = node.context
    return expand(reshape(dy, _kept(shape, axes)), shape)


def mean(input: Tensor, dim: Dim = None, keepdim: bool = False, *, dtype: object = None, axis: Dim = None,
         keepdims: bool | None = None) -> Tensor:
    """The mean over axes.

    Parameters
    ----------
    input : Tensor
        Any shape; float32 or float64.
    dim : int or sequence of int, optional
        Axes to average over; by default all.
    keepdim : bool
        Whether these axes stay, with one element.
    dtype : dtype, optional
        What to convert `input` to first.
    axis, keepdims : optional
        NumPy's names for `dim` and `keepdim`.

    Returns
    -------
    Tensor
        NaN where there is nothing to average.

    Raises
    ------
    TypeError
        If `input` holds integers or bools.
    """
    if axis is not None or keepdims is not None:
        dim, keepdim = numpy_words("mean", dim, keepdim, axis, keepdims)
    if dtype is not None:
        input = to(input, dtype)
    _check_real("mean", input)
    axes = _axes("mean", dim, input.ndim)
    y = launch.sum(input, axes=_mask(axes), keepdim=keepdim, divisor=float(_count(input.shape, axes)))
    return record(_mean_backward, (input,), y, context=(input.shape, axes))


def _mean_backward(node, dy):
    shape, axes = node.context
    share = _divided(dy, float(_count(shape, axes)))
    return expand(reshape(share, _kept(shape, axes)), shape)


# ---- extrema ----------------------------------------------------------------------------------------------------------


def _extreme_values(name: str, x: Tensor, dim: Dim, keepdim: bool) -> Tensor:
    """The extremum over axes; its gradient is shared among equals."""
    axes = _axes(name, dim, a_tensor(name, x).ndim)
    reduce = launch.max_reduce if name.endswith("max") else launch.min_reduce
    if not x.dtype.is_floating:
        return to(reduce(to(x, int64), axes=_mask(axes), keepdim=keepdim), x.dtype)
    y = reduce(x, axes=_mask(axes), keepdim=keepdim)
    return record(_extreme_backward, (x,), y, saved=(x, y), context=axes)


def _extreme_backward(node, dy):
    x, y = node.saved
    axes, kept = node.context, _kept(x.shape, node.context)
    here = launch.eq(x, reshape(y, kept))
    count = launch.sum(launch.copy(here, dtype=x.dtype.code), axes=_mask(axes), keepdim=1, divisor=1.0)
    return launch.where(here, launch.div(reshape(dy, kept), count), constant(0.0, x.dtype))


def amax(input: Tensor, dim: Dim = None, keepdim: bool = False, *, axis: Dim = None, keepdims: bool | None = None) -> Tensor:
    """The largest element over axes; NaN wins; its gradient is shared equally among equals.

    Parameters
    ----------
    input : Tensor
        Any shape and dtype.
    dim : int or sequence of int, optional
        Axes to search; by default all.
    keepdim : bool
        Whether these axes stay, with one element.
    axis, keepdims : optional
        NumPy's names for `dim` and `keepdim`.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        If one of these axes is empty.
    """
    if axis is not None or keepdims is not None:
        dim, keepdim = numpy_words("amax", dim, keepdim, axis, keepdims)
    return _extreme_values("amax", input, dim, keepdim)


def amin(input: Tensor, dim: Dim = None, keepdim: bool = False, *, axis: Dim = None, keepdims: bool | None = None) -> Tensor:
    """The smallest element over axes; see `amax`."""
    if axis is not None or keepdims is not None:
        dim, keepdim = numpy_words("amin", dim, keepdim, axis, keepdims)
    return _extreme_values("amin", input, dim, keepdim)


def _position(name: str, x: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    """Where the extremum is; an axis of a 0-d tensor (0 or -1) is one of a single element."""
    x = x.detach() if a_tensor(name, x).dtype.is_floating else to(x, int64)
    if dim is None or x.ndim == 0:
        if dim is not None:
            _axis(name, dim, 1)
        y = launch.argmax(reshape(x, (x.numel(),)), axis=0, keepdim=0, smallest=name.endswith("min"))
        return reshape(y, (1,) * x.ndim) if keepdim else y
    return launch.argmax(x, axis=_axis(name, dim, x.ndim), keepdim=keepdim, smallest=name.endswith("min"))


def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False, *, axis: int | None = None,
           keepdims: bool | None = None) -> Tensor:
    """Where the largest element is.

    Parameters
    ----------
    input : Tensor
        Any shape and dtype.
    dim : int, optional
        Axis to search; by default all elements in logical (C) order.
    keepdim : bool
        Whether the axis stays, with one element.
    axis, keepdims : optional
        NumPy's names for `dim` and `keepdim`.

    Returns
    -------
    Tensor
        int64: the first of equals, or the first NaN.

    Raises
    ------
    ValueError
        If there is nothing to search.
    """
    if axis is not None or keepdims is not None:
        dim, keepdim = numpy_words("argmax", dim, keepdim, axis, keepdims)
    return _position("argmax", input, dim, keepdim)


def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False, *, axis: int | None = None,
           keepdims: bool | None = None) -> Tensor:
    """Where the smallest element is; see `argmax`."""
    if axis is not None or keepdims is not None:
        dim, keepdim = numpy_words("argmin", dim, keepdim, axis, keepdims)
    return _position("argmin", input, dim, keepdim)


def _extremum(name: str, x: Tensor, dim: int | None, keepdim: bool) -> Tensor | Extremum:
    if dim is None:
        return _extreme_values(name, x, None, False)
    if a_tensor(name, x).ndim == 0:
        return Extremum(x, _position(name, x, dim, keepdim))
    axis = _axis(name, dim, x.ndim)
    indices = _position(name, x, axis, True)
    values = launch.gather(x, indices, axis=axis)
    if not keepdim:
        values, indices = squeeze(values, axis), squeeze(indices, axis)
    if not x.dtype.is_floating:
        return Extremum(values, indices)
    return Extremum(*record(_extremum_backward, (x,), (values, indices), saved=(indices,), context=(x.shape, axis)))


def _extremum_backward(node, dvalues, _):
    (indices,) = node.saved
    shape, axis = node.context
    kept = _kept(shape, (axis,))
    dx = _core.empty(shape, dvalues.dtype)
    launch.fill(value=0.0, out=dx)
    launch.scatter_add(reshape(indices, kept), reshape(dvalues, kept), axis=axis, out=dx)
    return dx


def max(input: Tensor, dim: int | Tensor | None = None, keepdim: bool = False, *, axis: int | None = None,
        keepdims: bool | None = None) -> Tensor | Extremum:
    """The largest element, of all or along one axis; of two tensors, `maximum`. NaN wins.

    Parameters
    ----------
    input : Tensor
        Any shape and dtype.
    dim : int or Tensor, optional
        Axis to search; by default all axes. A tensor makes it ``maximum(x, dim)``.
    keepdim : bool
        Whether the axis stays, with one element.
    axis, keepdims : optional
        NumPy's names for `dim` and `keepdim`.

    Returns
    -------
    Tensor or (values, indices)
        Without `dim`, the value; its gradient is shared among equals. With an axis, a named tuple of the values and of
        their int64 positions, the first of equals, which takes the whole gradient.

    Raises
    ------
    ValueError
        If there is nothing to search.
    """
    if axis is not None or keepdims is not None:
        dim, keepdim = numpy_words("max", dim, keepdim, axis, keepdims)
    return maximum(input, dim) if isinstance(dim, TensorBase) else _extremum("max", input, dim, keepdim)


def min(input: Tensor, dim: int | Tensor | None = None, keepdim: bool = False, *, axis: int | None = None,
        keepdims: bool | None = None) -> Tensor | Extremum:
    """The smallest element, of all or along one axis; of two tensors, `minimum`; see `max`."""
    if axis is not None or keepdims is not None:
        dim, keepdim = numpy_words("min", dim, keepdim, axis, keepdims)
    return minimum(input, dim) if isinstance(dim, TensorBase) else _extremum("min", input, dim, keepdim)


# ---- variances --------------------------------------------------------------------------------------------------------


def _variance(name: str, x: Tensor, dim: Dim, correction: float | None, unbiased: bool | None,
              keepdim: bool) -> tuple[Tensor, Tensor, tuple[int, ...], float]:
    """The variance, the mean (with all axes), the axes and the divisor."""
    _check_real(name, x)
    given = either(name, correction, unbiased, ("correction", "unbiased"))
    axes, correction = _axes(name, dim, x.ndim), 1.0 if given is None else number(f"{name}: correction", given)
    count = _count(x.shape, axes)
    divisor = float(count - correction) if count > correction else 0.0
    middle = launch.sum(x, axes=_mask(axes), keepdim=1, divisor=float(count))
    y = launch.sum(launch.square(launch.sub(x, middle)), axes=_mask(axes), keepdim=keepdim, divisor=divisor)
    return y, middle, axes, divisor


def var(input: Tensor, dim: Dim = None, correction: float | None = None, keepdim: bool = False, *, unbiased: bool | None = None,
        axis: Dim = None, keepdims: bool | None = None) -> Tensor:
    """The variance over axes: the sum of squared distances from the mean over (count - correction), in two passes.

    Parameters
    ----------
    input : Tensor
        Any shape; float32 or float64.
    dim : int or sequence of int, optional
        Axes; by default all.
    correction : float, optional
        1, as by default, for a sample's variance (Bessel), 0 for a population's.
    keepdim : bool
        Whether these axes stay, with one element.
    unbiased : bool, optional
        PyTorch's older word: True for a correction of 1, False for 0.
    axis, keepdims : optional
        NumPy's names for `dim` and `keepdim`.

    Returns
    -------
    Tensor
        NaN or infinity where count <= correction.

    Raises
    ------
    TypeError
        If `input` holds integers or bools, or `correction` and `unbiased` are both given.
    """
    if axis is not None or keepdims is not None:
        dim, keepdim = numpy_words("var", dim, keepdim, axis, keepdims)
    y, middle, axes, divisor = _variance("var", input, dim, correction, unbiased, keepdim)
    return record(_var_backward, (input,), y, saved=(input, middle), context=(axes, divisor))


def _var_backward(node, dy):
    x, middle = node.saved
    axes, divisor = node.context
    return launch.mul(launch.sub(x, middle), _divided(reshape(dy, _kept(x.shape, axes)), divisor / 2))


def std(input: Tensor, dim: Dim = None, correction: float | None = None, keepdim: bool = False, *, unbiased: bool | None = None,
        axis: Dim = None, keepdims: bool | None = None) -> Tensor:
    """The standard deviation over axes, the square root of `var`; its gradient at 0 is 0."""
    if axis is not None or keepdims is not None:
        dim, keepdim = numpy_words("std", dim, keepdim, axis, keepdims)
    variance, middle, axes, divisor = _variance("std", input, dim, correction, unbiased, keepdim)
    y = launch.sqrt(variance)
    return record(_std_backward, (input,), y, saved=(input, middle, y), context=(axes, divisor))


def _std_backward(node, dy):
    x, middle, y = node.saved
    axes, divisor = node.context
    zero = constant(0.0, x.dtype)
    slope = launch.where(launch.eq(y, zero), zero, launch.div(dy, y))
    return launch.mul(launch.sub(x, middle), _divided(reshape(slope, _kept(x.shape, axes)), divisor))


def var_mean(input: Tensor, dim: Dim = None, correction: float | None = None, keepdim: bool = False, *,
             unbiased: bool | None = None) -> tuple[Tensor, Tensor]:
    """The variance and the mean over axes; parameters as `var`."""
    return var(input, dim, correction, keepdim, unbiased=unbiased), mean(input, dim, keepdim)


def std_mean(input: Tensor, dim: Dim = None, correction: float | None = None, keepdim: bool = False, *,
             unbiased: bool | None = None) -> tuple[Tensor, Tensor]:
    """The standard deviation and the mean over axes; parameters as `var`."""
    return std(input, dim, correction, keepdim, unbiased=unbiased), mean(input, dim, keepdim)


# ---- logarithm of a sum of exponentials -------------------------------------------------------------------------------


def logsumexp(input: Tensor, dim: Dim, keepdim: bool = False) -> Tensor:
    """log(sum(exp(x))) over axes, without overflow.

    Parameters
    ----------
    input : Tensor
        Any shape; float32 or float64.
    dim : int or sequence of int
        Axes to sum over.
    keepdim : bool
        Whether these axes stay, with one element.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        If one of these axes is empty.
    """
    _check_real("logsumexp", input)
    axes = _axes("logsumexp", dim, input.ndim)
    kept = _kept(input.shape, axes)
    if len(axes) == 1:
        y = launch.logsumexp(input, axis=axes[0])
        y = record(_logsumexp_backward, (input,), y, saved=(input, y))
    else:
        rest = [d for d in range(input.ndim) if d not in axes]
        rows = reshape(permute(input, *rest, *axes), (*(input.shape[d] for d in rest), _count(input.shape, axes)))
        y = reshape(logsumexp(rows, -1), kept)
    return y if keepdim else reshape(y, tuple(n for d, n in enumerate(kept) if d not in axes))


def _logsumexp_backward(node, dy):
    x, y = node.saved
    return launch.mul(launch.exp(launch.sub(x, y)), dy)
