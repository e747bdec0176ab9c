"""Pooling by norms, as layers."""

from __future__ import annotations

from collections.abc import Sequence

from ..checks import pair, whole
from ..ops.conv import single
from ..ops.lp_pool import check_order, lp_pool1d, lp_pool2d
from ..tensor import Tensor
from .module import Module

__all__ = ["LPPool1d", "LPPool2d"]


class LPPool2d(Module):
    """The root (sum of x^p)^(1/p) over each window: (N, C, H, W) -> (N, C, OH, OW); see `fastnn.functional.lp_pool2d`.

    Parameters
    ----------
    norm_type : float
        p, above 0; ``math.inf``: the greatest magnitude.
    kernel_size : int or pair of int
        Height and width of the window.
    stride : int or pair of int, optional
        From window to window; by default `kernel_size`.
    ceil_mode : bool
        Whether a last window may reach over the end.
    """

    def __init__(self, norm_type: float, kernel_size: int | Sequence[int], stride: int | Sequence[int] | None = None,
                 ceil_mode: bool = False):
        super().__init__()
        self.norm_type = check_order("LPPool2d", norm_type)
        self.kernel_size = pair("LPPool2d", "kernel_size", kernel_size, 1)
        self.stride = self.kernel_size if stride is None else pair("LPPool2d", "stride", stride, 1)
        self.ceil_mode = bool(ceil_mode)

    def forward(self, input: Tensor) -> Tensor:
        return lp_pool2d(input, self.norm_type, self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        return f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}"


class LPPool1d(Module):
    """The root (sum of x^p)^(1/p) over each window: (N, C, L) -> (N, C, OL); see `fastnn.functional.lp_pool1d`.

    Parameters
    ----------
    norm_type : float
        p, above 0; ``math.inf``: the greatest magnitude.
    kernel_size : int
        Width of the window.
    stride : int, optional
        From window to window; by default `kernel_size`.
    ceil_mode : bool
        Whether a last window may reach over the end.
    """

    def __init__(self, norm_type: float, kernel_size: int | Sequence[int], stride: int | Sequence[int] | None = None,
                 ceil_mode: bool = False):
        super().__init__()
        self.norm_type = check_order("LPPool1d", norm_type)
        self.kernel_size = whole("LPPool1d: kernel_size", single("LPPool1d", "kernel_size", kernel_size), 1)
        step = self.kernel_size if stride is None else single("LPPool1d", "stride", stride)
        self.stride, self.ceil_mode = whole("LPPool1d: stride", step, 1), bool(ceil_mode)

    def forward(self, input: Tensor) -> Tensor:
        return lp_pool1d(input, self.norm_type, self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        return f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}"
