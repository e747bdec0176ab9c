/* recurrent.c: recurrent layers (RNN, LSTM, GRU), forward and backward: a whole batch of sequences in one call, the
 * loop over time inside. What the input contributes to the gates is one matrix product over all steps, made before.
 *
 * Sequences are independent: a chunk is a block of them and walks its steps alone, without waiting for others; the
 * hidden state's weight is packed once for all. Backward likewise; the weights' gradients are products over all
 * steps, made after. Fewer than 8 sequences make one chunk. */
#include "stage.h"

#include <string.h>

enum {
    FEW_ROWS = 4,
    ROWS = 16,
    MOST_ROWS = 56,
    WANTED_CHUNKS = 16,
    PACK_PANELS = 4,
    DEPTH = 256 /* of the weight at a time: a panel stays in the first-level cache while rows pass by, or two near it */
};

/* A (T, N, width) tensor with unit stride along its last axis; in elements. */
typedef struct {
    char *data;
    ptrdiff_t time, row;
} sequence;

typedef struct {
    const fnn_kernels *K;
    int dtype, mode, reverse;
    ptrdiff_t size;                    /* of an element */
    ptrdiff_t steps, batch, units, gates; /* T, N, H, number of gates */
    ptrdiff_t rows, chunks;            /* sequences of a chunk */
    const fnn_tensor *weight;
    const int64_t *lengths;
    const char *bias;
    char *packed;
    sequence x, y, saved, before, extra; /* saved: activated gates */
    sequence dy, dx, dhidden;
    char *h, *c;                       /* (N, H) last state, or gradients of the first one */
    const char *h0, *c0;               /* first state, or gradients of the last one; NULL: 0 */
} plan;

static ptrdiff_t gates_of(int64_t mode) { return mode == FNN_LSTM ? 4 : mode == FNN_GRU ? 3 : 1; }

static plan plan_of(const fnn_call *call, const fnn_tensor *gates, const fnn_tensor *weight) {
    plan p = {.K = fnn_kernels_of(weight->dtype),
              .dtype = weight->dtype,
              .size = (ptrdiff_t)fnn_itemsize(weight->dtype),
              .mode = (int)call->attr.i[0],
              .reverse = call->attr.i[1] != 0,
              .steps = gates->shape[0],
              .batch = gates->shape[1],
              .units = weight->shape[1],
              .weight = weight};
    p.gates = gates_of(p.mode);
    const ptrdiff_t least = fnn_min(fnn_max(p.batch / 2, FEW_ROWS), ROWS); /* small batches make two chunks */
    p.rows = fnn_min(fnn_max(fnn_ceil_div(p.batch, WANTED_CHUNKS), least), MOST_ROWS);
    p.rows = fnn_max(fnn_even_share(p.batch, p.rows), 1);
    p.chunks = fnn_ceil_div(p.batch, p.rows);
    return p;
}

/* ---- arguments ---- */

static int check_mode(fnn_call *call) {
    int64_t mode = call->attr.i[0];
    if (mode >= FNN_RNN_TANH && mode <= FNN_GRU) return FNN_OK;
    return fnn_fail(call, FNN_VALUE_ERROR,
                    "attribute 'mode' is %lld, but must be 0 (tanh), 1 (relu), 2 (LSTM) or 3 (GRU)", (long long)mode);
}

/* t, if given, must be of this shape (rank 3, 2, or 1 with the first extents left out). */
static int check_shape(fnn_call *call, const char *name, const fnn_tensor *t, int rank, const ptrdiff_t *shape) {
    if (!t) return FNN_OK;
    fnn_tensor want = {.rank = rank};
    for (int d = 0; d < rank; d++) want.shape[d] = shape[d];
    if (fnn_same_shape(t, &want)) return FNN_OK;
    return fnn_fail(call, FNN_VALUE_ERROR, "argument '%s' has shape %s, but must be %s", name, fnn_shape_text(t),
                    fnn_shape_text(&want));
}

