/* random.c (ops): uniform, normal, dropout_forward, randperm. Element e of a tensor, counted in canonical order whatever its
 * strides, takes its own bits of the launch's stream (kernels/random.h), so that nothing depends on chunks or threads. */
#include "generator.h"
#include "order.h"

#include <float.h>
#include <math.h>

enum { CHUNK = 16384 };

typedef struct {
    const fnn_kernels *K;
    fnn_stream stream;
    fnn_order y, x, mask;
    const fnn_call *call;
    double a, b, c;  /* low, high, largest below high; or mean, std; or scale, shift, dropped */
    uint64_t limit;
} plan;

/* Fills need an output that the caller gives, of the right dtype. */
static int check_given(fnn_call *call, int is_ok, const char *allowed) {
    if (call->out[0]->rank < 0) return fnn_fail(call, FNN_TYPE_ERROR, "writes into an output that the caller gives");
    if (!is_ok)
        return fnn_fail(call, FNN_TYPE_ERROR, "output 'y' is %s %s, but must be %s", fnn_dtype_name(call->out[0]->dtype),
                        fnn_shape_text(call->out[0]), allowed);
    return fnn_check_generator(call, call->in[0]);
}

static plan make_plan(const fnn_call *call, const fnn_tensor *generator) {
    const fnn_tensor *y = call->out[0];
    return (plan){.K = fnn_kernels_of(y->dtype), .stream = fnn_stream_of(generator, call->attr.i[0]), .y = fnn_order_canonical(y),
                  .call = call};
}

/* A staging area for one chunk of y where its elements do not lie in canonical order. */
static void fill_workspace(const fnn_call *call, fnn_workspace *ws) {
    fnn_order y = fnn_order_canonical(call->out[0]);
    if (!fnn_order_is_dense(&y)) ws->scratch = CHUNK * fnn_itemsize(call->out[0]->dtype);
}

static void run_fill_chunk(const plan *p, ptrdiff_t chunk, void *scratch, int is_normal) {
    const fnn_tensor *y = p->call->out[0];
    ptrdiff_t from = chunk * CHUNK, n = fnn_min(CHUNK, p->y.size - from);
    int is_dense = fnn_order_is_dense(&p->y);
    void *to = is_dense ? fnn_at(y->data, from, y->dtype) : scratch;
    if (is_normal) p->K->random_normal(n, &p->stream, from, p->a, p->b, to);
    else p->K->random_uniform(n, &p->stream, from, p->a, p->b, p->c, to);
    if (!is_dense) fnn_order_scatter(&p->y, y->data, fnn_itemsize(y->dtype), from, n, to);
}

/* ---- uniform ---- */

static int uniform_infer(fnn_call *call) {
    double low = call->attr.f[0], high = call->attr.f[1], most = call->out[0]->dtype == FNN_FLOAT64 ? DBL_MAX : FLT_MAX;
    if (!(low <= high && -most <= low && high <= most && high - low <= most))
        return fnn_fail(call, FNN_VALUE_ERROR,
                        "low is %g and high %g, but low must be at most high and both and their difference be finite in the dtype",
                        low, high);
    return check_given(call, call->out[0]->dtype <= FNN_FLOAT64, "float32 or float64");
}

static void run_uniform(void *context, ptrdiff_t chunk, void *scratch) { run_fill_chunk(context, chunk, scratch, 0); }
static double uniform_cost(const fnn_call *call) { return 1.3 * (double)fnn_numel(call->out[0]); }

/* y: any shape and strides, given by the caller. */
static int uniform_run(fnn_call *call) {
    plan p = make_plan(call, call->in[0]);
    p.a = call->attr.f[0], p.b = call->attr.f[1];
    p.c = call->out[0]->dtype == FNN_FLOAT64 ? nextafter(p.b, p.a) : nextafterf((float)p.b, (float)p.a);
    fnn_parallel_for(call, fnn_ceil_div(p.y.size, CHUNK), uniform_cost(call), run_uniform, &p);
    return FNN_OK;
}

const fnn_driver fnn_uniform = {
    .infer = uniform_infer, .workspace = fill_workspace, .cost = uniform_cost, .run = uniform_run};

/* ---- normal ---- */

static int normal_infer(fnn_call *call) {
    if (!(call->attr.f[1] >= 0)) return fnn_fail(call, FNN_VALUE_ERROR, "std is %g, but must be at least 0", call->attr.f[1]);
    return check_given(call, call->out[0]->dtype <= FNN_FLOAT64, "float32 or float64");
}

static void run_normal(void *context, ptrdiff_t chunk, void *scratch) { run_fill_chunk(context, chunk, scratch, 1); }
static double normal_cost(const fnn_call *call) { return 2.3 * (double)fnn_numel(call->out[0]); }

/* y: any shape and strides, given by the caller. */
static int normal_run(fnn_call *call) {
    plan p = make_plan(call, call->in[0]);
    p.a = call->attr.f[0], p.b = call->attr.f[1];
    fnn_parallel_for(call, fnn_ceil_div(p.y.size, CHUNK), normal_cost(call), run_normal, &p);
    return FNN_OK;
}

const fnn_driver fnn_normal = {.infer = normal_infer, .workspace = fill_workspace, .cost = normal_cost, .run = normal_run};

