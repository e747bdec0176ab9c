"""Indexing beyond the OpSpec list: agreement with NumPy, assignment, errors, order of additions."""

import numpy as np
import pytest

import fastnn
from fastnn._core import launch
from fastnn.ops import index
from fastnn.testing.checks import forced_threads

X = np.random.default_rng(0).standard_normal((4, 5, 6)).astype(np.float32)
KEYS = [([0, 2],), (np.array([[0, 1], [3, -4]]),), (slice(None), [4, 0]), (Ellipsis, [5]), (X > 0,), (X[:, :, 0] > 0,),
        (X[:, 0, 0] > 9,), (slice(None), X[0] > 0), (np.array([0, 1]), slice(None), np.array([2, 3])),
        (slice(3, 0, -1), None, [1, 1]), (None, np.array([2])), (np.array([0, 1, 2]),) * 3, (slice(0, 0), [1, 2]),
        ([],), (X[:, 0, 0] > 0, [1]),
        (np.array(2),), (np.int64(1), [0, 0])]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_reading_is_numpys(key):
    np.testing.assert_array_equal(fastnn.tensor(X)[key].numpy(), X[key])
    channels_last = fastnn.from_numpy(np.ascontiguousarray(X.transpose(1, 2, 0)).transpose(2, 0, 1))
    np.testing.assert_array_equal(channels_last[key].numpy(), X[key])


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_writing_is_numpys(key):
    t, expected = fastnn.tensor(X), X.copy()
    t[key] = 7.0
    expected[key] = 7.0
    np.testing.assert_array_equal(t.numpy(), expected)
    values = np.random.default_rng(1).standard_normal(X[key].shape).astype(np.float32)
    t[key] = fastnn.tensor(values)
    expected[key] = values
    np.testing.assert_array_equal(t.numpy(), expected)


def test_tensors_as_keys():
    t = fastnn.tensor(X)
    np.testing.assert_array_equal(t[fastnn.tensor([1, 3])].numpy(), X[[1, 3]])
    np.testing.assert_array_equal(t[fastnn.tensor(X > 0)].numpy(), X[X > 0])
    np.testing.assert_array_equal(t[fastnn.tensor(2), fastnn.tensor([[1, 2]])].numpy(), X[2, [[1, 2]]])


def test_writing_bumps_the_version_and_is_refused_with_gradients():
    t = fastnn.tensor(X)
    before = t.version
    t[[0]] = 1
    assert t.version > before
    with pytest.raises(RuntimeError, match="requires grad"):
        fastnn.tensor(X, requires_grad=True)[[0]] = 1


def test_repeated_indices_add_their_gradients_in_order():
    x = fastnn.tensor(X, requires_grad=True)
    x[[2, 2, 0]].backward(fastnn.ones(3, 5, 6))
    np.testing.assert_array_equal(x.grad.numpy()[:, 0, 0], [1, 0, 2, 0])


@pytest.mark.parametrize("shape, dim", [((50, 64), 0), ((50, 3000), 0), ((700, 50), 1), ((9, 50, 40), 1),
                                        ((7, 50, 12, 13), 1)])
def test_index_add_has_the_same_bits_for_any_number_of_threads(shape, dim):
    rng = np.random.default_rng(0)
    picks = rng.integers(-50, 50, 3000 if np.prod(shape) < 40000 else 60)
    dy = rng.standard_normal(shape[:dim] + picks.shape + shape[dim + 1:]).astype(np.float32)
    expected = np.zeros(shape, np.float32)
    np.add.at(np.moveaxis(expected, dim, 0), picks, np.moveaxis(dy, dim, 0))
    for threads in (1, 2, 3, 8):
        with forced_threads(threads):
            y = fastnn.zeros(*shape)
            launch.index_add(fastnn.tensor(picks), fastnn.tensor(dy), axis=dim, out=y)
            np.testing.assert_array_equal(y.numpy(), expected)
            np.testing.assert_array_equal(launch.index_select(y, fastnn.tensor(picks), axis=dim).numpy(),
                                          expected.take(picks, dim))


