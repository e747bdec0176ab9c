"""Pooling layers."""

from __future__ import annotations

from collections.abc import Sequence

from ..checks import integer, pair
from ..ops import pool
from ..tensor import Tensor
from .module import Module


class _Pool(Module):
    """What pooling layers share: checking arguments where they are given."""

    def _set_window(self, kernel_size: int | Sequence[int], stride: int | Sequence[int] | None,
                    padding: int | Sequence[int]) -> None:
        title = type(self).__name__
        kernel = pair(title, "kernel_size", kernel_size, 1)
        if any(2 * p > k for p, k in zip(pair(title, "padding", padding, 0), kernel)):
            raise ValueError(f"{title}: padding is {padding!r}, but may be at most half of kernel_size {kernel_size!r}")
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        pair(title, "stride", self.stride, 1)
        self.padding = padding

    def _set_output(self, output_size: int | Sequence[int | None] | None) -> None:
        sizes = output_size if isinstance(output_size, (tuple, list)) else (output_size,)
        given = [1 if size is None else size for size in sizes]
        pair(type(self).__name__, "output_size", given[0] if len(given) == 1 else given, 1)
        self.output_size = output_size


class MaxPool2d(_Pool):
    """The greatest element of each window: (N, C, H, W) -> (N, C, OH, OW); see `fastnn.functional.max_pool2d`.

    Parameters
    ----------
    kernel_size : int or pair of int
        Height and width of the window.
    stride : int or pair of int, optional
        From window to window; by default `kernel_size`.
    padding : int or pair of int
        Rows and columns of -inf put around each map; at most half of `kernel_size`.
    dilation : int or pair of int
        From element to element of a window.
    return_indices : bool
        Whether to return positions h W + w too.
    ceil_mode : bool
        Whether a last window may reach over the end.
    """

    def __init__(self, kernel_size: int | Sequence[int], stride: int | Sequence[int] | None = None,
                 padding: int | Sequence[int] = 0, dilation: int | Sequence[int] = 1, return_indices: bool = False,
                 ceil_mode: bool = False):
        super().__init__()
        self._set_window(kernel_size, stride, padding)
        pair("MaxPool2d", "dilation", dilation, 1)
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return pool.max_pool2d(input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode,
                               self.return_indices)

    def extra_repr(self) -> str:
        return (f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
                f"dilation={self.dilation}, ceil_mode={self.ceil_mode}")


class AvgPool2d(_Pool):
    """The mean of each window: (N, C, H, W) -> (N, C, OH, OW); see `fastnn.functional.avg_pool2d`.

    Parameters
    ----------
    kernel_size : int or pair of int
        Height and width of the window.
    stride : int or pair of int, optional
        From window to window; by default `kernel_size`.
    padding : int or pair of int
        Rows and columns of zeros put around each map; at most half of `kernel_size`.
    ceil_mode : bool
        Whether a last window may reach over the end.
    count_include_pad : bool
        Whether the padding counts in the divisor.
    divisor_override : int, optional
        What to divide each window's sum by, instead of its size.
    """

    def __init__(self, kernel_size: int | Sequence[int], stride: int | Sequence[int] | None = None,
                 padding: int | Sequence[int] = 0, ceil_mode: bool = False, count_include_pad: bool = True,
                 divisor_override: int | None = None):
        super().__init__()
        self._set_window(kernel_size, stride, padding)
        if divisor_override is not None and integer("AvgPool2d", "divisor_override", divisor_override) == 0:
            raise ValueError("AvgPool2d: divisor_override is 0, but must be None or an integer other than 0")
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def forward(self, input: Tensor) -> Tensor:
        return pool.avg_pool2d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad,
                               self.divisor_override)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AdaptiveAvgPool2d(_Pool):
    """The mean of each of OH x OW regions: (N, C, H, W) -> (N, C, OH, OW).

    Parameters
    ----------
    output_size : int or pair of int or None
        OH and OW; None keeps the input's.
    """

    def __init__(self, output_size: int | Sequence[int | None]):
        super().__init__()
        self._set_output(output_size)

    def forward(self, input: Tensor) -> Tensor:
        return pool.adaptive_avg_pool2d(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveMaxPool2d(_Pool):
    """The greatest element of each of OH x OW regions: (N, C, H, W) -> (N, C, OH, OW).

    Parameters
    ----------
    output_size : int or pair of int or None
        OH and OW; None keeps the input's.
    return_indices : bool
        Whether to return positions h W + w too.
    """

    def __init__(self, output_size: int | Sequence[int | None], return_indices: bool = False):
        super().__init__()
        self._set_output(output_size)
        self.return_indices = return_indices

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return pool.adaptive_max_pool2d(input, self.output_size, self.return_indices)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class GlobalAvgPool2d(Module):
    """The mean of each map: (N, C, H, W) -> (N, C, 1, 1)."""

    def forward(self, input: Tensor) -> Tensor:
        return pool.global_avg_pool2d(input)


class GlobalMaxPool2d(Module):
    """The greatest element of each map: (N, C, H, W) -> (N, C, 1, 1)."""

    def forward(self, input: Tensor) -> Tensor:
        return pool.global_max_pool2d(input)
