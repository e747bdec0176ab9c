"""``fastnn doctor``: tries what training relies on, on this machine, and says what is wrong or could be better."""

from __future__ import annotations

import importlib.util
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

import fastnn
import fastnn.functional as F

from . import _core
from .threads import num_threads

EXTRAS = {"files": "safetensors", "sklearn": "sklearn", "plot": "matplotlib", "progress": "tqdm", "mpi": "mpi4py", "onnx": "onnx"}
_WITH_OPENMP = ("torch", "sklearn", "lightgbm", "xgboost")  # packages whose wheels carry an OpenMP runtime
_RUNTIME = re.compile(r"/(lib(?:gomp|omp|iomp5)[^/\s]*\.so[^/\s]*)$", re.MULTILINE)
_SETTINGS = ("FASTNN_", "OMP_", "GOMP_", "KMP_")
_PATIENCE = 10.0  # seconds for a forked child that needs milliseconds


class Finding(NamedTuple):
    """One thing that was looked at.

    Parameters
    ----------
    subject : str
        What.
    state : str
        "good", "note" (works, but could be better) or "bad".
    text : str
        What was found, and what to do about it.
    """

    subject: str
    state: str
    text: str


def examine() -> list[Finding]:
    """Look at all there is to look at; takes about a second.

    Returns
    -------
    list of Finding
        In the order in which they are worth reading.
    """
    return [finding for look in (_isa, _threads, _speed, _results, _fork, _runtimes, _extras, _settings)
            for finding in look()]


def _isa() -> Iterator[Finding]:
    """Which kernels run."""
    used, available = _core.get_isa(), _core.available_isas()
    if used != available[-1]:
        yield Finding("instruction set", "note", f"{used} runs ({_core.isa_reason()}), though {available[-1]} is there")
    elif used == "scalar":
        yield Finding("instruction set", "note", "scalar: this CPU or build has no vector kernels; training is slow")
    else:
        yield Finding("instruction set", "good", f"{used}, {_core.isa_reason()}")


def _threads() -> Iterator[Finding]:
    """As many threads as may run at once?"""
    if not _core.has_openmp():
        yield Finding("threads", "note", "built without OpenMP: one thread; build with a compiler that has it")
        return
    used, allowed = _core.get_num_threads(), _allowed_cpus()
    text = f"{used} ({_core.threads_reason()})"
    if used > allowed:
        yield Finding("threads", "bad", f"{text}, but only {allowed} CPUs may be used, so they wait for one another: "
                                        "lower FASTNN_NUM_THREADS or OMP_NUM_THREADS")
    else:
        yield Finding("threads", "good", text)


def _allowed_cpus() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _speed() -> Iterator[Finding]:
    """Do more threads take less time here and now?"""
    threads = _core.get_num_threads()
    if threads == 1:
        return
    a = _random(768)
    best = {1: float("inf"), threads: float("inf")}
    for _ in range(5):
        for n in best:
            with num_threads(n):
                best[n] = min(best[n], _seconds(lambda: fastnn.matmul(a, a)))
    share = best[threads] / best[1]
    rate = 2 * 768**3 / best[threads] / 1e9
    text = f"a product takes {share:.2f} of one thread's time on {threads} ({rate:.0f} GFLOP/s)"
    slow = share > 1.05
    yield Finding("speed", "note" if slow else "good", f"{text}: other work keeps the CPUs busy" if slow else text)


def _random(n: int) -> fastnn.Tensor:
    """An n x n matrix, without a number from the user's generator."""
    return fastnn.rand(n, n, generator=fastnn.Generator(0))


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _results() -> Iterator[Finding]:
    """Are results right, and the same for any number of threads?"""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((8, 4, 20, 20), dtype=np.float32), rng.standard_normal((16, 4, 3, 3), dtype=np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (3, 3), axis=(2, 3))
    expected = np.einsum("nchwrs,kcrs->nkhw", windows, w)
    results = []
    for n in {1, _core.get_num_threads()}:
        with num_threads(n):
            results.append(F.conv2d(fastnn.tensor(x), fastnn.tensor(w)).numpy())
    error = float(np.abs(results[0] - expected).max() / np.abs(expected).max())
    if not error < 1e-5:
        yield Finding("results", "bad", f"a convolution differs from NumPy's by {error:.1e} of its largest element: "
                                        "please report this")
    elif not all(np.array_equal(results[0], other) for other in results):
        yield Finding("results", "bad", "a convolution's bits depend on the number of threads: please report this")
    else:
        yield Finding("results", "good", "as NumPy's, and the same bits for any number of threads")


def _fork() -> Iterator[Finding]:
    """Does a forked child compute after its parent has?"""
    if not hasattr(os, "fork"):
        return
    x = _random(512)
    fastnn.matmul(x, x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads: what is tried here
        child = os.fork()
    if child == 0:
        status = 1
        try:
            fastnn.matmul(x, x)
            status = 0
        finally:
            os._exit(status)
    status = _wait(child)
    if status == 0:
        yield Finding("fork", "good", "a forked child computes after its parent has")
    else:
        how = "hangs" if status is None else f"fails (status {status})"
        yield Finding("fork", "bad", f"a forked child {how}; start processes by 'spawn' instead")


def _wait(child: int) -> int | None:
    """The child's exit status; None, and the child is ended, if it takes too long."""
    import signal

    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _runtimes() -> Iterator[Finding]:
    """Other OpenMP runtimes, whose waiting threads would keep the cores."""
    maps = Path("/proc/self/maps")
    loaded = sorted(set(_RUNTIME.findall(maps.read_text()))) if maps.exists() else []
    others = [name for name in _WITH_OPENMP if importlib.util.find_spec(name)]
    is_set = any(os.environ.get(name) for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"))
    if len(loaded) > 1 or others and not is_set:
        who = f"{', '.join(others)} installed, with an OpenMP runtime of its own; " if others else ""
        yield Finding("OpenMP", "note", f"{who}loaded here: {', '.join(loaded) or 'none'}. Used in one process, the "
                                        "waiting threads of one keep the other's from working: GOMP_SPINCOUNT=3000 "
                                        "shortens that")
    else:
        yield Finding("OpenMP", "good", f"loaded here: {', '.join(loaded) or 'none'}")


def _extras() -> Iterator[Finding]:
    """Optional packages."""
    missing = [extra for extra, module in EXTRAS.items() if importlib.util.find_spec(module) is None]
    if missing:
        yield Finding("extras", "note", f"without {', '.join(EXTRAS[extra] for extra in missing)}: "
                                        f"pip install 'fastnn[{','.join(missing)}]'")
    else:
        yield Finding("extras", "good", ", ".join(EXTRAS.values()))


def _settings() -> Iterator[Finding]:
    """Environment variables that change how things run."""
    given = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(_SETTINGS)]
    if given:
        yield Finding("environment", "good", ", ".join(given))
