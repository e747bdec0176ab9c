"""The command ``fastnn bench``: how fast this machine computes named layers, products and operations, and how near that
is to its best; PyTorch beside them where it is asked for."""

from __future__ import annotations

import math
import os
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

DEFAULT = ("lenet5", "gemm", "ops")


class Row(NamedTuple):
    """One measurement."""

    group: str
    name: str
    milliseconds: float
    rate: float  # in 1e9 operations or bytes a second
    unit: str  # "GFLOP/s" or "GB/s"
    share: float | None  # of the machine's measured best: multiply-adds, or copying as many bytes
    algorithm: str
    isa: str
    threads: int
    ratio: float | None = None  # PyTorch's time / fastnn's
    peer_rate: float | None = None


def groups_of(names: str) -> list[str]:
    """The groups in a list separated by commas.

    Parameters
    ----------
    names : str
        Such as "lenet5,gemm".

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        If a name is none of `fastnn.testing.cases.GROUPS`.
    """
    from .testing.cases import GROUPS

    chosen = [name.strip() for name in names.split(",") if name.strip()]
    for name in chosen:
        if name not in GROUPS:
            raise ValueError(f"--layers: {name!r} is unknown; there are {', '.join(GROUPS)}")
    if not chosen:
        raise ValueError(f"--layers names nothing; there are {', '.join(GROUPS)}")
    return chosen


def start_anew_for_peers() -> None:
    """Runs this very command again, with a setting that OpenMP reads when it is loaded: PyTorch brings a runtime of its
    own, and by default the waiting threads of one would spin for 12 ms on the other's cores."""
    if "GOMP_SPINCOUNT" not in os.environ:
        command = [sys.executable, "-m", "fastnn", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "GOMP_SPINCOUNT": "3000"})


def torch_or_explain() -> Any:
    """PyTorch, or an error that says how to get it.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError("--peers needs PyTorch, which is not installed: "
                          "pip install torch --index-url https://download.pytorch.org/whl/cpu") from error
    return torch


def measure(groups: Iterable[str], *, seconds: float = 0.2, nbytes: int = 64 << 20, torch: Any = None,
            only: str = "") -> Iterator[Row]:
    """Times the cases of some groups, each in turns with what it is compared with.

    Parameters
    ----------
    groups : iterable of str
        Of `fastnn.testing.cases.GROUPS`.
    seconds : float
        For each case.
    nbytes : int
        How large the data of group "stream" is.
    torch : module, optional
        PyTorch, to be timed beside.
    only : str
        Cases whose names contain this.

    Yields
    ------
    Row
    """
    from .testing.cases import cases_of

    for group in groups:
        for name, make in cases_of(group, nbytes):
            if only in name:
                yield _measured(group, name, make, seconds, torch)


def _measured(group: str, name: str, make: Callable[[], Any], seconds: float, torch: Any) -> Row:
    from . import _core
    from .testing import peak
    from .testing.timing import calls_for, in_turns

    case, threads = make(), _core.get_num_threads()
    copies = peak.copies(int(case.bytes)) if case.bytes else []
    peers = case.peers(torch) if torch is not None else []
    turns = in_turns([case.ours, *copies, *peers], seconds, calls_for(case.ours))
    ours, theirs = turns.seconds[0], range(1 + len(copies), len(turns.seconds))
    limits = []  # share, work, unit
    if case.flops:
        best = peak.gflops(threads)
        limits.append((case.flops / ours / 1e9 / best if best else 0.0, case.flops, "GFLOP/s"))
    if case.bytes:
        limits.append((min(turns.seconds[1:1 + len(copies)]) / ours, case.bytes, "GB/s"))
    share, work, unit = max(limits)  # the one that bounds it
    return Row(group, name, 1e3 * ours, work / ours / 1e9, unit, share or None, case.algorithm, _core.get_isa(),
               threads, turns.ratio_to(theirs) if theirs else None,
               work / min(turns.seconds[k] for k in theirs) / 1e9 if theirs else None)


def header(peers: bool) -> str:
    """The table's first line.

    Parameters
    ----------
    peers : bool
        Whether PyTorch was timed.

    Returns
    -------
    str
    """
    return (f"{'group':12} {'case':32} {'ms':>9} {'speed':>16} {'of best':>7}  {'way':16}"
            + (f" {'PyTorch':>9} {'ratio':>6}" if peers else ""))


def line(row: Row, peers: bool) -> str:
    """A measurement as a line of the table.

    Parameters
    ----------
    row : Row
        The measurement.
    peers : bool
        Whether PyTorch was timed.

    Returns
    -------
    str
    """
    share = "" if row.share is None else f"{row.share:.0%}"
    text = (f"{row.group:12} {row.name:32} {row.milliseconds:9.3f} {row.rate:8.1f} {row.unit:7} {share:>7}  "
            f"{row.algorithm:16}")
    if not peers:
        return text.rstrip()
    return text + (" " * 17 if row.ratio is None else f" {row.peer_rate:9.1f} {row.ratio:6.2f}")


def summary(rows: Sequence[Row]) -> str:
    """The last line: conditions, and PyTorch's times over fastnn's together.

    Parameters
    ----------
    rows : sequence of Row
        All measurements.

    Returns
    -------
    str
    """
    text = f"{rows[0].isa}, {rows[0].threads} threads"
    ratios = [row.ratio for row in rows if row.ratio is not None]
    if ratios:
        text += f"; PyTorch's time / fastnn's: geometric mean {math.exp(statistics.mean(map(math.log, ratios))):.2f}, "
        text += f"least {min(ratios):.2f}"
    return text
