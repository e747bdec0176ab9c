"""Initialisers: each fills a parameter in place and returns it."""

from __future__ import annotations

import math

import numpy as np

from .._core import launch
from ..checks import a_tensor, among, number, positive, real, whole
from ..random import Generator, generator_state, randperm
from ..ops.create import as_tensor
from ..tensor import Tensor

__all__ = ["calculate_gain", "constant_", "dirac_", "eye_", "kaiming_normal_", "kaiming_uniform_", "lecun_normal_",
           "lecun_uniform_", "normal_", "ones_", "orthogonal_", "sparse_", "trunc_normal_", "uniform_", "xavier_normal_",
           "xavier_uniform_", "zeros_"]

_GAINS = {"linear": 1.0, "identity": 1.0, "conv2d": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """What to multiply a weight's spread with before a nonlinearity, so that signals keep their size.

    Parameters
    ----------
    nonlinearity : str
        "linear", "identity", "conv2d", "sigmoid", "tanh", "relu", "leaky_relu" or "selu".
    param : float, optional
        The slope of leaky_relu; 0.01 by default.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the nonlinearity is unknown.
    """
    if isinstance(nonlinearity, str) and nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if param is None else real("calculate_gain: param", param, -1e100, 1e100)) ** 2))
    return _GAINS[among("calculate_gain: nonlinearity", nonlinearity, [*_GAINS, "leaky_relu"])]


def _fans(name: str, tensor: Tensor) -> tuple[int, int]:
    """How many numbers a unit takes in, and how many units one number goes to."""
    if a_tensor(name, tensor, "tensor").ndim < 2:
        raise ValueError(f"{name}: the tensor has shape {tensor.shape}, but needs at least two axes for a fan-in and a fan-out")
    window = math.prod(tensor.shape[2:])
    return tensor.shape[1] * window, tensor.shape[0] * window


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fills with numbers drawn uniformly from [a, b).

    Parameters
    ----------
    tensor : Tensor
        Any shape, float32 or float64.
    a, b : float
        Ends of the interval.
    generator : Generator, optional
        The default one if not given.

    Returns
    -------
    Tensor
        The tensor.

    Raises
    ------
    ValueError
        If `a` is greater than `b`.
    """
    if not number("uniform_: a", a) <= number("uniform_: b", b):
        raise ValueError(f"uniform_: a is {a} and b is {b}, but a must not be greater than b")
    launch.uniform(generator_state(generator), low=a, high=b, ordinal=0, out=a_tensor("uniform_", tensor, "tensor").detach())
    return tensor


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fills with normally distributed numbers.

    Parameters
    ----------
    tensor : Tensor
        Any shape, float32 or float64.
    mean : float
        Their mean.
    std : float
        Their standard deviation, at least 0.
    generator : Generator, optional
        The default one if not given.

    Returns
    -------
    Tensor
        The tensor.

    Raises
    ------
    ValueError
        If `std` is below 0.
    """
    if number("normal_: std", std) < 0:
        raise ValueError(f"normal_: std is {std}, but must not be negative")
    launch.normal(generator_state(generator), mean=mean, std=std, ordinal=0, out=a_tensor("normal_", tensor, "tensor").detach())
    return tensor


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fills with one number.

    Parameters
    ----------
    tensor : Tensor
        Any shape and type.
    val : float
        The number.

    Returns
    -------
    Tensor
        The tensor.
    """
    a_tensor("constant_", tensor, "tensor").detach().fill_(val)
    return tensor


def zeros_(tensor: Tensor) -> Tensor:
    """Fills with 0; see `constant_`."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Fills with 1; see `constant_`."""
    return constant_(tensor, 1.0)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Glorot's uniform initialisation: variance ``gain^2 * 2 / (fan_in + fan_out)``.

    Parameters
    ----------
    tensor : Tensor
        (out, in, ...).
    gain : float
        See `calculate_gain`.
    generator : Generator, optional
        The default one if not given.

    Returns
    -------
    Tensor
        The tensor.

    References
    ----------
    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010.
    """
    bound = real("xavier_uniform_: gain", gain, 0) * math.sqrt(6 / max(sum(_fans("xavier_uniform_", tensor)), 1))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Glorot's normal initialisation; see `xavier_uniform_`."""
    gain = real("xavier_normal_: gain", gain, 0)
    return normal_(tensor, 0.0, gain * math.sqrt(2 / max(sum(_fans("xavier_normal_", tensor)), 1)), generator)


