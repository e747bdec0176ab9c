"""Combinations of elements and tensors: products of sets, Kronecker products, covariances, areas, turns by right angles."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..checks import a_tensor, integer, integers, whole
from .arrange import broadcast_tensors, flip, meshgrid
from .create import as_tensor, int64
from .diagonal import diagonal
from .elementary import logaddexp
from .index import index_select
from .linear import matmul
from .math import add, clip, div, mul, sqrt, sub
from .operands import floating
from .reduce import mean, sum
from .scan import diff
from .shape import _axis, flatten, reshape, to, transpose, unsqueeze
from .slices import cat, narrow, stack

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["cartesian_prod", "combinations", "corrcoef", "cov", "kron", "logcumsumexp", "rot90", "trapezoid"]


def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """Turned by right angles, from the first of two axes towards the second.

    Parameters
    ----------
    input : Tensor
        At least two axes.
    k : int
        How many right angles; negative ones the other way round.
    dims : sequence of int
        The plane's two axes.

    Returns
    -------
    Tensor
        `input` itself where `k` is a multiple of 4.

    Raises
    ------
    IndexError
        If there is no such axis.
    ValueError
        If they are not two axes.
    """
    given = integers("rot90", "dims", dims)
    axes = [_axis("rot90", d, a_tensor("rot90", input).ndim) for d in given]
    if len(axes) != 2 or axes[0] == axes[1]:
        raise ValueError(f"rot90: dims is {dims!r}, but must be two axes")
    turns = integer("rot90", "k", k) % 4
    if turns == 2:
        return flip(input, axes)
    if turns == 0:
        return input
    return transpose(flip(input, axes[1 if turns == 1 else 0]), *axes)


def kron(input: Tensor, other: Tensor) -> Tensor:
    """The Kronecker product: every element of `input` times the whole of `other`, side by side.

    Parameters
    ----------
    input, other : Tensor
        At most four axes; the one with fewer gets axes of one element in front.

    Returns
    -------
    Tensor
        Along each axis as long as the product of both.

    Raises
    ------
    ValueError
        If one has more axes.
    """
    rank = max(a_tensor("kron", input).ndim, a_tensor("kron", other, "other").ndim)
    if rank > 4:
        raise ValueError(f"kron: input has shape {input.shape} and other {other.shape}, but both must have at most four axes")
    a, b = ((1,) * (rank - t.ndim) + tuple(t.shape) for t in (input, other))
    spread = reshape(input, tuple(n for extent in a for n in (extent, 1)))
    product = mul(spread, reshape(other, tuple(n for extent in b for n in (1, extent))))
    return reshape(product, tuple(n * m for n, m in zip(a, b)))


def cartesian_prod(*tensors: Tensor) -> Tensor:
    """All ways to take one element of each vector, the last one's changing fastest.

    Parameters
    ----------
    *tensors : Tensor
        Vectors.

    Returns
    -------
    Tensor
        (how many, how many vectors); of a single vector itself.

    Raises
    ------
    ValueError
        If one is no vector, or there is none.
    """
    if not tensors or any(a_tensor("cartesian_prod", t, "tensors").ndim != 1 for t in tensors):
        raise ValueError(f"cartesian_prod: tensors have shapes {[t.shape for t in tensors]}, but must be vectors, at least one")
    return tensors[0] if len(tensors) == 1 else stack([flatten(t) for t in meshgrid(*tensors, indexing="ij")], 1)


def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All ways to take some elements of a vector, in its order; as ``itertools.combinations``.

    Parameters
    ----------
    input : Tensor
        (N,).
    r : int
        How many are taken.
    with_replacement : bool
        Whether an element may be taken again.

    Returns
    -------
    Tensor
        (how many, r).

    Raises
    ------
    ValueError
        If `input` is no vector, or `r` negative.
    """
    if a_tensor("combinations", input).ndim != 1:
        raise ValueError(f"combinations: input has shape {input.shape}, but must have one axis")
    count = whole("combinations: r", integer("combinations", "r", r), 0)
    if count == 2:  # the common case: places above the diagonal
        places = np.stack(np.triu_indices(len(input), 0 if with_replacement else 1), 1)
    else:
        ways = itertools.combinations_with_replacement if with_replacement else itertools.combinations
        places = np.array(list(ways(range(len(input)), count)), np.int64).reshape(-1, count)
    return reshape(index_select(input, 0, as_tensor(np.ascontiguousarray(places.reshape(-1)), int64)), places.shape)


