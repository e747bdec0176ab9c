"""Pooling over the last axis of (N, C, L), or of (C, L): maps of one row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..checks import a_tensor
from . import pool
from .conv import single
from .shape import reshape, unsqueeze

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["adaptive_avg_pool1d", "adaptive_max_pool1d", "avg_pool1d", "global_avg_pool1d", "global_max_pool1d",
           "max_pool1d"]


def _rows(name: str, function: Callable, x: Tensor, *arguments: Any) -> Tensor | tuple[Tensor, ...]:
    """`function` of maps of one row, and its results without that row."""
    if a_tensor(name, x).ndim not in (2, 3):
        raise ValueError(f"{name}: input has shape {x.shape}, but must be (N, C, L) or (C, L)")
    result = function(unsqueeze(x, -2), *arguments)
    narrow = [reshape(r, (*r.shape[:-2], r.shape[-1])) for r in (result if isinstance(result, tuple) else (result,))]
    return tuple(narrow) if isinstance(result, tuple) else narrow[0]


def _window(name: str, kernel_size: Any, stride: Any, padding: Any) -> tuple:
    """Kernel, stride and padding for two axes, the first of which has one row."""
    kernel = single(name, "kernel_size", kernel_size)
    step = kernel if stride is None else single(name, "stride", stride)
    return (1, kernel), (1, step), (0, single(name, "padding", padding))


def max_pool1d(input: Tensor, kernel_size: int | Sequence[int], stride: int | Sequence[int] | None = None,
               padding: int | Sequence[int] = 0, dilation: int | Sequence[int] = 1, ceil_mode: bool = False,
               return_indices: bool = False) -> Tensor | tuple[Tensor, Tensor]:
    """The greatest element of each window.

    Parameters
    ----------
    input : Tensor
        (N, C, L) or (C, L).
    kernel_size : int
        Width of the window.
    stride : int, optional
        From window to window; by default `kernel_size`.
    padding : int
        Elements of -inf put on each side; at most half of `kernel_size`.
    dilation : int
        From element to element of a window.
    ceil_mode : bool
        Whether a last window may reach over the end.
    return_indices : bool
        Whether to return positions too.

    Returns
    -------
    Tensor, or tuple of two
        (N, C, OL); and the int64 positions of the first among equals.

    Raises
    ------
    ValueError
        If an argument is out of range or the window does not fit.
    """
    window = _window("max_pool1d", kernel_size, stride, padding)
    return _rows("max_pool1d", pool.max_pool2d, input, *window, (1, single("max_pool1d", "dilation", dilation)), ceil_mode,
                 return_indices)


def avg_pool1d(input: Tensor, kernel_size: int | Sequence[int], stride: int | Sequence[int] | None = None,
               padding: int | Sequence[int] = 0, ceil_mode: bool = False, count_include_pad: bool = True) -> Tensor:
    """The mean of each window.

    Parameters
    ----------
    input : Tensor
        (N, C, L) or (C, L).
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

    Returns
    -------
    Tensor
        (N, C, OL).

    Raises
    ------
    ValueError
        If an argument is out of range or the window does not fit.
    """
    window = _window("avg_pool1d", kernel_size, stride, padding)
    return _rows("avg_pool1d", pool.avg_pool2d, input, *window, ceil_mode, count_include_pad)


def adaptive_max_pool1d(input: Tensor, output_size: int | Sequence[int],
                        return_indices: bool = False) -> Tensor | tuple[Tensor, Tensor]:
    """The greatest element of each of `output_size` regions.

    Parameters
    ----------
    input : Tensor
        (N, C, L) or (C, L).
    output_size : int
        OL.
    return_indices : bool
        Whether to return positions too.

    Returns
    -------
    Tensor, or tuple of two
        (N, C, OL); and the int64 positions.
    """
    size = (1, single("adaptive_max_pool1d", "output_size", output_size))
    return _rows("adaptive_max_pool1d", pool.adaptive_max_pool2d, input, size, return_indices)


def adaptive_avg_pool1d(input: Tensor, output_size: int | Sequence[int]) -> Tensor:
    """The mean of each of `output_size` regions.

    Parameters
    ----------
    input : Tensor
        (N, C, L) or (C, L).
    output_size : int
        OL.

    Returns
    -------
    Tensor
        (N, C, OL).
    """
    size = (1, single("adaptive_avg_pool1d", "output_size", output_size))
    return _rows("adaptive_avg_pool1d", pool.adaptive_avg_pool2d, input, size)


def global_max_pool1d(input: Tensor) -> Tensor:
    """The greatest element of each sequence: (N, C, L) -> (N, C, 1)."""
    return adaptive_max_pool1d(input, 1)


def global_avg_pool1d(input: Tensor) -> Tensor:
    """The mean of each sequence: (N, C, L) -> (N, C, 1)."""
    return adaptive_avg_pool1d(input, 1)
