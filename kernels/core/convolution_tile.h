// The tile of convolution.c: some pixels by some vectors of filters, summed up in registers over taps and channels.
//
// Registers: P pixels by V vectors. A step takes one channel of one tap: it loads V vectors of filters, and one number of
// each pixel. The pixels of a tile are equally far from each other in memory: they follow each other in a row of an
// image, or have the same position in images that follow each other. All of them meet the same taps, so that no branch
// and no pointer of its own is spent on a pixel.
//
// Order of a sum: taps, rows first, and in each the channels, each product added by fma, which rounds once; then the bias.
#pragma once

#include "vectors.h"

#define MOST_PIXELS 16
#define FLAGS 16 // numbers before the packed filters; the first is 1 where all filters are finite

// Along one axis of the source: tap i of output r lies at r·scale + origin + i·step, and is tap first + i·every of the
// packed filters. Output r is number place + r·spread of the result's axis.
typedef struct {
    index size, outputs, scale, origin, step, taps, first, every, place, spread;
} Axis;

INLINE Axis windows_of(index size, index windows, index stride, index pad, index dilation, index taps) {
    return (Axis){size, windows, stride, -pad, dilation, taps, 0, 1, 0, 1};
}

// The windows that contain the pixels rest + stride·r of an axis of `pixels`: tap t does where rest + pad - t·dilation
// is a multiple of the stride, and those t are `every` apart, or there are none. The last of them comes first.
INLINE Axis pixels_of(index windows, index pixels, index stride, index pad, index dilation, index taps, index rest) {
    index first = 0, every = stride / common_divisor(stride, dilation);
    while (first < taps && (rest + pad - first * dilation) % stride) ++first;
    const index count = first < taps ? (taps - first + every - 1) / every : 0, last = first + (count - 1) * every;
    return (Axis){windows, most(pixels - rest + stride - 1, 0) / stride, 1, (rest + pad - last * dilation) / stride,
                  every * dilation / stride, count, taps - 1 - last, every, rest, stride};
}

// Taps from `first` to `end` - 1.
typedef struct {
    index first, end;
} Met;

// The taps of an output that are inside the source.
INLINE Met met_by(const Axis *axis, index output) {
    const index begin = output * axis->scale + axis->origin, left = axis->size - begin;
    const index first = begin < 0 ? (axis->step - 1 - begin) / axis->step : 0;
    const index end = least(left > 0 ? (left + axis->step - 1) / axis->step : 0, axis->taps);
    return (Met){first, most(first, end)};
}

// What is convolved: images (rows, columns, in) to images (height, width, out). Source pixels lie in `x`, an image at
// each multiple of image_numbers and a row at each of row_numbers.
typedef struct {
    const T *x;
    const A *filters;
    T *y;
    unsigned char *positive;
    Axis rows, columns;
    index in, out, groups, height, width, taps, taps_of_row, image_numbers, row_numbers;
} Convolution;

// Pixels that are equally far from each other, and the taps that they meet: where the first one's window begins in x,
// and where its result lies in y. `ahead` is a row that is copied soon, or NULL: it is fetched meanwhile.
typedef struct {
    index source, source_step, target, target_step, count;
    Met rows, columns;
    const T *ahead;
} Line;

// Adds up `count` products for each number of the tile. Sums may round once a product: fma.
INLINE void add_products(const int P, const int V, vec sums[MOST_PIXELS][TILE_VECTORS], const T *from, index step,
                         const A *filters, index count) {
    const index third = 3 * step;
    const T *fours[4];
    UNROLL for (int i = 0; i < (P + 3) / 4; ++i) fours[i] = from + 4 * i * step;
#pragma clang loop unroll_count(2)
    for (index k = 0; k < count; ++k) {
        vec of_filters[TILE_VECTORS];
        UNROLL for (int v = 0; v < V; ++v) of_filters[v] = load_sums(filters + (k * V + v) * LANES);
        UNROLL for (int p = 0; p < P; ++p) {
            const vec of_pixel = all(get(fours[p / 4] + k + (p % 4 == 3 ? third : p % 4 * step)));
            UNROLL for (int v = 0; v < V; ++v) sums[p][v] = fma(of_pixel, of_filters[v], sums[p][v]);
        }
    }
}

