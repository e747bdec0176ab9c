"""Dropout layers."""

from __future__ import annotations

from ..checks import real
from ..ops.dropout import dropout
from ..tensor import Tensor
from .module import Module

__all__ = ["Dropout"]


class Dropout(Module):
    """Sets each element to 0 with probability `p` while training; any shape; see `fastnn.functional.dropout`.

    Parameters
    ----------
    p : float
        Probability of dropping an element, between 0 and 1.
    inverted : bool
        Whether elements that stay are divided by 1 - p in training (the usual form), or all are multiplied by 1 - p in
        inference.

    Raises
    ------
    ValueError
        If `p` is not between 0 and 1.
    """

    def __init__(self, p: float = 0.5, inverted: bool = True):
        super().__init__()
        self.p = real("Dropout: p", p, 0, 1)
        self.inverted = inverted

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training, self.inverted)

    def extra_repr(self) -> str:
        return f"p={self.p}" + ("" if self.inverted else ", inverted=False")
