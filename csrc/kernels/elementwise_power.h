/* elementwise_power.h: powers, and their gradients: of a backward formula's inputs, a is dy. */

/* sqrt(x), but 0 of both zeros and infinity of minus infinity, as C's pow(x, 0.5). */
INLINE vec root_of(vec x) {
    const vec infinity = vec_set1((real)INFINITY);
    return vec_select(vec_eq(x, vec_neg(infinity)), infinity, vec_add(vec_sqrt(x), vec_zero()));
}

/* x to the power twice / 2, `twice` being a constant: the products' rounding errors come to 3 units in the last place at most. No step
 * leaves the numbers' range where the result does not. Other exponents take the long way. */
INLINE vec half_power(vec x, int twice, double exponent) {
    const vec one = vec_set1(1);
    vec y;
    switch (twice) {
    case 1: return root_of(x);
    case 3: return vec_mul(vec_abs(x), root_of(x));
    case 4: return vec_mul(x, x);
    case 6: return vec_mul(vec_mul(x, x), x);
    case 8: y = vec_mul(x, x); return vec_mul(y, y);
    case -1: return vec_div(one, root_of(x));
    case -2: return vec_div(one, x);
    case -3: return vec_mul(vec_abs(vec_div(one, x)), vec_div(one, root_of(x)));
    case -4: y = vec_div(one, x); return vec_mul(y, y);
    case -6: y = vec_div(one, x); return vec_mul(vec_mul(y, y), y);
    default: return vec_pow(x, constant(exponent));
    }
}

INLINE void power_loop(ptrdiff_t n, real *y, const real *x, double exponent, int twice) {
    EACH_LANES(store_lanes(y + i, half_power(load_lanes(x + i, lanes), twice, exponent), lanes););
}

/* dy (b x^(b - 1)), b the exponent; either input may be one repeated element. */
INLINE void power_backward_loop(ptrdiff_t n, real *dx, const real *dy, const real *x, const ptrdiff_t *step, double exponent, int twice) {
    const int repeats_dy = !step[0], repeats_x = !step[1], less = twice ? twice - 2 : 0;
    const vec b = constant(exponent), dy0 = n ? vec_set1(*dy) : vec_zero(), x0 = n ? vec_set1(*x) : vec_zero();
    EACH_LANES(vec slope = vec_mul(b, half_power(repeats_x ? x0 : load_lanes(x + i, lanes), less, exponent - 1));
               store_lanes(dx + i, vec_mul(repeats_dy ? dy0 : load_lanes(dy + i, lanes), slope), lanes););
}

/* p = exponent. With a constant in each case the compiler makes loops without a test inside. */
#define POWER_CASES(loop, ...)                                                                                          \
    switch (fabs(attr[0]) <= 4 && 2 * attr[0] == floor(2 * attr[0]) ? (int)(2 * attr[0]) : 0) {                         \
    case 1: loop(__VA_ARGS__, attr[0], 1); break;                                                                       \
    case 3: loop(__VA_ARGS__, attr[0], 3); break;                                                                       \
    case 6: loop(__VA_ARGS__, attr[0], 6); break;                                                                       \
    case 8: loop(__VA_ARGS__, attr[0], 8); break;                                                                       \
    case -1: loop(__VA_ARGS__, attr[0], -1); break;                                                                     \
    case -2: loop(__VA_ARGS__, attr[0], -2); break;                                                                     \
    case -4: loop(__VA_ARGS__, attr[0], -4); break;                                                                     \
    default: loop(__VA_ARGS__, attr[0], 0);                                                                             \
    }

static void power_kernel FNN_ELEMENTWISE_ARGS {
    (void)step;
    POWER_CASES(power_loop, n, out[0], in[0])
}

static void power_backward_kernel FNN_ELEMENTWISE_ARGS {
    POWER_CASES(power_backward_loop, n, out[0], in[0], in[1], step)
}
#undef POWER_CASES

BINARY(pow, vec_pow(a, b))

/* dy b a^(b - 1), which is 0 for b = 0; here b is the base, c the exponent. */
TERNARY(pow_backward, vec_select(vec_eq(c, vec_zero()), vec_zero(),
                                 vec_mul(a, vec_mul(c, vec_pow(b, vec_sub(c, vec_set1(1)))))))

/* dy y log(a), which is 0 for a = 0, b >= 0. */
static void pow_backward_exponent_kernel FNN_ELEMENTWISE_ARGS {
    real *db = out[0];
    const real *dy = in[0], *a = in[1], *b = in[2], *y = in[3];
    (void)step, (void)attr;
    EACH_LANES(vec base = load_lanes(a + i, lanes); vec zero = vec_zero();
               mask flat = mask_and(vec_eq(base, zero), vec_le(zero, load_lanes(b + i, lanes)));
               vec slope = vec_mul(load_lanes(y + i, lanes), vec_log(base));
               store_lanes(db + i, vec_select(flat, zero, vec_mul(load_lanes(dy + i, lanes), slope)), lanes););
}
