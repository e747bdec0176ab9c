"""Maps seen through grids against PyTorch, over all options."""

import itertools

import numpy as np
import pytest

import fastnn
import fastnn.functional as F

torch = pytest.importorskip("torch")
TF = torch.nn.functional


def both(function, peer, arrays, rtol=1e-9):
    ours = [fastnn.tensor(a, requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, z = function(*ours), peer(*theirs)
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=rtol, atol=rtol)
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(arrays[0].dtype)
    y.backward(fastnn.tensor(dy))
    z.backward(torch.tensor(dy))
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=rtol, atol=10 * rtol)


@pytest.mark.parametrize("mode, padding_mode, align_corners", list(itertools.product(
    ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection"), (False, True))))
def test_grid_sample(mode, padding_mode, align_corners):
    rng = np.random.default_rng(0)
    for shape, size in (((2, 3, 5, 6), (8, 9)), ((1, 20, 7, 4), (5, 3)), ((2, 1, 1, 6), (4, 4))):
        x, grid = rng.standard_normal(shape), rng.uniform(-3, 3, (shape[0], *size, 2))
        both(lambda a, b: F.grid_sample(a, b, mode, padding_mode, align_corners),
             lambda a, b: TF.grid_sample(a, b, mode, padding_mode, align_corners), [x, grid])
    x, grid = rng.standard_normal((1, 5, 30, 40)).astype(np.float32), rng.uniform(-1, 1, (1, 20, 20, 2)).astype(np.float32)
    both(lambda a, b: F.grid_sample(a, b, mode, padding_mode, align_corners),
         lambda a, b: TF.grid_sample(a, b, mode, padding_mode, align_corners), [x, grid], 2e-4)


@pytest.mark.parametrize("align_corners", [False, True])
def test_a_spatial_transformer(align_corners):
    rng = np.random.default_rng(0)
    x, theta = rng.standard_normal((2, 3, 6, 7)), rng.standard_normal((2, 2, 3))
    for size in ((2, 3, 6, 7), (2, 3, 2 if align_corners else 1, 4)):
        both(lambda a: F.affine_grid(a, size, align_corners), lambda a: TF.affine_grid(a, size, align_corners), [theta])
        both(lambda a, b: F.grid_sample(a, F.affine_grid(b, size, align_corners), align_corners=align_corners),
             lambda a, b: TF.grid_sample(a, TF.affine_grid(b, size, align_corners), align_corners=align_corners), [x, theta])
