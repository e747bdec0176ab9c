"""Batch normalisation beyond the OpSpec list: accuracy, running statistics, layers, errors, threads and layouts."""

import numpy as np
import pytest

import fastnn
from fastnn import _core, nn
from fastnn._core import launch
from fastnn.ops import norm
from fastnn.testing.checks import forced_threads

pytestmark = pytest.mark.usefixtures("isa")


@pytest.mark.parametrize("shape", [(64, 3), (16, 24, 50), (8, 70, 30, 31), (2, 3, 200, 201)])
@pytest.mark.parametrize("offset", [0, 100, 1e4])
def test_variance_is_accurate_far_from_zero(shape, offset):
    x = (offset + np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
    axes = (0, *range(2, len(shape)))
    _, mean, var, rstd = launch.batch_norm_forward(fastnn.tensor(x), None, None, eps=1e-5)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(mean.numpy(), exact.mean(axes), rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(var.numpy(), exact.var(axes), rtol=1e-6)
    np.testing.assert_allclose(rstd.numpy(), 1 / np.sqrt(exact.var(axes) + 1e-5), rtol=1e-6)


def test_a_constant_channel_has_variance_zero():
    y, mean, var, _ = launch.batch_norm_forward(fastnn.full((8, 5, 7, 7), 3.3), None, None, eps=1e-5)
    assert not var.numpy().any() and not y.numpy().any()
    np.testing.assert_array_equal(mean.numpy(), np.full(5, 3.3, np.float32))


def test_nan_stays_in_its_channel():
    x = np.random.default_rng(1).standard_normal((4, 37, 5, 5)).astype(np.float32)
    x[2, 20, 3, 3] = np.nan
    y = norm.batch_norm(fastnn.tensor(x), None, None, training=True).numpy()
    assert np.isnan(y[:, 20]).all() and np.isnan(y).sum() == y[:, 20].size


@pytest.mark.parametrize("shape", [(600, 40), (6, 20, 333), (5, 37, 40, 41), (3, 130, 30, 31), (3, 9, 6, 20, 21)])
@pytest.mark.parametrize("training", [True, False])
def test_same_bits_for_any_threads_and_layout(shape, training):
    rng = np.random.default_rng(2)
    channels = shape[1]
    x, dy = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    mean, weight, bias = (rng.standard_normal(channels).astype(np.float32) for _ in range(3))
    var = rng.uniform(0.5, 2, channels).astype(np.float32)

    def transposed(array):  # channels innermost for rank 4, outermost otherwise
        order = (0, 2, 3, 1) if array.ndim == 4 else (1, 0, *range(2, array.ndim))
        return fastnn.from_numpy(np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order)))

    results = []
    for make in (fastnn.tensor, transposed):
        for threads in (1, 2, 3, 8):
            with forced_threads(threads):
                leaves = [make(x), fastnn.tensor(weight), fastnn.tensor(bias)]
                for leaf in leaves:
                    leaf.requires_grad = True
                statistics = (None, None) if training else (fastnn.tensor(mean), fastnn.tensor(var))
                y = norm.batch_norm(leaves[0], *statistics, *leaves[1:], training=training)
                y.backward(make(dy))
                if x.size > 100000:
                    assert threads == 1 or _core.last_workers() > 1
                results.append([a.tobytes() for a in (y.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves))])
    assert all(r == results[0] for r in results)


def test_results_too_large_for_the_caches():
    rng = np.random.default_rng(9)
    x, dy = (fastnn.from_numpy(rng.standard_normal((4, 256, 260, 32), np.float32).transpose(0, 3, 1, 2))
             for _ in range(2))
    y, mean, var, rstd = launch.batch_norm_forward(x, None, None, eps=1e-5)
    dx, _, _ = launch.batch_norm_backward(dy, x, mean, rstd, None, training=True)
    assert y.nbytes > 1 << 25
    some = slice(None, None, 11)  # channels: what streams is whole lines of them, and each is in some line
    values, g = (t.numpy()[:, some].astype(np.float64) for t in (x, dy))
    axes = (0, 2, 3)
    d = (values - values.mean(axes, keepdims=True)) / np.sqrt(values.var(axes, keepdims=True) + 1e-5)
    np.testing.assert_allclose(y.numpy()[:, some], d, rtol=1e-5, atol=1e-6)
    expected = g - g.mean(axes, keepdims=True) - d * (g * d).mean(axes, keepdims=True)
    expected /= np.sqrt(values.var(axes, keepdims=True) + 1e-5)
    np.testing.assert_allclose(dx.numpy()[:, some], expected, rtol=1e-4, atol=1e-5)


