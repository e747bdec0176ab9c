"""The metrics by name: streaming, their sums in float64. A name, such as ``"accuracy"``, stands for an instance with default
arguments wherever fastnn takes metrics."""

from __future__ import annotations

import re
from collections.abc import Callable

from .class_metrics import AUC, F1, Accuracy, ConfusionMatrix, Perplexity, Precision, Recall, TopKAccuracy
from .metric import Metric
from .value_metrics import R2, MeanAbsoluteError, MeanSquaredError

METRICS: dict[str, Callable[[], Metric]] = {
    "accuracy": Accuracy,
    "acc": lambda: Accuracy("acc"),
    "top_k_accuracy": lambda: TopKAccuracy(5, "top_k_accuracy"),
    "confusion_matrix": ConfusionMatrix,
    **{f"{cls._title}{'_' + average if average else ''}": (lambda cls=cls, average=average: cls(average or "auto"))
       for cls in (Precision, Recall, F1) for average in ("", "macro", "micro")},
    "auc": AUC,
    "r2": R2,
    "mae": MeanAbsoluteError,
    "mse": MeanSquaredError,
    "perplexity": Perplexity,
}


def get_metric(metric: str | Metric) -> Metric:
    """The metric a name stands for.

    Parameters
    ----------
    metric : str or Metric
        A name from `METRICS`, ``"top_<k>_accuracy"`` with any k, or a `Metric` (returned as it is).

    Returns
    -------
    Metric
        A metric, reset.

    Raises
    ------
    ValueError
        If the name is unknown; the message lists the known ones.
    TypeError
        If it is neither a name nor a `Metric`.
    """
    if isinstance(metric, Metric):
        metric.reset()
        return metric
    if not isinstance(metric, str):
        raise TypeError(f"metric: {metric!r} is neither a name nor a Metric")
    top = re.fullmatch(r"top_([1-9]\d*)_accuracy", metric)
    if top:
        return TopKAccuracy(int(top[1]))
    if metric not in METRICS:
        raise ValueError(f"metric: {metric!r} is unknown, expected one of {', '.join(sorted(METRICS))}, "
                         "top_<k>_accuracy, or a Metric")
    return METRICS[metric]()
