#define VEC_SCALAR
#define TARGET_ISA scalar
#define REAL64 1
#include "target.h"