/* gates: (T, N, gates H); weight: (gates H, H). */
static int check_sizes(fnn_call *call, const char *name, const fnn_tensor *gates, const fnn_tensor *weight) {
    int status = check_mode(call);
    if (status) return status;
    const ptrdiff_t count = gates_of(call->attr.i[0]);
    if (weight->rank != 2 || weight->shape[0] != count * weight->shape[1])
        return fnn_fail(call, FNN_VALUE_ERROR, "argument 'weight' has shape %s, but must be (%td H, H)",
                        fnn_shape_text(weight), count);
    if (gates->rank != 3 || gates->shape[2] != weight->shape[0])
        return fnn_fail(call, FNN_VALUE_ERROR,
                        "argument '%s' has shape %s, but must be (steps, batch, %td) for weight %s", name,
                        fnn_shape_text(gates), weight->shape[0], fnn_shape_text(weight));
    return FNN_OK;
}

/* (T, N, width), stored by sequences if the call says so, by steps otherwise. */
static void set_sequence(const fnn_call *call, fnn_tensor *t, const fnn_tensor *like, ptrdiff_t width) {
    fnn_set_shape_contiguous(t, like->dtype, 3, (ptrdiff_t[]){like->shape[0], like->shape[1], width});
    if (!call->attr.i[2]) return;
    t->stride[0] = fnn_max(width, 1);
    t->stride[1] = t->stride[0] * fnn_max(t->shape[0], 1);
}

static int check_lengths(fnn_call *call, const plan *p) {
    for (ptrdiff_t n = 0; p->lengths && n < p->batch; n++)
        if (p->lengths[n] < 0 || p->lengths[n] > p->steps)
            return fnn_fail(call, FNN_INDEX_ERROR, "lengths[%td] is %lld, but must be 0 to %td, the number of steps", n,
                            (long long)p->lengths[n], p->steps);
    return FNN_OK;
}

/* ---- memory: what is not laid out as wanted passes through the workspace ---- */

static int is_sequence(const fnn_tensor *t) { return t->stride[2] == 1 || t->shape[2] <= 1; }

static sequence sequence_of(const fnn_tensor *t) { return (sequence){t->data, t->stride[0], t->stride[1]}; }

static sequence read_sequence(const fnn_tensor *t, char **at) {
    if (!t || is_sequence(t)) return t ? sequence_of(t) : (sequence){.data = NULL};
    fnn_tensor dense = fnn_dense_at(t, at);
    fnn_copy_tensor(&dense, t);
    return sequence_of(&dense);
}

static sequence place_sequence(const fnn_tensor *t, char **at) {
    if (is_sequence(t)) return sequence_of(t);
    fnn_tensor dense = fnn_dense_at(t, at);
    return sequence_of(&dense);
}

static void finish_sequence(fnn_tensor *t, const sequence *made) {
    if (is_sequence(t)) return;
    char *at = made->data;
    fnn_tensor dense = fnn_dense_at(t, &at);
    fnn_copy_tensor(t, &dense);
}

static size_t staged_bytes(const fnn_call *call) {
    size_t bytes = 0;
    for (int k = 0; k < FNN_MAX_ARGS; k++)
        for (int side = 0; side < 2; side++) {
            const fnn_tensor *t = side ? call->out[k] : call->in[k];
            if (t && t->rank && !fnn_is_contiguous(t) && (t->rank < 3 || !is_sequence(t))) bytes += fnn_dense_bytes(t);
        }
    return bytes;
}

/* ---- the weight, in panels for gemm's tile ---- */

/* Forward: its transpose, (H, gates H); backward: itself, (gates H, H). */
static void weight_shape(const plan *p, int transposed, ptrdiff_t *depth, ptrdiff_t *cols) {
    *depth = transposed ? p->units : p->gates * p->units;
    *cols = transposed ? p->gates * p->units : p->units;
}

static size_t packed_bytes(const plan *p, int transposed) {
    ptrdiff_t depth, cols;
    weight_shape(p, transposed, &depth, &cols);
    return fnn_whole_lines((size_t)(depth * fnn_round_up(cols, p->K->tile_cols) * p->size));
}

