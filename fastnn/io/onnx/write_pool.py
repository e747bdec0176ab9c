"""Writers of pooling, up-sampling and un-pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ... import nn
from .graph import Graph, Value
from .registry import onnx_writer
from .write_basic import concat
from .write_conv import batched, cut


def _each(value: Any, axes: int) -> tuple[int, ...]:
    """A number for each axis."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return values if len(values) == axes else values * axes


class _Windows:
    """Where a layer's windows lie on one input, all that its arguments leave to be computed.

    A last window that reaches over the end, with ``ceil_mode``, is told by more padding behind: what ONNX's ceil_mode means has
    changed, and readers differ.
    """

    def __init__(self, graph: Graph, layer: Any, x: Value):
        axes = x.ndim - 2
        extents = [graph.extent(x, axis) for axis in range(2, x.ndim)]
        self.extents = tuple(extents)
        self.kernel, self.stride = _each(layer.kernel_size, axes), _each(layer.stride, axes)
        self.padding = _each(getattr(layer, "padding", 0), axes)
        self.dilation = _each(getattr(layer, "dilation", 1), axes)
        reach = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation)]
        self.counts, self.behind = [], []
        for n, k, s, p in zip(extents, reach, self.stride, self.padding):
            left = n + 2 * p - k
            count = left // s + 1
            if layer.ceil_mode and left % s and count * s < n + p:
                count += 1
            self.counts.append(count)
            self.behind.append(max((count - 1) * s + k - n - p, 0))

    @property
    def reaches_over(self) -> bool:
        """Whether a window ends behind the padding that was asked for."""
        return any(b > p for b, p in zip(self.behind, self.padding))

    def attributes(self) -> dict[str, Any]:
        """Of ONNX's pooling operators."""
        behind = [max(b, 0) for b in self.behind]
        return {"kernel_shape": self.kernel, "strides": self.stride, "pads": (*self.padding, *behind)}

    def divisors(self, count_include_pad: bool) -> np.ndarray:
        """How many elements count in each window's mean."""
        lengths = []
        for n, k, s, p, count in zip(self.extents, self.kernel, self.stride, self.padding, self.counts):
            first = np.arange(count) * s - p
            last = np.minimum(first + k, n + p)
            lengths.append(last - first if count_include_pad else np.minimum(last, n) - np.maximum(first, 0))
        return np.multiply.outer(*lengths) if len(lengths) == 2 else lengths[0]


# ---- windows ----


@onnx_writer(nn.MaxPool2d)
def _max_pool2d(graph: Graph, layer: Any, x: Value) -> Any:
    return _max_pool(graph, layer, x, 2)


@onnx_writer(nn.MaxPool1d)
def _max_pool1d(graph: Graph, layer: Any, x: Value) -> Any:
    return _max_pool(graph, layer, x, 1)


def _max_pool(graph: Graph, layer: Any, x: Value, axes: int) -> Any:
    if layer.return_indices:
        if x.ndim != axes + 2:
            graph.refuse(f"the input has shape {x.shape}, but with return_indices must have a batch axis")
        return _max_and_places(graph, layer, x)
    return batched(graph, x, axes, lambda x: _greatest(graph, layer, x))


def _greatest(graph: Graph, layer: Any, x: Value, outputs: int = 1) -> Any:
    windows = _Windows(graph, layer, x)
    options = windows.attributes() | {"dilations": windows.dilation}
    if max(n - k for n, k in zip(options["pads"], windows.kernel * 2)) >= 0:  # more than the operator may be asked for
        sides = [0, 0, *options["pads"][:len(windows.kernel)], 0, 0, *options["pads"][len(windows.kernel):]]
        x = graph.node("Pad", x, graph.constant(sides), graph.constant(-math.inf, x.dtype))
        options["pads"] = [0] * len(options["pads"])
    return graph.node("MaxPool", x, outputs=outputs, **options)


def _max_and_places(graph: Graph, layer: Any, x: Value) -> tuple[Value, Value]:
    """ONNX's places count through the whole tensor, ours through a map."""
    y, places = _greatest(graph, layer, x, 2)
    return y, graph.node("Mod", places, graph.constant(math.prod(x.shape[2:])))


@onnx_writer(nn.AvgPool2d)
def _avg_pool2d(graph: Graph, layer: Any, x: Value) -> Value:
    return batched(graph, x, 2, lambda x: _mean(graph, layer, x, layer.count_include_pad, layer.divisor_override))


@onnx_writer(nn.AvgPool1d)
def _avg_pool1d(graph: Graph, layer: Any, x: Value) -> Value:
    return batched(graph, x, 1, lambda x: _mean(graph, layer, x, layer.count_include_pad, None))


