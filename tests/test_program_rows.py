"""Rows that a program's next replay picks, which threads that wait bring nearer (`fnn_spare` in csrc/fastnn.h)."""

import subprocess
import sys

import numpy as np
import pytest

import fastnn
from fastnn._core import launch
from fastnn.program import capture
from fastnn.testing.checks import forced_threads

# Positions end where memory does: reading those of a batch behind the last one would end the process.
AT_THE_END = """
import ctypes, mmap
import numpy as np, fastnn
from fastnn._core import launch
from fastnn.program import capture
fastnn.set_num_threads(2)
page, batch, batches = mmap.PAGESIZE, 64, 32
size = 8 * batch * batches
memory = mmap.mmap(-1, size + page)
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
assert ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(start + size), page, 0) == 0
rng = np.random.default_rng(0)
rows = np.frombuffer(memory, np.int64, batch * batches)
rows[:] = rng.integers(0, 3000, batch * batches)
table = fastnn.tensor(rng.standard_normal((3000, 784)).astype(np.float32))
weight = fastnn.tensor(rng.standard_normal((40, 784)).astype(np.float32))
program = capture(lambda picked: launch.linear_forward(launch.index_select(table, picked, axis=0), weight, None))
order = fastnn.from_numpy(rows)
for _ in range(40):
    assert list(program.run_many(order, batch))[-1] == len(rows)
print(program.replays)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mprotect as Linux has it")
def test_positions_behind_the_last_batch_are_not_read():
    run = subprocess.run([sys.executable, "-c", AT_THE_END], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0 and int(run.stdout) > 1000, run.stderr[-2000:]


@pytest.mark.parametrize("width, dtype", [(784, np.float32), (1200, np.uint8), (8, np.float32)])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_rows_are_those_that_were_asked_for(width, dtype, threads):
    """Rows of several pieces, of one and of less than is worth it; positions from the end; a last batch that is short."""
    rng = np.random.default_rng(1)
    values = rng.integers(0, 100, (500, width)).astype(dtype)
    table, seen = fastnn.from_numpy(values), fastnn.zeros(30, width)

    def step(rows):
        picked = launch.index_select(table, rows, axis=0).to(dtype=fastnn.float32)
        launch.add(launch.mul(seen, fastnn.tensor(0.5)), picked, out=seen)

    rows = rng.integers(-500, 500, 330)
    expected = np.zeros((30, width), np.float32)
    for k in range(0, 330, 30):
        expected = expected / 2 + values[rows[k:k + 30]]
    program = capture(step)
    with forced_threads(threads):
        for _ in range(4):
            seen.zero_()
            assert list(program.run_many(fastnn.from_numpy(rows), 30))[-1] == 330
            np.testing.assert_array_equal(seen.numpy(), expected)
    assert program.replays >= 30
