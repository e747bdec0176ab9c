/* gemm_amx.h: float32 products on bfloat16 matrix units (Intel AMX).
 *
 * An operand is split into `planes` bfloat16 parts, each the rounding of what the parts before it leave: x = x0 + x1 +
 * x2 exactly for three planes, x0 + x1 to 2^-17 |x| for two, x0 to 2^-9 |x| for one. Of the products of parts those up
 * to x0 y2, x1 y1, x2 y0 are added, the small ones first: 6, 3 or 1 (Henry, Tang and Heinecke, arXiv 1904.06376). What
 * six leave out is at most 2^-24 |xy|, the error of one rounding. A unit sums 32 products and then adds them to C:
 * fewer roundings than a chain of multiply-adds.
 *
 * Layout. A tile is 16 rows of 64 bytes. One step of a product takes 32 values of k: a row of A's tile holds its 32
 * bfloat16 values, a row of B's tile those of two k for 16 columns. Which k are paired is free as long as A and B
 * agree: k and k + 16 are, since two vectors then become one by a shift and a blend, without a permutation, whether
 * they run along k or across it. */
enum { AMX_TILE = FNN_AMX_TILE, AMX_STEP = FNN_AMX_STEP, AMX_TILE_BYTES = FNN_AMX_TILE_BYTES };

#include "amx_tiles.h"

/* ---- splitting ---- */

/* Bits of x rounded to bfloat16, half away from zero: what is cut off has either sign, so that its products do not add
 * up. */
INLINE __m512i amx_round(__m512 x) { return _mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x8000)); }
INLINE __m512 amx_rest(__m512 x, __m512i rounded) {
    return _mm512_sub_ps(x, _mm512_castsi512_ps(_mm512_and_si512(rounded, _mm512_set1_epi32((int)0xffff0000))));
}
INLINE void amx_put(char *to, __m512i low, __m512i high) {
    _mm512_store_si512(to, _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(low, 16), high));
}

/* x's parts, in the upper halves of 32 bits; what the first one leaves. */
INLINE __m512 amx_parts(int planes, __m512 x, __m512i part[3]) {
    part[0] = amx_round(x);
    const __m512 rest = amx_rest(x, part[0]);
    if (planes > 1) part[1] = amx_round(rest);
    if (planes > 2) part[2] = _mm512_castps_si512(amx_rest(rest, part[1]));
    return rest;
}

/* One row of a tile in each plane: pairs of low and high. */
INLINE void amx_put_parts(int planes, char *to, ptrdiff_t plane, const __m512i low[3], const __m512i high[3]) {
    amx_put(to, low[0], high[0]);
    if (planes > 1) amx_put(to + plane, low[1], high[1]);
    if (planes > 2) amx_put(to + 2 * plane, low[2], high[2]);
}

/* One row of a tile in each plane: pairs (x, y). bad becomes NaN where a value is not finite or rounds to infinity:
 * its rest is NaN or infinite. */
INLINE __m512 amx_split_row(__m512 x, __m512 y, char *to, ptrdiff_t plane, int planes, __m512 bad) {
    __m512i low[3], high[3];
    bad = _mm512_fmadd_ps(amx_parts(planes, x, low), _mm512_setzero_ps(), bad);
    bad = _mm512_fmadd_ps(amx_parts(planes, y, high), _mm512_setzero_ps(), bad);
    amx_put_parts(planes, to, plane, low, high);
    return bad;
}

INLINE __mmask16 amx_first(ptrdiff_t n) { return n >= AMX_TILE ? 0xffff : n <= 0 ? 0 : (__mmask16)((1u << n) - 1); }

/* One tile in each plane of `to`: `wide` rows of A (columns of B), at most 16, by `depth` values of k, at most 32; the
 * others count as 0. along: neighbours in memory are neighbours in k, and a line is one row of A (column of B); else a
 * line is one k. turned: lines are not what a tile's rows hold. */
