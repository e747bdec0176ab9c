"""Resize and Upsample: where each result lies among the sources, by ONNX's rules."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ... import functional as F
from ...ops.resample import Table, resample
from ...tensor import Tensor
from .operators import only, reads

_WHERE = ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "align_corners", "asymmetric")
_ROUND = {"floor": np.floor, "ceil": np.ceil, "round_prefer_floor": lambda at: np.ceil(at - 0.5),
          "round_prefer_ceil": lambda at: np.floor(at + 0.5)}
_LARGEST = 1 << 22  # elements of an axis: tables have as many rows


def _positions(n: int, out: int, scale: float, where: str) -> np.ndarray:
    """Where each of `out` results lies among `n` sources."""
    k = np.arange(out, dtype=np.float64)
    if where == "align_corners":
        return k * ((n - 1) / (out - 1)) if out > 1 else np.zeros(out)
    if where == "asymmetric":
        return k / scale
    if where == "pytorch_half_pixel" and out == 1:
        return np.zeros(1)
    shift = n / 2 * (1 - out / (scale * n)) if where == "half_pixel_symmetric" else 0.0
    return shift + (k + 0.5) / scale - 0.5


def _nearest(n: int, out: int, scale: float, where: str, rounding: str) -> Table:
    places = _ROUND[rounding](_positions(n, out, scale, where)).astype(np.int64)
    return np.clip(places, 0, n - 1)[:, None], np.ones((out, 1))


def _linear(n: int, out: int, scale: float, where: str) -> Table:
    at = np.clip(_positions(n, out, scale, where), 0, n - 1)
    first = np.floor(at).astype(np.int64)
    share = at - first
    return np.stack((first, np.minimum(first + 1, n - 1)), 1), np.stack((1 - share, share), 1)


def _cubic(n: int, out: int, scale: float, where: str, a: float) -> Table:
    """Keys's kernel; sources outside are the ones at the edge."""
    at = _positions(n, out, scale, where)
    first = np.floor(at).astype(np.int64)
    d = np.abs((at - first)[:, None] - np.arange(-1, 3))
    near, far = ((a + 2) * d - (a + 3)) * d**2 + 1, ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.clip(first[:, None] + np.arange(-1, 3), 0, n - 1), np.where(d <= 1, near, far)


def _resized(x: Tensor, out: Sequence[int], scales: Sequence[float], mode: str, where: str, rounding: str, a: float) -> Tensor:
    """The axes behind (N, C) by a table each."""
    if x.ndim not in (3, 4) or tuple(out[:2]) != tuple(x.shape[:2]) or not all(0 < n < _LARGEST for n in out):
        raise ValueError(f"an input of shape {tuple(x.shape)} is to become {tuple(out)}, but it must be (N, C, L) or (N, C, H, W), and "
                         "N and C must stay")
    if 0 in x.shape or not all(scale > 0 and math.isfinite(scale) for scale in scales):
        raise ValueError(f"factors are {list(scales)} for an input of shape {tuple(x.shape)}; both must be above 0")
    maker, more = {"nearest": (_nearest, (rounding,)), "linear": (_linear, ()), "cubic": (_cubic, (a,))}[mode]
    rules = [(maker, n, m, scale, where, *more) for n, m, scale in zip(x.shape[2:], out[2:], scales[2:])]
    if len(rules) == 2:
        return resample(x, *rules)
    y = resample(F.unsqueeze(x, 2), (_nearest, 1, 1, 1.0, "asymmetric", "floor"), *rules)
    return F.squeeze(y, 2)


def _factors(x: Tensor, scales: np.ndarray | None, sizes: np.ndarray | None, axes: list[int]) -> tuple[list[int], list[float]]:
    """The result's extents and the factors, for every axis."""
    out, factors = list(x.shape), [1.0] * x.ndim
    by_size = sizes is not None and sizes.size
    given = sizes if by_size else scales
    if given is None or given.size != len(axes):
        raise ValueError(f"an input of shape {tuple(x.shape)} is resized along axes {axes}, but "
                         f"{0 if given is None else given.size} sizes or factors are given")
    for axis, value in zip(axes, given.reshape(-1).tolist()):
        n = x.shape[axis]
        if not (math.isfinite(value) and 0 < value * max(n, 1) < _LARGEST):
            raise ValueError(f"axis {axis} of {n} elements is resized by {value}")
        out[axis] = int(value) if by_size else math.floor(n * value)
        factors[axis] = value / n if by_size and n else float(value)
    return out, factors


@reads("Resize", plain=(1, 2, 3))
def _resize(x: Tensor, second: np.ndarray | None = None, scales: np.ndarray | None = None, sizes: np.ndarray | None = None, *,
            mode: str = "nearest", coordinate_transformation_mode: str | None = None, nearest_mode: str | None = None,
            cubic_coeff_a: float = -0.75, axes: list[int] | None = None, antialias: int = 0, exclude_outside: int = 0,
            extrapolation_value: float = 0.0, keep_aspect_ratio_policy: str = "stretch", opset: int) -> Tensor:
    only("mode", mode, "nearest", "linear", "cubic")
    only("antialias", antialias, 0)
    only("exclude_outside", exclude_outside, 0)
    only("keep_aspect_ratio_policy", keep_aspect_ratio_policy, "stretch")
    if opset < 11:  # X and scales alone; from 11 on the second is a region that is not asked for
        scales, where, rounding = second, "asymmetric", "floor"
    else:
        where, rounding = coordinate_transformation_mode or "half_pixel", nearest_mode or "round_prefer_floor"
    only("coordinate_transformation_mode", where, *_WHERE)
    only("nearest_mode", rounding, *_ROUND)
    out, factors = _factors(x, scales, sizes, list(range(x.ndim)) if axes is None else axes)
    return _resized(x, out, factors, mode, where, rounding, cubic_coeff_a)


@reads("Upsample", plain=(1,))
def _upsample(x: Tensor, given: np.ndarray | None = None, *, scales: list[float] | None = None, mode: str = "nearest") -> Tensor:
    only("mode", mode, "nearest", "linear")
    out, factors = _factors(x, np.array(scales) if given is None and scales is not None else given, None, list(range(x.ndim)))
    return _resized(x, out, factors, mode, "asymmetric", "floor", 0.0)
