/* sort.c: elements along one axis in order, and where they were; all of them or the first `keep`.
 *
 * An element becomes an unsigned key of the same order: a negative real's bits are turned over, NaN lies above all, -0 is 0; where
 * the order descends, the complement. Few of many are kept in a heap; short lines are sorted by insertion, long ones by their
 * digits from the lowest on (Knuth, The Art of Computer Programming 3, 5.2.5), of which those that all keys share are left out.
 * All three leave equal elements as they came. One chunk sorts whole lines. */
#include "order.h"

enum {
    CHUNK = 8192,     /* elements of a chunk, at least one line */
    DIGIT = 256,      /* values of a digit: a byte */
    SHORT = 40,       /* up to so many are sorted by insertion */
    FEW = 8           /* a heap, where at most one of so many is kept */
};

typedef struct {
    uint64_t key;
    int64_t at;
} item;

typedef struct {
    fnn_lines x, values, indices;
    int dtype, descending, digits;
    ptrdiff_t n, keep, block;           /* of a line; kept of it; lines a chunk */
    size_t x_bytes, values_bytes, indices_bytes; /* what a chunk's lines take in scratch */
} plan;

/* ---- keys ---- */

static uint64_t key_of_bits(uint64_t bits, int width, int is_nan) {
    const uint64_t sign = 1ull << (width - 1), all = sign | (sign - 1);
    if (is_nan) return all;
    if (bits == sign) bits = 0; /* -0 */
    return bits & sign ? ~bits & all : bits | sign;
}

/* Keys of elements from .. from + n - 1. */
static void make_keys(const plan *p, const void *x, ptrdiff_t from, ptrdiff_t n, uint64_t *key) {
    const uint64_t turn = p->descending ? ~0ull >> (64 - 8 * p->digits) : 0;
#define KEYS(type, formula)                                                                                             \
    for (ptrdiff_t i = 0; i < n; i++) {                                                                                 \
        const type bits = ((const type *)x)[from + i];                                                                  \
        key[i] = (uint64_t)(formula) ^ turn;                                                                            \
    }                                                                                                                   \
    return
    switch (p->dtype) {
    case FNN_FLOAT32: KEYS(uint32_t, key_of_bits(bits, 32, (bits & 0x7fffffff) > 0x7f800000));
    case FNN_FLOAT64: KEYS(uint64_t, key_of_bits(bits, 64, (bits & INT64_MAX) > 0x7ff0000000000000));
    case FNN_INT64: KEYS(uint64_t, bits ^ 1ull << 63);
    case FNN_INT32: KEYS(uint32_t, bits ^ 1u << 31);
    default: KEYS(uint8_t, bits);
    }
#undef KEYS
}

/* The first n elements. */
static void make_items(const plan *p, const void *x, ptrdiff_t n, item *items) {
    enum { BLOCK = 64 };
    uint64_t key[BLOCK];
    for (ptrdiff_t from = 0; from < n; from += BLOCK) {
        const ptrdiff_t some = fnn_min(BLOCK, n - from);
        make_keys(p, x, from, some, key);
        for (ptrdiff_t i = 0; i < some; i++) items[from + i] = (item){key[i], from + i};
    }
}

/* ---- sorting ---- */

static int is_before(item a, item b) { return a.key < b.key || (a.key == b.key && a.at < b.at); }

static void sort_by_insertion(item *a, ptrdiff_t n) {
    for (ptrdiff_t i = 1; i < n; i++) {
        const item moved = a[i];
        ptrdiff_t k = i;
        for (; k > 0 && moved.key < a[k - 1].key; k--) a[k] = a[k - 1];
        a[k] = moved;
    }
}

