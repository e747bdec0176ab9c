"""More elementary functions, element by element: rounding, near 0, reciprocals, what kind of number."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core import launch, record
from ..checks import a_tensor, number
from .create import as_tensor, zeros_like
from .math import (_back, _shapes, abs, add, clip, constant, div, eq, exp, floating, le, log, logical_and, logical_or, lt, maximum,
                   minimum, mul, ne, operands, scaled, sub, where)
from .reduce import Dim, sum

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["addcdiv", "addcmul", "ceil", "copysign", "expm1", "floor", "fmax", "fmin", "frac", "isclose", "isfinite", "isinf",
           "isnan",
           "isneginf", "isposinf", "lerp", "log1p", "logaddexp", "logit", "nan_to_num", "nanmean", "nansum", "reciprocal", "round",
           "rsqrt", "trunc", "xlogy"]


def floor(x: Tensor) -> Tensor:
    """The greatest whole number that is not above x; its gradient is 0.

    Parameters
    ----------
    x : Tensor
        Any shape; integers stay as they are.

    Returns
    -------
    Tensor
        Shape and type of `x`.
    """
    return _rounded(launch.floor, x)


def ceil(x: Tensor) -> Tensor:
    """The least whole number that is not below x; parameters as `floor`."""
    return _rounded(launch.ceil, x)


def round(x: Tensor) -> Tensor:
    """The nearest whole number, of two the even one; parameters as `floor`."""
    return _rounded(launch.round, x)


def trunc(x: Tensor) -> Tensor:
    """The next whole number towards 0; parameters as `floor`."""
    return _rounded(launch.trunc, x)


def frac(x: Tensor) -> Tensor:
    """What `trunc` takes away, of the sign of x; parameters as `floor`."""
    return sub(x, trunc(x))


def _rounded(op: Any, x: Any) -> Tensor:
    x = as_tensor(x)
    return record(_flat_backward, (x,), op(x)) if x.dtype.is_floating else x


def _flat_backward(node, dy):
    return zeros_like(dy)


def expm1(x: Tensor) -> Tensor:
    """exp(x) - 1, exact where x is near 0.

    Parameters
    ----------
    x : Tensor
        Any shape; integers become float32.

    Returns
    -------
    Tensor
        Shape of `x`.
    """
    x = floating("expm1", x)
    y = launch.expm1(x)
    return record(_expm1_backward, (x,), y, saved=(y,))


def _expm1_backward(node, dy):
    return launch.add(launch.mul(dy, node.saved[0]), dy)


def log1p(x: Tensor) -> Tensor:
    """log(1 + x), exact where x is near 0; -inf at -1, NaN below; parameters as `expm1`."""
    x = floating("log1p", x)
    return record(_log1p_backward, (x,), launch.log1p(x), saved=(x,))


def _log1p_backward(node, dy):
    return div(dy, add(node.saved[0], 1.0))


def reciprocal(x: Tensor) -> Tensor:
    """1 / x; parameters as `expm1`."""
    return div(1.0, floating("reciprocal", x))


def rsqrt(x: Tensor) -> Tensor:
    """1 / sqrt(x): inf at 0, NaN below; parameters as `expm1`."""
    x = floating("rsqrt", x)
    y = div(1.0, launch.sqrt(x.detach()))
    return record(_rsqrt_backward, (x,), y, saved=(y,))


def _rsqrt_backward(node, dy):
    (y,) = node.saved
    return mul(launch.mul(launch.mul(dy, y), launch.square(y)), -0.5)


def logit(x: Tensor, eps: float | None = None) -> Tensor:
    """log(x / (1 - x)), the inverse of the logistic function; NaN outside of 0 to 1.

    Parameters
    ----------
    x : Tensor
        Any shape; integers become float32.
    eps : float, optional
        x is at least `eps` and at most 1 - `eps` first.

    Returns
    -------
    Tensor
        Shape of `x`.
    """
    x = floating("logit", x)
    x = x if eps is None else clip(x, eps, 1 - eps)
    return log(div(x, sub(1.0, x)))


def xlogy(x: Tensor | float, y: Tensor | float) -> Tensor:
    """x log(y), which is 0 where x is 0, whatever y is but NaN.

    Parameters
    ----------
    x, y : Tensor or number
        Shapes that broadcast together.

    Returns
    -------
    Tensor
        The broadcast shape.
    """
    x, y = operands("xlogy", x, y)
    x, y = floating("xlogy", x), floating("xlogy", y)
    flat = logical_and(eq(x, 0), logical_or(le(y, 0), isinf(y)))  # where the product alone would be NaN
    return where(flat, 0.0, mul(x, log(where(flat, 1.0, y))))


def logaddexp(a: Tensor, b: Tensor) -> Tensor:
    """log(exp(a) + exp(b)), without overflow.

    Parameters
    ----------
    a, b : Tensor
        Shapes that broadcast together.

    Returns
    -------
    Tensor
        The broadcast shape.
    """
    a, b = operands("logaddexp", a, b)
    high, low = maximum(a, b), minimum(a, b)
    even = logical_and(eq(a, b), eq(abs(a), math.inf))  # their difference would be NaN
    return where(even, high, add(high, log1p(exp(where(even, -math.inf, sub(low, high))))))


def copysign(a: Tensor | float, b: Tensor | float) -> Tensor:
    """|a| with the sign of b, of its zeros too.

    Parameters
    ----------
    a, b : Tensor or number
        Shapes that broadcast together.

    Returns
    -------
    Tensor
        The broadcast shape. The gradient with respect to b is 0.
    """
    a, b = operands("copysign", a, b)
    a, b = floating("copysign", a), floating("copysign", b)
    y = launch.copysign(a, b)
    return record(_copysign_backward, (a, b), y, saved=(a, b) if a.requires_grad else (), context=_shapes(a, b))


def _copysign_backward(node, dy):
    if not node.needs[0]:
        return None, None
    a, b = node.saved
    return _back(node, launch.mul(dy, launch.mul(launch.sign(a), launch.copysign(constant(1.0, b.dtype), b))), None)


def fmax(a: Tensor | float, b: Tensor | float) -> Tensor:
    """The greater of each pair, the other one where one is NaN.

    Parameters
    ----------
    a, b : Tensor or number
        Shapes that broadcast together.

    Returns
    -------
    Tensor
        The broadcast shape. Of equals the first has the gradient.
    """
    a, b = operands("fmax", a, b)
    return where(_first(le(b, a), a, b), a, b)


def fmin(a: Tensor | float, b: Tensor | float) -> Tensor:
    """The less of each pair, the other one where one is NaN; see `fmax`."""
    a, b = operands("fmin", a, b)
    return where(_first(le(a, b), a, b), a, b)


def _first(wins: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Where the first of a pair is taken: it wins, or the second is NaN."""
    return wins if not a.dtype.is_floating else where(isnan(b), True, wins)


