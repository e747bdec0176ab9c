"""Augmentation of a batch of images (crop with padding, flip, normalise) beside a loop over them in NumPy: what comes out is
verified to be crops of what went in, then both are timed in turns.

    python -m pytest bench/bench_augment.py --benchmark-enable [--threads 2] [--benchmark-json FILE]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from timing import conditions, in_turns, use_threads  # noqa: E402

import fastnn  # noqa: E402
from fastnn.data import Augment  # noqa: E402

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
PADDING = 4


def normalised(images: np.ndarray) -> np.ndarray:
    return (images - np.float32(MEAN)[:, None, None]) / np.float32(STD)[:, None, None]


def loop(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What one writes in NumPy: image by image."""
    result = np.empty_like(images)
    height, width = images.shape[2:]
    for n, image in enumerate(images):
        padded = np.pad(image, ((0, 0), (PADDING, PADDING), (PADDING, PADDING)))
        top, left = rng.integers(0, 2 * PADDING + 1, 2)
        crop = padded[:, top:top + height, left:left + width]
        result[n] = normalised(crop[..., ::-1] if rng.random() < 0.5 else crop)
    return result


def verify(images: np.ndarray, got: np.ndarray) -> None:
    """Every image is a crop of its padded self, as it is or flipped; not all have moved alike."""
    places = set()
    height, width = images.shape[2:]
    for image, result in zip(images, got):
        padded = np.pad(image, ((0, 0), (PADDING, PADDING), (PADDING, PADDING)))
        found = [(top, left, flip) for top in range(2 * PADDING + 1) for left in range(2 * PADDING + 1) for flip in (1, -1)
                 if abs(normalised(padded[:, top:top + height, left:left + width])[..., ::flip] - result).max() < 1e-4]
        assert len(found) == 1, found
        places.add(found[0])
    assert len(places) > 4


def test_cifar_batch(benchmark: Any, request: pytest.FixtureRequest) -> None:
    use_threads(request.config.getoption("--threads"))
    rng = np.random.default_rng(0)
    images = rng.random((128, 3, 32, 32), dtype=np.float32)
    batch = fastnn.from_numpy(images)
    augment = Augment(padding=PADDING, horizontal_flip=0.5, mean=MEAN, std=STD)
    for result in (augment(batch).numpy(), loop(images, rng)):
        verify(images[:16], result[:16])
    turns = in_turns([lambda: augment(batch), lambda: loop(images, rng)], 0.6)
    benchmark.extra_info |= conditions() | {"ratio": turns.ratio, "microseconds": turns.seconds[0] * 1e6}
    benchmark.pedantic(lambda: augment(batch), rounds=5, warmup_rounds=1)