/* Where the items are in the end: in a or in room. */
static item *sort_by_digits(item *a, item *room, ptrdiff_t n, int digits) {
    ptrdiff_t counts[8][DIGIT] = {{0}};
    for (ptrdiff_t i = 0; i < n; i++)
        for (int d = 0; d < digits; d++) counts[d][a[i].key >> (8 * d) & (DIGIT - 1)]++;
    for (int d = 0; d < digits; d++) {
        ptrdiff_t *count = counts[d], start = 0;
        if (count[a[0].key >> (8 * d) & (DIGIT - 1)] == n) continue;
        for (int v = 0; v < DIGIT; v++) {
            const ptrdiff_t here = count[v];
            count[v] = start;
            start += here;
        }
        for (ptrdiff_t i = 0; i < n; i++) room[count[a[i].key >> (8 * d) & (DIGIT - 1)]++] = a[i];
        item *other = a;
        a = room;
        room = other;
    }
    return a;
}

/* Lets heap[k] sink to where none of those below it is greater. */
static void sink(item *heap, ptrdiff_t n, ptrdiff_t k) {
    const item moved = heap[k];
    for (ptrdiff_t child; (child = 2 * k + 1) < n; k = child) {
        if (child + 1 < n && is_before(heap[child], heap[child + 1])) child++;
        if (!is_before(moved, heap[child])) break;
        heap[k] = heap[child];
    }
    heap[k] = moved;
}

/* Whether any of n elements from `from` on may come before element `worst`; without a branch, since in most blocks none does. */
static int may_enter(const plan *p, const void *x, ptrdiff_t from, ptrdiff_t n, ptrdiff_t worst) {
    int any = 0;
#define TEST(type)                                                                                                      \
    const type *a = (const type *)x + from, last = ((const type *)x)[worst];                                            \
    if (p->descending) for (ptrdiff_t i = 0; i < n; i++) any |= !(a[i] <= last);                                        \
    else for (ptrdiff_t i = 0; i < n; i++) any |= !(a[i] >= last);                                                      \
    return any
    switch (p->dtype) { /* NaN enters, wherever it belongs: then keys decide */
    case FNN_FLOAT32: { TEST(float); }
    case FNN_FLOAT64: { TEST(double); }
    case FNN_INT64: { TEST(int64_t); }
    case FNN_INT32: { TEST(int32_t); }
    default: { TEST(uint8_t); }
    }
#undef TEST
}

/* The `keep` first elements of a line in order: a heap of the best so far, behind whose last one most elements come. */
static void select_first(const plan *p, const void *x, item *a) {
    enum { BLOCK = 64 };
    const ptrdiff_t keep = p->keep;
    uint64_t key[BLOCK];
    make_items(p, x, keep, a);
    for (ptrdiff_t k = keep / 2 - 1; k >= 0; k--) sink(a, keep, k);
    for (ptrdiff_t from = keep, n; from < p->n; from += n) {
        n = fnn_min(BLOCK, p->n - from);
        if (!may_enter(p, x, from, n, a[0].at)) continue;
        make_keys(p, x, from, n, key);
        for (ptrdiff_t i = 0; i < n; i++) {
            if (key[i] >= a[0].key) continue; /* an equal one comes later */
            a[0] = (item){key[i], from + i};
            sink(a, keep, 0);
        }
    }
    for (ptrdiff_t last = keep - 1; last > 0; last--) {
        const item greatest = a[0];
        a[0] = a[last];
        a[last] = greatest;
        sink(a, last, 0);
    }
}

static int selects(const plan *p) { return p->n > SHORT && p->keep * FEW <= p->n; }

static const item *sorted(const plan *p, const void *x, item *items) {
    if (selects(p)) {
        select_first(p, x, items);
        return items;
    }
    make_items(p, x, p->n, items);
    if (p->n > SHORT) return sort_by_digits(items, items + p->n, p->n, p->digits);
    sort_by_insertion(items, p->n);
    return items;
}

/* ---- the driver ---- */

