/* emulated_avx512.h: the AVX-512 intrinsics that this engine uses, lane by lane on the compiler's own vectors: slow, so
 * that the avx512 and amx levels can be tested where there is no AVX-512 (FASTNN_AVX512=emulated, see setup.py). What
 * they compute is what Intel's manual says (SDM volume 2); rounding and flushing are those of the machine's own units,
 * under the same control word. In place of <immintrin.h>, whose names these are. */
#include <smmintrin.h>

#define INTRINSIC static __attribute__((noinline, unused)) /* or each use would become as many instructions as lanes */

typedef float __m512 __attribute__((vector_size(64), may_alias));
typedef double __m512d __attribute__((vector_size(64), may_alias));
typedef int64_t __m512i __attribute__((vector_size(64), may_alias));
typedef int64_t __m256i __attribute__((vector_size(32), may_alias));
typedef float __m256 __attribute__((vector_size(32), may_alias));
typedef int32_t int32_lanes __attribute__((vector_size(64), may_alias));
typedef uint32_t uint32_lanes __attribute__((vector_size(64), may_alias));
typedef uint64_t uint64_lanes __attribute__((vector_size(64), may_alias));
typedef uint16_t uint16_lanes __attribute__((vector_size(64), may_alias));
typedef int32_t int32_half __attribute__((vector_size(32), may_alias));
typedef uint8_t bytes16 __attribute__((vector_size(16), may_alias));
typedef uint8_t __mmask8;
typedef uint16_t __mmask16;
typedef uint32_t __mmask32;

/* One result lane after another: i counts them. */
#define LANE_BY_LANE(type, lanes, value)                                                                               \
    type v;                                                                                                            \
    for (int i = 0; i < (lanes); i++) v[i] = (value);                                                                  \
    return v
#define MASK_BY_LANE(type, lanes, value)                                                                               \
    type m = 0;                                                                                                        \
    for (int i = 0; i < (lanes); i++) m = (type)(m | (type)((value) ? 1u : 0u) << i);                                  \
    return m

/* ---- float and double alike ---- */

