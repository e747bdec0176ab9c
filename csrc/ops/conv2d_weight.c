/* conv2d_weight.c: dweight (groups*k, c, r, s) = sum over images and output pixels of x (n, groups*c, h, w) times
 * dy (n, groups*k, oh, ow): which of several ways a shape takes, and the sum of the parts that most of them make.
 *
 * The order of summation is fixed by shape: one chain over all pixels (conv2d_weight_unfold.c), or the pixels form `parts` equal
 * ranges, each summed one after another into its own copy of the gradient; the copies are added in order. Within a part, chunks
 * share out the gradient. */
#include "conv2d.h"

/* ---- which way ---- */

typedef struct {
    void (*workspace)(const fnn_call *call, const fnn_conv_dims *d, fnn_workspace *ws);
    void (*run)(const fnn_call *call, const fnn_conv_dims *d);
} way;

static way choose_way(const fnn_conv_dims *d, int dtype) {
    const fnn_kernels *K = fnn_kernels_of(dtype);
    if (fnn_conv_lane_group(d, K) || fnn_conv_repeats(d, K))
        return (way){fnn_conv_depthwise_gradient_workspace, fnn_conv_depthwise_gradient};
    if (fnn_conv_few_suits(d, dtype)) return (way){fnn_conv_few_gradient_workspace, fnn_conv_few_gradient};
    if (fnn_conv_taps_suits(d, dtype)) return (way){fnn_conv_taps_gradient_workspace, fnn_conv_taps_gradient};
    if (fnn_conv_unfold_suits(d, dtype)) return (way){fnn_conv_unfold_gradient_workspace, fnn_conv_unfold_gradient};
    if (fnn_conv_packed_suits(d, dtype)) return (way){fnn_conv_packed_gradient_workspace, fnn_conv_packed_gradient};
    return (way){fnn_conv_wide_gradient_workspace, fnn_conv_wide_gradient};
}

void fnn_conv_weight_gradient_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_workspace *ws) {
    choose_way(d, call->in[0]->dtype).workspace(call, d, ws);
}

void fnn_conv_weight_gradient(const fnn_call *call, const fnn_conv_dims *d) { choose_way(d, call->in[0]->dtype).run(call, d); }

int fnn_conv_weight_can_unpool(const fnn_conv_dims *d, int dtype) { return choose_way(d, dtype).run == fnn_conv_taps_gradient; }

/* ---- the sum of the parts, as (k, c, r, s) ---- */

static void combine_panel(void *context, ptrdiff_t index, void *scratch) {
    const fnn_conv_parts *p = context;
    const fnn_conv_dims *d = p->d;
    ptrdiff_t group = index / p->panels, first = index % p->panels * p->cols, cols = fnn_min(p->cols, p->k - first);
    ptrdiff_t places = d->r * d->s, row = p->c * places, k = group * p->k + first;
    const fnn_tensor *dw = &p->dw;
    const char *src = fnn_at(p->packed, index * places * p->c * p->cols, p->dtype);
    char *dst = fnn_at(dw->data, k * dw->stride[0], p->dtype);
    int dense = (d->s == 1 || dw->stride[3] == 1) && (d->r == 1 || dw->stride[2] == d->s) &&
                (p->c == 1 || dw->stride[1] == places);
    p->K->conv_combine(places, p->c, cols, p->parts, src, p->part_size, p->slot, p->cols, dense ? dst : scratch,
                       dense ? dw->stride[0] : row);
    if (p->call->follower) fnn_follow(p->call, k * row, cols * row); /* only a dense gradient is followed */
    if (dense) return;
    for (ptrdiff_t j = 0; j < cols; j++)
        for (ptrdiff_t c = 0; c < p->c; c++)
            p->K->conv_scatter(d->r, d->s, fnn_at(scratch, j * row + c * places, p->dtype), d->s,
                               fnn_at(dst, j * dw->stride[0] + c * dw->stride[1], p->dtype), dw->stride[2],
                               dw->stride[3]);
}

size_t fnn_conv_combine_scratch(const fnn_conv_parts *p) {
    return fnn_whole_lines((size_t)(p->cols * p->c * p->d->r * p->d->s) * fnn_itemsize(p->dtype));
}

void fnn_conv_combine(fnn_conv_parts *p) {
    for (ptrdiff_t t = 0; t < p->d->r * p->d->s; t++) p->slot[t] = t * p->c * p->cols;
    fnn_parallel_for(p->call, p->groups * p->panels, (double)(p->parts * p->part_size), combine_panel, p);
}
