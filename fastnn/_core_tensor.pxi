# Element types, storages and tensors; part of _core.pyx.

# ---- dtypes ----------------------------------------------------------------------------------------------------------

DTYPE_NAMES = tuple([fnn_dtype_name(d).decode() for d in range(FNN_NUM_DTYPES)])
cdef dict DTYPE_CODES = {name: code for code, name in enumerate(DTYPE_NAMES)}
cdef dict codes_seen = {}  # NumPy dtype -> code: a look-up is far quicker than dtype.name
cdef const char **FORMATS = ["f", "d", "q", "i", "B", "?"]  # of the buffer protocol, by dtype


class DType:
    """An element type. The six there are: ``fastnn.float32, float64, int64, int32, uint8, bool``."""

    __slots__ = ("name", "code", "itemsize", "is_floating")

    def __init__(self, name, code):
        self.name = name
        self.code = code
        self.itemsize = fnn_itemsize(code)
        self.is_floating = code <= FNN_FLOAT64

    @property
    def is_floating_point(self):
        """PyTorch's name for `is_floating`."""
        return self.is_floating

    def __repr__(self):
        return f"fastnn.{self.name}"

    def __str__(self):
        return self.name

    def __reduce__(self):
        return as_dtype, (self.name,)


cdef tuple DTYPES = tuple([DType(name, code) for code, name in enumerate(DTYPE_NAMES)])


def as_dtype(dtype):
    """The DType that `dtype` means: a DType, a name, a NumPy dtype or type, or Python's `float` (64 bits), `int` or `bool`."""
    if type(dtype) is DType:
        return dtype
    name = dtype if isinstance(dtype, str) else getattr(dtype, "name", None) or getattr(dtype, "__name__", repr(dtype))
    name = {"float": "float64", "int": "int64", "bool_": "bool"}.get(name, name)
    if name not in DTYPE_CODES:
        raise TypeError(f"dtype {dtype!r} is not supported: it must be one of {', '.join(DTYPE_NAMES)}")
    return DTYPES[DTYPE_CODES[name]]


# ---- storage ---------------------------------------------------------------------------------------------------------

cdef long long next_serial = 0


@cython.final
@cython.freelist(256)
cdef class Storage:
    """A block of memory: the engine's own, or a buffer that somebody else (NumPy, say) keeps alive for it."""

    cdef char *start
    cdef size_t nbytes
    cdef Py_buffer *foreign
    cdef bint is_shared              # foreign, and Python may have it under another name
    cdef readonly bint writable
    cdef readonly long long version  # counts writes in place, from a number of its own on; saved tensors are checked against it
    cdef object __weakref__
    cdef long long serial            # counts storages: what is older than a recording outlives its step
    cdef int exports                 # buffers (NumPy views) through which Python sees it now
    cdef bint is_busy                # an arena in which a program runs

    def __cinit__(self):
        global next_serial
        self.serial = next_serial
        self.version = self.serial << 24  # a tensor that was given other memory is not what was saved
        next_serial += 1

    def __dealloc__(self):
        if self.foreign != NULL:
            PyBuffer_Release(self.foreign)
            PyMem_Free(self.foreign)
        elif self.start != NULL:
            fnn_free(self.start)


cdef Storage new_storage(size_t nbytes):
    cdef Storage storage = Storage.__new__(Storage)
    storage.start = <char *>fnn_alloc(nbytes if nbytes else 1)
    if storage.start == NULL:
        raise MemoryError(f"cannot allocate {nbytes} bytes")
    storage.nbytes = nbytes
    storage.writable = True
    return storage


# ---- tensors ---------------------------------------------------------------------------------------------------------

cdef int WANTS_CONTIGUOUS = (PyBUF_C_CONTIGUOUS | PyBUF_F_CONTIGUOUS | PyBUF_ANY_CONTIGUOUS) & ~PyBUF_STRIDES  # a buffer's consumer
cdef Py_ssize_t MOST_BYTES = <Py_ssize_t>1 << 47  # that a process can address
cdef object tensor_type = None  # fastnn.tensor.Tensor, once it exists
cdef tuple no_arguments = ()
cdef Storage no_storage = Storage.__new__(Storage)


