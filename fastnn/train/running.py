"""Loss and metrics while batches go by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .metric import Metric

_BLOCK = 1 << 16  # predictions kept before the metrics see them: 256 KiB, still in the second-level cache

class RunningLogs(Mapping[str, Any]):
    """Means over the batches so far, under ``"loss"`` and the metrics' names; computed when read.

    A step adds its loss and hands over its prediction; metrics are updated with many batches at once, since
    NumPy's cost for a call on a small batch would exceed that of the batch's own arithmetic.

    Parameters
    ----------
    metrics : sequence of Metric
        The metrics; reset here.
    """

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = {metric.name: metric for metric in metrics}
        self._names = ("loss", *self._metrics)
        self.reset()

    def reset(self) -> None:
        """Begin anew: no batches."""
        self._loss, self.samples = 0.0, 0
        self._pending: list[tuple[Any, Any]] = []
        self._held = 0
        for metric in self._metrics.values():
            metric.reset()

    def add(self, loss: float, prediction: Any, target: Any) -> None:
        """Add a batch.

        Parameters
        ----------
        loss : float
            Mean loss of the batch.
        prediction, target : Tensor
            What the model returned and should have returned, N samples each; kept until the metrics see
            them, so the caller must not write to them.
        """
        self.advance(self._loss + loss * target.shape[0], prediction, target)

    def advance(self, total: float, prediction: Any, target: Any) -> None:
        """Add one or more batches whose losses have been summed elsewhere.

        Parameters
        ----------
        total : float
            Sum over all samples so far of their batch's mean loss.
        prediction, target : Tensor
            As for `add`; prediction may be None when there are no metrics.
        """
        self._loss = total
        self.samples += target.shape[0]
        if self._metrics:
            self._pending.append((prediction.detach(), target))
            self._held += prediction.numel()
            if self.is_full:
                self._flush()

    @property
    def is_full(self) -> bool:
        """Whether enough predictions are held for the metrics to see them."""
        return self._held >= _BLOCK

    def _flush(self) -> None:
        """Give the pending batches to the metrics as one."""
        if self._pending:
            predictions, wanted = (np.concatenate(parts) for parts in zip(*self._pending))
            self._pending, self._held = [], 0
            for metric in self._metrics.values():
                metric.update(predictions, wanted)

    def __getitem__(self, name: str) -> Any:
        if name == "loss":
            return self._loss / self.samples if self.samples else float("nan")
        self._flush()
        return self._metrics[name].result()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
