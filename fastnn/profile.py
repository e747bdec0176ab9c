"""Where a step's time goes: each launch's time, threads and rates beside the machine's best, as table or trace."""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import _core
from ._core import launch
from .ops.create import empty, ones
from .program import CapturedProgram

__all__ = ["Launch", "Profile", "profile"]

SECONDS = 0.5  # how long a step is timed, roughly
LEAST_RUNS, MOST_RUNS = 5, 200
FLOAT32, FLOAT64 = 4, 8


class Launch(NamedTuple):
    """One launch of a captured step, with the elementwise ones that run within it.

    Attributes
    ----------
    name : str
        The ops, joined by " > ": with "+relu" one that applies ReLU, too, with "+late" an index_select that leaves its rows to
        those who read them.
    layer : str
        Path of the module it belongs to, forward or backward; the optimiser's class for updates;
        "" for what is outside of both.
    seconds : float
        Median time.
    threads : int
        How many took part.
    flops : float
        Arithmetic operations of products, convolutions, attention and recurrent layers' products with their hidden state; 0 for
        all others.
    nbytes : int
        Bytes of all tensors it reads and writes, each counted once.
    bound : str
        "compute" or "memory": what limits it on this machine, were it perfect.
    best : float
        Seconds it would take then.
    """

    name: str
    layer: str
    seconds: float
    threads: int
    flops: float
    nbytes: int
    bound: str
    best: float


class Profile:
    """What `profile` returns: ``str()`` of it is a table.

    Attributes
    ----------
    launches : list of Launch
        In the order they run.
    seconds : float
        Median time of a whole replayed step, taken without clocks in between.
    gflops : float
        1e9 operations a second that a large matrix product reached here: the bound for "compute". Products whose operand
        is mostly zeros skip these and can be faster.
    bandwidth : float
        1e9 bytes a second that copying reached, read and written: the bound for "memory". What fits
        into caches can be faster.
    """

    def __init__(self, launches: list[Launch], seconds: float, gflops: float, bandwidth: float):
        self.launches, self.seconds, self.gflops, self.bandwidth = launches, seconds, gflops, bandwidth

    def by_layer(self) -> dict[str, float]:
        """Seconds of each layer's launches, the slowest first."""
        sums: dict[str, float] = {}
        for one in self.launches:
            sums[one.layer] = sums.get(one.layer, 0.0) + one.seconds
        return dict(sorted(sums.items(), key=lambda item: -item[1]))

    def __str__(self) -> str:
        total = sum(one.seconds for one in self.launches) or 1.0
        lines = [f"{1e6 * self.seconds:.1f} us a step, {1e6 * total:.1f} us in {len(self.launches)} launches; "
                 f"products reach {self.gflops:.0f} GFLOP/s here, copies {self.bandwidth:.1f} GB/s"]
        rows = [("layer", "us", "share")]
        rows += [(layer or "(no layer)", f"{1e6 * seconds:.1f}", f"{100 * seconds / total:.1f} %")
                 for layer, seconds in self.by_layer().items()]
        lines += ["", *_columns(rows, left=1), ""]
        rows = [("launch", "layer", "us", "share", "threads", "GFLOP/s", "GB/s", "bound", "of it")]
        for one in self.launches:
            rate = f"{one.flops / one.seconds / 1e9:.1f}" if one.flops else ""
            rows.append((one.name, one.layer or "(no layer)", f"{1e6 * one.seconds:.1f}",
                         f"{100 * one.seconds / total:.1f} %", str(one.threads), rate,
                         f"{one.nbytes / one.seconds / 1e9:.1f}", one.bound, f"{100 * one.best / one.seconds:.0f} %"))
        return "\n".join([*lines, *_columns(rows, left=2)])

    __repr__ = __str__

    def save(self, path: str | os.PathLike) -> None:
        """Writes a trace for ``chrome://tracing`` or Perfetto: the launches end to end, each with its median time.

        Parameters
        ----------
        path : str or path-like
            The file, JSON.
        """
        import json  # here: `import fastnn` stays quick

        events: list[dict[str, Any]] = []
        start = 0.0
        for one in self.launches:
            details = {"layer": one.layer, "threads": one.threads, "flops": one.flops, "bytes": one.nbytes,
                       "bound": one.bound, "share of bound": round(one.best / one.seconds, 4)}
            events.append({"name": one.name, "cat": one.layer, "ph": "X", "pid": 0, "tid": 0, "ts": 1e6 * start,
                           "dur": 1e6 * one.seconds, "args": details})
            start += one.seconds
        Path(path).write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ns"}, indent=1), encoding="utf-8")


