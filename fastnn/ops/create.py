"""Tensors from Python numbers, NumPy arrays and buffers; zeros, ones and the like."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Set
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._core import DType, TensorBase, as_dtype, launch
from ..checks import a_tensor, array_like, check_device, integer, whole
from .layout import MemoryFormat, contiguous_format, format_wanted, preserve_format

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["arange", "as_tensor", "empty", "empty_like", "eye", "from_numpy", "full", "full_like", "linspace", "logspace", "ones",
           "ones_like", "tensor", "tril_indices", "triu_indices", "zeros", "zeros_like"]

float32, float64, int64, int32, uint8, bool_ = (as_dtype(name) for name in _core.DTYPE_NAMES)
_NATIVE = {np.dtype(name) for name in _core.DTYPE_NAMES}


def common_dtype(dtypes: Set[DType]) -> DType:
    """The type that holds all: a floating one before integers, else the widest; PyTorch's rule."""
    return next(d for d in (float64, float32, int64, int32, uint8, bool_) if d in dtypes)


def tensor(data: Any, dtype: DType | None = None, requires_grad: bool = False, device: Any = None) -> Tensor:
    """A new tensor holding a copy of `data`.

    Parameters
    ----------
    data : array_like
        A number, (nested) sequence, NumPy array, buffer, or Tensor.
    dtype : dtype, optional
        Element type. By default that of `data`; Python floats give float32 and Python integers int64.
    requires_grad : bool
        Whether gradients are to be collected in ``.grad``.
    device : None or "cpu"
        There is no other.

    Returns
    -------
    Tensor
        Of `data`'s shape; C order, or N, H, W, C order where `data` is a channels-last tensor.

    Raises
    ------
    TypeError
        If `data` holds something else than numbers, rows of different lengths, or elements that a NumPy mask hides.
    ValueError
        If the device is another, or an integer does not fit int64.
    """
    check_device("tensor", device)
    if isinstance(data, TensorBase):
        result = launch.copy(data.detach(), dtype=-1 if dtype is None else as_dtype(dtype).code)
    else:
        result = _wrap(_array(np.array, data, order="C"), data, dtype, is_shared=False)
    result.requires_grad = requires_grad
    return result


def _array(make: Callable, data: Any, **options: Any) -> np.ndarray:
    """`data` as an array by `make`; one message for all that is none."""
    array_like("tensor: data", data)
    try:
        return make(data, **options)
    except ValueError as error:
        raise TypeError(f"tensor: the data are not an array: {error}") from None


def _wrap(array: np.ndarray, data: Any, dtype: DType | None, is_shared: bool) -> Tensor:
    """A tensor on `array`'s memory, or on a converted copy of it; `is_shared`: others may have the array too."""
    if array.dtype == object or array.dtype.kind in "USVMmc":
        raise TypeError(f"tensor: elements of type {array.dtype} are not supported: they must be numbers "
                        f"({', '.join(_core.DTYPE_NAMES)})")
    if dtype is not None:
        wanted = np.dtype(as_dtype(dtype).name)
    elif array.dtype.kind == "f" and (not isinstance(data, (np.ndarray, np.generic)) or array.dtype == np.float16):
        wanted = np.dtype(np.float32)  # Python floats
    elif array.dtype.name in _core.DTYPE_NAMES:
        wanted = array.dtype.newbyteorder("=")
    elif array.dtype.kind in "iu":
        wanted = np.dtype(np.int64)
    else:
        wanted = np.dtype(np.float64)
    if array.dtype.kind == "u" and array.itemsize == 8 and wanted == np.int64 and array.size and array.max() > 2**63 - 1:
        raise ValueError(f"tensor: an element is {array.max()}, but must fit int64; dtype=fastnn.float64 takes it, rounded")
    array = np.require(array, dtype=wanted, requirements=["A"])
    if any(step % array.itemsize for step in array.strides):
        array = np.ascontiguousarray(array)
    return _core.from_buffer(array, is_shared)


def legacy_tensor(name: str, dtype: DType, data: tuple) -> Tensor:
    """What PyTorch's older constructors make of their arguments: data in one type, or of extents an uninitialised tensor."""
    if not data or all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in data):
        return empty(data or (0,), dtype=dtype)
    if len(data) > 1:
        raise TypeError(f"{name}: arguments are {', '.join(map(repr, data))}, but must be extents, or data as one array or list")
    return tensor(data[0], dtype)


