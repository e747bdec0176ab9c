/* embedding_bag.c: sums, means or greatest elements of bags of rows of a table, without the rows themselves as a tensor between.
 *
 * Bags are stretches of one axis of indices, told by where each begins, or the rows of (B, L) indices. Indices and offsets are
 * read into shared memory and checked before anything is written. Forward, a chunk is some bags. Backward, a chunk owns a range
 * of the table's rows (of its columns, for greatest elements), which nobody else writes, and meets the indices in order: sums do
 * not depend on the number of threads. */
#include "order.h"
#include "stage.h"

enum { BAG_SUM, BAG_MEAN, BAG_MAX };
enum {
    CHUNK = 16384, /* elements of rows that a chunk reads, about */
    PIECE = 1024,  /* columns of a range of rows that a chunk owns */
    OWNERS = 16,   /* ranges of rows */
    COLUMNS = 16   /* columns that a chunk owns: at least a cache line */
};

typedef struct {
    const fnn_kernels *K;
    int dtype, mode;
    ptrdiff_t rows, d, count, bags; /* of the table; indices */
    int64_t *index, *bag;           /* (count): -1 for the padding; which bag, backward only */
    int64_t *start, *kept;          /* (bags + 1): where each begins; (bags): its indices without padding, at least 1 */
    int64_t *frequency;             /* (rows), where asked for */
    char *weight, *scale;           /* (count) */
    const char *table, *dy;
    char *y;
    int64_t *argmax;
    ptrdiff_t piece, pieces;
} plan;

/* ---- arguments ---- */

static ptrdiff_t bags_of(const fnn_tensor *index, const fnn_tensor *offsets, int include_last) {
    return offsets ? offsets->shape[0] - include_last : index->shape[0];
}

static int check(fnn_call *call, const fnn_tensor *index, const fnn_tensor *offsets, const fnn_tensor *weight, int include_last) {
    if (offsets ? index->rank != 1 : index->rank != 2)
        return fnn_fail(call, FNN_VALUE_ERROR, "index has shape %s, but must be (B, L) without offsets, (L,) with them",
                        fnn_shape_text(index));
    if (offsets && (offsets->rank != 1 || offsets->shape[0] < include_last))
        return fnn_fail(call, FNN_VALUE_ERROR, "offsets has shape %s, but must be %s", fnn_shape_text(offsets),
                        include_last ? "(B + 1,)" : "(B,)");
    if (weight && !fnn_same_shape(weight, index))
        return fnn_fail(call, FNN_VALUE_ERROR, "per_sample_weights has shape %s, but must have that of index, %s",
                        fnn_shape_text(weight), fnn_shape_text(index));
    return FNN_OK;
}

static int check_mode(fnn_call *call, int64_t mode, const fnn_tensor *weight) {
    if (mode < BAG_SUM || mode > BAG_MAX)
        return fnn_fail(call, FNN_VALUE_ERROR, "mode is %lld, but must be 0 (sum), 1 (mean) or 2 (max)", (long long)mode);
    if (weight && mode != BAG_SUM)
        return fnn_fail(call, FNN_VALUE_ERROR, "per_sample_weights go with mode 'sum' alone");
    return FNN_OK;
}

static int check_gradient(fnn_call *call, const fnn_tensor *dy, ptrdiff_t bags) {
    if (dy->rank == 2 && dy->shape[0] == bags) return FNN_OK;
    return fnn_fail(call, FNN_VALUE_ERROR, "dy has shape %s, but must be (%td, D): a row for each bag", fnn_shape_text(dy), bags);
}

static void *gathered(const fnn_tensor *t, char **at) {
    const fnn_order order = fnn_order_of(t);
    const size_t size = fnn_itemsize(t->dtype);
    void *to = fnn_take(at, (size_t)order.size * size);
    fnn_order_gather(&order, t->data, size, 0, order.size, to);
    return to;
}

