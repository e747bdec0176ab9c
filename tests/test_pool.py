"""Pooling beyond the OpSpec list: positions, NaN, ties, errors, large maps over threads, odd outputs, reads past the end."""

import numpy as np
import programs
import pytest

import fastnn
from fastnn import _core, nn
from fastnn._core import launch
from fastnn.ops import fractional_pool, pool
from fastnn.testing.checks import forced_threads

pytestmark = pytest.mark.usefixtures("isa")


def channels_last(array):
    return fastnn.from_numpy(np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2))


@pytest.mark.parametrize("channels", [1, 3, 16, 70])
@pytest.mark.parametrize("options", [{"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1},
                                     {"kernel_size": 2, "stride": 1, "dilation": 2, "padding": 1}])
def test_indices_name_where_the_maximum_is(channels, options):
    x = np.random.default_rng(0).standard_normal((2, channels, 7, 9)).astype(np.float32)
    y, indices = pool.max_pool2d(fastnn.tensor(x), **options, return_indices=True)
    found = np.take_along_axis(x.reshape(2, channels, -1), indices.numpy().reshape(2, channels, -1), 2)
    assert indices.dtype is fastnn.int64
    np.testing.assert_array_equal(found.reshape(y.shape), y.numpy())


def test_adaptive_indices_name_where_the_maximum_is():
    x = np.random.default_rng(0).standard_normal((2, 5, 7, 9)).astype(np.float32)
    y, indices = pool.adaptive_max_pool2d(fastnn.tensor(x), (3, 4), return_indices=True)
    found = np.take_along_axis(x.reshape(2, 5, -1), indices.numpy().reshape(2, 5, -1), 2)
    np.testing.assert_array_equal(found.reshape(y.shape), y.numpy())


def test_first_maximum_wins_ties_and_takes_the_gradient():
    x = fastnn.tensor(np.ones((1, 3, 4, 4), np.float32), requires_grad=True)
    y, indices = pool.max_pool2d(x, 2, return_indices=True)
    np.testing.assert_array_equal(indices.numpy()[0, 0], [[0, 2], [8, 10]])
    y.backward(fastnn.ones(1, 3, 2, 2))
    expected = np.zeros((4, 4))
    expected[::2, ::2] = 1
    np.testing.assert_array_equal(x.grad.numpy(), np.broadcast_to(expected, (1, 3, 4, 4)))


def test_infinities_are_ordinary_values():
    x = np.full((1, 2, 2, 2), -np.inf, np.float32)
    x[0, 1, 1, 0] = np.inf
    y, indices = pool.max_pool2d(fastnn.tensor(x), 2, return_indices=True)
    np.testing.assert_array_equal(y.numpy().ravel(), [-np.inf, np.inf])
    np.testing.assert_array_equal(indices.numpy().ravel(), [0, 2])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("function", [lambda x: pool.max_pool2d(x, 2), lambda x: pool.avg_pool2d(x, 2),
                                      lambda x: pool.adaptive_max_pool2d(x, 2),
                                      lambda x: pool.adaptive_avg_pool2d(x, 2)])
def test_nan_propagates(function, dtype):
    for place in range(4):
        x = np.zeros((1, 35, 4, 4), dtype)
        x[0, 17, place // 2, place % 2] = np.nan
        y = function(fastnn.tensor(x)).numpy()
        assert np.isnan(y[0, 17, 0, 0])
        assert np.isnan(y).sum() == 1


def test_a_window_wholly_in_the_padding_gives_minus_infinity_and_no_gradient():
    x = fastnn.ones(1, 1, 1, 1, requires_grad=True)
    y, indices = pool.max_pool2d(x, 2, stride=1, padding=1, dilation=2, return_indices=True)
    assert y.detach().numpy().item() == -np.inf and indices.numpy().item() == -1
    y.backward(fastnn.ones(1, 1, 1, 1))
    assert x.grad.numpy().item() == 0


OPERATIONS = {
    "max 2": lambda x: pool.max_pool2d(x, 2),
    "max 3/2": lambda x: pool.max_pool2d(x, 3, 2, 1),
    "avg 3/2": lambda x: pool.avg_pool2d(x, 3, 2, 1),
    "adaptive avg": lambda x: pool.adaptive_avg_pool2d(x, (5, 3)),
    "adaptive max": lambda x: pool.adaptive_max_pool2d(x, (5, 3)),
    "global avg": pool.global_avg_pool2d,
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("shape", [(3, 37, 48, 50), (1, 512, 30, 30)])
def test_large_maps_give_the_same_bits_for_any_threads_and_layout(name, shape):
    array = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    results = []
    for make in (fastnn.tensor, channels_last):
        for threads in (1, 2, 3, 8):
            with forced_threads(threads):
                x = make(array)
                x.requires_grad = True
                y = OPERATIONS[name](x)
                assert threads == 1 or _core.last_workers() > 1
                dy = np.random.default_rng(2).standard_normal(y.shape).astype(np.float32)
                y.backward(fastnn.tensor(dy))
                results.append((y.detach().numpy().tobytes(), x.grad.numpy().tobytes()))
    assert all(r == results[0] for r in results)


@pytest.mark.parametrize("window", [{"kernel_size": 2, "stride": 1}, {"kernel_size": 1}])
def test_results_too_large_for_the_caches_have_the_bits_of_small_ones(window):
    x = fastnn.from_numpy(np.random.default_rng(7).standard_normal((4, 256, 260, 32), np.float32).transpose(0, 3, 1, 2))

    def all_of(function, x):
        x.requires_grad = True
        y = function(x)
        y.backward(y.detach())
        return np.array(y.detach().numpy()), np.array(x.grad.numpy())

    assert x.nbytes > 1 << 25
    for function in (pool.max_pool2d, pool.avg_pool2d):
        large = all_of(lambda t: function(t, **window), x.detach())
        for k in range(4):
            small = all_of(lambda t: function(t, **window), x.detach()[k:k + 1])
            for a, b in zip(large, small):
                assert a[k:k + 1].tobytes() == b.tobytes()


def test_overlapping_gradients_agree_with_float64():
    array = np.random.default_rng(3).standard_normal((2, 19, 17, 18))
    grads = []
    for dtype in (fastnn.float32, fastnn.float64):
        x = fastnn.tensor(array.astype(np.float32), dtype, requires_grad=True)
        pool.max_pool2d(x, 5, 1, 2).backward(fastnn.ones(2, 19, 17, 18, dtype=dtype))
        grads.append(x.grad.numpy())
    np.testing.assert_array_equal(grads[0], grads[1])  # small whole numbers: exact


ONLY_MAXIMA = [lambda x, **o: pool.max_pool2d(x, 2, **o), lambda x, **o: pool.max_pool2d(x, 3, 2, 1, **o),
               lambda x, **o: pool.max_pool2d(x, (2, 3), 1, (1, 0), 2, True, **o),
               lambda x, **o: pool.adaptive_max_pool2d(x, 3, **o)]


@pytest.mark.parametrize("function", ONLY_MAXIMA)
@pytest.mark.parametrize("shape", [(2, 3, 7, 9), (1, 16, 6, 6), (3, 70, 5, 8), (0, 4, 5, 5), (2, 32, 200, 200)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_maxima_alone_are_those_with_positions(function, shape, dtype):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    x[:, :1, 1:3, 2] = np.nan
    x[:, -1:, -2:] = -np.inf
    alone, (maxima, _) = function(channels_last(x)), function(channels_last(x), return_indices=True)
    np.testing.assert_array_equal(alone.numpy(), maxima.numpy())


@pytest.mark.parametrize("function", ONLY_MAXIMA)
def test_positions_are_found_only_where_they_are_wanted(function, monkeypatch):
    counts = {}
    for name in ("max_pool2d_forward", "adaptive_max_pool2d_forward"):
        def counted(*inputs, op=getattr(launch, name), **options):
            counts["positions"] = counts.get("positions", 0) + 1
            return op(*inputs, **options)
        monkeypatch.setattr(launch, name, counted)
    x = fastnn.zeros(1, 3, 6, 6)
    function(x)
    x.requires_grad = True
    with fastnn.no_grad():
        function(x)
    assert not counts
    function(x).sum().backward()
    function(x.detach(), return_indices=True)
    assert counts["positions"] == 2 and x.grad.numpy().any()


def test_strided_outputs_are_written_in_place():
    x = fastnn.tensor(np.random.default_rng(4).standard_normal((2, 5, 6, 6)).astype(np.float32))
    window = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, 1), "ceil_mode": False}
    expected = launch.max_pool2d_forward(x, **window)
    y = fastnn.zeros(2, 5, 3, 6)[:, :, :, ::2]
    argmax = fastnn.zeros(5, 2, 3, 3, dtype=fastnn.int32).permute(1, 0, 2, 3)
    launch.max_pool2d_forward(x, **window, out=(y, argmax))
    np.testing.assert_array_equal(y.numpy(), expected[0].numpy())
    launch.max_pool2d_values(x, **window, out=y.zero_())
    np.testing.assert_array_equal(y.numpy(), expected[0].numpy())
    np.testing.assert_array_equal(argmax.numpy(), expected[1].numpy())


def test_wild_argmax_harms_nothing():
    dy = fastnn.ones(1, 2, 2, 2)
    argmax = fastnn.full((1, 2, 2, 2), 1 << 30, dtype=fastnn.int32)
    dx = launch.max_pool2d_backward(dy, argmax, input=(4, 4), kernel=(2, 2), stride=(2, 2), padding=(0, 0),
                                    dilation=(1, 1), ceil_mode=0)
    np.testing.assert_array_equal(dx.numpy(), np.zeros((1, 2, 4, 4)))


def test_maps_without_a_batch_axis():
    x = np.random.default_rng(5).standard_normal((3, 6, 6)).astype(np.float32)
    y, indices = pool.max_pool2d(fastnn.tensor(x), 2, return_indices=True)
    assert y.shape == indices.shape == (3, 3, 3)
    assert pool.adaptive_avg_pool2d(fastnn.tensor(x), 2).shape == (3, 2, 2)
    assert pool.avg_pool2d(fastnn.tensor(x), 2).shape == (3, 3, 3)


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4)])
def test_empty_batches(shape):
    for function in OPERATIONS.values():
        x = fastnn.zeros(*shape, requires_grad=True)
        y = function(x)
        y.backward(fastnn.zeros(*y.shape))
        assert x.grad.shape == shape


