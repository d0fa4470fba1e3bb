// Max pooling over channels-last memory: x is (N, H, W, C), y and the winners are (N, OH, OW, C).
//
// The first maximum of a window wins, the first NaN wins over all; padding never wins: it is not looked at. Of each
// winner `winner_bytes` are kept, as on a GPU: one for its tap, counted from 0 along the rows of the window, or four
// for its index row·W + column in its plane, an int.
//
// Vectors hold neighbouring channels, whose maximum and its place stay in registers while the taps are looked at in
// ascending order. The last vector of a pixel begins where the channels end with it, so that some channels are computed
// twice; fewer channels than a vector has lanes are a part of one. Windows of 2×2 and 3×3 have their own code, the same
// with constant sizes.
//
// Least bytes: x once, y and the winners once. Backward the same.

#include "core/windows.h"

typedef mask places; // an integer for each number of a vec
typedef int ints __attribute__((vector_size(VECTOR_BYTES / sizeof(A) * 4), aligned(4), may_alias));
typedef __typeof__((stored){0} < (stored){0}) bits; // of the numbers in memory

INLINE int place_of(Geometry g, int winner_bytes, int a, int b, int h, int w) {
    return winner_bytes == 1 ? a * g.kernel_width + b : h * g.width + w;
}

INLINE void store_places(unsigned char *p, int winner_bytes, places where, int count) {
    unsigned char part[LANES * 4], *to = count < LANES ? part : p;
    if (winner_bytes == 1) *(bytes *)to = __builtin_convertvector(where, bytes);
    else *(ints *)to = __builtin_convertvector(where, ints);
    if (count < LANES) copy_some(p, part, count, winner_bytes);
}

// Compute `count` channels, LANES or fewer, of one window, whose first tap's first of them is number `corner` of x.
INLINE void pool_channels(Geometry g, int winner_bytes, const T *x, index corner, const T *end, T *y,
                          unsigned char *winners, int count, int top, int left, Taps rows, Taps columns) {
    vec best = {0};
    places where = {0};
    UNROLL for (int a = rows.first; a < rows.end; ++a) UNROLL for (int b = columns.first; b < columns.end; ++b) {
        const int h = a * g.dilation_height, w = b * g.dilation_width;
        const T *pixel = x + (corner + ((index)h * g.width + w) * g.channels);
        const vec value = load_part(pixel, count, end);
        const places place = (places){0} + place_of(g, winner_bytes, a, b, top + h, left + w);
        if (a == rows.first && b == columns.first) {
            best = value;
            where = place;
        } else { // a NaN is not less than anything, and nothing beats it
            const mask beats = ~(value <= best) & (best == best);
            best = choose(beats, value, best);
            where = (place & beats) | (where & ~beats);
        }
    }
    store_up_to(y, best, count);
    store_places(winners, winner_bytes, where, count);
}

INLINE void pool_window(Geometry g, int winner_bytes, const T *x, index corner, const T *end, T *y,
                        unsigned char *winners, int top, int left, Taps rows, Taps columns) {
#define POOL(c, count)                                                                                                 \
    pool_channels(g, winner_bytes, x, corner + (c), end, y + (c), winners + (index)(c) * winner_bytes, count, top,     \
                  left, rows, columns)
    EACH_CHANNELS(g.channels, POOL)
}