class TensorType:
    """PyTorch's older way to say a type and to make a tensor of it: ``LongTensor([1, 2])``, ``FloatTensor(2, 3)``,
    ``x.type(FloatTensor)``.

    Parameters
    ----------
    name : str
        Its name.
    dtype : dtype
        The element type.
    """

    def __init__(self, name: str, dtype: DType) -> None:
        self.title, self.dtype = name, dtype

    @property
    def name(self) -> str:
        """The element type's name: so it stands for a dtype."""
        return self.dtype.name

    def __call__(self, *data: Any) -> Tensor:
        """A copy of data in this type, or of extents an uninitialised tensor."""
        return legacy_tensor(self.title, self.dtype, data)

    def __repr__(self) -> str:
        return f"fastnn.{self.title}"


FloatTensor, DoubleTensor, LongTensor = (TensorType(n, d) for n, d in (
    ("FloatTensor", float32), ("DoubleTensor", float64), ("LongTensor", int64)))
IntTensor, ByteTensor, BoolTensor = (TensorType(n, d) for n, d in (("IntTensor", int32), ("ByteTensor", uint8), ("BoolTensor", bool_)))


def finfo(dtype: DType = float32) -> np.finfo:
    """The limits of a floating type: ``eps``, ``max``, ``min``, ``tiny``; as ``numpy.finfo``."""
    if not as_dtype(dtype).is_floating:
        raise TypeError(f"finfo: dtype is {dtype}, but must be float32 or float64; iinfo is for integers")
    return np.finfo(as_dtype(dtype).name)


def iinfo(dtype: DType) -> np.iinfo:
    """The limits of an integer type: ``max``, ``min``; as ``numpy.iinfo``."""
    if as_dtype(dtype).is_floating or as_dtype(dtype) is bool_:
        raise TypeError(f"iinfo: dtype is {dtype}, but must be int64, int32 or uint8; finfo is for floating types")
    return np.iinfo(as_dtype(dtype).name)


def from_numpy(ndarray: np.ndarray) -> Tensor:
    """A tensor on the same memory as `ndarray`: what one writes, the other sees.

    Parameters
    ----------
    ndarray : numpy.ndarray
        Of a supported dtype; any strides. A read-only array gives a read-only tensor.

    Returns
    -------
    Tensor
        A view; a copy only where `ndarray` is misaligned or in foreign byte order.

    Raises
    ------
    TypeError
        If `ndarray` is not a NumPy array, its dtype is not supported, or a mask hides elements.
    """
    if type(ndarray) is np.ndarray and ndarray.flags.c_contiguous and ndarray.flags.aligned and ndarray.dtype in _NATIVE:
        return _core.from_buffer(ndarray)
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"from_numpy: ndarray is a {type(ndarray).__name__}, but must be a numpy.ndarray")
    array_like("from_numpy: array", ndarray)
    if ndarray.dtype.name not in _core.DTYPE_NAMES:
        raise TypeError(f"from_numpy: ndarray has dtype {ndarray.dtype}, but must be one of {', '.join(_core.DTYPE_NAMES)}")
    return _wrap(ndarray, ndarray, None, is_shared=True)


def as_tensor(data: Any, dtype: DType | None = None, device: Any = None) -> Tensor:
    """`data` as a tensor, without a copy where possible.

    Parameters
    ----------
    data : array_like
        As for `tensor`; a Tensor of the right dtype is returned as it is, a NumPy array keeps its memory.
    dtype : dtype, optional
        Element type wanted.
    device : None or "cpu"
        There is no other.

    Returns
    -------
    Tensor
    """
    if device is not None:  # asked first: every float that meets a tensor comes here
        check_device("as_tensor", device)
    if isinstance(data, TensorBase):
        if dtype is None or as_dtype(dtype) is data.dtype:
            return data
        return launch.copy(data, dtype=as_dtype(dtype).code)
    if hasattr(data, "__dlpack__") and not isinstance(data, np.ndarray):
        data = np.from_dlpack(data)
    return _wrap(_array(np.asarray, data), data, dtype, is_shared=True)


def extents_of(shape: tuple, size: Sequence[int] | None = None, name: str = "size") -> Sequence[int]:
    """Numbers, extents as a rule, given as such, as one tuple, or by name."""
    if size is not None:
        if shape:
            raise TypeError(f"{name} is {size!r} beside extents {shape}: give one of them")
        return size if isinstance(size, (tuple, list)) else (size,)
    return shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape


def empty(*shape: int, size: Sequence[int] | None = None, dtype: DType = float32, requires_grad: bool = False,
          device: Any = None) -> Tensor:
    """An uninitialised tensor of the given shape.

    Parameters
    ----------
    *shape : int
        Extents, as numbers or as one tuple.
    size : sequence of int, optional
        The same by name.
    dtype : dtype
        Element type.
    requires_grad : bool
        Whether gradients are to be collected.
    device : None or "cpu"
        There is no other.

    Returns
    -------
    Tensor
        In C order.
    """
    check_device("empty", device)
    result = _core.empty(extents_of(shape, size), dtype, contiguous=True)
    result.requires_grad = requires_grad
    return result


