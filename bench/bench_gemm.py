"""Matrix products beside PyTorch: squares, and the three passes of an MLP's layers, verified, then timed in turns.

    python -m pytest bench/bench_gemm.py [--threads 2] [--benchmark-enable --benchmark-json FILE]
    python bench/bench_gemm.py [--threads 2] [--seconds 0.5] [--only square]      # the same as a table
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

# PyTorch brings an OpenMP runtime of its own. By default the waiting threads of one would spin for 12 ms on the other's cores.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

import numpy as np  # noqa: E402
import pytest  # noqa: E402

import fastnn  # noqa: E402
from fastnn import _core  # noqa: E402
from fastnn._core import launch  # noqa: E402

torch = pytest.importorskip("torch")


class Product(NamedTuple):
    """One product: which pass, rows (or batch), inputs, outputs."""

    which: str
    batch: int
    inputs: int
    outputs: int

    @property
    def name(self) -> str:
        return f"{self.which}-{self.batch}x{self.inputs}x{self.outputs}"

    @property
    def flops(self) -> float:
        return 2.0 * self.batch * self.inputs * self.outputs


SQUARES = [Product("square", n, n, n) for n in (256, 384, 512, 768, 1024, 1536, 2048)]
LAYERS = [Product(which, batch, *sizes) for batch in (4, 64, 200) for sizes in ((784, 256), (256, 10), (784, 50))
          for which in ("forward", "backward_input", "backward_weight")]


def pair(product: Product) -> list[Callable[[], Any]]:
    """The same product by fastnn and by PyTorch, each into memory of its own that it has used before."""
    which, batch, inputs, outputs = product
    rng = np.random.default_rng(0)
    shapes = ((batch, inputs), (outputs, inputs), (outputs,), (batch, outputs))
    x, weight, bias, dy = (rng.standard_normal(shape, dtype=np.float32) for shape in shapes)
    fx, fw, fb, fdy = map(fastnn.tensor, (x, weight, bias, dy))
    tx, tw, tb, tdy = (torch.from_numpy(a).clone() for a in (x, weight, bias, dy))
    shape = {"backward_input": (batch, inputs), "backward_weight": (outputs, inputs)}.get(which, (batch, outputs))
    y, ty = fastnn.zeros(shape), torch.zeros(shape)
    return {"square": [lambda: launch.matmul(fx, fw, out=y), lambda: torch.mm(tx, tw, out=ty)],
            "forward": [lambda: launch.linear_forward(fx, fw, fb, out=y), lambda: torch.addmm(tb, tx, tw.t(), out=ty)],
            "backward_input": [lambda: launch.linear_backward_input(fdy, fw, out=y), lambda: torch.mm(tdy, tw, out=ty)],
            "backward_weight": [lambda: launch.linear_backward_weight(fdy, fx, out=y), lambda: torch.mm(tdy.t(), tx, out=ty)]}[which]


def verify(functions: Sequence[Callable[[], Any]]) -> None:
    """Raises where fastnn and PyTorch differ by more than rounding."""
    got, want = (np.asarray(function()) for function in functions)
    error = abs(got - want).max() / abs(want).max()
    assert error < 1e-5, f"fastnn and PyTorch differ by {error:.1e} of the largest element"


def in_turns(functions: Sequence[Callable[[], Any]], seconds: float) -> list[list[float]]:
    """Seconds a call of each function, sample by sample, in turns; a sample is as many calls as take about 0.2 ms."""
    start = time.perf_counter()
    functions[0]()
    calls = 1 + int(2e-4 / (time.perf_counter() - start))
    samples: list[list[float]] = [[] for _ in functions]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(samples[0]) < 7:
        for function, taken in zip(functions, samples):
            start = time.perf_counter()
            for _ in range(calls):
                function()
            taken.append((time.perf_counter() - start) / calls)
    return samples


def measure(product: Product, seconds: float) -> dict[str, float]:
    """Verify, then time: GFLOP/s of both, the ratio of median times, and that of least times (what an idle machine would show)."""
    functions = pair(product)
    verify(functions)
    ours, peer = in_turns(functions, seconds)
    median, least = (statistics.median(peer) / statistics.median(ours)), min(peer) / min(ours)
    return {"microseconds": 1e6 * statistics.median(ours), "gflops": product.flops / statistics.median(ours) / 1e9,
            "torch_gflops": product.flops / statistics.median(peer) / 1e9, "ratio": median, "ratio_of_least": least}


def set_threads(threads: int) -> None:
    """The same number for both."""
    torch.set_num_threads(threads)
    _core.set_num_threads(threads)


@pytest.mark.parametrize("product", SQUARES + LAYERS, ids=lambda product: product.name)
def test_product(benchmark: Any, request: pytest.FixtureRequest, product: Product) -> None:
    set_threads(request.config.getoption("--threads"))
    benchmark.extra_info |= measure(product, 0.2) | {"isa": _core.get_isa(), "threads": _core.get_num_threads()}
    benchmark.pedantic(pair(product)[0], rounds=5, warmup_rounds=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each product")
    parser.add_argument("--only", default="", help="products whose names contain this")
    options = parser.parse_args()
    set_threads(options.threads)
    ratios = []
    print(f"{'product':32} {'us':>10} {'GFLOP/s':>8} {'torch':>8} {'ratio':>6} {'least':>6}")
    for product in SQUARES + LAYERS:
        if options.only not in product.name:
            continue
        m = measure(product, options.seconds)
        ratios.append(m["ratio"])
        print(f"{product.name:32} {m['microseconds']:10.1f} {m['gflops']:8.1f} {m['torch_gflops']:8.1f} {m['ratio']:6.2f} "
              f"{m['ratio_of_least']:6.2f}", flush=True)
    if ratios:
        mean = math.exp(statistics.mean(map(math.log, ratios)))
        print(f"geometric mean {mean:.3f}, least {min(ratios):.2f}, {_core.get_isa()}, {options.threads} threads")


if __name__ == "__main__":
    main()
