"""Pooling and batch normalisation give what PyTorch gives, over all options."""

import itertools

import numpy as np
import pytest

import fastnn
from fastnn import nn
from fastnn.ops import fractional_pool, norm, pool

torch = pytest.importorskip("torch")
F = torch.nn.functional

MAPS = [(2, 6, 9, 8), (1, 16, 7, 7), (2, 67, 5, 6), (1, 1, 3, 3), (0, 3, 6, 6)]
KERNELS, STRIDES, PADDINGS = [2, 3, (2, 3)], [None, 1, (1, 2), 3], [0, 1, (1, 0)]


@pytest.fixture(autouse=True)
def one_thread():
    """Small calls by the hundred: two pools of threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def data(shape, seed=0):
    """Few distinct values (ties) and some NaN."""
    x = np.round(np.random.default_rng(seed).standard_normal(shape) * 4).astype(np.float32) / 4
    x.flat[::97] = np.nan
    return x


def both(x, ours, theirs):
    """Outputs and the input's gradient of both, asserted equal to rounding."""
    a, b = fastnn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, expected = ours(a), theirs(b)
    if isinstance(y, tuple):
        np.testing.assert_array_equal(y[1].numpy(), expected[1].numpy())
        y, expected = y[0], expected[0]
    np.testing.assert_allclose(y.detach().numpy(), expected.detach().numpy(), rtol=1e-5, atol=1e-6)
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(np.float32)
    y.backward(fastnn.tensor(dy))
    expected.backward(torch.tensor(dy))
    np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", MAPS)
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_max_pool2d(shape, ceil_mode):
    x = data(shape)
    for k, s, p, d in itertools.product(KERNELS, STRIDES, PADDINGS, [1, (2, 1)]):
        try:
            F.max_pool2d(torch.tensor(x), k, s, p, d, ceil_mode)
        except RuntimeError:
            with pytest.raises(ValueError):
                pool.max_pool2d(fastnn.tensor(x), k, s, p, d, ceil_mode)
            continue
        if d == 1:
            both(x, lambda t: pool.max_pool2d(t, k, s, p, d, ceil_mode, True),
                 lambda t: F.max_pool2d(t, k, s, p, d, ceil_mode, True))
        else:  # a window wholly in the padding has no position: PyTorch names one outside the map
            np.testing.assert_array_equal(pool.max_pool2d(fastnn.tensor(x), k, s, p, d, ceil_mode).numpy(),
                                          F.max_pool2d(torch.tensor(x), k, s, p, d, ceil_mode).numpy())


@pytest.mark.parametrize("shape", MAPS)
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_avg_pool2d(shape, ceil_mode):
    x = data(shape)
    for k, s, p, include, divisor in itertools.product(KERNELS, STRIDES, PADDINGS, [False, True], [None, 3, -2]):
        try:
            F.avg_pool2d(torch.tensor(x), k, s, p, ceil_mode, include, divisor)
        except RuntimeError:
            with pytest.raises(ValueError):
                pool.avg_pool2d(fastnn.tensor(x), k, s, p, ceil_mode, include, divisor)
            continue
        both(x, lambda t: pool.avg_pool2d(t, k, s, p, ceil_mode, include, divisor),
             lambda t: F.avg_pool2d(t, k, s, p, ceil_mode, include, divisor))


@pytest.mark.parametrize("shape", MAPS)
@pytest.mark.parametrize("size", [1, (2, 3), 5, (None, 11), (9, None)])
def test_adaptive_pooling(shape, size):
    x = data(shape)
    both(x, lambda t: pool.adaptive_max_pool2d(t, size, True), lambda t: F.adaptive_max_pool2d(t, size, True))
    both(x, lambda t: pool.adaptive_avg_pool2d(t, size), lambda t: F.adaptive_avg_pool2d(t, size))


@pytest.mark.parametrize("shape", [(7, 5), (64, 100), (4, 6, 11), (3, 17, 8, 9), (2, 5, 3, 4, 6)])
@pytest.mark.parametrize("affine, track, momentum",
                         [(True, True, 0.1), (False, True, None), (True, False, 0.1), (True, True, 1.0)])
def test_batch_norm_layers(shape, affine, track, momentum):
    channels, rng = shape[1], np.random.default_rng(2)
    kind = "BatchNorm2d" if len(shape) == 4 else "BatchNorm1d" if len(shape) < 4 else None
    if kind is None:
        x = rng.standard_normal(shape).astype(np.float32)
        both(x, lambda t: norm.batch_norm(t, None, None, training=True),
             lambda t: F.batch_norm(t, None, None, training=True))
        return
    ours = getattr(nn, kind)(channels, 1e-3, momentum, affine, track)
    theirs = getattr(torch.nn, kind)(channels, 1e-3, momentum, affine, track)
    if affine:
        with torch.no_grad():
            theirs.weight.copy_(torch.tensor(rng.uniform(0.5, 2, channels)))
            theirs.bias.copy_(torch.tensor(rng.standard_normal(channels)))
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    for mode in (True, True, False):
        ours.train(mode)
        theirs.train(mode)
        x = (3 + 2 * rng.standard_normal(shape)).astype(np.float32)
        both(x, ours, theirs)
        for name, value in theirs.named_parameters():
            np.testing.assert_allclose(dict(ours.named_parameters())[name].grad.numpy(), value.grad.numpy(), rtol=1e-4,
                                       atol=1e-4)
        for name, value in theirs.state_dict().items():
            np.testing.assert_allclose(ours.state_dict()[name].numpy(), value.numpy(), rtol=1e-5, atol=1e-6,
                                       err_msg=name)


@pytest.mark.parametrize("kernel, options", [
    (2, {"output_size": (4, 3)}), ((3, 2), {"output_size": (2, 5)}), (2, {"output_ratio": (0.5, 0.7)}), (1, {"output_size": 1})])
def test_fractional_max_pool2d(kernel, options):
    samples = np.random.default_rng(1).uniform(0, 1, (2, 6, 2)).astype(np.float32)
    for images in (slice(None), 0):
        x = np.round(np.random.default_rng(0).standard_normal((2, 6, 9, 8)) * 4).astype(np.float32)[images]
        u = samples[images] if images != 0 else samples[:1]
        for indices in (False, True):
            both(x, lambda t: fractional_pool.fractional_max_pool2d(t, kernel, **options, return_indices=indices,
                                                                    _random_samples=u),
                 lambda t: F.fractional_max_pool2d(t, kernel, **options, return_indices=indices,
                                                   _random_samples=torch.tensor(u)))
