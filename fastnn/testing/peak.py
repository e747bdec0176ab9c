"""What this machine can do at best: fused multiply-adds in registers, and copying memory. Reports give shares of it.

    python -m fastnn.testing.peak [--threads 2]

The multiply-adds run in a small C program, compiled for this very CPU: as many independent chains of the widest vectors
as hide their latency, on every thread, without memory.
"""

from __future__ import annotations

import argparse
import functools
import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .. import _core
from .._core import launch
from ..ops.create import zeros
from ..random import rand
from ..threads import num_threads

PROGRAM = r"""
#include <omp.h>
#include <stdio.h>
#ifdef __AVX512F__
enum { BYTES = 64 };
#elif defined __AVX__
enum { BYTES = 32 };
#else
enum { BYTES = 16 };
#endif
enum { CHAINS = 12, ROUNDS = 1000000, REPEATS = 15 }; /* 12: latency 4 to 5, two a cycle, within 16 registers */
typedef float vec __attribute__((vector_size(BYTES)));

static vec chains(float start) {
    vec c[CHAINS], a = (vec){0} + 0.999f, b = (vec){0} + start;
#pragma GCC unroll 12
    for (int k = 0; k < CHAINS; k++) c[k] = b * (float)k;
    for (int i = 0; i < ROUNDS; i++)
#pragma GCC unroll 12
        for (int k = 0; k < CHAINS; k++) {
            c[k] = c[k] * a + b;
            __asm__("" : "+x"(c[k])); /* each one for itself, and none left out */
        }
#pragma GCC unroll 12
    for (int k = 1; k < CHAINS; k++) c[0] += c[k];
    return c[0];
}

int main(void) {
    double best = 1e30, flop = 2.0 * ROUNDS * CHAINS * (BYTES / 4) * omp_get_max_threads();
    float sum = 0;
    for (int repeat = 0; repeat < REPEATS; repeat++) {
        double start = omp_get_wtime();
#pragma omp parallel reduction(+ : sum)
        sum += chains(1e-3f * (float)repeat)[0];
        double taken = omp_get_wtime() - start;
        if (taken < best) best = taken;
    }
    printf("%g %g\n", flop / best / 1e9, (double)sum);
    return 0;
}
"""


@functools.cache
def gflops(threads: int) -> float | None:
    """Most float32 operations a second, in 1e9; None without a compiler to measure it with.

    Parameters
    ----------
    threads : int
        How many.

    Returns
    -------
    float or None
    """
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder, "peak"))
        Path(folder, "peak.c").write_text(PROGRAM)
        compiler = shlex.split(os.environ.get("CC", "cc"))
        flags = ["-O2", "-march=native", "-mprefer-vector-width=512", "-ffp-contract=fast", "-fopenmp"]
        try:
            subprocess.run([*compiler, *flags, program + ".c", "-o", program], check=True, capture_output=True)
            done = subprocess.run([program], check=True, capture_output=True, text=True,
                                  env={**os.environ, "OMP_NUM_THREADS": str(threads)})
        except (OSError, subprocess.CalledProcessError):
            return None
    return float(done.stdout.split()[0])


@functools.cache
def copy_bandwidth(nbytes: int, threads: int) -> float:
    """1e9 bytes a second read and written by the faster of memcpy and our copy.

    Parameters
    ----------
    nbytes : int
        In all.
    threads : int
        For our copy.

    Returns
    -------
    float
    """
    best = float("inf")
    with num_threads(threads):
        ways = copies(nbytes)
        for _ in range(15):
            for copy in ways:
                start = time.perf_counter()
                copy()
                best = min(best, time.perf_counter() - start)
    return max(nbytes, 8) / best / 1e9


def copies(nbytes: int) -> list[Callable[[], Any]]:
    """Two ways of copying on as many threads as are set: memcpy, and fastnn's, which may pass the caches by.

    Parameters
    ----------
    nbytes : int
        Read and written in all.

    Returns
    -------
    list of callable
    """
    n = max(nbytes // 8, 1)
    source, target = rand(n), zeros(n)
    from_, to = source.numpy(), target.numpy()
    return [lambda: np.copyto(to, from_), lambda: launch.copy(source, dtype=-1, out=target)]


def main() -> None:
    """Prints both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=_core.get_num_threads())
    threads = parser.parse_args().threads
    best = gflops(threads)
    print(f"{threads} threads: {'no compiler' if best is None else f'{best:.0f} GFLOP/s'}")
    for size in (1 << 20, 1 << 24, 1 << 28):
        print(f"copying, {size >> 20} MiB read and written: {copy_bandwidth(size, threads):.1f} GB/s")


if __name__ == "__main__":
    main()
