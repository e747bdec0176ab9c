/* vec_math.h: elementary functions on vectors, one text for all ISAs and both types, without branches.
 *
 *   vec_exp vec_exp_down vec_expm1 vec_log vec_log1p vec_tanh vec_sigmoid vec_pow   vec_exp_sum(hi, lo) = exp(hi + lo)
 *   vec_sincos_turns   vec_bell(x) = exp(-x^2 / 2)   normal_of(u): half of erfc(u / sqrt 2), and the bell
 *
 * Largest errors in units in the last place, float32 and float64 alike, scalar included: exp 1.1, log 0.9, log1p 0.9, tanh 1.9,
 * sigmoid 1.9, pow 1.3, sin and cos 1.8 (sweeps as in tests/test_elementwise.py, of some 10^6 arguments each).
 * Specials are those of C11 annex F. Where denormals are flushed, a denormal argument counts as zero.
 *
 * The polynomials are minimax (Remez exchange in 50 digits). The reductions hold without fused multiply-add too, where
 * vec_fma rounds twice: the leading parts of ln 2 have so many zero bits at their end that n * ln 2 is exact. */
#ifndef FNN_VEC_MATH_H
#define FNN_VEC_MATH_H

#if REAL64
#define LN2_HI 0x1.62e42feep-1 /* 32 bits; times an exponent of 11 bits it is exact */
#define LN2_LO 0x1.a39ef35793c76p-33
#define EXP_MIN (-746.0) /* exp(EXP_MIN) is 0, exp(EXP_MAX) infinite */
#define EXP_MAX 710.0
#define TANH_MAX 40.0    /* from here on tanh(x / 2) is 1 */
#define BELL_MAX 38.62   /* exp(-BELL_MAX^2 / 2) is 0 */
#define MANTISSA_BITS 52
#define EXPONENT_BIAS 1023
#define SQRT_HALF_BITS 0x3fe6a09e667f3bcd
#define TWO_THIRDS_LO 0x1.5555555555555p-55
static const real exp_coefficients[] = {
    0.5, 0.16666666666666677, 0.041666666666666699, 0.0083333333333215787, 0.001388888888886678, 0.00019841269886266703,
    2.480158736067179e-05, 2.7557244061448341e-06, 2.7557242659050249e-07, 2.5109090576539149e-08, 2.0924474858119469e-09};
static const real log_coefficients[] = {
    0.3999999999999998, 0.28571428571445201, 0.2222222221751386, 0.18181818873152064, 0.15384556674090924,
    0.13336325096736179, 0.1167466094808772, 0.1199033735512359};
static const real sin_coefficients[] = {
    1.5707963267948966, -0.64596409750624628, 0.079692626246166923, -0.0046817541353147314, 0.00016044118472557299,
    -3.598842710658446e-06, 5.6919259521647598e-08, -6.6274066365526509e-10};
static const real cos_coefficients[] = {
    1, -1.2337005501361697, 0.25366950790104803, -0.020863480763352923, 0.00091926027483859489,
    -2.5202042363201689e-05, 4.7108740977030149e-07, -6.3863300641004948e-09, 6.5070859914318235e-11};
#define NORMAL_SHIFT 5
static const real normal_coefficients[] = {
    0.769193049750063, -0.6653825028900566, 0.495305615969977, -0.3135331566713157, 0.16502036617036162,
    -0.06911863870595218, 0.02079506680024082, -0.0029933767756934754, -0.0007978694014642332, 0.0005448991058536323,
    -5.937571136998234e-05, -4.976301019142308e-05, 1.6681145130858423e-05, 3.98149117131527e-06,
    -2.76905581717351e-06, -3.3774314019777834e-07, 4.326871949006702e-07, 4.361250768056437e-08,
    -6.532036279008487e-08, -1.0211098268947246e-08, 7.182128560435033e-09, 2.0139977473743414e-09};
