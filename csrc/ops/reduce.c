/* reduce.c: sum, max_reduce, min_reduce over any axes; argmax over one.
 *
 * Axes are taken in canonical order (N H W C at rank 4), those of one element dropped, neighbours of the same kind joined:
 * what is left is a short alternation of reduced and kept groups. From the last one on, each reduced group is one step on
 * (B, R, K): B outer positions, R reduced, K kept inside. A step is one or more passes: a pass cuts R into P fixed chunks
 * and leaves (B, P, K), until P is 1. So the order of every addition depends on shape, axes and type only: a tensor with
 * other strides is gathered chunk by chunk into this order, and gives the same bits. */
#include "order.h"

#include <string.h>

enum {
    ROW_CHUNK = 16384,    /* elements of a row summed by one kernel call */
    COLUMN_CHUNK = 32768, /* elements of a block of columns, at least MIN_ROWS rows */
    COLUMN_BLOCK = 512,   /* columns of a block: its running totals stay in L1 */
    MIN_ROWS = 128,       /* partial sums are at most this fraction of the input */
    NARROW = 64,          /* fewer columns than this are folded: several rows become one ... */
    FOLD_COLUMNS = 128,   /* ... of at most this many (REDUCE_FOLD_MAX of the kernels) */
    MAX_PASSES = 32
};

typedef struct {
    ptrdiff_t b, r, k;   /* the sizes of its input */
    ptrdiff_t fold;      /* rows joined into one */
    ptrdiff_t rows, p;   /* rows a chunk, chunks along r */
    ptrdiff_t cols, q;   /* columns a chunk, chunks along k */
    ptrdiff_t outer;     /* outer positions a chunk (1 unless p = q = 1) */
} pass;

typedef struct {
    int count;
    pass passes[MAX_PASSES];
    ptrdiff_t partial;   /* elements of the largest result of a pass that is not the last */
    fnn_order input[3];  /* B, R and K of the first pass, in the input's strides */
    fnn_order all;       /* the three together */
    fnn_order result;    /* the output's strides in the order of the last pass */
} plan;

typedef void row_kernel(ptrdiff_t rows, ptrdiff_t n, const void *x, ptrdiff_t stride, void *y);
typedef void column_kernel(ptrdiff_t rows, ptrdiff_t columns, const void *x, ptrdiff_t stride, ptrdiff_t fold, void *y);

static pass plan_pass(ptrdiff_t b, ptrdiff_t r, ptrdiff_t k) {
    pass s = {.b = b, .r = r, .k = k, .fold = 1, .cols = k, .q = 1, .outer = 1};
    ptrdiff_t limit = ROW_CHUNK;
    if (k > 1) {
        if (k < NARROW) s.fold = fnn_max(fnn_min(FOLD_COLUMNS / k, r / 8), 1);
        s.q = fnn_ceil_div(k, COLUMN_BLOCK);
        s.cols = s.q > 1 ? fnn_round_up(fnn_ceil_div(k, s.q), 16) : k;
        s.q = fnn_ceil_div(k, s.cols);
        limit = fnn_max(COLUMN_CHUNK / s.cols, MIN_ROWS);
    }
    s.rows = r;
    if (r > limit) s.rows = fnn_round_up(fnn_ceil_div(r, fnn_ceil_div(r, limit)), 8 * s.fold);
    s.p = fnn_ceil_div(r, s.rows);
    if (s.p == 1 && s.q == 1) s.outer = fnn_min(fnn_max(ROW_CHUNK / (r * k), 1), b);
    return s;
}

/* The passes of one step on (b, r, k). */
static void add_passes(plan *p, ptrdiff_t b, ptrdiff_t r, ptrdiff_t k) {
    do {
        if (p->count) {
            const pass *before = &p->passes[p->count - 1];
            p->partial = fnn_max(p->partial, before->b * before->p * before->k);
        }
        p->passes[p->count] = plan_pass(b, r, k);
        r = p->passes[p->count++].p;
    } while (r > 1);
}

