"""The ONNX graph that layers' writers put their nodes into."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...nn.module import Module
from ..extras import require
from .registry import writer_of

OPSET = 17  # LayerNormalization's first; onnxruntime reads it since 1.12. Graphs that were read keep theirs
BATCH = "batch"  # the name of the axis whose extent is open


@dataclass(frozen=True)
class Value:
    """A tensor of the graph: what nodes take and give.

    Attributes
    ----------
    name : str
        Its name in the file.
    shape : tuple of int, str or None
        Extents; "batch" for the axis that is open, None for what is not known.
    dtype : numpy.dtype
        Its type.
    """

    name: str
    shape: tuple[int | str | None, ...]
    dtype: np.dtype

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return len(self.shape)


class OnnxError(ValueError):
    """What a model holds and ONNX files cannot; the message names the layer."""


class Graph:
    """What a writer is given: it takes nodes, constants and parameters, and calls the writers of layers within the layer.

    Parameters
    ----------
    model : Module
        Whose state's names the parameters have in the file.

    Attributes
    ----------
    opset : int
        The version of the operators: 17, or that of the file if the model was read from one.
    """

    def __init__(self, model: Module):
        self._onnx = require("onnx", extra="onnx", feature="writing ONNX files")
        require("onnx.shape_inference", extra="onnx", feature="writing ONNX files")
        self.opset: int = getattr(model, "opset", OPSET)
        self.nodes: list[Any] = []
        self.initializers: dict[str, Any] = {}
        self._constants: dict[str, Any] = {}  # what shape inference may look into
        self._layers = {id(layer): name for name, layer in reversed(list(model.named_modules(remove_duplicate=False)))}
        self._state = {id(tensor): name for name, tensor in reversed(model.named_state().items())}
        self._taken = set(self._state.values())
        self._layer = model

    @property
    def _path(self) -> str:
        """The name of the layer that is being written; empty for the model."""
        return self._layers.get(id(self._layer), "")

    # -- what writers call --

    def node(self, op: str, *inputs: Value | None, outputs: int = 1, shape: Sequence[int | str | None] | None = None,
             **attributes: Any) -> Any:
        """Adds a node.

        Parameters
        ----------
        op : str
            The operator, one of ONNX's.
        *inputs : Value or None
            What it takes; None for what is left out.
        outputs : int
            How many outputs to ask for.
        shape : sequence, optional
            The output's shape where ONNX's own inference leaves something open.
        **attributes
            The operator's attributes.

        Returns
        -------
        Value or tuple of Value
            The output; a tuple where there are several.

        Raises
        ------
        OnnxError
            If the operator does not take these inputs or attributes.
        """
        for value in inputs:
            if value is not None and not isinstance(value, Value):
                raise TypeError(f"{self._where()}: {op} is given {type(value).__name__} {value!r}, but must be given what a graph made, "
                                "such as graph.constant(...)")
        title = self._unique(f"{self._path}/{op}" if self._path else op)
        names = [self._unique(f"{title}:{k}" if outputs > 1 else f"{title}:out") for k in range(outputs)]
        node = self._onnx.helper.make_node(op, ["" if value is None else value.name for value in inputs], names, name=title,
                                           **{name: self._attribute(value) for name, value in attributes.items() if value is not None})
        results = self._inferred(node, [value for value in inputs if value is not None], shape)
        self.nodes.append(node)
        return results if outputs > 1 else results[0]

    def constant(self, value: Any, dtype: Any = None) -> Value:
        """A constant; numbers become float32 or int64 unless `dtype` says otherwise.

        Parameters
        ----------
        value : array_like
            What it holds.
        dtype : dtype, optional
            Its type, such as an input's.

        Returns
        -------
        Value
        """
        if dtype is None:
            dtype = {"f": np.float32, "i": np.int64}.get(np.asarray(value).dtype.kind)
        array = np.asarray(value, dtype)
        name = self._unique(f"{self._path}/Constant" if self._path else "Constant")
        kept = self._onnx.numpy_helper.from_array(array, name)
        self.nodes.append(self._onnx.helper.make_node("Constant", [], [name], name=f"{name}:node", value=kept))
        self._constants[name] = kept
        return Value(name, array.shape, array.dtype)

    def parameter(self, layer: Module, name: str) -> Value | None:
        """A layer's parameter or buffer, under the name that it has in the model's state dict.

        Parameters
        ----------
        layer : Module
            The layer.
        name : str
            The attribute, such as "weight". What hooks or parametrizations compute is written as it is now.

        Returns
        -------
        Value or None
            None where the layer has None there.
        """
        tensor = getattr(layer, name)
        if tensor is None:
            return None
        path = self._layers.get(id(layer), "")
        stored = self._state.get(id(tensor)) or (f"{path}.{name}" if path else name)
        array = np.ascontiguousarray(tensor.detach().numpy()).reshape(tensor.shape)
        if stored not in self.initializers:
            self._taken.add(stored)
            self.initializers[stored] = self._onnx.numpy_helper.from_array(array, stored)
        return Value(stored, array.shape, array.dtype)

    def call(self, layer: Module, *inputs: Value) -> Any:
        """What a layer within the layer computes, by its own writer.

        Parameters
        ----------
        layer : Module
            The layer.
        *inputs : Value
            What its forward takes.

        Returns
        -------
        Value or tuple of Value
            What its forward gives.

        Raises
        ------
        OnnxError
            If the layer's class has no writer, or has one but something about it cannot be written.
        """
        with self.within(layer):
            writer = writer_of(layer)
            if writer is None:
                self.refuse(f"{type(layer).__name__} has no ONNX writer; give it one: "
                            f"@fastnn.io.onnx_writer({type(layer).__name__}) on a function of (graph, layer, *inputs)")
            result = writer(self, layer, *inputs)
            if not _is_made(result):
                self.refuse(f"its writer gives {result!r}, but must give what a graph made, or a tuple of that")
            return result

    @contextlib.contextmanager
    def within(self, layer: Module) -> Iterator[None]:
        """Lets nodes and messages be named for a layer within the layer, for a writer that does that layer's work.

        Parameters
        ----------
        layer : Module
            The layer.

        Raises
        ------
        OnnxError
            If the layer has hooks that act on its forward.
        """
        before = self._layer
        self._layer = layer
        try:
            if _has_foreign_hooks(layer):
                self.refuse("it has forward hooks, which an ONNX file cannot hold; remove them first")
            yield
        finally:
            self._layer = before

    def takes(self, op: str, inputs: int, attributes: Collection[str], opset: int, may_differ: bool) -> bool:
        """Whether a node of another opset is one of this graph's, too.

        Parameters
        ----------
        op : str
            The operator.
        inputs : int
            How many it is given.
        attributes : collection of str
            Names of its attributes.
        opset : int
            The other opset.
        may_differ : bool
            Whether versions of the operator compute different things from the same.

        Returns
        -------
        bool
        """
        get = self._onnx.defs.get_schema
        try:
            theirs, ours = get(op, opset, ""), get(op, self.opset, "")
        except self._onnx.defs.SchemaError:
            return False
        if theirs.since_version == ours.since_version:
            return True
        return not may_differ and set(attributes) <= set(ours.attributes) and ours.min_input <= inputs <= ours.max_input

    def refuse(self, why: str) -> None:
        """Raises OnnxError, naming the layer that is being written.

        Parameters
        ----------
        why : str
            What an ONNX file cannot hold.
        """
        raise OnnxError(f"{self._where()}: {why}")

    def extent(self, x: Value, axis: int) -> int:
        """How many elements `x` has along an axis, for a writer that cannot do without.

        Parameters
        ----------
        x : Value
            A value.
        axis : int
            The axis.

        Returns
        -------
        int

        Raises
        ------
        OnnxError
            If that is open.
        """
        count = x.shape[axis]
        if not isinstance(count, int):
            self.refuse(f"axis {axis} of its input, whose shape is {x.shape}, must be known; save_onnx's batch_axis says which one is open")
        return count

    def reshape(self, x: Value, shape: Sequence[int | str]) -> Value:
        """`x` in another shape, of which one extent at most may be "batch" or -1.

        Parameters
        ----------
        x : Value
            What to reshape.
        shape : sequence of int or "batch"
            The extents.

        Returns
        -------
        Value
        """
        if None in shape:
            self.refuse(f"the shape {tuple(shape)} has an extent that is not known, so that nothing can be made of that shape")
        numbers = [-1 if isinstance(extent, str) else extent for extent in shape]
        return self.node("Reshape", x, self.constant(np.array(numbers, np.int64)), shape=[None if e == -1 else e for e in shape])

    # -- within --

    def claim(self, name: str) -> str:
        """Keeps a name for an input or output.

        Parameters
        ----------
        name : str
            The name.

        Returns
        -------
        str
            The same.

        Raises
        ------
        ValueError
            If a parameter or a node has it.
        """
        if name in self._taken:
            raise ValueError(f"save_onnx: an input or output is to be called {name!r}, which is a parameter's name; "
                             "give another by input_names or output_names")
        self._taken.add(name)
        return name

    def named(self, value: Value, name: str) -> Value:
        """Gives an output its name: that of the last node is renamed, since nobody reads it; another is copied by one more node,
        since an output may be an input, or be asked for twice.

        Parameters
        ----------
        value : Value
            The output.
        name : str
            The name.

        Returns
        -------
        Value
        """
        if not self.nodes or list(self.nodes[-1].output) != [value.name]:
            value = self.node("Identity", value)
        self.nodes[-1].output[0] = self.claim(name)
        return replace(value, name=name)

    def _where(self) -> str:
        return f"save_onnx: layer '{self._path}' ({type(self._layer).__name__})" if self._path else \
            f"save_onnx: {type(self._layer).__name__}"

    def _attribute(self, value: Any) -> Any:
        """Arrays as ONNX writes them."""
        return self._onnx.numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value

    def _unique(self, name: str) -> str:
        """`name`, or with a number behind it where it is taken."""
        found, k = name, 1
        while found in self._taken:
            found, k = f"{name}_{k}", k + 1
        self._taken.add(found)
        return found

    def _inferred(self, node: Any, inputs: Sequence[Value], shape: Sequence[int | str | None] | None) -> tuple[Value, ...]:
        """The node's outputs, with the shapes that onnx infers."""
        onnx = self._onnx
        types = {value.name: value_type(onnx, value) for value in inputs}
        known = {value.name: self._constants[value.name] for value in inputs if value.name in self._constants}
        try:
            schema = onnx.defs.get_schema(node.op_type, self.opset, "")
            found = onnx.shape_inference.infer_node_outputs(schema, node, types, known,
                                                            opset_imports=[onnx.helper.make_opsetid("", self.opset)])
        except Exception as error:  # the errors are onnx's own, of several kinds
            raise OnnxError(f"{self._where()}: {node.op_type} does not take its inputs or attributes: {error}") from error
        results = [_value_of(onnx, name, found.get(name), shape if k == 0 else None) for k, name in enumerate(node.output)]
        if any(value is None for value in results):
            raise OnnxError(f"{self._where()}: onnx cannot tell the output of {node.op_type}, so its shape must be given: shape=...")
        return tuple(results)


