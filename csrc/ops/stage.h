/* stage.h: tensors brought into the order that kernels work in. One that is so already is used where it lies; another one
 * goes through the driver's shared workspace. */
#ifndef FNN_STAGE_H
#define FNN_STAGE_H
#include "../fastnn.h"

/* Copies a tensor into one of the same shape and dtype. */
void fnn_copy_tensor(fnn_tensor *to, const fnn_tensor *from);
/* What a dense copy of t takes of a workspace. */
size_t fnn_dense_bytes(const fnn_tensor *t);
/* A tensor of t's shape in C order. *workspace moves on over what it takes. */
fnn_tensor fnn_dense_at(const fnn_tensor *t, char **workspace);

/* Channels last: (N, C, ...) as N ... C, dense; rank 1 and 0: dense. */

/* Bytes of workspace that staging t takes: 0 when it is in order already, or NULL. */
size_t fnn_stage_bytes(const fnn_tensor *t);

/* t's elements in order. *workspace moves on over what it takes. NULL for NULL. */
const void *fnn_stage_input(const fnn_tensor *t, char **workspace);

/* Where to write t's elements in order; afterwards fnn_unstage_output brings them into t. NULL for NULL. */
void *fnn_stage_output(const fnn_tensor *t, char **workspace);
void fnn_unstage_output(const fnn_tensor *t, const void *staged);

/* The same in C order. */
size_t fnn_stage_c_bytes(const fnn_tensor *t);
void *fnn_stage_c_input(const fnn_tensor *t, char **workspace);
void *fnn_stage_c_output(const fnn_tensor *t, char **workspace);
void fnn_unstage_c_output(fnn_tensor *t, void *staged);

/* Whether `elements` written once at `to`, in pixels of `channels`, should bypass the caches: when they are too many
 * to be found there by the next op (FNN_STREAM_BYTES), and every pixel starts on a cache line. No bit depends on it. */
int fnn_may_stream(const void *to, ptrdiff_t elements, ptrdiff_t channels, int dtype);

#endif
