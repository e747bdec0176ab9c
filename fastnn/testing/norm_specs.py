"""OpSpecs of fastnn/ops/norm.py."""

from __future__ import annotations

import numpy as np

from ..ops import norm
from .spec import OpSpec, Sample, register


def _per_channel(x, value):
    return value.reshape(1, -1, *[1] * (x.ndim - 2))


def _reference(x, mean, var, weight, bias, eps):
    y = (x - _per_channel(x, mean)) / np.sqrt(_per_channel(x, var) + eps)
    return y * (1 if weight is None else _per_channel(x, weight)) + (0 if bias is None else _per_channel(x, bias))


def _training_reference(x, weight, bias, eps=1e-5):
    axes = (0, *range(2, x.ndim))
    return _reference(x, x.mean(axes), x.var(axes), weight, bias, eps)


_SHAPES = ((7, 5), (2, 1), (4, 33, 11), (3, 17, 6, 5), (2, 70, 3, 3), (2, 5, 3, 4, 3))


def _samples(rng, statistics, shapes):
    samples = []
    for shape in shapes:
        x, channels = 0.7 + 1.3 * rng.standard_normal(shape), shape[1]
        fixed = (0.5 * rng.standard_normal(channels), rng.uniform(0.5, 2, channels)) if statistics else ()
        samples.append(Sample((x, *fixed, rng.uniform(0.5, 2, channels), rng.standard_normal(channels))))
        samples.append(Sample((x, *fixed, None, None), {"eps": 0.1}))
    return samples


def _benchmarks(rng):
    return [Sample((rng.standard_normal((16, c, s, s)), np.ones(c), np.zeros(c)))
            for c, s in ((64, 112), (64, 56), (512, 7))]


register(OpSpec("batch_norm_training",
                lambda x, weight, bias, eps=1e-5: norm.batch_norm(x, None, None, weight, bias, True, 0.1, eps),
                _training_reference, lambda rng: _samples(rng, False, _SHAPES), gradients=(0, 1, 2), tolerance=8.0,
                flops=lambda x, *_, **o: 8 * int(np.prod(x)), bytes=lambda x, *_, **o: 12 * int(np.prod(x)),
                benchmarks=_benchmarks, peer="none"))  # PyTorch's takes running statistics before the weight
register(OpSpec("batch_norm_inference",
                lambda x, mean, var, weight, bias, eps=1e-5:
                norm.batch_norm(x, mean, var, weight, bias, False, 0.1, eps),
                lambda x, mean, var, weight, bias, eps=1e-5: _reference(x, mean, var, weight, bias, eps),
                lambda rng: _samples(rng, True, (*_SHAPES, (0, 4, 3, 3))), gradients=(0, 3, 4), tolerance=8.0,
                flops=lambda x, *_, **o: 3 * int(np.prod(x)), bytes=lambda x, *_, **o: 8 * int(np.prod(x)),
                peer="batch_norm"))


def _rows_reference(x, weight, bias, dims, eps, mean):
    axes = tuple(range(x.ndim - dims, x.ndim))
    d = x - x.mean(axes, keepdims=True) if mean else x
    y = d / np.sqrt((d * d).mean(axes, keepdims=True) + eps)
    return y * (1 if weight is None else weight) + (0 if bias is None else bias)


def _row_samples(rng, parameters):
    samples = []
    for shape, dims in (((7, 5), 1), ((3, 70), 1), ((1, 16), 1), ((2, 9, 133), 1), ((40, 300), 1), ((3, 4, 6), 2),
                        ((2, 3, 5, 9), 1),
                        ((2, 3, 4, 5), 3), ((67,), 1), ((0, 8), 1), ((130, 33), 1)):
        x, inner = 0.7 + 1.3 * rng.standard_normal(shape), shape[len(shape) - dims:]
        given = (rng.uniform(0.5, 2, inner), rng.standard_normal(inner))[:parameters]
        samples.append(Sample((x, *given), {"dims": dims}))
        samples.append(Sample((x, *[None] * parameters), {"dims": dims, "eps": 0.1}))
    return samples


