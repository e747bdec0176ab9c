# cython: boundscheck=False, initializedcheck=False, cdivision=True, embedsignature=True
"""The one binding: storage, tensors, launches, the tape. Everything arithmetic passes through `launch`."""

cimport cython
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_STRIDED_RO, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

import os
import types


cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(object)

cdef extern from "fastnn.h" nogil:
    enum: FNN_MAX_RANK, FNN_MAX_ARGS, FNN_MAX_INTS, FNN_MAX_FLOATS, FNN_NUM_DTYPES, FNN_NUM_OPS, FNN_NUM_ISAS
    enum: FNN_OK, FNN_VALUE_ERROR, FNN_TYPE_ERROR, FNN_INDEX_ERROR, FNN_MEMORY_ERROR, FNN_ELEMENTWISE, FNN_RANDOM
    enum: FNN_FLOAT32, FNN_FLOAT64, FNN_INT64, FNN_INT32, FNN_UINT8, FNN_BOOL
    ctypedef struct fnn_tensor:
        void *data
        int32_t dtype, rank
        Py_ssize_t shape[8]
        Py_ssize_t stride[8]
    ctypedef struct fnn_attrs:
        int64_t i[24]
        double f[8]
    ctypedef struct fnn_call:
        int op
        fnn_tensor *outputs "out"[12]
        const fnn_tensor *inputs "in"[12]
        fnn_attrs attr
        char message[512]
    ctypedef struct fnn_op:
        const char *name
        const char *outputs
        const char *inputs
        const char *attributes
        const char *inplace
        int flags
    ctypedef struct fnn_memory_stats:
        int64_t in_use, cached, peak, system_calls
    const fnn_op fnn_ops[]
    size_t fnn_itemsize(int)
    const char *fnn_dtype_name(int)
    Py_ssize_t fnn_numel(const fnn_tensor *)
    int fnn_is_contiguous(const fnn_tensor *)
    int fnn_is_channels_last(const fnn_tensor *)
    int fnn_same_shape(const fnn_tensor *, const fnn_tensor *)
    void fnn_set_shape(fnn_tensor *, int, int, const Py_ssize_t *)
    void fnn_set_shape_contiguous(fnn_tensor *, int, int, const Py_ssize_t *)
    void fnn_launch_init()
    int fnn_infer(fnn_call *)
    int fnn_check_outputs(fnn_call *, fnn_tensor **)
    double fnn_cost(const fnn_call *)
    int fnn_run(fnn_call *)
    int fnn_parallel_init()
    int fnn_get_num_threads()
    void fnn_set_num_threads(int)
    const char *fnn_threads_reason()
    void fnn_set_thread_policy(int)
    int fnn_last_workers()
    int fnn_has_openmp()
    void *fnn_alloc(size_t)
    void fnn_free(void *)
    void fnn_memory_trim()
    void fnn_memory_get_stats(fnn_memory_stats *)
    void fnn_memory_reset_peak()
    void fnn_philox(uint64_t, uint64_t, uint64_t, uint32_t *)
    int fnn_dispatch_init()
    int fnn_set_isa(const char *)
    const char *fnn_isa_name()
    const char *fnn_isa_reason()
    int fnn_isa_available(int)
    const char *fnn_isa_names(int)
    int fnn_num_kernels()
    const char *fnn_kernel_name(int)

cdef extern from *:
    """
    static __thread int fnn_grad_enabled = 1;
    /* Launches predicted to take less hold the GIL: giving it up and taking it back costs more. */
    static const double FNN_GIL_NS = 20000;
    /* cls.__new__(cls) without looking anything up */
    static PyObject *fnn_new(PyObject *cls, PyObject *no_arguments) {
        return ((PyTypeObject *)cls)->tp_new((PyTypeObject *)cls, no_arguments, NULL);
    }
    """
    int fnn_grad_enabled
    double FNN_GIL_NS
    object fnn_new(object cls, object no_arguments)


# ---- dtypes -----------------------------------------------------------------------------------------------------------

DTYPE_NAMES = tuple([fnn_dtype_name(d).decode() for d in range(FNN_NUM_DTYPES)])
cdef dict DTYPE_CODES = {name: code for code, name in enumerate(DTYPE_NAMES)}
cdef const char **FORMATS = ["f", "d", "q", "i", "B", "?"]  # of the buffer protocol, by dtype


