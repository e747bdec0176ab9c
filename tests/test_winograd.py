"""Convolutions through Winograd's transforms: against float64 and direct sums, repetition, infinities."""

import numpy as np
import pytest
from amx import needs_amx
from test_conv import Case, check_sums_in_place, lay_out
from training import steps

import fastnn
import fastnn.functional as F
from fastnn import _core, nn
from fastnn._core import launch
from fastnn.testing.checks import forced_threads

ISAS = _core.available_isas()
ALGORITHMS = ("auto", "direct", "winograd")
NAMES = ("y", "dx", "dweight")


@pytest.fixture(autouse=True)
def restore_settings():
    isa = _core.get_isa()
    yield
    _core.set_isa(isa)
    fastnn.set_conv_algorithm("auto")


def case_of(seed, **fixed):
    """A convolution that Winograd's way can take."""
    rng = np.random.default_rng(seed)
    sizes = {"groups": 1, "r": 3, "s": 3, "stride": (1, 1), "dilation": (1, 1), "h": int(rng.integers(1, 27)),
             "w": int(rng.integers(1, 27)), "padding": tuple(int(v) for v in rng.integers(0, 3, 4))}
    return Case(seed, **(sizes | fixed))


def phased(seed, stride=None, **fixed):
    """Another: a kernel of twice its stride is a 2 x 2 kernel of stride 1 for each phase of x."""
    rng = np.random.default_rng(100 + seed)
    stride = stride or tuple(int(v) for v in rng.integers(1, 5, 2))
    padding = tuple(int(v) for v in rng.integers(0, 5, 4))
    return case_of(seed, **({"stride": stride, "r": 2 * stride[0], "s": 2 * stride[1], "padding": padding} | fixed))


def uneven(seed, stride=None, **fixed):
    """Kernels longer than their stride, but not twice: some phases of the input's gradient have a single row or column."""
    rng = np.random.default_rng(200 + seed)
    stride = stride or tuple(int(v) for v in rng.integers(1, 5, 2))
    sizes = {"r": int(rng.integers(stride[0] + 1, 2 * stride[0] + 1)), "s": int(rng.integers(stride[1] + 1, 2 * stride[1] + 1)),
             "c": int(rng.integers(17, 71))}
    return phased(seed, stride, **(sizes | fixed))


def grouped(seed, **fixed):
    """Groups of at least sixteen channels."""
    rng = np.random.default_rng(300 + seed)
    return case_of(seed, **({"groups": int(rng.integers(2, 5)), "c": int(rng.choice([16, 17, 24, 32, 40])),
                             "k": int(rng.choice([16, 20, 32, 48]))} | fixed))


def five(seed, **fixed):
    """5 x 5 windows and few input channels."""
    rng = np.random.default_rng(400 + seed)
    sizes = {"r": 5, "s": 5, "n": int(rng.integers(1, 40)), "c": int(rng.integers(1, 20)), "k": int(rng.integers(1, 40)),
             "h": int(rng.integers(5, 30)), "w": int(rng.integers(5, 30))}
    return case_of(seed, **(sizes | fixed))


def run(case, algorithm, layout="nhwc"):
    fastnn.set_conv_algorithm(algorithm)
    return case.run(layout)


def errors(case, results):
    """Root of the mean square error of y, dx, dweight, and of their values."""
    wanted = case.passes(case.x, case.weight, case.b, case.dy)
    return [(np.sqrt(np.mean((got - want) ** 2)), np.sqrt(np.mean(want**2))) for got, want in zip(results, wanted)]


def bits(results):
    return [r.tobytes() for r in results]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("block", range(4))
@pytest.mark.parametrize("make", [case_of, phased, uneven, grouped, five])
def test_random_convolutions_match_float64(isa, block, make):
    _core.set_isa(isa)
    for seed in range(block * 8, block * 8 + 8):
        case = make(seed)
        results = run(case, "winograd", ("nhwc", "nchw", "strided")[seed % 3])
        for name, (error, size) in zip(NAMES, errors(case, results)):
            assert error <= 4e-6 * size + 1e-30, f"{name} of {case}: relative error {error / size:.1e}"


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n, c, k, h, w, groups", [(2, 16, 32, 14, 14, 1), (1, 64, 48, 33, 31, 1), (3, 70, 33, 7, 7, 1),
                                                   (2, 128, 64, 13, 9, 1), (4, 16, 16, 14, 14, 8), (4, 32, 32, 7, 7, 8)])
