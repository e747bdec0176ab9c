/* integer.c: integer_binary: arithmetic, comparisons and logic of int64, int32, uint8 and bool, exact in 64 bits;
 * integer_matmul: their matrix products. */
#include "nest.h"
#include "order.h"

enum { CHUNK = 16384, BLOCK = 256 };

typedef struct {
    fnn_nest nest;
    int kind, dtype[3];   /* of y, a, b */
    int computed, result; /* the type that is computed in, and what comes out of it */
    int in_place;         /* nothing goes through room of its own, so that whole runs are computed at once */
    const fnn_kernels *K;
    int divided_by_zero;
} plan;

/* What a kind is between bools alone: sums and products are logic, as NumPy's and PyTorch's are. */
static int kind_of_bools(int kind) {
    switch (kind) {
    case FNN_ADD: case FNN_MAXIMUM: return FNN_OR;
    case FNN_MUL: case FNN_MINIMUM: return FNN_AND;
    default: return kind;
    }
}

/* Comparisons give bool, others the wider type; but bools alone are counted in int64 where their kind is not logic. The types' codes
 * go from the widest to the narrowest. */
static int result_dtype(int kind, int a, int b) {
    int wider = a < b ? a : b;
    if (wider == FNN_BOOL) kind = kind_of_bools(kind);
    if (kind >= FNN_EQ && kind <= FNN_GE) return FNN_BOOL;
    int counted = kind < FNN_EQ || kind == FNN_POW;
    return wider == FNN_BOOL && counted ? FNN_INT64 : wider;
}

static int infer(fnn_call *call) {
    int rank, kind = (int)call->attr.i[0], a = call->in[0]->dtype, b = call->in[1]->dtype;
    ptrdiff_t shape[FNN_MAX_RANK];
    if (kind < 0 || kind >= FNN_NUM_KINDS)
        return fnn_fail(call, FNN_VALUE_ERROR, "attribute 'kind' is %d, but there are %d kinds", kind, FNN_NUM_KINDS);
    if (a <= FNN_FLOAT64 || b <= FNN_FLOAT64)
        return fnn_fail(call, FNN_TYPE_ERROR, "arguments are %s and %s, but must be integers or bools", fnn_dtype_name(a),
                        fnn_dtype_name(b));
    int status = fnn_broadcast(call, 2, &rank, shape);
    if (status) return status;
    fnn_set_shape(call->out[0], result_dtype(kind, a, b), rank, shape);
    return FNN_OK;
}

static void load(int64_t *to, const char *from, ptrdiff_t step, ptrdiff_t n, int dtype) {
#define LOAD(type)                                                                                                      \
    for (ptrdiff_t i = 0; i < n; i++) to[i] = ((const type *)from)[i * step];                                           \
    break
    switch (dtype) {
    case FNN_INT64: LOAD(int64_t);
    case FNN_INT32: LOAD(int32_t);
    default: LOAD(uint8_t);
    }
#undef LOAD
}

/* Narrower results wrap around, as NumPy's do. */
static void store(char *to, ptrdiff_t step, const int64_t *from, ptrdiff_t n, int dtype) {
#define STORE(type)                                                                                                     \
    for (ptrdiff_t i = 0; i < n; i++) ((type *)to)[i * step] = (type)from[i];                                           \
    break
    switch (dtype) {
    case FNN_INT64: STORE(int64_t);
    case FNN_INT32: STORE(int32_t);
    default: STORE(uint8_t);
    }
#undef STORE
}

static uint64_t wrap(int64_t a) { return (uint64_t)a; }

/* Whether operand k is read or written where it lies. */
static int is_direct(const plan *p, int k) {
    const ptrdiff_t stride = p->nest.stride[k][p->nest.rank - 1];
    return p->dtype[k] == (k ? p->computed : p->result) && (stride == 1 || (k && stride == 0));
}

