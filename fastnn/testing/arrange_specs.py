"""OpSpecs of fastnn/ops/arrange.py and vector_norm.py."""

from __future__ import annotations

import numpy as np

from ..ops import arrange
from ..ops.slices import stack
from ..ops.vector_norm import norm
from .spec import OpSpec, Sample, register


def _moved(name, reference, cases, gradients=(0,)):
    """`cases`: shapes and the arguments behind the tensor."""
    register(OpSpec(name, lambda x, arguments: getattr(arrange, name)(x, *arguments), lambda x, arguments: reference(x, *arguments),
                    lambda rng: [Sample((rng.standard_normal(shape),), {"arguments": arguments}) for shape, arguments in cases],
                    gradients=gradients, exact=True))


_moved("flip", np.flip, [((5,), (0,)), ((2, 3, 4), ((0, -1),)), ((2, 3, 5, 4), ((3, 1),)), ((0, 3), (1,))])
_moved("roll", np.roll, [((5,), (2,)), ((4, 3), (-1, 0)), ((2, 3, 5, 4), ((7, -2), (3, 1))), ((4, 3), (5,)), ((0, 3), (1, 1))])
_moved("tile", lambda x, *dims: np.tile(x, dims),
       [((5,), (3,)), ((2, 3), (2, 1, 3)), ((2, 3, 4), (2,)), ((2, 1, 3, 2), (2, 3, 2, 2)), ((2, 3), (2, 0)),
        ((2, 2, 2, 2), (2, 2, 2, 2, 2))])
_moved("select", lambda x, dim, index: np.take(x, index, dim), [((5,), (0, -2)), ((2, 3, 4), (1, 2)), ((2, 3, 5, 4), (-1, 0))])
_moved("tril", np.tril, [((4, 5), ()), ((5, 3), (1,)), ((2, 3, 4, 4), (-1,)), ((0, 3), ())])
_moved("triu", np.triu, [((4, 5), ()), ((5, 3), (1,)), ((2, 3, 4, 4), (-1,)), ((0, 3), ())])


def _joined(name, reference, *cases):
    register(OpSpec(name, lambda *x: getattr(arrange, name)(x), lambda *x: reference(x),
                    lambda rng: [Sample((rng.standard_normal(a), rng.standard_normal(b))) for a, b in cases], gradients=(0, 1),
                    exact=True))


_joined("hstack", np.hstack, ((3,), (2,)), ((2, 3), (2, 1)), ((2, 1, 3), (2, 4, 3)))
_joined("vstack", np.vstack, ((3,), (3,)), ((2, 3), (4, 3)), ((2, 1, 3), (1, 1, 3)), ((1, 4), (4,)))
_joined("column_stack", np.column_stack, ((3,), (3,)), ((2, 3), (2, 1)), ((4,), (4, 2)))
register(OpSpec("broadcast_tensors", lambda *x: arrange.broadcast_tensors(*x), lambda *x: tuple(np.broadcast_arrays(*x)),
                lambda rng: [Sample(tuple(rng.standard_normal(s) for s in shapes))
                             for shapes in (((3,), (2, 1)), ((2, 3, 4), (4,)), ((1,), (2, 0)))], gradients=(0, 1), exact=True))
register(OpSpec("meshgrid", lambda *x, indexing: stack(arrange.meshgrid(*x, indexing=indexing)),
                lambda *x, indexing: np.stack(np.meshgrid(*x, indexing=indexing)),
                lambda rng: [Sample(tuple(rng.standard_normal(n) for n in sizes), {"indexing": indexing})
                             for sizes in ((3, 4), (5, 1), (2, 3)) for indexing in ("ij", "xy")], gradients=(0, 1), exact=True))


def _product(name, reference, *cases):
    register(OpSpec(name, getattr(arrange, name), reference,
                    lambda rng: [Sample((rng.standard_normal(a), rng.standard_normal(b))) for a, b in cases], gradients=(0, 1),
                    tolerance=16))


_product("mm", np.matmul, ((3, 4), (4, 5)), ((70, 33), (33, 40)), ((2, 0), (0, 3)))
_product("bmm", np.matmul, ((2, 3, 4), (2, 4, 5)), ((5, 7, 33), (5, 33, 4)))
_product("mv", np.matmul, ((3, 4), (4,)), ((70, 33), (33,)))
_product("dot", np.dot, ((4,), (4,)), ((333,), (333,)))
_product("outer", np.outer, ((4,), (3,)), ((33,), (70,)))
register(OpSpec("addmm", arrange.addmm, lambda x, a, b, beta, alpha: beta * x + alpha * (a @ b),
                lambda rng: [Sample((rng.standard_normal(c), rng.standard_normal(a), rng.standard_normal(b)), o)
                             for c, a, b, o in (((5,), (3, 4), (4, 5), {"beta": 1.0, "alpha": 1.0}),
                                                ((30, 1), (30, 17), (17, 9), {"beta": 0.5, "alpha": -2.0}))],
                gradients=(0, 1, 2), tolerance=16))
register(OpSpec("norm", norm, lambda x, p, dim, keepdim: _norm(x, p, dim, keepdim),
                lambda rng: [Sample((rng.permutation(int(np.prod(shape))).reshape(shape) / 7 - 1.01,),
                                    {"p": p, "dim": dim, "keepdim": keepdim})
                             for shape, p, dim, keepdim in (((7,), 2.0, None, False), ((4, 5), 1.0, 1, True),
                                                            ((2, 3, 5, 4), 3.0, (1, 3), False), ((6, 5), np.inf, 0, False),
                                                            ((40, 50), 2.0, -1, True), ((9, 3), 1.5, None, True))],
                gradients=(0,), tolerance=8))


def _norm(x, p, dim, keepdim):
    if p == np.inf:
        return np.abs(x).max(dim, keepdims=keepdim)
    return (np.abs(x) ** p).sum(dim, keepdims=keepdim) ** (1 / p)
