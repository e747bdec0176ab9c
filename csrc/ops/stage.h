/* stage.h: tensors brought into the order that channels-last kernels work in: (N, C, ...) as N ... C, dense. A tensor
 * that is so already is used where it lies; another one goes through the driver's shared workspace. Rank 1 and 0:
 * dense. */
#ifndef FNN_STAGE_H
#define FNN_STAGE_H
#include "../fastnn.h"

/* Bytes of workspace that staging t takes: 0 when it is in order already, or NULL. */
size_t fnn_stage_bytes(const fnn_tensor *t);

/* t's elements in order. *workspace moves on over what it takes. NULL for NULL. */
const void *fnn_stage_input(const fnn_tensor *t, char **workspace);

/* Where to write t's elements in order; afterwards fnn_unstage_output brings them into t. NULL for NULL. */
void *fnn_stage_output(const fnn_tensor *t, char **workspace);
void fnn_unstage_output(const fnn_tensor *t, const void *staged);

/* Whether `elements` written once at `to`, in pixels of `channels`, should bypass the caches: when they are too many
 * to be found there by the next op (FNN_STREAM_BYTES), and every pixel starts on a cache line. No bit depends on it. */
int fnn_may_stream(const void *to, ptrdiff_t elements, ptrdiff_t channels, int dtype);

#endif
