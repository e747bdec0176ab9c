"""Normalisation."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from .._core import TensorBase, launch, record
from .create import tensor

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["batch_norm"]


@functools.lru_cache(maxsize=64)
def constant(value: float, dtype: str = "float64") -> Tensor:
    """A 0-d tensor that nobody writes to: what a Python number becomes for ops that read numbers from memory."""
    return tensor(value, dtype)


def batch_norm(x: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
               bias: Tensor | None = None, training: bool = False, momentum: float | Tensor = 0.1,
               eps: float = 1e-5) -> Tensor:
    """Normalises each channel over the batch: y = (x - mean) / sqrt(var + eps) * weight + bias.

    Parameters
    ----------
    x : Tensor
        (N, C), (N, C, L), (N, C, H, W) or (N, C, D, H, W).
    running_mean, running_var : Tensor or None
        (C,). In training they move towards the batch's mean and unbiased variance, in place; otherwise they are what is
        used.
    weight, bias : Tensor, optional
        (C,). By default 1 and 0.
    training : bool
        Whether to use the batch's own mean and (biased) variance.
    momentum : float or Tensor
        How far the running statistics move: (1 - momentum) running + momentum new. A tensor is 0-d float64.
    eps : float
        Added to the variance.

    Returns
    -------
    Tensor
        Of x's shape.

    Raises
    ------
    ValueError
        If shapes do not fit; in training, if there are fewer than two values per channel; otherwise, if a running
        statistic is None.

    References
    ----------
    S. Ioffe and C. Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate
    shift", ICML 2015.
    """
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError("batch_norm: running_mean and running_var are needed unless training is True")
        y = launch.batch_norm_inference(x, running_mean, running_var, weight, bias, eps=eps)
        saved = (x, running_mean, running_var, weight)
        return record(_inference_backward, (x, weight, bias), y, saved=saved, context=eps)
    y, mean, var, rstd = launch.batch_norm_forward(x, weight, bias, eps=eps)
    if running_mean is not None or running_var is not None:
        rate = momentum if isinstance(momentum, TensorBase) else constant(float(momentum))
        count = x.numel() // x.shape[1] if x.shape[1] else 2
        if running_mean is not None:
            launch.running_update(running_mean, mean, rate, scale=1.0, out=running_mean)
        if running_var is not None:
            launch.running_update(running_var, var, rate, scale=count / (count - 1), out=running_var)
    return record(_batch_norm_backward, (x, weight, bias), y, saved=(x, mean, rstd, weight))


def _batch_norm_backward(node, dy):
    return launch.batch_norm_backward(dy, *node.saved, training=True)


def _inference_backward(node, dy):
    x, mean, var, weight = node.saved
    dtype = x.dtype.name
    rstd = launch.div(constant(1.0, dtype), launch.sqrt(launch.add(var, constant(node.context, dtype))))
    return launch.batch_norm_backward(dy, x, mean, rstd, weight, training=False)
