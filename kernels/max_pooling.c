// Max pooling over channels-last memory: x is (N, H, W, C), y and the winners are (N, OH, OW, C).
//
// The first maximum of a window wins, the first NaN wins over all; padding never wins: it is not looked at. Of each
// winner `winner_bytes` are kept, as on a GPU: one for its tap, counted from 0 along the rows of the window, or four
// for its index row·W + column in its plane, an int.
//
// Vectors hold neighbouring channels, whose maximum and its place stay in registers while the taps are looked at in
// ascending order. The last vector of a pixel begins where the channels end with it, so that some channels are computed
// twice. Pixels of fewer channels than a vector has lanes are computed one by one. Windows of 2×2 and 3×3 have their
// own code, the same with constant sizes.
//
// Least bytes: x once, y and the winners once. Backward the same.

#include "core/windows.h"

typedef mask places; // an integer for each number of a vec
typedef int ints __attribute__((vector_size(VECTOR_BYTES / sizeof(A) * 4), aligned(4), may_alias));
typedef __typeof__((stored){0} < (stored){0}) bits; // of the numbers in memory

INLINE int place_of(const Geometry *g, int winner_bytes, int a, int b, int h, int w) {
    return winner_bytes == 1 ? a * g->kernel_width + b : h * g->width + w;
}

INLINE void store_places(unsigned char *p, int winner_bytes, places where) {
    if (winner_bytes == 1) *(bytes *)p = __builtin_convertvector(where, bytes);
    else *(ints *)p = __builtin_convertvector(where, ints);
}

// Compute one window: `top` and `left` are the pixel of its first tap, x the image, y and winners the window's own.
INLINE void pool_window(const T *x, T *y, unsigned char *winners, const Geometry *g, int winner_bytes, int top,
                        int left, Taps rows, Taps columns) {
    const int channels = g->channels;
    const index down = (index)g->dilation_height * g->width * channels, across = (index)g->dilation_width * channels;
    const T *corner = x + ((index)top * g->width + left) * channels;
    if (channels >= LANES) {
        for (int next = 0; next < channels; next += LANES) {
            const int c = next + LANES <= channels ? next : channels - LANES;
            vec best = {0};
            places where = {0};
            for (int a = rows.first; a < rows.end; ++a)
                for (int b = columns.first; b < columns.end; ++b) {
                    const vec value = load(corner + a * down + b * across + c);
                    const places place = (places){0} + place_of(g, winner_bytes, a, b, top + a * g->dilation_height,
                                                                left + b * g->dilation_width);
                    if (a == rows.first && b == columns.first) {
                        best = value;
                        where = place;
                    } else { // a NaN is not less than anything, and nothing beats it
                        const mask beats = ~(value <= best) & (best == best);
                        best = choose(beats, value, best);
                        where = (place & beats) | (where & ~beats);
                    }
                }
            store(y + c, best);
            store_places(winners + (index)c * winner_bytes, winner_bytes, where);
        }
        return;
    }
    for (int c = 0; c < channels; ++c) {
        A best = get(corner + rows.first * down + columns.first * across + c);
        int where = place_of(g, winner_bytes, rows.first, columns.first, top + rows.first * g->dilation_height,
                             left + columns.first * g->dilation_width);
        for (int a = rows.first; a < rows.end; ++a)
            for (int b = columns.first; b < columns.end; ++b) {
                const A value = get(corner + a * down + b * across + c);
                const int beats = __builtin_unpredictable(!(value <= best) & (best == best));
                const int place =
                    place_of(g, winner_bytes, a, b, top + a * g->dilation_height, left + b * g->dilation_width);
                best = beats ? value : best;
                where = beats ? place : where;
            }
        put(y + c, best);
        if (winner_bytes == 1) winners[c] = (unsigned char)where;
        else ((int *)winners)[c] = where;
    }
}

