// The tile of convolution.c: some pixels by some vectors of filters, summed up in registers over taps and channels.
//
// Registers: P pixels by V vectors. A step takes one channel of one tap: it loads V vectors of filters, and one number of
// each pixel, by a pointer of its own. So a tile's pixels are any that follow each other, over the ends of rows and
// images, and a tap outside the image has a pointer to zeros: no branch is in the loop over channels.
//
// Order of a sum: taps, rows first, and in each the channels, each product added by fma, which rounds once; then the bias.
#pragma once

#include "vectors.h"

#define MOST_VECTORS (VECTOR_BYTES == 32 ? 2 : 4) // x86-64-v3 has 16 registers, the others have 32
#define MOST_PIXELS 12
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
    index first = 0, every = 1;
    while (first < taps && (rest + pad - first * dilation) % stride) ++first;
    while (every * dilation % stride) ++every;
    const index count = first < taps ? (taps - first + every - 1) / every : 0, last = first + (count - 1) * every;
    return (Axis){windows, most(pixels - rest + stride - 1, 0) / stride, 1, (rest + pad - last * dilation) / stride,
                  every * dilation / stride, count, taps - 1 - last, every, rest, stride};
}

// What is convolved: images (rows, columns, in) to images (height, width, out). The arrays begin with the first image of
// a chunk, whose pixels are numbered by image and position, or where `together` is more than 1, by position and image.
typedef struct {
    const T *x;
    const A *filters;
    T *y;
    unsigned char *positive;
    Axis rows, columns;
    index in, out, groups, height, width, taps, taps_of_row, together;
    const T *zeros; // what taps outside the image meet, a channel each; NULL where all are inside
} Convolution;

// Where the windows of a tile's pixels begin in their images and in x, and where their results lie in y.
typedef struct {
    index row[MOST_PIXELS], column[MOST_PIXELS], source[MOST_PIXELS], target[MOST_PIXELS];
} Pixels;

// Places pixels from `first` on; those from `last` on, which are not written, where that before them is.
static __attribute__((noinline)) void place(const Convolution *c, index first, index last, int count, Pixels *pixels) {
    const index width = c->columns.outputs, height = c->rows.outputs, many = c->together;
    index image = first % many, row = first / many / width, column = first / many % width;
    if (many == 1) image = row / height, row %= height;
    for (int p = 0; p < count; ++p) {
        const index down = row * c->rows.scale + c->rows.origin, y = c->rows.place + row * c->rows.spread;
        const index across = column * c->columns.scale + c->columns.origin;
        const index x = c->columns.place + column * c->columns.spread;
        pixels->row[p] = down, pixels->column[p] = across;
        pixels->source[p] = ((image * c->rows.size + down) * c->columns.size + across) * c->in;
        pixels->target[p] = ((image * c->height + y) * c->width + x) * c->out;
        if (first + p + 1 >= last) continue;
        if (many > 1 && ++image < many) continue;
        if (many > 1) image = 0;
        if (++column < width) continue;
        column = 0;
        if (++row < height) continue;
        row = 0;
        ++image;
    }
}

INLINE int inside(index at, index size) { return (unsigned long long)at < (unsigned long long)size; }

// Finds the numbers that a tap meets, the same for all channels; returns whether it is inside any image.
INLINE int meet(const int P, const Convolution *c, const Pixels *pixels, index down, index across, index channel,
                const T *from[MOST_PIXELS]) {
    const index ahead = (down * c->columns.size + across) * c->in + channel;
    int any = !c->zeros;
    UNROLL for (int p = 0; p < P; ++p) {
        from[p] = c->x + pixels->source[p] + ahead;
        if (c->zeros) {
            const int met = inside(pixels->row[p] + down, c->rows.size) &
                            inside(pixels->column[p] + across, c->columns.size);
            from[p] = met ? from[p] : c->zeros;
            any |= met;
        }
        __asm__("" : "+r"(from[p])); // or the compiler computes pointers in a vector, and takes it apart again
    }
    return any;
}

// Adds up `count` products for each number of the tile. Sums may round once a product: fma.
INLINE void add_products(const int P, const int V, vec sums[MOST_PIXELS][4], const T *const from[MOST_PIXELS],
                         const A *filters, index count) {
#pragma clang loop unroll_count(2)
    for (index k = 0; k < count; ++k) {
        vec of_filters[4];
        UNROLL for (int v = 0; v < V; ++v) of_filters[v] = load_sums(filters + (k * V + v) * LANES);
        UNROLL for (int p = 0; p < P; ++p) {
            const vec of_pixel = all(get(from[p] + k));
            UNROLL for (int v = 0; v < V; ++v) sums[p][v] = fma(of_pixel, of_filters[v], sums[p][v]);
        }
    }
}

// Writes a vector of filters of a pixel with ReLU, or the `count` of them that there are.
INLINE void write(const Convolution *c, index at, index count, vec sum) {
    const mask above = sum > all(0);
    if (c->positive) sum = rectified(sum);
    if (count >= LANES) {
        store(c->y + at, sum);
        if (c->positive) store_mask(c->positive + at, above);
    } else {
        store_some(c->y + at, sum, count);
        if (c->positive) store_some_mask(c->positive + at, above, count);
    }
}

// Computes `count` filters, V vectors or less, of the pixels from first to last - 1.
INLINE void block(const int P, const int V, const Convolution *c, index channel, index filter, index count,
                  const A *filters, index first, index last) {
    const index many = c->in / c->groups, width = V * LANES;
    const int joined = !c->zeros && c->columns.step == 1 && c->columns.every == 1 && many == c->in; // a row of taps is one run
    const int skips = c->filters[0] != 0;
    const index runs = joined ? 1 : c->columns.taps, length = joined ? c->columns.taps * many : many;
    for (index pixel = first; pixel < last; pixel += P) {
        Pixels pixels;
        place(c, pixel, last, P, &pixels);
        vec sums[MOST_PIXELS][4];
        UNROLL for (int p = 0; p < P; ++p) UNROLL for (int v = 0; v < V; ++v) sums[p][v] = all(0);
        for (index a = 0; a < c->rows.taps; ++a) {
            for (index b = 0; b < runs; ++b) {
                const T *from[MOST_PIXELS];
                const int any = meet(P, c, &pixels, a * c->rows.step, b * c->columns.step, channel, from);
                if (!any && skips) continue;
                const index tap = (c->rows.first + a * c->rows.every) * c->taps_of_row + c->columns.first +
                                  b * c->columns.every;
                add_products(P, V, sums, from, filters + (1 + tap * many) * width, length);
            }
        }
        UNROLL for (int p = 0; p < P; ++p) {
            if (pixel + p >= last) break;
            UNROLL for (int v = 0; v < V; ++v)
                write(c, pixels.target[p] + filter + v * LANES, count - v * LANES, sums[p][v] + load_sums(filters + v * LANES));
        }
    }
}
