"""Losses of margins: they ask for a right answer by some distance, and for no more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import _core
from .._core import launch, record
from ..checks import a_tensor, real
from .activation import relu
from .create import as_tensor
from .index import _as_index, gather
from .loss import _check_same_shape, _constant_argument, _reduction, binary_cross_entropy_with_logits
from .math import mul, neg, square, sub
from .reduce import mean, sum
from .shape import expand, reshape, unsqueeze
from .smooth_activation import softplus

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["hinge_embedding_loss", "hinge_loss", "margin_ranking_loss", "multi_margin_loss",
           "multilabel_margin_loss", "multilabel_soft_margin_loss", "perceptron_loss", "soft_margin_loss"]


def _reduced(name: str, loss: Tensor, reduction: str, weight: Tensor | None = None) -> Tensor:
    """Each element's loss, weighted, added up as asked; a weighted mean is divided by the sum of the weights."""
    code = _reduction(name, reduction)
    if weight is not None:
        loss = mul(loss, weight)
    if code == 0:
        return loss
    if code == 2:
        return sum(loss)
    return mean(loss) if weight is None else sum(loss) / sum(expand(weight, loss.shape))


def _agreement(name: str, x: Tensor, target: Any) -> Tensor:
    """target x: positive where the sign is right."""
    target = _constant_argument(name, "target", target, x)
    _check_same_shape(name, x, target)
    return mul(x, target)


def hinge_loss(input: Tensor, target: Any, margin: float = 1.0, squared: bool = False, reduction: str = "mean",
               weight: Any = None) -> Tensor:
    """The support vector machine's loss max(0, margin - target x), or its square.

    Parameters
    ----------
    input : Tensor
        Scores, any shape.
    target : Tensor or array_like
        -1 or 1, of `input`'s shape; takes no gradient.
    margin : float
        From which score on there is no loss; at least 0.
    squared : bool
        Whether to square it.
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
        If shapes differ or `margin` is below 0.

    References
    ----------
    Cortes and Vapnik, "Support-vector networks", Machine Learning 20, 1995.
    """
    loss = relu(sub(real("hinge_loss: margin", margin, 0), _agreement("hinge_loss", input, target)))
    weight = _constant_argument("hinge_loss", "weight", weight, input)
    return _reduced("hinge_loss", square(loss) if squared else loss, reduction, weight)


def perceptron_loss(input: Tensor, target: Any, reduction: str = "mean", weight: Any = None) -> Tensor:
    """Rosenblatt's max(0, -target x): `hinge_loss` without a margin, with its other parameters.

    References
    ----------
    F. Rosenblatt, "The perceptron", Psychological Review 65, 1958.
    """
    loss = relu(neg(_agreement("perceptron_loss", input, target)))
    return _reduced("perceptron_loss", loss, reduction, _constant_argument("perceptron_loss", "weight", weight, input))


def soft_margin_loss(input: Tensor, target: Any, reduction: str = "mean", weight: Any = None) -> Tensor:
    """The logistic loss log(1 + exp(-target x)), target -1 or 1; parameters as `perceptron_loss`."""
    loss = softplus(neg(_agreement("soft_margin_loss", input, target)), threshold=1000.0)
    return _reduced("soft_margin_loss", loss, reduction, _constant_argument("soft_margin_loss", "weight", weight, input))


