/* conv_depthwise.h: every channel is a convolution of its own, or groups of few channels are; lanes are channels. */

enum {
    DEPTHWISE_PIXELS = 4, /* of two rows, at most: with a kernel row's weights for both they fill 16 registers */
    DEPTHWISE_TAPS = 7,   /* of a kernel row, at most, whose inputs are loaded once for all outputs */
    LINE = FNN_LINE / (int)sizeof(real),
    SLAB = 512 / (int)sizeof(real) /* channels for which whole rows are computed: what a block of pixels reads of them stays in the
                                    * first-level cache for its neighbours */
};

/* Of groups, each of an output's inputs is spread over the lanes of its group as it is loaded: permuted, or where a group is a
 * vector, broadcast. */
enum { SPREAD_PERMUTED = 1, SPREAD_BROADCAST = 2, MOST_LANES = 16 };

#define GROUPS_OF(n)                                                                                                           \
    {0, 1 / n * n, 2 / n * n, 3 / n * n, 4 / n * n, 5 / n * n, 6 / n * n, 7 / n * n,                                           \
     8 / n * n, 9 / n * n, 10 / n * n, 11 / n * n, 12 / n * n, 13 / n * n, 14 / n * n, 15 / n * n}
static const ireal group_lanes[3][MOST_LANES] = {GROUPS_OF(2), GROUPS_OF(4), GROUPS_OF(8)};

/* Where lanes find input c of their group of so many channels, fewer than LANES. */
INLINE ivec spread_lanes(ptrdiff_t group, ptrdiff_t c) {
    return ivec_add(ivec_load(group_lanes[group == 2 ? 0 : group == 4 ? 1 : 2]), ivec_set1((ireal)c));
}

/* A group that is no vector can be permuted. */
_Static_assert(VEC_REACH == LANES || 2 * VEC_REACH == LANES, "lanes of groups are out of reach");

INLINE int spread_of(ptrdiff_t group) { return group == 1 ? 0 : group < LANES ? SPREAD_PERMUTED : SPREAD_BROADCAST; }

/* What functions are made for. step: of columns; taps: of a kernel row, 0: any; square: as many kernel rows as columns and
 * `pair` + 1 rows of outputs, so that a block is one run of instructions (with loops over kernel rows it is 1.3 times slower);
 * spread: how groups' inputs are; pixels, edges: of a block, in which the first and the last taps / 2 columns may be missing. */
typedef struct {
    int step, taps, square, pair, spread, careful, pixels, edges;
} depthwise_form;

enum { LEFT_EDGE = 1, RIGHT_EDGE = 2 };
enum { CAREFUL_COLUMNS = 1, CAREFUL_LANES = 2 }; /* any columns may be missing; and lanes as well */

/* Blocks side by side, all alike. */
typedef struct {
    ptrdiff_t col_from, col_to, pixels; /* as in fnn_depthwise, from a block's first pixel on */
    ptrdiff_t blocks, vectors, n;       /* of channels: so many vectors, and the first n of another */
} depthwise_reach;

/* What is to be asked for next, in the order of memory. */
typedef struct {
    const real *x, *y;
} depthwise_ahead;

INLINE vec depthwise_load(int careful, const real *p, ptrdiff_t n) {
    return careful == CAREFUL_LANES ? vec_load_n(p, n) : vec_load(p);
}

INLINE vec depthwise_input(depthwise_form f, const real *p, ptrdiff_t n, ivec lanes) {
    if (f.spread == SPREAD_BROADCAST) return vec_set1(*p);
    const vec x = depthwise_load(f.careful, p, n);
    return f.spread ? vec_permute(x, lanes) : x;
}

INLINE void depthwise_store(int careful, real *p, vec v, ptrdiff_t n) {
    if (careful == CAREFUL_LANES) vec_store_n(p, v, n);
    else vec_store(p, v);
}

INLINE int depthwise_rows(depthwise_form f, const fnn_depthwise *p) { return f.square ? 1 + f.pair : (int)p->rows; }

INLINE int depthwise_misses(depthwise_form f, const depthwise_reach *reach, ptrdiff_t col, ptrdiff_t cols) {
    if (f.careful) return col < reach->col_from || col >= reach->col_to;
    return (f.edges & LEFT_EDGE && col < f.taps / 2) || (f.edges & RIGHT_EDGE && col >= cols - f.taps / 2);
}

