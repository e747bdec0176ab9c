"""OpSpecs of fastnn/ops/attention.py."""

from __future__ import annotations

import numpy as np

from ..ops import multi_head
from ..ops.attention import scaled_dot_product_attention
from ..ops.create import tensor
from .spec import OpSpec, Sample, register


def _function(query, key, value, mask, **options):
    return scaled_dot_product_attention(query, key, value, mask, **options)


def _reference(query, key, value, mask, is_causal=False, scale=None, enable_gqa=False):
    if enable_gqa:
        key, value = (np.repeat(t, query.shape[-3] // t.shape[-3], -3) for t in (key, value))
    scores = np.einsum("...le,...se->...ls", query, key) * (1 / np.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -np.inf)
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    top = scores.max(-1, keepdims=True, initial=-np.inf)
    e = np.exp(scores - np.where(np.isfinite(top), top, 0))
    total = e.sum(-1, keepdims=True)
    return np.einsum("...ls,...sv->...lv", e / np.where(total == 0, 1, total), value)


def _sample(rng, batch, heads, queries, keys, depth, width, mask=None, kv_heads=None, **options):
    shapes = ((batch, heads, queries, depth), *((batch, kv_heads or heads, keys, n) for n in (depth, width)))
    return Sample((*(rng.standard_normal(shape) for shape in shapes), mask), options)


def _samples(rng):
    hidden = rng.random((2, 1, 1, 140)) < 0.7
    hidden[1, ..., 5:] = False  # a short sequence, padded
    blind = rng.random((20, 9)) < 0.5
    blind[7] = False  # a query that sees nothing
    plain = [rng.standard_normal((3, 8, 6)) for _ in range(3)]
    return [
        _sample(rng, 2, 3, 7, 9, 5, 4),
        _sample(rng, 1, 2, 130, 270, 16, 33),
        _sample(rng, 1, 1, 300, 300, 8, 8, is_causal=True),
        _sample(rng, 1, 2, 20, 150, 8, 8, is_causal=True, scale=0.3),
        _sample(rng, 1, 1, 150, 20, 40, 8, is_causal=True),
        _sample(rng, 2, 2, 70, 140, 8, 6, mask=hidden),
        _sample(rng, 1, 2, 20, 9, 8, 6, mask=blind),
        _sample(rng, 2, 2, 20, 9, 8, 6, mask=rng.standard_normal((2, 1, 20, 9))),
        _sample(rng, 1, 4, 6, 7, 4, 5, kv_heads=2, enable_gqa=True),
        _sample(rng, 1, 1, 1, 1, 1, 1),
        _sample(rng, 1, 2, 3, 0, 4, 5),
        _sample(rng, 1, 2, 0, 3, 4, 5),
        Sample((*plain, None), {"is_causal": True}),
    ]


def _flops(query, key, value, *_, **options):
    return 2 * int(np.prod(query[:-1])) * key[-2] * (query[-1] + value[-1]) // (2 if options.get("is_causal") else 1)


register(OpSpec("scaled_dot_product_attention", _function, _reference, _samples, gradients=(0, 1, 2), tolerance=16.0,
                gradient_tolerance=64.0, flops=_flops,
                benchmarks=lambda rng: [_sample(rng, 4, 8, n, n, 64, 64, is_causal=True) for n in (256, 1024)]))


def _heads_function(query, key, value, w_in, b_in, w_out, *extra, mask=None, **options):
    return multi_head.multi_head_attention_forward(query, key, value, query.shape[-1], 2, w_in, b_in, *(extra or (None, None)),
                                                   False, 0.0,
                                                   w_out, None, attn_mask=None if mask is None else tensor(mask), **options)[0]


def _heads_reference(query, key, value, w_in, b_in, w_out, *extra, mask=None, **options):
    q, k, v = (x @ w.T + b for x, w, b in zip((query, key, value), np.split(w_in, 3), np.split(b_in, 3)))
    if extra:
        k, v = (np.concatenate([t, np.broadcast_to(e, (1, *t.shape[1:]))]) for t, e in zip((k, v), extra))
        mask = None if mask is None else np.pad(mask, ((0, 0), (0, 1)))
    q, k, v = (t.reshape(*t.shape[:2], 2, -1).transpose(1, 2, 0, 3) for t in (q, k, v))
    y = _reference(q, k, v, None if mask is None else ~mask, is_causal=options.get("is_causal", False))
    return y.transpose(2, 0, 1, 3).reshape(query.shape) @ w_out.T


def _heads_samples(rng):
    def sample(queries, keys, with_extra=False, **options):
        shapes = [(queries, 2, 6), (keys, 2, 6), (keys, 2, 6), (18, 6), (18,), (6, 6), *([(1, 1, 6)] * 2 if with_extra else [])]
        return Sample(tuple(0.5 * rng.standard_normal(shape) for shape in shapes), options)

    return [sample(4, 7), sample(5, 5, is_causal=True, need_weights=False), sample(3, 4, mask=np.tri(3, 4, dtype=bool)),
            sample(4, 3, True), sample(3, 4, True, mask=np.tri(3, 4, -1, dtype=bool))]


register(OpSpec("multi_head_attention_forward", _heads_function, _heads_reference, _heads_samples, gradients=(0, 1, 2, 3, 4, 5),
                tolerance=16.0, gradient_tolerance=64.0))
