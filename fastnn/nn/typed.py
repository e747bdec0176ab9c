"""What gives layers with parameters PyTorch's arguments ``device`` and ``dtype``."""

from __future__ import annotations

import functools
import inspect
import re
from typing import Any, TypeVar

from .._core import as_dtype
from ..checks import check_device
from .module import Module

__all__ = ["typed"]

_Layer = TypeVar("_Layer", bound=type[Module])
_TEXT = """device : None or "cpu", optional
    There is no other.
dtype : dtype, optional
    Type of parameters and buffers, float32 or float64; first values are drawn in float32.
"""


def typed(layer: _Layer) -> _Layer:
    """Lets a class of modules be made with ``device`` and ``dtype``; its text and its signature say so.

    Parameters
    ----------
    layer : type
        The class; its ``__init__`` makes parameters in float32.

    Returns
    -------
    type
        The same.
    """
    make = layer.__init__
    signature = inspect.signature(make)

    @functools.wraps(make)
    def __init__(self, *arguments: Any, device: Any = None, dtype: Any = None, **options: Any):
        title = type(self).__name__
        check_device(title, device)
        if dtype is not None and not as_dtype(dtype).is_floating:
            raise TypeError(f"{title}: dtype is {dtype!r}, but must be float32 or float64")
        make(self, *arguments, **options)
        if dtype is not None:
            self.to(dtype=dtype)

    more = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Any)
            for name in ("device", "dtype")]
    __init__.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *more])
    layer.__init__ = __init__
    layer.__doc__ = _documented(inspect.cleandoc(layer.__doc__ or ""))
    return layer


def _documented(text: str) -> str:
    """A class's text with the two arguments behind its others."""
    parameters = re.search(r"^Parameters\n-+\n(?:.+\n?)*", text, re.M)
    if parameters is None:
        return text
    return text[:parameters.end()].rstrip("\n") + "\n" + _TEXT + text[parameters.end():]
