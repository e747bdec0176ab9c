/* fastnn.h: the engine's C API: tensors, calls, operators, parallel loops, kernels.
 *
 * Data flow:  _core.launch -> fnn_infer, fnn_run (launch.c) -> driver (ops/) -> kernels (kernels/, one table per ISA and type).
 * A driver plans: shapes, blocking, workspace, chunks. A kernel touches elements. Nothing reaches back up. */
#ifndef FASTNN_H
#define FASTNN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { FNN_MAX_RANK = 8, FNN_MAX_ARGS = 12, FNN_MAX_INTS = 24, FNN_MAX_FLOATS = 8, FNN_MESSAGE_SIZE = 512, FNN_MAX_THREADS = 1024 };

/* ---- tensors ---------------------------------------------------------------------------------------------------- */

typedef enum { FNN_FLOAT32, FNN_FLOAT64, FNN_INT64, FNN_INT32, FNN_UINT8, FNN_BOOL, FNN_NUM_DTYPES } fnn_dtype;

/* A view of memory. An optional argument that was not given is a NULL pointer in fnn_call, never an empty tensor. */
typedef struct {
    void *data; /* the first element (the view's offset is already added) */
    int32_t dtype;
    int32_t rank;
    ptrdiff_t shape[FNN_MAX_RANK];
    ptrdiff_t stride[FNN_MAX_RANK]; /* in elements; may be 0 or negative */
} fnn_tensor;

size_t fnn_itemsize(int dtype);
const char *fnn_dtype_name(int dtype);
ptrdiff_t fnn_numel(const fnn_tensor *t);
/* Number of elements per image position: product of shape[from .. to). */
ptrdiff_t fnn_span(const fnn_tensor *t, int from, int to);
/* How far below and above the first element others lie, in elements; both 0 for an empty tensor. Returns 0 if extents are negative
 * or, zeros left out, have a product that no memory holds, or if elements lie too far apart: what passes can be counted and
 * addressed without overflow. */
int fnn_bounds(const fnn_tensor *t, ptrdiff_t *low, ptrdiff_t *high);
int fnn_is_contiguous(const fnn_tensor *t);                    /* dense, C order */
int fnn_is_channels_last(const fnn_tensor *t);                 /* rank 4, dense, N H W C order */
int fnn_is_sequence(const fnn_tensor *t);                      /* rank 3 (N, C, L), dense, N L C order: a channels-last map of one row */
int fnn_is_dense(const fnn_tensor *t);                         /* one of these */
int fnn_is_one_element(const fnn_tensor *t);                   /* in memory, however often it is repeated */
int fnn_same_shape(const fnn_tensor *a, const fnn_tensor *b);
int fnn_same_layout(const fnn_tensor *a, const fnn_tensor *b); /* same shape and strides (where the extent is over 1) */
int fnn_overlap(const fnn_tensor *a, const fnn_tensor *b);     /* whether the bytes that they span meet */
/* In the results' layout: NHWC strides at rank 4, else C order; in C order at any rank (parameters' gradients); and of the same
 * shape and dtype as another, in the results' layout. */
void fnn_set_shape(fnn_tensor *t, int dtype, int rank, const ptrdiff_t *shape);
void fnn_set_shape_contiguous(fnn_tensor *t, int dtype, int rank, const ptrdiff_t *shape);
void fnn_set_like(fnn_tensor *t, const fnn_tensor *like);
/* Whether elements of four axes lie together along the last one, as those of images that nobody turned yet or of attention's scores
 * do; -1: along the channels. */
int fnn_lies_in_rows(const fnn_tensor *x);
/* Of the same shape, and of the results' layout, but what lies as 1-D convolutions leave it (fnn_is_sequence) goes on so: in C order
 * every call between two convolutions would turn it around and back. Four axes that lie in rows stay in C order. */
void fnn_set_alike(fnn_tensor *t, int dtype, const fnn_tensor *like);
/* Of any shape, in the results' layout, but of four axes in C order where `like` lies in rows. */
void fnn_set_shape_near(fnn_tensor *t, int dtype, int rank, const ptrdiff_t *shape, const fnn_tensor *like);
/* Axes in canonical order (N H W C for rank 4, logical order otherwise): the order of summation and of random numbers. */
void fnn_canonical_axes(int rank, int *axes);

/* ---- calls ------------------------------------------------------------------------------------------------------ */

