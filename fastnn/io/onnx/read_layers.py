"""Operators that are layers: convolutions, pooling, normalisation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ... import functional as F
from ...ops.create import full_like, tensor
from ...tensor import Tensor
from .operators import only, reads

Ints = list[int]


def _axes(x: Tensor) -> int:
    """1 for sequences, 2 for maps."""
    if x.ndim not in (3, 4):
        raise ValueError(f"the input has shape {tuple(x.shape)}, but must be (N, C, L) or (N, C, H, W)")
    return x.ndim - 2


def _each(name: str, given: Sequence[int] | None, count: int, usual: int, least: int) -> tuple[int, ...]:
    """An attribute of `count` numbers."""
    values = (usual,) * count if given is None else tuple(given)
    if len(values) != count or min(values) < least:
        raise ValueError(f"{name} is {list(values)}, but must hold {count} integers of at least {least}")
    return values


def _sides(x: Tensor, pads: Ints | None, auto_pad: str, kernel: Sequence[int], stride: Sequence[int],
           dilation: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding before and behind each axis."""
    only("auto_pad", auto_pad, "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    axes = len(kernel)
    if auto_pad == "NOTSET":
        given = _each("pads", pads, 2 * axes, 0, 0)
        return given[:axes], given[axes:]
    if auto_pad == "VALID":
        return (0,) * axes, (0,) * axes
    total = [max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0) for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation)]
    less, more = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    return (less, more) if auto_pad == "SAME_UPPER" else (more, less)


def _surrounded(x: Tensor, before: Sequence[int], behind: Sequence[int], value: float = 0.0) -> Tensor:
    """The last axes padded (cropped where numbers are negative)."""
    flat = tuple(n for pair in zip(reversed(before), reversed(behind)) for n in pair)
    return F.pad(x, flat, "constant", value) if any(flat) else x


# ---- convolutions ----


@reads("Conv")
def _conv(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, auto_pad: str = "NOTSET", dilations: Ints | None = None,
          group: int = 1, kernel_shape: Ints | None = None, pads: Ints | None = None, strides: Ints | None = None) -> Tensor:
    axes = _axes(x)
    kernel = _kernel(kernel_shape, weight, axes)
    stride, dilation = _each("strides", strides, axes, 1, 1), _each("dilations", dilations, axes, 1, 1)
    before, behind = _sides(x, pads, auto_pad, kernel, stride, dilation)
    if before != behind:
        x, before = _surrounded(x, before, behind), (0,) * axes
    return (F.conv1d, F.conv2d)[axes - 1](x, weight, bias, stride, before, dilation, group)


def _kernel(kernel_shape: Ints | None, weight: Tensor, axes: int) -> tuple[int, ...]:
    if weight.ndim != axes + 2 or kernel_shape not in (None, list(weight.shape[2:])):
        raise ValueError(f"kernel_shape is {kernel_shape}, the weight has shape {tuple(weight.shape)}: they do not fit {axes} axes")
    return tuple(weight.shape[2:])


