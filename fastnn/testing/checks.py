"""The checks that every OpSpec goes through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .. import _core
from .._core import TensorBase
from ..derivatives import four_point_slope, gradients_of
from ..ops.create import tensor
from .spec import OpSpec, Sample

THREAD_COUNTS = (1, 2, 3, 8)
SPECIAL_VALUES = (0.0, -0.0, np.inf, -np.inf, np.nan, 1e-30, -1e-30, 1.0, -1.0, 0.5, 3e38, -3e38)


def _tensors(sample: Sample, dtype: str, requires_grad: tuple[int, ...] = ()) -> list:
    result = []
    for k, value in enumerate(sample.inputs):
        if isinstance(value, np.ndarray):
            value = tensor(value, dtype if value.dtype == np.float64 else None)
            value.requires_grad = k in requires_grad
        result.append(value)
    return result


def _tuple(value: Any) -> tuple:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _arrays(outputs: Any) -> list[np.ndarray]:
    return [np.array(memoryview(t)) if isinstance(t, TensorBase) else np.asarray(t) for t in _tuple(outputs)]


def _assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: float, dtype: str, what: str,
                  exact: bool = False) -> None:
    expected = np.asarray(expected)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    if exact or actual.dtype.kind in "iub":
        np.testing.assert_array_equal(actual, expected.astype(actual.dtype), err_msg=what)
        return
    finite = expected[np.isfinite(expected)]
    scale = 1 + (np.abs(finite).max() if finite.size else 0)
    limit = tolerance * np.finfo(dtype).eps * scale
    np.testing.assert_allclose(actual.astype(np.float64), expected, rtol=0, atol=limit, err_msg=what)


def _rounded(sample: Sample, dtype: str) -> Sample:
    """The sample with its values rounded to `dtype`, so that the reference sees what the operation sees."""
    inputs = tuple(np.asarray(v, dtype).astype(np.float64) if isinstance(v, np.ndarray) and v.dtype == np.float64 else v
                   for v in sample.inputs)
    return Sample(inputs, sample.options)


def check_forward(spec: OpSpec, sample: Sample, dtype: str = "float32") -> None:
    """Asserts that the operation gives what its reference gives, within the tolerance.

    Parameters
    ----------
    spec : OpSpec
        The operation.
    sample : Sample
        What to call it on.
    dtype : str
        "float32" or "float64".

    Raises
    ------
    AssertionError
        Naming the output and the worst element.
    """
    sample = _rounded(sample, dtype)
    actual = _arrays(spec.function(*_tensors(sample, dtype), **sample.options))
    expected = _tuple(spec.reference(*sample.inputs, **sample.options))
    assert len(actual) == len(expected), f"{spec}: {len(actual)} outputs, the reference has {len(expected)}"
    for k, (a, e) in enumerate(zip(actual, expected)):
        _assert_close(a, e, spec.tolerance, dtype, f"{spec} {sample} output {k} ({dtype})", spec.exact)


def _weights(spec: OpSpec, sample: Sample) -> list[np.ndarray]:
    """Fixed weights for a weighted sum of the outputs, so that every output element counts in the gradient."""
    rng = np.random.default_rng(7)
    return [rng.uniform(0.5, 1.5, np.shape(r)) for r in _tuple(spec.reference(*sample.inputs, **sample.options))]


def _gradients(spec: OpSpec, sample: Sample, dtype: str, weights: list[np.ndarray]) -> list[np.ndarray]:
    """Gradients of the weighted sum of all outputs, one per entry of spec.gradients."""
    wanted = tuple(k for k in spec.gradients if sample.inputs[k] is not None)
    inputs = _tensors(sample, dtype, wanted)
    outputs = _tuple(spec.function(*inputs, **sample.options))
    pairs = [(o, tensor(np.asarray(w), dtype)) for o, w in zip(outputs, weights) if isinstance(o, TensorBase)]
    found = gradients_of(*zip(*pairs), [inputs[k] for k in wanted])
    for k, gradient in zip(wanted, found):
        assert gradient is not None, f"{spec}: input {k} got no gradient"
    return [np.array(memoryview(gradient)) for gradient in found]


def check_gradient(spec: OpSpec, sample: Sample, directions: int = 2, step: float = 1e-3) -> None:
    """Asserts in float64 that gradients agree with 4-point central differences along random directions.

    Parameters
    ----------
    spec : OpSpec
        The operation.
    sample : Sample
        What to call it on; away from kinks.
    directions : int
        How many random directions per input.
    step : float
        Distance of the difference points.

    Raises
    ------
    AssertionError
        Naming the input and both values.
    """
    weights = _weights(spec, sample)
    gradients = _gradients(spec, sample, "float64", weights)
    wanted = [k for k in spec.gradients if sample.inputs[k] is not None]
    rng = np.random.default_rng(11)

    def loss(k: int, shift: np.ndarray) -> float:
        inputs = list(sample.inputs)
        inputs[k] = inputs[k] + shift
        outputs = _arrays(spec.function(*_tensors(Sample(tuple(inputs)), "float64"), **sample.options))
        return float(sum((w * o).sum() for w, o in zip(weights, outputs)))

    for k, gradient in zip(wanted, gradients):
        for _ in range(directions if sample.inputs[k].size else 0):
            v = rng.standard_normal(sample.inputs[k].shape)
            slope = four_point_slope(lambda d: loss(k, d * v), step)
            analytic = float((gradient * v).sum())
            limit = 1e-7 * (1 + abs(slope) + float(np.abs(gradient * v).sum()))
            what = f"{spec} {sample} input {k}: gradient {analytic!r}, differences {slope!r}"
            assert abs(analytic - slope) <= limit, what


def check_gradient_float32(spec: OpSpec, sample: Sample) -> None:
    """Asserts that gradients in float32 agree with those in float64.

    Parameters
    ----------
    spec : OpSpec
        The operation.
    sample : Sample
        What to call it on.

    Raises
    ------
    AssertionError
        Naming the input and the worst element.
    """
    sample = _rounded(sample, "float32")
    weights = [w.astype(np.float32).astype(np.float64) for w in _weights(spec, sample)]
    tolerance = spec.gradient_tolerance or 8 * spec.tolerance
    for k, (a, e) in enumerate(zip(_gradients(spec, sample, "float32", weights),
                                   _gradients(spec, sample, "float64", weights))):
        _assert_close(a, e, tolerance, "float32", f"{spec} {sample} gradient {k}")


def _everything(spec: OpSpec, sample: Sample, dtype: str = "float32", inputs: list | None = None) -> list[np.ndarray]:
    """All outputs and gradients."""
    results = _arrays(spec.function(*(inputs or _tensors(sample, dtype)), **sample.options))
    return results + (_gradients(spec, sample, dtype, _weights(spec, sample)) if spec.gradients else [])


@contextmanager
def forced_threads(threads: int) -> Iterator[None]:
    """Every loop of two chunks or more opens a region of `threads` threads inside this context."""
    before = _core.get_num_threads()
    _core.set_num_threads(threads)
    _core.set_thread_policy("force")
    try:
        yield
    finally:
        _core.set_thread_policy("auto")
        _core.set_num_threads(before)


def check_threads(spec: OpSpec, sample: Sample) -> int:
    """Asserts that outputs and gradients have the same bits for 1, 2, 3 and 8 threads.

    Parameters
    ----------
    spec : OpSpec
        The operation.
    sample : Sample
        What to call it on.

    Returns
    -------
    int
        The largest number of threads that took part in a region.

    Raises
    ------
    AssertionError
        If bits differ.
    """
    sample = _rounded(sample, "float32")
    expected, most = None, 1
    for threads in THREAD_COUNTS:
        with forced_threads(threads):
            results = _everything(spec, sample)
            most = max(most, _core.last_workers() if threads > 1 else 1)
        if expected is None:
            expected = results
        for k, (a, e) in enumerate(zip(results, expected)):
            assert a.tobytes() == e.tobytes(), f"{spec} {sample}: result {k} differs between 1 and {threads} threads"
    return most


def _layouts(array: np.ndarray) -> Iterator[tuple[str, TensorBase]]:
    """The same values at odd places: every second element, reversed, misaligned, another axis order."""
    spaced = np.zeros([2 * n for n in array.shape], array.dtype)
    spaced[tuple(slice(None, None, 2) for _ in array.shape)] = array
    yield "spaced", tensor(spaced)[tuple(slice(None, None, 2) for _ in array.shape)]
    flipped = tensor(array[tuple(slice(None, None, -1) for _ in array.shape)])
    yield "reversed", flipped[tuple(slice(None, None, -1) for _ in array.shape)]
    line = np.zeros(array.size + 1, array.dtype)
    line[1:] = array.ravel()
    yield "misaligned", tensor(line)[1:].reshape(array.shape)
    if array.ndim > 1:
        order = tuple(reversed(range(array.ndim)))
        yield "transposed", tensor(np.ascontiguousarray(array.transpose(order))).permute(*order)
    if array.ndim == 4:
        yield "channels-last", tensor(np.ascontiguousarray(array.transpose(0, 2, 3, 1))).permute(0, 3, 1, 2)


def check_layouts(spec: OpSpec, sample: Sample) -> None:
    """Asserts that strides of the inputs change no bit of the outputs.

    Parameters
    ----------
    spec : OpSpec
        The operation.
    sample : Sample
        What to call it on.

    Raises
    ------
    AssertionError
        Naming the layout.
    """
    sample = _rounded(sample, "float32")
    expected = _arrays(spec.function(*_tensors(sample, "float32"), **sample.options))
    for k, value in enumerate(sample.inputs):
        if not isinstance(value, np.ndarray) or value.ndim == 0:
            continue
        for name, laid_out in _layouts(value.astype(np.float32) if value.dtype == np.float64 else value):
            inputs = _tensors(sample, "float32")
            inputs[k] = laid_out
            for a, e in zip(_arrays(spec.function(*inputs, **sample.options)), expected):
                assert a.tobytes() == e.tobytes(), f"{spec} {sample}: input {k} {name} gives other bits"


def _with_values(sample: Sample, values: Callable[[np.ndarray], np.ndarray]) -> Sample:
    return Sample(tuple(values(v) if isinstance(v, np.ndarray) and v.dtype == np.float64 else v
                        for v in sample.inputs), sample.options)


def check_lengths(spec: OpSpec, sample: Sample, dtype: str = "float32") -> None:
    """Asserts that an elementwise operation gives each element the same bits at every place of vectors of every length.

    Parameters
    ----------
    spec : OpSpec
        An elementwise operation.
    sample : Sample
        Provides the options and the number of inputs.
    dtype : str
        "float32" or "float64".

    Raises
    ------
    AssertionError
        Naming the length and the offset.
    """
    rng = np.random.default_rng(3)
    longest = _with_values(sample, lambda v: rng.uniform(0.1, 0.9, 70))
    inputs = [v.reshape(-1)[:1].repeat(70) if isinstance(v, np.ndarray) and v.dtype != np.float64 else v
              for v in longest.inputs]
    whole = _tensors(Sample(tuple(inputs)), dtype)
    expected = _arrays(spec.function(*whole, **sample.options))
    for length in range(0, 35):
        for offset in (0, 1, 3):
            part = [t[offset:offset + length] if isinstance(t, TensorBase) else t for t in whole]
            for a, e in zip(_arrays(spec.function(*part, **sample.options)), expected):
                what = f"{spec}: length {length} offset {offset} gives other bits"
                assert a.tobytes() == e[offset:offset + length].tobytes(), what


def check_special_values(spec: OpSpec, sample: Sample, dtype: str = "float32") -> None:
    """Asserts that NaN, infinities, signed zeros and extremes give what the reference gives.

    Parameters
    ----------
    spec : OpSpec
        An elementwise operation.
    sample : Sample
        Provides the options and the number of inputs.
    dtype : str
        "float32" or "float64".

    Raises
    ------
    AssertionError
        Naming the values.
    """
    count = sum(isinstance(v, np.ndarray) and v.dtype == np.float64 for v in sample.inputs)
    grid = iter(np.meshgrid(*[np.array(SPECIAL_VALUES, dtype).astype(np.float64)] * count, indexing="ij"))
    special = _with_values(sample, lambda v: next(grid).ravel())
    actual = _arrays(spec.function(*_tensors(special, dtype), **sample.options))
    with np.errstate(all="ignore"):
        expected = _tuple(spec.reference(*special.inputs, **sample.options))
        for a, e in zip(actual, expected):
            e = np.asarray(e)
            np.testing.assert_array_equal(np.isnan(a), np.isnan(e), err_msg=f"{spec}: NaN")
            e = e.astype(a.dtype)  # overflows to infinity as the operation does
            large = np.isinf(e) | np.isinf(a)
            np.testing.assert_array_equal(a[large], e[large], err_msg=f"{spec}: infinities")
            rest = np.isfinite(e) & np.isfinite(a)
            np.testing.assert_allclose(a[rest], e[rest], rtol=16 * np.finfo(dtype).eps, atol=np.finfo(dtype).tiny,
                                       err_msg=f"{spec}: finite")
