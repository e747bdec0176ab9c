"""Penalties as layers."""

from __future__ import annotations

from ..checks import real
from ..ops.penalty import activity_penalty
from ..tensor import Tensor
from .module import Module

__all__ = ["ActivityRegularization"]


class ActivityRegularization(Module):
    """Passes its input on and, in training, penalises its size: a sparse representation; (N, ...); see
    `fastnn.functional.activity_penalty`.

    Parameters
    ----------
    l1, l2 : float
        At least 0: (l1 sum |x| + l2 sum x^2 / 2) / N is added to the loss whose gradients are computed.

    Raises
    ------
    ValueError
        If one is negative.
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0):
        super().__init__()
        self.l1 = real("ActivityRegularization: l1", l1, 0)
        self.l2 = real("ActivityRegularization: l2", l2, 0)

    def forward(self, input: Tensor) -> Tensor:
        return activity_penalty(input, self.l1, self.l2) if self.training else input

    def extra_repr(self) -> str:
        return f"l1={self.l1}, l2={self.l2}"
