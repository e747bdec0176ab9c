/* vec_scalar.h: one lane, plain C: the reference every other ISA is checked against. */
#define REGISTERS 16
#define LANES 1
typedef real vec;
typedef ireal ivec;
typedef int mask;

INLINE vec vec_load(const real *p) { return *p; }
INLINE void vec_store(real *p, vec v) { *p = v; }
INLINE void vec_stream(real *p, vec v) { *p = v; }
INLINE void vec_stream_end(void) {}
INLINE vec vec_load_n(const real *p, ptrdiff_t n) { return n > 0 ? *p : (real)0; }
INLINE void vec_store_n(real *p, vec v, ptrdiff_t n) {
    if (n > 0) *p = v;
}
INLINE vec vec_set1(real a) { return a; }
INLINE vec vec_zero(void) { return 0; }
INLINE vec vec_add(vec a, vec b) { return a + b; }
INLINE vec vec_sub(vec a, vec b) { return a - b; }
INLINE vec vec_mul(vec a, vec b) { return a * b; }
INLINE vec vec_div(vec a, vec b) { return a / b; }
INLINE vec vec_fma(vec a, vec b, vec c) { return a * b + c; }
INLINE void vec_accumulate(vec *c, vec a, vec b) { *c = vec_fma(a, b, *c); }
INLINE vec vec_fnma(vec a, vec b, vec c) { return c - a * b; }
INLINE vec vec_max(vec a, vec b) { return a > b ? a : b; }
INLINE vec vec_min(vec a, vec b) { return a < b ? a : b; }
INLINE vec vec_abs(vec a) { return (real)fabs((double)a); }
INLINE vec vec_neg(vec a) { return -a; }
#if REAL64
INLINE vec vec_sqrt(vec a) { return sqrt(a); }
INLINE vec vec_copysign(vec a, vec b) { return copysign(a, b); }
#else
INLINE vec vec_sqrt(vec a) { return sqrtf(a); }
INLINE vec vec_copysign(vec a, vec b) { return copysignf(a, b); }
#endif
/* Adding 2^(bits of the mantissa) rounds to a whole number; from there on all numbers are whole. */
INLINE vec vec_round(vec a) {
    const real whole = REAL64 ? (real)0x1p52 : (real)0x1p23;
    return vec_abs(a) < whole ? vec_copysign((vec_abs(a) + whole) - whole, a) : a;
}
INLINE mask vec_lt(vec a, vec b) { return a < b; }
INLINE mask vec_le(vec a, vec b) { return a <= b; }
INLINE mask vec_eq(vec a, vec b) { return a == b; }
INLINE mask vec_unordered(vec a, vec b) { return a != a || b != b; }
INLINE mask mask_and(mask a, mask b) { return a & b; }
INLINE mask mask_or(mask a, mask b) { return a | b; }
INLINE mask mask_not(mask a) { return !a; }
INLINE mask mask_first(ptrdiff_t n) { return n > 0; }
INLINE unsigned mask_bits(mask a) { return a != 0; }
INLINE int mask_any(mask a) { return a; }
INLINE vec vec_select(mask m, vec a, vec b) { return m ? a : b; }

INLINE ivec ivec_set1(ireal a) { return a; }
#if REAL64
#define UIREAL uint64_t
#else
#define UIREAL uint32_t
#endif
INLINE ivec ivec_add(ivec a, ivec b) { return (ivec)((UIREAL)a + (UIREAL)b); }
INLINE ivec ivec_sub(ivec a, ivec b) { return (ivec)((UIREAL)a - (UIREAL)b); }
INLINE ivec ivec_and(ivec a, ivec b) { return a & b; }
INLINE ivec ivec_shl(ivec a, int count) { return (ivec)((UIREAL)a << count); }
INLINE ivec ivec_shr(ivec a, int count) { return (ivec)((UIREAL)a >> count); }
INLINE ivec vec_as_ivec(vec a) {
    ivec i;
    memcpy(&i, &a, sizeof i);
    return i;
}
INLINE vec ivec_as_vec(ivec i) {
    vec a;
    memcpy(&a, &i, sizeof a);
    return a;
}
/* Out of range and NaN give the most negative integer, as the vector instructions do; a plain C conversion would be undefined. */
INLINE ivec vec_to_ivec(vec a) {
    const real limit = REAL64 ? (real)0x1p51 : (real)0x1p31;
    return a > -limit && a < limit ? (ivec)vec_round(a) : (ivec)((UIREAL)1 << (sizeof(real) * 8 - 1));
}
INLINE vec ivec_to_vec(ivec i) { return (vec)i; }

