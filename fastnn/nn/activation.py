"""Activation layers."""

from __future__ import annotations

from ..checks import integer, real
from ..ops import activation, softmax
from ..tensor import Tensor
from .module import Module

__all__ = ["Gaussian", "LeakyReLU", "LogSoftmax", "ReLU", "Sigmoid", "Sign", "Softmax", "Step", "Tanh"]


class ReLU(Module):
    """max(x, 0), any shape; see `fastnn.functional.relu`."""

    def forward(self, x: Tensor) -> Tensor:
        return activation.relu(x)


class LeakyReLU(Module):
    """x where it is positive, elsewhere `negative_slope` x; any shape; see `fastnn.functional.leaky_relu`.

    Parameters
    ----------
    negative_slope : float
        Slope below 0.
    """

    def __init__(self, negative_slope: float = 0.01):
        super().__init__()
        self.negative_slope = real("LeakyReLU: negative_slope", negative_slope)

    def forward(self, x: Tensor) -> Tensor:
        return activation.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class Sigmoid(Module):
    """The logistic function, any shape; see `fastnn.functional.sigmoid`."""

    def forward(self, x: Tensor) -> Tensor:
        return activation.sigmoid(x)


class Tanh(Module):
    """The hyperbolic tangent, any shape; see `fastnn.functional.tanh`."""

    def forward(self, x: Tensor) -> Tensor:
        return activation.tanh(x)


class Gaussian(Module):
    """exp(-x^2 / 2), any shape; see `fastnn.functional.gaussian`."""

    def forward(self, x: Tensor) -> Tensor:
        return activation.gaussian(x)


class Sign(Module):
    """-1, 0 or 1, any shape; see `fastnn.functional.sign`."""

    def forward(self, x: Tensor) -> Tensor:
        return activation.sign(x)


class Step(Module):
    """1 from 0 on, else 0; any shape; see `fastnn.functional.step`."""

    def forward(self, x: Tensor) -> Tensor:
        return activation.step(x)


class Softmax(Module):
    """exp(x) over its sum along an axis; see `fastnn.functional.softmax`.

    Parameters
    ----------
    dim : int
        The axis whose elements add up to 1.
    """

    def __init__(self, dim: int = -1):
        super().__init__()
        self.dim = integer(type(self).__name__, "dim", dim)

    def forward(self, x: Tensor) -> Tensor:
        return softmax.softmax(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class LogSoftmax(Softmax):
    """The logarithm of `Softmax`; see `fastnn.functional.log_softmax`.

    Parameters
    ----------
    dim : int
        The axis whose exponentials add up to 1.
    """

    def forward(self, x: Tensor) -> Tensor:
        return softmax.log_softmax(x, self.dim)
