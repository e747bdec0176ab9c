"""Losses: what training makes small. `reduction`: "mean", "sum" or "none"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._core import launch, record
from .create import as_tensor
from .norm import constant
from .reduce import _divided
from .shape import expand, movedim, reshape, unsqueeze

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["binary_cross_entropy_with_logits", "cross_entropy", "mse_loss"]

_REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}


def _reduction(name: str, reduction: str) -> int:
    if reduction not in _REDUCTIONS:
        raise ValueError(f"{name}: reduction is {reduction!r}, but must be 'mean', 'sum' or 'none'")
    return _REDUCTIONS[reduction]


def _constant_argument(name: str, argument: str, value: Any, x: Tensor) -> Tensor | None:
    """`value` as a tensor of x's dtype that takes no gradient."""
    if value is None:
        return None
    value = as_tensor(value, x.dtype)
    if value.requires_grad:
        raise ValueError(f"{name}: {argument} requires grad, but has no gradient: use {argument}.detach()")
    return value


# ---- cross-entropy ----------------------------------------------------------------------------------------------------


def cross_entropy(x: Tensor, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean",
                  label_smoothing: float = 0.0, sample_weight: Any = None) -> Tensor:
    """Softmax and cross-entropy in one, from logits.

    With q = (1 - label_smoothing) target + label_smoothing / C, the loss of a position is -sum over classes of
    weight_c q_c log softmax(x)_c.

    Parameters
    ----------
    x : Tensor
        Logits: (C,), (N, C) or (N, C, d1, ...).
    target : Tensor or array_like
        Labels 0 ... C - 1: (), (N,) or (N, d1, ...), integers; or class probabilities (one-hot rows, say) of x's shape,
        real or bool.
    weight : Tensor or array_like, optional
        (C,): factors for the classes.
    ignore_index : int
        Positions with this label give no loss and no gradient. Does not go with probabilities, unless negative.
    reduction : str
        "mean": divided by the sum of the labels' class weights (times sample weights); for probabilities by the number
        of positions (or the sum of sample weights). "sum", or "none": one loss per position.
    label_smoothing : float
        Between 0 and 1: how much of each target is spread evenly over all C classes, its own among them. Texts that
        speak of moving e to the *other* C - 1 classes mean e = label_smoothing (C - 1) / C.
    sample_weight : Tensor or array_like, optional
        Factors for the positions, of the labels' shape.

    Returns
    -------
    Tensor
        0-d, or of the labels' shape with reduction "none". The mean of nothing is NaN.

    Raises
    ------
    IndexError
        If a label is neither a class nor `ignore_index`; it is named with its place.
    ValueError
        If shapes do not fit, `label_smoothing` is not between 0 and 1, or `ignore_index` is set for probabilities.

    References
    ----------
    C. Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016 (label smoothing).
    """
    target = as_tensor(target)
    if target.dtype.is_floating or target.dtype.name == "bool":
        target = as_tensor(target, x.dtype) if target.dtype is not x.dtype else target
        if ignore_index >= 0:
            raise ValueError(f"cross_entropy: ignore_index is {ignore_index}, but target holds probabilities, "
                             "which have no label to ignore")
    weight = _constant_argument("cross_entropy", "weight", weight, x)
    sample_weight = _constant_argument("cross_entropy", "sample_weight", sample_weight, x)
    options = {"ignore_index": ignore_index, "reduction": _reduction("cross_entropy", reduction),
               "smoothing": label_smoothing}
    loss, logp, total = launch.cross_entropy_forward(x, target, weight, sample_weight, **options)
    saved = (logp, target, weight, sample_weight, total)
    return record(_cross_entropy_backward, (x, target), loss, saved=saved, context=options)


def _cross_entropy_backward(node, dloss):
    logp, target, weight, sample_weight, total = node.saved
    dx = dtarget = None
    if node.needs[0]:
        dx = launch.cross_entropy_backward(dloss, logp, target, weight, sample_weight, total, **node.context)
    if node.needs[1]:
        dtarget = _probabilities_backward(dloss, logp, target, weight, sample_weight, total, node.context)
    return dx, dtarget


def _probabilities_backward(dloss, logp, target, weight, sample_weight, total, options):
    """dtarget = -(1 - smoothing) weight logp dloss, by elementwise launches: few ever ask for it."""
    axis = 0 if target.ndim == 1 else 1
    positions = target.shape[:axis] + target.shape[axis + 1:]
    rows = movedim(reshape(logp, (*positions, target.shape[axis])), -1, axis)
    g = launch.div(dloss, total) if options["reduction"] == 1 else dloss
    if g.ndim or options["reduction"] == 0:
        g = unsqueeze(g, axis)
    if sample_weight is not None:
        g = launch.mul(g, unsqueeze(sample_weight, axis))
    dtarget = launch.mul(rows, launch.mul(g, constant(options["smoothing"] - 1.0, logp.dtype.name)))
    if weight is not None:
        dtarget = launch.mul(dtarget, reshape(weight, (-1,) + (1,) * (target.ndim - 1 - axis)))
    return dtarget