#define REALS(s, real_, vector, mask_, lanes, rint_, sqrt_, fma_)                                                \
    INTRINSIC vector _mm512_loadu_##s(const void *p) { vector v; memcpy(&v, p, 64); return v; }                        \
    INTRINSIC void _mm512_storeu_##s(void *p, vector v) { memcpy(p, &v, 64); }                                         \
    INTRINSIC vector _mm512_load_##s(const void *p) { return *(const vector *)p; }                                     \
    INTRINSIC void _mm512_store_##s(void *p, vector v) { *(vector *)p = v; }                                           \
    INTRINSIC void _mm512_stream_##s(void *p, vector v) { *(vector *)p = v; }                                          \
    INTRINSIC vector _mm512_maskz_loadu_##s(mask_ m, const void *p) {                                                  \
        LANE_BY_LANE(vector, lanes, m >> i & 1 ? ((const real_ *)p)[i] : 0);                                           \
    }                                                                                                                  \
    INTRINSIC void _mm512_mask_storeu_##s(void *p, mask_ m, vector v) {                                                \
        for (int i = 0; i < (lanes); i++)                                                                              \
            if (m >> i & 1) ((real_ *)p)[i] = v[i];                                                                    \
    }                                                                                                                  \
    INTRINSIC vector _mm512_set1_##s(real_ a) { LANE_BY_LANE(vector, lanes, a); }                                      \
    INTRINSIC vector _mm512_setzero_##s(void) { return (vector){0}; }                                                  \
    INTRINSIC vector _mm512_add_##s(vector a, vector b) { return a + b; }                                              \
    INTRINSIC vector _mm512_sub_##s(vector a, vector b) { return a - b; }                                              \
    INTRINSIC vector _mm512_mul_##s(vector a, vector b) { return a * b; }                                              \
    INTRINSIC vector _mm512_div_##s(vector a, vector b) { return a / b; }                                              \
    INTRINSIC vector _mm512_max_##s(vector a, vector b) { LANE_BY_LANE(vector, lanes, a[i] > b[i] ? a[i] : b[i]); }    \
    INTRINSIC vector _mm512_min_##s(vector a, vector b) { LANE_BY_LANE(vector, lanes, a[i] < b[i] ? a[i] : b[i]); }    \
    INTRINSIC vector _mm512_fmadd_##s(vector a, vector b, vector c) {                                                  \
        LANE_BY_LANE(vector, lanes, fma_(a[i], b[i], c[i]));                                                           \
    }                                                                                                                  \
    INTRINSIC vector _mm512_fnmadd_##s(vector a, vector b, vector c) { return _mm512_fmadd_##s(-a, b, c); }            \
    INTRINSIC vector _mm512_fmsub_##s(vector a, vector b, vector c) { return _mm512_fmadd_##s(a, b, -c); }             \
    INTRINSIC vector _mm512_sqrt_##s(vector a) { LANE_BY_LANE(vector, lanes, sqrt_(a[i])); }                           \
    INTRINSIC vector _mm512_roundscale_##s(vector a, int to_nearest) {                                                 \
        (void)to_nearest;                                                                                              \
        LANE_BY_LANE(vector, lanes, rint_(a[i]));                                                                      \
    }                                                                                                                  \
    INTRINSIC vector _mm512_and_##s(vector a, vector b) { return (vector)((__m512i)a & (__m512i)b); }                  \
    INTRINSIC vector _mm512_andnot_##s(vector a, vector b) { return (vector)(~(__m512i)a & (__m512i)b); }              \
    INTRINSIC vector _mm512_or_##s(vector a, vector b) { return (vector)((__m512i)a | (__m512i)b); }                   \
    INTRINSIC vector _mm512_xor_##s(vector a, vector b) { return (vector)((__m512i)a ^ (__m512i)b); }                  \
    INTRINSIC vector _mm512_abs_##s(vector a) { return _mm512_andnot_##s(_mm512_set1_##s((real_)-0.0), a); }           \
    INTRINSIC vector _mm512_mask_blend_##s(mask_ m, vector a, vector b) {                                              \
        LANE_BY_LANE(vector, lanes, m >> i & 1 ? b[i] : a[i]);                                                         \
    }                                                                                                                  \
    INTRINSIC mask_ _mm512_cmp_##s##_mask(vector a, vector b, int how) {                                               \
        MASK_BY_LANE(mask_, lanes, how == _CMP_LT_OQ   ? a[i] < b[i]                                                   \
                                   : how == _CMP_LE_OQ ? a[i] <= b[i]                                                  \
                                   : how == _CMP_EQ_OQ ? a[i] == b[i]                                                  \
                                                       : a[i] != a[i] || b[i] != b[i]);                                \
    }                                                                                                                  \
    INTRINSIC real_ _mm512_reduce_add_##s(vector a) {                                                                  \
        for (int w = (lanes) / 2; w; w /= 2)                                                                           \
            for (int i = 0; i < w; i++) a[i] += a[i + w];                                                              \
        return a[0];                                                                                                   \
    }                                                                                                                  \
    INTRINSIC real_ _mm512_reduce_max_##s(vector a) {                                                                  \
        for (int w = (lanes) / 2; w; w /= 2)                                                                           \
            for (int i = 0; i < w; i++) a[i] = a[i] > a[i + w] ? a[i] : a[i + w];                                      \
        return a[0];                                                                                                   \
    }                                                                                                                  \
    INTRINSIC real_ _mm512_reduce_min_##s(vector a) {                                                                  \
        for (int w = (lanes) / 2; w; w /= 2)                                                                           \
            for (int i = 0; i < w; i++) a[i] = a[i] < a[i + w] ? a[i] : a[i + w];                                      \
        return a[0];                                                                                                   \
    }

enum { _CMP_EQ_OQ, _CMP_UNORD_Q = 3, _CMP_LT_OQ = 17, _CMP_LE_OQ };
REALS(ps, float, __m512, __mmask16, 16, __builtin_rintf, __builtin_sqrtf, __builtin_fmaf)
REALS(pd, double, __m512d, __mmask8, 8, __builtin_rint, __builtin_sqrt, __builtin_fma)

INTRINSIC __m512 _mm512_mask3_fmadd_ps(__m512 a, __m512 b, __m512 c, __mmask16 m) {
    return _mm512_mask_blend_ps(m, c, _mm512_fmadd_ps(a, b, c));
}

