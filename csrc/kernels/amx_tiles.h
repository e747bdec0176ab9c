/* amx_tiles.h: the instructions on tiles that gemm_amx.h is written in: the matrix units' own, or, in a build with
 * FNN_AMX_EMULATED, what Intel's manual says that they compute (SDM volume 2, TDPBF16PS), on AVX-512 (which may be
 * emulated too: simd/emulated_avx512.h): slow, so that the AMX level can be tested where there is none. */
#ifndef FNN_AMX_EMULATED

/* GCC 12's tile intrinsics do not say which memory they read; these do. */
#define AMX_LOAD_ROWS(tile, from, row)                                                                                 \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile ::"r"(from), "r"((ptrdiff_t)(row)) : "memory")
#define AMX_STORE_ROWS(tile, to, row)                                                                                  \
    __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" ::"r"(to), "r"((ptrdiff_t)(row)) : "memory")
#define AMX_ZERO(tile) __asm__ volatile("tilezero %%tmm" #tile ::: "memory")
#define AMX_MULTIPLY(c, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c ::: "memory")
#define AMX_ADD(v) __asm__ volatile("vaddps %0, %0, %0" : "+v"(v)) /* an addition that the compiler keeps */

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} amx_config;

/* amx_begin: all eight tiles are 16 rows of 64 bytes, on this thread. amx_end: no tiles: the system need not save
 * them. */
static void amx_begin_kernel(void) {
    amx_config config = {.palette = 1};
    for (int t = 0; t < 8; t++) config.row_bytes[t] = 64, config.rows[t] = 16;
    __asm__ volatile("ldtilecfg %0" ::"m"(config) : "memory");
}
static void amx_end_kernel(void) { __asm__ volatile("tilerelease" ::: "memory"); }

#else

/* Tiles in use without amx_begin would raise a fault; here what they store is NaN. */
static _Thread_local struct {
    int configured;
    _Alignas(64) float tiles[8][16][16];
} amx_state;

static void amx_begin_kernel(void) { amx_state.configured = 1; }
static void amx_end_kernel(void) { amx_state.configured = 0; }

#define AMX_LOAD_ROWS amx_load
#define AMX_STORE_ROWS amx_store
#define AMX_ZERO amx_zero
#define AMX_MULTIPLY amx_multiply
#define AMX_ADD(v) (void)(v)

static void amx_load(int tile, const void *from, ptrdiff_t row) {
    for (int i = 0; amx_state.configured && i < 16; i++) memcpy(amx_state.tiles[tile][i], (const char *)from + i * row, 64);
}
static void amx_zero(int tile) {
    if (amx_state.configured) memset(amx_state.tiles[tile], 0, FNN_AMX_TILE_BYTES);
}
static void amx_store(int tile, void *to, ptrdiff_t row) {
    for (int i = 0; i < 16; i++) {
        if (amx_state.configured) memcpy((char *)to + i * row, amx_state.tiles[tile][i], 64);
        else memset((char *)to + i * row, 0xff, 64);
    }
}

/* Bits of a pair's first (low) and second (high) bfloat16 as float32. */
INLINE __m512 amx_low(__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
INLINE __m512 amx_high(__m512i pairs) {
    return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32((int)0xffff0000)));
}

/* Two chains of 16 multiply-adds for each element, one of each pair; their sum is added to C. */
static void amx_multiply(int c, int a, int b) {
    for (int m = 0; m < 16; m++) {
        __m512 low = _mm512_setzero_ps(), high = _mm512_setzero_ps();
        for (int k = 0; k < 16; k++) {
            int32_t pair;
            memcpy(&pair, &amx_state.tiles[a][m][k], sizeof pair);
            const __m512i x = _mm512_set1_epi32(pair), y = _mm512_load_si512(amx_state.tiles[b][k]);
            low = _mm512_fmadd_ps(amx_low(x), amx_low(y), low);
            high = _mm512_fmadd_ps(amx_high(x), amx_high(y), high);
        }
        float *sum = amx_state.tiles[c][m];
        _mm512_store_ps(sum, _mm512_add_ps(_mm512_load_ps(sum), _mm512_add_ps(low, high)));
    }
}

#endif

/* Dense tiles. */
#define AMX_LOAD(tile, from) AMX_LOAD_ROWS(tile, from, 64)
