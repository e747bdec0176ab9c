"""Combinations, covariances, areas and turns beside PyTorch's: values and gradients."""

import numpy as np
import pytest

import fastnn

torch = pytest.importorskip("torch")

X = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
COUNTS, WEIGHTS = np.array([1, 2, 1, 3, 2, 1]), np.random.default_rng(1).random(6).astype(np.float32)
CALLS = {
    **{f"rot90-{k}-{d}": lambda L, x, k=k, d=d: L.rot90(x, k, d) for k in (0, 1, 2, 3, -1, 5) for d in ((0, 1), (1, 0))},
    "kron": lambda L, x: L.kron(x, x), "kron-rows": lambda L, x: L.kron(x, x[0]), "kron-front": lambda L, x: L.kron(x[0], x),
    **{f"cartesian_prod-{n}": lambda L, x, n=n: L.cartesian_prod(*x[:n]) for n in (1, 2, 3)},
    **{f"combinations-{r}-{again}": lambda L, x, r=r, again=again: L.combinations(x[0], r, again)
       for r in (1, 2, 3) for again in (False, True)},
    "cov": lambda L, x: L.cov(x), "cov-0": lambda L, x: L.cov(x, correction=0), "cov-one": lambda L, x: L.cov(x[0]),
    "cov-counts": lambda L, x: L.cov(x, fweights=L.tensor(COUNTS)), "cov-weights": lambda L, x: L.cov(x, aweights=L.tensor(WEIGHTS)),
    "cov-both": lambda L, x: L.cov(x, correction=0, fweights=L.tensor(COUNTS), aweights=L.tensor(WEIGHTS)),
    "corrcoef": lambda L, x: L.corrcoef(x), "corrcoef-one": lambda L, x: L.corrcoef(x[0]), "corrcoef-method": lambda L, x: x.corrcoef(),
    "trapezoid": lambda L, x: L.trapezoid(x), "trapezoid-dx": lambda L, x: L.trapezoid(x, dx=0.5, dim=0),
    "trapezoid-x": lambda L, x: L.trapezoid(x, x * 2 + 1, dim=0), "trapezoid-line": lambda L, x: L.trapezoid(x, x[0]),
    "trapezoid-column": lambda L, x: L.trapezoid(x, x[:, 0], dim=0), "trapezoid-none": lambda L, x: L.trapezoid(x[:, :1]),
    "logcumsumexp": lambda L, x: L.logcumsumexp(x, 0), "logcumsumexp-far": lambda L, x: L.logcumsumexp(x * 100, 1),
    "logcumsumexp-number": lambda L, x: L.logcumsumexp(x[0, 0], 0),
}


@pytest.mark.parametrize("call", CALLS)
def test_as_pytorch_s(call):
    results = []
    for L in (fastnn, torch):
        x = L.tensor(X, requires_grad=True)
        y = CALLS[call](L, x)
        (y * y).sum().backward()
        results.append((y.detach().numpy(), x.grad.numpy()))
    for ours, theirs in zip(*results):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_logcumsumexp_of_infinities():
    x = np.array([-np.inf, -np.inf, 1, 2, np.inf, 3, np.nan, 4], np.float32)
    np.testing.assert_array_equal(fastnn.logcumsumexp(fastnn.tensor(x), 0).numpy()[[0, 1, 2, 4, 5, 6, 7]],
                                  torch.logcumsumexp(torch.tensor(x), 0).numpy()[[0, 1, 2, 4, 5, 6, 7]])


@pytest.mark.parametrize("call, error, message", [
    (lambda x: fastnn.rot90(x, 1, (0, 0)), ValueError, "rot90: dims is"), (lambda x: fastnn.rot90(x, 1, (0, 2)), IndexError, "rot90"),
    (lambda x: fastnn.cartesian_prod(x), ValueError, "cartesian_prod: tensors have shapes"),
    (lambda x: fastnn.combinations(x), ValueError, "combinations: input has shape"),
    (lambda x: fastnn.combinations(x[0], -1), ValueError, "combinations: r is -1"),
    (lambda x: fastnn.kron(x, x[None, None, None]), ValueError, "kron: input has shape .* at most four axes"),
    (lambda x: fastnn.cov(x[None]), ValueError, "cov: input has shape"),
    (lambda x: fastnn.cov(x, fweights=x[0, :2]), ValueError, "cov: fweights has shape"),
    (lambda x: fastnn.logcumsumexp(x, 2), IndexError, "logcumsumexp"), (lambda x: fastnn.trapezoid(x, dim=5), IndexError, "trapezoid")])
def test_what_does_not_fit(call, error, message):
    with pytest.raises(error, match=message):
        call(fastnn.tensor(X))
