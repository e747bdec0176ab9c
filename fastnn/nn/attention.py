"""Multi-head attention."""

from __future__ import annotations

import math

from ..checks import real, whole
from ..ops.attention import project_in
from ..ops.create import empty
from ..ops.linear import linear
from ..ops.multi_head import attend_in_heads
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
        options = {"batch_first": self.batch_first, "bias_k": self.bias_k, "bias_v": self.bias_v,
                   "add_zero_attn": self.add_zero_attn,
                   "dropout_p": self.dropout if self.training else 0.0, "need_weights": need_weights,
                   "average_attn_weights": average_attn_weights, "is_causal": is_causal}
        y, weights = attend_in_heads(self._projected, query, key, value, self.num_heads, key_padding_mask, attn_mask, **options)
        return self.out_proj(y), weights

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

    def extra_repr(self) -> str:
        return f"{self.embed_dim}, num_heads={self.num_heads}, dropout={self.dropout}, batch_first={self.batch_first}"
