/* fusion.c: rules on a program's list of records. A rule keeps every bit: it only moves correctly rounded steps on single elements,
 * or the choice of one, into the call that makes them, in the eager order, and never changes the order of a sum. */
#include "record.h"

#include <stdlib.h>
#include <string.h>

static const char *const names[FNN_NUM_FUSIONS] = {
#define FUSION(name) #name,
#include "fusions.def"
#undef FUSION
};
const char *fnn_fusion_name(int rule) { return names[rule]; }

static int touches(const record *r, int s) {
    for (int k = 0; k < MAX_OPERANDS; k++)
        if (r->operands[k].storage == s) return 1;
    return 0;
}

/* How many records touch storage s. */
static int count_users(const fnn_program *program, int s) {
    int users = 0;
    for (int r = 0; r < program->num_records; r++)
        for (const record *q = program->records[r]; q; q = q->follower) users += touches(q, s);
    return users;
}

/* Takes record r off the list. */
static record *detach(fnn_program *program, int r) {
    record *taken = program->records[r];
    for (program->num_records--; r < program->num_records; r++) program->records[r] = program->records[r + 1];
    return taken;
}

/* Whether elements lie alike, axes of one element left out: a sequence is a map of one row. */
static int lie_alike(const fnn_tensor *a, const fnn_tensor *b) {
    for (int i = 0, j = 0;; i++, j++) {
        while (i < a->rank && a->shape[i] == 1) i++;
        while (j < b->rank && b->shape[j] == 1) j++;
        if (i == a->rank || j == b->rank) return i == a->rank && j == b->rank;
        if (a->shape[i] != b->shape[j] || a->stride[i] != b->stride[j]) return 0;
    }
}

static int same_view(const operand *a, const operand *b) {
    return a->storage == b->storage && a->offset == b->offset && lie_alike(&a->tensor, &b->tensor);
}

/* `place`, whose elements lie as those of `by`, is where these are; its axes stay as its call wants them. */
static void move_to(operand *place, const operand *by) { place->storage = by->storage, place->offset = by->offset; }

/* product -> ReLU, where nobody else wants the product: the ReLU is applied to each finished tile. Saves one pass over the result
 * (without it a LeNet-5 step takes 2 % longer at batch 256, 1 % at batch 64, both on two Zen 4 cores, as below). */
static int activation_into_product(fnn_program *program, int r) {
    record *product = program->records[r];
    int op = product->call.op, s = product->operands[0].storage;
    if (op != FNN_OP_linear_forward && op != FNN_OP_conv2d_forward) return 0;
    if (product->call.activation || program->storages[s].kind != FNN_TEMPORARY || count_users(program, s) != 2) return 0;
    for (int next = r + 1; next < program->num_records; next++) {
        record *relu = program->records[next];
        if (relu->call.op != FNN_OP_relu_forward || !same_view(&relu->operands[FNN_MAX_ARGS], &product->operands[0])) continue;
        if (!lie_alike(&relu->operands[0].tensor, &product->operands[0].tensor)) return 0;
        if (program->storages[relu->operands[0].storage].kind != FNN_TEMPORARY) return 0; /* lasting writes keep their place */
        product->call.activation = FNN_ACT_RELU;
        move_to(&product->operands[0], &relu->operands[0]);
        free(detach(program, next));
        return 1;
    }
    return 0;
}

/* Whether a record in [from, to), or one behind it, writes storage s, or, with `reads`, touches it at all. */
static int is_used(const fnn_program *program, int from, int to, int s, int reads) {
    for (int r = from; r < to; r++)
        for (const record *q = program->records[r]; q; q = q->follower)
            for (int k = 0; k < (reads ? MAX_OPERANDS : FNN_MAX_ARGS); k++)
                if (q->operands[k].storage == s) return 1;
    return 0;
}

/* The max pooling before record `end` that found the positions `argmax` in the map `x`; -1: none. */
static int pooling_of(const fnn_program *program, int end, const operand *argmax, const operand *x) {
    for (int r = end - 1; r >= 0; r--) {
        const record *q = program->records[r];
        if (q->call.op != FNN_OP_max_pool2d_forward || !same_view(&q->operands[1], argmax)) continue;
        return same_view(&q->operands[FNN_MAX_ARGS], x) ? r : -1;
    }
    return -1;
}

