/* elementwise.c: the one driver of all elementwise ops: broadcasting, strides, chunks. */
#include "nest.h"
#include "order.h"

#include <string.h>

enum {
    CHUNK = 16384, /* elements a chunk: 64 KB of float32 per operand */
    BLOCK = 512,   /* elements staged at a time when an operand is strided or streamed */
    ACROSS = 16,   /* rows of a tile, at least, where an operand lies along them: a cache line of float32 ... */
    ALONG = 32,    /* ... and its columns, at most: BLOCK elements */
    WHOLE = 64     /* calls that run together begin at multiples of so many elements: chunks cut them between vectors */
};

/* Bytes of scratch an operand has; a line more than a power of two, so that operands do not share cache sets. */
static const ptrdiff_t PITCH = BLOCK * (ptrdiff_t)sizeof(double) + 64;

/* How an operand reaches the kernel: where it lies, or through scratch because its elements are strided, or because it is a
 * large result, written past the caches block by block. */
enum { DIRECT, STRIDED, STREAMED };

typedef struct {
    fnn_nest nest;
    const double *attr;
    void (*kernel) FNN_ELEMENTWISE_ARGS;
    int inputs, outputs, repeats; /* repeats: the kernel takes either input as one element */
    int any_staged, any_streamed;
    int num_ahead, ahead[FNN_MAX_ARGS]; /* operands that are read like a streamed result is written, and so fetched ahead */
    int slot[FNN_MAX_ARGS]; /* which input each operand after the outputs is */
    const void *scalar[FNN_MAX_ARGS];
    char staged[FNN_MAX_ARGS]; /* DIRECT, STRIDED or STREAMED */
    const fnn_kernels *K;
} plan;

static int count(const void *const *arguments) {
    int n = 0;
    while (n < FNN_MAX_ARGS && arguments[n]) n++;
    return n;
}

static int count_outputs(const fnn_call *call) { return count((const void *const *)call->out); }
static int count_inputs(const fnn_call *call) { return count((const void *const *)call->in); }

/* A ":scalar" input reaches the kernel as it is and takes no part in broadcasting. */
static int is_scalar(const fnn_call *call, int k) { return fnn_scalar_inputs(call->op) >> k & 1; }

/* The type the kernel computes in: that of the first real argument. */
static int real_dtype(const fnn_call *call, int inputs) {
    for (int k = 0; k < inputs; k++)
        if (call->in[k]->dtype <= FNN_FLOAT64 && !is_scalar(call, k)) return call->in[k]->dtype;
    return FNN_FLOAT32;
}

/* The dtype after the colon in the k-th output's specification, or `real`. */
static int output_dtype(const char *outputs, int k, int real) {
    for (; k > 0; k--) outputs = strchr(outputs, ',') + 1;
    const char *colon = memchr(outputs, ':', strcspn(outputs, ","));
    return colon && !strncmp(colon + 1, "bool", 4) ? FNN_BOOL : real;
}

/* The input whose layout the results take, so that none is read across memory: the first that is not broadcast. Of four axes NULL,
 * which is channels last, unless that one lies in rows and none along the channels. */
static const fnn_tensor *model_of(const fnn_call *call, int inputs, int rank, const ptrdiff_t *shape) {
    const fnn_tensor *like = NULL;
    for (int k = inputs - 1; k >= 0 && (rank == 3 || rank == 4); k--) {
        const fnn_tensor *x = call->in[k];
        if (is_scalar(call, k) || x->rank != rank || memcmp(x->shape, shape, (size_t)rank * sizeof *shape)) continue;
        if (fnn_lies_in_rows(x) < 0) return NULL;
        if (rank == 3 || fnn_lies_in_rows(x)) like = x;
    }
    return like;
}

static int infer(fnn_call *call) {
    int rank, inputs = count_inputs(call);
    ptrdiff_t shape[FNN_MAX_RANK];
    int status = fnn_broadcast(call, inputs, &rank, shape);
    if (status) return status;
    const fnn_tensor *like = model_of(call, inputs, rank, shape);
    for (int k = 0, n = count_outputs(call); k < n; k++) {
        const int dtype = output_dtype(fnn_ops[call->op].outputs, k, real_dtype(call, inputs));
        if (like) fnn_set_alike(call->out[k], dtype, like);
        else fnn_set_shape(call->out[k], dtype, rank, shape);
    }
    return FNN_OK;
}

