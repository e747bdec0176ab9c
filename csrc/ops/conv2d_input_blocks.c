/* conv2d_input_blocks.c: dx (n, c, h, w) = sum over output pixels of dy (n, k, oh, ow) times weights (k, c, r, s), where dy is the
 * gradient of a map that was pooled by maxima of 2 x 2 windows (conv2d_blocks.c): what is 0 is skipped, three quarters at least.
 *
 * A block of 2 x 2 pixels of dy meets a window of (r + 1) x (s + 1) pixels of x, a few vectors, which stay in registers while its
 * channels add their weights; those lie in memory as a window for each of the four positions, aligned. Windows of neighbouring blocks
 * overlap. Those of a row of blocks begin with what the row above left them, two rows further down; their two upper rows are then
 * complete but for neighbours to the left and right, which are added in order. So each element's order of summation is fixed by shape.
 *
 * Where dy or weights are not finite, the call is left to other ways: zeros count. */
#include "conv2d.h"
#include "gemm.h"

#include <string.h>

enum {
    POSITIONS = 4,            /* of an element in its block */
    LEAST_TAPS = 5,           /* of a kernel's rows and columns: below, F(4x4, 3x3) has fewer products */
    WEIGHT_BYTES = 128 << 10, /* at most: a part of a second-level cache */
    LINE_BYTES = 128 << 10,   /* of a row of x, or of windows, at most */
    CHUNK_IMAGES = 8, CHUNKS = 32
};

typedef struct {
    const fnn_call *call, *leader; /* leader: whose followers take finished rows; NULL: they run later */
    const fnn_conv_dims *d;
    const fnn_kernels *K;
    fnn_image dx;
    fnn_tensor weight;
    ptrdiff_t row, vecs, size;     /* elements of a window's row; vectors and elements of a window in registers */
    ptrdiff_t images;              /* of a chunk */
    ptrdiff_t overlap, pitch;      /* windows that meet in a pair of columns; elements from one window to the next */
    ptrdiff_t windows;             /* of a row of blocks, with those of zeros on both sides */
    size_t pooled_at, place_at, shared, line_at, list_at, list_bytes, scratch;
    fnn_conv_pooled pooled;
    float *weights;
    int32_t *place;                /* where in them a channel's begin */
    int is_bad;                    /* dy or weights are not finite */
} blocks_plan;

/* ---- the plan ---- */

static size_t bytes_of(ptrdiff_t elements) { return fnn_whole_lines((size_t)elements * sizeof(float)); }

/* shared: [weights][where a channel's are][what is not 0]; scratch: [two rows of windows][a row of x][what of an image is
 * listed, where its weights are, how many of each block], or a pair of rows of dy */
static blocks_plan plan_of(const fnn_call *call, const fnn_conv_dims *d) {
    const fnn_kernels *K = fnn_kernels_of(FNN_FLOAT32);
    blocks_plan p = {.call = call, .d = d, .K = K, .row = (d->s + 1) * d->c, .overlap = (d->s + 1) / 2};
    p.vecs = fnn_ceil_div((d->r + 1) * p.row, K->lanes), p.size = p.vecs * K->lanes;
    p.images = fnn_min(fnn_ceil_div(d->n, CHUNKS), CHUNK_IMAGES);
    p.pitch = p.size + fnn_round_up(2 * p.row, K->lanes) + K->lanes;
    p.windows = d->ow / 2 + 2 * (p.overlap - 1);
    p.place_at = bytes_of(d->k * POSITIONS * p.size);
    p.pooled_at = p.place_at + bytes_of(d->k);
    p.shared = p.pooled_at + fnn_conv_pooled_bytes(call, d);
    p.line_at = bytes_of(2 * p.windows * p.pitch);
    p.list_at = p.line_at + bytes_of((d->ow + d->s - 1) * d->c);
    p.list_bytes = bytes_of(d->oh / 2 * (d->ow / 2) * d->k + K->lanes);
    p.scratch = p.list_at + 3 * p.list_bytes;
    if (p.scratch < fnn_conv_pooled_scratch(d)) p.scratch = fnn_conv_pooled_scratch(d);
    return p;
}

int fnn_conv_input_blocks_suits(const fnn_call *call, const fnn_conv_dims *d) {
    if (!fnn_conv_pooled_suits(call, d) || call->in[2] || d->r < LEAST_TAPS || d->s < LEAST_TAPS || d->s % 2 == 0) return 0;
    const ptrdiff_t most = WEIGHT_BYTES / POSITIONS / (ptrdiff_t)sizeof(float);
    if (d->c > most || d->r > most || d->s > most || d->k > most) return 0;
    const blocks_plan p = plan_of(call, d);
    const ptrdiff_t longest = LINE_BYTES / (ptrdiff_t)sizeof(float);
    return d->k * p.size <= most && p.windows * p.pitch <= longest && (d->ow + d->s) * d->c <= longest;
}

/* ---- weights ---- */

/* Of a channel of dy: windows of zeros but for the kernel, whose first element is where the position is. */
static void place_channel(void *context, ptrdiff_t k, void *scratch) {
    (void)scratch;
    blocks_plan *p = context;
    const fnn_conv_dims *d = p->d;
    const fnn_tensor *w = &p->weight;
    const ptrdiff_t length = (d->r - 1) * p->row + d->s * d->c;
    const float *from = (const float *)w->data + k * w->stride[0];
    float *to = p->weights + k * POSITIONS * p->size;
    int is_finite;
    memset(to, 0, (size_t)(POSITIONS * p->size) * sizeof *to);
    for (ptrdiff_t i = 0; i < d->r; i++)
        for (ptrdiff_t j = 0; j < d->s; j++)
            for (ptrdiff_t c = 0; c < d->c; c++)
                to[i * p->row + j * d->c + c] = from[c * w->stride[1] + i * w->stride[2] + j * w->stride[3]];
    for (int q = 1; q < POSITIONS; q++)
        memcpy(to + q * p->size + q / 2 * p->row + q % 2 * d->c, to, (size_t)length * sizeof *to);
    p->place[k] = (int32_t)(to - p->weights);
    p->K->gemm_finite(p->size, to, &is_finite);
    if (!is_finite) __atomic_store_n(&p->is_bad, 1, __ATOMIC_RELAXED);
}

