/* random.h: random numbers of one launch, element by element, the same whatever the ISA, the chunks and the strides.
 * Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) turns block number b of a stream into
 * four words of 32 bits. A float32 number takes one word: element e word e % 4 of block e / 4; a float64 number takes two: half
 * e % 2 of block e / 2. `first` is the number of the first element asked for, a multiple of 4. */

enum { RANDOM_BATCH = 512 }; /* elements whose bits are in cache at a time; a multiple of 4 and of all vectors' lanes */

/* Ten rounds on WORDS blocks, block, block + 1, ... Each 64-bit lane works on one block: the product of 32-bit numbers that a
 * round needs fills it, and what stands in the upper halves is never looked at. */
INLINE void philox_rounds(const fnn_stream *stream, uint64_t block, uint64_t *halves) {
    const words multiplier0 = words_set1(0xD2511F53), multiplier1 = words_set1(0xCD9E8D57), low = words_set1(0xffffffff);
    words c0 = words_count(block), c1 = words_shr(c0, 32), c2 = words_set1(stream->number), c3 = words_shr(c2, 32);
    uint32_t key0 = (uint32_t)stream->seed, key1 = (uint32_t)(stream->seed >> 32);
    for (int round = 0; round < 10; round++) {
        words p0 = words_mul(multiplier0, c0), p1 = words_mul(multiplier1, c2);
        c0 = words_xor(words_xor(words_shr(p1, 32), c1), words_set1(key0));
        c2 = words_xor(words_xor(words_shr(p0, 32), c3), words_set1(key1));
        c1 = p1, c3 = p0;
        key0 += 0x9E3779B9, key1 += 0xBB67AE85;
    }
    words first = words_or(words_and(c0, low), words_shl(c1, 32)), second = words_or(words_and(c2, low), words_shl(c3, 32));
    words_store_pairs(halves, first, second);
}

/* The words of `blocks` blocks from `block` on, in order; may write up to 2 WORDS - 1 blocks more. Two vectors at a time, because
 * a round waits for the one before it. */
static void philox(const fnn_stream *stream, uint64_t block, ptrdiff_t blocks, uint64_t *halves) {
    for (ptrdiff_t b = 0; b < blocks; b += 2 * WORDS) {
        philox_rounds(stream, block + (uint64_t)b, halves + 2 * b);
        philox_rounds(stream, block + (uint64_t)b + WORDS, halves + 2 * b + 2 * WORDS);
    }
}

static void random_words_kernel(const fnn_stream *stream, uint64_t block, ptrdiff_t blocks, uint64_t *halves) {
    philox(stream, block, blocks, halves);
}

/* The random bits of n <= RANDOM_BATCH elements: one integer as wide as `real` each. */
INLINE void random_bits(const fnn_stream *stream, ptrdiff_t first, ptrdiff_t n, uint64_t *bits) {
    const ptrdiff_t per_block = REAL64 ? 2 : 4;
    philox(stream, (uint64_t)(first / per_block), (n + per_block - 1) / per_block, bits);
}
enum { BITS_SIZE = RANDOM_BATCH + 4 * WORDS }; /* of a buffer for them, in 64-bit integers, for either type */

/* [0, 1): the upper 24 or 53 bits, exactly. */
INLINE vec unit_interval(ivec bits) {
#if REAL64
    vec high = ivec_to_vec(ivec_shr(bits, 38)), low = ivec_to_vec(ivec_and(ivec_shr(bits, 11), ivec_set1((1 << 27) - 1)));
    return vec_mul(vec_add(vec_mul(high, vec_set1(0x1p27)), low), vec_set1(0x1p-53));
#else
    return vec_mul(ivec_to_vec(ivec_shr(bits, 8)), vec_set1(0x1p-24f));
#endif
}

/* (0, 1], for logarithms: float32 uses 31 bits, so that normal numbers reach 6.6 standard deviations. */
INLINE vec unit_interval_above_zero(ivec bits) {
#if REAL64
    return vec_sub(vec_set1(1), unit_interval(bits));
#else
    return vec_add(vec_mul(ivec_to_vec(ivec_shr(bits, 1)), vec_set1(0x1p-31f)), vec_set1(0x1p-32f));
#endif
}

