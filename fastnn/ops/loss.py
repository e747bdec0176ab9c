"""Losses: what training makes small. `reduction`: "mean", "sum" or "none"."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .._core import launch, record
from ..checks import a_tensor, integer, number, positive, real
from .create import as_tensor
from .index import _as_index
from .linear import linear
from .operands import constant
from .reduce import _divided
from .shape import expand, movedim, reshape, unbroadcast, unsqueeze

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["binary_cross_entropy_with_logits", "cross_entropy", "gaussian_nll_loss", "huber_loss", "l1_loss",
           "linear_cross_entropy", "mse_loss", "nll_loss", "poisson_nll_loss", "quantile_loss", "smooth_l1_loss"]

_REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}


def _reduction(name: str, reduction: str) -> int:
    if not isinstance(reduction, str) or reduction not in _REDUCTIONS:
        raise ValueError(f"{name}: reduction is {reduction!r}, but must be 'mean', 'sum' or 'none'")
    return _REDUCTIONS[reduction]


def _constant_argument(name: str, argument: str, value: Any, x: Tensor) -> Tensor | None:
    """`value` as a tensor of x's dtype that takes no gradient."""
    if value is None:
        return None
    value = as_tensor(value, a_tensor(name, x).dtype)
    if value.requires_grad:
        raise ValueError(f"{name}: {argument} requires grad, but has no gradient: use {argument}.detach()")
    return value


# ---- cross-entropy ----------------------------------------------------------------------------------------------------


def cross_entropy(input: Tensor, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean",
                  label_smoothing: float = 0.0, sample_weight: Any = None) -> Tensor:
    """Softmax and cross-entropy in one, from logits.

    With q = (1 - label_smoothing) target + label_smoothing / C, the loss of a position is -sum over classes of
    weight_c q_c log softmax(x)_c.

    Parameters
    ----------
    input : Tensor
        Logits: (C,), (N, C) or (N, C, d1, ...).
    target : Tensor or array_like
        Labels 0 ... C - 1: (), (N,) or (N, d1, ...), integers; or class probabilities (one-hot rows, say) of `input`'s shape,
        of any type.
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
    TypeError
        If labels are not integers.
    ValueError
        If shapes do not fit, `label_smoothing` is not between 0 and 1, or `ignore_index` is set for probabilities.

    References
    ----------
    C. Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016 (label smoothing).
    """
    target = as_tensor(target)
    if target.dtype.is_floating or target.dtype.name == "bool" or target.shape == a_tensor("cross_entropy", input).shape:
        if target.ndim == input.ndim - 1:
            raise TypeError(f"cross_entropy: target has dtype {target.dtype} and shape {target.shape}, which is that of labels "
                            f"for input {input.shape}, but labels must be integers")
        target = as_tensor(target, input.dtype) if target.dtype is not input.dtype else target
        if integer("cross_entropy", "ignore_index", ignore_index) >= 0:
            raise ValueError(f"cross_entropy: ignore_index is {ignore_index}, but target holds probabilities, "
                             "which have no label to ignore")
    weight = _constant_argument("cross_entropy", "weight", weight, input)
    sample_weight = _constant_argument("cross_entropy", "sample_weight", sample_weight, input)
    options = {"ignore_index": ignore_index, "reduction": _reduction("cross_entropy", reduction),
               "smoothing": label_smoothing}
    loss, logp, total = launch.cross_entropy_forward(input, target, weight, sample_weight, **options)
    saved = (logp, target, weight, sample_weight, total)
    return record(_cross_entropy_backward, (input, target), loss, saved=saved, context=options)


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
    dtarget = launch.mul(rows, launch.mul(g, constant(options["smoothing"] - 1.0, logp.dtype)))
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
    if x.shape != a_tensor(name, target, "target").shape:
        raise ValueError(f"{name}: input has shape {x.shape} and target {target.shape}, but they must be the same")


