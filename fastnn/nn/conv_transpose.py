"""Transposed convolution layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..checks import integers
from ..ops.conv_transpose import conv_transpose1d, conv_transpose2d
from ..ops.create import empty
from ..tensor import Tensor
from . import init
from .conv import extents, set_channels
from .lazy import Lazy
from .module import Module, Parameter
from .typed import typed

__all__ = ["ConvTranspose1d", "ConvTranspose2d", "LazyConvTranspose1d", "LazyConvTranspose2d"]


class _ConvTranspose(Module):
    """What transposed convolutions share; see `ConvTranspose2d`."""

    _axes: int

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | Sequence[int],
                 stride: int | Sequence[int] = 1,
                 padding: int | Sequence[int] = 0, output_padding: int | Sequence[int] = 0, groups: int = 1,
                 bias: bool = True, dilation: int | Sequence[int] = 1, padding_mode: str = "zeros"):
        super().__init__()
        title = type(self).__name__
        set_channels(self, in_channels, out_channels, groups)
        sizes = (("kernel_size", kernel_size, 1), ("stride", stride, 1), ("padding", padding, 0),
                 ("output_padding", output_padding, 0), ("dilation", dilation, 1))
        for name, value, least in sizes:
            setattr(self, name, extents(title, name, value, self._axes, least))
        if any(e >= s and e >= d for e, s, d in zip(self.output_padding, self.stride, self.dilation)):
            raise ValueError(f"{title}: output_padding is {output_padding!r}, but must be less than stride "
                             f"{stride!r} or dilation {dilation!r}")
        if padding_mode != "zeros":
            raise ValueError(f"{title}: padding_mode is {padding_mode!r}, but must be 'zeros': padding cuts off here")
        self.padding_mode = padding_mode
        self.weight = Parameter(empty(self.in_channels, self.out_channels // self.groups, *self.kernel_size))
        self.register_parameter("bias", Parameter(empty(self.out_channels)) if bias else None)
        if not self._is_lazy:
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new first values."""
        bound = 1 / math.sqrt(self.weight.numel() // self.in_channels)
        for parameter in (self.weight, self.bias):
            if parameter is not None:
                init.uniform_(parameter, -bound, bound)

    def _added(self, x: Tensor, output_size: Sequence[int] | None) -> tuple[int, ...]:
        """The output_padding that makes the result `output_size`."""
        if output_size is None:
            return self.output_padding
        wanted = integers(type(self).__name__, "output_size", output_size)[-self._axes:]
        least = [(n - 1) * s - 2 * p + d * (r - 1) + 1 for n, s, p, d, r in
                 zip(x.shape[-self._axes:], self.stride, self.padding, self.dilation, self.kernel_size)]
        extra = tuple(w - n for w, n in zip(wanted, least))
        if len(wanted) != len(least) or any(
                not 0 <= e < max(s, d) for e, s, d in zip(extra, self.stride, self.dilation)):
            raise ValueError(f"{type(self).__name__}: output_size is {tuple(output_size)}, but must be at least "
                             f"{tuple(least)} and less than a stride (or dilation) more")
        return extra

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        usual = {"padding": 0, "dilation": 1, "output_padding": 0, "groups": 1}
        for name, value in usual.items():
            if getattr(self, name) not in (value, (value,) * self._axes):
                text += f", {name}={getattr(self, name)}"
        return text if self.bias is not None else text + ", bias=False"


@typed
class ConvTranspose2d(_ConvTranspose):
    """Transposed convolution with learned filters; see `fastnn.functional.conv_transpose2d`.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input and of the output; multiples of `groups`.
    kernel_size : int or pair of int
        Height and width of a filter.
    stride : int or pair of int
        Steps between the places where neighbouring elements put their filters.
    padding : int or pair of int
        Rows and columns cut off on each side.
    output_padding : int or pair of int
        Rows and columns added at the end; less than stride or dilation.
    groups : int
        Number of groups of channels that do not see one another.
    bias : bool
        Whether there is a bias.
    dilation : int or pair of int
        Steps between the elements of a filter.
    padding_mode : str
        "zeros"; PyTorch has no other here.

    Attributes
    ----------
    weight : Parameter
        (in_channels, out_channels / groups, height, width), at first uniform in +-1 / sqrt(out_channels / groups height
        width), as PyTorch's.
    bias : Parameter or None
        (out_channels,), at first from the same interval.

    References
    ----------
    M. D. Zeiler et al., "Deconvolutional networks", CVPR 2010.
    """

    _axes = 2

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        return conv_transpose2d(input, self.weight, self.bias, self.stride, self.padding, self._added(input, output_size),
                                self.groups, self.dilation)


@typed
class ConvTranspose1d(_ConvTranspose):
    """One-dimensional transposed convolution: (N, C, L) -> (N, K, L'); the parameters are ConvTranspose2d's, single
    integers.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input and of the output; multiples of `groups`.
    kernel_size : int
        Width of a filter.
    stride : int
        Steps between the places where neighbouring elements put their filters.
    padding : int
        Elements cut off on each side.
    output_padding : int
        Elements added at the end; less than stride or dilation.
    groups : int
        Number of groups of channels that do not see one another.
    bias : bool
        Whether there is a bias.
    dilation : int
        Steps between the elements of a filter.
    padding_mode : str
        "zeros"; PyTorch has no other here.
    """

    _axes = 1

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        return conv_transpose1d(input, self.weight, self.bias, self.stride, self.padding, self._added(input, output_size),
                                self.groups, self.dilation)


class _LazyConvTranspose(Lazy):
    """Takes in_channels from the first input."""

    _count, _lazy_axes = "in_channels", {"weight": 0}

    def materialize(self, x: Tensor, output_size: Sequence[int] | None = None) -> None:
        """Becomes a layer for inputs like `x`."""
        super().materialize(x)


class LazyConvTranspose2d(_LazyConvTranspose, ConvTranspose2d):
    """A ConvTranspose2d that takes in_channels from its first input; the other parameters are ConvTranspose2d's."""

    _channel_axis, _lazy_ranks, _lazy_layout = -3, (3, 4), "(N, C, H, W) or (C, H, W)"


class LazyConvTranspose1d(_LazyConvTranspose, ConvTranspose1d):
    """A ConvTranspose1d that takes in_channels from its first input; the other parameters are ConvTranspose1d's."""

    _channel_axis, _lazy_ranks, _lazy_layout = -2, (2, 3), "(N, C, L) or (C, L)"
