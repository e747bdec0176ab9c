"""Bags of rows: beside embedding and a reduction, empty bags, NaN, frequencies, wrong arguments, steps."""

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import nn
from fastnn._core import launch

RNG = np.random.default_rng(0)


def test_the_same_as_rows_then_a_sum():
    index, weight = RNG.integers(0, 50, (9, 4)), fastnn.tensor(RNG.standard_normal((50, 33)), requires_grad=True)
    bag = F.embedding_bag(index, weight, mode="sum")
    (bag * bag).sum().backward()
    gradient, weight.grad = weight.grad.numpy(), None
    rows = F.embedding(index, weight).sum(1)
    np.testing.assert_allclose(bag.detach().numpy(), rows.detach().numpy(), rtol=1e-14)
    (rows * rows).sum().backward()
    np.testing.assert_allclose(gradient, weight.grad.numpy(), rtol=1e-13)


def test_a_nan_is_the_greatest():
    weight = fastnn.tensor([[1.0, 5.0], [np.nan, 2.0], [3.0, 4.0]], requires_grad=True)
    y = F.embedding_bag([[0, 1, 2], [2, 0, 2]], weight, mode="max")
    assert np.isnan(y.tolist()[0][0]) and y.tolist()[0][1] == 5 and y.tolist()[1] == [3, 5]
    y.sum().backward()
    assert weight.grad.tolist() == [[0, 2], [1, 0], [1, 0]]


def test_rows_in_use_keep_their_norm():
    weight = fastnn.tensor([[3.0, 4.0], [0.3, 0.4], [30.0, 40.0]])
    y = F.embedding_bag([[0, 1]], weight, max_norm=1.0, mode="sum")
    np.testing.assert_allclose(y.numpy(), [[0.9, 1.2]], rtol=1e-6)
    np.testing.assert_allclose(weight.numpy(), [[0.6, 0.8], [0.3, 0.4], [30, 40]], rtol=1e-6)


def test_layer():
    layer = nn.EmbeddingBag(7, 3, mode="max", padding_idx=-2)
    assert layer.padding_idx == 5 and not layer.weight.detach().numpy()[5].any()
    assert layer([1, 5, 2], [0, 1]).shape == (2, 3)
    assert repr(layer) == "EmbeddingBag(7, 3, mode='max', padding_idx=5)"
    weighted = nn.EmbeddingBag(7, 3, mode="sum", include_last_offset=True)
    np.testing.assert_allclose(weighted([1, 2], [0, 2], [2.0, -1.0]).detach().numpy()[0],
                               (2 * weighted.weight[1] - weighted.weight[2]).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_a_bad_index_is_named_and_nothing_is_written():
    weight, outputs = fastnn.ones(5, 3), (fastnn.zeros(2, 3), fastnn.zeros(0, dtype="int64"))
    with pytest.raises(IndexError, match="element 5 of index is 5, but must lie between -5 and 4"):
        launch.embedding_bag_forward(weight, fastnn.tensor([[0, 1, 2], [3, 4, 5]]), None, None, mode=0, include_last=0,
                                     padding=-1, out=outputs)
    assert not outputs[0].numpy().any()


@pytest.mark.parametrize("x, options, error, message", [
    ([1, 2], {}, ValueError, r"index has shape \(2,\), but must be \(B, L\) without offsets"),
    ([[1, 2]], {"offsets": [0]}, ValueError, "whose rows are the bags: offsets must not be given"),
    ([1, 2], {"offsets": [1]}, ValueError, r"offsets\[0\] is 1, but must lie between 0 and 0"),
    ([1, 2], {"offsets": [0, 3]}, ValueError, r"offsets\[1\] is 3, but must lie between 0 and 2"),
    ([1, 2], {"offsets": [0, 2, 1]}, ValueError, r"offsets\[2\] is 1, but must lie between 2 and 2"),
    ([1, 2], {"offsets": [0, 1], "include_last_offset": True}, ValueError, "the last of offsets is 1, but index has 2"),
    ([1, 2], {"offsets": np.zeros(0, int)}, ValueError, "offsets names no bag, but index has 2 elements"),
    ([1, 2], {"offsets": [0.0]}, TypeError, "embedding_bag: offsets has dtype float"),
    ([1.0, 2.0], {"offsets": [0]}, TypeError, "embedding_bag: input has dtype float"),
    ([[1, 2]], {"mode": "min"}, ValueError, "mode is 'min', but must be 'sum', 'mean' or 'max'"),
    ([[1, 2]], {"per_sample_weights": [[1.0, 2.0]]}, ValueError, "per_sample_weights go with mode 'sum' alone"),
    ([[1, 2]], {"per_sample_weights": [1.0, 2.0], "mode": "sum"}, ValueError, r"per_sample_weights has shape \(2,\)"),
    ([[1, 2]], {"scale_grad_by_freq": True, "mode": "max"}, ValueError, "does not go with mode 'max'"),
    ([[1, 2]], {"padding_idx": 5}, ValueError, "padding_idx is 5, but must be a row of the table of 5 rows"),
    ([[1, 2]], {"max_norm": -1.0}, ValueError, "max_norm is -1.0")])
def test_errors(x, options, error, message):
    with pytest.raises(error, match=message):
        F.embedding_bag(x, fastnn.zeros(5, 3), **options)


@pytest.mark.parametrize("arguments, message", [
    ({"mode": "all"}, "EmbeddingBag: mode is 'all'"), ({"padding_idx": 9}, "EmbeddingBag: padding_idx is 9"),
    ({"mode": "max", "scale_grad_by_freq": True}, "does not go with mode 'max'")])
def test_errors_of_the_layer(arguments, message):
    with pytest.raises(ValueError, match=message):
        nn.EmbeddingBag(5, 3, **arguments)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_a_captured_step_follows_the_bags(mode):
    layer = nn.EmbeddingBag(20, 5, mode=mode)

    def step(index, offsets):
        layer.weight.grad = None
        y = layer(index, offsets)
        (y * y).sum().backward()
        return y

    program = fastnn.capture(step)
    for _ in range(5):
        index, offsets = RNG.integers(0, 20, 12), np.sort(np.append(0, RNG.integers(0, 13, 3)))
        arguments = fastnn.tensor(index), fastnn.tensor(offsets)
        expected, gradient = step(*arguments).detach().numpy().tobytes(), layer.weight.grad.numpy().tobytes()
        assert program(*arguments).detach().numpy().tobytes() == expected
        assert layer.weight.grad.numpy().tobytes() == gradient
