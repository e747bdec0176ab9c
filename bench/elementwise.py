"""What an element costs on one thread: arithmetic in cache on every instruction set; memory, 64 MB against a copy.

The first table gives the `ns` column of csrc/ops.def (its avx2 column) and the costs in csrc/ops/random.c; the second
shows that results larger than the caches are written at copy bandwidth (csrc/kernels/stream.h). Times are of the
thread, so that other processes disturb little; the least of several runs counts.

    python bench/elementwise.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

import fastnn
from fastnn import _core
from fastnn._core import launch


def seconds(call: Callable[[], object], repeat: int) -> float:
    """Least thread time of a call."""
    call()
    best = float("inf")
    for _ in range(7):
        start = time.thread_time()
        for _ in range(repeat):
            call()
        best = min(best, (time.thread_time() - start) / repeat)
    return best


def calls(n: int) -> dict[str, tuple[Callable[[], object], int]]:
    """Launches on n elements, and the bytes of float32 data each has to move per element."""
    x, y, z, w, out = (fastnn.rand(n) for _ in range(5))
    m, v, mask = fastnn.zeros(n), fastnn.zeros(n), fastnn.full((n,), 1, dtype=fastnn.bool)
    state, order = fastnn.tensor([1, 2]), _core.empty((n,), fastnn.int64)
    lr, beta, step = (fastnn.tensor(value, fastnn.float64) for value in (1e-3, 0.9, 3.0))
    decay = {"weight_decay": 0.01, "maximize": 0}
    return {
        "relu": (lambda: launch.relu_forward(x, out=out), 8),
        "relu in place": (lambda: launch.relu_forward(out, out=out), 8),
        "add": (lambda: launch.add(x, y, out=out), 12),
        "div": (lambda: launch.div(x, y, out=out), 12),
        "sqrt": (lambda: launch.sqrt(x, out=out), 8),
        "exp": (lambda: launch.exp(x, out=out), 8),
        "log": (lambda: launch.log(x, out=out), 8),
        "pow": (lambda: launch.pow(x, y, out=out), 12),
        "sigmoid": (lambda: launch.sigmoid_forward(x, out=out), 8),
        "tanh": (lambda: launch.tanh_forward(x, out=out), 8),
        "gaussian": (lambda: launch.gaussian_forward(x, out=out), 8),
        "gelu": (lambda: launch.gelu_forward(x, out=out), 8),
        "gelu backward": (lambda: launch.gelu_backward(y, x, out=out), 12),
        "silu": (lambda: launch.silu_forward(x, out=out), 8),
        "softplus": (lambda: launch.softplus_forward(x, beta=1.0, threshold=20.0, out=out), 8),
        "less than": (lambda: launch.lt(x, y, out=mask), 9),
        "where": (lambda: launch.where(mask, x, y, out=out), 13),
        "bce forward": (lambda: launch.bce_with_logits_forward(x, y, z, out=out), 16),
        "bce backward": (lambda: launch.bce_with_logits_backward(w, x, y, z, out=out), 20),
        "sgd, momentum": (lambda: launch.sgd_momentum_step(w, y, m, lr, beta, dampening=0, nesterov=0,
                                                           decoupled=0, first=0, **decay, out=(w, m)), 20),
        "adam": (lambda: launch.adam_step(w, y, m, v, lr, beta, step, beta2=0.999, eps=1e-8, decoupled=1, epsilon_hat=0,
                                          **decay, out=(w, m, v)), 28),
        "uniform": (lambda: launch.uniform(state, low=0.0, high=1.0, ordinal=0, out=out), 4),
        "normal": (lambda: launch.normal(state, mean=0.0, std=1.0, ordinal=0, out=out), 4),
        "dropout": (lambda: launch.dropout_forward(x, state, p=0.5, scale=2.0, shift=-0.0, dropped=0.0, ordinal=0,
                                                    out=(out, mask)), 9),
        "dropout back": (lambda: launch.dropout_backward(x, mask, scale=2.0, out=out), 9),
        "randperm": (lambda: launch.randperm(state, ordinal=0, out=order), 8),
    }


def in_cache(n: int = 1 << 15) -> None:
    """Prints nanoseconds an element, operands in the second-level cache."""
    table = calls(n)
    before = _core.get_isa()
    print(f"{'ns an element':16}" + "".join(f"{isa:>9}" for isa in _core.available_isas()))
    for name, (call, _) in table.items():
        row = []
        for isa in _core.available_isas():
            _core.set_isa(isa)
            row.append(seconds(call, 5) / n * 1e9)
        print(f"{name:16}" + "".join(f"{ns:9.2f}" for ns in row), flush=True)
    _core.set_isa(before)


def in_memory(n: int = 1 << 24) -> None:
    """Prints bandwidth and its share of copy bandwidth, each measured in turn with the copies."""
    source, target = fastnn.rand(n), fastnn.zeros(n)
    from_, to = source.numpy(), target.numpy()
    print(f"\n{n * 4 >> 20} MB, {_core.get_isa()}      GB/s  share of copy")
    for name, (call, size) in calls(n).items():
        if name == "randperm":
            continue
        copy = min(seconds(lambda: np.copyto(to, from_), 1),
                   seconds(lambda: launch.copy(source, dtype=-1, out=target), 1))
        rate, copy_rate = size * n / seconds(call, 1), 8 * n / copy
        print(f"{name:16}{rate / 1e9:9.1f}{rate / copy_rate:12.0%}", flush=True)


if __name__ == "__main__":
    _core.set_num_threads(1)
    in_cache()
    in_memory()
