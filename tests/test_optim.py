"""Optimisers against their formulas in NumPy; learning rates in memory; saving and loading; errors; initialisers."""

import copy
import pickle

import numpy as np
import pytest

import fastnn
import fastnn.program
from fastnn import _core, nn, optim
from fastnn.nn import init
from fastnn.ops import math

SHAPES = ((7, 5), (3,), (4, 2, 3, 3), ())


def sgd(p, g, s, lr, momentum=0, dampening=0, weight_decay=0, nesterov=False, maximize=False, decoupled=False):
    g = -g if maximize else g
    if decoupled:
        p = p * (1 - lr * weight_decay)
    else:
        g = g + weight_decay * p
    if momentum:
        s["m"] = momentum * s["m"] + (1 - dampening) * g if "m" in s else g
        g = g + momentum * s["m"] if nesterov else s["m"]
    return p - lr * g


def adam(p, g, s, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, maximize=False, decoupled_weight_decay=False,
         amsgrad=False, epsilon_hat=False):
    g = -g if maximize else g
    if decoupled_weight_decay:
        p = p * (1 - lr * weight_decay)
    else:
        g = g + weight_decay * p
    s["t"] = s.get("t", 0) + 1
    s["m"] = betas[0] * s.get("m", 0) + (1 - betas[0]) * g
    s["v"] = betas[1] * s.get("v", 0) + (1 - betas[1]) * g * g
    s["x"] = np.maximum(s.get("x", 0), s["v"])
    correction = np.sqrt(1 - betas[1] ** s["t"])
    root = np.sqrt(s["x" if amsgrad else "v"]) / correction
    eps = eps / correction if epsilon_hat else eps
    return p - lr * (s["m"] / (1 - betas[0] ** s["t"])) / (root + eps)


def lion(p, g, s, lr=1e-4, betas=(0.9, 0.99), weight_decay=0, maximize=False):
    g = -g if maximize else g
    m = s.get("m", 0)
    s["m"] = betas[1] * m + (1 - betas[1]) * g
    return p * (1 - lr * weight_decay) - lr * np.sign(betas[0] * m + (1 - betas[0]) * g)


CASES = [
    (optim.Lion, lion, dict()), (optim.Lion, lion, dict(lr=0.1, betas=(0.5, 0.8), weight_decay=0.1, maximize=True)),
    (optim.SGD, sgd, dict(lr=0.1)), (optim.SGD, sgd, dict(lr=0.1, momentum=0.9)),
    (optim.SGD, sgd, dict(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)),
    (optim.SGD, sgd, dict(lr=0.1, momentum=0.8, dampening=0.3, maximize=True)),
    (optim.SGD, sgd, dict(lr=0.1, weight_decay=0.1, decoupled=True)),
    (optim.SGD, sgd, dict(lr=0.1, momentum=0.5, weight_decay=0.1, decoupled=True)),
    (optim.Adam, adam, dict()),
    (optim.Adam, adam, dict(lr=0.01, betas=(0.5, 0.9), eps=1e-3, weight_decay=0.1, maximize=True)),
    (optim.Adam, adam, dict(lr=0.01, betas=(0.5, 0.99), eps=0.1, epsilon_hat=True)),
    (optim.Adam, adam, dict(lr=0.01, eps=0.1, amsgrad=True, epsilon_hat=True)),
    (optim.AdamW, adam, dict(lr=0.01, weight_decay=0.1)),
    (optim.AdamW, adam, dict(lr=0.01, betas=(0.5, 0.6), weight_decay=0.1, amsgrad=True))]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind, formula, options", CASES)
def test_ten_steps_follow_the_formula(isa, kind, formula, options, dtype):
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(s).astype(dtype) for s in SHAPES]
    params = [nn.Parameter(np.array(v)) for v in values]
    optimiser = kind(params, **options)
    states = [{} for _ in params]
    if kind is optim.AdamW:
        options = {**options, "decoupled_weight_decay": True}
    for _ in range(10):
        for k, p in enumerate(params):
            g = rng.standard_normal(p.shape).astype(dtype)
            p.grad = fastnn.tensor(g)
            values[k] = formula(values[k].astype(np.float64), g.astype(np.float64), states[k], **options)
        optimiser.step()
    for p, value in zip(params, values):
        np.testing.assert_allclose(p.detach().numpy(), value, rtol=0,
                                   atol=40 * np.finfo(dtype).eps * (1 + np.abs(value).max()))


