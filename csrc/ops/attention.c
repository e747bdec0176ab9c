/* attention.c: scaled dot-product attention, forward: blocks of queries by blocks of keys, scores in scratch, softmax
 * as the blocks go by (Dao et al., "FlashAttention: fast and memory-efficient exact attention with IO-awareness",
 * NeurIPS 2022).
 *
 * A chunk is a group of queries of one head. It walks the keys block by block; of each it packs keys (transposed) and
 * values once for all its blocks of queries. Memory grows with the sequence's length, not its square. */
#include "attention_amx.h"

#include <math.h>
#include <string.h>

enum {
    QUERY_BLOCK = 64, KEY_BLOCK = 128, /* about: with 64 columns a head, scores and keys share the first-level cache */
    LEAST_QUERIES = 128,               /* of a chunk: packing keys must be worth it; */
    MOST_QUERIES = 1024,               /* its queries stay in the second-level cache */
    WANTED_CHUNKS = 16
};

/* ---- what both directions share ---- */

fnn_attention fnn_attention_of(const fnn_call *call, int first, int mask) {
    const fnn_tensor *q = call->in[first], *k = call->in[first + 1], *v = call->in[first + 2];
    const fnn_kernels *K = fnn_kernels_of(q->dtype);
    fnn_attention a = {.K = K,
                       .dtype = q->dtype,
                       .size = (ptrdiff_t)fnn_itemsize(q->dtype),
                       .batch = q->shape[0],
                       .heads = q->shape[1],
                       .queries = q->shape[2],
                       .keys = k->shape[2],
                       .depth = q->shape[3],
                       .width = v->shape[3],
                       .q = q,
                       .k = k,
                       .v = v,
                       .mask = call->in[mask],
                       .scale = call->attr.f[0],
                       .causal = call->attr.i[0] != 0};
    fnn_attention_amx_choose(&a, call->precision);
    a.query_block = a.X ? QUERY_BLOCK : QUERY_BLOCK / K->tile_rows * K->tile_rows;
    a.key_block = KEY_BLOCK;
    return a;
}

static int check_rank(fnn_call *call, const char *name, const fnn_tensor *t) {
    if (t->rank == 4) return FNN_OK;
    return fnn_fail(call, FNN_VALUE_ERROR, "argument '%s' has shape %s, but must be (batch, heads, length, width)",
                    name, fnn_shape_text(t));
}

static int check_mask(fnn_call *call, const fnn_tensor *mask, const fnn_tensor *q, const fnn_tensor *k) {
    if (!mask) return FNN_OK;
    if (mask->dtype != FNN_BOOL && mask->dtype != q->dtype)
        return fnn_fail(call, FNN_TYPE_ERROR, "argument 'mask' has dtype %s, but must be bool or q's %s",
                        fnn_dtype_name(mask->dtype), fnn_dtype_name(q->dtype));
    if (mask->rank == 4 && mask->shape[0] == q->shape[0] && mask->shape[1] == q->shape[1] &&
        mask->shape[2] == q->shape[2] && mask->shape[3] == k->shape[2])
        return FNN_OK;
    return fnn_fail(call, FNN_VALUE_ERROR,
                    "argument 'mask' has shape %s, but must be (%td, %td, %td, %td) for q %s and k %s",
                    fnn_shape_text(mask), q->shape[0], q->shape[1], q->shape[2], k->shape[2], fnn_shape_text(q),
                    fnn_shape_text(k));
}

int fnn_attention_check(fnn_call *call, int first, int mask) {
    const fnn_tensor *q = call->in[first], *k = call->in[first + 1], *v = call->in[first + 2];
    int status = check_rank(call, "q", q);
    if (!status) status = check_rank(call, "k", k);
    if (!status) status = check_rank(call, "v", v);
    if (status) return status;
    int fits = q->shape[3] == k->shape[3] && k->shape[2] == v->shape[2];
    for (int d = 0; d < 2; d++) fits = fits && q->shape[d] == k->shape[d] && k->shape[d] == v->shape[d];
    if (!fits)
        return fnn_fail(
            call, FNN_VALUE_ERROR,
            "q %s, k %s and v %s do not fit: batch and heads must agree, q and k in width, k and v in length",
            fnn_shape_text(q), fnn_shape_text(k), fnn_shape_text(v));
    return check_mask(call, call->in[mask], q, k);
}

