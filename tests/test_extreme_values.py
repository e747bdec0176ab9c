"""Calls that would never end, answer with wrong numbers, or fail somewhere inside: answered, or refused by name."""

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn.nn import init


def test_graphs_of_expanded_tensors_end():
    x = fastnn.tensor([[1.0], [2.0], [6.0]]).expand(3, 2**40)
    assert "mean 3, from 1 to 6" in x.graph()


def test_dirac_of_nothing_ends():
    assert init.dirac_(fastnn.ones(0, 4, 3, 3), 2**31 - 1).shape == (0, 4, 3, 3)
    assert init.dirac_(fastnn.ones(4, 4, 0, 3)).shape == (4, 4, 0, 3)


@pytest.mark.parametrize("p", [1.5, 5.0, 40.0, 90.0, 400.0])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_norms_of_high_order_neither_vanish_nor_overflow(p, scale):
    x = np.random.default_rng(0).standard_normal((3, 4)) * scale
    norms = (np.abs(x / scale)**p).sum(1, keepdims=True)**(1 / p) * scale
    y = F.normalize(fastnn.tensor(x, "float32"), p=p)
    np.testing.assert_allclose(y.numpy(), x / norms, rtol=2e-5)
    assert fastnn.gradcheck(lambda t: F.normalize(t, p=p), fastnn.tensor(x / scale))


def test_norms_of_zeros_and_infinities():
    x = fastnn.tensor([[0.0, 0.0], [np.inf, 1.0], [np.nan, 1.0]], requires_grad=True)
    distances = F.pairwise_distance(x, fastnn.zeros(3, 2), p=50.0, eps=0.0)
    np.testing.assert_array_equal(distances.detach().numpy() > 1e-30, [False, True, False])
    assert distances[1].item() == np.inf and np.isnan(distances[2].item())
    distances[0].backward()
    assert np.isfinite(x.grad[0].numpy()).all()


@pytest.mark.parametrize("make", [fastnn.tril_indices, fastnn.triu_indices])
@pytest.mark.parametrize("extents, name", [((-1, 3), "row"), ((3, -2), "col"), ((2**63 - 1, 3), "row"), ((3, 2**62), "col")])
def test_places_of_no_matrix(make, extents, name):
    with pytest.raises(ValueError, match=f"{make.__name__}: {name}"):
        make(*extents)


@pytest.mark.parametrize("eps", [-0.3, float("nan"), "x"])
def test_batch_norm_refuses_eps(eps):
    with pytest.raises(ValueError, match="batch_norm: eps"):
        F.batch_norm(fastnn.ones(2, 3), fastnn.zeros(3), fastnn.ones(3), eps=eps)
