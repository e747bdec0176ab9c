#define VEC_NEON
#define TARGET_ISA neon
#define REAL64 1
#include "target.h"
