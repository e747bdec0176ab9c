/* attention_amx_backward.c: attention's gradients on bfloat16 matrix units.
 *
 * A chunk's keys are taken some blocks at a time, as many as stay in the second-level cache with all that is theirs.
 * Blocks of queries come by, are split once, and meet each of them. Gradients of keys and values are summed as
 * transposed matrices: so probabilities are right factors that sum over queries, which lie as they are, instead of left
 * ones that would have to be turned. */
#include "attention_amx.h"

#include <string.h>

enum {
    STRIP = FNN_AMX_STRIP,
    MOST_BLOCKS = 16,     /* of keys that are taken at a time; */
    OWN_BYTES = 768 << 10 /* no more than these */
};

typedef fnn_attention_backward_plan plan;

/* Of a block of keys: itself and its values as right factors over the columns, itself over the rows; its gradients and
 * its values', transposed. */
typedef struct {
    char *k, *v, *k_rows, *dk, *dv;
} block;

/* Scratch: blocks of keys; of a block of queries: left factors, themselves and their outputs' gradients, both also
 * transposed; delta; probabilities and scores' gradients, before they are split, and split. */
typedef struct {
    ptrdiff_t blocks, block_bytes;
    char *keys, *q, *dy, *q_turned, *dy_turned, *delta, *s, *ds, *p_columns, *ds_columns, *ds_rows, *rows;
    size_t bytes;
} rooms;

static block block_of(const fnn_attention *a, char *base, size_t *used) {
    block b;
    b.k = fnn_place(base, used, (size_t)fnn_attention_split_bytes(a, a->key_block, a->depth));
    b.v = fnn_place(base, used, (size_t)fnn_attention_split_bytes(a, a->key_block, a->width));
    b.k_rows = fnn_place(base, used, (size_t)fnn_attention_split_bytes(a, a->depth, a->key_block));
    b.dk = fnn_attention_room(a, base, used, a->depth * a->key_block);
    b.dv = fnn_attention_room(a, base, used, a->width * a->key_block);
    return b;
}

/* Block n of those in scratch. */
static block block_at(const fnn_attention *a, const rooms *r, ptrdiff_t n) {
    size_t used = 0;
    return block_of(a, r->keys + n * r->block_bytes, &used);
}

static rooms rooms_of(const plan *p, char *base) {
    const fnn_attention *a = &p->a;
    const ptrdiff_t queries = a->query_block, all = fnn_ceil_div(p->group, a->key_block);
    size_t block_bytes = 0;
    block_of(a, NULL, &block_bytes);
    rooms r = {.block_bytes = (ptrdiff_t)block_bytes};
    r.blocks = fnn_ceil_div(all, fnn_ceil_div(all, fnn_min(fnn_max(OWN_BYTES / r.block_bytes, 1), MOST_BLOCKS)));
    r.keys = fnn_place(base, &r.bytes, (size_t)(r.blocks * r.block_bytes));
    r.q = fnn_place(base, &r.bytes, (size_t)fnn_attention_split_bytes(a, queries, a->depth));
    r.dy = fnn_place(base, &r.bytes, (size_t)fnn_attention_split_bytes(a, queries, a->width));
    r.q_turned = fnn_place(base, &r.bytes, (size_t)fnn_attention_split_bytes(a, a->depth, queries));
    r.dy_turned = fnn_place(base, &r.bytes, (size_t)fnn_attention_split_bytes(a, a->width, queries));
    r.delta = fnn_attention_room(a, base, &r.bytes, queries);
    r.s = fnn_attention_room(a, base, &r.bytes, queries * fnn_max(a->key_block, a->depth));
    r.ds = fnn_attention_room(a, base, &r.bytes, queries * fnn_max(a->key_block, a->width));
    r.p_columns = fnn_place(base, &r.bytes, (size_t)fnn_attention_split_bytes(a, a->key_block, queries));
    r.ds_columns = fnn_place(base, &r.bytes, (size_t)fnn_attention_split_bytes(a, a->key_block, queries));
    r.ds_rows = fnn_place(base, &r.bytes, (size_t)fnn_attention_split_bytes(a, queries, a->key_block));
    r.rows = fnn_attention_room(a, base, &r.bytes, fnn_max(queries, a->key_block) * fnn_max(a->depth, a->width));
    return r;
}

