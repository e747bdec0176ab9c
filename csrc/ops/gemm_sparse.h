/* gemm_sparse.h: products with an operand that is mostly zeros, for gemm.c. */
#ifndef FNN_GEMM_SPARSE_H
#define FNN_GEMM_SPARSE_H

#include "gemm.h"

/* Whether looking for zeros may pay: by shapes. */
int fnn_gemm_sparse_suits(const fnn_gemm *g);
void fnn_gemm_sparse_workspace(const fnn_gemm *g, fnn_workspace *ws);
/* Whether run will skip zeros, where both operands are in memory already. */
int fnn_gemm_sparse_pays(const fnn_gemm *g);
/* 0: nothing was done, as too few elements are 0. Else C has the bits that gemm.c's own way gives it. shared: as many bytes as the
 * workspace adds, 64-byte aligned. */
int fnn_gemm_sparse_run(const fnn_call *call, const fnn_gemm *g, void *shared);

#endif
