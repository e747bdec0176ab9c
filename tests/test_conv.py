"""Convolutions against a float64 NumPy reference: all passes, every ISA, any geometry, layout and number of threads."""

import numpy as np
import pytest
from training import steps

import fastnn
import fastnn.functional as F
from fastnn import _core, nn
from fastnn._core import launch
from fastnn.program import capture
from fastnn.testing.checks import forced_threads

ISAS = _core.available_isas()


@pytest.fixture(autouse=True)
def settings():
    """The direct ways, whose bound these tests assume: on which shapes Winograd's pays goes by instruction set."""
    isa, threads, algorithm = _core.get_isa(), _core.get_num_threads(), fastnn.get_conv_algorithm()
    fastnn.set_conv_algorithm("direct")
    yield
    fastnn.set_conv_algorithm(algorithm)
    _core.set_isa(isa)
    _core.set_num_threads(threads)
    _core.set_thread_policy("auto")


class Case:
    """One convolution with its operands as NumPy arrays and its three results in float64."""

    def __init__(self, seed, dtype=np.float32, **fixed):
        rng = np.random.default_rng(seed)
        small = {"groups": int(rng.choice([1, 1, 1, 2, 3])), "n": int(rng.integers(1, 4)),
                 "c": int(rng.choice([1, 2, 3, 5, 8, 16, 17, 33, 70, rng.integers(1, 71)])),
                 "k": int(rng.choice([1, 2, 6, 15, 16, 31, 33, 64, 70, rng.integers(1, 71)])),
                 "h": int(rng.integers(1, 34)), "w": int(rng.integers(1, 34)), "r": int(rng.integers(1, 6)),
                 "s": int(rng.integers(1, 6)),
                 "stride": tuple(int(v) for v in rng.choice([1, 1, 1, 2, 3], 2)),
                 "padding": tuple(int(v) for v in rng.integers(0, 4, 4)),
                 "dilation": tuple(int(v) for v in rng.choice([1, 1, 1, 2, 3], 2)), "bias": bool(rng.integers(0, 2))}
        kind = rng.integers(0, 8)
        if kind == 0:  # depthwise
            small |= {"groups": small["c"], "c": 1, "k": 1}
        elif kind == 1:  # groups that are lanes side by side
            size = int(rng.choice([2, 4, 8, 16]))
            small |= {"groups": int(rng.integers(2, 12)), "c": size, "k": size}
        elif kind == 2:  # several outputs of each input
            small |= {"groups": int(rng.integers(2, 20)), "c": 1, "k": int(rng.integers(2, 7))}
        if rng.integers(0, 6) == 0:  # pointwise
            small |= {"r": 1, "s": 1, "padding": (0, 0, 0, 0)}
        self.__dict__ |= small | fixed
        self.h = max(self.h, (self.r - 1) * self.dilation[0] + 1 - self.padding[0] - self.padding[1])
        self.w = max(self.w, (self.s - 1) * self.dilation[1] + 1 - self.padding[2] - self.padding[3])
        self.oh = (self.h + sum(self.padding[:2]) - (self.r - 1) * self.dilation[0] - 1) // self.stride[0] + 1
        self.ow = (self.w + sum(self.padding[2:]) - (self.s - 1) * self.dilation[1] - 1) // self.stride[1] + 1
        self.attributes = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation,
                           "groups": self.groups}
        self.x = rng.standard_normal((self.n, self.groups * self.c, self.h, self.w)).astype(dtype)
        self.weight = rng.standard_normal((self.groups * self.k, self.c, self.r, self.s)).astype(dtype)
        self.b = rng.standard_normal(self.groups * self.k).astype(dtype) if self.bias else None
        self.dy = rng.standard_normal((self.n, self.groups * self.k, self.oh, self.ow)).astype(dtype)

    def __repr__(self):
        return (f"x {self.x.shape} weight {self.weight.shape} {self.attributes} bias {self.bias}")

    def windows(self, padded):
        """(n, groups, c, oh, ow, r, s): a view of the padded input."""
        n, c, h, w = padded.strides
        return np.lib.stride_tricks.as_strided(
            padded, (self.n, self.groups, self.c, self.oh, self.ow, self.r, self.s),
            (n, self.c * c, c, h * self.stride[0], w * self.stride[1], h * self.dilation[0], w * self.dilation[1]))

    def reference(self):
        """y, dx, dweight in float64 and, for the tolerance, where float32 will do, the same sums over absolute values."""
        return self.passes(self.x, self.weight, self.b, self.dy), self.passes(*(
            None if a is None else abs(a) for a in (self.x, self.weight, self.b, self.dy)), np.float32)

    def passes(self, x, weight, bias, dy, dtype=np.float64):
        top, bottom, left, right = self.padding
        padded = np.pad(x.astype(dtype), ((0, 0), (0, 0), (top, bottom), (left, right)))
        view = self.windows(padded)
        weight = weight.astype(dtype).reshape(self.groups, self.k, self.c, self.r, self.s)
        grad = dy.astype(dtype).reshape(self.n, self.groups, self.k, self.oh, self.ow)
        products = self.c * self.k > 1  # else there is nothing to sum over at a pixel: copying windows would take longer
        y = np.einsum("ngcijrs,gkcrs->ngkij", view, weight, optimize=products).reshape(dy.shape)
        dweight = np.einsum("ngcijrs,ngkij->gkcrs", view, grad, optimize=products).reshape(self.weight.shape)
        dpadded = np.zeros_like(padded)
        dview = self.windows(dpadded)
        for r in range(self.r):
            for s in range(self.s):
                dview[..., r, s] += np.einsum("ngkij,gkc->ngcij", grad, weight[..., r, s], optimize=products)
        dx = dpadded[:, :, top:top + self.h, left:left + self.w]
        return y if bias is None else y + bias.reshape(1, -1, 1, 1), dx, dweight

    def run(self, layout="nhwc"):
        """y, dx, dweight as fastnn gives them, on operands laid out as asked."""
        x, dy, weight = lay_out(self.x, layout), lay_out(self.dy, layout), fastnn.tensor(self.weight)
        if layout == "strided":
            weight = lay_out(self.weight, layout)
        bias = None if self.b is None else fastnn.tensor(self.b)
        y = launch.conv2d_forward(x, weight, bias, **self.attributes)
        dx = launch.conv2d_backward_input(dy, weight, input=(self.h, self.w), **self.attributes)
        dweight = launch.conv2d_backward_weight(dy, x, kernel=(self.r, self.s), **self.attributes)
        return tuple(t.numpy().copy() for t in (y, dx, dweight))


