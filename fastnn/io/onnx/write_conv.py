"""Writers of convolutions, of padding, and of layers of sliding windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ... import nn
from .graph import Graph, Value
from .registry import onnx_writer
from .write_basic import concat

_LAST = np.iinfo(np.int64).max  # behind the end of every axis, for Slice


def batched(graph: Graph, x: Value, axes: int, write: Callable[[Value], Value]) -> Value:
    """What `write` makes of (N, C, ...), also for an input without N.

    Parameters
    ----------
    graph : Graph
        Where it is written.
    x : Value
        (N, C, ...) or (C, ...) with `axes` axes behind C.
    axes : int
        1 or 2.
    write : callable
        Takes and gives a Value with N.

    Returns
    -------
    Value
    """
    if x.ndim == axes + 2:
        return write(x)
    if x.ndim != axes + 1:
        graph.refuse(f"the input has shape {x.shape}, but must have {axes + 1} or {axes + 2} axes")
    return graph.node("Squeeze", write(graph.node("Unsqueeze", x, graph.constant([0]))), graph.constant([0]))


def cut(graph: Graph, x: Value, axis: int, start: int, stop: int) -> Value:
    """`x` from `start` to `stop` along an axis; negative ones count from the end.

    Parameters
    ----------
    graph : Graph
        Where it is written.
    x : Value
        What to slice.
    axis, start, stop : int
        The axis and the range.

    Returns
    -------
    Value
    """
    return graph.node("Slice", x, graph.constant([start]), graph.constant([stop]), graph.constant([axis]))


# ---- convolutions ----


@onnx_writer(nn.Conv1d, nn.Conv2d)
def _conv(graph: Graph, layer: Any, x: Value) -> Value:
    return batched(graph, x, layer._axes, lambda x: _conv_batch(graph, layer, x))


def _conv_batch(graph: Graph, layer: Any, x: Value) -> Value:
    top, bottom, left, right = layer._edges()
    if layer.padding_mode != "zeros":
        x = padded(graph, x, (left, right, top, bottom)[:2 * layer._axes], layer.padding_mode)
        top = bottom = left = right = 0
    pads = (top, left, bottom, right) if layer._axes == 2 else (left, right)
    return graph.node("Conv", x, graph.parameter(layer, "weight"), graph.parameter(layer, "bias"), kernel_shape=layer.kernel_size,
                      strides=layer.stride, pads=pads, dilations=layer.dilation, group=layer.groups)


@onnx_writer(nn.ConvTranspose1d, nn.ConvTranspose2d)
def _conv_transpose(graph: Graph, layer: Any, x: Value) -> Value:
    return batched(graph, x, layer._axes, lambda x: graph.node(
        "ConvTranspose", x, graph.parameter(layer, "weight"), graph.parameter(layer, "bias"), kernel_shape=layer.kernel_size,
        strides=layer.stride, pads=layer.padding * 2, output_padding=layer.output_padding, dilations=layer.dilation,
        group=layer.groups))


# ---- padding ----


@onnx_writer(nn.ZeroPad1d, nn.ZeroPad2d, nn.ConstantPad1d, nn.ConstantPad2d, nn.ReflectionPad1d, nn.ReflectionPad2d,
             nn.ReplicationPad1d, nn.ReplicationPad2d, nn.CircularPad1d, nn.CircularPad2d)
def _pad(graph: Graph, layer: Any, x: Value) -> Value:
    return padded(graph, x, layer.padding, layer._mode, layer.value)


def padded(graph: Graph, x: Value, sides: Sequence[int], mode: str, value: float = 0.0) -> Value:
    """`x` surrounded, as `fastnn.functional.pad` does.

    Parameters
    ----------
    graph : Graph
        Where it is written.
    x : Value
        What to pad.
    sides : sequence of int
        Before and behind the last axis, then the one before it; negative ones crop.
    mode : str
        "constant", "reflect", "replicate" or "circular".
    value : float
        Of "constant".

    Returns
    -------
    Value
    """
    if mode == "circular":
        for k in range(len(sides) // 2):
            x = _wrapped(graph, x, x.ndim - 1 - k, *sides[2 * k:2 * k + 2])
        return x
    pads = np.zeros((2, x.ndim), np.int64)
    for k in range(len(sides) // 2):
        pads[:, x.ndim - 1 - k] = sides[2 * k:2 * k + 2]
    if mode == "constant":
        return graph.node("Pad", x, graph.constant(pads.reshape(-1)), graph.constant(value, x.dtype))
    if pads.min() < 0 or not pads.any():
        graph.refuse(f"padding {tuple(sides)} with mode {mode!r} crops; only constant and circular padding may")
    return graph.node("Pad", x, graph.constant(pads.reshape(-1)), mode={"replicate": "edge"}.get(mode, mode))


def _wrapped(graph: Graph, x: Value, axis: int, before: int, after: int) -> Value:
    """One axis as a ring: cropped, then its end before it and its beginning behind it."""
    if min(before, after) < 0:
        x = cut(graph, x, axis, max(-before, 0), _LAST if after >= 0 else after)
    parts = [cut(graph, x, axis, -before, _LAST)] if before > 0 else []
    parts += [x, *([cut(graph, x, axis, 0, after)] if after > 0 else [])]
    return concat(graph, parts, axis)


# ---- windows: columns are made by picking elements ----


def _windows(graph: Graph, x: Value, kernel: Sequence[int], dilation: Sequence[int], padding: Sequence[int],
             stride: Sequence[int]) -> Value:
    """(N, C, H, W) as (N, C R S, windows): all its rows and columns picked by two Gathers."""
    x = padded(graph, x, (padding[1], padding[1], padding[0], padding[0]), "constant")
    picks = [_places(n, *rest) for n, *rest in zip(x.shape[2:], kernel, dilation, stride)]
    y = graph.node("Gather", x, graph.constant(picks[0]), axis=2)  # (N, C, R, OH, W)
    y = graph.node("Gather", y, graph.constant(picks[1]), axis=4)  # (N, C, R, OH, S, OW)
    y = graph.node("Transpose", y, perm=[0, 1, 2, 4, 3, 5])
    windows = picks[0].shape[1] * picks[1].shape[1]
    return graph.reshape(y, (y.shape[0], y.shape[1] * kernel[0] * kernel[1], windows))


def _places(n: int, kernel: int, dilation: int, stride: int) -> np.ndarray:
    """(kernel, windows): where each element of each window lies."""
    count = (n - dilation * (kernel - 1) - 1) // stride + 1
    return np.arange(kernel)[:, None] * dilation + np.arange(count) * stride


@onnx_writer(nn.Unfold)
def _unfold(graph: Graph, layer: Any, x: Value) -> Value:
    return _windows(graph, x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)


@onnx_writer(nn.Fold)
def _fold(graph: Graph, layer: Any, x: Value) -> Value:
    """A transposed convolution, one group a channel, with the windows' places as channels and weights of one 1 each."""
    if x.ndim != 3:
        graph.refuse(f"the input has shape {x.shape}, but must be (N, C R S, windows)")
    rows, columns = layer.kernel_size
    places = rows * columns
    channels = x.shape[1] // places
    counts = [(n + 2 * p - d * (r - 1) - 1) // s + 1 for n, p, d, r, s in
              zip(layer.output_size, layer.padding, layer.dilation, layer.kernel_size, layer.stride)]
    maps = graph.reshape(x, (x.shape[0], x.shape[1], *counts))
    ones = np.tile(np.eye(places).reshape(places, 1, rows, columns), (channels, 1, 1, 1))
    reached = [(c - 1) * s - p + d * (r - 1) + 1 for c, p, d, r, s in
               zip(counts, layer.padding, layer.dilation, layer.kernel_size, layer.stride)]
    behind = [m - n for n, m in zip(layer.output_size, reached)]  # to be cut off, or to be added where it is negative
    y = graph.node("ConvTranspose", maps, graph.constant(ones, x.dtype), kernel_shape=layer.kernel_size, strides=layer.stride,
                   pads=(*layer.padding, *(max(n, 0) for n in behind)), dilations=layer.dilation, group=channels)
    missing = [max(-n, 0) for n in behind]
    return padded(graph, y, (0, missing[1], 0, missing[0]), "constant") if any(missing) else y