def mse_loss(input: Tensor, target: Any, reduction: str = "mean", weight: Any = None) -> Tensor:
    """The squared error (x - target)^2.

    Parameters
    ----------
    input : Tensor
        Any shape.
    target : Tensor or array_like
        Of `input`'s shape.
    reduction : str
        "mean" (over all elements; with `weight`, divided by the sum of weights), "sum" or "none".
    weight : Tensor or array_like, optional
        Factors, broadcast to `input`'s shape.

    Returns
    -------
    Tensor
        0-d, or of `input`'s shape with reduction "none".

    Raises
    ------
    ValueError
        If shapes differ.
    """
    target = as_tensor(target, a_tensor("mse_loss", input).dtype)
    _check_same_shape("mse_loss", input, target)
    code, weight = _reduction("mse_loss", reduction), _constant_argument("mse_loss", "weight", weight, input)
    loss, total = _reduce(launch.mse_forward(input, target), weight, code)
    return record(_mse_backward, (input, target), loss, saved=(input, target, weight, total), context=code)


def _mse_backward(node, dloss):
    x, target, weight, total = node.saved
    dx = launch.mse_backward(_spread(dloss, x.numel(), weight, total, node.context), x, target)
    return dx, launch.neg(dx) if node.needs[1] else None


def binary_cross_entropy_with_logits(input: Tensor, target: Any, weight: Any = None, reduction: str = "mean",
                                     pos_weight: Any = None) -> Tensor:
    """Sigmoid and binary cross-entropy in one, from logits: -(pos_weight target log s(x) + (1 - target) log(1 - s(x))).

    Parameters
    ----------
    input : Tensor
        Logits of any shape.
    target : Tensor or array_like
        Of `input`'s shape, between 0 and 1; takes no gradient.
    weight : Tensor or array_like, optional
        Factors, broadcast to `input`'s shape.
    reduction : str
        "mean" (over all elements, whatever the weights), "sum" or "none".
    pos_weight : Tensor or array_like, optional
        Factors for the positive part, broadcast to `input`'s shape.

    Returns
    -------
    Tensor
        0-d, or of `input`'s shape with reduction "none".

    Raises
    ------
    ValueError
        If shapes differ, or an argument other than `input` requires grad.
    """
    name = "binary_cross_entropy_with_logits"
    target = _constant_argument(name, "target", target, input)
    _check_same_shape(name, input, target)
    code, weight = _reduction(name, reduction), _constant_argument(name, "weight", weight, input)
    one = constant(1.0, input.dtype)
    pos_weight = _constant_argument(name, "pos_weight", one if pos_weight is None else pos_weight, input)
    loss = launch.bce_with_logits_forward(input, target, pos_weight)
    if loss.shape != input.shape:
        raise ValueError(f"{name}: pos_weight of shape {pos_weight.shape} does not broadcast to input {input.shape}")
    if weight is not None:
        loss = launch.mul(loss, expand(weight, input.shape))
    loss, _ = _reduce(loss, None, code)
    return record(_bce_with_logits_backward, (input,), loss, saved=(input, target, weight, pos_weight), context=code)


def _bce_with_logits_backward(node, dloss):
    x, target, weight, pos_weight = node.saved
    return launch.bce_with_logits_backward(_spread(dloss, x.numel(), weight, None, node.context), x, target, pos_weight)


def _pointwise(name: str, x: Tensor, target: Tensor, loss: Tensor, slope: Tensor, reduction: str,
               weight: Any) -> Tensor:
    """A loss of differences: given each element's loss and its slope in x, which is minus that in the target."""
    code, weight = _reduction(name, reduction), _constant_argument(name, "weight", weight, x)
    value, total = _reduce(loss, weight, code)
    return record(_pointwise_backward, (x, target), value, saved=(slope, weight, total), context=code)


def _pointwise_backward(node, dloss):
    slope, weight, total = node.saved
    dx = launch.mul(_spread(dloss, slope.numel(), weight, total, node.context), slope)
    return dx, launch.neg(dx) if node.needs[1] else None


def _difference(name: str, x: Tensor, target: Any) -> tuple[Tensor, Tensor]:
    target = as_tensor(target, a_tensor(name, x).dtype)
    _check_same_shape(name, x, target)
    return target, launch.sub(x, target)


