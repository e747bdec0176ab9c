"""Normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .._core import TensorBase, launch, record
from ..checks import a_tensor, number, real
from .create import float64
from .operands import constant

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "rms_norm"]


def batch_norm(input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
               bias: Tensor | None = None, training: bool = False, momentum: float | Tensor = 0.1,
               eps: float = 1e-5) -> Tensor:
    """Normalises each channel over the batch: y = (x - mean) / sqrt(var + eps) * weight + bias.

    Parameters
    ----------
    input : Tensor
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
        Added to the variance; at least 0.

    Returns
    -------
    Tensor
        Of `input`'s shape.

    Raises
    ------
    ValueError
        If shapes do not fit or `eps` is below 0; in training, if there are fewer than two values per channel; otherwise, if a running
        statistic is None.

    References
    ----------
    S. Ioffe and C. Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate
    shift", ICML 2015.
    """
    if type(eps) is not float or not eps >= 0:
        eps = real("batch_norm: eps", eps, 0.0)
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError("batch_norm: running_mean and running_var are needed unless training is True")
        y = launch.batch_norm_inference(input, running_mean, running_var, weight, bias, eps=eps)
        saved = (input, running_mean, running_var, weight)
        return record(_inference_backward, (input, weight, bias), y, saved=saved, context=eps)
    y, mean, var, rstd = launch.batch_norm_forward(input, weight, bias, eps=eps)
    if running_mean is not None or running_var is not None:
        rate = momentum if isinstance(momentum, TensorBase) else constant(float(momentum), float64)
        count = input.numel() // input.shape[1] if input.shape[1] else 2
        if running_mean is not None:
            launch.running_update(running_mean, mean, rate, scale=1.0, out=running_mean)
        if running_var is not None:
            launch.running_update(running_var, var, rate, scale=count / (count - 1), out=running_var)
    return record(_batch_norm_backward, (input, weight, bias), y, saved=(input, mean, rstd, weight))


def _batch_norm_backward(node, dy):
    return launch.batch_norm_backward(dy, *node.saved, training=True)


def _inference_backward(node, dy):
    x, mean, var, weight = node.saved
    rstd = launch.div(constant(1.0, x.dtype), launch.sqrt(launch.add(var, constant(node.context, x.dtype))))
    return launch.batch_norm_backward(dy, x, mean, rstd, weight, training=False)


# ---- the last axes ---------------------------------------------------------------------------------------------------


def _axes(name: str, x: Tensor, normalized_shape: int | Sequence[int]) -> int:
    """How many axes are normalised; an error unless they are the last ones of `x`."""
    shape = tuple(normalized_shape) if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
    if not shape or tuple(a_tensor(name, x).shape[-len(shape):]) != shape:
        raise ValueError(f"{name}: normalized_shape is {shape}, but must be the last axes of input, whose shape is "
                         f"{x.shape}")
    return len(shape)


def layer_norm(input: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None,
               bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Normalises over the last axes: y = (x - mean) / sqrt(var + eps) * weight + bias, with each row's own mean and
    variance.

    Parameters
    ----------
    input : Tensor
        (..., *normalized_shape).
    normalized_shape : int or sequence of int
        The last axes of `input`.
    weight, bias : Tensor, optional
        (*normalized_shape). By default 1 and 0.
    eps : float
        Added to the (biased) variance.

    Returns
    -------
    Tensor
        Of `input`'s shape.

    Raises
    ------
    ValueError
        If shapes do not fit.

    References
    ----------
    J. L. Ba, J. R. Kiros and G. E. Hinton, "Layer normalization", arXiv:1607.06450, 2016.
    """
    dims = _axes("layer_norm", input, normalized_shape)
    y, mean, rstd = launch.layer_norm_forward(input, weight, bias, dims=dims, eps=eps)
    return record(_layer_norm_backward, (input, weight, bias), y, (input, mean, rstd, weight), dims)


def _layer_norm_backward(node, dy):
    return launch.layer_norm_backward(dy, *node.saved, dims=node.context)


