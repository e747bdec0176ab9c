"""OpSpecs of fastnn/ops/conv_transpose.py, window.py and of one-dimensional convolution."""

from __future__ import annotations

import numpy as np

from ..ops import conv, conv_transpose, window
from .conv_specs import _reference as _conv2d
from .conv_specs import _two
from .spec import OpSpec, Sample, register


def _transposed(x, weight, bias, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """Every element of x adds its filter to the result; then the edges are cut."""
    (sh, sw), (ph, pw), (eh, ew), (dh, dw) = map(_two, (stride, padding, output_padding, dilation))
    (n, c, h, w), (_, k, r, s) = x.shape, weight.shape
    y = np.zeros((n, k * groups, (h - 1) * sh + dh * (r - 1) + eh + 1, (w - 1) * sw + dw * (s - 1) + ew + 1))
    each = c // groups
    for g in range(groups):
        inputs, outputs = slice(g * each, (g + 1) * each), slice(g * k, (g + 1) * k)
        for i in range(r):
            for j in range(s):
                part = np.einsum("nchw,ck->nkhw", x[:, inputs], weight[inputs, :, i, j])
                y[:, outputs, i * dh:i * dh + sh * (h - 1) + 1:sh, j * dw:j * dw + sw * (w - 1) + 1:sw] += part
    y = y[:, :, ph:y.shape[2] - ph, pw:y.shape[3] - pw]
    return y if bias is None else y + bias[:, None, None]


def _sample(rng, n, c, h, w, k, r, s, bias=True, **options):
    groups = options.get("groups", 1)
    weight = rng.standard_normal((c, k // groups, r, s))
    return Sample((rng.standard_normal((n, c, h, w)), weight, rng.standard_normal(k) if bias else None), options)


def _samples(rng):
    return [
        _sample(rng, 2, 3, 5, 4, 5, 3, 3, stride=2, padding=1, output_padding=1),
        _sample(rng, 2, 20, 6, 7, 33, 4, 4, stride=2, padding=1),
        _sample(rng, 1, 1, 3, 3, 1, 2, 3, bias=False),
        _sample(rng, 2, 8, 4, 5, 12, 3, 2, stride=(1, 3), dilation=(2, 1), groups=4, output_padding=(1, 2)),
        _sample(rng, 1, 2, 3, 3, 2, 2, 2, dilation=3, output_padding=2, groups=2),
        _sample(rng, 0, 4, 5, 5, 3, 3, 3),
    ]


def _flops(x, w, b, **options):
    return 2 * int(np.prod(x)) * int(np.prod(w[1:]))


register(OpSpec("conv_transpose2d", conv_transpose.conv_transpose2d, _transposed, _samples, gradients=(0, 1, 2),
                tolerance=16.0, gradient_tolerance=64.0, flops=_flops,
                benchmarks=lambda rng: [_sample(rng, 16, 128, 16, 16, 64, 4, 4, stride=2, padding=1)]))


def _one(options):
    """Options of one axis as those of two."""
    last = {"stride": 1, "padding": 0, "dilation": 1, "output_padding": 0}
    return {k: v if k == "groups" or isinstance(v, str) else (last[k], v) for k, v in options.items()}


def _by_rows(function):
    return lambda x, weight, bias, **options: function(x[:, :, None], weight[:, :, None], bias,
                                                       **_one(options))[:, :, 0]


def _line(rng, n, c, length, k, r, transposed=False, bias=True, **options):
    groups = options.get("groups", 1)
    weight = rng.standard_normal((c, k // groups, r) if transposed else (k, c // groups, r))
    return Sample((rng.standard_normal((n, c, length)), weight, rng.standard_normal(k) if bias else None), options)


register(OpSpec("conv1d", conv.conv1d, _by_rows(_conv2d), lambda rng: [
    _line(rng, 2, 3, 11, 5, 3, padding=1), _line(rng, 3, 20, 9, 33, 1, bias=False),
    _line(rng, 2, 8, 17, 12, 4, stride=2, padding=2, dilation=3, groups=4), _line(rng, 1, 4, 6, 4, 4, padding="same")],
    gradients=(0, 1, 2), tolerance=16.0, gradient_tolerance=64.0))
register(OpSpec("conv_transpose1d", conv_transpose.conv_transpose1d, _by_rows(_transposed), lambda rng: [
    _line(rng, 2, 3, 7, 5, 3, True, stride=2, padding=1, output_padding=1),
    _line(rng, 3, 20, 9, 33, 1, True, bias=False),
    _line(rng, 2, 8, 5, 12, 4, True, stride=3, padding=2, dilation=2, groups=4)],
    gradients=(0, 1, 2), tolerance=16.0, gradient_tolerance=64.0))


# ---- windows ----


def _unfold(x, kernel_size, dilation=1, padding=0, stride=1):
    (r, s), (dh, dw), (ph, pw), (sh, sw) = map(_two, (kernel_size, dilation, padding, stride))
    x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    height, width = (x.shape[2] - dh * (r - 1) - 1) // sh + 1, (x.shape[3] - dw * (s - 1) - 1) // sw + 1
    parts = [x[:, :, i * dh:i * dh + sh * (height - 1) + 1:sh, j * dw:j * dw + sw * (width - 1) + 1:sw]
             for i in range(r) for j in range(s)]
    return np.stack(parts, 2).reshape(x.shape[0], -1, height * width)


def _fold(x, output_size, kernel_size, dilation=1, padding=0, stride=1):
    (h, w), (r, s), (dh, dw), (ph, pw), (sh, sw) = map(_two, (output_size, kernel_size, dilation, padding, stride))
    height, width = (h + 2 * ph - dh * (r - 1) - 1) // sh + 1, (w + 2 * pw - dw * (s - 1) - 1) // sw + 1
    parts = x.reshape(x.shape[0], -1, r * s, height, width)
    y = np.zeros((*parts.shape[:2], h + 2 * ph, w + 2 * pw))
    for i in range(r):
        for j in range(s):
            rows, columns = (slice(a, a + step * (n - 1) + 1, step)
                             for a, step, n in ((i * dh, sh, height), (j * dw, sw, width)))
            y[:, :, rows, columns] += parts[:, :, i * s + j]
    return y[:, :, ph:ph + h, pw:pw + w]


def _local(x, weight, bias, kernel_size, stride=1, padding=0):
    edges = [(0, 0), (0, 0), *((p, p) for p in _two(padding))]
    height, width = ((n + 2 * p - k) // s + 1 for n, p, k, s in zip(x.shape[2:], _two(padding), _two(kernel_size),
                                                                    _two(stride)))
    windows = _unfold(np.pad(x, edges), kernel_size, 1, 0, stride)
    y = np.einsum("nkl,lok->nol", windows, weight).reshape(x.shape[0], -1, height, width)
    return y if bias is None else y + bias


_WINDOWS = ({"kernel_size": 2}, {"kernel_size": (3, 2), "stride": 2, "padding": 1},
            {"kernel_size": 2, "dilation": (2, 1)})


def _local_sample(rng, n, c, h, w, k, r, s, oh, ow, **options):
    inputs = (rng.standard_normal((n, c, h, w)), rng.standard_normal((oh * ow, k, c * r * s)),
              rng.standard_normal((k, oh, ow)))
    return Sample(inputs, {"kernel_size": (r, s), **options})


register(OpSpec("unfold", window.unfold, _unfold,
                lambda rng: [Sample((rng.standard_normal((2, 3, 5, 6)),), w) for w in _WINDOWS], gradients=(0,)))
register(OpSpec("fold", window.fold, _fold, lambda rng: [
    Sample((rng.standard_normal((2, 3 * np.prod(_two(w["kernel_size"])), n)),), {"output_size": (5, 6), **w})
    for w, n in zip(_WINDOWS, (20, 12, 15))], gradients=(0,)))
register(OpSpec("local2d", window.local2d, _local, lambda rng: [
    _local_sample(rng, 3, 2, 5, 6, 4, 2, 3, 4, 4), _local_sample(rng, 2, 3, 5, 5, 2, 3, 3, 3, 3, stride=2, padding=1),
    Sample((*_local_sample(rng, 1, 1, 3, 3, 1, 2, 2, 2, 2).inputs[:2], None), {"kernel_size": 2})],
    gradients=(0, 1, 2), tolerance=16.0))
register(OpSpec("local1d", window.local1d,
                lambda x, weight, bias, kernel_size, stride=1, padding=0: _local(
                    x[:, :, None], weight, bias[:, None], (1, kernel_size), (1, stride), (0, padding))[:, :, 0],
                lambda rng: [Sample((rng.standard_normal((3, 2, n)), rng.standard_normal((m, 4, 6)),
                                     rng.standard_normal((4, m))),
                                    {"kernel_size": 3, **options})
                             for n, m, options in ((7, 5, {}), (8, 4, {"stride": 2, "padding": 1}))],
                gradients=(0, 1, 2), tolerance=16.0))
