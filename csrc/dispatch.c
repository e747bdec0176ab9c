/* dispatch.c: which ISA's kernels run. Compiled for the baseline, so that it runs on any CPU of the architecture. */
#define _GNU_SOURCE
#include "amx.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Tables that this build has: setup.py defines FNN_HAVE_<ISA> for each target its compiler could build. */
#define TARGET(isa)                                                                                                     \
    extern const fnn_kernels fnn_kernels_##isa##_f32, fnn_kernels_##isa##_f64;
TARGET(scalar)
#ifdef FNN_HAVE_AVX2
TARGET(avx2)
#endif
#ifdef FNN_HAVE_AVX512
TARGET(avx512)
#ifdef FNN_HAVE_AMX
extern const fnn_amx_kernels fnn_amx_kernels_f32;
#endif
#endif
#ifdef FNN_HAVE_NEON
TARGET(neon)
#endif
#undef TARGET

#define BOTH(isa) {&fnn_kernels_##isa##_f32, &fnn_kernels_##isa##_f64}
static const fnn_kernels *const tables[FNN_NUM_ISAS][2] = {
    [FNN_ISA_SCALAR] = BOTH(scalar),
#ifdef FNN_HAVE_AVX2
    [FNN_ISA_AVX2] = BOTH(avx2),
#endif
#ifdef FNN_HAVE_AVX512
    [FNN_ISA_AVX512] = BOTH(avx512),
#ifdef FNN_HAVE_AMX
    [FNN_ISA_AMX] = BOTH(avx512), /* and fnn_amx_kernels_f32 */
#endif
#endif
#ifdef FNN_HAVE_NEON
    [FNN_ISA_NEON] = BOTH(neon),
#endif
};

static const char *const names[FNN_NUM_ISAS] = {"scalar", "avx2", "avx512", "amx", "neon"};
static int active = FNN_ISA_SCALAR;
static char reason[200] = "not initialised";
static char refused[100]; /* why the system does not let this process use AMX */

/* For tests: emulated levels run only when asked for. */
#ifdef FNN_AVX512_EMULATED
enum { AVX512_IS_EMULATED = 1 };
#else
enum { AVX512_IS_EMULATED = 0 };
#endif
#ifdef FNN_AMX_EMULATED
enum { AMX_IS_EMULATED = 1 };
#else
enum { AMX_IS_EMULATED = 0 };
#endif

static int is_emulated(int isa) {
    return (isa == FNN_ISA_AVX512 && AVX512_IS_EMULATED) || (isa == FNN_ISA_AMX && AMX_IS_EMULATED);
}

#if defined(__x86_64__)
#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* Register states the operating system saves: without its support an instruction set is present but unusable. */
static unsigned long long enabled_state(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 27))) return 0; /* OSXSAVE */
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (unsigned long long)high << 32 | low;
}

/* Linux saves tiles only for processes that asked: once, for all threads. */
static int amx_permitted(void) {
    static int permitted = -1;
    if (permitted >= 0) return permitted;
    permitted = 0;
#if defined(__linux__) && defined(SYS_arch_prctl)
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18 };
    permitted = syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0;
    if (!permitted) snprintf(refused, sizeof refused, "the system refused AMX's tiles: %s", strerror(errno));
#else
    snprintf(refused, sizeof refused, "this system has no way to ask for AMX's tiles");
#endif
    return permitted;
}

