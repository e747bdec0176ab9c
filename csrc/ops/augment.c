/* augment.c: random changes of batches of images, drawn for each image from the launch's stream: image i has words
 * 12 i .. 12 i + 11 of augment_affine, 4 i .. 4 i + 3 of the others. Nothing depends on chunks or threads. */
#include "generator.h"
#include "stage.h"

#include <math.h>
#include <string.h>

enum { CHUNK = 16384 /* elements a chunk, about */ };
static const double DEGREE = 3.14159265358979323846 / 180;

typedef struct {
    const fnn_kernels *K;
    const fnn_attrs *attr;
    fnn_stream stream;
    int dtype;
    ptrdiff_t channels, h, w, oh, ow, rows; /* rows: of a result a chunk */
    const char *x, *flow;
    char *y, *mean, *std; /* mean, std: repeated for each pixel of a row; NULL: not given */
    int is_straight;      /* rows of the result are rows of the input */
    const fnn_tensor *planes; /* the input, where its rows are read from planes; else NULL */
} plan;

static int check_image(fnn_call *call) {
    const fnn_tensor *x = call->in[0];
    if (x->rank != 4)
        return fnn_fail(call, FNN_VALUE_ERROR, "argument 'x' has shape %s, but must be (N, C, H, W)", fnn_shape_text(x));
    return fnn_check_generator(call, call->in[1]);
}

static int check_range(fnn_call *call, const char *name, double value, double least, double most) {
    if (value >= least && value <= most) return FNN_OK;
    return fnn_fail(call, FNN_VALUE_ERROR, "attribute '%s' is %g, but must be %g to %g", name, value, least, most);
}

/* Whether rows of the result are rows of the input. */
static int is_straight(const fnn_call *call) {
    const double *f = call->attr.f;
    return call->op == FNN_OP_augment_affine && !call->in[2] && !f[2] && !f[3] && !f[4] && f[5] == 1 && f[6] == 1 && !f[7];
}

/* The input, if such rows can be read from its planes, one for each of a few channels; or NULL. */
static const fnn_tensor *planes_of(const fnn_call *call) {
    const fnn_tensor *x = call->in[0];
    const int are_few = x->shape[1] >= 2 && x->shape[1] <= FNN_FEW_PLANES;
    const int are_planes = x->stride[3] == 1 && x->stride[1] != 0 && fnn_stage_bytes(x);
    return is_straight(call) && are_few && are_planes ? x : NULL;
}

static size_t input_bytes(const fnn_call *call) { return planes_of(call) ? 0 : fnn_stage_bytes(call->in[0]); }

static plan plan_of(const fnn_call *call, char **workspace) {
    const fnn_tensor *x = call->in[0], *y = call->out[0], *planes = planes_of(call);
    plan p = {.K = fnn_kernels_of(x->dtype), .attr = &call->attr, .dtype = x->dtype, .channels = x->shape[1], .h = x->shape[2],
              .w = x->shape[3], .oh = y->shape[2], .ow = y->shape[3], .planes = planes,
              .x = planes ? x->data : fnn_stage_input(x, workspace), .is_straight = is_straight(call)};
    p.y = fnn_stage_output(y, workspace);
    p.rows = fnn_max(CHUNK / fnn_max(p.ow * p.channels, 1), 1);
    return p;
}

/* Uniform in [0, 1): count of them, a multiple of 4. */
static void draw(const fnn_stream *stream, ptrdiff_t image, int count, double *u) {
    for (int k = 0; k < count; k += 4) {
        uint32_t words[4];
        fnn_philox(stream->seed, stream->number, (uint64_t)image * (uint64_t)(count / 4) + (uint64_t)(k / 4), words);
        for (int j = 0; j < 4; j++) u[k + j] = words[j] * 0x1p-32;
    }
}

static double between(double u, double low, double high) { return low + u * (high - low); }
static void *image_at(const plan *p, const void *base, ptrdiff_t image, ptrdiff_t pixels) {
    return fnn_at(base, image * pixels * p->channels, p->dtype);
}

/* ---- crop, flip, rotation, translation, scaling, shear, elastic deformation ---- */

