/* amx_f32.c: the AMX level's own kernels; all others are the avx512 level's. */
#define VEC_AVX512
#define REAL64 0
#include "../amx.h"
#include "../simd/vec.h"

#include "../kernels/gemm_amx.h"
#include "../kernels/conv_amx.h"
#include "../kernels/attention_amx.h"

const fnn_amx_kernels fnn_amx_kernels_f32 = {
    .begin = amx_begin_kernel,
    .end = amx_end_kernel,
    .split = amx_split_kernel,
    .multiply = amx_multiply_kernel,
    .product = amx_product_kernel,
    .store = amx_store_kernel,
    .finite = amx_finite_kernel,
    .split_rows = amx_split_rows_kernel,
    .split_pairs = amx_split_pairs_kernel,
    .split_turned = amx_split_turned_kernel,
    .store_turned = amx_store_turned_kernel,
    .attention_online = amx_attention_online_kernel,
    .attention_gradient = amx_attention_gradient_kernel,
};