@reads("ConvTranspose")
def _conv_transpose(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, auto_pad: str = "NOTSET", dilations: Ints | None = None,
                    group: int = 1, kernel_shape: Ints | None = None, output_padding: Ints | None = None,
                    output_shape: Ints | None = None, pads: Ints | None = None, strides: Ints | None = None) -> Tensor:
    axes = _axes(x)
    kernel = _kernel(kernel_shape, weight, axes)
    stride, dilation = _each("strides", strides, axes, 1, 1), _each("dilations", dilations, axes, 1, 1)
    extra = _each("output_padding", output_padding, axes, 0, 0)
    only("auto_pad", auto_pad, "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    reach = [s * (n - 1) + e + d * (k - 1) + 1 for n, s, e, d, k in zip(x.shape[2:], stride, extra, dilation, kernel)]
    before, behind = (0,) * axes, (0,) * axes
    if output_shape is not None or auto_pad.startswith("SAME"):
        wanted = [n * s for n, s in zip(x.shape[2:], stride)] if output_shape is None else _each("output_shape", output_shape, axes, 1, 1)
        total = [max(have - want, 0) for have, want in zip(reach, wanted)]
        less, more = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
        before, behind = (less, more) if auto_pad == "SAME_UPPER" else (more, less)
        behind = tuple(b - max(want - have, 0) for b, have, want in zip(behind, reach, wanted))
    elif auto_pad == "NOTSET":
        given = _each("pads", pads, 2 * axes, 0, 0)
        before, behind = given[:axes], given[axes:]
    function = (F.conv_transpose1d, F.conv_transpose2d)[axes - 1]
    if before == behind:
        return function(x, weight, bias, stride, before, extra, group, dilation)
    y = function(x, weight, bias, stride, 0, extra, group, dilation)
    return _surrounded(y, [-n for n in before], [-n for n in behind])


# ---- pooling ----


def _window(x: Tensor, kernel_shape: Ints, strides: Ints | None, dilations: Ints | None, pads: Ints | None, auto_pad: str) -> tuple:
    """Kernel, stride, dilation, padding before and behind."""
    axes = _axes(x)
    kernel = _each("kernel_shape", kernel_shape, axes, 1, 1)
    stride, dilation = _each("strides", strides, axes, 1, 1), _each("dilations", dilations, axes, 1, 1)
    return kernel, stride, dilation, *_sides(x, pads, auto_pad, kernel, stride, dilation)


def _is_plain(before: Sequence[int], behind: Sequence[int], kernel: Sequence[int]) -> bool:
    """Whether the pooling functions themselves pad so."""
    return before == behind and all(2 * p <= k for p, k in zip(before, kernel))


@reads("MaxPool")
def _max_pool(x: Tensor, *, kernel_shape: Ints, auto_pad: str = "NOTSET", ceil_mode: int = 0, dilations: Ints | None = None,
              pads: Ints | None = None, storage_order: int = 0, strides: Ints | None = None, outputs: int) -> Any:
    only("storage_order", storage_order, 0)
    kernel, stride, dilation, before, behind = _window(x, kernel_shape, strides, dilations, pads, auto_pad)
    function = (F.max_pool1d, F.max_pool2d)[len(kernel) - 1]
    if outputs > 1:
        if not _is_plain(before, behind, kernel):
            raise ValueError(f"places are asked for, with pads {before} and {behind}, which must be alike and at most half of the kernel")
        y, places = function(x, kernel, stride, before, dilation, bool(ceil_mode), True)
        maps = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *(1,) * len(kernel))  # places count through all maps
        return y, F.add(places, F.mul(tensor(maps), math.prod(x.shape[2:])))
    if not _is_plain(before, behind, kernel):
        x, before = _surrounded(x, before, behind, -math.inf), (0,) * len(kernel)
    return function(x, kernel, stride, before, dilation, bool(ceil_mode))


@reads("AveragePool")
def _average_pool(x: Tensor, *, kernel_shape: Ints, auto_pad: str = "NOTSET", ceil_mode: int = 0, count_include_pad: int = 0,
                  dilations: Ints | None = None, pads: Ints | None = None, strides: Ints | None = None) -> Tensor:
    kernel, stride, dilation, before, behind = _window(x, kernel_shape, strides, dilations, pads, auto_pad)
    only("dilations", dilation, (1,) * len(kernel))
    function = (F.avg_pool1d, F.avg_pool2d)[len(kernel) - 1]
    if _is_plain(before, behind, kernel):
        return function(x, kernel, stride, before, bool(ceil_mode), bool(count_include_pad))
    mean = function(_surrounded(x, before, behind), kernel, stride, 0, bool(ceil_mode))
    if count_include_pad:
        return mean
    shares = function(_surrounded(full_like(x.detach(), 1), before, behind), kernel, stride, 0, bool(ceil_mode))
    return F.div(mean, shares)


@reads("LpPool")
def _lp_pool(x: Tensor, *, kernel_shape: Ints, auto_pad: str = "NOTSET", ceil_mode: int = 0, dilations: Ints | None = None, p: int = 2,
             pads: Ints | None = None, strides: Ints | None = None) -> Tensor:
    kernel, stride, dilation, before, behind = _window(x, kernel_shape, strides, dilations, pads, auto_pad)
    only("dilations", dilation, (1,) * len(kernel))
    function = (F.lp_pool1d, F.lp_pool2d)[len(kernel) - 1]
    return function(F.abs(_surrounded(x, before, behind)), p, kernel, stride, bool(ceil_mode))