def _mean(graph: Graph, layer: Any, x: Value, count_include_pad: bool, divisor: int | None) -> Value:
    windows = _Windows(graph, layer, x)
    if divisor is None and not windows.reaches_over:
        pads = any(windows.padding) and count_include_pad
        return graph.node("AveragePool", x, count_include_pad=int(pads), **windows.attributes())
    y = graph.node("AveragePool", x, count_include_pad=1, **windows.attributes())
    counts = windows.divisors(count_include_pad) if divisor is None else divisor
    return graph.node("Mul", y, graph.constant(math.prod(windows.kernel) / np.asarray(counts), x.dtype))


@onnx_writer(nn.LPPool2d)
def _lp_pool2d(graph: Graph, layer: Any, x: Value) -> Value:
    return batched(graph, x, 2, lambda x: _lp_pool(graph, layer, x))


@onnx_writer(nn.LPPool1d)
def _lp_pool1d(graph: Graph, layer: Any, x: Value) -> Value:
    return batched(graph, x, 1, lambda x: _lp_pool(graph, layer, x))


def _lp_pool(graph: Graph, layer: Any, x: Value) -> Value:
    """From means of powers, as ours: LpPool takes magnitudes, and whole powers alone."""
    p = layer.norm_type
    if p == math.inf:
        return _greatest(graph, layer, graph.node("Abs", x))
    mean = _mean(graph, layer, graph.node("Pow", x, graph.constant(p, x.dtype)), True, None)
    total = graph.node("Mul", mean, graph.constant(math.prod(_each(layer.kernel_size, x.ndim - 2)), x.dtype))
    return graph.node("Pow", total, graph.constant(1 / p, x.dtype))


# ---- regions that share out a map ----


@onnx_writer(nn.AdaptiveAvgPool2d)
def _adaptive_avg_pool2d(graph: Graph, layer: Any, x: Value) -> Value:
    return batched(graph, x, 2, lambda x: _adaptive_mean(graph, x, _wanted(layer, x.shape[2:])))


@onnx_writer(nn.AdaptiveAvgPool1d)
def _adaptive_avg_pool1d(graph: Graph, layer: Any, x: Value) -> Value:
    return batched(graph, x, 1, lambda x: _adaptive_mean(graph, x, _wanted(layer, x.shape[2:])))


@onnx_writer(nn.AdaptiveMaxPool2d)
def _adaptive_max_pool2d(graph: Graph, layer: Any, x: Value) -> Value:
    return batched(graph, x, 2, lambda x: _adaptive_max(graph, layer, x))


@onnx_writer(nn.AdaptiveMaxPool1d)
def _adaptive_max_pool1d(graph: Graph, layer: Any, x: Value) -> Value:
    return batched(graph, x, 1, lambda x: _adaptive_max(graph, layer, x))


@onnx_writer(nn.GlobalAvgPool1d, nn.GlobalAvgPool2d)
def _global_mean(graph: Graph, layer: Any, x: Value) -> Value:
    return graph.node("GlobalAveragePool", x)


@onnx_writer(nn.GlobalMaxPool1d, nn.GlobalMaxPool2d)
def _global_max(graph: Graph, layer: Any, x: Value) -> Value:
    return graph.node("GlobalMaxPool", x)


def _wanted(layer: Any, extents: Sequence[int]) -> list[int]:
    """The output's extents; None keeps the input's."""
    return [n if size is None else size for n, size in zip(extents, _each(layer.output_size, len(extents)))]


