/* copy.c: copy (any layout to any layout, any dtype to any dtype), contiguous, fill, ramp. */
#include "nest.h"
#include "order.h"

#include <math.h>
#include <string.h>

enum {
    CHUNK = 16384,
    TILE = 32,
    SHORT = 256, /* elements of a row: more are a matter for memcpy */
    STRIP = 64   /* positions across, where registers are turned: whole lines, asked for in time */
};

/* ---- n elements from one stride and dtype to another ---- */

#define CONVERT(to_type, from_type, value)                                                                              \
    for (ptrdiff_t i = 0; i < n; i++) {                                                                                 \
        from_type v = ((const from_type *)from)[i * from_step];                                                         \
        ((to_type *)to)[i * to_step] = (to_type)(value);                                                                \
    }                                                                                                                   \
    return

#define FROM_REAL(type)                                                                                                 \
    switch (to_dtype) {                                                                                                 \
    case FNN_FLOAT32: CONVERT(float, type, v);                                                                          \
    case FNN_FLOAT64: CONVERT(double, type, v);                                                                         \
    case FNN_INT64: CONVERT(int64_t, type, fnn_saturate(v, INT64_MIN, INT64_MAX));                                          \
    case FNN_INT32: CONVERT(int32_t, type, fnn_saturate(v, INT32_MIN, INT32_MAX));                                          \
    case FNN_UINT8: CONVERT(uint8_t, type, fnn_saturate(v, 0, 255));                                                        \
    case FNN_BOOL: CONVERT(uint8_t, type, v != 0);                                                                      \
    }                                                                                                                   \
    return
#define FROM_INTEGER(type)                                                                                              \
    switch (to_dtype) {                                                                                                 \
    case FNN_FLOAT32: CONVERT(float, type, v);                                                                          \
    case FNN_FLOAT64: CONVERT(double, type, v);                                                                         \
    case FNN_INT64: CONVERT(int64_t, type, v);                                                                          \
    case FNN_INT32: CONVERT(int32_t, type, v);                                                                          \
    case FNN_UINT8: CONVERT(uint8_t, type, v);                                                                          \
    case FNN_BOOL: CONVERT(uint8_t, type, v != 0);                                                                      \
    }                                                                                                                   \
    return

/* n elements alike: the first is there. */
static void repeat(void *to, ptrdiff_t step, ptrdiff_t n, size_t size) {
    uint64_t value = 0;
    if (size == 1) value = *(uint8_t *)to;
    else if (size == 4) value = *(uint32_t *)to;
    else value = *(uint64_t *)to;
#define REPEAT(type)                                                                                                    \
    for (ptrdiff_t i = 0; i < n; i++) ((type *)to)[i * step] = (type)value;                                             \
    return
    switch (size) {
    case 1: REPEAT(uint8_t);
    case 4: REPEAT(uint32_t);
    default: REPEAT(uint64_t);
    }
#undef REPEAT
}

static void convert(int to_dtype, void *to, ptrdiff_t to_step, int from_dtype, const void *from, ptrdiff_t from_step, ptrdiff_t n) {
    if (from_step == 0 && n > 1) {
        convert(to_dtype, to, 1, from_dtype, from, 1, 1);
        repeat(to, to_step, n, fnn_itemsize(to_dtype));
        return;
    }
    if (to_dtype == FNN_INT64 && from_dtype <= FNN_FLOAT64 && to_step == 1 && from_step == 1) {
        fnn_kernels_of(from_dtype)->to_int64(n, from, to);
        return;
    }
    if (to_dtype == from_dtype) {
        fnn_move_strided(to, to_step, from, from_step, n, fnn_itemsize(to_dtype));
        return;
    }
    switch (from_dtype) {
    case FNN_FLOAT32: FROM_REAL(float);
    case FNN_FLOAT64: FROM_REAL(double);
    case FNN_INT64: FROM_INTEGER(int64_t);
    case FNN_INT32: FROM_INTEGER(int32_t);
    case FNN_UINT8:
    case FNN_BOOL: FROM_INTEGER(uint8_t);
    }
}

