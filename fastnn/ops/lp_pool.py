"""Pooling by norms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..checks import pair, positive
from .conv import single
from .math import abs, mul, sqrt, square
from .power import pow
from .pool import avg_pool2d, max_pool2d
from .pool1d import avg_pool1d, max_pool1d

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["lp_pool1d", "lp_pool2d"]


def check_order(name: str, norm_type: float) -> float:
    """p: above 0, infinity included."""
    if isinstance(norm_type, float) and norm_type == math.inf:
        return math.inf
    return positive(f"{name}: norm_type", norm_type)


def _powers(x: Tensor, p: float) -> Tensor:
    return square(x) if p == 2 else pow(x, p)


def _roots(mean: Tensor, count: int, p: float) -> Tensor:
    """From means of powers over `count` elements."""
    total = mul(mean, float(count))
    return sqrt(total) if p == 2 else pow(total, 1 / p)


def lp_pool2d(input: Tensor, norm_type: float, kernel_size: int | Sequence[int], stride: int | Sequence[int] | None = None,
              ceil_mode: bool = False) -> Tensor:
    """The root (sum of x^p)^(1/p) over each window.

    Parameters
    ----------
    input : Tensor
        (N, C, H, W) or (C, H, W).
    norm_type : float
        p, above 0; ``math.inf``: the greatest magnitude. The root of a negative sum is NaN.
    kernel_size : int or pair of int
        Height and width of the window.
    stride : int or pair of int, optional
        From window to window; by default `kernel_size`.
    ceil_mode : bool
        Whether a last window may reach over the end; the mean of its powers then stands for a whole window, as in
        PyTorch.

    Returns
    -------
    Tensor
        (N, C, OH, OW), sizes as for `max_pool2d`.

    Raises
    ------
    ValueError
        If an argument is out of range or the window does not fit.
    """
    p, kernel = check_order("lp_pool2d", norm_type), pair("lp_pool2d", "kernel_size", kernel_size, 1)
    if p == math.inf:
        return max_pool2d(abs(input), kernel, stride, 0, 1, ceil_mode)
    return _roots(avg_pool2d(_powers(input, p), kernel, stride, 0, ceil_mode), kernel[0] * kernel[1], p)


def lp_pool1d(input: Tensor, norm_type: float, kernel_size: int | Sequence[int], stride: int | Sequence[int] | None = None,
              ceil_mode: bool = False) -> Tensor:
    """The root (sum of x^p)^(1/p) over each window of a sequence; see `lp_pool2d`.

    Parameters
    ----------
    input : Tensor
        (N, C, L) or (C, L).
    norm_type : float
        p, above 0; ``math.inf``: the greatest magnitude.
    kernel_size : int
        Width of the window.
    stride : int, optional
        From window to window; by default `kernel_size`.
    ceil_mode : bool
        Whether a last window may reach over the end.

    Returns
    -------
    Tensor
        (N, C, OL).

    Raises
    ------
    ValueError
        If an argument is out of range or the window does not fit.
    """
    p, kernel = check_order("lp_pool1d", norm_type), single("lp_pool1d", "kernel_size", kernel_size)
    if p == math.inf:
        return max_pool1d(abs(input), kernel, stride, 0, 1, ceil_mode)
    return _roots(avg_pool1d(_powers(input, p), kernel, stride, 0, ceil_mode), kernel, p)
