/* searchsorted.c: where values belong in sorted sequences. */
#include "nest.h"

enum { CHUNK = 4096 };

typedef struct {
    fnn_nest nest; /* places written, values, the beginning of each value's sequence */
    int dtype, right;
    ptrdiff_t extent, step; /* of a sequence */
} plan;

static int infer(fnn_call *call) {
    const fnn_tensor *sorted = call->in[0], *values = call->in[1];
    if (sorted->dtype != values->dtype || (sorted->dtype > FNN_INT64))
        return fnn_fail(call, FNN_TYPE_ERROR, "arguments are %s and %s, but must both be float32, float64 or int64",
                        fnn_dtype_name(sorted->dtype), fnn_dtype_name(values->dtype));
    int fits = sorted->rank == 1 || (sorted->rank > 1 && sorted->rank == values->rank);
    for (int d = 0; fits && d < sorted->rank - 1; d++) fits = sorted->shape[d] == values->shape[d];
    if (!fits)
        return fnn_fail(call, FNN_VALUE_ERROR,
                        "sorted_sequence has shape %s and values %s, but sorted_sequence must have one axis, or all axes but the last "
                        "in common with values", fnn_shape_text(sorted), fnn_shape_text(values));
    fnn_set_shape(call->out[0], FNN_INT64, values->rank, values->shape);
    return FNN_OK;
}

/* How many sorted elements are less than a value, or (right) not greater; NaN is above all. */
static ptrdiff_t place_of(const plan *p, const char *sorted, const char *value) {
    ptrdiff_t low = 0, high = p->extent;
#define SEARCH(type)                                                                                                    \
    for (type v = *(const type *)value; low < high;) {                                                                  \
        ptrdiff_t middle = low + (high - low) / 2;                                                                      \
        type element = ((const type *)sorted)[middle * p->step];                                                        \
        int above = p->right ? element > v || (element != element && v == v)                                            \
                             : element >= v || element != element;                                                      \
        if (above)                                                                                                      \
            high = middle;                                                                                              \
        else                                                                                                            \
            low = middle + 1;                                                                                           \
    }                                                                                                                   \
    return low
    switch (p->dtype) {
    case FNN_FLOAT32: SEARCH(float);
    case FNN_FLOAT64: SEARCH(double);
    default: SEARCH(int64_t);
    }
#undef SEARCH
}

static void run_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    char *at[FNN_MAX_ARGS];
    (void)scratch;
    for (ptrdiff_t i = chunk * CHUNK, end = fnn_min(i + CHUNK, p->nest.size); i < end; i++) {
        fnn_nest_seek(&p->nest, i, at);
        *(int64_t *)at[0] = place_of(p, at[2], at[1]);
    }
}

static double cost(const fnn_call *call) {
    const fnn_tensor *sorted = call->in[0];
    double steps = 1;
    for (ptrdiff_t n = sorted->shape[sorted->rank - 1]; n; n >>= 1) steps++;
    return 2 * steps * (double)fnn_numel(call->out[0]);
}

/* y: the shape of values (..., M); sorted (..., N) or (N,); any strides. */
static int run(fnn_call *call) {
    fnn_tensor beginnings = *call->in[0];
    int last = beginnings.rank - 1;
    plan p = {.dtype = beginnings.dtype, .right = (int)call->attr.i[0], .extent = beginnings.shape[last], .step = beginnings.stride[last]};
    beginnings.shape[last] = 1;
    const fnn_tensor *operand[3] = {call->out[0], call->in[1], &beginnings};
    if (beginnings.rank == 1) beginnings.rank = 0;
    fnn_nest_build(&p.nest, operand, 3);
    fnn_parallel_for(call, fnn_ceil_div(p.nest.size, CHUNK), cost(call), run_chunk, &p);
    return FNN_OK;
}

const fnn_driver fnn_searchsorted = {.infer = infer, .cost = cost, .run = run};
