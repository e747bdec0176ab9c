"""Fusion rules: each is applied where it should, changes no bit, writes nothing lasting before a call that may fail."""

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import _core, nn, optim
from fastnn._core import launch
from fastnn.program import capture
from fastnn.testing.checks import forced_threads
from training import classifier_step, steps


def images(n=4, channels=3, size=12, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, channels, size, size))
    return fastnn.tensor(x, dtype=fastnn.float32)


class ResidualBlock(nn.Module):
    """Convolution, normalisation, the input added, ReLU."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x):
        return F.relu(self.norm(self.conv(x)) + x)


NETWORKS = {
    "update behind linear's weight gradient": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(432, 300)), 1),
    "few rows of a weight gradient": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(432, 5)), 1),
    "update behind a convolution's weight gradient": (lambda: nn.Sequential(nn.Conv2d(3, 20, 3), nn.Flatten()), 1),
    "ReLU's gradient behind pooling's": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()), 2),
    "ReLU's gradient before pooling, behind a linear layer's": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(100, 7)), 1),
    "ReLU's gradient behind a convolution's": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3, stride=2), nn.ReLU(),
                              nn.Conv2d(5, 2, 3), nn.Flatten()), 3),
    "ReLU's gradient before overlapping pooling's": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1), nn.Conv2d(4, 2, 3), nn.Flatten()), 1),
    "sum and ReLU behind normalisation": (lambda: nn.Sequential(ResidualBlock(), ResidualBlock(), nn.Flatten()), 4),
}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_elementwise_calls_run_behind_others_and_change_no_bit(name, threads):
    make, least = NETWORKS[name]

    def train(captured):
        fastnn.manual_seed(0)
        return steps(make(), captured, [images(seed=k) for k in range(6)], 6)

    with forced_threads(threads):
        losses, weights, _ = train(False)
        replayed, others, program = train(True)
    assert program.obstacle is None and program.replays == 4
    counts = [int(line.split()[1]) for line in program.summary().splitlines() if "elementwise_behind" in line]
    assert counts and counts[0] >= least
    assert replayed == losses and others == weights


def test_relu_takes_its_mask_from_the_pooled_map():
    attributes = {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1), "dilation": (1, 1), "ceil_mode": 0}

    def step(x):
        y = launch.relu_forward(x)
        pooled, argmax = launch.max_pool2d_forward(y, **attributes)
        dx = launch.relu_backward(launch.max_pool2d_backward(launch.exp(pooled), argmax, input=(12, 12), **attributes), y)
        return launch.add(dx, x)

    program = capture(step)
    for seed in range(5):
        x = images(seed=seed)
        np.testing.assert_array_equal(program(x).numpy(), step(x).numpy())
    assert "1 relu_gradient_before_pooling" in program.summary()


def test_relu_takes_its_mask_from_the_map_that_was_flattened():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(100, 7))
    program = steps(model, True, [images(seed=k) for k in range(4)], 4)[2]
    assert "1 relu_gradient_before_pooling" in program.summary()
    assert "linear_backward_input > relu_backward" in program.summary()


POOLED = {  # channels, kernel, padding, size, bias, activation, options of the pooling
    "LeNet-5's first layer": (1, 5, 2, (28, 28), True, F.relu, {}),
    "no bias": (3, 3, 0, (12, 10), False, F.relu, {}),
    "no activation": (2, 3, 1, (9, 14), True, None, {}),
    "neither": (1, 4, 0, (9, 9), False, None, {"ceil_mode": True}),
    "positions as a result": (2, 3, 1, (8, 6), True, F.relu, {"return_indices": True}),
}


@pytest.mark.parametrize("isa", _core.available_isas())
@pytest.mark.parametrize("name", POOLED)
@pytest.mark.parametrize("threads, n", [(1, 70), (3, 33)])
def test_pooling_in_a_convolution_of_images_changes_no_bit(isa, name, threads, n):
    """Ties, infinities and NaN among what is pooled; scalar code has no lanes for images."""
    channels, kernel, padding, size, bias, activation, options = POOLED[name]
    before = _core.get_isa()
    _core.set_isa(isa)
    rng = np.random.default_rng(0)
    weight = fastnn.tensor(rng.integers(-2, 3, (5, channels, kernel, kernel)).astype(np.float32))
    add = fastnn.tensor(rng.integers(-2, 3, 5).astype(np.float32)) if bias else None

    def step(x):
        y = F.conv2d(x, weight, add, padding=padding)
        return F.max_pool2d(activation(y) if activation else y, 2, **options)

    program = capture(step)
    try:
        with forced_threads(threads):
            for k in range(4):
                x = rng.integers(-2, 3, (n, channels, *size)).astype(np.float32)
                x[0, 0, 3, 3:5], x[n - 1, -1, 4, 4], x[1, 0, 5, 2] = np.nan, np.inf, -np.inf
                results, expected = program(fastnn.tensor(x)), step(fastnn.tensor(x))
                for got, wanted in zip(*((r,) if isinstance(r, fastnn.Tensor) else r for r in (results, expected))):
                    assert got.numpy().tobytes() == wanted.numpy().tobytes(), k
    finally:
        _core.set_isa(before)
    assert program.obstacle is None and program.replays == 2
    assert ("1 pooling_into_convolution" in program.summary()) == (isa != "scalar"), program.summary()


@pytest.mark.parametrize("threads", [1, 3])
def test_a_pooled_convolution_trains_to_the_same_bits(threads):
    def train(captured):
        fastnn.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(),
                              nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3))
        return steps(model, captured, [images(40, 1, 13, seed=k) for k in range(6)], 6)

    with forced_threads(threads):
        losses, weights, _ = train(False)
        replayed, others, program = train(True)
    assert program.obstacle is None and program.replays == 4
    assert replayed == losses and others == weights
    assert "1 pooling_into_convolution" in program.summary() and "conv2d_forward+relu > max_pool2d_forward" in program.summary()


OTHERS = {
    "few images": dict(n=3),
    "many channels": dict(k=40),
    "overlapping windows": dict(pool=dict(kernel_size=3, stride=2)),
    "windows with padding": dict(pool=dict(kernel_size=2, padding=1)),
    "windows of one row": dict(pool=dict(kernel_size=(1, 2))),
    "windows reaching over the end": dict(size=11, pool=dict(kernel_size=2, ceil_mode=True)),
    "a map that is wanted": dict(keeps=True),
    "float64": dict(dtype=np.float64),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_poolings_stay_apart(name):
    o = dict(n=40, k=6, size=12, pool=dict(kernel_size=2), keeps=False, dtype=np.float32) | OTHERS[name]
    rng = np.random.default_rng(0)
    weight = fastnn.tensor(rng.standard_normal((o["k"], 1, 3, 3)).astype(o["dtype"]))

    def step(x):
        y = F.relu(F.conv2d(x, weight, padding=1))
        pooled = F.max_pool2d(y, **o["pool"])
        return (pooled, y.sum()) if o["keeps"] else (pooled,)

    program = capture(step)
    for _ in range(4):
        x = fastnn.tensor(rng.standard_normal((o["n"], 1, o["size"], o["size"])).astype(o["dtype"]))
        for got, wanted in zip(program(x), step(x)):
            np.testing.assert_array_equal(got.numpy(), wanted.numpy())
    assert program.replays == 2 and "pooling_into_convolution" not in program.summary()


WIDE = [isa for isa in _core.available_isas() if isa not in ("scalar", "neon")]


def first_layer(k, kernel):
    """A step that makes the gradients of a convolution's weight and bias behind ReLU and pooling."""
    rng = np.random.default_rng(0)
    weight = fastnn.tensor(rng.standard_normal((k, 1, *kernel)).astype(np.float32), requires_grad=True)
    bias = fastnn.tensor(rng.standard_normal(k).astype(np.float32), requires_grad=True)

    def step(x, dy):
        weight.grad = bias.grad = None
        F.max_pool2d(F.relu(F.conv2d(x, weight, bias, padding=tuple(side // 2 for side in kernel))), 2).backward(dy)
        return weight.grad, bias.grad

    return step


TROUBLE = {
    "none": lambda x, dy: None,
    "an infinity": lambda x, dy: x.__setitem__((0, 0, 3, 4), np.inf),
    "NaN": lambda x, dy: x.__setitem__((-1, 0, 3, 4), np.nan),
    "an infinite gradient": lambda x, dy: dy.__setitem__((0, 1, 1, 1), np.inf),
    "a gradient that is NaN": lambda x, dy: dy.__setitem__((-1, 0, 0, 1), np.nan),
    "underflow": lambda x, dy: (np.multiply(abs(x), 1e-25, out=x), np.multiply(-abs(dy), 1e-25, out=dy)),
    "signs of zeros": lambda x, dy: (x.fill(1e-30), dy.fill(-0.0), dy.__setitem__((slice(None), slice(None), 0, 0), -1e-30)),
    "negative zeros": lambda x, dy: dy.fill(-0.0),
}


@pytest.mark.parametrize("isa", WIDE)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("n, k, kernel, pooled", [(40, 6, (5, 5), (14, 14)), (3, 8, (5, 7), (5, 6)), (1, 2, (7, 6), (20, 19)),
                                                  (5, 5, (7, 8), (3, 60))])
@pytest.mark.parametrize("trouble", TROUBLE)
def test_gradients_of_a_first_layer_are_made_of_pooled_ones(isa, threads, n, k, kernel, pooled, trouble):
    before, step = _core.get_isa(), first_layer(k, kernel)
    _core.set_isa(isa)
    rng = np.random.default_rng(1)
    program = capture(step)
    size = tuple(2 * extent - 1 + side % 2 for extent, side in zip(pooled, kernel))  # padding enlarges the map of an even kernel
    try:
        with forced_threads(threads):
            for _ in range(4):
                x, dy = (rng.standard_normal((n, *shape)).astype(np.float32) for shape in ((1, *size), (k, *pooled)))
                TROUBLE[trouble](x, dy)
                inputs = fastnn.tensor(x), fastnn.tensor(dy).contiguous(memory_format=fastnn.channels_last)
                results = [got.numpy().copy() for got in program(*inputs)]
                for got, wanted in zip(results, step(*inputs)):
                    assert got.tobytes() == wanted.numpy().tobytes()
    finally:
        _core.set_isa(before)
    assert program.obstacle is None and program.replays == 2
    fused = ("2 pooling_gradient_into_readers" in program.summary(), "max_pool2d_backward > sum" in program.summary())
    assert fused == (k < 7 or isa != "avx2",) * 2, program.summary()  # channels that fill a vector of AVX2 have their own way


def second_layer(k, shape, width, padding, flattens):
    """A step that makes all gradients of a convolution of maps, which are pooled, and perhaps flattened as for a linear layer."""
    rng, c = np.random.default_rng(0), shape[1]
    shift = fastnn.zeros(*shape).contiguous(memory_format=fastnn.channels_last).requires_grad_()
    weight = fastnn.tensor(rng.standard_normal((k, c, 5, width)).astype(np.float32), requires_grad=True)
    bias = fastnn.tensor(rng.standard_normal(k).astype(np.float32), requires_grad=True)

    def step(x, dy):
        weight.grad = bias.grad = shift.grad = None
        y = F.max_pool2d(F.relu(F.conv2d(x + shift, weight, bias, padding=padding)), 2)
        (y.flatten(1) if flattens else y).backward(dy)
        return weight.grad, bias.grad, shift.grad

    return step


@pytest.mark.parametrize("isa", WIDE)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("n, c, k, width, padding, size, flattens", [(40, 6, 16, 5, 0, (14, 14), True), (47, 6, 16, 5, 2, (12, 16), False),
                                                                     (3, 5, 12, 5, 1, (24, 30), True), (35, 4, 5, 7, 3, (11, 13), True)])
@pytest.mark.parametrize("trouble", TROUBLE)
def test_gradients_of_a_second_layer_are_made_of_pooled_ones(isa, threads, n, c, k, width, padding, size, flattens, trouble):
    before, step = _core.get_isa(), second_layer(k, (n, c, *size), width, padding, flattens)
    _core.set_isa(isa)
    rng = np.random.default_rng(1)
    program = capture(step)
    pooled = tuple((extent + 2 * padding + 1 - side) // 2 for extent, side in zip(size, (5, width)))
    try:
        with forced_threads(threads):
            for _ in range(4):
                x, dy = (rng.standard_normal((n, *shape)).astype(np.float32) for shape in ((c, *size), (k, *pooled)))
                TROUBLE[trouble](x, dy)
                inputs = [fastnn.tensor(t).contiguous(memory_format=fastnn.channels_last) for t in (x, dy)]
                if flattens: inputs[1] = fastnn.tensor(dy.reshape(n, -1))
                results = [got.numpy().copy() for got in program(*inputs)]
                for got, wanted in zip(results, step(*inputs)):
                    assert got.tobytes() == wanted.numpy().tobytes()
    finally:
        _core.set_isa(before)
    assert program.obstacle is None and program.replays == 2
    wide = isa not in ("avx2",) and n >= 32 and width == 5  # F(2x2, 5x5) of many images, rows of a vector or two
    assert ("3 pooling_gradient_into_readers" in program.summary()) == wide, program.summary()


@pytest.mark.parametrize("given, size, reads", [(True, 12, False), (False, 13, False), (False, 12, True), (False, 12, False)])
def test_pooled_gradients_are_spread_out_for_all_others(given, size, reads):
    """Positions that no pooling found, windows that leave a row over, a map's gradient that is read otherwise; and none of these."""
    window = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, 1), "ceil_mode": 0}
    attributes = {"stride": (1, 1), "padding": (2, 2, 2, 2), "dilation": (1, 1), "groups": 1}
    rng = np.random.default_rng(0)
    weight = fastnn.tensor(rng.standard_normal((6, 1, 5, 5)).astype(np.float32))

    def step(x, dy, positions):
        y = launch.conv2d_forward(x, weight, None, **attributes)
        y, argmax = launch.max_pool2d_forward(y, **window)
        dx = launch.max_pool2d_backward(dy, positions if given else argmax, input=(size, size), **window)
        return (launch.conv2d_backward_weight(dx, x, kernel=(5, 5), **attributes), launch.sum(dx, axes=13, keepdim=0, divisor=1.0),
                launch.neg(dx) if reads else y)

    program = capture(step)
    for _ in range(4):
        dy = rng.standard_normal((20, 6, 6, 6)).astype(np.float32)
        positions = fastnn.tensor(rng.integers(-2, 8, (20, 6, 6, 6)).astype(np.int32)).contiguous(memory_format=fastnn.channels_last)
        x = fastnn.tensor(rng.standard_normal((20, 1, size, size)).astype(np.float32))
        inputs = x, fastnn.tensor(dy).contiguous(memory_format=fastnn.channels_last), positions
        results = [got.numpy().copy() for got in program(*inputs)]
        for got, wanted in zip(results, step(*inputs)):
            np.testing.assert_array_equal(got, wanted.numpy())
    fused = "2 pooling_gradient_into_readers" in program.summary()
    assert program.replays == 2 and fused == (not given and size == 12 and not reads and _core.get_isa() not in ("scalar", "neon"))


def test_a_bias_gradient_that_underflows_has_the_same_sign():
    """The sum of the map's two pooled gradients is denormal, and flushed to zero."""
    window = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, 1), "ceil_mode": 0}

    def step(x, dy):
        _, argmax = launch.max_pool2d_forward(x, **window)
        return launch.sum(launch.max_pool2d_backward(dy, argmax, input=(2, 4), **window), axes=13, keepdim=0, divisor=1.0)

    program = capture(step)
    dy = np.zeros((1, 4, 1, 2), np.float32)
    dy[..., 0], dy[..., 1] = 1.25 * 2.0**-126, -1.5 * 2.0**-126
    for k in range(4):
        x = images(1, 4, 4, seed=k)[:, :, :2].contiguous(memory_format=fastnn.channels_last)
        inputs = x, fastnn.tensor(dy).contiguous(memory_format=fastnn.channels_last)
        got = program(*inputs).numpy().tobytes()
        assert got == step(*inputs).numpy().tobytes()
    assert program.replays == 2
    assert ("1 pooling_gradient_into_readers" in program.summary()) == (_core.get_isa() != "scalar"), program.summary()


def test_a_map_that_is_read_in_another_shape_is_spread_out():
    """Six images of a channel are pooled as an image of six channels."""
    weight = fastnn.tensor(np.random.default_rng(0).standard_normal((1, 1, 5, 5)).astype(np.float32), requires_grad=True)

    def step(x, dy):
        weight.grad = None
        F.max_pool2d(F.relu(F.conv2d(x, weight, padding=2).reshape(1, 6, 12, 12)), 2).backward(dy)
        return weight.grad

    program = capture(step)
    for k in range(4):
        x, dy = images(6, 1, 12, seed=k), images(1, 6, 6, seed=k).contiguous(memory_format=fastnn.channels_last)
        got = program(x, dy).numpy().copy()
        np.testing.assert_array_equal(got, step(x, dy).numpy())
    assert program.replays == 2 and "pooling_gradient_into_readers" not in program.summary()


def test_a_pooled_gradient_that_its_reader_overwrites_is_spread_out():
    window = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, 1), "ceil_mode": 0}
    attributes = {"stride": (1, 1), "padding": (4, 4, 4, 4), "dilation": (1, 1), "groups": 1}
    rng = np.random.default_rng(0)
    weight = fastnn.tensor(rng.standard_normal((6, 6, 5, 5)).astype(np.float32))
    before = fastnn.get_conv_algorithm()
    fastnn.set_conv_algorithm("winograd")

    def make():
        buffer = fastnn.zeros(40, 6, 4, 4).contiguous(memory_format=fastnn.channels_last)

        def step(x, dy):
            _, argmax = launch.max_pool2d_forward(x, **window)
            launch.mul(dy, dy, out=buffer)
            dx = launch.max_pool2d_backward(buffer, argmax, input=(8, 8), **window)
            launch.conv2d_backward_input(dx, weight, input=(4, 4), out=buffer, **attributes)
            return launch.neg(buffer)

        return step

    program, eager = capture(make()), make()
    try:
        for k in range(4):
            x, dy = (t.contiguous(memory_format=fastnn.channels_last) for t in (images(40, 6, 8, seed=k), images(40, 6, 4, seed=k)))
            dy[39, 0, 3, 3] = np.inf
            got = program(x, dy).numpy().copy()
            np.testing.assert_array_equal(got, eager(x, dy).numpy())
    finally:
        fastnn.set_conv_algorithm(before)
    assert program.replays == 2 and "pooling_gradient_into_readers" not in program.summary()


