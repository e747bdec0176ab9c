"""Runs every OpSpec on inputs that lie against a page that may not be touched: what reads past an end dies (test_bounds.py)."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np

import fastnn
from fastnn import _core
from fastnn.testing.spec import Sample, specs

_protect = ctypes.CDLL(None, use_errno=True).mprotect
_protect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int


def fenced(array: np.ndarray, at_end: bool) -> np.ndarray:
    """A copy in C order that ends, or begins, where a page begins, or ends, that may be neither read nor written."""
    page, inside = mmap.PAGESIZE, -(-max(array.nbytes, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = np.frombuffer(mmap.mmap(-1, inside + 2 * page), np.uint8)
    start = memory.ctypes.data
    for fence in (start, start + page + inside):
        if _protect(fence, page, 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    first = page + (inside - array.nbytes if at_end else 0)
    result = memory[first:first + array.nbytes].view(array.dtype).reshape(array.shape)
    result[...] = array
    return result


def run_sample(spec, sample: Sample, dtype: type, at_end: bool) -> None:
    """Forward, and backward where the operation is differentiated."""
    inputs = []
    for k, value in enumerate(sample.inputs):
        if isinstance(value, np.ndarray):
            value = fastnn.from_numpy(fenced(value.astype(dtype) if value.dtype == np.float64 else value, at_end))
            if value.dtype.is_floating:
                value.requires_grad = k in spec.gradients
        inputs.append(value)
    outputs = spec.function(*inputs, **sample.options)
    for output in outputs if isinstance(outputs, (tuple, list)) else (outputs,):
        if isinstance(output, fastnn.Tensor) and output.requires_grad:
            output.backward(fastnn.from_numpy(fenced(np.ones(output.shape, dtype), at_end)), retain_graph=True)


def main(isa: str, names: list[str] | None = None) -> None:
    """Prints each operation's name before it is run, so that the last line tells which one died."""
    _core.set_isa(isa)
    for name in names or sorted(specs()):
        print(name, flush=True)
        spec = specs()[name]
        for dtype in (np.float32, np.float64):
            for at_end in (True, False):
                for sample in spec.samples(np.random.default_rng(0)):
                    run_sample(spec, sample, dtype, at_end)
