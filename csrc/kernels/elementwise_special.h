/* elementwise_special.h: the logarithm of the gamma function and its derivatives; the inverse of the error function; bins.
 *
 * lgamma has zeros at 1 and 2: there it is z P(z), z the exact distance, P a polynomial (Chebyshev's nodes, 40 digits) that stands for
 * lgamma(2 + z) / z, -1/2 <= z <= 1. From 8 on come the asymptotic series (Abramowitz and Stegun, 6.1.41, 6.3.18, 6.4.12), below 0 the
 * reflection (6.1.17, 6.3.7, 6.4.7). Near zeros at negative places errors are absolute. */

#if REAL64
static const real lgamma_coefficients[] = {
    0.42278433509846714, 0.32246703342411322, -0.067352301053198092, 0.020580808427784434, -0.007385551028674139,
    0.0028905103307481359, -0.0011927539117035553, 0.00050966952456935558, -0.00022315475828452691, 9.9457515173887881e-5,
    -4.4926240963257807e-5, 2.0507195202221444e-5, -9.439440499307966e-6, 4.3749233979969769e-6, -2.0395006933611471e-6,
    9.5520165428538006e-7, -4.4839053621808378e-7, 2.1105056481225418e-7, -1.0123438317925032e-7, 5.0297400098335536e-8,
    -2.4292908348961975e-8, 9.6416431456305679e-9, -2.5317840682215006e-9, 3.1285463307153883e-10};
#else
static const real lgamma_coefficients[] = {0.422784335f,    0.322467029f,    -0.0673523208f,  0.0205810017f,
                                           -0.00738532949f, 0.0028881287f,   -0.00119212314f, 0.000520163429f,
                                           -0.000235325738f, 8.96139058e-5f, -1.7992513e-5f};
#endif
/* Of the series in 1 / x^2, from 8 on; float32 needs four terms. */
enum { GAMMA_TERMS = REAL64 ? 9 : 4, GAMMA_FAR = 8 };
static const real lgamma_series[] = {
    (real)(1.0 / 12),         (real)(-1.0 / 360), (real)(1.0 / 1260),       (real)(-1.0 / 1680),      (real)(1.0 / 1188),
    (real)(-691.0 / 360360), (real)(1.0 / 156),  (real)(-3617.0 / 122400), (real)(43867.0 / 244188)};
static const real digamma_series[] = {
    (real)(1.0 / 12),       (real)(-1.0 / 120), (real)(1.0 / 252),      (real)(-1.0 / 240),     (real)(1.0 / 132),
    (real)(-691.0 / 32760), (real)(1.0 / 12),   (real)(-3617.0 / 8160), (real)(43867.0 / 14364)};
static const real trigamma_series[] = {
    (real)(1.0 / 6),       (real)(-1.0 / 30), (real)(1.0 / 42),      (real)(-1.0 / 30),    (real)(5.0 / 66),
    (real)(-691.0 / 2730), (real)(7.0 / 6),   (real)(-3617.0 / 510), (real)(43867.0 / 798)};
#define PI ((real)3.14159265358979323846)

/* Sine and cosine of pi x, of the size of the part of x that its nearest whole number leaves, and that part. */
INLINE vec half_turns(vec x, vec *sine, vec *cosine) {
    const vec rest = vec_sub(x, vec_round(x));
    vec_sincos_turns(vec_mul(vec_abs(rest), vec_set1((real)0.5)), sine, cosine);
    return rest;
}

