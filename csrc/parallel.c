/* parallel.c: the only file that knows OpenMP: parallel loops, the number of threads, fork safety, denormals. */
#define _GNU_SOURCE
#include "fastnn.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef _OPENMP
#include <omp.h>
/* GCC has omp_pause_resource_all since version 9, long before it claims the OpenMP version that asks for it. */
#if _OPENMP >= 201811 || (__GNUC__ >= 9 && !defined(__clang__))
#define HAS_PAUSE
#endif
#endif

/* A region costs about 2.5 us while its workers still spin (GCC 12's libgomp, 2 threads; `python bench/threads.py`), so a
 * loop is shared out only when each of two threads saves more than that. */
static const double REGION_NS = 8000;

/* In a team that is awake a loop costs a few hundred nanoseconds. */
static const double TEAM_NS = 1500;

/* A worker of such a team who has done its share of a longer loop does what others have not come to: something else may hold them
 * up. In short loops their data, near their own cores, would cost more than it saves (two Zen 3 threads: a captured step of MLP
 * 784-256-10, batch 4, was 0.94 times as fast with all loops shared so). */
static const double HELP_NS = 50000;

/* Shares looked at, its own among them: on many cores asking everybody would cost more than waiting. */
enum { HELPED = 8 };

/* About half a microsecond of them: who waits longer does spare work. */
enum { SPINS_BEFORE_SPARE = 12 };

/* About 30 us of pauses; then waiting threads offer their CPU, which somebody else may need. */
enum { SPINS_BEFORE_YIELD = 1000 };

static pthread_mutex_t region_lock = PTHREAD_MUTEX_INITIALIZER; /* one parallel region at a time: a second caller runs serially */
static int num_threads = 1;
static int forced;
static int last_workers = 1;
static char reason[160] = "not initialised";

/* ---- denormals ---- */

#if defined(__x86_64__)
#include <xmmintrin.h>
unsigned fnn_flush_on(void) {
    unsigned state = _mm_getcsr();
    _mm_setcsr(state | 0x8040); /* FTZ | DAZ */
    return state;
}
static unsigned flush_off(void) {
    unsigned state = _mm_getcsr();
    _mm_setcsr(state & ~0x8040u);
    return state;
}
void fnn_flush_restore(unsigned state) { _mm_setcsr(state); }
#elif defined(__aarch64__)
unsigned fnn_flush_on(void) {
    uint64_t state;
    __asm__ volatile("mrs %0, fpcr" : "=r"(state));
    __asm__ volatile("msr fpcr, %0" ::"r"(state | (1u << 24)));
    return (unsigned)state;
}
static unsigned flush_off(void) {
    uint64_t state;
    __asm__ volatile("mrs %0, fpcr" : "=r"(state));
    __asm__ volatile("msr fpcr, %0" ::"r"(state & ~((uint64_t)1 << 24)));
    return (unsigned)state;
}
void fnn_flush_restore(unsigned state) { __asm__ volatile("msr fpcr, %0" ::"r"((uint64_t)state)); }
#else
unsigned fnn_flush_on(void) { return 0; }
static unsigned flush_off(void) { return 0; }
void fnn_flush_restore(unsigned state) { (void)state; }
#endif

/* ---- shares ---- */

static char *scratch_of(const fnn_call *call, int worker) {
    return call && call->scratch ? (char *)call->scratch + (size_t)worker * call->scratch_stride : NULL;
}

static void run_all(const fnn_call *call, ptrdiff_t chunks, fnn_body body, void *context) {
    char *scratch = scratch_of(call, 0);
    for (ptrdiff_t c = 0; c < chunks; c++) body(context, c, scratch);
}

#ifdef _OPENMP

/* How many chunks of each worker's share have been taken. */
typedef struct {
    atomic_ptrdiff_t taken;
    char padding[56];
} share;

static share shares[FNN_MAX_THREADS]; /* guarded by region_lock */

static void reset_shares(int team) {
    for (int w = 0; w < team; w++) atomic_store_explicit(&shares[w].taken, 0, memory_order_relaxed);
}

