/* conv2d_quads.c: dx (n, c, h, w) of depthwise 3 x 3 convolutions with stride 2.
 *
 * Four phases of dx (conv2d.c) read the same dy, and each writes every other pixel of every other row. Together they are quads of
 * 2 x 2 pixels, which take dy once and write whole rows. An element's sum has the order of its phase.
 *
 * A chunk is some rows of quads of an image. */
#include "conv2d.h"
#include "stage.h"

enum { CHUNKS = 16 };

typedef struct {
    const fnn_call *call;
    const fnn_conv_weight *weight;
    const void *bias;
    fnn_image dy, dx;
    fnn_quads row; /* what all rows have in common */
    ptrdiff_t h, oh, rows, block_rows, blocks;
    ptrdiff_t top, left, dy_top, dy_left; /* what the first quad starts with: of dx -1 or 0, of dy */
} quads;

/* Quads start where position + padding is odd: as it is even, they meet two kernel positions. */
static ptrdiff_t first_of(ptrdiff_t padding, ptrdiff_t *dy) {
    const ptrdiff_t first = padding % 2 - 1;
    *dy = (padding + first - 1) / 2;
    return first;
}

int fnn_conv_quads_suit(const fnn_call *call, const fnn_conv_dims *d) {
    const int depthwise = d->groups > 1 && d->c == 1 && d->k == 1;
    return depthwise && d->r == 3 && d->s == 3 && d->stride[0] == 2 && d->stride[1] == 2 && d->dilation[0] == 1 &&
           d->dilation[1] == 1 && call->in[0]->stride[1] == 1 && call->out[0]->stride[1] == 1;
}

static void run_row(const quads *q, ptrdiff_t image, ptrdiff_t i) {
    const fnn_kernels *K = q->weight->K;
    const int dtype = q->weight->dtype;
    const ptrdiff_t above = q->dy_top + i, top = q->top + 2 * i;
    fnn_quads p = q->row;
    p.row_from = -above, p.row_to = q->oh - above;
    p.dx_row_from = fnn_max(-top, 0), p.dx_row_to = fnn_min(q->h - top, 2);
    const ptrdiff_t at = image * q->dx.n + top * q->dx.h;
    const ptrdiff_t from = image * q->dy.n + above * q->dy.h + q->dy_left * q->dy.w;
    K->conv_depthwise_quads(&p, fnn_at(q->dy.data, from, dtype), q->weight->packed,
                            fnn_at(q->dx.data, at + q->left * q->dx.w, dtype));
    const ptrdiff_t pixels = p.dx_col_to - p.dx_col_from;
    for (ptrdiff_t r = p.dx_row_from; r < p.dx_row_to; r++) {
        if (q->bias)
            K->gemm_epilogue(pixels, p.channels, fnn_at(q->dx.data, at + r * q->dx.h, dtype), q->dx.w, q->bias, NULL, 0, 0);
        if (q->call->follower) fnn_follow(q->call, at + r * q->dx.h, pixels * q->dx.w);
    }
}

static void run_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    (void)scratch;
    const quads *q = context;
    const ptrdiff_t from = chunk % q->blocks * q->block_rows, to = fnn_min(from + q->block_rows, q->rows);
    for (ptrdiff_t i = from; i < to; i++) run_row(q, chunk / q->blocks, i);
    if (q->row.stream) q->weight->K->stream_end();
}

void fnn_conv_quads(const fnn_call *call, const fnn_conv_dims *d, const void *bias, void *packed) {
    fnn_conv_weight w = fnn_conv_weight_of(call->in[1], d, 1);
    fnn_conv_weight_plan(&w);
    fnn_conv_weight_pack(call, &w, packed, NULL, NULL);
    quads q = {.call = call, .weight = &w, .bias = bias, .dy = fnn_image_of(call->in[0]), .dx = fnn_image_of(call->out[0]),
               .h = d->h, .oh = d->oh};
    q.top = first_of(d->padding[0], &q.dy_top);
    q.left = first_of(d->padding[2], &q.dy_left);
    q.rows = q.block_rows = fnn_ceil_div(d->h - q.top, 2);
    while (q.block_rows > 1 && d->n * fnn_ceil_div(q.rows, q.block_rows) < CHUNKS) q.block_rows = fnn_ceil_div(q.block_rows, 2);
    q.blocks = fnn_ceil_div(q.rows, q.block_rows);
    const ptrdiff_t line = 64 / (ptrdiff_t)fnn_itemsize(w.dtype);
    const int dense = q.dy.w == w.width && q.dx.w == w.width;
    const int whole_lines = q.dx.w % line == 0 && q.dx.h % line == 0 && q.dx.n % line == 0;
    q.row = (fnn_quads){.quads = fnn_ceil_div(d->w - q.left, 2), .channels = w.width, .col_from = -q.dy_left,
                        .col_to = d->ow - q.dy_left, .dx_col_from = -q.left, .dx_col_to = d->w - q.left, .dy_row = q.dy.h,
                        .dy_pixel = q.dy.w, .dx_row = q.dx.h, .dx_pixel = q.dx.w, .asks = dense,
                        .stream = whole_lines && !call->follower && !bias &&
                                  fnn_may_stream(q.dx.data, fnn_numel(call->out[0]), w.width, w.dtype)};
    fnn_parallel_for(call, d->n * q.blocks, fnn_conv_cost(d, w.dtype), run_chunk, &q);
}
