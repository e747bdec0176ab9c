"""Normalisation along neighbouring channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core import launch, record
from ..checks import a_tensor

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["local_response_norm"]


def local_response_norm(x: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """y = x / (k + alpha / size * sum of x^2 over `size` neighbouring channels)^beta.

    Parameters
    ----------
    x : Tensor
        (N, C, ...).
    size : int
        Channels of a window; the channel itself is its element size // 2.
    alpha, beta, k : float
        As in the formula.

    Returns
    -------
    Tensor
        Of x's shape.

    Raises
    ------
    ValueError
        If `size` is below 1 or `x` has fewer than three axes.

    References
    ----------
    A. Krizhevsky, I. Sutskever and G. E. Hinton, "ImageNet classification with deep convolutional neural networks",
    NeurIPS 2012, section 3.3.
    """
    if a_tensor("local_response_norm", x).ndim < 3:
        raise ValueError(f"local_response_norm: x has shape {x.shape}, but must be (N, C, ...) with at least 3 axes")
    y, scale = launch.local_response_forward(x, size=size, alpha=alpha, beta=beta, k=k)
    return record(_local_response_backward, (x,), y, (x, scale), {"size": size, "alpha": alpha, "beta": beta})


def _local_response_backward(node, dy):
    return launch.local_response_backward(dy, *node.saved, **node.context)
