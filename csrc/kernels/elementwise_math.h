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
BINARY(pow, vec_pow(a, b))

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
