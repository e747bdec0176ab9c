"""Losses as modules; see `fastnn.functional` for what they compute."""

from __future__ import annotations

import math
from typing import Any

from ..checks import integer, integers, positive, real, whole
from ..ops import loss
from ..ops.create import as_tensor
from ..ops.shape import reshape
from ..tensor import Tensor
from .linear import Linear
from .module import Module
from .typed import typed


def _constant(title: str, argument: str, value: Any) -> Tensor:
    """What a loss keeps of an argument that holds numbers."""
    try:
        return as_tensor(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{title}: {argument} is {value!r}, but must be a tensor or an array of numbers") from error


class _Loss(Module):
    """A loss with a reduction and constant tensors that move with the module."""

    def __init__(self, reduction: str, **constants: Any):
        super().__init__()
        loss._reduction(type(self).__name__, reduction)
        self.reduction = reduction
        for name, value in constants.items():
            self.register_buffer(name, None if value is None else _constant(type(self).__name__, name, value))

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


class CrossEntropyLoss(_Loss):
    """Softmax and cross-entropy from logits: (N, C, d1, ...) with labels (N, d1, ...) or probabilities; see
    `fastnn.functional.cross_entropy`.

    Parameters
    ----------
    weight : Tensor or array_like, optional
        (C,): factors for the classes.
    ignore_index : int
        A label whose positions do not count.
    reduction : str
        "mean", "sum" or "none".
    label_smoothing : float
        Between 0 and 1: how much of each target is spread evenly over all classes.
    """

    def __init__(self, weight: Any = None, ignore_index: int = -100, reduction: str = "mean",
                 label_smoothing: float = 0.0):
        super().__init__(reduction, weight=weight)
        self.ignore_index = integer("CrossEntropyLoss", "ignore_index", ignore_index)
        self.label_smoothing = real("CrossEntropyLoss: label_smoothing", label_smoothing, 0, 1)

    def forward(self, input: Tensor, target: Any, sample_weight: Any = None) -> Tensor:
        return loss.cross_entropy(input, target, self.weight, self.ignore_index, self.reduction, self.label_smoothing,
                                  sample_weight)


@typed
class LinearCrossEntropyLoss(_Loss):
    """A linear layer and the cross-entropy of its logits in one module; see `fastnn.functional.linear_cross_entropy`.

    Parameters
    ----------
    in_features : int
        Width E of inputs (E,) or (N, E).
    num_classes : int
        C.
    out_features : tuple of int
        (d1, ...): so many losses for each input, of labels (N, d1, ...).
    bias : bool
        Whether the layer adds one.
    reduction : str
        "mean", "sum" or "none".
    weight : Tensor or array_like, optional
        (C,): factors for the classes.
    ignore_index : int, optional
        A label whose positions do not count; -100 if None. Not for probabilities.
    label_smoothing : float
        Between 0 and 1: how much of each target is spread evenly over all classes.

    Attributes
    ----------
    linear : Linear
        The layer, C d1 ... wide.
    """

    def __init__(self, in_features: int, num_classes: int, *, out_features: tuple[int, ...] = (), bias: bool = False,
                 reduction: str = "mean", weight: Any = None, ignore_index: int | None = None, label_smoothing: float = 0.0):
        super().__init__(reduction, weight=weight)
        name = "LinearCrossEntropyLoss"
        self.num_classes = whole(f"{name}: num_classes", num_classes, 1)
        self.out_features = tuple(whole(f"{name}: out_features", n, 1) for n in integers(name, "out_features", out_features))
        if self.weight is not None and self.weight.shape != (self.num_classes,):
            raise ValueError(f"{name}: weight has shape {self.weight.shape}, but must be {(self.num_classes,)}")
        self.ignore_index = None if ignore_index is None else integer(name, "ignore_index", ignore_index)
        self.label_smoothing = real(f"{name}: label_smoothing", label_smoothing, 0, 1)
        self.linear = Linear(in_features, math.prod((self.num_classes, *self.out_features)), bias)

    def forward(self, input: Tensor, target: Any) -> Tensor:
        shape, bias = (self.num_classes, *self.out_features), self.linear.bias
        return loss.linear_cross_entropy(
            input, reshape(self.linear.weight, *shape, self.linear.in_features), target, weight=self.weight,
            linear_bias=None if bias is None else reshape(bias, *shape), reduction=self.reduction,
            ignore_index=self.ignore_index, label_smoothing=self.label_smoothing)


class MSELoss(_Loss):
    """The squared error (x - target)^2; see `fastnn.functional.mse_loss`.

    Parameters
    ----------
    reduction : str
        "mean", "sum" or "none".
    """

    def __init__(self, reduction: str = "mean"):
        super().__init__(reduction)

    def forward(self, input: Tensor, target: Any, weight: Any = None) -> Tensor:
        return loss.mse_loss(input, target, self.reduction, weight)


class BCEWithLogitsLoss(_Loss):
    """Sigmoid and binary cross-entropy from logits; see `fastnn.functional.binary_cross_entropy_with_logits`.

    Parameters
    ----------
    weight : Tensor or array_like, optional
        Factors, broadcast to the logits' shape.
    reduction : str
        "mean", "sum" or "none".
    pos_weight : Tensor or array_like, optional
        Factors for the positive part, broadcast to the logits' shape.
    """

    def __init__(self, weight: Any = None, reduction: str = "mean", pos_weight: Any = None):
        super().__init__(reduction, weight=weight, pos_weight=pos_weight)

    def forward(self, input: Tensor, target: Any) -> Tensor:
        return loss.binary_cross_entropy_with_logits(input, target, self.weight, self.reduction, self.pos_weight)


class L1Loss(MSELoss):
    """The absolute error |x - target|; see `fastnn.functional.l1_loss`.

    Parameters
    ----------
    reduction : str
        "mean", "sum" or "none".
    """

    def forward(self, input: Tensor, target: Any, weight: Any = None) -> Tensor:
        return loss.l1_loss(input, target, self.reduction, weight)


class HuberLoss(_Loss):
    """Half the squared error near 0, straight farther out; see `fastnn.functional.huber_loss`.

    Parameters
    ----------
    reduction : str
        "mean", "sum" or "none".
    delta : float
        Where the straight part begins.
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0):
        super().__init__(reduction)
        self.delta = positive("HuberLoss: delta", delta)

    def forward(self, input: Tensor, target: Any, weight: Any = None) -> Tensor:
        return loss.huber_loss(input, target, self.reduction, self.delta, weight)


class SmoothL1Loss(_Loss):
    """`HuberLoss` over its `beta`; see `fastnn.functional.smooth_l1_loss`.

    Parameters
    ----------
    reduction : str
        "mean", "sum" or "none".
    beta : float
        Where the straight part begins.
    """

    def __init__(self, reduction: str = "mean", beta: float = 1.0):
        super().__init__(reduction)
        self.beta = real("SmoothL1Loss: beta", beta, 0)

    def forward(self, input: Tensor, target: Any, weight: Any = None) -> Tensor:
        return loss.smooth_l1_loss(input, target, self.reduction, self.beta, weight)


class PoissonNLLLoss(_Loss):
    """Negative log-likelihood of counts; see `fastnn.functional.poisson_nll_loss`.

    Parameters
    ----------
    log_input : bool
        Whether the predictions are logarithms of the rates.
    full : bool
        Whether the term log(target!) is added, by Stirling's formula.
    eps : float
        Keeps the logarithm of a rate away from 0.
    reduction : str
        "mean", "sum" or "none".
    """

    def __init__(self, log_input: bool = True, full: bool = False, eps: float = 1e-8, reduction: str = "mean"):
        super().__init__(reduction)
        self.log_input, self.full = log_input, bool(full)
        self.eps = real("PoissonNLLLoss: eps", eps, 0)

    def forward(self, input: Tensor, target: Any) -> Tensor:
        return loss.poisson_nll_loss(input, target, self.log_input, self.full, self.eps, self.reduction)


class GaussianNLLLoss(_Loss):
    """Negative log-likelihood under normal distributions; see `fastnn.functional.gaussian_nll_loss`.

    Parameters
    ----------
    full : bool
        Whether the constant log(2 pi) / 2 is added.
    eps : float
        The least variance.
    reduction : str
        "mean", "sum" or "none".
    """

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean"):
        super().__init__(reduction)
        self.full = bool(full)
        self.eps = positive("GaussianNLLLoss: eps", eps)

    def forward(self, input: Tensor, target: Any, var: Any) -> Tensor:
        return loss.gaussian_nll_loss(input, target, var, self.full, self.eps, self.reduction)


class NLLLoss(_Loss):
    """Negative log-likelihood of labels from log-probabilities; see `fastnn.functional.nll_loss`.

    Parameters
    ----------
    weight : Tensor or array_like, optional
        (C,): factors for the classes.
    ignore_index : int
        A label whose positions do not count.
    reduction : str
        "mean", "sum" or "none".
    """

    def __init__(self, weight: Any = None, ignore_index: int = -100, reduction: str = "mean"):
        super().__init__(reduction, weight=weight)
        self.ignore_index = integer("NLLLoss", "ignore_index", ignore_index)

    def forward(self, input: Tensor, target: Any) -> Tensor:
        return loss.nll_loss(input, target, self.weight, self.ignore_index, self.reduction)
