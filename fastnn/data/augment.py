"""Augmentation: random changes of training images that leave their labels true."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import fastnn

from ..checks import among, pair, real
from ..ops.augment import color_jitter, elastic_flow, random_affine, random_cutout
from ..ops.math import add, mul

_DIGITS = {"degrees": 10.0, "shift": 0.1, "scale": (0.9, 1.1)}  # a 6 turned far is a 9, a 2 in a mirror is nothing

AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "digits": _DIGITS,
    "mnist": _DIGITS,
    "fashion_mnist": {"horizontal_flip": 0.5, "padding": 2},
    "cifar10": {"horizontal_flip": 0.5, "padding": 4},
}
"""What is safe for each data set: `Augment`'s options, by name."""


class Augment:
    """Random changes of batches of images, each image its own: a `DataLoader`'s ``transform``.

    In this order: colours, geometry with normalisation (one pass), noise, holes. All are launches on the engine, drawn
    from fastnn's generator: the same seed gives the same images with any number of threads, eagerly and captured.

    Where `Trainer` replays its steps, gathering and changing a batch are the first launches of its step: all threads
    work on them, right behind the update of the batch before, and Python is not entered between. Nothing is prepared
    by threads of its own: they would take from the step what they give.

    Parameters
    ----------
    size, padding, horizontal_flip, vertical_flip, degrees, shift, scale, shear
        Geometry, see `fastnn.functional.random_affine`.
    elastic : pair of float, optional
        Strength and smoothness in pixels of an elastic deformation, see `fastnn.functional.elastic_flow`.
    brightness, contrast, saturation, hue
        Colours, see `fastnn.functional.color_jitter`; images must lie in 0 ... 1.
    mean, std : sequence of float, optional
        One a channel: subtracted, then divided by; every std positive. Data to validate on must be normalised alike.
    noise : float
        Standard deviation of normal noise.
    cutout : int or pair of int
        Height and width of a hole of zeros; 0: none.
    generator : fastnn.Generator, optional
        Source of random numbers; the one `fastnn.manual_seed` seeds by default.

    Raises
    ------
    ValueError
        If an option is out of range (geometry and colours: at the first batch).

    Examples
    --------
    >>> import fastnn
    >>> augment = Augment(padding=4, horizontal_flip=0.5)
    >>> augment(fastnn.rand(8, 3, 32, 32)).shape
    (8, 3, 32, 32)
    """

    def __init__(self, *, size: Any = None, padding: Any = 0, horizontal_flip: float = 0.0, vertical_flip: float = 0.0,
                 degrees: float = 0.0, shift: Any = 0.0, scale: Any = (1.0, 1.0), shear: float = 0.0,
                 elastic: Sequence[float] | None = None, brightness: Any = 0.0, contrast: Any = 0.0,
                 saturation: Any = 0.0, hue: float = 0.0, mean: Sequence[float] | None = None,
                 std: Sequence[float] | None = None, noise: float = 0.0, cutout: Any = 0,
                 generator: Any = None) -> None:
        self.geometry = {"size": size, "padding": padding, "horizontal_flip": horizontal_flip,
                         "vertical_flip": vertical_flip, "degrees": degrees, "shift": shift, "scale": scale,
                         "shear": shear}
        colours = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
        self.colours = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in colours.items()}
        if (mean is None) != (std is None):
            raise ValueError("Augment: mean and std must be given together")
        if mean is not None and not (np.isfinite(mean).all() and np.isfinite(std).all() and (np.asarray(std) > 0).all()):
            raise ValueError(f"Augment: mean is {mean!r} and std {std!r}, but both must be finite, and every std positive")
        if elastic is not None and (not isinstance(elastic, (tuple, list)) or len(elastic) != 2):
            raise ValueError(f"Augment: elastic is {elastic!r}, but must be two numbers: strength and smoothness")
        if elastic is not None and size is not None:
            raise ValueError("Augment: elastic deformations and crops of another size exclude each other")
        self.elastic, self.mean, self.std = elastic, mean, std
        self.noise = real("Augment: noise", noise, 0)
        self.cutout = pair("Augment", "cutout", cutout, 0)
        self.generator = generator
        self._norms: dict[Any, tuple[Any, Any]] = {}

    @classmethod
    def for_data(cls, name: str, **options: Any) -> Augment:
        """What is safe for a data set's labels: digits are neither flipped nor turned by more than 15 degrees.

        Parameters
        ----------
        name : str
            A key of `AUGMENTATIONS`.
        **options
            What to change of it; for digits within these bounds.

        Returns
        -------
        Augment

        Raises
        ------
        ValueError
            If the name is unknown, or an option would change what a digit says.
        """
        among("Augment.for_data: name", name, AUGMENTATIONS)
        options = {**AUGMENTATIONS[name], **options}
        if AUGMENTATIONS[name] is _DIGITS:
            if options.get("horizontal_flip") or options.get("vertical_flip"):
                raise ValueError(f"Augment.for_data: a flip of {name} would change its labels; "
                                 "build Augment itself to do so")
            if real("Augment.for_data: degrees", options["degrees"], 0, 360) > 15:
                raise ValueError(f"Augment.for_data: degrees is {options['degrees']:g}, but must be at most 15 for "
                                 f"{name}; build Augment itself to turn further")
        return cls(**options)

    def __call__(self, x: Any) -> Any:
        """The changed images (N, C, height, width) of `x` (N, C, H, W)."""
        options = {"generator": self.generator}
        if any(value not in (0, (1.0, 1.0)) for value in self.colours.values()):
            x = color_jitter(x, **self.colours, **options)
        flow = None if self.elastic is None else elastic_flow(x, *self.elastic, **options)
        mean, std = self._norm(x.dtype)
        x = random_affine(x, flow=flow, mean=mean, std=std, **self.geometry, **options)
        if self.noise:
            x = add(x, mul(fastnn.randn(*x.shape, dtype=x.dtype, **options), self.noise))
        return random_cutout(x, self.cutout, **options) if all(self.cutout) else x

    def _norm(self, dtype: Any) -> tuple[Any, Any]:
        """Mean and standard deviation as tensors, made once."""
        if self.mean is None:
            return None, None
        if dtype not in self._norms:
            self._norms[dtype] = tuple(fastnn.tensor(np.asarray(v, np.float64), dtype) for v in (self.mean, self.std))
        return self._norms[dtype]