static void make_plan(const fnn_call *call, plan *p) {
    const fnn_tensor *x = call->in[0];
    const int axis = (int)call->attr.i[0];
    p->x = fnn_lines_of(x, axis);
    p->values = fnn_lines_of(call->out[0], axis);
    p->indices = fnn_lines_of(call->out[1], axis);
    p->dtype = x->dtype;
    p->digits = (int)fnn_itemsize(x->dtype);
    p->descending = call->attr.i[1] != 0;
    p->n = p->x.n;
    p->keep = p->values.n;
    p->block = fnn_max(CHUNK / fnn_max(p->n, 1), 1);
    p->x_bytes = fnn_lines_bytes(&p->x, p->block);
    p->values_bytes = fnn_lines_bytes(&p->values, p->block);
    p->indices_bytes = fnn_lines_bytes(&p->indices, p->block);
}

static void workspace(const fnn_call *call, fnn_workspace *ws) {
    plan p;
    if (fnn_numel(call->out[0]) == 0) return; /* however long the axis is */
    make_plan(call, &p);
    ws->scratch = p.x_bytes + p.values_bytes + p.indices_bytes + (size_t)(selects(&p) ? p.keep : 2 * p.n) * sizeof(item);
}

static void pick(void *to, const void *from, const item *items, ptrdiff_t n, size_t size) {
#define PICK(type)                                                                                                      \
    for (ptrdiff_t i = 0; i < n; i++) ((type *)to)[i] = ((const type *)from)[items[i].at];                              \
    return
    switch (size) {
    case 1: PICK(uint8_t);
    case 4: PICK(uint32_t);
    case 8: PICK(uint64_t);
    }
#undef PICK
}

static void run_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const ptrdiff_t from = chunk * p->block, rows = fnn_min(p->block, p->x.rows - from), size = (ptrdiff_t)p->x.size;
    char *values_room = (char *)scratch + p->x_bytes, *indices_room = values_room + p->values_bytes;
    item *items = (item *)(void *)(indices_room + p->indices_bytes);
    const char *x = fnn_lines_read(&p->x, from, rows, scratch);
    char *values = fnn_lines_place(&p->values, from, values_room);
    int64_t *indices = fnn_lines_place(&p->indices, from, indices_room);
    for (ptrdiff_t r = 0; r < rows; r++) {
        const item *ordered = sorted(p, x + r * p->n * size, items);
        pick(values + r * p->keep * size, x + r * p->n * size, ordered, p->keep, p->x.size);
        for (ptrdiff_t i = 0; i < p->keep; i++) indices[r * p->keep + i] = ordered[i].at;
    }
    fnn_lines_write(&p->values, from, rows, values);
    fnn_lines_write(&p->indices, from, rows, indices);
}

static int infer(fnn_call *call) {
    const fnn_tensor *x = call->in[0];
    const int64_t axis = call->attr.i[0], keep = call->attr.i[2];
    const int status = fnn_check_axis(call, x);
    if (status) return status;
    const ptrdiff_t n = x->rank ? x->shape[axis] : 1;
    if (keep > n)
        return fnn_fail(call, FNN_VALUE_ERROR, "attribute 'keep' is %lld, but axis %lld of x %s has %td elements", (long long)keep,
                        (long long)axis, fnn_shape_text(x), n);
    fnn_tensor y = *x;
    if (x->rank && keep >= 0) y.shape[axis] = (ptrdiff_t)keep;
    fnn_set_shape_near(call->out[0], x->dtype, y.rank, y.shape, x);
    fnn_set_shape_near(call->out[1], FNN_INT64, y.rank, y.shape, x);
    return FNN_OK;
}

static double cost(const fnn_call *call) { return 15 * (double)fnn_numel(call->in[0]) + 100; }

/* values, indices: the shape of x but for `keep` elements along `axis` (all, if negative); x: any dtype and layout */
static int run(fnn_call *call) {
    plan p;
    if (fnn_numel(call->out[0]) == 0) return FNN_OK;
    make_plan(call, &p);
    fnn_parallel_for(call, fnn_ceil_div(p.x.rows, p.block), cost(call), run_chunk, &p);
    return FNN_OK;
}

const fnn_driver fnn_sort = {.infer = infer, .workspace = workspace, .cost = cost, .run = run};
