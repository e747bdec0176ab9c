/* gemm.h: matrix products, for drivers: linear layers, matmul, convolutions of single pixels. */
#ifndef FNN_GEMM_H
#define FNN_GEMM_H

#include "../fastnn.h"

/* What copies rows x cols of a matrix from (row, col) on, in panels as the kernel gemm_pack makes them. */
typedef struct {
    void (*copy)(const void *context, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t col, ptrdiff_t cols, void *to, ptrdiff_t wide,
                 ptrdiff_t panel);
    const void *context;
} fnn_gatherer;

/* One matrix, or one per position of the batch axes; strides are counted in elements and may be any. B, without batch axes and for
 * fnn_gemm_blocks_run, may also be a matrix that is nowhere in memory. */
typedef struct {
    void *data;
    ptrdiff_t row, col;
    ptrdiff_t batch[FNN_MAX_RANK];
    const fnn_gatherer *gatherer; /* NULL: elements are at their strides */
    const fnn_call *picking;      /* not NULL: rows are those that this index_select would pick, contiguous; for fnn_gemm_run_rows */
} fnn_matrix;

/* A matrix without batch axes, transposed. */
static inline fnn_matrix fnn_turned(fnn_matrix m) { return (fnn_matrix){.data = m.data, .row = m.col, .col = m.row}; }

/* C (M x N) = A (M x K) times B (K x N), at every position of the batch axes, then the epilogue.
 * `dot`: elements of C are vectorised inner products where C has few rows or columns. It suits operands that are usually
 * contiguous along K; the others are first brought into that form. The choice changes the last bits of a result, so it must
 * depend on the op and the shapes only, never on strides. Without it an element is one chain of multiply-adds along K. */
typedef struct {
    int dtype;
    int precision; /* an fnn_precision, for float32 */
    ptrdiff_t M, N, K;
    int batch_rank;
    ptrdiff_t batch_shape[FNN_MAX_RANK];
    fnn_matrix a, b, c;
    fnn_epilogue epilogue; /* residual: unit column stride, no batch axes */
    ptrdiff_t residual_row;
    int dot;
    const fnn_call *leader; /* whose followers run on C's rows (dense, no batch axes) as they are finished; NULL: nobody follows */
} fnn_gemm;

/* The bytes fnn_gemm_run works in. */
void fnn_gemm_workspace(const fnn_gemm *g, fnn_workspace *ws);
/* Whether fnn_gemm_run can do without memory for C, where only the leader's followers want it. */
int fnn_gemm_can_pass(const fnn_gemm *g);
/* How it is computed: "inner products", "zeros skipped", "bfloat16 parts", "cells", "transposed" or "blocks". */
const char *fnn_gemm_algorithm(const fnn_gemm *g);
/* Predicted single-thread nanoseconds. */
double fnn_gemm_cost(const fnn_gemm *g);
/* shared: at least as many bytes as the workspace says, 64-byte aligned. */
void fnn_gemm_run(const fnn_call *call, const fnn_gemm *g, void *shared);

/* The same where rows of A, or of B, are read where they lie, if the operand's zeros can be skipped so. Returns 0 where they cannot:
 * nothing was done. can: by shapes. */
int fnn_gemm_can_read_rows(const fnn_gemm *g);
int fnn_gemm_run_rows(const fnn_call *call, const fnn_gemm *g, void *shared);

/* The same by blocks of multiply-adds, the general way. */
void fnn_gemm_blocks_workspace(const fnn_gemm *g, fnn_workspace *ws);
void fnn_gemm_blocks_run(const fnn_call *call, const fnn_gemm *g, void *shared);

/* How many positions the batch axes have. */
ptrdiff_t fnn_gemm_batches(const fnn_gemm *g);
/* Where position `index` of the batch axes begins in a, b and c, in elements. */
void fnn_gemm_seek(const fnn_gemm *g, ptrdiff_t index, ptrdiff_t *a, ptrdiff_t *b, ptrdiff_t *c);

/* Of rows x cols of C at (row, col), for the ways of making it. The epilogue: on these, at c, rows c_row elements apart. The calls
 * that follow: on these once they are final; part: where they are, dense, if C is only handed on, else NULL. */
void fnn_gemm_epilogue(const fnn_gemm *g, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t col, ptrdiff_t cols, void *c, ptrdiff_t c_row);
void fnn_gemm_follow(const fnn_gemm *g, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t col, ptrdiff_t cols, void *part);

/* Elements from one copied row of `depth` elements to the next: an odd number of cache lines, which spreads rows over a cache's sets. */
static inline ptrdiff_t fnn_gemm_copied_row(ptrdiff_t depth, ptrdiff_t size) {
    const ptrdiff_t line = FNN_LINE / size;
    return (fnn_ceil_div(depth, line) | 1) * line;
}

/* gemm_operands.c */

/* What a driver brings into another form before a product, counted by workspace() and carried out by run(). */
typedef struct {
    char *memory; /* NULL: only count */
    size_t bytes; /* so far */
} fnn_staging;

/* x (..., columns) as a matrix: its leading axes as rows if one stride describes them, else a copy; rank 1 is one row. */
fnn_matrix fnn_rows_of(fnn_staging *s, const fnn_tensor *x);
/* x (n) with unit stride. */
const void *fnn_vector_of(fnn_staging *s, const fnn_tensor *x);
/* Where to compute y so that its last axis has unit stride and its leading axes one stride: y itself, or a copy in C order
 * that fnn_finish then brings to y. */
fnn_tensor fnn_result_of(fnn_staging *s, const fnn_tensor *y, int leading_axes_merge);
void fnn_finish(fnn_tensor *y, const fnn_tensor *result);
/* A map with neighbouring channels: `t` itself, or room for one in N, H, W, C order, with `fill` a copy of `t`. */
fnn_tensor fnn_channels_last_of(fnn_staging *s, const fnn_tensor *t, int fill);
/* x in C order. */
fnn_tensor fnn_staged_copy(fnn_staging *s, const fnn_tensor *x);

/* A call's product, where its result is computed, and what had to be staged: one reading of the call for cost, workspace and
 * run. */
typedef struct {
    fnn_gemm g;
    fnn_tensor result;
    fnn_staging staging;
} fnn_product;

double fnn_product_cost(const fnn_product *p);
void fnn_product_workspace(const fnn_product *p, fnn_workspace *ws);
void fnn_product_run(const fnn_call *call, const fnn_product *p, fnn_tensor *y);
int fnn_product_run_rows(const fnn_call *call, const fnn_product *p, fnn_tensor *y); /* see fnn_gemm_run_rows */

#endif
