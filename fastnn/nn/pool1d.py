"""Pooling layers over sequences."""

from __future__ import annotations

from collections.abc import Sequence

from ..checks import whole
from ..ops import pool1d
from ..ops.conv import single
from ..tensor import Tensor
from .module import Module

__all__ = ["AdaptiveAvgPool1d", "AdaptiveMaxPool1d", "AvgPool1d", "GlobalAvgPool1d", "GlobalMaxPool1d", "MaxPool1d"]


class _Pool1d(Module):
    """What pooling layers share: checking arguments where they are given."""

    def _set_window(self, kernel_size: int | Sequence[int], stride: int | Sequence[int] | None,
                    padding: int | Sequence[int]) -> None:
        title = type(self).__name__
        self.kernel_size = whole(f"{title}: kernel_size", single(title, "kernel_size", kernel_size), 1)
        step = self.kernel_size if stride is None else single(title, "stride", stride)
        self.stride = whole(f"{title}: stride", step, 1)
        self.padding = whole(f"{title}: padding", single(title, "padding", padding), 0)
        if 2 * self.padding > self.kernel_size:
            raise ValueError(f"{title}: padding is {padding!r}, but may be at most half of kernel_size {kernel_size!r}")

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxPool1d(_Pool1d):
    """The greatest element of each window: (N, C, L) -> (N, C, OL); see `fastnn.functional.max_pool1d`.

    Parameters
    ----------
    kernel_size : int
        Width of the window.
    stride : int, optional
        From window to window; by default `kernel_size`.
    padding : int
        Elements of -inf put on each side; at most half of `kernel_size`.
    dilation : int
        From element to element of a window.
    return_indices : bool
        Whether to return positions too.
    ceil_mode : bool
        Whether a last window may reach over the end.
    """

    def __init__(self, kernel_size: int | Sequence[int], stride: int | Sequence[int] | None = None,
                 padding: int | Sequence[int] = 0, dilation: int | Sequence[int] = 1, return_indices: bool = False,
                 ceil_mode: bool = False):
        super().__init__()
        self._set_window(kernel_size, stride, padding)
        self.dilation = whole("MaxPool1d: dilation", single("MaxPool1d", "dilation", dilation), 1)
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return pool1d.max_pool1d(input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode,
                                 self.return_indices)


class AvgPool1d(_Pool1d):
    """The mean of each window: (N, C, L) -> (N, C, OL); see `fastnn.functional.avg_pool1d`.

    Parameters
    ----------
    kernel_size : int
        Width of the window.
    stride : int, optional
        From window to window; by default `kernel_size`.
    padding : int
        Zeros put on each side; at most half of `kernel_size`.
    ceil_mode : bool
        Whether a last window may reach over the end.
    count_include_pad : bool
        Whether the padding counts in the divisor.
    """

    def __init__(self, kernel_size: int | Sequence[int], stride: int | Sequence[int] | None = None,
                 padding: int | Sequence[int] = 0, ceil_mode: bool = False, count_include_pad: bool = True):
        super().__init__()
        self._set_window(kernel_size, stride, padding)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, input: Tensor) -> Tensor:
        return pool1d.avg_pool1d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)


class AdaptiveAvgPool1d(Module):
    """The mean of each of OL regions: (N, C, L) -> (N, C, OL).

    Parameters
    ----------
    output_size : int
        OL.
    """

    def __init__(self, output_size: int | Sequence[int]):
        super().__init__()
        title = type(self).__name__
        self.output_size = whole(f"{title}: output_size", single(title, "output_size", output_size), 1)

    def forward(self, input: Tensor) -> Tensor:
        return pool1d.adaptive_avg_pool1d(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveMaxPool1d(AdaptiveAvgPool1d):
    """The greatest element of each of OL regions: (N, C, L) -> (N, C, OL).

    Parameters
    ----------
    output_size : int
        OL.
    return_indices : bool
        Whether to return positions too.
    """

    def __init__(self, output_size: int | Sequence[int], return_indices: bool = False):
        super().__init__(output_size)
        self.return_indices = return_indices

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return pool1d.adaptive_max_pool1d(input, self.output_size, self.return_indices)


class GlobalAvgPool1d(Module):
    """The mean of each sequence: (N, C, L) -> (N, C, 1)."""

    def forward(self, input: Tensor) -> Tensor:
        return pool1d.global_avg_pool1d(input)


class GlobalMaxPool1d(Module):
    """The greatest element of each sequence: (N, C, L) -> (N, C, 1)."""

    def forward(self, input: Tensor) -> Tensor:
        return pool1d.global_max_pool1d(input)
