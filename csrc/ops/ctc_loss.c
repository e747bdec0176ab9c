/* ctc_loss.c: connectionist temporal classification (A. Graves, S. Fernandez, F. Gomez and J. Schmidhuber, ICML 2006): minus the
 * logarithm of the probability that outputs read as their targets when repetitions and blanks are left out.
 *
 * A chunk is one sequence. The states of all sequences lie side by side in log_alpha's rows, so that targets of one axis, one
 * behind another, take no more room than they need. Lengths and labels are checked before anything is written. */
#include "../fastnn.h"

#include <stdio.h>

enum { REDUCE_NONE, REDUCE_MEAN, REDUCE_SUM };

/* Where the arguments that forward and backward share stand in a call. */
typedef struct {
    const fnn_tensor *log_probs, *targets, *input_lengths, *target_lengths;
} arguments;

typedef struct {
    ptrdiff_t steps, labels, start; /* of one sequence: start counts the labels before its own */
} extent;

typedef struct {
    const fnn_kernels *K;
    const fnn_call *call;
    arguments a;
    const fnn_tensor *log_alpha, *nll;
    int64_t blank;
    int reduction, zero_infinity;
    extent *extents; /* shared: one a sequence, */
    char *losses;    /* and what is added up */
} plan;

static arguments arguments_of(const fnn_call *call, int log_probs, int targets) {
    return (arguments){call->in[log_probs], call->in[targets], call->in[targets + 1], call->in[targets + 2]};
}

static ptrdiff_t states_of(const arguments *a) { return 2 * fnn_numel(a->targets) + a->log_probs->shape[1]; }
static ptrdiff_t most_labels(const fnn_tensor *targets) { return targets->shape[targets->rank - 1]; }

static int check_lengths(fnn_call *call, const char *name, const fnn_tensor *lengths, ptrdiff_t N) {
    if (lengths->rank == 1 && lengths->shape[0] == N) return FNN_OK;
    return fnn_fail(call, FNN_VALUE_ERROR, "%s has shape %s, but must be (%td,): one for each sequence of log_probs", name,
                    fnn_shape_text(lengths), N);
}

static int check(fnn_call *call, const arguments *a) {
    const fnn_tensor *x = a->log_probs, *targets = a->targets;
    const int64_t blank = call->attr.i[0], reduction = call->attr.i[1];
    if (x->rank != 3)
        return fnn_fail(call, FNN_VALUE_ERROR, "log_probs has shape %s, but must be (T, N, C)", fnn_shape_text(x));
    if (!(targets->rank == 1 || (targets->rank == 2 && targets->shape[0] == x->shape[1])))
        return fnn_fail(call, FNN_VALUE_ERROR, "targets has shape %s, but must be (%td, S), or have one axis with all labels",
                        fnn_shape_text(targets), x->shape[1]);
    int status = check_lengths(call, "input_lengths", a->input_lengths, x->shape[1]);
    if (!status) status = check_lengths(call, "target_lengths", a->target_lengths, x->shape[1]);
    if (status) return status;
    if (blank < 0 || blank >= x->shape[2])
        return fnn_fail(call, FNN_VALUE_ERROR, "blank is %lld, but must be one of the %td classes of log_probs %s",
                        (long long)blank, x->shape[2], fnn_shape_text(x));
    if (reduction < REDUCE_NONE || reduction > REDUCE_SUM)
        return fnn_fail(call, FNN_VALUE_ERROR, "reduction is %lld, but must be 0 (none), 1 (mean) or 2 (sum)",
                        (long long)reduction);
    return FNN_OK;
}

/* ---- lengths and labels ---- */

static int64_t element(const fnn_tensor *t, ptrdiff_t i) { return ((const int64_t *)t->data)[i * t->stride[0]]; }

/* Label k of sequence n. */
static int64_t label_of(const plan *p, ptrdiff_t n, ptrdiff_t k) {
    const fnn_tensor *t = p->a.targets;
    if (t->rank == 1) return element(t, p->extents[n].start + k);
    return ((const int64_t *)t->data)[n * t->stride[0] + k * t->stride[1]];
}

static int check_labels(fnn_call *call, const plan *p, ptrdiff_t n) {
    const ptrdiff_t classes = p->a.log_probs->shape[2];
    char where[64];
    for (ptrdiff_t k = 0; k < p->extents[n].labels; k++) {
        const int64_t label = label_of(p, n, k);
        if (label >= 0 && label < classes && label != p->blank) continue;
        if (p->a.targets->rank == 1) snprintf(where, sizeof where, "%td", p->extents[n].start + k);
        else snprintf(where, sizeof where, "%td, %td", n, k);
        return fnn_fail(call, FNN_INDEX_ERROR, "targets[%s] is %lld, but must be a class between 0 and %td, and not blank (%lld)",
                        where, (long long)label, classes - 1, (long long)p->blank);
    }
    return FNN_OK;
}

