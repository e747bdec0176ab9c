/* slices.c: what index_select, index_add and, where an index says the same for whole slices, gather and its kin have in common.
 *
 * The axes but the chosen one are a nest of both tensors together; its last dimension is one run where it is dense in both. */
#include "slices.h"

#include <string.h>

enum {
    CHUNK = 16384,      /* elements copied by a chunk */
    AHEAD_BYTES = 4096, /* picking fetches so far ahead, about, or the next run */
    PIECE = 1024,       /* elements of a run that one chunk combines */
    OWNERS = 16,        /* combining cuts the axis too, into as many ranges at most, when runs give fewer chunks than this */
    BLOCK = 8192,       /* positions that a chunk reads or hands to their owners */
    AHEAD = 6           /* slices */
};

fnn_tensor fnn_slice_of(const fnn_tensor *t, int axis) {
    fnn_tensor s = *t;
    s.rank = 0;
    for (int d = 0; d < t->rank; d++) {
        if (d == axis) continue;
        s.shape[s.rank] = t->shape[d];
        s.stride[s.rank++] = t->stride[d];
    }
    return s;
}

fnn_slices fnn_slices_of(const fnn_tensor *whole, const fnn_tensor *picked, int axis, int has_axis, int writes_whole) {
    fnn_tensor slices[2] = {fnn_slice_of(whole, axis), has_axis ? fnn_slice_of(picked, axis) : *picked};
    const fnn_tensor *operand[2] = {&slices[writes_whole ? 0 : 1], &slices[writes_whole ? 1 : 0]};
    fnn_slices s = {.run = 1, .step = {whole->stride[axis], has_axis ? picked->stride[axis] : 0}, .extent = whole->shape[axis],
                    .count = has_axis ? picked->shape[axis] : 1, .size = fnn_itemsize(whole->dtype)};
    fnn_nest_build(&s.nest, operand, 2);
    const int last = s.nest.rank - 1;
    if (s.nest.stride[0][last] == 1 && s.nest.stride[1][last] == 1) {
        s.run = s.nest.shape[last];
        s.nest.shape[last] = 1;
        s.nest.size /= fnn_max(s.run, 1);
    }
    return s;
}

int fnn_says_slices(const fnn_tensor *index, int axis) {
    for (int d = 0; d < index->rank; d++)
        if (d != axis && index->shape[d] > 1 && index->stride[d]) return 0;
    return index->rank > 1;
}

/* ---- positions ---- */

/* The workspace: positions, each block's first bad one (later how many of its positions each owner has), the owners' positions. */
static ptrdiff_t blocks_of(ptrdiff_t count) { return fnn_ceil_div(count, BLOCK); }
static size_t column_bytes(ptrdiff_t count) { return fnn_whole_lines((size_t)count * sizeof(int64_t)); }

size_t fnn_slices_bytes(ptrdiff_t count) {
    return 2 * column_bytes(count) + fnn_whole_lines((size_t)(blocks_of(count) * OWNERS + OWNERS + 1) * sizeof(ptrdiff_t));
}

typedef struct {
    const int64_t *index;
    ptrdiff_t step, count, extent, lowest;
    int64_t *at;
    ptrdiff_t *bad;
} read_plan;

static void run_read(void *context, ptrdiff_t chunk, void *scratch) {
    const read_plan *p = context;
    ptrdiff_t bad = -1;
    (void)scratch;
    for (ptrdiff_t j = fnn_min((chunk + 1) * BLOCK, p->count) - 1; j >= chunk * BLOCK; j--) {
        const int64_t i = p->index[j * p->step];
        if (i < p->lowest || i >= p->extent) bad = j;
        p->at[j] = i < 0 ? i + p->extent : i;
    }
    p->bad[chunk] = bad;
}

ptrdiff_t fnn_slices_read(const fnn_call *call, fnn_slices *s, const int64_t *index, ptrdiff_t step, int from_end, void *workspace) {
    char *room = workspace;
    read_plan p = {.index = index, .step = step, .count = s->count, .extent = s->extent, .lowest = from_end ? -s->extent : 0};
    p.at = fnn_take(&room, (size_t)s->count * sizeof(int64_t));
    p.bad = (ptrdiff_t *)room;
    s->at = p.at;
    const ptrdiff_t blocks = blocks_of(s->count);
    fnn_parallel_for(call, blocks, (double)s->count, run_read, &p);
    for (ptrdiff_t b = 0; b < blocks; b++)
        if (p.bad[b] >= 0) return p.bad[b];
    return -1;
}

