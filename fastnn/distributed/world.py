"""The processes of a run, and what they exchange."""

from __future__ import annotations

import atexit
import contextlib
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

from ..io.extras import require
from ..threads import take_share

# How launchers tell a process how many there are: MPICH's, Intel's and SLURM's PMI, Open MPI, MVAPICH, SLURM's srun.
_SIZES = "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"
_DIGEST, _NUMBERS = 16, 3
_CALL = _DIGEST + 8 * _NUMBERS  # bytes that go before every exchange
_SMALL = 1 << 18  # bytes on all ranks: up to here one exchange of everything is quicker than two of parts (2 ranks, one machine)
_PIECE = 1 << 22  # bytes reduced at a time: what ranks send stays in the last-level cache until it is added
_LAST_WORDS = 0.3  # seconds a launcher is left to pass on what ranks have written: it drops what comes when they are gone
SUMMED = {"sum": np.add, "mean": np.add, "product": np.multiply}
OPS: dict[str, np.ufunc] = {**SUMMED, "max": np.maximum, "min": np.minimum}


class _World:
    """The processes and what they exchange. Without MPI (`comm` is None) one process."""

    def __init__(self, mpi: Any = None) -> None:
        self.mpi, self.comm = mpi, None
        self.rank, self.size = 0, 1
        if mpi is not None and mpi.COMM_WORLD.size > 1:
            self.comm = mpi.COMM_WORLD.Dup()  # of our own: the user's messages and ours cannot meet
            self.rank, self.size = self.comm.rank, self.comm.size
            self._mine, self._all = np.zeros(_CALL, np.uint8), np.zeros((self.size, _CALL), np.uint8)
            self._received = np.empty(0, np.uint8)
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
        with contextlib.suppress(OSError, ValueError):  # nobody may be there to read
            sys.stdout.flush()
            sys.stderr.write(f"{before}fastnn.distributed: {message}\n")
            sys.stderr.flush()
        time.sleep(_LAST_WORDS)
        self.mpi.COMM_WORLD.Abort(status)
        os._exit(status)  # MPICH's Abort returns, and this process would go on until its launcher ends it

    def _leave(self) -> None:
        """The last thing a rank does; if others are in the midst of something, they hear of it."""
        if not self.mpi.Is_finalized() and self._differing("end of the program", ()):
            self.comm.allgather("ends its program")

    def _differing(self, call: str, numbers: Sequence[float]) -> bool:
        """Whether some rank has come here with another call; exchanges a few numbers on the way."""
        self._mine[:_DIGEST] = _digest(call)
        self._mine[_DIGEST:].view(np.float64)[:len(numbers)] = numbers
        self.comm.Allgather(self._mine, self._all)
        return bool((self._all[:, :_DIGEST] != self._mine[:_DIGEST]).any())

    def agree(self, name: str, what: str = "", numbers: Sequence[float] = ()) -> np.ndarray:
        """Raises on all ranks where they are not all at the same call with the same arguments. Waits for all, and returns the numbers (at
        most `_NUMBERS`) that each gave, a row for each."""
        if self.comm is None:
            return np.array([numbers], np.float64)
        if not self._differing(f"{name} {what}", numbers):
            return self._all[:, _DIGEST:].copy().view(np.float64)[:, :len(numbers)]
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
            self._reduce_piece(array[start:start + step], OPS[op])
        if op == "mean" and self.comm is not None:
            array /= self.size

    def _reduce_piece(self, piece: np.ndarray, op: np.ufunc) -> None:
        even = len(piece) // self.size * self.size
        if piece.nbytes * self.size <= _SMALL:
            even = 0
        if even:  # each rank combines a part of its own for all
            parts = self._scratch(even, piece.dtype).reshape(self.size, -1)
            self.comm.Alltoall(_bytes(piece[:even]), _bytes(parts))
            self.comm.Allgather(_bytes(_combined(parts, op, parts[0])), _bytes(piece[:even]))
        rest = piece[even:]
        if len(rest):
            parts = self._scratch(self.size * len(rest), piece.dtype).reshape(self.size, -1)
            self.comm.Allgather(_bytes(rest), _bytes(parts))
            _combined(parts, op, rest)

    def _scratch(self, count: int, dtype: np.dtype) -> np.ndarray:
        """Elements (count,) to receive in, of memory that stays: fresh pages would cost as much as an exchange."""
        nbytes = count * dtype.itemsize
        if len(self._received) < nbytes:
            self._received = np.empty(nbytes, np.uint8)
        return self._received[:nbytes].view(dtype)

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
    return np.frombuffer(hashlib.blake2b(call.encode(), digest_size=_DIGEST).digest(), np.uint8)


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
        If a launcher started this process among others, and mpi4py or its MPI is missing.
    RuntimeError
        If the launcher is of another MPI than mpi4py's, so that every process would take itself for the only one.
    """
    size = launched_size(os.environ)
    if size == 1 and "mpi4py.MPI" not in sys.modules:
        return _World()
    feature = f"a process that was started as one of {size or 'several'}"
    try:
        mpi = require("mpi4py.MPI", extra="mpi", feature=feature)
    except RuntimeError as error:  # of mpi4py, which has come without an MPI
        raise ImportError(f"{feature} needs an MPI, and mpi4py finds no library of one: load the cluster's module, or pip install "
                          "mpich") from error
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


def state_of_first(generator: Any) -> tuple[int, int]:
    """Where rank 0's generator has got to.

    Parameters
    ----------
    generator : fastnn.Generator
        This rank's.

    Returns
    -------
    seed, number : int
        As in its state.
    """
    state = generator.get_state().numpy()
    world().broadcast(state, 0)
    return int(state[0]), int(state[1])