/* An input row meets kernel row w of the first output row, and w_second of the second one. Inputs are loaded once; each output's
 * sum goes through the kernel's columns in order. */
INLINE void depthwise_row(depthwise_form f, const fnn_depthwise *p, const depthwise_reach *reach, int first, int second,
                          const real *a, const real *w, const real *w_second, ivec lanes, vec sum[2][DEPTHWISE_PIXELS]) {
    vec u[DEPTHWISE_TAPS], v[DEPTHWISE_TAPS];
    const int cols = (f.pixels - 1) * f.step + f.taps;
#pragma GCC unroll 7
    for (int s = 0; s < f.taps; s++) {
        if (first) u[s] = vec_load(w + s * LANES);
        if (second) v[s] = vec_load(w_second + s * LANES);
    }
#pragma GCC unroll 16
    for (int i = 0; i < cols; i++) {
        if (depthwise_misses(f, reach, i, cols)) continue;
        const vec x = depthwise_input(f, a + i * p->a_s, reach->n, lanes);
#pragma GCC unroll 7
        for (int s = 0; s < f.taps; s++) {
            const int k = (i - s) / f.step;
            if (i < s || (i - s) % f.step || k >= f.pixels) continue;
            if (first) vec_accumulate(&sum[0][k], x, u[s]);
            if (second) vec_accumulate(&sum[1][k], x, v[s]);
        }
    }
}

/* The same of any geometry. */
INLINE void depthwise_any_row(depthwise_form f, const fnn_depthwise *p, const depthwise_reach *reach, int first, int second,
                              const real *a, const real *w, const real *w_second, ivec lanes,
                              vec sum[2][DEPTHWISE_PIXELS]) {
    for (ptrdiff_t s = 0; s < p->taps_s; s++) {
        const vec u = first ? vec_load(w + s * LANES) : vec_zero();
        const vec v = second ? vec_load(w_second + s * LANES) : vec_zero();
#pragma GCC unroll 4
        for (int k = 0; k < DEPTHWISE_PIXELS; k++) {
            const ptrdiff_t i = s * p->gap + k * p->step;
            if (f.careful && (i < reach->col_from || i >= reach->col_to)) continue;
            const vec x = depthwise_input(f, a + i * p->a_s, reach->n, lanes);
            if (first) vec_accumulate(&sum[0][k], x, u);
            if (second) vec_accumulate(&sum[1][k], x, v);
        }
    }
}

/* The input row at a with the kernel row at w, for the second output row with the one before. */
#define DEPTHWISE_ROW(first, second)                                                                                           \
    do {                                                                                                                       \
        if (f.step) depthwise_row(f, p, reach, first, second, a, w, w - p->w_r, lanes, sum);                                   \
        else depthwise_any_row(f, p, reach, first, second, a, w, w - p->w_r, lanes, sum);                                      \
    } while (0)

/* Adds what all kernel rows make of their inputs, of groups of one of these. */
INLINE void depthwise_inputs(depthwise_form f, const fnn_depthwise *p, const depthwise_reach *reach, const real *a, const real *w,
                             ivec lanes, vec sum[2][DEPTHWISE_PIXELS]) {
    if (f.square) {
#pragma GCC unroll 4
        for (int r = 0; r < f.taps + f.pair; r++, a += p->a_r, w += p->w_r)
            if (r >= p->row_from && r < p->row_to) DEPTHWISE_ROW(r < f.taps, f.pair && r > 0);
    } else {
        ptrdiff_t r = p->row_from;
        const ptrdiff_t both = fnn_min(p->taps_r, p->row_to), alone = p->rows > 1 ? fnn_min(1, p->row_to) : both;
        a += r * p->a_r, w += r * p->w_r;
        for (; r < alone; r++, a += p->a_r, w += p->w_r) DEPTHWISE_ROW(1, 0);
        for (; r < both; r++, a += p->a_r, w += p->w_r) DEPTHWISE_ROW(1, 1);
        for (; r < p->row_to; r++, a += p->a_r, w += p->w_r) DEPTHWISE_ROW(0, 1);
    }
}

