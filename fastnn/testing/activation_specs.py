"""OpSpecs of fastnn/ops/activation.py."""

from __future__ import annotations

import numpy as np

from ..ops import activation
from .spec import OpSpec, Sample, register


def _off_zero(rng, shape):
    """Away from 0, where some activations have a kink or a jump."""
    return rng.uniform(0.05, 3, shape) * rng.choice([-1.0, 1.0], shape)


def _samples(options):
    def samples(rng):
        shapes = ((37,), (0, 3), (2, 3, 5, 4), (9, 5000))
        return [Sample((_off_zero(rng, s),), options) for s in shapes] + [Sample((rng.normal(0, 20, (3, 41)),), options)]

    return samples


def _activation(name, reference, options=None, flops=1, **more):
    function = getattr(activation, name)
    register(OpSpec(name, function, reference, _samples(options or {}), gradients=(0,), elementwise=True, special_values=True,
                    flops=lambda shape: flops * int(np.prod(shape)), bytes=lambda shape: 8 * int(np.prod(shape)),
                    benchmarks=lambda rng: [Sample((rng.standard_normal((1024, 1024)),), options or {})], **more))


def _sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


_activation("identity", lambda x: x, exact=True)
_activation("relu", lambda x: np.maximum(x, 0), exact=True)
_activation("leaky_relu", lambda x, negative_slope: np.where(x > 0, x, negative_slope * x), {"negative_slope": 0.1}, tolerance=1)
_activation("sigmoid", _sigmoid, tolerance=2, flops=25)
_activation("tanh", np.tanh, tolerance=2, flops=30)
_activation("gaussian", lambda x: np.exp(-x * x / 2), tolerance=2, flops=20, peer="")
_activation("sign", np.sign, exact=True)
_activation("step", lambda x: np.heaviside(x, 1), exact=True, peer="")