/* Bytes of what read_bags takes. */
static size_t bags_bytes(const fnn_tensor *index, ptrdiff_t bags) {
    const size_t count = fnn_whole_lines((size_t)fnn_numel(index) * sizeof(int64_t));
    return 2 * count + 2 * fnn_whole_lines(((size_t)bags + 1) * sizeof(int64_t));
}

static int read_offsets(fnn_call *call, plan *p, const fnn_tensor *offsets) {
    const ptrdiff_t length = p->count / fnn_max(p->bags, 1);
    for (ptrdiff_t b = 0; b < p->bags; b++) {
        p->start[b] = offsets ? ((const int64_t *)offsets->data)[b * offsets->stride[0]] : b * length;
        const int64_t least = b ? p->start[b - 1] : 0, most = b ? p->count : 0;
        if (p->start[b] < least || p->start[b] > most)
            return fnn_fail(call, FNN_VALUE_ERROR, "offsets[%td] is %lld, but must lie between %lld and %lld", b,
                            (long long)p->start[b], (long long)least, (long long)most);
    }
    if (p->bags == 0 && p->count)
        return fnn_fail(call, FNN_VALUE_ERROR, "offsets names no bag, but index has %td elements", p->count);
    p->start[p->bags] = p->count;
    return FNN_OK;
}

/* Indices and offsets, checked; with a last offset, it is the number of indices. */
static int read_bags(fnn_call *call, plan *p, const fnn_tensor *index, const fnn_tensor *offsets, int include_last,
                     int64_t padding, char **at) {
    p->count = fnn_numel(index);
    p->bags = bags_of(index, offsets, include_last);
    p->index = gathered(index, at);
    p->bag = fnn_take(at, (size_t)p->count * sizeof(int64_t));
    p->start = fnn_take(at, ((size_t)p->bags + 1) * sizeof(int64_t));
    p->kept = fnn_take(at, ((size_t)p->bags + 1) * sizeof(int64_t));
    int status = read_offsets(call, p, offsets);
    if (status) return status;
    if (offsets && include_last) {
        const int64_t last = ((const int64_t *)offsets->data)[p->bags * offsets->stride[0]];
        if (last != p->count)
            return fnn_fail(call, FNN_VALUE_ERROR, "the last of offsets is %lld, but index has %td elements", (long long)last,
                            p->count);
    }
    for (ptrdiff_t b = 0; b < p->bags; b++) {
        p->kept[b] = 0;
        for (int64_t j = p->start[b]; j < p->start[b + 1]; j++) {
            const int64_t i = p->index[j];
            if (i < -p->rows || i >= p->rows)
                return fnn_fail(call, FNN_INDEX_ERROR, "element %lld of index is %lld, but must lie between %td and %td",
                                (long long)j, (long long)i, -p->rows, p->rows - 1);
            p->index[j] = i < 0 ? i + p->rows : i;
            if (p->index[j] == padding) p->index[j] = -1;
            p->kept[b] += p->index[j] >= 0;
            p->bag[j] = b;
        }
        p->kept[b] = fnn_max(p->kept[b], 1);
    }
    return FNN_OK;
}

/* ---- forward ---- */

/* attributes: mode, include_last, padding (-1: none) */
static int forward_infer(fnn_call *call) {
    const fnn_tensor *table = call->in[0], *index = call->in[1], *offsets = call->in[2], *weight = call->in[3];
    const int include_last = call->attr.i[1] != 0;
    if (table->rank != 2)
        return fnn_fail(call, FNN_VALUE_ERROR, "weight has shape %s, but must be (V, D)", fnn_shape_text(table));
    int status = check(call, index, offsets, weight, include_last);
    if (!status) status = check_mode(call, call->attr.i[0], weight);
    if (status) return status;
    const ptrdiff_t shape[2] = {bags_of(index, offsets, include_last), table->shape[1]}, none = 0;
    fnn_set_shape(call->out[0], table->dtype, 2, shape);
    if (call->attr.i[0] == BAG_MAX) fnn_set_shape(call->out[1], FNN_INT64, 2, shape);
    else fnn_set_shape(call->out[1], FNN_INT64, 1, &none);
    return FNN_OK;
}

