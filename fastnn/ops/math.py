"""Arithmetic, elementary functions, comparisons and selection, element by element, with broadcasting.

What types results have, operands.py says.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING, Any

from ..checks import number
from .._core import TensorBase, launch, record
from .create import as_tensor, bool_, float32, zeros
from .operands import constant, floating, operands, written
from .shape import to, unbroadcast

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["abs", "add", "clamp", "clip", "div", "eq", "exp", "ge", "gt", "le", "log", "logical_and", "logical_not", "logical_or",
           "logical_xor", "lt", "maximum", "minimum", "mul", "ne", "neg", "sqrt", "square", "sub", "where"]

_KINDS = ("add", "sub", "mul", "floor_divide", "remainder", "minimum", "maximum", "eq", "ne", "lt", "le", "gt", "ge", "and",
          "or", "xor", "pow")
_KIND = {name: kind for kind, name in enumerate(_KINDS)}


def scaled(name: str, x: Tensor, factor: float) -> Tensor:
    """factor x, of integers as integers: `factor`, whose name and owner `name` says, must then be whole."""
    if factor == 1:
        return x
    if not isinstance(factor, int) and not as_tensor(x).dtype.is_floating:
        value = number(name, factor)
        if value % 1:
            raise TypeError(f"{name} is {value}, but must be a whole number where tensors hold integers")
        factor = int(value)
    return mul(x, factor)


def _integers(name: str, a: Tensor, b: Tensor) -> Tensor:
    return launch.integer_binary(a, b, kind=_KIND[name])


def _shapes(a: Tensor, b: Tensor) -> tuple | None:
    """The operands' shapes, where a gradient must be summed back to them."""
    return None if a.shape == b.shape else (a.shape, b.shape)