def lay_out(array, layout):
    """A tensor of `array`'s values: channels-last, C-ordered, or with gaps and a reversed axis order."""
    if layout == "nchw":
        return fastnn.tensor(array)
    if layout == "nhwc":
        return fastnn.tensor(np.ascontiguousarray(array.transpose(0, 2, 3, 1))).permute(0, 3, 1, 2)
    big = np.zeros(tuple(2 * s for s in array.transpose(3, 1, 0, 2).shape), array.dtype)
    big[::2, ::2, ::2, ::2] = array.transpose(3, 1, 0, 2)
    return fastnn.from_numpy(big[::2, ::2, ::2, ::2]).permute(2, 1, 3, 0)


def check_sums_in_place(channels, filters, value):
    """A sum written over one of its terms: a call that is made again for `value` must not have added it before."""
    rng = np.random.default_rng(1)
    weight = fastnn.tensor(rng.standard_normal((filters, channels, 3, 3)).astype(np.float32))
    good, bad = (rng.standard_normal((3, channels, 21, 20)).astype(np.float32) for _ in range(2))
    bad[2, 5, 20, 19] = value
    start = rng.standard_normal((3, filters, 21, 20)).astype(np.float32)

    def sums(captured):
        total = lay_out(start, "nhwc")

        def step(x):
            launch.add(total, launch.conv2d_forward(x, weight, None, stride=(1, 1), padding=(1,) * 4, dilation=(1, 1),
                                                    groups=1), out=total)
            return total.sum()

        program = fastnn.capture(step) if captured else step
        for x in (good, good, good, bad):
            program(lay_out(x, "nhwc"))
        if captured:
            assert program.obstacle is None and program.replays == 2
        return total.numpy().tobytes()

    with np.errstate(all="ignore"):
        assert sums(True) == sums(False)


