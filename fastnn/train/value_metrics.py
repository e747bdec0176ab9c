"""Metrics of values, as regression predicts them: predictions and targets of one shape, (N,) or (N, K)."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np

from .metric import Array, Metric, _Mean, _weights


class _Regression(Metric):
    """Predictions and targets of one shape (N,) or (N, K)."""

    def _pair(self, prediction: Any, target: Any, sample_weight: Any) -> tuple[Array, Array, Array]:
        """Both as float64 (N, K), and the weights (N,)."""
        predicted, wanted = np.asarray(prediction), np.asarray(target)
        if predicted.size != wanted.size or len(predicted) != len(wanted):
            raise ValueError(f"{self.name}: prediction has shape {predicted.shape}, target {wanted.shape}")
        n = len(predicted)
        weights = np.ones(n) if sample_weight is None else _weights(sample_weight, n)
        shape = (n, predicted.size // n if n else 1)
        return predicted.reshape(shape).astype(np.float64), wanted.reshape(shape).astype(np.float64), weights


class _MeanError(_Mean, _Regression):
    """Mean over samples and outputs of an error."""

    _title = ""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name or self._title)

    @staticmethod
    @abstractmethod
    def _error(difference: Array) -> Array:
        """The error from the difference."""

    def update(self, prediction: Any, target: Any, sample_weight: Any = None) -> None:
        predicted, wanted, weights = self._pair(prediction, target, sample_weight)
        self._add(self._error(predicted - wanted).mean(axis=1), weights)


class MeanAbsoluteError(_MeanError):
    """Mean of |prediction - target| over samples and outputs.

    Parameters
    ----------
    name : str, optional
        Key of the result; ``"mae"`` by default.
    """

    _title = "mae"
    _error = staticmethod(np.abs)


class MeanSquaredError(_MeanError):
    """Mean of (prediction - target)^2 over samples and outputs.

    Parameters
    ----------
    name : str, optional
        Key of the result; ``"mse"`` by default.
    """

    _title = "mse"
    _error = staticmethod(np.square)


class R2(_Regression):
    """Coefficient of determination, 1 - residual / total sum of squares, averaged over outputs.

    As in scikit-learn, an output whose target is constant counts 1 if predicted exactly, else 0.
    The total is kept by updating mean and squared deviations batch by batch, without cancellation.

    Parameters
    ----------
    name : str
        Key of the result.

    References
    ----------
    T. F. Chan, G. H. Golub, R. J. LeVeque: Algorithms for computing the sample variance.
    The American Statistician 37 (1983), 242-247.
    """

    higher_is_better = True

    def __init__(self, name: str = "r2") -> None:
        super().__init__(name)

    def reset(self) -> None:
        self._count = 0.0
        self._origin: Array | None = None
        self._mean: Array | float = 0.0
        self._total: Array | float = 0.0
        self._residual: Array | float = 0.0

    def update(self, prediction: Any, target: Any, sample_weight: Any = None) -> None:
        predicted, wanted, weights = self._pair(prediction, target, sample_weight)
        added = weights.sum()
        if not added:
            return
        if self._origin is None:
            self._origin = wanted[0]
        predicted, wanted = predicted - self._origin, wanted - self._origin  # constant targets are exactly 0, their mean too
        mean = weights @ wanted / added
        shift, count = mean - self._mean, self._count + added
        self._total = self._total + weights @ (wanted - mean) ** 2 + shift**2 * (self._count * added / count)
        self._mean = self._mean + shift * (added / count)
        self._residual = self._residual + weights @ (predicted - wanted) ** 2
        self._count = count

    def result(self) -> float:
        if not self._count:
            return float("nan")
        total, residual = np.asarray(self._total), np.asarray(self._residual)
        constant = (total == 0) & ~np.isnan(residual)
        ratio = np.divide(residual, total, out=np.where(residual == 0, 0.0, 1.0), where=~constant)
        return float((1 - ratio).mean())
