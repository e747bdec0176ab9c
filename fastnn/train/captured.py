"""Passes over a data set whose steps are replayed in C, many for each time that Python is entered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import fastnn

from .._core import TensorBase, empty, launch
from ..data import DataLoader
from ..ops.create import float64
from ..ops.operands import constant
from ..program import CapturedProgram
from .running import RunningLogs

_MOST_BYTES = 1 << 28  # predictions of a whole pass are kept, for the metrics, up to this size


class CapturedPass:
    """Gathers batches, takes steps and keeps losses, predictions and changed targets, all as launches of one captured program.

    Parameters
    ----------
    step : callable
        ``step(*batch)`` returns the batch's loss, a 0-d tensor or None, and the prediction.
    loader : DataLoader
        Where the batches come from.
    keep_predictions : bool
        Whether they are wanted, by metrics or the caller.
    """

    def __init__(self, step: Callable[..., tuple[Any, Any]], loader: DataLoader, keep_predictions: bool) -> None:
        self._step, self._loader, self._keep = step, loader, keep_predictions
        self._program = CapturedProgram(self._on_rows, verify=True)
        self._loss = fastnn.zeros((), dtype=float64)
        self._predictions: Any = None
        self._targets: Any = None  # what `batch_transform` made of the targets, if it is to be judged by

    @property
    def obstacle(self) -> str | None:
        """Why the steps run eagerly, if they do."""
        return self._program.obstacle

    def _on_rows(self, rows: Any) -> None:
        """One step on the given rows of the data."""
        batch = self._loader.batch(rows)
        loss, prediction = self._step(*batch)
        if loss is not None:
            n = constant(float(rows.shape[0]), float64)
            launch.add(self._loss, launch.mul(launch.copy(loss.detach(), dtype=float64.code), n), out=self._loss)
        if not self._keep:
            return
        self._predictions = self._kept(self._predictions, rows, prediction.detach())
        if self._loader.batch_transform is not None:
            target = batch[1].detach()  # rows of floating-point numbers can be kept: labels lose nothing in float64
            target = target if target.is_floating_point() else launch.copy(target, dtype=float64.code)
            self._targets = self._kept(self._targets, rows, target)

    def _kept(self, whole: Any, rows: Any, part: Any) -> Any:
        """`whole`, of all samples, with `part`, of those in `rows`."""
        if whole is None:
            whole = empty((len(self._loader.dataset), *part.shape[1:]), part.dtype)
            whole.fill_(-0.0)
        return launch.index_add(rows, part, axis=0, out=whole)

    def _forget(self) -> None:
        """Nothing kept: all -0, to which any number can be added without changing a bit."""
        for whole in (self._predictions, self._targets):
            if whole is not None:
                whole.fill_(-0.0)

    def fits(self, prediction: Any, target: Any = None) -> bool:
        """Whether a batch's prediction and, where `batch_transform` makes it, its target are of a kind and size that can be kept for
        a whole pass."""
        if not self._keep:
            return True
        if not isinstance(prediction, TensorBase) or prediction.ndim == 0 or not prediction.is_floating_point():
            return False
        kept = [prediction] if self._loader.batch_transform is None or target is None else [prediction, target]
        return sum(part.nbytes / max(part.shape[0], 1) for part in kept) * len(self._loader.dataset) <= _MOST_BYTES

    def _replay(self) -> Iterator[tuple[Any, int]]:
        """One pass; yields, some twenty times a second, the rows done since, and how many are done in all."""
        order = self._loader.order()
        if order is None:
            order = fastnn.arange(len(self._loader.dataset))
        order = order[:self._loader.samples]
        self._loss.zero_()
        self._forget()
        seen = 0
        for done in self._program.run_many(order, self._loader.batch_size):
            yield order[seen:done], done
            seen = done

    def run(self, running: RunningLogs) -> Iterator[int]:
        """One pass; yields the number of batches done, some twenty times a second, with `running` up to date."""
        for rows, done in self._replay():
            prediction = launch.index_select(self._predictions, rows, axis=0) if self._keep else None
            targets = self._loader.gather_array(1, rows) if self._targets is None else launch.index_select(self._targets, rows, axis=0)
            running.advance(self._loss.item(), prediction, targets)
            yield -(-done // self._loader.batch_size)

    def predict(self) -> Any:
        """One pass; returns all predictions (N, ...), in the order of the data."""
        for _ in self._replay():
            pass
        return self._predictions