def test_errors_come_before_anything_is_written():
    t, y = fastnn.tensor(X), fastnn.zeros(4, 3)
    with pytest.raises(IndexError, match=r"index\[1\] is 5, but must lie between -5 and 4"):
        index.index_select(t, 1, [0, 5])
    with pytest.raises(IndexError, match=r"index\[2\] is -5"):
        launch.index_add(fastnn.tensor([0, 1, -5]), fastnn.ones(3, 3), axis=0, out=y)
    with pytest.raises(IndexError, match="element 1 of index is 3, but must lie between 0 and 2"):
        launch.scatter_add(fastnn.tensor([[0, 3, 1]]), fastnn.ones(1, 3), axis=1, out=y[:1])
    np.testing.assert_array_equal(y.numpy(), np.zeros((4, 3)))
    for key, message in (((X[:, :4, 0] > 0,), "mask of shape"), ((0, 0, 0, [0]), "4 indices"), 
                         (([0, 1], [0, 1, 2]), "shape mismatch"), ((Ellipsis, Ellipsis, [0]), "Ellipsis")):
        with pytest.raises(IndexError, match=message):
            t[key]
    with pytest.raises(TypeError, match="integers"):
        index.index_select(t, 0, [0.5])
    with pytest.raises(TypeError, match="integers or bools"):
        t[[0.5]]
    with pytest.raises(ValueError, match="must agree"):
        index.gather(t, 0, np.zeros((1, 6, 6), int))
    with pytest.raises(TypeError, match="caller gives"):
        launch.index_add(fastnn.tensor([0]), fastnn.ones(1, 3), axis=0)
    with pytest.raises(ValueError, match="need"):
        launch.index_add(fastnn.tensor([0]), fastnn.ones(2, 3), axis=0, out=y)


def test_one_hot_without_a_number_takes_the_greatest():
    assert fastnn.one_hot([2, 0]).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert fastnn.one_hot(0).tolist() == [1]


@pytest.mark.parametrize("x, classes, error, message", [
    ([0, 3], 3, IndexError, "index holds 3, but classes must lie between 0 and 2"),
    ([0, -1], 3, IndexError, "index holds -1"), ([-2], -1, IndexError, "index holds -2"),
    ([0.0], 3, TypeError, "one_hot: input has dtype float"), ([0], 0, ValueError, "num_classes is 0"),
    (np.zeros((0, 2), int), -1, ValueError, r"num_classes must be given, as input of shape \(0, 2\)")])
def test_errors_of_one_hot(x, classes, error, message):
    with pytest.raises(error, match=message):
        fastnn.one_hot(x, classes)


def test_one_hot_in_a_captured_step():
    program = fastnn.capture(lambda labels: fastnn.one_hot(labels, 4))
    for labels in ([0, 1, 2], [3, 3, 0], [1, 0, 2], [2, 2, 2]):
        assert program(fastnn.tensor(labels)).tolist() == np.eye(4)[labels].tolist()
    with pytest.raises(IndexError, match="index holds 9"):
        program(fastnn.tensor([1, 9, 0]))


def scattered(x, index, axis):
    """Of equal indices the last one counts."""
    y, x, index = (np.moveaxis(a, axis, 0) for a in (x.copy(), x, index))
    others = np.indices(x.shape[1:], sparse=True)
    for j in range(len(index)):
        y[(index[j], *others)] = x[j]
    return np.moveaxis(y, 0, axis)


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
@pytest.mark.parametrize("shape, axis", [((20000,), 0), ((3, 9001), 1), ((9001, 3), 0), ((5, 700, 11), 1), ((2, 5000, 1), 1),
                                         ((2, 50, 130), 1)])
