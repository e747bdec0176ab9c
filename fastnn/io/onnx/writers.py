"""All writers of built-in layers: importing this registers them."""

from . import write_activation, write_basic, write_conv, write_norm, write_pool, write_sequence

__all__ = ["write_activation", "write_basic", "write_conv", "write_norm", "write_pool", "write_sequence"]
