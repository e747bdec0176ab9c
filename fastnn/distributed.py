"""Data-parallel training over processes, by MPI: ``mpiexec -n 4 python train.py``, on one machine or many.

The names are those of ``torch.distributed``. All processes run the same script; the first call of anything here makes them one world
(all of them have to get there). Without a launcher the world is one process, everything here gives back what it was given, and
mpi4py is not needed; with one, ``pip install 'fastnn[mpi]'``, which brings mpi4py and MPICH, or mpi4py beside a cluster's own MPI.

Results: sums are made in rank order, by the same additions on all ranks. So all ranks hold the same bits, and one world size gives
the same bits every time, whatever the MPI, the machines and the number of threads. Another world size rounds differently.

A process that fails ends all others. So does one that ends, or calls something else, while others wait for it: every call here
compares with the other ranks what they call, and on what. Do not catch errors of one rank alone and go on.

Processes on one machine share its cores: each takes its part, unless FASTNN_NUM_THREADS, OMP_NUM_THREADS or `set_num_threads` say more.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import importlib.util
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from . import _core
from ._core import TensorBase, launch
from .checks import a_tensor, integer, whole
from .data.loader import DataLoader
from .io.extras import require
from .nn.module import Module
from .ops.create import from_numpy, tensor, zeros
from .random import Generator, default_generator, randperm
from .threads import take_share

__all__ = ["DistributedDataLoader", "DistributedDataParallel", "abort", "all_gather", "all_reduce", "barrier", "broadcast", "get_rank",
           "get_world_size", "is_available"]

# How launchers tell a process how many there are: MPICH's, Intel's and SLURM's PMI, Open MPI, MVAPICH, SLURM's srun.
_SIZES = "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"
_SMALL = 1 << 18  # bytes on all ranks: up to here one exchange of everything is quicker than two of parts (2 ranks, one machine)
_PIECE = 1 << 22  # bytes reduced at a time: what ranks send stays in the last-level cache until it is added
_LAST_WORDS = 0.3  # seconds a launcher is left to pass on what ranks have written: it drops what comes when they are gone
_SUMMED = {"sum": np.add, "mean": np.add, "product": np.multiply}
_OPS: dict[str, np.ufunc] = {**_SUMMED, "max": np.maximum, "min": np.minimum}


# ---- the world -----------------------------------------------------------------------------------------------------------

class _World:
    """The processes and what they exchange. Without MPI (`comm` is None) one process."""

    def __init__(self, mpi: Any = None) -> None:
        self.mpi, self.comm = mpi, None
        self.rank, self.size = 0, 1
        if mpi is not None and mpi.COMM_WORLD.size > 1:
            self.comm = mpi.COMM_WORLD.Dup()  # of our own: the user's messages and ours cannot meet
            self.rank, self.size = self.comm.rank, self.comm.size
            self._mine, self._all = np.zeros(16, np.uint8), np.zeros((self.size, 16), np.uint8)
            take_share(self._sharers())
            self._end_together()

    def _sharers(self) -> int:
        """How many ranks on this machine may run on the cores that this one may run on."""
        mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
        here = self.comm.Split_type(self.mpi.COMM_TYPE_SHARED)
        try:
            return sum(not set(mine).isdisjoint(theirs) for theirs in here.allgather(mine))
        finally:
            here.Free()

    def _end_together(self) -> None:
        """An exception that nobody catches ends all ranks; one that just ends is noticed by those that wait for it."""
        sys.excepthook = functools.partial(self._fail, sys.excepthook)
        atexit.register(self._leave)

    def _fail(self, hook: Callable[..., None], kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """`sys.excepthook` of a world of several."""
        text = ""
        if hook is sys.__excepthook__:  # it writes line by line, between those of other ranks
            text = "".join(traceback.format_exception(kind, error, trace))
        else:
            hook(kind, error, trace)
        self.abort(f"{kind.__name__} on rank {self.rank} of {self.size}: all ranks are ended", before=text)

    def abort(self, message: str, status: int = 1, before: str = "") -> None:
        """Ends all ranks."""
        sys.stdout.flush()
        sys.stderr.write(f"{before}fastnn.distributed: {message}\n")
        sys.stderr.flush()
        time.sleep(_LAST_WORDS)
        self.mpi.COMM_WORLD.Abort(status)

    def _leave(self) -> None:
        """The last thing a rank does; if others are in the midst of something, they hear of it."""
        if not self.mpi.Is_finalized() and self._differing("end of the program"):
            self.comm.allgather("ends its program")

    def _differing(self, call: str) -> bool:
        """Whether some rank has come here with another call."""
        self._mine[:] = _digest(call)
        self.comm.Allgather(self._mine, self._all)
        return bool((self._all != self._mine).any())

    def agree(self, name: str, what: str = "") -> None:
        """Raises on all ranks where they are not all at the same call with the same arguments. Waits for all."""
        if self.comm is None or not self._differing(f"{name} {what}"):
            return
        calls = self.comm.allgather(f"calls {name}{what and f' with {what}'}")
        other = next(k for k, call in enumerate(calls) if call != calls[0])
        raise ValueError(f"distributed.{name}: all ranks must call the same with the same arguments, but rank 0 {calls[0]}, "
                         f"and rank {other} {calls[other]}")

    def gathered(self, values: np.ndarray) -> np.ndarray:
        """Small arrays of one shape from all ranks, stacked."""
        if self.comm is None:
            return values[None]
        result = np.empty((self.size, *values.shape), values.dtype)
        self.comm.Allgather(_bytes(values), _bytes(result))
        return result

    def reduce(self, array: np.ndarray, op: str) -> None:
        """Elements (n,) of all ranks, dense, combined in rank order, in place."""
        step = max(_PIECE // array.itemsize // self.size, 1) * self.size
        for start in range(0, len(array) if self.comm is not None else 0, step):
            self._reduce_piece(array[start:start + step], _OPS[op])
        if op == "mean" and self.comm is not None:
            array /= self.size

    def _reduce_piece(self, piece: np.ndarray, op: np.ufunc) -> None:
        even = len(piece) // self.size * self.size
        if piece.nbytes * self.size <= _SMALL:
            even = 0
        if even:  # each rank combines a part of its own for all
            parts = np.empty((self.size, even // self.size), piece.dtype)
            self.comm.Alltoall(_bytes(piece[:even]), _bytes(parts))
            self.comm.Allgather(_bytes(_combined(parts, op, parts[0])), _bytes(piece[:even]))
        if even < len(piece):
            _combined(self.gathered(piece[even:]), op, piece[even:])

    def broadcast(self, array: np.ndarray, source: int) -> None:
        """Dense elements (n,) of one rank to all."""
        step = max((1 << 28) // array.itemsize, 1)  # counts of MPI may have 31 bits
        for start in range(0, len(array) if self.comm is not None else 0, step):
            self.comm.Bcast(_bytes(array[start:start + step]), source)

    def gather_rows(self, rows: np.ndarray) -> np.ndarray:
        """Arrays (n, ...) of all ranks, whose n may differ, one after the other."""
        if self.comm is None:
            return rows
        rows = np.ascontiguousarray(rows)
        counts = self.gathered(np.array([len(rows)]))[:, 0]
        result = np.empty((counts.sum(), *rows.shape[1:]), rows.dtype)
        nbytes = counts * (result.nbytes // max(len(result), 1))
        self.comm.Allgatherv([rows.reshape(-1).view(np.uint8), self.mpi.BYTE],
                             [result.reshape(-1).view(np.uint8), nbytes, np.cumsum(nbytes) - nbytes, self.mpi.BYTE])
        return result


@functools.lru_cache(256)
def _digest(call: str) -> np.ndarray:
    return np.frombuffer(hashlib.blake2b(call.encode(), digest_size=16).digest(), np.uint8)


def _bytes(array: np.ndarray) -> np.ndarray:
    """What MPI sends: ranks add by themselves, so elements are bytes to it, of whatever type."""
    return array.reshape(-1).view(np.uint8)


def _combined(parts: np.ndarray, op: np.ufunc, out: np.ndarray) -> np.ndarray:
    """``((parts[0] op parts[1]) op parts[2]) ...``, a row for each rank, into `out` (n,)."""
    with np.errstate(all="ignore"):  # what training makes of an overflow, it says itself
        op(parts[0], parts[1], out=out)
        for part in parts[2:]:
            op(out, part, out=out)
    return out


def launched_size(environment: Mapping[str, str]) -> int:
    """How many processes a launcher says to have started: 1 without one, 0 where it does not say.

    Parameters
    ----------
    environment : mapping
        Such as ``os.environ``.

    Returns
    -------
    int
    """
    sizes = [int(environment[name]) for name in _SIZES if environment.get(name, "").isdigit()]
    return max(sizes) if sizes else 0 if "PMIX_RANK" in environment else 1


@functools.lru_cache(1)
def world() -> _World:
    """The world, made when it is first asked for.

    Raises
    ------
    ImportError
        If a launcher started this process among others, and mpi4py is missing.
    RuntimeError
        If the launcher is of another MPI than mpi4py's, so that every process would take itself for the only one.
    """
    size = launched_size(os.environ)
    if size == 1 and "mpi4py.MPI" not in sys.modules:
        return _World()
    mpi = require("mpi4py.MPI", extra="mpi", feature=f"a process that was started as one of {size or 'several'}")
    if size > 1 and mpi.COMM_WORLD.size == 1:
        raise RuntimeError(f"distributed: this process was started as one of {size}, but mpi4py's MPI "
                           f"({mpi.Get_library_version().splitlines()[0].strip()}) sees only this one: use the launcher (mpiexec, "
                           "srun --mpi=...) of that MPI, or build mpi4py with the launcher's")
    return _World(mpi)


def is_available() -> bool:
    """Whether mpi4py is installed."""
    return importlib.util.find_spec("mpi4py") is not None


def get_rank() -> int:
    """This process's number, from 0."""
    return world().rank


