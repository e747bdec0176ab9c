"""Bags of rows against PyTorch, over all options."""

import itertools

import numpy as np
import pytest

import fastnn
import fastnn.functional as F

torch = pytest.importorskip("torch")
TF = torch.nn.functional


def both(index, weight, offsets, factors, **options):
    ours, theirs = fastnn.tensor(weight, requires_grad=True), torch.tensor(weight, requires_grad=True)
    our_factors = None if factors is None else fastnn.tensor(factors, requires_grad=True)
    their_factors = None if factors is None else torch.tensor(factors, requires_grad=True)
    y = F.embedding_bag(index, ours, offsets, per_sample_weights=our_factors, **options)
    z = TF.embedding_bag(torch.tensor(index), theirs, None if offsets is None else torch.tensor(offsets),
                         per_sample_weights=their_factors, **options)
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-12)
    dy = np.random.default_rng(1).standard_normal(y.shape)
    y.backward(fastnn.tensor(dy))
    z.backward(torch.tensor(dy))
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-12, atol=1e-13)
    if factors is not None:
        np.testing.assert_allclose(our_factors.grad.numpy(), their_factors.grad.numpy(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("mode, padding, kind", list(itertools.product(
    ("sum", "weighted sum", "mean", "max"), (None, 3, -4), ("rows", "offsets", "last"))))
def test_embedding_bag(mode, padding, kind):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((9, 19))
    index = rng.integers(0, 9, (6, 5) if kind == "rows" else 30)
    offsets = {"rows": None, "offsets": [0, 0, 7, 8, 8, 20, 30], "last": [0, 0, 7, 8, 8, 20, 30]}[kind]
    factors = rng.standard_normal(index.shape) if mode == "weighted sum" else None
    both(index, weight, offsets, factors, mode=mode.split()[-1], padding_idx=padding, include_last_offset=kind == "last")


@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_gradients_by_frequency(mode):
    """Beside PyTorch's embedding: its embedding_bag divides by frequencies of other rows on the CPU."""
    rng = np.random.default_rng(0)
    index, weight, dy = rng.integers(0, 9, (6, 5)), rng.standard_normal((9, 4)), rng.standard_normal((6, 4))
    ours, theirs = fastnn.tensor(weight, requires_grad=True), torch.tensor(weight, requires_grad=True)
    F.embedding_bag(index, ours, mode=mode, scale_grad_by_freq=True).backward(fastnn.tensor(dy))
    rows = TF.embedding(torch.tensor(index), theirs, scale_grad_by_freq=True)
    getattr(rows, mode)(1).backward(torch.tensor(dy))
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0])
def test_max_norm(norm_type):
    rng = np.random.default_rng(0)
    index, weight = rng.integers(0, 9, (4, 2)), rng.standard_normal((9, 5))
    ours, theirs = fastnn.tensor(weight), torch.tensor(weight)
    y = F.embedding_bag(index, ours, max_norm=1.5, norm_type=norm_type)
    z = TF.embedding_bag(torch.tensor(index), theirs, max_norm=1.5, norm_type=norm_type)
    np.testing.assert_allclose(y.numpy(), z.numpy(), rtol=1e-6)
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6)


def test_a_state_dict_loads():
    theirs = torch.nn.EmbeddingBag(9, 5, mode="sum", padding_idx=2)
    ours = fastnn.nn.EmbeddingBag(9, 5, mode="sum", padding_idx=2)
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    index = np.array([[1, 2, 3], [8, 0, 2]])
    np.testing.assert_allclose(ours(index).detach().numpy(), theirs(torch.tensor(index)).detach().numpy(), rtol=1e-6)
