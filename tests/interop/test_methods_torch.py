"""Tensors' methods beside PyTorch's: results and gradients; what changes in place; what is refused."""

import math

import numpy as np
import pytest

import fastnn
from fastnn import nn

torch = pytest.importorskip("torch")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


X, Y, V = normal(4, 4), normal(4, 4, seed=1) + 3, normal(4, seed=2)
MASK = normal(4, 4, seed=3) > 0
INDEX = np.array([[0, 3, 1, 2], [2, 2, 0, 1]])
CALLS = [
    ("absolute", ()), ("negative", ()), ("multiply", (Y,)), ("subtract", (Y,)), ("divide", (Y,)), ("true_divide", (2.0,)),
    ("moveaxis", (0, 1)), ("swapaxes", (0, 1)), ("swapdims", (-1, 0)), ("ravel", ()), ("broadcast_to", ((2, 4, 4),)), ("floor", ()),
    ("ceil", ()), ("round", ()), ("trunc", ()), ("expm1", ()), ("reciprocal", ()), ("lerp", (Y, 0.3)), ("addcmul", (Y, V)),
    ("addcdiv", (V, Y)), ("sign", ()), ("gather", (0, INDEX)), ("index_select", (1, INDEX[0])), ("flip", ((0, 1),)),
    ("roll", (1, 0)),
    ("roll", (5,)), ("select", (0, -1)), ("tril", (1,)), ("triu", ()), ("tile", ((2, 1, 3),)), ("repeat", (2, 1, 3)), ("mm", (Y,)),
    ("mv", (V,)), ("addmm", (Y, X)), ("norm", ()), ("norm", (1,)), ("norm", (math.inf, 0)), ("norm", (3, (0, 1), True)),
    ("where", (MASK, Y)), ("clamp_min", (0.1,)), ("clamp_max", (0.1,)), ("view_as", (normal(2, 8),)), ("reshape_as", (normal(16),)),
    ("expand_as", (normal(3, 4, 4),)), ("type_as", (Y,)), ("cpu", ())]


def given(library, value):
    """Arrays as the library's tensors."""
    if not isinstance(value, np.ndarray):
        return value
    return fastnn.tensor(value) if library is fastnn else torch.tensor(value)


@pytest.mark.parametrize("name, arguments", CALLS)
def test_results_and_gradients(name, arguments):
    x, expected = fastnn.tensor(X, requires_grad=True), torch.tensor(X, requires_grad=True)
    y = getattr(x, name)(*(given(fastnn, value) for value in arguments))
    z = getattr(expected, name)(*(given(torch, value) for value in arguments))
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-12, atol=1e-14)
    dy = normal(*y.shape, seed=7)
    y.backward(fastnn.tensor(dy))
    z.backward(torch.tensor(dy))
    np.testing.assert_allclose(x.grad.numpy(), expected.grad.numpy(), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", ["log1p", "rsqrt"])
def test_functions_of_positive_numbers(name):
    x, expected = fastnn.tensor(Y, requires_grad=True), torch.tensor(Y, requires_grad=True)
    y, z = getattr(x, name)(), getattr(expected, name)()
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-14)
    y.sum().backward(), z.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), expected.grad.numpy(), rtol=1e-13)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0])
def test_norms_of_zeros_have_the_gradient_0(p):
    x, expected = X.copy(), None
    x[1], x[2, 0] = 0, 0
    x, expected = fastnn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, z = x.norm(p, 1), expected.norm(p, 1)
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-13)
    y.sum().backward(), z.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), expected.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("name, arguments", [
    ("greater", (Y,)), ("greater_equal", (0.0,)), ("less", (V,)), ("less_equal", (Y,)), ("not_equal", (Y,)), ("isnan", ()),
    ("isinf", ()), ("isfinite", ()), ("bool", ()), ("int", ()), ("nelement", ()), ("ndimension", ()), ("element_size", ()),
    ("is_signed", ()), ("stride", ()), ("stride", (1,)), ("equal", (X,)), ("equal", (Y,)), ("allclose", (X + 1e-9,)),
    ("allclose", (X + 1e-9, 0.0, 1e-12)), ("new_zeros", (2, 3)), ("new_ones", ((2, 3),)), ("new_full", ((2,), 4.0)),
    ("new_tensor", ([1, 2],))])
