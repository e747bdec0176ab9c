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
 * attr: dampening, nesterov, weight_decay, decoupled, maximize, first */
static void sgd_momentum_step_kernel FNN_ELEMENTWISE_ARGS {
    real *w_out = out[0], *m_out = out[1];
    const real *w_in = in[0], *g_in = in[1], *m_in = in[2];
    const double lr = scalar_input(in, 3);
    const gradient_rule rule = make_gradient_rule(lr, attr[2], attr[3], attr[4]);
    const vec rate = constant(-lr), momentum = constant(scalar_input(in, 4)), fresh = constant(1 - attr[0]);
    const int nesterov = attr[1] != 0, first = attr[5] != 0;
    (void)step;
    EACH_LANES(vec w = load_lanes(w_in + i, lanes); vec g = take_gradient(&rule, load_lanes(g_in + i, lanes), &w);
               vec m = first ? g : vec_add(vec_mul(momentum, load_lanes(m_in + i, lanes)), vec_mul(fresh, g));
               vec direction = nesterov ? vec_add(g, vec_mul(momentum, m)) : m;
               store_lanes(m_out + i, m, lanes); store_lanes(w_out + i, vec_add(w, vec_mul(rate, direction)), lanes););
}

/* Averaged descent: w = (1 - lambd eta) w - eta g; ax += mu (w - ax), or ax = w while mu = 1  (Polyak and Juditsky, 1992; Bottou's
 * rates). attr: lambd, weight_decay, maximize */
static void asgd_step_kernel FNN_ELEMENTWISE_ARGS {
    real *w_out = out[0], *ax_out = out[1];
    const real *w_in = in[0], *g_in = in[1], *ax_in = in[2];
    const double eta = scalar_input(in, 3), mu = scalar_input(in, 4);
    const gradient_rule rule = make_gradient_rule(eta, attr[1], 0, attr[2]);
    const vec rate = constant(-eta), shrink = constant(1 - attr[0] * eta), share = constant(mu);
    const int averages = mu != 1;
    (void)step;
    EACH_LANES(vec w = load_lanes(w_in + i, lanes); vec g = take_gradient(&rule, load_lanes(g_in + i, lanes), &w);
               vec ax = load_lanes(ax_in + i, lanes);
               w = vec_add(vec_mul(w, shrink), vec_mul(rate, g));
               store_lanes(w_out + i, w, lanes);
               store_lanes(ax_out + i, averages ? vec_add(ax, vec_mul(share, vec_sub(w, ax))) : w, lanes););
}

/* The next step's rate eta = lr / (1 + lambd lr t)^alpha and share mu = 1 / max(1, t - t0) in asgd_step, after step t.
 * attr: lambd, alpha, t0 */
static void asgd_rates_kernel FNN_ELEMENTWISE_ARGS {
    real *eta = out[0], *mu = out[1];
    const double lr = scalar_input(in, 2), t = scalar_input(in, 3), late = t - attr[2];
    const vec next_eta = constant(lr / pow(1 + attr[0] * lr * t, attr[1])), next_mu = constant(late > 1 ? 1 / late : 1);
    (void)step;
    EACH_LANES(store_lanes(eta + i, next_eta, lanes); store_lanes(mu + i, next_mu, lanes););
}

/* Each element has a step size of its own, lr at the first step t = 1. Where gradient and last gradient have one sign it grows by
 * eta_plus, where they differ it shrinks by eta_minus and the gradient counts as 0; w -= size sign(g)  (Riedmiller and Braun,
 * 1993). attr: eta_minus, eta_plus, least, most, maximize */