#else
#define LN2_HI 0x1.62e3p-1f /* 16 bits */
#define LN2_LO 0x1.2fefa4p-17f
#define EXP_MIN (-104.0f)
#define EXP_MAX 89.0f
#define TANH_MAX 20.0f
#define BELL_MAX 14.43f
#define MANTISSA_BITS 23
#define EXPONENT_BIAS 127
#define SQRT_HALF_BITS 0x3f3504f3
#define TWO_THIRDS_LO (-0x1.555556p-26f)
static const real exp_coefficients[] = {0.5f, 0.166665435f, 0.0416662805f, 0.00836661085f, 0.00139464962f};
static const real log_coefficients[] = {0.400001526f, 0.285470873f, 0.234197423f};
static const real sin_coefficients[] = {1.57079637f, -0.64596343f, 0.0796800256f, -0.00460162573f};
static const real cos_coefficients[] = {1, -1.23370051f, 0.253669232f, -0.0208602864f, 0.000904015673f};
static const real normal_numerator[] = {0.49999991f, 0.3529217f, 0.114342064f, 0.015822437f};
static const real normal_denominator[] = {1, 1.50371706f, 0.9285688f, 0.2863310f, 0.039668646f};
static const real half_exp_coefficients[] = {1.00000012f,   -0.49999985f,   0.124997228f, /* exp(-r / 2), |r| <= ln 2 */
                                             -0.02083447f, 0.00261972682f, -0.000259300607f};
#endif

/* coefficient[0] + coefficient[1] x + ..., Horner's rule; the loop is unrolled, the count being constant. */
#define POLYNOMIAL(coefficients, x) polynomial(coefficients, (int)(sizeof coefficients / sizeof *coefficients), x)
INLINE vec polynomial(const real *coefficient, int count, vec x) {
    vec y = vec_set1(coefficient[count - 1]);
    for (int k = count - 2; k >= 0; k--) y = vec_fma(y, x, vec_set1(coefficient[k]));
    return y;
}

/* ---- exponentials ---- */

/* The whole number n next to x / ln 2, |n| < 2^22: the addition of 1.5 * 2^(bits of the mantissa) rounds it. */
INLINE vec exp_exponent(vec x) {
    const vec magic = vec_set1(REAL64 ? (real)0x1.8p52 : (real)0x1.8p23);
    return vec_sub(vec_fma(x, vec_set1((real)1.4426950408889634), magic), magic);
}

/* x - n ln 2 + lo (Cody and Waite): |result| <= ln(2) / 2; lo is a small addend to x. */
INLINE vec exp_remainder(vec x, vec n) { return vec_fnma(n, vec_set1(LN2_LO), vec_fnma(n, vec_set1(LN2_HI), x)); }
INLINE vec exp_remainder_sum(vec x, vec lo, vec n) {
    return vec_fnma(n, vec_set1(LN2_LO), vec_add(vec_fnma(n, vec_set1(LN2_HI), x), lo));
}

/* exp(r) - 1 = r + r^2 P(r) */
INLINE vec exp_minus_one(vec r) { return vec_fma(vec_mul(r, r), POLYNOMIAL(exp_coefficients, r), r); }

/* Where exp is neither 0 nor infinite; NaN stays. */
INLINE vec exp_range(vec x) { return vec_min(vec_set1(EXP_MAX), vec_max(vec_set1(EXP_MIN), x)); }

INLINE vec vec_exp(vec x) {
    x = exp_range(x);
    vec n = exp_exponent(x);
    return vec_scale(vec_add(vec_set1(1), exp_minus_one(exp_remainder(x, n))), n);
}

#if !(REAL64 || defined(VEC_AVX512)) /* AVX-512's vec_scale is one instruction */
/* exp_exponent's n and 2^n for -127 <= n <= 127, 0 for -127: a number whose biased exponent is shifted to its place, magic's own
 * bits out of it. */
INLINE vec exp_exponent_power(vec x, vec *power) {
    const vec magic = vec_set1((real)(0x1.8p23 + EXPONENT_BIAS)), shifted = vec_fma(x, vec_set1((real)1.4426950408889634), magic);
    *power = ivec_as_vec(ivec_shl(vec_as_ivec(shifted), MANTISSA_BITS));
    return vec_sub(shifted, magic);
}
#endif

