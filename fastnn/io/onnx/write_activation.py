"""Writers of activations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ... import nn
from ...ops import activation as functions
from .graph import Graph, Value
from .registry import onnx_writer, writer_of
from .write_basic import split_axis
from .write_conv import cut

_SIMPLE = {nn.ReLU: "Relu", nn.Sigmoid: "Sigmoid", nn.Tanh: "Tanh", nn.Softsign: "Softsign", nn.SELU: "Selu", nn.Sign: "Sign"}


def _simple(op: str) -> Callable[[Graph, Any, Value], Value]:
    """A writer of one node without attributes."""
    return lambda graph, layer, x: graph.node(op, x)


for _class, _op in _SIMPLE.items():
    onnx_writer(_class)(_simple(_op))


@onnx_writer(nn.LeakyReLU)
def _leaky_relu(graph: Graph, layer: Any, x: Value) -> Value:
    return graph.node("LeakyRelu", x, alpha=layer.negative_slope)


@onnx_writer(nn.RReLU)
def _rrelu(graph: Graph, layer: Any, x: Value) -> Value:
    return graph.node("LeakyRelu", x, alpha=(layer.lower + layer.upper) / 2)


@onnx_writer(nn.ELU)
def _elu(graph: Graph, layer: Any, x: Value) -> Value:
    return graph.node("Elu", x, alpha=layer.alpha)


@onnx_writer(nn.CELU)
def _celu(graph: Graph, layer: Any, x: Value) -> Value:
    """Celu is for float32 alone; x above 0, alpha elu(x / alpha) below."""
    scaled = graph.node("Div", x, graph.constant(layer.alpha, x.dtype))
    return graph.node("Mul", graph.node("Elu", scaled, alpha=1.0), graph.constant(layer.alpha, x.dtype)) if layer.alpha > 0 else \
        graph.refuse(f"alpha is {layer.alpha}, but must be above 0")


@onnx_writer(nn.PReLU)
def _prelu(graph: Graph, layer: Any, x: Value) -> Value:
    slope = graph.parameter(layer, "weight")
    if layer.num_parameters > 1 and x.ndim > 2:
        slope = graph.node("Unsqueeze", slope, graph.constant(list(range(1, x.ndim - 1))))
    return graph.node("PRelu", x, slope)


@onnx_writer(nn.GELU)
def _gelu(graph: Graph, layer: Any, x: Value) -> Value:
    """x (1 + erf(x / sqrt(2))) / 2, or its approximation; opset 17 has no Gelu."""
    if layer.approximate == "tanh":
        cube = graph.node("Mul", graph.node("Mul", x, x), x)
        inner = graph.node("Add", x, graph.node("Mul", cube, graph.constant(0.044715, x.dtype)))
        part = graph.node("Tanh", graph.node("Mul", inner, graph.constant(math.sqrt(2 / math.pi), x.dtype)))
    else:
        part = graph.node("Erf", graph.node("Mul", x, graph.constant(math.sqrt(0.5), x.dtype)))
    half = graph.node("Mul", x, graph.constant(0.5, x.dtype))
    return graph.node("Mul", half, graph.node("Add", part, graph.constant(1.0, x.dtype)))


@onnx_writer(nn.SiLU)
def _silu(graph: Graph, layer: Any, x: Value) -> Value:
    return graph.node("Mul", x, graph.node("Sigmoid", x))


@onnx_writer(nn.Mish)
def _mish(graph: Graph, layer: Any, x: Value) -> Value:
    return graph.node("Mul", x, graph.node("Tanh", graph.node("Softplus", x)))


@onnx_writer(nn.Softplus)
def _softplus(graph: Graph, layer: Any, x: Value) -> Value:
    scaled = graph.node("Mul", x, graph.constant(layer.beta, x.dtype))
    smooth = graph.node("Div", graph.node("Softplus", scaled), graph.constant(layer.beta, x.dtype))
    return graph.node("Where", graph.node("Greater", scaled, graph.constant(layer.threshold, x.dtype)), x, smooth)


@onnx_writer(nn.LogSigmoid)
def _log_sigmoid(graph: Graph, layer: Any, x: Value) -> Value:
    return graph.node("Neg", graph.node("Softplus", graph.node("Neg", x)))


@onnx_writer(nn.Tanhshrink)
def _tanhshrink(graph: Graph, layer: Any, x: Value) -> Value:
    return graph.node("Sub", x, graph.node("Tanh", x))


@onnx_writer(nn.GLU)
def _glu(graph: Graph, layer: Any, x: Value) -> Value:
    axis = layer.dim % x.ndim
    middle = graph.extent(x, axis) // 2
    return graph.node("Mul", cut(graph, x, axis, 0, middle), graph.node("Sigmoid", cut(graph, x, axis, middle, 2 * middle)))


def _clip(graph: Graph, x: Value, low: float, high: float) -> Value:
    return graph.node("Clip", x, graph.constant(low, x.dtype), graph.constant(high, x.dtype))


@onnx_writer(nn.ReLU6)
def _relu6(graph: Graph, layer: Any, x: Value) -> Value:
    return _clip(graph, x, 0.0, 6.0)


@onnx_writer(nn.Hardtanh)
def _hardtanh(graph: Graph, layer: Any, x: Value) -> Value:
    return _clip(graph, x, layer.min_val, layer.max_val)


@onnx_writer(nn.Hardsigmoid)
def _hardsigmoid(graph: Graph, layer: Any, x: Value) -> Value:
    return graph.node("HardSigmoid", x, alpha=1 / 6, beta=0.5)


@onnx_writer(nn.Hardswish)
def _hardswish(graph: Graph, layer: Any, x: Value) -> Value:
    return graph.node("Mul", x, graph.node("HardSigmoid", x, alpha=1 / 6, beta=0.5))


@onnx_writer(nn.Softshrink)
def _softshrink(graph: Graph, layer: Any, x: Value) -> Value:
    return graph.node("Shrink", x, lambd=layer.lambd, bias=layer.lambd)


@onnx_writer(nn.Hardshrink)
def _hardshrink(graph: Graph, layer: Any, x: Value) -> Value:
    return graph.node("Shrink", x, lambd=layer.lambd, bias=0.0)


@onnx_writer(nn.Threshold)
def _threshold(graph: Graph, layer: Any, x: Value) -> Value:
    above = graph.node("Greater", x, graph.constant(layer.threshold, x.dtype))
    return graph.node("Where", above, x, graph.constant(layer.value, x.dtype))


@onnx_writer(nn.Gaussian)
def _gaussian(graph: Graph, layer: Any, x: Value) -> Value:
    return graph.node("Exp", graph.node("Mul", graph.node("Mul", x, x), graph.constant(-0.5, x.dtype)))


@onnx_writer(nn.Step)
def _step(graph: Graph, layer: Any, x: Value) -> Value:
    zero = graph.constant(0.0, x.dtype)
    reached = graph.node("Or", graph.node("Greater", x, zero), graph.node("Equal", x, zero))
    return graph.node("Where", reached, graph.constant(1.0, x.dtype), zero)


@onnx_writer(nn.Softmax)
def _softmax(graph: Graph, layer: Any, x: Value) -> Value:
    return graph.node("Softmax", x, axis=layer.dim)


@onnx_writer(nn.Softmax2d)
def _softmax2d(graph: Graph, layer: Any, x: Value) -> Value:
    return graph.node("Softmax", x, axis=-3)


@onnx_writer(nn.LogSoftmax)
def _log_softmax(graph: Graph, layer: Any, x: Value) -> Value:
    return graph.node("LogSoftmax", x, axis=layer.dim)


@onnx_writer(nn.Softmin)
def _softmin(graph: Graph, layer: Any, x: Value) -> Value:
    return graph.node("Softmax", graph.node("Neg", x), axis=layer.dim)


@onnx_writer(nn.Maxout)
def _maxout(graph: Graph, layer: Any, x: Value) -> Value:
    axis = layer.dim % x.ndim
    groups = split_axis(graph, x, axis, (graph.extent(x, axis) // layer.pieces, layer.pieces))
    return graph.node("ReduceMax", groups, axes=[axis + 1], keepdims=0)


# ---- activations that are known by a name or a function ----

_LAYER_OF = {
    functions.identity: nn.Identity, functions.relu: nn.ReLU, functions.leaky_relu: nn.LeakyReLU, functions.relu6: nn.ReLU6,
    functions.elu: nn.ELU, functions.selu: nn.SELU, functions.celu: nn.CELU, functions.gelu: nn.GELU,
    functions.ACTIVATIONS["gelu_tanh"]: lambda: nn.GELU("tanh"), functions.silu: nn.SiLU, functions.hardswish: nn.Hardswish,
    functions.mish: nn.Mish, functions.softplus: nn.Softplus, functions.softsign: nn.Softsign, functions.sigmoid: nn.Sigmoid,
    functions.hardsigmoid: nn.Hardsigmoid, functions.logsigmoid: nn.LogSigmoid, functions.tanh: nn.Tanh,
    functions.hardtanh: nn.Hardtanh, functions.tanhshrink: nn.Tanhshrink, functions.softshrink: nn.Softshrink,
    functions.hardshrink: nn.Hardshrink, functions.gaussian: nn.Gaussian, functions.sign: nn.Sign, functions.step: nn.Step,
    functions.glu: nn.GLU, functions.ACTIVATIONS["softmax"]: nn.Softmax, functions.ACTIVATIONS["softmin"]: nn.Softmin,
    functions.ACTIVATIONS["log_softmax"]: nn.LogSoftmax}


def activated(graph: Graph, function: Any, x: Value) -> Value:
    """What an activation that is given as a function or a layer makes of `x`.

    Parameters
    ----------
    graph : Graph
        Where it is written.
    function : callable
        One of `fastnn.functional.ACTIVATIONS`' functions, or a Module.
    x : Value
        Its input.

    Returns
    -------
    Value
    """
    if isinstance(function, nn.Module):
        return graph.call(function, x)
    if function not in _LAYER_OF:
        graph.refuse(f"its activation is {function!r}, but must be one of fastnn.functional.ACTIVATIONS or a layer")
    layer = _LAYER_OF[function]()
    return writer_of(layer)(graph, layer, x)


@onnx_writer(nn.Activation)
def _activation(graph: Graph, layer: Any, x: Value) -> Value:
    return activated(graph, layer.function, x)
