"""Connectionist temporal classification against PyTorch, over all options."""

import itertools

import numpy as np
import pytest

import fastnn
import fastnn.functional as F

torch = pytest.importorskip("torch")
TF = torch.nn.functional

TOLERANCE = {np.float32: 2e-4, np.float64: 1e-10}


def both(x, targets, inputs, labels, **options):
    """Losses and gradients of logits, through log_softmax here and there."""
    ours, theirs = fastnn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y = F.ctc_loss(F.log_softmax(ours, -1), targets, inputs, labels, **options)
    z = TF.ctc_loss(TF.log_softmax(theirs, -1), torch.tensor(targets), torch.tensor(inputs), torch.tensor(labels),
                    **options)
    assert y.shape == tuple(z.shape)
    tolerance = TOLERANCE[x.dtype.type]
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=tolerance)
    dy = np.asarray(np.random.default_rng(1).standard_normal(y.shape)).astype(x.dtype)
    y.backward(fastnn.tensor(dy))
    z.backward(torch.tensor(dy))
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=tolerance, atol=tolerance)


def case(rng, steps, n, classes, most, blank, dtype):
    x = (2 * rng.standard_normal((steps, n, classes))).astype(dtype)
    labels = (blank + rng.integers(1, classes, (n, most))) % classes
    lengths, inputs = rng.integers(0, most + 1, n), rng.integers(2 * most, steps + 1, n)
    return x, labels, inputs, lengths


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("blank, joined, zero_infinity", list(itertools.product((0, 3), (False, True), (False, True))))
def test_ctc_loss(dtype, reduction, blank, joined, zero_infinity):
    rng = np.random.default_rng(0)
    options = {"blank": blank, "reduction": reduction, "zero_infinity": zero_infinity}
    for shape in ((9, 3, 5, 4), (60, 4, 20, 25), (7, 1, 4, 2), (2, 2, 4, 1)):
        x, labels, inputs, lengths = case(rng, *shape, blank, dtype)
        if zero_infinity:
            inputs[0], lengths[0] = 1, shape[3]  # too short for its target, or just long enough
        if joined:
            labels = np.concatenate([row[:k] for row, k in zip(labels, lengths)])
        both(x, labels, inputs, lengths, **options)


def test_one_sequence():
    x, labels, _, _ = case(np.random.default_rng(0), 9, 1, 5, 3, 0, np.float64)
    for reduction in ("none", "mean", "sum"):
        both(x[:, 0], labels[0], np.asarray(8), np.asarray(3), reduction=reduction)


def test_an_impossible_target():
    x, labels = np.zeros((2, 1, 3)), np.array([[1, 1]])  # equal labels need a blank between them
    for zero_infinity in (False, True):
        both(x, labels, np.array([2]), np.array([2]), zero_infinity=zero_infinity, reduction="sum")
    assert F.ctc_loss(fastnn.tensor(x), labels, [2], [2]).item() == np.inf


def test_lengths_as_tuples_and_the_layer():
    x, labels, inputs, lengths = case(np.random.default_rng(0), 9, 3, 5, 4, 2, np.float64)
    ours = fastnn.nn.CTCLoss(2, "sum")(fastnn.tensor(x), labels, tuple(inputs), tuple(lengths))
    theirs = torch.nn.CTCLoss(2, "sum")(torch.tensor(x), torch.tensor(labels), tuple(inputs), tuple(lengths))
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