/* a * 2^floor(n), rounded once. */
INTRINSIC int scale_power(double n) { return (int)(n < -3000 ? -3000 : n > 3000 ? 3000 : __builtin_floor(n)); }
INTRINSIC __m512 _mm512_scalef_ps(__m512 a, __m512 n) {
    LANE_BY_LANE(__m512, 16, n[i] != n[i] ? n[i] : (float)__builtin_scalbn((double)a[i], scale_power(n[i])));
}
INTRINSIC __m512d _mm512_scalef_pd(__m512d a, __m512d n) {
    LANE_BY_LANE(__m512d, 8, n[i] != n[i] ? n[i] : __builtin_scalbn(a[i], scale_power(n[i])));
}

/* ---- bits ---- */

#define _mm512_castps_si512(a) ((__m512i)(a))
#define _mm512_castpd_si512(a) ((__m512i)(a))
#define _mm512_castsi512_ps(a) ((__m512)(a))
#define _mm512_castsi512_pd(a) ((__m512d)(a))
#define _mm512_castps_pd(a) ((__m512d)(a))
#define _mm512_castpd_ps(a) ((__m512)(a))
INTRINSIC __m512i _mm512_loadu_si512(const void *p) { __m512i v; memcpy(&v, p, 64); return v; }
INTRINSIC void _mm512_storeu_si512(void *p, __m512i v) { memcpy(p, &v, 64); }
INTRINSIC __m512i _mm512_load_si512(const void *p) { return *(const __m512i *)p; }
INTRINSIC void _mm512_store_si512(void *p, __m512i v) { *(__m512i *)p = v; }
INTRINSIC void _mm512_stream_si512(void *p, __m512i v) { *(__m512i *)p = v; }
INTRINSIC __m512i _mm512_and_si512(__m512i a, __m512i b) { return a & b; }
INTRINSIC __m512i _mm512_or_si512(__m512i a, __m512i b) { return a | b; }
INTRINSIC __m512i _mm512_xor_si512(__m512i a, __m512i b) { return a ^ b; }

/* ---- integers ---- */

INTRINSIC __m512i _mm512_set1_epi32(int32_t a) { return (__m512i)((int32_lanes){0} + a); }
INTRINSIC __m512i _mm512_set1_epi64(int64_t a) { return (__m512i){0} + a; }
INTRINSIC __m512i _mm512_setr_epi64(int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f, int64_t g,
                                    int64_t h) {
    return (__m512i){a, b, c, d, e, f, g, h};
}
INTRINSIC __m512i _mm512_add_epi32(__m512i a, __m512i b) { return (__m512i)((uint32_lanes)a + (uint32_lanes)b); }
INTRINSIC __m512i _mm512_sub_epi32(__m512i a, __m512i b) { return (__m512i)((uint32_lanes)a - (uint32_lanes)b); }
INTRINSIC __m512i _mm512_add_epi64(__m512i a, __m512i b) { return (__m512i)((uint64_lanes)a + (uint64_lanes)b); }
INTRINSIC __m512i _mm512_sub_epi64(__m512i a, __m512i b) { return (__m512i)((uint64_lanes)a - (uint64_lanes)b); }
INTRINSIC __m512i _mm512_mul_epu32(__m512i a, __m512i b) {
    return (__m512i)(((uint64_lanes)a & 0xffffffff) * ((uint64_lanes)b & 0xffffffff));
}
INTRINSIC __m512i _mm512_slli_epi32(__m512i a, unsigned n) { return (__m512i)((uint32_lanes)a << n); }
INTRINSIC __m512i _mm512_srli_epi32(__m512i a, unsigned n) { return (__m512i)((uint32_lanes)a >> n); }
INTRINSIC __m512i _mm512_slli_epi64(__m512i a, unsigned n) { return (__m512i)((uint64_lanes)a << n); }
INTRINSIC __m512i _mm512_srli_epi64(__m512i a, unsigned n) { return (__m512i)((uint64_lanes)a >> n); }
INTRINSIC __mmask16 _mm512_cmpeq_epi32_mask(__m512i a, __m512i b) {
    MASK_BY_LANE(__mmask16, 16, ((int32_lanes)a)[i] == ((int32_lanes)b)[i]);
}
INTRINSIC __mmask8 _mm512_cmpeq_epi64_mask(__m512i a, __m512i b) { MASK_BY_LANE(__mmask8, 8, a[i] == b[i]); }
INTRINSIC __m512i _mm512_mask_blend_epi32(__mmask16 m, __m512i a, __m512i b) {
    return (__m512i)_mm512_mask_blend_ps(m, (__m512)a, (__m512)b);
}
INTRINSIC __m512i _mm512_mask_blend_epi64(__mmask8 m, __m512i a, __m512i b) {
    return (__m512i)_mm512_mask_blend_pd(m, (__m512d)a, (__m512d)b);
}
INTRINSIC __m512i _mm512_mask_blend_epi16(__mmask32 m, __m512i a, __m512i b) {
    uint16_lanes v = (uint16_lanes)a;
    for (int i = 0; i < 32; i++)
        if (m >> i & 1) v[i] = ((uint16_lanes)b)[i];
    return (__m512i)v;
}
INTRINSIC __m512i _mm512_maskz_loadu_epi32(__mmask16 m, const void *p) {
    int32_lanes v;
    for (int i = 0; i < 16; i++) v[i] = m >> i & 1 ? ((const int32_t *)p)[i] : 0;
    return (__m512i)v;
}
INTRINSIC void _mm512_mask_storeu_epi32(void *p, __mmask16 m, __m512i v) {
    for (int i = 0; i < 16; i++)
        if (m >> i & 1) ((int32_t *)p)[i] = ((int32_lanes)v)[i];
}

