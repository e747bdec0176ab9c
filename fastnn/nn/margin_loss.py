"""Losses of margins and probabilities as modules; see `fastnn.functional` for what they compute."""

from __future__ import annotations

from typing import Any

from ..checks import integer, real
from ..ops import margin_loss, probability_loss
from ..tensor import Tensor
from .loss import _Loss
from .module import Module


class HingeLoss(_Loss):
    """max(0, margin - target x), any shape, targets -1 or 1; see
    `fastnn.functional.hinge_loss`.

    Parameters
    ----------
    margin : float
        How far to be on the right side.
    squared : bool
        Whether to square it.
    reduction : str
        "mean", "sum" or "none".
    """

    def __init__(self, margin: float = 1.0, squared: bool = False, reduction: str = "mean"):
        super().__init__(reduction)
        self.margin = real("HingeLoss: margin", margin, 0)
        self.squared = bool(squared)

    def forward(self, input: Tensor, target: Any) -> Tensor:
        return margin_loss.hinge_loss(input, target, margin=self.margin, squared=self.squared, reduction=self.reduction)


class PerceptronLoss(_Loss):
    """max(0, -target x), any shape, targets -1 or 1; see
    `fastnn.functional.perceptron_loss`.

    Parameters
    ----------
    reduction : str
        "mean", "sum" or "none".
    """

    def __init__(self, reduction: str = "mean"):
        super().__init__(reduction)

    def forward(self, input: Tensor, target: Any) -> Tensor:
        return margin_loss.perceptron_loss(input, target, reduction=self.reduction)


class SoftMarginLoss(_Loss):
    """log(1 + exp(-target x)), any shape, targets -1 or 1; see
    `fastnn.functional.soft_margin_loss`.

    Parameters
    ----------
    reduction : str
        "mean", "sum" or "none".
    """

    def __init__(self, reduction: str = "mean"):
        super().__init__(reduction)

    def forward(self, input: Tensor, target: Any) -> Tensor:
        return margin_loss.soft_margin_loss(input, target, reduction=self.reduction)


class HingeEmbeddingLoss(_Loss):
    """x for target 1, max(0, margin - x) for -1, any shape; see
    `fastnn.functional.hinge_embedding_loss`.

    Parameters
    ----------
    margin : float
        How far to be on the right side.
    reduction : str
        "mean", "sum" or "none".
    """

    def __init__(self, margin: float = 1.0, reduction: str = "mean"):
        super().__init__(reduction)
        self.margin = real("HingeEmbeddingLoss: margin", margin)

    def forward(self, input: Tensor, target: Any) -> Tensor:
        return margin_loss.hinge_embedding_loss(input, target, margin=self.margin, reduction=self.reduction)


class MarginRankingLoss(_Loss):
    """max(0, margin - target (input1 - input2)), any shape; see
    `fastnn.functional.margin_ranking_loss`.

    Parameters
    ----------
    margin : float
        How far to be on the right side.
    reduction : str
        "mean", "sum" or "none".
    """

    def __init__(self, margin: float = 0.0, reduction: str = "mean"):
        super().__init__(reduction)
        self.margin = real("MarginRankingLoss: margin", margin)

    def forward(self, input1: Tensor, input2: Tensor, target: Any) -> Tensor:
        return margin_loss.margin_ranking_loss(input1, input2, target, margin=self.margin, reduction=self.reduction)


class MultiMarginLoss(_Loss):
    """The hinge loss of classes: (N, C) with labels (N,); see
    `fastnn.functional.multi_margin_loss`.

    Parameters
    ----------
    p : int
        1, or 2 to square.
    margin : float
        How far to be on the right side.
    weight : Tensor or array_like, optional
        (C,): factors for the classes.
    reduction : str
        "mean", "sum" or "none".
    """

    def __init__(self, p: int = 1, margin: float = 1.0, weight: Any = None, reduction: str = "mean"):
        super().__init__(reduction, weight=weight)
        if p not in (1, 2) or isinstance(p, bool):
            raise ValueError(f"MultiMarginLoss: p is {p!r}, but must be 1 or 2")
        self.p = p
        self.margin = real("MultiMarginLoss: margin", margin)

    def forward(self, input: Tensor, target: Any) -> Tensor:
        return margin_loss.multi_margin_loss(input, target, p=self.p, margin=self.margin, weight=self.weight,
                                             reduction=self.reduction)


