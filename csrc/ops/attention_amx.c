/* attention_amx.c: attention's products on bfloat16 matrix units (kernels/gemm_amx.h): what both directions share, and
 * the forward one.
 *
 * Scores are tiles of a row-major block, on which masks are what they are for multiply-adds; softmax hands its
 * probabilities on split (kernels/attention_amx.h). Queries are split once for a chunk, keys and values once for a block. */
#include "attention_amx.h"

#include <math.h>

enum { STRIP = FNN_AMX_STRIP, STEP = FNN_AMX_STEP };

/* ---- what it costs ---- */

/* Picoseconds, on one of two cores of a Granite Rapids that both compute: a product of two tiles; splitting a probability,
 * and an element of queries, keys and values (more than packing it); a multiply-add. So heads of 32 to 128 columns take
 * matrix units from about 64 queries and keys on, of 16 columns never at the highest precision (measured: 1.0 to 1.1 times
 * as fast for 64, 1.15 for 128, 1.3 to 1.4 for 512; 0.85 to 0.95 for 32). */
static const double TILES_PS = 6500, SPLIT_PS = 250, FACTOR_PS = 120, MULTIPLY_ADD_PS = 11.5;

/* Of one head: two products. Backward has five, three splits and seven split factors, which is much the same. */
void fnn_attention_amx_choose(fnn_attention *a, int precision) {
    const fnn_amx_kernels *X = fnn_amx();
    if (!X || a->dtype != FNN_FLOAT32 || a->depth % FNN_AMX_TILE || a->width % FNN_AMX_TILE) return;
    const int planes = fnn_amx_planes(precision), products = planes * (planes + 1) / 2;
    const double queries = (double)a->queries, keys = (double)a->keys, E = (double)a->depth, V = (double)a->width;
    const double whole = (double)fnn_round_up(a->queries, STRIP) * (double)fnn_round_up(a->keys, STRIP);
    const double tiles = whole / 256 * ((double)fnn_ceil_div(a->depth, STEP) + V / STEP);
    const double split = queries * keys * SPLIT_PS + (queries * E + keys * (E + V)) * FACTOR_PS;
    if (products * tiles * TILES_PS + split >= MULTIPLY_ADD_PS * queries * keys * (E + V)) return;
    a->X = X;
    a->planes = planes;
}

/* ---- what both directions share ---- */

ptrdiff_t fnn_attention_split_bytes(const fnn_attention *a, ptrdiff_t extent, ptrdiff_t depth) {
    return fnn_ceil_div(extent, STRIP) * fnn_ceil_div(depth, STEP) * a->planes * FNN_AMX_STRIP_BYTES;
}

fnn_attention_factor fnn_attention_split(const fnn_attention *a, const fnn_amx_strip *m, void *to, float *bad) {
    const fnn_attention_factor f = {to, m->wide, fnn_attention_split_bytes(a, STRIP, m->depth)};
    fnn_amx_strip strip = *m;
    for (ptrdiff_t i = 0; i < m->wide; i += STRIP) {
        strip.data = m->data + i * m->wide_step;
        strip.wide = fnn_min(m->wide - i, STRIP);
        a->X->split(a->planes, &strip, (char *)to + i / STRIP * f.strip, bad);
    }
    return f;
}

fnn_attention_factor fnn_attention_split_rows(const fnn_attention *a, const fnn_tensor *t, ptrdiff_t head, ptrdiff_t from,
                                              ptrdiff_t rows, int columns, void *to, float *bad) {
    fnn_amx_strip m = {.data = (const float *)fnn_attention_head(a, t, head) + from * t->stride[2], .columns = 1};
    m.wide = columns ? rows : t->shape[3], m.wide_step = t->stride[columns ? 2 : 3];
    m.depth = columns ? t->shape[3] : rows, m.k_step = t->stride[columns ? 3 : 2];
    return fnn_attention_split(a, &m, to, bad);
}

void fnn_attention_amx_product(const fnn_attention *a, const fnn_attention_factor *x, const fnn_attention_factor *y,
                               ptrdiff_t cols, ptrdiff_t depth, void *c, ptrdiff_t c_row, int accumulate) {
    const fnn_amx_product product = {x->extent, cols,      fnn_ceil_div(depth, STEP), x->data, y->data, x->strip, y->strip,
                                     y->extent, (float *)c, c_row,                    accumulate};
    a->X->product(a->planes, &product);
}

void fnn_attention_amx_scores(const fnn_attention *a, const fnn_attention_factor *q, const fnn_attention_factor *k, ptrdiff_t cols,
                              void *s, float *bad) {
    fnn_attention_amx_product(a, q, k, cols, a->depth, s, a->key_block, 0);
    if (!a->X->finite(q->extent, cols, s, a->key_block)) bad[0] = NAN;
}

const char *fnn_attention_algorithm(const fnn_attention *a) { return a->X ? "bfloat16 parts" : "direct"; }

