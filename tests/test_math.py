"""What tests/test_ops.py does not ask: result types, integers, gradients at ties and ends, constants, dropout."""

import numpy as np
import pytest

import fastnn
from fastnn import nn
from fastnn.ops import activation, bitwise, division, math, power
from fastnn.ops.dropout import dropout

TYPES = {"float32": fastnn.float32, "float64": fastnn.float64, "int64": fastnn.int64, "int32": fastnn.int32,
         "uint8": fastnn.uint8,
         "bool": fastnn.bool}


@pytest.mark.parametrize("a, b, expected", [
    ("float32", "float64", "float64"), ("int64", "float32", "float32"), ("float64", "bool", "float64"),
    ("int32", "int32", "int32"),
    ("uint8", "int32", "int32"), ("bool", "uint8", "uint8"), ("int32", "int64", "int64"), ("bool", "bool", "bool"),
    ("float32", 2, "float32"), ("float64", 2.5, "float64"),
    ("int64", 2, "int64"), ("int32", 2, "int32"), ("uint8", 300, "int64"), ("int64", 2.5, "float32"),
    ("bool", 2, "int64"),
    ("int32", True, "int32")])
def test_result_types(a, b, expected):
    x = fastnn.ones(3, dtype=TYPES[a])
    y = fastnn.ones(3, dtype=TYPES[b]) if isinstance(b, str) else b
    for left, right in ((x, y), (y, x)):
        result = math.add(left, right)
        assert result.dtype is TYPES[expected]
        expected_value = 1 + (1 if isinstance(b, str) else b)
        np.testing.assert_array_equal(result.numpy(), True if expected == "bool" else expected_value)


def test_a_scale_that_was_computed_leaves_a_tensors_type():
    x = fastnn.tensor([1.0, 2.0], requires_grad=True)
    scale = fastnn.tensor(3.0, dtype=fastnn.float64, requires_grad=True)
    y = x * scale
    y.sum().backward()
    assert y.dtype is fastnn.float32 and x.grad.tolist() == [3, 3]
    assert scale.grad.dtype is fastnn.float64 and scale.grad.item() == 3
    assert (x * np.float64(3)).dtype is (x * np.array(3.0)).dtype is fastnn.float32
    assert (fastnn.tensor([1, 2]) * scale).dtype is fastnn.float64  # of a kind above


def test_products_and_sums_of_bools_are_bools():
    a, b = fastnn.tensor([True, True, False]), fastnn.tensor([True, False, False])
    assert fastnn.tensor([5, 6, 7])[a * b].tolist() == [5]  # a mask, not the rows 1 and 0
    assert (a + b).tolist() == math.maximum(a, b).tolist() == [True, True, False]
    assert math.minimum(a, b).tolist() == [True, False, False] and (a - b).tolist() == [0, 1, 0]
    with pytest.raises(TypeError, match="the result is int64, which a tensor of bool cannot hold"):
        a += 2


def test_numbers_arrays_and_lists_are_operands():
    x = fastnn.tensor([1.0, 2.0])
    np.testing.assert_array_equal(math.sub(3, x).numpy(), [2, 1])
    np.testing.assert_array_equal(math.mul(np.array([2.0, 3.0], np.float32), x).numpy(), [2, 6])
    assert math.div(x, -0.0).tolist() == [-np.inf, -np.inf]
    assert math.div(x, 0.0).tolist() == [np.inf, np.inf]
    with pytest.raises(TypeError, match="add: other is a str"):
        math.add(x, "1")


def test_comparing_with_none_and_with_numbers():
    x = fastnn.tensor([1.0, 2.0])
    assert (x == None) is False and (x != None) is True  # noqa: E711
    assert (x == 2).tolist() == [False, True] and (2 > x).tolist() == [True, False]
    assert x in [x] and len({x, x}) == 1


def test_integers_stay_exact():
    big = fastnn.tensor([2**53 + 1, -7])
    assert math.add(big, 2).tolist() == [2**53 + 3, -5]
    assert division.floor_divide(big, 2).tolist() == [2**52, -4]
    assert division.remainder(big, 4).tolist() == [1, 1]
    assert math.neg(big).tolist() == [-2**53 - 1, 7]
    assert math.abs(big).tolist() == [2**53 + 1, 7]
    assert math.square(fastnn.tensor([3, -4])).tolist() == [9, 16]
    assert math.clip(big, -3, 100).tolist() == [100, -3]
    assert math.eq(big, 2**53 + 1).tolist() == [True, False]
    assert math.where(fastnn.tensor([True, False]), big, 5).tolist() == [2**53 + 1, 5]
    small = fastnn.tensor(np.array([250, 3], np.uint8))
    assert math.where(fastnn.tensor([False, True]), small, fastnn.tensor(np.array([1, 2], np.uint8))).tolist() == [1, 3]
    truths = fastnn.tensor([True, False])
    assert math.where(truths, truths, math.logical_not(truths)).tolist() == [True, True]
    assert math.div(fastnn.tensor([1]), fastnn.tensor([2])).tolist() == [0.5]
    assert division.floor_divide(fastnn.tensor([7.0, -7.0]), 2).tolist() == [3, -4]
    assert bitwise.bitwise_and(fastnn.tensor([12, 10]), 6).tolist() == [4, 2]
    assert bitwise.bitwise_or(fastnn.tensor([12, 10]), 6).tolist() == [14, 14]
    assert bitwise.bitwise_xor(fastnn.tensor([12, 10]), 6).tolist() == [10, 12]
    assert bitwise.bitwise_not(small).tolist() == [5, 252] and (~big).tolist() == [-2**53 - 2, 6]
    with pytest.raises(TypeError, match="bitwise_and: arguments are float32"):
        bitwise.bitwise_and(fastnn.ones(2), 2)


