"""Division rounded down, and what it leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core import launch, record
from .math import _back, _flat_backward, _integers, _rounds_up, _shapes, sub, where
from .operands import operands

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["floor_divide", "fmod", "remainder"]


def floor_divide(input: Tensor | float, other: Tensor | float) -> Tensor:
    """a / b rounded down, of integers as integers; its gradient is 0.

    Parameters
    ----------
    input, other : Tensor or number
        Shapes that broadcast together.

    Returns
    -------
    Tensor
        The broadcast shape.

    Raises
    ------
    ValueError
        If the shapes do not broadcast, or `other` holds an integer 0.
    """
    a, b = operands("floor_divide", input, other)
    if not a.dtype.is_floating:
        return _integers("floor_divide", a, b)
    return record(_flat_backward, (a, b), launch.floor_divide(a, b), context=(a.shape, b.shape))


def remainder(input: Tensor | float, other: Tensor | float) -> Tensor:
    """What `floor_divide` leaves, a - b floor(a / b), of the sign of `other`; parameters and errors as there."""
    a, b = operands("remainder", input, other)
    if not a.dtype.is_floating:
        return _integers("remainder", a, b)
    y = launch.remainder(a, b)
    return record(_rest_backward, (a, b), y, saved=(a, b, y) if b.requires_grad else (), context=_shapes(a, b))


def fmod(input: Tensor | float, other: Tensor | float) -> Tensor:
    """What division towards 0 leaves, a - b trunc(a / b), of the sign of `input`; parameters and errors as `floor_divide`."""
    a, b = operands("fmod", input, other)
    if not a.dtype.is_floating:
        rest = _integers("remainder", a, b)
        return where(_rounds_up(a, b, rest), sub(rest, b), rest)
    y = launch.fmod(a, b)
    return record(_rest_backward, (a, b), y, saved=(a, b, y) if b.requires_grad else (), context=_shapes(a, b))


def _rest_backward(node, dy):
    """dy for a, and for b what it was taken away how often: (a - y) / b, a whole number but for rounding."""
    db = None
    if node.needs[1]:
        a, b, y = node.saved
        db = launch.neg(launch.mul(dy, launch.round(launch.div(launch.sub(a, y), b))))
    return _back(node, dy if node.needs[0] else None, db)
