/* conv_amx.h: the operands of convolutions on bfloat16 matrix units, split as in gemm_amx.h.
 *
 * Pixels come by their addresses: what lies outside the map is an address of zeros. A row of 64 bytes belongs to one
 * pixel, and pixels follow one another, so that a tile is any 16 neighbours, and a kernel position moves it by whole
 * rows: each element is split once for all positions. Where sums run over pixels a row holds pairs of them, pixel j and
 * j + 16, as gemm_amx.h pairs k and k + 16; a tile that starts at any j then has 32 pixels from j on. */

INLINE __m512 amx_channels(const float *pixel, ptrdiff_t first, ptrdiff_t channels) {
    return _mm512_maskz_loadu_ps(amx_first(channels - first), pixel + first);
}

/* Row j of a step: 32 channels of pixel j, missing ones 0. A's tiles, where sums run over channels. */
INLINE __m512 amx_split_rows(int planes, const fnn_amx_pixels *p, char *to, ptrdiff_t step, ptrdiff_t plane,
                             __m512 bad) {
    for (ptrdiff_t j = 0; j < p->count; j++, to += 64) {
        const float *x = p->pixel[j];
        char *row = to;
        ptrdiff_t c = 0;
        for (; c + AMX_STEP <= p->channels; c += AMX_STEP, row += step)
            bad = amx_split_row(_mm512_loadu_ps(x + c), _mm512_loadu_ps(x + c + AMX_TILE), row, plane, planes, bad);
        if (c < p->channels)
            bad = amx_split_row(amx_channels(x, c, p->channels), amx_channels(x, c + AMX_TILE, p->channels), row, plane,
                                planes, bad);
    }
    return bad;
}
static void amx_split_rows_kernel(int planes, const fnn_amx_pixels *from, void *to, ptrdiff_t step, ptrdiff_t plane,
                                  float *bad_values) {
    __m512 bad = _mm512_load_ps(bad_values);
#define SPLIT(p) bad = amx_split_rows(p, from, to, step, plane, bad)
    AMX_FOR_PLANES(SPLIT, planes);
#undef SPLIT
    _mm512_store_ps(bad_values, bad);
}

/* The same as amx_split_row for a row whose x has been split before, as y of the row at `before`: 13 instructions in
 * place of 20. */
INLINE __m512 amx_split_next(__m512 y, const char *before, char *to, ptrdiff_t plane, int planes, __m512 bad) {
    __m512i i = amx_round(y);
    amx_put(to, _mm512_load_si512(before), i);
    y = amx_rest(y, i);
    bad = _mm512_fmadd_ps(y, _mm512_setzero_ps(), bad);
    if (planes == 1) return bad;
    i = amx_round(y);
    amx_put(to + plane, _mm512_load_si512(before + plane), i);
    if (planes == 3)
        amx_put(to + 2 * plane, _mm512_load_si512(before + 2 * plane), _mm512_castps_si512(amx_rest(y, i)));
    return bad;
}

/* Row j of a tile: 16 channels of pixels j and j + 16 (`count` + 16 pixels are given). B's tiles, where sums run over
 * pixels. */
INLINE __m512 amx_split_pairs(int planes, const fnn_amx_pixels *p, char *to, ptrdiff_t tile, ptrdiff_t plane,
                              __m512 bad) {
    for (ptrdiff_t j = 0; j < p->count; j++, to += 64) {
        const float *x = p->pixel[j], *y = p->pixel[j + AMX_TILE];
        char *row = to;
        for (ptrdiff_t c = 0; c < p->channels; c += AMX_TILE, row += tile) {
            const __m512 second = amx_channels(y, c, p->channels);
            if (j < AMX_TILE) bad = amx_split_row(amx_channels(x, c, p->channels), second, row, plane, planes, bad);
            else bad = amx_split_next(second, row - AMX_TILE_BYTES, row, plane, planes, bad);
        }
    }
    return bad;
}
static void amx_split_pairs_kernel(int planes, const fnn_amx_pixels *from, void *to, ptrdiff_t tile, ptrdiff_t plane,
                                   float *bad_values) {
    __m512 bad = _mm512_load_ps(bad_values);
#define SPLIT(p) bad = amx_split_pairs(p, from, to, tile, plane, bad)
    AMX_FOR_PLANES(SPLIT, planes);
#undef SPLIT
    _mm512_store_ps(bad_values, bad);
}

/* One step: 32 pixels, and strips of 32 channels as [plane][tile]: row i of a tile is channel i of the pixels. A's
 * tiles, where sums run over pixels. */
INLINE __m512 amx_split_turned(int planes, const fnn_amx_pixels *p, char *to, ptrdiff_t strip, __m512 bad) {
    for (ptrdiff_t c = 0; c < p->channels; c += AMX_TILE) {
        char *tile = to + c / AMX_STEP * strip + c % AMX_STEP / AMX_TILE * AMX_TILE_BYTES;
        vec u[AMX_TILE], v[AMX_TILE];
#pragma GCC unroll 16
        for (int i = 0; i < AMX_TILE; i++) {
            u[i] = amx_channels(p->pixel[i], c, p->channels);
            v[i] = amx_channels(p->pixel[AMX_TILE + i], c, p->channels);
        }
        vec_transpose(u);
        vec_transpose(v);
#pragma GCC unroll 16
        for (int i = 0; i < AMX_TILE; i++)
            bad = amx_split_row(u[i], v[i], tile + i * 64, 2 * AMX_TILE_BYTES, planes, bad);
    }
    return bad;
}
static void amx_split_turned_kernel(int planes, const fnn_amx_pixels *from, void *to, ptrdiff_t strip,
                                    float *bad_values) {
    __m512 bad = _mm512_load_ps(bad_values);
#define SPLIT(p) bad = amx_split_turned(p, from, to, strip, bad)
    AMX_FOR_PLANES(SPLIT, planes);
#undef SPLIT
    _mm512_store_ps(bad_values, bad);
}

/* c's columns = rows of the four tiles, rows x cols of which count: whole tiles of rows are written. bad as for
 * amx_store_kernel. */
static void amx_store_turned_kernel(ptrdiff_t rows, ptrdiff_t cols, const float *tiles, float *c, ptrdiff_t c_col,
                                    float *bad_values) {
    __m512 bad = _mm512_load_ps(bad_values);
    for (ptrdiff_t i = 0; i < rows; i += AMX_TILE)
        for (ptrdiff_t j = 0; j < cols; j += AMX_TILE) {
            const float *tile = tiles + i / AMX_TILE * 512 + j * 16;
            vec v[AMX_TILE];
#pragma GCC unroll 16
            for (int q = 0; q < AMX_TILE; q++) v[q] = _mm512_load_ps(tile + q * AMX_TILE);
            vec_transpose(v);
            for (ptrdiff_t q = 0; q < AMX_TILE && j + q < cols; q++) {
                bad = _mm512_fmadd_ps(v[q], _mm512_setzero_ps(), bad);
                _mm512_storeu_ps(c + (j + q) * c_col + i, v[q]);
            }
        }
    _mm512_store_ps(bad_values, bad);
}
