/* vec_trig.h: functions of angles and their inverses, hyperbolic functions and theirs, on vectors: one text for all ISAs and both
 * types. Largest errors in units in the last place, as in vec_math.h: sin, cos 0.8, tan 2.2, asin 2, acos 1.3, atan, atan2 1.9,
 * sinh, cosh 2.8, asinh, acosh, atanh 1.9, erf 2.5, exp2 1.1, log2, log10 1.9. The polynomials are minimax. */
#ifndef FNN_VEC_TRIG_H
#define FNN_VEC_TRIG_H

#if REAL64
/* pi / 2 in four parts: a whole number below 2^20 times each of the first two is exact. */
#define HALF_PI_1 0x1.921fb544p+0
#define HALF_PI_2 0x1.0b4611a6p-34
#define HALF_PI_3 0x1.3198a2e037073p-69
#define HALF_PI_4 0x1.129024e088a68p-123
#define ANGLE_MAX 1.6e6
#define HALF_PI_HI 0x1.921fb54442d18p+0
#define HALF_PI_LO 0x1.1a62633145c07p-54
#define HYPERBOLIC_LARGE 0x1p28 /* from here on x^2 + 1 is x^2 */
#define LOG10_2_HI 0x1.34413509f8p-2 /* 40 bits; times an exponent it is exact */
#define LOG10_2_LO (-0x1.80433b83b532ap-44)
static const real sine_coefficients[] = {
    -0.16666666666666632, 0.0083333333333223154, -0.00019841269829725341, 2.7557313662084239e-6, -2.5050753265808796e-8,
    1.5896504879040725e-10};
static const real cosine_coefficients[] = {
    0.041666666666666592, -0.0013888888888872895, 2.4801587288748074e-5, -2.75573141486014e-7, 2.0875696570596591e-9,
    -1.1358310424921927e-11};
static const real atan_coefficients[] = {
    -0.33333333333333199, 0.19999999999953999, -0.14285714280239711, 0.11111110785678157, -0.090908978227118535,
    0.076920613843177942, -0.066631174220799485, 0.058479867713042602, -0.050397432381558674, 0.038075663229358801,
    -0.017919307699969404};
static const real asin_coefficients[] = {
    0.16666666666666762, 0.074999999999702625, 0.044642857175120196, 0.030381942683649502, 0.022372215659390623,
    0.017351600107294612, 0.013980961283869811, 0.011397777186003769, 0.010786523358262086, 0.0036830596818602623,
    0.021763464827901311, -0.021077254976143051, 0.032676872808711359};
static const real erf_coefficients[] = {
    1.1283791670955126, -0.37612638903183748, 0.11283791670954857, -0.026866170645072893, 0.0052239776247808508,
    -0.0008548326978741364, 0.0001205533103687169, -1.4925593506282137e-5, 1.6460972808223273e-6, -1.6350025138793266e-7,
    1.465787933737728e-8, -1.136566422280842e-9, 5.9452591395289855e-11};
#else
#define HALF_PI_1 0x1.92p+0f /* below 2^13 here */
#define HALF_PI_2 0x1.fb4p-12f
#define HALF_PI_3 0x1.4442d2p-24f
#define HALF_PI_4 (-0x1.ee59dap-50f)
#define ANGLE_MAX 12800.0f
#define HALF_PI_HI 0x1.921fb6p+0f
#define HALF_PI_LO (-0x1.777a5cp-25f)
#define HYPERBOLIC_LARGE 0x1p13f
#define LOG10_2_HI 0x1.3442p-2f /* 16 bits */
#define LOG10_2_LO (-0x1.95ec1p-19f)
static const real sine_coefficients[] = {-0.166666549f, 0.00833217353f, -0.000195166538f};
static const real cosine_coefficients[] = {0.0416666456f, -0.00138873099f, 2.44324198e-5f};
static const real atan_coefficients[] = {-0.333333155f, 0.199984884f, -0.142438268f, 0.105958291f, -0.0608299236f};
static const real asin_coefficients[] = {0.166666599f, 0.0750051093f, 0.0445157182f, 0.0318176334f, 0.0144025086f, 0.0375653539f};
static const real erf_coefficients[] = {1.12837917f, -0.376126258f, 0.112835852f, -0.026853812f, 0.0051883278f, -0.000801019412f,
                                        7.85386174e-5f};
#endif

/* ---- sine, cosine, tangent ---- */

/* What is left of an angle when n quarter turns are taken off: r and its rounding error, |r| <= pi / 4, and n. */
typedef struct {
    vec r, lo;
    ivec n;
} angle;