/* ---- conversions ---- */

INTRINSIC int32_t lane_to_int(double a) {
    return a >= -0x1p31 && a < 0x1p31 ? (int32_t)__builtin_rint(a) : INT32_MIN;
}
INTRINSIC __m512i _mm512_cvtps_epi32(__m512 a) {
    int32_lanes v;
    for (int i = 0; i < 16; i++) v[i] = lane_to_int(a[i]);
    return (__m512i)v;
}
INTRINSIC __m512 _mm512_cvtepi32_ps(__m512i a) { LANE_BY_LANE(__m512, 16, (float)((int32_lanes)a)[i]); }
INTRINSIC __m512i _mm512_cvtpd_epi64(__m512d a) {
    LANE_BY_LANE(__m512i, 8, a[i] >= -0x1p63 && a[i] < 0x1p63 ? (int64_t)__builtin_rint(a[i]) : INT64_MIN);
}
INTRINSIC __m512d _mm512_cvtepi64_pd(__m512i a) { LANE_BY_LANE(__m512d, 8, (double)a[i]); }
INTRINSIC __m512i _mm512_cvtepi32_epi64(__m256i a) { LANE_BY_LANE(__m512i, 8, ((int32_half)a)[i]); }
INTRINSIC __m256i _mm512_cvtepi64_epi32(__m512i a) {
    int32_half v;
    for (int i = 0; i < 8; i++) v[i] = (int32_t)a[i];
    return (__m256i)v;
}

/* ---- halves and quarters ---- */

INTRINSIC __m256 _mm256_loadu_ps(const void *p) { __m256 v; memcpy(&v, p, 32); return v; }
INTRINSIC void _mm256_storeu_ps(void *p, __m256 v) { memcpy(p, &v, 32); }
INTRINSIC __m256 _mm256_set1_ps(float a) { LANE_BY_LANE(__m256, 8, a); }
INTRINSIC __m256 _mm256_fmadd_ps(__m256 a, __m256 b, __m256 c) { LANE_BY_LANE(__m256, 8, fmaf(a[i], b[i], c[i])); }
INTRINSIC __m512 _mm512_castps256_ps512(__m256 a) { LANE_BY_LANE(__m512, 16, a[i & 7]); }
INTRINSIC __m512 _mm512_insertf32x8(__m512 a, __m256 b, int high) { LANE_BY_LANE(__m512, 16, i / 8 == high ? b[i & 7] : a[i]); }
INTRINSIC __m256i _mm256_maskz_loadu_epi32(__mmask8 m, const void *p) {
    int32_half v;
    for (int i = 0; i < 8; i++) v[i] = m >> i & 1 ? ((const int32_t *)p)[i] : 0;
    return (__m256i)v;
}
INTRINSIC void _mm256_mask_storeu_epi32(void *p, __mmask8 m, __m256i v) {
    for (int i = 0; i < 8; i++)
        if (m >> i & 1) ((int32_t *)p)[i] = ((int32_half)v)[i];
}
INTRINSIC __m128i _mm_maskz_loadu_epi8(__mmask16 m, const void *p) {
    bytes16 v;
    for (int i = 0; i < 16; i++) v[i] = m >> i & 1 ? ((const uint8_t *)p)[i] : 0;
    return (__m128i)v;
}
INTRINSIC void _mm_mask_storeu_epi8(void *p, __mmask16 m, __m128i v) {
    for (int i = 0; i < 16; i++)
        if (m >> i & 1) ((uint8_t *)p)[i] = ((bytes16)v)[i];
}
INTRINSIC __m128i _mm_maskz_set1_epi8(__mmask16 m, char a) {
    bytes16 v;
    for (int i = 0; i < 16; i++) v[i] = m >> i & 1 ? (uint8_t)a : 0;
    return (__m128i)v;
}
INTRINSIC __mmask16 _mm_test_epi8_mask(__m128i a, __m128i b) {
    MASK_BY_LANE(__mmask16, 16, ((bytes16)a)[i] & ((bytes16)b)[i]);
}

