# cython: boundscheck=False, initializedcheck=False, cdivision=True, embedsignature=True, embedsignature.format=clinic
"""The one binding: storage, tensors, launches, the tape. Everything arithmetic passes through `launch`."""

cimport cython
from cpython.buffer cimport (PyBUF_ANY_CONTIGUOUS, PyBUF_C_CONTIGUOUS, PyBUF_F_CONTIGUOUS, PyBUF_FORMAT, PyBUF_STRIDED_RO,
                             PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer)
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

import array
import collections
import os
import sys
import types
import weakref


cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(object)
    int PyErr_CheckSignals() except -1

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
        int activation
        int is_late
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
    int fnn_bounds(const fnn_tensor *, Py_ssize_t *, Py_ssize_t *)
    int fnn_is_contiguous(const fnn_tensor *)
    int fnn_is_channels_last(const fnn_tensor *)
    int fnn_lies_in_rows(const fnn_tensor *)
    bint fnn_is_dense(const fnn_tensor *t)
    int fnn_same_shape(const fnn_tensor *, const fnn_tensor *)
    void fnn_set_shape(fnn_tensor *, int, int, const Py_ssize_t *)
    void fnn_set_shape_contiguous(fnn_tensor *, int, int, const Py_ssize_t *)
    void fnn_launch_init()
    int fnn_infer(fnn_call *)
    int fnn_check_outputs(fnn_call *, fnn_tensor **)
    double fnn_cost(const fnn_call *)
    const char *fnn_algorithm(const fnn_call *)
    int fnn_run(fnn_call *)
    int fnn_run_each(fnn_call *, int, double)
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
    void fnn_memory_hold()
    void fnn_memory_release()
    int fnn_memory_holds_much()
    void fnn_memory_outlives_hold(void *)
    void fnn_memory_get_stats(fnn_memory_stats *)
    void fnn_memory_reset_peak()
    void fnn_philox(uint64_t, uint64_t, uint64_t, uint32_t *)
    int fnn_dispatch_init()
    int fnn_set_isa(const char *)
    void fnn_set_matmul_precision(int)
    int fnn_matmul_precision()
    void fnn_set_conv_algorithm(int)
    int fnn_get_conv_algorithm()
    const char *fnn_isa_name()
    const char *fnn_isa_reason()
    int fnn_isa_available(int)
    const char *fnn_isa_names(int)
    int fnn_num_kernels()
    const char *fnn_kernel_name(int)

cdef extern from "program.h" nogil:
    ctypedef struct fnn_program:
        pass
    enum: FNN_BOUND, FNN_FIXED, FNN_TEMPORARY, FNN_NUM_FUSIONS
    const char *fnn_fusion_name(int)
    int fnn_program_num_fusions(const fnn_program *, int)
    fnn_program *fnn_program_new()
    void fnn_program_free(fnn_program *)
    int fnn_program_add_storage(fnn_program *, size_t)
    int fnn_program_add_call(fnn_program *, const fnn_call *, const int *, char **)
    void fnn_program_set_kind(fnn_program *, int, int, char *)
    int fnn_program_is_written(const fnn_program *, int)
    int fnn_program_is_read_first(const fnn_program *, int)
    int fnn_program_plan(fnn_program *, int)
    int fnn_program_run_unplanned(fnn_program *, const char **)
    int fnn_program_was_written(const fnn_program *, int)
    size_t fnn_program_arena_bytes(const fnn_program *)
    void fnn_program_set_arena(fnn_program *, char *)
    void fnn_program_bind(fnn_program *, int, char *)
    int fnn_program_run(fnn_program *, const char **)
    int fnn_program_run_many(fnn_program *, int, char *, Py_ssize_t, Py_ssize_t, double, Py_ssize_t *, const char **)
    int fnn_program_time(fnn_program *, double *, int *, const char **)
    int fnn_program_count_random(fnn_program *, int64_t *, int64_t)
    int fnn_program_num_calls(const fnn_program *)
    const fnn_call *fnn_program_call(const fnn_program *, int, int)
    int fnn_program_call_number(const fnn_program *, int, int)
    size_t fnn_program_eager_bytes(const fnn_program *)

cdef extern from *:
    """
    static __thread int fnn_grad_enabled = 1;
    static __thread int fnn_depth; /* of calls of layers and optimisers that this thread is within */
    static __thread PyObject *fnn_recording; /* the Program that records this thread's launches; borrowed */
    /* Launches predicted to take less hold the GIL: giving it up and taking it back costs more. */
    static const double FNN_GIL_NS = 20000;
    static __thread int fnn_keeps_gil; /* no launch of this thread lets another one in, however long it takes */
    static int fnn_busy; /* launches and replays that run without the GIL, which guards it */
    /* cls.__new__(cls) without looking anything up */
    static PyObject *fnn_new(PyObject *cls, PyObject *no_arguments) {
        return ((PyTypeObject *)cls)->tp_new((PyTypeObject *)cls, no_arguments, NULL);
    }
    """
    int fnn_grad_enabled
    int fnn_depth
    void *fnn_recording
    double FNN_GIL_NS
    int fnn_keeps_gil
    int fnn_busy
    object fnn_new(object cls, object no_arguments)

include "_core_tensor.pxi"
include "_core_launch.pxi"
include "_core_tape.pxi"
include "_core_view.pxi"
include "_core_recording.pxi"
include "_core_program.pxi"
include "_core_settings.pxi"

fnn_launch_init()
launch = types.SimpleNamespace(**{op.name: op for op in [Op(k) for k in range(FNN_NUM_OPS)]})
if fnn_dispatch_init() != 0:
    raise ImportError(f"FASTNN_ISA is {os.environ.get('FASTNN_ISA')!r}, but this machine and build have "
                      f"{', '.join(available_isas())}")
if fnn_parallel_init() != 0:
    raise ImportError(f"FASTNN_NUM_THREADS is {os.environ.get('FASTNN_NUM_THREADS')!r}, but must be an integer between 1 "
                      "and 1024")
default_threads = fnn_get_num_threads()