/* The record before `end` that makes the storage s; -1: none. */
static int maker_of(const fnn_program *program, int end, int s) {
    for (int r = end - 1; r >= 0; r--)
        if (program->records[r]->operands[0].storage == s) return r;
    return -1;
}

/* The pooled map that pooling record f made, in the order in which its gradient `dy` lies: itself, or, where it was flattened
 * before a linear layer, that copy, and `dy` as the layer makes it. Returns which record made it; -1: neither. */
static int pooled_like(const fnn_program *program, int f, int b, operand *pooled, operand *dy) {
    *pooled = program->records[f]->operands[0];
    if (lie_alike(&pooled->tensor, &dy->tensor)) return f;
    if (!fnn_is_contiguous(&dy->tensor)) return -1;
    for (int c = f + 1; c < b; c++) {
        const record *copy = program->records[c];
        const operand *flat = &copy->operands[0];
        if (copy->call.op != FNN_OP_contiguous || !same_view(&copy->operands[FNN_MAX_ARGS], pooled)) continue;
        if (is_used(program, f + 1, c, pooled->storage, 0)) return -1;
        const int m = maker_of(program, b, dy->storage);
        const operand *made = m < 0 ? dy : &program->records[m]->operands[0];
        if (made->offset != dy->offset || fnn_numel(&made->tensor) != fnn_numel(&dy->tensor)) made = dy;
        if (fnn_is_contiguous(&made->tensor)) dy->tensor = made->tensor;
        *pooled = (operand){flat->storage, flat->offset, dy->tensor};
        return c;
    }
    return -1;
}

static void move_up(fnn_program *program, int from, int to) {
    record *moved = program->records[from];
    for (; from > to; from--) program->records[from] = program->records[from - 1];
    program->records[to] = moved;
}

/* max pooling's gradient -> ReLU's: a gradient goes to the position of its window's maximum, where the map holds that maximum, so
 * ReLU's mask can be taken from the small pooled map before, and the large map is not read again (without it a LeNet-5
 * step takes 2.5 % longer at batch 64, 1.7 % at batch 256). */
static int relu_gradient_before_pooling(fnn_program *program, int r) {
    enum { X = FNN_MAX_ARGS };
    record *relu = program->records[r];
    if (relu->call.op != FNN_OP_relu_backward) return 0;
    const operand scattered = relu->operands[X], map = relu->operands[X + 1], dx = relu->operands[0];
    int b = r - 1;
    while (b >= 0 && !(program->records[b]->call.op == FNN_OP_max_pool2d_backward &&
                       same_view(&program->records[b]->operands[0], &scattered)))
        b--;
    if (b < 0 || count_users(program, scattered.storage) != 2) return 0;
    if (program->storages[scattered.storage].kind != FNN_TEMPORARY || program->storages[dx.storage].kind != FNN_TEMPORARY) return 0;
    record *pooling = program->records[b];
    const int f = pooling_of(program, b, &pooling->operands[X + 1], &map);
    if (f < 0 || !lie_alike(&scattered.tensor, &dx.tensor)) return 0;
    operand pooled, dy = pooling->operands[X];
    const int made = pooled_like(program, f, b, &pooled, &dy);
    if (made < 0 || is_used(program, made + 1, r, pooled.storage, 0) || is_used(program, f, r, map.storage, 0)) return 0;
    if (is_used(program, b + 1, r, dx.storage, 1) || is_used(program, b, b + 1, dx.storage, 1)) return 0;
    const int masked = fnn_program_add_storage(program, (size_t)fnn_numel(&dy.tensor) * fnn_itemsize(dy.tensor.dtype));
    if (masked < 0) return 0;
    program->storages[masked].kind = FNN_TEMPORARY;
    relu->operands[0] = (operand){masked, 0, dy.tensor};
    relu->operands[X] = dy;
    relu->operands[X + 1] = pooled;
    pooling->operands[X] = (operand){masked, 0, pooling->operands[X].tensor};
    move_to(&pooling->operands[0], &dx);
    move_up(program, r, b);
    return 1;
}

