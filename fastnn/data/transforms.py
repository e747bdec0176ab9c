"""What is done to a batch's inputs on their way from the data set to the model, within the captured step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import fastnn

from .._core import TensorBase, launch
from ..checks import positive, real
from ..ops.operands import constant
from ..random import Generator, generator_state
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


class RandomChoice:
    """One of several transforms, drawn anew for every batch.

    A captured step cannot leave launches out: all transforms are done, and draw their random numbers, and one's result is taken.

    Parameters
    ----------
    transforms : sequence of callable
        Of inputs, for a loader's ``transform``, or of inputs and targets, for its ``batch_transform``; their results have the same
        shapes and types.
    p : sequence of float, optional
        How likely each is, in proportion; by default all alike.
    generator : Generator, optional
        Where the choice comes from; by default `fastnn.manual_seed`'s.

    Raises
    ------
    ValueError
        If `p` does not fit the transforms, or, at a batch, their results do not fit together.
    TypeError
        If there is no transform, something is none, or, at a batch, what it returns is something else.

    Notes
    -----
    Source: torchvision.transforms.v2.RandomChoice.

    Examples
    --------
    >>> import fastnn
    >>> from fastnn.data import CutMix, Mixup, RandomChoice
    >>> mix = RandomChoice([CutMix(10), Mixup(10)])
    >>> x, y = mix(fastnn.rand(4, 3, 8, 8), fastnn.tensor([3, 1, 4, 1]))
    >>> y.shape
    (4, 10)
    """

    def __init__(self, transforms: Sequence[Callable[..., Any]], p: Sequence[float] | None = None, generator: Generator | None = None):
        if not isinstance(transforms, Sequence) or not transforms or not all(callable(t) and not isinstance(t, type) for t in transforms):
            raise TypeError(f"RandomChoice: transforms is {transforms!r}, but must be a list of at least one transform")
        self.transforms = list(transforms)
        shares = [1.0] * len(transforms) if p is None else p if isinstance(p, (Sequence, np.ndarray)) else [p]
        chances = [real("RandomChoice: p", share, 0) for share in shares]
        if len(chances) != len(transforms) or sum(chances) == 0:
            raise ValueError(f"RandomChoice: p is {p!r}, but must be a number for each of the {len(transforms)} transforms, one above 0")
        generator_state(generator)  # refuses what is none
        self.generator = generator
        self._below = np.cumsum(chances)[:-1] / sum(chances)

    def __call__(self, *batch: TensorBase) -> Any:
        """What the chosen transform makes of a batch.

        Parameters
        ----------
        *batch : Tensor
            As each transform takes them.

        Returns
        -------
        Tensor or tuple of Tensor
            As each transform returns them.
        """
        results = [transform(*batch) for transform in self.transforms]
        alone = isinstance(results[0], TensorBase)
        rows = [(result,) if isinstance(result, TensorBase) else result for result in results]
        for result, row in zip(results, rows):
            if not isinstance(row, (tuple, list)) or not all(isinstance(part, TensorBase) for part in row):
                raise TypeError(f"RandomChoice: a transform returned a {type(result).__name__}, but must return a tensor or several")
            if isinstance(result, TensorBase) is not alone or len(row) != len(rows[0]):
                raise ValueError(f"RandomChoice: the transforms return {', '.join(map(_kind, results))}, but must return as many tensors")
        with no_grad():
            u = fastnn.rand(1, generator=self.generator)
            chosen = tuple(self._choose(u, parts) for parts in zip(*rows))
            return chosen[0] if alone else chosen

    def _choose(self, u: TensorBase, parts: Sequence[TensorBase]) -> TensorBase:
        kinds = [(part.dtype, part.shape) for part in parts]
        if len(set(kinds)) > 1:
            raise ValueError(f"RandomChoice: the transforms return {', '.join(f'{dtype} {shape}' for dtype, shape in kinds)}, but must "
                             "return the same types and shapes")
        chosen = parts[-1]
        for part, below in reversed([*zip(parts, self._below)]):
            chosen = launch.where(u < float(below), part, chosen)
        return chosen


def _kind(result: Any) -> str:
    """For messages: what a transform returned."""
    return "a tensor" if isinstance(result, TensorBase) else f"{len(result)} in a {type(result).__name__}"


def _by_channel(values: TensorBase, x: TensorBase) -> TensorBase:
    """Values (C,), seen as (C, 1, ...) to go with axis 1 of `x`; single numbers as they are."""
    return values.reshape(-1, *[1] * (x.ndim - 2)) if values.ndim and x.ndim > 2 else values