INLINE void amx_split_tile(const float *x, ptrdiff_t line, ptrdiff_t wide, ptrdiff_t depth, int along, int turned,
                           char *to, ptrdiff_t plane, int planes, __m512 *bad) {
    const int whole = wide == AMX_TILE && depth == AMX_STEP;
    const ptrdiff_t low_lines = along ? wide : depth, high_lines = along ? wide : depth - AMX_TILE;
    const __mmask16 low = amx_first(along ? depth : wide), high = amx_first(along ? depth - AMX_TILE : wide);
    const ptrdiff_t second = along ? AMX_TILE : AMX_TILE * line;
    vec u[AMX_TILE], v[AMX_TILE];
#pragma GCC unroll 16
    for (int i = 0; i < AMX_TILE; i++) {
        if (whole) {
            u[i] = _mm512_loadu_ps(x + i * line);
            v[i] = _mm512_loadu_ps(x + second + i * line);
        } else {
            u[i] = i < low_lines ? _mm512_maskz_loadu_ps(low, x + i * line) : _mm512_setzero_ps();
            v[i] = i < high_lines && high ? _mm512_maskz_loadu_ps(high, x + second + i * line) : _mm512_setzero_ps();
        }
        if (!turned) *bad = amx_split_row(u[i], v[i], to + i * 64, plane, planes, *bad);
    }
    if (!turned) return;
    vec_transpose(u);
    vec_transpose(v);
#pragma GCC unroll 16
    for (int i = 0; i < AMX_TILE; i++) *bad = amx_split_row(u[i], v[i], to + i * 64, plane, planes, *bad);
}

/* All tiles of a strip. What is contiguous along neither axis is first gathered, a tile at a time. */
INLINE void amx_split_strip(int planes, int along, int turned, const fnn_amx_strip *s, char *to, __m512 *bad) {
    float copy[AMX_TILE * AMX_STEP];
    const ptrdiff_t plane = s->wide > AMX_TILE ? 2 * AMX_TILE_BYTES : AMX_TILE_BYTES;
    for (ptrdiff_t k = 0; k < s->depth; k += AMX_STEP, to += planes * plane) {
        const ptrdiff_t depth = s->depth - k < AMX_STEP ? s->depth - k : AMX_STEP;
        for (ptrdiff_t i = 0; i < s->wide; i += AMX_TILE) {
            const ptrdiff_t wide = s->wide - i < AMX_TILE ? s->wide - i : AMX_TILE;
            const float *x = s->data + i * s->wide_step + k * s->k_step;
            ptrdiff_t line = along ? s->wide_step : s->k_step;
            if (s->k_step != 1 && s->wide_step != 1) {
                for (ptrdiff_t w = 0; w < wide; w++)
                    for (ptrdiff_t q = 0; q < depth; q++) copy[w * AMX_STEP + q] = x[w * s->wide_step + q * s->k_step];
                x = copy, line = AMX_STEP;
            }
            amx_split_tile(x, line, wide, depth, along, turned, to + i / AMX_TILE * AMX_TILE_BYTES, plane, planes, bad);
        }
    }
}

/* call(planes) with a constant. */
#define AMX_FOR_PLANES(call, planes)                                                                                   \
    do {                                                                                                               \
        if ((planes) == 3) call(3);                                                                                    \
        else if ((planes) == 2) call(2);                                                                               \
        else call(1);                                                                                                  \
    } while (0)

/* to = one strip, split, in steps of [plane][tile]; bad (16) becomes NaN where a value is not finite. */
static void amx_split_kernel(int planes, const fnn_amx_strip *s, void *to, float *bad_values) {
    __m512 bad = _mm512_load_ps(bad_values);
    const int along = s->k_step == 1 || s->wide_step != 1;
#define SPLIT(p)                                                                                                       \
    do {                                                                                                               \
        if (along) s->columns ? amx_split_strip(p, 1, 1, s, to, &bad) : amx_split_strip(p, 1, 0, s, to, &bad);         \
        else s->columns ? amx_split_strip(p, 0, 0, s, to, &bad) : amx_split_strip(p, 0, 1, s, to, &bad);               \
    } while (0)
    AMX_FOR_PLANES(SPLIT, planes);
#undef SPLIT
    _mm512_store_ps(bad_values, bad);
}