/* A vector of channels of a block of pixels of each row. */
INLINE void depthwise_block(depthwise_form f, const fnn_depthwise *p, const depthwise_reach *reach, const real *a, const real *w,
                            real *y, ptrdiff_t y_row, ptrdiff_t y_pixel) {
    vec sum[2][DEPTHWISE_PIXELS];
#pragma GCC unroll 4
    for (int i = 0; i < DEPTHWISE_PIXELS; i++) sum[0][i] = sum[1][i] = vec_zero();
    if (!f.spread) depthwise_inputs(f, p, reach, a, w, ivec_set1(0), sum);
    else
        for (ptrdiff_t c = 0; c < p->group; c++)
            depthwise_inputs(f, p, reach, f.spread == SPREAD_BROADCAST ? a + c : a, w + c * p->w_in, spread_lanes(p->group, c), sum);
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++, y += y_row) {
        if (i == depthwise_rows(f, p)) break;
#pragma GCC unroll 4
        for (int k = 0; k < f.pixels; k++)
            if (!f.careful || k < reach->pixels) depthwise_store(f.careful, y + k * y_pixel, sum[i][k], reach->n);
    }
}

/* Asks for a block's share of what is read and written next: as much as it reads and writes for the first time itself. (Asking for
 * lines in order to write them, prefetchw, is slower: 0.90 in place of 0.82 ms for 192 channels of 28 x 28.) */
INLINE void depthwise_ask(depthwise_form f, const fnn_depthwise *p, const real *x, const real *y) {
    const int cols = f.step * f.pixels * LANES, pixels = f.pixels * LANES;
    if (p->asks_x)
        for (int r = 0; r < depthwise_rows(f, p) * f.step; r++)
#pragma GCC unroll 8
            for (int i = 0; i < cols; i += LINE) __builtin_prefetch(x + r * p->ahead_row + i, 0, 2);
    if (p->asks_y)
        for (int r = 0; r < depthwise_rows(f, p); r++)
#pragma GCC unroll 8
            for (int i = 0; i < pixels; i += LINE) __builtin_prefetch(y + r * p->y_row + i, 0, 2);
}

/* A line of channels of a row's pixels, at most DEPTHWISE_PIXELS. */
INLINE void depthwise_stream(const real *line, real *y, ptrdiff_t y_pixel, ptrdiff_t pixels) {
#pragma GCC unroll 4
    for (ptrdiff_t i = 0; i < pixels; i++)
#pragma GCC unroll 16
        for (int k = 0; k < LINE; k += LANES) vec_stream(y + i * y_pixel + k, vec_load(line + i * LINE + k));
}

/* A line of channels of a block's results, on its way past the caches. */
static __attribute__((noinline)) void depthwise_pass_on(const fnn_depthwise *p, const real *line, ptrdiff_t pixels, real *y) {
    for (ptrdiff_t r = 0; r < p->rows; r++)
        depthwise_stream(line + r * DEPTHWISE_PIXELS * LINE, y + r * p->y_row, p->y_pixel, pixels);
}

/* Pixels outside, channels inside. Results that are streamed first become whole lines: eight that are half written are more than
 * can wait. */
INLINE void depthwise_blocks(depthwise_form f, const fnn_depthwise *plan, const depthwise_reach *reach, depthwise_ahead *ahead,
                             const real *a, const real *w, real *y) {
    real line[2 * DEPTHWISE_PIXELS * LINE] __attribute__((aligned(FNN_LINE)));
    const fnn_depthwise whole = *plan, *p = &whole; /* stores cannot change it: it stays in registers */
    const ptrdiff_t pixels = f.careful ? reach->pixels : f.pixels, vectors = reach->vectors;
    const ptrdiff_t y_row = p->stream ? DEPTHWISE_PIXELS * LINE : p->y_row, y_pixel = p->stream ? LINE : p->y_pixel;
    const ptrdiff_t together = p->stream ? LINE / LANES : vectors;
    const real *x_next = ahead->x, *y_next = ahead->y;
    for (ptrdiff_t i = 0; i < reach->blocks; i++, a += pixels * p->step * p->a_s, y += pixels * p->y_pixel) {
        const real *from = a, *g = w;
        real *to = y;
        for (ptrdiff_t v = 0; v < vectors; v += together) {
            if (p->stream) to = line;
            for (ptrdiff_t k = 0; k < together; k++, from += LANES, g += p->w_c, to += LANES) {
                depthwise_ask(f, p, x_next, y_next);
                x_next += f.step * f.pixels * LANES, y_next += f.pixels * LANES;
                depthwise_block(f, p, reach, from, g, to, y_row, y_pixel);
            }
            if (p->stream) depthwise_pass_on(p, line, pixels, y + v * LANES);
        }
        if (f.careful && f.spread != SPREAD_BROADCAST && reach->n) {
            depthwise_form lanes = f;
            lanes.careful = CAREFUL_LANES;
            depthwise_block(lanes, p, reach, from, g, to, p->y_row, p->y_pixel);
        }
    }
    ahead->x = x_next, ahead->y = y_next;
}

