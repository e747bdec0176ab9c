/* conv2d_amx_pixels.c: where the pixels are that a convolution on bfloat16 matrix units reads: kernels/conv_amx.h splits
 * pixels by their addresses, so that strides, padding and the order of maps end here. */
#include "conv2d_amx.h"

fnn_amx_lattice fnn_amx_lattice_of(const fnn_axis *axes, ptrdiff_t count) {
    fnn_amx_lattice l = {.base = PTRDIFF_MAX, .step = axes[0].step};
    for (ptrdiff_t p = 0; p < count; p++)
        if (axes[p].taps) l.base = fnn_min(l.base, axes[p].first);
    for (ptrdiff_t p = 0; p < count; p++)
        for (ptrdiff_t t = 0; t < axes[p].taps; t++) {
            const ptrdiff_t from = axes[p].first - l.base + t * axes[p].gap;
            ptrdiff_t k = 0;
            while (k < l.classes && l.value[k] != from % l.step) k++;
            if (k == l.classes) l.value[l.classes++] = from % l.step;
            l.most = fnn_max(l.most, from / l.step);
        }
    return l;
}

ptrdiff_t fnn_amx_class(const fnn_amx_lattice *l, const fnn_axis *axis, ptrdiff_t t, ptrdiff_t *shift) {
    const ptrdiff_t from = axis->first - l->base + t * axis->gap;
    ptrdiff_t k = 0;
    *shift = from / l->step;
    while (l->value[k] != from % l->step) k++;
    return k;
}

void fnn_amx_row(const fnn_tile_source *map, ptrdiff_t image, ptrdiff_t row, ptrdiff_t channel,
                 const fnn_amx_lattice *cols, ptrdiff_t class, ptrdiff_t i, ptrdiff_t count, const float **pixel) {
    const int inside = row >= 0 && row < map->h;
    const float *from = (const float *)map->image.data + channel;
    if (inside) from += image * map->image.n + row * map->image.h;
    ptrdiff_t col = cols->base + cols->value[class] + i * cols->step;
    for (ptrdiff_t j = 0; j < count; j++, col += cols->step)
        pixel[j] = inside && col >= 0 && col < map->w ? from + col * map->image.w : (const float *)map->zeros;
}

void fnn_amx_outputs(const fnn_tile_source *map, ptrdiff_t images, ptrdiff_t channel, const fnn_axis *h,
                     const fnn_axis *w, ptrdiff_t begin, ptrdiff_t count, const float **pixel) {
    ptrdiff_t image = begin / (h->out * w->out), row = begin / w->out % h->out, col = begin % w->out;
    for (ptrdiff_t q = 0; q < count; q++) {
        const ptrdiff_t y = row * h->step + h->first, x = col * w->step + w->first;
        const int inside = image < images && y >= 0 && y < map->h && x >= 0 && x < map->w;
        pixel[q] = inside ? (const float *)map->image.data + image * map->image.n + y * map->image.h +
                                x * map->image.w + channel
                          : (const float *)map->zeros;
        if (++col < w->out) continue;
        col = 0;
        if (++row < h->out) continue;
        row = 0, image++;
    }
}
