/* attention_backward.c: gradients of scaled dot-product attention. Scores and probabilities are computed anew, block
 * by block, from the saved logarithms of the sums.
 *
 * A chunk is a group of keys of one head: it walks its blocks of keys and, for each, all blocks of queries that may
 * see it; dk and dv are its own, dq is a partial sum of its own. A second loop adds the groups' dq in a fixed order.
 * So nothing is shared, and results do not depend on who does what. Heads are split into groups only where they are
 * few. */
#include "attention_amx.h"

#include <string.h>

enum { WANTED_CHUNKS = 16, LEAST_KEYS = 256 /* of a chunk: it reads all queries */ };

typedef fnn_attention_backward_plan plan;

static plan plan_of(const fnn_call *call) {
    plan p = {.a = fnn_attention_of(call, 1, 6),
              .dy = call->in[0],
              .y = call->in[4],
              .dq = call->out[0],
              .dk = call->out[1],
              .dv = call->out[2]};
    const fnn_attention *a = &p.a;
    const ptrdiff_t wanted = fnn_ceil_div(WANTED_CHUNKS, fnn_max(a->batch * a->heads, 1));
    p.groups = fnn_max(fnn_min(wanted, a->keys / LEAST_KEYS), 1);
    p.group = fnn_max(fnn_round_up(fnn_ceil_div(a->keys, p.groups), a->key_block), a->key_block);
    p.groups = fnn_max(fnn_ceil_div(a->keys, p.group), 1);
    p.partial = fnn_round_up(a->queries, FNN_AMX_TILE) * a->depth;
    return p;
}

static ptrdiff_t heads_of(const plan *p) { return p->a.batch * p->a.heads; }

/* Scratch of a chunk: scaled queries, gradients of outputs, delta; of a block: keys and values transposed, keys,
 * their gradients, scores, gradients of scores. */
typedef struct {
    char *q, *dy, *delta, *kt, *vt, *k, *dk, *dv, *s, *ds;
    size_t bytes;
} rooms;

static rooms rooms_of(const plan *p, char *base) {
    const fnn_attention *a = &p->a;
    rooms r = {.bytes = 0};
    r.q = fnn_attention_room(a, base, &r.bytes, a->queries * a->depth);
    r.dy = fnn_attention_room(a, base, &r.bytes, a->queries * a->width);
    r.delta = fnn_attention_room(a, base, &r.bytes, a->queries);
    r.kt = fnn_attention_room(a, base, &r.bytes, fnn_attention_panels_size(a, a->depth, a->key_block));
    r.vt = fnn_attention_room(a, base, &r.bytes, fnn_attention_panels_size(a, a->width, a->key_block));
    r.k = fnn_attention_room(a, base, &r.bytes, fnn_attention_panels_size(a, a->key_block, a->depth));
    r.dk = fnn_attention_room(a, base, &r.bytes, a->key_block * a->depth);
    r.dv = fnn_attention_room(a, base, &r.bytes, a->key_block * a->width);
    r.s = fnn_attention_room(a, base, &r.bytes, a->query_block * fnn_max(a->key_block, a->width));
    r.ds = fnn_attention_room(a, base, &r.bytes, a->query_block * a->key_block);
    return r;
}

static int infer(fnn_call *call) {
    int status = fnn_attention_check(call, 1, 6);
    if (status) return status;
    const fnn_tensor *dy = call->in[0], *q = call->in[1], *k = call->in[2], *v = call->in[3], *y = call->in[4],
                     *lse = call->in[5];
    fnn_tensor want = *q;
    want.shape[3] = v->shape[3];
    if (!fnn_same_shape(dy, &want) || !fnn_same_shape(y, &want))
        return fnn_fail(call, FNN_VALUE_ERROR, "arguments 'dy' %s and 'y' %s must both be %s", fnn_shape_text(dy),
                        fnn_shape_text(y), fnn_shape_text(&want));
    want.rank = 3;
    if (!fnn_same_shape(lse, &want))
        return fnn_fail(call, FNN_VALUE_ERROR, "argument 'lse' has shape %s, but must be %s", fnn_shape_text(lse),
                        fnn_shape_text(&want));
    fnn_attention_layout(call->out[0], q, q->shape[3]);
    fnn_attention_layout(call->out[1], k, k->shape[3]);
    fnn_attention_layout(call->out[2], v, v->shape[3]);
    return FNN_OK;
}

