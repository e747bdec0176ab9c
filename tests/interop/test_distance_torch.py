"""Shuffled pixels and channels, distances, similarities and their losses; what tensors can do: PyTorch's results."""

import itertools
import math

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import nn

torch = pytest.importorskip("torch")
TF = torch.nn.functional


def same(ours, theirs, *arrays, rtol=1e-9):
    """Results of two functions of float64 tensors, and all gradients, NaN in the same places."""
    given = [fastnn.tensor(a, "float64", requires_grad=True) for a in arrays]
    expected_given = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, expected = ours(*given), theirs(*expected_given)
    np.testing.assert_allclose(y.detach().numpy(), expected.detach().numpy(), rtol=rtol, atol=1e-12)
    dy = np.random.default_rng(1).standard_normal(y.shape)
    y.backward(fastnn.tensor(dy, "float64"))
    expected.backward(torch.tensor(dy))
    for a, b in zip(given, expected_given):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=rtol, atol=1e-10)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("name, option, shape", [
    ("pixel_shuffle", 2, (2, 8, 3, 5)), ("pixel_shuffle", 3, (9, 2, 2)), ("pixel_shuffle", 1, (2, 3, 4, 5)),
    ("pixel_unshuffle", 2, (2, 3, 6, 4)), ("pixel_unshuffle", 3, (3, 3, 6)), ("channel_shuffle", 3, (2, 6, 3, 5)),
    ("channel_shuffle", 2, (2, 6, 7))])
def test_shuffles(name, option, shape):
    same(lambda x: getattr(F, name)(x, option), lambda x: getattr(TF, name)(x, option), normal(*shape))


@pytest.mark.parametrize("p, dim", list(itertools.product((2.0, 1.0, 3.0, 0.5, math.inf), (0, 1, -1))))
def test_normalize(p, dim):
    same(lambda x: F.normalize(x, p, dim), lambda x: TF.normalize(x, p, dim), normal(4, 5, 3))
    same(lambda x: F.normalize(x, p, (dim, -2)), lambda x: TF.normalize(x, p, (dim, -2)), normal(4, 5, 3, 2))


def test_vectors_of_zeros_are_normalized_and_have_gradients():
    x = normal(4, 5)
    x[1] = 0
    for p in (1.0, 2.0):
        y = fastnn.tensor(x, "float64", requires_grad=True)
        F.normalize(y, p).sum().backward()
        assert np.isfinite(y.grad.numpy()).all() and not F.normalize(y, p).detach().numpy()[1].any()


@pytest.mark.parametrize("shapes, dim", [(((4, 5), (4, 5)), 1), (((3, 4, 5), (3, 4, 5)), 0), (((4, 5), (5,)), -1),
                                         (((2, 4, 5), (4, 5)), 1), (((6,), (6,)), 0),
                                         (((4, 5), (4, 1)), 1), (((3, 1, 5), (1, 4, 5)), 0), (((1,), (3, 5)), 1)])
def test_cosine_similarity(shapes, dim):
    arrays = [normal(*shape, seed=k) for k, shape in enumerate(shapes)]
    same(lambda *t: F.cosine_similarity(*t, dim), lambda *t: TF.cosine_similarity(*t, dim), *arrays)
    same(nn.CosineSimilarity(dim, 1e-3), torch.nn.CosineSimilarity(dim, 1e-3), *arrays)


def test_cosine_of_vectors_shorter_than_eps():
    x, y = normal(5, 3), normal(5, 3, seed=1)
    x[0], x[1], y[1], y[2] = x[0] * 1e-4, 0, y[1] * 1e-5, 0
    same(lambda *t: F.cosine_similarity(*t, 1, 1e-2), lambda *t: TF.cosine_similarity(*t, 1, 1e-2), x, y)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("a, b", [((5, 3), (4, 3)), ((2, 5, 3), (4, 3)), ((3, 1, 5, 3), (2, 4, 3))])
def test_cdist(a, b, p):
    same(lambda *t: fastnn.cdist(*t, p), lambda *t: torch.cdist(*t, p), normal(*a), normal(*b, seed=1))
    with pytest.raises(ValueError, match=r"cdist: x1 has shape \(2, 3\) and x2 \(2, 4\), but they must be \(..., N, D\)"):
        fastnn.cdist(fastnn.ones(2, 3), fastnn.ones(2, 4))


def test_equal_rows_are_at_distance_0():
    x = fastnn.tensor(normal(3, 4), requires_grad=True)
    for p in (1.0, 2.0, 3.0, np.inf):
        apart = fastnn.cdist(x, x, p)
        assert apart.diagonal().tolist() == [0, 0, 0] and F.pdist(x[[0, 0]], p).tolist() == [0]
        apart.diagonal().sum().backward()
        assert not x.grad.any()


def test_cdist_of_equal_rows():
    """Which are 0 apart, and whose gradient is 0."""
    x = normal(4, 3)
    same(lambda *t: fastnn.cdist(*t), lambda *t: torch.cdist(*t), x, np.concatenate([x[:2], normal(2, 3, seed=1)]))


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, math.inf])
def test_pdist(p):
    x = normal(6, 4)
    same(lambda t: F.pdist(t, p), lambda t: TF.pdist(t, p), x)
    with pytest.raises(ValueError, match=r"pdist: input has shape \(4,\)"):
        F.pdist(fastnn.ones(4))


