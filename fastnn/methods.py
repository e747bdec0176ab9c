"""What tensors can do beyond arithmetic: PyTorch's names for functions, new tensors like this one, changes in place."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any

import numpy as np

from ._core import TensorBase, is_grad_enabled, launch
from .checks import a_tensor, check_device, number, positive, shown, whole
from .ops import activation as _activation
from .ops import arrange, bitwise, combine, composed, create, division, elementary, order, scan
from .ops import diagonal as _diagonal
from .ops import index as _index
from .ops import math as _math
from .ops import scatter as _scatter
from .ops import search as _search
from .ops import shape as _shape
from .ops import special as _special
from .ops import trigonometry as _trigonometry
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
    floor_divide = division.floor_divide
    remainder = division.remainder
    greater, greater_equal, less, less_equal = _math.gt, _math.ge, _math.lt, _math.le
    not_equal = _math.ne
    fix = elementary.trunc
    sgn = _activation.sign
    arccos, arcsin, arctan, arctan2 = _trigonometry.acos, _trigonometry.asin, _trigonometry.atan, _trigonometry.atan2
    arccosh, arcsinh, arctanh = _trigonometry.acosh, _trigonometry.asinh, _trigonometry.atanh
    moveaxis = _shape.movedim
    swapaxes = swapdims = _shape.transpose
    ravel = _shape.flatten
    broadcast_to = _shape.broadcast_to

    # -- functions as methods --

    floor, ceil, round, trunc = elementary.floor, elementary.ceil, elementary.round, elementary.trunc
    expm1, log1p = elementary.expm1, elementary.log1p
    frac, copysign, fmax, fmin = elementary.frac, elementary.copysign, elementary.fmax, elementary.fmin
    logit, xlogy, logaddexp = elementary.logit, elementary.xlogy, elementary.logaddexp
    nan_to_num, nansum, nanmean = elementary.nan_to_num, elementary.nansum, elementary.nanmean
    sin, cos, tan = _trigonometry.sin, _trigonometry.cos, _trigonometry.tan
    asin, acos, atan, atan2 = _trigonometry.asin, _trigonometry.acos, _trigonometry.atan, _trigonometry.atan2
    sinh, cosh = _trigonometry.sinh, _trigonometry.cosh
    asinh, acosh, atanh = _trigonometry.asinh, _trigonometry.acosh, _trigonometry.atanh
    deg2rad, rad2deg, hypot = _trigonometry.deg2rad, _trigonometry.rad2deg, _trigonometry.hypot
    lgamma, digamma, erfinv = _special.lgamma, _special.digamma, _special.erfinv
    erf, exp2, log2, log10 = _trigonometry.erf, _trigonometry.exp2, _trigonometry.log2, _trigonometry.log10
    reciprocal, rsqrt = elementary.reciprocal, elementary.rsqrt
    isnan, isinf, isfinite = elementary.isnan, elementary.isinf, elementary.isfinite
    isclose, isposinf, isneginf = elementary.isclose, elementary.isposinf, elementary.isneginf
    lerp, addcmul, addcdiv = elementary.lerp, elementary.addcmul, elementary.addcdiv
    sign = _activation.sign
    logical_and, logical_or = _math.logical_and, _math.logical_or
    logical_xor, logical_not = _math.logical_xor, _math.logical_not
    bitwise_and, bitwise_or = bitwise.bitwise_and, bitwise.bitwise_or
    bitwise_xor, bitwise_not = bitwise.bitwise_xor, bitwise.bitwise_not
    fmod = division.fmod
    cumsum, cumprod, cummax, cummin = scan.cumsum, scan.cumprod, scan.cummax, scan.cummin
    prod, diff = scan.prod, scan.diff
    cov, corrcoef, kron, rot90, logcumsumexp = combine.cov, combine.corrcoef, combine.kron, combine.rot90, combine.logcumsumexp
    sort, argsort, msort, topk, kthvalue = order.sort, order.argsort, order.msort, order.topk, order.kthvalue
    median, nanmedian, quantile = order.median, order.nanmedian, order.quantile
    unique, unique_consecutive = order.unique, order.unique_consecutive
    scatter, scatter_add, scatter_reduce = _scatter.scatter, _scatter.scatter_add, _scatter.scatter_reduce
    index_add, index_copy, index_fill = _scatter.index_add, _scatter.index_copy, _scatter.index_fill
    masked_fill, masked_select, masked_scatter = _scatter.masked_fill, _scatter.masked_select, _scatter.masked_scatter
    nonzero, argwhere, count_nonzero = _scatter.nonzero, _scatter.argwhere, _scatter.count_nonzero
    take_along_dim, repeat_interleave, bincount = _scatter.take_along_dim, _scatter.repeat_interleave, _scatter.bincount
    histc = _search.histc
    diagonal, diag, diag_embed = _diagonal.diagonal, _diagonal.diag, _diagonal.diag_embed
    diagflat, trace = _diagonal.diagflat, _diagonal.trace
    gather, index_select = _index.gather, _index.index_select
    flip, roll, select = arrange.flip, arrange.roll, arrange.select
    tril, triu = arrange.tril, arrange.triu
    tile = arrange.tile
    mm, bmm, mv, dot = arrange.mm, arrange.bmm, arrange.mv, arrange.dot
    outer, addmm = arrange.outer, arrange.addmm
    norm = norm
    addmv, baddbmm, inner, dist = composed.addmv, composed.baddbmm, composed.inner, composed.dist
    aminmax, clamp_min, clamp_max = composed.aminmax, composed.clamp_min, composed.clamp_max
    erfc, float_power, positive = composed.erfc, composed.float_power, composed.positive
    fliplr, flipud = composed.fliplr, composed.flipud
    tensor_split, narrow_copy = composed.tensor_split, composed.narrow_copy
    equal, allclose = composed.equal, composed.allclose
    is_same_size, is_signed, is_nonzero = composed.is_same_size, composed.is_signed, composed.is_nonzero

    def unfold(self, dimension: builtins.int, size: builtins.int, step: builtins.int) -> Tensor:
        """Windows of `size` places along an axis, `step` apart, as a new last axis: a copy, where PyTorch's is a view."""
        axis = _shape._axis("unfold", dimension, self.ndim)
        size, step = whole("unfold: size", size, 1), whole("unfold: step", step, 1)
        if size > self.shape[axis]:
            raise ValueError(f"unfold: size is {size}, but dimension {axis} has {self.shape[axis]} places")
        places = np.arange(0, self.shape[axis] - size + 1, step)[:, None] + np.arange(size)
        picked = _index.index_select(self, axis, create.as_tensor(places.ravel()))
        return _shape.movedim(picked.reshape(*self.shape[:axis], *places.shape, *self.shape[axis + 1:]), axis + 1, -1)

    def index_put_(self, indices: tuple, values: Tensor | builtins.float, accumulate: builtins.bool = False) -> Tensor:
        """``self[indices] = values``; with `accumulate` values are added, equal indices one after the other."""
        if not isinstance(indices, (tuple, list)):
            raise TypeError(f"index_put_: indices is {shown(indices)}, but must be a tuple of tensors")
        if accumulate:
            places = create.as_tensor(np.arange(self.numel()).reshape(self.shape))[tuple(indices)]

            def added(x: Tensor, values: Any) -> Tensor:
                values = _shape.expand(create.as_tensor(values, self.dtype), places.shape)
                return _scatter.scatter_add(x.reshape(-1), 0, places.reshape(-1), values.reshape(-1)).reshape(x.shape)

            return self._in_place(added, values)
        self[tuple(indices)] = values
        return self

    def fill_diagonal_(self, fill_value: builtins.float) -> Tensor:
        """One number written where all indices are equal, as many as the shortest axis has places; at least two axes."""
        if self.ndim < 2:
            raise ValueError(f"fill_diagonal_: the tensor has shape {self.shape}, but must have at least two axes")
        k = create.arange(builtins.min(self.shape))
        self[(k,) * self.ndim] = number("fill_diagonal_: fill_value", fill_value)
        return self

    def repeat(self, *sizes: int) -> Tensor:
        """Repeated along its axes, one number for each, more than axes for new ones in front; see `tile`."""
        counts = tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
        if len(counts) < self.ndim:
            raise ValueError(f"repeat: sizes is {counts}, but must hold a number for each of {self.ndim} axes")
        return arrange.tile(self, counts)

    def where(self, condition: Tensor, other: Tensor | builtins.float) -> Tensor:
        """This tensor where the condition holds, `other` elsewhere."""
        return _math.where(condition, self, other)

    def view_as(self, other: Tensor) -> Tensor:
        """In the shape of another."""
        return _shape.reshape(self, a_tensor("view_as", other, "other").shape)

    reshape_as = view_as

    def expand_as(self, other: Tensor) -> Tensor:
        """Repeated to the shape of another: a view."""
        return _shape.expand(self, a_tensor("expand_as", other, "other").shape)

    def type_as(self, other: Tensor) -> Tensor:
        """With elements of another's type."""
        return _shape.to(self, a_tensor("type_as", other, "other").dtype)

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
        """The same memory, off the tape; ``x.data = other`` writes what another tensor of this shape holds into it."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, TensorBase) or value.shape != self.shape:
            given = f"has shape {value.shape}" if isinstance(value, TensorBase) else f"is a {builtins.type(value).__name__}"
            raise ValueError(f"data: the new value {given}, but must be a Tensor of shape {self.shape}")
        if value.data_ptr() != self.data_ptr():  # x.data -= y has written already
            self.detach().copy_(value)

    def cpu(self) -> Tensor:
        """Itself."""
        return self

    def cuda(self, *arguments: Any, **options: Any) -> Tensor:
        """Refused: there is no device but the CPU."""
        raise ValueError("cuda: there is no device but the CPU")

    def half(self) -> Tensor:
        """Refused: there is no float16."""
        raise TypeError("half: float16 is not offered; floating types are float32 and float64")

    def bfloat16(self) -> Tensor:
        """Refused: there is no bfloat16."""
        raise TypeError("bfloat16: it is not offered; floating types are float32 and float64")

    def type(self, dtype: Any) -> Tensor:
        """With elements of another type."""
        return _shape.to(self, dtype)

    def get_device(self) -> builtins.int:
        """-1: the CPU."""
        return -1

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

    def float(self) -> Tensor:
        """As float32."""
        return _shape.to(self, "float32")

    def double(self) -> Tensor:
        """As float64."""
        return _shape.to(self, "float64")

    def long(self) -> Tensor:
        """As int64."""
        return _shape.to(self, "int64")

    def bool(self) -> Tensor:
        """As bool: whether elements are other than 0."""
        return _shape.to(self, "bool")

    def int(self) -> Tensor:
        """As int32."""
        return _shape.to(self, "int32")

    def byte(self) -> Tensor:
        """As uint8."""
        return _shape.to(self, "uint8")

    @property
    def is_cuda(self) -> builtins.bool:
        """False: there is no device but the CPU."""
        return False

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

    def new_full(self, size: Any, fill_value: builtins.float, dtype: DType | None = None, device: Any = None) -> Tensor:
        """One number of this tensor's type, or another."""
        return self._new(create.full, (size,), dtype, device, fill_value)

    def new_tensor(self, data: Any, dtype: DType | None = None, device: Any = None) -> Tensor:
        """A copy of data in this tensor's type, or another."""
        check_device("new_tensor", device)
        return create.tensor(data, dtype or self.dtype)

    # -- in place; the greater part of them is made below --

    def add_(self, other: Any, *, alpha: builtins.float = 1) -> Tensor:
        """Adds alpha times `other` in place."""
        return self._in_place(_math.add, other if alpha == 1 else other * alpha)

    def sub_(self, other: Any, *, alpha: builtins.float = 1) -> Tensor:
        """Subtracts alpha times `other` in place."""
        return self._in_place(_math.sub, other if alpha == 1 else other * alpha)

    def mul_(self, other: Any) -> Tensor:
        """Multiplies by `other` in place."""
        return self._in_place(_math.mul, other)

    def div_(self, other: Any, *, rounding_mode: str | None = None) -> Tensor:
        """Divides by `other` in place; see `div`."""
        return self._in_place(_math.div, other, rounding_mode=rounding_mode)

    def __iadd__(self, other: Any) -> Tensor:
        return self._assigned(_math.add, other)

    def __isub__(self, other: Any) -> Tensor:
        return self._assigned(_math.sub, other)

    def __imul__(self, other: Any) -> Tensor:
        return self._assigned(_math.mul, other)

    def __itruediv__(self, other: Any) -> Tensor:
        return self._assigned(_math.div, other)

    def _assigned(self, op: Any, other: Any) -> Tensor:
        """What `self` becomes by ``+=`` and the like: itself, changed; where a gradient is to flow through it, a new tensor of its
        shape and type, which the name then stands for."""
        flows = self.requires_grad and not self.is_leaf or isinstance(other, TensorBase) and other.requires_grad
        if not flows or not is_grad_enabled() or self.requires_grad and self.is_leaf:
            return self._in_place(op, other)
        result = op(self, other)
        if result.shape != self.shape:
            raise ValueError(f"a tensor of shape {self.shape} cannot become one of {result.shape} by an assignment such as +=")
        return _shape.to(result, self.dtype)

    def uniform_(self, low: builtins.float = 0.0, high: builtins.float = 1.0, generator: Any = None) -> Tensor:
        """Filled with uniform random numbers."""
        return self._drawn(launch.uniform, generator, low=number("uniform_: low", low), high=number("uniform_: high", high))

    def normal_(self, mean: builtins.float = 0.0, std: builtins.float = 1.0, generator: Any = None) -> Tensor:
        """Filled with normal random numbers."""
        return self._drawn(launch.normal, generator, mean=number("normal_: mean", mean), std=number("normal_: std", std))

    def exponential_(self, lambd: builtins.float = 1.0, generator: Any = None) -> Tensor:
        """Filled with exponentially distributed random numbers of mean 1 / lambd."""
        lambd = positive("exponential_: lambd", lambd)
        return self.copy_(elementary.log1p(_math.neg(self.uniform_(generator=generator).detach())) / -lambd)

    def bernoulli_(self, p: builtins.float = 0.5, generator: Any = None) -> Tensor:
        """Filled with 1 with probability `p`, else 0."""
        from .random import bernoulli

        self._refuse_in_place()
        return self.copy_(bernoulli(self.detach(), p, generator=generator))

    def bernoulli(self, p: builtins.float | None = None, *, generator: Any = None) -> Tensor:
        """1 with the probability that elements are, or with `p`, else 0; see `fastnn.bernoulli`."""
        from .random import bernoulli

        return bernoulli(self, p, generator=generator)

    def multinomial(self, num_samples: builtins.int, replacement: builtins.bool = False, *, generator: Any = None) -> Tensor:
        """Places drawn with these weights; see `fastnn.multinomial`."""
        from .random import multinomial

        return multinomial(self, num_samples, replacement, generator=generator)

    def unsqueeze_(self, dim: builtins.int) -> Tensor:
        """`unsqueeze` of this tensor itself; its gradient is forgotten."""
        return self._seen_as(_shape.unsqueeze(self.detach(), dim))

    def squeeze_(self, dim: Any = None) -> Tensor:
        """`squeeze` of this tensor itself; its gradient is forgotten."""
        return self._seen_as(_shape.squeeze(self.detach()) if dim is None else _shape.squeeze(self.detach(), dim))

    def transpose_(self, dim0: builtins.int, dim1: builtins.int) -> Tensor:
        """`transpose` of this tensor itself; its gradient is forgotten."""
        return self._seen_as(_shape.transpose(self.detach(), dim0, dim1))

    swapaxes_ = swapdims_ = transpose_

    def t_(self) -> Tensor:
        """`t` of this tensor itself; its gradient is forgotten."""
        return self._seen_as(_shape.t(self.detach()))

    def _seen_as(self, view: Tensor) -> Tensor:
        self._refuse_in_place()
        self.set_data(view)
        return self

    def _drawn(self, op: Any, generator: Any, **options: builtins.float) -> Tensor:
        from .random import generator_state  # there are tensors before there is a generator

        self._refuse_in_place()
        op(generator_state(generator), **options, ordinal=0, out=self.detach())
        return self


