"""Schedules of the learning rate, with PyTorch's names and rates.

A schedule writes into the 0-d tensor that updates read the rate from, so captured programs see it change. `step()` goes
to the
next epoch, or to the next batch if it is called for every batch. `fastnn.train.LearningRateSchedule` calls it during
`fit`.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from typing import Any

from ..checks import positive, real, whole
from .optimizer import Optimizer
from .schedule import LRScheduler, _between, _optimizer

__all__ = ["AdaptiveLR", "ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "ExponentialLR",
           "CyclicLR", "InverseScalingLR", "LRScheduler", "LambdaLR", "LinearLR", "MultiStepLR", "MultiplicativeLR",
           "OneCycleLR", "PolynomialLR", "ReduceLROnPlateau", "SequentialLR", "StepLR"]


class LambdaLR(LRScheduler):
    """The base rate times a function of the step.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set.
    lr_lambda : callable
        ``lr_lambda(t)`` gives the factor at step t, from 0.
    """

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable[[int], float]):
        if not callable(lr_lambda):
            raise TypeError(f"LambdaLR: lr_lambda is {lr_lambda!r}, but must be a function of the step number")
        self.lr_lambda = lr_lambda
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        return base * self.lr_lambda(t)


class MultiplicativeLR(LRScheduler):
    """At every step the rate before it times a function of the step.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set.
    lr_lambda : callable
        ``lr_lambda(t)`` gives the factor that leads to step t, from 1.
    """

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable[[int], float]):
        if not callable(lr_lambda):
            raise TypeError(f"MultiplicativeLR: lr_lambda is {lr_lambda!r}, but must be a function of the step number")
        self.lr_lambda = lr_lambda
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        return base * math.prod(self.lr_lambda(k) for k in range(1, t + 1))


class PolynomialLR(LRScheduler):
    """The base rate times (1 - t / total_iters)^power, 0 from `total_iters` on.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set.
    total_iters : int
        At least 1.
    power : float
        Of the polynomial, at least 0.
    """

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0):
        self.total_iters = whole("PolynomialLR: total_iters", total_iters, 1)
        self.power = real("PolynomialLR: power", power, 0)
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        return base * (1 - min(t, self.total_iters) / self.total_iters) ** self.power


class CyclicLR(LRScheduler):
    """Up from `base_lr` to `max_lr` in `step_size_up` steps, down again in `step_size_down`, over and over; the
    momentum stays as it is.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set; the base rates are `base_lr` then.
    base_lr : float
        The lowest rate.
    max_lr : float
        The highest one.
    step_size_up : int
        At least 1.
    step_size_down : int, optional
        As `step_size_up` by default.
    mode : str
        "triangular"; "triangular2": the height halves with every cycle; "exp_range": it is multiplied by `gamma` at
        every step.
    gamma : float
        Above 0 and at most 1, for "exp_range".

    References
    ----------
    L. N. Smith, "Cyclical learning rates for training neural networks", WACV 2017.
    """

    def __init__(self, optimizer: Optimizer, base_lr: float, max_lr: float, step_size_up: int = 2000,
                 step_size_down: int | None = None, mode: str = "triangular", gamma: float = 1.0):
        if mode not in ("triangular", "triangular2", "exp_range"):
            raise ValueError(f"CyclicLR: mode is {mode!r}, but must be 'triangular', 'triangular2' or 'exp_range'")
        self.mode, self.base_lr = mode, real("CyclicLR: base_lr", base_lr, 0)
        self.max_lr, self.gamma = real("CyclicLR: max_lr", max_lr, 0), _between("CyclicLR: gamma", gamma)
        self.step_size_up = whole("CyclicLR: step_size_up", step_size_up, 1)
        self.step_size_down = (self.step_size_up if step_size_down is None
                               else whole("CyclicLR: step_size_down", step_size_down, 1))
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        cycle, place = divmod(t, self.step_size_up + self.step_size_down)
        up = place <= self.step_size_up
        height = place / self.step_size_up if up else 1 - (place - self.step_size_up) / self.step_size_down
        shrunk = {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": self.gamma**t}[self.mode]
        return self.base_lr + (self.max_lr - self.base_lr) * height * shrunk


class ConstantLR(LRScheduler):
    """The base rate times `factor` for the first `total_iters` steps, then the base rate.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set.
    factor : float
        Above 0 and at most 1; 1 leaves the rate constant throughout.
    total_iters : int
        How many steps.
    """

    def __init__(self, optimizer: Optimizer, factor: float = 1 / 3, total_iters: int = 5):
        self.factor = _between("ConstantLR: factor", factor)
        self.total_iters = whole("ConstantLR: total_iters", total_iters, 0)
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        return base * self.factor if t < self.total_iters else base


class LinearLR(LRScheduler):
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

    References
    ----------
    Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", arXiv:1706.02677, 2017.
    """

    def __init__(self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0,
                 total_iters: int = 5):
        self.start_factor = _between("LinearLR: start_factor", start_factor)
        self.end_factor = real("LinearLR: end_factor", end_factor, 0, 1)
        self.total_iters = whole("LinearLR: total_iters", total_iters, 1)
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        done = min(t, self.total_iters) / self.total_iters
        return base * (self.start_factor + (self.end_factor - self.start_factor) * done)


