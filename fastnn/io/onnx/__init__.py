"""ONNX files: models written layer by layer, without tracing, and graphs read as modules. Needs the extra ``onnx``."""

from .graph import Graph, OnnxError, Value
from .load import load_onnx
from .model import OnnxModel
from .registry import onnx_writer
from .save import save_onnx

__all__ = ["Graph", "OnnxError", "OnnxModel", "Value", "load_onnx", "onnx_writer", "save_onnx"]