typedef struct {
    int64_t i[FNN_MAX_INTS];
    double f[FNN_MAX_FLOATS];
} fnn_attrs;

typedef enum { FNN_OK, FNN_VALUE_ERROR, FNN_TYPE_ERROR, FNN_INDEX_ERROR, FNN_MEMORY_ERROR } fnn_status;

/* Bytes a driver works in: `shared` by all chunks, and `scratch` for each worker that runs chunks. `workers` is the launch's to
 * fill. */
typedef struct {
    size_t shared, scratch;
    int workers;
} fnn_workspace;

typedef struct fnn_call {
    int op;
    fnn_tensor *out[FNN_MAX_ARGS];      /* NULL: the op has no such output; at infer, rank -1: not given by the caller */
    const fnn_tensor *in[FNN_MAX_ARGS]; /* NULL: not given */
    fnn_attrs attr;
    void *shared;                       /* workspace.shared bytes, 64-byte aligned */
    void *scratch;                      /* workers x scratch_stride bytes */
    size_t scratch_stride;
    int workers;                        /* at most so many threads take part, even if more are allowed meanwhile */
    int flush;                          /* flush denormals: set for float32 calls */
    int precision;                      /* of float32 products: the setting when the call was inferred */
    int algorithm;                      /* of convolutions: likewise */
    int activation;                     /* an fnn_activation behind the result; programs set it (see fusion.c) */
    const struct fnn_call *follower;    /* an elementwise call to be run on out[0] part by part, see fnn_follow */
    const struct fnn_call *pooling;     /* max pooling of out[0], which then has no memory: this call makes its results */
    const struct fnn_call *reader;      /* of max pooling's gradient: the call that it runs in place of making out[0] for it */
    const struct fnn_call *unpooled;    /* of a reader: max pooling's gradient, which in[0] would be */
    struct fnn_call *picking;           /* of a reader: index_select, whose rows its x are: it reads them where they lie, or has them
                                           picked, see fnn_pick_rows */
    int is_late, is_picked;             /* of such an index_select: it only reads the positions; whether its rows were picked */
    int passes;                         /* nobody else wants out[0]: it has no memory, see fnn_follow_rows */
    char message[FNN_MESSAGE_SIZE];     /* why a status is not FNN_OK */
} fnn_call;

