"""Writers of normalisation layers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ... import nn
from .graph import Graph, Value
from .registry import onnx_writer
from .write_conv import batched


def _affine(graph: Graph, layer: Any, extent: Any, dtype: np.dtype) -> tuple[Value, Value]:
    """Weight and bias, which ONNX wants in any case."""
    weight, bias = graph.parameter(layer, "weight"), graph.parameter(layer, "bias")
    return (graph.constant(np.ones(extent), dtype) if weight is None else weight,
            graph.constant(np.zeros(extent), dtype) if bias is None else bias)


def _by_statistics(graph: Graph, layer: Any, x: Value) -> Value:
    """With the running statistics."""
    statistics = graph.parameter(layer, "running_mean"), graph.parameter(layer, "running_var")
    return graph.node("BatchNormalization", x, *_affine(graph, layer, layer.num_features, x.dtype), *statistics, epsilon=layer.eps)


@onnx_writer(nn.BatchNorm1d, nn.BatchNorm2d)
def _batch_norm(graph: Graph, layer: Any, x: Value) -> Value:
    if layer.track_running_stats:
        return _by_statistics(graph, layer, x)
    axes = [d for d in range(x.ndim) if d != 1]
    return _along_channels(graph, layer, _standardised(graph, x, axes, layer.eps))


def _standardised(graph: Graph, x: Value, axes: list[int], eps: float) -> Value:
    """(x - mean) / sqrt(var + eps) over some axes."""
    centred = graph.node("Sub", x, graph.node("ReduceMean", x, axes=axes, keepdims=1))
    variance = graph.node("ReduceMean", graph.node("Mul", centred, centred), axes=axes, keepdims=1)
    return graph.node("Div", centred, graph.node("Sqrt", graph.node("Add", variance, graph.constant(eps, x.dtype))))


def _along_channels(graph: Graph, layer: Any, x: Value) -> Value:
    """x times weight plus bias, (C,) each, along axis 1."""
    for op, name in (("Mul", "weight"), ("Add", "bias")):
        value = graph.parameter(layer, name)
        if value is not None:
            axes = list(range(1, x.ndim - 1))
            x = graph.node(op, x, graph.node("Unsqueeze", value, graph.constant(axes)) if axes else value)
    return x


@onnx_writer(nn.InstanceNorm1d, nn.InstanceNorm2d)
def _instance_norm(graph: Graph, layer: Any, x: Value) -> Value:
    def write(x: Value) -> Value:
        if layer.track_running_stats:
            return _by_statistics(graph, layer, x)
        return graph.node("InstanceNormalization", x, *_affine(graph, layer, layer.num_features, x.dtype), epsilon=layer.eps)

    return batched(graph, x, layer._ranks[0] - 2, write)


@onnx_writer(nn.GroupNorm)
def _group_norm(graph: Graph, layer: Any, x: Value) -> Value:
    """Groups as channels of an instance normalisation: opset 17 has no other."""
    groups = layer.num_groups
    rows = graph.reshape(x, (x.shape[0], groups, math.prod(x.shape[1:]) // groups))
    plain = graph.constant(np.ones(groups), x.dtype), graph.constant(np.zeros(groups), x.dtype)
    y = graph.reshape(graph.node("InstanceNormalization", rows, *plain, epsilon=layer.eps), x.shape)
    return _along_channels(graph, layer, y)


@onnx_writer(nn.LayerNorm)
def _layer_norm(graph: Graph, layer: Any, x: Value) -> Value:
    weight, bias = _affine(graph, layer, layer.normalized_shape, x.dtype)
    return graph.node("LayerNormalization", x, weight, bias, axis=-len(layer.normalized_shape), epsilon=layer.eps)


@onnx_writer(nn.RMSNorm)
def _rms_norm(graph: Graph, layer: Any, x: Value) -> Value:
    eps = np.finfo(x.dtype).eps if layer.eps is None else layer.eps
    axes = list(range(-len(layer.normalized_shape), 0))
    square = graph.node("ReduceMean", graph.node("Mul", x, x), axes=axes, keepdims=1)
    y = graph.node("Div", x, graph.node("Sqrt", graph.node("Add", square, graph.constant(eps, x.dtype))))
    weight = graph.parameter(layer, "weight")
    return y if weight is None else graph.node("Mul", y, weight)


@onnx_writer(nn.LocalResponseNorm, nn.CrossMapLRN2d)
def _local_response_norm(graph: Graph, layer: Any, x: Value) -> Value:
    if layer.size % 2 == 0:
        graph.refuse(f"size is {layer.size}, but must be odd: ONNX puts the odd channel of an even window on the other side")
    return graph.node("LRN", x, size=layer.size, alpha=layer.alpha, beta=layer.beta, bias=layer.k)
