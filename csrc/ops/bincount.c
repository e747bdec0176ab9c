/* bincount.c: how often each number from 0 on is there. Some parts of the numbers are counted by themselves, and then added up. */
#include "../fastnn.h"

#include <string.h>

enum { MOST_PARTS = 8, PART = 16384 /* numbers, or more */ };

typedef struct {
    const fnn_tensor *x;
    fnn_tensor *y;
    int64_t *counts; /* [parts][length] */
    ptrdiff_t parts, length;
    int has_bad;     /* a number that is below 0 or beyond y */
} plan;

/* Parts' counts are to be few beside the numbers. */
static ptrdiff_t parts_of(const fnn_call *call) {
    const ptrdiff_t n = call->in[0]->shape[0], length = fnn_max(call->out[0]->shape[0], 1);
    return fnn_max(1, fnn_min(MOST_PARTS, fnn_min(n / PART, n / length)));
}

static int infer(fnn_call *call) {
    const fnn_tensor *x = call->in[0], *y = call->out[0];
    if (y->rank < 0) return fnn_fail(call, FNN_TYPE_ERROR, "writes into an output that the caller gives");
    if (x->rank == 1 && y->rank == 1 && y->dtype == FNN_INT64) return FNN_OK;
    return fnn_fail(call, FNN_VALUE_ERROR, "argument 'x' has shape %s and output 'y' %s, but both must have one axis, y of int64",
                    fnn_shape_text(x), fnn_shape_text(y));
}

static void workspace(const fnn_call *call, fnn_workspace *ws) {
    ws->shared = (size_t)(parts_of(call) * call->out[0]->shape[0]) * sizeof(int64_t);
}

static void count_part(void *context, ptrdiff_t part, void *scratch) {
    plan *p = context;
    const ptrdiff_t n = p->x->shape[0], stride = p->x->stride[0];
    const int64_t *x = p->x->data;
    int64_t *counts = p->counts + part * p->length;
    (void)scratch;
    if (p->length) memset(counts, 0, (size_t)p->length * sizeof *counts);
    for (ptrdiff_t i = fnn_part_begin(n, p->parts, part), end = fnn_part_begin(n, p->parts, part + 1); i < end; i++) {
        const int64_t number = x[i * stride];
        if ((uint64_t)number < (uint64_t)p->length) counts[number]++;
        else __atomic_store_n(&p->has_bad, 1, __ATOMIC_RELAXED);
    }
}

/* Names the first number that is none, whichever part met one first. */
static int refuse(fnn_call *call, const plan *p) {
    const int64_t *x = p->x->data;
    while ((uint64_t)*x < (uint64_t)p->length) x += p->x->stride[0];
    if (*x < 0) return fnn_fail(call, FNN_VALUE_ERROR, "input holds %lld, but must hold numbers from 0 on", (long long)*x);
    return fnn_fail(call, FNN_VALUE_ERROR, "input holds %lld, but y has room for %td numbers", (long long)*x, p->length);
}

static double cost(const fnn_call *call) { return 1.0 * (double)call->in[0]->shape[0]; }

/* y (length), given by the caller; x (N) from 0 to length - 1, any stride */
static int run(fnn_call *call) {
    plan p = {call->in[0], call->out[0], call->shared, parts_of(call), call->out[0]->shape[0], 0};
    fnn_parallel_for(call, p.parts, cost(call), count_part, &p);
    for (ptrdiff_t k = 0; k < p.length; k++) {
        int64_t sum = 0;
        for (ptrdiff_t part = 0; part < p.parts; part++) sum += p.counts[part * p.length + k];
        ((int64_t *)p.y->data)[k * p.y->stride[0]] = sum;
    }
    return p.has_bad ? refuse(call, &p) : FNN_OK;
}

const fnn_driver fnn_bincount = {.infer = infer, .workspace = workspace, .cost = cost, .run = run};