def _places(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.ndim))


@reads("GlobalAveragePool")
def _global_average_pool(x: Tensor) -> Tensor:
    return F.mean(x, _places(x), True)


@reads("GlobalMaxPool")
def _global_max_pool(x: Tensor) -> Tensor:
    return F.amax(x, _places(x), True)


@reads("GridSample")
def _grid_sample(x: Tensor, grid: Tensor, *, mode: str = "linear", padding_mode: str = "zeros", align_corners: int = 0) -> Tensor:
    words = {"linear": "bilinear", "cubic": "bicubic", "bilinear": "bilinear", "bicubic": "bicubic", "nearest": "nearest"}
    only("mode", mode, *words)
    return F.grid_sample(x, grid, words[mode], padding_mode, bool(align_corners))


# ---- what scikit-learn's exporter puts around its networks ----


@reads("ai.onnx.ml.Scaler")
def _scaler(x: Tensor, *, offset: list[float] | None = None, scale: list[float] | None = None) -> Tensor:
    if offset is not None:
        x = F.sub(x, tensor(np.array(offset), x.dtype))
    return x if scale is None else F.mul(x, tensor(np.array(scale), x.dtype))


@reads("ai.onnx.ml.ArrayFeatureExtractor")
def _array_feature_extractor(x: Tensor, index: Tensor) -> Tensor:
    picked = F.index_select(x, -1, F.reshape(index, (index.numel(),)))
    return F.unsqueeze(picked, 0) if x.ndim == 1 else picked


# ---- normalisation ----


@reads("BatchNormalization", statistics=(3, 4))
def _batch_normalization(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, *, epsilon: float = 1e-5,
                         momentum: float = 0.9, spatial: int = 1, training_mode: int = 0) -> Tensor:
    only("spatial", spatial, 1)
    only("training_mode", training_mode, 0)
    return F.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)


@reads("InstanceNormalization")
def _instance_normalization(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    return F.instance_norm(x, None, None, scale, bias, True, 0.1, epsilon)


@reads("GroupNormalization")
def _group_normalization(x: Tensor, scale: Tensor, bias: Tensor, *, num_groups: int, epsilon: float = 1e-5,
                         stash_type: int = 1) -> Tensor:
    """From opset 21 on; onnx refuses the one of opset 18, which was withdrawn."""
    only("stash_type", stash_type, 1)
    return F.group_norm(x, num_groups, scale, bias, epsilon)


def _affine(y: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    y = F.mul(y, scale)
    return y if bias is None else F.add(y, bias)


def _normalised(function: Callable, x: Tensor, scale: Tensor, bias: Tensor | None, axis: int, epsilon: float) -> Tensor:
    """Over all axes from `axis` on."""
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"axis is {axis}, but the input has shape {tuple(x.shape)}")
    shape = tuple(x.shape[axis:] if axis else x.shape)
    own = () if bias is None else (bias,)
    if function is F.layer_norm and all(tuple(t.shape) == shape for t in (scale, *own)):
        return F.layer_norm(x, shape, scale, bias, epsilon)
    return _affine(function(x, shape, eps=epsilon), scale, bias)


@reads("LayerNormalization")
def _layer_normalization(x: Tensor, scale: Tensor, bias: Tensor | None = None, *, axis: int = -1, epsilon: float = 1e-5,
                         stash_type: int = 1) -> Tensor:
    only("stash_type", stash_type, 1)
    return _normalised(F.layer_norm, x, scale, bias, axis, epsilon)


@reads("RMSNormalization")
def _rms_normalization(x: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Tensor:
    only("stash_type", stash_type, 1)
    return _normalised(F.rms_norm, x, scale, None, axis, epsilon)


@reads("LRN")
def _lrn(x: Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Tensor:
    if size % 2 == 0:
        raise ValueError(f"size is {size}, but must be odd")
    return F.local_response_norm(x, size, alpha, beta, bias)
