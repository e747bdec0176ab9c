/* vec_avx512.h: 16 floats or 8 doubles (x86-64-v4: F, BW, CD, DQ, VL). */
#ifdef FNN_AVX512_EMULATED
#include "emulated_avx512.h"
#else
#include <immintrin.h>
#endif

#define REGISTERS 32
#if REAL64
#define LANES 8
#define V(op) _mm512_##op##_pd
#define I(op) _mm512_##op##_epi64
typedef __m512d vec;
typedef __mmask8 mask;
#else
#define LANES 16
#define V(op) _mm512_##op##_ps
#define I(op) _mm512_##op##_epi32
typedef __m512 vec;
typedef __mmask16 mask;
#endif
typedef __m512i ivec;

INLINE mask mask_first(ptrdiff_t n) { return (mask)((1u << n) - 1); }

INLINE vec vec_load(const real *p) { return V(loadu)(p); }
INLINE void vec_store(real *p, vec v) { V(storeu)(p, v); }
INLINE void vec_stream(real *p, vec v) { V(stream)(p, v); }
INLINE void vec_stream_end(void) { _mm_sfence(); }
INLINE vec vec_load_n(const real *p, ptrdiff_t n) { return V(maskz_loadu)(mask_first(n), p); }
INLINE void vec_store_n(real *p, vec v, ptrdiff_t n) { V(mask_storeu)(p, mask_first(n), v); }
INLINE vec vec_set1(real a) { return V(set1)(a); }
#if REAL64
INLINE vec vec_zero(void) { return _mm512_setzero_pd(); }
#else
INLINE vec vec_zero(void) { return _mm512_setzero_ps(); }
#endif
INLINE vec vec_add(vec a, vec b) { return V(add)(a, b); }
INLINE vec vec_sub(vec a, vec b) { return V(sub)(a, b); }
INLINE vec vec_mul(vec a, vec b) { return V(mul)(a, b); }
INLINE vec vec_div(vec a, vec b) { return V(div)(a, b); }
INLINE vec vec_fma(vec a, vec b, vec c) { return V(fmadd)(a, b, c); }
#ifdef FNN_AVX512_EMULATED
INLINE void vec_accumulate(vec *c, vec a, vec b) { *c = vec_fma(a, b, *c); }
#elif REAL64
INLINE void vec_accumulate(vec *c, vec a, vec b) { __asm__("vfmadd231pd %2, %1, %0" : "+v"(*c) : "v"(a), "v"(b)); }
#else
INLINE void vec_accumulate(vec *c, vec a, vec b) { __asm__("vfmadd231ps %2, %1, %0" : "+v"(*c) : "v"(a), "v"(b)); }
#endif
INLINE vec vec_fnma(vec a, vec b, vec c) { return V(fnmadd)(a, b, c); }
INLINE vec vec_max(vec a, vec b) { return V(max)(a, b); }
INLINE vec vec_min(vec a, vec b) { return V(min)(a, b); }
INLINE vec vec_abs(vec a) { return V(abs)(a); }
INLINE vec vec_sqrt(vec a) { return V(sqrt)(a); }
INLINE vec vec_round(vec a) { return V(roundscale)(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE mask vec_lt(vec a, vec b) {
#if REAL64
    return _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ);
}
INLINE mask vec_le(vec a, vec b) { return _mm512_cmp_pd_mask(a, b, _CMP_LE_OQ); }
INLINE mask vec_eq(vec a, vec b) { return _mm512_cmp_pd_mask(a, b, _CMP_EQ_OQ); }
INLINE mask vec_unordered(vec a, vec b) { return _mm512_cmp_pd_mask(a, b, _CMP_UNORD_Q); }
INLINE vec vec_select(mask m, vec a, vec b) { return _mm512_mask_blend_pd(m, b, a); }
#else
    return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}