/* One worker's contiguous share of the chunks: it meets the same data again in the next loop over it. Then, if it helps, what
 * others have not come to. Workers for whom the call has no scratch stand aside. */
static void run_share(const fnn_call *call, ptrdiff_t chunks, ptrdiff_t worker, ptrdiff_t team, int helps, fnn_body body,
                      void *context) {
    if (call && call->scratch) team = fnn_min(team, call->workers);
    if (worker >= team) return;
    char *scratch = scratch_of(call, (int)worker);
    for (ptrdiff_t k = 0; k < (helps ? fnn_min(team, HELPED) : 1); k++) {
        const ptrdiff_t w = (worker + k) % team, first = chunks * w / team, count = chunks * (w + 1) / team - first;
        while (atomic_load_explicit(&shares[w].taken, memory_order_relaxed) < count) {
            const ptrdiff_t c = atomic_fetch_add_explicit(&shares[w].taken, 1, memory_order_relaxed);
            if (c < count) body(context, first + c, scratch);
        }
    }
}

/* ---- teams: threads that stay awake between loops ---- */

typedef struct {
    atomic_uint done; /* the last job this worker finished */
    char padding[60];
} mailbox;

/* The master posts a job by raising `job`; a worker runs its share and writes the job's number into its mailbox. */
typedef struct {
    atomic_uint job;
    atomic_int closed;
    int size, helps;
    const fnn_call *call;
    ptrdiff_t chunks;
    fnn_body body;
    void *context;
    _Atomic(fnn_spare *) spare;
    mailbox workers[FNN_MAX_THREADS];
} team;

/* How far a thread has come with spare work. */
typedef struct {
    ptrdiff_t round, done;
} progress;

static team the_team;              /* guarded by region_lock */
static __thread team *my_team;     /* set on the master while its team is awake */
static progress masters;           /* the master's spare work */

static inline void relax(int spins) {
    if (spins > SPINS_BEFORE_YIELD) {
        sched_yield();
        return;
    }
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb"); /* waits as x86's pause does; most cores take `yield` for nothing to do */
#endif
}

/* A unit of the thread's share of spare work. Returns whether there was one left. */
static int do_spare(team *t, int worker, progress *p) {
    const fnn_spare *spare = atomic_load_explicit(&t->spare, memory_order_acquire);
    if (!spare) return 0;
    const ptrdiff_t round = __atomic_load_n(&spare->round, __ATOMIC_RELAXED);
    if (p->round != round) *p = (progress){round, 0};
    const ptrdiff_t unit = spare->units * worker / t->size + p->done;
    if (unit >= spare->units * (worker + 1) / t->size) return 0;
    p->done++;
    spare->unit(spare->context, round, unit);
    return 1;
}

static void wait_a_little(team *t, int worker, int spins, progress *p) {
    if (spins < SPINS_BEFORE_SPARE || !do_spare(t, worker, p)) relax(spins);
}

static void serve(team *t, int worker) {
    progress p = {-1, 0};
    for (unsigned seen = 0;;) {
        unsigned job;
        for (int spins = 0; (job = atomic_load_explicit(&t->job, memory_order_acquire)) == seen; spins++) {
            if (atomic_load_explicit(&t->closed, memory_order_acquire)) return;
            wait_a_little(t, worker, spins, &p);
        }
        seen = job;
        unsigned state = t->call && t->call->flush ? fnn_flush_on() : 0;
        run_share(t->call, t->chunks, worker, t->size, t->helps, t->body, t->context);
        if (t->call && t->call->flush) fnn_flush_restore(state);
        atomic_store_explicit(&t->workers[worker].done, job, memory_order_release);
    }
}

