"""The losses `Trainer` knows by name, and any loss under sample weights."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

import fastnn.functional as F
from fastnn import nn

from .._core import TensorBase
from .metric import Metric
from .metrics import get_metric

LOSSES: dict[str, str] = {
    "cross_entropy": "cross_entropy",
    "bce_with_logits": "binary_cross_entropy_with_logits",
    "binary_cross_entropy_with_logits": "binary_cross_entropy_with_logits",
    "mse": "mse_loss",
    "mse_loss": "mse_loss",
    "mae": "l1_loss",
    "l1": "l1_loss",
    "huber": "huber_loss",
    "smooth_l1": "smooth_l1_loss",
    "bce": "binary_cross_entropy",
    "kl_div": "kl_div",
    "poisson_nll": "poisson_nll_loss",
    "hinge": "hinge_loss",
    "perceptron": "perceptron_loss",
    "soft_margin": "soft_margin_loss",
    "multilabel_soft_margin": "multilabel_soft_margin_loss",
    "nll": "nll_loss",
    "multi_margin": "multi_margin_loss",
    "focal": "focal_loss",
}
# Of class labels; all others compare values.
_OF_LABELS = ("cross_entropy", "nll", "multi_margin", "focal")
_LABEL_FUNCTIONS = tuple(getattr(F, LOSSES[name]) for name in _OF_LABELS)
_OF_SIGNS = (F.hinge_loss, F.perceptron_loss, F.soft_margin_loss)
_LABEL_MODULES = (nn.CrossEntropyLoss, nn.FocalLoss, nn.MultiMarginLoss, nn.NLLLoss)


def get_loss(loss: str | Callable[..., Any]) -> Callable[..., Any]:
    """The function a name stands for.

    Parameters
    ----------
    loss : str or callable
        A name from `LOSSES`, or ``loss(prediction, target)`` that returns a scalar tensor.

    Returns
    -------
    callable
        ``loss(prediction, target)``. The named losses of values (all but those of class labels) take a
        target of shape (N,) for a prediction (N, 1) and the other way round, and refuse other shapes that
        differ, instead of broadcasting them.

    Raises
    ------
    ValueError
        If the name is unknown; the message lists the known ones.
    TypeError
        If it is neither a name nor callable, or a class.
    """
    if isinstance(loss, type):
        raise TypeError(f"loss: {loss!r} is a class, expected an instance, {loss.__name__}(), a name or a function")
    if callable(loss):
        return loss
    if not isinstance(loss, str):
        raise TypeError(f"loss: {loss!r} is neither a name nor callable")
    if loss not in LOSSES:
        raise ValueError(f"loss: {loss!r} is unknown, expected one of {', '.join(sorted(LOSSES))}, or a callable")
    function = getattr(F, LOSSES[loss])
    return function if loss in _OF_LABELS else ValueLoss(function)


def check_prediction(loss: Callable[..., Any], prediction: Any) -> None:
    """Raises where a named loss cannot judge what a model returned.

    Parameters
    ----------
    loss : callable
        As `get_loss` gave it for a name.
    prediction : object
        What the model returned.

    Raises
    ------
    TypeError
        If it is no tensor.
    ValueError
        If it is of one class, of which the cross-entropy is always 0.
    """
    if not isinstance(prediction, TensorBase):
        raise TypeError(f"loss: the model returned a {type(prediction).__name__}, expected a tensor; a loss(prediction, target) of "
                        "your own may take it")
    if loss is F.cross_entropy and prediction.ndim > 1 and prediction.shape[1] == 1:
        raise ValueError(f"loss: the model returned shape {prediction.shape}, but 'cross_entropy' needs at least two classes along "
                         "axis 1: of one its loss is always 0; 'bce_with_logits' takes one output for two classes")


def one_tensor(name: str, prediction: Any) -> Any:
    """What a model returned, which must be one tensor.

    Parameters
    ----------
    name : str
        Who takes it, in messages.
    prediction : object
        What the model returned.

    Returns
    -------
    Tensor
        The same.

    Raises
    ------
    TypeError
        If it is something else.
    """
    if not isinstance(prediction, TensorBase):
        raise TypeError(f"{name}: the model returned a {type(prediction).__name__}, but must return one tensor here")
    return prediction


def is_of_labels(loss: Callable[..., Any]) -> bool:
    """Whether a loss is known to take class labels.

    Parameters
    ----------
    loss : callable
        As `get_loss` gave it.

    Returns
    -------
    bool
        False also where nothing is known.
    """
    return loss in _LABEL_FUNCTIONS or isinstance(loss, _LABEL_MODULES)


def metric_for(loss: Callable[..., Any], metric: str | Metric) -> Metric:
    """The metric a name stands for beside a loss: it takes for a model's predictions what the loss takes them for.

    Parameters
    ----------
    loss : callable
        As `get_loss` gave it.
    metric : str or Metric
        As for `get_metric`; a `Metric` decides for itself.

    Returns
    -------
    Metric
        A metric, reset.

    Raises
    ------
    ValueError, TypeError
        As `get_metric`.
    """
    found = get_metric(metric)
    if isinstance(metric, str) and _takes_probabilities(loss) and hasattr(found, "from_logits"):
        found.from_logits = False
    return found


def _takes_probabilities(loss: Callable[..., Any]) -> bool:
    """Whether a loss is known to take probabilities."""
    return (loss.function if isinstance(loss, ValueLoss) else loss) is F.binary_cross_entropy or isinstance(loss, nn.BCELoss)


def why_not_finite(loss: Callable[..., Any]) -> str:
    """A likely cause of a loss that is no finite number, where the data are finite.

    Parameters
    ----------
    loss : callable
        As `get_loss` gave it.

    Returns
    -------
    str
        For a message.
    """
    if _takes_probabilities(loss):
        return ("the data are finite: this loss takes probabilities, as a Sigmoid layer gives them ('bce_with_logits' takes what a linear "
                "layer gives); or a smaller learning rate may help")
    return "the data are finite: a smaller learning rate may help"


def check_signs(name: str, loss: Callable[..., Any], wanted: np.ndarray) -> None:
    """Raises where a loss given by name takes -1 and 1 and targets are something else.

    Parameters
    ----------
    name : str
        The targets' name in messages.
    loss : callable
        As `get_loss` gave it.
    wanted : numpy.ndarray
        The targets.

    Raises
    ------
    ValueError
        If one is another number.
    """
    if isinstance(loss, ValueLoss) and loss.function in _OF_SIGNS:
        wrong = np.abs(wanted) != 1
        if wrong.any():
            raise ValueError(f"{name} holds {float(wanted[wrong][0]):g}, but this loss takes -1 and 1 (2 * y - 1 makes them of 0 and 1)")


def check_labels(name: str, loss: Callable[..., Any], labels: np.ndarray, prediction: Any) -> None:
    """Raises where a label is no class of the model's; only where the loss is known to take labels.

    Parameters
    ----------
    name : str
        The labels' name in messages.
    loss : callable
        As `get_loss` gave it.
    labels : numpy.ndarray
        All of them, (N, ...).
    prediction : object
        What the model returned for some samples.

    Raises
    ------
    IndexError
        If one is neither a class nor ignored.
    """
    if not (is_of_labels(loss) and isinstance(prediction, TensorBase) and prediction.ndim == labels.ndim + 1 > 1
            and labels.dtype.kind == "i"):
        return
    classes, ignored = prediction.shape[1], getattr(loss, "ignore_index", -100)
    wrong = ((labels < 0) | (labels >= classes)) & (labels != ignored)
    if wrong.any():
        first = tuple(int(k) for k in np.argwhere(wrong)[0])
        raise IndexError(f"{name} holds {wrong.sum():,} labels that are no class, the first is {labels[first]} at "
                         f"{', '.join(map(str, first))}, but must be from 0 to {classes - 1}: the model returns {classes} classes")


class ValueLoss:
    """A loss of values, with the target in the prediction's shape."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, prediction: Any, target: Any, reduction: str = "mean") -> Any:
        if target.shape != prediction.shape:
            if target.numel() != prediction.numel() or target.shape[0] != prediction.shape[0]:
                raise ValueError(f"loss: the model returned shape {tuple(prediction.shape)}, "
                                 f"but the target has shape {tuple(target.shape)}")
            target = target.reshape(prediction.shape)
        return self.function(prediction, target, reduction=reduction)