# ---- elementwise losses -----------------------------------------------------------------------------------------------


def _reduce(loss: Tensor, weight: Tensor | None, reduction: int) -> tuple[Tensor, Tensor | None]:
    """The weighted losses added up as asked, and the sum of weights that a weighted mean divides by."""
    if weight is not None:
        loss = launch.mul(loss, weight)
    if reduction == 0:
        return loss, None
    axes = (1 << loss.ndim) - 1
    if reduction == 2 or weight is None:
        return launch.sum(loss, axes=axes, keepdim=0, divisor=1.0 if reduction == 2 else float(loss.numel())), None
    total = launch.sum(expand(weight, loss.shape), axes=axes, keepdim=0, divisor=1.0)
    return launch.div(launch.sum(loss, axes=axes, keepdim=0, divisor=1.0), total), total


def _spread(dloss: Tensor, count: int, weight: Tensor | None, total: Tensor | None, reduction: int) -> Tensor:
    """The gradient of each element's loss, or one for all."""
    if reduction == 1:
        dloss = _divided(dloss, float(count)) if total is None else launch.div(dloss, total)
    return dloss if weight is None else launch.mul(dloss, weight)


def _check_same_shape(name: str, x: Tensor, target: Tensor) -> None:
    if x.shape != target.shape:
        raise ValueError(f"{name}: x has shape {x.shape} and target {target.shape}, but they must be the same")


def mse_loss(x: Tensor, target: Any, reduction: str = "mean", weight: Any = None) -> Tensor:
    """The squared error (x - target)^2.

    Parameters
    ----------
    x : Tensor
        Any shape.
    target : Tensor or array_like
        Of x's shape.
    reduction : str
        "mean" (over all elements; with `weight`, divided by the sum of weights), "sum" or "none".
    weight : Tensor or array_like, optional
        Factors, broadcast to x's shape.

    Returns
    -------
    Tensor
        0-d, or of x's shape with reduction "none".

    Raises
    ------
    ValueError
        If shapes differ.
    """
    target = as_tensor(target, x.dtype)
    _check_same_shape("mse_loss", x, target)
    code, weight = _reduction("mse_loss", reduction), _constant_argument("mse_loss", "weight", weight, x)
    loss, total = _reduce(launch.mse_forward(x, target), weight, code)
    return record(_mse_backward, (x, target), loss, saved=(x, target, weight, total), context=code)


def _mse_backward(node, dloss):
    x, target, weight, total = node.saved
    dx = launch.mse_backward(_spread(dloss, x.numel(), weight, total, node.context), x, target)
    return dx, launch.neg(dx) if node.needs[1] else None


def binary_cross_entropy_with_logits(x: Tensor, target: Any, weight: Any = None, reduction: str = "mean",
                                     pos_weight: Any = None) -> Tensor:
    """Sigmoid and binary cross-entropy in one, from logits: -(pos_weight target log s(x) + (1 - target) log(1 - s(x))).

    Parameters
    ----------
    x : Tensor
        Logits of any shape.
    target : Tensor or array_like
        Of x's shape, between 0 and 1; takes no gradient.
    weight : Tensor or array_like, optional
        Factors, broadcast to x's shape.
    reduction : str
        "mean" (over all elements, whatever the weights), "sum" or "none".
    pos_weight : Tensor or array_like, optional
        Factors for the positive part, broadcast to x's shape.

    Returns
    -------
    Tensor
        0-d, or of x's shape with reduction "none".

    Raises
    ------
    ValueError
        If shapes differ, or an argument other than `x` requires grad.
    """
    name = "binary_cross_entropy_with_logits"
    target = _constant_argument(name, "target", target, x)
    _check_same_shape(name, x, target)
    code, weight = _reduction(name, reduction), _constant_argument(name, "weight", weight, x)
    one = constant(1.0, x.dtype.name)
    pos_weight = _constant_argument(name, "pos_weight", one if pos_weight is None else pos_weight, x)
    loss = launch.bce_with_logits_forward(x, target, pos_weight)
    if loss.shape != x.shape:
        raise ValueError(f"{name}: pos_weight of shape {pos_weight.shape} does not broadcast to x {x.shape}")
    if weight is not None:
        loss = launch.mul(loss, expand(weight, x.shape))
    loss, _ = _reduce(loss, None, code)
    return record(_bce_with_logits_backward, (x,), loss, saved=(x, target, weight, pos_weight), context=code)


def _bce_with_logits_backward(node, dloss):
    x, target, weight, pos_weight = node.saved
    return launch.bce_with_logits_backward(_spread(dloss, x.numel(), weight, None, node.context), x, target, pos_weight)