/* One function each: put together, they would keep their addresses in memory. */
typedef void depthwise_function(const fnn_depthwise *p, const depthwise_reach *reach, depthwise_ahead *ahead, const real *a,
                                const real *w, real *y);
#define DEPTHWISE_DEFINE(name, ...)                                                                                            \
    static __attribute__((noinline)) void name(const fnn_depthwise *p, const depthwise_reach *reach, depthwise_ahead *ahead,   \
                                               const real *a, const real *w, real *y) {                                        \
        depthwise_blocks((depthwise_form){__VA_ARGS__}, p, reach, ahead, a, w, y);                                             \
    }
/* name, and the first half of its form; the last have functions for edges and for blocks of three pixels, but not for groups; those
 * in the middle are not for groups at all */
#define DEPTHWISE_ANY(X) X(any, 0, 0, 0, 1) X(row1, 1, 1, 0, 1) X(row2, 1, 2, 0, 1) X(row3, 1, 3, 0, 1)
#define DEPTHWISE_PLAIN(X) X(row5, 1, 5, 0, 1) X(row7, 1, 7, 0, 1) X(stride_row3, 2, 3, 0, 1)
#define DEPTHWISE_SQUARE(X) X(square3, 1, 3, 1, 1) X(single3, 1, 3, 1, 0) X(stride3, 2, 3, 1, 0)

typedef struct {
    depthwise_function *careful, *fast[2][4]; /* of three and of four pixels; by edges */
} depthwise_kind;