static void forward_workspace(const fnn_call *call, fnn_workspace *ws) {
    const fnn_tensor *weight = call->in[3];
    ws->shared = bags_bytes(call->in[1], call->out[0]->shape[0]) + fnn_stage_bytes(call->in[0]) + fnn_stage_bytes(call->out[0]) +
                 fnn_stage_bytes(call->out[1]);
    if (weight) ws->shared += fnn_dense_bytes(weight);
}

/* What is picked counts, not what it is picked from. */
static double forward_cost(const fnn_call *call) {
    const fnn_tensor *table = call->in[0];
    const double count = (double)fnn_numel(call->in[1]), size = (double)fnn_itemsize(table->dtype);
    return count * (double)table->shape[1] * (call->attr.i[0] == BAG_MAX ? 1 : 0.06 * size) + 2 * count;
}

/* Bags a chunk, by the mean number of indices. */
static ptrdiff_t bags_a_chunk(const plan *p) {
    return fnn_max(CHUNK / fnn_max(p->count / fnn_max(p->bags, 1) * p->d, 1), 1);
}

static void run_forward(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    (void)scratch;
    for (ptrdiff_t b = chunk * p->piece, end = fnn_min(b + p->piece, p->bags); b < end; b++) {
        const int64_t first = p->start[b], n = p->start[b + 1] - first;
        void *y = fnn_at(p->y, b * p->d, p->dtype);
        const void *weight = p->weight ? fnn_at(p->weight, first, p->dtype) : NULL;
        if (p->mode == BAG_MAX) p->K->bag_max(n, p->index + first, p->d, p->table, y, p->argmax + b * p->d);
        else
            p->K->bag_sum(n, p->index + first, p->d, p->table, weight, p->mode == BAG_MEAN ? (double)p->kept[b] : 1, y);
    }
}

/* y: (B, D); argmax: (B, D) for mode max, else (0); weight: (V, D); index: (L) with offsets (B) or (B + 1), or (B, L);
 * per_sample_weights: as index */
static int forward_run(fnn_call *call) {
    const fnn_tensor *table = call->in[0], *weight = call->in[3];
    char *at = call->shared;
    plan p = {.K = fnn_kernels_of(table->dtype), .dtype = table->dtype, .mode = (int)call->attr.i[0], .rows = table->shape[0],
              .d = table->shape[1]};
    int status = read_bags(call, &p, call->in[1], call->in[2], call->attr.i[1] != 0, call->attr.i[2], &at);
    if (status) return status;
    if (weight) p.weight = gathered(weight, &at);
    p.table = fnn_stage_input(table, &at);
    p.y = fnn_stage_output(call->out[0], &at);
    p.argmax = fnn_stage_output(call->out[1], &at);
    p.piece = bags_a_chunk(&p);
    fnn_parallel_for(call, fnn_ceil_div(p.bags, p.piece), forward_cost(call), run_forward, &p);
    fnn_unstage_output(call->out[0], p.y);
    fnn_unstage_output(call->out[1], p.argmax);
    return FNN_OK;
}

const fnn_driver fnn_embedding_bag_forward = {
    .infer = forward_infer, .workspace = forward_workspace, .cost = forward_cost, .run = forward_run};

/* ---- the table's gradient ---- */