INLINE mask vec_le(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
INLINE mask vec_eq(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
INLINE mask vec_unordered(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q); }
INLINE vec vec_select(mask m, vec a, vec b) { return _mm512_mask_blend_ps(m, b, a); }
#endif
INLINE mask mask_and(mask a, mask b) { return (mask)(a & b); }
INLINE mask mask_or(mask a, mask b) { return (mask)(a | b); }
INLINE mask mask_not(mask a) { return (mask)~a; }
#ifdef FNN_AVX512_EMULATED
INLINE unsigned mask_bits(mask a) { return a; }
#else
/* GCC 12 may keep a mask in memory as 16 bits and take it back as 64 where it is a number next (-O1 with sanitizers): here it
 * becomes one of 32. */
INLINE unsigned mask_bits(mask a) {
    unsigned bits;
    __asm__("kmovw %1, %0" : "=r"(bits) : "k"(a));
    return bits;
}
#endif
INLINE int mask_any(mask a) { return a != 0; }

INLINE ivec ivec_set1(ireal a) { return I(set1)(a); }
INLINE ivec ivec_add(ivec a, ivec b) { return I(add)(a, b); }
INLINE ivec ivec_sub(ivec a, ivec b) { return I(sub)(a, b); }
INLINE ivec ivec_and(ivec a, ivec b) { return _mm512_and_si512(a, b); }
#define ivec_shl(a, count) I(slli)(a, count)
#define ivec_shr(a, count) I(srli)(a, count)
#if REAL64
INLINE ivec vec_as_ivec(vec a) { return _mm512_castpd_si512(a); }
INLINE vec ivec_as_vec(ivec i) { return _mm512_castsi512_pd(i); }
INLINE ivec vec_to_ivec(vec a) { return _mm512_cvtpd_epi64(a); }
INLINE vec ivec_to_vec(ivec i) { return _mm512_cvtepi64_pd(i); }
#else
INLINE ivec vec_as_ivec(vec a) { return _mm512_castps_si512(a); }
INLINE vec ivec_as_vec(ivec i) { return _mm512_castsi512_ps(i); }
INLINE ivec vec_to_ivec(vec a) { return _mm512_cvtps_epi32(a); }
INLINE vec ivec_to_vec(ivec i) { return _mm512_cvtepi32_ps(i); }
#endif
#if REAL64
INLINE mask ivec_eq(ivec a, ivec b) { return _mm512_cmpeq_epi64_mask(a, b); }
INLINE ivec ivec_select(mask m, ivec a, ivec b) { return _mm512_mask_blend_epi64(m, b, a); }
INLINE ivec ivec_load_i32(const int32_t *p, ptrdiff_t n) {
    return _mm512_cvtepi32_epi64(_mm256_maskz_loadu_epi32(mask_first(n), p));
}
INLINE void ivec_store_i32(int32_t *p, ivec i, ptrdiff_t n) {
    _mm256_mask_storeu_epi32(p, mask_first(n), _mm512_cvtepi64_epi32(i));
}
#else
INLINE mask ivec_eq(ivec a, ivec b) { return _mm512_cmpeq_epi32_mask(a, b); }
INLINE ivec ivec_select(mask m, ivec a, ivec b) { return _mm512_mask_blend_epi32(m, b, a); }
INLINE ivec ivec_load_i32(const int32_t *p, ptrdiff_t n) { return _mm512_maskz_loadu_epi32(mask_first(n), p); }
INLINE void ivec_store_i32(int32_t *p, ivec i, ptrdiff_t n) { _mm512_mask_storeu_epi32(p, mask_first(n), i); }
#endif
INLINE vec vec_neg(vec a) { return V(xor)(a, vec_set1((real)-0.0)); }
INLINE vec vec_copysign(vec a, vec b) {
    const vec sign = vec_set1((real)-0.0);
    return V(or)(V(andnot)(sign, a), V(and)(sign, b));
}

INLINE ivec ivec_load(const void *p) { return _mm512_loadu_si512(p); }
INLINE vec vec_scale(vec a, vec n) { return V(scalef)(a, n); }
INLINE vec vec_product_error(vec a, vec b, vec p) { return V(fmsub)(a, b, p); }

#define WORDS 8
typedef __m512i words;
INLINE words words_set1(uint64_t a) { return _mm512_set1_epi64((int64_t)a); }
INLINE words words_add(words a, words b) { return _mm512_add_epi64(a, b); }
INLINE words words_count(uint64_t from) { return words_add(words_set1(from), _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7)); }
INLINE words words_mul(words a, words b) { return _mm512_mul_epu32(a, b); }
INLINE words words_xor(words a, words b) { return _mm512_xor_si512(a, b); }
INLINE words words_or(words a, words b) { return _mm512_or_si512(a, b); }
INLINE words words_and(words a, words b) { return _mm512_and_si512(a, b); }
#define words_shl(a, count) _mm512_slli_epi64(a, count)
#define words_shr(a, count) _mm512_srli_epi64(a, count)
INLINE words words_load(const void *p) { return _mm512_loadu_si512(p); }
INLINE void words_stream(void *p, words a) { _mm512_stream_si512(p, a); }
INLINE void words_store(uint64_t *p, words a) { _mm512_storeu_si512(p, a); }
INLINE void words_store_pairs(uint64_t *p, words a, words b) {
    words_store(p, _mm512_permutex2var_epi64(a, _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11), b));
    words_store(p + 8, _mm512_permutex2var_epi64(a, _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15), b));
}

INLINE real vec_sum(vec a) { return V(reduce_add)(a); }
INLINE real vec_hmax(vec a) { return V(reduce_max)(a); }
INLINE real vec_hmin(vec a) { return V(reduce_min)(a); }

INLINE void mask_store_u8(uint8_t *p, mask m, ptrdiff_t n) {
    _mm_mask_storeu_epi8(p, mask_first(n), _mm_maskz_set1_epi8(m, 1));
}
INLINE mask mask_load_u8(const uint8_t *p, ptrdiff_t n) {
    __m128i bytes = _mm_maskz_loadu_epi8(mask_first(n), p);
    return (mask)_mm_test_epi8_mask(bytes, bytes);
}

