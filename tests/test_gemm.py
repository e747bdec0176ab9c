"""Matrix products: every shape, stride, ISA, number of threads against NumPy in float64, and each other bit for bit."""

import numpy as np
import pytest
from training import steps

import fastnn
from fastnn import _core
from fastnn._core import launch

DTYPES = (np.float32, np.float64)
ORDERS = ("C", "F", "padded", "steps", "reversed")


@pytest.fixture(autouse=True)
def restore():
    isa, threads = _core.get_isa(), _core.get_num_threads()
    yield
    _core.set_isa(isa)
    _core.set_num_threads(threads)
    _core.set_thread_policy("auto")


def laid_out(x, order):
    """The same matrix (or stack of matrices) with other strides."""
    *batch, rows, cols = x.shape
    if order == "F":
        return fastnn.from_numpy(np.ascontiguousarray(x.swapaxes(-1, -2))).transpose(-1, -2)
    if order == "padded":
        wide = np.full((*batch, rows, cols + 5), np.nan, x.dtype)
        wide[..., :cols] = x
        return fastnn.from_numpy(wide)[..., :cols]
    if order == "steps":
        wide = np.full((*batch, 2 * rows, 3 * cols), np.nan, x.dtype)
        wide[..., ::2, ::3] = x
        return fastnn.from_numpy(wide)[..., ::2, ::3]
    if order == "reversed":
        return fastnn.from_numpy(np.ascontiguousarray(x[..., ::-1, ::-1])[..., ::-1, ::-1])
    return fastnn.from_numpy(np.ascontiguousarray(x))