INLINE mask ivec_eq(ivec a, ivec b) { return a == b; }
INLINE ivec ivec_select(mask m, ivec a, ivec b) { return m ? a : b; }
INLINE ivec ivec_load_i32(const int32_t *p, ptrdiff_t n) { return n > 0 ? *p : 0; }
INLINE void ivec_store_i32(int32_t *p, ivec i, ptrdiff_t n) {
    if (n > 0) *p = (int32_t)i;
}
INLINE ivec ivec_load(const void *p) {
    ivec i;
    memcpy(&i, p, sizeof i);
    return i;
}
/* Two steps, so that neither factor leaves the range of exponents; the first product is exact. */
INLINE vec vec_scale(vec a, vec n) {
    const ireal bias = REAL64 ? 1023 : 127, whole = vec_to_ivec(n), half = whole / 2;
    const int mantissa = REAL64 ? 52 : 23;
    a *= ivec_as_vec(ivec_shl(ivec_add(half, bias), mantissa));
    return a * ivec_as_vec(ivec_shl(ivec_add(ivec_sub(whole, half), bias), mantissa));
}
#if REAL64
INLINE vec vec_product_error(vec a, vec b, vec p) { return fma(a, b, -p); }
#else
INLINE vec vec_product_error(vec a, vec b, vec p) { return (real)((double)a * b - p); }
#endif

#define WORDS 1
typedef uint64_t words;
INLINE words words_set1(uint64_t a) { return a; }
INLINE words words_count(uint64_t from) { return from; }
INLINE words words_add(words a, words b) { return a + b; }
INLINE words words_mul(words a, words b) { return (a & 0xffffffff) * (b & 0xffffffff); }
INLINE words words_xor(words a, words b) { return a ^ b; }
INLINE words words_or(words a, words b) { return a | b; }
INLINE words words_and(words a, words b) { return a & b; }
#define words_shl(a, count) ((a) << (count))
#define words_shr(a, count) ((a) >> (count))
INLINE words words_load(const void *p) {
    words a;
    memcpy(&a, p, sizeof a);
    return a;
}
INLINE void words_store(uint64_t *p, words a) { *p = a; }
INLINE void words_store_pairs(uint64_t *p, words a, words b) { p[0] = a, p[1] = b; }
INLINE void words_stream(void *p, words a) { memcpy(p, &a, sizeof a); }

INLINE real vec_sum(vec a) { return a; }
INLINE real vec_hmax(vec a) { return a; }
INLINE real vec_hmin(vec a) { return a; }
INLINE void mask_store_u8(uint8_t *p, mask m, ptrdiff_t n) {
    if (n > 0) *p = m != 0;
}
INLINE mask mask_load_u8(const uint8_t *p, ptrdiff_t n) { return n > 0 && *p != 0; }

enum { VEC_BLOCK = 1 };
INLINE void vec_load_columns(const real *p, ptrdiff_t row, vec *out) {
    (void)row;
    out[0] = *p;
}
INLINE void vec_transpose(vec r[LANES]) { (void)r; }
enum { VEC_REACH = 1 };
INLINE vec vec_permute(vec v, ivec i) {
    (void)i;
    return v;
}
