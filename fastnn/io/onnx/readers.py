"""All operators that can be read: importing this fills their table."""

from . import read_layers, read_math, read_recurrent, read_resize, read_shape

__all__ = ["read_layers", "read_math", "read_recurrent", "read_resize", "read_shape"]