def pooled(x):
    """Maxima of a convolution that pools its map."""
    weight = fastnn.tensor(np.random.default_rng(1).standard_normal((4, 2, 3, 3)).astype(np.float32))
    return F.max_pool2d(F.relu(F.conv2d(x, weight, padding=1)), 2)


def test_lasting_counts_wait_for_the_pooling_that_they_read():
    def make():
        state = fastnn.zeros(1)

        def step(x):
            y = pooled(x)
            launch.add(state, y[0, 0, 0, 0:1], out=state)
            return y * 2.0

        return step, state

    (step, state), (eager, expected) = make(), make()
    program = capture(step)
    for k in range(5):
        x = images(40, 2, 12, seed=k)
        np.testing.assert_array_equal(program(x).numpy(), eager(x).numpy())
        np.testing.assert_array_equal(state.numpy(), expected.numpy())
    assert program.replays == 3 and "1 pooling_into_convolution" in program.summary()


def test_pooling_that_writes_what_its_convolution_reads_stays_apart():
    attributes = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, 1), "ceil_mode": 0}
    weight = fastnn.tensor(np.random.default_rng(1).standard_normal((2, 2, 3, 3)).astype(np.float32))

    def make():
        state = F.conv2d(images(40, 2, 80), fastnn.tensor(np.eye(2, dtype=np.float32).reshape(2, 2, 1, 1)))  # channels last

        def step(x):
            launch.max_pool2d_values(F.conv2d(state, weight, padding=1), out=state[:, :, 40:, :40], **attributes)
            return x * 2.0

        return step, state

    (step, state), (eager, expected) = make(), make()
    program = capture(step)
    for _ in range(4):
        program(fastnn.ones(3)), eager(fastnn.ones(3))
        np.testing.assert_array_equal(state.numpy(), expected.numpy())
    assert program.replays == 2 and "pooling_into_convolution" not in program.summary()


