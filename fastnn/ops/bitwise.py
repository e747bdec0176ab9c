"""Logic of integers bit by bit, of bools as of truth values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .create import as_tensor, bool_
from .math import _integers, logical_not
from .operands import constant, operands

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor"]


def _bits(name: str, a: Any, b: Any) -> Tensor:
    a, b = operands(name, a, b)
    if a.dtype.is_floating:
        raise TypeError(f"{name}: arguments are {a.dtype}, but must be integers or bools")
    return _integers(name.removeprefix("bitwise_"), a, b)


def bitwise_and(input: Tensor | int, other: Tensor | int) -> Tensor:
    """The bits that both have; of bools whether both are true.

    Parameters
    ----------
    input, other : Tensor or int
        Integers or bools; shapes that broadcast together.

    Returns
    -------
    Tensor
        The broadcast shape.

    Raises
    ------
    TypeError
        If an argument is floating.
    """
    return _bits("bitwise_and", input, other)


def bitwise_or(input: Tensor | int, other: Tensor | int) -> Tensor:
    """The bits that one or both have; see `bitwise_and`."""
    return _bits("bitwise_or", input, other)


def bitwise_xor(input: Tensor | int, other: Tensor | int) -> Tensor:
    """The bits that exactly one has; see `bitwise_and`."""
    return _bits("bitwise_xor", input, other)


def bitwise_not(input: Tensor) -> Tensor:
    """All bits turned over, of a bool the other one; see `bitwise_and`."""
    x = as_tensor(input)
    if x.dtype.is_floating:
        raise TypeError(f"bitwise_not: input is {x.dtype}, but must hold integers or bools")
    return logical_not(x) if x.dtype is bool_ else _bits("bitwise_xor", x, constant(255 if x.dtype.name == "uint8" else -1,
                                                                                    x.dtype))