def rms_norm(input: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None,
             eps: float | None = None) -> Tensor:
    """Divides by the root mean square of the last axes: y = x / sqrt(mean(x^2) + eps) * weight.

    Parameters
    ----------
    input : Tensor
        (..., *normalized_shape).
    normalized_shape : int or sequence of int
        The last axes of `input`.
    weight : Tensor, optional
        (*normalized_shape). By default 1.
    eps : float, optional
        Added to the mean square; by default the type's machine epsilon.

    Returns
    -------
    Tensor
        Of `input`'s shape.

    Raises
    ------
    ValueError
        If shapes do not fit.

    References
    ----------
    B. Zhang and R. Sennrich, "Root mean square layer normalization", NeurIPS 2019.
    """
    dims = _axes("rms_norm", input, normalized_shape)
    eps = (2.0**-52 if input.dtype.name == "float64" else 2.0**-23) if eps is None else eps
    y, rstd = launch.rms_norm_forward(input, weight, dims=dims, eps=eps)
    return record(_rms_norm_backward, (input, weight), y, (input, rstd, weight), dims)


def _rms_norm_backward(node, dy):
    return launch.rms_norm_backward(dy, *node.saved, dims=node.context)


# ---- groups of channels ----------------------------------------------------------------------------------------------


def group_norm(input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
               eps: float = 1e-5) -> Tensor:
    """Normalises each image's groups of channels: y = (x - mean) / sqrt(var + eps) * weight + bias.

    Parameters
    ----------
    input : Tensor
        (N, C, ...).
    num_groups : int
        Number of groups of neighbouring channels; divides C. Mean and (biased) variance are over a group's channels
        and positions.
    weight, bias : Tensor, optional
        (C,). By default 1 and 0.
    eps : float
        Added to the variance.

    Returns
    -------
    Tensor
        Of `input`'s shape.

    Raises
    ------
    ValueError
        If shapes do not fit.

    References
    ----------
    Y. Wu and K. He, "Group normalization", ECCV 2018.
    """
    y, mean, _, rstd = launch.group_norm_forward(input, weight, bias, groups=num_groups, eps=eps)
    return record(_group_norm_backward, (input, weight, bias), y, (input, mean, rstd, weight), num_groups)


def _group_norm_backward(node, dy):
    return launch.group_norm_backward(dy, *node.saved, groups=node.context)


def instance_norm(input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None,
                  weight: Tensor | None = None,
                  bias: Tensor | None = None, use_input_stats: bool = True, momentum: float | Tensor = 0.1,
                  eps: float = 1e-5) -> Tensor:
    """Normalises each channel of each image: y = (x - mean) / sqrt(var + eps) * weight + bias.

    Parameters
    ----------
    input : Tensor
        (N, C, ...), with more than one position.
    running_mean, running_var : Tensor, optional
        (C,). With `use_input_stats` they move towards the mean over the images of their means and unbiased variances,
        in place; otherwise they are what is used.
    weight, bias : Tensor, optional
        (C,). By default 1 and 0.
    use_input_stats : bool
        Whether to use each image's own mean and (biased) variance.
    momentum : float or Tensor
        How far the running statistics move. A tensor is 0-d float64.
    eps : float
        Added to the variance.

    Returns
    -------
    Tensor
        Of `input`'s shape.

    Raises
    ------
    ValueError
        If shapes do not fit, or there is one position only; without `use_input_stats`, if a running statistic is None.

    References
    ----------
    D. Ulyanov, A. Vedaldi and V. Lempitsky, "Instance normalization: the missing ingredient for fast stylization",
    arXiv:1607.08022, 2016.
    """
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    if a_tensor("instance_norm", input).ndim < 3 or (count := input.numel() // max(input.shape[0] * input.shape[1], 1)) < 2:
        raise ValueError(f"instance_norm: input has shape {input.shape}, but must be (N, C, ...) with more than one position")
    y, mean, var, rstd = launch.group_norm_forward(input, weight, bias, groups=input.shape[1], eps=eps)
    rate = momentum if isinstance(momentum, TensorBase) else constant(number("instance_norm: momentum", momentum), float64)
    for running, new, scale in ((running_mean, mean, 1.0), (running_var, var, count / (count - 1))):
        if running is not None:
            average = launch.sum(new, axes=1, keepdim=0, divisor=float(input.shape[0]))
            launch.running_update(running, average, rate, scale=scale, out=running)
    return record(_group_norm_backward, (input, weight, bias), y, (input, mean, rstd, weight), input.shape[1])
