"""Schedules of the learning rate against PyTorch's, step by step."""

import json

import numpy as np
import pytest

from fastnn import nn, optim
from fastnn.optim import lr_scheduler

torch = pytest.importorskip("torch")

CASES = [
    ("ConstantLR", dict(factor=0.25, total_iters=4)), ("LinearLR", dict()),
    ("LinearLR", dict(start_factor=0.1, end_factor=0.6, total_iters=7)),
    ("StepLR", dict(step_size=3, gamma=0.5)), ("MultiStepLR", dict(milestones=[2, 5, 5, 9], gamma=0.3)),
    ("ExponentialLR", dict(gamma=0.9)), ("CosineAnnealingLR", dict(T_max=8, eta_min=0.01)),
    ("CosineAnnealingLR", dict(T_max=30)),
    ("CosineAnnealingWarmRestarts", dict(T_0=3)), ("CosineAnnealingWarmRestarts", dict(T_0=2, T_mult=3, eta_min=0.01)),
    ("OneCycleLR", dict(max_lr=0.7, total_steps=20)),
    ("OneCycleLR", dict(max_lr=0.7, total_steps=21, anneal_strategy="linear")),
    ("OneCycleLR", dict(max_lr=0.7, total_steps=20, pct_start=0.4, three_phase=True, div_factor=10.0,
                        final_div_factor=100.0)),
    ("MultiplicativeLR", dict(lr_lambda=lambda t: 1 - 1 / (2 + t))), ("PolynomialLR", dict()),
    ("PolynomialLR", dict(total_iters=8, power=2.5)), ("CyclicLR", dict(base_lr=0.1, max_lr=0.7, step_size_up=4)),
    ("CyclicLR", dict(base_lr=0.2, max_lr=0.7, step_size_up=3, step_size_down=2, mode="triangular2")),
    ("CyclicLR", dict(base_lr=0.2, max_lr=0.7, step_size_up=3, step_size_down=5, mode="exp_range", gamma=0.9)),
    ("LambdaLR", dict(lr_lambda=lambda t: 1 / (1 + t))),
    ("LambdaLR", dict(lr_lambda=[lambda t: 1 / (1 + t), lambda t: 0.9**t])),
    ("MultiplicativeLR", dict(lr_lambda=[lambda t: 0.9, lambda t: 1 - 1 / (2 + t)])),
    ("OneCycleLR", dict(max_lr=[0.7, 0.1], epochs=5, steps_per_epoch=4, base_momentum=[0.5, 0.6],
                        max_momentum=[0.8, 0.9], anneal_strategy="linear")),
    ("OneCycleLR", dict(max_lr=0.7, total_steps=20, cycle_momentum=False)),
    ("CyclicLR", dict(base_lr=[0.1, 0.2], max_lr=[0.7, 0.5], step_size_up=4, base_momentum=[0.5, 0.6],
                      max_momentum=[0.8, 0.95])),
    ("CyclicLR", dict(base_lr=0.1, max_lr=0.7, step_size_up=3, cycle_momentum=False)),
    ("CyclicLR", dict(base_lr=0.1, max_lr=0.7, step_size_up=3, scale_fn=lambda k: 1 / k)),
    ("CyclicLR", dict(base_lr=0.1, max_lr=0.7, step_size_up=3, scale_fn=lambda t: 0.9**t, scale_mode="iterations"))]


def optimizers(kind="SGD", **options):
    values = np.ones(3, np.float32)
    groups = [[{"params": [make(values)]}, {"params": [make(values)], "lr": 0.5}] for make in (nn.Parameter, torch.tensor)]
    return getattr(optim, kind)(groups[0], lr=0.1, **options), getattr(torch.optim, kind)(groups[1], lr=0.1, **options)


