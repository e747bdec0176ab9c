/* vec_neon.h: 4 floats or 2 doubles (AArch64: all its CPUs). Masks are vectors of lanes all ones or zeros. */
#include <arm_neon.h>

#define REGISTERS 32
#if REAL64
#define LANES 2
#define V(op) v##op##_f64
#define I(op) v##op##_s64
#define U(op) v##op##_u64
#define AS_INT vreinterpretq_s64_f64
#define AS_BITS vreinterpretq_u64_f64
#define AS_REAL vreinterpretq_f64_u64
#define INT_AS_BITS vreinterpretq_u64_s64
#define BITS_AS_INT vreinterpretq_s64_u64
typedef float64x2_t vec;
typedef int64x2_t ivec;
typedef uint64x2_t mask;
#else
#define LANES 4
#define V(op) v##op##_f32
#define I(op) v##op##_s32
#define U(op) v##op##_u32
#define AS_INT vreinterpretq_s32_f32
#define AS_BITS vreinterpretq_u32_f32
#define AS_REAL vreinterpretq_f32_u32
#define INT_AS_BITS vreinterpretq_u32_s32
#define BITS_AS_INT vreinterpretq_s32_u32
typedef float32x4_t vec;
typedef int32x4_t ivec;
typedef uint32x4_t mask;
#endif

INLINE mask mask_first(ptrdiff_t n) {
#if REAL64
    static const int64_t lane[LANES] = {0, 1};
#else
    static const int32_t lane[LANES] = {0, 1, 2, 3};
#endif
    return I(cgtq)(I(dupq_n)((ireal)n), I(ld1q)(lane));
}

INLINE vec vec_load(const real *p) { return V(ld1q)(p); }
INLINE void vec_store(real *p, vec v) { V(st1q)(p, v); }
/* A64 has no store of one vector past the caches; cores notice runs of whole lines by themselves. */
INLINE void vec_stream(real *p, vec v) { V(st1q)(p, v); }
INLINE void vec_stream_end(void) {}
INLINE vec vec_set1(real a) { return V(dupq_n)(a); }
INLINE vec vec_zero(void) { return V(dupq_n)(0); }

/* There are no masked loads and stores: halves, then single lanes; n is mostly LANES or the same again and again, which
 * branches are good at. */
#if REAL64
INLINE vec vec_load_n(const real *p, ptrdiff_t n) {
    if (n >= LANES) return vld1q_f64(p);
    return n > 0 ? vld1q_lane_f64(p, vec_zero(), 0) : vec_zero();
}
INLINE void vec_store_n(real *p, vec v, ptrdiff_t n) {
    if (n >= LANES) vst1q_f64(p, v);
    else if (n > 0) vst1q_lane_f64(p, v, 0);
}
#else
INLINE vec vec_load_n(const real *p, ptrdiff_t n) {
    if (n >= LANES) return vld1q_f32(p);
    if (n <= 0) return vec_zero();
    if (n == 1) return vld1q_lane_f32(p, vec_zero(), 0);
    const vec pair = vcombine_f32(vld1_f32(p), vdup_n_f32(0));
    return n == 2 ? pair : vld1q_lane_f32(p + 2, pair, 2);
}
INLINE void vec_store_n(real *p, vec v, ptrdiff_t n) {
    if (n >= LANES) {
        vst1q_f32(p, v);
    } else if (n == 1) {
        vst1q_lane_f32(p, v, 0);
    } else if (n > 0) {
        vst1_f32(p, vget_low_f32(v));
        if (n == 3) vst1q_lane_f32(p + 2, v, 2);
    }
}
#endif

