"""A graph that was read, as a module."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..._core import TensorBase, as_dtype
from ...nn.module import Module, Parameter
from ...ops.create import tensor, zeros
from ...tensor import Tensor, no_grad
from .graph import Graph, Value
from .operators import operator_of
from .registry import onnx_writer

_MOST_PLANS = 8  # sets of input shapes for which what they decide is kept
_OF_SHAPES = ("Shape", "Size")
_DEEPEST = 32  # parts of a name that make modules


class Input(NamedTuple):
    """What a file says of an input.

    Attributes
    ----------
    name : str
        Its name.
    dtype : str
        Its type.
    shape : tuple of int, str or None
        Extents, names of open ones, or None; None in its place where the file says nothing.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None


class Node(NamedTuple):
    """A node of the graph.

    Attributes
    ----------
    title : str
        File, name and operator, for messages.
    op : str
        The operator, one of the table.
    inputs, outputs : tuple of str
        Names of values; empty for what is left out.
    attributes : dict
        By name.
    """

    title: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


class _Scope(Module):
    """A part of the names of weights: "conv1" of "conv1.weight"."""


class OnnxModel(Module):
    """What an ONNX file computes; `fastnn.io.load_onnx` makes it.

    Parameters
    ----------
    nodes : sequence of Node
        In an order in which they can run.
    arrays : mapping of str to numpy.ndarray
        The file's initializers.
    inputs : sequence of Input
        What forward takes.
    outputs : sequence of str
        Names of what it gives.
    opset : int
        The version of the operators.

    Attributes
    ----------
    inputs : tuple of Input
        What forward takes.
    outputs : tuple of str
        Names of what it gives.
    opset : int
        The version of the operators.
    """

    def __init__(self, nodes: Sequence[Node], arrays: Mapping[str, np.ndarray], inputs: Sequence[Input], outputs: Sequence[str],
                 opset: int):
        super().__init__()
        self.opset = opset
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self._nodes = tuple(nodes)
        self._ends = _last_uses(self._nodes, self.outputs)
        self._plans: OrderedDict[tuple, _Plan] = OrderedDict()
        trained, statistics = _uses(self._nodes)
        self._constants: dict[str, np.ndarray] = {}
        self._places: dict[str, tuple[Module, str]] = {}
        for name, array in arrays.items():
            if array.dtype.kind == "f" and name in trained | statistics:
                self._keep(name, array, bool(array.ndim) and name not in statistics)
            else:
                self._constants[name] = array
        self._is_decided = _decided(self._nodes, set(self._constants))

    def _keep(self, name: str, array: np.ndarray, is_trained: bool) -> None:
        """A parameter or buffer under its dotted name, or one without dots where that cannot be."""
        scope, last = self._scope(name.split("."))
        if scope is None or not last or hasattr(scope, last):
            scope, last = self, name.replace(".", "_")
            while not last or hasattr(self, last):
                last += "_"
        value = tensor(array)
        scope.register_parameter(last, Parameter(value)) if is_trained else scope.register_buffer(last, value)
        self._places[name] = scope, last

    def _scope(self, parts: list[str]) -> tuple[Module | None, str]:
        """The module that a name's last part goes into; None where the parts before it cannot be modules."""
        scope: Module = self
        for part in parts[:-1]:
            if len(parts) > _DEEPEST or not part or (part not in scope._modules and hasattr(scope, part)):
                return None, ""
            if part not in scope._modules:
                scope.add_module(part, _Scope())
            scope = scope._modules[part]
        return scope, parts[-1]

    def forward(self, *inputs: Tensor) -> Any:
        """The file's inputs in order -> its output, or a tuple where it has several."""
        values = self._values(inputs, self._ends)
        results = tuple(self._plan(inputs).as_tensor(name, values[name]) for name in self.outputs)
        return results if len(results) > 1 else results[0]

    def shapes(self, *inputs: Tensor) -> dict[str, tuple[int, ...]]:
        """The shapes of all values that the inputs make.

        Parameters
        ----------
        *inputs : Tensor
            What forward takes.

        Returns
        -------
        dict of str to tuple of int
            By the values' names.
        """
        return {name: tuple(value.shape) for name, value in self._values(inputs).items() if name}

    def _values(self, inputs: Sequence[Tensor], ends: Sequence[Sequence[str]] = ()) -> dict[str, Any]:
        """All values by name, but for those that nobody needs behind a node: `ends` says which."""
        self._check(inputs)
        plan = self._plan(inputs)
        values: dict[str, Any] = dict(zip((given.name for given in self.inputs), inputs))
        values |= self._constants
        values |= {name: getattr(scope, last) for name, (scope, last) in self._places.items()}
        values[""] = None
        for number, node in enumerate(self._nodes):
            plan.run(number, node, values, self._is_decided[number])
            for name in ends[number] if ends else ():
                del values[name]
        return values

    def _check(self, inputs: Sequence[Any]) -> None:
        if len(inputs) != len(self.inputs):
            raise TypeError(f"OnnxModel: {len(inputs)} inputs are given, but it takes {len(self.inputs)}: "
                            f"{', '.join(given.name for given in self.inputs)}")
        for given, x in zip(self.inputs, inputs):
            if not isinstance(x, TensorBase):
                raise TypeError(f"OnnxModel: {given.name} is a {type(x).__name__}, but must be a Tensor")
            if given.shape is not None and len(given.shape) != x.ndim:
                raise ValueError(f"OnnxModel: {given.name} has shape {tuple(x.shape)}, but must have {len(given.shape)} axes, "
                                 f"{given.shape}")
            if str(x.dtype) != given.dtype and not (x.dtype.is_floating and given.dtype.startswith("float")):
                raise TypeError(f"OnnxModel: {given.name} has dtype {x.dtype}, but must be {given.dtype}")

    def _plan(self, inputs: Sequence[Tensor]) -> _Plan:
        """What is kept for inputs of these shapes."""
        key = tuple((tuple(x.shape), str(x.dtype)) for x in inputs)
        plan = self._plans.setdefault(key, _Plan())
        self._plans.move_to_end(key)
        if len(self._plans) > _MOST_PLANS:
            self._plans.popitem(last=False)
        return plan

    def to(self, *target: Any, **options: Any) -> OnnxModel:
        """As any module's; the file's constants follow the weights."""
        result = super().to(*target, **options)
        kinds = {str(t.dtype) for t in (*self.parameters(), *self.buffers())}
        if len(kinds) == 1:
            kind = np.dtype(kinds.pop())
            self._constants = {name: _as_kind(array, kind) for name, array in self._constants.items()}
            self._nodes = tuple(node._replace(attributes={name: _as_kind(value, kind) for name, value in node.attributes.items()})
                                if node.op in ("Constant", "ConstantOfShape") else node for node in self._nodes)
        self._plans.clear()
        return result

    def __getstate__(self) -> dict[str, Any]:
        """Without what the next call computes anew."""
        return {**super().__getstate__(), "_plans": OrderedDict()}

    def extra_repr(self) -> str:
        given = ", ".join(f"{given.name} {given.dtype} {given.shape}" for given in self.inputs)
        return f"{given} -> {', '.join(self.outputs)}; {len(self._nodes)} nodes"