def assert_equal_groups(ours, theirs):
    """Rates and momenta."""
    for name in ("lr", "momentum", "betas"):
        if name in theirs.param_groups[0]:
            np.testing.assert_allclose([group[name] for group in ours.param_groups],
                                       [group[name] for group in theirs.param_groups], rtol=1e-9, atol=1e-15)


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step")
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize("name, options", CASES)
def test_rates_and_momenta(name, options, kind):
    ours, theirs = optimizers(kind)
    a = getattr(lr_scheduler, name)(ours, **options)
    b = getattr(torch.optim.lr_scheduler, name)(theirs, **options)
    for _ in range(19):
        np.testing.assert_allclose(a.get_last_lr(), b.get_last_lr(), rtol=1e-9, atol=1e-15)
        assert_equal_groups(ours, theirs)
        a.step()
        b.step()


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step")
@pytest.mark.parametrize("name, options", CASES)
def test_going_on_from_a_step(name, options):
    """A new schedule on a new optimiser, which has its state from PyTorch's after five steps."""
    _, theirs = optimizers()
    b = getattr(torch.optim.lr_scheduler, name)(theirs, **options)
    for _ in range(5):
        b.step()
    ours, _ = optimizers()
    ours.load_state_dict(theirs.state_dict())
    a = getattr(lr_scheduler, name)(ours, **options, last_epoch=4)
    for _ in range(9):
        assert a.last_epoch == b.last_epoch
        assert_equal_groups(ours, theirs)
        a.step()
        b.step()


@pytest.mark.parametrize("options", [dict(T_0=3), dict(T_0=2, T_mult=3, eta_min=0.01)])
def test_warm_restarts_between_steps(options):
    ours, theirs = optimizers()
    a = lr_scheduler.CosineAnnealingWarmRestarts(ours, **options)
    b = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(theirs, **options)
    for epoch in (0.25, 0.5, 1, 2.75, 7.9, 20, None, None, 3, None):
        a.step(epoch)
        b.step(epoch)
        assert_equal_groups(ours, theirs)


CHAINS = [
    lambda module, o: [module.ConstantLR(o, 0.1, total_iters=4), module.ExponentialLR(o, 0.9)],
    lambda module, o: [module.CosineAnnealingLR(o, 18), module.LinearLR(o, 0.2, total_iters=5),
                       module.MultiStepLR(o, [3, 7], 0.5)],
    lambda module, o: [module.PolynomialLR(o, 30, 2.0), module.MultiplicativeLR(o, lambda t: 0.95), module.StepLR(o, 4)],
    lambda module, o: [module.CyclicLR(o, 0.1, 0.7, 3)],
    lambda module, o: [module.OneCycleLR(o, 0.7, 60), module.LinearLR(o, 1.0, 1.0)],
    lambda module, o: [module.CosineAnnealingLR(o, 8, eta_min=0.02)],
    lambda module, o: [module.LinearLR(o, 0.2, total_iters=5), module.CosineAnnealingLR(o, 9, eta_min=0.03)],
    lambda module, o: [module.CosineAnnealingLR(o, 1, eta_min=0.03), module.ExponentialLR(o, 0.97)],
    lambda module, o: [module.CosineAnnealingLR(o, 7, eta_min=0.03), module.ConstantLR(o, 0.5, total_iters=30),
                       module.CosineAnnealingLR(o, 11, eta_min=0.01), module.MultiStepLR(o, [3, 20], 0.5)],
    lambda module, o: [module.ExponentialLR(o, 0.9), module.LambdaLR(o, lambda t: 1 / (1 + t)), module.StepLR(o, 4, 0.5)],
    lambda module, o: [module.LinearLR(o, 0.2), module.CosineAnnealingWarmRestarts(o, 4, 2, eta_min=0.01)],
    lambda module, o: [module.CosineAnnealingWarmRestarts(o, 5), module.ExponentialLR(o, 0.9)],
    lambda module, o: [module.CyclicLR(o, 0.1, 0.7, 3), module.ExponentialLR(o, 0.9), module.PolynomialLR(o, 10)],
    lambda module, o: [module.LinearLR(o, 0.5, 0.0, 6), module.CosineAnnealingLR(o, 5, eta_min=0.01)]]


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step")
@pytest.mark.parametrize("parts", CHAINS)
def test_several_at_once(parts):
    ours, theirs = optimizers()
    a = lr_scheduler.ChainedScheduler(parts(lr_scheduler, ours), optimizer=ours)
    b = torch.optim.lr_scheduler.ChainedScheduler(parts(torch.optim.lr_scheduler, theirs), optimizer=theirs)
    for _ in range(50):
        assert_equal_groups(ours, theirs)
        a.step()
        b.step()


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step")
@pytest.mark.parametrize("parts", CHAINS)
def test_several_at_once_go_on(parts):
    """From the numbers of a state dict."""
    whole, other = (lr_scheduler.ChainedScheduler(parts(lr_scheduler, optimizers()[0])) for _ in range(2))
    for _ in range(21):
        whole.step()
    other.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    for _ in range(9):
        assert other.get_last_lr() == whole.get_last_lr() and other.last_epoch == whole.last_epoch
        whole.step()
        other.step()


