"""OpSpecs of fastnn/ops/activation.py."""

from __future__ import annotations

import math

import numpy as np

from ..ops import activation, penalty
from ..ops.random_activation import rrelu
from .spec import OpSpec, Sample, register


def _off_zero(rng, shape):
    """Away from 0, where some activations have a kink or a jump."""
    return rng.uniform(0.05, 3, shape) * rng.choice([-1.0, 1.0], shape)


def _off(kinks, x):
    """x, moved away from where the function has a kink."""
    for kink in kinks:
        x = np.where(np.abs(x - kink) < 0.05, x + 0.1, x)
    return x


def _samples(options, kinks):
    def samples(rng):
        shapes = ((37,), (0, 3), (2, 3, 5, 4), (9, 5000))
        drawn = [_off_zero(rng, s) for s in shapes] + [rng.normal(0, 20, (3, 41))]
        return [Sample((_off(kinks, x),), options) for x in drawn]

    return samples


def _activation(name, reference, options=None, flops=1, kinks=(), **more):
    more.setdefault("special_values", True)
    function = more.pop("function", name)
    function = getattr(activation, function) if isinstance(function, str) else function
    register(OpSpec(name, function, reference, _samples(options or {}, kinks), gradients=(0,), elementwise=True,
                    flops=lambda shape, **_: flops * int(np.prod(shape)),
                    bytes=lambda shape, **_: 8 * int(np.prod(shape)),
                    benchmarks=lambda rng: [Sample((rng.standard_normal((1024, 1024)),), options or {})], **more))


def _sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


_activation("identity", lambda x: x, exact=True)
_activation("relu", lambda x: np.maximum(x, 0), exact=True)
_activation("leaky_relu", lambda x, negative_slope: np.where(x > 0, x, negative_slope * x), {"negative_slope": 0.1},
            tolerance=1)
_activation("sigmoid", _sigmoid, tolerance=2, flops=25)
_activation("tanh", np.tanh, tolerance=2, flops=30)
_activation("gaussian", lambda x: np.exp(-x * x / 2), tolerance=2, flops=20, peer="")
_activation("sign", np.sign, exact=True)
_activation("step", lambda x: np.heaviside(x, 1), exact=True, peer="")


register(OpSpec("activity_penalty", penalty.activity_penalty, lambda x, l1, l2: x, _samples({"l1": 0.1, "l2": 0.2}, ()),
                elementwise=True, exact=True, peer=""))  # its gradient: tests/test_regularize.py

# ---- smooth ----

_erfc = np.vectorize(math.erfc, otypes=[float])


def _gate(x, gate):
    """x times its gate; at -inf, where the gate is 0, the limit 0."""
    return np.where(np.isneginf(x), 0, x * gate)


def _elu(x, alpha=1.0, scale=1.0, rate=1.0):
    return scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(rate * x, 0)))


def _softplus(x, beta=1.0, threshold=20.0):
    return np.where(beta * x > threshold, x, np.logaddexp(0, beta * x) / beta)


def _softsign(x):
    return x / (1 + np.abs(x))


def _gelu_tanh(x, approximate):
    c = np.clip(x, -100, 100)
    return _gate(x, _sigmoid(2 * np.sqrt(2 / np.pi) * (c + 0.044715 * c**3)))


def _mish(x):
    e = np.exp(np.minimum(x, 50))
    return _gate(x, e * (e + 2) / (e * (e + 2) + 2))


