"""OpSpecs of fastnn/ops/grid_sample.py."""

from __future__ import annotations

import itertools

import numpy as np

from ..ops.grid_sample import affine_grid, grid_sample
from .spec import OpSpec, Sample, register


def _reflected(at, n, align_corners):
    """A triangle wave."""
    low, span = (0.0, n - 1.0) if align_corners else (-0.5, float(n))
    return np.zeros_like(at) if span == 0 else low + span - np.abs((at - low) % (2 * span) - span)


def _inside(at, n, padding_mode, align_corners):
    if padding_mode == "reflection":
        at = _reflected(at, n, align_corners)
    return at if padding_mode == "zeros" else np.clip(at, 0, n - 1)


def _cubic(d):
    d, a = np.abs(d), -0.75
    return np.where(d <= 1, ((a + 2) * d - (a + 3)) * d * d + 1, a * (((d - 5) * d + 8) * d - 4))


def _matrix(coordinate, n, mode, padding_mode, align_corners):
    """(..., n): how much each of an axis's n pixels counts."""
    at = (coordinate + 1) / 2 * (n - 1) if align_corners else ((coordinate + 1) * n - 1) / 2
    rule = padding_mode, align_corners
    if mode == "bicubic":
        first = np.floor(at)
        taps = [(_inside(first + k, n, *rule), _cubic(at - first - k)) for k in range(-1, 3)]
    else:
        at = _inside(at, n, *rule)
        first = np.floor(at)
        taps = [(np.round(at), 1.0)] if mode == "nearest" else [(first, 1 - (at - first)), (first + 1, at - first)]
    return sum(np.asarray(weight)[..., None] * (place[..., None] == np.arange(n)) for place, weight in taps)


def _reference(x, grid, mode, padding_mode, align_corners):
    columns, rows = (_matrix(grid[..., k], n, mode, padding_mode, align_corners) for k, n in ((0, x.shape[3]), (1, x.shape[2])))
    return np.einsum("nchw,nijh,nijw->ncij", x, rows, columns, optimize=True)


def _coordinates(rng, shape, n, align_corners):
    """Places up to two maps away, between pixels but not near a quarter of the way, where modes have kinks."""
    at = rng.integers(-2 * n, 3 * n, shape) + rng.uniform(0.1, 0.4, shape) + 0.5 * rng.integers(0, 2, shape)
    return 2 * at / max(n - 1, 1) - 1 if align_corners else (2 * at + 1) / n - 1


def _samples(rng):
    shapes = (((2, 3, 5, 6), (4, 7)), ((1, 70, 4, 4), (3, 3)), ((1, 2, 1, 1), (2, 3)), ((3, 1, 9, 2), (1, 90)))
    options = itertools.product(("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection"), (False, True))
    for k, (mode, padding_mode, align_corners) in enumerate(options):
        for shape, size in (shapes[k % 4], shapes[(k + 1) % 4]):
            grid = np.stack([_coordinates(rng, (shape[0], *size), n, align_corners) for n in (shape[3], shape[2])], -1)
            yield Sample((rng.standard_normal(shape), grid),
                         {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners})


register(OpSpec("grid_sample", grid_sample, _reference, lambda rng: list(_samples(rng)), gradients=(0, 1), tolerance=32))


def _affine_reference(theta, size, align_corners):
    lines = [np.linspace(-1, 1, n) * (1 if align_corners else (n - 1) / n) if n > 1 else np.zeros(1) for n in size[2:]]
    y, x = np.meshgrid(*lines, indexing="ij")
    return np.einsum("nij,hwj->nhwi", theta, np.stack((x, y, np.ones_like(x)), -1))


register(OpSpec("affine_grid", affine_grid, _affine_reference, lambda rng: [
    Sample((rng.standard_normal((size[0], 2, 3)),), {"size": size, "align_corners": align_corners})
    for size, align_corners in itertools.product(((2, 3, 4, 5), (1, 1, 1, 7), (3, 2, 30, 20)), (False, True))],
    gradients=(0,), tolerance=8))
