"""Pooling over the last two axes of (N, C, H, W), or of (C, H, W)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .. import _core
from .._core import launch, record
from ..checks import a_tensor, integer, pair
from .create import int64
from .unbatched import batch_of_one

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["adaptive_avg_pool2d", "adaptive_max_pool2d", "avg_pool2d", "global_avg_pool2d", "global_max_pool2d",
           "max_pool2d"]


def _windows(function: Callable) -> Callable:
    """Checks the windows' arguments once for each set of them: checking takes longer than pooling a small map."""
    cached = functools.lru_cache(maxsize=256, typed=True)(function)

    def window(*arguments: Any) -> dict[str, Any]:
        arguments = [tuple(a) if isinstance(a, list) else a for a in arguments]
        try:
            return cached(*arguments)
        except TypeError:  # refused, or an array, which the cache cannot look up
            return function(*arguments)

    return window


def _as_batch(function: Callable, name: str, x: Tensor, *arguments: Any) -> Tensor | tuple[Tensor, ...]:
    """`function` on a batch of one, for an input without a batch axis."""
    if x.ndim != 3:
        raise ValueError(f"{name}: input has shape {x.shape}, but must be (N, C, H, W) or (C, H, W)")
    return batch_of_one(function, x, *arguments)


# ---- maximum ---------------------------------------------------------------------------------------------------------


