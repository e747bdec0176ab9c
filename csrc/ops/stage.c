/* stage.c: tensors brought into the order that kernels work in; see stage.h. */
#include "stage.h"

void fnn_copy_tensor(fnn_tensor *to, const fnn_tensor *from) {
    fnn_call copy = {.op = FNN_OP_copy, .out = {to}, .in = {from}, .attr.i = {-1}};
    fnn_copy.run(&copy);
}

size_t fnn_dense_bytes(const fnn_tensor *t) { return fnn_whole_lines((size_t)fnn_numel(t) * fnn_itemsize(t->dtype)); }

fnn_tensor fnn_dense_at(const fnn_tensor *t, char **workspace) {
    fnn_tensor dense;
    fnn_set_shape_contiguous(&dense, t->dtype, t->rank, t->shape);
    dense.data = fnn_take(workspace, fnn_dense_bytes(t));
    return dense;
}

/* ---- channels last ---- */

/* t with its channels' axis moved to the end. */
static fnn_tensor channels_last(const fnn_tensor *t) {
    fnn_tensor view = *t;
    for (int d = 1; d + 1 < t->rank; d++) {
        view.shape[d] = t->shape[d + 1];
        view.stride[d] = t->stride[d + 1];
    }
    if (t->rank > 1) {
        view.shape[t->rank - 1] = t->shape[1];
        view.stride[t->rank - 1] = t->stride[1];
    }
    return view;
}

static int is_ready(const fnn_tensor *t) {
    fnn_tensor view = channels_last(t);
    return fnn_is_contiguous(&view);
}

size_t fnn_stage_bytes(const fnn_tensor *t) {
    return !t || is_ready(t) ? 0 : fnn_dense_bytes(t);
}

/* Copies between t, seen channels last, and its dense image at `staged`. */
static void exchange(const fnn_tensor *t, void *staged, int inwards) {
    fnn_tensor view = channels_last(t), dense;
    fnn_set_shape_contiguous(&dense, t->dtype, t->rank, view.shape);
    dense.data = staged;
    fnn_copy_tensor(inwards ? &dense : &view, inwards ? &view : &dense);
}

const void *fnn_stage_input(const fnn_tensor *t, char **workspace) {
    if (!t || is_ready(t)) return t ? t->data : NULL;
    void *staged = fnn_take(workspace, fnn_stage_bytes(t));
    exchange(t, staged, 1);
    return staged;
}

void *fnn_stage_output(const fnn_tensor *t, char **workspace) {
    if (!t || is_ready(t)) return t ? t->data : NULL;
    return fnn_take(workspace, fnn_stage_bytes(t));
}

void fnn_unstage_output(const fnn_tensor *t, const void *staged) {
    if (t && t->data != staged) exchange(t, (void *)staged, 0);
}

/* ---- C order ---- */

size_t fnn_stage_c_bytes(const fnn_tensor *t) { return !t || fnn_is_contiguous(t) ? 0 : fnn_dense_bytes(t); }

void *fnn_stage_c_input(const fnn_tensor *t, char **workspace) {
    if (!t || fnn_is_contiguous(t)) return t ? t->data : NULL;
    fnn_tensor dense = fnn_dense_at(t, workspace);
    fnn_copy_tensor(&dense, t);
    return dense.data;
}

void *fnn_stage_c_output(const fnn_tensor *t, char **workspace) {
    if (!t || fnn_is_contiguous(t)) return t ? t->data : NULL;
    return fnn_dense_at(t, workspace).data;
}

void fnn_unstage_c_output(fnn_tensor *t, void *staged) {
    if (!t || t->data == staged) return;
    char *at = staged;
    fnn_tensor dense = fnn_dense_at(t, &at);
    fnn_copy_tensor(t, &dense);
}

int fnn_may_stream(const void *to, ptrdiff_t elements, ptrdiff_t channels, int dtype) {
    size_t size = fnn_itemsize(dtype);
    return (size_t)elements * size >= FNN_STREAM_BYTES && (size_t)channels * size % FNN_LINE == 0 && (uintptr_t)to % FNN_LINE == 0;
}
