#define VEC_SCALAR
#define TARGET_ISA scalar
#define REAL64 0
#include "target.h"