def hinge_embedding_loss(input: Tensor, target: Any, margin: float = 1.0, reduction: str = "mean") -> Tensor:
    """Of distances between pairs: x for pairs that belong together (target 1), max(0, margin - x) for others (-1).

    Parameters
    ----------
    input : Tensor
        Distances, any shape.
    target : Tensor or array_like
        -1 or 1, of `input`'s shape; takes no gradient.
    margin : float
        Distance from which on strangers are far enough.
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
    name = "hinge_embedding_loss"
    target = _constant_argument(name, "target", target, input)
    _check_same_shape(name, input, target)
    margin = real(f"{name}: margin", margin)
    together, apart = launch.ne(target, as_tensor(-1.0, input.dtype)), launch.ne(target, as_tensor(1.0, input.dtype))
    together, apart = (launch.copy(kind, dtype=input.dtype.code) for kind in (together, apart))
    return _reduced(name, mul(input, together) + mul(relu(sub(margin, input)), apart), reduction)


def margin_ranking_loss(input1: Tensor, input2: Tensor, target: Any, margin: float = 0.0,
                        reduction: str = "mean") -> Tensor:
    """max(0, margin - target (input1 - input2)): the first should be the larger where target is 1, the second for -1.

    Parameters
    ----------
    input1, input2 : Tensor
        Scores of one shape.
    target : Tensor or array_like
        -1 or 1, broadcast to their shape; takes no gradient.
    margin : float
        By how much.
    reduction : str
        "mean" (over all elements), "sum" or "none".

    Returns
    -------
    Tensor
        0-d, or of the inputs' shape with reduction "none".

    Raises
    ------
    ValueError
        If shapes do not fit.
    """
    name = "margin_ranking_loss"
    input2 = as_tensor(input2, a_tensor("margin_ranking_loss", input1, "input1").dtype)
    _check_same_shape(name, input1, input2)
    target = _constant_argument(name, "target", target, input1)
    return _reduced(name, relu(sub(real(f"{name}: margin", margin), mul(sub(input1, input2), target))), reduction)


def multi_margin_loss(input: Tensor, target: Any, p: int = 1, margin: float = 1.0, weight: Any = None,
                      reduction: str = "mean") -> Tensor:
    """The hinge loss of classes: the sum over classes c other than y of weight_y max(0, margin - x_y + x_c)^p, over C.

    Parameters
    ----------
    input : Tensor
        Scores, (N, C) or (C,).
    target : Tensor or array_like
        Labels y, (N,) or (): 0 ... C - 1.
    p : int
        1 or 2.
    margin : float
        How far the right class should be ahead.
    weight : Tensor or array_like, optional
        (C,): factors for the classes.
    reduction : str
        "mean" (over N, whatever the weights), "sum" or "none".

    Returns
    -------
    Tensor
        0-d, or of the labels' shape with reduction "none".

    Raises
    ------
    IndexError
        If a label is no class.
    TypeError
        If labels are not integers.
    ValueError
        If shapes do not fit or `p` is neither 1 nor 2.

    References
    ----------
    Crammer and Singer, "On the algorithmic implementation of multiclass kernel-based vector machines", JMLR 2,
    2001.
    """
    name = "multi_margin_loss"
    target, margin = _as_index(name, target, "target"), real(f"{name}: margin", margin)
    if p not in (1, 2):
        raise ValueError(f"{name}: p is {p!r}, but must be 1 or 2")
    if a_tensor("multi_margin_loss", input).ndim not in (1, 2) or target.shape != input.shape[:-1]:
        raise ValueError(f"{name}: input is {input.shape} and target {target.shape}, but they must be (N, C) and (N,), or (C,) and ()")
    if not input.shape[-1]:
        raise ValueError(f"{name}: input has shape {input.shape}, but must have at least one class")
    labels, classes = unsqueeze(target, -1), input.shape[-1]
    others = _core.empty(input.shape, input.dtype)
    launch.fill(value=1.0, out=others)
    launch.scatter_add(labels, launch.neg(_ones(labels.shape, input)), axis=input.ndim - 1, out=others)
    ahead = relu(sub(input, gather(input, -1, labels)) + margin)
    loss = sum(mul(square(ahead) if p == 2 else ahead, others), -1) * (1.0 / classes)
    if weight is not None:
        weight = _constant_argument(name, "weight", weight, input)
        if weight.shape != (classes,):
            raise ValueError(f"{name}: weight has shape {weight.shape}, but must be ({classes},)")
        chosen = launch.index_select(weight, reshape(labels, (labels.numel(),)), axis=0)
        loss = mul(loss, reshape(chosen, target.shape))
    return _reduced(name, loss, reduction)


def _ones(shape: tuple[int, ...], like: Tensor) -> Tensor:
    ones = _core.empty(shape, like.dtype)
    launch.fill(value=1.0, out=ones)
    return ones


def multilabel_soft_margin_loss(input: Tensor, target: Any, weight: Any = None, reduction: str = "mean") -> Tensor:
    """Of outputs that may hold any number of labels at once: the mean over classes of the binary cross-entropy.

    Parameters
    ----------
    input : Tensor
        Logits, (N, C) or (C,).
    target : Tensor or array_like
        Of `input`'s shape: 1 for every label that holds, else 0, or probabilities; takes no gradient.
    weight : Tensor or array_like, optional
        (C,): factors for the classes.
    reduction : str
        "mean" (over N), "sum" or "none".

    Returns
    -------
    Tensor
        0-d, or (N,) with reduction "none".

    Raises
    ------
    ValueError
        If shapes differ.
    """
    name = "multilabel_soft_margin_loss"
    _reduction(name, reduction)
    return _reduced(name, mean(binary_cross_entropy_with_logits(input, target, weight, "none"), -1), reduction)


def multilabel_margin_loss(input: Tensor, target: Any, reduction: str = "mean") -> Tensor:
    """The hinge loss of several labels: the sum over labels k and classes i that are none of max(0, 1 - x_k + x_i), over C.

    Parameters
    ----------
    input : Tensor
        Scores, (N, C) or (C,).
    target : Tensor or array_like
        Integers of `input`'s shape: a row's labels 0 ... C - 1, then -1; what is behind the first -1 does not count. A label
        named twice counts twice.
    reduction : str
        "mean" (over N), "sum" or "none".

    Returns
    -------
    Tensor
        0-d, or (N,) with reduction "none" of (N, C).

    Raises
    ------
    IndexError
        If a label is neither a class nor -1; it is named with its place.
    ValueError
        If shapes differ.
    """
    name = "multilabel_margin_loss"
    target, code = _as_index(name, target, "target"), _reduction(name, reduction)
    loss = launch.multilabel_margin_forward(input, target, reduction=code)
    return record(_multilabel_margin_backward, (input,), loss, (input, target), code)


def _multilabel_margin_backward(node, dloss):
    return launch.multilabel_margin_backward(dloss, *node.saved, reduction=node.context)
