"""OpSpecs of the updates that fastnn/optim makes: one step, from parameters, gradients and state to new ones."""

from __future__ import annotations

import numpy as np

from .._core import launch, scalar
from ..ops.create import float64
from .spec import OpSpec, Sample, register

_LR, _STEP = 0.05, 3.0
_DECAYS = ({"weight_decay": 0.0, "decoupled": 0, "maximize": 0}, {"weight_decay": 0.1, "decoupled": 0, "maximize": 1},
           {"weight_decay": 0.1, "decoupled": 1, "maximize": 0})


def _update(op, tensors, scalars, written, options):
    """The op on copies of its tensors; returns those it wrote."""
    copies = [t.clone() for t in tensors]
    outputs = tuple(copies[k] for k in written)
    op(*copies, *(scalar(s, float64) for s in scalars), out=outputs if len(outputs) > 1 else outputs[0], **options)
    return outputs


def _decayed(p, g, weight_decay, decoupled, maximize):
    g = -g if maximize else g
    return (p * (1 - _LR * weight_decay), g) if decoupled else (p, g + weight_decay * p)


def _sgd(p, g, **options):
    return _update(launch.sgd_step, (p, g), (_LR,), (0,), options)


def _sgd_reference(p, g, **options):
    p, g = _decayed(p, g, **options)
    return (p - _LR * g,)


def _momentum(p, g, m, **options):
    return _update(launch.sgd_momentum_step, (p, g, m), (_LR,), (0, 2), options)


def _momentum_reference(p, g, m, momentum, dampening, nesterov, first, **options):
    p, g = _decayed(p, g, **options)
    m = g if first else momentum * m + (1 - dampening) * g
    return p - _LR * (g + momentum * m if nesterov else m), m


def _adam(p, g, m, v, **options):
    return _update(launch.adam_step, (p, g, m, v), (_LR, _STEP), (0, 2, 3), options)


def _adam_reference(p, g, m, v, beta1, beta2, eps, **options):
    p, g = _decayed(p, g, **options)
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    root = np.sqrt(v / (1 - beta2 ** _STEP))
    return p - _LR * m / (1 - beta1 ** _STEP) / (root + eps), m, v


def _running(running, x, **options):
    return _update(launch.running_update, (running, x), (0.1,), (0,), options)


def _register(name, function, reference, operands, options, passes, positive=()):
    """An update of `operands` arrays of one shape; `passes`: over how many arrays of float32 it has to go."""

    def draw(rng, shape):
        return tuple(rng.uniform(0.1, 1, shape) if k in positive else rng.standard_normal(shape)
                     for k in range(operands))

    register(OpSpec(name, function, reference,
                    lambda rng: [Sample(draw(rng, s), o) for s in ((37,), (0, 3), (2, 3, 5, 4), (9, 4000))
                                                            for o in options],
                    elementwise=True, tolerance=2, bytes=lambda shape, *_: 4 * passes * int(np.prod(shape)),
                    benchmarks=lambda rng: [Sample(draw(rng, (1024, 1024)), options[0])]))


_register("sgd_step", _sgd, _sgd_reference, 2, _DECAYS, 3)
_register("sgd_momentum_step", _momentum, _momentum_reference, 3,
          [{"momentum": 0.9, "dampening": d, "nesterov": n, "first": f, **decay}
           for decay, d, n, f in zip(_DECAYS, (0.0, 0.3, 0.0), (0, 0, 1), (0, 0, 1))], 5)
_register("adam_step", _adam, _adam_reference, 4,
          [{"beta1": 0.9, "beta2": 0.99, "eps": 1e-3, **decay} for decay in _DECAYS], 7, (3,))
_register("running_update", _running, lambda running, x, scale: (0.9 * running + 0.1 * scale * x,), 2,
          [{"scale": 1.5}], 3)