def check(case, results):
    """`results`: y, dx, dweight, or several of those by instruction set."""
    terms = (case.c * case.r * case.s, case.k * case.r * case.s, case.n * case.oh * case.ow)
    eps = np.finfo(case.x.dtype).eps
    wanted, sizes = case.reference()
    for isa, three in (results if isinstance(results, dict) else {_core.get_isa(): results}).items():
        for name, got, want, size, n in zip(("y", "dx", "dweight"), three, wanted, sizes, terms):
            assert got.shape == want.shape, f"{name} of {case}"
            bound = eps * (2 + n ** 0.5) * size + 1e-30
            worst = np.max(abs(got - want) / bound, initial=0)
            assert worst <= 1, f"{name} of {case} on {isa}: error {worst:.2f} times the bound"


@pytest.mark.parametrize("block", range(20))
def test_random_convolutions_match_the_reference_on_every_isa(block):
    for seed in range(block * 26, block * 26 + 26):
        case = Case(seed, np.float64 if seed % 6 == 5 else np.float32)
        results = {}
        for isa in ISAS:
            _core.set_isa(isa)
            results[isa] = case.run(("nhwc", "nhwc", "nchw", "strided")[seed % 4])
        check(case, results)


@pytest.mark.parametrize("isa", ISAS)
def test_random_convolutions_of_one_dimension(isa):
    _core.set_isa(isa)
    for seed in range(3000, 3040):
        case = Case(seed, h=1, r=1, stride=(1, seed % 3 + 1), dilation=(1, seed % 2 + 1), padding=(0, 0, 2, 2))
        x, weight, dy = (fastnn.tensor(a[:, :, 0]) for a in (case.x, case.weight, case.dy))
        bias = None if case.b is None else fastnn.tensor(case.b)
        x.requires_grad = weight.requires_grad = True
        y = F.conv1d(x, weight, bias, case.stride[1], 2, case.dilation[1], case.groups)
        y.backward(dy)
        check(case, tuple(t.numpy()[:, :, None] for t in (y.detach(), x.grad, weight.grad)))


@pytest.mark.parametrize("isa", ISAS)
def test_random_transposed_convolutions(isa):
    """The same three sums with x and y, and with them two of the passes, changing places."""
    _core.set_isa(isa)
    for seed in range(4000, 4040):
        rows, columns = seed % 3, seed // 3 % 3
        case = Case(seed, padding=(rows, rows, columns, columns), bias=False)
        pair = zip((case.h, case.w), (case.oh, case.ow), (case.r, case.s), case.stride, case.dilation, (rows, columns))
        extra = tuple(h - ((oh - 1) * step + gap * (r - 1) + 1 - 2 * pad) for h, oh, r, step, gap, pad in pair)
        dy, weight, x = (fastnn.tensor(a) for a in (case.dy, case.weight, case.x))
        dy.requires_grad = weight.requires_grad = True
        dx = F.conv_transpose2d(dy, weight, None, case.stride, (rows, columns), extra, case.groups, case.dilation)
        dx.backward(x)
        check(case, tuple(t.numpy() for t in (dy.grad, dx.detach(), weight.grad)))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_isa_matches_the_reference(isa, dtype):
    _core.set_isa(isa)
    for seed in range(1000, 1020):
        case = Case(seed, dtype, h=9, w=11)
        check(case, case.run(("nhwc", "nchw", "strided")[seed % 3]))


@pytest.mark.parametrize("seed", range(2000, 2016))
def test_threads_and_layouts_do_not_change_a_bit(seed):
    case = Case(seed)
    _core.set_thread_policy("force")
    _core.set_num_threads(1)
    first = case.run("nhwc")
    for threads, layout in ((1, "nchw"), (1, "strided"), (2, "nhwc"), (3, "nchw"), (8, "nhwc")):
        _core.set_num_threads(threads)
        for name, a, b in zip(("y", "dx", "dweight"), first, case.run(layout)):
            np.testing.assert_array_equal(a, b, err_msg=f"{name} of {case}, {threads} threads, {layout}")