/* Past the caches. */
static void transfer(const fnn_kernels *K, ptrdiff_t bytes, void *to, const void *from) {
    fnn_transfer t = fnn_transfer_of(to, from, bytes);
    K->transfer(&t);
}

/* ---- copy ---- */

typedef struct {
    fnn_nest nest;
    int to, from;      /* dtypes */
    int tiled;         /* the source is contiguous along another dimension than the result: work in square tiles */
    int across;        /* that dimension */
    ptrdiff_t strip;   /* positions along it that go together */
    ptrdiff_t columns; /* strips along it */
    int turned;        /* numbers of 4 or 8 bytes, whatever they mean, as registers of reals */
    ptrdiff_t outer;   /* elements over all dimensions but `across` and the last */
    const fnn_kernels *K;
    int streamed;      /* plain runs of bytes into a large result: past the caches */
    int moved;         /* rows that are short and dense in both: the dtype of as many bytes that moves; -1: they are not */
    void (*rows)(ptrdiff_t, ptrdiff_t, ptrdiff_t, const void *, ptrdiff_t, ptrdiff_t, void *, const ptrdiff_t *, ptrdiff_t);
} copy_plan;

static void run_copy(void *context, ptrdiff_t chunk, void *scratch) {
    (void)scratch;
    const copy_plan *p = context;
    const fnn_nest *nest = &p->nest;
    int last = nest->rank - 1;
    char *at[FNN_MAX_ARGS], *start[2] = {NULL, NULL}; /* of the present row */
    const ptrdiff_t inner = nest->shape[last], rows = last ? nest->shape[last - 1] : 1;
    ptrdiff_t from = chunk * CHUNK, end = fnn_min(from + CHUNK, nest->size), row = rows, n;
    for (; from < end; from += n) {
        if (row == rows) {
            n = fnn_nest_run(nest, from, end, at);
            row = from / inner % rows;
            for (int k = 0; k < 2; k++) start[k] = at[k] - from % inner * nest->stride[k][last] * (ptrdiff_t)nest->itemsize[k];
        } else {
            n = fnn_min(inner, end - from);
            for (int k = 0; k < 2; k++) at[k] = start[k] += nest->stride[k][last - 1] * (ptrdiff_t)nest->itemsize[k];
        }
        row++;
        const ptrdiff_t whole = n == inner ? fnn_min(rows - row + 1, (end - from) / inner) : 0;
        if (p->moved >= 0 && whole > 1) { /* several at once */
            const ptrdiff_t step[2] = {nest->stride[0][last - 1], nest->stride[1][last - 1]};
            p->rows(1, whole, inner, at[1], step[1], 1, at[0], NULL, step[0]);
            for (int k = 0; k < 2; k++) start[k] = fnn_at(at[k], (whole - 1) * step[k], p->moved);
            n = whole * inner, row += whole - 1;
            continue;
        }
        if (p->streamed) transfer(p->K, n * (ptrdiff_t)nest->itemsize[0], at[0], at[1]);
        else convert(p->to, at[0], nest->stride[0][last], p->from, at[1], nest->stride[1][last], n);
    }
    if (p->streamed) p->K->stream_end();
}

/* One strip of positions along `across`, all of the last dimension, at one place of the others. The strip is walked in tiles, so
 * that the lines read across are used up while they are in cache. */
