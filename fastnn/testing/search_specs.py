"""OpSpecs of fastnn/ops/search.py."""

from __future__ import annotations

import numpy as np

from ..ops import search
from .spec import OpSpec, Sample, register

_SIDES = ({}, {"right": True})


def _halves(rng, shape):
    """Few different values, so that many are equal."""
    return rng.integers(-20, 20, shape) * 0.5


def _row_by_row(sorted_sequence, values, right=False):
    rows = [np.searchsorted(s, v, "right" if right else "left")
            for s, v in zip(sorted_sequence.reshape(-1, sorted_sequence.shape[-1]), values.reshape(-1, values.shape[-1]))]
    return np.array(rows).reshape(values.shape)


register(OpSpec("searchsorted", search.searchsorted, _row_by_row,
                lambda rng: [Sample((np.sort(_halves(rng, (*lead, n))), _halves(rng, (*lead, m))), o)
                             for lead, n, m in (((3,), 7, 4), ((2, 5), 16, 33), ((2, 2, 3), 1, 2), ((2,), 1000, 5000)) for o in _SIDES],
                exact=True))
register(OpSpec("bucketize", search.bucketize,
                lambda x, boundaries, right=False: np.searchsorted(boundaries, x, "right" if right else "left"),
                lambda rng: [Sample((_halves(rng, shape), np.sort(_halves(rng, n))), o)
                             for shape, n in (((9,), 6), ((2, 3, 5, 4), 17), ((0, 3), 2), ((4, 1), 0), ((40, 300), 100)) for o in _SIDES],
                exact=True, benchmarks=lambda rng: [Sample((rng.standard_normal((1024, 1024)), np.sort(rng.standard_normal(256))))],
                bytes=lambda x, boundaries, **options: 12 * int(np.prod(x))))
register(OpSpec("isin", search.isin, lambda x, others, invert=False: np.isin(x, others, invert=invert),
                lambda rng: [Sample((_halves(rng, a), _halves(rng, b)), o)
                             for a, b in (((30,), (9,)), ((2, 3, 4, 5), (3, 3)), ((5, 2), (0,)))
                             for o in ({}, {"invert": True})], exact=True))


def _counted(x, bins, low, high):
    """Draws are far from all edges, so that rounding moves none to another bin."""
    return np.histogram(x, bins, (low, high))[0].astype(float)


def _in_bins(rng, shape, bins, low, high):
    places = rng.integers(-1, bins + 1, shape) + rng.uniform(0.1, 0.9, shape)
    return Sample((low + places * (high - low) / bins,), {"bins": bins, "low": low, "high": high})


register(OpSpec("histc", lambda x, bins, low, high: search.histc(x, bins, low, high), _counted,
                lambda rng: [_in_bins(rng, shape, bins, -1.0, 2.0)
                             for shape in ((7,), (5, 40), (2, 3, 4, 5), (70, 900)) for bins in (1, 13)],
                exact=True))
