"""Norms, distances and similarities of vectors along an axis, and losses of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core import launch, record
from ..checks import a_tensor, integer, positive, real
from .create import as_tensor
from .loss import _check_same_shape, _constant_argument
from .margin_loss import _reduced
from .index import index_select
from .math import abs, add, clip, div, eq, maximum, minimum, mul, neg, sqrt, square, sub
from .operands import constant, floating, operands
from .power import pow
from .activation import relu
from .reduce import amax, sum
from .shape import expand, reshape, transpose, unbroadcast, unsqueeze
from .vector_norm import _without, norm, order_of

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["cdist", "cosine_embedding_loss", "cosine_similarity", "normalize", "pairwise_distance", "pdist",
           "triplet_margin_loss", "triplet_margin_with_distance_loss"]

_GREATEST = 3e38  # by which infinity is divided
_TINY = 1e-37  # under a root: keeps the gradient of a zero vector's norm finite


def _norm(x: Tensor, p: float, dim: int | Sequence[int], keepdim: bool, least: float = 0.0) -> Tensor:
    """(sum |x|^p)^(1/p) along axes, at least `least`."""
    if p == math.inf:
        return maximum(amax(abs(x), dim, keepdim), least)
    if p == 1:
        return maximum(sum(abs(x), dim, keepdim), least)
    if p == 2:
        return _root(sum(square(x), dim, keepdim), least)
    # Powers of the parts of the greatest magnitude: they neither overflow nor vanish. Its own gradient cancels out.
    size = abs(x)
    greatest = clip(amax(size, dim, True).detach(), _TINY, _GREATEST)
    y = mul(pow(maximum(sum(pow(div(size, greatest), p), dim, True), _TINY), 1 / p), greatest)
    return maximum(y if keepdim else reshape(y, _without(x, dim)), least)


def _root(squares: Tensor, least: float) -> Tensor:
    """The root of a sum of squares, at least `least`."""
    return sqrt(maximum(squares, max(least * least, _TINY)))


def _raised(x: Tensor, least: float) -> Tensor:
    """x, but at least `least`; its gradient takes no notice of that."""
    return record(_raised_backward, (x,), launch.maximum(x, constant(least, x.dtype)))


def _raised_backward(node, dy):
    return dy


def normalize(input: Tensor, p: float = 2.0, dim: int | Sequence[int] = 1, eps: float = 1e-12) -> Tensor:
    """Divides vectors by their norm.

    Parameters
    ----------
    input : Tensor
        Any shape.
    p : float
        Which norm, above 0; ``math.inf``: the greatest magnitude.
    dim : int or sequence of int
        The axis along which vectors lie, or several that are taken together as one.
    eps : float
        Least divisor, above 0.

    Returns
    -------
    Tensor
        Shape of `input`.

    Raises
    ------
    ValueError
        If an option is out of range.
    IndexError
        If there is no such axis.
    """
    p, eps = order_of("normalize: p", p), positive("normalize: eps", eps)
    return div(input, _norm(input, p, dim if isinstance(dim, (tuple, list)) else integer("normalize", "dim", dim), True, eps))


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between vectors.

    Parameters
    ----------
    x1, x2 : Tensor
        Shapes that broadcast.
    dim : int
        The axis along which vectors lie, of the common shape.
    eps : float
        Least norm to divide by, above 0. Gradients are as if a norm below it followed its vector, as in PyTorch.

    Returns
    -------
    Tensor
        The common shape without that axis.

    Raises
    ------
    ValueError
        If shapes do not broadcast, or `eps` is out of range.
    IndexError
        If there is no such axis.
    """
    dim, eps = integer("cosine_similarity", "dim", dim), positive("cosine_similarity: eps", eps)
    shapes = a_tensor("cosine_similarity", x1, "x1").shape, a_tensor("cosine_similarity", x2, "x2").shape
    if shapes[0] != shapes[1]:  # an axis that is repeated counts in the norm as often
        try:
            shape = np.broadcast_shapes(*shapes)
        except ValueError:
            raise ValueError(f"cosine_similarity: shapes {x1.shape} and {x2.shape} do not broadcast together") from None
        x1, x2 = expand(x1, shape), expand(x2, shape)
    norms = [_raised(_norm(x, 2, dim, True), eps) for x in (x1, x2)]
    return sum(mul(div(x1, norms[0]), div(x2, norms[1])), dim)


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """The norm of x1 - x2 + eps along the last axis.

    Parameters
    ----------
    x1, x2 : Tensor
        Shapes that broadcast.
    p : float
        Which norm, above 0; ``math.inf``: the greatest magnitude.
    eps : float
        Added to every difference, so that equal vectors have a gradient.
    keepdim : bool
        Whether the last axis stays, with one element.

    Returns
    -------
    Tensor
        The common shape without its last axis.

    Raises
    ------
    ValueError
        If shapes do not broadcast, or an option is out of range.
    """
    p, eps = order_of("pairwise_distance: p", p), real("pairwise_distance: eps", eps, 0)
    if p == 2:
        return _root(sum(_squared_distance(x1, x2, eps), -1, keepdim), 0.0)
    return _norm(add(sub(x1, x2), eps), p, -1, keepdim)


