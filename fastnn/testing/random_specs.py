"""OpSpecs of fastnn/ops/dropout.py."""

from __future__ import annotations

import numpy as np

from .. import _core
from ..ops.dropout import alpha_dropout, dropout, dropout1d, dropout2d, feature_alpha_dropout
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
                gradients=(0,), tolerance=1, bytes=lambda shape, **_: 9 * int(np.prod(shape)),
                benchmarks=lambda rng: [Sample((rng.standard_normal((1024, 1024)),), {"p": 0.5, "inverted": True})]))


def _kept_channels(x, p, batch=2):
    shape = (*x.shape[:batch], *[1] * (x.ndim - batch))
    return _kept(shape, p)


def _affine(x, p, kept):
    """y = a (kept ? x : s) + b, of mean 0 and variance 1 for such x; s: SELU's limit."""
    s = -1.0507009873554805 * 1.6732632423543772
    a = ((1 - p) * (1 + p * s**2)) ** -0.5
    return a * np.where(kept, x, s) - a * p * s


def _seeded(function):
    return lambda x, p: function(x, p, generator=Generator(_SEED))


_RATES = (0.5, 0.3, 0.1)


def _shapes(*shapes):
    return lambda rng: [Sample((rng.standard_normal(s),), {"p": p}) for s, p in zip(shapes, _RATES)]


register(OpSpec("alpha_dropout", _seeded(alpha_dropout), lambda x, p: _affine(x, p, _kept(x.shape, p)),
                _shapes((37,), (2, 3, 5, 4), (5, 4000)), gradients=(0,), tolerance=8))
register(OpSpec("feature_alpha_dropout", _seeded(feature_alpha_dropout), lambda x, p: _affine(x, p, _kept_channels(x, p)),
                _shapes((3, 7), (2, 3, 5, 4), (5, 40, 3)), gradients=(0,), tolerance=8))
register(OpSpec("dropout1d", _seeded(dropout1d), lambda x, p: x * _kept_channels(x, p, x.ndim - 1) / (1 - p),
                _shapes((7, 5), (2, 9, 4), (5, 40, 3)), gradients=(0,), tolerance=4))
register(OpSpec("dropout2d", _seeded(dropout2d), lambda x, p: x * _kept_channels(x, p, x.ndim - 2) / (1 - p),
                _shapes((7, 5, 2), (2, 3, 5, 4), (5, 40, 3, 3)), gradients=(0,), tolerance=4))