// Rows of the output: row i % out_height of image i / out_height, first <= i < last.
INLINE void pool_rows(const T *x, T *y, unsigned char *winners, const Geometry *g, int winner_bytes, index first,
                      index last) {
    const index pixels = (index)g->height * g->width * g->channels;
    const int k = g->kernel_height == g->kernel_width ? g->kernel_height : 0;
    for (index row = first; row < last; ++row) {
        const T *image = x + row / g->out_height * pixels;
        const int top = (int)(row % g->out_height) * g->stride_height - g->pad_top;
        const Taps rows = taps_inside(top, g->kernel_height, g->dilation_height, g->height);
        for (int ow = 0; ow < g->out_width; ++ow) {
            const int left = ow * g->stride_width - g->pad_left;
            const Taps columns = taps_inside(left, g->kernel_width, g->dilation_width, g->width);
            const index at = (row * g->out_width + ow) * g->channels;
            const int whole = rows.end - rows.first == k && columns.end - columns.first == k;
            unsigned char *own = winners + at * winner_bytes;
            if (whole && k == 2)
                pool_window(image, y + at, own, g, winner_bytes, top, left, (Taps){0, 2}, (Taps){0, 2});
            else if (whole && k == 3)
                pool_window(image, y + at, own, g, winner_bytes, top, left, (Taps){0, 3}, (Taps){0, 3});
            else pool_window(image, y + at, own, g, winner_bytes, top, left, rows, columns);
        }
    }
}

KERNEL(max_pool)(const T *x /* images * pixels * channels */, T *y /* images * windows * channels */,
                 unsigned char *winners /* images * windows * channels * winner_bytes */, const Geometry *g,
                 index images, int winner_bytes, index first, index last) {
    if (winner_bytes == 1) pool_rows(x, y, winners, g, 1, first, last);
    else pool_rows(x, y, winners, g, 4, first, last);
    (void)images;
}

// The lanes of a vector of winners that are `own`, as a mask of type KIND.
#define WON(KIND, winners, winner_bytes, own)                                                                           \
    (winner_bytes == 1 ? __builtin_convertvector(*(const bytes *)(winners) == (unsigned char)(own), KIND)               \
                       : __builtin_convertvector(*(const ints *)(winners) == (own), KIND))

INLINE int winner_of(const unsigned char *winners, int winner_bytes, index i) {
    return winner_bytes == 1 ? winners[i] : ((const int *)winners)[i];
}

// Gather, where windows overlap: a pixel adds up the gradients of the windows that it won, taps in ascending order,
// which is the order of the loop in max_pooling.py.
INLINE void gather_pixel(const T *dy, const unsigned char *winners, T *dx, const Geometry *g, int winner_bytes, int h,
                         int w, Holders rows, Holders columns) {
    const int channels = g->channels;
    const int width = channels < LANES ? 1 : LANES;
    for (int next = 0; next < channels; next += width) {
        const int c = next + width <= channels ? next : channels - width;
        vec sums = {0};
        A sum = 0;
        for (int i = 0; i < rows.count; ++i)
            for (int j = 0; j < columns.count; ++j) {
                const int oh = rows.window - i * rows.window_step, ow = columns.window - j * columns.window_step;
                const index at = ((index)oh * g->out_width + ow) * channels + c;
                const int own =
                    place_of(g, winner_bytes, rows.tap + i * rows.tap_step, columns.tap + j * columns.tap_step, h, w);
                if (width == 1) sum += winner_of(winners, winner_bytes, at) == own ? get(dy + at) : 0;
                else {
                    const mask won = WON(mask, winners + at * winner_bytes, winner_bytes, own);
                    sums = choose(won, sums + load(dy + at), sums);
                }
            }
        if (width == 1) put(dx + c, sum);
        else store(dx + c, sums);
    }
}

#define BAND 256 // columns whose windows are looked up at once

// Rows of dx: row i % height of image i / height, first <= i < last.
INLINE void gather_rows(const T *dy, const unsigned char *winners, T *dx, const Geometry *g, int winner_bytes,
                        index first, index last) {
    const index windows = (index)g->out_height * g->out_width * g->channels;
    Holders across[BAND];
    for (int begin = 0; begin < g->width; begin += BAND) {
        const int end = begin + BAND < g->width ? begin + BAND : g->width;
        for (int w = begin; w < end; ++w)
            across[w - begin] =
                holders(w + g->pad_left, g->kernel_width, g->dilation_width, g->stride_width, g->out_width);
        for (index row = first; row < last; ++row) {
            const int h = (int)(row % g->height);
            const Holders down =
                holders(h + g->pad_top, g->kernel_height, g->dilation_height, g->stride_height, g->out_height);
            const T *gradient = dy + row / g->height * windows;
            const unsigned char *own = winners + row / g->height * windows * winner_bytes;
            for (int w = begin; w < end; ++w)
                gather_pixel(gradient, own, dx + (row * g->width + w) * g->channels, g, winner_bytes, h, w, down,
                             across[w - begin]);
        }
    }
}

