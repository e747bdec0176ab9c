"""OpSpecs of the updates that fastnn/optim makes: one step, from parameters, gradients and state to new ones."""

from __future__ import annotations

import numpy as np

from .._core import launch, scalar
from ..ops.create import float64
from .spec import OpSpec, Sample, register

_LR, _STEP, _MOMENTUM = 0.05, 3.0, 0.9  # what launches read from memory; _MOMENTUM is also the first of the betas
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
    return _update(launch.sgd_momentum_step, (p, g, m), (_LR, _MOMENTUM), (0, 2), options)


def _momentum_reference(p, g, m, dampening, nesterov, first, **options):
    p, g = _decayed(p, g, **options)
    m = g if first else _MOMENTUM * m + (1 - dampening) * g
    return p - _LR * (g + _MOMENTUM * m if nesterov else m), m


def _asgd(p, g, ax, mu, **options):
    return _update(launch.asgd_step, (p, g, ax), (_LR, mu), (0, 2), options)


def _asgd_reference(p, g, ax, mu, lambd, **options):
    _, g = _decayed(p, g, decoupled=0, **options)
    p = (1 - lambd * _LR) * p - _LR * g
    return p, p if mu == 1 else ax + mu * (p - ax)


def _rates_reference(eta, mu, lambd, alpha, t0):
    return (np.full_like(eta, _LR / (1 + lambd * _LR * _STEP) ** alpha),
            np.full_like(mu, 1 / max(1, _STEP - t0)))


def _rprop(p, g, last, size, step, **options):
    return _update(launch.rprop_step, (p, g, last, size), (_LR, step), (0, 2, 3), options)


def _rprop_reference(p, g, last, size, step, eta_minus, eta_plus, least, most, maximize):
    g = -g if maximize else g
    turn = np.sign(g * last)
    factor = np.where(turn < 0, eta_minus, np.where(turn > 0, eta_plus, 1.0))
    size = np.clip((np.full_like(size, _LR) if step == 1 else size) * factor, least, most)
    g = np.where(turn < 0, 0.0, g)
    return p - np.sign(g) * size, g, size


def _moments(g, m, v, beta2):
    return _MOMENTUM * m + (1 - _MOMENTUM) * g, beta2 * v + (1 - beta2) * g * g


def _adam_reference(p, g, m, v, *largest, beta2, eps, epsilon_hat, **options):
    p, g = _decayed(p, g, **options)
    m, v = _moments(g, m, v, beta2)
    largest = [np.maximum(x, v) for x in largest]
    correction = np.sqrt(1 - beta2 ** _STEP)
    root = np.sqrt((largest or [v])[0]) / correction
    return (p - _LR * m / (1 - _MOMENTUM ** _STEP) / (root + (eps / correction if epsilon_hat else eps)), m, v, *largest)


def _adamax_reference(p, g, m, u, beta2, eps, **options):
    p, g = _decayed(p, g, decoupled=0, **options)
    m, u = _MOMENTUM * m + (1 - _MOMENTUM) * g, np.maximum(beta2 * u, np.abs(g) + eps)
    return p - _LR / (1 - _MOMENTUM ** _STEP) * m / u, m, u


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


def _rmsprop_reference(centered, momentum):
    def reference(p, g, s, *buffers, alpha, eps, **options):
        p, g = _decayed(p, g, decoupled=0, **options)
        s = alpha * s + (1 - alpha) * g * g
        a = alpha * buffers[0] + (1 - alpha) * g if centered else 0
        d = g / (np.sqrt(s - a * a) + eps)
        if momentum:
            d = _MOMENTUM * buffers[-1] + d
        return (p - _LR * d, s, *[a] * centered, *[d] * momentum)
    return reference


def _adadelta_reference(p, g, s, u, rho, eps, **options):
    p, g = _decayed(p, g, decoupled=0, **options)
    s = rho * s + (1 - rho) * g * g
    d = np.sqrt(u + eps) / np.sqrt(s + eps) * g
    return p - _LR * d, s, rho * u + (1 - rho) * d * d


def _momentum_of_step(t, decay=0.004):
    return _MOMENTUM * (1 - 0.5 * 0.96 ** (t * decay))


_PRODUCT = float(np.prod(_momentum_of_step(_T)))


def _nadam_reference(p, g, m, v, beta2, eps, momentum_decay, **options):
    p, g = _decayed(p, g, **options)
    m, v = _moments(g, m, v, beta2)
    mu, following = _momentum_of_step(_STEP), _momentum_of_step(_STEP + 1)
    direction = (1 - mu) / (1 - _PRODUCT) * g + following / (1 - _PRODUCT * following) * m
    return p - _LR * direction / (np.sqrt(v / (1 - beta2 ** _STEP)) + eps), m, v


