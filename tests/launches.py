"""The launches that the OpSpec list leads to: what each op is called with. For the fuzzer and the registry's test."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from fastnn import testing
from fastnn._core import TensorBase, launch
from fastnn.testing import checks


@dataclass
class Launch:
    """One call of one op: per input its (shape, dtype) or None, and the attributes."""

    op: str
    inputs: list
    attributes: dict
    given_output: tuple | None  # (shape, dtype), when the caller gave one


class Recorder:
    """Stands in for an op, notes every call and passes it on."""

    def __init__(self, op, log):
        self.op, self.log = op, log

    def __getattr__(self, name):
        return getattr(self.op, name)

    def __call__(self, *inputs, out=None, **attributes):
        described = [(t.shape, t.dtype.name) if isinstance(t, TensorBase) else None for t in inputs]
        given = (out.shape, out.dtype.name) if isinstance(out, TensorBase) else None
        self.log.append(Launch(self.op.name, described, attributes, given))
        return self.op(*inputs, out=out, **attributes)


def recorded(action, recorder=Recorder) -> list:
    """What `action()` launches, as `recorder` notes it."""
    log: list = []
    originals = dict(vars(launch))
    for name, op in originals.items():
        setattr(launch, name, recorder(op, log))
    try:
        action()
    finally:
        for name, op in originals.items():
            setattr(launch, name, op)
    return log


def _run(spec) -> None:
    """The operation on its samples, forward and backward, in float32."""
    for sample in spec.samples(np.random.default_rng(zlib.crc32(spec.name.encode()))):
        checks._everything(spec, sample)


def _real(*shapes, dtype="float32"):
    return [(shape, dtype) for shape in shapes]


_GENERATOR, _SCALAR = ((2,), "int64"), ((), "float64")
_UPDATE = {"weight_decay": 0.1, "decoupled": 0.0, "maximize": 0.0}

# Ops that no operation with a reference leads to (in-place updates, random numbers, indices), and the file that tests
# each.
TESTED_BY_NAME = {
    "sgd_step": ("test_optim.py", [*_real((3, 40), (3, 40)), _SCALAR], _UPDATE),
    "sgd_momentum_step": ("test_optim.py", [*_real((3, 40), (3, 40), (3, 40)), _SCALAR, _SCALAR],
                          {"dampening": 0.0, "nesterov": 1.0, "first": 0.0, **_UPDATE}),
    "adam_step": ("test_optim.py", [*_real((3, 40), (3, 40), (3, 40), (3, 40)), _SCALAR, _SCALAR, _SCALAR],
                  {"beta2": 0.999, "eps": 1e-8, "epsilon_hat": 0.0, **_UPDATE}),
    "running_update": ("test_norm.py", [*_real((7,), (7,)), _SCALAR], {"scale": 1.0}),
    "uniform": ("test_random.py", [_GENERATOR], {"low": 0.0, "high": 1.0, "ordinal": 0}),
    "normal": ("test_random.py", [_GENERATOR], {"mean": 0.0, "std": 1.0, "ordinal": 0}),
    "randperm": ("test_random.py", [_GENERATOR], {"ordinal": 0}),
    "ramp": ("test_create.py", [], {"start": 0.5, "step": 0.25, "first": 0, "by": 0}),
    "max_pool2d_indices": ("test_pool.py", [((2, 3, 4, 5), "int32")],
                           {"input": (8, 10), "kernel": (2, 2), "stride": (2, 2), "padding": (0, 0),
                            "dilation": (1, 1), "ceil_mode": 0}),
}
_WRITES_INTO = {"uniform": ((3, 40), "float32"), "normal": ((3, 40), "float32"), "randperm": ((50,), "int64"),
                "ramp": ((50,), "float32")}


def by_name() -> dict[str, list[Launch]]:
    """Launches of the ops in `TESTED_BY_NAME`."""
    return {op: [Launch(op, inputs, attributes, _WRITES_INTO.get(op))]
            for op, (_, inputs, attributes) in TESTED_BY_NAME.items()}


def of_specs() -> dict[str, list[Launch]]:
    """Distinct launches by op, over all specs."""
    found: dict[str, dict[str, Launch]] = {}
    for spec in testing.specs().values():
        for call in recorded(lambda spec=spec: _run(spec)):
            found.setdefault(call.op, {})[repr(call)] = call
    return {op: list(calls.values()) for op, calls in found.items()}