/* attributes: mode, include_last, padding, by_frequency. The caller gives dweight: it knows how many rows the table has. */
static int backward_infer(fnn_call *call) {
    const fnn_tensor *dy = call->in[0], *index = call->in[1], *offsets = call->in[2], *argmax = call->in[4];
    const fnn_tensor *dtable = call->out[0];
    const int64_t mode = call->attr.i[0];
    const int include_last = call->attr.i[1] != 0;
    if (dtable->rank < 0) return fnn_fail(call, FNN_TYPE_ERROR, "writes into an output that the caller gives");
    int status = check(call, index, offsets, call->in[3], include_last);
    if (!status) status = check_mode(call, mode, call->in[3]);
    if (!status) status = check_gradient(call, dy, bags_of(index, offsets, include_last));
    if (status) return status;
    if (dtable->dtype != dy->dtype || dtable->rank != 2 || dtable->shape[1] != dy->shape[1])
        return fnn_fail(call, FNN_VALUE_ERROR, "output 'dweight' is %s %s, but must be %s (V, %td)", fnn_dtype_name(dtable->dtype),
                        fnn_shape_text(dtable), fnn_dtype_name(dy->dtype), dy->shape[1]);
    if (mode == BAG_MAX && !(argmax && fnn_same_shape(argmax, dy)))
        return fnn_fail(call, FNN_VALUE_ERROR, "argmax must have dy's shape %s for mode max", fnn_shape_text(dy));
    if (mode == BAG_MAX && call->attr.i[3])
        return fnn_fail(call, FNN_VALUE_ERROR, "by_frequency does not go with mode max");
    return FNN_OK;
}

static void backward_workspace(const fnn_call *call, fnn_workspace *ws) {
    const fnn_tensor *dy = call->in[0], *index = call->in[1];
    const size_t column = fnn_whole_lines((size_t)fnn_numel(index) * fnn_itemsize(dy->dtype));
    ws->shared = bags_bytes(index, dy->shape[0]) + 2 * column + fnn_stage_bytes(dy) + fnn_stage_bytes(call->in[4]) +
                 fnn_stage_bytes(call->out[0]);
    if (call->attr.i[3]) ws->shared += fnn_whole_lines((size_t)call->out[0]->shape[0] * sizeof(int64_t));
}

static double backward_cost(const fnn_call *call) {
    const fnn_tensor *dy = call->in[0];
    return 0.1 * (double)fnn_numel(call->out[0]) + (double)fnn_numel(call->in[1]) * (0.3 * (double)dy->shape[1] + OWNERS);
}

static void run_backward(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    (void)scratch;
    if (p->mode == BAG_MAX) {
        const ptrdiff_t c = chunk * COLUMNS;
        p->K->bag_max_backward(p->bags, p->rows, p->d, c, fnn_min(COLUMNS, p->d - c), p->dy, p->argmax, p->y);
        return;
    }
    const ptrdiff_t owner = chunk / p->pieces, c = chunk % p->pieces * p->piece;
    p->K->bag_sum_backward(p->count, p->index, p->bag, p->scale, p->rows * owner / OWNERS, p->rows * (owner + 1) / OWNERS, p->d,
                           c, fnn_min(p->piece, p->d - c), p->dy, p->y);
}

/* What each index's row counts for. */
static void set_scales(plan *p, const fnn_tensor *weight, int by_frequency, char **at) {
    p->weight = weight ? gathered(weight, at) : NULL;
    p->scale = fnn_take(at, (size_t)p->count * fnn_itemsize(p->dtype));
    if (by_frequency) {
        p->frequency = fnn_take(at, (size_t)p->rows * sizeof(int64_t));
        for (ptrdiff_t r = 0; r < p->rows; r++) p->frequency[r] = 0;
        for (ptrdiff_t j = 0; j < p->count; j++)
            if (p->index[j] >= 0) p->frequency[p->index[j]]++;
    }
    p->K->bag_scale(p->count, p->index, p->bag, p->weight, p->mode == BAG_MEAN ? p->kept : NULL, p->frequency, p->scale);
}

static int check_argmax(fnn_call *call, const plan *p) {
    for (ptrdiff_t i = 0; i < p->bags * p->d; i++)
        if (p->argmax[i] < -1 || p->argmax[i] >= p->rows)
            return fnn_fail(call, FNN_INDEX_ERROR, "element %td of argmax is %lld, but must lie between -1 and %td", i,
                            (long long)p->argmax[i], p->rows - 1);
    return FNN_OK;
}