@pytest.mark.parametrize("call, message", [
    (lambda x: pool.max_pool2d(x, 0), "'kernel' is \\(0, 0\\)"),
    (lambda x: pool.max_pool2d(x, 2, stride=0), "'stride' is \\(0, 0\\)"),
    (lambda x: pool.max_pool2d(x, 2, padding=2), "at most half of kernel"),
    (lambda x: pool.max_pool2d(x, 2, padding=-1), "'padding' is \\(-1, -1\\)"),
    (lambda x: pool.max_pool2d(x, 2, dilation=0), "'dilation' is \\(0, 0\\)"),
    (lambda x: pool.max_pool2d(x, 5), "does not fit into x \\(1, 2, 4, 4\\)"),
    (lambda x: pool.max_pool2d(x, 1 << 40), "must be in \\[1, 2\\^31\\)"),
    (lambda x: pool.avg_pool2d(x, 2, divisor_override=0), "divisor_override is 0"),
    (lambda x: pool.adaptive_avg_pool2d(x, 0), "'output' is \\(0, 0\\)"),
    (lambda x: pool.max_pool2d(x[0, 0], 2), "input has shape \\(4, 4\\)"),
    (lambda x: pool.max_pool2d(x[:, :, :0], 2), "only N and C may be 0"),
    (lambda x: launch.avg_pool2d_backward(x, input=(9, 9), kernel=(2, 2), stride=(9, 9), padding=(0, 0), ceil_mode=0,
                                          count_include_pad=0, divisor=0), "gives \\(N, C, 1, 1\\)"),
])
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(fastnn.zeros(1, 2, 4, 4))