def get_world_size() -> int:
    """How many processes there are."""
    return world().size


def abort(message: str, status: int = 1) -> None:
    """Ends all processes at once, this one too; in a world of one by `SystemExit`.

    Parameters
    ----------
    message : str
        Why, for the standard error stream.
    status : int
        The exit status.
    """
    if get_world_size() == 1:
        print(f"fastnn.distributed: {message}", file=sys.stderr)
        raise SystemExit(status)
    world().abort(message, status)


# ---- tensors ---------------------------------------------------------------------------------------------------------------

def barrier() -> None:
    """Waits until all ranks have come here."""
    world().agree("barrier")


def broadcast(tensor: TensorBase, src: int = 0) -> TensorBase:
    """Gives all ranks one rank's elements, in place.

    Parameters
    ----------
    tensor : Tensor
        Of the same shape and dtype on all ranks.
    src : int
        The rank whose elements they are.

    Returns
    -------
    Tensor
        `tensor`.

    Raises
    ------
    ValueError
        If there is no such rank, or ranks differ in shape, dtype or `src`.
    TypeError
        If `tensor` is none.
    """
    array = _writable("broadcast", tensor)
    if not 0 <= integer("broadcast", "src", src) < get_world_size():
        raise ValueError(f"broadcast: src is {src}, but must be a rank, at least 0 and below {get_world_size()}")
    world().agree("broadcast", f"{_described(tensor)}, src {src}")
    with _Dense(array) as flat:
        world().broadcast(flat, src)
    return tensor


