"""Metrics of classes.

Predictions are what the model returns: logits (``from_logits=True``) or probabilities, with classes along axis 1, as in
PyTorch: (N, C) or (N, C, d1, ...); a two-class model may return one column (N, 1) or (N,). Targets are class indices (N,)
or (N, d1, ...), or one-hot or soft targets of the predictions' shape, 1 in sum over the classes; a column's may be
probabilities of class 1, or -1 and 1.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np

from ..checks import whole
from .metric import Array, Metric, _Mean, _weights


_ROUNDING = 1e-2  # by which the sum of soft targets may miss 1


class Accuracy(_Mean):
    """Share of samples whose most likely class is the right one.

    Parameters
    ----------
    name : str
        Key of the result.
    from_logits : bool
        Whether a single prediction column is a logit (right above 0) or a probability (above 0.5).
    ignore_index : int
        Targets of this value are left out, as in cross-entropy.
    """

    higher_is_better = True

    def __init__(self, name: str = "accuracy", *, from_logits: bool = True, ignore_index: int = -100) -> None:
        super().__init__(name)
        self.from_logits, self.ignore_index = from_logits, ignore_index

    def update(self, prediction: Any, target: Any, sample_weight: Any = None) -> None:
        scores, labels, weights = _class_inputs(prediction, target, sample_weight, self.ignore_index)
        self._add(_decide(scores, self.from_logits) == labels, weights)


class TopKAccuracy(_Mean):
    """Share of samples whose right class is among the `k` most likely.

    A tie at the k-th place counts as a hit only if fewer than `k` classes score strictly more than the right
    one and those that tie with a lower index leave room (the order of a stable sort). A single column is a logit.

    Parameters
    ----------
    k : int
        How many classes, at least 1.
    name : str, optional
        Key of the result; ``"top_<k>_accuracy"`` by default.
    ignore_index : int
        Targets of this value are left out.
    """

    higher_is_better = True

    def __init__(self, k: int = 5, name: str | None = None, *, ignore_index: int = -100) -> None:
        k = whole("TopKAccuracy: k", k, 1)
        super().__init__(name or f"top_{k}_accuracy")
        self.k, self.ignore_index = k, ignore_index

    def update(self, prediction: Any, target: Any, sample_weight: Any = None) -> None:
        scores, labels, weights = _class_inputs(prediction, target, sample_weight, self.ignore_index)
        scores = _columns(scores, True)
        own = np.take_along_axis(scores, labels[:, None], axis=1)
        earlier = np.arange(scores.shape[1]) < labels[:, None]
        rank = ((scores > own) | ((scores == own) & earlier)).sum(axis=1)
        self._add((rank < self.k) & ~np.isnan(own[:, 0]), weights)


class ConfusionMatrix(Metric):
    """Counts (or weights) of samples by true class (row) and predicted class (column).

    Parameters
    ----------
    name : str
        Key of the result.
    from_logits, ignore_index
        As for `Accuracy`.
    """

    scalar = False

    def __init__(self, name: str = "confusion_matrix", *, from_logits: bool = True, ignore_index: int = -100) -> None:
        super().__init__(name)
        self.from_logits, self.ignore_index = from_logits, ignore_index

    def reset(self) -> None:
        self.counts = np.zeros((0, 0))

    def update(self, prediction: Any, target: Any, sample_weight: Any = None) -> None:
        scores, labels, weights = _class_inputs(prediction, target, sample_weight, self.ignore_index)
        classes = max(2, scores.shape[1])
        if len(self.counts) == 0:
            self.counts = np.zeros((classes, classes))
        elif len(self.counts) != classes:
            raise ValueError(f"{self.name}: a batch has {classes} classes, those before had {len(self.counts)}")
        cells = labels * classes + _decide(scores, self.from_logits)
        self.counts += np.bincount(cells, weights, classes * classes).reshape(classes, classes)

    def result(self) -> Array:
        """Shape (C, C), float64 counts."""
        return self.counts.copy()


class _FromConfusion(ConfusionMatrix):
    """A figure of each class's true positives, computed from the confusion matrix.

    Parameters
    ----------
    average : {"auto", "binary", "macro", "micro"}
        ``"binary"``: class 1 of two. ``"macro"``: the mean over classes that occur as target or
        prediction. ``"micro"``: from counts summed over all classes. ``"auto"``: binary for two
        classes, macro for more.
    name : str, optional
        Key of the result.
    from_logits, ignore_index
        As for `Accuracy`.

    Raises
    ------
    ValueError
        If `average` is another word, or ``"binary"`` meets more than two classes.
    """

    scalar = higher_is_better = True
    _title = ""

    def __init__(self, average: str = "auto", name: str | None = None, *, from_logits: bool = True,
                 ignore_index: int = -100) -> None:
        if average not in ("auto", "binary", "macro", "micro"):
            raise ValueError(f"{self._title}: average is {average!r}, expected 'auto', 'binary', 'macro' or 'micro'")
        suffix = f"_{average}" if average in ("macro", "micro") else ""
        super().__init__(name or self._title + suffix, from_logits=from_logits, ignore_index=ignore_index)
        self.average = average

    @staticmethod
    @abstractmethod
    def _score(hits: Array, predicted: Array, actual: Array) -> Array:
        """The figure from true positives, predicted positives, actual positives; 0 where undefined."""

    def result(self) -> float:
        if len(self.counts) == 0:
            return float("nan")
        average = self.average
        if average == "auto":
            average = "binary" if len(self.counts) == 2 else "macro"
        if average == "binary" and len(self.counts) != 2:
            raise ValueError(f"{self.name}: average='binary' needs 2 classes, found {len(self.counts)}")
        hits, predicted, actual = self.counts.diagonal(), self.counts.sum(axis=0), self.counts.sum(axis=1)
        if average == "micro":
            return float(self._score(hits.sum(), predicted.sum(), actual.sum()))
        scores, occurs = self._score(hits, predicted, actual), (predicted + actual) > 0
        if average == "binary":
            return float(scores[1])
        return float(scores[occurs].mean()) if occurs.any() else float("nan")


class Precision(_FromConfusion):
    __doc__ = "Share of the predicted positives that are right.\n" + _FromConfusion.__doc__.partition("\n")[2]
    _title = "precision"

    @staticmethod
    def _score(hits: Array, predicted: Array, actual: Array) -> Array:
        return _ratio(hits, predicted)


class Recall(_FromConfusion):
    __doc__ = "Share of the actual positives that are found.\n" + _FromConfusion.__doc__.partition("\n")[2]
    _title = "recall"

    @staticmethod
    def _score(hits: Array, predicted: Array, actual: Array) -> Array:
        return _ratio(hits, actual)


class F1(_FromConfusion):
    __doc__ = "Harmonic mean of precision and recall.\n" + _FromConfusion.__doc__.partition("\n")[2]
    _title = "f1"

    @staticmethod
    def _score(hits: Array, predicted: Array, actual: Array) -> Array:
        return _ratio(2 * hits, predicted + actual)


class AUC(Metric):
    """Area under the ROC curve; for more than two classes the mean of one-against-rest (macro).

    Exact by default: all scores are stored, 8 bytes a sample and class. With `bins`, scores (as
    probabilities) are counted in that many equal bins of [0, 1] instead: fixed memory, and an error
    of at most half the share of pairs that fall into one bin. NaN scores make it NaN. Two classes are ranked by their logits'
    difference (exact), which no rounding of probabilities near 1 can tie.

    Parameters
    ----------
    bins : int, optional
        Number of bins, at least 2; None stores the scores.
    name : str
        Key of the result.
    from_logits, ignore_index
        As for `Accuracy`.

    References
    ----------
    T. Fawcett: An introduction to ROC analysis. Pattern Recognition Letters 27 (2006), 861-874.
    """

    higher_is_better = True

    def __init__(self, bins: int | None = None, name: str = "auc", *, from_logits: bool = True,
                 ignore_index: int = -100) -> None:
        self.bins = None if bins is None else whole("AUC: bins", bins, 2)
        super().__init__(name)
        self.from_logits, self.ignore_index = from_logits, ignore_index

    def reset(self) -> None:
        self._stored: list[tuple[Array, Array, Array]] = []
        self._binned: Array | None = None  # (columns, negatives and positives, bins)

    def update(self, prediction: Any, target: Any, sample_weight: Any = None) -> None:
        scores, labels, weights = _class_inputs(prediction, target, sample_weight, self.ignore_index)
        scores, classes = scores.astype(np.float64), scores.shape[1]
        with np.errstate(invalid="ignore"):  # infinite logits: NaN
            if classes == 2 and self.from_logits:
                scores = scores[:, 1:] - scores[:, :1]
            if classes > 2 or self.bins is not None:
                scores = _probabilities(scores, self.from_logits)
        positive = labels[:, None] == (np.arange(classes) if classes > 2 else 1)
        scores = scores if classes > 2 else scores[:, -1:]
        weights = np.ones(len(scores)) if weights is None else weights
        if self.bins is None:
            self._stored.append((scores, positive, weights))
        else:
            self._count(scores, positive, weights)

    def _count(self, scores: Array, positive: Array, weights: Array) -> None:
        """Add a batch to the histograms."""
        columns, bins = scores.shape[1], self.bins
        if self._binned is None:
            self._binned = np.zeros((columns, 2, bins))
        if np.isnan(scores).any():
            self._binned[:] = np.nan
            return
        if scores.size and not 0 <= scores.min() <= scores.max() <= 1:
            raise ValueError(f"{self.name}: prediction holds numbers from {scores.min():g} to {scores.max():g}, expected "
                             "probabilities, as from_logits=False says")
        place = np.minimum((scores * bins).astype(np.int64), bins - 1)
        cells = (np.arange(columns) * 2 + positive) * bins + place
        counts = np.bincount(cells.ravel(), np.repeat(weights, columns), self._binned.size)
        self._binned += counts.reshape(self._binned.shape)

    def result(self) -> float:
        if self.bins is not None and self._binned is not None:
            return float(np.mean([_area(negative, positive) for negative, positive in self._binned]))
        if not self._stored:
            return float("nan")
        scores, positive, weights = (np.concatenate(parts) for parts in zip(*self._stored))
        self._stored = [(scores, positive, weights)]
        if np.isnan(scores).any():
            return float("nan")
        areas = []
        for column in range(scores.shape[1]):
            _, group = np.unique(scores[:, column], return_inverse=True)
            hit = positive[:, column]
            areas.append(_area(np.bincount(group, weights * ~hit), np.bincount(group, weights * hit)))
        return float(np.mean(areas))


class Perplexity(_Mean):
    """exp of the mean cross-entropy of the right class.

    Parameters
    ----------
    name : str
        Key of the result.
    from_logits : bool
        Whether predictions are logits (log-softmax is taken) or probabilities.
    ignore_index : int
        Targets of this value are left out.
    """

    def __init__(self, name: str = "perplexity", *, from_logits: bool = True, ignore_index: int = -100) -> None:
        super().__init__(name)
        self.from_logits, self.ignore_index = from_logits, ignore_index

    def update(self, prediction: Any, target: Any, sample_weight: Any = None) -> None:
        scores, labels, weights = _class_inputs(prediction, target, sample_weight, self.ignore_index)
        scores = _columns(scores.astype(np.float64), self.from_logits)
        own = np.take_along_axis(scores, labels[:, None], axis=1)[:, 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.from_logits:
                top = scores.max(axis=1)
                loss = np.log(np.exp(scores - top[:, None]).sum(axis=1)) + top - own
            else:
                loss = -np.log(own)
        self._add(loss, weights)

    def result(self) -> float:
        with np.errstate(over="ignore"):
            return float(np.exp(super().result()))


def _class_inputs(prediction: Any, target: Any, sample_weight: Any,
                  ignore_index: int) -> tuple[Array, Array, Array | None]:
    """Scores (M, C) or (M, 1), labels (M,) int64, weights (M,) or None; ignored targets left out."""
    scores, labels = np.asarray(prediction), np.asarray(target)
    if scores.ndim == 1:
        scores = scores[:, None]
    n, classes = scores.shape[:2]
    weights = None if sample_weight is None else _weights(sample_weight, n)
    if weights is not None and scores.ndim > 2:
        weights = np.repeat(weights, int(np.prod(scores.shape[2:])))
    if labels.shape == scores.shape and labels.ndim > 1 and classes > 1:  # one-hot or soft targets
        wrong = np.abs(labels.sum(axis=1) - 1) > _ROUNDING
        if wrong.any():
            raise ValueError(f"target of shape {labels.shape} holds {labels.sum(axis=1)[wrong][0]:g} in sum over the classes of a sample, "
                             "expected 1: one-hot or soft targets; metrics of classes know no samples of several classes, nor values")
        labels = labels.argmax(axis=1)
    if scores.ndim > 2:
        scores = np.moveaxis(scores, 1, -1).reshape(-1, classes)
    labels = labels.reshape(-1)
    if len(labels) != len(scores):
        raise ValueError(f"prediction of shape {np.shape(prediction)} does not belong to "
                         f"target of shape {np.shape(target)}")
    kept = labels != ignore_index
    if not kept.all():
        scores, labels = scores[kept], labels[kept]
        weights = None if weights is None else weights[kept]
    if classes == 1 and (labels == -1).any() and (np.abs(labels) == 1).all():  # signs, as hinge losses take them
        labels = labels > 0
    if labels.dtype.kind == "f":
        labels = _whole(labels, classes)
    labels = labels.astype(np.int64, copy=False)
    limit = max(2, classes)
    if labels.size and not 0 <= labels.min() <= labels.max() < limit:
        raise ValueError(f"target holds labels from {labels.min()} to {labels.max()}, expected 0 to {limit - 1}")
    return scores, labels, weights


def _whole(labels: Array, classes: int) -> Array:
    """Floating-point labels; of one column, probabilities of class 1, the likelier class."""
    if classes == 1 and ((labels >= 0) & (labels <= 1)).all():
        return labels > 0.5
    wrong = labels != np.floor(labels)  # NaN too
    if wrong.any():
        raise ValueError(f"target holds {labels[wrong][0]:g}, expected whole numbers: class indices")
    return labels


def _columns(scores: Array, from_logits: bool) -> Array:
    """Scores (M, C) of each class; of one column (M, 1) the two classes'."""
    if scores.shape[1] > 1:
        return scores
    return np.concatenate([np.zeros_like(scores) if from_logits else 1 - scores, scores], axis=1)


def _decide(scores: Array, from_logits: bool) -> Array:
    """Predicted class (M,) from scores (M, C), or from one column against the threshold."""
    if scores.shape[1] == 1:
        return (scores[:, 0] > (0 if from_logits else 0.5)).astype(np.int64)
    return scores.argmax(axis=1)


def _probabilities(scores: Array, from_logits: bool) -> Array:
    """Probabilities (M, C) of float64 scores: softmax over the columns, or the logistic function of one."""
    if not from_logits:
        return scores
    if scores.shape[1] == 1:
        return 0.5 * (1 + np.tanh(0.5 * scores))
    grown = np.exp(scores - scores.max(axis=1, keepdims=True))
    return grown / grown.sum(axis=1, keepdims=True)


def _ratio(part: Array, whole: Array) -> Array:
    """part / whole, 0 where whole is 0."""
    return np.divide(part, whole, out=np.zeros_like(np.asarray(whole, np.float64)), where=np.asarray(whole) > 0)


def _area(negative: Array, positive: Array) -> float:
    """Probability that a positive scores above a negative (ties half), from weights by rising score."""
    below = np.cumsum(negative) - 0.5 * negative
    pairs = negative.sum() * positive.sum()
    return float(positive @ below / pairs) if pairs else float("nan")