def l1_loss(input: Tensor, target: Any, reduction: str = "mean", weight: Any = None) -> Tensor:
    """The absolute error |x - target|; parameters as `mse_loss`."""
    target, d = _difference("l1_loss", input, target)
    return _pointwise("l1_loss", input, target, launch.abs(d), launch.sign(d), reduction, weight)


def huber_loss(input: Tensor, target: Any, reduction: str = "mean", delta: float = 1.0, weight: Any = None) -> Tensor:
    """Half the squared error up to `delta`, from there on the straight line that continues it.

    Parameters
    ----------
    input : Tensor
        Any shape.
    target : Tensor or array_like
        Of `input`'s shape.
    reduction : str
        "mean" (over all elements; with `weight`, divided by the sum of weights), "sum" or "none".
    delta : float
        Above 0.
    weight : Tensor or array_like, optional
        Factors, broadcast to `input`'s shape.

    Returns
    -------
    Tensor
        0-d, or of `input`'s shape with reduction "none".

    Raises
    ------
    ValueError
        If shapes differ or `delta` is not above 0.

    References
    ----------
    P. J. Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics 35, 1964.
    """
    return _huber("huber_loss", input, target, positive("huber_loss: delta", delta), 1.0, reduction, weight)


def _huber(name: str, x: Tensor, target: Any, delta: float, divisor: float, reduction: str, weight: Any) -> Tensor:
    target = as_tensor(target, a_tensor(name, x).dtype)
    _check_same_shape(name, x, target)
    code, weight = _reduction(name, reduction), _constant_argument(name, "weight", weight, x)
    options = {"delta": delta, "divisor": divisor}
    loss, total = _reduce(launch.huber_forward(x, target, **options), weight, code)
    return record(_huber_backward, (x, target), loss, saved=(x, target, weight, total), context=(code, options))


def _huber_backward(node, dloss):
    x, target, weight, total = node.saved
    code, options = node.context
    dx = launch.huber_backward(_spread(dloss, x.numel(), weight, total, code), x, target, **options)
    return dx, launch.neg(dx) if node.needs[1] else None


def smooth_l1_loss(input: Tensor, target: Any, reduction: str = "mean", beta: float = 1.0, weight: Any = None) -> Tensor:
    """`huber_loss` with delta = `beta`, over `beta`; `l1_loss` for a beta of 0 or below the normal numbers of float32, which count
    as 0. Parameters as `huber_loss`."""
    beta = real("smooth_l1_loss: beta", beta, 0)
    if beta < 2**-126:
        return l1_loss(input, target, reduction, weight)
    return _huber("smooth_l1_loss", input, target, beta, beta, reduction, weight)


def quantile_loss(input: Tensor, target: Any, quantile: float = 0.5, reduction: str = "mean", weight: Any = None) -> Tensor:
    """The pinball loss, least at the target's quantile: quantile (target - x) above x, (1 - quantile) (x - target) below.

    Parameters
    ----------
    input : Tensor
        Any shape.
    target : Tensor or array_like
        Of `input`'s shape.
    quantile : float
        Between 0 and 1.
    reduction : str
        "mean" (over all elements; with `weight`, divided by the sum of weights), "sum" or "none".
    weight : Tensor or array_like, optional
        Factors, broadcast to `input`'s shape.

    Returns
    -------
    Tensor
        0-d, or of `input`'s shape with reduction "none".

    Raises
    ------
    ValueError
        If shapes differ or `quantile` is not between 0 and 1.
    """
    quantile = real("quantile_loss: quantile", quantile, 0, 1)
    target, d = _difference("quantile_loss", input, target)
    zero = constant(0.0, input.dtype)
    slope = launch.where(launch.lt(d, zero), constant(-quantile, input.dtype), constant(1.0 - quantile, input.dtype))
    return _pointwise("quantile_loss", input, target, launch.mul(slope, d), slope, reduction, weight)


# ---- negative log-likelihoods -----------------------------------------------------------------------------------------


