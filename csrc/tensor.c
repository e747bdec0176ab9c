/* tensor.c: shapes, strides and layouts. */
#include "fastnn.h"

#include <stdio.h>

size_t fnn_itemsize(int dtype) {
    static const size_t size[FNN_NUM_DTYPES] = {4, 8, 8, 4, 1, 1};
    return size[dtype];
}

const char *fnn_dtype_name(int dtype) {
    static const char *const name[FNN_NUM_DTYPES] = {"float32", "float64", "int64", "int32", "uint8", "bool"};
    return dtype >= 0 && dtype < FNN_NUM_DTYPES ? name[dtype] : "unknown";
}

ptrdiff_t fnn_span(const fnn_tensor *t, int from, int to) {
    ptrdiff_t n = 1;
    for (int d = from; d < to; d++) n *= t->shape[d];
    return n;
}

ptrdiff_t fnn_numel(const fnn_tensor *t) { return fnn_span(t, 0, t->rank); }

int fnn_bounds(const fnn_tensor *t, ptrdiff_t *low, ptrdiff_t *high) {
    const ptrdiff_t most_elements = (ptrdiff_t)1 << 43, farthest = (ptrdiff_t)1 << 56;
    ptrdiff_t elements = 1, reach;
    int is_empty = 0;
    *low = *high = 0;
    for (int d = 0; d < t->rank; d++) {
        if (t->shape[d] < 0) return 0;
        is_empty |= t->shape[d] == 0;
        if (t->shape[d] < 2) continue;
        if (__builtin_mul_overflow(elements, t->shape[d], &elements) || elements > most_elements) return 0;
        if (__builtin_mul_overflow(t->shape[d] - 1, t->stride[d], &reach) || reach > farthest || reach < -farthest) return 0;
        *(reach < 0 ? low : high) += reach;
    }
    if (is_empty) *low = *high = 0;
    return 1;
}

void fnn_canonical_axes(int rank, int *axes) {
    for (int d = 0; d < rank; d++) axes[d] = d;
    if (rank == 4) axes[1] = 2, axes[2] = 3, axes[3] = 1;
}

/* Dense strides for the axes in the given order, the last one varying fastest. The product of a shape that no memory holds
 * wraps around: whoever gives the tensor memory asks fnn_bounds first. */
static void dense_strides(fnn_tensor *t, const int *axes) {
    size_t step = 1;
    for (int d = t->rank - 1; d >= 0; d--) {
        t->stride[axes[d]] = (ptrdiff_t)step;
        step *= (size_t)fnn_max(t->shape[axes[d]], 1);
    }
}

static int is_dense(const fnn_tensor *t, const int *axes) {
    ptrdiff_t step = 1;
    for (int d = t->rank - 1; d >= 0; d--) {
        int axis = axes[d];
        if (t->shape[axis] > 1 && t->stride[axis] != step) return 0;
        step *= fnn_max(t->shape[axis], 1);
    }
    return 1;
}

static const int logical_axes[FNN_MAX_RANK] = {0, 1, 2, 3, 4, 5, 6, 7}, sequence_axes[] = {0, 2, 1};

int fnn_is_contiguous(const fnn_tensor *t) { return is_dense(t, logical_axes); }

int fnn_is_channels_last(const fnn_tensor *t) {
    int axes[FNN_MAX_RANK];
    fnn_canonical_axes(t->rank, axes);
    return t->rank == 4 && is_dense(t, axes);
}

int fnn_is_sequence(const fnn_tensor *t) { return t->rank == 3 && is_dense(t, sequence_axes); }

int fnn_is_dense(const fnn_tensor *t) { return fnn_is_contiguous(t) || fnn_is_channels_last(t) || fnn_is_sequence(t); }

int fnn_is_one_element(const fnn_tensor *t) {
    for (int d = 0; d < t->rank; d++)
        if (t->shape[d] == 0 || (t->shape[d] > 1 && t->stride[d] != 0)) return 0;
    return 1;
}

int fnn_same_shape(const fnn_tensor *a, const fnn_tensor *b) {
    if (a->rank != b->rank) return 0;
    for (int d = 0; d < a->rank; d++)
        if (a->shape[d] != b->shape[d]) return 0;
    return 1;
}

int fnn_same_layout(const fnn_tensor *a, const fnn_tensor *b) {
    if (!fnn_same_shape(a, b)) return 0;
    for (int d = 0; d < a->rank; d++)
        if (a->shape[d] > 1 && a->stride[d] != b->stride[d]) return 0;
    return 1;
}

static void set_shape(fnn_tensor *t, int dtype, int rank, const ptrdiff_t *shape, const int *axes) {
    t->dtype = dtype;
    t->rank = rank;
    for (int d = 0; d < rank; d++) t->shape[d] = shape[d];
    dense_strides(t, axes);
}

void fnn_set_shape(fnn_tensor *t, int dtype, int rank, const ptrdiff_t *shape) {
    int axes[FNN_MAX_RANK];
    fnn_canonical_axes(rank, axes);
    set_shape(t, dtype, rank, shape, axes);
}

void fnn_set_shape_contiguous(fnn_tensor *t, int dtype, int rank, const ptrdiff_t *shape) {
    set_shape(t, dtype, rank, shape, logical_axes);
}

void fnn_set_like(fnn_tensor *t, const fnn_tensor *like) { fnn_set_shape(t, like->dtype, like->rank, like->shape); }

int fnn_lies_in_rows(const fnn_tensor *x) {
    int last = x->rank - 1;
    while (last > 1 && x->shape[last] == 1) last--;
    if (x->rank != 4 || x->shape[1] == 1 || last == 1) return 0;
    return x->stride[1] == 1 ? -1 : x->stride[last] == 1;
}

void fnn_set_alike(fnn_tensor *t, int dtype, const fnn_tensor *like) {
    if (fnn_is_sequence(like) && !fnn_is_contiguous(like)) set_shape(t, dtype, 3, like->shape, sequence_axes);
    else if (fnn_lies_in_rows(like) > 0) set_shape(t, dtype, 4, like->shape, logical_axes);
    else fnn_set_shape(t, dtype, like->rank, like->shape);
}

void fnn_set_shape_near(fnn_tensor *t, int dtype, int rank, const ptrdiff_t *shape, const fnn_tensor *like) {
    if (fnn_lies_in_rows(like) > 0) fnn_set_shape_contiguous(t, dtype, rank, shape);
    else fnn_set_shape(t, dtype, rank, shape);
}

const char *fnn_shape_text(const fnn_tensor *t) {
    static __thread char buffers[8][128];
    static __thread int next;
    char *text = buffers[next++ % 8];
    int used = snprintf(text, 128, "(");
    for (int d = 0; d < t->rank && used < 100; d++)
        used += snprintf(text + used, (size_t)(128 - used), d ? ", %td" : "%td", t->shape[d]);
    snprintf(text + used, (size_t)(128 - used), t->rank == 1 ? ",)" : ")");
    return text;
}