INLINE vec lgamma_positive(vec x) {
    const vec one = vec_set1(1), half = vec_set1((real)0.5), far = vec_set1(GAMMA_FAR);
    const mask is_small = vec_lt(x, half), is_low = vec_lt(x, vec_set1((real)1.5)), is_far = vec_le(far, x);
    vec near = vec_min(far, x), product = one;
    for (int k = 0; k < GAMMA_FAR - 3; k++) { /* from 3 .. 8 down to 2 .. 3 */
        const mask over = vec_le(vec_set1(3), near);
        const vec less = vec_sub(near, one);
        product = vec_select(over, vec_mul(product, less), product);
        near = vec_select(over, less, near);
    }
    const vec low = vec_select(is_small, x, vec_sub(x, one)), z = vec_select(is_low, low, vec_sub(near, vec_set1(2)));
    const vec log = vec_log(vec_select(mask_or(is_small, is_far), x, product)), signed_log = vec_select(is_small, vec_neg(log), log);
    vec y = vec_mul(z, POLYNOMIAL(lgamma_coefficients, z));
    y = vec_select(is_low, vec_sub(y, vec_log1p(low)), y);
    y = vec_add(y, signed_log);
    const vec inverse = vec_div(one, x), series = vec_mul(inverse, polynomial(lgamma_series, GAMMA_TERMS, vec_mul(inverse, inverse)));
    const vec rest = vec_add(series, vec_set1((real)(0.91893853320467274178 - 0.5)));
    return vec_select(is_far, vec_fma(vec_sub(x, half), vec_sub(log, one), rest), y);
}

INLINE vec vec_lgamma(vec x) {
    const vec zero = vec_zero(), infinity = vec_set1((real)INFINITY), size = vec_abs(x);
    const mask is_below = vec_lt(x, zero);
    const vec y = lgamma_positive(vec_select(is_below, vec_sub(vec_set1(1), x), x));
    if (!mask_any(is_below)) return y;
    vec sine, cosine;
    const vec rest = half_turns(x, &sine, &cosine), below = vec_sub(vec_log(vec_div(vec_set1(PI), vec_abs(sine))), y);
    const mask is_pole = mask_or(vec_eq(rest, zero), vec_eq(size, infinity));
    return vec_select(is_below, vec_select(is_pole, infinity, below), y);
}
UNARY(lgamma, vec_lgamma(x))

/* x, brought to where the series hold by adding 1s, and the sum of 1 / x, or 1 / x^2, on the way. */
INLINE vec brought_far(vec x, int is_squared, vec *taken) {
    const vec one = vec_set1(1), far = vec_set1(GAMMA_FAR);
    *taken = vec_zero();
    for (int k = 0; k < GAMMA_FAR; k++) {
        const mask is_near = vec_lt(x, far);
        const vec inverse = vec_div(one, x), more = is_squared ? vec_fma(inverse, inverse, *taken) : vec_add(*taken, inverse);
        *taken = vec_select(is_near, more, *taken);
        x = vec_select(is_near, vec_add(x, one), x);
    }
    return x;
}

INLINE vec digamma_positive(vec x) {
    vec taken;
    x = brought_far(x, 0, &taken);
    const vec inverse = vec_div(vec_set1(1), x), z = vec_mul(inverse, inverse);
    const vec rest = vec_fma(z, polynomial(digamma_series, GAMMA_TERMS, z), vec_mul(inverse, vec_set1((real)0.5)));
    return vec_sub(vec_sub(vec_log(x), rest), taken);
}

/* At 0 infinite, of the other sign, at the poles below NaN: as in PyTorch. */
INLINE vec vec_digamma(vec x) {
    const vec zero = vec_zero();
    const mask is_below = vec_lt(x, zero);
    vec y = digamma_positive(vec_select(is_below, vec_sub(vec_set1(1), x), x));
    if (mask_any(is_below)) {
        vec sine, cosine;
        const vec rest = half_turns(x, &sine, &cosine), slope = vec_div(vec_mul(vec_set1(PI), cosine), vec_copysign(sine, rest));
        y = vec_select(is_below, vec_select(vec_eq(rest, zero), vec_set1((real)NAN), vec_sub(y, slope)), y);
    }
    return vec_select(vec_eq(x, zero), vec_copysign(vec_set1((real)INFINITY), vec_neg(x)), y);
}
UNARY(digamma, vec_digamma(x))

INLINE vec trigamma_positive(vec x) {
    vec taken;
    x = brought_far(x, 1, &taken);
    const vec inverse = vec_div(vec_set1(1), x), z = vec_mul(inverse, inverse);
    const vec rest = vec_fma(vec_mul(z, inverse), polynomial(trigamma_series, GAMMA_TERMS, z), vec_mul(z, vec_set1((real)0.5)));
    return vec_add(taken, vec_add(inverse, rest));
}

