"""Activation functions with random numbers; apart from the others, which tensors need before there is a generator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import _core
from .._core import launch, record
from ..checks import a_tensor, positive, real
from ..random import Generator, generator_state
from .activation import leaky_relu, softmax
from .create import arange
from .math import add, div
from .reduce import argmax
from .shape import _axis, reshape

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["gumbel_softmax", "rrelu"]


def rrelu(input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, inplace: bool = False,
          generator: Generator | None = None) -> Tensor:
    """x where it is positive, elsewhere x times a slope that is drawn for each element; in evaluation the mean slope.

    Parameters
    ----------
    input : Tensor
        float32 or float64, any shape.
    lower, upper : float
        Slopes are uniform between them.
    training : bool
        Whether slopes are drawn; otherwise all are (lower + upper) / 2.
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.
    generator : Generator, optional
        Where random numbers come from; by default `fastnn.manual_seed`'s.

    Returns
    -------
    Tensor
        Shape and type of `input`.

    Raises
    ------
    ValueError
        If `lower` is above `upper`.

    References
    ----------
    B. Xu et al., "Empirical evaluation of rectified activations in convolutional network", arXiv:1505.00853, 2015.
    """
    lower, upper = real("rrelu: lower", lower), real("rrelu: upper", upper)
    if lower > upper:
        raise ValueError(f"rrelu: lower is {lower} and upper {upper}, but lower must be at most upper")
    if not training:
        return leaky_relu(input, (lower + upper) / 2)
    slopes = launch.uniform(generator_state(generator), low=lower, high=upper, ordinal=0, out=_core.empty(input.shape, input.dtype))
    return record(_rrelu_backward, (input,), launch.prelu_forward(input, slopes), saved=(input, slopes))


def _rrelu_backward(node, dy):
    return launch.prelu_backward(dy, *node.saved)


_LEAST = {"float32": 1e-37, "float64": 1e-300}  # uniform numbers from here on, so that no logarithm is infinite


def gumbel_softmax(logits: Tensor, tau: float = 1.0, hard: bool = False, dim: int = -1,
                   generator: Generator | None = None) -> Tensor:
    """`softmax` of the logits with Gumbel noise, over a temperature: nearly a draw of one class, with a gradient.

    Parameters
    ----------
    logits : Tensor
        Logarithms of probabilities, each up to a constant.
    tau : float
        The temperature, above 0; the nearer to 0, the more like a draw.
    hard : bool
        Whether the result is exactly 1 for the class drawn and 0 elsewhere; its gradient is that of the soft one.
    dim : int
        The axis of the classes.
    generator : Generator, optional
        Where random numbers come from; by default `fastnn.manual_seed`'s.

    Returns
    -------
    Tensor
        Shape and type of `logits`.

    Raises
    ------
    ValueError
        If `tau` is not above 0.

    References
    ----------
    E. Jang, S. Gu and B. Poole, "Categorical reparameterization with Gumbel-softmax", ICLR 2017.
    """
    if not a_tensor("gumbel_softmax", logits, "logits").dtype.is_floating:
        raise TypeError(f"gumbel_softmax: logits has dtype {logits.dtype}, but must be float32 or float64")
    tau, axis = positive("gumbel_softmax: tau", tau), _axis("gumbel_softmax", dim, logits.ndim)
    u = launch.uniform(generator_state(generator), low=_LEAST[logits.dtype.name], high=1.0, ordinal=0,
                       out=_core.empty(logits.shape, logits.dtype))
    noise = launch.neg(launch.log(launch.neg(launch.log(u))))
    y = softmax(div(add(logits, noise), tau), axis)
    if not hard:
        return y
    classes = reshape(arange(y.shape[axis]), (-1, *(1,) * (y.ndim - axis - 1)))
    drawn = launch.copy(classes == argmax(y.detach(), axis, keepdim=True), dtype=y.dtype.code)
    return record(_straight_through, (y,), drawn)


def _straight_through(node, dy):
    return dy
