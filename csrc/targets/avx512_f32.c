#define VEC_AVX512
#define TARGET_ISA avx512
#define REAL64 0
#include "target.h"
