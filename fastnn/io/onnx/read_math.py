"""Operators that compute: elementwise, comparisons, products, reductions."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ... import functional as F
from ...tensor import Tensor
from .operators import only, reads

_ONE = {"Abs": F.abs, "Acos": F.acos, "Acosh": F.acosh, "Asin": F.asin, "Asinh": F.asinh, "Atan": F.atan, "Atanh": F.atanh,
        "Ceil": F.ceil, "Cos": F.cos, "Cosh": F.cosh, "Erf": F.erf, "Exp": F.exp, "Floor": F.floor, "HardSwish": F.hardswish,
        "Identity": F.identity, "IsNaN": F.isnan, "Log": F.log, "Mish": F.mish, "Neg": F.neg, "Not": F.logical_not,
        "Reciprocal": F.reciprocal, "Relu": F.relu, "Round": F.round, "Sigmoid": F.sigmoid, "Sign": F.sign, "Sin": F.sin,
        "Sinh": F.sinh, "Softplus": F.softplus, "Softsign": F.softsign, "Sqrt": F.sqrt, "Tan": F.tan, "Tanh": F.tanh}
_TWO = {"Add": F.add, "Sub": F.sub, "Mul": F.mul, "And": F.logical_and, "Or": F.logical_or, "Xor": F.logical_xor,
        "Equal": F.eq, "Less": F.lt, "LessOrEqual": F.le, "Greater": F.gt, "GreaterOrEqual": F.ge, "MatMul": F.matmul}
_SEVERAL = {"Max": F.maximum, "Min": F.minimum, "Sum": F.add}


def _of_one(function: Callable) -> Callable[[Tensor], Tensor]:
    return lambda x: function(x)


def _of_two(function: Callable) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda a, b: function(a, b)


def _of_several(function: Callable) -> Callable[..., Tensor]:
    return lambda first, *more: functools.reduce(function, more, first)


for _make, _table in ((_of_one, _ONE), (_of_two, _TWO), (_of_several, _SEVERAL)):
    for _name, _function in _table.items():
        reads(_name)(_make(_function))


# ---- elementwise, with something to say ----


@reads("Div")
def _div(a: Tensor, b: Tensor) -> Tensor:
    return F.div(a, b) if a.dtype.is_floating or b.dtype.is_floating else F.div(a, b, rounding_mode="trunc")


@reads("Pow")
def _pow(a: Tensor, b: Tensor) -> Tensor:
    return F.pow(a, b if b.dtype == a.dtype else F.to(b, a.dtype))


@reads("Mod")
def _mod(a: Tensor, b: Tensor, *, fmod: int = 0) -> Tensor:
    return F.fmod(a, b) if fmod else F.remainder(a, b)


@reads("Mean")
def _mean(first: Tensor, *more: Tensor) -> Tensor:
    return F.div(functools.reduce(F.add, more, first), 1 + len(more))


@reads("Where")
def _where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return F.where(condition, a, b)


@reads("Clip", plain=(1, 2))
def _clip(x: Tensor, low: np.ndarray | None = None, high: np.ndarray | None = None, *, min: float | None = None,
          max: float | None = None) -> Tensor:
    bounds = [given if array is None else array.item() for given, array in ((min, low), (max, high))]
    return x if bounds == [None, None] else F.clip(x, *bounds)


@reads("IsInf")
def _is_inf(x: Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> Tensor:
    if detect_negative and detect_positive:
        return F.isinf(x)
    return F.isneginf(x) if detect_negative else F.isposinf(x)


@reads("LeakyRelu")
def _leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    return F.leaky_relu(x, alpha)


@reads("PRelu")
def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    return F.where(F.gt(x, 0), x, F.mul(x, slope))


@reads("Elu")
def _elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.elu(x, alpha)


@reads("Celu")
def _celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.celu(x, alpha)


@reads("Selu")
def _selu(x: Tensor, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875) -> Tensor:
    return F.mul(F.elu(x, alpha), gamma)


@reads("Gelu")
def _gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    return F.gelu(x, approximate)


@reads("Swish")
def _swish(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.mul(x, F.sigmoid(F.mul(x, alpha)))


@reads("HardSigmoid")
def _hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return F.clip(F.add(F.mul(x, alpha), beta), 0.0, 1.0)


@reads("ThresholdedRelu")
def _thresholded_relu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.threshold(x, alpha, 0.0)


@reads("Shrink")
def _shrink(x: Tensor, *, lambd: float = 0.5, bias: float = 0.0) -> Tensor:
    below, above = F.lt(x, -lambd), F.gt(x, lambd)
    return F.where(below, F.add(x, bias), F.where(above, F.sub(x, bias), F.mul(x, 0.0)))


@reads("Dropout", plain=(1, 2))
def _dropout(x: Tensor, share: np.ndarray | None = None, training_mode: np.ndarray | None = None, *, ratio: float = 0.5,
             seed: int = 0) -> Tensor:
    """Files tell what is computed in inference, where nothing is dropped."""
    only("training_mode", training_mode is not None and bool(training_mode.item()), False)
    return x


# ---- softmax ----


def _along(function: Callable) -> Callable[..., Tensor]:
    """Before opset 13 all axes from `axis` on are one."""
    def run(x: Tensor, *, axis: int | None = None, opset: int) -> Tensor:
        if opset >= 13:
            return function(x, -1 if axis is None else axis)
        first = 1 if axis is None else axis % max(x.ndim, 1)
        rows = F.reshape(x, (math.prod(x.shape[:first]), math.prod(x.shape[first:])))
        return F.reshape(function(rows, 1), x.shape)

    return run


for _name, _function in (("Softmax", F.softmax), ("LogSoftmax", F.log_softmax)):
    reads(_name)(_along(_function))


# ---- products ----


@reads("Gemm")
def _gemm(a: Tensor, b: Tensor, c: Tensor | None = None, *, alpha: float = 1.0, beta: float = 1.0, transA: int = 0,
          transB: int = 0) -> Tensor:
    a = F.transpose(a) if transA else a
    if alpha == 1 and transB and (c is None or (beta == 1 and c.shape == b.shape[:1])):
        return F.linear(a, b, c)
    y = F.matmul(a, F.transpose(b) if transB else b)
    y = y if alpha == 1 else F.mul(y, alpha)
    return y if c is None else F.add(y, c if beta == 1 else F.mul(c, beta))


@reads("Einsum")
def _einsum(*inputs: Tensor, equation: str) -> Tensor:
    return F.einsum(equation, *inputs)


# ---- reductions ----


def _sum_of_magnitudes(x: Tensor, axes: Any, keepdim: bool) -> Tensor:
    return F.sum(F.abs(x), axes, keepdim)


def _norm(x: Tensor, axes: Any, keepdim: bool) -> Tensor:
    return F.sqrt(F.sum(F.square(x), axes, keepdim))


def _sum_of_squares(x: Tensor, axes: Any, keepdim: bool) -> Tensor:
    return F.sum(F.square(x), axes, keepdim)


def _log_of_sum(x: Tensor, axes: Any, keepdim: bool) -> Tensor:
    return F.log(F.sum(x, axes, keepdim))


def _product(x: Tensor, axes: Any, keepdim: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = F.prod(x, axis, keepdim)
    return x


_REDUCED = {"ReduceSum": F.sum, "ReduceMean": F.mean, "ReduceMax": F.amax, "ReduceMin": F.amin, "ReduceLogSumExp": F.logsumexp,
            "ReduceL1": _sum_of_magnitudes, "ReduceL2": _norm, "ReduceSumSquare": _sum_of_squares, "ReduceLogSum": _log_of_sum,
            "ReduceProd": _product}


def _over_axes(function: Callable) -> Callable[..., Tensor]:
    """Axes are an attribute in older files and an input in newer ones; without any it is all of them."""
    def run(x: Tensor, given: np.ndarray | None = None, *, axes: list[int] | None = None, keepdims: int = 1,
            noop_with_empty_axes: int = 0) -> Tensor:
        wanted = axes if given is None else given.reshape(-1).tolist()
        if not wanted and noop_with_empty_axes:
            return x
        every = tuple(wanted or range(x.ndim))
        return function(x, every, bool(keepdims)) if every else x

    return run


for _name, _function in _REDUCED.items():
    reads(_name, plain=(1,))(_over_axes(_function))


@reads("ArgMax")
def _argmax(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    only("select_last_index", select_last_index, 0)
    return F.argmax(x, axis, bool(keepdims))


@reads("ArgMin")
def _argmin(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    only("select_last_index", select_last_index, 0)
    return F.argmin(x, axis, bool(keepdims))


@reads("CumSum", plain=(1,))
def _cumsum(x: Tensor, axis: np.ndarray, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    dim = int(axis.item())
    y = F.flip(F.cumsum(F.flip(x, (dim,)), dim), (dim,)) if reverse else F.cumsum(x, dim)
    return F.sub(y, x) if exclusive else y


@reads("LpNormalization")
def _lp_normalization(x: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    only("p", p, 1, 2)
    return F.div(x, _norm(x, (axis,), True) if p == 2 else _sum_of_magnitudes(x, (axis,), True))


@reads("TopK", plain=(1,))
def _topk(x: Tensor, count: np.ndarray, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> tuple[Tensor, Tensor]:
    found = F.topk(x, int(count.item()), axis, bool(largest), True)
    return found.values, found.indices