def set_tensor_type(cls):
    """Makes `cls`, a subclass of TensorBase, the type of every tensor the engine creates."""
    global tensor_type
    tensor_type = cls


cdef inline TensorBase new_tensor():
    return <TensorBase>fnn_new(tensor_type, no_arguments)


@cython.binding(False)  # plain methods check what they are called on
cdef class TensorBase:
    """A view of a storage, and its place on the tape. `fastnn.Tensor` adds the operations."""

    cdef fnn_tensor desc
    cdef Storage storage
    cdef bint _requires_grad
    cdef object _grad
    cdef Node node        # what produced it; None for leaves
    cdef int output_index
    cdef TensorBase base  # of what tensor an operation made this one a view; None otherwise
    cdef dict hooks       # of a leaf, called with its gradient before it is added to `grad`, and
    cdef dict late_hooks  # with the leaf afterwards; None without
    cdef object __weakref__

    def __cinit__(self, *args, **options):
        # Until the engine gives it a view it is an empty one: nothing a caller does with it can reach unowned memory.
        self.desc.rank = 1
        self.desc.stride[0] = 1
        self.storage = no_storage

    # -- what it is --

    @property
    def shape(self):
        return tuple([self.desc.shape[d] for d in range(self.desc.rank)])

    @property
    def ndim(self):
        return self.desc.rank

    @property
    def dtype(self):
        return DTYPES[self.desc.dtype]

    @property
    def strides(self):
        """Steps between neighbours along each axis, in elements."""
        return tuple([self.desc.stride[d] for d in range(self.desc.rank)])

    @property
    def nbytes(self):
        """Bytes of its elements (not of the storage it may share)."""
        return fnn_numel(&self.desc) * <Py_ssize_t>fnn_itemsize(self.desc.dtype)

    def numel(self):
        """Number of elements."""
        return fnn_numel(&self.desc)

    def data_ptr(self):
        """Address of the first element."""
        return <size_t>self.desc.data

    def is_contiguous(self, memory_format=None):
        """Whether the elements lie densely in logical (C) order, or in that of a memory format."""
        cdef object name = None if memory_format is None else getattr(memory_format, "name", "")
        if name not in (None, "contiguous_format", "channels_last", "preserve_format"):
            raise TypeError(f"is_contiguous: memory_format is {memory_format!r}, but must be one of fastnn's, as channels_last, or None")
        if name == "channels_last":
            return self.is_channels_last()
        return bool(fnn_is_contiguous(&self.desc))

    @property
    def lies_in_rows(self):
        """Whether it has four axes and elements lie together along the last one, not along the channels."""
        return fnn_lies_in_rows(&self.desc) > 0

    def is_channels_last(self):
        """Whether a 4-D tensor lies densely in N, H, W, C order: the layout of the engine's 4-D results."""
        return bool(fnn_is_channels_last(&self.desc))

    def shares_storage(self, TensorBase other not None):
        """Whether both are views of one storage."""
        return self.storage is other.storage

    def is_floating_point(self):
        """Whether the dtype is float32 or float64."""
        return self.desc.dtype <= FNN_FLOAT64

    # -- the tape --

    @property
    def requires_grad(self):
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, bint value):
        if value and self.desc.dtype > FNN_FLOAT64:
            raise TypeError(f"requires_grad: only float32 and float64 tensors have gradients, this one is {self.dtype}")
        if not value and self.node is not None:
            raise RuntimeError("requires_grad: only leaf tensors can stop requiring gradients; use detach() instead")
        if value != self._requires_grad:
            bump_settings()
        self._requires_grad = value

    @property
    def is_leaf(self):
        return self.node is None

    @property
    def grad_fn(self):
        return self.node

    @property
    def grad(self):
        if fnn_recording != NULL:
            (<Program>fnn_recording).note_gradient(self, False)
        return self._grad

    @grad.setter
    def grad(self, value):
        if value is not None:
            if not isinstance(value, TensorBase):
                raise TypeError(f"grad must be a Tensor or None, not {type(value).__name__}")
            if not fnn_same_shape(&self.desc, &(<TensorBase>value).desc) or self.desc.dtype != (<TensorBase>value).desc.dtype:
                raise ValueError(f"grad is {value.dtype} {value.shape}, but must be {self.dtype} {self.shape}")
        if fnn_recording != NULL:
            (<Program>fnn_recording).note_gradient(self, True)
        self._grad = value

    def hooks_of(self, bint late=False):
        """Functions to be called with this tensor's gradient during backward, to be added to; `late`: a leaf's, called with the
        leaf itself when the gradient has been added to its ``grad``."""
        if not self._requires_grad:
            raise RuntimeError("hook: the tensor does not require grad, so no gradient will come by")
        if self.node is not None:
            if late:
                raise RuntimeError("hook: the tensor is no leaf: no gradient is added to its grad")
            if self.node.hooks is None:
                self.node.hooks = {}
            return self.node.hooks.setdefault(self.output_index, {})
        if self.hooks is None:
            self.hooks, self.late_hooks = {}, {}
        return self.late_hooks if late else self.hooks

    def detach(self):
        """The same elements, off the tape."""
        return alias(self)

    def detach_(self):
        """Takes this tensor itself off the tape: it becomes a leaf that requires no grad."""
        if self.node is not None:
            self.node = None
            self.output_index = 0
            self._requires_grad = False
        else:
            self.requires_grad = False
        return self

    @property
    def version(self):
        """How often the storage was written in place."""
        return self.storage.version - (self.storage.serial << 24)

    def is_alone(self, tuple behind=()):
        """Whether this tensor alone sees its memory, but for what is kept for backward by the operation that made it, or by any
        behind the tensors `behind`: no view, no NumPy array, nothing that another operation saved."""
        cdef TensorBase base = self.base
        cdef Py_ssize_t known = kept_behind(self.storage, behind) if behind else kept_by_maker(self)
        if base is not None and base.storage is self.storage and Py_REFCNT(base) == 2:  # nobody else has it: ours and the view's
            known += 1 if behind else 1 + kept_by_maker(base)
        return is_seen_by(self.storage, 1 + known)

    def root(self, tuple behind=()):
        """The tensor that this one is a view of, where it has all of their memory, without gaps, and nothing else sees that, in the
        sense of `is_alone`; None otherwise."""
        cdef TensorBase base = self.base
        if base is None or base.storage is not self.storage or not fnn_is_dense(&base.desc):
            return None
        if base.desc.data != base.storage.start or fnn_numel(&base.desc) * fnn_itemsize(base.desc.dtype) != base.storage.nbytes:
            return None
        cdef Py_ssize_t kept = kept_behind(self.storage, behind) if behind else kept_by_maker(self) + kept_by_maker(base)
        return base if is_seen_by(self.storage, 2 + kept) else None

    def on_tape(self):
        """Another tensor with this one's view, and its place on the tape."""
        cdef TensorBase t = alias(self)
        t.node, t.output_index, t._requires_grad = self.node, self.output_index, self._requires_grad
        return t

    def become(self, TensorBase other not None):
        """Makes this tensor, which is no leaf that requires grad, what `other` is: its memory and its place on the tape."""
        if self._requires_grad and self.node is None:
            raise RuntimeError("become: a leaf that requires grad keeps its memory")
        if fnn_recording != NULL and self.storage.serial < (<Program>fnn_recording).first_serial:
            forbid("a tensor older than the step is written where a gradient flows")  # and is bound where it was
        self.desc, self.storage, self.base = other.desc, other.storage, other.base
        self.node, self.output_index, self._requires_grad = other.node, other.output_index, other._requires_grad

    def bump_version(self):
        """Tells the tape that somebody wrote to the memory behind its back."""
        if fnn_recording != NULL:
            forbid("a tensor is written from Python")
        self.storage.version += 1

    def set_data(self, TensorBase other not None):
        """Makes this tensor a view of `other`'s memory, keeping its identity; the shape may change (lazy parameters do)."""
        if self.node is not None:
            raise RuntimeError("set_data: only leaf tensors can be given other memory")
        if fnn_recording != NULL:
            forbid("a tensor is given other memory", False)
        self.desc = other.desc
        self.storage = other.storage
        self._grad = None

    # -- views --

    def as_strided(self, shape, strides, offset=0):
        """A view with any shape and strides (in elements), `offset` elements further on, off the tape; it must stay inside
        the storage."""
        cdef TensorBase t = alias(self)
        cdef Py_ssize_t low, high, size = fnn_itemsize(self.desc.dtype), first = <char *>self.desc.data - self.storage.start
        cdef Py_ssize_t further = whole_of("as_strided: offset", offset, offset)
        cdef Py_ssize_t d, rank, count
        try:
            rank, count = len(shape), len(strides)
        except TypeError:
            raise TypeError(f"as_strided: shape is {shape!r} and strides {strides!r}, but must be sequences of integers") from None
        if rank > FNN_MAX_RANK or count != rank:
            raise ValueError(f"as_strided: shape {shape} and strides {strides} must have one length of at most {FNN_MAX_RANK}")
        t.desc.rank = rank
        for d in range(rank):
            t.desc.shape[d] = whole_of("as_strided: shape", shape, shape[d])
            t.desc.stride[d] = whole_of("as_strided: strides", strides, strides[d])
            if t.desc.shape[d] < 0:
                raise ValueError(f"as_strided: negative extent in shape {tuple(shape)}")
        if not fnn_bounds(&t.desc, &low, &high):
            raise ValueError(f"as_strided: shape {tuple(shape)} with strides {tuple(strides)} is too large")
        if fnn_numel(&t.desc) == 0:
            return t
        if (not -MOST_BYTES < further < MOST_BYTES or first + (further + low) * size < 0
                or first + (further + high + 1) * size > <Py_ssize_t>self.storage.nbytes):
            raise ValueError(f"as_strided: shape {tuple(shape)} with strides {tuple(strides)} and offset {offset} leaves the storage")
        t.desc.data = <char *>self.desc.data + further * size
        return t

    # -- out of the engine --

    def item(self):
        """The only element, as a Python number."""
        if fnn_numel(&self.desc) != 1:
            raise ValueError(f"item: the tensor has shape {self.shape}; only one with a single element becomes a number")
        if fnn_recording != NULL:
            forbid("Python reads a tensor's value")
        cdef void *p = self.desc.data
        if self.desc.dtype == FNN_FLOAT32:
            return (<float *>p)[0]
        if self.desc.dtype == FNN_FLOAT64:
            return (<double *>p)[0]
        if self.desc.dtype == FNN_INT64:
            return (<int64_t *>p)[0]
        if self.desc.dtype == FNN_INT32:
            return (<int32_t *>p)[0]
        if self.desc.dtype == FNN_UINT8:
            return (<uint8_t *>p)[0]
        return (<uint8_t *>p)[0] != 0

    def set_item(self, value):
        """Writes a Python number into a tensor of one element (a learning rate, a step number)."""
        if fnn_numel(&self.desc) != 1 or not self.storage.writable:
            raise ValueError(f"set_item: needs one writable element, the tensor has shape {self.shape}")
        if fnn_recording != NULL:
            forbid("a tensor is written from Python")
        write_scalar(self.desc.data, self.desc.dtype, value)
        self.storage.version += 1

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        cdef int d
        if fnn_recording != NULL:
            forbid("Python reads a tensor's values")
        if flags & PyBUF_WRITABLE and not self.storage.writable:
            raise BufferError("the tensor's memory is read-only")
        if not fnn_is_contiguous(&self.desc) and (flags & PyBUF_STRIDES != PyBUF_STRIDES or flags & WANTS_CONTIGUOUS):
            raise BufferError("the tensor is not contiguous: the consumer must accept strides")
        if flags & PyBUF_F_CONTIGUOUS & WANTS_CONTIGUOUS and self.desc.rank > 1:
            raise BufferError("the tensor is not contiguous in Fortran's order")
        # The storage is held with the layout: the tensor may be given another one while the buffer is in use.
        cdef Py_ssize_t *layout = <Py_ssize_t *>PyMem_Malloc((2 * FNN_MAX_RANK + 1) * sizeof(Py_ssize_t))
        if layout == NULL:
            raise MemoryError()
        for d in range(self.desc.rank):
            layout[d] = self.desc.stride[d] * <Py_ssize_t>fnn_itemsize(self.desc.dtype)
            layout[FNN_MAX_RANK + d] = self.desc.shape[d]
        Py_INCREF(self.storage)
        self.storage.exports += 1
        layout[2 * FNN_MAX_RANK] = <Py_ssize_t><void *>self.storage
        buffer.buf = self.desc.data
        buffer.obj = self
        buffer.len = fnn_numel(&self.desc) * <Py_ssize_t>fnn_itemsize(self.desc.dtype)
        buffer.itemsize = fnn_itemsize(self.desc.dtype)
        buffer.readonly = not self.storage.writable
        buffer.ndim = self.desc.rank
        buffer.format = <char *>FORMATS[self.desc.dtype] if flags & PyBUF_FORMAT else NULL
        buffer.shape = layout + FNN_MAX_RANK
        buffer.strides = layout
        buffer.suboffsets = NULL
        buffer.internal = layout

    def __releasebuffer__(self, Py_buffer *buffer):
        cdef Storage storage = <Storage><void *>(<Py_ssize_t *>buffer.internal)[2 * FNN_MAX_RANK]
        storage.exports -= 1
        Py_DECREF(storage)
        PyMem_Free(buffer.internal)