static void pack(const plan *p, int transposed, ptrdiff_t chunk) {
    ptrdiff_t depth, cols;
    weight_shape(p, transposed, &depth, &cols);
    const ptrdiff_t wide = p->K->tile_cols, from = chunk * PACK_PANELS * wide,
                    n = fnn_min(PACK_PANELS * wide, cols - from);
    const ptrdiff_t row = p->weight->stride[transposed ? 1 : 0], col = p->weight->stride[transposed ? 0 : 1];
    p->K->gemm_pack(depth, n, fnn_at(p->weight->data, from * col, p->dtype), row, col,
                    p->packed + from * depth * p->size, wide, depth * wide);
}

static void pack_transposed(void *context, ptrdiff_t chunk, void *scratch) { (void)scratch, pack(context, 1, chunk); }
static void pack_plain(void *context, ptrdiff_t chunk, void *scratch) { (void)scratch, pack(context, 0, chunk); }

static void pack_weight(const fnn_call *call, plan *p, int transposed) {
    ptrdiff_t depth, cols;
    weight_shape(p, transposed, &depth, &cols);
    fnn_parallel_for(call, fnn_ceil_div(cols, PACK_PANELS * p->K->tile_cols), 0.5 * (double)(depth * cols),
                     transposed ? pack_transposed : pack_plain, p);
}

/* Elements between rows of a chunk's scratch: an odd number of lines, which spreads them over the sets of a cache. */
static ptrdiff_t scratch_row(const plan *p, ptrdiff_t width) {
    const ptrdiff_t line = 64 / p->size;
    return (fnn_ceil_div(width, line) | 1) * line;
}

/* c (rows, cols) = or += a (rows, depth) times the packed weight, both in scratch. */
static void multiply(const plan *p, int transposed, ptrdiff_t rows, const char *a, char *c, int accumulate) {
    const ptrdiff_t wide = p->K->tile_cols, a_row = scratch_row(p, transposed ? p->units : p->gates * p->units);
    const ptrdiff_t c_row = scratch_row(p, transposed ? p->gates * p->units : p->units);
    ptrdiff_t depth, cols;
    weight_shape(p, transposed, &depth, &cols);
    for (ptrdiff_t k = 0; k < depth; k += DEPTH)
        p->K->gemm_panels(rows, cols, 1, fnn_min(DEPTH, depth - k), a + k * p->size, NULL, a_row, 1, p->packed + k * wide * p->size,
                          NULL, wide, depth * wide, c, c_row, accumulate || k > 0, NULL);
}

/* A multiply-add of the tile takes 1 / (4.5 lanes) ns; a gate's element some 2 ns on AVX2's eight lanes. */
static double cost_of(const plan *p) {
    double rows = (double)p->steps * (double)p->batch, wide = (double)(p->gates * p->units);
    return rows * wide * ((double)p->units / 4.5 + 16) / (double)p->K->lanes;
}

/* ---- forward ---- */

/* The time at which sequence n takes its step s, or -1 behind its end. */
static ptrdiff_t time_of(const plan *p, ptrdiff_t n, ptrdiff_t s) {
    const ptrdiff_t length = p->lengths ? (ptrdiff_t)p->lengths[n] : p->steps;
    if (s >= length) return -1;
    return p->reverse ? length - 1 - s : s;
}

static char *at(const plan *p, const sequence *q, ptrdiff_t t, ptrdiff_t n) {
    return q->data + (t * q->time + n * q->row) * p->size;
}

/* What of q the call behind sequence n's at step s reads, in a chunk of `rows` from `first` on: of the next sequence, or of the
 * first one at step s + way. Behind the last step, or where that sequence has ended, something else: it is only asked for. */
static const char *next_at(const plan *p, const sequence *q, ptrdiff_t first, ptrdiff_t rows, ptrdiff_t n, ptrdiff_t s, int way) {
    const int ends = n + 1 == first + rows;
    const ptrdiff_t next = ends ? first : n + 1, step = ends ? s + way : s, t = step < 0 ? -1 : time_of(p, next, step);
    return at(p, q, t < 0 ? 0 : t, next);
}

static void clear(const plan *p, const sequence *q, ptrdiff_t t, ptrdiff_t n, ptrdiff_t width) {
    if (q->data) memset(at(p, q, t, n), 0, (size_t)(width * p->size));
}