/* x: not empty; mask: its reduced axes; y: the result, with or without them. */
static void make_plan(const fnn_tensor *x, int64_t mask, int keepdim, const fnn_tensor *y, plan *p) {
    int canonical[FNN_MAX_RANK], axes[FNN_MAX_RANK], position[FNN_MAX_RANK], rank = 0;
    for (int d = 0, at = 0; d < x->rank; d++) {
        position[d] = at;
        at += keepdim || !(mask >> d & 1);
    }
    p->count = 0;
    p->partial = 0;
    p->all = p->result = fnn_order_empty();
    for (int g = 0; g < 3; g++) p->input[g] = fnn_order_empty();
    fnn_canonical_axes(x->rank, canonical);
    for (int d = 0; d < x->rank; d++) {
        int axis = canonical[d];
        if (x->shape[axis] == 1) continue;
        axes[rank++] = axis;
        if (!(mask >> axis & 1)) fnn_order_add(&p->result, x->shape[axis], y->stride[position[axis]]);
    }
    fnn_order_add_axes(&p->all, x, axes, 0, rank);

    ptrdiff_t b = p->all.size, r, k = 1;
    int kept, reduced = rank; /* axes [kept, last) are kept, [reduced, kept) reduced: one step */
    do {
        int last = kept = reduced;
        while (kept > 0 && !(mask >> axes[kept - 1] & 1)) k *= x->shape[axes[--kept]];
        for (r = 1, reduced = kept; reduced > 0 && mask >> axes[reduced - 1] & 1;) r *= x->shape[axes[--reduced]];
        b = 1;
        for (int d = 0; d < reduced; d++) b *= x->shape[axes[d]];
        if (last == rank) {
            fnn_order_add_axes(&p->input[0], x, axes, 0, reduced);
            fnn_order_add_axes(&p->input[1], x, axes, reduced, kept);
            fnn_order_add_axes(&p->input[2], x, axes, kept, rank);
        }
        if (last == rank || r > 1) add_passes(p, b, r, k);
    } while (reduced > 0);
}

/* ---- one pass ---- */

typedef struct {
    pass s;
    size_t size;              /* of an element */
    const char *x;
    const fnn_order *gather;  /* NULL: x is read in place, with these steps: */
    ptrdiff_t step_b, step_r;
    char *y;                  /* (b, p, k), dense */
    const void *divisor;      /* NULL: none */
    row_kernel *rows;
    column_kernel *columns;
    void (*divide) FNN_ELEMENTWISE_ARGS;
} pass_run;

static const char *at(const void *base, ptrdiff_t index, size_t size) { return (const char *)base + index * (ptrdiff_t)size; }

/* Rows r .. r + n - 1 and columns c .. c + width - 1 at outer position b, gathered densely. */
static void gather_block(const pass_run *w, ptrdiff_t b, ptrdiff_t r, ptrdiff_t n, ptrdiff_t c, ptrdiff_t width, char *to) {
    ptrdiff_t from = (b * w->s.r + r) * w->s.k + c;
    if (width == w->s.k) {
        fnn_order_gather(w->gather, w->x, w->size, from, n * width, to);
        return;
    }
    for (ptrdiff_t i = 0; i < n; i++)
        fnn_order_gather(w->gather, w->x, w->size, from + i * w->s.k, width, to + i * width * (ptrdiff_t)w->size);
}

