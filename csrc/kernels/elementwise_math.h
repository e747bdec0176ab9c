/* elementwise_math.h: arithmetic, elementary functions, comparisons, selection. */

BINARY(add, vec_add(a, b))
BINARY(sub, vec_sub(a, b))
BINARY(mul, vec_mul(a, b))
BINARY(div, vec_div(a, b))
/* NaN wins, as in NumPy. */
BINARY(maximum, vec_select(vec_unordered(a, a), a, vec_max(a, b)))
BINARY(minimum, vec_select(vec_unordered(a, a), a, vec_min(a, b)))
UNARY(neg, vec_neg(x))
UNARY(abs, vec_abs(x))
UNARY(square, vec_mul(x, x))
UNARY(sqrt, vec_sqrt(x))
UNARY(exp, vec_exp(x))
UNARY(log, vec_log(x))
/* From 40 on, 1 is less than half a unit of exp(x). */
UNARY(expm1, vec_copysign(vec_select(vec_lt(x, vec_set1(40)), vec_expm1(vec_min(x, vec_set1(40))), vec_exp(x)), x))
UNARY(log1p, vec_log1p(x))
UNARY(round, vec_round(x))
/* The nearest whole number, or its neighbour; a zero has the sign of x. */
INLINE vec floor_of(vec x, vec nearest) {
    return vec_copysign(vec_select(vec_lt(x, nearest), vec_sub(nearest, vec_set1(1)), nearest), x);
}
INLINE vec ceil_of(vec x, vec nearest) {
    return vec_copysign(vec_select(vec_lt(nearest, x), vec_add(nearest, vec_set1(1)), nearest), x);
}
UNARY(floor, floor_of(x, vec_round(x)))
UNARY(ceil, ceil_of(x, vec_round(x)))
UNARY(sin, vec_sin(x))
UNARY(cos, vec_cos(x))
UNARY(tan, vec_tan(x))
UNARY(asin, vec_asin(x))
UNARY(acos, vec_acos(x))
UNARY(atan, vec_atan(x))
BINARY(atan2, vec_atan2(a, b))
UNARY(sinh, vec_sinh(x))
UNARY(cosh, vec_cosh(x))
UNARY(asinh, vec_asinh(x))
UNARY(acosh, vec_acosh(x))
UNARY(atanh, vec_atanh(x))
UNARY(erf, vec_erf(x))
UNARY(exp2, vec_exp2(x))
UNARY(log2, vec_log2(x))
UNARY(log10, vec_log10(x))
BINARY(copysign, vec_copysign(a, b))

/* Towards 0. */
INLINE vec trunc_of(vec x) {
    const vec size = vec_abs(x);
    return vec_copysign(floor_of(size, vec_round(size)), x);
}
UNARY(trunc, trunc_of(x))

/* Above it the rounding errors of products of 1 and more with it are numbers that flushing spares. */
#define FMOD_LEAST ((real)(REAL64 ? 0x1p-900 : 0x1p-100))

/* What the C library says of elements whose quotient is not below 2^(bits of the mantissa), or NaN, or whose divisor is tiny. */
static __attribute__((noinline, unused)) vec fmod_by_library(vec a, vec b, vec y) {
    real from[LANES], by[LANES], to[LANES];
    vec_store(from, a);
    vec_store(by, b);
    vec_store(to, y);
    for (int k = 0; k < LANES; k++) {
        const real quotient = from[k] / by[k], whole = REAL64 ? (real)0x1p52 : (real)0x1p23;
        if (!(quotient < whole && quotient > -whole && (by[k] > FMOD_LEAST || by[k] < -FMOD_LEAST)))
            to[k] = (real)fmod((double)from[k], (double)by[k]);
    }
    return vec_load(to);
}

/* a - q b, of a's sign, exact as C's: the product's rounding error is known, and a rounded quotient is at most 1 too large. */
INLINE vec fmod_of(vec a, vec b) {
    const vec quotient = vec_div(a, b), q = trunc_of(quotient), product = vec_mul(q, b);
    vec r = vec_sub(vec_sub(a, product), vec_product_error(q, b, product));
    const mask over = vec_lt(vec_mul(vec_copysign(vec_set1(1), r), vec_copysign(vec_set1(1), a)), vec_zero());
    r = vec_select(mask_and(over, mask_not(vec_eq(r, vec_zero()))), vec_add(r, vec_copysign(b, a)), r);
    r = vec_copysign(vec_select(vec_eq(q, vec_zero()), a, r), a);
    const mask near = vec_lt(vec_abs(quotient), vec_set1(REAL64 ? (real)0x1p52 : (real)0x1p23));
    const mask plain = mask_and(near, vec_lt(vec_set1(FMOD_LEAST), vec_abs(b)));
    return mask_any(mask_not(plain)) ? fmod_by_library(a, b, r) : r;
}

/* Whether a remainder and the divisor lie on different sides of 0. */
INLINE mask is_across(vec r, vec b) {
    return mask_or(mask_and(vec_lt(r, vec_zero()), vec_lt(vec_zero(), b)), mask_and(vec_lt(vec_zero(), r), vec_lt(b, vec_zero())));
}

/* Of b's sign, as Python's %; 0 has a's, as in PyTorch. */
INLINE vec remainder_of(vec a, vec b) {
    const vec r = fmod_of(a, b);
    return vec_select(is_across(r, b), vec_add(r, b), r);
}

/* a / b rounded down, as Python's // (CPython, float_floor_div): (a - r) / b is whole but for rounding. */
INLINE vec floor_divide_of(vec a, vec b) {
    const vec r = fmod_of(a, b), one = vec_set1(1), half = vec_set1((real)0.5), plain = vec_div(a, b);
    vec q = vec_div(vec_sub(a, r), b);
    q = vec_select(is_across(r, b), vec_sub(q, one), q);
    vec down = floor_of(q, vec_round(q));
    down = vec_select(vec_lt(half, vec_sub(q, down)), vec_add(down, one), down);
    down = vec_select(vec_eq(q, vec_zero()), vec_copysign(vec_zero(), plain), down);
    return vec_select(vec_eq(b, vec_zero()), plain, down);
}
BINARY(fmod, fmod_of(a, b))
BINARY(remainder, remainder_of(a, b))
BINARY(floor_divide, floor_divide_of(a, b))

COMPARE(eq, vec_eq(a, b))
COMPARE(ne, mask_not(vec_eq(a, b)))
COMPARE(lt, vec_lt(a, b))
COMPARE(le, vec_le(a, b))
COMPARE(gt, vec_lt(b, a))
COMPARE(ge, vec_le(b, a))

/* p = low, high. NaN stays: vec_max and vec_min give their second argument where unordered. */
UNARY(clip, vec_min(constant(p[1]), vec_max(constant(p[0]), x)))
BINARY(clip_backward,
       vec_select(mask_and(vec_le(constant(p[0]), b), vec_le(b, constant(p[1]))), a, vec_zero()))

/* y = cond ? a : b */
static void where_kernel FNN_ELEMENTWISE_ARGS {
    real *y = out[0];
    const uint8_t *cond = in[0];
    const real *a = in[1], *b = in[2];
    (void)step, (void)attr;
    EACH_LANES(mask m = mask_load_u8(cond + i, lanes);
               store_lanes(y + i, vec_select(m, load_lanes(a + i, lanes), load_lanes(b + i, lanes)), lanes););
}
