/* stream.h: writes past the caches. A store into a line that is not in cache first reads the line; writing whole lines past the
 * caches does not, which pays once the result is larger than they are: see FNN_STREAM_BYTES. While a block is written, what the
 * next is made from is fetched: by turns, reading and writing would each leave the other idle (ReLU on 64 MB: 1.3 times faster on
 * two Zen 3 cores, 1.6 on one). */

INLINE void transfer_line(fnn_transfer *t, int count) {
    for (int k = 0; k < count; k++) prefetch(t->ahead[k] + t->done);
    for (const ptrdiff_t end = t->done + FNN_LINE; t->done < end; t->done += (ptrdiff_t)sizeof(words))
        words_stream(t->to + t->done, words_load(t->from + t->done));
}

/* The count is a constant where this is inlined. */
INLINE void transfer_rest(fnn_transfer *t, int count) {
    while (t->bytes - t->done >= FNN_LINE) transfer_line(t, count);
    memcpy(t->to + t->done, t->from + t->done, (size_t)(t->bytes - t->done));
    t->done = t->bytes;
}

static void transfer_kernel(fnn_transfer *t) {
    if (t->count == 0) transfer_rest(t, 0);
    else if (t->count == 1) transfer_rest(t, 1);
    else transfer_rest(t, t->count);
}

/* After the last stream of a chunk: others may read its result only after this. */
static void stream_end_kernel(void) { vec_stream_end(); }
