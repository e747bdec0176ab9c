"""OpSpecs of fastnn/ops/distance.py and rearrange.py."""

from __future__ import annotations

import numpy as np

from ..ops import distance, rearrange
from .loss_specs import _reduced
from .spec import OpSpec, Sample, register


def _unshuffled(x, r):
    *before, c, h, w = x.shape
    return np.moveaxis(x.reshape(*before, c, h // r, r, w // r, r), (-3, -1), (-4, -3)).reshape(*before, c * r * r,
                                                                                                  h // r, w // r)


def _shuffled(x, r):
    *before, c, h, w = x.shape
    y = np.empty((*before, c // r**2, h * r, w * r), x.dtype)
    for i in range(r):
        for j in range(r):
            y[..., i::r, j::r] = x[..., r * i + j::r * r, :, :]
    return y


def _dealt(x, groups):
    return np.concatenate([x[:, i::x.shape[1] // groups] for i in range(x.shape[1] // groups)], 1)


def _of(*cases):
    """Normal values of each shape, with the options beside it."""
    return lambda rng: [Sample((rng.standard_normal(shape),), options) for shape, options in cases]


for _name, _reference, _samples in (
        ("pixel_shuffle", lambda x, upscale_factor: _shuffled(x, upscale_factor),
         _of(((2, 8, 3, 5), {"upscale_factor": 2}), ((9, 2, 2), {"upscale_factor": 3}),
             ((0, 4, 3, 3), {"upscale_factor": 2}), ((2, 3, 4, 1, 2), {"upscale_factor": 2}))),
        ("pixel_unshuffle", lambda x, downscale_factor: _unshuffled(x, downscale_factor),
         _of(((2, 3, 6, 4), {"downscale_factor": 2}), ((2, 3, 6), {"downscale_factor": 3}),
             ((2, 5, 1, 1), {"downscale_factor": 1}))),
        ("channel_shuffle", _dealt,
         _of(((2, 6, 3, 5), {"groups": 3}), ((2, 8, 7), {"groups": 2}), ((3, 4, 1, 1), {"groups": 4})))):
    register(OpSpec(_name, getattr(rearrange, _name), _reference, _samples, gradients=(0,), exact=True))

_SHAPES = ((5, 7), (3, 4, 6), (2, 3, 4, 5), (40, 33))


def _along(options, axes=(1, -1)):
    """Pairs of one shape, each option along each axis."""
    return lambda rng: [Sample((rng.standard_normal(shape), rng.standard_normal(shape)), {"dim": axis, **more})
                        for shape in _SHAPES for axis in axes for more in options]


def _norm(x, p, axis, keepdims=False):
    return np.linalg.norm(x, p, axis, keepdims) if x.size else np.abs(x).sum(axis, keepdims=keepdims)


register(OpSpec("normalize", distance.normalize,
                lambda x, p, dim: x / np.maximum(_norm(x, p, dim, True), 1e-12),
                lambda rng: [Sample((rng.uniform(0.2, 2, shape) * rng.choice([-1, 1], shape),), {"p": p, "dim": dim})
                             for shape in _SHAPES for p, dim in ((2.0, 1), (1.0, -1), (3.0, 0), (np.inf, 1))],
                gradients=(0,), tolerance=8))
register(OpSpec("cosine_similarity", distance.cosine_similarity,
                lambda a, b, dim: (a * b).sum(dim) / (_norm(a, 2, dim) * _norm(b, 2, dim)),
                _along([{}]), gradients=(0, 1), tolerance=8))
register(OpSpec("pairwise_distance", distance.pairwise_distance,
                lambda a, b, p, keepdim: _norm(a - b + 1e-6, p, -1, keepdim),
                lambda rng: [Sample((rng.standard_normal(shape), rng.standard_normal(shape) + 5),
                                    {"p": p, "keepdim": k})
                             for shape in _SHAPES
                             for p, k in ((2.0, False), (1.0, True), (3.0, False), (np.inf, False))],
                gradients=(0, 1), tolerance=8))


def _all_pairs(x, p):
    i, j = np.triu_indices(len(x), 1)
    return _norm(x[i] - x[j], p, -1)


register(OpSpec("pdist", distance.pdist, _all_pairs,
                lambda rng: [Sample((rng.permutation(shape[0] * shape[1]).reshape(shape) / 7.0,), {"p": p})
                             for shape, p in (((5, 3), 2.0), ((9, 17), 1.0), ((4, 6), np.inf), ((1, 3), 2.0), ((30, 2), 3.0))],
                gradients=(0,), tolerance=8))


register(OpSpec("cdist", distance.cdist, lambda a, b, p: _norm(a[..., :, None, :] - b[..., None, :, :], p, -1),
                lambda rng: [Sample((rng.standard_normal(a), rng.standard_normal(b) + 5), {"p": p})
                             for a, b, p in (((5, 3), (4, 3), 2.0), ((2, 9, 17), (2, 5, 17), 1.0), ((4, 6), (3, 4, 6), np.inf),
                                             ((0, 3), (2, 3), 2.0), ((30, 2), (7, 2), 3.0), ((2, 1, 19, 9), (3, 6, 9), 2.0),
                                             ((18, 33), (21, 33), 2.0), ((3, 1), (70, 1), 2.0))],
                gradients=(0, 1), tolerance=8))


def _cosine_reference(a, b, target, margin, reduction):
    cosine = (a * b).sum(-1) / np.sqrt(((a * a).sum(-1) + 1e-12) * ((b * b).sum(-1) + 1e-12))
    return _reduced(np.where(target > 0, 1 - cosine, np.maximum(cosine - margin, 0)), reduction, max(target.size, 1))


def _pairs(rng):
    """Vectors whose cosine is not near the margin."""
    for n, width in ((5, 7), (40, 33), (1, 3)):
        for reduction in ("mean", "sum", "none"):
            a = rng.standard_normal((n, width))
            b = a * rng.choice([-1, 1], (n, 1)) + 0.3 * rng.standard_normal((n, width))
            yield Sample((a, b, rng.choice([-1.0, 1.0], n)), {"margin": 0.1, "reduction": reduction})


register(OpSpec("cosine_embedding_loss", distance.cosine_embedding_loss, _cosine_reference,
                lambda rng: list(_pairs(rng)), gradients=(0, 1), tolerance=8))


def _triplet_reference(anchor, near, far, margin, p, swap, reduction):
    def apart(a, b):
        return _norm(a - b + 1e-6, p, -1)
    farther = np.minimum(apart(anchor, far), apart(near, far)) if swap else apart(anchor, far)
    return _reduced(np.maximum(apart(anchor, near) - farther + margin, 0), reduction, len(anchor))


def _triplets(rng):
    """The positive near by, the negative at the same distance or far: the loss is not near its kink."""
    for n, width in ((5, 7), (40, 33), (1, 3)):
        for p, swap, reduction in ((2.0, False, "mean"), (1.0, True, "sum"), (2.0, True, "none")):
            anchor = rng.standard_normal((n, width))
            near = anchor + rng.uniform(0.1, 0.2, (n, width))
            far = anchor - rng.uniform(0.3, 0.4, (n, width)) * rng.choice([1, 30], (n, 1))
            yield Sample((anchor, near, far), {"margin": 3.0 * width, "p": p, "swap": swap, "reduction": reduction})


register(OpSpec("triplet_margin_loss", distance.triplet_margin_loss, _triplet_reference,
                lambda rng: list(_triplets(rng)), gradients=(0, 1, 2), tolerance=8))


register(OpSpec("triplet_margin_with_distance_loss",
                lambda a, n, f, margin, p, swap, reduction: distance.triplet_margin_with_distance_loss(
                    a, n, f, distance_function=None if p == 2 else lambda u, v: distance.pairwise_distance(u, v, p),
                    margin=margin, swap=swap, reduction=reduction),
                _triplet_reference, lambda rng: list(_triplets(rng)), gradients=(0, 1, 2), tolerance=8))