def test_captured_steps_move_the_statistics_as_eager_ones():
    batches = [fastnn.tensor(np.random.default_rng(k).standard_normal((4, 3, 5, 5)).astype(np.float32))
               for k in range(5)]
    states = []
    for wrap in (lambda step: step, fastnn.capture):
        layers = nn.Sequential(nn.BatchNorm2d(3), nn.MaxPool2d(2), nn.BatchNorm2d(3, momentum=None))
        step = wrap(lambda x: layers(x).sum())
        for batch in batches:
            step(batch)
        states.append(layers.state_dict())
    for name, value in states[0].items():
        np.testing.assert_array_equal(states[1][name].numpy(), value.numpy(), err_msg=name)
    assert states[1]["2.num_batches_tracked"].item() == 5


def test_strided_parameters_and_outputs():
    rng = np.random.default_rng(3)
    x = fastnn.tensor(rng.standard_normal((4, 6, 5, 5)).astype(np.float32))
    weight, bias = (fastnn.tensor(rng.standard_normal(12).astype(np.float32))[::-2] for _ in range(2))
    expected = launch.batch_norm_forward(x, launch.copy(weight, dtype=-1), launch.copy(bias, dtype=-1), eps=1e-5)
    out = (fastnn.zeros(6, 4, 5, 10).permute(1, 0, 2, 3)[..., ::2], *(fastnn.zeros(12)[::2] for _ in range(3)))
    launch.batch_norm_forward(x, weight, bias, eps=1e-5, out=out)
    for a, e in zip(out, expected):
        np.testing.assert_array_equal(a.numpy(), e.numpy())


def test_running_statistics_follow_the_batches():
    rng = np.random.default_rng(4)
    layer = nn.BatchNorm2d(3, momentum=0.25)
    mean, var = np.zeros(3), np.ones(3)
    for batch in range(3):
        x = (1 + 2 * rng.standard_normal((4, 3, 5, 5))).astype(np.float32)
        layer(fastnn.tensor(x))
        exact = x.astype(np.float64)
        mean = 0.75 * mean + 0.25 * exact.mean((0, 2, 3))
        var = 0.75 * var + 0.25 * exact.var((0, 2, 3), ddof=1)
        assert layer.num_batches_tracked.item() == batch + 1
    np.testing.assert_allclose(layer.running_mean.numpy(), mean, rtol=1e-5)
    np.testing.assert_allclose(layer.running_var.numpy(), var, rtol=1e-5)
    layer.eval()
    y = layer(fastnn.tensor(x)).detach().numpy()
    expected = (exact - mean.reshape(1, 3, 1, 1)) / np.sqrt(var.reshape(1, 3, 1, 1) + 1e-5)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    assert layer.num_batches_tracked.item() == 3


@pytest.mark.parametrize("momentum", [None, 1, 0])
def test_special_momenta(momentum):
    rng = np.random.default_rng(5)
    layer = nn.BatchNorm1d(4, momentum=momentum)
    means = []
    for _ in range(3):
        x = rng.standard_normal((16, 4)).astype(np.float32)
        layer(fastnn.tensor(x))
        means.append(x.astype(np.float64).mean(0))
    expected = {None: np.mean(means, 0), 1: means[-1], 0: np.zeros(4)}[momentum]
    np.testing.assert_allclose(layer.running_mean.numpy(), expected, rtol=1e-5, atol=1e-7)


def test_without_tracking_evaluation_uses_the_batch():
    x = fastnn.tensor(np.random.default_rng(6).standard_normal((5, 4)).astype(np.float32))
    layer = nn.BatchNorm1d(4, affine=False, track_running_stats=False)
    y = layer(x).numpy()
    np.testing.assert_array_equal(layer.eval()(x).numpy(), y)
    assert not list(layer.parameters()) and not list(layer.buffers())


