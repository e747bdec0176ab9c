"""Convolutional layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..checks import among, pair, whole
from ..ops.conv import conv1d, conv2d, sides, single
from ..ops.create import empty
from ..ops.slices import pad
from ..tensor import Tensor
from . import init
from .lazy import Lazy
from .module import Module, Parameter
from .typed import typed


PADDING_MODES = {"zeros": None, "reflect": "reflect", "replicate": "replicate", "circular": "circular"}


def check_padding_mode(title: str, mode: str) -> str:
    """`mode`, or an error that lists what it may be."""
    return among(f"{title}: padding_mode", mode, PADDING_MODES)


def extents(title: str, argument: str, value: int | Sequence[int], axes: int, least: int) -> tuple[int, ...]:
    """`value` as a tuple of one number for each of one or two axes."""
    if axes == 2:
        return pair(title, argument, value, least)
    return (whole(f"{title}: {argument}", single(title, argument, value), least),)


def set_channels(layer: Module, in_channels: int, out_channels: int, groups: int) -> None:
    """The three as the layer's attributes; a lazy layer learns of `in_channels`, which is 0 so far, from its first input."""
    title = type(layer).__name__
    layer.in_channels = whole(f"{title}: in_channels", in_channels, 0 if layer._is_lazy else 1)
    layer.out_channels = whole(f"{title}: out_channels", out_channels, 1)
    layer.groups = whole(f"{title}: groups", groups, 1)
    if layer.in_channels % layer.groups or layer.out_channels % layer.groups:
        raise ValueError(f"{title}: in_channels {in_channels} and out_channels {out_channels} must be multiples of "
                         f"groups {groups}")


class _Conv(Module):
    """What convolutions share; see `Conv2d`."""

    _axes: int

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | Sequence[int],
                 stride: int | Sequence[int] = 1,
                 padding: int | str | Sequence[int] = 0, dilation: int | Sequence[int] = 1, groups: int = 1,
                 bias: bool = True, padding_mode: str = "zeros"):
        super().__init__()
        title = type(self).__name__
        set_channels(self, in_channels, out_channels, groups)
        for name, value in (("kernel_size", kernel_size), ("stride", stride), ("dilation", dilation)):
            setattr(self, name, extents(title, name, value, self._axes, 1))
        self.padding = padding if isinstance(padding, str) else extents(title, "padding", padding, self._axes, 0)
        self._edges()  # refuses here, not at the first input
        self.padding_mode = check_padding_mode(title, padding_mode)
        self.weight = Parameter(empty(self.out_channels, self.in_channels // self.groups, *self.kernel_size))
        self.register_parameter("bias", Parameter(empty(self.out_channels)) if bias else None)
        if not self._is_lazy:
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new first values."""
        bound = 1 / math.sqrt(math.prod(self.weight.shape[1:]))
        for parameter in (self.weight, self.bias):
            if parameter is not None:
                init.uniform_(parameter, -bound, bound)

    def _edges(self) -> tuple[int, int, int, int]:
        """What the padding means, above, below, left and right; an error if it cannot be."""
        filled = [(1,) * (2 - self._axes) + value for value in (self.kernel_size, self.stride, self.dilation)]
        padding = self.padding if isinstance(self.padding, str) else (0,) * (2 - self._axes) + self.padding
        return sides(type(self).__name__, padding, *filled)

    def _padded(self, x: Tensor) -> tuple[Tensor, str | tuple[int, ...]]:
        """The input with its padding, and what is left to the convolution."""
        mode = PADDING_MODES[self.padding_mode]
        if mode is None:
            return x, self.padding
        top, bottom, left, right = self._edges()
        return pad(x, (left, right, top, bottom)[:2 * self._axes], mode), (0,) * self._axes

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        for name, usual in (("padding", (0,) * self._axes), ("dilation", (1,) * self._axes), ("groups", 1)):
            if getattr(self, name) != usual:
                text += f", {name}={getattr(self, name)}"
        text += "" if self.bias is not None else ", bias=False"
        return text if self.padding_mode == "zeros" else text + f", padding_mode={self.padding_mode}"


@typed
class Conv2d(_Conv):
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

    _axes = 2

    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H', W'); or without N"""
        x, edges = self._padded(input)
        return conv2d(x, self.weight, self.bias, self.stride, edges, self.dilation, self.groups)


@typed
class Conv1d(_Conv):
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

    _axes = 1

    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, L) -> (N, out_channels, L'); or without N"""
        x, edges = self._padded(input)
        return conv1d(x, self.weight, self.bias, self.stride, edges, self.dilation, self.groups)


class _LazyConv(Lazy):
    """Takes in_channels from the first input."""

    _count, _lazy_axes = "in_channels", {"weight": 1}

    def _share(self) -> int:
        return self.groups


class LazyConv2d(_LazyConv, Conv2d):
    """A Conv2d that takes in_channels from its first input; the other parameters are Conv2d's."""

    _channel_axis, _lazy_ranks, _lazy_layout = -3, (3, 4), "(N, C, H, W) or (C, H, W)"


class LazyConv1d(_LazyConv, Conv1d):
    """A Conv1d that takes in_channels from its first input; the other parameters are Conv1d's."""

    _channel_axis, _lazy_ranks, _lazy_layout = -2, (2, 3), "(N, C, L) or (C, L)"