static void rprop_step_kernel FNN_ELEMENTWISE_ARGS {
    real *w_out = out[0], *last_out = out[1], *size_out = out[2];
    const real *w_in = in[0], *g_in = in[1], *last_in = in[2], *size_in = in[3];
    const vec lr = constant(scalar_input(in, 4)), shrink = constant(attr[0]), grow = constant(attr[1]);
    const vec least = constant(attr[2]), most = constant(attr[3]), zero = vec_zero(), one = constant(1);
    const int first = scalar_input(in, 5) == 1, maximize = attr[4] != 0;
    (void)step;
    EACH_LANES(vec g = load_lanes(g_in + i, lanes); vec size = first ? lr : load_lanes(size_in + i, lanes);
               g = maximize ? vec_neg(g) : g;
               vec product = vec_mul(g, load_lanes(last_in + i, lanes));
               mask turned = vec_lt(product, zero);
               vec factor = vec_select(turned, shrink, vec_select(vec_lt(zero, product), grow, one));
               size = minimum_formula(maximum_formula(vec_mul(size, factor), least, NULL), most, NULL);
               g = vec_select(turned, zero, g);
               store_lanes(last_out + i, g, lanes); store_lanes(size_out + i, size, lanes);
               vec w = load_lanes(w_in + i, lanes);
               store_lanes(w_out + i, vec_sub(w, vec_mul(sign_formula(g, NULL), size)), lanes););
}

/* The means m of gradients and v of their squares that Adam's relatives share. */
INLINE vec first_moment(vec m, vec g, vec fresh) { return vec_add(m, vec_mul(fresh, vec_sub(g, m))); }
INLINE vec second_moment(vec v, vec g, vec old, vec fresh) {
    return vec_add(vec_mul(old, v), vec_mul(vec_mul(fresh, g), g));
}

/* beta^t, kept for the next part of a gradient that the update follows: a power takes as long as hundreds of elements. */
typedef struct {
    double beta, t, power;
} step_power;

INLINE double power_of(step_power *kept, double beta, double t) {
    if (kept->beta != beta || kept->t != t) *kept = (step_power){beta, t, pow(beta, t)};
    return kept->power;
}

/* m += (1 - beta1) (g - m); v = beta2 v + (1 - beta2) g^2; w -= lr / c1 * m / (sqrt(v / c2) + eps), ck = 1 - betak^step
 * (Kingma and Ba, 2015; decoupled: Loshchilov and Hutter, 2019). Multiplied through by sqrt(c2), which leaves one division: in
 * cache two take a third longer. x: out and in, or NULL: the largest v so far, whose root it divides by instead (AMSGrad: Reddi,
 * Kale and Kumar, 2018). t: the step's number. epsilon_hat: eps beside sqrt(v), as v is (Kingma and Ba, end of section 2).
 * attr: beta2, eps, weight_decay, decoupled, maximize, epsilon_hat */
INLINE void adam(ptrdiff_t n, void *const *out, const void *const *in, real *x_out, const real *x_in, double lr, double beta1,
                 double t, const double *attr) {
    real *w_out = out[0], *m_out = out[1], *v_out = out[2];
    const real *w_in = in[0], *g_in = in[1], *m_in = in[2], *v_in = in[3];
    const gradient_rule rule = make_gradient_rule(lr, attr[2], attr[3], attr[4]);
    static _Thread_local step_power power1 = {0, 0, 1}, power2 = {0, 0, 1};
    const double beta2 = attr[0], root = sqrt(1 - power_of(&power2, beta2, t));
    const vec rate = constant(-lr / (1 - power_of(&power1, beta1, t)) * root), eps = constant(attr[5] != 0 ? attr[1] : attr[1] * root);
    const vec new1 = constant(1 - beta1), old2 = constant(beta2), new2 = constant(1 - beta2);
    EACH_LANES(vec w = load_lanes(w_in + i, lanes); vec m = load_lanes(m_in + i, lanes); vec v = load_lanes(v_in + i, lanes);
               vec g = take_gradient(&rule, load_lanes(g_in + i, lanes), &w);
               m = first_moment(m, g, new1);
               v = second_moment(v, g, old2, new2);
               store_lanes(m_out + i, m, lanes); store_lanes(v_out + i, v, lanes);
               if (x_in) {
                   v = maximum_formula(load_lanes(x_in + i, lanes), v, NULL);
                   store_lanes(x_out + i, v, lanes);
               }
               store_lanes(w_out + i, vec_add(w, vec_div(vec_mul(rate, m), vec_add(vec_sqrt(v), eps))), lanes););
}
static void adam_step_kernel FNN_ELEMENTWISE_ARGS {
    (void)step;
    adam(n, out, in, NULL, NULL, scalar_input(in, 4), scalar_input(in, 5), scalar_input(in, 6), attr);
}
static void adam_amsgrad_step_kernel FNN_ELEMENTWISE_ARGS {
    (void)step;
    adam(n, out, in, out[3], in[4], scalar_input(in, 5), scalar_input(in, 6), scalar_input(in, 7), attr);
}

