/* elementwise_optimiser.h: one update of parameters in place, in PyTorch's formulas and order of operations
 * (torch/optim/sgd.py, adam.py). Products and sums are rounded apart, so that all ISAs give the same bits.
 * Scalars that vary from call to call (learning rate, step number) come as in[k]; what they and the attributes make together
 * is computed in double precision, as PyTorch does, once a call. */

INLINE double scalar_input(const void *const *in, int k) { return *(const double *)in[k]; }

/* How an optimiser takes its gradient: negated to maximise; weight decay added to it, or, decoupled, shrinking the parameter. */
typedef struct {
    int maximize, decays;
    vec decay, shrink;
} gradient_rule;

INLINE gradient_rule make_gradient_rule(double lr, double weight_decay, double decoupled, double maximize) {
    int is_decoupled = decoupled != 0;
    return (gradient_rule){.maximize = maximize != 0,
                           .decays = weight_decay != 0 && !is_decoupled,
                           .decay = constant(weight_decay),
                           .shrink = constant(is_decoupled ? 1 - lr * weight_decay : 1)};
}

/* Returns the gradient to use and shrinks the parameter w. Without decay 0 * w must not make NaN of an infinite w. */
INLINE vec take_gradient(const gradient_rule *rule, vec g, vec *w) {
    g = rule->maximize ? vec_neg(g) : g;
    g = rule->decays ? vec_add(g, vec_mul(rule->decay, *w)) : g;
    *w = vec_mul(*w, rule->shrink);
    return g;
}

/* w -= lr g; attr: weight_decay, decoupled, maximize */
static void sgd_step_kernel FNN_ELEMENTWISE_ARGS {
    real *w_out = out[0];
    const real *w_in = in[0], *g_in = in[1];
    const double lr = scalar_input(in, 2);
    const gradient_rule rule = make_gradient_rule(lr, attr[0], attr[1], attr[2]);
    const vec rate = constant(-lr);
    (void)step;
    EACH_LANES(vec w = load_lanes(w_in + i, lanes); vec g = take_gradient(&rule, load_lanes(g_in + i, lanes), &w);
               store_lanes(w_out + i, vec_add(w, vec_mul(rate, g)), lanes););
}

/* m = momentum m + (1 - dampening) g (the first time m = g); w -= lr m, or Nesterov's w -= lr (g + momentum m).
 * attr: momentum, dampening, nesterov, weight_decay, decoupled, maximize, first */
static void sgd_momentum_step_kernel FNN_ELEMENTWISE_ARGS {
    real *w_out = out[0], *m_out = out[1];
    const real *w_in = in[0], *g_in = in[1], *m_in = in[2];
    const double lr = scalar_input(in, 3);
    const gradient_rule rule = make_gradient_rule(lr, attr[3], attr[4], attr[5]);
    const vec rate = constant(-lr), momentum = constant(attr[0]), fresh = constant(1 - attr[1]);
    const int nesterov = attr[2] != 0, first = attr[6] != 0;
    (void)step;
    EACH_LANES(vec w = load_lanes(w_in + i, lanes); vec g = take_gradient(&rule, load_lanes(g_in + i, lanes), &w);
               vec m = first ? g : vec_add(vec_mul(momentum, load_lanes(m_in + i, lanes)), vec_mul(fresh, g));
               vec direction = nesterov ? vec_add(g, vec_mul(momentum, m)) : m;
               store_lanes(m_out + i, m, lanes); store_lanes(w_out + i, vec_add(w, vec_mul(rate, direction)), lanes););
}

/* m += (1 - beta1) (g - m); v = beta2 v + (1 - beta2) g^2; w -= lr / c1 * m / (sqrt(v) / sqrt(c2) + eps), ck = 1 - betak^step
 * (Kingma and Ba, 2015; decoupled: Loshchilov and Hutter, 2019).  attr: beta1, beta2, eps, weight_decay, decoupled, maximize */
static void adam_step_kernel FNN_ELEMENTWISE_ARGS {
    real *w_out = out[0], *m_out = out[1], *v_out = out[2];
    const real *w_in = in[0], *g_in = in[1], *m_in = in[2], *v_in = in[3];
    const double lr = scalar_input(in, 4), t = scalar_input(in, 5), beta1 = attr[0], beta2 = attr[1];
    const gradient_rule rule = make_gradient_rule(lr, attr[3], attr[4], attr[5]);
    const vec rate = constant(-lr / (1 - pow(beta1, t))), root = constant(sqrt(1 - pow(beta2, t))), eps = constant(attr[2]);
    const vec new1 = constant(1 - beta1), old2 = constant(beta2), new2 = constant(1 - beta2);
    (void)step;
    EACH_LANES(vec w = load_lanes(w_in + i, lanes); vec m = load_lanes(m_in + i, lanes); vec v = load_lanes(v_in + i, lanes);
               vec g = take_gradient(&rule, load_lanes(g_in + i, lanes), &w);
               m = vec_add(m, vec_mul(new1, vec_sub(g, m)));
               v = vec_add(vec_mul(old2, v), vec_mul(vec_mul(new2, g), g));
               vec divisor = vec_add(vec_div(vec_sqrt(v), root), eps);
               store_lanes(m_out + i, m, lanes); store_lanes(v_out + i, v, lanes);
               store_lanes(w_out + i, vec_add(w, vec_div(vec_mul(rate, m), divisor)), lanes););
}

/* Running statistics: (1 - momentum) running + momentum scale x; attr: scale */
static void running_update_kernel FNN_ELEMENTWISE_ARGS {
    real *y = out[0];
    const real *running = in[0], *x = in[1];
    const double momentum = scalar_input(in, 2);
    const vec old = constant(1 - momentum), fresh = constant(momentum * attr[0]);
    (void)step;
    EACH_LANES(store_lanes(y + i,
                           vec_add(vec_mul(old, load_lanes(running + i, lanes)), vec_mul(fresh, load_lanes(x + i, lanes))),
                           lanes););
}
