"""Captured programs beside eager steps where something changes between calls: the same bits, whatever it was."""

import copy
import random
import warnings

import numpy as np
import pytest

import fastnn
from fastnn import nn, optim
from fastnn.program import capture
from fastnn.train import Trainer


def normal(seed, *shape):
    return fastnn.tensor(np.random.default_rng(seed).standard_normal(shape), dtype=fastnn.float32)


class Training:
    """A small network's steps, captured or not, and all they leave behind."""

    def __init__(self, wrap, make):
        fastnn.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 4))
        self.clip = optim.ClipGradNorm(0.5)
        self.optimizer = make(list(self.model.parameters()))
        self.optimizer.register_step_pre_hook(self.clip)
        self.step = wrap(self.take)
        self.left, self.calls = [], 0

    def take(self, x, y):
        loss = fastnn.functional.cross_entropy(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss

    def run(self, calls):
        for _ in range(calls):
            self.calls += 1
            self.left.append(self.step(normal(self.calls, 5, 6), fastnn.tensor(np.arange(5) % 4)))
        state = [t for p in self.model.parameters() for t in self.optimizer.state[p].values()]
        self.left += [t.detach().clone() for t in (*self.model.parameters(), *self.model.buffers(), *state)]


def forget_state(t):
    t.optimizer.state.clear()


def load_empty_state(t):
    state = copy.deepcopy(t.optimizer.state_dict())
    t.optimizer.load_state_dict({**state, "state": {}})


def replace_state(t):
    state = t.optimizer.state[t.model[0].weight]
    name = "exp_avg" if "exp_avg" in state else "momentum_buffer"
    state[name] = normal(9, 8, 6)


def replace_rate(t):
    t.optimizer.param_groups[0].lr = fastnn.tensor(0.02, dtype=fastnn.float64)


def add_group(t):
    t.optimizer.param_groups[0]["params"], rest = t.optimizer.param_groups[0]["params"][:2], t.optimizer.param_groups[0]["params"][2:]
    t.run(4)
    t.optimizer.add_param_group({"params": rest})


CHANGES = [
    forget_state, load_empty_state, replace_state, replace_rate, add_group,
    lambda t: setattr(t.model[1], "training", False), lambda t: setattr(t.model[3], "p", 0.7),
    lambda t: setattr(t.model[1], "momentum", 0.5), lambda t: setattr(t.model[1], "eps", 0.5),
    lambda t: setattr(t.model[1], "running_mean", normal(3, 8)), lambda t: t.model.__setitem__(2, nn.Tanh()),
    lambda t: t.model.insert(1, nn.Tanh()), lambda t: t.model.append(nn.Tanh()), lambda t: t.model.__delitem__(2),
    lambda t: setattr(t.model[0], "bias", None), lambda t: setattr(t.model[0], "bias", t.model[1].bias),
    lambda t: setattr(t.model[0], "weight", nn.Parameter(normal(5, 8, 6))), lambda t: setattr(t.model[2], "forward", lambda x: x * x),
    lambda t: t.model[0].register_parameter("bias", None), lambda t: setattr(t.clip, "max_norm", 0.01),
    lambda t: setattr(fastnn.random.default_generator, "state", fastnn.tensor([4, 7]))]


@pytest.mark.parametrize("make", [lambda p: optim.SGD(p, 0.1, 0.9), lambda p: optim.Adam(p, 0.1)])
@pytest.mark.parametrize("change", CHANGES)
def test_changes_between_calls_are_noticed(change, make):
    found = []
    for wrap in (lambda step: step, capture):
        training = Training(wrap, make)
        training.run(5)
        change(training)
        training.run(5)
        found.append([t.detach().numpy().tobytes() for t in training.left])
    assert found[0] == found[1]
    assert training.step.obstacle is None and training.step.replays >= 4


def both(make, calls):
    """What calls of an eager step, and then of a captured one, leave: ``make(wrap)`` gives a function of the call's number."""
    found = []
    for wrap in (lambda step: step, capture):
        call = make(wrap)
        found.append([[t.detach().numpy().tobytes() if isinstance(t, fastnn.Tensor) else t for t in call(k)] for k in range(calls)])
    return found


def test_results_that_are_arguments_are_those_of_the_call():
    def make(wrap):
        step = wrap(lambda x: (x.mul_(2), x[1:], x.T, x.reshape(30), x))

        def call(k):
            x = normal(k, 5, 6)
            results = step(x)
            results[1].add_(1)
            return [*results, x, results[0] is x, results[4] is x, *[r.shares_storage(x) for r in results]]
        return call

    eager, replayed = both(make, 6)
    assert eager == replayed


def test_results_made_by_python_are_fresh_in_every_call():
    def make(wrap):
        step = wrap(lambda x: (x * 2, fastnn.tensor([1.0, 2.0])))

        def call(k):
            y, z = step(normal(k, 3))
            before = z.clone()
            z.add_(1)
            return y, before
        return call

    eager, replayed = both(make, 6)
    assert eager == replayed


def test_arguments_that_overlap_are_right_in_the_first_call():
    def make(wrap):
        step = wrap(lambda a, b: (a.mul_(2) * b.sum(), b + 1))

        def call(k):
            base = normal(k, 8, 6)
            return [*step(base[:5], base[3:]), base]
        return call

    with pytest.warns(RuntimeWarning, match="different views of one storage"):
        eager, replayed = both(make, 4)
    assert eager == replayed


def test_arguments_that_a_replay_writes_count_as_changed():
    step = capture(lambda x: x.add_(1).sum())
    weight = normal(0, 3)
    weight.requires_grad = True
    for k in range(5):
        x = normal(k, 3)
        y = (weight * x).sum()
        step(x)
        with pytest.raises(RuntimeError, match="changed in place"):
            y.backward()
    assert step.replays == 3


def test_read_only_arguments_are_not_written():
    step = capture(lambda x: x.add_(1).sum())
    for _ in range(4):
        step(np.zeros(3, np.float32))
    fixed = np.zeros(3, np.float32)
    fixed.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        step(fixed)
    assert step.replays == 2 and not fixed.any()


def test_gradients_go_on_through_arguments():
    def make(wrap):
        weight = normal(2, 3, 4)
        weight.requires_grad = True

        def take(x):
            y = (x * x).sum()
            y.backward()
            return y

        step = wrap(take)
        return lambda k: [step(weight * (k + 1)), weight.grad.clone()]

    eager, replayed = both(make, 6)
    assert eager == replayed


@pytest.mark.parametrize("warm", [0, 4])
def test_captured_steps_within_captured_steps(warm):
    def make(wrap):
        weight = normal(1, 5, 6)
        inner = wrap(lambda x: weight.add_(x) * 2)
        outer = wrap(lambda x: inner(x) + 1)
        return lambda k: [(inner if k < warm else outer)(normal(k, 5, 6)), weight.clone()]

    eager, replayed = both(make, 10)
    assert eager == replayed


def test_an_update_of_its_own_meets_the_gradients_that_are_there():
    def make(wrap):
        model = nn.Linear(6, 4)
        for p in model.parameters():
            p.detach().fill_(0.25)
        optimizer = optim.SGD(model.parameters(), 0.1, 0.9)

        def gather(x):
            loss = model(x).square().mean()
            loss.backward()
            return loss

        gather, update = wrap(gather), wrap(optimizer.step)

        def call(k):
            loss = gather(normal(k, 5, 6))
            if k % 3 == 2:
                update()
                optimizer.zero_grad(set_to_none=k % 2 == 0)
            return [loss, *[p.detach().clone() for p in model.parameters()]]
        return call

    eager, replayed = both(make, 24)
    assert eager == replayed


@pytest.mark.filterwarnings("ignore:capture")
def test_state_that_python_hands_on_is_not_frozen():
    def make(wrap):
        state = {"h": normal(1, 5, 6)}

        def take(x):
            state["h"] = state["h"] * 0.5 + x
            return state["h"] * 1

        step = wrap(take)
        return lambda k: [step(normal(k, 5, 6)), state["h"].clone()]

    eager, replayed = both(make, 24)
    assert eager == replayed


def test_another_view_of_the_same_memory_is_noticed():
    def make(wrap):
        rows = normal(1, 16, 6)
        weight = rows[:5]
        step = wrap(lambda x: x * weight)

        def call(k):
            if k == 5:
                weight.set_data(rows[5:10])
            if k == 10:
                weight.set_data(rows.as_strided((5, 6), (1, 5)))
            return [step(normal(k, 5, 6))]
        return call

    eager, replayed = both(make, 15)
    assert eager == replayed


def test_steps_that_are_not_done_when_they_return_are_refused():
    def generator(x):
        yield x

    async def coroutine(x):
        return x

    for step in (generator, coroutine):
        with pytest.raises(TypeError, match="generator or a coroutine"):
            capture(step)


DRAWS = "draws random numbers of Python's or NumPy's"


class Changing(nn.Module):
    """A layer of which each call depends on what Python has done before."""

    def __init__(self, kind):
        super().__init__()
        self.layer, self.kind, self.calls = nn.Linear(6, 6), kind, 0

    def forward(self, x):
        if self.kind == "counts":
            self.calls += 1
        chance = {"counts": lambda: self.calls / 12, "random": random.random, "rand": np.random.rand, "gauss": np.random.randn}[self.kind]
        return self.layer(x) * (2 if chance() > 0.9 else 1)


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("kind, reason", [("counts", "the step itself changes Changing.calls, which replays would not .*test_program"),
                                          ("random", DRAWS), ("rand", DRAWS), ("gauss", DRAWS)])
def test_steps_that_depend_on_what_python_counts_or_draws_run_eagerly(kind, reason, verify):
    def make(wrap):
        fastnn.manual_seed(0)
        random.seed(1)
        np.random.seed(1)
        model = Changing(kind)
        step = wrap(model)
        return lambda k: (step(normal(k, 5, 6)).detach(), model.calls)

    with pytest.warns(RuntimeWarning, match=f"the step runs eagerly, because .*{reason}"):
        found = [both_with(make, wrap, 30) for wrap in (lambda step: step, lambda step: capture(step, verify))]
    assert found[0] == found[1]


def both_with(make, wrap, calls):
    call = make(wrap)
    return [[t.tolist() if isinstance(t, fastnn.Tensor) else t for t in call(k)] for k in range(calls)]


@pytest.mark.parametrize("kind", ["random", "rand"])
def test_trainer_draws_as_an_eager_one_does(kind):
    """Also where what it tries before training calls the model, which draws."""
    found = []
    x, y = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32), np.arange(40) % 6
    for captures in (True, False):
        fastnn.manual_seed(0)
        random.seed(1)
        np.random.seed(1)
        trainer = Trainer(Changing(kind), metrics=["accuracy"], capture=captures)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append(trainer.fit(x, y, 8, epochs=3, verbose=0, validation_data=(x, y)).history)
    assert found[0] == found[1]
