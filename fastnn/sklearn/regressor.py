"""Regression."""

from __future__ import annotations

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.metaestimators import available_if

from ..checks import among
from .base import MLP, documented, is_stochastic


@documented
class MLPRegressor(RegressorMixin, MLP):
    """A multi-layer perceptron for regression: scikit-learn's, trained by this engine, with what users ask of it there.

    The same data, parameters and `random_state` give scikit-learn's weights but for rounding: float32 data are computed in
    float32, others in float64.

    Parameters
    ----------
    loss : str
        "squared_error", "poisson" (half the deviance of counts, of means that are exponentials), "absolute_error" or "huber"
        (squares of errors below 1, sizes beyond).
    {parameters}

    Attributes
    ----------
    {attributes}

    References
    ----------
    scikit-learn, ``sklearn.neural_network.MLPRegressor``.
    """

    def __init__(self, loss="squared_error", hidden_layer_sizes=(100,), activation="relu", *, solver="adam", alpha=0.0001,
                 batch_size="auto", learning_rate="constant", learning_rate_init=0.001, power_t=0.5, max_iter=200, shuffle=True,
                 random_state=None, tol=1e-4, verbose=False, warm_start=False, momentum=0.9, nesterovs_momentum=True,
                 early_stopping=False, validation_fraction=0.1, beta_1=0.9, beta_2=0.999, epsilon=1e-8, n_iter_no_change=10,
                 max_fun=15000, dropout=0.0, max_time=None):
        self._keep(locals())

    @available_if(is_stochastic)
    def partial_fit(self, X, y, sample_weight=None):
        """One epoch over more samples; `early_stopping` holds none of them back.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.

        Returns
        -------
        MLPRegressor
            Itself.

        Raises
        ------
        ValueError
            As `fit`.
        """
        return self._fit(X, y, sample_weight, incremental=True)

    def _learn_targets(self, y: np.ndarray, is_first: bool, incremental: bool) -> None:
        among("MLPRegressor: loss", self.loss, ["squared_error", "poisson", "absolute_error", "huber"])
        if self.loss == "poisson" and y.size and y.min() < 0:
            raise ValueError(f"MLPRegressor: y holds {y.min():g}, but loss 'poisson' needs counts of at least 0")
        outputs = 1 if y.ndim == 1 else y.shape[1]
        if not is_first and outputs != self.n_outputs_:
            raise ValueError(f"MLPRegressor: y has {outputs} outputs, but had {self.n_outputs_} before")
        self.n_outputs_ = outputs

    def _objective(self) -> str:
        return self.loss

    def _encoded(self, y: np.ndarray) -> np.ndarray:
        return y.reshape(len(y), -1)

    def _score_of(self, predicted: np.ndarray, y: np.ndarray, weights: np.ndarray | None) -> float:
        return r2_score(y, predicted, sample_weight=weights)

    def predict(self, X):
        """Values of samples.

        Parameters
        ----------
        X : array_like or sparse matrix
            (n_samples, n_features).

        Returns
        -------
        numpy.ndarray
            (n_samples,) or (n_samples, n_outputs).
        """
        outputs = self._outputs(X)
        return outputs.ravel() if self.n_outputs_ == 1 else outputs
