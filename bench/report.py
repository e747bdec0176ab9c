"""Turns pytest-benchmark's JSON into the README's table, and a plot.

    python -m pytest bench/bench_*.py --benchmark-enable --benchmark-json bench.json
    python bench/report.py bench.json [--plot ratios.png]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections import defaultdict
from pathlib import Path

TITLES = {"test_product": "matrix products", "test_step": "training steps",
          "test_convolution": "convolutions, each pass", "test_op": "single operations",
          "test_layer": "layers, forward and backward", "test_network": "training steps of networks of courses",
          "test_epoch": "an epoch of scikit-learn's recipe"}


def read(path: str) -> list[dict]:
    """The benchmarks that were timed beside a peer."""
    return [b for b in json.loads(Path(path).read_text())["benchmarks"] if "ratio" in b["extra_info"]]


# What a benchmark gives, its unit, and what it is a share of.
SPEEDS = (("gflops", "GFLOP/s", "peak_gflops"), ("gigabytes_per_second", "GB/s", "copy_gigabytes_per_second"),
          ("microseconds", "us", None))


def speed_and_share(info: dict) -> tuple[str, str]:
    """How fast, and the share of what the machine can do: of multiply-adds or bandwidth, the one nearer its limit."""
    found = [(info[name] / info[most] if info.get(most) else 0.0, f"{info[name]:.0f} {unit}")
             for name, unit, most in SPEEDS if name in info]
    share, speed = max(found, key=lambda pair: pair[0], default=(0.0, ""))
    return speed, f"{share:.0%}" if share else ""


def table(benchmarks: list[dict]) -> str:
    """A Markdown table: ratio of times, speed, conditions; and a line for each group's geometric mean."""
    lines = ["| benchmark | peer's time / fastnn's | speed | share of peak | instruction set, threads |",
             "|---|---|---|---|---|"]
    groups = defaultdict(list)
    for benchmark in benchmarks:
        info = benchmark["extra_info"]
        test, _, case = benchmark["name"].partition("[")
        title = TITLES.get(test, test)
        groups[title].append(info["ratio"])
        label = f"{title}: {case.rstrip(']')}" if case else title
        speed, share = speed_and_share(info)
        lines.append(f"| {label} | {info['ratio']:.2f} | {speed} | {share} | {info['isa']}, {info['threads']} |")
    lines.append("")
    for title, ratios in groups.items():
        mean = math.exp(statistics.mean(map(math.log, ratios)))
        lines.append(f"Geometric mean over {title}: {mean:.2f} (least {min(ratios):.2f}, most {max(ratios):.2f}, "
                     f"{len(ratios)} cases).")
    lines += ["", "The peer is PyTorch, for scikit-learn's recipe scikit-learn. The share is that of the machine's "
              "measured multiply-adds or, for operations bound by memory, of its copy bandwidth (fastnn.testing.peak)."]
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
    axes.set_xlabel("peer's time / fastnn's (log scale; right of the line fastnn is faster)")
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
