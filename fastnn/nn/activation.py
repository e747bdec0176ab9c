"""Activation layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..checks import integer, real, whole
from ..ops import activation, softmax
from ..ops.create import full, zeros
from ..ops.random_activation import rrelu
from ..tensor import Tensor
from .module import Module, Parameter
from .typed import typed

__all__ = ["Activation", "CELU", "ELU", "GELU", "GLU", "Gaussian", "Hardshrink", "Hardsigmoid", "Hardswish",
           "Hardtanh", "LeakyReLU", "LogSigmoid", "LogSoftmax", "Maxout", "Mish", "PReLU", "RReLU", "ReLU", "ReLU6", "SELU",
           "SiLU", "Sigmoid", "Sign", "Softmax", "Softmax2d", "Softmin", "Softplus", "Softshrink", "Softsign", "Step",
           "Tanh", "Tanhshrink", "Threshold"]


class _Activation(Module):
    """An activation with options: every one is an attribute of its name."""

    def __init__(self, **options: Any):
        super().__init__()
        self._options = tuple(options)
        for name, value in options.items():
            setattr(self, name, value)

    def _try(self) -> None:
        """Has the function refuse bad options now and not at the first input."""
        self(zeros(1))

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self._options)


class _InPlace(Module):
    """An activation without options but PyTorch's `inplace`, which changes nothing."""

    def __init__(self, inplace: bool = False):
        super().__init__()
        self.inplace = bool(inplace)


class ReLU(_InPlace):
    """max(x, 0), any shape; see `fastnn.functional.relu`.

    Parameters
    ----------
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.
    """

    def forward(self, input: Tensor) -> Tensor:
        return activation.relu(input)


class LeakyReLU(_Activation):
    """x where it is positive, elsewhere `negative_slope` x; any shape; see `fastnn.functional.leaky_relu`.

    Parameters
    ----------
    negative_slope : float
        Slope below 0.
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.
    """

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False):
        super().__init__(negative_slope=real("LeakyReLU: negative_slope", negative_slope))
        self.inplace = bool(inplace)

    def forward(self, input: Tensor) -> Tensor:
        return activation.leaky_relu(input, self.negative_slope)


class RReLU(_Activation):
    """x where it is positive, elsewhere x times a slope: in training a random one for each element, in evaluation their
    mean; any shape; see `fastnn.functional.rrelu`.

    Parameters
    ----------
    lower, upper : float
        Slopes are uniform between them.
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.
    """

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3, inplace: bool = False):
        super().__init__(lower=lower, upper=upper)
        self.inplace = bool(inplace)
        self.eval()
        self._try()
        self.train()

    def forward(self, input: Tensor) -> Tensor:
        return rrelu(input, self.lower, self.upper, self.training)


class Sigmoid(Module):
    """The logistic function, any shape; see `fastnn.functional.sigmoid`."""

    def forward(self, input: Tensor) -> Tensor:
        return activation.sigmoid(input)


class Tanh(Module):
    """The hyperbolic tangent, any shape; see `fastnn.functional.tanh`."""

    def forward(self, input: Tensor) -> Tensor:
        return activation.tanh(input)


class Gaussian(Module):
    """exp(-x^2 / 2), any shape; see `fastnn.functional.gaussian`."""

    def forward(self, input: Tensor) -> Tensor:
        return activation.gaussian(input)


class Sign(Module):
    """-1, 0 or 1, any shape; see `fastnn.functional.sign`."""

    def forward(self, input: Tensor) -> Tensor:
        return activation.sign(input)


class Step(Module):
    """1 from 0 on, else 0; any shape; see `fastnn.functional.step`."""

    def forward(self, input: Tensor) -> Tensor:
        return activation.step(input)


class Softmax(_Activation):
    """exp(x) over its sum along an axis; see `fastnn.functional.softmax`.

    Parameters
    ----------
    dim : int
        The axis whose elements add up to 1.
    """

    def __init__(self, dim: int = -1):
        super().__init__(dim=integer(type(self).__name__, "dim", dim))

    def forward(self, input: Tensor) -> Tensor:
        return softmax.softmax(input, self.dim)


class Softmax2d(Module):
    """`Softmax` over the channels of (N, C, H, W) or (C, H, W)."""

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim not in (3, 4):
            raise ValueError(f"Softmax2d: input has shape {input.shape}, but must be (N, C, H, W) or (C, H, W)")
        return softmax.softmax(input, -3)


