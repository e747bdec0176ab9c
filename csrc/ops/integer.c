/* integer.c: integer_binary: arithmetic, comparisons and logic of int64, int32, uint8 and bool, exact in 64 bits;
 * integer_matmul: their matrix products. */
#include "nest.h"

enum { CHUNK = 16384, BLOCK = 256 };

enum { ADD, SUB, MUL, FLOOR_DIVIDE, REMAINDER, MINIMUM, MAXIMUM, EQ, NE, LT, LE, GT, GE, AND, OR, XOR, POW, NUM_KINDS };

typedef struct {
    fnn_nest nest;
    int kind, dtype[3]; /* of y, a, b */
    int divided_by_zero;
} plan;

/* What a kind is between bools alone: sums and products are logic, as NumPy's and PyTorch's are. */
static int kind_of_bools(int kind) {
    switch (kind) {
    case ADD: case MAXIMUM: return OR;
    case MUL: case MINIMUM: return AND;
    default: return kind;
    }
}

/* Comparisons give bool, others the wider type; but bools alone are counted in int64 where their kind is not logic. The types' codes
 * go from the widest to the narrowest. */
static int result_dtype(int kind, int a, int b) {
    int wider = a < b ? a : b;
    if (wider == FNN_BOOL) kind = kind_of_bools(kind);
    if (kind >= EQ && kind <= GE) return FNN_BOOL;
    int counted = kind < EQ || kind == POW;
    return wider == FNN_BOOL && counted ? FNN_INT64 : wider;
}

static int infer(fnn_call *call) {
    int rank, kind = (int)call->attr.i[0], a = call->in[0]->dtype, b = call->in[1]->dtype;
    ptrdiff_t shape[FNN_MAX_RANK];
    if (kind < 0 || kind >= NUM_KINDS)
        return fnn_fail(call, FNN_VALUE_ERROR, "attribute 'kind' is %d, but there are %d kinds", kind, NUM_KINDS);
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

/* Rounded down; b is not 0. Dividing by -1 negates, so that the smallest integer wraps instead of trapping. */
static int64_t floor_divide(int64_t a, int64_t b) {
    if (b == -1) return (int64_t)-wrap(a);
    return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

/* Of the sign of b. */
static int64_t remainder_of(int64_t a, int64_t b) {
    if (b == -1) return 0;
    int64_t r = a % b;
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

/* Wraps around; to a negative power 1 and -1 are whole, other numbers are rounded towards 0, and 0 is 0, as in PyTorch. */
static int64_t power(int64_t a, int64_t b) {
    if (b < 0) return a == 1 ? 1 : a != -1 ? 0 : b % 2 ? -1 : 1;
    uint64_t y = 1;
    for (uint64_t square = wrap(a); b; b >>= 1, square *= square)
        if (b & 1) y *= square;
    return (int64_t)y;
}

/* y[i] = a[i] <kind> b[i]; y may be a. Returns whether a division by zero was asked for; such elements become 0. */
static int compute(int kind, ptrdiff_t n, int64_t *y, const int64_t *a, const int64_t *b) {
    int by_zero = 0;
#define EACH(value)                                                                                                     \
    for (ptrdiff_t i = 0; i < n; i++) y[i] = (int64_t)(value);                                                          \
    break
    switch (kind) {
    case ADD: EACH(wrap(a[i]) + wrap(b[i]));
    case SUB: EACH(wrap(a[i]) - wrap(b[i]));
    case MUL: EACH(wrap(a[i]) * wrap(b[i]));
    case FLOOR_DIVIDE: EACH(b[i] ? floor_divide(a[i], b[i]) : (by_zero = 1, 0));
    case REMAINDER: EACH(b[i] ? remainder_of(a[i], b[i]) : (by_zero = 1, 0));
    case MINIMUM: EACH(a[i] < b[i] ? a[i] : b[i]);
    case MAXIMUM: EACH(a[i] > b[i] ? a[i] : b[i]);
    case EQ: EACH(a[i] == b[i]);
    case NE: EACH(a[i] != b[i]);
    case LT: EACH(a[i] < b[i]);
    case LE: EACH(a[i] <= b[i]);
    case GT: EACH(a[i] > b[i]);
    case GE: EACH(a[i] >= b[i]);
    case AND: EACH(a[i] & b[i]);
    case OR: EACH(a[i] | b[i]);
    case XOR: EACH(a[i] ^ b[i]);
    case POW: EACH(power(a[i], b[i]));
    }
#undef EACH
    return by_zero;
}

static void run_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    (void)scratch;
    plan *p = context;
    const fnn_nest *nest = &p->nest;
    int last = nest->rank - 1;
    ptrdiff_t from = chunk * CHUNK, to = fnn_min(from + CHUNK, nest->size);
    char *at[FNN_MAX_ARGS];
    int64_t a[BLOCK], b[BLOCK];
    while (from < to) {
        ptrdiff_t run = nest->shape[last] - from % nest->shape[last], n = fnn_min(fnn_min(run, to - from), BLOCK);
        fnn_nest_seek(nest, from, at);
        load(a, at[1], nest->stride[1][last], n, p->dtype[1]);
        load(b, at[2], nest->stride[2][last], n, p->dtype[2]);
        if (compute(p->kind, n, a, a, b)) __atomic_store_n(&p->divided_by_zero, 1, __ATOMIC_RELAXED);
        store(at[0], nest->stride[0][last], a, n, p->dtype[0]);
        from += n;
    }
}

static double cost(const fnn_call *call) { return 0.6 * (double)fnn_numel(call->out[0]); }

/* y: the broadcast shape of a and b, any strides. */
static int run(fnn_call *call) {
    const fnn_tensor *operand[3] = {call->out[0], call->in[0], call->in[1]};
    plan p = {.kind = (int)call->attr.i[0], .dtype = {operand[0]->dtype, operand[1]->dtype, operand[2]->dtype}};
    if (p.dtype[1] == FNN_BOOL && p.dtype[2] == FNN_BOOL) p.kind = kind_of_bools(p.kind);
    fnn_nest_build(&p.nest, operand, 3);
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
