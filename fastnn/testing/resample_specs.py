"""OpSpecs of fastnn/ops/resample.py, pool1d.py and local_response.py."""

from __future__ import annotations

import numpy as np

from ..ops import local_response, pool1d, resample
from ..ops.slices import pad
from .spec import OpSpec, Sample, register


def _mode_samples(rng, *cases):
    return [Sample((rng.standard_normal(shape),), options) for shape, options in cases]


# ---- up-sampling: each axis is a product with a matrix ----


def _linear_matrix(n, out, align_corners):
    at = np.maximum((np.arange(out) + 0.5) * n / out - 0.5, 0)
    if align_corners:
        at = np.arange(out) * ((n - 1) / max(out - 1, 1))
    return np.maximum(0, 1 - np.abs(np.minimum(at, n - 1)[:, None] - np.arange(n)))


def _nearest_matrix(n, out, shift=0.0):
    return np.eye(n)[np.minimum(((np.arange(out) + shift) * n / out).astype(int), n - 1)]


def _smoothed_matrix(n, out, align_corners, mode):
    """The kernel stretched to the step, at every element's distance, its sum made 1."""
    step = (n - 1) / (out - 1) if align_corners else n / out
    d = np.abs(step * (np.arange(out)[:, None] + 0.5) - np.arange(n) - 0.5) / max(step, 1)
    if mode == "bilinear":
        weight = np.maximum(1 - d, 0)
    else:
        near, far = 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
        weight = np.where(d < 1, near, np.where(d < 2, far, 0))
    return weight / weight.sum(1, keepdims=True)


def _interpolate(x, size, mode="nearest", align_corners=None, antialias=False):
    sizes = size if isinstance(size, tuple) else (size,) * (x.ndim - 2)
    for axis, out in enumerate(sizes, 2):
        n = x.shape[axis]
        matrix = (_smoothed_matrix(n, out, align_corners, mode) if antialias else
                  _linear_matrix(n, out, align_corners) if mode in ("linear", "bilinear") else
                  _nearest_matrix(n, out, 0.5 if mode == "nearest-exact" else 0.0))
        x = np.moveaxis(np.tensordot(matrix, x, (1, axis)), 0, axis)
    return x


register(OpSpec("interpolate", resample.interpolate, _interpolate, lambda rng: _mode_samples(
    rng, ((2, 3, 4, 5), {"size": (8, 10)}), ((1, 20, 5, 7), {"size": (3, 9)}), ((2, 3, 5), {"size": 8}),
    ((2, 3, 4, 5), {"size": (8, 15), "mode": "nearest-exact"}), ((2, 17, 4, 5), {"size": (8, 10), "mode": "bilinear"}),
    ((2, 3, 4, 5), {"size": (7, 3), "mode": "bilinear", "align_corners": True}),
    ((2, 3, 5), {"size": 12, "mode": "linear"}),
    ((1, 2, 1, 1), {"size": (3, 2), "mode": "bilinear"})), gradients=(0,), tolerance=8.0))
register(OpSpec("interpolate_antialias", resample.interpolate, _interpolate, lambda rng: _mode_samples(
    rng, *((shape, {"size": size, "mode": mode, "antialias": True, "align_corners": corners})
           for mode in ("bilinear", "bicubic") for corners in (False, True)
           for shape, size in (((2, 3, 13, 9), (4, 7)), ((1, 17, 8, 30), (9, 4))))), gradients=(0,),
    tolerance=32.0, peer="interpolate"))  # sums of up to 38 terms along each axis, whose weights are sums too


def _nails(x, scale_factor=2):
    rows, columns = scale_factor if isinstance(scale_factor, tuple) else (scale_factor, scale_factor)
    y = np.zeros((*x.shape[:2], x.shape[2] * rows, x.shape[3] * columns))
    y[:, :, ::rows, ::columns] = x
    return y


register(OpSpec("bed_of_nails2d", resample.bed_of_nails2d, _nails, lambda rng: _mode_samples(
    rng, ((2, 3, 4, 5), {}), ((1, 20, 2, 3), {"scale_factor": (1, 3)})), gradients=(0,), exact=True))


def _pad(x, pad, mode):
    widths = [(0, 0)] * (x.ndim - len(pad) // 2) + [tuple(pad[k:k + 2])
                                                        for k in reversed(range(0, len(pad), 2))]
    return np.pad(x, widths, {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode])


register(OpSpec("pad_by_itself", pad, _pad, lambda rng: _mode_samples(
    rng, *(((2, 3, 5, 6), {"pad": (2, 1, 0, 3), "mode": mode}) for mode in ("reflect", "replicate", "circular")),
    *(((2, 3, 5), {"pad": (2, 3), "mode": mode}) for mode in ("reflect", "replicate", "circular")),
    ((3, 5, 6), {"pad": (1, 2, 3, 4), "mode": "reflect"})), gradients=(0,), exact=True))


# ---- un-pooling ----