def parameters(n=2):
    rng = np.random.default_rng(3)
    return [nn.Parameter(rng.standard_normal((4, 3)).astype(np.float32)) for _ in range(n)]


def train(optimiser, params, steps, seed=4):
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        for p in params:
            p.grad = fastnn.tensor(rng.standard_normal(p.shape).astype(np.float32))
        optimiser.step()
    return [p.detach().numpy().copy() for p in params]


def test_the_learning_rate_is_memory():
    (p,) = parameters(1)
    optimiser = optim.SGD([p], lr=0.5)
    group = optimiser.param_groups[0]
    assert group["lr"] == 0.5 and group.lr.shape == () and group.lr.dtype is fastnn.float64
    tensor = group.lr
    group["lr"] = 0.25
    assert group.lr is tensor and tensor.item() == 0.25 and dict(group)["lr"] == 0.25
    before = p.detach().numpy().copy()
    p.grad = fastnn.ones_like(p)
    optimiser.step()
    np.testing.assert_array_equal(p.detach().numpy(), before - np.float32(0.25))


@pytest.mark.parametrize("make, kept, changed", [
    (lambda p: optim.SGD(p, momentum=0.9), dict(lr=0.1, momentum=0.5), dict(momentum=0.0, nesterov=True)),
    (lambda p: optim.AdamW(p), dict(lr=0.1, betas=(0.5, 0.999)), dict(betas=(0.9, 0.99), weight_decay=0.5))])
def test_rates_and_momenta_are_memory_and_what_else_changes_makes_programs_record_anew(make, kept, changed):
    group = make(parameters()).param_groups[0]
    for options, anew in ((kept, False), (changed, True)):
        for name, value in options.items():
            before, version = group[name], _core.settings_version()
            group[name] = value
            assert (_core.settings_version() > version) == anew and group[name] == value, name
            group[name] = before
    group.update(kept)
    assert group.momentum.item() == 0.5


def test_groups_have_their_own_hyperparameters():
    a, b = parameters()
    optimiser = optim.SGD([{"params": [a]}, {"params": b, "lr": 1.0}], lr=0.0)
    before = [p.detach().numpy().copy() for p in (a, b)]
    for p in (a, b):
        p.grad = fastnn.ones_like(p)
    optimiser.step()
    np.testing.assert_array_equal(a.detach().numpy(), before[0])
    np.testing.assert_array_equal(b.detach().numpy(), before[1] - 1)


def test_parameters_may_have_names():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1, bias=False))
    optimiser = optim.SGD(model.named_parameters(), lr=0.1)
    names = [name for name, _ in model.named_parameters()]
    assert optimiser.param_groups[0]["params"] == list(model.parameters())
    assert optimiser.state_dict()["param_groups"][0]["param_names"] == names == ["0.weight", "0.bias", "1.weight"]
    grouped = optim.SGD([{"params": model[0].named_parameters(), "lr": 1.0}, {"params": model[1].parameters()}], lr=0.1)
    assert [group.get("param_names") for group in grouped.param_groups] == [["weight", "bias"], None]


def test_parameters_without_gradient_stay_and_are_not_counted():
    a, b = parameters()
    optimiser = optim.Adam([a, b])
    before = b.detach().numpy().copy()
    a.grad = fastnn.ones_like(a)
    optimiser.step()
    np.testing.assert_array_equal(b.detach().numpy(), before)
    assert list(optimiser.state) == [a] and optimiser.state[a]["step"].item() == 1


def test_zero_grad_and_closure():
    (p,) = parameters(1)
    optimiser = optim.SGD([p], lr=0.1)

    def closure():
        optimiser.zero_grad()
        loss = math.mul(p, p)
        loss.backward(fastnn.ones_like(loss))
        return "the loss"

    before = p.detach().numpy().copy()
    with fastnn.no_grad():
        assert optimiser.step(closure) == "the loss"
    np.testing.assert_allclose(p.detach().numpy(), 0.8 * before, rtol=1e-6)
    optimiser.zero_grad(set_to_none=False)
    assert (p.grad.numpy() == 0).all()
    optimiser.zero_grad()
    assert p.grad is None


