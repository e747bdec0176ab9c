/* aarch64.c: runs recorded launches (see aarch64.py) through the engine's door and compares the results: for machines
 * that have no Python at hand, such as an emulated one.
 *
 *     harness CASES ISA      the level asked for by FASTNN_ISA, or by default, must be ISA
 *
 * Each case runs on one thread, on two, and on two in a team that is awake: same bits. Results lie within the case's
 * tolerance of the expected ones; bits that must be those of x86 are. Exit status 1: something differs. */
#define _GNU_SOURCE
#include "fastnn.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SHOWN = 20, TEAM = 2, GUARD = 64, GUARD_BYTE = 0xa5 };

/* What a case asks of the bits: nothing; scalar x86's at the scalar level; AVX2's at the NEON level. */
enum { SCALAR_BITS = 1, VECTOR_BITS = 2 };

typedef struct {
    fnn_tensor shape; /* no data: what infer is told, or what it must find */
    const char *given; /* what an output that the caller gives holds, or NULL */
    int real;
    const char *expected; /* doubles, or 64-bit integers */
    const char *bits[2];  /* as x86's scalar and AVX2 levels stored them; NULL: unknown */
} expectation;

typedef struct {
    const char *label;
    int op, asks, inputs, outputs;
    double tolerance; /* in units of epsilon, against 1 + the largest magnitude of inputs and results; NaN: any */
    double largest;   /* of the inputs */
    fnn_attrs attr;
    fnn_tensor in[FNN_MAX_ARGS];
    int absent[FNN_MAX_ARGS];
    expectation out[FNN_MAX_ARGS];
} test_case;

typedef struct {
    int cases[2], same[2];
    double worst[2]; /* share of the tolerance */
} tally;

static tally tallies[FNN_NUM_OPS];
static int failures, neon;

static void fail(const test_case *c, const char *format, ...) {
    if (failures++ >= MAX_SHOWN) return;
    printf("FAILED %s (%s): ", fnn_ops[c->op].name, c->label);
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
}

/* ---- reading ---- */

static const char *take(const char **at, size_t bytes) {
    const char *here = *at;
    *at += (bytes + 7) & ~(size_t)7;
    return here;
}
static int64_t take_int(const char **at) {
    int64_t value;
    memcpy(&value, take(at, sizeof value), sizeof value);
    return value;
}
static double take_real(const char **at) {
    double value;
    memcpy(&value, take(at, sizeof value), sizeof value);
    return value;
}
static const char *take_text(const char **at) { return take(at, (size_t)take_int(at)); }

static void take_shape(const char **at, fnn_tensor *t) {
    t->dtype = (int32_t)take_int(at);
    t->rank = (int32_t)take_int(at);
    for (int d = 0; d < t->rank; d++) t->shape[d] = take_int(at);
    for (int d = 0; d < t->rank; d++) t->stride[d] = take_int(at);
}

/* Attributes come as integers and as reals; ops.def says which they are: "kernel:2i eps:f". */
static void take_attributes(const char **at, test_case *c) {
    const char *kinds = fnn_ops[c->op].attributes;
    int64_t *integer = c->attr.i;
    double *real = c->attr.f;
    for (int64_t n = take_int(at); n > 0; n--) {
        const char *kind = strchr(kinds, ':') + 1;
        kinds = kind + strspn(kind, "0123456789") + 1;
        for (int64_t k = take_int(at); k > 0; k--) {
            double value = take_real(at);
            if (kinds[-1] == 'f') *real++ = value;
            else *integer++ = (int64_t)value;
        }
    }
}

static int op_called(const char *name) {
    for (int op = 0; op < FNN_NUM_OPS; op++)
        if (!strcmp(fnn_ops[op].name, name)) return op;
    printf("no op is called %s\n", name);
    exit(1);
}

