/* index.c: index_select (slices of x picked along one axis) and index_add (its adjoint), see slices.c; gather (an index of its own for
 * every element), scatter_add (its adjoint) and scatter, which take the slices' way where an index says the same for whole slices.
 *
 * Indices are checked, once, before anything is written; those of slices may count from the end. */
#include "order.h"
#include "slices.h"

#include <string.h>

enum {
    CHUNK = 16384, /* indices that a chunk checks */
    PIECES = 4096  /* indices that one chunk of gather moves */
};

static const double PICK_NS = 0.2; /* a byte */

/* Shape of the picked tensor: `axis` becomes as long as the index, or vanishes for a 0-d one. */
static int picked_shape(fnn_call *call, const fnn_tensor *whole, const fnn_tensor *index, int64_t axis, int *rank,
                        ptrdiff_t *shape) {
    if (axis < 0 || axis >= whole->rank)
        return fnn_fail(call, FNN_VALUE_ERROR, "attribute 'axis' is %lld, but the tensor has shape %s", (long long)axis,
                        fnn_shape_text(whole));
    if (index->rank > 1)
        return fnn_fail(call, FNN_VALUE_ERROR, "argument 'index' has shape %s, but must have at most one axis",
                        fnn_shape_text(index));
    *rank = 0;
    for (int d = 0; d < whole->rank; d++) {
        if (d != axis) shape[(*rank)++] = whole->shape[d];
        else if (index->rank) shape[(*rank)++] = index->shape[0];
    }
    return FNN_OK;
}

/* The positions, from index (J,) or (), into the workspace. */
static int read_positions(fnn_call *call, fnn_slices *s, const fnn_tensor *index) {
    const int64_t *from = index->data;
    const ptrdiff_t step = index->rank ? index->stride[0] : 0, bad = fnn_slices_read(call, s, from, step, 1, call->shared);
    if (bad < 0) return FNN_OK;
    return fnn_fail(call, FNN_INDEX_ERROR, "index[%td] is %lld, but must lie between %td and %td", bad, (long long)from[bad * step],
                    -s->extent, s->extent - 1);
}

static void index_workspace(const fnn_call *call, fnn_workspace *ws) {
    ws->shared = fnn_slices_bytes(fnn_numel(call->in[call->op == FNN_OP_index_add ? 0 : 1]));
}

/* ---- index_select ---- */

static int index_select_infer(fnn_call *call) {
    ptrdiff_t shape[FNN_MAX_RANK];
    int rank = 0, status = picked_shape(call, call->in[0], call->in[1], call->attr.i[0], &rank, shape);
    if (!status) fnn_set_shape_near(call->out[0], call->in[0]->dtype, rank, shape, call->in[0]);
    return status;
}

/* y: x with axis `axis` replaced by the picked positions (dropped for a 0-d index); x: any dtype and layout;
 * index: (J,) or () */
static int index_select_run(fnn_call *call) {
    fnn_slices s = fnn_slices_of(call->in[0], call->out[0], (int)call->attr.i[0], call->in[1]->rank, 0);
    int status = read_positions(call, &s, call->in[1]);
    call->is_picked = !call->is_late;
    if (!status && call->is_picked && fnn_numel(call->out[0])) fnn_slices_pick(call, &s, fnn_cost(call));
    return status;
}

/* They lie first in the workspace, which stays until the last reader has run. */
const int64_t *fnn_late_positions(const fnn_call *select) { return select->shared; }

void fnn_pick_rows(fnn_call *select) {
    fnn_slices s = fnn_slices_of(select->in[0], select->out[0], 0, 1, 0);
    s.at = fnn_late_positions(select);
    const double bytes = (double)(fnn_numel(select->out[0]) * (ptrdiff_t)s.size);
    if (!select->is_picked && bytes > 0) fnn_slices_pick(select, &s, PICK_NS * bytes);
    select->is_picked = 1;
}

