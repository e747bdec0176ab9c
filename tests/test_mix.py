"""Mixup and CutMix: shares, targets, rectangles, seeds, captured steps, errors."""

import numpy as np
import pytest

import fastnn
from fastnn.data import CutMix, Mixup
from fastnn.data.mix import beta_quantiles
from fastnn.program import capture


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.5, 1.0, 2.0, 5.0])
def test_quantiles_of_beta(alpha):
    q = beta_quantiles(alpha)
    assert q[0] == 0 and q[-1] == 1 and q[512] == pytest.approx(0.5) and (np.diff(q) >= 0).all()
    draws = np.sort(np.random.default_rng(0).beta(alpha, alpha, 400_000))
    below = np.searchsorted(draws, q[1:513]) / draws.size
    np.testing.assert_allclose(below, np.arange(1, 513) / 1024, atol=0.004)  # 5 standard deviations of that count
    np.testing.assert_allclose(q, 1 - q[::-1], atol=1e-15)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("alpha", [2e3, 1e6, 1e12])
def test_quantiles_of_a_great_alpha(alpha):
    """Nearly normal about 0.5, with the variance 1 / (8 alpha + 4)."""
    q = beta_quantiles(alpha)
    assert np.isfinite(q).all() and q[512] == pytest.approx(0.5) and (np.diff(q) >= 0).all()
    assert q[870] - 0.5 == pytest.approx(1.036 / np.sqrt(8 * alpha + 4), rel=0.03, abs=2e-5)


def batch(n=6, shape=(3, 8, 10), seed=0):
    """Every pixel of image i is i + 1, so that a mixture says where it comes from."""
    x = np.broadcast_to(np.arange(1.0, n + 1).reshape(n, *(1,) * len(shape)), (n, *shape)).astype(np.float32)
    return fastnn.tensor(np.ascontiguousarray(x)), fastnn.tensor(np.arange(n) % 4)


def test_mixup_mixes_values_and_targets_alike():
    fastnn.manual_seed(3)
    x, y = batch()
    mix, shares = Mixup(4, alpha=1.0), []
    for _ in range(200):
        mixed, target = (t.numpy() for t in mix(x, y))
        assert mixed.shape == (6, 3, 8, 10) and target.shape == (6, 4)
        np.testing.assert_allclose(target.sum(1), 1, rtol=1e-6)
        values = mixed.reshape(6, -1)
        assert np.ptp(values, axis=1).max() < 1e-5  # all pixels of an image in one proportion
        other = [k for k in range(6) if abs(values[k, 0] - (k + 1)) > 1e-3]
        if other and 0.05 < target[0].max() < 0.95:
            shares.append(target[0].max())
        np.testing.assert_allclose(values[:, 0].sum(), 21, rtol=1e-5)  # the other order is a permutation
    assert len(shares) > 50 and np.ptp(shares) > 0.3


def test_cutmix_replaces_a_rectangle_and_counts_its_area():
    fastnn.manual_seed(4)
    x, y = batch()
    mix, areas = CutMix(4), []
    for _ in range(200):
        mixed, target = (t.numpy() for t in mix(x, y))
        foreign = mixed[0, 0] != 1
        rows, columns = foreign.any(1), foreign.any(0)
        np.testing.assert_array_equal(foreign, rows[:, None] & columns)
        assert (np.diff(np.flatnonzero(rows)) == 1).all() and (np.diff(np.flatnonzero(columns)) == 1).all()
        assert (mixed == mixed[:, :1]).all()
        if foreign.any() and int(mixed[0, 0][foreign][0] - 1) % 4:
            assert target[0, 0] == pytest.approx(1 - foreign.mean(), abs=1e-6)
            areas.append(foreign.mean())
    assert len(areas) > 50 and np.ptp(areas) > 0.4


@pytest.mark.parametrize("kind", [Mixup, CutMix])
def test_captured_mixing_draws_what_eager_mixing_draws(kind):
    x, y = batch()

    def run(wrap):
        fastnn.manual_seed(5)
        mix = kind(4)
        step = wrap(lambda x, y: mix(x, y))
        return [tuple(t.numpy().tobytes() for t in step(x, y)) for _ in range(6)]

    eager = run(lambda step: step)
    assert run(capture) == eager and len(set(eager)) == 6
    assert run(lambda step: step) == eager


def test_probabilities_are_mixed_as_they_are():
    x, _ = batch()
    p = np.random.default_rng(0).dirichlet(np.ones(4), 6).astype(np.float32)
    _, target = Mixup(4, 1.0, fastnn.Generator(1))(x, p)
    np.testing.assert_allclose(target.numpy().sum(0), p.sum(0), rtol=1e-5)
    assert np.abs(target.numpy() - p).max() > 0.01


@pytest.mark.parametrize("call, error, message", [
    (lambda x, y: Mixup(0), ValueError, "Mixup: num_classes is 0, but must be an integer of at least 1"),
    (lambda x, y: Mixup(4, 0), ValueError, "Mixup: alpha is 0, but must be a number above 0"),
    (lambda x, y: CutMix(4, -1), ValueError, "CutMix: alpha is -1"),
    (lambda x, y: CutMix(4, generator=3), TypeError, "generator is a int"),
    (lambda x, y: Mixup(4)(x.numpy(), y), TypeError, "Mixup: x is a ndarray, but must be a tensor of floating-point numbers"),
    (lambda x, y: CutMix(4)(x.to(fastnn.uint8), y), TypeError, "CutMix: x has dtype uint8, but must be a tensor of floating"),
    (lambda x, y: Mixup(4)(x, y[:3]), ValueError, r"Mixup: y has shape \(3,\), but must be \(6,\)"),
    (lambda x, y: Mixup(4)(x, np.ones((6, 5))), ValueError, r"y has shape \(6, 5\), but must be \(6,\) or \(6, 4\)"),
    (lambda x, y: Mixup(3)(x, y), IndexError, "is 3, but must lie between 0 and 2"),
    (lambda x, y: CutMix(4)(x.reshape(6, -1), y), ValueError,
     r"CutMix: x has shape \(6, 240\), but must be \(N, C, H, W\)")])
def test_errors_say_what_is_allowed(call, error, message):
    with pytest.raises(error, match=message):
        call(*batch())
