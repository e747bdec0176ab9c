"""The list of layers that tests come from: how to make each one, on what, and which function it must agree with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import functional as F
from .. import nn
from ..ops.create import tensor
from ..random import manual_seed, randn
from ..tensor import Tensor, no_grad

__all__ = ["LAYERS", "LayerSpec", "check_layer_function", "check_layer_gradients", "check_layer_state"]


@dataclass(frozen=True)
class LayerSpec:
    """One layer, made in one way.

    Parameters
    ----------
    make : callable
        ``make()`` gives the layer.
    shape : tuple of int
        Of its input.
    function : callable
        ``function(layer, x)`` computes the same with `fastnn.functional` from the layer's parameters.
    differentiable : bool
        Whether gradients are compared with differences (steps have none worth it).
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    function: Callable[[Any, Tensor], Tensor]
    differentiable: bool = True

    @property
    def name(self) -> str:
        """Name of the layer's class."""
        return type(self.make()).__name__

    def input(self, seed: int = 0) -> np.ndarray:
        """Distinct values in random order, in float64: no two close, none close to 0, so that kinks stay away."""
        n = int(np.prod(self.shape))
        values = (np.random.default_rng(seed).permutation(n) + 0.5 - n // 2) * 4 / max(n, 1)
        return values.reshape(self.shape)


def _batch_norm(layer: Any, x: Tensor) -> Tensor:
    track = layer.track_running_stats
    mean, var = (layer.running_mean.clone(), layer.running_var.clone()) if track else (None, None)
    return F.batch_norm(x, mean, var, layer.weight, layer.bias, layer.training or not track, layer.momentum, layer.eps)


def _conv(layer: Any, x: Tensor) -> Tensor:
    return F.conv2d(x, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def _sequence(layer: Any, x: Tensor) -> Tensor:
    return F.linear(F.relu(F.linear(x, layer[0].weight, layer[0].bias)), layer[2].weight, layer[2].bias)


_IMAGES = (2, 4, 6, 7)
_LABELS = np.array([2, 0, 4])
_TARGETS = np.linspace(0, 1, 15).reshape(3, 5)
_OTHERS = np.cos(np.arange(15.0)).reshape(3, 5)
_SIGNS = np.where(np.arange(15) % 4 < 2, 1.0, -1.0).reshape(3, 5)


class _Loss(nn.Module):
    """A loss against fixed targets, as a layer of one input."""

    def __init__(self, loss: nn.Module, *targets: np.ndarray):
        super().__init__()
        self.loss, self.targets = loss, targets

    def forward(self, x: Tensor) -> Tensor:
        return self.loss(x, *_like(self.targets, x))


def _like(targets: tuple[np.ndarray, ...], x: Tensor) -> list[Tensor]:
    """Real targets in the input's type; labels as they are."""
    return [tensor(target, x.dtype if target.dtype.kind == "f" else None) for target in targets]


def _loss(make: Callable[[], nn.Module], function: Callable, *targets: np.ndarray, **options: Any) -> LayerSpec:
    """A loss over (3, 5), and the function with the same options."""
    return LayerSpec(lambda: _Loss(make(), *targets), (3, 5),
                     lambda layer, x: function(x, *_like(targets, x), **options))


class _Probabilities(nn.Module):
    """An adaptive softmax's loss and all log-probabilities, as a layer of one input."""

    def __init__(self, softmax: nn.AdaptiveLogSoftmaxWithLoss):
        super().__init__()
        self.softmax = softmax

    def forward(self, x: Tensor) -> Tensor:
        return F.add(self.softmax.log_prob(x), self.softmax(x, tensor(np.array([5, 0, 3]))).loss)


def _log_probabilities(layer: _Probabilities, x: Tensor) -> Tensor:
    """The same from the whole distribution."""
    part = layer.softmax
    head = F.log_softmax(F.linear(x, part.head.weight), 1)
    tails = [F.add(F.log_softmax(F.linear(F.linear(x, tail[0].weight), tail[1].weight), 1), head[:, 2 + k:3 + k])
             for k, tail in enumerate(part.tail)]
    y = F.cat([head[:, :2], *tails], 1)
    return F.add(y, F.neg(F.mean(F.gather(y, 1, np.array([[5], [0], [3]])))))


class _Tokens(nn.Module):
    """An embedding of fixed tokens plus the input, as a layer of one real input."""

    def __init__(self, embedding: nn.Module):
        super().__init__()
        self.embedding, self.tokens = embedding, np.array([[1, 0, 4], [2, 1, 1]])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.embedding(self.tokens)


class _Decoded(nn.Module):
    """A decoder that attends to its own input, as a layer of one input."""

    def __init__(self, decoder: nn.Module):
        super().__init__()
        self.decoder = decoder

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(x, x)


class _First(nn.Module):
    """The first of a layer's outputs."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


def _attention(layer: Any, x: Tensor) -> Tensor:
    attention = layer.layer
    q, k, v = (F.linear(x, attention.in_proj_weight[6 * j:6 * j + 6], attention.in_proj_bias[6 * j:6 * j + 6])
               for j in range(3))
    heads = [t.reshape(2, 3, 2, 3).permute(0, 2, 1, 3) for t in (q, k, v)]
    weights = F.softmax(F.matmul(heads[0] * (1 / 3**0.5), F.transpose(heads[1])), -1)
    y = F.matmul(weights, heads[2]).permute(0, 2, 1, 3).reshape(2, 3, 6)
    return F.linear(y, attention.out_proj.weight, attention.out_proj.bias)


def _feed_forward(layer: Any, x: Tensor) -> Tensor:
    return layer.linear2(F.relu(layer.linear1(x)))


def _encoder_layer(layer: Any, x: Tensor) -> Tensor:
    x = layer.norm1(x + layer.self_attn(x, need_weights=False)[0])
    return layer.norm2(x + _feed_forward(layer, x))


def _decoder_layer(layer: Any, x: Tensor, memory: Tensor) -> Tensor:
    x = layer.norm1(x + layer.self_attn(x, need_weights=False)[0])
    x = layer.norm2(x + layer.multihead_attn(x, memory, need_weights=False)[0])
    return layer.norm3(x + _feed_forward(layer, x))


def _transformer(layer: Any, x: Tensor) -> Tensor:
    model = layer.decoder
    memory = model.encoder.norm(_encoder_layer(model.encoder.layers[0], x))
    return model.decoder.norm(_decoder_layer(model.decoder.layers[0], x, memory))


def _sinusoids(length: int, width: int) -> np.ndarray:
    angles = np.arange(length)[:, None] / 10000.0 ** (np.arange(0, width, 2) / width)
    return np.stack((np.sin(angles), np.cos(angles)), -1).reshape(length, -1)[:, :width]


def _weights(layer: Any, suffix: str = "") -> tuple[Tensor, ...]:
    return tuple(getattr(layer, name + suffix) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))


def _two_ways(layer: Any, x: Tensor) -> Tensor:
    for k in range(2):
        ways = [F.gru(x, None, *_weights(layer.layer, f"_l{k}{end}"), reverse=bool(end)) for end in ("", "_reverse")]
        x = F.cat([y for y, _ in ways], 2)
    return x


class _Unpooled(nn.Module):
    """Un-pooling of the input to fixed places, as a layer of one input."""

    def __init__(self, layer: nn.Module, indices: np.ndarray):
        super().__init__()
        self.layer, self.indices = layer, indices

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, tensor(self.indices))


def _unpooled(layer: nn.Module, function: Callable, *shape: int) -> LayerSpec:
    """Each element goes to the last place of its window of two."""
    last = np.indices(shape[2:])[-1] * 2 + 1
    indices = np.broadcast_to(last if len(shape) == 3 else last + np.indices(shape[2:])[0] * 4 * shape[3], shape).copy()
    return LayerSpec(lambda: _Unpooled(layer(2), indices), shape, lambda made, x: function(x, tensor(indices), 2))


def _normed(layer: Any, x: Tensor) -> Tensor:
    v = layer.module.weight_v
    weight = v * (layer.module.weight_g / F.sqrt(F.sum(F.square(v), 1, keepdim=True)))
    return F.linear(x, weight, layer.module.bias)


def _padded(make: Callable[[Any], nn.Module], padding: Any, mode: str, value: float = 0.0) -> LayerSpec:
    """A padding layer over one or two axes."""
    sides = tuple(padding)
    return LayerSpec(lambda: make(padding), _IMAGES if len(sides) == 4 else (2, 4, 6),
                     lambda layer, x: F.pad(x, sides, mode, value))


_SEQUENCES = (2, 4, 9)
_ONE, _TWO = (2, 1), (2, 1, 0, 3)
_MORE: tuple[LayerSpec, ...] = (
    LayerSpec(lambda: nn.Conv1d(4, 6, 3, padding=1), _SEQUENCES,
              lambda layer, x: F.conv1d(x, layer.weight, layer.bias, padding=1)),
    LayerSpec(lambda: nn.Conv1d(4, 6, 3, padding="same", padding_mode="reflect", bias=False), _SEQUENCES,
              lambda layer, x: F.conv1d(F.pad(x, (1, 1), "reflect"), layer.weight)),
    LayerSpec(lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), _IMAGES,
              lambda layer, x: F.conv2d(F.pad(x, (1, 1, 1, 1), "circular"), layer.weight, layer.bias)),
    LayerSpec(lambda: nn.ConvTranspose1d(4, 6, 3, 2, 1, 1), _SEQUENCES,
              lambda layer, x: F.conv_transpose1d(x, layer.weight, layer.bias, 2, 1, 1)),
    LayerSpec(lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2), _IMAGES,
              lambda layer, x: F.conv_transpose2d(x, layer.weight, layer.bias, 2, 1, 1, 2)),
    LayerSpec(lambda: nn.LocallyConnected1d(4, 3, 9, 3, 2), _SEQUENCES,
              lambda layer, x: F.local1d(x, layer.weight, layer.bias, 3, 2)),
    LayerSpec(lambda: nn.LocallyConnected2d(4, 3, (6, 7), 3, padding=1, bias=False), _IMAGES,
              lambda layer, x: F.local2d(x, layer.weight, None, 3, 1, 1)),
    LayerSpec(lambda: nn.Unfold(3, padding=1), _IMAGES, lambda layer, x: F.unfold(x, 3, padding=1)),
    LayerSpec(lambda: nn.Fold((4, 5), 2), (2, 8, 12), lambda layer, x: F.fold(x, (4, 5), 2)),
    LayerSpec(lambda: nn.MaxPool1d(2), _SEQUENCES, lambda layer, x: F.max_pool1d(x, 2)),
    LayerSpec(lambda: nn.AvgPool1d(3, 2, 1), _SEQUENCES, lambda layer, x: F.avg_pool1d(x, 3, 2, 1)),
    LayerSpec(lambda: nn.AdaptiveAvgPool1d(4), _SEQUENCES, lambda layer, x: F.adaptive_avg_pool1d(x, 4)),
    LayerSpec(lambda: nn.AdaptiveMaxPool1d(4), _SEQUENCES, lambda layer, x: F.adaptive_max_pool1d(x, 4)),
    LayerSpec(nn.GlobalAvgPool1d, _SEQUENCES, lambda layer, x: F.global_avg_pool1d(x)),
    LayerSpec(nn.GlobalMaxPool1d, _SEQUENCES, lambda layer, x: F.global_max_pool1d(x)),
    LayerSpec(lambda: nn.Upsample(scale_factor=2), _IMAGES, lambda layer, x: F.interpolate(x, scale_factor=2)),
    LayerSpec(lambda: nn.UpsamplingNearest2d(9), _IMAGES, lambda layer, x: F.interpolate(x, 9)),
    LayerSpec(lambda: nn.UpsamplingBilinear2d((9, 8)), _IMAGES,
              lambda layer, x: F.interpolate(x, (9, 8), None, "bilinear", True)),
    LayerSpec(lambda: nn.BedOfNails2d(3), _IMAGES, lambda layer, x: F.bed_of_nails2d(x, 3)),
    _unpooled(nn.MaxUnpool1d, F.max_unpool1d, 2, 3, 4),
    _unpooled(nn.MaxUnpool2d, F.max_unpool2d, 2, 3, 2, 4),
    _padded(nn.ZeroPad1d, _ONE, "constant"), _padded(nn.ZeroPad2d, _TWO, "constant"),
    _padded(lambda p: nn.ConstantPad1d(p, 1.5), _ONE, "constant", 1.5),
    _padded(lambda p: nn.ConstantPad2d(p, 1.5), _TWO, "constant", 1.5),
    _padded(nn.ReflectionPad1d, _ONE, "reflect"), _padded(nn.ReflectionPad2d, _TWO, "reflect"),
    _padded(nn.ReplicationPad1d, _ONE, "replicate"), _padded(nn.ReplicationPad2d, _TWO, "replicate"),
    _padded(nn.CircularPad1d, _ONE, "circular"), _padded(nn.CircularPad2d, _TWO, "circular"),
    LayerSpec(lambda: nn.CrossMapLRN2d(3, alpha=0.5), _IMAGES, lambda layer, x: F.local_response_norm(x, 3, 0.5)),
    LayerSpec(lambda: _Probabilities(nn.AdaptiveLogSoftmaxWithLoss(5, 7, [2, 4], 2.0)), (3, 5), _log_probabilities),
    LayerSpec(lambda: nn.LocalResponseNorm(3, alpha=0.5), _IMAGES, lambda layer, x: F.local_response_norm(x, 3, 0.5)),
    LayerSpec(lambda: nn.Dropout1d(0.4), _SEQUENCES, lambda layer, x: F.dropout1d(x, 0.4)),
    LayerSpec(lambda: nn.Dropout2d(0.4), _IMAGES, lambda layer, x: F.dropout2d(x, 0.4)),
    LayerSpec(lambda: nn.AlphaDropout(0.4), (5, 30), lambda layer, x: F.alpha_dropout(x, 0.4)),
    LayerSpec(lambda: nn.FeatureAlphaDropout(0.4), _IMAGES, lambda layer, x: F.feature_alpha_dropout(x, 0.4)),
    LayerSpec(lambda: nn.RReLU(0.2, 0.6), (5, 30), lambda layer, x: F.rrelu(x, 0.2, 0.6, True)),
    LayerSpec(lambda: nn.GaussianNoise(0.3), (5, 30), lambda layer, x: x + randn(5, 30, dtype=x.dtype) * 0.3),
    LayerSpec(lambda: nn.DropConnect(nn.Linear(5, 4), 0.4), (3, 5),
              lambda layer, x: F.linear(x, F.dropout(layer.module.weight, 0.4), layer.module.bias)),
    LayerSpec(lambda: nn.WeightNorm(nn.Linear(5, 4)), (3, 5), _normed),
    LayerSpec(lambda: nn.Concat(nn.Linear(5, 2), nn.Linear(5, 3)), (3, 5),
              lambda layer, x: F.cat([F.linear(x, part.weight, part.bias) for part in layer.children()], 1)),
    LayerSpec(lambda: nn.Residual(nn.Linear(5, 5)), (3, 5),
              lambda layer, x: F.linear(x, layer.module.weight, layer.module.bias) + x),
    LayerSpec(lambda: nn.Residual(nn.Conv2d(4, 6, 3, 2, 1), "zero"), _IMAGES,
              lambda layer, x: _conv(layer.module, x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, 2))),
)


LAYERS: tuple[LayerSpec, ...] = (
    LayerSpec(nn.Identity, (3, 4), lambda layer, x: x),
    LayerSpec(lambda: nn.Linear(5, 3), (4, 5), lambda layer, x: F.linear(x, layer.weight, layer.bias)),
    LayerSpec(lambda: nn.Linear(5, 3, bias=False), (2, 4, 5), lambda layer, x: F.linear(x, layer.weight)),
    LayerSpec(lambda: nn.LazyLinear(3), (4, 7), lambda layer, x: F.linear(x, layer.weight, layer.bias)),
    LayerSpec(lambda: _Loss(nn.Bilinear(5, 5, 3), _OTHERS), (3, 5),
              lambda layer, x: F.bilinear(x, *_like((_OTHERS,), x), layer.loss.weight, layer.loss.bias)),
    LayerSpec(nn.Flatten, _IMAGES, lambda layer, x: F.flatten(x, 1)),
    LayerSpec(lambda: nn.Unflatten(1, (2, 3)), (4, 6), lambda layer, x: x.reshape(4, 2, 3)),
    LayerSpec(lambda: nn.Conv2d(4, 6, 3, padding=1), _IMAGES, _conv),
    LayerSpec(lambda: nn.Conv2d(4, 6, (3, 2), stride=2, dilation=(1, 2), groups=2, bias=False), _IMAGES, _conv),
    LayerSpec(lambda: nn.Conv2d(4, 4, 4, padding="same"), _IMAGES, _conv),
    LayerSpec(lambda: nn.LazyConv2d(5, 3), _IMAGES, _conv),
    LayerSpec(lambda: nn.LazyConv2d(4, 3, 1, "same", groups=2, padding_mode="replicate"), _IMAGES,
              lambda layer, x: F.conv2d(F.pad(x, (1, 1, 1, 1), "replicate"), layer.weight, layer.bias, groups=2)),
    LayerSpec(lambda: nn.LazyConv1d(5, 3, 2), _SEQUENCES,
              lambda layer, x: F.conv1d(x, layer.weight, layer.bias, 2)),
    LayerSpec(lambda: nn.LazyConvTranspose1d(6, 3, 2), _SEQUENCES,
              lambda layer, x: F.conv_transpose1d(x, layer.weight, layer.bias, 2)),
    LayerSpec(lambda: nn.LazyConvTranspose2d(6, 3, groups=2), _IMAGES,
              lambda layer, x: F.conv_transpose2d(x, layer.weight, layer.bias, groups=2)),
    LayerSpec(lambda: nn.MaxPool2d(2), _IMAGES, lambda layer, x: F.max_pool2d(x, 2)),
    LayerSpec(lambda: nn.AvgPool2d(3, stride=2, padding=1), _IMAGES, lambda layer, x: F.avg_pool2d(x, 3, 2, 1)),
    LayerSpec(lambda: nn.AdaptiveAvgPool2d((2, 3)), _IMAGES, lambda layer, x: F.adaptive_avg_pool2d(x, (2, 3))),
    LayerSpec(lambda: nn.AdaptiveMaxPool2d((2, 3)), _IMAGES, lambda layer, x: F.adaptive_max_pool2d(x, (2, 3))),
    LayerSpec(lambda: nn.FractionalMaxPool2d(2, (4, 3)), _IMAGES, lambda layer, x: F.fractional_max_pool2d(x, 2, (4, 3))),
    LayerSpec(lambda: nn.FractionalMaxPool2d((3, 2), output_ratio=0.6), _IMAGES,
              lambda layer, x: F.fractional_max_pool2d(x, (3, 2), output_ratio=0.6)),
    LayerSpec(nn.GlobalAvgPool2d, _IMAGES, lambda layer, x: F.global_avg_pool2d(x)),
    LayerSpec(nn.GlobalMaxPool2d, _IMAGES, lambda layer, x: F.global_max_pool2d(x)),
    LayerSpec(lambda: nn.BatchNorm1d(6), (5, 6), _batch_norm),
    LayerSpec(lambda: nn.BatchNorm1d(6, affine=False), (3, 6, 4), _batch_norm),
    LayerSpec(lambda: nn.BatchNorm2d(4), _IMAGES, _batch_norm),
    LayerSpec(lambda: nn.BatchNorm2d(4, track_running_stats=False).eval(), _IMAGES, _batch_norm),
    LayerSpec(lambda: nn.BatchNorm2d(4).eval(), _IMAGES, _batch_norm),
    LayerSpec(nn.LazyBatchNorm1d, (5, 6), _batch_norm),
    LayerSpec(nn.LazyBatchNorm2d, _IMAGES, _batch_norm),
    LayerSpec(nn.LazyInstanceNorm1d, (3, 6, 4), lambda layer, x: F.instance_norm(x, None, None, layer.weight, layer.bias)),
    LayerSpec(lambda: nn.LazyInstanceNorm2d(track_running_stats=False, bias=False), _IMAGES,
              lambda layer, x: F.instance_norm(x, None, None, layer.weight)),
    LayerSpec(lambda: nn.LayerNorm(6), (3, 5, 6), lambda layer, x: F.layer_norm(x, 6, layer.weight, layer.bias)),
    LayerSpec(lambda: nn.LayerNorm((5, 6), bias=False), (3, 5, 6),
              lambda layer, x: F.layer_norm(x, (5, 6), layer.weight)),
    LayerSpec(lambda: nn.RMSNorm(6), (3, 5, 6), lambda layer, x: F.rms_norm(x, 6, layer.weight)),
    LayerSpec(lambda: nn.GroupNorm(2, 4), _IMAGES, lambda layer, x: F.group_norm(x, 2, layer.weight, layer.bias)),
    LayerSpec(lambda: nn.InstanceNorm1d(6), (3, 6, 4), lambda layer, x: F.instance_norm(x)),
    LayerSpec(lambda: nn.InstanceNorm2d(4, affine=True), _IMAGES,
              lambda layer, x: F.instance_norm(x, None, None, layer.weight, layer.bias)),
    LayerSpec(lambda: _Tokens(nn.Embedding(5, 4, padding_idx=3)), (2, 3, 4),
              lambda layer, x: x + F.embedding(layer.tokens, layer.embedding.weight)),
    LayerSpec(lambda: _Tokens(nn.EmbeddingBag(5, 4, mode="sum")), (2, 4),
              lambda layer, x: x + F.embedding_bag(layer.tokens, layer.embedding.weight, mode="sum")),
    LayerSpec(lambda: nn.SinusoidalPositionalEncoding(6), (2, 3, 6),
              lambda layer, x: x + tensor(_sinusoids(3, 6), x.dtype)),
    LayerSpec(lambda: nn.LearnedPositionalEncoding(6, max_len=4), (2, 3, 6), lambda layer, x: x + layer.weight[:3]),
    *_MORE,
    LayerSpec(lambda: _First(nn.MultiheadAttention(6, 2, batch_first=True)), (2, 3, 6), _attention),
    LayerSpec(lambda: nn.TransformerEncoderLayer(6, 2, 8, 0.0, batch_first=True), (2, 3, 6), _encoder_layer),
    LayerSpec(lambda: _Decoded(nn.TransformerDecoderLayer(6, 2, 8, 0.0, batch_first=True)), (2, 3, 6),
              lambda layer, x: _decoder_layer(layer.decoder, x, x)),
    LayerSpec(lambda: _Decoded(nn.Transformer(6, 2, 1, 1, 8, 0.0, batch_first=True)), (2, 3, 6), _transformer),
    LayerSpec(lambda: _First(nn.RNN(4, 3)), (5, 2, 4),
              lambda layer, x: F.rnn(x, None, *_weights(layer.layer, "_l0"))[0]),
    LayerSpec(lambda: _First(nn.LSTM(4, 3, batch_first=True)), (5, 2, 4),
              lambda layer, x: F.lstm(x, None, None, *_weights(layer.layer, "_l0"), batch_first=True)[0]),
    LayerSpec(lambda: _First(nn.LSTM(4, 3, proj_size=2)), (5, 2, 4),
              lambda layer, x: F.lstm(x, None, None, *_weights(layer.layer, "_l0"), weight_hr=layer.layer.weight_hr_l0)[0]),
    LayerSpec(lambda: _First(nn.GRU(4, 3, 2, bidirectional=True)), (5, 2, 4), _two_ways),
    LayerSpec(lambda: nn.RNNCell(4, 3), (2, 4),
              lambda layer, x: F.rnn(x.reshape(1, 2, 4), None, *_weights(layer))[1]),
    LayerSpec(lambda: _First(nn.LSTMCell(4, 3)), (2, 4),
              lambda layer, x: F.lstm(x.reshape(1, 2, 4), None, None, *_weights(layer.layer))[1]),
    LayerSpec(lambda: nn.GRUCell(4, 3), (2, 4), lambda layer, x: F.gru(x.reshape(1, 2, 4), None, *_weights(layer))[1]),
    LayerSpec(lambda: nn.LPPool2d(2, 3, 2), _IMAGES, lambda layer, x: F.lp_pool2d(x, 2, 3, 2)),
    LayerSpec(lambda: nn.LPPool1d(4, 2), (2, 3, 8), lambda layer, x: F.lp_pool1d(x, 4, 2)),
    LayerSpec(nn.Softmax2d, _IMAGES, lambda layer, x: F.softmax(x, 1)),
    LayerSpec(lambda: nn.PixelShuffle(2), _IMAGES, lambda layer, x: F.pixel_shuffle(x, 2)),
    LayerSpec(lambda: nn.PixelUnshuffle(3), (2, 4, 6, 3), lambda layer, x: F.pixel_unshuffle(x, 3)),
    LayerSpec(lambda: nn.ChannelShuffle(2), _IMAGES, lambda layer, x: F.channel_shuffle(x, 2)),
    LayerSpec(lambda: _Loss(nn.CosineSimilarity(), _OTHERS), (3, 5),
              lambda layer, x: F.cosine_similarity(x, tensor(_OTHERS, x.dtype))),
    LayerSpec(lambda: _Loss(nn.PairwiseDistance(1.0, keepdim=True), _OTHERS), (3, 5),
              lambda layer, x: F.pairwise_distance(x, tensor(_OTHERS, x.dtype), 1.0, keepdim=True)),
    _loss(lambda: nn.CosineEmbeddingLoss(0.1, "sum"), F.cosine_embedding_loss, _OTHERS, np.array([1.0, -1.0, 1.0]),
          margin=0.1, reduction="sum"),
    _loss(lambda: nn.TripletMarginLoss(50.0, swap=True), F.triplet_margin_loss, _OTHERS, _TARGETS, margin=50.0,
          swap=True),
    _loss(lambda: nn.TripletMarginWithDistanceLoss(margin=50.0, swap=True), F.triplet_margin_with_distance_loss, _OTHERS,
          _TARGETS, margin=50.0, swap=True),
    LayerSpec(lambda: nn.ActivityRegularization(0.1, 0.2), (5, 6), lambda layer, x: x, differentiable=False),
    LayerSpec(lambda: nn.Dropout(0.4), (5, 30), lambda layer, x: F.dropout(x, 0.4)),
    LayerSpec(lambda: nn.Dropout(0.4, inverted=False).eval(), (5, 30),
              lambda layer, x: F.dropout(x, 0.4, training=False, inverted=False)),
    LayerSpec(nn.ReLU, (3, 10), lambda layer, x: F.relu(x)),
    LayerSpec(lambda: nn.LeakyReLU(0.2), (3, 10), lambda layer, x: F.leaky_relu(x, 0.2)),
    LayerSpec(nn.Sigmoid, (3, 10), lambda layer, x: F.sigmoid(x)),
    LayerSpec(nn.Tanh, (3, 10), lambda layer, x: F.tanh(x)),
    LayerSpec(nn.Gaussian, (3, 10), lambda layer, x: F.gaussian(x)),
    LayerSpec(nn.Sign, (3, 10), lambda layer, x: F.sign(x), differentiable=False),
    LayerSpec(nn.Step, (3, 10), lambda layer, x: F.step(x), differentiable=False),
    LayerSpec(lambda: nn.ELU(0.7), (3, 10), lambda layer, x: F.elu(x, 0.7)),
    LayerSpec(nn.SELU, (3, 10), lambda layer, x: F.selu(x)),
    LayerSpec(lambda: nn.CELU(0.7), (3, 10), lambda layer, x: F.celu(x, 0.7)),
    LayerSpec(nn.GELU, (3, 10), lambda layer, x: F.gelu(x)),
    LayerSpec(lambda: nn.GELU("tanh"), (3, 10), lambda layer, x: F.gelu(x, "tanh")),
    LayerSpec(nn.SiLU, (3, 10), lambda layer, x: F.silu(x)),
    LayerSpec(nn.Mish, (3, 10), lambda layer, x: F.mish(x)),
    LayerSpec(lambda: nn.Softplus(1.5, 10.0), (3, 10), lambda layer, x: F.softplus(x, 1.5, 10.0)),
    LayerSpec(nn.Softsign, (3, 10), lambda layer, x: F.softsign(x)),
    LayerSpec(nn.LogSigmoid, (3, 10), lambda layer, x: F.logsigmoid(x)),
    LayerSpec(nn.Tanhshrink, (3, 10), lambda layer, x: F.tanhshrink(x)),
    LayerSpec(lambda: nn.GLU(1), (3, 10), lambda layer, x: F.glu(x, 1)),
    LayerSpec(nn.ReLU6, (3, 10), lambda layer, x: F.relu6(x)),
    LayerSpec(lambda: nn.Hardtanh(-0.7, 0.75), (3, 10), lambda layer, x: F.hardtanh(x, -0.7, 0.75)),
    LayerSpec(nn.Hardsigmoid, (3, 10), lambda layer, x: F.hardsigmoid(x)),
    LayerSpec(nn.Hardswish, (3, 10), lambda layer, x: F.hardswish(x)),
    LayerSpec(lambda: nn.Softshrink(0.7), (3, 10), lambda layer, x: F.softshrink(x, 0.7)),
    LayerSpec(lambda: nn.Hardshrink(0.7), (3, 10), lambda layer, x: F.hardshrink(x, 0.7)),
    LayerSpec(lambda: nn.Threshold(0.7, -1.5), (3, 10), lambda layer, x: F.threshold(x, 0.7, -1.5)),
    LayerSpec(nn.PReLU, (3, 10), lambda layer, x: F.prelu(x, layer.weight)),
    LayerSpec(lambda: nn.PReLU(4, 0.1), _IMAGES, lambda layer, x: F.prelu(x, layer.weight)),
    LayerSpec(lambda: nn.Maxout(3), (4, 6), lambda layer, x: F.maxout(x, 3)),
    LayerSpec(lambda: nn.Activation("silu"), (3, 10), lambda layer, x: F.silu(x)),
    LayerSpec(lambda: nn.Softmin(1), (3, 4, 2), lambda layer, x: F.softmin(x, 1)),
    LayerSpec(lambda: nn.Softmax(1), (3, 4, 2), lambda layer, x: F.softmax(x, 1)),
    LayerSpec(nn.LogSoftmax, (3, 10), lambda layer, x: F.log_softmax(x, -1)),
    _loss(lambda: nn.CrossEntropyLoss(label_smoothing=0.1), F.cross_entropy, _LABELS, label_smoothing=0.1),
    LayerSpec(lambda: _Loss(nn.LinearCrossEntropyLoss(5, 6, bias=True), _LABELS), (3, 5), lambda layer, x: F.linear_cross_entropy(
        x, layer.loss.linear.weight, *_like((_LABELS,), x), linear_bias=layer.loss.linear.bias)),
    _loss(nn.NLLLoss, F.nll_loss, _LABELS),
    _loss(lambda: nn.CTCLoss(2, "sum"), F.ctc_loss, np.array([3, 1]), np.array(3), np.array(2), blank=2, reduction="sum"),
    _loss(lambda: nn.MSELoss("sum"), F.mse_loss, _TARGETS, reduction="sum"),
    _loss(nn.L1Loss, F.l1_loss, _TARGETS),
    _loss(lambda: nn.HuberLoss(delta=0.7), F.huber_loss, _TARGETS, delta=0.7),
    _loss(lambda: nn.SmoothL1Loss(beta=0.7), F.smooth_l1_loss, _TARGETS, beta=0.7),
    _loss(nn.PoissonNLLLoss, F.poisson_nll_loss, _TARGETS),
    _loss(nn.GaussianNLLLoss, F.gaussian_nll_loss, _TARGETS, _TARGETS + 0.5),
    _loss(lambda: nn.HingeLoss(0.5, squared=True), F.hinge_loss, _SIGNS, margin=0.5, squared=True),
    _loss(nn.PerceptronLoss, F.perceptron_loss, _SIGNS),
    _loss(lambda: nn.SoftMarginLoss("sum"), F.soft_margin_loss, _SIGNS, reduction="sum"),
    _loss(lambda: nn.HingeEmbeddingLoss(0.7), F.hinge_embedding_loss, _SIGNS, margin=0.7),
    _loss(lambda: nn.MarginRankingLoss(0.1), F.margin_ranking_loss, _TARGETS, _SIGNS, margin=0.1),
    _loss(lambda: nn.MultiMarginLoss(2, 0.7), F.multi_margin_loss, _LABELS, p=2, margin=0.7),
    _loss(lambda: nn.MultiLabelMarginLoss("sum"), F.multilabel_margin_loss,
          np.array([[2, 0, -1, 1, 1], [-1, 3, 3, 3, 3], [4, 3, 2, 1, -1]]), reduction="sum"),
    _loss(nn.MultiLabelSoftMarginLoss, F.multilabel_soft_margin_loss, _TARGETS),
    _loss(lambda: nn.FocalLoss(1.5), F.focal_loss, _LABELS, gamma=1.5),
    _loss(lambda: nn.SigmoidFocalLoss(0.3, 1.5), F.sigmoid_focal_loss, _TARGETS, alpha=0.3, gamma=1.5,
          reduction="mean"),
    _loss(lambda: nn.KLDivLoss("batchmean"), F.kl_div, _TARGETS, reduction="batchmean"),
    LayerSpec(lambda: nn.Sequential(nn.Sigmoid(), _Loss(nn.BCELoss(), _TARGETS)), (3, 5),
              lambda layer, x: F.binary_cross_entropy(F.sigmoid(x), *_like((_TARGETS,), x))),
    _loss(lambda: nn.BCEWithLogitsLoss(reduction="none"), F.binary_cross_entropy_with_logits, _TARGETS,
          reduction="none"),
    LayerSpec(lambda: nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)), (6, 5), _sequence),
)


def _made(spec: LayerSpec, dtype: str = "float32") -> nn.Module:
    """The layer with random parameters, its lazy ones loaded, in `dtype`."""
    manual_seed(1)
    layer = spec.make()
    mode = layer.training
    with no_grad():
        layer.eval()(tensor(spec.input(), "float32"))
    return layer.train(mode).double() if dtype == "float64" else layer.train(mode)


def _called(layer: nn.Module, x: Tensor) -> Tensor:
    """The layer's output; random layers draw the same numbers every time."""
    manual_seed(2)
    return layer(x)


def check_layer_function(spec: LayerSpec) -> None:
    """Asserts that a layer gives, to the bit, what its function gives, in float32.

    Parameters
    ----------
    spec : LayerSpec
        The layer.

    Raises
    ------
    AssertionError
        If they differ.
    """
    layer, x = _made(spec), tensor(spec.input(), "float32")
    manual_seed(2)
    expected = spec.function(layer, x)
    actual = _called(layer, x)
    np.testing.assert_array_equal(actual.detach().numpy(), expected.detach().numpy(), err_msg=repr(layer))


def check_layer_gradients(spec: LayerSpec, step: float = 1e-4) -> None:
    """Asserts in float64 that gradients of input and parameters agree with 4-point differences along one direction.

    Parameters
    ----------
    spec : LayerSpec
        The layer.
    step : float
        Distance of the difference points.

    Raises
    ------
    AssertionError
        Naming the parameter and both values.
    """
    layer, x = _made(spec, "float64"), tensor(spec.input(), "float64", requires_grad=True)
    rng = np.random.default_rng(3)
    output = _called(layer, x)
    weight = rng.uniform(0.5, 1.5, output.shape)
    output.backward(tensor(weight, "float64"))
    for name, leaf in [("input", x), *layer.named_parameters()]:
        values, direction = leaf.detach().numpy(), rng.standard_normal(leaf.shape)
        start = values.copy()

        def loss(distance: float, values=values, start=start, direction=direction) -> float:
            values[...] = start + distance * direction
            with no_grad():
                return float((_called(layer, x).detach().numpy() * weight).sum())

        slope = (8 * (loss(step) - loss(-step)) - (loss(2 * step) - loss(-2 * step))) / (12 * step)
        values[...] = start
        analytic = float((leaf.grad.numpy() * direction).sum())
        what = f"{layer} {name}: gradient {analytic!r}, differences {slope!r}"
        assert abs(analytic - slope) <= 1e-6 * (1 + abs(slope)), what


def check_layer_state(spec: LayerSpec) -> None:
    """Asserts that a layer's state, loaded into a fresh one, gives the same output, and that its text names it.

    Parameters
    ----------
    spec : LayerSpec
        The layer.

    Raises
    ------
    AssertionError
        If outputs or names differ.
    """
    layer, x = _made(spec), tensor(spec.input(), "float32")
    manual_seed(99)
    fresh = spec.make()
    fresh.load_state_dict({name: np.array(memoryview(value)) for name, value in layer.state_dict().items()})
    assert list(fresh.state_dict()) == list(layer.state_dict())
    np.testing.assert_array_equal(_called(fresh, x).detach().numpy(), _called(layer, x).detach().numpy(),
                                  err_msg=repr(layer))
    assert repr(fresh).startswith(type(fresh).__name__ + "(")