def fill(result: Tensor, value: float) -> Tensor:
    """Writes one number into every element of `result`; integers of any size exactly."""
    if isinstance(value, (int, np.integer)) and abs(value) > 2**53 and not result.dtype.is_floating:  # no float64 equals it
        launch.copy(_core.scalar(value, result.dtype).as_strided(result.shape, (0,) * result.ndim), dtype=-1, out=result)
    else:
        launch.fill(value=value, out=result)
    return result


def is_tensor(obj: Any) -> bool:
    """Whether `obj` is a tensor of fastnn's."""
    return isinstance(obj, _core.TensorBase)


def full(size: Sequence[int] | int, fill_value: float, dtype: DType | None = None, requires_grad: bool = False,
         device: Any = None) -> Tensor:
    """A tensor of the given shape with every element `fill_value`.

    Parameters
    ----------
    size : tuple of int
        Extents.
    fill_value : float
        The value.
    dtype : dtype, optional
        Element type; by default as PyTorch's: that of the value, bool, int64 or float32.
    requires_grad : bool
        Whether gradients are to be collected.
    device : None or "cpu"
        There is no other.

    Returns
    -------
    Tensor
        In C order.
    """
    check_device("full", device)
    if dtype is None:
        kinds = {bool_: (bool, np.bool_), int64: (int, np.integer)}
        dtype = next((kind for kind, types in kinds.items() if isinstance(fill_value, types)), float32)
    result = fill(_core.empty(size if isinstance(size, (tuple, list)) else (size,), dtype, contiguous=True), fill_value)
    result.requires_grad = requires_grad
    return result


def zeros(*shape: int, size: Sequence[int] | None = None, dtype: DType = float32, requires_grad: bool = False,
          device: Any = None) -> Tensor:
    """A tensor of zeros; see `full`."""
    return full(extents_of(shape, size), 0.0, dtype, requires_grad, device)


def ones(*shape: int, size: Sequence[int] | None = None, dtype: DType = float32, requires_grad: bool = False,
         device: Any = None) -> Tensor:
    """A tensor of ones; see `full`."""
    return full(extents_of(shape, size), 1.0, dtype, requires_grad, device)


def full_like(input: Tensor, fill_value: float, dtype: DType | None = None, device: Any = None, requires_grad: bool = False,
              memory_format: MemoryFormat = preserve_format) -> Tensor:
    """A tensor of another one's shape with every element `fill_value`.

    Parameters
    ----------
    input : Tensor
        What it is to be like.
    fill_value : float
        The value.
    dtype : dtype, optional
        Element type; by default `input`'s.
    device : None or "cpu"
        There is no other.
    requires_grad : bool
        Whether gradients are to be collected.
    memory_format : MemoryFormat
        By default the results' layout: N, H, W, C for four axes, else C order; `contiguous_format`: C order.

    Returns
    -------
    Tensor
        Of `input`'s shape.
    """
    result = fill(empty_like(input, dtype, device, memory_format=memory_format), fill_value)
    result.requires_grad = requires_grad
    return result


def zeros_like(input: Tensor, dtype: DType | None = None, device: Any = None, requires_grad: bool = False,
               memory_format: MemoryFormat = preserve_format) -> Tensor:
    """Zeros of `input`'s shape; see `full_like`."""
    return full_like(input, 0.0, dtype, device, requires_grad, memory_format)


def ones_like(input: Tensor, dtype: DType | None = None, device: Any = None, requires_grad: bool = False,
              memory_format: MemoryFormat = preserve_format) -> Tensor:
    """Ones of `input`'s shape; see `full_like`."""
    return full_like(input, 1.0, dtype, device, requires_grad, memory_format)


def empty_like(input: Tensor, dtype: DType | None = None, device: Any = None, requires_grad: bool = False,
               memory_format: MemoryFormat = preserve_format) -> Tensor:
    """An uninitialised tensor of `input`'s shape; see `full_like`."""
    check_device("empty_like", device)
    wanted = format_wanted("empty_like", memory_format, a_tensor("empty_like", input).ndim)
    in_order = wanted is contiguous_format or wanted is preserve_format and input.lies_in_rows
    result = _core.empty(input.shape, dtype or input.dtype, contiguous=in_order)
    result.requires_grad = requires_grad
    return result


def arange(start: float, end: float | None = None, step: float = 1, dtype: DType | None = None,
           device: Any = None, requires_grad: bool = False) -> Tensor:
    """Evenly spaced values from `start` (0 if only one number is given) up to, not including, `end`; as ``numpy.arange``."""
    check_device("arange", device)
    start, end = (0, start) if end is None else (start, end)
    if (y := _ramp(start, end, step, dtype)) is not None:
        y.requires_grad = requires_grad
        return y
    values = _by_numpy("arange", np.arange, start, end, step)
    return tensor(values, dtype or (int64 if values.dtype.kind == "i" else float32), requires_grad, device)


