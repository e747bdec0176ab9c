/* resample.c: every row and every column of a result is a weighted sum of some of the input's: up-sampling,
 * down-sampling, padding by reflection, repetition or wrapping round, spacing out. Tables say which and how much; -1
 * is nothing. The gradient is the same computation with the tables turned around. */
#include "stage.h"

#include <string.h>

enum {
    CHUNK = 8192,         /* elements a chunk, about */
    ROOM_BYTES = 32 << 10 /* of a sum of rows, unless that is less than a line of channels: a first-level cache */
};

/* For each of n results its sources start[k] .. start[k + 1] - 1: place and weight. */
typedef struct {
    ptrdiff_t n, entries;
    ptrdiff_t *start, *source;
    char *weight;
} list;

typedef struct {
    const fnn_kernels *K;
    int dtype;
    ptrdiff_t images, channels, rows; /* rows: of a result a chunk */
    ptrdiff_t from_h, from_w, to_h, to_w;
    list row;
    fnn_resample across;
    const char *from;
    char *to;
} plan;

static int check_table(fnn_call *call, int k, const char *name) {
    const fnn_tensor *index = call->in[k], *weight = call->in[k + 1];
    if (index->rank == 2 && fnn_same_shape(index, weight)) return FNN_OK;
    return fnn_fail(call, FNN_VALUE_ERROR,
                    "argument '%s' has shape %s and its weights %s, but both must be (results, sources)", name,
                    fnn_shape_text(index), fnn_shape_text(weight));
}

static int check(fnn_call *call, const char *name) {
    const fnn_tensor *x = call->in[0];
    if (x->rank != 4)
        return fnn_fail(call, FNN_VALUE_ERROR, "argument '%s' has shape %s, but must be (N, C, H, W)", name,
                        fnn_shape_text(x));
    int status = check_table(call, 1, "rows");
    return status ? status : check_table(call, 3, "columns");
}

static size_t list_bytes(const fnn_tensor *index, ptrdiff_t n, int dtype) {
    const size_t entries = (size_t)fnn_numel(index);
    return fnn_whole_lines(((size_t)n + 1) * sizeof(ptrdiff_t)) + fnn_whole_lines(entries * sizeof(ptrdiff_t)) +
           fnn_whole_lines(entries * fnn_itemsize(dtype));
}

static int64_t index_at(const fnn_tensor *t, ptrdiff_t i, ptrdiff_t k) {
    return ((const int64_t *)t->data)[i * t->stride[0] + k * t->stride[1]];
}

static void set_entry(list *l, ptrdiff_t e, ptrdiff_t source, const fnn_tensor *weight, ptrdiff_t i, ptrdiff_t k) {
    const size_t size = fnn_itemsize(weight->dtype);
    l->source[e] = source;
    memcpy(l->weight + e * (ptrdiff_t)size,
           fnn_at(weight->data, i * weight->stride[0] + k * weight->stride[1], weight->dtype), size);
}

