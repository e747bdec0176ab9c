"""gradcheck finds wrong gradients and says where; vjp and jacobian give known derivatives; the graph as text."""

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import nn


class Crooked(fastnn.Function):
    """x^2 whose gradient is wrong in element 2."""

    @staticmethod
    def forward(ctx, x):
        ctx.x = x
        return x ** 2

    @staticmethod
    def backward(ctx, dy):
        slope = 2 * ctx.x
        slope[2] *= 1.01
        return slope * dy


def test_gradcheck_passes_what_is_right():
    x, w = fastnn.rand(3, 4), fastnn.rand(2, 4)
    result = fastnn.gradcheck(lambda x, w: (F.linear(x, w).tanh(), x.exp()), (x, w))
    assert result and 0 < result.relative_error < 1e-8 and result.input in (0, 1)


def test_gradcheck_names_the_worst_element():
    x = fastnn.tensor([1.0, 2.0, 3.0, 4.0])
    with pytest.raises(AssertionError, match=r"error 0\.0099.* input 1, index \(2,\)"):
        fastnn.gradcheck(lambda a, b: a + Crooked.apply(b), (x, x))
    result = fastnn.gradcheck(Crooked.apply, x, raise_exception=False)
    assert not result and result.index == (2,) and result.gradient > result.differences
    np.testing.assert_array_equal(x.numpy(), [1, 2, 3, 4])


def test_gradcheck_takes_no_gradient_for_a_gradient_of_zero():
    x, y = fastnn.tensor([2.0]), fastnn.tensor([3.0])
    assert fastnn.gradcheck(lambda x, y: x * x + 0 * y.detach(), (x, y))
    with pytest.raises(AssertionError, match="input 1"):
        fastnn.gradcheck(lambda x, y: x * x + y.detach(), (x, y))


def test_gradcheck_refuses():
    x = fastnn.rand(5)
    with pytest.raises(ValueError, match="two different results"):
        fastnn.gradcheck(lambda x: F.dropout(x, 0.5), fastnn.rand(500))
    with pytest.raises(ValueError, match="nothing to check"):
        fastnn.gradcheck(lambda x: x.detach(), x)
    with pytest.raises(ValueError, match="step is 0"):
        fastnn.gradcheck(lambda x: x * x, x, step=0)
    with pytest.raises(TypeError, match="input 0 is a float"):
        fastnn.gradcheck(lambda x: x * x, 1.5)
    with pytest.raises(TypeError, match="output 0 of fn is a int"):
        fastnn.gradcheck(lambda x: 1, x)


def test_vjp_is_the_transposed_product():
    a, x = np.arange(6.0).reshape(2, 3), np.array([1.0, -1.0, 2.0])
    y, product = fastnn.vjp(lambda x: fastnn.tensor(a) @ x, fastnn.tensor(x), fastnn.tensor([1.0, 10.0]))
    np.testing.assert_allclose(y.numpy(), a @ x)
    np.testing.assert_allclose(product.numpy(), [1.0, 10.0] @ a)
    assert not y.requires_grad


def test_vjp_leaves_other_gradients_alone():
    layer = nn.Linear(3, 1)
    layer.weight.grad = fastnn.ones(1, 3)
    x = fastnn.rand(1, 3)
    _, (dx, none) = fastnn.vjp(lambda x, k: layer(x), (x, fastnn.tensor([1, 2])))
    np.testing.assert_array_equal(dx.numpy(), layer.weight.detach().numpy())
    assert none is None and layer.bias.grad is None and x.grad is None
    np.testing.assert_array_equal(layer.weight.grad.numpy(), np.ones((1, 3)))
    _, zero = fastnn.vjp(lambda x: x.detach().sum(), x)
    assert not zero.numpy().any()


def test_vjp_refuses():
    x = fastnn.rand(3)
    with pytest.raises(ValueError, match=r"v must be given, since output 0 has shape \(3,\)"):
        fastnn.vjp(lambda x: x * x, x)
    with pytest.raises(ValueError, match=r"v\[0\] has shape \(2,\)"):
        fastnn.vjp(lambda x: x * x, x, fastnn.ones(2))
    with pytest.raises(ValueError, match="v holds 2 tensors"):
        fastnn.vjp(lambda x: x * x, x, (x, x))


def test_jacobian():
    x, y = fastnn.tensor([1.0, 2.0]), fastnn.tensor([3.0, 4.0, 5.0])
    outer = fastnn.jacobian(lambda x, y: (x.unsqueeze(1) * y, x.sum()), (x, y))
    expected = np.einsum("ik,j->ijk", np.eye(2), y.numpy())
    np.testing.assert_array_equal(outer[0][0].numpy(), expected)
    np.testing.assert_array_equal(outer[0][1].numpy(), np.einsum("i,jk->ijk", x.numpy(), np.eye(3)))
    np.testing.assert_array_equal(outer[1][0].numpy(), [1, 1])
    np.testing.assert_array_equal(outer[1][1].numpy(), np.zeros(3))
    np.testing.assert_array_equal(fastnn.jacobian(lambda x: x * x, x).numpy(), np.diag([2.0, 4.0]))


def test_graph_as_text_and_dot():
    x = fastnn.tensor([1.0, 2.0], requires_grad=True)
    y = (x * x).sum()
    assert y.graph(names={"x": x}).splitlines() == [
        "#0 sum -> float32 () value 5. <- #1", "#1 mul <- #2, #2", "#2 x: float32 (2,) value [1., 2.]; no gradient"]
    y.backward(retain_graph=True)
    assert y.graph().endswith("leaf: float32 (2,) value [1., 2.]; float32 (2,) gradient [2., 4.]")
    dot = y.graph("dot")
    assert dot.count("->") == 4 and "n2 -> n1;" in dot and r"value [1., 2.]\nfloat32" in dot and dot.endswith("}")
    y.backward()
    with pytest.raises(RuntimeError, match="freed"):
        y.graph()
    with pytest.raises(ValueError, match="format is 'svg'"):
        y.graph("svg")
    assert fastnn.ones(10).graph() == "#0 leaf: float32 (10,) value mean 1, from 1 to 1; no gradient"
    assert "constant" in (x * fastnn.ones(2)).graph()