/* |x| <= ANGLE_MAX (Cody and Waite): the products with the first two parts and x - n P1 are exact; what rounding takes from the
 * rest is kept, as it is all that is left near multiples of pi / 2. */
INLINE angle angle_of(vec x) {
    const vec n = vec_round(vec_mul(x, vec_set1((real)0.63661977236758134308)));
    const vec first = vec_fnma(n, vec_set1(HALF_PI_1), x), second = vec_mul(n, vec_set1(HALF_PI_2)), t = vec_sub(first, second);
    const vec third = vec_mul(n, vec_set1(HALF_PI_3)), rough = vec_sub(t, third);
    vec rest = vec_sub(vec_sub(t, rough), third);
    rest = vec_sub(rest, vec_product_error(n, vec_set1(HALF_PI_3), third));
    rest = vec_add(vec_fnma(n, vec_set1(HALF_PI_4), rest), vec_sub(vec_sub(first, t), second));
    const vec r = vec_add(rough, rest);
    return (angle){r, vec_sub(rest, vec_sub(r, rough)), vec_to_ivec(n)};
}

/* sin and cos of r + lo (Sun's fdlibm, k_sin.c and k_cos.c). */
INLINE vec sine_near_0(angle a) {
    vec z = vec_mul(a.r, a.r), lo = vec_fnma(vec_mul(vec_set1((real)0.5), z), a.lo, a.lo);
    return vec_add(a.r, vec_fma(vec_mul(z, a.r), POLYNOMIAL(sine_coefficients, z), lo));
}
INLINE vec cosine_near_0(angle a) {
    const vec one = vec_set1(1), z = vec_mul(a.r, a.r), half = vec_mul(vec_set1((real)0.5), z), w = vec_sub(one, half);
    vec rest = vec_fnma(a.r, a.lo, vec_mul(vec_mul(z, z), POLYNOMIAL(cosine_coefficients, z)));
    return vec_add(w, vec_add(vec_sub(vec_sub(one, w), half), rest));
}

INLINE mask has_bit(ivec n, ireal bit) { return ivec_eq(ivec_and(n, ivec_set1(bit)), ivec_set1(bit)); }

/* y, but beyond ANGLE_MAX what the C library says, element by element: such angles are rare, and need hundreds of digits of pi. */
static __attribute__((noinline, unused)) vec beyond_angles(vec x, vec y, double (*function)(double)) {
    real from[LANES], to[LANES];
    vec_store(from, x);
    vec_store(to, y);
    for (int k = 0; k < LANES; k++)
        if (from[k] > ANGLE_MAX || from[k] < -ANGLE_MAX) to[k] = (real)function((double)from[k]);
    return vec_load(to);
}
INLINE vec every_angle(vec x, vec y, double (*function)(double)) {
    return mask_any(vec_lt(vec_set1(ANGLE_MAX), vec_abs(x))) ? beyond_angles(x, y, function) : y;
}

INLINE vec vec_sin(vec x) {
    const angle a = angle_of(x);
    vec y = vec_select(has_bit(a.n, 1), cosine_near_0(a), sine_near_0(a));
    y = vec_select(has_bit(a.n, 2), vec_neg(y), y);
    return every_angle(x, vec_select(vec_eq(x, vec_zero()), x, y), sin); /* keeps -0 */
}

INLINE vec vec_cos(vec x) {
    const angle a = angle_of(x);
    vec y = vec_select(has_bit(a.n, 1), sine_near_0(a), cosine_near_0(a));
    return every_angle(x, vec_select(has_bit(ivec_add(a.n, ivec_set1(1)), 2), vec_neg(y), y), cos);
}

INLINE vec vec_tan(vec x) {
    const angle a = angle_of(x);
    const mask odd = has_bit(a.n, 1);
    const vec s = sine_near_0(a), c = cosine_near_0(a);
    vec y = vec_div(vec_select(odd, vec_neg(c), s), vec_select(odd, s, c));
    return every_angle(x, vec_select(vec_eq(x, vec_zero()), x, y), tan);
}

/* ---- their inverses ---- */

/* atan(top / bottom), both at least 0. With q the quotient: above tan(3 pi / 8) pi / 2 - atan(1 / q), above tan(pi / 8)
 * pi / 4 + atan((q - 1) / (q + 1)), one division in every case (Cephes, atan.c). */
