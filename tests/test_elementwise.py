"""Elementwise kernels on every instruction set: accuracy in units in the last place, special values, broadcasting."""

import functools

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import _core
from fastnn._core import launch
from fastnn.testing.checks import forced_threads

ISAS = _core.available_isas()


def ulps(actual, expected, flushed=False):
    """Largest error in units in the last place; 0 where both are infinite or NaN alike, infinite where one is."""
    info = np.finfo(actual.dtype)
    with np.errstate(all="ignore"):
        rounded = expected.astype(actual.dtype)
        _, exponent = np.frexp(np.maximum(np.abs(expected), info.tiny))
        error = np.abs(actual - expected) / np.ldexp(np.longdouble(1), exponent - 1 - info.nmant)
    if flushed:  # results below the smallest normal number may be 0
        error = np.where((np.abs(expected) < info.tiny) & (np.abs(actual) <= info.tiny), 0, error)
    same = (actual == rounded) | (np.isnan(actual) & np.isnan(rounded))
    finite = np.isfinite(actual) & np.isfinite(rounded)
    return float(np.where(finite, error, np.where(same, 0, np.inf)).max())


def sweep(dtype, n=30_001):
    """Numbers of every magnitude and sign, denser where the functions bend, and the special ones."""
    rng = np.random.default_rng(5)
    if dtype == np.float32:
        bits = np.linspace(0, 2**32 - 1, n, dtype=np.uint64).astype(np.uint32).view(np.float32)
        bits = np.where(np.abs(bits) < np.finfo(dtype).tiny, 0, bits).astype(dtype)  # denormals are flushed
    else:
        bits = rng.integers(0, 2**64, n, dtype=np.uint64).view(np.float64)
    special = [0.0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 88.72, 88.73, -87.3, -104, 709.78, 709.79, -745.1, -745.2,
               0.5, 2]
    near = [bits, rng.normal(0, 1, n), rng.normal(0, 40, n), 1 + rng.normal(0, 0.01, n), rng.uniform(-745, 709, n),
            special]
    with np.errstate(all="ignore"):
        return np.concatenate(near).astype(dtype)


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


FUNCTIONS = {"exp": (np.exp, 1.1), "log": (np.log, 1), "sqrt": (np.sqrt, 0.5), "tanh_forward": (np.tanh, 2),
             "sigmoid_forward": (sigmoid, 2), "gaussian_forward": (lambda x: np.exp(-x * x / 2), 1.5)}