size_t fnn_attention_amx_backward_bytes(const plan *p) { return rooms_of(p, NULL).bytes; }

/* Rows (rows x cols) as a left factor that sums over the columns, or, turned, over the rows. */
static fnn_attention_factor split_left(const fnn_attention *a, fnn_attention_matrix x, ptrdiff_t rows, ptrdiff_t cols, int turned,
                                       void *to, float *bad) {
    const fnn_amx_strip m = {x.data, turned ? cols : rows, turned ? rows : cols, turned ? 1 : x.row, turned ? x.row : 1, 0};
    return fnn_attention_split(a, &m, to, bad);
}

/* A block of queries' left factors. */
typedef struct {
    fnn_attention_factor q, dy, q_turned, dy_turned;
} queries;

static queries split_queries(const plan *p, const rooms *r, ptrdiff_t head, ptrdiff_t i, ptrdiff_t rows, float *bad) {
    const fnn_attention *a = &p->a;
    const fnn_attention_matrix q = {r->s, a->depth}, dy = fnn_attention_read(a, p->dy, head, i, rows, r->ds),
                               y = fnn_attention_read(a, p->y, head, i, rows, r->rows);
    fnn_attention_queries(a, head, i, rows, r->s);
    a->K->attention_delta(rows, a->width, dy.data, dy.row, y.data, y.row, r->delta);
    return (queries){split_left(a, q, rows, a->depth, 0, r->q, bad), split_left(a, dy, rows, a->width, 0, r->dy, bad),
                     split_left(a, q, rows, a->depth, 1, r->q_turned, bad),
                     split_left(a, dy, rows, a->width, 1, r->dy_turned, bad)};
}

/* One block of queries with one of keys: five products. first: the chunk's first key; with it dq's sum begins. */
static void visit(const plan *p, const rooms *r, const queries *from, ptrdiff_t head, ptrdiff_t i, ptrdiff_t j, ptrdiff_t keys,
                  const block *b, ptrdiff_t first, float *dq, float *bad) {
    const fnn_attention *a = &p->a;
    const ptrdiff_t rows = from->q.extent, E = a->depth, V = a->width, wide = a->key_block;
    const ptrdiff_t cols = a->causal ? fnn_min(keys, i + rows - j) : keys;
    if (cols <= 0) return;
    const ptrdiff_t over_depth = fnn_attention_split_bytes(a, STRIP, E), over_width = fnn_attention_split_bytes(a, STRIP, V);
    const fnn_attention_factor k = {b->k, keys, over_depth}, v = {b->v, keys, over_width},
                               k_rows = {b->k_rows, E, fnn_attention_split_bytes(a, STRIP, keys)};
    fnn_attention_amx_scores(a, &from->q, &k, cols, r->s, bad);
    fnn_attention_restrict(a, head, i, rows, j, cols, r->s, wide);
    fnn_attention_amx_product(a, &from->dy, &v, cols, V, r->ds, wide, 0);
    a->X->attention_gradient(a->planes, rows, cols, (float *)r->s, (float *)r->ds, wide,
                             (const float *)p->lse + head * a->queries + i, (float *)r->delta, r->p_columns, r->ds_columns,
                             r->ds_rows, bad);
    const ptrdiff_t over_rows = fnn_attention_split_bytes(a, STRIP, rows);
    const fnn_attention_factor p_columns = {r->p_columns, cols, over_rows}, ds_columns = {r->ds_columns, cols, over_rows},
                               ds_rows = {r->ds_rows, rows, fnn_attention_split_bytes(a, STRIP, cols)};
    fnn_attention_amx_product(a, &from->dy_turned, &p_columns, cols, rows, b->dv, wide, 1);
    fnn_attention_amx_product(a, &from->q_turned, &ds_columns, cols, rows, b->dk, wide, 1);
    fnn_attention_amx_product(a, &ds_rows, &k_rows, E, cols, dq, E, j > first);
}

