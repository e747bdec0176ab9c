"""Optimisers against PyTorch's: ten steps from the same gradients, and its state dicts."""

import numpy as np
import pytest

import fastnn
from fastnn import nn, optim

torch = pytest.importorskip("torch")

CASES = [
    ("SGD", dict(lr=0.1)), ("SGD", dict(lr=0.1, momentum=0.9)),
    ("SGD", dict(lr=0.1, momentum=0.9, dampening=0.2, weight_decay=0.01)),
    ("SGD", dict(lr=0.1, momentum=0.9, nesterov=True, maximize=True)), ("Adam", dict(lr=0.01)),
    ("Adam", dict(lr=0.01, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.1)), ("Adam", dict(lr=0.01, maximize=True)),
    ("AdamW", dict(lr=0.01, weight_decay=0.1)), ("AdamW", dict(lr=0.01))]


def both(name, options, dtype, rng):
    values = [rng.standard_normal(s).astype(dtype) for s in ((33, 17), (5,), (4, 3, 2, 2))]
    ours = [nn.Parameter(v.copy()) for v in values]
    theirs = [torch.nn.Parameter(torch.tensor(v)) for v in values]
    return ours, theirs, getattr(optim, name)(ours, **options), getattr(torch.optim, name)(theirs, **options)


def steps(count, rng, dtype, ours, theirs, our_optimiser, their_optimiser):
    for _ in range(count):
        for p, q in zip(ours, theirs):
            g = rng.standard_normal(p.shape).astype(dtype)
            p.grad, q.grad = fastnn.tensor(g), torch.tensor(g)
        our_optimiser.step()
        their_optimiser.step()
    for p, q in zip(ours, theirs):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=8 * np.finfo(dtype).eps,
                                   atol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name, options", CASES)
def test_ten_steps(name, options, dtype):
    rng = np.random.default_rng(1)
    steps(10, rng, dtype, *both(name, options, dtype, rng))


@pytest.mark.parametrize("name, options", CASES)
def test_state_dicts_go_across(name, options):
    rng = np.random.default_rng(2)
    ours, theirs, our_optimiser, their_optimiser = both(name, options, np.float32, rng)
    steps(3, rng, np.float32, ours, theirs, our_optimiser, their_optimiser)
    fresh = getattr(optim, name)(ours, lr=5.0)
    fresh.load_state_dict(their_optimiser.state_dict())
    steps(3, rng, np.float32, ours, theirs, fresh, their_optimiser)
