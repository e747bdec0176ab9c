/* reduce.c: sum, max_reduce, min_reduce over any axes; argmax over one; of reals, and exactly of int64.
 *
 * Axes are taken in canonical order (N H W C at rank 4), those of one element dropped, neighbours of the same kind joined:
 * what is left is a short alternation of reduced and kept groups. From the last one on, each reduced group is one step on
 * (B, R, K): B outer positions, R reduced, K kept inside. A step is one or more passes: a pass cuts R into P fixed chunks
 * and leaves (B, P, K), until P is 1. So the order of every addition depends on shape, axes and type only: a tensor with
 * other strides is gathered chunk by chunk into this order, and gives the same bits.
 *
 * Sums of maps of few channels over all but these, a bias's gradient, take the four pixels of each block of 2 x 2 first: where three of
 * the four are 0 by max pooling's gradient, that is the pooled map's sum (call->unpooled). Read as it is, a map takes 1.4 to 1.7 times
 * as long so, but a program spares it altogether. */
#include "order.h"
#include "pool.h"
#include "reduce_integer.h"

#include <string.h>

enum {
    ROW_CHUNK = 16384,    /* elements of a row summed by one kernel call */
    COLUMN_CHUNK = 32768, /* elements of a block of columns, at least MIN_ROWS rows */
    COLUMN_BLOCK = 512,   /* columns of a block: its running totals stay in L1 */
    MIN_ROWS = 128,       /* partial sums are at most this fraction of the input */
    NARROW = 64,          /* fewer columns than this are folded: several rows become one ... */
    FOLD_COLUMNS = 128,   /* ... of at most this many (REDUCE_FOLD_MAX of the kernels) */
    PART = 4096,          /* elements gathered at once; a multiple of the kernels' REDUCE_PART */
    MAX_PASSES = 32,
    BLOCK_CHANNELS = 16  /* most channels of maps that are summed by blocks of pixels */
};

typedef struct {
    ptrdiff_t b, r, k;   /* the sizes of its input */
    ptrdiff_t fold;      /* rows joined into one */
    ptrdiff_t rows, p;   /* rows a chunk, chunks along r */
    ptrdiff_t cols, q;   /* columns a chunk, chunks along k */
    ptrdiff_t outer;     /* outer positions a chunk (1 unless p = q = 1) */
} pass;

typedef struct {
    int count, blocks;   /* blocks: the input is the sums of 2 x 2 pixels */
    pass passes[MAX_PASSES];
    ptrdiff_t partial;   /* elements of the largest result of a pass that is not the last */
    fnn_order input[3];  /* B, R and K of the first pass, in the input's strides */
    fnn_order all;       /* the three together */
    fnn_order result;    /* the output's strides in the order of the last pass */
} plan;

typedef void row_kernel(ptrdiff_t rows, ptrdiff_t n, const void *x, ptrdiff_t stride, void *y);
typedef void part_kernel(ptrdiff_t n, const void *x, int part, void *totals, void *y);
typedef void column_kernel(ptrdiff_t rows, ptrdiff_t columns, const void *x, ptrdiff_t stride, ptrdiff_t fold, int part, void *totals,
                           void *y);

typedef void find_kernel(ptrdiff_t rows, ptrdiff_t n, const void *x, ptrdiff_t stride, const void *m, ptrdiff_t first, int64_t *index);

typedef struct {
    row_kernel *rows;
    part_kernel *row_part;
    column_kernel *columns;
    find_kernel *find_rows, *find_columns; /* of an extremum */
} reducer;

/* ---- passes ---- */

enum { SUM, MAX, MIN };