cdef Py_ssize_t kept_by_maker(TensorBase t):
    """How many views of a tensor's memory the operation that made it keeps for backward, and nobody else has."""
    cdef Py_ssize_t count = 0
    if t.node is not None:
        for saved in (<Node>t.node)._saved or ():
            if saved is not None and (<TensorBase>saved).storage is t.storage:
                count += Py_REFCNT(saved) == 2  # the node's and the loop's
    return count


cdef Py_ssize_t kept_behind(Storage storage, tuple tensors) except -1:
    """How many tensors of a storage the operations behind `tensors` keep for backward, and nobody else has."""
    cdef dict times = {}  # by tensor: how often it is kept
    cdef set seen = set()
    cdef list stack = [(<TensorBase>t).node for t in tensors if isinstance(t, TensorBase)]
    while stack:
        node = stack.pop()
        if not isinstance(node, Node) or node in seen:
            continue
        seen.add(node)
        for saved in (<Node>node)._saved or ():
            if saved is not None and (<TensorBase>saved).storage is storage:
                times[saved] = times.get(saved, 0) + 1
        stack.extend((<Node>node).edges or ())
    saved = None
    cdef Py_ssize_t count = 0
    for kept, often in times.items():
        count += Py_REFCNT(kept) == often + 2  # the nodes', the dictionary's and the loop's
    return count