@pytest.mark.parametrize("threads", [1, 3])
def test_sequences_are_fused_as_maps_of_one_row(threads):
    def train(captured):
        fastnn.manual_seed(0)
        model = nn.Sequential(nn.Conv1d(3, 8, 5), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(8, 9, 3), nn.ReLU(),
                              nn.MaxPool1d(2), nn.Conv1d(9, 4, 3), nn.ReLU(), nn.Dropout(0.25), nn.Flatten(), nn.Linear(4 * 7, 3))
        return steps(model, captured, [fastnn.tensor(images(4, 3, 8, seed=k).numpy().reshape(4, 3, 64)[..., :46]) for k in range(5)], 5)

    with forced_threads(threads):
        losses, weights, _ = train(False)
        replayed, others, program = train(True)
    assert program.obstacle is None and program.replays == 3
    assert replayed == losses and others == weights
    summary = program.summary()
    for fused in ("2 activation_into_product", "2 relu_gradient_before_pooling", "batch_norm_forward > relu_forward",
                  "conv2d_backward_input > relu_backward"):
        assert fused in summary, summary


def test_no_lasting_write_moves_before_a_call_that_may_fail():
    table, w = fastnn.tensor(np.arange(12.0).reshape(4, 3)), fastnn.ones(300, 40)
    dy, x = fastnn.ones(8, 300), fastnn.ones(8, 40)

    def step(index):
        launch.sub(w, launch.linear_backward_weight(dy, x), out=w)
        return launch.index_select(table, index, axis=0)

    program = capture(step)
    for _ in range(3):
        program(fastnn.tensor([1, 2]))
    assert program.replays == 1
    before = w.numpy().copy()
    with pytest.raises(IndexError, match="index_select"):
        program(fastnn.tensor([1, 99]))
    np.testing.assert_array_equal(w.numpy(), before)


