/* triangle.c: the part of matrices on one side of a diagonal. */
#include "order.h"

#include <string.h>

enum { CHUNK = 16384 }; /* elements, at least one row */

typedef struct {
    const fnn_tensor *y, *x;
    int64_t diagonal;
    int upper;
    ptrdiff_t rows, block; /* of all matrices; a chunk */
} plan;

static int infer(fnn_call *call) {
    const fnn_tensor *x = call->in[0];
    if (x->rank < 2) return fnn_fail(call, FNN_VALUE_ERROR, "argument 'x' has shape %s, but must have two axes or more", fnn_shape_text(x));
    fnn_set_alike(call->out[0], x->dtype, x);
    return FNN_OK;
}

static void clear(char *to, ptrdiff_t step, ptrdiff_t n, ptrdiff_t size) {
    if (step == 1 && n > 0) memset(to, 0, (size_t)(n * size));
    else for (ptrdiff_t i = 0; i < n; i++) memset(to + i * step * size, 0, (size_t)size);
}

/* Where row number `row` of all matrices begins. */
static char *row_at(const fnn_tensor *t, ptrdiff_t row) {
    ptrdiff_t offset = 0;
    for (int d = t->rank - 2; d >= 0; row /= t->shape[d], d--) offset += row % t->shape[d] * t->stride[d];
    return (char *)t->data + offset * (ptrdiff_t)fnn_itemsize(t->dtype);
}

/* Below it: columns up to the diagonal's are kept; upper: those from it on. */
static void run_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const fnn_tensor *x = p->x, *y = p->y;
    const int last = x->rank - 1;
    const ptrdiff_t size = (ptrdiff_t)fnn_itemsize(x->dtype), n = x->shape[last], xs = x->stride[last], ys = y->stride[last];
    (void)scratch;
    for (ptrdiff_t row = chunk * p->block, end = fnn_min(row + p->block, p->rows); row < end; row++) {
        const ptrdiff_t cut = fnn_max(0, fnn_min(n, row % x->shape[last - 1] + p->diagonal + !p->upper));
        const ptrdiff_t from = p->upper ? cut : 0, to = p->upper ? n : cut;
        const char *x_row = row_at(x, row);
        char *y_row = row_at(y, row);
        clear(y_row, ys, from, size);
        fnn_move_strided(y_row + from * ys * size, ys, x_row + from * xs * size, xs, to - from, (size_t)size);
        clear(y_row + to * ys * size, ys, n - to, size);
    }
}

/* y: x, 0 above the diagonal (upper: below it); x: any strides and dtype. */
static int run(fnn_call *call) {
    const fnn_tensor *x = call->in[0];
    const ptrdiff_t n = x->shape[x->rank - 1];
    plan p = {call->out[0], x, fnn_max(-x->shape[x->rank - 2], fnn_min(call->attr.i[0], n)), call->attr.i[1] != 0, 0, 1};
    if (fnn_numel(x) == 0) return FNN_OK;
    p.rows = fnn_numel(x) / n;
    p.block = fnn_max(CHUNK / n, 1);
    fnn_parallel_for(call, fnn_ceil_div(p.rows, p.block), fnn_cost(call), run_chunk, &p);
    return FNN_OK;
}

const fnn_driver fnn_triangle = {.infer = infer, .run = run};