cdef bint is_seen_by(Storage storage, Py_ssize_t tensors) except -1:
    """Whether so many tensors see a storage, but for the recording, and nothing else."""
    cdef Py_ssize_t others = Py_REFCNT(storage) - 1 - tensors  # but for our reference here
    if fnn_recording != NULL:
        others -= (<Program>fnn_recording).references_to(storage)
    return others == 0 and not storage.is_shared and storage.exports == 0


cdef int write_scalar(void *p, int dtype, value) except -1:
    try:
        if dtype == FNN_FLOAT32:
            (<float *>p)[0] = value
        elif dtype == FNN_FLOAT64:
            (<double *>p)[0] = value
        elif dtype == FNN_INT64:
            (<int64_t *>p)[0] = value
        elif dtype == FNN_INT32:
            (<int32_t *>p)[0] = value
        elif dtype == FNN_UINT8:
            (<uint8_t *>p)[0] = value
        else:
            (<uint8_t *>p)[0] = 1 if value else 0
    except OverflowError:
        raise ValueError(f"a number is {value!r}, but must fit {DTYPE_NAMES[dtype]}") from None
    return 0


cdef inline TensorBase alias(TensorBase t):
    """The same view of the same storage, off the tape."""
    cdef TensorBase a = new_tensor()
    a.desc = t.desc
    a.storage = t.storage
    return a


