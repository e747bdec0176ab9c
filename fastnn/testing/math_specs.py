"""OpSpecs of fastnn/ops/math.py, division.py and power.py."""

from __future__ import annotations

import numpy as np

from ..ops import division, math, power, scatter
from .spec import OpSpec, Sample, register

_PAIRS = (((37,), (37,)), ((4, 1, 5), (3, 1)), ((2, 3, 5, 4), (3, 1, 1)), ((7, 300), ()), ((0, 3), (3,)),
          ((9, 3000), (9, 3000)))
_SHAPES = ((37,), (0, 3), (2, 3, 5, 4), (9, 3000))


def _numel(*shapes):
    """How many elements these shapes have, broadcast together."""
    return int(np.prod(np.broadcast_shapes(*shapes)))


def _unary(name, reference, draw, **more):
    def samples(rng):
        return [Sample((draw(rng, shape),)) for shape in _SHAPES]

    more = {"gradients": (0,), "special_values": True, **more}
    register(OpSpec(name, getattr(math, name), reference, samples, elementwise=True,
                    flops=lambda shape: int(np.prod(shape)),
                    bytes=lambda shape: 8 * int(np.prod(shape)),
                    benchmarks=lambda rng: [Sample((draw(rng, (1024, 1024)),))], **more))


def _binary(name, reference, draw_a, draw_b, **more):
    def samples(rng):
        return [Sample((np.asarray(draw_a(rng, a)), np.asarray(draw_b(rng, b)))) for a, b in _PAIRS]

    more = {"gradients": (0, 1), "special_values": True, **more}
    home = next(module for module in (math, division, power) if name in module.__all__)
    register(OpSpec(name, getattr(home, name), reference, samples, elementwise=True,
                    flops=lambda a, b: _numel(a, b),
                    bytes=lambda a, b: 4 * (_numel(a) + _numel(b) + _numel(a, b)),
                    benchmarks=lambda rng: [Sample((draw_a(rng, (1024, 1024)), draw_b(rng, (1024, 1024))))], **more))


def _normal(rng, shape):
    return rng.standard_normal(shape)


def _positive(rng, shape):
    return rng.uniform(0.2, 3, shape)


def _off_zero(rng, shape):
    return rng.uniform(0.2, 3, shape) * rng.choice([-1.0, 1.0], shape)


def _grid(offset):
    """Multiples of 0.1, so that two draws with different offsets never come close to each other."""
    return lambda rng, shape: rng.integers(-20, 20, shape) * 0.1 + offset


def _few(rng, shape):
    return rng.integers(-2, 3, shape).astype(float)


_binary("add", np.add, _normal, _normal, exact=True)
_binary("sub", np.subtract, _normal, _normal, exact=True)
_binary("mul", np.multiply, _normal, _normal, exact=True)
_binary("div", np.divide, _normal, _off_zero, exact=True)
_binary("pow", np.power, _positive, _normal)
_binary("maximum", np.maximum, _grid(0.0), _grid(0.05), exact=True)
_binary("minimum", np.minimum, _grid(0.0), _grid(0.05), exact=True)
_binary("fmod", np.fmod, _grid(0.013), _grid(0.052), gradients=(), exact=True)  # gradients: tests/interop/test_methods_torch.py
_binary("remainder", np.mod, _grid(0.013), _grid(0.052), gradients=(), exact=True)
_binary("floor_divide", np.floor_divide, _grid(0.013), _grid(0.052), gradients=(), exact=True)
for _name, _reference in (("eq", np.equal), ("ne", np.not_equal), ("lt", np.less), ("le", np.less_equal),
                          ("gt", np.greater),
                          ("ge", np.greater_equal)):
    _binary(_name, _reference, _few, _few, gradients=())

_unary("neg", np.negative, _normal, exact=True)
_unary("abs", np.abs, _off_zero, exact=True)
_unary("square", np.square, _normal, exact=True)
_unary("exp", np.exp, _normal, tolerance=1)
_unary("log", np.log, _positive, tolerance=1)
_unary("sqrt", np.sqrt, _positive, exact=True)

register(OpSpec("clip", math.clip, lambda x, min=None, max=None: np.clip(x, min, max),
                lambda rng: [Sample((_grid(0.05)(rng, shape),), o) for shape in _SHAPES
                             for o in ({"min": -0.6, "max": 0.9}, {"min": 0.2}, {"max": 0.1})],
                gradients=(0,), elementwise=True, special_values=True, tolerance=1,
                bytes=lambda shape, **_: 8 * int(np.prod(shape)),
                benchmarks=lambda rng: [Sample((_normal(rng, (1024, 1024)),), {"min": -0.6, "max": 0.9})],
                peer="clamp"))
register(OpSpec("pow_number", power.pow, lambda x, exponent: np.power(x, exponent),
                lambda rng: [Sample((_positive(rng, shape),), {"exponent": e}) for shape in _SHAPES[::3]
                             for e in (3.0, 4.0, -1.0, -2.0, 0.5, -0.5, 1.5, 2.5)],
                gradients=(0,), elementwise=True, special_values=True, peer="pow",
                bytes=lambda shape, exponent: 8 * int(np.prod(shape)),
                benchmarks=lambda rng: [Sample((_positive(rng, (1024, 1024)),), {"exponent": 3.0})]))
register(OpSpec("masked_fill", lambda x, mask: scatter.masked_fill(x, mask, -2.5), lambda x, mask: np.where(mask, -2.5, x),
                lambda rng: [Sample((_normal(rng, a), rng.random(m) < 0.5))
                             for a, m in (((37,), (37,)), ((4, 1, 5), (3, 1)), ((2, 3, 5, 4), (5, 1)))],
                gradients=(0,), exact=True))
register(OpSpec("where", math.where, np.where,
                lambda rng: [Sample((rng.random(c) < 0.5, _normal(rng, a), np.asarray(_normal(rng, b))))
                             for c, a, b in (((37,), (37,), (37,)), ((4, 1, 5), (3, 1), (1,)),
                                             ((2, 3, 5, 4), (3, 1, 1), ()),
                                             ((9, 3000), (9, 3000), (9, 3000)))],
                gradients=(1, 2), elementwise=True, exact=True,
                bytes=lambda c, a, b: int(np.prod(c)) + 4 * (_numel(a) + _numel(b) + _numel(c, a, b)),
                benchmarks=lambda rng: [Sample((rng.random((1024, 1024)) < 0.5, _normal(rng, (1024, 1024)),
                                                _normal(rng, (1024, 1024))))]))
