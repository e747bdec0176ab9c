"""OpSpecs of fastnn/ops/loss.py."""

from __future__ import annotations

import numpy as np

from ..ops import loss
from .softmax_specs import _log_softmax
from .spec import OpSpec, Sample, register


def cross_entropy_reference(x, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0,
                            sample_weight=None):
    """The definition, written out."""
    axis = 0 if x.ndim == 1 else 1
    classes, logp = x.shape[axis], np.moveaxis(_log_softmax(x, axis), axis, -1)
    w = np.ones(classes) if weight is None else weight
    s = np.ones(logp.shape[:-1]) if sample_weight is None else sample_weight
    if target.dtype.kind == "f":
        q, divisor = np.moveaxis(target, axis, -1), s.sum()
    else:
        kept = target != ignore_index
        q = np.eye(classes)[np.where(kept, target, 0)]
        s = s * kept
        divisor = (s * w[np.where(kept, target, 0)]).sum()
    q = ((1 - label_smoothing) * q + label_smoothing / classes) * w
    losses = -(q * logp).sum(-1) * s
    return losses if reduction == "none" else losses.sum() if reduction == "sum" else losses.sum() / divisor


def _cases(rng, shape, probabilities):
    positions = shape[:1] + shape[2:] if len(shape) > 1 else ()
    classes = shape[1] if len(shape) > 1 else shape[0]
    for k, reduction in enumerate(("mean", "sum", "none", "mean")):
        x = 2 * rng.standard_normal(shape)
        if probabilities:
            target = rng.dirichlet(np.ones(classes), positions)
            target = np.ascontiguousarray(np.moveaxis(target, -1, int(len(shape) > 1)))
        else:
            target = np.asarray(rng.integers(0, classes, positions))
            if k == 3 and target.size > 1:
                target.flat[::3] = -100
        options = {"reduction": reduction, "label_smoothing": 0.1 * (k % 2)}
        wanted = (classes, k >= 2), (positions, k % 2)
        weight, sample_weight = (rng.uniform(0.5, 2, n) if given else None for n, given in wanted)
        yield Sample((x, target, weight, None if sample_weight is None else np.asarray(sample_weight)), options)


_SHAPES = ((7,), (5, 10), (3, 65), (2, 300), (2, 5, 7), (2, 19, 3, 4), (900, 10))


def _cross_entropy(x, target, weight, sample_weight, **options):
    return loss.cross_entropy(x, target, weight, sample_weight=sample_weight, **options)


def _benchmarks(rng):
    shapes = (64, 10), (200, 10), (4096, 1000)
    return [Sample((rng.standard_normal((n, c)), rng.integers(0, c, n), None, None)) for n, c in shapes]


register(OpSpec("cross_entropy", _cross_entropy,
                lambda x, t, w, s, **o: cross_entropy_reference(x, t, w, sample_weight=s, **o),
                lambda rng: [case for shape in _SHAPES for case in _cases(rng, shape, False)], gradients=(0,),
                bytes=lambda x, *rest, **o: 8 * int(np.prod(x)), benchmarks=_benchmarks))
register(OpSpec("cross_entropy_of_probabilities", _cross_entropy,
                lambda x, t, w, s, **o: cross_entropy_reference(x, t, w, sample_weight=s, **o),
                lambda rng: [case for shape in _SHAPES for case in _cases(rng, shape, True)], gradients=(0, 1),
                peer="cross_entropy"))


def _linear_cross_entropy_reference(x, linear_weight, linear_bias, target, weight, **options):
    shape, batch = linear_weight.shape[:-1], x.shape[:-1]
    logits = (x @ linear_weight.reshape(-1, x.shape[-1]).T).reshape(*batch, *shape)
    if linear_bias is not None:
        logits = logits + linear_bias.reshape(*linear_bias.shape, *[1] * (len(shape) - linear_bias.ndim))
    return cross_entropy_reference(logits, target, weight, **options)


def _linear_cross_entropy_samples(rng):
    sizes = ((), 6, (4,)), ((5,), 7, (6,)), ((40,), 33, (70,)), ((3,), 5, (4, 3)), ((2,), 4, (5, 2, 3))
    for k, (batch, e, shape) in enumerate(sizes):
        positions = *batch, *shape[1:]
        target = rng.integers(0, shape[0], positions)
        if k % 2 == 0:
            target = np.moveaxis(rng.dirichlet(np.ones(shape[0]), positions), -1, len(batch))
        bias = None if k == 0 else rng.standard_normal(shape[0] if k % 2 else shape)
        weight = rng.uniform(0.5, 2, shape[0]) if k % 2 else None
        options = {"reduction": ("mean", "sum", "none")[k % 3], "label_smoothing": 0.1 * (k % 2)}
        x, linear_weight = rng.standard_normal((*batch, e)), rng.standard_normal((*shape, e))
        yield Sample((x, linear_weight, bias, np.asarray(target), weight), options)


register(OpSpec("linear_cross_entropy",
                lambda x, w, b, t, classes, **o: loss.linear_cross_entropy(x, w, t, linear_bias=b, weight=classes, **o),
                _linear_cross_entropy_reference, lambda rng: list(_linear_cross_entropy_samples(rng)), gradients=(0, 1, 2)))


