"""`Trainer` over several processes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import fastnn

from ..data import DataLoader
from ..distributed import DistributedDataLoader, DistributedDataParallel, get_rank, get_world_size
from ..distributed.world import world
from ..program import CapturedProgram
from .callbacks import Callback, Logs, hooks_of
from .captured import CapturedPass
from .interrupt import AgreedInterrupt
from .mode import mode
from .running import RunningLogs
from .trainer import Trainer


class DistributedTrainer(Trainer):
    """`Trainer` for a script that ``mpiexec -n 4 python script.py`` runs: takes the same arguments and gives the same results, with the
    work of each step shared by the processes (ranks) of `fastnn.distributed`. Without a launcher it is `Trainer`.

    `fit` is called by all ranks, on the same data:

    - A batch of `batch_size` samples, a multiple of the number of ranks, is split between them; gradients are averaged. Weights are rank
      0's to begin with, and afterwards the same on all ranks, bit for bit. They are those of one process but for rounding, and for what
      each rank does by itself: dropout and random changes of the data (the rank is added to the seed), batch normalisation (over the
      rank's part of the batch; at the end of an epoch all take rank 0's running statistics).
    - Up to as many samples of an epoch as there are ranks, less one, are left out.
    - Validation data are split, too. Losses and metrics are those of all samples, and the same on all ranks. Within an epoch metrics are
      those of the last time that predictions were exchanged: for hooks of a batch they lag behind the loss.
    - Only rank 0 prints progress and calls callbacks that say `on_first_rank` (ModelCheckpoint, CSVLogger); others are called by all.
      What a script itself prints or writes belongs behind ``if fastnn.distributed.get_rank() == 0:``; files to go on from are read by
      all ranks, since only weights are taken from rank 0.
    - All ranks stop after the same step, also when one is stopped by a callback or by Ctrl-C (where the launcher passes it on, as MPICH's
      does; Open MPI's kills the ranks). An exception on one rank ends all.

    `evaluate` and `predict` do their work on the rank that calls them, alone.

    Steps are captured in two halves, with the exchange between them in Python.

    Parameters
    ----------
    *args, **options
        As for `Trainer`.

    Raises
    ------
    ImportError, RuntimeError
        If a launcher started this process among others, and mpi4py is missing or of another MPI.
    ValueError, TypeError
        As `Trainer`; in `fit` also if models, data or `batch_size` do not fit ranks.

    Examples
    --------
    >>> import numpy as np, fastnn
    >>> from fastnn.train import DistributedTrainer
    >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    >>> y = (x[:, 0] > 0).astype(np.int64)
    >>> trainer = DistributedTrainer(fastnn.nn.Linear(4, 2), optimizer="adam", metrics=["accuracy"])
    >>> history = trainer.fit(x, y, batch_size=16, epochs=2, verbose=0)
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.is_first, self._alone = get_rank() == 0, get_world_size() == 1
        self._replicas: DistributedDataParallel | None = None
        if not self._alone:
            self._interrupts, self._logs = AgreedInterrupt, GatheredLogs
            halves = self._first_half, self._second_half
            self._halves = [CapturedProgram(half, verify=True) for half in halves] if self._capture else halves
            self._one_step = self._shared_step

    # -- what is split --

    def _fit_data(self, x: Any, *others: Any) -> tuple[DataLoader, DataLoader | None]:
        if isinstance(x, DistributedDataLoader):
            x = DataLoader(x.dataset, x.global_batch_size, **_options(x))
        loader, validation = super()._fit_data(x, *others)
        if self._alone:
            return loader, validation
        shared = DistributedDataLoader(loader.dataset, loader.batch_size, **_options(loader))
        if len(shared) == 0:
            raise ValueError(f"{len(loader.dataset)} samples are less than one batch, or one for each of {get_world_size()} ranks")
        return shared, validation and self._own_part(validation)

    def _own_part(self, validation: DataLoader) -> DataLoader:
        """This rank's rows of the validation data."""
        count, size = len(validation.dataset), get_world_size()
        if count < size:
            raise ValueError(f"validation data are {count} samples, but must be at least one for each of {size} ranks")
        rows = slice(get_rank() * count // size, (get_rank() + 1) * count // size)
        return DataLoader(validation.dataset.subset(rows), validation.batch_size, transform=validation.transform)

    def _sizes(self, loader: DataLoader) -> dict[str, int]:
        sizes = super()._sizes(loader)
        return sizes if self._alone else {**sizes, "batch_size": loader.global_batch_size, "samples": loader.global_samples}

    def _everyone(self, callbacks: list[Callback]) -> list[Callback]:
        others = [callback for callback in callbacks if not callback.on_first_rank]
        self._may_stop = bool(hooks_of(others, "on_train_batch_begin", "on_train_batch_end"))
        return callbacks if self.is_first else others

    def _prepare(self, loader: DataLoader) -> None:
        super()._prepare(loader)
        if self._replicas is None:
            self._replicas = DistributedDataParallel(self.model)
        else:
            self._replicas.synchronize()

    # -- steps --

    def _captured_pass(self, loader: DataLoader, callbacks: Sequence[Callback]) -> CapturedPass | None:
        return super()._captured_pass(loader, callbacks) if self._alone else None

    def _first_half(self, x: Any, y: Any, weight: Any = None) -> tuple[Any, Any]:
        """Forward, loss, backward; gradients are put where they are exchanged."""
        results = self._differentiate(x, y, weight)
        self._replicas.pack()
        self._replicas.drop()
        return results

    def _second_half(self) -> None:
        """The optimiser's step by the averaged gradients."""
        self._replicas.unpack()
        self._update()
        self._replicas.drop()

    def _shared_step(self, *batch: Any) -> tuple[Any, Any]:
        """A step of all ranks; the loss is the mean of theirs."""
        first, second = self._halves
        self._replicas.follow()
        loss, prediction = first(*batch)
        shared = self._replicas.reduce(loss.item(), self._interrupt.pressed)
        second()
        self._interrupt.requested = bool(shared[:, 1].any())
        return _sum(shared[:, 0]) / len(shared), prediction

    def _pass(self, loader: DataLoader, running: RunningLogs, callbacks: Sequence[Callback]) -> None:
        if self._alone:
            return super()._pass(loader, running, callbacks)
        gather, stop = _AfterBatch(lambda logs: logs.gather_what_is_much()), _AfterBatch(self._stop_together)
        super()._pass(loader, running, [gather, *callbacks, *([stop] if self._may_stop else [])])
        running.finish()
        self._replicas.broadcast_buffers()

    def _epoch(self, *args: Any) -> None:
        super()._epoch(*args)
        self._stop_together()

    def _stop_together(self, logs: Logs | None = None) -> None:
        """All stop if one is to."""
        if self._alone:
            return
        stop, pressed = world().agree("DistributedTrainer", "", (self.stop_training, self._interrupt.pressed)).any(0)
        self.stop_training = bool(stop)
        self._interrupt.requested = bool(pressed)
        self._interrupt.check()

    def _tell_of_nan(self, *args: Any) -> None:
        if self.is_first:
            super()._tell_of_nan(*args)

    def validate(self) -> dict[str, Any]:
        """Loss and metrics on the validation data of the present run, all ranks' together, under ``val_`` names."""
        if self._alone:
            return super().validate()
        self._replicas.broadcast_buffers()  # one model is judged
        running = GatheredLogs(copy.deepcopy(self.metrics))
        judging = self._judge_all(self._validation, running) if self._validation_pass is None else self._validation_pass.run(running)
        with fastnn.no_grad(), mode(self.model, training=False):
            for _ in judging:
                pass  # Ctrl-C waits: ranks stop together, at the end of the epoch
        running.finish()
        return {f"val_{name}": value for name, value in running.items()}


class GatheredLogs(RunningLogs):
    """Loss and metrics of which ranks have their parts. Predictions are handed to the metrics, on all ranks those of all, when ranks
    `gather` them together; reading tells what is known then."""

    def _flush(self) -> None:
        """Nothing: who reads, or adds much, does so alone."""

    def gather_what_is_much(self) -> None:
        """After a step, of which all ranks have equal parts: now and then."""
        if self.is_full:
            self.gather()

    def gather(self) -> None:
        """All ranks' pending predictions, to the metrics of all."""
        world().agree("GatheredLogs")
        if not self._pending:  # all ranks had a full block with the last step
            return
        pending = [np.concatenate(parts) for parts in zip(*self._pending)]
        self._pending, self._held = [], 0
        predictions, targets = (world().gather_rows(part) for part in pending)
        for metric in self._metrics.values():
            metric.update(predictions, targets)

    def finish(self) -> None:
        """At the end of a pass: the rest, and the loss of all samples."""
        if self._metrics:
            self.gather()
        shared = world().agree("GatheredLogs", "the loss", (self._loss, self.samples))
        self._loss, self.samples = float(_sum(shared[:, 0])), int(shared[:, 1].sum())


class _AfterBatch(Callback):
    """Calls a function after every step."""

    def __init__(self, function: Callable[[Any], None]) -> None:
        self._function = function

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._function(logs)


def _options(loader: DataLoader) -> dict[str, Any]:
    """What a loader was made with besides data and batch size."""
    return {name: getattr(loader, name) for name in ("shuffle", "drop_last", "generator", "transform", "batch_transform")}


def _sum(parts: np.ndarray) -> np.float64:
    """The sum in rank order."""
    return np.add.accumulate(parts)[-1]
