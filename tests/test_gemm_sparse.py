"""Products with an operand that is mostly zeros: the bits of dense products, on every ISA, in every layout, for any number of threads."""

import numpy as np
import pytest
from test_gemm import ORDERS, check, laid_out, random, restore  # noqa: F401

import fastnn
import fastnn.functional as F
from fastnn import _core, nn, optim
from fastnn._core import launch

SHAPES = ((64, 256, 784), (200, 50, 784), (300, 16, 1433), (70, 131, 65), (513, 90, 200), (40, 1100, 130))


def sparse(rng, shape, density, dtype=np.float32):
    """Random numbers, of which a share is not 0."""
    return np.where(rng.random(shape) < density, random(rng, shape, dtype), 0).astype(dtype)


def in_pieces(a, b):
    """a times b by products too small for zeros to be looked for, yet too large for inner products where the whole is."""
    rows, columns = np.array_split(a, max(len(a) // 20, 1)), np.array_split(b, max(b.shape[1] // 20, 1), axis=1)
    return np.block([[launch.matmul(laid_out(x, "C"), laid_out(y, "C")).numpy() for y in columns] for x in rows])


def fma_isas():
    return [isa for isa in _core.available_isas() if isa != "amx"]


@pytest.fixture(autouse=True)
def multiply_adds(restore):  # noqa: F811
    """Matrix units round otherwise, and take what pays there."""
    _core.set_isa(fma_isas()[-1])


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("shape", SHAPES)
def test_bits_are_those_of_dense_products(shape, dtype):
    m, n, k = shape
    rng = np.random.default_rng(2)
    for isa in fma_isas():
        _core.set_isa(isa)
        for of_a, of_b in ((0.1, 1), (1, 0.1), (0.02, 0.05), (0, 1)):
            a, b = sparse(rng, (m, k), of_a, dtype), sparse(rng, (k, n), of_b, dtype)
            want = in_pieces(a, b)
            check(want, a, b)
            if isa == "avx2" and dtype == np.float32 and of_a < 1 and m * n * k > 4_000_000:
                assert launch.matmul.algorithm(laid_out(a, "C"), laid_out(b, "C")) == "zeros skipped"
            for order in ("CC", "FC", "CF", "FF", ("padded", "steps"), ("reversed", "C")):
                got = launch.matmul(laid_out(a, order[0]), laid_out(b, order[1])).numpy()
                np.testing.assert_array_equal(got, want)


def test_dense_rows_among_sparse_ones():
    """Rows that are found to be dense when they are marked are multiplied whole, block by block."""
    rng = np.random.default_rng(2)
    for isa in fma_isas():
        _core.set_isa(isa)
        for m, n, k in ((640, 40, 784), (1000, 256, 64), (640, 300, 200)):
            a, b = sparse(rng, (m, k), 0.1), random(rng, (k, n), np.float32)
            a[70:140] = random(rng, (70, k), np.float32)
            a[200:300, k // 2:] = random(rng, (100, k - k // 2), np.float32)
            want = in_pieces(a, b)
            if isa == "avx2":
                assert launch.matmul.algorithm(laid_out(a, "C"), laid_out(b, "C")) == "zeros skipped"
            for x, y in (("C", "C"), ("F", "C")):
                np.testing.assert_array_equal(launch.matmul(laid_out(a, x), laid_out(b, y)).numpy(), want)
            got = launch.matmul(laid_out(b.T, "C"), laid_out(a.T, "C")).numpy()
            np.testing.assert_array_equal(got.T, want)


def test_dense_operands_are_not_marked():
    rng = np.random.default_rng(3)
    for isa in fma_isas():
        _core.set_isa(isa)
        a, b = random(rng, (64, 784), np.float32), random(rng, (784, 256), np.float32)
        assert launch.matmul.algorithm(laid_out(a, "C"), laid_out(b, "C")) in ("blocks", "cells")
        a[a < -0.6] = 0  # a quarter
        assert launch.matmul.algorithm(laid_out(a, "C"), laid_out(b, "C")) in ("blocks", "cells")


@pytest.mark.parametrize("value", (np.inf, -np.inf, np.nan))
def test_what_is_not_finite_meets_zeros(value):
    """0 times infinity is NaN, wherever it is."""
    rng = np.random.default_rng(4)
    for isa in fma_isas():
        _core.set_isa(isa)
        for m, n, k in ((64, 256, 784), (200, 50, 784)):
            a, b = sparse(rng, (m, k), 0.1), random(rng, (k, n), np.float32)
            a[:, 5] = 0
            b[5, n - 1] = value
            for x, y in ((a, b), (b.T, a.T)):
                got = launch.matmul(laid_out(x, "C"), laid_out(y, "C")).numpy()
                with np.errstate(invalid="ignore"):
                    want = x.astype(np.float64) @ y.astype(np.float64)
                np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
                assert np.isnan(got).sum() == m


def test_nan_among_zeros_is_multiplied():
    rng = np.random.default_rng(4)
    a, b = sparse(rng, (64, 784), 0.1), random(rng, (784, 256), np.float32)
    a[3, 700] = np.nan
    got = launch.matmul(laid_out(a, "C"), laid_out(b, "C")).numpy()
    assert np.isnan(got[3]).all() and np.isfinite(np.delete(got, 3, 0)).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_linear_layers_with_their_epilogues(shape):
    """Bias and ReLU, gradients of weights and inputs, with threads that really run."""
    m, n, k = shape
    rng = np.random.default_rng(5)
    x, dy = sparse(rng, (m, k), 0.15), sparse(rng, (m, n), 0.2)
    w, bias = random(rng, (n, k), np.float32), random(rng, (n,), np.float32)
    product, weight = in_pieces(x, np.ascontiguousarray(w.T)), in_pieces(np.ascontiguousarray(dy.T), x)
    inputs = in_pieces(dy, w)
    _core.set_thread_policy("force")
    for threads in (1, 2, 5):
        _core.set_num_threads(threads)
        x_, dy_, w_, bias_ = (fastnn.from_numpy(t) for t in (x, dy, w, bias))
        np.testing.assert_array_equal(launch.linear_forward(x_, w_, bias_).numpy(), product + bias)
        np.testing.assert_array_equal(launch.linear_backward_weight(dy_, x_).numpy(), weight)
        np.testing.assert_array_equal(launch.linear_backward_input(dy_, w_).numpy(), inputs)


@pytest.mark.parametrize("hidden", (50, 256, 300))
@pytest.mark.parametrize("dropout", (0, 0.6))
def test_captured_steps_pass_gradients_on(hidden, dropout):
    """A step whose gradients have no memory of their own and are followed by the optimiser: the bits of eager steps."""
    rng = np.random.default_rng(6)
    batches = [(sparse(rng, (96, 784), 0.18), rng.integers(0, 10, 96)) for _ in range(3)]
    batches.append((random(rng, (96, 784), np.float32), rng.integers(0, 10, 96)))  # dense now
    ends = []
    for captured, threads in ((False, 1), (True, 1), (True, 3)):
        _core.set_num_threads(threads)
        _core.set_thread_policy("force" if threads > 1 else "auto")
        fastnn.manual_seed(0)
        model = nn.Sequential(nn.Linear(784, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU(),
                              nn.Linear(hidden, 10))
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def step(x, y, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        run = fastnn.capture(step) if captured else step
        for x, y in batches * 3:
            run(fastnn.from_numpy(x), fastnn.from_numpy(y))
        ends.append([p.detach().numpy().copy() for p in model.parameters()])
    for end in ends[1:]:
        for got, want in zip(end, ends[0]):
            np.testing.assert_array_equal(got, want)


def test_random_shapes_and_densities():
    rng = np.random.default_rng(7)
    for _ in range(60):
        m, n, k = (int(size) for size in rng.integers(1, 400, 3))
        density = rng.choice([0, 0.01, 0.1, 0.3])
        a, b = sparse(rng, (m, k), density), random(rng, (k, n), np.float32)
        for x, y in ((a, b), (np.ascontiguousarray(b.T), np.ascontiguousarray(a.T))):
            got = launch.matmul(laid_out(x, rng.choice(ORDERS)), laid_out(y, rng.choice(ORDERS))).numpy()
            np.testing.assert_array_equal(got, in_pieces(x, y))


def test_signs_of_zeros_are_those_of_dense_products():
    """Products that underflow leave -0, which a product that is +0 makes +0, wherever it is in the sum."""
    rng = np.random.default_rng(8)
    for isa in fma_isas():
        _core.set_isa(isa)
        a, b = np.zeros((128, 784), np.float32), random(rng, (784, 128), np.float32)
        a[:, ::10], b[::10] = 1e-30, -1e-30
        a[::3, 782:], b[780] = 1e-30, -1e-30
        want = in_pieces(a, b)
        for x, y in (("C", "C"), ("F", "C"), ("C", "F")):
            got = launch.matmul(laid_out(a, x), laid_out(b, y)).numpy()
            np.testing.assert_array_equal(np.signbit(got), np.signbit(want))
        got = launch.matmul(laid_out(b.T, "C"), laid_out(a.T, "C")).numpy()
        np.testing.assert_array_equal(np.signbit(got), np.signbit(in_pieces(np.ascontiguousarray(b.T), np.ascontiguousarray(a.T))))


def test_products_of_nothing_have_a_way_too():
    for m, n, k in ((0, 1000, 1000), (1000, 0, 1000), (0, 0, 4000), (1000, 1000, 0)):
        a, b = fastnn.zeros(m, k), fastnn.zeros(k, n)
        assert isinstance(launch.matmul.algorithm(a, b), str)
        assert launch.matmul(a, b).shape == (m, n)
        assert isinstance(launch.linear_backward_input.algorithm(a, b), str)


def test_memory_for_marks_and_panels_is_bounded():
    """Neither a long inner extent nor many threads ask for memory without end."""
    x, weight = fastnn.ones(24, 100_000), fastnn.ones(64, 100_000)
    _core.set_thread_policy("force")
    for threads in (1, 8):
        _core.set_num_threads(threads)
        _core.reset_peak_memory()
        before = fastnn.memory_stats()["in_use"]
        launch.linear_forward(x, weight, None)
        assert fastnn.memory_stats()["peak"] - before < 16 << 20
