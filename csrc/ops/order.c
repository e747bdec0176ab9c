/* order.c: elements in a stated order of axes; see order.h. */
#include "order.h"

#include <string.h>

enum { CHUNK = 16384, TILE_ROWS = 128 };

void fnn_order_add(fnn_order *order, ptrdiff_t extent, ptrdiff_t stride) {
    order->size *= extent;
    if (extent == 1) return;
    int last = order->rank - 1;
    if (last >= 0 && order->stride[last] == extent * stride) {
        order->shape[last] *= extent;
        order->stride[last] = stride;
        return;
    }
    order->shape[order->rank] = extent;
    order->stride[order->rank++] = stride;
}

void fnn_order_add_axes(fnn_order *order, const fnn_tensor *t, const int *axes, int first, int last) {
    for (int d = first; d < last; d++) fnn_order_add(order, t->shape[axes[d]], t->stride[axes[d]]);
}

fnn_order fnn_order_of(const fnn_tensor *t) {
    fnn_order order = fnn_order_empty();
    for (int d = 0; d < t->rank; d++) fnn_order_add(&order, t->shape[d], t->stride[d]);
    return order;
}

fnn_order fnn_order_canonical(const fnn_tensor *t) {
    int axes[FNN_MAX_RANK];
    fnn_order order = fnn_order_empty();
    fnn_canonical_axes(t->rank, axes);
    fnn_order_add_axes(&order, t, axes, 0, t->rank);
    return order;
}

int fnn_order_step(const fnn_order *order, ptrdiff_t *step) {
    *step = order->rank == 1 ? order->stride[0] : 0;
    return order->rank <= 1;
}

int fnn_order_is_dense(const fnn_order *order) {
    return order->rank == 0 || (order->rank == 1 && order->stride[0] == 1);
}

ptrdiff_t fnn_order_seek(const fnn_order *order, ptrdiff_t index) {
    ptrdiff_t at = 0;
    for (int d = order->rank - 1; d >= 0; d--) {
        at += index % order->shape[d] * order->stride[d];
        index /= order->shape[d];
    }
    return at;
}

void fnn_move_strided(void *to, ptrdiff_t to_step, const void *from, ptrdiff_t from_step, ptrdiff_t n, size_t size) {
#define MOVE(type)                                                                                                      \
    if (to_step == 1 && from_step == -1) /* turned round, which the compiler knows how to do */                         \
        for (ptrdiff_t i = 0; i < n; i++) ((type *)to)[i] = ((const type *)from)[-i];                                   \
    else                                                                                                                \
        for (ptrdiff_t i = 0; i < n; i++) ((type *)to)[i * to_step] = ((const type *)from)[i * from_step];              \
    return
    if (to_step == 1 && from_step == 1) {
        memcpy(to, from, (size_t)n * size);
        return;
    }
    switch (size) {
    case 1: { MOVE(uint8_t); }
    case 4: { MOVE(uint32_t); }
    case 8: { MOVE(uint64_t); }
    }
#undef MOVE
}

/* to[r][c] = from[c][r], rows x columns: numbers of 4 or 8 bytes, whatever they mean, as registers of reals. */
static void turn(const void *from, ptrdiff_t from_step, void *to, ptrdiff_t to_step, ptrdiff_t rows, ptrdiff_t columns, size_t size) {
    if (size >= 4) {
        fnn_kernels_of(size == 8 ? FNN_FLOAT64 : FNN_FLOAT32)->conv_pack(1, rows, columns, from, 1, from_step, to, NULL, to_step);
        return;
    }
    for (ptrdiff_t c = 0; c < columns; c++)
        for (ptrdiff_t r = 0; r < rows; r++) ((uint8_t *)to)[r * to_step + c] = ((const uint8_t *)from)[c * from_step + r];
}

/* Runs along the last dimension, or tiles of it and the one before where that is the dense one; an odometer, not a division, finds
 * the next one. */
static void walk(const fnn_order *order, char *tensor, size_t size, ptrdiff_t from, ptrdiff_t n, char *dense,
                 int scatter) {
    int last = order->rank - 1;
    if (n <= 0) return; /* extents may be 0 */
    if (last < 0) {
        memcpy(scatter ? tensor : dense, scatter ? dense : tensor, size);
        return;
    }
    ptrdiff_t position[FNN_MAX_RANK], step = order->stride[last], width = (ptrdiff_t)size, columns = order->shape[last];
    const int tiled = step != 1 && last > 0 && order->stride[last - 1] == 1;
    tensor += fnn_order_seek(order, from) * width;
    for (int d = last; d >= 0; d--) {
        position[d] = from % order->shape[d];
        from /= order->shape[d];
    }
    while (n > 0) {
        ptrdiff_t run = fnn_min(columns - position[last], n), rows = 1;
        if (tiled && position[last] == 0 && n >= 2 * columns) {
            rows = fnn_min(fnn_min(order->shape[last - 1] - position[last - 1], n / columns), TILE_ROWS);
            if (scatter) turn(dense, columns, tensor, step, columns, rows, size);
            else turn(tensor, step, dense, columns, rows, columns, size);
            run = rows * columns;
        } else if (scatter) {
            fnn_move_strided(tensor, step, dense, 1, run, size);
        } else {
            fnn_move_strided(dense, 1, tensor, step, run, size);
        }
        dense += run * width;
        n -= run;
        tensor -= position[last] * step * width;
        position[last] = 0;
        for (int d = last - 1; d >= 0; d--, rows = 1) {
            tensor += rows * order->stride[d] * width;
            if ((position[d] += rows) < order->shape[d]) break;
            tensor -= order->shape[d] * order->stride[d] * width;
            position[d] = 0;
        }
    }
}

