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
    return [Sample((rng.standard_normal((16, c, s, s)), np.ones(c), np.zeros(c))) for c, s in ((64, 112), (64, 56), (512, 7))]


register(OpSpec("batch_norm_training", lambda x, weight, bias, eps=1e-5: norm.batch_norm(x, None, None, weight, bias, True, 0.1, eps),
                _training_reference, lambda rng: _samples(rng, False, _SHAPES), gradients=(0, 1, 2), tolerance=8.0,
                flops=lambda x, *_, **o: 8 * int(np.prod(x)), bytes=lambda x, *_, **o: 12 * int(np.prod(x)),
                benchmarks=_benchmarks, peer="batch_norm"))
register(OpSpec("batch_norm_inference",
                lambda x, mean, var, weight, bias, eps=1e-5: norm.batch_norm(x, mean, var, weight, bias, False, 0.1, eps),
                lambda x, mean, var, weight, bias, eps=1e-5: _reference(x, mean, var, weight, bias, eps),
                lambda rng: _samples(rng, True, (*_SHAPES, (0, 4, 3, 3))), gradients=(0, 3, 4), tolerance=8.0,
                flops=lambda x, *_, **o: 3 * int(np.prod(x)), bytes=lambda x, *_, **o: 8 * int(np.prod(x)), peer="batch_norm"))
