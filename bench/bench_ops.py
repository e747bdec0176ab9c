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
from peak import copy_bandwidth  # noqa: E402
from timing import conditions, in_turns, use_threads  # noqa: E402

import fastnn  # noqa: E402
from fastnn.testing import check_forward, specs  # noqa: E402

torch = pytest.importorskip("torch")
CASES = [pytest.param(spec, sample, id=f"{spec.name}-{k}") for spec in specs().values() if spec.benchmarks
         for k, sample in enumerate(spec.benchmarks(np.random.default_rng(0)))]


@pytest.mark.parametrize("spec, sample", CASES)
def test_op(benchmark: Any, request: pytest.FixtureRequest, spec: Any, sample: Any) -> None:
    threads = request.config.getoption("--threads")
    use_threads(threads)
    check_forward(spec, sample, "float32")
    arrays = [a.astype(np.float32) if isinstance(a, np.ndarray) and a.dtype == np.float64 else a for a in sample.inputs]
    ours = [fastnn.tensor(a) if isinstance(a, np.ndarray) else a for a in arrays]
    functions = [lambda: spec.function(*ours, **sample.options)]
    peer = getattr(torch.nn.functional, spec.peer or spec.name, None) or getattr(torch, spec.peer or spec.name, None)
    if peer is not None and not sample.options:
        theirs = [torch.from_numpy(a) if isinstance(a, np.ndarray) else a for a in arrays]
        functions.append(lambda: peer(*theirs))
    turns = in_turns(functions, 0.3)
    shapes = [np.shape(a) for a in arrays]
    benchmark.extra_info |= conditions()
    if len(functions) > 1:
        benchmark.extra_info["ratio"] = turns.ratio
    if spec.flops:
        benchmark.extra_info["gflops"] = spec.flops(*shapes, **sample.options) / turns.seconds[0] / 1e9
    if spec.bytes:
        size = spec.bytes(*shapes, **sample.options)
        benchmark.extra_info["gigabytes_per_second"] = size / turns.seconds[0] / 1e9
        benchmark.extra_info["copy_gigabytes_per_second"] = copy_bandwidth(size, threads)
    benchmark.pedantic(functions[0], rounds=5, warmup_rounds=1)
