"""Reductions beyond the OpSpec list: accuracy, large shapes over threads, layouts, NaN, ties, empty axes, integers."""

import itertools

import numpy as np
import pytest

import fastnn
from fastnn import _core
from fastnn._core import launch
from fastnn.ops import reduce, scan, softmax
from fastnn.testing.checks import forced_threads

pytestmark = pytest.mark.usefixtures("isa")


def layouts(array):
    """The same values in C order, spaced, reversed, transposed, and channels-last or behind another axis order."""
    yield fastnn.tensor(array)
    spaced = np.zeros([2 * n for n in array.shape], array.dtype)
    every_other = tuple(slice(None, None, 2) for _ in array.shape)
    spaced[every_other] = array
    yield fastnn.tensor(spaced)[every_other]
    yield fastnn.from_numpy(np.ascontiguousarray(array[..., ::-1])[..., ::-1])
    yield fastnn.from_numpy(np.asfortranarray(array))
    yield fastnn.from_numpy(np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1))


# Beyond one chunk of rows, of columns, of narrow columns, of outer positions; several groups.
LARGE = [((70001,), None), ((3, 40001), 1), ((40001, 3), 0), ((1000, 700), 0), ((20, 3, 5000), 1), ((3001, 17, 2), 1),
         ((8, 40, 30, 30), (0, 2, 3)), ((8, 40, 30, 30), (2, 3)), ((8, 3, 60, 61), 1), ((30, 40, 50), (0, 2)),
         ((6, 7, 8, 9, 10), (1, 3))]


@pytest.mark.parametrize("shape, dim", LARGE)
def test_bits_depend_on_neither_strides_nor_threads(shape, dim):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    functions = [reduce.sum, reduce.amax, reduce.amin] + ([reduce.argmax] if not isinstance(dim, tuple) else [])
    for function in functions:
        expected = None
        for t in layouts(x) if x.ndim > 1 else [fastnn.tensor(x), fastnn.tensor(np.repeat(x, 2))[::2]]:
            for threads in (1, 2, 3, 8):
                with forced_threads(threads):
                    y = function(t, dim).numpy()
                expected = y if expected is None else expected
                assert y.tobytes() == expected.tobytes(), (function.__name__, t.strides, threads)
        name = {"sum": "sum", "amax": "max", "amin": "min", "argmax": "argmax"}[function.__name__]
        exact = getattr(x.astype(np.float64), name)(dim)
        if function is reduce.sum:
            scale = np.abs(x.astype(np.float64)).sum(dim)
            assert np.all(np.abs(expected - exact) <= 2 * np.finfo(np.float32).eps * scale)
        else:
            np.testing.assert_array_equal(expected, exact)


def test_last_chunk_of_fewer_rows_than_are_folded():
    # 33 chunks of 528 rows and one of a single row, where two rows of 63 columns are joined into one
    x = np.random.default_rng(0).integers(-100, 100, (17425, 63)).astype(np.float32)
    t = fastnn.tensor(x)
    np.testing.assert_array_equal(reduce.sum(t, 0).numpy(), x.sum(0))
    np.testing.assert_array_equal(reduce.amax(t * 0 - 1, 0).numpy(), np.full(63, -1))
    np.testing.assert_array_equal(reduce.amin(t * 0 + 1, 0).numpy(), np.ones(63))


def test_large_reductions_use_all_threads():
    with forced_threads(2):
        for shape, dim in LARGE:
            reduce.sum(fastnn.ones(*shape), dim)
            assert _core.last_workers() == 2, shape


@pytest.mark.parametrize("shape, dim", [((1 << 22,), 0), ((1 << 18, 16), 0), ((1 << 12, 1 << 10), 0),
                                        ((1 << 20, 3), 0)])