@pytest.mark.parametrize("reduction, swap", itertools.product(("mean", "sum", "none"), (False, True)))
def test_triplets_by_a_distance_of_ones_own(reduction, swap):
    arrays = [normal(5, 7, seed=k) for k in range(3)]
    options = {"margin": 0.7, "swap": swap, "reduction": reduction}
    same(nn.TripletMarginWithDistanceLoss(distance_function=lambda a, b: 1 - F.cosine_similarity(a, b), **options),
         torch.nn.TripletMarginWithDistanceLoss(distance_function=lambda a, b: 1 - TF.cosine_similarity(a, b), **options),
         *arrays)
    same(nn.TripletMarginWithDistanceLoss(**options), torch.nn.TripletMarginWithDistanceLoss(**options), *arrays)
    with pytest.raises(TypeError, match="distance_function is 3"):
        nn.TripletMarginWithDistanceLoss(distance_function=3)


@pytest.mark.parametrize("p, keepdim", list(itertools.product((2.0, 1.0, 3.0, math.inf), (False, True))))
def test_pairwise_distance(p, keepdim):
    same(nn.PairwiseDistance(p, 1e-3, keepdim), torch.nn.PairwiseDistance(p, 1e-3, keepdim), normal(4, 5),
         normal(4, 5, seed=1))
    same(lambda *t: F.pairwise_distance(*t, p, keepdim=keepdim),
         lambda *t: TF.pairwise_distance(*t, p, keepdim=keepdim),
         normal(5), normal(4, 5, seed=1))


@pytest.mark.parametrize("reduction, margin", list(itertools.product(("mean", "sum", "none"), (0.0, 0.3, -0.5))))
def test_cosine_embedding_loss(reduction, margin):
    target = np.array([1.0, -1.0, -1.0, 1.0, 0.0])  # what is neither of the two has no loss
    ours, theirs = nn.CosineEmbeddingLoss(margin, reduction), torch.nn.CosineEmbeddingLoss(margin, reduction=reduction)
    same(lambda *t: ours(*t, target), lambda *t: theirs(*t, torch.tensor(target)), normal(5, 7), normal(5, 7, seed=1))
    same(lambda *t: ours(*t, -1.0), lambda *t: theirs(*t, torch.tensor(-1.0)), normal(7), normal(7, seed=1))


@pytest.mark.parametrize("reduction, p, swap", list(itertools.product(("mean", "sum", "none"), (1.0, 2.0), (False, True))))
def test_triplet_margin_loss(reduction, p, swap):
    arrays = [normal(5, 7, seed=k) for k in range(3)]
    same(nn.TripletMarginLoss(1.5, p, swap=swap, reduction=reduction),
         torch.nn.TripletMarginLoss(1.5, p, swap=swap, reduction=reduction), *arrays)


X = np.array([[0.0, 1.5, -2.0], [0.0, math.nan, 3.0], [0.0, 0.0, 0.0]])


@pytest.mark.parametrize("method, arguments", [
    ("any", ()), ("all", ()), ("any", (0,)), ("all", (1,)), ("any", (-1, True)), ("t", ()), ("chunk", (2,)),
    ("chunk", (5, 1)), ("unbind", (1,)), ("narrow", (0, 1, 2)), ("narrow", (1, -2, 1)), ("logsumexp", (1,))])
def test_methods(method, arguments):
    ours, theirs = getattr(fastnn.tensor(X), method)(*arguments), getattr(torch.tensor(X), method)(*arguments)
    for a, b in zip(ours, theirs) if isinstance(theirs, tuple) else [(ours, theirs)]:
        assert a.dtype.name == str(b.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(a.numpy(), b.numpy()) if method != "logsumexp" else np.testing.assert_allclose(
            a.numpy(), b.numpy())


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "bool"])
def test_masked_fill(dtype):
    x, mask = np.nan_to_num(X).astype(dtype), np.array([[True], [False], [True]])
    value = True if dtype == "bool" else 4
    expected = torch.tensor(x).masked_fill(torch.tensor(mask), value)
    found = fastnn.tensor(x).masked_fill(fastnn.tensor(mask), value)
    assert found.dtype.name == dtype
    np.testing.assert_array_equal(found.numpy(), expected.numpy())
    with pytest.raises(ValueError, match="masked_fill: value has shape"):
        fastnn.tensor(x).masked_fill(fastnn.tensor(mask), fastnn.zeros(3))


def test_methods_refuse():
    x = fastnn.zeros(2, 3, 4)
    for call, error, message in ((lambda: x.t(), ValueError, "at most 2 axes"),
                                 (lambda: x.narrow(1, 2, 2), IndexError, "start is 2 and length 2, but dim 1 has 3"),
                                 (lambda: x.chunk(0), ValueError, "chunk: chunks is 0"),
                                 (lambda: F.pixel_shuffle(x, 2), ValueError, "multiple of 4"),
                                 (lambda: F.pixel_unshuffle(x, 3), ValueError, "downscale_factor 3"),
                                 (lambda: F.channel_shuffle(x, 2), ValueError, "multiple of groups 2")):
        with pytest.raises(error, match=message):
            call()