/* What is picked counts, not what it is picked from. */
static double index_select_cost(const fnn_call *call) {
    const fnn_tensor *y = call->out[0];
    if (call->is_late) return 2 * (double)fnn_numel(call->in[1]);
    return PICK_NS * (double)(fnn_numel(y) * (ptrdiff_t)fnn_itemsize(y->dtype));
}

const fnn_driver fnn_index_select = {.infer = index_select_infer, .workspace = index_workspace,
                                     .cost = index_select_cost, .run = index_select_run};

/* ---- index_add ---- */

static int index_add_infer(fnn_call *call) {
    const fnn_tensor *y = call->out[0], *index = call->in[0], *dy = call->in[1];
    if (y->rank < 0) return fnn_fail(call, FNN_TYPE_ERROR, "adds to an output that the caller gives");
    if (y->dtype != dy->dtype)
        return fnn_fail(call, FNN_TYPE_ERROR, "output 'y' has dtype %s, but 'dy' has %s: they must be the same",
                        fnn_dtype_name(y->dtype), fnn_dtype_name(dy->dtype));
    fnn_tensor want = *dy;
    int status = picked_shape(call, y, index, call->attr.i[0], &want.rank, want.shape);
    if (!status && !fnn_same_shape(&want, dy))
        return fnn_fail(call, FNN_VALUE_ERROR, "argument 'dy' has shape %s, but y %s and the index need %s",
                        fnn_shape_text(dy), fnn_shape_text(y), fnn_shape_text(&want));
    return status;
}

/* y[.., index[j], ..] += dy[.., j, ..]; y is given by the caller; equal indices add in order */
static int index_add_run(fnn_call *call) {
    fnn_tensor *y = call->out[0];
    fnn_slices s = fnn_slices_of(y, call->in[1], (int)call->attr.i[0], call->in[0]->rank, 1);
    int status = read_positions(call, &s, call->in[0]);
    if (!status && fnn_numel(call->in[1])) fnn_slices_combine(call, &s, fnn_kernels_of(y->dtype)->add, y->dtype, call->shared);
    return status;
}

const fnn_driver fnn_index_add = {.infer = index_add_infer, .workspace = index_workspace, .run = index_add_run};

/* ---- gather, scatter_add ---- */

typedef struct {
    fnn_nest nest;            /* the axes but the chosen one: operands written, read, index */
    ptrdiff_t step[3];        /* along the axis */
    ptrdiff_t count;          /* of the axis in the index: of a chunk, where the axis is cut */
    ptrdiff_t units;          /* positions a chunk; of gather, where they lie together, places along the axis */
    ptrdiff_t pieces, all;    /* chunks along an axis of `all` indices: gather's results do not meet */
    int whole;                /* which operand the indices point into: 0 or 1 */
    size_t size;
    const fnn_kernels *K;     /* scatter_add */
    fnn_combine combine;      /* what scatter makes of what is there and what comes */
} gather_plan;

static int gather_check(fnn_call *call, const fnn_tensor *whole, const fnn_tensor *index, int64_t axis) {
    if (axis < 0 || axis >= whole->rank)
        return fnn_fail(call, FNN_VALUE_ERROR, "attribute 'axis' is %lld, but the tensor has shape %s", (long long)axis,
                        fnn_shape_text(whole));
    int fits = index->rank == whole->rank;
    for (int d = 0; fits && d < whole->rank; d++) fits = d == axis || index->shape[d] == whole->shape[d];
    if (!fits)
        return fnn_fail(call, FNN_VALUE_ERROR,
                        "argument 'index' has shape %s, but must agree with %s in all axes but %lld",
                        fnn_shape_text(index), fnn_shape_text(whole), (long long)axis);
    return FNN_OK;
}

typedef struct {
    fnn_order order;
    const int64_t *index;
    ptrdiff_t extent;
    ptrdiff_t *bad; /* each chunk's first bad position, or -1 */
} check_plan;

static ptrdiff_t check_chunks(const fnn_tensor *index) { return fnn_ceil_div(fnn_numel(index), CHUNK); }