static void run_pass(void *context, ptrdiff_t chunk, void *scratch) {
    const pass_run *w = context;
    const pass *s = &w->s;
    ptrdiff_t q = chunk % s->q, p = chunk / s->q % s->p, b = chunk / s->q / s->p * s->outer;
    ptrdiff_t r = p * s->rows, n = fnn_min(s->rows, s->r - r), c = q * s->cols, width = fnn_min(s->cols, s->k - c);
    ptrdiff_t outer = fnn_min(s->outer, s->b - b), step_b = w->step_b, step_r = w->step_r;
    const char *x = at(w->x, b * step_b + r * step_r + c, w->size);
    char *y = (char *)at(w->y, (b * s->p + p) * s->k + c, w->size);
    if (w->gather) {
        for (ptrdiff_t i = 0; i < outer; i++)
            gather_block(w, b + i, r, n, c, width, (char *)scratch + i * n * width * (ptrdiff_t)w->size);
        x = scratch, step_r = width, step_b = n * width;
    }
    if (s->k == 1) w->rows(outer, n, x, step_b, y);
    else
        for (ptrdiff_t i = 0; i < outer; i++)
            w->columns(n, width, at(x, i * step_b, w->size), step_r, s->fold, (char *)at(y, i * s->k, w->size));
    if (w->divisor) w->divide(outer * width, (void *const[]){y}, (const void *const[]){y, w->divisor}, (const ptrdiff_t[]){1, 0}, NULL);
}

/* Whether the first pass can read the input where it lies; if so, sets its steps. */
static int reads_in_place(const plan *p, pass_run *w) {
    ptrdiff_t step_b, step_r, step_k;
    const pass *s = &p->passes[0];
    if (!fnn_order_step(&p->input[0], &step_b) || !fnn_order_step(&p->input[1], &step_r) || !fnn_order_step(&p->input[2], &step_k)) return 0;
    if (s->k > 1 ? step_k != 1 || (s->fold > 1 && step_r != s->k) : s->r > 1 && step_r != 1) return 0;
    w->step_b = step_b, w->step_r = step_r;
    return 1;
}

/* A dense result goes straight to y, another through the buffer behind the two of partial results. */
static void run_passes(const fnn_call *call, const plan *p, const pass_run *kernels, const fnn_tensor *x, fnn_tensor *y, const void *divisor) {
    pass_run w = *kernels;
    int direct = fnn_order_is_dense(&p->result);
    w.size = fnn_itemsize(x->dtype);
    w.x = x->data;
    for (int i = 0; i < p->count; i++) {
        const pass *s = &w.s;
        w.s = p->passes[i];
        w.step_b = s->r * s->k, w.step_r = s->k;
        w.gather = i == 0 && !reads_in_place(p, &w) ? &p->all : NULL;
        int last = i == p->count - 1;
        w.divisor = last ? divisor : NULL;
        w.y = last && direct ? y->data : (char *)at(call->shared, (last ? 2 : i % 2) * p->partial, w.size);
        double ns = (double)(s->b * s->r * s->k) * (double)w.size * (w.gather ? 0.4 : 0.08);
        fnn_parallel_for(call, fnn_ceil_div(s->b, s->outer) * s->p * s->q, ns, run_pass, &w);
        w.x = w.y;
    }
    if (!direct) fnn_order_scatter_all(call, &p->result, y->data, w.size, w.y);
}

/* ---- the ops ---- */

static int check_axes(fnn_call *call, int64_t mask) {
    int rank = call->in[0]->rank;
    if (mask >> rank) return fnn_fail(call, FNN_VALUE_ERROR, "attribute 'axes' has mask %lld, but x has only %d axes", (long long)mask, rank);
    return FNN_OK;
}

static void set_result(fnn_call *call, int dtype, int64_t mask, int keepdim) {
    const fnn_tensor *x = call->in[0];
    ptrdiff_t shape[FNN_MAX_RANK];
    int rank = 0;
    for (int d = 0; d < x->rank; d++) {
        int reduced = mask >> d & 1;
        if (!reduced || keepdim) shape[rank++] = reduced ? 1 : x->shape[d];
    }
    fnn_set_shape(call->out[0], dtype, rank, shape);
}

static int sum_infer(fnn_call *call) {
    int status = check_axes(call, call->attr.i[0]);
    if (!status) set_result(call, call->in[0]->dtype, call->attr.i[0], call->attr.i[1] != 0);
    return status;
}