/* A result in place of an input is in cache when it is written. */
static int is_streamed(const fnn_call *call, const fnn_nest *nest, int k, int inputs) {
    ptrdiff_t size = (ptrdiff_t)nest->itemsize[k];
    if (nest->size * size < FNN_STREAM_BYTES || nest->shape[nest->rank - 1] < BLOCK) return 0;
    for (int j = 0; j < inputs; j++)
        if (call->in[j]->data == call->out[k]->data) return 0;
    return 1;
}

/* Whether operand k lies in memory as the result does. */
static int is_alike(const fnn_nest *nest, int k) {
    return !memcmp(nest->stride[k], nest->stride[0], (size_t)nest->rank * sizeof nest->stride[k][0]);
}

static void make_plan(const fnn_call *call, plan *p) {
    const fnn_tensor *operand[FNN_MAX_ARGS];
    int inputs = count_inputs(call), operands = p->outputs = count_outputs(call);
    for (int k = 0; k < operands; k++) operand[k] = call->out[k];
    for (int k = 0; k < inputs; k++) {
        p->scalar[k] = is_scalar(call, k) ? call->in[k]->data : NULL;
        if (p->scalar[k]) continue;
        p->slot[operands] = k;
        operand[operands++] = call->in[k];
    }
    p->inputs = inputs, p->repeats = fnn_repeats_inputs(call);
    fnn_nest_build(&p->nest, operand, operands);
    p->attr = call->attr.f;
    p->K = fnn_kernels_of(real_dtype(call, inputs));
    memcpy(&p->kernel, (const char *)p->K + fnn_ops[call->op].kernel, sizeof p->kernel);
    p->any_staged = p->any_streamed = p->num_ahead = 0;
    for (int k = 0; k < operands; k++) {
        ptrdiff_t step = p->nest.stride[k][p->nest.rank - 1];
        int repeats = step == 0 && k >= p->outputs && p->repeats;
        p->staged[k] = step != 1 && !repeats ? STRIDED : DIRECT;
        if (step == 1 && k < p->outputs && is_streamed(call, &p->nest, k, inputs)) p->staged[k] = STREAMED;
        p->any_staged |= p->staged[k] != DIRECT;
        p->any_streamed |= p->staged[k] == STREAMED;
        if (k >= p->outputs && p->nest.itemsize[k] == p->nest.itemsize[0] && is_alike(&p->nest, k)) p->ahead[p->num_ahead++] = k;
    }
}

/* A block of result k; with the first result the next block's inputs come into the cache. Apart, as its memory would slow down
 * run_block for short rows (a bias of 1024 on 64 rows: 10 %). */
static __attribute__((noinline)) void write_past(const plan *p, int k, char *const *at, ptrdiff_t bytes, const void *from) {
    fnn_transfer t = fnn_transfer_of(at[k], from, bytes);
    t.count = k ? 0 : p->num_ahead;
    for (int j = 0; j < t.count; j++) t.ahead[j] = at[p->ahead[j]] + bytes;
    p->K->transfer(&t);
}

/* n elements along the inner dimension from `at` on, at most BLOCK of them when an operand is staged. */
static void run_block(const plan *p, char *const *at, ptrdiff_t n, char *scratch) {
    void *out[FNN_MAX_ARGS];
    const void *in[FNN_MAX_ARGS];
    ptrdiff_t step[FNN_MAX_ARGS];
    const fnn_nest *nest = &p->nest;
    int inner = nest->rank - 1;
    for (int k = 0; k < nest->operands; k++) {
        char *here = p->staged[k] ? scratch + k * PITCH : at[k];
        ptrdiff_t stride = nest->stride[k][inner];
        if (k < p->outputs) {
            out[k] = here;
            continue;
        }
        if (p->staged[k]) fnn_move_strided(here, 1, at[k], stride, n, nest->itemsize[k]);
        in[p->slot[k]] = here;
        step[p->slot[k]] = p->staged[k] ? 1 : stride;
    }
    for (int k = 0; k < p->inputs; k++)
        if (p->scalar[k]) in[k] = p->scalar[k];
    p->kernel(n, out, in, step, p->attr);
    for (int k = 0; k < p->outputs; k++) {
        if (p->staged[k] == STRIDED) fnn_move_strided(at[k], nest->stride[k][inner], out[k], 1, n, nest->itemsize[k]);
        if (p->staged[k] == STREAMED) write_past(p, k, at, n * (ptrdiff_t)nest->itemsize[k], out[k]);
    }
}