void fnn_order_gather(const fnn_order *order, const void *tensor, size_t itemsize, ptrdiff_t from, ptrdiff_t n,
                      void *dense) {
    walk(order, (char *)tensor, itemsize, from, n, dense, 0);
}

void fnn_order_scatter(const fnn_order *order, void *tensor, size_t itemsize, ptrdiff_t from, ptrdiff_t n,
                       const void *dense) {
    walk(order, tensor, itemsize, from, n, (char *)dense, 1);
}

typedef struct {
    const fnn_order *order;
    char *tensor;
    const char *dense;
    size_t itemsize;
} scatter_plan;

static void run_scatter(void *context, ptrdiff_t chunk, void *scratch) {
    (void)scratch;
    const scatter_plan *p = context;
    ptrdiff_t from = chunk * CHUNK;
    fnn_order_scatter(p->order, p->tensor, p->itemsize, from, fnn_min(CHUNK, p->order->size - from),
                      p->dense + from * (ptrdiff_t)p->itemsize);
}

void fnn_order_scatter_all(const fnn_call *call, const fnn_order *order, void *tensor, size_t itemsize,
                           const void *dense) {
    scatter_plan p = {order, tensor, dense, itemsize};
    fnn_parallel_for(call, fnn_ceil_div(order->size, CHUNK), (double)order->size, run_scatter, &p);
}

int fnn_check_axis(fnn_call *call, const fnn_tensor *x) {
    const int64_t axis = call->attr.i[0];
    if (axis >= 0 && axis < fnn_max(x->rank, 1)) return FNN_OK;
    return fnn_fail(call, FNN_VALUE_ERROR, "attribute 'axis' is %lld, but x has shape %s", (long long)axis, fnn_shape_text(x));
}

int fnn_check_summable(fnn_call *call, const fnn_tensor *x) {
    if (x->dtype <= FNN_INT64) return FNN_OK;
    return fnn_fail(call, FNN_TYPE_ERROR, "argument 'x' has dtype %s, but must be float32, float64 or int64",
                    fnn_dtype_name(x->dtype));
}

size_t fnn_lines_bytes(const fnn_lines *rows, ptrdiff_t count) {
    return rows->is_dense ? 0 : fnn_whole_lines((size_t)(count * rows->n) * rows->size);
}

fnn_lines fnn_lines_of(const fnn_tensor *t, int axis) {
    fnn_lines rows = {.order = fnn_order_empty(), .data = t->data, .size = fnn_itemsize(t->dtype), .n = 1};
    int axes[FNN_MAX_RANK];
    fnn_canonical_axes(t->rank, axes);
    for (int d = 0; d < t->rank; d++)
        if (axes[d] != axis) fnn_order_add(&rows.order, t->shape[axes[d]], t->stride[axes[d]]);
    rows.rows = rows.order.size;
    if (t->rank) fnn_order_add(&rows.order, rows.n = t->shape[axis], t->stride[axis]);
    rows.is_dense = fnn_order_is_dense(&rows.order);
    return rows;
}

static char *row_at(const fnn_lines *rows, ptrdiff_t from) {
    return rows->data + from * rows->n * (ptrdiff_t)rows->size;
}

const void *fnn_lines_read(const fnn_lines *rows, ptrdiff_t from, ptrdiff_t count, void *scratch) {
    if (rows->is_dense) return row_at(rows, from);
    fnn_order_gather(&rows->order, rows->data, rows->size, from * rows->n, count * rows->n, scratch);
    return scratch;
}

void *fnn_lines_place(const fnn_lines *rows, ptrdiff_t from, void *scratch) {
    return rows->is_dense ? row_at(rows, from) : scratch;
}

int fnn_lines_stream(const fnn_lines *rows) {
    return rows->is_dense && rows->rows * rows->n * (ptrdiff_t)rows->size >= FNN_STREAM_BYTES;
}

void fnn_lines_write(const fnn_lines *rows, ptrdiff_t from, ptrdiff_t count, const void *dense) {
    if (!rows->is_dense)
        fnn_order_scatter(&rows->order, rows->data, rows->size, from * rows->n, count * rows->n, dense);
}
