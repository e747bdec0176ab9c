"""Mixup and CutMix: batches mixed with themselves in another order, labels in the same proportion; made of launches only.

Either is a `DataLoader`'s ``batch_transform``, or is called on batches within a step of one's own: ``x, y = mix(x, y)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _core
from .._core import DType, TensorBase, launch
from ..checks import positive, whole
from ..ops.create import arange, as_tensor, bool_, float64, int64, tensor
from ..ops.math import _KIND
from ..ops.operands import constant
from ..ops.one_hot import one_hot
from ..ops.shape import reshape
from ..random import Generator, generator_state, randperm
from ..tensor import Tensor, no_grad

__all__ = ["CutMix", "Mixup"]

_POINTS = 1024  # of the table of quantiles, a power of two


def beta_quantiles(alpha: float, points: int = _POINTS) -> np.ndarray:
    """Quantiles of the distribution Beta(alpha, alpha) at 0, 1 / points, ..., 1.

    Parameters
    ----------
    alpha : float
        Above 0.
    points : int
        Even.

    Returns
    -------
    ndarray
        (points + 1,), float64, increasing from 0 to 1.
    """
    # Below 1 the density is infinite at 0; in t = x^alpha it is not: x^(alpha - 1) dx is dt / alpha.
    power = alpha if alpha < 1 else 1.0
    t = np.linspace(0, 0.5 ** power, 1 << 15)
    x = t ** (1 / power)
    # Times a constant that makes it 1 in the middle: great powers of less vanish everywhere.
    density = (4 * (1 - x) * x) ** (alpha - 1) if alpha > 1 else (1 - x) ** (alpha - 1)
    below = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    half = np.interp(np.linspace(0, 0.5, points // 2 + 1), below / below[-1] / 2, t) ** (1 / power)
    return np.concatenate([half, 1 - half[-2::-1]])


class _Mix:
    """What both share: a share drawn from Beta(alpha, alpha), the other order of the batch, targets as probabilities.

    Parameters
    ----------
    num_classes : int, optional
        Number of classes; may be left out where targets are probabilities.
    alpha : float
        Above 0: small, most shares are near 0 or 1; 1, all are equally likely.
    generator : Generator, optional
        Where random numbers come from; by default `fastnn.manual_seed`'s.
    """

    def __init__(self, num_classes: int | None, alpha: float, generator: Generator | None = None):
        name = type(self).__name__
        self.num_classes = None if num_classes is None else whole(f"{name}: num_classes", num_classes, 1)
        self.alpha = positive(f"{name}: alpha", alpha)
        generator_state(generator)  # refuses what is none
        self.generator = generator
        quantiles = beta_quantiles(self.alpha)
        self._quantiles, self._rises = tensor(quantiles[:-1]), tensor(np.diff(quantiles))
        self._places: dict[tuple[int, DType], Tensor] = {}

    def __call__(self, x: Tensor, y: Any) -> tuple[Tensor, Tensor]:
        """The mixed batch and its targets.

        Parameters
        ----------
        x : Tensor
            (N, ...), for CutMix (N, C, H, W).
        y : Tensor or array_like
            Labels (N,), integers, or probabilities (N, num_classes).

        Returns
        -------
        Tensor
            Of x's shape.
        Tensor
            (N, num_classes): probabilities, for `fastnn.functional.cross_entropy`.

        Raises
        ------
        ValueError
            If shapes do not fit, or `y` holds labels and the number of classes is not known.
        TypeError
            If `x` is no tensor of floating-point numbers, or labels are no integers.
        IndexError
            If a label is no class.
        """
        if not isinstance(x, TensorBase) or not x.is_floating_point():
            what = f"has dtype {x.dtype}" if isinstance(x, TensorBase) else f"is a {type(x).__name__}"
            raise TypeError(f"{type(self).__name__}: x {what}, but must be a tensor of floating-point numbers (bytes become such by "
                            "Normalize)")
        if not x.ndim:
            raise ValueError(f"{type(self).__name__}: x has shape (), but must be a batch, (N, ...)")
        with no_grad():
            x, y = x.detach(), self._probabilities(x, as_tensor(y))
            order = randperm(x.shape[0], self.generator)
            mixed, share = self.mix(x, launch.index_select(x, order, axis=0))
            return mixed, self._between(y, launch.index_select(y, order, axis=0), share)

    def mix(self, x: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """The mixture of two batches, and which share of it is x's: (1,)."""
        raise TypeError(f"{type(self).__name__} must define mix(x, other)")

    def _between(self, a: Tensor, b: Tensor, share: Tensor) -> Tensor:
        """share a + (1 - share) b"""
        return launch.add(b, launch.mul(share, launch.sub(a, b)))

    def _probabilities(self, x: Tensor, y: Tensor) -> Tensor:
        name, n, count = type(self).__name__, x.shape[0], self.num_classes
        if y.ndim == 1 and (y.dtype.is_floating or y.dtype is bool_):
            raise TypeError(f"{name}: y has dtype {y.dtype}, but labels must be integers")
        if y.dtype.is_floating:
            if y.ndim != 2 or y.shape[0] != n or count not in (None, y.shape[1]):
                raise ValueError(f"{name}: y has shape {y.shape}, but must be ({n},), labels, or ({n}, {count or 'num_classes'}), "
                                 "probabilities")
            return as_tensor(y, x.dtype)
        if y.shape != x.shape[:1]:
            raise ValueError(f"{name}: y has dtype {y.dtype} and shape {y.shape}, but labels must be of shape ({n},)")
        if count is None:
            raise ValueError(f"{name}: num_classes is None, but must be given where y holds labels: {name}(num_classes=10), say")
        return as_tensor(one_hot(y, count), x.dtype)

    def _uniform(self, dtype: DType) -> Tensor:
        """One random number in [0, 1): (1,)."""
        u = _core.empty((1,), dtype)
        return launch.uniform(generator_state(self.generator), low=0.0, high=1.0, ordinal=0, out=u)

    def _share(self, dtype: DType) -> Tensor:
        """One number from Beta(alpha, alpha), between the quantiles of the table: (1,)."""
        place = launch.mul(self._uniform(float64), constant(float(_POINTS), float64))
        k = launch.copy(place, dtype=int64.code)
        part = launch.sub(place, launch.copy(k, dtype=float64.code))
        low, rise = launch.index_select(self._quantiles, k, axis=0), launch.index_select(self._rises, k, axis=0)
        return launch.copy(launch.add(low, launch.mul(part, rise)), dtype=dtype.code)


