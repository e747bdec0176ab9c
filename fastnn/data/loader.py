"""Batches from arrays in memory: one gather a batch, no Python per sample."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import fastnn

from .._core import TensorBase, launch
from ..checks import takes, whole
from ..random import default_generator, generator_state
from .datasets import ArrayDataset


class DataLoader:
    """Iterates over a data set in batches of tensors, which are copies of its rows.

    Parameters
    ----------
    dataset : ArrayDataset or array_like or tuple of array_like
        Arrays of shape (N, ...) that share their first axis.
    batch_size : int
        Samples in a batch; the last batch may have fewer.
    shuffle : bool
        Whether to draw a new order for every pass. It comes from fastnn's generator alone, so the same
        seed gives the same batches whatever the number of threads.
    drop_last : bool
        Whether to leave out a last batch that is not full.
    generator : fastnn.Generator, optional
        Source of the orders; the one `fastnn.manual_seed` seeds by default.
    transform : callable, optional
        ``transform(x)`` gives what takes the place of a batch's first tensor, after the data set's own transform:
        random changes for training, such as an `Augment`.
    batch_transform : callable, optional
        ``batch_transform(x, y)``, a tensor for each array, gives as many tensors that take their place, after `transform`: what
        changes targets too, such as `Mixup` and `CutMix`. For training: `Trainer` evaluates, validates and predicts without it.
        As `transform` it is made of tensor operations: what Python draws at random would be frozen in captured steps.

    Raises
    ------
    ValueError
        If `batch_size` is not a positive integer, or the arrays do not fit together.
    TypeError
        If `transform` or `batch_transform` cannot be called, or the latter does not take as many tensors as there are arrays.

    Examples
    --------
    >>> import numpy as np
    >>> loader = DataLoader((np.zeros((5, 3), np.float32), np.arange(5)), batch_size=2)
    >>> [len(y) for x, y in loader]
    [2, 2, 1]

    Soft targets for `fastnn.functional.cross_entropy`, by CutMix:

    >>> from fastnn.data import CutMix
    >>> images = np.zeros((8, 3, 32, 32), np.float32), np.arange(8)
    >>> x, y = next(iter(DataLoader(images, batch_size=4, shuffle=True, batch_transform=CutMix(num_classes=10))))
    >>> y.shape
    (4, 10)
    """

    def __init__(self, dataset: Any, batch_size: int = 32, shuffle: bool = False, *, drop_last: bool = False,
                 generator: Any = None, transform: Callable[[Any], Any] | None = None,
                 batch_transform: Callable[..., Any] | None = None) -> None:
        if not isinstance(dataset, ArrayDataset):
            dataset = ArrayDataset(*dataset) if isinstance(dataset, tuple) else ArrayDataset(dataset)
        self.dataset = dataset
        self.batch_size = whole("batch_size", batch_size, 1)
        generator_state(generator)  # refuses what is none
        self.shuffle, self.drop_last, self.generator = bool(shuffle), bool(drop_last), generator
        arrays = ("x", "y", "weight", *(f"array {k}" for k in range(3, len(dataset.arrays))))[:len(dataset.arrays)]
        self.transform = takes("transform", transform, "x")
        self.batch_transform = takes("batch_transform", batch_transform, *arrays)

    def __len__(self) -> int:
        """Number of batches in a pass."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    @property
    def samples(self) -> int:
        """Number of samples in a pass."""
        return min(len(self) * self.batch_size, len(self.dataset))

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Yield one tuple of tensors a batch."""
        order, samples = self.order(), self.samples
        for start in range(0, samples, self.batch_size):
            stop = min(start + self.batch_size, samples)
            yield self.batch(slice(start, stop) if order is None else order.as_strided((stop - start,), (1,), start))

    def order(self) -> Any:
        """The order of the next pass: an int64 tensor (N,) when shuffling, else None."""
        return fastnn.randperm(len(self.dataset), generator=self.generator) if self.shuffle else None

    def batch(self, rows: Any) -> tuple[Any, ...]:
        """The given rows as a step takes them: gathered, and the first array's transformed."""
        first, *others = self.gather(rows)
        batch = first if self.transform is None else self.transform(first), *others
        return batch if self.batch_transform is None else self._changed(*batch)

    def _changed(self, *batch: Any) -> tuple[Any, ...]:
        """What `batch_transform` makes of a batch."""
        changed = self.batch_transform(*batch)
        if not (isinstance(changed, (tuple, list)) and len(changed) == len(batch) and all(isinstance(t, TensorBase) for t in changed)):
            given = ([type(part).__name__ for part in changed] if isinstance(changed, (tuple, list)) else f"a {type(changed).__name__}")
            raise TypeError(f"batch_transform returned {given}, but must return a tuple of {len(batch)} tensors, one for each array")
        for k, (old, new) in enumerate(zip(batch, changed)):
            if new.ndim == 0 or new.shape[0] != old.shape[0]:
                raise ValueError(f"batch_transform returned shape {new.shape} for array {k}, but must keep the batch's "
                                 f"{old.shape[0]} samples")
        return tuple(changed)

    def first(self, count: int = 1) -> tuple[Any, ...]:
        """The first samples (at most `count`) as a batch; random numbers that this draws are given back."""
        sources = [default_generator, self.generator, *_generators(self.transform), *_generators(self.batch_transform)]
        states = [(source, source.get_state()) for source in sources if source is not None]
        try:
            return self.batch(slice(0, min(count, len(self.dataset))))
        finally:
            for source, state in states:
                source.set_state(state)

    def gather(self, rows: Any) -> tuple[Any, ...]:
        """The given rows (a slice, or an int64 tensor) of every array, as tensors; the first one transformed."""
        x, *others = (self.gather_array(k, rows) for k in range(len(self._tensors)))
        return (x if self.dataset.transform is None else self.dataset.transform(x), *others)

    def gather_array(self, k: int, rows: Any) -> Any:
        """The given rows (a slice, or an int64 tensor) of array `k`, as a tensor of their own, as it is stored: what a transform
        or a model does in place must not change the data."""
        tensor = self._tensors[k]
        return launch.copy(tensor[rows], dtype=-1) if isinstance(rows, slice) else launch.index_select(tensor, rows, axis=0)

    @functools.cached_property
    def _tensors(self) -> tuple[Any, ...]:
        """The arrays as tensors; images in N, H, W, C order, so that no step has to turn its batch."""
        tensors = tuple(fastnn.from_numpy(array) for array in self.dataset.arrays)
        return tuple(tensor if tensor.ndim != 4 or tensor.is_channels_last() else launch.copy(tensor, dtype=-1)
                     for tensor in tensors)


def _generators(transform: Any) -> Iterator[Any]:
    """What a transform, and those that it chooses from, draw from, as far as it can be set back."""
    source, parts = getattr(transform, "generator", None), getattr(transform, "transforms", ())
    if hasattr(source, "get_state") and hasattr(source, "set_state"):  # of a user's own, NumPy's have none
        yield source
    for part in parts if isinstance(parts, Iterable) else ():
        yield from _generators(part)