class DType:
    """An element type. The six there are: ``fastnn.float32, float64, int64, int32, uint8, bool``."""

    __slots__ = ("name", "code", "itemsize", "is_floating")

    def __init__(self, name, code):
        self.name = name
        self.code = code
        self.itemsize = fnn_itemsize(code)
        self.is_floating = code <= FNN_FLOAT64

    def __repr__(self):
        return f"fastnn.{self.name}"

    def __str__(self):
        return self.name

    def __reduce__(self):
        return as_dtype, (self.name,)


cdef tuple DTYPES = tuple([DType(name, code) for code, name in enumerate(DTYPE_NAMES)])


def as_dtype(dtype):
    """The DType that `dtype` means: a DType, a name, a NumPy dtype or type, `float`, `int` or `bool`."""
    if type(dtype) is DType:
        return dtype
    name = dtype if isinstance(dtype, str) else getattr(dtype, "name", None) or getattr(dtype, "__name__", repr(dtype))
    name = {"float": "float32", "int": "int64", "bool_": "bool"}.get(name, name)
    if name not in DTYPE_CODES:
        raise TypeError(f"dtype {dtype!r} is not supported: it must be one of {', '.join(DTYPE_NAMES)}")
    return DTYPES[DTYPE_CODES[name]]


# ---- storage ----------------------------------------------------------------------------------------------------------

@cython.final
@cython.freelist(256)
cdef class Storage:
    """A block of memory: the engine's own, or a buffer that somebody else (NumPy, say) keeps alive for it."""

    cdef char *start
    cdef size_t nbytes
    cdef Py_buffer *foreign
    cdef readonly bint writable
    cdef readonly long long version  # counts writes in place; saved tensors are checked against it

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


# ---- tensors ----------------------------------------------------------------------------------------------------------

cdef object tensor_type = None  # fastnn.tensor.Tensor, once it exists
cdef tuple no_arguments = ()
cdef Storage no_storage = Storage.__new__(Storage)


def set_tensor_type(cls):
    """Makes `cls`, a subclass of TensorBase, the type of every tensor the engine creates."""
    global tensor_type
    tensor_type = cls


cdef inline TensorBase new_tensor():
    return <TensorBase>fnn_new(tensor_type, no_arguments)


