"""Layers beyond the list: random ones drop what they say, shortcuts, statistics over a data set, wrong arguments."""

import numpy as np
import pytest

import fastnn
from fastnn import nn


@pytest.mark.parametrize("layer, shape", [(nn.Dropout1d(0.3), (200, 40, 6)), (nn.Dropout2d(0.3), (100, 40, 3, 4)),
                                          (nn.Dropout2d(0.3), (4000, 2, 2))])
def test_whole_channels_are_dropped(layer, shape):
    y = layer(fastnn.ones(*shape)).numpy().reshape(-1, int(np.prod(shape[-1:] if isinstance(layer, nn.Dropout1d) else shape[-2:])))
    assert (y == y[:, :1]).all() and set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.7)}
    assert abs((y[:, 0] == 0).mean() - 0.3) < 0.03
    assert (layer.eval()(fastnn.ones(*shape)).numpy() == 1).all()


def test_dropped_weights_are_drawn_anew_and_the_parameter_stays():
    layer = nn.DropConnect(nn.Linear(50, 40, bias=False), 0.25)
    weight, x = layer.module.weight, fastnn.eye(50)
    first, second = layer(x).detach().numpy(), layer(x).detach().numpy()
    assert (first != second).any() and abs((first == 0).mean() - 0.25) < 0.04
    np.testing.assert_allclose(first[first != 0], (weight.detach().numpy().T / 0.75)[first != 0], rtol=1e-6)
    assert layer.module.weight is weight and list(layer.state_dict()) == ["module.weight"]
    layer(x).sum().backward()
    assert abs((weight.grad.numpy() == 0).mean() - 0.25) < 0.04
    np.testing.assert_array_equal(layer.eval()(x).detach().numpy(), weight.detach().numpy().T)


def test_noise_has_the_deviation_asked_for():
    layer = nn.GaussianNoise(0.5)
    y = layer(fastnn.zeros(100, 1000)).numpy()
    assert abs(y.std() - 0.5) < 0.01 and abs(y.mean()) < 0.01
    assert not layer.eval()(fastnn.zeros(10)).numpy().any()


def test_shortcuts_that_do_not_fit_are_errors():
    with pytest.raises(ValueError, match="shortcut 'identity' does not"):
        nn.Residual(nn.Linear(5, 4))(fastnn.ones(2, 5))
    with pytest.raises(ValueError, match="shortcut is 'none'"):
        nn.Residual(nn.Linear(5, 5), "none")
    y = nn.Residual(nn.Linear(5, 4), nn.Linear(5, 4))(fastnn.ones(2, 5))
    assert y.shape == (2, 4)


def test_batch_statistics_are_exact():
    rng = np.random.default_rng(0)
    data = (5 + 3 * rng.standard_normal((70, 4))).astype(np.float32)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))
    batches = [fastnn.tensor(part) for part in np.split(data, [32, 64])]  # the last one is smaller
    model(batches[0])
    nn.recompute_batch_norm(model, [(b, None) for b in batches])
    hidden = model[0](fastnn.tensor(data)).detach().numpy().astype(np.float64)
    np.testing.assert_allclose(model[1].running_mean.numpy(), hidden.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model[1].running_var.numpy(), hidden.var(0, ddof=1), rtol=1e-5)
    assert model.training and model[2].training and model[1].momentum == 0.1
    with pytest.raises(ValueError, match="data is empty"):
        nn.recompute_batch_norm(model, [])


def test_captured_resampling_and_padding():
    layers = nn.Sequential(nn.ReflectionPad2d(1), nn.ConvTranspose2d(2, 3, 3, 2),
                           nn.Upsample(scale_factor=2, mode="bilinear"),
                           nn.LocalResponseNorm(3))
    step = fastnn.capture(lambda x: layers(x).sum())
    for k in range(4):
        x = fastnn.tensor(np.random.default_rng(k).standard_normal((2, 2, 4, 5)).astype(np.float32))
        assert float(step(x)) == float(layers(x).sum())
    assert step.replays == 2 and step.obstacle is None


@pytest.mark.parametrize("make, message", [
    (lambda: nn.ConvTranspose2d(2, 3, 3, 2, output_padding=2), "output_padding is 2, but must be less than stride 2"),
    (lambda: nn.Conv1d(4, 6, 3, padding_mode="mirror"), "padding_mode is 'mirror', but must be one of"),
    (lambda: nn.Conv1d(4, 6, 3, stride=2, padding="same"), "'same', which needs stride 1"),
    (lambda: nn.MaxPool1d(3, padding=2), "at most half"),
    (lambda: nn.Upsample(), "exactly one of size and scale_factor"),
    (lambda: nn.ReflectionPad2d((1, 2)), "must be an integer or 4 integers"),
    (lambda: nn.GaussianNoise(-1.0), "std is -1.0"),
    (lambda: nn.LocalResponseNorm(0), "size is 0"),
    (lambda: nn.LocallyConnected2d(1, 1, 2, 3), "must fit into input_size"),
    (lambda: nn.weight_norm(nn.Linear(2, 3), "kernel"), "must be a parameter of Linear: weight, bias"),
    (lambda: nn.DropConnect(nn.Linear(2, 3), 1.5), "p is 1.5"),
    (lambda: nn.ReflectionPad1d(5)(fastnn.ones(1, 1, 5)), "at most 4 on a side"),
    (lambda: fastnn.interpolate(fastnn.ones(1, 1, 4, 4), 8, mode="linear"), "mode is 'linear'"),
    (lambda: fastnn.interpolate(fastnn.ones(1, 1, 4, 4), 2, mode="area", antialias=True), "antialias goes with mode 'bilinear'"),
    (lambda: fastnn.max_unpool2d(fastnn.ones(1, 1, 2, 2), fastnn.full((1, 1, 2, 2), 16, "int64"), 2),
     r"indices\[0, 0, 0, 0\] is 16, but must be 0 to 15")])
def test_wrong_arguments_say_what_is_allowed(make, message):
    with pytest.raises((ValueError, IndexError), match=message):
        make()


@pytest.mark.parametrize("x1, x2, message", [((2, 3), (2, 5), r"input2 \(2, 5\)"), ((2, 3), (4, 4), r"input2 \(4, 4\)"),
                                             ((), (4,), r"input1 \(\)")])
def test_errors_of_bilinear(x1, x2, message):
    with pytest.raises(ValueError, match=message):
        nn.Bilinear(3, 4, 5)(fastnn.zeros(*x1), fastnn.zeros(*x2))
    with pytest.raises(ValueError, match="Bilinear: out_features is 0"):
        nn.Bilinear(3, 4, 0)
