"""Operands of arithmetic: tensors, arrays and numbers, brought to types that go together.

Result types: of a tensor and a Python number, the tensor's type (an integer tensor and a Python float give float32; bool and an
integer give int64); float32 with float64 gives float64; an integer tensor with a floating one gives the floating type; a 0-d tensor
beside one with axes takes the latter's type, as a Python number does, where that is of its kind or above (bool, integer, floating).
Integers are computed exactly, in 64 bits; results have the wider of both types and wrap around, as in NumPy. Sums and products of
bools are bools (or, and); their differences and quotients are counted in int64.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

from .. import _core
from ..checks import a_tensor
from .._core import DType, TensorBase
from .create import as_tensor, bool_, float32, float64, int64
from .shape import to

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["constant", "floating", "holds_integers", "kind_of", "operands", "written"]

_RANGES = {"int64": (-2**63, 2**63), "int32": (-2**31, 2**31), "uint8": (0, 256), "bool": (0, 2)}


@functools.lru_cache(maxsize=256)
def _cached_constant(value: float, sign: float, dtype: DType) -> Tensor:
    return _core.scalar(value, dtype)


def constant(value: float, dtype: DType) -> Tensor:
    """A 0-d tensor of one Python number, shared by all who ask for it: never to be written to."""
    try:
        return _cached_constant(value, math.copysign(1.0, value), dtype)
    except OverflowError:
        raise ValueError(f"a number is {value!r}, but must fit float64") from None


def _number(value: float, other: Tensor) -> Tensor:
    """A Python number as a tensor that goes with `other`."""
    dtype = other.dtype
    if not dtype.is_floating:
        if isinstance(value, float):
            dtype = float32
        else:
            low, high = _RANGES[dtype.name]
            if not low <= value < high or dtype is bool_ and not isinstance(value, bool):
                dtype = int64
    return constant(value, dtype)


def _operand(name: str, argument: str, value: Any) -> Tensor | float:
    """`value` as a tensor or a Python number."""
    if isinstance(value, (TensorBase, bool, int, float)):
        return value
    if hasattr(value, "dtype") or isinstance(value, (list, tuple)):
        return as_tensor(value)
    raise TypeError(f"{name}: {argument} is a {type(value).__name__}, but must be a Tensor, an array or a number")


def operands(name: str, a: Any, b: Any) -> tuple[Tensor, Tensor]:
    """Two operands as tensors: of one floating type, or both of integer types."""
    if isinstance(a, TensorBase) and isinstance(b, TensorBase):
        if a.dtype is b.dtype:
            return a, b
    else:
        a, b = _operand(name, "input", a), _operand(name, "other", b)
        if not isinstance(a, TensorBase):
            if isinstance(b, TensorBase):
                return _wider(_number(a, b), b)
            a = as_tensor(a)
        if not isinstance(b, TensorBase):
            return _wider(a, _number(b, a))
    # A scale or a bound that was computed is no reason to change a whole tensor's type.
    if a.ndim == 0 < b.ndim and kind_of(a.dtype) <= kind_of(b.dtype):
        return to(a, b.dtype), b
    if b.ndim == 0 < a.ndim and kind_of(b.dtype) <= kind_of(a.dtype):
        return a, to(b, a.dtype)
    return _wider(a, b)


def _wider(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the wider floating type, if one is floating; integers stay as they are, since their kernel takes any two types."""
    if not a.dtype.is_floating and not b.dtype.is_floating:
        return a, b
    dtype = float64 if a.dtype is float64 or b.dtype is float64 else float32
    return to(a, dtype), to(b, dtype)


def kind_of(dtype: DType) -> int:
    """0 for bool, 1 for integers, 2 for floating types."""
    return 2 if dtype.is_floating else dtype is not bool_


def floating(name: str, x: Any) -> Tensor:
    """`x` as a tensor of a floating type; integers become float32."""
    if not isinstance(x, TensorBase):
        x = _operand(name, "input", x)
        x = as_tensor(x)
    return x if x.dtype.is_floating else to(x, float32)


def holds_integers(name: str, x: Any) -> bool:
    """Whether `x` is a tensor of integers, which functions of straight pieces keep as such; bools are refused."""
    if not isinstance(x, TensorBase) or x.dtype.is_floating:
        return False
    if x.dtype is bool_:
        raise TypeError(f"{name}: input is bool, but must hold numbers")
    return True


def written(name: str, result: Tensor, out: Any) -> Tensor:
    """`result` in the memory of `out`, a tensor of its shape whose type can hold it."""
    if a_tensor(name, out, "out").shape != result.shape:
        raise ValueError(f"{name}: out has shape {out.shape}, but must have the result's, {result.shape}")
    if result.requires_grad or out.requires_grad and _core.is_grad_enabled():
        raise RuntimeError(f"{name}: out takes no gradient: take the result as it is returned, or write it under no_grad()")
    return out.copy_(result) if result.dtype is out.dtype else out._in_place(lambda _, value: value, result)
