"""Writing a model as an ONNX file, layer by layer: nothing is traced."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..._core import TensorBase
from ...checks import integer
from ...ops.create import as_tensor, zeros
from ...tensor import Tensor, no_grad
from ..extras import require
from ..files import write_atomic
from ..weights import as_module
from .graph import BATCH, Graph, OnnxError, Value, value_type

_MOST_BYTES = 2**31 - 2**20  # of a protobuf message, which has little else


def save_onnx(model: Any, path: str | os.PathLike, inputs: Any, *, batch_axis: int | None = 0,
              input_names: Sequence[str] | None = None, output_names: Sequence[str] | None = None) -> None:
    """Write a model as an ONNX file (opset 17; one that `load_onnx` read keeps its own), completely or not at all.

    Each layer is written by a function for its class, see `onnx_writer`; what the file computes is what the model computes in
    evaluation mode. Parameters keep the names and values that they have in ``model.state_dict()``. The model is run once, in
    evaluation mode, on zeros or on what is given, which gives lazy layers their shape, too.

    Parameters
    ----------
    model : fastnn.nn.Module
        The model.
    path : str or path-like
        The file to create or replace, usually ``*.onnx``.
    inputs : tuple of int, Tensor or numpy.ndarray, or list of these
        The input's shape, such as (1, 1, 28, 28), or an example of it (one of integers for a model that takes integers); a list
        with an entry for each where the model takes several.
    batch_axis : int or None
        The axis of every input that is the batch, whose extent the file leaves open; None keeps all extents as they are.
    input_names, output_names : sequence of str, optional
        Names in the file; by default "input" (or "input_0", "input_1", ...) and "output".

    Raises
    ------
    ImportError
        If the extra ``onnx`` is not installed.
    ValueError
        If a layer has no writer or something about it has no words in ONNX, naming the layer; or if names or shapes do not fit.
    TypeError
        If an argument is of another kind.
    OSError
        If the file cannot be written: an older one is untouched.

    Examples
    --------
    >>> fastnn.io.save_onnx(fastnn.models.lenet5(), "lenet5.onnx", (1, 1, 28, 28))
    """
    onnx = require("onnx", extra="onnx", feature="writing ONNX files")
    examples = _examples(as_module("save_onnx", model), inputs)
    names = _names("input", input_names, len(examples))
    expected = _run(model, examples)
    outputs_called = _names("output", output_names, len(expected))
    if set(names) & set(outputs_called):
        raise ValueError(f"save_onnx: input and output names share {sorted(set(names) & set(outputs_called))}, but must differ")
    graph = Graph(model)
    values = [_input(graph, name, x, batch_axis) for name, x in zip(names, examples)]
    results = _flat(graph.call(model, *values))
    _compare(graph, results, expected)
    results = _called(graph, results, outputs_called)
    write_atomic(path, _content(onnx, model, graph, values, results))


def _examples(model: Any, inputs: Any) -> list[Tensor]:
    """What to run the model on."""
    is_shape = isinstance(inputs, (tuple, list)) and bool(inputs) and all(isinstance(n, (int, np.integer)) for n in inputs)
    several = inputs if isinstance(inputs, (tuple, list)) and not is_shape else [inputs]
    if not several:
        raise ValueError("save_onnx: inputs is empty, but must be a shape, an example, or a list of these")
    dtype = next((p.dtype for p in model.parameters() if p.dtype.is_floating), None)
    return [_example(given, dtype) for given in several]


def _example(given: Any, dtype: Any) -> Tensor:
    """Zeros of a shape, or the example."""
    if isinstance(given, (TensorBase, np.ndarray)):
        return as_tensor(given)
    if isinstance(given, (tuple, list)) and given and all(isinstance(n, (int, np.integer)) and n > 0 for n in given):
        return zeros(*map(int, given), dtype=dtype)
    raise TypeError(f"save_onnx: inputs has {given!r}, but must be a shape of positive integers such as (1, 1, 28, 28), a Tensor or "
                    "an array, or a list of these")


def _names(kind: str, given: Sequence[str] | None, count: int) -> list[str]:
    """Names for so many inputs or outputs."""
    if given is None:
        return [kind] if count == 1 else [f"{kind}_{k}" for k in range(count)]
    names = [given] if isinstance(given, str) else list(given)
    if len(names) != count or len(set(names)) != count or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"save_onnx: {kind}_names is {given!r}, but must hold {count} different texts")
    return names


def _run(model: Any, examples: Sequence[Tensor]) -> list[Tensor]:
    """The model's outputs in evaluation mode; every module is in its own mode afterwards."""
    from ...train.mode import mode

    with no_grad(), mode(model, training=False):
        return _flat(model(*examples))


