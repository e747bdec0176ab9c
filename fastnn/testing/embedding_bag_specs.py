"""OpSpecs of fastnn/ops/embedding_bag.py."""

from __future__ import annotations

import numpy as np

from ..ops.embedding_bag import embedding_bag
from .spec import OpSpec, Sample, register

_REDUCTIONS = {"sum": lambda rows: rows.sum(0), "mean": lambda rows: rows.mean(0), "max": lambda rows: rows.max(0)}


def _reference(x, weight, offsets, factors, mode, include_last_offset=False, padding_idx=None):
    starts = np.arange(len(x)) * x.shape[-1] if offsets is None else offsets[:-1] if include_last_offset else offsets
    flat, factors = x.ravel() % len(weight), np.ones(x.size) if factors is None else factors.ravel()
    y = np.zeros((len(starts), weight.shape[1]))
    for b, (start, end) in enumerate(zip(starts, [*starts[1:], x.size])):
        kept = [j for j in range(start, end) if padding_idx is None or flat[j] != padding_idx % len(weight)]
        if kept:
            y[b] = _REDUCTIONS[mode](weight[flat[kept]] * factors[kept, None])
    return y


def _samples(rng):
    table = rng.permutation(13 * 21).reshape(13, 21) / 20.0  # greatest elements stay so under small changes
    offsets = np.array([0, 3, 3, 4, 11])
    for mode in ("sum", "mean", "max"):
        yield Sample((rng.integers(-13, 13, (6, 5)), table, None, None), {"mode": mode})
        yield Sample((rng.integers(0, 13, 17), table, offsets, None), {"mode": mode, "padding_idx": 4})
        yield Sample((rng.integers(0, 4, (900, 3)), table[:4, :2].copy(), None, None), {"mode": mode, "padding_idx": -1})
        yield Sample((rng.integers(0, 13, (0, 5)), table, None, None), {"mode": mode})
    yield Sample((rng.integers(0, 13, 17), table, np.append(offsets, 17), rng.standard_normal(17)),
                 {"mode": "sum", "include_last_offset": True, "padding_idx": 2})
    yield Sample((rng.integers(0, 13, (40, 7)), table, None, rng.standard_normal((40, 7))), {"mode": "sum"})


register(OpSpec("embedding_bag", lambda x, weight, offsets, factors, **options: embedding_bag(
    x, weight, offsets, per_sample_weights=factors, **options), _reference, lambda rng: list(_samples(rng)),
    gradients=(1, 3), tolerance=8))
