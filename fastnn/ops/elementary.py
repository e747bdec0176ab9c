"""More elementary functions, element by element: rounding, near 0, reciprocals, what kind of number."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core import launch, record
from ..checks import a_tensor, integer, number
from .create import as_tensor, zeros_like
from .math import _back, _shapes, abs, add, clip, div, eq, le, log, logical_or, lt, mul, ne, scaled, sub, where
from .operands import constant, floating, operands
from .reduce import Dim, sum
from .shape import to, unbroadcast

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["addcdiv", "addcmul", "ceil", "copysign", "expm1", "floor", "fmax", "fmin", "frac", "isclose", "isfinite", "isinf",
           "isnan",
           "isneginf", "isposinf", "lerp", "log1p", "logaddexp", "logit", "nan_to_num", "nanmean", "nansum", "reciprocal", "round",
           "rsqrt", "trunc", "xlogy"]


def floor(input: Tensor) -> Tensor:
    """The greatest whole number that is not above x; its gradient is 0.

    Parameters
    ----------
    input : Tensor
        Any shape; integers stay as they are.

    Returns
    -------
    Tensor
        Shape and type of `input`.
    """
    return _rounded(launch.floor, input)


def ceil(input: Tensor) -> Tensor:
    """The least whole number that is not below x; parameters as `floor`."""
    return _rounded(launch.ceil, input)


def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """The nearest whole number, of two the even one; its gradient is 0.

    Parameters
    ----------
    input : Tensor
        Any shape; integers stay as they are.
    decimals : int
        So many places behind the point are kept, below 0 so many in front of it made 0: of reals, by a power of ten.

    Returns
    -------
    Tensor
        Shape and type of `input`.

    Raises
    ------
    TypeError
        If `decimals` is not 0 and `input` holds integers.
    """
    if integer("round", "decimals", decimals) == 0:
        return _rounded(launch.round, input)
    x = as_tensor(input)
    if not x.dtype.is_floating:
        raise TypeError(f"round: decimals is {decimals}, but must be 0 where input holds integers")
    scale = 10.0**min(max(decimals, -decimals), 308)
    return div(round(mul(x, scale)), scale) if decimals > 0 else mul(round(div(x, scale)), scale)


def trunc(input: Tensor) -> Tensor:
    """The next whole number towards 0; parameters as `floor`."""
    return _rounded(launch.trunc, input)


def frac(input: Tensor) -> Tensor:
    """What `trunc` takes away, of the sign of x; parameters as `floor`."""
    return sub(input, trunc(input))


def _rounded(op: Any, x: Any) -> Tensor:
    x = as_tensor(x)
    return record(_flat_backward, (x,), op(x)) if x.dtype.is_floating else x


def _flat_backward(node, dy):
    return zeros_like(dy)


def expm1(input: Tensor) -> Tensor:
    """exp(x) - 1, exact where x is near 0.

    Parameters
    ----------
    input : Tensor
        Any shape; integers become float32.

    Returns
    -------
    Tensor
        Shape of `input`.
    """
    x = floating("expm1", input)
    y = launch.expm1(x)
    return record(_expm1_backward, (x,), y, saved=(y,))


def _expm1_backward(node, dy):
    return launch.add(launch.mul(dy, node.saved[0]), dy)


def log1p(input: Tensor) -> Tensor:
    """log(1 + x), exact where x is near 0; -inf at -1, NaN below; parameters as `expm1`."""
    x = floating("log1p", input)
    return record(_log1p_backward, (x,), launch.log1p(x), saved=(x,))


def _log1p_backward(node, dy):
    return div(dy, add(node.saved[0], 1.0))


def reciprocal(input: Tensor) -> Tensor:
    """1 / x; parameters as `expm1`."""
    return div(1.0, floating("reciprocal", input))


def rsqrt(input: Tensor) -> Tensor:
    """1 / sqrt(x): inf at 0, NaN below; parameters as `expm1`."""
    x = floating("rsqrt", input)
    y = launch.rsqrt(x)
    return record(_rsqrt_backward, (x,), y, saved=(y,))


def _rsqrt_backward(node, dy):
    return launch.rsqrt_backward(dy, node.saved[0])


def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """log(x / (1 - x)), the inverse of the logistic function; NaN outside of 0 to 1.

    Parameters
    ----------
    input : Tensor
        Any shape; integers become float32.
    eps : float, optional
        x is at least `eps` and at most 1 - `eps` first.

    Returns
    -------
    Tensor
        Shape of `input`.
    """
    x = floating("logit", input)
    x = x if eps is None else clip(x, eps := number("logit: eps", eps), 1 - eps)
    return log(div(x, sub(1.0, x)))


def xlogy(input: Tensor | float, other: Tensor | float) -> Tensor:
    """x log(y), which is 0 where x is 0, whatever y is but NaN.

    Parameters
    ----------
    input, other : Tensor or number
        Shapes that broadcast together.

    Returns
    -------
    Tensor
        The broadcast shape.
    """
    x, y = operands("xlogy", input, other)
    x, y = floating("xlogy", x), floating("xlogy", y)
    return record(_xlogy_backward, (x, y), launch.xlogy(x, y), saved=(x, y), context=_shapes(x, y))


def _xlogy_backward(node, dz):
    x, y = node.saved
    dx = launch.xlogy_backward_input(dz, x, y) if node.needs[0] else None
    return _back(node, dx, launch.xlogy_backward_other(dz, x, y) if node.needs[1] else None)


def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """log(exp(a) + exp(b)), without overflow.

    Parameters
    ----------
    input, other : Tensor
        Shapes that broadcast together.

    Returns
    -------
    Tensor
        The broadcast shape.
    """
    a, b = operands("logaddexp", input, other)
    a, b = floating("logaddexp", a), floating("logaddexp", b)
    return record(_logaddexp_backward, (a, b), launch.logaddexp(a, b), saved=(a, b), context=_shapes(a, b))


def _logaddexp_backward(node, dy):
    a, b = node.saved
    da = launch.logaddexp_backward(dy, a, b) if node.needs[0] else None
    return _back(node, da, launch.logaddexp_backward(dy, b, a) if node.needs[1] else None)


def copysign(input: Tensor | float, other: Tensor | float) -> Tensor:
    """|a| with the sign of b, of its zeros too.

    Parameters
    ----------
    input, other : Tensor or number
        Shapes that broadcast together.

    Returns
    -------
    Tensor
        The broadcast shape. The gradient with respect to b is 0.
    """
    a, b = operands("copysign", input, other)
    a, b = floating("copysign", a), floating("copysign", b)
    y = launch.copysign(a, b)
    return record(_copysign_backward, (a, b), y, saved=(a, b) if a.requires_grad else (), context=_shapes(a, b))


def _copysign_backward(node, dy):
    if not node.needs[0]:
        return None, None
    a, b = node.saved
    return _back(node, launch.mul(dy, launch.mul(launch.sign(a), launch.copysign(constant(1.0, b.dtype), b))), None)


def fmax(input: Tensor | float, other: Tensor | float) -> Tensor:
    """The greater of each pair, the other one where one is NaN.

    Parameters
    ----------
    input, other : Tensor or number
        Shapes that broadcast together.

    Returns
    -------
    Tensor
        The broadcast shape. Of equals the first has the gradient.
    """
    a, b = operands("fmax", input, other)
    return where(_first(le(b, a), a, b), a, b)


def fmin(input: Tensor | float, other: Tensor | float) -> Tensor:
    """The less of each pair, the other one where one is NaN; see `fmax`."""
    a, b = operands("fmin", input, other)
    return where(_first(le(a, b), a, b), a, b)


def _first(wins: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Where the first of a pair is taken: it wins, or the second is NaN."""
    return wins if not a.dtype.is_floating else where(isnan(b), True, wins)


