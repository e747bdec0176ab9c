"""Functions of angles, hyperbolic functions and the inverses of both; the error function; powers and logarithms of 2 and 10."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .._core import launch, record
from .create import float32
from .math import _back, _shapes, add, div, mul, sub
from .operands import constant, floating, operands
from .shape import to

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cos", "cosh", "deg2rad", "erf", "exp2", "hypot", "log10",
           "log2", "rad2deg", "sin", "sinh", "tan"]


def _applied(name: str, x: Any, rule: Any) -> Tensor:
    """launch.<name>(x), on the tape with x saved."""
    x = floating(name, x)
    return record(rule, (x,), getattr(launch, name)(x), saved=(x,))


def sin(input: Tensor) -> Tensor:
    """The sine of an angle in radians; NaN at infinity.

    Parameters
    ----------
    input : Tensor
        Any shape; integers become float32.

    Returns
    -------
    Tensor
        Shape of `input`.
    """
    return _applied("sin", input, _sin_backward)


def _sin_backward(node, dy):
    return launch.mul(dy, launch.cos(node.saved[0]))


def cos(input: Tensor) -> Tensor:
    """The cosine of an angle in radians; parameters as `sin`."""
    return _applied("cos", input, _cos_backward)


def _cos_backward(node, dy):
    return launch.neg(launch.mul(dy, launch.sin(node.saved[0])))


def tan(input: Tensor) -> Tensor:
    """The tangent of an angle in radians; parameters as `sin`."""
    x = floating("tan", input)
    y = launch.tan(x)
    return record(_tan_backward, (x,), y, saved=(y,))


def _tan_backward(node, dy):
    return launch.mul(dy, add(launch.square(node.saved[0]), 1.0))


def _circle(x: Tensor) -> Tensor:
    """sqrt(1 - x^2), as (1 - x) (1 + x) under the root: exact near 1."""
    return launch.sqrt(mul(sub(1.0, x), add(1.0, x)))


def asin(input: Tensor) -> Tensor:
    """The angle from -pi / 2 to pi / 2 whose sine is x; NaN where |x| > 1. Parameters as `sin`."""
    return _applied("asin", input, _asin_backward)


def _asin_backward(node, dy):
    return launch.div(dy, _circle(node.saved[0]))


def acos(input: Tensor) -> Tensor:
    """The angle from 0 to pi whose cosine is x; NaN where |x| > 1. Parameters as `sin`."""
    return _applied("acos", input, _acos_backward)


def _acos_backward(node, dy):
    return launch.neg(launch.div(dy, _circle(node.saved[0])))


def atan(input: Tensor) -> Tensor:
    """The angle from -pi / 2 to pi / 2 whose tangent is x; parameters as `sin`."""
    return _applied("atan", input, _atan_backward)


def _atan_backward(node, dy):
    return launch.div(dy, add(launch.square(node.saved[0]), 1.0))


def atan2(input: Tensor | float, other: Tensor | float) -> Tensor:
    """The angle of the point (x, y), from -pi to pi.

    Parameters
    ----------
    input, other : Tensor or number
        Shapes that broadcast together; integers become float32.

    Returns
    -------
    Tensor
        The broadcast shape.

    Raises
    ------
    ValueError
        If the shapes do not broadcast.
    """
    y, x = _reals("atan2", input, other)
    return record(_atan2_backward, (y, x), launch.atan2(y, x), saved=(y, x), context=_shapes(y, x))


def _atan2_backward(node, dz):
    y, x = node.saved
    share = launch.div(dz, launch.add(launch.square(x), launch.square(y)))
    return _back(node, launch.mul(share, x) if node.needs[0] else None, launch.neg(launch.mul(share, y)) if node.needs[1] else None)


def _reals(name: str, a: Any, b: Any) -> tuple[Tensor, Tensor]:
    a, b = operands(name, a, b)
    return (a, b) if a.dtype.is_floating else (to(a, float32), to(b, float32))


def hypot(input: Tensor | float, other: Tensor | float) -> Tensor:
    """sqrt(a^2 + b^2), whose squares leave no range; infinite where one is, though the other be NaN. Parameters as `atan2`."""
    a, b = _reals("hypot", input, other)
    y = launch.hypot(a, b)
    return record(_hypot_backward, (a, b), y, saved=(a, b, y), context=_shapes(a, b))


def _hypot_backward(node, dy):
    a, b, y = node.saved
    da = launch.hypot_backward(dy, a, y) if node.needs[0] else None
    return _back(node, da, launch.hypot_backward(dy, b, y) if node.needs[1] else None)


def sinh(input: Tensor) -> Tensor:
    """The hyperbolic sine, (exp(x) - exp(-x)) / 2; parameters as `sin`."""
    return _applied("sinh", input, _sinh_backward)


def _sinh_backward(node, dy):
    return launch.mul(dy, launch.cosh(node.saved[0]))


def cosh(input: Tensor) -> Tensor:
    """The hyperbolic cosine, (exp(x) + exp(-x)) / 2; parameters as `sin`."""
    return _applied("cosh", input, _cosh_backward)


def _cosh_backward(node, dy):
    return launch.mul(dy, launch.sinh(node.saved[0]))


def asinh(input: Tensor) -> Tensor:
    """The inverse of `sinh`; parameters as `sin`."""
    return _applied("asinh", input, _asinh_backward)


def _asinh_backward(node, dy):
    return launch.div(dy, launch.sqrt(add(launch.square(node.saved[0]), 1.0)))


def acosh(input: Tensor) -> Tensor:
    """The inverse of `cosh`, at least 0; NaN where x < 1. Parameters as `sin`."""
    return _applied("acosh", input, _acosh_backward)


def _acosh_backward(node, dy):
    (x,) = node.saved
    return launch.div(dy, launch.sqrt(mul(sub(x, 1.0), add(x, 1.0))))


def atanh(input: Tensor) -> Tensor:
    """The inverse of `tanh`: infinite at -1 and 1, NaN beyond. Parameters as `sin`."""
    return _applied("atanh", input, _atanh_backward)


def _atanh_backward(node, dy):
    (x,) = node.saved
    return launch.div(dy, mul(sub(1.0, x), add(1.0, x)))


def deg2rad(input: Tensor) -> Tensor:
    """Degrees as radians; parameters as `sin`."""
    return mul(floating("deg2rad", input), math.pi / 180)


def rad2deg(input: Tensor) -> Tensor:
    """Radians as degrees; parameters as `sin`."""
    return mul(floating("rad2deg", input), 180 / math.pi)


def erf(input: Tensor) -> Tensor:
    """The error function, 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x; parameters as `sin`."""
    return _applied("erf", input, _erf_backward)


def _erf_backward(node, dy):
    bell = launch.exp(launch.neg(launch.square(node.saved[0])))
    return mul(launch.mul(dy, bell), 2 / math.sqrt(math.pi))


def exp2(input: Tensor) -> Tensor:
    """2 to the power x; parameters as `sin`."""
    x = floating("exp2", input)
    y = launch.exp2(x)
    return record(_exp2_backward, (x,), y, saved=(y,))


def _exp2_backward(node, dy):
    return mul(launch.mul(dy, node.saved[0]), math.log(2))


def log2(input: Tensor) -> Tensor:
    """The logarithm to base 2, exact for powers of 2: -inf at 0, NaN below. Parameters as `sin`."""
    return _applied("log2", input, _log2_backward)


def _log2_backward(node, dy):
    return div(dy, mul(node.saved[0], constant(math.log(2), dy.dtype)))


def log10(input: Tensor) -> Tensor:
    """The logarithm to base 10: -inf at 0, NaN below. Parameters as `sin`."""
    return _applied("log10", input, _log10_backward)


def _log10_backward(node, dy):
    return div(dy, mul(node.saved[0], constant(math.log(10), dy.dtype)))