def _radam_reference(p, g, m, v, beta2, eps, **options):
    p, g = _decayed(p, g, **options)
    m, v = _moments(g, m, v, beta2)
    most, left = 2 / (1 - beta2) - 1, beta2 ** _STEP
    r, move = most - 2 * _STEP * left / (1 - left), m / (1 - _MOMENTUM ** _STEP)
    if r > 5:
        rectified = np.sqrt((r - 4) * (r - 2) * most / ((most - 4) * (most - 2) * r))
        move = move * rectified * np.sqrt(1 - left) / (np.sqrt(v) + eps)
    return p - _LR * move, m, v


def _lion_reference(p, g, m, beta2, weight_decay, maximize):
    p, g = _decayed(p, g, weight_decay, 1, maximize)
    return p - _LR * np.sign(_MOMENTUM * m + (1 - _MOMENTUM) * g), beta2 * m + (1 - beta2) * g


_PP, _UU = 30.0, 90.0  # sums of squares


def _factored_reference(g, row, column, mean, eps):
    return (g / np.sqrt(np.maximum(row * column / np.maximum(mean, eps), eps * eps)),)


def _adafactor_reference(p, u, size, least, d, weight_decay, maximize):
    alpha = max(least, np.sqrt(_PP / size)) * min(_LR, 1 / np.sqrt(_STEP))
    step = alpha / max(1, np.sqrt(_UU / size) / d) * u
    return (p * (1 - _LR * weight_decay) + (step if maximize else -step),)


def _muon_momentum(m, g, **options):
    m = m.clone()
    u = m.clone()
    launch.muon_momentum(m, g, scalar(_MOMENTUM, float64), out=(m, u), **options)
    return m, u


def _muon_momentum_reference(m, g, nesterov):
    m = _MOMENTUM * m + (1 - _MOMENTUM) * g
    return m, g + _MOMENTUM * (m - g) if nesterov else m


def _proximal_reference(p, strength, shrink):
    return (np.sign(p) * np.maximum(np.abs(p) - _LR * strength, 0) / (1 + _LR * shrink),)


def _ema_reference(y, x, limit, ramp):
    decay = min(limit, (1, (1 + _STEP) / (10 + _STEP), _STEP / (_STEP + 1), 1)[ramp])
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
                    elementwise=True, tolerance=2, bytes=lambda shape, *_, **__: 4 * passes * int(np.prod(shape)),
                    benchmarks=lambda rng: [Sample(draw(rng, (1024, 1024)), options[0])]))


_register("sgd_step", _sgd, _sgd_reference, 2, _DECAYS, 3)
_register("sgd_momentum_step", _momentum, _momentum_reference, 3,
          [{"dampening": d, "nesterov": n, "first": f, **decay}
           for decay, d, n, f in zip(_DECAYS, (0.0, 0.3, 0.0), (0, 0, 1), (0, 0, 1))], 5)
_register("asgd_step", _asgd, _asgd_reference, 3,
          [{"mu": mu, "lambd": 0.3, **rule} for mu in (1.0, 0.25) for rule in _PLAIN], 5)
_register("asgd_rates", lambda *rates, **options: _update(launch.asgd_rates, rates, (_LR, _STEP), (0, 1), options),
          _rates_reference, 2, [{"lambd": 0.5, "alpha": 0.75, "t0": t0} for t0 in (0.0, 10.0)], 2)
_register("rprop_step", _rprop, _rprop_reference, 4,
          [{"step": step, "eta_minus": 0.5, "eta_plus": 1.2, "least": 0.2, "most": 1.0, "maximize": step == 2}
           for step in (1.0, 2.0, 3.0)], 7, (3,))
_ADAM = [{"beta2": 0.99, "eps": 1e-3, **decay} for decay in _DECAYS]
_BETAS = (_LR, _MOMENTUM, _STEP)
_ADAM_HAT = [{"epsilon_hat": k % 2, **options} for k, options in enumerate([*_ADAM, _ADAM[0]])]
_register("adam_step", _with_state("adam_step", 4, _BETAS), _adam_reference, 4, _ADAM_HAT, 7, (3,))
_register("adam_amsgrad_step", _with_state("adam_amsgrad_step", 5, _BETAS), _adam_reference, 5, _ADAM_HAT, 9, (3, 4))
_register("adamax_step", _with_state("adamax_step", 4, _BETAS), _adamax_reference, 4,
          [{"beta2": 0.9, "eps": 1e-2, **rule} for rule in _PLAIN], 7, (3,))
_register("adagrad_step", _with_state("adagrad_step", 3, (_LR, _STEP)), _adagrad_reference, 3,
          [{"lr_decay": 0.1, "eps": 1e-3, **rule} for rule in _PLAIN], 5, (2,))