/* exp(x) for x <= 0 or little above: what vec_exp gives (float32 without AVX-512: where denormals are flushed), with fewer
 * steps. */
INLINE vec vec_exp_down(vec x) {
#if REAL64 || defined(VEC_AVX512)
    x = vec_max(vec_set1(EXP_MIN), x);
    const vec n = exp_exponent(x);
    return vec_scale(vec_add(vec_set1(1), exp_minus_one(exp_remainder(x, n))), n);
#else
    vec power;
    x = vec_max(vec_set1(-88), x); /* exp(-88) is denormal */
    const vec n = exp_exponent_power(x, &power);
    return vec_mul(vec_add(vec_set1(1), exp_minus_one(exp_remainder(x, n))), power);
#endif
}

/* exp(hi + lo), |lo| much below 1. */
INLINE vec vec_exp_sum(vec hi, vec lo) {
    vec x = exp_range(hi), n = exp_exponent(x);
    return vec_scale(vec_add(vec_set1(1), exp_minus_one(exp_remainder_sum(x, lo, n))), n);
}

/* 2^n (exp(r) - 1) + (2^n - 1): accurate at 0, for EXP_MIN <= x < EXP_MAX - 2. */
INLINE vec expm1_in_range(vec x) {
    const vec one = vec_set1(1);
    vec n = exp_exponent(x), power = vec_scale(one, n);
    return vec_fma(power, exp_minus_one(exp_remainder(x, n)), vec_sub(power, one));
}

/* exp(x) - 1 for x < EXP_MAX - 2 */
INLINE vec vec_expm1(vec x) { return expm1_in_range(vec_max(vec_set1(EXP_MIN), x)); }

/* exp(x) - 1 for 0 <= x <= TANH_MAX: what expm1_in_range gives, with fewer steps. */
INLINE vec expm1_of_tanh(vec x) {
#if REAL64 || defined(VEC_AVX512)
    return expm1_in_range(x);
#else
    vec power;
    const vec n = exp_exponent_power(x, &power);
    return vec_fma(power, exp_minus_one(exp_remainder(x, n)), vec_sub(power, vec_set1(1)));
#endif
}

/* 1 / (1 + exp(-x)), from e = exp(-|x|), which cannot overflow; no cancellation on either side. What 1 + e loses in
 * rounding is put back to first order; there 1 - e / 2 is near enough to 1 / (1 + e). */
INLINE vec vec_sigmoid(vec x) {
    const vec one = vec_set1(1);
    vec e = vec_exp_down(vec_neg(vec_abs(x))), d = vec_add(one, e), lost = vec_sub(e, vec_sub(d, one));
    vec q = vec_div(vec_select(vec_lt(x, vec_zero()), e, one), d);
    return vec_fnma(vec_mul(q, lost), vec_fnma(vec_set1((real)0.5), e, one), q);
}

/* t / (t + 2) with t = exp(2|x|) - 1: accurate at 0, never above 1. Below t = 2 the quotient
 * q takes one step of correction, for the rounding of t + 2 and its own; 1 / (t + 2) = (1 - q) / 2. */
INLINE vec vec_tanh(vec x) {
    const vec one = vec_set1(1), two = vec_set1(2);
    vec t = expm1_of_tanh(vec_min(vec_set1(TANH_MAX), vec_abs(vec_add(x, x))));
    vec d = vec_add(t, two), lost = vec_sub(t, vec_sub(d, two)), q = vec_div(t, d), product = vec_mul(q, d);
    vec left = vec_fnma(q, lost, vec_sub(vec_sub(t, product), vec_product_error(q, d, product)));
    vec corrected = vec_fma(left, vec_mul(vec_set1((real)0.5), vec_sub(one, q)), q);
    return vec_copysign(vec_select(vec_lt(t, two), corrected, q), x);
}

/* exp(-u^2 / 2), 0 <= u <= BELL_MAX. The rounding error of u^2 goes into the exponential too: it would cost up to 40
 * units in the last place. */
