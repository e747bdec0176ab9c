"""Softmax over many classes, of which few are frequent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..checks import positive, whole
from ..ops.create import zeros
from ..ops.index import index_select
from ..ops.loss import cross_entropy
from ..ops.math import add, ge, logical_and, lt, neg, where
from ..ops.reduce import argmax, mean
from ..ops.scatter import nonzero, scatter
from ..ops.shape import reshape, squeeze, unsqueeze
from ..ops.slices import cat, slice_view
from ..ops.softmax import log_softmax
from ..tensor import Tensor
from .container import ModuleList, Sequential
from .linear import Linear
from .module import Module
from .typed import typed

__all__ = ["AdaptiveLogSoftmaxWithLoss"]


class ASMoutput(NamedTuple):
    """What the layer gives.

    Attributes
    ----------
    output : Tensor
        (N,), the logarithm of each target's probability.
    loss : Tensor
        0-d, their mean, negated.
    """

    output: Tensor
    loss: Tensor


@typed
class AdaptiveLogSoftmaxWithLoss(Module):
    """A softmax in two steps: over the frequent classes and clusters of the others, then within a cluster, by narrower layers the
    rarer its classes are.

    Parameters
    ----------
    in_features : int
        D.
    n_classes : int
        C, ordered by falling frequency.
    cutoffs : sequence of int
        Where clusters begin, increasing, between 1 and C - 1; what lies before the first are the frequent classes.
    div_value : float
        By what the widths of clusters shrink: cluster i has D / div_value^(i + 1) features.
    head_bias : bool
        Whether the first step has a bias.

    Attributes
    ----------
    head : Linear
        From D to the frequent classes and the clusters.
    tail : ModuleList of Sequential
        For each cluster, two Linear without bias.

    References
    ----------
    E. Grave et al., "Efficient softmax approximation for GPUs", ICML 2017.
    """

    def __init__(self, in_features: int, n_classes: int, cutoffs: Sequence[int], div_value: float = 4.0, head_bias: bool = False):
        super().__init__()
        title = "AdaptiveLogSoftmaxWithLoss"
        self.in_features = whole(f"{title}: in_features", in_features, 1)
        self.n_classes = whole(f"{title}: n_classes", n_classes, 2)
        if isinstance(cutoffs, str) or not isinstance(cutoffs, Sequence):
            raise TypeError(f"{title}: cutoffs is {cutoffs!r}, but must be a sequence of integers")
        ends = [whole(f"{title}: cutoffs", c, 1) for c in cutoffs]
        if not ends or any(a >= b for a, b in zip(ends, [*ends[1:], self.n_classes])):
            raise ValueError(f"{title}: cutoffs is {cutoffs!r}, but must be increasing integers between 1 and {self.n_classes - 1}")
        self.cutoffs = [*ends, self.n_classes]
        self.div_value, self.head_bias = positive(f"{title}: div_value", div_value), head_bias
        self.shortlist_size, self.n_clusters = ends[0], len(ends)
        self.head_size = self.shortlist_size + self.n_clusters
        self.head = Linear(in_features, self.head_size, bias=head_bias)
        self.tail = ModuleList()
        for i, (first, end) in enumerate(zip(self.cutoffs, self.cutoffs[1:])):
            width = int(in_features // self.div_value ** (i + 1))
            if width < 1:
                raise ValueError(f"{title}: in_features {in_features}, cutoffs {cutoffs!r} and div_value {div_value!r} leave "
                                 f"cluster {i} no feature: it has in_features / div_value ** {i + 1}")
            self.tail.append(Sequential(Linear(in_features, width, bias=False), Linear(width, end - first, bias=False)))

    def reset_parameters(self) -> None:
        """Draws new first values."""
        for part in self.modules():
            if isinstance(part, Linear):
                part.reset_parameters()

    def forward(self, input: Tensor, target: Tensor) -> ASMoutput:
        """The targets' log-probabilities and the loss; only clusters in which there are targets are computed.

        Parameters
        ----------
        input : Tensor
            (N, D) or (D,).
        target : Tensor
            (N,) or (), int64 classes. They are read: a step that calls this is not captured.

        Returns
        -------
        ASMoutput
            ``output`` and ``loss``.

        Raises
        ------
        ValueError
            If shapes do not fit, or a class lies outside 0 to C - 1.
        """
        if target.ndim == 0:
            output, loss = self.forward(unsqueeze(input, 0), unsqueeze(target, 0))
            return ASMoutput(squeeze(output, 0), loss)
        if input.ndim != 2 or target.shape != input.shape[:1]:
            raise ValueError(f"AdaptiveLogSoftmaxWithLoss: input {input.shape} and target {target.shape} must be (N, D) and (N,)")
        if target.numel() and not 0 <= int(target.min().item()) <= int(target.max().item()) < self.n_classes:
            raise ValueError(f"AdaptiveLogSoftmaxWithLoss: target holds numbers outside of 0 to {self.n_classes - 1}")
        place, output = target, None
        for i, rows in self._clusters(target):
            place = where(logical_and(ge(target, self.cutoffs[i]), lt(target, self.cutoffs[i + 1])), self.shortlist_size + i, place)
            within = index_select(target, 0, rows) - self.cutoffs[i]
            found = neg(cross_entropy(self.tail[i](index_select(input, 0, rows)), within, reduction="none"))
            part = scatter(zeros(input.shape[0], dtype=input.dtype), 0, rows, found)
            output = part if output is None else add(output, part)
        head = neg(cross_entropy(self.head(input), place, reduction="none"))
        output = head if output is None else add(head, output)
        return ASMoutput(output, neg(mean(output)))

    def _clusters(self, target: Tensor) -> list[tuple[int, Tensor]]:
        """Clusters that targets are in, each with their rows."""
        found = []
        for i, (first, end) in enumerate(zip(self.cutoffs, self.cutoffs[1:])):
            rows = reshape(nonzero(logical_and(ge(target, first), lt(target, end))), (-1,))
            if rows.shape[0]:
                found.append((i, rows))
        return found

    def log_prob(self, input: Tensor) -> Tensor:
        """The logarithms of all classes' probabilities: (N, C) for (N, D)."""
        head = log_softmax(self.head(input), 1)
        parts = [slice_view(head, (slice(None), slice(self.shortlist_size)))]
        for i, tail in enumerate(self.tail):
            cluster = slice_view(head, (slice(None), slice(self.shortlist_size + i, self.shortlist_size + i + 1)))
            parts.append(add(log_softmax(tail(input), 1), cluster))
        return cat(parts, 1)

    def predict(self, input: Tensor) -> Tensor:
        """The most probable class of each row: (N,), int64."""
        return argmax(self.log_prob(input), 1)