static reducer reducer_of(int kind, int dtype) {
    if (dtype == FNN_INT64) {
        row_kernel *const rows[] = {sum_of_rows, greater_of_rows, less_of_rows};
        part_kernel *const row_part[] = {sum_of_row_part, greater_of_row_part, less_of_row_part};
        column_kernel *const columns[] = {sum_of_columns, greater_of_columns, less_of_columns};
        return (reducer){rows[kind], row_part[kind], columns[kind], find_in_rows, find_in_columns};
    }
    const fnn_kernels *K = fnn_kernels_of(dtype);
    if (kind == SUM) return (reducer){K->sum_rows, K->sum_row_part, K->sum_columns, NULL, NULL};
    return kind == MAX ? (reducer){K->max_rows, K->max_row_part, K->max_columns, K->find_rows, K->find_columns}
                       : (reducer){K->min_rows, K->min_row_part, K->min_columns, K->find_rows, K->find_columns};
}

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

/* The passes of r sums of blocks of k channels, which come as 2 k columns, half of them of no use. */
static void add_block_passes(plan *p, ptrdiff_t r, ptrdiff_t k) {
    pass first = plan_pass(1, r, 2 * k);
    first.k = first.cols = k;
    p->passes[p->count++] = first;
    if (first.p > 1) add_passes(p, 1, first.p, k);
}

/* The order of the result; returns how many axes of x have several elements, in canonical order in `axes`. */
static int order_result(const fnn_tensor *x, int64_t mask, int keepdim, const fnn_tensor *y, int *axes, plan *p) {
    int canonical[FNN_MAX_RANK], position[FNN_MAX_RANK], rank = 0;
    for (int d = 0, at = 0; d < x->rank; d++) {
        position[d] = at;
        at += keepdim || !(mask >> d & 1);
    }
    p->result = fnn_order_empty();
    fnn_canonical_axes(x->rank, canonical);
    for (int d = 0; d < x->rank; d++) {
        int axis = canonical[d];
        if (x->shape[axis] == 1) continue;
        axes[rank++] = axis;
        if (!(mask >> axis & 1)) fnn_order_add(&p->result, x->shape[axis], y->stride[position[axis]]);
    }
    return rank;
}

/* Not means: those of images, whose pixels are not to be read twice. */
static int is_sum_of_blocks(const fnn_call *call) {
    enum { ALL_BUT_CHANNELS = 1 + 4 + 8 };
    const fnn_tensor *x = call->in[0];
    if (call->op != FNN_OP_sum || call->attr.i[0] != ALL_BUT_CHANNELS || call->attr.f[0] != 1) return 0;
    if (x->dtype == FNN_INT64 || x->rank != 4 || x->shape[1] < 2 || x->shape[1] > BLOCK_CHANNELS) return 0;
    return x->shape[2] % 2 == 0 && x->shape[3] % 2 == 0;
}

/* x, in[0]: not empty; mask: its reduced axes; out[0]: the result, with or without them. */
static void make_plan(const fnn_call *call, int64_t mask, int keepdim, plan *p) {
    const fnn_tensor *x = call->in[0], *y = call->out[0];
    int axes[FNN_MAX_RANK];
    const int rank = order_result(x, mask, keepdim, y, axes, p);
    p->count = 0;
    p->partial = 0;
    p->blocks = is_sum_of_blocks(call);
    p->all = fnn_order_empty();
    for (int g = 0; g < 3; g++) p->input[g] = fnn_order_empty();
    fnn_order_add_axes(&p->all, x, axes, 0, rank);
    if (p->blocks) {
        add_block_passes(p, p->all.size / x->shape[1] / 4, x->shape[1]);
        return;
    }

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
    ptrdiff_t width;          /* of maps whose blocks of 2 x 2 pixels are gathered as sums; else 0 */
    int is_dense;             /* these maps */
    char *y;                  /* (b, p, k), dense */
    const void *divisor;      /* NULL: none */
    reducer with;
    void (*divide) FNN_ELEMENTWISE_ARGS;
    void (*sum_blocks)(ptrdiff_t pairs, ptrdiff_t n, ptrdiff_t channels, const void *x, ptrdiff_t below, ptrdiff_t pair, void *y);
} pass_run;

static const char *at(const void *base, ptrdiff_t index, size_t size) {
    return (const char *)base + index * (ptrdiff_t)size;
}

