"""OpSpecs of fastnn/ops/embedding.py."""

from __future__ import annotations

import numpy as np

from ..ops.embedding import embedding
from .spec import OpSpec, Sample, register


def _reference(index, weight, max_norm=None, norm_type=2.0):
    if max_norm is not None:
        norms = (np.abs(weight)**norm_type).sum(1, keepdims=True)**(1 / norm_type)
        used = np.isin(np.arange(len(weight)), index)[:, None]
        weight = np.where(used & (norms > max_norm), weight * (max_norm / (norms + 1e-7)), weight)
    return weight[index]


def _samples(rng):
    weight = rng.standard_normal((9, 5))
    return [Sample((rng.integers(0, 9, shape), weight)) for shape in ((4,), (2, 3), (0,), (2, 3, 4))]


def _limited(rng):
    return [Sample((rng.integers(0, 9, 6), rng.standard_normal((9, 5))), options)
            for options in ({"max_norm": 1.0}, {"max_norm": 2.0, "norm_type": 1.0})]


register(OpSpec("embedding", embedding, _reference, _samples, gradients=(1,)))
register(OpSpec("embedding_max_norm", embedding, _reference, _limited, tolerance=16.0))