def _reduced(losses, reduction, divisor):
    return losses if reduction == "none" else losses.sum() / (divisor if reduction == "mean" else 1)


def _mse(x, target, weight, reduction):
    w = np.ones(x.shape) if weight is None else np.broadcast_to(weight, x.shape)
    return _reduced(w * (x - target) ** 2, reduction, w.sum())


def _bce(x, target, weight, pos_weight, reduction):
    w = 1 if weight is None else weight
    p = 1 if pos_weight is None else pos_weight
    return _reduced(w * (p * target * np.logaddexp(0, -x) + (1 - target) * np.logaddexp(0, x)), reduction, x.size)


def _pairs(rng, weights):
    for shape in ((5,), (3, 7), (2, 3, 4, 5), (300, 70)):
        for k, reduction in enumerate(("mean", "sum", "none")):
            given = [rng.uniform(0.5, 2, shape[-1:]) if k != 1 else None for _ in range(weights)]
            yield Sample((2 * rng.standard_normal(shape), rng.uniform(0, 1, shape), *given), {"reduction": reduction})


register(OpSpec("mse_loss", lambda x, t, w, reduction: loss.mse_loss(x, t, reduction, w), _mse,
                lambda rng: list(_pairs(rng, 1)), gradients=(0, 1), bytes=lambda x, *rest, **o: 8 * int(np.prod(x))))
register(OpSpec("binary_cross_entropy_with_logits",
                lambda x, t, w, p, reduction: loss.binary_cross_entropy_with_logits(x, t, w, reduction, p), _bce,
                lambda rng: list(_pairs(rng, 2)), gradients=(0,), bytes=lambda x, *rest, **o: 8 * int(np.prod(x))))


def _weighted(pointwise):
    def reference(x, target, weight, reduction, **options):
        w = np.ones(x.shape) if weight is None else np.broadcast_to(weight, x.shape)
        return _reduced(w * pointwise(x - target, **options), reduction, w.sum())
    return reference


def _kinked(**options):
    """Samples whose differences stay away from 0 and from 1, where these losses have kinks in value or slope."""
    def samples(rng):
        for sample in _pairs(rng, 1):
            x, target, weight = sample.inputs
            d = rng.choice([-1, 1], x.shape) * (rng.uniform(0.1, 0.8, x.shape) + rng.integers(0, 2, x.shape) * 1.1)
            yield Sample((target + d, target, weight), sample.options | options)
    return lambda rng: list(samples(rng))


def _huber(d, delta):
    return np.where(np.abs(d) <= delta, d * d / 2, delta * (np.abs(d) - delta / 2))


for _name, _pointwise, _options in (
        ("l1_loss", np.abs, {}), ("huber_loss", _huber, {"delta": 1.0}),
        ("smooth_l1_loss", lambda d, beta: _huber(d, beta) / beta, {"beta": 1.0}),
        ("quantile_loss", lambda d, quantile: np.maximum(-quantile * d, (1 - quantile) * d), {"quantile": 0.3})):
    register(OpSpec(_name, lambda x, t, w, _f=getattr(loss, _name), **o: _f(x, t, weight=w, **o), _weighted(_pointwise),
                    _kinked(**_options), gradients=(0, 1)))

register(OpSpec("poisson_nll_loss", lambda x, t, w, **o: loss.poisson_nll_loss(x, t, **o),
                lambda x, t, w, reduction: _reduced(np.exp(x) - t * x, reduction, x.size), lambda rng: list(_pairs(rng,
                        1)),
                gradients=(0,)))  # full=True: tests/interop/test_loss_torch.py and test_loss.py
register(OpSpec("gaussian_nll_loss", loss.gaussian_nll_loss,
                lambda x, t, v, full, reduction: _reduced((np.log(v * (2 * np.pi if full else 1)) + (x - t) ** 2 / v) / 2,
                                                          reduction, x.size),
                lambda rng: [Sample((x, t, rng.uniform(0.5, 2, x.shape[-1:])), o | {"full": x.shape[0] % 2 == 1})
                             for x, t, o in ((*s.inputs[:2], s.options) for s in _pairs(rng, 1))], gradients=(0, 1, 2)))


def _nll_reference(x, target, weight, sample_weight, reduction, label_smoothing):
    axis = 0 if x.ndim == 1 else 1
    kept, w = target != -100, np.ones(x.shape[axis]) if weight is None else weight
    labels = np.where(kept, target, 0)
    losses = -np.take_along_axis(x, np.expand_dims(labels, axis), axis).squeeze(axis) * w[labels] * kept
    return _reduced(losses, reduction, (w[labels] * kept).sum())


register(OpSpec("nll_loss", lambda x, t, w, s, reduction, label_smoothing: loss.nll_loss(x, t, w, reduction=reduction),
                _nll_reference,
                lambda rng: [case for shape in _SHAPES for case in _cases(rng, shape, False)], gradients=(0,),
                tolerance=16))  # sums of both signs