def test_the_error_is_at_most_six_times_that_of_direct_sums(isa, n, c, k, h, w, groups):
    _core.set_isa(isa)
    case = case_of(n + c, n=n, c=c, k=k, h=h, w=w, groups=groups, padding=(1, 1, 1, 1), bias=False)
    direct, winograd = (errors(case, run(case, a)) for a in ("direct", "winograd"))
    for name, (least, _), (error, _) in zip(NAMES, direct, winograd):
        assert error != least and error <= 6 * least, f"{name} of {case} on {isa}: {error / least:.1f} times direct's error"
        assert isa == "amx" or least < error, "matrix units alone round less often than a chain of multiply-adds"


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n, c, k, h, w, stride", [(2, 16, 32, 28, 28, 2), (1, 64, 48, 33, 31, 2), (3, 70, 33, 12, 15, 3),
                                                   (2, 64, 128, 13, 9, 1)])
def test_phases_keep_that_bound(isa, n, c, k, h, w, stride):
    _core.set_isa(isa)
    case = phased(n + c, n=n, c=c, k=k, h=h, w=w, stride=(stride, stride), padding=(1, 1, 1, 1), bias=False)
    direct, winograd = (errors(case, run(case, a)) for a in ("direct", "winograd"))
    for name, (least, _), (error, _) in zip(NAMES, direct, winograd):
        assert least < error <= 6 * least, f"{name} of {case} on {isa}: {error / least:.1f} times direct's error"


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n, c, k, h, w", [(2, 32, 16, 28, 28), (1, 64, 48, 33, 31), (2, 128, 64, 13, 9)])
def test_uneven_phases_keep_that_bound(isa, n, c, k, h, w):
    _core.set_isa(isa)
    case = phased(n + c, n=n, c=c, k=k, h=h, w=w, r=3, s=3, stride=(2, 2), padding=(1, 1, 1, 1), bias=False)
    direct, winograd = (errors(case, run(case, a))[1][0] for a in ("direct", "winograd"))
    assert direct < winograd <= 6 * direct, f"dx of {case} on {isa}: {winograd / direct:.1f} times direct's error"


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n, size", [(1, 4), (2, 4), (1, 7), (9, 4), (2, 7)])
@pytest.mark.parametrize("make, scale", [(case_of, 1), (phased, 2)])
def test_auto_keeps_that_bound_on_small_maps(isa, n, size, make, scale):
    _core.set_isa(isa)
    case = make(n, n=n, c=256, k=128, h=scale * size, w=scale * size, stride=(scale, scale), padding=(1, 1, 1, 1), bias=False)
    direct, auto = (errors(case, run(case, a)) for a in ("direct", "auto"))
    for name, (least, _), (error, _) in zip(NAMES, direct, auto):
        assert error <= 6 * least, f"{name} of {case} on {isa}: {error / least:.1f} times direct's error"


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n, c, k, h, w", [(64, 6, 16, 14, 14), (32, 3, 64, 9, 11), (16, 8, 32, 20, 15), (2, 16, 40, 9, 14)])
@pytest.mark.parametrize("algorithm", ["winograd", "auto"])
def test_five_keeps_that_bound(isa, n, c, k, h, w, algorithm):
    _core.set_isa(isa)
    case = five(n + c, n=n, c=c, k=k, h=h, w=w, padding=(0, 0, 0, 0), bias=False)
    direct, other = (errors(case, run(case, a)) for a in ("direct", algorithm))
    for name, (least, _), (error, _) in zip(NAMES, direct, other):
        assert error <= 6 * least, f"{name} of {case} on {isa}: {error / least:.1f} times direct's error"
        taken = algorithm == "winograd" and (name != "dx" or c <= 16 and isa in ("amx", "avx512") or c <= 8 and isa == "avx2")
        assert error != least or not taken, f"{name} of {case} on {isa} was direct"