cdef class TensorBase:
    """A view of a storage, and its place on the tape. `fastnn.Tensor` adds the operations."""

    cdef fnn_tensor desc
    cdef Storage storage
    cdef bint _requires_grad
    cdef object _grad
    cdef Node node        # what produced it; None for leaves
    cdef int output_index
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

    def is_contiguous(self):
        """Whether the elements lie densely in logical (C) order."""
        return bool(fnn_is_contiguous(&self.desc))

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
        self._requires_grad = value

    @property
    def is_leaf(self):
        return self.node is None

    @property
    def grad_fn(self):
        return self.node

    @property
    def grad(self):
        return self._grad

    @grad.setter
    def grad(self, value):
        if value is not None:
            if not isinstance(value, TensorBase):
                raise TypeError(f"grad must be a Tensor or None, not {type(value).__name__}")
            if not fnn_same_shape(&self.desc, &(<TensorBase>value).desc) or self.desc.dtype != (<TensorBase>value).desc.dtype:
                raise ValueError(f"grad is {value.dtype} {value.shape}, but must be {self.dtype} {self.shape}")
        self._grad = value

    def detach(self):
        """The same elements, off the tape."""
        return alias(self)

    @property
    def version(self):
        """How often the storage was written in place."""
        return self.storage.version

    def bump_version(self):
        """Tells the tape that somebody wrote to the memory behind its back."""
        self.storage.version += 1

    def set_data(self, TensorBase other not None):
        """Makes this tensor a view of `other`'s memory, keeping its identity; the shape may change (lazy parameters do)."""
        if self.node is not None:
            raise RuntimeError("set_data: only leaf tensors can be given other memory")
        self.desc = other.desc
        self.storage = other.storage
        self._grad = None

    # -- views --

    def as_strided(self, shape, strides, Py_ssize_t offset=0):
        """A view with any shape and strides (in elements), `offset` elements further on, off the tape; it must stay inside the storage."""
        cdef TensorBase t = alias(self)
        cdef Py_ssize_t low = 0, high = 0, size = fnn_itemsize(self.desc.dtype), reach
        cdef int d, rank = len(shape)
        cdef bint is_empty = False
        if rank > FNN_MAX_RANK or len(strides) != rank:
            raise ValueError(f"as_strided: shape {shape} and strides {strides} must have one length of at most {FNN_MAX_RANK}")
        t.desc.rank = rank
        for d in range(rank):
            t.desc.shape[d] = shape[d]
            t.desc.stride[d] = strides[d]
            if t.desc.shape[d] < 0:
                raise ValueError(f"as_strided: negative extent in shape {tuple(shape)}")
            is_empty |= t.desc.shape[d] == 0
        if is_empty:
            return t
        t.desc.data = <char *>self.desc.data + offset * size
        for d in range(rank):
            reach = (t.desc.shape[d] - 1) * t.desc.stride[d]
            low += min(reach, 0)
            high += max(reach, 0)
        if (<char *>t.desc.data + low * size < self.storage.start
                or <char *>t.desc.data + (high + 1) * size > self.storage.start + self.storage.nbytes):
            raise ValueError(f"as_strided: shape {tuple(shape)} with strides {tuple(strides)} leaves the storage")
        return t

    # -- out of the engine --

    def item(self):
        """The only element, as a Python number."""
        if fnn_numel(&self.desc) != 1:
            raise ValueError(f"item: the tensor has shape {self.shape}; only one with a single element becomes a number")
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
        write_scalar(self.desc.data, self.desc.dtype, value)
        self.storage.version += 1

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        cdef int d
        if flags & PyBUF_WRITABLE and not self.storage.writable:
            raise BufferError("the tensor's memory is read-only")
        if (flags & PyBUF_STRIDED_RO) != PyBUF_STRIDED_RO and not fnn_is_contiguous(&self.desc):
            raise BufferError("the tensor is not contiguous: the consumer must accept strides")
        cdef Py_ssize_t *layout = <Py_ssize_t *>PyMem_Malloc(2 * FNN_MAX_RANK * sizeof(Py_ssize_t))
        if layout == NULL:
            raise MemoryError()
        for d in range(self.desc.rank):
            layout[d] = self.desc.stride[d] * <Py_ssize_t>fnn_itemsize(self.desc.dtype)
            layout[FNN_MAX_RANK + d] = self.desc.shape[d]
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
        PyMem_Free(buffer.internal)


cdef int write_scalar(void *p, int dtype, value) except -1:
    if dtype == FNN_FLOAT32:
        (<float *>p)[0] = value
    elif dtype == FNN_FLOAT64:
        (<double *>p)[0] = value
    elif dtype == FNN_INT64:
        (<int64_t *>p)[0] = value
    elif dtype == FNN_INT32:
        (<int32_t *>p)[0] = value
    else:
        (<uint8_t *>p)[0] = value
    return 0


cdef inline TensorBase alias(TensorBase t):
    """The same view of the same storage, off the tape."""
    cdef TensorBase a = new_tensor()
    a.desc = t.desc
    a.storage = t.storage
    return a


cdef int allocate(TensorBase t) except -1:
    """Gives a tensor whose descriptor is filled memory of its own."""
    cdef double bytes_needed = fnn_itemsize(t.desc.dtype)
    for d in range(t.desc.rank):
        bytes_needed *= t.desc.shape[d]
    if not 0 <= bytes_needed < 2.0 ** 46:
        raise MemoryError(f"a tensor of shape {t.shape} does not fit in memory")
    t.storage = new_storage(<size_t>bytes_needed)
    t.desc.data = t.storage.start
    return 0


def empty(shape, dtype, bint contiguous=False):
    """An uninitialised tensor in the results' layout (N, H, W, C order for four axes) or, if `contiguous`, in C order."""
    cdef TensorBase t = new_tensor()
    cdef Py_ssize_t[8] extents
    cdef int d, rank = len(shape)
    if rank > FNN_MAX_RANK:
        raise ValueError(f"shape {tuple(shape)} has {rank} axes, but at most {FNN_MAX_RANK} are allowed")
    for d in range(rank):
        extents[d] = shape[d]
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