INLINE vec vec_trigamma(vec x) {
    const mask is_below = vec_lt(x, vec_zero());
    const vec y = trigamma_positive(vec_select(is_below, vec_sub(vec_set1(1), x), x));
    if (!mask_any(is_below)) return y;
    vec sine, cosine;
    half_turns(x, &sine, &cosine);
    const vec peak = vec_div(vec_set1(PI), sine);
    return vec_select(is_below, vec_sub(vec_mul(peak, peak), y), y);
}
UNARY(trigamma, vec_trigamma(x))

/* Giles, "Approximating the erfinv function", GPU Computing Gems 2, 2011: in w = -log(1 - x^2). */
static const real erfinv_central[] = {(real)1.50140941,     (real)0.246640727,   (real)-0.00417768164,
                                      (real)-0.00125372503, (real)0.00021858087, (real)-4.39150654e-06,
                                      (real)-3.5233877e-06, (real)3.43273939e-07, (real)2.81022636e-08};
#if REAL64
/* In the tails the inverse of erfc(y) ~ exp(-y^2) / (y sqrt(pi)); in both cases Halley's method does the rest. */
INLINE vec erfinv_tail(vec w) {
    const vec part = vec_mul(vec_log(w), vec_set1(0.5)), constants = vec_set1(0.69314718055994530942 - 0.57236494292470008707);
    return vec_sqrt(vec_add(vec_sub(w, part), constants));
}
/* erf(y) - x, beyond 0.9 of the complements, which keep their digits. */
INLINE vec erf_less(vec y, vec x) {
    const vec one = vec_set1(1), tail = normal_of(bell_range(vec_mul(y, vec_set1(1.41421356237309504880)))).tail;
    return vec_select(vec_lt(vec_set1(0.9), x), vec_fnma(vec_set1(2), tail, vec_sub(one, x)), vec_sub(vec_erf(y), x));
}
INLINE vec erfinv_refined(vec y, vec x) {
    for (int k = 0; k < 2; k++) {
        const vec bell = vec_mul(vec_exp(vec_neg(vec_mul(y, y))), vec_set1(1.12837916709551257390));
        const vec step = vec_div(erf_less(y, x), bell);
        y = vec_sub(y, vec_div(step, vec_fma(y, step, vec_set1(1))));
    }
    return y;
}
#else
static const real erfinv_outer[] = {2.83297682f,    1.00167406f,      0.00943887047f, -0.0076224613f, 0.00573950773f,
                                    -0.00367342844f, 0.00134934322f, 0.000100950558f, -0.000200214257f};
INLINE vec erfinv_tail(vec w) { return POLYNOMIAL(erfinv_outer, vec_sub(vec_sqrt(w), vec_set1(3))); }
INLINE vec erfinv_refined(vec y, vec x) {
    (void)x;
    return y;
}
#endif

INLINE vec vec_erfinv(vec x) {
    const vec one = vec_set1(1), size = vec_abs(x), w = vec_neg(vec_log(vec_mul(vec_sub(one, size), vec_add(one, size))));
    const vec central = vec_mul(size, POLYNOMIAL(erfinv_central, vec_sub(w, vec_set1((real)2.5))));
    const vec tail = REAL64 ? erfinv_tail(w) : vec_mul(size, erfinv_tail(w));
    const vec y = erfinv_refined(vec_select(vec_lt(w, vec_set1(5)), central, tail), size);
    return vec_copysign(vec_select(vec_eq(size, one), vec_set1((real)INFINITY), y), x);
}
UNARY(erfinv, vec_erfinv(x))

/* x, low, high; p = bins: the last bin has `high` too. */
INLINE vec histc_place_of(vec x, vec low, vec high, const double *p) {
    const vec bins = constant(p[0]), scaled = vec_mul(vec_div(vec_sub(x, low), vec_sub(high, low)), bins);
    const vec place = vec_min(floor_of(scaled, vec_round(scaled)), vec_sub(bins, vec_set1(1)));
    return vec_select(mask_and(vec_le(low, x), vec_le(x, high)), place, bins);
}
TERNARY(histc_place, histc_place_of(a, b, c, p))
#undef PI