/* ---- picking ---- */

static void copy_elements(char *to, ptrdiff_t to_step, const char *from, ptrdiff_t from_step, const int64_t *index,
                          ptrdiff_t n, size_t size) {
#define COPY(type)                                                                                                      \
    for (ptrdiff_t j = 0; j < n; j++) ((type *)to)[j * to_step] = ((const type *)from)[index[j] * from_step];           \
    return
    switch (size) {
    case 1: COPY(uint8_t);
    case 4: COPY(uint32_t);
    case 8: COPY(uint64_t);
    }
#undef COPY
}

/* Runs j .. j + n - 1. Rows of a data set in random order come from memory, and each is too short for the CPU to fetch ahead: while
 * one is copied the next ones are on their way (batches of 200 rows on two Zen 4 cores: 784 bytes 21.7 us before, 16.8 now, 256
 * bytes 10.7 and 8.8; rows of 3 KB and more gain nothing). */
static void copy_runs(const fnn_slices *s, char *const *at, ptrdiff_t j, ptrdiff_t n) {
    const ptrdiff_t bytes = s->run * (ptrdiff_t)s->size, from = s->step[0] * (ptrdiff_t)s->size;
    const ptrdiff_t ahead = fnn_max(AHEAD_BYTES / bytes, 1);
    for (ptrdiff_t i = j; i < j + n; i++) {
        if (i + ahead < j + n)
            for (ptrdiff_t b = 0; b < bytes; b += 64) __builtin_prefetch(at[1] + s->at[i + ahead] * from + b);
        memcpy(at[0] + i * s->step[1] * (ptrdiff_t)s->size, at[1] + s->at[i] * from, (size_t)bytes);
    }
}

/* Units (slice position, index), the index varying fastest; chunk: some CHUNK elements of them. */
static void run_pick(void *context, ptrdiff_t chunk, void *scratch) {
    (void)scratch;
    const fnn_slices *s = context;
    ptrdiff_t units = fnn_max(CHUNK / s->run, 1), from = chunk * units;
    ptrdiff_t to = fnn_min(from + units, s->nest.size * s->count);
    char *at[FNN_MAX_ARGS];
    while (from < to) {
        ptrdiff_t j = from % s->count, n = fnn_min(s->count - j, to - from), width = (ptrdiff_t)s->size;
        fnn_nest_seek(&s->nest, from / s->count, at);
        if (s->run == 1)
            copy_elements(at[0] + j * s->step[1] * width, s->step[1], at[1], s->step[0], s->at + j, n, s->size);
        else
            copy_runs(s, at, j, n);
        from += n;
    }
}

void fnn_slices_pick(const fnn_call *call, const fnn_slices *s, double ns) {
    fnn_parallel_for(call, fnn_ceil_div(s->nest.size * s->count, fnn_max(CHUNK / s->run, 1)), ns, run_pick, (void *)s);
}

/* ---- combining ---- */

typedef struct {
    const fnn_slices *s;
    fnn_combine combine;
    const fnn_kernels *K;     /* of real types */
    ptrdiff_t pieces, piece;  /* how a run is cut */
    ptrdiff_t owners;         /* ranges of the axis, 2^shift positions each */
    int shift;
    ptrdiff_t *counts;        /* (blocks, OWNERS): where a block's positions of an owner go */
    ptrdiff_t *start;         /* of each owner's positions */
    int64_t *mine;            /* which j each owner has, in order; NULL: one has all */
} combine_plan;

static void run_count(void *context, ptrdiff_t chunk, void *scratch) {
    const combine_plan *p = context;
    ptrdiff_t *count = p->counts + chunk * OWNERS;
    (void)scratch;
    for (int o = 0; o < OWNERS; o++) count[o] = 0;
    for (ptrdiff_t j = chunk * BLOCK, end = fnn_min(j + BLOCK, p->s->count); j < end; j++) count[p->s->at[j] >> p->shift]++;
}