/* in: x, h0, c0, weight, bias, lengths; out: y, h, c, gates, before, extra */
static int forward_infer(fnn_call *call) {
    const fnn_tensor *x = call->in[0], *weight = call->in[3];
    int status = check_sizes(call, "x", x, weight);
    if (status) return status;
    const ptrdiff_t N = x->shape[1], H = weight->shape[1], lstm = call->attr.i[0] == FNN_LSTM;
    status = check_shape(call, "h0", call->in[1], 2, (ptrdiff_t[]){N, H});
    if (!status) status = check_shape(call, "c0", call->in[2], 2, (ptrdiff_t[]){N, H});
    if (!status) status = check_shape(call, "bias", call->in[4], 1, weight->shape);
    if (!status) status = check_shape(call, "lengths", call->in[5], 1, &x->shape[1]);
    if (status) return status;
    set_sequence(call, call->out[0], x, H);
    fnn_set_shape_contiguous(call->out[1], x->dtype, 2, (ptrdiff_t[]){N, H});
    fnn_set_shape_contiguous(call->out[2], x->dtype, 2, (ptrdiff_t[]){lstm ? N : 0, H});
    set_sequence(call, call->out[3], x, weight->shape[0]);
    set_sequence(call, call->out[4], x, H);
    fnn_tensor like = *x;
    if (call->attr.i[0] < FNN_LSTM) like.shape[0] = 0;
    set_sequence(call, call->out[5], &like, H);
    return FNN_OK;
}

static double forward_cost(const fnn_call *call) {
    plan p = plan_of(call, call->in[0], call->in[3]);
    return cost_of(&p);
}

static size_t scratch_bytes(const plan *p) {
    if (p->units == 0) return 0;
    return (size_t)(p->rows * (scratch_row(p, p->gates * p->units) + 2 * scratch_row(p, p->units)) * p->size);
}

static void forward_workspace(const fnn_call *call, fnn_workspace *ws) {
    plan p = plan_of(call, call->in[0], call->in[3]);
    ws->shared = staged_bytes(call) + packed_bytes(&p, 1);
    ws->scratch = scratch_bytes(&p);
}

/* A chunk's state: two arrays (rows, units), with what a call gives to begin with, or 0. */
static void start_state(const plan *p, ptrdiff_t first, ptrdiff_t rows, char *h, char *c) {
    const ptrdiff_t unit = p->units * p->size, row = scratch_row(p, p->units) * p->size;
    for (ptrdiff_t r = 0; r < rows; r++) {
        if (p->h0) memcpy(h + r * row, p->h0 + (first + r) * unit, (size_t)unit);
        else memset(h + r * row, 0, (size_t)unit);
        if (p->c0) memcpy(c + r * row, p->c0 + (first + r) * unit, (size_t)unit);
        else memset(c + r * row, 0, (size_t)unit);
    }
}

static void finish_state(const plan *p, ptrdiff_t first, ptrdiff_t rows, const char *h, const char *c) {
    const ptrdiff_t unit = p->units * p->size, row = scratch_row(p, p->units) * p->size;
    for (ptrdiff_t r = 0; r < rows; r++) {
        memcpy(p->h + (first + r) * unit, h + r * row, (size_t)unit);
        if (p->c) memcpy(p->c + (first + r) * unit, c + r * row, (size_t)unit);
    }
}

static void run_sequences(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const ptrdiff_t first = chunk * p->rows, rows = fnn_min(p->rows, p->batch - first);
    const ptrdiff_t wide = scratch_row(p, p->gates * p->units) * p->size, unit = scratch_row(p, p->units) * p->size;
    char *pre = scratch, *h = pre + p->rows * wide, *c = h + p->rows * unit;
    if (p->units == 0) return; /* everything is empty, scratch too */
    start_state(p, first, rows, h, c);
    for (ptrdiff_t s = 0; s < p->steps; s++) {
        multiply(p, 1, rows, h, pre, 0);
        for (ptrdiff_t r = 0; r < rows; r++) {
            const ptrdiff_t n = first + r, t = time_of(p, n, s);
            if (t < 0) { /* what step s is for the others lies behind the end for this one */
                clear(p, &p->y, s, n, p->units), clear(p, &p->saved, s, n, p->gates * p->units);
                clear(p, &p->before, s, n, p->units), clear(p, &p->extra, s, n, p->units);
                continue;
            }
            p->K->recurrent_step(p->mode, p->units, pre + r * wide, at(p, &p->x, t, n), next_at(p, &p->x, first, rows, n, s, 1),
                                 p->bias, h + r * unit, c + r * unit, at(p, &p->saved, t, n), at(p, &p->before, t, n),
                                 p->extra.data ? at(p, &p->extra, t, n) : NULL, at(p, &p->y, t, n));
        }
    }
    finish_state(p, first, rows, h, c);
}

