"""Connectionist temporal classification as a module."""

from __future__ import annotations

from typing import Any

from ..checks import whole
from ..ops.ctc_loss import ctc_loss
from ..tensor import Tensor
from .loss import _Loss


class CTCLoss(_Loss):
    """Labels read from longer sequences of outputs: log-probabilities (T, N, C) with targets (N, S) or one behind
    another, and lengths (N,) of both; see `fastnn.functional.ctc_loss`.

    Parameters
    ----------
    blank : int
        The class that stands for no label.
    reduction : str
        "mean", "sum" or "none".
    zero_infinity : bool
        Whether a sequence too short for its target counts as 0.
    """

    def __init__(self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False):
        super().__init__(reduction)
        self.blank = whole("CTCLoss: blank", blank, 0)
        self.zero_infinity = bool(zero_infinity)

    def forward(self, log_probs: Tensor, targets: Any, input_lengths: Any, target_lengths: Any) -> Tensor:
        return ctc_loss(log_probs, targets, input_lengths, target_lengths, self.blank, self.reduction,
                        self.zero_infinity)

    def extra_repr(self) -> str:
        return f"blank={self.blank}, reduction={self.reduction!r}, zero_infinity={self.zero_infinity}"