/* An extremum of nothing does not exist: every reduced axis must have an element, unless the result has none either. */
static int check_nonempty(fnn_call *call, int64_t mask) {
    const fnn_tensor *x = call->in[0];
    for (int d = 0; d < x->rank; d++)
        if (mask >> d & 1 && x->shape[d] == 0)
            return fnn_fail(call, FNN_VALUE_ERROR, "x has shape %s: axis %d is empty and has no extremum", fnn_shape_text(x), d);
    return FNN_OK;
}

static int extremum_infer(fnn_call *call) {
    int status = sum_infer(call);
    return status ? status : check_nonempty(call, call->attr.i[0]);
}

static size_t plan_bytes(const plan *p, size_t size) {
    return (size_t)(2 * p->partial + (fnn_order_is_dense(&p->result) ? 0 : p->result.size)) * size;
}

static size_t gather_bytes(const plan *p, size_t size) {
    pass_run w;
    const pass *s = &p->passes[0];
    return reads_in_place(p, &w) ? 0 : (size_t)(s->outer * s->rows * s->cols) * size;
}

static void reduce_workspace(const fnn_call *call, fnn_workspace *ws) {
    const fnn_tensor *x = call->in[0];
    if (fnn_numel(x) == 0) return;
    plan p;
    size_t size = fnn_itemsize(x->dtype);
    make_plan(x, call->attr.i[0], call->attr.i[1] != 0, call->out[0], &p);
    ws->shared = plan_bytes(&p, size);
    ws->scratch = gather_bytes(&p, size);
}

static int reduce(fnn_call *call, row_kernel *rows, column_kernel *columns, const void *divisor) {
    plan p;
    pass_run w = {.rows = rows, .columns = columns, .divide = fnn_kernels_of(call->in[0]->dtype)->div};
    make_plan(call->in[0], call->attr.i[0], call->attr.i[1] != 0, call->out[0], &p);
    run_passes(call, &p, &w, call->in[0], call->out[0], divisor);
    return FNN_OK;
}

/* y: x summed over `axes` and divided by `divisor`; an empty sum is 0. */
static int sum_run(fnn_call *call) {
    const fnn_tensor *x = call->in[0];
    const fnn_kernels *K = fnn_kernels_of(x->dtype);
    float narrow = (float)call->attr.f[0];
    const void *divisor = x->dtype == FNN_FLOAT32 ? (const void *)&narrow : &call->attr.f[0];
    if (fnn_numel(x)) return reduce(call, K->sum_rows, K->sum_columns, call->attr.f[0] == 1 ? NULL : divisor);
    fnn_order all = fnn_order_empty();
    fnn_tensor *y = call->out[0];
    for (int d = 0; d < y->rank; d++) fnn_order_add(&all, y->shape[d], y->stride[d]);
    const double value = 0 / call->attr.f[0];
    const float value32 = (float)value;
    for (ptrdiff_t i = 0; i < all.size; i++)
        fnn_order_scatter(&all, y->data, fnn_itemsize(y->dtype), i, 1, y->dtype == FNN_FLOAT32 ? (const void *)&value32 : &value);
    return FNN_OK;
}

const fnn_driver fnn_sum = {.infer = sum_infer, .workspace = reduce_workspace, .run = sum_run};

/* y: the largest element of x over `axes`; NaN wins. */
static int max_reduce_run(fnn_call *call) {
    const fnn_kernels *K = fnn_kernels_of(call->in[0]->dtype);
    return fnn_numel(call->in[0]) ? reduce(call, K->max_rows, K->max_columns, NULL) : FNN_OK;
}

/* y: the smallest element of x over `axes`; NaN wins. */
static int min_reduce_run(fnn_call *call) {
    const fnn_kernels *K = fnn_kernels_of(call->in[0]->dtype);
    return fnn_numel(call->in[0]) ? reduce(call, K->min_rows, K->min_columns, NULL) : FNN_OK;
}

const fnn_driver fnn_max_reduce = {.infer = extremum_infer, .workspace = reduce_workspace, .run = max_reduce_run};
const fnn_driver fnn_min_reduce = {.infer = extremum_infer, .workspace = reduce_workspace, .run = min_reduce_run};