/* m += (1 - beta1) (g - m); u = max(beta2 u, |g| + eps); w -= lr / (1 - beta1^step) m / u  (Kingma and Ba, 2015, section 7.1).
 * attr: beta2, eps, weight_decay, maximize */
static void adamax_step_kernel FNN_ELEMENTWISE_ARGS {
    real *w_out = out[0], *m_out = out[1], *u_out = out[2];
    const real *w_in = in[0], *g_in = in[1], *m_in = in[2], *u_in = in[3];
    const double lr = scalar_input(in, 4), beta1 = scalar_input(in, 5), t = scalar_input(in, 6);
    const gradient_rule rule = make_gradient_rule(lr, attr[2], 0, attr[3]);
    static _Thread_local step_power power1 = {0, 0, 1};
    const vec rate = constant(-lr / (1 - power_of(&power1, beta1, t))), new1 = constant(1 - beta1), old2 = constant(attr[0]);
    const vec eps = constant(attr[1]);
    (void)step;
    EACH_LANES(vec w = load_lanes(w_in + i, lanes); vec g = take_gradient(&rule, load_lanes(g_in + i, lanes), &w);
               vec m = first_moment(load_lanes(m_in + i, lanes), g, new1);
               vec u = maximum_formula(vec_mul(old2, load_lanes(u_in + i, lanes)), vec_add(vec_abs(g), eps), NULL);
               store_lanes(m_out + i, m, lanes); store_lanes(u_out + i, u, lanes);
               store_lanes(w_out + i, vec_add(w, vec_div(vec_mul(rate, m), u)), lanes););
}

/* s += g^2; w -= lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps)  (Duchi, Hazan and Singer, 2011).
 * attr: lr_decay, eps, weight_decay, maximize */
static void adagrad_step_kernel FNN_ELEMENTWISE_ARGS {
    real *w_out = out[0], *s_out = out[1];
    const real *w_in = in[0], *g_in = in[1], *s_in = in[2];
    const double lr = scalar_input(in, 3), t = scalar_input(in, 4);
    const gradient_rule rule = make_gradient_rule(lr, attr[2], 0, attr[3]);
    const vec rate = constant(-lr / (1 + (t - 1) * attr[0])), eps = constant(attr[1]);
    (void)step;
    EACH_LANES(vec w = load_lanes(w_in + i, lanes); vec g = take_gradient(&rule, load_lanes(g_in + i, lanes), &w);
               vec s = vec_add(load_lanes(s_in + i, lanes), vec_mul(g, g));
               store_lanes(s_out + i, s, lanes);
               store_lanes(w_out + i, vec_add(w, vec_div(vec_mul(rate, g), vec_add(vec_sqrt(s), eps))), lanes););
}

/* s = alpha s + (1 - alpha) g^2; centred: a += (1 - alpha) (g - a), d = g / (sqrt(s - a^2) + eps), else
 * d = g / (sqrt(s) + eps); with momentum b = momentum b + d, w -= lr b, else w -= lr d  (Tieleman and Hinton, 2012; Graves,
 * 2013). a and b: out and in, or NULL. attr: alpha, eps, weight_decay, maximize */
