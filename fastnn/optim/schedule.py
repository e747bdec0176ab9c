"""What schedules of the learning rate share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ..checks import positive, whole
from .optimizer import Optimizer, ParamGroup


class LRScheduler:
    """Base class of schedules that follow from the step number.

    A subclass defines `rate`, or `rates` where groups differ in more than their base rates, or `get_lr`, which may look at the
    present rates too; and `momenta` where it sets the momentum.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set. Base rates are the "initial_lr" of its groups: the rates they had when the first schedule took them.
    last_epoch : int
        The step before the first; above -1 to go on with an optimiser whose groups have their "initial_lr", as those have
        that a schedule once took, or a state dict made of such.

    Attributes
    ----------
    last_epoch : int
        Number of the present step, from 0.
    base_lrs : list of float
        For each parameter group.

    Raises
    ------
    TypeError
        If `optimizer` is no Optimizer.
    ValueError
        If `last_epoch` is below -1, or above and a group has no "initial_lr".
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1):
        self.optimizer = _optimizer(self, optimizer)
        self.last_epoch = whole(f"{type(self).__name__}: last_epoch", last_epoch, -1) + 1
        for group in optimizer.param_groups:
            if "initial_lr" not in group:
                if self.last_epoch > 0:
                    raise ValueError(f"{type(self).__name__}: last_epoch is {last_epoch}, but must be -1 where a parameter "
                                     "group has no 'initial_lr'")
                group["initial_lr"] = group["lr"]
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self._begin()

    def rate(self, base: float, t: int) -> float:
        """The rate at step `t`, from 0, of a group whose base rate is `base`."""
        raise TypeError(f"{type(self).__name__} must define rate(base, t)")

    def rates(self, bases: list[float], t: int) -> list[float]:
        """The rate of each parameter group at step `t`, given their base rates, where nobody else sets rates."""
        return [self.rate(base, t) for base in bases]

    def get_lr(self) -> list[float]:
        """The rate of each parameter group at step `last_epoch`; its groups still have those of the step before."""
        return self.rates(self.base_lrs, self.last_epoch)

    def momenta(self, t: int) -> list[float] | None:
        """The momentum of each parameter group at step `t`; None: it stays as it is."""
        return None

    def step(self) -> None:
        """Goes to the next step and sets its rates."""
        self.last_epoch += 1
        self._write(self.get_lr())

    def _begin(self) -> None:
        """Sets the rates of the first step."""
        self._write(self.get_lr())

    def _begin_anew(self) -> None:
        """Sets the rates of step 0, as at the beginning."""
        self.last_epoch = 0
        self._begin()

    def _take_over(self) -> None:
        """Sets the rates of step 0, after another schedule: back from where that one led."""
        self.last_epoch = 0
        self._write(self.rates(self.base_lrs, 0))

    def _write(self, rates: list[float]) -> None:
        groups = self.optimizer.param_groups
        for group, rate in zip(groups, rates):
            group["lr"] = rate
        for group, momentum in zip(groups, self.momenta(self.last_epoch) or ()):
            _set_momentum(group, momentum)

    def get_last_lr(self) -> list[float]:
        """The present rate of each parameter group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on: numbers only."""
        numbers = {name: value for name, value in vars(self).items() if isinstance(value, (int, float, list))}
        return {**numbers, "_last_lr": self.get_last_lr()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave, and sets the rates.

        Parameters
        ----------
        state_dict : dict
            PyTorch's as well.

        Raises
        ------
        ValueError
            If it is of another number of parameter groups or schedules.
        """
        rates, groups = state_dict.get("_last_lr", self.get_last_lr()), len(self.optimizer.param_groups)
        if len(rates) != groups:
            raise ValueError(f"{type(self).__name__}: state_dict has the rates of {len(rates)} parameter groups, but there are "
                             f"{groups}")
        self._restore(state_dict)
        self._write(rates)

    def _restore(self, state_dict: dict[str, Any]) -> None:
        """Takes over all numbers but the optimiser's."""
        for name, value in state_dict.items():
            if isinstance(vars(self).get(name), (int, float, list)) and isinstance(value, (int, float, list)):
                setattr(self, name, value)


class RelativeLR(LRScheduler):
    """Base class of schedules that go on from the present rates, so that they add to what others, or the user, set.

    A rate is a(t) base + b(t), as a multiple of the base or a way from it to another rate is: the base that would have led to the
    present rate at the step before now leads to a new one. Where nobody else sets rates, they are those of `rates`.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set.
    last_epoch : int
        See `LRScheduler`; above -1 the present rates are taken to be those of the step after.
    """

    def get_lr(self) -> list[float]:
        scale, shift = self._scale_and_shift(self.last_epoch)
        old_scale, old_shift = self._scale_and_shift(self.last_epoch - 1)
        return [a / old_a * (rate - old_b) + b if old_a else rate - old_b + a * base + b for rate, base, a, b, old_a, old_b
                in zip(self.get_last_lr(), self.base_lrs, scale, shift, old_scale, old_shift)]

    def _begin(self) -> None:
        rates = self.get_last_lr()
        if self.last_epoch == 0:
            rates = [a * rate + b for rate, a, b in zip(rates, *self._scale_and_shift(0))]
        self._write(rates)

    def _scale_and_shift(self, t: int) -> tuple[list[float], list[float]]:
        """Of rates that are scale * base + shift."""
        groups = len(self.base_lrs)
        shift = self.rates([0.0] * groups, t)
        return [rate - b for rate, b in zip(self.rates([1.0] * groups, t), shift)], shift


def _optimizer(schedule: object, optimizer: Any) -> Optimizer:
    if not isinstance(optimizer, Optimizer):
        name = type(schedule).__name__
        raise TypeError(f"{name}: optimizer is a {type(optimizer).__name__}, but must be an Optimizer")
    return optimizer


def _set_momentum(group: ParamGroup, value: float) -> None:
    """Sets the momentum, or the first of the betas."""
    if "betas" in group:
        group["betas"] = (value, *group["betas"][1:])
    else:
        group["momentum"] = value


def _each(name: str, value: Any, optimizer: Optimizer, check: Callable[[str, Any], Any]) -> list:
    """A checked value for each parameter group, of one for all or a sequence of them."""
    count = len(optimizer.param_groups)
    values = list(value) if isinstance(value, (list, tuple)) else [value] * count
    if len(values) != count:
        raise ValueError(f"{name} is {value!r}, but must be one value, or {count}: one for each parameter group")
    return [check(name, v) for v in values]


def _function(name: str, value: Any) -> Callable[[int], float]:
    if not callable(value):
        raise TypeError(f"{name} is {value!r}, but must be a function of the step number")
    return value


def _cosine(high: float, low: float, part: float) -> float:
    """From `high` at part 0 to `low` at 1 along half a cosine."""
    return low + (high - low) * (1 + math.cos(math.pi * part)) / 2


def _milestones(name: str, milestones: Sequence[int]) -> list[int]:
    if not isinstance(milestones, Sequence) or isinstance(milestones, str):
        raise TypeError(f"{name}: milestones are {milestones!r}, but must be a sequence of integers")
    numbers = [whole(f"{name}: one of the milestones", m, 0) for m in milestones]
    if numbers != sorted(numbers):
        raise ValueError(f"{name}: milestones are {numbers}, but must be increasing")
    return numbers


def _between(name: str, value: Any) -> float:
    """`value` above 0 and at most 1."""
    if positive(name, value) > 1:
        raise ValueError(f"{name} is {value!r}, but must be above 0 and at most 1")
    return float(value)
