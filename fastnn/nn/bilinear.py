"""Bilinear layers."""

from __future__ import annotations

import math

from ..checks import whole
from ..ops.bilinear import bilinear
from ..ops.create import empty
from ..tensor import Tensor
from . import init
from .module import Module, Parameter
from .typed import typed


@typed
class Bilinear(Module):
    """y_o = x1^T W_o x2 + b_o; see `fastnn.functional.bilinear`.

    Parameters
    ----------
    in1_features, in2_features : int
        Widths of the inputs' last axes.
    out_features : int
        Width of the output's last axis.
    bias : bool
        Whether b is there.

    Attributes
    ----------
    weight : Parameter
        (out_features, in1_features, in2_features), at first uniform in +-1 / sqrt(in1_features), as PyTorch's.
    bias : Parameter or None
        (out_features,), at first from the same interval.
    """

    def __init__(self, in1_features: int, in2_features: int, out_features: int, bias: bool = True):
        super().__init__()
        self.in1_features = whole("Bilinear: in1_features", in1_features, 1)
        self.in2_features = whole("Bilinear: in2_features", in2_features, 1)
        self.out_features = whole("Bilinear: out_features", out_features, 1)
        self.weight = Parameter(empty(self.out_features, self.in1_features, self.in2_features))
        self.register_parameter("bias", Parameter(empty(self.out_features)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new first values."""
        bound = 1 / math.sqrt(self.in1_features)
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        """(..., in1_features) and (..., in2_features) -> (..., out_features)"""
        return bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (f"in1_features={self.in1_features}, in2_features={self.in2_features}, out_features={self.out_features}, "
                f"bias={self.bias is not None}")
