"""Schedules of the learning rate, with PyTorch's names and rates.

A schedule writes into the 0-d tensor that updates read the rate from, so captured programs see it change. `step()` goes
to the next epoch, or to the next batch if it is called for every batch. `fastnn.train.LearningRateSchedule` calls it
during `fit`.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from typing import Any

from ..checks import positive, real, whole
from .cycles import CosineAnnealingWarmRestarts, CyclicLR, OneCycleLR
from .optimizer import Optimizer
from .plateau import AdaptiveLR, ReduceLROnPlateau
from .schedule import LRScheduler, RelativeLR, _between, _cosine, _each, _function, _milestones, _optimizer

__all__ = ["AdaptiveLR", "ChainedScheduler", "ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "CyclicLR",
           "ExponentialLR", "InverseScalingLR", "LRScheduler", "LambdaLR", "LinearLR", "MultiStepLR", "MultiplicativeLR",
           "OneCycleLR", "PolynomialLR", "ReduceLROnPlateau", "RelativeLR", "SequentialLR", "StepLR"]


class LambdaLR(LRScheduler):
    """The base rate times a function of the step.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set.
    lr_lambda : callable or sequence of callable
        ``lr_lambda(t)`` gives the factor at step t, from 0; one for all parameter groups or one for
        each.
    last_epoch : int
        See `LRScheduler`.
    """

    def __init__(self, optimizer: Optimizer,
                 lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]], last_epoch: int = -1):
        self.lr_lambdas = tuple(_each("LambdaLR: lr_lambda", lr_lambda, _optimizer(self, optimizer), _function))
        super().__init__(optimizer, last_epoch)

    def rates(self, bases: list[float], t: int) -> list[float]:
        return [base * factor(t) for base, factor in zip(bases, self.lr_lambdas)]


class MultiplicativeLR(LRScheduler):
    """At every step the rate before it times a function of the step.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set.
    lr_lambda : callable or sequence of callable
        ``lr_lambda(t)`` gives the factor that leads to step t, from 1; one for all parameter groups or one
        for each.
    last_epoch : int
        See `LRScheduler`.
    """

    def __init__(self, optimizer: Optimizer,
                 lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]], last_epoch: int = -1):
        self.lr_lambdas = tuple(_each("MultiplicativeLR: lr_lambda", lr_lambda, _optimizer(self, optimizer), _function))
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return [rate * factor(self.last_epoch) for rate, factor in zip(self.get_last_lr(), self.lr_lambdas)]

    def _begin(self) -> None:
        self._write(self.get_last_lr())

    def _take_over(self) -> None:
        self.last_epoch = 0
        self._write(self.get_lr())


class PolynomialLR(RelativeLR):
    """The base rate times (1 - t / total_iters)^power, 0 from `total_iters` on.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set.
    total_iters : int
        At least 1.
    power : float
        Of the polynomial, at least 0.
    last_epoch : int
        See `LRScheduler`.
    """

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1):
        self.total_iters = whole("PolynomialLR: total_iters", total_iters, 1)
        self.power = real("PolynomialLR: power", power, 0)
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, t: int) -> float:
        return base * (1 - min(t, self.total_iters) / self.total_iters) ** self.power


class ConstantLR(RelativeLR):
    """The base rate times `factor` for the first `total_iters` steps, then the base rate.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set.
    factor : float
        Above 0 and at most 1; 1 leaves the rate constant throughout.
    total_iters : int
        How many steps.
    last_epoch : int
        See `LRScheduler`.
    """

    def __init__(self, optimizer: Optimizer, factor: float = 1 / 3, total_iters: int = 5, last_epoch: int = -1):
        self.factor = _between("ConstantLR: factor", factor)
        self.total_iters = whole("ConstantLR: total_iters", total_iters, 0)
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, t: int) -> float:
        return base * self.factor if t < self.total_iters else base


class LinearLR(RelativeLR):
    """Warm-up: from `start_factor` to `end_factor` times the base rate in `total_iters` equal steps, constant
    afterwards.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set.
    start_factor : float
        Above 0 and at most 1.
    end_factor : float
        From 0 to 1.
    total_iters : int
        At least 1.
    last_epoch : int
        See `LRScheduler`.

    References
    ----------
    Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", arXiv:1706.02677, 2017.
    """

    def __init__(self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0,
                 total_iters: int = 5, last_epoch: int = -1):
        self.start_factor = _between("LinearLR: start_factor", start_factor)
        self.end_factor = real("LinearLR: end_factor", end_factor, 0, 1)
        self.total_iters = whole("LinearLR: total_iters", total_iters, 1)
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, t: int) -> float:
        done = min(t, self.total_iters) / self.total_iters
        return base * (self.start_factor + (self.end_factor - self.start_factor) * done)


class StepLR(RelativeLR):
    """Times `gamma` after every `step_size` steps.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set.
    step_size : int
        At least 1.
    gamma : float
        Above 0.
    last_epoch : int
        See `LRScheduler`.
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1):
        self.step_size, self.gamma = whole("StepLR: step_size", step_size, 1), positive("StepLR: gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, t: int) -> float:
        return base * self.gamma ** (t // self.step_size)


class MultiStepLR(RelativeLR):
    """Times `gamma` at every milestone.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set.
    milestones : sequence of int
        Step numbers, increasing.
    gamma : float
        Above 0.
    last_epoch : int
        See `LRScheduler`.
    """

    def __init__(self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1, last_epoch: int = -1):
        self.milestones = _milestones("MultiStepLR", milestones)
        self.gamma = positive("MultiStepLR: gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, t: int) -> float:
        return base * self.gamma ** bisect.bisect_right(self.milestones, t)


class ExponentialLR(RelativeLR):
    """Times `gamma` at every step: base gamma^t.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set.
    gamma : float
        Above 0.
    last_epoch : int
        See `LRScheduler`.
    """

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1):
        self.gamma = positive("ExponentialLR: gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, t: int) -> float:
        return base * self.gamma ** t


class InverseScalingLR(RelativeLR):
    """base / (t + 1)^power, scikit-learn's "invscaling".

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set.
    power : float
        At least 0.
    last_epoch : int
        See `LRScheduler`.
    """

    def __init__(self, optimizer: Optimizer, power: float = 0.5, last_epoch: int = -1):
        self.power = real("InverseScalingLR: power", power, 0)
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, t: int) -> float:
        return base / (t + 1) ** self.power


class CosineAnnealingLR(RelativeLR):
    """From the base rate down to `eta_min` in `T_max` steps along half a cosine, and up again in as many, and so on.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set.
    T_max : int
        At least 1.
    eta_min : float
        At least 0.
    last_epoch : int
        See `LRScheduler`.

    References
    ----------
    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1):
        self.T_max = whole("CosineAnnealingLR: T_max", T_max, 1)
        self.eta_min = real("CosineAnnealingLR: eta_min", eta_min, 0)
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, t: int) -> float:
        return _cosine(base, self.eta_min, t / self.T_max)


class _Schedules(LRScheduler):
    """Base class of schedules that are made of others: these keep the state."""

    schedulers: tuple[LRScheduler, ...]

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on: numbers only."""
        return {"last_epoch": self.last_epoch, "_last_lr": self.get_last_lr(),
                "_schedulers": [scheduler.state_dict() for scheduler in self.schedulers]}

    def _restore(self, state_dict: dict[str, Any]) -> None:
        parts = state_dict.get("_schedulers")
        if not isinstance(parts, list) or len(parts) != len(self.schedulers):
            raise ValueError(f"{type(self).__name__}: state_dict has no list '_schedulers' of {len(self.schedulers)} states")
        for scheduler, part in zip(self.schedulers, parts):
            scheduler._restore(part)


class SequentialLR(_Schedules):
    """One schedule after another, such as a warm-up and a cosine; each starts from its own step 0.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set: that of the schedules.
    schedulers : sequence of LRScheduler
        In order.
    milestones : sequence of int
        At which steps the next one takes over: one less than schedules.
    last_epoch : int
        See `LRScheduler`.

    Raises
    ------
    ValueError
        If there is no schedule, or the number of milestones does not fit.
    """

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int],
                 last_epoch: int = -1):
        self.schedulers = _schedules("SequentialLR", schedulers, optimizer)
        self.milestones = _milestones("SequentialLR", milestones)
        if len(self.schedulers) != len(self.milestones) + 1:
            raise ValueError(f"SequentialLR: there are {len(self.schedulers)} schedulers and {len(self.milestones)} "
                             "milestones, but there must be one milestone less than schedulers")
        super().__init__(optimizer, last_epoch)

    def _present(self) -> tuple[LRScheduler, int]:
        """Whose turn it is, and since how many steps."""
        which = bisect.bisect_right(self.milestones, self.last_epoch)
        return self.schedulers[which], self.last_epoch - [0, *self.milestones][which]

    def _begin(self) -> None:
        self._write([group["initial_lr"] for group in self.optimizer.param_groups])  # making the schedules changed the rates
        scheduler, since = self._present()
        scheduler._begin_anew()
        for _ in range(since):
            scheduler.step()

    def step(self) -> None:
        """Goes to the next step and sets its rates."""
        self.last_epoch += 1
        scheduler, since = self._present()
        if since:
            scheduler.step()
        else:
            scheduler._take_over()

    def _take_over(self) -> None:
        self.last_epoch = 0
        self._present()[0]._take_over()

    def _restore(self, state_dict: dict[str, Any]) -> None:
        super()._restore(state_dict)
        self.last_epoch = state_dict["last_epoch"]


