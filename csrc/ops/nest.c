/* nest.c: several tensors walked together; see nest.h. */
#include "nest.h"

/* Strides of t over the result's dimensions: 0 where it is broadcast. */
static void operand_strides(const fnn_tensor *t, const fnn_tensor *result, ptrdiff_t *stride) {
    int shift = result->rank - t->rank;
    for (int d = 0; d < result->rank; d++)
        stride[d] = d < shift || (t->shape[d - shift] == 1 && result->shape[d] != 1) ? 0 : t->stride[d - shift];
}

static void move_dimension(fnn_nest *nest, int from, int to) {
    nest->shape[to] = nest->shape[from];
    for (int k = 0; k < nest->operands; k++) nest->stride[k][to] = nest->stride[k][from];
}

static void swap_dimensions(fnn_nest *nest, int d, int e) {
    ptrdiff_t shape = nest->shape[d];
    nest->shape[d] = nest->shape[e], nest->shape[e] = shape;
    for (int k = 0; k < nest->operands; k++) {
        ptrdiff_t stride = nest->stride[k][d];
        nest->stride[k][d] = nest->stride[k][e], nest->stride[k][e] = stride;
    }
}

/* Whether the outer dimension continues the inner one in every operand. */
static int is_mergeable(const fnn_nest *nest, int outer, int inner) {
    for (int k = 0; k < nest->operands; k++)
        if (nest->stride[k][outer] != nest->stride[k][inner] * nest->shape[inner]) return 0;
    return 1;
}

static void merge_dimensions(fnn_nest *nest) {
    int last = 0;
    for (int d = 1; d < nest->rank; d++) {
        if (is_mergeable(nest, last, d)) {
            ptrdiff_t outer = nest->shape[last];
            move_dimension(nest, d, last);
            nest->shape[last] *= outer;
        } else {
            move_dimension(nest, d, ++last);
        }
    }
    nest->rank = last + 1;
}

void fnn_nest_build(fnn_nest *nest, const fnn_tensor *const *tensors, int operands) {
    const fnn_tensor *result = tensors[0];
    nest->operands = operands;
    nest->size = fnn_numel(result);
    nest->rank = 0;
    int same = 1; /* all alike and dense: the common case is one run */
    for (int k = 0; k < operands; k++) {
        nest->data[k] = tensors[k]->data;
        nest->itemsize[k] = fnn_itemsize(tensors[k]->dtype);
        same = same && fnn_same_layout(tensors[k], result);
    }
    if (same && (fnn_is_contiguous(result) || fnn_is_channels_last(result))) {
        nest->rank = 1;
        nest->shape[0] = nest->size;
        for (int k = 0; k < operands; k++) nest->stride[k][0] = 1;
        return;
    }
    for (int k = 0; k < operands; k++) operand_strides(tensors[k], result, nest->stride[k]);
    for (int d = 0; d < result->rank; d++) {
        nest->shape[d] = result->shape[d];
        if (result->shape[d] != 1) move_dimension(nest, d, nest->rank++);
    }
    for (int d = 1; d < nest->rank; d++)
        for (int e = d; e > 0 && nest->stride[0][e - 1] < nest->stride[0][e]; e--) swap_dimensions(nest, e - 1, e);
    if (nest->rank) {
        merge_dimensions(nest);
    } else { /* one element */
        nest->rank = 1;
        nest->shape[0] = 1;
        for (int k = 0; k < operands; k++) nest->stride[k][0] = 1;
    }
}

void fnn_nest_seek(const fnn_nest *nest, ptrdiff_t index, char **at) {
    ptrdiff_t shift[FNN_MAX_ARGS] = {0};
    for (int d = nest->rank - 1; d >= 0; d--) {
        ptrdiff_t position = index % nest->shape[d];
        index /= nest->shape[d];
        for (int k = 0; k < nest->operands; k++) shift[k] += position * nest->stride[k][d];
    }
    for (int k = 0; k < nest->operands; k++) at[k] = nest->data[k] + shift[k] * (ptrdiff_t)nest->itemsize[k];
}

int fnn_broadcast(fnn_call *call, int inputs, int *rank, ptrdiff_t *shape) {
    *rank = 0;
    for (int k = 0; k < inputs; k++)
        if (call->in[k]->rank > *rank) *rank = call->in[k]->rank;
    for (int d = 0; d < *rank; d++) shape[d] = 1;
    for (int k = 0; k < inputs; k++) {
        const fnn_tensor *t = call->in[k];
        for (int d = 0; d < t->rank; d++) {
            ptrdiff_t *extent = &shape[*rank - t->rank + d];
            if (t->shape[d] == 1) continue;
            if (*extent != 1 && *extent != t->shape[d])
                return fnn_fail(call, FNN_VALUE_ERROR, "shapes %s and %s do not broadcast together",
                                fnn_shape_text(call->in[0]), fnn_shape_text(t));
            *extent = t->shape[d];
        }
    }
    return FNN_OK;
}

ptrdiff_t fnn_nest_run(const fnn_nest *nest, ptrdiff_t from, ptrdiff_t end, char **at) {
    const ptrdiff_t extent = nest->shape[nest->rank - 1];
    fnn_nest_seek(nest, from, at);
    return fnn_min(extent - from % extent, end - from);
}
