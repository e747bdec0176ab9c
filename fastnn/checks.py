"""Checks of arguments: what is wrong is said where it was given, with its name, what it is, and what it may be."""

from __future__ import annotations

import inspect
import math
import numbers
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ._core import TensorBase

_MOST = 2**63 - 1  # what the engine's sizes and attributes can hold


def _index(value: Any) -> int | None:
    """`value` as an int if it is an integer that fits 64 bits, NumPy's included; bools are not."""
    if isinstance(value, (bool, np.bool_)):
        return None
    try:
        number = operator.index(value)
    except TypeError:
        return None
    return number if -_MOST <= number <= _MOST else None


def a_tensor(name: str, value: Any, argument: str = "input") -> Any:
    """`value`, which must be a tensor: asked before its shape or type is looked at.

    Parameters
    ----------
    name : str
        Who asks, in messages.
    value : Tensor
        What the user gave.
    argument : str
        Name of the argument.

    Returns
    -------
    Tensor
        The same.

    Raises
    ------
    TypeError
        If it is none.
    """
    if isinstance(value, TensorBase):
        return value
    raise TypeError(f"{name}: {argument} is a {type(value).__name__}, but must be a Tensor")


def several(name: str, value: Any, argument: str) -> Iterable:
    """`value`, which must be a tensor, as a list, or something to go through, as it is.

    Parameters
    ----------
    name : str
        Who asks, in messages.
    value : Tensor or iterable of Tensor
        What the user gave.
    argument : str
        Name of the argument.

    Returns
    -------
    iterable
        What it holds.

    Raises
    ------
    TypeError
        If it holds nothing.
    """
    if isinstance(value, TensorBase):
        return [value]
    if not isinstance(value, Iterable):
        raise TypeError(f"{name}: {argument} is {shown(value)}, but must be a Tensor or an iterable of them")
    return value


def either(name: str, given: Any, again: Any, arguments: tuple[str, str] = ("dim", "axis")) -> Any:
    """What was given under one of an argument's two names.

    Parameters
    ----------
    name : str
        Who asks, in messages.
    given, again : object
        What came under the first and under the second name; None where nothing did.
    arguments : tuple of str
        Both names.

    Returns
    -------
    object
        The one that is not None; None where neither is given.

    Raises
    ------
    TypeError
        If both are given.
    """
    if given is not None and again is not None:
        raise TypeError(f"{name}: {arguments[0]} is {given} and {arguments[1]} {again}, but they are one argument's two names")
    return given if again is None else again


def integer(name: str, argument: str, value: Any) -> int:
    """`value` as an int.

    Parameters
    ----------
    name : str
        Who asks, in messages.
    argument : str
        Name of the argument.
    value : int
        What the user gave.

    Returns
    -------
    int
        The same.

    Raises
    ------
    TypeError
        If it is not an integer.
    """
    number = value if type(value) is int and -_MOST <= value <= _MOST else _index(value)
    if number is None:
        raise TypeError(f"{name}: {argument} is {shown(value)}, but must be an integer{_size(value)}")
    return number


def integers(name: str, argument: str, value: Any) -> tuple[int, ...]:
    """`value`, an integer or a sequence of them, as a tuple; parameters as `integer`."""
    if isinstance(value, (tuple, list)):
        return tuple(integer(name, argument, v) for v in value)
    try:
        return (integer(name, argument, value),) if _index(value) is not None else integers(name, argument, list(value))
    except TypeError:
        raise TypeError(f"{name}: {argument} is {shown(value)}, but must be an integer or a sequence of them") from None


def number(name: str, value: Any) -> float:
    """`value` as a float: any number, infinities and NaN too, also as a tensor of one element.

    Parameters
    ----------
    name : str
        Its name in messages.
    value : float
        What the user gave.

    Returns
    -------
    float
        The same.

    Raises
    ------
    TypeError
        If it is none.
    """
    try:
        if not isinstance(value, (str, bytes)):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise TypeError(f"{name} is {shown(value)}, but must be a number")