def _squared_distance(x1: Tensor, x2: Tensor, shift: float) -> Tensor:
    """(x1 - x2 + shift)^2, in one pass."""
    a, b = (floating("pairwise_distance", x) for x in operands("pairwise_distance", x1, x2))
    context = ({"shift": shift}, a.shape, b.shape)
    return record(_squared_distance_backward, (a, b), launch.squared_distance(a, b, **context[0]), saved=(a, b), context=context)


def _squared_distance_backward(node, dy):
    options, *shapes = node.context
    da = launch.squared_distance_backward(dy, *node.saved, **options)
    return (unbroadcast(da, shapes[0]) if node.needs[0] else None,
            unbroadcast(launch.neg(da), shapes[1]) if node.needs[1] else None)


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0) -> Tensor:
    """The distances of all rows of one matrix from all rows of another; but for p = 2 all differences are in memory at once.

    Parameters
    ----------
    x1 : Tensor
        (..., N, D).
    x2 : Tensor
        (..., M, D); further axes broadcast.
    p : float
        Which norm, above 0; ``math.inf``: the greatest difference.

    Returns
    -------
    Tensor
        (..., N, M); 0 of equal rows, exactly, and so is their gradient.

    Raises
    ------
    ValueError
        If `p` is out of range or shapes do not fit.
    """
    p = order_of("cdist: p", p)
    if min(a_tensor("cdist", x1, "x1").ndim, a_tensor("cdist", x2, "x2").ndim) < 2 or x1.shape[-1] != x2.shape[-1]:
        raise ValueError(f"cdist: x1 has shape {x1.shape} and x2 {x2.shape}, but they must be (..., N, D) and (..., M, D)")
    if p != 2 or 0 in (*x1.shape, *x2.shape):
        return norm(floating("cdist", sub(unsqueeze(x1, -2), unsqueeze(x2, -3))), p, -1)
    x1, x2 = (floating("cdist", x) for x in operands("cdist", x1, x2))
    try:
        batch = np.broadcast_shapes(x1.shape[:-2], x2.shape[:-2])
    except ValueError:
        raise ValueError(f"cdist: x1 has shape {x1.shape} and x2 {x2.shape}: axes before the last two must broadcast together") from None
    first, second = (reshape(expand(x, (*batch, *x.shape[-2:])), (math.prod(batch), *x.shape[-2:])) for x in (x1, x2))
    y = launch.cdist_forward(first, second)
    return reshape(record(_cdist_backward, (first, second), y, saved=(first, second, y)), (*batch, *y.shape[1:]))


def _cdist_backward(node, dy):
    first, second, y = node.saved
    zero = constant(0.0, y.dtype)
    w = launch.where(launch.eq(y, zero), zero, launch.div(dy, y))  # of equal rows no direction is one
    return (launch.cdist_backward(w, first, second) if node.needs[0] else None,
            launch.cdist_backward(transpose(w, 1, 2), second, first) if node.needs[1] else None)


def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """The distances of all pairs of rows.

    Parameters
    ----------
    input : Tensor
        (N, D).
    p : float
        Which norm, above 0; ``math.inf``: the greatest difference.

    Returns
    -------
    Tensor
        (N (N - 1) / 2,): row 0 with rows 1, 2, ..., then row 1 with rows 2, 3, ...

    Raises
    ------
    ValueError
        If `p` is out of range or `input` has another number of axes.
    """
    p = order_of("pdist: p", p)
    if a_tensor("pdist", input).ndim != 2:
        raise ValueError(f"pdist: input has shape {input.shape}, but must be (N, D)")
    first, second = (as_tensor(rows) for rows in np.triu_indices(input.shape[0], 1))
    if p == 2:
        apart = cdist(input, input)
        return index_select(reshape(apart, (apart.numel(),)), 0, first * input.shape[0] + second)
    return norm(floating("pdist", sub(index_select(input, 0, first), index_select(input, 0, second))), p, -1)


