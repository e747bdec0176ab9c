"""OpSpecs of fastnn/ops/combine.py."""

from __future__ import annotations

import itertools

import numpy as np

from ..ops import combine
from .spec import OpSpec, Sample, register


def _normal(rng, *shape):
    return rng.standard_normal(shape)


register(OpSpec("rot90", combine.rot90, lambda x, k=1, dims=(0, 1): np.rot90(x, k, dims),
                lambda rng: [Sample((_normal(rng, *shape),), o) for shape in ((3, 4), (2, 3, 4), (2, 3, 4, 5), (0, 3))
                             for o in ({}, {"k": 2}, {"k": -1, "dims": (1, 0)}, {"k": 5, "dims": (-1, -2)})],
                gradients=(0,), exact=True))
register(OpSpec("kron", combine.kron, np.kron,
                lambda rng: [Sample((_normal(rng, *a), _normal(rng, *b)))
                             for a, b in (((3,), (4,)), ((2, 3), (4, 5)), ((4,), (2, 3)), ((2, 3, 2), (3,)), ((0, 3), (2, 2)))],
                gradients=(0, 1), exact=True))
register(OpSpec("cartesian_prod", combine.cartesian_prod,
                lambda *vectors: np.stack([g.ravel() for g in np.meshgrid(*vectors, indexing="ij")], 1),
                lambda rng: [Sample(tuple(_normal(rng, n) for n in extents)) for extents in ((3, 4), (2, 3, 5), (4, 0), (70, 90))],
                gradients=(0, 1), exact=True))


def _combinations(x, r=2, with_replacement=False):
    ways = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    return np.array(list(ways(x, r)), x.dtype).reshape(-1, r)


register(OpSpec("combinations", combine.combinations, _combinations,
                lambda rng: [Sample((_normal(rng, n),), o) for n in (0, 1, 6)
                             for o in ({}, {"r": 3}, {"r": 2, "with_replacement": True}, {"r": 1}, {"r": 3, "with_replacement": True})],
                gradients=(0,), exact=True))
register(OpSpec("cov", combine.cov, lambda x, correction=1: np.asarray(np.cov(x, ddof=correction)),
                lambda rng: [Sample((_normal(rng, *shape),), o) for shape in ((3, 40), (40, 7), (9,)) for o in ({}, {"correction": 0})],
                gradients=(0,)))
register(OpSpec("corrcoef", combine.corrcoef, lambda x: np.asarray(np.corrcoef(x)),
                lambda rng: [Sample((_normal(rng, *shape),)) for shape in ((3, 40), (20, 7))], gradients=(0,), gradient_tolerance=200))


def _trapezoid(y, x=None, dx=1.0, dim=-1):
    y = np.moveaxis(y, dim, -1)
    return np.asarray(((y[..., 1:] + y[..., :-1]) / 2 * (dx if x is None else np.diff(x))).sum(-1))


register(OpSpec("trapezoid", combine.trapezoid, _trapezoid,
                lambda rng: [Sample((_normal(rng, *shape),), o) for shape in ((7,), (3, 40), (2, 3, 4, 5))
                             for o in ({}, {"dx": 0.25, "dim": 0})]
                + [Sample((_normal(rng, 3, 6), _normal(rng, *s))) for s in ((6,), (3, 6))], gradients=(0,)))
register(OpSpec("logcumsumexp", combine.logcumsumexp, lambda x, dim: np.logaddexp.accumulate(x, dim),
                lambda rng: [Sample((_normal(rng, *shape) * scale,), {"dim": dim})
                             for shape, dim in (((9,), 0), ((3, 70), 1), ((2, 3, 4, 5), 1)) for scale in (1, 300)], gradients=(0,), tolerance=16, gradient_tolerance=200))
