"""Layers that move channels; see `fastnn.functional` for what goes where."""

from __future__ import annotations

from ..checks import whole
from ..ops.rearrange import channel_shuffle, pixel_shuffle, pixel_unshuffle
from ..tensor import Tensor
from .module import Module

__all__ = ["ChannelShuffle", "PixelShuffle", "PixelUnshuffle"]


class PixelShuffle(Module):
    """(..., C r^2, H, W) -> (..., C, H r, W r); see `fastnn.functional.pixel_shuffle`.

    Parameters
    ----------
    upscale_factor : int
        r.
    """

    def __init__(self, upscale_factor: int):
        super().__init__()
        self.upscale_factor = whole("PixelShuffle: upscale_factor", upscale_factor, 1)

    def forward(self, input: Tensor) -> Tensor:
        return pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """(..., C, H r, W r) -> (..., C r^2, H, W); see `fastnn.functional.pixel_unshuffle`.

    Parameters
    ----------
    downscale_factor : int
        r.
    """

    def __init__(self, downscale_factor: int):
        super().__init__()
        self.downscale_factor = whole("PixelUnshuffle: downscale_factor", downscale_factor, 1)

    def forward(self, input: Tensor) -> Tensor:
        return pixel_unshuffle(input, self.downscale_factor)

    def extra_repr(self) -> str:
        return f"downscale_factor={self.downscale_factor}"


class ChannelShuffle(Module):
    """(N, C, ...) with its channels dealt out among groups; see `fastnn.functional.channel_shuffle`.

    Parameters
    ----------
    groups : int
        Number of groups, which divides C.
    """

    def __init__(self, groups: int):
        super().__init__()
        self.groups = whole("ChannelShuffle: groups", groups, 1)

    def forward(self, input: Tensor) -> Tensor:
        return channel_shuffle(input, self.groups)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"