def check(got, a, b, extra=0.0):
    """got = a @ b + extra, within what a sum of K rounded products may differ."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    bound = (abs(a) @ abs(b) + abs(extra)) * (a.shape[-1] + 4) * np.finfo(got.dtype).eps / 2
    assert got.shape == np.broadcast_shapes((a @ b).shape, np.shape(extra))
    assert (abs(got - (a @ b + extra)) <= bound).all()


def random(rng, shape, dtype):
    return rng.standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("isa", _core.available_isas())
@pytest.mark.parametrize("dtype", DTYPES)
def test_matmul_of_odd_shapes_and_strides(isa, dtype):
    _core.set_isa(isa)
    rng = np.random.default_rng(0)
    for case in range(150):
        thin = rng.integers(1, 9), rng.integers(1, 5), rng.integers(0, 1200)
        m, n, k = rng.integers(1, 71, 3) if case % 10 else thin
        a, b = random(rng, (m, k), dtype), random(rng, (k, n), dtype)
        plain = launch.matmul(laid_out(a, "C"), laid_out(b, "C")).numpy()
        check(plain, a, b)
        strided = launch.matmul(laid_out(a, rng.choice(ORDERS)), laid_out(b, rng.choice(ORDERS))).numpy()
        np.testing.assert_array_equal(plain, strided)


@pytest.mark.parametrize("isa", _core.available_isas())
@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_and_its_gradients(isa, dtype):
    _core.set_isa(isa)
    rng = np.random.default_rng(1)
    for case in range(100):
        m, n, k = rng.integers(1, 71, 3)
        if case % 3 == 0:
            m, k = rng.integers(1, 9), rng.integers(30, 900)
        x, w, bias, dy = (random(rng, s, dtype) for s in ((m, k), (n, k), (n,), (m, n)))
        order = rng.choice(ORDERS, 3)
        y, dx, dw = (launch.linear_forward(laid_out(x, "C"), laid_out(w, "C"), laid_out(bias[None], "C")[0]),
                     launch.linear_backward_input(laid_out(dy, "C"), laid_out(w, "C")),
                     launch.linear_backward_weight(laid_out(dy, "C"), laid_out(x, "C")))
        check(y.numpy(), x, w.T, bias)
        check(dx.numpy(), dy, w)
        check(dw.numpy(), dy.T, x)
        xs, ws, dys = (laid_out(t, o) for t, o in zip((x, w, dy), order))
        np.testing.assert_array_equal(y.numpy(),
                                      launch.linear_forward(xs, ws, laid_out(bias[None], "steps")[0]).numpy())
        np.testing.assert_array_equal(dx.numpy(), launch.linear_backward_input(dys, ws).numpy())
        np.testing.assert_array_equal(dw.numpy(), launch.linear_backward_weight(dys, xs).numpy())


@pytest.mark.parametrize("isa", _core.available_isas())
def test_deep_products_cross_blocks_of_k(isa):
    _core.set_isa(isa)
    rng = np.random.default_rng(2)
    for m, n, k in ((33, 70, 2100), (300, 40, 1025), (15, 600, 1030), (700, 90, 1100), (5, 3, 5000)):
        a, b = random(rng, (m, k), np.float32), random(rng, (k, n), np.float32)
        y = launch.matmul(laid_out(a, "C"), laid_out(b, "C")).numpy()
        check(y, a, b)
        for first, second in (("F", "F"), ("C", "F"), ("F", "C")):
            np.testing.assert_array_equal(y, launch.matmul(laid_out(a, first), laid_out(b, second)).numpy())


def test_avx2_and_avx512_agree_to_the_bit():
    isas = [isa for isa in ("avx2", "avx512") if isa in _core.available_isas()]
    rng = np.random.default_rng(3)
    a, b = random(rng, (45, 500), np.float32), random(rng, (500, 77), np.float32)
    results = []
    for isa in isas:
        _core.set_isa(isa)
        results.append(launch.matmul(laid_out(a, "C"), laid_out(b, "C")).numpy())
    for result in results[1:]:
        np.testing.assert_array_equal(results[0], result)


def test_an_element_is_one_chain_whatever_surrounds_it():
    rng = np.random.default_rng(4)
    a, b = random(rng, (64, 900), np.float32), random(rng, (900, 96), np.float32)
    whole = launch.matmul(laid_out(a, "C"), laid_out(b, "C")).numpy()
    for rows, cols in ((slice(3, 4), slice(7, 60)), (slice(10, 37), slice(90, 96)), (slice(0, 15), slice(31, 36))):
        part = launch.matmul(laid_out(a[rows], "C"), laid_out(b[:, cols], "C")).numpy()
        np.testing.assert_array_equal(whole[rows, cols], part)


def test_a_packed_operand_larger_than_its_buffer_comes_in_slabs():
    _core.set_isa([isa for isa in _core.available_isas() if isa != "amx"][-1])  # where bits do not depend on the shape
    rng = np.random.default_rng(9)
    # More rows than a chunk's, the longest block of k, and as few columns as are 32 MiB of it.
    a, b = (rng.standard_normal(shape, dtype=np.float32) for shape in ((520, 1024), (1024, 8200)))
    whole = launch.matmul(laid_out(a, "C"), laid_out(b, "C")).numpy()
    for cols in (slice(0, 9), slice(4070, 4130), slice(8190, 8200)):
        check(whole[:, cols], a, b[:, cols])
        np.testing.assert_array_equal(whole[:40, cols],
                                      launch.matmul(laid_out(a[:40], "C"), laid_out(b[:, cols], "C")).numpy())


@pytest.mark.parametrize("isa", _core.available_isas())
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_that_share_cache_sets_are_copied(isa, dtype):
    _core.set_isa(isa)
    rng = np.random.default_rng(10)
    for m, n, k in ((30, 150, 1024), (140, 300, 300), (9, 200, 700)):
        a, b = random(rng, (m, k), dtype), random(rng, (k, n), dtype)
        wide = fastnn.zeros(m, 2048, dtype=a.dtype)
        wide[:, :k] = a
        y = launch.matmul(wide[:, :k], laid_out(b, "C")).numpy()
        check(y, a, b)
        np.testing.assert_array_equal(y, launch.matmul(laid_out(a, "C"), laid_out(b, "F")).numpy())
        both = launch.matmul(wide[:, :k].reshape(1, m, k), laid_out(np.stack([b, -b]), "C")).numpy()
        np.testing.assert_array_equal(both, np.stack([y, -y]))


def test_updates_behind_a_product_made_as_its_transpose_change_no_bit():
    """The step's gradient of 258 x 100 elements is one with AVX-512; an output with wider rows keeps what is between them."""
    for isa in _core.available_isas():
        _core.set_isa(isa)
        results = []
        for captured in (False, True):
            fastnn.manual_seed(0)
            results.append(steps(fastnn.nn.Linear(100, 258), captured, [fastnn.randn(519, 100)], 4)[:2])
        assert results[0] == results[1]
        rng = np.random.default_rng(5)
        dy, x = fastnn.tensor(random(rng, (519, 258), np.float32)), fastnn.tensor(random(rng, (519, 100), np.float32))
        wide = fastnn.full((258, 132), 7.0)
        launch.linear_backward_weight(dy, x, out=wide[:, :100])
        np.testing.assert_array_equal(wide[:, :100].numpy(), launch.linear_backward_weight(dy, x).numpy())
        assert (wide[:, 100:].numpy() == 7).all()


