"""Tensor: arrays that remember how they were computed."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from . import _core
from ._core import TensorBase, launch, sliced
from .checks import several
from .methods import Methods
from .ops import assign as _assign
from .ops import bitwise, division
from .ops import index as _index
from .ops import math as _math
from .ops import reduce as _reduce
from .ops import shape as _shape
from .ops import slices as _slices
from .ops import softmax as _softmax
from .ops.activation import relu, sigmoid, tanh
from .ops.create import as_tensor, fill, float32, legacy_tensor, tensor
from .ops.linear import matmul
from .ops.operands import kind_of
from .ops.power import pow as power


class Tensor(TensorBase, Methods):
    """An n-dimensional array with gradients.

    Made by `fastnn.tensor`, `fastnn.from_numpy`, `fastnn.zeros` and the like, and by operations on other tensors. Element types:
    float32, float64, int64, int32, uint8, bool. Four-dimensional results lie in N, H, W, C order under an N, C, H, W shape.

    Parameters
    ----------
    *data : array_like or int
        A copy is made of data; of extents, as in PyTorch's ``Tensor(2, 3)``, an uninitialised tensor.
    dtype : dtype
        float32 unless another is given, whatever the data's is; `fastnn.tensor` keeps that.
    requires_grad : bool
        Whether gradients are to be collected.
    """

    __slots__ = ()
    __array_priority__ = 1000  # ndarray + Tensor is ours

    def __init__(self, *data: Any, dtype: _core.DType = float32, requires_grad: bool = False):
        self.set_data(legacy_tensor("Tensor", dtype, data))
        self.requires_grad = requires_grad

    # -- NumPy and Python --

    def numpy(self, *, force: bool = False) -> np.ndarray:
        """The elements as a NumPy array on the same memory.

        Parameters
        ----------
        force : bool
            Whether a tensor that requires grad is detached first.

        Raises
        ------
        RuntimeError
            If the tensor requires grad: use ``detach().numpy()``.
        """
        if self.requires_grad and not force:
            raise RuntimeError("numpy: the tensor requires grad; use detach().numpy()")
        return np.asarray(memoryview(self))

    def __array__(self, dtype=None, copy=None):
        array = np.asarray(memoryview(self))
        return np.array(array, dtype=dtype, copy=copy)

    def __dlpack__(self, **options):
        return self.numpy().__dlpack__(**options)

    def __dlpack_device__(self):
        return (1, 0)

    def tolist(self) -> Any:
        """The elements as (nested) Python lists."""
        return np.asarray(memoryview(self)).tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.is_floating:
            raise TypeError("only integer tensors can be used as an index")
        return int(self.item())

    def __bool__(self) -> bool:
        if self.numel() != 1:
            raise ValueError(f"a tensor of shape {self.shape} is neither true nor false: use any() or all() of its NumPy "
                             "array")
        return bool(self.item())

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("a 0-d tensor has no length")
        return self.shape[0]

    def __iter__(self):
        return (self[k] for k in range(len(self)))

    def __contains__(self, element: Any) -> bool:
        """Whether some element, of whatever axis, equals `element`, which broadcasts."""
        return bool(_math.eq(self, element).any())

    def __repr__(self) -> str:
        body = np.array2string(np.asarray(memoryview(self)), separator=", ", prefix="tensor(", precision=4)
        extra = "" if self.dtype.name in ("float32", "int64", "bool") else f", dtype={self.dtype}"
        if self.grad_fn is not None:
            extra += f", grad_fn={self.grad_fn.name}"
        elif self.requires_grad:
            extra += ", requires_grad=True"
        return f"tensor({body}{extra})"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec or self.ndim == 0 else repr(self)

    def __reduce__(self):
        return _rebuild, (type(self), np.array(memoryview(self)), self.requires_grad)

    def __deepcopy__(self, memo):
        if self.grad_fn is not None:
            raise RuntimeError("only leaf tensors can be deep-copied; use detach().clone()")
        copy = _rebuild(type(self), self.detach(), self.requires_grad)
        copy.grad = None if self.grad is None else self.grad.clone()
        memo[id(self)] = copy
        return copy

    def size(self, dim: int | None = None) -> tuple[int, ...] | int:
        """The shape, or the extent of one axis."""
        return self.shape if dim is None else self.shape[_shape._axis("size", dim, self.ndim)]

    def dim(self) -> int:
        """Number of axes."""
        return self.ndim

    # -- the tape --

    def backward(self, gradient: Tensor | None = None, retain_graph: bool = False, create_graph: bool = False,
                 inputs: Tensor | Sequence[Tensor] | None = None) -> None:
        """Adds to the ``grad`` of every leaf the derivative of this tensor with respect to it.

        Parameters
        ----------
        gradient : Tensor, optional
            What to multiply the derivatives with, of this tensor's shape; may be left out for a tensor of one element.
        retain_graph : bool
            Keep the graph for another call.
        create_graph : bool
            Must be False: derivatives of derivatives are not offered.
        inputs : Tensor or sequence of Tensor, optional
            The leaves that are to have their gradients; by default all.

        Raises
        ------
        ValueError
            If `create_graph` is True, or `inputs` is empty or holds a tensor that is no leaf.
        RuntimeError
            If the tensor does not require grad, or the graph was freed, or a saved tensor was changed in place.
        """
        if create_graph:
            raise ValueError("backward: create_graph is True, but derivatives of derivatives are not offered")
        _core.backward(self, gradient, retain_graph, None if inputs is None else _identities(inputs))

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> Any:
        """Has a function called with the gradient with respect to this tensor whenever backward has computed it.

        Parameters
        ----------
        hook : callable
            ``hook(gradient)`` returns None, or what shall be there in its place, of the same shape and type. A captured step calls
            it while it is recorded; what it launches is replayed.

        Returns
        -------
        RemovableHandle
            Its ``remove()`` takes the function off again.

        Raises
        ------
        RuntimeError
            If the tensor does not require grad.
        TypeError
            If `hook` cannot be called.
        """
        return self._with_hook(self.hooks_of(), hook, self.is_leaf)

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> Any:
        """Has a function called with this leaf whenever backward has added to its ``grad``; see `register_hook`."""
        return self._with_hook(self.hooks_of(late=True), hook, True)

    def _with_hook(self, hooks: dict, hook: Any, lasts: bool) -> Any:
        from .nn.hooks import RemovableHandle  # layers build on tensors

        if not callable(hook):
            raise TypeError(f"hook: it is {hook!r}, but must be callable")
        handle = RemovableHandle(hooks, hook, lasts=lasts)
        if "retain_grad" in hooks:  # it keeps what the others have made of the gradient
            hooks["retain_grad"] = hooks.pop("retain_grad")
        return handle

    def retain_grad(self) -> None:
        """Has backward leave this tensor's gradient in its ``grad``, as it does for leaves."""
        me = weakref.ref(self)
        if self.is_leaf:
            return

        def keep(gradient: Tensor) -> None:
            tensor = me()
            if tensor is not None:
                tensor.grad = gradient.clone() if tensor.grad is None else _math.add(tensor.grad, gradient)

        self.hooks_of().setdefault("retain_grad", keep)  # once, however often it is asked for

    def graph(self, format: str = "text", names: Mapping[str, Tensor] | None = None) -> str:
        """The operations and leaves that this tensor was computed from, with the leaves' values and gradients.

        Parameters
        ----------
        format : {"text", "dot"}
            One numbered line each, with the numbers of its inputs; or Graphviz's language, to be drawn by ``dot``.
        names : mapping of str to Tensor, optional
            Names for leaves, such as ``dict(model.named_parameters())``.

        Returns
        -------
        str

        Raises
        ------
        ValueError
            If `format` is another.
        RuntimeError
            If backward has freed the graph: call it with ``retain_graph=True``.

        Examples
        --------
        >>> x = fastnn.tensor([1.0, 2.0], requires_grad=True)
        >>> print((x * x).sum().graph(names={"x": x}))
        #0 sum -> float32 () value 5. <- #1
        #1 mul <- #2, #2
        #2 x: float32 (2,) value [1., 2.]; no gradient
        """
        from .graph import graph_text  # for looking, not for training: `import fastnn` stays quick

        return graph_text(self, format, names)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Sets ``requires_grad`` and returns the tensor."""
        self.requires_grad = requires_grad
        return self

    # -- shape --

    reshape = _shape.reshape
    view = _shape.reshape
    flatten = _shape.flatten
    unflatten = _shape.unflatten
    permute = _shape.permute
    transpose = _shape.transpose
    movedim = _shape.movedim
    unsqueeze = _shape.unsqueeze
    squeeze = _shape.squeeze
    expand = _shape.expand
    split = _slices.split
    chunk = _slices.chunk
    narrow = _slices.narrow
    unbind = _slices.unbind
    t = _shape.t
    contiguous = _shape.contiguous
    clone = _shape.clone
    to = _shape.to

    @property
    def T(self) -> Tensor:
        """The axes in reverse order."""
        return _shape.permute(self, *reversed(range(self.ndim)))

    def __getitem__(self, key) -> Tensor:
        view = sliced(_slices._slice_backward, self, key)
        if view is not None:
            return view
        key = key if isinstance(key, tuple) else (key,)
        if _assign.is_basic(key):  # with NumPy's integers
            return _slices.slice_view(self, key)
        return _index.take(self, key)

    def __setitem__(self, key, value) -> None:
        key = key if isinstance(key, tuple) else (key,)
        root = self._flows(value)
        if root is None:
            _assign.assign(self, key, value)
        else:
            self._become(_assign.assigned(self.on_tape(), key, value), root)

    # -- arithmetic --

    __add__ = add = _math.add
    __sub__ = sub = _math.sub
    __mul__ = mul = _math.mul
    __truediv__ = div = _math.div
    __floordiv__ = division.floor_divide
    __mod__ = division.remainder
    __pow__ = pow = power
    __matmul__ = matmul = matmul
    __neg__ = neg = _math.neg
    __abs__ = abs = _math.abs
    __and__ = __rand__ = bitwise.bitwise_and
    __or__ = __ror__ = bitwise.bitwise_or
    __xor__ = __rxor__ = bitwise.bitwise_xor
    __invert__ = bitwise.bitwise_not

    def __radd__(self, other):
        return _math.add(other, self)

    def __rsub__(self, other):
        return _math.sub(other, self)

    def __rmul__(self, other):
        return _math.mul(other, self)

    def __rtruediv__(self, other):
        return _math.div(other, self)

    def __rfloordiv__(self, other):
        return division.floor_divide(other, self)

    def __rmod__(self, other):
        return division.remainder(other, self)

    def __rpow__(self, other):
        return power(other, self)

    def __rmatmul__(self, other):
        return matmul(other, self)

    def __eq__(self, other):
        return False if other is None else _math.eq(self, other)

    def __ne__(self, other):
        return True if other is None else _math.ne(self, other)

    eq = _math.eq
    ne = _math.ne
    __lt__ = lt = _math.lt
    __le__ = le = _math.le
    __gt__ = gt = _math.gt
    __ge__ = ge = _math.ge
    __hash__ = TensorBase.__hash__  # by identity: comparing gives a tensor, so equality cannot decide

    exp = _math.exp
    log = _math.log
    sqrt = _math.sqrt
    square = _math.square
    clip = _math.clip
    clamp = _math.clip
    maximum = _math.maximum
    minimum = _math.minimum
    relu = relu
    sigmoid = sigmoid
    tanh = tanh

    # -- reductions --

    sum = _reduce.sum
    mean = _reduce.mean
    max = _reduce.max
    min = _reduce.min
    amax = _reduce.amax
    amin = _reduce.amin
    argmax = _reduce.argmax
    argmin = _reduce.argmin
    any = _reduce.any
    all = _reduce.all
    logsumexp = _reduce.logsumexp
    var = _reduce.var
    std = _reduce.std
    softmax = _softmax.softmax
    log_softmax = _softmax.log_softmax

    # -- in place --

    def _flows(self, *sources: Any) -> Tensor | None:
        """Where a gradient flows through what is written, the tensor whose place on the tape the result has to take: this one, or what
        it is a view of. None where none flows. Raises where that would leave gradients wrong."""
        if not _core.is_grad_enabled():
            return None
        if not self.requires_grad and not any(isinstance(source, TensorBase) and source.requires_grad for source in sources):
            return None
        if self.requires_grad and self.is_leaf:
            raise RuntimeError("writing in place to a leaf that requires grad: take the result as a new tensor, as x = x.relu(), or "
                               "do it under no_grad()")
        for behind in ((), (self, *sources)):  # what older operations keep for backward is looked for only where it matters
            if self.is_alone(behind):
                return self
            root = self.root(behind)
            if root is not None:
                break
        if root is None or root.requires_grad and root.is_leaf or _assign.overlaps(self):
            raise RuntimeError("writing in place where a gradient flows, to memory that something else sees, too (another view, an "
                               "array, or what backward needs): take the result as a new tensor, as x = x + y, stack or where")
        return root

    def _refuse_in_place(self) -> None:
        """Raises where what is about to be done knows no gradient."""
        if _core.is_grad_enabled() and self.requires_grad:
            raise RuntimeError("writing in place to a tensor that requires grad: do it under no_grad(), or to its detach()")

    def _become(self, result: Tensor, root: Tensor) -> Tensor:
        if root is self:
            self.become(result if result.is_alone() else _shape.clone(result))
        else:
            _assign.write_through(self, root, result)
        return self

    def _in_place(self, op: Callable, *operands: Any, **options: Any) -> Tensor:
        """self = op(self, *operands), in this tensor's memory; what results must broadcast to this shape. Where a gradient flows, the
        tensor becomes the result."""
        root = self._flows(*operands, *options.values())
        before = self.detach() if root is None else self.on_tape()
        result = op(before, *(before if operand is self else operand for operand in operands), **options)
        if kind_of(result.dtype) > kind_of(self.dtype):
            raise TypeError(f"writing in place: the result is {result.dtype}, which a tensor of {self.dtype} cannot hold")
        return self._write(result) if root is None else self._become(_assign.replaced(self, result), root)

    def _write(self, other: Any) -> Tensor:
        """Writes `other` off the tape."""
        if not isinstance(other, TensorBase) and np.ndim(other) == 0:
            return fill(self, other)
        other = _shape.expand(as_tensor(other).detach(), self.shape)
        if other.shares_storage(self):
            other = launch.contiguous(other)
        launch.copy(other, dtype=self.dtype.code, out=self)
        return self

    def copy_(self, other: Any) -> Tensor:
        """Writes `other` (a number or something that broadcasts to this shape) into this tensor."""
        root = self._flows(other)
        return self._write(other) if root is None else self._become(_assign.replaced(self, other), root)

    def fill_(self, value: float) -> Tensor:
        """Writes one number into every element."""
        return self.copy_(value)

    def zero_(self) -> Tensor:
        """Writes 0 into every element."""
        return self.copy_(0.0)


def _identities(inputs: Tensor | Sequence[Tensor]) -> set[int]:
    """What backward knows leaves by."""
    leaves = tuple(several("backward", inputs, "inputs"))
    if not leaves:
        raise ValueError("backward: inputs is empty, but must name a leaf")
    for k, leaf in enumerate(leaves):
        if not isinstance(leaf, TensorBase) or not leaf.is_leaf or not leaf.requires_grad:
            raise ValueError(f"backward: inputs[{k}] must be a leaf that requires grad")
    return {id(leaf) for leaf in leaves}


def _rebuild(cls, data, requires_grad):
    """What pickle and deepcopy make a tensor from: a copy of an array or tensor, of which nobody else has the memory."""
    new = cls.__new__(cls)
    new.set_data(tensor(data))
    new.requires_grad = requires_grad
    return new


_core.set_tensor_type(Tensor)


class _GradMode:
    """A context manager, and decorator, under which recording is on or off."""

    enabled: bool

    def __new__(cls, *arguments: Any, **options: Any):
        """A mode; or, where it decorates without parentheses (``@fastnn.no_grad``), the decorated function."""
        return cls()(arguments[0]) if arguments and callable(arguments[0]) else super().__new__(cls)

    def __init__(self) -> None:
        self.before: list[bool] = []

    def __enter__(self):
        self.before.append(_core.set_grad_enabled(self.enabled))
        return self

    def __exit__(self, *error):
        _core.set_grad_enabled(self.before.pop())

    def __call__(self, function: Callable) -> Callable:
        mode = enable_grad if self.enabled else no_grad

        @functools.wraps(function)
        def wrapped(*args, **kwargs):
            with mode():
                return function(*args, **kwargs)

        return wrapped


class no_grad(_GradMode):
    """Operations inside are not recorded: ``with fastnn.no_grad():`` or ``@fastnn.no_grad()``."""

    enabled = False


class enable_grad(_GradMode):
    """Operations inside are recorded, even within `no_grad`."""

    enabled = True


class set_grad_enabled(_GradMode):
    """Turns recording on or off at once; as a context manager or decorator, for what is inside.

    Parameters
    ----------
    mode : bool
        Whether operations are recorded from here on.
    """

    def __init__(self, mode: bool) -> None:
        super().__init__()
        self.enabled = bool(mode)
        self.before.append(_core.set_grad_enabled(self.enabled))

    def __enter__(self):
        return self

    def __call__(self, function: Callable) -> Callable:
        self.__exit__()
        return super().__call__(function)


class inference_mode(_GradMode):
    """`no_grad` by another name that PyTorch has, or with ``mode=False`` `enable_grad`: results are tensors like others."""

    def __init__(self, mode: bool = True) -> None:
        super().__init__()
        self.enabled = not mode
