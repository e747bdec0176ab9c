"""Forked children compute after their parent has: libgomp's threads do not exist in them: a naive engine hangs.

Every case is a process of its own that is ended when it hangs.
"""

import pytest
from programs import run

TRAIN = """
import os, sys, threading
import numpy as np
import fastnn
from fastnn import _core, nn, optim

_core.set_num_threads(2)
_core.set_thread_policy("force")

def train(seed=0):
    fastnn.manual_seed(seed)
    rng = np.random.default_rng(seed)
    x = fastnn.tensor(rng.standard_normal((256, 100)).astype(np.float32))
    y = fastnn.tensor(rng.integers(0, 10, 256))
    model = nn.Sequential(nn.Linear(100, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    for _ in range(5):
        loss = fastnn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert _core.last_workers() == 2
    return loss.item()

expected = train()

def forked(expected=expected):
    child = os.fork()
    if child == 0:
        os._exit(0 if train() == expected else 3)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


def test_child_trains_after_its_parent_has():
    run(TRAIN + """
for _ in range(3):
    assert forked() == 0
    assert train() == expected
""", timeout=60)


def test_grandchild_trains():
    run(TRAIN + """
child = os.fork()
if child == 0:
    os._exit(0 if train() == expected and forked() == 0 else 3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
""", timeout=60)


def test_multiprocessing_pool():
    run(TRAIN + """
import multiprocessing
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(train, range(4)) == [train(k) for k in range(4)]
""", timeout=60)


def test_joblib():
    pytest.importorskip("joblib")
    run(TRAIN + """
from joblib import Parallel, delayed
assert Parallel(n_jobs=2, backend="multiprocessing")(delayed(train)(0) for _ in range(4)) == [expected] * 4
""", timeout=60)


def test_fork_from_a_thread_while_another_trains():
    run(TRAIN + """
codes = []
def fork_often():
    for _ in range(5):
        codes.append(forked())
worker = threading.Thread(target=fork_often)
worker.start()
while worker.is_alive():
    x = fastnn.ones(300, 300)
    assert fastnn.matmul(x, x).numpy()[0, 0] == 300
worker.join()
assert codes == [0] * 5, codes
""", timeout=60)


def test_a_child_does_not_wait_for_what_other_threads_computed():
    run("""
import os, threading
import fastnn
from fastnn import _core

_core.set_num_threads(1)
x, done = fastnn.rand(1500, 1500), threading.Event()

def work():
    while not done.is_set():
        x @ x

thread = threading.Thread(target=work)
thread.start()
busy = False
while not busy:
    try:
        _core.set_isa(_core.get_isa())
    except RuntimeError:
        busy = True  # the other thread is within a product
child = os.fork()
if child == 0:
    _core.set_isa(_core.get_isa())
    os._exit(0)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
done.set()
thread.join()
assert code == 0
""", timeout=60)
