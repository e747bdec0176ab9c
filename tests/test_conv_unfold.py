"""Gradients of many channels' weights, which are products of unfolded windows (csrc/ops/conv2d_weight_unfold.c)."""

import numpy as np
import pytest
from test_conv import ISAS, Case, check, check_bits

import fastnn
from fastnn import _core
from fastnn._core import launch
from fastnn.testing.checks import forced_threads


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("sizes", [
    dict(c=256, k=260, h=9, w=8, r=3, s=3, stride=(2, 1), padding=(1, 0, 2, 1), dilation=(1, 2)),
    dict(c=128, k=130, h=14, w=13, r=1, s=2, stride=(3, 2), padding=(0, 2, 0, 1), dilation=(1, 1)),  # windows beyond the image
    dict(c=288, k=256, h=40, w=30, r=2, s=1, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(3, 1)),  # several blocks of pixels
])
def test_gradients_of_many_channels(isa, dtype, sizes):
    _core.set_isa(isa)
    case = Case(10, dtype, n=2, groups=1, **sizes)
    check(case, case.run())
    check_bits(case)


@pytest.mark.parametrize("sizes", [dict(n=2, c=256, k=520, h=9, w=9, stride=(2, 1), dilation=(1, 1)),
                                   dict(n=3, c=1024, k=256, h=24, w=24, stride=(1, 1), dilation=(1, 2))])
def test_windows_that_are_packed_for_all_chunks_or_in_slabs(sizes):
    _core.set_isa(ISAS[-1] if ISAS[-1] != "amx" else ISAS[-2])
    case = Case(11, groups=1, r=3, s=3, padding=(1, 1, 1, 1), **sizes)
    results = []
    for threads in (1, 3):
        with forced_threads(threads):
            results.append(case.run())
    check(case, results[0])
    for of_one, of_three in zip(*results):
        np.testing.assert_array_equal(of_one, of_three)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_what_is_not_finite_in_dy_reaches_all_taps_of_many_channels(isa, value):
    """Beyond an image's edge are zeros, and zero times infinity is NaN."""
    _core.set_isa(isa)
    case = Case(3, n=1, groups=1, c=256, k=256, h=6, w=5, r=3, s=3, stride=(2, 2), padding=(1, 1, 1, 1), dilation=(1, 1))
    case.dy[0, 7, 0, 0] = value
    with np.errstate(invalid="ignore"):
        dweight = case.run()[2]
    assert not np.isfinite(dweight[7]).any() and np.isfinite(np.delete(dweight, 7, 0)).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", [(0, 256, 8, 8), (2, 256, 0, 3)])
def test_no_pixels_of_many_channels_give_a_zero_gradient(isa, shape):
    _core.set_isa(isa)
    a = {"stride": (2, 1), "padding": (2, 2, 1, 1), "dilation": (1, 1), "groups": 1}
    x, weight = fastnn.zeros(shape), fastnn.zeros((260, 256, 3, 3))
    dy = launch.conv2d_forward(x, weight, None, **a)
    dweight = launch.conv2d_backward_weight(dy + 1, x, kernel=(3, 3), **a).numpy()
    np.testing.assert_array_equal(dweight, np.zeros((260, 256, 3, 3)))
