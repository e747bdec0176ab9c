/* target.h: the body of every target. The file that includes it defines VEC_<ISA>, TARGET_ISA and REAL64; setup.py
 * compiles it with that ISA's flags. All is static but the table, so that no function compiled for one ISA can be linked
 * into another's path. */
#include "../fastnn.h"
#include "../simd/vec.h"

#include "../kernels/elementwise.h"
#include "../kernels/random.h"
#include "../kernels/stream.h"
#include "../kernels/planes.h"
#include "../kernels/gemm.h"
#include "../kernels/gemm_sparse.h"
#include "../kernels/reduce.h"
#include "../kernels/scan.h"
#include "../kernels/index.h"
#include "../kernels/integer.h"
#include "../kernels/batch_norm.h"
#include "../kernels/pool.h"
#include "../kernels/fractional_pool.h"
#include "../kernels/conv.h"
#include "../kernels/conv_narrow.h"
#include "../kernels/conv_few.h"
#include "../kernels/conv_taps.h"
#include "../kernels/conv_blocks.h"
#include "../kernels/conv_depthwise.h"
#include "../kernels/conv_depthwise_gradient.h"
#include "../kernels/winograd.h"
#include "../kernels/winograd5.h"
#include "../kernels/softmax.h"
#include "../kernels/cross_entropy.h"
#include "../kernels/ctc_loss.h"
#include "../kernels/multilabel_margin.h"
#include "../kernels/embedding_bag.h"
#include "../kernels/cdist.h"
#include "../kernels/layer_norm.h"
#include "../kernels/attention.h"
#include "../kernels/recurrent.h"
#include "../kernels/resample.h"
#include "../kernels/grid_sample.h"
#include "../kernels/augment.h"

#define CAT_(isa, type) fnn_kernels_##isa##_##type
#define CAT(isa, type) CAT_(isa, type)
#define STR_(a) #a
#define STR(a) STR_(a)
#if REAL64
#define TABLE CAT(TARGET_ISA, f64)
#else
#define TABLE CAT(TARGET_ISA, f32)
#endif

const fnn_kernels TABLE = {
    .isa = STR(TARGET_ISA),
    .dtype = REAL64 ? FNN_FLOAT64 : FNN_FLOAT32,
    .lanes = LANES,
    .tile_rows = TILE_ROWS,
    .tile_cols = TILE_COLS,
    .triple_cols = TRIPLE_COLS,
    .best_rows = WIDE_FIRST ? WIDE_ROWS : TILE_ROWS,
    .best_cols = WIDE_FIRST ? WIDE_VECS * LANES : TILE_COLS,
#define KERNEL(name, args) .name = name##_kernel,
#include "../kernels.def"
#undef KERNEL
};
