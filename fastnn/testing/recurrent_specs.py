"""OpSpecs of fastnn/ops/recurrent.py."""

from __future__ import annotations

import numpy as np

from ..ops import recurrent
from .spec import OpSpec, Sample, register


def _sigmoid(v):
    return 1 / (1 + np.exp(-v))


def _plain(x, pre, h, c):
    return np.tanh(x + pre), c


def _rectified(x, pre, h, c):
    return np.maximum(x + pre, 0), c


def _lstm(x, pre, h, c):
    i, f, g, o = np.split(x + pre, 4, -1)
    c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
    return _sigmoid(o) * np.tanh(c), c


def _gru(x, pre, h, c):
    (xr, xz, xn), (r, z, n) = np.split(x, 3, -1), np.split(pre, 3, -1)
    z = _sigmoid(xz + z)
    return (1 - z) * np.tanh(xn + _sigmoid(xr + r) * n) + z * h, c


def _loop(step, x, h, c, w_ih, w_hh, b_ih, b_hh, lengths=None, reverse=False, batch_first=False):
    """Sequence by sequence, step by step."""
    x = x.transpose(1, 0, 2) if batch_first else x
    steps, batch = x.shape[:2]
    h, c = (np.zeros((batch, w_hh.shape[1])) if t is None else t.copy() for t in (h, c))
    y = np.zeros((steps, batch, w_hh.shape[1]))
    for n in range(batch):
        order = list(range(steps if lengths is None else lengths[n]))
        for t in reversed(order) if reverse else order:
            share = w_ih @ x[t, n] + (0 if b_ih is None else b_ih)
            h[n], c[n] = step(share, w_hh @ h[n] + (0 if b_hh is None else b_hh), h[n], c[n])
            y[t, n] = h[n]
    return y.transpose(1, 0, 2) if batch_first else y, h, c


def _reference(step, states):
    def reference(x, *rest, nonlinearity="tanh", **options):
        state, weights = (*rest[:states], None)[:2], rest[states:]
        return _loop(_rectified if nonlinearity == "relu" else step, x, *state, *weights, **options)[:1 + states]

    return reference


def _sample(rng, gates, states, steps, batch, inputs, units, bias=True, first=True, **options):
    x = rng.standard_normal((batch, steps, inputs) if options.get("batch_first") else (steps, batch, inputs))
    state = [rng.standard_normal((batch, units)) if first else None for _ in range(states)]
    weights = [rng.standard_normal((gates * units, n)) / np.sqrt(n) for n in (inputs, units)]
    biases = [0.3 * rng.standard_normal(gates * units) if bias else None for _ in range(2)]
    return Sample((x, *state, *weights, *biases), options)


def _samples(gates, states):
    def samples(rng):
        lengths = np.array([3, 0, 5, 1])
        return [
            _sample(rng, gates, states, 5, 4, 3, 7),
            _sample(rng, gates, states, 3, 2, 4, 33, bias=False, first=False, batch_first=True),
            _sample(rng, gates, states, 5, 4, 3, 7, lengths=lengths),
            _sample(rng, gates, states, 5, 4, 3, 6, lengths=lengths, reverse=True, batch_first=True),
            _sample(rng, gates, states, 4, 40, 3, 5, reverse=True),
            _sample(rng, gates, states, 1, 1, 1, 1),
        ]

    return samples


def _flops(gates):
    return lambda x, *rest, **options: 2 * x[0] * x[1] * gates * rest[-3][1] * (x[2] + rest[-3][1])


def _plain_samples(rng):
    rectified = _sample(rng, 1, 1, 4, 3, 2, 20, nonlinearity="relu")
    inputs = [np.abs(v) for v in rectified.inputs]
    inputs[4] += np.where(np.arange(20) % 2, 0.5, -200)  # units far on either side of the kink
    return [*_samples(1, 1)(rng), Sample(tuple(inputs), rectified.options)]


register(OpSpec("rnn", recurrent.rnn, _reference(_plain, 1), _plain_samples, gradients=(0, 1, 2, 3, 4, 5),
                tolerance=16.0, flops=_flops(1)))
register(OpSpec("lstm", recurrent.lstm, _reference(_lstm, 2), _samples(4, 2), gradients=(0, 1, 2, 3, 4, 5, 6),
                tolerance=16.0,
                flops=_flops(4), peer="none", benchmarks=lambda rng: [_sample(rng, 4, 2, 50, 64, 256, 256)]))
register(OpSpec("gru", recurrent.gru, _reference(_gru, 1), _samples(3, 1), gradients=(0, 1, 2, 3, 4, 5), tolerance=16.0,
                flops=_flops(3)))


# ---- projected hidden states ----


def _projected(x, h, c, *weights, weight_hr=None, **options):
    """The reference's loop over states (projected h, c): each step's h is multiplied before the next sees it."""
    def step(share, pre, h, c):
        r, c = _lstm(share, pre, h, c)
        return weight_hr @ r, c

    steps = x.shape[1 if options.get("batch_first") else 0]
    units, batch = weight_hr.shape[1], x.shape[0 if options.get("batch_first") else 1]
    return _loop(step, x, h, np.zeros((batch, units)) if c is None else c, *weights, **options) if steps else None


def _projected_samples(rng):
    for sample in _samples(4, 2)(rng)[:5]:
        x, h, c, w_ih, w_hh, *biases = sample.inputs
        units, width = w_hh.shape[1], 1 + w_hh.shape[1] // 2
        w_hr = rng.standard_normal((width, units)) / np.sqrt(units)
        yield Sample((x, None if h is None else h[:, :width], c, w_ih, w_hh[:, :width], *biases, w_hr), sample.options)


register(OpSpec("lstm_projected", lambda *t, **options: recurrent.lstm(*t[:-1], weight_hr=t[-1], **options),
                lambda *t, **options: _projected(*t[:-1], weight_hr=t[-1], **options), lambda rng: list(_projected_samples(rng)),
                gradients=(0, 1, 2, 3, 4, 5, 6, 7), tolerance=16.0, peer="none"))