static void run_copy_tiled(void *context, ptrdiff_t chunk, void *scratch) {
    (void)scratch;
    const copy_plan *p = context;
    const fnn_nest *nest = &p->nest;
    int last = nest->rank - 1, across = p->across;
    ptrdiff_t column = chunk % p->columns * p->strip, index = chunk / p->columns;
    ptrdiff_t wide = fnn_min(p->strip, nest->shape[across] - column), shift[2] = {0, 0};
    for (int d = last - 1; d >= 0; d--) {
        if (d == across) continue;
        for (int k = 0; k < 2; k++) shift[k] += index % nest->shape[d] * nest->stride[k][d];
        index /= nest->shape[d];
    }
    if (p->turned) {
        int moved = nest->itemsize[0] == 8 ? FNN_FLOAT64 : FNN_FLOAT32;
        const void *from = fnn_at(nest->data[1], shift[1] + column * nest->stride[1][across], moved);
        void *to = fnn_at(nest->data[0], shift[0] + column * nest->stride[0][across], moved);
        fnn_kernels_of(moved)->conv_pack(1, wide, nest->shape[last], from, nest->stride[1][across], nest->stride[1][last], to, NULL,
                                         nest->stride[0][across]);
        return;
    }
    for (ptrdiff_t row = 0; row < nest->shape[last]; row += TILE) {
        ptrdiff_t n = fnn_min(TILE, nest->shape[last] - row);
        for (ptrdiff_t c = column; c < column + wide; c++) {
            ptrdiff_t to = shift[0] + c * nest->stride[0][across] + row * nest->stride[0][last];
            ptrdiff_t from = shift[1] + c * nest->stride[1][across] + row * nest->stride[1][last];
            convert(p->to, nest->data[0] + to * (ptrdiff_t)nest->itemsize[0], nest->stride[0][last], p->from,
                    nest->data[1] + from * (ptrdiff_t)nest->itemsize[1], nest->stride[1][last], n);
        }
    }
}

/* Pixels of few channels and planes, one for each channel: in the result and the source, or in the source and the result. */
typedef struct {
    fnn_nest nest;
    int moved;               /* the dtype of as many bytes that moves */
    int joins;               /* planes to pixels */
    int pixel, channel;      /* dimensions */
    ptrdiff_t block, blocks; /* pixels a chunk, and chunks along them */
} planes_plan;

/* Whether operand k holds dense pixels, and the other planes. */
static int are_planes(const fnn_nest *nest, int k, int pixel, int channel) {
    return nest->stride[k][channel] == 1 && nest->stride[k][pixel] == nest->shape[channel] && nest->stride[1 - k][pixel] == 1;
}

/* Whether there are planes to be joined or split; the result's order of dimensions is the nest's. */
static int plan_planes(const copy_plan *copy, planes_plan *p) {
    const fnn_nest *nest = &copy->nest;
    const int last = nest->rank - 1;
    if (last < 1 || copy->to != copy->from || (nest->itemsize[0] != 4 && nest->itemsize[0] != 8)) return 0;
    *p = (planes_plan){.nest = *nest, .moved = nest->itemsize[0] == 8 ? FNN_FLOAT64 : FNN_FLOAT32};
    for (int joins = 0; joins < 2; joins++) {
        const int pixel = joins ? last - 1 : last, channel = joins ? last : last - 1;
        if (nest->shape[channel] < 2 || nest->shape[channel] > FNN_FEW_PLANES) continue;
        if (!are_planes(nest, !joins, pixel, channel)) continue;
        p->joins = joins, p->pixel = pixel, p->channel = channel;
        p->block = CHUNK / nest->shape[channel];
        p->blocks = fnn_ceil_div(nest->shape[pixel], p->block);
        return 1;
    }
    return 0;
}

static void run_planes(void *context, ptrdiff_t chunk, void *scratch) {
    (void)scratch;
    const planes_plan *p = context;
    const fnn_nest *nest = &p->nest;
    const ptrdiff_t from = chunk % p->blocks * p->block, planes = nest->shape[p->channel];
    const ptrdiff_t image = chunk / p->blocks * nest->shape[p->pixel] * planes;
    const ptrdiff_t n = fnn_min(p->block, nest->shape[p->pixel] - from);
    char *at[FNN_MAX_ARGS];
    fnn_nest_seek(nest, image, at);
    char *to = fnn_at(at[0], from * nest->stride[0][p->pixel], p->moved);
    const char *source = fnn_at(at[1], from * nest->stride[1][p->pixel], p->moved);
    if (p->joins) fnn_kernels_of(p->moved)->planes_join(n, planes, source, nest->stride[1][p->channel], to);
    else fnn_kernels_of(p->moved)->planes_split(n, planes, source, to, nest->stride[0][p->channel]);
}

static int copy_infer(fnn_call *call) {
    int dtype = (int)call->attr.i[0];
    if (dtype >= FNN_NUM_DTYPES)
        return fnn_fail(call, FNN_VALUE_ERROR, "attribute 'dtype' is %d, but there are %d dtypes", dtype, FNN_NUM_DTYPES);
    fnn_set_shape(call->out[0], dtype < 0 ? call->in[0]->dtype : dtype, call->in[0]->rank, call->in[0]->shape);
    return FNN_OK;
}

