"""Watched gradients: the norms that NumPy finds, captured as eager, and the warnings."""

import warnings

import numpy as np
import pytest

import fastnn
from fastnn import nn, optim
from fastnn.plot import gradient_norms
from fastnn.train import Trainer

X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
Y = (X[:, :1] * 2).astype(np.float32)


def run(capture, epochs=5, batch_size=6, **options):
    fastnn.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    trainer = Trainer(model, loss="mse", optimizer=optim.SGD(model.parameters(), lr=0.1), capture=capture,
                      watch_gradients=True)
    return trainer, trainer.fit(X, Y, epochs=epochs, batch_size=batch_size, shuffle=False, verbose=0, **options)


def test_norms_of_one_step_are_those_of_its_gradients():
    fastnn.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    loss = nn.MSELoss()(model(fastnn.tensor(X)), fastnn.tensor(Y))
    loss.backward()
    expected = [np.sqrt(sum((p.grad.numpy() ** 2).sum() for p in layer.parameters())) for layer in (model[0], model[2])]
    _, history = run(False, epochs=1, batch_size=12)
    assert list(history.gradient_norms) == list(history.update_norms) == ["0", "2"]
    np.testing.assert_allclose([history.gradient_norms[k][0] for k in "02"], expected, rtol=1e-5)
    np.testing.assert_allclose([history.update_norms[k][0] for k in "02"], np.multiply(expected, 0.1), rtol=1e-4)


def test_captured_as_eager_and_across_runs():
    captured, history = run(True)
    _, eager = run(False)
    assert history.gradient_norms == eager.gradient_norms and history.update_norms == eager.update_norms
    assert len(history.gradient_norms["0"]) == 5 and len(set(history.gradient_norms["0"])) == 5
    again = captured.fit(X, Y, epochs=2, batch_size=6, shuffle=False, verbose=0)
    assert len(again.gradient_norms["2"]) == 2 and again.gradient_norms["2"][0] < history.gradient_norms["2"][0]


def test_unwatched_records_nothing():
    assert Trainer(nn.Linear(3, 1), loss="mse").fit(X, Y, epochs=1, verbose=0).gradient_norms == {}


def warned(model, lr):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        Trainer(model, loss="mse", optimizer=optim.SGD(model.parameters(), lr=lr), watch_gradients=True).fit(
            X, Y, epochs=4, verbose=0)
    return [str(w.message) for w in found if w.category is RuntimeWarning]


def test_frozen_layers_do_not_vanish():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    model[0].requires_grad_(False)
    assert not warned(model, 0.01)


def test_warns_of_vanishing_once():
    fastnn.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 1))
    with fastnn.no_grad():
        model[0].bias.fill_(40.0)  # saturated
    messages = warned(model, 0.01)
    assert len(messages) == 1 and "layer '0' vanishes" in messages[0]


def test_warns_of_exploding_once():
    fastnn.manual_seed(0)
    messages = warned(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)), 50.0)
    *gradients, loss = messages
    assert len(gradients) == 2 and all("explodes" in message for message in gradients) and "the loss of epoch 4 is inf" in loss


def test_plot(tmp_path):
    pytest.importorskip("matplotlib")
    _, history = run(True)
    gradient_norms(history, tmp_path / "norms.png")
    assert (tmp_path / "norms.png").stat().st_size > 5000
    with pytest.raises(ValueError, match="watch_gradients=True"):
        gradient_norms(Trainer(nn.Linear(3, 1), loss="mse").fit(X, Y, epochs=1, verbose=0), tmp_path / "none.png")
