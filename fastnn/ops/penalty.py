"""Penalties on activations: sparse representations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core import launch, record
from ..checks import a_tensor, real

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["activity_penalty"]


def activity_penalty(input: Tensor, l1: float = 0.0, l2: float = 0.0) -> Tensor:
    """x itself; going back, its gradient is that of the loss plus (l1 sum |x| + l2 sum x^2 / 2) / N.

    The loss that is reported stays without the penalty. The gradient coming in must be that of the loss itself, as it
    is after
    ``loss.backward()``, not that of a multiple.

    Parameters
    ----------
    input : Tensor
        float32 or float64, (N, ...): a layer's output.
    l1, l2 : float
        At least 0. With l1 many outputs become 0.

    Returns
    -------
    Tensor
        The values of `input`.

    Raises
    ------
    ValueError
        If `l1` or `l2` is negative.

    References
    ----------
    Goodfellow, Bengio and Courville, "Deep learning", MIT Press 2016, section 7.10 (sparse representations).
    """
    samples = max(input.shape[0], 1) if a_tensor("activity_penalty", input).ndim else 1
    strengths = real("activity_penalty: l1", l1, 0) / samples, real("activity_penalty: l2", l2, 0) / samples
    return record(_activity_backward, (input,), input.detach(), saved=(input,), context=strengths)


def _activity_backward(node, dy):
    l1, l2 = node.context
    return launch.penalty_gradient(dy, node.saved[0], l1=l1, l2=l2)
