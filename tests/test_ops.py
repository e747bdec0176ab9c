"""Every op of the OpSpec list: reference, gradients, instruction sets, threads, layouts, lengths, special values."""

import zlib

import numpy as np
import pytest

import fastnn
from fastnn import testing
from fastnn._core import launch

SPECS = testing.specs()


def samples_of(spec):
    """The operation's samples; a hash of its name seeds them, so that they are the same in every process."""
    return spec.samples(np.random.default_rng(zlib.crc32(spec.name.encode())))


def cases(keep=lambda spec: True):
    kept = [spec for spec in SPECS.values() if keep(spec)]
    return [pytest.param(spec, sample, id=f"{spec.name}-{k}") for spec in kept
            for k, sample in enumerate(samples_of(spec))]


@pytest.mark.parametrize("spec, sample", cases())
def test_forward(spec, sample, isa):
    testing.check_forward(spec, sample, "float32")
    testing.check_forward(spec, sample, "float64")


@pytest.mark.parametrize("spec, sample", cases(lambda s: s.gradients))
def test_gradient_against_differences(spec, sample):
    testing.check_gradient(spec, sample)


@pytest.mark.parametrize("spec, sample", cases(lambda s: s.gradients))
def test_gradient_in_float32(spec, sample, isa):
    testing.check_gradient_float32(spec, sample)


@pytest.mark.parametrize("spec, sample", cases())
def test_same_bits_for_any_number_of_threads(spec, sample):
    testing.check_threads(spec, sample)


@pytest.mark.parametrize("spec, sample", cases())
def test_same_bits_for_any_strides(spec, sample):
    testing.check_layouts(spec, sample)


@pytest.mark.parametrize("spec", [s for s in SPECS.values() if s.elementwise], ids=str)
def test_lengths_and_offsets(spec, isa):
    sample = next(iter(spec.samples(np.random.default_rng(0))))
    testing.check_lengths(spec, sample, "float32")
    testing.check_lengths(spec, sample, "float64")


@pytest.mark.parametrize("spec", [s for s in SPECS.values() if s.special_values], ids=str)
def test_special_values(spec, isa):
    sample = next(iter(spec.samples(np.random.default_rng(0))))
    testing.check_special_values(spec, sample, "float32")
    testing.check_special_values(spec, sample, "float64")


@pytest.mark.parametrize("n", [12, 1000, 1001, 5000])
def test_large_results_have_the_bits_of_small_ones(n, isa):
    """Past the caches or not: rows of 17 MB, the first and last of which are made by themselves too."""
    rng = np.random.default_rng(n)
    x = rng.standard_normal(((17 << 18) // n + 1, n), dtype=np.float32) * 30
    dy = rng.standard_normal(x.shape, dtype=np.float32)
    x[3, 5], x[4], x[5, 1], x[6, 2] = np.nan, -np.inf, np.inf, -200
    x[7, 1:] = np.linspace(-110, -80, n - 1)
    for forward, backward in ((launch.softmax_forward, launch.softmax_backward),
                              (launch.log_softmax_forward, launch.log_softmax_backward),
                              (launch.relu_forward, launch.relu_backward)):
        axis = {} if forward is launch.relu_forward else {"axis": 1}
        for op, arrays in ((forward, [x]), (backward, [dy, forward(fastnn.tensor(x), **axis).numpy()])):
            whole = op(*map(fastnn.tensor, arrays), **axis).numpy()
            for part in (slice(0, 50), slice(-50, None)):
                alone = op(*[fastnn.tensor(a[part]) for a in arrays], **axis).numpy()
                np.testing.assert_array_equal(whole[part], alone, err_msg=op.name)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 9])
def test_layouts_change_whatever_the_channels(channels, dtype, isa):
    """Planes to pixels and back: of few channels by loops of their own, more than a chunk of pixels, and parts of images."""
    x = np.arange(2 * channels * 90 * 95).reshape(2, channels, 90, 95).astype(dtype)
    pixels = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    for part in (np.s_[:], np.s_[:, :, 3:80, 7:94], np.s_[1, :, 88, 3:8]):
        last = [0, 2, 3, 1] if x[part].ndim == 4 else [1, 0]
        planes, lasting = fastnn.tensor(x)[part], fastnn.tensor(pixels).permute(0, 3, 1, 2)[part]
        np.testing.assert_array_equal(launch.contiguous(planes.permute(*last)).numpy(), x[part].transpose(last))
        np.testing.assert_array_equal(launch.contiguous(lasting).numpy(), x[part])
        out = fastnn.zeros(*x.shape, dtype=fastnn.tensor(x).dtype)[part]
        launch.copy(lasting, dtype=-1, out=out)
        np.testing.assert_array_equal(out.numpy(), x[part])
