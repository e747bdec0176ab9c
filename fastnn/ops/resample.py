"""Up-sampling, un-pooling, and padding by what is there: rows and columns of a result are weighted sums of the
input's."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .._core import launch, record
from ..checks import a_tensor, integers, pair, positive, whole
from .conv import single
from .create import as_tensor, tensor
from .pool import adaptive_avg_pool2d
from .shape import reshape, unsqueeze

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["bed_of_nails2d", "interpolate", "max_unpool1d", "max_unpool2d"]

# One axis of a result: for each of its elements the sources' indices (-1: none) and weights, (results, sources) each.
Table = tuple["np.ndarray", "np.ndarray"]


def resample(x: Tensor, rows: tuple, columns: tuple) -> Tensor:
    """A map whose rows and columns are made by two rules, ``(maker, *arguments)``; tables are kept for the next call.

    Parameters
    ----------
    x : Tensor
        (N, C, H, W).
    rows, columns : tuple
        A function that gives a table, and its arguments.

    Returns
    -------
    Tensor
        (N, C, OH, OW).
    """
    tables = (*_table(*rows, dtype=x.dtype.name), *_table(*columns, dtype=x.dtype.name))
    return record(_resample_backward, (x,), launch.resample_forward(x, *tables), context=(tables, x.shape[2:]))


def _resample_backward(node, dy):
    tables, size = node.context
    return launch.resample_backward(dy, *tables, input=size)


@functools.lru_cache(maxsize=128)
def _table(maker, *arguments, dtype: str) -> tuple[Tensor, Tensor]:
    index, weight = maker(*arguments)
    return tensor(np.ascontiguousarray(index, np.int64)), tensor(np.ascontiguousarray(weight), dtype)


def _picked(index: np.ndarray) -> Table:
    """One source each, as it is."""
    return index[:, None], np.ones((len(index), 1))


# ---- up-sampling -----------------------------------------------------------------------------------------------------


def _positions(n: int, out: int, ratio: float, align_corners: bool) -> np.ndarray:
    """Where each of `out` results lies among `n` sources."""
    if align_corners:
        return np.arange(out) * ((n - 1) / (out - 1) if out > 1 else 0.0)
    return (np.arange(out) + 0.5) * ratio - 0.5


def _nearest(n: int, out: int, ratio: float, shift: float) -> Table:
    """In float32, as PyTorch: the source that a result falls into."""
    places = np.floor((np.arange(out, dtype=np.float32) + np.float32(shift)) * np.float32(ratio)).astype(np.int64)
    return _picked(np.minimum(places, n - 1))


def _linear(n: int, out: int, ratio: float, align_corners: bool) -> Table:
    at = np.maximum(_positions(n, out, ratio, align_corners), 0)
    first = np.minimum(np.floor(at).astype(np.int64), n - 1)
    share = at - first
    return np.stack((first, np.minimum(first + 1, n - 1)), 1), np.stack((1 - share, share), 1)


def _cubic(n: int, out: int, ratio: float, align_corners: bool) -> Table:
    """Keys's kernel with a = -3/4."""
    a, at = -0.75, _positions(n, out, ratio, align_corners)
    first = np.floor(at).astype(np.int64)
    distance = np.abs((at - first)[:, None] - np.arange(-1, 3))
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.clip(first[:, None] + np.arange(-1, 3), 0, n - 1), np.where(distance <= 1, near, far)


def _smoothed(n: int, out: int, ratio: float, align_corners: bool, mode: str) -> Table:
    """The kernel as wide as the step between results, where that is over 1: a triangle, or Keys's with a = -1/2."""
    step = (n - 1) / max(out - 1, 1) * (out > 1) if align_corners else ratio
    stretch, radius = max(step, 1.0), 1 if mode == "bilinear" else 2
    centre = step * (np.arange(out) + 0.5)
    first = np.maximum((centre - radius * stretch + 0.5).astype(np.int64), 0)
    end = np.minimum((centre + radius * stretch + 0.5).astype(np.int64), n)
    index = first[:, None] + np.arange((end - first).max())
    d, a = np.abs((index - centre[:, None] + 0.5) / stretch), -0.5
    weight = np.maximum(1 - d, 0) if mode == "bilinear" else np.select(
        [d < 1, d < 2], [((a + 2) * d - (a + 3)) * d**2 + 1, (((d - 5) * d + 8) * d - 4) * a])
    is_inside = index < end[:, None]
    weight = np.where(is_inside, weight, 0)
    return np.where(is_inside, index, -1), weight / weight.sum(1, keepdims=True)