static test_case take_case(const char **at) {
    test_case c = {.label = take_text(at)};
    c.op = op_called(take_text(at));
    c.asks = (int)take_int(at);
    c.tolerance = take_real(at);
    c.largest = take_real(at);
    take_attributes(at, &c);
    c.inputs = (int)take_int(at);
    for (int k = 0; k < c.inputs; k++) {
        c.absent[k] = !take_int(at);
        if (c.absent[k]) continue;
        take_shape(at, &c.in[k]);
        const int64_t first = take_int(at), bytes = take_int(at);
        c.in[k].data = (char *)take(at, (size_t)bytes) + first;
    }
    c.outputs = (int)take_int(at);
    for (int k = 0; k < c.outputs; k++) {
        expectation *e = &c.out[k];
        take_shape(at, &e->shape);
        const size_t n = (size_t)fnn_numel(&e->shape);
        e->given = take_int(at) ? take(at, n * fnn_itemsize(e->shape.dtype)) : NULL;
        e->real = (int)take_int(at);
        e->expected = take(at, 8 * n);
        for (int level = 0; level < 2; level++)
            e->bits[level] = take_int(at) ? take(at, n * fnn_itemsize(e->shape.dtype)) : NULL;
    }
    return c;
}

/* ---- running ---- */

typedef struct {
    const test_case *c;
    fnn_tensor out[FNN_MAX_ARGS];
    void *blocks[FNN_MAX_ARGS];
    int status;
} attempt;

/* Results start as NaN and as integers that no op gives, so that elements left out are seen; given ones as they are.
 * Behind them is a guard, which nothing may touch. */
static void *new_result(fnn_tensor *t, const char *given) {
    ptrdiff_t low, high;
    fnn_bounds(t, &low, &high);
    const size_t size = fnn_itemsize(t->dtype), bytes = (size_t)(high - low + 1) * size;
    char *block = fnn_alloc(bytes + GUARD);
    memset(block + bytes, GUARD_BYTE, GUARD);
    if (given) memcpy(block, given, bytes);
    else memset(block, 0xff, bytes);
    t->data = block - low * (ptrdiff_t)size;
    return block;
}

static void run(void *context) {
    attempt *a = context;
    const test_case *c = a->c;
    fnn_call call = {.op = c->op, .attr = c->attr};
    for (int k = 0; k < c->inputs; k++) call.in[k] = c->absent[k] ? NULL : &c->in[k];
    for (int k = 0; k < c->outputs; k++) {
        a->out[k] = c->out[k].shape;
        if (!c->out[k].given) a->out[k].rank = -1;
        call.out[k] = &a->out[k];
    }
    a->status = fnn_infer(&call);
    for (int k = 0; k < c->outputs && !a->status; k++) a->blocks[k] = new_result(&a->out[k], c->out[k].given);
    if (!a->status) a->status = fnn_run(&call);
    if (a->status) fail(c, "%s", call.message);
}

static void check_guard(const test_case *c, int k, const fnn_tensor *t) {
    ptrdiff_t low, high;
    fnn_bounds(t, &low, &high);
    const unsigned char *guard = fnn_at(t->data, high + 1, t->dtype);
    for (int i = 0; i < GUARD; i++)
        if (guard[i] != GUARD_BYTE) {
            fail(c, "output %d %s %s: written %d bytes beyond", k, fnn_dtype_name(t->dtype), fnn_shape_text(t), i + 1);
            return;
        }
}

static void finish(attempt *a) {
    for (int k = 0; k < a->c->outputs; k++) {
        if (a->blocks[k]) check_guard(a->c, k, &a->out[k]);
        fnn_free(a->blocks[k]);
    }
}

/* ---- comparing ---- */

/* The element's place; its index counts in logical order. */
static const char *element(const fnn_tensor *t, ptrdiff_t index) {
    ptrdiff_t at = 0;
    for (int d = t->rank - 1; d >= 0; d--) at += index % t->shape[d] * t->stride[d], index /= t->shape[d];
    return (const char *)t->data + at * (ptrdiff_t)fnn_itemsize(t->dtype);
}

static double real_at(const char *p, int dtype) {
    double wide;
    float narrow;
    if (dtype == FNN_FLOAT64) return memcpy(&wide, p, sizeof wide), wide;
    return memcpy(&narrow, p, sizeof narrow), (double)narrow;
}

static int64_t integer_at(const char *p, int dtype) {
    int64_t wide;
    int32_t narrow;
    if (dtype == FNN_INT64) return memcpy(&wide, p, sizeof wide), wide;
    if (dtype == FNN_INT32) return memcpy(&narrow, p, sizeof narrow), (int64_t)narrow;
    return *(const unsigned char *)p;
}

static int is_real(int dtype) { return dtype == FNN_FLOAT32 || dtype == FNN_FLOAT64; }

static double number_at(const char *p, int dtype) {
    return is_real(dtype) ? real_at(p, dtype) : (double)integer_at(p, dtype);
}

