/* program.c: captured programs; see program.h.
 *
 * A program is the list of a step's calls. Arguments name storages, not addresses: planning decides where each storage lives, and
 * binding writes the addresses into the calls once, so that a replay is a loop over ready calls. Temporaries share one arena: two
 * of them overlap only if their lifetimes do not. */
#define _POSIX_C_SOURCE 199309L
#include "record.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* What two threads are predicted to save of a call is half its time, less what it costs that data one core made are read by
 * another, then and in the calls that follow. How slowly a line comes from another core, and whether that core is free, no
 * prediction knows. The bits are the same, so a program that is to save something, but not CERTAIN of its time, finds out: TRIALS
 * replays on all threads, as many on one, then FEW_RUNS of the way that had the shortest. It changes its way when the other had
 * the shortest twice in a row, and waits twice as long each time that its own had. `python bench/cliff.py` compares both. */
static const double MOVING_DATA_NS = 10000, CERTAIN = 0.36;
enum { TRIALS = 4, FEW_RUNS = 32, MANY_RUNS = 4096 };

/* Of rows that are brought nearer: a piece takes a quarter of a microsecond; shorter rows are not worth it, nor more than caches hold. */
enum { PIECE_BYTES = 2048, LEAST_ROW_BYTES = 256, MOST_FETCHED = 2 << 20 };

fnn_program *fnn_program_new(void) { return calloc(1, sizeof(fnn_program)); }

void fnn_program_free(fnn_program *program) {
    if (!program) return;
    for (int r = 0; r < program->num_records; r++)
        for (record *q = program->records[r], *next; q; q = next) next = q->follower, free(q);
    for (int s = 0; s < program->num_storages; s++) free(program->storages[s].uses);
    free(program->records);
    free(program->storages);
    free(program->counters);
    free(program);
}

/* ---- recording ---- */

static void *grown(void *array, int count, int *capacity, size_t size) {
    if (count < *capacity) return array;
    int wanted = *capacity ? 2 * *capacity : 64;
    void *larger = realloc(array, (size_t)wanted * size);
    if (larger) *capacity = wanted;
    return larger;
}

int fnn_program_add_storage(fnn_program *program, size_t bytes) {
    storage *larger = grown(program->storages, program->num_storages, &program->max_storages, sizeof(storage));
    if (!larger) return -1;
    program->storages = larger;
    larger[program->num_storages] = (storage){.bytes = bytes, .kind = FNN_UNDECIDED};
    return program->num_storages++;
}

/* Points the call's argument k at the record's own operand. */
static void set_argument(record *r, int k) {
    if (k < FNN_MAX_ARGS) r->call.out[k] = &r->operands[k].tensor;
    else r->call.in[k - FNN_MAX_ARGS] = &r->operands[k].tensor;
}

static const fnn_tensor *argument_of(const fnn_call *call, int k) {
    return k < FNN_MAX_ARGS ? call->out[k] : call->in[k - FNN_MAX_ARGS];
}

/* Whether the call changes what its output holds: it reads it, too. */
static int changes_output(const fnn_call *call) {
    return call->op == FNN_OP_index_add || call->op == FNN_OP_scatter_add || call->op == FNN_OP_scatter;
}

static void note_uses(fnn_program *program, const record *r) {
    for (int k = MAX_OPERANDS - 1; k >= 0; k--) { /* inputs before outputs */
        int s = r->operands[k].storage;
        if (s < 0) continue;
        storage *t = &program->storages[s];
        if (k >= FNN_MAX_ARGS || changes_output(&r->call)) t->read_first |= !t->written;
        if (k < FNN_MAX_ARGS) t->written = 1;
    }
}

int fnn_program_add_call(fnn_program *program, const fnn_call *call, const int *storages, char *const *bases) {
    record **larger = grown(program->records, program->num_records, &program->max_records, sizeof(record *));
    if (!larger) return FNN_MEMORY_ERROR;
    program->records = larger;
    record *r = calloc(1, sizeof(record));
    if (!r) return FNN_MEMORY_ERROR;
    r->number = program->num_records;
    r->call.op = call->op;
    r->call.attr = call->attr;
    r->call.flush = call->flush;
    r->call.precision = call->precision;
    r->call.algorithm = call->algorithm;
    for (int k = 0; k < MAX_OPERANDS; k++) {
        const fnn_tensor *t = argument_of(call, k);
        r->operands[k].storage = t ? storages[k] : -1;
        if (!t) continue;
        r->operands[k].tensor = *t;
        r->operands[k].offset = (char *)t->data - bases[k];
        set_argument(r, k);
    }
    note_uses(program, r);
    program->records[program->num_records++] = r;
    return FNN_OK;
}