def test_many_steps_are_taken_up_at_once():
    """The rates are part of the state, not found again from step 0."""
    calls = []

    def factor(t):
        calls.append(t)
        return 0.99999

    make = lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.MultiplicativeLR(o, factor), lr_scheduler.LinearLR(o)])
    whole, other = make(optimizers()[0]), make(optimizers()[0])
    for _ in range(10_000):
        whole.step()
    calls.clear()
    other.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    other.step()
    whole.step()
    assert other.get_last_lr() == whole.get_last_lr() and calls == [10_001] * 4  # two groups each


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step")
def test_several_at_once_taken_up_later():
    ours, theirs = optimizers()

    def parts(module, o, last):
        return [module.ExponentialLR(o, 0.9, last_epoch=last), module.CosineAnnealingLR(o, 9, eta_min=0.01, last_epoch=last)]

    before = torch.optim.lr_scheduler.ChainedScheduler(parts(torch.optim.lr_scheduler, theirs, -1))
    for _ in range(5):
        before.step()
    ours.load_state_dict(theirs.state_dict())
    a = lr_scheduler.ChainedScheduler(parts(lr_scheduler, ours, 4))
    for _ in range(20):
        assert_equal_groups(ours, theirs)
        a.step()
        before.step()


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step", "ignore:The epoch parameter")
def test_one_after_another():
    ours, theirs = optimizers()
    chains = []
    for module, optimizer in ((lr_scheduler, ours), (torch.optim.lr_scheduler, theirs)):
        parts = [module.LinearLR(optimizer, 0.1, total_iters=4), module.CosineAnnealingLR(optimizer, 6),
                 module.ExponentialLR(optimizer, 0.5)]
        chains.append(module.SequentialLR(optimizer, parts, [4, 10]))
    for _ in range(15):
        np.testing.assert_allclose(chains[0].get_last_lr(), chains[1].get_last_lr(), rtol=1e-9, atol=1e-12)
        for chain in chains:
            chain.step()


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step")
@pytest.mark.parametrize("late", CASES[::2] + CASES[1:4])
@pytest.mark.parametrize("early", CASES[:6] + CASES[7:22:3])
def test_made_after_another_has_run(early, late):
    """Stepped by hand: the first alone, then both, with a rate that the user sets and one that a plateau lowers."""
    every, plateaus = [], []
    for module, optimizer in zip((lr_scheduler, torch.optim.lr_scheduler), optimizers()):
        first = getattr(module, early[0])(optimizer, **early[1])
        for _ in range(4):
            first.step()
        every.append((optimizer, first, getattr(module, late[0])(optimizer, **late[1])))
        plateaus.append(module.ReduceLROnPlateau(optimizer, patience=0, factor=0.7))
    for k in range(12):
        assert_equal_groups(*(optimizer for optimizer, *_ in every))
        assert [group["initial_lr"] for group in every[0][0].param_groups] == pytest.approx(
            [group["initial_lr"] for group in every[1][0].param_groups])
        for (optimizer, first, second), plateau in zip(every, plateaus):
            first.step()
            second.step()
            if k == 3:
                optimizer.param_groups[0]["lr"] = 0.05
            if k > 7:
                plateau.step(1.0)


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step")
@pytest.mark.parametrize("last", [-1, 3])
@pytest.mark.parametrize("name, options", CASES[1:9] + CASES[10:])
def test_groups_that_have_their_initial_rates(name, options, last):
    """Not of the two whose step 4 PyTorch gets wrong: a change of the rate is made again, a restart misplaced."""
    values, made = np.ones(3, np.float32), []
    for make, kind, module in ((nn.Parameter, optim.SGD, lr_scheduler), (torch.tensor, torch.optim.SGD, torch.optim.lr_scheduler)):
        groups = [{"params": [make(values)], "initial_lr": 0.3}, {"params": [make(values)], "lr": 0.5, "initial_lr": 0.2}]
        optimizer = kind(groups, lr=0.1)
        if name == "OneCycleLR":  # PyTorch's reads these from the groups, which have them from its own state dict
            first = getattr(module, name)(optimizer, **options)
            first.step()
        made.append((optimizer, getattr(module, name)(optimizer, **options, last_epoch=last)))
    (ours, a), (theirs, b) = made
    for _ in range(12):
        assert a.last_epoch == b.last_epoch
        assert_equal_groups(ours, theirs)
        a.step()
        b.step()


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step", "ignore:The epoch parameter")
@pytest.mark.parametrize("parts", [
    lambda module, o: [module.StepLR(o, 2), module.CyclicLR(o, 0.01, 0.2, 3)],
    lambda module, o: [module.OneCycleLR(o, 0.5, 20), module.ExponentialLR(o, 0.9)],
    lambda module, o: [module.LinearLR(o, 0.2), module.MultiplicativeLR(o, lambda t: 0.9)],
    lambda module, o: [module.LambdaLR(o, lambda t: 1 / (1 + t)), module.CosineAnnealingWarmRestarts(o, 3)],
    lambda module, o: [module.MultiStepLR(o, [1, 3]), module.PolynomialLR(o, 6)]])
