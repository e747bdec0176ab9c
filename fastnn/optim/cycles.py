"""Schedules that go up and down: cycles of the learning rate, and of the momentum against it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..checks import positive, real, whole
from .optimizer import Optimizer
from .schedule import LRScheduler, _between, _cosine, _each, _function, _optimizer


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
    last_epoch : int
        See `LRScheduler`.

    References
    ----------
    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017.
    """

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1):
        self.T_0 = whole("CosineAnnealingWarmRestarts: T_0", T_0, 1)
        self.T_mult = whole("CosineAnnealingWarmRestarts: T_mult", T_mult, 1)
        self.eta_min = real("CosineAnnealingWarmRestarts: eta_min", eta_min, 0)
        super().__init__(optimizer, last_epoch)

    def step(self, epoch: float | None = None) -> None:
        """Goes to the next step, or to step `epoch`, and sets its rates.

        Parameters
        ----------
        epoch : float, optional
            At least 0; may lie between whole numbers, such as ``epoch + batch / batches``.
        """
        if epoch is not None:
            self.last_epoch = real("CosineAnnealingWarmRestarts: epoch", epoch, 0)
            self._write(self.get_lr())
        else:
            super().step()

    def rate(self, base: float, t: float) -> float:
        length = self.T_0
        if self.T_mult == 1:
            t %= length
        while t >= length:
            t, length = t - length, length * self.T_mult
        return _cosine(base, self.eta_min, t / length)


class CyclicLR(LRScheduler):
    """Up from `base_lr` to `max_lr` in `step_size_up` steps, down again in `step_size_down`, over and over; the momentum, or
    the first of the betas, goes the other way, from `max_momentum` down to `base_momentum`.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set. Where no schedule took its groups before, their "initial_lr" becomes `base_lr`; where one did, the first
        rates begin at that "initial_lr", all others at `base_lr`.
    base_lr, max_lr : float or sequence of float
        The lowest and the highest rate, for all parameter groups or one for each.
    step_size_up : int
        At least 1.
    step_size_down : int, optional
        As `step_size_up` by default.
    mode : str
        "triangular"; "triangular2": the height halves with every cycle; "exp_range": it is multiplied by `gamma` at
        every step.
    gamma : float
        Above 0 and at most 1, for "exp_range".
    scale_fn : callable, optional
        What the height is multiplied by, in place of `mode`: a function of the number that `scale_mode` says.
    scale_mode : str
        "cycle": number of the cycle, from 1; "iterations": of the step, from 0.
    cycle_momentum : bool
        Whether the momentum is set too. The optimiser must have one.
    base_momentum, max_momentum : float or sequence of float
        The lowest and the highest momentum, at least 0 and below 1.
    last_epoch : int
        See `LRScheduler`.

    Raises
    ------
    ValueError
        If a parameter is out of range, or there is no momentum to cycle.

    References
    ----------
    L. N. Smith, "Cyclical learning rates for training neural networks", WACV 2017.
    """

    def __init__(self, optimizer: Optimizer, base_lr: float | Sequence[float], max_lr: float | Sequence[float],
                 step_size_up: int = 2000, step_size_down: int | None = None, mode: str = "triangular", gamma: float = 1.0,
                 scale_fn: Callable[[int], float] | None = None, scale_mode: str = "cycle", cycle_momentum: bool = True,
                 base_momentum: float | Sequence[float] = 0.8, max_momentum: float | Sequence[float] = 0.9,
                 last_epoch: int = -1):
        _optimizer(self, optimizer)
        if mode not in ("triangular", "triangular2", "exp_range"):
            raise ValueError(f"CyclicLR: mode is {mode!r}, but must be 'triangular', 'triangular2' or 'exp_range'")
        if scale_mode not in ("cycle", "iterations"):
            raise ValueError(f"CyclicLR: scale_mode is {scale_mode!r}, but must be 'cycle' or 'iterations'")
        self.mode, self.gamma = mode, _between("CyclicLR: gamma", gamma)
        lows = _each("CyclicLR: base_lr", base_lr, optimizer, _rate)
        self.highs = _each("CyclicLR: max_lr", max_lr, optimizer, _rate)
        self.scale_fn = None if scale_fn is None else _function("CyclicLR: scale_fn", scale_fn)
        self.scale_mode = scale_mode
        self.step_size_up = whole("CyclicLR: step_size_up", step_size_up, 1)
        self.step_size_down = (self.step_size_up if step_size_down is None
                               else whole("CyclicLR: step_size_down", step_size_down, 1))
        self.ranges = _momentum_ranges("CyclicLR", optimizer, cycle_momentum, base_momentum, max_momentum)
        if last_epoch == -1:
            for group, low in zip(optimizer.param_groups, lows):
                group["lr"] = low
        super().__init__(optimizer, last_epoch)
        self.base_lrs = lows  # the first rates, as PyTorch's, begin at the groups' "initial_lr"

    def height(self, t: int) -> float:
        """How far up the rate is at step `t`: 0 at the lowest, 1 at the highest."""
        cycle, place = divmod(t, self.step_size_up + self.step_size_down)
        is_up = place <= self.step_size_up
        height = place / self.step_size_up if is_up else 1 - (place - self.step_size_up) / self.step_size_down
        if self.scale_fn is not None:
            return height * self.scale_fn(cycle + 1 if self.scale_mode == "cycle" else t)
        return height * {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": self.gamma**t}[self.mode]

    def rates(self, bases: list[float], t: int) -> list[float]:
        height = self.height(t)
        return [low + (high - low) * height for low, high in zip(bases, self.highs)]

    def momenta(self, t: int) -> list[float] | None:
        height = self.height(t)
        return None if self.ranges is None else [high - (high - low) * height for low, high in zip(*self.ranges)]


class OneCycleLR(LRScheduler):
    """Up from max_lr / div_factor to `max_lr`, then down to the first rate / final_div_factor, in `total_steps` steps; the
    momentum, or the first of the betas, goes the other way, from `max_momentum` down to `base_momentum` and up again.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set; the "initial_lr" of its groups becomes the first rate.
    max_lr : float or sequence of float
        Above 0; for all parameter groups or one for each.
    total_steps : int, optional
        At least 2; further steps keep the last rate. By default `epochs` times `steps_per_epoch`.
    epochs, steps_per_epoch : int, optional
        At least 1; needed without `total_steps`.
    pct_start : float
        Which part of the steps goes up, from 0 to 1.
    anneal_strategy : str
        "cos" or "linear".
    cycle_momentum : bool
        Whether the momentum is set too. The optimiser must have one.
    base_momentum, max_momentum : float or sequence of float
        The lowest and the highest momentum, at least 0 and below 1.
    div_factor : float
        Above 0.
    final_div_factor : float
        Above 0.
    three_phase : bool
        Whether to come down to the first rate in as many steps as went up, before going to the last.
    last_epoch : int
        See `LRScheduler`.

    Raises
    ------
    ValueError
        If a parameter is out of range, or there is no momentum to cycle.

    References
    ----------
    Smith and Topin, "Super-convergence", arXiv:1708.07120, 2017.
    """

    def __init__(self, optimizer: Optimizer, max_lr: float | Sequence[float], total_steps: int | None = None,
                 epochs: int | None = None, steps_per_epoch: int | None = None, pct_start: float = 0.3,
                 anneal_strategy: str = "cos", cycle_momentum: bool = True,
                 base_momentum: float | Sequence[float] = 0.85, max_momentum: float | Sequence[float] = 0.95,
                 div_factor: float = 25.0, final_div_factor: float = 1e4, three_phase: bool = False, last_epoch: int = -1):
        _optimizer(self, optimizer)
        highs = _each("OneCycleLR: max_lr", max_lr, optimizer, positive)
        self.total_steps = _total_steps(total_steps, epochs, steps_per_epoch)
        pct_start = real("OneCycleLR: pct_start", pct_start, 0, 1)
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"OneCycleLR: anneal_strategy is {anneal_strategy!r}, but must be 'cos' or 'linear'")
        self.anneal_strategy = anneal_strategy
        first = 1 / positive("OneCycleLR: div_factor", div_factor)
        last = first / positive("OneCycleLR: final_div_factor", final_div_factor)
        top, end = pct_start * self.total_steps - 1, self.total_steps - 1
        three_phase = bool(three_phase)  # so many more phases
        self._rates = [[high * first, high, *[high * first] * three_phase, high * last] for high in highs]
        self._ends = [0.0, top, *[2 * top] * three_phase, end]
        self._momenta = None
        ranges = _momentum_ranges("OneCycleLR", optimizer, cycle_momentum, base_momentum, max_momentum)
        if ranges is not None:
            self._momenta = [[high, low, high, *[high] * three_phase] for low, high in zip(*ranges)]
        if last_epoch == -1:
            for group, rates in zip(optimizer.param_groups, self._rates):
                group["initial_lr"] = rates[0]
        super().__init__(optimizer, last_epoch)

    def _annealed(self, points: list[list[float]], t: int) -> list[float]:
        """Where each group is at step `t` on its way from point to point."""
        t = min(t, self.total_steps - 1)
        phase = next(k for k in range(1, len(self._ends)) if t <= self._ends[k] or k == len(self._ends) - 1)
        start, end = self._ends[phase - 1], self._ends[phase]
        part = (t - start) / (end - start) if end > start else 1.0
        ways = [(p[phase - 1], p[phase]) for p in points]
        return [_cosine(a, b, part) if self.anneal_strategy == "cos" else a + (b - a) * part for a, b in ways]

    def rates(self, bases: list[float], t: int) -> list[float]:
        return self._annealed(self._rates, t)

    def momenta(self, t: int) -> list[float] | None:
        return None if self._momenta is None else self._annealed(self._momenta, t)