/* Whatever NaN it is: architectures make different ones. */
static int same(const char *p, const char *q, int dtype) {
    if (!memcmp(p, q, fnn_itemsize(dtype))) return 1;
    return is_real(dtype) && isnan(real_at(p, dtype)) && isnan(real_at(q, dtype));
}

/* The largest error over the largest allowed. */
static double error_of(const test_case *c, const expectation *e, const fnn_tensor *t) {
    const double epsilon = t->dtype == FNN_FLOAT64 ? 0x1p-52 : 0x1p-23;
    const ptrdiff_t n = fnn_numel(t);
    double largest = c->largest, worst = 0;
    for (ptrdiff_t i = 0; i < n && e->real; i++) {
        const double x = real_at(e->expected + 8 * i, FNN_FLOAT64);
        if (isfinite(x)) largest = fmax(largest, fabs(x));
    }
    const double limit = c->tolerance * epsilon * (1 + largest);
    for (ptrdiff_t i = 0; i < n; i++) {
        if (!e->real) {
            if (integer_at(element(t, i), t->dtype) != integer_at(e->expected + 8 * i, FNN_INT64)) return INFINITY;
            continue;
        }
        double x = real_at(element(t, i), t->dtype), y = real_at(e->expected + 8 * i, FNN_FLOAT64);
        if (t->dtype == FNN_FLOAT32 && c->tolerance == 0) y = (float)y;
        if (x == y || (isnan(x) && isnan(y))) continue;
        worst = fmax(worst, isfinite(x) && isfinite(y) && limit > 0 ? fabs(x - y) / limit : INFINITY);
    }
    return worst;
}

static void check_output(const test_case *c, int k, const fnn_tensor *t, int *bits_agree) {
    const expectation *e = &c->out[k];
    tally *sums = &tallies[c->op];
    const int wide = c->in[0].dtype == FNN_FLOAT64 || t->dtype == FNN_FLOAT64;
    if (t->dtype != e->shape.dtype || !fnn_same_shape(t, &e->shape)) {
        fail(c, "output %d is %s %s, expected %s %s", k, fnn_dtype_name(t->dtype), fnn_shape_text(t),
             fnn_dtype_name(e->shape.dtype), fnn_shape_text(&e->shape));
        return;
    }
    if (!isnan(c->tolerance)) {
        const double error = error_of(c, e, t);
        sums->worst[wide] = fmax(sums->worst[wide], error);
        if (!(error <= 1))
            fail(c, "output %d %s %s: error %g of the tolerance", k, fnn_dtype_name(t->dtype), fnn_shape_text(t),
                 error);
    }
    const char *bits = e->bits[neon];
    if (!bits) return;
    const ptrdiff_t size = (ptrdiff_t)fnn_itemsize(t->dtype);
    for (ptrdiff_t i = 0; i < fnn_numel(t); i++) {
        if (same(element(t, i), bits + i * size, t->dtype)) continue;
        *bits_agree = 0;
        if (!(c->asks & (neon ? VECTOR_BITS : SCALAR_BITS))) return;
        fail(c, "output %d %s %s: element %td is %.17g, on x86 %.17g", k, fnn_dtype_name(t->dtype), fnn_shape_text(t),
             i, number_at(element(t, i), t->dtype), number_at(bits + i * size, t->dtype));
        return;
    }
}

static void check_same(const attempt *a, const attempt *b, const char *what) {
    for (int k = 0; k < a->c->outputs && !a->status && !b->status; k++)
        for (ptrdiff_t i = 0; i < fnn_numel(&a->out[k]); i++)
            if (!same(element(&a->out[k], i), element(&b->out[k], i), a->out[k].dtype)) {
                fail(a->c, "output %d %s: %s gives other bits", k, fnn_shape_text(&a->out[k]), what);
                return;
            }
}

static void check(const test_case *c) {
    attempt alone = {.c = c}, region = {.c = c}, team = {.c = c};
    fnn_set_num_threads(1);
    run(&alone);
    fnn_set_num_threads(TEAM);
    run(&region);
    fnn_team_run(run, &team);
    int agree = 1;
    for (int k = 0; k < c->outputs && !alone.status; k++) check_output(c, k, &alone.out[k], &agree);
    const int wide = c->in[0].dtype == FNN_FLOAT64 || c->out[0].shape.dtype == FNN_FLOAT64;
    tallies[c->op].cases[wide]++;
    tallies[c->op].same[wide] += agree;
    check_same(&alone, &region, "a region of two threads");
    check_same(&alone, &team, "a team of two threads");
    finish(&alone), finish(&region), finish(&team);
}

