"""Batch normalisation in evaluation, taken into the weights of the layer before it."""

from __future__ import annotations

import copy

from ...checks import a_tensor
from ...ops.create import ones_like, zeros_like
from ...ops.elementary import rsqrt
from ...ops.math import add, mul, sub
from ...ops.shape import reshape
from ...tensor import Tensor, no_grad
from ..module import Module, Parameter, a_module

__all__ = ["fuse_conv_bn_eval", "fuse_conv_bn_weights", "fuse_linear_bn_eval", "fuse_linear_bn_weights"]


def _scaled(weight: Tensor, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float, gain: Tensor | None, shift: Tensor | None,
            axis: int) -> tuple[Parameter, Parameter]:
    for argument, value in (("the weight", weight), ("the mean", mean), ("the variance", var), ("the bias", bias), ("the gain", gain),
                            ("the shift", shift)):
        if value is not None or argument in ("the weight", "the mean", "the variance"):
            a_tensor("batch normalisation into a layer", value, argument)
    bias = zeros_like(mean) if bias is None else bias
    gain = ones_like(mean) if gain is None else gain
    shift = zeros_like(mean) if shift is None else shift
    with no_grad():
        scale = mul(gain, rsqrt(add(var, eps)))
        new = mul(weight, reshape(scale, [-1 if d == axis else 1 for d in range(weight.ndim)]))
        return (Parameter(new, weight.requires_grad), Parameter(add(mul(sub(bias, mean), scale), shift), bias.requires_grad))


def fuse_conv_bn_weights(conv_w: Tensor, conv_b: Tensor | None, bn_rm: Tensor, bn_rv: Tensor, bn_eps: float, bn_w: Tensor | None,
                         bn_b: Tensor | None, transpose: bool = False) -> tuple[Parameter, Parameter]:
    """A convolution's weight and bias with the batch normalisation behind it: w' = w s, b' = (b - mean) s + shift,
    s = gain / sqrt(var + eps).

    Parameters
    ----------
    conv_w : Tensor
        (out, in / groups, ...); (in, out / groups, ...) if `transpose`.
    conv_b : Tensor, optional
        (out,).
    bn_rm, bn_rv : Tensor
        (out,), running mean and variance.
    bn_eps : float
        Added to the variance.
    bn_w, bn_b : Tensor, optional
        (out,), gain and shift.
    transpose : bool
        Whether the weight is that of a transposed convolution, of one group.

    Returns
    -------
    tuple of Parameter
        Weight and bias.
    """
    return _scaled(conv_w, conv_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, 1 if transpose else 0)


def fuse_linear_bn_weights(linear_w: Tensor, linear_b: Tensor | None, bn_rm: Tensor, bn_rv: Tensor, bn_eps: float,
                           bn_w: Tensor | None,
                           bn_b: Tensor | None) -> tuple[Parameter, Parameter]:
    """A linear layer's weight, (out, in), and bias with the batch normalisation behind it; see `fuse_conv_bn_weights`."""
    return _scaled(linear_w, linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, 0)


def _fused(name: str, layer: Module, bn: Module, axis: int) -> Module:
    a_module(name, layer, "the layer"), a_module(name, bn, "bn")
    if layer.training or bn.training:
        raise ValueError(f"{name}: both layers must be in evaluation mode: call eval() first")
    if bn.running_mean is None:
        raise ValueError(f"{name}: bn has no running statistics")
    fused = copy.deepcopy(layer)
    fused.weight, fused.bias = _scaled(layer.weight, layer.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias, axis)
    return fused


def fuse_conv_bn_eval(conv: Module, bn: Module, transpose: bool = False) -> Module:
    """A copy of a convolution that computes what it and the batch normalisation behind it compute in evaluation.

    Parameters
    ----------
    conv : Module
        Conv1d, Conv2d, or a transposed one.
    bn : Module
        BatchNorm1d or BatchNorm2d with running statistics.
    transpose : bool
        Whether the convolution is transposed, with one group.

    Returns
    -------
    Module

    Raises
    ------
    ValueError
        If a layer is in training mode or `bn` has no running statistics.
    """
    return _fused("fuse_conv_bn_eval", conv, bn, 1 if transpose else 0)


def fuse_linear_bn_eval(linear: Module, bn: Module) -> Module:
    """A copy of a linear layer that computes what it and the BatchNorm1d behind it compute in evaluation; see
    `fuse_conv_bn_eval`."""
    outputs, features = getattr(linear, "out_features", None), getattr(bn, "num_features", None)
    if outputs != features and features != 1:
        raise ValueError(f"fuse_linear_bn_eval: linear has {outputs} outputs, but bn has {features} features")
    return _fused("fuse_linear_bn_eval", linear, bn, 0)
