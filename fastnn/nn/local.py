"""Layers of sliding windows: un-shared filters, unfold and fold."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..checks import pair, whole
from ..ops.conv import single
from ..ops.create import empty
from ..ops.window import fold, local1d, local2d, unfold
from ..tensor import Tensor
from . import init
from .module import Module, Parameter

__all__ = ["Fold", "LocallyConnected1d", "LocallyConnected2d", "Unfold"]


class LocallyConnected2d(Module):
    """Convolution with filters of their own at every place; see `fastnn.functional.local2d`.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input and of the output.
    input_size : int or pair of int
        Height and width of the input: filters are as many as places.
    kernel_size : int or pair of int
        Height and width of a filter.
    stride : int or pair of int
        Steps between windows.
    padding : int or pair of int
        Zeros around the map.
    bias : bool
        Whether there is a bias.

    Attributes
    ----------
    weight : Parameter
        (OH OW, out_channels, in_channels height width), at first uniform in +-1 / sqrt(fan-in).
    bias : Parameter or None
        (out_channels, OH, OW), at first from the same interval.
    """

    def __init__(self, in_channels: int, out_channels: int, input_size: int | Sequence[int],
                 kernel_size: int | Sequence[int],
                 stride: int | Sequence[int] = 1, padding: int | Sequence[int] = 0, bias: bool = True):
        super().__init__()
        title = type(self).__name__
        self.in_channels = whole(f"{title}: in_channels", in_channels, 1)
        self.out_channels = whole(f"{title}: out_channels", out_channels, 1)
        for name, value, least in (("input_size", input_size, 1), ("kernel_size", kernel_size, 1),
                                   ("stride", stride, 1),
                                   ("padding", padding, 0)):
            setattr(self, name, self._extents(title, name, value, least))
        places = [(n + 2 * p - r) // s + 1
                  for n, p, r, s in zip(self.input_size, self.padding, self.kernel_size, self.stride)]
        if min(places) < 1:
            raise ValueError(f"{title}: kernel_size is {kernel_size!r}, but must fit into input_size {input_size!r} "
                             "and its padding")
        self.weight = Parameter(empty(math.prod(places), self.out_channels,
                                      self.in_channels * math.prod(self.kernel_size)))
        self.register_parameter("bias", Parameter(empty(self.out_channels, *places)) if bias else None)
        self.reset_parameters()

    @staticmethod
    def _extents(title: str, name: str, value: int | Sequence[int], least: int) -> tuple[int, ...]:
        return pair(title, name, value, least)

    def reset_parameters(self) -> None:
        """Draws new first values."""
        bound = 1 / math.sqrt(self.weight.shape[2])
        for parameter in (self.weight, self.bias):
            if parameter is not None:
                init.uniform_(parameter, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        return local2d(input, self.weight, self.bias, self.kernel_size, self.stride, self.padding)

    def extra_repr(self) -> str:
        return (f"{self.in_channels}, {self.out_channels}, input_size={self.input_size}, "
                f"kernel_size={self.kernel_size}, "
                f"stride={self.stride}, padding={self.padding}, bias={self.bias is not None}")


class LocallyConnected1d(LocallyConnected2d):
    """One-dimensional convolution with filters of their own at every place; see `fastnn.functional.local1d`.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input and of the output.
    input_size : int
        Length of the input.
    kernel_size : int
        Width of a filter.
    stride : int
        Steps between windows.
    padding : int
        Zeros on each side.
    bias : bool
        Whether there is a bias.

    Attributes
    ----------
    weight : Parameter
        (OL, out_channels, in_channels width).
    bias : Parameter or None
        (out_channels, OL).
    """

    def __init__(self, in_channels: int, out_channels: int, input_size: int | Sequence[int],
                 kernel_size: int | Sequence[int],
                 stride: int | Sequence[int] = 1, padding: int | Sequence[int] = 0, bias: bool = True):
        super().__init__(in_channels, out_channels, input_size, kernel_size, stride, padding, bias)

    @staticmethod
    def _extents(title: str, name: str, value: int | Sequence[int], least: int) -> tuple[int, ...]:
        return (whole(f"{title}: {name}", single(title, name, value), least),)

    def forward(self, input: Tensor) -> Tensor:
        return local1d(input, self.weight, self.bias, self.kernel_size, self.stride, self.padding)


class _Windows(Module):
    """What layers share that take a map apart into windows or put it together again."""

    def _set_windows(self, kernel_size: int | Sequence[int], dilation: int | Sequence[int], padding: int | Sequence[int],
                     stride: int | Sequence[int]) -> None:
        title = type(self).__name__
        self.kernel_size = pair(title, "kernel_size", kernel_size, 1)
        self.dilation = pair(title, "dilation", dilation, 1)
        self.padding = pair(title, "padding", padding, 0)
        self.stride = pair(title, "stride", stride, 1)


class Unfold(_Windows):
    """All windows of a map side by side: (N, C, H, W) -> (N, C R S, windows); see `fastnn.functional.unfold`.

    Parameters
    ----------
    kernel_size : int or pair of int
        Height R and width S of a window.
    dilation : int or pair of int
        Steps between the elements of a window.
    padding : int or pair of int
        Rows and columns of zeros on each side.
    stride : int or pair of int
        Steps between windows.
    """

    def __init__(self, kernel_size: int | Sequence[int], dilation: int | Sequence[int] = 1,
                 padding: int | Sequence[int] = 0, stride: int | Sequence[int] = 1):
        super().__init__()
        self._set_windows(kernel_size, dilation, padding, stride)

    def forward(self, input: Tensor) -> Tensor:
        return unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return f"{self.kernel_size}, dilation={self.dilation}, padding={self.padding}, stride={self.stride}"


class Fold(_Windows):
    """Puts windows back and adds them up: (N, C R S, windows) -> (N, C, H, W); see `fastnn.functional.fold`.

    Parameters
    ----------
    output_size : int or pair of int
        H and W.
    kernel_size : int or pair of int
        Height R and width S of a window.
    dilation : int or pair of int
        Steps between the elements of a window.
    padding : int or pair of int
        Rows and columns cut off on each side.
    stride : int or pair of int
        Steps between windows.
    """

    def __init__(self, output_size: int | Sequence[int], kernel_size: int | Sequence[int],
                 dilation: int | Sequence[int] = 1,
                 padding: int | Sequence[int] = 0, stride: int | Sequence[int] = 1):
        super().__init__()
        self.output_size = pair("Fold", "output_size", output_size, 1)
        self._set_windows(kernel_size, dilation, padding, stride)

    def forward(self, input: Tensor) -> Tensor:
        return fold(input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return (f"{self.output_size}, {self.kernel_size}, dilation={self.dilation}, padding={self.padding}, "
                f"stride={self.stride}")