static int machine_has(int isa) {
    if (isa == FNN_ISA_SCALAR) return 1;
    unsigned a, b, c, d, b7, c7, d7;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !__get_cpuid_count(7, 0, &a, &b7, &c7, &d7)) return 0;
    unsigned long long state = enabled_state();
    int fma = c >> 12 & 1, f16c = c >> 29 & 1, avx = c >> 28 & 1, movbe = c >> 22 & 1;
    int bmi1 = b7 >> 3 & 1, avx2 = b7 >> 5 & 1, bmi2 = b7 >> 8 & 1;
    __get_cpuid(0x80000001, &a, &b, &c, &d);
    int lzcnt = c >> 5 & 1;
    int v3 = fma && f16c && avx && movbe && bmi1 && avx2 && bmi2 && lzcnt && (state & 0x6) == 0x6;
    if (isa == FNN_ISA_AVX2) return v3;
    int f = b7 >> 16 & 1, dq = b7 >> 17 & 1, cd = b7 >> 28 & 1, bw = b7 >> 30 & 1, vl = b7 >> 31 & 1;
    int v4 = v3 && (AVX512_IS_EMULATED || (f && dq && cd && bw && vl && (state & 0xE6) == 0xE6));
    if (isa == FNN_ISA_AVX512) return v4;
    if (isa != FNN_ISA_AMX) return 0;
    int amx_bf16 = d7 >> 22 & 1, amx_tile = d7 >> 24 & 1;
    return v4 && (AMX_IS_EMULATED || (amx_bf16 && amx_tile && (state & 0x60000) == 0x60000 && amx_permitted()));
}
#elif defined(__aarch64__)
/* Every CPU of the architecture has Advanced SIMD, as its calling convention needs it. */
static int machine_has(int isa) { return isa == FNN_ISA_SCALAR || isa == FNN_ISA_NEON; }
#else
static int machine_has(int isa) { return isa == FNN_ISA_SCALAR; }
#endif

const char *fnn_isa_names(int isa) { return isa >= 0 && isa < FNN_NUM_ISAS ? names[isa] : NULL; }
int fnn_isa_available(int isa) { return isa >= 0 && isa < FNN_NUM_ISAS && tables[isa][0] && machine_has(isa); }
const char *fnn_isa_name(void) { return names[active]; }
const char *fnn_isa_reason(void) { return reason; }
const fnn_kernels *fnn_kernels_of(int dtype) { return tables[active][dtype == FNN_FLOAT64]; }

const fnn_amx_kernels *fnn_amx(void) {
#ifdef FNN_HAVE_AMX
    if (active == FNN_ISA_AMX) return &fnn_amx_kernels_f32;
#endif
    return NULL;
}

static int isa_of(const char *name) {
    for (int isa = 0; isa < FNN_NUM_ISAS; isa++)
        if (!strcmp(name, names[isa])) return isa;
    return -1;
}

int fnn_set_isa(const char *name) {
    int isa = isa_of(name);
    if (!fnn_isa_available(isa)) return -1;
    active = isa;
    snprintf(reason, sizeof reason, "set_isa(\"%s\")", name);
    return 0;
}

int fnn_dispatch_init(void) {
    const char *cap = getenv("FASTNN_ISA");
    if (cap && *cap) {
        if (fnn_set_isa(cap)) return -1;
        snprintf(reason, sizeof reason, "FASTNN_ISA=%s", cap);
        return 0;
    }
    for (int isa = 0; isa < FNN_NUM_ISAS; isa++)
        if (fnn_isa_available(isa) && !is_emulated(isa)) active = isa;
    int unbuilt = -1;
    for (int isa = active + 1; isa < FNN_NUM_ISAS; isa++)
        if (machine_has(isa) && !tables[isa][0]) unbuilt = isa;
    if (refused[0])
        snprintf(reason, sizeof reason, "the best this process may use; %s", refused);
    else if (unbuilt >= 0)
        snprintf(reason, sizeof reason, "the best this build has; the CPU also offers %s", names[unbuilt]);
    else
        snprintf(reason, sizeof reason, "the best that this CPU, its operating system and this build have");
    return 0;
}

static const char *const kernel_names[] = {
#define KERNEL(name, args) #name,
#include "kernels.def"
#undef KERNEL
};
int fnn_num_kernels(void) { return (int)(sizeof kernel_names / sizeof *kernel_names); }
const char *fnn_kernel_name(int index) { return index >= 0 && index < fnn_num_kernels() ? kernel_names[index] : NULL; }
