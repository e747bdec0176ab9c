/* program.h: captured programs: a recorded step, planned once, replayed without Python. */
#ifndef FNN_PROGRAM_H
#define FNN_PROGRAM_H
#include "fastnn.h"

/* What a storage is to a program. */
typedef enum {
    FNN_BOUND,     /* an input or a returned output: its address is given before each replay */
    FNN_FIXED,     /* alive outside the step (parameters, gradients, statistics, constants): its address never changes */
    FNN_TEMPORARY, /* made and forgotten within the step: it lives in the arena */
    FNN_PASSED,    /* made and used up within one record, part by part: it has no memory, and its address only tells it apart */
    FNN_UNDECIDED
} fnn_storage_kind;

typedef struct fnn_program fnn_program;

fnn_program *fnn_program_new(void);
void fnn_program_free(fnn_program *program);

/* Recording. A storage is named by its index; every call is added with the indices of its arguments' storages (outputs first,
 * in the order of fnn_call, -1 for absent ones) and their bases, from which offsets follow. */
int fnn_program_add_storage(fnn_program *program, size_t bytes);
int fnn_program_add_call(fnn_program *program, const fnn_call *call, const int *storages, char *const *bases);

/* Planning. Kinds first; then the plan: deferred writes, fusions, lifetimes, offsets. 0 or FNN_MEMORY_ERROR. */
void fnn_program_set_kind(fnn_program *program, int storage, fnn_storage_kind kind, char *base);
int fnn_program_is_written(const fnn_program *program, int storage);
int fnn_program_is_read_first(const fnn_program *program, int storage); /* read before any call of the step writes it */
int fnn_program_plan(fnn_program *program, int once); /* once: it is run a single time */
/* Instead of a plan: runs the calls one by one, where they were recorded. */
int fnn_program_run_unplanned(fnn_program *program, const char **message);
/* After a failure: whether a call before the one that failed wrote the storage. */
int fnn_program_was_written(const fnn_program *program, int storage);
int fnn_program_count_random(fnn_program *program, int64_t *counter, int64_t launches); /* a replay adds `launches` to *counter */
size_t fnn_program_arena_bytes(const fnn_program *program);
void fnn_program_set_arena(fnn_program *program, char *arena);
void fnn_program_bind(fnn_program *program, int storage, char *base);

/* Replay. 0, or the status of the first call that failed, whose message is `*message`; then no FIXED storage was written. */
int fnn_program_run(fnn_program *program, const char **message);

/* Replays again and again: run r has storage `moving` at base + r * step bytes. Stops after `runs`, at the first failure, or when
 * `seconds` are over; *done counts the runs that were completed. */
int fnn_program_run_many(fnn_program *program, int moving, char *base, ptrdiff_t step, ptrdiff_t runs, double seconds,
                         ptrdiff_t *done, const char **message);

/* One replay, each call's time added to seconds[call]; workers[call]: how many threads took part in its last shared loop, or 1. */
int fnn_program_time(fnn_program *program, double *seconds, int *workers, const char **message);

/* Rules that replace records by fewer ones with the same bits (fusion.c). */
enum {
#define FUSION(name) FNN_FUSION_##name,
#include "fusions.def"
#undef FUSION
    FNN_NUM_FUSIONS
};
const char *fnn_fusion_name(int rule);
int fnn_program_num_fusions(const fnn_program *program, int rule);

/* What the plan holds, for summaries. */
int fnn_program_num_calls(const fnn_program *program);
const fnn_call *fnn_program_call(const fnn_program *program, int k, int follower); /* call k, then those within it; NULL: no more */
int fnn_program_call_number(const fnn_program *program, int k, int follower);      /* which launch of the recording that was */
size_t fnn_program_eager_bytes(const fnn_program *program);    /* what the temporaries take without a plan */

#endif