void fnn_attention_layout(fnn_tensor *t, const fnn_tensor *like, ptrdiff_t width) {
    *t = (fnn_tensor){.data = t->data, .dtype = like->dtype, .rank = 4,
                      .shape = {like->shape[0], like->shape[1], like->shape[2], width}};
    t->stride[3] = 1;
    t->stride[1] = fnn_max(width, 1);
    t->stride[2] = t->stride[1] * fnn_max(t->shape[1], 1);
    t->stride[0] = t->stride[2] * fnn_max(t->shape[2], 1);
}

void fnn_attention_rows(const fnn_attention *a, const fnn_tensor *t, ptrdiff_t head, ptrdiff_t from, ptrdiff_t rows,
                        void *to) {
    const char *at = fnn_at(fnn_attention_head(a, t, head), from * t->stride[2], t->dtype);
    a->K->gemm_pack(rows, t->shape[3], at, t->stride[2], t->stride[3], to, t->shape[3], 0);
}

fnn_attention_matrix fnn_attention_read(const fnn_attention *a, const fnn_tensor *t, ptrdiff_t head, ptrdiff_t from,
                                        ptrdiff_t rows, void *room) {
    if (t->stride[3] == 1)
        return (fnn_attention_matrix){fnn_at(fnn_attention_head(a, t, head), from * t->stride[2], t->dtype), t->stride[2]};
    fnn_attention_rows(a, t, head, from, rows, room);
    return (fnn_attention_matrix){room, t->shape[3]};
}

void fnn_attention_queries(const fnn_attention *a, ptrdiff_t head, ptrdiff_t from, ptrdiff_t rows, void *to) {
    const fnn_attention_matrix q = fnn_attention_read(a, a->q, head, from, rows, to);
    a->K->attention_scale(rows, a->depth, a->scale, q.data, q.row, to);
}

ptrdiff_t fnn_attention_panels_size(const fnn_attention *a, ptrdiff_t rows, ptrdiff_t cols) {
    return rows * fnn_round_up(cols, a->K->tile_cols);
}

void fnn_attention_panels(const fnn_attention *a, const fnn_tensor *t, ptrdiff_t head, ptrdiff_t from, ptrdiff_t rows,
                          int transposed, void *to) {
    const char *at = fnn_at(fnn_attention_head(a, t, head), from * t->stride[2], t->dtype);
    const ptrdiff_t wide = a->K->tile_cols;
    if (transposed) a->K->gemm_pack(t->shape[3], rows, at, t->stride[3], t->stride[2], to, wide, t->shape[3] * wide);
    else a->K->gemm_pack(rows, t->shape[3], at, t->stride[2], t->stride[3], to, wide, rows * wide);
}

void fnn_attention_product(const fnn_attention *a, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t depth, const void *x,
                           ptrdiff_t x_row, ptrdiff_t x_col, const void *panels, ptrdiff_t panel_rows, void *c,
                           ptrdiff_t c_row, int accumulate) {
    const ptrdiff_t wide = a->K->tile_cols;
    a->K->gemm_panels(rows, cols, 1, depth, x, NULL, x_row, x_col, panels, NULL, wide, panel_rows * wide, c, c_row, accumulate,
                      NULL);
}

void fnn_attention_restrict(const fnn_attention *a, ptrdiff_t head, ptrdiff_t i, ptrdiff_t rows, ptrdiff_t j,
                            ptrdiff_t cols, void *s, ptrdiff_t s_row) {
    const fnn_tensor *m = a->mask;
    if (m) {
        const void *at = fnn_at(fnn_attention_head(a, m, head), i * m->stride[2] + j * m->stride[3], m->dtype);
        if (m->dtype == FNN_BOOL) a->K->attention_mask(rows, cols, s, s_row, at, m->stride[2], m->stride[3]);
        else a->K->attention_bias(rows, cols, s, s_row, at, m->stride[2], m->stride[3]);
    }
    if (a->causal && j + cols > i + 1) a->K->attention_causal(rows, cols, s, s_row, i - j + 1);
}