/* Rows r .. r + n - 1 and columns c .. c + width - 1 at outer position b, gathered densely. */
static void gather_block(const pass_run *w, ptrdiff_t b, ptrdiff_t r, ptrdiff_t n, ptrdiff_t c, ptrdiff_t width,
                         char *to) {
    ptrdiff_t from = (b * w->s.r + r) * w->s.k + c;
    if (width == w->s.k) {
        fnn_order_gather(w->gather, w->x, w->size, from, n * width, to);
        return;
    }
    for (ptrdiff_t i = 0; i < n; i++)
        fnn_order_gather(w->gather, w->x, w->size, from + i * w->s.k, width, to + i * width * (ptrdiff_t)w->size);
}

/* Where the block at outer position b, row r, column c begins: in x, or gathered into scratch. Sets its own steps. */
static const char *block_at(const pass_run *w, ptrdiff_t b, ptrdiff_t outer, ptrdiff_t r, ptrdiff_t n, ptrdiff_t c,
                            ptrdiff_t width, char *scratch, ptrdiff_t *step_b, ptrdiff_t *step_r) {
    *step_b = w->step_b, *step_r = w->step_r;
    if (!w->gather) return at(w->x, b * w->step_b + r * w->step_r + c, w->size);
    *step_b = n * width, *step_r = width;
    gather_block(w, b, r, outer * n, c, width, scratch); /* several outer positions: whole ones, which follow one another */
    return scratch;
}

/* Which rows, columns and outer positions a chunk has. */
typedef struct {
    ptrdiff_t b, outer, r, n, c, width;
} range;

static range range_of(const pass *s, ptrdiff_t chunk) {
    range g = {.b = chunk / s->q / s->p * s->outer, .r = chunk / s->q % s->p * s->rows, .c = chunk % s->q * s->cols};
    g.outer = fnn_min(s->outer, s->b - g.b), g.n = fnn_min(s->rows, s->r - g.r), g.width = fnn_min(s->cols, s->k - g.c);
    return g;
}

/* Rows that are gathered at once: what stays in the first-level cache until it is reduced, and what kernels take as a part. */
static ptrdiff_t part_rows(const pass *s) {
    return fnn_min(s->rows, s->k == 1 ? PART : fnn_max(PART / s->cols / (8 * s->fold), 1) * 8 * s->fold);
}

/* Outer positions that are gathered at once. */
static ptrdiff_t part_outer(const pass *s) { return fnn_min(fnn_max(PART / (s->rows * s->cols), 1), s->outer); }

/* A gathered part, behind what kernels keep between two of them. */
static size_t part_bytes(const pass *s, size_t size) {
    return (size_t)(FOLD_COLUMNS + part_outer(s) * part_rows(s) * s->cols) * size;
}

static void reduce_block(const pass_run *w, ptrdiff_t outer, ptrdiff_t n, ptrdiff_t width, const char *x, ptrdiff_t step_b,
                         ptrdiff_t step_r, char *y) {
    if (w->s.k == 1) w->with.rows(outer, n, x, step_b, y);
    else
        for (ptrdiff_t i = 0; i < outer; i++)
            w->with.columns(n, width, at(x, i * step_b, w->size), step_r, w->s.fold, FNN_ONLY_PART, NULL,
                            (char *)at(y, i * w->s.k, w->size));
}

/* A chunk that is gathered part by part. */
static void run_gathered(const pass_run *w, const range *g, char *y, char *totals) {
    const pass *s = &w->s;
    const ptrdiff_t many = part_rows(s), together = part_outer(s);
    char *block = totals + FOLD_COLUMNS * w->size;
    if (g->n <= many) {
        for (ptrdiff_t i = 0; i < g->outer; i += together) {
            const ptrdiff_t count = fnn_min(together, g->outer - i);
            gather_block(w, g->b + i, g->r, count * g->n, g->c, g->width, block);
            reduce_block(w, count, g->n, g->width, block, g->n * g->width, g->width, (char *)at(y, i * s->k, w->size));
        }
        return;
    }
    for (ptrdiff_t i = 0; i < g->outer; i++) {
        char *to = (char *)at(y, i * s->k, w->size);
        for (ptrdiff_t r = 0, n; r < g->n; r += n) {
            n = fnn_min(many, g->n - r);
            const int part = (r == 0 ? FNN_FIRST_PART : 0) | (r + n == g->n ? FNN_LAST_PART : 0);
            gather_block(w, g->b + i, g->r + r, n, g->c, g->width, block);
            if (s->k == 1) w->with.row_part(n, block, part, totals, to);
            else w->with.columns(n, g->width, block, g->width, s->fold, part, totals, to);
        }
    }
}