/* Drivers that run what follows them, see fnn_follow. */
static int can_be_followed(const record *r) {
    switch (r->call.op) {
    case FNN_OP_linear_backward_input:
    case FNN_OP_linear_backward_weight:
    case FNN_OP_conv2d_forward:
    case FNN_OP_conv2d_backward_input:
    case FNN_OP_conv2d_backward_weight:
    case FNN_OP_max_pool2d_backward:
    case FNN_OP_avg_pool2d_backward:
    case FNN_OP_batch_norm_forward:
    case FNN_OP_batch_norm_inference:
    case FNN_OP_batch_norm_backward: return 1;
    default: return fnn_ops[r->call.op].flags & FNN_ELEMENTWISE;
    }
}

/* Whether every operand lies in memory like `like`, or is an input of one element that the kernel repeats by itself. */
static int lies_like(const record *r, const fnn_tensor *like) {
    const unsigned scalars = fnn_scalar_inputs(r->call.op);
    for (int k = 0; k < MAX_OPERANDS; k++) {
        const fnn_tensor *t = &r->operands[k].tensor;
        if (r->operands[k].storage < 0 || lie_alike(t, like)) continue;
        if (k < FNN_MAX_ARGS || !fnn_is_one_element(t)) return 0;
        if (!(scalars >> (k - FNN_MAX_ARGS) & 1) && !fnn_repeats_inputs(&r->call)) return 0;
    }
    return 1;
}

/* Whether values may end the call: bad labels or indices, integers that are read as positions (not just copied, as batch norm's
 * counts), and what its op says. */
static int may_fail(const record *r) {
    if (r->call.op == FNN_OP_copy) return 0;
    if (fnn_ops[r->call.op].flags & FNN_MAY_FAIL) return 1;
    for (int k = FNN_MAX_ARGS; k < MAX_OPERANDS; k++)
        if (r->operands[k].storage >= 0 && r->operands[k].tensor.dtype == FNN_INT64) return 1;
    return 0;
}

/* Whether `f`, which may run within the chain of record r, part by part, reads what the chain makes; -1: it meets the chain's memory
 * elsewhere than in those parts. */
static int meets_chain(const fnn_program *program, int r, const record *f) {
    const record *head = program->records[r];
    int reads = 0;
    for (const record *q = head; q; q = q->follower)
        for (int k = 0; k < MAX_OPERANDS; k++)
            for (int j = 0; j < MAX_OPERANDS && q->operands[k].storage >= 0; j++) {
                const operand *mine = &f->operands[j], *its = &q->operands[k];
                if (mine->storage != its->storage) continue;
                if (k >= FNN_MAX_ARGS && j >= FNN_MAX_ARGS) continue; /* both read it */
                int by_parts = q != head || k == 0 || (fnn_ops[head->call.op].flags & FNN_ELEMENTWISE);
                if (!by_parts || !same_view(mine, its)) return -1;
                reads |= j >= FNN_MAX_ARGS && k < FNN_MAX_ARGS;
            }
    return reads;
}

/* Whether record `next` may move up behind record r: nobody in between, but `partner`, shares what it writes, or writes what it reads,
 * and no lasting write comes before a call that may fail. */
static int can_move_up_with(const fnn_program *program, int r, int next, int partner) {
    const record *f = program->records[next];
    const int lasts = fnn_writes_fixed(program, f);
    for (int i = r + 1; i < program->num_records; i++)
        for (const record *q = program->records[i]; q; q = q->follower) {
            if (i < next && i != partner && fnn_depends_on(f, q)) return 0;
            if (lasts && i != next && may_fail(q)) return 0;
        }
    return 1;
}

static int can_move_up(const fnn_program *program, int r, int next) { return can_move_up_with(program, r, next, -1); }

/* Whether `next` may take the place of record r's result, which nobody else wants: it writes nothing that r reads. */
static int takes_result(const fnn_program *program, int r, const record *next) {
    const record *head = program->records[r];
    const int s = head->operands[0].storage;
    for (int k = 0; k < FNN_MAX_ARGS; k++)
        if (next->operands[k].storage >= 0 && touches(head, next->operands[k].storage)) return 0;
    return program->storages[s].kind == FNN_TEMPORARY && count_users(program, s) == 2 &&
           same_view(&next->operands[FNN_MAX_ARGS], &head->operands[0]);
}

/* convolution (-> ReLU) -> max pooling, where nobody else wants the convolution's map, not even ReLU's gradient (see
 * relu_gradient_before_pooling), and its driver can pool what it has before it is turned into channels last: that map is never in
 * memory. (Without it a step of LeNet-5 takes 5 % longer at batch 256, 4 % at batch 64, on two cores of a Granite Rapids.) */