/* Rows of t = a transposed gradient (columns x key_block). 0: not all is finite. */
static int write_turned(const plan *p, const rooms *r, const fnn_tensor *t, ptrdiff_t head, ptrdiff_t j, ptrdiff_t keys,
                        const void *turned) {
    const fnn_attention *a = &p->a;
    const ptrdiff_t n = t->shape[3];
    if (!a->X->finite(n, a->key_block, turned, a->key_block)) return 0;
    const int direct = t->stride[3] == 1 && t->stride[2] >= n;
    void *to = direct ? (float *)fnn_attention_head(a, t, head) + j * t->stride[2] : (void *)r->rows;
    a->K->gemm_pack(keys, n, turned, 1, a->key_block, to, direct ? t->stride[2] : n, 0);
    if (!direct) fnn_attention_write(a, t, head, j, keys, r->rows);
    return 1;
}

static void split_keys(const plan *p, const block *b, ptrdiff_t head, ptrdiff_t j, ptrdiff_t keys, float *bad) {
    const fnn_attention *a = &p->a;
    fnn_attention_split_rows(a, a->k, head, j, keys, 1, b->k, bad);
    fnn_attention_split_rows(a, a->v, head, j, keys, 1, b->v, bad);
    fnn_attention_split_rows(a, a->k, head, j, keys, 0, b->k_rows, bad);
    memset(b->dk, 0, (size_t)(a->key_block * a->depth * a->size));
    memset(b->dv, 0, (size_t)(a->key_block * a->width * a->size));
}

/* Keys from .. end of a chunk that begins with key `begin`, all at once, with all queries that may see them. */
static int run_keys(const plan *p, const rooms *r, ptrdiff_t head, ptrdiff_t begin, ptrdiff_t from, ptrdiff_t end, float *dq,
                    float *bad) {
    const fnn_attention *a = &p->a;
    const ptrdiff_t wide = a->key_block, blocks = fnn_ceil_div(end - from, wide);
    block b[MOST_BLOCKS];
    for (ptrdiff_t n = 0; n < blocks; n++) {
        b[n] = block_at(a, r, n);
        split_keys(p, &b[n], head, from + n * wide, fnn_min(wide, end - from - n * wide), bad);
    }
    const ptrdiff_t first = a->causal ? from / a->query_block * a->query_block : 0;
    for (ptrdiff_t i = first; i < a->queries && fnn_attention_good(bad); i += a->query_block) {
        const queries q = split_queries(p, r, head, i, fnn_min(a->query_block, a->queries - i), bad);
        for (ptrdiff_t n = 0, j = from; n < blocks; n++, j += wide)
            visit(p, r, &q, head, i, j, fnn_min(wide, end - j), &b[n], begin, dq + i * a->depth, bad);
    }
    int good = fnn_attention_good(bad);
    for (ptrdiff_t n = 0, j = from; n < blocks && good; n++, j += wide)
        good = write_turned(p, r, p->dk, head, j, fnn_min(wide, end - j), b[n].dk) &&
               write_turned(p, r, p->dv, head, j, fnn_min(wide, end - j), b[n].dv);
    return good;
}

int fnn_attention_amx_backward(const plan *p, ptrdiff_t head, ptrdiff_t from, ptrdiff_t end, float *dq, void *scratch) {
    const fnn_attention *a = &p->a;
    const rooms r = rooms_of(p, scratch);
    _Alignas(64) float bad[16] = {0};
    int good = 1;
    if (a->causal) memset(dq, 0, (size_t)(fnn_min(from / a->query_block * a->query_block * a->depth, p->partial) * a->size));
    a->X->begin();
    for (ptrdiff_t j = from; j < end && good; j += r.blocks * a->key_block)
        good = run_keys(p, &r, head, from, j, fnn_min(j + r.blocks * a->key_block, end), dq, bad);
    a->X->end();
    return good && a->X->finite(1, p->partial, dq, 0);
}