def from_buffer(array):
    """A tensor on the memory of `array`: a NumPy array of a supported dtype, native byte order, aligned."""
    cdef TensorBase t = new_tensor()
    cdef Storage storage = Storage.__new__(Storage)
    cdef Py_buffer *view
    cdef int d
    cdef Py_ssize_t low = 0, high = 0, reach
    cdef bint is_empty = False
    name = array.dtype.name
    if name not in DTYPE_CODES or array.ndim > FNN_MAX_RANK:
        raise TypeError(f"an array of dtype {name} and {array.ndim} axes cannot become a tensor: "
                        f"dtypes are {', '.join(DTYPE_NAMES)}, axes at most {FNN_MAX_RANK}")
    view = <Py_buffer *>PyMem_Malloc(sizeof(Py_buffer))
    if view == NULL:
        raise MemoryError()
    try:
        PyObject_GetBuffer(array, view, PyBUF_STRIDED_RO)
    except BaseException:
        PyMem_Free(view)
        raise
    storage.foreign = view
    storage.writable = not view.readonly
    t.desc.dtype = DTYPE_CODES[name]
    t.desc.rank = view.ndim
    for d in range(view.ndim):
        t.desc.shape[d] = view.shape[d]
        if view.shape[d] > 1 and view.strides[d] % view.itemsize:
            raise ValueError("the array's strides are not multiples of its item size")
        t.desc.stride[d] = view.strides[d] // view.itemsize if view.shape[d] > 1 else 1
        reach = (view.shape[d] - 1) * t.desc.stride[d]
        low += min(reach, 0)
        high += max(reach, 0)
        is_empty |= view.shape[d] == 0
    t.desc.data = view.buf
    storage.start = <char *>view.buf + (0 if is_empty else low * view.itemsize)
    storage.nbytes = 0 if is_empty else (high - low + 1) * view.itemsize
    t.storage = storage
    return t


# ---- launch -----------------------------------------------------------------------------------------------------------

cdef dict EXCEPTIONS = {FNN_VALUE_ERROR: ValueError, FNN_TYPE_ERROR: TypeError, FNN_INDEX_ERROR: IndexError,
                        FNN_MEMORY_ERROR: MemoryError}


cdef object raise_status(int status, fnn_call *call):
    raise EXCEPTIONS[status](call.message.decode("utf-8", "replace"))


def argument_names(specification):
    """The bare names in a specification of ops.def: "x, target:int64, bias?" gives ["x", "target", "bias"]."""
    return [part.strip().rstrip("?").split(":")[0] for part in specification.split(",") if part.strip()]