def nan_to_num(x: Tensor, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Tensor:
    """x with other numbers in place of NaN and infinities.

    Parameters
    ----------
    x : Tensor
        Any shape and type.
    nan : float
        In place of NaN.
    posinf, neginf : float, optional
        In place of the infinities; by default the greatest and the least finite number of the type.

    Returns
    -------
    Tensor
        Shape and type of `x`.
    """
    x = as_tensor(x)
    if not x.dtype.is_floating:
        return x
    most = float(np.finfo(x.dtype.name).max)
    x = where(isnan(x), number("nan_to_num: nan", nan), x)
    x = where(isposinf(x), most if posinf is None else number("nan_to_num: posinf", posinf), x)
    return where(isneginf(x), -most if neginf is None else number("nan_to_num: neginf", neginf), x)


def nansum(x: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """The sum over axes, NaN counting as 0; parameters as `sum`."""
    return sum(where(isnan(x), 0.0, x) if a_tensor("nansum", x).dtype.is_floating else x, dim, keepdim)


def nanmean(x: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """The mean over axes of elements other than NaN, NaN of none; parameters as `mean`."""
    return div(nansum(x, dim, keepdim), sum(eq(x.detach(), x.detach()), dim, keepdim))


def isnan(x: Tensor) -> Tensor:
    """Where x is NaN.

    Parameters
    ----------
    x : Tensor
        Any shape and type.

    Returns
    -------
    Tensor
        bool, shape of `x`.
    """
    x = as_tensor(x).detach()
    return ne(x, x)


def isinf(x: Tensor) -> Tensor:
    """Where x is infinite; parameters as `isnan`."""
    x = as_tensor(x).detach()
    return eq(abs(x), math.inf) if x.dtype.is_floating else ne(x, x)


def isposinf(x: Tensor) -> Tensor:
    """Where x is infinity; parameters as `isnan`."""
    return eq(as_tensor(x).detach(), math.inf)


def isneginf(x: Tensor) -> Tensor:
    """Where x is minus infinity; parameters as `isnan`."""
    return eq(as_tensor(x).detach(), -math.inf)


def isclose(a: Tensor, b: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Where two tensors differ by at most atol + rtol |b|.

    Parameters
    ----------
    a, b : Tensor
        Shapes that broadcast together.
    rtol, atol : float
        What is allowed, of b's size and beside it.
    equal_nan : bool
        Whether NaN is close to NaN.

    Returns
    -------
    Tensor
        bool, the broadcast shape.
    """
    a, b = (t.detach() for t in operands("isclose", a, b))
    near = logical_and(le(abs(sub(a, b)), add(mul(abs(b), rtol), atol)), isfinite(b))
    near = where(eq(a, b), True, near)
    return where(logical_and(isnan(a), isnan(b)), True, near) if equal_nan else near


def isfinite(x: Tensor) -> Tensor:
    """Where x is neither infinite nor NaN; parameters as `isnan`."""
    x = as_tensor(x).detach()
    return lt(abs(x), math.inf) if x.dtype.is_floating else eq(x, x)


def lerp(start: Tensor, end: Tensor, weight: Tensor | float) -> Tensor:
    """Part of the way from one tensor to another: start + weight (end - start).

    Parameters
    ----------
    start, end : Tensor
        float32 or float64, shapes that broadcast.
    weight : Tensor or float
        0: start, 1: end.

    Returns
    -------
    Tensor
        The common shape.

    Raises
    ------
    TypeError
        If `start` or `end` holds integers or bools.
    """
    for argument, x in (("start", start), ("end", end)):
        if not a_tensor("lerp", x, argument).dtype.is_floating:
            raise TypeError(f"lerp: {argument} has dtype {x.dtype}, but must be float32 or float64: convert it first, x.float()")
    return add(start, mul(weight, sub(end, start)))


def addcmul(x: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1.0) -> Tensor:
    """x + value tensor1 tensor2, of integers as integers.

    Parameters
    ----------
    x, tensor1, tensor2 : Tensor
        Shapes that broadcast.
    value : float
        A factor; a whole number where all three hold integers.

    Returns
    -------
    Tensor
        The common shape.

    Raises
    ------
    TypeError
        If all three hold integers and `value` is not whole.
    """
    if not _holds_fractions(x, tensor1, tensor2):
        return add(x, mul(scaled("addcmul: value", tensor1, value), tensor2))
    return add(x, mul(mul(tensor1, value), tensor2))


def _holds_fractions(*tensors: Any) -> bool:
    """Whether one is of a floating type."""
    return any(as_tensor(x).dtype.is_floating for x in tensors)


def addcdiv(x: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1.0) -> Tensor:
    """x + value tensor1 / tensor2; parameters as `addcmul`, but one of `tensor1` and `tensor2` must be of a floating type."""
    if not _holds_fractions(tensor1, tensor2):
        raise TypeError("addcdiv: tensor1 and tensor2 hold integers, but one must be float32 or float64: convert it first, "
                        "x.float(); x + value * div(tensor1, tensor2, rounding_mode='trunc') divides integers")
    return add(x, div(mul(tensor1, value), tensor2))