/* dweight: (V, D); dy: (B, D); the rest as forward */
static int backward_run(fnn_call *call) {
    const fnn_tensor *dy = call->in[0], *dtable = call->out[0];
    char *at = call->shared;
    plan p = {.K = fnn_kernels_of(dy->dtype), .dtype = dy->dtype, .mode = (int)call->attr.i[0], .rows = dtable->shape[0],
              .d = dy->shape[1]};
    int status = read_bags(call, &p, call->in[1], call->in[2], call->attr.i[1] != 0, call->attr.i[2], &at);
    if (status) return status;
    if (p.mode == BAG_MAX) {
        p.argmax = (int64_t *)fnn_stage_input(call->in[4], &at);
        status = check_argmax(call, &p);
        if (status) return status;
    } else {
        set_scales(&p, call->in[3], call->attr.i[3] != 0, &at);
    }
    p.dy = fnn_stage_input(dy, &at);
    p.y = fnn_stage_output(dtable, &at);
    p.piece = fnn_max(fnn_min(p.d, PIECE), 1);
    p.pieces = fnn_ceil_div(p.d, p.piece);
    fnn_parallel_for(call, p.mode == BAG_MAX ? fnn_ceil_div(p.d, COLUMNS) : OWNERS * p.pieces, backward_cost(call), run_backward,
                     &p);
    fnn_unstage_output(dtable, p.y);
    return FNN_OK;
}

const fnn_driver fnn_embedding_bag_backward = {
    .infer = backward_infer, .workspace = backward_workspace, .cost = backward_cost, .run = backward_run};

/* ---- the weights' gradient ---- */

/* attributes: include_last, padding */
static int weights_infer(fnn_call *call) {
    const fnn_tensor *dy = call->in[0], *table = call->in[1], *index = call->in[2], *offsets = call->in[3];
    const int include_last = call->attr.i[0] != 0;
    int status = check(call, index, offsets, NULL, include_last);
    if (!status) status = check_gradient(call, dy, bags_of(index, offsets, include_last));
    if (status) return status;
    if (table->rank != 2 || table->shape[1] != dy->shape[1])
        return fnn_fail(call, FNN_VALUE_ERROR, "weight has shape %s, but must be (V, %td)", fnn_shape_text(table), dy->shape[1]);
    fnn_set_shape(call->out[0], dy->dtype, index->rank, index->shape);
    return FNN_OK;
}

static void weights_workspace(const fnn_call *call, fnn_workspace *ws) {
    ws->shared = bags_bytes(call->in[2], call->in[0]->shape[0]) + fnn_stage_bytes(call->in[0]) + fnn_stage_bytes(call->in[1]) +
                 fnn_stage_bytes(call->out[0]);
}

static double weights_cost(const fnn_call *call) {
    return (double)fnn_numel(call->in[2]) * ((double)call->in[0]->shape[1] * 0.2 + 2);
}

static void run_weights(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const ptrdiff_t from = chunk * p->piece, n = fnn_min(p->piece, p->count - from);
    (void)scratch;
    p->K->bag_weight_backward(n, p->index + from, p->bag + from, p->d, p->table, p->dy, fnn_at(p->y, from, p->dtype));
}

/* dweights: as index; dy: (B, D); weight: (V, D); index, offsets: as forward */
static int weights_run(fnn_call *call) {
    const fnn_tensor *dy = call->in[0], *table = call->in[1];
    char *at = call->shared;
    plan p = {.K = fnn_kernels_of(dy->dtype), .dtype = dy->dtype, .rows = table->shape[0], .d = table->shape[1]};
    int status = read_bags(call, &p, call->in[2], call->in[3], call->attr.i[0] != 0, call->attr.i[1], &at);
    if (status) return status;
    p.dy = fnn_stage_input(dy, &at);
    p.table = fnn_stage_input(table, &at);
    p.y = fnn_stage_output(call->out[0], &at);
    p.piece = fnn_max(CHUNK / fnn_max(p.d, 1), 1);
    fnn_parallel_for(call, fnn_ceil_div(p.count, p.piece), weights_cost(call), run_weights, &p);
    fnn_unstage_output(call->out[0], p.y);
    return FNN_OK;
}

const fnn_driver fnn_embedding_bag_backward_weights = {
    .infer = weights_infer, .workspace = weights_workspace, .cost = weights_cost, .run = weights_run};