def test_loading_keeps_the_memory_of_existing_state():
    params = parameters()
    optimiser = optim.Adam(params)
    train(optimiser, params, 1)
    held = optimiser.state[params[0]]["exp_avg"]
    saved = copy.deepcopy(optimiser.state_dict())
    train(optimiser, params, 1)
    optimiser.load_state_dict(saved)
    assert optimiser.state[params[0]]["exp_avg"] is held
    np.testing.assert_array_equal(held.numpy(), saved["state"][0]["exp_avg"].numpy())
    assert optimiser.state[params[0]]["step"].item() == 1


def test_a_captured_step_sees_the_learning_rate_change():
    values = np.random.default_rng(1).standard_normal((8, 4)).astype(np.float32)

    def run(capture):
        p = nn.Parameter(np.ones(4, np.float32))
        optimiser = optim.AdamW([p], lr=0.1)

        def step(x):
            y = math.mul(x, p)
            y.backward(x)
            optimiser.step()
            optimiser.zero_grad()

        step = fastnn.program.capture(step) if capture else step
        for k, row in enumerate(values):
            optimiser.param_groups[0]["lr"] = 0.1 / (k + 1)
            step(fastnn.tensor(row))
        return p.detach().numpy().tobytes()

    assert run(True) == run(False)


EVERY = [
    (optim.SGD, dict(momentum=0.9, nesterov=True)), (optim.ASGD, dict(t0=3, lambd=0.1)), (optim.Adam, {}),
    (optim.Adam, dict(amsgrad=True)), (optim.AdamW, {}), (optim.AdamW, dict(amsgrad=True)), (optim.Adamax, {}),
    (optim.Adagrad, dict(lr_decay=0.1)), (optim.RMSprop, {}), (optim.RMSprop, dict(momentum=0.9)),
    (optim.RMSprop, dict(momentum=0.9, centered=True)), (optim.Adadelta, {}), (optim.NAdam, {}),
    (optim.RAdam, dict(betas=(0.9, 0.7))), (optim.Lion, dict(weight_decay=0.1)), (optim.Rprop, {}),
    (optim.Adafactor, dict(weight_decay=0.1)), (optim.Adafactor, dict(eps=(1e-3, 1e-2), maximize=True)),
    (optim.Muon, {}), (optim.Muon, dict(nesterov=False, adjust_lr_fn="match_rms_adamw"))]


def captured_and_eager(kind, options, schedule=lambda optimiser: None):
    """What nine steps leave of parameters and state, captured and eager, and the program."""
    rows = np.random.default_rng(1).standard_normal((9, 4, 3)).astype(np.float32)

    def run(wrap):
        params = [nn.Parameter(np.ones(shape, np.float32)) for shape in ((4, 3), (3,), (2, 1, 3))]
        params = params[:1] if kind is optim.Muon else params
        optimiser = kind(params, lr=0.05, **options)
        schedule_of_it = schedule(optimiser)

        def step(x):
            y = x
            for p in params + params:
                y = math.mul(y, p)
            y.backward(fastnn.ones_like(y))
            optimiser.step()
            optimiser.zero_grad()

        step = wrap(step)
        for row in rows:
            step(fastnn.tensor(row))
            if schedule_of_it:
                schedule_of_it.step()
        left = [value.numpy().tobytes() for p in params for value in (p.detach(), *optimiser.state[p].values())]
        return left, step

    captured, program = run(fastnn.program.capture)
    return captured, run(lambda step: step)[0], program


BY_CLOSURES = [(optim.LBFGS, dict(max_iter=3, history_size=4)), (optim.LBFGS, dict(max_iter=4, line_search_fn="strong_wolfe")),
               (optim.LBFGS, dict(max_iter=1, history_size=1)), (optim.RandomSearch, {}), (optim.RandomLocalSearch, {})]


def test_every_optimiser_is_asked():
    kinds = {kind for kind in vars(optim).values() if isinstance(kind, type) and issubclass(kind, optim.Optimizer)}
    assert {kind for kind, _ in EVERY + BY_CLOSURES} == kinds - {optim.Optimizer}