INLINE vec atan_of_quotient(vec top, vec bottom) {
    const mask large = vec_lt(vec_mul(bottom, vec_set1((real)2.41421356237309504880)), top);
    const mask middle = vec_lt(vec_mul(bottom, vec_set1((real)0.41421356237309504880)), top);
    vec above = vec_select(large, vec_neg(bottom), vec_select(middle, vec_sub(top, bottom), top));
    vec below = vec_select(large, top, vec_select(middle, vec_add(top, bottom), bottom));
    vec t = vec_div(above, below), z = vec_mul(t, t), zero = vec_zero(), half = vec_set1((real)0.5);
    vec share = vec_select(large, vec_set1(1), vec_select(middle, half, zero)); /* of pi / 2 */
    vec rest = vec_fma(vec_mul(z, t), POLYNOMIAL(atan_coefficients, z), vec_mul(share, vec_set1(HALF_PI_LO)));
    return vec_fma(share, vec_set1(HALF_PI_HI), vec_add(t, rest));
}

INLINE vec vec_atan(vec x) {
    const vec size = vec_abs(x), infinite = vec_set1((real)INFINITY);
    vec y = vec_select(vec_eq(size, infinite), vec_set1(HALF_PI_HI), atan_of_quotient(size, vec_set1(1)));
    return vec_copysign(y, x);
}

/* The angle of the point (x, y), -pi .. pi; signed zeros and infinities by C11 F.10.1.4. */
INLINE vec vec_atan2(vec y, vec x) {
    const vec limit = vec_set1((real)INFINITY), zero = vec_zero(), one = vec_set1(1);
    const mask endless = mask_or(vec_eq(vec_abs(x), limit), vec_eq(vec_abs(y), limit));
    vec a = vec_select(endless, vec_select(vec_eq(vec_abs(y), limit), one, zero), vec_abs(y));
    vec b = vec_select(endless, vec_select(vec_eq(vec_abs(x), limit), one, zero), vec_abs(x));
    b = vec_select(mask_and(vec_eq(a, zero), vec_eq(b, zero)), one, b);
    /* sums of both must not overflow, nor products with 2.4 */
    const vec shrink = vec_select(vec_lt(vec_set1(REAL64 ? (real)1e300 : (real)1e37), vec_max(a, b)), vec_set1((real)0.0625), one);
    vec angle = atan_of_quotient(vec_mul(a, shrink), vec_mul(b, shrink));
    const mask left = vec_lt(vec_copysign(one, x), zero);
    vec turned = vec_add(vec_sub(vec_set1(2 * HALF_PI_HI), angle), vec_set1(2 * HALF_PI_LO));
    angle = vec_copysign(vec_select(left, turned, angle), y);
    return vec_select(vec_unordered(x, y), vec_add(x, y), angle);
}

/* asin(s) = s + s z P(z), z = s^2 <= 1/4. Above |x| = 1/2 s is sqrt((1 - |x|) / 2), and asin |x| = pi / 2 - 2 asin(s). */
typedef struct {
    vec s, arc; /* arc: asin(s) - s */
    mask far;
} arc;

INLINE arc arc_of(vec size) {
    const mask far = vec_lt(vec_set1((real)0.5), size);
    vec z = vec_select(far, vec_mul(vec_set1((real)0.5), vec_sub(vec_set1(1), size)), vec_mul(size, size));
    vec s = vec_select(far, vec_sqrt(z), size);
    return (arc){s, vec_mul(vec_mul(s, z), POLYNOMIAL(asin_coefficients, z)), far};
}

INLINE vec vec_asin(vec x) {
    const arc a = arc_of(vec_abs(x));
    vec twice = vec_add(a.s, a.s), low = vec_fnma(vec_set1(2), a.arc, vec_set1(HALF_PI_LO));
    vec outer = vec_add(vec_sub(vec_set1(HALF_PI_HI), twice), low);
    return vec_copysign(vec_select(a.far, outer, vec_add(a.s, a.arc)), x);
}

INLINE vec vec_acos(vec x) {
    const arc a = arc_of(vec_abs(x));
    const mask left = vec_lt(x, vec_zero());
    vec full = vec_add(a.s, a.arc), twice = vec_add(full, full);
    vec s = vec_copysign(a.s, x), low = vec_sub(vec_set1(HALF_PI_LO), vec_copysign(a.arc, x));
    vec inner = vec_add(vec_sub(vec_set1(HALF_PI_HI), s), low);
    vec outer = vec_select(left, vec_add(vec_sub(vec_set1(2 * HALF_PI_HI), twice), vec_set1(2 * HALF_PI_LO)), twice);
    return vec_select(a.far, outer, inner);
}

/* ---- hyperbolic functions ---- */

/* With e = exp(|x|) - 1: sinh is (e + e / (e + 1)) / 2, cosh 1 + e^2 / (2 (e + 1)). From 20 on both are exp(|x|) / 2, made of the
 * square of exp(|x| / 2), which does not overflow before they do. */
