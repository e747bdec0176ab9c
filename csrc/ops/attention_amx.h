/* attention_amx.h: attention's products on bfloat16 matrix units: how factors are split, for both directions. */
#ifndef FNN_ATTENTION_AMX_H
#define FNN_ATTENTION_AMX_H
#include "attention.h"

/* Sets X and planes where matrix units are predicted to gain. */
void fnn_attention_amx_choose(fnn_attention *a, int precision);

/* A factor, split: strips of 32 rows (of a right factor: columns), so many bytes apart. */
typedef struct {
    const char *data;
    ptrdiff_t extent, strip;
} fnn_attention_factor;

ptrdiff_t fnn_attention_split_bytes(const fnn_attention *a, ptrdiff_t extent, ptrdiff_t depth);
/* m, as wide as it likes, split into `to`. */
fnn_attention_factor fnn_attention_split(const fnn_attention *a, const fnn_amx_strip *m, void *to, float *bad);
/* Rows from .. from + rows of t's (b, h) matrix: as a right factor that sums over the columns (`columns`: rows are its
 * columns), or over the rows. */
fnn_attention_factor fnn_attention_split_rows(const fnn_attention *a, const fnn_tensor *t, ptrdiff_t head, ptrdiff_t from,
                                              ptrdiff_t rows, int columns, void *to, float *bad);
/* c (+)= x times the first cols columns of y, over `depth` values of k; c's rows begin lines, and whole tiles are
 * written. */
void fnn_attention_amx_product(const fnn_attention *a, const fnn_attention_factor *x, const fnn_attention_factor *y,
                               ptrdiff_t cols, ptrdiff_t depth, void *c, ptrdiff_t c_row, int accumulate);
/* Scores of a block of queries and the first cols of one of keys. bad becomes NaN where one is not finite: what a mask
 * forbids becomes -inf behind them. */
void fnn_attention_amx_scores(const fnn_attention *a, const fnn_attention_factor *q, const fnn_attention_factor *k, ptrdiff_t cols,
                              void *s, float *bad);
static inline int fnn_attention_good(const float *bad) {
    int flag = 0;
    fnn_amx_raise(&flag, bad);
    return !flag;
}

/* A chunk of either direction, in so many bytes of scratch. 0: something is not finite, multiply-adds must tell what
 * comes of it. */
size_t fnn_attention_amx_forward_bytes(const fnn_attention_forward_plan *p);
int fnn_attention_amx_forward(const fnn_attention_forward_plan *p, fnn_attention_chunk c, void *scratch);
size_t fnn_attention_amx_backward_bytes(const fnn_attention_backward_plan *p);
int fnn_attention_amx_backward(const fnn_attention_backward_plan *p, ptrdiff_t head, ptrdiff_t from, ptrdiff_t end, float *dq,
                               void *scratch);

#endif
