"""Products of two vectors through a matrix for each result."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..checks import a_tensor
from .linear import linear
from .math import add, mul
from .reduce import sum
from .shape import reshape, unsqueeze

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["bilinear"]


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y_o = x1^T W_o x2 + b_o.

    Parameters
    ----------
    input1, input2 : Tensor
        (..., I1) and (..., I2), alike but for the last axis.
    weight : Tensor
        W, (O, I1, I2).
    bias : Tensor, optional
        b, (O,).

    Returns
    -------
    Tensor
        (..., O).

    Raises
    ------
    ValueError
        If shapes do not fit.
    """
    for argument, value in (("input1", input1), ("input2", input2), ("weight", weight), ("bias", weight if bias is None else bias)):
        a_tensor("bilinear", value, argument)
    if weight.ndim != 3 or not input1.ndim or input1.shape[:-1] != input2.shape[:-1] or not input2.ndim or \
            (input1.shape[-1], input2.shape[-1]) != weight.shape[1:] or (bias is not None and bias.shape != weight.shape[:1]):
        raise ValueError(f"bilinear: input1 {input1.shape}, input2 {input2.shape}, weight {weight.shape} and bias "
                         f"{None if bias is None else bias.shape} must be (..., I1), (..., I2), (O, I1, I2) and (O,)")
    (outputs, n1, n2), count = weight.shape, math.prod(input1.shape[:-1])
    # (rows, I2) (O I1, I2)^T: W_o x2 for all o in one product
    rows = linear(reshape(input2, (count, n2)), reshape(weight, (outputs * n1, n2)))
    y = sum(mul(reshape(rows, (count, outputs, n1)), unsqueeze(reshape(input1, (count, n1)), 1)), -1)
    if bias is not None:
        y = add(y, bias)
    return reshape(y, (*input1.shape[:-1], outputs))