def _kaiming_std(name: str, tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"{name}: mode is {mode!r}, but must be 'fan_in' or 'fan_out'")
    return calculate_gain(nonlinearity, a) / math.sqrt(max(_fans(name, tensor)[mode == "fan_out"], 1))


def kaiming_uniform_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
                     generator: Generator | None = None) -> Tensor:
    """He's uniform initialisation: variance ``gain^2 / fan``.

    Parameters
    ----------
    tensor : Tensor
        (out, in, ...).
    a : float
        The slope of the leaky ReLU that follows; 0 for a ReLU.
    mode : str
        "fan_in" keeps the size of signals forward, "fan_out" that of gradients backward.
    nonlinearity : str
        See `calculate_gain`.
    generator : Generator, optional
        The default one if not given.

    Returns
    -------
    Tensor
        The tensor.

    References
    ----------
    He et al., "Delving deep into rectifiers", ICCV 2015.
    """
    bound = math.sqrt(3) * _kaiming_std("kaiming_uniform_", tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
                    generator: Generator | None = None) -> Tensor:
    """He's normal initialisation; see `kaiming_uniform_`."""
    return normal_(tensor, 0.0, _kaiming_std("kaiming_normal_", tensor, a, mode, nonlinearity), generator)


def lecun_uniform_(tensor: Tensor, generator: Generator | None = None) -> Tensor:
    """LeCun's uniform initialisation: variance ``1 / fan_in``.

    Parameters
    ----------
    tensor : Tensor
        (out, in, ...).
    generator : Generator, optional
        The default one if not given.

    Returns
    -------
    Tensor
        The tensor.

    References
    ----------
    LeCun et al., "Efficient BackProp", 1998.
    """
    return kaiming_uniform_(tensor, nonlinearity="linear", generator=generator)


def lecun_normal_(tensor: Tensor, generator: Generator | None = None) -> Tensor:
    """LeCun's normal initialisation; see `lecun_uniform_`."""
    return kaiming_normal_(tensor, nonlinearity="linear", generator=generator)


