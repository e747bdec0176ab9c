"""The engine on AArch64, from a machine that has another architecture: built by a cross compiler, run by an emulator.

    python tests/aarch64.py        # on Debian: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user

Every launch that the OpSpec list leads to is recorded here, with its inputs, and run there through the same door, by
`aarch64.c`: at the levels neon and scalar, on one thread and on two. What is asked of the results:

- they lie within the spec's tolerance of what the same launch gives here in float64, at the scalar level, where that is
  held against the spec's own reference;
- all results of scalar kernels have the bits of scalar kernels here: the text is the same, and so is the rounding;
- elementwise results of NEON kernels have the bits of AVX2 kernels.
"""

from __future__ import annotations

import ast
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import launches
import numpy as np

import fastnn
from fastnn import _core, testing
from fastnn._core import TensorBase, launch
from fastnn.testing import checks

ROOT = Path(__file__).resolve().parent.parent
COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
PACKAGES = "gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
SCALAR_BITS, VECTOR_BITS = 1, 2
ANY_RESULT = float("nan")  # a tolerance: only the bits count
EVERYTHING_ELSE = 8  # backward, in units of the spec's tolerance: as in testing.check_gradient_float32


@dataclass
class Case:
    """One launch with its inputs (arrays or None), and how near its results have to be."""

    label: str
    op: str
    inputs: list
    attributes: dict
    given: np.ndarray | None  # what the output holds, when the caller gave one: some ops add to it
    tolerance: float
    outputs: list = field(default_factory=list)

    def key(self):
        described = [None if a is None else (a.shape, a.strides, a.dtype.str) for a in self.inputs]
        given = None if self.given is None else (self.given.shape, self.given.dtype.str)
        return repr((self.op, described, self.attributes, given))

    def largest_input(self):
        """Largest magnitude: what a sum of both signs loses goes by its terms."""
        finite = [a[np.isfinite(a)] for a in self.inputs if a is not None and a.dtype.kind == "f"]
        return max((float(np.abs(a).max()) for a in finite if a.size), default=0.0)


class _Keeper(launches.Recorder):
    """Notes calls with what their inputs hold."""

    def __call__(self, *inputs, out=None, **attributes):
        kept = [array_of(t) if isinstance(t, TensorBase) else None for t in inputs]
        given = np.array(memoryview(out.detach())) if isinstance(out, TensorBase) else None
        self.log.append(Case("", self.op.name, kept, attributes, given, 0.0))
        return self.op(*inputs, out=out, **attributes)


def bytes_of(array):
    """All bytes from an array's lowest to its highest, and where among them its first element lies."""
    if array.size == 0:
        return b"", 0
    reach = [(n - 1) * step for n, step in zip(array.shape, array.strides)]
    below, above = -sum(r for r in reach if r < 0), sum(r for r in reach if r > 0)
    return ctypes.string_at(array.ctypes.data - below, below + above + array.itemsize), below


def array_of(tensor):
    """A copy of a tensor, with its strides."""
    view = np.asarray(memoryview(tensor.detach()))
    raw, first = bytes_of(view)
    return np.ndarray(view.shape, view.dtype, raw, first, view.strides) if raw else np.array(view)


# ---- which launches ----


def cases() -> list[Case]:
    """Distinct launches over all specs and both types, forward ones with the spec's tolerance."""
    found: dict[str, Case] = {}

    def note(spec, action, tolerance):
        for case in launches.recorded(action, _Keeper):
            case.label, case.tolerance = spec.name, tolerance
            found.setdefault(case.key(), case)

    for spec in testing.specs().values():
        forward = 0.0 if spec.exact else spec.tolerance
        backward = spec.gradient_tolerance or EVERYTHING_ELSE * spec.tolerance
        for dtype in ("float32", "float64"):
            samples = list(spec.samples(np.random.default_rng(zlib.crc32(spec.name.encode()))))
            for sample in samples:
                inputs = checks._tensors(sample, dtype)
                note(spec, lambda: spec.function(*inputs, **sample.options), forward)
                note(spec, lambda: checks._everything(spec, sample, dtype), backward)
            if spec.elementwise and spec.special_values:
                note(spec, lambda: checks.check_special_values(spec, samples[0], dtype), ANY_RESULT)
            if spec.elementwise:
                note(spec, lambda: checks.check_lengths(spec, samples[0], dtype), ANY_RESULT)
    for op, calls in launches.by_name().items():
        for call in calls:
            for dtype in ("float32", "float64"):
                case = by_name(op, call, dtype)
                found.setdefault(case.key(), case)
    return list(found.values())


