"""Clipping, penalties, proximal steps, maximum norms, averages: against their formulas, in captured steps too, and
errors."""

import numpy as np
import pytest

import fastnn
from fastnn import nn, optim
from fastnn.optim import swa_utils
from fastnn.program import capture
from training import classifier_step

SHAPES = ((4, 3), (5,), (2, 3, 2, 2))


def parameters(seed=0, scale=1.0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    params = [nn.Parameter((scale * rng.standard_normal(s)).astype(dtype)) for s in SHAPES]
    for p in params:
        p.grad = fastnn.tensor(rng.standard_normal(p.shape).astype(dtype))
    return params


def arrays(tensors):
    return [t.detach().numpy().copy() for t in tensors]


@pytest.mark.parametrize("order", [2.0, 1.0, 3.0, np.inf])
@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_clipping_by_the_norm_of_all(order, limit):
    params = parameters()
    before = arrays(p.grad for p in params)
    norm = np.linalg.norm(np.concatenate([g.ravel() for g in before]), order)
    assert optim.clip_grad_norm_(params, limit, order).item() == pytest.approx(norm, rel=1e-6)
    for g, b in zip(arrays(p.grad for p in params), before):
        np.testing.assert_allclose(g, b * min(1, limit / (norm + 1e-6)), rtol=1e-6)


def test_clipping_by_each_norm_and_by_value():
    params = parameters()
    before = arrays(p.grad for p in params)
    optim.clip_each_grad_norm_(params, 1.0)
    for g, b in zip(arrays(p.grad for p in params), before):
        np.testing.assert_allclose(g, b * min(1, 1 / (np.linalg.norm(b) + 1e-6)), rtol=1e-6)
    params = parameters()
    optim.clip_grad_value_(params, 0.3)
    for g, b in zip(arrays(p.grad for p in params), before):
        np.testing.assert_array_equal(g, np.clip(b, np.float32(-0.3), np.float32(0.3)))


def test_proximal_steps_solve_the_lasso_with_exact_zeros():
    """Against coordinate descent."""
    rng = np.random.default_rng(0)
    a, truth = rng.standard_normal((60, 12)), np.zeros(12)
    truth[:3] = 2, -3, 1
    b, strength = a @ truth + 0.1 * rng.standard_normal(60), 0.2
    expected = np.zeros(12)
    for _ in range(300):
        for j in range(12):
            rho = a[:, j] @ (b - a @ expected + a[:, j] * expected[j]) / 60
            expected[j] = np.sign(rho) * max(abs(rho) - strength, 0) / (a[:, j] @ a[:, j] / 60)
    w = nn.Parameter(np.zeros(12))
    optimizer = optim.SGD([w], lr=0.3)
    optimizer.register_step_post_hook(optim.Proximal(l1=strength))
    x, y = fastnn.tensor(a), fastnn.tensor(b)

    def step():
        loss = ((x @ w.reshape(12, 1)).reshape(60) - y).square().mean() * 0.5
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    program = capture(step)
    for _ in range(800):
        program()
    np.testing.assert_allclose(w.detach().numpy(), expected, atol=1e-9)
    assert (w.detach().numpy() == 0).sum() == (expected == 0).sum() > 5


def test_elastic_net_by_subgradient_and_by_proximal_step():
    params = parameters()
    gradients, values = arrays(p.grad for p in params), arrays(params)
    optim.ElasticNet(0.3, 0.7)(optim.SGD(params, lr=0.1))
    for p, g, v in zip(params, gradients, values):
        np.testing.assert_allclose(p.grad.numpy(), g + 0.3 * np.sign(v) + 0.7 * v, rtol=1e-5, atol=1e-6)
    optim.Proximal(2.0, 3.0, params[:1])(optim.SGD([{"params": params[:1], "lr": 0.05}, {"params": params[1:]}],
                                                   lr=0.1))
    shrunk = np.sign(values[0]) * np.maximum(np.abs(values[0]) - 0.1, 0) / 1.15
    np.testing.assert_allclose(params[0].detach().numpy(), shrunk, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(params[1].detach().numpy(), values[1])


def test_max_norm_bounds_every_unit():
    params = parameters(scale=2.0)
    before = arrays(params)
    optim.MaxNorm(1.5)(optim.SGD(params, lr=0.1))
    for p, b in zip(params, before):
        if b.ndim > 1:
            norms = np.linalg.norm(b.reshape(len(b), -1), axis=1)
            factor = (1.5 / np.maximum(norms, 1.5)).reshape(-1, *(1,) * (b.ndim - 1))
            assert (norms > 1.5).any()
            np.testing.assert_allclose(p.detach().numpy(), b * factor, rtol=1e-5)
        else:
            np.testing.assert_array_equal(p.detach().numpy(), b)


@pytest.mark.parametrize("warmup", [False, True])
def test_averages_of_weights(warmup):
    params = parameters()
    optimizer, ema = optim.SGD(params, lr=0.1), optim.EMA(params, 0.8, warmup)
    optimizer.register_step_post_hook(ema)
    expected = arrays(params)
    for t in range(6):
        optimizer.step()
        decay = min(0.8, (1 + t) / (10 + t)) if warmup else 0.8
        expected = [decay * e + (1 - decay) * p for e, p in zip(expected, arrays(params))]
    present = arrays(params)
    with ema.averaged():
        for p, e in zip(params, expected):
            np.testing.assert_allclose(p.detach().numpy(), e, rtol=1e-5, atol=1e-6)
    for p, v in zip(params, present):
        np.testing.assert_array_equal(p.detach().numpy(), v)
    fresh = optim.EMA(parameters(5), 0.8, warmup)
    fresh.load_state_dict(ema.state_dict())
    assert fresh.state_dict()["steps"] == 6
    for a, b in zip(fresh.averages, ema.averages):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    first, *rest = fresh.state_dict()["averages"]
    for wrong in ([first], [first * 0, *(value[:1] for value in rest)]):
        with pytest.raises(ValueError, match="EMA.load_state_dict: averages have the shapes"):
            fresh.load_state_dict({"averages": wrong, "steps": 1})
    np.testing.assert_array_equal(fresh.averages[0].numpy(), ema.averages[0].numpy())


def test_hooks_run_in_captured_steps_as_in_eager_ones():
    def run(wrap):
        fastnn.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        ema = optim.EMA(model.parameters(), 0.9, warmup=True)
        for hook in (optim.ElasticNet(0.01, 0.01), optim.ClipGradNorm(0.5), optim.ClipGradValue(0.1),
                     optim.ClipGradNorm(0.3, 1.0, each=True)):
            optimizer.register_step_pre_hook(hook)
        for hook in (optim.Proximal(0.02, params=[model[0].weight]), optim.MaxNorm(0.7), ema):
            optimizer.register_step_post_hook(hook)

        step, rng = wrap(classifier_step(model, optimizer)), np.random.default_rng(1)
        for _ in range(8):
            step(fastnn.tensor(rng.standard_normal((5, 6)).astype(np.float32)), fastnn.tensor(rng.integers(0, 3, 5)))
        return [v.tobytes() for v in arrays([*model.parameters(), *ema.averages])]

    assert run(capture) == run(lambda step: step)


AVERAGES = [{}, {"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.7)}, {"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.0)},
            {"avg_fn": swa_utils.get_ema_avg_fn(0.7)}, {"avg_fn": swa_utils.get_swa_avg_fn()},
            {"avg_fn": lambda average, value, count: (average * count + value) / (count + 1)},
            {"multi_avg_fn": lambda averages, values, count: [a.copy_(a + (x - a) / count) for a, x in zip(averages, values)]},
            {"use_buffers": True}]


@pytest.mark.parametrize("options", AVERAGES)
@pytest.mark.parametrize("done", [0, 3])
def test_averaged_models_are_part_of_captured_steps(options, done):
    """From the first update on, or after some that were eager."""
    def run(wrap):
        fastnn.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
        averaged = swa_utils.AveragedModel(model, **options)
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def step(x, y):
            fastnn.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            averaged.update_parameters(model)

        step, eager, rng = wrap(step), step, np.random.default_rng(1)
        for k in range(8):
            batch = fastnn.tensor(rng.standard_normal((5, 6)).astype(np.float32)), fastnn.tensor(rng.integers(0, 3, 5))
            (eager if k < done else step)(*batch)
        assert averaged.n_averaged.item() == 8 and averaged.module[1].num_batches_tracked.item() == 8
        assert wrap is not capture or step.replays == 6 - done
        return [v.tobytes() for v in arrays([*model.state_dict().values(), *averaged.state_dict().values()])]

    assert run(capture) == run(lambda step: step)


@pytest.mark.parametrize("options", AVERAGES)
def test_the_first_update_of_an_averaged_model_copies(options):
    """Whatever was there."""
    model = nn.Linear(3, 2)
    averaged = swa_utils.AveragedModel(model, **options)
    nn.init.constant_(averaged.module.weight, float("nan"))
    averaged.update_parameters(model)
    for own, value in zip(arrays(averaged.module.parameters()), arrays(model.parameters())):
        np.testing.assert_array_equal(own, value)


def test_a_hook_can_be_taken_off():
    params, calls = parameters(), []
    optimizer = optim.SGD(params, lr=0.0)
    handle = optimizer.register_step_pre_hook(lambda *arguments: calls.append(arguments))
    optimizer.step()
    handle.remove()
    optimizer.step()
    assert calls == [(optimizer, (), {})]
    with pytest.raises(TypeError, match="SGD: hook is 3, but must be callable"):
        optimizer.register_step_post_hook(3)


@pytest.mark.parametrize("training", [True, False])
def test_activity_penalties_enter_the_gradient(training):
    """Against the gradient of the loss with the penalty written out."""
    rng = np.random.default_rng(0)
    values, weight = rng.standard_normal((4, 5)), rng.standard_normal((5, 3))

    def gradient(with_layer):
        x = fastnn.tensor(values, requires_grad=True)
        hidden = (x @ fastnn.tensor(weight)).tanh()
        penalty = (hidden.abs().sum() * 0.3 + hidden.square().sum() * 0.35) * (1 / 4)
        layer = nn.ActivityRegularization(0.3, 0.7).train(training)
        loss = (layer(hidden) if with_layer else hidden).square().mean()
        (loss if with_layer or not training else loss + penalty).backward()
        return loss.item(), x.grad.numpy()

    (loss, a), (other, b) = gradient(True), gradient(False)
    assert loss == other
    np.testing.assert_allclose(a, b, rtol=1e-12)


def test_an_activity_penalty_makes_representations_sparse():
    x = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)

    def active(strength):
        fastnn.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.ActivityRegularization(strength), nn.Linear(20, 8))
        optimizer, inputs = optim.Adam(model.parameters(), lr=0.01), fastnn.tensor(x)
        for _ in range(300):
            optimizer.zero_grad()
            fastnn.mse_loss(model(inputs), inputs).backward()
            optimizer.step()
        return (model[:3](inputs).detach().numpy() > 0).mean()

    assert active(0.2) < 0.5 * active(0.0)