/* n elements from `at` on, which is left behind them, in blocks where operands go through scratch. */
static void run_run(const plan *p, char **at, ptrdiff_t n, char *scratch) {
    const fnn_nest *nest = &p->nest;
    for (ptrdiff_t m; n > 0; n -= m) {
        m = p->any_staged ? fnn_min(n, BLOCK) : n;
        run_block(p, at, m, scratch);
        for (int k = 0; k < nest->operands; k++) at[k] += m * nest->stride[k][nest->rank - 1] * (ptrdiff_t)nest->itemsize[k];
    }
}

/* ---- tiles: an input lies along another dimension than the results, as images in rows beside channels last ---- */

static int has_dense_rows(const fnn_nest *nest, int k) {
    return nest->stride[k][nest->rank - 1] == 1 && nest->stride[k][nest->rank - 2] == nest->shape[nest->rank - 1];
}

/* Whether a tile of whole rows is one run for the kernel, once the inputs that are not so are staged. */
static int rows_are_joined(const plan *p) {
    for (int k = 0; k < p->outputs; k++)
        if (!has_dense_rows(&p->nest, k)) return 0;
    return p->nest.shape[p->nest.rank - 1] <= ALONG;
}

/* Whether there is such an input, and results have rows that it can be turned into. */
static int is_tiled(const plan *p) {
    const fnn_nest *nest = &p->nest;
    const int last = nest->rank - 1;
    int found = 0;
    if (last < 1 || nest->shape[last - 1] < 4 || nest->shape[last] < (rows_are_joined(p) ? 2 : 4)) return 0;
    for (int k = 0; k < nest->operands; k++) {
        if (k < p->outputs && nest->stride[k][last] != 1) return 0;
        found |= k >= p->outputs && nest->stride[k][last - 1] == 1 && nest->stride[k][last] > 1 && nest->itemsize[k] >= 4;
    }
    return found;
}

/* rows x columns of an operand, dense. */
static void stage_tile(const fnn_nest *nest, int k, const char *at, ptrdiff_t rows, ptrdiff_t columns, char *to) {
    const ptrdiff_t row = nest->stride[k][nest->rank - 2], column = nest->stride[k][nest->rank - 1], size = (ptrdiff_t)nest->itemsize[k];
    if (row == 1 && column > 1 && size >= 4) {
        const fnn_kernels *K = fnn_kernels_of(size == 8 ? FNN_FLOAT64 : FNN_FLOAT32); /* moves them, whatever they mean */
        if (columns > 1 && columns <= FNN_FEW_PLANES) K->planes_join(rows, columns, at, column, to);
        else K->conv_pack(1, rows, columns, at, 1, column, to, NULL, columns);
        return;
    }
    for (ptrdiff_t r = 0; r < rows; r++)
        fnn_move_strided(to + r * columns * size, 1, at + r * row * size, column, columns, (size_t)size);
}

