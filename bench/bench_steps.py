"""Whole training steps (forward, loss, backward, SGD with momentum) beside PyTorch, eager and captured, timed in turns.

    python -m pytest bench/bench_steps.py --benchmark-enable [--threads 2] [--benchmark-json FILE]

PyTorch runs eagerly, contiguous and, for images, channels-last; the faster counts.
"""

from __future__ import annotations

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

torch = pytest.importorskip("torch")

# name -> model's configuration, shape of a batch, classes, calls a turn
STEPS = {"mlp 4-16-16-2, batch 32": (("mlp", {"sizes": (4, 16, 16, 2)}), (32, 4), 2, 50),
         "mlp 784-256-10, batch 4": (("mlp", {"sizes": (784, 256, 10)}), (4, 784), 10, 20),
         "mlp 784-256-10, batch 64": (("mlp", {"sizes": (784, 256, 10)}), (64, 784), 10, 20),
         "lenet5, batch 64": (("lenet5", {}), (64, 1, 28, 28), 10, 10),
         "lenet5, batch 256": (("lenet5", {}), (256, 1, 28, 28), 10, 4)}


def torch_model(name: str, sizes: tuple = ()) -> Any:
    """The same network in PyTorch."""
    layer = torch.nn
    if name == "lenet5":
        return layer.Sequential(
            layer.Conv2d(1, 6, 5, padding=2), layer.ReLU(), layer.MaxPool2d(2),
            layer.Conv2d(6, 16, 5), layer.ReLU(), layer.MaxPool2d(2), layer.Flatten(),
            layer.Linear(400, 120), layer.ReLU(), layer.Linear(120, 84), layer.ReLU(), layer.Linear(84, 10))
    layers: list = []
    for inputs, outputs in zip(sizes, sizes[1:]):
        layers += [layer.Linear(inputs, outputs), layer.ReLU()]
    return layer.Sequential(*layers[:-1])


def step_of(model: Any, optimizer: Any, cross_entropy: Callable) -> Callable[[Any, Any], Any]:
    """One training step; the same text serves both libraries."""

    def step(x: Any, y: Any) -> Any:
        loss = cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return step


def contestants(name: str, config: dict, shape: tuple, classes: int, captured: bool) -> list[Callable[[], Any]]:
    """fastnn's step, then PyTorch's in each layout, from the same weights."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(shape, dtype=np.float32), rng.integers(0, classes, shape[0])
    model = models.build(name, **config)
    step = step_of(model, optim.SGD(model.parameters(), lr=0.01, momentum=0.9), F.cross_entropy)
    step = fastnn.capture(step) if captured else step
    fx, fy = fastnn.tensor(x), fastnn.tensor(y)
    functions: list[Callable[[], Any]] = [lambda: step(fx, fy)]
    for layout in (torch.contiguous_format, torch.channels_last)[:1 if x.ndim == 2 else 2]:
        peer = torch_model(name, **config)
        peer.load_state_dict({k: torch.from_numpy(v.numpy().copy()) for k, v in model.state_dict().items()})
        peer = peer.to(memory_format=layout)
        optimizer = torch.optim.SGD(peer.parameters(), lr=0.01, momentum=0.9)
        theirs = step_of(peer, optimizer, torch.nn.functional.cross_entropy)
        tx, ty = torch.from_numpy(x).contiguous(memory_format=layout), torch.from_numpy(y)
        functions.append(lambda theirs=theirs, tx=tx, ty=ty: theirs(tx, ty))
    return functions


@pytest.mark.parametrize("mode", ["eager", "captured"])
@pytest.mark.parametrize("name", STEPS)
def test_step(benchmark: Any, request: pytest.FixtureRequest, name: str, mode: str) -> None:
    use_threads(request.config.getoption("--threads"))
    (model, config), shape, classes, calls = STEPS[name]
    functions = contestants(model, config, shape, classes, mode == "captured")
    first = [float(function().item()) for function in functions]
    assert max(first) - min(first) < 1e-4 * abs(first[0]), f"losses of the first step differ: {first}"
    turns = in_turns(functions, 2.0, calls)
    benchmark.extra_info |= {"ratio": turns.ratio, "microseconds": turns.seconds[0] * 1e6,
                             "peer_microseconds": min(turns.seconds[1:]) * 1e6, **conditions()}
    benchmark.pedantic(functions[0], rounds=5, warmup_rounds=1)
