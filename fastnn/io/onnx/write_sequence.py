"""Writers of embeddings, recurrent layers, attention, transformers and distances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ... import nn
from .graph import Graph, Value
from .registry import onnx_writer
from .write_activation import activated
from .write_basic import concat, linear, split_axis
from .write_conv import cut

# ---- embeddings ----


def _rows(graph: Graph, layer: Any, index: Value) -> Value:
    """The rows that are named."""
    if layer.max_norm is not None:
        graph.refuse("max_norm scales rows when they are used, which an ONNX file cannot; scale the weight and set it None")
    return graph.node("Gather", graph.parameter(layer, "weight"), index, axis=0)


@onnx_writer(nn.Embedding)
def _embedding(graph: Graph, layer: Any, index: Value) -> Value:
    return _rows(graph, layer, index)


@onnx_writer(nn.EmbeddingBag)
def _embedding_bag(graph: Graph, layer: Any, index: Value) -> Value:
    if layer.padding_idx is not None:
        graph.refuse("padding_idx leaves rows out of a bag, for which ONNX has no words")
    rows = _rows(graph, layer, index)
    if layer.mode == "sum":
        return graph.node("ReduceSum", rows, graph.constant([1]), keepdims=0)
    return graph.node({"mean": "ReduceMean", "max": "ReduceMax"}[layer.mode], rows, axes=[1], keepdims=0)


@onnx_writer(nn.SinusoidalPositionalEncoding)
def _sinusoidal(graph: Graph, layer: Any, x: Value) -> Value:
    from ...nn.embedding import _sinusoids

    length = _length(graph, layer, x)
    table = _sinusoids(length, layer.d_model, str(x.dtype)).numpy()
    return _along_positions(graph, layer, x, graph.constant(table, x.dtype))


@onnx_writer(nn.LearnedPositionalEncoding)
def _learned(graph: Graph, layer: Any, x: Value) -> Value:
    return _along_positions(graph, layer, x, cut(graph, graph.parameter(layer, "weight"), 0, 0, _length(graph, layer, x)))


def _length(graph: Graph, layer: Any, x: Value) -> int:
    """How many positions there are."""
    return graph.extent(x, 1 if layer.batch_first and x.ndim > 2 else 0)


def _along_positions(graph: Graph, layer: Any, x: Value, table: Value) -> Value:
    if x.ndim > 2 and not layer.batch_first:
        table = graph.node("Unsqueeze", table, graph.constant([1]))
    return graph.node("Add", x, table)


# ---- recurrent layers ----

_KINDS = {nn.RNN: ("RNN", [0]), nn.LSTM: ("LSTM", [0, 3, 1, 2]), nn.GRU: ("GRU", [1, 0, 2])}  # ONNX's order of our gates


@onnx_writer(nn.RNN, nn.LSTM, nn.GRU)
def _recurrent(graph: Graph, layer: Any, x: Value, *states: Any) -> Any:
    """Every layer is a node for both directions; (T, N, I) inside."""
    given = list(states[0]) if states and isinstance(states[0], tuple) else list(states)
    if layer.proj_size and given:
        graph.refuse(f"proj_size is {layer.proj_size}, with which a first state cannot be given: ONNX's LSTM has no projection")
    single = x.ndim == 2
    if single:
        x = graph.node("Unsqueeze", x, graph.constant([1]))
        given = [graph.node("Unsqueeze", state, graph.constant([1])) for state in given]
    swaps = layer.batch_first and not single
    x = graph.node("Transpose", x, perm=[1, 0, 2]) if swaps else x
    lasts = []
    for number in range(layer.num_layers):
        x, *last = _level(graph, layer, x, given, number)
        lasts.append(last)
    x = graph.node("Transpose", x, perm=[1, 0, 2]) if swaps else x
    last = [concat(graph, list(parts), 0) for parts in zip(*lasts)]
    if single:
        x, *last = (graph.node("Squeeze", value, graph.constant([1])) for value in (x, *last))
    return x, tuple(last) if len(last) > 1 else last[0]


def _level(graph: Graph, layer: Any, x: Value, given: Sequence[Value], number: int) -> list[Value]:
    """One layer: its output, and its last states."""
    kind = next(kind for kind in _KINDS if isinstance(layer, kind))
    op, order = _KINDS[kind]
    suffixes = layer._suffixes(number)
    ways = len(suffixes)
    values = {name: [graph.parameter(layer, name + suffix) for suffix in suffixes] for name in
              ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if layer.bias else ()), *(("weight_hr",) if layer.proj_size else ()))}
    if layer.proj_size:  # of the states as they are before the projection, h W_hh^T = r (W_hh W_hr)^T
        values["weight_hh"] = [graph.node("MatMul", *pair) for pair in zip(values["weight_hh"], values["weight_hr"])]
    weights = [_gates(graph, values[name], order) for name in ("weight_ih", "weight_hh")]
    bias = None
    if layer.bias:
        bias = graph.node("Concat", *(_gates(graph, values[name], order) for name in ("bias_ih", "bias_hh")), axis=1)
    states = [cut(graph, state, 0, number * ways, (number + 1) * ways) for state in given]
    y, h, *cell = graph.node(op, x, *weights, bias, None, *states, outputs=3 if op == "LSTM" else 2,
                             **_options(layer, op, ways))
    if layer.proj_size:
        projection = graph.node("Transpose", _gates(graph, values["weight_hr"], [0]), perm=[0, 2, 1])
        y, h = graph.node("MatMul", y, projection), graph.node("MatMul", h, projection)
    y = graph.node("Transpose", y, perm=[0, 2, 1, 3])  # (T, directions, N, H) to (T, N, directions H)
    return [graph.reshape(y, (*y.shape[:2], ways * layer._width)), h, *cell]


def _options(layer: Any, op: str, ways: int) -> dict[str, Any]:
    options = {"hidden_size": layer.hidden_size, "direction": "bidirectional" if ways == 2 else "forward"}
    if op == "GRU":
        return options | {"linear_before_reset": 1}
    return options | {"activations": [layer.nonlinearity.capitalize()] * ways} if op == "RNN" else options


def _gates(graph: Graph, values: Sequence[Value], order: Sequence[int]) -> Value:
    """(directions, gates H, ...) in ONNX's order, from the parameters as they are."""
    ways = []
    for value in values:
        if len(order) > 1:
            split = graph.node("Split", value, axis=0, outputs=len(order))
            value = graph.node("Concat", *(split[k] for k in order), axis=0)
        ways.append(graph.node("Unsqueeze", value, graph.constant([0])))
    return concat(graph, ways, 0)


