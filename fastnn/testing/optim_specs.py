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


_T = np.arange(1, int(_STEP) + 1)
_PLAIN = ({"weight_decay": 0.0, "maximize": 0}, {"weight_decay": 0.1, "maximize": 1})


def _with_state(name, tensors, scalars=(_LR,)):
    """The op on a parameter, a gradient and state, all of which but the gradient it writes."""
    written = (0, *range(2, tensors))
    return lambda *arrays, **options: _update(getattr(launch, name), arrays, scalars, written, options)


def _adagrad_reference(p, g, s, lr_decay, eps, **options):
    p, g = _decayed(p, g, decoupled=0, **options)
    s = s + g * g
    return p - _LR / (1 + (_STEP - 1) * lr_decay) * g / (np.sqrt(s) + eps), s


def _rmsprop_reference(centered):
    def reference(p, g, s, *buffers, alpha, eps, momentum=0.0, **options):
        p, g = _decayed(p, g, decoupled=0, **options)
        s = alpha * s + (1 - alpha) * g * g
        a = alpha * buffers[0] + (1 - alpha) * g if centered else 0
        d = g / (np.sqrt(s - a * a) + eps)
        if momentum:
            d = momentum * buffers[-1] + d
        return (p - _LR * d, s, *[a] * centered, *[d] * bool(momentum))
    return reference


def _adadelta_reference(p, g, s, u, rho, eps, **options):
    p, g = _decayed(p, g, decoupled=0, **options)
    s = rho * s + (1 - rho) * g * g
    d = np.sqrt(u + eps) / np.sqrt(s + eps) * g
    return p - _LR * d, s, rho * u + (1 - rho) * d * d


def _momentum_of_step(t, beta1=0.9, decay=0.004):
    return beta1 * (1 - 0.5 * 0.96 ** (t * decay))


_PRODUCT = float(np.prod(_momentum_of_step(_T)))


def _moments(g, m, v, beta1, beta2):
    return beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g


def _nadam_reference(p, g, m, v, beta1, beta2, eps, momentum_decay, **options):
    p, g = _decayed(p, g, **options)
    m, v = _moments(g, m, v, beta1, beta2)
    mu, following = _momentum_of_step(_STEP), _momentum_of_step(_STEP + 1)
    direction = (1 - mu) / (1 - _PRODUCT) * g + following / (1 - _PRODUCT * following) * m
    return p - _LR * direction / (np.sqrt(v / (1 - beta2 ** _STEP)) + eps), m, v


def _radam_reference(p, g, m, v, beta1, beta2, eps, **options):
    p, g = _decayed(p, g, **options)
    m, v = _moments(g, m, v, beta1, beta2)
    most, left = 2 / (1 - beta2) - 1, beta2 ** _STEP
    r, move = most - 2 * _STEP * left / (1 - left), m / (1 - beta1 ** _STEP)
    if r > 5:
        rectified = np.sqrt((r - 4) * (r - 2) * most / ((most - 4) * (most - 2) * r))
        move = move * rectified * np.sqrt(1 - left) / (np.sqrt(v) + eps)
    return p - _LR * move, m, v


def _lion_reference(p, g, m, beta1, beta2, weight_decay, maximize):
    p, g = _decayed(p, g, weight_decay, 1, maximize)
    return p - _LR * np.sign(beta1 * m + (1 - beta1) * g), beta2 * m + (1 - beta2) * g


def _proximal_reference(p, strength, shrink):
    return (np.sign(p) * np.maximum(np.abs(p) - _LR * strength, 0) / (1 + _LR * shrink),)


def _ema_reference(y, x, limit, warmup):
    decay = min(limit, (1 + _STEP) / (10 + _STEP)) if warmup else limit
    return (decay * y + (1 - decay) * x,)


def _running(running, x, **options):
    return _update(launch.running_update, (running, x), (0.1,), (0,), options)


def _register(name, function, reference, operands, options, passes, positive=(), small=()):
    """An update of `operands` arrays of one shape; `passes`: over how many arrays of float32 it has to go."""

    def draw(rng, shape):
        return tuple(rng.uniform(0.1, 1, shape) if k in positive
                     else (0.05 if k in small else 1) * rng.standard_normal(shape) for k in range(operands))

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
_register("adagrad_step", _with_state("adagrad_step", 3, (_LR, _STEP)), _adagrad_reference, 3,
          [{"lr_decay": 0.1, "eps": 1e-3, **rule} for rule in _PLAIN], 5, (2,))
for _centered, _names in ((False, ("rmsprop_step", "rmsprop_momentum_step")),
                          (True, ("rmsprop_centered_step", "rmsprop_centered_momentum_step"))):
    for _name, _more in zip(_names, ({}, {"momentum": 0.8})):
        _count = 3 + _centered + bool(_more)
        # positive squares and no gradient mean: the variance stays above 0
        _register(_name, _with_state(_name, _count), _rmsprop_reference(_centered), _count,
                  [{"alpha": 0.9, "eps": 1e-1, **_more, **rule} for rule in _PLAIN], 2 * _count - 1, (2,),
                  small=(1, 3) if _centered else ())
_register("adadelta_step", _with_state("adadelta_step", 4), _adadelta_reference, 4,
          [{"rho": 0.9, "eps": 1e-2, **rule} for rule in _PLAIN], 7, (2, 3))
_register("nadam_step", _with_state("nadam_step", 4, (_LR, _STEP, _PRODUCT)), _nadam_reference, 4,
          [{"beta1": 0.9, "beta2": 0.99, "eps": 1e-3, "momentum_decay": 0.004, **decay} for decay in _DECAYS], 7, (3,))
_register("nadam_product", lambda product, **options: _update(launch.nadam_product, (product,), (_STEP,), (0,),
                                                              options),
          lambda product, beta1, decay: (product * _momentum_of_step(_STEP, beta1, decay),), 1,
          [{"beta1": 0.9, "decay": 0.1}, {"beta1": 0.5, "decay": 0.004}], 2)
_register("radam_step", _with_state("radam_step", 4, (_LR, _STEP)), _radam_reference, 4,
          [{"beta1": 0.9, "beta2": beta2, "eps": 1e-3, **decay} for decay, beta2 in zip(_DECAYS, (0.99, 0.5, 0.999))]
          + [{"beta1": 0.9, "beta2": 0.7, "eps": 1e-3, **_DECAYS[0]}], 7, (3,))
_register("lion_step", _with_state("lion_step", 3), _lion_reference, 3,
          [{"beta1": 0.9, "beta2": 0.99, **rule} for rule in _PLAIN], 5)
_register("proximal_step", lambda p, **options: _update(launch.proximal_step, (p,), (_LR,), (0,), options),
          _proximal_reference, 1, [{"strength": 5.0, "shrink": 0.0}, {"strength": 2.0, "shrink": 3.0}], 2)
_register("penalty_gradient", lambda g, w, **options: _update(launch.penalty_gradient, (g, w), (), (0,), options),
          lambda g, w, l1, l2: (g + l1 * np.sign(w) + l2 * w,), 2, [{"l1": 0.3, "l2": 0.0}, {"l1": 0.3, "l2": 0.7}], 3)
_register("ema_update", lambda y, x, **options: _update(launch.ema_update, (y, x), (_STEP,), (0,), options),
          _ema_reference, 2,
          [{"limit": 0.99, "warmup": 0}, {"limit": 0.99, "warmup": 1}, {"limit": 0.1, "warmup": 1}], 3)
_register("running_update", _running, lambda running, x, scale: (0.9 * running + 0.1 * scale * x,), 2,
          [{"scale": 1.5}], 3)