@pytest.mark.parametrize("sizes", [
    dict(n=3, c=64, k=64, h=30, w=30),                                  # blocks of rows
    dict(n=1, c=40, k=33, h=6, w=400),                                  # blocks of columns
    dict(n=83, c=20, k=24, h=7, w=7),                                   # blocks of images
    dict(n=2, c=96, k=520, h=9, w=9),                                   # the width split
    dict(n=9, c=130, k=70, h=15, w=14, padding=(0, 2, 1, 0)),           # several boxes and parts of the gradient
    dict(n=2, c=256, k=32, h=5, w=6, padding=(3, 3, 4, 4)),             # rows a page apart; windows of padding alone
    dict(n=12, c=500, k=40, h=28, w=28, padding=(1, 1, 1, 1)),          # on matrix units: blocks of all tiles
    dict(n=1, c=512, k=300, h=13, w=14),                                # groups of panels
    dict(n=10, c=40, k=600, h=28, w=28, padding=(1, 1, 1, 1)),          # blocks, groups of the gradient's strips
    dict(n=3, c=64, k=64, h=60, w=60, stride=(2, 2)),                   # the same of phases
    dict(n=1, c=40, k=33, h=11, w=700, stride=(2, 2)),
    dict(n=83, c=20, k=24, h=14, w=13, stride=(2, 2)),
    dict(n=2, c=150, k=520, h=9, w=9, stride=(2, 2)),
    dict(n=9, c=130, k=70, h=21, w=23, stride=(3, 2), padding=(0, 2, 1, 0)),
    dict(n=2, c=64, k=32, h=5, w=6, stride=(4, 4), padding=(9, 8, 4, 11)),
    dict(n=9, c=130, k=70, h=33, w=30, stride=(2, 2), r=3, s=3),        # phases of fewer taps
    dict(n=1, c=40, k=33, h=11, w=700, stride=(2, 3), r=3, s=5),
    dict(n=9, c=16, k=16, h=14, w=13, groups=5),                        # groups
    dict(n=2, c=70, k=130, h=9, w=30, groups=3),
    dict(r=5, s=5, n=70, c=6, k=16, h=14, w=14),                        # 5 x 5: the last block of images is not full
    dict(r=5, s=5, n=19, c=3, k=33, h=9, w=8, padding=(2, 1, 0, 3)),    # odd maps, a panel of one channel
    dict(r=5, s=5, n=2, c=7, k=20, h=30, w=90, padding=(2, 2, 2, 2)),   # blocks of columns
    dict(r=5, s=5, n=40, c=1, k=5, h=5, w=6),                           # blocks of images
    dict(r=5, s=5, n=3, c=32, k=40, h=12, w=11, padding=(4, 0, 6, 5)),  # windows of padding alone
])
def test_blocks_parts_threads_and_layouts(sizes):
    case = (phased if "stride" in sizes else five if "r" in sizes else case_of)(3, **sizes)
    with forced_threads(1):
        first = run(case, "winograd")
    for name, (error, size) in zip(NAMES, errors(case, first)):
        assert error <= 4e-6 * size, f"{name} of {case}"
    for threads, layout in ((2, "nchw"), (3, "nhwc"), (8, "strided")):
        with forced_threads(threads):
            again = run(case, "winograd", layout)
        assert bits(again) == bits(first), f"{case}, {threads} threads, {layout}"


@pytest.mark.parametrize("make, c", [(case_of, 48), (phased, 48), (grouped, 48), (five, 7)])
def test_gradients_are_adjoints(make, c):
    case = make(5, n=2, c=c, k=40, h=13, w=18, padding=(1, 0, 2, 1), bias=False)
    y, dx, dweight = (a.astype(np.float64) for a in run(case, "winograd"))
    products = [(y * case.dy).sum(), (dx * case.x).sum(), (dweight * case.weight).sum()]
    scale = np.sqrt((y**2).sum() * (case.dy.astype(np.float64) ** 2).sum())
    assert np.ptp(products) < 1e-6 * scale


