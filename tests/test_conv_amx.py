"""Convolutions on bfloat16 matrix units: against float64 and multiply-adds, bits, what is not finite, programs."""

import numpy as np
import pytest
from amx import needs_amx
from test_conv import Case, check, check_sums_in_place, lay_out
from training import steps

import fastnn
from fastnn import _core, nn
from fastnn._core import launch
from fastnn.testing.checks import forced_threads

pytestmark = needs_amx
PRECISIONS = ("highest", "high", "medium")
NAMES = ("y", "dx", "dweight")
# Blocks of rows, of columns and of images; several panels, boxes and parts; tails everywhere.
LARGE = [
    dict(n=1, c=40, k=33, h=30, w=31, r=3, s=3, padding=(1, 1, 1, 1)),
    dict(n=1, c=20, k=33, h=2, w=700, r=1, s=5, padding=(0, 0, 2, 2)),
    dict(n=19, c=33, k=40, h=7, w=7, r=3, s=3, padding=(1, 1, 1, 1)),
    dict(n=3, c=70, k=100, h=14, w=13, r=1, s=1, padding=(0, 0, 0, 0)),
    dict(n=3, c=65, k=48, h=29, w=28, r=1, s=1, padding=(0, 0, 0, 0), stride=(2, 2)),
    dict(n=2, c=34, k=67, h=27, w=30, r=3, s=3, padding=(1, 1, 1, 1), stride=(2, 2)),
    dict(n=1, c=33, k=20, h=25, w=22, r=7, s=7, padding=(3, 2, 3, 1), stride=(2, 3), dilation=(1, 2)),
    dict(n=1, c=300, k=270, h=4, w=4, r=1, s=2, padding=(0, 0, 1, 0)),
    dict(n=5, c=192, k=161, h=14, w=13, r=1, s=1, padding=(0, 0, 0, 0)),  # matrix products
    dict(n=5, c=601, k=259, h=7, w=8, r=1, s=1, padding=(0, 0, 0, 0)),
]


@pytest.fixture(autouse=True)
def settings():
    isa = _core.get_isa()
    _core.set_isa("amx")
    fastnn.set_conv_algorithm("parts")
    yield
    fastnn.set_float32_matmul_precision("highest")
    fastnn.set_conv_algorithm("auto")
    _core.set_isa(isa)


def case_of(seed, **fixed):
    """A convolution that matrix units can take."""
    stride = tuple(int(v) for v in np.random.default_rng(seed).choice([1, 1, 2, 3, 4], 2))
    return Case(seed, **({"groups": 1, "stride": stride} | fixed))


def large(sizes, **fixed):
    return case_of(7, **({"bias": False, "stride": (1, 1), "dilation": (1, 1)} | sizes | fixed))


def run(case, precision="highest", algorithm="parts", isa="amx", layout="nhwc"):
    _core.set_isa(isa)
    fastnn.set_float32_matmul_precision(precision)
    fastnn.set_conv_algorithm(algorithm)
    return case.run(layout)


def bits(results):
    return [r.tobytes() for r in results]


def scale(case, kind):
    """Operands of one kind: well scaled; all positive, where errors of one sign would add up; of many magnitudes; with
    channels and images of very different sizes."""
    rng = np.random.default_rng(3)
    if kind == "positive":
        case.x, case.weight, case.dy = abs(case.x), abs(case.weight), abs(case.dy)
    elif kind == "wide":
        for array in (case.x, case.weight, case.dy):
            array *= 2.0 ** rng.integers(-40, 40, array.shape)
    elif kind == "rows":
        case.x *= 2.0 ** rng.integers(-40, 40, (case.n, 1, 1, 1))
        case.dy *= 2.0 ** rng.integers(-40, 40, (1, case.k, 1, 1))
        case.weight *= 2.0 ** rng.integers(-40, 40, (case.k, 1, 1, 1))
    return case


def errors(case, results):
    """Worst and root mean square of each pass's error, each element's relative to its sum over absolute values."""
    wanted, sizes = case.reference()
    both = []
    for got, want, size in zip(results, wanted, sizes):
        error = abs(got - want)[size > 0] / size[size > 0]
        both.append((error.max(), np.sqrt((error**2).mean())))
    return both


@pytest.mark.parametrize("block", range(8))
def test_random_convolutions_match_the_reference(block):
    for seed in range(block * 16, block * 16 + 16):
        case = case_of(seed)
        check(case, run(case, layout=("nhwc", "nhwc", "nchw", "strided")[seed % 4]))


@pytest.mark.parametrize("kind", ["normal", "positive", "wide", "rows"])
@pytest.mark.parametrize("sizes", LARGE, ids=str)
def test_highest_is_as_accurate_as_multiply_adds(sizes, kind):
    case = scale(large(sizes), kind)
    ours, theirs = run(case), run(case, algorithm="direct", isa="avx512")
    assert all(a != b for a, b in zip(bits(ours), bits(theirs))), "this does not test the matrix units"
    # Where one product outweighs all others, a multiply-add's one rounding is the best there can be; six parts have six.
    factor, least = (1.5, 6 * 2.0**-24) if kind in ("wide", "rows") else (1, 0)
    for name, (worst, mean), (worst_fma, mean_fma) in zip(NAMES, errors(case, ours), errors(case, theirs)):
        assert worst <= max(factor * worst_fma, least) and mean <= factor * mean_fma, name


