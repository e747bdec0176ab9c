"""Normalisation along neighbouring channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core import launch, record
from ..checks import a_tensor

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["local_response_norm"]


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """y = x / (k + alpha / size * sum of x^2 over `size` neighbouring channels)^beta.

    Parameters
    ----------
    input : Tensor
        (N, C, ...).
    size : int
        Channels of a window; the channel itself is its element size // 2.
    alpha, beta, k : float
        As in the formula.

    Returns
    -------
    Tensor
        Of `input`'s shape.

    Raises
    ------
    ValueError
        If `size` is below 1 or `input` has fewer than three axes.

    References
    ----------
    A. Krizhevsky, I. Sutskever and G. E. Hinton, "ImageNet classification with deep convolutional neural networks",
    NeurIPS 2012, section 3.3.
    """
    if a_tensor("local_response_norm", input).ndim < 3:
        raise ValueError(f"local_response_norm: input has shape {input.shape}, but must be (N, C, ...) with at least 3 axes")
    y, scale = launch.local_response_forward(input, size=size, alpha=alpha, beta=beta, k=k)
    return record(_local_response_backward, (input,), y, (input, scale), {"size": size, "alpha": alpha, "beta": beta})


def _local_response_backward(node, dy):
    return launch.local_response_backward(dy, *node.saved, **node.context)
