/* matmul.c: products of matrices, over broadcast batch axes. */
#include "gemm.h"

enum { FEW_COLUMNS = 4 }; /* a matrix by so few vectors is inner products: rows of a are usually contiguous */

static int infer(fnn_call *call) {
    const fnn_tensor *a = call->in[0], *b = call->in[1];
    if (a->rank < 2 || b->rank < 2)
        return fnn_fail(call, FNN_VALUE_ERROR, "argument '%s' has shape %s, but must have at least 2 axes", a->rank < 2 ? "a" : "b",
                        fnn_shape_text(a->rank < 2 ? a : b));
    if (a->shape[a->rank - 1] != b->shape[b->rank - 2])
        return fnn_fail(call, FNN_VALUE_ERROR,
                        "shapes %s and %s do not match: the last axis of 'a' (%td) must be the last but one of 'b' (%td)",
                        fnn_shape_text(a), fnn_shape_text(b), a->shape[a->rank - 1], b->shape[b->rank - 2]);
    int rank = a->rank > b->rank ? a->rank : b->rank;
    ptrdiff_t shape[FNN_MAX_RANK];
    for (int d = 0; d < rank - 2; d++) {
        int i = d - (rank - a->rank), j = d - (rank - b->rank);
        ptrdiff_t m = i < 0 ? 1 : a->shape[i], n = j < 0 ? 1 : b->shape[j];
        if (m != n && m != 1 && n != 1)
            return fnn_fail(call, FNN_VALUE_ERROR, "batch axes of 'a' %s and 'b' %s do not broadcast together", fnn_shape_text(a),
                            fnn_shape_text(b));
        shape[d] = m == 1 ? n : m;
    }
    shape[rank - 2] = a->shape[a->rank - 2];
    shape[rank - 1] = b->shape[b->rank - 1];
    fnn_set_shape_contiguous(call->out[0], a->dtype, rank, shape);
    return FNN_OK;
}

/* The last two axes of x as a matrix, the others as batch axes of a result of the given rank. */
static fnn_matrix matrix_of(const fnn_tensor *x, int rank) {
    fnn_matrix m = {.data = x->data, .row = x->stride[x->rank - 2], .col = x->stride[x->rank - 1]};
    if (x->shape[x->rank - 1] == 1) m.col = 1;
    for (int d = 0; d < x->rank - 2; d++) m.batch[d + rank - x->rank] = x->shape[d] == 1 ? 0 : x->stride[d];
    return m;
}

/* When b has no batch axes, those of a are more rows of one product. */
static void merge_batch(fnn_gemm *g) {
    while (g->batch_rank > 0) {
        int d = g->batch_rank - 1;
        int joins = g->batch_shape[d] == 1 || (g->b.batch[d] == 0 && g->a.batch[d] == g->M * g->a.row &&
                                               g->c.batch[d] == g->M * g->c.row);
        if (!joins) return;
        g->M *= g->batch_shape[d];
        g->batch_rank = d;
    }
}

/* memory: where what has to be staged goes; NULL: it is only counted. */
static void read_call(const fnn_call *call, void *memory, fnn_product *p) {
    const fnn_tensor *a = call->in[0], *b = call->in[1], *y = &p->result;
    fnn_gemm *g = &p->g;
    *p = (fnn_product){.staging = {.memory = memory}};
    p->result = fnn_result_of(&p->staging, call->out[0], 0);
    g->dtype = a->dtype, g->precision = call->precision;
    g->M = a->shape[a->rank - 2], g->K = a->shape[a->rank - 1], g->N = b->shape[b->rank - 1];
    g->batch_rank = y->rank - 2;
    for (int d = 0; d < g->batch_rank; d++) g->batch_shape[d] = y->shape[d];
    g->a = matrix_of(a, y->rank);
    g->b = matrix_of(b, y->rank);
    g->c = matrix_of(y, y->rank);
    g->dot = g->N <= FEW_COLUMNS;
    merge_batch(g);
}

static double cost(const fnn_call *call) {
    fnn_product p;
    read_call(call, NULL, &p);
    return fnn_product_cost(&p);
}

static const char *algorithm(const fnn_call *call) {
    fnn_product p;
    read_call(call, NULL, &p);
    return fnn_gemm_algorithm(&p.g);
}

static void workspace(const fnn_call *call, fnn_workspace *ws) {
    fnn_product p;
    read_call(call, NULL, &p);
    fnn_product_workspace(&p, ws);
}

/* y (..., M, N) = a (..., M, K) times b (..., K, N); batch axes broadcast; any strides: a transposed view costs no copy. */
static int run(fnn_call *call) {
    fnn_product p;
    read_call(call, call->shared, &p);
    fnn_product_run(call, &p, call->out[0]);
    return FNN_OK;
}

const fnn_driver fnn_matmul = {
    .infer = infer, .workspace = workspace, .cost = cost, .run = run, .algorithm = algorithm};
