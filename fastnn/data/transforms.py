"""What is done to a batch's inputs on their way from the data set to the model, within the captured step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import fastnn

from .._core import TensorBase, launch
from ..checks import positive
from ..ops.math import constant
from ..tensor import no_grad


class Normalize:
    """Bytes to normalised floating-point numbers: ``(x / scale - mean) / std``, batch by batch.

    Given to a data set as its `transform`, it lets images stay bytes in memory: a quarter of the space of float32, and
    no copy of the whole set.

    Parameters
    ----------
    mean, std : float or sequence of float
        One number, or one for each channel (axis 1); every std positive.
    scale : float
        What to divide by first, positive: 255 for bytes.
    dtype : dtype
        Of the result, float32 or float64.

    Raises
    ------
    ValueError
        If a number is out of range, or mean and std differ in length.
    TypeError
        If `dtype` is not floating.

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> Normalize(mean=0.5, std=0.5)(fastnn.tensor(np.array([[0, 255]], np.uint8))).tolist()
    [[-1.0, 1.0]]
    """

    def __init__(self, mean: float | Sequence[float] = 0.0, std: float | Sequence[float] = 1.0, *, scale: float = 255.0,
                 dtype: Any = "float32") -> None:
        self.dtype = fastnn._core.as_dtype(dtype)
        if not self.dtype.is_floating:
            raise TypeError(f"Normalize: dtype is {dtype!r}, but must be float32 or float64")
        try:
            middle, spread = np.asarray(mean, np.float64), np.asarray(std, np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"Normalize: mean is {mean!r} and std {std!r}, but both must be numbers, or one for each channel "
                             f"({error})") from None
        self.scale = positive("Normalize: scale", scale)
        if middle.ndim > 1 or spread.ndim > 1 or not np.isfinite(middle).all():
            raise ValueError(f"Normalize: mean is {mean!r}, but must be a finite number, or one for each channel")
        if not (np.isfinite(spread) & (spread > 0)).all():
            raise ValueError(f"Normalize: std is {std!r}, but must be positive and finite")
        if middle.ndim and spread.ndim and middle.shape != spread.shape:
            raise ValueError(f"Normalize: mean has {len(middle)} channels, but std has {len(spread)}")
        self._mean = fastnn.tensor(middle, dtype=self.dtype) if (middle != 0).any() else None
        self._std = fastnn.tensor(spread, dtype=self.dtype) if (spread != 1).any() else None

    def __call__(self, x: TensorBase) -> TensorBase:
        with no_grad():
            y = launch.copy(x, dtype=self.dtype.code)
            if self.scale != 1:
                launch.div(y, constant(self.scale, self.dtype), out=y)
            if self._mean is not None:
                launch.sub(y, _by_channel(self._mean, y), out=y)
            if self._std is not None:
                launch.div(y, _by_channel(self._std, y), out=y)
        return y


def _by_channel(values: TensorBase, x: TensorBase) -> TensorBase:
    """Values (C,), seen as (C, 1, ...) to go with axis 1 of `x`; single numbers as they are."""
    return values.reshape(-1, *[1] * (x.ndim - 2)) if values.ndim and x.ndim > 2 else values