/* A tile that begins at at[]: its kernel goes from row to row, or over all of them at once. */
static void run_tile(const plan *p, char *const *at, ptrdiff_t rows, ptrdiff_t columns, int joined, char *scratch) {
    const fnn_nest *nest = &p->nest;
    const int last = nest->rank - 1;
    char *from[FNN_MAX_ARGS];
    ptrdiff_t row[FNN_MAX_ARGS]; /* bytes from one to the next */
    void *out[FNN_MAX_ARGS];
    const void *in[FNN_MAX_ARGS];
    ptrdiff_t step[FNN_MAX_ARGS];
    for (int k = 0; k < nest->operands; k++) {
        const int is_one = p->repeats && nest->stride[k][last] == 0 && nest->stride[k][last - 1] == 0;
        const int is_staged = k >= p->outputs && (p->staged[k] || (joined && !is_one && !has_dense_rows(nest, k)));
        from[k] = is_staged ? scratch + k * PITCH : at[k];
        row[k] = (is_staged ? columns : nest->stride[k][last - 1]) * (ptrdiff_t)nest->itemsize[k];
        if (is_staged) stage_tile(nest, k, at[k], rows, columns, from[k]);
        if (k >= p->outputs) step[p->slot[k]] = is_staged ? 1 : nest->stride[k][last];
    }
    for (int k = 0; k < p->inputs; k++)
        if (p->scalar[k]) in[k] = p->scalar[k];
    for (ptrdiff_t r = 0, n = joined ? rows : 1; r < rows; r += n) {
        for (int k = 0; k < nest->operands; k++)
            if (k < p->outputs) out[k] = from[k] + r * row[k];
            else in[p->slot[k]] = from[k] + r * row[k];
        p->kernel(n * columns, out, in, step, p->attr);
    }
}

static ptrdiff_t rows_of_chunk(const fnn_nest *nest) {
    return fnn_round_up(fnn_max(CHUNK / nest->shape[nest->rank - 1], 1), ACROSS);
}

static void run_tiles(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const fnn_nest *nest = &p->nest;
    const int last = nest->rank - 1;
    const ptrdiff_t inner = nest->shape[last], rows = nest->shape[last - 1], columns = fnn_min(inner, ALONG), across = BLOCK / columns;
    const ptrdiff_t end = fnn_min((chunk + 1) * rows_of_chunk(nest), nest->size / inner);
    const int joined = rows_are_joined(p);
    for (ptrdiff_t r = chunk * rows_of_chunk(nest), n; r < end; r += n) {
        n = fnn_min(fnn_min(rows - r % rows, end - r), across);
        char *at[FNN_MAX_ARGS];
        fnn_nest_seek(nest, r * inner, at);
        for (ptrdiff_t c = 0; c < inner; c += columns) {
            run_tile(p, at, n, fnn_min(columns, inner - c), joined, scratch);
            for (int k = 0; k < nest->operands; k++) at[k] += columns * nest->stride[k][last] * (ptrdiff_t)nest->itemsize[k];
        }
    }
}

/* Elements from .. to - 1 in the nest's order. */
static void run_span(const plan *p, ptrdiff_t from, ptrdiff_t to, char *scratch) {
    const fnn_nest *nest = &p->nest;
    int last = nest->rank - 1;
    ptrdiff_t inner = nest->shape[last];
    ptrdiff_t rows = last ? nest->shape[last - 1] : 1, row = from / inner % rows;
    char *at[FNN_MAX_ARGS];
    fnn_nest_seek(nest, from, at);
    for (ptrdiff_t n; from < to; from += n) {
        n = fnn_min(inner - from % inner, to - from);
        run_run(p, at, n, scratch);
        if (++row < rows) {
            for (int k = 0; k < nest->operands; k++)
                at[k] += (nest->stride[k][last - 1] - inner * nest->stride[k][last]) * (ptrdiff_t)nest->itemsize[k];
        } else if (from + n < to) {
            fnn_nest_seek(nest, from + n, at);
            row = 0;
        }
    }
    if (p->any_streamed) p->K->stream_end();
}

static void run_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    run_span(p, chunk * CHUNK, fnn_min((chunk + 1) * CHUNK, p->nest.size), scratch);
}

/* From shapes and strides alone: a captured program asks once, and may place operands elsewhere later. */
static void workspace(const fnn_call *call, fnn_workspace *ws) {
    plan p;
    make_plan(call, &p);
    int is_large = 0;
    for (int k = 0; k < p.outputs; k++) is_large |= p.nest.size * (ptrdiff_t)p.nest.itemsize[k] >= FNN_STREAM_BYTES;
    if (p.any_staged || is_large) ws->scratch = (size_t)(PITCH * p.nest.operands);
}

/* ---- calls behind others ---- */

/* A call whose operands are dense and alike, or one element, on rows of `n` elements: where its operands begin, and how many bytes
 * later in the next row. */