static void post(team *t, const fnn_call *call, ptrdiff_t chunks, double ns, fnn_body body, void *context) {
    reset_shares(t->size);
    t->call = call, t->chunks = chunks, t->helps = ns >= HELP_NS, t->body = body, t->context = context;
    unsigned job = atomic_load_explicit(&t->job, memory_order_relaxed) + 1;
    atomic_store_explicit(&t->job, job, memory_order_release);
    run_share(call, chunks, 0, t->size, t->helps, body, context);
    for (int w = 1; w < t->size; w++)
        for (int spins = 0; atomic_load_explicit(&t->workers[w].done, memory_order_acquire) != job; spins++)
            wait_a_little(t, 0, spins, &masters);
    last_workers = (int)fnn_min(t->size, chunks);
}

void fnn_team_run(void (*main)(void *context), void *context) {
    const int threads = num_threads; /* another thread may set it meanwhile */
    if (threads < 2 || my_team || omp_in_parallel() || pthread_mutex_trylock(&region_lock)) {
        main(context);
        return;
    }
    team *t = &the_team;
    atomic_store(&t->job, 0);
    atomic_store(&t->closed, 0);
    atomic_store(&t->spare, NULL);
#pragma omp parallel num_threads(threads)
    {
        int worker = omp_get_thread_num();
        if (worker == 0) t->size = omp_get_num_threads();
        else atomic_store(&t->workers[worker].done, 0);
#pragma omp barrier
        if (worker == 0) {
            my_team = t;
            main(context);
            my_team = NULL;
            atomic_store_explicit(&t->closed, 1, memory_order_release);
        } else {
            serve(t, worker);
        }
    }
    pthread_mutex_unlock(&region_lock);
}

void fnn_team_spare(fnn_spare *spare) {
    if (!my_team) return;
    masters = (progress){-1, 0};
    atomic_store_explicit(&my_team->spare, spare, memory_order_release);
}

/* ---- loops ---- */

static __thread int alone; /* within fnn_run_alone */

void fnn_run_alone(void (*main)(void *context), void *context) {
    alone = 1;
    main(context);
    alone = 0;
}

void fnn_parallel_for(const fnn_call *call, ptrdiff_t chunks, double ns, fnn_body body, void *context) {
    if (my_team) {
        if (chunks < 2 || !(forced || ns >= TEAM_NS)) run_all(call, chunks, body, context);
        else post(my_team, call, chunks, ns, body, context);
        return;
    }
    const int worthwhile = forced || (!alone && ns >= REGION_NS), threads = num_threads; /* another thread may set it meanwhile */
    if (chunks < 2 || threads < 2 || !worthwhile || omp_in_parallel() || pthread_mutex_trylock(&region_lock)) {
        run_all(call, chunks, body, context);
        return;
    }
    int flush = call && call->flush;
    /* New workers inherit this thread's control word: one that flushed would make them flush in float64 regions too. */
    unsigned caller = flush_off();
    reset_shares(threads);
    /* Always the full team: libgomp destroys and recreates threads when the size changes. Workers without a chunk return at
     * once. */
#pragma omp parallel num_threads(threads)
    {
        ptrdiff_t worker = omp_get_thread_num(), size = omp_get_num_threads();
        unsigned state = flush ? fnn_flush_on() : 0;
        run_share(call, chunks, worker, size, 1, body, context); /* some may not have woken up yet */
        if (flush) fnn_flush_restore(state);
        if (worker == 0) last_workers = (int)fnn_min(size, chunks);
    }
    fnn_flush_restore(caller);
    pthread_mutex_unlock(&region_lock);
}

#else

void fnn_team_run(void (*main)(void *context), void *context) { main(context); }
void fnn_team_spare(fnn_spare *spare) { (void)spare; }
void fnn_run_alone(void (*main)(void *context), void *context) { main(context); }

void fnn_parallel_for(const fnn_call *call, ptrdiff_t chunks, double ns, fnn_body body, void *context) {
    (void)ns;
    run_all(call, chunks, body, context);
}

#endif

void fnn_team_next_round(fnn_spare *spare) { __atomic_fetch_add(&spare->round, 1, __ATOMIC_RELAXED); }

