"""Training steps (forward, loss, backward, Adam) of networks that courses train, captured, beside PyTorch, timed in turns.

    python -m pytest bench/bench_networks.py --benchmark-enable [--threads 2] [-k graph] [--benchmark-json FILE]

Both libraries run the text in networks.py from the same weights. PyTorch runs eagerly.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from networks import NETWORKS  # noqa: E402
from timing import calls_for, conditions, in_turns, use_threads  # noqa: E402

import fastnn  # noqa: E402
import fastnn.functional as F  # noqa: E402

torch = pytest.importorskip("torch")

RANDOM = ("small_vgg", "variational_autoencoder", "table")  # whose losses differ, since the libraries draw other numbers


def step_of(library: Any, model: Any, loss_of: Callable) -> Callable:
    """One training step; the same text serves both libraries."""
    optimizer = library.optim.Adam(model.parameters(), lr=1e-3)

    def step(*batch: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_of(model, *batch)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


@pytest.mark.parametrize("name", NETWORKS)
def test_network(benchmark: Any, request: pytest.FixtureRequest, name: str) -> None:
    use_threads(request.config.getoption("--threads"))
    ours, theirs = NETWORKS[name](fastnn, fastnn.nn, F), NETWORKS[name](torch, torch.nn, torch.nn.functional)
    ours.model.load_state_dict({k: fastnn.tensor(v.numpy().copy()) for k, v in theirs.model.state_dict().items()})
    captured = fastnn.capture(step_of(fastnn, ours.model, ours.loss))
    eager = step_of(torch, theirs.model, theirs.loss)
    batch, their_batch = [fastnn.tensor(a) for a in ours.batch], [torch.tensor(a) for a in theirs.batch]
    functions = [lambda: captured(*batch), lambda: eager(*their_batch)]
    losses = [float(function()) for function in functions]
    assert name in RANDOM or abs(losses[0] - losses[1]) < 1e-4 * abs(losses[1]), f"losses of the first step differ: {losses}"
    turns = in_turns(functions, 2.0, calls_for(functions[0], 2e-3))
    assert captured.obstacle is None and captured.replays > 0
    benchmark.extra_info |= {"ratio": turns.ratio, "microseconds": turns.seconds[0] * 1e6,
                             "peer_microseconds": turns.seconds[1] * 1e6, **conditions()}
    benchmark.pedantic(functions[0], rounds=3, warmup_rounds=1)