@cython.final
cdef class Op:
    """One operation of the engine, callable: ``launch.<name>(*inputs, out=None, **attributes)``.

    Inputs are tensors (None where optional and absent), attributes are all required; the result is a tensor, or a tuple where
    the op has several outputs. `out` gives the outputs to write in place.
    """

    cdef int index
    cdef int num_inputs, num_outputs, num_attributes
    cdef int generator  # which input is the random generator's state; -1: none
    cdef dict packer    # attribute -> (is_float, first slot, how many)
    cdef readonly str name
    cdef readonly tuple inputs, outputs, attributes
    cdef readonly bint elementwise

    def __init__(self, int index):
        cdef const fnn_op *op = &fnn_ops[index]
        self.index = index
        self.name = op.name.decode()
        self.inputs = tuple(argument_names(op.inputs.decode()))
        self.outputs = tuple(argument_names(op.outputs.decode()))
        self.num_inputs = len(self.inputs)
        self.num_outputs = len(self.outputs)
        self.elementwise = (op.flags & FNN_ELEMENTWISE) != 0
        self.generator = self.inputs.index("generator") if op.flags & FNN_RANDOM else -1
        self.packer = {}
        slots = {"i": 0, "f": 0}
        for part in op.attributes.decode().split():
            name, kind = part.split(":")
            count = int(kind[:-1] or 1)
            self.packer[name] = (kind[-1] == "f", slots[kind[-1]], count)
            slots[kind[-1]] += count
        if slots["i"] > FNN_MAX_INTS or slots["f"] > FNN_MAX_FLOATS:
            raise RuntimeError(f"ops.def: {self.name} has too many attributes")
        self.attributes = tuple(self.packer)
        self.num_attributes = len(self.packer)

    def __repr__(self):
        return f"<op {self.name}({', '.join(self.inputs + self.attributes)}) -> {', '.join(self.outputs)}>"

    cdef int pack(self, fnn_call *call, dict attributes) except -1:
        cdef int slot, count, k
        if len(attributes) != self.num_attributes:
            raise TypeError(f"{self.name}: takes the attributes {self.attributes}, not {tuple(attributes)}")
        for name, value in attributes.items():
            entry = self.packer.get(name)
            if entry is None:
                raise TypeError(f"{self.name}: has no attribute '{name}'; its attributes are {self.attributes}")
            slot = entry[1]
            count = entry[2]
            if count == 1:
                value = (value,)
            elif len(value) != count:
                raise ValueError(f"{self.name}: attribute '{name}' is {value!r}, but must have {count} values")
            for k in range(count):
                if entry[0]:
                    call.attr.f[slot + k] = value[k]
                else:
                    call.attr.i[slot + k] = value[k]
        return 0

    cdef int take_inputs(self, fnn_call *call, tuple inputs) except -1:
        cdef int k
        if len(inputs) > self.num_inputs:
            raise TypeError(f"{self.name}: takes {self.num_inputs} inputs {self.inputs}, not {len(inputs)}")
        for k in range(len(inputs)):
            value = inputs[k]
            if value is None:
                continue
            if not isinstance(value, TensorBase):
                raise TypeError(f"{self.name}: argument '{self.inputs[k]}' is a {type(value).__name__}, but must be a Tensor")
            call.inputs[k] = &(<TensorBase>value).desc
        return 0

    cdef tuple make_outputs(self, fnn_call *call):
        """New outputs, as the op infers them."""
        cdef int k, status
        cdef tuple results = (new_tensor(),) if self.num_outputs == 1 else tuple([new_tensor() for k in range(self.num_outputs)])
        for k in range(self.num_outputs):
            call.outputs[k] = &(<TensorBase>results[k]).desc
            call.outputs[k].rank = -1
        status = fnn_infer(call)
        if status != FNN_OK:
            raise_status(status, call)
        for k in range(self.num_outputs):
            allocate(<TensorBase>results[k])
        return results

    cdef int take_outputs(self, fnn_call *call, tuple results) except -1:
        """Checks the caller's outputs against what the op infers, then puts them into the call."""
        cdef fnn_tensor[12] inferred
        cdef fnn_tensor *given[12]
        cdef int k, status
        cdef TensorBase t
        if len(results) != self.num_outputs:
            raise TypeError(f"{self.name}: out needs {self.num_outputs} tensors {self.outputs}, not {len(results)}")
        memset(given, 0, sizeof(given))
        for k in range(self.num_outputs):
            if not isinstance(results[k], TensorBase):
                raise TypeError(f"{self.name}: output '{self.outputs[k]}' is a {type(results[k]).__name__}, but must be a Tensor")
            t = results[k]
            if not t.storage.writable:
                raise ValueError(f"{self.name}: output '{self.outputs[k]}' is read-only memory")
            if fnn_grad_enabled and t._requires_grad:
                raise RuntimeError(f"{self.name}: output '{self.outputs[k]}' requires grad: write to it under no_grad()")
            given[k] = &t.desc
            inferred[k] = t.desc
            call.outputs[k] = &inferred[k]
        status = fnn_infer(call)
        if status == FNN_OK:
            status = fnn_check_outputs(call, given)
        if status != FNN_OK:
            raise_status(status, call)
        for k in range(self.num_outputs):
            call.outputs[k] = given[k]
            (<TensorBase>results[k]).storage.version += 1
        return 0

    def __call__(self, *inputs, out=None, **attributes):
        cdef fnn_call call
        cdef int status
        cdef tuple results
        memset(&call, 0, sizeof(fnn_call) - sizeof(call.message))
        call.message[0] = 0
        call.op = self.index
        self.take_inputs(&call, inputs)
        self.pack(&call, attributes)
        if out is None:
            results = self.make_outputs(&call)
        else:
            results = out if isinstance(out, tuple) else (out,)
            self.take_outputs(&call, results)
        if fnn_cost(&call) < FNN_GIL_NS:
            status = fnn_run(&call)
        else:
            with nogil:
                status = fnn_run(&call)
        if status != FNN_OK:
            raise_status(status, &call)
        if self.generator >= 0:
            (<int64_t *>call.inputs[self.generator].data)[1] += 1
        return results[0] if self.num_outputs == 1 else results


