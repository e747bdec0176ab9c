/* vec_avx2.h: 8 floats or 4 doubles (x86-64-v3: AVX2, FMA). A mask is a vector of all-ones and all-zeros lanes. */
#include <immintrin.h>

#define REGISTERS 16
#if REAL64
#define LANES 4
#define V(op) _mm256_##op##_pd
#define I(op) _mm256_##op##_epi64
#define AS_INT _mm256_castpd_si256
#define AS_REAL _mm256_castsi256_pd
typedef __m256d vec;
#else
#define LANES 8
#define V(op) _mm256_##op##_ps
#define I(op) _mm256_##op##_epi32
#define AS_INT _mm256_castps_si256
#define AS_REAL _mm256_castsi256_ps
typedef __m256 vec;
#endif
typedef vec mask;
typedef __m256i ivec;

INLINE __m256i first_lanes(ptrdiff_t n) {
#if REAL64
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
#else
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
#endif
}

INLINE mask mask_first(ptrdiff_t n) { return AS_REAL(first_lanes(n)); }
INLINE vec vec_load(const real *p) { return V(loadu)(p); }
INLINE void vec_store(real *p, vec v) { V(storeu)(p, v); }
INLINE void vec_stream(real *p, vec v) { V(stream)(p, v); }
INLINE void vec_stream_end(void) { _mm_sfence(); }
INLINE vec vec_load_n(const real *p, ptrdiff_t n) { return V(maskload)(p, first_lanes(n)); }

