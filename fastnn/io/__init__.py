"""Files: weights as safetensors, atomic writing, optional packages."""

from .extras import require
from .files import atomic_path, write_atomic
from .weights import load_file, load_model, read_metadata, save_file, save_model

__all__ = ["atomic_path", "load_file", "load_model", "read_metadata", "require", "save_file", "save_model",
           "write_atomic"]
