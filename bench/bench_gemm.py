"""Matrix products beside PyTorch: squares, and the three passes of an MLP's layers, verified, then timed in turns.

    python -m pytest bench/bench_gemm.py [--threads 2] [--benchmark-enable --benchmark-json FILE]
    python bench/bench_gemm.py [--threads 2] [--seconds 0.5] [--only square] [--precision medium]    # as a table

PyTorch computes in float32, but at `--precision medium` in bfloat16, from bfloat16 matrices.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# PyTorch brings an OpenMP runtime of its own. By default the waiting threads of one would spin for 12 ms on the other's
# cores.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from timing import calls_for, conditions, in_turns, use_threads  # noqa: E402

import fastnn  # noqa: E402
from fastnn import _core  # noqa: E402
from fastnn.testing import cases  # noqa: E402
from fastnn.testing.shapes import LAYERS, SQUARES, Product  # noqa: E402

torch = pytest.importorskip("torch")


def pair(shape: Product) -> list[Callable[[], Any]]:
    """The same product by fastnn and by PyTorch."""
    case = cases.product(shape)
    return [case.ours, *case.peers(torch)]


TOLERANCE = {"highest": 1e-5, "high": 1e-4, "medium": 2e-2}


def verify(functions: Sequence[Callable[[], Any]]) -> None:
    """Raises where fastnn and PyTorch differ by more than rounding."""
    got, want = np.asarray(functions[0]()), functions[1]().float().numpy()
    error = abs(got - want).max() / abs(want).max()
    tolerance = TOLERANCE[fastnn.get_float32_matmul_precision()]
    assert error < tolerance, f"fastnn and PyTorch differ by {error:.1e} of the largest element"


def measure(product: Product, seconds: float) -> dict[str, float]:
    """Verify, then time: GFLOP/s of both, and the ratios of times."""
    functions = pair(product)
    verify(functions)
    turns = in_turns(functions, seconds, calls_for(functions[0]))
    ours, peer = turns.seconds
    gflop = product.flops / 1e9
    return {"microseconds": 1e6 * ours, "gflops": gflop / ours, "torch_gflops": gflop / peer, "ratio": turns.ratio,
            "ratio_of_least": turns.ratio_of_least, **conditions()}


@pytest.mark.parametrize("product", SQUARES + LAYERS, ids=lambda product: product.name)
def test_product(benchmark: Any, request: pytest.FixtureRequest, product: Product) -> None:
    use_threads(request.config.getoption("--threads"))
    benchmark.extra_info |= measure(product, 0.2)
    benchmark.pedantic(pair(product)[0], rounds=5, warmup_rounds=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each product")
    parser.add_argument("--precision", default="highest", choices=list(TOLERANCE))
    parser.add_argument("--only", default="", help="products whose names contain this")
    options = parser.parse_args()
    use_threads(options.threads)
    fastnn.set_float32_matmul_precision(options.precision)
    ratios = []
    print(f"{'product':32} {'us':>10} {'GFLOP/s':>8} {'torch':>8} {'ratio':>6} {'least':>6}")
    for product in SQUARES + LAYERS:
        if options.only not in product.name:
            continue
        m = measure(product, options.seconds)
        ratios.append(m["ratio"])
        print(f"{product.name:32} {m['microseconds']:10.1f} {m['gflops']:8.1f} {m['torch_gflops']:8.1f} "
              f"{m['ratio']:6.2f} {m['ratio_of_least']:6.2f}", flush=True)
    if ratios:
        mean = math.exp(statistics.mean(map(math.log, ratios)))
        print(f"geometric mean {mean:.3f}, least {min(ratios):.2f}, {_core.get_isa()}, {options.precision}, "
              f"{options.threads} threads")


if __name__ == "__main__":
    main()
