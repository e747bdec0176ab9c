"""What schedules of the learning rate share."""

from __future__ import annotations

from typing import Any

from ..checks import positive
from .optimizer import Optimizer


class LRScheduler:
    """Base class of schedules that follow from the step number. A subclass defines `rate`.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates to set; those it has now, or had when the first schedule took it, are the base rates.

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
    """

    def __init__(self, optimizer: Optimizer):
        self.optimizer = _optimizer(self, optimizer)
        self.last_epoch = 0
        for group in optimizer.param_groups:
            if "initial_lr" not in group:
                group["initial_lr"] = group["lr"]
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self._write()

    def rate(self, base: float, t: int) -> float:
        """The rate at step `t`, from 0, of a group whose base rate is `base`."""
        raise TypeError(f"{type(self).__name__} must define rate(base, t)")

    def step(self) -> None:
        """Goes to the next step and sets its rates."""
        self.last_epoch += 1
        self._write()

    def _write(self) -> None:
        for group, base in zip(self.optimizer.param_groups, self.base_lrs):
            group["lr"] = self.rate(base, self.last_epoch)

    def get_last_lr(self) -> list[float]:
        """The present rate of each parameter group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on: numbers only."""
        return {name: value for name, value in vars(self).items() if isinstance(value, (int, float, list))}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave, and sets the rates."""
        for name, value in state_dict.items():
            if name in vars(self):
                setattr(self, name, value)
        self._write()


def _optimizer(schedule: object, optimizer: Any) -> Optimizer:
    if not isinstance(optimizer, Optimizer):
        name = type(schedule).__name__
        raise TypeError(f"{name}: optimizer is a {type(optimizer).__name__}, but must be an Optimizer")
    return optimizer


def _between(name: str, value: Any) -> float:
    """`value` above 0 and at most 1."""
    if positive(name, value) > 1:
        raise ValueError(f"{name} is {value!r}, but must be above 0 and at most 1")
    return float(value)
