"""OpSpecs of fastnn/ops/ctc_loss.py."""

from __future__ import annotations

import numpy as np

from ..ops.ctc_loss import ctc_loss
from .softmax_specs import _log_softmax
from .spec import OpSpec, Sample, register


def _likelihood(logp, target, blank):
    """The recursion over prefixes, in probabilities: end[k] of alignments that read as k labels and end in label or blank."""
    p, count = np.exp(logp), len(target)
    in_blank, in_label = np.zeros(count + 1), np.zeros(count + 1)
    in_blank[0] = 1
    for row in p:
        before = in_blank + in_label
        entered = in_label.copy()
        for k in range(1, count + 1):
            repeated = k > 1 and target[k - 1] == target[k - 2]
            entered[k] += in_blank[k - 1] if repeated else before[k - 1]
        in_label[1:] = entered[1:] * row[target]
        in_blank = before * row[blank]
    return in_blank[-1] + in_label[-1]


def _reference(log_probs, targets, input_lengths, target_lengths, blank, reduction, zero_infinity):
    is_one = log_probs.ndim == 2
    x = log_probs[:, None] if is_one else log_probs
    steps, labels = np.atleast_1d(input_lengths), np.atleast_1d(target_lengths)
    starts = np.cumsum(labels) - labels
    rows = [targets[s:s + k] for s, k in zip(starts, labels)] if targets.ndim == 1 else targets
    with np.errstate(divide="ignore"):
        losses = np.array([-np.log(_likelihood(x[:t, n], rows[n][:k], blank))
                           for n, (t, k) in enumerate(zip(steps, labels))])
    if zero_infinity:
        losses[np.isinf(losses)] = 0
    if reduction == "none":
        return losses[0] if is_one else losses
    return losses.sum() if reduction == "sum" else (losses / np.maximum(labels, 1)).mean()


def _samples(rng):
    shapes = ((6, 3, 4, 2), (20, 2, 30, 9), (3, 1, 2, 1), (40, 5, 7, 17), (5, 2, 3, 0))
    for (steps, n, classes, most), reduction in zip(shapes, ("mean", "sum", "none", "mean", "none")):
        x = _log_softmax(rng.standard_normal((steps, n, classes)), -1)
        blank = int(rng.integers(classes))
        labels = (blank + rng.integers(1, classes, (n, most))) % classes
        lengths = rng.integers(0, most + 1, n)
        lengths[0] = most
        options = {"blank": blank, "reduction": reduction, "zero_infinity": False}
        inputs = rng.integers(min(steps, 2 * most + 1), steps + 1, n)
        yield Sample((x, labels, inputs, lengths), options)
        yield Sample((x, np.concatenate([row[:k] for row, k in zip(labels, lengths)]), inputs, lengths), options)
        yield Sample((x[:, 0], labels[0], inputs[0].reshape(()), lengths[0].reshape(())), options)
        inputs = np.where(np.arange(n) % 2, inputs, np.minimum(most - 1, steps).clip(0))  # too short for their targets
        yield Sample((x, labels, inputs, lengths), {**options, "zero_infinity": True})


register(OpSpec("ctc_loss", ctc_loss, _reference, lambda rng: list(_samples(rng)), gradients=(0,), tolerance=16))