/* ---- an image ---- */

/* Row `at` of x from row `row` of windows: where it lies, or, if it has padding or gaps between pixels, by way of a line. */
static void fold_row(const blocks_plan *p, ptrdiff_t image, ptrdiff_t at, const float *sums, ptrdiff_t row, float *line) {
    const fnn_conv_dims *d = p->d;
    if (at < 0 || at >= d->h) return;
    float *to = (float *)p->dx.data + image * p->dx.n + at * p->dx.h;
    const int is_dense = p->dx.w == d->c || d->w == 1, is_whole = is_dense && d->padding[2] + d->padding[3] == 0;
    p->K->conv_blocks_fold(d->ow / 2 + p->overlap - 1, 2 * d->c, p->overlap, sums + row * p->row, p->pitch, is_whole ? to : line);
    const ptrdiff_t runs = is_dense ? 1 : d->w, run = d->w / runs * d->c;
    for (ptrdiff_t i = 0; i < runs && !is_whole; i++)
        memcpy(to + i * p->dx.w, line + d->padding[2] * d->c + i * run, (size_t)run * sizeof *line);
}

/* Rows of windows take turns: one is added up while the next one is made, or its loads would wait for the stores before them. */
static void scatter_image(blocks_plan *p, ptrdiff_t image, void *scratch) {
    const fnn_conv_dims *d = p->d;
    const ptrdiff_t pairs = d->oh / 2, cols = d->ow / 2, first = image * pairs * cols * d->k, edge = (p->overlap - 1) * p->pitch;
    float *line = (float *)((char *)scratch + p->line_at), *list = (float *)((char *)scratch + p->list_at);
    int32_t *at = (int32_t *)((char *)list + p->list_bytes), *counts = (int32_t *)((char *)at + p->list_bytes);
    float *sums = scratch, *next = sums + p->windows * p->pitch;
    int is_finite;
    p->K->conv_blocks_list(pairs * cols, d->k, p->pooled.values + first, p->pooled.positions + first, p->place, p->size, 2 * p->size, list,
                           at, counts, &is_finite);
    if (!is_finite) __atomic_store_n(&p->is_bad, 1, __ATOMIC_RELAXED);
    if (__atomic_load_n(&p->is_bad, __ATOMIC_RELAXED)) return;
    for (ptrdiff_t i = 0, listed = 0; i < pairs; i++, counts += cols) {
        p->K->conv_blocks_scatter(cols, p->vecs, counts, list + listed, at + listed, p->weights, i ? sums + edge + 2 * p->row : NULL,
                                  next + edge, p->pitch);
        for (ptrdiff_t j = 0; j < cols; j++) listed += counts[j];
        for (ptrdiff_t j = 0; j < 2 && i > 0; j++) fold_row(p, image, 2 * i - 2 + j - d->padding[0], sums, j, line);
        float *made = next;
        next = sums, sums = made;
    }
    for (ptrdiff_t j = 0; j <= d->r; j++) fold_row(p, image, d->oh - 2 + j - d->padding[0], sums, j, line);
    if (p->leader) fnn_follow(p->leader, image * p->dx.n, p->dx.n);
}

/* What no window is written to stays 0. */
static void scatter_images(void *context, ptrdiff_t chunk, void *scratch) {
    blocks_plan *p = context;
    const ptrdiff_t end = fnn_min((chunk + 1) * p->images, p->d->n);
    memset(scratch, 0, p->line_at);
    for (ptrdiff_t image = chunk * p->images; image < end; image++) scatter_image(p, image, scratch);
}

/* ---- the interface ---- */

void fnn_conv_input_blocks_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_workspace *ws) {
    const blocks_plan p = plan_of(call, d);
    fnn_staging staging = {.memory = NULL};
    fnn_channels_last_of(&staging, call->out[0], 0);
    fnn_enlarge(ws, p.shared + staging.bytes, p.scratch);
}

int fnn_conv_input_blocks(const fnn_call *call, const fnn_conv_dims *d) {
    blocks_plan p = plan_of(call, d);
    p.weights = call->shared, p.place = (int32_t *)((char *)call->shared + p.place_at);
    if (!fnn_conv_find_pooled(call, d, (char *)call->shared + p.pooled_at, &p.pooled)) return 0;
    fnn_staging staging = {.memory = (char *)call->shared + p.shared};
    const fnn_tensor dx = fnn_channels_last_of(&staging, call->out[0], 0);
    const int is_in_place = dx.data == call->out[0]->data && dx.stride[0] == d->h * d->w * d->c;
    const int by_rows = call->follower && is_in_place && fnn_conv_can_repeat_followers(call);
    p.dx = fnn_image_of(&dx), p.weight = *call->in[1];
    if (by_rows) p.leader = call;
    const double work = (double)(d->n * (d->oh / 2) * (d->ow / 2) * d->k * p.vecs);
    fnn_parallel_for(call, d->k, (double)(d->k * p.size), place_channel, &p);
    if (!p.is_bad) fnn_parallel_for(call, fnn_ceil_div(d->n, p.images), 0.25 * work, scatter_images, &p);
    if (p.is_bad) return 0;
    fnn_finish(call->out[0], &dx);
    if (!by_rows) fnn_follow_all(call, NULL);
    return 1;
}