def _ramp(start: Any, end: Any, step: Any, dtype: DType | None) -> Tensor | None:
    """`arange` by the engine, NumPy's numbers; None where integers are not exact in it, or there may be none, or something is wrong."""
    kinds = {type(start), type(end), type(step)}
    if not kinds <= {int, float} or not step or not all(abs(v) < 2**52 for v in (start, end, step)):
        return None
    wanted = as_dtype(dtype) if dtype is not None else float32 if float in kinds else int64
    length = math.ceil((end - start) / step) if float in kinds else -((start - end) // step)
    if not 0 < length < 2**40 or wanted in (uint8, bool_) or float in kinds and not wanted.is_floating:
        return None
    y = _core.empty((length,), wanted, contiguous=True)
    exact = {} if float in kinds else {"first": start, "by": step}
    launch.ramp(start=float(start), step=float(start + step) - float(start), **{"first": 0, "by": 0, **exact}, out=y)
    return y


def linspace(start: float, end: float, steps: int, dtype: DType = float32, device: Any = None,
             requires_grad: bool = False) -> Tensor:
    """`steps` evenly spaced values from `start` to `end`, both included; as ``numpy.linspace``."""
    check_device("linspace", device)
    length = _most("linspace", steps)
    if {type(start), type(end)} <= {int, float} and as_dtype(dtype).is_floating and 1 < length < 2**40:
        step = (float(end) - float(start)) / (length - 1)
        if step and math.isfinite(step):
            y = _core.empty((length,), dtype, contiguous=True)
            launch.ramp(start=float(start), step=step, first=0, by=0, out=y)
            fill(y[-1:], end)
            y.requires_grad = requires_grad
            return y
    return tensor(_by_numpy("linspace", np.linspace, start, end, length), dtype, requires_grad, device)


def logspace(start: float, end: float, steps: int, base: float = 10.0, dtype: DType = float32, device: Any = None,
             requires_grad: bool = False) -> Tensor:
    """`base` to the power of `steps` evenly spaced values from `start` to `end`; as ``numpy.logspace``."""
    return tensor(_by_numpy("logspace", np.logspace, start, end, _most("logspace", steps), True, base), dtype, requires_grad, device)


def _most(name: str, steps: int) -> int:
    """`steps`, of which NumPy makes nothing when they are beyond all memory."""
    return whole(f"{name}: steps", integer(name, "steps", steps), 0, 2**48)


def tril_indices(row: int, col: int, offset: int = 0, dtype: DType = int64, device: Any = None) -> Tensor:
    """The places (2, N) of a row x col matrix on its diagonal number `offset` and below, row by row."""
    return tensor(np.array(np.tril_indices(*_triangle_of("tril_indices", row, col, offset))), dtype, device=device)


def triu_indices(row: int, col: int, offset: int = 0, dtype: DType = int64, device: Any = None) -> Tensor:
    """The places (2, N) of a row x col matrix on its diagonal number `offset` and above, row by row."""
    return tensor(np.array(np.triu_indices(*_triangle_of("triu_indices", row, col, offset))), dtype, device=device)


def _triangle_of(name: str, row: int, col: int, offset: int) -> tuple[int, int, int]:
    """NumPy's arguments: it makes nothing of extents below 0 or too large, and cannot take any diagonal."""
    rows, columns = (whole(f"{name}: {which}", integer(name, which, value), 0, 2**48) for which, value in (("row", row), ("col", col)))
    return rows, max(-rows - 1, min(integer(name, "offset", offset), columns + 1)), columns


def eye(n: int, m: int | None = None, dtype: DType = float32, device: Any = None, requires_grad: bool = False) -> Tensor:
    """The n x m matrix with ones on its diagonal; as ``numpy.eye``."""
    columns = n if m is None else m
    if type(n) is type(columns) is int and 0 < n < 2**40 and 0 < columns < 2**40:
        y = zeros(n, columns, dtype=dtype, device=device)
        fill(y.as_strided((min(n, columns),), (columns + 1,)), 1)
        y.requires_grad = requires_grad
        return y
    return tensor(_by_numpy("eye", np.eye, n, m), dtype, requires_grad, device)


def _by_numpy(name: str, make: Callable, *arguments: Any) -> np.ndarray:
    """What NumPy makes of the arguments; its errors with the caller's name and what was given."""
    try:
        return make(*arguments)
    except (TypeError, ValueError, ArithmeticError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name}: nothing can be made from {', '.join(map(repr, arguments))}: {error}") from None
