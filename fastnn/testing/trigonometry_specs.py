"""OpSpecs of fastnn/ops/trigonometry.py."""

from __future__ import annotations

import math

import numpy as np

from ..ops import trigonometry
from .spec import OpSpec, Sample, register

_SHAPES = ((37,), (0, 3), (2, 3, 5, 4), (9, 3000))
_PAIRS = (((37,), (37,)), ((4, 1, 5), (3, 1)), ((2, 3, 5, 4), (3, 1, 1)), ((7, 300), ()), ((0, 3), (3,)))


def _normal(rng, shape):
    return 2 * rng.standard_normal(shape)


def _inside(rng, shape):
    return rng.uniform(-0.9, 0.9, shape)


def _positive(rng, shape):
    return rng.uniform(0.2, 3, shape)


def _above_1(rng, shape):
    return rng.uniform(1.1, 4, shape)


def _unary(name, reference, draw, **more):
    register(OpSpec(name, getattr(trigonometry, name), reference, lambda rng: [Sample((draw(rng, shape),)) for shape in _SHAPES],
                    gradients=(0,), elementwise=True, bytes=lambda shape: 8 * int(np.prod(shape)),
                    benchmarks=lambda rng: [Sample((draw(rng, (1024, 1024)),))], **{"special_values": True, **more}))


_unary("sin", np.sin, _normal)
_unary("cos", np.cos, _normal)
_unary("tan", np.tan, lambda rng, shape: rng.uniform(-1.2, 1.2, shape))
_unary("asin", np.arcsin, _inside, gradient_tolerance=64)
_unary("acos", np.arccos, _inside, gradient_tolerance=64)
_unary("atan", np.arctan, _normal)
_unary("sinh", np.sinh, _normal)
_unary("cosh", np.cosh, _normal)
_unary("asinh", np.arcsinh, _normal)
_unary("acosh", np.arccosh, _above_1)
_unary("atanh", np.arctanh, _inside, gradient_tolerance=64)
_unary("deg2rad", np.deg2rad, _normal)
_unary("rad2deg", np.rad2deg, _normal, special_values=False)  # 3e38 radians are infinitely many degrees in float32 only
_unary("erf", np.vectorize(math.erf, otypes=[float]), _normal)
_unary("exp2", np.exp2, _normal)
_unary("log2", np.log2, _positive)
_unary("log10", np.log10, _positive)


def _binary(name, reference, **more):
    register(OpSpec(name, getattr(trigonometry, name), reference,
                    lambda rng: [Sample(tuple(np.asarray(rng.uniform(0.3, 2, s) * rng.choice([-1, 1], s)) for s in pair))
                                 for pair in _PAIRS],
                    gradients=(0, 1), elementwise=True, **more))


_binary("atan2", np.arctan2, special_values=True)
_binary("hypot", np.hypot)
