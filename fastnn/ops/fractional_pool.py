"""Max-pooling by any factor between one and two or more: windows at random steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .._core import launch, record
from ..checks import a_tensor, pair, real
from ..random import Generator, rand
from .create import as_tensor
from .pool import _as_batch
from .shape import reshape

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["fractional_max_pool2d"]


def check_fraction(name: str, output_size: int | Sequence[int] | None,
                   output_ratio: float | Sequence[float] | None) -> tuple[tuple[int, int] | None, tuple[float, float] | None]:
    """The size or the ratio, as two numbers; exactly one must be given."""
    if (output_size is None) == (output_ratio is None):
        raise ValueError(f"{name}: exactly one of output_size and output_ratio must be given")
    if output_size is not None:
        return pair(name, "output_size", output_size, 1), None
    ratios = tuple(output_ratio) if isinstance(output_ratio, (tuple, list)) else (output_ratio,) * 2
    if len(ratios) != 2 or not all(0 < real(f"{name}: output_ratio", r) < 1 for r in ratios):
        raise ValueError(f"{name}: output_ratio is {output_ratio!r}, but must be one number or two between 0 and 1")
    return None, ratios


def fractional_max_pool2d(input: Tensor, kernel_size: int | Sequence[int], output_size: int | Sequence[int] | None = None,
                          output_ratio: float | Sequence[float] | None = None, return_indices: bool = False,
                          _random_samples: Any = None, generator: Generator | None = None) -> Tensor | tuple[Tensor, Tensor]:
    """The greatest element of each window, where windows begin at floor(a (i + u)) - floor(a u) for a random u: steps
    of floor(a) and ceil(a), a = (H - kernel_size) / (OH - 1), in random order, that share out the map. Every plane has
    windows of its own.

    Parameters
    ----------
    input : Tensor
        (N, C, H, W) or (C, H, W).
    kernel_size : int or pair of int
        Height and width of the window.
    output_size : int or pair of int, optional
        OH and OW; either this or `output_ratio`.
    output_ratio : float or pair of float, optional
        OH and OW over H and W, between 0 and 1; rounded down.
    return_indices : bool
        Whether to return positions too.
    _random_samples : Tensor or array_like, optional
        (N, C, 2): u of each plane's columns, and of its rows, at least 0 and below 1; drawn if not given.
    generator : Generator, optional
        Where random numbers come from; by default `fastnn.manual_seed`'s.

    Returns
    -------
    Tensor, or tuple of two
        (N, C, OH, OW); and the int64 positions h W + w, of the first among equals. A NaN is greater than all numbers.

    Raises
    ------
    ValueError
        If kernel_size + output_size - 1 exceeds the map, not exactly one of size and ratio is given, or a sample is
        out of range.

    References
    ----------
    B. Graham, "Fractional max-pooling", arXiv:1412.6071, 2014.
    """
    name = "fractional_max_pool2d"
    if a_tensor("fractional_max_pool2d", input).ndim != 4:
        if _random_samples is not None and as_tensor(_random_samples).ndim == 2:
            _random_samples = reshape(as_tensor(_random_samples), (1, *as_tensor(_random_samples).shape))
        return _as_batch(fractional_max_pool2d, name, input, kernel_size, output_size, output_ratio, return_indices,
                         _random_samples, generator)
    size, ratio = check_fraction(name, output_size, output_ratio)
    if size is None:
        size = tuple(int(n * r) for n, r in zip(input.shape[2:], ratio))
    samples = (rand(*input.shape[:2], 2, dtype=input.dtype, generator=generator) if _random_samples is None
               else as_tensor(_random_samples, input.dtype))
    y, indices = launch.fractional_max_pool2d(input, samples, kernel=pair(name, "kernel_size", kernel_size, 1), output=size)
    record(_fractional_max_pool2d_backward, (input,), y, (indices,), input.shape[2:])
    return (y, indices) if return_indices else y


def _fractional_max_pool2d_backward(node, dy):
    """Windows overlap: what several of them chose adds up, in order."""
    return launch.fractional_max_pool2d_backward(dy, node.saved[0], input=node.context)