def _flat(outputs: Any) -> list[Any]:
    """Outputs without the tuples around them, and without None (weights that attention was not asked for)."""
    if not isinstance(outputs, (tuple, list)):
        return [] if outputs is None else [outputs]
    return [part for output in outputs for part in _flat(output)]


def _input(graph: Graph, name: str, x: Tensor, batch_axis: int | None) -> Value:
    """An input of the graph."""
    shape: list[int | str] = list(x.shape)
    if batch_axis is not None:
        axis = integer("save_onnx", "batch_axis", batch_axis)
        if not -x.ndim <= axis < x.ndim:
            raise ValueError(f"save_onnx: batch_axis is {batch_axis}, but an input has the shape {tuple(x.shape)}")
        shape[axis] = BATCH
    return Value(graph.claim(name), tuple(shape), np.dtype(str(x.dtype)))


def _compare(graph: Graph, results: Sequence[Any], expected: Sequence[Tensor]) -> None:
    """Refuses where writers give something of another shape or type than the model, as a user's may."""
    written = [value for value in results if isinstance(value, Value)]
    fits = len(written) == len(results) == len(expected) and all(
        value.ndim == x.ndim and value.dtype == np.dtype(str(x.dtype))
        and all(not isinstance(n, int) or n == m for n, m in zip(value.shape, x.shape)) for value, x in zip(written, expected))
    if not fits:
        told = [f"{value.dtype} {value.shape}" if isinstance(value, Value) else repr(value) for value in results]
        raise OnnxError(f"save_onnx: the writers give {', '.join(told) or 'nothing'}, but the model gives "
                        f"{', '.join(f'{x.dtype} {tuple(x.shape)}' for x in expected)}")


def _called(graph: Graph, results: Sequence[Value], names: Sequence[str]) -> list[Value]:
    """The outputs under their names."""
    return [graph.named(value, name) for value, name in zip(results, names)]


def _content(onnx: Any, model: Any, graph: Graph, inputs: Sequence[Value], outputs: Sequence[Value]) -> bytes:
    """The whole file, checked."""
    import fastnn

    size = sum(len(kept.raw_data) for kept in graph.initializers.values())
    if size > _MOST_BYTES:
        raise ValueError(f"save_onnx: the weights have {size:,} bytes, but an ONNX file holds at most {_MOST_BYTES:,}")
    helper = onnx.helper
    described = [[helper.make_value_info(value.name, value_type(onnx, value)) for value in values] for values in (inputs, outputs)]
    body = helper.make_graph(graph.nodes, type(model).__name__, *described, list(graph.initializers.values()))
    opsets = [helper.make_opsetid("", graph.opset)]
    made = helper.make_model(body, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets),
                             producer_name="fastnn", producer_version=fastnn.__version__)
    if getattr(model, "architecture", None) is not None:
        helper.set_model_props(made, {"fastnn.architecture": json.dumps(model.architecture)})
    content = made.SerializeToString()
    require("onnx.checker", extra="onnx", feature="writing ONNX files").check_model(content, full_check=True)
    return content
