/* integer.h: arithmetic, comparisons and logic of integers of one type, exact or wrapping around; reals as integers. Nothing here but
 * to_int64 knows what `real` is; the loops are here so that they are compiled for every instruction set, once: float64's table has no
 * integer_binary. */
#if REAL64
#define integer_binary_kernel NULL
#else

/* y[i] = a[i] <kind> b[i], of which a and b may be one repeated element (steps 0 or 1): constant, so that loops have no test inside. */
#define INTEGER_LOOP(name, type, result, value)                                                                         \
    INLINE void name##_##type(ptrdiff_t n, void *y_, const void *a_, const void *b_, int sa, int sb) {                  \
        result *restrict y = y_;                                                                                        \
        const type *restrict a = a_, *restrict b = b_;                                                                  \
        const type a0 = *a, b0 = *b;                                                                                    \
        for (ptrdiff_t i = 0; i < n; i++) {                                                                             \
            const type u = sa ? a[i] : a0, v = sb ? b[i] : b0;                                                          \
            y[i] = (result)(value);                                                                                     \
        }                                                                                                               \
    }
#define INTEGER_LOOPS(type, unsigned_type)                                                                              \
    INTEGER_LOOP(add, type, type, (unsigned_type)u + (unsigned_type)v)                                                  \
    INTEGER_LOOP(sub, type, type, (unsigned_type)u - (unsigned_type)v)                                                  \
    INTEGER_LOOP(mul, type, type, (unsigned_type)u * (unsigned_type)v)                                                  \
    INTEGER_LOOP(least, type, type, u < v ? u : v)                                                                      \
    INTEGER_LOOP(greatest, type, type, u > v ? u : v)                                                                   \
    INTEGER_LOOP(and, type, type, u & v)                                                                                \
    INTEGER_LOOP(or, type, type, u | v)                                                                                 \
    INTEGER_LOOP(xor, type, type, u ^ v)                                                                                \
    INTEGER_LOOP(eq, type, uint8_t, u == v)                                                                             \
    INTEGER_LOOP(ne, type, uint8_t, u != v)                                                                             \
    INTEGER_LOOP(lt, type, uint8_t, u < v)                                                                              \
    INTEGER_LOOP(le, type, uint8_t, u <= v)                                                                             \
    INTEGER_LOOP(pow, type, type, integer_power(u, v))                                                                  \
    INTEGER_LOOP(floor_divide, type, type, floor_quotient(u, v))                                                        \
    INTEGER_LOOP(remainder, type, type, floor_remainder(u, v))                                                          \
    INTEGER_LOOP(quick_floor_divide, type, type, quick_quotient(u, v))                                                  \
    INTEGER_LOOP(quick_remainder, type, type, quick_remainder(u, v))

/* Wraps around; to a negative power 1 and -1 are whole, other numbers are rounded towards 0, and 0 is 0, as in PyTorch. */
INLINE int64_t integer_power(int64_t a, int64_t b) {
    if (b < 0) return a == 1 ? 1 : a != -1 ? 0 : b % 2 ? -1 : 1;
    uint64_t y = 1;
    for (uint64_t square = (uint64_t)a; b; b >>= 1, square *= square)
        if (b & 1) y *= square;
    return (int64_t)y;
}

/* Rounded down. Dividing by -1 negates, so that the smallest integer wraps instead of trapping; by 0, which is reported, gives 0. */
INLINE int64_t floor_quotient(int64_t a, int64_t b) {
    if (b == 0) return 0;
    if (b == -1) return (int64_t)-(uint64_t)a;
    return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

/* Of the sign of b. */
INLINE int64_t floor_remainder(int64_t a, int64_t b) {
    if (b == 0 || b == -1) return 0;
    int64_t r = a % b;
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

/* Integers below 2^50 as doubles and back: the addition of 1.5 * 2^52 has them in its last bits. */
enum { QUICK_BITS = 50 };
INLINE double real_of(int64_t a) {
    double d;
    a += 0x4338000000000000;
    memcpy(&d, &a, sizeof d);
    return d - 0x1.8p52;
}
INLINE int64_t integer_of(double d) {
    int64_t a;
    d += 0x1.8p52;
    memcpy(&a, &d, sizeof a);
    return a - 0x4338000000000000;
}

/* The same by division of doubles, for |a|, |b| < 2^50 and b other than 0: the quotient's error is below 1/4 before it is rounded, so that
 * what is left, exact, lies between -3/4 b and 3/4 b. */
INLINE double near_quotient(double a, double b) { return (a / b + 0x1.8p52) - 0x1.8p52; }
INLINE int64_t quick_quotient(int64_t u, int64_t v) {
    const double a = real_of(u), b = real_of(v), q = near_quotient(a, b), r = a - q * b;
    return integer_of(q) - (r * b < 0);
}
INLINE int64_t quick_remainder(int64_t u, int64_t v) {
    const double a = real_of(u), b = real_of(v), r = a - near_quotient(a, b) * b;
    return integer_of(r + (r * b < 0 ? b : 0.0));
}

INTEGER_LOOPS(int64_t, uint64_t)
INTEGER_LOOPS(int32_t, uint32_t)
INTEGER_LOOPS(uint8_t, uint32_t)

/* Whether all are below 2^50 in size, and whether one is 0. */
#define INTEGER_TESTS(type)                                                                                             \
    INLINE int are_quick_##type(ptrdiff_t n, const type *x) {                                                           \
        uint64_t bits = 0;                                                                                              \
        if (sizeof(type) < 8) return 1;                                                                                 \
        for (ptrdiff_t i = 0; i < n; i++) bits |= (uint64_t)((int64_t)x[i] ^ ((int64_t)x[i] >> 63));                    \
        return bits >> QUICK_BITS == 0;                                                                                 \
    }                                                                                                                   \
    INLINE int has_zero_##type(ptrdiff_t n, const type *x) {                                                            \
        type zeros = 0;                                                                                                 \
        for (ptrdiff_t i = 0; i < n; i++) zeros |= x[i] == 0;                                                           \
        return zeros;                                                                                                   \
    }
