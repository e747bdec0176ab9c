"""Reading an ONNX file: a graph that is checked, then a module that runs it."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import numpy as np

from ..extras import require
from .model import Input, Node, OnnxModel
from .operators import OPERATORS, operator_of

OPSETS = range(7, 26)  # what the table's functions know
_PLAIN = ("", "ai.onnx")


def load_onnx(path: str | os.PathLike) -> OnnxModel:
    """Read an ONNX file as a module, which computes what the file says and can be trained.

    Nothing in a file runs as code: its nodes are looked up in a closed table of operators. Weights that lie in files of their own
    are read where these lie in the same folder or below it.

    Parameters
    ----------
    path : str or path-like
        The file, from fastnn or elsewhere: opsets 7 to 25, float32 or float64.

    Returns
    -------
    OnnxModel
        In evaluation mode. Real initializers of one axis or more are parameters, under their names; numbers without axes and the
        statistics of batch normalisation are buffers. Files tell what is computed in inference: in training mode, too, dropout
        drops nothing, and batch normalisation takes the file's statistics.

    Raises
    ------
    ImportError
        If the extra ``onnx`` is not installed.
    ValueError
        If the file is not a complete ONNX file or holds what is not offered, naming the node, what it is and what is allowed.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> model = fastnn.io.load_onnx("lenet5.onnx")
    >>> logits = model(fastnn.zeros(1, 1, 28, 28))
    """
    onnx = require("onnx", extra="onnx", feature="reading ONNX files")
    shown = os.fspath(path)
    proto = _parsed(onnx, shown)
    opset = _opset(shown, proto)
    graph = proto.graph
    if proto.functions:
        raise ValueError(f"{shown}: it defines functions of its own; put their nodes into the graph: onnx.inliner.inline_local_functions")
    if graph.sparse_initializer:
        raise ValueError(f"{shown}: it has sparse initializers, but they must be dense")
    arrays = {kept.name: _array(onnx, f"{shown}: initializer {kept.name!r}", kept) for kept in graph.initializer}
    nodes = [_node(onnx, shown, number, node, opset) for number, node in enumerate(graph.node)]
    inputs = [_input(onnx, shown, given) for given in graph.input if given.name not in arrays]
    _check_names(shown, nodes, {given.name for given in inputs} | set(arrays), [value.name for value in graph.output])
    return OnnxModel(nodes, arrays, inputs, [value.name for value in graph.output], opset).eval()


def onnx_contents(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """An ONNX file's weights, and what is written beside them.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    dict of str to numpy.ndarray
        Its initializers.
    dict
        JSON-ready: ``producer``, ``opset``, ``inputs`` and ``outputs`` (type and shape by name), ``operators`` (how many nodes of
        each), ``not_offered`` (those that `load_onnx` does not know) and the file's own entries.

    Raises
    ------
    ImportError, ValueError, OSError
        As `load_onnx`.
    """
    onnx = require("onnx", extra="onnx", feature="reading ONNX files")
    shown = os.fspath(path)
    proto = _parsed(onnx, shown)
    graph = proto.graph
    arrays = {kept.name: _array(onnx, f"{shown}: initializer {kept.name!r}", kept) for kept in graph.initializer}
    kinds = Counter(map(_kind, graph.node))
    return arrays, {
        "producer": f"{proto.producer_name} {proto.producer_version}".strip(),
        "opset": {entry.domain or "ai.onnx": entry.version for entry in proto.opset_import},
        "inputs": {value.name: _told(onnx, value) for value in graph.input if value.name not in arrays},
        "outputs": {value.name: _told(onnx, value) for value in graph.output}, "operators": dict(sorted(kinds.items())),
        "not_offered": sorted(kind for kind in kinds if operator_of(kind) is None),
        **{entry.key: entry.value for entry in proto.metadata_props}}


def _told(onnx: Any, value: Any) -> str:
    """An input's or output's type and shape in words."""
    kind = value.type.tensor_type
    extents = [str(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?" for d in kind.shape.dim]
    return f"{_type_name(onnx, kind.elem_type)} ({', '.join(extents)})"


def _parsed(onnx: Any, shown: str) -> Any:
    """The file's message, checked by onnx, with what lies in other files of its folder."""
    require("onnx.checker", extra="onnx", feature="reading ONNX files")
    with open(shown, "rb") as stream:
        content = stream.read()
    try:
        proto = onnx.load_model_from_string(content)
        split = [kept for kept in proto.graph.initializer if kept.data_location == onnx.TensorProto.EXTERNAL]
        folder = os.path.dirname(os.path.abspath(shown))
        for kept in split:
            _check_place(folder, next((entry.value for entry in kept.external_data if entry.key == "location"), ""))
        onnx.checker.check_model(shown if split else proto)
        for kept in split:
            onnx.external_data_helper.load_external_data_for_tensor(kept, folder)
            kept.data_location = onnx.TensorProto.DEFAULT
    except (MemoryError, OSError):
        raise
    except Exception as error:  # protobuf's and onnx's errors are of several kinds
        raise ValueError(f"{shown}: not a complete ONNX file ({str(error).strip() or type(error).__name__})") from error
    return proto