/* The table as lists; backward: for each of the n sources, the results that it went into, in their order. */
static int read_table(fnn_call *call, int input, int backward, ptrdiff_t n, ptrdiff_t sources, char **at, list *l) {
    const fnn_tensor *index = call->in[input], *weight = call->in[input + 1];
    const ptrdiff_t results = index->shape[0], taps = index->shape[1], entries = results * taps;
    l->n = n;
    l->start = fnn_take(at, ((size_t)n + 1) * sizeof(ptrdiff_t));
    l->source = fnn_take(at, (size_t)entries * sizeof(ptrdiff_t));
    l->weight = fnn_take(at, (size_t)entries * fnn_itemsize(weight->dtype));
    memset(l->start, 0, ((size_t)n + 1) * sizeof(ptrdiff_t));
    for (ptrdiff_t i = 0; i < results; i++)
        for (ptrdiff_t k = 0; k < taps; k++) {
            const int64_t source = index_at(index, i, k);
            if (source < -1 || source >= sources)
                return fnn_fail(call, FNN_INDEX_ERROR, "%s[%td, %td] is %lld, but must be -1 to %td",
                                input == 1 ? "rows" : "columns", i, k, (long long)source, sources - 1);
            if (source >= 0) l->start[(backward ? (ptrdiff_t)source : i) + 1]++;
        }
    for (ptrdiff_t k = 0; k < n; k++) l->start[k + 1] += l->start[k];
    for (ptrdiff_t i = results - 1; i >= 0; i--) /* from the end: start[k + 1] comes down to where k's entries begin */
        for (ptrdiff_t k = taps - 1; k >= 0; k--) {
            const int64_t source = index_at(index, i, k);
            if (source < 0) continue;
            const ptrdiff_t to = backward ? (ptrdiff_t)source : i;
            set_entry(l, --l->start[to + 1], backward ? i : (ptrdiff_t)source, weight, i, k);
        }
    for (ptrdiff_t k = 0; k < n; k++) l->start[k] = l->start[k + 1];
    l->start[n] = 0;
    for (ptrdiff_t i = 0; i < results; i++)
        for (ptrdiff_t k = 0; k < taps; k++) l->start[n] += index_at(index, i, k) >= 0;
    return FNN_OK;
}

static size_t place_bytes(const fnn_tensor *index, ptrdiff_t from_w) {
    return 2 * fnn_whole_lines((size_t)from_w * sizeof(ptrdiff_t)) + fnn_whole_lines((size_t)fnn_numel(index) * sizeof(ptrdiff_t));
}

/* The pixels of a row that columns are made of, and where among them each entry finds its own. */
static void find_places(const list *column, ptrdiff_t from_w, char **at, fnn_resample *across) {
    const ptrdiff_t entries = column->start[column->n];
    const size_t row_bytes = (size_t)from_w * sizeof(ptrdiff_t);
    ptrdiff_t *pixel = fnn_take(at, row_bytes), *place_of = fnn_take(at, row_bytes);
    ptrdiff_t *place = fnn_take(at, (size_t)entries * sizeof(ptrdiff_t)), pixels = 0;
    memset(place_of, 0, row_bytes);
    for (ptrdiff_t e = 0; e < entries; e++) place_of[column->source[e]] = 1;
    for (ptrdiff_t j = 0; j < from_w; j++)
        if (place_of[j]) pixel[pixels] = j, place_of[j] = pixels++;
    for (ptrdiff_t e = 0; e < entries; e++) place[e] = place_of[column->source[e]];
    across->start = column->start, across->column = column->source, across->weight = column->weight;
    across->pixels = pixels, across->pixel = pixel, across->place = place;
}

static void run_chunk(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const ptrdiff_t parts = fnn_ceil_div(p->to_h, p->rows), image = chunk / parts, first = chunk % parts * p->rows;
    const char *from = fnn_at(p->from, image * p->from_h * p->from_w * p->channels, p->dtype);
    for (ptrdiff_t i = first; i < fnn_min(first + p->rows, p->to_h); i++) {
        const ptrdiff_t begin = p->row.start[i];
        p->K->resample_row(&p->across, p->row.start[i + 1] - begin, p->row.source + begin, fnn_at(p->row.weight, begin, p->dtype),
                           from, scratch, fnn_at(p->to, (image * p->to_h + i) * p->to_w * p->channels, p->dtype));
    }
}

/* Whole lines of channels, unless all of them find room. */
static ptrdiff_t block_of(const fnn_tensor *from) {
    const ptrdiff_t size = (ptrdiff_t)fnn_itemsize(from->dtype), line = 64 / size, pixel = fnn_max(from->shape[3], 1) * size;
    return fnn_min(fnn_max(ROOM_BYTES / pixel / line, 1) * line, from->shape[1]);
}