/* The first n of v's eight words, in pieces: a masked store takes AMD's cores 18 cycles, two plain ones take 2. */
INLINE void store_words(void *p, __m256i v, ptrdiff_t n) {
    char *q = p;
    __m128i part = _mm256_castsi256_si128(v);
    if (n >= 8) _mm256_storeu_si256(p, v);
    if (n >= 8 || n <= 0) return;
    if (n & 4) _mm_storeu_si128((__m128i *)q, part), part = _mm256_extracti128_si256(v, 1), q += 16;
    if (n & 2) _mm_storel_epi64((__m128i *)q, part), part = _mm_unpackhi_epi64(part, part), q += 8;
    if (n & 1) _mm_storeu_si32(q, part);
}
INLINE void vec_store_n(real *p, vec v, ptrdiff_t n) { store_words(p, AS_INT(v), n * (ptrdiff_t)(sizeof(real) / 4)); }
INLINE vec vec_set1(real a) { return V(set1)(a); }
#if REAL64
INLINE vec vec_zero(void) { return _mm256_setzero_pd(); }
#else
INLINE vec vec_zero(void) { return _mm256_setzero_ps(); }
#endif
INLINE vec vec_add(vec a, vec b) { return V(add)(a, b); }
INLINE vec vec_sub(vec a, vec b) { return V(sub)(a, b); }
INLINE vec vec_mul(vec a, vec b) { return V(mul)(a, b); }
INLINE vec vec_div(vec a, vec b) { return V(div)(a, b); }
INLINE vec vec_fma(vec a, vec b, vec c) { return V(fmadd)(a, b, c); }
#if REAL64
INLINE void vec_accumulate(vec *c, vec a, vec b) { __asm__("vfmadd231pd %2, %1, %0" : "+x"(*c) : "x"(a), "x"(b)); }
#else
INLINE void vec_accumulate(vec *c, vec a, vec b) { __asm__("vfmadd231ps %2, %1, %0" : "+x"(*c) : "x"(a), "x"(b)); }
#endif
INLINE vec vec_fnma(vec a, vec b, vec c) { return V(fnmadd)(a, b, c); }
INLINE vec vec_max(vec a, vec b) { return V(max)(a, b); }
INLINE vec vec_min(vec a, vec b) { return V(min)(a, b); }
INLINE vec vec_abs(vec a) { return V(andnot)(vec_set1((real)-0.0), a); }
INLINE vec vec_neg(vec a) { return V(xor)(a, vec_set1((real)-0.0)); }
INLINE vec vec_sqrt(vec a) { return V(sqrt)(a); }
INLINE vec vec_round(vec a) { return V(round)(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE vec vec_copysign(vec a, vec b) {
    const vec sign = vec_set1((real)-0.0);
    return V(or)(V(andnot)(sign, a), V(and)(sign, b));
}
INLINE mask vec_lt(vec a, vec b) { return V(cmp)(a, b, _CMP_LT_OQ); }
INLINE mask vec_le(vec a, vec b) { return V(cmp)(a, b, _CMP_LE_OQ); }
INLINE mask vec_eq(vec a, vec b) { return V(cmp)(a, b, _CMP_EQ_OQ); }
INLINE mask vec_unordered(vec a, vec b) { return V(cmp)(a, b, _CMP_UNORD_Q); }
INLINE mask mask_and(mask a, mask b) { return V(and)(a, b); }
INLINE mask mask_or(mask a, mask b) { return V(or)(a, b); }
INLINE mask mask_not(mask a) { return V(xor)(a, AS_REAL(_mm256_set1_epi32(-1))); }
INLINE unsigned mask_bits(mask a) { return (unsigned)V(movemask)(a); }
INLINE int mask_any(mask a) { return mask_bits(a) != 0; }
INLINE vec vec_select(mask m, vec a, vec b) { return V(blendv)(b, a, m); }

#if REAL64
INLINE ivec ivec_set1(ireal a) { return _mm256_set1_epi64x(a); }
#else
INLINE ivec ivec_set1(ireal a) { return _mm256_set1_epi32(a); }
#endif
INLINE ivec ivec_add(ivec a, ivec b) { return I(add)(a, b); }
INLINE ivec ivec_sub(ivec a, ivec b) { return I(sub)(a, b); }
INLINE ivec ivec_and(ivec a, ivec b) { return _mm256_and_si256(a, b); }
#define ivec_shl(a, count) I(slli)(a, count)
#define ivec_shr(a, count) I(srli)(a, count)
INLINE ivec vec_as_ivec(vec a) { return AS_INT(a); }
INLINE vec ivec_as_vec(ivec i) { return AS_REAL(i); }
#if REAL64
/* AVX2 converts no 64-bit integers: adding 1.5 * 2^52 leaves the integer in the low mantissa bits. */
INLINE ivec vec_to_ivec(vec a) {
    const vec magic = vec_set1(0x1.8p52);
    return ivec_sub(AS_INT(vec_add(a, magic)), AS_INT(magic));
}
INLINE vec ivec_to_vec(ivec i) {
    const vec magic = vec_set1(0x1.8p52);
    return vec_sub(AS_REAL(ivec_add(i, AS_INT(magic))), magic);
}
#else
INLINE ivec vec_to_ivec(vec a) { return _mm256_cvtps_epi32(a); }
INLINE vec ivec_to_vec(ivec i) { return _mm256_cvtepi32_ps(i); }
#endif

INLINE ivec ivec_load(const void *p) { return _mm256_loadu_si256(p); }

/* Two steps, so that neither factor leaves the range of exponents; the first product is exact. */
INLINE vec vec_scale(vec a, vec n) {
    const ivec bias = ivec_set1(REAL64 ? 1023 : 127);
    vec half = vec_round(vec_mul(n, vec_set1((real)0.5)));
    a = vec_mul(a, ivec_as_vec(ivec_shl(ivec_add(vec_to_ivec(half), bias), REAL64 ? 52 : 23)));
    return vec_mul(a, ivec_as_vec(ivec_shl(ivec_add(vec_to_ivec(vec_sub(n, half)), bias), REAL64 ? 52 : 23)));
}
INLINE vec vec_product_error(vec a, vec b, vec p) { return V(fmsub)(a, b, p); }

#define WORDS 4
typedef __m256i words;
INLINE words words_set1(uint64_t a) { return _mm256_set1_epi64x((int64_t)a); }
INLINE words words_add(words a, words b) { return _mm256_add_epi64(a, b); }
INLINE words words_count(uint64_t from) { return words_add(words_set1(from), _mm256_setr_epi64x(0, 1, 2, 3)); }
INLINE words words_mul(words a, words b) { return _mm256_mul_epu32(a, b); }
INLINE words words_xor(words a, words b) { return _mm256_xor_si256(a, b); }
INLINE words words_or(words a, words b) { return _mm256_or_si256(a, b); }
INLINE words words_and(words a, words b) { return _mm256_and_si256(a, b); }
#define words_shl(a, count) _mm256_slli_epi64(a, count)
#define words_shr(a, count) _mm256_srli_epi64(a, count)
INLINE words words_load(const void *p) { return _mm256_loadu_si256(p); }
INLINE void words_stream(void *p, words a) { _mm256_stream_si256(p, a); }
INLINE void words_store(uint64_t *p, words a) { _mm256_storeu_si256((__m256i *)p, a); }
INLINE void words_store_pairs(uint64_t *p, words a, words b) {
    __m256i even = _mm256_unpacklo_epi64(a, b), odd = _mm256_unpackhi_epi64(a, b);
    words_store(p, _mm256_permute2x128_si256(even, odd, 0x20));
    words_store(p + 4, _mm256_permute2x128_si256(even, odd, 0x31));
}

/* Halves, then quarters, then eighths: the same tree as AVX-512's reductions, one level shorter. */
#if REAL64
#define FOLD(op, a)                                                                                                     \
    __m128d h = _mm_##op##_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd(a, 1));                                  \
    return _mm_cvtsd_f64(_mm_##op##_sd(h, _mm_unpackhi_pd(h, h)))
#else
#define FOLD(op, a)                                                                                                     \
    __m128 h = _mm_##op##_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));                                   \
    h = _mm_##op##_ps(h, _mm_movehl_ps(h, h));                                                                          \
    return _mm_cvtss_f32(_mm_##op##_ss(h, _mm_shuffle_ps(h, h, 1)))
#endif
INLINE real vec_sum(vec a) { FOLD(add, a); }
INLINE real vec_hmax(vec a) { FOLD(max, a); }
INLINE real vec_hmin(vec a) { FOLD(min, a); }

/* AVX2 has no byte masks: short runs go through a small buffer, by a call of memcpy. */
INLINE __m128i load_bytes(const void *p, ptrdiff_t n) {
    char buffer[8] = {0};
    if (n == LANES) {
        memcpy(buffer, p, LANES);
        return _mm_loadl_epi64((const __m128i *)buffer);
    }
    memcpy(buffer, p, (size_t)n);
    return _mm_loadl_epi64((const __m128i *)buffer);
}
#if REAL64
INLINE __m128i first_lanes_i32(ptrdiff_t n) { return _mm_cmpgt_epi32(_mm_set1_epi32((int)n), _mm_setr_epi32(0, 1, 2, 3)); }
INLINE void store_half(int32_t *p, __m128i v, ptrdiff_t n) { store_words(p, _mm256_zextsi128_si256(v), fnn_min(n, 4)); }
INLINE mask mask_load_u8(const uint8_t *p, ptrdiff_t n) {
    return AS_REAL(_mm256_cmpgt_epi64(_mm256_cvtepu8_epi64(load_bytes(p, n)), _mm256_setzero_si256()));
}
#else
INLINE mask mask_load_u8(const uint8_t *p, ptrdiff_t n) {
    return AS_REAL(_mm256_cmpgt_epi32(_mm256_cvtepu8_epi32(load_bytes(p, n)), _mm256_setzero_si256()));
}
#endif
#if REAL64
INLINE mask ivec_eq(ivec a, ivec b) { return AS_REAL(_mm256_cmpeq_epi64(a, b)); }
INLINE ivec ivec_load_i32(const int32_t *p, ptrdiff_t n) {
    return _mm256_cvtepi32_epi64(_mm_maskload_epi32(p, first_lanes_i32(n)));
}
INLINE __m128i low_halves(ivec i) {
    return _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(i, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6)));
}
INLINE void ivec_store_i32(int32_t *p, ivec i, ptrdiff_t n) { store_half(p, low_halves(i), n); }
#else
INLINE mask ivec_eq(ivec a, ivec b) { return AS_REAL(_mm256_cmpeq_epi32(a, b)); }
INLINE ivec ivec_load_i32(const int32_t *p, ptrdiff_t n) { return _mm256_maskload_epi32(p, first_lanes(n)); }
INLINE void ivec_store_i32(int32_t *p, ivec i, ptrdiff_t n) { store_words(p, i, n); }
#endif
INLINE ivec ivec_select(mask m, ivec a, ivec b) { return AS_INT(V(blendv)(AS_REAL(b), AS_REAL(a), m)); }
/* Lanes of all ones shrink to bytes by signed saturation. */
INLINE void mask_store_u8(uint8_t *p, mask m, ptrdiff_t n) {
#if REAL64
    __m128 pair = _mm_shuffle_ps(_mm_castpd_ps(_mm256_castpd256_pd128(m)), _mm_castpd_ps(_mm256_extractf128_pd(m, 1)), 0x88);
    __m128i words16 = _mm_packs_epi32(_mm_castps_si128(pair), _mm_setzero_si128());
#else
    __m128i words16 = _mm_packs_epi32(_mm_castps_si128(_mm256_castps256_ps128(m)), _mm_castps_si128(_mm256_extractf128_ps(m, 1)));
#endif
    uint64_t bytes = (uint64_t)_mm_cvtsi128_si64(_mm_packs_epi16(words16, words16)) & 0x0101010101010101u;
    if (n == LANES) memcpy(p, &bytes, LANES);
    else memcpy(p, &bytes, (size_t)n);
}

#if !REAL64
/* Of eight lanes those of a mask, one behind the other: the bytes of pack_order[mask]. */
#define PACKED_LANE(m, lane) ((uint64_t)((m) >> (lane)&1 ? (lane) : 0) << 8 * __builtin_popcount((m) & ((1 << (lane)) - 1)))
#define PACKED(m)                                                                                                           \
    (PACKED_LANE(m, 1) | PACKED_LANE(m, 2) | PACKED_LANE(m, 3) | PACKED_LANE(m, 4) | PACKED_LANE(m, 5) | PACKED_LANE(m, 6) | \
     PACKED_LANE(m, 7))
#define PACKED_4(m) PACKED(m), PACKED(m + 1), PACKED(m + 2), PACKED(m + 3)
#define PACKED_16(m) PACKED_4(m), PACKED_4(m + 4), PACKED_4(m + 8), PACKED_4(m + 12)
#define PACKED_64(m) PACKED_16(m), PACKED_16(m + 16), PACKED_16(m + 32), PACKED_16(m + 48)
static const uint64_t pack_order[256] = {PACKED_64(0), PACKED_64(64), PACKED_64(128), PACKED_64(192)};

#define PACKS_LANES
INLINE __m256i packed_order(mask m) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)&pack_order[mask_bits(m)])); }
INLINE void pack_lanes(real *to, vec v, mask m) { _mm256_storeu_ps(to, _mm256_permutevar8x32_ps(v, packed_order(m))); }
INLINE void pack_lanes_i32(int32_t *to, ivec i, mask m) {
    _mm256_storeu_si256((__m256i *)to, _mm256_permutevar8x32_epi32(i, packed_order(m)));
}
#endif