INLINE vec half_exp(vec size) {
    vec root = vec_exp(vec_mul(vec_set1((real)0.5), size));
    return vec_mul(vec_mul(vec_set1((real)0.5), root), root);
}

INLINE vec vec_sinh(vec x) {
    const vec size = vec_abs(x), half = vec_set1((real)0.5), e = vec_expm1(vec_min(vec_set1(20), size));
    vec y = vec_mul(half, vec_add(e, vec_div(e, vec_add(e, vec_set1(1)))));
    return vec_copysign(vec_select(vec_lt(vec_set1(20), size), half_exp(size), y), x);
}

INLINE vec vec_cosh(vec x) {
    const vec size = vec_abs(x), one = vec_set1(1), e = vec_expm1(vec_min(vec_set1(20), size)), d = vec_add(one, e);
    vec y = vec_add(one, vec_div(vec_mul(e, e), vec_add(d, d)));
    return vec_select(vec_lt(vec_set1(20), size), half_exp(size), y);
}

/* log(x + sqrt(x^2 + 1)) as log1p(x + x^2 / (1 + sqrt(x^2 + 1))) (fdlibm, s_asinh.c). */
INLINE vec vec_asinh(vec x) {
    const vec size = vec_abs(x), one = vec_set1(1), limit = vec_set1(HYPERBOLIC_LARGE), s = vec_min(limit, size), z = vec_mul(s, s);
    vec near = vec_log1p(vec_add(s, vec_div(z, vec_add(one, vec_sqrt(vec_add(z, one))))));
    vec far = vec_add(vec_log(size), vec_set1((real)0.69314718055994530942));
    return vec_copysign(vec_select(vec_lt(limit, size), far, near), x);
}

/* log(x + sqrt(x^2 - 1)) as log1p(t + sqrt(2 t + t^2)), t = x - 1; NaN below 1. */
INLINE vec vec_acosh(vec x) {
    const vec limit = vec_set1(HYPERBOLIC_LARGE), t = vec_sub(vec_min(limit, x), vec_set1(1));
    vec near = vec_log1p(vec_add(t, vec_sqrt(vec_fma(t, t, vec_add(t, t)))));
    vec far = vec_add(vec_log(x), vec_set1((real)0.69314718055994530942));
    return vec_select(vec_lt(x, vec_set1(1)), vec_set1((real)NAN), vec_select(vec_lt(limit, x), far, near));
}

/* log1p(2 |x| / (1 - |x|)) / 2; infinite at 1, NaN beyond. */
INLINE vec vec_atanh(vec x) {
    const vec size = vec_abs(x), ratio = vec_div(vec_add(size, size), vec_sub(vec_set1(1), size));
    vec y = vec_mul(vec_set1((real)0.5), vec_log1p(ratio));
    return vec_copysign(vec_select(vec_lt(vec_set1(1), size), vec_set1((real)NAN), y), x);
}

/* ---- the error function; powers and logarithms of 2 and 10 ---- */

/* Near 0 by its series, beyond 1 as 1 - 2 tail(|x| sqrt 2). */
INLINE vec vec_erf(vec x) {
    const vec size = vec_abs(x), one = vec_set1(1), s = vec_min(one, size);
    vec near = vec_mul(s, POLYNOMIAL(erf_coefficients, vec_mul(s, s)));
    vec tail = normal_of(bell_range(vec_mul(size, vec_set1((real)1.41421356237309504880)))).tail;
    return vec_copysign(vec_select(vec_lt(one, size), vec_fnma(vec_set1(2), tail, one), near), x);
}

INLINE vec vec_exp2(vec x) {
    const real most = REAL64 ? 1080 : 160;
    x = vec_min(vec_set1(most), vec_max(vec_set1(-most), x));
    vec n = vec_round(x), r = vec_mul(vec_sub(x, n), vec_set1((real)0.69314718055994530942));
    return vec_scale(vec_add(vec_set1(1), exp_minus_one(r)), n);
}

/* k log(2) + log(1 + f) in another base: exact for powers of 2, to base 2. */
INLINE vec vec_log2(vec x) {
    vec k, f = log_split(x, &k), y = log_sum(f, vec_zero(), vec_zero());
    return log_specials(x, vec_fma(y, vec_set1((real)1.44269504088896340736), k));
}
INLINE vec vec_log10(vec x) {
    vec k, f = log_split(x, &k), y = log_sum(f, vec_zero(), vec_zero());
    vec low = vec_fma(y, vec_set1((real)0.43429448190325182765), vec_mul(k, vec_set1(LOG10_2_LO)));
    return log_specials(x, vec_fma(k, vec_set1(LOG10_2_HI), low));
}

#endif