def nan_to_num(input: Tensor, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Tensor:
    """x with other numbers in place of NaN and infinities.

    Parameters
    ----------
    input : Tensor
        Any shape and type.
    nan : float
        In place of NaN.
    posinf, neginf : float, optional
        In place of the infinities; by default the greatest and the least finite number of the type.

    Returns
    -------
    Tensor
        Shape and type of `input`.
    """
    x = as_tensor(input)
    if not x.dtype.is_floating:
        return x
    most = float(np.finfo(x.dtype.name).max)
    numbers = {"nan": number("nan_to_num: nan", nan), "posinf": most if posinf is None else number("nan_to_num: posinf", posinf),
               "neginf": -most if neginf is None else number("nan_to_num: neginf", neginf)}
    return record(_nan_to_num_backward, (x,), launch.nan_to_num(x, **numbers), saved=(x,))


def _nan_to_num_backward(node, dy):
    return launch.nan_to_num_backward(dy, node.saved[0])


def nansum(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """The sum over axes, NaN counting as 0; parameters as `sum`."""
    return sum(where(isnan(input), 0.0, input) if a_tensor("nansum", input).dtype.is_floating else input, dim, keepdim)


def nanmean(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """The mean over axes of elements other than NaN, NaN of none; parameters as `mean`."""
    return div(nansum(input, dim, keepdim), sum(eq(input.detach(), input.detach()), dim, keepdim))


def isnan(input: Tensor) -> Tensor:
    """Where x is NaN.

    Parameters
    ----------
    input : Tensor
        Any shape and type.

    Returns
    -------
    Tensor
        bool, shape of `input`.
    """
    x = as_tensor(input).detach()
    return ne(x, x)


def isinf(input: Tensor) -> Tensor:
    """Where x is infinite; parameters as `isnan`."""
    x = as_tensor(input).detach()
    return eq(abs(x), math.inf) if x.dtype.is_floating else ne(x, x)


def isposinf(input: Tensor) -> Tensor:
    """Where x is infinity; parameters as `isnan`."""
    return eq(as_tensor(input).detach(), math.inf)


def isneginf(input: Tensor) -> Tensor:
    """Where x is minus infinity; parameters as `isnan`."""
    return eq(as_tensor(input).detach(), -math.inf)


def isclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Where two tensors differ by at most atol + rtol |b|.

    Parameters
    ----------
    input, other : Tensor
        Shapes that broadcast together.
    rtol, atol : float
        What is allowed, of `other`'s size and beside it.
    equal_nan : bool
        Whether NaN is close to NaN.

    Returns
    -------
    Tensor
        bool, the broadcast shape.
    """
    a, b = (t.detach() for t in operands("isclose", input, other))
    if a.dtype.is_floating:
        return launch.isclose(a, b, rtol=number("isclose: rtol", rtol), atol=number("isclose: atol", atol), equal_nan=bool(equal_nan))
    return logical_or(eq(a, b), le(abs(sub(a, b)), add(mul(abs(b), rtol), atol)))


def isfinite(input: Tensor) -> Tensor:
    """Where x is neither infinite nor NaN; parameters as `isnan`."""
    x = as_tensor(input).detach()
    return lt(abs(x), math.inf) if x.dtype.is_floating else eq(x, x)


def lerp(input: Tensor, end: Tensor, weight: Tensor | float) -> Tensor:
    """Part of the way from one tensor to another: input + weight (end - input).

    Parameters
    ----------
    input, end : Tensor
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
        If `input` or `end` holds integers or bools.
    """
    for argument, x in (("input", input), ("end", end)):
        if not a_tensor("lerp", x, argument).dtype.is_floating:
            raise TypeError(f"lerp: {argument} has dtype {x.dtype}, but must be float32 or float64: convert it first, x.float()")
    start, end = operands("lerp", input, end)
    if isinstance(weight, (int, float)):
        return record(_lerp_number_backward, (start, end), launch.lerp_number(start, end, weight=weight), saved=(), context=(
            weight, start.shape, end.shape))
    weight = operands("lerp", start, weight)[1]
    start, end = to(start, weight.dtype), to(end, weight.dtype)
    return record(_lerp_backward, (start, end, weight), launch.lerp(start, end, weight), saved=(start, end, weight))


def _lerp_number_backward(node, dy):
    weight, *shapes = node.context
    gradients = (launch.mul(dy, constant(share, dy.dtype)) if needed else None for share, needed in zip((1 - weight, weight), node.needs))
    return tuple(unbroadcast(d, shape) for d, shape in zip(gradients, shapes))


def _lerp_backward(node, dy):
    start, end, weight = node.saved
    gradients = (launch.mul(dy, launch.sub(constant(1.0, dy.dtype), weight)) if node.needs[0] else None,
                 launch.mul(dy, weight) if node.needs[1] else None,
                 launch.lerp_backward_weight(dy, start, end) if node.needs[2] else None)
    return tuple(unbroadcast(d, t.shape) for d, t in zip(gradients, node.saved))


def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1.0) -> Tensor:
    """x + value tensor1 tensor2, of integers as integers.

    Parameters
    ----------
    input, tensor1, tensor2 : Tensor
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
    if not _holds_fractions(input, tensor1, tensor2):
        return add(input, mul(scaled("addcmul: value", tensor1, value), tensor2))
    x, a, b = _three_of("addcmul", input, tensor1, tensor2)
    value = number("addcmul: value", value)
    return record(_addcmul_backward, (x, a, b), launch.addcmul(x, a, b, value=value), saved=(a, b),
                  context=(value, x.shape, a.shape, b.shape))


def _three_of(name: str, x: Any, a: Any, b: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Three operands in the type of x + a b, a floating one."""
    a, b = operands(name, a, b)
    x, product = operands(name, x, a if a.ndim >= b.ndim else b)
    return x, to(a, product.dtype), to(b, product.dtype)


def _addcmul_backward(node, dy):
    a, b = node.saved
    value, *shapes = node.context
    factor = dy if value == 1 else launch.mul(dy, constant(value, dy.dtype))
    gradients = (dy if node.needs[0] else None, launch.mul(factor, b) if node.needs[1] else None,
                 launch.mul(factor, a) if node.needs[2] else None)
    return tuple(unbroadcast(d, shape) for d, shape in zip(gradients, shapes))


def _holds_fractions(*tensors: Any) -> bool:
    """Whether one is of a floating type."""
    return any(as_tensor(x).dtype.is_floating for x in tensors)


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1.0) -> Tensor:
    """x + value tensor1 / tensor2; parameters as `addcmul`, but one of `tensor1` and `tensor2` must be of a floating type."""
    if not _holds_fractions(tensor1, tensor2):
        raise TypeError("addcdiv: tensor1 and tensor2 hold integers, but one must be float32 or float64: convert it first, "
                        "x.float(); x + value * div(tensor1, tensor2, rounding_mode='trunc') divides integers")
    x, a, b = _three_of("addcdiv", input, tensor1, tensor2)
    value = number("addcdiv: value", value)
    return record(_addcdiv_backward, (x, a, b), launch.addcdiv(x, a, b, value=value), saved=(a, b),
                  context=(value, x.shape, a.shape, b.shape))


def _addcdiv_backward(node, dy):
    a, b = node.saved
    value, *shapes = node.context
    share = launch.div(dy if value == 1 else launch.mul(dy, constant(value, dy.dtype)), b)
    gradients = (dy if node.needs[0] else None, share if node.needs[1] else None,
                 launch.neg(launch.mul(share, launch.div(a, b))) if node.needs[2] else None)
    return tuple(unbroadcast(d, shape) for d, shape in zip(gradients, shapes))