_activation("elu", _elu, {"alpha": 0.7}, flops=20, kinks=(0,))
_activation("selu", lambda x: _elu(x, 1.6732632423543772, 1.0507009873554805), flops=20)
_activation("celu", lambda x, alpha: _elu(x, alpha, 1, 1 / alpha), {"alpha": 0.7}, flops=20)
_activation("gelu", lambda x: _gate(x, _erfc(-x / np.sqrt(2)) / 2), flops=45)
_activation("gelu_tanh", _gelu_tanh, {"approximate": "tanh"}, flops=35, function="gelu")
_activation("silu", lambda x: _gate(x, _sigmoid(x)), flops=25)
_activation("mish", _mish, flops=30)
_activation("softplus", _softplus, {"beta": 1.5, "threshold": 10.0}, flops=50)
_activation("logsigmoid", lambda x: -np.logaddexp(0, -x), flops=50)
_activation("softsign", _softsign, flops=3)
_activation("tanhshrink", lambda x: x - np.tanh(x), flops=30)


def _halved(rng):
    cases = ((36,), 0), ((5, 12), 1), ((6, 5), 0), ((2, 4, 3, 5), 1), ((2, 4, 3, 6), -1), ((0, 4), 1), ((4, 9000), -1)
    return [Sample((2 * rng.standard_normal(shape),), {"dim": dim}) for shape, dim in cases]


def _glu(x, dim):
    values, gate = np.split(x, 2, dim)
    return values * _sigmoid(gate)


register(OpSpec("glu", activation.glu, _glu, _halved, gradients=(0,)))

# ---- in straight pieces ----


def _hardsigmoid(x):
    return np.clip(x + 3, 0, 6) / 6


_activation("relu6", lambda x: np.clip(x, 0, 6), kinks=(0, 6), exact=True)
_activation("hardtanh", lambda x, min_val, max_val: np.clip(x, min_val, max_val), {"min_val": -0.7, "max_val": 1.5},
            kinks=(-0.7, 1.5), tolerance=1)
_activation("hardsigmoid", _hardsigmoid, kinks=(-3, 3))
_activation("hardswish", lambda x: _gate(x, _hardsigmoid(x)), kinks=(-3, 3))
_activation("softshrink", lambda x, lambd: x - np.clip(x, -lambd, lambd), {"lambd": 0.75}, kinks=(-0.75, 0.75),
            exact=True)
_activation("hardshrink", lambda x, lambd: np.where(np.abs(x) <= lambd, 0, x), {"lambd": 0.75},
            kinks=(-0.75, 0.75), exact=True)
_activation("threshold", lambda x, threshold, value: np.where(x <= threshold, value, x),
            {"threshold": 0.75, "value": -2.0}, kinks=(0.75,), exact=True)


def _prelu(x, weight):
    return np.where(x > 0, x, x * (weight.reshape(weight.size, *(1,) * (x.ndim - 2)) if weight.size != 1 else weight))


def _prelu_samples(rng):
    cases = (((37,), 1), ((4, 5), 5), ((4, 5), 1), ((2, 3, 5, 4), 3), ((2, 3, 5, 4), 1), ((3, 70, 50), 70), ((0, 3), 3),
             ((4, 0, 3), 0))
    return [Sample((_off_zero(rng, shape), rng.uniform(0.1, 0.9, n))) for shape, n in cases]


def _maxout(x, pieces, dim):
    axis = dim % x.ndim
    return x.reshape(*x.shape[:axis], -1, pieces, *x.shape[axis + 1:]).max(axis + 1)


def _maxout_samples(rng):
    cases = ((5, 12), 3, 1), ((5, 12), 1, -1), ((2, 6, 3, 5), 2, 1), ((4, 6), 4, 0), ((30, 900), 3, 1)
    return [Sample((rng.permutation(int(np.prod(shape))).reshape(shape) / 7.0,), {"pieces": pieces, "dim": dim})
            for shape, pieces, dim in cases]


_activation("rrelu", lambda x, lower, upper: np.where(x > 0, x, x * (lower + upper) / 2), {"lower": 0.2, "upper": 0.5},
            kinks=(0,), function=rrelu)  # its random slopes: tests/test_random.py
register(OpSpec("prelu", activation.prelu, _prelu, _prelu_samples, gradients=(0, 1)))
register(OpSpec("maxout", activation.maxout, _maxout, _maxout_samples, gradients=(0,), exact=True, peer=""))
