"""Files: weights as safetensors, models as ONNX, atomic writing, optional packages."""

from .checkpoint import load_checkpoint, save_checkpoint
from .convert import convert
from .describe import describe, read_array
from .extras import require
from .files import atomic_path, write_array, write_atomic
from .onnx import load_onnx, onnx_writer, save_onnx
from .weights import load_file, load_model, read_metadata, save_file, save_model

__all__ = ["atomic_path", "convert", "describe", "load_checkpoint", "load_file", "load_model", "load_onnx", "onnx_writer",
           "read_array", "read_metadata", "require", "save_checkpoint", "save_file", "save_model", "save_onnx", "write_array",
           "write_atomic"]
