"""Powers, element by element."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core import TensorBase, launch, record
from .math import _back, _integers, _shapes, square
from .operands import floating, operands

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["pow"]

_SIMPLE = (3, 4, -1, -2, 0.5, -0.5, 1.5)  # exponents whose powers and slopes are products and roots (kernels/elementwise_power.h)


def pow(input: Tensor | float, exponent: Tensor | float) -> Tensor:
    """a to the power b, of integers as an integer.

    Parameters
    ----------
    input, exponent : Tensor or number
        Shapes that broadcast together. Integers to negative powers in a tensor are rounded towards 0.

    Returns
    -------
    Tensor
        The broadcast shape.

    Raises
    ------
    ValueError
        If the shapes do not broadcast, or `exponent` is a negative integer while `input` holds integers: rounded towards 0, hardly
        anything would remain.
    """
    if isinstance(exponent, (int, float)):
        if exponent == 2:
            return square(input if type(exponent) is int or not isinstance(input, TensorBase) else floating("pow", input))
        if exponent in _SIMPLE and isinstance(input, TensorBase) and (input.dtype.is_floating or isinstance(exponent, float)):
            x = floating("pow", input)
            return record(_power_backward, (x,), launch.power(x, exponent=exponent), saved=(x,), context=exponent)
    a, b = operands("pow", input, given := exponent)
    if not a.dtype.is_floating:
        if isinstance(given, int) and given < 0:
            raise ValueError(f"pow: exponent is {given}, but must be at least 0 where input holds integers: convert it first, x.float()")
        return _integers("pow", a, b)
    y = launch.pow(a, b)
    return record(_pow_backward, (a, b), y, saved=(a, b, y if b.requires_grad else None), context=_shapes(a, b))


def _power_backward(node, dy):
    return launch.power_backward(dy, node.saved[0], exponent=node.context)


def _pow_backward(node, dy):
    """dy b a^(b-1), which is 0 for b = 0, and dy y log(a), which is 0 for a = 0, b >= 0."""
    a, b, y = node.saved
    da = launch.pow_backward(dy, a, b) if node.needs[0] else None
    db = launch.pow_backward_exponent(dy, a, b, y) if node.needs[1] else None
    return _back(node, da, db)
