/* launch.c: the one door: every call of every op passes here, from Python today and from captured programs. */
#include "fastnn.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const fnn_op fnn_ops[FNN_NUM_OPS] = {
#define OP(name, outputs, inputs, attributes, inplace, flags)                                                           \
    {#name, outputs, inputs, attributes, inplace, flags, &fnn_##name, 0, 0},
#define ELEMENTWISE(name, outputs, inputs, attributes, inplace, ns)                                                     \
    {#name, outputs, inputs, attributes, inplace, FNN_ELEMENTWISE, &fnn_elementwise, offsetof(fnn_kernels, name), ns},
#include "ops.def"
#undef OP
#undef ELEMENTWISE
};

int fnn_fail(fnn_call *call, int status, const char *format, ...) {
    int used = snprintf(call->message, FNN_MESSAGE_SIZE, "%s: ", fnn_ops[call->op].name);
    va_list args;
    va_start(args, format);
    vsnprintf(call->message + used, (size_t)(FNN_MESSAGE_SIZE - used), format, args);
    va_end(args);
    return status;
}

/* ---- argument specifications: "x, weight, target:int64, bias?" ---- */

enum { REAL = -1, ANY = -2, SCALAR = -3 };

typedef struct {
    char name[24];
    int dtype; /* a dtype, REAL, ANY or SCALAR */
    int optional;
} argument;

/* Reads the argument at *text and moves on; 0 at the end. */
static int next_argument(const char **text, argument *arg) {
    const char *s = *text;
    while (*s == ' ' || *s == ',') s++;
    if (!*s) return 0;
    size_t n = strcspn(s, ":?,");
    memcpy(arg->name, s, n);
    arg->name[n] = 0;
    s += n;
    arg->dtype = REAL;
    if (*s == ':') {
        size_t m = strcspn(++s, "?,");
        arg->dtype = m == 6 && !strncmp(s, "scalar", m) ? SCALAR : ANY;
        for (int d = 0; d < FNN_NUM_DTYPES; d++)
            if (strlen(fnn_dtype_name(d)) == m && !strncmp(s, fnn_dtype_name(d), m)) arg->dtype = d;
        s += m;
    }
    arg->optional = *s == '?';
    *text = s + arg->optional;
    return 1;
}

static unsigned scalar_inputs[FNN_NUM_OPS];

void fnn_launch_init(void) {
    for (int op = 0; op < FNN_NUM_OPS; op++) {
        const char *text = fnn_ops[op].inputs;
        argument arg;
        for (int k = 0; next_argument(&text, &arg); k++) scalar_inputs[op] |= (unsigned)(arg.dtype == SCALAR) << k;
    }
}

unsigned fnn_scalar_inputs(int op) { return scalar_inputs[op]; }
int fnn_repeats_inputs(const fnn_call *call) { return call->in[1] && !call->in[2] && !fnn_scalar_inputs(call->op); }

static int is_real(int dtype) { return dtype == FNN_FLOAT32 || dtype == FNN_FLOAT64; }

/* One input that is given. first: the call's first argument of a REAL type, and `real` its dtype; -1: none yet. */
static int check_input(fnn_call *call, const argument *arg, const fnn_tensor *t, argument *first, int *real) {
    const char *given = fnn_dtype_name(t->dtype);
    if (arg->dtype == SCALAR && (t->dtype != FNN_FLOAT64 || t->rank != 0))
        return fnn_fail(call, FNN_TYPE_ERROR, "argument '%s' is %s %s, but must be a 0-d float64 tensor", arg->name, given,
                        fnn_shape_text(t));
    if (arg->dtype >= 0 && t->dtype != arg->dtype)
        return fnn_fail(call, FNN_TYPE_ERROR, "argument '%s' has dtype %s, but must be %s", arg->name, given,
                        fnn_dtype_name(arg->dtype));
    if (arg->dtype != REAL) return FNN_OK;
    if (!is_real(t->dtype))
        return fnn_fail(call, FNN_TYPE_ERROR, "argument '%s' has dtype %s, but must be float32 or float64", arg->name, given);
    if (*real < 0) *real = t->dtype, *first = *arg;
    if (t->dtype != *real)
        return fnn_fail(call, FNN_TYPE_ERROR, "argument '%s' has dtype %s, but '%s' has %s: they must be the same", arg->name, given,
                        first->name, fnn_dtype_name(*real));
    return FNN_OK;
}

static int check_inputs(fnn_call *call) {
    const char *text = fnn_ops[call->op].inputs;
    argument arg, first;
    int real = -1;
    for (int k = 0; next_argument(&text, &arg); k++) {
        const fnn_tensor *t = call->in[k];
        if (!t && !arg.optional) return fnn_fail(call, FNN_TYPE_ERROR, "argument '%s' is missing", arg.name);
        if (!t) continue;
        if (t->dtype == FNN_FLOAT32) call->flush = 1;
        int status = check_input(call, &arg, t, &first, &real);
        if (status) return status;
    }
    return FNN_OK;
}

static int precision = FNN_HIGHEST;
void fnn_set_matmul_precision(int value) { precision = value; }
int fnn_matmul_precision(void) { return precision; }

static int algorithm = FNN_CONV_AUTO;
void fnn_set_conv_algorithm(int value) { algorithm = value; }
int fnn_get_conv_algorithm(void) { return algorithm; }

int fnn_infer(fnn_call *call) {
    call->flush = 0;
    call->precision = precision;
    call->algorithm = algorithm;
    int status = check_inputs(call);
    return status ? status : fnn_ops[call->op].driver->infer(call);
}

/* ---- outputs that the caller gives ---- */

typedef struct {
    const char *low, *high;
} range;

static range bytes_of(const fnn_tensor *t) {
    ptrdiff_t low, high, size = (ptrdiff_t)fnn_itemsize(t->dtype);
    fnn_bounds(t, &low, &high);
    return (range){(const char *)t->data + low * size, (const char *)t->data + (high + 1) * size};
}

int fnn_overlap(const fnn_tensor *a, const fnn_tensor *b) {
    range p = bytes_of(a), q = bytes_of(b);
    return fnn_numel(a) && fnn_numel(b) && p.low < q.high && q.low < p.high;
}

/* Whether "out=in" is among the op's in-place pairs. */
static int may_alias(const fnn_op *op, const char *out, const char *in) {
    char pair[64];
    snprintf(pair, sizeof pair, "%s=%s", out, in);
    size_t n = strlen(pair);
    for (const char *s = op->inplace; (s = strstr(s, pair)); s += n)
        if ((s == op->inplace || s[-1] == ' ') && (s[n] == 0 || s[n] == ' ')) return 1;
    return 0;
}

/* Whether several elements share an address: taken by their steps, each axis must step over all that those before it reach.
 * That is stricter than need be for steps that interleave, such as 2 and 3, which no slice or transpose makes. */
static int repeats_elements(const fnn_tensor *t) {
    ptrdiff_t step[FNN_MAX_RANK], extent[FNN_MAX_RANK], reach = 0;
    int axes = 0;
    for (int d = 0; d < t->rank; d++) {
        if (t->shape[d] < 2) continue;
        ptrdiff_t here = t->stride[d] < 0 ? -t->stride[d] : t->stride[d];
        int at = axes++;
        for (; at > 0 && step[at - 1] > here; at--) step[at] = step[at - 1], extent[at] = extent[at - 1];
        step[at] = here, extent[at] = t->shape[d];
    }
    for (int k = 0; k < axes; k++) {
        if (step[k] <= reach) return fnn_numel(t) > 0;
        reach += (extent[k] - 1) * step[k];
    }
    return 0;
}

int fnn_check_outputs(fnn_call *call, fnn_tensor *const *given) {
    const fnn_op *op = &fnn_ops[call->op];
    const char *outputs = op->outputs;
    argument out, in;
    for (int k = 0; next_argument(&outputs, &out); k++) {
        const fnn_tensor *have = given[k], *want = call->out[k];
        if (!have || !want) continue;
        if (!fnn_same_shape(have, want) || have->dtype != want->dtype)
            return fnn_fail(call, FNN_VALUE_ERROR, "output '%s' is %s %s, but the result is %s %s", out.name,
                            fnn_dtype_name(have->dtype), fnn_shape_text(have), fnn_dtype_name(want->dtype), fnn_shape_text(want));
        if (repeats_elements(have))
            return fnn_fail(call, FNN_VALUE_ERROR, "output '%s' is an expanded or overlapping view: several elements share one "
                            "address", out.name);
        if (have->dtype == FNN_FLOAT32) call->flush = 1;
        const char *inputs = op->inputs;
        for (int j = 0; next_argument(&inputs, &in); j++) {
            const fnn_tensor *x = call->in[j];
            if (!x || !fnn_overlap(have, x)) continue;
            if (may_alias(op, out.name, in.name) && have->data == x->data && fnn_same_layout(have, x)) continue;
            return fnn_fail(call, FNN_VALUE_ERROR, "output '%s' overlaps argument '%s' in memory", out.name, in.name);
        }
        for (int j = 0; j < k; j++)
            if (given[j] && fnn_overlap(have, given[j]))
                return fnn_fail(call, FNN_VALUE_ERROR, "output '%s' overlaps another output in memory", out.name);
    }
    return FNN_OK;
}

/* ---- running ---- */

/* By default bound by memory: about 50 GB/s a core for the first megabyte, which caches hold, 10 GB/s beyond; or by the
 * elementwise formula's arithmetic (`python bench/elementwise.py`). */
double fnn_cost(const fnn_call *call) {
    const fnn_driver *driver = fnn_ops[call->op].driver;
    if (driver->cost) return driver->cost(call);
    double bytes = 0, cached = 1 << 20;
    for (int k = 0; k < FNN_MAX_ARGS; k++) {
        if (call->out[k]) bytes += (double)(fnn_numel(call->out[k]) * (ptrdiff_t)fnn_itemsize(call->out[k]->dtype));
        if (call->in[k]) bytes += (double)(fnn_numel(call->in[k]) * (ptrdiff_t)fnn_itemsize(call->in[k]->dtype));
    }
    double memory = bytes < cached ? 0.02 * bytes : 0.02 * cached + 0.1 * (bytes - cached);
    double element_ns = fnn_ops[call->op].element_ns;
    if (element_ns == 0 || !call->out[0]) return memory;
    double avx2_lanes = 8, arithmetic = element_ns * (double)fnn_numel(call->out[0]);
    arithmetic *= avx2_lanes / (double)fnn_kernels_of(call->out[0]->dtype)->lanes;
    return arithmetic > memory ? arithmetic : memory;
}

const char *fnn_algorithm(const fnn_call *call) {
    const fnn_driver *driver = fnn_ops[call->op].driver;
    return driver->algorithm ? driver->algorithm(call) : "direct";
}

/* Odd multiples of a line apart from a page: workers' buffers must not share cache sets. */
static size_t spread(size_t scratch) { return ((scratch + 4095) & ~(size_t)4095) + 64; }

fnn_workspace fnn_workspace_of(const fnn_call *call) {
    const fnn_driver *driver = fnn_ops[call->op].driver;
    fnn_workspace ws = {0, 0, 0};
    if (driver->workspace) driver->workspace(call, &ws);
    ws.workers = fnn_get_num_threads();
    ws.shared = fnn_whole_lines(ws.shared);
    if (ws.scratch) ws.scratch = spread(ws.scratch);
    return ws;
}

int fnn_run(fnn_call *call) {
    fnn_workspace ws = fnn_workspace_of(call);
    size_t bytes = ws.shared + ws.scratch * (size_t)ws.workers;
    char *block = bytes ? fnn_alloc(bytes) : NULL;
    if (bytes && !block) return fnn_fail(call, FNN_MEMORY_ERROR, "no memory for a workspace of %zu bytes", bytes);
    call->shared = block;
    call->scratch = block ? block + ws.shared : NULL;
    call->scratch_stride = ws.scratch;
    call->workers = ws.workers;
    unsigned state = call->flush ? fnn_flush_on() : 0;
    int status = fnn_ops[call->op].driver->run(call);
    if (call->flush) fnn_flush_restore(state);
    fnn_free(block);
    return status;
}

/* ---- several calls as one ---- */

/* What call `call` of several writes. */
typedef struct {
    range bytes;
    int call;
} write;

static int lower_first(const void *a, const void *b) {
    const char *p = ((const write *)a)->bytes.low, *q = ((const write *)b)->bytes.low;
    return (p > q) - (p < q);
}

/* Whether another call than number `call` writes some of t; the n writes do not overlap and are sorted. */
static int is_written(const fnn_tensor *t, int call, const write *writes, int n) {
    const range bytes = bytes_of(t);
    int low = 0, high = n; /* writes[low - 1] begins below the tensor's end, writes[high] does not */
    while (low < high) {
        int middle = (low + high) / 2;
        if (writes[middle].bytes.low < bytes.high) low = middle + 1;
        else high = middle;
    }
    for (int i = low - 1; i >= 0 && writes[i].bytes.high > bytes.low; i--)
        if (writes[i].call != call) return 1;
    return 0;
}

/* Whether no call writes what another touches, so that they may run in any order. writes: room for all outputs. */
static int are_apart(const fnn_call *calls, int count, write *writes) {
    int n = 0;
    for (int k = 0; k < count; k++)
        for (int j = 0; j < FNN_MAX_ARGS; j++)
            if (calls[k].out[j] && fnn_numel(calls[k].out[j])) writes[n++] = (write){bytes_of(calls[k].out[j]), k};
    qsort(writes, (size_t)n, sizeof *writes, lower_first);
    for (int i = 1; i < n; i++)
        if (writes[i].bytes.low < writes[i - 1].bytes.high) return 0;
    for (int k = 0; k < count; k++)
        for (int j = 0; j < FNN_MAX_ARGS; j++)
            if (calls[k].in[j] && fnn_numel(calls[k].in[j]) && is_written(calls[k].in[j], k, writes, n)) return 0;
    return 1;
}

static int count_outputs(const fnn_call *call) {
    int n = 0;
    while (n < FNN_MAX_ARGS && call->out[n]) n++;
    return n;
}

static int run_one_by_one(fnn_call *calls, int count) {
    for (int k = 0; k < count; k++) {
        int status = fnn_run(&calls[k]);
        if (status == FNN_OK) continue;
        if (k) memcpy(calls[0].message, calls[k].message, FNN_MESSAGE_SIZE);
        return status;
    }
    return FNN_OK;
}

int fnn_run_each(fnn_call *calls, int count, double ns) {
    size_t scratch = 0, writes = 0;
    int alike = 1;
    for (int k = 0; k < count; k++) {
        size_t bytes = fnn_elementwise_scratch(&calls[k]);
        if (bytes > scratch) scratch = bytes;
        writes += (size_t)count_outputs(&calls[k]) * sizeof(write);
        alike &= calls[k].flush == calls[0].flush;
    }
    const int workers = fnn_get_num_threads();
    const size_t starts = (size_t)(count + 1) * sizeof(ptrdiff_t), lists = fnn_whole_lines(writes > starts ? writes : starts);
    if (scratch) scratch = spread(scratch);
    char *block = fnn_alloc(lists + scratch * (size_t)workers);
    if (!block) return fnn_fail(calls, FNN_MEMORY_ERROR, "no memory for a list of %d calls", count);
    int status = FNN_OK;
    if (alike && are_apart(calls, count, (write *)block)) {
        calls[0].scratch = scratch ? block + lists : NULL;
        calls[0].scratch_stride = scratch;
        calls[0].workers = workers;
        unsigned state = calls[0].flush ? fnn_flush_on() : 0;
        fnn_elementwise_each(calls, count, ns, (ptrdiff_t *)block);
        if (calls[0].flush) fnn_flush_restore(state);
    } else {
        status = run_one_by_one(calls, count);
    }
    fnn_free(block);
    return status;
}