// Compute rows first … last - 1 of the output: row i % OH of image i / OH.
INLINE void pool_rows(Geometry g, int winner_bytes, const T *x, const T *end, T *y, unsigned char *winners, index first,
                      index last) {
    const int k = g.kernel_height == g.kernel_width ? g.kernel_height : 0;
    Geometry two = g, three = g;
    two.kernel_height = two.kernel_width = 2;
    three.kernel_height = three.kernel_width = 3;
    for (index row = first; row < last; ++row) {
        const int top = (int)(row % g.out_height) * g.stride_height - g.pad_top;
        const Taps rows = taps_inside(top, g.kernel_height, g.dilation_height, g.height);
        for (int ow = 0; ow < g.out_width; ++ow) {
            const int left = ow * g.stride_width - g.pad_left;
            const Taps columns = taps_inside(left, g.kernel_width, g.dilation_width, g.width);
            const index at = (row * g.out_width + ow) * g.channels;
            const int whole = rows.end - rows.first == k && columns.end - columns.first == k;
            const index corner = ((row / g.out_height * g.height + top) * g.width + left) * g.channels;
            unsigned char *own = winners + at * winner_bytes;
            if (whole && k == 2)
                pool_window(two, winner_bytes, x, corner, end, y + at, own, top, left, (Taps){0, 2}, (Taps){0, 2});
            else if (whole && k == 3)
                pool_window(three, winner_bytes, x, corner, end, y + at, own, top, left, (Taps){0, 3}, (Taps){0, 3});
            else pool_window(g, winner_bytes, x, corner, end, y + at, own, top, left, rows, columns);
        }
    }
}

KERNEL(max_pool)(const T *x /* images * pixels * channels */, T *y /* images * windows * channels */,
                 unsigned char *winners /* images * windows * channels * winner_bytes */, const Geometry *g,
                 index images, int winner_bytes, index first, index last) {
    const T *end = x + images * g->height * g->width * g->channels;
    if (winner_bytes == 1) pool_rows(*g, 1, x, end, y, winners, first, last);
    else pool_rows(*g, 4, x, end, y, winners, first, last);
}

// The lanes of winners that are `own`, of the numbers in memory.
INLINE bits won_by(int own, const unsigned char *winners, int winner_bytes, int count, const unsigned char *end) {
    unsigned char part[LANES * 4] = {0};
    if (count < LANES && end - winners < LANES * winner_bytes) {
        copy_some(part, winners, count, winner_bytes);
        winners = part;
    }
    return winner_bytes == 1 ? __builtin_convertvector(*(const bytes *)winners == (unsigned char)own, bits)
                             : __builtin_convertvector(*(const ints *)winners == own, bits);
}

// The gradients and the winners of a call, and behind their last.
typedef struct {
    const T *dy, *dy_end;
    const unsigned char *winners, *winners_end;
    int winner_bytes;
} Upstream;

// Gather, where windows overlap: a pixel adds up the gradients of the windows that it won, taps in ascending order,
// which is the order of the loop in max_pooling.py. `windows` is the image's first output, c the first channel.
INLINE void gather_channels(Geometry g, Upstream up, index windows, int c, int count, T *dx, int h, int w, Holders rows,
                            Holders columns) {
    vec sum = {0};
    UNROLL for (int i = 0; i < rows.count; ++i) UNROLL for (int j = 0; j < columns.count; ++j) {
        const int oh = rows.window - i * rows.window_step, ow = columns.window - j * columns.window_step;
        const int a = rows.tap + i * rows.tap_step, b = columns.tap + j * columns.tap_step;
        const index at = (windows + (index)oh * g.out_width + ow) * g.channels + c;
        const bits won = won_by(place_of(g, up.winner_bytes, a, b, h, w), up.winners + at * up.winner_bytes,
                                up.winner_bytes, count, up.winners_end);
        const vec gradient = load_part(up.dy + at, count, up.dy_end);
        sum = choose(__builtin_convertvector(won, mask), sum + gradient, sum);
    }
    store_up_to(dx, sum, count);
}

INLINE void gather_pixel(Geometry g, Upstream up, index windows, T *dx, int h, int w, Holders rows, Holders columns) {
#define GATHER(c, count) gather_channels(g, up, windows, c, count, dx + (c), h, w, rows, columns)
    EACH_CHANNELS(g.channels, GATHER)
}

