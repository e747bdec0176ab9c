"""OpSpecs of fastnn/ops/reduce.py."""

from __future__ import annotations

import numpy as np

from ..ops import reduce
from .spec import OpSpec, Sample, register

_DIMS = (({"dim": None}, (5,)), ({"dim": 0}, (3, 5)), ({"dim": -1, "keepdim": True}, (40, 37)),
         ({"dim": (0, 2)}, (3, 4, 70)), ({"dim": (0, 2, 3)}, (2, 19, 5, 6)),
         ({"dim": 1, "keepdim": True}, (2, 3, 4, 5)),
         ({"dim": 2}, (2, 3, 4, 5)),
         ({"dim": None}, (2, 130, 3, 4)), ({"dim": 0}, (300, 40)), ({"dim": (1, 3)}, (2, 3, 2, 3, 2)))
_EMPTY = (({"dim": 0}, (0, 3)), ({"dim": 1}, (0, 3)))


def _samples(cases, values=lambda rng, shape: rng.standard_normal(shape)):
    return lambda rng: [Sample((values(rng, shape),), options) for options, shape in cases]


def _apart(rng, shape):
    """Values in random order, no two closer than 0.1: extrema stay where they are under small changes."""
    return 0.1 * (rng.permutation(int(np.prod(shape))) - 7.0).reshape(shape)


def _numpy(function):
    return lambda x, dim=None, keepdim=False, **o: function(x, axis=dim, keepdims=keepdim, **o)


def _bytes(shape, **options):
    return 4 * int(np.prod(shape))


def _benchmarks(rng):
    return [Sample((rng.standard_normal(shape),), {"dim": dim})
            for shape, dim in (((4096, 4096), 0), ((4096, 4096), 1), ((64, 10), 0), ((16, 64, 112, 112), (0, 2, 3)))]


register(OpSpec("sum", reduce.sum, _numpy(np.sum), _samples(_DIMS + _EMPTY), gradients=(0,), bytes=_bytes,
                benchmarks=_benchmarks))
register(OpSpec("mean", reduce.mean, _numpy(np.mean), _samples(_DIMS + _EMPTY[1:]), gradients=(0,), bytes=_bytes,
                benchmarks=_benchmarks))
for _name, _function in (("amax", np.max), ("amin", np.min)):
    register(OpSpec(_name, getattr(reduce, _name), _numpy(_function), _samples(_DIMS, _apart), gradients=(0,),
                    exact=True, bytes=_bytes, benchmarks=_benchmarks))


def _with_zeros(rng, shape):
    return rng.standard_normal(shape) * (rng.random(shape) < 0.6)


for _name, _function in (("any", np.any), ("all", np.all)):
    register(OpSpec(_name, getattr(reduce, _name), _numpy(_function), _samples(_DIMS + _EMPTY, _with_zeros),
                    exact=True))

_ONE_DIM = tuple((o, s) for o, s in _DIMS if isinstance(o["dim"], int)) + _EMPTY[1:]
for _name, _function in (("argmax", np.argmax), ("argmin", np.argmin)):
    register(OpSpec(_name, getattr(reduce, _name), _numpy(_function), _samples(_ONE_DIM, _apart)))


def _with_positions(values, positions):
    def reference(x, dim, keepdim=False):
        return values(x, axis=dim, keepdims=keepdim), positions(x, axis=dim, keepdims=keepdim)
    return reference


register(OpSpec("max", reduce.max, _with_positions(np.max, np.argmax), _samples(_ONE_DIM, _apart), gradients=(0,)))
register(OpSpec("min", reduce.min, _with_positions(np.min, np.argmin), _samples(_ONE_DIM, _apart), gradients=(0,)))

_SPREAD = tuple(({**o, "correction": c}, s) for (o, s), c in zip(_DIMS[:-1], (1, 0) * 5))
register(OpSpec("var", reduce.var,
                lambda x, dim, correction, keepdim=False: x.var(dim, ddof=correction, keepdims=keepdim),
                _samples(_SPREAD), gradients=(0,)))
register(OpSpec("std", reduce.std,
                lambda x, dim, correction, keepdim=False: x.std(dim, ddof=correction, keepdims=keepdim),
                _samples(_SPREAD), gradients=(0,)))
for _name in ("var", "std"):
    register(OpSpec(f"{_name}_mean", getattr(reduce, f"{_name}_mean"),
                    lambda x, dim, correction, keepdim=False, _name=_name: (
                        getattr(x, _name)(dim, ddof=correction, keepdims=keepdim), x.mean(dim, keepdims=keepdim)),
                    _samples(_SPREAD), gradients=(0,)))
register(OpSpec("logsumexp", reduce.logsumexp,
                lambda x, dim, keepdim=False: np.log(np.exp(x).sum(dim, keepdims=keepdim)),
                _samples(_DIMS), gradients=(0,)))