static void run_check(void *context, ptrdiff_t chunk, void *scratch) {
    const check_plan *p = context;
    const ptrdiff_t end = fnn_min((chunk + 1) * CHUNK, p->order.size);
    const int is_dense = fnn_order_is_dense(&p->order);
    int64_t room[256];
    (void)scratch;
    p->bad[chunk] = -1;
    for (ptrdiff_t from = chunk * CHUNK; from < end && p->bad[chunk] < 0; from += 256) {
        const ptrdiff_t n = fnn_min(256, end - from);
        const int64_t *block = is_dense ? p->index + from : room;
        uint64_t has_bad = 0; /* without a branch first: most blocks have none */
        if (!is_dense) fnn_order_gather(&p->order, p->index, sizeof *room, from, n, room);
        for (ptrdiff_t j = 0; j < n; j++) has_bad |= (uint64_t)block[j] >= (uint64_t)p->extent;
        for (ptrdiff_t j = n - 1; has_bad && j >= 0; j--)
            if (block[j] < 0 || block[j] >= p->extent) p->bad[chunk] = from + j;
    }
}

static int refuse_index(fnn_call *call, ptrdiff_t element, int64_t index, ptrdiff_t extent) {
    return fnn_fail(call, FNN_INDEX_ERROR, "element %td of index is %lld, but must lie between 0 and %td", element, (long long)index,
                    extent - 1);
}

/* Every index lies within the axis, none is negative (as in PyTorch); checked before anything is written. */
static int check_indices(fnn_call *call, const fnn_tensor *index, ptrdiff_t extent) {
    check_plan p = {.order = fnn_order_of(index), .index = index->data, .extent = extent, .bad = call->shared};
    const ptrdiff_t chunks = check_chunks(index);
    fnn_parallel_for(call, chunks, 0.5 * (double)p.order.size, run_check, &p);
    for (ptrdiff_t c = 0; c < chunks; c++)
        if (p.bad[c] >= 0) return refuse_index(call, p.bad[c], p.index[fnn_order_seek(&p.order, p.bad[c])], extent);
    return FNN_OK;
}

static void gather_workspace(const fnn_call *call, fnn_workspace *ws) {
    const fnn_tensor *index = call->in[call->op == FNN_OP_gather];
    const int axis = (int)call->attr.i[0];
    ws->shared = (size_t)check_chunks(index) * sizeof(ptrdiff_t);
    if (fnn_says_slices(index, axis)) fnn_enlarge(ws, fnn_slices_bytes(index->shape[axis]), 0);
}

/* The statements of `move` for the type of so many bytes. */
#define BY_SIZE(size, move)                                                                                             \
    switch (size) {                                                                                                     \
    case 1: { move(uint8_t); }                                                                                          \
    case 4: { move(uint32_t); }                                                                                         \
    case 8: { move(uint64_t); }                                                                                         \
    }

/* One position's elements without arithmetic: y[j] = x[i] or, whole being 0, y[i] = x[j]. Where neighbours lie together, indices
 * are not multiplied. */
static void move_plain(const gather_plan *p, char *const *at) {
    const int64_t *restrict index = (const int64_t *)at[2];
    const ptrdiff_t n = p->count, to = p->step[0], from = p->step[1], step = p->step[2];
    const int is_dense = to == 1 && from == 1 && step == 1;
#define MOVE(type)                                                                                                      \
    type *restrict y = (type *)at[0];                                                                                   \
    const type *restrict x = (const type *)at[1];                                                                       \
    if (is_dense && p->whole) for (ptrdiff_t j = 0; j < n; j++) y[j] = x[index[j]];                                     \
    else if (is_dense) for (ptrdiff_t j = 0; j < n; j++) y[index[j]] = x[j];                                            \
    else if (p->whole) for (ptrdiff_t j = 0; j < n; j++) y[j * to] = x[index[j * step] * from];                         \
    else for (ptrdiff_t j = 0; j < n; j++) y[index[j * step] * to] = x[j * from];                                       \
    return
    BY_SIZE(p->size, MOVE)
#undef MOVE
}

