"""OpSpecs of fastnn/ops/margin_loss.py and probability_loss.py."""

from __future__ import annotations

import numpy as np

from ..ops import margin_loss, probability_loss
from .activation_specs import _sigmoid
from .loss_specs import _SHAPES, _cases, _reduced
from .softmax_specs import _log_softmax
from .spec import OpSpec, Sample, register

_EVERY = ((5,), (3, 7), (2, 3, 4, 5), (300, 70), (0, 3))


def _signed(**options):
    """Scores whose agreement with their targets, -1 or 1, is not near 0, 0.7 or 1, where these losses have kinks."""
    def samples(rng):
        for shape in _EVERY:
            for reduction in ("mean", "sum", "none"):
                if shape[0] == 0 and reduction == "mean":
                    continue
                d = rng.choice([-1, 1], shape) * (rng.uniform(0.1, 0.6, shape) + rng.integers(0, 2, shape) * 1.1)
                yield Sample((d, rng.choice([-1.0, 1.0], shape)), {"reduction": reduction, **options})
    return lambda rng: list(samples(rng))


def _of_agreement(pointwise):
    def reference(x, target, reduction, **options):
        return _reduced(pointwise(x * target, **options), reduction, max(x.size, 1))
    return reference


def _hinge(a, margin, squared=False):
    return np.maximum(margin - a, 0) ** (2 if squared else 1)


for _name, _pointwise, _options in (
        ("hinge_loss", _hinge, {"margin": 0.7, "squared": True}), ("perceptron_loss", lambda a: np.maximum(-a, 0), {}),
        ("soft_margin_loss", lambda a: np.logaddexp(0, -a), {})):
    register(OpSpec(_name, getattr(margin_loss, _name), _of_agreement(_pointwise), _signed(**_options), gradients=(0,)))

register(OpSpec("hinge_embedding_loss", margin_loss.hinge_embedding_loss,
                lambda x, t, reduction, margin: _reduced(np.where(t > 0, x, np.maximum(margin - x, 0)), reduction,
                                                         max(x.size, 1)),
                _signed(margin=0.7), gradients=(0,)))


def _apart(rng):
    """Pairs of scores whose difference is as in `_signed`."""
    for sample in _signed(margin=0.7)(rng):
        d, target = sample.inputs
        second = rng.standard_normal(d.shape)
        yield Sample((second + d, second, target), sample.options)


register(OpSpec("margin_ranking_loss", margin_loss.margin_ranking_loss,
                lambda a, b, t, margin, reduction: _reduced(_hinge((a - b) * t, margin), reduction, max(a.size, 1)),
                lambda rng: list(_apart(rng)), gradients=(0, 1)))


def _multi_margin(x, target, weight, p, margin, reduction):
    rows, labels = np.atleast_2d(x), np.atleast_1d(target)
    ahead = np.maximum(margin - np.take_along_axis(rows, labels[:, None], 1) + rows, 0) ** p
    ahead[np.arange(len(labels)), labels] = 0
    w = np.ones(rows.shape[1]) if weight is None else weight
    losses = (ahead.sum(1) / rows.shape[1] * w[labels]).reshape(np.shape(target))
    return _reduced(losses, reduction, max(losses.size, 1))


def _labelled(rng):
    for n, c in ((4, 5), (None, 6), (3, 1), (200, 90)):
        for k, reduction in enumerate(("mean", "sum", "none")):
            shape = (c,) if n is None else (n, c)
            x = rng.permutation(int(np.prod(shape))).reshape(shape) * 0.25 + 0.1  # differences stay off the margin
            weight = rng.uniform(0.5, 2, c) if k else None
            yield Sample((x, np.asarray(rng.integers(0, c, () if n is None else (n,))), weight),
                         {"p": 1 + k % 2, "margin": 0.9, "reduction": reduction})


register(OpSpec("multi_margin_loss", lambda x, t, w, **o: margin_loss.multi_margin_loss(x, t, weight=w, **o),
                _multi_margin, lambda rng: list(_labelled(rng)), gradients=(0,)))


def _multilabel_margin(x, target, reduction):
    rows, labels = np.atleast_2d(x), np.atleast_2d(target)
    losses = np.zeros(len(rows))
    for n, (row, named) in enumerate(zip(rows, labels)):
        named = named[:np.argmax(named < 0)] if (named < 0).any() else named
        others = np.setdiff1d(np.arange(len(row)), named)
        losses[n] = np.maximum(0, 1 - row[named][:, None] + row[others]).sum() / len(row)
    return _reduced(losses if x.ndim == 2 else losses[0], reduction, max(losses.size, 1))