def test_gather_and_scatter_cut(shape, axis, dtype):
    """Axes longer than a chunk, inner and outer ones, whatever the number of threads and the layout; the first bad index is
    named."""
    rng = np.random.default_rng(5)
    x = (rng.standard_normal(shape) * 50).astype(dtype)
    index = rng.integers(0, shape[axis], shape)
    for threads in (1, 3):
        with forced_threads(threads):
            found = fastnn.tensor(x).gather(axis, fastnn.tensor(index)).numpy()
            np.testing.assert_array_equal(found, np.take_along_axis(x, index, axis))
            turned = fastnn.tensor(x.T.copy()).permute(*range(len(shape))[::-1])
            found = turned.gather(axis, fastnn.tensor(index.T.copy()).permute(*range(len(shape))[::-1])).numpy()
            np.testing.assert_array_equal(found, np.take_along_axis(x, index, axis))
            found = fastnn.tensor(x).scatter(axis, fastnn.tensor(index), fastnn.tensor(x)).numpy()
            np.testing.assert_array_equal(found, scattered(x, index, axis))
    index.reshape(-1)[[-5, -3]] = shape[axis], -1
    with pytest.raises(IndexError, match=f"element {index.size - 5} of index is {shape[axis]}, but must lie between 0 and"):
        fastnn.tensor(x).gather(axis, fastnn.tensor(index))


REDUCTIONS = {"sum": np.add, "prod": np.multiply, "amax": np.maximum, "amin": np.minimum}


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8"])
@pytest.mark.parametrize("shape, axis, count", [((300, 7), 0, 20000), ((3, 40, 6), 1, 9000), ((1, 9), 0, 50), ((17, 2000), 0, 60),
                                                ((5, 8), 1, 30)])
def test_one_index_for_whole_slices(shape, axis, count, dtype):
    """An index that was expanded, as for the messages of a graph, gives what the same index written out gives, to the bit."""
    rng = np.random.default_rng(7)
    line = rng.integers(0, shape[axis], count)
    many = shape[:axis] + (count,) + shape[axis + 1:]
    x, src = (rng.integers(1, 4, s).astype(dtype) for s in (shape, many))
    written = np.broadcast_to(line.reshape([-1 if d == axis else 1 for d in range(len(shape))]), many)
    expanded = fastnn.tensor(line).reshape([-1 if d == axis else 1 for d in range(len(shape))]).expand(*many)
    for threads in (1, 2, 8):
        with forced_threads(threads):
            t, s = fastnn.tensor(x), fastnn.tensor(src)
            np.testing.assert_array_equal(t.gather(axis, expanded).numpy(), np.take_along_axis(x, written, axis))
            np.testing.assert_array_equal(t.scatter(axis, expanded, s).numpy(), t.scatter(axis, fastnn.tensor(written), s).numpy())
            for name, ufunc in REDUCTIONS.items():
                expected = np.moveaxis(x.copy(), axis, 0)
                with np.errstate(over="ignore"):
                    ufunc.at(expected, line, np.moveaxis(src, axis, 0))
                np.testing.assert_array_equal(t.scatter_reduce(axis, expanded, s, name).numpy(), np.moveaxis(expected, 0, axis))
            if dtype != "uint8":  # whose sums wrap around
                for include in (False, True):
                    means = [t.scatter_reduce(axis, i, s, "mean", include_self=include).numpy() for i in (expanded, fastnn.tensor(written))]
                    np.testing.assert_array_equal(*means)
    wrong = line.copy()
    wrong[count // 2] = shape[axis]
    wrong = fastnn.tensor(wrong).reshape([-1 if d == axis else 1 for d in range(len(shape))]).expand(*many)
    first = count // 2 * int(np.prod(shape[axis + 1:]))
    for call in (lambda: t.gather(axis, wrong), lambda: t.scatter_add(axis, wrong, s)):
        with pytest.raises(IndexError, match=f"element {first} of index is {shape[axis]}, but must lie between 0 and {shape[axis] - 1}"):
            call()


def test_places_of_more_than_a_chunk():
    x = np.random.default_rng(6).integers(0, 3, (7, 70, 111))
    np.testing.assert_array_equal(fastnn.tensor(x).nonzero().numpy(), np.argwhere(x))
    x[:, 1:] = 0  # far apart
    np.testing.assert_array_equal(fastnn.tensor(x).nonzero().numpy(), np.argwhere(x))
