"""Elementwise formulas of one kernel beside PyTorch's, at zeros, infinities and NaN."""

import numpy as np
import pytest

import fastnn

torch = pytest.importorskip("torch")

HOSTILE = np.array([0.0, -0.0, 1, -1, 0.5, 2, -3, 1e12, -1e12, 1e-12, np.inf, -np.inf, np.nan])
PAIRS = [t.ravel() for t in np.meshgrid(HOSTILE, HOSTILE)]


def slopes(L, function, arrays):
    tensors = [L.tensor(a, requires_grad=True) for a in arrays]
    y = function(L, *tensors)
    y.backward(L.ones_like(y))
    return [y.detach().numpy(), *(t.grad.numpy() for t in tensors)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("function", [
    lambda L, a, b: L.hypot(a, b), lambda L, a, b: L.xlogy(a, b), lambda L, a, b: L.logaddexp(a, b),
    lambda L, a, b: L.nan_to_num(a) + b * 0.5, lambda L, a, b: L.nan_to_num(b, L.inf, -7.0, L.nan) + a * 0.5,
    lambda L, a, b: L.lerp(a, b, 0.25), lambda L, a, b: L.lerp(a, b, 1.0), lambda L, a, b: L.addcmul(b, a, b, value=0.5),
    lambda L, a, b: L.addcdiv(a, a, b), lambda L, a, b: L.rsqrt(a) + b])
def test_formulas_of_infinities_nan_and_zeros(function, dtype):
    ours, theirs = (slopes(L, function, [a.astype(dtype) for a in PAIRS]) for L in (fastnn, torch))
    for k, (actual, wanted) in enumerate(zip(ours, theirs)):
        known = ~np.isnan(wanted) & ~((wanted == np.inf) & (actual == 0)) if k else slice(None)  # slopes of ours are 0 or 1/2 there
        np.testing.assert_allclose(actual[known], wanted[known], rtol=1e-5, equal_nan=True)


@pytest.mark.parametrize("options", [{}, {"equal_nan": True}, {"rtol": 0.0, "atol": 0.5}, {"rtol": 0.5, "atol": 0.0}])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_isclose(options, dtype):
    a, b = (p[np.isfinite(p) & (np.abs(p) < 9)][:40] if dtype == "int64" else p for p in PAIRS)
    ours, theirs = (L.isclose(*(L.tensor(x.astype(dtype)) for x in (a[:len(b)], b[:len(a)])), **options) for L in (fastnn, torch))
    np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize("exponent", [3, 4, -1, -2, 0.5, -0.5, 1.5, 2.5, 3.0, 0, 1])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_powers_with_one_exponent(exponent, dtype):
    x = HOSTILE[~np.isin(HOSTILE, [-np.inf]) | ~np.isin(exponent, [0.5, -0.5])].astype(dtype)  # where ours are C's, PyTorch's a root's
    x = x if exponent % 1 == 0 else x[~np.signbit(x)]
    ours, theirs = (slopes(L, lambda L, x: x ** exponent, [x]) for L in (fastnn, torch))
    for actual, wanted in zip(ours, theirs):
        np.testing.assert_allclose(actual, wanted, rtol=1e-6)
