/* multilabel_margin.h: hinge losses between the labels of a row and all its other classes. label (n): the labels of one row, up
 * to the first -1. */

/* room (n) = x, but -infinity at the labels, which are not compared with each other */
INLINE void margin_others(ptrdiff_t n, const real *x, const int64_t *label, real *room) {
    memcpy(room, x, (size_t)n * sizeof(real));
    for (ptrdiff_t k = 0; k < n && label[k] >= 0; k++) room[label[k]] = -(real)INFINITY;
}

/* loss: 1, the sum over labels k and other classes i of max(0, 1 - x_k + x_i), over n divisor; x: (n); room: (n) */
static void multilabel_margin_kernel(ptrdiff_t n, const void *x_, const int64_t *label, void *loss, void *room_) {
    const real *x = x_;
    real *room = room_, total = 0;
    margin_others(n, x, label, room);
    for (ptrdiff_t k = 0; k < n && label[k] >= 0; k++) {
        const vec lead = vec_set1(1 - x[label[k]]);
        vec sum = vec_zero();
        EACH_LANES(vec z = vec_max(vec_add(lead, load_lanes(room + i, lanes)), vec_zero());
                   sum = vec_add(sum, lanes < LANES ? vec_select(mask_first(lanes), z, vec_zero()) : z););
        total += vec_sum(sum);
    }
    *(real *)loss = total / (real)n;
}

/* dx: (n); dloss: 1; divisor: of the mean over rows; the rest as forward */
static void multilabel_margin_backward_kernel(ptrdiff_t n, const void *x_, const int64_t *label, const void *dloss, double divisor,
                                              void *dx_, void *room_) {
    const real *x = x_, g = *(const real *)dloss / ((real)n * (real)divisor);
    real *room = room_, *dx = dx_;
    const vec step = vec_set1(g), one = vec_set1(1);
    margin_others(n, x, label, room);
    memset(dx, 0, (size_t)n * sizeof(real));
    for (ptrdiff_t k = 0; k < n && label[k] >= 0; k++) {
        const vec lead = vec_set1(1 - x[label[k]]);
        vec count = vec_zero();
        EACH_LANES(mask hit = vec_lt(vec_zero(), vec_add(lead, load_lanes(room + i, lanes)));
                   if (lanes < LANES) hit = mask_and(hit, mask_first(lanes));
                   count = vec_add(count, vec_select(hit, one, vec_zero()));
                   store_lanes(dx + i, vec_add(load_lanes(dx + i, lanes), vec_select(hit, step, vec_zero())), lanes););
        dx[label[k]] -= g * vec_sum(count);
    }
}