static int affine_infer(fnn_call *call) {
    static const char *const names[] = {"flips[0]", "flips[1]", "degrees", "shift[0]", "shift[1]", "scale[0]", "scale[1]",
                                        "shear"};
    static const double least[] = {0, 0, 0, 0, 0, 0.01, 0.01, 0}, most[] = {1, 1, 360, 1, 1, 100, 100, 80};
    int status = check_image(call);
    for (int k = 0; k < 8 && !status; k++) status = check_range(call, names[k], call->attr.f[k], least[k], most[k]);
    if (status) return status;
    const fnn_tensor *x = call->in[0], *flow = call->in[2];
    const int64_t *i = call->attr.i;
    for (int d = 0; d < 2; d++) {
        if (i[2 + d] < 0 || i[2 + d] > INT32_MAX || i[d] < 1 || i[d] > INT32_MAX || i[d] > x->shape[2 + d] + 2 * i[2 + d])
            return fnn_fail(call, FNN_VALUE_ERROR, "size is (%lld, %lld) and padding (%lld, %lld), but from images of %td x %td "
                            "a crop must be at least 1 and at most an image with its padding", (long long)i[0], (long long)i[1],
                            (long long)i[2], (long long)i[3], x->shape[2], x->shape[3]);
        const fnn_tensor *norm = call->in[3 + d];
        if (!norm != !call->in[3] || (norm && (norm->rank != 1 || norm->shape[0] != x->shape[1])))
            return fnn_fail(call, FNN_VALUE_ERROR, "arguments 'mean' and 'std' must both be absent or of shape (%td,)",
                            x->shape[1]);
    }
    if (call->attr.f[5] > call->attr.f[6])
        return fnn_fail(call, FNN_VALUE_ERROR, "scale is %g to %g, but must not fall", call->attr.f[5], call->attr.f[6]);
    fnn_set_shape(call->out[0], x->dtype, 4, (ptrdiff_t[]){x->shape[0], x->shape[1], (ptrdiff_t)i[0], (ptrdiff_t)i[1]});
    if (flow && (flow->rank != 4 || flow->shape[0] != x->shape[0] || flow->shape[1] != 2 || flow->shape[2] != i[0] ||
                 flow->shape[3] != i[1]))
        return fnn_fail(call, FNN_VALUE_ERROR, "argument 'flow' has shape %s, but must be (%td, 2, %lld, %lld)",
                        fnn_shape_text(flow), x->shape[0], (long long)i[0], (long long)i[1]);
    return FNN_OK;
}

static void affine_workspace(const fnn_call *call, fnn_workspace *ws) {
    const fnn_tensor *y = call->out[0];
    const size_t row = fnn_whole_lines((size_t)(y->shape[1] * y->shape[3]) * fnn_itemsize(y->dtype));
    ws->shared = input_bytes(call) + fnn_stage_bytes(call->in[2]) + fnn_stage_bytes(y);
    if (call->in[3]) ws->shared += 2 * row;
}

/* Measured on an AVX-512 machine, batches of 128 CIFAR images: 4 ns an element sampled, 1.2 copied and normalised. */
static double affine_cost(const fnn_call *call) {
    return (double)fnn_numel(call->out[0]) * (is_straight(call) ? 1.2 : 4);
}

/* (C) once for each pixel of a row */
static char *repeated(const fnn_tensor *t, ptrdiff_t pixels, char **workspace) {
    if (!t) return NULL;
    const size_t size = fnn_itemsize(t->dtype);
    char *row = fnn_take(workspace, (size_t)(pixels * t->shape[0]) * size);
    for (ptrdiff_t k = 0; k < pixels * t->shape[0]; k++)
        memcpy(row + k * (ptrdiff_t)size, fnn_at(t->data, k % t->shape[0] * t->stride[0], t->dtype), size);
    return row;
}

/* Where a result's first pixel comes from, and the steps along its columns and rows; first: of a crop alone. */
typedef struct {
    double origin[2], along[2], down[2]; /* row, column */
    ptrdiff_t first[2];
    int flip[2];
} geometry;

/* With pixels counted from the centre, row v down and column u to the right, a result's (u, v) shows the crop's
 * shear^-1 rotation^-1 ((u, v) - shift) / scale. */
static geometry geometry_of(const plan *p, ptrdiff_t image) {
    const double *f = p->attr->f;
    const int64_t *i = p->attr->i;
    double u[12];
    draw(&p->stream, image, 12, u);
    geometry g = {.first = {(ptrdiff_t)floor(u[0] * (double)(p->h + 2 * i[2] - p->oh + 1)) - i[2],
                            (ptrdiff_t)floor(u[1] * (double)(p->w + 2 * i[3] - p->ow + 1)) - i[3]},
                  .flip = {u[3] < f[1], u[2] < f[0]}};
    const double angle = between(u[4], -f[2], f[2]) * DEGREE, slope = tan(between(u[8], -f[7], f[7]) * DEGREE);
    const double scale = between(u[7], f[5], f[6]), cosine = cos(angle) / scale, sine = sin(angle) / scale;
    g.along[0] = sine, g.along[1] = cosine - slope * sine;
    g.down[0] = cosine, g.down[1] = -sine - slope * cosine;
    const double middle[2] = {(double)(p->oh - 1) / 2, (double)(p->ow - 1) / 2};
    const double v = -middle[0] - between(u[5], -f[3], f[3]) * (double)p->oh;
    const double t = -middle[1] - between(u[6], -f[4], f[4]) * (double)p->ow;
    for (int d = 0; d < 2; d++) {
        g.origin[d] = (double)g.first[d] + middle[d] + v * g.down[d] + t * g.along[d];
        if (g.flip[0]) g.origin[d] += (double)(p->oh - 1) * g.down[d];
        if (g.flip[1]) g.origin[d] += (double)(p->ow - 1) * g.along[d];
        if (g.flip[0]) g.down[d] = -g.down[d];
        if (g.flip[1]) g.along[d] = -g.along[d];
    }
    return g;
}

