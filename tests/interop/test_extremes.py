"""Bounds, orders, axes and shapes at their extremes, where PyTorch takes the same call: the same numbers."""

import math

import numpy as np
import pytest

import fastnn
import fastnn.functional as F

torch = pytest.importorskip("torch")

_VALUES = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)


def _same(ours, theirs):
    assert tuple(ours.shape) == tuple(theirs.shape)
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bounds", [{"min": math.nan}, {"max": math.nan}, {"min": 0.0, "max": math.nan}, {"min": math.nan, "max": 0.0}])
def test_bounds_that_are_nan(bounds):
    x, y = fastnn.tensor(_VALUES, requires_grad=True), torch.tensor(_VALUES, requires_grad=True)
    _same(F.clamp(x, **bounds), torch.clamp(y, **bounds))
    _same(x.detach().clone().clamp_(**bounds), y.detach().clone().clamp_(**bounds))


@pytest.mark.parametrize("p", [1.5, 3.0, 50.0, 1e39, math.inf])
def test_orders_of_distances(p):
    x, other = _VALUES, _VALUES[::-1].copy()
    if p < 1e9:
        _same(F.pairwise_distance(fastnn.tensor(x), fastnn.tensor(other), p=p),
              torch.pairwise_distance(torch.tensor(x, dtype=torch.float64), torch.tensor(other, dtype=torch.float64), p=p))
    _same(F.cdist(fastnn.tensor(x), fastnn.tensor(other), p=p), torch.cdist(torch.tensor(x), torch.tensor(other), p=p))
    _same(F.pdist(fastnn.tensor(x), p=p), torch.nn.functional.pdist(torch.tensor(x), p=p))


def test_indices_without_axes():
    for dim in (0, 1):
        _same(F.index_select(fastnn.tensor(_VALUES), dim, fastnn.tensor(2)),
              torch.index_select(torch.tensor(_VALUES), dim, torch.tensor(2)))


@pytest.mark.parametrize("function", ["sum", "any", "all", "amax", "nansum"])
def test_axes_of_0d_tensors(function):
    x, y = fastnn.tensor(3.0), torch.tensor(3.0)
    for dim in (0, -1):
        _same(getattr(x, function)(dim=dim), getattr(y, function)(dim=dim))
    for dim in (1, -2, 2**40):
        for wrong in (x, y):
            with pytest.raises(IndexError):
                getattr(wrong, function)(dim=dim)


@pytest.mark.parametrize("shape", [(2, 4, 6, 0), (0, 4, 2, 2), (2, 0, 6, 6), (0, 0, 0, 0)])
def test_pixels_of_nothing(shape):
    x = np.zeros(shape, np.float32)
    _same(F.pixel_shuffle(fastnn.tensor(x), 2), torch.nn.functional.pixel_shuffle(torch.tensor(x), 2))
    n, c, h, w = shape
    assert F.pixel_unshuffle(fastnn.tensor(x), 2).shape == (n, 4 * c, h // 2, w // 2)  # PyTorch leaves what is empty as it is


@pytest.mark.parametrize("diagonal", [0, 1, -1, 9, -9, 2**62, -2**62])
def test_diagonals_far_away(diagonal):
    for name in ("tril", "triu"):
        _same(getattr(fastnn, name)(fastnn.tensor(_VALUES), diagonal), getattr(torch, name)(torch.tensor(_VALUES), diagonal))
        indices = f"{name}_indices"
        for extents in ((3, 4), (4, 3), (0, 3), (3, 0)):
            _same(getattr(fastnn, indices)(*extents, diagonal), getattr(torch, indices)(*extents, diagonal))


@pytest.mark.parametrize("options", [{}, {"padding": 1}, {"stride": 2, "dilation": (1, 2)}, {"padding": (0, 2), "stride": (2, 1)}])
def test_windows_of_infinities(options):
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 7)).astype(np.float32)
    x[0, 0, 2, 3], x[1, 2, 0, 0], x[1, 1, 5, 6] = np.inf, -np.inf, np.nan
    ours, theirs = fastnn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    windows, others = F.unfold(ours, (2, 3), **options), torch.nn.functional.unfold(theirs, (2, 3), **options)
    np.testing.assert_array_equal(windows.detach().numpy(), others.detach().numpy())
    _same(F.fold(windows.detach(), (6, 7), (2, 3), **options), torch.nn.functional.fold(others.detach(), (6, 7), (2, 3), **options))
    windows.sum().backward()
    others.sum().backward()
    _same(ours.grad, theirs.grad)


@pytest.mark.parametrize("value", [1e18, -2.7, 3.0, 5])
def test_masked_fill_leaves_large_integers_as_they_are(value):
    x, mask = np.array([2**60 + 1, 7, -2**61 - 3]), np.array([False, True, False])
    np.testing.assert_array_equal(F.masked_fill(fastnn.tensor(x), fastnn.tensor(mask), value).numpy(),
                                  torch.masked_fill(torch.tensor(x), torch.tensor(mask), value).numpy())