def test_wrong_types_are_named():
    with pytest.raises(TypeError, match="kernel_size is 2.5"):
        pool.max_pool2d(fastnn.zeros(1, 2, 4, 4), 2.5)


def test_layers_call_their_functions():
    x = fastnn.tensor(np.random.default_rng(6).standard_normal((2, 3, 9, 9)).astype(np.float32))
    pairs = [(nn.MaxPool2d(3, 2, 1, ceil_mode=True), pool.max_pool2d(x, 3, 2, 1, ceil_mode=True)),
             (nn.MaxPool2d((2, 3), dilation=2), pool.max_pool2d(x, (2, 3), dilation=2)),
             (nn.AvgPool2d(3, 2, 1, count_include_pad=False), pool.avg_pool2d(x, 3, 2, 1, count_include_pad=False)),
             (nn.AdaptiveAvgPool2d((None, 2)), pool.adaptive_avg_pool2d(x, (9, 2))),
             (nn.AdaptiveMaxPool2d(4), pool.adaptive_max_pool2d(x, 4)),
             (nn.GlobalAvgPool2d(), pool.adaptive_avg_pool2d(x, 1)),
             (nn.GlobalMaxPool2d(), pool.adaptive_max_pool2d(x, 1))]
    for layer, expected in pairs:
        np.testing.assert_array_equal(layer(x).numpy(), expected.numpy())
        assert type(layer).__name__ in repr(layer)
    assert repr(nn.MaxPool2d(2)) == "MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)"
    assert len(nn.MaxPool2d(2, return_indices=True)(x)) == 2


