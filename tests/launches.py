"""The launches that the OpSpec list leads to: what each op is really called with. Used by the fuzzer and the registry's test."""

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


class _Recorder:
    """Stands in for an op, notes every call and passes it on."""

    def __init__(self, op, log):
        self._op, self._log = op, log

    def __getattr__(self, name):
        return getattr(self._op, name)

    def __call__(self, *inputs, out=None, **attributes):
        described = [(t.shape, t.dtype.name) if isinstance(t, TensorBase) else None for t in inputs]
        given = (out.shape, out.dtype.name) if isinstance(out, TensorBase) else None
        self._log.append(Launch(self._op.name, described, attributes, given))
        return self._op(*inputs, out=out, **attributes)


def recorded(action) -> list[Launch]:
    """What `action()` launches."""
    log: list[Launch] = []
    originals = dict(vars(launch))
    for name, op in originals.items():
        setattr(launch, name, _Recorder(op, log))
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


def of_specs() -> dict[str, list[Launch]]:
    """Distinct launches by op, over all specs."""
    found: dict[str, dict[str, Launch]] = {}
    for spec in testing.specs().values():
        for call in recorded(lambda spec=spec: _run(spec)):
            found.setdefault(call.op, {})[repr(call)] = call
    return {op: list(calls.values()) for op, calls in found.items()}