INLINE void rmsprop(ptrdiff_t n, void *const *out, const void *const *in, real *a_out, const real *a_in, real *b_out,
                    const real *b_in, double lr, double momentum, const double *attr) {
    real *w_out = out[0], *s_out = out[1];
    const real *w_in = in[0], *g_in = in[1], *s_in = in[2];
    const gradient_rule rule = make_gradient_rule(lr, attr[2], 0, attr[3]);
    const vec old = constant(attr[0]), fresh = constant(1 - attr[0]), eps = constant(attr[1]), rate = constant(-lr);
    const vec kept = constant(momentum);
    EACH_LANES(vec w = load_lanes(w_in + i, lanes); vec g = take_gradient(&rule, load_lanes(g_in + i, lanes), &w);
               vec s = vec_add(vec_mul(old, load_lanes(s_in + i, lanes)), vec_mul(vec_mul(fresh, g), g));
               vec square = s;
               store_lanes(s_out + i, s, lanes);
               if (a_in) {
                   vec a = load_lanes(a_in + i, lanes);
                   a = vec_add(a, vec_mul(fresh, vec_sub(g, a)));
                   store_lanes(a_out + i, a, lanes);
                   square = vec_sub(s, vec_mul(a, a));
               }
               vec d = vec_div(g, vec_add(vec_sqrt(square), eps));
               if (b_in) {
                   d = vec_add(vec_mul(kept, load_lanes(b_in + i, lanes)), d);
                   store_lanes(b_out + i, d, lanes);
               }
               store_lanes(w_out + i, vec_add(w, vec_mul(rate, d)), lanes););
}
static void rmsprop_step_kernel FNN_ELEMENTWISE_ARGS {
    (void)step;
    rmsprop(n, out, in, NULL, NULL, NULL, NULL, scalar_input(in, 3), 0, attr);
}
static void rmsprop_centered_step_kernel FNN_ELEMENTWISE_ARGS {
    (void)step;
    rmsprop(n, out, in, out[2], in[3], NULL, NULL, scalar_input(in, 4), 0, attr);
}
static void rmsprop_momentum_step_kernel FNN_ELEMENTWISE_ARGS {
    (void)step;
    rmsprop(n, out, in, NULL, NULL, out[2], in[3], scalar_input(in, 4), scalar_input(in, 5), attr);
}
static void rmsprop_centered_momentum_step_kernel FNN_ELEMENTWISE_ARGS {
    (void)step;
    rmsprop(n, out, in, out[2], in[3], out[3], in[4], scalar_input(in, 5), scalar_input(in, 6), attr);
}

/* s = rho s + (1 - rho) g^2; d = sqrt((u + eps) / (s + eps)) g; u = rho u + (1 - rho) d^2; w -= lr d  (Zeiler, 2012).
 * attr: rho, eps, weight_decay, maximize */
static void adadelta_step_kernel FNN_ELEMENTWISE_ARGS {
    real *w_out = out[0], *s_out = out[1], *u_out = out[2];
    const real *w_in = in[0], *g_in = in[1], *s_in = in[2], *u_in = in[3];
    const double lr = scalar_input(in, 4);
    const gradient_rule rule = make_gradient_rule(lr, attr[2], 0, attr[3]);
    const vec old = constant(attr[0]), fresh = constant(1 - attr[0]), eps = constant(attr[1]), rate = constant(-lr);
    (void)step;
    EACH_LANES(vec w = load_lanes(w_in + i, lanes); vec g = take_gradient(&rule, load_lanes(g_in + i, lanes), &w);
               vec u = load_lanes(u_in + i, lanes);
               vec s = vec_add(vec_mul(old, load_lanes(s_in + i, lanes)), vec_mul(vec_mul(fresh, g), g));
               vec d = vec_mul(vec_sqrt(vec_div(vec_add(u, eps), vec_add(s, eps))), g);
               store_lanes(s_out + i, s, lanes);
               store_lanes(u_out + i, vec_add(vec_mul(old, u), vec_mul(vec_mul(fresh, d), d)), lanes);
               store_lanes(w_out + i, vec_add(w, vec_mul(rate, d)), lanes););
}

/* Momentum of step t: beta1 (1 - 0.96^(t decay) / 2); their product over the steps so far. attr: decay */
INLINE double nadam_momentum(step_power *kept, double t, double beta1, double decay) {
    return beta1 * (1 - 0.5 * power_of(kept, 0.96, t * decay));
}
static void nadam_product_kernel FNN_ELEMENTWISE_ARGS {
    real *y = out[0];
    const real *product = in[0];
    static _Thread_local step_power power = {0, 0, 1};
    const vec momentum = constant(nadam_momentum(&power, scalar_input(in, 1), scalar_input(in, 2), attr[0]));
    (void)step;
    EACH_LANES(store_lanes(y + i, vec_mul(load_lanes(product + i, lanes), momentum), lanes););
}

/* Adam whose momentum looks ahead: with mu, mu' the momenta of this step and the next and P the product of all so far,
 * w -= lr ((1 - mu) / (1 - P) g + mu' / (1 - P mu') m) / (sqrt(v / (1 - beta2^t)) + eps)  (Dozat, 2016), multiplied through
 * as in adam_step.
 * attr: beta2, eps, weight_decay, decoupled, maximize, momentum_decay */
