"""The first thing to run: under two seconds, one check per layer of the house."""

import numpy as np

import fastnn
from fastnn import _core
from fastnn._core import launch


def test_launch_adds_with_broadcasting():
    a, b = np.arange(6.0, dtype=np.float32).reshape(2, 3), np.array([10, 20, 30], np.float32)
    y = launch.add(fastnn.tensor(a), fastnn.tensor(b))
    np.testing.assert_array_equal(y.numpy(), a + b)


def test_every_isa_gives_relu():
    x = np.linspace(-3, 3, 37).astype(np.float32)
    for isa in _core.available_isas():
        _core.set_isa(isa)
        np.testing.assert_array_equal(launch.relu_forward(fastnn.tensor(x)).numpy(), np.maximum(x, 0))


def test_views_share_memory_and_strides_do_not_matter():
    x = fastnn.arange(24, dtype=fastnn.float32).reshape(2, 3, 4)
    y = x.permute(2, 0, 1)[1:, :, ::2]
    expected = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1)[1:, :, ::2]
    assert y.shares_storage(x)
    np.testing.assert_array_equal(y.numpy(), expected)
    np.testing.assert_array_equal(launch.mul(y, y).numpy(), expected * expected)
    np.testing.assert_array_equal(y.reshape(-1).numpy(), expected.reshape(-1))


def test_tape_takes_gradients_back():
    x = fastnn.tensor([[1.0, -2.0], [3.0, 4.0]], requires_grad=True)
    y = x.T.reshape(4)[1:3]
    y.backward(fastnn.tensor([5.0, 7.0]))
    np.testing.assert_array_equal(x.grad.numpy(), [[0, 7], [5, 0]])


def test_errors_name_op_argument_and_shapes():
    import pytest
    with pytest.raises(ValueError, match=r"add: shapes \(2,\) and \(3,\) do not broadcast"):
        launch.add(fastnn.zeros(2), fastnn.zeros(3))
    with pytest.raises(TypeError, match="argument 'a' has dtype int64"):
        launch.add(fastnn.arange(3), fastnn.arange(3))


def test_a_small_network_learns_xor():
    from fastnn import nn
    import fastnn.functional as F
    fastnn.manual_seed(1)
    x = fastnn.tensor([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=fastnn.float32)
    y = fastnn.tensor([0, 1, 1, 0])
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
    for _ in range(200):
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        with fastnn.no_grad():
            for p in model.parameters():
                p -= 0.5 * p.grad
                p.grad = None
    assert loss.item() < 0.05
    assert (model(x).argmax(1) == y).numpy().all()