// Compute rows first … last - 1 of dx: row i % H of image i / H.
INLINE void gather_rows(Geometry g, Upstream up, T *dx, index first, index last) {
    Holders across[BAND];
    for (int begin = 0; begin < g.width; begin += BAND) {
        const int end = (int)least(begin + BAND, g.width);
        for (int w = begin; w < end; ++w) across[w - begin] = holders_of_column(&g, w);
        for (index row = first; row < last; ++row) {
            const int h = (int)(row % g.height);
            const Holders down = holders_of_row(&g, h);
            const index windows = row / g.height * g.out_height * g.out_width;
            for (int w = begin; w < end; ++w)
                gather_pixel(g, up, windows, dx + (row * g.width + w) * g.channels, h, w, down, across[w - begin]);
        }
    }
}

KERNEL(max_pool_gather)(const T *dy /* images * windows * channels */,
                        const unsigned char *winners /* images * windows * channels * winner_bytes */,
                        T *dx /* images * pixels * channels */, const Geometry *g, index images, int winner_bytes,
                        index first, index last) {
    const index count = images * g->out_height * g->out_width * g->channels;
    if (winner_bytes == 1) gather_rows(*g, (Upstream){dy, dy + count, winners, winners + count, 1}, dx, first, last);
    else gather_rows(*g, (Upstream){dy, dy + count, winners, winners + 4 * count, 4}, dx, first, last);
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

// Pass the gradient's bits to `count` channels of a pixel where they won, and write 0 elsewhere. `own` is the pixel's
// place, or -1 in a gap; `at` is the first one's number in dy.
INLINE void scatter_channels(Upstream up, index at, int count, T *dx, int own) {
    const bits won = own < 0 ? (bits){0} : won_by(own, up.winners + at * up.winner_bytes, up.winner_bytes, count, up.winners_end);
    T part[LANES];
    const T *dy = up.dy + at;
    if (count < LANES && up.dy_end - dy < LANES) {
        copy_some(part, dy, count, sizeof(T));
        dy = part;
    }
    const bits given = (bits)*(const stored *)dy;
    if (count == LANES) *(stored *)dx = (stored)(given & won);
    else {
        *(stored *)part = (stored)(given & won);
        copy_some(dx, part, count, sizeof(T));
    }
}

// Compute rows of the output as above, one row of their pixels after the other: dx is written from begin to end.
INLINE void scatter_rows(Geometry g, Upstream up, T *dx, index first, index last) {
    for (index row = first; row < last; ++row) {
        const int oh = (int)(row % g.out_height), top = oh * g.stride_height - g.pad_top;
        const Taps own_rows = pixels_of(oh, g.out_height, g.stride_height, g.pad_top, g.height);
        for (int h = own_rows.first; h < own_rows.end; ++h) {
            const int a = tap_at(h - top, g.kernel_height, g.dilation_height);
            T *pixel = dx + (row / g.out_height * g.height + h) * g.width * g.channels;
            for (int ow = 0; ow < g.out_width; ++ow) {
                const int left = ow * g.stride_width - g.pad_left;
                const Taps own_columns = pixels_of(ow, g.out_width, g.stride_width, g.pad_left, g.width);
                const index at = (row * g.out_width + ow) * g.channels;
                for (int w = own_columns.first; w < own_columns.end; ++w, pixel += g.channels) {
                    const int b = tap_at(w - left, g.kernel_width, g.dilation_width);
                    const int own = a < 0 || b < 0 ? -1 : place_of(g, up.winner_bytes, a, b, h, w);
#define SCATTER(c, count) scatter_channels(up, at + (c), count, pixel + (c), own)
                    EACH_CHANNELS(g.channels, SCATTER)
                }
            }
        }
    }
}

KERNEL(max_pool_scatter)(const T *dy /* images * windows * channels */,
                         const unsigned char *winners /* images * windows * channels * winner_bytes */,
                         T *dx /* images * pixels * channels */, const Geometry *g, index images, int winner_bytes,
                         index first, index last) {
    const index count = images * g->out_height * g->out_width * g->channels;
    if (winner_bytes == 1) scatter_rows(*g, (Upstream){dy, dy + count, winners, winners + count, 1}, dx, first, last);
    else scatter_rows(*g, (Upstream){dy, dy + count, winners, winners + 4 * count, 4}, dx, first, last);
}
