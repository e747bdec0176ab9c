"""Convolutions beside PyTorch: every pass of every layer of shapes.py, verified, then timed in turns.

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

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from shapes import CONVOLUTIONS, Conv  # noqa: E402
from timing import conditions, in_turns, use_threads  # noqa: E402

import fastnn  # noqa: E402
from fastnn import _core  # noqa: E402
from fastnn._core import launch  # noqa: E402

torch = pytest.importorskip("torch")
PASSES = ("forward", "backward_input", "backward_weight")


def batch_of(network: str) -> int:
    """Images in a batch."""
    return 64 if network == "lenet5" else 16


def channels_last(array: np.ndarray) -> Any:
    """A fastnn tensor of `array` (N, C, H, W) in N, H, W, C order."""
    return fastnn.tensor(np.ascontiguousarray(array.transpose(0, 2, 3, 1))).permute(0, 3, 1, 2)


def ours_and_peers(layer: Conv, batch: int, which: str) -> list[Callable[[], Any]]:
    """Functions that compute one pass: fastnn, PyTorch contiguous, PyTorch channels-last."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, layer.channels, layer.size, layer.size), dtype=np.float32)
    shape = (layer.filters, layer.channels // layer.groups, layer.kernel, layer.kernel)
    weight = rng.standard_normal(shape, dtype=np.float32)
    dy = rng.standard_normal((batch, layer.filters, layer.out_size, layer.out_size), dtype=np.float32)
    options = {"stride": (layer.stride,) * 2, "padding": (layer.padding,) * 4, "dilation": (1, 1),
               "groups": layer.groups}
    fx, fweight, fdy = channels_last(x), fastnn.tensor(weight), channels_last(dy)
    functions = [{"forward": lambda: launch.conv2d_forward(fx, fweight, None, **options),
                  "backward_input": lambda: launch.conv2d_backward_input(fdy, fweight, input=x.shape[2:], **options),
                  "backward_weight": lambda: launch.conv2d_backward_weight(fdy, fx, kernel=shape[2:], **options)
                  }[which]]
    for layout in (torch.contiguous_format, torch.channels_last):
        tx, tweight, tdy = (torch.from_numpy(a).contiguous(memory_format=layout) for a in (x, weight, dy))
        pair = (layer.stride,) * 2, (layer.padding,) * 2, (1, 1)

        def forward(tx=tx, tweight=tweight):
            return torch.conv2d(tx, tweight, None, layer.stride, layer.padding, 1, layer.groups)

        def backward(tx=tx, tweight=tweight, tdy=tdy):
            mask = (which == "backward_input", which == "backward_weight", False)
            options = (None, *pair, False, (0, 0), layer.groups, mask)
            return torch.ops.aten.convolution_backward(tdy, tx, tweight, *options)[mask.index(True)]

        functions.append(forward if which == "forward" else backward)
    return functions


def verify(functions: Sequence[Callable[[], Any]]) -> None:
    """Raises where fastnn and PyTorch differ by more than rounding."""
    with torch.no_grad():
        got, want = functions[0]().numpy(), functions[2]().numpy()
    error = abs(got - want).max() / abs(want).max()
    assert error < 1e-4, f"fastnn and PyTorch differ by {error:.1e} of the largest element"


def measure(network: str, layer: Conv, which: str, seconds: float) -> dict[str, float]:
    """Verify one pass, then time it: GFLOP/s of both and the ratio of times."""
    functions = ours_and_peers(layer, batch_of(network), which)
    verify(functions)
    with torch.no_grad():
        turns = in_turns(functions, seconds)
    ours, peer = turns.seconds[0], min(turns.seconds[1:])
    gflop = layer.flops(batch_of(network)) / 1e9
    return {"milliseconds": 1e3 * ours, "gflops": gflop / ours, "torch_gflops": gflop / peer, "ratio": turns.ratio,
            **conditions()}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One benchmark for each pass of each layer of the networks asked for."""
    networks = metafunc.config.getoption("--networks").split(",")
    cases = [(n, layer, which) for n in networks for layer in CONVOLUTIONS[n] for which in PASSES]
    metafunc.parametrize("network, layer, which", cases, ids=[f"{n}.{layer.name}-{which}" for n, layer, which in cases])


def test_convolution(benchmark: Any, request: pytest.FixtureRequest, network: str, layer: Conv, which: str) -> None:
    use_threads(request.config.getoption("--threads"))
    benchmark.extra_info |= measure(network, layer, which, 0.2)
    benchmark.pedantic(ours_and_peers(layer, batch_of(network), which)[0], rounds=5, warmup_rounds=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", help="names in shapes.py, separated by commas")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.2, help="for each pass of each layer")
    parser.add_argument("--passes", default=",".join(PASSES))
    options = parser.parse_args()
    use_threads(options.threads)
    ratios = []
    print(f"{'layer':32} {'pass':16} {'ms':>9} {'GFLOP/s':>8} {'torch':>8} {'ratio':>6}")
    for network in options.networks.split(","):
        for layer in CONVOLUTIONS[network]:
            for which in options.passes.split(","):
                m = measure(network, layer, which, options.seconds)
                ratios.append(m["ratio"])
                print(f"{network + '.' + layer.name:32} {which:16} {m['milliseconds']:9.3f} {m['gflops']:8.1f} "
                      f"{m['torch_gflops']:8.1f} {m['ratio']:6.2f}", flush=True)
    mean = math.exp(statistics.mean(map(math.log, ratios)))
    print(f"geometric mean {mean:.3f}, least {min(ratios):.2f}, {_core.get_isa()}, {options.threads} threads")


if __name__ == "__main__":
    main()