class Mixup(_Mix):
    """Every sample mixed with another one: share x_i + (1 - share) x_j, and their targets likewise.

    Parameters
    ----------
    num_classes : int, optional
        Number of classes; may be left out where targets are probabilities.
    alpha : float
        Above 0: the share is drawn from Beta(alpha, alpha), once for a batch.
    generator : Generator, optional
        Where random numbers come from; by default `fastnn.manual_seed`'s.

    References
    ----------
    Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018.
    """

    def __init__(self, num_classes: int | None = None, alpha: float = 0.2, generator: Generator | None = None):
        super().__init__(num_classes, alpha, generator)

    def mix(self, x: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        share = self._share(x.dtype)
        return self._between(x, other, share), share


class CutMix(_Mix):
    """A rectangle of every image replaced by that of another one; targets mix in proportion to the areas.

    Parameters
    ----------
    num_classes : int, optional
        Number of classes; may be left out where targets are probabilities.
    alpha : float
        Above 0: the rectangle's area is 1 - share of the image, the share drawn from Beta(alpha, alpha), once for a
        batch; what lies outside of the image is cut off.
    generator : Generator, optional
        Where random numbers come from; by default `fastnn.manual_seed`'s.

    References
    ----------
    Yun et al., "CutMix: regularization strategy to train strong classifiers with localizable features", ICCV 2019.
    """

    def __init__(self, num_classes: int | None = None, alpha: float = 1.0, generator: Generator | None = None):
        super().__init__(num_classes, alpha, generator)

    def mix(self, x: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        if x.ndim != 4:
            raise ValueError(f"CutMix: x has shape {x.shape}, but must be (N, C, H, W)")
        one = constant(1.0, x.dtype)
        side = launch.sqrt(launch.sub(one, self._share(x.dtype)))
        rows, columns = (self._inside(extent, side, x.dtype) for extent in x.shape[2:])
        mask = launch.integer_binary(reshape(rows, (x.shape[2], 1)), columns, kind=_KIND["and"])
        area = launch.sum(launch.copy(mask, dtype=x.dtype.code), axes=3, keepdim=0, divisor=float(mask.numel()))
        return launch.where(mask, other, x), reshape(launch.sub(one, area), (1,))

    def _inside(self, extent: int, side: Tensor, dtype: DType) -> Tensor:
        """Which of `extent` pixels have their middles within side * extent / 2 of a random place: (extent,), bool."""
        if (extent, dtype) not in self._places:
            self._places[extent, dtype] = as_tensor(arange(extent), dtype) + 0.5
        size = constant(float(extent), dtype)
        distance = launch.abs(launch.sub(self._places[extent, dtype], launch.mul(self._uniform(dtype), size)))
        return launch.lt(distance, launch.mul(launch.mul(side, size), constant(0.5, dtype)))