/* ---- planning ---- */

static int list_uses(fnn_program *program);

void fnn_program_set_kind(fnn_program *program, int s, fnn_storage_kind kind, char *base) {
    program->storages[s].kind = kind;
    program->storages[s].base = base;
}

int fnn_program_is_written(const fnn_program *program, int s) { return program->storages[s].written; }
int fnn_program_is_read_first(const fnn_program *program, int s) { return program->storages[s].read_first; }

int fnn_writes_fixed(const fnn_program *program, const record *r) {
    for (int k = 0; k < FNN_MAX_ARGS; k++) {
        int s = r->operands[k].storage;
        if (s >= 0 && program->storages[s].kind == FNN_FIXED) return 1;
    }
    return 0;
}

int fnn_depends_on(const record *later, const record *earlier) {
    for (int k = 0; k < MAX_OPERANDS; k++) {
        if (earlier->operands[k].storage < 0) continue;
        for (int j = 0; j < MAX_OPERANDS; j++)
            if (later->operands[j].storage == earlier->operands[k].storage && (k < FNN_MAX_ARGS || j < FNN_MAX_ARGS)) return 1;
    }
    return 0;
}

/* Moves calls that write FIXED storages (statistics, gradients that stay, updates) behind all others that do not need their
 * results: a call that fails on bad data then fails before anything lasting was written. */
static int defer_writes(fnn_program *program) {
    int n = program->num_records, kept = 0, deferred = 0;
    record **late = malloc((size_t)(n ? n : 1) * sizeof *late);
    if (!late) return FNN_MEMORY_ERROR;
    for (int r = 0; r < n; r++) {
        record *current = program->records[r];
        int wait = fnn_writes_fixed(program, current);
        for (int d = 0; d < deferred && !wait; d++) wait = fnn_depends_on(current, late[d]);
        if (wait) late[deferred++] = current;
        else program->records[kept++] = current;
    }
    memcpy(program->records + kept, late, (size_t)deferred * sizeof *late);
    free(late);
    return FNN_OK;
}

/* Moves calls that fill what the step made and keeps (an optimiser's new state) to the front: nothing is lost when the step fails,
 * and what then writes there may run behind the call that makes its other input. */
static void hoist_fills(fnn_program *program) {
    for (int r = 1; r < program->num_records; r++) {
        record *fill = program->records[r];
        int moves = fill->call.op == FNN_OP_fill && program->storages[fill->operands[0].storage].kind == FNN_BOUND;
        for (int q = 0; q < r && moves; q++) moves = !fnn_depends_on(fill, program->records[q]);
        if (!moves) continue;
        memmove(program->records + 1, program->records, (size_t)r * sizeof *program->records);
        program->records[0] = fill;
    }
}

static void find_lifetimes(fnn_program *program) {
    for (int s = 0; s < program->num_storages; s++) program->storages[s].first = -1;
    for (int r = 0; r < program->num_records; r++)
        EACH_OF_CHAIN(q, program, r)
            for (int k = 0; k < MAX_OPERANDS; k++) {
                int s = q->operands[k].storage;
                if (s < 0) continue;
                if (program->storages[s].first < 0) program->storages[s].first = r;
                program->storages[s].last = r;
            }
}

/* One piece of the arena: a temporary, or a call's workspace. */
typedef struct {
    size_t bytes;
    int first, last;
    ptrdiff_t *offset;
} piece;

static int larger_first(const void *a, const void *b) {
    const piece *p = a, *q = b;
    if (p->bytes != q->bytes) return p->bytes < q->bytes ? 1 : -1;
    return p->first - q->first;
}

/* Greedy by size: each piece at the lowest offset free of all pieces already placed whose lifetimes overlap its own. */
static size_t place(piece *pieces, int n) {
    size_t end = 0;
    for (int p = 0; p < n; p++) {
        ptrdiff_t offset = 0;
        for (int moved = 1; moved;) {
            moved = 0;
            for (int q = 0; q < p; q++) {
                int together = pieces[p].first <= pieces[q].last && pieces[q].first <= pieces[p].last;
                ptrdiff_t low = *pieces[q].offset, high = low + (ptrdiff_t)pieces[q].bytes;
                if (together && offset < high && low < offset + (ptrdiff_t)pieces[p].bytes) offset = high, moved = 1;
            }
        }
        *pieces[p].offset = offset;
        if ((size_t)offset + pieces[p].bytes > end) end = (size_t)offset + pieces[p].bytes;
    }
    return end;
}