for _centered, _names in ((False, ("rmsprop_step", "rmsprop_momentum_step")),
                          (True, ("rmsprop_centered_step", "rmsprop_centered_momentum_step"))):
    for _name, _moves in zip(_names, (False, True)):
        _count = 3 + _centered + _moves
        # positive squares and no gradient mean: the variance stays above 0
        _register(_name, _with_state(_name, _count, (_LR, *[_MOMENTUM] * _moves)),
                  _rmsprop_reference(_centered, _moves), _count,
                  [{"alpha": 0.9, "eps": 1e-1, **rule} for rule in _PLAIN], 2 * _count - 1, (2,),
                  small=(1, 3) if _centered else ())
_register("adadelta_step", _with_state("adadelta_step", 4), _adadelta_reference, 4,
          [{"rho": 0.9, "eps": 1e-2, **rule} for rule in _PLAIN], 7, (2, 3))
_register("nadam_step", _with_state("nadam_step", 4, (*_BETAS, _PRODUCT)), _nadam_reference, 4,
          [{"momentum_decay": 0.004, **options} for options in _ADAM], 7, (3,))
_register("nadam_product", lambda product, **options: _update(launch.nadam_product, (product,), (_STEP, _MOMENTUM), (0,),
                                                              options),
          lambda product, decay: (product * _momentum_of_step(_STEP, decay),), 1, [{"decay": 0.1}, {"decay": 0.004}], 2)
_register("radam_step", _with_state("radam_step", 4, _BETAS), _radam_reference, 4,
          [{"beta2": beta2, "eps": 1e-3, **decay} for decay, beta2 in zip(_DECAYS, (0.99, 0.5, 0.999))]
          + [{"beta2": 0.7, "eps": 1e-3, **_DECAYS[0]}], 7, (3,))
_register("lion_step", _with_state("lion_step", 3, (_LR, _MOMENTUM)), _lion_reference, 3,
          [{"beta2": 0.99, **rule} for rule in _PLAIN], 5)
_register("adafactor_average",
          lambda y, x, **options: _update(launch.adafactor_average, (y, x), (_STEP,), (0,), options),
          lambda y, x, power: (y + _STEP ** power * (x - y),), 2, [{"power": -0.8}, {"power": 0.0}], 3)
_register("adafactor_scale", lambda g, v, **options: launch.adafactor_scale(g, v, **options),
          lambda g, v, eps: (g / np.sqrt(np.maximum(v, eps * eps)),), 2,
          [{"eps": 0.7}, {"eps": 1e-3}], 3, (1,))
_register("adafactor_factored_scale",
          lambda *tensors, **options: launch.adafactor_factored_scale(*tensors, **options), _factored_reference, 4,
          [{"eps": 0.7}, {"eps": 1e-3}], 5, (1, 2, 3))
_register("adafactor_step",
          lambda p, u, **options: _update(launch.adafactor_step, (p, u), (_PP, _UU, _LR, _STEP), (0,), options),
          _adafactor_reference, 2,
          [{"size": 50.0, "least": 1e-3, "d": 1.0, "weight_decay": 0.0, "maximize": 0},
           {"size": 100.0, "least": 2.0, "d": 1.5, "weight_decay": 0.1, "maximize": 1}], 3)
_register("muon_momentum", _muon_momentum, _muon_momentum_reference, 2, [{"nesterov": 0}, {"nesterov": 1}], 4)
_register("muon_combine", lambda a, b, **options: launch.muon_combine(a, b, **options),
          lambda a, b, alpha, beta: (alpha * a + beta * b,), 2,
          [{"alpha": 1.5, "beta": 1.0}, {"alpha": -4.7, "beta": 2.0}], 3)
_register("muon_step", lambda p, u, **options: _update(launch.muon_step, (p, u), (_LR,), (0,), options),
          lambda p, u, scale, weight_decay: (p * (1 - _LR * weight_decay) - _LR * scale * u,), 2,
          [{"scale": 1.0, "weight_decay": 0.0}, {"scale": 0.3, "weight_decay": 0.1}], 3)
_register("proximal_step", lambda p, **options: _update(launch.proximal_step, (p,), (_LR,), (0,), options),
          _proximal_reference, 1, [{"strength": 5.0, "shrink": 0.0}, {"strength": 2.0, "shrink": 3.0}], 2)
_register("penalty_gradient", lambda g, w, **options: _update(launch.penalty_gradient, (g, w), (), (0,), options),
          lambda g, w, l1, l2: (g + l1 * np.sign(w) + l2 * w,), 2, [{"l1": 0.3, "l2": 0.0}, {"l1": 0.3, "l2": 0.7}], 3)
_register("ema_update", lambda y, x, **options: _update(launch.ema_update, (y, x), (_STEP,), (0,), options),
          _ema_reference, 2,
          [{"limit": 0.99, "ramp": 0}, {"limit": 0.99, "ramp": 1}, {"limit": 0.1, "ramp": 1}, {"limit": 1.0, "ramp": 2},
           {"limit": 0.9, "ramp": 3}, {"limit": 0.0, "ramp": 0}], 3)
_register("running_update", _running, lambda running, x, scale: (0.9 * running + 0.1 * scale * x,), 2,
          [{"scale": 1.5}], 3)
