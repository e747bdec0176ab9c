"""Recurrent layers and cells give what PyTorch gives: outputs, states, all gradients, over their options, in
float64."""

import itertools

import numpy as np
import pytest

import fastnn
from fastnn import nn

torch = pytest.importorskip("torch")


def tensors(rng, *shapes):
    arrays = [rng.standard_normal(shape) for shape in shapes]
    ours = [fastnn.tensor(a, "float64", requires_grad=True) for a in arrays]
    return ours, [torch.tensor(a, requires_grad=True) for a in arrays]


def close(ours, theirs, what=""):
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-8, atol=1e-10, err_msg=what)


def loaded(ours, theirs):
    theirs = theirs.double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    ours = ours.double()
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    return ours, theirs


def compare(outputs, expected, inputs, expected_inputs, layers):
    """All outputs with random weights, then the gradients of all inputs and parameters."""
    rng = np.random.default_rng(9)
    total = expected_total = 0
    for a, b in zip(outputs, expected):
        close(a, b, "output")
        weight = rng.standard_normal(a.shape)
        total = total + (a * fastnn.tensor(weight, "float64")).sum()
        expected_total = expected_total + (b * torch.tensor(weight)).sum()
    total.backward()
    expected_total.backward()
    for k, (a, b) in enumerate(zip(inputs, expected_inputs)):
        close(a.grad, b.grad, f"input {k}")
    theirs = dict(layers[1].named_parameters())
    for name, p in layers[0].named_parameters():
        close(p.grad, theirs[name].grad, name)


def flat(outputs):
    y, last = outputs
    return [y, *last] if isinstance(last, tuple) else [y, last]


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("options", [{"num_layers": n, "bidirectional": two, "batch_first": first, "bias": bias}
                                     for n, two, first, bias in itertools.product((1, 3), *[(False, True)] * 3)])
@pytest.mark.parametrize("with_state", [False, True])
def test_layers(kind, options, with_state):
    layers = loaded(getattr(nn, kind)(5, 4, **options), getattr(torch.nn, kind)(5, 4, **options))
    count = options["num_layers"] * (1 + options["bidirectional"])
    states = [(count, 3, 4)] * (2 if kind == "LSTM" else 1) if with_state else []
    inputs, expected = tensors(np.random.default_rng(0), (3, 6, 5) if options["batch_first"] else (6, 3, 5), *states)
    results = []
    for layer, given in zip(layers, (inputs, expected)):
        state = () if not with_state else (tuple(given[1:]),) if kind == "LSTM" else (given[1],)
        results.append(flat(layer(given[0], *state)))
    compare(*results, inputs, expected, layers)


@pytest.mark.parametrize("options", [{"num_layers": n, "bidirectional": two, "batch_first": first, "bias": bias}
                                     for n, two, first, bias in itertools.product((1, 2), *[(False, True)] * 3)])
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("lengths", [None, (4, 6, 2)])
def test_projected_states(options, with_state, lengths):
    layers = loaded(nn.LSTM(5, 4, proj_size=3, **options), torch.nn.LSTM(5, 4, proj_size=3, **options))
    count, first = options["num_layers"] * (1 + options["bidirectional"]), options["batch_first"]
    states = [(count, 3, 3), (count, 3, 4)] if with_state else []
    inputs, expected = tensors(np.random.default_rng(0), (3, 6, 5) if first else (6, 3, 5), *states)
    state, expected_state = [(tuple(given[1:]),) if with_state else () for given in (inputs, expected)]
    if lengths is None:
        results = [flat(layers[0](inputs[0], *state)), flat(layers[1](expected[0], *expected_state))]
    else:
        pack = torch.nn.utils.rnn
        y, last = layers[0](nn.pack_padded_sequence(inputs[0], np.array(lengths), first), *state)
        z, z_last = layers[1](pack.pack_padded_sequence(expected[0], torch.tensor(lengths), first, enforce_sorted=False),
                              *expected_state)
        results = [[nn.pad_packed_sequence(y, first)[0], *last], [pack.pad_packed_sequence(z, first)[0], *z_last]]
    compare(*results, inputs, expected, layers)