def poisson_nll_loss(input: Tensor, target: Any, log_input: bool = True, full: bool = False, eps: float = 1e-8,
                     reduction: str = "mean") -> Tensor:
    """Negative log-likelihood of counts under Poisson distributions.

    Parameters
    ----------
    input : Tensor
        Logarithms of the rates, or the rates themselves; any shape.
    target : Tensor or array_like
        Counts, of `input`'s shape; takes no gradient.
    log_input : bool
        Whether `input` holds logarithms: the loss is exp(x) - target x, otherwise x - target log(x + eps).
    full : bool
        Whether the term log(target!) is added, by Stirling's formula, for counts above 1.
    eps : float
        Keeps the logarithm away from 0.
    reduction : str
        "mean" (over all elements), "sum" or "none".

    Returns
    -------
    Tensor
        0-d, or of `input`'s shape with reduction "none".

    Raises
    ------
    ValueError
        If shapes differ or `target` requires grad.
    """
    target = _constant_argument("poisson_nll_loss", "target", target, input)
    _check_same_shape("poisson_nll_loss", input, target)
    if log_input:
        rate = launch.exp(input)
        loss, slope = launch.sub(rate, launch.mul(target, input)), launch.sub(rate, target)
    else:
        shifted = launch.add(input, constant(number("gaussian_nll_loss: eps", eps), input.dtype))
        loss = launch.sub(input, launch.mul(target, launch.log(shifted)))
        slope = launch.sub(constant(1.0, input.dtype), launch.div(target, shifted))
    if full:
        loss = launch.add(loss, _log_factorial(target))
    return _pointwise("poisson_nll_loss", input, target, loss, slope, reduction, None)


def _log_factorial(n: Tensor) -> Tensor:
    """n log(n) - n + log(2 pi n) / 2 where n is above 1, else 0."""
    one = constant(1.0, n.dtype)
    at_least_1 = launch.maximum(n, one)
    log = launch.log(at_least_1)
    rest = launch.add(launch.mul(constant(0.5, n.dtype), log), constant(0.5 * math.log(2 * math.pi), n.dtype))
    value = launch.add(launch.sub(launch.mul(at_least_1, log), at_least_1), rest)
    return launch.where(launch.gt(n, one), value, constant(0.0, n.dtype))


def gaussian_nll_loss(input: Tensor, target: Any, var: Any, full: bool = False, eps: float = 1e-6,
                      reduction: str = "mean") -> Tensor:
    """Negative log-likelihood under normal distributions: (log(v) + (x - target)^2 / v) / 2.

    Parameters
    ----------
    input : Tensor
        Means, any shape.
    target : Tensor or array_like
        Of `input`'s shape.
    var : Tensor or array_like
        Variances: of `input`'s shape, or of that without its last axis (one for each row), or what broadcasts to it. v is `var` but at
        least `eps`. Its gradient is that at v, as in PyTorch.
    full : bool
        Whether the constant log(2 pi) / 2 is added.
    eps : float
        The least variance.
    reduction : str
        "mean" (over all elements), "sum" or "none".

    Returns
    -------
    Tensor
        0-d, or of `input`'s shape with reduction "none".

    Raises
    ------
    ValueError
        If shapes differ.
    """
    target, d = _difference("gaussian_nll_loss", input, target)
    code, var = _reduction("gaussian_nll_loss", reduction), as_tensor(var, input.dtype)
    if var.shape == input.shape[:-1] and input.ndim:
        var = unsqueeze(var, -1)
    v = launch.maximum(var, constant(real("gaussian_nll_loss: eps", eps, 0), input.dtype))
    scaled = launch.div(d, v)
    loss = launch.mul(launch.add(launch.log(v), launch.mul(d, scaled)), constant(0.5, input.dtype))
    if full:
        loss = launch.add(loss, constant(0.5 * math.log(2 * math.pi), input.dtype))
    _check_same_shape("gaussian_nll_loss", input, loss)
    value, _ = _reduce(loss, None, code)
    return record(_gaussian_nll_backward, (input, target, var), value, saved=(scaled, v, var), context=code)


def _gaussian_nll_backward(node, dloss):
    scaled, v, var = node.saved
    g = _spread(dloss, scaled.numel(), None, None, node.context)
    dx, dvar = launch.mul(g, scaled), None
    if node.needs[2]:
        slope = launch.sub(launch.div(constant(1.0, v.dtype), v), launch.square(scaled))
        dvar = unbroadcast(launch.mul(launch.mul(g, constant(0.5, v.dtype)), slope), var.shape)
    return dx, launch.neg(dx) if node.needs[1] else None, dvar