class ChainedScheduler(_Schedules):
    """Several schedules at once: at every step each goes on from the rates that the one before it left, so that factors multiply.

    Parameters
    ----------
    schedulers : sequence of LRScheduler
        Of one optimiser.
    optimizer : Optimizer, optional
        The one whose rates to set: that of the schedules.

    Raises
    ------
    ValueError
        If there is no schedule, or one is not by step number or of another optimiser.

    Notes
    -----
    These are PyTorch's rates: `LambdaLR`, `CosineAnnealingWarmRestarts`, `CyclicLR` and `OneCycleLR` write the rates that they have
    alone, whatever the ones before them wrote.
    """

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None):
        self.schedulers = _schedules("ChainedScheduler", schedulers, optimizer)
        self.optimizer = self.schedulers[0].optimizer
        self.base_lrs = self.schedulers[0].base_lrs

    @property
    def last_epoch(self) -> int:
        """Number of the present step, from 0."""
        return self.schedulers[0].last_epoch

    def step(self) -> None:
        """Goes to the next step of each schedule and sets its rates."""
        for scheduler in self.schedulers:
            scheduler.step()

    def _begin_anew(self) -> None:
        for scheduler in self.schedulers:
            scheduler._begin_anew()

    def _take_over(self) -> None:
        for k, scheduler in enumerate(self.schedulers):
            scheduler._begin_anew() if k else scheduler._take_over()


def _schedules(name: str, schedulers: Any, optimizer: Optimizer | None) -> tuple[LRScheduler, ...]:
    """Schedules by step number, at least one, all of one optimiser."""
    if not isinstance(schedulers, Sequence) or not schedulers:
        raise ValueError(f"{name}: schedulers is {schedulers!r}, but must be a sequence of at least one schedule")
    for scheduler in schedulers:
        owner = getattr(schedulers[0], "optimizer", None) if optimizer is None else optimizer
        if not isinstance(scheduler, LRScheduler) or scheduler.optimizer is not owner:
            raise ValueError(f"{name}: {scheduler!r} is not a schedule of this optimizer by step number")
    return tuple(schedulers)