/* The result's row r of an image; where it comes from may lie outside. */
static void crop_row(const plan *p, const geometry *g, ptrdiff_t image, ptrdiff_t r, void *y) {
    const ptrdiff_t from = g->first[0] + (g->flip[0] ? p->oh - 1 - r : r);
    const fnn_tensor *t = p->planes;
    const void *row = NULL;
    if (from >= 0 && from < p->h && t) row = fnn_at(t->data, image * t->stride[0] + from * t->stride[2], p->dtype);
    else if (from >= 0 && from < p->h) row = image_at(p, p->x, image * p->h + from, p->w);
    p->K->augment_crop(p->ow, p->channels, p->w, g->first[1], g->flip[1], row, t ? t->stride[1] : 0, y);
}

static void run_affine(void *context, ptrdiff_t chunk, void *scratch) {
    const plan *p = context;
    const ptrdiff_t parts = fnn_ceil_div(p->oh, p->rows), image = chunk / parts, begin = chunk % parts * p->rows;
    const geometry g = geometry_of(p, image);
    const char *x = image_at(p, p->x, image, p->h * p->w);
    (void)scratch;
    for (ptrdiff_t r = begin; r < fnn_min(begin + p->rows, p->oh); r++) {
        void *y = image_at(p, p->y, image * p->oh + r, p->ow);
        if (p->is_straight) {
            crop_row(p, &g, image, r, y);
        } else {
            const double at[4] = {g.origin[0] + (double)r * g.down[0], g.origin[1] + (double)r * g.down[1], g.along[0],
                                  g.along[1]};
            const void *flow = p->flow ? fnn_at(p->flow, (image * p->oh + r) * p->ow * 2, p->dtype) : NULL;
            p->K->augment_sample(p->ow, p->channels, p->h, p->w, at, flow, x, y);
        }
        if (p->mean) p->K->augment_normalise(p->ow * p->channels, p->mean, p->std, y);
    }
}

/* y: (N, C, OH, OW) = (x at random places - mean) / std; x: (N, C, H, W); flow: (N, 2, OH, OW), rows and columns added to
 * the places; mean, std: (C) */
static int affine_run(fnn_call *call) {
    char *at = call->shared;
    plan p = plan_of(call, &at);
    p.stream = fnn_stream_of(call->in[1], call->attr.i[4]);
    p.flow = fnn_stage_input(call->in[2], &at);
    p.mean = repeated(call->in[3], p.ow, &at), p.std = repeated(call->in[4], p.ow, &at);
    fnn_parallel_for(call, call->in[0]->shape[0] * fnn_ceil_div(p.oh, p.rows), fnn_cost(call), run_affine, &p);
    fnn_unstage_output(call->out[0], p.y);
    return FNN_OK;
}

const fnn_driver fnn_augment_affine = {
    .infer = affine_infer, .workspace = affine_workspace, .cost = affine_cost, .run = affine_run};

/* ---- colours ---- */

static void whole_workspace(const fnn_call *call, fnn_workspace *ws) {
    ws->shared = fnn_stage_bytes(call->in[0]) + fnn_stage_bytes(call->out[0]);
}

static int color_infer(fnn_call *call) {
    static const char *const names[] = {"brightness", "contrast", "saturation"};
    const double *f = call->attr.f;
    int status = check_image(call);
    for (int k = 0; k < 6 && !status; k++) status = check_range(call, names[k / 2], f[k], k % 2 ? f[k - 1] : 0, 100);
    if (!status) status = check_range(call, "hue", f[6], 0, 0.5);
    if (status) return status;
    if (call->in[0]->shape[1] != 1 && call->in[0]->shape[1] != 3)
        return fnn_fail(call, FNN_VALUE_ERROR, "argument 'x' has shape %s, but must have 1 or 3 channels",
                        fnn_shape_text(call->in[0]));
    fnn_set_like(call->out[0], call->in[0]);
    return FNN_OK;
}

/* Per image: brightness b, contrast c about the image's mean luminance, saturation s, hue turned by an angle: with the matrices
 * of the SVG filters saturate and hueRotate (W3C Filter Effects, section 9.6) one matrix and one offset, since both of those
 * leave greys as they are. */