def test_what_is_flat_has_zeros_for_gradient():
    for function in (division.floor_divide, lambda a, b: math.div(a, b, rounding_mode="floor"),
                     lambda a, b: math.div(a, b, rounding_mode="trunc")):
        a, b = fastnn.tensor([[5.0], [-3.0]], requires_grad=True), fastnn.tensor([2.0, 4.0, 0.5], requires_grad=True)
        function(a, b).sum().backward()
        assert a.grad.tolist() == [[0], [0]] and b.grad.tolist() == [0, 0, 0]
        a.grad = None
        function(a, b.detach()).sum().backward()
        assert a.grad.tolist() == [[0], [0]]


def test_logic():
    a, b = fastnn.tensor([0, 1, 2, 0]), fastnn.tensor([False, True, False, True])
    assert math.logical_and(a, b).tolist() == [False, True, False, False]
    assert math.logical_or(a, b).tolist() == [False, True, True, True]
    assert math.logical_xor(a, b).tolist() == [False, False, True, True]
    assert math.logical_not(a).tolist() == [True, False, False, True]


def gradient(function, *values):
    tensors = [fastnn.tensor(np.array(v), requires_grad=True) for v in values]
    y = function(*tensors)
    y.backward(fastnn.ones_like(y))
    return [t.grad.tolist() for t in tensors]


def test_gradients_at_ties_and_ends():
    assert gradient(math.maximum, [1.0, 2.0, 3.0], [1.0, 3.0, 2.0]) == [[0.5, 0, 1], [0.5, 1, 0]]
    assert gradient(math.minimum, [1.0, 2.0], [1.0, 3.0]) == [[0.5, 1], [0.5, 0]]
    assert gradient(lambda x: math.clip(x, -1, 1), [-2.0, -1.0, 0.0, 1.0, 2.0]) == [[0, 1, 1, 1, 0]]
    assert gradient(power.pow, [0.0, 2.0], [0.0, 0.0]) == [[0, 0], [0, np.log(2)]]
    assert gradient(math.abs, [0.0, -2.0]) == [[0, -1]]
    assert gradient(activation.step, [0.5]) == [[0]]


def test_gradients_are_summed_where_operands_were_repeated():
    a, b = np.random.default_rng(0).normal(size=(2, 3, 4)), np.random.default_rng(1).normal(size=(3, 1))
    da, db = gradient(math.mul, a, b)
    np.testing.assert_allclose(da, np.broadcast_to(b, a.shape))
    np.testing.assert_allclose(db, a.sum((0, 2))[:, None])
    assert gradient(math.add, a, 2.0)[1] == a.size


def test_float32_gradients_come_back_through_a_float64_product():
    x = fastnn.tensor([1.0, 2.0], requires_grad=True)
    y = math.mul(x, fastnn.tensor(np.array([3.0, 4.0])))
    y.backward(fastnn.ones_like(y))
    assert x.grad.dtype is fastnn.float32 and x.grad.tolist() == [3, 4]


def test_activation_names():
    assert activation.activation("logistic") is activation.sigmoid
    assert activation.activation(activation.tanh) is activation.tanh
    with pytest.raises(ValueError, match="name is 'swush', but must be one of identity, linear, relu"):
        activation.activation("swush")


def test_dropout_and_its_gradient_use_one_mask():
    fastnn.manual_seed(11)
    x = fastnn.ones(1000, requires_grad=True)
    y = dropout(x, 0.25)
    y.backward(fastnn.ones_like(y))
    np.testing.assert_array_equal(x.grad.numpy(), y.detach().numpy())
    assert set(np.unique(y.detach().numpy())) == {np.float32(0), np.float32(1 / 0.75)}


def test_both_forms_of_dropout_keep_the_mean():
    x = fastnn.ones(100_000)
    layer = nn.Dropout(0.2, inverted=False)
    assert abs(layer(x).numpy().mean() - 0.8) < 0.01
    np.testing.assert_allclose(layer.eval()(x).numpy(), 0.8, rtol=1e-6)
    layer = nn.Dropout(0.2)
    assert abs(layer(x).numpy().mean() - 1) < 0.01
    assert layer.eval()(x) is x
    assert dropout(x, 1.0).numpy().sum() == 0
    with pytest.raises(ValueError, match="Dropout: p is 1.5"):
        nn.Dropout(1.5)


def test_infinities_become_the_numbers_that_are_asked_for():
    x = fastnn.tensor([np.nan, np.inf, -np.inf, 2.0])
    assert x.nan_to_num(1.0, 5.0, -5.0).tolist() == [1, 5, -5, 2]
    most = float(np.finfo(np.float32).max)
    assert x.nan_to_num().tolist() == [0, most, -most, 2]
