"""Checks that data and training share."""

from __future__ import annotations

import operator
from typing import Any


def whole(name: str, value: Any, least: int) -> int:
    """`value` as an int of at least `least`.

    Parameters
    ----------
    name : str
        Its name in messages.
    value : int
        What the user gave.
    least : int
        Smallest allowed value.

    Returns
    -------
    int
        The same.

    Raises
    ------
    ValueError
        If it is not an integer or too small.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}, expected an integer of at least {least}")
    return number