def value_type(onnx: Any, value: Value) -> Any:
    """A Value's type as ONNX writes it.

    Parameters
    ----------
    onnx : module
        The package.
    value : Value
        The value.

    Returns
    -------
    onnx.TypeProto
    """
    return onnx.helper.make_tensor_type_proto(onnx.helper.np_dtype_to_tensor_dtype(value.dtype), list(value.shape))


def _value_of(onnx: Any, name: str, kind: Any, said: Sequence | None) -> Value | None:
    """What onnx found out about an output, and the writer says; None where that is not even a rank."""
    if kind is None or not kind.tensor_type.elem_type or not (kind.tensor_type.HasField("shape") or said is not None):
        return None
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type)
    if not kind.tensor_type.HasField("shape"):
        return Value(name, tuple(said), dtype)
    extents = [d.dim_param or None if not d.HasField("dim_value") else d.dim_value for d in kind.tensor_type.shape.dim]
    inferred = tuple(e if isinstance(e, int) or e == BATCH else None for e in extents)
    return Value(name, inferred if said is None else _merged(inferred, said), dtype)


def _is_made(result: Any) -> bool:
    """Whether a writer gives Values, in tuples or not."""
    return isinstance(result, Value) or isinstance(result, tuple) and all(map(_is_made, result))


def _merged(inferred: Sequence, said: Sequence) -> tuple:
    """What the writer says, where inference found nothing."""
    if len(inferred) != len(said):
        return tuple(said)
    return tuple(theirs if ours is None else ours for theirs, ours in zip(inferred, said))


def _has_foreign_hooks(layer: Module) -> bool:
    """Whether something else than `weight_norm`, `spectral_norm` or pruning, which only compute a weight, acts on a call."""
    known = set()
    for name in ("_norms", "_pruned", "_spectral"):
        for entry in layer.__dict__.get(name, {}).values():
            known.add((entry[0] if isinstance(entry, tuple) else entry)._key)
    return any(hook.kind in ("pre", "forward") and key not in known for key, hook in layer._hooks.items())