INTERPOLATION_MODES = {"nearest": 2, "nearest-exact": 2, "linear": 1, "bilinear": 2, "bicubic": 2, "area": 2}


def interpolate(input: Tensor, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None,
                mode: str = "nearest", align_corners: bool | None = None,
                recompute_scale_factor: bool | None = None, antialias: bool = False) -> Tensor:
    """Makes sequences or maps of another size.

    Parameters
    ----------
    input : Tensor
        (N, C, H, W), or (N, C, L).
    size : int or pair of int, optional
        The result's; either this or `scale_factor`.
    scale_factor : float or pair of float, optional
        Size of the result over that of the input, which it is rounded down to.
    mode : str
        "nearest", "nearest-exact", "area"; for maps "bilinear" and "bicubic", for sequences "linear".
    align_corners : bool, optional
        For linear and cubic modes: whether corner elements, rather than the corners of corner elements, coincide.
    recompute_scale_factor : bool, optional
        Whether positions follow the sizes rather than `scale_factor`.
    antialias : bool
        For "bilinear" and "bicubic": whether the kernel is widened to the step between results where these are fewer,
        so that every element counts (with "bicubic" its a is then -1/2, as in PyTorch and Pillow).

    Returns
    -------
    Tensor
        (N, C, *size).

    Raises
    ------
    ValueError
        If the mode does not suit `input`, or not exactly one of `size` and `scale_factor` is given.

    References
    ----------
    R. G. Keys, "Cubic convolution interpolation for digital image processing", IEEE Transactions on Acoustics,
    Speech, and Signal Processing 29(6), 1981.
    """
    axes = a_tensor("interpolate", input).ndim - 2
    smooth = mode in ("linear", "bilinear", "bicubic")
    if mode not in INTERPOLATION_MODES or axes not in (1, 2) or (smooth and INTERPOLATION_MODES[mode] != axes):
        raise ValueError(f"interpolate: mode is {mode!r} for input {input.shape}, but must be 'nearest', 'nearest-exact', "
                         "'area', "
                         "'linear' (N, C, L), 'bilinear' or 'bicubic' (N, C, H, W)")
    check_extents("interpolate", size, scale_factor)
    if align_corners is not None and not smooth:
        raise ValueError(f"interpolate: align_corners is {align_corners}, which mode {mode!r} has no use for")
    if antialias and mode not in ("bilinear", "bicubic"):
        raise ValueError(f"interpolate: antialias goes with mode 'bilinear' or 'bicubic', not {mode!r}")
    extents, ratios = _extents(input.shape[2:], size, scale_factor, recompute_scale_factor)
    maps = unsqueeze(input, 2) if axes == 1 else input
    if mode == "area":
        y = adaptive_avg_pool2d(maps, (1, *extents) if axes == 1 else extents)
    else:
        rules = [_rule(mode, n, out, ratio, bool(align_corners), bool(antialias))
                 for n, out, ratio in zip(input.shape[2:], extents, ratios)]
        y = resample(maps, *([(_picked_rows, 1)] if axes == 1 else []), *rules)
    return reshape(y, (*y.shape[:2], y.shape[3])) if axes == 1 else y


def check_extents(name: str, size: int | Sequence[int] | None, scale_factor: float | Sequence[float] | None) -> None:
    """Refuses what cannot be a size or a factor of one."""
    if (size is None) == (scale_factor is None):
        raise ValueError(f"{name}: exactly one of size and scale_factor must be given")
    argument, given = ("size", size) if scale_factor is None else ("scale_factor", scale_factor)
    for value in given if isinstance(given, (tuple, list)) else (given,):
        if scale_factor is None:
            whole(f"{name}: {argument}", value, 1)
        else:
            positive(f"{name}: {argument}", value)


def _picked_rows(n: int) -> Table:
    return _picked(np.arange(n))


def _rule(mode: str, n: int, out: int, ratio: float, align_corners: bool, antialias: bool) -> tuple:
    if n == out and (antialias or mode.endswith("linear")):
        return _picked_rows, n  # as in PyTorch, whatever the factor
    if antialias:
        return _smoothed, n, out, ratio, align_corners, mode
    if mode.startswith("nearest"):
        return _nearest, n, out, ratio, 0.5 if mode == "nearest-exact" else 0.0
    return _cubic if mode == "bicubic" else _linear, n, out, ratio, align_corners