def _total_steps(total_steps: Any, epochs: Any, steps_per_epoch: Any) -> int:
    """OneCycleLR's number of steps, however it was given."""
    if epochs is not None:
        epochs = whole("OneCycleLR: epochs", epochs, 1)
    if steps_per_epoch is not None:
        steps_per_epoch = whole("OneCycleLR: steps_per_epoch", steps_per_epoch, 1)
    if total_steps is None:
        if epochs is None or steps_per_epoch is None:
            raise ValueError("OneCycleLR: needs total_steps, or epochs and steps_per_epoch")
        total_steps = epochs * steps_per_epoch
    return whole("OneCycleLR: total_steps", total_steps, 2)


def _rate(name: str, value: Any) -> float:
    return real(name, value, 0)


def _momentum(name: str, value: Any) -> float:
    if real(name, value, 0) >= 1:
        raise ValueError(f"{name} is {value!r}, but must be at least 0 and below 1")
    return float(value)


def _momentum_ranges(name: str, optimizer: Optimizer, cycle_momentum: bool, low: Any,
                     high: Any) -> tuple[list[float], list[float]] | None:
    """The least and the largest momenta of the groups, where they are to cycle."""
    lows = _each(f"{name}: base_momentum", low, optimizer, _momentum)
    highs = _each(f"{name}: max_momentum", high, optimizer, _momentum)
    if cycle_momentum and not optimizer.defaults.keys() & {"momentum", "betas"}:
        raise ValueError(f"{name}: cycle_momentum is {cycle_momentum!r}, but must be False for {optimizer.name}, which has "
                         "neither momentum nor betas")
    return (lows, highs) if cycle_momentum else None