static int pooling_into_convolution(fnn_program *program, int r) {
    record *head = program->records[r];
    const fnn_driver *driver = fnn_ops[head->call.op].driver;
    if (!driver->can_pool || head->follower) return 0;
    for (int next = r + 1; next < program->num_records; next++) {
        record *f = program->records[next];
        if (f->call.op != FNN_OP_max_pool2d_forward && f->call.op != FNN_OP_max_pool2d_values) continue;
        if (f->follower || !takes_result(program, r, f) || !can_move_up(program, r, next)) continue;
        if (!driver->can_pool(&head->call, &f->call)) return 0;
        head->follower = detach(program, next);
        head->call.pooling = &head->follower->call;
        program->storages[head->operands[0].storage].kind = FNN_PASSED;
        return 1;
    }
    return 0;
}

/* Whether a lasting write, `moved`, may not go ahead of a record and what is behind it: one may fail, or is depended on. */
static int is_in_the_way(const record *moved, const record *r) {
    for (; r; r = r->follower)
        if (may_fail(r) || (moved && fnn_depends_on(moved, r))) return 1;
    return 0;
}

/* A step's lasting counts, single elements that its updates read, go before the updates' gradients: nothing is then between a
 * gradient and its update, which may follow it. (VGG-16 at batch 4 with Adam: a plan of 220 in place of 754 MB; in time no
 * difference.) */
static int counts_before_gradients(fnn_program *program, int r) {
    record *const *records = program->records;
    const record *count = records[r];
    int to = r;
    if (!(fnn_ops[count->call.op].flags & FNN_ELEMENTWISE) || !fnn_writes_fixed(program, count)) return 0;
    if (fnn_numel(&count->operands[0].tensor) != 1) return 0;
    for (int next = r + 1; next < program->num_records; next++)
        if (is_in_the_way(NULL, records[next])) return 0;
    while (to > 0 && !is_in_the_way(count, records[to - 1])) to--;
    if (to == r) return 0;
    move_up(program, r, to);
    return 1;
}

static void replace(record *r, int s, const operand *by) {
    for (int k = 0; k < MAX_OPERANDS; k++)
        if (r->operands[k].storage == s) move_to(&r->operands[k], by);
}

/* Where the chain's last result is wanted by f and nobody else, f's result takes its place: one buffer less goes through the
 * caches and into the arena. */
static void write_in_place(fnn_program *program, record *head, const record *last, record *f) {
    const int s = last->operands[0].storage;
    int members = 0;
    for (const record *q = head; q; q = q->follower) {
        if (touches(q, f->operands[0].storage)) return;
        members += touches(q, s);
    }
    if (!touches(f, s) || program->storages[s].kind != FNN_TEMPORARY || count_users(program, s) != members + 1) return;
    if (f->call.out[1] || f->operands[0].tensor.dtype != last->operands[0].tensor.dtype) return;
    for (int k = FNN_MAX_ARGS; k < MAX_OPERANDS; k++)
        if (f->operands[k].storage == f->operands[0].storage) return; /* f works in place on something else */
    replace(f, s, &f->operands[0]);
    for (record *q = head; q; q = q->follower) replace(q, s, &f->operands[0]);
}

/* Whether a record may run behind another: elementwise on memory that lies like what that one makes. */
static int can_follow(const record *f, const record *head) {
    return (fnn_ops[f->call.op].flags & FNN_ELEMENTWISE) && f->call.flush == head->call.flush && lies_like(f, &head->operands[0].tensor);
}

/* Whether two records meet, where one of them writes, in the same elements only. */
static int meet_alike(const record *a, const record *b) {
    for (int k = 0; k < MAX_OPERANDS; k++)
        for (int j = 0; j < MAX_OPERANDS && a->operands[k].storage >= 0; j++) {
            if (a->operands[k].storage != b->operands[j].storage || (k >= FNN_MAX_ARGS && j >= FNN_MAX_ARGS)) continue;
            if (!same_view(&a->operands[k], &b->operands[j])) return 0;
        }
    return 1;
}

/* The only record between r and `next` that keeps this one from moving up, and may run in the chain before it, as a penalty's gradient
 * may between that of the weights and their sum; -1: none. */
