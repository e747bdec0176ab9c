"""Whole training steps (forward, loss, backward, SGD with momentum) beside PyTorch, eager and captured, timed in turns.

    python -m pytest bench/bench_steps.py --benchmark-enable [--threads 2] [--compiled] [--benchmark-json FILE]

PyTorch runs eagerly, contiguous and, for images, channels-last, and with --compiled through torch.compile, too, which
takes minutes and a C++ compiler; the fastest counts. Memory, and the time outside of products and convolutions, are
those of `one_step.py`, each library in a process of its own.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from timing import conditions, in_turns, use_threads  # noqa: E402

import fastnn  # noqa: E402
import fastnn.functional as F  # noqa: E402
from fastnn import models, optim  # noqa: E402
from fastnn.data import mnist  # noqa: E402

torch = pytest.importorskip("torch")
import cliff  # noqa: E402
import peers  # noqa: E402

# name -> model's configuration, shape of a batch, classes, calls a turn
STEPS = {"mlp 4-16-16-2, batch 32": (("mlp", {"sizes": (4, 16, 16, 2)}), (32, 4), 2, 50),
         "mlp 784-256-10, batch 4": (("mlp", {"sizes": (784, 256, 10)}), (4, 784), 10, 20),
         "mlp 784-256-10, batch 64": (("mlp", {"sizes": (784, 256, 10)}), (64, 784), 10, 20),
         "lenet5, batch 64": (("lenet5", {}), (64, 1, 28, 28), 10, 10),
         "lenet5, batch 256": (("lenet5", {}), (256, 1, 28, 28), 10, 4),
         "resnet18, batch 4": (("resnet18", {}), (4, 3, 224, 224), 1000, 1),
         "vgg16, batch 4": (("vgg16", {"dropout": 0.0}), (4, 3, 224, 224), 1000, 1)}
LARGE = ("resnet18", "vgg16")
NEEDS_MNIST = pytest.mark.skipif(not os.environ.get("FASTNN_DATA"), reason="FASTNN_DATA does not say where MNIST is")
# Normal numbers; and, where they fit, images of MNIST, four-fifths of which are 0.
CASES = [(name, "normal") for name in STEPS] + [
    pytest.param(name, "digits", marks=NEEDS_MNIST) for name, (_, shape, _, _) in STEPS.items() if math.prod(shape[1:]) == 784]
CLIFF_WIDTHS = (8, 16, 32, 45, 46, 64, 96, 128, 192, 256, 384, 512)


def step_of(model: Any, optimizer: Any, cross_entropy: Callable) -> Callable[[Any, Any], Any]:
    """One training step; the same text serves both libraries."""

    def step(x: Any, y: Any) -> Any:
        loss = cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return step


def contestants(name: str, config: dict, x: np.ndarray, y: np.ndarray, captured: bool,
                compiled: bool) -> list[Callable[[], Any]]:
    """fastnn's step, then PyTorch's in each layout, eager and perhaps compiled, from the same weights."""
    model = models.build(name, **config)
    step = step_of(model, optim.SGD(model.parameters(), lr=0.01, momentum=0.9), F.cross_entropy)
    step = fastnn.capture(step) if captured else step
    fx, fy = fastnn.tensor(x), fastnn.tensor(y)
    functions: list[Callable[[], Any]] = [lambda: step(fx, fy)]
    layouts = (torch.contiguous_format, torch.channels_last)[:1 if x.ndim == 2 else 2]
    for layout, compiles in itertools.product(layouts, (False, True)[:1 + compiled]):
        peer = peers.build(name, **config)
        peer.load_state_dict({k: torch.from_numpy(v.numpy().copy()) for k, v in model.state_dict().items()})
        peer = peer.to(memory_format=layout)
        optimizer = torch.optim.SGD(peer.parameters(), lr=0.01, momentum=0.9)
        peer = torch.compile(peer) if compiles else peer
        theirs = step_of(peer, optimizer, torch.nn.functional.cross_entropy)
        tx, ty = torch.from_numpy(x).contiguous(memory_format=layout), torch.from_numpy(y)
        functions.append(lambda theirs=theirs, tx=tx, ty=ty: theirs(tx, ty))
    return functions


@pytest.mark.parametrize("mode", ["eager", "captured"])
@pytest.mark.parametrize("name, data", CASES)
def test_step(benchmark: Any, request: pytest.FixtureRequest, name: str, data: str, mode: str) -> None:
    use_threads(request.config.getoption("--threads"))
    (model, config), shape, classes, calls = STEPS[name]
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(shape, dtype=np.float32), rng.integers(0, classes, shape[0])
    if data == "digits":
        x, y = (array[:shape[0]] for array in mnist()[0].arrays)
        x, y = x.reshape(shape), y.astype(np.int64)
    functions = contestants(model, config, x, y, mode == "captured", request.config.getoption("--compiled"))
    first = [float(function().item()) for function in functions]
    assert max(first) - min(first) < 1e-4 * abs(first[0]), f"losses of the first step differ: {first}"
    turns = in_turns(functions, 2.0, calls)
    benchmark.extra_info |= {"ratio": turns.ratio, "microseconds": turns.seconds[0] * 1e6,
                             "peer_microseconds": min(turns.seconds[1:]) * 1e6, **conditions()}
    benchmark.pedantic(functions[0], rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("name", LARGE)
def test_memory_and_time_outside(benchmark: Any, request: pytest.FixtureRequest, name: str) -> None:
    """Peak memory above the level after import and data, and the time outside of products and convolutions."""
    threads = str(request.config.getoption("--threads"))

    def measured(library: str) -> dict[str, float]:
        command = [sys.executable, str(Path(__file__).with_name("one_step.py")), library, name, "--threads", threads]
        environment = {**os.environ, "PYTHONPATH": str(Path(fastnn.__file__).parents[1])}
        printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
        return json.loads(printed.splitlines()[-1])  # the profiler may say something, too

    ours, theirs = (measured(library) for library in ("fastnn", "torch"))
    benchmark.extra_info |= {"memory_ratio": ours["peak_bytes"] / theirs["peak_bytes"],
                             "outside_ratio": ours["outside_seconds"] / theirs["outside_seconds"],
                             **{f"fastnn_{key}": value for key, value in ours.items()},
                             **{f"torch_{key}": value for key, value in theirs.items()}, **conditions()}
    benchmark.pedantic(lambda: None, rounds=1)


@pytest.mark.parametrize("width", CLIFF_WIDTHS)
def test_thread_cliff(benchmark: Any, request: pytest.FixtureRequest, width: int) -> None:
    """A step of a three-layer MLP, batch 128, on all threads beside one."""
    threads = request.config.getoption("--threads")
    one, all_ = cliff.seconds(width, threads)
    benchmark.extra_info |= {"ratio": one / all_, "microseconds": all_ * 1e6, "one_thread_microseconds": one * 1e6,
                             **conditions()}
    benchmark.pedantic(lambda: None, rounds=1)
