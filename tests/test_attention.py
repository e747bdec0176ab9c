"""Attention beyond the OpSpec list: captured steps, threads on long sequences, NaN, masks that hide everything."""

import numpy as np
import pytest

import fastnn
from fastnn import _core, nn
from fastnn._core import launch
from fastnn.testing.checks import forced_threads

pytestmark = pytest.mark.usefixtures("isa")


def inputs(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return [fastnn.tensor(rng.standard_normal(shape).astype(np.float32), requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize("causal", [True, False])
def test_long_sequences_share_heads_and_keys(causal):
    """Few heads: keys are cut into groups backward, queries forward; any number of threads gives the same bits."""
    results = []
    for threads in (1, 2, 3):
        with forced_threads(threads):
            leaves = inputs(1, 1, 700, 24)
            y = fastnn.scaled_dot_product_attention(*leaves, is_causal=causal)
            assert threads == 1 or _core.last_workers() > 1
            y.backward(fastnn.tensor(np.random.default_rng(5).standard_normal(y.shape).astype(np.float32)))
            results.append([t.tobytes() for t in (y.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves))])
    assert all(r == results[0] for r in results)


def test_heads_are_joined_without_a_copy():
    y, _ = launch.attention_forward(*[t.detach() for t in inputs(2, 3, 5, 4)], None, scale=1.0, causal=0)
    assert y.permute(0, 2, 1, 3).is_contiguous()


def test_nan_stays_in_its_query():
    q, k, v = [t.detach() for t in inputs(1, 2, 90, 8)]
    q[0, 1, 40, 3] = np.nan
    y = fastnn.scaled_dot_product_attention(q, k, v).numpy()
    assert np.isnan(y[0, 1, 40]).all() and np.isnan(y).sum() == 8


def test_a_query_without_keys_gives_zero_and_takes_no_gradient():
    leaves = inputs(1, 1, 4, 8)
    mask = np.ones((4, 4), bool)
    mask[2] = False
    y = fastnn.scaled_dot_product_attention(*leaves, fastnn.tensor(mask))
    y.sum().backward()
    assert not y.detach().numpy()[0, 0, 2].any() and not leaves[0].grad.numpy()[0, 0, 2].any()
    assert all(np.isfinite(leaf.grad.numpy()).all() for leaf in leaves)


def test_captured_steps_are_eager_ones():
    layers = [nn.TransformerEncoderLayer(8, 2, 16, 0.1, batch_first=True) for _ in range(2)]
    layers[1].load_state_dict({name: np.array(value) for name, value in layers[0].state_dict().items()})
    results, rate = [], fastnn.tensor(0.01)
    for layer, wrap in zip(layers, (lambda step: step, fastnn.capture)):
        fastnn.manual_seed(3)
        x = fastnn.tensor(np.random.default_rng(1).standard_normal((2, 5, 8)).astype(np.float32))

        def step(x, layer=layer):
            loss = layer(x, is_causal=True).sum()
            loss.backward()
            for p in layer.parameters():
                launch.sub(p.detach(), launch.mul(p.grad, rate), out=p.detach())
            layer.zero_grad()
            return loss

        step = wrap(step)
        results.append([float(step(x)) for _ in range(4)])
    assert results[0] == results[1]
    assert step.obstacle is None and step.replays == 2


@pytest.mark.parametrize("causal", [False, True])
def test_dropped_weights(causal):
    """Queries of 0 see all keys alike; values that are unit vectors show the weights."""
    queries, keys = fastnn.zeros(8, 2, 60, 4), fastnn.zeros(8, 2, 60, 4)
    values = fastnn.broadcast_to(fastnn.eye(60), (8, 2, 60, 60))
    y = fastnn.scaled_dot_product_attention(queries, keys, values, dropout_p=0.25, is_causal=causal).numpy()
    seen = np.tri(60, dtype=bool) if causal else np.ones((60, 60), bool)
    expected = np.broadcast_to(seen / seen.sum(1, keepdims=True) / 0.75, y.shape)
    assert not y[..., ~seen].any()
    np.testing.assert_allclose(y[y != 0], expected[y != 0], rtol=1e-5)
    assert abs((y[..., seen] == 0).mean() - 0.25) < 0.02
