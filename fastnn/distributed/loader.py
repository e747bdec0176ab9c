"""Batches of which each rank takes its part."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checks import whole
from ..data.loader import DataLoader
from ..ops.create import from_numpy, tensor
from ..random import Generator, default_generator, randperm
from .world import get_rank, get_world_size, state_of_first, world


class DistributedDataLoader(DataLoader):
    """Iterates over this rank's rows of a data set, which all ranks have whole.

    A step takes the same samples as `DataLoader`'s with the same `batch_size` and seed, an equal part on each rank: so the mean of the
    ranks' gradients is the whole batch's, and a run does the same whatever the number of ranks, but for rounding, dropout and
    batch statistics. Ranks have as many batches; of a last batch that is not full, up to as many samples as there are ranks, less one,
    are left out. With `shuffle` the order is drawn from rank 0's generator, by all ranks together, once a pass.

    Parameters
    ----------
    dataset : ArrayDataset or array_like or tuple of array_like
        As for `DataLoader`, the same on all ranks.
    batch_size : int
        Samples a step takes on all ranks together: a multiple of their number.
    shuffle : bool
        Whether to draw a new order for every pass.
    **options
        As for `DataLoader`: `drop_last`, `generator`, `transform`, `batch_transform`.

    Attributes
    ----------
    global_batch_size, global_samples : int
        Samples of a step and of a pass on all ranks; `batch_size` and `samples` are this rank's.

    Raises
    ------
    ValueError
        If `batch_size` is no multiple of the number of ranks, or data sets differ in length between ranks.
    """

    def __init__(self, dataset: Any, batch_size: int = 32, shuffle: bool = False, **options: Any) -> None:
        size = get_world_size()
        if whole("batch_size", batch_size, 1) % size:
            raise ValueError(f"batch_size is {batch_size}, but must be a multiple of the {size} ranks, which share a batch")
        super().__init__(dataset, batch_size // size, shuffle, **options)
        world().agree("DistributedDataLoader", f"{len(self.dataset)} samples, batch_size {batch_size}")

    @property
    def global_batch_size(self) -> int:
        return self.batch_size * get_world_size()

    @property
    def global_samples(self) -> int:
        return self.samples * get_world_size()

    @property
    def samples(self) -> int:
        share = len(self.dataset) // get_world_size()  # whole batches are even
        return share - share % self.batch_size if self.drop_last else share

    def __len__(self) -> int:
        return -(-self.samples // self.batch_size)

    def order(self) -> Any:
        """This rank's rows in the order of the next pass: an int64 tensor (samples,)."""
        count, size, rank = len(self.dataset), get_world_size(), get_rank()
        rows = (self._drawn() if self.shuffle else np.arange(count)).astype(np.int64, copy=False)
        whole_batches = count - count % self.global_batch_size
        mine = rows[:whole_batches].reshape(-1, size, self.batch_size)[:, rank].reshape(-1)
        rest = (count - whole_batches) // size
        last = rows[whole_batches + rank * rest:whole_batches + (rank + 1) * rest]
        return from_numpy(np.concatenate([mine, last])[:self.samples])

    def _drawn(self) -> np.ndarray:
        """A permutation, as rank 0's generator gives it."""
        source = self.generator or default_generator
        world().agree("DistributedDataLoader.order")
        shared = Generator(0)
        shared.set_state(tensor(state_of_first(source)))
        order = randperm(len(self.dataset), generator=shared)
        source.state[1] = shared.state[1].item()  # the seed stays the rank's own
        return order.numpy()