def steps_with_closures(optimiser, params, numbers):
    """Towards targets that change with the step; what the parameters and the state are then."""
    def closure():
        optimiser.zero_grad()
        loss = 0.0
        for p, target in zip(params, targets):
            loss = ((p - target).square() * (p + 2.0).square()).sum() + loss
        if loss.requires_grad:  # random search goes without
            loss.backward()
        return loss

    for number in numbers:
        fastnn.manual_seed(number)
        rng = np.random.default_rng(number)
        targets = [fastnn.tensor(rng.standard_normal(p.shape).astype(np.float32)) for p in params]
        optimiser.step(closure)
    state = {number: {name: np.asarray(value).tobytes() for name, value in values.items() if value is not None}
             for number, values in optimiser.state_dict()["state"].items()}
    return [p.detach().numpy().tobytes() for p in params], state


@pytest.mark.parametrize("kind, options", [*EVERY, *BY_CLOSURES, (optim.SGD, {})], ids=str)
def test_training_goes_on_from_a_saved_state(kind, options):
    """To the bit, from tensors and from plain arrays."""
    shapes = ((4, 3), (2, 5)) if kind is optim.Muon else ((4, 3), (3,), ())
    params = [nn.Parameter(np.random.default_rng(k).standard_normal(shape).astype(np.float32)) for k, shape in enumerate(shapes)]
    optimiser = kind(params, lr=0.05, **options)
    steps_with_closures(optimiser, params, range(3))
    saved = pickle.loads(pickle.dumps(optimiser.state_dict()))
    arrays = {**saved, "state": {number: {name: value if value is None else np.array(value) for name, value in values.items()}
                                 for number, values in saved["state"].items()}}
    copies = [[nn.Parameter(p.detach().clone()) for p in params] for _ in range(2)]
    expected = steps_with_closures(optimiser, params, range(3, 6))
    for state, mine in zip((saved, arrays), copies):
        fresh = kind(mine, lr=9.0)
        fresh.load_state_dict(state)
        assert steps_with_closures(fresh, mine, range(3, 6)) == expected


@pytest.mark.parametrize("kind, options", EVERY, ids=str)
def test_captured_steps_of_every_optimiser_equal_eager_ones(kind, options):
    captured, eager, program = captured_and_eager(kind, options)
    assert captured == eager and program.replays == 7


@pytest.mark.parametrize("kind, options", [(kind, options) for kind, options in EVERY
                                           if options.get("momentum") or {"betas", "momentum"} & set(
                                               kind([nn.Parameter(np.ones((1, 1)))]).defaults) and kind is not optim.SGD
                                           and kind is not optim.RMSprop], ids=str)
def test_captured_steps_follow_a_cycle_of_momentum(kind, options):
    """Without being recorded anew: the momentum is memory, as the rate is."""
    def schedule(optimiser):
        return optim.lr_scheduler.OneCycleLR(optimiser, 0.1, 9)

    captured, eager, program = captured_and_eager(kind, options, schedule)
    assert captured == eager and program.replays == 7
    assert eager != captured_and_eager(kind, options)[1]


def test_muon_makes_matrices_orthogonal():
    """Polynomials that converge: all singular values come to 1, whichever side is longer."""
    from fastnn.optim.muon import orthogonalized

    for shape in ((6, 3), (3, 6), (4, 4)):
        u = np.random.default_rng(0).standard_normal(shape)
        left, _, right = np.linalg.svd(u, full_matrices=False)
        x = orthogonalized(fastnn.tensor(u), (1.875, -1.25, 0.375), 30, 1e-7).numpy()
        np.testing.assert_allclose(x, left @ right, atol=1e-10)