def all_reduce(tensor: TensorBase, op: str = "sum") -> TensorBase:
    """Combines the tensors of all ranks element by element, in rank order, in place.

    Parameters
    ----------
    tensor : Tensor
        Of the same shape and dtype on all ranks; of a dense one (in C order) no copy is made.
    op : {"sum", "mean", "product", "max", "min"}
        How; "mean" for floating-point tensors, those that add or multiply not for bool.

    Returns
    -------
    Tensor
        `tensor`.

    Raises
    ------
    ValueError
        If `op` is another, or ranks differ in shape, dtype or `op`.
    TypeError
        If `tensor` is none, or of a dtype that `op` is not for.
    """
    array = _writable("all_reduce", tensor)
    if op not in _OPS:
        raise ValueError(f"all_reduce: op is {op!r}, but must be one of {', '.join(map(repr, _OPS))}")
    if op == "mean" and not tensor.is_floating_point() or op in _SUMMED and array.dtype == bool:
        raise TypeError(f"all_reduce: op is {op!r}, but a tensor of {tensor.dtype} has "
                        f"{'max and min' if array.dtype == bool else 'sum, product, max and min'}")
    world().agree("all_reduce", f"{_described(tensor)}, op {op}")
    with _Dense(array) as flat:
        world().reduce(flat, op)
    return tensor


def all_gather(tensor: TensorBase) -> list[Any]:
    """The tensors of all ranks, in rank order.

    Parameters
    ----------
    tensor : Tensor
        Of the same shape and dtype on all ranks.

    Returns
    -------
    list of Tensor
        New ones, this rank's among them.

    Raises
    ------
    ValueError
        If ranks differ in shape or dtype.
    TypeError
        If `tensor` is none.
    """
    array = np.ascontiguousarray(a_tensor("all_gather", tensor).detach().numpy()).reshape(tensor.shape)
    world().agree("all_gather", _described(tensor))
    return [from_numpy(part.copy()) for part in world().gathered(array)]