cdef int allocate(TensorBase t) except -1:
    """Gives a tensor whose descriptor is filled memory of its own."""
    cdef Py_ssize_t low, high
    if not fnn_bounds(&t.desc, &low, &high):
        raise MemoryError(f"a tensor of shape {t.shape} does not fit in memory")
    t.storage = new_storage(<size_t>fnn_numel(&t.desc) * fnn_itemsize(t.desc.dtype))
    t.desc.data = t.storage.start
    return 0


cdef Py_ssize_t whole_of(str name, given, value) except? -1:
    """`value`, the argument `given` or one of it, as an integer of 64 bits."""
    try:
        return value
    except TypeError:
        raise TypeError(f"{name} is {given!r}, but must {'be an integer' if value is given else 'hold integers'}") from None
    except OverflowError:
        raise ValueError(f"{name} is {given!r}, but must {'' if value is given else 'hold integers that '}fit 64 bits") from None


def empty(shape, dtype, bint contiguous=False):
    """An uninitialised tensor in the results' layout (N, H, W, C order for four axes) or, if `contiguous`, in C order."""
    cdef TensorBase t = new_tensor()
    cdef Py_ssize_t[8] extents
    cdef int d, rank = len(shape)
    if rank > FNN_MAX_RANK:
        raise ValueError(f"shape {tuple(shape)} has {rank} axes, but at most {FNN_MAX_RANK} are allowed")
    for d in range(rank):
        extents[d] = whole_of("shape", shape, shape[d])
        if extents[d] < 0:
            raise ValueError(f"shape {tuple(shape)} has a negative extent")
    if contiguous:
        fnn_set_shape_contiguous(&t.desc, as_dtype(dtype).code, rank, extents)
    else:
        fnn_set_shape(&t.desc, as_dtype(dtype).code, rank, extents)
    allocate(t)
    return t


