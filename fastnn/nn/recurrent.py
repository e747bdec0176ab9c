"""Recurrent layers and cells."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ..checks import MOST_LAYERS, a_tensor, real, shown, whole
from ..ops.create import arange, empty
from ..ops.dropout import dropout
from ..ops.index import _as_index
from ..ops.math import ge
from ..ops.recurrent import gru, lstm, rnn
from ..ops.scatter import masked_fill
from ..ops.shape import reshape, transpose, unsqueeze
from ..ops.slices import cat, pad, slice_view, stack
from ..tensor import Tensor
from . import init
from .module import Module, Parameter
from .typed import typed

__all__ = ["GRU", "GRUCell", "LSTM", "LSTMCell", "PackedSequence", "RNN", "RNNCell", "pack_padded_sequence",
           "pad_packed_sequence"]


class PackedSequence(NamedTuple):
    """Sequences of different lengths, for recurrent layers; they stay padded, (T, N, ...) or (N, T, ...) in memory.

    Attributes
    ----------
    data : Tensor
        (T, N, ...), or (N, T, ...) with `batch_first`.
    lengths : Tensor
        (N,) int64.
    batch_first : bool
        Which.
    """

    data: Tensor
    lengths: Tensor
    batch_first: bool


def pack_padded_sequence(input: Tensor, lengths: Any, batch_first: bool = False, enforce_sorted: bool = False) -> PackedSequence:
    """Says how long each of the padded sequences is.

    Parameters
    ----------
    input : Tensor
        (T, N, ...), or (N, T, ...) with `batch_first`.
    lengths : Tensor or array_like
        (N,) integers, in any order.
    batch_first : bool
        Whether the batch is the first axis.
    enforce_sorted : bool
        Whether to insist that they fall, as ONNX does; then they are read, and a step that calls this is not captured.

    Returns
    -------
    PackedSequence

    Raises
    ------
    ValueError
        If there is not one length for each sequence, or they rise though `enforce_sorted`.
    """
    lengths = _as_index("pack_padded_sequence", lengths)
    if enforce_sorted and any(a < b for a, b in zip(lengths.tolist(), lengths.tolist()[1:])):
        raise ValueError("pack_padded_sequence: lengths must not rise, as enforce_sorted is True; pass enforce_sorted=False")
    if a_tensor("pack_padded_sequence", input).ndim < 2 or lengths.shape != (input.shape[0 if batch_first else 1],):
        raise ValueError(f"pack_padded_sequence: lengths has shape {lengths.shape}, but must hold one number for each "
                         f"sequence of input, whose shape is {input.shape}")
    return PackedSequence(input, lengths, batch_first)


def pad_packed_sequence(sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0,
                        total_length: int | None = None) -> tuple[Tensor, Tensor]:
    """The padded sequences and their lengths.

    Parameters
    ----------
    sequence : PackedSequence
        What a recurrent layer gave.
    batch_first : bool
        Whether the batch is to be the first axis.
    padding_value : float
        What is behind each end.
    total_length : int, optional
        T of the result, at least that of the input.

    Returns
    -------
    tuple of Tensor
        (T, N, ...) or (N, T, ...), `padding_value` behind each end (T is that of the input: results do not depend on what lengths
        hold); and the (N,) lengths.

    Raises
    ------
    ValueError
        If `total_length` is less than T.
    """
    data = sequence.data if batch_first == sequence.batch_first else transpose(sequence.data, 0, 1)
    steps = data.shape[1 if batch_first else 0]
    missing = 0 if total_length is None else whole("pad_packed_sequence: total_length", total_length, steps) - steps
    if missing:
        data = pad(data, (0, 0) * (data.ndim - 2 + (not batch_first)) + (0, missing))
    if padding_value:
        places = unsqueeze(arange(steps + missing), 0 if batch_first else 1)
        behind = ge(places, unsqueeze(sequence.lengths, 1 if batch_first else 0))
        data = masked_fill(data, reshape(behind, (*behind.shape, *(1,) * (data.ndim - 2))), padding_value)
    return data, sequence.lengths


class _Recurrent(Module):
    """What recurrent layers share: parameters under PyTorch's names, layers, directions, packed input."""

    _gates: int

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0):
        super().__init__()
        name = type(self).__name__
        whole(f"{name}: input_size", input_size, 1)
        whole(f"{name}: hidden_size", hidden_size, 1)
        whole(f"{name}: num_layers", num_layers, 1, MOST_LAYERS)
        dropout = real(f"{name}: dropout", dropout, 0, 1)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout, self.bidirectional = bias, batch_first, dropout, bidirectional
        self.proj_size = proj_size
        for layer in range(num_layers):
            width = self._width * (1 + bidirectional) if layer else input_size
            for suffix in self._suffixes(layer):
                self._make(suffix, width)
        self.reset_parameters()

    @property
    def _width(self) -> int:
        """Of a hidden state."""
        return self.proj_size or self.hidden_size

    @property
    def _flat_weights_names(self) -> list[str]:
        """The parameters' names, under which scripts for PyTorch look for them."""
        return list(self._parameters)

    def _suffixes(self, layer: int) -> tuple[str, ...]:
        return (f"_l{layer}", f"_l{layer}_reverse")[:1 + self.bidirectional]

    def _make(self, suffix: str, width: int) -> None:
        rows = self._gates * self.hidden_size
        for name, shape in (("weight_ih", (rows, width)), ("weight_hh", (rows, self._width))):
            self.register_parameter(name + suffix, Parameter(empty(*shape)))
        for name in ("bias_ih", "bias_hh") if self.bias else ():
            self.register_parameter(name + suffix, Parameter(empty(rows)))
        if self.proj_size:
            self.register_parameter("weight_hr" + suffix, Parameter(empty(self.proj_size, self.hidden_size)))

    def reset_parameters(self) -> None:
        """Draws new first values, uniform in +-1 / sqrt(hidden_size)."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def _direction(self, suffix: str) -> list[Tensor | None]:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")[:5 if self.proj_size else 4]
        return [getattr(self, name + suffix, None) for name in names]

    def _run(self, x: Tensor, state: list[Tensor | None], weights: list[Tensor | None], **options: Any) -> tuple:
        """One layer in one direction: (y, last h[, last c])."""
        raise TypeError(f"{type(self).__name__} has no _run()")

    def _states(self, given: tuple[Tensor, ...]) -> list[list[Tensor | None]]:
        """For each layer and direction its first state or states, (N, H) or None."""
        count = self.num_layers * (1 + self.bidirectional)
        for t, width in zip(given, (self._width, self.hidden_size)):
            if a_tensor(type(self).__name__, t, "a state").ndim != 3 or t.shape[0] != count or t.shape[2] != width:
                raise ValueError(f"{type(self).__name__}: a state has shape {t.shape}, but must be ({count}, N, {width}): "
                                 "layers times directions, batch, hidden_size (or proj_size)")
        return [[slice_view(t, (k,)) for t in given] for k in range(count)]

    def _layers(self, x: Tensor, given: tuple[Tensor, ...], lengths: Tensor | None, batch_first: bool) -> tuple:
        """All layers on (T, N, I) or (N, T, I): the last one's output, and all last states, stacked."""
        states, lasts = self._states(given), []
        for layer in range(self.num_layers):
            if layer:
                x = dropout(x, self.dropout, self.training)
            outputs = []
            for reverse, suffix in enumerate(self._suffixes(layer)):
                state = states[len(lasts)] if given else []
                y, *last = self._run(x, state, self._direction(suffix), lengths=lengths, reverse=bool(reverse),
                                     batch_first=batch_first)
                outputs.append(y)
                lasts.append(last)
            x = cat(outputs, 2) if self.bidirectional else outputs[0]
        return x, tuple(stack(parts) for parts in zip(*lasts))

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> tuple:
        given = () if hx is None else hx if isinstance(hx, tuple) else (hx,)
        if isinstance(input, PackedSequence):
            y, last = self._layers(input.data, given, input.lengths, input.batch_first)
            return PackedSequence(y, input.lengths, input.batch_first), last if len(last) > 1 else last[0]
        if input.ndim == 2:  # one sequence
            axis = 0 if self.batch_first else 1
            y, last = self._layers(unsqueeze(input, axis), tuple(unsqueeze(t, 1) for t in given), None, self.batch_first)
            y, last = reshape(y, (input.shape[0], y.shape[2])), tuple(reshape(t, (t.shape[0], t.shape[2])) for t in last)
        else:
            y, last = self._layers(input, given, None, self.batch_first)
        return y, last if len(last) > 1 else last[0]

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        for name, usual in (("num_layers", 1), ("bias", True), ("batch_first", False), ("dropout", 0.0),
                            ("bidirectional", False), ("proj_size", 0)):
            if getattr(self, name) != usual:
                text += f", {name}={getattr(self, name)}"
        return text