static double cost(const fnn_call *call) {
    fnn_attention a = fnn_attention_of(call, 1, 6);
    double pairs = (double)(a.batch * a.heads * a.queries) * (double)a.keys * (a.causal ? 0.5 : 1);
    return pairs * (2 * (double)(3 * a.depth + 2 * a.width) + 40) / (9 * (double)a.K->lanes);
}

static size_t partial_bytes(const plan *p) {
    return fnn_whole_lines((size_t)(heads_of(p) * p->groups * p->partial * p->a.size));
}

static void workspace(const fnn_call *call, fnn_workspace *ws) {
    plan p = plan_of(call);
    ws->shared = partial_bytes(&p) + fnn_stage_c_bytes(call->in[5]);
    ws->scratch = rooms_of(&p, NULL).bytes;
    if (p.a.X && ws->scratch < fnn_attention_amx_backward_bytes(&p)) ws->scratch = fnn_attention_amx_backward_bytes(&p);
}

/* The chunk's queries from `first` on: scaled, with the gradients of their outputs and delta. */
static void read_queries(const plan *p, const rooms *r, ptrdiff_t head, ptrdiff_t first) {
    const fnn_attention *a = &p->a;
    for (ptrdiff_t i = first; i < a->queries; i += a->query_block) {
        const ptrdiff_t rows = fnn_min(a->query_block, a->queries - i);
        void *dy = fnn_at(r->dy, i * a->width, a->dtype);
        fnn_attention_queries(a, head, i, rows, fnn_at(r->q, i * a->depth, a->dtype));
        fnn_attention_rows(a, p->dy, head, i, rows, dy);
        const fnn_attention_matrix y = fnn_attention_read(a, p->y, head, i, rows, r->s);
        a->K->attention_delta(rows, a->width, dy, a->width, y.data, y.row, fnn_at(r->delta, i, a->dtype));
    }
}

/* One block of queries i .. with one block of keys j ..: five products. */
static void visit(const plan *p, const rooms *r, ptrdiff_t head, ptrdiff_t i, ptrdiff_t j, ptrdiff_t keys, char *dq) {
    const fnn_attention *a = &p->a;
    const ptrdiff_t rows = fnn_min(a->query_block, a->queries - i),
                    cols = a->causal ? fnn_min(keys, i + rows - j) : keys;
    const ptrdiff_t E = a->depth, V = a->width, wide = a->key_block;
    const void *q = fnn_at(r->q, i * E, a->dtype), *dy = fnn_at(r->dy, i * V, a->dtype);
    if (cols <= 0) return;
    fnn_attention_product(a, rows, cols, E, q, E, 1, r->kt, E, r->s, wide, 0);
    fnn_attention_restrict(a, head, i, rows, j, cols, r->s, wide);
    fnn_attention_product(a, rows, cols, V, dy, V, 1, r->vt, V, r->ds, wide, 0);
    a->K->attention_gradient(rows, cols, r->s, r->ds, wide, fnn_at(p->lse, head * a->queries + i, a->dtype),
                             fnn_at(r->delta, i, a->dtype));
    a->K->gemm_tile(cols, V, 1, rows, r->s, NULL, 1, wide, dy, NULL, V, r->dv, V, 1);
    a->K->gemm_tile(cols, E, 1, rows, r->ds, NULL, 1, wide, q, NULL, E, r->dk, E, 1);
    fnn_attention_product(a, rows, E, cols, r->ds, wide, 1, r->k, keys, fnn_at(dq, i * E, a->dtype), E, 1);
}

