"""Gradients of slices: added where they belong, not as whole tensors that are zero elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn

KEYS = [(slice(0, 2),), (slice(1, 4), slice(None, None, 2)), (2,), (slice(None), -1), (slice(None), None, slice(0, 3)), (0,), (slice(4, 4),)]


def weighted(h: Any, seed: int = 1) -> tuple[Any, np.ndarray]:
    """The sum of slices that overlap, each times numbers of its own, and its gradient."""
    rng = np.random.default_rng(seed)
    total, gradient = fastnn.tensor(0.0), np.zeros(h.shape, np.float32)
    for key in KEYS:
        part = h[key]
        w = rng.integers(-4, 5, part.shape).astype(np.float32)
        total = total + (part * fastnn.tensor(w)).sum()
        np.add.at(gradient, key, w)
    return total, gradient


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("leaf", [False, True])
def test_slices_that_overlap(leaf: bool, whole: bool) -> None:
    x = fastnn.ones(5, 4, requires_grad=True)
    x.grad = fastnn.ones(5, 4)
    h = x if leaf else x * 2
    total, gradient = weighted(h)
    if whole:  # a gradient of the whole, too, before those of its slices or after
        total = total + 3 * h.sum()
        gradient = gradient + 3
    total.backward()
    np.testing.assert_array_equal(x.grad.numpy(), 1 + gradient * (1 if leaf else 2))


def test_a_gradient_that_somebody_else_has_stays_as_it_is() -> None:
    """h and g have one gradient between them: what h[0] adds is none of g's."""
    x = fastnn.ones(3, requires_grad=True)
    h, g = x * 1, x * 1
    seen: list = []
    h.register_hook(lambda d: seen.append(d.tolist()))
    g.register_hook(lambda d: seen.append(d.tolist()))
    whole = h + g
    (h[0] * 5 + whole.sum()).backward()
    assert sorted(seen) == [[1, 1, 1], [6, 1, 1]] and x.grad.tolist() == [7, 2, 2]


def test_hooks_of_a_leaf_see_all_of_its_gradient() -> None:
    x = fastnn.ones(4, requires_grad=True)
    x.grad = fastnn.ones(4)
    seen: list = []
    x.register_hook(lambda d: seen.append(d.tolist()))
    (x[0] + 2 * x[:2].sum()).backward()
    assert seen == [[3, 2, 0, 0]] and x.grad.tolist() == [4, 3, 1, 1]


@pytest.mark.parametrize("leaf", [False, True])
def test_captured(leaf: bool) -> None:
    x = fastnn.ones(5, 4, requires_grad=True)

    def step(scale: Any) -> tuple[Any, Any]:
        x.grad = None
        total, _ = weighted(x * scale) if not leaf else weighted(x)
        (total * scale).backward()
        return total.detach(), x.grad

    call = fastnn.capture(step)
    for k in range(4):
        scale = fastnn.tensor(k + 1.5)
        for a, b in zip(call(scale), step(scale)):
            np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert call.obstacle is None and call.replays > 0


def test_reading_a_sequence_step_by_step_fills_one_gradient() -> None:
    """As a loop over x[:, t]: PyTorch makes a gradient of the whole sequence for each of its steps."""
    w = fastnn.ones(2, 16, 8, requires_grad=True)

    def step() -> Any:
        w.grad = None
        h = w * 1
        total = fastnn.stack([h[:, t].sum() for t in range(16)]).sum()
        total.backward()
        return w.grad

    call = fastnn.capture(step)
    for _ in range(3):
        assert (call().numpy() == 1).all()
    filled = [line for line in call.summary().splitlines() if " fill " in line]
    assert call.replays > 0 and len(filled) == 1, call.summary()