// How a line's tiles walk through memory: what they read first, and the steps to the next pixel, row and tap.
typedef struct {
    const T *x;
    const A *filters, *bias;
    T *y;
    unsigned char *positive;
    index pixel, row, tap, filters_row, filters_tap, rows, runs, length, result, count;
} Walk;

// Computes P pixels of a line from `pixel` on.
INLINE void compute(const int P, const int V, const Walk w, index pixel) {
    const T *x = w.x + pixel * w.pixel;
    const A *filters = w.filters;
    vec sums[MOST_PIXELS][TILE_VECTORS];
    UNROLL for (int p = 0; p < P; ++p) UNROLL for (int v = 0; v < V; ++v) sums[p][v] = all(0);
    for (index a = 0; a < w.rows; ++a, x += w.row, filters += w.filters_row) {
        for (index run = 0; run < w.runs; ++run)
            add_products(P, V, sums, x + run * w.tap, w.pixel, filters + run * w.filters_tap, w.length);
    }
    UNROLL for (int p = 0; p < P; ++p) {
        const index to = (pixel + p) * w.result;
        UNROLL for (int v = 0; v < V; ++v) {
            const index at = to + v * LANES, count = w.count - v * LANES;
            const vec sum = rounded(sums[p][v] + load_sums(w.bias + v * LANES));
            if (count >= LANES) store(w.y + at, w.positive ? rectified(sum) : sum);
            else store_some(w.y + at, w.positive ? rectified(sum) : sum, count);
            if (w.positive && count >= LANES) store_mask(w.positive + at, sum > all(0));
            else if (w.positive) store_some_mask(w.positive + at, sum > all(0), count);
        }
    }
}

// Computes `count` filters, V vectors or less, of a line: P pixels at a time, then 8 where P is more, or 4, the last ones
// together with some that are computed again; pixels of a line with fewer than 4 one by one.
INLINE void compute_line(const int P, const int V, const Convolution *c, const Line *line, index channel, index filter,
                         index count, const A *filters) {
    const index many = c->in / c->groups, width = V * LANES, columns = line->columns.end - line->columns.first;
    const int joined = c->columns.step == 1 && c->columns.every == 1 && many == c->in; // a row of taps is one run
    const index row = c->rows.step * c->row_numbers, tap = c->columns.step * c->in;
    const index first = (c->rows.first + line->rows.first * c->rows.every) * c->taps_of_row + c->columns.first +
                        line->columns.first * c->columns.every;
    const index to = line->target + filter;
    const Walk w = {
        c->x + (line->source + line->rows.first * row + line->columns.first * tap + channel),
        filters + (1 + first * many) * width, filters, c->y + to, c->positive ? c->positive + to : 0,
        line->source_step, row, tap, c->rows.every * c->taps_of_row * many * width, c->columns.every * many * width,
        line->rows.end - line->rows.first, joined ? columns > 0 : columns, joined ? columns * many : many,
        line->target_step, count};
    for (index pixel = 0, left; (left = line->count - pixel) > 0;) {
        if (line->count >= P && left > P - 4 && (P != 6 || (left > 4 && left != 8))) {
            compute(P, V, w, left < P ? line->count - P : pixel);
            pixel += P;
        } else if (P > 8 && line->count >= 8 && left > 4) {
            compute(8, V, w, left < 8 ? line->count - 8 : pixel);
            pixel += 8;
        } else if (line->count >= 4) {
            compute(4, V, w, left < 4 ? line->count - 4 : pixel);
            pixel += 4;
        } else {
            compute(1, V, w, pixel++);
        }
    }
}
