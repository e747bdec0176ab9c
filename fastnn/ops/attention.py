"""Scaled dot-product attention."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np

from .._core import empty, launch, record
from ..checks import a_tensor, number, real
from .create import tensor, zeros_like
from .dropout import dropout
from .linear import matmul
from .math import add, mul, where
from .shape import broadcast_to, reshape, transpose
from .softmax import softmax

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["scaled_dot_product_attention"]


def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
                                 dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
                                 enable_gqa: bool = False) -> Tensor:
    """softmax(scale Q K^T + mask) V, for every head, without storing the scores.

    Parameters
    ----------
    query : Tensor
        (..., H, L, E).
    key : Tensor
        (..., H, S, E).
    value : Tensor
        (..., H, S, V).
    attn_mask : Tensor, optional
        Broadcast to (..., H, L, S). bool: True where a query may see a key; real: added to the scores (-inf hides a
        key). A query that sees no key gives 0.
    dropout_p : float
        Probability of dropping an attention weight; callers pass 0 outside training. With it, or with a mask that
        requires a gradient, the weights are stored.
    is_causal : bool
        Whether query i sees keys 0 to i only.
    scale : float, optional
        By default 1 / sqrt(E).
    enable_gqa : bool
        Whether `key` and `value` may have fewer heads, each of which serves H / their number of neighbouring query
        heads.

    Returns
    -------
    Tensor
        (..., H, L, V); with four axes heads lie beside one another, so that joining them is a view.

    Raises
    ------
    ValueError
        If shapes do not fit, or both a mask and `is_causal` are given.

    References
    ----------
    A. Vaswani et al., "Attention is all you need", NeurIPS 2017. T. Dao et al., "FlashAttention: fast and
    memory-efficient exact attention with IO-awareness", NeurIPS 2022.
    """
    name = "scaled_dot_product_attention"
    if attn_mask is not None and is_causal:
        raise ValueError(f"{name}: attn_mask and is_causal are both given, but only one of them may be")
    if min(a_tensor(name, t, argument).ndim for t, argument in ((query, "query"), (key, "key"), (value, "value"))) < 2:
        raise ValueError(f"{name}: query {query.shape}, key {key.shape} and value {value.shape} must have at least 2 "
                         "axes")
    if enable_gqa:
        key, value = (_repeat_heads(name, query, t) for t in (key, value))
    scale = 1 / math.sqrt(max(query.shape[-1], 1)) if scale is None else number(f"{name}: scale", scale)
    return attend(query, key, value, attn_mask, real(f"{name}: dropout_p", dropout_p, 0, 1), is_causal, scale)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout_p: float, causal: bool,
           scale: float) -> Tensor:
    """Attention after the checks: mask and causality may both be given."""
    if any(t.shape[:-2] != query.shape[:-2] for t in (key, value)):
        try:
            leading = np.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])
        except ValueError:
            raise ValueError(f"scaled_dot_product_attention: query has shape {query.shape}, key {key.shape} and value {value.shape}, "
                             "but their axes before the last two must broadcast") from None
        query, key, value = (broadcast_to(t, (*leading, *t.shape[-2:])) for t in (query, key, value))
    if mask is not None and a_tensor("attention", mask, "the mask").ndim < 2:
        mask = reshape(mask, (1, *mask.shape) if mask.ndim else (1, 1))
    if dropout_p > 0 or (mask is not None and mask.requires_grad):
        return attend_with_weights(query, key, value, mask, dropout_p, causal, scale)[0]
    if mask is not None:
        mask = broadcast_to(mask, (*query.shape[:-1], key.shape[-2]))
    if query.ndim == 4:
        return _attention(query, key, value, mask, causal, scale)
    leading = query.shape[:-2]
    four = [t if t is None else _four_axes(t) for t in (query, key, value, mask)]
    y = _attention(*four, causal, scale)
    return reshape(y, (*leading, *y.shape[-2:]))


def attend_with_weights(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout_p: float, causal: bool,
                        scale: float) -> tuple[Tensor, Tensor]:
    """Attention with the weights in memory: the result, and the weights after dropout, (..., L, S).

    All leading axes are one meanwhile: with three axes everything stays in C order.
    """
    leading = query.shape[:-2]
    count = math.prod(leading)
    if mask is not None:
        mask = broadcast_to(mask, (*leading, *mask.shape[-2:]))
        mask = reshape(mask, (count, *mask.shape[-2:]))
    query, key, value = (reshape(t, (count, *t.shape[-2:])) for t in (query, key, value))
    weights = dropout(attention_weights(query, key, mask, causal, scale), dropout_p)
    return tuple(reshape(t, (*leading, *t.shape[-2:])) for t in (matmul(weights, value), weights))


def _repeat_heads(name: str, query: Tensor, t: Tensor) -> Tensor:
    """`t` with each of its heads as often as needed."""
    if min(query.ndim, t.ndim) < 3 or not t.shape[-3] or query.shape[-3] % t.shape[-3]:
        raise ValueError(f"{name}: query {query.shape} must have a multiple of the heads of key and value {t.shape}")
    times = query.shape[-3] // t.shape[-3]
    shape = (*t.shape[:-2], times, *t.shape[-2:])
    repeated = broadcast_to(reshape(t, (*t.shape[:-2], 1, *t.shape[-2:])), shape)
    return reshape(repeated, (*query.shape[:-2], *t.shape[-2:]))


def _four_axes(t: Tensor) -> Tensor:
    """(..., H, L, E) or fewer axes as (N, H, L, E)."""
    heads = t.shape[-3] if t.ndim > 3 else 1
    return reshape(t, (math.prod(t.shape[:-3]) if t.ndim > 3 else t.shape[0] if t.ndim == 3 else 1, heads,
                       *t.shape[-2:]))


def _attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, scale: float) -> Tensor:
    """On four axes, with a mask of the scores' shape."""
    options = {"scale": scale, "causal": bool(causal)}
    y, lse = launch.attention_forward(query, key, value, mask, **options)
    return record(_attention_backward, (query, key, value), y, (query, key, value, y, lse, mask), options)