def test_fractional_windows_share_out_the_map():
    """Steps of two sizes, the first window at the start and the last at the end, anew in every call."""
    x = fastnn.tensor(np.arange(40.0).reshape(1, 1, 1, 40))
    fastnn.manual_seed(3)
    seen = set()
    for _ in range(20):
        y, indices = fractional_pool.fractional_max_pool2d(x, (1, 2), (1, 25), return_indices=True)
        places = indices.numpy().ravel()
        assert places[0] == 1 and places[-1] == 39 and set(np.diff(places)) == {1, 2}
        np.testing.assert_array_equal(y.numpy().ravel(), places)
        seen.add(places.tobytes())
    assert len(seen) > 5  # of twelve that there are: a step of 19 / 12 begins anywhere in the cycle


def test_a_captured_fractional_pool_draws_like_an_eager_one():
    layer = nn.FractionalMaxPool2d(2, output_ratio=0.7)
    program, draws = fastnn.capture(layer), []
    x = fastnn.tensor(np.random.default_rng(0).standard_normal((2, 5, 20, 20)).astype(np.float32))
    for call in (layer, program):
        fastnn.manual_seed(4)
        draws.append([call(x).numpy().tobytes() for _ in range(4)])
    assert draws[0] == draws[1] and len(set(draws[0])) == 4


@pytest.mark.parametrize("options, message", [
    ({}, "exactly one of output_size and output_ratio"), ({"output_size": 2, "output_ratio": 0.5}, "exactly one of"),
    ({"output_ratio": 1.5}, "output_ratio is 1.5, but must be one number or two between 0 and 1"),
    ({"output_ratio": (0.5, 0.5, 0.5)}, "one number or two"), ({"output_size": 0}, "output_size is 0"),
    ({"output_size": 5}, r"kernel \+ output - 1 at most the map's 5 x 6"), ({"output_ratio": 0.01}, "at least 1"),
    ({"output_size": 2, "_random_samples": np.ones((2, 3, 2))}, r"samples\[0, 0, 0\] is not at least 0 and below 1"),
    ({"output_size": 2, "_random_samples": np.full((2, 3, 2), np.nan)}, "is not at least 0"),
    ({"output_size": 2, "_random_samples": np.zeros((2, 2, 2))}, r"samples has shape \(2, 2, 2\), but must be \(2, 3, 2\)")])
def test_errors_of_fractional_pooling(options, message):
    with pytest.raises(ValueError, match=message):
        fractional_pool.fractional_max_pool2d(fastnn.zeros(2, 3, 5, 6), 2, **options)
    if "_random_samples" not in options and set(options) != {"output_size"}:
        with pytest.raises(ValueError, match="FractionalMaxPool2d|fractional_max_pool2d"):
            nn.FractionalMaxPool2d(2, **options)(fastnn.zeros(2, 3, 5, 6))


# Maps whose last byte is the last of a page that the next, forbidden one follows: who reads on dies.
READ_NO_FURTHER = """
import itertools
import numpy as np
import fastnn
from fastnn import ops
from fenced import fenced

for dtype, channels, kernel, stride, dilation, ceil in itertools.product(
        ("float32", "float64"), range(1, 18), (2, 4, 5), (1, 2), (1, 2, 3), (False, True)):
    x = fastnn.from_numpy(fenced(np.zeros((1, 9, 9, channels), dtype), at_end=True).transpose(0, 3, 1, 2))
    padding = min(2, kernel // 2)
    if 9 + 2 * padding > dilation * (kernel - 1):
        for positions in (False, True):
            ops.pool.max_pool2d(x, kernel, stride, padding, dilation, ceil, positions)
    if dilation == 1:
        ops.pool.avg_pool2d(x, kernel, stride, padding, ceil)
print("alive")
"""


def test_few_channels_are_read_no_further_than_the_map(isa):
    assert programs.output(READ_NO_FURTHER, FASTNN_ISA=isa) == "alive"