def _check_place(folder: str, location: str) -> None:
    """Weights are read from regular files in the folder alone, wherever links lead; older releases of onnx follow them."""
    place = os.path.realpath(os.path.join(folder, location))
    if os.path.isabs(location) or not place.startswith(os.path.join(os.path.realpath(folder), "")) or not os.path.isfile(place):
        raise ValueError(f"weights are said to lie in {location!r}, but must lie in a file in the folder of the graph")


def _opset(shown: str, proto: Any) -> int:
    """The version of ONNX's operators that the file is written in."""
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    found = next((versions[name] for name in _PLAIN if name in versions), None)
    if found not in OPSETS:
        raise ValueError(f"{shown}: its opset is {found}, but must be {OPSETS[0]} to {OPSETS[-1]}; "
                         "onnx.version_converter.convert_version writes another")
    return found


def _array(onnx: Any, what: str, kept: Any) -> np.ndarray:
    """A tensor of the file, of a type that tensors here have."""
    from .read_shape import TYPES

    if kept.data_type not in TYPES:
        raise ValueError(f"{what} has type {_type_name(onnx, kept.data_type)}, but must be {', '.join(TYPES.values())}")
    if kept.data_location == onnx.TensorProto.EXTERNAL:  # onnx would read it from wherever it says
        raise ValueError(f"{what} lies in a file of its own, but only initializers may")
    try:
        return np.array(onnx.numpy_helper.to_array(kept))
    except Exception as error:  # sizes that do not fit the data
        raise ValueError(f"{what} cannot be read ({error})") from error


def _type_name(onnx: Any, number: int) -> str:
    names = onnx.TensorProto.DataType
    return names.Name(number).lower() if number in names.values() else f"number {number}"


def _node(onnx: Any, shown: str, number: int, node: Any, opset: int) -> Node:
    """A node of the table, or an error that says what is wrong with it."""
    title = f"{shown}: node {node.name or number!r} ({node.op_type})"
    kind = _kind(node)
    operator = operator_of(kind)
    if operator is None:
        whose = f" of domain {node.domain!r}" if node.domain not in _PLAIN else ""
        raise ValueError(f"{title}: operator{whose} is not known; allowed are {', '.join(sorted(OPERATORS))}")
    attributes = {a.name: _attribute(onnx, title, a) for a in node.attribute}
    unknown = sorted(set(attributes) - operator.attributes)
    if unknown:
        raise ValueError(f"{title}: attribute {unknown[0]!r} is not known; allowed are {', '.join(sorted(operator.attributes)) or 'none'}")
    if not operator.least <= len(node.input) <= operator.most or "" in node.input[:operator.least]:
        raise ValueError(f"{title}: it has {len(node.input)} inputs, but must have {operator.least} to {operator.most}")
    asked = {"opset": opset, "outputs": len(node.output)}
    attributes |= {name: asked[name] for name in operator.asks}
    return Node(title, kind, tuple(node.input), tuple(node.output), attributes)


def _kind(node: Any) -> str:
    """A node's operator, with its domain before it where that is not ONNX's own."""
    return node.op_type if node.domain in _PLAIN else f"{node.domain}.{node.op_type}"


def _attribute(onnx: Any, title: str, attribute: Any) -> Any:
    """An attribute's value: a number, text, a list of these, or an array."""
    kinds = onnx.AttributeProto
    what = f"{title}: attribute {attribute.name!r}"
    if attribute.type == kinds.TENSOR:
        return _array(onnx, what, attribute.t)
    if attribute.type == kinds.STRING:
        return attribute.s.decode("utf-8", "replace")
    if attribute.type == kinds.STRINGS:
        return [text.decode("utf-8", "replace") for text in attribute.strings]
    if attribute.type in (kinds.FLOAT, kinds.INT):
        return onnx.helper.get_attribute_value(attribute)
    if attribute.type in (kinds.FLOATS, kinds.INTS):
        return list(onnx.helper.get_attribute_value(attribute))
    raise ValueError(f"{what} is a graph or of another kind, but must be a number, text, a list of these or a tensor")


def _input(onnx: Any, shown: str, given: Any) -> Input:
    """What the file says of an input."""
    from .read_shape import TYPES

    kind = given.type.tensor_type
    if not given.type.HasField("tensor_type") or kind.elem_type not in TYPES:
        number = kind.elem_type if given.type.HasField("tensor_type") else 0
        raise ValueError(f"{shown}: input {given.name!r} has type {_type_name(onnx, number)}, but must be a tensor of "
                         f"{', '.join(TYPES.values())}")
    extents = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in kind.shape.dim)
    return Input(given.name, TYPES[kind.elem_type], extents if kind.HasField("shape") else None)


def _check_names(shown: str, nodes: list[Node], known: set[str], outputs: list[str]) -> None:
    """Nodes take what was there before them, and all outputs are made."""
    known = known | {""}
    for node in nodes:
        missing = [name for name in node.inputs if name not in known]
        if missing:
            raise ValueError(f"{node.title}: its input {missing[0]!r} is made by nothing before it")
        known |= set(node.outputs)
    missing = [name for name in outputs if name not in known]
    if missing or not outputs:
        raise ValueError(f"{shown}: output {missing[0]!r} is made by nothing" if missing else f"{shown}: it has no output")
