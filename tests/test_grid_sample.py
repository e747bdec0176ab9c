"""Maps seen through grids: the plain grid shows the map, odd places, wrong arguments, steps."""

import itertools

import numpy as np
import pytest

import fastnn
import fastnn.functional as F

RNG = np.random.default_rng(0)
PLAIN = [[[1.0, 0, 0], [0, 1, 0]]]


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("align_corners", [False, True])
def test_the_plain_grid_shows_the_map(mode, align_corners):
    x = fastnn.tensor(RNG.standard_normal((1, 3, 5, 6)))
    grid = F.affine_grid(fastnn.tensor(PLAIN, "float64"), x.shape, align_corners)
    np.testing.assert_allclose(F.grid_sample(x, grid, mode, align_corners=align_corners).numpy(), x.numpy(), atol=1e-12)


def test_a_turned_map():
    x = fastnn.tensor(RNG.standard_normal((1, 2, 4, 4)))
    turn = fastnn.tensor([[[0.0, 1, 0], [-1, 0, 0]]], "float64")  # the result's x is the map's -y
    y = F.grid_sample(x, F.affine_grid(turn, x.shape), "nearest")
    np.testing.assert_array_equal(y.numpy(), np.rot90(x.numpy(), -1, (2, 3)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mode, padding_mode, align_corners", list(itertools.product(
    ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection"), (False, True))))
def test_places_far_away_and_none(mode, padding_mode, align_corners, dtype):
    """Infinite and huge places are outside; NaN counts as -1."""
    odd = [np.nan, np.inf, -np.inf, 3e38, -3e38, 1e18, -1e18, 0.0, -0.0, 1e-45]
    grid = fastnn.tensor(np.array(list(itertools.product(odd, odd))).reshape(1, 10, 10, 2), dtype, requires_grad=True)
    x = fastnn.tensor(RNG.uniform(1, 2, (1, 2, 3, 5)), dtype, requires_grad=True)
    y = F.grid_sample(x, grid, mode, padding_mode, align_corners)
    y.sum().backward()
    assert all(np.isfinite(t.numpy()).all() for t in (y.detach(), x.grad, grid.grad))
    if padding_mode == "zeros":
        assert not y.detach().numpy()[:, :, 1:7].any() and not y.detach().numpy()[..., 1:7].any()
    corner = F.grid_sample(x, fastnn.tensor([[[[-1.0, -1.0]]]], dtype), mode, padding_mode, align_corners)
    np.testing.assert_array_equal(y.detach().numpy()[0, :, 0, 0], corner.detach().numpy()[0, :, 0, 0])


@pytest.mark.parametrize("call, message", [
    (lambda x, g: F.grid_sample(x, g, "cubic"), "mode is 'cubic' and padding_mode 'zeros', but they must be"),
    (lambda x, g: F.grid_sample(x, g, padding_mode="wrap"), "padding_mode 'wrap'"),
    (lambda x, g: F.grid_sample(x[0], g), r"x has shape \(3, 4, 5\), but must be \(N, C, H, W\)"),
    (lambda x, g: F.grid_sample(x[:, :, :0], g), "with at least one pixel"),
    (lambda x, g: F.grid_sample(x, g[:1]), r"grid has shape \(1, 2, 2, 2\), but must be \(2, OH, OW, 2\)"),
    (lambda x, g: F.grid_sample(x, g[..., :1]), r"grid has shape \(2, 2, 2, 1\)"),
    (lambda x, g: F.affine_grid(x, (2, 3, 4, 5)), r"theta has shape \(2, 3, 4, 5\), but must be \(2, 2, 3\)"),
    (lambda x, g: F.affine_grid(fastnn.ones(2, 2, 3), (2, 4, 5)), r"size is \(2, 4, 5\), but must be \(N, C, H, W\)"),
    (lambda x, g: F.affine_grid(fastnn.ones(2, 2, 3), (2, 3, 0, 5)), "an element of size is 0")])
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(fastnn.ones(2, 3, 4, 5), fastnn.ones(2, 2, 2, 2))


def test_a_captured_step():
    theta = fastnn.tensor(RNG.standard_normal((2, 2, 3)).astype(np.float32), requires_grad=True)

    def step(x):
        theta.grad = None
        y = F.grid_sample(x, F.affine_grid(theta, (2, 3, 5, 5)), "bicubic", "reflection")
        (y * y).sum().backward()
        return y

    program = fastnn.capture(step)
    for _ in range(4):
        x = fastnn.tensor(RNG.standard_normal((2, 3, 6, 4)).astype(np.float32))
        expected, gradient = step(x).detach().numpy().tobytes(), theta.grad.numpy().tobytes()
        assert program(x).detach().numpy().tobytes() == expected and theta.grad.numpy().tobytes() == gradient