static void size_workspaces(fnn_program *program) {
    for (int r = 0; r < program->num_records; r++) {
        record *current = program->records[r];
        current->workspace = fnn_workspace_of(&current->call);
    }
}

static size_t workspace_bytes(const record *r) { return r->workspace.shared + r->workspace.scratch * (size_t)r->workspace.workers; }

/* Sizes a little over a multiple of a page: neighbours in the arena must not alias in the cache. */
static size_t rounded(size_t bytes) { return fnn_whole_lines(bytes) + (bytes >= 4096 ? 3 * FNN_LINE : 0); }

static int lay_out(fnn_program *program) {
    piece *pieces = malloc((size_t)(program->num_storages + program->num_records + 1) * sizeof *pieces);
    if (!pieces) return FNN_MEMORY_ERROR;
    int n = 0;
    program->eager_bytes = 0;
    for (int s = 0; s < program->num_storages; s++) {
        storage *t = &program->storages[s];
        if ((t->kind != FNN_TEMPORARY && t->kind != FNN_PASSED) || t->first < 0) continue;
        program->eager_bytes += t->bytes;
        if (t->kind == FNN_TEMPORARY) pieces[n++] = (piece){rounded(t->bytes ? t->bytes : 1), t->first, t->last, &t->offset};
    }
    for (int r = 0; r < program->num_records; r++) {
        const record *current = program->records[r];
        size_t bytes = workspace_bytes(current);
        const int last = current->call.is_late ? program->storages[current->operands[0].storage].last : r; /* positions are read later */
        if (bytes) pieces[n++] = (piece){rounded(bytes), r, last, &program->records[r]->work_offset};
    }
    qsort(pieces, (size_t)n, sizeof *pieces, larger_first);
    program->arena_bytes = place(pieces, n);
    free(pieces);
    return FNN_OK;
}

int fnn_program_plan(fnn_program *program, int once) {
    if (defer_writes(program)) return FNN_MEMORY_ERROR;
    if (once) hoist_fills(program);
    fnn_fuse(program);
    find_lifetimes(program);
    size_workspaces(program);
    program->ns = program->gain_ns = 0;
    for (int r = 0; r < program->num_records; r++) {
        double ns = 0;
        EACH_OF_CHAIN(q, program, r) ns += fnn_cost(&q->call);
        program->ns += ns;
        if (ns / 2 > MOVING_DATA_NS) program->gain_ns += ns / 2 - MOVING_DATA_NS;
    }
    if (list_uses(program)) return FNN_MEMORY_ERROR;
    return lay_out(program);
}

int fnn_program_count_random(fnn_program *program, int64_t *value, int64_t launches) {
    counter *larger = realloc(program->counters, (size_t)(program->num_counters + 1) * sizeof *larger);
    if (!larger) return FNN_MEMORY_ERROR;
    program->counters = larger;
    larger[program->num_counters++] = (counter){value, launches};
    return FNN_OK;
}

size_t fnn_program_arena_bytes(const fnn_program *program) { return program->arena_bytes; }

/* ---- binding ---- */

static void bind(fnn_program *program, int s) {
    for (int r = 0; r < program->num_records; r++)
        EACH_OF_CHAIN(q, program, r)
            for (int k = 0; k < MAX_OPERANDS; k++) {
                operand *o = &q->operands[k];
                if (o->storage == s) o->tensor.data = program->storages[s].base + o->offset;
            }
}

/* Lists the operands of the storages that are bound anew for each replay. */
static int list_uses(fnn_program *program) {
    for (int s = 0; s < program->num_storages; s++) {
        storage *t = &program->storages[s];
        if (t->kind != FNN_BOUND || t->first < 0) continue;
        size_t records = 0;
        for (int r = t->first; r <= t->last; r++)
            for (const record *q = program->records[r]; q; q = q->follower) records++;
        t->uses = malloc(records * MAX_OPERANDS * sizeof *t->uses);
        if (!t->uses) return FNN_MEMORY_ERROR;
        for (int r = t->first; r <= t->last; r++)
            EACH_OF_CHAIN(q, program, r)
                for (int k = 0; k < MAX_OPERANDS; k++)
                    if (q->operands[k].storage == s) t->uses[t->num_uses++] = &q->operands[k];
    }
    return FNN_OK;
}

void fnn_program_bind(fnn_program *program, int s, char *base) {
    storage *t = &program->storages[s];
    t->base = base;
    for (int u = 0; u < t->num_uses; u++) t->uses[u]->tensor.data = base + t->uses[u]->offset;
}

