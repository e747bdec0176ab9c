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

_unary("frac", lambda x: x - np.trunc(x), lambda rng, shape: _between(rng, shape) + 0.1)
_unary("logit", lambda x: np.log(x / (1 - x)), lambda rng, shape: rng.uniform(0.1, 0.9, shape), tolerance=16)

for _name in ("isnan", "isinf", "isfinite", "isposinf", "isneginf"):
    _unary(_name, getattr(np, _name), _normal, gradients=(), exact=True)


def _three(rng):
    cases = ((37,), (37,), (37,)), ((4, 1, 5), (3, 1), (5,)), ((2, 3, 5, 4), (3, 1, 1), ()), ((0, 3), (3,), (3,))
    return [tuple(np.asarray(rng.uniform(0.3, 2, shape)) for shape in shapes) for shapes in cases]


register(OpSpec("lerp", elementary.lerp, lambda a, b, w: a + w * (b - a), lambda rng: [Sample(t) for t in _three(rng)],
                gradients=(0, 1, 2)))
register(OpSpec("lerp_number", elementary.lerp, lambda a, b, weight: a + weight * (b - a),
                lambda rng: [Sample(t[:2], {"weight": w}) for t, w in zip(_three(rng), (0.25, 0.75, 1.0, -2.0))], gradients=(0, 1),
                peer="lerp"))
register(OpSpec("addcmul", elementary.addcmul, lambda x, a, b, value: x + value * a * b,
                lambda rng: [Sample(t, {"value": v}) for t, v in zip(_three(rng), (1.0, 0.5, -2.0, 3.0))], gradients=(0, 1, 2)))
register(OpSpec("addcdiv", elementary.addcdiv, lambda x, a, b, value: x + value * a / b,
                lambda rng: [Sample(t, {"value": v}) for t, v in zip(_three(rng), (1.0, 0.5, -2.0, 3.0))], gradients=(0, 1, 2),
                tolerance=8))


def _pair(name, reference, draw, draw_b=None, **more):
    shapes = (((37,), (37,)), ((4, 1, 5), (3, 1)), ((2, 3, 5, 4), (3, 1, 1)), ((7, 300), ()))
    register(OpSpec(name, getattr(elementary, name), reference,
                    lambda rng: [Sample((np.asarray(draw(rng, a)), np.asarray((draw_b or draw)(rng, b)))) for a, b in shapes],
                    elementwise=True,
                    **{"gradients": (0, 1), **more}))


def _signed(rng, shape):
    return rng.uniform(0.3, 2, shape) * rng.choice([-1, 1], shape)


def _tenths(offset):
    """Multiples of 0.1, so that two draws with different offsets never come close to each other."""
    return lambda rng, shape: rng.integers(-20, 20, shape) * 0.1 + offset


def _xlogy(x, y):
    with np.errstate(all="ignore"):
        return np.where((x == 0) & ~np.isnan(y), 0, x * np.log(y))


_pair("copysign", np.copysign, _signed, gradients=(0,), special_values=True, exact=True)
_pair("fmax", np.fmax, _tenths(0), _tenths(0.05), special_values=True, exact=True)
_pair("fmin", np.fmin, _tenths(0), _tenths(0.05), special_values=True, exact=True)
_pair("xlogy", _xlogy, _positive, special_values=True)
_pair("logaddexp", np.logaddexp, _signed, tolerance=8, special_values=True)
_pair("isclose", np.isclose, lambda rng, shape: rng.integers(-4, 5, shape) * (1 + rng.choice([0, 4e-6, 4e-5, 1e-3], shape)),
      gradients=(), exact=True, special_values=True)


def _holed(rng, shape):
    x = rng.standard_normal(shape)
    x.reshape(-1)[::3] = np.nan
    return x


_unary("nan_to_num", lambda x: np.where(np.isnan(x), 0, x), _holed, exact=True, special_values=False)  # infinities: test_math.py
for _name, _function in (("nansum", np.nansum), ("nanmean", np.nanmean)):
    register(OpSpec(_name, getattr(elementary, _name), lambda x, dim=None, keepdim=False, _f=_function: _f(x, axis=dim,
                                                                                                           keepdims=keepdim),
                    lambda rng: [Sample((_holed(rng, s),), o) for s, o in
                                 (((37,), {}), ((4, 5), {"dim": 1}), ((3, 4, 5), {"dim": (0, 2), "keepdim": True}))]))
