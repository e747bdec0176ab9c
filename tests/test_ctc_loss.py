"""Connectionist temporal classification: all alignments counted, impossible targets, wrong labels and lengths, steps."""

import itertools

import numpy as np
import pytest

import fastnn
import fastnn.functional as F
from fastnn import nn
from fastnn._core import launch


def reads_as(alignment, blank):
    """What is left without repetitions, then blanks."""
    return [label for label, _ in itertools.groupby(alignment) if label != blank]


@pytest.mark.parametrize("target", [[], [1], [1, 2], [2, 2], [1, 2, 1], [1, 1, 2]])
def test_the_sum_over_all_alignments(target):
    x = np.random.default_rng(0).standard_normal((5, 3))
    logp = x - np.log(np.exp(x).sum(-1, keepdims=True))
    likelihood = sum(np.exp(sum(logp[t, c] for t, c in enumerate(alignment)))
                     for alignment in itertools.product(range(3), repeat=5) if reads_as(alignment, 0) == target)
    loss = F.ctc_loss(fastnn.tensor(logp), np.array(target, int), 5, len(target), reduction="sum")
    assert loss.item() == pytest.approx(-np.log(likelihood), rel=1e-12)


def test_long_sequences_stay_finite():
    """Probabilities of 10^-4000 and less, which no float32 holds."""
    x = fastnn.tensor(np.full((3000, 2, 50), -np.log(50), np.float32), requires_grad=True)
    loss = F.ctc_loss(x, np.arange(1, 41).reshape(2, 20), [3000, 40], [20, 20], reduction="none")
    assert np.isfinite(loss.detach().numpy()).all()
    loss.sum().backward()
    np.testing.assert_allclose(x.grad.numpy()[:40].sum(-1), -1, atol=1e-5)  # one label at each step
    assert not x.grad.numpy()[40:, 1].any()


def test_impossible_targets():
    x = fastnn.zeros(3, 2, 4, requires_grad=True)
    for zero_infinity, first in ((False, np.inf), (True, 0)):
        loss = F.ctc_loss(x, [[1, 1], [1, 2]], [2, 2], [2, 2], reduction="none", zero_infinity=zero_infinity)
        assert loss.detach().numpy()[0] == first and np.isfinite(loss.detach().numpy()[1])
        x.grad = None
        loss.sum().backward()
        assert np.isnan(x.grad.numpy()[:2, 0]).all() != zero_infinity
        assert not x.grad.numpy()[2].any() and np.isfinite(x.grad.numpy()[:, 1]).all()
    assert F.ctc_loss(x, [1], [0, 0], [0, 1], reduction="none").tolist() == [0, np.inf]


def test_a_class_that_cannot_be_has_no_gradient():
    x = np.zeros((3, 1, 3))
    x[1, 0, 1] = -np.inf
    t = fastnn.tensor(x, requires_grad=True)
    F.ctc_loss(t, [[1]], [3], [1]).backward()
    assert np.isfinite(t.grad.numpy()).all() and t.grad.numpy()[1, 0, 1] == 0


@pytest.mark.parametrize("joined", [False, True])
def test_states_that_are_no_sequences_own_have_probability_0(joined):
    """Whatever was in that memory before: a result is all written."""
    targets = np.array([1, 2, 3]) if joined else np.array([[1, 2, 0], [3, 0, 0]])
    x = fastnn.tensor(np.full((4, 2, 5), -np.log(5)))
    inputs = [x, fastnn.tensor(targets), fastnn.tensor(np.array([4, 2])), fastnn.tensor(np.array([2, 1]))]
    junk = fastnn.full((4, 8 if joined else 14), np.nan, dtype="float64")
    del junk  # its memory is the next to be taken
    _, _, log_alpha = launch.ctc_loss_forward(*inputs, blank=0, reduction=0, zero_infinity=0)
    log_alpha, width = log_alpha.numpy(), 5 if joined else 7  # states of the first sequence
    own = np.zeros(log_alpha.shape, bool)
    own[:, :5] = own[:2, width : width + 3] = True
    assert (log_alpha[~own] == -np.inf).all() and np.isfinite(log_alpha[-1, 4])


def test_nothing_to_lose():
    x, none = fastnn.zeros(3, 0, 4), np.zeros(0, int)
    assert np.isnan(F.ctc_loss(x, np.zeros((0, 2), int), none, none).item())
    assert F.ctc_loss(x, none, none, none, reduction="sum").item() == 0