INLINE vec bell_in_range(vec u) {
    vec half = vec_mul(vec_set1((real)-0.5), u), x = vec_mul(half, u), error = vec_product_error(half, u, x);
    vec n = exp_exponent(x);
    return vec_scale(vec_add(vec_set1(1), exp_minus_one(exp_remainder_sum(x, error, n))), n);
}

/* |x|, where the bell is not yet 0; NaN stays. */
INLINE vec bell_range(vec x) { return vec_min(vec_set1(BELL_MAX), vec_abs(x)); }

INLINE vec vec_bell(vec x) { return bell_in_range(bell_range(x)); }

/* What the normal distribution holds above u, and exp(-u^2 / 2), 0 <= u <= BELL_MAX, for GELU. Both have digits left far out,
 * where 1 - erf has none. */
typedef struct {
    vec tail, bell;
} normal;

#if REAL64
/* With k = NORMAL_SHIFT and r = 1 / (u + k) the tail is bell r P(1 - 2 k r)  (the substitution is Shepherd and Laframboise's,
 * Mathematics of Computation 36, 1981). GELU, u times this, errs by at most 9 units in the last place. */
INLINE normal normal_of(vec u) {
    vec bell = bell_in_range(u), r = vec_div(vec_set1(1), vec_add(u, vec_set1(NORMAL_SHIFT)));
    vec t = vec_fnma(r, vec_set1(2 * NORMAL_SHIFT), vec_set1(1));
    return (normal){vec_mul(vec_mul(bell, r), POLYNOMIAL(normal_coefficients, t)), bell};
}
#else
/* The tail is bell P(u) / Q(u). Everything is as short as GELU beside a copy of its data needs: the exponential's argument keeps
 * the factor of -1/2, and its polynomial is added up in pairs. The rounding error of u^2 goes into the exponential: far out it
 * would cost up to 120 units in the last place. (34 remain there, of the quotient; 9 within six deviations.) */
INLINE normal normal_of(vec u) {
    const real *p = normal_numerator, *q = normal_denominator, *c = half_exp_coefficients;
    const vec magic = vec_set1(0x1.8p23f);
    vec square = vec_mul(u, u), n = vec_sub(vec_fma(square, vec_set1(-0.7213475204444817f), magic), magic);
    vec lost = vec_product_error(u, u, square);
    vec r = vec_add(vec_fma(n, vec_set1(2 * LN2_LO), lost), vec_fma(n, vec_set1(2 * LN2_HI), square));
    vec low = vec_fma(r, vec_set1(c[1]), vec_set1(c[0])), middle = vec_fma(r, vec_set1(c[3]), vec_set1(c[2]));
    vec high = vec_fma(r, vec_set1(c[5]), vec_set1(c[4])), r2 = vec_mul(r, r);
    vec bell = vec_scale(vec_fma(r2, vec_fma(r2, high, middle), low), n);
    vec above = vec_fma(vec_fma(vec_fma(u, vec_set1(p[3]), vec_set1(p[2])), u, vec_set1(p[1])), u, vec_set1(p[0]));
    vec below = vec_fma(vec_fma(vec_fma(u, vec_set1(q[4]), vec_set1(q[3])), u, vec_set1(q[2])), u, vec_set1(q[1]));
    below = vec_fma(below, u, vec_set1(q[0]));
    return (normal){vec_mul(bell, vec_div(above, below)), bell};
}
#endif

/* ---- logarithms ----
 * x = 2^k (1 + f), sqrt(1/2) <= 1 + f < sqrt(2); with s = f / (2 + f), z = s^2:
 * log(1 + f) = 2 s + s z L(z), L(z) = 2/3 + z (2/5 + ...)  (Sun's fdlibm, e_log.c). */

