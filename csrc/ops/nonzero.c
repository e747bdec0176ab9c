/* nonzero.c: where elements are other than 0, in logical (C) order. How many there are is the caller's to know: it gives the
 * output. A first loop counts chunk by chunk, a second one writes each chunk's places behind those of the chunks before. */
#include "order.h"

enum { CHUNK = 16384, BLOCK = 512 };

typedef struct {
    const fnn_tensor *x;
    fnn_order order;
    fnn_tensor *y;
    ptrdiff_t *count; /* of each chunk, then of all before it */
} plan;

/* flags[i]: whether the i-th of n elements is other than 0; NaN is. (copy.c's conversion to bool, called block by block, made
 * the whole op 0.5 to 0.8 times as fast.) */
static void test_elements(const void *x, int dtype, ptrdiff_t n, uint8_t *flags) {
#define TEST(type)                                                                                                      \
    for (ptrdiff_t i = 0; i < n; i++) flags[i] = ((const type *)x)[i] != 0;                                             \
    return
    switch (dtype) {
    case FNN_FLOAT32: TEST(float);
    case FNN_FLOAT64: TEST(double);
    case FNN_INT64: TEST(int64_t);
    case FNN_INT32: TEST(int32_t);
    default: TEST(uint8_t);
    }
#undef TEST
}

static ptrdiff_t read_flags(const plan *p, ptrdiff_t from, ptrdiff_t end, uint8_t *flags) {
    char elements[BLOCK * sizeof(double)];
    const ptrdiff_t n = fnn_min(BLOCK, end - from);
    fnn_order_gather(&p->order, p->x->data, fnn_itemsize(p->x->dtype), from, n, elements);
    test_elements(elements, p->x->dtype, n, flags);
    return n;
}

static void count_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    uint8_t flags[BLOCK];
    ptrdiff_t found = 0, end = fnn_min((chunk + 1) * CHUNK, p->order.size);
    (void)scratch;
    for (ptrdiff_t from = chunk * CHUNK, n; from < end; from += n) {
        n = read_flags(p, from, end, flags);
        for (ptrdiff_t i = 0; i < n; i++) found += flags[i];
    }
    p->count[chunk] = found;
}

/* Moves `place` on by n elements. */
static void advance(const fnn_tensor *x, ptrdiff_t n, ptrdiff_t *place) {
    int d = x->rank - 1;
    if (d < 0) return;
    place[d] += n;
    for (; d >= 0 && place[d] >= x->shape[d]; d--) {
        const ptrdiff_t over = place[d] / x->shape[d];
        place[d] -= over * x->shape[d];
        if (d) place[d - 1] += over;
    }
}

/* Which of n flags are set; returns how many. Without a branch, which would be mispredicted again and again. */
static ptrdiff_t find_flags(ptrdiff_t n, const uint8_t *flags, int *found) {
    ptrdiff_t count = 0;
    for (int i = 0; i < n; i++) {
        found[count] = i;
        count += flags[i];
    }
    return count;
}

static void write_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const fnn_tensor *x = p->x;
    uint8_t flags[BLOCK];
    int found[BLOCK];
    ptrdiff_t end = fnn_min((chunk + 1) * CHUNK, p->order.size), place[FNN_MAX_RANK] = {0}, at = 0;
    int64_t *y = (int64_t *)p->y->data + p->count[chunk] * p->y->stride[0];
    (void)scratch;
    for (ptrdiff_t from = chunk * CHUNK, n; from < end; from += n) {
        n = read_flags(p, from, end, flags);
        const ptrdiff_t count = find_flags(n, flags, found);
        for (ptrdiff_t i = 0; i < count; i++, y += p->y->stride[0]) {
            const ptrdiff_t next = from + found[i];
            advance(x, next - at, place);
            at = next;
            for (int d = 0; d < x->rank; d++) y[d * p->y->stride[1]] = place[d];
        }
    }
}

static int infer(fnn_call *call) {
    const fnn_tensor *x = call->in[0], *y = call->out[0];
    if (y->rank < 0) return fnn_fail(call, FNN_TYPE_ERROR, "writes into an output that the caller gives");
    if (y->rank == 2 && y->dtype == FNN_INT64 && y->shape[1] == x->rank) return FNN_OK;
    return fnn_fail(call, FNN_VALUE_ERROR, "output 'y' is %s %s, but must be int64 (how many, %d)", fnn_dtype_name(y->dtype),
                    fnn_shape_text(y), x->rank);
}

static void workspace(const fnn_call *call, fnn_workspace *ws) {
    ws->shared = (size_t)fnn_ceil_div(fnn_numel(call->in[0]), CHUNK) * sizeof(ptrdiff_t);
}

/* y: (how many, rank of x), given by the caller; x: any dtype and layout */
static int run(fnn_call *call) {
    plan p = {.x = call->in[0], .order = fnn_order_of(call->in[0]), .y = call->out[0], .count = call->shared};
    const ptrdiff_t chunks = fnn_ceil_div(p.order.size, CHUNK);
    const double ns = 0.5 * (double)p.order.size;
    fnn_parallel_for(call, chunks, ns, count_chunk, &p);
    ptrdiff_t all = 0;
    for (ptrdiff_t c = 0; c < chunks; c++) {
        const ptrdiff_t here = p.count[c];
        p.count[c] = all;
        all += here;
    }
    if (all != p.y->shape[0])
        return fnn_fail(call, FNN_VALUE_ERROR, "output 'y' has room for %td places, but x has %td", p.y->shape[0], all);
    fnn_parallel_for(call, chunks, 3 * ns, write_chunk, &p);
    return FNN_OK;
}

const fnn_driver fnn_nonzero = {.infer = infer, .workspace = workspace, .run = run};