#define DEPTHWISE_PLAIN_KIND(name, ...) DEPTHWISE_SPREAD_KIND(name, 0, __VA_ARGS__)
#define DEPTHWISE_SPREAD_KIND(name, spread, ...)                                                                               \
    DEPTHWISE_DEFINE(depthwise_##spread##_##name, __VA_ARGS__, spread, 0, 4, 0)                                                \
    DEPTHWISE_DEFINE(depthwise_careful_##spread##_##name, __VA_ARGS__, spread, 1, 4, 0)                                        \
    static const depthwise_kind depthwise_kind_##spread##_##name = {depthwise_careful_##spread##_##name,                       \
                                                                    {{NULL}, {depthwise_##spread##_##name}}};
#define DEPTHWISE_GROUP_KINDS(name, ...) DEPTHWISE_SPREAD_KIND(name, 1, __VA_ARGS__) DEPTHWISE_SPREAD_KIND(name, 2, __VA_ARGS__)
#define DEPTHWISE_EDGE(name, pixels, edges, ...)                                                                               \
    DEPTHWISE_DEFINE(depthwise_##name##_##pixels##_##edges, __VA_ARGS__, 0, 0, pixels, edges)
#define DEPTHWISE_EDGES(name, pixels, ...)                                                                                     \
    DEPTHWISE_EDGE(name, pixels, 0, __VA_ARGS__) DEPTHWISE_EDGE(name, pixels, 1, __VA_ARGS__)                                  \
    DEPTHWISE_EDGE(name, pixels, 2, __VA_ARGS__) DEPTHWISE_EDGE(name, pixels, 3, __VA_ARGS__)
#define DEPTHWISE_BY_EDGES(name) {name##_0, name##_1, name##_2, name##_3}
#define DEPTHWISE_SQUARE_KIND(name, ...)                                                                                       \
    DEPTHWISE_EDGES(name, 3, __VA_ARGS__) DEPTHWISE_EDGES(name, 4, __VA_ARGS__)                                                \
    DEPTHWISE_DEFINE(depthwise_careful_##name, __VA_ARGS__, 0, 1, 4, 0)                                                        \
    static const depthwise_kind depthwise_kind_0_##name = {                                                                    \
        depthwise_careful_##name, {DEPTHWISE_BY_EDGES(depthwise_##name##_3), DEPTHWISE_BY_EDGES(depthwise_##name##_4)}};
DEPTHWISE_ANY(DEPTHWISE_PLAIN_KIND)
DEPTHWISE_PLAIN(DEPTHWISE_PLAIN_KIND)
DEPTHWISE_SQUARE(DEPTHWISE_SQUARE_KIND)
#if LANES > 1
DEPTHWISE_ANY(DEPTHWISE_GROUP_KINDS)
DEPTHWISE_SQUARE(DEPTHWISE_GROUP_KINDS)
#define DEPTHWISE_KINDS(name) {&depthwise_kind_0_##name, &depthwise_kind_1_##name, &depthwise_kind_2_##name}
#else
#define DEPTHWISE_KINDS(name) {&depthwise_kind_0_##name, &depthwise_kind_0_##name, &depthwise_kind_0_##name}
#endif
enum { KIND_ANY, KIND_ROW1, KIND_ROW2, KIND_ROW3, KIND_SQUARE3, KIND_SINGLE3, KIND_STRIDE3 };
static const depthwise_kind *const depthwise_kinds[][3] = {
    DEPTHWISE_KINDS(any),     DEPTHWISE_KINDS(row1),    DEPTHWISE_KINDS(row2),   DEPTHWISE_KINDS(row3),
    DEPTHWISE_KINDS(square3), DEPTHWISE_KINDS(single3), DEPTHWISE_KINDS(stride3)};

static const depthwise_kind *depthwise_kind_of(const fnn_depthwise *p) {
    const int square = p->taps_r == p->taps_s, spread = spread_of(p->group);
    switch (p->gap != 1 ? 0 : p->step == 1 ? p->taps_s : p->step == 2 ? -p->taps_s : 0) {
    case 1: return depthwise_kinds[KIND_ROW1][spread];
    case 2: return depthwise_kinds[KIND_ROW2][spread];
    case 3: return depthwise_kinds[!square ? KIND_ROW3 : p->rows == 1 ? KIND_SINGLE3 : KIND_SQUARE3][spread];
    case 5: return spread ? depthwise_kinds[KIND_ANY][spread] : &depthwise_kind_0_row5;
    case 7: return spread ? depthwise_kinds[KIND_ANY][spread] : &depthwise_kind_0_row7;
    case -3:
        if (square && p->rows == 1) return depthwise_kinds[KIND_STRIDE3][spread];
        return spread ? depthwise_kinds[KIND_ANY][spread] : &depthwise_kind_0_stride_row3;
    default: return depthwise_kinds[KIND_ANY][spread];
    }
}

/* Which edges of a block the functions of a kind may leave out; -1: others are missing. */
static int depthwise_edges(const fnn_depthwise *p, ptrdiff_t left, ptrdiff_t right) {
    const ptrdiff_t edge = p->taps_s / 2;
    if ((left > 0 && left != edge) || (right > 0 && right != edge)) return -1;
    return (left > 0 ? LEFT_EDGE : 0) | (right > 0 ? RIGHT_EDGE : 0);
}

/* How many blocks of how many pixels come next, where so many are left: of four, then, where there are such, of three. */
static ptrdiff_t depthwise_width(const depthwise_kind *kind, ptrdiff_t left, ptrdiff_t *blocks) {
    const ptrdiff_t threes = kind->fast[0][0] ? (DEPTHWISE_PIXELS - left % DEPTHWISE_PIXELS) % DEPTHWISE_PIXELS : 0;
    const ptrdiff_t fours = (left - 3 * threes) / DEPTHWISE_PIXELS;
    *blocks = fnn_max(fours, 1);
    if (left >= 3 * threes + DEPTHWISE_PIXELS) return DEPTHWISE_PIXELS;
    return fnn_min(left, threes ? 3 : DEPTHWISE_PIXELS);
}

/* All pixels of some channels. */
static void depthwise_slab(const fnn_depthwise *p, const depthwise_kind *kind, ptrdiff_t channels, depthwise_ahead *ahead,
                           const real *a, const real *w, real *y) {
    for (ptrdiff_t pixel = 0; pixel < p->pixels;) {
        depthwise_reach reach = {.vectors = channels / LANES, .n = channels % LANES};
        reach.pixels = depthwise_width(kind, p->pixels - pixel, &reach.blocks);
        reach.col_from = p->col_from - pixel * p->step, reach.col_to = p->col_to - pixel * p->step;
        const ptrdiff_t cols = (reach.pixels - 1) * p->step + (p->taps_s - 1) * p->gap + 1, right = cols - reach.col_to;
        const int edges = depthwise_edges(p, reach.col_from, right);
        if (reach.col_from > 0 || right > 0) reach.blocks = 1;
        else reach.blocks = fnn_min(reach.blocks, -right / (reach.pixels * p->step) + 1);
        depthwise_function *fast = reach.pixels >= 3 && edges >= 0 ? kind->fast[reach.pixels - 3][edges] : NULL;
        const real *from = a + pixel * p->step * p->a_s;
        real *to = y + pixel * p->y_pixel;
        ptrdiff_t first = 0;
        if (fast) {
            fast(p, &reach, ahead, from, w, to);
            first = reach.vectors, reach.vectors = 0;
        }
        if (reach.vectors || reach.n) kind->careful(p, &reach, ahead, from + first * LANES, w + first * p->w_c, to + first * LANES);
        pixel += reach.blocks * reach.pixels;
    }
}

/* conv_depthwise: y (rows x pixels x channels) = sums over kernel positions of x times w, as fnn_depthwise says. What is streamed
 * is written in the order of memory. */
static void conv_depthwise_kernel(const fnn_depthwise *p, const void *a, const void *w, void *y) {
    const depthwise_kind *kind = depthwise_kind_of(p);
    const ptrdiff_t lines = fnn_ceil_div(p->channels, LINE), slab = fnn_max(SLAB / p->group, LINE);
    const ptrdiff_t slabs = p->stream ? 1 : fnn_ceil_div(p->channels, slab);
    depthwise_ahead ahead = {(const real *)a + p->ahead, (const real *)y + p->rows * p->y_row};
    for (ptrdiff_t s = 0; s < slabs; s++) {
        const ptrdiff_t from = lines * s / slabs * LINE, to = fnn_min(lines * (s + 1) / slabs * LINE, p->channels);
        depthwise_slab(p, kind, to - from, &ahead, (const real *)a + from, (const real *)w + from / LANES * p->w_c,
                       (real *)y + from);
    }
}

/* ---- the input's gradient of 3 x 3 kernels with stride 2 ---- */

enum { QUADS = 2 }; /* side by side */

/* Positions q of dy (0: the quad's own; 1: the next) that meet output side a: through kernel position 1; or 2, and then 0. */
#define QUAD_TAP(a, q) ((a) == 0 ? 1 : (q) == 0 ? 2 : 0)
#define QUAD_MEETS(a, q) ((a) == 1 || (q) == 0)

/* A vector of channels of QUADS quads from `quad` on. */
INLINE void quads_block(const fnn_quads *p, ptrdiff_t quad, int careful, const real *dy, const real *w, real *dx, ptrdiff_t dx_row,
                        ptrdiff_t dx_pixel, ptrdiff_t n) {
    vec sum[2][2 * QUADS];
#pragma GCC unroll 4
    for (int i = 0; i < 2 * QUADS; i++) sum[0][i] = sum[1][i] = vec_zero();
#pragma GCC unroll 2
    for (int q = 0; q < 2; q++) {
        if (q < p->row_from || q >= p->row_to) continue;
#pragma GCC unroll 3
        for (int i = 0; i <= QUADS; i++) {
            if (careful && (quad + i < p->col_from || quad + i >= p->col_to)) continue;
            const vec v = depthwise_load(careful, dy + q * p->dy_row + i * p->dy_pixel, n);
#pragma GCC unroll 8
            for (int t = 0; t < 8; t++) { /* position c of quad i - c meets side b of output row a */
                const int c = t & 1, a = t >> 1 & 1, b = t >> 2, k = i - c;
                if (k < 0 || k >= QUADS || !QUAD_MEETS(a, q) || !QUAD_MEETS(b, c)) continue;
                const real *g = w + (3 * QUAD_TAP(a, q) + QUAD_TAP(b, c)) * LANES;
                sum[a][2 * k + b] = vec_fma(v, vec_load(g), sum[a][2 * k + b]);
            }
        }
    }
#pragma GCC unroll 2
    for (int a = 0; a < 2; a++) {
        if (a < p->dx_row_from || a >= p->dx_row_to) continue;
#pragma GCC unroll 4
        for (int i = 0; i < 2 * QUADS; i++) {
            real *to = dx + a * dx_row + i * dx_pixel;
            if (!careful || (2 * quad + i >= p->dx_col_from && 2 * quad + i < p->dx_col_to))
                depthwise_store(careful, to, sum[a][i], n);
        }
    }
}

INLINE void quads_ask(const fnn_quads *p, const real *dy, const real *dx) {
#pragma GCC unroll 4
    for (int i = 0; i < QUADS * LANES; i += LINE) __builtin_prefetch(dy + i, 0, 2);
    if (p->stream) return;
#pragma GCC unroll 4
    for (int i = 0; i < 2 * QUADS * LANES; i += LINE) {
        __builtin_prefetch(dx + i, 0, 2);
        __builtin_prefetch(dx + p->dx_row + i, 0, 2);
    }
}

/* Pixels outside, channels inside; whole quads are streamed in whole lines. */
INLINE void quads_run(const fnn_quads *p, ptrdiff_t quad, ptrdiff_t end, ptrdiff_t first, int careful, const real *dy,
                      const real *w, real *dx) {
    real line[4 * QUADS * LINE] __attribute__((aligned(FNN_LINE)));
    const int stream = !careful && p->stream;
    const ptrdiff_t dx_row = stream ? 2 * QUADS * LINE : p->dx_row, dx_pixel = stream ? LINE : p->dx_pixel;
    for (; quad < end; quad += QUADS) {
        const real *from = dy + quad * p->dy_pixel, *ahead = from + 2 * p->dy_row;
        real *to = dx + 2 * quad * p->dx_pixel, *ahead_dx = to + 2 * p->dx_row;
        ptrdiff_t j = first;
        for (; j + LANES <= p->channels; j += LANES, ahead += QUADS * LANES, ahead_dx += 2 * QUADS * LANES) {
            if (p->asks) quads_ask(p, ahead, ahead_dx);
            quads_block(p, quad, careful, from + j, w + 9 * j, stream ? line + j % LINE : to + j, dx_row, dx_pixel, LANES);
            if (stream && (j + LANES) % LINE == 0)
#pragma GCC unroll 2
                for (int a = 0; a < 2; a++)
                    if (a >= p->dx_row_from && a < p->dx_row_to)
                        depthwise_stream(line + a * dx_row, to + a * p->dx_row + j + LANES - LINE, p->dx_pixel, 2 * QUADS);
        }
        if (careful && j < p->channels)
            quads_block(p, quad, CAREFUL_LANES, from + j, w + 9 * j, to + j, dx_row, dx_pixel, p->channels - j);
    }
}

static __attribute__((noinline)) void quads_fast(const fnn_quads *p, ptrdiff_t quad, ptrdiff_t end, const real *dy, const real *w,
                                                 real *dx) {
    quads_run(p, quad, end, 0, 0, dy, w, dx);
}

static __attribute__((noinline)) void quads_careful(const fnn_quads *p, ptrdiff_t quad, ptrdiff_t end, ptrdiff_t first,
                                                    const real *dy, const real *w, real *dx) {
    quads_run(p, quad, end, first, 1, dy, w, dx);
}

/* conv_depthwise_quads: two rows of dx from two of dy, as fnn_quads says. */
static void conv_depthwise_quads_kernel(const fnn_quads *p, const void *dy, const void *w, void *dx) {
    for (ptrdiff_t quad = 0, end; quad < p->quads; quad = end) {
        ptrdiff_t first = 0;
        end = quad + QUADS;
        if (quad >= p->col_from && 2 * quad >= p->dx_col_from) {
            const ptrdiff_t most = fnn_min(p->col_to - 1, p->dx_col_to / 2) - quad;
            if (most >= QUADS) {
                end = quad + most / QUADS * QUADS, first = p->channels / LANES * LANES;
                quads_fast(p, quad, end, dy, w, dx);
            }
        }
        if (first < p->channels) quads_careful(p, quad, end, first, dy, w, dx);
    }
}