def _several_labels(rng):
    for shape in ((4, 5), (6,), (3, 1), (120, 90), (2, 300)):
        for reduction in ("mean", "sum", "none"):
            x = rng.permutation(int(np.prod(shape))).reshape(shape) % 40 * 0.3  # differences stay off the margin
            yield Sample((x, np.asarray(rng.integers(-1, shape[-1], shape))), {"reduction": reduction})


register(OpSpec("multilabel_margin_loss", margin_loss.multilabel_margin_loss, _multilabel_margin,
                lambda rng: list(_several_labels(rng)), gradients=(0,), tolerance=8))


def _pairs(draw):
    """x of `draw`, targets between 0 and 1, some of them 0, and weights."""
    def samples(rng):
        for shape in ((3, 7), (2, 5), (300, 70)):
            for k, reduction in enumerate(("mean", "sum", "none")):
                target = np.maximum(rng.uniform(-0.2, 1, shape), 0)
                weight = rng.uniform(0.5, 2, shape[-1:]) if k else None
                yield Sample((draw(rng, shape), target, weight), {"reduction": reduction})
    return lambda rng: list(samples(rng))


def _bce(x, t, w, reduction):
    return _reduced(-(t * np.log(x) + (1 - t) * np.log(1 - x)) * (1 if w is None else w), reduction, x.size)


def _multilabel(x, t, w, reduction):
    losses = (np.logaddexp(0, -x) * t + np.logaddexp(0, x) * (1 - t)) * (1 if w is None else w)
    return _reduced(losses.mean(-1), reduction, x.shape[0])


register(OpSpec("multilabel_soft_margin_loss", margin_loss.multilabel_soft_margin_loss, _multilabel,
                _pairs(lambda rng, shape: 2 * rng.standard_normal(shape)), gradients=(0,)))
register(OpSpec("binary_cross_entropy", probability_loss.binary_cross_entropy, _bce,
                _pairs(lambda rng, shape: rng.uniform(0.1, 0.9, shape)), gradients=(0,), gradient_tolerance=64))


def _kl(x, target, reduction, log_target):
    p = np.exp(target) if log_target else target
    losses = p * ((target if log_target else np.log(np.maximum(p, 1e-300))) - x)
    return losses.sum() / x.shape[0] if reduction == "batchmean" else _reduced(losses, reduction, x.size)


def _distributions(rng):
    for shape in ((3, 7), (2, 5, 6), (300, 70)):
        for k, reduction in enumerate(("mean", "batchmean", "sum", "none")):
            x = _log_softmax(rng.standard_normal(shape), -1)
            target = rng.uniform(0.05, 1, shape)  # so far from 0 that differences do not reach it
            yield Sample((x, np.log(target) if k % 2 else target), {"reduction": reduction, "log_target": bool(k % 2)})


register(OpSpec("kl_div", probability_loss.kl_div, _kl, lambda rng: list(_distributions(rng)), gradients=(0, 1),
                tolerance=16))


def _sigmoid_focal(x, t, alpha, gamma, reduction):
    p = _sigmoid(x)
    factor = alpha * t + (1 - alpha) * (1 - t) if alpha >= 0 else 1
    ce = np.logaddexp(0, -x) * t + np.logaddexp(0, x) * (1 - t)
    return _reduced(factor * ce * (p * (1 - t) + (1 - p) * t) ** gamma, reduction, x.size)


register(OpSpec("sigmoid_focal_loss", probability_loss.sigmoid_focal_loss, _sigmoid_focal,
                lambda rng: [Sample((s.inputs[0], np.round(s.inputs[1])), {**s.options, "alpha": alpha, "gamma": 1.5})
                             for alpha in (0.3, -1.0)
                             for s in _pairs(lambda r, shape: 2 * r.standard_normal(shape))(rng)],
                gradients=(0,), tolerance=16))


def _focal(x, target, weight, sample_weight, reduction, label_smoothing):
    axis = 0 if x.ndim == 1 else 1
    logp, kept = _log_softmax(x, axis), target != -100
    labels, w = np.where(kept, target, 0), np.ones(x.shape[axis]) if weight is None else weight
    picked = np.take_along_axis((1 - np.exp(logp)) ** 2 * logp, np.expand_dims(labels, axis), axis).squeeze(axis)
    return _reduced(-picked * w[labels] * kept, reduction, (w[labels] * kept).sum())


def _focal_loss(x, target, weight, sample_weight, reduction, label_smoothing):
    return probability_loss.focal_loss(x, target, 2.0, weight, -100, reduction)


register(OpSpec("focal_loss", _focal_loss, _focal,
                lambda rng: [case for shape in _SHAPES for case in _cases(rng, shape, False)], gradients=(0,),
                tolerance=16))