def _as_kind(value: Any, kind: np.dtype) -> Any:
    """A real array in another type; what is none as it is."""
    return value.astype(kind) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value


class _Plan:
    """What input shapes decide, computed at their first call: shapes, constants, and these as tensors.

    Such values are NumPy arrays. Later calls take them from here, so that a step which is captured reads no tensor.
    """

    def __init__(self) -> None:
        self.results: dict[int, dict[str, np.ndarray]] = {}
        self.tensors: dict[str, Tensor] = {}

    def run(self, number: int, node: Node, values: dict[str, Any], is_decided: bool) -> None:
        """Puts a node's outputs into `values`."""
        results = self.results.get(number)
        if results is None:
            results = self._computed(node, [values[name] for name in node.inputs])
            if is_decided:
                results = self.results[number] = {name: _as_array(value) for name, value in results.items()}
            elif node.op in _OF_SHAPES:
                results = {name: tensor(value) for name, value in results.items()}
        values.update(results)

    def _computed(self, node: Node, given: list[Any]) -> dict[str, Any]:
        operator = operator_of(node.op)
        inputs = [_as_array(value) if k in operator.plain else self.as_tensor(name, value)
                  for k, (name, value) in enumerate(zip(node.inputs, given))]
        try:
            made = operator.function(*inputs, **node.attributes)
        except (ValueError, TypeError, IndexError, KeyError, AttributeError, ArithmeticError, RuntimeError) as error:
            kind = type(error) if type(error) in (TypeError, IndexError) else ValueError
            raise kind(f"{node.title}: {error}") from error
        results = made if isinstance(made, tuple) else (made,)
        if len(node.outputs) > len(results) and any(node.outputs[len(results):]):
            raise ValueError(f"{node.title}: {len(node.outputs)} outputs are asked for, but there are at most {len(results)}")
        return {name: value for name, value in zip(node.outputs, results) if name}

    def as_tensor(self, name: str, value: Any) -> Any:
        """A decided value as a tensor, which is kept; other values as they are."""
        if not isinstance(value, np.ndarray):
            return value
        if name not in self.tensors:
            self.tensors[name] = tensor(value)
        return self.tensors[name]