INLINE vec vec_add(vec a, vec b) { return V(addq)(a, b); }
INLINE vec vec_sub(vec a, vec b) { return V(subq)(a, b); }
INLINE vec vec_mul(vec a, vec b) { return V(mulq)(a, b); }
INLINE vec vec_div(vec a, vec b) { return V(divq)(a, b); }
INLINE vec vec_fma(vec a, vec b, vec c) { return V(fmaq)(c, a, b); }
INLINE void vec_accumulate(vec *c, vec a, vec b) { *c = vec_fma(a, b, *c); }
INLINE vec vec_fnma(vec a, vec b, vec c) { return V(fmsq)(c, a, b); }
INLINE mask vec_lt(vec a, vec b) { return V(cltq)(a, b); }
INLINE mask vec_le(vec a, vec b) { return V(cleq)(a, b); }
INLINE mask vec_eq(vec a, vec b) { return V(ceqq)(a, b); }
INLINE mask mask_and(mask a, mask b) { return U(andq)(a, b); }
INLINE mask mask_or(mask a, mask b) { return U(orrq)(a, b); }
INLINE mask mask_not(mask a) { return a ^ U(dupq_n)(-1); }
INLINE vec vec_select(mask m, vec a, vec b) { return V(bslq)(m, a, b); }
INLINE mask vec_unordered(vec a, vec b) { return mask_not(mask_and(vec_eq(a, a), vec_eq(b, b))); }
/* Not fmax, fmin: these give NaN, or the number, where ours give b. */
INLINE vec vec_max(vec a, vec b) { return vec_select(V(cgtq)(a, b), a, b); }
INLINE vec vec_min(vec a, vec b) { return vec_select(V(cltq)(a, b), a, b); }
INLINE vec vec_abs(vec a) { return V(absq)(a); }
INLINE vec vec_neg(vec a) { return V(negq)(a); }
INLINE vec vec_sqrt(vec a) { return V(sqrtq)(a); }
INLINE vec vec_round(vec a) { return V(rndnq)(a); }
INLINE vec vec_copysign(vec a, vec b) { return vec_select(AS_BITS(vec_set1((real)-0.0)), b, a); }

INLINE ivec ivec_set1(ireal a) { return I(dupq_n)(a); }
INLINE ivec ivec_add(ivec a, ivec b) { return I(addq)(a, b); }
INLINE ivec ivec_sub(ivec a, ivec b) { return I(subq)(a, b); }
INLINE ivec ivec_and(ivec a, ivec b) { return I(andq)(a, b); }
#define ivec_shl(a, count) I(shlq_n)(a, count)
#define ivec_shr(a, count) BITS_AS_INT(U(shrq_n)(INT_AS_BITS(a), count))
INLINE ivec vec_as_ivec(vec a) { return AS_INT(a); }
INLINE vec ivec_as_vec(ivec i) { return AS_REAL(INT_AS_BITS(i)); }
INLINE mask ivec_eq(ivec a, ivec b) { return I(ceqq)(a, b); }
INLINE ivec ivec_select(mask m, ivec a, ivec b) { return I(bslq)(m, a, b); }
#if REAL64
INLINE unsigned mask_bits(mask a) { return (unsigned)((vgetq_lane_u64(a, 0) & 1) | (vgetq_lane_u64(a, 1) & 2)); }
INLINE int mask_any(mask a) { return (vgetq_lane_u64(a, 0) | vgetq_lane_u64(a, 1)) != 0; }
INLINE ivec vec_to_ivec(vec a) { return vcvtnq_s64_f64(a); }
INLINE vec ivec_to_vec(ivec i) { return vcvtq_f64_s64(i); }
INLINE ivec ivec_load(const void *p) { return vreinterpretq_s64_u8(vld1q_u8(p)); }
#else
INLINE unsigned mask_bits(mask a) { return vaddvq_u32(vandq_u32(a, (uint32x4_t){1, 2, 4, 8})); }
INLINE int mask_any(mask a) { return vmaxvq_u32(a) != 0; }
INLINE ivec vec_to_ivec(vec a) { return vcvtnq_s32_f32(a); }
INLINE vec ivec_to_vec(ivec i) { return vcvtq_f32_s32(i); }
INLINE ivec ivec_load(const void *p) { return vreinterpretq_s32_u8(vld1q_u8(p)); }
#endif

