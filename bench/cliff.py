"""A training step on several threads beside one: where two threads are slower, small networks fall off a cliff.

    python bench/cliff.py [--threads 2] [--widths 8,64]
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

import fastnn
import fastnn.functional as F
from fastnn import models, optim

BATCH, ROUNDS = 128, 9


def program(width: int) -> fastnn.program.CapturedProgram:
    """A captured step of a network 10-width-width-10 with Adam."""
    model = models.build("mlp", sizes=(10, width, width, 10))
    optimizer = optim.Adam(model.parameters())

    def step(x: fastnn.Tensor, y: fastnn.Tensor) -> fastnn.Tensor:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return fastnn.capture(step)


def seconds(width: int, threads: int, rounds: int = ROUNDS) -> tuple[float, float]:
    """Median seconds of a step on one thread and on `threads`, in turns; each turn captures anew.

    Parameters
    ----------
    width : int
        Of the hidden layers.
    threads : int
        To compare one thread with.
    rounds : int
        Turns each.

    Returns
    -------
    one, all : float
    """
    rng = np.random.default_rng(0)
    x, y = fastnn.tensor(rng.standard_normal((BATCH, 10), dtype=np.float32)), fastnn.tensor(rng.integers(0, 10, BATCH))
    step = program(width)
    taken: dict[int, list[float]] = {1: [], threads: []}
    for _ in range(rounds):
        for count, samples in taken.items():
            with fastnn.num_threads(count):
                for _ in range(4):  # recorded, and the threads awake
                    step(x, y)
                times = []
                for _ in range(30):
                    start = time.perf_counter()
                    step(x, y)
                    times.append(time.perf_counter() - start)
                samples.append(statistics.median(times))
    return statistics.median(taken[1]), statistics.median(taken[threads])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--widths", default="8,16,32,45,46,64,96,128,192,256,384,512")
    options = parser.parse_args()
    for width in map(int, options.widths.split(",")):
        one, all_ = seconds(width, options.threads)
        print(f"width {width:4d}: {1e6 * one:8.1f} us on one thread, {1e6 * all_:8.1f} us on {options.threads}, "
              f"{one / all_:.2f} times as fast", flush=True)


if __name__ == "__main__":
    main()