# ---- the tape ---------------------------------------------------------------------------------------------------------

cdef long long next_sequence = 0


@cython.final
@cython.freelist(256)
cdef class Node:
    """One recorded operation: what it saved, where its inputs came from, and the rule that takes gradients back.

    The rule is called as ``rule(node, *doutputs)`` and returns one gradient, or None, per input (alone or as a tuple).
    """

    cdef readonly object rule
    cdef readonly object context
    cdef readonly tuple needs      # per input: whether a gradient is wanted
    cdef list edges                # per input: the Node that made it, the leaf Tensor itself, or None
    cdef list edge_outputs         # per input: which output of that node it is
    cdef tuple _saved
    cdef list versions
    cdef long long sequence
    cdef int num_outputs
    cdef list pending              # gradients that arrived for the outputs, during backward()

    @property
    def saved(self):
        """The saved tensors; an error if one was since written in place, or the graph was already freed."""
        cdef Py_ssize_t k
        if self._saved is None:
            raise RuntimeError("backward a second time through a graph that was freed: "
                               "call backward(retain_graph=True) the first time")
        for k in range(len(self._saved)):
            t = self._saved[k]
            if t is not None and (<TensorBase>t).storage.version != self.versions[k]:
                raise RuntimeError(f"{self.name}: a tensor of shape {t.shape} needed for the gradient was changed in place")
        return self._saved

    @property
    def name(self):
        return self.rule.__name__.strip("_")

    @property
    def next_functions(self):
        """The nodes (or leaf tensors) its inputs came from; None for inputs that take no gradient."""
        return tuple(self.edges or ())

    def __repr__(self):
        return f"<{self.name} at {id(self):#x}>"


def record(rule, tuple inputs, outputs, tuple saved=(), context=None):
    """Puts an operation on the tape, if gradients are enabled and an input requires one; returns `outputs`.

    Parameters
    ----------
    rule : callable
        ``rule(node, *doutputs)`` gives one gradient or None per input. A doutput is None where no gradient arrived.
    inputs : tuple
        The inputs (tensors, or None).
    outputs : Tensor or tuple of Tensor
        What the operation made; integer outputs take no gradient.
    saved : tuple of Tensor or None
        What the rule needs, found version-checked as ``node.saved``.
    context : object
        Anything else the rule needs, found as ``node.context``.
    """
    cdef bint wanted = False
    cdef TensorBase t
    if not fnn_grad_enabled:
        return outputs
    for value in inputs:
        if value is not None and (<TensorBase?>value)._requires_grad:
            wanted = True
            break
    if not wanted:
        return outputs
    attach(new_node(rule, inputs, outputs if isinstance(outputs, tuple) else (outputs,), saved, context), outputs)
    return outputs


cdef Node new_node(rule, tuple inputs, tuple results, tuple saved, context):
    cdef Node node = Node.__new__(Node)
    cdef TensorBase t
    global next_sequence
    node.rule = rule
    node.context = context
    node.edges = []
    node.edge_outputs = []
    cdef list needs = [], kept = []
    for value in inputs:
        t = value
        if value is None or not t._requires_grad:
            node.edges.append(None)
            node.edge_outputs.append(0)
            needs.append(False)
        else:
            node.edges.append(t if t.node is None else t.node)
            node.edge_outputs.append(t.output_index)
            needs.append(True)
    node.needs = tuple(needs)
    node.versions = []
    for value in saved:
        if value is None:
            kept.append(None)
            node.versions.append(0)
            continue
        t = value
        for result in results:  # a node that owned its outputs would be a cycle: it keeps aliases of those it needs
            if result is value:
                t = alias(t)
                break
        kept.append(t)
        node.versions.append(t.storage.version)
    node._saved = tuple(kept)
    node.num_outputs = len(results)
    node.sequence = next_sequence
    next_sequence += 1
    return node


