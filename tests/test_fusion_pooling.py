"""Max pooling in programs: inside the convolution before it, and its gradient inside what reads it; no bit changes."""

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import _core, nn
from fastnn._core import launch
from fastnn.program import capture
from fastnn.testing.checks import forced_threads
from training import images, steps


def channels_last(array):
    return fastnn.tensor(array).contiguous(memory_format=fastnn.channels_last)


def check_bits(program, step, *inputs):
    """A replay's results have the bits of the step's own."""
    results = [got.numpy().copy() for got in program(*inputs)]
    for got, wanted in zip(results, step(*inputs)):
        assert got.tobytes() == wanted.numpy().tobytes()


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
                check_bits(program, step, fastnn.tensor(x), channels_last(dy))
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
                                                                     (3, 5, 12, 5, 1, (24, 30), True), (35, 4, 5, 7, 3, (12, 14), True),
                                                                     (5, 3, 4, 6, 3, (10, 11), True)])
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
                check_bits(program, step, *inputs)
    finally:
        _core.set_isa(before)
    assert program.obstacle is None and program.replays == 2
    odd = width % 2 == 1  # windows of pairs of columns
    assert ("3 pooling_gradient_into_readers" in program.summary()) == odd, program.summary()


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
        inputs = x, channels_last(dy), positions
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
        got = program(x, channels_last(dy)).numpy().tobytes()
        assert got == step(x, channels_last(dy)).numpy().tobytes()
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
