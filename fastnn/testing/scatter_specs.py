"""OpSpecs of fastnn/ops/scatter.py and diagonal.py."""

from __future__ import annotations

import numpy as np

from ..ops import diagonal, scatter
from .spec import OpSpec, Sample, register

_SHAPES = ((5,), (4, 6), (40, 300), (2, 3, 5), (2, 7, 3, 4))


def _apart(rng, shape):
    return 0.1 * (rng.permutation(int(np.prod(shape))) - 7.0).reshape(shape)


def _cases(once=False, **options):
    """Tensor, index and source along every axis; the index shorter than both in the others. once: no place is named twice."""
    def samples(rng):
        found = []
        for shape in _SHAPES:
            for dim, extent in enumerate(shape):
                short = [max(n - 1, 1) for n in shape]
                short[dim] = min(3, extent) if once else 3
                index = np.argsort(rng.random((*short[:dim], extent, *short[dim + 1:])), dim).take(range(short[dim]), dim) if once \
                    else rng.integers(0, extent, short)
                values = _apart(rng, (int(np.prod(shape)) + int(np.prod(short)) * 8,))
                source = [n + 1 for n in short]
                found.append(Sample((values[:int(np.prod(shape))].reshape(shape), index,
                                     rng.choice(values, source, replace=False) + 0.05), {"dim": dim, **options}))
        return found
    return samples


def _each(x, index, src, dim, combine):
    """combine(y, place, source's element), one by one, in logical order."""
    y = x.copy()
    for at in np.ndindex(*index.shape):
        place = list(at)
        place[dim] = index[at]
        combine(y, tuple(place), src[at])
    return y


def _assign(y, place, value):
    y[place] = value


def _add(y, place, value):
    y[place] += value


register(OpSpec("scatter", lambda x, i, s, dim: scatter.scatter(x, dim, i, s), lambda x, i, s, dim: _each(x, i, s, dim, _assign),
                _cases(once=True), gradients=(0, 2), exact=True))
register(OpSpec("scatter_add", lambda x, i, s, dim: scatter.scatter_add(x, dim, i, s), lambda x, i, s,
                dim: _each(x, i, s, dim, _add),
                _cases(), gradients=(0, 2)))
_REDUCE = {"sum": sum, "mean": np.mean, "amax": max, "amin": min, "prod": np.prod}


def _reduced(x, index, src, dim, reduce, include_self=True):
    groups = {}
    _each(x, index, src, dim, lambda y, place, value: groups.setdefault(place, [y[place]] if include_self else []).append(value))
    y = x.copy()
    for place, values in groups.items():
        y[place] = _REDUCE[reduce](values)
    return y


for _name in ("mean", "amax", "amin", "prod", "sum"):
    register(OpSpec("scatter_reduce" if _name == "mean" else f"scatter_reduce_{_name}",
                    lambda x, i, s, dim, **options: scatter.scatter_reduce(x, dim, i, s, **options), _reduced,
                    lambda rng, _name=_name: [*_cases(reduce=_name)(rng), *_cases(reduce=_name, include_self=False)(rng)],
                    gradients=() if _name == "prod" else (0, 2), tolerance=8))

register(OpSpec("take_along_dim", lambda x, i, dim: scatter.take_along_dim(x, i, dim), lambda x, i, dim: np.take_along_axis(x,
                                                                                                                            i, dim),
                lambda rng: [Sample((rng.standard_normal(a), rng.integers(0, a[dim], b)), {"dim": dim})
                             for a, b, dim in (((5,), (9,), 0), ((4, 6), (1, 3), 1), ((4, 1), (2, 6), 0),
                                               ((2, 3, 4, 5), (2, 3, 2, 1), 2))],
                gradients=(0,), exact=True))


def _slices(source=True, distinct=False):
    def samples(rng):
        found = []
        for shape in _SHAPES:
            for dim, extent in enumerate(shape):
                count = min(4, extent) if distinct else 4
                index = rng.permutation(extent)[:count] if distinct else rng.integers(-extent, extent, count)
                more = (rng.standard_normal((*shape[:dim], count, *shape[dim + 1:])),) if source else ()
                found.append(Sample((rng.standard_normal(shape), index, *more), {"dim": dim}))
        return found
    return samples


def _sliced(combine):
    def reference(x, index, source=None, *, dim):
        y = x.copy()
        for k, place in enumerate(index):
            combine(y, (slice(None),) * dim + (place,), None if source is None else source.take(k, dim))
        return y
    return reference


register(OpSpec("index_add", lambda x, i, s, dim: scatter.index_add(x, dim, i, s, alpha=0.5),
                _sliced(lambda y, at, v: _add(y, at, 0.5 * v)), _slices(), gradients=(0, 2)))
register(OpSpec("index_copy", lambda x, i, s, dim: scatter.index_copy(x, dim, i, s), _sliced(_assign), _slices(distinct=True),
                gradients=(0, 2), exact=True))
register(OpSpec("index_fill", lambda x, i, dim: scatter.index_fill(x, dim, i, -2.5), _sliced(lambda y, at, v: _assign(y, at, -2.5)),
                _slices(source=False), gradients=(0,), exact=True))