cdef int attach(Node node, outputs) except -1:
    cdef TensorBase t
    cdef int k = 0
    for value in (outputs if isinstance(outputs, tuple) else (outputs,)):
        t = value
        if t.desc.dtype <= FNN_FLOAT64:
            t.node = node
            t.output_index = k
            t._requires_grad = True
        k += 1
    return 0


def by_sequence(Node node):
    """Sort key: latest first."""
    return -node.sequence


cdef list reachable(Node root):
    """All nodes that backward() from `root` may meet, latest first."""
    cdef set seen = {root}
    cdef list stack = [root], found = []
    cdef Node node
    while stack:
        node = stack.pop()
        found.append(node)
        if node.edges is None:
            raise RuntimeError("backward a second time through a graph that was freed: "
                               "call backward(retain_graph=True) the first time")
        for edge in node.edges:
            if isinstance(edge, Node) and edge not in seen:
                seen.add(edge)
                stack.append(edge)
    found.sort(key=by_sequence)
    return found


cdef int accumulate(TensorBase leaf, TensorBase g, bint is_ours) except -1:
    """leaf.grad += g. The first gradient is taken over when nobody else can see its memory, copied otherwise."""
    if not fnn_same_shape(&leaf.desc, &g.desc):
        raise RuntimeError(f"backward: a gradient of shape {g.shape} arrived for a tensor of shape {leaf.shape}")
    if leaf._grad is not None:
        launch.add(leaf._grad, g, out=leaf._grad)
        return 0
    if not is_ours or Py_REFCNT(g.storage) > 1 or not (fnn_is_contiguous(&g.desc) or fnn_is_channels_last(&g.desc)):
        g = launch.contiguous(g)
    leaf._grad = g
    return 0


cdef int push(Node node, int index, TensorBase g) except -1:
    if node.pending is None:
        node.pending = [None] * node.num_outputs
    other = node.pending[index]
    node.pending[index] = g if other is None else launch.add(other, g)
    return 0


cdef int step_back(Node node) except -1:
    """Calls one node's rule and hands its gradients on."""
    cdef tuple arrived = tuple(node.pending), results
    cdef Py_ssize_t k, j
    cdef bint is_ours
    node.pending = None
    answer = node.rule(node, *arrived)
    results = answer if isinstance(answer, tuple) else (answer,)
    if len(results) != len(node.edges):
        raise RuntimeError(f"{node.name}: the rule gave {len(results)} gradients for {len(node.edges)} inputs")
    for k in range(len(results)):
        edge = node.edges[k]
        if edge is None or results[k] is None:
            continue
        if isinstance(edge, Node):
            push(<Node>edge, node.edge_outputs[k], <TensorBase?>results[k])
            continue
        # A rule may hand on what it was given, or one tensor for two inputs: such a gradient is shared.
        is_ours = True
        for j in range(len(arrived)):
            is_ours = is_ours and results[k] is not arrived[j]
        for j in range(len(results)):
            is_ours = is_ours and (j == k or results[k] is not results[j])
        accumulate(<TensorBase>edge, <TensorBase?>results[k], is_ours)
    return 0


def backward(TensorBase root not None, gradient=None, bint retain_graph=False):
    """Takes gradients from `root` back to every leaf that requires one, adding them to the leaves' ``grad``.

    Parameters
    ----------
    root : Tensor
        What to differentiate.
    gradient : Tensor, optional
        The gradient with respect to `root`; may be left out when `root` has one element.
    retain_graph : bool
        Keep the graph, so that backward can be called again.
    """
    global fnn_grad_enabled
    cdef Node node
    cdef int enabled = fnn_grad_enabled
    cdef list nodes = []
    if not root._requires_grad:
        raise RuntimeError("backward: the tensor does not require grad and was not computed from one that does")
    if gradient is None:
        if fnn_numel(&root.desc) != 1:
            raise RuntimeError(f"backward: only a tensor of one element has a default gradient; this one has shape {root.shape}")
        gradient = empty(root.shape, root.dtype)
        write_scalar((<TensorBase>gradient).desc.data, root.desc.dtype, 1.0)
    elif not isinstance(gradient, TensorBase) or not fnn_same_shape(&root.desc, &(<TensorBase>gradient).desc):
        raise ValueError(f"backward: gradient must be a Tensor of shape {root.shape}, not {getattr(gradient, 'shape', gradient)}")
    fnn_grad_enabled = 0
    try:
        if root.node is None:
            accumulate(root, gradient, False)
            return
        nodes = reachable(root.node)
        push(root.node, root.output_index, gradient)
        for node in nodes:
            if node.pending is None:
                continue
            step_back(node)
            if not retain_graph:
                node._saved = node.edges = node.context = None
    finally:
        fnn_grad_enabled = enabled
        for node in nodes:
            node.pending = None


