"""The operations of the OpSpec list that name a realistic size: verified by their reference, then timed beside PyTorch.

    python -m pytest bench/bench_ops.py --benchmark-enable [--threads 2] [--benchmark-json FILE]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from timing import conditions, copy_bandwidth, in_turns, use_threads  # noqa: E402

from fastnn.testing import check_forward, specs  # noqa: E402
from fastnn.testing.cases import operation  # noqa: E402

torch = pytest.importorskip("torch")
CASES = [pytest.param(spec, sample, id=f"{spec.name}-{k}") for spec in specs().values() if spec.benchmarks
         for k, sample in enumerate(spec.benchmarks(np.random.default_rng(0)))]


@pytest.mark.parametrize("spec, sample", CASES)
def test_op(benchmark: Any, request: pytest.FixtureRequest, spec: Any, sample: Any) -> None:
    threads = request.config.getoption("--threads")
    use_threads(threads)
    check_forward(spec, sample, "float32")
    case = operation(spec, sample)
    functions = [case.ours, *case.peers(torch)]
    turns = in_turns(functions, 0.3)
    benchmark.extra_info |= conditions()
    if len(functions) > 1:
        benchmark.extra_info["ratio"] = turns.ratio
    if case.flops:
        benchmark.extra_info["gflops"] = case.flops / turns.seconds[0] / 1e9
    if case.bytes:
        benchmark.extra_info["gigabytes_per_second"] = case.bytes / turns.seconds[0] / 1e9
        benchmark.extra_info["copy_gigabytes_per_second"] = copy_bandwidth(int(case.bytes), threads)
    benchmark.pedantic(functions[0], rounds=5, warmup_rounds=1)
