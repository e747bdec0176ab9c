"""Classification."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import type_of_target, unique_labels

from .base import MLP, documented, is_stochastic


@documented
class MLPClassifier(ClassifierMixin, MLP):
    """A multi-layer perceptron for classification: scikit-learn's, trained by this engine, with what users ask of it there.

    The same data, parameters and `random_state` give scikit-learn's weights but for rounding: float32 data are computed in
    float32, others in float64.

    Parameters
    ----------
    {parameters}
    class_weight : dict, "balanced" or None
        Factors of the classes' samples in the loss; "balanced": so that all classes count the same.

    Attributes
    ----------
    classes_ : numpy.ndarray
        The labels, sorted.
    {attributes}

    References
    ----------
    scikit-learn, ``sklearn.neural_network.MLPClassifier``.

    Examples
    --------
    >>> from fastnn.sklearn import MLPClassifier
    >>> model = MLPClassifier((64, 32), activation="gelu", dropout=0.1, early_stopping=True, random_state=0)
    >>> model.fit(X, y, X_val=X_val, y_val=y_val).score(X_test, y_test)
    """

    def __init__(self, hidden_layer_sizes=(100,), activation="relu", *, solver="adam", alpha=0.0001, batch_size="auto",
                 learning_rate="constant", learning_rate_init=0.001, power_t=0.5, max_iter=200, shuffle=True, random_state=None,
                 tol=1e-4, verbose=False, warm_start=False, momentum=0.9, nesterovs_momentum=True, early_stopping=False,
                 validation_fraction=0.1, beta_1=0.9, beta_2=0.999, epsilon=1e-8, n_iter_no_change=10, max_fun=15000, dropout=0.0,
                 max_time=None, class_weight=None):
        self._keep(locals())

    @available_if(is_stochastic)
    def partial_fit(self, X, y, sample_weight=None, classes=None):
        """One epoch over more samples; `early_stopping` holds none of them back.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.
        classes : array_like
            All labels there will be; needed in the first call.

        Returns
        -------
        MLPClassifier
            Itself.

        Raises
        ------
        ValueError
            As `fit`, or if `classes` is missing or another than before.
        """
        if not hasattr(self, "classes_"):
            if classes is None:
                raise ValueError("classes must be passed on the first call to partial_fit.")
            self._set_classes(y if type_of_target(y).startswith("multilabel") else unique_labels(classes))
        elif classes is not None and not np.array_equal(self.classes_, unique_labels(classes)):
            raise ValueError(f"`classes={classes!r}` is not the same as on last call to partial_fit, was: {self.classes_!r}")
        return self._fit(X, y, sample_weight, incremental=True)

    def _set_classes(self, y: Any) -> None:
        self._binarizer = LabelBinarizer().fit(y)
        self.classes_ = self._binarizer.classes_

    def _learn_targets(self, y: Any, is_first: bool, incremental: bool) -> None:
        if not incremental and not (self.warm_start and hasattr(self, "classes_")):
            self._set_classes(y)
        found = unique_labels(y)
        if self.warm_start and not incremental and set(found) != set(self.classes_):
            raise ValueError("warm_start can only be used where `y` has the same classes as in the previous call to fit. Previously "
                             f"got {self.classes_}, `y` has {found}")
        if len(np.setdiff1d(found, self.classes_)):
            raise ValueError(f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}. 'y' has {found}.")
        self.n_outputs_ = 1 if self._binarizer.y_type_ == "binary" or len(self.classes_) == 1 else len(self.classes_)

    def _objective(self) -> str:
        return "softmax" if self._binarizer.y_type_ == "multiclass" and len(self.classes_) > 1 else "logistic"

    def _encoded(self, y: np.ndarray) -> np.ndarray:
        """Labels as numbers of classes, or 0 and 1 in columns."""
        if self._objective() == "softmax":
            return np.searchsorted(self.classes_, y).astype(np.int64)
        y = self._binarizer.transform(y)
        return np.asarray(y.toarray() if issparse(y) else y, np.float32)

    def _score_of(self, predicted: np.ndarray, y: np.ndarray, weights: np.ndarray | None) -> float:
        decided = predicted.argmax(1) if self._objective() == "softmax" else predicted > 0.5
        return accuracy_score(y if y.ndim == 1 else y > 0.5, decided, sample_weight=weights)

    def predict(self, X):
        """The likeliest class of each sample, or each of its labels that is likelier than not.

        Parameters
        ----------
        X : array_like or sparse matrix
            (n_samples, n_features).

        Returns
        -------
        numpy.ndarray
            Of `classes_`, (n_samples,), or a 0/1 matrix (n_samples, n_labels).
        """
        outputs = self._outputs(X)
        return self._binarizer.inverse_transform(outputs.ravel() if self.n_outputs_ == 1 else outputs)

    def predict_proba(self, X):
        """Probabilities of the classes.

        Parameters
        ----------
        X : array_like or sparse matrix
            (n_samples, n_features).

        Returns
        -------
        numpy.ndarray
            (n_samples, n_classes).
        """
        outputs = self._outputs(X)
        return np.hstack([1 - outputs, outputs]) if self.n_outputs_ == 1 else outputs

    def predict_log_proba(self, X):
        """Logarithms of `predict_proba`, which see."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
