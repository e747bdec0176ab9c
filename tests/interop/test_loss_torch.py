"""Losses, reductions and softmax against PyTorch, over all options."""

import itertools

import numpy as np
import pytest

import fastnn
from fastnn.ops import loss, reduce, softmax

torch = pytest.importorskip("torch")
F = pytest.importorskip("torch.nn.functional")

TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}


def both(function, peer, arrays, dtype):
    """Values and gradients of one function here and there, compared."""
    ours = [fastnn.tensor(a, requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, z = function(*ours), peer(*theirs)
    assert y.shape == tuple(z.shape)
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    dy = np.asarray(np.random.default_rng(1).standard_normal(y.shape)).astype(dtype)
    y.backward(fastnn.tensor(dy))
    z.backward(torch.tensor(dy))
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(7,), (5, 6), (50, 300), (3, 4, 5), (2, 3, 4, 5), (2, 3, 2, 3, 2), (1, 70)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy(shape, reduction, dtype):
    rng = np.random.default_rng(0)
    axis = int(len(shape) > 1)
    classes, positions = shape[axis], shape[:axis] + shape[axis + 1:]
    x = (3 * rng.standard_normal(shape)).astype(dtype)
    labels = np.asarray(rng.integers(0, classes, positions))
    probabilities = np.moveaxis(rng.dirichlet(np.ones(classes), positions), -1, axis).astype(dtype, order="C")
    weight = rng.uniform(0, 2, classes).astype(dtype)
    for w, smoothing, ignored in itertools.product((None, weight), (0.0, 0.1), (None, 1)):
        target = labels.copy()
        if ignored is not None and target.size > 1:
            target.flat[0] = ignored
        options = {"reduction": reduction, "label_smoothing": smoothing,
                   "ignore_index": -100 if ignored is None else ignored}
        torch_weight = None if w is None else torch.tensor(w)
        both(lambda t: loss.cross_entropy(t, target, w, **options),
             lambda t: F.cross_entropy(t, torch.tensor(target), torch_weight, **options), [x], dtype)
        if ignored is None:
            both(lambda t, p: loss.cross_entropy(t, p, w, **options),
                 lambda t, p: F.cross_entropy(t, p, torch_weight, **options), [x, probabilities], dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n, shape", [((), (4,)), ((5,), (6,)), ((3,), (4, 3)), ((2,), (5, 2, 3))])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_linear_cross_entropy(n, shape, reduction, dtype):
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(s).astype(dtype) for s in ((*n, 7), (*shape, 7), shape))
    labels = np.asarray(rng.integers(0, shape[0], (*n, *shape[1:])))
    probabilities = np.moveaxis(rng.dirichlet(np.ones(shape[0]), labels.shape), -1, len(n)).astype(dtype, order="C")
    weight = rng.uniform(0, 2, shape[0]).astype(dtype)
    first = int(labels.flat[0]) if labels.size > 1 else None
    for target, classes, smoothing, ignored in ((labels, None, 0.0, None), (labels, weight, 0.1, None), (labels, None, 0.0, first),
                                                (probabilities, weight, 0.1, None)):
        options = {"reduction": reduction, "label_smoothing": smoothing, "ignore_index": ignored}
        both(lambda t, u, v: loss.linear_cross_entropy(t, u, target, linear_bias=v, weight=classes, **options),
             lambda t, u, v: F.linear_cross_entropy(t, u, torch.tensor(target), linear_bias=v, weight=None if classes is None
                                                    else torch.tensor(classes), **options), [x, w, b], dtype)


def test_linear_cross_entropy_loss():
    weight = np.array([0.5, 1, 2, 1.5], np.float32)
    ours, theirs = (library.nn.LinearCrossEntropyLoss(5, 4, out_features=(3, 2), bias=True, weight=library.tensor(weight),
                                                      ignore_index=2, label_smoothing=0.1) for library in (fastnn, torch))
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (6, 3, 2))
    both(lambda t: ours(t, labels), lambda t: theirs(t, torch.tensor(labels)), [rng.standard_normal((6, 5)).astype(np.float32)],
         np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_elementwise_losses(reduction, dtype):
    rng = np.random.default_rng(0)
    x, target = (3 * rng.standard_normal((6, 7))).astype(dtype), rng.uniform(0, 1, (6, 7)).astype(dtype)
    weight, pos_weight = rng.uniform(0, 2, (6, 7)).astype(dtype), rng.uniform(0, 2, 7).astype(dtype)
    both(lambda t, u: loss.mse_loss(t, u, reduction), lambda t, u: F.mse_loss(t, u, reduction=reduction), [x, target],
         dtype)
    for w, p in itertools.product((None, weight), (None, pos_weight)):
        both(lambda t: loss.binary_cross_entropy_with_logits(t, target, w, reduction, p),
             lambda t: F.binary_cross_entropy_with_logits(t, torch.tensor(target),
                                                          None if w is None else torch.tensor(w), reduction=reduction,
                                                          pos_weight=None if p is None else torch.tensor(p)), [x],
             dtype)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_more_losses(reduction):
    rng = np.random.default_rng(0)
    x, target, var = 3 * rng.standard_normal((6, 7)), 3 * rng.standard_normal((6, 7)), rng.uniform(1e-9, 2, (6, 1))
    var[0] = 1e-9
    options = {"reduction": reduction}
    both(lambda t, u: loss.l1_loss(t, u, **options), lambda t, u: F.l1_loss(t, u, **options), [x, target], np.float64)
    both(lambda t, u: loss.huber_loss(t, u, delta=0.7, **options), lambda t, u: F.huber_loss(t, u, delta=0.7,
            **options), [x, target], np.float64)
    for beta in (0.0, 0.7):
        both(lambda t, u: loss.smooth_l1_loss(t, u, beta=beta, **options), lambda t, u: F.smooth_l1_loss(t, u,
                beta=beta, **options),
             [x, target], np.float64)
    for full in (False, True):
        both(lambda t, u, v: loss.gaussian_nll_loss(t, u, v, full, **options),
             lambda t, u, v: F.gaussian_nll_loss(t, u, v, full, **options), [x, target, var], np.float64)
        both(lambda t, u, v: loss.gaussian_nll_loss(t, u, v, full, **options),  # a variance for each row
             lambda t, u, v: F.gaussian_nll_loss(t, u, v, full, **options), [x[:, :6], target[:, :6], var[:, 0]], np.float64)
    for log_input, full in itertools.product((True, False), (True, False)):
        both(lambda t: loss.poisson_nll_loss(t, np.abs(target), log_input, full, **options),
             lambda t: F.poisson_nll_loss(t, torch.tensor(np.abs(target)), log_input, full, **options), [np.abs(x)], np.float64)
    labels, weight = rng.integers(0, 7, 6), rng.uniform(0, 2, 7)
    labels[2] = 3
    both(lambda t: loss.nll_loss(t, labels, weight, 3, reduction),
         lambda t: F.nll_loss(t, torch.tensor(labels), torch.tensor(weight), ignore_index=3,
                              reduction=reduction), [x], np.float64)


@pytest.mark.parametrize("name", ["nll_loss", "cross_entropy"])
def test_labels_that_are_all_ignored_have_no_gradient(name):
    x = fastnn.ones(3, 4, requires_grad=True)
    y = getattr(loss, name)(x, [2, 2, 2], ignore_index=2)
    y.backward()
    assert np.isnan(y.item()) and x.grad.tolist() == [[0.0] * 4] * 3


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_softmax(dim):
    x = np.random.default_rng(0).standard_normal((3, 5, 40)).astype(np.float32)
    both(lambda t: softmax.softmax(t, dim), lambda t: torch.softmax(t, dim), [x], np.float32)
    both(lambda t: softmax.log_softmax(t, dim), lambda t: torch.log_softmax(t, dim), [x], np.float32)


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", [0, -1, (0, 2), (1, 2, 3), (0, 1, 2, 3)])
def test_reductions(dim, keepdim):
    x = np.round(4 * np.random.default_rng(0).standard_normal((3, 5, 4, 6))).astype(np.float32)  # with ties
    for name in ("sum", "mean", "amax", "amin", "var", "std", "logsumexp"):
        both(lambda t: getattr(reduce, name)(t, dim, keepdim=keepdim),
             lambda t: getattr(torch, name)(t, dim, keepdim=keepdim), [x], np.float32)
    if isinstance(dim, int):
        distinct = np.random.default_rng(0).permutation(x.size).reshape(x.shape).astype(np.float32)
        for name in ("max", "min"):
            both(lambda t: getattr(reduce, name)(t, dim, keepdim).values,
                 lambda t: getattr(torch, name)(t, dim, keepdim).values, [distinct], np.float32)
            ours, theirs = getattr(reduce, "arg" + name), getattr(torch, "arg" + name)
            np.testing.assert_array_equal(ours(fastnn.tensor(distinct), dim, keepdim).numpy(),
                                          theirs(torch.tensor(distinct), dim, keepdim).numpy())


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_losses_of_margins(reduction):
    rng = np.random.default_rng(0)
    x, second, target = 2 * rng.standard_normal((6, 7)), rng.standard_normal((6, 7)), rng.choice([-1.0, 1.0], (6, 7))
    labels, weight, torch_target = rng.integers(0, 7, 6), rng.uniform(0, 2, 7), torch.tensor(target)
    options = {"reduction": reduction}
    both(lambda t: fastnn.soft_margin_loss(t, target, **options),
         lambda t: F.soft_margin_loss(t, torch_target, **options), [20 * x], np.float64)
    for margin in (1.0, 0.3):
        options["margin"] = margin
        both(lambda t: fastnn.hinge_embedding_loss(t, target, **options),
             lambda t: F.hinge_embedding_loss(t, torch_target, **options), [x], np.float64)
        both(lambda t, u: fastnn.margin_ranking_loss(t, u, target, **options),
             lambda t, u: F.margin_ranking_loss(t, u, torch_target, **options), [x, second], np.float64)
        for p, w in itertools.product((1, 2), (None, weight)):
            both(lambda t: fastnn.multi_margin_loss(t, labels, p, weight=w, **options),
                 lambda t: F.multi_margin_loss(t, torch.tensor(labels), p, **options,
                                               weight=None if w is None else torch.tensor(w)), [x], np.float64)
    several = rng.integers(-1, 7, (6, 7))
    for rows, scores in ((several, x), (several[1], x[1]), (np.zeros((6, 7), int), x)):
        both(lambda t: fastnn.multilabel_margin_loss(t, rows, reduction),
             lambda t: F.multilabel_margin_loss(t, torch.tensor(rows), reduction=reduction), [scores], np.float64)
    both(lambda t: fastnn.multi_margin_loss(t, labels[0], reduction=reduction),
         lambda t: F.multi_margin_loss(t, torch.tensor(labels[0]), reduction=reduction), [x[0]], np.float64)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none", "batchmean"])
def test_losses_of_probabilities(reduction):
    rng = np.random.default_rng(0)
    p, target, weight = (rng.uniform(0, 1, (6, 7)) for _ in range(3))
    target[0, :2] = 0, 1
    for log_target in (False, True):
        q = np.log(target[1:]) if log_target else target[1:]
        both(lambda t, u: fastnn.kl_div(t, u, reduction, log_target),
             lambda t, u: F.kl_div(t, u, reduction=reduction, log_target=log_target), [np.log(p[1:]), q], np.float64)
    if reduction == "batchmean":
        return
    ends, other = np.array([0.0, 1.0, 0, 1]), np.array([1.0, 0, 0, 1])
    ours = fastnn.binary_cross_entropy(fastnn.tensor(ends), other, None, reduction)
    theirs = F.binary_cross_entropy(torch.tensor(ends), torch.tensor(other), reduction=reduction)
    np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    both(lambda t: fastnn.kl_div(t, target, reduction),
         lambda t: F.kl_div(t, torch.tensor(target), reduction=reduction),
         [3 * p], np.float64)
    for w in (None, weight):
        torch_weight = None if w is None else torch.tensor(w)
        both(lambda t: fastnn.binary_cross_entropy(t, target, w, reduction),
             lambda t: F.binary_cross_entropy(t, torch.tensor(target), torch_weight, reduction=reduction), [p],
             np.float64)
        both(lambda t: fastnn.multilabel_soft_margin_loss(t, target, w, reduction),
             lambda t: F.multilabel_soft_margin_loss(t, torch.tensor(target), torch_weight, reduction=reduction),
             [6 * p - 3], np.float64)


def test_smooth_l1_of_a_beta_that_float32_flushes():
    x, target = np.float32([1.0, -2.0, 0.0]), np.float32([0.0, 0.5, 0.0])
    got = fastnn.functional.smooth_l1_loss(fastnn.tensor(x), fastnn.tensor(target), reduction="none", beta=1e-40)
    want = torch.nn.functional.smooth_l1_loss(torch.tensor(x), torch.tensor(target), reduction="none", beta=1e-40)
    np.testing.assert_array_equal(got.numpy(), want.numpy())