def test_a_bad_label_is_named_and_nothing_is_written():
    x, lengths = fastnn.zeros(5, 2, 4), fastnn.tensor([2, 3])
    outputs = fastnn.zeros(()), fastnn.zeros(2), fastnn.zeros(5, 14)
    with pytest.raises(IndexError, match=r"targets\[1, 2\] is 9, but must be a class between 0 and 3, and not blank \(0\)"):
        launch.ctc_loss_forward(x, fastnn.tensor([[1, 2, 7], [1, 2, 9]]), lengths, lengths, blank=0, reduction=1,
                                zero_infinity=0, out=outputs)
    assert not any(o.numpy().any() for o in outputs)
    with pytest.raises(IndexError, match=r"targets\[3\] is 0, but must be"):
        F.ctc_loss(x, [1, 2, 1, 0, 3], [5, 5], lengths)


@pytest.mark.parametrize("targets, inputs, labels, options, error, message", [
    ([[1], [2]], [5, 6], [1, 1], {}, ValueError, r"input_lengths\[1\] is 6, but must lie between 0 and 5"),
    ([[1], [2]], [5, -1], [1, 1], {}, ValueError, r"input_lengths\[1\] is -1"),
    ([[1], [2]], [5, 5], [1, 2], {}, ValueError, r"target_lengths\[1\] is 2, but must lie between 0 and 1"),
    ([1, 2, 3], [5, 5], [1, 1], {}, ValueError, "target_lengths add up to 2, but targets has 3 labels"),
    ([1, 2], [5, 5], [1, 2], {}, ValueError, r"target_lengths\[1\] is 2, but must lie between 0 and 1"),
    ([[1, 2]], [5, 5], [1, 1], {}, ValueError, r"targets has shape \(1, 2\), but must be \(2, S\)"),
    ([[1], [2]], [5], [1, 1], {}, ValueError, r"input_lengths has shape \(1,\), but must be \(2,\)"),
    ([[1], [2]], 5, [1, 1], {}, ValueError, r"input_lengths has shape \(\), but must be \(2,\)"),
    ([[1], [2]], [5, 5], [1, 1], {"blank": 4}, ValueError, "blank is 4, but must be one of the 4 classes"),
    ([[1], [2]], [5, 5], [1, 1], {"blank": 1.5}, TypeError, "blank is 1.5, but must be an integer"),
    ([[1], [2]], [5, 5], [1, 1], {"reduction": "all"}, ValueError, "ctc_loss: reduction is 'all'"),
    ([[1.0], [2.0]], [5, 5], [1, 1], {}, TypeError, "ctc_loss: targets has dtype float"),
    ([[1], [2]], [5.0, 5.0], [1, 1], {}, TypeError, "ctc_loss: input_lengths has dtype float")])
def test_errors(targets, inputs, labels, options, error, message):
    with pytest.raises(error, match=message):
        F.ctc_loss(fastnn.zeros(5, 2, 4), targets, inputs, labels, **options)


def test_shapes_that_are_none():
    with pytest.raises(ValueError, match=r"log_probs has shape \(4,\), but must be \(T, N, C\)"):
        F.ctc_loss(fastnn.zeros(4), [1], 1, 1)
    with pytest.raises(ValueError, match="CTCLoss: blank is -1"):
        nn.CTCLoss(-1)


def test_a_captured_step_follows_the_lengths():
    layer = nn.Linear(6, 5)
    criterion = nn.CTCLoss(zero_infinity=True)

    def step(x, targets, inputs, labels):
        layer.weight.grad = None
        loss = criterion(F.log_softmax(layer(x), -1), targets, inputs, labels)
        loss.backward()
        return loss

    rng = np.random.default_rng(0)
    program = fastnn.capture(step)
    for _ in range(5):
        arguments = [fastnn.tensor(a) for a in (rng.standard_normal((8, 3, 6)).astype(np.float32), rng.integers(1, 5, (3, 4)),
                                                rng.integers(0, 9, 3), rng.integers(0, 5, 3))]
        expected, gradient = step(*arguments).item(), layer.weight.grad.numpy().tobytes()
        assert program(*arguments).item() == expected
        assert layer.weight.grad.numpy().tobytes() == gradient
    arguments[1][1, 0], arguments[3][1] = 7, 4
    with pytest.raises(IndexError, match=r"targets\[1, 0\] is 7"):
        program(*arguments)