def max_pool2d(input: Tensor, kernel_size: int | Sequence[int], stride: int | Sequence[int] | None = None,
               padding: int | Sequence[int] = 0, dilation: int | Sequence[int] = 1, ceil_mode: bool = False,
               return_indices: bool = False) -> Tensor | tuple[Tensor, Tensor]:
    """The greatest element of each window.

    Parameters
    ----------
    input : Tensor
        (N, C, H, W) or (C, H, W).
    kernel_size : int or pair of int
        Height and width of the window.
    stride : int or pair of int, optional
        From window to window; by default `kernel_size`.
    padding : int or pair of int
        Rows and columns of -inf put around each map; at most half of `kernel_size`.
    dilation : int or pair of int
        From element to element of a window.
    ceil_mode : bool
        Whether a last window may reach over the end (it still starts inside the map or its first padding).
    return_indices : bool
        Whether to return positions too.

    Returns
    -------
    Tensor, or tuple of two
        (N, C, OH, OW), OH = floor((H + 2 padding - dilation (kernel_size - 1) - 1) / stride) + 1 (with `ceil_mode`,
        ceil); and the int64 positions h W + w, of the first among equals. A NaN is greater than all numbers.

    Raises
    ------
    ValueError
        If an argument is out of range or the window does not fit.
    """
    if a_tensor("max_pool2d", input).ndim != 4:
        return _as_batch(max_pool2d, "max_pool2d", input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    window = _max_window(kernel_size, stride, padding, dilation, ceil_mode)
    if not _asks_for_positions(input, return_indices):
        return launch.max_pool2d_values(input, **window)
    y, argmax = launch.max_pool2d_forward(input, **window)
    size = input.shape[2:]
    record(_max_pool2d_backward, (input,), y, saved=(argmax,), context=(size, window))
    return (y, launch.max_pool2d_indices(argmax, input=size, **window)) if return_indices else y


def _asks_for_positions(x: Tensor, return_indices: bool) -> bool:
    """Whether the user or a gradient wants to know where the maxima are."""
    return bool(return_indices) or x.requires_grad and _core.is_grad_enabled()


@_windows
def _max_window(kernel_size, stride, padding, dilation, ceil_mode):
    return {"kernel": pair("max_pool2d", "kernel_size", kernel_size),
            "stride": pair("max_pool2d", "stride", kernel_size if stride is None else stride),
            "padding": pair("max_pool2d", "padding", padding),
            "dilation": pair("max_pool2d", "dilation", dilation), "ceil_mode": bool(ceil_mode)}


def _max_pool2d_backward(node, dy):
    (argmax,) = node.saved
    size, window = node.context
    return launch.max_pool2d_backward(dy, argmax, input=size, **window)


def adaptive_max_pool2d(input: Tensor, output_size: int | Sequence[int | None],
                        return_indices: bool = False) -> Tensor | tuple[Tensor, Tensor]:
    """The greatest element of each of OH x OW regions that share out the map.

    Parameters
    ----------
    input : Tensor
        (N, C, H, W) or (C, H, W).
    output_size : int or pair of int or None
        OH and OW; None keeps the input's. Region o of O covers floor(o I / O) to ceil((o + 1) I / O) of I.
    return_indices : bool
        Whether to return positions too.

    Returns
    -------
    Tensor, or tuple of two
        (N, C, OH, OW), and the int64 positions h W + w.
    """
    if a_tensor("adaptive_max_pool2d", input).ndim != 4:
        return _as_batch(adaptive_max_pool2d, "adaptive_max_pool2d", input, output_size, return_indices)
    output = _output_size("adaptive_max_pool2d", input, output_size)
    if not _asks_for_positions(input, return_indices):
        return launch.adaptive_max_pool2d_values(input, output=output)
    y, argmax = launch.adaptive_max_pool2d_forward(input, output=output)
    record(_adaptive_max_pool2d_backward, (input,), y, saved=(argmax,), context=input.shape[2:])
    return (y, launch.copy(argmax, dtype=int64.code)) if return_indices else y


def _adaptive_max_pool2d_backward(node, dy):
    (argmax,) = node.saved
    return launch.adaptive_max_pool2d_backward(dy, argmax, input=node.context)


def _output_size(name: str, x: Tensor, output_size: int | Sequence[int | None]) -> tuple[int, int]:
    if output_size is None:
        output_size = (None, None)
    if isinstance(output_size, (tuple, list)) and len(output_size) == 2:
        output_size = [n if wanted is None else wanted for n, wanted in zip(x.shape[2:], output_size)]
    return pair(name, "output_size", output_size)


def global_max_pool2d(input: Tensor) -> Tensor:
    """The greatest element of each map: (N, C, H, W) -> (N, C, 1, 1)."""
    return adaptive_max_pool2d(input, 1)


# ---- average ---------------------------------------------------------------------------------------------------------


def avg_pool2d(input: Tensor, kernel_size: int | Sequence[int], stride: int | Sequence[int] | None = None,
               padding: int | Sequence[int] = 0, ceil_mode: bool = False, count_include_pad: bool = True,
               divisor_override: int | None = None) -> Tensor:
    """The mean of each window.

    Parameters
    ----------
    input : Tensor
        (N, C, H, W) or (C, H, W).
    kernel_size : int or pair of int
        Height and width of the window.
    stride : int or pair of int, optional
        From window to window; by default `kernel_size`.
    padding : int or pair of int
        Rows and columns of zeros put around each map; at most half of `kernel_size`.
    ceil_mode : bool
        Whether a last window may reach over the end (it still starts inside the map or its first padding).
    count_include_pad : bool
        Whether the padding counts in the divisor.
    divisor_override : int, optional
        What to divide each window's sum by, instead of its size.

    Returns
    -------
    Tensor
        (N, C, OH, OW), sizes as for `max_pool2d`.

    Raises
    ------
    ValueError
        If an argument is out of range or the window does not fit.
    """
    if a_tensor("avg_pool2d", input).ndim != 4:
        return _as_batch(avg_pool2d, "avg_pool2d", input, kernel_size, stride, padding, ceil_mode, count_include_pad,
                         divisor_override)
    window = _avg_window(kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return record(_avg_pool2d_backward, (input,), launch.avg_pool2d_forward(input, **window), context=(input.shape[2:], window))


@_windows
def _avg_window(kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override):
    if divisor_override is not None and integer("avg_pool2d", "divisor_override", divisor_override) == 0:
        raise ValueError("avg_pool2d: divisor_override is 0, but must be None or an integer other than 0")
    return {"kernel": pair("avg_pool2d", "kernel_size", kernel_size),
            "stride": pair("avg_pool2d", "stride", kernel_size if stride is None else stride),
            "padding": pair("avg_pool2d", "padding", padding), "ceil_mode": bool(ceil_mode),
            "count_include_pad": bool(count_include_pad), "divisor": divisor_override or 0}


def _avg_pool2d_backward(node, dy):
    size, window = node.context
    return launch.avg_pool2d_backward(dy, input=size, **window)


def adaptive_avg_pool2d(input: Tensor, output_size: int | Sequence[int | None]) -> Tensor:
    """The mean of each of OH x OW regions that share out the map.

    Parameters
    ----------
    input : Tensor
        (N, C, H, W) or (C, H, W).
    output_size : int or pair of int or None
        OH and OW; None keeps the input's. Region o of O covers floor(o I / O) to ceil((o + 1) I / O) of I.

    Returns
    -------
    Tensor
        (N, C, OH, OW).
    """
    if a_tensor("adaptive_avg_pool2d", input).ndim != 4:
        return _as_batch(adaptive_avg_pool2d, "adaptive_avg_pool2d", input, output_size)
    y = launch.adaptive_avg_pool2d_forward(input, output=_output_size("adaptive_avg_pool2d", input, output_size))
    return record(_adaptive_avg_pool2d_backward, (input,), y, context=input.shape[2:])


def _adaptive_avg_pool2d_backward(node, dy):
    return launch.adaptive_avg_pool2d_backward(dy, input=node.context)


def global_avg_pool2d(input: Tensor) -> Tensor:
    """The mean of each map: (N, C, H, W) -> (N, C, 1, 1)."""
    return adaptive_avg_pool2d(input, 1)
