"""The closed table of operators that graphs may be made of, each a small function of tensors."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, TypeVar

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Operator(NamedTuple):
    """What is known of one operator.

    Attributes
    ----------
    function : callable
        Takes the inputs by position and the attributes by name, and gives the output or a tuple of them.
    attributes : frozenset of str
        Names that a node's attributes may have.
    least, most : int
        How many inputs there may be.
    plain : frozenset of int
        Places of inputs that are wanted as NumPy arrays, as shapes and axes are.
    statistics : frozenset of int
        Places of inputs that are not trained.
    asks : frozenset of str
        What else the function wants to know: "opset", the file's; "outputs", how many the node has.
    """

    function: Callable[..., Any]
    attributes: frozenset[str]
    least: int
    most: int
    plain: frozenset[int]
    statistics: frozenset[int]
    asks: frozenset[str]


OPERATORS: dict[str, Operator] = {}
_MANY = 1 << 20


def reads(*names: str, plain: Collection[int] = (), statistics: Collection[int] = ()) -> Callable[[_Function], _Function]:
    """Puts a function into the table; a decorator.

    Parameters
    ----------
    *names : str
        ONNX's names of the operator.
    plain, statistics : collection of int
        See `Operator`.

    Returns
    -------
    callable
        Takes a function and gives it back: its positional arguments are the inputs, those with a default may be left out;
        its keyword-only arguments are the attributes, and `opset` and `outputs`.
    """
    def register(function: _Function) -> _Function:
        given = inspect.signature(function).parameters.values()
        inputs = [p for p in given if p.kind is p.POSITIONAL_OR_KEYWORD]
        words = {p.name for p in given if p.kind is p.KEYWORD_ONLY}
        most = _MANY if any(p.kind is p.VAR_POSITIONAL for p in given) else len(inputs)
        least = sum(p.default is p.empty for p in inputs)
        asks = frozenset(words & {"opset", "outputs"})
        made = Operator(function, frozenset(words - asks), least, most, frozenset(plain), frozenset(statistics), asks)
        OPERATORS.update(dict.fromkeys(names, made))
        return function

    return register


def operator_of(name: str) -> Operator | None:
    """What is known of an operator.

    Parameters
    ----------
    name : str
        ONNX's name.

    Returns
    -------
    Operator or None
        None where it is not offered.
    """
    from . import readers  # noqa: F401  fills the table; its functions stand on all of fastnn.functional

    return OPERATORS.get(name)


def only(name: str, value: Any, *allowed: Any) -> None:
    """Raises where an attribute has a value that is not offered.

    Parameters
    ----------
    name : str
        The attribute.
    value : object
        What the file says.
    *allowed : object
        What may be said.

    Raises
    ------
    ValueError
        If it says something else.
    """
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}, but must be {' or '.join(map(repr, allowed))}")
