"""Losses of probabilities: binary cross-entropy, Kullback and Leibler's divergence, focal losses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._core import launch, record
from ..checks import a_tensor, real
from .activation import sigmoid
from .create import as_tensor
from .loss import _check_same_shape, _constant_argument, _nll, _reduce, _reduction, _spread, binary_cross_entropy_with_logits
from .margin_loss import _reduced
from .math import exp, mul, sub
from .operands import constant
from .power import pow
from .shape import expand
from .softmax import log_softmax

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["binary_cross_entropy", "focal_loss", "kl_div", "sigmoid_focal_loss"]


def binary_cross_entropy(input: Tensor, target: Any, weight: Any = None, reduction: str = "mean") -> Tensor:
    """-(target log x + (1 - target) log(1 - x)) of probabilities, logarithms at least -100.

    Where there are logits, `binary_cross_entropy_with_logits` is more accurate.

    Parameters
    ----------
    input : Tensor
        Probabilities, any shape; outside of 0 ... 1 the loss is NaN.
    target : Tensor or array_like
        Of `input`'s shape, between 0 and 1; takes no gradient.
    weight : Tensor or array_like, optional
        Factors, broadcast to `input`'s shape.
    reduction : str
        "mean" (over all elements, whatever the weights), "sum" or "none".

    Returns
    -------
    Tensor
        0-d, or of `input`'s shape with reduction "none".

    Raises
    ------
    ValueError
        If shapes differ, or `target` or `weight` requires grad.
    """
    name = "binary_cross_entropy"
    target, code = _constant_argument(name, "target", target, input), _reduction(name, reduction)
    _check_same_shape(name, input, target)
    weight = _constant_argument(name, "weight", weight, input)
    loss = launch.bce_forward(input, target)
    if weight is not None:
        loss = launch.mul(loss, expand(weight, input.shape))
    value, _ = _reduce(loss, None, code)
    return record(_bce_backward, (input,), value, saved=(input, target, weight), context=code)


def _bce_backward(node, dloss):
    x, target, weight = node.saved
    return launch.bce_backward(_spread(dloss, x.numel(), weight, None, node.context), x, target)


def kl_div(input: Tensor, target: Any, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """Kullback and Leibler's divergence of the distribution x from target: target (log target - x), x in logarithms.

    Parameters
    ----------
    input : Tensor
        Log-probabilities, any shape.
    target : Tensor or array_like
        Probabilities of `input`'s shape (an element 0 adds nothing), or their logarithms.
    reduction : str
        "mean" (over all elements), "batchmean" (the sum over the first axis's extent: the divergence's usual meaning),
        "sum" or "none".
    log_target : bool
        Whether `target` holds logarithms.

    Returns
    -------
    Tensor
        0-d, or of `input`'s shape with reduction "none".

    Raises
    ------
    ValueError
        If shapes differ.

    References
    ----------
    Kullback and Leibler, "On information and sufficiency", Annals of Mathematical Statistics 22, 1951.
    """
    if reduction not in ("mean", "batchmean", "sum", "none"):
        raise ValueError(f"kl_div: reduction is {reduction!r}, but must be 'mean', 'batchmean', 'sum' or 'none'")
    target = as_tensor(target, a_tensor("kl_div", input).dtype)
    _check_same_shape("kl_div", input, target)
    if log_target:
        loss = mul(exp(target), sub(target, input))
    else:
        loss = record(_kl_backward, (input, target), launch.kl_div_forward(input, target), saved=(input, target))
    if reduction == "batchmean":
        return _reduced("kl_div", loss, "sum") * (1.0 / max(input.shape[0], 1) if input.ndim else 1.0)
    return _reduced("kl_div", loss, reduction)


def _kl_backward(node, dy):
    x, target = node.saved
    dx = dtarget = None
    if node.needs[0]:
        dx = launch.neg(launch.mul(dy, target))
    if node.needs[1]:
        slope = launch.add(launch.sub(launch.log(target), x), constant(1.0, x.dtype))
        dtarget = launch.mul(dy, slope)
    return dx, dtarget


def sigmoid_focal_loss(input: Tensor, target: Any, alpha: float = 0.25, gamma: float = 2.0,
                       reduction: str = "none") -> Tensor:
    """Binary cross-entropy from logits that spares what is already right: alpha_t (1 - p_t)^gamma times it.

    p_t is the probability given to the target, alpha_t is alpha for target 1 and 1 - alpha for 0.

    Parameters
    ----------
    input : Tensor
        Logits, any shape.
    target : Tensor or array_like
        0 or 1, of `input`'s shape; takes no gradient.
    alpha : float
        Between 0 and 1; below 0, there is no such factor.
    gamma : float
        At least 0: 0 gives cross-entropy.
    reduction : str
        "none", "mean" (over all elements) or "sum".

    Returns
    -------
    Tensor
        Of `input`'s shape, or 0-d.

    Raises
    ------
    ValueError
        If shapes differ or `alpha` or `gamma` is out of range.

    References
    ----------
    Lin et al., "Focal loss for dense object detection", ICCV 2017.
    """
    name = "sigmoid_focal_loss"
    alpha, gamma = real(f"{name}: alpha", alpha, most=1), real(f"{name}: gamma", gamma, 0)
    target = _constant_argument(name, "target", target, input)
    loss = binary_cross_entropy_with_logits(input, target, reduction="none")
    missing = _missing(sigmoid(input), target)
    loss = mul(loss, pow(missing, gamma))
    if alpha >= 0:
        loss = mul(loss, launch.add(launch.mul(target, constant(2 * alpha - 1, input.dtype)), constant(1 - alpha, input.dtype)))
    return _reduced(name, loss, reduction)


def _missing(p: Tensor, target: Tensor) -> Tensor:
    """1 - p_t = p (1 - target) + (1 - p) target"""
    return p + mul(target, sub(1.0, p + p))


def focal_loss(input: Tensor, target: Any, gamma: float = 2.0, weight: Any = None, ignore_index: int = -100,
               reduction: str = "mean") -> Tensor:
    """Cross-entropy of classes that spares what is already right: -weight_y (1 - p_y)^gamma log p_y, p = softmax(x).

    Parameters
    ----------
    input : Tensor
        Logits: (C,), (N, C) or (N, C, d1, ...).
    target : Tensor or array_like
        Labels y: (), (N,) or (N, d1, ...).
    gamma : float
        At least 0: 0 gives cross-entropy.
    weight : Tensor or array_like, optional
        (C,): factors for the classes.
    ignore_index : int
        Positions with this label give no loss and no gradient.
    reduction : str
        "mean" (divided by the sum of the labels' weights), "sum" or "none".

    Returns
    -------
    Tensor
        0-d, or of the labels' shape with reduction "none".

    Raises
    ------
    IndexError
        If a label is neither a class nor `ignore_index`.
    TypeError
        If labels are not integers.
    ValueError
        If shapes do not fit or `gamma` is below 0.

    References
    ----------
    Lin et al., "Focal loss for dense object detection", ICCV 2017.
    """
    gamma = real("focal_loss: gamma", gamma, 0)
    logp = log_softmax(input, 0 if a_tensor("focal_loss", input).ndim == 1 else 1)
    return _nll("focal_loss", mul(logp, pow(sub(1.0, exp(logp)), gamma)), target, weight, ignore_index, reduction)
