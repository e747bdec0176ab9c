/* stream.h: copies past the caches. A store into a line that is not in cache first reads the line; writing whole lines past the
 * caches does not, which pays once the result is larger than they are: see FNN_STREAM_BYTES. */

/* to, from: `bytes` bytes, anywhere. */
static void stream_kernel(ptrdiff_t bytes, void *to, const void *from) {
    const ptrdiff_t width = sizeof(words);
    char *y = to;
    const char *x = from;
    ptrdiff_t i = (ptrdiff_t)(-(uintptr_t)y & (uintptr_t)(width - 1));
    if (i > bytes) i = bytes;
    if (i) memcpy(y, x, (size_t)i);
    for (; i + width <= bytes; i += width) words_stream(y + i, words_load(x + i));
    if (i < bytes) memcpy(y + i, x + i, (size_t)(bytes - i));
}

/* After the last stream of a chunk: others may read its result only after this. */
static void stream_end_kernel(void) { vec_stream_end(); }
