"""Runs scripts as ranks of MPI, or says why that cannot be."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

_BESIDE_PYTHON = Path(sys.executable).parent / "mpiexec"  # where the wheel puts it, of whichever MPI mpi4py finds there
LAUNCHER = str(_BESIDE_PYTHON) if _BESIDE_PYTHON.exists() else shutil.which("mpiexec")
WHY_NOT = ("mpi4py is not installed" if importlib.util.find_spec("mpi4py") is None
           else "there is no mpiexec" if LAUNCHER is None else "")
needs_mpi = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
SECONDS = 60  # after which a run counts as hanging
_FOR_OPEN_MPI = {  # which refuses root, and more ranks than cores, unless it is told
    "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "PRTE_ALLOW_RUN_AS_ROOT": "1",
    "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}
_PRELUDE = """
import sys
import numpy as np
import fastnn
import fastnn.functional as F
from fastnn import distributed as dist, nn, optim
rank, size = dist.get_rank(), dist.get_world_size()

def report(**arrays):
    np.savez(f"rank{rank}.npz", **{name: np.asarray(value) for name, value in arrays.items()})

def weights(model):
    return np.concatenate([np.asarray(t).ravel().astype(np.float64) for t in model.state_dict().values()])
"""


def is_open_mpi():
    """Whether the launcher is Open MPI's."""
    asked = [] if WHY_NOT else [LAUNCHER, "--version"]
    return bool(asked) and "open mpi" in subprocess.run(asked, capture_output=True, text=True, timeout=SECONDS).stdout.lower()


class Run(NamedTuple):
    status: int
    output: str
    errors: str
    ranks: list  # of dicts of arrays: what each rank reported


def start(words, folder, n, environment=None):
    """`n` ranks of a command of Python, in a session of their own."""
    launcher = [LAUNCHER, "-n", str(n)] if n else []
    root = str(Path(__file__).parents[1])
    ours = {key: value for key, value in os.environ.items() if key not in ("FASTNN_NUM_THREADS", "OMP_NUM_THREADS")}
    environment = {**ours, "PYTHONPATH": root, **_FOR_OPEN_MPI, **(environment or {})}
    return subprocess.Popen([*launcher, sys.executable, *words], cwd=folder, env=environment, text=True, start_new_session=True,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process, folder, n, seconds=SECONDS):
    """What came of it; one that hangs is ended, and fails the test."""
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        pytest.fail(f"ranks hang:\n{output}\n{errors}")
    files = [Path(folder, f"rank{k}.npz") for k in range(max(n, 1))]
    ranks = [dict(np.load(file)) for file in files if file.exists()]
    for file in files:
        file.unlink(missing_ok=True)
    return Run(process.returncode, output, errors, ranks)


def run(script, folder, n, environment=None):
    """Runs a script on `n` ranks (0: without a launcher); it finds fastnn, dist, `report` and `weights`."""
    Path(folder, "script.py").write_text(_PRELUDE + textwrap.dedent(script))
    return finish(start(["script.py"], folder, n, environment), folder, n)


def reports(script, folder, n):
    """What the ranks of a run that succeeds reported."""
    done = run(script, folder, n)
    assert done.status == 0, done.output + done.errors
    assert len(done.ranks) == max(n, 1)
    return done.ranks
