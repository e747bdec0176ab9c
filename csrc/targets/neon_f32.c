#define VEC_NEON
#define TARGET_ISA neon
#define REAL64 0
#include "target.h"
