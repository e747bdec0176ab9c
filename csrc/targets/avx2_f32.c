#define VEC_AVX2
#define TARGET_ISA avx2
#define REAL64 0
#include "target.h"
