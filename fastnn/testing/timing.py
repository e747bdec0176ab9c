"""Timing two or more ways of doing one thing, in turns, so that a drifting machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .. import _core
from . import peak


class Turns(NamedTuple):
    """Interleaved timings in a few figures."""

    seconds: list[float]  # median per function
    ratio: float  # median over rounds of (fastest peer's time / the first function's time), one peer for all rounds
    ratio_of_least: float  # the same of the least times: what an idle machine would show
    samples: list[list[float]]  # every timing, by function

    def ratio_to(self, peers: Sequence[int]) -> float:
        """Median over rounds of (the time of the fastest of some functions / the first's), one peer for all rounds.

        Parameters
        ----------
        peers : sequence of int
            Which functions.

        Returns
        -------
        float
        """
        peer = min(peers, key=self.seconds.__getitem__)
        return statistics.median(p / o for p, o in zip(self.samples[peer], self.samples[0]))


def in_turns(functions: Sequence[Callable[[], Any]], seconds: float = 0.5, calls: int = 1,
             least_rounds: int = 7) -> Turns:
    """Calls the functions in turns for about `seconds` in all; the first is ours, the others are peers.

    Parameters
    ----------
    functions : sequence of callable
        What to time.
    seconds : float
        Roughly how long.
    calls : int
        Calls of one function a turn, for short ones.
    least_rounds : int
        At least so many turns each.

    Returns
    -------
    Turns
    """
    for function in functions:
        for _ in range(3):
            function()
    samples: list[list[float]] = [[] for _ in functions]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(samples[0]) < least_rounds:
        for function, taken in zip(functions, samples):
            start = time.perf_counter()
            for _ in range(calls):
                function()
            taken.append((time.perf_counter() - start) / calls)
    medians = [statistics.median(taken) for taken in samples]
    peer = min(range(1, len(functions)), key=medians.__getitem__, default=0)
    ratio = statistics.median(p / o for p, o in zip(samples[peer], samples[0]))
    return Turns(medians, ratio, min(samples[peer]) / min(samples[0]), samples)


def calls_for(function: Callable[[], Any], seconds: float = 2e-4) -> int:
    """How many calls of a short function take a given time.

    Parameters
    ----------
    function : callable
        What to call.
    seconds : float
        About how long.

    Returns
    -------
    int
    """
    function()
    start = time.perf_counter()
    function()
    return 1 + int(seconds / (time.perf_counter() - start))


def use_threads(threads: int) -> None:
    """The same number of threads for fastnn and, if it is there, PyTorch.

    Parameters
    ----------
    threads : int
        How many.
    """
    _core.set_num_threads(threads)
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(threads)


def conditions() -> dict[str, Any]:
    """Instruction set, threads and this machine's best, for reports."""
    threads = _core.get_num_threads()
    return {"isa": _core.get_isa(), "threads": threads, "peak_gflops": peak.gflops(threads)}