/* Sums of blocks r .. r + n - 1 of 2 x 2 pixels, (N, H / 2, W / 2) in order. Behind them is room for two rows of pixels. */
static void gather_sums(const pass_run *w, ptrdiff_t r, ptrdiff_t n, char *to) {
    const ptrdiff_t k = w->s.k, across = w->width / 2, row = w->width * k, size = (ptrdiff_t)w->size;
    char *copy = to + 2 * n * k * size;
    for (ptrdiff_t take, pairs; n > 0; r += take * pairs, n -= take * pairs, to += 2 * take * pairs * k * size) {
        const ptrdiff_t first = r / across * 2 * row + r % across * 2 * k;
        take = fnn_min(across - r % across, n), pairs = w->is_dense && take == across ? n / across : 1;
        for (int i = 0; i < 2 && !w->is_dense; i++)
            fnn_order_gather(w->gather, w->x, w->size, first + i * row, 2 * take * k, copy + i * 2 * take * k * size);
        if (w->is_dense) w->sum_blocks(pairs, 2 * take * k, k, at(w->x, first, w->size), row, 2 * row, to);
        else w->sum_blocks(1, 2 * take * k, k, copy, 2 * take * k, 0, to);
    }
}

static ptrdiff_t part_blocks(const pass *s) {
    return fnn_min(s->rows, fnn_max(PART / (2 * s->k) / (8 * s->fold), 1) * 8 * s->fold);
}

static size_t blocks_bytes(const pass_run *w) {
    return (size_t)(FOLD_COLUMNS + 2 * part_blocks(&w->s) * w->s.k + 2 * w->width * w->s.k) * w->size;
}

/* A chunk of sums of blocks, part by part. */
static void run_blocks(const pass_run *w, const range *g, char *y, char *totals) {
    const pass *s = &w->s;
    char *block = totals + FOLD_COLUMNS * w->size, result[2 * BLOCK_CHANNELS * sizeof(double)];
    for (ptrdiff_t r = 0, n; r < g->n; r += n) {
        n = fnn_min(part_blocks(s), g->n - r);
        const int part = (r == 0 ? FNN_FIRST_PART : 0) | (r + n == g->n ? FNN_LAST_PART : 0);
        gather_sums(w, g->r + r, n, block);
        w->with.columns(n, 2 * s->k, block, 2 * s->k, s->fold, part, totals, result);
    }
    memcpy(y, result, (size_t)s->k * w->size);
}

static void run_pass(void *context, ptrdiff_t chunk, void *scratch) {
    const pass_run *w = context;
    const pass *s = &w->s;
    const range g = range_of(s, chunk);
    const char *x = at(w->x, g.b * w->step_b + g.r * w->step_r + g.c, w->size);
    char *y = (char *)at(w->y, (g.b * s->p + g.r / s->rows) * s->k + g.c, w->size);
    if (w->width) run_blocks(w, &g, y, scratch);
    else if (w->gather) run_gathered(w, &g, y, scratch);
    else reduce_block(w, g.outer, g.n, g.width, x, w->step_b, w->step_r, y);
    if (w->divisor)
        w->divide(g.outer * g.width, (void *const[]){y}, (const void *const[]){y, w->divisor}, (const ptrdiff_t[]){1, 0},
                  NULL);
}