/* ---- the product of two strips ---- */

/* Tiles 0 to 3 are C's, 4 and 5 A's, 6 and 7 B's. */
#define AMX_NEW_A(p)                                                                                                   \
    do {                                                                                                               \
        AMX_LOAD(4, p);                                                                                                \
        if (row_tiles > 1) AMX_LOAD(5, (p) + at);                                                                      \
    } while (0)
#define AMX_NEW_B(p)                                                                                                   \
    do {                                                                                                               \
        AMX_LOAD(6, p);                                                                                                \
        if (col_tiles > 1) AMX_LOAD(7, (p) + bt);                                                                      \
    } while (0)

/* What is brought nearer (amx.h), and where it has come to. */
typedef struct {
    const char *near, *near_end, *out, *sums;
    ptrdiff_t out_step, left, pairs; /* pairs of lines of `out` and `sums`: in each step */
    int lines;                       /* of `near`: behind each product */
} amx_ahead;

INLINE amx_ahead amx_ahead_of(const fnn_amx_ahead *m, int products, ptrdiff_t steps) {
    return (amx_ahead){.near = m->near,
                       .near_end = m->near + m->near_step * steps,
                       .lines = (int)((m->near_step / 64 + products - 1) / products),
                       .out = m->out,
                       .sums = m->sums,
                       .out_step = m->out_step,
                       .left = m->out || m->sums ? AMX_STEP : 0,
                       .pairs = (AMX_STEP + steps - 1) / steps};
}

INLINE void amx_ask_near(amx_ahead *ahead) {
    for (int i = 0; i < ahead->lines && ahead->near < ahead->near_end; i++, ahead->near += 64)
        _mm_prefetch(ahead->near, _MM_HINT_T1);
}

INLINE void amx_ask_pairs(amx_ahead *ahead) {
    for (ptrdiff_t i = 0; i < ahead->pairs && ahead->left > 0; i++, ahead->left--) {
        if (ahead->out) {
            __builtin_prefetch(ahead->out, 1);
            __builtin_prefetch(ahead->out + 64, 1);
            ahead->out += ahead->out_step;
        }
        if (ahead->sums) {
            _mm_prefetch(ahead->sums, _MM_HINT_T1);
            _mm_prefetch(ahead->sums + 64, _MM_HINT_T1);
            ahead->sums += 128;
        }
    }
}

/* C += A B, one tile; then something comes nearer. */
#define AMX_MULTIPLY_AHEAD(c, a, b)                                                                                    \
    do {                                                                                                               \
        AMX_MULTIPLY(c, a, b);                                                                                         \
        if (ahead) amx_ask_near(ahead);                                                                                \
    } while (0)

INLINE void amx_products(int row_tiles, int col_tiles, amx_ahead *ahead) {
    AMX_MULTIPLY_AHEAD(0, 4, 6);
    if (row_tiles > 1) AMX_MULTIPLY_AHEAD(2, 5, 6);
    if (col_tiles > 1) AMX_MULTIPLY_AHEAD(1, 4, 7);
    if (row_tiles > 1 && col_tiles > 1) AMX_MULTIPLY_AHEAD(3, 5, 7);
}

/* One step. Between products one operand changes, so that six take seven loads of each kind, three take four. ahead may
 * be NULL. */
INLINE void amx_step(const char *a, ptrdiff_t at, ptrdiff_t ap, const char *b, ptrdiff_t bt, ptrdiff_t bp, int planes,
                     int row_tiles, int col_tiles, amx_ahead *ahead) {
    AMX_NEW_A(a);
    if (planes == 3) {
        AMX_NEW_B(b + 2 * bp);
        amx_products(row_tiles, col_tiles, ahead);
    }
    if (planes >= 2) {
        AMX_NEW_B(b + bp);
        amx_products(row_tiles, col_tiles, ahead);
    }
    if (planes == 3) {
        AMX_NEW_A(a + ap);
        amx_products(row_tiles, col_tiles, ahead);
    }
    AMX_NEW_B(b);
    amx_products(row_tiles, col_tiles, ahead);
    if (planes == 1) return;
    AMX_NEW_A(planes == 3 ? a + 2 * ap : a + ap);
    amx_products(row_tiles, col_tiles, ahead);
    if (planes == 2) return;
    AMX_NEW_A(a);
    amx_products(row_tiles, col_tiles, ahead);
}