/* Writes "<op>: <message>" into call->message and returns status. */
int fnn_fail(fnn_call *call, int status, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* "(2, 3, 4)" into a small ring of static per-thread buffers: for messages. */
const char *fnn_shape_text(const fnn_tensor *t);

/* What float32 products may be made of where there are bfloat16 matrix units: three bfloat16 parts of each factor, which is as
 * accurate as float32 multiply-adds; two; one. Elsewhere all three are float32. */
typedef enum { FNN_HIGHEST, FNN_HIGH, FNN_MEDIUM } fnn_precision;
void fnn_set_matmul_precision(int precision);
int fnn_matmul_precision(void);

/* How float32 convolutions are computed: as is predicted to be fastest; without Winograd's way; by it wherever it can; of bfloat16
 * parts wherever there are matrix units for them. */
typedef enum { FNN_CONV_AUTO, FNN_CONV_DIRECT, FNN_CONV_WINOGRAD, FNN_CONV_PARTS } fnn_conv_algorithm;
void fnn_set_conv_algorithm(int algorithm);
int fnn_get_conv_algorithm(void);

/* ---- operators -------------------------------------------------------------------------------------------------- */

/* What a driver exports, one constant per op named fnn_<op>. The contract, so that eager and replay share it:
 * run() has no parallel construct but fnn_parallel_for, no thread ids, no malloc and no static state; it works in
 * call->shared and the scratch its body is handed; it never allocates outputs. */
typedef struct {
    int (*infer)(fnn_call *call);                               /* checks arguments, fills outputs' dtype, shape, strides */
    void (*workspace)(const fnn_call *call, fnn_workspace *ws); /* NULL: needs none */
    double (*cost)(const fnn_call *call);                       /* predicted single-thread nanoseconds; NULL: from bytes */
    int (*run)(fnn_call *call);
    const char *(*algorithm)(const fnn_call *call);             /* which way run takes, for reports; NULL: "direct" */
    int (*can_pass)(const fnn_call *call);                      /* whether run can do without memory for out[0]; NULL: no */
    int (*can_pool)(const fnn_call *call, const fnn_call *pooling); /* whether run can make the results of this max pooling of
                                                                       out[0] in place of out[0]; NULL: no */
    int (*can_unpool)(const fnn_call *call, const fnn_call *pooling); /* whether run can take in[0] from what this gradient of max
                                                                         pooling reads; NULL: no */
    int (*can_read_rows)(const fnn_call *call, int k);          /* whether run can read in[k], a matrix, from rows that index_select
                                                                   would pick; NULL: no */
} fnn_driver;

enum { FNN_ELEMENTWISE = 1, FNN_RANDOM = 2, FNN_MAY_FAIL = 4 /* by values, besides int64 inputs read as positions */ };

typedef struct {
    const char *name, *outputs, *inputs, *attributes, *inplace;
    int flags;
    const fnn_driver *driver;
    size_t kernel;     /* elementwise ops: offset of their kernel in fnn_kernels, */
    double element_ns; /* and what the arithmetic of one element takes */
} fnn_op;

enum {
#define OP(name, outputs, inputs, attributes, inplace, flags) FNN_OP_##name,
#define ELEMENTWISE(name, outputs, inputs, attributes, inplace, ns) FNN_OP_##name,
#include "ops.def"
#undef OP
#undef ELEMENTWISE
    FNN_NUM_OPS
};

extern const fnn_op fnn_ops[FNN_NUM_OPS];
extern const fnn_driver fnn_elementwise;
#define OP(name, outputs, inputs, attributes, inplace, flags) extern const fnn_driver fnn_##name;
#define ELEMENTWISE(name, outputs, inputs, attributes, inplace, ns)
#include "ops.def"
#undef OP
#undef ELEMENTWISE

/* Elementwise calls fused behind another call (a chain by `follower`) run on each part of its out[0] while the part is in cache.
 * All their operands lie in memory like out[0], or are one element. A driver named in fusion.c's `can_be_followed` calls one of
 * these: fnn_follow, from its loops, for elements begin .. begin + n - 1 in memory order once they are final, or fnn_follow_all
 * when it is done. All do nothing where nothing follows. part: where these elements are, in memory that the driver works in, if nobody
 * but those calls wants out[0] (call->passes); else NULL. */
void fnn_follow(const fnn_call *call, ptrdiff_t begin, ptrdiff_t n);
void fnn_follow_all(const fnn_call *call, void *part);
/* On rows of n elements, each `apart` after the one before; in `part` one row is behind the other. */
void fnn_follow_rows(const fnn_call *call, ptrdiff_t begin, ptrdiff_t n, ptrdiff_t rows, ptrdiff_t apart, void *part);

/* launch.c: the one door. infer: checks what is common to all ops, then the op's own infer. run: workspace, denormals, driver. */
void fnn_launch_init(void); /* once, at import */
unsigned fnn_scalar_inputs(int op); /* bit k: input k is a ":scalar" */
int fnn_repeats_inputs(const fnn_call *call); /* the kernel of two inputs, neither a scalar, takes either as one repeated element */
int fnn_infer(fnn_call *call);
int fnn_check_outputs(fnn_call *call, fnn_tensor *const *given); /* after infer: caller's outputs fit, overlap only as allowed */
double fnn_cost(const fnn_call *call);
const char *fnn_algorithm(const fnn_call *call); /* of an inferred call */
fnn_workspace fnn_workspace_of(const fnn_call *call); /* rounded: both parts can follow one another in one block */
int fnn_run(fnn_call *call);
/* Elementwise calls of one op, checked and with outputs, as one loop of `ns` predicted nanoseconds; one by one where a call
 * writes what another touches. What fails leaves its message in calls[0]. */
int fnn_run_each(fnn_call *calls, int count, double ns);

/* ops/elementwise.c, for fnn_run_each. starts: room for count + 1. */
size_t fnn_elementwise_scratch(const fnn_call *call);
void fnn_elementwise_each(const fnn_call *calls, int count, double ns, ptrdiff_t *starts);

/* ---- parallel loops (parallel.c) -------------------------------------------------------------------------------- */

typedef void (*fnn_body)(void *context, ptrdiff_t chunk, void *scratch);

/* Runs body for every chunk. Chunks depend on shape, dtype, ISA and precision only, so results cannot depend on the
 * number of threads. `ns` predicts the whole loop's single-thread time and decides between one thread and all. */
void fnn_parallel_for(const fnn_call *call, ptrdiff_t chunks, double ns, fnn_body body, void *context);

/* Runs main(context) on the calling thread with the other threads awake until it returns: parallel loops inside cost a fraction
 * of a region's opening. Captured programs replay in one team. */
void fnn_team_run(void (*main)(void *context), void *context);

/* Something to do for threads of a team that wait for others: nothing but hints, such as bringing nearer what is read next. Each
 * thread has its share of the units, one after another, once a round; what it does not come to is left. Called by a team's main; must live
 * until fnn_team_run returns, and a unit may begin in whatever round it is by then. */
typedef struct {
    void (*unit)(const void *context, ptrdiff_t round, ptrdiff_t unit);
    const void *context;
    ptrdiff_t units, round; /* round: to be changed by fnn_team_next_round only */
} fnn_spare;
void fnn_team_spare(fnn_spare *spare);
void fnn_team_next_round(fnn_spare *spare);

/* Runs main(context) with all its parallel loops on the calling thread (unless the policy is to force them). */
void fnn_run_alone(void (*main)(void *context), void *context);

/* Once, at import: reads the environment, installs the fork handlers. 0, or not when FASTNN_NUM_THREADS is no number of threads. */
int fnn_parallel_init(void);
int fnn_get_num_threads(void);
void fnn_set_num_threads(int threads);
const char *fnn_threads_reason(void); /* where the default came from */
void fnn_set_thread_policy(int force);   /* 1: every loop of two chunks or more opens a region */
int fnn_threads_forced(void);            /* that policy */
int fnn_last_workers(void);              /* how many threads took part in the last parallel region */
void fnn_forget_workers(void);           /* one, until the next region */
int fnn_has_openmp(void);
unsigned fnn_flush_on(void);             /* sets FTZ and DAZ, on AArch64 FZ; returns the previous control word */
void fnn_flush_restore(unsigned state);

/* ---- memory (memory.c) ------------------------------------------------------------------------------------------ */

typedef struct {
    int64_t in_use, cached, peak, system_calls;
} fnn_memory_stats;

void *fnn_alloc(size_t bytes); /* 64-byte aligned, from a size-class cache; NULL when out of memory */
void fnn_free(void *block);
void fnn_memory_trim(void);
/* From hold to release, what is given back is kept apart and its contents stay: calls that were put off may still work there.
 * New large blocks take no huge pages, or their headers would make 2 MB of each resident. */
void fnn_memory_hold(void);
void fnn_memory_release(void);
int fnn_memory_holds_much(void);            /* a quarter of the machine's memory */
void fnn_memory_outlives_hold(void *block); /* it may have huge pages after all */
void fnn_memory_get_stats(fnn_memory_stats *stats);
void fnn_memory_reset_peak(void);
void fnn_memory_lock(void);    /* around fork */
void fnn_memory_unlock(void);

/* ---- random numbers (random.c): Philox4x32-10, counter-based ----------------------------------------------------- */

/* What tells one random launch from all others. */
typedef struct {
    uint64_t seed, number;
} fnn_stream;

/* Block `block` of the launch numbered `number`: four 32-bit words. The reference for kernels/random.h. */
void fnn_philox(uint64_t seed, uint64_t number, uint64_t block, uint32_t out[4]);

/* ---- kernels ---------------------------------------------------------------------------------------------------- */

/* What a GEMM or convolution does to a finished tile of C, in this order, each step rounded: + bias, + residual, activation. */
typedef enum { FNN_ACT_NONE, FNN_ACT_RELU } fnn_activation;
typedef struct {
    const void *bias;     /* one per column, or NULL */
    const void *residual; /* same layout as C, or NULL */
    int activation;
} fnn_epilogue;

/* Tiles of F(4x4, 3x3) convolutions: 4 x 4 outputs, 6 x 6 inputs, and as many products of channels; F(4x4, 2x2): one less each
 * way. */
enum { FNN_WINOGRAD_OUTPUTS = 4, FNN_WINOGRAD_PATCH = 6 };

/* F(2x2, 5x5) (kernels/winograd5.h): elements of a point of V, rows of tiles by channels; the pixels of a block of tiles of y, or of
 * its gradient: of y a vector of channels at most. */
enum { FNN_WINOGRAD5_PLANE = 336 };
typedef struct {
    ptrdiff_t images, rows, cols;   /* of tiles, rows in each image */
    ptrdiff_t height, width;        /* pixels that exist, up to twice the tiles */
    ptrdiff_t channels;
    ptrdiff_t image, row, col;      /* elements from one to the next */
    void *data;
    const void *bias, *residual;    /* residual lies as y; or NULL */
    int activation;
} fnn_winograd5_map;

/* What a recurrent layer's step computes. */
typedef enum { FNN_RNN_TANH, FNN_RNN_RELU, FNN_LSTM, FNN_GRU } fnn_recurrent_mode;

/* One sequence of connectionist temporal classification. Steps between elements are counted in elements. */
typedef struct {
    ptrdiff_t steps, states;           /* its own: outputs, and 2 labels + 1 */
    ptrdiff_t all_steps, all_states;   /* what log_alpha holds for it */
    ptrdiff_t classes;
    const int64_t *label;              /* of each state */
    const void *log_probs;             /* (all_steps, classes) */
    ptrdiff_t step, class_step;
    ptrdiff_t alpha_step, alpha_state; /* of log_alpha */
    ptrdiff_t dx_step, dx_class;       /* of the gradient */
    double divisor;                    /* of its loss */
    int zero_infinity;                 /* an impossible target counts as nothing */
} fnn_ctc;

/* One pooling window along one axis. Its input positions are first, first + step, ... (count of them, those inside the map). */
typedef struct {
    ptrdiff_t first, count;
    ptrdiff_t position; /* of `first` within the window; in adaptive pooling, within the map */
    ptrdiff_t extent;   /* what it counts for in an average's divisor */
    ptrdiff_t alike;    /* so many windows from this one on differ in nothing but `first`, from one to the next by `step` */
    ptrdiff_t step;
} fnn_pool_window;

/* Forward: one row of windows over channels-last pixels, and the input rows that they share. */
typedef struct {
    const fnn_pool_window *windows; /* outputs of them */
    ptrdiff_t outputs, inputs;      /* pixels of a row */
    ptrdiff_t channels, pitch;      /* channels to work on; elements from pixel to pixel */
    ptrdiff_t column_step;          /* elements from column to column of a window */
    ptrdiff_t rows, row_step;       /* input rows; elements from one to the next */
    ptrdiff_t position, position_step; /* of the first row's first column; from row to row */
    ptrdiff_t divisor;              /* of averages: this times a window's extent, or alone when it is the caller's */
    int divisor_given;
    int stream;                     /* results are written past the caches: pixels start on whole cache lines */
} fnn_pool_row;

/* A window that holds some input position along one axis. */
typedef struct {
    ptrdiff_t output, position, extent; /* which; where in it (adaptive pooling: in the map); as in fnn_pool_window */
} fnn_pool_link;

/* `runs` runs of `width` input pixels, from pixel `first` on. Each pixel is in `windows` windows; if in one, the pixels of a run
 * lie side by side in it from the same position on, and the next run is in the next window. */
typedef struct {
    ptrdiff_t first, width, runs, windows;
} fnn_pool_stretch;

/* Backward: one row of input pixels, and the windows that hold them. */
typedef struct {
    ptrdiff_t inputs, outputs, channels, pitch;
    const fnn_pool_link *rows;      /* num_rows output rows reach this input row */
    ptrdiff_t num_rows, row_pitch;  /* elements from one output row to the next */
    const fnn_pool_link *columns;   /* of pixel i: from starts[i] to starts[i + 1] */
    const ptrdiff_t *starts;
    const fnn_pool_stretch *stretches; /* all pixels in order */
    ptrdiff_t num_stretches;
    ptrdiff_t position_step;
    ptrdiff_t divisor;              /* of averages: the caller's, or 0: the extents' product */
    int stream;
} fnn_pool_gather;

/* A plane pooled over windows at random steps. */
typedef struct {
    ptrdiff_t rows, columns;             /* windows */
    ptrdiff_t kernel[2], width;          /* of a window; of the plane */
    ptrdiff_t x_row, x_column, y_row, y_column, index_row, index_column; /* elements from one to the next */
} fnn_fractional;

/* An image seen through a grid of places: how pixels are mixed, and what lies outside. */
typedef enum { FNN_GRID_BILINEAR, FNN_GRID_NEAREST, FNN_GRID_BICUBIC } fnn_grid_mode;
typedef enum { FNN_GRID_ZEROS, FNN_GRID_BORDER, FNN_GRID_REFLECTION } fnn_grid_padding;
typedef struct {
    ptrdiff_t h, w, channels;
    int mode, padding;
    int align_corners; /* -1 and 1 are the middles of the outermost pixels, else their outer edges */
} fnn_grid;

/* Rows of maps made of weighted sums of pixels. Result j is the sum over its entries start[j] .. start[j + 1] - 1 of weight times
 * column of x. */
typedef struct {
    ptrdiff_t width, channels;  /* of the results */
    const ptrdiff_t *start, *column;
    const void *weight;
    ptrdiff_t x_row;            /* elements from one row of x to the next */
    ptrdiff_t pixels;           /* that entries name: so many, */
    const ptrdiff_t *pixel;     /* these, */
    const ptrdiff_t *place;     /* and for each entry its column's place among them */
    ptrdiff_t block;            /* channels summed together */
} fnn_resample;

/* Depthwise convolution: one row of outputs, or two that follow one another and share input rows (then step_r and gap_r are 1).
 * Lanes of groups of a few channels are outputs; what they read is each of a group's inputs in turn.
 * Kernel position (r, s) of output (i, j) reads input row r * gap_r + i * step_r and column s * gap + j * step, both counted from
 * what position (0, 0) of the first output reads. Distances are in elements; neighbouring channels are neighbours. */
typedef struct {
    ptrdiff_t rows, pixels, channels; /* of the output */
    ptrdiff_t group;                  /* channels of one, a divisor of lanes */
    ptrdiff_t taps_r, taps_s, step, gap;
    ptrdiff_t row_from, row_to; /* input rows that exist: those before and behind are left out. Of one output row: kernel rows */
    ptrdiff_t col_from, col_to; /* input columns that exist */
    ptrdiff_t a_r, a_s;         /* from kernel row to kernel row, from input column to input column */
    ptrdiff_t w_r, w_in, w_c;   /* from kernel row to kernel row, a group's input to the next, vector of channels to vector */
    ptrdiff_t y_row, y_pixel;
    ptrdiff_t ahead, ahead_row; /* input to ask for: from where on, how far apart its rows are */
    int asks_x, asks_y; /* whether to ask for input, and for what follows the output rows, which are dense, to be written next */
    int stream; /* outputs are written past the caches: pixels start on whole cache lines */
} fnn_depthwise;

/* The input's gradient of a depthwise 3 x 3 convolution with stride 2: a row of quads, which are 2 x 2 pixels of dx from 2 x 2 of
 * dy (neighbouring quads share these): in a quad, the first row and column meet kernel position 1 of the first of dy's; the second
 * meet position 2 of the first and 0 of the second. Rows and columns count from the first quad's. */
typedef struct {
    ptrdiff_t quads, channels;
    ptrdiff_t row_from, row_to, col_from, col_to;             /* of dy, those that exist: others are left out */
    ptrdiff_t dx_row_from, dx_row_to, dx_col_from, dx_col_to; /* of dx */
    ptrdiff_t dy_row, dy_pixel, dx_row, dx_pixel;             /* elements from one to the next */
    int asks;   /* whether to ask for the rows that follow, which are dense */
    int stream; /* dx is written past the caches: pixels start on whole cache lines */
} fnn_quads;

/* Memory to be asked for a little at a time while something else is computed: a core that waits for one line after
 * another copies 7 GB/s, which is a fifth of a layer's time; asked for before, the lines cost nothing. `left` runs of
 * `bytes`, `step` apart, `jump` more after every `row` of them. */
typedef struct {
    const char *at;
    ptrdiff_t step, bytes, left, row, jump, row_left;
} fnn_prefetch;

/* Part of the weights' gradient of a depthwise convolution: rows of dy and what they meet of x, counted from what kernel position
 * (0, 0) of the first pixel reads. Distances are in elements. */
typedef struct {
    ptrdiff_t rows, pixels, channels;       /* of dy */
    ptrdiff_t group;                        /* channels of one, a divisor of lanes, which are outputs; above 1 vectors are whole */
    ptrdiff_t taps_r, taps_s, step, gap;    /* steps and gaps of columns */
    ptrdiff_t step_r, gap_r;                /* of rows */
    ptrdiff_t row_from, row_to;             /* rows of x that exist: others are left out */
    ptrdiff_t col_from, col_to;             /* columns of x that exist */
    ptrdiff_t x_row, x_col, x_r;            /* from row of dy to row of dy, column to column, kernel row to kernel row */
    ptrdiff_t dy_row, dy_col, dw_r, dw_s, dw_in; /* dw_in: from one of a group's inputs to the next */
    fnn_prefetch *ahead[2]; /* x and dy to come, and how many runs to ask for with each row, or pair, of a vector of channels */
    ptrdiff_t asks[2];
} fnn_depthwise_gradient;

/* Results from this size on are written past the caches. Measured on a Xeon with 2 MB of L2 a core, nanoseconds a line for writing
 * and reading again, ordinary and streaming stores: 8 MB 7.1 and 12.1, 16 MB 13.8 and 12.4, 32 MB 25.8 and 13.8. */
enum { FNN_STREAM_BYTES = 16 << 20 };

/* Parts of a reduction that kernels make one after the other, with totals that stay. */
enum { FNN_FIRST_PART = 1, FNN_LAST_PART = 2, FNN_ONLY_PART = 3 };

enum { FNN_PROD_COLUMNS = 64 }; /* columns that are multiplied down together (kernels/scan.h) */

enum { FNN_LINE = 64 }; /* bytes of a cache line */

enum { FNN_FEW_PLANES = 4 }; /* images of more channels are turned around in square blocks (kernels/planes.h) */

/* A block of a result on its way past the caches, and what is to come into them meanwhile (kernels/stream.h). */
typedef struct {
    char *to;
    const char *from;
    ptrdiff_t bytes, done; /* of the block, and how many have been moved: `to` + `done` starts a line */
    int count;
    const char *ahead[FNN_MAX_ARGS]; /* `count` arrays, of which as many bytes are fetched as are moved */
} fnn_transfer;

/* What integer_binary computes. */
typedef enum {
    FNN_ADD, FNN_SUB, FNN_MUL, FNN_FLOOR_DIVIDE, FNN_REMAINDER, FNN_MINIMUM, FNN_MAXIMUM, FNN_EQ, FNN_NE, FNN_LT, FNN_LE, FNN_GT,
    FNN_GE, FNN_AND, FNN_OR, FNN_XOR, FNN_POW, FNN_NUM_KINDS
} fnn_integer_kind;

#define FNN_ELEMENTWISE_ARGS                                                                                            \
    (ptrdiff_t n, void *const *out, const void *const *in, const ptrdiff_t *step, const double *attr)

enum { FNN_MARKED_VECS = 8, FNN_MARKED_DEPTH = 64 }; /* most that gemm_marked takes: vectors of columns, and elements of a row */

/* One per ISA and type. Pointers to elements are void *: the table's dtype says what they are. */
typedef struct {
    const char *isa;
    int dtype;
    ptrdiff_t lanes;       /* elements per vector */
    ptrdiff_t tile_rows;   /* GEMM register tile: rows ... */
    ptrdiff_t tile_cols;   /* ... and columns (a multiple of lanes) */
    ptrdiff_t triple_cols; /* the most columns that make one panel: tile_cols or three vectors */
    ptrdiff_t best_rows;   /* of a product of many rows and columns: shares of so many, or a multiple, ... */
    ptrdiff_t best_cols;   /* ... by so many: tile_cols, or two panels of them */
#define KERNEL(name, args) void (*name) args;
#include "kernels.def"
#undef KERNEL
} fnn_kernels;

typedef enum { FNN_ISA_SCALAR, FNN_ISA_AVX2, FNN_ISA_AVX512, FNN_ISA_AMX, FNN_ISA_NEON, FNN_NUM_ISAS } fnn_isa;

/* dispatch.c */
int fnn_dispatch_init(void);                    /* 0, or -1 when FASTNN_ISA names what this machine lacks */
const fnn_kernels *fnn_kernels_of(int dtype);   /* the active table: dtype FNN_FLOAT32 or FNN_FLOAT64 */
int fnn_set_isa(const char *name);              /* 0, or -1: not built, or the machine lacks it */
const char *fnn_isa_name(void);
const char *fnn_isa_reason(void);               /* why this one */
int fnn_isa_available(int isa);
const char *fnn_isa_names(int isa);
int fnn_num_kernels(void);
const char *fnn_kernel_name(int index);

/* ---- small helpers for drivers ---------------------------------------------------------------------------------- */

static inline ptrdiff_t fnn_ceil_div(ptrdiff_t a, ptrdiff_t b) { return (a + b - 1) / b; }
static inline ptrdiff_t fnn_round_up(ptrdiff_t a, ptrdiff_t b) { return fnn_ceil_div(a, b) * b; }
static inline ptrdiff_t fnn_min(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
static inline ptrdiff_t fnn_max(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }
/* A real as an integer, which saturates, and is 0 of NaN: C leaves both undefined. */
static inline int64_t fnn_saturate(double v, int64_t low, int64_t high) {
    return v >= (double)high ? high : v <= (double)low ? low : v == v ? (int64_t)v : 0;
}
/* Of `extent`, cut into as few parts of at most `most` (or 1) as will do: the size of one, where all are alike. */
static inline ptrdiff_t fnn_even_share(ptrdiff_t extent, ptrdiff_t most) {
    return fnn_ceil_div(extent, fnn_max(fnn_ceil_div(extent, fnn_max(most, 1)), 1));
}
/* Where part number `part` of `extent` begins, if it is cut into so many parts, whose sizes differ by at most 1. */
static inline ptrdiff_t fnn_part_begin(ptrdiff_t extent, ptrdiff_t parts, ptrdiff_t part) { return extent * part / parts; }

/* rows of `runs` runs, `row_step` apart. */
static inline fnn_prefetch fnn_prefetch_rows(const void *at, ptrdiff_t rows, ptrdiff_t row_step, ptrdiff_t runs, ptrdiff_t step,
                                             ptrdiff_t bytes) {
    return (fnn_prefetch){at, step, bytes, rows * runs, runs, row_step - runs * step, runs};
}

static inline fnn_prefetch fnn_prefetch_of(const void *at, ptrdiff_t runs, ptrdiff_t step, ptrdiff_t bytes) {
    if (step == bytes) runs = runs * bytes / 64, step = bytes = 64;
    return fnn_prefetch_rows(at, 1, 0, runs, step, bytes);
}

/* Goes on to the next run. */
static inline void fnn_prefetch_pass(fnn_prefetch *f) {
    f->left--, f->at += f->step;
    if (--f->row_left == 0) f->at += f->jump, f->row_left = f->row;
}

static inline void fnn_prefetch_some(fnn_prefetch *f, ptrdiff_t runs) {
    for (ptrdiff_t end = f->left - fnn_min(runs, f->left); f->left > end; fnn_prefetch_pass(f))
        for (ptrdiff_t b = 0; b < f->bytes; b += 64) __builtin_prefetch(f->at + b, 0, 2);
}

/* A transfer that fetches nothing, its first bytes moved as far as the next line. */
static inline fnn_transfer fnn_transfer_of(void *to, const void *from, ptrdiff_t bytes) {
    fnn_transfer t = {.to = to, .from = from, .bytes = bytes, .done = fnn_min((ptrdiff_t)(-(uintptr_t)to & (FNN_LINE - 1)), bytes)};
    memcpy(to, from, (size_t)t.done);
    return t;
}

/* Rounded up to whole cache lines: so that parts of a workspace which follow one another do not share one. */
static inline size_t fnn_whole_lines(size_t bytes) { return (bytes + FNN_LINE - 1) & ~(size_t)(FNN_LINE - 1); }
/* Makes a workspace large enough for one of two ways that a call may take. */
static inline void fnn_enlarge(fnn_workspace *ws, size_t shared, size_t scratch) {
    if (ws->shared < shared) ws->shared = shared;
    if (ws->scratch < scratch) ws->scratch = scratch;
}
/* The next `bytes` of a workspace, which moves on over them. */
static inline void *fnn_take(char **workspace, size_t bytes) {
    void *here = *workspace;
    *workspace += fnn_whole_lines(bytes);
    return here;
}
/* The next `bytes` of a workspace of which *used are taken; NULL while its size is only being counted (workspace: NULL). */
static inline void *fnn_place(void *workspace, size_t *used, size_t bytes) {
    void *here = workspace ? (char *)workspace + *used : NULL;
    *used += fnn_whole_lines(bytes);
    return here;
}
static inline void *fnn_at(const void *base, ptrdiff_t index, int dtype) {
    return (char *)base + index * (ptrdiff_t)fnn_itemsize(dtype);
}

/* Whether a step of a full tile has too few multiply-adds to hide that both operands' lines come from the second-level cache. */
static inline int fnn_small_tile(const fnn_kernels *K) { return K->tile_rows * K->tile_cols / K->lanes < 16; }

#endif