/* y: (T, N, H); h, c: (N, H) after the last step; gates: (T, N, gates H), activated; before: (T, N, H), the hidden
 * state before each step; extra: (T, N, H), the cell before each step (LSTM) or the hidden state's share of n (GRU),
 * else empty; x: (T, N, gates H), the input's share with its bias; h0, c0: (N, H) or NULL; weight: (gates H, H);
 * bias: (gates H); lengths: (N), of each sequence. */
static int forward_run(fnn_call *call) {
    plan p = plan_of(call, call->in[0], call->in[3]);
    char *room = call->shared;
    p.packed = room;
    room += packed_bytes(&p, 1);
    p.lengths = fnn_stage_c_input(call->in[5], &room);
    int status = check_lengths(call, &p);
    if (status) return status;
    p.x = read_sequence(call->in[0], &room);
    p.h0 = fnn_stage_c_input(call->in[1], &room), p.c0 = fnn_stage_c_input(call->in[2], &room),
    p.bias = fnn_stage_c_input(call->in[4], &room);
    p.y = place_sequence(call->out[0], &room), p.saved = place_sequence(call->out[3], &room);
    p.before = place_sequence(call->out[4], &room);
    if (p.mode >= FNN_LSTM) p.extra = place_sequence(call->out[5], &room);
    p.h = fnn_stage_c_output(call->out[1], &room);
    if (p.mode == FNN_LSTM) p.c = fnn_stage_c_output(call->out[2], &room);
    pack_weight(call, &p, 1);
    fnn_parallel_for(call, p.chunks, cost_of(&p), run_sequences, &p);
    finish_sequence(call->out[0], &p.y);
    fnn_unstage_c_output(call->out[1], p.h);
    if (p.c) fnn_unstage_c_output(call->out[2], p.c);
    finish_sequence(call->out[3], &p.saved);
    finish_sequence(call->out[4], &p.before);
    if (p.extra.data) finish_sequence(call->out[5], &p.extra);
    return FNN_OK;
}

const fnn_driver fnn_recurrent_forward = {
    .infer = forward_infer, .workspace = forward_workspace, .cost = forward_cost, .run = forward_run};

/* ---- backward ---- */

/* in: gates, before, extra, weight, dy, dh, dc, lengths; out: dx, dhidden, dh0, dc0 */
static int backward_infer(fnn_call *call) {
    const fnn_tensor *gates = call->in[0], *weight = call->in[3];
    int status = check_sizes(call, "gates", gates, weight);
    if (status) return status;
    const int64_t mode = call->attr.i[0];
    const ptrdiff_t T = gates->shape[0], N = gates->shape[1], H = weight->shape[1];
    const ptrdiff_t states[] = {T, N, H}, empty[] = {0, N, H};
    status = check_shape(call, "before", call->in[1], 3, states);
    if (!status) status = check_shape(call, "extra", call->in[2], 3, mode < FNN_LSTM ? empty : states);
    if (!status) status = check_shape(call, "dy", call->in[4], 3, states);
    if (!status) status = check_shape(call, "dh", call->in[5], 2, states + 1);
    if (!status) status = check_shape(call, "dc", call->in[6], 2, states + 1);
    if (!status) status = check_shape(call, "lengths", call->in[7], 1, &N);
    if (status) return status;
    fnn_tensor like = *gates;
    set_sequence(call, call->out[0], gates, weight->shape[0]);
    if (mode != FNN_GRU) like.shape[0] = 0;
    set_sequence(call, call->out[1], &like, weight->shape[0]);
    fnn_set_shape_contiguous(call->out[2], gates->dtype, 2, states + 1);
    fnn_set_shape_contiguous(call->out[3], gates->dtype, 2, (ptrdiff_t[]){mode == FNN_LSTM ? N : 0, H});
    return FNN_OK;
}

