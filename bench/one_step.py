"""One library's training step in a process of its own: peak memory, and the time outside of products and convolutions.

    python bench/one_step.py fastnn|torch resnet18|vgg16 [--batch 4] [--threads 2]

Prints JSON. Memory is the most that is resident above the level after import and data (Linux). What a fused elementwise
launch takes within a product or convolution counts with that one.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

PRODUCTS = ("linear", "matmul", "conv2d", "attention")
TORCH_PRODUCTS = ("convolution", "addmm", "aten::mm", "aten::bmm", "aten::linear")
STEPS = 3


def resident(name: str) -> int:
    """Bytes resident now ("VmRSS") or at most ("VmHWM")."""
    return 1024 * int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def measured(build: Callable[[], Callable[[], Any]]) -> tuple[Callable[[], Any], dict[str, float]]:
    """The step, its peak memory over the first few, and the median seconds of a later one."""
    level = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    step = build()
    for _ in range(STEPS):
        step()
    peak, times = resident("VmHWM") - level, []
    for _ in range(STEPS):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return step, {"peak_bytes": peak, "step_seconds": float(np.median(times))}


def of_fastnn(name: str, config: dict, x: np.ndarray, y: np.ndarray, threads: int) -> dict[str, float]:
    """fastnn's figures."""
    import fastnn
    from fastnn import models, optim

    fastnn.set_num_threads(threads)
    inputs = fastnn.from_numpy(x), fastnn.from_numpy(y)
    programs = []

    def build() -> Callable[[], Any]:
        model = models.build(name, **config)
        optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

        def step(x: Any, y: Any) -> Any:
            loss = fastnn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss

        programs.append(fastnn.capture(step))
        return lambda: programs[0](*inputs)

    _, figures = measured(build)
    launches = fastnn.profile(programs[0], *inputs).launches
    outside = sum(one.seconds for one in launches if not one.name.startswith(PRODUCTS))
    return {**figures, "outside_seconds": outside}


def of_torch(name: str, config: dict, x: np.ndarray, y: np.ndarray, threads: int) -> dict[str, float]:
    """PyTorch's figures: eager, channels-last."""
    import peers
    import torch

    torch.set_num_threads(threads)
    tx, ty = torch.from_numpy(x).contiguous(memory_format=torch.channels_last), torch.from_numpy(y)

    def build() -> Callable[[], Any]:
        model = peers.build(name, **config).to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

        def step() -> Any:
            loss = torch.nn.functional.cross_entropy(model(tx), ty)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss

        return step

    step, figures = measured(build)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for _ in range(STEPS):
            step()
    outside = sum(event.self_cpu_time_total for event in profiler.key_averages()
                  if event.key.startswith("aten::") and not any(part in event.key for part in TORCH_PRODUCTS))
    return {**figures, "outside_seconds": outside / STEPS / 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", choices=["fastnn", "torch"])
    parser.add_argument("network", choices=["resnet18", "vgg16"])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((options.batch, 3, 224, 224), dtype=np.float32)
    y = rng.integers(0, 1000, options.batch)
    config = {"dropout": 0.0} if options.network == "vgg16" else {}
    figures = (of_fastnn if options.library == "fastnn" else of_torch)(options.network, config, x, y, options.threads)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
