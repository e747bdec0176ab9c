"""OpSpecs of fastnn/ops/augment.py: the references draw the same random words, and do the rest in plain NumPy."""

from __future__ import annotations

import numpy as np

from .. import _core
from ..ops import augment
from ..random import Generator
from .spec import OpSpec, Sample, register

_SEED = 9


def _seeded(function):
    return lambda *inputs, **options: function(*inputs, **options, generator=Generator(_SEED))


def _draws(images, count):
    """Uniform in [0, 1): (images, count), from the words of blocks in order."""
    blocks = images * count // 4
    words = [w for b in range(blocks) for w in _core.philox(_SEED, 0, b)]
    return np.array(words, np.float64).reshape(images, count) / 2**32


def _two(value):
    return value if isinstance(value, tuple) else (value, value)


def _rotation(angle):
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def _bilinear(image, rows, columns):
    """image: (C, H, W), 0 outside; rows, columns: (h, w)."""
    h, w = image.shape[1:]
    padded = np.pad(image, ((0, 0), (1, 2), (1, 2)))
    rows, columns = np.clip(rows, -1, h) + 1, np.clip(columns, -1, w) + 1
    r, c = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = rows - r, columns - c
    return ((1 - down) * (1 - right) * padded[:, r, c] + (1 - down) * right * padded[:, r, c + 1]
            + down * (1 - right) * padded[:, r + 1, c] + down * right * padded[:, r + 1, c + 1])


def _affine(x, flow=None, mean=None, std=None, size=None, padding=0, horizontal_flip=0.0, vertical_flip=0.0,
            degrees=0.0, shift=0.0, scale=1.0, shear=0.0):
    """Forward matrices, inverted by NumPy; flips of the finished crop."""
    n, channels, h, w = x.shape
    (oh, ow), (ph, pw) = _two(size or (h, w)), _two(padding)
    y = np.empty((n, channels, oh, ow))
    (low, high), (down, across), symmetric = _two(scale), _two(shift), lambda u, most: (2 * u - 1) * most
    for k, u in enumerate(_draws(n, 12)):
        top, left = np.floor(u[0] * (h + 2 * ph - oh + 1)) - ph, np.floor(u[1] * (w + 2 * pw - ow + 1)) - pw
        lean = np.array([[1, np.tan(np.radians(symmetric(u[8], shear)))], [0, 1]])
        matrix = (low + u[7] * (high - low)) * _rotation(np.radians(symmetric(u[4], degrees))) @ lean
        v, t = np.meshgrid(np.arange(oh) - (oh - 1) / 2, np.arange(ow) - (ow - 1) / 2, indexing="ij")
        moved = np.stack([t - symmetric(u[6], across) * ow, v - symmetric(u[5], down) * oh]).reshape(2, -1)
        t, v = (np.linalg.inv(matrix) @ moved).reshape(2, oh, ow)
        rows, columns = v + (oh - 1) / 2 + top, t + (ow - 1) / 2 + left
        if u[3] < vertical_flip:
            rows, columns = rows[::-1], columns[::-1]
        if u[2] < horizontal_flip:
            rows, columns = rows[:, ::-1], columns[:, ::-1]
        if flow is not None:
            rows, columns = rows + flow[k, 0], columns + flow[k, 1]
        y[k] = _bilinear(x[k], rows, columns)
    return y if mean is None else (y - mean[:, None, None]) / std[:, None, None]


def _affine_call(x, flow=None, mean=None, std=None, **options):
    return augment.random_affine(x, flow=flow, mean=mean, std=std, generator=Generator(_SEED), **options)


def _affine_samples(rng):
    def images(*shape):
        return rng.standard_normal(shape)

    def norm(channels):
        return rng.standard_normal(channels), rng.uniform(0.5, 2, channels)

    everything = {"degrees": 30, "shift": (0.1, 0.2), "scale": (0.7, 1.4), "shear": 20, "horizontal_flip": 0.5,
                  "vertical_flip": 0.5}
    return [Sample((images(6, 3, 8, 9), None, *norm(3)), {"padding": 2, "horizontal_flip": 0.5}),
            Sample((images(4, 17, 6, 7),), {"size": (4, 5), "vertical_flip": 0.5, "padding": (0, 3)}),
            Sample((images(5, 3, 11, 7),), everything),
            Sample((images(2, 20, 9, 12), rng.uniform(-2, 2, (2, 2, 5, 6)), *norm(20)), {"size": (5, 6), **everything}),
            Sample((images(3, 1, 6, 5), rng.uniform(-9, 9, (3, 2, 6, 5)))),
            Sample((images(3, 2, 1, 1),), {"degrees": 180}), Sample((images(0, 3, 4, 5),), {"degrees": 10}),
            Sample((images(1, 3, 4, 4),), {"scale": 2.0, "size": 2})]