/* 128 bits of every VEC_BLOCK-th row side by side, from where unpacking within 128 bits finishes the transpose: inserting
 * from memory uses either vector port, a shuffle only one. */
enum { VEC_BLOCK = 16 / sizeof(real) };
#if REAL64
INLINE vec load_quarters(const real *p, ptrdiff_t row) {
    return _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(p)), _mm_loadu_pd(p + 2 * row), 1);
}
INLINE void vec_load_columns(const real *p, ptrdiff_t row, vec *out) {
    const vec a = load_quarters(p, row), b = load_quarters(p + row, row);
    out[0] = V(unpacklo)(a, b);
    out[1] = V(unpackhi)(a, b);
}
#else
INLINE vec load_quarters(const real *p, ptrdiff_t row) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + 4 * row), 1);
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

/* Within 128 bits, which is one step on every core. */
enum { VEC_REACH = 16 / sizeof(real) };
#if REAL64
INLINE vec vec_permute(vec v, ivec i) { return _mm256_permutevar_pd(v, _mm256_slli_epi64(i, 1)); }
#else
INLINE vec vec_permute(vec v, ivec i) { return _mm256_permutevar_ps(v, i); }
#endif

/* Swaps rows and columns of a LANES x LANES block: pairs, then quads within each 128-bit lane, then the lanes. */
INLINE void vec_transpose(vec r[LANES]) {
    vec t[LANES];
#if REAL64
    enum { STEP = 2 };
    for (int i = 0; i < 4; i += 2) t[i] = _mm256_unpacklo_pd(r[i], r[i + 1]), t[i + 1] = _mm256_unpackhi_pd(r[i], r[i + 1]);
#else
    enum { STEP = 4 };
    __m256d pair[8];
    for (int i = 0; i < 8; i += 2) {
        pair[i] = _mm256_castps_pd(_mm256_unpacklo_ps(r[i], r[i + 1]));
        pair[i + 1] = _mm256_castps_pd(_mm256_unpackhi_ps(r[i], r[i + 1]));
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            t[i + 2 * j] = _mm256_castpd_ps(_mm256_unpacklo_pd(pair[i + j], pair[i + j + 2]));
            t[i + 2 * j + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(pair[i + j], pair[i + j + 2]));
        }
#endif
    for (int j = 0; j < STEP; j++) {
        r[j] = V(permute2f128)(t[j], t[STEP + j], 0x20);
        r[STEP + j] = V(permute2f128)(t[j], t[STEP + j], 0x31);
    }
}
