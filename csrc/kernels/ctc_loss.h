/* ctc_loss.h: connectionist temporal classification of one sequence: probabilities summed over all alignments, as logarithms.
 * State s of 2 S + 1 is a blank (even s) or label (s - 1) / 2. It is entered from itself, from the state before it, and from
 * the one before that, if this is another label: a blank between equal labels cannot be left out. What is said of the first
 * states going forward holds of the last ones going back, so both directions are one loop.
 *
 * Logarithms of a step's states are kept relative to the greatest of them, and what was taken away is added up in double: after
 * 3000 steps in float32 sums of their own, near -12000, would have lost all digits behind the point but two. */

/* The sequence's arrays in the kernel's room; `before` has two states of probability 0 in front. */
typedef struct {
    real *skip, *emit, *open, *before;
} ctc_room;

/* The label of the state that is number r in the direction of the loop. */
INLINE int64_t ctc_label(const fnn_ctc *q, ptrdiff_t r, int back) { return q->label[back ? q->states - 1 - r : r]; }

/* Divides the room; skip: 0 where a state may be entered from two before, else -infinity; before the first step only the first
 * two states are open. */
INLINE ctc_room ctc_begin(const fnn_ctc *q, void *room, int back) {
    const ptrdiff_t n = q->states;
    const real none = -(real)INFINITY;
    real *at = room;
    const ctc_room w = {at, at + n, at + 2 * n, at + 3 * n + 2};
    w.before[-2] = w.before[-1] = none;
    for (ptrdiff_t r = 0; r < n; r++) {
        w.skip[r] = r % 2 && r > 1 && ctc_label(q, r, back) != ctc_label(q, r - 2, back) ? 0 : none;
        w.open[r] = r < 2 ? 0 : none;
    }
    return w;
}

/* open[r] = log of the sum of exp(before[r]), exp(before[r - 1]) and exp(before[r - 2] + skip[r]) */
INLINE void ctc_step(ptrdiff_t n, const real *before, const real *skip, real *open) {
    const vec none = vec_set1(-(real)INFINITY);
    EACH_LANES(const vec stay = load_lanes(before + i, lanes), next = load_lanes(before + i - 1, lanes);
               const vec over = vec_add(load_lanes(before + i - 2, lanes), load_lanes(skip + i, lanes));
               const vec top = vec_max(stay, vec_max(next, over)), m = vec_select(vec_eq(top, none), vec_zero(), top);
               const vec two = vec_add(vec_exp(vec_sub(stay, m)), vec_exp(vec_sub(next, m)));
               store_lanes(open + i, vec_add(m, vec_log(vec_add(two, vec_exp(vec_sub(over, m))))), lanes););
}

/* before = open plus the log-probabilities of the states' labels at step t, less the greatest, which is returned */
INLINE real ctc_emit(const fnn_ctc *q, const ctc_room *w, ptrdiff_t t, int back) {
    const real *logp = (const real *)q->log_probs + t * q->step;
    for (ptrdiff_t r = 0; r < q->states; r++) w->emit[r] = logp[ctc_label(q, r, back) * q->class_step];
    const ptrdiff_t n = q->states;
    EACH_LANES(store_lanes(w->before + i, vec_add(load_lanes(w->open + i, lanes), load_lanes(w->emit + i, lanes)), lanes););
    const real top = max_row(n, w->before);
    if (top == -(real)INFINITY) return top;
    const vec shift = vec_set1(top);
    EACH_LANES(store_lanes(w->before + i, vec_sub(load_lanes(w->before + i, lanes), shift), lanes););
    return top;
}

/* y = value for n elements */
INLINE void ctc_fill(ptrdiff_t n, real value, real *y, ptrdiff_t step) {
    for (ptrdiff_t i = 0; i < n; i++) y[i * step] = value;
}

/* nll, loss: 1; log_alpha: (all_steps, all_states), by the sequence's strides: those that are not its own have probability 0;
 * room: 4 states + 2 */
static void ctc_forward_kernel(const fnn_ctc *q, void *log_alpha, void *nll_, void *loss_, void *room) {
    const ctc_room w = ctc_begin(q, room, 0);
    const ptrdiff_t n = q->states;
    real *nll = nll_, *loss = loss_, last = n == 1 ? 0 : -(real)INFINITY;
    double scale = 0;
    for (ptrdiff_t t = 0; t < q->steps; t++) {
        if (t) ctc_step(n, w.before, w.skip, w.open);
        scale += (double)ctc_emit(q, &w, t, 0);
        real *alpha = (real *)log_alpha + t * q->alpha_step;
        for (ptrdiff_t s = 0; s < n; s++) alpha[s * q->alpha_state] = w.before[s];
        ctc_fill(q->all_states - n, -(real)INFINITY, alpha + n * q->alpha_state, q->alpha_state);
    }
    for (ptrdiff_t t = q->steps; t < q->all_steps; t++)
        ctc_fill(q->all_states, -(real)INFINITY, (real *)log_alpha + t * q->alpha_step, q->alpha_state);
    if (q->steps) { /* it ends in the last label or in the blank after it, in no third state */
        const real never = -(real)INFINITY;
        ctc_step(1, w.before + n - 1, &never, &last);
    }
    *nll = (real)-(scale + (double)last);
    *loss = q->zero_infinity && *nll == (real)INFINITY ? 0 : *nll / (real)q->divisor;
}

/* The derivative in log_probs[t, c] is minus the probability that the alignment is at label c at step t: alpha, which ends with
 * that step, times what is open after it, over the sum of that product over all states. dx: (all_steps, classes), by its
 * strides; dloss: 1; the rest as forward. */
static void ctc_backward_kernel(const fnn_ctc *q, const void *log_alpha, const void *nll_, const void *dloss, void *dx_,
                                void *room) {
    const ctc_room w = ctc_begin(q, room, 1);
    const ptrdiff_t n = q->states;
    const real nll = *(const real *)nll_, g = *(const real *)dloss / (real)q->divisor;
    const int impossible = nll == (real)INFINITY;
    for (ptrdiff_t t = q->all_steps - 1; t >= 0; t--) {
        real *dx = (real *)dx_ + t * q->dx_step;
        ctc_fill(q->classes, impossible && !q->zero_infinity && t < q->steps ? (real)NAN : 0, dx, q->dx_class);
        if (impossible || t >= q->steps) continue;
        if (t < q->steps - 1) ctc_step(n, w.before, w.skip, w.open);
        ctc_emit(q, &w, t, 1);
        const real *alpha = (const real *)log_alpha + t * q->alpha_step;
        for (ptrdiff_t r = 0; r < n; r++) w.emit[r] = alpha[(n - 1 - r) * q->alpha_state] + w.open[r];
        softmax_row(n, w.emit, w.emit, w.emit, 0, 0);
        for (ptrdiff_t r = 0; r < n; r++) dx[ctc_label(q, r, 1) * q->dx_class] -= g * w.emit[r];
    }
}
