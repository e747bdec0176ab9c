"""Calls every op with arguments wrong in random ways. Run as a program, so that a crash ends only this process.

    python tests/hostile.py LOG [CALLS_PER_OP [SEED [OP ...]]]

Before each call its description goes to LOG: after a crash its last line says what did it. A call may succeed or raise;
it must not crash, hang, change its inputs or write outside its outputs.
"""

import dataclasses
import os
import sys
import zlib

import launches
import numpy as np

import fastnn
from fastnn._core import DTYPE_NAMES, launch

ALLOWED = (TypeError, ValueError, IndexError, MemoryError, OverflowError, RuntimeError)
INTEGERS = (-(2**63), -(2**33), -(2**31), -7, -2, -1, 0, 1, 2, 3, 5, 17, 2**31 - 1, 2**31, 2**33, 2**62, 2**63 - 1)
NOT_NUMBERS = (None, "2", (), (1, 2, 3), 1.5, 2**70)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-300, 1e300, float("inf"), float("-inf"), float("nan"))
EXTENTS = (0, 1, 2, 3, 5, 8, 17)
GUARD = 64  # elements on either side of an output
MEMORY = 2 << 30  # bytes: what a call may ask for at most, whatever the machine has


class Hostile:
    """Makes wrong calls from right ones."""

    def __init__(self, rng):
        self.rng = rng

    def one_of(self, choices):
        return choices[self.rng.integers(len(choices))]

    def chance(self, p):
        return self.rng.random() < p

    def array(self, shape, dtype):
        if dtype in ("float32", "float64"):
            a = self.rng.standard_normal(shape)
            if a.size and self.chance(0.2):
                a.reshape(-1)[self.rng.integers(a.size)] = self.one_of(FLOATS)
        elif dtype == "bool":
            a = self.rng.random(shape) < 0.5
        else:
            info = np.iinfo(dtype)
            a = self.rng.integers(0, 4, shape)
            if self.chance(0.5):
                a = self.rng.choice(np.array([n for n in INTEGERS if info.min <= n <= info.max]), shape)
        with np.errstate(over="ignore"):
            return np.asarray(a).astype(dtype)

    def other_shape(self, shape):
        shape = list(shape)
        kind = self.rng.integers(6)
        if kind == 0 and shape:
            shape[self.rng.integers(len(shape))] = self.one_of(EXTENTS)
        elif kind == 1 and shape:
            del shape[self.rng.integers(len(shape))]
        elif kind == 2 and len(shape) < 8:
            shape.insert(self.rng.integers(len(shape) + 1), self.one_of((1, 2, 3)))
        elif kind == 3 and shape:
            axis = self.rng.integers(len(shape))
            shape[axis] = max(0, shape[axis] + self.one_of((-1, 1)))
        elif kind == 4:
            self.rng.shuffle(shape)
        else:
            shape = [self.one_of(EXTENTS[:5]) for _ in range(self.rng.integers(9))]
        return tuple(shape) if np.prod(shape, dtype=float) <= 1e6 else (2,)

    def laid_out(self, array):
        """The array as a tensor with any strides."""
        kind = self.rng.integers(6) if array.ndim else 0
        if kind == 1:
            return fastnn.tensor(array[..., ::-1].copy())[..., ::-1]
        if kind == 2:
            return fastnn.tensor(np.repeat(array, 2, axis=-1))[..., ::2]
        if kind == 3:
            order = self.rng.permutation(array.ndim)
            return fastnn.tensor(np.ascontiguousarray(array.transpose(order))).permute(*np.argsort(order).tolist())
        if kind == 4 and array.size:
            axis = self.rng.integers(array.ndim)
            strides = list(fastnn.tensor(array).strides)
            strides[axis] = 0
            return fastnn.tensor(array).as_strided(array.shape, strides)
        if kind == 5:
            array = array.copy()
            array.flags.writeable = False
            return fastnn.from_numpy(array)
        return fastnn.tensor(array)

    def input(self, described, wrong):
        if described is None:
            return self.laid_out(self.array((3,), "float32")) if wrong and self.chance(0.5) else None
        shape, dtype = described
        if wrong:
            kind = self.rng.integers(5)
            if kind == 0:
                return None
            if kind == 1:
                return self.one_of((1, 2.5, "x", np.zeros(3), object()))
            if kind == 2:
                dtype = self.one_of(DTYPE_NAMES)
            if kind > 1:
                shape = self.other_shape(shape)
        return self.laid_out(self.array(shape, dtype))

    def number(self, value):
        if self.chance(0.1):
            return self.one_of(NOT_NUMBERS)
        return self.one_of(FLOATS) if isinstance(value, float) or self.chance(0.1) else self.one_of(INTEGERS)

    def attributes(self, given, wrong):
        result = dict(given)
        for name, value in given.items():
            if not wrong or self.chance(0.5):
                continue
            if isinstance(value, tuple):
                changed = list(value)
                changed[self.rng.integers(len(changed))] = self.number(value[0])
                result[name] = tuple(changed) if self.chance(0.9) else self.one_of((value[:1], (*value, 1), 3, None))
            else:
                result[name] = self.number(value)
        if wrong and self.chance(0.05):
            result["nonsense"] = 1
        return result


