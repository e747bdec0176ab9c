"""Attention in several heads: what surrounds `scaled_dot_product_attention`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..checks import a_tensor
from .attention import attend, attend_with_weights, project_in
from .create import zeros
from .linear import linear
from .math import add, logical_and, logical_not, where
from .reduce import mean
from .shape import broadcast_to, permute, reshape, unsqueeze
from .slices import cat, pad

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["multi_head_attention_forward"]


def multi_head_attention_forward(query: Tensor, key: Tensor, value: Tensor, embed_dim_to_check: int, num_heads: int,
                                 in_proj_weight: Tensor | None, in_proj_bias: Tensor | None, bias_k: Tensor | None,
                                 bias_v: Tensor | None, add_zero_attn: bool, dropout_p: float, out_proj_weight: Tensor,
                                 out_proj_bias: Tensor | None, training: bool = True, key_padding_mask: Tensor | None = None,
                                 need_weights: bool = True, attn_mask: Tensor | None = None, use_separate_proj_weight: bool = False,
                                 q_proj_weight: Tensor | None = None, k_proj_weight: Tensor | None = None,
                                 v_proj_weight: Tensor | None = None, static_k: None = None, static_v: None = None,
                                 average_attn_weights: bool = True, is_causal: bool = False) -> tuple[Tensor, Tensor | None]:
    """What `fastnn.nn.MultiheadAttention` computes, from parameters that are given.

    Parameters
    ----------
    query, key, value : Tensor
        (L, N, E), (S, N, K), (S, N, V), or without N.
    embed_dim_to_check : int
        E.
    num_heads : int
        Divides E.
    in_proj_weight : Tensor, optional
        (3 E, E), the projections of queries, keys and values.
    in_proj_bias : Tensor, optional
        (3 E,).
    bias_k, bias_v : Tensor, optional
        (1, 1, E), a key and a value added to every sequence.
    add_zero_attn : bool
        Whether a key and value of zeros are added to every sequence.
    dropout_p : float
        Probability of dropping an attention weight, in training.
    out_proj_weight : Tensor
        (E, E).
    out_proj_bias : Tensor, optional
        (E,).
    training : bool
        Whether to drop.
    key_padding_mask, need_weights, attn_mask
        As in `fastnn.nn.MultiheadAttention.forward`.
    use_separate_proj_weight : bool
        Whether the next three take the place of `in_proj_weight`.
    q_proj_weight, k_proj_weight, v_proj_weight : Tensor, optional
        (E, E), (E, K), (E, V).
    static_k, static_v : None
        PyTorch's ready-made keys and values are not offered: use `scaled_dot_product_attention`.
    average_attn_weights : bool
        Whether weights are averaged over heads.
    is_causal : bool
        Whether query i sees keys 0 to i only.

    Returns
    -------
    tuple of Tensor and Tensor or None
        Result, shaped as `query`; weights (N, L, S), or (N, heads, L, S) without averaging.

    Raises
    ------
    ValueError
        If widths do not fit, or `static_k` or `static_v` is given.
    """
    name = "multi_head_attention_forward"
    if static_k is not None or static_v is not None:
        raise ValueError(f"{name}: static_k and static_v must be None; for ready-made keys there is scaled_dot_product_attention")
    if a_tensor(name, query, "query").shape[-1] != embed_dim_to_check:
        raise ValueError(f"{name}: embed_dim_to_check is {embed_dim_to_check}, but query has shape {query.shape}")
    if num_heads < 1 or embed_dim_to_check % num_heads:
        raise ValueError(f"{name}: num_heads is {num_heads}, but must be at least 1 and divide {embed_dim_to_check}")

    def projected(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not use_separate_proj_weight:
            return project_in(q, k, v, in_proj_weight, in_proj_bias)
        width = embed_dim_to_check
        biases = [None if in_proj_bias is None else in_proj_bias[i * width:(i + 1) * width] for i in range(3)]
        weights = (q_proj_weight, k_proj_weight, v_proj_weight)
        return tuple(linear(x, w, b) for x, w, b in zip((q, k, v), weights, biases))

    y, weights = attend_in_heads(projected, query, key, value, num_heads, key_padding_mask, attn_mask, bias_k=bias_k, bias_v=bias_v,
                                 add_zero_attn=add_zero_attn, dropout_p=dropout_p if training else 0.0, need_weights=need_weights,
                                 average_attn_weights=average_attn_weights, is_causal=is_causal)
    return linear(y, out_proj_weight, out_proj_bias), weights


def attend_in_heads(projected: Callable, query: Tensor, key: Tensor, value: Tensor, heads: int, key_padding_mask: Tensor | None,
                    attn_mask: Tensor | None, *, batch_first: bool = False, bias_k: Tensor | None = None,
                    bias_v: Tensor | None = None,
                    add_zero_attn: bool = False, dropout_p: float = 0.0, need_weights: bool = True,
                    average_attn_weights: bool = True,
                    is_causal: bool = False) -> tuple[Tensor, Tensor | None]:
    """Attention of projected inputs, heads side by side in the result, which is not projected yet.

    Parameters
    ----------
    projected : callable
        ``projected(query, key, value)`` gives queries, keys and values, (..., E) each.
    query, key, value, key_padding_mask, attn_mask
        As in `fastnn.nn.MultiheadAttention.forward`.
    heads : int
        Divides E.
    batch_first : bool
        Whether inputs are (N, L, E) rather than (L, N, E).
    bias_k, bias_v : Tensor, optional
        (1, 1, E), added to every sequence.
    add_zero_attn : bool
        Whether a key and value of zeros are added to every sequence.
    dropout_p : float
        Probability of dropping a weight.
    need_weights : bool
        Whether to return the weights too.
    average_attn_weights : bool
        Whether they are averaged over heads.
    is_causal : bool
        Whether query i sees keys 0 to i only.

    Returns
    -------
    tuple of Tensor and Tensor or None
        (N, L, E) or (L, N, E), or without N; weights.
    """
    axis = 1 if batch_first else 0
    if query.ndim == 2:
        key_padding_mask = key_padding_mask if key_padding_mask is None else unsqueeze(key_padding_mask, 0)
        y, weights = attend_in_heads(projected, *(unsqueeze(t, 1 - axis) for t in (query, key, value)), heads, key_padding_mask,
                                     attn_mask,
                                     batch_first=batch_first, bias_k=bias_k, bias_v=bias_v, add_zero_attn=add_zero_attn,
                                     dropout_p=dropout_p, need_weights=need_weights, average_attn_weights=average_attn_weights,
                                     is_causal=is_causal)
        return reshape(y, query.shape[:1] + y.shape[-1:]), None if weights is None else reshape(weights, weights.shape[1:])
    q, k, v = projected(query, key, value)
    width, added = q.shape[-1], (bias_k is not None) + bool(add_zero_attn)
    k, v = _extended(k, bias_k, add_zero_attn, axis), _extended(v, bias_v, add_zero_attn, axis)
    q, k, v = (_split(t, heads, batch_first) for t in (q, k, v))
    mask = _joined(q, k, key_padding_mask, None if is_causal else attn_mask, added)
    scale = 1 / math.sqrt(q.shape[-1])
    if need_weights:
        y, weights = attend_with_weights(q, k, v, mask, dropout_p, is_causal, scale)
        weights = mean(weights, 1) if average_attn_weights else weights
    else:
        weights, y = None, attend(q, k, v, mask, dropout_p, is_causal, scale)
    y = permute(y, 0, 2, 1, 3) if batch_first else permute(y, 2, 0, 1, 3)
    return reshape(y, (*query.shape[:2], width)), weights


def _extended(t: Tensor, learned: Tensor | None, with_zeros: bool, axis: int) -> Tensor:
    """Keys or values with the learned one and the one of zeros."""
    one = tuple(1 if d == axis else n for d, n in enumerate(t.shape))
    t = t if learned is None else cat((t, broadcast_to(learned, one)), axis)
    return cat((t, zeros(*one, dtype=t.dtype)), axis) if with_zeros else t


def _split(t: Tensor, heads: int, batch_first: bool) -> Tensor:
    """(N, L, E) or (L, N, E) as (N, heads, L, E / heads): a view."""
    split = reshape(t, (*t.shape[:2], heads, t.shape[-1] // heads))
    return permute(split, 0, 2, 1, 3) if batch_first else permute(split, 1, 2, 0, 3)


def _joined(q: Tensor, k: Tensor, key_padding_mask: Tensor | None, attn_mask: Tensor | None, added: int) -> Tensor | None:
    """Both masks as one that broadcasts to (N, heads, L, S): bool, True where a query may see a key, or additive."""
    (batch, heads), keys = q.shape[:2], k.shape[2]
    masks = []
    if key_padding_mask is not None:
        masks.append(reshape(key_padding_mask, (batch, 1, 1, a_tensor("attention", key_padding_mask, "key_padding_mask").shape[-1])))
    if attn_mask is not None and a_tensor("attention", attn_mask, "attn_mask").ndim == 3:
        masks.append(reshape(attn_mask, (batch, heads, *attn_mask.shape[1:])))
    elif attn_mask is not None:
        masks.append(reshape(attn_mask, (1, 1, *attn_mask.shape)))
    masks = [_padded(logical_not(m) if m.dtype.name == "bool" else m, keys, added) for m in masks]
    if len(masks) < 2:
        return masks[0] if masks else None
    if all(m.dtype.name == "bool" for m in masks):
        return logical_and(*masks)
    return add(*(where(m, 0.0, -math.inf).to(q.dtype) if m.dtype.name == "bool" else m for m in masks))


def _padded(mask: Tensor, keys: int, added: int) -> Tensor:
    """Added keys are seen by all."""
    missing = keys - mask.shape[-1]
    return pad(mask, (0, missing), value=float(mask.dtype.name == "bool")) if missing == added and missing else mask