static int check_length(fnn_call *call, const char *name, ptrdiff_t n, int64_t length, ptrdiff_t most) {
    if (length >= 0 && length <= most) return FNN_OK;
    return fnn_fail(call, FNN_VALUE_ERROR, "%s[%td] is %lld, but must lie between 0 and %td", name, n, (long long)length, most);
}

static int read_extents(fnn_call *call, plan *p) {
    const ptrdiff_t N = p->a.log_probs->shape[1], all = fnn_numel(p->a.targets), row = most_labels(p->a.targets);
    const int joined = p->a.targets->rank == 1;
    ptrdiff_t start = 0;
    for (ptrdiff_t n = 0; n < N; n++) {
        const int64_t steps = element(p->a.input_lengths, n), labels = element(p->a.target_lengths, n);
        int status = check_length(call, "input_lengths", n, steps, p->a.log_probs->shape[0]);
        if (!status) status = check_length(call, "target_lengths", n, labels, joined ? all - start : row);
        if (status) return status;
        p->extents[n] = (extent){(ptrdiff_t)steps, (ptrdiff_t)labels, start};
        status = check_labels(call, p, n);
        if (status) return status;
        start += joined ? (ptrdiff_t)labels : row;
    }
    if (start != all)
        return fnn_fail(call, FNN_VALUE_ERROR, "target_lengths add up to %td, but targets has %td labels", start, all);
    return FNN_OK;
}

/* ---- what both passes share ---- */

static int make_plan(fnn_call *call, plan *p, arguments a, const fnn_tensor *log_alpha, const fnn_tensor *nll) {
    const ptrdiff_t N = a.log_probs->shape[1];
    char *at = call->shared;
    *p = (plan){.K = fnn_kernels_of(a.log_probs->dtype), .call = call, .a = a, .log_alpha = log_alpha, .nll = nll,
                .blank = call->attr.i[0], .reduction = (int)call->attr.i[1], .zero_infinity = call->attr.i[2] != 0};
    p->extents = fnn_take(&at, (size_t)N * sizeof *p->extents);
    p->losses = at;
    return read_extents(call, p);
}

/* Scratch: the labels of one sequence's states, and the kernel's room. */
static void set_workspace(const arguments *a, fnn_workspace *ws) {
    const size_t N = (size_t)a->log_probs->shape[1], size = fnn_itemsize(a->log_probs->dtype);
    const size_t states = 2 * (size_t)most_labels(a->targets) + 1;
    ws->shared = fnn_whole_lines(N * sizeof(extent)) + N * size;
    ws->scratch = fnn_whole_lines(states * sizeof(int64_t)) + (4 * states + 2) * size;
}

static fnn_ctc sequence_of(const plan *p, ptrdiff_t n, char **scratch) {
    const fnn_tensor *x = p->a.log_probs;
    const extent *e = &p->extents[n];
    const ptrdiff_t labels = p->a.targets->rank == 1 ? e->labels : most_labels(p->a.targets); /* it has room for */
    fnn_ctc q = {.steps = e->steps, .states = 2 * e->labels + 1,
                 .all_steps = x->shape[0], .all_states = 2 * labels + 1, .classes = x->shape[2],
                 .log_probs = fnn_at(x->data, n * x->stride[1], x->dtype), .step = x->stride[0], .class_step = x->stride[2],
                 .alpha_step = p->log_alpha->stride[0], .alpha_state = p->log_alpha->stride[1],
                 .divisor = p->reduction == REDUCE_MEAN ? (double)fnn_max(e->labels, 1) : 1, .zero_infinity = p->zero_infinity};
    int64_t *label = fnn_take(scratch, (size_t)q.states * sizeof *label);
    for (ptrdiff_t s = 0; s < q.states; s++) label[s] = s % 2 ? label_of(p, n, s / 2) : p->blank;
    q.label = label;
    return q;
}

/* Sequence n's first state at the first step. */
static void *alpha_of(const plan *p, ptrdiff_t n) {
    return fnn_at(p->log_alpha->data, (2 * p->extents[n].start + n) * p->log_alpha->stride[1], p->log_alpha->dtype);
}

/* Three exponentials and a logarithm a state, 2 ns in float32 on AVX2. */
static double cost_of(const arguments *a) {
    return (double)a->log_probs->shape[0] * (double)states_of(a) * (a->log_probs->dtype == FNN_FLOAT64 ? 8 : 3);
}

static void set_loss(fnn_tensor *loss, const fnn_call *call, const fnn_tensor *x) {
    fnn_set_shape(loss, x->dtype, call->attr.i[1] == REDUCE_NONE, &x->shape[1]);
}

/* ---- forward ---- */

static int forward_infer(fnn_call *call) {
    const arguments a = arguments_of(call, 0, 1);
    int status = check(call, &a);
    if (status) return status;
    const fnn_tensor *x = a.log_probs;
    set_loss(call->out[0], call, x);
    fnn_set_shape(call->out[1], x->dtype, 1, &x->shape[1]);
    fnn_set_shape(call->out[2], x->dtype, 2, (ptrdiff_t[]){x->shape[0], states_of(&a)});
    return FNN_OK;
}