def test_a_result_that_others_read_is_kept():
    x = images()

    def step(x):
        y = launch.square(x)
        z = launch.add(launch.neg(y), x)
        return launch.add(launch.mul(y, y), z)

    program = capture(step)
    expected = step(x).numpy().copy()
    for _ in range(4):
        np.testing.assert_array_equal(program(x).numpy(), expected)
    assert program.replays == 2 and "elementwise_behind" in program.summary()


def test_an_update_in_place_keeps_what_it_reads():
    w, rate = fastnn.ones(6), fastnn.tensor(0.5)

    def step(x):
        launch.sub(w, launch.mul(x, rate), out=w)

    program = capture(step)
    for k in range(5):
        program(fastnn.full(6, float(k)))
    np.testing.assert_array_equal(w.numpy(), np.full(6, 1 - 0.5 * 10, np.float32))


def test_comparisons_behind_sums_keep_their_own_memory():
    """A bool has a quarter of a float32's bytes: it cannot take its place."""
    x = fastnn.tensor(np.random.default_rng(5).standard_normal(30_000), dtype=fastnn.float32)

    def step(x):
        above = (x + x) > 1.0
        return above, fastnn.where(above, x * 2.0, x) + 1.0

    expected = [t.numpy().copy() for t in step(x)]
    program = capture(step)
    for _ in range(4):
        for actual, wanted in zip(program(x), expected):
            np.testing.assert_array_equal(actual.numpy(), wanted)
    assert "add > gt" in program.summary()


