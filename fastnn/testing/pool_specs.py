"""OpSpecs of fastnn/ops/pool.py."""

from __future__ import annotations

import numpy as np

from ..ops import fractional_pool, lp_pool, pool
from .spec import OpSpec, Sample, register


def _apart(rng, shape):
    """Values in random order, no two closer than 0.1: the maximum stays where it is under small changes."""
    return 0.1 * (rng.permutation(int(np.prod(shape))) + 1.0).reshape(shape)


def _fixed_windows(n, kernel, stride, padding, dilation, ceil_mode):
    """Per output: the positions inside the map, and how many the window has with its padding."""
    room = n + 2 * padding - dilation * (kernel - 1) - 1
    count = (-(-room // stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (count - 1) * stride >= n + padding:
        count -= 1
    windows = []
    for o in range(count):
        start = o * stride - padding
        places = [start + k * dilation for k in range(kernel)]
        windows.append(([p for p in places if 0 <= p < n], min(start + kernel, n + padding) - start))
    return windows


def _adaptive_windows(n, count):
    regions = [list(range(o * n // count, -((o + 1) * n // -count))) for o in range(count)]
    return [(region, len(region)) for region in regions]


def _pooled(x, rows, columns, reduce):
    """reduce(patch, extent) on every window of every map."""
    y = np.empty((*x.shape[:2], len(rows), len(columns)))
    for i, (h, height) in enumerate(rows):
        for j, (w, width) in enumerate(columns):
            y[:, :, i, j] = reduce(x[:, :, h][:, :, :, w], height * width)
    return y


def _pair(value):
    return value if isinstance(value, tuple) else (value, value)


def _fixed(x, reduce, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    k, p, d = _pair(kernel_size), _pair(padding), _pair(dilation)
    s = k if stride is None else _pair(stride)
    return _pooled(x, *(_fixed_windows(x.shape[2 + a], k[a], s[a], p[a], d[a], ceil_mode) for a in (0, 1)), reduce)


def _maximum(patch, _):
    return patch.max((2, 3))


def _max_reference(x, **options):
    return _fixed(x, _maximum, **options)


def _avg_reference(x, count_include_pad=True, divisor_override=None, **options):
    def mean(patch, extent):
        size = patch.shape[2] * patch.shape[3]
        return patch.sum((2, 3)) / (divisor_override or (extent if count_include_pad else size))
    return _fixed(x, mean, **options)


def _adaptive_reference(x, reduce, output_size):
    size = [n if wanted is None else wanted for n, wanted in zip(x.shape[2:], _pair(output_size))]
    return _pooled(x, *(_adaptive_windows(x.shape[2 + a], size[a]) for a in (0, 1)), reduce)


def _mean(patch, _):
    return patch.mean((2, 3))


_MAPS = ((2, 6, 8, 10), (1, 67, 5, 6), (2, 17, 7, 7), (0, 3, 6, 6), (1, 1, 4, 4))
_WINDOWS = ({"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1},
            {"kernel_size": (2, 3), "stride": (1, 2)},
            {"kernel_size": 3, "stride": 2, "ceil_mode": True}, {"kernel_size": 2, "stride": 3, "padding": (1, 0)})


def _samples(windows):
    return lambda rng: [Sample((_apart(rng, shape),), window) for shape in _MAPS for window in windows]


def _bytes(reference, per_output):
    """x once and every output once: `per_output` bytes each."""
    def count(x, **options):
        outputs = reference(np.zeros((1, 1, *x[2:])), **options).size
        return 4 * int(np.prod(x)) + per_output * outputs * x[0] * x[1]
    return count


def _benchmarks(*cases):
    return lambda rng: [Sample((rng.standard_normal(shape),), options) for shape, options in cases]


register(OpSpec("max_pool2d", pool.max_pool2d, _max_reference,
                _samples((*_WINDOWS, {"kernel_size": 2, "stride": 1, "dilation": 2})), gradients=(0,), exact=True,
                bytes=_bytes(_max_reference, 4),
                benchmarks=_benchmarks(((16, 64, 224, 224), {"kernel_size": 2}),
                                       ((16, 64, 112, 112), {"kernel_size": 3, "stride": 2, "padding": 1}),
                                       ((64, 6, 28, 28), {"kernel_size": 2}))))
register(OpSpec("avg_pool2d", pool.avg_pool2d, _avg_reference,
                _samples((*_WINDOWS, {"kernel_size": 3, "padding": 1, "count_include_pad": False},
                          {"kernel_size": 2, "divisor_override": 3})),
                gradients=(0,),
                bytes=_bytes(_avg_reference, 4),
                benchmarks=_benchmarks(((16, 256, 28, 28), {"kernel_size": 2}),
                                       ((64, 16, 10, 10), {"kernel_size": 2}))))

_SIZES = ({"output_size": 1}, {"output_size": (2, 3)}, {"output_size": (None, 7)})
register(OpSpec("adaptive_max_pool2d", pool.adaptive_max_pool2d, lambda x, **o: _adaptive_reference(x, _maximum, **o),
                _samples(_SIZES), gradients=(0,), exact=True))
register(OpSpec("adaptive_avg_pool2d", pool.adaptive_avg_pool2d, lambda x, **o: _adaptive_reference(x, _mean, **o),
                _samples(_SIZES), gradients=(0,), bytes=lambda x, **o: 4 * int(np.prod(x)),
                benchmarks=_benchmarks(((16, 512, 7, 7), {"output_size": 1}))))
register(OpSpec("global_avg_pool2d", pool.global_avg_pool2d, lambda x: x.mean((2, 3), keepdims=True), _samples(({},)),
                gradients=(0,),
                peer="adaptive_avg_pool2d"))
register(OpSpec("global_max_pool2d", pool.global_max_pool2d, lambda x: x.max((2, 3), keepdims=True), _samples(({},)),
                gradients=(0,),
                exact=True, peer="adaptive_max_pool2d"))


def _lp_reference(x, norm_type, kernel_size, stride, axes=2):
    """Windows that fit."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel_size,) * axes, tuple(range(-axes, 0)))
    taken = windows[(..., *[slice(None, None, stride)] * axes, *[slice(None)] * axes)]
    return (taken**norm_type).sum(tuple(range(-axes, 0))) ** (1 / norm_type)


def _positive(*cases):
    """Values above 0, of which every power has a root."""
    return lambda rng: [Sample((rng.uniform(0.2, 2, shape),), options) for shape, options in cases]


register(OpSpec("lp_pool2d", lp_pool.lp_pool2d, _lp_reference,
                _positive(((2, 3, 7, 8), {"norm_type": 2.0, "kernel_size": 3, "stride": 2}),
                          ((3, 5, 6), {"norm_type": 3.0, "kernel_size": 2, "stride": 1}),
                          ((2, 19, 4, 4), {"norm_type": 1.0, "kernel_size": 4, "stride": 4})),
                gradients=(0,), tolerance=16))
register(OpSpec("lp_pool1d", lp_pool.lp_pool1d, lambda x, **options: _lp_reference(x, axes=1, **options),
                _positive(((2, 3, 17), {"norm_type": 2.0, "kernel_size": 3, "stride": 2}),
                          ((3, 9), {"norm_type": 3.0, "kernel_size": 2, "stride": 1})),
                gradients=(0,), tolerance=16))


def _starts(u, n, outputs, kernel):
    a = (n - kernel) / max(outputs - 1, 1)
    return [int((i + u) * a) - int(u * a) for i in range(outputs - 1)] + [n - kernel]


def _fractional_reference(x, samples, kernel_size, output_size):
    (kh, kw), (rows, columns) = _pair(kernel_size), _pair(output_size)
    y = np.empty((*x.shape[:2], rows, columns))
    for n, c in np.ndindex(*x.shape[:2]):
        for i, h in enumerate(_starts(samples[n, c, 1], x.shape[2], rows, kh)):
            for j, w in enumerate(_starts(samples[n, c, 0], x.shape[3], columns, kw)):
                y[n, c, i, j] = x[n, c, h:h + kh, w:w + kw].max()
    return y


def _fractional_samples(rng):
    for shape, kernel, size in (((2, 3, 7, 9), 2, (4, 5)), ((1, 20, 6, 6), (3, 1), (3, 6)), ((1, 2, 4, 4), 2, 1),
                                ((0, 3, 5, 5), 2, 2), ((1, 1, 1, 1), 1, 1)):
        yield Sample((_apart(rng, shape), rng.uniform(0, 1, (*shape[:2], 2))), {"kernel_size": kernel, "output_size": size})


register(OpSpec("fractional_max_pool2d", lambda x, u, **options: fractional_pool.fractional_max_pool2d(
    x, _random_samples=u, **options), _fractional_reference, lambda rng: list(_fractional_samples(rng)), gradients=(0,),
    exact=True))