@typed
class RNN(_Recurrent):
    """Elman's network, in layers: h = tanh(x W_ih^T + b_ih + h W_hh^T + b_hh); see `LSTM` for what is in and out.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    num_layers : int
        Layers; each reads the one before it.
    nonlinearity : str
        "tanh" or "relu".
    bias : bool
        Whether there are biases.
    batch_first : bool
        Whether inputs are (N, T, I) rather than (T, N, I); (T, I) is always one sequence.
    dropout : float
        Probability of dropping an element between layers, in training.
    bidirectional : bool
        Whether each layer also reads the sequences from their ends.

    References
    ----------
    J. L. Elman, "Finding structure in time", Cognitive Science 14, 1990.
    """

    _gates = 1

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh",
                 bias: bool = True, batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False):
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"RNN: nonlinearity is {nonlinearity!r}, but must be 'tanh' or 'relu'")
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)
        self.nonlinearity = nonlinearity

    def _run(self, x, state, weights, **options):
        return rnn(x, *(state or (None,)), *weights, self.nonlinearity, **options)


@typed
class LSTM(_Recurrent):
    """Long short-term memory, in layers: c = f c + i g, h = o tanh(c); see `fastnn.functional.lstm`.

    Called as ``layer(x)`` or ``layer(x, (h0, c0))``; gives the last layer's hidden states, (T, N, H) or (N, T, H),
    twice as wide if bidirectional, and the last states (h, c), (layers times directions, N, H) each. `x` may be a
    `PackedSequence`; so is the result then.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    num_layers : int
        Layers; each reads the one before it.
    bias : bool
        Whether there are biases.
    batch_first : bool
        Whether inputs are (N, T, I) rather than (T, N, I); (T, I) is always one sequence.
    dropout : float
        Probability of dropping an element between layers, in training.
    bidirectional : bool
        Whether each layer also reads the sequences from their ends.
    proj_size : int
        P: hidden states are projected to this width, below `hidden_size`; 0: they are not.

    Attributes
    ----------
    weight_ih_l0, weight_hh_l0 : Parameter
        (4 H, I) and (4 H, H), or (4 H, P); further layers l1, l2, ..., the other direction with "_reverse".
    weight_hr_l0 : Parameter
        (P, H), with `proj_size`.
    bias_ih_l0, bias_hh_l0 : Parameter
        (4 H,).

    References
    ----------
    S. Hochreiter and J. Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997.
    """

    _gates = 4

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
                 dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0):
        if whole("LSTM: proj_size", proj_size, 0) and proj_size >= whole("LSTM: hidden_size", hidden_size, 1):
            raise ValueError(f"LSTM: proj_size is {proj_size}, but must be below hidden_size, {hidden_size}")
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size)

    def _run(self, x, state, weights, **options):
        return lstm(x, *(state or (None, None)), *weights[:4], weight_hr=weights[4] if self.proj_size else None, **options)