class LogSoftmax(Softmax):
    """The logarithm of `Softmax`; see `fastnn.functional.log_softmax`.

    Parameters
    ----------
    dim : int
        The axis whose exponentials add up to 1.
    """

    def forward(self, input: Tensor) -> Tensor:
        return softmax.log_softmax(input, self.dim)


class Softmin(Softmax):
    """`Softmax` of -x; see `fastnn.functional.softmin`.

    Parameters
    ----------
    dim : int
        The axis whose elements add up to 1.
    """

    def forward(self, input: Tensor) -> Tensor:
        return softmax.softmin(input, self.dim)


class ELU(_Activation):
    """x above 0, alpha (exp(x) - 1) below; any shape; see `fastnn.functional.elu`.

    Parameters
    ----------
    alpha : float
        Minus the limit far below 0.
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False):
        super().__init__(alpha=alpha)
        self.inplace = bool(inplace)
        self._try()

    def forward(self, input: Tensor) -> Tensor:
        return activation.elu(input, self.alpha)


class SELU(_InPlace):
    """The self-normalising ELU, any shape; see `fastnn.functional.selu`.

    Parameters
    ----------
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.
    """

    def forward(self, input: Tensor) -> Tensor:
        return activation.selu(input)


class CELU(_Activation):
    """x above 0, alpha (exp(x / alpha) - 1) below; any shape; see `fastnn.functional.celu`.

    Parameters
    ----------
    alpha : float
        Minus the limit far below 0; above 0.
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False):
        super().__init__(alpha=alpha)
        self.inplace = bool(inplace)
        self._try()

    def forward(self, input: Tensor) -> Tensor:
        return activation.celu(input, self.alpha)


class GELU(_Activation):
    """x times the probability that a standard normal number is below x; any shape; see `fastnn.functional.gelu`.

    Parameters
    ----------
    approximate : str
        "none" or "tanh".
    """

    def __init__(self, approximate: str = "none"):
        super().__init__(approximate=approximate)
        self._try()

    def forward(self, input: Tensor) -> Tensor:
        return activation.gelu(input, self.approximate)


class SiLU(_InPlace):
    """x sigmoid(x), also known as swish, any shape; see `fastnn.functional.silu`.

    Parameters
    ----------
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.
    """

    def forward(self, input: Tensor) -> Tensor:
        return activation.silu(input)


class Mish(_InPlace):
    """x tanh(log(1 + exp(x))), any shape; see `fastnn.functional.mish`.

    Parameters
    ----------
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.
    """

    def forward(self, input: Tensor) -> Tensor:
        return activation.mish(input)


class Softplus(_Activation):
    """log(1 + exp(beta x)) / beta, any shape; see `fastnn.functional.softplus`.

    Parameters
    ----------
    beta : float
        Above 0.
    threshold : float
        Where beta x is over this, x itself.
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0):
        super().__init__(beta=beta, threshold=threshold)
        self._try()

    def forward(self, input: Tensor) -> Tensor:
        return activation.softplus(input, self.beta, self.threshold)


class Softsign(Module):
    """x / (1 + |x|), any shape; see `fastnn.functional.softsign`."""

    def forward(self, input: Tensor) -> Tensor:
        return activation.softsign(input)


class LogSigmoid(Module):
    """log(sigmoid(x)), any shape; see `fastnn.functional.logsigmoid`."""

    def forward(self, input: Tensor) -> Tensor:
        return activation.logsigmoid(input)


class Tanhshrink(Module):
    """x - tanh(x), any shape; see `fastnn.functional.tanhshrink`."""

    def forward(self, input: Tensor) -> Tensor:
        return activation.tanhshrink(input)


class GLU(_Activation):
    """The first half of an axis times the sigmoid of its second half; see `fastnn.functional.glu`.

    Parameters
    ----------
    dim : int
        The axis to halve.
    """

    def __init__(self, dim: int = -1):
        super().__init__(dim=integer("GLU", "dim", dim))

    def forward(self, input: Tensor) -> Tensor:
        return activation.glu(input, self.dim)


class ReLU6(_InPlace):
    """min(max(x, 0), 6), any shape; see `fastnn.functional.relu6`.

    Parameters
    ----------
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.
    """

    def forward(self, input: Tensor) -> Tensor:
        return activation.relu6(input)


class Hardtanh(_Activation):
    """x, but at least `min_val` and at most `max_val`; any shape; see `fastnn.functional.hardtanh`.

    Parameters
    ----------
    min_val : float
        The lower bound.
    max_val : float
        The upper bound.
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False):
        super().__init__(min_val=min_val, max_val=max_val)
        self.inplace = bool(inplace)
        self._try()

    def forward(self, input: Tensor) -> Tensor:
        return activation.hardtanh(input, self.min_val, self.max_val)


