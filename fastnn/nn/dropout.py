"""Dropout layers."""

from __future__ import annotations

from collections.abc import Callable

from ..checks import real
from ..ops.dropout import alpha_dropout, dropout, dropout1d, dropout2d, feature_alpha_dropout
from ..ops.math import add, mul
from ..random import randn
from ..tensor import Tensor
from .module import Module

__all__ = ["AlphaDropout", "Dropout", "Dropout1d", "Dropout2d", "FeatureAlphaDropout", "GaussianNoise"]


class Dropout(Module):
    """Sets each element to 0 with probability `p` while training; any shape; see `fastnn.functional.dropout`.

    Parameters
    ----------
    p : float
        Probability of dropping an element, between 0 and 1.
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.
    inverted : bool
        Whether elements that stay are divided by 1 - p in training (the usual form), or all are multiplied by 1 - p in
        inference.

    Raises
    ------
    ValueError
        If `p` is not between 0 and 1.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False, inverted: bool = True):
        super().__init__()
        self.inplace = bool(inplace)
        self.p = real(f"{type(self).__name__}: p", p, 0, 1)
        self.inverted = inverted

    def forward(self, input: Tensor) -> Tensor:
        return dropout(input, self.p, self.training, inverted=self.inverted)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}" + ("" if self.inverted else ", inverted=False")


class _Variant(Dropout):
    """What dropout layers share that are always of the inverted form."""

    _function: Callable

    def __init__(self, p: float = 0.5, inplace: bool = False):
        super().__init__(p, inplace)

    def forward(self, input: Tensor) -> Tensor:
        return type(self)._function(input, self.p, self.training)


class Dropout1d(_Variant):
    """Sets whole channels of (N, C, L), or of (C, L), to 0 with probability `p` in training; others grow by 1 / (1 -
    p).

    Parameters
    ----------
    p : float
        Probability of dropping a channel, between 0 and 1.
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.

    References
    ----------
    J. Tompson et al., "Efficient object localization using convolutional networks", CVPR 2015.
    """

    _function = staticmethod(dropout1d)


class Dropout2d(_Variant):
    """`Dropout1d` of images, (N, C, H, W) or (C, H, W); parameters as there."""

    _function = staticmethod(dropout2d)


class AlphaDropout(_Variant):
    """Dropout for networks of `SELU`: keeps mean 0 and variance 1; see `fastnn.functional.alpha_dropout`.

    Parameters
    ----------
    p : float
        Probability of dropping an element, between 0 and 1.
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.

    References
    ----------
    G. Klambauer et al., "Self-normalizing neural networks", NIPS 2017.
    """

    _function = staticmethod(alpha_dropout)


class FeatureAlphaDropout(_Variant):
    """`AlphaDropout` of whole channels of (N, C, ...); see `fastnn.functional.feature_alpha_dropout`; parameters as there."""

    _function = staticmethod(feature_alpha_dropout)


class GaussianNoise(Module):
    """Adds normal noise of mean 0 while training; any shape.

    Parameters
    ----------
    std : float
        Its standard deviation.

    Raises
    ------
    ValueError
        If `std` is negative.

    References
    ----------
    C. M. Bishop, "Training with noise is equivalent to Tikhonov regularization", Neural Computation 7(1), 1995.
    """

    def __init__(self, std: float = 0.1):
        super().__init__()
        self.std = real("GaussianNoise: std", std, 0)

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.std == 0:
            return input
        return add(input, mul(randn(*input.shape, dtype=input.dtype), self.std))

    def extra_repr(self) -> str:
        return f"std={self.std}"