def takes(name: str, function: Any, *arguments: str) -> Any:
    """`function`, which must be None or one that can be called with so many positional arguments.

    Parameters
    ----------
    name : str
        Its name in messages.
    function : callable or None
        What the user gave.
    *arguments : str
        What it is to be called with, in messages.

    Returns
    -------
    callable or None
        The same.

    Raises
    ------
    TypeError
        If it cannot be called, or not so, or is a class.
    """
    if function is None:
        return None
    if not callable(function) or isinstance(function, type):
        hint = f", an instance: {function.__name__}(...)" if isinstance(function, type) else ""
        raise TypeError(f"{name} is {function!r}, but must be callable{hint}")
    try:
        signature = inspect.signature(function)
    except ValueError:  # of a function in C that tells none
        return function
    try:
        signature.bind(*arguments)
    except TypeError as error:
        given = getattr(function, "__name__", type(function).__name__)
        raise TypeError(f"{name} is {given}, but must take ({', '.join(arguments)}): {error}") from None
    return function


MOST_LAYERS = 2**16  # that a constructor makes one by one: many more fill the memory before anybody can see what is wrong


def whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """`value` as an int of at least `least` and, where it is given, at most `most`.

    Parameters
    ----------
    name : str
        Its name in messages.
    value : int
        What the user gave.
    least : int
        Smallest allowed value.
    most : int, optional
        Greatest allowed value.

    Returns
    -------
    int
        The same.

    Raises
    ------
    ValueError
        If it is not an integer, too small or too great.
    """
    number = _index(value)
    if number is not None and most is not None and number > most:
        raise ValueError(f"{name} is {shown(value)}, but must be at most {most}")
    if number is None or number < least:
        raise ValueError(f"{name} is {shown(value)}, but must be an integer of at least {least}{_size(value)}")
    return number


def pair(name: str, argument: str, value: int | Sequence[int], least: int | None = None) -> tuple[int, int]:
    """`value`, an integer or two (height and width), as two.

    Parameters
    ----------
    name : str
        Who asks, in messages.
    argument : str
        Name of the argument.
    value : int or pair of int
        What the user gave.
    least : int, optional
        Smallest allowed value; without it any will do.

    Returns
    -------
    tuple of int
        Two.

    Raises
    ------
    TypeError
        If it is neither an integer nor a pair of integers.
    ValueError
        If one is too small.
    """
    if type(value) is tuple and len(value) == 2 and type(value[0]) is type(value[1]) is int:
        two = value  # the common case, kept cheap: layers come here at every call
    else:
        two = tuple(_index(v) for v in (value if isinstance(value, (tuple, list)) else (value, value)))
        if len(two) != 2 or None in two:
            raise TypeError(f"{name}: {argument} is {shown(value)}, but must be an integer or a pair of integers")
    if max(two) > _MOST:
        raise ValueError(f"{name}: {argument} is {shown(value)}, but must be at most 2**63 - 1")
    if least is not None and min(two) < least:
        raise ValueError(f"{name}: {argument} is {shown(value)}, but must be at least {least}")
    return two


def real(name: str, value: Any, least: float = -math.inf, most: float = math.inf) -> float:
    """`value` as a float from `least` to `most`.

    Parameters
    ----------
    name : str
        Its name in messages.
    value : float
        What the user gave.
    least, most : float
        The allowed range, both ends included.

    Returns
    -------
    float
        The same.

    Raises
    ------
    ValueError
        If it is not a real number, not finite, or out of range.
    """
    if not _is_real(value) or not least <= value <= most:
        bounds = (f" from {least:g} to {most:g}" if math.isfinite(least) and math.isfinite(most)
                  else f" of at least {least:g}" if math.isfinite(least) else "")
        raise ValueError(f"{name} is {shown(value)}, but must be {_a_number(value)}{bounds}")
    return float(value)


def positive(name: str, value: Any) -> float:
    """`value` as a float above 0.

    Parameters
    ----------
    name : str
        Its name in messages.
    value : float
        What the user gave.

    Returns
    -------
    float
        The same.

    Raises
    ------
    ValueError
        If it is not a real number, not finite, or not above 0.
    """
    if not _is_real(value) or value <= 0:
        raise ValueError(f"{name} is {shown(value)}, but must be {_a_number(value)} above 0")
    return float(value)


def among(name: str, value: Any, allowed: Iterable[str]) -> str:
    """`value`, one of the words that are allowed.

    Parameters
    ----------
    name : str
        Its name in messages.
    value : str
        What the user gave.
    allowed : iterable of str
        The words.

    Returns
    -------
    str
        The same.

    Raises
    ------
    ValueError
        If it is another; the message lists all.
    """
    words = list(allowed)
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"{name} is {shown(value)}, but must be one of {', '.join(words)}")
    return value