def scalar(value, dtype):
    """A 0-d tensor of one Python number."""
    cdef TensorBase t = new_tensor()
    fnn_set_shape(&t.desc, dtype.code, 0, NULL)
    allocate(t)
    write_scalar(t.desc.data, t.desc.dtype, value)
    return t


def from_buffer(array, bint is_shared=True):
    """A tensor on the memory of `array`: a NumPy array of a supported dtype, native byte order, aligned; `is_shared`: others may
    have it too."""
    cdef TensorBase t = new_tensor()
    cdef Storage storage = Storage.__new__(Storage)
    cdef Py_buffer *view
    cdef int d
    cdef Py_ssize_t low, high
    code = codes_seen.get(array.dtype)
    if code is None and array.dtype.isnative and array.dtype.name in DTYPE_CODES:
        code = codes_seen[array.dtype] = DTYPE_CODES[array.dtype.name]
    if code is None or array.ndim > FNN_MAX_RANK:
        raise TypeError(f"an array of dtype {array.dtype} and {array.ndim} axes cannot become a tensor: "
                        f"dtypes are {', '.join(DTYPE_NAMES)} in native byte order, axes at most {FNN_MAX_RANK}")
    view = <Py_buffer *>PyMem_Malloc(sizeof(Py_buffer))
    if view == NULL:
        raise MemoryError()
    try:
        PyObject_GetBuffer(array, view, PyBUF_STRIDED_RO)
    except BaseException:
        PyMem_Free(view)
        raise
    storage.foreign = view
    storage.is_shared = is_shared
    storage.writable = not view.readonly
    t.desc.dtype = code
    t.desc.rank = view.ndim
    for d in range(view.ndim):
        t.desc.shape[d] = view.shape[d]
        if view.shape[d] > 1 and view.strides[d] % view.itemsize:
            raise ValueError("the array's strides are not multiples of its item size")
        t.desc.stride[d] = view.strides[d] // view.itemsize if view.shape[d] > 1 else 1
    if not fnn_bounds(&t.desc, &low, &high):
        raise ValueError(f"an array of shape {array.shape} and strides {array.strides} is too large")
    t.desc.data = view.buf
    storage.start = <char *>view.buf + low * view.itemsize
    storage.nbytes = (high - low + 1) * view.itemsize if fnn_numel(&t.desc) else 0
    t.storage = storage
    return t
