/* attention.h: what scaled dot-product attention's two directions share: y = softmax(scale q k^T + mask) v for every
 * head. */
#ifndef FNN_ATTENTION_H
#define FNN_ATTENTION_H
#include "../amx.h"
#include "stage.h"

typedef struct {
    const fnn_kernels *K;
    const fnn_amx_kernels *X; /* NULL: products are multiply-adds; else, of factors in so many bfloat16 parts: */
    int planes;
    int dtype, causal;
    ptrdiff_t size;                        /* of an element */
    ptrdiff_t batch, heads, queries, keys; /* B, H, L, S */
    ptrdiff_t depth, width;                /* E of queries and keys, V of values */
    ptrdiff_t query_block, key_block;
    double scale;
    const fnn_tensor *q, *k, *v, *mask;
} fnn_attention;

/* The call's sizes; q, k, v are inputs first, first + 1, first + 2; mask its input `mask`. */
fnn_attention fnn_attention_of(const fnn_call *call, int first, int mask);
/* What the user is told of the way that products take. */
const char *fnn_attention_algorithm(const fnn_attention *a);
/* Checks q, k, v and mask of a call. */
int fnn_attention_check(fnn_call *call, int first, int mask);
/* Results' layout, (B, H, L, E): heads beside one another, so that joining them is a view: B L H E in memory. */
void fnn_attention_layout(fnn_tensor *t, const fnn_tensor *like, ptrdiff_t width);

/* Rows from .. from + rows of t's (b, h) matrix, dense. */
void fnn_attention_rows(const fnn_attention *a, const fnn_tensor *t, ptrdiff_t head, ptrdiff_t from, ptrdiff_t rows,
                        void *to);
/* The same, to be an operand of fnn_attention_product: (rows, columns) in panels, or transposed: (columns, rows). */
void fnn_attention_panels(const fnn_attention *a, const fnn_tensor *t, ptrdiff_t head, ptrdiff_t from, ptrdiff_t rows,
                          int transposed, void *to);
ptrdiff_t fnn_attention_panels_size(const fnn_attention *a, ptrdiff_t rows, ptrdiff_t cols); /* in elements */
/* c (rows, cols) (+)= a (rows, depth; strides) times panels (depth, cols), which were packed for panel_rows rows. */
void fnn_attention_product(const fnn_attention *a, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t depth, const void *x,
                           ptrdiff_t x_row, ptrdiff_t x_col, const void *panels, ptrdiff_t panel_rows, void *c,
                           ptrdiff_t c_row, int accumulate);
/* Applies mask and causality to the scores of queries i .. i + rows by keys j .. j + cols. */
void fnn_attention_restrict(const fnn_attention *a, ptrdiff_t head, ptrdiff_t i, ptrdiff_t rows, ptrdiff_t j,
                            ptrdiff_t cols, void *s, ptrdiff_t s_row);

/* Rows of a (b, h) matrix and their distance: where they are if their columns are neighbours, else a dense copy. */
typedef struct {
    const void *data;
    ptrdiff_t row;
} fnn_attention_matrix;
fnn_attention_matrix fnn_attention_read(const fnn_attention *a, const fnn_tensor *t, ptrdiff_t head, ptrdiff_t from,
                                        ptrdiff_t rows, void *room);
/* Queries from .. from + rows of a head, scaled and dense. */
void fnn_attention_queries(const fnn_attention *a, ptrdiff_t head, ptrdiff_t from, ptrdiff_t rows, void *to);

/* ---- forward ---- */

typedef struct {
    fnn_attention a;
    ptrdiff_t group, groups; /* queries of a chunk, chunks of a head */
    fnn_tensor y;
    char *lse;
} fnn_attention_forward_plan;

/* A chunk's queries: rows from .. from + rows of a head. */
typedef struct {
    ptrdiff_t head, from, rows;
} fnn_attention_chunk;

/* What the online softmax begins with: m = -inf, l = 0, o = 0 (rows x width). */
void fnn_attention_begin(const fnn_attention *a, ptrdiff_t rows, void *m, void *l, void *o);
/* y and lse of a chunk. */
void fnn_attention_end(const fnn_attention_forward_plan *p, fnn_attention_chunk c, const void *o, const void *m, const void *l);

/* ---- backward ---- */

typedef struct {
    fnn_attention a;
    const fnn_tensor *dy, *y;
    const char *lse;
    fnn_tensor *dq, *dk, *dv;
    ptrdiff_t group, groups; /* keys of a chunk, chunks of a head */
    ptrdiff_t partial;       /* elements of a chunk's dq: its rows are a whole number of tiles */
    char *partials;          /* [heads of all images][groups][L, rounded up][E] */
} fnn_attention_backward_plan;

/* Rows from .. from + rows of t's matrix = dense ones. */
void fnn_attention_write(const fnn_attention *a, const fnn_tensor *t, ptrdiff_t head, ptrdiff_t from, ptrdiff_t rows,
                         const void *dense);

/* Room for so many elements, see fnn_place. */
static inline char *fnn_attention_room(const fnn_attention *a, void *workspace, size_t *used, ptrdiff_t elements) {
    return fnn_place(workspace, used, (size_t)(elements * a->size));
}

static inline void *fnn_attention_head(const fnn_attention *a, const fnn_tensor *t, ptrdiff_t head) {
    return fnn_at(t->data, head / a->heads * t->stride[0] + head % a->heads * t->stride[1], t->dtype);
}

#endif