def test_a_chain_of_elementwise_calls_needs_one_buffer():
    x = fastnn.tensor(np.linspace(-2, 2, 1 << 16), dtype=fastnn.float32)

    def step(x):
        y = x
        for k in range(8):
            y = F.relu(y + x) * 0.5
        return y.sum()

    expected = step(x).item()
    program = capture(step)
    for _ in range(4):
        assert program(x).item() == expected
    planned, _ = program.prepared(x)
    assert planned.fusions()["elementwise_behind"] > 10
    assert planned.arena_bytes < 2 * x.nbytes


def trained(model, optimizer, batches, sums=False):
    """Losses (or sums of gradients) and weights of captured steps, and the program."""

    def step(x):
        loss = (model(x) ** 2).mean()
        loss.backward()
        result = model.weight.grad.sum() if sums else loss
        optimizer.step()
        optimizer.zero_grad()
        return result

    program = capture(step)
    return [program(x).item() for x in batches], [p.detach().numpy().copy() for p in model.parameters()], program


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("inputs, outputs", [(5, 7), (300, 41), (1500, 30), (4100, 3)])
def test_gradients_that_only_updates_want_have_no_memory(inputs, outputs, threads):
    """Whole rows at a time, and parts of rows."""
    rng = np.random.default_rng(inputs)
    batches = [fastnn.tensor(rng.standard_normal((9, inputs)), dtype=fastnn.float32) for _ in range(5)]
    for options in ({"lr": 1e-4, "momentum": 0.9}, {"lr": 1e-3}):
        fastnn.manual_seed(0)
        model = nn.Linear(inputs, outputs)
        with forced_threads(threads):
            losses, weights, program = trained(model, optim.SGD(model.parameters(), **options), batches)
            assert "1 result_passed_on" in program.summary() and program.replays == 3
        fastnn.manual_seed(0)
        model = nn.Linear(inputs, outputs)
        optimizer, expected = optim.SGD(model.parameters(), **options), []
        for x in batches:
            loss = (model(x) ** 2).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            expected.append(loss.item())
        assert losses == expected
        for actual, wanted in zip(weights, model.parameters()):
            np.testing.assert_array_equal(actual, wanted.detach().numpy())


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("squared", [lambda w: w * w, lambda w: w ** 2])
def test_a_penalty_on_weights_joins_their_gradient(squared, threads):
    """The gradient of a sum is one element, repeated: what it meets is dense still, and nothing is between a gradient and its update."""
    x = fastnn.tensor(np.random.default_rng(3).standard_normal((20, 150)), dtype=fastnn.float32)

    def train(captured):
        fastnn.manual_seed(0)
        model = nn.Linear(150, 40)
        optimizer = optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)

        def step(x):
            optimizer.zero_grad()
            loss = (model(x) ** 2).mean() + 0.01 * squared(model.weight).sum()
            loss.backward()
            optimizer.step()
            return loss

        program = capture(step) if captured else step
        return [program(x).item() for _ in range(5)], model.weight.detach().numpy(), program

    losses, weight, _ = train(captured=False)
    with forced_threads(threads):
        replayed, other, program = train(captured=True)
    assert losses == replayed
    np.testing.assert_array_equal(weight, other)
    assert "linear_backward_weight > add > sgd_momentum_step" in program.summary()