/* Where tiles of C are: how far to the right and below the first the others begin, and the rows of each, in bytes. */
typedef struct {
    char *first;
    ptrdiff_t right, below, row;
} amx_result;

INLINE void amx_run(ptrdiff_t steps, const fnn_amx_operand *pa, const fnn_amx_operand *pb, amx_result c, int accumulate,
                    const fnn_amx_ahead *asked, int planes, int row_tiles, int col_tiles) {
    const ptrdiff_t at = pa->tile, ap = pa->plane, a_step = pa->step, bt = pb->tile, bp = pb->plane, b_step = pb->step;
    const char *a = pa->data, *b = pb->data, *const a_data = a, *const b_data = b;
    const int right = col_tiles > 1, below = row_tiles > 1;
    amx_ahead ahead;
    if (asked) ahead = amx_ahead_of(asked, planes * (planes + 1) / 2 * row_tiles * col_tiles, steps);
    if (accumulate) {
        AMX_LOAD_ROWS(0, c.first, c.row);
        if (right) AMX_LOAD_ROWS(1, c.first + c.right, c.row);
        if (below) AMX_LOAD_ROWS(2, c.first + c.below, c.row);
        if (below && right) AMX_LOAD_ROWS(3, c.first + c.below + c.right, c.row);
    } else {
        AMX_ZERO(0);
        AMX_ZERO(1);
        AMX_ZERO(2);
        AMX_ZERO(3);
    }
    /* Storing a tile takes the vector units, and after half a microsecond without work they need 250 ns to come back:
     * one addition a step keeps them. */
    __m512 awake = _mm512_setzero_ps();
    for (ptrdiff_t s = 0; s < steps; s++, a += a_step, b += b_step) {
        if (pa->offset) a = a_data + pa->offset[s];
        if (pb->offset) b = b_data + pb->offset[s];
        amx_step(a, at, ap, b, bt, bp, planes, row_tiles, col_tiles, asked ? &ahead : NULL);
        if (asked) amx_ask_pairs(&ahead);
        AMX_ADD(awake);
    }
    AMX_STORE_ROWS(0, c.first, c.row);
    if (right) AMX_STORE_ROWS(1, c.first + c.right, c.row);
    if (below) AMX_STORE_ROWS(2, c.first + c.below, c.row);
    if (below && right) AMX_STORE_ROWS(3, c.first + c.below + c.right, c.row);
}

/* run(planes, row_tiles, col_tiles) with constants. */
#define AMX_FOR_TILES(run, planes, row_tiles, col_tiles)                                                               \
    do {                                                                                                               \
        if (row_tiles == 2 && col_tiles == 2) run(planes, 2, 2);                                                       \
        else if (row_tiles == 2) run(planes, 2, 1);                                                                    \
        else if (col_tiles == 2) run(planes, 1, 2);                                                                    \
        else run(planes, 1, 1);                                                                                        \
    } while (0)

/* c (row_tiles x col_tiles tiles, two a row, each dense) (+)= the sum over steps of A's tiles times B's. ahead: NULL, or
 * what comes nearer meanwhile; only whole products bring it. */
static void amx_multiply_kernel(int planes, int row_tiles, int col_tiles, ptrdiff_t steps, const fnn_amx_operand *a,
                                const fnn_amx_operand *b, float *c, int accumulate, const fnn_amx_ahead *ahead) {
    const amx_result to = {(char *)c, AMX_TILE_BYTES, 2 * AMX_TILE_BYTES, 64};
#define RUN(p, r, c) amx_run(steps, a, b, to, accumulate, NULL, p, r, c)
#define TILES(p)                                                                                                       \
    do {                                                                                                               \
        if (row_tiles == 2 && col_tiles == 2 && ahead) amx_run(steps, a, b, to, accumulate, ahead, p, 2, 2);           \
        else AMX_FOR_TILES(RUN, p, row_tiles, col_tiles);                                                              \
    } while (0)
    AMX_FOR_PLANES(TILES, planes);
#undef TILES
#undef RUN
}

