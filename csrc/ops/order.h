/* order.h: a tensor's elements walked in a stated order of its axes, whatever its strides: what lets a driver sum,
 * search or normalise inputs of any layout in the one canonical order. */
#ifndef FNN_ORDER_H
#define FNN_ORDER_H
#include "../fastnn.h"

typedef struct {
    int rank;
    ptrdiff_t size; /* elements */
    ptrdiff_t shape[FNN_MAX_RANK], stride[FNN_MAX_RANK]; /* the last dimension varies fastest */
} fnn_order;

static inline fnn_order fnn_order_empty(void) { return (fnn_order){.size = 1}; }
/* Appends a dimension inside the others; extents of one vanish, dimensions that continue each other merge. */
void fnn_order_add(fnn_order *order, ptrdiff_t extent, ptrdiff_t stride);
/* t's elements in logical (C) order, and in the canonical order of its axes. */
fnn_order fnn_order_of(const fnn_tensor *t);
fnn_order fnn_order_canonical(const fnn_tensor *t);
/* The axes first .. last - 1 of `axes`, in that order. */
void fnn_order_add_axes(fnn_order *order, const fnn_tensor *t, const int *axes, int first, int last);
int fnn_order_is_dense(const fnn_order *order);
/* Step between neighbours when one stride reaches all elements; 0 and false when it does not. */
int fnn_order_step(const fnn_order *order, ptrdiff_t *step);
/* n elements of `size` bytes (1, 4 or 8) from one step between neighbours to another. */
void fnn_move_strided(void *to, ptrdiff_t to_step, const void *from, ptrdiff_t from_step, ptrdiff_t n, size_t size);
/* Where element `index` of the order lies, in elements from the first. */
ptrdiff_t fnn_order_seek(const fnn_order *order, ptrdiff_t index);
/* Elements from .. from + n - 1 of the order, out of a tensor into a dense buffer or back. */
void fnn_order_gather(const fnn_order *order, const void *tensor, size_t itemsize, ptrdiff_t from, ptrdiff_t n,
                      void *dense);
void fnn_order_scatter(const fnn_order *order, void *tensor, size_t itemsize, ptrdiff_t from, ptrdiff_t n,
                       const void *dense);
/* The whole of a dense buffer into a tensor, in parallel. */
void fnn_order_scatter_all(const fnn_call *call, const fnn_order *order, void *tensor, size_t itemsize,
                           const void *dense);

/* A tensor as lines (rows) along one axis: the other axes in canonical order say which row. */
typedef struct {
    fnn_order order; /* the row's axis last */
    char *data;
    size_t size;     /* of an element */
    ptrdiff_t rows, n;
    int is_dense;    /* rows lie one after the other: they are worked on in place */
} fnn_lines;

/* Whether attribute i[0], 'axis', is an axis of x: of rank 0, too, which is one row of one. */
int fnn_check_axis(fnn_call *call, const fnn_tensor *x);
/* x: float32, float64 or int64 */
int fnn_check_summable(fnn_call *call, const fnn_tensor *x);
fnn_lines fnn_lines_of(const fnn_tensor *t, int axis);
/* Bytes of scratch that read() and place() take for `count` rows: none where they are dense. */
size_t fnn_lines_bytes(const fnn_lines *rows, ptrdiff_t count);
/* Rows from .. from + count - 1, dense: where they are, or gathered into scratch. */
const void *fnn_lines_read(const fnn_lines *rows, ptrdiff_t from, ptrdiff_t count, void *scratch);
/* Where to write these rows densely; write() then takes them there, if that is not in place. */
void *fnn_lines_place(const fnn_lines *rows, ptrdiff_t from, void *scratch);
/* Whether lines are to be written past the caches: where they lie, and too many for them. */
int fnn_lines_stream(const fnn_lines *rows);
void fnn_lines_write(const fnn_lines *rows, ptrdiff_t from, ptrdiff_t count, const void *dense);

#endif
