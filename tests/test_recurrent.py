"""Recurrent layers beyond the OpSpec list: captured steps, lengths as data, dropout between layers, packed sequences."""

import numpy as np
import pytest

import fastnn
from fastnn import _core, nn
from fastnn.testing.checks import forced_threads


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_captured_steps_are_eager_ones(kind):
    layer = getattr(nn, kind)(5, 6, 2, bidirectional=True, dropout=0.3)
    batches = [np.random.default_rng(k).standard_normal((4, 3, 5)).astype(np.float32) for k in range(5)]

    def step(x, lengths):
        y, _ = layer(nn.pack_padded_sequence(x, lengths))
        loss = nn.pad_packed_sequence(y)[0].sum()
        loss.backward()
        layer.zero_grad()
        return loss

    results = []
    for run in (step, fastnn.capture(step)):
        fastnn.manual_seed(3)
        lengths = [fastnn.tensor(np.array([4, k % 5, 2])) for k in range(5)]
        results.append([float(run(fastnn.tensor(x), n)) for x, n in zip(batches, lengths)])
    assert results[0] == results[1] and run.obstacle is None and run.replays == 3


def test_a_bad_length_is_an_error_in_a_captured_step_too():
    layer = nn.GRU(2, 3)
    step = fastnn.capture(lambda x, n: layer(nn.pack_padded_sequence(x, n))[1].sum())
    for length in (4, 2, 3):
        step(fastnn.ones(4, 2, 2), fastnn.tensor(np.array([4, length])))
    with pytest.raises(IndexError, match=r"lengths\[1\] is 9"):
        step(fastnn.ones(4, 2, 2), fastnn.tensor(np.array([4, 9])))


def test_what_lies_behind_the_end_does_not_matter():
    layer, rng = nn.LSTM(3, 4, bidirectional=True), np.random.default_rng(0)
    x = rng.standard_normal((6, 2, 3)).astype(np.float32)
    results = []
    for filling in (0.0, np.nan):
        x[4:, 0] = filling
        y, (h, c) = layer(nn.pack_padded_sequence(fastnn.tensor(x), [4, 6]))
        results.append([t.detach().numpy() for t in (nn.pad_packed_sequence(y)[0], h, c)])
    for a, b in zip(*results):
        np.testing.assert_array_equal(a, b)
    assert not results[0][0][4:, 0].any()


@pytest.mark.parametrize("batch", [3, 16, 33, 130, 1000])
def test_batches_of_any_size_are_cut_into_chunks(batch):
    """A sequence's result does not depend on how many others there are, nor on threads."""
    layer, rng = nn.GRU(4, 9), np.random.default_rng(0)
    x = rng.standard_normal((3, batch, 4)).astype(np.float32)
    whole = [layer(fastnn.tensor(x))[0].detach().numpy()]
    for threads in (2, 3):
        with forced_threads(threads):
            whole.append(layer(fastnn.tensor(x))[0].detach().numpy())
            assert batch < 16 or _core.last_workers() > 1
    assert all((w == whole[0]).all() for w in whole)
    np.testing.assert_allclose(whole[0][:, -2:], layer(fastnn.tensor(x[:, -2:]))[0].detach().numpy(), rtol=1e-5, atol=1e-6)