@pytest.mark.parametrize("isa", [isa for isa in ISAS if isa != "amx"])
def test_the_setting_decides(isa):
    _core.set_isa(isa)
    case = case_of(0, n=2, c=64, k=64, h=28, w=28, padding=(1, 1, 1, 1))
    results = {a: bits(run(case, a)) for a in ALGORITHMS}
    assert results["auto"] == results["winograd"]
    assert all(a != b for a, b in zip(results["direct"], results["winograd"]))
    few = case_of(0, n=2, c=3, k=8, h=28, w=28, padding=(1, 1, 1, 1))
    results = {a: bits(run(few, a)) for a in ALGORITHMS}
    assert results["auto"] == results["direct"] != results["winograd"]


@pytest.mark.parametrize("algorithm, way", [("auto", "winograd"), ("direct", "direct")])
def test_reports_can_ask_which_way_a_pass_goes(algorithm, way):
    _core.set_isa([isa for isa in _core.available_isas() if isa != "amx"][-1])
    fastnn.set_conv_algorithm(algorithm)
    x, weight = fastnn.zeros(2, 64, 28, 28), fastnn.zeros(64, 64, 3, 3)
    options = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1}
    assert launch.conv2d_forward.algorithm(x, weight, **options) == way
    assert launch.conv2d_backward_input.algorithm(x, weight, input=(28, 28), **options) == way
    assert launch.conv2d_backward_weight.algorithm(x, x, kernel=(3, 3), **options) == way
    assert launch.conv2d_forward.algorithm(x, weight, **options | {"stride": (2, 2)}) == "direct"
    x, dy, weight = fastnn.zeros(4, 64, 32, 32), fastnn.zeros(4, 64, 16, 16), fastnn.zeros(64, 64, 4, 4)
    options = options | {"stride": (2, 2)}
    assert launch.conv2d_forward.algorithm(x, weight, **options) == way
    assert launch.conv2d_backward_input.algorithm(dy, weight, input=(32, 32), **options) == way
    assert launch.conv2d_backward_weight.algorithm(dy, x, kernel=(4, 4), **options) == way


@pytest.mark.parametrize("isa", [isa for isa in ISAS if isa != "scalar"])
def test_five_is_taken_for_lenets_second_layer(isa):
    _core.set_isa(isa)
    x, dy, weight = fastnn.zeros(64, 6, 14, 14), fastnn.zeros(64, 16, 10, 10), fastnn.zeros(16, 6, 5, 5)
    options = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1}
    assert launch.conv2d_forward.algorithm(x, weight, **options) == "winograd"
    assert launch.conv2d_backward_input.algorithm(dy, weight, input=(14, 14), **options) == "winograd"
    assert launch.conv2d_backward_weight.algorithm(dy, x, kernel=(5, 5), **options) == "winograd"
    assert launch.conv2d_forward.algorithm(x[:, :1], weight[:, :1], **options) == "direct"


@needs_amx
def test_matrix_units_multiply_where_the_setting_or_the_cost_says():
    """Of a call whose three passes take them unasked: other bits, and errors smaller than those of multiply-adds."""
    _core.set_isa("amx")
    case = case_of(0, n=8, c=256, k=256, h=14, w=14, padding=(1, 1, 1, 1), bias=False)
    results = {a: run(case, a) for a in ALGORITHMS}
    assert bits(results["auto"]) == bits(results["winograd"])
    _core.set_isa("avx512")
    results["multiply-adds"] = run(case, "winograd")
    measured = {a: errors(case, result) for a, result in results.items()}
    for k, name in enumerate(NAMES):
        assert measured["winograd"][k][0] < measured["multiply-adds"][k][0], name
        assert measured["winograd"][k][0] <= 6 * measured["direct"][k][0], name