@pytest.mark.parametrize("precision, bound", [("high", 2.0**-15), ("medium", 2.0**-7)])
@pytest.mark.parametrize("kind", ["normal", "positive", "wide"])
def test_fewer_parts_are_less_accurate_by_as_much_as_they_say(precision, bound, kind):
    for sizes in LARGE[2:6]:
        case = scale(large(sizes), kind)
        few, all_parts = errors(case, run(case, precision)), errors(case, run(case))
        for name, (worst, mean), (_, least) in zip(NAMES, few, all_parts):
            assert least < mean and worst < bound, f"{name} of {case}"


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("sizes", LARGE, ids=str)
def test_threads_and_layouts_change_no_bit(sizes, precision):
    case = large(sizes, bias=True)
    with forced_threads(1):
        first = bits(run(case, precision))
    for threads, layout in ((2, "nchw"), (3, "nhwc"), (8, "strided")):
        with forced_threads(threads):
            assert bits(run(case, precision, layout=layout)) == first, f"{threads} threads, {layout}"


@pytest.mark.parametrize("sizes", [
    dict(n=3, c=520, k=33, h=14, w=13, r=3, s=3, padding=(1, 1, 1, 1), stride=(2, 2)),  # channels that come in stages
    dict(n=5, c=1100, k=40, h=7, w=7, r=1, s=1, padding=(0, 0, 0, 0)),
    dict(n=1, c=34, k=1100, h=9, w=9, r=1, s=1, padding=(0, 0, 0, 0)),                  # boxes of the gradient, panels
    dict(n=1, c=700, k=40, h=4, w=5, r=3, s=3, padding=(1, 1, 1, 1)),
], ids=str)
def test_many_channels(sizes):
    case = large(sizes, bias=True)
    with forced_threads(2):
        first = run(case)
    check(case, first)
    with forced_threads(3):
        assert bits(run(case, layout="nchw")) == bits(first)


def test_gradients_are_adjoints():
    for sizes in LARGE:
        case = large(sizes)
        y, dx, dweight = (a.astype(np.float64) for a in run(case))
        products = [(y * case.dy).sum(), (dx * case.x).sum(), (dweight * case.weight).sum()]
        size = np.sqrt((y**2).sum() * (case.dy.astype(np.float64) ** 2).sum())
        assert np.ptp(products) < 1e-6 * size, case


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, np.float32(3.4e38)], ids=str)
@pytest.mark.parametrize("which", ["x", "weight", "dy"])
def test_a_call_with_a_value_that_is_not_finite_is_made_of_multiply_adds(precision, value, which):
    """3.4e38 is finite, but rounds to infinity."""
    sizes = [dict(c=40, k=70, r=3, s=3, stride=(stride, stride), padding=(1, 1, 1, 1)) for stride in (1, 2)]
    for size in (*sizes, dict(c=256, k=192, r=1, s=1, stride=(1, 1), padding=(0, 0, 0, 0))):
        case = case_of(1, n=2, h=11, w=12, dilation=(1, 1), **size)
        getattr(case, which)[1, 1, -1, -1] = value
        with np.errstate(all="ignore"):
            got, wanted = bits(run(case, precision)), bits(run(case, algorithm="direct", isa="avx512"))
        for k in {"x": (0, 2), "weight": (0, 1), "dy": (1, 2)}[which]:
            assert got[k] == wanted[k], f"{NAMES[k]}, {size}"


def test_so_is_one_whose_sums_overflow():
    case = case_of(1, n=2, c=40, k=70, h=11, w=12, r=3, s=3, stride=(1, 1), dilation=(1, 1), padding=(1, 1, 1, 1))
    case.x, case.weight, case.dy = (abs(a) * np.float32(2.0**66) for a in (case.x, case.weight, case.dy))
    with np.errstate(all="ignore"):
        got, wanted = run(case), run(case, algorithm="direct", isa="avx512")
    assert all(np.isinf(w).any() for w in wanted) and bits(got) == bits(wanted)


def test_values_that_no_window_reads_do_not_matter():
    case = case_of(1, n=2, c=33, k=35, h=11, w=10, r=3, s=3, stride=(2, 2), dilation=(1, 1), padding=(0, 0, 0, 0))
    clean = bits(run(case))[0]
    big = np.full((2, 33, 13, 12), np.nan, np.float32)
    big[:, :, :11, :10] = case.x
    inner = lay_out(big, "nhwc")[:, :, :11, :10]
    bias = None if case.b is None else fastnn.tensor(case.b)
    y = launch.conv2d_forward(inner, fastnn.tensor(case.weight), bias, **case.attributes)
    assert y.numpy().tobytes() == clean