static void run_color(void *context, ptrdiff_t image, void *scratch) {
    static const double luma[3] = {0.213, 0.715, 0.072};
    static const double turn[9] = {-0.213, -0.715, 0.928, 0.143, 0.140, -0.283, -0.787, 0.715, 0.072};
    const plan *p = context;
    const double *f = p->attr->f;
    const void *x = image_at(p, p->x, image, p->h * p->w);
    double u[4], gain[9], sums[3], grey;
    (void)scratch;
    draw(&p->stream, image, 4, u);
    const double b = between(u[0], f[0], f[1]), c = between(u[1], f[2], f[3]), s = between(u[2], f[4], f[5]);
    const double angle = between(u[3], -f[6], f[6]) * 360 * DEGREE;
    p->K->augment_sums(p->h * p->w, p->channels, x, sums);
    grey = p->channels == 1 ? sums[0] : luma[0] * sums[0] + luma[1] * sums[1] + luma[2] * sums[2];
    for (int k = 0; k < 9; k++) {
        const double chroma = (k % 4 == 0) - luma[k % 3];
        gain[k] = b * c * (luma[k % 3] + s * (cos(angle) * chroma + sin(angle) * turn[k]));
    }
    if (p->channels == 1) gain[0] = b * c;
    p->K->augment_color(p->h * p->w, p->channels, gain, (1 - c) * b * grey / (double)(p->h * p->w), x,
                        image_at(p, p->y, image, p->h * p->w));
}

static double color_cost(const fnn_call *call) { return 2.5 * (double)fnn_numel(call->out[0]); }

/* y, x: (N, C, H, W), C 1 or 3, in 0 .. 1 */
static int color_run(fnn_call *call) {
    char *at = call->shared;
    plan p = plan_of(call, &at);
    p.stream = fnn_stream_of(call->in[1], call->attr.i[0]);
    if (fnn_numel(call->out[0])) fnn_parallel_for(call, call->in[0]->shape[0], color_cost(call), run_color, &p);
    fnn_unstage_output(call->out[0], p.y);
    return FNN_OK;
}

const fnn_driver fnn_augment_color = {
    .infer = color_infer, .workspace = whole_workspace, .cost = color_cost, .run = color_run};

/* ---- holes ---- */

static int cutout_infer(fnn_call *call) {
    int status = check_image(call);
    if (!status) status = check_range(call, "p", call->attr.f[1], 0, 1);
    if (status) return status;
    for (int d = 0; d < 2; d++)
        if (call->attr.i[d] < 1 || call->attr.i[d] > INT32_MAX)
            return fnn_fail(call, FNN_VALUE_ERROR, "attribute 'size' holds %lld, but must be 1 to %d",
                            (long long)call->attr.i[d], INT32_MAX);
    fnn_set_like(call->out[0], call->in[0]);
    return FNN_OK;
}

static void run_cutout(void *context, ptrdiff_t image, void *scratch) {
    const plan *p = context;
    const int64_t *size = p->attr->i;
    const ptrdiff_t pixels = p->h * p->w;
    char *y = image_at(p, p->y, image, pixels);
    double u[4];
    (void)scratch;
    draw(&p->stream, image, 4, u);
    memcpy(y, image_at(p, p->x, image, pixels), (size_t)(pixels * p->channels) * fnn_itemsize(p->dtype));
    if (!(u[2] < p->attr->f[1])) return;
    const ptrdiff_t top = (ptrdiff_t)floor(u[0] * (double)p->h) - size[0] / 2;
    const ptrdiff_t left = (ptrdiff_t)floor(u[1] * (double)p->w) - size[1] / 2;
    const ptrdiff_t begin = fnn_max(left, 0), end = fnn_min(left + size[1], p->w);
    for (ptrdiff_t r = fnn_max(top, 0); r < fnn_min(top + size[0], p->h); r++)
        p->K->augment_hole((end - begin) * p->channels, p->attr->f[0], fnn_at(y, (r * p->w + begin) * p->channels, p->dtype));
}

/* y, x: (N, C, H, W): x, but for `value` in a rectangle around a random pixel */
static int cutout_run(fnn_call *call) {
    char *at = call->shared;
    plan p = plan_of(call, &at);
    p.stream = fnn_stream_of(call->in[1], call->attr.i[2]);
    if (fnn_numel(call->out[0])) fnn_parallel_for(call, call->in[0]->shape[0], fnn_cost(call), run_cutout, &p);
    fnn_unstage_output(call->out[0], p.y);
    return FNN_OK;
}

const fnn_driver fnn_augment_cutout = {.infer = cutout_infer, .workspace = whole_workspace, .run = cutout_run};