@pytest.mark.parametrize("other", [dict(stride=(1, 2)), dict(dilation=(2, 1)), dict(groups=2, k=15), dict(r=1), dict(s=5),
                                   dict(dtype=np.float64), dict(r=4, s=4), dict(r=10, s=10, stride=(5, 5)),
                                   dict(r=4, s=4, stride=(2, 2), groups=2), dict(r=4, s=4, stride=(2, 2), dilation=(1, 2)),
                                   dict(r=5, s=5, c=33), dict(r=5, s=5, c=6, stride=(2, 2)), dict(r=5, s=5, c=6, dilation=(1, 2)),
                                   dict(r=5, s=5, c=6, groups=2, k=12), dict(r=5, s=5, c=6, dtype=np.float64), dict(r=5, c=6)])
def test_other_convolutions_are_direct(other):
    case = case_of(0, **({"n": 2, "c": 32, "k": 32, "h": 20, "w": 20, "padding": (1, 1, 2, 2)} | other))
    assert bits(run(case, "winograd")) == bits(run(case, "direct"))


def test_strides_whose_products_overflow_are_direct():
    """2^40 * 2^24 is 0 in 64 bits."""
    rng = np.random.default_rng(0)
    x, dy = (fastnn.tensor(rng.standard_normal(shape).astype(np.float32)) for shape in ((4, 6, 14, 14), (4, 16, 1, 1)))
    weight = fastnn.tensor(rng.standard_normal((16, 6, 5, 5)).astype(np.float32))
    far = {"stride": (2**40, 2**24), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1}
    results = {}
    for algorithm in ("direct", "winograd"):
        fastnn.set_conv_algorithm(algorithm)
        y = launch.conv2d_forward(x, weight, None, **far)
        dx = launch.conv2d_backward_input(dy, weight, None, input=(14, 14), **far)
        dweight = launch.conv2d_backward_weight(dy, x, kernel=(5, 5), **far)
        results[algorithm] = bits(t.numpy() for t in (y, dx, dweight))
    assert results["direct"] == results["winograd"]


def test_setting_errors():
    for algorithm in ALGORITHMS:
        fastnn.set_conv_algorithm(algorithm)
        assert fastnn.get_conv_algorithm() == algorithm
    for wrong in ("fft", None, 1):
        with pytest.raises(ValueError, match="must be 'auto', 'direct', 'winograd' or 'parts'"):
            fastnn.set_conv_algorithm(wrong)
    assert fastnn.get_conv_algorithm() == "winograd"


# ---- what is not finite ----


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3e38])
@pytest.mark.parametrize("which", ["x", "weight", "dy"])
@pytest.mark.parametrize("make, stride, c", [(case_of, (1, 1), 20), (phased, (2, 2), 20), (uneven, (2, 2), 20),
                                             (grouped, (1, 1), 20), (five, (1, 1), 6)])
def test_a_value_that_is_not_finite_makes_the_call_direct(isa, value, which, make, stride, c):
    """3e38 is finite, but its transform is not."""
    _core.set_isa(isa)
    case = make(1, n=2, c=c, k=35, h=10, w=9, stride=stride, padding=(1, 1, 1, 1), bias=True)
    array = getattr(case, which)
    array[tuple(s - 1 for s in array.shape)] = value
    if which == "x":
        array[0, 3, 4, 4] = value
    with np.errstate(all="ignore"):
        direct, winograd = bits(run(case, "direct")), bits(run(case, "winograd"))
    touched = {"x": (0, 2), "weight": (0, 1), "dy": (1, 2)}[which]
    for k in touched:
        assert winograd[k] == direct[k], f"{NAMES[k]} with {value} in {which}"


@pytest.mark.parametrize("make", [case_of, phased, five])
def test_values_that_no_window_reads_do_not_matter(make):
    case = make(1, n=1, c=16, k=16, h=11, w=10, padding=(0, 0, 0, 0), bias=False)
    clean = bits(run(case, "winograd"))[0]
    big = np.full((1, 16, 13, 12), np.nan, np.float32)
    big[:, :, :11, :10] = case.x
    inner = lay_out(big, "nhwc")[:, :, :11, :10]
    fastnn.set_conv_algorithm("winograd")
    y = launch.conv2d_forward(inner, fastnn.tensor(case.weight), None, **case.attributes)
    assert y.numpy().tobytes() == clean