@onnx_writer(nn.RNNCell)
def _rnn_cell(graph: Graph, layer: Any, x: Value, h: Value | None = None) -> Value:
    total = _shares(graph, layer, x, h)
    total = graph.node("Add", *total)
    return graph.node({"tanh": "Tanh", "relu": "Relu"}[layer.nonlinearity], total)


@onnx_writer(nn.GRUCell)
def _gru_cell(graph: Graph, layer: Any, x: Value, h: Value | None = None) -> Value:
    parts = [graph.node("Split", share, axis=-1, outputs=3) for share in _shares(graph, layer, x, h)]
    reset, update = (graph.node("Sigmoid", graph.node("Add", parts[0][k], parts[1][k])) for k in range(2))
    new = graph.node("Tanh", graph.node("Add", parts[0][2], graph.node("Mul", reset, parts[1][2])))
    y = graph.node("Sub", new, graph.node("Mul", update, new))  # (1 - z) n + z h
    return y if h is None else graph.node("Add", y, graph.node("Mul", update, h))


@onnx_writer(nn.LSTMCell)
def _lstm_cell(graph: Graph, layer: Any, x: Value, *states: Any) -> tuple[Value, Value]:
    h, c = states[0] if states and isinstance(states[0], tuple) else states or (None, None)
    gates = graph.node("Split", graph.node("Add", *_shares(graph, layer, x, h)), axis=-1, outputs=4)
    taken, kept, shown = (graph.node("Sigmoid", gates[k]) for k in (0, 1, 3))
    cell = graph.node("Mul", taken, graph.node("Tanh", gates[2]))
    cell = cell if c is None else graph.node("Add", graph.node("Mul", kept, c), cell)
    return graph.node("Mul", shown, graph.node("Tanh", cell)), cell