/* ---- forward ---- */

typedef fnn_attention_forward_plan plan;

static plan plan_of(const fnn_call *call) {
    plan p = {.a = fnn_attention_of(call, 0, 3)};
    const fnn_attention *a = &p.a;
    const ptrdiff_t all = a->batch * a->heads * a->queries,
                    wanted = fnn_max(fnn_ceil_div(all, WANTED_CHUNKS), LEAST_QUERIES);
    p.groups = fnn_max(fnn_ceil_div(a->queries, fnn_min(wanted, MOST_QUERIES)), 1);
    p.group = fnn_round_up(fnn_ceil_div(a->queries, p.groups), a->query_block);
    p.groups = fnn_ceil_div(a->queries, fnn_max(p.group, 1));
    return p;
}

/* Scratch of a chunk, in elements: queries, outputs, m and l, keys, values, scores. */
typedef struct {
    char *q, *o, *m, *l, *k, *v, *s;
    size_t bytes;
} rooms;

static rooms rooms_of(const plan *p, char *base) {
    const fnn_attention *a = &p->a;
    rooms r = {.bytes = 0};
    r.q = fnn_attention_room(a, base, &r.bytes, p->group * a->depth);
    r.o = fnn_attention_room(a, base, &r.bytes, p->group * a->width);
    r.m = fnn_attention_room(a, base, &r.bytes, p->group), r.l = fnn_attention_room(a, base, &r.bytes, p->group);
    r.k = fnn_attention_room(a, base, &r.bytes, fnn_attention_panels_size(a, a->depth, a->key_block));
    r.v = fnn_attention_room(a, base, &r.bytes, fnn_attention_panels_size(a, a->key_block, a->width));
    r.s = fnn_attention_room(a, base, &r.bytes, a->query_block * a->key_block);
    return r;
}

static int infer(fnn_call *call) {
    int status = fnn_attention_check(call, 0, 3);
    if (status) return status;
    const fnn_tensor *q = call->in[0], *v = call->in[2];
    fnn_attention_layout(call->out[0], q, v->shape[3]);
    fnn_set_shape_contiguous(call->out[1], q->dtype, 3, q->shape);
    return FNN_OK;
}

/* Products at the rate of gemm's tile; an exponential takes about as long as 20 multiply-adds. */
static double cost(const fnn_call *call) {
    fnn_attention a = fnn_attention_of(call, 0, 3);
    double pairs = (double)(a.batch * a.heads * a.queries) * (double)a.keys * (a.causal ? 0.5 : 1);
    return pairs * (2 * (double)(a.depth + a.width) + 40) / (9 * (double)a.K->lanes);
}

static fnn_tensor dense_result(const fnn_call *call) {
    fnn_tensor t = {.data = NULL};
    fnn_attention_layout(&t, call->out[0], call->out[0]->shape[3]);
    return t;
}

static int y_is_ready(const fnn_call *call) { return call->out[0]->stride[3] == 1 || call->out[0]->shape[3] <= 1; }

static void workspace(const fnn_call *call, fnn_workspace *ws) {
    plan p = plan_of(call);
    ws->scratch = rooms_of(&p, NULL).bytes;
    if (p.a.X && ws->scratch < fnn_attention_amx_forward_bytes(&p)) ws->scratch = fnn_attention_amx_forward_bytes(&p);
    ws->shared = (y_is_ready(call) ? 0 : fnn_dense_bytes(call->out[0])) + fnn_stage_c_bytes(call->out[1]);
}

