/* gemm_turned.c: C (M x N) = A (M x K) times B (K x N) by its transpose, C^T = B^T A^T, where neighbours along M are neighbours in
 * A and M is the longer side: the gradient of a wide linear layer's weight, K its rows.
 *
 * Either way one operand has to be transposed as it is packed, and here it is the smaller one; the other's rows are copied as they
 * are, by the chunks that read them. Then C^T is transposed. (Two cores of a Granite Rapids, AVX-512: 1024 x 256 x 3200 1.1 times
 * as fast, 128 x 64 x 1024 1.4, 1000 x 33 x 999 1.8, 256 x 96 x 3000 0.93.) Small register tiles take gemm_cells.c's way, which
 * transposes nothing. */
#include "gemm_turned.h"

enum {
    MOST_COLUMNS = 512,    /* of C: gemm.c makes of so many rows of C^T one block, whose chunks pack their own columns */
    TIMES_LONGER = 2,      /* M than N, at least */
    LEAST_SAVED = 3,       /* elements of operands whose transposing is saved, for each of C that is transposed instead */
    MOST_RESULT = 2 << 20, /* elements of C, which is in memory twice */
    ROWS = 64              /* of C that are transposed together */
};

int fnn_gemm_turned_suits(const fnn_gemm *g) {
    const fnn_epilogue *e = &g->epilogue;
    const fnn_kernels *K = fnn_kernels_of(g->dtype);
    if (K->best_cols == K->tile_cols) return 0; /* measured with wide tiles only, AVX-512's */
    if (g->batch_rank || e->bias || e->residual || e->activation) return 0;
    if (g->a.row != 1 || g->a.col == 1 || g->b.col != 1 || g->b.row == 1) return 0;
    if (g->N > MOST_COLUMNS || g->M < TIMES_LONGER * g->N || g->M * g->N > MOST_RESULT) return 0;
    return (double)(g->M - g->N) * (double)g->K >= LEAST_SAVED * (double)g->M * (double)g->N;
}

typedef struct {
    const fnn_gemm *g;
    const char *turned; /* C^T, dense */
} plan;

static fnn_gemm turned_product(const fnn_gemm *g, void *result) {
    fnn_gemm t = *g;
    t.M = g->N, t.N = g->M;
    t.a = fnn_turned(g->b), t.b = fnn_turned(g->a);
    t.c = (fnn_matrix){.data = result, .row = g->M, .col = 1};
    t.leader = NULL;
    return t;
}

static size_t result_bytes(const fnn_gemm *g) { return fnn_whole_lines((size_t)(g->M * g->N) * fnn_itemsize(g->dtype)); }

static void transpose_rows(void *context, ptrdiff_t chunk, void *scratch) {
    (void)scratch;
    const plan *p = context;
    const fnn_gemm *g = p->g;
    const ptrdiff_t row = chunk * ROWS, rows = fnn_min(ROWS, g->M - row);
    fnn_kernels_of(g->dtype)->gemm_pack(rows, g->N, fnn_at(p->turned, row, g->dtype), 1, g->M,
                                        fnn_at(g->c.data, row * g->c.row, g->dtype), g->c.row, 0);
    if (g->leader) fnn_gemm_follow(g, row, rows, 0, g->N, NULL);
}

void fnn_gemm_turned_workspace(const fnn_gemm *g, fnn_workspace *ws) {
    const fnn_gemm t = turned_product(g, NULL);
    fnn_gemm_blocks_workspace(&t, ws);
    ws->shared += result_bytes(g);
}

void fnn_gemm_turned_run(const fnn_call *call, const fnn_gemm *g, void *shared) {
    plan p = {.g = g, .turned = shared};
    const fnn_gemm t = turned_product(g, shared);
    fnn_gemm_blocks_run(call, &t, (char *)shared + result_bytes(g));
    fnn_parallel_for(call, fnn_ceil_div(g->M, ROWS), (double)(g->M * g->N), transpose_rows, &p);
}
