/* one_hot.c: 1 where a class is named and 0 elsewhere. The caller gives the output: it knows how many classes there are. */
#include "nest.h"

enum { CHUNK = 16384 };

typedef struct {
    fnn_nest nest; /* positions: operand 0 written, operand 1 the classes */
    ptrdiff_t step;
} plan;

static int infer(fnn_call *call) {
    const fnn_tensor *y = call->out[0], *index = call->in[0];
    int fits = y->rank == index->rank + 1 && y->dtype == FNN_INT64;
    for (int d = 0; fits && d < index->rank; d++) fits = y->shape[d] == index->shape[d];
    if (fits) return FNN_OK;
    if (y->rank < 0) return fnn_fail(call, FNN_TYPE_ERROR, "writes into an output that the caller gives");
    return fnn_fail(call, FNN_VALUE_ERROR, "output 'y' is %s %s, but must be int64 and have one axis more than index %s",
                    fnn_dtype_name(y->dtype), fnn_shape_text(y), fnn_shape_text(index));
}

static void run_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    char *at[FNN_MAX_ARGS];
    (void)scratch;
    for (ptrdiff_t i = chunk * CHUNK, end = fnn_min(i + CHUNK, p->nest.size); i < end; i++) {
        fnn_nest_seek(&p->nest, i, at);
        ((int64_t *)at[0])[*(const int64_t *)at[1] * p->step] = 1;
    }
}

static int check_classes(fnn_call *call, const plan *p, ptrdiff_t classes) {
    char *at[FNN_MAX_ARGS];
    for (ptrdiff_t i = 0; i < p->nest.size; i++) {
        fnn_nest_seek(&p->nest, i, at);
        const int64_t c = *(const int64_t *)at[1];
        if (c < 0 || c >= classes)
            return fnn_fail(call, FNN_INDEX_ERROR, "index holds %lld, but classes must lie between 0 and %td", (long long)c,
                            classes - 1);
    }
    return FNN_OK;
}

/* y: (..., classes); index: (...) */
static int run(fnn_call *call) {
    fnn_tensor *y = call->out[0], positions = *y;
    const fnn_tensor *operand[2] = {&positions, call->in[0]};
    plan p = {.step = y->stride[y->rank - 1]};
    positions.rank--;
    fnn_nest_build(&p.nest, operand, 2);
    int status = check_classes(call, &p, y->shape[y->rank - 1]);
    if (status) return status;
    fnn_call fill = {.op = FNN_OP_fill, .out = {y}};
    fnn_fill.run(&fill);
    fnn_parallel_for(call, fnn_ceil_div(p.nest.size, CHUNK), 4 * (double)p.nest.size, run_chunk, &p);
    return FNN_OK;
}

const fnn_driver fnn_one_hot = {.infer = infer, .run = run};
