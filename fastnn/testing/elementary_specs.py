"""OpSpecs of fastnn/ops/elementary.py."""

from __future__ import annotations

import numpy as np

from ..ops import elementary
from .spec import OpSpec, Sample, register

_SHAPES = ((37,), (0, 3), (2, 3, 5, 4), (9, 3000))


def _unary(name, reference, draw, **more):
    more = {"gradients": (0,), "special_values": True, **more}
    register(OpSpec(name, getattr(elementary, name), reference, lambda rng: [Sample((draw(rng, shape),)) for shape in _SHAPES],
                    elementwise=True, bytes=lambda shape: 8 * int(np.prod(shape)),
                    benchmarks=lambda rng: [Sample((draw(rng, (1024, 1024)),))], **more))


def _normal(rng, shape):
    return rng.standard_normal(shape)


def _between(rng, shape):
    """Away from halves, where a neighbour in float32 may be rounded to the other side; whole numbers are among them."""
    return rng.integers(-40, 40, shape) + rng.choice([0, 0.3, 0.7], shape)


def _positive(rng, shape):
    return rng.uniform(0.2, 3, shape)


for _name in ("floor", "ceil", "round", "trunc"):
    _unary(_name, getattr(np, _name), _between, gradients=(), exact=True)  # gradients: tests/interop/test_methods_torch.py
_unary("expm1", np.expm1, _normal)
_unary("log1p", np.log1p, lambda rng, shape: rng.uniform(-0.8, 3, shape))
_unary("reciprocal", lambda x: 1 / x, _positive)
_unary("rsqrt", lambda x: 1 / np.sqrt(x), _positive)



for _name in ("isnan", "isinf", "isfinite"):
    _unary(_name, getattr(np, _name), _normal, gradients=(), exact=True)


def _three(rng):
    cases = ((37,), (37,), (37,)), ((4, 1, 5), (3, 1), (5,)), ((2, 3, 5, 4), (3, 1, 1), ()), ((0, 3), (3,), (3,))
    return [tuple(np.asarray(rng.uniform(0.3, 2, shape)) for shape in shapes) for shapes in cases]


register(OpSpec("lerp", elementary.lerp, lambda a, b, w: a + w * (b - a), lambda rng: [Sample(t) for t in _three(rng)],
                gradients=(0, 1, 2)))
register(OpSpec("addcmul", elementary.addcmul, lambda x, a, b, value: x + value * a * b,
                lambda rng: [Sample(t, {"value": v}) for t, v in zip(_three(rng), (1.0, 0.5, -2.0, 3.0))], gradients=(0, 1, 2)))
register(OpSpec("addcdiv", elementary.addcdiv, lambda x, a, b, value: x + value * a / b,
                lambda rng: [Sample(t, {"value": v}) for t, v in zip(_three(rng), (1.0, 0.5, -2.0, 3.0))], gradients=(0, 1, 2),
                tolerance=8))