def linear_cross_entropy(input: Tensor, linear_weight: Tensor, target: Any, *, linear_bias: Tensor | None = None,
                         weight: Any = None, reduction: str = "mean", ignore_index: int | None = None,
                         label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of logits that a linear layer makes: `cross_entropy(linear(input, linear_weight, linear_bias), target)`.

    Parameters
    ----------
    input : Tensor
        (E,) or (N, E).
    linear_weight : Tensor
        (C, E); or (C, d1, ..., E), which makes logits (N, C, d1, ...) of inputs (N, E).
    target : Tensor or array_like
        Labels: (), (N,) or (N, d1, ...), integers; or class probabilities of the logits' shape.
    linear_bias : Tensor, optional
        (C,) or (C, d1, ...): added to the logits.
    weight, reduction, label_smoothing
        As `cross_entropy`'s.
    ignore_index : int, optional
        Positions with this label do not count; -100 if None. Not for probabilities.

    Returns
    -------
    Tensor
        0-d, or of the labels' shape with reduction "none".

    Raises
    ------
    ValueError
        If shapes do not fit, or `ignore_index` is given for probabilities.
    """
    name = "linear_cross_entropy"
    shape = a_tensor(name, linear_weight, "linear_weight").shape
    if len(shape) < 2 or (len(shape) > 2 and a_tensor(name, input).ndim != 2):
        raise ValueError(f"{name}: linear_weight has shape {shape}, but must be (C, E), or (C, d1, ..., E) for inputs (N, E)")
    if a_tensor(name, input).ndim not in (1, 2):
        raise ValueError(f"{name}: input has shape {input.shape}, but must be (E,) or (N, E)")
    if linear_bias is not None and a_tensor(name, linear_bias, "linear_bias").shape not in (shape[:-1], shape[:1]):
        raise ValueError(f"{name}: linear_bias has shape {linear_bias.shape}, but must be {shape[:1]} or {shape[:-1]}")
    target = as_tensor(target)
    logits_shape = (*input.shape[:-1], *shape[:-1])
    if ignore_index is not None and (target.dtype.is_floating or target.shape == logits_shape):
        raise ValueError(f"{name}: ignore_index is {ignore_index}, but must be None where target is class probabilities")
    if len(shape) > 2 and linear_bias is not None:
        linear_bias = reshape(linear_bias, *linear_bias.shape, *[1] * (len(shape) - 1 - linear_bias.ndim))
        linear_bias = reshape(expand(linear_bias, *shape[:-1]), -1)
    logits = linear(input, reshape(linear_weight, -1, shape[-1]), linear_bias)
    if len(shape) > 2:
        logits = reshape(logits, *logits_shape)
    return cross_entropy(logits, target, weight, -100 if ignore_index is None else ignore_index, reduction, label_smoothing)


def nll_loss(input: Tensor, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean") -> Tensor:
    """Negative log-likelihood of labels, from log-probabilities; `cross_entropy` does this and `log_softmax` in one.

    Parameters
    ----------
    input : Tensor
        Log-probabilities: (C,), (N, C) or (N, C, d1, ...).
    target : Tensor or array_like
        Labels 0 ... C - 1: (), (N,) or (N, d1, ...).
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
        If shapes do not fit.
    """
    return _nll("nll_loss", input, target, weight, ignore_index, reduction)


def _nll(name: str, x: Tensor, target: Any, weight: Any, ignore_index: int, reduction: str) -> Tensor:
    options = {"ignore_index": integer(name, "ignore_index", ignore_index), "reduction": _reduction(name, reduction)}
    weight, target = _constant_argument(name, "weight", weight, x), _as_index(name, target, "target")
    loss, total = launch.nll_loss_forward(a_tensor(name, x), target, weight, **options)
    return record(_nll_backward, (x,), loss, saved=(target, weight, total), context=(options, x.shape))


def _nll_backward(node, dloss):
    options, shape = node.context
    return launch.nll_loss_backward(dloss, *node.saved, **options, classes=shape[len(shape) > 1])