/* Moves one position's elements: y[j] = x[i], y[i] = x[j] or y[i] += x[j], i being the j-th index. */
static void move_row(const gather_plan *p, char *const *at) {
    if (p->K && p->step[2] == 1) {
        p->K->scatter_add(p->count, (const int64_t *)at[2], at[1], p->step[1], at[0], p->step[0]);
        return;
    }
    if (!p->combine) {
        move_plain(p, at);
        return;
    }
    for (ptrdiff_t j = 0; j < p->count; j++) {
        int64_t i = ((const int64_t *)at[2])[j * p->step[2]];
        char *to = at[0] + i * p->step[0] * (ptrdiff_t)p->size;
        const char *from = at[1] + j * p->step[1] * (ptrdiff_t)p->size;
        p->combine(1, (void *const[]){to}, (const void *const[]){to, from}, (const ptrdiff_t[]){1, 1}, NULL);
    }
}

static void run_gather(void *context, ptrdiff_t chunk, void *scratch) {
    (void)scratch;
    gather_plan p = *(const gather_plan *)context;
    const ptrdiff_t from = chunk % p.pieces * PIECES, first = chunk / p.pieces * p.units;
    char *at[FNN_MAX_ARGS];
    if (p.pieces > 1) p.count = fnn_min(PIECES, p.all - from);
    const int last = p.nest.rank - 1;
    const ptrdiff_t end = fnn_min(first + p.units, p.nest.size);
    for (ptrdiff_t u = first, n; u < end; u += n) {
        n = fnn_nest_run(&p.nest, u, end, at);
        at[0] += from * p.step[0] * (ptrdiff_t)p.size;
        at[2] += from * p.step[2] * (ptrdiff_t)sizeof(int64_t);
        for (ptrdiff_t i = 0; i < n; i++) {
            move_row(&p, at);
            for (int k = 0; k < 3; k++) at[k] += p.nest.stride[k][last] * (ptrdiff_t)p.nest.itemsize[k];
        }
    }
}

/* Whether elements are moved as they are or added, positions lie together, and the axis does not: then rows of them are walked, not
 * columns along the axis. */
static int lie_together(const gather_plan *p) {
    const int last = p->nest.rank - 1;
    int together = (p->K || !p->combine) && p->step[0] != 1 && p->nest.shape[last] > 1;
    for (int k = 0; k < 3; k++) together = together && p->nest.stride[k][last] == 1;
    return together;
}

/* `n` positions that lie together: y[u] = x[i, u], y[i, u] = x[u] or y[i, u] += x[u], i being the u-th index. */
static void move_together(const gather_plan *p, ptrdiff_t n, char *y_, const char *x_, const int64_t *restrict index) {
    const ptrdiff_t step = p->step[p->whole];
    if (p->K) {
        p->K->scatter_add_together(n, index, x_, y_, step);
        return;
    }
#define MOVE(type)                                                                                                      \
    type *restrict y = (type *)y_;                                                                                      \
    const type *restrict x = (const type *)x_;                                                                          \
    if (p->whole) for (ptrdiff_t u = 0; u < n; u++) y[u] = x[index[u] * step + u];                                      \
    else for (ptrdiff_t u = 0; u < n; u++) y[index[u] * step + u] = x[u];                                               \
    return
    BY_SIZE(p->size, MOVE)
#undef MOVE
}

/* Chunk: of gather some places along the axis, for all positions that lie together; of scatter, whose places may meet, some of
 * these positions, for all places in order. */
static void run_together(void *context, ptrdiff_t chunk, void *scratch) {
    (void)scratch;
    const gather_plan *p = context;
    const ptrdiff_t all = p->nest.shape[p->nest.rank - 1], first = chunk % p->pieces * p->units;
    const ptrdiff_t begin = p->whole ? first : 0, end = p->whole ? fnn_min(first + p->units, p->count) : p->count;
    const ptrdiff_t from = p->whole ? 0 : first, n = p->whole ? all : fnn_min(p->units, all - first);
    char *at[FNN_MAX_ARGS];
    fnn_nest_seek(&p->nest, chunk / p->pieces * all + from, at);
    for (ptrdiff_t j = begin; j < end; j++) {
        const ptrdiff_t y = p->whole ? j * p->step[0] : 0, x = p->whole ? 0 : j * p->step[1], size = (ptrdiff_t)p->size;
        move_together(p, n, at[0] + y * size, at[1] + x * size, (const int64_t *)at[2] + j * p->step[2]);
    }
}