@functools.cache
def reference(name, dtype):
    with np.errstate(all="ignore"):
        return FUNCTIONS[name][0](sweep(dtype).astype(np.longdouble))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_accurate(isa, name, dtype):
    actual = getattr(launch, name)(fastnn.tensor(sweep(dtype))).numpy()
    assert ulps(actual, reference(name, dtype), flushed=dtype == np.float32) <= FUNCTIONS[name][1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pow_is_accurate_and_knows_its_special_cases(isa, dtype):
    rng = np.random.default_rng(6)
    a = np.exp(rng.normal(0, 3, 30_000)).astype(dtype)
    a[:3_000] = 1 + rng.normal(0, 0.02, 3_000)
    largest = np.log(np.finfo(dtype).max) * 1.1
    b = (rng.uniform(-largest, largest, a.size) / np.log(a)).astype(dtype)
    b[:9_000] = rng.integers(-9, 10, 9_000)
    a[:6_000] *= -1
    special = np.array([0.0, -0.0, 1, -1, 2, -2, 0.5, -0.5, 3, -3, 1e30, -1e30, np.inf, -np.inf, np.nan], dtype)
    grid = np.meshgrid(special, special)
    a, b = np.concatenate([a, grid[0].ravel()]), np.concatenate([b, grid[1].ravel()])
    with np.errstate(all="ignore"):
        expected = np.power(a.astype(np.longdouble), b.astype(np.longdouble))
    actual = launch.pow(fastnn.tensor(a), fastnn.tensor(b)).numpy()
    assert ulps(actual, expected, flushed=dtype == np.float32) <= 1.5
    known = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(actual[known]), np.signbit(expected[known]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("exponent", [3, 4, -1, -2, 0.5, -0.5, 1.5, 5])  # the last has no way of its own
def test_powers_with_one_exponent_for_all(isa, dtype, exponent):
    x, info = sweep(dtype), np.finfo(dtype)
    with np.errstate(all="ignore"):
        x = x[(np.abs(1 / x) >= info.tiny) | (x == 0) | np.isinf(x)]  # of others float32 takes the reciprocal for 0
        y, slope = (np.power(x.astype(np.longdouble), np.longdouble(e)) for e in (exponent, exponent - 1))
        edge = ((np.abs(slope) > info.tiny / 8) & (np.abs(slope) < info.tiny * 8)) | (np.abs(slope) > info.max / 8)
        wanted = (y, np.where(edge & np.isfinite(x) & (x != 0), np.nan, exponent * slope))  # at the ends of the range the factor decides
    dx = launch.power_backward(fastnn.tensor(np.ones_like(x)), fastnn.tensor(x), exponent=exponent).numpy()
    for actual, expected in zip((launch.power(fastnn.tensor(x), exponent=exponent).numpy(), dx), wanted):
        known = ~np.isnan(expected)
        assert ulps(actual[known], expected[known], flushed=True) <= 4
        np.testing.assert_array_equal(np.signbit(actual[known]), np.signbit(expected[known]))
    assert np.isnan(launch.power(fastnn.tensor(dtype(np.nan)), exponent=exponent).item())
    repeated = launch.power_backward(fastnn.tensor(dtype(2)), fastnn.tensor(x[:37]), exponent=exponent)  # one of the inputs
    np.testing.assert_array_equal(repeated.numpy(), 2 * dx[:37])
    assert launch.power_backward(fastnn.tensor(x[:37]), fastnn.tensor(dtype(1)), exponent=exponent).tolist() == [
        pytest.approx(v * exponent, nan_ok=True) for v in x[:37].tolist()]


def test_denormals_count_as_zero_in_float32_and_not_in_float64(isa):
    tiny = fastnn.tensor(np.array([1e-40, -1e-40], np.float32))
    assert launch.log(tiny).tolist() == [-np.inf, -np.inf]
    assert launch.exp(fastnn.tensor([-100.0])).tolist() == [0]
    denormal = np.array([5e-324, 1e-310])
    np.testing.assert_allclose(launch.log(fastnn.tensor(denormal)).numpy(), np.log(denormal), rtol=1e-15)
    assert launch.exp(fastnn.tensor(np.array([-740.0]))).item() == np.exp(-740.0)


COMPARISONS = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
               "ge": np.greater_equal}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons(isa, name, dtype):
    values = np.array([0.0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 2], dtype)
    a, b = (g.ravel() for g in np.meshgrid(values, values))
    for x, y in ((a, b), (a[:37], b[:37]), (a, b[:1]), (a[:1], b), (a[::2], b[::2])):
        result = getattr(launch, name)(fastnn.tensor(x), fastnn.tensor(y))
        assert result.dtype is fastnn.bool
        np.testing.assert_array_equal(result.numpy(), COMPARISONS[name](x, y))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_where_takes_any_strides_and_broadcasts(isa, dtype):
    rng = np.random.default_rng(8)
    cond, (a, b) = rng.random((9, 70)) < 0.5, rng.normal(size=(2, 9, 70)).astype(dtype)
    for c, x, y in ((cond, a, b), (cond[:, ::2], a[:, ::2], b[:, ::2]), (cond[:1], a, b[:, :1]), (cond.T, a.T, b.T)):
        result = launch.where(fastnn.from_numpy(c), fastnn.from_numpy(x), fastnn.from_numpy(y))
        np.testing.assert_array_equal(result.numpy(), np.where(c, x, y))


def test_nan_goes_through(isa):
    x = fastnn.tensor([np.nan, 1.0])
    for y in (launch.maximum(x, launch.neg(x)), launch.clip(x, low=-1, high=1), launch.sign(x), launch.step_forward(x),
              launch.relu_forward(x), launch.leaky_relu_forward(x, slope=0.1), launch.tanh_forward(x),
              launch.sigmoid_forward(x)):
        assert np.isnan(y.numpy()).tolist() == [True, False]


def test_tanh_and_sigmoid_stay_in_their_range(isa):
    for dtype in (np.float32, np.float64):
        x = fastnn.tensor(np.linspace(-45, 45, 100_001).astype(dtype))
        assert np.abs(launch.tanh_forward(x).numpy()).max() == 1
        s = launch.sigmoid_forward(x).numpy()
        assert s.min() >= 0 and s.max() == 1


def test_bce_with_logits_does_not_overflow(isa):
    x, t, w = np.array([-1000.0, -30, -1, 0, 1, 30, 1000]), np.array([0, 1, 0.5, 1, 0, 1, 1.0]), np.array(2.5)
    sigma = sigmoid(x.astype(np.longdouble))
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.logaddexp(0, -x) * w * t + np.logaddexp(0, x) * (1 - t)
    tensors = [fastnn.tensor(v) for v in (x, t, w)]
    np.testing.assert_allclose(launch.bce_with_logits_forward(*tensors).numpy(), expected, rtol=1e-14)
    dx = launch.bce_with_logits_backward(fastnn.ones(7, dtype=fastnn.float64), *tensors).numpy()
    np.testing.assert_allclose(dx, (sigma * (1 - t) - w * t * (1 - sigma)).astype(float), rtol=1e-13, atol=1e-16)


def test_updates_are_the_same_bits_on_every_isa():
    rng = np.random.default_rng(9)
    values = [rng.normal(size=1003).astype(np.float32) for _ in range(3)] + [rng.random(1003).astype(np.float32)]
    lr, momentum, step = (fastnn.tensor(value, fastnn.float64) for value in (0.01, 0.9, 3.0))
    results = []
    for isa in ISAS:
        _core.set_isa(isa)
        p, g, m, v = (fastnn.tensor(a) for a in values)
        launch.sgd_momentum_step(p, g, m, lr, momentum, dampening=0.1, nesterov=1, weight_decay=0.01, decoupled=0,
                                 maximize=0, first=0, out=(p, m))
        launch.adam_step(p, g, m, v, lr, momentum, step, beta2=0.999, eps=1e-8, weight_decay=0.01, decoupled=1, epsilon_hat=0,
                         maximize=1, out=(p, m, v))
        results.append([t.numpy().tobytes() for t in (p, m, v)])
    assert all(r == results[0] for r in results)


def test_updates_give_the_same_bits_in_any_layout():
    rng = np.random.default_rng(10)
    a = [rng.random((6, 50)).astype(np.float32) for _ in range(4)]
    lr, momentum, step = (fastnn.tensor(value, fastnn.float64) for value in (0.01, 0.9, 3.0))
    rule = dict(beta2=0.999, eps=1e-8, weight_decay=0.01, decoupled=0, epsilon_hat=0, maximize=0)
    plain = [fastnn.tensor(x) for x in a]
    launch.adam_step(*plain, lr, momentum, step, **rule, out=(plain[0], *plain[2:]))
    strided = [fastnn.tensor(np.ascontiguousarray(x.T)).T for x in a[:2]]
    strided += [fastnn.tensor(np.repeat(x, 2, 1))[:, ::2] for x in a[2:]]
    launch.adam_step(*strided, lr, momentum, step, **rule, out=(strided[0], *strided[2:]))
    for x, y in zip(plain, strided):
        np.testing.assert_array_equal(x.numpy(), y.numpy())


def many_calls(rng, dtype):
    """Parameters, gradients, two states and step numbers: sizes around chunks and vectors, empty, 0-d, strided."""
    shapes = [(5,), (), (40000,), (0, 3), (33, 17), (16384,), (2, 3, 4, 5), (1,), (70001,)]
    sets = [[fastnn.tensor(np.abs(rng.standard_normal(shape)).astype(dtype)) for _ in range(4)] for shape in shapes]
    wide = fastnn.tensor(np.abs(rng.standard_normal((300, 200))).astype(dtype))
    sets.append([wide[:, ::2], *(fastnn.tensor(rng.random((300, 100)).astype(dtype)) for _ in range(3))])
    return sets, [fastnn.tensor(float(k + 1), fastnn.float64) for k in range(len(sets))]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_calls_launched_together_give_the_bits_of_single_ones(isa, dtype):
    lr, momentum = fastnn.tensor(0.1, fastnn.float64), fastnn.tensor(0.9, fastnn.float64)
    rule = {"beta2": 0.99, "eps": 1e-8, "weight_decay": 0.1, "decoupled": 0, "epsilon_hat": 0, "maximize": 0}
    results = []
    before = _core.get_num_threads()
    for threads in (0, 1, 2, 3, 8):
        sets, steps = many_calls(np.random.default_rng(3), dtype)
        if threads == 0:
            for (p, g, m, v), step in zip(sets, steps):
                launch.adam_step(p, g, m, v, lr, momentum, step, out=(p, m, v), **rule)
        else:
            _core.set_num_threads(threads)
            _core.set_thread_policy("force")
            versions = [p.version for p, *_ in sets]
            launch.adam_step.each([(*tensors, lr, momentum, step) for tensors, step in zip(sets, steps)],
                                  [(p, m, v) for p, g, m, v in sets], **rule)
            assert threads == 1 or _core.last_workers() == threads
            assert [p.version for p, *_ in sets] == [version + 1 for version in versions]
            _core.set_thread_policy("auto")
            _core.set_num_threads(before)
        results.append([t.numpy().tobytes() for tensors in sets for t in tensors])
    assert all(result == results[0] for result in results[1:])


def test_calls_launched_together_that_share_memory_run_in_order():
    y = fastnn.zeros(40000)
    one = fastnn.ones(40000)
    launch.add.each([(y, one)] * 5, [y] * 5)  # one tensor five times
    assert (y.numpy() == 5).all()
    z = [fastnn.zeros(4), fastnn.zeros(4)]
    launch.add.each([(z[0], one[:4]), (z[1], z[0])], z)  # the second reads what the first writes
    assert (z[1].numpy() == 1).all()


def test_calls_launched_together_name_what_is_wrong():
    x = [fastnn.ones(3), fastnn.ones(4)]
    with pytest.raises(ValueError, match="inputs has 2 calls, out 1"):
        launch.neg.each([(t,) for t in x], x[:1])
    with pytest.raises(TypeError, match="matmul: is not elementwise"):
        launch.matmul.each([(x[0], x[0])], [x[0]])
    with pytest.raises(ValueError, match="output 'y' is float32 \\(4,\\)"):
        launch.neg.each([(x[0],), (x[0],)], x)
    assert (x[0].numpy() == 1).all()  # a call that is refused leaves all as they are
    with pytest.raises(TypeError, match="argument 'x' is a int"):
        launch.neg.each([(3,)], x[:1])
    with pytest.raises(TypeError):
        launch.neg.each([x[0]], x[:1])
    launch.neg.each([], [])


def test_float64_keeps_denormals_after_a_float32_region_started_the_workers():
    before = _core.get_num_threads()
    _core.set_thread_policy("force")
    try:
        _core.set_num_threads(3)  # new workers, started by the float32 launch
        launch.exp(fastnn.zeros(200_000))
        x = fastnn.tensor(np.full(200_000, -740.0))
        assert (launch.exp(x).numpy() == np.exp(-740.0)).all()
    finally:
        _core.set_thread_policy("auto")
        _core.set_num_threads(before)


KINDS = ["add", "subtract", "multiply", "floor_divide", "remainder", "minimum", "maximum", "equal", "not_equal",
         "less", "less_equal",
         "greater", "greater_equal", "bitwise_and", "bitwise_or", "bitwise_xor", "power"]
INTEGERS = {"int64": [0, 1, -1, 7, -7, 2**62, -2**63, 3], "int32": [0, 1, -1, 7, -7, 2**31 - 1, -2**31, 3],
            "uint8": [0, 1, 2, 7, 250, 255, 128, 3], "bool": [False, True]}


@pytest.mark.parametrize("first", INTEGERS)
@pytest.mark.parametrize("second", INTEGERS)
def test_integers_are_exact(first, second):
    a, b = np.array(INTEGERS[first], first), np.array(INTEGERS[second], second)
    a = a[:, None]
    for kind, name in enumerate(KINDS):
        divisor = b[b != 0] if name in ("floor_divide", "remainder") else b[b >= 0] if name == "power" else b
        result = launch.integer_binary(fastnn.tensor(a), fastnn.tensor(divisor), kind=kind)
        keeps = name.startswith("bitwise") or name in ("add", "multiply", "minimum", "maximum")  # of bools, which others count
        wide = (a, divisor) if keeps and first == second else (a.astype(np.int64), divisor.astype(np.int64))
        with np.errstate(over="ignore"):
            expected = getattr(np, name)(*wide)
        if 7 <= kind <= 12:
            assert result.dtype is fastnn.bool
        else:
            wider = min(first, second, key=list(INTEGERS).index)
            assert result.dtype.name == (wider if wider != "bool" or keeps else "int64")
        np.testing.assert_array_equal(result.numpy(), expected.astype(result.numpy().dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_hypot_leaves_no_range_and_is_accurate(isa, dtype):
    rng, x = np.random.default_rng(8), sweep(dtype)
    y = rng.permutation(x)
    y[:9000] = (x[:9000].astype(np.longdouble) * rng.normal(0, 1, 9000)).astype(dtype)  # of like size
    y = np.where(np.abs(y) < np.finfo(dtype).tiny, 0, y)  # what float32 takes it for
    with np.errstate(all="ignore"):
        expected = np.hypot(x.astype(np.longdouble), y.astype(np.longdouble))
    assert ulps(launch.hypot(fastnn.tensor(x), fastnn.tensor(y)).numpy(), expected, flushed=True) <= 1.2
    assert launch.hypot(fastnn.tensor(dtype(np.nan)), fastnn.tensor(dtype(-np.inf))).item() == np.inf


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_integer_division_is_exact_where_doubles_divide_and_beyond(isa, dtype):
    rng, info = np.random.default_rng(3), np.iinfo(dtype)
    edges = np.array([b + d for e in (0, 7, 8, 15, 31, 49, 50, 51, 53, 62, 63) for b in (2**e, -2**e) for d in (-1, 0, 1)
                      if info.min <= b + d <= info.max], dtype)
    few = [v for v in (1, -1, 3, -7, 10, 255, 2**20 + 1, 2**49 + 1, 2**50, -2**63, info.max) if info.min <= v <= info.max]
    for width in (8, 16, 31, 50, 51, 63):
        high = min(2**width, info.max)
        a = np.concatenate([rng.integers(max(-high, info.min), high, 3000).astype(dtype), edges])
        b = rng.permutation(np.where(a == 0, 1, a))
        with np.errstate(over="ignore"):
            for kind, function in ((3, np.floor_divide), (4, np.remainder)):
                for x, y in ((a, b), (a[::3], b[::3]), *((a, np.array(v, dtype)) for v in few), (np.array(few[-1], dtype), b)):
                    result = launch.integer_binary(fastnn.from_numpy(x), fastnn.from_numpy(y), kind=kind)
                    np.testing.assert_array_equal(result.numpy(), function(x, y))


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "bool"])
def test_integers_of_one_type_in_long_and_strided_rows(isa, dtype):
    rng = np.random.default_rng(4)
    a, b = (rng.integers(0, 2 if dtype == "bool" else 200, (3, 41_000)).astype(dtype) for _ in "ab")
    for x, y in ((a, b), (a[:, ::2], b[:, ::2]), (a, b[:1]), (a, b[:, :1]), (b[:1, :1], a), (a.T, b.T), (b[:1, 0], a)):
        for kind in (0, 2, 5, 6, *range(7, 16)):
            result = launch.integer_binary(fastnn.from_numpy(x), fastnn.from_numpy(y), kind=kind)
            np.testing.assert_array_equal(result.numpy(), getattr(np, KINDS[kind])(x, y))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reals_become_integers_towards_0_and_saturate(isa, dtype):
    x = sweep(dtype)
    with np.errstate(all="ignore"):
        wanted = np.where(np.isnan(x), 0, np.where(np.abs(x) < 2.0**63, x, 0)).astype(np.int64)
    wanted = np.where(x >= 2.0**63, 2**63 - 1, np.where(x <= -2.0**63, -2**63, wanted))
    for part in (slice(None), slice(1, None, 3)):
        np.testing.assert_array_equal(fastnn.from_numpy(x)[part].to(fastnn.int64).numpy(), wanted[part])
    small = np.linspace(-2.0**31, 2.0**31, 7001).astype(dtype)
    np.testing.assert_array_equal(fastnn.tensor(small).to(fastnn.int64).numpy(), small.astype(np.int64))


def test_integer_division_by_zero_is_an_error():
    with pytest.raises(ValueError, match="integer_binary: integer division by zero"):
        launch.integer_binary(fastnn.tensor([1, 2]), fastnn.tensor([1, 0]), kind=3)
    with pytest.raises(TypeError, match="float32 and int64, but must be integers"):
        launch.integer_binary(fastnn.tensor([1.0]), fastnn.tensor([1]), kind=0)


def test_results_written_past_the_caches(isa):
    n = (4 << 20) + 1003  # above FNN_STREAM_BYTES in float32
    x = (np.arange(n) % 1000).astype(np.float32)
    t = fastnn.tensor(x)
    np.testing.assert_array_equal(launch.neg(t).numpy(), -x)
    target = fastnn.zeros(n + 3)
    for start in (0, 1, 3):
        part = target[start:start + n]
        launch.add(t, t, out=part)
        np.testing.assert_array_equal(part.numpy(), x + x)
        launch.copy(t, dtype=-1, out=part)
        np.testing.assert_array_equal(part.numpy(), x)
        launch.fill(value=2.5, out=part)
        assert (part.numpy() == 2.5).all()
    rows = launch.mul(t[:4 << 20].reshape(1 << 11, 1 << 11), t[:1 << 11])
    np.testing.assert_array_equal(rows.numpy(), x[:4 << 20].reshape(1 << 11, -1) * x[:1 << 11])
    wide = fastnn.tensor(np.array([1.0, 3.0], np.float32)).reshape(2, 1).expand(2, 9 << 20)
    assert launch.lt(wide, fastnn.full((1,), 2.0)).numpy().sum(1).tolist() == [9 << 20, 0]


def test_sequences_keep_the_layout_of_convolutions():
    """(N, C, L) stored N, L, C, as 1-D convolutions leave it: nothing is turned around, and no bit depends on it."""
    rng = np.random.default_rng(0)
    rows, other = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 7, 5), (3, 5, 7)))
    lasting, dense, y = fastnn.tensor(rows).permute(0, 2, 1), fastnn.tensor(rows.transpose(0, 2, 1).copy()), fastnn.tensor(other)
    assert not lasting.is_contiguous() and dense.is_contiguous()
    bias, count = fastnn.tensor(np.arange(5, dtype=np.float32)[:, None]), fastnn.ones(5)
    for function in (fastnn.relu, lambda x: x + y, lambda x: x * 2.0, lambda x: bias + x, lambda x: x > 0,
                     lambda x: fastnn.where(x > 0, x, y), lambda x: fastnn.batch_norm(x, None, None, count, count, True)):
        kept, expected = function(lasting), function(dense)
        assert kept.permute(0, 2, 1).is_contiguous() and expected.is_contiguous()
        np.testing.assert_array_equal(kept.numpy(), expected.numpy())
    for x in (lasting, dense):
        fastnn.manual_seed(0)
        np.testing.assert_array_equal(fastnn.dropout(x, 0.5, True).numpy() != 0, fastnn.dropout(fastnn.ones(3, 5, 7), 0.5, True,
                                      generator=fastnn.Generator(0)).numpy() != 0)
    assert (y + lasting).is_contiguous()  # the first operand decides
    assert fastnn.relu(fastnn.tensor(rows)[:, ::2].permute(0, 2, 1)).is_contiguous()


