"""Activation functions made of straight pieces, element by element, and maxout. At a corner the slope is PyTorch's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core import launch, record
from ..checks import a_tensor, real, whole
from .math import clip
from .operands import holds_integers
from .reduce import max as largest
from .shape import _axis, reshape, to, unbroadcast
from .smooth_activation import elementwise

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["hardshrink", "hardsigmoid", "hardswish", "hardtanh", "maxout", "prelu", "relu6", "softshrink", "threshold"]


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x, but at least `min_val` and at most `max_val`; unlike `clip`'s, its derivative at the bounds is 0.

    Parameters
    ----------
    input : Tensor
        Any shape and type but bool.
    min_val, max_val : float
        The bounds, finite, the first below the second; whole ones for integers.
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.

    Returns
    -------
    Tensor
        Shape and type of `input`.

    Raises
    ------
    ValueError
        If the bounds are not in order, or not whole where `input` holds integers.

    References
    ----------
    R. Collobert, "Large scale machine learning", thesis, Université Paris VI, 2004.
    """
    low, high = real("hardtanh: min_val", min_val), real("hardtanh: max_val", max_val)
    if not low < high:
        raise ValueError(f"hardtanh: min_val is {min_val} and max_val {max_val}, but min_val must be below max_val")
    if holds_integers("hardtanh", input):
        if low % 1 or high % 1:
            raise ValueError(f"hardtanh: bounds are {low} and {high}, but must be whole where input holds integers")
        return to(clip(input, int(low), int(high)), input.dtype)
    return record(_hardtanh_backward, (input,), launch.clip(input, low=low, high=high), saved=(input,), context=(low, high))


def _hardtanh_backward(node, dy):
    low, high = node.context
    return launch.hardtanh_backward(dy, node.saved[0], low=low, high=high)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6).

    Parameters
    ----------
    input : Tensor
        Any shape and type but bool.
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.

    Returns
    -------
    Tensor
        Shape and type of `input`.

    References
    ----------
    A. Krizhevsky, "Convolutional deep belief networks on CIFAR-10", 2010.
    """
    return hardtanh(input, 0.0, 6.0)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x + 3, 0), 6) / 6.

    Parameters
    ----------
    input : Tensor
        float32 or float64, any shape.
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.

    Returns
    -------
    Tensor
        Shape and type of `input`, between 0 and 1.
    """
    return elementwise("hardsigmoid", input)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x min(max(x + 3, 0), 6) / 6.

    Parameters
    ----------
    input : Tensor
        float32 or float64, any shape.
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.

    Returns
    -------
    Tensor
        Shape and type of `input`; at -inf the limit 0, where PyTorch has NaN.

    References
    ----------
    Howard et al., "Searching for MobileNetV3", ICCV 2019.
    """
    return elementwise("hardswish", input)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x moved towards 0 by `lambd`, but not past it.

    Parameters
    ----------
    input : Tensor
        float32 or float64, any shape.
    lambd : float
        At least 0.

    Returns
    -------
    Tensor
        Shape and type of `input`.

    Raises
    ------
    ValueError
        If `lambd` is below 0.
    """
    lambd = real("softshrink: lambd", lambd, 0)
    y = launch.softshrink_forward(input, bound=lambd)
    return record(_shrink_backward, (input,), y, saved=(input,), context=lambd)


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """0 where |x| is at most `lambd`, else x.

    Parameters
    ----------
    input : Tensor
        float32 or float64, any shape.
    lambd : float
        Below 0 it changes nothing.

    Returns
    -------
    Tensor
        Shape and type of `input`.
    """
    lambd = real("hardshrink: lambd", lambd)
    y = launch.hardshrink_forward(input, bound=lambd)
    return record(_shrink_backward, (input,), y, saved=(input,), context=lambd)


def _shrink_backward(node, dy):
    return launch.shrink_backward(dy, node.saved[0], bound=node.context)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where it is above the threshold, else `value`.

    Parameters
    ----------
    input : Tensor
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
        Shape and type of `input`.
    """
    bound, value = real("threshold: threshold", threshold), real("threshold: value", value)
    y = launch.threshold_forward(input, bound=bound, value=value)
    return record(_threshold_backward, (input,), y, saved=(input,), context=bound)


def _threshold_backward(node, dy):
    return launch.threshold_backward(dy, node.saved[0], bound=node.context)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where it is positive, elsewhere `weight` x, with slopes that are learned.

    Parameters
    ----------
    input : Tensor
        (N, C, ...); with one slope any shape.
    weight : Tensor
        (C,): a slope for each channel, or (1,): one for all.

    Returns
    -------
    Tensor
        Shape and type of `input`.

    Raises
    ------
    ValueError
        If the number of slopes is neither 1 nor C.

    References
    ----------
    He et al., "Delving deep into rectifiers", ICCV 2015.
    """
    channels = input.shape[1] if a_tensor("prelu", input).ndim > 1 else 1
    if a_tensor("prelu", weight, "weight").ndim != 1 or weight.shape[0] not in (1, channels):
        raise ValueError(f"prelu: weight has shape {weight.shape}, but for input {input.shape} it must be (1,) or "
                         f"({channels},)")
    shape = (1,) * min(input.ndim, 1) if weight.shape[0] == 1 else weight.shape + (1,) * (input.ndim - 2)
    slopes = reshape(weight.detach(), shape)
    y = launch.prelu_forward(input, slopes)
    return record(_prelu_backward, (input, weight), y, saved=(input, slopes), context=weight.shape)


def _prelu_backward(node, dy):
    x, slopes = node.saved
    dx = launch.prelu_backward(dy, x, slopes) if node.needs[0] else None
    if not node.needs[1]:
        return dx, None
    return dx, reshape(unbroadcast(launch.prelu_backward_weight(dy, x), slopes.shape), node.context)


def maxout(input: Tensor, pieces: int, dim: int = 1) -> Tensor:
    """The largest of every `pieces` neighbours along an axis: a convex function of pieces that the layer before learns.

    Parameters
    ----------
    input : Tensor
        Any shape; the extent of `dim` is a multiple of `pieces`.
    pieces : int
        At least 1.
    dim : int
        The axis.

    Returns
    -------
    Tensor
        Of `input`'s shape, the extent along `dim` divided by `pieces`; of equals the first takes the gradient.

    Raises
    ------
    ValueError
        If the extent is not a multiple of `pieces`.

    References
    ----------
    Goodfellow et al., "Maxout networks", ICML 2013.
    """
    axis = _axis("maxout", dim, a_tensor("maxout", input).ndim)
    if input.shape[axis] % whole("maxout: pieces", pieces, 1):
        raise ValueError(f"maxout: pieces is {pieces}, but must divide the extent of axis {dim} of input {input.shape}")
    groups = (*input.shape[:axis], input.shape[axis] // pieces, pieces, *input.shape[axis + 1:])
    return largest(reshape(input, groups), axis + 1).values
