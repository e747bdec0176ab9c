/* record.h: what a program is made of; for program.c and fusion.c. */
#ifndef FNN_RECORD_H
#define FNN_RECORD_H
#include "program.h"

enum { MAX_OPERANDS = 2 * FNN_MAX_ARGS };

/* One argument of one call. Slots 0 .. FNN_MAX_ARGS - 1 are outputs, the others inputs. */
typedef struct {
    int storage; /* -1: absent */
    ptrdiff_t offset;
    fnn_tensor tensor;
} operand;

typedef struct record {
    fnn_call call;
    int number;              /* which launch of the recorded step it was */
    struct record *follower; /* an elementwise record that runs within this one, see fnn_follow; or max pooling, see
                                call.pooling; or what reads this one's result, see call.reader */
    operand operands[MAX_OPERANDS];
    fnn_workspace workspace; /* sizes, rounded; scratch is per worker */
    ptrdiff_t work_offset;   /* of the shared part in the arena; scratch follows */
} record;

typedef struct {
    size_t bytes;
    fnn_storage_kind kind;
    char *base;
    ptrdiff_t offset;       /* in the arena */
    int first, last;        /* lifetime in calls */
    int written, read_first;
    operand **uses; /* of BOUND storages, whose address changes from replay to replay */
    int num_uses;
} storage;

/* A random generator's launch counter, which a replay moves on by the launches it made. */
typedef struct {
    int64_t *value;
    int64_t launches;
} counter;

/* Replays on all threads, then on one, timed to find out which is faster. */
typedef struct {
    int threads, made;       /* how many `all` were; trials since the last choice was given up */
    double least[2];         /* seconds of the shortest on one thread, on all */
    int all, lost;           /* the choice; trials in a row that spoke against it */
    ptrdiff_t runs, between; /* replays since; to the next trials */
} trials;

struct fnn_program {
    record **records;
    storage *storages;
    int num_records, max_records, num_storages, max_storages;
    char *arena;
    size_t arena_bytes, eager_bytes;
    double ns, gain_ns; /* predicted: what one thread takes, and what two save */
    trials trials;
    counter *counters;
    int num_counters;
    int fusions[FNN_NUM_FUSIONS];
    int failed, status;
};

/* q: record r, then those that follow within it. */
#define EACH_OF_CHAIN(q, program, r) for (record *q = (program)->records[r]; q; q = q->follower)

/* Whether `later` touches what `earlier` writes, or writes what it reads. */
int fnn_depends_on(const record *later, const record *earlier);
int fnn_writes_fixed(const fnn_program *program, const record *r);

/* Applies the fusion rules to the list of records. */
void fnn_fuse(fnn_program *program);

#endif