class StepLR(LRScheduler):
    """Times `gamma` after every `step_size` steps.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set.
    step_size : int
        At least 1.
    gamma : float
        Above 0.
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1):
        self.step_size, self.gamma = whole("StepLR: step_size", step_size, 1), positive("StepLR: gamma", gamma)
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        return base * self.gamma ** (t // self.step_size)


class MultiStepLR(LRScheduler):
    """Times `gamma` at every milestone.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set.
    milestones : sequence of int
        Step numbers, increasing.
    gamma : float
        Above 0.
    """

    def __init__(self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1):
        self.milestones = _milestones("MultiStepLR", milestones)
        self.gamma = positive("MultiStepLR: gamma", gamma)
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        return base * self.gamma ** bisect.bisect_right(self.milestones, t)


def _milestones(name: str, milestones: Sequence[int]) -> list[int]:
    if not isinstance(milestones, Sequence) or isinstance(milestones, str):
        raise TypeError(f"{name}: milestones are {milestones!r}, but must be a sequence of integers")
    numbers = [whole(f"{name}: one of the milestones", m, 0) for m in milestones]
    if numbers != sorted(numbers):
        raise ValueError(f"{name}: milestones are {numbers}, but must be increasing")
    return numbers


class ExponentialLR(LRScheduler):
    """Times `gamma` at every step: base gamma^t.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set.
    gamma : float
        Above 0.
    """

    def __init__(self, optimizer: Optimizer, gamma: float):
        self.gamma = positive("ExponentialLR: gamma", gamma)
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        return base * self.gamma ** t


class InverseScalingLR(LRScheduler):
    """base / (t + 1)^power, scikit-learn's "invscaling".

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set.
    power : float
        At least 0.
    """

    def __init__(self, optimizer: Optimizer, power: float = 0.5):
        self.power = real("InverseScalingLR: power", power, 0)
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        return base / (t + 1) ** self.power


def _cosine(high: float, low: float, part: float) -> float:
    """From `high` at part 0 to `low` at 1 along half a cosine."""
    return low + (high - low) * (1 + math.cos(math.pi * part)) / 2


class CosineAnnealingLR(LRScheduler):
    """From the base rate down to `eta_min` in `T_max` steps along half a cosine, and up again in as many, and so on.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set.
    T_max : int
        At least 1.
    eta_min : float
        At least 0.

    References
    ----------
    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0):
        self.T_max = whole("CosineAnnealingLR: T_max", T_max, 1)
        self.eta_min = real("CosineAnnealingLR: eta_min", eta_min, 0)
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        return _cosine(base, self.eta_min, t / self.T_max)


class CosineAnnealingWarmRestarts(LRScheduler):
    """Half cosines from the base rate to `eta_min`, each starting high again and `T_mult` times as long as the one
    before.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set.
    T_0 : int
        Length of the first, at least 1.
    T_mult : int
        At least 1.
    eta_min : float
        At least 0.

    References
    ----------
    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017.
    """

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0):
        self.T_0 = whole("CosineAnnealingWarmRestarts: T_0", T_0, 1)
        self.T_mult = whole("CosineAnnealingWarmRestarts: T_mult", T_mult, 1)
        self.eta_min = real("CosineAnnealingWarmRestarts: eta_min", eta_min, 0)
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        length = self.T_0
        if self.T_mult == 1:
            t %= length
        while t >= length:
            t, length = t - length, length * self.T_mult
        return _cosine(base, self.eta_min, t / length)