void fnn_program_set_arena(fnn_program *program, char *arena) {
    program->arena = arena;
    for (int s = 0; s < program->num_storages; s++) {
        storage *t = &program->storages[s];
        if (t->kind == FNN_TEMPORARY) t->base = arena + t->offset;
        if (t->kind == FNN_PASSED) t->base = (char *)t;
        if (t->kind != FNN_BOUND) bind(program, s);
    }
    for (int r = 0; r < program->num_records; r++) {
        record *current = program->records[r];
        if (!workspace_bytes(current)) continue;
        current->call.shared = arena + current->work_offset;
        current->call.scratch = arena + current->work_offset + current->workspace.shared;
        current->call.scratch_stride = current->workspace.scratch;
        current->call.workers = current->workspace.workers;
    }
}

/* ---- replay ---- */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int run_timed(fnn_call *call, double *seconds, int *workers) {
    fnn_forget_workers();
    double start = now();
    int status = fnn_ops[call->op].driver->run(call);
    *seconds += now() - start;
    *workers = fnn_last_workers();
    return status;
}

/* seconds: NULL, or one number per record to which its time is added; then workers has one per record, too. */
static int run_records(fnn_program *program, double *seconds, int *workers) {
    unsigned caller = fnn_flush_on();
    int flushing = 1, status = FNN_OK;
    for (int r = 0; r < program->num_records && !status; r++) {
        fnn_call *call = &program->records[r]->call;
        if (call->flush != flushing) {
            if (call->flush) fnn_flush_on();
            else fnn_flush_restore(caller);
            flushing = call->flush;
        }
        if (seconds) status = run_timed(call, &seconds[r], &workers[r]);
        else status = fnn_ops[call->op].driver->run(call);
        program->failed = r;
    }
    fnn_flush_restore(caller);
    for (int c = 0; c < program->num_counters && !status; c++) *program->counters[c].value += program->counters[c].launches;
    return program->status = status;
}

typedef struct {
    fnn_program *program;
    int moving;
    char *base;
    ptrdiff_t step, runs, done;
    double seconds;
    double *times; /* NULL, or one number per record; */
    int *workers;  /* then this, too */
    fnn_spare spare;
    struct {       /* rows that a run picks: from where, the first run's positions, and how far apart these are, in bytes */
        const char *from, *index;
        ptrdiff_t extent, bytes, step, pieces;
    } rows;
} repetition;

/* A piece of a row that the next run picks comes nearer. Behind the last run there are no positions. */
static void fetch_piece(const void *context, ptrdiff_t round, ptrdiff_t unit) {
    const repetition *job = context;
    const ptrdiff_t row = unit / job->rows.pieces, first = unit % job->rows.pieces * PIECE_BYTES;
    int64_t position;
    if (round + 1 >= job->runs) return;
    memcpy(&position, job->rows.index + (round + 1) * job->step + row * job->rows.step, sizeof position);
    if (position < 0 || position >= job->rows.extent) return;
    const char *at = job->rows.from + position * job->rows.bytes + first;
    for (ptrdiff_t b = 0, n = fnn_min(PIECE_BYTES, job->rows.bytes - first); b < n; b += FNN_LINE) __builtin_prefetch(at + b, 0, 2);
}

/* Batches are rows in random order, which no CPU fetches ahead: threads that wait do, of the largest that a run picks. */
static void find_rows(repetition *job) {
    job->spare = (fnn_spare){.unit = fetch_piece, .context = job, .round = job->done};
    for (int r = 0; r < job->program->num_records && job->moving >= 0; r++) {
        const record *q = job->program->records[r];
        const fnn_tensor *from = q->call.in[0], *index = q->call.in[1];
        if (q->call.op != FNN_OP_index_select || q->operands[FNN_MAX_ARGS + 1].storage != job->moving || q->call.attr.i[0]) continue;
        const ptrdiff_t size = fnn_itemsize(from->dtype), bytes = from->shape[0] ? fnn_numel(from) / from->shape[0] * size : 0;
        const ptrdiff_t pieces = fnn_ceil_div(bytes, PIECE_BYTES), units = pieces * fnn_numel(index);
        if (from->stride[0] * size != bytes || bytes < LEAST_ROW_BYTES || bytes * fnn_numel(index) > MOST_FETCHED) continue;
        if (units <= job->spare.units) continue;
        job->spare.units = units;
        job->rows.from = from->data, job->rows.extent = from->shape[0], job->rows.bytes = bytes, job->rows.pieces = pieces;
        job->rows.index = (const char *)index->data - job->done * job->step;
        job->rows.step = index->stride[0] * (ptrdiff_t)sizeof(int64_t);
    }
}