def cosine_embedding_loss(input1: Tensor, input2: Tensor, target: Any, margin: float = 0.0,
                          reduction: str = "mean") -> Tensor:
    """1 - cos(input1, input2) for pairs that belong together (target 1), max(0, cos - margin) for others (-1).

    Parameters
    ----------
    input1, input2 : Tensor
        (N, D), or (D,) for one pair.
    target : Tensor or array_like
        (N,), or 0-d: 1 or -1, others give no loss; takes no gradient.
    margin : float
        Cosine up to which strangers are far enough, -1 to 1.
    reduction : str
        "mean", "sum" or "none".

    Returns
    -------
    Tensor
        0-d, or of target's shape with reduction "none".

    Raises
    ------
    ValueError
        If shapes do not fit, or an option is out of range.
    """
    name = "cosine_embedding_loss"
    for argument, value in (("input1", input1), ("input2", input2)):
        a_tensor(name, value, argument)
    _check_same_shape(name, input1, input2)
    if input1.ndim not in (1, 2):
        raise ValueError(f"{name}: input1 has shape {input1.shape}, but must be (N, D) or (D,)")
    margin = real(f"{name}: margin", margin, -1, 1)
    a, b = (add(sum(square(t), -1), 1e-12) for t in (input1, input2))
    cosine = div(sum(mul(input1, input2), -1), sqrt(mul(a, b)))
    target = _constant_argument(name, "target", target, cosine)
    _check_same_shape(name, cosine, target)
    together, apart = (eq(target, as_tensor(sign, cosine.dtype)).to(cosine.dtype) for sign in (1.0, -1.0))
    return _reduced(name, add(mul(sub(1.0, cosine), together), mul(relu(sub(cosine, margin)), apart)), reduction)


def triplet_margin_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2.0,
                        eps: float = 1e-6, swap: bool = False, reduction: str = "mean") -> Tensor:
    """max(0, d(anchor, positive) - d(anchor, negative) + margin), d as in `pairwise_distance`.

    Parameters
    ----------
    anchor, positive, negative : Tensor
        (N, D), or (D,) for one triplet: what is compared, what should be near it, and what far from it.
    margin : float
        By how much farther, above 0.
    p, eps : float
        Of the distance.
    swap : bool
        Whether the negative counts by its distance from the positive where that is less.
    reduction : str
        "mean", "sum" or "none".

    Returns
    -------
    Tensor
        0-d, or (N,) with reduction "none".

    Raises
    ------
    ValueError
        If an option is out of range.

    References
    ----------
    V. Balntas et al., "Learning shallow convolutional feature descriptors with triplet losses", BMVC 2016.
    """
    return _triplets("triplet_margin_loss", anchor, positive, negative, lambda a, b: pairwise_distance(a, b, p, eps), margin,
                     swap, reduction)


def triplet_margin_with_distance_loss(anchor: Tensor, positive: Tensor, negative: Tensor, *,
                                      distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
                                      margin: float = 1.0, swap: bool = False, reduction: str = "mean") -> Tensor:
    """`triplet_margin_loss` with a distance of one's own.

    Parameters
    ----------
    anchor, positive, negative : Tensor
        What is compared, what should be near it, and what far from it; of one shape.
    distance_function : callable, optional
        Gives the distances of two of them; by default `pairwise_distance`.
    margin : float
        By how much farther, above 0.
    swap : bool
        Whether the negative counts by its distance from the positive where that is less.
    reduction : str
        "mean", "sum" or "none".

    Returns
    -------
    Tensor
        0-d, or of the distances' shape with reduction "none".

    Raises
    ------
    ValueError
        If an option is out of range.
    TypeError
        If `distance_function` is not callable.
    """
    name = "triplet_margin_with_distance_loss"
    if distance_function is not None and not callable(distance_function):
        raise TypeError(f"{name}: distance_function is {distance_function!r}, but must be callable or None")
    return _triplets(name, anchor, positive, negative, distance_function or pairwise_distance, margin, swap, reduction)


def _triplets(name: str, anchor: Tensor, positive: Tensor, negative: Tensor, distance: Callable, margin: float, swap: bool,
              reduction: str) -> Tensor:
    for argument, value in (("anchor", anchor), ("positive", positive), ("negative", negative)):
        _check_same_shape(name, anchor, a_tensor(name, value, argument))
    margin = _above_0(f"{name}: margin", margin)
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = minimum(far, distance(positive, negative))
    return _reduced(name, relu(add(add(near, neg(far)), margin)), reduction)


_above_0 = positive  # the function, where an argument has its name