class OneCycleLR(LRScheduler):
    """Up from max_lr / div_factor to `max_lr`, then down to the first rate / final_div_factor, in `total_steps` steps.

    Momentum stays as it is: PyTorch's ``cycle_momentum=False``.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set.
    max_lr : float
        Above 0.
    total_steps : int
        At least 2; further steps keep the last rate.
    pct_start : float
        Which part of the steps goes up, from 0 to 1.
    anneal_strategy : str
        "cos" or "linear".
    div_factor : float
        Above 0.
    final_div_factor : float
        Above 0.
    three_phase : bool
        Whether to come down to the first rate in as many steps as went up, before going to the last.

    References
    ----------
    Smith and Topin, "Super-convergence", arXiv:1708.07120, 2017.
    """

    def __init__(self, optimizer: Optimizer, max_lr: float, total_steps: int, pct_start: float = 0.3,
                 anneal_strategy: str = "cos", div_factor: float = 25.0, final_div_factor: float = 1e4,
                 three_phase: bool = False):
        self.max_lr = positive("OneCycleLR: max_lr", max_lr)
        self.total_steps = whole("OneCycleLR: total_steps", total_steps, 2)
        pct_start = real("OneCycleLR: pct_start", pct_start, 0, 1)
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"OneCycleLR: anneal_strategy is {anneal_strategy!r}, but must be 'cos' or 'linear'")
        self.anneal_strategy = anneal_strategy
        first = self.max_lr / positive("OneCycleLR: div_factor", div_factor)
        last = first / positive("OneCycleLR: final_div_factor", final_div_factor)
        top, end = pct_start * self.total_steps - 1, self.total_steps - 1
        self._rates = [first, self.max_lr, *[first] * three_phase, last]
        self._ends = [0.0, top, *[2 * top] * three_phase, end]
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        t = min(t, self.total_steps - 1)
        phase = next(k for k in range(1, len(self._ends)) if t <= self._ends[k] or k == len(self._ends) - 1)
        start, end = self._ends[phase - 1], self._ends[phase]
        part = (t - start) / (end - start) if end > start else 1.0
        high, low = self._rates[phase - 1], self._rates[phase]
        return _cosine(high, low, part) if self.anneal_strategy == "cos" else high + (low - high) * part


class SequentialLR(LRScheduler):
    """One schedule after another, such as a warm-up and a cosine; each starts from its own step 0.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set: that of the schedules.
    schedulers : sequence of LRScheduler
        In order.
    milestones : sequence of int
        At which steps the next one takes over: one less than schedules.

    Raises
    ------
    ValueError
        If there is no schedule, or the number of milestones does not fit.
    """

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int]):
        self.schedulers, self.milestones = tuple(schedulers), _milestones("SequentialLR", milestones)
        if len(self.schedulers) != len(self.milestones) + 1:
            raise ValueError(f"SequentialLR: there are {len(self.schedulers)} schedulers and {len(self.milestones)} "
                             "milestones, but there must be one milestone less than schedulers")
        for scheduler in self.schedulers:
            if not isinstance(scheduler, LRScheduler) or scheduler.optimizer is not optimizer:
                raise ValueError(f"SequentialLR: {scheduler!r} is not a schedule of this optimizer by step number")
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        which = bisect.bisect_right(self.milestones, t)
        return self.schedulers[which].rate(base, t - ([0, *self.milestones][which]))


# ---- schedules that look at a figure
# ----------------------------------------------------------------------------------


