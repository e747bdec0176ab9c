/* generator.h: the state of a random generator as drivers are handed it: int64 (2,), seed and number of the launch. */
#ifndef FNN_GENERATOR_H
#define FNN_GENERATOR_H
#include "../fastnn.h"

static inline int fnn_check_generator(fnn_call *call, const fnn_tensor *generator) {
    if (generator->rank == 1 && generator->shape[0] == 2 && fnn_is_contiguous(generator)) return FNN_OK;
    return fnn_fail(call, FNN_VALUE_ERROR, "argument 'generator' has shape %s, but must be (2,) and dense: seed and counter",
                    fnn_shape_text(generator));
}

/* ordinal: what a captured program adds to the number, how many random launches of the step come before. */
static inline fnn_stream fnn_stream_of(const fnn_tensor *generator, int64_t ordinal) {
    const int64_t *state = generator->data;
    return (fnn_stream){(uint64_t)state[0], (uint64_t)state[1] + (uint64_t)ordinal};
}

#endif