def profile(step: Callable, *inputs: Any) -> Profile:
    """Times each launch of a step.

    The step is captured if it is not yet, then replayed for about half a second with a clock around each launch. What
    the replays change is put back afterwards: only the steps that capturing takes (up to four) have an effect.

    Parameters
    ----------
    step : callable or CapturedProgram
        As for `fastnn.capture`.
    *inputs : Tensor or numpy.ndarray or constant
        What to call it with.

    Returns
    -------
    Profile
        Print it, or save it as a trace.

    Raises
    ------
    ValueError
        If the step cannot be captured.
    TypeError
        If `step` cannot be called.

    Examples
    --------
    >>> import fastnn
    >>> layer = fastnn.nn.Linear(3, 2)
    >>> found = fastnn.profile(lambda x: layer(x), fastnn.ones(4, 3))
    >>> [(one.name, one.layer) for one in found.launches]
    [('linear_forward', 'Linear')]
    """
    if not callable(step):
        raise TypeError(f"profile: step is a {type(step).__name__}, but must be a function of tensors")
    captured = step if isinstance(step, CapturedProgram) else CapturedProgram(step)
    program, tensors = captured.prepared(*inputs)
    before = program.snapshot()
    try:
        whole, times, threads = _time(program, tensors)
    finally:
        program.restore(before)
    calls = program.calls()
    doubles = any(call.outputs[0][2] == FLOAT64 and _flops(call) for chain in calls for call in chain)
    size = FLOAT64 if doubles else FLOAT32
    gflops, bandwidth = _machine(size, _core.get_num_threads(), _core.get_isa())
    launches = []
    for chain, seconds, count in zip(calls, times, threads):
        flops, nbytes = sum(_flops(call) for call in chain), _bytes(chain)
        computing, moving = flops / gflops / 1e9, nbytes / bandwidth / 1e9
        launches.append(Launch(" > ".join(call.op for call in chain), chain[0].layer, seconds, count, flops, nbytes,
                               "compute" if computing > moving else "memory", max(computing, moving)))
    return Profile(launches, whole, gflops, bandwidth)


def _time(program: Any, tensors: list) -> tuple[float, list[float], list[int]]:
    """Median seconds of a replay and of each of its calls, and the most threads that took part in each."""
    wholes: list[float] = []
    samples: list[list[float]] = []
    threads: list[int] = [1] * len(program.calls())
    program.run(tensors)
    end = time.perf_counter() + SECONDS
    while len(samples) < LEAST_RUNS or (time.perf_counter() < end and len(samples) < MOST_RUNS):
        start = time.perf_counter()
        program.run(tensors)
        wholes.append(time.perf_counter() - start)
        _, seconds, workers = program.time(tensors)
        samples.append(seconds)
        threads = [max(a, b) for a, b in zip(threads, workers)]
    return float(np.median(wholes)), np.maximum(np.median(samples, axis=0), 1e-9).tolist(), threads


def _flops(call: Any) -> float:
    """Arithmetic operations of a product, convolution, recurrent layer or attention, from its arguments' shapes; 0 for other ops."""
    outputs, inputs = ([None if t is None else t[1] for t in tensors] for tensors in (call.outputs, call.inputs))
    op = call.op.partition("+")[0]
    if op in ("linear_forward", "matmul"):
        return 2.0 * math.prod(outputs[0]) * inputs[0][-1]
    if op == "linear_backward_input":
        return 2.0 * math.prod(outputs[0]) * inputs[1][0]
    if op == "linear_backward_weight":
        return 2.0 * math.prod(inputs[1]) * inputs[0][-1]
    if op == "conv2d_forward":
        return 2.0 * math.prod(outputs[0]) * math.prod(inputs[1][1:])
    if op == "conv2d_backward_input":
        return 2.0 * math.prod(inputs[0]) * math.prod(inputs[1][1:])
    if op == "conv2d_backward_weight":
        return 2.0 * math.prod(inputs[0]) * math.prod(outputs[0][1:])
    if op in ("recurrent_forward", "recurrent_backward"):
        steps, batch, _ = inputs[0]
        return 2.0 * steps * batch * math.prod(inputs[3])
    if op in ("attention_forward", "attention_backward"):
        q, k, v = inputs[:3] if op == "attention_forward" else inputs[1:4]
        terms = q[-1] + v[-1] if op == "attention_forward" else 3 * q[-1] + 2 * v[-1]
        return 2.0 * math.prod(q[:-1]) * k[-2] * terms
    return 0.0


def _bytes(chain: list) -> int:
    """Bytes of the tensors that a launch and its followers touch, each place counted once; of what is picked from, what is picked, and
    only positions where it is left to those who read it."""
    places = {}
    for call in chain:
        touched = call.inputs[1:] if call.op.endswith("+late") else (*call.outputs, *call.inputs)
        for address, shape, size in filter(None, touched):
            places[address] = math.prod(shape) * size
        if call.op in ("index_select", "gather"):
            (address, _, _), (picked, _, _) = call.inputs[0], call.outputs[0]
            places[address] = min(places[address], places[picked])
    return sum(places.values())


@functools.cache
def _machine(size: int, threads: int, isa: str) -> tuple[float, float]:
    """GFLOP/s of a large matrix product and GB/s of a copy, elements of `size` bytes; measured once for each setting."""
    dtype = "float32" if size == FLOAT32 else "float64"
    n, copied = 1024, (32 << 20) // size
    a, b, y = ones(n, n, dtype=dtype), ones(n, n, dtype=dtype), empty(n, n, dtype=dtype)
    source, target = ones(copied, dtype=dtype), empty(copied, dtype=dtype)
    product = _least(lambda: launch.matmul(a, b, out=y))
    copy = _least(lambda: launch.copy(source, dtype=-1, out=target))
    return 2e-9 * n**3 / product, 2e-9 * copied * size / copy


def _least(function: Callable[[], object]) -> float:
    """Least seconds of a call among a few."""
    best = math.inf
    for _ in range(6):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best


def _columns(rows: list[tuple[str, ...]], left: int) -> list[str]:
    """Rows with aligned columns: the first `left` to the left, the others to the right."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) if k < left else cell.rjust(width)
                      for k, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in rows]