class ReduceLROnPlateau:
    """Times `factor` when a figure has not improved for more than `patience` steps.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set.
    mode : str
        "min" or "max": which way is better.
    factor : float
        Above 0 and below 1.
    patience : int
        At least 0.
    threshold : float
        Smallest improvement that counts.
    threshold_mode : str
        "rel": relative to the best so far; "abs".
    cooldown : int
        Steps after a reduction in which none are counted.
    min_lr : float
        The rate never goes below this.
    eps : float
        A smaller reduction is not made.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """

    def __init__(self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10,
                 threshold: float = 1e-4, threshold_mode: str = "rel", cooldown: int = 0, min_lr: float = 0.0,
                 eps: float = 1e-8):
        name = "ReduceLROnPlateau"
        if mode not in ("min", "max"):
            raise ValueError(f"{name}: mode is {mode!r}, but must be 'min' or 'max'")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(f"{name}: threshold_mode is {threshold_mode!r}, but must be 'rel' or 'abs'")
        if positive(f"{name}: factor", factor) >= 1:
            raise ValueError(f"{name}: factor is {factor!r}, but must be above 0 and below 1")
        self.optimizer, self.factor = _optimizer(self, optimizer), factor
        self.mode, self.threshold_mode = mode, threshold_mode
        self.patience, self.cooldown = whole(f"{name}: patience", patience, 0), whole(f"{name}: cooldown", cooldown, 0)
        self.threshold, self.min_lr = real(f"{name}: threshold", threshold, 0), real(f"{name}: min_lr", min_lr, 0)
        self.eps = real(f"{name}: eps", eps, 0)
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = self.last_epoch = 0

    def step(self, metrics: float) -> None:
        """Looks at a new figure and reduces the rates if it is time.

        Parameters
        ----------
        metrics : float
            The figure; NaN never improves.
        """
        self.last_epoch += 1
        if self._is_better(float(metrics)):
            self.best, self.num_bad_epochs = float(metrics), 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter, self.num_bad_epochs = self.cooldown_counter - 1, 0
        if self.num_bad_epochs > self.patience:
            for group in self.optimizer.param_groups:
                lower = max(group["lr"] * self.factor, self.min_lr)
                if group["lr"] - lower > self.eps:
                    group["lr"] = lower
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0

    def _is_better(self, value: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        margin = self.threshold if self.threshold_mode == "abs" else self.threshold * abs(self.best)
        return sign * value > sign * self.best + margin if math.isfinite(self.best) else sign * value > sign * self.best

    def get_last_lr(self) -> list[float]:
        """The present rate of each parameter group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on."""
        return {name: value for name, value in vars(self).items() if name != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave."""
        for name in vars(self).keys() & state_dict.keys():
            setattr(self, name, state_dict[name])


class AdaptiveLR:
    """scikit-learn's "adaptive": the rate over 5 when the training loss fell by less than `tol` for a while.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set.
    tol : float
        At least 0.
    n_iter_no_change : int
        A reduction follows more than so many steps without improvement; at least 1.
    factor : float
        Above 0 and below 1.
    min_lr : float
        With a rate of at most this, there is nothing left to reduce: then `exhausted` is set.

    Attributes
    ----------
    exhausted : bool
        Whether training should stop.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """

    def __init__(self, optimizer: Optimizer, tol: float = 1e-4, n_iter_no_change: int = 10, factor: float = 0.2,
                 min_lr: float = 1e-6):
        if positive("AdaptiveLR: factor", factor) >= 1:
            raise ValueError(f"AdaptiveLR: factor is {factor!r}, but must be above 0 and below 1")
        self.optimizer, self.factor = _optimizer(self, optimizer), factor
        self.tol, self.min_lr = real("AdaptiveLR: tol", tol, 0), real("AdaptiveLR: min_lr", min_lr, 0)
        self.n_iter_no_change = whole("AdaptiveLR: n_iter_no_change", n_iter_no_change, 1)
        self.best, self.waited, self.exhausted = math.inf, 0, False

    def step(self, loss: float) -> None:
        """Looks at the loss of one more epoch.

        Parameters
        ----------
        loss : float
            The training loss.
        """
        self.waited = self.waited + 1 if not loss <= self.best - self.tol else 0
        self.best = min(self.best, loss)
        if self.waited > self.n_iter_no_change:
            self.waited = 0
            self.exhausted = self.optimizer.param_groups[0]["lr"] <= self.min_lr
            if not self.exhausted:
                for group in self.optimizer.param_groups:
                    group["lr"] *= self.factor