def test_copied_rows_larger_than_their_buffer_come_in_slabs():
    _core.set_isa([isa for isa in _core.available_isas() if isa != "amx"][-1])
    rng = np.random.default_rng(11)
    a, b = (rng.standard_normal(shape, dtype=np.float32) for shape in ((8300, 1024), (1024, 140)))
    for order in "CF":
        whole = launch.matmul(laid_out(a, order), laid_out(b, "C")).numpy()
        for rows in (slice(0, 9), slice(4140, 4170), slice(8290, 8300)):
            check(whole[rows], a[rows], b)
            np.testing.assert_array_equal(whole[rows], launch.matmul(laid_out(a[rows], "C"), laid_out(b, "C")).numpy())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(130, 300, 257), (90, 50, 5000), (200, 512, 96), (50, 784, 200), (33, 2000, 300), (700, 45, 1030), (258, 100, 519)]
)
def test_products_of_transposed_rows_are_the_same_chains(shape, dtype):
    """Where A is stored along M, small register tiles read copies: in cells, a slab of K at a time, or, of short K, rows. Large ones
    turn the smaller operand."""
    m, n, k = shape
    rng = np.random.default_rng(11)
    a, b = random(rng, (m, k), dtype), random(rng, (k, n), dtype)
    for isa in _core.available_isas():
        _core.set_isa(isa)
        dense = launch.linear_backward_weight(laid_out(a.T, "C"), laid_out(b, "C"))
        check(dense.numpy(), a, b)
        for of_a, of_b in (("F", "C"), ("C", "F"), ("padded", "padded"), ("steps", "C")):
            other = launch.linear_backward_weight(laid_out(a.T, of_a), laid_out(b, of_b)).numpy()
            np.testing.assert_array_equal(other, dense.numpy())
    long, tall = k > 256, m >= 2 * n and (m - n) * k >= 3 * m * n
    ways = {"avx2": "cells" if long else "blocks", "avx512": "transposed" if tall else "blocks"}
    for isa in set(ways) & set(_core.available_isas()):
        _core.set_isa(isa)
        along_m, along_k = (laid_out(a.T, order) for order in "CF")
        assert launch.linear_backward_weight.algorithm(along_m, laid_out(b, "C")) == ways[isa]
        assert launch.linear_backward_weight.algorithm(along_k, laid_out(b, "C")) == "blocks"
        _core.set_thread_policy("force")
        for threads in (1, 3, 8):
            _core.set_num_threads(threads)
            got = launch.linear_backward_weight(along_m, laid_out(b, "C")).numpy()
            np.testing.assert_array_equal(got, launch.linear_backward_weight(along_k, laid_out(b, "C")).numpy())