typedef struct {
    void (*kernel) FNN_ELEMENTWISE_ARGS;
    const double *attr;
    int outputs, inputs;
    char *out[FNN_MAX_ARGS], *in[FNN_MAX_ARGS];
    ptrdiff_t out_row[FNN_MAX_ARGS], in_row[FNN_MAX_ARGS];
    ptrdiff_t step[FNN_MAX_ARGS]; /* 0: one element */
} range;

/* Rows of n elements, the first from `begin` on and each `apart` after the one before. leader: its result has no other memory than
 * `part`, where rows follow each other. */
static range range_of(const fnn_call *call, ptrdiff_t begin, ptrdiff_t n, ptrdiff_t apart, const fnn_call *leader, char *part) {
    range r = {.attr = call->attr.f, .outputs = count_outputs(call), .inputs = count_inputs(call)};
    const char *K = (const char *)fnn_kernels_of(real_dtype(call, r.inputs));
    memcpy(&r.kernel, K + fnn_ops[call->op].kernel, sizeof r.kernel);
    for (int k = 0; k < r.outputs + r.inputs; k++) {
        const int i = k - r.outputs, is_output = i < 0;
        const fnn_tensor *t = is_output ? call->out[k] : call->in[i];
        const ptrdiff_t step = is_output || !fnn_is_one_element(t), size = step * (ptrdiff_t)fnn_itemsize(t->dtype);
        const int is_part = leader && t->data == leader->out[0]->data;
        char *at = is_part ? part : (char *)t->data + begin * size;
        const ptrdiff_t row = (is_part ? n : apart) * size;
        if (is_output) r.out[k] = at, r.out_row[k] = row;
        else r.in[i] = at, r.in_row[i] = row, r.step[i] = step;
    }
    return r;
}

static void run_row(const range *r, ptrdiff_t row, ptrdiff_t n) {
    void *out[FNN_MAX_ARGS];
    const void *in[FNN_MAX_ARGS];
    for (int k = 0; k < r->outputs; k++) out[k] = r->out[k] + row * r->out_row[k];
    for (int k = 0; k < r->inputs; k++) in[k] = r->in[k] + row * r->in_row[k];
    r->kernel(n, out, in, r->step, r->attr);
}

static void run_range(const fnn_call *call, ptrdiff_t begin, ptrdiff_t n) {
    const range r = range_of(call, begin, n, 0, NULL, NULL);
    run_row(&r, 0, n);
}

void fnn_follow(const fnn_call *call, ptrdiff_t begin, ptrdiff_t n) {
    for (const fnn_call *f = call->follower; f; f = f->follower) run_range(f, begin, n);
}

/* Some calls at a time, each row by all of them while it is in cache. */
void fnn_follow_rows(const fnn_call *call, ptrdiff_t begin, ptrdiff_t n, ptrdiff_t rows, ptrdiff_t apart, void *part) {
    enum { TOGETHER = 8 };
    range r[TOGETHER];
    for (const fnn_call *f = call->follower; f;) {
        int count = 0;
        for (; f && count < TOGETHER; f = f->follower) r[count++] = range_of(f, begin, n, apart, part ? call : NULL, part);
        for (ptrdiff_t i = 0; i < rows; i++)
            for (int k = 0; k < count; k++) run_row(&r[k], i, n);
    }
}

typedef struct {
    const fnn_call *call;
    char *part;
} whole;

static void follow_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    const whole *w = context;
    const ptrdiff_t begin = chunk * CHUNK, n = fnn_min(CHUNK, fnn_numel(w->call->out[0]) - begin);
    (void)scratch;
    fnn_follow_rows(w->call, begin, n, 1, 0, w->part ? w->part + begin * (ptrdiff_t)fnn_itemsize(w->call->out[0]->dtype) : NULL);
}

void fnn_follow_all(const fnn_call *call, void *part) {
    whole w = {.call = call, .part = part};
    double ns = 0;
    if (!call->follower) return;
    for (const fnn_call *f = call->follower; f; f = f->follower) ns += fnn_cost(f);
    fnn_parallel_for(call, fnn_ceil_div(fnn_numel(call->out[0]), CHUNK), ns, follow_chunk, &w);
}

