"""What opening a parallel region costs, and a loop in a team already awake: the figures of parallel.c's thresholds.

    python bench/threads.py [--threads 2]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import fastnn
from fastnn import _core
from fastnn._core import launch

ELEMENTS = 2 * 16384  # two chunks: the least that a region is opened for
CALLS = 200


def microseconds(function: Callable[[], object]) -> float:
    """Least time of a call over many repetitions."""
    best = float("inf")
    for _ in range(50):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return 1e6 * best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    x, y = fastnn.zeros(ELEMENTS), fastnn.zeros(ELEMENTS)

    def many(data: fastnn.Tensor) -> None:
        for _ in range(CALLS):
            launch.add(data, data, out=y)

    results = {}
    for name, threads, policy in (("one thread", 1, "auto"), (f"{options.threads} threads", options.threads, "force")):
        _core.set_num_threads(threads)
        _core.set_thread_policy(policy)
        program = fastnn.capture(many)
        for _ in range(3):
            program(x)
        results[name] = microseconds(lambda: many(x)) / CALLS, microseconds(lambda: program(x)) / CALLS
    (eager_one, replay_one), (eager, replay) = results.values()
    print(f"region: {eager - eager_one / options.threads:.2f} us a loop, "
          f"awake team: {replay - replay_one / options.threads:.2f} us a loop "
          f"({options.threads} threads; loops of {ELEMENTS} additions take {replay_one:.2f} us on one)")


if __name__ == "__main__":
    main()