/* ---- forward ---- */

typedef fnn_attention_forward_plan plan;

/* Scratch of a chunk: queries, split; outputs, m and l; of a block: keys, values and probabilities, split; scores, and
 * queries before. */
typedef struct {
    char *q, *o, *m, *l, *k, *v, *p, *s;
    size_t bytes;
} rooms;

static rooms rooms_of(const plan *p, char *base) {
    const fnn_attention *a = &p->a;
    rooms r = {.bytes = 0};
    r.q = fnn_place(base, &r.bytes, (size_t)fnn_attention_split_bytes(a, p->group, a->depth));
    r.o = fnn_attention_room(a, base, &r.bytes, p->group * a->width);
    r.m = fnn_attention_room(a, base, &r.bytes, p->group), r.l = fnn_attention_room(a, base, &r.bytes, p->group);
    r.k = fnn_place(base, &r.bytes, (size_t)fnn_attention_split_bytes(a, a->key_block, a->depth));
    r.v = fnn_place(base, &r.bytes, (size_t)fnn_attention_split_bytes(a, a->width, a->key_block));
    r.p = fnn_place(base, &r.bytes, (size_t)fnn_attention_split_bytes(a, a->query_block, a->key_block));
    r.s = fnn_attention_room(a, base, &r.bytes, a->query_block * fnn_max(a->key_block, a->depth));
    return r;
}

size_t fnn_attention_amx_forward_bytes(const plan *p) { return rooms_of(p, NULL).bytes; }

/* The chunk's queries, split, block by block. */
static void split_queries(const plan *p, const rooms *r, fnn_attention_chunk c, float *bad) {
    const fnn_attention *a = &p->a;
    for (ptrdiff_t at = 0; at < c.rows; at += a->query_block) {
        const ptrdiff_t rows = fnn_min(a->query_block, c.rows - at);
        fnn_attention_queries(a, c.head, c.from + at, rows, r->s);
        const fnn_amx_strip q = {(const float *)r->s, rows, a->depth, a->depth, 1, 0};
        fnn_attention_split(a, &q, r->q + fnn_attention_split_bytes(a, at, a->depth), bad);
    }
}

/* One block of keys for all blocks of the chunk's queries that may see it. */
static void visit_keys(const plan *p, const rooms *r, fnn_attention_chunk c, ptrdiff_t j, float *bad) {
    const fnn_attention *a = &p->a;
    const ptrdiff_t keys = fnn_min(a->key_block, a->keys - j), wide = a->key_block;
    const fnn_attention_factor k = fnn_attention_split_rows(a, a->k, c.head, j, keys, 1, r->k, bad),
                               v = fnn_attention_split_rows(a, a->v, c.head, j, keys, 0, r->v, bad);
    for (ptrdiff_t at = 0; at < c.rows; at += a->query_block) {
        const ptrdiff_t i = c.from + at, rows = fnn_min(a->query_block, c.rows - at);
        const ptrdiff_t cols = a->causal ? fnn_min(keys, i + rows - j) : keys;
        if (cols <= 0) continue;
        const fnn_attention_factor q = {r->q + fnn_attention_split_bytes(a, at, a->depth), rows,
                                        fnn_attention_split_bytes(a, STRIP, a->depth)};
        float *o = (float *)r->o + at * a->width;
        fnn_attention_amx_scores(a, &q, &k, cols, r->s, bad);
        fnn_attention_restrict(a, c.head, i, rows, j, cols, r->s, wide);
        a->X->attention_online(a->planes, rows, cols, (float *)r->s, wide, (float *)r->m + at, (float *)r->l + at, a->width, o,
                               r->p);
        const fnn_attention_factor probabilities = {r->p, rows, fnn_attention_split_bytes(a, STRIP, cols)};
        fnn_attention_amx_product(a, &probabilities, &v, a->width, cols, o, a->width, 1);
    }
}

int fnn_attention_amx_forward(const plan *p, fnn_attention_chunk c, void *scratch) {
    const fnn_attention *a = &p->a;
    const rooms r = rooms_of(p, scratch);
    const ptrdiff_t end = c.from + c.rows;
    _Alignas(64) float bad[16] = {0};
    a->X->begin();
    split_queries(p, &r, c, bad);
    fnn_attention_begin(a, fnn_round_up(c.rows, a->query_block), r.m, r.l, r.o);
    for (ptrdiff_t j = 0; j < a->keys && (!a->causal || j < end) && fnn_attention_good(bad); j += a->key_block)
        visit_keys(p, &r, c, j, bad);
    a->X->end();
    if (!fnn_attention_good(bad) || !a->X->finite(1, c.rows, (float *)r.l, 0)) return 0;
    if (!a->X->finite(c.rows, a->width, (float *)r.o, a->width)) return 0;
    fnn_attention_end(p, c, r.o, r.m, r.l);
    return 1;
}
