"""Every op of the OpSpec list: reference, gradients, instruction sets, threads, layouts, lengths, special values."""

import zlib

import numpy as np
import pytest

from fastnn import _core, testing

SPECS = testing.specs()


def samples_of(spec):
    """The operation's samples; a hash of its name seeds them, so that they are the same in every process."""
    return spec.samples(np.random.default_rng(zlib.crc32(spec.name.encode())))


def cases(keep=lambda spec: True):
    kept = [spec for spec in SPECS.values() if keep(spec)]
    return [pytest.param(spec, sample, id=f"{spec.name}-{k}") for spec in kept
            for k, sample in enumerate(samples_of(spec))]


@pytest.fixture(params=_core.available_isas())
def isa(request):
    before = _core.get_isa()
    _core.set_isa(request.param)
    yield request.param
    _core.set_isa(before)


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