def test_one_after_another_of_all_kinds(parts):
    every = []
    for module, optimizer in zip((lr_scheduler, torch.optim.lr_scheduler), optimizers()):
        every.append((optimizer, module.SequentialLR(optimizer, parts(module, optimizer), [5])))
    for k in range(15):
        assert_equal_groups(*(optimizer for optimizer, _ in every))
        for optimizer, schedule in every:
            schedule.step()
            if k in (2, 8):
                optimizer.param_groups[1]["lr"] = 0.02


class Halved(lr_scheduler.LRScheduler):
    """As for PyTorch: `get_lr` from `base_lrs` and `last_epoch`, or from the present rates."""

    def get_lr(self):
        return [base / (1 + self.last_epoch) for base in self.base_lrs]


class PeerHalved(torch.optim.lr_scheduler.LRScheduler):
    get_lr = Halved.get_lr


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step")
def test_schedules_of_ones_own():
    ours, theirs = optimizers()
    pairs = [Halved(ours), lr_scheduler.StepLR(ours, 2)], [PeerHalved(theirs), torch.optim.lr_scheduler.StepLR(theirs, 2)]
    for _ in range(5):
        assert_equal_groups(ours, theirs)
        for schedule in (*pairs[0], *pairs[1]):
            schedule.step()


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step")
@pytest.mark.parametrize("name, options", CASES)
def test_states_of_pytorch(name, options):
    ours, theirs = optimizers()
    a = getattr(lr_scheduler, name)(ours, **options)
    b = getattr(torch.optim.lr_scheduler, name)(theirs, **options)
    for _ in range(6):
        b.step()
    a.load_state_dict(b.state_dict())
    for _ in range(6):
        assert a.get_last_lr() == pytest.approx(b.get_last_lr(), rel=1e-9)
        a.step()
        b.step()


@pytest.mark.parametrize("options", [dict(), dict(mode="max", factor=0.5, patience=1, threshold_mode="abs",
                                                  threshold=0.1),
                                     dict(patience=0, cooldown=3, min_lr=0.02, factor=0.3),
                                     dict(patience=2, threshold=0.2), dict(patience=1, min_lr=[0.03, 0.2])])
def test_plateaus(options):
    ours, theirs = optimizers()
    a = lr_scheduler.ReduceLROnPlateau(ours, **options)
    b = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **options)
    for value in np.abs(np.random.default_rng(0).normal(2, 1, 60)).cumsum() % 3:
        a.step(value)
        b.step(value)
        assert a.get_last_lr() == pytest.approx([group["lr"] for group in theirs.param_groups], rel=1e-12)
