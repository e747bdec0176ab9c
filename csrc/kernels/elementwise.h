/* elementwise.h: each elementwise op as a formula on vectors. The macros below write the loop around it, the tail under a
 * mask with the same formula, so that an element's value never depends on its position.
 * In a formula: x, or a, b, c, are the inputs' vectors, p is attr as passed. */

INLINE vec constant(double a) { return vec_set1((real)a); }

/* Runs the statements for element i on, `lanes` of them at a time, from `begin` on: whole vectors, then what is left of n. */
#define EACH_LANES(...) EACH_LANES_FROM(0, __VA_ARGS__)
#define EACH_LANES_FROM(begin, ...)                                                                                     \
    do {                                                                                                                \
        ptrdiff_t i = (begin);                                                                                          \
        for (; i + LANES <= n; i += LANES) {                                                                            \
            const ptrdiff_t lanes = LANES;                                                                              \
            __VA_ARGS__                                                                                                 \
        }                                                                                                               \
        if (i < n) {                                                                                                    \
            const ptrdiff_t lanes = n - i;                                                                              \
            __VA_ARGS__                                                                                                 \
        }                                                                                                               \
    } while (0)

#define UNARY(name, formula)                                                                                            \
    INLINE vec name##_formula(vec x, const double *p) {                                                                 \
        (void)p;                                                                                                        \
        return formula;                                                                                                 \
    }                                                                                                                   \
    static void name##_kernel FNN_ELEMENTWISE_ARGS {                                                                    \
        real *y = out[0];                                                                                               \
        const real *x = in[0];                                                                                          \
        (void)step;                                                                                                     \
        EACH_LANES(store_lanes(y + i, name##_formula(load_lanes(x + i, lanes), attr), lanes););                         \
    }

/* Two inputs, either of which may be one repeated element. With constant steps the compiler makes four loops, each without
 * a test inside. `result` is the formula's type, `store` writes it to elements of type `element`. */
#define TWO_INPUTS(name, result, element, store, formula)                                                               \
    INLINE result name##_formula(vec a, vec b, const double *p) {                                                       \
        (void)p;                                                                                                        \
        return formula;                                                                                                 \
    }                                                                                                                   \
    INLINE void name##_loop(ptrdiff_t n, element *y, const real *a, const real *b, int sa, int sb, const double *attr) { \
        const vec a0 = sa || n == 0 ? vec_zero() : vec_set1(*a), b0 = sb || n == 0 ? vec_zero() : vec_set1(*b);         \
        EACH_LANES(vec u = sa ? load_lanes(a + i, lanes) : a0; vec v = sb ? load_lanes(b + i, lanes) : b0;              \
                   store(y + i, name##_formula(u, v, attr), lanes););                                                   \
    }                                                                                                                   \
    static void name##_kernel FNN_ELEMENTWISE_ARGS {                                                                    \
        if (step[0] && step[1]) name##_loop(n, out[0], in[0], in[1], 1, 1, attr);                                       \
        else if (step[0]) name##_loop(n, out[0], in[0], in[1], 1, 0, attr);                                             \
        else if (step[1]) name##_loop(n, out[0], in[0], in[1], 0, 1, attr);                                             \
        else name##_loop(n, out[0], in[0], in[1], 0, 0, attr);                                                          \
    }
#define BINARY(name, formula) TWO_INPUTS(name, vec, real, store_lanes, formula)
#define COMPARE(name, condition) TWO_INPUTS(name, mask, uint8_t, mask_store_u8, condition)

#define TERNARY(name, formula)                                                                                          \
    INLINE vec name##_formula(vec a, vec b, vec c, const double *p) {                                                   \
        (void)p;                                                                                                        \
        return formula;                                                                                                 \
    }                                                                                                                   \
    static void name##_kernel FNN_ELEMENTWISE_ARGS {                                                                    \
        real *y = out[0];                                                                                               \
        const real *a = in[0], *b = in[1], *c = in[2];                                                                  \
        (void)step;                                                                                                     \
        EACH_LANES(store_lanes(y + i,                                                                                   \
                               name##_formula(load_lanes(a + i, lanes), load_lanes(b + i, lanes),                       \
                                              load_lanes(c + i, lanes), attr),                                          \
                               lanes););                                                                                \
    }

#include "elementwise_math.h"

#include "elementwise_power.h"

#include "elementwise_special.h"

#include "elementwise_activation.h"

#include "elementwise_loss.h"

#include "elementwise_optimiser.h"
