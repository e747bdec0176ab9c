/* amx.h: what drivers say to the kernels of the AMX level: float32 products on bfloat16 tiles (kernels/gemm_amx.h). */
#ifndef FNN_AMX_H
#define FNN_AMX_H

#include "fastnn.h"

/* A tile is 16 rows of 64 bytes. A strip is 32 rows of A or 32 columns of B, two tiles; a step is 32 values of k. */
enum {
    FNN_AMX_TILE = 16,
    FNN_AMX_STRIP = 32,
    FNN_AMX_STEP = 32,
    FNN_AMX_TILE_BYTES = 1024,
    FNN_AMX_STRIP_BYTES = 2 * FNN_AMX_TILE_BYTES, /* of one plane and step of a strip */
    FNN_AMX_C_BYTES = 4 * FNN_AMX_TILE_BYTES      /* float32 sums of two strips */
};

/* Parts that a factor is split into. */
static inline int fnn_amx_planes(int precision) { return 3 - precision; }

/* Sets the flag where one of 16 values is NaN: something was not finite. */
static inline void fnn_amx_raise(int *flag, const float *bad) {
    for (int i = 0; i < 16; i++)
        if (bad[i] != bad[i]) __atomic_store_n(flag, 1, __ATOMIC_RELAXED);
}

/* Split tiles. Distances in bytes: from step to step (`offset`: of each step from data, where they are not alike), from
 * one tile to the second, from plane to plane. */
typedef struct {
    const void *data;
    ptrdiff_t step, tile, plane;
    const ptrdiff_t *offset;
} fnn_amx_operand;

/* What is brought nearer between the tiles of a product, a few lines at a time: many at once would keep tiles waiting.
 * `near_step` bytes for each step, from `near` on, come into the second-level cache, and the next sums if not
 * NULL; 32 pairs of neighbouring lines from `out` on, out_step bytes apart, if not NULL, come to be written. */
typedef struct {
    const char *near;
    ptrdiff_t near_step;
    const char *out, *sums;
    ptrdiff_t out_step;
} fnn_amx_ahead;

/* One strip of float32 values: `wide` rows of A, or, with `columns`, columns of B, by `depth` values of k; strides in
 * elements. */
typedef struct {
    const float *data;
    ptrdiff_t wide, depth, wide_step, k_step;
    int columns;
} fnn_amx_strip;

/* c (rows x cols) (+)= a times the first cols of b's b_cols columns, over `steps` steps. a and b are strips of 32 rows or
 * columns, so many bytes apart, of steps as [plane][tile], one tile where 16 rows or columns are left. Whole tiles of c
 * are written; its rows are c_row values apart and begin lines. */
typedef struct {
    ptrdiff_t rows, cols, steps;
    const void *a, *b;
    ptrdiff_t a_strip, b_strip, b_cols;
    float *c;
    ptrdiff_t c_row;
    int accumulate;
} fnn_amx_product;

/* Pixels by their addresses, each so many neighbouring channels. */
typedef struct {
    const float *const *pixel;
    ptrdiff_t count, channels;
} fnn_amx_pixels;

typedef struct {
    void (*begin)(void);
    void (*end)(void);
    void (*split)(int planes, const fnn_amx_strip *from, void *to, float *bad);
    void (*multiply)(int planes, int row_tiles, int col_tiles, ptrdiff_t steps, const fnn_amx_operand *a,
                     const fnn_amx_operand *b, float *c, int accumulate, const fnn_amx_ahead *ahead);
    void (*product)(int planes, const fnn_amx_product *product);
    void (*store)(ptrdiff_t first, ptrdiff_t rows, ptrdiff_t cols, const float *tiles, float *c, ptrdiff_t c_row,
                  float *bad);
    int (*finite)(ptrdiff_t rows, ptrdiff_t cols, const float *x, ptrdiff_t row);
    /* for convolutions (kernels/conv_amx.h) */
    void (*split_rows)(int planes, const fnn_amx_pixels *from, void *to, ptrdiff_t step, ptrdiff_t plane, float *bad);
    void (*split_pairs)(int planes, const fnn_amx_pixels *from, void *to, ptrdiff_t tile, ptrdiff_t plane, float *bad);
    void (*split_turned)(int planes, const fnn_amx_pixels *from, void *to, ptrdiff_t strip, float *bad);
    void (*store_turned)(ptrdiff_t rows, ptrdiff_t cols, const float *tiles, float *c, ptrdiff_t c_col, float *bad);
    /* for attention (kernels/attention_amx.h) */
    void (*attention_online)(int planes, ptrdiff_t rows, ptrdiff_t cols, const float *s, ptrdiff_t s_row, float *m, float *l,
                             ptrdiff_t width, float *o, void *to);
    void (*attention_gradient)(int planes, ptrdiff_t rows, ptrdiff_t cols, const float *s, const float *dp, ptrdiff_t row,
                               const float *lse, const float *delta, void *p_columns, void *ds_columns, void *ds_rows,
                               float *bad);
} fnn_amx_kernels;

/* dispatch.c: NULL where another level runs. */
const fnn_amx_kernels *fnn_amx(void);

#endif