@pytest.mark.parametrize("rows, sums", [(9, True), (1100, False)])  # 1100: a sum in two blocks of k
def test_gradients_that_others_want_or_that_need_several_blocks_keep_their_memory(rows, sums):
    fastnn.manual_seed(0)
    model = nn.Linear(40, 30)
    x = fastnn.tensor(np.random.default_rng(1).standard_normal((rows, 40)), dtype=fastnn.float32)
    results, _, program = trained(model, optim.SGD(model.parameters(), lr=0.01), [x] * 4, sums)
    assert "result_passed_on" not in program.summary() and program.replays == 2
    assert len(set(results)) == 4 and np.isfinite(results).all()


def test_counts_go_before_the_gradients_of_their_updates():
    """Adam's step counts and batch norm's counts of batches leave no update without its gradient; the bits are eager's."""
    rng = np.random.default_rng(7)
    x, y = fastnn.tensor(rng.standard_normal((8, 3, 6, 6)), dtype=fastnn.float32), fastnn.tensor(rng.integers(0, 4, 8))

    def weights(captured):
        fastnn.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(80, 4))
        optimizer = optim.Adam(model.parameters(), lr=0.01)

        step = classifier_step(model, optimizer)
        program = capture(step) if captured else step
        for _ in range(5):
            program(x, y)
        return [t.numpy().copy() for t in model.state_dict().values()], program

    expected, _ = weights(captured=False)
    found, program = weights(captured=True)
    for a, b in zip(expected, found):
        np.testing.assert_array_equal(a, b)
    assert "6 counts_before_gradients" in program.summary()
    assert "conv2d_backward_weight > adam_step" in program.summary() and "linear_backward_weight > adam_step" in program.summary()


