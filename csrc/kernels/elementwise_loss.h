/* elementwise_loss.h: losses of one element. */

INLINE vec mse(vec x, vec target) {
    vec d = vec_sub(x, target);
    return vec_mul(d, d);
}
BINARY(mse_forward, mse(a, b))
TERNARY(mse_backward, vec_mul(vec_mul(vec_set1(2), vec_sub(b, c)), a)) /* dy, x, target */

/* p = delta, divisor: the slope of Huber's loss, which is the difference but within delta of 0, over the divisor; and the loss. */
INLINE vec huber_slope(vec d, const double *p) {
    return vec_div(vec_min(constant(p[0]), vec_max(constant(-p[0]), d)), constant(p[1]));
}
INLINE vec huber(vec d, const double *p) {
    const vec c = vec_min(constant(p[0]), vec_max(constant(-p[0]), d));
    return vec_mul(vec_div(c, constant(p[1])), vec_sub(d, vec_mul(c, vec_set1((real)0.5))));
}
BINARY(huber_forward, huber(vec_sub(a, b), p))
TERNARY(huber_backward, vec_mul(a, huber_slope(vec_sub(b, c), p))) /* dy, x, target */

/* p = shift: (a - b + shift)^2 */
INLINE vec shifted(vec a, vec b, const double *p) { return vec_add(vec_sub(a, b), constant(p[0])); }
BINARY(squared_distance, vec_mul(shifted(a, b, p), shifted(a, b, p)))
TERNARY(squared_distance_backward, vec_mul(a, vec_mul(vec_set1(2), shifted(b, c, p)))) /* dy, a, b */

/* Binary cross-entropy of the logit x, t the target, w the weight of the positive class, in PyTorch's stable form:
 * (1 - t) x + (1 + (w - 1) t) log(1 + exp(-x)), with log(1 + exp(-x)) = log1p(exp(-|x|)) + max(-x, 0). */
INLINE vec bce_with_logits(vec x, vec t, vec w) {
    const vec one = vec_set1(1);
    vec softplus = vec_add(vec_log1p(vec_exp(vec_neg(vec_abs(x)))), vec_max(vec_zero(), vec_neg(x)));
    vec weight = vec_add(vec_mul(vec_sub(w, one), t), one);
    return vec_add(vec_mul(vec_sub(one, t), x), vec_mul(weight, softplus));
}
TERNARY(bce_with_logits_forward, bce_with_logits(a, b, c))

/* dx = dy ((w t + 1 - t) sigmoid(x) - w t) */
static void bce_with_logits_backward_kernel FNN_ELEMENTWISE_ARGS {
    real *dx = out[0];
    const real *dy = in[0], *x = in[1], *target = in[2], *weight = in[3];
    (void)step, (void)attr;
    EACH_LANES(vec t = load_lanes(target + i, lanes); vec wt = vec_mul(load_lanes(weight + i, lanes), t);
               vec s = vec_mul(vec_sub(vec_add(wt, vec_set1(1)), t), vec_sigmoid(load_lanes(x + i, lanes)));
               store_lanes(dx + i, vec_mul(vec_sub(s, wt), load_lanes(dy + i, lanes)), lanes););
}

/* Binary cross-entropy of the probability x, t the target: -(t log x + (1 - t) log(1 - x)), logarithms at least -100; its
 * slope (x - t) / (x (1 - x)), the divisor at least 1e-12: both limits are PyTorch's. NaN stays. */
INLINE vec bce(vec x, vec t) {
    const vec least = vec_set1(-100);
    vec yes = vec_max(least, vec_log(x)), no = vec_max(least, vec_log1p(vec_neg(x)));
    return vec_sub(vec_mul(vec_sub(t, vec_set1(1)), no), vec_mul(t, yes));
}
BINARY(bce_forward, bce(a, b))
TERNARY(bce_backward, vec_mul(a, vec_div(vec_sub(b, c), vec_max(constant(1e-12), vec_mul(b, vec_sub(vec_set1(1), b))))))

/* t (log t - x), 0 where t is 0: a = x, the logarithm of a probability, b = t */
BINARY(kl_div_forward, vec_select(vec_eq(b, vec_zero()), vec_zero(), vec_mul(b, vec_sub(vec_log(b), a))))
