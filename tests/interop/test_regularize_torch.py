"""Gradient clipping against PyTorch's."""

import numpy as np
import pytest

import fastnn
from fastnn import nn, optim

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", [2.0, 1.0, 3.0, float("inf")])
@pytest.mark.parametrize("limit", [0.0, 0.7, 50.0])
def test_clipping(limit, order, dtype):
    rng = np.random.default_rng(0)
    gradients = [rng.standard_normal(s).astype(dtype) for s in ((7, 5), (3,), (2, 3, 4, 5))]
    ours, theirs = ([make(np.zeros_like(g)) for g in gradients] for make in (nn.Parameter, torch.tensor))
    for p, q, g in zip(ours, theirs, gradients):
        p.grad, q.grad = fastnn.tensor(g), torch.tensor(g)
    norm, other = optim.clip_grad_norm_(ours, limit, order), torch.nn.utils.clip_grad_norm_(theirs, limit, order)
    assert norm.item() == pytest.approx(other.item(), rel=1e-5 if dtype is np.float32 else 1e-12)
    optim.clip_grad_value_(ours, 0.05)
    torch.nn.utils.clip_grad_value_(theirs, 0.05)
    for p, q in zip(ours, theirs):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-5 if dtype is np.float32 else 1e-12)