/* Splits a positive x, denormals included (where they are not flushed). */
INLINE vec log_split(vec x, vec *k) {
    const mask tiny = vec_lt(x, vec_set1(REAL64 ? (real)0x1p-1022 : (real)0x1p-126));
    const real rescue = REAL64 ? 54 : 24;
    x = vec_select(tiny, vec_mul(x, vec_set1(REAL64 ? (real)0x1p54 : (real)0x1p24)), x);
    const ireal one = (ireal)EXPONENT_BIAS << MANTISSA_BITS;
    ivec bits = ivec_add(vec_as_ivec(x), ivec_set1(one - SQRT_HALF_BITS));
    vec exponent = ivec_to_vec(ivec_sub(ivec_shr(bits, MANTISSA_BITS), ivec_set1(EXPONENT_BIAS)));
    *k = vec_sub(exponent, vec_select(tiny, vec_set1(rescue), vec_zero()));
    bits = ivec_add(ivec_and(bits, ivec_set1(((ireal)1 << MANTISSA_BITS) - 1)), ivec_set1(SQRT_HALF_BITS));
    return vec_sub(ivec_as_vec(bits), vec_set1(1));
}

/* log(2^k (1 + f)) + correction, in fdlibm's order of summation. */
INLINE vec log_sum(vec f, vec k, vec correction) {
    vec s = vec_div(f, vec_add(f, vec_set1(2))), z = vec_mul(s, s);
    vec series = vec_mul(z, vec_fma(z, POLYNOMIAL(log_coefficients, z), vec_set1((real)(2.0 / 3))));
    vec half_square = vec_mul(vec_mul(vec_set1((real)0.5), f), f);
    vec low = vec_fma(k, vec_set1(LN2_LO), correction);
    low = vec_sub(half_square, vec_fma(s, vec_add(half_square, series), low));
    return vec_sub(vec_mul(k, vec_set1(LN2_HI)), vec_sub(low, f));
}

/* y where 0 < x < inf; the rest by IEEE: log(0) = -inf, log(inf) = inf, NaN below 0. */
INLINE vec log_specials(vec x, vec y) {
    y = vec_select(vec_lt(x, vec_set1((real)INFINITY)), y, x);
    y = vec_select(vec_eq(x, vec_zero()), vec_set1((real)-INFINITY), y);
    return vec_select(vec_lt(x, vec_zero()), vec_set1((real)NAN), y);
}

INLINE vec vec_log(vec x) {
    vec k, f = log_split(x, &k);
    return log_specials(x, log_sum(f, k, vec_zero()));
}

/* log(u) + c / u, where u + c = 1 + x: u is the rounded sum, c what the rounding lost. */
INLINE vec vec_log1p(vec x) {
    const vec one = vec_set1(1);
    vec u = vec_add(one, x);
    vec lost = vec_select(vec_lt(vec_abs(x), one), vec_sub(x, vec_sub(u, one)), vec_sub(one, vec_sub(u, x)));
    vec k, f = log_split(u, &k);
    vec y = log_specials(u, log_sum(f, k, vec_div(lost, u)));
    return vec_select(vec_eq(x, vec_zero()), x, y); /* keeps -0 */
}

/* ---- powers: |a|^b = exp(b log|a|), the logarithm in twice the precision ---- */

/* A number as the sum of two, |lo| at most half a unit of hi. */
typedef struct {
    vec hi, lo;
} vec2;

/* a + b exactly, for |a| >= |b| or a = 0 (Dekker 1971). */
INLINE vec2 vec2_sum(vec a, vec b) {
    vec hi = vec_add(a, b);
    return (vec2){hi, vec_sub(b, vec_sub(hi, a))};
}

INLINE vec2 vec2_mul(vec2 a, vec2 b) {
    vec hi = vec_mul(a.hi, b.hi);
    vec lo = vec_add(vec_product_error(a.hi, b.hi, hi), vec_fma(a.hi, b.lo, vec_mul(a.lo, b.hi)));
    return vec2_sum(hi, lo);
}

/* log(x), 0 < x < inf. The first two terms of the series are carried in both parts: what is left of it is below 2^-12 of the
 * result, so its own rounding does not count. */
