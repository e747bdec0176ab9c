"""Max-pooling over windows at random steps as a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..checks import pair
from ..ops.create import as_tensor
from ..ops.fractional_pool import check_fraction, fractional_max_pool2d
from ..tensor import Tensor
from .module import Module


class FractionalMaxPool2d(Module):
    """The greatest element of each of OH x OW windows at random steps: (N, C, H, W) -> (N, C, OH, OW); see
    `fastnn.functional.fractional_max_pool2d`. Steps are random in evaluation too.

    Parameters
    ----------
    kernel_size : int or pair of int
        Height and width of the window.
    output_size : int or pair of int, optional
        OH and OW; either this or `output_ratio`.
    output_ratio : float or pair of float, optional
        OH and OW over H and W, between 0 and 1.
    return_indices : bool
        Whether to return positions h W + w too.
    _random_samples : Tensor or array_like, optional
        (N, C, 2), in place of random numbers.
    """

    def __init__(self, kernel_size: int | Sequence[int], output_size: int | Sequence[int] | None = None,
                 output_ratio: float | Sequence[float] | None = None, return_indices: bool = False,
                 _random_samples: Any = None):
        super().__init__()
        self.kernel_size = pair("FractionalMaxPool2d", "kernel_size", kernel_size, 1)
        self.output_size, self.output_ratio = check_fraction("FractionalMaxPool2d", output_size, output_ratio)
        self.return_indices = bool(return_indices)
        self._random_samples = None if _random_samples is None else self._samples(_random_samples)

    @staticmethod
    def _samples(values: Any) -> Tensor:
        try:
            samples = as_tensor(values)
        except (TypeError, ValueError):
            samples = None
        if samples is None or samples.ndim not in (2, 3) or samples.shape[-1] != 2:
            raise ValueError(f"FractionalMaxPool2d: _random_samples is {values!r}, but must be numbers of shape (N, C, 2) or "
                             "(C, 2)")
        return samples

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return fractional_max_pool2d(input, self.kernel_size, self.output_size, self.output_ratio, self.return_indices,
                                     self._random_samples)

    def extra_repr(self) -> str:
        size = f"output_ratio={self.output_ratio}" if self.output_size is None else f"output_size={self.output_size}"
        return f"kernel_size={self.kernel_size}, {size}"
