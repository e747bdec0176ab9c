"""OpSpecs of fastnn/ops/softmax.py."""

from __future__ import annotations

import numpy as np

from ..ops import softmax
from .spec import OpSpec, Sample, register

_CASES = ((7,), 0), ((5, 10), 1), ((5, 10), 0), ((3, 65), -1), ((2, 300), 1), ((2, 19, 3, 4), 1), \
    ((2, 3, 4, 5), 3), ((2, 5, 7), 1), ((0, 4), 1), ((40, 1), 1), ((900, 10), 1)


def _samples(rng):
    return [Sample((3 * rng.standard_normal(shape),), {"dim": dim}) for shape, dim in _CASES]


def _benchmarks(rng):
    return [Sample((rng.standard_normal(shape),), {"dim": 1}) for shape in ((64, 10), (200, 10), (4096, 1000))]


def _log_softmax(x, dim):
    shifted = x - x.max(dim, keepdims=True, initial=-np.inf)
    return shifted - np.log(np.exp(shifted).sum(dim, keepdims=True))


def _bytes(shape, **options):
    return 8 * int(np.prod(shape))


register(OpSpec("softmax", softmax.softmax, lambda x, dim: np.exp(_log_softmax(x, dim)), _samples, gradients=(0,),
                tolerance=8, bytes=_bytes, benchmarks=_benchmarks))
register(OpSpec("log_softmax", softmax.log_softmax, _log_softmax, _samples, gradients=(0,), bytes=_bytes,
                benchmarks=_benchmarks))
register(OpSpec("softmin", softmax.softmin, lambda x, dim: np.exp(_log_softmax(-x, dim)), _samples, gradients=(0,),
                tolerance=8))