def test_state_dict_has_pytorchs_names():
    state = nn.BatchNorm2d(3).state_dict()
    assert list(state) == ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert state["num_batches_tracked"].dtype is fastnn.int64 and state["num_batches_tracked"].shape == ()


def test_lazy_layers_take_their_width_from_the_input():
    for lazy, becomes, shape in ((nn.LazyBatchNorm1d, nn.BatchNorm1d, (4, 6)),
                                 (nn.LazyBatchNorm2d, nn.BatchNorm2d, (2, 6, 3, 3))):
        layer = lazy(momentum=0.5)
        layer(fastnn.tensor(np.random.default_rng(7).standard_normal(shape).astype(np.float32)))
        assert type(layer) is becomes and layer.num_features == 6 and layer.weight.shape == (6,)
        assert layer.num_batches_tracked.item() == 1 and np.all(layer.weight.detach().numpy() == 1)
        loaded = lazy()
        loaded.load_state_dict(layer.state_dict())
        assert type(loaded) is becomes and loaded.num_features == 6
        np.testing.assert_array_equal(loaded.running_mean.numpy(), layer.running_mean.numpy())


def test_double():
    layer = nn.BatchNorm1d(4).double()
    x = np.random.default_rng(8).standard_normal((5, 4))
    np.testing.assert_allclose(layer(fastnn.tensor(x)).detach().numpy(), (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5),
                               rtol=1e-12)


def test_an_empty_batch_in_evaluation():
    layer = nn.BatchNorm2d(3).eval()
    x = fastnn.zeros(0, 3, 4, 4, requires_grad=True)
    y = layer(x)
    y.backward(fastnn.zeros(0, 3, 4, 4))
    assert y.shape == x.grad.shape == (0, 3, 4, 4)
    np.testing.assert_array_equal(layer.weight.grad.numpy(), np.zeros(3))


@pytest.mark.parametrize("call, message", [
    (lambda: norm.batch_norm(fastnn.zeros(1, 5), None, None, training=True),
     "more than 1 value per channel when training.*\\(1, 5\\)"),
    (lambda: norm.batch_norm(fastnn.zeros(0, 5, 2, 2), None, None, training=True), "more than 1 value per channel"),
    (lambda: norm.batch_norm(fastnn.zeros(5), None, None, training=True), "2 to 5 dimensions"),
    (lambda: norm.batch_norm(fastnn.zeros(4, 5), None, None, fastnn.zeros(4), training=True),
     "'weight' has shape \\(4,\\)"),
    (lambda: norm.batch_norm(fastnn.zeros(4, 5), None, None), "running_mean and running_var are needed"),
    (lambda: norm.batch_norm(fastnn.zeros(4, 5), fastnn.zeros(5), fastnn.zeros(4)), "'var' has shape \\(4,\\)"),
    (lambda: nn.BatchNorm2d(3)(fastnn.zeros(4, 3)), "must be \\(N, C, H, W\\) with C = 3"),
    (lambda: nn.BatchNorm1d(3)(fastnn.zeros(4, 2)), "input has shape \\(4, 2\\)"),
    (lambda: nn.BatchNorm1d(3, momentum=2), "momentum is 2"),
])
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("shape, dims", [((3, 0), (0,)), ((0, 3), (3,)), ((2, 0, 3), (0, 3)), ((2, 0, 3), (3,))])
def test_rows_of_nothing(shape, dims):
    for function in (norm.layer_norm, norm.rms_norm):
        x, weight = fastnn.ones(*shape, requires_grad=True), fastnn.ones(*dims, requires_grad=True)
        y = function(x, dims, weight)
        y.sum().backward()
        assert y.shape == shape and x.grad.shape == shape and weight.grad.shape == dims
        assert not weight.grad.numpy().any()


def test_groups_are_at_most_the_channels():
    with pytest.raises(ValueError, match="must be at least 1 and divide the 0 channels"):
        launch.group_norm_forward(fastnn.zeros(2, 0, 3), None, None, groups=5, eps=1e-5)
    assert launch.group_norm_forward(fastnn.zeros(2, 0, 3), None, None, groups=1, eps=1e-5)[1].shape == (2, 1)
