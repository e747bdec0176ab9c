"""Special functions: the gamma function's logarithm and its derivative, the inverse of the error function."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .._core import launch, record
from .math import mul
from .operands import floating
from .trigonometry import _applied

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["digamma", "erfinv", "lgamma"]


def lgamma(input: Tensor) -> Tensor:
    """The logarithm of the gamma function's magnitude: of n the logarithm of (n - 1)!.

    Parameters
    ----------
    input : Tensor
        Any shape; integers become float32.

    Returns
    -------
    Tensor
        Shape of `input`; infinite at 0, -1, -2, ... Its gradient is `digamma`.

    References
    ----------
    Abramowitz and Stegun, "Handbook of Mathematical Functions", 1964, chapter 6.
    """
    return _applied("lgamma", input, _lgamma_backward)


def _lgamma_backward(node, dy):
    return launch.mul(dy, launch.digamma(node.saved[0]))


def digamma(input: Tensor) -> Tensor:
    """The derivative of `lgamma`: at 0 infinite, of the other sign, NaN at -1, -2, ... Parameters as `lgamma`."""
    return _applied("digamma", input, _digamma_backward)


def _digamma_backward(node, dy):
    return launch.mul(dy, launch.trigamma(node.saved[0]))


def erfinv(input: Tensor) -> Tensor:
    """What `erf` makes x of: infinite at -1 and 1, NaN beyond. Parameters as `lgamma`.

    References
    ----------
    M. B. Giles, "Approximating the erfinv function", GPU Computing Gems, 2011.
    """
    x = floating("erfinv", input)
    y = launch.erfinv(x)
    return record(_erfinv_backward, (x,), y, saved=(y,))


def _erfinv_backward(node, dy):
    slope = launch.exp(launch.square(node.saved[0]))
    return mul(launch.mul(dy, slope), math.sqrt(math.pi) / 2)
