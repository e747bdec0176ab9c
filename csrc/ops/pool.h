/* pool.h: what all pooling drivers share: windows along two axes, and loops over bands of rows. */
#ifndef FNN_POOL_H
#define FNN_POOL_H
#include "../fastnn.h"

typedef struct {
    ptrdiff_t input, output;
    ptrdiff_t kernel, stride, padding, dilation; /* kernel 0: adaptive */
    int include_padding;                         /* in the divisor */
} fnn_pool_axis;

typedef struct {
    ptrdiff_t images, channels;
    fnn_pool_axis h, w;
    ptrdiff_t divisor;          /* the caller's; 0: each window's own size */
    ptrdiff_t position_step;    /* positions from one row of a window to the next */
    fnn_pool_window *windows[2]; /* forward: of the h axis, of the w axis */
    fnn_pool_link *links[2];     /* backward: windows that hold input position i: from starts[i] to starts[i + 1] */
    ptrdiff_t *starts[2];
    fnn_pool_stretch *stretches; /* backward, of the w axis */
    ptrdiff_t num_stretches;
    ptrdiff_t bands, band_rows; /* chunks: bands of rows (output rows forward, input rows backward) ... */
    ptrdiff_t blocks, block;    /* ... times blocks of channels */
    char *y, *x;                /* channels-last images of the output (dy) and the input (dx) */
    int32_t *argmax;            /* NULL: an average, or a maximum without */
    int dtype, is_max, stream;
    const fnn_call *call;
    int follows;                /* calls behind this one run on each finished row */
} fnn_pool_plan;

/* The 4-d tensor `name` with extents of at least 1 but for the batch and the channels. */
int fnn_pool_check_map(fnn_call *call, const char *name, const fnn_tensor *t);

/* The gradient dx of a map whose rows and columns are the first attributes; dy is checked, argmax, if is_max, only here. */
int fnn_pool_infer_gradient(fnn_call *call, int is_max);

/* out: y (, argmax); in: x. */
void fnn_pool_forward_workspace(const fnn_call *call, const fnn_pool_plan *plan, fnn_workspace *ws);
void fnn_pool_forward(fnn_call *call, fnn_pool_plan *plan);

/* out: dx; in: dy (, argmax). */
void fnn_pool_backward_workspace(const fnn_call *call, const fnn_pool_plan *plan, fnn_workspace *ws);
void fnn_pool_backward(fnn_call *call, fnn_pool_plan *plan);

/* pool2d.c: max pooling's gradient without memory for dx. Whether windows are the map's blocks of 2 x 2 pixels, of few channels, and
 * dy and argmax are dense; ... */
int fnn_pool_is_of_blocks(const fnn_call *call);
/* ... a pair of dx's rows, counted through all images, as [row][column][channel]. */
void fnn_pool_spread(const fnn_call *call, ptrdiff_t pair, char *to);

#endif