def test_long_sums_stay_accurate(shape, dim):
    x = np.full(shape, 0.1, np.float32)  # the worst case for a running sum: every rounding goes the same way
    exact = float(np.float32(0.1)) * shape[0]
    assert np.abs(reduce.sum(fastnn.tensor(x), dim).numpy() / exact - 1).max() < 6e-6


@pytest.mark.parametrize("n", [1, 3, 16, 17, 40, 200, 20000])
def test_nan_wins(n):
    for place in {0, n // 2, n - 1}:
        x = np.zeros((3, n), np.float32)
        x[1, place] = np.nan
        for t, dim in ((fastnn.tensor(x), 1), (fastnn.tensor(np.ascontiguousarray(x.T)), 0)):
            for function in (reduce.amax, reduce.amin, reduce.sum, reduce.mean):
                np.testing.assert_array_equal(np.isnan(function(t, dim).numpy()), [False, True, False])
            for function in (reduce.argmax, reduce.argmin):
                np.testing.assert_array_equal(function(t, dim).numpy(), [0, place, 0])


def test_infinities():
    x = fastnn.tensor([[np.inf, 1.0], [-np.inf, 1.0], [np.inf, -np.inf]])
    np.testing.assert_array_equal(reduce.sum(x, 1).numpy(), [np.inf, -np.inf, np.nan])
    np.testing.assert_array_equal(reduce.amax(x, 1).numpy(), [np.inf, 1, np.inf])
    x = fastnn.tensor([[-np.inf, -np.inf], [np.inf, 0], [np.nan, 0]])
    np.testing.assert_array_equal(reduce.logsumexp(x, 1).numpy(), [-np.inf, np.inf, np.nan])


def test_ties_take_the_first_and_share_the_gradient():
    x = fastnn.tensor([[1.0, 3.0, 3.0, 0.0]], requires_grad=True)
    values, indices = reduce.max(x, 1)
    assert indices.tolist() == [1] and values.tolist() == [3.0]
    values.backward(fastnn.tensor([2.0]))
    assert x.grad.tolist() == [[0, 2, 0, 0]]
    x.grad = None
    reduce.amax(x, 1).backward(fastnn.tensor([2.0]))
    assert x.grad.tolist() == [[0, 1, 1, 0]]
    x.grad = None
    reduce.max(x).backward()
    assert x.grad.tolist() == [[0, 0.5, 0.5, 0]]


def test_empty():
    x = fastnn.zeros(3, 0)
    np.testing.assert_array_equal(reduce.sum(x, 1).numpy(), np.zeros(3, np.float32))
    assert reduce.sum(x, 0).shape == (0,)
    assert np.isnan(reduce.mean(x).item())
    assert reduce.amax(x, 0).shape == (0,)
    for function in (reduce.amax, reduce.argmax, reduce.min):
        with pytest.raises(ValueError, match="axis 1 is empty"):
            function(x, 1)
    with pytest.raises(ValueError, match="is empty"):
        reduce.argmax(fastnn.zeros(0))


def test_integers_and_bools():
    x = fastnn.tensor(np.array([[1, 2, 3], [4, 5, 250]], np.uint8))
    assert reduce.sum(x).item() == 265 and reduce.sum(x).dtype is fastnn.int64
    assert reduce.sum(fastnn.tensor([True, False, True])).item() == 2
    assert reduce.max(x).item() == 250 and reduce.max(x).dtype is fastnn.uint8
    assert reduce.max(x, 1).values.tolist() == [3, 250] and reduce.argmin(x, 0).tolist() == [0, 0, 0]
    with pytest.raises(TypeError, match="mean: input has dtype uint8"):
        reduce.mean(x)


def test_shapes():
    x = fastnn.rand(2, 3, 4, 5)
    assert reduce.sum(x, (1, -1), keepdim=True).shape == (2, 1, 4, 1)
    assert reduce.sum(x, ()).shape == () and reduce.sum(x, None, keepdim=True).shape == (1, 1, 1, 1)
    assert reduce.argmax(x).shape == () and reduce.argmax(x, keepdim=True).shape == (1, 1, 1, 1)
    assert reduce.argmax(x).item() == int(np.argmax(x.numpy()))
    assert reduce.max(x, 2, keepdim=True).indices.shape == (2, 3, 1, 5)
    assert reduce.sum(fastnn.tensor(3.0)).item() == 3 and reduce.max(fastnn.tensor(3.0), 0).indices.item() == 0
    with pytest.raises(ValueError, match="names an axis twice"):
        reduce.sum(x, (0, -4))
    with pytest.raises(IndexError, match="dim is 4"):
        reduce.mean(x, 4)


def test_the_result_may_go_anywhere():
    x = fastnn.rand(3, 4, 5, 6)
    for dim in ((1,), (0,), (3,), (1, 2), (0, 3)):
        mask = sum(1 << d for d in dim)
        y = launch.sum(x, axes=mask, keepdim=0, divisor=2.0)
        out = fastnn.zeros(*[2 * n for n in y.shape])[tuple(slice(None, None, 2) for _ in y.shape)]
        launch.sum(x, axes=mask, keepdim=0, divisor=2.0, out=out)
        np.testing.assert_array_equal(out.numpy(), y.numpy())


def test_expanded_inputs_and_gradients():
    x = fastnn.ones(3, 4, requires_grad=True)
    reduce.sum(x).backward()
    reduce.mean(x).backward()
    np.testing.assert_allclose(x.grad.numpy(), np.full((3, 4), 1 + 1 / 12), rtol=1e-6)
    wide = fastnn.tensor([1.0, 2.0, 3.0]).expand(1000, 3)
    np.testing.assert_array_equal(reduce.sum(wide, 0).numpy(), [1000, 2000, 3000])
    np.testing.assert_array_equal(reduce.sum(wide, 1).numpy(), np.full(1000, 6))


def test_std_at_zero_has_no_slope():
    x = fastnn.ones(2, 3, requires_grad=True)
    reduce.std(x).backward()
    np.testing.assert_array_equal(x.grad.numpy(), np.zeros((2, 3)))
    assert np.isnan(reduce.var(fastnn.ones(1)).item())


def test_negative_axes_masks_are_refused():
    with pytest.raises(ValueError, match="axes"):
        launch.sum(fastnn.ones(3), axes=-1, keepdim=0, divisor=1.0)
    with pytest.raises(ValueError, match="axis"):
        launch.argmax(fastnn.ones(3), axis=1, keepdim=0, smallest=0)


# ---- softmax ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 3, 10, 16, 17, 40, 64, 70, 200, 5000])
def test_softmax_of_special_rows(n):
    x = np.random.default_rng(0).standard_normal((6, n)).astype(np.float32)
    x[0] = -np.inf
    x[1, 0] = -np.inf
    x[2, n // 2] = np.nan
    x[3, n - 1] = np.inf
    x[4] = 1e30
    y, logarithm = softmax.softmax(fastnn.tensor(x), 1).numpy(), softmax.log_softmax(fastnn.tensor(x), 1).numpy()
    assert np.isnan(y[[0, 2, 3]]).all() and np.isnan(logarithm[[0, 2, 3]]).all()
    if n > 1:
        assert y[1, 0] == 0 and logarithm[1, 0] == -np.inf
    np.testing.assert_allclose(y[4], np.full(n, 1 / n), rtol=1e-6)
    np.testing.assert_allclose(y[5].sum(), 1, rtol=1e-6)
    np.testing.assert_allclose(np.exp(logarithm[5].astype(np.float64)), y[5], rtol=2e-6)


@pytest.mark.parametrize("shape, dim", [((900, 10), 1), ((10, 900), 0), ((3, 40, 20, 21), 1), ((3, 5, 700), 1),
                                        ((5, 9000), 1)])
def test_softmax_bits_depend_on_neither_strides_nor_threads(shape, dim):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for function in (softmax.softmax, softmax.log_softmax):
        expected = None
        for t in layouts(x):
            for threads in (1, 2, 3, 8):
                with forced_threads(threads):
                    y = function(t, dim).numpy()
                expected = y if expected is None else expected
                assert y.tobytes() == expected.tobytes(), (t.strides, threads)


@pytest.mark.parametrize("shape", [(40000, 2), (3, 9000), (70, 3, 200), (2, 5, 30, 21)])
def test_integers_are_exact(shape):
    rng = np.random.default_rng(0)
    x = rng.choice(rng.integers(-2**63, 2**63 - 1, 50), shape)
    places = [*range(len(shape)), None]
    for t in layouts(x):
        for dim in (*places, (0, len(shape) - 1)):
            np.testing.assert_array_equal(reduce.sum(t, dim), x.sum(dim))  # both wrap around
            np.testing.assert_array_equal(reduce.amax(t, dim), x.max(dim))
            np.testing.assert_array_equal(reduce.amin(t, dim), x.min(dim))
        for dim in places:
            np.testing.assert_array_equal(reduce.argmax(t, dim), x.argmax(dim))
            np.testing.assert_array_equal(reduce.argmin(t, dim), x.argmin(dim))
        np.testing.assert_array_equal(scan.cummin(t, 1).values, np.minimum.accumulate(x, 1))


def test_integers_are_not_divided_and_narrow_ones_not_launched():
    with pytest.raises(ValueError, match="divisor"):
        launch.sum(fastnn.tensor([1, 2]), axes=1, keepdim=0, divisor=2.0)
    for op, options in ((launch.sum, {"divisor": 1.0, "axes": 1}), (launch.max_reduce, {"axes": 1}),
                        (launch.argmax, {"axis": 0, "smallest": 0})):
        with pytest.raises(TypeError, match="argument 'x' has dtype int32, but must be float32, float64 or int64"):
            op(fastnn.tensor([1, 2]).int(), keepdim=0, **options)
    assert reduce.sum(fastnn.zeros(0, dtype=fastnn.int64)).item() == 0


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8"])
@pytest.mark.parametrize("shape", [(3, 7, 20, 19), (2, 33, 17, 16), (2, 4, 300, 1), (1, 130, 9, 5), (2, 1, 40, 7)])
def test_images_in_rows_have_the_bits_of_those_channels_last(shape, dtype):
    """What is read across memory is gathered in tiles: their edges, and pieces that begin inside one."""
    values = np.random.default_rng(3).standard_normal(shape) * 50
    rows = fastnn.tensor(values.astype(dtype))
    turned = fastnn.tensor(np.ascontiguousarray(values.astype(dtype).transpose(0, 2, 3, 1))).permute(0, 3, 1, 2)
    np.testing.assert_array_equal(rows.numpy(), turned.numpy())
    for axes in (1, 2, 3, (2, 3), (0, 2, 3), (1, 2, 3), (0, 1)):
        np.testing.assert_array_equal(rows.sum(axes).numpy(), turned.sum(axes).numpy())
    if dtype != "uint8":
        np.testing.assert_array_equal(rows.amax(1).numpy(), values.astype(dtype).max(1))
        for axis in range(4):
            np.testing.assert_array_equal(rows.cumsum(axis).numpy(), turned.cumsum(axis).numpy())
            np.testing.assert_array_equal(rows.argmax(axis).numpy(), turned.argmax(axis).numpy())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 2, 2, 2), (3, 8, 4, 6), (5, 6, 28, 28), (2, 3, 150, 130), (70, 5, 12, 10), (3, 7, 2, 600),
                                   (3, 12, 4, 6), (40, 16, 10, 10)])
