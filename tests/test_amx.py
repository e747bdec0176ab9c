"""float32 products on bfloat16 matrix units: accuracy beside multiply-adds, what is not finite, bits, programs."""

import numpy as np
import programs
import pytest
from amx import needs_amx

import fastnn
from fastnn import _core, testing
from fastnn._core import launch

PRECISIONS = ("highest", "high", "medium")
SHAPES = [(256, 256, 256), (257, 300, 333), (400, 161, 1000), (160, 1024, 95)]  # all large enough for the matrix units


@pytest.fixture(autouse=True)
def restore():
    isa, threads = _core.get_isa(), _core.get_num_threads()
    yield
    fastnn.set_float32_matmul_precision("highest")
    _core.set_isa(isa)
    _core.set_num_threads(threads)
    _core.set_thread_policy("auto")


def product(a, b, isa="amx", precision="highest"):
    _core.set_isa(isa)
    fastnn.set_float32_matmul_precision(precision)
    return launch.matmul(fastnn.tensor(a), fastnn.tensor(b)).numpy()


def operands(kind, m, n, k):
    """Matrices of one kind: well scaled; all positive, where errors of one sign would add up; of many magnitudes; with
    sums that cancel."""
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal((m, k)), rng.standard_normal((k, n))
    if kind == "positive":
        a, b = abs(a), abs(b)
    elif kind == "wide":
        a *= 2.0 ** rng.integers(-50, 50, a.shape)
        b *= 2.0 ** rng.integers(-50, 50, b.shape)
    elif kind == "rows":
        a *= 2.0 ** rng.integers(-45, 60, (m, 1))
        b *= 2.0 ** rng.integers(-45, 60, (1, n))
    elif kind == "cancelling":
        a[:, 1::2] = -a[:, ::2][:, :k // 2]
        b[1::2] = b[::2][:k // 2] * (1 + 2.0**-18 * rng.standard_normal((k // 2, n)))
    return a.astype(np.float32), b.astype(np.float32)


def errors(got, a, b):
    """Worst and root mean square of the error, each element's relative to |a| |b|."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    relative = abs(got - a @ b) / (abs(a) @ abs(b))
    return relative.max(), np.sqrt((relative**2).mean())


@needs_amx
@pytest.mark.parametrize("kind", ["normal", "positive", "wide", "rows", "cancelling"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_highest_is_as_accurate_as_multiply_adds(shape, kind):
    a, b = operands(kind, *shape)
    ours, theirs = (product(a, b, isa) for isa in ("amx", "avx512"))
    assert ours.tobytes() != theirs.tobytes(), "this shape does not test the matrix units"
    worst, mean = errors(ours, a, b)
    worst_fma, mean_fma = errors(theirs, a, b)
    # Where one product outweighs all others, a multiply-add's one rounding is the best there can be.
    factor = 1.5 if kind == "wide" else 0.75
    assert worst <= factor * worst_fma and mean <= factor * mean_fma


@needs_amx
@pytest.mark.parametrize("precision, bound", [("high", 2.0**-15), ("medium", 2.0**-7)])
@pytest.mark.parametrize("kind", ["normal", "positive", "rows"])
def test_fewer_parts_are_less_accurate_by_as_much_as_they_say(precision, bound, kind):
    for shape in SHAPES:
        a, b = operands(kind, *shape)
        worst, mean = errors(product(a, b, precision=precision), a, b)
        assert worst < bound
        assert mean > errors(product(a, b), a, b)[1], f"{precision} is no cheaper than highest"


@needs_amx
def test_outside_the_range_the_error_stays_below_the_smallest_normal_numbers():
    rng = np.random.default_rng(2)
    m, n, k = 256, 256, 256
    for low_a, high_a, low_b, high_b in ((-126, -90, -30, 10), (-149, -100, 0, 60), (-80, -40, -80, -40)):
        a = np.ldexp(rng.standard_normal((m, k)), rng.integers(low_a, high_a, (m, k))).astype(np.float32)
        b = np.ldexp(rng.standard_normal((k, n)), rng.integers(low_b, high_b, (k, n))).astype(np.float32)
        exact = a.astype(np.float64) @ b.astype(np.float64)
        rounding = (abs(a.astype(np.float64)) @ abs(b.astype(np.float64))) * k * 2.0**-24
        limit = k * 2.0**-126 * max(1.0, abs(a).max(), abs(b).max())
        assert (abs(product(a, b) - exact) <= limit + rounding).all()


@needs_amx
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, np.float32(3.4e38)], ids=str)
@pytest.mark.parametrize("which", [0, 1])
def test_a_call_with_a_value_that_is_not_finite_is_made_of_multiply_adds(precision, value, which):
    pair = operands("normal", 257, 300, 333)
    pair[which][100, 200] = value
    assert product(*pair, precision=precision).tobytes() == product(*pair, isa="avx512").tobytes()


@needs_amx
def test_so_is_one_whose_sums_overflow():
    a, b = operands("positive", 256, 256, 256)
    a[3] *= np.float32(2.0**126)
    expected = product(a, b, isa="avx512")
    assert np.isinf(expected).any() and product(a, b).tobytes() == expected.tobytes()


@needs_amx
def test_bias_and_activation_come_after_the_sum():
    rng = np.random.default_rng(3)
    x, w, bias = (rng.standard_normal(s).astype(np.float32) for s in ((300, 256), (257, 256), (257,)))
    _core.set_isa("amx")
    tx, tw, tb = map(fastnn.tensor, (x, w, bias))
    plain = launch.linear_forward(tx, tw, None).numpy()
    assert launch.linear_forward(tx, tw, tb).numpy().tobytes() == (plain + bias).tobytes()
    again = fastnn.tensor(np.where(np.arange(300)[:, None] == 7, np.inf, x).astype(np.float32))
    got = launch.linear_forward(again, tw, tb).numpy()
    _core.set_isa("avx512")
    assert got.tobytes() == launch.linear_forward(again, tw, tb).numpy().tobytes()


@needs_amx
@pytest.mark.parametrize("precision", PRECISIONS)
def test_same_bits_for_any_threads_and_strides(precision):
    fastnn.set_float32_matmul_precision(precision)
    _core.set_isa("amx")
    a, b = operands("normal", 310, 290, 333)
    expected = launch.matmul(fastnn.tensor(a), fastnn.tensor(b)).numpy().tobytes()
    for threads in (1, 2, 3, 8):
        with testing.checks.forced_threads(threads):
            assert launch.matmul(fastnn.tensor(a), fastnn.tensor(b)).numpy().tobytes() == expected
            assert threads == 1 or _core.last_workers() == min(threads, 4)
    for name, laid_out in testing.checks._layouts(a):
        assert launch.matmul(laid_out, fastnn.tensor(b)).numpy().tobytes() == expected, f"a {name}"
    for name, laid_out in testing.checks._layouts(b):
        assert launch.matmul(fastnn.tensor(a), laid_out).numpy().tobytes() == expected, f"b {name}"


@needs_amx
def test_batches_and_operands_that_come_in_slabs():
    rng = np.random.default_rng(4)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 3, 130, 256), (3, 256, 200)))
    got = product(a, b)
    for i in np.ndindex(2, 3):
        assert errors(got[i], a[i], b[i[1]])[0] < 2.0**-21
    a, b = rng.standard_normal((520, 16400)).astype(np.float32), rng.standard_normal((16400, 500)).astype(np.float32)
    assert errors(product(a, b), a, b)[0] < 2.0**-21


@needs_amx
@pytest.mark.parametrize("precision", PRECISIONS)
def test_bits_do_not_depend_on_which_operand_is_shared(precision):
    rng = np.random.default_rng(6)
    a, b = rng.standard_normal((700, 2500)).astype(np.float32), rng.standard_normal((2500, 300)).astype(np.float32)
    whole = product(a, b, precision=precision)
    assert product(a[:256], b, precision=precision).tobytes() == whole[:256].tobytes()
    assert errors(whole, a, b)[0] < {"highest": 2.0**-21, "high": 2.0**-15, "medium": 2.0**-7}[precision]


@needs_amx
def test_a_program_is_captured_anew_when_the_precision_changes():
    _core.set_isa("amx")
    a, b = operands("normal", 256, 256, 256)
    x, w = fastnn.tensor(a), fastnn.tensor(b)
    program = fastnn.capture(lambda x: launch.matmul(x, w))
    for precision in (*PRECISIONS, *PRECISIONS):
        fastnn.set_float32_matmul_precision(precision)
        expected = launch.matmul(x, w).numpy().tobytes()
        for _ in range(3):
            assert program(x).numpy().tobytes() == expected, precision


def test_the_setting():
    assert fastnn.get_float32_matmul_precision() == "highest"
    for precision in PRECISIONS:
        fastnn.set_float32_matmul_precision(precision)
        assert fastnn.get_float32_matmul_precision() == precision
    for wrong in ("low", None, 1):
        with pytest.raises(ValueError, match="must be 'highest', 'high' or 'medium'"):
            fastnn.set_float32_matmul_precision(wrong)
    assert fastnn.get_float32_matmul_precision() == "medium"


@needs_amx
@pytest.mark.parametrize("isa", ["avx512", "amx"])
def test_the_environment_caps_the_level(isa):
    code = "from fastnn import _core; print(_core.get_isa(), _core.isa_reason())"
    assert programs.output(code, FASTNN_ISA=isa).split() == [isa, f"FASTNN_ISA={isa}"]
