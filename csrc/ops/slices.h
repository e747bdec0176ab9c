/* slices.h: slices of a tensor along one axis: picked into another tensor by their positions, or combined with another's slices.
 * A tensor is `whole`, the one whose slices stand for positions is `picked`. */
#ifndef FNN_SLICES_H
#define FNN_SLICES_H
#include "nest.h"

typedef void (*fnn_combine) FNN_ELEMENTWISE_ARGS; /* what two elements make; NULL: the second */

typedef struct {
    fnn_nest nest;         /* one slice, without the last run: operand 0 is written, operand 1 read */
    ptrdiff_t run;         /* elements that lie together in both */
    ptrdiff_t step[2];     /* between slices along the axis: of the whole, of the picked */
    ptrdiff_t extent;      /* of the axis in the whole */
    ptrdiff_t count;       /* positions */
    size_t size;
    const int64_t *at;     /* the positions, from 0 on */
} fnn_slices;

/* The tensor without an axis, for a nest. */
fnn_tensor fnn_slice_of(const fnn_tensor *t, int axis);
/* has_axis: whether the picked tensor kept the axis; without, it is one slice. The nest follows the order of what is written. */
fnn_slices fnn_slices_of(const fnn_tensor *whole, const fnn_tensor *picked, int axis, int has_axis, int writes_whole);
/* Whether an index that has a place for every element says the same for a whole slice, as one that was expanded. */
int fnn_says_slices(const fnn_tensor *index, int axis);

/* Workspace for so many positions. */
size_t fnn_slices_bytes(ptrdiff_t count);
/* Reads positions, `step` apart, into the workspace; negative ones count from the end where `from_end` allows it. The first that
 * lies outside the axis, or -1. */
ptrdiff_t fnn_slices_read(const fnn_call *call, fnn_slices *s, const int64_t *index, ptrdiff_t step, int from_end, void *workspace);
/* picked[.., j, ..] = whole[.., at[j], ..] */
void fnn_slices_pick(const fnn_call *call, const fnn_slices *s, double ns);
/* whole[.., at[j], ..] = combine(whole[.., at[j], ..], picked[.., j, ..]), j after j; dtype: of both. Runs of one element are reals, and
 * are added. */
void fnn_slices_combine(const fnn_call *call, fnn_slices *s, fnn_combine combine, int dtype, void *workspace);

/* index.c: of an index_select whose readers may take its rows from where they lie (fnn_call.picking). Where row j lies, from the
 * first row on; and what makes its result after all. */
const int64_t *fnn_late_positions(const fnn_call *select);
void fnn_pick_rows(fnn_call *select);

#endif
