"""Views: the same elements as NumPy's under the same shapes, errors that name what was given, and no way out of the storage."""

import fastnn
import numpy as np
import pytest

KEYS = [0, -1, (1, 2), slice(None), slice(1, None), slice(None, None, -1), slice(4, 1, -2), slice(7, 9), slice(2**70), None,
        Ellipsis, (), (Ellipsis, 0), (slice(None), 1), (0, Ellipsis, slice(None, None, 2)), (None, 1, None), np.int64(1),
        (slice(None), np.int32(-1)), (slice(np.int64(1), None), None), (slice(3, 3), slice(5, 1))]


@pytest.mark.parametrize("key", KEYS, ids=str)
@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray])
def test_a_basic_key_takes_numpys_view(key, layout):
    array = layout(np.arange(60.0).reshape(3, 4, 5))
    x = fastnn.from_numpy(array).requires_grad_()
    y = x[key]
    assert y.shape == array[key].shape and y.shares_storage(x) and np.array_equal(y.numpy(force=True), array[key])
    weight = np.random.default_rng(0).standard_normal(y.shape)
    (y * fastnn.tensor(weight)).sum().backward()
    expected = np.zeros_like(array)
    expected[key] = weight
    assert np.array_equal(x.grad.numpy(), expected)


@pytest.mark.parametrize("shape", [(60,), (-1,), (6, 10), (3, 2, -1, 5), (1, 60, 1), (15, 4), (3, 20), (12, 5)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (0, 2, 1)])
def test_reshape_is_numpys_and_a_view_where_numpys_is_one(shape, order):
    array = np.arange(60.0).reshape(3, 4, 5).transpose(order)
    x = fastnn.from_numpy(array).requires_grad_()
    y, expected = x.reshape(shape), array.reshape(shape)
    assert np.array_equal(y.numpy(force=True), expected) and y.shares_storage(x) == np.shares_memory(expected, array)
    weight = np.random.default_rng(0).standard_normal(y.shape)
    (y * fastnn.tensor(weight)).sum().backward()
    assert np.array_equal(x.grad.numpy(), weight.reshape(array.shape))


def test_extents_that_do_not_fit_are_named():
    x = fastnn.zeros(3, 4)
    for shape in [(5, -1), (13,), (2**62, 4), (2**40, 2**40), (0, -1), (3, 4, 0)]:
        with pytest.raises(ValueError, match="does not hold the tensor's 12 elements"):
            x.reshape(shape)
    for shape in [(-1, -1), (-2, 6)]:
        with pytest.raises(ValueError, match="may hold one -1 and no other negative extent"):
            x.reshape(shape)
    with pytest.raises(ValueError, match="at most 8"):
        x.reshape((1,) * 8 + (12,))
    with pytest.raises(TypeError, match="an extent"):
        x.reshape(2.0, 6)
    with pytest.raises(ValueError, match="too large"):
        fastnn.zeros(0).reshape(2**40, 2**40, 0)
    assert x.reshape(np.int64(4), -1).shape == (4, 3) and fastnn.zeros(0, 3).reshape(0, 2**40).shape == (0, 2**40)


def test_no_view_has_more_than_eight_axes():
    x = fastnn.zeros((1,) * 8)
    for made in (lambda: x.unsqueeze(0), lambda: x[None], lambda: x.expand((1,) * 9)):
        with pytest.raises(ValueError, match="at most 8 axes"):
            made()


@pytest.mark.parametrize("shape,dim,sizes", [((7, 3), 0, 3), ((7, 3), 1, [1, 0, 2]), ((0, 3), 0, 2), ((4, 0), 0, 3), ((2, 5), -1, 9)])
def test_parts_follow_one_another(shape, dim, sizes):
    array = np.random.default_rng(0).standard_normal(shape)
    x = fastnn.tensor(array).requires_grad_()
    found = x.split(sizes, dim)
    assert all(part.shares_storage(x) for part in found)
    assert np.array_equal(np.concatenate([part.numpy(force=True) for part in found], dim), array)
    places = x.unbind(dim)
    assert len(places) == array.shape[dim]
    for k, place in enumerate(places):
        assert np.array_equal(place.numpy(force=True), array.take(k, dim))
    if array.size:
        (found[0].sum() * 2 + places[-1].sum()).backward()
        expected = np.zeros_like(array)
        np.moveaxis(expected, dim, 0)[:found[0].shape[dim]] = 2
        np.moveaxis(expected, dim, 0)[-1] += 1
        assert np.array_equal(x.grad.numpy(), expected)


