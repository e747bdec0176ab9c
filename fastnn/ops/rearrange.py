"""Channels into pixels and back, and channels among themselves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..checks import a_tensor, whole
from .shape import permute, reshape, transpose

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["channel_shuffle", "pixel_shuffle", "pixel_unshuffle"]


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """Makes of every r^2 channels one of r times the height and width.

    Parameters
    ----------
    input : Tensor
        (..., C r^2, H, W).
    upscale_factor : int
        r.

    Returns
    -------
    Tensor
        (..., C, H r, W r): row i and column j of a pixel's r x r block come from channel r i + j.

    Raises
    ------
    ValueError
        If `input` has fewer than three axes, or its channels are no multiple of r^2.

    References
    ----------
    W. Shi et al., "Real-time single image and video super-resolution using an efficient sub-pixel convolutional neural
    network", CVPR 2016.
    """
    r = whole("pixel_shuffle: upscale_factor", upscale_factor, 1)
    if a_tensor("pixel_shuffle", input).ndim < 3 or input.shape[-3] % r**2:
        raise ValueError(f"pixel_shuffle: input has shape {input.shape}, but must be (..., C, H, W) with C a multiple of "
                         f"{r**2}, the square of upscale_factor {r}")
    *before, c, h, w = input.shape
    parts = permute(reshape(input, (math.prod(before), c // r**2, r, r, h, w)), 0, 1, 4, 2, 5, 3)
    return reshape(parts, (*before, c // r**2, h * r, w * r))


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """Undoes `pixel_shuffle`.

    Parameters
    ----------
    input : Tensor
        (..., C, H r, W r).
    downscale_factor : int
        r.

    Returns
    -------
    Tensor
        (..., C r^2, H, W).

    Raises
    ------
    ValueError
        If `input` has fewer than three axes, or height or width is no multiple of r.
    """
    r = whole("pixel_unshuffle: downscale_factor", downscale_factor, 1)
    if a_tensor("pixel_unshuffle", input).ndim < 3 or input.shape[-2] % r or input.shape[-1] % r:
        raise ValueError(f"pixel_unshuffle: input has shape {input.shape}, but must be (..., C, H, W) with H and W multiples "
                         f"of downscale_factor {r}")
    *before, c, h, w = input.shape
    parts = permute(reshape(input, (math.prod(before), c, h // r, r, w // r, r)), 0, 1, 3, 5, 2, 4)
    return reshape(parts, (*before, c * r**2, h // r, w // r))


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """Deals the channels of each group out to all groups: what a grouped convolution keeps apart meets in the next one.

    Parameters
    ----------
    input : Tensor
        (N, C, ...).
    groups : int
        Number of groups, which divides C.

    Returns
    -------
    Tensor
        Shape of `input`; channel i of group g becomes channel g of group i.

    Raises
    ------
    ValueError
        If `input` has fewer than three axes, or `groups` does not divide its channels.

    References
    ----------
    X. Zhang et al., "ShuffleNet: an extremely efficient convolutional neural network for mobile devices", CVPR 2018.
    """
    groups = whole("channel_shuffle: groups", groups, 1)
    if a_tensor("channel_shuffle", input).ndim < 3 or input.shape[1] % groups:
        raise ValueError(f"channel_shuffle: input has shape {input.shape}, but must be (N, C, ...) with C a multiple of groups "
                         f"{groups}")
    n, c, *rest = input.shape
    return reshape(transpose(reshape(input, (n, groups, c // groups, *rest)), 1, 2), input.shape)