/* ---- denormals: float32 calls flush them on every thread, float64 calls do not, the caller's mode is restored ---- */

static volatile double tiny = 0x1p-1060;

static void check_denormals(void) {
    enum { N = 100000 };
    static float a[N], y[N];
    static double b[N], z[N];
    for (int i = 0; i < N; i++) a[i] = 0x1p-70f, b[i] = 0x1p-530;
    const test_case c = {.label = "denormals", .op = FNN_OP_mul};
    fnn_tensor narrow = {.data = a, .dtype = FNN_FLOAT32, .rank = 1, .shape = {N}, .stride = {1}}, to = narrow;
    fnn_tensor wide = {.data = b, .dtype = FNN_FLOAT64, .rank = 1, .shape = {N}, .stride = {1}}, wide_to = wide;
    fnn_call call = {.op = FNN_OP_mul, .in = {&narrow, &narrow}, .out = {&to}};
    fnn_call wide_call = {.op = FNN_OP_mul, .in = {&wide, &wide}, .out = {&wide_to}};
    if (fnn_infer(&call) || fnn_infer(&wide_call)) fail(&c, "not inferred");
    to.data = y, wide_to.data = z;
    for (int threads = 1; threads <= TEAM; threads++) {
        memset(y, 0xff, sizeof y);
        fnn_set_num_threads(threads);
        if (fnn_run(&call) || tiny * 0.5 == 0 || fnn_run(&wide_call)) fail(&c, "the caller's mode is not restored");
        for (int i = 0; i < N; i++)
            if (y[i] != 0 || z[i] != 0x1p-1060) {
                fail(&c, "%d threads: element %d is %g, in float64 %g", threads, i, (double)y[i], z[i]);
                break;
            }
    }
}

static void report_line(const char *name, const tally *t) {
    printf("%-34s %8d %8d %8.3f %8.3f %13d %13d\n", name, t->cases[0], t->cases[1], t->worst[0], t->worst[1],
           t->same[0], t->same[1]);
}

static void report(const char *isa) {
    printf("%-34s %17s %17s %27s\n", isa, "cases", "worst error", neon ? "AVX2's bits" : "scalar x86's bits");
    printf("%-34s %8s %8s %8s %8s %13s %13s\n", "op", "float32", "float64", "float32", "float64", "float32", "float64");
    tally all = {0};
    for (int op = 0; op < FNN_NUM_OPS; op++) {
        const tally *t = &tallies[op];
        if (!t->cases[0] && !t->cases[1]) continue;
        report_line(fnn_ops[op].name, t);
        for (int w = 0; w < 2; w++) {
            all.cases[w] += t->cases[w], all.same[w] += t->same[w];
            all.worst[w] = fmax(all.worst[w], t->worst[w]);
        }
    }
    report_line("all", &all);
}

static char *contents(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END)) return NULL;
    *size = (size_t)ftell(f);
    rewind(f);
    char *bytes = malloc(*size);
    if (bytes && fread(bytes, 1, *size, f) != *size) bytes = NULL;
    fclose(f);
    return bytes;
}

static int refuse(const char *why) {
    printf("harness: %s (level %s: %s)\n", why, fnn_isa_name(), fnn_isa_reason());
    return 2;
}

int main(int count, char **arguments) {
    size_t size = 0;
    const char *bytes = count == 3 ? contents(arguments[1], &size) : NULL, *at = bytes;
    if (!bytes) return refuse("needs a file of cases and the level that should run");
    fnn_launch_init();
    if (fnn_dispatch_init()) return refuse("FASTNN_ISA names what is not there");
    if (fnn_parallel_init()) return refuse("FASTNN_NUM_THREADS is no number of threads");
    if (strcmp(fnn_isa_name(), arguments[2])) return refuse("another level runs");
    neon = !strcmp(fnn_isa_name(), "neon");
    fnn_set_thread_policy(1);
    while (at < bytes + size) {
        const test_case c = take_case(&at);
        check(&c);
    }
    check_denormals();
    report(arguments[2]);
    printf("%s: %s; OpenMP %s; %d failures\n", arguments[2], fnn_isa_reason(), fnn_has_openmp() ? "yes" : "no",
           failures);
    return failures != 0;
}
