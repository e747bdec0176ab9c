"""OpSpecs of fastnn/ops/dropout.py."""

from __future__ import annotations

import numpy as np

from .. import _core
from ..ops.dropout import dropout
from ..random import Generator
from .spec import OpSpec, Sample, register

_SEED = 5


def _dropout(x, p, inverted):
    return dropout(x, p, inverted=inverted, generator=Generator(_SEED))


def _kept(shape, p):
    """Element e of the canonical order (N, H, W, C for four axes) stays if word e % 4 of block e / 4 is at least p."""
    n = int(np.prod(shape))
    words = np.array([w for block in range((n + 3) // 4) for w in _core.philox(_SEED, 0, block)][:n],
                     np.float64) / 2**32
    if len(shape) != 4:
        return words.reshape(shape) >= p
    return words.reshape(shape[0], shape[2], shape[3], shape[1]).transpose(0, 3, 1, 2) >= p


def _reference(x, p, inverted):
    return np.where(_kept(x.shape, p), x / (1 - p) if inverted else x, 0)


register(OpSpec("dropout", _dropout, _reference,
                lambda rng: [Sample((rng.standard_normal(s),), {"p": p, "inverted": inverted})
                             for s, p, inverted in (((37,), 0.5, True), ((2, 3, 5, 4), 0.3, True), ((0, 3), 0.5, True),
                                                    ((5, 4000), 0.2, False))],
                gradients=(0,), tolerance=1, bytes=lambda shape: 9 * int(np.prod(shape)),
                benchmarks=lambda rng: [Sample((rng.standard_normal((1024, 1024)),), {"p": 0.5, "inverted": True})]))