@onnx_writer(nn.LocallyConnected2d)
def _local2d(graph: Graph, layer: Any, x: Value) -> Value:
    bias = graph.parameter(layer, "bias")
    return _local(graph, layer, x, layer.kernel_size, layer.stride, layer.padding, bias)


@onnx_writer(nn.LocallyConnected1d)
def _local1d(graph: Graph, layer: Any, x: Value) -> Value:
    bias = graph.parameter(layer, "bias")
    row = graph.node("Unsqueeze", x, graph.constant([2]))
    bias = bias if bias is None else graph.node("Unsqueeze", bias, graph.constant([1]))
    y = _local(graph, layer, row, *((n, *value) for n, value in ((1, layer.kernel_size), (1, layer.stride), (0, layer.padding))), bias)
    return graph.node("Squeeze", y, graph.constant([2]))


def _local(graph: Graph, layer: Any, x: Value, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int],
           bias: Value | None) -> Value:
    """Each window's column (places, C R S, N) by its own filters (places, K, C R S)."""
    columns = graph.node("Transpose", _windows(graph, x, kernel, (1, 1), padding, stride), perm=[2, 1, 0])
    y = graph.node("Transpose", graph.node("MatMul", graph.parameter(layer, "weight"), columns), perm=[2, 1, 0])
    counts = [(n + 2 * p - r) // s + 1 for n, p, r, s in zip(x.shape[2:], padding, kernel, stride)]
    y = graph.reshape(y, (x.shape[0], layer.out_channels, *counts))
    return y if bias is None else graph.node("Add", y, bias)


# ---- rearranging ----


@onnx_writer(nn.PixelShuffle)
def _pixel_shuffle(graph: Graph, layer: Any, x: Value) -> Value:
    return batched(graph, x, 2, lambda x: graph.node("DepthToSpace", x, blocksize=layer.upscale_factor, mode="CRD"))


@onnx_writer(nn.PixelUnshuffle)
def _pixel_unshuffle(graph: Graph, layer: Any, x: Value) -> Value:
    def write(x: Value) -> Value:
        r, (n, c, h, w) = layer.downscale_factor, x.shape
        y = graph.node("Transpose", graph.reshape(x, (n, c, h // r, r, w // r, r)), perm=[0, 1, 3, 5, 2, 4])
        return graph.reshape(y, (n, c * r * r, h // r, w // r))

    return batched(graph, x, 2, write)


@onnx_writer(nn.ChannelShuffle)
def _channel_shuffle(graph: Graph, layer: Any, x: Value) -> Value:
    n, _, *rest = x.shape
    y = graph.reshape(x, (n, layer.groups, graph.extent(x, 1) // layer.groups, *rest))
    y = graph.node("Transpose", y, perm=[0, 2, 1, *range(3, y.ndim)])
    return graph.reshape(y, x.shape)
