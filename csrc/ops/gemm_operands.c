/* gemm_operands.c: operands and results of matrix products, brought into forms that gemm.c takes; what drivers of products have in
 * common. */
#include "gemm.h"
#include "stage.h"

/* x's axes [0, to) seen as one: its stride; 0 when no single stride describes them. */
static int merge_axes(const fnn_tensor *x, int to, ptrdiff_t *stride) {
    int first = 1;
    ptrdiff_t next = 0;
    *stride = 1;
    for (int d = to - 1; d >= 0; d--) {
        if (x->shape[d] == 1) continue;
        if (first) *stride = x->stride[d];
        else if (x->stride[d] != next) return 0;
        next = x->stride[d] * x->shape[d];
        first = 0;
    }
    return 1;
}

/* A tensor of x's shape in C order, in the staging's memory. */
static fnn_tensor staged(fnn_staging *s, const fnn_tensor *x) {
    fnn_tensor t;
    fnn_set_shape_contiguous(&t, x->dtype, x->rank, x->shape);
    t.data = fnn_place(s->memory, &s->bytes, fnn_dense_bytes(x));
    return t;
}

fnn_tensor fnn_staged_copy(fnn_staging *s, const fnn_tensor *x) {
    fnn_tensor t = staged(s, x);
    if (s->memory) fnn_copy_tensor(&t, x);
    return t;
}

fnn_matrix fnn_rows_of(fnn_staging *s, const fnn_tensor *x) {
    fnn_matrix m = {.data = x->data, .col = x->shape[x->rank - 1] == 1 ? 1 : x->stride[x->rank - 1]};
    if (merge_axes(x, x->rank - 1, &m.row)) return m;
    return (fnn_matrix){.data = fnn_staged_copy(s, x).data, .row = x->shape[x->rank - 1], .col = 1};
}

const void *fnn_vector_of(fnn_staging *s, const fnn_tensor *x) {
    return x->stride[0] == 1 || x->shape[0] == 1 ? x->data : fnn_staged_copy(s, x).data;
}

fnn_tensor fnn_result_of(fnn_staging *s, const fnn_tensor *y, int leading_axes_merge) {
    ptrdiff_t row;
    int last = y->rank - 1, unit = y->shape[last] == 1 || y->stride[last] == 1;
    return unit && (!leading_axes_merge || merge_axes(y, last, &row)) ? *y : staged(s, y);
}

void fnn_finish(fnn_tensor *y, const fnn_tensor *result) {
    if (result->data != y->data) fnn_copy_tensor(y, result);
}

fnn_tensor fnn_channels_last_of(fnn_staging *s, const fnn_tensor *t, int fill) {
    if (t->stride[1] == 1 || t->shape[1] == 1) return *t;
    fnn_tensor map;
    fnn_set_shape(&map, t->dtype, 4, t->shape);
    map.data = fnn_place(s->memory, &s->bytes, fnn_dense_bytes(t));
    if (fill && s->memory) fnn_finish(&map, t);
    return map;
}

double fnn_product_cost(const fnn_product *p) { return fnn_gemm_cost(&p->g) + 0.5 * (double)p->staging.bytes; }

void fnn_product_workspace(const fnn_product *p, fnn_workspace *ws) {
    ws->shared = p->staging.bytes;
    fnn_gemm_workspace(&p->g, ws);
}

void fnn_product_run(const fnn_call *call, const fnn_product *p, fnn_tensor *y) {
    fnn_gemm_run(call, &p->g, (char *)call->shared + p->staging.bytes);
    fnn_finish(y, &p->result);
}

int fnn_product_run_rows(const fnn_call *call, const fnn_product *p, fnn_tensor *y) {
    if (!fnn_gemm_run_rows(call, &p->g, (char *)call->shared + p->staging.bytes)) return 0;
    fnn_finish(y, &p->result);
    return 1;
}
