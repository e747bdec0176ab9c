"""OpSpecs of fastnn/ops/index.py."""

from __future__ import annotations

import numpy as np

from ..ops import index
from ..ops.one_hot import one_hot
from .spec import OpSpec, Sample, register

_SHAPES = ((5,), (4, 6), (40, 300), (2, 3, 5), (2, 7, 3, 4), (2, 3, 2, 3, 2))


def _cases(make):
    return lambda rng: [Sample((rng.standard_normal(shape), make(rng, shape, dim)), {"dim": dim})
                        for shape in _SHAPES for dim in range(len(shape))]


def _picks(rng, shape, dim):
    return rng.integers(-shape[dim], shape[dim], 9)


def _places(rng, shape, dim):
    return rng.integers(0, shape[dim], shape[:dim] + (3,) + shape[dim + 1:])


register(OpSpec("index_select", lambda x, i, dim: index.index_select(x, dim, i), lambda x, i, dim: x.take(i, dim),
                _cases(_picks), gradients=(0,), exact=True))
register(OpSpec("gather", lambda x, i, dim: index.gather(x, dim, i), lambda x, i, dim: np.take_along_axis(x, i, dim),
                _cases(_places), gradients=(0,), exact=True))


def _take_cases(rng):
    x = rng.standard_normal((4, 5, 6))
    keys = [(np.array([2, 0, 2, -1]),), (slice(None), [1, 3]), (..., np.array([[0, 5], [1, 1]])), (x > 0.3,),
            (x[:, 0, 0] > 0,), (slice(1, 3), x[0] > 0), (np.array([0, 3]), np.array([4, 1])),
            (np.array([[0], [3]]), np.array([1, 2]), slice(None, None, 2)),
            (slice(None), np.zeros(0, int)), (None, [1, 2])]
    return [Sample((x,), {"key": key}) for key in keys]


register(OpSpec("take", lambda x, key: index.take(x, key), lambda x, key: x[key], _take_cases, gradients=(0,),
                exact=True))


def _put(x, value, key):
    y = x.clone()
    index.put(y, key, value)
    return y


def _put_reference(x, value, key):
    y = x.copy()
    y[key] = value
    return y


register(OpSpec("put", _put, _put_reference,
                lambda rng: [Sample((s.inputs[0], rng.standard_normal(s.inputs[0][s.options["key"]].shape)), s.options)
                             for s in _take_cases(rng)], exact=True))


register(OpSpec("one_hot", lambda x, classes: one_hot(x, classes), lambda x, classes: np.eye(classes, dtype=np.int64)[x],
                lambda rng: [Sample((np.asarray(rng.integers(0, classes, shape)),), {"classes": classes})
                             for shape, classes in (((), 3), ((7,), 1), ((4, 5), 6), ((2, 3, 4), 70), ((0, 2), 4),
                                                    ((20000,), 9))], exact=True))