/* ---- dropout ---- */

static int dropout_infer(fnn_call *call) {
    const fnn_tensor *x = call->in[0];
    if (!(call->attr.f[0] >= 0 && call->attr.f[0] <= 1))
        return fnn_fail(call, FNN_VALUE_ERROR, "p is %g, but must be a probability between 0 and 1", call->attr.f[0]);
    fnn_set_alike(call->out[0], x->dtype, x);
    fnn_set_alike(call->out[1], FNN_BOOL, x);
    return fnn_check_generator(call, call->in[1]);
}

static void dropout_workspace(const fnn_call *call, fnn_workspace *ws) {
    ws->scratch = CHUNK * (2 * fnn_itemsize(call->in[0]->dtype) + 1);
}

static void run_dropout(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    fnn_tensor *y = p->call->out[0], *mask = p->call->out[1];
    const fnn_tensor *x = p->call->in[0];
    size_t size = fnn_itemsize(x->dtype);
    ptrdiff_t from = chunk * CHUNK, n = fnn_min(CHUNK, p->y.size - from);
    int y_dense = fnn_order_is_dense(&p->y), x_dense = fnn_order_is_dense(&p->x), mask_dense = fnn_order_is_dense(&p->mask);
    char *area = scratch;
    void *y_at = y_dense ? fnn_at(y->data, from, y->dtype) : area;
    void *x_at = x_dense ? fnn_at(x->data, from, x->dtype) : area + CHUNK * size;
    void *mask_at = mask_dense ? fnn_at(mask->data, from, FNN_BOOL) : area + 2 * CHUNK * size;
    if (!x_dense) fnn_order_gather(&p->x, x->data, size, from, n, x_at);
    p->K->random_dropout(n, &p->stream, from, p->limit, p->a, p->b, p->c, x_at, y_at, mask_at);
    if (!y_dense) fnn_order_scatter(&p->y, y->data, size, from, n, y_at);
    if (!mask_dense) fnn_order_scatter(&p->mask, mask->data, 1, from, n, mask_at);
}

static double dropout_cost(const fnn_call *call) { return 1.5 * (double)fnn_numel(call->out[0]); }

/* y, mask, x: one shape, any strides. */
static int dropout_run(fnn_call *call) {
    plan p = make_plan(call, call->in[1]);
    p.x = fnn_order_canonical(call->in[0]), p.mask = fnn_order_canonical(call->out[1]);
    p.limit = (uint64_t)ceil(call->attr.f[0] * 0x1p32), p.a = call->attr.f[1], p.b = call->attr.f[2], p.c = call->attr.f[3];
    fnn_parallel_for(call, fnn_ceil_div(p.y.size, CHUNK), dropout_cost(call), run_dropout, &p);
    return FNN_OK;
}

const fnn_driver fnn_dropout_forward = {
    .infer = dropout_infer, .workspace = dropout_workspace, .cost = dropout_cost, .run = dropout_run};

/* ---- permutations ---- */

enum { DRAWS = 256 }; /* 64-bit numbers made at a time */

typedef struct {
    const fnn_kernels *K;
    fnn_stream stream;
    uint64_t block;
    int used;
    uint64_t numbers[DRAWS + 30]; /* the kernel may write 15 blocks more */
} source;

static uint64_t next_number(source *s) {
    if (s->used == DRAWS) {
        s->K->random_words(&s->stream, s->block, DRAWS / 2, s->numbers);
        s->block += DRAWS / 2;
        s->used = 0;
    }
    return s->numbers[s->used++];
}

/* Uniform in 0 .. range - 1, without bias: the upper half of number * range, drawn again in the few cases where the lower half
 * shows that some results would come once too often (Lemire, "Fast random integer generation in an interval", 2019). */
static uint64_t next_below(source *s, uint64_t range) {
    __extension__ typedef unsigned __int128 wide;
    wide product = (wide)next_number(s) * range;
    if ((uint64_t)product < range) {
        uint64_t threshold = -range % range;
        while ((uint64_t)product < threshold) product = (wide)next_number(s) * range;
    }
    return (uint64_t)(product >> 64);
}

static int randperm_infer(fnn_call *call) {
    return check_given(call, call->out[0]->dtype == FNN_INT64 && call->out[0]->rank == 1, "int64 with one axis");
}

static double randperm_cost(const fnn_call *call) { return 4.0 * (double)fnn_numel(call->out[0]); }

/* y: (n) = the numbers 0 .. n - 1 shuffled by Fisher and Yates' method, inside out. Serial: each exchange needs the last. */
static int randperm_run(fnn_call *call) {
    const fnn_tensor *t = call->out[0];
    int64_t *y = t->data;
    ptrdiff_t step = t->stride[0];
    source s = {.K = fnn_kernels_of(FNN_FLOAT32), .stream = fnn_stream_of(call->in[0], call->attr.i[0]), .used = DRAWS};
    for (ptrdiff_t i = 0; i < t->shape[0]; i++) {
        ptrdiff_t j = (ptrdiff_t)next_below(&s, (uint64_t)i + 1);
        y[i * step] = y[j * step];
        y[j * step] = i;
    }
    return FNN_OK;
}

const fnn_driver fnn_randperm = {.infer = randperm_infer, .cost = randperm_cost, .run = randperm_run};