def _shares(graph: Graph, layer: Any, x: Value, h: Value | None) -> tuple[Value, Value]:
    """What input and state give to the gates; without a state its bias alone."""
    from_input = linear(graph, x, graph.parameter(layer, "weight_ih"), graph.parameter(layer, "bias_ih"))
    bias = graph.parameter(layer, "bias_hh")
    if h is not None:
        return from_input, linear(graph, h, graph.parameter(layer, "weight_hh"), bias)
    return from_input, graph.constant(np.zeros(layer.weight_hh.shape[0]), x.dtype) if bias is None else bias


# ---- attention ----


@onnx_writer(nn.MultiheadAttention)
def _attention(graph: Graph, layer: Any, query: Value, key: Value | None = None, value: Value | None = None) -> tuple[Value, Value]:
    key = query if key is None else key
    y, weights = attention(graph, layer, query, key, key if value is None else value)
    averaged = graph.node("ReduceMean", weights, axes=[1], keepdims=0)
    if query.ndim == 2:
        averaged = graph.node("Squeeze", averaged, graph.constant([0]))
    return y, averaged


def attention(graph: Graph, layer: Any, query: Value, key: Value, value: Value) -> tuple[Value, Value]:
    """Attention in several heads, without masks.

    Parameters
    ----------
    graph : Graph
        Where it is written.
    layer : MultiheadAttention
        The layer, being written or called by one that is.
    query, key, value : Value
        As its forward takes them.

    Returns
    -------
    tuple of Value
        What it gives, and the weights (N, heads, L, S).
    """
    single = query.ndim == 2
    parts = _projected(graph, layer, query, key, value)
    axis = 0 if single or not layer.batch_first else 1  # of the positions
    parts = [parts[0], *(_extended(graph, layer, part, name, axis) for part, name in zip(parts[1:], ("bias_k", "bias_v")))]
    if single:
        parts = [graph.node("Unsqueeze", part, graph.constant([1])) for part in parts]
    q, k, v = (_heads(graph, layer, part, single) for part in parts)
    scores = graph.node("MatMul", q, graph.node("Transpose", k, perm=[0, 1, 3, 2]))
    scale = graph.constant(1 / math.sqrt(layer.embed_dim // layer.num_heads), query.dtype)
    weights = graph.node("Softmax", graph.node("Mul", scores, scale), axis=-1)
    y = graph.node("MatMul", weights, v)  # (N, heads, L, D)
    swaps = layer.batch_first and not single
    y = graph.node("Transpose", y, perm=[0, 2, 1, 3] if swaps else [2, 0, 1, 3])
    y = graph.reshape(y, (*query.shape[:-1], layer.embed_dim))
    return graph.call(layer.out_proj, y), weights


def _projected(graph: Graph, layer: Any, *inputs: Value) -> list[Value]:
    """Queries, keys and values."""
    if layer._has_networks:
        networks = layer.query_network, layer.key_network, layer.value_network
        return [graph.call(network, x) for network, x in zip(networks, inputs)]
    if layer.in_proj_weight is not None:
        weights = graph.node("Split", graph.parameter(layer, "in_proj_weight"), axis=0, outputs=3)
    else:
        weights = [graph.parameter(layer, name) for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight")]
    bias = graph.parameter(layer, "in_proj_bias")
    biases = [None] * 3 if bias is None else graph.node("Split", bias, axis=0, outputs=3)
    return [linear(graph, x, weight, bias) for x, weight, bias in zip(inputs, weights, biases)]


def _extended(graph: Graph, layer: Any, x: Value, name: str, axis: int) -> Value:
    """Keys or values with the learned one and the one of zeros."""
    learned = graph.parameter(layer, name)
    more = [] if learned is None else [learned]
    more += [graph.constant(np.zeros((1, 1, layer.embed_dim)), x.dtype)] if layer.add_zero_attn else []
    for one in more:
        if x.ndim == 2:
            one = graph.node("Squeeze", one, graph.constant([0]))
        else:  # as many as there are sequences
            count = graph.node("Gather", graph.node("Shape", x), graph.constant([1 - axis]), axis=0)
            places = [graph.constant([1]), graph.constant([1]), graph.constant([layer.embed_dim])]
            places[1 - axis] = count
            shape = [1, 1, layer.embed_dim]
            shape[1 - axis] = x.shape[1 - axis]
            one = graph.node("Expand", one, graph.node("Concat", *places, axis=0), shape=shape)
        x = graph.node("Concat", x, one, axis=axis)
    return x


def _heads(graph: Graph, layer: Any, x: Value, single: bool) -> Value:
    """(N, L, E) or (L, N, E) as (N, heads, L, D)."""
    split = split_axis(graph, x, 2, (layer.num_heads, layer.embed_dim // layer.num_heads))
    return graph.node("Transpose", split, perm=[0, 2, 1, 3] if layer.batch_first and not single else [1, 2, 0, 3])


# ---- transformers ----


def _sublayer(graph: Graph, layer: Any, number: int, x: Value, function: Any) -> Value:
    """x plus what the function makes of it, with its norm before the function or behind the sum."""
    norm = getattr(layer, f"norm{number}")
    if layer.norm_first:
        return graph.node("Add", x, function(graph.call(norm, x)))
    return graph.call(norm, graph.node("Add", x, function(x)))


def _feed_forward(graph: Graph, layer: Any, x: Value) -> Value:
    return graph.call(layer.linear2, activated(graph, layer.activation, graph.call(layer.linear1, x)))


def _attend(graph: Graph, part: Any, x: Value, memory: Value) -> Value:
    """Attention without its weights, which no sublayer asks for."""
    with graph.within(part):
        return attention(graph, part, x, memory, memory)[0]


@onnx_writer(nn.TransformerEncoderLayer)
def _encoder_layer(graph: Graph, layer: Any, x: Value) -> Value:
    x = _sublayer(graph, layer, 1, x, lambda t: _attend(graph, layer.self_attn, t, t))
    return _sublayer(graph, layer, 2, x, lambda t: _feed_forward(graph, layer, t))


@onnx_writer(nn.TransformerDecoderLayer)
def _decoder_layer(graph: Graph, layer: Any, x: Value, memory: Value) -> Value:
    x = _sublayer(graph, layer, 1, x, lambda t: _attend(graph, layer.self_attn, t, t))
    x = _sublayer(graph, layer, 2, x, lambda t: _attend(graph, layer.multihead_attn, t, memory))
    return _sublayer(graph, layer, 3, x, lambda t: _feed_forward(graph, layer, t))


@onnx_writer(nn.TransformerEncoder, nn.TransformerDecoder)
def _stack(graph: Graph, layer: Any, x: Value, *memory: Value) -> Value:
    for part in layer.layers:
        x = graph.call(part, x, *memory)
    return x if layer.norm is None else graph.call(layer.norm, x)


@onnx_writer(nn.Transformer)
def _transformer(graph: Graph, layer: Any, source: Value, target: Value) -> Value:
    return graph.call(layer.decoder, target, graph.call(layer.encoder, source))


# ---- distances ----


@onnx_writer(nn.CosineSimilarity)
def _cosine_similarity(graph: Graph, layer: Any, a: Value, b: Value) -> Value:
    if a.shape != b.shape:
        graph.refuse(f"the inputs have shapes {a.shape} and {b.shape}, but must be alike")
    parts = []
    for x in (a, b):
        norm = graph.node("ReduceL2", x, axes=[layer.dim], keepdims=1)
        parts.append(graph.node("Div", x, graph.node("Max", norm, graph.constant(layer.eps, x.dtype))))
    return graph.node("ReduceSum", graph.node("Mul", *parts), graph.constant([layer.dim]), keepdims=0)


@onnx_writer(nn.PairwiseDistance)
def _pairwise_distance(graph: Graph, layer: Any, a: Value, b: Value) -> Value:
    gap = graph.node("Add", graph.node("Sub", a, b), graph.constant(layer.eps, a.dtype))
    keepdims = int(layer.keepdim)
    if layer.p in (1, 2):
        return graph.node(f"ReduceL{int(layer.p)}", gap, axes=[-1], keepdims=keepdims)
    size = graph.node("Abs", gap)
    if layer.p == math.inf:
        return graph.node("ReduceMax", size, axes=[-1], keepdims=keepdims)
    powers = graph.node("Pow", size, graph.constant(layer.p, a.dtype))
    total = graph.node("ReduceSum", powers, graph.constant([-1]), keepdims=keepdims)
    return graph.node("Pow", total, graph.constant(1 / layer.p, a.dtype))