static void move_all_together(const fnn_call *call, gather_plan *p, double ns) {
    const ptrdiff_t all = p->nest.shape[p->nest.rank - 1], cut = p->whole ? p->count : all;
    p->units = fnn_max(PIECES / (p->whole ? all : p->count), p->whole ? 1 : 64);
    p->pieces = fnn_ceil_div(cut, p->units);
    fnn_parallel_for(call, p->nest.size / all * p->pieces, ns, run_together, p);
}

/* Where the index says the same for whole slices, which is how graphs' messages are summed: whether it was done so. */
static int move_slices(fnn_call *call, const gather_plan *p, const fnn_tensor *to, const fnn_tensor *from, const fnn_tensor *index,
                       int *status) {
    const int axis = (int)call->attr.i[0];
    if (!fnn_says_slices(index, axis)) return 0;
    fnn_slices s = fnn_slices_of(p->whole ? from : to, p->whole ? to : from, axis, 1, !p->whole);
    if (s.run == 1) return 0;
    const ptrdiff_t step = index->stride[axis];
    const ptrdiff_t bad = fnn_slices_read(call, &s, index->data, step, 0, call->shared);
    if (bad >= 0) {
        ptrdiff_t inner = 1;
        for (int d = axis + 1; d < index->rank; d++) inner *= index->shape[d];
        *status = refuse_index(call, bad * inner, ((const int64_t *)index->data)[bad * step], s.extent);
    } else if (p->whole) {
        fnn_slices_pick(call, &s, 0.2 * (double)fnn_numel(to) * (double)s.size);
    } else {
        fnn_slices_combine(call, &s, p->combine, to->dtype, call->shared);
    }
    return 1;
}

static int gather_all(fnn_call *call, gather_plan *p, const fnn_tensor *to, const fnn_tensor *from,
                      const fnn_tensor *index) {
    int axis = (int)call->attr.i[0], status = FNN_OK;
    const fnn_tensor *tensors[3] = {to, from, index}, *operand[3];
    fnn_tensor slices[3];
    if (fnn_numel(index) && move_slices(call, p, to, from, index, &status)) return status;
    for (int k = 0; k < 3; k++) {
        slices[k] = fnn_slice_of(tensors[k], axis);
        operand[k] = &slices[k];
        p->step[k] = tensors[k]->stride[axis];
    }
    p->count = index->shape[axis];
    p->size = fnn_itemsize(to->dtype);
    status = check_indices(call, index, tensors[p->whole]->shape[axis]);
    if (status || fnn_numel(index) == 0) return status;
    fnn_nest_build(&p->nest, operand, 3);
    const double ns = 4 * (double)fnn_numel(index);
    if (lie_together(p)) {
        move_all_together(call, p, ns);
        return FNN_OK;
    }
    p->units = fnn_max(PIECES / p->count, 1);
    p->all = p->count;
    p->pieces = p->whole ? fnn_ceil_div(p->count, PIECES) : 1;
    fnn_parallel_for(call, fnn_ceil_div(p->nest.size, p->units) * p->pieces, ns, run_gather, p);
    return FNN_OK;
}

static int gather_infer(fnn_call *call) {
    const fnn_tensor *x = call->in[0], *index = call->in[1];
    int status = gather_check(call, x, index, call->attr.i[0]);
    if (!status) fnn_set_shape_near(call->out[0], x->dtype, index->rank, index->shape, x);
    return status;
}

/* y[.., j, ..] = x[.., index[.., j, ..], ..]; y: the shape of index; x: the same but along `axis` */
static int gather_run(fnn_call *call) {
    return gather_all(call, &(gather_plan){.whole = 1}, call->out[0], call->in[0], call->in[1]);
}

const fnn_driver fnn_gather = {.infer = gather_infer, .workspace = gather_workspace, .run = gather_run};