static void nadam_step_kernel FNN_ELEMENTWISE_ARGS {
    real *w_out = out[0], *m_out = out[1], *v_out = out[2];
    const real *w_in = in[0], *g_in = in[1], *m_in = in[2], *v_in = in[3];
    const double lr = scalar_input(in, 4), beta1 = scalar_input(in, 5), t = scalar_input(in, 6), product = scalar_input(in, 7);
    static _Thread_local step_power present = {0, 0, 1}, coming = {0, 0, 1}, power2 = {0, 0, 1};
    const double mu = nadam_momentum(&present, t, beta1, attr[5]), next = nadam_momentum(&coming, t + 1, beta1, attr[5]);
    const gradient_rule rule = make_gradient_rule(lr, attr[2], attr[3], attr[4]);
    const double root = sqrt(1 - power_of(&power2, attr[0], t)), rate = -lr * root;
    const vec of_g = constant(rate * (1 - mu) / (1 - product)), of_m = constant(rate * next / (1 - product * next));
    const vec new1 = constant(1 - beta1), old2 = constant(attr[0]), new2 = constant(1 - attr[0]);
    const vec eps = constant(attr[1] * root);
    (void)step;
    EACH_LANES(vec w = load_lanes(w_in + i, lanes); vec g = take_gradient(&rule, load_lanes(g_in + i, lanes), &w);
               vec m = first_moment(load_lanes(m_in + i, lanes), g, new1);
               vec v = second_moment(load_lanes(v_in + i, lanes), g, old2, new2);
               vec move = vec_add(vec_mul(of_g, g), vec_mul(of_m, m));
               store_lanes(m_out + i, m, lanes); store_lanes(v_out + i, v, lanes);
               store_lanes(w_out + i, vec_add(w, vec_div(move, vec_add(vec_sqrt(v), eps))), lanes););
}

/* Adam that divides by sqrt(v) only once enough steps make its variance known: with m' = m / (1 - beta1^t),
 * R = 2 / (1 - beta2) - 1, r = R - 2 t beta2^t / (1 - beta2^t):  w -= lr m' where r <= 5, else
 * w -= lr m' sqrt((r - 4) (r - 2) R / ((R - 4) (R - 2) r)) sqrt(1 - beta2^t) / (sqrt(v) + eps)  (Liu et al., 2020).
 * attr: beta2, eps, weight_decay, decoupled, maximize */
static void radam_step_kernel FNN_ELEMENTWISE_ARGS {
    real *w_out = out[0], *m_out = out[1], *v_out = out[2];
    const real *w_in = in[0], *g_in = in[1], *m_in = in[2], *v_in = in[3];
    const double lr = scalar_input(in, 4), beta1 = scalar_input(in, 5), t = scalar_input(in, 6), beta2 = attr[0];
    static _Thread_local step_power power1 = {0, 0, 1}, power2 = {0, 0, 1};
    const double correction = 1 - power_of(&power2, beta2, t), most = 2 / (1 - beta2) - 1;
    const double length = most - 2 * t * power_of(&power2, beta2, t) / correction;
    const int adaptive = length > 5;
    const double variance = (most - 4) * (most - 2) * length;
    const double rectified = adaptive ? sqrt((length - 4) * (length - 2) * most / variance) : 1;
    const gradient_rule rule = make_gradient_rule(lr, attr[2], attr[3], attr[4]);
    const vec rate = constant(-lr / (1 - power_of(&power1, beta1, t)) * (adaptive ? rectified * sqrt(correction) : 1));
    const vec new1 = constant(1 - beta1), old2 = constant(beta2), new2 = constant(1 - beta2), eps = constant(attr[1]);
    (void)step;
    EACH_LANES(vec w = load_lanes(w_in + i, lanes); vec g = take_gradient(&rule, load_lanes(g_in + i, lanes), &w);
               vec m = first_moment(load_lanes(m_in + i, lanes), g, new1);
               vec v = second_moment(load_lanes(v_in + i, lanes), g, old2, new2); vec move = vec_mul(rate, m);
               store_lanes(m_out + i, m, lanes); store_lanes(v_out + i, v, lanes);
               if (adaptive) move = vec_div(move, vec_add(vec_sqrt(v), eps));
               store_lanes(w_out + i, vec_add(w, move), lanes););
}