static double backward_cost(const fnn_call *call) {
    plan p = plan_of(call, call->in[0], call->in[3]);
    return cost_of(&p);
}

static void backward_workspace(const fnn_call *call, fnn_workspace *ws) {
    plan p = plan_of(call, call->in[0], call->in[3]);
    ws->shared = staged_bytes(call) + packed_bytes(&p, 0);
    ws->scratch = scratch_bytes(&p);
}

static void run_back(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const ptrdiff_t first = chunk * p->rows, rows = fnn_min(p->rows, p->batch - first), width = p->gates * p->units;
    const ptrdiff_t wide = scratch_row(p, width) * p->size, unit = scratch_row(p, p->units) * p->size;
    char *block = scratch, *dh = block + p->rows * wide, *dc = dh + p->rows * unit;
    if (p->units == 0) return; /* everything is empty, scratch too */
    start_state(p, first, rows, dh, dc);
    for (ptrdiff_t s = p->steps - 1; s >= 0; s--) {
        for (ptrdiff_t r = 0; r < rows; r++) {
            const ptrdiff_t n = first + r, t = time_of(p, n, s);
            if (t < 0) {
                clear(p, &p->dx, s, n, width), clear(p, &p->dhidden, s, n, width);
                memset(block + r * wide, 0, (size_t)(width * p->size));
                continue;
            }
            p->K->recurrent_step_backward(p->mode, p->units, at(p, &p->saved, t, n), next_at(p, &p->saved, first, rows, n, s, -1),
                                          at(p, &p->before, t, n), p->extra.data ? at(p, &p->extra, t, n) : NULL,
                                          p->dy.data ? at(p, &p->dy, t, n) : NULL, dh + r * unit, dc + r * unit,
                                          at(p, &p->dx, t, n), block + r * wide);
            if (p->mode == FNN_GRU) memcpy(at(p, &p->dhidden, t, n), block + r * wide, (size_t)(width * p->size));
        }
        multiply(p, 0, rows, block, dh, 1);
    }
    finish_state(p, first, rows, dh, dc);
}

/* dx: (T, N, gates H), of the input's share; dhidden: (T, N, gates H), of the hidden state's share, which is dx but
 * for GRU, then empty; dh0, dc0: (N, H); dy: (T, N, H), dh, dc: (N, H) or NULL; the rest as forward made it. */
static int backward_run(fnn_call *call) {
    plan p = plan_of(call, call->in[0], call->in[3]);
    char *room = call->shared;
    p.packed = room;
    room += packed_bytes(&p, 0);
    p.lengths = fnn_stage_c_input(call->in[7], &room);
    int status = check_lengths(call, &p);
    if (status) return status;
    p.saved = read_sequence(call->in[0], &room), p.before = read_sequence(call->in[1], &room);
    if (p.mode >= FNN_LSTM) p.extra = read_sequence(call->in[2], &room);
    p.dy = read_sequence(call->in[4], &room);
    p.h0 = fnn_stage_c_input(call->in[5], &room), p.c0 = fnn_stage_c_input(call->in[6], &room);
    p.dx = place_sequence(call->out[0], &room);
    if (p.mode == FNN_GRU) p.dhidden = place_sequence(call->out[1], &room);
    p.h = fnn_stage_c_output(call->out[2], &room);
    if (p.mode == FNN_LSTM) p.c = fnn_stage_c_output(call->out[3], &room);
    pack_weight(call, &p, 0);
    fnn_parallel_for(call, p.chunks, cost_of(&p), run_back, &p);
    finish_sequence(call->out[0], &p.dx);
    if (p.dhidden.data) finish_sequence(call->out[1], &p.dhidden);
    fnn_unstage_c_output(call->out[2], p.h);
    if (p.c) fnn_unstage_c_output(call->out[3], p.c);
    return FNN_OK;
}

const fnn_driver fnn_recurrent_backward = {
    .infer = backward_infer, .workspace = backward_workspace, .cost = backward_cost, .run = backward_run};
