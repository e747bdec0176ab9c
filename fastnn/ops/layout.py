"""Memory formats under PyTorch's names. The engine chooses its own layout: they say what one tensor's memory is to be."""

from __future__ import annotations

import enum
from typing import Any

__all__ = ["MemoryFormat", "channels_last", "contiguous_format", "format_wanted", "preserve_format"]


class MemoryFormat(enum.Enum):
    """How elements lie: in C order, in N, H, W, C order, or as they do already."""

    contiguous_format = "contiguous_format"
    channels_last = "channels_last"
    preserve_format = "preserve_format"

    def __repr__(self) -> str:
        return f"fastnn.{self.value}"


contiguous_format, channels_last, preserve_format = MemoryFormat


def format_wanted(name: str, value: Any, rank: int | None = None) -> MemoryFormat | None:
    """`value`, a memory format or None.

    Parameters
    ----------
    name : str
        Who asks, in messages.
    value : MemoryFormat or None
        What the user gave.
    rank : int, optional
        How many axes the tensor has that is to lie so.

    Returns
    -------
    MemoryFormat or None
        The same.

    Raises
    ------
    TypeError
        If it is something else.
    ValueError
        If it is `channels_last` and the tensor has another number of axes than four.
    """
    if value is not None and not isinstance(value, MemoryFormat):
        raise TypeError(f"{name}: memory_format is {value!r}, but must be fastnn.channels_last, fastnn.contiguous_format, "
                        "fastnn.preserve_format or None")
    if value is channels_last and rank not in (None, 4):
        raise ValueError(f"{name}: memory_format is {value!r}, which has four axes, but the tensor has {rank}")
    return value