# ---- programs ----


def network(seed=0):
    fastnn.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 16, 5, padding=2), nn.ReLU(),
                         nn.Conv2d(16, 20, 3, padding=1), nn.ReLU(),
                         nn.Conv2d(20, 18, 3), nn.BatchNorm2d(18), nn.ReLU(), nn.Conv2d(18, 40, 3, padding=2), nn.ReLU(),
                         nn.Conv2d(40, 24, 4, stride=2), nn.ReLU(), nn.ConvTranspose2d(24, 20, 4, stride=2, padding=1),
                         nn.ReLU(), nn.Conv2d(20, 24, 3, stride=2), nn.ReLU(), nn.ConvTranspose2d(24, 18, 3, stride=2),
                         nn.ReLU(), nn.Flatten(), nn.Linear(18 * 11 * 11, 3))


@pytest.mark.parametrize("threads", [1, 3])
def test_captured_steps_keep_every_bit(threads):
    fastnn.set_conv_algorithm("winograd")
    rng = np.random.default_rng(0)
    images = [fastnn.tensor(rng.standard_normal((4, 3, 15, 14)).astype(np.float32)) for _ in range(3)]
    with forced_threads(threads):
        losses, weights, _ = steps(network(), False, images)
        replayed, others, program = steps(network(), True, images)
    assert program.obstacle is None and program.replays == 3
    assert replayed == losses and others == weights


@pytest.mark.parametrize("threads", [1, 3])
def test_captured_steps_that_turn_direct_write_once(threads):
    """The third batch overflows in a transform: its calls are made again, with all that runs behind them."""
    fastnn.set_conv_algorithm("winograd")
    rng = np.random.default_rng(0)
    images = [fastnn.tensor(rng.standard_normal((4, 3, 15, 14)).astype(np.float32)) for _ in range(4)]
    images[2] = fastnn.tensor(np.full((4, 3, 15, 14), 2e37, np.float32))
    with np.errstate(all="ignore"), forced_threads(threads):
        losses, weights, _ = steps(network(), False, images, 3)
        replayed, others, program = steps(network(), True, images, 3)
    assert program.obstacle is None and program.replays == 1
    assert np.array_equal(replayed, losses, equal_nan=True) and others == weights


def test_what_runs_behind_a_call_in_place_runs_once():
    fastnn.set_conv_algorithm("winograd")
    check_sums_in_place(16, 24, 3e38)


def test_a_program_is_captured_anew_when_the_algorithm_changes():
    case = case_of(0, n=1, c=32, k=32, h=12, w=12, padding=(1, 1, 1, 1), bias=False)
    x, weight = fastnn.tensor(case.x), fastnn.tensor(case.weight)
    program = fastnn.capture(lambda x: F.conv2d(x, weight, padding=1))
    for algorithm in (*ALGORITHMS, *ALGORITHMS):
        fastnn.set_conv_algorithm(algorithm)
        expected = F.conv2d(x, weight, padding=1).numpy().tobytes()
        for _ in range(3):
            assert program(x).numpy().tobytes() == expected, algorithm


@pytest.mark.parametrize("kernel, stride", [(3, 1), (4, 2), (6, 3), (3, 2)])
def test_transposed_convolutions_take_it_too(kernel, stride):
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 32, 14, 13), (32, 24, kernel, kernel)))
    bias = fastnn.tensor(rng.standard_normal(24).astype(np.float32))
    got = {}
    for algorithm in ("direct", "winograd"):
        fastnn.set_conv_algorithm(algorithm)
        a, w = fastnn.tensor(x, requires_grad=True), fastnn.tensor(weight, requires_grad=True)
        y = F.conv_transpose2d(a, w, bias, stride=stride, padding=1)
        (y**2).mean().backward()
        got[algorithm] = [t.numpy() for t in (y.detach(), a.grad, w.grad)]
    for direct, winograd in list(zip(*got.values()))[:1 if kernel % stride else 3]:
        assert 0 < abs(direct - winograd).max() < 1e-5 * abs(direct).max()
