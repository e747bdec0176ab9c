"""Turns pytest-benchmark's JSON into the README's table, and a plot.

    python -m pytest bench/bench_gemm.py bench/bench_steps.py bench/bench_conv.py --benchmark-enable --benchmark-json bench.json
    python bench/report.py bench.json [--plot ratios.png]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections import defaultdict
from pathlib import Path

TITLES = {"test_product": "matrix products", "test_step": "training steps", "test_convolution": "convolutions, each pass",
          "test_op": "single operations"}


def read(path: str) -> list[dict]:
    """The benchmarks that were timed beside a peer."""
    return [b for b in json.loads(Path(path).read_text())["benchmarks"] if "ratio" in b["extra_info"]]


def table(benchmarks: list[dict]) -> str:
    """A Markdown table: ratio of times, speed, conditions; and a line for each group's geometric mean."""
    lines = ["| benchmark | PyTorch's time / fastnn's | speed | instruction set, threads |", "|---|---|---|---|"]
    groups = defaultdict(list)
    for benchmark in benchmarks:
        info = benchmark["extra_info"]
        speed = f"{info['gflops']:.0f} GFLOP/s" if "gflops" in info else f"{info['microseconds']:.0f} us" if "microseconds" in info else ""
        title, _, case = benchmark["name"].partition("[")
        groups[TITLES.get(title, title)].append(info["ratio"])
        lines.append(f"| {TITLES.get(title, title)}: {case.rstrip(']')} | {info['ratio']:.2f} | {speed} | {info['isa']}, {info['threads']} |")
    lines.append("")
    for title, ratios in groups.items():
        mean = math.exp(statistics.mean(map(math.log, ratios)))
        lines.append(f"Geometric mean over {title}: {mean:.2f} (least {min(ratios):.2f}, most {max(ratios):.2f}, {len(ratios)} cases).")
    return "\n".join(lines)


def plot(benchmarks: list[dict], path: str) -> None:
    """A bar for each benchmark: how many times as fast as the peer."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [b["name"].removeprefix("test_") for b in benchmarks]
    ratios = [b["extra_info"]["ratio"] for b in benchmarks]
    figure, axes = pyplot.subplots(figsize=(8, 0.22 * len(names) + 1.5), layout="constrained")
    axes.barh(names, ratios, color=["#2a7f62" if r >= 1 else "#c1666b" for r in ratios])
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("PyTorch's time / fastnn's (log scale; right of the line fastnn is faster)")
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=7)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", help="what --benchmark-json wrote")
    parser.add_argument("--plot", metavar="PNG", help="draw the ratios too")
    options = parser.parse_args()
    benchmarks = read(options.json)
    print(table(benchmarks))
    if options.plot:
        plot(benchmarks, options.plot)


if __name__ == "__main__":
    main()