/* Two steps, so that neither factor leaves the range of exponents; the first product is exact. */
INLINE vec vec_scale(vec a, vec n) {
    const ivec bias = ivec_set1(REAL64 ? 1023 : 127);
    vec half = vec_round(vec_mul(n, vec_set1((real)0.5)));
    a = vec_mul(a, ivec_as_vec(ivec_shl(ivec_add(vec_to_ivec(half), bias), REAL64 ? 52 : 23)));
    return vec_mul(a, ivec_as_vec(ivec_shl(ivec_add(vec_to_ivec(vec_sub(n, half)), bias), REAL64 ? 52 : 23)));
}
INLINE vec vec_product_error(vec a, vec b, vec p) { return vec_fma(a, b, vec_neg(p)); }

#define WORDS 2
typedef uint64x2_t words;
INLINE words words_set1(uint64_t a) { return vdupq_n_u64(a); }
INLINE words words_add(words a, words b) { return vaddq_u64(a, b); }
INLINE words words_count(uint64_t from) { return vsetq_lane_u64(from + 1, vdupq_n_u64(from), 1); }
INLINE words words_mul(words a, words b) { return vmull_u32(vmovn_u64(a), vmovn_u64(b)); }
INLINE words words_xor(words a, words b) { return veorq_u64(a, b); }
INLINE words words_or(words a, words b) { return vorrq_u64(a, b); }
INLINE words words_and(words a, words b) { return vandq_u64(a, b); }
#define words_shl(a, count) vshlq_n_u64(a, count)
#define words_shr(a, count) vshrq_n_u64(a, count)
INLINE words words_load(const void *p) { return vreinterpretq_u64_u8(vld1q_u8(p)); }
INLINE void words_stream(void *p, words a) { vst1q_u8(p, vreinterpretq_u8_u64(a)); }
INLINE void words_store(uint64_t *p, words a) { vst1q_u64(p, a); }
INLINE void words_store_pairs(uint64_t *p, words a, words b) {
    words_store(p, vzip1q_u64(a, b));
    words_store(p + 2, vzip2q_u64(a, b));
}

/* Halves, then quarters: the same tree as AVX2's, a level shorter. */
#if REAL64
#define FOLD(op, a) return vgetq_lane_f64(vec_##op(a, vextq_f64(a, a, 1)), 0)
#else
#define FOLD(op, a)                                                                                                    \
    const vec h = vec_##op(a, vextq_f32(a, a, 2));                                                                     \
    return vgetq_lane_f32(vec_##op(h, vextq_f32(h, h, 1)), 0)
#endif
INLINE real vec_sum(vec a) { FOLD(add, a); }
INLINE real vec_hmax(vec a) { FOLD(max, a); }
INLINE real vec_hmin(vec a) { FOLD(min, a); }

#if REAL64
INLINE int32x2_t load_i32(const int32_t *p, ptrdiff_t n) {
    if (n >= LANES) return vld1_s32(p);
    return n > 0 ? vld1_lane_s32(p, vdup_n_s32(0), 0) : vdup_n_s32(0);
}
INLINE ivec load_u8(const uint8_t *p, ptrdiff_t n) {
    return vsetq_lane_s64(n > 1 ? p[1] : 0, vdupq_n_s64(n > 0 ? p[0] : 0), 1);
}
INLINE ivec ivec_load_i32(const int32_t *p, ptrdiff_t n) { return vmovl_s32(load_i32(p, n)); }
INLINE void ivec_store_i32(int32_t *p, ivec i, ptrdiff_t n) {
    if (n >= LANES) vst1_s32(p, vmovn_s64(i));
    else if (n > 0) *p = (int32_t)vgetq_lane_s64(i, 0);
}
INLINE void mask_store_u8(uint8_t *p, mask m, ptrdiff_t n) {
    if (n > 0) p[0] = vgetq_lane_u64(m, 0) & 1;
    if (n > 1) p[1] = vgetq_lane_u64(m, 1) & 1;
}
#else
INLINE ivec load_u8(const uint8_t *p, ptrdiff_t n) {
    uint32_t bytes = 0;
    if (n >= LANES) memcpy(&bytes, p, sizeof bytes);
    else
        for (ptrdiff_t k = 0; k < n; k++) bytes |= (uint32_t)p[k] << (8 * k);
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(bytes)))));
}
INLINE ivec ivec_load_i32(const int32_t *p, ptrdiff_t n) { return AS_INT(vec_load_n((const real *)p, n)); }
INLINE void ivec_store_i32(int32_t *p, ivec i, ptrdiff_t n) { vec_store_n((real *)p, ivec_as_vec(i), n); }
INLINE void mask_store_u8(uint8_t *p, mask m, ptrdiff_t n) {
    const uint16x4_t half = vmovn_u32(m);
    const uint8x8_t ones = vand_u8(vmovn_u16(vcombine_u16(half, half)), vdup_n_u8(1));
    const uint32_t bytes = vget_lane_u32(vreinterpret_u32_u8(ones), 0);
    if (n >= LANES) memcpy(p, &bytes, sizeof bytes);
    else
        for (ptrdiff_t k = 0; k < n; k++) p[k] = (uint8_t)(bytes >> (8 * k));
}
#endif
INLINE mask mask_load_u8(const uint8_t *p, ptrdiff_t n) { return mask_not(ivec_eq(load_u8(p, n), ivec_set1(0))); }

