/* integer.c: integer_binary: arithmetic, comparisons and logic of int64, int32, uint8 and bool, exact in 64 bits. */
#include "nest.h"

enum { CHUNK = 16384, BLOCK = 256 };

enum { ADD, SUB, MUL, FLOOR_DIVIDE, REMAINDER, MINIMUM, MAXIMUM, EQ, NE, LT, LE, GT, GE, AND, OR, XOR, NUM_KINDS };

typedef struct {
    fnn_nest nest;
    int kind, dtype[3]; /* of y, a, b */
    int divided_by_zero;
} plan;

/* Comparisons give bool. Otherwise two operands of one type give that type, but bools are counted in int64 (not in and, or,
 * xor); two types give int64. */
static int result_dtype(int kind, int a, int b) {
    if (kind >= EQ && kind <= GE) return FNN_BOOL;
    return a != b || (a == FNN_BOOL && kind < EQ) ? FNN_INT64 : a;
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
    fnn_nest_build(&p.nest, operand, 3);
    fnn_parallel_for(call, fnn_ceil_div(p.nest.size, CHUNK), cost(call), run_chunk, &p);
    return p.divided_by_zero ? fnn_fail(call, FNN_VALUE_ERROR, "integer division by zero") : FNN_OK;
}

const fnn_driver fnn_integer_binary = {.infer = infer, .cost = cost, .run = run};