/* ---- lanes that change places ---- */

#define _mm512_castps128_ps512(a) _mm512_insertf32x4(_mm512_setzero_ps(), a, 0)
#define _mm512_castpd128_pd512(a) _mm512_insertf64x2(_mm512_setzero_pd(), a, 0)
INTRINSIC __m512 _mm512_insertf32x4(__m512 a, __m128 b, int at) {
    LANE_BY_LANE(__m512, 16, i / 4 == at ? b[i % 4] : a[i]);
}
INTRINSIC __m512d _mm512_insertf64x2(__m512d a, __m128d b, int at) {
    LANE_BY_LANE(__m512d, 8, i / 2 == at ? b[i % 2] : a[i]);
}
INTRINSIC __m512 _mm512_unpacklo_ps(__m512 a, __m512 b) {
    LANE_BY_LANE(__m512, 16, i % 2 ? b[i / 4 * 4 + i % 4 / 2] : a[i / 4 * 4 + i % 4 / 2]);
}
INTRINSIC __m512 _mm512_unpackhi_ps(__m512 a, __m512 b) {
    LANE_BY_LANE(__m512, 16, i % 2 ? b[i / 4 * 4 + 2 + i % 4 / 2] : a[i / 4 * 4 + 2 + i % 4 / 2]);
}
INTRINSIC __m512d _mm512_unpacklo_pd(__m512d a, __m512d b) { LANE_BY_LANE(__m512d, 8, i % 2 ? b[i - 1] : a[i]); }
INTRINSIC __m512d _mm512_unpackhi_pd(__m512d a, __m512d b) { LANE_BY_LANE(__m512d, 8, i % 2 ? b[i] : a[i + 1]); }
INTRINSIC __m512 _mm512_shuffle_ps(__m512 a, __m512 b, int from) {
    LANE_BY_LANE(__m512, 16, (i % 4 < 2 ? a : b)[i / 4 * 4 + (from >> i % 4 * 2 & 3)]);
}
INTRINSIC __m512 _mm512_shuffle_f32x4(__m512 a, __m512 b, int from) {
    LANE_BY_LANE(__m512, 16, (i < 8 ? a : b)[(from >> i / 4 * 2 & 3) * 4 + i % 4]);
}
INTRINSIC __m512d _mm512_shuffle_f64x2(__m512d a, __m512d b, int from) {
    LANE_BY_LANE(__m512d, 8, (i < 4 ? a : b)[(from >> i / 2 * 2 & 3) * 2 + i % 2]);
}
INTRINSIC __m512 _mm512_maskz_compress_ps(__mmask16 m, __m512 a) {
    __m512 v = {0};
    for (int i = 0, n = 0; i < 16; i++)
        if (m >> i & 1) v[n++] = a[i];
    return v;
}
INTRINSIC __m512i _mm512_maskz_compress_epi32(__mmask16 m, __m512i a) {
    int32_lanes v = {0};
    for (int i = 0, n = 0; i < 16; i++)
        if (m >> i & 1) v[n++] = ((int32_lanes)a)[i];
    return (__m512i)v;
}
INTRINSIC __m512 _mm512_permutexvar_ps(__m512i from, __m512 a) { LANE_BY_LANE(__m512, 16, a[((int32_lanes)from)[i] & 15]); }
INTRINSIC __m512d _mm512_permutexvar_pd(__m512i from, __m512d a) { LANE_BY_LANE(__m512d, 8, a[from[i] & 7]); }
INTRINSIC __m512i _mm512_permutex2var_epi64(__m512i a, __m512i from, __m512i b) {
    LANE_BY_LANE(__m512i, 8, (from[i] & 8 ? b : a)[from[i] & 7]);
}