@pytest.mark.parametrize("make, error, message", [
    (lambda p: optim.SGD([], lr=0.1), ValueError, "SGD: there are no parameters"),
    (lambda p: optim.SGD(p, lr=0.1), TypeError, "SGD: params is a Parameter"),
    (lambda p: optim.SGD([p, p], lr=0.1), ValueError, r"a parameter of shape \(4, 3\) appears twice"),
    (lambda p: optim.SGD([3.0], lr=0.1), TypeError, "params holds a float"),
    (lambda p: optim.SGD([math.add(p, p)], lr=0.1), ValueError, "is not a leaf"),
    (lambda p: optim.SGD([p], lr=-1), ValueError, "SGD: lr is -1, but must be a number of at least 0"),
    (lambda p: optim.SGD([p], lr=float("nan")), ValueError, "lr is nan"),
    (lambda p: optim.SGD([p], lr=0.1, momentum=-0.5), ValueError, "momentum is -0.5"),
    (lambda p: optim.SGD([p], lr=0.1, nesterov=True), ValueError, "nesterov needs momentum above 0"),
    (lambda p: optim.SGD([{"params": [p], "speed": 1}]), ValueError, r"unknown hyper-parameters \['speed'\]"),
    (lambda p: optim.SGD([{"lr": 1}]), TypeError, "with the key 'params'"),
    (lambda p: optim.Adam([p], betas=(0.9, 1.0)), ValueError, r"Adam: betas is \(0.9, 1.0\)"),
    (lambda p: optim.Adam([p], eps=-1e-8), ValueError, "eps is -1e-08"),
    (lambda p: optim.Adagrad([p], lr_decay=-1), ValueError,
     "Adagrad: lr_decay is -1, but must be a number of at least 0"),
    (lambda p: optim.RMSprop([p], alpha=1.5), ValueError,
     "RMSprop: alpha is 1.5, but must be at least 0 and at most 1"),
    (lambda p: optim.RMSprop([p], momentum=-1), ValueError, "RMSprop: momentum is -1"),
    (lambda p: optim.Adadelta([p], rho=2), ValueError, "Adadelta: rho is 2, but must be at least 0 and at most 1"),
    (lambda p: optim.Adadelta([p], eps="small"), ValueError, "Adadelta: eps is 'small'"),
    (lambda p: optim.NAdam([p], momentum_decay=-1), ValueError, "NAdam: momentum_decay is -1"),
    (lambda p: optim.RAdam([p], betas=0.9), ValueError,
     "RAdam: betas is 0.9, but must be two numbers, at least 0 and below 1"),
    (lambda p: optim.Lion([p], betas=(-0.1, 0.9)), ValueError, "Lion: betas is"),
    (lambda p: optim.AdamW([p], weight_decay=-1), ValueError, "AdamW: weight_decay is -1"),
    (lambda p: optim.Adamax([p], betas=(0.9, 2.0)), ValueError, r"Adamax: betas is \(0.9, 2.0\)"),
    (lambda p: optim.ASGD([p], lambd=-1), ValueError, "ASGD: lambd is -1, but must be a number of at least 0"),
    (lambda p: optim.Rprop([p], etas=(1.2, 0.5)), ValueError, r"Rprop: etas is \(1.2, 0.5\), but must be two numbers"),
    (lambda p: optim.Rprop([p], step_sizes=(2, 1)), ValueError, r"step_sizes is \(2, 1\), but must be two numbers"),
    (lambda p: optim.Adafactor([p], beta2_decay=0.5), ValueError, "beta2_decay is 0.5, but must be a number of at most 0"),
    (lambda p: optim.Adafactor([p], eps=1e-3), ValueError, "eps is 0.001, but must be two numbers, or None and a number"),
    (lambda p: optim.Adafactor([p], eps=(None, -1)), ValueError, "one of eps is -1"),
    (lambda p: optim.Adafactor([p], d=0.5), ValueError, "d is 0.5, but must be a number of at least 1"),
    (lambda p: optim.Muon([p, fastnn.ones(3, requires_grad=True)]), ValueError, r"shape \(3,\), but must be a matrix"),
    (lambda p: optim.Muon([p], ns_steps=100), ValueError, "ns_steps is 100, but must be below 100"),
    (lambda p: optim.Muon([p], adjust_lr_fn="mine"), ValueError, "adjust_lr_fn is 'mine', but must be None, 'original'"),
    (lambda p: optim.SGD([p]).load_state_dict({"state": {}, "param_groups": [{"params": [0, 1]}]}), ValueError,
     r"groups have \[2\]"),
    (lambda p: optim.SGD([p]).load_state_dict(nn.Linear(2, 2).state_dict()), ValueError,
     r"state_dict has the keys \['weight', 'bias'\], but must have 'state' and 'param_groups'"),
    (lambda p: optim.LBFGS([p]).load_state_dict("file"), ValueError, "state_dict is a str, but must have"),
    (lambda p: optim.LBFGS([p]).load_state_dict({"state": {0: {"old_stps": np.zeros((2, 5)), "old_dirs": np.zeros((2, 12))}},
                                                 "param_groups": [{"params": [0]}]}),
     ValueError, r"a vector of 'old_stps' is \(5,\), but LBFGS's parameters have 12 numbers"),
    (lambda p: optim.SGD([p]).load_state_dict({"state": {0: {"momentum_buffer": np.zeros(3)}},
                                               "param_groups": [{"params": [0]}]}),
     ValueError, r"'momentum_buffer' is \(3,\), the parameter \(4, 3\)")])
