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
BINARY(square_backward, vec_add(vec_mul(a, b), vec_mul(a, b))) /* dy, x */
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

/* 1 / sqrt(x); from the result y: -y^3 / 2 */
UNARY(rsqrt, vec_div(vec_set1(1), vec_sqrt(x)))
BINARY(rsqrt_backward, vec_mul(vec_mul(vec_mul(a, b), vec_mul(b, b)), vec_set1((real)-0.5)))

/* p = what NaN, infinity and minus infinity become */
INLINE mask is_finite(vec x) { return vec_lt(vec_abs(x), vec_set1((real)INFINITY)); }
INLINE vec replaced(vec x, const double *p) {
    const vec infinity = vec_set1((real)INFINITY), below = vec_select(vec_eq(x, infinity), constant(p[1]), constant(p[2]));
    return vec_select(is_finite(x), x, vec_select(vec_unordered(x, x), constant(p[0]), below));
}
UNARY(nan_to_num, replaced(x, p))
BINARY(nan_to_num_backward, vec_select(is_finite(b), a, vec_zero()))

/* p = value: a + value b c, a + value b / c */
TERNARY(addcmul, vec_add(a, vec_mul(vec_mul(b, constant(p[0])), c)))
TERNARY(addcdiv, vec_add(a, vec_div(vec_mul(b, constant(p[0])), c)))

/* Part c of the way from a to b, from its nearer end, so that 1 is b itself. */
INLINE vec part_way(vec a, vec b, vec c) {
    const vec way = vec_sub(b, a), half = vec_set1((real)0.5);
    return vec_select(vec_lt(vec_abs(c), half), vec_add(a, vec_mul(c, way)), vec_sub(b, vec_mul(way, vec_sub(vec_set1(1), c))));
}
TERNARY(lerp, part_way(a, b, c))
BINARY(lerp_number, part_way(a, b, constant(p[0])))
TERNARY(lerp_backward_weight, vec_mul(a, vec_sub(c, b))) /* dy, start, end */

/* log(exp(a) + exp(b)); where both are the same infinity their difference would be NaN. Its slope to b: 1 / (1 + exp(c - b)). */
INLINE mask are_same_infinity(vec a, vec b) { return mask_and(vec_eq(a, b), vec_eq(vec_abs(a), vec_set1((real)INFINITY))); }
INLINE vec log_of_sum(vec a, vec b) {
    const vec high = vec_select(vec_unordered(a, a), a, vec_max(a, b)), low = vec_select(vec_unordered(a, a), a, vec_min(a, b));
    return vec_select(are_same_infinity(a, b), high, vec_add(high, vec_log1p(vec_exp(vec_sub(low, high)))));
}
BINARY(logaddexp, log_of_sum(a, b))
TERNARY(logaddexp_backward,
        vec_mul(a, vec_select(are_same_infinity(b, c), vec_set1((real)0.5), vec_sigmoid(vec_sub(b, c)))))

/* a log(b), 0 where a is 0 and b no NaN; slopes are 0 where that alone makes a number of it. */
BINARY(xlogy, vec_select(mask_and(vec_eq(a, vec_zero()), vec_eq(b, b)), vec_zero(), vec_mul(a, vec_log(b))))
INLINE mask is_xlogy_flat(vec a, vec b) {
    return mask_and(vec_eq(a, vec_zero()), mask_or(vec_le(b, vec_zero()), vec_eq(b, vec_set1((real)INFINITY))));
}
TERNARY(xlogy_backward_input, vec_select(is_xlogy_flat(b, c), vec_zero(), vec_mul(a, vec_log(c)))) /* dy, x, y */
TERNARY(xlogy_backward_other, vec_select(is_xlogy_flat(b, c), vec_zero(), vec_div(vec_mul(a, b), c)))

/* sqrt(a^2 + b^2): numbers whose squares leave the range are multiplied by a power of two first. An infinity counts more than NaN. */
INLINE vec hypotenuse(vec a, vec b) {
    const vec x = vec_abs(a), y = vec_abs(b), infinity = vec_set1((real)INFINITY), one = vec_set1(1);
    const vec high = vec_max(x, y), low = vec_min(x, y);
    const vec far = vec_set1(REAL64 ? (real)0x1p500 : (real)0x1p60), near = vec_set1(REAL64 ? (real)0x1p-400 : (real)0x1p-40);
    const vec up = vec_set1(REAL64 ? (real)0x1p600 : (real)0x1p80), down = vec_set1(REAL64 ? (real)0x1p-600 : (real)0x1p-80);
    const mask is_far = vec_lt(far, high), is_near = vec_lt(high, near);
    const vec by = vec_select(is_far, down, vec_select(is_near, up, one)), back = vec_select(is_far, up, vec_select(is_near, down, one));
    const vec u = vec_mul(high, by), v = vec_mul(low, by), root = vec_mul(vec_sqrt(vec_fma(u, u, vec_mul(v, v))), back);
    return vec_select(mask_or(vec_eq(x, infinity), vec_eq(y, infinity)), infinity,
                      vec_select(vec_unordered(x, y), vec_add(x, y), root));
}
BINARY(hypot, hypotenuse(a, b))
TERNARY(hypot_backward, vec_mul(a, vec_div(b, c))) /* dy, x, y */

/* p = rtol, atol, whether NaN is close to NaN */
INLINE mask are_close(vec a, vec b, const double *p) {
    const vec size = vec_abs(b), allowed = vec_add(vec_mul(size, constant(p[0])), constant(p[1]));
    const mask near = mask_or(vec_eq(a, b), mask_and(vec_le(vec_abs(vec_sub(a, b)), allowed), is_finite(b)));
    return p[2] != 0 ? mask_or(near, mask_and(vec_unordered(a, a), vec_unordered(b, b))) : near;
}
COMPARE(isclose, are_close(a, b, p))

/* y = cond ? a : b */
static void where_kernel FNN_ELEMENTWISE_ARGS {
    real *y = out[0];
    const uint8_t *cond = in[0];
    const real *a = in[1], *b = in[2];
    (void)step, (void)attr;
    EACH_LANES(mask m = mask_load_u8(cond + i, lanes);
               store_lanes(y + i, vec_select(m, load_lanes(a + i, lanes), load_lanes(b + i, lanes)), lanes););
}