def test_maps_of_few_channels_are_summed_by_blocks_of_pixels(shape, dtype):
    """Accurately, to the same bits for any strides and number of threads, parts of maps among them."""
    values = np.random.default_rng(1).standard_normal(shape).astype(dtype)
    large = np.pad(np.moveaxis(values, 1, -1), ((0, 0), (1, 2), (3, 1), (0, 1)), constant_values=np.nan)
    part = fastnn.from_numpy(large)[:, 1:-2, 3:-1, :-1].permute(0, 3, 1, 2)
    with forced_threads(1):
        first = fastnn.tensor(values).sum((0, 2, 3)).numpy().copy()
    bound = 1e-6 if dtype == "float32" else 1e-15
    assert np.all(abs(first - values.sum((0, 2, 3), dtype="float64")) <= bound * abs(values).sum((0, 2, 3), dtype="float64"))
    for threads in (1, 2, 3):
        with forced_threads(threads):
            for t in (*layouts(values), part):
                assert t.sum((0, 2, 3)).numpy().tobytes() == first.tobytes()
            assert part.sum((0, 2, 3), keepdim=True).numpy().tobytes() == first.tobytes()
    values[0, 1, 1, 0], values[0, 0, 0, 1] = np.inf, np.nan
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(np.isfinite(fastnn.tensor(values).sum((0, 2, 3)).numpy()), np.isfinite(values.sum((0, 2, 3))))