def _regions(n: int, count: int) -> list[tuple[int, int]]:
    """Where each region begins and ends."""
    return [(k * n // count, -(-(k + 1) * n // count)) for k in range(count)]


def _whole(op: str, graph: Graph, x: Value, sizes: Sequence[int]) -> Value | None:
    """Regions that are alike, as windows; None where they are not."""
    if any(n % size for n, size in zip(x.shape[2:], sizes)):
        return None
    if all(size == 1 for size in sizes):
        return graph.node(f"Global{op}", x)
    kernel = [n // size for n, size in zip(x.shape[2:], sizes)]
    return graph.node(op, x, kernel_shape=kernel, strides=kernel)


def _adaptive_mean(graph: Graph, x: Value, sizes: Sequence[int]) -> Value:
    """Where regions overlap, the mean along each axis is a product with a matrix."""
    y = _whole("AveragePool", graph, x, sizes)
    if y is not None:
        return y
    means = []
    for n, size in zip(x.shape[2:], sizes):
        matrix = np.zeros((n, size))
        for k, (first, last) in enumerate(_regions(n, size)):
            matrix[first:last, k] = 1 / (last - first)
        means.append(matrix)
    y = graph.node("MatMul", x, graph.constant(means[-1], x.dtype))
    return graph.node("MatMul", graph.constant(means[0].T, x.dtype), y) if len(means) == 2 else y


def _adaptive_max(graph: Graph, layer: Any, x: Value) -> Value:
    """Where regions overlap, each is cut out, one axis after the other."""
    if layer.return_indices:
        graph.refuse("return_indices is True, but ONNX has no places of regions")
    sizes = _wanted(layer, x.shape[2:])
    y = _whole("MaxPool", graph, x, sizes)
    if y is not None:
        return y
    for axis, (n, size) in enumerate(zip(x.shape[2:], sizes), 2):
        parts = [graph.node("ReduceMax", cut(graph, x, axis, first, last), axes=[axis], keepdims=1) for first, last in
                 _regions(n, size)]
        x = concat(graph, parts, axis)
    return x


# ---- larger maps ----


@onnx_writer(nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d)
def _upsample(graph: Graph, layer: Any, x: Value) -> Value:
    axes = x.ndim - 2
    out = _each(layer.size, axes) if layer.scale_factor is None else [
        math.floor(n * f) for n, f in zip(x.shape[2:], _each(layer.scale_factor, axes))]
    if layer.mode == "area":
        return _adaptive_mean(graph, x, out)
    by_factor = layer.scale_factor is not None and not layer.recompute_scale_factor and not layer.align_corners
    ratios = _each(layer.scale_factor, axes) if by_factor else ()
    kinds = {"nearest": ("nearest", "asymmetric", "floor"), "nearest-exact": ("nearest", "half_pixel", "round_prefer_ceil"),
             "linear": ("linear", "half_pixel", None), "bilinear": ("linear", "half_pixel", None),
             "bicubic": ("cubic", "half_pixel", None)}
    mode, where, rounding = kinds[layer.mode]
    options = {"mode": mode, "coordinate_transformation_mode": "align_corners" if layer.align_corners else where,
               "nearest_mode": rounding, "cubic_coeff_a": -0.75 if mode == "cubic" else None}
    if all(n * ratio == m for n, m, ratio in zip(x.shape[2:], out, ratios)):  # positions follow the extents alone
        return _resized(graph, x, out, options)
    if [math.floor(n * f) for n, f in zip(x.shape[2:], np.float32(ratios))] != list(out):  # ONNX's factors are float32
        graph.refuse(f"ONNX would make other extents than {tuple(out)} with scale_factor {layer.scale_factor}; give the layer a size")
    scales = graph.constant(np.array([1, 1, *ratios]), np.float32)
    return graph.node("Resize", x, None, scales, shape=(*x.shape[:2], *out), **options)


def _resized(graph: Graph, x: Value, out: Sequence[int], options: dict[str, Any]) -> Value:
    """To extents that are given: batch and channels are read from the input."""
    head = cut(graph, graph.node("Shape", x), 0, 0, 2)
    sizes = graph.node("Concat", head, graph.constant(list(out)), axis=0)
    return graph.node("Resize", x, None, None, sizes, shape=(*x.shape[:2], *out), **options)


@onnx_writer(nn.BedOfNails2d)
def _bed_of_nails(graph: Graph, layer: Any, x: Value) -> Value:
    """(N, C, H, 1, W, 1), padded behind each element."""
    (n, c, h, w), (rows, columns) = x.shape, layer.scale_factor
    y = graph.reshape(x, (n, c, h, 1, w, 1))
    y = graph.node("Pad", y, graph.constant([0] * 6 + [0, 0, 0, rows - 1, 0, columns - 1]))
    return graph.reshape(y, (n, c, h * rows, w * columns))


@onnx_writer(nn.MaxUnpool1d, nn.MaxUnpool2d)
def _max_unpool(graph: Graph, layer: Any, x: Value, places: Value) -> Value:
    """Scatters each map's elements into a row of zeros."""
    axes = x.ndim - 2
    kernel, stride, padding = (_each(value, axes) for value in (layer.kernel_size, layer.stride, layer.padding))
    out = [(n - 1) * s - 2 * p + k for n, k, s, p in zip(x.shape[2:], kernel, stride, padding)]
    head = cut(graph, graph.node("Shape", x), 0, 0, 2)
    extents = graph.node("Concat", head, graph.constant([math.prod(out)]), axis=0)
    zeros = graph.node("Expand", graph.constant(np.zeros((1, 1, 1)), x.dtype), extents, shape=(*x.shape[:2], math.prod(out)))
    rows = [graph.reshape(value, (*x.shape[:2], math.prod(x.shape[2:]))) for value in (x, places)]
    y = graph.node("ScatterElements", zeros, rows[1], rows[0], axis=2)
    return graph.reshape(y, (*x.shape[:2], *out))