INTEGER_TESTS(int64_t)
INTEGER_TESTS(int32_t)
INTEGER_TESTS(uint8_t)

#define RUN_STEPS(name, type)                                                                                           \
    if (sa && sb) name##_##type(n, y, a, b, 1, 1);                                                                      \
    else if (sa) name##_##type(n, y, a, b, 1, 0);                                                                       \
    else name##_##type(n, y, a, b, 0, sb)
/* Greater is less the other way round. */
#define RUN_KIND(type)                                                                                                  \
    switch (kind) {                                                                                                     \
    case FNN_ADD: RUN_STEPS(add, type); break;                                                                          \
    case FNN_SUB: RUN_STEPS(sub, type); break;                                                                          \
    case FNN_MUL: RUN_STEPS(mul, type); break;                                                                          \
    case FNN_MINIMUM: RUN_STEPS(least, type); break;                                                                    \
    case FNN_MAXIMUM: RUN_STEPS(greatest, type); break;                                                                 \
    case FNN_AND: RUN_STEPS(and, type); break;                                                                          \
    case FNN_OR: RUN_STEPS(or, type); break;                                                                            \
    case FNN_XOR: RUN_STEPS(xor, type); break;                                                                          \
    case FNN_EQ: RUN_STEPS(eq, type); break;                                                                            \
    case FNN_NE: RUN_STEPS(ne, type); break;                                                                            \
    case FNN_LT: RUN_STEPS(lt, type); break;                                                                            \
    case FNN_LE: RUN_STEPS(le, type); break;                                                                            \
    case FNN_POW: pow_##type(n, y, a, b, sa, sb); break;                                                                \
    case FNN_FLOOR_DIVIDE:                                                                                              \
    case FNN_REMAINDER: {                                                                                               \
        const int by_zero = has_zero_##type(sb ? n : 1, b), quotient = kind == FNN_FLOOR_DIVIDE;                        \
        if (by_zero || !are_quick_##type(sa ? n : 1, a) || !are_quick_##type(sb ? n : 1, b)) {                          \
            if (quotient) floor_divide_##type(n, y, a, b, sa, sb);                                                      \
            else remainder_##type(n, y, a, b, sa, sb);                                                                  \
        } else if (quotient) {                                                                                          \
            RUN_STEPS(quick_floor_divide, type);                                                                        \
        } else {                                                                                                        \
            RUN_STEPS(quick_remainder, type);                                                                           \
        }                                                                                                               \
        *divided_by_zero |= by_zero;                                                                                    \
    }                                                                                                                   \
    }

/* a, b: of `dtype`, int64, int32, uint8 or bool, each dense or (step 0) one element; y: the same, of comparisons bool; n > 0 */
static void integer_binary_kernel(int kind, int dtype, ptrdiff_t n, void *y, const void *a, int sa, const void *b, int sb,
                                  int *divided_by_zero) {
    if (kind == FNN_GT || kind == FNN_GE) {
        const void *other = a;
        const int step = sa;
        kind = kind == FNN_GT ? FNN_LT : FNN_LE;
        a = b, sa = sb, b = other, sb = step;
    }
    switch (dtype) {
    case FNN_INT64: RUN_KIND(int64_t) break;
    case FNN_INT32: RUN_KIND(int32_t) break;
    default: RUN_KIND(uint8_t)
    }
}
#undef RUN_KIND
#undef RUN_STEPS
#endif

enum { TO_INTEGER_BLOCK = 256 };
#if REAL64
INLINE real size_of_real(real x) { return fabs(x); }
#else
INLINE real size_of_real(real x) { return fabsf(x); }
#endif

/* y: x towards 0, saturated, NaN as 0; where all of a block are small, by way of 32 bits, for which there are instructions. */
static void to_int64_kernel(ptrdiff_t n, const void *x_, int64_t *restrict y) {
    const real *restrict x = x_;
    for (ptrdiff_t from = 0; from < n; from += TO_INTEGER_BLOCK, x += TO_INTEGER_BLOCK, y += TO_INTEGER_BLOCK) {
        const ptrdiff_t m = n - from < TO_INTEGER_BLOCK ? n - from : TO_INTEGER_BLOCK;
        int32_t narrow[TO_INTEGER_BLOCK];
        ireal small = 0;
        for (ptrdiff_t i = 0; i < m; i++) small += size_of_real(x[i]) < (real)0x1p31;
        if (small < m) {
            for (ptrdiff_t i = 0; i < m; i++) y[i] = fnn_saturate((double)x[i], INT64_MIN, INT64_MAX);
            continue;
        }
        for (ptrdiff_t i = 0; i < m; i++) narrow[i] = (int32_t)x[i];
        for (ptrdiff_t i = 0; i < m; i++) y[i] = narrow[i];
    }
}
