"""Smooth activation functions, element by element, and the gated linear unit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import _core
from .._core import launch, record
from ..checks import a_tensor, positive, real
from .operands import floating
from .shape import _axis

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["celu", "elu", "gelu", "glu", "logsigmoid", "mish", "selu", "silu", "softplus", "softsign", "tanhshrink"]


def elementwise(op: str, x: Tensor, **options: float) -> Tensor:
    """Launches ``<op>_forward`` on `x`; backward launches ``<op>_backward`` on the gradient and `x`.

    Parameters
    ----------
    op : str
        Stem of the ops' names.
    x : Tensor
        float32 or float64, any shape.
    **options : float
        Attributes of both ops.

    Returns
    -------
    Tensor
        Shape and type of `x`.
    """
    y = getattr(launch, f"{op}_forward")(x, **options)
    return record(_elementwise_backward, (x,), y, saved=(x,), context=(f"{op}_backward", options))


def _elementwise_backward(node, dy):
    op, options = node.context
    return getattr(launch, op)(dy, node.saved[0], **options)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x above 0, alpha (exp(x) - 1) below.

    Parameters
    ----------
    input : Tensor
        float32 or float64, any shape.
    alpha : float
        Minus the limit far below 0; finite.
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.

    Returns
    -------
    Tensor
        Shape and type of `input`.

    References
    ----------
    Clevert, Unterthiner and Hochreiter, "Fast and accurate deep network learning by exponential linear units",
    ICLR 2016.
    """
    return elementwise("elu", input, negative=real("elu: alpha", alpha), positive=1.0, rate=1.0)


SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """s x above 0, s alpha (exp(x) - 1) below, alpha = 1.67326..., s = 1.05070...: layers keep mean 0 and variance 1.

    Parameters
    ----------
    input : Tensor
        float32 or float64, any shape.
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.

    Returns
    -------
    Tensor
        Shape and type of `input`.

    References
    ----------
    Klambauer et al., "Self-normalizing neural networks", NIPS 2017.
    """
    return elementwise("elu", input, negative=SELU_ALPHA * SELU_SCALE, positive=SELU_SCALE, rate=1.0)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x above 0, alpha (exp(x / alpha) - 1) below: an `elu` whose slope is continuous for every alpha.

    Parameters
    ----------
    input : Tensor
        float32 or float64, any shape.
    alpha : float
        Minus the limit far below 0; above 0.
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.

    Returns
    -------
    Tensor
        Shape and type of `input`.

    References
    ----------
    J. T. Barron, "Continuously differentiable exponential linear units", arXiv:1704.07483, 2017.
    """
    alpha = positive("celu: alpha", alpha)
    return elementwise("elu", input, negative=alpha, positive=1.0, rate=1 / alpha)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x times the probability that a standard normal number is below x.

    Parameters
    ----------
    input : Tensor
        float32 or float64, any shape.
    approximate : str
        "none": exactly, x (1 + erf(x / sqrt 2)) / 2, accurate far below 0 too;
        "tanh": x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2.

    Returns
    -------
    Tensor
        Shape and type of `input`; at -inf the limit 0, where PyTorch has NaN.

    Raises
    ------
    ValueError
        If `approximate` is neither.

    References
    ----------
    Hendrycks and Gimpel, "Gaussian error linear units", arXiv:1606.08415, 2016.
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: approximate is {approximate!r}, but must be 'none' or 'tanh'")
    return elementwise("gelu" if approximate == "none" else "gelu_tanh", input)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x / (1 + exp(-x)), also known as swish.

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
    Elfwing, Uchibe and Doya, "Sigmoid-weighted linear units for neural network function approximation in reinforcement
    learning", Neural Networks 107, 2018.
    """
    return elementwise("silu", input)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x tanh(log(1 + exp(x))).

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
    D. Misra, "Mish: a self regularized non-monotonic activation function", BMVC 2020.
    """
    return elementwise("mish", input)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta x)) / beta; x itself where beta x is over the threshold.

    Parameters
    ----------
    input : Tensor
        float32 or float64, any shape.
    beta : float
        Above 0: the greater, the nearer to `relu`.
    threshold : float
        Finite.

    Returns
    -------
    Tensor
        Shape and type of `input`.

    References
    ----------
    Dugas et al., "Incorporating second-order functional knowledge for better option pricing", NIPS 2000.
    """
    beta, threshold = positive("softplus: beta", beta), real("softplus: threshold", threshold)
    return elementwise("softplus", input, beta=beta, threshold=threshold)


def logsigmoid(input: Tensor) -> Tensor:
    """log(1 / (1 + exp(-x))), without overflow.

    Parameters
    ----------
    input : Tensor
        float32 or float64, any shape.

    Returns
    -------
    Tensor
        Shape and type of `input`, at most 0.
    """
    return elementwise("logsigmoid", input)


def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|).

    Parameters
    ----------
    input : Tensor
        float32 or float64, any shape.

    Returns
    -------
    Tensor
        Shape and type of `input`, between -1 and 1.

    References
    ----------
    Bergstra et al., "Quadratic polynomials learn better image features", technical report 1337,
    Université de Montréal, 2009.
    """
    return elementwise("softsign", floating("softsign", input))


def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x).

    Parameters
    ----------
    input : Tensor
        float32 or float64, any shape.

    Returns
    -------
    Tensor
        Shape and type of `input`.
    """
    return elementwise("tanhshrink", floating("tanhshrink", input))


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """The gated linear unit: the first half of an axis times the sigmoid of its second half.

    Parameters
    ----------
    input : Tensor
        float32 or float64, any shape with at least one axis.
    dim : int
        The axis to halve; its extent must be even.

    Returns
    -------
    Tensor
        Of `input`'s shape, with half the extent along `dim`.

    Raises
    ------
    ValueError
        If the extent is odd.

    References
    ----------
    Dauphin et al., "Language modeling with gated convolutional networks", ICML 2017.
    """
    axis = _axis("glu", dim, a_tensor("glu", input).ndim)
    if input.shape[axis] % 2:
        raise ValueError(f"glu: axis {dim} of input {input.shape} has extent {input.shape[axis]}, but it must be even")
    values, gate = _halves(input.detach(), axis)
    return record(_glu_backward, (input,), launch.glu_forward(values, gate), saved=(input,), context=axis)


def _halves(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Views of both halves of an axis."""
    middle, before = x.shape[axis] // 2, (slice(None),) * axis
    return x[(*before, slice(None, middle))], x[(*before, slice(middle, None))]


def _glu_backward(node, dy):
    (x,) = node.saved
    values, gate = _halves(x.detach(), node.context)
    dx = _core.empty(x.shape, x.dtype)
    dvalues, dgate = _halves(dx, node.context)
    launch.glu_forward(dy, gate, out=dvalues)
    launch.glu_backward_gate(dy, values, gate, out=dgate)
    return dx