def is_grad_enabled():
    """Whether operations are recorded on this thread."""
    return bool(fnn_grad_enabled)


def set_grad_enabled(bint enabled):
    """Switches recording on this thread on or off; returns what it was."""
    global fnn_grad_enabled
    cdef bint before = fnn_grad_enabled
    fnn_grad_enabled = enabled
    return before


# ---- settings ---------------------------------------------------------------------------------------------------------

def get_num_threads():
    """How many threads parallel loops use."""
    return fnn_get_num_threads()


def set_num_threads(n):
    """Sets how many threads parallel loops use; results do not depend on it.

    Parameters
    ----------
    n : int
        At least 1, at most 1024.
    """
    if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= 1024:
        raise ValueError(f"set_num_threads: n is {n!r}, but must be an integer between 1 and 1024")
    fnn_set_num_threads(n)


def threads_reason():
    """Where the default number of threads came from."""
    return fnn_threads_reason().decode()


def set_thread_policy(policy):
    """For tests: "force" opens a parallel region for every loop of two chunks, "auto" follows the cost model."""
    if policy not in ("auto", "force"):
        raise ValueError(f"set_thread_policy: policy is {policy!r}, but must be 'auto' or 'force'")
    fnn_set_thread_policy(policy == "force")


def last_workers():
    """How many threads took part in the last parallel region."""
    return fnn_last_workers()


def has_openmp():
    """Whether this build is parallel."""
    return bool(fnn_has_openmp())


def get_isa():
    """The instruction set whose kernels run."""
    return fnn_isa_name().decode()


def set_isa(name):
    """Chooses the instruction set whose kernels run: one of `available_isas()`."""
    if not isinstance(name, str) or name not in available_isas():
        raise ValueError(f"set_isa: name is {name!r}, but this machine and build have {', '.join(available_isas())}")
    fnn_set_isa(name.encode())


def isa_reason():
    """Why this instruction set runs."""
    return fnn_isa_reason().decode()


def available_isas():
    """Instruction sets that this build has and this machine can run, least first."""
    return tuple([fnn_isa_names(isa).decode() for isa in range(FNN_NUM_ISAS) if fnn_isa_available(isa)])


def kernel_names():
    """The micro-kernels each instruction set provides."""
    return tuple([fnn_kernel_name(k).decode() for k in range(fnn_num_kernels())])


def memory_stats():
    """Bytes in use, bytes cached for reuse, the peak of bytes in use, and how many blocks came from the system."""
    cdef fnn_memory_stats stats
    fnn_memory_get_stats(&stats)
    return {"in_use": stats.in_use, "cached": stats.cached, "peak": stats.peak, "system_calls": stats.system_calls}


def trim_memory():
    """Gives cached blocks back to the system."""
    fnn_memory_trim()


def reset_peak_memory():
    """Makes the bytes now in use the new peak."""
    fnn_memory_reset_peak()


def philox(uint64_t seed, uint64_t number, uint64_t block):
    """Four 32-bit words of the counter-based generator, for tests."""
    cdef uint32_t[4] words
    fnn_philox(seed, number, block, words)
    return words[0], words[1], words[2], words[3]


fnn_launch_init()
launch = types.SimpleNamespace(**{op.name: op for op in [Op(k) for k in range(FNN_NUM_OPS)]})
if fnn_dispatch_init() != 0:
    raise ImportError(f"FASTNN_ISA is {os.environ.get('FASTNN_ISA')!r}, but this machine and build have {', '.join(available_isas())}")
fnn_parallel_init()