static int partner_of(const fnn_program *program, int r, int next) {
    const record *f = program->records[next];
    int i = r + 1;
    while (i < next && !fnn_depends_on(f, program->records[i])) i++;
    if (i == next || !can_move_up_with(program, r, next, i) || !can_move_up(program, r, i)) return -1;
    const record *e = program->records[i];
    return !e->follower && can_follow(e, program->records[r]) && !meets_chain(program, r, e) && meet_alike(f, e) ? i : -1;
}

static record *append(fnn_program *program, record *last, int next) {
    last->follower = detach(program, next);
    last->call.follower = &last->follower->call;
    return last->follower;
}

/* A dense elementwise call moves behind the call that makes its input, and runs on each part of the result while it is in cache:
 * updates behind weight gradients, ReLU and residual sums behind batch normalisation, ReLU's gradient behind pooling's. Every
 * element goes through the same kernels in the same order. Most is gained where weights are the traffic: without it a step of an
 * MLP 784-256-10 takes 26 % longer at batch 4, 8 % at batch 64; one of ResNet-20 at batch 32 3.5 %, of LeNet-5 1 %. */
static int elementwise_behind(fnn_program *program, int r) {
    record *head = program->records[r], *last = head;
    const fnn_tensor *made = &head->operands[0].tensor;
    int made_by = head->operands[0].storage, fused = 0;
    if (!can_be_followed(head) || head->call.pooling || made_by < 0 || !fnn_is_dense(made)) return 0;
    if ((fnn_ops[head->call.op].flags & FNN_ELEMENTWISE) && !lies_like(head, made)) return 0;
    for (int next = r + 1; next < program->num_records; next++) {
        record *f = program->records[next];
        if (!can_follow(f, head) || meets_chain(program, r, f) <= 0) continue;
        const int moves = can_move_up(program, r, next), partner = moves ? -1 : partner_of(program, r, next);
        if (!moves && partner < 0) continue;
        if (partner >= 0) last = append(program, last, partner), next--, fused++;
        write_in_place(program, head, last, f);
        last = append(program, last, next--);
        fused++;
    }
    return fused;
}

/* A result that nobody wants but the calls behind its own, as gradients are that a step uses for its updates and forgets,
 * never gets memory of its own: its maker hands them one part after another from a small buffer (or, if it skips zeros, all of at most
 * some MB from what it works in). (VGG-16's first steps at batch 4: 1,360 in place of 1,721 MB; a step of an MLP 784-256-10 at batch 4
 * takes 7 % longer without, on two Zen 3 cores; at batch 64 no difference.) */
static int result_passed_on(fnn_program *program, int r) {
    record *head = program->records[r];
    const int s = head->operands[0].storage;
    const fnn_driver *driver = fnn_ops[head->call.op].driver;
    int members = 0;
    if (!head->follower || program->storages[s].kind != FNN_TEMPORARY) return 0;
    if (!driver->can_pass || !driver->can_pass(&head->call)) return 0;
    for (const record *q = head; q; q = q->follower) {
        members += touches(q, s);
        for (int k = 0; k < MAX_OPERANDS; k++)
            if (q->operands[k].storage == s && !same_view(&q->operands[k], &head->operands[0])) return 0;
    }
    if (count_users(program, s) != members) return 0;
    head->call.passes = 1;
    program->storages[s].kind = FNN_PASSED;
    return 1;
}

/* Whether record q, and what is behind it, reads nothing of storage s but the gradient that max pooling, `pooling`, makes there, and
 * could take it from what that one reads. */
static int reads_pooling_gradient(const record *q, const record *pooling) {
    enum { X = FNN_MAX_ARGS };
    const int s = pooling->operands[0].storage;
    const fnn_driver *driver = fnn_ops[q->call.op].driver;
    for (const record *f = q->follower; f; f = f->follower)
        if (touches(f, s)) return 0;
    for (int k = 0; k < MAX_OPERANDS; k++)
        if (k != X && q->operands[k].storage == s) return 0;
    if (!same_view(&q->operands[X], &pooling->operands[0]) || !driver->can_unpool) return 0;
    return fnn_same_shape(&q->operands[X].tensor, &pooling->operands[0].tensor) && driver->can_unpool(&q->call, &pooling->call);
}

