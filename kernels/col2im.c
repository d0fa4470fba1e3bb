// col2im: every pixel of an (N, H, W, C) image sums up the numbers that the windows containing it hold for it.
//
// columns: N·OH·OW rows of FH·FW·C numbers, in the order (FH, FW, C) or (C, FH, FW).
//
// Gather: each pixel visits the windows that contain it, taps in ascending order, which is the order of the loop in
// col2im.py, bit for bit. In the order (FH, FW, C) vectors hold neighbouring channels, whose sum stays in registers; the
// last begins where the channels end with it, and fewer channels than a vector has lanes are a part of one. In the order
// (C, FH, FW) the channels of a tap lie FH·FW numbers apart, and are added one by one.
//
// Least bytes: both arrays once. A pixel's numbers lie in pieces of C in as many rows as it has windows, which the
// processor does not foresee: those of the pixel AHEAD windows further on are asked for before they are needed.

#include "core/windows.h"

#define AHEAD 4
#define SOME 64 // channels that are summed up at once in the order (C, FH, FW)

// The numbers that a pixel sums up: window i, j of `rows` · `columns` has its own at `at` + i·down + j·across.
typedef struct {
    index at, down, across;
    int rows, columns;
} Place;

INLINE void add_hwc(const T *columns, const T *end, T *pixel, int count, Place place, index ahead) {
    vec sum = {0};
    for (int i = 0; i < place.rows; ++i)
        for (int j = 0; j < place.columns; ++j) {
            const T *from = columns + (place.at + i * place.down + j * place.across);
            __builtin_prefetch(from + ahead);
            sum += load_part(from, count, end);
        }
    store_up_to(pixel, sum, count);
}

INLINE void add_pixel_hwc(const Geometry *g, const T *columns, const T *end, T *pixel, Place place, index size) {
    const int channels = g->channels;
    const index at = place.at;
#define ADD(c, count) place.at = at + (c), add_hwc(columns, end, pixel + (c), count, place, AHEAD * size)
    EACH_CHANNELS(channels, ADD)
}

INLINE void add_pixel_chw(const Geometry *g, const T *columns, const T *end, T *pixel, Place place, index size) {
    const index taps = (index)g->kernel_height * g->kernel_width;
    for (int begin = 0; begin < g->channels; begin += SOME) {
        const int some = (int)least(SOME, g->channels - begin);
        A sums[SOME] = {0};
        for (int i = 0; i < place.rows; ++i)
            for (int j = 0; j < place.columns; ++j) {
                const T *from = columns + (place.at + i * place.down + j * place.across + begin * taps);
                // One by one: collecting numbers into vectors is slower than loading them.
                _Pragma("clang loop vectorize(disable) unroll_count(4)") for (int c = 0; c < some; ++c)
                    sums[c] += get(from + c * taps);
            }
        for (int c = 0; c < some; ++c) put(pixel + begin + c, sums[c]);
    }
    (void)end, (void)size;
}

// Compute rows first … last - 1 of the images, row i % H of image i / H, with numbers of neighbouring taps `step` apart.
#define EACH_PIXEL(add_pixel, step)                                                                                    \
    const index size = (index)g->kernel_height * g->kernel_width * g->channels;                                        \
    const T *end = columns + images * g->out_height * g->out_width * size;                                             \
    Holders wide[BAND];                                                                                                \
    for (int begin = 0; begin < g->width; begin += BAND) {                                                             \
        const int stop = (int)least(begin + BAND, g->width);                                                           \
        for (int w = begin; w < stop; ++w) wide[w - begin] = holders_of_column(g, w);                                  \
        const index across = wide[0].tap_step * (step) - wide[0].window_step * size;                                   \
        for (index row = first; row < last; ++row) {                                                                   \
            const Holders high = holders_of_row(g, (int)(row % g->height));                                            \
            const index window = (row / g->height * g->out_height + high.window) * g->out_width;                       \
            const index at = window * size + (index)high.tap * g->kernel_width * (step);                               \
            const index down = (index)high.tap_step * g->kernel_width * (step) -                                       \
                               (index)high.window_step * g->out_width * size;                                          \
            for (int w = begin; w < stop; ++w) {                                                                       \
                const Holders own = wide[w - begin];                                                                   \
                const Place place = {at + own.window * size + own.tap * (step), down, across, high.count, own.count};  \
                add_pixel(g, columns, end, image + (row * g->width + w) * g->channels, place, size);                   \
            }                                                                                                          \
        }                                                                                                              \
    }

KERNEL(col2im_hwc)(const T *columns /* images * windows * taps * channels */,
                   T *image /* images * pixels * channels */, const Geometry *g, index images, index first,
                   index last) {
    EACH_PIXEL(add_pixel_hwc, (index)g->channels)
}

KERNEL(col2im_chw)(const T *columns /* images * windows * taps * channels */,
                   T *image /* images * pixels * channels */, const Geometry *g, index images, index first,
                   index last) {
    EACH_PIXEL(add_pixel_chw, (index)1)
}