def _described(tensor: TensorBase) -> str:
    return f"{tensor.dtype} {tensor.shape}"


def _writable(name: str, tensor: Any) -> np.ndarray:
    """A tensor's elements, which are about to be written."""
    array = a_tensor(name, tensor).detach().numpy()
    if get_world_size() > 1:
        tensor.bump_version()
    return array


class _Dense:
    """A context that gives an array's elements as (n,), dense: the memory itself where it lies so, else a copy that is written back."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.flat = np.ascontiguousarray(array).reshape(-1)

    def __enter__(self) -> np.ndarray:
        return self.flat

    def __exit__(self, *error: Any) -> None:
        if not np.may_share_memory(self.flat, self.array):
            self.array[...] = self.flat.reshape(self.array.shape)


# ---- models ----------------------------------------------------------------------------------------------------------------

class DistributedDataParallel:
    """Keeps the replicas of a model alike: one on each rank, each trained on rows of its own.

    When it is made, parameters and buffers become those of rank 0, and the default generator goes on from rank 0's, with the rank added
    to the seed: dropout differs from rank to rank. From then on `average_gradients` between ``backward`` and the optimiser's ``step``
    makes all ranks take the same step. Unlike PyTorch's it does not wrap the model, and backward does not call it: gradients that are
    accumulated over several backwards are averaged once, gradients that are clipped are averaged before.

    Statistics of batch normalisation are each rank's own, until `broadcast_buffers`.

    Parameters
    ----------
    model : fastnn.nn.Module
        The same on all ranks, but for the values.

    Raises
    ------
    TypeError
        If `model` is no module.
    ValueError
        If it has lazy layers that have seen no input yet, or ranks have different models.

    Examples
    --------
    A loop that runs the same under ``mpiexec -n 1`` and ``-n 4``, and without; `fastnn.train.DistributedTrainer` is one that is ready:

    >>> import numpy as np
    >>> from fastnn import nn, optim
    >>> import fastnn.functional as F
    >>> from fastnn.distributed import DistributedDataLoader, DistributedDataParallel, get_rank
    >>> x, y = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32), np.arange(64) % 2
    >>> model = nn.Linear(4, 2)
    >>> replicas = DistributedDataParallel(model)
    >>> optimizer = optim.SGD(model.parameters(), lr=0.1)
    >>> for inputs, labels in DistributedDataLoader((x, y), batch_size=16, shuffle=True):
    ...     F.cross_entropy(model(inputs), labels).backward()
    ...     replicas.average_gradients()
    ...     optimizer.step()
    ...     optimizer.zero_grad()
    >>> if get_rank() == 0:
    ...     print(len(model.state_dict()))
    2

    A step can be captured in two halves, one up to ``backward``, one from ``step`` on, with `average_gradients` between them.
    """

    def __init__(self, model: Module) -> None:
        if not isinstance(model, Module):
            raise TypeError(f"DistributedDataParallel: model is a {type(model).__name__}, but must be a fastnn.nn.Module")
        if any(module._is_lazy for module in model.modules()):
            raise ValueError("DistributedDataParallel: model has lazy layers, whose shapes are not known yet: call it on a batch first")
        self.model = model
        world().agree("DistributedDataParallel")
        _check_same([f"{name}: {_described(t)}{', frozen' if kind == 'parameter' and not t.requires_grad else ''}"
                     for kind, name, t in self._named()])
        self._broadcast([t for _, _, t in self._named()])
        _seed_by_rank()
        trained: dict[Any, list[Any]] = {}
        for p in model.parameters():
            if p.requires_grad:
                trained.setdefault(p.dtype, []).append(p)
        self._flats = [_Flat(parameters) for parameters in trained.values()]

    def __call__(self, *inputs: Any) -> Any:
        """Refused: who comes from PyTorch would wait for gradients to be averaged by themselves."""
        raise TypeError("DistributedDataParallel: call the model itself, and average_gradients() after backward")

    def _named(self) -> list[tuple[str, str, Any]]:
        return [*(("parameter", *item) for item in self.model.named_parameters()),
                *(("buffer", *item) for item in self.model.named_buffers())]

    def _broadcast(self, tensors: Sequence[Any]) -> None:
        for t in tensors:
            with _Dense(_writable("broadcast", t)) as flat:
                world().broadcast(flat, 0)

    def average_gradients(self) -> None:
        """Makes the gradient of every parameter the mean over all ranks: summed in rank order, then divided by their number.

        To be called by all ranks, between ``backward`` and ``step``. A parameter that has a gradient on some ranks only counts as 0 on
        the others; one that has none anywhere gets none.

        Raises
        ------
        ValueError
            If a rank calls something else.
        """
        if get_world_size() > 1:
            self.pack()
            self.reduce()
            for flat in self._flats:
                flat.copy_back()

    def broadcast_buffers(self) -> None:
        """Gives all ranks the buffers of rank 0: running statistics, before an evaluation or at the end of training."""
        world().agree("broadcast_buffers")
        self._broadcast(list(self.model.buffers()))

    def pack(self) -> None:
        """First part of `average_gradients`, made of launches: the end of a captured half step. Gradients are copied to memory that
        ranks exchange, and may be dropped."""
        for flat in self._flats:
            flat.pack()

    def reduce(self) -> None:
        """Second part: what ranks exchange. Not within a captured step."""
        world().agree("average_gradients")
        for flat in self._flats:
            flat.reduce()

    def unpack(self) -> None:
        """Third part, the beginning of the other captured half: sets the gradients to views of that memory, which the next step
        writes."""
        for flat in self._flats:
            flat.unpack()

    def drop(self) -> None:
        """Forgets all gradients, also of parameters that no optimiser has."""
        for flat in self._flats:
            for p in flat.parameters:
                p.grad = None


class _Flat:
    """The gradients of parameters of one dtype behind each other, and a number for each: on how many ranks there is one."""

    def __init__(self, parameters: list[Any]) -> None:
        self.parameters = parameters
        starts = np.cumsum([0, *(p.numel() for p in parameters)]).tolist()
        self.memory = zeros(starts[-1] + len(parameters), dtype=parameters[0].dtype)
        self.views = [self.memory[start:start + p.numel()].reshape(p.shape) for start, p in zip(starts, parameters)]
        self.counts = self.memory[starts[-1]:]
        self.present = (True,) * len(parameters)  # what the last reduction found
        self._patterns: dict[tuple[bool, ...], Any] = {}

    def pack(self) -> None:
        gradients = [p.grad for p in self.parameters]
        for gradient, view in zip(gradients, self.views):
            if gradient is None:
                view.zero_()
            else:
                launch.copy(gradient, dtype=view.dtype.code, out=view)
        present = tuple(gradient is not None for gradient in gradients)
        if present not in self._patterns:
            self._patterns[present] = tensor(present, dtype=self.memory.dtype)
        launch.copy(self._patterns[present], dtype=self.memory.dtype.code, out=self.counts)

    def reduce(self) -> None:
        world().reduce(self.memory.numpy(), "mean")
        present = tuple((self.counts.numpy() > 0).tolist())
        if present != self.present:
            self.present = present
            _core.bump_settings()  # what has been captured sets gradients for others

    def unpack(self) -> None:
        for p, view, is_present in zip(self.parameters, self.views, self.present):
            if is_present:
                p.grad = view

    def copy_back(self) -> None:
        for p, view, is_present in zip(self.parameters, self.views, self.present):
            if is_present and p.grad is None:
                p.grad = view.clone()
            elif is_present:
                launch.copy(view, dtype=view.dtype.code, out=p.grad)


def _check_same(mine: list[str]) -> None:
    """Raises on all ranks where models have other parameters or buffers than rank 0's."""
    if get_world_size() == 1:
        return
    all_ranks = world().comm.allgather(mine)
    for rank, theirs in enumerate(all_ranks):
        if theirs != all_ranks[0]:
            first, other = next((a, b) for a, b in zip([*all_ranks[0], "none"], [*theirs, "none"]) if a != b)
            raise ValueError("DistributedDataParallel: model must have the same parameters and buffers on all ranks, but where rank 0 has "
                             f"{first}, rank {rank} has {other}")


def _seed_by_rank() -> None:
    """The default generator goes on from rank 0's, with the rank added to the seed."""
    seed, number = _state_of_first(default_generator)
    default_generator.set_state(tensor([(seed + get_rank() + (1 << 63)) % (1 << 64) - (1 << 63), number]))


def _state_of_first(generator: Generator) -> tuple[int, int]:
    """Seed and number of rank 0's generator."""
    state = generator.get_state().numpy()
    world().broadcast(state, 0)
    return int(state[0]), int(state[1])


# ---- data ------------------------------------------------------------------------------------------------------------------

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
        shared.set_state(tensor(_state_of_first(source)))
        order = randperm(len(self.dataset), generator=shared)
        source.state[1] = shared.state[1].item()  # the seed stays the rank's own
        return order.numpy()
