"""OpSpecs of fastnn/ops/order.py and scan.py."""

from __future__ import annotations

import numpy as np

from ..ops import order, scan
from .spec import OpSpec, Sample, register

_LINES = (({"dim": 0}, (7,)), ({"dim": -1}, (40, 37)), ({"dim": 0}, (300, 5)), ({"dim": 1}, (3, 50, 4)),
          ({"dim": 1}, (2, 19, 5, 6)),
          ({"dim": 2}, (2, 3, 70, 5)), ({"dim": -1}, (3, 1000)), ({"dim": -1}, (4, 1)))


def _apart(rng, shape):
    """Values in random order, no two closer than 0.1: their order stays as it is under small changes."""
    return 0.1 * (rng.permutation(int(np.prod(shape))) - 7.0).reshape(shape)


def _few(rng, shape):
    return rng.integers(-3, 4, shape).astype(float)


def _samples(cases, values=_apart):
    return lambda rng: [Sample((values(rng, shape),), options) for options, shape in cases]


def _with(**more):
    return tuple(({**options, **more}, shape) for options, shape in _LINES)


def _order(x, dim, descending=False):
    return np.argsort(-x if descending else x, dim, kind="stable")


def _sorted(x, dim, descending=False):
    places = _order(x, dim, descending)
    return np.take_along_axis(x, places, dim), places


_BOTH = _with() + _with(descending=True)
register(OpSpec("sort", order.sort, _sorted, _samples(_BOTH), gradients=(0,), exact=True,
                benchmarks=lambda rng: [Sample((rng.standard_normal(s),), {"dim": -1}) for s in ((64, 1000), (1 << 20,),
                                                                                                 (4096, 32))],
                bytes=lambda shape, **options: 16 * int(np.prod(shape))))
register(OpSpec("argsort", order.argsort, _order, _samples(_BOTH, _few), exact=True))
register(OpSpec("msort", order.msort, lambda x: np.sort(x, 0), lambda rng: [Sample((_apart(rng, s),))
                                                                            for s in ((9,), (50, 3), (4, 2, 3, 5))],
                gradients=(0,), exact=True))


def _top(x, k, dim, largest=True):
    values, places = _sorted(x, dim, largest)
    return values.take(range(k), dim), places.take(range(k), dim)


register(OpSpec("topk", lambda x, k, dim, largest=True: order.topk(x, k, dim, largest), _top,
                _samples(_with(k=1) + _with(k=1, largest=False) + (({"dim": 1, "k": 5}, (3, 50, 4)), ({"dim": -1, "k": 0}, (4, 6)),
                                                                  ({"dim": -1, "k": 900}, (2, 1000)))),
                gradients=(0,), exact=True,
                benchmarks=lambda rng: [Sample((rng.standard_normal((64, 1000)),), {"k": 5, "dim": -1})],
                bytes=lambda shape, **options: 4 * int(np.prod(shape))))


def _place(x, k, dim, keepdim):
    values, places = (part.take([k], dim) for part in _sorted(x, dim))
    return (values, places) if keepdim else (values.squeeze(dim), places.squeeze(dim))