/* ---- several calls at once ---- */

/* Calls one behind another, as if their elements were one array: call k's begin at starts[k], on a whole vector. */
typedef struct {
    const fnn_call *calls;
    const ptrdiff_t *starts; /* count + 1 of them */
    ptrdiff_t count;
} batch;

/* Whether run_range may be used: operands lie in memory alike, scalars left out and what the kernel repeats. */
static int lies_alike(const fnn_call *call) {
    const fnn_tensor *y = call->out[0];
    if (!fnn_is_dense(y)) return 0;
    for (int k = 1; call->out[k]; k++)
        if (!fnn_same_layout(call->out[k], y)) return 0;
    for (int k = 0, inputs = count_inputs(call); k < inputs; k++) {
        int repeats = fnn_repeats_inputs(call) && fnn_is_one_element(call->in[k]);
        if (!is_scalar(call, k) && !repeats && !fnn_same_layout(call->in[k], y)) return 0;
    }
    return 1;
}

static void run_elements(const fnn_call *call, ptrdiff_t from, ptrdiff_t to, char *scratch) {
    plan p;
    if (lies_alike(call)) {
        run_range(call, from, to - from);
        return;
    }
    make_plan(call, &p);
    run_span(&p, from, to, scratch);
}

/* The last call that begins at element `at` or before. */
static ptrdiff_t call_at(const batch *b, ptrdiff_t at) {
    ptrdiff_t low = 0, high = b->count;
    while (high - low > 1) {
        ptrdiff_t middle = (low + high) / 2;
        if (b->starts[middle] <= at) low = middle;
        else high = middle;
    }
    return low;
}

static void batch_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    const batch *b = context;
    ptrdiff_t at = chunk * CHUNK, end = fnn_min(at + CHUNK, b->starts[b->count]);
    for (ptrdiff_t k = call_at(b, at); at < end; at = b->starts[++k]) {
        const fnn_call *call = &b->calls[k];
        ptrdiff_t to = fnn_min(end - b->starts[k], fnn_numel(call->out[0]));
        if (at - b->starts[k] < to) run_elements(call, at - b->starts[k], to, scratch);
    }
}

size_t fnn_elementwise_scratch(const fnn_call *call) {
    fnn_workspace ws = {0, 0, 0};
    if (!lies_alike(call)) workspace(call, &ws);
    return ws.scratch;
}

void fnn_elementwise_each(const fnn_call *calls, int count, double ns, ptrdiff_t *starts) {
    batch b = {calls, starts, count};
    starts[0] = 0;
    for (int k = 0; k < count; k++) starts[k + 1] = starts[k] + fnn_round_up(fnn_numel(calls[k].out[0]), WHOLE);
    fnn_parallel_for(calls, fnn_ceil_div(starts[count], CHUNK), ns, batch_chunk, &b);
}

/* The head of a chain is dense like what follows it. */
static void lead_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    const fnn_call *call = context;
    const ptrdiff_t begin = chunk * CHUNK, n = fnn_min(CHUNK, fnn_numel(call->out[0]) - begin);
    (void)scratch;
    run_range(call, begin, n);
    fnn_follow(call, begin, n);
}

/* out[]: the broadcast shape of in[]; chunks of CHUNK elements, whatever the strides. */
static int run(fnn_call *call) {
    plan p;
    if (call->follower) {
        fnn_parallel_for(call, fnn_ceil_div(fnn_numel(call->out[0]), CHUNK), fnn_cost(call), lead_chunk, call);
        return FNN_OK;
    }
    make_plan(call, &p);
    if (is_tiled(&p))
        fnn_parallel_for(call, fnn_ceil_div(p.nest.size / p.nest.shape[p.nest.rank - 1], rows_of_chunk(&p.nest)), 2 * fnn_cost(call),
                         run_tiles, &p);
    else fnn_parallel_for(call, fnn_ceil_div(p.nest.size, CHUNK), fnn_cost(call), run_chunk, &p);
    return FNN_OK;
}

const fnn_driver fnn_elementwise = {.infer = infer, .workspace = workspace, .run = run};