/* Where operand k of a block is read: where it lies, or, of another type or strided, in `room`. */
static const void *operand_of(const plan *p, int k, const char *at, ptrdiff_t n, int64_t *room) {
    const ptrdiff_t stride = p->nest.stride[k][p->nest.rank - 1];
    if (is_direct(p, k)) return at;
    if (!stride) n = 1;
    if (p->computed == FNN_INT64) load(room, at, stride, n, p->dtype[k]);
    else fnn_move_strided(room, 1, at, stride, n, fnn_itemsize(p->computed));
    return room;
}

/* n elements from `at` on, at most BLOCK of them where an operand needs room; returns whether a division by zero was asked for. */
static int run_block(const plan *p, char *const *at, ptrdiff_t n) {
    const fnn_nest *nest = &p->nest;
    const ptrdiff_t stride = nest->stride[0][nest->rank - 1];
    int64_t room[3][BLOCK];
    const void *a = operand_of(p, 1, at[1], n, room[1]), *b = operand_of(p, 2, at[2], n, room[2]);
    void *y = is_direct(p, 0) ? (void *)at[0] : room[0];
    int by_zero = 0;
    p->K->integer_binary(p->kind, p->computed, n, y, a, nest->stride[1][nest->rank - 1] != 0, b,
                         nest->stride[2][nest->rank - 1] != 0, &by_zero);
    if (y == at[0]) return by_zero;
    if (p->result == p->dtype[0]) fnn_move_strided(at[0], stride, y, 1, n, fnn_itemsize(p->result));
    else store(at[0], stride, y, n, p->dtype[0]);
    return by_zero;
}

static void run_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    (void)scratch;
    plan *p = context;
    char *at[FNN_MAX_ARGS];
    for (ptrdiff_t from = chunk * CHUNK, to = fnn_min(from + CHUNK, p->nest.size), n; from < to; from += n) {
        n = fnn_min(fnn_nest_run(&p->nest, from, to, at), p->in_place ? CHUNK : BLOCK);
        if (run_block(p, at, n)) __atomic_store_n(&p->divided_by_zero, 1, __ATOMIC_RELAXED);
    }
}

/* Divisions and powers take longer than memory does. */
static double cost(const fnn_call *call) {
    const int64_t kind = call->attr.i[0];
    const double of_one = kind == FNN_POW ? 5 : kind == FNN_FLOOR_DIVIDE || kind == FNN_REMAINDER ? 0.8 : 0.05;
    const fnn_tensor *y = call->out[0], *a = call->in[0], *b = call->in[1];
    const size_t widest = fnn_itemsize(a->dtype < b->dtype ? a->dtype : b->dtype);
    return (of_one + 0.05 * (double)widest) * (double)fnn_numel(y);
}

/* y: the broadcast shape of a and b, any strides. Operands of one type are computed in it where the result is of that type or a truth
 * value, others in int64. */
static int run(fnn_call *call) {
    const fnn_tensor *operand[3] = {call->out[0], call->in[0], call->in[1]};
    plan p = {.kind = (int)call->attr.i[0], .dtype = {operand[0]->dtype, operand[1]->dtype, operand[2]->dtype}};
    if (p.dtype[1] == FNN_BOOL && p.dtype[2] == FNN_BOOL) p.kind = kind_of_bools(p.kind);
    const int compares = p.kind >= FNN_EQ && p.kind <= FNN_GE, alike = p.dtype[1] == p.dtype[2];
    p.computed = alike && (compares || p.dtype[0] == p.dtype[1]) ? p.dtype[1] : FNN_INT64;
    p.result = compares ? FNN_BOOL : p.computed;
    p.K = fnn_kernels_of(FNN_FLOAT32); /* whose table has the integers' loops */
    fnn_nest_build(&p.nest, operand, 3);
    p.in_place = is_direct(&p, 0) && is_direct(&p, 1) && is_direct(&p, 2);
    fnn_parallel_for(call, fnn_ceil_div(p.nest.size, CHUNK), cost(call), run_chunk, &p);
    return p.divided_by_zero ? fnn_fail(call, FNN_VALUE_ERROR, "integer division by zero") : FNN_OK;
}