class MultiLabelMarginLoss(_Loss):
    """The hinge loss of several labels: (N, C) with labels (N, C), ended by -1; see
    `fastnn.functional.multilabel_margin_loss`.

    Parameters
    ----------
    reduction : str
        "mean", "sum" or "none".
    """

    def __init__(self, reduction: str = "mean"):
        super().__init__(reduction)

    def forward(self, input: Tensor, target: Any) -> Tensor:
        return margin_loss.multilabel_margin_loss(input, target, reduction=self.reduction)


class MultiLabelSoftMarginLoss(_Loss):
    """Binary cross-entropy of outputs with any number of labels: (N, C); see
    `fastnn.functional.multilabel_soft_margin_loss`.

    Parameters
    ----------
    weight : Tensor or array_like, optional
        (C,): factors for the classes.
    reduction : str
        "mean", "sum" or "none".
    """

    def __init__(self, weight: Any = None, reduction: str = "mean"):
        super().__init__(reduction, weight=weight)

    def forward(self, input: Tensor, target: Any) -> Tensor:
        return margin_loss.multilabel_soft_margin_loss(input, target, weight=self.weight, reduction=self.reduction)


class BCELoss(_Loss):
    """Binary cross-entropy of probabilities, any shape; see
    `fastnn.functional.binary_cross_entropy`.

    Parameters
    ----------
    weight : Tensor or array_like, optional
        Factors, broadcast to the shape of the probabilities.
    reduction : str
        "mean", "sum" or "none".
    """

    def __init__(self, weight: Any = None, reduction: str = "mean"):
        super().__init__(reduction, weight=weight)

    def forward(self, input: Tensor, target: Any) -> Tensor:
        return probability_loss.binary_cross_entropy(input, target, weight=self.weight, reduction=self.reduction)


class SigmoidFocalLoss(_Loss):
    """Binary focal loss from logits, any shape; see
    `fastnn.functional.sigmoid_focal_loss`.

    Parameters
    ----------
    alpha : float
        Between 0 and 1: weight of target 1; below 0, there is none.
    gamma : float
        At least 0: the greater, the less what is right already counts.
    reduction : str
        "mean", "sum" or "none".
    """

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0, reduction: str = "mean"):
        super().__init__(reduction)
        self.alpha = real("SigmoidFocalLoss: alpha", alpha, most=1)
        self.gamma = real("SigmoidFocalLoss: gamma", gamma, 0)

    def forward(self, input: Tensor, target: Any) -> Tensor:
        return probability_loss.sigmoid_focal_loss(input, target, alpha=self.alpha, gamma=self.gamma,
                                                   reduction=self.reduction)


class FocalLoss(_Loss):
    """Focal loss of classes from logits: (N, C, d1, ...) with labels (N, d1, ...); see
    `fastnn.functional.focal_loss`.

    Parameters
    ----------
    gamma : float
        At least 0: the greater, the less what is right already counts.
    weight : Tensor or array_like, optional
        (C,): factors for the classes.
    ignore_index : int
        A label whose positions do not count.
    reduction : str
        "mean", "sum" or "none".
    """

    def __init__(self, gamma: float = 2.0, weight: Any = None, ignore_index: int = -100, reduction: str = "mean"):
        super().__init__(reduction, weight=weight)
        self.gamma = real("FocalLoss: gamma", gamma, 0)
        self.ignore_index = integer("FocalLoss", "ignore_index", ignore_index)

    def forward(self, input: Tensor, target: Any) -> Tensor:
        return probability_loss.focal_loss(input, target, gamma=self.gamma, weight=self.weight,
                                           ignore_index=self.ignore_index, reduction=self.reduction)


class KLDivLoss(Module):
    """Kullback and Leibler's divergence, any shape; see `fastnn.functional.kl_div`.

    Parameters
    ----------
    reduction : str
        "mean", "batchmean", "sum" or "none".
    log_target : bool
        Whether targets are logarithms.

    Raises
    ------
    ValueError
        If `reduction` is none of these.
    """

    def __init__(self, reduction: str = "mean", log_target: bool = False):
        super().__init__()
        if reduction not in ("mean", "batchmean", "sum", "none"):
            raise ValueError(f"KLDivLoss: reduction is {reduction!r}, but must be 'mean', 'batchmean', 'sum' or 'none'")
        self.reduction, self.log_target = reduction, bool(log_target)

    def forward(self, input: Tensor, target: Any) -> Tensor:
        return probability_loss.kl_div(input, target, self.reduction, self.log_target)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"