class Hardsigmoid(_InPlace):
    """min(max(x + 3, 0), 6) / 6, any shape; see `fastnn.functional.hardsigmoid`.

    Parameters
    ----------
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.
    """

    def forward(self, input: Tensor) -> Tensor:
        return activation.hardsigmoid(input)


class Hardswish(_InPlace):
    """x min(max(x + 3, 0), 6) / 6, any shape; see `fastnn.functional.hardswish`.

    Parameters
    ----------
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.
    """

    def forward(self, input: Tensor) -> Tensor:
        return activation.hardswish(input)


class Softshrink(_Activation):
    """x moved towards 0 by `lambd`, but not past it; any shape; see `fastnn.functional.softshrink`.

    Parameters
    ----------
    lambd : float
        At least 0.
    """

    def __init__(self, lambd: float = 0.5):
        super().__init__(lambd=lambd)
        self._try()

    def forward(self, input: Tensor) -> Tensor:
        return activation.softshrink(input, self.lambd)

    def extra_repr(self) -> str:
        return f"{self.lambd}"


class Hardshrink(_Activation):
    """0 where |x| is at most `lambd`, else x; any shape; see `fastnn.functional.hardshrink`.

    Parameters
    ----------
    lambd : float
        The bound.
    """

    def __init__(self, lambd: float = 0.5):
        super().__init__(lambd=lambd)
        self._try()

    def forward(self, input: Tensor) -> Tensor:
        return activation.hardshrink(input, self.lambd)

    def extra_repr(self) -> str:
        return f"{self.lambd}"


class Threshold(_Activation):
    """x where it is above the threshold, else `value`; any shape; see `fastnn.functional.threshold`.

    Parameters
    ----------
    threshold : float
        The bound.
    value : float
        What stands below it.
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.
    """

    def __init__(self, threshold: float, value: float, inplace: bool = False):
        super().__init__(threshold=threshold, value=value)
        self.inplace = bool(inplace)
        self._try()

    def forward(self, input: Tensor) -> Tensor:
        return activation.threshold(input, self.threshold, self.value)


@typed
class PReLU(_Activation):
    """x where it is positive, elsewhere a learned slope times x: (N, C, ...), or any shape with one slope; see
    `fastnn.functional.prelu`.

    Parameters
    ----------
    num_parameters : int
        Number of slopes: 1, or the number of channels C.
    init : float
        What they start from.

    Attributes
    ----------
    weight : Parameter
        (num_parameters,).

    Raises
    ------
    ValueError
        If there is less than one slope.
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25):
        super().__init__(num_parameters=whole("PReLU: num_parameters", num_parameters, 1))
        self.weight = Parameter(full((self.num_parameters,), real("PReLU: init", init)))

    def forward(self, input: Tensor) -> Tensor:
        return activation.prelu(input, self.weight)


class Maxout(_Activation):
    """The largest of every `pieces` neighbours along an axis, whose extent shrinks by that factor; see
    `fastnn.functional.maxout`.

    Parameters
    ----------
    pieces : int
        At least 1.
    dim : int
        The axis.
    """

    def __init__(self, pieces: int = 2, dim: int = 1):
        super().__init__(pieces=whole("Maxout: pieces", pieces, 1), dim=integer("Maxout", "dim", dim))

    def forward(self, input: Tensor) -> Tensor:
        return activation.maxout(input, self.pieces, self.dim)


class Activation(Module):
    """Any activation by its name, any shape it allows.

    Parameters
    ----------
    name : str or callable
        One of `fastnn.functional.ACTIVATIONS`, or a function from Tensor to Tensor.

    Raises
    ------
    ValueError
        If there is none of that name; the message lists all.
    """

    def __init__(self, name: str | Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = activation.activation(name)
        self.name = name if isinstance(name, str) else getattr(name, "__name__", repr(name))

    def forward(self, input: Tensor) -> Tensor:
        return self.function(input)

    def extra_repr(self) -> str:
        return repr(self.name)
