/* memory.c: a caching allocator. A training step asks for the same sizes again and again; blocks given back are kept by
 * size class, so that a step in steady state neither calls the system nor faults a page. */
#define _GNU_SOURCE
#include "fastnn.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* AddressSanitizer is told where each block ends and that free ones are nobody's: a class is larger than what was asked for. */
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, bytes) ((void)(p), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(p, bytes) ((void)(p), (void)(bytes))
#endif

enum {
    ALIGNMENT = 64,
    STEPS = 4,                /* classes per doubling: at most a quarter is wasted */
    NUM_CLASSES = STEPS * 48,
    SKEWS = 16,               /* large blocks start at different offsets in their page, or their lines would alias */
    HUGE_PAGE = 2 << 20,
    ALWAYS_KEPT = 16 << 20    /* bytes kept however little was in use */
};

/* Sits in the 64 bytes before the block. Free blocks are in their class's list, latest first, and in the list of all by age. */
typedef struct header {
    struct header *next, *previous; /* of the class */
    struct header *older, *newer;   /* of all */
    void *base;
    size_t bytes; /* of the whole mapping */
    int size_class;
} header;

_Static_assert(sizeof(header) <= ALIGNMENT, "the header must fit before the block");

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static header *free_lists[NUM_CLASSES];
static header *oldest, *newest;
static header *held; /* given back while somebody holds memory, see fnn_memory_hold */
static size_t held_bytes;
static int holders;
static fnn_memory_stats stats;
static unsigned next_skew;

/* Class c holds blocks of (STEPS + c % STEPS) << (c / STEPS + 4) bytes: 64, 80, 96, 112, 128, 160 ... */
static size_t class_bytes(int c) { return (size_t)(STEPS + c % STEPS) << (c / STEPS + 4); }

static int class_of(size_t bytes) {
    if (bytes <= 64) return 0;
    int shift = 63 - __builtin_clzll((unsigned long long)(bytes - 1));     /* 2^shift <= bytes - 1 */
    int step = (int)(((bytes - 1) >> (shift - 2)) & (STEPS - 1)) + 1;      /* quarters above 2^shift, rounded up */
    return (shift - 6) * STEPS + step;
}

/* More than the machine has, all in all, would be granted where the system overcommits, and end the process when written to. */
static size_t machine_bytes(void) {
    static size_t bytes;
    if (!bytes) bytes = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    return bytes;
}

static int fits(size_t bytes) { return bytes <= machine_bytes() && (size_t)stats.in_use <= machine_bytes() - bytes; }

static header *map_block(int c) {
    size_t payload = class_bytes(c), skew = payload >= 4096 ? (size_t)ALIGNMENT * (next_skew++ % SKEWS) : 0;
    size_t bytes = payload + sizeof(header) + ALIGNMENT * (SKEWS + 2);
    char *base;
    if (bytes >= HUGE_PAGE) {
        bytes = (bytes + HUGE_PAGE - 1) & ~(size_t)(HUGE_PAGE - 1);
        if (posix_memalign((void **)&base, HUGE_PAGE, bytes)) return NULL;
        if (!holders) madvise(base, bytes, MADV_HUGEPAGE); /* the header alone would make 2 MB resident */
    } else if (posix_memalign((void **)&base, ALIGNMENT, bytes)) {
        return NULL;
    }
    stats.system_calls++;
    header *h = (header *)(base + skew);
    *h = (header){.base = base, .bytes = bytes, .size_class = c};
    return h;
}

static void *payload_of(header *h) { return (char *)h + ALIGNMENT; }

static void keep_locked(header *h) {
    header **list = &free_lists[h->size_class];
    h->next = *list, h->previous = NULL;
    if (*list) (*list)->previous = h;
    *list = h;
    h->older = newest, h->newer = NULL;
    *(newest ? &newest->newer : &oldest) = h;
    newest = h;
    stats.cached += (int64_t)class_bytes(h->size_class);
}

/* Takes a free block out of both lists. */
static void unlist_locked(header *h) {
    *(h->previous ? &h->previous->next : &free_lists[h->size_class]) = h->next;
    if (h->next) h->next->previous = h->previous;
    *(h->older ? &h->older->newer : &oldest) = h->newer;
    *(h->newer ? &h->newer->older : &newest) = h->older;
    stats.cached -= (int64_t)class_bytes(h->size_class);
}

/* Gives the system back the blocks that were free for longest, until at most `bytes` are kept. */
static void shrink_locked(int64_t bytes) {
    while (oldest && stats.cached > bytes) {
        header *h = oldest;
        unlist_locked(h);
        free(h->base);
    }
}

static void trim_locked(void) { shrink_locked(0); }

/* A block of a class: a cached one, or a new one. */
static header *take_locked(int c) {
    header *h = free_lists[c];
    if (h) {
        unlist_locked(h);
    } else {
        if (!fits(class_bytes(c) + (size_t)stats.cached)) trim_locked();
        h = map_block(c);
        if (!h) trim_locked(), h = map_block(c);
        if (!h) return NULL;
    }
    stats.in_use += (int64_t)class_bytes(c);
    if (stats.in_use > stats.peak) stats.peak = stats.in_use;
    return h;
}

void *fnn_alloc(size_t bytes) {
    pthread_mutex_lock(&lock);
    header *h = fits(bytes) ? take_locked(class_of(bytes)) : NULL;
    pthread_mutex_unlock(&lock);
    if (!h) return NULL;
    ASAN_POISON_MEMORY_REGION(payload_of(h), class_bytes(h->size_class));
    ASAN_UNPOISON_MEMORY_REGION(payload_of(h), bytes);
    return payload_of(h);
}

void fnn_free(void *block) {
    if (!block) return;
    header *h = (header *)((char *)block - ALIGNMENT);
    int64_t bytes = (int64_t)class_bytes(h->size_class);
    pthread_mutex_lock(&lock);
    stats.in_use -= bytes;
    if (holders) {
        h->next = held, held = h;
        held_bytes += (size_t)bytes;
        pthread_mutex_unlock(&lock);
        return;
    }
    ASAN_POISON_MEMORY_REGION(block, (size_t)bytes);
    /* A step's sizes do not all live at one time, so its cache grows past its peak (kept at the peak, LeNet-5's step called the
     * system 4 times); twice the peak bounds it, and sizes that are gone for good go back to the system first. */
    keep_locked(h);
    shrink_locked(2 * stats.peak + ALWAYS_KEPT - stats.in_use);
    pthread_mutex_unlock(&lock);
}

void fnn_memory_hold(void) {
    pthread_mutex_lock(&lock);
    holders++;
    pthread_mutex_unlock(&lock);
}

static void allow_huge_pages(header *h) {
    if (h->bytes >= HUGE_PAGE) madvise(h->base, h->bytes, MADV_HUGEPAGE);
}

void fnn_memory_release(void) {
    pthread_mutex_lock(&lock);
    if (--holders == 0) {
        for (header *h = held, *next; h; h = next) {
            next = h->next;
            allow_huge_pages(h);
            ASAN_POISON_MEMORY_REGION(payload_of(h), class_bytes(h->size_class));
            keep_locked(h);
        }
        held = NULL, held_bytes = 0;
        shrink_locked(2 * stats.peak + ALWAYS_KEPT - stats.in_use);
    }
    pthread_mutex_unlock(&lock);
}

void fnn_memory_outlives_hold(void *block) { allow_huge_pages((header *)((char *)block - ALIGNMENT)); }

int fnn_memory_holds_much(void) {
    pthread_mutex_lock(&lock);
    int much = held_bytes > machine_bytes() / 4;
    pthread_mutex_unlock(&lock);
    return much;
}

void fnn_memory_trim(void) {
    pthread_mutex_lock(&lock);
    trim_locked();
    pthread_mutex_unlock(&lock);
}

void fnn_memory_get_stats(fnn_memory_stats *out) {
    pthread_mutex_lock(&lock);
    *out = stats;
    pthread_mutex_unlock(&lock);
}

void fnn_memory_reset_peak(void) {
    pthread_mutex_lock(&lock);
    stats.peak = stats.in_use;
    pthread_mutex_unlock(&lock);
}

void fnn_memory_lock(void) { pthread_mutex_lock(&lock); }
void fnn_memory_unlock(void) { pthread_mutex_unlock(&lock); }
