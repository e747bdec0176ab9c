"""Schedules and averages of `fastnn.optim` as callbacks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from .callbacks import Callback, Logs, check_monitor


class LearningRateSchedule(Callback):
    """Goes through a schedule of `fastnn.optim.lr_scheduler`, a step after every epoch or after every batch.

    Parameters
    ----------
    schedule : object or callable
        A schedule of the trainer's optimiser, or ``schedule(optimizer)`` that makes one when training begins, such as
        ``lambda optimizer: StepLR(optimizer, 10)``. Later runs go on with it, those of another optimiser make one of their own.
    every : str
        "epoch" or "batch". After every batch means that steps are not replayed many at a time.
    monitor : str
        What schedules that look at a figure are shown: a key of the logs. A schedule that then is `exhausted` ends
        training.

    Raises
    ------
    TypeError
        If `schedule` has no `step` and cannot be called, or is a class.
    ValueError
        If `every` is neither; or, when training begins, if `monitor` is not computed, or `schedule` is of another optimiser.
    """

    state = ("_numbers",)

    def __init__(self, schedule: Any, every: str = "epoch", monitor: str = "loss") -> None:
        if isinstance(schedule, type):
            raise TypeError(f"LearningRateSchedule: schedule is the class {schedule.__name__}, expected a schedule or a function "
                            f"that makes one: lambda optimizer: {schedule.__name__}(optimizer, ...)")
        if not hasattr(schedule, "step") and not callable(schedule):
            raise TypeError(f"LearningRateSchedule: schedule is {schedule!r}, expected a schedule or a function that "
                            "makes one")
        if every not in ("epoch", "batch"):
            raise ValueError(f"LearningRateSchedule: every is {every!r}, expected 'epoch' or 'batch'")
        self.schedule, self.every, self.monitor = schedule, every, monitor
        self._make, self._made_for = None if hasattr(schedule, "step") else schedule, None
        if every == "batch":
            self.on_train_batch_end = self._after_batch
        else:
            self.every_step = False

    def on_train_begin(self, logs: Logs | None = None) -> None:
        optimizer = self.trainer.optimizer
        if self._make is not None and self._made_for is not optimizer:
            self.schedule, self._made_for = self._make(optimizer), optimizer
        if getattr(self.schedule, "optimizer", optimizer) is not optimizer:
            raise ValueError(f"LearningRateSchedule: schedule is a {type(self.schedule).__name__} of another optimizer, but must be of "
                             "the trainer's, whose rates it sets")
        needed = [p for p in inspect.signature(self.schedule.step).parameters.values() if p.default is p.empty]
        self._looks = bool(needed)
        if self._looks:
            check_monitor("LearningRateSchedule", self.monitor, self.trainer)

    @property
    def _numbers(self) -> dict[str, Any]:
        """The schedule's state."""
        return self.schedule.state_dict()

    @_numbers.setter
    def _numbers(self, state: dict[str, Any]) -> None:
        self.schedule.load_state_dict(state)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.every == "epoch":
            self._step(logs)

    def _after_batch(self, batch: int, logs: Logs) -> None:
        """Hook `on_train_batch_end` of every="batch"."""
        self._step(logs)

    def _step(self, logs: Logs) -> None:
        step: Callable[..., None] = self.schedule.step
        if self._looks:
            step(logs[self.monitor])
        else:
            step()
        if getattr(self.schedule, "exhausted", False):
            self.trainer.stop_training = True
