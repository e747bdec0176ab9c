"""Convolutions beside PyTorch: every pass of every layer of fastnn.testing.shapes, verified, then timed in turns.

    python -m pytest bench/bench_conv.py --networks lenet5,vgg16,resnet18 [--threads 2] [--benchmark-enable]
    python bench/bench_conv.py lenet5,vgg16,resnet18 [--threads 2] [--seconds 0.2]      # the same as a table

PyTorch runs contiguous and channels-last; the faster counts. LeNet-5 has batch 64, the others 16.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from timing import conditions, in_turns, use_threads  # noqa: E402

from fastnn import _core  # noqa: E402
from fastnn.testing.cases import PASSES, batch_of, convolution  # noqa: E402
from fastnn.testing.shapes import CONVOLUTIONS, Conv  # noqa: E402

torch = pytest.importorskip("torch")


def ours_and_peers(layer: Conv, batch: int, which: str) -> tuple[list[Callable[[], Any]], str]:
    """Functions that compute one pass: fastnn, PyTorch contiguous, PyTorch channels-last; which way fastnn goes."""
    case = convolution(layer, batch, which)
    return [case.ours, *case.peers(torch)], case.algorithm


def verify(functions: Sequence[Callable[[], Any]]) -> None:
    """Raises where fastnn and PyTorch differ by more than rounding."""
    with torch.no_grad():
        got, want = functions[0]().numpy(), functions[2]().numpy()
    error = abs(got - want).max() / abs(want).max()
    assert error < 1e-4, f"fastnn and PyTorch differ by {error:.1e} of the largest element"


def measure(network: str, layer: Conv, which: str, seconds: float) -> dict[str, Any]:
    """Verify one pass, then time it: GFLOP/s of both and the ratio of times."""
    functions, way = ours_and_peers(layer, batch_of(network), which)
    verify(functions)
    with torch.no_grad():
        turns = in_turns(functions, seconds)
    ours, peer = turns.seconds[0], min(turns.seconds[1:])
    gflop = layer.flops(batch_of(network)) / 1e9
    return {"milliseconds": 1e3 * ours, "gflops": gflop / ours, "torch_gflops": gflop / peer, "ratio": turns.ratio,
            "algorithm": way, **conditions()}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One benchmark for each pass of each layer of the networks asked for."""
    networks = metafunc.config.getoption("--networks").split(",")
    cases = [(n, layer, which) for n in networks for layer in CONVOLUTIONS[n] for which in PASSES]
    metafunc.parametrize("network, layer, which", cases, ids=[f"{n}.{layer.name}-{which}" for n, layer, which in cases])


def test_convolution(benchmark: Any, request: pytest.FixtureRequest, network: str, layer: Conv, which: str) -> None:
    use_threads(request.config.getoption("--threads"))
    benchmark.extra_info |= measure(network, layer, which, 0.2)
    benchmark.pedantic(ours_and_peers(layer, batch_of(network), which)[0][0], rounds=5, warmup_rounds=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", help="names in fastnn.testing.shapes, separated by commas")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.2, help="for each pass of each layer")
    parser.add_argument("--passes", default=",".join(PASSES))
    parser.add_argument("--only", default="", help="layers whose name contains this")
    options = parser.parse_args()
    unknown = set(options.networks.split(",")) - set(CONVOLUTIONS)
    if unknown:
        parser.error(f"networks must be among {', '.join(CONVOLUTIONS)}, got {', '.join(sorted(unknown))}")
    use_threads(options.threads)
    ratios = []
    print(f"{'layer':32} {'pass':16} {'ms':>9} {'GFLOP/s':>8} {'torch':>8} {'ratio':>6} way")
    for network in options.networks.split(","):
        for layer in CONVOLUTIONS[network]:
            if options.only not in layer.name:
                continue
            for which in options.passes.split(","):
                m = measure(network, layer, which, options.seconds)
                ratios.append(m["ratio"])
                print(f"{network + '.' + layer.name:32} {which:16} {m['milliseconds']:9.3f} {m['gflops']:8.1f} "
                      f"{m['torch_gflops']:8.1f} {m['ratio']:6.2f} {m['algorithm']}", flush=True)
    if not ratios:
        parser.error(f"no layer's name contains {options.only!r}")
    mean = math.exp(statistics.mean(map(math.log, ratios)))
    print(f"geometric mean {mean:.3f}, least {min(ratios):.2f}, {_core.get_isa()}, {options.threads} threads")


if __name__ == "__main__":
    main()
