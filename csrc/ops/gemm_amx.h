/* gemm_amx.h: float32 products on bfloat16 matrix units, for gemm.c. */
#ifndef FNN_GEMM_AMX_H
#define FNN_GEMM_AMX_H

#include "gemm.h"

/* Whether this product is made there: by shape, instruction set and precision. */
int fnn_gemm_amx_suits(const fnn_gemm *g);
double fnn_gemm_amx_cost(const fnn_gemm *g);
void fnn_gemm_amx_workspace(const fnn_gemm *g, fnn_workspace *ws);
/* shared: as many bytes as the workspace adds, 64-byte aligned. 0: an operand or a sum is not finite, and C must be
 * computed again by multiply-adds. */
int fnn_gemm_amx_run(const fnn_call *call, const fnn_gemm *g, void *shared);

#endif