def test_sections_below_zero_are_refused():
    with pytest.raises(ValueError, match="must not be negative"):
        fastnn.zeros(4).split([5, -1])


@pytest.mark.parametrize("view", [lambda x, n: x[n:], lambda x, n: x.reshape(n, -1), lambda x, n: x.expand(n, -1, -1),
                                  lambda x, n: x.transpose(n, 0), lambda x, n: x.unsqueeze(n), lambda x, n: x.flatten(n)])
def test_an_index_that_changes_the_tensor_does_not_lead_out_of_its_memory(view):
    x = fastnn.zeros(64, 64)

    class Index:
        def __index__(self):
            x.set_data(fastnn.zeros(1))
            return 1

    y = view(x, Index())
    assert y.numel() >= 63 * 64 and y.sum().item() == 0


def both_layouts(array):
    """An array as tensors in C order and, of four axes, channels last."""
    yield fastnn.tensor(array).requires_grad_()
    if array.ndim == 4:
        yield fastnn.tensor(array).contiguous(memory_format=fastnn.channels_last).detach().requires_grad_()


@pytest.mark.parametrize("shape", [(7,), (5, 300), (3, 4, 5), (2, 3, 40, 90), (2, 0, 3)])
def test_rolling_turning_and_padding_are_numpys_and_their_gradients_go_back(shape):
    array = np.random.default_rng(0).standard_normal(shape)
    axes = tuple(range(len(shape)))
    shifts = tuple(3 * d - 1 for d in axes)
    width = [(d % 2, d) for d in axes]
    cases = [(lambda x: x.roll(shifts, axes), lambda a: np.roll(a, shifts, axes)),
             (lambda x: x.roll((2, -1), (0, 0)), lambda a: np.roll(a, 1, 0)),
             (lambda x: x.flip(axes[1:] + axes[:1]), lambda a: np.flip(a, axes)), (lambda x: x.flip(-1), lambda a: np.flip(a, -1)),
             (lambda x: fastnn.functional.pad(x, [n for pair in reversed(width) for n in pair], value=2.5),
              lambda a: np.pad(a, width, constant_values=2.5))]
    for ours, numpys in cases:
        for x in both_layouts(array):
            y, expected = ours(x), numpys(array)
            assert np.array_equal(y.numpy(force=True), expected) and y.lies_in_rows == (x.lies_in_rows if array.size else y.lies_in_rows)
            weight = np.random.default_rng(1).standard_normal(expected.shape)
            (y * fastnn.tensor(weight)).sum().backward()
            place = numpys(np.arange(1.0, array.size + 1).reshape(shape))
            number = np.where(place == 2.5, 0, place).astype(int) if numpys is cases[-1][1] else place.astype(int)
            gradient = np.zeros(array.size + 1)
            np.add.at(gradient, number.ravel(), weight.ravel())
            assert np.array_equal(x.grad.numpy(), gradient[1:].reshape(shape))


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_joining_is_numpys_in_rows_where_a_part_lies_so(dim):
    a, b = np.random.default_rng(0).standard_normal((2, 3, 4, 5, 6))
    last = fastnn.tensor(b).contiguous(memory_format=fastnn.channels_last)
    for second in (fastnn.tensor(b), last):
        y = fastnn.cat([fastnn.tensor(a), second], dim)
        assert np.array_equal(y.numpy(), np.concatenate([a, b], dim)) and y.lies_in_rows == second.lies_in_rows
        assert np.array_equal(fastnn.stack([fastnn.tensor(a[0]), second[0]], dim).numpy(), np.stack([a[0], b[0]], dim))
    with pytest.raises(ValueError, match="differ in another axis"):
        fastnn.cat([fastnn.zeros(2, 3), fastnn.zeros(2, 4)], 0)
    with pytest.raises(ValueError, match="differ in another axis"):
        fastnn.cat([fastnn.zeros(2, 3), fastnn.zeros(2, 3, 1)], 0)
    with pytest.raises(TypeError, match="must hold tensors only"):
        fastnn.cat([fastnn.zeros(2, 3), np.zeros((2, 3))], 0)
    assert fastnn.cat([fastnn.zeros(0), fastnn.zeros(2, 3)]).shape == (2, 3)
    assert fastnn.cat([fastnn.zeros(2, 3, dtype=fastnn.int64), fastnn.zeros(2, 3)]).dtype is fastnn.float32


