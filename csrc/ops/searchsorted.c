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

/* A run of values in one sequence. */
typedef struct {
    const void *sorted, *values;
    int64_t *places;
    ptrdiff_t n, extent, step, value_step, place_step;
} search;

enum { SIDE = 8 }; /* searches at once: a step of one waits for the memory of the step before */

/* How many sorted elements are less than a value, or (right) not greater; NaN is above all. Steps are the same for all values and without
 * a branch, which would be mispredicted at every other one: `low` elements are passed, and the place is among the next `left`. */
#define SEARCH(name, type, passed)                                                                                      \
    static inline void name##_##type##_by(const search *s, ptrdiff_t first, ptrdiff_t count, ptrdiff_t step) {          \
        const type *sorted = s->sorted, *values = s->values;                                                            \
        type value[SIDE];                                                                                               \
        ptrdiff_t low[SIDE] = {0};                                                                                      \
        for (ptrdiff_t k = 0; k < SIDE; k++) value[k] = values[(first + (k < count ? k : 0)) * s->value_step];          \
        for (ptrdiff_t left = s->extent, half; left > 0; left -= half) {                                                \
            half = (left + 1) / 2;                                                                                      \
            for (ptrdiff_t k = 0; k < SIDE; k++) {                                                                      \
                const type v = value[k], element = sorted[(low[k] + half - 1) * step];                                  \
                low[k] += half & -(ptrdiff_t)(passed);                                                                  \
            }                                                                                                           \
        }                                                                                                               \
        for (ptrdiff_t k = 0; k < count; k++) s->places[(first + k) * s->place_step] = low[k];                          \
    }                                                                                                                   \
    static void name##_##type(const search *s) {                                                                        \
        for (ptrdiff_t i = 0; i < s->n; i += SIDE) {                                                                    \
            const ptrdiff_t count = fnn_min(SIDE, s->n - i);                                                            \
            if (s->step == 1) name##_##type##_by(s, i, count, 1);                                                       \
            else name##_##type##_by(s, i, count, s->step);                                                              \
        }                                                                                                               \
    }
#define SEARCHES(type)                                                                                                  \
    SEARCH(before, type, !((element >= v) | (element != element)))                                                      \
    SEARCH(behind, type, !((element > v) | ((element != element) & (v == v))))
SEARCHES(float)
SEARCHES(double)
SEARCHES(int64_t)

static void run_search(const search *s, int dtype, int right) {
    switch (dtype) {
    case FNN_FLOAT32: (right ? behind_float : before_float)(s); return;
    case FNN_FLOAT64: (right ? behind_double : before_double)(s); return;
    default: (right ? behind_int64_t : before_int64_t)(s);
    }
}

/* Values along the last dimension share their sequence where its beginning stays. */
static void run_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const fnn_nest *nest = &p->nest;
    const int last = nest->rank - 1, shared = nest->stride[2][last] == 0;
    char *at[FNN_MAX_ARGS];
    (void)scratch;
    for (ptrdiff_t i = chunk * CHUNK, end = fnn_min(i + CHUNK, nest->size), n; i < end; i += n) {
        n = fnn_nest_run(nest, i, end, at);
        if (!shared) n = 1;
        const search s = {at[2], at[1], (int64_t *)at[0], n, p->extent, p->step, nest->stride[1][last], nest->stride[0][last]};
        run_search(&s, p->dtype, p->right);
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
