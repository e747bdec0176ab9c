"""Ramps, unit matrices, triangles and counts: NumPy's numbers, in every type, layout and length."""

import numpy as np
import pytest

import fastnn
from fastnn.testing.checks import forced_threads

TYPES = ("float32", "float64", "int64", "int32")


@pytest.mark.parametrize("arguments", [
    (7,), (0, 100_003), (5, -9, -2), (-3, 40, 7), (0.5, 9.25, 0.125), (1, 2, 0.1), (0, -1, -1 / 3), (3.0,), (10, 0), (0, 2**60, 2**57),
    (2**51, 2**51 + 5), (-1e9, 1e9, 12345.678), (True,), (0, 5, np.int64(2))])
def test_arange_is_numpys(arguments):
    wanted = np.arange(*arguments)
    y = fastnn.arange(*arguments)
    assert y.dtype is (fastnn.int64 if wanted.dtype.kind == "i" else fastnn.float32)
    np.testing.assert_array_equal(y.numpy(), wanted.astype(y.numpy().dtype))
    for dtype in TYPES:
        np.testing.assert_array_equal(fastnn.arange(*arguments, dtype=getattr(fastnn, dtype)).numpy(), wanted.astype(dtype))


def test_arange_takes_a_gradient_and_refuses_devices():
    assert fastnn.arange(3.0, requires_grad=True).requires_grad and fastnn.linspace(0, 1, 4, requires_grad=True).requires_grad
    for make in (lambda: fastnn.arange(3, device="cuda"), lambda: fastnn.linspace(0, 1, 3, device="cuda"),
                 lambda: fastnn.eye(3, device="cuda")):
        with pytest.raises(ValueError, match="device"):
            make()


@pytest.mark.parametrize("start, end", [(0, 1), (-3.5, 9.25), (2, 2), (1e-300, 5e-324), (5, -5), (0, 1e308), (-1e308, 1e308), (0, np.inf)])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 50_001])
def test_linspace_is_numpys(start, end, steps):
    with np.errstate(all="ignore"):
        wanted = np.linspace(start, end, steps)
        for dtype in ("float32", "float64"):
            np.testing.assert_array_equal(fastnn.linspace(start, end, steps, dtype=getattr(fastnn, dtype)).numpy(), wanted.astype(dtype))


@pytest.mark.parametrize("n, m", [(1, None), (5, 3), (3, 5), (700, None), (0, 4), (4, 0)])
def test_eye_is_numpys(n, m):
    for dtype in (*TYPES, "uint8", "bool"):
        np.testing.assert_array_equal(fastnn.eye(n, m, dtype=getattr(fastnn, dtype)).numpy(), np.eye(n, m, dtype=dtype))
    assert fastnn.eye(2, requires_grad=True).requires_grad


@pytest.mark.parametrize("dtype", [*TYPES, "uint8", "bool"])
@pytest.mark.parametrize("shape", [(5, 7), (300, 200), (2, 3, 4), (2, 3, 5, 4), (0, 3), (3, 0)])
def test_triangles_are_numpys(shape, dtype):
    x = np.random.default_rng(0).integers(1, 100, shape).astype(dtype)
    for diagonal in (0, 1, -2, 3, 10**6, -10**12):
        k = max(-1000, min(diagonal, 1000))
        for t in (fastnn.tensor(x), fastnn.from_numpy(np.asfortranarray(x)), fastnn.from_numpy(np.repeat(x, 2, -1)[..., ::2])):
            np.testing.assert_array_equal(fastnn.tril(t, diagonal).numpy(), np.tril(x, k))
            np.testing.assert_array_equal(fastnn.triu(t, diagonal).numpy(), np.triu(x, k))


def test_triangles_keep_nothing_of_what_they_drop():
    x = fastnn.tensor(np.full((3, 3), np.nan), requires_grad=True)
    y = fastnn.triu(x, 1)
    y.backward(fastnn.tensor(np.full((3, 3), np.inf)))
    np.testing.assert_array_equal(np.isnan(y.detach().numpy()), np.triu(np.ones((3, 3)), 1))
    np.testing.assert_array_equal(x.grad.numpy(), np.where(np.triu(np.ones((3, 3)), 1), np.inf, 0))


@pytest.mark.parametrize("n, top, minlength", [(0, 1, 0), (0, 1, 5), (10, 3, 0), (10, 3, 9), (200_000, 1000, 0), (200_000, 150_000, 0)])
def test_bincount_is_numpys(n, top, minlength):
    x = np.random.default_rng(1).integers(0, top, n)
    for t in (fastnn.tensor(x), fastnn.from_numpy(np.repeat(x, 3))[::3]):
        np.testing.assert_array_equal(fastnn.bincount(t, minlength=minlength).numpy(), np.bincount(x, minlength=minlength))
    with pytest.raises(ValueError, match="bincount: input holds -4, but must hold numbers from 0 on"):
        fastnn.bincount(fastnn.tensor([3, -4, 5]))
    with pytest.raises(ValueError, match="input holds 5, but y has room for 5 numbers"):
        fastnn._core.launch.bincount(fastnn.tensor([1, 5]), out=fastnn.zeros(5, dtype=fastnn.int64))
    with pytest.raises(ValueError, match="input holds 0, but y has room for 0 numbers"):
        fastnn._core.launch.bincount(fastnn.tensor([0]), out=fastnn.zeros(0, dtype=fastnn.int64))
    many = np.zeros(100_000, np.int64)  # counted in parts, of which two meet what is none
    many[[40_000, 90_000]] = -1, -2
    for threads in (1, 3):
        with forced_threads(threads), pytest.raises(ValueError, match="input holds -1, but"):
            fastnn._core.launch.bincount(fastnn.tensor(many), out=fastnn.zeros(5, dtype=fastnn.int64))


@pytest.mark.parametrize("shape", [(), (7,), (30, 40), (2, 3, 4, 5)])
def test_a_mask_over_all_axes(shape):
    x, mask = np.random.default_rng(2).standard_normal(shape), np.random.default_rng(3).random(shape) > 0.5
    for t in (fastnn.tensor(x, requires_grad=True), fastnn.tensor(x.T, requires_grad=True).permute(*range(x.ndim)[::-1])):
        for key in (mask, fastnn.tensor(mask)):
            np.testing.assert_array_equal(t[key].detach().numpy(), x[mask])
    t = fastnn.tensor(x, requires_grad=True)
    t[mask].sum().backward()
    np.testing.assert_array_equal(t.grad.numpy(), mask)
