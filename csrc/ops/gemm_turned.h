/* gemm_turned.h: products made as their transpose, for gemm.c. */
#ifndef FNN_GEMM_TURNED_H
#define FNN_GEMM_TURNED_H

#include "gemm.h"

/* Whether C^T = B^T A^T is the cheaper product: by shapes and strides, as its bits are those of C's. */
int fnn_gemm_turned_suits(const fnn_gemm *g);
void fnn_gemm_turned_workspace(const fnn_gemm *g, fnn_workspace *ws);
/* shared: as many bytes as the workspace adds, 64-byte aligned. */
void fnn_gemm_turned_run(const fnn_call *call, const fnn_gemm *g, void *shared);

#endif
