"""Writers of containers, of linear layers and shapes, of dropout and of the named networks' blocks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ... import nn
from ...models import resnet, vgg
from .graph import BATCH, Graph, Value
from .registry import onnx_writer

# ---- containers: what is in them writes itself ----


@onnx_writer(nn.Sequential)
def _sequential(graph: Graph, layer: Any, *inputs: Any) -> Any:
    for part in layer:
        result = graph.call(part, *inputs)
        inputs = (result,)
    return inputs[0]


@onnx_writer(nn.Concat)
def _concat(graph: Graph, layer: Any, x: Value) -> Value:
    return concat(graph, [graph.call(part, x) for part in layer.children()], layer.dim)


@onnx_writer(nn.Residual)
def _residual(graph: Graph, layer: Any, x: Value) -> Value:
    y = graph.call(layer.module, x)
    if isinstance(layer.shortcut, nn.Module):
        return graph.node("Add", y, graph.call(layer.shortcut, x))
    return graph.node("Add", y, x if layer.shortcut == "identity" else _extended(graph, x, y))


def _extended(graph: Graph, x: Value, y: Value) -> Value:
    """`x` thinned out and with channels of 0, to be of y's shape: shortcut A."""
    steps = [-(-n // m) for n, m in zip(x.shape[2:], y.shape[2:])]
    if any(step > 1 for step in steps):
        axes = list(range(2, x.ndim))
        parts = [[0] * len(axes), [np.iinfo(np.int64).max] * len(axes), axes, steps]
        x = graph.node("Slice", x, *map(graph.constant, parts))
    more = y.shape[1] - x.shape[1]
    if more == 0:
        return x
    pads = [0] * (2 * x.ndim)
    pads[x.ndim + 1] = more
    return graph.node("Pad", x, graph.constant(pads))


@onnx_writer(nn.WeightNorm, nn.DropConnect)
def _wrapped(graph: Graph, layer: Any, *inputs: Value) -> Any:
    return graph.call(layer.module, *inputs)


# ---- linear layers ----


@onnx_writer(nn.Linear)
def _linear(graph: Graph, layer: Any, x: Value) -> Value:
    return linear(graph, x, graph.parameter(layer, "weight"), graph.parameter(layer, "bias"))


def linear(graph: Graph, x: Value, weight: Value, bias: Value | None) -> Value:
    """x W^T + b, as `fastnn.functional.linear`.

    Parameters
    ----------
    graph : Graph
        Where it is written.
    x, weight : Value
        (..., I) and (O, I).
    bias : Value or None
        (O,).

    Returns
    -------
    Value
        (..., O)
    """
    if x.ndim == 2:
        return graph.node("Gemm", x, weight, bias, transB=1)
    y = graph.node("MatMul", x, graph.node("Transpose", weight, perm=[1, 0]))
    return y if bias is None else graph.node("Add", y, bias)


@onnx_writer(nn.Bilinear)
def _bilinear(graph: Graph, layer: Any, a: Value, b: Value) -> Value:
    """y_o = a W_o b: a row times all matrices (..., 1, O J), then rows (..., O, J) times b."""
    weight = graph.node("Transpose", graph.parameter(layer, "weight"), perm=[1, 0, 2])
    wide = graph.node("MatMul", a, graph.reshape(weight, (layer.in1_features, layer.out_features * layer.in2_features)))
    rows = split_axis(graph, wide, wide.ndim - 1, (layer.out_features, layer.in2_features))
    y = graph.node("MatMul", rows, graph.node("Unsqueeze", b, graph.constant([-1])))
    y = graph.node("Squeeze", y, graph.constant([-1]))
    bias = graph.parameter(layer, "bias")
    return y if bias is None else graph.node("Add", y, bias)


# ---- shapes ----


def split_axis(graph: Graph, x: Value, axis: int, extents: tuple[int, ...]) -> Value:
    """`x` with an axis made into several.

    Parameters
    ----------
    graph : Graph
        Where it is written.
    x : Value
        What to reshape; one axis at most is open.
    axis : int
        The axis, from 0.
    extents : tuple of int
        What it becomes; their product is its extent.

    Returns
    -------
    Value
    """
    return graph.reshape(x, (*x.shape[:axis], *extents, *x.shape[axis + 1:]))


def concat(graph: Graph, parts: list[Value], axis: int) -> Value:
    """The parts joined along an axis; a single one as it is.

    Parameters
    ----------
    graph : Graph
        Where it is written.
    parts : list of Value
        At least one.
    axis : int
        The axis.

    Returns
    -------
    Value
    """
    return graph.node("Concat", *parts, axis=axis) if len(parts) > 1 else parts[0]


@onnx_writer(nn.Flatten)
def _flatten(graph: Graph, layer: Any, x: Value) -> Value:
    first, last = layer.start_dim % max(x.ndim, 1), layer.end_dim % max(x.ndim, 1)
    if (first, last) == (1, x.ndim - 1):
        return graph.node("Flatten", x)
    merged = x.shape[first:last + 1]
    if BATCH in merged and len(merged) > 1:  # the only open one, whatever it is times the others
        return graph.node("Reshape", x, graph.constant([*x.shape[:first], -1, *x.shape[last + 1:]]))
    whole = merged[0] if len(merged) == 1 else math.prod(merged)
    return graph.reshape(x, (*x.shape[:first], whole, *x.shape[last + 1:]))


@onnx_writer(nn.Unflatten)
def _unflatten(graph: Graph, layer: Any, x: Value) -> Value:
    axis, extents = layer.dim % x.ndim, list(layer.unflattened_size)
    count = graph.extent(x, axis)
    if -1 in extents:
        extents[extents.index(-1)] = count // -math.prod(extents)
    return split_axis(graph, x, axis, tuple(extents))


# ---- what does nothing in evaluation mode ----


@onnx_writer(nn.Identity, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.GaussianNoise,
             nn.ActivityRegularization)
def _nothing(graph: Graph, layer: Any, x: Value) -> Value:
    return x


@onnx_writer(nn.Dropout)
def _dropout(graph: Graph, layer: Any, x: Value) -> Value:
    return x if layer.inverted else graph.node("Mul", x, graph.constant(1 - layer.p, x.dtype))


# ---- the named networks ----


def _chain(graph: Graph, x: Value, *layers: nn.Module) -> Value:
    for layer in layers:
        x = graph.call(layer, x)
    return x


def _joined(graph: Graph, layer: Any, x: Value, y: Value) -> Value:
    """A block's end: the shortcut is added, then comes the activation."""
    shortcut = x if layer.downsample is None else graph.call(layer.downsample, x)
    return graph.call(layer.relu, graph.node("Add", y, shortcut))


@onnx_writer(resnet.BasicBlock)
def _basic_block(graph: Graph, layer: Any, x: Value) -> Value:
    return _joined(graph, layer, x, _chain(graph, x, layer.conv1, layer.bn1, layer.relu, layer.conv2, layer.bn2))


@onnx_writer(resnet.Bottleneck)
def _bottleneck(graph: Graph, layer: Any, x: Value) -> Value:
    y = _chain(graph, x, layer.conv1, layer.bn1, layer.relu, layer.conv2, layer.bn2, layer.relu, layer.conv3, layer.bn3)
    return _joined(graph, layer, x, y)


@onnx_writer(resnet.ResNet)
def _resnet(graph: Graph, layer: Any, x: Value) -> Value:
    y = _chain(graph, x, layer.conv1, layer.bn1, layer.relu, layer.maxpool, layer.layer1, layer.layer2, layer.layer3, layer.layer4,
               layer.avgpool)
    return graph.call(layer.fc, graph.node("Flatten", y))


@onnx_writer(resnet.CifarResNet)
def _cifar_resnet(graph: Graph, layer: Any, x: Value) -> Value:
    y = _chain(graph, x, layer.conv1, layer.bn1, layer.relu, layer.layer1, layer.layer2, layer.layer3, layer.avgpool)
    return graph.call(layer.fc, graph.node("Flatten", y))


@onnx_writer(vgg.ConvNet)
def _conv_net(graph: Graph, layer: Any, x: Value) -> Value:
    return graph.call(layer.classifier, graph.node("Flatten", _chain(graph, x, layer.features, layer.avgpool)))
