"""Activation functions with random numbers; apart from the others, which tensors need before there is a generator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import _core
from .._core import launch, record
from ..checks import real
from ..random import Generator, generator_state
from .activation import leaky_relu

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["rrelu"]


def rrelu(x: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False,
          generator: Generator | None = None) -> Tensor:
    """x where it is positive, elsewhere x times a slope that is drawn for each element; in evaluation the mean slope.

    Parameters
    ----------
    x : Tensor
        float32 or float64, any shape.
    lower, upper : float
        Slopes are uniform between them.
    training : bool
        Whether slopes are drawn; otherwise all are (lower + upper) / 2.
    generator : Generator, optional
        Where random numbers come from; by default `fastnn.manual_seed`'s.

    Returns
    -------
    Tensor
        Shape and type of `x`.

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
        return leaky_relu(x, (lower + upper) / 2)
    slopes = launch.uniform(generator_state(generator), low=lower, high=upper, ordinal=0, out=_core.empty(x.shape, x.dtype))
    return record(_rrelu_backward, (x,), launch.prelu_forward(x, slopes), saved=(x, slopes))


def _rrelu_backward(node, dy):
    return launch.prelu_backward(dy, *node.saved)
