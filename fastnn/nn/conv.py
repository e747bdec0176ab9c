"""Convolutional layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..checks import pair, whole
from ..ops.conv import conv1d, conv2d, sides, single
from ..ops.create import empty
from ..ops.shape import pad
from ..tensor import Tensor
from . import init
from .module import Module, Parameter, check_input


PADDING_MODES = {"zeros": None, "reflect": "reflect", "replicate": "replicate", "circular": "circular"}


def check_padding_mode(title: str, mode: str) -> str:
    """`mode`, or an error that lists what it may be."""
    if mode not in PADDING_MODES:
        raise ValueError(f"{title}: padding_mode is {mode!r}, but must be one of {', '.join(PADDING_MODES)}")
    return mode


class Conv2d(Module):
    """Two-dimensional convolution with learned filters.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input and of the output; multiples of `groups`.
    kernel_size : int or pair of int
        Height and width of a filter.
    stride : int or pair of int
        Steps between windows.
    padding : int, pair of int, "valid" or "same"
        Zeros around the map; see `fastnn.functional.conv2d`.
    dilation : int or pair of int
        Steps between the elements of a window.
    groups : int
        Number of groups of channels that do not see one another.
    bias : bool
        Whether there is a bias.
    padding_mode : str
        What surrounds the map: "zeros", or "reflect", "replicate", "circular"; see `fastnn.functional.pad`.

    Attributes
    ----------
    weight : Parameter
        (out_channels, in_channels / groups, height, width), at first uniform in +-1 / sqrt(fan-in), as PyTorch's.
    bias : Parameter or None
        (out_channels,), at first from the same interval.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | Sequence[int],
                 stride: int | Sequence[int] = 1,
                 padding: int | str | Sequence[int] = 0, dilation: int | Sequence[int] = 1, groups: int = 1,
                 bias: bool = True, padding_mode: str = "zeros"):
        super().__init__()
        title = type(self).__name__
        self.in_channels = whole(f"{title}: in_channels", in_channels, 0 if self._is_lazy else 1)
        self.out_channels = whole(f"{title}: out_channels", out_channels, 1)
        self.groups = whole(f"{title}: groups", groups, 1)
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(f"{title}: in_channels {in_channels} and out_channels {out_channels} must be multiples of "
                             f"groups {groups}")
        self.kernel_size = pair(title, "kernel_size", kernel_size, 1)
        self.stride = pair(title, "stride", stride, 1)
        self.dilation = pair(title, "dilation", dilation, 1)
        sides(title, padding, self.kernel_size, self.stride, self.dilation)  # refuses here, not at the first input
        self.padding = padding
        self.padding_mode = check_padding_mode(title, padding_mode)
        self.weight = Parameter(empty(self.out_channels, self.in_channels // self.groups, *self.kernel_size))
        self.register_parameter("bias", Parameter(empty(self.out_channels)) if bias else None)
        if not self._is_lazy:
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new first values."""
        fan_in = self.weight.shape[1] * self.weight.shape[2] * self.weight.shape[3]
        bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H', W')"""
        edges = self.padding
        if PADDING_MODES[self.padding_mode]:
            top, bottom, left, right = sides(type(self).__name__, edges, self.kernel_size, self.stride, self.dilation)
            x, edges = pad(x, (left, right, top, bottom), PADDING_MODES[self.padding_mode]), 0
        return conv2d(x, self.weight, self.bias, self.stride, edges, self.dilation, self.groups)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        for name, usual in (("padding", 0), ("dilation", (1, 1)), ("groups", 1), ("padding_mode", "zeros")):
            if getattr(self, name) != usual:
                text += f", {name}={getattr(self, name)}"
        return text if self.bias is not None else text + ", bias=False"


class LazyConv2d(Conv2d):
    """A Conv2d that takes in_channels from its first input; the other parameters are Conv2d's.

    Parameters
    ----------
    out_channels : int
        Channels of the output.
    kernel_size : int or pair of int
        Height and width of a filter.
    **options
        Conv2d's other parameters.
    """

    _is_lazy = True

    def __init__(self, out_channels: int, kernel_size: int | Sequence[int], **options):
        super().__init__(0, out_channels, kernel_size, **options)

    def materialize(self, x: Tensor) -> None:
        """Becomes a Conv2d for inputs like `x`."""
        check_input(self, x, (4,), "(N, C, H, W)")
        self._become(x.shape[1])
        self.weight.set_data(empty(self.out_channels, self.in_channels // self.groups, *self.kernel_size,
                                   dtype=self.weight.dtype))
        self.reset_parameters()

    def loaded(self) -> None:
        """Becomes a Conv2d with the loaded weight's channels."""
        self._become(self.weight.shape[1] * self.groups)

    def _become(self, channels: int) -> None:
        if channels % self.groups:
            raise ValueError(f"LazyConv2d: the input has {channels} channels, which is no multiple of groups "
                             f"{self.groups}")
        self.in_channels = channels
        self.__class__ = Conv2d


class Conv1d(Module):
    """One-dimensional convolution with learned filters.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input and of the output; multiples of `groups`.
    kernel_size : int
        Width of a filter.
    stride : int
        Steps between windows.
    padding : int, "valid" or "same"
        What is put on each side; see `fastnn.functional.conv1d`.
    dilation : int
        Steps between the elements of a window.
    groups : int
        Number of groups of channels that do not see one another.
    bias : bool
        Whether there is a bias.
    padding_mode : str
        What surrounds the sequence: "zeros", or "reflect", "replicate", "circular"; see `fastnn.functional.pad`.

    Attributes
    ----------
    weight : Parameter
        (out_channels, in_channels / groups, width), at first uniform in +-1 / sqrt(fan-in), as PyTorch's.
    bias : Parameter or None
        (out_channels,), at first from the same interval.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | Sequence[int],
                 stride: int | Sequence[int] = 1,
                 padding: int | str | Sequence[int] = 0, dilation: int | Sequence[int] = 1, groups: int = 1,
                 bias: bool = True, padding_mode: str = "zeros"):
        super().__init__()
        title = type(self).__name__
        self.in_channels = whole(f"{title}: in_channels", in_channels, 1)
        self.out_channels = whole(f"{title}: out_channels", out_channels, 1)
        self.groups = whole(f"{title}: groups", groups, 1)
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(f"{title}: in_channels {in_channels} and out_channels {out_channels} must be multiples of "
                             f"groups {groups}")
        for name, value in (("kernel_size", kernel_size), ("stride", stride), ("dilation", dilation)):
            setattr(self, name, (whole(f"{title}: {name}", single(title, name, value), 1),))
        self.padding = padding if isinstance(padding, str) else (
            whole(f"{title}: padding", single(title, "padding", padding), 0),)
        self._edges()
        self.padding_mode = check_padding_mode(title, padding_mode)
        self.weight = Parameter(empty(self.out_channels, self.in_channels // self.groups, *self.kernel_size))
        self.register_parameter("bias", Parameter(empty(self.out_channels)) if bias else None)
        self.reset_parameters()

    def _edges(self) -> tuple[int, int]:
        """Elements before and behind; an error if the padding cannot be."""
        both = self.padding if isinstance(self.padding, str) else (0, *self.padding)
        return sides(type(self).__name__, both, (1, *self.kernel_size), (1, *self.stride), (1, *self.dilation))[2:]

    def reset_parameters(self) -> None:
        """Draws new first values."""
        bound = 1 / math.sqrt(self.weight.shape[1] * self.weight.shape[2])
        for parameter in (self.weight, self.bias):
            if parameter is not None:
                init.uniform_(parameter, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, L) -> (N, out_channels, L')"""
        edges = self.padding
        if PADDING_MODES[self.padding_mode]:
            x, edges = pad(x, self._edges(), PADDING_MODES[self.padding_mode]), 0
        return conv1d(x, self.weight, self.bias, self.stride, edges, self.dilation, self.groups)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        for name, usual in (("padding", (0,)), ("dilation", (1,)), ("groups", 1), ("padding_mode", "zeros")):
            if getattr(self, name) != usual:
                text += f", {name}={getattr(self, name)}"
        return text if self.bias is not None else text + ", bias=False"