/* w -= lr sign(beta1 m + (1 - beta1) g); m = beta2 m + (1 - beta2) g  (Chen et al., 2023).
 * attr: beta2, weight_decay, maximize; weight decay is decoupled */
static void lion_step_kernel FNN_ELEMENTWISE_ARGS {
    real *w_out = out[0], *m_out = out[1];
    const real *w_in = in[0], *g_in = in[1], *m_in = in[2];
    const double lr = scalar_input(in, 3), beta1 = scalar_input(in, 4);
    const gradient_rule rule = make_gradient_rule(lr, attr[1], 1, attr[2]);
    const vec old1 = constant(beta1), new1 = constant(1 - beta1), rate = constant(-lr);
    const vec old2 = constant(attr[0]), new2 = constant(1 - attr[0]);
    (void)step;
    EACH_LANES(vec w = load_lanes(w_in + i, lanes); vec g = take_gradient(&rule, load_lanes(g_in + i, lanes), &w);
               vec m = load_lanes(m_in + i, lanes);
               vec direction = sign_formula(vec_add(vec_mul(old1, m), vec_mul(new1, g)), NULL);
               store_lanes(m_out + i, vec_add(vec_mul(old2, m), vec_mul(new2, g)), lanes);
               store_lanes(w_out + i, vec_add(w, vec_mul(rate, direction)), lanes););
}

/* y += t^power (x - y), the moving average of Adafactor: t the step's number. attr: power */
static void adafactor_average_kernel FNN_ELEMENTWISE_ARGS {
    real *y = out[0];
    const real *average = in[0], *x = in[1];
    const vec fresh = constant(pow(scalar_input(in, 2), attr[0]));
    (void)step;
    EACH_LANES(vec a = load_lanes(average + i, lanes);
               store_lanes(y + i, vec_add(a, vec_mul(fresh, vec_sub(load_lanes(x + i, lanes), a))), lanes););
}

/* u = g / sqrt(max(v, eps^2)), v the mean of squares. a = g, b = v.  p: eps */
BINARY(adafactor_scale, vec_div(a, vec_sqrt(maximum_formula(b, constant(p[0] * p[0]), NULL))))

/* The same with v = row column / max(mean, eps) of the means of rows, of columns and of all.  attr: eps */
static void adafactor_factored_scale_kernel FNN_ELEMENTWISE_ARGS {
    real *u = out[0];
    const real *g_in = in[0], *row_in = in[1], *column_in = in[2], *mean_in = in[3];
    const vec eps = constant(attr[0]), least = constant(attr[0] * attr[0]);
    (void)step;
    EACH_LANES(vec mean = maximum_formula(load_lanes(mean_in + i, lanes), eps, NULL);
               vec v = vec_div(vec_mul(load_lanes(row_in + i, lanes), load_lanes(column_in + i, lanes)), mean);
               store_lanes(u + i, vec_div(load_lanes(g_in + i, lanes), vec_sqrt(maximum_formula(v, least, NULL))), lanes););
}

/* w = (1 - lr weight_decay) w - min(lr, 1 / sqrt(t)) max(least, rms(w)) / max(1, rms(u) / d) u, of the sums of squares ww and uu of
 * w and u, `size` elements each  (Shazeer and Stern, 2018, as torch/optim/_adafactor.py has it).
 * attr: size, least, d, weight_decay, maximize */
static void adafactor_step_kernel FNN_ELEMENTWISE_ARGS {
    real *w_out = out[0];
    const real *w_in = in[0], *u_in = in[1];
    const double ww = scalar_input(in, 2), uu = scalar_input(in, 3), lr = scalar_input(in, 4), t = scalar_input(in, 5);
    const double rms = sqrt(ww / attr[0]), excess = sqrt(uu / attr[0]) / attr[2], slow = 1 / sqrt(t);
    const double alpha = (lr < slow ? lr : slow) * (rms > attr[1] ? rms : attr[1]);
    const vec shrink = constant(1 - lr * attr[3]), rate = constant((attr[4] != 0 ? alpha : -alpha) / (excess > 1 ? excess : 1));
    (void)step;
    EACH_LANES(store_lanes(w_out + i,
                           vec_add(vec_mul(load_lanes(w_in + i, lanes), shrink), vec_mul(rate, load_lanes(u_in + i, lanes))),
                           lanes););
}