def test_batch_axes_broadcast_and_merge():
    rng = np.random.default_rng(5)
    shapes = (((3, 1, 5, 7), (4, 7, 6)), ((6, 5, 40), (40, 3)), ((2, 3, 9, 8), (2, 3, 8, 9)), ((5, 40), (3, 40, 2)),
              ((2, 1, 1, 33), (33, 50)))
    for sa, sb in shapes:
        a, b = random(rng, sa, np.float32), random(rng, sb, np.float32)
        y = launch.matmul(laid_out(a, "C"), laid_out(b, "C")).numpy()
        check(y, a, b)
        for order in ORDERS:
            np.testing.assert_array_equal(y, launch.matmul(laid_out(a, order), laid_out(b, order)).numpy())
    a, b = random(rng, (4, 5, 6), np.float32), random(rng, (6, 7), np.float32)
    moved = laid_out(a.transpose(1, 0, 2), "C").transpose(0, 1)  # batch and rows exchanged in memory: cannot merge
    plain = launch.matmul(laid_out(a, "C"), laid_out(b, "C")).numpy()
    np.testing.assert_array_equal(plain, launch.matmul(moved, laid_out(b, "C")).numpy())


def test_linear_takes_any_leading_axes():
    rng = np.random.default_rng(6)
    w = random(rng, (6, 10), np.float32)
    for shape in ((10,), (3, 10), (2, 3, 10), (2, 3, 4, 10), (1, 2, 1, 3, 10)):
        x = random(rng, shape, np.float32)
        y = launch.linear_forward(fastnn.from_numpy(x), laid_out(w, "C"), None).numpy()
        np.testing.assert_allclose(y, x @ w.T, rtol=1e-4, atol=1e-5)
        turned = fastnn.from_numpy(np.ascontiguousarray(x.T)).permute(*reversed(range(x.ndim)))
        np.testing.assert_array_equal(y, launch.linear_forward(turned, laid_out(w, "C"), None).numpy())
        dy = fastnn.from_numpy(y)
        dw = launch.linear_backward_weight(dy, turned).numpy()
        np.testing.assert_array_equal(dw, launch.linear_backward_weight(dy, fastnn.from_numpy(x)).numpy())


def test_results_may_go_into_any_strides():
    rng = np.random.default_rng(7)
    a, b = random(rng, (20, 30), np.float32), random(rng, (30, 40), np.float32)
    y = launch.matmul(laid_out(a, "C"), laid_out(b, "C")).numpy()
    for order in ORDERS:
        out = laid_out(np.full((20, 40), np.nan, np.float32), order)
        launch.matmul(laid_out(a, "C"), laid_out(b, "C"), out=out)
        np.testing.assert_array_equal(y, np.array(out))
        out = laid_out(np.full((40, 20), np.nan, np.float32), order)
        launch.linear_backward_weight(laid_out(y, "C"), laid_out(a[:, :20], "C"), out=out)
        np.testing.assert_array_equal(np.array(out),
                                      launch.linear_backward_weight(laid_out(y, "C"), laid_out(a[:, :20], "C")).numpy())


@pytest.mark.parametrize("shape", [(0, 5, 6), (5, 0, 6), (5, 6, 0), (0, 0, 0)])
def test_empty_products(shape):
    m, n, k = shape
    a, b = fastnn.zeros(m, k), fastnn.zeros(k, n)
    np.testing.assert_array_equal(launch.matmul(a, b).numpy(), np.zeros((m, n), np.float32))
    y = launch.linear_forward(a, fastnn.zeros(n, k), fastnn.ones(n))
    np.testing.assert_array_equal(y.numpy(), np.ones((m, n), np.float32))


