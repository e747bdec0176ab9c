"""Gradients of which dy is what max pooling lets through, an element of a block of 2 x 2 pixels (csrc/ops/conv2d_blocks.c)."""

import numpy as np
import pytest
from test_conv import ISAS, Case, check_bits, lay_out

import fastnn
from fastnn import _core
from fastnn._core import launch


@pytest.fixture(autouse=True, params=[(isa, algorithm) for isa in ISAS for algorithm in ("auto", "direct")], ids="-".join)
def settings(request):
    before = _core.get_isa(), fastnn.get_conv_algorithm()
    isa, algorithm = request.param
    _core.set_isa(isa)
    fastnn.set_conv_algorithm(algorithm)
    yield
    _core.set_isa(before[0])
    fastnn.set_conv_algorithm(before[1])


@pytest.mark.parametrize("sizes", [
    dict(n=3, c=6, k=16, h=14, w=14, s=5), dict(n=5, c=3, k=6, h=32, w=32, s=5), dict(n=2, c=2, k=3, h=8, w=14, s=5),
    dict(n=4, c=6, k=7, h=30, w=60, s=5), dict(n=3, c=4, k=9, h=12, w=8, s=5), dict(n=2, c=2, k=5, h=10, w=12, s=3),
    dict(n=1, c=4, k=5, h=8, w=8, s=7), dict(n=7, c=5, k=17, h=12, w=10, s=3)])
@pytest.mark.parametrize("change", ["none", "one more", "an infinity in x", "an infinity in dy", "NaN in a weight"])
def test_gradients_from_what_pooling_lets_through(sizes, change):
    """One element of a block of 2 x 2 pixels at most, in all blocks or in all but the last; and blocks without one."""
    rng = np.random.default_rng(3)
    case = Case(3, groups=1, r=5, stride=(1, 1), dilation=(1, 1), padding=(2, 2, sizes["s"] // 2, sizes["s"] // 2), **sizes)
    position = rng.integers(0, 6, (case.n, case.k, case.oh // 2, case.ow // 2))
    for q in range(4):
        case.dy[:, :, q // 2::2, q % 2::2][position != q] = 0
    if change == "one more": case.dy[-1, -1, -2:, -2:] = 1
    if change == "an infinity in x": case.x[0, 1, 3, 4] = np.inf
    if change == "an infinity in dy": case.dy[-1, 1, 2, 5] = np.inf
    if change == "NaN in a weight": case.weight[0, 1, 4, 2] = np.nan
    with np.errstate(invalid="ignore"):
        wanted, scales = case.reference()
        check_bits(case)
        for got, expected, scale in zip(case.run()[1:], wanted[1:], scales[1:]):
            finite = np.isfinite(got)
            assert finite.any() and np.all(finite <= np.isfinite(expected))
            if change != "NaN in a weight": assert np.all(finite == np.isfinite(expected))  # which zeros beyond edges may meet
            assert np.all(abs(got[finite] - expected[finite]) <= 3e-5 * scale[finite])


def wide_view(shape):
    """Half the channels of a larger map."""
    return np.full((shape[0], shape[2], shape[3], 2 * shape[1]), 7, np.float32)[..., :shape[1]].transpose(0, 3, 1, 2)


OUTPUTS = {"C order": lambda shape: np.full(shape, 7, np.float32), "half of the channels": wide_view,
           "columns reversed": lambda shape: np.full((*shape[:1], *shape[2:], shape[1]), 7, np.float32)[:, :, ::-1].transpose(0, 3, 1, 2),
           "columns before rows": lambda shape: np.full((shape[0], shape[3], shape[2], shape[1]), 7, np.float32).transpose(0, 3, 2, 1),
           "every other element": lambda shape: np.full((*shape[:3], 2 * shape[3]), 7, np.float32)[..., ::2]}


@pytest.mark.parametrize("c, padding", [(6, 0), (6, 2), (1, 2)])
@pytest.mark.parametrize("output", OUTPUTS)
def test_the_gradient_of_what_pooling_lets_through_is_written_as_asked(c, padding, output):
    case = Case(4, groups=1, n=3, c=c, k=16, h=14, w=14, r=5, s=5, stride=(1, 1), dilation=(1, 1), padding=(padding,) * 4)
    case.dy[:, :, 1::2] = case.dy[:, :, ::2, 1::2] = 0
    dx = OUTPUTS[output](case.x.shape)
    whole = dx if dx.base is None else dx.base
    launch.conv2d_backward_input(lay_out(case.dy, "nhwc"), fastnn.tensor(case.weight), input=(14, 14), **case.attributes,
                                 out=fastnn.from_numpy(dx))
    np.testing.assert_array_equal(dx, case.run()[1])
    assert np.count_nonzero(whole == 7) == whole.size - dx.size
