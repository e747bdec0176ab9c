"""The caching allocator: what is given back is used again, statistics add up, the impossible raises."""

import gc
import os
import resource

import numpy as np
import pytest

import fastnn
from fastnn import _core, nn, optim
from fastnn import functional as F
from training import classifier_step


def stats():
    gc.collect()
    return fastnn.memory_stats()


def test_blocks_are_used_again():
    fastnn.zeros(1000, 1000)
    calls = stats()["system_calls"]
    for _ in range(50):
        fastnn.zeros(1000, 1000)
    assert stats()["system_calls"] == calls


def test_statistics_add_up():
    _core.trim_memory()
    before = stats()
    assert before["cached"] == 0
    x = fastnn.zeros(1000, 1000)
    during = stats()
    assert 4e6 <= during["in_use"] - before["in_use"] <= 5e6
    del x
    after = stats()
    assert after["in_use"] == before["in_use"]
    assert after["peak"] >= during["in_use"]
    assert after["cached"] == during["in_use"] - before["in_use"]
    _core.trim_memory()
    assert stats()["cached"] == 0
    _core.reset_peak_memory()
    assert stats()["peak"] == stats()["in_use"]


def test_every_size_is_aligned_and_whole():
    tensors = []
    for n in [*range(1, 300, 7), 1023, 4095, 4097, 65_537, 1_000_001]:
        t = fastnn.full((n,), float(n % 97))
        assert t.data_ptr() % 64 == 0
        tensors.append(t)
    for t in tensors:
        np.testing.assert_array_equal(t.numpy(), np.full(t.shape, t.numel() % 97, np.float32))


@pytest.mark.parametrize("shape", [(2**40,), (2**31, 2**31), (2**62, 2), (2**62, 2**62, 2**62), (2**63 - 1,),
                                   (1, 2**60, 1, 2**60)])
def test_impossible_sizes_raise(shape):
    for make in (fastnn.zeros, fastnn.empty, fastnn.ones):
        with pytest.raises((MemoryError, OverflowError)):
            make(*shape)
    one = fastnn.ones(1, 1)
    with pytest.raises((MemoryError, OverflowError, ValueError)):
        fastnn.broadcast_to(one, shape).clone()


def test_tensors_that_do_not_fit_together_raise():
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    first = fastnn.empty(most * 6 // 10, dtype=fastnn.uint8)  # never written to
    with pytest.raises(MemoryError):
        fastnn.empty(most * 6 // 10, dtype=fastnn.uint8)
    del first
    assert _core.memory_stats()["cached"] > most // 2
    fastnn.empty(most * 7 // 10, dtype=fastnn.uint8)  # the cached block gives way
    assert _core.memory_stats()["cached"] < most * 9 // 10
    _core.trim_memory()


def test_empty_tensors_with_large_extents():
    assert fastnn.zeros(0, 2**40).numel() == 0
    with pytest.raises(MemoryError):  # as NumPy: products of extents must not overflow
        fastnn.zeros(2**40, 0, 2**40)


def test_views_too_large_to_count_are_refused():
    t = fastnn.ones(4)
    for shape, strides in [((2**32 + 1,), (2**32,)), ((2**62,), (8,)), ((2**33, 2**33), (0, 0)),
                           ((0, 2**40, 2**40), (1, 1, 1)),
                           ((2,), (2**62,))]:
        with pytest.raises(ValueError, match="too large"):
            t.as_strided(shape, strides)
    for offset in (2**62, -2**62, 2**61 + 1, 4, -1):
        with pytest.raises(ValueError, match="leaves the storage"):
            t.as_strided((1,), (1,), offset)
    with pytest.raises(ValueError, match="too large"):
        t[:1].expand(2**40, 2**40)
    with pytest.raises(ValueError, match="too large"):
        fastnn.from_numpy(np.lib.stride_tricks.as_strided(np.ones(1, np.uint8), (2**31, 2**31), (0, 0)))
    with pytest.raises(MemoryError):
        t[:1].expand(2**32, 1) + t[:1].expand(1, 2**32)
    assert t[:1].expand(2**40).shape == (2**40,)


def test_a_tensor_keeps_the_memory_of_its_array():
    x = fastnn.from_numpy(np.arange(1000.0))
    gc.collect()
    np.ones(1000)
    np.testing.assert_array_equal(x.numpy(), np.arange(1000.0))


def step():
    """A model is built, takes a training step, and is forgotten."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                          nn.LazyLinear(10))
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        loss = F.cross_entropy(model(fastnn.ones(4, 1, 10, 10)), fastnn.tensor([1, 2, 3, 4]))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("models", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_models_leave_nothing_behind(models):
    step()
    before = stats()
    for _ in range(models):
        step()
    after = stats()
    assert after["in_use"] == before["in_use"]
    assert after["system_calls"] <= before["system_calls"] + 20


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batches", [(64,), (64, 40)])
def test_replays_neither_allocate_nor_fault(threads, batches):
    """In steady state, also where full and short batches take turns, replays touch no new page and make no system call for
    memory; the eager step's temporaries are some 20 MB."""
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
                          nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(32 * 14 * 14, 10))
    optimizer = optim.Adam(model.parameters(), lr=0.01)

    inputs = [(fastnn.rand(n, 3, 32, 32), fastnn.tensor(np.arange(n) % 10)) for n in batches]
    program = fastnn.capture(classifier_step(model, optimizer))
    with fastnn.num_threads(threads):
        for _ in range(6):
            for batch in inputs:
                program(*batch)
        gc.collect()
        gc.disable()
        try:
            before, replays = fastnn.memory_stats(), program.replays
            faults = []
            for _ in range(4):  # the system may reclaim pages meanwhile, but not every time
                start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
                for _ in range(30):
                    for batch in inputs:
                        program(*batch)
                faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start)
        finally:
            gc.enable()
    after = fastnn.memory_stats()
    assert program.replays - replays == 4 * 30 * len(batches)
    assert after["system_calls"] == before["system_calls"] and after["in_use"] == before["in_use"]
    assert min(faults) <= 8, f"{faults} page faults, each in {30 * len(batches)} steps"
