"""What metrics have in common: `update` with batch after batch, `result` whenever wanted, `reset` to start anew."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

Array = np.ndarray


class Metric(ABC):
    """A figure computed over a stream of batches.

    Parameters
    ----------
    name : str
        Key of the result in logs and history.

    Attributes
    ----------
    higher_is_better : bool
        Which way "improved" points; used by callbacks with ``mode="auto"``.
    scalar : bool
        Whether `result` is one number, fit for a progress bar and a column of a CSV file.
    """

    higher_is_better = False
    scalar = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.reset()

    @abstractmethod
    def reset(self) -> None:
        """Forget all batches."""

    @abstractmethod
    def update(self, prediction: Any, target: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Parameters
        ----------
        prediction : array_like
            What the model returned, shape (N, ...).
        target : array_like
            What it should be, shape as the metric says.
        sample_weight : array_like, optional
            Weights of shape (N,); all 1 by default.

        Raises
        ------
        ValueError
            If the shapes do not belong together.
        """

    @abstractmethod
    def result(self) -> Any:
        """The value over all batches since `reset`; NaN where it is not defined (no samples yet)."""


class _Mean(Metric):
    """A weighted mean over samples of something computed for each."""

    def reset(self) -> None:
        self._sum = self._count = 0.0

    def _add(self, values: Array, weights: Array | None) -> None:
        if weights is None:
            self._sum += float(values.sum(dtype=np.float64))
            self._count += values.size
        else:
            self._sum += float(np.dot(values.astype(np.float64), weights))
            self._count += float(weights.sum())

    def result(self) -> float:
        return self._sum / self._count if self._count else float("nan")


def _weights(sample_weight: Any, n: int) -> Array:
    """Sample weights as float64 (n,)."""
    weights = np.asarray(sample_weight, np.float64)
    if weights.shape != (n,):
        raise ValueError(f"sample_weight has shape {weights.shape}, expected ({n},)")
    return weights