int fnn_last_workers(void) { return last_workers; }
void fnn_forget_workers(void) { last_workers = 1; }
void fnn_set_thread_policy(int force) { forced = force; }
int fnn_threads_forced(void) { return forced; }
int fnn_get_num_threads(void) { return num_threads; }
void fnn_set_num_threads(int threads) { num_threads = threads; }
const char *fnn_threads_reason(void) { return reason; }

int fnn_has_openmp(void) {
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}

/* ---- how many threads ---- */

/* CPUs the cgroup may use, rounded up; 0 when there is no quota. */
static int cgroup_quota(void) {
    long long quota = -1, period = 0;
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r"); /* version 2 */
    if (f) {
        if (fscanf(f, "%lld %lld", &quota, &period) != 2) quota = -1;
        fclose(f);
    } else if ((f = fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "r"))) { /* version 1 */
        if (fscanf(f, "%lld", &quota) != 1) quota = -1;
        fclose(f);
        if ((f = fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "r"))) {
            if (fscanf(f, "%lld", &period) != 1) period = 0;
            fclose(f);
        }
    }
    return quota > 0 && period > 0 ? (int)((quota + period - 1) / period) : 0;
}

/* Allowed CPUs and, among them, distinct physical cores (a core counts by the first of its sibling threads). */
static void allowed_cpus(int *cpus, int *cores) {
    *cpus = *cores = 0;
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        char seen[CPU_SETSIZE] = {0};
        for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
            if (!CPU_ISSET(cpu, &set)) continue;
            char path[96];
            int first = cpu;
            snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
            FILE *f = fopen(path, "r");
            if (f) {
                if (fscanf(f, "%d", &first) != 1 || first < 0 || first >= CPU_SETSIZE) first = cpu;
                fclose(f);
            }
            *cpus += 1;
            *cores += !seen[first];
            seen[first] = 1;
        }
    }
#endif
    if (*cpus == 0) *cpus = *cores = (int)fnn_max(sysconf(_SC_NPROCESSORS_ONLN), 1);
}

/* FASTNN_NUM_THREADS is ours: what is no number is an error. OMP_NUM_THREADS may be a list; its first entry counts. */
static int choose_threads(void) {
    const char *ours = getenv("FASTNN_NUM_THREADS"), *openmp = getenv("OMP_NUM_THREADS");
    if (ours && *ours) {
        char *end;
        long n = strtol(ours, &end, 10);
        if (*end || n < 1 || n > FNN_MAX_THREADS) return -1;
        num_threads = (int)n;
        snprintf(reason, sizeof reason, "FASTNN_NUM_THREADS=%d", num_threads);
        return 0;
    }
    long n = openmp ? strtol(openmp, NULL, 10) : 0;
    if (n > 0) {
        num_threads = (int)fnn_min(n, FNN_MAX_THREADS);
        snprintf(reason, sizeof reason, "OMP_NUM_THREADS=%d", num_threads);
        return 0;
    }
    int quota = cgroup_quota(), cpus, cores;
    allowed_cpus(&cpus, &cores);
    num_threads = quota && quota < cores ? quota : cores;
    const char *form = quota ? "the least of: allowed CPUs %d, physical cores %d, cgroup quota %d"
                             : "the least of: allowed CPUs %d, physical cores %d (no cgroup quota)";
    snprintf(reason, sizeof reason, form, cpus, cores, quota);
    return 0;
}

/* ---- fork ----
 * libgomp's workers do not exist in a forked child, which would wait for them for ever at its first region. So before a
 * fork we take our locks and give the workers back; parent and child start fresh ones when they need them. */

static void before_fork(void) {
    pthread_mutex_lock(&region_lock);
    fnn_memory_lock();
#ifdef HAS_PAUSE
    omp_pause_resource_all(omp_pause_hard);
#endif
}

static void after_fork(void) {
    fnn_memory_unlock();
    pthread_mutex_unlock(&region_lock);
}

int fnn_parallel_init(void) {
    if (choose_threads()) return -1;
    return pthread_atfork(before_fork, after_fork, after_fork);
}