register(OpSpec("repeat_interleave", scatter.repeat_interleave, lambda x, repeats, dim=None: np.repeat(x, repeats, dim),
                lambda rng: [Sample((rng.standard_normal(s),), o) for s, o in
                             (((5,), {"repeats": 3}), ((2, 3), {"repeats": 2, "dim": 1}), ((4, 3), {"repeats": 0, "dim": 0}),
                              ((2, 3, 2, 2), {"repeats": 2, "dim": 2}))], gradients=(0,), exact=True))


def _with_zeros(rng, shape):
    return rng.standard_normal(shape) * (rng.random(shape) < 0.4)


for _name in ("nonzero", "argwhere"):
    register(OpSpec(_name, getattr(scatter, _name), np.argwhere,
                    lambda rng: [Sample((_with_zeros(rng, s),)) for s in ((50,), (7, 5), (200, 300), (2, 3, 4, 5), (0, 3))],
                    exact=True))
register(OpSpec("count_nonzero", scatter.count_nonzero, lambda x, dim=None: np.asarray(np.count_nonzero(x, axis=dim)),
                lambda rng: [Sample((_with_zeros(rng, s),), o) for s, o in (((50,), {}), ((7, 5), {"dim": 1}),
                                                                            ((2, 3, 4, 5), {"dim": (0, 2)}))],
                exact=True))
_MASKS = (((37,), (37,)), ((4, 5), (5,)), ((5,), (4, 5)), ((2, 3, 4, 5), (3, 1, 1)), ((200, 300), (200, 300)))
register(OpSpec("masked_select", scatter.masked_select, lambda x, m: np.broadcast_arrays(x, m)[0][np.broadcast_arrays(x, m)[1]],
                lambda rng: [Sample((rng.standard_normal(a), rng.random(b) < 0.4)) for a, b in _MASKS], gradients=(0,), exact=True))


def _mask_filled(x, mask, source):
    y, mask = (np.array(part) for part in np.broadcast_arrays(x, mask))
    y[mask] = source.ravel()[:mask.sum()]
    return y


register(OpSpec("masked_scatter", scatter.masked_scatter, _mask_filled,
                lambda rng: [Sample((rng.standard_normal(a), rng.random(b) < 0.4, rng.standard_normal((int(np.prod(a)) * 4, 1))))
                             for a, b in _MASKS], gradients=(0, 2), exact=True))
register(OpSpec("bincount", scatter.bincount, lambda x, weights=None, minlength=0: np.bincount(x, weights, minlength),
                lambda rng: [Sample((rng.integers(0, 9, n), *w), o) for n, w, o in
                             ((40, (), {}), (40, (rng.standard_normal(40),), {}), (3, (), {"minlength": 12}))]))

# ---- diagonals --------------------------------------------------------------------------------------------------------

_PLACES = (({}, (4, 5)), ({"offset": 1}, (4, 5)), ({"offset": -2}, (4, 3)), ({"offset": 9}, (4, 3)),
           ({"offset": 1, "dim1": 2, "dim2": 0}, (3, 4, 5)), ({"dim1": -1, "dim2": 1}, (2, 4, 3, 5)))
register(OpSpec("diagonal", diagonal.diagonal, lambda x, offset=0, dim1=0, dim2=1: np.diagonal(x, offset, dim1, dim2),
                lambda rng: [Sample((rng.standard_normal(s),), o) for o, s in _PLACES], gradients=(0,), exact=True))


def _embedded(x, offset=0, dim1=-2, dim2=-1):
    n = x.shape[-1] + abs(offset)
    y = np.zeros((*x.shape[:-1], n, n))
    rows = np.arange(x.shape[-1]) + max(-offset, 0)
    y[..., rows, rows + offset] = x
    return np.moveaxis(y, (-2, -1), (dim1, dim2))


register(OpSpec("diag_embed", diagonal.diag_embed, _embedded,
                lambda rng: [Sample((rng.standard_normal(s),), o) for o, s in
                             (({}, (4,)), ({"offset": 1}, (3, 4)), ({"offset": -2}, (2, 3)), ({"dim1": 0, "dim2": 2}, (2, 3)))],
                gradients=(0,), exact=True))
register(OpSpec("diag", diagonal.diag, lambda x, diagonal=0: np.diag(x, diagonal),
                lambda rng: [Sample((rng.standard_normal(s),), {"diagonal": k}) for s in ((4,), (4, 5)) for k in (0, 2, -1)],
                gradients=(0,), exact=True))
register(OpSpec("diagflat", diagonal.diagflat, lambda x, offset=0: np.diagflat(x, offset),
                lambda rng: [Sample((rng.standard_normal(s),), {"offset": k}) for s in ((4,), (2, 3)) for k in (0, 1)],
                gradients=(0,), exact=True))
register(OpSpec("trace", diagonal.trace, np.trace, lambda rng: [Sample((rng.standard_normal(s),)) for s in ((4, 4), (3, 5), (1,
                                                                                                                             1))],
                gradients=(0,)))
