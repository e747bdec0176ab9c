"""The tensor core: buffers that other libraries look through, numbers written into tensors, unfitting gradients."""

import copy
import ctypes
import pickle

import numpy as np
import pytest

import fastnn
from fastnn import _core, nn, optim

C_CONTIGUOUS, F_CONTIGUOUS, ANY_CONTIGUOUS = 0x38, 0x58, 0x98  # PyBUF_*
get_buffer, release_buffer = ctypes.pythonapi.PyObject_GetBuffer, ctypes.pythonapi.PyBuffer_Release


def grants(tensor, flags):
    """Whether the tensor gives a buffer to a consumer that asks with these flags."""
    view = ctypes.create_string_buffer(200)  # a Py_buffer is smaller
    try:
        get_buffer(ctypes.py_object(tensor), view, flags)
    except BufferError:
        return False
    release_buffer(view)
    return True


def test_a_consumer_that_wants_contiguous_memory_gets_nothing_else():
    dense, spaced = fastnn.ones(2, 3), fastnn.ones(2, 3).transpose(0, 1)
    assert grants(dense, C_CONTIGUOUS) and grants(dense, ANY_CONTIGUOUS) and not grants(dense, F_CONTIGUOUS)
    assert not any(grants(spaced, flags) for flags in (C_CONTIGUOUS, F_CONTIGUOUS, ANY_CONTIGUOUS))
    assert grants(fastnn.ones(3), F_CONTIGUOUS)


def test_a_buffer_outlives_the_tensors_memory():
    t = fastnn.full((50_000,), 3.0)
    view = memoryview(t)
    t.set_data(fastnn.zeros(5))
    others = [fastnn.full((50_000,), 7.0) for _ in range(3)]
    assert np.all(np.asarray(view) == 3), [o.data_ptr() for o in others]
    in_use = _core.memory_stats()["in_use"]
    view.release()
    assert _core.memory_stats()["in_use"] <= in_use - 200_000


def test_a_bool_is_0_or_1():
    for value in (2, 256, -1, 0.5):
        assert _core.scalar(value, fastnn.bool).numpy().view(np.uint8) == 1
    flag = _core.scalar(True, fastnn.bool)
    flag.set_item(0)
    assert flag.numpy().view(np.uint8) == 0


@pytest.mark.parametrize("dtype", [fastnn.float32, fastnn.float64])
@pytest.mark.parametrize("n", [3, 5_000_000])
def test_filling_keeps_the_sign_of_zero(dtype, n):
    assert np.signbit(fastnn.full((n,), -0.0, dtype).numpy()).all()
    assert not np.signbit(fastnn.full((n,), 0.0, dtype).numpy()).any()


def test_integers_are_filled_in_exactly():
    n = 2**53 + 1
    assert fastnn.full((2, 2), n, fastnn.int64).tolist() == [[n, n]] * 2
    assert fastnn.full_like(fastnn.tensor([1, 2]), -n).tolist() == [-n, -n]
    x = fastnn.zeros(3, dtype=fastnn.int64)
    x.fill_(n)
    x[1:2] = n + 2
    assert x.tolist() == [n, n + 2, n]
    assert fastnn.full((2,), n).tolist() == [n] * 2
    assert fastnn.full((2,), np.int32(3)).dtype is fastnn.int64


@pytest.mark.parametrize("strides", [(0, 1), (1, 1), (-1, 1), (2, 1)])
def test_an_output_whose_elements_overlap_is_refused(strides):
    whole = fastnn.zeros(20)
    with pytest.raises(ValueError, match="several elements share one address"):
        whole.as_strided((3, 3), strides, 10).fill_(1.0)
    assert not whole.numpy().any()
    for strides in [(3, 1), (1, 3), (-3, 1), (4, -1)]:
        assert whole.as_strided((3, 3), strides, 8).fill_(1.0).numpy().sum() == 9


def test_a_gradient_of_another_type_is_refused():
    x = fastnn.ones(3, requires_grad=True)
    with pytest.raises(RuntimeError, match="a gradient float64"):
        x.backward(fastnn.ones(3, dtype=fastnn.float64))
    assert x.grad is None


def test_copies_have_memory_that_nobody_else_sees():
    """So first steps of copied models are planned, too: launches on arrays that Python may hold cannot be put off."""
    x, put_off = fastnn.ones(2), []
    for copied in (copy.deepcopy(nn.Linear(2, 2)), pickle.loads(pickle.dumps(nn.Linear(2, 2)))):
        optimizer = optim.SGD(copied.parameters(), lr=0.1)

        def step():
            copied(x).sum().backward()
            optimizer.step()
            put_off.append(_core.is_put_off())

        fastnn.capture(step)()
    assert put_off == [True, True]


def test_deep_copies_keep_the_order_of_maps():
    x = fastnn.rand(2, 3, 4, 5)
    copied = copy.deepcopy(x)
    assert copied.is_channels_last() and copied.tolist() == x.tolist() and not copied.shares_storage(x)
    rows = copy.deepcopy(x[:, 1:, ::2])
    assert rows.tolist() == x[:, 1:, ::2].tolist()


def test_in_looks_at_all_elements():
    x = fastnn.tensor([[1.0, 3.0], [2.0, 4.0]])
    assert 3.0 in x and 9.0 not in x and fastnn.tensor(4.0) in x and 1 not in fastnn.zeros(0, 2)
    with pytest.raises(TypeError, match="is a str, but must be"):
        "a" in x
