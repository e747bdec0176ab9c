"""OpSpecs of fastnn/ops/special.py."""

from __future__ import annotations

import math

import numpy as np

from ..ops import special
from .spec import OpSpec, Sample, register

_SHAPES = ((37,), (0, 3), (2, 3, 5, 4), (9, 300))


def _digamma(x):
    """By the reflection below 1/2, then by recurrence up to 20 and the asymptotic series there."""
    y, below = np.zeros_like(x), x < 0.5
    up = np.where(below, 1 - x, x)
    for _ in range(20):
        y, up = y - 1 / up, up + 1
    y += np.log(up) - 1 / (2 * up) - 1 / (12 * up**2) + 1 / (120 * up**4) - 1 / (252 * up**6) + 1 / (240 * up**8)
    return np.where(below, y - np.pi / np.tan(np.pi * x), y)


def _erfinv(x):
    """By Newton's method from the series' first terms."""
    erf = np.vectorize(math.erf, otypes=[float])
    y = np.sqrt(np.pi) / 2 * (x + np.pi / 12 * x**3)
    for _ in range(12):
        y = y - (erf(y) - x) * np.sqrt(np.pi) / 2 * np.exp(y * y)
    return y


def _either_side(rng, shape):
    """Away from the poles below 0 and from the zeros between them."""
    return np.where(rng.uniform(size=shape) < 0.3, rng.uniform(-0.9, -0.1, shape), rng.uniform(0.05, 20, shape))


def _register(name, reference, draw, **more):
    register(OpSpec(name, getattr(special, name), reference, lambda rng: [Sample((draw(rng, shape),)) for shape in _SHAPES],
                    gradients=(0,), elementwise=True, bytes=lambda shape: 8 * int(np.prod(shape)),
                    benchmarks=lambda rng: [Sample((draw(rng, (1024, 1024)),))], **more))


_register("lgamma", np.vectorize(math.lgamma, otypes=[float]), _either_side, gradient_tolerance=256)
_register("digamma", _digamma, _either_side, gradient_tolerance=256, tolerance=16)
_register("erfinv", _erfinv, lambda rng, shape: rng.uniform(-0.95, 0.95, shape), gradient_tolerance=64)
