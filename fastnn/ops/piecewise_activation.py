"""Activation functions made of straight pieces, element by element, and maxout. At a corner the slope is PyTorch's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core import launch, record
from ..checks import a_tensor, real, whole
from .math import clip, holds_integers
from .reduce import max as largest
from .shape import _axis, reshape, to, unbroadcast
from .smooth_activation import elementwise

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["hardshrink", "hardsigmoid", "hardswish", "hardtanh", "maxout", "prelu", "relu6", "softshrink", "threshold"]


def hardtanh(x: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x, but at least `min_val` and at most `max_val`; unlike `clip`'s, its derivative at the bounds is 0.

    Parameters
    ----------
    x : Tensor
        Any shape and type but bool.
    min_val, max_val : float
        The bounds, finite, the first below the second; whole ones for integers.
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.

    Returns
    -------
    Tensor
        Shape and type of `x`.

    Raises
    ------
    ValueError
        If the bounds are not in order, or not whole where `x` holds integers.

    References
    ----------
    R. Collobert, "Large scale machine learning", thesis, Université Paris VI, 2004.
    """
    low, high = real("hardtanh: min_val", min_val), real("hardtanh: max_val", max_val)
    if not low < high:
        raise ValueError(f"hardtanh: min_val is {min_val} and max_val {max_val}, but min_val must be below max_val")
    if holds_integers("hardtanh", x):
        if low % 1 or high % 1:
            raise ValueError(f"hardtanh: bounds are {low} and {high}, but must be whole where x holds integers")
        return to(clip(x, int(low), int(high)), x.dtype)
    return record(_hardtanh_backward, (x,), launch.clip(x, low=low, high=high), saved=(x,), context=(low, high))


def _hardtanh_backward(node, dy):
    low, high = node.context
    return launch.hardtanh_backward(dy, node.saved[0], low=low, high=high)


def relu6(x: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6).

    Parameters
    ----------
    x : Tensor
        Any shape and type but bool.
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.

    Returns
    -------
    Tensor
        Shape and type of `x`.

    References
    ----------
    A. Krizhevsky, "Convolutional deep belief networks on CIFAR-10", 2010.
    """
    return hardtanh(x, 0.0, 6.0)


def hardsigmoid(x: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x + 3, 0), 6) / 6.

    Parameters
    ----------
    x : Tensor
        float32 or float64, any shape.
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.

    Returns
    -------
    Tensor
        Shape and type of `x`, between 0 and 1.
    """
    return elementwise("hardsigmoid", x)


def hardswish(x: Tensor, inplace: bool = False) -> Tensor:
    """x min(max(x + 3, 0), 6) / 6.

    Parameters
    ----------
    x : Tensor
        float32 or float64, any shape.
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.

    Returns
    -------
    Tensor
        Shape and type of `x`; at -inf the limit 0, where PyTorch has NaN.

    References
    ----------
    Howard et al., "Searching for MobileNetV3", ICCV 2019.
    """
    return elementwise("hardswish", x)


def softshrink(x: Tensor, lambd: float = 0.5) -> Tensor:
    """x moved towards 0 by `lambd`, but not past it.

    Parameters
    ----------
    x : Tensor
        float32 or float64, any shape.
    lambd : float
        At least 0.

    Returns
    -------
    Tensor
        Shape and type of `x`.

    Raises
    ------
    ValueError
        If `lambd` is below 0.
    """
    lambd = real("softshrink: lambd", lambd, 0)
    y = launch.softshrink_forward(x, bound=lambd)
    return record(_shrink_backward, (x,), y, saved=(x,), context=lambd)


def hardshrink(x: Tensor, lambd: float = 0.5) -> Tensor:
    """0 where |x| is at most `lambd`, else x.

    Parameters
    ----------
    x : Tensor
        float32 or float64, any shape.
    lambd : float
        Below 0 it changes nothing.

    Returns
    -------
    Tensor
        Shape and type of `x`.
    """
    lambd = real("hardshrink: lambd", lambd)
    y = launch.hardshrink_forward(x, bound=lambd)
    return record(_shrink_backward, (x,), y, saved=(x,), context=lambd)


def _shrink_backward(node, dy):
    return launch.shrink_backward(dy, node.saved[0], bound=node.context)


def threshold(x: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where it is above the threshold, else `value`.

    Parameters
    ----------
    x : Tensor
        float32 or float64, any shape.
    threshold : float
        Finite.
    value : float
        Finite.
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.

    Returns
    -------
    Tensor
        Shape and type of `x`.
    """
    bound, value = real("threshold: threshold", threshold), real("threshold: value", value)
    y = launch.threshold_forward(x, bound=bound, value=value)
    return record(_threshold_backward, (x,), y, saved=(x,), context=bound)


def _threshold_backward(node, dy):
    return launch.threshold_backward(dy, node.saved[0], bound=node.context)


def prelu(x: Tensor, weight: Tensor) -> Tensor:
    """x where it is positive, elsewhere `weight` x, with slopes that are learned.

    Parameters
    ----------
    x : Tensor
        (N, C, ...); with one slope any shape.
    weight : Tensor
        (C,): a slope for each channel, or (1,): one for all.

    Returns
    -------
    Tensor
        Shape and type of `x`.

    Raises
    ------
    ValueError
        If the number of slopes is neither 1 nor C.

    References
    ----------
    He et al., "Delving deep into rectifiers", ICCV 2015.
    """
    channels = x.shape[1] if a_tensor("prelu", x).ndim > 1 else 1
    if a_tensor("prelu", weight, "weight").ndim != 1 or weight.shape[0] not in (1, channels):
        raise ValueError(f"prelu: weight has shape {weight.shape}, but for x {x.shape} it must be (1,) or "
                         f"({channels},)")
    shape = (1,) * min(x.ndim, 1) if weight.shape[0] == 1 else weight.shape + (1,) * (x.ndim - 2)
    slopes = reshape(weight.detach(), shape)
    y = launch.prelu_forward(x, slopes)
    return record(_prelu_backward, (x, weight), y, saved=(x, slopes), context=weight.shape)


def _prelu_backward(node, dy):
    x, slopes = node.saved
    dx = launch.prelu_backward(dy, x, slopes) if node.needs[0] else None
    if not node.needs[1]:
        return dx, None
    return dx, reshape(unbroadcast(launch.prelu_backward_weight(dy, x), slopes.shape), node.context)


def maxout(x: Tensor, pieces: int, dim: int = 1) -> Tensor:
    """The largest of every `pieces` neighbours along an axis: a convex function of pieces that the layer before learns.

    Parameters
    ----------
    x : Tensor
        Any shape; the extent of `dim` is a multiple of `pieces`.
    pieces : int
        At least 1.
    dim : int
        The axis.

    Returns
    -------
    Tensor
        Of x's shape, the extent along `dim` divided by `pieces`; of equals the first takes the gradient.

    Raises
    ------
    ValueError
        If the extent is not a multiple of `pieces`.

    References
    ----------
    Goodfellow et al., "Maxout networks", ICML 2013.
    """
    axis = _axis("maxout", dim, a_tensor("maxout", x).ndim)
    if x.shape[axis] % whole("maxout: pieces", pieces, 1):
        raise ValueError(f"maxout: pieces is {pieces}, but must divide the extent of axis {dim} of x {x.shape}")
    groups = (*x.shape[:axis], x.shape[axis] // pieces, pieces, *x.shape[axis + 1:])
    return largest(reshape(x, groups), axis + 1).values
