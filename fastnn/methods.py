"""What tensors can do beyond arithmetic: PyTorch's names for functions, new tensors like this one, changes in place."""

from __future__ import annotations

import builtins
import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from ._core import launch
from .checks import check_device
from .ops import arrange, create, elementary
from .ops import activation as _activation
from .ops import index as _index
from .ops import math as _math
from .ops import shape as _shape
from .ops.vector_norm import norm

if TYPE_CHECKING:
    from ._core import DType
    from .tensor import Tensor

__all__ = ["Methods"]


class Methods:
    """Methods of `Tensor`, apart from those that the rest of the package is built on."""

    __slots__ = ()

    # -- other names --

    absolute = _math.abs
    negative = _math.neg
    multiply = _math.mul
    subtract = _math.sub
    divide = true_divide = _math.div
    floor_divide = _math.floor_divide
    remainder = _math.remainder
    greater, greater_equal, less, less_equal = _math.gt, _math.ge, _math.lt, _math.le
    not_equal = _math.ne
    moveaxis = _shape.movedim
    swapaxes = swapdims = _shape.transpose
    ravel = _shape.flatten
    broadcast_to = _shape.broadcast_to

    # -- functions as methods --

    floor, ceil, round, trunc = elementary.floor, elementary.ceil, elementary.round, elementary.trunc
    expm1, log1p = elementary.expm1, elementary.log1p
    reciprocal, rsqrt = elementary.reciprocal, elementary.rsqrt
    isnan, isinf, isfinite = elementary.isnan, elementary.isinf, elementary.isfinite
    lerp, addcmul, addcdiv = elementary.lerp, elementary.addcmul, elementary.addcdiv
    sign = _activation.sign
    logical_and, logical_or = _math.logical_and, _math.logical_or
    logical_xor, logical_not = _math.logical_xor, _math.logical_not
    gather, index_select = _index.gather, _index.index_select
    flip, roll, select = arrange.flip, arrange.roll, arrange.select
    tril, triu = arrange.tril, arrange.triu
    tile = arrange.tile
    mm, bmm, mv, dot = arrange.mm, arrange.bmm, arrange.mv, arrange.dot
    outer, addmm = arrange.outer, arrange.addmm
    norm = norm

    def repeat(self, *sizes: int) -> Tensor:
        """Repeated along its axes, one number for each, more than axes for new ones in front; see `tile`."""
        counts = tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
        if len(counts) < self.ndim:
            raise ValueError(f"repeat: sizes is {counts}, but must hold a number for each of {self.ndim} axes")
        return arrange.tile(self, counts)

    def where(self, condition: Tensor, other: Tensor | float) -> Tensor:
        """This tensor where the condition holds, `other` elsewhere."""
        return _math.where(condition, self, other)

    def clamp_min(self, min: float) -> Tensor:
        """At least `min`."""
        return _math.clip(self, min, None)

    def clamp_max(self, max: float) -> Tensor:
        """At most `max`."""
        return _math.clip(self, None, max)

    def view_as(self, other: Tensor) -> Tensor:
        """In the shape of another."""
        return _shape.reshape(self, other.shape)

    reshape_as = view_as

    def expand_as(self, other: Tensor) -> Tensor:
        """Repeated to the shape of another: a view."""
        return _shape.expand(self, other.shape)

    def type_as(self, other: Tensor) -> Tensor:
        """With elements of another's type."""
        return _shape.to(self, other.dtype)

    @property
    def mT(self) -> Tensor:
        """The last two axes exchanged."""
        return _shape.transpose(self, -2, -1)

    # -- what it is --

    @property
    def device(self) -> str:
        """Always "cpu"."""
        return "cpu"

    @property
    def data(self) -> Tensor:
        """The same memory, off the tape."""
        return self.detach()

    def cpu(self) -> Tensor:
        """Itself."""
        return self

    def nelement(self) -> builtins.int:
        """Number of elements."""
        return self.numel()

    def ndimension(self) -> builtins.int:
        """Number of axes."""
        return self.ndim

    def element_size(self) -> builtins.int:
        """Bytes of an element."""
        return self.dtype.itemsize

    def stride(self, dim: builtins.int | None = None) -> tuple[builtins.int, ...] | builtins.int:
        """Elements from one place to the next, of every axis or of one."""
        return self.strides if dim is None else self.strides[_shape._axis("stride", dim, self.ndim)]

    def is_signed(self) -> builtins.bool:
        """Whether its type has negative numbers."""
        return self.dtype.name not in ("uint8", "bool")

    def bool(self) -> Tensor:
        """As bool: whether elements are other than 0."""
        return _shape.to(self, "bool")

    def int(self) -> Tensor:
        """As int32."""
        return _shape.to(self, "int32")

    def byte(self) -> Tensor:
        """As uint8."""
        return _shape.to(self, "uint8")

    # -- comparisons that give an answer: they read the elements --

    def equal(self, other: Tensor) -> builtins.bool:
        """Whether shape, type and all elements are the same."""
        return self.shape == other.shape and self.dtype is other.dtype and np.array_equal(memoryview(self), memoryview(other))

    def allclose(self, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: builtins.bool = False) -> builtins.bool:
        """Whether all elements differ by at most atol + rtol |other|."""
        return builtins.bool(np.allclose(memoryview(self), memoryview(other), rtol, atol, equal_nan))

    # -- new tensors --

    def _new(self, make: Any, shape: tuple, dtype: DType | None, device: Any, *more: Any) -> Tensor:
        check_device(make.__name__, device)
        return make(create.extents_of(shape), *more, dtype=dtype or self.dtype)

    def new_zeros(self, *shape: builtins.int, dtype: DType | None = None, device: Any = None) -> Tensor:
        """Zeros of this tensor's type, or another."""
        return self._new(create.zeros, shape, dtype, device)

    def new_ones(self, *shape: builtins.int, dtype: DType | None = None, device: Any = None) -> Tensor:
        """Ones of this tensor's type, or another."""
        return self._new(create.ones, shape, dtype, device)

    def new_empty(self, *shape: builtins.int, dtype: DType | None = None, device: Any = None) -> Tensor:
        """Memory of this tensor's type, or another."""
        return self._new(create.empty, shape, dtype, device)

    def new_full(self, size: Any, fill_value: float, dtype: DType | None = None, device: Any = None) -> Tensor:
        """One number of this tensor's type, or another."""
        return self._new(create.full, tuple(size), dtype, device, fill_value)

    def new_tensor(self, data: Any, dtype: DType | None = None, device: Any = None) -> Tensor:
        """A copy of data in this tensor's type, or another."""
        check_device("new_tensor", device)
        return create.tensor(data, dtype or self.dtype)

    # -- in place, off the tape --

    def _becomes(self, op: Any, *arguments: Any) -> Tensor:
        """self = op(self, ...), in this tensor's memory."""
        return self._in_place(lambda x, more: op(x, *more), arguments)

    def clamp_(self, min: float | None = None, max: float | None = None) -> Tensor:
        """`clamp` in place."""
        return self._becomes(_math.clip, min, max)

    def masked_fill_(self, mask: Tensor, value: float) -> Tensor:
        """`masked_fill` in place."""
        return self._becomes(_math.masked_fill, mask, value)

    def neg_(self) -> Tensor:
        """`neg` in place."""
        return self._becomes(_math.neg)

    def abs_(self) -> Tensor:
        """`abs` in place."""
        return self._becomes(_math.abs)

    def exp_(self) -> Tensor:
        """`exp` in place."""
        return self._becomes(_math.exp)

    def log_(self) -> Tensor:
        """`log` in place."""
        return self._becomes(_math.log)

    def sqrt_(self) -> Tensor:
        """`sqrt` in place."""
        return self._becomes(_math.sqrt)

    def square_(self) -> Tensor:
        """`square` in place."""
        return self._becomes(_math.square)

    def pow_(self, exponent: float) -> Tensor:
        """`pow` in place."""
        return self._becomes(_math.pow, exponent)

    def lerp_(self, end: Tensor, weight: float) -> Tensor:
        """`lerp` in place."""
        return self._becomes(elementary.lerp, end, weight)

    def addcmul_(self, tensor1: Tensor, tensor2: Tensor, *, value: float = 1.0) -> Tensor:
        """`addcmul` in place."""
        return self._becomes(functools.partial(elementary.addcmul, value=value), tensor1, tensor2)

    def addcdiv_(self, tensor1: Tensor, tensor2: Tensor, *, value: float = 1.0) -> Tensor:
        """`addcdiv` in place."""
        return self._becomes(functools.partial(elementary.addcdiv, value=value), tensor1, tensor2)

    def uniform_(self, low: float = 0.0, high: float = 1.0, generator: Any = None) -> Tensor:
        """Filled with uniform random numbers."""
        return self._drawn(launch.uniform, generator, low=float(low), high=float(high))

    def normal_(self, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Tensor:
        """Filled with normal random numbers."""
        return self._drawn(launch.normal, generator, mean=float(mean), std=float(std))

    def _drawn(self, op: Any, generator: Any, **options: float) -> Tensor:
        from .random import generator_state  # there are tensors before there is a generator

        self._refuse_in_place()
        op(generator_state(generator), **options, ordinal=0, out=self.detach())
        return self
