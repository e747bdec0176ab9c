/* gemm_cells.h: products of A transposed with B over many rows of both, as weights' gradients are, for gemm.c. */
#ifndef FNN_GEMM_CELLS_H
#define FNN_GEMM_CELLS_H

#include "gemm.h"

/* Whether the product is made so: by shapes and strides, as its bits are those of any other way by multiply-adds. */
int fnn_gemm_cells_suits(const fnn_gemm *g);
void fnn_gemm_cells_workspace(const fnn_gemm *g, fnn_workspace *ws);
/* shared: as many bytes as the workspace adds, 64-byte aligned. */
void fnn_gemm_cells_run(const fnn_call *call, const fnn_gemm *g, void *shared);

#endif