register(OpSpec("kthvalue", lambda x, dim, keepdim: order.kthvalue(x, 1 + x.shape[dim] // 2, dim, keepdim),
                lambda x, dim, keepdim: _place(x, x.shape[dim] // 2, dim, keepdim),
                _samples(_with(keepdim=False) + _with(keepdim=True)), gradients=(0,), exact=True))
for _name in ("median", "nanmedian"):
    register(OpSpec(_name, getattr(order, _name), lambda x, dim, keepdim: _place(x, (x.shape[dim] - 1) // 2, dim, keepdim),
                    _samples(_with(keepdim=False) + _with(keepdim=True)), gradients=(0,), exact=True))
_SHARES = _with(q=0.3) + _with(q=0.9, keepdim=True) + (({"q": 0.25}, (3, 4, 5)),)
_BETWEEN = [case for way in ("lower", "higher", "midpoint", "nearest") for case in _with(q=0.51, interpolation=way)]
register(OpSpec("quantile", order.quantile,
                lambda x, q, dim=None, keepdim=False, interpolation="linear": np.quantile(x, q, axis=dim, keepdims=keepdim,
                                                                                          method=interpolation),
                _samples((*_SHARES, *_BETWEEN)), gradients=(0,)))


def _unique(x, **options):
    values, *rest = (np.unique(x, return_inverse=True, return_counts=True))
    return values, rest[0].reshape(x.shape), rest[1]


register(OpSpec("unique", lambda x: order.unique(x, return_inverse=True, return_counts=True), _unique,
                lambda rng: [Sample((_few(rng, s),)) for s in ((50,), (4, 5), (2, 3, 4, 2))], exact=True))


def _runs(x):
    line = x.ravel()
    starts = np.flatnonzero(np.concatenate([[True], line[1:] != line[:-1]]))
    inverse = np.searchsorted(starts, np.arange(line.size), "right") - 1
    return line[starts], inverse.reshape(x.shape), np.diff([*starts, line.size])


register(OpSpec("unique_consecutive", lambda x: order.unique_consecutive(x, return_inverse=True, return_counts=True), _runs,
                lambda rng: [Sample((_few(rng, s),)) for s in ((50,), (4, 5), (2, 3, 4, 2))], exact=True))

# ---- running sums and products ----------------------------------------------------------------------------------------


def _factors(rng, shape):
    """Around 1, some of them 0: gradients of products must not divide by them."""
    return rng.uniform(0.7, 1.3, shape) * rng.choice([-1.0, 1.0], shape) * (rng.random(shape) > 0.1)


def _normal(rng, shape):
    return rng.standard_normal(shape)


_SHORT = tuple((o, s) for o, s in _LINES if max(s) < 300) + (({"dim": 0}, (0, 3)), ({"dim": 1}, (3, 0)))
register(OpSpec("cumsum", scan.cumsum, lambda x, dim: np.cumsum(x, dim), _samples(_LINES + _SHORT[-2:], _normal), gradients=(0,),
                benchmarks=lambda rng: [Sample((rng.standard_normal((1024, 1024)),), {"dim": d}) for d in (1, 0)],
                bytes=lambda shape, **options: 8 * int(np.prod(shape))))
register(OpSpec("cumprod", scan.cumprod, lambda x, dim: np.cumprod(x, dim), _samples(_SHORT, _factors), gradients=(0,)))
register(OpSpec("prod", scan.prod, lambda x, dim=None, keepdim=False: np.prod(x, axis=dim, keepdims=keepdim),
                _samples(_SHORT + (({"dim": None}, (3, 4)), ({"dim": (0, 2), "keepdim": True}, (3, 4, 2)),
                                   ({"dim": (1, 3)}, (2, 3, 2, 3)),
                                   ({"dim": 1, "keepdim": True}, (2, 3, 4, 5))), _factors), gradients=(0,)))


def _running(function):
    def reference(x, dim):
        values = function.accumulate(x, dim)
        places = np.where(x == values, np.arange(x.shape[dim]).reshape([-1 if d == dim % x.ndim else 1 for d in range(x.ndim)]), 0)
        return values, np.maximum.accumulate(places, dim)
    return reference


register(OpSpec("cummax", scan.cummax, _running(np.maximum), _samples(_LINES), gradients=(0,), exact=True))
register(OpSpec("cummin", scan.cummin, _running(np.minimum), _samples(_LINES), gradients=(0,), exact=True))
register(OpSpec("diff", scan.diff, lambda x, n=1, dim=-1: np.diff(x, n, dim), _samples(_LINES[:-1] + (({"dim": 0, "n": 3},
                                                                                                       (9, 2)),), _normal),
                gradients=(0,)))