/* m += (1 - momentum) (g - m); u = m, or Nesterov's g + momentum (m - g)  (Jordan et al., 2024).  attr: nesterov */
static void muon_momentum_kernel FNN_ELEMENTWISE_ARGS {
    real *m_out = out[0], *u = out[1];
    const real *m_in = in[0], *g_in = in[1];
    const double momentum = scalar_input(in, 2);
    const vec kept = constant(momentum), fresh = constant(1 - momentum);
    const int nesterov = attr[0] != 0;
    (void)step;
    EACH_LANES(vec g = load_lanes(g_in + i, lanes); vec m = first_moment(load_lanes(m_in + i, lanes), g, fresh);
               store_lanes(m_out + i, m, lanes);
               store_lanes(u + i, nesterov ? vec_add(g, vec_mul(kept, vec_sub(m, g))) : m, lanes););
}

/* What Newton and Schulz's iteration adds up: alpha a + beta b.  p: alpha, beta */
BINARY(muon_combine, vec_add(vec_mul(constant(p[0]), a), vec_mul(constant(p[1]), b)))

/* w = (1 - lr weight_decay) w - lr scale u.  attr: scale, weight_decay */
static void muon_step_kernel FNN_ELEMENTWISE_ARGS {
    real *w_out = out[0];
    const real *w_in = in[0], *u_in = in[1];
    const double lr = scalar_input(in, 2);
    const vec rate = constant(-lr * attr[0]), shrink = constant(1 - lr * attr[1]);
    (void)step;
    EACH_LANES(store_lanes(w_out + i,
                           vec_add(vec_mul(load_lanes(w_in + i, lanes), shrink), vec_mul(rate, load_lanes(u_in + i, lanes))),
                           lanes););
}

/* w towards 0 by lr strength, but not past it, then times 1 / (1 + lr shrink): the proximal step of
 * strength |w| + shrink w^2 / 2 (Parikh and Boyd, 2014); what falls below becomes exactly 0.  attr: strength, shrink */
static void proximal_step_kernel FNN_ELEMENTWISE_ARGS {
    real *w_out = out[0];
    const real *w_in = in[0];
    const double lr = scalar_input(in, 1);
    const vec bound = constant(lr * attr[0]), low = vec_neg(bound), scale = constant(1 / (1 + lr * attr[1]));
    (void)step;
    EACH_LANES(vec w = load_lanes(w_in + i, lanes); vec inside = vec_min(bound, vec_max(low, w));
               store_lanes(w_out + i, vec_mul(vec_sub(w, inside), scale), lanes););
}

/* a = g, b = w: g + l1 sign(w) + l2 w, the gradient plus the subgradient of l1 |w| + l2 w^2 / 2.  p = l1, l2 */
BINARY(penalty_gradient,
       vec_add(a, vec_add(vec_mul(constant(p[0]), sign_formula(b, NULL)), vec_mul(constant(p[1]), b))))

/* y = decay y + (1 - decay) x, decay = min(limit, ramp(t)); where decay is 0 it is x, whatever y holds.
 * attr: limit, which ramp: 0: none; 1: (1 + t) / (10 + t); 2: t / (t + 1), equal weights; 3: 0 at first, the limit afterwards */
static void ema_update_kernel FNN_ELEMENTWISE_ARGS {
    real *y = out[0];
    const real *average = in[0], *x = in[1];
    const double t = scalar_input(in, 2), ramps[] = {1, (1 + t) / (10 + t), t / (t + 1), t > 0};
    const double early = ramps[attr[1] == 1 ? 1 : attr[1] == 2 ? 2 : attr[1] == 3 ? 3 : 0];
    const double decay = early < attr[0] ? early : attr[0];
    const vec fresh = constant(1 - decay);
    (void)step;
    if (decay == 0) {
        EACH_LANES(store_lanes(y + i, load_lanes(x + i, lanes), lanes););
        return;
    }
    EACH_LANES(vec a = load_lanes(average + i, lanes);
               store_lanes(y + i, vec_add(a, vec_mul(fresh, vec_sub(load_lanes(x + i, lanes), a))), lanes););
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