@pytest.mark.parametrize("sizes", [
    dict(n=3, groups=1, c=160, k=96, h=30, w=30, r=3, s=3, stride=(1, 1), padding=(1, 1, 1, 1),
         dilation=(1, 1)),   # split gradient
    dict(n=83, groups=1, c=20, k=9, h=7, w=7, r=1, s=1, stride=(1, 1), padding=(0, 0, 0, 0),
         dilation=(1, 1)),      # parts cut images
    dict(n=83, groups=1, c=20, k=9, h=14, w=14, r=1, s=1, stride=(2, 2), padding=(0, 0, 0, 0), dilation=(1, 1)),
    dict(n=83, groups=1, c=20, k=9, h=7, w=7, r=3, s=3, stride=(1, 1), padding=(1, 1, 1, 1), dilation=(1, 1)),
    dict(n=83, groups=2, c=3, k=9, h=7, w=7, r=3, s=3, stride=(1, 1), padding=(1, 1, 1, 1), dilation=(1, 1)),
    dict(n=2, groups=1, c=20, k=9, h=3, w=3, r=1, s=1, stride=(2, 2), padding=(1, 1, 1, 1),
         dilation=(1, 1)),       # keeps its size
    dict(n=4, groups=1, c=3, k=40, h=61, w=59, r=7, s=7, stride=(2, 2), padding=(3, 3, 3, 3),
         dilation=(1, 1)),     # several parts
    dict(n=2, groups=1, c=1024, k=33, h=7, w=7, r=3, s=3, stride=(1, 1), padding=(1, 1, 1, 1),
         dilation=(1, 1)),    # rows a page apart
    dict(n=2, groups=1, c=1024, k=40, h=5, w=6, r=1, s=1, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1)),
    dict(n=1, groups=1, c=512, k=300, h=4, w=4, r=3, s=3, stride=(1, 1), padding=(1, 1, 1, 1),
         dilation=(1, 1)),    # split panels
    dict(n=2, groups=1, c=40, k=70, h=28, w=28, r=1, s=1, stride=(2, 2), padding=(0, 0, 0, 0),
         dilation=(1, 1)),    # untouched pixels
    dict(n=1, groups=1200, c=1, k=1, h=6, w=6, r=3, s=3, stride=(2, 2), padding=(0, 0, 0, 0), dilation=(1, 1)),  # ends within a copy
    dict(n=2, groups=70, c=1, k=1, h=40, w=40, r=3, s=3, stride=(2, 2), padding=(1, 1, 1, 1), dilation=(1, 1)),
    dict(n=4, groups=128, c=1, k=1, h=96, w=96, r=3, s=3, stride=(1, 1), padding=(1, 1, 1, 1),
         dilation=(1, 1)),     # results past the caches
    dict(n=2, groups=37, c=1, k=1, h=19, w=23, r=5, s=5, stride=(1, 1), padding=(2, 2, 4, 4), dilation=(1, 2)),
    dict(n=40, groups=1, c=200, k=56, h=14, w=14, r=1, s=1, stride=(1, 1), padding=(0, 0, 0, 0),
         dilation=(1, 1)),     # a 1x1 gradient's parts
    dict(n=9, groups=1, c=96, k=200, h=7, w=7, r=1, s=1, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1)),
    dict(n=3, groups=2, c=20, k=24, h=9, w=9, r=5, s=5, stride=(1, 1), padding=(4, 4, 4, 4),
         dilation=(1, 1)),     # kernel rows that miss the input
    dict(n=1, groups=1, c=2, k=3, h=5, w=3000, r=2, s=3, stride=(1, 1), padding=(0, 1, 2, 3),
         dilation=(1, 2)),     # split rows
    dict(n=2, groups=1, c=4, k=3, h=9, w=8, r=2, s=2, stride=(5, 4), padding=(1, 0, 2, 3),
         dilation=(2, 3)),        # empty phases
])
def test_large_and_odd_geometries(sizes):
    case = Case(7, **sizes)
    _core.set_thread_policy("force")
    _core.set_num_threads(1)
    first = case.run()
    check(case, first)
    _core.set_num_threads(3)
    for name, a, b in zip(("y", "dx", "dweight"), first, case.run("nchw")):
        np.testing.assert_array_equal(a, b, err_msg=f"{name} of {case}")


def check_bits(case):
    """Neither threads nor layouts change a bit."""
    with forced_threads(1):
        first = case.run("nhwc")
    for threads, layout in ((1, "strided"), (2, "nhwc"), (3, "nchw")):
        with forced_threads(threads):
            for name, a, b in zip(("y", "dx", "dweight"), first, case.run(layout)):
                np.testing.assert_array_equal(a, b, err_msg=f"{name} of {case}, {threads} threads, {layout}")


def few_channels(seed, dtype=np.float32):
    """Many small images of few channels, whose lanes are images: whole blocks of them and a rest."""
    rng = np.random.default_rng(seed)
    sizes = {name: int(rng.integers(low, high)) for name, low, high in
             (("n", 16, 70), ("groups", 1, 3), ("c", 1, 9), ("k", 1, 9), ("h", 1, 13), ("w", 1, 13), ("r", 1, 6), ("s", 2, 6))}
    return Case(seed, dtype, **sizes)