# What has a form that changes the tensor itself.
_IN_PLACE = (
    "abs", "absolute", "acos", "acosh", "addcdiv", "addcmul", "addmm", "arccos", "arccosh", "arcsin", "arcsinh", "arctan",
    "arctan2", "arctanh", "asin", "asinh", "atan", "atan2", "atanh", "bitwise_and", "bitwise_not", "bitwise_or",
    "bitwise_xor", "ceil", "clamp", "clamp_max", "clamp_min", "clip", "copysign", "cos", "cosh", "cumprod", "cumsum",
    "deg2rad", "digamma", "divide", "erf", "erfinv", "exp", "exp2", "expm1", "fix", "floor", "floor_divide", "fmod", "frac", "hypot",
    "index_add", "index_copy", "index_fill", "lerp", "lgamma", "log", "log10", "log1p", "log2", "logical_and", "logical_not",
    "logical_or", "logical_xor", "logit", "masked_fill", "masked_scatter", "multiply", "nan_to_num", "neg", "negative",
    "pow", "rad2deg", "reciprocal", "relu", "remainder", "round", "rsqrt", "scatter", "scatter_add", "scatter_reduce",
    "sgn", "sigmoid", "sign", "sin", "sinh", "sqrt", "square", "subtract", "tan", "tanh", "tril", "triu", "true_divide",
    "trunc", "xlogy")


def _changing(name: str) -> Any:
    """The method `name`, with its result in the tensor's place."""

    def method(self: Tensor, *arguments: Any, **options: Any) -> Tensor:
        return self._in_place(getattr(type(self), name), *arguments, **options)

    method.__name__ = f"{name}_"
    method.__qualname__ = f"Methods.{name}_"
    method.__doc__ = f"`{name}` in place, with the same arguments."
    return method


for _name in _IN_PLACE:
    setattr(Methods, f"{_name}_", _changing(_name))
