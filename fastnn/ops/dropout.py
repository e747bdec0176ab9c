"""Dropout."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .._core import launch, record
from ..checks import a_tensor, real
from ..random import Generator, generator_state
from .create import ones, zeros
from .math import add, mul

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["alpha_dropout", "dropout", "dropout1d", "dropout2d", "feature_alpha_dropout"]


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, inverted: bool = True,
            generator: Generator | None = None) -> Tensor:
    """Sets each element to 0 with probability `p`, in training only.

    Parameters
    ----------
    input : Tensor
        float32 or float64, any shape.
    p : float
        Probability of dropping an element, between 0 and 1.
    training : bool
        Whether to drop. Otherwise the result is what dropping gives on average.
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.
    inverted : bool
        Whether elements that stay are divided by 1 - p in training, so that inference changes nothing (the usual form).
        The original form, False, leaves them as they are, and inference multiplies by 1 - p.
    generator : Generator, optional
        Where random numbers come from; by default `fastnn.manual_seed`'s.

    Returns
    -------
    Tensor
        Shape and type of `input`. A dropped element is 0 even where `input` is NaN or infinite; PyTorch multiplies by the mask,
        which leaves NaN there.

    Raises
    ------
    ValueError
        If `p` is not between 0 and 1.

    References
    ----------
    Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15, 2014.
    """
    p = real("dropout: p", p, 0, 1)
    if p == 0:
        return input
    if not training:
        return input if inverted else mul(input, 1 - p)
    scale = 1 / (1 - p) if inverted and p < 1 else 1.0
    y, mask = launch.dropout_forward(input, generator_state(generator), p=p, scale=scale, shift=-0.0, dropped=0.0, ordinal=0)
    record(_dropout_backward, (input,), y, saved=(mask,), context=scale)
    return y


def _dropout_backward(node, dy):
    return launch.dropout_backward(dy, node.saved[0], scale=node.context)


# ---- whole channels --------------------------------------------------------------------------------------------------


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False,
              generator: Generator | None = None) -> Tensor:
    """Sets whole channels to 0 with probability `p`, in training only; others grow by 1 / (1 - p).

    Parameters
    ----------
    input : Tensor
        (N, C, L), or (C, L).
    p : float
        Probability of dropping a channel, between 0 and 1.
    training : bool
        Whether to drop; otherwise the result is `input`.
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.
    generator : Generator, optional
        Where random numbers come from; by default `fastnn.manual_seed`'s.

    Returns
    -------
    Tensor
        Shape and type of `input`.

    Raises
    ------
    ValueError
        If `p` is not between 0 and 1, or `input` has another number of axes.

    References
    ----------
    J. Tompson et al., "Efficient object localization using convolutional networks", CVPR 2015.
    """
    return _channel_dropout("dropout1d", 3, input, p, training, generator)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False,
              generator: Generator | None = None) -> Tensor:
    """`dropout1d` of images, (N, C, H, W) or (C, H, W); parameters and errors as there."""
    return _channel_dropout("dropout2d", 4, input, p, training, generator)


def _channel_dropout(name: str, rank: int, x: Tensor, p: float, training: bool, generator: Generator | None) -> Tensor:
    p = real(f"{name}: p", p, 0, 1)
    if a_tensor(name, x).ndim not in (rank - 1, rank):
        raise ValueError(f"{name}: input has shape {x.shape}, but must have {rank} axes (or {rank - 1}, without the batch)")
    if not training or p == 0:
        return x
    spatial = rank - 2
    return mul(x, dropout(ones(*x.shape[:-spatial], *[1] * spatial, dtype=x.dtype), p, generator=generator))


# ---- for self-normalising networks -----------------------------------------------------------------------------------

_SATURATION = 1.7580993408473766  # -SELU(x) for large negative x: its scale times its alpha


def _affine(p: float) -> tuple[float, float, float]:
    """The factor a and the two values that keep mean 0 and variance 1: y = a x + kept, or dropped."""
    factor = 1 / math.sqrt((_SATURATION**2 * p + 1) * (1 - p))
    return factor, factor * _SATURATION * p, factor * _SATURATION * (p - 1)


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False,
                  generator: Generator | None = None) -> Tensor:
    """Sets each element to SELU's negative limit with probability `p`, and scales and shifts all, in training only.

    What has mean 0 and variance 1 keeps them.

    Parameters
    ----------
    input : Tensor
        float32 or float64, any shape.
    p : float
        Probability of dropping an element, between 0 and 1; with 1 all become 0.
    training : bool
        Whether to drop; otherwise the result is `input`.
    inplace : bool
        Taken for PyTorch's sake: the result has memory of its own.
    generator : Generator, optional
        Where random numbers come from; by default `fastnn.manual_seed`'s.

    Returns
    -------
    Tensor
        Shape and type of `input`.

    Raises
    ------
    ValueError
        If `p` is not between 0 and 1.

    References
    ----------
    G. Klambauer et al., "Self-normalizing neural networks", NIPS 2017.
    """
    p = real("alpha_dropout: p", p, 0, 1)
    if p == 0 or not training:
        return input
    factor, kept, dropped = _affine(p) if p < 1 else (1.0, 0.0, 0.0)
    y, mask = launch.dropout_forward(input, generator_state(generator), p=p, scale=factor, shift=kept, dropped=dropped, ordinal=0)
    return record(_dropout_backward, (input,), y, saved=(mask,), context=factor)


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False,
                          generator: Generator | None = None) -> Tensor:
    """`alpha_dropout` of whole channels of (N, C, ...), each dropped or kept as one; parameters as there.

    Raises
    ------
    ValueError
        If `p` is not between 0 and 1, or `input` has no channels.
    """
    p = real("feature_alpha_dropout: p", p, 0, 1)
    if a_tensor("feature_alpha_dropout", input).ndim < 2:
        raise ValueError(f"feature_alpha_dropout: input has shape {input.shape}, but must be (N, C, ...)")
    if p == 0 or not training:
        return input
    factor, kept, dropped = _affine(p) if p < 1 else (1.0, 0.0, 0.0)
    shape = (*input.shape[:2], *[1] * (input.ndim - 2))
    shift, mask = launch.dropout_forward(zeros(*shape, dtype=input.dtype), generator_state(generator), p=p, scale=1.0, shift=kept,
                                         dropped=dropped, ordinal=0)
    return add(mul(input, launch.dropout_backward(ones(*shape, dtype=input.dtype), mask, scale=factor)), shift)