@pytest.mark.parametrize("shape", [(2, 3, 70, 70), (1, 5, 90, 91), (2, 70, 40, 40), (3, 600, 20, 20), (2, 1, 150, 150), (9000, 2, 3, 1)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_what_lies_in_rows_is_reduced_to_the_same_bits_part_by_part(shape, dtype):
    array = (np.random.default_rng(0).standard_normal(shape) * 100).astype(dtype)
    rows, last = fastnn.tensor(array), fastnn.tensor(array).contiguous(memory_format=fastnn.channels_last)
    for count in range(1, 5):
        for axes in itertools.combinations(range(4), count):
            for reduce in (fastnn.sum, fastnn.amax, fastnn.amin):
                assert np.array_equal(reduce(rows, axes).numpy(), reduce(last, axes).numpy())
            wanted = array.astype("float64").sum(axes)
            assert np.all(np.abs(fastnn.sum(rows, axes).numpy() - wanted) <= 1e-6 * np.abs(array.astype("float64")).sum(axes))
            assert np.array_equal(fastnn.amax(rows, axes).numpy(), array.max(axes))


@pytest.mark.parametrize("dtype", ["uint8", "bool", "int32", "float32", "int64", "float64"])
@pytest.mark.parametrize("shape", [(1, 7, 9, 9), (2, 33, 17, 19), (3, 64, 8, 130), (2, 5, 1, 200)])
def test_images_are_turned_exactly(shape, dtype):
    array = (np.random.default_rng(0).standard_normal(shape) * 100).astype(dtype)
    x = fastnn.tensor(array)
    turned = x.contiguous(memory_format=fastnn.channels_last)
    assert turned.is_channels_last() and np.array_equal(turned.numpy(), array)
    assert np.array_equal(turned.contiguous().numpy(), array)
    assert np.array_equal(x.transpose(1, 3).contiguous().numpy(), array.transpose(0, 3, 2, 1))


@pytest.mark.parametrize("shape", [(5, 9), (40, 70), (3, 17, 130), (2, 33, 4, 20), (300, 3)])
def test_products_have_one_order_in_any_layout(shape):
    x = np.random.default_rng(0).uniform(0.9, 1.1, shape).astype(np.float32)
    for axis in (*range(len(shape)), None):
        wanted = scan.prod(fastnn.tensor(x), axis).numpy()
        np.testing.assert_allclose(wanted, x.astype(np.float64).prod(axis), rtol=3e-7)
        for view in layouts(x):
            np.testing.assert_array_equal(scan.prod(view, axis).numpy(), wanted)
            np.testing.assert_array_equal(scan.prod(view, axis, True).numpy(), wanted.reshape(x.sum(axis, keepdims=True).shape))