INLINE vec2 log_extended(vec x) {
    vec k, f = log_split(x, &k);
    vec2 d = vec2_sum(vec_set1(2), f), s;
    s.hi = vec_div(f, d.hi);
    vec product = vec_mul(s.hi, d.hi);
    vec left = vec_sub(vec_sub(f, product), vec_product_error(s.hi, d.hi, product));
    s.lo = vec_div(vec_fnma(s.hi, d.lo, left), d.hi);
    vec2 z = vec2_mul(s, s);
    vec rest = vec_fma(z.hi, POLYNOMIAL(log_coefficients, z.hi), vec_set1(TWO_THIRDS_LO));
    vec2 cubic = vec2_mul(vec2_mul(s, z), vec2_sum(vec_set1((real)(2.0 / 3)), rest));
    vec2 head = vec2_sum(vec_mul(k, vec_set1(LN2_HI)), vec_add(s.hi, s.hi)), sum = vec2_sum(head.hi, cubic.hi);
    vec low = vec_fma(k, vec_set1(LN2_LO), vec_add(cubic.lo, vec_add(s.lo, s.lo)));
    return vec2_sum(sum.hi, vec_add(sum.lo, vec_add(head.lo, low)));
}

/* The sign and the cases in which a power of numbers below zero, zero and infinity are defined (C11 F.10.4.4). */
INLINE vec pow_specials(vec a, vec b, vec size) {
    const vec zero = vec_zero(), one = vec_set1(1), half = vec_mul(b, vec_set1((real)0.5)), limit = vec_set1((real)INFINITY);
    mask integer = vec_eq(vec_round(b), b), odd = mask_and(integer, mask_not(vec_eq(vec_round(half), half)));
    size = vec_select(vec_eq(vec_abs(a), one), vec_select(vec_unordered(b, b), b, one), size); /* 1^inf */
    vec y = vec_select(odd, vec_copysign(size, a), size);
    mask undefined = mask_and(vec_lt(a, zero), mask_and(mask_not(integer), vec_lt(vec_abs(a), limit)));
    y = vec_select(mask_and(undefined, mask_not(vec_unordered(b, b))), vec_set1((real)NAN), y);
    return vec_select(mask_or(vec_eq(b, zero), vec_eq(a, one)), one, y);
}

INLINE vec vec_pow(vec a, vec b) {
    const vec size = vec_abs(a);
    vec2 log = log_extended(size);
    mask regular = mask_and(vec_lt(vec_zero(), size), vec_lt(size, vec_set1((real)INFINITY)));
    log.hi = vec_select(regular, log.hi, vec_select(vec_eq(size, vec_zero()), vec_set1((real)-INFINITY), size));
    vec product = vec_mul(b, log.hi);
    vec low = vec_fma(b, log.lo, vec_product_error(b, log.hi, product));
    low = vec_select(vec_lt(vec_abs(product), vec_set1(2 * EXP_MAX)), low, vec_zero()); /* beyond it is 0 or inf */
    return pow_specials(a, b, vec_exp_sum(product, low));
}

/* ---- angles ---- */

/* sin and cos of 2 pi u, 0 <= u <= 1: the quarter turn is split off exactly, |t| <= 1/2 quarter turns are left. */
INLINE void vec_sincos_turns(vec u, vec *sine, vec *cosine) {
    vec quarters = vec_mul(u, vec_set1(4)), q = vec_round(quarters), t = vec_sub(quarters, q), z = vec_mul(t, t);
    vec s = vec_mul(t, POLYNOMIAL(sin_coefficients, z)), c = POLYNOMIAL(cos_coefficients, z);
    vec half = vec_mul(q, vec_set1((real)0.5));
    mask even = vec_eq(vec_round(half), half);
    vec first = vec_select(even, s, c), second = vec_select(even, c, s);
    mask below = mask_and(vec_lt(vec_set1((real)1.5), q), vec_lt(q, vec_set1((real)3.5)));  /* second half of the turn */
    mask left = mask_and(vec_lt(vec_set1((real)0.5), q), vec_lt(q, vec_set1((real)2.5)));
    *sine = vec_select(below, vec_neg(first), first);
    *cosine = vec_select(left, vec_neg(second), second);
}

#endif
