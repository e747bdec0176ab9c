/* nest.h: several tensors walked together: one loop nest over a result's shape, with the strides of every operand. */
#ifndef FNN_NEST_H
#define FNN_NEST_H
#include "../fastnn.h"

typedef struct {
    int operands, rank; /* rank >= 1 */
    ptrdiff_t size;
    ptrdiff_t shape[FNN_MAX_RANK];
    ptrdiff_t stride[FNN_MAX_ARGS][FNN_MAX_RANK]; /* in elements; 0 where the operand is broadcast */
    char *data[FNN_MAX_ARGS];
    size_t itemsize[FNN_MAX_ARGS];
} fnn_nest;

/* The shape to which the first `inputs` inputs broadcast together; ":scalar" ones, of rank 0, add nothing. */
int fnn_broadcast(fnn_call *call, int inputs, int *rank, ptrdiff_t *shape);

/* Operand 0 is the result; the others broadcast to its shape. Dimensions of one are dropped, the rest ordered by the
 * result's strides and merged where all operands are contiguous. */
void fnn_nest_build(fnn_nest *nest, const fnn_tensor *const *tensors, int operands);

/* Addresses of every operand's element number `index` in the nest's order. */
void fnn_nest_seek(const fnn_nest *nest, ptrdiff_t index, char **at);
/* The same, and how many elements from `from` on follow one another along the last dimension, before `end`. */
ptrdiff_t fnn_nest_run(const fnn_nest *nest, ptrdiff_t from, ptrdiff_t end, char **at);

#endif