def by_name(op, call, dtype):
    """A launch of an op that no spec leads to."""
    rng = np.random.default_rng(5)
    inputs = []
    for name, (shape, kind) in zip(getattr(launch, op).inputs, call.inputs):
        if (shape, kind) == ((), "float64"):  # a rate or a step's number: of this type beside any
            inputs.append(np.array(3.0 if name == "step" else 0.1))
        elif kind.startswith("float"):
            inputs.append(rng.uniform(0.1, 1, shape).astype(dtype))
        else:
            inputs.append(rng.integers(0, 4, shape).astype(kind))
    given = None
    if call.given_output:
        shape, kind = call.given_output
        given = np.zeros(shape, dtype if kind.startswith("float") else kind)
    return Case("by name", op, inputs, call.attributes, given, 4.0)


# ---- what they should give ----


@contextmanager
def level(isa):
    before = _core.get_isa()
    _core.set_isa(isa)
    try:
        yield
    finally:
        _core.set_isa(before)


def run_here(case, isa, wide=False):
    """The launch's results at a level of this machine; `wide`: with float64 in float32's place."""
    def converted(array):
        return array.astype(np.float64) if wide and array.dtype == np.float32 else np.array(array)

    with level(isa), np.errstate(all="ignore"):
        inputs = [None if a is None else fastnn.tensor(converted(a)) for a in case.inputs]
        out = None if case.given is None else fastnn.tensor(converted(case.given))
        results = getattr(launch, case.op)(*inputs, out=out, **case.attributes)
    return [np.array(memoryview(t)) for t in (results if isinstance(results, tuple) else (results,))]


def is_random(op):
    return "generator" in getattr(launch, op).inputs


# ---- the file ----


