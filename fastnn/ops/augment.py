"""Random changes of batches of images, drawn anew for each image; no gradient passes through them."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .._core import DType, empty, launch
from ..checks import a_tensor, pair, positive, real
from ..random import Generator, generator_state
from .create import tensor

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["color_jitter", "elastic_flow", "random_affine", "random_cutout"]


def random_affine(input: Tensor, *, size: int | tuple[int, int] | None = None, padding: int | tuple[int, int] = 0,
                  horizontal_flip: float = 0.0, vertical_flip: float = 0.0, degrees: float = 0.0,
                  shift: float | Sequence[float] = 0.0, scale: float | Sequence[float] = (1.0, 1.0), shear: float = 0.0,
                  flow: Tensor | None = None, mean: Tensor | None = None, std: Tensor | None = None,
                  generator: Generator | None = None) -> Tensor:
    """Crops, flips, rotates, shifts, scales, shears and deforms each image at random, then normalises: in one pass.

    Every range is drawn from uniformly, for each image. Positions between pixels are interpolated from the four around
    them; outside an image everything is 0. With crops and flips alone pixels are copied as they are.

    Parameters
    ----------
    input : Tensor
        float32 or float64, (N, C, H, W).
    size : int or pair of int, optional
        Height and width of the crop, taken at a random place; those of the image by default.
    padding : int or pair of int
        Zeros around the image, above and below and left and right, in which crops may lie too.
    horizontal_flip, vertical_flip : float
        Probabilities of swapping left and right, top and bottom.
    degrees : float
        Largest rotation about the centre, either way.
    shift : float or pair of float
        Largest shift, either way, as a share of height and width.
    scale : float or pair of float
        Lowest and highest magnification; one number is both.
    shear : float
        Largest angle, in degrees, by which columns lean, either way; up to 80.
    flow : Tensor, optional
        (N, 2, height, width): pixels added to the row and the column that each result comes from, see
        `elastic_flow`.
    mean, std : Tensor, optional
        (C,): what is subtracted from each channel of the result, and what it is then divided by.
    generator : Generator, optional
        Where random numbers come from; by default `fastnn.manual_seed`'s.

    Returns
    -------
    Tensor
        (N, C, height, width).

    Raises
    ------
    ValueError
        If an option is out of range, or shapes do not fit.
    """
    kept = size is None and a_tensor("random_affine", input).ndim == 4
    height, width = input.shape[2:] if kept else pair("random_affine", "size", 1 if size is None else size, 1)
    low, high = _range("random_affine: scale", scale, 0.01, 100)
    down, across = _range("random_affine: shift", shift, 0, 1)
    return launch.augment_affine(
        input, generator_state(generator), flow, mean, std, size=(height, width),
        padding=pair("random_affine", "padding", padding, 0), ordinal=0,
        flips=(real("random_affine: horizontal_flip", horizontal_flip, 0, 1),
               real("random_affine: vertical_flip", vertical_flip, 0, 1)),
        degrees=real("random_affine: degrees", degrees, 0, 360), shift=(down, across), scale=(low, high),
        shear=real("random_affine: shear", shear, 0, 80))


def elastic_flow(input: Tensor, alpha: float = 34.0, sigma: float = 4.0, *, generator: Generator | None = None) -> Tensor:
    """Smooth random displacements for `random_affine`: elastic deformations of images of `input`'s size.

    Each pixel's displacement is uniform in [-1, 1] in both directions; Gaussian weights of standard deviation `sigma`,
    up to 3 `sigma` away, average those of its neighbours (0 outside), and `alpha` multiplies the average.

    Parameters
    ----------
    input : Tensor
        (N, C, H, W): images; only their shape and type matter.
    alpha : float
        Strength, in pixels.
    sigma : float
        Smoothness, in pixels, above 0 and at most 2^20.
    generator : Generator, optional
        Where random numbers come from; by default `fastnn.manual_seed`'s.

    Returns
    -------
    Tensor
        (N, 2, H, W), type of `input`.

    Raises
    ------
    ValueError
        If `input` is no batch of images, or an option is out of range.

    References
    ----------
    P. Y. Simard, D. Steinkraus, J. C. Platt, "Best practices for convolutional neural networks applied to visual
    document analysis", ICDAR 2003.
    """
    if a_tensor("elastic_flow", input).ndim != 4:
        raise ValueError(f"elastic_flow: input has shape {input.shape}, but must be (N, C, H, W)")
    alpha, sigma = real("elastic_flow: alpha", alpha), positive("elastic_flow: sigma", sigma)
    if sigma > 2**20:
        raise ValueError(f"elastic_flow: sigma is {sigma}, but must be at most 2^20: weights reach 3 sigma to either side")
    noise = empty((input.shape[0], 2, *input.shape[2:]), input.dtype)
    noise = launch.uniform(generator_state(generator), low=-1.0, high=1.0, ordinal=0, out=noise)
    down, across = (_gaussian_table(n, sigma, factor, input.dtype) for n, factor in zip(input.shape[2:], (alpha, 1.0)))
    same_row, same_column = (_gaussian_table(n, None, 1.0, input.dtype) for n in input.shape[2:])
    return launch.resample_forward(launch.resample_forward(noise, *down, *same_column), *same_row, *across)


@functools.lru_cache(maxsize=32)
def _gaussian_table(n: int, sigma: float | None, factor: float, dtype: DType) -> tuple[Tensor, Tensor]:
    """For each of n places its neighbours (-1: none) and their weights, as `resample_forward` takes them.

    Without `sigma` each place has only itself.
    """
    reach = 0 if sigma is None else max(1, math.ceil(3 * sigma))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / (sigma or 1.0)) ** 2)
    places = np.arange(n)[:, None] + np.arange(-reach, reach + 1)
    places[(places < 0) | (places >= n)] = -1
    return tensor(places), tensor(np.tile(factor * weights / weights.sum(), (n, 1)), dtype)


def color_jitter(input: Tensor, brightness: float | Sequence[float] = 0.0, contrast: float | Sequence[float] = 0.0,
                 saturation: float | Sequence[float] = 0.0, hue: float = 0.0, *,
                 generator: Generator | None = None) -> Tensor:
    """Changes brightness, contrast, saturation and hue of each image at random; results stay within 0 ... 1.

    Brightness multiplies all; contrast the difference from the image's mean luminance; saturation the difference from a
    pixel's own luminance; hue turns colours about the grey axis. All that is one matrix and one offset for an image.

    Parameters
    ----------
    input : Tensor
        float32 or float64 in 0 ... 1, (N, 3, H, W), or (N, 1, H, W), where saturation and hue change nothing.
    brightness, contrast, saturation : float or pair of float
        Lowest and highest factor; one number d is max(0, 1 - d) and 1 + d.
    hue : float
        Largest turn, either way, as a share of the colour circle; up to 0.5.
    generator : Generator, optional
        Where random numbers come from; by default `fastnn.manual_seed`'s.

    Returns
    -------
    Tensor
        Shape and type of `input`.

    Raises
    ------
    ValueError
        If an option is out of range, or `input` has neither one channel nor three.

    References
    ----------
    W3C, "Filter Effects Module Level 1", section 9.6: the matrices of saturate and hueRotate. torchvision's ColorJitter
    has the same options, but a random order of steps and another luminance.
    """
    factors = {name: _factors(f"color_jitter: {name}", value) for name, value in
               (("brightness", brightness), ("contrast", contrast), ("saturation", saturation))}
    return launch.augment_color(input, generator_state(generator), hue=real("color_jitter: hue", hue, 0, 0.5), ordinal=0,
                                **factors)


def random_cutout(input: Tensor, size: int | tuple[int, int], *, value: float = 0.0, p: float = 1.0,
                  generator: Generator | None = None) -> Tensor:
    """Fills a rectangle around a random pixel of each image; what lies outside the image is cut off.

    Parameters
    ----------
    input : Tensor
        float32 or float64, (N, C, H, W).
    size : int or pair of int
        Height and width of the rectangle.
    value : float
        What to fill it with.
    p : float
        Probability that an image gets one.
    generator : Generator, optional
        Where random numbers come from; by default `fastnn.manual_seed`'s.

    Returns
    -------
    Tensor
        Shape and type of `input`.

    Raises
    ------
    ValueError
        If an option is out of range.

    References
    ----------
    T. DeVries, G. W. Taylor, "Improved regularization of convolutional neural networks with cutout",
    arXiv:1708.04552, 2017.
    """
    return launch.augment_cutout(input, generator_state(generator), size=pair("random_cutout", "size", size, 1),
                                 value=real("random_cutout: value", value), p=real("random_cutout: p", p, 0, 1),
                                 ordinal=0)


def _range(name: str, value: float | Sequence[float], least: float, most: float) -> tuple[float, float]:
    """Two numbers, or one twice."""
    two = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(two) != 2:
        raise ValueError(f"{name} is {value!r}, but must be a number or two")
    return real(name, two[0], least, most), real(name, two[1], least, most)


def _factors(name: str, value: float | Sequence[float]) -> tuple[float, float]:
    """Lowest and highest factor."""
    if isinstance(value, (tuple, list)):
        low, high = _range(name, value, 0, 100)
        if low > high:
            raise ValueError(f"{name} is {value!r}, but must not fall")
        return low, high
    spread = real(name, value, 0, 99)
    return max(0.0, 1 - spread), 1 + spread