/* Whether the positions that record r, max pooling's gradient, reads are those of a pooling with its windows: one in each. */
static int has_positions(const fnn_program *program, int r) {
    const record *gradient = program->records[r];
    const operand *argmax = &gradient->operands[FNN_MAX_ARGS + 1];
    for (int f = r - 1; f >= 0; f--)
        for (const record *q = program->records[f]; q; q = q->follower) {
            if (q->operands[1].storage != argmax->storage || q->call.op != FNN_OP_max_pool2d_forward) continue;
            return same_view(&q->operands[1], argmax) && !memcmp(q->call.attr.i, gradient->call.attr.i + 2, 8 * sizeof(int64_t)) &&
                   !is_used(program, f + 1, r, argmax->storage, 0);
        }
    return 0;
}

/* Points the call of a copied record at its own operands. */
static void own_arguments(record *r) {
    for (int k = 0; k < FNN_MAX_ARGS; k++) {
        if (r->call.out[k]) r->call.out[k] = &r->operands[k].tensor;
        if (r->call.in[k]) r->call.in[k] = &r->operands[FNN_MAX_ARGS + k].tensor;
    }
}

enum { MOST_READERS = 4 };

/* The readers of a pooling's gradient, `pooling`, record r without memory for its result: their numbers in `readers`; 0: it has others. */
static int find_readers(const fnn_program *program, int r, const record *pooling, int *readers) {
    const int s = pooling->operands[0].storage;
    int count = 0;
    for (int next = 0; next < program->num_records; next++) {
        const record *q = program->records[next];
        int is_user = 0;
        for (const record *f = q; f; f = f->follower) is_user |= touches(f, s);
        if (!is_user || next == r) continue;
        if (next < r || count == MOST_READERS || !reads_pooling_gradient(q, pooling)) return 0;
        for (int k = 0; k < 2; k++)
            if (is_used(program, r + 1, next + 1, program->records[r]->operands[FNN_MAX_ARGS + k].storage, 0)) return 0;
        readers[count++] = next;
    }
    return count;
}

/* The record that turns dy of a pooling's gradient, as a linear layer behind it makes it, to channels last, as readers want it: it takes
 * that one's place. Returns 0 where there is no memory. */
static int turn_gradient(fnn_program *program, int r, record *pooling) {
    operand *dy = &pooling->operands[FNN_MAX_ARGS];
    record *turn = calloc(1, sizeof *turn);
    const int s = turn ? fnn_program_add_storage(program, (size_t)fnn_numel(&dy->tensor) * fnn_itemsize(dy->tensor.dtype)) : -1;
    if (s < 0) {
        free(turn);
        return 0;
    }
    program->storages[s].kind = FNN_TEMPORARY;
    for (int k = 0; k < MAX_OPERANDS; k++) turn->operands[k].storage = -1;
    turn->call.op = FNN_OP_copy, turn->call.flush = pooling->call.flush, turn->number = pooling->number;
    turn->operands[FNN_MAX_ARGS] = program->records[r]->operands[FNN_MAX_ARGS];
    dy->storage = s, dy->offset = 0;
    turn->operands[0] = *dy;
    turn->call.out[0] = &turn->operands[0].tensor, turn->call.in[0] = &turn->operands[FNN_MAX_ARGS].tensor;
    free(program->records[r]);
    program->records[r] = turn;
    return 1;
}

/* Puts `pooling`, record r without memory for its result, in front of each of its readers; dy is turned first, if it must be. Returns
 * whether there was memory for that. */
static int put_before_readers(fnn_program *program, int r, record *pooling, int turns, int count, const int *readers) {
    record *copies[MOST_READERS];
    int made = 0;
    while (made < count && (copies[made] = malloc(sizeof *copies[made]))) made++;
    if (made < count || (turns && !turn_gradient(program, r, pooling))) {
        while (made > 0) free(copies[--made]);
        return 0;
    }
    for (int i = 0; i < count; i++) {
        record *reader = program->records[readers[i]];
        *copies[i] = *pooling;
        own_arguments(copies[i]);
        copies[i]->follower = reader, copies[i]->call.reader = &reader->call;
        program->records[readers[i]] = copies[i];
    }
    if (!turns) free(detach(program, r));
    return 1;
}

