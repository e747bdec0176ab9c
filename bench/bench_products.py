"""Matrix products beside PyTorch, verified, then timed in turns.

    python -m pytest bench/bench_products.py [--threads 2] [--benchmark-enable --benchmark-json FILE]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from timing import conditions, in_turns, use_threads  # noqa: E402

import fastnn  # noqa: E402
from fastnn._core import launch  # noqa: E402

torch = pytest.importorskip("torch")

SQUARES = (256, 384, 512, 768, 1024, 1536, 2048)
LAYERS = ((4, 784, 256), (64, 784, 256), (200, 784, 50), (64, 400, 120), (256, 1024, 1024))  # batch, in, out
PASSES = ("forward", "backward_input", "backward_weight")


def measure(functions: list, flops: float, threads: int) -> dict[str, Any]:
    """Checks that both agree, then times them."""
    use_threads(threads)
    with torch.no_grad():
        got, want = functions[0]().numpy(), functions[1]().numpy()
        assert abs(got - want).max() < 1e-4 * abs(want).max()
        turns = in_turns(functions, 0.4, calls=max(1, int(1e8 / flops)))
    return {"gflops": flops / turns.seconds[0] / 1e9, "peer_gflops": flops / turns.seconds[1] / 1e9, "ratio": turns.ratio, **conditions()}


@pytest.mark.parametrize("n", SQUARES)
def test_square(benchmark: Any, request: pytest.FixtureRequest, n: int) -> None:
    a, b = np.random.default_rng(0).standard_normal((2, n, n), dtype=np.float32)
    fa, fb, ta, tb = fastnn.tensor(a), fastnn.tensor(b), torch.from_numpy(a), torch.from_numpy(b)
    functions = [lambda: launch.matmul(fa, fb), lambda: torch.mm(ta, tb)]
    benchmark.extra_info |= measure(functions, 2.0 * n**3, request.config.getoption("--threads"))
    benchmark.pedantic(functions[0], rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize("batch, inputs, outputs", LAYERS)
def test_linear(benchmark: Any, request: pytest.FixtureRequest, batch: int, inputs: int, outputs: int, which: str) -> None:
    rng = np.random.default_rng(0)
    x, w, dy = (rng.standard_normal(s, dtype=np.float32) for s in ((batch, inputs), (outputs, inputs), (batch, outputs)))
    fx, fw, fdy, tx, tw, tdy = *map(fastnn.tensor, (x, w, dy)), *map(torch.from_numpy, (x, w, dy))
    functions = {"forward": [lambda: launch.linear_forward(fx, fw, None), lambda: torch.mm(tx, tw.t())],
                 "backward_input": [lambda: launch.linear_backward_input(fdy, fw), lambda: torch.mm(tdy, tw)],
                 "backward_weight": [lambda: launch.linear_backward_weight(fdy, fx), lambda: torch.mm(tdy.t(), tx)]}[which]
    benchmark.extra_info |= measure(functions, 2.0 * batch * inputs * outputs, request.config.getoption("--threads"))
    benchmark.pedantic(functions[0], rounds=5, warmup_rounds=1)
