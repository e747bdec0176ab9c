"""OpSpecs of fastnn/ops/linear.py and bilinear.py."""

from __future__ import annotations

import numpy as np

from ..ops.bilinear import bilinear
from ..ops.linear import linear, matmul
from .spec import OpSpec, Sample, register


def _linear_samples(rng,
                    shapes=((7, 5, 3), (64, 40, 33), (1, 17, 10), (4, 100, 70), (0, 4, 3), (3, 0, 2), (130, 300, 65))):
    samples = [Sample((rng.standard_normal((m, k)), rng.standard_normal((n, k)), rng.standard_normal(n)))
               for m, k, n in shapes]
    samples.append(Sample((rng.standard_normal((2, 3, 5)), rng.standard_normal((4, 5)), None)))
    samples.append(Sample((rng.standard_normal(5), rng.standard_normal((4, 5)), rng.standard_normal(4))))
    return samples


register(OpSpec(
    "linear", linear, lambda x, w, b: x @ w.T + (0 if b is None else b), _linear_samples, gradients=(0, 1, 2),
    tolerance=8.0,
    flops=lambda x, w, b: 2 * w[0] * w[1] * _rows(x),
    bytes=lambda x, w, b: 4 * (_rows(x) * (w[0] + w[1]) + w[0] * w[1]),
    benchmarks=lambda rng: _linear_samples(rng,
                                           ((4, 784, 256), (64, 784, 256), (200, 784, 50), (1024, 1024, 1024)))[:4]))


def _rows(shape):
    n = 1
    for extent in shape[:-1]:
        n *= extent
    return n


def _matmul_samples(rng):
    pairs = [((5, 7), (7, 3)), ((64, 33), (33, 65)), ((3, 4, 5), (3, 5, 2)), ((4, 5), (3, 5, 2)), ((3, 4, 5), (5, 6)),
             ((2, 1, 4, 5), (3, 5, 6)),
             ((7,), (7,)), ((4, 7), (7,)), ((7,), (3, 7, 2)), ((0, 4, 5), (0, 5, 2)), ((4, 0), (0, 3)),
             ((150, 200), (200, 170))]
    return [Sample((rng.standard_normal(a), rng.standard_normal(b))) for a, b in pairs]


register(OpSpec("matmul", matmul, lambda a, b: a @ b, _matmul_samples, gradients=(0, 1), tolerance=8.0,
                flops=lambda a, b: 2 * _rows(a) * a[-1] * b[-1],
                bytes=lambda a, b: 4 * (_rows(a) * (a[-1] + b[-1]) + a[-1] * b[-1]),
                benchmarks=lambda rng: [Sample((rng.standard_normal((n, n)), rng.standard_normal((n, n))))
                                        for n in (256, 512, 1024, 2048)]))
register(OpSpec("matmul_integers", matmul, lambda a, b: a @ b, lambda rng: [
    Sample((rng.integers(-2**62, 2**62, a), rng.integers(-2**62, 2**62, b)))
    for a, b in (((5, 7), (7, 3)), ((3, 4, 5), (3, 5, 2)), ((2, 1, 4, 5), (3, 5, 300)), ((7,), (7,)), ((0, 4, 5), (0, 5, 2)),
                 ((4, 0), (0, 3)))], exact=True, peer="matmul"))


def _bilinear_samples(rng):
    for lead, n1, n2, outputs in (((4,), 3, 5, 2), ((2, 3), 1, 17, 9), ((), 4, 4, 3), ((0,), 2, 3, 4), ((70,), 33, 20, 5)):
        for bias in (rng.standard_normal(outputs), None):
            yield Sample((rng.standard_normal((*lead, n1)), rng.standard_normal((*lead, n2)),
                          rng.standard_normal((outputs, n1, n2)), bias))


register(OpSpec("bilinear", bilinear, lambda a, b, w, bias: np.einsum("...i,oij,...j->...o", a, w, b) +
                (0 if bias is None else bias), lambda rng: list(_bilinear_samples(rng)), gradients=(0, 1, 2, 3),
                tolerance=16))