def _row_benchmarks(rng, parameters):
    return [Sample((rng.standard_normal((rows, n)), *(np.ones(n), np.zeros(n))[:parameters]))
            for rows, n in ((4096, 512), (1024, 1024))]


def _layer_norm(x, weight, bias, dims=1, eps=1e-5):
    return norm.layer_norm(x, x.shape[x.ndim - dims:], weight, bias, eps)


def _rms_norm(x, weight, dims=1, eps=1e-5):
    return norm.rms_norm(x, x.shape[x.ndim - dims:], weight, eps)


register(OpSpec("layer_norm", _layer_norm, lambda x, w, b, dims=1, eps=1e-5: _rows_reference(x, w, b, dims, eps, True),
                lambda rng: _row_samples(rng, 2), gradients=(0, 1, 2), tolerance=8.0,
                flops=lambda x, *_, **o: 8 * int(np.prod(x)),
                bytes=lambda x, *_, **o: 8 * int(np.prod(x)), benchmarks=lambda rng: _row_benchmarks(rng, 2),
                peer="none"))
register(OpSpec("rms_norm", _rms_norm, lambda x, w, dims=1, eps=1e-5: _rows_reference(x, w, None, dims, eps, False),
                lambda rng: _row_samples(rng, 1), gradients=(0, 1), tolerance=8.0,
                flops=lambda x, *_, **o: 5 * int(np.prod(x)),
                bytes=lambda x, *_, **o: 8 * int(np.prod(x)), benchmarks=lambda rng: _row_benchmarks(rng, 1),
                peer="none"))


def _group_reference(x, weight, bias, groups, eps=1e-5):
    grouped = x.reshape(x.shape[0], groups, -1)
    y = (grouped - grouped.mean(2, keepdims=True)) / np.sqrt(grouped.var(2, keepdims=True) + eps)
    return _reference(y.reshape(x.shape), np.zeros(x.shape[1]), np.ones(x.shape[1]), weight, bias, 0.0)


def _group_samples(rng):
    samples = []
    for shape, groups in (((3, 6), 2), ((2, 6, 5), 3), ((3, 8, 6, 5), 4), ((2, 34, 9, 9), 2), ((1, 5, 40, 30), 5),
                          ((2, 4, 3, 4, 3), 1)):
        x, channels = 0.7 + 1.3 * rng.standard_normal(shape), shape[1]
        samples.append(Sample((x, rng.uniform(0.5, 2, channels), rng.standard_normal(channels)), {"groups": groups}))
        samples.append(Sample((x, None, None), {"groups": groups, "eps": 0.1}))
    return samples


def _instance_samples(rng):
    return [Sample(s.inputs, {"eps": 0.01 * (k + 1)}) for k, s in enumerate(_group_samples(rng))
            if s.inputs[0].ndim > 2]


register(OpSpec("group_norm", lambda x, weight, bias, groups, eps=1e-5: norm.group_norm(x, groups, weight, bias, eps),
                _group_reference,
                _group_samples, gradients=(0, 1, 2), tolerance=8.0, flops=lambda x, *_, **o: 8 * int(np.prod(x)),
                bytes=lambda x, *_, **o: 12 * int(np.prod(x)), peer="none",
                benchmarks=lambda rng: [Sample((rng.standard_normal((16, 64, 56, 56)), np.ones(64), np.zeros(64)),
                                               {"groups": 8})]))
register(OpSpec("instance_norm",
                lambda x, weight, bias, eps=1e-5: norm.instance_norm(x, None, None, weight, bias, True, 0.1, eps),
                lambda x, weight, bias, eps=1e-5: _group_reference(x, weight, bias, x.shape[1], eps), _instance_samples,
                gradients=(0, 1, 2), tolerance=8.0))