enum { VEC_REACH = LANES };
/* Each lane's first byte, to all of its bytes, times their number, plus which of them they are. */
INLINE vec vec_permute(vec v, ivec i) {
#if REAL64
    static const uint8_t first[16] = {0, 0, 0, 0, 0, 0, 0, 0, 8, 8, 8, 8, 8, 8, 8, 8};
    static const uint8_t byte[16] = {0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7};
    const uint8x16_t lane = vqtbl1q_u8(vreinterpretq_u8_s64(i), vld1q_u8(first));
    return vreinterpretq_f64_u8(vqtbl1q_u8(vreinterpretq_u8_f64(v), vaddq_u8(vshlq_n_u8(lane, 3), vld1q_u8(byte))));
#else
    static const uint8_t first[16] = {0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12};
    static const uint8_t byte[16] = {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3};
    const uint8x16_t lane = vqtbl1q_u8(vreinterpretq_u8_s32(i), vld1q_u8(first));
    return vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(v), vaddq_u8(vshlq_n_u8(lane, 2), vld1q_u8(byte))));
#endif
}

/* Swaps rows and columns of a LANES x LANES block. */
INLINE void vec_transpose(vec r[LANES]) {
#if REAL64
    const vec a = r[0], b = r[1];
    r[0] = vzip1q_f64(a, b), r[1] = vzip2q_f64(a, b);
#else
#define PAIRS vreinterpretq_f64_f32
    const float64x2_t a = PAIRS(vzip1q_f32(r[0], r[1])), b = PAIRS(vzip2q_f32(r[0], r[1]));
    const float64x2_t c = PAIRS(vzip1q_f32(r[2], r[3])), d = PAIRS(vzip2q_f32(r[2], r[3]));
#undef PAIRS
    r[0] = vreinterpretq_f32_f64(vzip1q_f64(a, c)), r[1] = vreinterpretq_f32_f64(vzip2q_f64(a, c));
    r[2] = vreinterpretq_f32_f64(vzip1q_f64(b, d)), r[3] = vreinterpretq_f32_f64(vzip2q_f64(b, d));
#endif
}

enum { VEC_BLOCK = LANES };
INLINE void vec_load_columns(const real *p, ptrdiff_t row, vec *out) {
    for (int k = 0; k < LANES; k++) out[k] = vec_load(p + k * row);
    vec_transpose(out);
}