def are_numbers(values: Any, count: int) -> bool:
    """Whether `values` is a tuple or list of `count` finite real numbers."""
    return isinstance(values, (tuple, list)) and len(values) == count and all(map(_is_real, values))


def named_pairs(owner: str, argument: str, values: Any) -> list[tuple[str, Any]]:
    """The (name, value) pairs of a mapping, or of an iterable of such pairs.

    Parameters
    ----------
    owner, argument : str
        Who asks and what for, in messages.
    values : object
        What the user gave.

    Returns
    -------
    list of (str, object)
        The pairs.

    Raises
    ------
    TypeError
        If `values` is neither a mapping nor pairs.
    """
    try:
        return [(name, value) for name, value in (values.items() if hasattr(values, "items") else values)]
    except (TypeError, ValueError):
        raise TypeError(f"{owner}: {argument} is {values!r}, but must be a mapping of names, or pairs of a name and a "
                        "value") from None


def is_device(value: Any) -> bool:
    """Whether `value` names a device, as "cpu", "cuda:0" and PyTorch's device objects do, rather than a type."""
    name = getattr(value, "type", value)
    return isinstance(name, str) and name.partition(":")[0] in ("cpu", "cuda", "mps", "xpu", "meta")


def check_device(name: str, value: Any) -> None:
    """Raises where a device is not the CPU, or None.

    Parameters
    ----------
    name : str
        Who asks, in messages.
    value : object
        What the user gave.

    Raises
    ------
    ValueError
        If it is another.
    """
    if value is not None and str(value).partition(":")[0] != "cpu":
        raise ValueError(f"{name}: device is {str(value)!r}, but must be 'cpu' or None: fastnn computes on the CPU")


def array_like(name: str, value: Any) -> None:
    """Raises where `value` gives elements by number but has no iterator: nothing says where it ends, NumPy would not either;
    and where elements are masked, as the mask would be lost.

    Parameters
    ----------
    name : str
        Its name in messages.
    value : object
        What the user gave.

    Raises
    ------
    TypeError
        If it is such an object, as data sets with ``__getitem__`` and ``__len__`` are, or a masked array that masks something.
    """
    kind = type(value)
    if isinstance(value, np.ndarray):
        if kind is not np.ndarray and isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
            raise TypeError(f"{name} is a masked array, whose mask would be lost: give value.filled(number), or leave masked "
                            "elements out by value.compressed()")
        return
    ways = ("__iter__", "__array__", "__array_interface__", "__dlpack__")
    if hasattr(kind, "__getitem__") and not any(hasattr(value, way) for way in ways) and not _has_buffer(value):
        raise TypeError(f"{name} is a {kind.__name__}, which gives elements one by one, but must be an array; "
                        "fastnn.data.ArrayDataset.from_samples makes arrays of a data set's samples")


def _has_buffer(value: Any) -> bool:
    """Whether `value` shows its memory, as ``memoryview`` and ctypes' arrays do."""
    try:
        memoryview(value)
    except TypeError:
        return False
    return True


def shown(value: Any) -> str:
    """For messages: `value` as Python writes it, cut where that is long.

    Parameters
    ----------
    value : object
        What the user gave.

    Returns
    -------
    str
        Of at most some 100 characters.
    """
    try:
        text = " ".join(map(str.strip, repr(value).splitlines()))
    except ValueError:  # an integer of thousands of digits, which Python does not write
        return f"an integer of {value.bit_length():,} bits"
    return text if len(text) <= 100 else f"{text[:90]} ..."


def _size(value: Any) -> str:
    """For messages: what is wrong with an integer that is one."""
    return ", below 2**63" if isinstance(value, int) and value > _MOST else ""


def _a_number(value: Any) -> str:
    """For messages: what is wrong with a number that is one."""
    return "a finite number" if isinstance(value, numbers.Real) and not isinstance(value, bool) and not _is_real(value) else "a number"


def _is_real(value: Any) -> bool:
    """Whether `value` is a finite real number that a float can hold, NumPy's included; bools are not."""
    try:
        return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond them
        return False