/* y: n numbers in [low, high); below_high: the largest one allowed, since low + u (high - low) may round up to high. */
static void random_uniform_kernel(ptrdiff_t n, const fnn_stream *stream, ptrdiff_t first, double low, double high,
                                  double below_high, void *out) {
    real *y = out;
    const vec base = constant(low), width = constant(high - low), last = constant(below_high);
    uint64_t bits[BITS_SIZE];
    for (ptrdiff_t batch = 0; batch < n; batch += RANDOM_BATCH) {
        const ptrdiff_t count = n - batch < RANDOM_BATCH ? n - batch : RANDOM_BATCH;
        random_bits(stream, first + batch, count, bits);
        for (ptrdiff_t i = 0; i < count; i += LANES) {
            vec u = unit_interval(ivec_load((const ireal *)bits + i));
            vec v = vec_min(vec_add(base, vec_mul(u, width)), last);
            store_lanes(y + batch + i, v, count - i < LANES ? count - i : LANES);
        }
    }
}

/* y: n numbers, mean + std z. Elements 2 k and 2 k + 1 share their bits: with u, v from them, z = sqrt(-2 log u) times the
 * cosine and the sine of 2 pi v (Box and Muller, 1958). */
static void random_normal_kernel(ptrdiff_t n, const fnn_stream *stream, ptrdiff_t first, double mean, double std, void *out) {
    real *y = out;
    const vec centre = constant(mean), spread = constant(std);
    uint64_t bits[BITS_SIZE];
    ireal even[RANDOM_BATCH / 2], odd[RANDOM_BATCH / 2];
    real cosines[RANDOM_BATCH / 2], sines[RANDOM_BATCH / 2], both[RANDOM_BATCH];
    for (ptrdiff_t batch = 0; batch < n; batch += RANDOM_BATCH) {
        const ptrdiff_t count = n - batch < RANDOM_BATCH ? n - batch : RANDOM_BATCH, pairs = (count + 1) / 2;
        random_bits(stream, first + batch, count, bits);
        for (ptrdiff_t k = 0; k < pairs; k++) {
            memcpy(&even[k], (const char *)bits + (size_t)(2 * k) * sizeof(ireal), sizeof(ireal));
            memcpy(&odd[k], (const char *)bits + (size_t)(2 * k + 1) * sizeof(ireal), sizeof(ireal));
        }
        for (ptrdiff_t k = 0; k < pairs; k += LANES) {
            vec sine, cosine, radius = vec_sqrt(vec_mul(vec_set1(-2), vec_log(unit_interval_above_zero(ivec_load(even + k)))));
            vec_sincos_turns(unit_interval(ivec_load(odd + k)), &sine, &cosine);
            vec_store(cosines + k, vec_add(centre, vec_mul(spread, vec_mul(radius, cosine))));
            vec_store(sines + k, vec_add(centre, vec_mul(spread, vec_mul(radius, sine))));
        }
        for (ptrdiff_t k = 0; k < pairs; k++) both[2 * k] = cosines[k], both[2 * k + 1] = sines[k];
        memcpy(y + batch, both, (size_t)count * sizeof(real));
    }
}

/* mask: n bytes, 0 with probability p; y = mask ? scale * x + shift : dropped. Both types take one word an element:
 * u = word / 2^32, and an element stays if u >= p, word >= limit. */
static void random_dropout_kernel(ptrdiff_t n, const fnn_stream *stream, ptrdiff_t first, uint64_t limit, double scale,
                                  double shift, double dropped, const void *in, void *out, uint8_t *mask_out) {
    real *y = out;
    const real *x = in;
    const vec factor = constant(scale), added = constant(shift), other = constant(dropped);
    const uint32_t least = limit > 0xffffffff ? 0xffffffff : (uint32_t)limit;
    const uint8_t any = limit <= 0xffffffff;
    uint64_t bits[BITS_SIZE];
    uint32_t word[RANDOM_BATCH];
    for (ptrdiff_t batch = 0; batch < n; batch += RANDOM_BATCH) {
        const ptrdiff_t count = n - batch < RANDOM_BATCH ? n - batch : RANDOM_BATCH;
        uint8_t *kept = mask_out + batch;
        philox(stream, (uint64_t)((first + batch) / 4), (count + 3) / 4, bits);
        memcpy(word, bits, (size_t)count * sizeof *word);
        for (ptrdiff_t i = 0; i < count; i++) kept[i] = (uint8_t)((word[i] >= least) & any);
        for (ptrdiff_t i = 0; i < count; i += LANES) {
            const ptrdiff_t lanes = count - i < LANES ? count - i : LANES;
            vec v = vec_add(vec_mul(load_lanes(x + batch + i, lanes), factor), added);
            store_lanes(y + batch + i, vec_select(mask_load_u8(kept + i, lanes), v, other), lanes);
        }
    }
}