register(OpSpec("random_affine", _affine_call, _affine, _affine_samples, tolerance=64,
                bytes=lambda x, *others, **options: 8 * int(np.prod(x)),
                benchmarks=lambda rng: [Sample((rng.uniform(0, 1, (128, 3, 32, 32)), None, np.full(3, 0.5),
                                                np.full(3, 0.25)), {"padding": 4, "horizontal_flip": 0.5}),
                                        Sample((rng.uniform(0, 1, (128, 3, 32, 32)),), {"degrees": 15, "shift": 0.1})]))


def _smooth(n, sigma):
    reach = max(1, int(np.ceil(3 * sigma)))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return sum(np.eye(n, k=k) * tap for k, tap in zip(range(-reach, reach + 1), taps / taps.sum()))


def _flow(x, alpha, sigma):
    n, _, h, w = x.shape
    words = np.array([w for b in range(n * h * w) for w in _core.philox(_SEED, 0, b)], np.uint64).reshape(-1, 2)
    noise = ((words[:, 0] | words[:, 1] << np.uint64(32)) >> np.uint64(11)) / 2.0**52 - 1
    noise = noise.reshape(n, h, w, 2).transpose(0, 3, 1, 2)
    return alpha * _smooth(h, sigma) @ noise @ _smooth(w, sigma).T


def _flow_call(x, alpha, sigma):
    """In float64, whatever the type: float32 numbers take other words."""
    return augment.elastic_flow(x.to("float64"), alpha, sigma, generator=Generator(_SEED)).to(x.dtype)


register(OpSpec("elastic_flow", _flow_call, _flow, lambda rng: [
    Sample((rng.standard_normal((2, 3, 8, 9)),), {"alpha": 5.0, "sigma": 1.5}),
    Sample((rng.standard_normal((1, 1, 5, 20)),), {"alpha": 34.0, "sigma": 4.0})], tolerance=16))


def _color(x, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0):
    """Step after step, with the luminance of Rec. 709 to three digits; hue as the filter's own matrices."""
    luma, y = np.array([0.213, 0.715, 0.072]), np.empty_like(x)
    turn = np.array([[-0.213, -0.715, 0.928], [0.143, 0.140, -0.283], [-0.787, 0.715, 0.072]])
    if x.shape[1] == 1:
        luma, turn = np.ones(1), np.zeros((1, 1))
    bounds = [b if isinstance(b, tuple) else (max(0, 1 - b), 1 + b) for b in (brightness, contrast, saturation)]
    for k, u in enumerate(_draws(len(x), 4)):
        b, c, s = (low + v * (high - low) for v, (low, high) in zip(u, bounds))
        angle = 2 * np.pi * hue * (2 * u[3] - 1)
        image = np.moveaxis(b * x[k], 0, -1)
        image = c * image + (1 - c) * (image @ luma).mean()
        grey = (image @ luma)[..., None]
        image = grey + s * (image - grey)
        chroma = np.eye(len(luma)) - luma
        image = image @ luma[:, None] + image @ (np.cos(angle) * chroma + np.sin(angle) * turn).T
        y[k] = np.moveaxis(np.clip(image, 0, 1), -1, 0)
    return y


register(OpSpec("color_jitter", _seeded(augment.color_jitter), _color, lambda rng: [
    Sample((rng.uniform(0, 1, (4, 3, 5, 7)),), {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}),
    Sample((rng.uniform(0, 1, (3, 3, 9, 1)),), {"hue": 0.5}),
    Sample((rng.uniform(0, 1, (3, 3, 4, 4)),), {"saturation": (0.0, 3.0)}),
    Sample((rng.uniform(0, 1, (5, 1, 4, 6)),), {"brightness": 0.5, "contrast": (0.2, 2.0), "saturation": 0.5}),
    Sample((rng.uniform(0, 1, (0, 3, 4, 6)),), {"brightness": 0.5})], tolerance=16,
    bytes=lambda x, **_: 8 * int(np.prod(x)),
    benchmarks=lambda rng: [Sample((rng.uniform(0, 1, (128, 3, 32, 32)),), {"brightness": 0.4, "hue": 0.1})]))


def _cutout(x, size, value=0.0, p=1.0):
    (h, w), y = _two(size), x.copy()
    for image, u in zip(y, _draws(len(x), 4)):
        top, left = int(u[0] * x.shape[2]) - h // 2, int(u[1] * x.shape[3]) - w // 2
        if u[2] < p:
            image[:, max(top, 0):max(top + h, 0), max(left, 0):max(left + w, 0)] = value
    return y


register(OpSpec("random_cutout", _seeded(augment.random_cutout), _cutout, lambda rng: [
    Sample((rng.standard_normal((6, 3, 8, 9)),), {"size": 4}),
    Sample((rng.standard_normal((8, 2, 5, 6)),), {"size": (3, 20), "value": 0.5, "p": 0.5}),
    Sample((rng.standard_normal((0, 2, 5, 6)),), {"size": 1})], exact=True, bytes=lambda x, **_: 8 * int(np.prod(x))))