@pytest.mark.parametrize("kind", ["integer division", "samples of fractional pooling"])
def test_counts_stay_behind_calls_that_may_fail(kind):
    """What such a call refuses leaves the step count where it was."""
    model = nn.Linear(4, 3)
    optimizer = optim.Adam(model.parameters(), lr=0.01)

    def step(x, other):
        if kind == "integer division":
            extra = fastnn.tensor([6, 4], dtype=fastnn.int32) // other
        else:
            extra = launch.fractional_max_pool2d(x.detach().reshape(1, 1, 4, 4), other, kernel=(2, 2), output=(3, 3))[0]
        loss = (model(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss, extra

    program = capture(step)
    x = fastnn.randn(4, 4)
    if kind == "integer division":
        good, bad = fastnn.tensor([2, 2], dtype=fastnn.int32), fastnn.tensor([2, 0], dtype=fastnn.int32)
    else:
        good, bad = fastnn.full((1, 1, 2), 0.5), fastnn.full((1, 1, 2), 1.5)
    for _ in range(4):
        program(x, good)
    assert program.obstacle is None and program.replays == 2 and "counts_before_gradients" in program.summary()
    state = optimizer.state[model.weight]
    before = float(state["step"])
    with pytest.raises(ValueError):
        program(x, bad)
    assert float(state["step"]) == before