class Writer:
    """Everything starts on 8 bytes: see take_case in aarch64.c."""

    def __init__(self, path):
        self.file = open(path, "wb")

    def bytes(self, data):
        self.file.write(data + bytes(-len(data) % 8))

    def integers(self, *values):
        self.bytes(np.array(values, np.int64).tobytes())

    def reals(self, *values):
        self.bytes(np.array(values, np.float64).tobytes())

    def text(self, text):
        data = text.encode() + b"\0"
        self.integers(len(data))
        self.bytes(data)

    def shape(self, array):
        strides = [step // array.itemsize if n > 1 else 1 for step, n in zip(array.strides, array.shape)]
        self.integers(_core.DTYPE_NAMES.index(array.dtype.name), array.ndim, *array.shape, *strides)

    def input(self, array):
        self.integers(array is not None)
        if array is None:
            return
        self.shape(array)
        raw, first = bytes_of(array)
        self.integers(first, len(raw))
        self.bytes(raw)

    def output(self, given, expected, scalar, vector):
        self.shape(np.array(scalar, order="C"))
        self.integers(given is not None)
        if given is not None:
            self.bytes(given.tobytes())
        real = scalar.dtype.kind == "f"
        self.integers(real)
        self.bytes(expected.astype(np.float64 if real else np.int64).tobytes())
        for bits in (scalar, vector):
            self.integers(bits is not None)
            if bits is not None:
                self.bytes(bits.tobytes())

    def case(self, case):
        op = getattr(launch, case.op)
        scalar = run_here(case, "scalar")
        expected = scalar if is_random(case.op) else run_here(case, "scalar", wide=True)
        vector = run_here(case, "avx2") if "avx2" in _core.available_isas() else [None] * len(scalar)
        self.text(case.label)
        self.text(case.op)
        self.integers(SCALAR_BITS | (VECTOR_BITS if op.elementwise else 0))
        self.reals(case.tolerance, case.largest_input())
        self.integers(len(op.attributes))
        for name in op.attributes:
            value = case.attributes[name]
            values = value if isinstance(value, (tuple, list)) else (value,)
            self.integers(len(values))
            self.reals(*values)
        self.integers(len(case.inputs))
        for array in case.inputs:
            self.input(array)
        self.integers(len(scalar))
        for arrays in zip(expected, scalar, vector):
            self.output(case.given, *arrays)


# ---- the other machine ----


def missing():
    """What is not installed here; an empty string when all is."""
    tools = [tool for tool in (COMPILER, EMULATOR) if not shutil.which(tool)]
    return f"no {' and no '.join(tools)}: on Debian, apt-get install {PACKAGES}" if tools else ""


def compile_flags():
    """setup.py's flags for all C files, and for each instruction set of AArch64."""
    names = {}
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id in ("FLAGS", "AVX512", "TARGETS"):
            exec(compile(ast.Module([node], []), "setup.py", "exec"), names)
    return names["FLAGS"], names["TARGETS"]["aarch64"]


def build(folder, jobs):
    """Compiles csrc as setup.py does and links it with aarch64.c; returns the program."""
    flags, vectors = compile_flags()
    levels = {"scalar": []} | vectors
    have = ["-fopenmp", *(f"-DFNN_HAVE_{isa.upper()}" for isa in levels)]
    work = [(ROOT / f"csrc/targets/{isa}_{t}.c", extra) for isa, extra in levels.items() for t in ("f32", "f64")]
    work += [(source, have) for source in sorted([*ROOT.glob("csrc/*.c"), *ROOT.glob("csrc/ops/*.c")])]
    work.append((ROOT / "tests/aarch64.c", []))
    compiler = shutil.which(COMPILER)

    def compile_one(source, extra):
        target = Path(folder, f"{source.parent.name}_{source.stem}.o")
        command = [compiler, *flags, "-Werror", *extra, f"-I{ROOT / 'csrc'}", "-c", source, "-o", target]
        subprocess.run(command, check=True)
        return target

    with ThreadPoolExecutor(jobs) as pool:
        objects = list(pool.map(lambda job: compile_one(*job), work))
    program = Path(folder, "harness")
    command = [compiler, "-static", "-fopenmp", *objects, "-o", program, "-lm"]
    link = subprocess.run(command, capture_output=True, text=True)
    if link.returncode:  # else there is only libgomp's warning of a library it does not need
        raise RuntimeError(link.stderr)
    return program


def run_there(program, file, isa, environment):
    """One level's report, and whether all of it is as it should be."""
    there = {k: v for k, v in os.environ.items() if not k.startswith("FASTNN_")} | environment
    done = subprocess.run([EMULATOR, program, file, isa], env=there, capture_output=True, text=True)
    return done.stdout + done.stderr, done.returncode == 0


def check(folder, jobs=2):
    """Builds, records, runs both levels; returns their reports and whether nothing differs."""
    file = Path(folder, "cases")
    with ThreadPoolExecutor(3) as pool:
        program = pool.submit(build, folder, jobs)
        writer, recorded = Writer(file), cases()
        for case in recorded:
            writer.case(case)
        writer.file.close()
        left_out = set(vars(launch)) - {case.op for case in recorded}
        program = program.result()
        runs = [pool.submit(run_there, program, file, isa, environment)
                for isa, environment in (("neon", {}), ("scalar", {"FASTNN_ISA": "scalar"}))]
        reports, good = zip(*(run.result() for run in runs))
    coverage = f"ops without a launch: {', '.join(sorted(left_out)) or 'none'}"
    return [*reports, coverage], all(good) and not left_out


if __name__ == "__main__":
    if reason := missing():
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as room:
        texts, fine = check(room, os.cpu_count() or 1)
    print(*texts, sep="\n")
    sys.exit(not fine)