def _as_array(value: Any) -> Any:
    """A tensor's elements."""
    return value.detach().numpy() if isinstance(value, TensorBase) else value


def _decided(nodes: Sequence[Node], constants: set[str]) -> list[bool]:
    """Which nodes' outputs the inputs' shapes decide: what is computed from constants and from shapes that no element decides."""
    decided, unknown = {"", *constants}, set()  # names; those of values whose shape hangs on elements
    results = []
    for node in nodes:
        plain = operator_of(node.op).plain
        hangs = node.op == "NonZero" or any(name in unknown or (k in plain and name not in decided) for k, name in enumerate(node.inputs))
        is_decided = decided.issuperset(node.inputs) or (node.op in _OF_SHAPES and not hangs)
        results.append(is_decided)
        if is_decided:
            decided |= set(node.outputs)
        elif hangs and node.op not in _OF_SHAPES:
            unknown |= set(node.outputs)
    return results


def _last_uses(nodes: Sequence[Node], outputs: Sequence[str]) -> list[list[str]]:
    """For each node the values that nobody reads behind it: their memory is free again."""
    last: dict[str, int] = {}
    for number, node in enumerate(nodes):
        last |= {name: number for name in (*node.inputs, *node.outputs) if name}
    ends: list[list[str]] = [[] for _ in nodes]
    for name, number in last.items():
        if name not in outputs:
            ends[number].append(name)
    return ends


def _uses(nodes: Sequence[Node]) -> tuple[set[str], set[str]]:
    """Names that nodes compute with, and those of statistics."""
    computed, statistics = set(), set()
    for node in nodes:
        operator = operator_of(node.op)
        for k, name in enumerate(node.inputs):
            if k in operator.statistics:
                statistics.add(name)
            elif k not in operator.plain:
                computed.add(name)
    return computed, statistics


@onnx_writer(OnnxModel)
def _write(graph: Graph, layer: OnnxModel, *inputs: Value) -> Any:
    """The nodes as they were, with the weights as they are."""
    with no_grad():
        known = layer.shapes(*(zeros(*(n if isinstance(n, int) else 1 for n in x.shape), dtype=as_dtype(str(x.dtype))) for x in inputs))
    values: dict[str, Value | None] = {"": None, **dict(zip((given.name for given in layer.inputs), inputs))}
    values |= {name: graph.constant(array, array.dtype) for name, array in layer._constants.items()}
    values |= {name: graph.parameter(*place) for name, place in layer._places.items()}
    for node in layer._nodes:
        asks = operator_of(node.op).asks
        if not graph.takes(node.op, len(node.inputs), node.attributes.keys() - asks, layer.opset, "opset" in asks):
            graph.refuse(f"it was read from a file of opset {layer.opset}, whose {node.op} is not that of opset {graph.opset} here; "
                         "save it by itself, or convert the file by onnx.version_converter")
        made = _written(graph, node, values, [None] * len(known[node.outputs[0]]) if node.outputs[0] else None)
        values |= {name: value for name, value in zip(node.outputs, made) if name}
    results = tuple(values[name] for name in layer.outputs)
    return results if len(results) > 1 else results[0]


def _written(graph: Graph, node: Node, values: Mapping[str, Value | None], shape: Sequence[None] | None) -> tuple[Value, ...]:
    """A node's outputs in another graph."""
    operator = operator_of(node.op)
    attributes = {name: value for name, value in node.attributes.items() if name not in operator.asks}
    if node.op == "Constant":
        array = operator.function(**attributes)
        return (graph.constant(array, array.dtype),)
    made = graph.node(node.op, *(values[name] for name in node.inputs), outputs=len(node.outputs), shape=shape, **attributes)
    return made if isinstance(made, tuple) else (made,)
