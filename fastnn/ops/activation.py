"""Activation functions, element by element."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .._core import TensorBase, launch, record
from ..checks import among
from .create import bool_, zeros_like
from .math import gt, lt, maximum, sub
from .operands import floating, holds_integers
from .piecewise_activation import *
from .piecewise_activation import __all__ as _PIECEWISE
from .smooth_activation import *
from .smooth_activation import __all__ as _SMOOTH
from .shape import clone, to
from .softmax import log_softmax, softmax, softmin

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["ACTIVATIONS", "activation", "gaussian", "identity", "leaky_relu", "relu", "sigmoid", "sign", "step", "tanh",
           *_PIECEWISE, *_SMOOTH]


def identity(input: Tensor) -> Tensor:
    """x itself.

    Parameters
    ----------
    input : Tensor
        Any shape.

    Returns
    -------
    Tensor
        `input`.
    """
    return input


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0); its derivative at 0 is 0.

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
    """
    try:
        y = launch.relu_forward(input)
    except TypeError:  # asked only here: small networks' steps would notice
        if not holds_integers("relu", input):
            raise
        return maximum(input, 0)
    return record(_relu_backward, (input,), y, saved=(y,))


def _relu_backward(node, dy):
    return launch.relu_backward(dy, node.saved[0])


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where it is positive, elsewhere `negative_slope` x.

    Parameters
    ----------
    input : Tensor
        float32 or float64, any shape.
    negative_slope : float
        Slope below 0.
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.

    Returns
    -------
    Tensor
        Shape and type of `input`.

    References
    ----------
    Maas, Hannun and Ng, "Rectifier nonlinearities improve neural network acoustic models", ICML 2013.
    """
    y = launch.leaky_relu_forward(input, slope=negative_slope)
    return record(_leaky_relu_backward, (input,), y, saved=(input,), context=negative_slope)


def _leaky_relu_backward(node, dy):
    return launch.leaky_relu_backward(dy, node.saved[0], slope=node.context)


def sigmoid(input: Tensor) -> Tensor:
    """The logistic function 1 / (1 + exp(-x)).

    Parameters
    ----------
    input : Tensor
        Any shape; integers become float32.

    Returns
    -------
    Tensor
        Shape and type of `input`, in [0, 1].
    """
    x = floating("sigmoid", input)
    y = launch.sigmoid_forward(x)
    return record(_sigmoid_backward, (x,), y, saved=(y,))


def _sigmoid_backward(node, dy):
    return launch.sigmoid_backward(dy, node.saved[0])


def tanh(input: Tensor) -> Tensor:
    """The hyperbolic tangent.

    Parameters
    ----------
    input : Tensor
        Any shape; integers become float32.

    Returns
    -------
    Tensor
        Shape and type of `input`, in [-1, 1].
    """
    x = floating("tanh", input)
    y = launch.tanh_forward(x)
    return record(_tanh_backward, (x,), y, saved=(y,))


def _tanh_backward(node, dy):
    return launch.tanh_backward(dy, node.saved[0])


def gaussian(input: Tensor) -> Tensor:
    """The bell exp(-x^2 / 2).

    Parameters
    ----------
    input : Tensor
        float32 or float64, any shape.

    Returns
    -------
    Tensor
        Shape and type of `input`, in [0, 1].
    """
    y = launch.gaussian_forward(input)
    return record(_gaussian_backward, (input,), y, saved=(input, y))


def _gaussian_backward(node, dy):
    return launch.gaussian_backward(dy, *node.saved)


def sign(input: Tensor) -> Tensor:
    """-1, 0 or 1, as x is negative, zero or positive; NaN stays. Its gradient is 0.

    Parameters
    ----------
    input : Tensor
        Any shape and type.

    Returns
    -------
    Tensor
        Shape and type of `input`.
    """
    if isinstance(input, TensorBase) and input.dtype is bool_:
        return clone(input)
    if holds_integers("sign", input):
        return sub(to(gt(input, 0), input.dtype), to(lt(input, 0), input.dtype))
    return record(_flat_backward, (input,), launch.sign(input))


def step(input: Tensor) -> Tensor:
    """1 where x is at least 0, else 0; NaN stays. Its gradient is 0.

    Parameters
    ----------
    input : Tensor
        float32 or float64, any shape.

    Returns
    -------
    Tensor
        Shape and type of `input`.
    """
    return record(_flat_backward, (input,), launch.step_forward(input))


def _flat_backward(node, dy):
    return zeros_like(dy)


def _gelu_tanh(x: Tensor) -> Tensor:
    return gelu(x, "tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": identity, "linear": identity, "relu": relu, "leaky_relu": leaky_relu, "relu6": relu6, "elu": elu,
    "selu": selu, "celu": celu, "gelu": gelu, "gelu_tanh": _gelu_tanh, "silu": silu, "swish": silu,
    "hardswish": hardswish, "mish": mish, "softplus": softplus, "softsign": softsign, "sigmoid": sigmoid,
    "logistic": sigmoid, "hardsigmoid": hardsigmoid, "logsigmoid": logsigmoid, "tanh": tanh, "hardtanh": hardtanh,
    "tanhshrink": tanhshrink, "softshrink": softshrink, "hardshrink": hardshrink, "gaussian": gaussian, "sign": sign,
    "step": step, "glu": glu, "softmax": softmax, "softmin": softmin, "log_softmax": log_softmax}


def activation(name: str | Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The activation function of a name.

    Parameters
    ----------
    name : str or callable
        One of `ACTIVATIONS`, each with its default options; a function or layer is returned as it is.

    Returns
    -------
    callable
        From Tensor to Tensor.

    Raises
    ------
    ValueError
        If there is none of that name; the message lists all.
    """
    if callable(name):
        return name
    return ACTIVATIONS[among("activation: name", name, ACTIVATIONS)]