def cov(input: Tensor, *, correction: int = 1, fweights: Tensor | None = None, aweights: Tensor | None = None) -> Tensor:
    """Covariances of variables, which are rows, over observations, which are columns.

    Parameters
    ----------
    input : Tensor
        (variables, observations), or (observations,) of one.
    correction : int
        What is taken from the number of observations to divide by; 0: their mean.
    fweights : Tensor, optional
        (observations,), whole numbers: how often each counts.
    aweights : Tensor, optional
        (observations,): the weight of each.

    Returns
    -------
    Tensor
        (variables, variables), or one number. Infinite or NaN where there are no more observations than `correction`.

    Raises
    ------
    ValueError
        If `input` has more than two axes, or weights another shape.
    """
    if a_tensor("cov", input).ndim > 2:
        raise ValueError(f"cov: input has shape {input.shape}, but must have at most two axes")
    x = floating("cov", input)
    x = reshape(x, (1, x.numel())) if x.ndim < 2 else x
    n = x.shape[1]
    for name, weights in (("fweights", fweights), ("aweights", aweights)):
        if weights is not None and a_tensor("cov", weights, name).shape != (n,):
            raise ValueError(f"cov: {name} has shape {weights.shape}, but must be ({n},), one for each observation")
    if fweights is None and aweights is None:
        centred, total = sub(x, mean(x, 1, True)), max(n - correction, 0)
        product = matmul(centred, transpose(centred, 0, 1))
    else:
        w = to(fweights if aweights is None else aweights if fweights is None else mul(fweights, aweights), x.dtype)
        whole_weight = sum(w)
        centred = sub(x, div(sum(mul(x, w), 1, True), whole_weight))
        squares = sum(mul(w, to(aweights, x.dtype))) if aweights is not None else whole_weight
        total = clip(sub(whole_weight, mul(div(squares, whole_weight), correction)), 0, None)
        product = matmul(mul(centred, w), transpose(centred, 0, 1))
    y = div(product, total)
    return reshape(y, ()) if input.ndim < 2 else y


def corrcoef(input: Tensor) -> Tensor:
    """Pearson's coefficients of correlation of variables, which are rows: covariances over both deviations, from -1 to 1.

    Parameters
    ----------
    input : Tensor
        (variables, observations), or (observations,) of one.

    Returns
    -------
    Tensor
        (variables, variables), or one number. NaN where a variable never changes.
    """
    covariance = cov(input)
    if covariance.ndim == 0:
        return div(covariance, covariance)
    deviation = sqrt(diagonal(covariance))
    return clip(div(div(covariance, unsqueeze(deviation, 1)), unsqueeze(deviation, 0)), -1, 1)


def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: float = 1.0, dim: int = -1) -> Tensor:
    """The area under values along an axis, between which it goes straight.

    Parameters
    ----------
    y : Tensor
        Values.
    x : Tensor, optional
        Where they are: a vector along the axis, or a tensor that broadcasts with `y`.
    dx : float
        How far apart they are where `x` is not given.
    dim : int
        The axis.

    Returns
    -------
    Tensor
        Without that axis.

    Raises
    ------
    IndexError
        If there is no such axis.
    """
    y = floating("trapezoid", a_tensor("trapezoid", y, "y"))
    axis = _axis("trapezoid", dim, y.ndim)
    if x is not None:
        places = a_tensor("trapezoid", x, "x")
        if places.ndim == 1:
            places = reshape(places, (-1,) + (1,) * (y.ndim - axis - 1))
        y, places = broadcast_tensors(y, places)
        axis = _axis("trapezoid", dim, y.ndim)
    length = max(y.shape[axis] - 1, 0)
    both = add(narrow(y, axis, min(1, y.shape[axis]), length), narrow(y, axis, 0, length))
    if x is None:
        return mul(sum(both, axis), dx / 2)
    return mul(sum(mul(both, diff(places, dim=axis)), axis), 0.5)


def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """Logarithms of running sums of exponentials along an axis, without overflow.

    Parameters
    ----------
    input : Tensor
        Any shape; integers become float32.
    dim : int
        The axis.

    Returns
    -------
    Tensor
        Shape of `input`.

    Raises
    ------
    IndexError
        If there is no such axis.

    References
    ----------
    Hillis and Steele, "Data parallel algorithms", Communications of the ACM 29, 1986: sums of one element and those before it,
    of 2, 4, 8...
    """
    y = floating("logcumsumexp", input)
    axis = _axis("logcumsumexp", dim, max(y.ndim, 1))
    n, reach = y.shape[axis] if y.ndim else 1, 1
    while reach < n:
        sums = logaddexp(narrow(y, axis, reach, n - reach), narrow(y, axis, 0, n - reach))
        y, reach = cat([narrow(y, axis, 0, reach), sums], axis), 2 * reach
    return y
