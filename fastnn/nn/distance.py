"""Distances and similarities, and losses of them, as modules; see `fastnn.functional` for what they compute."""

from __future__ import annotations

from collections.abc import Callable

from typing import Any

from ..checks import integer, positive, real
from ..ops import distance
from ..tensor import Tensor
from .loss import _Loss
from .module import Module

__all__ = ["CosineEmbeddingLoss", "CosineSimilarity", "PairwiseDistance", "TripletMarginLoss",
           "TripletMarginWithDistanceLoss"]


class CosineSimilarity(Module):
    """The cosine of the angle between vectors: ``layer(x1, x2)``; see `fastnn.functional.cosine_similarity`.

    Parameters
    ----------
    dim : int
        The axis along which vectors lie.
    eps : float
        Least norm to divide by, above 0.
    """

    def __init__(self, dim: int = 1, eps: float = 1e-8):
        super().__init__()
        self.dim = integer("CosineSimilarity", "dim", dim)
        self.eps = positive("CosineSimilarity: eps", eps)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return distance.cosine_similarity(x1, x2, self.dim, self.eps)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, eps={self.eps}"


class PairwiseDistance(Module):
    """The norm of x1 - x2 + eps along the last axis: ``layer(x1, x2)``; see `fastnn.functional.pairwise_distance`.

    Parameters
    ----------
    p : float
        Which norm, above 0.
    eps : float
        Added to every difference.
    keepdim : bool
        Whether the last axis stays, with one element.
    """

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False):
        super().__init__()
        self.p = distance.order_of("PairwiseDistance: p", p)
        self.eps, self.keepdim = real("PairwiseDistance: eps", eps, 0), bool(keepdim)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return distance.pairwise_distance(x1, x2, self.p, self.eps, self.keepdim)

    def extra_repr(self) -> str:
        return f"p={self.p}, eps={self.eps}, keepdim={self.keepdim}"


class CosineEmbeddingLoss(_Loss):
    """Pairs that belong together should point one way: ``loss(x1, x2, target)``; see
    `fastnn.functional.cosine_embedding_loss`.

    Parameters
    ----------
    margin : float
        Cosine up to which strangers are far enough, -1 to 1.
    reduction : str
        "mean", "sum" or "none".
    """

    def __init__(self, margin: float = 0.0, reduction: str = "mean"):
        super().__init__(reduction)
        self.margin = real("CosineEmbeddingLoss: margin", margin, -1, 1)

    def forward(self, input1: Tensor, input2: Tensor, target: Any) -> Tensor:
        return distance.cosine_embedding_loss(input1, input2, target, self.margin, self.reduction)


class TripletMarginWithDistanceLoss(_Loss):
    """`TripletMarginLoss` with a distance of one's own; see `fastnn.functional.triplet_margin_with_distance_loss`.

    Parameters
    ----------
    distance_function : callable, optional
        Gives the distances of two tensors; by default `fastnn.functional.pairwise_distance`.
    margin : float
        By how much nearer, above 0.
    swap : bool
        Whether the negative counts by its distance from the positive where that is less.
    reduction : str
        "mean", "sum" or "none".
    """

    def __init__(self, *, distance_function: Callable[[Tensor, Tensor], Tensor] | None = None, margin: float = 1.0,
                 swap: bool = False, reduction: str = "mean"):
        super().__init__(reduction)
        if distance_function is not None and not callable(distance_function):
            raise TypeError(f"TripletMarginWithDistanceLoss: distance_function is {distance_function!r}, but must be callable "
                            "or None")
        self.margin = positive("TripletMarginWithDistanceLoss: margin", margin)
        self.distance_function, self.swap = distance_function, bool(swap)

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return distance.triplet_margin_with_distance_loss(
            anchor, positive, negative, distance_function=self.distance_function, margin=self.margin, swap=self.swap,
            reduction=self.reduction)


class TripletMarginLoss(_Loss):
    """The positive should be nearer to the anchor than the negative: ``loss(anchor, positive, negative)``; see
    `fastnn.functional.triplet_margin_loss`.

    Parameters
    ----------
    margin : float
        By how much nearer, above 0.
    p, eps : float
        Of the distance, see `PairwiseDistance`.
    swap : bool
        Whether the negative counts by its distance from the positive where that is less.
    reduction : str
        "mean", "sum" or "none".
    """

    def __init__(self, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6, swap: bool = False,
                 reduction: str = "mean"):
        super().__init__(reduction)
        self.margin = positive("TripletMarginLoss: margin", margin)
        self.p, self.eps = distance.order_of("TripletMarginLoss: p", p), real("TripletMarginLoss: eps", eps, 0)
        self.swap = bool(swap)

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return distance.triplet_margin_loss(anchor, positive, negative, self.margin, self.p, self.eps, self.swap,
                                            self.reduction)
