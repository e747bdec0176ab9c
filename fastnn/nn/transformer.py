"""Transformer layers and stacks."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np

from ..checks import MOST_LAYERS, real, whole
from ..ops.activation import activation as activation_of
from ..ops.activation import relu
from ..ops.create import tensor
from ..ops.math import add
from ..tensor import Tensor
from . import init
from .attention import MultiheadAttention
from .container import ModuleList
from .dropout import Dropout
from .linear import Linear
from .module import Module
from .norm import LayerNorm
from .typed import typed

__all__ = ["Transformer", "TransformerDecoder", "TransformerDecoderLayer", "TransformerEncoder",
           "TransformerEncoderLayer"]


def causal_mask(length: int, dtype: str = "float32") -> Tensor:
    """What hides later keys from earlier queries.

    Parameters
    ----------
    length : int
        L.
    dtype : str
        Its type.

    Returns
    -------
    Tensor
        (L, L): 0 on and below the diagonal, -inf above it.
    """
    return tensor(np.where(np.tri(length, dtype=bool), 0.0, -math.inf), dtype)


class _Layer(Module):
    """What encoder and decoder layers share: the two linear layers, dropout, norms, and where the norms stand."""

    def __init__(self, d_model: int, nhead: int, dim_feedforward: int, dropout: float,
                 activation: str | Callable[[Tensor], Tensor], layer_norm_eps: float, batch_first: bool,
                 norm_first: bool, bias: bool, attentions: tuple[str, ...]):
        super().__init__()
        title = type(self).__name__
        for name, value in (("d_model", d_model), ("dim_feedforward", dim_feedforward)):
            whole(f"{title}: {name}", value, 1)
        real(f"{title}: dropout", dropout, 0, 1), real(f"{title}: layer_norm_eps", layer_norm_eps, 0)
        if d_model % whole(f"{title}: nhead", nhead, 1):
            raise ValueError(f"{title}: nhead is {nhead!r}, but must divide d_model, {d_model!r}")
        sublayers = len(attentions) + 1
        for attention in attentions:
            setattr(self, attention, MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first))
        self.linear1 = Linear(d_model, dim_feedforward, bias)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias)
        for k in range(1, sublayers + 1):
            setattr(self, f"norm{k}", LayerNorm(d_model, layer_norm_eps, bias=bias))
        for k in range(1, sublayers + 1):
            setattr(self, f"dropout{k}", Dropout(dropout))
        self.norm_first = norm_first
        self.activation = activation_of(activation)

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))

    def _attend(self, attention: MultiheadAttention, x: Tensor, memory: Tensor | None, mask: Tensor | None,
                key_padding_mask: Tensor | None, is_causal: bool) -> Tensor:
        return attention(x, memory, None, key_padding_mask, False, mask, is_causal=is_causal)[0]

    def _sublayer(self, number: int, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """x plus what the function makes of it, with its norm before the function or behind the sum."""
        norm, drop = getattr(self, f"norm{number}"), getattr(self, f"dropout{number}")
        if self.norm_first:
            return add(x, drop(function(norm(x))))
        return norm(add(x, drop(function(x))))


@typed
class TransformerEncoderLayer(_Layer):
    """Self-attention, then two linear layers, each with a shortcut and layer normalisation.

    Parameters
    ----------
    d_model : int
        E, the width.
    nhead : int
        Heads; divides `d_model`.
    dim_feedforward : int
        Width between the two linear layers.
    dropout : float
        Probability of dropping, in attention, behind each sublayer and between the linear layers.
    activation : str or callable
        Between the linear layers.
    layer_norm_eps : float
        Added to variances.
    batch_first : bool
        Whether inputs are (N, L, E) rather than (L, N, E).
    norm_first : bool
        Whether normalisation comes before each sublayer rather than behind the sum.
    bias : bool
        Whether linear layers and norms have a bias.

    References
    ----------
    A. Vaswani et al., "Attention is all you need", NeurIPS 2017.
    """

    def __init__(self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
                 activation: str | Callable[[Tensor], Tensor] = relu, layer_norm_eps: float = 1e-5,
                 batch_first: bool = False, norm_first: bool = False, bias: bool = True):
        super().__init__(d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias,
                         ("self_attn",))

    def forward(self, src: Tensor, src_mask: Tensor | None = None, src_key_padding_mask: Tensor | None = None,
                is_causal: bool = False) -> Tensor:
        """Shapes and masks as in `MultiheadAttention`."""
        x = self._sublayer(1, src, lambda t: self._attend(self.self_attn, t, None, src_mask, src_key_padding_mask,
                                                          is_causal))
        return self._sublayer(2, x, self._feed_forward)


@typed
class TransformerDecoderLayer(_Layer):
    """Self-attention, attention to the encoder's output, then two linear layers, each with a shortcut and layer
    normalisation.

    Parameters
    ----------
    d_model : int
        E, the width.
    nhead : int
        Heads; divides `d_model`.
    dim_feedforward : int
        Width between the two linear layers.
    dropout : float
        Probability of dropping, in attention, behind each sublayer and between the linear layers.
    activation : str or callable
        Between the linear layers.
    layer_norm_eps : float
        Added to variances.
    batch_first : bool
        Whether inputs are (N, L, E) rather than (L, N, E).
    norm_first : bool
        Whether normalisation comes before each sublayer rather than behind the sum.
    bias : bool
        Whether linear layers and norms have a bias.

    References
    ----------
    A. Vaswani et al., "Attention is all you need", NeurIPS 2017.
    """

    def __init__(self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
                 activation: str | Callable[[Tensor], Tensor] = relu, layer_norm_eps: float = 1e-5,
                 batch_first: bool = False, norm_first: bool = False, bias: bool = True):
        super().__init__(d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias,
                         ("self_attn", "multihead_attn"))

    def forward(self, tgt: Tensor, memory: Tensor, tgt_mask: Tensor | None = None, memory_mask: Tensor | None = None,
                tgt_key_padding_mask: Tensor | None = None, memory_key_padding_mask: Tensor | None = None,
                tgt_is_causal: bool = False, memory_is_causal: bool = False) -> Tensor:
        """Shapes and masks as in `MultiheadAttention`."""
        x = self._sublayer(1, tgt, lambda t: self._attend(self.self_attn, t, None, tgt_mask, tgt_key_padding_mask,
                                                          tgt_is_causal))
        x = self._sublayer(2, x, lambda t: self._attend(self.multihead_attn, t, memory, memory_mask,
                                                        memory_key_padding_mask, memory_is_causal))
        return self._sublayer(3, x, self._feed_forward)


class _Stack(Module):
    """Copies of one layer, and a norm behind the last."""

    def __init__(self, layer: Module, num_layers: int, norm: Module | None):
        super().__init__()
        whole(f"{type(self).__name__}: num_layers", num_layers, 0, MOST_LAYERS)
        if norm is not None and not isinstance(norm, Module):
            raise TypeError(f"{type(self).__name__}: norm is {norm!r}, but must be a Module or None")
        self.layers = ModuleList(copy.deepcopy(layer) for _ in range(num_layers))
        self.num_layers = num_layers
        self.norm = norm

    def _run(self, x: Tensor, *inputs: Tensor, **options) -> Tensor:
        for layer in self.layers:
            x = layer(x, *inputs, **options)
        return x if self.norm is None else self.norm(x)


class TransformerEncoder(_Stack):
    """A stack of encoder layers.

    Parameters
    ----------
    encoder_layer : TransformerEncoderLayer
        Copied for each place; the copies start alike.
    num_layers : int
        How many.
    norm : Module, optional
        Applied behind the last.
    """

    def __init__(self, encoder_layer: Module, num_layers: int, norm: Module | None = None):
        super().__init__(encoder_layer, num_layers, norm)

    def forward(self, src: Tensor, mask: Tensor | None = None, src_key_padding_mask: Tensor | None = None,
                is_causal: bool = False) -> Tensor:
        """Shapes and masks as in `MultiheadAttention`."""
        return self._run(src, src_mask=mask, src_key_padding_mask=src_key_padding_mask, is_causal=is_causal)


class TransformerDecoder(_Stack):
    """A stack of decoder layers.

    Parameters
    ----------
    decoder_layer : TransformerDecoderLayer
        Copied for each place; the copies start alike.
    num_layers : int
        How many.
    norm : Module, optional
        Applied behind the last.
    """

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None):
        super().__init__(decoder_layer, num_layers, norm)

    def forward(self, tgt: Tensor, memory: Tensor, tgt_mask: Tensor | None = None, memory_mask: Tensor | None = None,
                tgt_key_padding_mask: Tensor | None = None, memory_key_padding_mask: Tensor | None = None,
                tgt_is_causal: bool = False, memory_is_causal: bool = False) -> Tensor:
        """Shapes and masks as in `MultiheadAttention`."""
        return self._run(tgt, memory, tgt_mask=tgt_mask, memory_mask=memory_mask,
                         tgt_key_padding_mask=tgt_key_padding_mask,
                         memory_key_padding_mask=memory_key_padding_mask, tgt_is_causal=tgt_is_causal,
                         memory_is_causal=memory_is_causal)


@typed
class Transformer(Module):
    """Encoder and decoder of the original transformer, without embeddings and output layer.

    Parameters
    ----------
    d_model : int
        E, the width.
    nhead : int
        Heads; divides `d_model`.
    num_encoder_layers, num_decoder_layers : int
        Layers of each stack.
    dim_feedforward : int
        Width between the two linear layers.
    dropout : float
        Probability of dropping.
    activation : str or callable
        Between the linear layers.
    custom_encoder, custom_decoder : Module, optional
        What stands in for the stacks; called as these are.
    layer_norm_eps : float
        Added to variances.
    batch_first : bool
        Whether inputs are (N, L, E) rather than (L, N, E).
    norm_first : bool
        Whether normalisation comes before each sublayer rather than behind the sum.
    bias : bool
        Whether linear layers and norms have a bias.

    References
    ----------
    A. Vaswani et al., "Attention is all you need", NeurIPS 2017.
    """

    def __init__(self, d_model: int = 512, nhead: int = 8, num_encoder_layers: int = 6, num_decoder_layers: int = 6,
                 dim_feedforward: int = 2048, dropout: float = 0.1, activation: str | Callable[[Tensor], Tensor] = relu,
                 custom_encoder: Module | None = None, custom_decoder: Module | None = None, layer_norm_eps: float = 1e-5,
                 batch_first: bool = False, norm_first: bool = False, bias: bool = True):
        super().__init__()
        whole("Transformer: num_encoder_layers", num_encoder_layers, 0, MOST_LAYERS)
        whole("Transformer: num_decoder_layers", num_decoder_layers, 0, MOST_LAYERS)
        options = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias)
        for name, custom in (("custom_encoder", custom_encoder), ("custom_decoder", custom_decoder)):
            if custom is not None and not isinstance(custom, Module):
                raise TypeError(f"Transformer: {name} is {custom!r}, but must be a Module or None")
        self.encoder = custom_encoder if custom_encoder is not None else TransformerEncoder(
            TransformerEncoderLayer(*options), num_encoder_layers, LayerNorm(d_model, layer_norm_eps, bias=bias))
        self.decoder = custom_decoder if custom_decoder is not None else TransformerDecoder(
            TransformerDecoderLayer(*options), num_decoder_layers, LayerNorm(d_model, layer_norm_eps, bias=bias))
        self.d_model, self.nhead, self.batch_first = d_model, nhead, batch_first
        for parameter in self.parameters():
            if parameter.ndim > 1:
                init.xavier_uniform_(parameter)

    def forward(self, src: Tensor, tgt: Tensor, src_mask: Tensor | None = None, tgt_mask: Tensor | None = None,
                memory_mask: Tensor | None = None, src_key_padding_mask: Tensor | None = None,
                tgt_key_padding_mask: Tensor | None = None,
                memory_key_padding_mask: Tensor | None = None, src_is_causal: bool = False, tgt_is_causal: bool = False,
                memory_is_causal: bool = False) -> Tensor:
        """Shapes and masks as in `MultiheadAttention`."""
        memory = self.encoder(src, src_mask, src_key_padding_mask, src_is_causal)
        return self.decoder(tgt, memory, tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask,
                            tgt_is_causal, memory_is_causal)

    @staticmethod
    def generate_square_subsequent_mask(sz: int, dtype: str = "float32") -> Tensor:
        """(sz, sz): 0 on and below the diagonal, -inf above it."""
        return causal_mask(sz, dtype)