def _check_size(name: str, out: Sequence[int]) -> None:
    """Refuses results of extents that no table can be made for."""
    if max(out) >= 2**31:
        raise ValueError(f"{name}: the result would have {tuple(out)} elements each way, but may have fewer than 2^31")


def _extents(have: Sequence[int], size: int | Sequence[int] | None, factor: float | Sequence[float] | None,
             recompute: bool | None) -> tuple[list[int], list[float]]:
    """The result's size, and the steps among the sources from one result to the next."""
    def each(value):
        values = list(value) if isinstance(value, (tuple, list)) else [value] * len(have)
        if len(values) != len(have):
            raise ValueError(f"interpolate: {value!r} must be one number or {len(have)}")
        return values

    out = each(size) if factor is None else [math.floor(n * f) for n, f in zip(have, each(factor))]
    if min(out) < 1 or min(have) < 1:
        raise ValueError(f"interpolate: input {tuple(have)} and result {tuple(out)} must have at least 1 element "
                         "each way")
    _check_size("interpolate", out)
    if factor is None or recompute:
        return out, [n / m for n, m in zip(have, out)]
    return out, [1 / f for f in each(factor)]


def _spaced(n: int, step: int) -> Table:
    index = np.full(n * step, -1)
    index[::step] = np.arange(n)
    return _picked(index)


def bed_of_nails2d(input: Tensor, scale_factor: int | Sequence[int] = 2) -> Tensor:
    """Spreads elements out, with zeros between them: y[.., s h, s w] = x[.., h, w].

    Parameters
    ----------
    input : Tensor
        (N, C, H, W).
    scale_factor : int or pair of int
        s, for rows and columns.

    Returns
    -------
    Tensor
        (N, C, s H, s W).

    Raises
    ------
    ValueError
        If `scale_factor` is below 1.
    """
    rows, columns = pair("bed_of_nails2d", "scale_factor", scale_factor, 1)
    if a_tensor("bed_of_nails2d", input).ndim != 4:
        raise ValueError(f"bed_of_nails2d: input has shape {input.shape}, but must be (N, C, H, W)")
    _check_size("bed_of_nails2d", (input.shape[2] * rows, input.shape[3] * columns))
    return resample(input, (_spaced, input.shape[2], rows), (_spaced, input.shape[3], columns))


# ---- padding ---------------------------------------------------------------------------------------------------------


def _padded(mode: str, n: int, before: int, after: int) -> Table:
    """Which element stands at each place; negative numbers crop."""
    index = np.arange(-before, n + after)
    if mode == "reflect":
        index = np.abs(index)
        index = np.minimum(index, 2 * (n - 1) - index)
    elif mode == "replicate":
        index = np.clip(index, 0, n - 1)
    else:  # what is left after cropping wraps round
        left = np.arange(max(-before, 0), n + min(after, 0))
        index = left[np.arange(-max(before, 0), len(left) + max(after, 0)) % len(left)]
    return _picked(index)


def pad_by(x: Tensor, padding: Sequence[int], mode: str) -> Tensor:
    """Surrounds the last one or two axes with elements of `x`; see `fastnn.functional.pad`."""
    sides = [tuple(padding[k:k + 2]) for k in range(0, len(padding), 2)]
    if len(padding) not in (2, 4) or not len(sides) <= a_tensor("pad", x).ndim <= 4:
        raise ValueError(f"pad: padding is {tuple(padding)}, but mode {mode!r} pads the last axis or the last two, "
                         "of at most 4")
    for n, (before, after) in zip(reversed(x.shape), sides):
        most = n - 1 if mode == "reflect" else n if mode == "circular" else None
        if n == 0 or n + before + after < 1 or (most is not None and max(before, after) > most):
            limit = "" if most is None else f", and at most {most} on a side"
            raise ValueError(f"pad: padding ({before}, {after}) for an axis of {n} must leave at least one "
                             f"element{limit}")
        if mode == "circular" and n + min(before, 0) + min(after, 0) < 1:
            raise ValueError(f"pad: padding ({before}, {after}) crops all of an axis of {n}, so that nothing is left to wrap round")
    maps = reshape(x, (1,) * (4 - x.ndim) + tuple(x.shape)) if x.ndim < 4 else x
    (left, right), (top, bottom) = (sides + [(0, 0)])[:2]
    y = resample(maps, (_padded, mode, maps.shape[2], top, bottom), (_padded, mode, maps.shape[3], left, right))
    return reshape(y, (*x.shape[:-len(sides)], *y.shape[4 - len(sides):]))