def test_what_takes_no_gradient(name, arguments):
    x = X.copy()
    x[0, :3] = np.nan, np.inf, -np.inf
    x = X if name in ("int", "equal", "allclose") else x
    y = getattr(fastnn.tensor(x), name)(*(given(fastnn, value) for value in arguments))
    z = getattr(torch.tensor(x), name)(*(given(torch, value) for value in arguments))
    if isinstance(z, torch.Tensor):
        assert y.dtype.name == str(z.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(y.numpy(), z.numpy())
    else:
        assert y == z and type(y) is type(z)


@pytest.mark.parametrize("name, arguments", [
    ("clamp_", (-0.5, 0.5)), ("masked_fill_", (MASK, 2.0)), ("neg_", ()), ("abs_", ()), ("exp_", ()), ("square_", ()),
    ("pow_", (3.0,)), ("lerp_", (Y, 0.25)), ("addcmul_", (Y, X)), ("addcdiv_", (X, Y)), ("sqrt_", ()), ("log_", ())])
def test_in_place(name, arguments):
    start = Y if name in ("sqrt_", "log_") else X
    x, expected = fastnn.tensor(start), torch.tensor(start)
    memory = x.numpy()
    assert getattr(x, name)(*(given(fastnn, value) for value in arguments)) is x
    getattr(expected, name)(*(given(torch, value) for value in arguments))
    np.testing.assert_allclose(memory, expected.numpy(), rtol=1e-13)
    if name.startswith("addc"):
        x = getattr(fastnn.tensor(X), name)(fastnn.tensor(X), fastnn.tensor(Y), value=0.5)
        np.testing.assert_allclose(x.numpy(), getattr(torch.tensor(X), name)(torch.tensor(X), torch.tensor(Y), value=0.5).numpy())
    with pytest.raises(RuntimeError, match="writing in place"):
        getattr(fastnn.tensor(start, requires_grad=True), name)(*(given(fastnn, value) for value in arguments))


def test_drawn_in_place():
    x = fastnn.zeros(10_000)
    assert x.uniform_(2.0, 3.0) is x and 2 <= x.numpy().min() and 2.4 < x.numpy().mean() < 2.6 and x.numpy().max() < 3
    assert 4.9 < x.normal_(5.0, 2.0, fastnn.Generator(1)).numpy().mean() < 5.1
    np.testing.assert_array_equal(x.numpy(), fastnn.zeros(10_000).normal_(5.0, 2.0, fastnn.Generator(1)).numpy())
    with pytest.raises(RuntimeError, match="writing in place"):
        nn.Linear(2, 2).weight.normal_()


def test_batches_of_matrices_and_vectors():
    a, b = normal(2, 3, 4), normal(2, 4, 5, seed=1)
    np.testing.assert_allclose(fastnn.tensor(a).bmm(fastnn.tensor(b)).numpy(), a @ b)
    np.testing.assert_allclose(fastnn.tensor(V).dot(fastnn.tensor(V)).item(), V @ V)
    np.testing.assert_allclose(fastnn.tensor(V).outer(fastnn.tensor(V)).numpy(), np.outer(V, V))
    assert fastnn.tensor(a).mT.shape == (2, 4, 3) and fastnn.tensor(a).device == "cpu"
    x = fastnn.tensor(a, requires_grad=True)
    assert not x.data.requires_grad and x.data.shares_storage(x)


@pytest.mark.parametrize("call, message", [
    (lambda x: x.mm(fastnn.ones(4)), r"mm: the factors have shapes \(4, 4\) and \(4,\)"),
    (lambda x: fastnn.bmm(fastnn.ones(2, 3, 4), fastnn.ones(1, 4, 5)), "must be of one batch"),
    (lambda x: x.outer(x), "must have one axis"), (lambda x: x.roll((1, 2), 0), "one shift for each axis"),
    (lambda x: x.repeat(2), "a number for each of 2 axes"), (lambda x: x.tile(-1), "at least 0"),
    (lambda x: x.norm(0), "p is 0"), (lambda x: fastnn.ones(3).tril(), "at least two axes"),
    (lambda x: x.new_zeros(2, device="cuda"), "device is 'cuda'")])
def test_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(fastnn.ones(4, 4))