def _back(node: Any, da: Tensor | None, db: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Both gradients, summed back to their operands' shapes where these were broadcast."""
    if node.context is None:
        return da, db
    return unbroadcast(da, node.context[0]), unbroadcast(db, node.context[1])


# ---- arithmetic -------------------------------------------------------------------------------------------------------


def add(input: Tensor | float, other: Tensor | float, *, alpha: float = 1, out: Tensor | None = None) -> Tensor:
    """a + alpha b.

    Parameters
    ----------
    input, other : Tensor or number
        Shapes that broadcast together.
    alpha : number
        A factor for b.
    out : Tensor, optional
        Where the result is written, off the tape: of its shape.

    Returns
    -------
    Tensor
        The broadcast shape; `out` where it is given.

    Raises
    ------
    ValueError
        If the shapes do not broadcast, or `out` has another.
    RuntimeError
        If a gradient was to flow through `out`.
    """
    if out is not None:
        return written("add", add(input, other, alpha=alpha), out)
    a, b = operands("add", input, other if alpha == 1 else other * alpha)
    if not a.dtype.is_floating:
        return _integers("add", a, b)
    return record(_add_backward, (a, b), launch.add(a, b), context=_shapes(a, b))


def _add_backward(node, dy):
    return _back(node, dy if node.needs[0] else None, dy if node.needs[1] else None)


def sub(input: Tensor | float, other: Tensor | float, *, alpha: float = 1, out: Tensor | None = None) -> Tensor:
    """a - alpha b; parameters as `add`."""
    if out is not None:
        return written("sub", sub(input, other, alpha=alpha), out)
    a, b = operands("sub", input, other if alpha == 1 else other * alpha)
    if not a.dtype.is_floating:
        return _integers("sub", a, b)
    return record(_sub_backward, (a, b), launch.sub(a, b), context=_shapes(a, b))


def _sub_backward(node, dy):
    return _back(node, dy if node.needs[0] else None, launch.neg(dy) if node.needs[1] else None)


def mul(input: Tensor | float, other: Tensor | float, *, out: Tensor | None = None) -> Tensor:
    """a b; parameters as `add`."""
    if out is not None:
        return written("mul", mul(input, other), out)
    a, b = operands("mul", input, other)
    if not a.dtype.is_floating:
        return _integers("mul", a, b)
    saved = (a if b.requires_grad else None, b if a.requires_grad else None)
    return record(_mul_backward, (a, b), launch.mul(a, b), saved=saved, context=_shapes(a, b))


def _mul_backward(node, dy):
    a, b = node.saved
    if a is b:
        return launch.square_backward(dy, a), None
    return _back(node, launch.mul(dy, b) if node.needs[0] else None, launch.mul(dy, a) if node.needs[1] else None)


def div(input: Tensor | float, other: Tensor | float, *, rounding_mode: str | None = None, out: Tensor | None = None) -> Tensor:
    """a / b; integers are divided as float32, but where the result is rounded.

    Parameters
    ----------
    input, other : Tensor or number
        Shapes that broadcast together.
    rounding_mode : str, optional
        "floor" rounds down, as `floor_divide`, "trunc" towards 0; both have the gradient 0.
    out : Tensor, optional
        As of `add`.

    Returns
    -------
    Tensor
        The broadcast shape.

    Raises
    ------
    ValueError
        If the shapes do not broadcast, or `rounding_mode` is another.
    """
    if out is not None:
        return written("div", div(input, other, rounding_mode=rounding_mode), out)
    if rounding_mode is not None:
        return _divided(input, other, rounding_mode)
    a, b = operands("div", input, other)
    if not a.dtype.is_floating:
        a, b = to(a, float32), to(b, float32)
    y = launch.div(a, b)
    return record(_div_backward, (a, b), y, saved=(b, y if b.requires_grad else None), context=_shapes(a, b))


def _divided(a: Any, b: Any, rounding_mode: str) -> Tensor:
    if rounding_mode not in ("floor", "trunc"):
        raise ValueError(f"div: rounding_mode is {rounding_mode!r}, but must be 'floor', 'trunc' or None")
    if rounding_mode == "floor":
        from .division import floor_divide  # stands on this module

        return floor_divide(a, b)
    a, b = operands("div", a, b)
    if not a.dtype.is_floating:
        down = _integers("floor_divide", a, b)
        return where(_rounds_up(a, b, _integers("remainder", a, b)), add(down, 1), down)
    return record(_flat_backward, (a, b), launch.trunc(launch.div(a, b)), context=(a.shape, b.shape))


def _rounds_up(a: Tensor, b: Tensor, rest: Tensor) -> Tensor:
    """Where division towards 0 gives one more than division rounded down, which leaves `rest`."""
    return logical_and(rest, ne(lt(a, 0), lt(b, 0)))


def _flat_backward(node, dy):
    return tuple(zeros(shape, dtype=dy.dtype) if needed else None for shape, needed in zip(node.context, node.needs))


def _div_backward(node, dy):
    b, y = node.saved
    da = launch.div(dy, b)
    return _back(node, da if node.needs[0] else None, launch.neg(launch.mul(da, y)) if node.needs[1] else None)


def neg(input: Tensor) -> Tensor:
    """-x.

    Parameters
    ----------
    input : Tensor
        Any shape and type but bool.

    Returns
    -------
    Tensor
        Shape and type of `input`.
    """
    x = as_tensor(input)
    if x.dtype.is_floating:
        return record(_neg_backward, (x,), launch.neg(x))
    if x.dtype is bool_:
        raise TypeError("neg: input is bool; use logical_not")
    return _integers("sub", constant(0, x.dtype), x)


def _neg_backward(node, dy):
    return launch.neg(dy)


def abs(input: Tensor) -> Tensor:
    """|x|; its derivative at 0 is 0. Parameters as `neg`."""
    x = as_tensor(input)
    if x.dtype.is_floating:
        return record(_abs_backward, (x,), launch.abs(x), saved=(x,))
    if x.dtype.name in ("uint8", "bool"):
        return x
    return _integers("maximum", x, neg(x))


def _abs_backward(node, dy):
    return launch.mul(dy, launch.sign(node.saved[0]))


# ---- elementary functions ---------------------------------------------------------------------------------------------


def square(input: Tensor) -> Tensor:
    """x squared.

    Parameters
    ----------
    input : Tensor
        Any shape.

    Returns
    -------
    Tensor
        Shape and type of `input`.
    """
    x = as_tensor(input)
    if not x.dtype.is_floating:
        return _integers("mul", x, x)
    return record(_square_backward, (x,), launch.square(x), saved=(x,))


def _square_backward(node, dy):
    (x,) = node.saved
    return launch.square_backward(dy, x)


def exp(input: Tensor) -> Tensor:
    """e to the power x.

    Parameters
    ----------
    input : Tensor
        Any shape; integers become float32.

    Returns
    -------
    Tensor
        Shape of `input`.
    """
    x = floating("exp", input)
    y = launch.exp(x)
    return record(_exp_backward, (x,), y, saved=(y,))


def _exp_backward(node, dy):
    return launch.mul(dy, node.saved[0])


def log(input: Tensor) -> Tensor:
    """The natural logarithm: -inf at 0, NaN below; parameters as `exp`."""
    x = floating("log", input)
    return record(_log_backward, (x,), launch.log(x), saved=(x,))


def _log_backward(node, dy):
    return launch.div(dy, node.saved[0])


def sqrt(input: Tensor) -> Tensor:
    """The square root: NaN below 0; parameters as `exp`."""
    x = floating("sqrt", input)
    y = launch.sqrt(x)
    return record(_sqrt_backward, (x,), y, saved=(y,))


def _sqrt_backward(node, dy):
    (y,) = node.saved
    return launch.div(dy, launch.add(y, y))


# ---- the greater, the less, the middle --------------------------------------------------------------------------------


def maximum(input: Tensor | float, other: Tensor | float) -> Tensor:
    """The greater of each pair, NaN where one is NaN; equal ones share the gradient. Parameters as `add`."""
    return _extremum("maximum", launch.maximum, launch.lt, input, other)


def minimum(input: Tensor | float, other: Tensor | float) -> Tensor:
    """The less of each pair, NaN where one is NaN; equal ones share the gradient. Parameters as `add`."""
    return _extremum("minimum", launch.minimum, launch.gt, input, other)


def _extremum(name, op, loses, a, b):
    a, b = operands(name, a, b)
    if not a.dtype.is_floating:
        return _integers(name, a, b)
    shapes = None if a.shape == b.shape else (a.shape, b.shape)
    return record(_maximum_backward if loses is launch.lt else _minimum_backward, (a, b), op(a, b), saved=(a, b), context=shapes)


def _maximum_backward(node, dy):
    return _extremum_backward(node, dy, launch.lt)


def _minimum_backward(node, dy):
    return _extremum_backward(node, dy, launch.gt)


def _extremum_backward(node, dy, loses):
    a, b = node.saved
    zero = constant(0.0, a.dtype)
    shared = launch.where(launch.eq(a, b), launch.mul(dy, constant(0.5, a.dtype)), dy)
    return _back(node, launch.where(loses(a, b), zero, shared) if node.needs[0] else None,
                 launch.where(loses(b, a), zero, shared) if node.needs[1] else None)


def clip(input: Tensor, min: float | Tensor | None = None, max: float | Tensor | None = None) -> Tensor:
    """x, but at least `min` and at most `max`.

    Parameters
    ----------
    input : Tensor
        Any shape.
    min, max : float or Tensor, optional
        Bounds; where both are given and `min` is greater, `max` holds; NaN gives NaN. Tensors broadcast with `input` and take gradients.

    Returns
    -------
    Tensor
        Shape and type of `input`.

    Raises
    ------
    TypeError
        If neither bound is given, or one is neither a number nor a tensor.
    """
    x = as_tensor(input)
    if min is None and max is None:
        raise TypeError("clip: give min, max or both")
    for name, bound in (("min", min), ("max", max)):
        if bound is not None and not isinstance(bound, (Real, TensorBase)):
            raise TypeError(f"clip: {name} is {bound!r}, but must be a number, a Tensor or None")
    # A bound that is NaN makes all NaN, as in PyTorch and NumPy: the kernel, which compares, would take no notice of it.
    if not x.dtype.is_floating or isinstance(min, TensorBase) or isinstance(max, TensorBase) or min != min or max != max:
        y = x if min is None else maximum(x, min)
        return y if max is None else minimum(y, max)
    bounds = {"low": -math.inf if min is None else min, "high": math.inf if max is None else max}
    return record(_clip_backward, (x,), launch.clip(x, **bounds), saved=(x,), context=bounds)


def _clip_backward(node, dy):
    return launch.clip_backward(dy, node.saved[0], **node.context)


clamp = clip


# ---- comparisons and selection ----------------------------------------------------------------------------------------


def _compare(name: str, a: Any, b: Any) -> Tensor:
    a, b = operands(name, a, b)
    if not a.dtype.is_floating:
        return _integers(name, a, b)
    return getattr(launch, name)(a, b)


def eq(input: Tensor | float, other: Tensor | float) -> Tensor:
    """Whether a = b, element by element.

    Parameters
    ----------
    input, other : Tensor or number
        Shapes that broadcast together.

    Returns
    -------
    Tensor
        bool, the broadcast shape; False where an operand is NaN.
    """
    return _compare("eq", input, other)


def ne(input: Tensor | float, other: Tensor | float) -> Tensor:
    """Whether a and b differ; True where an operand is NaN. Parameters as `eq`."""
    return _compare("ne", input, other)


def lt(input: Tensor | float, other: Tensor | float) -> Tensor:
    """Whether a < b; parameters as `eq`."""
    return _compare("lt", input, other)


def le(input: Tensor | float, other: Tensor | float) -> Tensor:
    """Whether a <= b; parameters as `eq`."""
    return _compare("le", input, other)


def gt(input: Tensor | float, other: Tensor | float) -> Tensor:
    """Whether a > b; parameters as `eq`."""
    return _compare("gt", input, other)


def ge(input: Tensor | float, other: Tensor | float) -> Tensor:
    """Whether a >= b; parameters as `eq`."""
    return _compare("ge", input, other)


def _truth(x: Any) -> Tensor:
    x = as_tensor(x)
    return x if x.dtype is bool_ else ne(x, 0)


def logical_and(input: Tensor, other: Tensor) -> Tensor:
    """Whether both are true (not 0).

    Parameters
    ----------
    input, other : Tensor
        Shapes that broadcast together.

    Returns
    -------
    Tensor
        bool, the broadcast shape.
    """
    return _integers("and", _truth(input), _truth(other))


def logical_or(input: Tensor, other: Tensor) -> Tensor:
    """Whether one or both are true; parameters as `logical_and`."""
    return _integers("or", _truth(input), _truth(other))


def logical_xor(input: Tensor, other: Tensor) -> Tensor:
    """Whether exactly one is true; parameters as `logical_and`."""
    return _integers("xor", _truth(input), _truth(other))


def logical_not(input: Tensor) -> Tensor:
    """Whether x is 0: bool, the shape of `input`."""
    x = as_tensor(input)
    return _integers("xor", x, constant(True, bool_)) if x.dtype is bool_ else eq(x, 0)


def where(condition: Tensor, input: Tensor | float | None = None,
          other: Tensor | float | None = None) -> Tensor | tuple[Tensor, ...]:
    """a where the condition holds, b elsewhere; of a condition alone the places where it holds.

    Parameters
    ----------
    condition : Tensor
        bool.
    input, other : Tensor or number
        Shapes of all three broadcast together.

    Returns
    -------
    Tensor or tuple of Tensor
        The broadcast shape; places as ``nonzero(condition, as_tuple=True)`` gives them.

    Raises
    ------
    TypeError
        If the condition is not bool, or only one of `input` and `other` is given.
    """
    condition = as_tensor(condition)
    if input is None and other is None:
        from .scatter import nonzero  # stands on this module

        return nonzero(condition, as_tuple=True)
    if input is None or other is None:
        raise TypeError(f"where: {'input' if input is None else 'other'} is missing: both input and other are given, or neither")
    if condition.dtype is not bool_:
        raise TypeError(f"where: condition is {condition.dtype}, but must be bool")
    a, b = operands("where", input, other)
    if not a.dtype.is_floating:  # b + (a - b) condition, exact as 64-bit integers wrap around; bools in the same way by xor
        if a.dtype is b.dtype is bool_:
            return _integers("xor", b, _integers("and", _integers("xor", a, b), condition))
        result = _integers("add", b, _integers("mul", _integers("sub", a, b), condition))
        return to(result, a.dtype) if a.dtype is b.dtype else result
    return record(_where_backward, (None, a, b), launch.where(condition, a, b), saved=(condition,), context=(a.shape, b.shape))


def _where_backward(node, dy):
    (condition,) = node.saved
    zero = constant(0.0, dy.dtype)
    da = launch.where(condition, dy, zero) if node.needs[1] else None
    db = launch.where(condition, zero, dy) if node.needs[2] else None
    return None, unbroadcast(da, node.context[0]), unbroadcast(db, node.context[1])