static void run_repeatedly(void *context) {
    repetition *job = context;
    double end = now() + job->seconds;
    while (job->done < job->runs) {
        if (job->moving >= 0) fnn_program_bind(job->program, job->moving, job->base + job->done * job->step);
        if (!job->spare.unit) find_rows(job);
        fnn_team_spare(job->spare.units ? &job->spare : NULL);
        if (run_records(job->program, job->times, job->workers)) return;
        job->done++;
        fnn_team_next_round(&job->spare);
        if (job->done < job->runs && now() >= end) return;
    }
}

static void run_on(int all, repetition *job) {
    if (all) fnn_team_run(run_repeatedly, job);
    else fnn_run_alone(run_repeatedly, job);
}

static void choose(trials *t, int all) {
    const int first = t->between == 0;
    t->lost = all == t->all ? 0 : t->lost + 1;
    t->between = t->lost || first ? FEW_RUNS : fnn_min(2 * t->between, MANY_RUNS);
    if (first || t->lost == 2) t->all = all, t->lost = 0;
    t->runs = 0;
}

/* Replays once, on all threads in the first half of the trials and on one in the second, and notes how long that took. */
static void run_trial(trials *t, repetition *job) {
    int all = t->made < TRIALS;
    ptrdiff_t runs = job->runs;
    if (t->made % TRIALS == 0) t->least[all] = INFINITY;
    job->runs = job->done + 1;
    double start = now();
    run_on(all, job);
    double seconds = now() - start;
    if (seconds < t->least[all]) t->least[all] = seconds;
    job->runs = runs;
    if (++t->made == 2 * TRIALS) choose(t, t->least[1] <= t->least[0]);
}

static void run_tried(repetition *job) {
    fnn_program *program = job->program;
    trials *t = &program->trials;
    if (t->threads != fnn_get_num_threads()) *t = (trials){.threads = fnn_get_num_threads()};
    while (t->made < 2 * TRIALS && job->done < job->runs && !program->status) run_trial(t, job);
    if (job->done == job->runs || program->status) return;
    const ptrdiff_t before = job->done;
    run_on(t->all, job);
    if ((t->runs += job->done - before) >= t->between) t->made = 0;
}

static int replay(repetition *job, const char **message) {
    fnn_program *program = job->program;
    program->status = FNN_OK;
    if (fnn_threads_forced() || program->gain_ns >= CERTAIN * program->ns) run_on(1, job);
    else if (program->gain_ns == 0 || fnn_get_num_threads() < 2) run_on(0, job);
    else run_tried(job);
    if (program->status) *message = program->records[program->failed]->call.message;
    return program->status;
}

int fnn_program_run_many(fnn_program *program, int moving, char *base, ptrdiff_t step, ptrdiff_t runs, double seconds,
                         ptrdiff_t *done, const char **message) {
    repetition job = {.program = program, .moving = moving, .base = base, .step = step, .runs = runs, .seconds = seconds};
    int status = replay(&job, message);
    *done = job.done;
    return status;
}

int fnn_program_run(fnn_program *program, const char **message) {
    ptrdiff_t done;
    return fnn_program_run_many(program, -1, NULL, 0, 1, 0, &done, message);
}

int fnn_program_run_unplanned(fnn_program *program, const char **message) {
    int status = FNN_OK;
    for (int r = 0; r < program->num_records && !status; r++) {
        program->failed = r;
        status = fnn_run(&program->records[r]->call);
    }
    if (status) *message = program->records[program->failed]->call.message;
    return status;
}

int fnn_program_was_written(const fnn_program *program, int s) {
    for (int r = 0; r < program->failed; r++)
        EACH_OF_CHAIN(q, program, r)
            for (int k = 0; k < FNN_MAX_ARGS; k++)
                if (q->operands[k].storage == s) return 1;
    return 0;
}

int fnn_program_time(fnn_program *program, double *seconds, int *workers, const char **message) {
    repetition job = {.program = program, .moving = -1, .runs = 1, .times = seconds, .workers = workers};
    return replay(&job, message);
}

/* ---- summaries ---- */

int fnn_program_num_calls(const fnn_program *program) { return program->num_records; }
static const record *member(const fnn_program *program, int k, int follower) {
    const record *q = program->records[k];
    while (q && follower--) q = q->follower;
    return q;
}
const fnn_call *fnn_program_call(const fnn_program *program, int k, int follower) {
    const record *q = member(program, k, follower);
    return q ? &q->call : NULL;
}
int fnn_program_call_number(const fnn_program *program, int k, int follower) { return member(program, k, follower)->number; }
size_t fnn_program_eager_bytes(const fnn_program *program) { return program->eager_bytes; }
int fnn_program_num_fusions(const fnn_program *program, int rule) { return program->fusions[rule]; }
