"""Special functions and histc beside PyTorch's: values, poles, gradients."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import fastnn

RNG = np.random.default_rng(0)
PLACES = np.concatenate([RNG.uniform(-6, 0, 200), RNG.uniform(0, 12, 300), 10.0 ** RNG.uniform(-6, 6, 100), [0.5, 1, 1.5, 2, 3, 7, 8, 9]])
EDGES = np.array([0, -0.0, 1, -1, -2, -7, np.inf, -np.inf, np.nan, 2.0**30, -(2.0**30)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["lgamma", "digamma", "erfinv"])
def test_values_poles_and_gradients(name, dtype):
    places = PLACES if name != "erfinv" else np.concatenate([RNG.uniform(-1, 1, 400), 1 - 10.0 ** RNG.uniform(-6.5, -1, 100)])
    x = places.astype(dtype)
    a, b = fastnn.tensor(x, requires_grad=True), torch.tensor(x, dtype=torch.float64, requires_grad=True)
    y, z = getattr(fastnn, name)(a), getattr(torch, name)(b)
    y.sum().backward(), z.sum().backward()
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=64 * eps, atol=32 * eps)  # PyTorch's near digamma's poles
    np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-5 if dtype is np.float32 else 2e-9)  # as PyTorch's trigamma
    edges = EDGES.astype(dtype)
    np.testing.assert_allclose(getattr(fastnn.tensor(edges), name)().numpy(), getattr(torch.tensor(edges), name)().numpy(), rtol=4 * eps)
    t = fastnn.tensor(x)
    assert getattr(t, f"{name}_")() is t and t.tolist() == pytest.approx(y.tolist(), nan_ok=True)
    assert getattr(fastnn, name)(fastnn.tensor([1, 0])).dtype is fastnn.float32


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", [{}, {"bins": 7}, {"bins": 5, "min": -1, "max": 1.5}, {"bins": 1}, {"bins": 4, "min": 2, "max": 2}])
def test_histc(options, dtype):
    for x in (RNG.standard_normal((40, 50)), np.full(6, 2.0), np.arange(11.0), np.array([0.25, 0.5, 0.75, 1.0])):
        y, z = fastnn.histc(fastnn.tensor(x.astype(dtype)), **options), torch.histc(torch.tensor(x.astype(dtype)), **options)
        np.testing.assert_array_equal(y.numpy(), z.numpy())
        assert y.numpy().dtype == dtype
    assert fastnn.histc(fastnn.zeros(0), 3).tolist() == torch.histc(torch.zeros(0), 3).tolist() == [0, 0, 0]


def test_histc_leaves_out_nan_and_is_captured():
    x = fastnn.tensor([0.0, 1.0, float("nan"), 2.0, 5.0])
    assert fastnn.histc(x, 2, 0, 2).tolist() == [1, 2]
    program = fastnn.capture(lambda x: fastnn.histc(x, 4))
    draws = [fastnn.randn(300) for _ in range(4)]
    assert [program(d).tolist() for d in draws] == [fastnn.histc(d, 4).tolist() for d in draws]


@pytest.mark.parametrize("call, error, message", [
    (lambda: fastnn.histc(fastnn.zeros(3), 0), ValueError, "histc: bins is 0"),
    (lambda: fastnn.histc(fastnn.zeros(3), 3, 2, 1), ValueError, "histc: max is 1, but must be at least min, 2"),
    (lambda: fastnn.histc(fastnn.zeros(3), 3, 0, float("inf")), ValueError, "histc: max is inf, but must be a finite number"),
    (lambda: fastnn.histc(fastnn.zeros(3), 2**24 + 1), ValueError, "histc: bins is 16777217, but must be at most 16777216"),
    (lambda: fastnn.histc(fastnn.tensor([1, 2])), TypeError, "histc: input has dtype int64")])
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
