"""A module's state beside tensors (`get_extra_state`) as JSON, its arrays apart; reading it builds plain values, runs no code."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import numpy as np

from .._core import TensorBase
from ..nn.state import EXTRA_STATE
from ..ops.create import as_tensor

_ALLOWED = "tensors, arrays, numbers, text, bytes, None, and lists, tuples and dicts of these"


def is_extra(name: str) -> bool:
    """Whether an entry of a state dict is what a module's `get_extra_state` gave."""
    return name == EXTRA_STATE or name.endswith(f".{EXTRA_STATE}")


def pack(name: str, value: Any, arrays: MutableMapping[str, Any]) -> Any:
    """`value` as JSON; what is an array goes into `arrays`, under a name that begins with `name`.

    Parameters
    ----------
    name : str
        Its name in the state dict.
    value : object
        Tensors, arrays, numbers, text, bytes, None, and lists, tuples and dicts of these.
    arrays : dict
        Gets the arrays.

    Returns
    -------
    object
        Numbers, text and None as they are, lists as lists, all else as {kind: what `unpack` makes it of}.

    Raises
    ------
    TypeError
        If something else is in `value`.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list):
        return [pack(f"{name}.{k}", part, arrays) for k, part in enumerate(value)]
    if isinstance(value, tuple):
        return {"tuple": pack(name, list(value), arrays)}
    if isinstance(value, dict) and all(key is None or isinstance(key, (bool, int, float, str)) for key in value):
        return {"dict": [[key, pack(f"{name}.{key}", part, arrays)] for key, part in value.items()]}
    if isinstance(value, bytes):
        return {"bytes": _put(name, np.frombuffer(value, np.uint8), arrays)}
    if isinstance(value, (TensorBase, np.ndarray, np.generic)):
        kind = "tensor" if isinstance(value, TensorBase) else "array" if isinstance(value, np.ndarray) else "number"
        return {kind: _put(name, value, arrays)}
    raise TypeError(f"save_file: {name!r} is a {type(value).__name__}, but extra state must be made of {_ALLOWED}")


def _put(name: str, value: Any, arrays: MutableMapping[str, Any]) -> str:
    while name in arrays:
        name += "+"
    arrays[name] = value
    return name


def unpack(packed: Any, arrays: MutableMapping[str, np.ndarray]) -> Any:
    """What `pack` was given; its arrays are taken out of `arrays`.

    Parameters
    ----------
    packed : object
        What `pack` returned.
    arrays : dict
        Those of the file.

    Returns
    -------
    object
        The value.

    Raises
    ------
    ValueError, KeyError, TypeError
        If no `pack` made it.
    """
    if isinstance(packed, list):
        return [unpack(part, arrays) for part in packed]
    if not isinstance(packed, dict):
        return packed
    ((kind, held),) = packed.items()
    if kind == "tuple":
        return tuple(unpack(held, arrays))
    if kind == "dict":
        return {key: unpack(part, arrays) for key, part in held}
    array = arrays.pop(held)
    return {"tensor": as_tensor, "array": np.asarray, "number": lambda a: a[()], "bytes": np.ndarray.tobytes}[kind](array)
