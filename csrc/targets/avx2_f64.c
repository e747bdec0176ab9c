#define VEC_AVX2
#define TARGET_ISA avx2
#define REAL64 1
#include "target.h"