def test_four_axes_that_lie_in_rows_stay_so():
    """Images as users give them, and attention's scores, are not turned at every step; with one that is channels last results are."""
    x = fastnn.tensor(np.random.default_rng(0).standard_normal((2, 3, 5, 7)).astype(np.float32))
    turned = fastnn.ones(2, 5, 7, 3).permute(0, 3, 1, 2)
    for y in (x * 2, x + x, x * fastnn.ones(2, 3, 1, 1), x - x[:, :, :1], fastnn.where(x > 0, x, 0.0), fastnn.softmax(x, -1), x.cumsum(2),
              fastnn.zeros_like(x), fastnn.cat([x, x], 1), x[[1, 0]], F.layer_norm(x, (7,)), x[:, :, 1:] * 3, x.sort(1)[0]):
        assert y.is_contiguous()
    for y in (x + turned, turned + x, turned * 2, turned * x[:, :1], fastnn.ones(3, 1, 1) * turned, fastnn.softmax(turned, 1)):
        assert y.is_channels_last()
    np.testing.assert_array_equal((x + turned).numpy(), x.numpy() + 1)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", [(2, 3, 9, 11), (1, 2, 5, 5), (3, 4, 16, 17), (2, 33, 13, 10), (1, 70, 40, 40), (2, 5, 1, 300),
                                   (0, 3, 4, 5)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_images_in_rows_beside_channels_last(shape, dtype, threads):
    rng = np.random.default_rng(0)
    a, b, mask = rng.standard_normal(shape).astype(dtype), rng.standard_normal(shape).astype(dtype), rng.random(shape) > 0.5
    bias, one = rng.standard_normal((shape[1], 1, 1)).astype(dtype), np.array(1.5, dtype)
    rows, last = fastnn.tensor(a), fastnn.tensor(b).contiguous(memory_format=fastnn.channels_last)
    with forced_threads(threads):
        assert np.array_equal((rows + last).numpy(), a + b) and np.array_equal((last - rows).numpy(), b - a)
        for m in (fastnn.tensor(mask), fastnn.tensor(mask).contiguous(memory_format=fastnn.channels_last)):
            assert np.array_equal(fastnn.where(m, rows, last).numpy(), np.where(mask, a, b))
            assert np.array_equal(fastnn.where(m, rows, fastnn.tensor(one)).numpy(), np.where(mask, a, one))
        fused = launch.addcmul(last, rows, fastnn.tensor(bias), value=1.0).numpy()
        assert np.allclose(fused, b + a * bias, rtol=1e-5, atol=1e-6)
        assert np.array_equal(fused, launch.addcmul(last, last * 0 + rows, fastnn.tensor(bias), value=1.0).numpy())
        y = last.clone()
        y += rows
        assert y.is_channels_last() and np.array_equal(y.numpy(), b + a)


