"""OpSpecs of fastnn/ops/conv.py."""

from __future__ import annotations

import numpy as np

from ..ops.conv import conv2d
from .spec import OpSpec, Sample, register


def _two(value):
    return value if isinstance(value, tuple) else (value, value)


def _reference(x, weight, bias, stride=1, padding=0, dilation=1, groups=1):
    """Sum over the window's positions of products of whole maps."""
    (sh, sw), (dh, dw), (k, c, r, s) = _two(stride), _two(dilation), weight.shape
    if padding == "same":
        (top, bottom), (left, right) = (((n // 2), n - n // 2) for n in (dh * (r - 1), dw * (s - 1)))
    else:
        (top, left), (bottom, right) = _two(padding), _two(padding)
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    height, width = (x.shape[2] - dh * (r - 1) - 1) // sh + 1, (x.shape[3] - dw * (s - 1) - 1) // sw + 1
    y = np.zeros((x.shape[0], k, height, width))
    for g in range(groups):
        inputs, outputs = slice(g * c, (g + 1) * c), slice(g * (k // groups), (g + 1) * (k // groups))
        for i in range(r):
            for j in range(s):
                window = x[:, inputs, i * dh:i * dh + sh * (height - 1) + 1:sh, j * dw:j * dw + sw * (width - 1) + 1:sw]
                y[:, outputs] += np.einsum("nchw,kc->nkhw", window, weight[outputs, :, i, j])
    return y if bias is None else y + bias[:, None, None]


def _sample(rng, n, c, h, w, k, r, s, bias=True, **options):
    weight = rng.standard_normal((k, c // options.get("groups", 1), r, s))
    return Sample((rng.standard_normal((n, c, h, w)), weight, rng.standard_normal(k) if bias else None), options)


def _samples(rng):
    return [
        _sample(rng, 2, 3, 9, 8, 5, 3, 3, padding=1),
        _sample(rng, 1, 1, 7, 7, 6, 5, 5, padding=2),
        _sample(rng, 2, 20, 6, 7, 33, 1, 1, bias=False),
        _sample(rng, 2, 17, 9, 11, 16, 3, 2, stride=(2, 1), padding=(1, 0)),
        _sample(rng, 2, 8, 9, 9, 12, 3, 3, stride=2, padding=1, dilation=2, groups=4),
        _sample(rng, 3, 6, 5, 5, 6, 3, 3, padding="same", groups=6),
        _sample(rng, 2, 12, 6, 5, 12, 3, 3, padding=1, groups=6), _sample(rng, 2, 16, 7, 6, 16, 3, 2, stride=2, groups=4),
        _sample(rng, 2, 6, 6, 5, 12, 3, 2, padding=1, groups=6), _sample(rng, 1, 4, 1, 1, 3, 1, 1, stride=3),
        _sample(rng, 0, 4, 5, 5, 3, 3, 3),
        _sample(rng, 4, 32, 14, 14, 48, 3, 3, padding=1),
    ]


def _flops(x, w, b, **options):
    return 2 * w[1] * w[2] * w[3] * int(np.prod(_reference(np.empty((1, w[1], *x[2:])), np.empty((1, *w[1:])), None, **{
        k: v for k, v in options.items() if k != "groups"}).shape[2:])) * x[0] * w[0]


register(OpSpec("conv2d", conv2d, _reference, _samples, gradients=(0, 1, 2), tolerance=16.0, gradient_tolerance=64.0,
                flops=_flops))
