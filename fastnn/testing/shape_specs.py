"""OpSpecs of fastnn/ops/shape.py and slices.py."""

from __future__ import annotations

import numpy as np

from ..ops import shape, slices
from .spec import OpSpec, Sample, register


def _moved(name, reference, options, shapes=((2, 3, 4), (3, 5, 1), (0, 3, 4), (2, 3, 4, 5)), function=None):
    """A rearrangement: exact, with a gradient, on inputs of the given shapes with each of the options."""

    def samples(rng):
        return [Sample((rng.standard_normal(s),), o) for s in shapes for o in options]

    register(OpSpec(name, function or getattr(slices if name in slices.__all__ else shape, name), reference, samples, gradients=(0,), exact=True))


_moved("permute", lambda x, dims: x.transpose(dims), [{"dims": (2, 0, 1)}], ((2, 3, 4), (1, 7, 3), (0, 3, 4)),
       lambda x, dims: shape.permute(x, *dims))
_moved("transpose", lambda x, dim0, dim1: x.swapaxes(dim0, dim1), [{"dim0": 0, "dim1": -1}])
_moved("movedim", lambda x, source, destination: np.moveaxis(x, source, destination),
       [{"source": 0, "destination": -1}])
_moved("reshape", lambda x, shape: x.reshape(shape), [{"shape": (-1, 2)}, {"shape": (2, 1, -1)}],
       ((2, 3, 4), (2, 3, 4, 5)),
       lambda x, **o: shape.reshape(x, o["shape"]))
_moved("flatten", lambda x, start_dim: x.reshape(*x.shape[:start_dim], -1), [{"start_dim": 1}],
       ((2, 3, 4), (5, 1), (2, 3, 4, 5)))
_moved("unflatten", lambda x, dim, sizes: x.reshape(*sizes, *x.shape[1:]), [{"dim": 0, "sizes": (2, 3)}],
       ((6, 5), (6, 2, 3)))
_moved("unsqueeze", lambda x, dim: np.expand_dims(x, dim), [{"dim": 1}])
_moved("squeeze", lambda x, dim: x.squeeze(dim), [{"dim": 1}], ((3, 1, 4), (2, 1)))
_moved("expand", lambda x, shape: np.broadcast_to(x, shape), [{"shape": (4, 3, 5)}], ((3, 1), (1, 3, 5), (4, 3, 5)),
       lambda x, **o: shape.expand(x, o["shape"]))
_moved("split", lambda x, split_size_or_sections, dim: tuple(np.split(x, [2], dim)),
       [{"split_size_or_sections": (2, 3), "dim": 1}],
       ((2, 5), (3, 5, 2)))
_moved("chunk", lambda x, chunks, dim: tuple(np.array_split(x, [2, 4], dim)), [{"chunks": 3, "dim": 1}],
       ((2, 5), (3, 6, 2)))
_moved("narrow", lambda x, dim, start, length: x[:, start:][:, :length], [{"dim": 1, "start": 1, "length": 2}],
       ((2, 5), (3, 3, 2), (0, 4)))
_moved("unbind", lambda x, dim: tuple(np.moveaxis(x, dim, 0)), [{"dim": -1}], ((2, 5), (3, 3, 2)))
_moved("t", lambda x: x.T, [{}], ((2, 5), (3,), (0, 4)))
_moved("contiguous", lambda x: x, [{}])
_moved("clone", lambda x: x, [{}])
_moved("pad",
       lambda x, pad, value: np.pad(x, [(0, 0)] * (x.ndim - 2) + [pad[2:], pad[:2]], constant_values=value),
       [{"pad": (1, 2, 0, 3), "value": 0.5}])

register(OpSpec("cat", lambda *x, dim: slices.cat(x, dim), lambda *x, dim: np.concatenate(x, dim),
                lambda rng: [Sample((rng.standard_normal((2, 3)), rng.standard_normal((4, 3))), {"dim": 0}),
                             Sample((rng.standard_normal((2, 3, 2, 2)), rng.standard_normal((2, 1, 2, 2))), {"dim": 1}),
                             Sample((rng.standard_normal((2, 0)), rng.standard_normal((2, 5))), {"dim": -1})],
                gradients=(0, 1), exact=True))
register(OpSpec("stack", lambda *x, dim: slices.stack(x, dim), lambda *x, dim: np.stack(x, dim),
                lambda rng: [Sample((rng.standard_normal((2, 3)), rng.standard_normal((2, 3))), {"dim": d})
                             for d in (0, 1, -1)],
                gradients=(0, 1), exact=True))
register(OpSpec("slice_view", lambda x, key: x[key], lambda x, key: x[key],
                lambda rng: [Sample((rng.standard_normal((5, 6, 7)),), {"key": key})
                             for key in [(1,), (slice(1, 4), None, slice(None, None, 2)), (..., -1),
                                         (slice(4, None, -2), slice(0, 0))]],
                gradients=(0,), exact=True))
register(OpSpec("to", lambda x: shape.to(x, "float64"),
                lambda x: x, lambda rng: [Sample((rng.standard_normal(s),)) for s in ((3, 4), (2, 3, 4, 5), (0, 2))],
                gradients=(0,), exact=True))