/* One block of keys for all blocks of the chunk's queries that may see it. */
static void visit_keys(const plan *p, const rooms *r, ptrdiff_t head, ptrdiff_t from, ptrdiff_t end, ptrdiff_t j) {
    const fnn_attention *a = &p->a;
    const ptrdiff_t keys = fnn_min(a->key_block, a->keys - j);
    fnn_attention_panels(a, a->k, head, j, keys, 1, r->k);
    fnn_attention_panels(a, a->v, head, j, keys, 0, r->v);
    for (ptrdiff_t i = from; i < end; i += a->query_block) {
        const ptrdiff_t rows = fnn_min(a->query_block, end - i), at = i - from;
        const ptrdiff_t cols = a->causal ? fnn_min(keys, i + rows - j) : keys;
        if (cols <= 0) continue;
        void *o = fnn_at(r->o, at * a->width, a->dtype);
        fnn_attention_product(a, rows, cols, a->depth, fnn_at(r->q, at * a->depth, a->dtype), a->depth, 1, r->k, a->depth, r->s,
                              a->key_block, 0);
        fnn_attention_restrict(a, head, i, rows, j, cols, r->s, a->key_block);
        a->K->attention_online(rows, cols, r->s, a->key_block, fnn_at(r->m, at, a->dtype), fnn_at(r->l, at, a->dtype),
                               a->width, o);
        fnn_attention_product(a, rows, a->width, cols, r->s, a->key_block, 1, r->v, keys, o, a->width, 1);
    }
}

void fnn_attention_begin(const fnn_attention *a, ptrdiff_t rows, void *m, void *l, void *o) {
    memset(o, 0, (size_t)(rows * a->width * a->size));
    memset(l, 0, (size_t)(rows * a->size));
    for (ptrdiff_t i = 0; i < rows; i++) {
        if (a->dtype == FNN_FLOAT32) ((float *)m)[i] = -INFINITY;
        else ((double *)m)[i] = -INFINITY;
    }
}

void fnn_attention_end(const fnn_attention_forward_plan *p, fnn_attention_chunk c, const void *o, const void *m, const void *l) {
    const fnn_attention *a = &p->a;
    char *y = fnn_at(fnn_attention_head(a, &p->y, c.head), c.from * p->y.stride[2], a->dtype);
    a->K->attention_finish(c.rows, a->width, o, m, l, y, p->y.stride[2], p->lse + (c.head * a->queries + c.from) * a->size);
}

static void run_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const fnn_attention *a = &p->a;
    const rooms r = rooms_of(p, scratch);
    const ptrdiff_t head = chunk / p->groups, from = chunk % p->groups * p->group,
                    end = fnn_min(from + p->group, a->queries);
    const fnn_attention_chunk c = {head, from, end - from};
    if (a->X && fnn_attention_amx_forward(p, c, scratch)) return;
    fnn_attention_queries(a, head, from, c.rows, r.q);
    fnn_attention_begin(a, c.rows, r.m, r.l, r.o);
    for (ptrdiff_t j = 0; j < a->keys && (!a->causal || j < end); j += a->key_block)
        visit_keys(p, &r, head, from, end, j);
    fnn_attention_end(p, c, r.o, r.m, r.l);
}

/* y: (B, H, L, V); lse: (B, H, L); q: (B, H, L, E); k: (B, H, S, E); v: (B, H, S, V); mask: (B, H, L, S) bool, true
 * where a query may see a key, or real: added to the scores. causal: query i sees keys 0 .. i only. */
static int run(fnn_call *call) {
    plan p = plan_of(call);
    char *at = call->shared;
    p.y = *call->out[0];
    if (!y_is_ready(call)) {
        p.y = dense_result(call);
        p.y.data = fnn_take(&at, fnn_dense_bytes(&p.y));
    }
    p.lse = fnn_stage_c_output(call->out[1], &at);
    fnn_parallel_for(call, p.a.batch * p.a.heads * p.groups, cost(call), run_chunk, &p);
    if (!y_is_ready(call)) fnn_copy_tensor(call->out[0], &p.y);
    fnn_unstage_c_output(call->out[1], p.lse);
    return FNN_OK;
}

static const char *algorithm(const fnn_call *call) {
    const fnn_attention a = fnn_attention_of(call, 0, 3);
    return fnn_attention_algorithm(&a);
}

const fnn_driver fnn_attention_forward = {
    .infer = infer, .workspace = workspace, .cost = cost, .run = run, .algorithm = algorithm};