def test_threads_do_not_change_a_bit():
    rng = np.random.default_rng(8)
    _core.set_thread_policy("force")
    for m, n, k in ((200, 256, 784), (4, 256, 784), (64, 10, 256), (1, 500, 2000), (300, 2, 300), (70, 70, 3),
                    (500, 500, 70),
                    (800, 300, 70)):
        x, w, dy = random(rng, (m, k), np.float32), random(rng, (n, k), np.float32), random(rng, (m, n), np.float32)
        x, w, dy = laid_out(x, "C"), laid_out(w, "C"), laid_out(dy, "C")
        results = []
        for threads in (1, 2, 3, 8):
            _core.set_num_threads(threads)
            results.append([launch.linear_forward(x, w, None).numpy(), launch.linear_backward_input(dy, w).numpy(),
                            launch.linear_backward_weight(dy, x).numpy(), launch.matmul(x, w.T).numpy()])
        for other in results[1:]:
            for first, second in zip(results[0], other):
                np.testing.assert_array_equal(first, second)


def test_special_values_stay_where_they_belong():
    a, b = np.ones((20, 70), np.float32), np.ones((70, 40), np.float32)
    a[3, 5], a[7, 0], b[60, 11] = np.nan, np.inf, -np.inf
    for m in (20, 6):
        y = launch.matmul(laid_out(a[:m], "C"), laid_out(b, "C")).numpy()
        z = launch.linear_forward(laid_out(a[:m], "C"), laid_out(b.T, "C"), None).numpy()
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal(y, a[:m].astype(np.float64) @ b)
        np.testing.assert_array_equal(z, y)


def test_the_way_of_a_product_can_be_asked_for():
    _core.set_isa("scalar")
    x, weight = fastnn.ones(64, 512), fastnn.ones(32, 512)
    assert launch.linear_forward.algorithm(x[:2], weight, None) == "inner products"
    assert launch.linear_forward.algorithm(x, weight) == "blocks"
    assert launch.matmul.algorithm(x, weight.transpose(0, 1)) == "blocks"
    assert launch.matmul.algorithm(fastnn.zeros(64, 512), fastnn.ones(512, 96)) == "zeros skipped"
    assert launch.add.algorithm(x, x) == "direct"
    with pytest.raises(ValueError, match="shapes .* do not match"):
        launch.matmul.algorithm(x, weight)


def test_errors_say_what_is_allowed():
    z = fastnn.zeros
    message = r"linear_forward: argument 'x' has shape \(2, 3\), but its last axis must be in_features = 4"
    with pytest.raises(ValueError, match=message):
        launch.linear_forward(z(2, 3), z(5, 4), None)
    with pytest.raises(ValueError, match=r"argument 'bias' has shape \(4,\), but must be \(5,\)"):
        launch.linear_forward(z(2, 4), z(5, 4), z(4))
    with pytest.raises(ValueError,
                       match=r"argument 'weight' has shape \(5,\), but must be \(out_features, in_features\)"):
        launch.linear_forward(z(2, 5), z(5), None)
    with pytest.raises(ValueError, match=r"matmul: shapes \(2, 3\) and \(4, 5\) do not match"):
        launch.matmul(z(2, 3), z(4, 5))
    with pytest.raises(ValueError, match=r"batch axes of 'a' \(2, 2, 3\) and 'b' \(3, 3, 2\) do not broadcast"):
        launch.matmul(z(2, 2, 3), z(3, 3, 2))
    with pytest.raises(ValueError, match=r"must agree in all axes but the last"):
        launch.linear_backward_weight(z(2, 3), z(3, 3))
    with pytest.raises(ValueError, match=r"overlaps argument 'a'"):
        a = z(4, 4)
        launch.matmul(a, z(4, 4), out=a)


@pytest.mark.parametrize("n", [0, 1, 5, 1000])
def test_the_gradients_of_a_product_of_vectors_are_the_vectors(n):
    a, b = (fastnn.tensor(v).requires_grad_() for v in np.random.default_rng(0).standard_normal((2, n)))
    y = a.dot(b)
    assert y.shape == () and np.allclose(y.item(), a.numpy(force=True) @ b.numpy(force=True))
    (y * 3).backward()
    assert np.array_equal(a.grad.numpy(), 3 * b.numpy(force=True)) and np.array_equal(b.grad.numpy(), 3 * a.numpy(force=True))
