"""Schedules of the learning rate against PyTorch's, step by step."""

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
    ("LambdaLR", dict(lr_lambda=lambda t: 1 / (1 + t)))]


def optimizers():
    values = np.ones(3, np.float32)
    return (optim.SGD([{"params": [nn.Parameter(values)]}, {"params": [nn.Parameter(values)], "lr": 0.5}], lr=0.1),
            torch.optim.SGD([{"params": [torch.tensor(values)]}, {"params": [torch.tensor(values)], "lr": 0.5}],
                            lr=0.1))


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step")
@pytest.mark.parametrize("name, options", CASES)
def test_rates(name, options):
    ours, theirs = optimizers()
    extra = {"cycle_momentum": False} if name in ("OneCycleLR", "CyclicLR") else {}
    a = getattr(lr_scheduler, name)(ours, **options)
    b = getattr(torch.optim.lr_scheduler, name)(theirs, **options, **extra)
    for _ in range(19):
        np.testing.assert_allclose(a.get_last_lr(), b.get_last_lr(), rtol=1e-9, atol=1e-15)
        a.step()
        b.step()


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


@pytest.mark.parametrize("options", [dict(), dict(mode="max", factor=0.5, patience=1, threshold_mode="abs",
                                                  threshold=0.1),
                                     dict(patience=0, cooldown=3, min_lr=0.02, factor=0.3),
                                     dict(patience=2, threshold=0.2)])
def test_plateaus(options):
    ours, theirs = optimizers()
    a = lr_scheduler.ReduceLROnPlateau(ours, **options)
    b = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **options)
    for value in np.abs(np.random.default_rng(0).normal(2, 1, 60)).cumsum() % 3:
        a.step(value)
        b.step(value)
        assert a.get_last_lr() == pytest.approx([group["lr"] for group in theirs.param_groups], rel=1e-12)