static void forward_workspace(const fnn_call *call, fnn_workspace *ws) {
    const arguments a = arguments_of(call, 0, 1);
    set_workspace(&a, ws);
}

static double forward_cost(const fnn_call *call) {
    const arguments a = arguments_of(call, 0, 1);
    return cost_of(&a);
}

static void run_forward(void *context, ptrdiff_t n, void *scratch) {
    const plan *p = context;
    const fnn_tensor *loss = p->call->out[0];
    char *at = scratch;
    const fnn_ctc q = sequence_of(p, n, &at);
    void *to = p->reduction == REDUCE_NONE ? fnn_at(loss->data, n * loss->stride[0], loss->dtype)
                                           : fnn_at(p->losses, n, loss->dtype);
    p->K->ctc_forward(&q, alpha_of(p, n), fnn_at(p->nll->data, n * p->nll->stride[0], p->nll->dtype), to, at);
}

/* loss: () or (N); nll: (N); log_alpha: (T, states of all sequences), -infinity past a sequence's own steps and labels;
 * log_probs: (T, N, C); targets: (N, S) or (all labels); input_lengths, target_lengths: (N) */
static int forward_run(fnn_call *call) {
    plan p;
    int status = make_plan(call, &p, arguments_of(call, 0, 1), call->out[2], call->out[1]);
    if (status) return status;
    const ptrdiff_t N = p.a.log_probs->shape[1];
    fnn_parallel_for(call, N, forward_cost(call), run_forward, &p);
    if (p.reduction != REDUCE_NONE)
        p.K->divided_sum(N, p.losses, p.reduction == REDUCE_MEAN ? (double)N : 1, call->out[0]->data);
    return FNN_OK;
}

const fnn_driver fnn_ctc_loss_forward = {
    .infer = forward_infer, .workspace = forward_workspace, .cost = forward_cost, .run = forward_run};

/* ---- backward ---- */

static int backward_infer(fnn_call *call) {
    const arguments a = arguments_of(call, 1, 4);
    const fnn_tensor *dloss = call->in[0], *nll = call->in[2], *alpha = call->in[3];
    int status = check(call, &a);
    if (status) return status;
    fnn_tensor loss = {0};
    set_loss(&loss, call, a.log_probs);
    if (!fnn_same_shape(dloss, &loss))
        return fnn_fail(call, FNN_VALUE_ERROR, "dloss has shape %s, but the loss has %s", fnn_shape_text(dloss),
                        fnn_shape_text(&loss));
    if (nll->rank != 1 || nll->shape[0] != a.log_probs->shape[1] || alpha->rank != 2 ||
        alpha->shape[0] != a.log_probs->shape[0] || alpha->shape[1] != states_of(&a))
        return fnn_fail(call, FNN_VALUE_ERROR, "nll %s and log_alpha %s are not those that forward made of log_probs %s",
                        fnn_shape_text(nll), fnn_shape_text(alpha), fnn_shape_text(a.log_probs));
    fnn_set_like(call->out[0], a.log_probs);
    return FNN_OK;
}

static void backward_workspace(const fnn_call *call, fnn_workspace *ws) {
    const arguments a = arguments_of(call, 1, 4);
    set_workspace(&a, ws);
}

static double backward_cost(const fnn_call *call) {
    const arguments a = arguments_of(call, 1, 4);
    return 1.2 * cost_of(&a) + 0.5 * (double)fnn_numel(a.log_probs);
}

static void run_backward(void *context, ptrdiff_t n, void *scratch) {
    const plan *p = context;
    const fnn_tensor *dloss = p->call->in[0], *dx = p->call->out[0];
    char *at = scratch;
    fnn_ctc q = sequence_of(p, n, &at);
    q.dx_step = dx->stride[0];
    q.dx_class = dx->stride[2];
    if (p->reduction == REDUCE_MEAN) q.divisor *= (double)dx->shape[1];
    p->K->ctc_backward(&q, alpha_of(p, n), fnn_at(p->nll->data, n * p->nll->stride[0], p->nll->dtype),
                       fnn_at(dloss->data, dloss->rank ? n * dloss->stride[0] : 0, dloss->dtype),
                       fnn_at(dx->data, n * dx->stride[1], dx->dtype), at);
}

/* dlog_probs: (T, N, C); dloss: as the loss; the others as forward */
static int backward_run(fnn_call *call) {
    plan p;
    int status = make_plan(call, &p, arguments_of(call, 1, 4), call->in[3], call->in[2]);
    if (!status) fnn_parallel_for(call, p.a.log_probs->shape[1], backward_cost(call), run_backward, &p);
    return status;
}

const fnn_driver fnn_ctc_loss_backward = {
    .infer = backward_infer, .workspace = backward_workspace, .cost = backward_cost, .run = backward_run};