@pytest.mark.parametrize("n", [4, 31, 64, 130])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_matrix_beside_its_transpose(n, threads):
    a = np.random.default_rng(0).standard_normal((n, n + 1))
    x, y = fastnn.tensor(a), fastnn.tensor(a.T.copy())
    with forced_threads(threads):
        assert np.array_equal((x * y.t()).numpy(), a * a)
        assert np.array_equal((x.t() * 2 + y).numpy(), a.T * 2 + a.T)
    square = fastnn.tensor(a[:, :n].copy())
    square += square.t()
    assert np.array_equal(square.numpy(), a[:, :n] + a[:, :n].T)


def test_one_element_in_every_place():
    """An input that repeats one element, of ops whose kernels repeat it and of those whose second input is a scalar."""
    one = fastnn.tensor(np.float32(1.5)).expand(7000)
    step = launch.proximal_step(one, fastnn.tensor(np.float64(0.1)), strength=1.0, shrink=0.0).numpy()
    assert np.array_equal(step, np.full(7000, np.float32(1.5 - 0.1)))
    assert np.array_equal(launch.mul(one, one).numpy(), np.full(7000, 2.25, np.float32))
    x = fastnn.tensor(np.arange(7000, dtype=np.float32))
    assert np.array_equal(launch.sub(one, x).numpy(), 1.5 - x.numpy())
    assert np.array_equal(launch.sub(x, one).numpy(), x.numpy() - 1.5)
    assert np.array_equal(launch.addcmul(x, one, one, value=1.0).numpy(), x.numpy() + 2.25)