def orthogonal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fills with a random (semi-)orthogonal matrix, the axes after the first taken as one.

    Parameters
    ----------
    tensor : Tensor
        (out, in, ...).
    gain : float
        Factor.
    generator : Generator, optional
        The default one if not given.

    Returns
    -------
    Tensor
        The tensor.

    References
    ----------
    Saxe et al., "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks", 2013.
    """
    _fans("orthogonal_", tensor)
    gain = real("orthogonal_: gain", gain)
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    flat = as_tensor(np.empty((max(rows, columns), min(rows, columns))))
    q, r = np.linalg.qr(normal_(flat, generator=generator).numpy())
    q = q * np.sign(np.diag(r))  # makes the distribution uniform
    tensor.detach().copy_((gain * (q if rows >= columns else q.T)).reshape(tensor.shape))
    return tensor


def eye_(tensor: Tensor) -> Tensor:
    """Fills a matrix with 1 on its diagonal and 0 elsewhere.

    Parameters
    ----------
    tensor : Tensor
        (M, N).

    Returns
    -------
    Tensor
        The tensor.

    Raises
    ------
    ValueError
        If it has another number of axes.
    """
    if a_tensor("eye_", tensor, "tensor").ndim != 2:
        raise ValueError(f"eye_: the tensor has shape {tensor.shape}, but must be a matrix")
    tensor.detach().copy_(np.eye(*tensor.shape))
    return tensor


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """Fills filters so that a convolution hands on its first channels unchanged.

    Parameters
    ----------
    tensor : Tensor
        (out, in / groups, ...), one or two axes behind.
    groups : int
        Number of groups; divides out.

    Returns
    -------
    Tensor
        The tensor.

    Raises
    ------
    ValueError
        If its shape does not fit.
    """
    if a_tensor("dirac_", tensor, "tensor").ndim not in (3, 4) or tensor.shape[0] % whole("dirac_: groups", groups, 1):
        raise ValueError(f"dirac_: the tensor has shape {tensor.shape}, but must be (out, in, ...) of 3 or 4 axes, out a "
                         f"multiple of groups {groups}")
    values = np.zeros(tensor.shape)
    rows = tensor.shape[0] // groups
    centre = tuple(n // 2 for n in tensor.shape[2:])
    for row in range(tensor.shape[0] if values.size else 0):
        if row % rows < tensor.shape[1]:
            values[(row, row % rows, *centre)] = 1
    tensor.detach().copy_(values)
    return tensor


def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Generator | None = None) -> Tensor:
    """Fills a matrix with normal numbers, of which some in each column are 0.

    Parameters
    ----------
    tensor : Tensor
        A matrix.
    sparsity : float
        Which part of each column is 0, from 0 to 1; rounded up to whole elements.
    std : float
        Standard deviation of the others.
    generator : Generator, optional
        The default one if not given.

    Returns
    -------
    Tensor
        The tensor.

    Raises
    ------
    ValueError
        If it is no matrix or `sparsity` is out of range.

    References
    ----------
    J. Martens, "Deep learning via Hessian-free optimization", ICML 2010.
    """
    if a_tensor("sparse_", tensor, "tensor").ndim != 2:
        raise ValueError(f"sparse_: the tensor has shape {tensor.shape}, but must be a matrix")
    rows, columns = tensor.shape
    zeros = math.ceil(real("sparse_: sparsity", sparsity, 0, 1) * rows)
    values = normal_(as_tensor(np.empty(tensor.shape)), 0.0, std, generator).numpy()
    for column in range(columns):
        values[randperm(rows, generator).numpy()[:zeros], column] = 0
    tensor.detach().copy_(values)
    return tensor


def trunc_normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0,
                  generator: Generator | None = None) -> Tensor:
    """Fills with normal numbers between two bounds, as if those beyond had been drawn again.

    Parameters
    ----------
    tensor : Tensor
        What to fill.
    mean, std : float
        Of the whole normal distribution.
    a, b : float
        The bounds, in the numbers' own units.
    generator : Generator, optional
        The default one if not given.

    Returns
    -------
    Tensor
        The tensor.

    Raises
    ------
    ValueError
        If `std` is not above 0, or the bounds are not in order.

    References
    ----------
    M. B. Giles, "Approximating the erfinv function", GPU Computing Gems, 2011.
    """
    mean, std = real("trunc_normal_: mean", mean), positive("trunc_normal_: std", std)
    a, b = real("trunc_normal_: a", a), real("trunc_normal_: b", b)
    if a >= b:
        raise ValueError(f"trunc_normal_: a is {a} and b {b}, but a must be below b")
    low, high = (math.erf((bound - mean) / (std * math.sqrt(2))) for bound in (a, b))
    shape = a_tensor("trunc_normal_", tensor, "tensor").shape
    u = uniform_(as_tensor(np.empty(shape)), low, high, generator).numpy() if high > low else np.full(shape, low)
    tensor.detach().copy_(np.clip(mean + std * math.sqrt(2) * _erfinv(u), a, b))
    return tensor


_NEAR = (2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164,
         0.246640727, 1.50140941)  # of w - 2.5, where w = -log(1 - x^2) is below 5
_FAR = (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
        1.00167406, 2.83297682)  # of sqrt(w) - 3


def _erfinv(x: np.ndarray) -> np.ndarray:
    """The inverse of the error function, to seven digits."""
    with np.errstate(divide="ignore", invalid="ignore"):
        w = -np.log((1 - x) * (1 + x))
        return x * np.where(w < 5, np.polyval(_NEAR, w - 2.5), np.polyval(_FAR, np.sqrt(w) - 3))