def first_layer(seed, dtype=np.float32):
    """Few channels behind many: the input's gradient is a sum of windows, which overlap, touch or leave gaps."""
    rng = np.random.default_rng(seed)
    sizes = {name: int(rng.integers(low, high)) for name, low, high in
             (("n", 1, 4), ("c", 1, 9), ("k", 24, 70), ("h", 1, 60), ("w", 1, 60), ("r", 1, 8), ("s", 1, 8))}
    pairs = {"stride": tuple(int(v) for v in rng.integers(1, 5, 2)), "dilation": (int(rng.integers(1, 4)), 1)}
    return Case(seed, dtype, groups=1, **sizes, **pairs)


def one_vector(seed, dtype=np.float32):
    """Output channels that nearly fill one vector of some instruction set, and windows of up to 72 elements."""
    rng = np.random.default_rng(seed)
    sizes = {name: int(rng.integers(low, high)) for name, low, high in
             (("n", 1, 6), ("h", 1, 40), ("w", 1, 40), ("r", 1, 6), ("s", 2, 6))}
    sizes |= {"c": int(rng.integers(1, 72 // (sizes["r"] * sizes["s"]) + 1)), "k": int(rng.choice([1, 4, 7, 7, 8, 8]))}
    stride = tuple(int(rng.integers(1, sizes[side] + 1)) for side in "rs")
    return Case(seed, dtype, groups=1, stride=stride, dilation=(1, 1), **sizes)


def several_vectors(seed, dtype=np.float32):
    """Output channels of more than a vector, the last one full or not, of windows on few channels; rows of several blocks, too."""
    rng = np.random.default_rng(seed)
    sizes = {name: int(rng.integers(low, high)) for name, low, high in
             (("n", 1, 4), ("c", 1, rng.choice([5, 40])), ("h", 1, 16), ("w", 1, 160), ("r", 1, 6), ("s", 2, 8))}
    sizes["k"] = int(rng.choice([5, 8, 9, 11, 16, 17, 24, 31, 40, 65]))
    stride = tuple(int(rng.integers(1, sizes[side] + 1)) for side in "rs")
    return Case(seed, dtype, groups=1, stride=stride, dilation=(1, 1), **sizes)


def one_channel(seed, dtype=np.float32):
    """One channel and few outputs: lanes of the weights' gradient are a row of the kernel, of even and odd maps and blocks of them."""
    rng = np.random.default_rng(seed)
    sizes = {name: int(rng.integers(low, high)) for name, low, high in
             (("n", 1, 7), ("k", 1, 9), ("h", 5, 40), ("w", 5, rng.choice([20, 200])), ("s", 5, 9))}
    padding = tuple(int(v) for v in rng.integers(0, 5, 4))
    return Case(seed, dtype, groups=1, c=1, r=int(rng.choice([5, 7])), stride=(1, 1), dilation=(1, 1), padding=padding, **sizes)


def wide_groups(seed, dtype=np.float32):
    """Groups whose channels fill register tiles: several beside one another, the last of them fewer, and images that share blocks."""
    rng = np.random.default_rng(seed)
    sizes = {name: int(rng.integers(low, high)) for name, low, high in
             (("n", 1, 9), ("groups", 2, 8), ("h", 1, 16), ("w", 1, 16), ("r", 1, 4), ("s", 1, 4))}
    sizes |= {name: int(rng.choice([16, 16, 17, 24, 32, 32, 40])) for name in "ck"}
    return Case(seed, dtype, **sizes)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("make, seeds", [(few_channels, range(5000, 5024)), (first_layer, range(6000, 6024)),
                                         (one_vector, range(7000, 7032)), (several_vectors, range(8000, 8024)),
                                         (one_channel, range(9000, 9024)), (wide_groups, range(9500, 9524))])
def test_few_channels_and_groups(isa, dtype, make, seeds):
    _core.set_isa(isa)
    for seed in seeds:
        case = make(seed, dtype)
        check(case, case.run(("nhwc", "nchw", "strided")[seed % 3]))


@pytest.mark.parametrize("make, seed", [(few_channels, seed) for seed in range(5100, 5108)]
                         + [(first_layer, seed) for seed in range(6100, 6108)]
                         + [(one_vector, seed) for seed in range(7100, 7116)]
                         + [(several_vectors, seed) for seed in range(8100, 8108)]
                         + [(one_channel, seed) for seed in range(9100, 9112)]
                         + [(wide_groups, seed) for seed in range(9600, 9612)])
def test_threads_and_layouts_do_not_change_a_bit_of_few_channels_and_groups(make, seed):
    check_bits(make(seed))


def test_nan_stays_in_the_window_of_its_pixel():
    """Rows of windows are added as whole vectors: what is behind them must not reach their neighbours."""
    case = Case(2, n=1, groups=1, c=3, k=64, h=20, w=20, r=3, s=3, stride=(2, 2), padding=(1, 1, 1, 1), dilation=(1, 1))
    case.dy[0, 5, 4, 4] = np.nan
    dx = case.run()[1]
    reached = np.zeros((20, 20), bool)
    reached[7:10, 7:10] = True
    np.testing.assert_array_equal(np.isnan(dx[0]), np.broadcast_to(reached, (3, 20, 20)))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel, stride", [(2, 2), (4, 2), (5, 3)])
def test_transposed_convolutions_that_end_in_images(kernel, stride, bias):
    rng = np.random.default_rng(kernel)
    layer = nn.ConvTranspose2d(32, 3, kernel, stride, 1, bias=bias)
    x = rng.standard_normal((2, 32, 9, 11)).astype(np.float32)
    expected = np.zeros((2, 3, 8 * stride + kernel, 10 * stride + kernel))
    weight = layer.weight.detach().numpy().astype(np.float64)
    for i in range(9):
        for j in range(11):
            window = np.einsum("nk,kcrs->ncrs", x[:, :, i, j].astype(np.float64), weight)
            expected[:, :, i * stride:i * stride + kernel, j * stride:j * stride + kernel] += window
    if bias:
        expected += layer.bias.detach().numpy().reshape(1, 3, 1, 1)
    np.testing.assert_allclose(layer(fastnn.tensor(x)).detach().numpy(), expected[:, :, 1:-1, 1:-1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_relu_behind_few_channels_of_many_images_changes_no_bit(bias):
    fastnn.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1, bias=bias), nn.ReLU(), nn.Conv2d(6, 3, 3, bias=bias), nn.ReLU())
    x = fastnn.randn(37, 2, 9, 9)
    expected = model(x).detach().numpy()
    program = capture(lambda x: model(x).detach())
    for _ in range(3):
        np.testing.assert_array_equal(program(x).numpy(), expected)
    assert "conv2d_forward+relu" in program.summary()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("c, k, size, stride", [(48, 40, 1, 1), (256, 260, 3, 2)])
def test_updates_behind_a_gradient_that_is_a_product_change_no_bit(isa, c, k, size, stride):
    """Of single pixels, few of them, where tiles are small, and of many channels' windows: what follows takes its rows."""
    _core.set_isa(isa)
    results = []
    for captured in (False, True):
        fastnn.manual_seed(0)
        results.append(steps(nn.Conv2d(c, k, size, stride), captured, [fastnn.randn(4, c, 9, 8)], 4)[:2])
    assert results[0] == results[1]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("stride", [1, 2])
def test_weights_too_large_for_a_cache(isa, stride):
    """A 1x1 convolution's are a product's operand: pixels are copied where a stride leaves some out."""
    _core.set_isa(isa)
    case = Case(8, n=2, groups=1, c=600, k=900, h=9 * stride - stride // 2, w=8 * stride, r=1, s=1, stride=(stride, stride),
                padding=(0, 0, 0, 0), dilation=(1, 1), bias=True)
    first = case.run()
    check(case, first)
    check_bits(case)


@pytest.mark.parametrize("isa", ISAS)
def test_relu_behind_a_transposed_weight_too_large_for_a_cache(isa):
    """The ways of a product differ in what they work in, and by whether ReLU is theirs."""
    _core.set_isa(isa)
    fastnn.manual_seed(0)
    weight, x = fastnn.randn(1024, 512, 1, 1).permute(1, 0, 2, 3), fastnn.tensor(np.ones((1, 1024, 28, 28), np.float32))
    expected = F.relu(F.conv2d(x, weight)).numpy()
    program = capture(lambda x: F.relu(F.conv2d(x, weight)))
    for _ in range(3):
        np.testing.assert_array_equal(program(x).numpy(), expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("filters", [64, 160])
def test_gradients_of_long_rows(isa, filters):
    """Tiles may take two panels of output channels at a time, or leave one over."""
    _core.set_isa(isa)
    case = Case(9, n=2, groups=1, c=40, k=filters, h=30, w=30, r=3, s=3, stride=(1, 1), padding=(1, 1, 1, 1), dilation=(1, 1))
    check(case, case.run())
    check_bits(case)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("stride", [1, 2])
def test_what_follows_weights_too_large_for_a_cache_changes_no_bit(isa, stride):
    _core.set_isa(isa)
    fastnn.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(600, 900, 1, stride=stride), nn.ReLU(), nn.BatchNorm2d(900))
    x = fastnn.randn(2, 600, 9 * stride, 8 * stride)

    def step(x):
        y = model(x)
        y.square().mean().backward()
        return y.detach()

    expected, gradients = [], []
    for wrap in (lambda step: step, capture):
        run = wrap(step)
        for _ in range(3):
            model.zero_grad()
            model[2].reset_running_stats()
            y = run(x).numpy().copy()
        expected.append(y)
        gradients.append([p.grad.numpy().copy() for p in model.parameters()])
    np.testing.assert_array_equal(*expected)
    for a, b in zip(*gradients):
        np.testing.assert_array_equal(a, b)


def test_results_are_channels_last_and_gradients_of_weights_c_ordered():
    case = Case(0, n=2, groups=1, c=3, k=5, h=8, w=8, r=3, s=3)
    y = launch.conv2d_forward(fastnn.tensor(case.x), fastnn.tensor(case.weight), None, **case.attributes)
    dx = launch.conv2d_backward_input(fastnn.tensor(case.dy), fastnn.tensor(case.weight), input=(case.h, case.w),
                                      **case.attributes)
    dweight = launch.conv2d_backward_weight(fastnn.tensor(case.dy), fastnn.tensor(case.x), kernel=(3, 3),
                                            **case.attributes)
    assert y.is_channels_last() and dx.is_channels_last() and dweight.is_contiguous()


def test_outputs_of_any_strides_may_be_given():
    case = Case(1, n=2, groups=1, c=5, k=37, h=9, w=8, r=3, s=2, stride=(2, 1), bias=True)
    x, weight, dy, b = (fastnn.tensor(a) for a in (case.x, case.weight, case.dy, case.b))
    expected = case.run()
    outs = [fastnn.from_numpy(np.full(e.shape, np.nan, np.float32)) for e in expected]
    outs[2] = fastnn.from_numpy(np.full(case.weight.shape[::-1], np.nan, np.float32)).permute(3, 2, 1, 0)
    launch.conv2d_forward(x, weight, b, **case.attributes, out=outs[0])
    launch.conv2d_backward_input(dy, weight, input=(case.h, case.w), **case.attributes, out=outs[1])
    launch.conv2d_backward_weight(dy, x, kernel=(case.r, case.s), **case.attributes, out=outs[2])
    for got, want in zip(outs, expected):
        np.testing.assert_array_equal(got.numpy(), want)


@pytest.mark.parametrize("isa", ISAS)
def test_an_empty_batch_gives_empty_results_and_a_zero_gradient(isa):
    _core.set_isa(isa)
    for groups, c in ((1, 6), (2, 3), (6, 1)):
        x, dy, weight = fastnn.zeros((0, 6, 8, 8)), fastnn.zeros((0, 6, 8, 8)), fastnn.ones((6, c, 3, 3))
        a = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": groups}
        assert launch.conv2d_forward(x, weight, None, **a).shape == (0, 6, 8, 8)
        assert launch.conv2d_backward_input(dy, weight, input=(8, 8), **a).shape == (0, 6, 8, 8)
        dweight = launch.conv2d_backward_weight(dy, x, kernel=(3, 3), **a).numpy()
        np.testing.assert_array_equal(dweight, np.zeros((6, c, 3, 3)))


def test_nan_reaches_what_reads_it_and_nothing_else():
    x = np.ones((1, 2, 9, 9), np.float32)
    x[0, 1, 4, 4] = np.nan
    weight = np.ones((3, 2, 3, 3), np.float32)
    a = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1}
    y = launch.conv2d_forward(fastnn.tensor(x), fastnn.tensor(weight), None, **a).numpy()
    expected = np.zeros((9, 9), bool)
    expected[3:6, 3:6] = True
    np.testing.assert_array_equal(np.isnan(y[0]), np.broadcast_to(expected, (3, 9, 9)))
    dweight = launch.conv2d_backward_weight(fastnn.tensor(np.ones_like(y)), fastnn.tensor(x), kernel=(3, 3),
                                            **a).numpy()
    assert np.isnan(dweight[:, 1]).all() and not np.isnan(dweight[:, 0]).any()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("c, k, size", [(3, 8, 3), (2, 7, 5), (2, 4, 3)])
def test_what_is_not_finite_reaches_the_weights_of_its_channel_only(isa, value, c, k, size):
    """Zeros of dy count: a product of zero with an infinity is NaN."""
    _core.set_isa(isa)
    case = Case(3, n=3, groups=1, c=c, k=k, h=14, w=14, r=size, s=size, stride=(1, 1), padding=(1, 1, 1, 1), dilation=(1, 1))
    case.dy *= np.random.default_rng(0).random(case.dy.shape) < 0.2
    case.x[1, 1, 7, 7] = value
    with np.errstate(invalid="ignore"):
        dweight, wanted = case.run()[2], case.passes(case.x, case.weight, case.b, case.dy)[2]
    assert np.isnan(wanted[:, 1]).any() and np.isfinite(np.delete(wanted, 1, 1)).all()
    np.testing.assert_array_equal(np.where(np.isfinite(wanted), 0, wanted), np.where(np.isfinite(dweight), 0, dweight))


GOOD = {"x": (2, 4, 8, 8), "weight": (6, 4, 3, 3), "bias": None, "stride": (1, 1), "padding": (0, 0, 0, 0),
        "dilation": (1, 1),
        "groups": 1}


@pytest.mark.parametrize("change, message", [
    ({"x": (4, 8, 8)}, r"'x' has shape \(4, 8, 8\), but must have 4 axes: \(N, C, H, W\)"),
    ({"weight": (6, 4, 3)}, r"'weight' has shape \(6, 4, 3\), but must have 4 axes"),
    ({"weight": (6, 3, 3, 3)}, "4 input channels in 1 groups need a weight of 4 channels a group, but it has 3"),
    ({"groups": 4, "weight": (6, 1, 3, 3)}, "4 input and 6 output channels do not divide into 4 groups"),
    ({"groups": 0}, "groups is 0, but must be at least 1"),
    ({"stride": (0, 1)}, r"stride is \(0, 1\), but must be at least 1"),
    ({"dilation": (1, 0)}, r"dilation is \(1, 0\), but must be at least 1"),
    ({"padding": (0, 0, -1, 0)}, "padding at the left is -1, but must not be negative"),
    ({"weight": (6, 4, 3, 9)}, r"the kernel spans 9 columns, more than the padded input's 8 \(8 \+ padding 0 and 0\)"),
    ({"dilation": (4, 1)}, "the kernel spans 9 rows"),
    ({"dilation": (2 ** 62, 1)}, "out of range"),
    ({"bias": (5,)}, r"'bias' has shape \(5,\), but must have shape \(6,\)"),
    ({"bias": (6, 1)}, r"'bias' has shape \(6, 1\)"),
    ({"weight": (0, 4, 3, 3)}, "at least 1 of each"),
])
def test_errors_name_argument_given_and_allowed(change, message):
    a = GOOD | change
    x, weight, bias = (None if a[k] is None else fastnn.zeros(a[k]) for k in ("x", "weight", "bias"))
    with pytest.raises(ValueError, match="conv2d_forward: .*" + message):
        launch.conv2d_forward(x, weight, bias, **{k: a[k] for k in ("stride", "padding", "dilation", "groups")})


def test_backward_checks_the_shape_of_dy():
    a = {k: GOOD[k] for k in ("stride", "padding", "dilation", "groups")}
    with pytest.raises(ValueError, match=r"'dy' has shape \(2, 6, 7, 6\), but the output has shape \(2, 6, 6, 6\)"):
        launch.conv2d_backward_input(fastnn.zeros((2, 6, 7, 6)), fastnn.zeros((6, 4, 3, 3)), input=(8, 8), **a)
    with pytest.raises(ValueError, match=r"'dy' has shape \(2, 6, 7, 6\)"):
        launch.conv2d_backward_weight(fastnn.zeros((2, 6, 7, 6)), fastnn.zeros((2, 4, 8, 8)), kernel=(3, 3), **a)