static void workspace(const fnn_call *call, fnn_workspace *ws) {
    const fnn_tensor *from = call->in[0], *to = call->out[0];
    ws->shared = fnn_stage_bytes(from) + fnn_stage_bytes(to) + list_bytes(call->in[1], to->shape[2], to->dtype) +
                 list_bytes(call->in[3], to->shape[3], to->dtype) + place_bytes(call->in[3], from->shape[3]);
    ws->scratch = (size_t)(block_of(from) * from->shape[3]) * fnn_itemsize(from->dtype);
}

static int run_of(fnn_call *call, int backward) {
    const fnn_tensor *from = call->in[0], *to = call->out[0];
    char *at = call->shared;
    plan p = {.K = fnn_kernels_of(from->dtype),
              .dtype = from->dtype,
              .images = from->shape[0],
              .channels = from->shape[1],
              .from_h = from->shape[2],
              .from_w = from->shape[3],
              .to_h = to->shape[2],
              .to_w = to->shape[3]};
    list column;
    int status = read_table(call, 1, backward, p.to_h, backward ? p.to_h : p.from_h, &at, &p.row);
    if (!status) status = read_table(call, 3, backward, p.to_w, backward ? p.to_w : p.from_w, &at, &column);
    if (status) return status;
    p.across = (fnn_resample){.width = p.to_w, .channels = p.channels, .x_row = p.from_w * p.channels, .block = block_of(from)};
    find_places(&column, p.from_w, &at, &p.across);
    p.from = fnn_stage_input(from, &at);
    p.to = fnn_stage_output(to, &at);
    p.rows = fnn_max(CHUNK / fnn_max(p.to_w * p.channels, 1), 1);
    fnn_parallel_for(call, p.images * fnn_ceil_div(p.to_h, p.rows), fnn_cost(call), run_chunk, &p);
    fnn_unstage_output(to, p.to);
    return FNN_OK;
}

static int forward_infer(fnn_call *call) {
    int status = check(call, "x");
    if (status) return status;
    const fnn_tensor *x = call->in[0];
    fnn_set_shape(call->out[0], x->dtype, 4,
                  (ptrdiff_t[]){x->shape[0], x->shape[1], call->in[1]->shape[0], call->in[3]->shape[0]});
    return FNN_OK;
}

/* y: (N, C, OH, OW); x: (N, C, H, W); rows, row_weights: (OH, sources); columns, column_weights: (OW, sources) */
static int forward_run(fnn_call *call) { return run_of(call, 0); }

static int backward_infer(fnn_call *call) {
    int status = check(call, "dy");
    if (status) return status;
    const fnn_tensor *dy = call->in[0];
    const int64_t *size = call->attr.i;
    if (dy->shape[2] != call->in[1]->shape[0] || dy->shape[3] != call->in[3]->shape[0])
        return fnn_fail(call, FNN_VALUE_ERROR, "argument 'dy' has shape %s, but rows and columns make %td x %td",
                        fnn_shape_text(dy), call->in[1]->shape[0], call->in[3]->shape[0]);
    if (size[0] < 0 || size[1] < 0 || size[0] > INT32_MAX || size[1] > INT32_MAX)
        return fnn_fail(call, FNN_VALUE_ERROR, "attribute 'input' is (%lld, %lld), but must be 0 to %d each",
                        (long long)size[0], (long long)size[1], INT32_MAX);
    fnn_set_shape(call->out[0], dy->dtype, 4,
                  (ptrdiff_t[]){dy->shape[0], dy->shape[1], (ptrdiff_t)size[0], (ptrdiff_t)size[1]});
    return FNN_OK;
}

/* dx: (N, C, H, W); dy: (N, C, OH, OW); tables as forward. */
static int backward_run(fnn_call *call) { return run_of(call, 1); }

const fnn_driver fnn_resample_forward = {.infer = forward_infer, .workspace = workspace, .run = forward_run};
const fnn_driver fnn_resample_backward = {.infer = backward_infer, .workspace = workspace, .run = backward_run};