def weighted(loss: Callable[..., Any]) -> Callable[[Any, Any, Any], Any]:
    """A loss with weights for the samples of a batch: sum of weight times loss, divided by N.

    Dividing by the number of samples and not by the sum of weights is Keras's meaning: a sample's
    pull on the parameters does not depend on which others share its batch.

    Parameters
    ----------
    loss : callable
        A function with the argument `reduction`, or a module with that attribute (all of `fastnn.nn`'s losses).

    Returns
    -------
    callable
        ``weighted_loss(prediction, target, weight)`` with weights (N,), returning a scalar tensor.

    Raises
    ------
    TypeError
        If `loss` has no `reduction`, so that it cannot say each sample's loss.
    """
    if hasattr(loss, "reduction"):
        single = copy.copy(loss)
        single.reduction = "none"
    elif "reduction" in inspect.signature(loss).parameters:
        def single(prediction: Any, target: Any) -> Any:
            return loss(prediction, target, reduction="none")
    else:
        raise TypeError(f"sample_weight and class_weight need each sample's loss, but {loss!r} "
                        "takes no argument reduction='none'")

    def weighted_loss(prediction: Any, target: Any, weight: Any) -> Any:
        losses = single(prediction, target)
        if losses.ndim > 1:
            losses = losses.reshape(losses.shape[0], -1).mean(1)
        return (losses * weight).mean()

    return weighted_loss