static int scatter_check(fnn_call *call, const char *name) {
    const fnn_tensor *y = call->out[0], *index = call->in[0], *from = call->in[1];
    if (y->rank < 0) return fnn_fail(call, FNN_TYPE_ERROR, "writes into an output that the caller gives");
    if (y->dtype != from->dtype || !fnn_same_shape(index, from))
        return fnn_fail(call, FNN_VALUE_ERROR, "argument '%s' is %s %s, but must be %s %s", name, fnn_dtype_name(from->dtype),
                        fnn_shape_text(from), fnn_dtype_name(y->dtype), fnn_shape_text(index));
    return gather_check(call, y, index, call->attr.i[0]);
}

/* Integers are combined exactly in 64 bits, sums and products wrap around. */
#define COMBINE(name, formula)                                                                                          \
    static void name FNN_ELEMENTWISE_ARGS {                                                                             \
        (void)step, (void)attr;                                                                                         \
        for (ptrdiff_t i = 0; i < n; i++) {                                                                             \
            const int64_t a = ((const int64_t *)in[0])[i], b = ((const int64_t *)in[1])[i];                             \
            ((int64_t *)out[0])[i] = (int64_t)(formula);                                                                \
        }                                                                                                               \
    }
COMBINE(add_integers, (uint64_t)a + (uint64_t)b)
COMBINE(multiply_integers, (uint64_t)a * (uint64_t)b)
COMBINE(greater_integer, a > b ? a : b)
COMBINE(less_integer, a < b ? a : b)
#undef COMBINE

static int scatter_add_infer(fnn_call *call) {
    const int status = scatter_check(call, "dy"), dtype = call->out[0]->dtype;
    if (status || dtype <= FNN_INT64) return status;
    return fnn_fail(call, FNN_TYPE_ERROR, "output 'y' has dtype %s, but must be float32, float64 or int64", fnn_dtype_name(dtype));
}

/* y[.., index[.., j, ..], ..] += dy[.., j, ..]; y is given by the caller; equal indices add in order */
static int scatter_add_run(fnn_call *call) {
    gather_plan p = {.whole = 0, .combine = add_integers};
    if (call->out[0]->dtype != FNN_INT64) {
        p.K = fnn_kernels_of(call->out[0]->dtype);
        p.combine = p.K->add;
    }
    return gather_all(call, &p, call->out[0], call->in[1], call->in[0]);
}

const fnn_driver fnn_scatter_add = {.infer = scatter_add_infer, .workspace = gather_workspace, .run = scatter_add_run};

static int scatter_infer(fnn_call *call) {
    const int64_t how = call->attr.i[1];
    if (how < 0 || how > 3) return fnn_fail(call, FNN_VALUE_ERROR, "attribute 'how' is %lld, but must be 0 to 3", (long long)how);
    int status = scatter_check(call, "src");
    if (!status && how && call->out[0]->dtype > FNN_INT64)
        return fnn_fail(call, FNN_TYPE_ERROR, "output 'y' has dtype %s, but only reals and int64 are multiplied or compared",
                        fnn_dtype_name(call->out[0]->dtype));
    return status;
}

/* y[.., index[.., j, ..], ..] = src[.., j, ..], or the product, the greater or the less of both; y is given by the caller; of equal
 * indices the last comes last */
static int scatter_run(fnn_call *call) {
    gather_plan p = {.whole = 0};
    const int64_t how = call->attr.i[1];
    if (how && call->out[0]->dtype == FNN_INT64) {
        p.combine = how == 1 ? multiply_integers : how == 2 ? greater_integer : less_integer;
    } else if (how) {
        const fnn_kernels *K = fnn_kernels_of(call->out[0]->dtype);
        p.combine = how == 1 ? K->mul : how == 2 ? K->maximum : K->minimum;
    }
    return gather_all(call, &p, call->out[0], call->in[1], call->in[0]);
}

const fnn_driver fnn_scatter = {.infer = scatter_infer, .workspace = gather_workspace, .run = scatter_run};