def _unpool(x, indices, kernel_size, stride=None, padding=0, output_size=None):
    step = kernel_size if stride is None else stride
    if output_size is None:
        output_size = tuple((n - 1) * step - 2 * padding + kernel_size for n in x.shape[2:])
    y = np.zeros((*x.shape[:2], int(np.prod(output_size))))
    np.put_along_axis(y, indices.reshape(*x.shape[:2], -1), x.reshape(*x.shape[:2], -1), -1)
    return y.reshape(*x.shape[:2], *output_size)


def _places(rng, shape, count):
    """Different places in each map."""
    rows = [rng.permutation(count)[:int(np.prod(shape[2:]))] for _ in range(shape[0] * shape[1])]
    return np.array(rows, np.int64).reshape(shape)


def _unpool_samples(rng, spatial):
    cases = ({"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1})
    shape = (2, 3, 4, 5)[:2 + spatial]
    samples = [Sample((rng.standard_normal(shape), _places(rng, shape, 50 if spatial == 2 else 7)), case)
               for case in cases]
    size = (9, 10)[:spatial]
    places = _places(rng, shape, int(np.prod(size)))
    return [*samples, Sample((rng.standard_normal(shape), places), {"kernel_size": 2, "output_size": size})]


register(OpSpec("max_unpool2d", resample.max_unpool2d, _unpool, lambda rng: _unpool_samples(rng, 2), gradients=(0,),
                exact=True))
register(OpSpec("max_unpool1d", resample.max_unpool1d, _unpool, lambda rng: _unpool_samples(rng, 1), gradients=(0,),
                exact=True))


# ---- pooling of sequences ----


def _windows(x, kernel_size, stride=None, padding=0, dilation=1, fill=0.0):
    x = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(padding, padding)], constant_values=fill)
    starts = range(0, x.shape[-1] - dilation * (kernel_size - 1), kernel_size if stride is None else stride)
    return np.stack([x[..., s:s + dilation * (kernel_size - 1) + 1:dilation] for s in starts], -2)


def _regions(x, size):
    n = x.shape[-1]
    return [x[..., k * n // size:-(-(k + 1) * n // size)] for k in range(size)]


def _line_samples(rng, *options):
    shapes = ((2, 3, 12), (1, 20, 9), (5, 7))
    return [Sample((rng.permutation(int(np.prod(s))).reshape(s) / 8.0,), o) for s, o in zip(shapes, options)]


register(OpSpec("max_pool1d", pool1d.max_pool1d, lambda x, **options: _windows(x, fill=-np.inf, **options).max(-1),
                lambda rng: _line_samples(rng, {"kernel_size": 3}, {"kernel_size": 3, "stride": 2, "padding": 1},
                                          {"kernel_size": 2, "dilation": 2}), gradients=(0,)))
register(OpSpec("avg_pool1d", pool1d.avg_pool1d, lambda x, **options: _windows(x, **options).mean(-1),
                lambda rng: _line_samples(rng, {"kernel_size": 3}, {"kernel_size": 3, "stride": 2, "padding": 1},
                                          {"kernel_size": 2}), gradients=(0,)))
register(OpSpec("adaptive_max_pool1d", pool1d.adaptive_max_pool1d,
                lambda x, output_size: np.stack([r.max(-1) for r in _regions(x, output_size)], -1),
                lambda rng: _line_samples(rng, {"output_size": 5}, {"output_size": 2},
                                          {"output_size": 7}), gradients=(0,)))
register(OpSpec("adaptive_avg_pool1d", pool1d.adaptive_avg_pool1d,
                lambda x, output_size: np.stack([r.mean(-1) for r in _regions(x, output_size)], -1),
                lambda rng: _line_samples(rng, {"output_size": 5}, {"output_size": 2},
                                          {"output_size": 7}), gradients=(0,)))
register(OpSpec("global_max_pool1d", pool1d.global_max_pool1d, lambda x: x.max(-1, keepdims=True),
                lambda rng: _line_samples(rng, {}, {}), gradients=(0,)))
register(OpSpec("global_avg_pool1d", pool1d.global_avg_pool1d, lambda x: x.mean(-1, keepdims=True),
                lambda rng: _line_samples(rng, {}, {}), gradients=(0,)))


# ---- normalisation along channels ----


def _local_response(x, size, alpha=1e-4, beta=0.75, k=1.0):
    squares = np.pad(x * x, [(0, 0), (size // 2, size - 1 - size // 2)] + [(0, 0)] * (x.ndim - 2))
    sums = sum(squares[:, j:j + x.shape[1]] for j in range(size))
    return x / (k + alpha / size * sums)**beta


register(OpSpec("local_response_norm", local_response.local_response_norm, _local_response, lambda rng: _mode_samples(
    rng, ((2, 7, 3, 4), {"size": 5, "alpha": 0.5}), ((1, 40, 3, 3), {"size": 4, "alpha": 0.3, "beta": 0.6, "k": 2.0}),
    ((2, 3, 5), {"size": 9, "alpha": 1.0}), ((1, 1, 2, 2), {"size": 1})), gradients=(0,), tolerance=16.0))
