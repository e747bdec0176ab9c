"""L-BFGS, random search, random local search: minima they must find, the line search's conditions, errors."""

import numpy as np
import pytest

import fastnn
from fastnn import nn, optim
from fastnn.optim.lbfgs import _Point, strong_wolfe
from fastnn.program import capture


def rosenbrock(p):
    x, y = p[:-1], p[1:]
    return ((1.0 - x).square() + (y - x.square()).square() * 100.0).sum()


def closure_of(optimizer, function):
    def closure():
        optimizer.zero_grad()
        loss = function()
        loss.backward()
        return loss
    return closure


@pytest.mark.parametrize("history", [1, 5, 100])
def test_lbfgs_finds_rosenbrocks_minimum(history):
    p = nn.Parameter(np.array([-1.2, 1.0, -0.5, 0.8]))
    optimizer = optim.LBFGS([p], max_iter=2000, max_eval=4000, history_size=history, line_search_fn="strong_wolfe",
                            tolerance_change=1e-16)
    first = optimizer.step(closure_of(optimizer, lambda: rosenbrock(p)))
    assert first.item() == pytest.approx(rosenbrock(fastnn.tensor([-1.2, 1.0, -0.5, 0.8], dtype=fastnn.float64)).item())
    np.testing.assert_allclose(p.detach().numpy(), 1, atol=1e-6)
    assert optimizer.evaluations < 2000


def test_lbfgs_over_a_captured_closure_trains_a_network():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 5)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] > 0).astype(np.int64)
    fastnn.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 2))
    optimizer = optim.LBFGS(model.parameters(), max_iter=150, line_search_fn="strong_wolfe")
    inputs, labels = fastnn.tensor(x), fastnn.tensor(y)
    program = capture(closure_of(optimizer, lambda: fastnn.cross_entropy(model(inputs), labels)))
    optimizer.step(program)
    assert (model(inputs).detach().numpy().argmax(1) == y).mean() > 0.98


def test_the_line_search_meets_the_conditions():
    for seed in range(40):
        a, b, c = np.random.default_rng(seed).uniform(0.2, 3, 3)

        def trial(t, a=a, b=b, c=c):
            value, slope = a * np.cos(b * t) + c * 0.1 * t * t, -a * b * np.sin(b * t) + c * 0.2 * t
            return _Point(t, value - 0.3 * t, np.array([slope - 0.3]), slope - 0.3)

        start = trial(0.0)
        point, used = strong_wolfe(trial, start, 10.0 ** (seed % 5 - 2), 1e-12)
        assert point.loss <= start.loss + 1e-4 * point.t * start.slope and abs(point.slope) <= 0.9 * -start.slope
        assert used <= 25 and point.t > 0


@pytest.mark.parametrize("kind, options, steps, reached", [(optim.RandomSearch, dict(lr=2.0), 400, 0.5),
                                                           (optim.RandomLocalSearch, dict(lr=0.3), 200, 0.05)])
def test_random_searches_only_go_down(kind, options, steps, reached):
    fastnn.manual_seed(0)
    p = nn.Parameter(np.array([1.5, -1.5]))
    optimizer = kind([p], **options)
    program = capture(lambda: (p - 0.5).square().sum())
    before, losses = np.inf, set()
    for _ in range(steps):
        losses.add(optimizer.step(program))
        assert optimizer.best <= before and optimizer.best == pytest.approx(((p.detach().numpy() - 0.5) ** 2).sum())
        before = optimizer.best
    assert optimizer.best < reached and len(losses) > 0.9 * steps


@pytest.mark.parametrize("build, error, message", [
    (lambda p: optim.LBFGS([p], max_iter=0), ValueError, "LBFGS: max_iter is 0, but must be an integer of at least 1"),
    (lambda p: optim.LBFGS([p], history_size=0), ValueError, "history_size is 0"),
    (lambda p: optim.LBFGS([p], tolerance_grad=-1), ValueError, "tolerance_grad is -1"),
    (lambda p: optim.LBFGS([p], line_search_fn="armijo"), ValueError,
     "is 'armijo', but must be None or 'strong_wolfe'"),
    (lambda p: optim.LBFGS([{"params": [p]}, {"params": [nn.Parameter(np.ones(2))]}]), ValueError,
     "2 parameter groups"),
    (lambda p: optim.LBFGS([p]).step(), TypeError, "step needs a closure"),
    (lambda p: optim.RandomSearch([p], lr=-1), ValueError, "RandomSearch: lr is -1"),
    (lambda p: optim.RandomLocalSearch([p]).step(), TypeError, "RandomLocalSearch: step needs a closure")])
def test_errors_say_what_is_allowed(build, error, message):
    with pytest.raises(error, match=message):
        build(nn.Parameter(np.ones(3)))