static void run_hand_out(void *context, ptrdiff_t chunk, void *scratch) {
    const combine_plan *p = context;
    ptrdiff_t *to = p->counts + chunk * OWNERS;
    (void)scratch;
    for (ptrdiff_t j = chunk * BLOCK, end = fnn_min(j + BLOCK, p->s->count); j < end; j++)
        p->mine[to[p->s->at[j] >> p->shift]++] = j;
}

/* Each owner's positions, in order: it need not look at the others'. */
static void hand_out(const fnn_call *call, combine_plan *p, char *room) {
    const ptrdiff_t blocks = blocks_of(p->s->count);
    const double ns = 2 * (double)p->s->count;
    room += column_bytes(p->s->count); /* behind the positions */
    p->mine = fnn_take(&room, (size_t)p->s->count * sizeof(int64_t));
    p->start = (ptrdiff_t *)room;
    p->counts = p->start + OWNERS + 1;
    fnn_parallel_for(call, blocks, ns, run_count, p);
    ptrdiff_t all = 0;
    for (int o = 0; o < OWNERS; o++) {
        p->start[o] = all;
        for (ptrdiff_t b = 0; b < blocks; b++) {
            const ptrdiff_t n = p->counts[b * OWNERS + o];
            p->counts[b * OWNERS + o] = all;
            all += n;
        }
    }
    p->start[OWNERS] = all;
    fnn_parallel_for(call, blocks, ns, run_hand_out, p);
}

/* A chunk owns one slice position, a piece of its run and a range of the axis: nobody else writes there, and it meets the
 * positions in order. So sums do not depend on the number of threads. */
static void run_combine(void *context, ptrdiff_t chunk, void *scratch) {
    (void)scratch;
    const combine_plan *p = context;
    const fnn_slices *s = p->s;
    const ptrdiff_t owner = chunk % p->owners, piece = chunk / p->owners % p->pieces, width = (ptrdiff_t)s->size;
    const ptrdiff_t from = piece * p->piece, n = fnn_min(p->piece, s->run - from);
    const ptrdiff_t begin = p->mine ? p->start[owner] : 0, end = p->mine ? p->start[owner + 1] : s->count;
    char *at[FNN_MAX_ARGS];
    fnn_nest_seek(&s->nest, chunk / p->owners / p->pieces, at);
    if (s->run == 1) { /* index_add's: the others have ways of their own for single elements */
        p->K->scatter_add(s->count, s->at, at[1], s->step[1], at[0], s->step[0]);
        return;
    }
    for (ptrdiff_t k = begin; k < end; k++) {
        const ptrdiff_t j = p->mine ? p->mine[k] : k;
        char *to = at[0] + (s->at[j] * s->step[0] + from) * width;
        const char *with = at[1] + (j * s->step[1] + from) * width;
        if (k + AHEAD < end) {
            const ptrdiff_t next = p->mine ? p->mine[k + AHEAD] : k + AHEAD;
            __builtin_prefetch(at[0] + (s->at[next] * s->step[0] + from) * width, 1);
            __builtin_prefetch(at[1] + (next * s->step[1] + from) * width);
        }
        if (p->combine) p->combine(n, (void *const[]){to}, (const void *const[]){to, with}, (const ptrdiff_t[]){1, 1}, NULL);
        else memcpy(to, with, (size_t)(n * width));
    }
}

void fnn_slices_combine(const fnn_call *call, fnn_slices *s, fnn_combine combine, int dtype, void *workspace) {
    combine_plan p = {.s = s, .combine = combine, .K = dtype <= FNN_FLOAT64 ? fnn_kernels_of(dtype) : NULL, .owners = 1};
    p.piece = fnn_min(s->run, PIECE);
    p.pieces = fnn_ceil_div(s->run, p.piece);
    const double bytes = (double)s->nest.size * (double)s->run * (double)s->size;
    const double ns = (double)s->count * (bytes * (s->run == 1 ? 0.4 : 0.1) + (s->run == 1 ? 0 : 5.0 * (double)s->nest.size));
    const int is_large = ns >= 10000 || fnn_threads_forced();
    if (is_large && s->run > 1 && s->nest.size * p.pieces < OWNERS) {
        while ((s->extent - 1) >> p.shift >= OWNERS) p.shift++;
        p.owners = ((s->extent - 1) >> p.shift) + 1;
        hand_out(call, &p, workspace);
    }
    fnn_parallel_for(call, s->nest.size * p.pieces * p.owners, ns, run_combine, &p);
}
