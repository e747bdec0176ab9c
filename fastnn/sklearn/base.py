"""What both estimators share: parameters, the checks of data, and fitting as scikit-learn fits."""

from __future__ import annotations

import math
import time
import warnings
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state, column_or_1d, compute_sample_weight, gen_batches
from sklearn.utils.validation import check_array, check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from .. import optim
from ..checks import among, positive, real, shown, whole
from ..ops.activation import ACTIVATIONS
from ..train.interrupt import StepInterrupt
from .perceptron import Descent, Perceptron, Whole

_LEAST_RATE = 1e-6  # at which "adaptive" stops, as in scikit-learn
_BETWEEN = sorted(set(ACTIVATIONS) - {"glu", "softmax", "softmin", "log_softmax", "sign", "step"})  # what hidden layers can learn with

_PARAMETERS = """\
hidden_layer_sizes : int or sequence of int
        Units of each hidden layer; an empty sequence makes a linear model.
    activation : str
        Between layers: "relu", "tanh", "logistic", "identity" as in scikit-learn, or another of fastnn's, such as "gelu", "silu",
        "elu", "leaky_relu".
    solver : str
        "adam", "sgd" or "lbfgs" (SciPy's L-BFGS-B on all samples at once, in float64).
    alpha : float
        Strength of the penalty on squared weights.
    batch_size : int or "auto"
        Samples a step; "auto": 200, or all where there are fewer.
    learning_rate : str
        For "sgd": "constant"; "invscaling": learning_rate_init / (t + 1)^power_t after t samples; "adaptive": a fifth each time that
        `n_iter_no_change` epochs brought nothing.
    learning_rate_init : float
        The rate at the start.
    power_t : float
        Exponent of "invscaling".
    max_iter : int
        Most epochs, or iterations of "lbfgs".
    shuffle : bool
        Whether each epoch takes the samples in another order.
    random_state : int, numpy.random.RandomState or None
        Where weights, validation samples, orders and dropped units are drawn from.
    tol : float
        What an epoch has to gain to count as progress.
    verbose : bool
        Whether to print every epoch.
    warm_start : bool
        Whether `fit` goes on from the weights of the last one.
    momentum : float
        Of "sgd", from 0 to 1.
    nesterovs_momentum : bool
        Whether momentum has Nesterov's form.
    early_stopping : bool
        Whether the score on validation data, instead of the training loss, decides when to stop; the best epoch's weights stay.
    validation_fraction : float
        How much of X is held back for that, unless `fit` is given `X_val`.
    beta_1, beta_2 : float
        Memory of Adam's two means, at least 0 and below 1.
    epsilon : float
        Added to Adam's divisor.
    n_iter_no_change : int or inf
        Epochs without progress that are borne.
    max_fun : int
        Most evaluations of the loss by "lbfgs".
    dropout : float
        Probability of dropping a hidden unit while training.
    max_time : float or None
        Seconds after which no further epoch begins."""

_ATTRIBUTES = """\
coefs_, intercepts_ : list of numpy.ndarray
        Weights (fan_in, fan_out) and biases (fan_out,) of each layer; what is written into them counts.
    loss_, best_loss_ : float
        The last and the least epoch's loss, the penalty included; the least is None under early stopping.
    loss_curve_ : list of float
        The losses of all epochs.
    validation_scores_, validation_loss_curve_ : list of float or None
        Accuracies, or coefficients of determination, and losses without the penalty on validation data, after each epoch.
    best_validation_score_ : float or None
        The best of these under early stopping.
    n_iter_, t_ : int
        Epochs of the last call; samples seen in all.
    n_features_in_, n_layers_, n_outputs_ : int
        Widths of the input and the output, and the number of layers with both.
    out_activation_ : str
        What follows the last layer."""


def is_stochastic(estimator: Any) -> bool:
    """Whether it has `partial_fit`: an AttributeError says why where it has not.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        The one that is asked for it.
    """
    if estimator.solver == "lbfgs":
        raise AttributeError("partial_fit is only available for solver 'sgd' or 'adam', not 'lbfgs'")
    return True


def _state_of(optimizer: optim.Optimizer) -> tuple[str, dict[str, Any]]:
    return optimizer.name, optimizer.state_dict()


def documented(cls: type) -> type:
    """The class with what both share in its docstring."""
    if cls.__doc__ is not None:
        cls.__doc__ = cls.__doc__.replace("{parameters}", _PARAMETERS).replace("{attributes}", _ATTRIBUTES)
    return cls


