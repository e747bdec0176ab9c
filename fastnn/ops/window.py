"""Sliding windows, and filters that are not shared between them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..checks import a_tensor, pair
from .conv import flat, sequence, single
from .create import tensor, zeros
from .index import index_select
from .linear import matmul
from .math import add
from .scatter import index_add
from .shape import permute, reshape, unsqueeze
from .slices import pad, slice_view

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["fold", "local1d", "local2d", "unfold"]


@functools.lru_cache(maxsize=8)  # of a map of 224 x 224 and windows of 7 x 7 it takes 19 MB
def _places(size: tuple[int, int], window: tuple[int, int], dilation: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """(R S OH OW,): where in a flattened map of H x W the elements of all windows lie.

    Picking them is exact. A convolution with filters of one 1 each would multiply the others by 0: infinities would become NaN.
    """
    rows, columns = (np.arange(r)[:, None] * d + np.arange(0, n - d * (r - 1), s)
                     for n, r, d, s in zip(size, window, dilation, stride))
    return tensor((rows[:, None, :, None] * size[1] + columns[None, :, None, :]).ravel())


def unfold(input: Tensor, kernel_size: int | Sequence[int], dilation: int | Sequence[int] = 1,
           padding: int | Sequence[int] = 0, stride: int | Sequence[int] = 1) -> Tensor:
    """All windows of a map side by side (im2col).

    Parameters
    ----------
    input : Tensor
        (N, C, H, W).
    kernel_size : int or pair of int
        Height R and width S of a window.
    dilation : int or pair of int
        Steps between the elements of a window.
    padding : int or pair of int
        Rows and columns of zeros on each side.
    stride : int or pair of int
        Steps between windows.

    Returns
    -------
    Tensor
        (N, C R S, windows).

    Raises
    ------
    ValueError
        If no window fits.
    """
    if a_tensor("unfold", input).ndim != 4:
        raise ValueError(f"unfold: input has shape {input.shape}, but must be (N, C, H, W)")
    window = pair("unfold", "kernel_size", kernel_size, 1)
    around, steps = pair("unfold", "padding", padding, 0), pair("unfold", "dilation", dilation, 1)
    if any(n + 2 * more <= step * (k - 1) for n, k, more, step in zip(input.shape[2:], window, around, steps)):
        raise ValueError(f"unfold: kernel_size is {window}, but with dilation {steps} and padding {around} no such window fits "
                         f"input {input.shape}")  # said before filters of that size are made
    images, channels, *size = input.shape
    size = tuple(n + 2 * more for n, more in zip(size, around))
    places = _places(size, window, steps, pair("unfold", "stride", stride, 1))
    whole = pad(input, (around[1], around[1], around[0], around[0])) if max(around) else input
    y = index_select(reshape(whole, (images, channels, size[0] * size[1])), 2, places)
    count = window[0] * window[1]
    return reshape(y, (images, channels * count, places.numel() // count))


def fold(input: Tensor, output_size: int | Sequence[int], kernel_size: int | Sequence[int],
         dilation: int | Sequence[int] = 1,
         padding: int | Sequence[int] = 0, stride: int | Sequence[int] = 1) -> Tensor:
    """Puts windows back and adds them up where they overlap (col2im): what gives the gradient of `unfold`.

    Parameters
    ----------
    input : Tensor
        (N, C R S, windows).
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

    Returns
    -------
    Tensor
        (N, C, H, W).

    Raises
    ------
    ValueError
        If the windows are not those of such a map.
    """
    size, window = pair("fold", "output_size", output_size, 1), pair("fold", "kernel_size", kernel_size, 1)
    stride, dilation = pair("fold", "stride", stride, 1), pair("fold", "dilation", dilation, 1)
    padding, count = pair("fold", "padding", padding, 0), window[0] * window[1]
    places = [(n + 2 * p - d * (r - 1) - 1) // s + 1 for n, p, d, r, s in zip(size, padding, dilation, window, stride)]
    if a_tensor("fold", input).ndim != 3 or input.shape[1] % count or input.shape[2] != places[0] * places[1]:
        raise ValueError(f"fold: input has shape {input.shape}, but must be (N, C {count}, {places[0] * places[1]}) for a "
                         "map of "
                         f"{size[0]} x {size[1]} and windows of {window[0]} x {window[1]}")
    channels = input.shape[1] // count
    whole = tuple(n + 2 * p for n, p in zip(size, padding))
    parts = reshape(input, (input.shape[0], channels, count * input.shape[2]))
    y = zeros(*parts.shape[:2], whole[0] * whole[1], dtype=input.dtype)
    y = index_add(y, 2, _places(whole, window, dilation, stride), parts)
    y = reshape(y, (*y.shape[:2], *whole))
    return slice_view(y, (..., *(slice(p, p + n) for p, n in zip(padding, size)))) if max(padding) else y


def local2d(input: Tensor, weight: Tensor, bias: Tensor | None, kernel_size: int | Sequence[int],
            stride: int | Sequence[int] = 1, padding: int | Sequence[int] = 0) -> Tensor:
    """Convolution with filters of their own at every place.

    Parameters
    ----------
    input : Tensor
        (N, C, H, W).
    weight : Tensor
        (OH OW, K, C R S), one set of filters for each place of the result.
    bias : Tensor or None
        (K, OH, OW).
    kernel_size : int or pair of int
        Height R and width S of a window.
    stride : int or pair of int
        Steps between windows.
    padding : int or pair of int
        Rows and columns of zeros on each side.

    Returns
    -------
    Tensor
        (N, K, OH, OW).

    Raises
    ------
    ValueError
        If shapes do not fit one another.

    References
    ----------
    I. Goodfellow, Y. Bengio and A. Courville, "Deep learning", MIT Press 2016, section 9.5: unshared convolution.
    """
    window, steps = pair("local2d", "kernel_size", kernel_size, 1), pair("local2d", "stride", stride, 1)
    edges = pair("local2d", "padding", padding, 0)
    columns = unfold(input, window, 1, edges, steps)
    places = [(n + 2 * p - r) // s + 1 for n, p, r, s in zip(input.shape[2:], edges, window, steps)]
    if a_tensor("local2d", weight, "weight").ndim != 3 or (weight.shape[0], weight.shape[2]) != (columns.shape[2], columns.shape[1]):
        raise ValueError(f"local2d: weight has shape {weight.shape}, but must be ({columns.shape[2]}, K, "
                         f"{columns.shape[1]}) "
                         f"for input {input.shape}")
    y = matmul(permute(columns, 2, 0, 1), permute(weight, 0, 2, 1))
    y = reshape(permute(y, 1, 2, 0), (input.shape[0], weight.shape[1], *places))
    return y if bias is None else add(y, bias)


def local1d(input: Tensor, weight: Tensor, bias: Tensor | None, kernel_size: int | Sequence[int],
            stride: int | Sequence[int] = 1, padding: int | Sequence[int] = 0) -> Tensor:
    """One-dimensional convolution with filters of their own at every place; see `local2d`.

    Parameters
    ----------
    input : Tensor
        (N, C, L).
    weight : Tensor
        (OL, K, C R).
    bias : Tensor or None
        (K, OL).
    kernel_size : int
        Width R of a window.
    stride : int
        Steps between windows.
    padding : int
        Zeros on each side.

    Returns
    -------
    Tensor
        (N, K, OL).

    Raises
    ------
    ValueError
        If shapes do not fit one another.
    """
    r, s, p = (single("local1d", argument, value) for argument, value in (
        ("kernel_size", kernel_size), ("stride", stride), ("padding", padding)))
    return sequence(local2d(flat("local1d", input), weight, None if bias is None else unsqueeze(bias, 1), (1, r), (1, s),
                            (0, p)))