const fnn_driver fnn_integer_binary = {.infer = infer, .cost = cost, .run = run};

/* ---- matrix products: sums wrap around, so their order changes nothing ---- */

typedef struct {
    const fnn_tensor *y, *a, *b;
    ptrdiff_t M, N, K;
} product;

static int infer_product(fnn_call *call) {
    int a = call->in[0]->dtype, b = call->in[1]->dtype;
    if (a != b || a <= FNN_FLOAT64 || a == FNN_BOOL)
        return fnn_fail(call, FNN_TYPE_ERROR, "arguments are %s and %s, but must be of one type, which is no bool", fnn_dtype_name(a),
                        fnn_dtype_name(b));
    return fnn_matmul.infer(call);
}

/* The matrix of x that belongs to matrix number `index` of y. */
static const char *matrix_at(const fnn_tensor *x, const fnn_tensor *y, ptrdiff_t index) {
    ptrdiff_t offset = 0;
    for (int d = y->rank - 3, e = x->rank - 3; d >= 0; index /= y->shape[d], d--, e--)
        if (e >= 0 && x->shape[e] > 1) offset += index % y->shape[d] * x->stride[e];
    return (const char *)x->data + offset * (ptrdiff_t)fnn_itemsize(x->dtype);
}

/* A chunk is a row of a matrix of y. */
static void run_row(void *context, ptrdiff_t chunk, void *scratch) {
    (void)scratch;
    const product *p = context;
    const fnn_tensor *y = p->y, *a = p->a, *b = p->b;
    const ptrdiff_t size = (ptrdiff_t)fnn_itemsize(a->dtype), matrix = chunk / p->M, row = chunk % p->M;
    const ptrdiff_t *ystep = y->stride + y->rank - 2, *astep = a->stride + a->rank - 2, *bstep = b->stride + b->rank - 2;
    const char *arow = matrix_at(a, y, matrix) + row * astep[0] * size, *bdata = matrix_at(b, y, matrix);
    char *yrow = (char *)matrix_at(y, y, matrix) + row * ystep[0] * size;
    for (ptrdiff_t j = 0; j < p->N; j += BLOCK) {
        const ptrdiff_t n = fnn_min(p->N - j, BLOCK);
        int64_t sum[BLOCK] = {0}, brow[BLOCK], factor;
        for (ptrdiff_t k = 0; k < p->K; k++) {
            load(&factor, arow + k * astep[1] * size, 1, 1, a->dtype);
            load(brow, bdata + (k * bstep[0] + j * bstep[1]) * size, bstep[1], n, b->dtype);
            for (ptrdiff_t i = 0; i < n; i++) sum[i] = (int64_t)(wrap(sum[i]) + wrap(factor) * wrap(brow[i]));
        }
        store(yrow + j * ystep[1] * size, ystep[1], sum, n, y->dtype);
    }
}

static double cost_of_product(const fnn_call *call) {
    const fnn_tensor *a = call->in[0];
    return 0.6 * (double)fnn_numel(call->out[0]) * (double)a->shape[a->rank - 1];
}

/* y (..., M, N) = a (..., M, K) times b (..., K, N); batch axes broadcast; any strides. */
static int run_product(fnn_call *call) {
    const fnn_tensor *y = call->out[0], *a = call->in[0], *b = call->in[1];
    product p = {y, a, b, y->shape[y->rank - 2], y->shape[y->rank - 1], a->shape[a->rank - 1]};
    const ptrdiff_t rows = p.N ? fnn_numel(y) / p.N : 0;
    fnn_parallel_for(call, rows, cost_of_product(call), run_row, &p);
    return FNN_OK;
}

const fnn_driver fnn_integer_matmul = {.infer = infer_product, .cost = cost_of_product, .run = run_product};