class MLP(BaseEstimator):
    """What both estimators share; parameters and attributes as they list them."""

    def _keep(self, parameters: dict[str, Any]) -> None:
        """Each argument of the constructor becomes the attribute of its name, as scikit-learn's rules want."""
        vars(self).update((name, value) for name, value in parameters.items() if name not in ("self", "__class__"))

    # -- parameters --

    def _check_parameters(self) -> None:
        """Raises ValueError naming the parameter, what it is and what is allowed."""
        name = type(self).__name__
        for parameter, allowed in (("activation", _BETWEEN), ("solver", ["adam", "sgd", "lbfgs"]),
                                   ("learning_rate", ["constant", "invscaling", "adaptive"])):
            among(f"{name}: {parameter}", getattr(self, parameter), allowed)
        for parameter in ("alpha", "power_t", "tol"):
            real(f"{name}: {parameter}", getattr(self, parameter), 0)
        for parameter in ("learning_rate_init", "epsilon"):
            positive(f"{name}: {parameter}", getattr(self, parameter))
        for parameter in ("validation_fraction", "beta_1", "beta_2", "dropout"):
            if real(f"{name}: {parameter}", getattr(self, parameter), 0, 1) == 1:
                raise ValueError(f"{name}: {parameter} is 1, but must be below 1")
        real(f"{name}: momentum", self.momentum, 0, 1)
        for parameter in ("max_iter", "max_fun"):
            whole(f"{name}: {parameter}", getattr(self, parameter), 1)
        if self.n_iter_no_change != math.inf:
            whole(f"{name}: n_iter_no_change", self.n_iter_no_change, 1)
        if self.batch_size != "auto":
            whole(f"{name}: batch_size", self.batch_size, 1)
        if self.max_time is not None:
            positive(f"{name}: max_time", self.max_time)
        for parameter in ("shuffle", "warm_start", "nesterovs_momentum", "early_stopping"):
            if not isinstance(getattr(self, parameter), (bool, np.bool_)):
                raise ValueError(f"{name}: {parameter} is {shown(getattr(self, parameter))}, but must be True or False")

    def _hidden(self) -> list[int]:
        sizes = self.hidden_layer_sizes
        sizes = list(sizes) if hasattr(sizes, "__iter__") and not isinstance(sizes, str) else [sizes]
        return [whole(f"{type(self).__name__}: each of hidden_layer_sizes", size, 1) for size in sizes]

    # -- data --

    def _checked(self, X: Any, y: Any, reset: bool) -> tuple[Any, np.ndarray]:
        X, y = validate_data(self, X, y, accept_sparse="csr", multi_output=True, y_numeric=not is_classifier(self),
                             dtype=(np.float64, np.float32), reset=reset)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return X, y

    def _weights_of(self, sample_weight: Any, y: Any, X: Any) -> np.ndarray | None:
        """The rows' weights in X's type; None where all count the same."""
        class_weight = getattr(self, "class_weight", None)
        if sample_weight is None and class_weight is None:
            return None
        if sample_weight is None or np.isscalar(sample_weight):
            weights = np.full(X.shape[0], 1 if sample_weight is None else sample_weight, X.dtype)
        else:
            weights = check_array(sample_weight, ensure_2d=False, dtype=X.dtype, input_name="sample_weight")
        if weights.shape != (X.shape[0],):
            raise ValueError(f"sample_weight has shape {weights.shape}, but X has {X.shape[0]} samples")
        if not weights.min(initial=0) >= 0 or not weights.max(initial=0) > 0:
            raise ValueError(f"sample_weight goes from {weights.min():g} to {weights.max():g}, but must hold no negative numbers and "
                             "not all zeros")
        if class_weight is not None:
            weights = weights * compute_sample_weight(class_weight, y).astype(X.dtype)
        return weights

    def _validation(self, X_val: Any, y_val: Any, sample_weight_val: Any) -> tuple[Any, ...] | None:
        """The caller's validation data, checked and encoded."""
        if X_val is None and y_val is None:
            if sample_weight_val is not None:
                raise ValueError("sample_weight_val is given, but X_val and y_val are not")
            return None
        if X_val is None or y_val is None:
            raise ValueError(f"{'X_val' if X_val is None else 'y_val'} is None, but X_val and y_val go together")
        X_val, y_val = self._checked(X_val, y_val, reset=False)
        return X_val, self._encoded(y_val), self._weights_of(sample_weight_val, y_val, X_val)

    # -- fitting --

    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None, sample_weight_val=None):
        """Learns from samples with their labels or values.

        Parameters
        ----------
        X : array_like or sparse matrix
            (n_samples, n_features).
        y : array_like
            Labels (n_samples,), or a 0/1 matrix (n_samples, n_labels) where samples have several; for regression values, (n_samples,)
            or (n_samples, n_outputs).
        sample_weight : array_like, optional
            (n_samples,), not negative.
        X_val, y_val, sample_weight_val : optional
            Validation data, judged after every epoch; `early_stopping` then holds none of X back.

        Returns
        -------
        MLPClassifier or MLPRegressor
            Itself.

        Raises
        ------
        ValueError
            If a parameter or the data are not what is allowed, or the loss grows without bounds.
        """
        return self._fit(X, y, sample_weight, (X_val, y_val, sample_weight_val))

    def _fit(self, X, y, sample_weight, validation=(None, None, None), incremental=False):
        self._check_parameters()
        hidden = self._hidden()
        is_first = not hasattr(self, "coefs_") or not (self.warm_start or incremental)
        X, y = self._checked(X, y, reset=is_first)
        if incremental and not is_first:
            X = X.astype(self.coefs_[0].dtype, copy=False)
        self._learn_targets(y, is_first, incremental)
        weights = self._weights_of(sample_weight, y, X)
        y = self._encoded(y)
        y = y if y.dtype.kind == "i" else y.astype(X.dtype, copy=False)
        self._random_state = check_random_state(self.random_state)
        validation = self._validation(*validation)
        if is_first:
            self._initialise([X.shape[1], *hidden, self.n_outputs_], X.dtype)
        elif [coef.shape[1] for coef in self.coefs_[:-1]] != hidden:
            raise ValueError(f"{type(self).__name__}: hidden_layer_sizes is {shown(self.hidden_layer_sizes)}, but the layers fitted "
                             f"before have {[coef.shape[1] for coef in self.coefs_[:-1]]} units: use warm_start=False")
        with np.errstate(all="ignore"):
            if self.solver == "lbfgs":
                self._fit_lbfgs(X, y, weights)
            else:
                self._fit_stochastic(X, y, weights, validation, incremental)
        self._check_finite()
        return self

    def _initialise(self, units: list[int], dtype: Any) -> None:
        """Weights and biases drawn as scikit-learn draws them, and records of nothing yet."""
        self.n_iter_, self.t_, self.n_layers_ = 0, 0, len(units)
        self.out_activation_ = {"softmax": "softmax", "logistic": "logistic", "poisson": "exp"}.get(self._objective(), "identity")
        self.coefs_, self.intercepts_ = [], []
        factor = 2.0 if self.activation in ("logistic", "sigmoid") else 6.0
        for fan_in, fan_out in zip(units, units[1:]):
            bound = np.sqrt(factor / (fan_in + fan_out))  # Glorot and Bengio
            self.coefs_.append(self._random_state.uniform(-bound, bound, (fan_in, fan_out)).astype(dtype, copy=False))
            self.intercepts_.append(self._random_state.uniform(-bound, bound, fan_out).astype(dtype, copy=False))
        self._descent, self._optimizer_state = None, (None, None)
        vars(self).pop("loss_curve_", None)

    def _perceptron(self, dtype: Any = None, seed: int | None = None) -> Perceptron:
        arrays = [[np.asarray(a, dtype) for a in group] for group in (self.coefs_, self.intercepts_)]
        return Perceptron(*arrays, *self._settings(), seed)

    def _settings(self) -> tuple[str, str, float, float]:
        return self.activation, self._objective(), self.alpha, self.dropout

    def _take_over(self, perceptron: Perceptron) -> None:
        """Its parameters' memory becomes `coefs_` and `intercepts_`."""
        self.coefs_, self.intercepts_ = perceptron.coefs, perceptron.intercepts
        self._network, self._views = perceptron, (*self.coefs_, *self.intercepts_)

    def _is_current(self) -> bool:
        """Whether `coefs_` and `intercepts_` are still those of the network that was fitted, whatever was written into them."""
        now = (*self.coefs_, *self.intercepts_)
        return len(now) == len(self._views) and all(a is b for a, b in zip(now, self._views))

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        for name in ("_network", "_views"):
            state.pop(name, None)
        descent = state.pop("_descent", None)
        if descent is not None:
            state["_optimizer_state"] = _state_of(descent.optimizer)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "coefs_" in state:
            self._descent = None
            self._take_over(self._perceptron())

    def _check_finite(self) -> None:
        if not all(np.isfinite(a).all() for a in (*self.coefs_, *self.intercepts_)):
            raise ValueError(f"{type(self).__name__}: the solver produced non-finite parameter weights; scale X to about unit "
                             f"variance, or lower learning_rate_init ({self.learning_rate_init!r})")

    def _fit_lbfgs(self, X: Any, y: np.ndarray, weights: np.ndarray | None) -> None:
        perceptron = self._perceptron(np.float64)
        X = X.toarray() if issparse(X) else X
        arrays = [a if a is None or a.dtype.kind == "i" else a.astype(np.float64) for a in (X, y, weights)]
        whole_data = Whole(perceptron, *arrays)
        with threadpool_limits(1, "blas"):  # SciPy's short sums leave BLAS threads spinning, which takes the engine's cores from it
            found = minimize(whole_data, whole_data.vector(), method="L-BFGS-B", jac=True,
                             options={"maxfun": self.max_fun, "maxiter": self.max_iter, "gtol": self.tol})
        whole_data(found.x)
        self._take_over(perceptron)
        self.loss_, self.n_iter_ = whole_data.reported, min(found.nit, self.max_iter)
        if found.status != 0:
            warnings.warn(f"lbfgs failed to converge after {found.nit} iterations ({found.message}): raise max_iter "
                          f"({self.max_iter}) or scale X", ConvergenceWarning, stacklevel=5)

    def _descend(self, incremental: bool, dtype: Any) -> Descent:
        """What takes steps: that of the last call, with its moments, where partial_fit goes on."""
        if incremental and self._descent is not None and self._is_current() and self._network.settings == self._settings():
            return self._descent
        name, state = self._optimizer_state if self._descent is None else _state_of(self._descent.optimizer)
        perceptron = self._perceptron(dtype, int(self._random_state.randint(2**31 - 1)) if self.dropout else None)
        descent = Descent(perceptron, self._optimizer(perceptron))
        if incremental and name == descent.optimizer.name:
            descent.optimizer.load_state_dict(state)
        return descent

    def _optimizer(self, perceptron: Perceptron) -> optim.Optimizer:
        if self.solver == "sgd":
            return optim.SGD(perceptron.parameters, self.learning_rate_init, self.momentum,
                             nesterov=self.nesterovs_momentum and self.momentum > 0)
        return optim.Adam(perceptron.parameters, self.learning_rate_init, (self.beta_1, self.beta_2), self.epsilon, epsilon_hat=True)

    def _split(self, X, y, weights):
        """Training and validation rows for early stopping, drawn as scikit-learn draws them: two classes stay balanced."""
        arrays = [X, y] if weights is None else [X, y, weights]
        parts = train_test_split(*arrays, random_state=self._random_state, test_size=self.validation_fraction,
                                 stratify=y if is_classifier(self) and self.n_outputs_ == 1 else None)
        if parts[1].shape[0] < 2:
            raise ValueError(f"{type(self).__name__}: the validation set has {parts[1].shape[0]} sample(s): raise validation_fraction "
                             f"({self.validation_fraction}) or the number of samples")
        train, held = parts[0::2], parts[1::2]
        return (*train, None)[:3], (*held, None)[:3]

    def _fit_stochastic(self, X, y, weights, validation, incremental) -> None:
        descent = self._descend(incremental, X.dtype)
        if not hasattr(self, "loss_curve_"):
            self.loss_curve_, self.best_loss_, self._no_improvement_count = [], math.inf, 0
            self.validation_scores_ = self.best_validation_score_ = self.validation_loss_curve_ = None
        if self.early_stopping and validation is None and not incremental:
            (X, y, weights), validation = self._split(X, y, weights)
        rows = X.shape[0]
        if self.batch_size != "auto" and self.batch_size > rows:
            warnings.warn(f"{type(self).__name__}: batch_size is {self.batch_size}, but there are {rows} samples: all make one batch",
                          stacklevel=4)
        batch_size = min(200 if self.batch_size == "auto" else self.batch_size, rows)
        epochs = None if incremental or issparse(X) else descent.epochs_of(X, y, weights, batch_size)
        self._descent = descent
        self._take_over(descent.perceptron)
        if self.early_stopping and validation is not None and self.best_validation_score_ is None:
            self.best_validation_score_, self.best_loss_ = -math.inf, None
        if validation is not None and self.validation_scores_ is None:
            self.validation_scores_, self.validation_loss_curve_ = [], []
        best = None
        order, until = np.arange(rows), math.inf if self.max_time is None else time.monotonic() + self.max_time
        self.n_iter_ = 0
        try:
            with StepInterrupt() as interrupt:
                for _ in range(1 if incremental else self.max_iter):
                    if self.shuffle:
                        drawn = np.arange(rows)  # as sklearn.utils.shuffle, without its checks
                        self._random_state.shuffle(drawn)
                        order = order[drawn]
                    self.loss_ = self._epoch(descent, epochs, (X, y, weights), order, batch_size, interrupt)
                    self._note_epoch(rows, validation)
                    if self._improved(validation) and self.early_stopping and validation is not None:
                        best = [np.array(a) for a in (*self.coefs_, *self.intercepts_)]
                    if not self._goes_on(descent):
                        break
                    if time.monotonic() >= until:
                        break
                else:
                    if not incremental:
                        warnings.warn(f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the optimization hasn't "
                                      "converged yet.", ConvergenceWarning, stacklevel=4)
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=4)
        if best is not None:
            for a, b in zip((*self.coefs_, *self.intercepts_), best):
                a[...] = b

    def _epoch(self, descent, epochs, data, order, batch_size, interrupt) -> float:
        """One epoch; returns its mean loss."""
        if epochs is None:
            return descent.epoch_of_batches(self._batches(*data, order, batch_size, interrupt))
        for loss in epochs.epoch(order):
            interrupt.check()
        return loss

    def _batches(self, X, y, weights, order, batch_size, interrupt):
        for part in gen_batches(len(order), batch_size):
            interrupt.check()
            rows = order[part]
            x = X[rows].toarray() if issparse(X) else X[rows]
            yield x, y[rows], None if weights is None else weights[rows]

    def _note_epoch(self, rows: int, validation: Any) -> None:
        self.n_iter_ += 1
        self.t_ += rows
        self.loss_curve_.append(self.loss_)
        if self.verbose:
            print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")
        if not math.isfinite(self.loss_):
            raise ValueError(f"{type(self).__name__}: the loss is {self.loss_} after epoch {self.n_iter_}; scale X to about unit "
                             f"variance, or lower learning_rate_init ({self.learning_rate_init!r})")
        if validation is not None:
            X, y, weights = validation
            predicted, loss = self._network.evaluate(X, y, weights)
            self.validation_scores_.append(self._score_of(predicted, y, weights))
            self.validation_loss_curve_.append(loss)
            if self.verbose and self.early_stopping:
                print(f"Validation score: {self.validation_scores_[-1]:f}")

    def _improved(self, validation: Any) -> bool:
        """Counts epochs without progress; returns whether this one is the best."""
        if self.early_stopping and validation is not None:
            score, best = self.validation_scores_[-1], self.best_validation_score_
            is_better, is_progress = score > best, score >= best + self.tol
            self.best_validation_score_ = score if is_better else best
        else:
            best = math.inf if self.best_loss_ is None else self.best_loss_
            is_better, is_progress = self.loss_ < best, self.loss_ <= best - self.tol
            self.best_loss_ = self.loss_ if is_better else best
        self._no_improvement_count = 0 if is_progress else self._no_improvement_count + 1
        return is_better

    def _goes_on(self, descent: Descent) -> bool:
        """Whether there is another epoch to be; learning rates change here."""
        if self.solver == "sgd" and self.learning_rate == "invscaling":
            descent.set_rate(self.learning_rate_init / (self.t_ + 1) ** self.power_t)
        if self._no_improvement_count <= self.n_iter_no_change:
            return True
        what = "Validation score" if self.early_stopping else "Training loss"
        message = f"{what} did not improve more than tol={self.tol:f} for {self.n_iter_no_change} consecutive epochs."
        rate = descent.optimizer.param_groups[0]["lr"]
        is_over = self.solver != "sgd" or self.learning_rate != "adaptive" or rate <= _LEAST_RATE
        if not is_over:
            descent.set_rate(rate / 5)
            self._no_improvement_count = 0
        if self.verbose:
            print(message, "Stopping." if is_over else f"Setting learning rate to {rate / 5:f}")
        return not is_over

    # -- predicting --

    def _outputs(self, X: Any) -> np.ndarray:
        """What the last layer gives for X: (n_samples, n_outputs)."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=(np.float64, np.float32), reset=False)
        network = self._network if self._is_current() else self._perceptron()
        return network.evaluate(X)[0]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
