/* vec.h: one vocabulary of vectors for every ISA and both types. A target defines VEC_<ISA> and REAL64 (0 or 1) first.
 *
 *   real, vec, mask, ivec (integers as wide as real), LANES, REGISTERS (how many vectors there are)
 *   vec_load vec_store (any alignment)   vec_load_n vec_store_n (first n lanes, 0 <= n <= LANES; others read as 0)
 *   load_lanes store_lanes: a whole vector, or its first lanes
 *   vec_stream (p, v): a store that bypasses the caches; p must be a multiple of what is stored. Before others may read what was
 *   streamed, the writer calls vec_stream_end()
 *   vec_set1 vec_zero   vec_add vec_sub vec_mul vec_div   vec_fma(a,b,c) = a*b+c   vec_fnma(a,b,c) = c-a*b
 *   vec_accumulate(&c,a,b): c = vec_fma(a,b,c) in c's own register. Where accumulators fill the registers, the compiler's choice
 *   of another for the result ends in memory (a 6 x 16 tile of 16 registers: 105 in place of 114 GFLOP/s)
 *   vec_max(a,b) vec_min(a,b): b where unordered   vec_abs vec_neg vec_sqrt vec_round (half to even)
 *   vec_lt vec_le vec_eq vec_unordered -> mask     mask_and mask_or mask_not   vec_select(m,a,b) = m ? a : b
 *   vec_copysign(a,b): |a| with b's sign
 *   ivec_set1 ivec_add ivec_sub ivec_and ivec_shl ivec_shr (logical, constant count)
 *   ivec_load    vec_scale(a,n) = a * 2^n, rounded once, n a whole number
 *   vec_product_error(a,b,p) = a*b - p, exact for p = vec_mul(a,b)
 *   vec_as_ivec ivec_as_vec (bits)       vec_to_ivec (round) ivec_to_vec (values; |value| < 2^31, for 64 bits 2^51)
 *   vec_sum vec_hmax vec_hmin: across lanes, in a fixed tree
 *   mask_load_u8 (p, n): nonzero bytes   mask_store_u8 (p, m, n): 0 or 1   mask_any(m)   mask_first(n): the first n lanes
 *   mask_bits(m): bit l for lane l
 *   ivec_load_i32 ivec_store_i32 (p, n): 32-bit integers as integers   ivec_eq -> mask   ivec_select(m,a,b) = m ? a : b
 *   vec_load_columns (p, row, out): VEC_BLOCK columns of LANES rows `row` elements apart:
 *     out[k] = p[0 * row + k], p[1 * row + k] ...
 *   vec_transpose(rows): a LANES x LANES block, in place   vec_permute(v, i): lane l is v's lane i[l], one of the
 *   same VEC_REACH lanes
 *   words: WORDS integers of 64 bits, whatever `real` is: words_set1 words_count(from) = from, from + 1, ...
 *   words_mul (of the low halves, 64-bit products) words_add words_and words_or words_xor words_shl words_shr
 *   words_load words_store (any alignment) words_store_pairs(p, a, b) = a[0] b[0] a[1] ...   words_stream, as vec_stream
 *   pack_lanes (p, v, m): v's lanes where m, one behind the other; up to LANES elements are written   pack_lanes_i32: 32-bit integers
 *   octet: eight lanes, whatever LANES is: octet_load octet_store (any alignment) octet_set1 octet_fma; of 16
 *   lanes, octet_join(low, high)
 *
 * Rounding is what these names say: no contraction (-ffp-contract=off), fused multiply-add only where vec_fma is written.
 * On scalar targets vec_fma is a*b+c, rounded twice. */
#ifndef FNN_VEC_H
#define FNN_VEC_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if REAL64
typedef double real;
typedef int64_t ireal;
#else
typedef float real;
typedef int32_t ireal;
#endif

#define INLINE static inline __attribute__((always_inline, unused))

/* Brings the line at p into the cache; p may lie outside all arrays. */
INLINE void prefetch(const void *p) { __builtin_prefetch(p); }

#if defined(VEC_AVX512)
#include "vec_avx512.h"
#elif defined(VEC_AVX2)
#include "vec_avx2.h"
#elif defined(VEC_NEON)
#include "vec_neon.h"
#elif defined(VEC_SCALAR)
#include "vec_scalar.h"
#else
#error "a target must define its ISA"
#endif

/* A whole vector, or its first elements where fewer than LANES are left. */
INLINE vec load_lanes(const real *from, ptrdiff_t left) { return left >= LANES ? vec_load(from) : vec_load_n(from, left); }
INLINE void store_lanes(real *to, vec v, ptrdiff_t left) {
    if (left >= LANES) vec_store(to, v);
    else vec_store_n(to, v, left);
}

#if LANES <= 8
typedef struct {
    vec part[8 / LANES];
} octet;

INLINE octet octet_load(const real *p) {
    octet o;
#pragma GCC unroll 8
    for (int i = 0; i < 8 / LANES; i++) o.part[i] = vec_load(p + i * LANES);
    return o;
}
INLINE void octet_store(real *p, octet o) {
#pragma GCC unroll 8
    for (int i = 0; i < 8 / LANES; i++) vec_store(p + i * LANES, o.part[i]);
}
INLINE octet octet_set1(real a) {
    octet o;
#pragma GCC unroll 8
    for (int i = 0; i < 8 / LANES; i++) o.part[i] = vec_set1(a);
    return o;
}
INLINE octet octet_fma(octet a, octet b, octet c) {
#pragma GCC unroll 8
    for (int i = 0; i < 8 / LANES; i++) c.part[i] = vec_fma(a.part[i], b.part[i], c.part[i]);
    return c;
}
#endif

#ifndef PACKS_LANES
INLINE void pack_lanes(real *to, vec v, mask m) {
    real all[LANES];
    vec_store(all, v);
    for (unsigned left = mask_bits(m); left; left &= left - 1) *to++ = all[__builtin_ctz(left)];
}
INLINE void pack_lanes_i32(int32_t *to, ivec i, mask m) {
    int32_t all[LANES];
    ivec_store_i32(all, i, LANES);
    for (unsigned left = mask_bits(m); left; left &= left - 1) *to++ = all[__builtin_ctz(left)];
}
#endif

#include "vec_math.h"
#include "vec_trig.h"

#endif
