/* conv2d_amx.h: convolutions on bfloat16 matrix units (kernels/conv_amx.h), for conv2d.c. */
#ifndef FNN_CONV2D_AMX_H
#define FNN_CONV2D_AMX_H
#include "../amx.h"
#include "conv2d_winograd.h"

/* Whether this pass of a convolution goes this way: by shape, instruction set, precision and setting. */
int fnn_conv_amx_suits(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass);
/* Where it suits: enlarges *ws, which the direct way needs, should a value not be finite. */
void fnn_conv_amx_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass, fnn_workspace *ws);
/* Where it suits. 1: done. 0: an operand or a sum is not finite: the call must be computed directly; what follows it has
 * not run, or only in ways that can be repeated. */
int fnn_conv_amx_correlate(const fnn_call *call, const fnn_conv_dims *d, fnn_conv_pass pass,
                           const fnn_epilogue *epilogue);
int fnn_conv_amx_gradient(const fnn_call *call, const fnn_conv_dims *d);

/* ---- what the passes share ---- */

enum {
    FNN_AMX_ROW = 64,         /* bytes of a tile's row */
    FNN_AMX_MOST_STRIDE = 4,
    FNN_AMX_MOST_PHASES = FNN_AMX_MOST_STRIDE * FNN_AMX_MOST_STRIDE,
    FNN_AMX_MOST_PLACES = 49
};

/* Input positions of an axis as outputs meet them: base + step * i + class. Each class that kernel positions meet is
 * stored by itself, i after i, so that neighbouring outputs read neighbours, whatever the stride; output o reads
 * i = o + shift, the shift by kernel position, at most `most`. */
typedef struct {
    ptrdiff_t base, step, most, classes;
    ptrdiff_t value[FNN_AMX_MOST_STRIDE]; /* of the classes in use */
} fnn_amx_lattice;

/* conv2d_amx_pixels.c */
/* Of the axes of all phases. */
fnn_amx_lattice fnn_amx_lattice_of(const fnn_axis *axes, ptrdiff_t count);
/* Which of the classes in use kernel position t of an axis meets, and its shift. */
ptrdiff_t fnn_amx_class(const fnn_amx_lattice *l, const fnn_axis *axis, ptrdiff_t t, ptrdiff_t *shift);
/* Addresses of channel `channel` of a row's pixels from column lattice position `i` on, `count` of them; zeros outside the
 * map. */
void fnn_amx_row(const fnn_tile_source *map, ptrdiff_t image, ptrdiff_t row, ptrdiff_t channel,
                 const fnn_amx_lattice *cols, ptrdiff_t class, ptrdiff_t i, ptrdiff_t count, const float **pixel);
/* The same of what outputs begin, begin + 1, ... of all images, h->out x w->out each, meet with one kernel position. */
void fnn_amx_outputs(const fnn_tile_source *map, ptrdiff_t images, ptrdiff_t channel, const fnn_axis *h,
                     const fnn_axis *w, ptrdiff_t begin, ptrdiff_t count, const float **pixel);

/* conv2d_amx.c */
/* Predicted nanoseconds on one core: of products of two tiles; of splitting, by elements fetched and written. */
double fnn_amx_products_ns(int planes, double tiles);
double fnn_amx_split_ns(int planes, double fetched, double written);

/* conv2d_amx_weight.c */
double fnn_conv_amx_gradient_cost(const fnn_conv_dims *d, int planes);
void fnn_conv_amx_gradient_workspace(const fnn_call *call, const fnn_conv_dims *d, fnn_workspace *ws);

#endif