def tensors(value):
    return value if isinstance(value, tuple) else (value,)


def check_outputs(op, inputs, attributes, results):
    """The same call into outputs inside larger arrays: what lies around them must stay."""
    arrays = [np.full(t.numel() + 2 * GUARD, 77, t.dtype.name) for t in results]
    inner = [fastnn.from_numpy(a)[GUARD:GUARD + t.numel()].reshape(t.shape) for a, t in zip(arrays, results)]
    op(*inputs, out=inner[0] if len(inner) == 1 else tuple(inner), **attributes)
    for array in arrays:
        around = np.concatenate([array[:GUARD], array[len(array) - GUARD:]])
        assert (around == around.dtype.type(77)).all(), "wrote outside its output"


def wrong_out(hostile, op, results):
    """Outputs with other strides, or that do not fit."""
    outs = [hostile.input((t.shape, t.dtype.name), hostile.chance(0.3)) for t in results]
    return outs[0] if len(outs) == 1 else tuple(outs[:hostile.one_of((1, len(outs), len(outs)))])


def emptied(hostile, call):
    """The call with one of its extents 0 wherever it stands: often right, with nothing to compute."""
    extents = sorted({n for given in (*call.inputs, call.given_output) if given for n in given[0]})
    gone = hostile.one_of(extents or [0])

    def without(given):
        return given and (tuple(0 if n == gone else n for n in given[0]), given[1])

    return dataclasses.replace(call, inputs=[without(given) for given in call.inputs],
                               given_output=without(call.given_output))


def attack(hostile, call, log):
    op = getattr(launch, call.op)
    if hostile.chance(0.2):
        call = emptied(hostile, call)
    where = hostile.rng.random(len(call.inputs)) < 0.3
    inputs = [hostile.input(described, wrong) for described, wrong in zip(call.inputs, where)]
    attributes = hostile.attributes(call.attributes, hostile.chance(0.4))
    if hostile.chance(0.05):
        inputs = inputs[:-1] if hostile.chance(0.5) else [*inputs, fastnn.zeros(2)]
    described = [f"{t.dtype}{t.shape}/{t.strides}" if isinstance(t, fastnn.Tensor) else repr(t) for t in inputs]
    out = None
    if call.given_output is not None:
        out = hostile.input(call.given_output, hostile.chance(0.5))
        described.append(f"out={out.dtype}{out.shape}/{out.strides}" if isinstance(out, fastnn.Tensor)
                         else f"out={out!r}")
    print(op.name, described, attributes, file=log, flush=True)
    before = [np.array(t) if isinstance(t, fastnn.Tensor) else None for t in inputs]
    if out is not None:
        op(*inputs, out=out, **attributes)
        return
    results = tensors(op(*inputs, **attributes))
    for name, t, old in zip(op.inputs, inputs, before):
        if isinstance(t, fastnn.Tensor) and name != "generator":
            np.testing.assert_array_equal(np.array(t), old, err_msg=f"{op.name} changed its input {name}")
    check_outputs(op, inputs, attributes, results)
    op(*inputs, out=wrong_out(hostile, op, results), **attributes)


def limit_memory():
    """Refuses memory beyond MEMORY: the extents above are valid for some ops, and filling what they ask for ends the process.

    Not under the address sanitizer, whose own map of the memory is larger than any limit.
    """
    if "libasan" not in os.environ.get("LD_PRELOAD", "") and sys.platform == "linux":
        import resource  # on Unix only

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))


def main(log_name, calls_per_op="200", seed="0", *names):
    limit_memory()
    known = {**launches.by_name(), **launches.of_specs()}
    done = raised = 0
    with open(log_name, "w") as log:
        for name in names or sorted(vars(launch)):
            hostile = Hostile(np.random.default_rng([int(seed), zlib.crc32(name.encode())]))
            for _ in range(int(calls_per_op) if name in known else 0):
                done += 1
                try:
                    attack(hostile, hostile.one_of(known[name]), log)
                except ALLOWED:
                    raised += 1
    print(f"{done} calls of {len(known)} ops: {raised} raised")


if __name__ == "__main__":
    main(*sys.argv[1:])