def test_errors_say_what_was_given(make, error, message):
    with pytest.raises(error, match=message):
        make(parameters(1)[0])


# ---- initialisers ----

WEIGHT = (200, 30, 3, 3)  # fan_in 270, fan_out 1800


@pytest.mark.parametrize("fill, deviation", [
    (lambda t: init.xavier_uniform_(t), np.sqrt(2 / 2070)),
    (lambda t: init.xavier_normal_(t, gain=2.0), 2 * np.sqrt(2 / 2070)),
    (lambda t: init.kaiming_uniform_(t, nonlinearity="relu"), np.sqrt(2 / 270)),
    (lambda t: init.kaiming_normal_(t, a=0.5, mode="fan_out"), np.sqrt(2 / 1.25 / 1800)),
    (lambda t: init.lecun_uniform_(t), np.sqrt(1 / 270)), (lambda t: init.lecun_normal_(t), np.sqrt(1 / 270)),
    (lambda t: init.normal_(t, 0.0, 3.0), 3.0), (lambda t: init.uniform_(t, -1.0, 1.0), np.sqrt(1 / 3))])
def test_random_initialisers_have_their_deviation(fill, deviation):
    fastnn.manual_seed(0)
    weight = nn.Parameter(fastnn.empty(*WEIGHT))
    assert fill(weight) is weight and weight.is_leaf
    values = weight.detach().numpy()
    assert abs(values.mean()) < 5 * deviation / np.sqrt(values.size)
    assert abs(values.std() / deviation - 1) < 0.02


def test_orthogonal_constants_and_gains():
    for shape in ((5, 12), (12, 5), (4, 2, 3, 3)):
        weight = init.orthogonal_(fastnn.empty(*shape, dtype=fastnn.float64), gain=2.0).numpy().reshape(shape[0], -1)
        gram = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
        np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=1e-12)
    assert init.ones_(fastnn.empty(3)).tolist() == [1, 1, 1] and init.zeros_(fastnn.empty(2)).tolist() == [0, 0]
    assert init.constant_(fastnn.empty(2), 0.5).tolist() == [0.5, 0.5]
    assert init.calculate_gain("leaky_relu", 1.0) == 1 and init.calculate_gain("tanh") == 5 / 3
    with pytest.raises(ValueError, match="nonlinearity is 'swush'"):
        init.calculate_gain("swush")
    with pytest.raises(ValueError, match=r"the tensor has shape \(3,\)"):
        init.xavier_uniform_(fastnn.empty(3))
    with pytest.raises(ValueError, match="mode is 'fan'"):
        init.kaiming_normal_(fastnn.empty(3, 4), mode="fan")


@pytest.mark.parametrize("make", [lambda p, lr: optim.SGD(p, lr), lambda p, lr: optim.AdamW(p, lr)])
def test_the_learning_rate_may_be_a_tensor(make):
    """Whoever writes to it changes the rate, in captured steps too."""
    p, lr = fastnn.ones(3, requires_grad=True), fastnn.tensor(0.5, fastnn.float64)
    optimizer = make([p], lr)

    def step(g):
        p.backward(g)
        optimizer.step()
        optimizer.zero_grad()

    step = fastnn.capture(step)
    for _ in range(3):
        step(fastnn.ones(3))
    assert step.replays and p[0].item() < 0
    before = p.tolist()
    lr.zero_()
    step(fastnn.ones(3))
    assert p.tolist() == before and optimizer.param_groups[0]["lr"] == 0
    optimizer.param_groups[0]["lr"] = 0.25
    assert lr.item() == 0.25
