/* elementwise.h: each elementwise op as a formula on vectors. The macros below write the loop around it, the tail under a
 * mask with the same formula, so that an element's value never depends on its position.
 * In a formula: a, b (or x) are the inputs' vectors, p is attr as passed. */


#define UNARY(name, formula)                                                                                            \
    INLINE vec name##_formula(vec x, const double *p) {                                                                 \
        (void)p;                                                                                                        \
        return formula;                                                                                                 \
    }                                                                                                                   \
    static void name##_kernel FNN_ELEMENTWISE_ARGS {                                                                             \
        real *y = out[0];                                                                                               \
        const real *x = in[0];                                                                                          \
        (void)step;                                                                                                     \
        ptrdiff_t i = 0;                                                                                                \
        for (; i + LANES <= n; i += LANES) vec_store(y + i, name##_formula(vec_load(x + i), attr));                     \
        if (i < n) vec_store_n(y + i, name##_formula(vec_load_n(x + i, n - i), attr), n - i);                           \
    }

/* With constant steps the compiler makes four loops, each without a test inside. */
#define BINARY(name, formula)                                                                                           \
    INLINE vec name##_formula(vec a, vec b, const double *p) {                                                          \
        (void)p;                                                                                                        \
        return formula;                                                                                                 \
    }                                                                                                                   \
    INLINE void name##_loop(ptrdiff_t n, real *y, const real *a, const real *b, int sa, int sb, const double *attr) {   \
        const vec a0 = sa || n == 0 ? vec_zero() : vec_set1(*a), b0 = sb || n == 0 ? vec_zero() : vec_set1(*b);         \
        ptrdiff_t i = 0;                                                                                                \
        for (; i + LANES <= n; i += LANES)                                                                              \
            vec_store(y + i, name##_formula(sa ? vec_load(a + i) : a0, sb ? vec_load(b + i) : b0, attr));               \
        if (i < n)                                                                                                      \
            vec_store_n(y + i,                                                                                          \
                        name##_formula(sa ? vec_load_n(a + i, n - i) : a0, sb ? vec_load_n(b + i, n - i) : b0, attr),   \
                        n - i);                                                                                         \
    }                                                                                                                   \
    static void name##_kernel FNN_ELEMENTWISE_ARGS {                                                                             \
        if (step[0] && step[1]) name##_loop(n, out[0], in[0], in[1], 1, 1, attr);                                       \
        else if (step[0]) name##_loop(n, out[0], in[0], in[1], 1, 0, attr);                                             \
        else if (step[1]) name##_loop(n, out[0], in[0], in[1], 0, 1, attr);                                             \
        else name##_loop(n, out[0], in[0], in[1], 0, 0, attr);                                                          \
    }

/* arithmetic */
BINARY(add, vec_add(a, b))
BINARY(sub, vec_sub(a, b))
BINARY(mul, vec_mul(a, b))
BINARY(div, vec_div(a, b))
/* NaN wins, as in NumPy. */
BINARY(maximum, vec_select(vec_unordered(a, a), a, vec_max(a, b)))
BINARY(minimum, vec_select(vec_unordered(a, a), a, vec_min(a, b)))
UNARY(neg, vec_neg(x))
UNARY(abs, vec_abs(x))
UNARY(sqrt, vec_sqrt(x))

/* activations */
UNARY(relu_forward, vec_max(vec_zero(), x)) /* NaN stays: vec_max gives its second argument where unordered */
BINARY(relu_backward, vec_select(vec_lt(vec_zero(), b), a, vec_zero()))