# ---- un-pooling ------------------------------------------------------------------------------------------------------


def max_unpool2d(input: Tensor, indices: Tensor, kernel_size: int | Sequence[int],
                 stride: int | Sequence[int] | None = None,
                 padding: int | Sequence[int] = 0, output_size: Sequence[int] | None = None) -> Tensor:
    """Puts what max-pooling gave back where it came from, with zeros elsewhere.

    Parameters
    ----------
    input : Tensor
        (N, C, H, W), or (C, H, W).
    indices : Tensor
        int64, of `input`'s shape: what `max_pool2d` returned.
    kernel_size : int or pair of int
        Height and width of the window.
    stride : int or pair of int, optional
        From window to window; by default `kernel_size`.
    padding : int or pair of int
        Rows and columns that were put around each map.
    output_size : sequence of int, optional
        The result's last two extents (or all): pooling forgets what was left over.

    Returns
    -------
    Tensor
        (N, C, (H - 1) stride - 2 padding + kernel_size, ...), or (N, C, *output_size). Where several elements name one
        place, the last one is there.

    Raises
    ------
    IndexError
        If an index lies outside its map.
    ValueError
        If shapes do not fit.

    References
    ----------
    M. D. Zeiler and R. Fergus, "Visualizing and understanding convolutional networks", ECCV 2014.
    """
    if a_tensor("max_unpool2d", input).ndim == 3:
        size = None if output_size is None else tuple(output_size)[-2:]
        y = max_unpool2d(unsqueeze(input, 0), unsqueeze(as_tensor(indices), 0), kernel_size, stride, padding, size)
        return reshape(y, y.shape[1:])
    kernel = pair("max_unpool2d", "kernel_size", kernel_size, 1)
    step = kernel if stride is None else pair("max_unpool2d", "stride", stride, 1)
    edge = pair("max_unpool2d", "padding", padding, 0)
    size = [(n - 1) * s - 2 * p + k for n, s, p, k in zip(input.shape[2:], step, edge, kernel)]
    if output_size is not None:
        wanted = integers("max_unpool2d", "output_size", output_size)[-2:]
        if len(wanted) != 2 or any(abs(w - n) >= s for w, n, s in zip(wanted, size, step)):
            raise ValueError(f"max_unpool2d: output_size is {output_size}, but must be less than a stride "
                             f"{step} away from "
                             f"{tuple(size)}")
        size = wanted
    y = launch.max_unpool2d_forward(input, indices, output=size)
    return record(_max_unpool2d_backward, (input,), y, (indices,))


def _max_unpool2d_backward(node, dy):
    return launch.max_unpool2d_backward(dy, *node.saved)


def max_unpool1d(input: Tensor, indices: Tensor, kernel_size: int | Sequence[int],
                 stride: int | Sequence[int] | None = None,
                 padding: int | Sequence[int] = 0, output_size: Sequence[int] | None = None) -> Tensor:
    """Puts what `max_pool1d` gave back where it came from, with zeros elsewhere.

    Parameters
    ----------
    input : Tensor
        (N, C, L), or (C, L).
    indices : Tensor
        int64, of `input`'s shape.
    kernel_size : int
        Width of the window.
    stride : int, optional
        From window to window; by default `kernel_size`.
    padding : int
        Elements that were put on each side.
    output_size : sequence of int, optional
        The result's last extent (or all).

    Returns
    -------
    Tensor
        (N, C, (L - 1) stride - 2 padding + kernel_size), or (N, C, *output_size).

    Raises
    ------
    IndexError
        If an index lies outside its sequence.
    ValueError
        If shapes do not fit.
    """
    kernel = single("max_unpool1d", "kernel_size", kernel_size)
    step = kernel if stride is None else single("max_unpool1d", "stride", stride)
    size = None if output_size is None else (1, *integers("max_unpool1d", "output_size", output_size)[-1:])
    y = max_unpool2d(unsqueeze(input, -2), unsqueeze(as_tensor(indices), -2), (1, kernel), (1, step),
                     (0, single("max_unpool1d", "padding", padding)), size)
    return reshape(y, (*y.shape[:-2], y.shape[-1]))