@pytest.mark.parametrize("inner", [1, 2, 7, 8, 16, 32, 33, 255, 256, 257])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32", "uint8", "bool"])
def test_rows_are_copied_wherever_they_lie(inner, dtype):
    array = (np.random.default_rng(0).standard_normal((3, 90, inner + 3)) * 100).astype(dtype)
    x, place = fastnn.tensor(array), np.zeros((3, 95, inner + 5), dtype)
    for source in (np.s_[:, :, 1:inner + 1], np.s_[:, ::2, :inner], np.s_[:, ::-1, 2:inner + 2], np.s_[1:, 5:, 3:inner + 3]):
        assert np.array_equal(x[source].clone().numpy(), array[source])
        rows = array[source]
        y = fastnn.tensor(place)
        y[:rows.shape[0], 1:1 + rows.shape[1], 4:4 + inner] = x[source]
        expected = place.copy()
        expected[:rows.shape[0], 1:1 + rows.shape[1], 4:4 + inner] = rows
        assert np.array_equal(y.numpy(), expected)
    one = fastnn.tensor(array[:, :1, :inner])
    assert np.array_equal(one.expand(3, 90, inner).clone().numpy(), np.broadcast_to(array[:, :1, :inner], (3, 90, inner)))


@pytest.mark.parametrize("shape,dim", [((5, 30), 0), ((5, 30), 1), ((1, 9), 0), ((2, 3, 4), -2), ((2, 3, 4, 5), 1), ((0, 9), 0),
                                       ((3, 2, 8), 1)])
@pytest.mark.parametrize("repeats", [0, 1, 3])
def test_repeated_places_are_numpys_and_have_memory_of_their_own(shape, dim, repeats):
    array = np.random.default_rng(0).standard_normal(shape)
    x = fastnn.tensor(array).requires_grad_()
    y = x.repeat_interleave(repeats, dim)
    assert np.array_equal(y.numpy(force=True), np.repeat(array, repeats, dim)) and not y.shares_storage(x)
    weight = np.random.default_rng(1).standard_normal(y.shape)
    (y * fastnn.tensor(weight)).sum().backward()
    extents = list(shape)
    extents.insert(dim % len(shape) + 1, repeats)
    assert np.allclose(x.grad.numpy(), weight.reshape(extents).sum(dim % len(shape) + 1))
    copy = x.detach().repeat_interleave(repeats, dim)
    copy[:1] = 7.0
    assert np.array_equal(x.numpy(force=True), array) and np.array_equal(copy[1:].numpy(), np.repeat(array, repeats, dim)[1:])


def test_what_is_rolled_by_nothing_is_a_copy():
    x = fastnn.zeros(2, 3)
    for y in (fastnn.roll(x, 0, 0), fastnn.roll(x, 3, 1), fastnn.roll(x, 6), fastnn.roll(x, (), ())):
        y += 1
        assert x.tolist() == [[0, 0, 0], [0, 0, 0]]


def test_joining_nothing_in_the_binding_is_refused():
    for tensors in ((), (fastnn.zeros(2), fastnn.zeros(2, 2)), (fastnn.zeros(()),)):
        with pytest.raises(ValueError, match="joined: . tensors are not alike, or have no axis 0"):
            fastnn._core.joined(tensors, 0)
    with pytest.raises(ValueError, match="parts: 0 is no extent of parts"):
        fastnn._core.parts(None, fastnn.zeros(3), 0, 0)