@typed
class GRU(_Recurrent):
    """Gated recurrent units, in layers: h = (1 - z) n + z h; see `fastnn.functional.gru`, and `LSTM` for what is in
    and out.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    num_layers : int
        Layers; each reads the one before it.
    bias : bool
        Whether there are biases.
    batch_first : bool
        Whether inputs are (N, T, I) rather than (T, N, I); (T, I) is always one sequence.
    dropout : float
        Probability of dropping an element between layers, in training.
    bidirectional : bool
        Whether each layer also reads the sequences from their ends.

    References
    ----------
    K. Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine translation",
    EMNLP 2014.
    """

    _gates = 3

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
                 dropout: float = 0.0, bidirectional: bool = False):
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)

    def _run(self, x, state, weights, **options):
        return gru(x, *(state or (None,)), *weights, **options)


class _Cell(Module):
    """What cells share: one step of a recurrent layer."""

    _gates: int

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True):
        super().__init__()
        for argument, value in (("input_size", input_size), ("hidden_size", hidden_size)):
            whole(f"{type(self).__name__}: {argument}", value, 1)
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        rows = self._gates * hidden_size
        self.weight_ih, self.weight_hh = Parameter(empty(rows, input_size)), Parameter(empty(rows, hidden_size))
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, Parameter(empty(rows)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new first values, uniform in +-1 / sqrt(hidden_size)."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def _step(self, function: Any, x: Tensor, states: list[Tensor | None], *options: Any) -> list[Tensor]:
        """The new states, (N, H), or (H,) for an input (I,)."""
        name = type(self).__name__
        for what, t in (("input", x), *(("a state", t) for t in states if t is not None)):
            if a_tensor(name, t, what).ndim not in (1, 2):
                raise ValueError(f"{name}: {what} has shape {t.shape}, but must have one or two axes")
        rows = reshape(x, (1, -1, x.shape[-1]))
        states = [t if t is None else reshape(t, (-1, t.shape[-1])) for t in states]
        _, *new = function(rows, *states, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh, *options)
        return [reshape(t, (*x.shape[:-1], self.hidden_size)) for t in new]

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


@typed
class RNNCell(_Cell):
    """One step of Elman's network: ``h = cell(x, h)``, (N, I) and (N, H) to (N, H).

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    bias : bool
        Whether there are biases.
    nonlinearity : str
        "tanh" or "relu".
    """

    _gates = 1

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh"):
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"RNNCell: nonlinearity is {nonlinearity!r}, but must be 'tanh' or 'relu'")
        super().__init__(input_size, hidden_size, bias)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._step(rnn, input, [hx], self.nonlinearity)[0]


@typed
class LSTMCell(_Cell):
    """One step of long short-term memory: ``h, c = cell(x, (h, c))``, (N, I) and (N, H) to (N, H).

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    bias : bool
        Whether there are biases.
    """

    _gates = 4

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        if hx is not None and not (isinstance(hx, (tuple, list)) and len(hx) == 2):
            raise TypeError(f"LSTMCell: hx is {shown(hx)}, but must be two states (h, c) or None")
        return tuple(self._step(lstm, input, [None, None] if hx is None else list(hx)))


@typed
class GRUCell(_Cell):
    """One step of gated recurrent units: ``h = cell(x, h)``, (N, I) and (N, H) to (N, H).

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    bias : bool
        Whether there are biases.
    """

    _gates = 3

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._step(gru, input, [hx])[0]