/* Whole products of dense strips (amx.h). */
INLINE void amx_strips(const fnn_amx_product *p, ptrdiff_t i, ptrdiff_t j, int planes, int row_tiles, int col_tiles) {
    const ptrdiff_t row = p->c_row * (ptrdiff_t)sizeof(float);
    const ptrdiff_t a_plane = row_tiles * AMX_TILE_BYTES, b_plane = col_tiles * AMX_TILE_BYTES;
    const fnn_amx_operand a = {(const char *)p->a + i / 32 * p->a_strip, planes * a_plane, AMX_TILE_BYTES, a_plane, NULL};
    const fnn_amx_operand b = {(const char *)p->b + j / 32 * p->b_strip, planes * b_plane, AMX_TILE_BYTES, b_plane, NULL};
    const amx_result c = {(char *)(p->c + i * p->c_row + j), 64, AMX_TILE * row, row};
    amx_run(p->steps, &a, &b, c, p->accumulate, NULL, planes, row_tiles, col_tiles);
}
static void amx_product_kernel(int planes, const fnn_amx_product *p) {
    for (ptrdiff_t i = 0; i < p->rows; i += FNN_AMX_STRIP)
        for (ptrdiff_t j = 0; j < p->cols; j += FNN_AMX_STRIP) {
            const int row_tiles = p->rows - i > AMX_TILE ? 2 : 1, col_tiles = p->b_cols - j > AMX_TILE ? 2 : 1;
#define RUN(p_, r, c) amx_strips(p, i, j, p_, r, c)
#define TILES(p_) AMX_FOR_TILES(RUN, p_, row_tiles, col_tiles)
            AMX_FOR_PLANES(TILES, planes);
#undef TILES
#undef RUN
        }
}

/* c (rows x cols, at most 32 x 32) = rows first .. first + rows - 1 of the four tiles; bad (16) becomes NaN where a sum
 * is not finite. */
static void amx_store_kernel(ptrdiff_t first, ptrdiff_t rows, ptrdiff_t cols, const float *tiles, float *c,
                             ptrdiff_t c_row, float *bad) {
    __m512 any = _mm512_load_ps(bad);
    for (ptrdiff_t i = first; i < first + rows; i++, c += c_row)
        for (ptrdiff_t j = 0; j < cols; j += AMX_TILE) {
            const __m512 v = _mm512_load_ps(tiles + i / AMX_TILE * 512 + j * 16 + i % AMX_TILE * 16);
            const __mmask16 valid = amx_first(cols - j);
            any = _mm512_mask3_fmadd_ps(v, _mm512_setzero_ps(), any, valid);
            _mm512_mask_storeu_ps(c + j, valid, v);
        }
    _mm512_store_ps(bad, any);
}

/* Whether all of x (rows x cols, rows `row` apart) is finite. */
static int amx_finite_kernel(ptrdiff_t rows, ptrdiff_t cols, const float *x, ptrdiff_t row) {
    vec bad[2] = {vec_zero(), vec_zero()};
    for (ptrdiff_t i = 0; i < rows; i++, x += row) {
        ptrdiff_t j = 0;
        for (; j + 2 * AMX_TILE <= cols; j += 2 * AMX_TILE)
            for (int k = 0; k < 2; k++) bad[k] = vec_fma(vec_load(x + j + k * AMX_TILE), vec_zero(), bad[k]);
        for (; j < cols; j += AMX_TILE) bad[0] = vec_fma(_mm512_maskz_loadu_ps(amx_first(cols - j), x + j), vec_zero(), bad[0]);
    }
    const vec any = vec_add(bad[0], bad[1]);
    return !mask_any(vec_unordered(any, any));
}
