"""Powers, element by element."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core import TensorBase, launch, record
from .math import _back, _integers, _shapes, constant, floating, operands, square

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["pow"]


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
    if exponent == 2 if isinstance(exponent, (int, float)) else False:
        return square(input if type(exponent) is int or not isinstance(input, TensorBase) else floating("pow", input))
    a, b = operands("pow", input, given := exponent)
    if not a.dtype.is_floating:
        if isinstance(given, int) and given < 0:
            raise ValueError(f"pow: exponent is {given}, but must be at least 0 where input holds integers: convert it first, x.float()")
        return _integers("pow", a, b)
    y = launch.pow(a, b)
    return record(_pow_backward, (a, b), y, saved=(a, b, y if b.requires_grad else None), context=_shapes(a, b))


def _pow_backward(node, dy):
    """dy b a^(b-1), which is 0 for b = 0, and dy y log(a), which is 0 for a = 0, b >= 0."""
    a, b, y = node.saved
    zero, one = constant(0.0, a.dtype), constant(1.0, a.dtype)
    da = db = None
    if node.needs[0]:
        slope = launch.mul(b, launch.pow(a, launch.sub(b, one)))
        da = launch.where(launch.eq(b, zero), zero, launch.mul(dy, slope))
    if node.needs[1]:
        flat = _integers("and", launch.eq(a, zero), launch.ge(b, zero))
        db = launch.where(flat, zero, launch.mul(dy, launch.mul(y, launch.log(a))))
    return _back(node, da, db)