def _attention_backward(node, dy):
    return launch.attention_backward(dy, *node.saved, **node.context)


@functools.lru_cache(maxsize=16)
def _causal_mask(queries: int, keys: int) -> Tensor:
    return tensor(np.tri(queries, keys, dtype=bool))


def attention_weights(query: Tensor, key: Tensor, mask: Tensor | None, causal: bool, scale: float) -> Tensor:
    """softmax(scale Q K^T + mask): (..., L, S)."""
    scores = matmul(mul(query, scale), transpose(key))
    if causal:
        scores = where(_causal_mask(query.shape[-2], key.shape[-2]), scores, -math.inf)
    if mask is not None:
        scores = where(mask, scores, -math.inf) if mask.dtype.name == "bool" else add(scores, mask)
    return softmax(scores, -1)


# ---- projections -----------------------------------------------------------------------------------------------------


def project_in(query: Tensor, key: Tensor, value: Tensor, weight: Tensor,
               bias: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value times their third each of one weight; the weight's gradient is written in place, third by
    third.

    Parameters
    ----------
    query, key, value : Tensor
        (..., E) each.
    weight : Tensor
        (3 E, E).
    bias : Tensor, optional
        (3 E,).

    Returns
    -------
    tuple of Tensor
        Three, (..., E) each.
    """
    if a_tensor("attention", weight, "in_proj_weight").ndim != 2:
        raise ValueError(f"attention: in_proj_weight has shape {weight.shape}, but must be (3 E, E)")
    width = weight.shape[1]
    thirds = [slice(k * width, (k + 1) * width) for k in range(3)]
    with_bias = [None if bias is None else a_tensor("attention", bias, "in_proj_bias").detach()[third] for third in thirds]
    results = tuple(launch.linear_forward(x, weight.detach()[third], b)
                    for x, third, b in zip((query, key, value), thirds, with_bias))
    return record(_project_in_backward, (query, key, value, weight, bias), results, (query, key, value, weight), thirds)


def _project_in_backward(node, *dys):
    *inputs, weight = node.saved
    dweight = empty(weight.shape, weight.dtype) if node.needs[3] else None
    dbias = empty(weight.shape[:1], weight.dtype) if node.needs[4] else None
    dinputs = []
    for dy, x, third, wanted in zip(dys, inputs, node.context, node.needs):
        if dy is None:
            dy = zeros_like(x)
        dinputs.append(launch.linear_backward_input(dy, weight[third]) if wanted else None)
        if dweight is not None:
            launch.linear_backward_weight(dy, x, out=dweight[third])
        if dbias is not None:
            launch.sum(dy, axes=(1 << dy.ndim - 1) - 1, keepdim=0, divisor=1.0, out=dbias[third])
    return (*dinputs, dweight, dbias)
