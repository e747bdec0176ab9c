"""Multi-head attention."""

from __future__ import annotations

import math

from ..checks import real, whole
from ..ops.attention import attend, attend_with_weights, project_in
from ..ops.create import empty, zeros
from ..ops.linear import linear
from ..ops.math import add, logical_and, logical_not, where
from ..ops.reduce import mean
from ..ops.shape import broadcast_to, cat, pad, permute, reshape, unsqueeze
from ..tensor import Tensor, no_grad
from . import init
from .linear import Linear
from .module import Module, Parameter
from .typed import typed

__all__ = ["MultiheadAttention"]


@typed
class MultiheadAttention(Module):
    """Attention in several heads: out = concat(head_1, ..., head_h) W_o, head_i = softmax(Q_i K_i^T / sqrt(D) + mask)
    V_i.

    Parameters
    ----------
    embed_dim : int
        E, the width of queries and results.
    num_heads : int
        h; divides `embed_dim`. A head has D = E / h columns.
    dropout : float
        Probability of dropping an attention weight, in training.
    bias : bool
        Whether projections have a bias.
    add_bias_kv : bool
        Whether a learned key and value are added to every sequence.
    add_zero_attn : bool
        Whether a key and value of zeros are added to every sequence.
    kdim, vdim : int, optional
        Widths of keys and values; by default E.
    batch_first : bool
        Whether inputs are (N, L, E) rather than (L, N, E); (L, E) is always one sequence.
    query_network, key_network, value_network : Module, optional
        What makes queries, keys and values instead of a matrix: a module from its input to (..., E). All three or none.

    Attributes
    ----------
    in_proj_weight : Parameter
        (3 E, E), the projections of queries, keys and values; with other widths q_proj_weight (E, E), k_proj_weight
        (E, kdim) and v_proj_weight (E, vdim) instead. Glorot-uniform at first.
    in_proj_bias : Parameter or None
        (3 E,), at first 0.
    bias_k, bias_v : Parameter or None
        (1, 1, E).
    out_proj : Linear
        From E to E.

    References
    ----------
    A. Vaswani et al., "Attention is all you need", NeurIPS 2017.
    """

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True,
                 add_bias_kv: bool = False,
                 add_zero_attn: bool = False, kdim: int | None = None, vdim: int | None = None,
                 batch_first: bool = False, query_network: Module | None = None, key_network: Module | None = None,
                 value_network: Module | None = None):
        super().__init__()
        title = "MultiheadAttention"
        embed_dim = whole(f"{title}: embed_dim", embed_dim, 1)
        if embed_dim % whole(f"{title}: num_heads", num_heads, 1):
            raise ValueError(f"MultiheadAttention: num_heads is {num_heads!r}, but must be at least 1 and divide "
                             f"embed_dim, {embed_dim!r}")
        if real(f"{title}: dropout", dropout, 0, 1) == 1:
            raise ValueError(f"MultiheadAttention: dropout is {dropout!r}, but must be a probability of at least 0 "
                             "and below 1")
        networks = (query_network, key_network, value_network)
        if any(networks) and not all(networks):
            raise ValueError("MultiheadAttention: query_network, key_network and value_network must be given all or "
                             "none")
        self.embed_dim, self.num_heads, self.dropout, self.batch_first = embed_dim, num_heads, dropout, batch_first
        self.kdim = embed_dim if kdim is None else whole(f"{title}: kdim", kdim, 1)
        self.vdim = embed_dim if vdim is None else whole(f"{title}: vdim", vdim, 1)
        self.add_zero_attn = add_zero_attn
        self._has_networks = all(networks)
        if self._has_networks:
            self.query_network, self.key_network, self.value_network = networks
        self._make_parameters(bias, add_bias_kv)
        self.out_proj = Linear(embed_dim, embed_dim, bias)
        self.reset_parameters()

    def _make_parameters(self, bias: bool, add_bias_kv: bool) -> None:
        width = self.embed_dim
        alike = self.kdim == self.vdim == width
        shapes = {"q_proj_weight": width, "k_proj_weight": self.kdim, "v_proj_weight": self.vdim}
        for name, columns in shapes.items():
            self.register_parameter(name, None if alike or self._has_networks else Parameter(empty(width, columns)))
        packed = alike and not self._has_networks
        self.register_parameter("in_proj_weight", Parameter(empty(3 * width, width)) if packed else None)
        self.register_parameter("in_proj_bias", Parameter(empty(3 * width)) if bias and not self._has_networks
                                else None)
        for name in ("bias_k", "bias_v"):
            self.register_parameter(name, Parameter(empty(1, 1, width)) if add_bias_kv else None)

    def reset_parameters(self) -> None:
        """Draws new first values."""
        for weight in (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
            if weight is not None:
                init.xavier_uniform_(weight)
        for bias in (self.bias_k, self.bias_v):
            if bias is not None:
                init.normal_(bias, 0.0, 1 / math.sqrt(self.embed_dim))
        with no_grad():
            for bias in (self.in_proj_bias, self.out_proj.bias):
                if bias is not None:
                    bias.copy_(0)

    def forward(self, query: Tensor, key: Tensor | None = None, value: Tensor | None = None,
                key_padding_mask: Tensor | None = None,
                need_weights: bool = True, attn_mask: Tensor | None = None, average_attn_weights: bool = True,
                is_causal: bool = False) -> tuple[Tensor, Tensor | None]:
        """Attends from `query` to `key` and `value`.

        Parameters
        ----------
        query, key, value : Tensor
            (L, N, E), (S, N, kdim), (S, N, vdim); with `batch_first` (N, L, E) and so on; or without N. By default
            `key` is `query` (self-attention) and `value` is `key`.
        key_padding_mask : Tensor, optional
            (N, S), or (S,) without N. bool: True hides a key; real: added to the scores.
        need_weights : bool
            Whether to return the weights too. Without, scores are never stored, which is much faster.
        attn_mask : Tensor, optional
            (L, S) or (N h, L, S). bool: True hides a key from a query; real: added to the scores.
        average_attn_weights : bool
            Whether weights are averaged over heads.
        is_causal : bool
            Whether query i sees keys 0 to i only; then `attn_mask`, if given, must say the same, and is not read.

        Returns
        -------
        tuple of Tensor and Tensor or None
            Result, shaped as `query`; weights (N, L, S), or (N, h, L, S) without averaging.
        """
        key = query if key is None else key
        value = key if value is None else value
        if query.ndim == 2:
            one = 0 if self.batch_first else 1
            masks = (key_padding_mask if key_padding_mask is None else unsqueeze(key_padding_mask, 0), need_weights,
                     attn_mask, average_attn_weights, is_causal)
            y, weights = self.forward(*(unsqueeze(t, one) for t in (query, key, value)), *masks)
            return reshape(y, query.shape), None if weights is None else reshape(weights, weights.shape[1:])
        q, k, v = (self._heads(t) for t in self._extended(*self._projected(query, key, value)))
        mask = self._mask(q, k, key_padding_mask, None if is_causal else attn_mask)
        rate, scale = self.dropout if self.training else 0.0, 1 / math.sqrt(q.shape[-1])
        if need_weights:
            y, weights = attend_with_weights(q, k, v, mask, rate, is_causal, scale)
            weights = mean(weights, 1) if average_attn_weights else weights
        else:
            weights, y = None, attend(q, k, v, mask, rate, is_causal, scale)
        y = permute(y, 0, 2, 1, 3) if self.batch_first else permute(y, 2, 0, 1, 3)
        return self.out_proj(reshape(y, query.shape[:2] + (self.embed_dim,))), weights

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (..., E) each."""
        if self._has_networks:
            return self.query_network(query), self.key_network(key), self.value_network(value)
        if self.in_proj_weight is not None:
            return project_in(query, key, value, self.in_proj_weight, self.in_proj_bias)
        width, bias = self.embed_dim, self.in_proj_bias
        biases = [None if bias is None else bias[k * width:(k + 1) * width] for k in range(3)]
        weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        return tuple(linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases))

    def _extended(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """With the learned and the zero key and value."""
        axis = 1 if self.batch_first else 0
        one = tuple(1 if d == axis else n for d, n in enumerate(k.shape))
        if self.bias_k is not None:
            k, v = cat((k, broadcast_to(self.bias_k, one)), axis), cat((v, broadcast_to(self.bias_v, one)), axis)
        if self.add_zero_attn:
            k, v = (cat((t, zeros(*one, dtype=t.dtype)), axis) for t in (k, v))
        return q, k, v

    def _heads(self, t: Tensor) -> Tensor:
        """(N, L, E) or (L, N, E) as (N, h, L, D): a view."""
        split = reshape(t, (*t.shape[:2], self.num_heads, self.embed_dim // self.num_heads))
        return permute(split, 0, 2, 1, 3) if self.batch_first else permute(split, 1, 2, 0, 3)

    def _mask(self, q: Tensor, k: Tensor, key_padding_mask: Tensor | None, attn_mask: Tensor | None) -> Tensor | None:
        """Both masks as one that broadcasts to (N, h, L, S): bool, True where a query may see a key, or additive."""
        batch, keys = q.shape[0], k.shape[2]
        masks = []
        if key_padding_mask is not None:
            masks.append(reshape(key_padding_mask, (batch, 1, 1, key_padding_mask.shape[-1])))
        if attn_mask is not None and attn_mask.ndim == 3:
            masks.append(reshape(attn_mask, (batch, self.num_heads, *attn_mask.shape[1:])))
        elif attn_mask is not None:
            masks.append(reshape(attn_mask, (1, 1, *attn_mask.shape)))
        masks = [self._padded(logical_not(m) if m.dtype.name == "bool" else m, keys) for m in masks]
        if len(masks) < 2:
            return masks[0] if masks else None
        if all(m.dtype.name == "bool" for m in masks):
            return logical_and(*masks)
        return add(*(where(m, 0.0, -math.inf).to(q.dtype) if m.dtype.name == "bool" else m for m in masks))

    def _padded(self, mask: Tensor, keys: int) -> Tensor:
        """Added keys are seen by all."""
        missing = keys - mask.shape[-1]
        added = (self.bias_k is not None) + self.add_zero_attn
        return pad(mask, (0, missing), value=float(mask.dtype.name == "bool")) if missing == added and missing else mask

    def extra_repr(self) -> str:
        return f"{self.embed_dim}, num_heads={self.num_heads}, dropout={self.dropout}, batch_first={self.batch_first}"