/* Of sums of blocks; of what max pooling's gradient spreads out these are the gradient itself. */
static void begin_blocks(const plan *p, const fnn_call *call, pass_run *w) {
    ptrdiff_t step;
    w->step_b = 0, w->step_r = w->s.k;
    w->gather = call->unpooled ? NULL : &p->all;
    if (call->unpooled) w->x = call->unpooled->in[0]->data;
    else w->width = call->in[0]->shape[3];
    w->is_dense = fnn_order_step(&p->all, &step) && step == 1;
    w->sum_blocks = fnn_kernels_of(call->in[0]->dtype)->sum_blocks;
}

/* Sets up the first pass; it reads the input where it lies if few steps can say so and the folding allows it. */
static void begin(const plan *p, const fnn_call *call, pass_run *w) {
    const fnn_tensor *x = call->in[0];
    const pass *s = &p->passes[0];
    ptrdiff_t step_k;
    w->s = *s;
    w->x = x->data;
    w->size = fnn_itemsize(x->dtype);
    w->width = 0;
    if (p->blocks) {
        begin_blocks(p, call, w);
        return;
    }
    int plain = fnn_order_step(&p->input[0], &w->step_b);
    plain &= fnn_order_step(&p->input[1], &w->step_r);
    plain &= fnn_order_step(&p->input[2], &step_k);
    plain &= s->k > 1 ? step_k == 1 && (s->fold == 1 || w->step_r == s->k) : s->r == 1 || w->step_r == 1;
    w->gather = plain ? NULL : &p->all;
}

static double pass_ns(const pass_run *w) {
    return (double)(w->s.b * w->s.r * w->s.k) * (double)w->size * (w->gather ? 0.2 : 0.08);
}

/* Reduces the input of `first` into y, dense in the order of p->result; divisor: NULL or one real. */
static void run_passes(const fnn_call *call, const plan *p, const pass_run *first, const void *divisor, char *y) {
    pass_run w = *first;
    for (int i = 0; i < p->count; i++) {
        const pass *s = &w.s;
        if (i > 0) w.s = p->passes[i], w.gather = NULL, w.width = 0, w.step_b = s->r * s->k, w.step_r = s->k;
        int last = i == p->count - 1;
        w.divisor = last ? divisor : NULL;
        w.y = last ? y : (char *)at(call->shared, i % 2 * p->partial, w.size);
        fnn_parallel_for(call, fnn_ceil_div(s->b, s->outer) * s->p * s->q, pass_ns(&w), run_pass, &w);
        w.x = w.y;
    }
}

/* ---- the ops ---- */

static int check_axes(fnn_call *call, int64_t mask) {
    int rank = call->in[0]->rank;
    if (mask >> rank)
        return fnn_fail(call, FNN_VALUE_ERROR, "attribute 'axes' has mask %lld, but x has only %d axes", (long long)mask,
                        rank);
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
    if (!status) status = fnn_check_summable(call, call->in[0]);
    if (!status && call->op == FNN_OP_sum && call->in[0]->dtype == FNN_INT64 && call->attr.f[0] != 1)
        return fnn_fail(call, FNN_VALUE_ERROR, "attribute 'divisor' is %g, but must be 1 where integers are added", call->attr.f[0]);
    if (!status) set_result(call, call->in[0]->dtype, call->attr.i[0], call->attr.i[1] != 0);
    return status;
}

/* An extremum of nothing does not exist: every reduced axis must have an element, unless the result has none either. */
static int check_nonempty(fnn_call *call, int64_t mask) {
    const fnn_tensor *x = call->in[0];
    for (int d = 0; d < x->rank; d++)
        if (mask >> d & 1 && x->shape[d] == 0)
            return fnn_fail(call, FNN_VALUE_ERROR, "x has shape %s: axis %d is empty and has no extremum",
                            fnn_shape_text(x), d);
    return FNN_OK;
}

static int extremum_infer(fnn_call *call) {
    int status = sum_infer(call);
    return status ? status : check_nonempty(call, call->attr.i[0]);
}