/* max pooling's gradient -> the gradients of the convolution that made the map: most of it is zeros, which these need not read or
 * multiply, so it is never in memory. Each of them has the pooling in front of it. (Without it a step of LeNet-5 takes 29 % longer at
 * batch 256, 24 % at 64, on two cores of a Granite Rapids; with AVX2, where only the first layer's are, 22 and 19 %.) */
static int pooling_gradient_into_readers(fnn_program *program, int r) {
    enum { X = FNN_MAX_ARGS };
    record pooling = *program->records[r];
    const operand dy = pooling.operands[X];
    const int s = pooling.operands[0].storage;
    int readers[MOST_READERS];
    if (pooling.call.op != FNN_OP_max_pool2d_backward || pooling.follower || pooling.call.reader) return 0;
    if (program->storages[s].kind != FNN_TEMPORARY || !has_positions(program, r)) return 0;
    own_arguments(&pooling);
    fnn_set_shape(&pooling.operands[X].tensor, dy.tensor.dtype, dy.tensor.rank, dy.tensor.shape);
    const int count = find_readers(program, r, &pooling, readers), turns = !lie_alike(&dy.tensor, &pooling.operands[X].tensor);
    if (!count || !put_before_readers(program, r, &pooling, turns, count, readers)) return 0;
    program->storages[s].kind = FNN_PASSED;
    return count;
}

/* Whether record q reads the rows that `select` picks, all of them and nothing else of them, and could take them where they lie. */
static int reads_rows(const record *q, const record *select) {
    const int s = select->operands[0].storage;
    const fnn_driver *driver = fnn_ops[q->call.op].driver;
    int reads = 0;
    if (!driver->can_read_rows) return 0;
    for (const record *f = q->follower; f; f = f->follower)
        if (touches(f, s)) return 0;
    for (int k = 0; k < MAX_OPERANDS; k++) {
        const operand *x = &q->operands[k];
        if (x->storage != s) continue;
        const int is_whole = x->offset == select->operands[0].offset && fnn_numel(&x->tensor) == fnn_numel(&select->operands[0].tensor);
        const int is_matrix = x->tensor.rank == 2 && x->tensor.shape[0] == select->operands[0].tensor.shape[0];
        if (k < FNN_MAX_ARGS || reads++ || !is_whole || !is_matrix || !fnn_is_contiguous(&x->tensor)) return 0;
        if (!driver->can_read_rows(&q->call, k - FNN_MAX_ARGS)) return 0;
    }
    return reads;
}

/* Rows of a data set that a batch picks -> the products that read them, and nobody else: as long as these skip zeros, they read the rows
 * where they lie, and nobody copies them. (Without it an epoch of 784-50-10 on MNIST takes 12 to 17 % longer on two Zen 3 cores, 11 to
 * 13 % on one.) */
static int rows_read_in_place(fnn_program *program, int r) {
    enum { X = FNN_MAX_ARGS };
    record *select = program->records[r];
    const operand *from = &select->operands[X], *picked = &select->operands[0];
    if (select->call.op != FNN_OP_index_select || select->call.attr.i[0] || select->operands[X + 1].tensor.rank != 1) return 0;
    if (program->storages[picked->storage].kind != FNN_TEMPORARY || program->storages[from->storage].kind == FNN_TEMPORARY) return 0;
    if (select->follower || !fnn_is_contiguous(&from->tensor) || !fnn_is_contiguous(&picked->tensor)) return 0;
    int last = r;
    for (int next = 0; next < program->num_records; next++) {
        if (next == r || !is_used(program, next, next + 1, picked->storage, 1)) continue;
        if (next < r || !reads_rows(program->records[next], select)) return 0;
        last = next;
    }
    if (last == r || is_used(program, r + 1, last + 1, from->storage, 0)) return 0;
    for (int next = r + 1; next <= last; next++)
        if (touches(program->records[next], picked->storage)) program->records[next]->call.picking = &select->call;
    select->call.is_late = 1;
    return 1;
}

void fnn_fuse(fnn_program *program) {
    static int (*const rules[FNN_NUM_FUSIONS])(fnn_program *, int) = {
#define FUSION(name) name,
#include "fusions.def"
#undef FUSION
    };
    for (int rule = 0; rule < FNN_NUM_FUSIONS; rule++)
        for (int r = 0; r < program->num_records; r++) program->fusions[rule] += rules[rule](program, r);
}