@pytest.mark.parametrize("other", [dict(groups=2), dict(stride=(5, 1)), dict(r=8, s=8), dict(dtype=np.float64)])
def test_other_convolutions_are_direct(other):
    case = case_of(0, **({"n": 2, "c": 32, "k": 32, "h": 20, "w": 20, "stride": (1, 1), "dilation": (1, 1)} | other))
    assert bits(run(case)) == bits(run(case, algorithm="direct", isa="avx512"))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_cost_model_takes_large_layers_only(precision):
    """Reports say which way a pass goes. Few channels or pixels stay where they are; strided 3x3 layers move."""
    fastnn.set_conv_algorithm("auto")
    fastnn.set_float32_matmul_precision(precision)

    def ways(n, c, k, size, window, stride, padding):
        out = (size + 2 * padding - window) // stride + 1
        x, weight, dy = fastnn.zeros(n, c, size, size), fastnn.zeros(k, c, window, window), fastnn.zeros(n, k, out, out)
        options = {"stride": (stride, stride), "padding": (padding,) * 4, "dilation": (1, 1), "groups": 1}
        return [launch.conv2d_forward.algorithm(x, weight, **options),
                launch.conv2d_backward_input.algorithm(dy, weight, input=(size, size), **options),
                launch.conv2d_backward_weight.algorithm(dy, x, kernel=(window, window), **options)]

    assert ways(16, 1024, 512, 14, 1, 1, 0) == ["bfloat16 parts"] * 3
    assert ways(16, 128, 256, 28, 3, 2, 1)[:2] == ["bfloat16 parts"] * 2
    assert ways(4, 3, 64, 32, 3, 1, 1) == ["direct"] * 3
    assert ways(1, 16, 16, 4, 3, 2, 1) == ["direct"] * 3
    assert ways(4, 16, 32, 28, 1, 1, 0) == ["direct"] * 3
    large = "winograd in bfloat16 parts" if precision == "highest" else "bfloat16 parts"
    assert ways(16, 128, 128, 28, 3, 1, 1)[0] == large
    assert precision != "highest" or ways(16, 64, 64, 28, 3, 1, 1) == ["winograd"] * 3


# ---- programs ----


def network():
    fastnn.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 34, 3, padding=1), nn.ReLU(), nn.Conv2d(34, 40, 3, stride=2, padding=1), nn.ReLU(),
                         nn.Conv2d(40, 36, 1, bias=False), nn.BatchNorm2d(36), nn.ReLU(), nn.Conv2d(36, 20, 1, stride=2),
                         nn.ReLU(), nn.Flatten(), nn.Linear(20 * 4 * 4, 3))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("threads", [1, 3])
def test_captured_steps_keep_every_bit(threads, precision):
    fastnn.set_float32_matmul_precision(precision)
    rng = np.random.default_rng(0)
    images = [fastnn.tensor(rng.standard_normal((4, 3, 15, 14)).astype(np.float32)) for _ in range(3)]
    with forced_threads(threads):
        losses, weights, _ = steps(network(), False, images)
        replayed, others, program = steps(network(), True, images)
    assert program.obstacle is None and program.replays == 3
    fusions = program.prepared(images[0])[0].fusions()
    assert fusions["elementwise_behind"] and fusions["activation_into_product"]
    assert replayed == losses and others == weights


@pytest.mark.parametrize("threads", [1, 3])
def test_captured_steps_that_meet_infinities_write_once(threads):
    """The third batch is not finite: its calls are made again, with all that runs behind them."""
    rng = np.random.default_rng(0)
    images = [fastnn.tensor(rng.standard_normal((4, 3, 15, 14)).astype(np.float32)) for _ in range(2)]
    images.append(fastnn.tensor(np.full((4, 3, 15, 14), 3.4e38, np.float32)))
    with np.errstate(all="ignore"), forced_threads(threads):
        losses, weights, _ = steps(network(), False, images, 3)
        replayed, others, program = steps(network(), True, images, 3)
    assert program.obstacle is None and program.replays == 1
    assert np.array_equal(replayed, losses, equal_nan=True) and others == weights


def test_what_runs_behind_a_call_in_place_runs_once():
    check_sums_in_place(33, 40, np.inf)


def test_a_program_is_captured_anew_when_the_precision_changes():
    case = large(LARGE[0], c=40, k=40, h=12, w=12)
    x, weight = fastnn.tensor(case.x), fastnn.tensor(case.weight)
    program = fastnn.capture(lambda x: launch.conv2d_forward(x, weight, None, **case.attributes))
    for precision in (*PRECISIONS, *PRECISIONS):
        fastnn.set_float32_matmul_precision(precision)
        expected = launch.conv2d_forward(x, weight, None, **case.attributes).numpy().tobytes()
        for _ in range(3):
            assert program(x).numpy().tobytes() == expected, precision