/* Shared: partial results of two passes, then room for a dense result when y is not. Scratch: one gathered block. */
static void plan_workspace(const plan *p, const fnn_call *call, fnn_workspace *ws) {
    pass_run w;
    begin(p, call, &w);
    ws->shared = (size_t)(2 * p->partial + p->result.size) * w.size;
    ws->scratch = w.width ? blocks_bytes(&w) : w.gather ? part_bytes(&w.s, w.size) : 0;
}

static void reduce_workspace(const fnn_call *call, fnn_workspace *ws) {
    const fnn_tensor *x = call->in[0];
    if (fnn_numel(x) == 0) return;
    plan p;
    make_plan(call, call->attr.i[0], call->attr.i[1] != 0, &p);
    plan_workspace(&p, call, ws);
    if (fnn_order_is_dense(&p.result)) ws->shared -= (size_t)p.result.size * fnn_itemsize(x->dtype);
}

/* A sum of blocks is not -0: beside pooled gradients there are zeros, and they come first where it is that of the pooled map. */
static void clear_negative_zeros(const fnn_tensor *x, ptrdiff_t n, char *y) {
    const double zero = 0;
    fnn_kernels_of(x->dtype)->add(n, (void *const[]){y}, (const void *const[]){y, &zero}, (const ptrdiff_t[]){1, 0}, NULL);
}

static int reduce(fnn_call *call, int kind, const void *divisor) {
    const fnn_tensor *x = call->in[0];
    fnn_tensor *y = call->out[0];
    plan p;
    pass_run w = {.with = reducer_of(kind, x->dtype), .divide = fnn_kernels_of(x->dtype)->div};
    make_plan(call, call->attr.i[0], call->attr.i[1] != 0, &p);
    begin(&p, call, &w);
    char *dense = fnn_order_is_dense(&p.result) ? y->data : (char *)at(call->shared, 2 * p.partial, w.size);
    run_passes(call, &p, &w, divisor, dense);
    if (p.blocks) clear_negative_zeros(x, p.result.size, dense);
    if (dense != y->data) fnn_order_scatter_all(call, &p.result, y->data, w.size, dense);
    return FNN_OK;
}

/* y: x summed over `axes` and divided by `divisor`; an empty sum is 0 before the division. */
static int sum_run(fnn_call *call) {
    const fnn_tensor *x = call->in[0];
    float narrow = (float)call->attr.f[0];
    const void *divisor = x->dtype == FNN_FLOAT32 ? (const void *)&narrow : &call->attr.f[0];
    if (fnn_numel(x)) return reduce(call, SUM, call->attr.f[0] == 1 ? NULL : divisor);
    fnn_call empty = {.op = FNN_OP_fill, .out = {call->out[0]}, .attr.f = {0 / call->attr.f[0]}};
    return fnn_fill.run(&empty);
}

static int sum_can_unpool(const fnn_call *call, const fnn_call *pooling) {
    return is_sum_of_blocks(call) && fnn_numel(call->in[0]) && fnn_pool_is_of_blocks(pooling);
}

const fnn_driver fnn_sum = {.infer = sum_infer, .workspace = reduce_workspace, .run = sum_run, .can_unpool = sum_can_unpool};

/* y: the largest element of x over `axes`; NaN wins. */
static int max_reduce_run(fnn_call *call) {
    return fnn_numel(call->in[0]) ? reduce(call, MAX, NULL) : FNN_OK;
}

/* y: the smallest element of x over `axes`; NaN wins. */
static int min_reduce_run(fnn_call *call) {
    return fnn_numel(call->in[0]) ? reduce(call, MIN, NULL) : FNN_OK;
}

const fnn_driver fnn_max_reduce = {.infer = extremum_infer, .workspace = reduce_workspace, .run = max_reduce_run};
const fnn_driver fnn_min_reduce = {.infer = extremum_infer, .workspace = reduce_workspace, .run = min_reduce_run};

/* ---- argmax ---- */

typedef struct {
    pass_run w;
    const char *extremum; /* (b, k) */
    int64_t *index;       /* (b, k) */
} find_run;

