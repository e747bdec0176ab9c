"""OpSpecs of fastnn/ops/einsum.py."""

from __future__ import annotations

import numpy as np

from ..ops.einsum import einsum, tensordot
from .spec import OpSpec, Sample, register

_EQUATIONS = {"ij,jk->ik": ((4, 5), (5, 6)), "bij,bjk": ((3, 4, 5), (3, 5, 2)), "ij,ij->i": ((4, 5), (4, 5)),
              "i,j->ji": ((3,), (4,)),
              "ijk,jil->kl": ((2, 3, 4), (3, 2, 5)), "ii,ij->j": ((4, 4), (4, 3)),
              "bhqd,bhkd->bhqk": ((2, 3, 4, 5), (2, 3, 6, 5)),
              "ij,k->": ((2, 3), (4,)), "ij,kj->ik": ((0, 5), (3, 5))}

register(OpSpec("einsum", lambda a, b, equation: einsum(equation, a, b),
                lambda a, b, equation: np.einsum(equation, a, b),
                lambda rng: [Sample((rng.standard_normal(a), rng.standard_normal(b)), {"equation": e})
                             for e, (a, b) in _EQUATIONS.items()],
                gradients=(0, 1), tolerance=8.0))
register(OpSpec("einsum_one", lambda a, equation: einsum(equation, a), lambda a, equation: np.einsum(equation, a),
                lambda rng: [Sample((rng.standard_normal((4, 4)),), {"equation": e})
                             for e in ("ij->ji", "ij->i", "ii->i", "ii", "ij->")],
                gradients=(0,), tolerance=8.0))
register(OpSpec("einsum_three", lambda a, b, c, equation: einsum(equation, a, b, c),
                lambda a, b, c, equation: np.einsum(equation, a, b, c),
                lambda rng: [Sample(tuple(rng.standard_normal(s) for s in ((2, 3), (3, 4), (4, 5))), {"equation": e})
                             for e in ("ij,jk,kl->il", "ij,jk,kl->jl", "ij,jk,kl->l")], gradients=(0, 1, 2),
                tolerance=16.0))

_DOTS = ((2, (3, 4, 5), (4, 5, 2)), (1, (3, 4), (4,)), (0, (2, 3), (4,)), (((0, 2), (1, 0)), (3, 4, 5), (5, 3, 2)),
         (((-1,), (0,)), (2, 3, 4, 5), (5, 6)), (3, (2, 3, 4), (2, 3, 4)), (1, (3, 0), (0, 2)))
register(OpSpec("tensordot", tensordot, lambda a, b, dims: np.tensordot(a, b, dims),
                lambda rng: [Sample((rng.standard_normal(a), rng.standard_normal(b)), {"dims": dims}) for dims, a, b in _DOTS],
                gradients=(0, 1), tolerance=8.0))
