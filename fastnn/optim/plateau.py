"""Schedules that look at a figure, such as the loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..checks import positive, real, whole
from .optimizer import Optimizer
from .schedule import _each, _optimizer


class _ByFigure:
    """What schedules that look at a figure share: their state is what they count."""

    optimizer: Optimizer

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on."""
        return {name: value for name, value in vars(self).items() if name != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave."""
        for name in vars(self).keys() & state_dict.keys():
            setattr(self, name, state_dict[name])


class ReduceLROnPlateau(_ByFigure):
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
    min_lr : float or sequence of float
        The rate never goes below this; for all parameter groups or one for each.
    eps : float
        A smaller reduction is not made.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """

    def __init__(self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10,
                 threshold: float = 1e-4, threshold_mode: str = "rel", cooldown: int = 0,
                 min_lr: float | Sequence[float] = 0.0, eps: float = 1e-8):
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
        self.threshold = real(f"{name}: threshold", threshold, 0)
        self.min_lrs = _each(f"{name}: min_lr", min_lr, optimizer, lambda name, value: real(name, value, 0))
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
            for group, least in zip(self.optimizer.param_groups, self.min_lrs):
                lower = max(group["lr"] * self.factor, least)
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


class AdaptiveLR(_ByFigure):
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