def test_relu():
    layers = loaded(nn.RNN(5, 4, nonlinearity="relu"), torch.nn.RNN(5, 4, nonlinearity="relu"))
    inputs, expected = tensors(np.random.default_rng(0), (6, 3, 5))
    compare(flat(layers[0](inputs[0])), flat(layers[1](expected[0])), inputs, expected, layers)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_sequences_of_different_lengths(kind, batch_first):
    options = {"num_layers": 2, "bidirectional": True, "batch_first": batch_first}
    layers = loaded(getattr(nn, kind)(5, 4, **options), getattr(torch.nn, kind)(5, 4, **options))
    inputs, expected = tensors(np.random.default_rng(0), (3, 6, 5) if batch_first else (6, 3, 5))
    lengths, pack = np.array([4, 6, 2]), torch.nn.utils.rnn
    y, last = layers[0](nn.pack_padded_sequence(inputs[0], lengths, batch_first))
    y, ours_lengths = nn.pad_packed_sequence(y, batch_first)
    z, z_last = layers[1](pack.pack_padded_sequence(expected[0], torch.tensor(lengths), batch_first,
                                                    enforce_sorted=False))
    z, _ = pack.pad_packed_sequence(z, batch_first)
    np.testing.assert_array_equal(ours_lengths.numpy(), lengths)
    compare(flat((y, last)), flat((z, z_last)), inputs, expected, layers)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_one_sequence(kind):
    layers = loaded(getattr(nn, kind)(5, 4, 2), getattr(torch.nn, kind)(5, 4, 2))
    inputs, expected = tensors(np.random.default_rng(0), (6, 5))
    compare(flat(layers[0](inputs[0])), flat(layers[1](expected[0])), inputs, expected, layers)


@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "GRUCell"])
@pytest.mark.parametrize("batch", [(), (3,)])
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_cells(kind, batch, with_state, bias):
    layers = loaded(getattr(nn, kind)(5, 4, bias), getattr(torch.nn, kind)(5, 4, bias))
    states = [(*batch, 4)] * (2 if kind == "LSTMCell" else 1) if with_state else []
    inputs, expected = tensors(np.random.default_rng(0), (*batch, 5), *states)
    results = []
    for layer, given in zip(layers, (inputs, expected)):
        state = () if not with_state else (tuple(given[1:]),) if kind == "LSTMCell" else (given[1],)
        out = layer(given[0], *state)
        results.append(list(out) if isinstance(out, tuple) else [out])
    compare(*results, inputs, expected, layers)


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="nonlinearity"):
        nn.RNN(2, 3, nonlinearity="gelu")
    with pytest.raises(ValueError, match="num_layers is 0"):
        nn.LSTM(2, 3, 0)
    with pytest.raises(ValueError, match=r"a state has shape \(2, 1, 3\), but must be \(1, N, 3\)"):
        nn.GRU(2, 3)(fastnn.ones(4, 1, 2), fastnn.ones(2, 1, 3))
    with pytest.raises(ValueError, match="proj_size is 3, but must be below hidden_size, 3"):
        nn.LSTM(2, 3, proj_size=3)
    with pytest.raises(ValueError, match=r"a state has shape \(1, 1, 3\), but must be \(1, N, 2\)"):
        nn.LSTM(2, 3, proj_size=2)(fastnn.ones(4, 1, 2), (fastnn.ones(1, 1, 3), fastnn.ones(1, 1, 3)))
    with pytest.raises(ValueError, match=r"weight_hr has shape \(2, 3\) and weight_hh \(12, 3\)"):
        fastnn.lstm(fastnn.ones(4, 1, 2), None, None, fastnn.ones(12, 2), fastnn.ones(12, 3), weight_hr=fastnn.ones(2, 3))
    with pytest.raises(IndexError, match=r"lengths\[1\] is 5, but must be 0 to 4"):
        nn.GRU(2, 3)(nn.pack_padded_sequence(fastnn.ones(4, 2, 2), [4, 5]))