/* All rows of one block of columns, in blocks from the last to the first: the first match is written last. */
static void run_find(void *context, ptrdiff_t chunk, void *scratch) {
    const find_run *f = context;
    const pass *s = &f->w.s;
    ptrdiff_t c = chunk % s->q * s->cols, b = chunk / s->q * s->outer, width = fnn_min(s->cols, s->k - c);
    ptrdiff_t outer = fnn_min(s->outer, s->b - b), step_b, step_r, here = b * s->k + c;
    const char *m = at(f->extremum, here, f->w.size);
    for (ptrdiff_t r = (s->p - 1) * s->rows; r >= 0; r -= s->rows) {
        ptrdiff_t n = fnn_min(s->rows, s->r - r);
        const char *x = block_at(&f->w, b, outer, r, n, c, width, scratch, &step_b, &step_r);
        if (s->k == 1) f->w.with.find_rows(outer, n, x, step_b, m, r, f->index + here);
        else
            for (ptrdiff_t i = 0; i < outer; i++)
                f->w.with.find_columns(n, width, at(x, i * step_b, f->w.size), step_r, at(m, i * s->k, f->w.size), r,
                                       f->index + here + i * s->k);
    }
}

static int argmax_infer(fnn_call *call) {
    const fnn_tensor *x = call->in[0];
    int64_t axis = call->attr.i[0];
    if (axis < 0 || axis >= x->rank)
        return fnn_fail(call, FNN_VALUE_ERROR, "attribute 'axis' is %lld, but x has shape %s", (long long)axis,
                        fnn_shape_text(x));
    set_result(call, FNN_INT64, 1ll << axis, call->attr.i[1] != 0);
    const int status = fnn_check_summable(call, x);
    return status ? status : check_nonempty(call, 1ll << axis);
}

static void argmax_workspace(const fnn_call *call, fnn_workspace *ws) {
    const fnn_tensor *x = call->in[0];
    if (fnn_numel(x) == 0) return;
    plan p;
    make_plan(call, 1ll << call->attr.i[0], call->attr.i[1] != 0, &p);
    plan_workspace(&p, call, ws);
    ws->shared = (ws->shared + 7) / 8 * 8 + (size_t)p.result.size * sizeof(int64_t);
    const pass *first = &p.passes[0];
    const size_t block = (size_t)(first->outer * first->rows * first->cols) * fnn_itemsize(x->dtype); /* of the search */
    if (ws->scratch && ws->scratch < block) ws->scratch = block;
}

/* y: int64, where along `axis` x is largest (or smallest): the first of equals, or the first NaN. Two readings: the extremum,
 * which is a reduction like the others, then the search for it, which stops early along rows. */
static int argmax_run(fnn_call *call) {
    const fnn_tensor *x = call->in[0];
    fnn_tensor *y = call->out[0];
    if (fnn_numel(x) == 0) return FNN_OK;
    plan p;
    find_run f = {.w = {.with = reducer_of(call->attr.i[2] ? MIN : MAX, x->dtype)}};
    make_plan(call, 1ll << call->attr.i[0], call->attr.i[1] != 0, &p);
    begin(&p, call, &f.w);
    ptrdiff_t bytes = (2 * p.partial + p.result.size) * (ptrdiff_t)f.w.size;
    f.extremum = at(call->shared, 2 * p.partial, f.w.size);
    run_passes(call, &p, &f.w, NULL, (char *)f.extremum);
    int direct = fnn_order_is_dense(&p.result);
    f.index = direct ? y->data : (void *)((char *)call->shared + (bytes + 7) / 8 * 8);
    fnn_parallel_for(call, fnn_ceil_div(f.w.s.b, f.w.s.outer) * f.w.s.q, pass_ns(&f.w), run_find, &f);
    if (!direct) fnn_order_scatter_all(call, &p.result, y->data, sizeof(int64_t), f.index);
    return FNN_OK;
}

const fnn_driver fnn_argmax = {.infer = argmax_infer, .workspace = argmax_workspace, .run = argmax_run};