@pytest.mark.parametrize("build, error, message", [
    (lambda p: optim.clip_grad_norm_(p, -1), ValueError, "max_norm is -1, but must be a number of at least 0"),
    (lambda p: optim.clip_grad_norm_(p, 1, 0), ValueError, "norm_type is 0, but must be above 0, or infinite"),
    (lambda p: optim.clip_each_grad_norm_(p, float("nan")), ValueError, "max_norm is nan"),
    (lambda p: optim.clip_grad_value_(p, -0.1), ValueError, "clip_value is -0.1"),
    (lambda p: optim.ClipGradNorm(-1.0), ValueError, "ClipGradNorm: max_norm is -1.0"),
    (lambda p: optim.ClipGradValue("1"), ValueError, "ClipGradValue: clip_value is '1'"),
    (lambda p: optim.Proximal(-0.1), ValueError, "Proximal: l1 is -0.1"),
    (lambda p: optim.ElasticNet(0.1, -0.1), ValueError, "ElasticNet: l2 is -0.1"),
    (lambda p: optim.Proximal(0.1, params=p), TypeError, "params is a Parameter, but must be an iterable of tensors"),
    (lambda p: optim.MaxNorm(0), ValueError, "MaxNorm: limit is 0, but must be a number above 0"),
    (lambda p: nn.ActivityRegularization(-0.1), ValueError, "ActivityRegularization: l1 is -0.1"),
    (lambda p: fastnn.activity_penalty(p, 0.1, "2"), ValueError, "activity_penalty: l2 is '2'"),
    (lambda p: optim.EMA([p], 1.0), ValueError, "EMA: decay is 1.0, but must be at least 0 and below 1")])
def test_errors_say_what_is_allowed(build, error, message):
    with pytest.raises(error, match=message):
        build(parameters()[0])
