"""How a network remembers the call that made it, so that a file can."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np


def named(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gives the models that `function` makes an attribute ``architecture``: its name and the arguments of the call.

    Parameters
    ----------
    function : callable
        Returns a Module; its arguments can be written as JSON.

    Returns
    -------
    callable
        The same function otherwise.
    """

    @functools.wraps(function)
    def build(*args: Any, **kwargs: Any) -> Any:
        model = function(*args, **kwargs)
        bound = inspect.signature(function).bind(*args, **kwargs)
        bound.apply_defaults()
        config = {name: _plain(value) for name, value in bound.arguments.items()}
        model.architecture = {"name": function.__name__, "config": config}
        return model

    return build


def _plain(value: Any) -> Any:
    """`value` as JSON has it: NumPy's numbers as Python's, sequences as lists."""
    if isinstance(value, (tuple, list)):
        return [_plain(part) for part in value]
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
