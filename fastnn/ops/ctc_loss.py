"""Connectionist temporal classification: sequences of labels read from longer sequences of outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._core import launch, record
from ..checks import a_tensor, integer
from .index import _as_index
from .loss import _reduction
from .shape import reshape, unsqueeze

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["ctc_loss"]


def ctc_loss(log_probs: Tensor, targets: Any, input_lengths: Any, target_lengths: Any, blank: int = 0,
             reduction: str = "mean", zero_infinity: bool = False) -> Tensor:
    """Minus the logarithm of the probability that outputs read as their targets, in any alignment.

    An alignment names a class at each of a sequence's T outputs; it reads as what is left when repetitions, then
    blanks, are taken out. With A all alignments that read as the target, the loss of a sequence is
    -log(sum over a in A of exp(sum over t of log_probs[t, a_t])).

    Parameters
    ----------
    log_probs : Tensor
        (T, N, C), or (T, C) for one sequence: log-probabilities, as `log_softmax` makes them along the last axis.
    targets : Tensor or array_like
        Labels 0 ... C - 1 other than `blank`: (N, S), each row's first ones counting, or all sequences' one behind
        another in one axis; (S,) for one sequence.
    input_lengths : Tensor or array_like
        (N,): how many outputs of each sequence count, at most T; a number for one sequence.
    target_lengths : Tensor or array_like
        (N,): how many labels each target has; a number for one sequence.
    blank : int
        The class that stands for no label.
    reduction : str
        "mean": each sequence's loss is divided by the number of its labels (at least 1), then averaged over N.
        "sum", or "none": one loss per sequence.
    zero_infinity : bool
        Whether a sequence too short for its target, whose loss is infinite, counts as 0 and has no gradient.

    Returns
    -------
    Tensor
        0-d; with reduction "none" (N,), or 0-d for one sequence. The gradient is the derivative in `log_probs` as they
        are; PyTorch adds exp(log_probs) to it, which the gradient of `log_softmax` takes away again, so that behind
        `log_softmax` both agree. That of an infinite loss is NaN.

    Raises
    ------
    IndexError
        If a label is no class or the blank; it is named with its place.
    ValueError
        If shapes do not fit, a length is negative or too great, lengths of targets one behind another do not add up to
        their number, or `blank` is no class.

    References
    ----------
    A. Graves, S. Fernandez, F. Gomez and J. Schmidhuber, "Connectionist temporal classification: labelling unsegmented
    sequence data with recurrent neural networks", ICML 2006.
    """
    name = "ctc_loss"
    targets = _as_index(name, targets, "targets")
    lengths = [_as_index(name, value, argument)
               for argument, value in (("input_lengths", input_lengths), ("target_lengths", target_lengths))]
    options = {"blank": integer(name, "blank", blank), "reduction": _reduction(name, reduction),
               "zero_infinity": bool(zero_infinity)}
    is_one = a_tensor("ctc_loss", log_probs, "log_probs").ndim == 2
    if is_one:
        log_probs = unsqueeze(log_probs, 1)
        lengths = [reshape(length, (1,)) if length.numel() == 1 else length for length in lengths]
    loss, nll, log_alpha = launch.ctc_loss_forward(log_probs, targets, *lengths, **options)
    saved = (log_probs, nll, log_alpha, targets, *lengths)
    loss = record(_ctc_loss_backward, (log_probs,), loss, saved=saved, context=options)
    return reshape(loss, ()) if is_one else loss


def _ctc_loss_backward(node, dloss):
    return launch.ctc_loss_backward(dloss, *node.saved, **node.context)