/* y: any layout and dtype; x: the same shape. */
static int copy_run(fnn_call *call) {
    copy_plan p = {.to = call->out[0]->dtype, .from = call->in[0]->dtype, .K = fnn_kernels_of(FNN_FLOAT32)};
    const fnn_tensor *operand[2] = {call->out[0], call->in[0]};
    fnn_nest_build(&p.nest, operand, 2);
    planes_plan planes;
    if (p.nest.size && plan_planes(&p, &planes)) {
        const ptrdiff_t images = p.nest.size / p.nest.shape[planes.pixel] / p.nest.shape[planes.channel];
        fnn_parallel_for(call, images * planes.blocks, fnn_cost(call), run_planes, &planes);
        return FNN_OK;
    }
    int last = p.nest.rank - 1;
    for (int d = 0; d < last && !p.tiled; d++)
        if (p.nest.stride[1][d] == 1 && p.nest.stride[1][last] > 1 && p.nest.shape[d] >= 4 && p.nest.shape[last] >= 2)
            p.tiled = 1, p.across = d;
    if (!p.tiled) {
        const int dense = p.to == p.from && p.nest.stride[0][last] == 1 && p.nest.stride[1][last] == 1 && p.nest.shape[last] <= SHORT;
        p.moved = dense && last && p.nest.itemsize[0] >= 4 ? p.nest.itemsize[0] == 8 ? FNN_FLOAT64 : FNN_FLOAT32 : -1;
        if (p.moved >= 0) p.rows = fnn_kernels_of(p.moved)->conv_pack;
        p.streamed = p.to == p.from && p.nest.stride[0][last] == 1 && p.nest.stride[1][last] == 1
                     && p.nest.shape[last] >= TILE * TILE && p.nest.size * (ptrdiff_t)p.nest.itemsize[0] >= FNN_STREAM_BYTES;
        fnn_parallel_for(call, fnn_ceil_div(p.nest.size, CHUNK), fnn_cost(call), run_copy, &p);
        return FNN_OK;
    }
    p.turned = p.to == p.from && p.nest.stride[0][last] == 1 && p.nest.itemsize[0] >= 4;
    p.strip = p.turned ? STRIP : TILE;
    p.columns = fnn_ceil_div(p.nest.shape[p.across], p.strip);
    p.outer = p.nest.size / p.nest.shape[p.across] / p.nest.shape[last];
    fnn_parallel_for(call, p.columns * p.outer, 2 * fnn_cost(call), run_copy_tiled, &p);
    return FNN_OK;
}

const fnn_driver fnn_copy = {.infer = copy_infer, .run = copy_run};

static int contiguous_infer(fnn_call *call) {
    fnn_set_shape_contiguous(call->out[0], call->in[0]->dtype, call->in[0]->rank, call->in[0]->shape);
    return FNN_OK;
}

/* y: x in C order, whatever the rank. */
const fnn_driver fnn_contiguous = {.infer = contiguous_infer, .run = copy_run};

/* ---- fill ---- */

typedef struct {
    fnn_nest nest;
    int dtype;
    double value;
    int clear;         /* its bytes are all 0 */
    const fnn_kernels *K;
    int streamed;
} fill_plan;

/* A block of the value, copied past the caches again and again. */
static void stream_value(const fill_plan *p, char *to, ptrdiff_t n) {
    char block[4096];
    ptrdiff_t size = (ptrdiff_t)p->nest.itemsize[0], many = (ptrdiff_t)sizeof block / size;
    convert(p->dtype, block, 1, FNN_FLOAT64, &p->value, 0, many);
    for (ptrdiff_t i = 0; i < n; i += many) transfer(p->K, fnn_min(many, n - i) * size, to + i * size, block);
}