KERNEL(max_pool_gather)(const T *dy /* images * windows * channels */,
                        const unsigned char *winners /* images * windows * channels * winner_bytes */,
                        T *dx /* images * pixels * channels */, const Geometry *g, index images, int winner_bytes,
                        index first, index last) {
    if (winner_bytes == 1) gather_rows(dy, winners, dx, g, 1, first, last);
    else gather_rows(dy, winners, dx, g, 4, first, last);
    (void)images;
}

// Along one axis, the pixels that a window writes where windows do not overlap: its own and the gap to the next; the
// first and the last up to the image's borders. So every pixel is written once.
INLINE Taps pixels_of(int window, int windows, int stride, int pad, int size) {
    const int begin = window * stride - pad, end = begin + stride;
    return (Taps){begin < 0 ? 0 : begin, window == windows - 1 || end > size ? size : end};
}

// The tap that meets a pixel `at` places behind the window's first, or -1 in a gap.
INLINE int tap_at(int at, int taps, int dilation) {
    if (dilation == 1) return at < taps ? at : -1;
    return at % dilation || at / dilation >= taps ? -1 : at / dilation;
}

// Pass the gradient's bits to a pixel where it won, and write 0 elsewhere. `own` is its place, or -1 in a gap.
INLINE void scatter_pixel(const T *dy, const unsigned char *winners, T *dx, int channels, int winner_bytes, int own) {
    const int width = channels < LANES ? 1 : LANES;
    for (int next = 0; next < channels; next += width) {
        const int c = next + width <= channels ? next : channels - width;
        if (width == 1) dx[c] = winner_of(winners, winner_bytes, c) == own ? dy[c] : (T)0;
        else {
            const bits won = own < 0 ? (bits){0} : WON(bits, winners + (index)c * winner_bytes, winner_bytes, own);
            *(stored *)(dx + c) = (stored)((bits)*(const stored *)(dy + c) & won);
        }
    }
}

// Rows of the output, as above; row by row of the pixels that they write, so that dx is written from begin to end.
INLINE void scatter_rows(const T *dy, const unsigned char *winners, T *dx, const Geometry *g, int winner_bytes,
                         index first, index last) {
    const int channels = g->channels;
    for (index row = first; row < last; ++row) {
        const int oh = (int)(row % g->out_height), top = oh * g->stride_height - g->pad_top;
        const Taps own_rows = pixels_of(oh, g->out_height, g->stride_height, g->pad_top, g->height);
        for (int h = own_rows.first; h < own_rows.end; ++h) {
            const int a = tap_at(h - top, g->kernel_height, g->dilation_height);
            T *pixel = dx + (row / g->out_height * g->height + h) * g->width * channels;
            for (int ow = 0; ow < g->out_width; ++ow) {
                const int left = ow * g->stride_width - g->pad_left;
                const Taps own_columns = pixels_of(ow, g->out_width, g->stride_width, g->pad_left, g->width);
                const index at = (row * g->out_width + ow) * channels;
                for (int w = own_columns.first; w < own_columns.end; ++w, pixel += channels) {
                    const int b = tap_at(w - left, g->kernel_width, g->dilation_width);
                    const int own = a < 0 || b < 0 ? -1 : place_of(g, winner_bytes, a, b, h, w);
                    scatter_pixel(dy + at, winners + at * winner_bytes, pixel, channels, winner_bytes, own);
                }
            }
        }
    }
}

KERNEL(max_pool_scatter)(const T *dy /* images * windows * channels */,
                         const unsigned char *winners /* images * windows * channels * winner_bytes */,
                         T *dx /* images * pixels * channels */, const Geometry *g, index images, int winner_bytes,
                         index first, index last) {
    if (winner_bytes == 1) scatter_rows(dy, winners, dx, g, 1, first, last);
    else scatter_rows(dy, winners, dx, g, 4, first, last);
    (void)images;
}