void fnn_attention_write(const fnn_attention *a, const fnn_tensor *t, ptrdiff_t head, ptrdiff_t from, ptrdiff_t rows,
                         const void *dense) {
    const ptrdiff_t n = t->shape[3];
    a->K->conv_scatter(rows, n, dense, n, fnn_at(fnn_attention_head(a, t, head), from * t->stride[2], a->dtype),
                       t->stride[2], t->stride[3]);
}

static void run_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const fnn_attention *a = &p->a;
    const rooms r = rooms_of(p, scratch);
    const ptrdiff_t head = chunk / p->groups, from = chunk % p->groups * p->group,
                    end = fnn_min(from + p->group, a->keys);
    const ptrdiff_t first = a->causal ? from / a->query_block * a->query_block : 0;
    char *dq = fnn_at(p->partials, chunk * p->partial, a->dtype);
    if (a->X && fnn_attention_amx_backward(p, head, from, end, (float *)dq, scratch)) return;
    memset(dq, 0, (size_t)(p->partial * a->size));
    read_queries(p, &r, head, first);
    for (ptrdiff_t j = from; j < end; j += a->key_block) {
        const ptrdiff_t keys = fnn_min(a->key_block, end - j);
        fnn_attention_panels(a, a->k, head, j, keys, 1, r.kt);
        fnn_attention_panels(a, a->v, head, j, keys, 1, r.vt);
        fnn_attention_panels(a, a->k, head, j, keys, 0, r.k);
        memset(r.dk, 0, (size_t)(keys * a->depth * a->size));
        memset(r.dv, 0, (size_t)(keys * a->width * a->size));
        for (ptrdiff_t i = a->causal ? j / a->query_block * a->query_block : 0; i < a->queries; i += a->query_block)
            visit(p, &r, head, i, j, keys, dq);
        fnn_attention_write(a, p->dk, head, j, keys, r.dk);
        fnn_attention_write(a, p->dv, head, j, keys, r.dv);
    }
}

/* dq of one head: the sum over its groups, scaled as its queries were. */
static void run_sum(void *context, ptrdiff_t head, void *scratch) {
    const plan *p = context;
    const fnn_attention *a = &p->a;
    const ptrdiff_t n = p->partial;
    char *sum = fnn_at(p->partials, head * p->groups * n, a->dtype);
    (void)scratch;
    for (ptrdiff_t g = 1; g < p->groups; g++) {
        void *out[] = {sum};
        const void *in[] = {sum, fnn_at(sum, g * n, a->dtype)};
        static const ptrdiff_t steps[] = {1, 1};
        a->K->add(n, out, in, steps, NULL);
    }
    a->K->attention_scale(1, n, a->scale, sum, n, sum);
    fnn_attention_write(a, p->dq, head, 0, a->queries, sum);
}

/* dq: (B, H, L, E); dk: (B, H, S, E); dv: (B, H, S, V); dy, y: (B, H, L, V); lse: (B, H, L); the rest as in
 * attention_forward. */
static int run(fnn_call *call) {
    plan p = plan_of(call);
    char *at = call->shared;
    p.partials = fnn_take(&at, partial_bytes(&p));
    p.lse = fnn_stage_c_input(call->in[5], &at);
    fnn_parallel_for(call, heads_of(&p) * p.groups, cost(call), run_chunk, &p);
    fnn_parallel_for(call, heads_of(&p), (double)(heads_of(&p) * p.groups * p.a.queries * p.a.depth) * 0.2, run_sum,
                     &p);
    return FNN_OK;
}

static const char *algorithm(const fnn_call *call) {
    const fnn_attention a = fnn_attention_of(call, 1, 6);
    return fnn_attention_algorithm(&a);
}

const fnn_driver fnn_attention_backward = {
    .infer = infer, .workspace = workspace, .cost = cost, .run = run, .algorithm = algorithm};