/* 128 bits of every VEC_BLOCK-th row side by side, from where unpacking within 128 bits finishes the transpose: inserting
 * from memory uses either vector port, a shuffle only one. */
enum { VEC_BLOCK = 16 / sizeof(real) };
#if REAL64
INLINE vec load_quarters(const real *p, ptrdiff_t row) {
    __m512d v = _mm512_castpd128_pd512(_mm_loadu_pd(p));
    v = _mm512_insertf64x2(v, _mm_loadu_pd(p + 2 * row), 1);
    v = _mm512_insertf64x2(v, _mm_loadu_pd(p + 4 * row), 2);
    return _mm512_insertf64x2(v, _mm_loadu_pd(p + 6 * row), 3);
}
INLINE void vec_load_columns(const real *p, ptrdiff_t row, vec *out) {
    const vec a = load_quarters(p, row), b = load_quarters(p + row, row);
    out[0] = V(unpacklo)(a, b);
    out[1] = V(unpackhi)(a, b);
}
#else
INLINE vec load_quarters(const real *p, ptrdiff_t row) {
    __m512 v = _mm512_castps128_ps512(_mm_loadu_ps(p));
    v = _mm512_insertf32x4(v, _mm_loadu_ps(p + 4 * row), 1);
    v = _mm512_insertf32x4(v, _mm_loadu_ps(p + 8 * row), 2);
    return _mm512_insertf32x4(v, _mm_loadu_ps(p + 12 * row), 3);
}
INLINE void vec_load_columns(const real *p, ptrdiff_t row, vec *out) {
    const vec a = load_quarters(p, row), b = load_quarters(p + row, row);
    const vec c = load_quarters(p + 2 * row, row), d = load_quarters(p + 3 * row, row);
    const vec ab = V(unpacklo)(a, b), AB = V(unpackhi)(a, b), cd = V(unpacklo)(c, d), CD = V(unpackhi)(c, d);
    out[0] = V(shuffle)(ab, cd, 0x44);
    out[1] = V(shuffle)(ab, cd, 0xEE);
    out[2] = V(shuffle)(AB, CD, 0x44);
    out[3] = V(shuffle)(AB, CD, 0xEE);
}
#endif

#if !REAL64
typedef __m256 octet;
INLINE octet octet_load(const real *p) { return _mm256_loadu_ps(p); }
INLINE void octet_store(real *p, octet o) { _mm256_storeu_ps(p, o); }
INLINE octet octet_set1(real a) { return _mm256_set1_ps(a); }
INLINE octet octet_fma(octet a, octet b, octet c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vec octet_join(octet low, octet high) { return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1); }

#define PACKS_LANES
INLINE void pack_lanes(real *to, vec v, mask m) { _mm512_storeu_ps(to, _mm512_maskz_compress_ps(m, v)); }
INLINE void pack_lanes_i32(int32_t *to, ivec i, mask m) { _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(m, i)); }
#endif

enum { VEC_REACH = LANES };
INLINE vec vec_permute(vec v, ivec i) { return V(permutexvar)(i, v); }

/* Swaps rows and columns of a LANES x LANES block: pairs, then quads within each 128-bit lane, then the lanes. */
INLINE void vec_transpose(vec r[LANES]) {
    vec t[LANES];
#if REAL64
#define SWAP_LANES _mm512_shuffle_f64x2
    enum { STEP = 2 };
    for (int i = 0; i < 8; i += 2) t[i] = _mm512_unpacklo_pd(r[i], r[i + 1]), t[i + 1] = _mm512_unpackhi_pd(r[i], r[i + 1]);
#else
#define SWAP_LANES _mm512_shuffle_f32x4
    enum { STEP = 4 };
    __m512d pair[16];
    for (int i = 0; i < 16; i += 2) {
        pair[i] = _mm512_castps_pd(_mm512_unpacklo_ps(r[i], r[i + 1]));
        pair[i + 1] = _mm512_castps_pd(_mm512_unpackhi_ps(r[i], r[i + 1]));
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            t[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(pair[i + j], pair[i + j + 2]));
            t[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(pair[i + j], pair[i + j + 2]));
        }
#endif
    for (int j = 0; j < STEP; j++) {
        vec even = SWAP_LANES(t[j], t[STEP + j], 0x88), odd = SWAP_LANES(t[j], t[STEP + j], 0xdd);
        vec even_high = SWAP_LANES(t[2 * STEP + j], t[3 * STEP + j], 0x88),
            odd_high = SWAP_LANES(t[2 * STEP + j], t[3 * STEP + j], 0xdd);
        r[j] = SWAP_LANES(even, even_high, 0x88), r[STEP + j] = SWAP_LANES(odd, odd_high, 0x88);
        r[2 * STEP + j] = SWAP_LANES(even, even_high, 0xdd), r[3 * STEP + j] = SWAP_LANES(odd, odd_high, 0xdd);
    }
#undef SWAP_LANES
}
