/* elementwise.c: the one driver of all elementwise ops: broadcasting, strides, chunks. */
#include "nest.h"

#include <string.h>

enum {
    CHUNK = 16384, /* elements a chunk: 64 KB of float32 per operand */
    BLOCK = 256    /* elements staged at a time when an operand is strided */
};

typedef struct {
    fnn_nest nest;
    const double *attr;
    void (*kernel) FNN_ELEMENTWISE_ARGS;
    int inputs, outputs;
    int any_staged;
    int slot[FNN_MAX_ARGS]; /* which input each operand after the outputs is */
    const void *scalar[FNN_MAX_ARGS];
    char staged[FNN_MAX_ARGS]; /* operands that reach the kernel through scratch */
} plan;

static int count(const void *const *arguments) {
    int n = 0;
    while (n < FNN_MAX_ARGS && arguments[n]) n++;
    return n;
}

static int count_outputs(const fnn_call *call) { return count((const void *const *)call->out); }
static int count_inputs(const fnn_call *call) { return count((const void *const *)call->in); }

/* A ":scalar" input reaches the kernel as it is and takes no part in broadcasting. */
static int is_scalar(const fnn_call *call, int k) { return fnn_scalar_inputs(call->op) >> k & 1; }

/* The type the kernel computes in: that of the first real argument. */
static int real_dtype(const fnn_call *call, int inputs) {
    for (int k = 0; k < inputs; k++)
        if (call->in[k]->dtype <= FNN_FLOAT64 && !is_scalar(call, k)) return call->in[k]->dtype;
    return FNN_FLOAT32;
}

/* The dtype after the colon in the k-th output's specification, or `real`. */
static int output_dtype(const char *outputs, int k, int real) {
    for (; k > 0; k--) outputs = strchr(outputs, ',') + 1;
    const char *colon = memchr(outputs, ':', strcspn(outputs, ","));
    return colon && !strncmp(colon + 1, "bool", 4) ? FNN_BOOL : real;
}

static int infer(fnn_call *call) {
    int rank, inputs = count_inputs(call);
    ptrdiff_t shape[FNN_MAX_RANK];
    int status = fnn_broadcast(call, inputs, &rank, shape);
    if (status) return status;
    for (int k = 0, n = count_outputs(call); k < n; k++)
        fnn_set_shape(call->out[k], output_dtype(fnn_ops[call->op].outputs, k, real_dtype(call, inputs)), rank, shape);
    return FNN_OK;
}

static void make_plan(const fnn_call *call, plan *p) {
    const fnn_tensor *operand[FNN_MAX_ARGS];
    int inputs = count_inputs(call), operands = p->outputs = count_outputs(call);
    for (int k = 0; k < operands; k++) operand[k] = call->out[k];
    for (int k = 0; k < inputs; k++) {
        p->scalar[k] = is_scalar(call, k) ? call->in[k]->data : NULL;
        if (p->scalar[k]) continue;
        p->slot[operands] = k;
        operand[operands++] = call->in[k];
    }
    p->inputs = inputs;
    fnn_nest_build(&p->nest, operand, operands);
    p->attr = call->attr.f;
    memcpy(&p->kernel, (const char *)fnn_kernels_of(real_dtype(call, inputs)) + fnn_ops[call->op].kernel, sizeof p->kernel);
    p->any_staged = 0;
    for (int k = 0; k < operands; k++) {
        ptrdiff_t step = p->nest.stride[k][p->nest.rank - 1];
        int repeats = step == 0 && k >= p->outputs && inputs == 2; /* kernels of two inputs repeat an element themselves */
        p->staged[k] = step != 1 && !repeats;
        p->any_staged |= p->staged[k];
    }
}

static void move_strided(char *to, ptrdiff_t to_step, const char *from, ptrdiff_t from_step, ptrdiff_t n, size_t size) {
#define MOVE(type)                                                                                                      \
    for (ptrdiff_t i = 0; i < n; i++) ((type *)to)[i * to_step] = ((const type *)from)[i * from_step];                  \
    break
    switch (size) {
    case 1: MOVE(uint8_t);
    case 4: MOVE(uint32_t);
    case 8: MOVE(uint64_t);
    }
#undef MOVE
}

/* n elements along the inner dimension from `at` on, at most BLOCK of them when an operand is staged. */
static void run_block(const plan *p, char *const *at, ptrdiff_t n, char *scratch) {
    void *out[FNN_MAX_ARGS];
    const void *in[FNN_MAX_ARGS];
    ptrdiff_t step[FNN_MAX_ARGS];
    const fnn_nest *nest = &p->nest;
    int inner = nest->rank - 1;
    for (int k = 0; k < nest->operands; k++) {
        char *here = p->staged[k] ? scratch + k * BLOCK * (ptrdiff_t)sizeof(double) : at[k];
        ptrdiff_t stride = nest->stride[k][inner];
        if (k < p->outputs) {
            out[k] = here;
            continue;
        }
        if (p->staged[k]) move_strided(here, 1, at[k], stride, n, nest->itemsize[k]);
        in[p->slot[k]] = here;
        step[p->slot[k]] = p->staged[k] ? 1 : stride;
    }
    for (int k = 0; k < p->inputs; k++)
        if (p->scalar[k]) in[k] = p->scalar[k];
    p->kernel(n, out, in, step, p->attr);
    for (int k = 0; k < p->outputs; k++)
        if (p->staged[k]) move_strided(at[k], nest->stride[k][inner], out[k], 1, n, nest->itemsize[k]);
}

static void run_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const fnn_nest *nest = &p->nest;
    int last = nest->rank - 1;
    ptrdiff_t from = chunk * CHUNK, to = fnn_min(from + CHUNK, nest->size), inner = nest->shape[last];
    char *at[FNN_MAX_ARGS];
    while (from < to) {
        ptrdiff_t n = fnn_min(inner - from % inner, to - from);
        fnn_nest_seek(nest, from, at);
        from += n;
        for (ptrdiff_t m; n > 0; n -= m) {
            m = p->any_staged ? fnn_min(n, BLOCK) : n;
            run_block(p, at, m, scratch);
            for (int k = 0; k < nest->operands; k++) at[k] += m * nest->stride[k][last] * (ptrdiff_t)nest->itemsize[k];
        }
    }
}

static void workspace(const fnn_call *call, fnn_workspace *ws) {
    plan p;
    make_plan(call, &p);
    if (p.any_staged) ws->scratch = sizeof(double) * BLOCK * FNN_MAX_ARGS;
}

/* out[]: the broadcast shape of in[]; chunks of CHUNK elements, whatever the strides. */
static int run(fnn_call *call) {
    plan p;
    make_plan(call, &p);
    fnn_parallel_for(call, fnn_ceil_div(p.nest.size, CHUNK), fnn_cost(call), run_chunk, &p);
    return FNN_OK;
}

const fnn_driver fnn_elementwise = {.infer = infer, .workspace = workspace, .run = run};