static void run_fill(void *context, ptrdiff_t chunk, void *scratch) {
    (void)scratch;
    const fill_plan *p = context;
    const fnn_nest *nest = &p->nest;
    int last = nest->rank - 1;
    char *at[FNN_MAX_ARGS];
    for (ptrdiff_t from = chunk * CHUNK, end = fnn_min(from + CHUNK, nest->size), n; from < end; from += n) {
        n = fnn_nest_run(nest, from, end, at);
        if (p->streamed) stream_value(p, at[0], n);
        else if (p->clear && nest->stride[0][last] == 1) memset(at[0], 0, (size_t)n * nest->itemsize[0]);
        else convert(p->dtype, at[0], nest->stride[0][last], FNN_FLOAT64, &p->value, 0, n);
    }
    if (p->streamed) p->K->stream_end();
}

static int fill_infer(fnn_call *call) {
    if (call->out[0]->rank >= 0) return FNN_OK;
    return fnn_fail(call, FNN_TYPE_ERROR, "writes into an output that the caller gives");
}

/* y[...] = value; y is always given by the caller. */
static int fill_run(fnn_call *call) {
    double value = call->attr.f[0];
    fill_plan p = {.dtype = call->out[0]->dtype, .value = value, .clear = value == 0 && !signbit(value),
                   .K = fnn_kernels_of(FNN_FLOAT32)};
    const fnn_tensor *operand[1] = {call->out[0]};
    fnn_nest_build(&p.nest, operand, 1);
    int last = p.nest.rank - 1;
    p.streamed = p.nest.stride[0][last] == 1 && p.nest.shape[last] >= TILE * TILE
                 && p.nest.size * (ptrdiff_t)p.nest.itemsize[0] >= FNN_STREAM_BYTES;
    fnn_parallel_for(call, fnn_ceil_div(p.nest.size, CHUNK), fnn_cost(call), run_fill, &p);
    return FNN_OK;
}

const fnn_driver fnn_fill = {.infer = fill_infer, .run = fill_run};

/* ---- ramp ---- */

typedef struct {
    fnn_tensor *y;
    double start, step;
    int64_t first, by;
} ramp_plan;

static void run_ramp(void *context, ptrdiff_t chunk, void *scratch) {
    const ramp_plan *p = context;
    const ptrdiff_t from = chunk * CHUNK, to = fnn_min(from + CHUNK, p->y->shape[0]), stride = p->y->stride[0];
    (void)scratch;
#define RAMP(type, value)                                                                                               \
    for (int64_t i = from; i < to; i++) ((type *)p->y->data)[i * stride] = (type)(value);                               \
    return
    switch (p->y->dtype) {
    case FNN_FLOAT32: RAMP(float, p->start + (double)i * p->step);
    case FNN_FLOAT64: RAMP(double, p->start + (double)i * p->step);
    case FNN_INT64: RAMP(int64_t, (uint64_t)p->first + (uint64_t)i * (uint64_t)p->by);
    case FNN_INT32: RAMP(int32_t, (uint64_t)p->first + (uint64_t)i * (uint64_t)p->by);
    default: RAMP(uint8_t, (uint64_t)p->first + (uint64_t)i * (uint64_t)p->by);
    }
#undef RAMP
}

static int ramp_infer(fnn_call *call) {
    const fnn_tensor *y = call->out[0];
    if (y->rank < 0) return fnn_fail(call, FNN_TYPE_ERROR, "writes into an output that the caller gives");
    if (y->rank == 1 && y->dtype != FNN_BOOL) return FNN_OK;
    return fnn_fail(call, FNN_VALUE_ERROR, "output 'y' is %s %s, but must have one axis, and not be bool", fnn_dtype_name(y->dtype),
                    fnn_shape_text(y));
}

/* y[i] = start + i step, of integers first + i by, which wraps around; y (N,) is always given by the caller. */
static int ramp_run(fnn_call *call) {
    ramp_plan p = {call->out[0], call->attr.f[0], call->attr.f[1], call->attr.i[0], call->attr.i[1]};
    fnn_parallel_for(call, fnn_ceil_div(p.y->shape[0], CHUNK), 0.5 * (double)p.y->shape[0], run_ramp, &p);
    return FNN_OK;
}

const fnn_driver fnn_ramp = {.infer = ramp_infer, .run = ramp_run};
