// Average pooling over channels-last memory: x is (N, H, W, C), y (N, OH, OW, C).
//
// A window's mean is the sum of its pixels in the image, taps in ascending order, times its weight: 1 / (taps that
// count). The weights of all windows are given, of the type of sums. Backward, a pixel adds up the gradients of the
// windows that contain it, each times its window's weight, taps in ascending order: both as the loops in pooling.py, bit
// for bit.
//
// Vectors hold neighbouring channels, whose sum stays in registers. The last vector of a pixel begins where the channels
// end with it, so that some channels are computed twice; fewer channels than a vector has lanes are a part of one.
//
// Least bytes: both arrays once.

#include "core/windows.h"

// Compute `count` channels, LANES or fewer, of one window, whose first tap's first of them is number `corner` of x.
INLINE void average(const Geometry *g, const T *x, index corner, const T *end, T *y, int count, Taps rows, Taps columns,
                    A weight) {
    vec sum = {0};
    for (int a = rows.first; a < rows.end; ++a)
        for (int b = columns.first; b < columns.end; ++b) {
            const index offset = (index)a * g->dilation_height * g->width + b * g->dilation_width;
            const T *pixel = x + (corner + offset * g->channels);
            sum += load_part(pixel, count, end);
        }
    store_up_to(y, sum * weight, count);
}

// Rows first … last - 1 of the output: row i % OH of image i / OH.
KERNEL(average_pool)(const T *x /* images * pixels * channels */, const A *weights /* windows */,
                     T *y /* images * windows * channels */, const Geometry *g, index images, index first,
                     index last) {
    const int channels = g->channels;
    const T *end = x + images * g->height * g->width * channels;
    for (index row = first; row < last; ++row) {
        const index image = row / g->out_height, oh = row % g->out_height;
        const int top = (int)oh * g->stride_height - g->pad_top;
        const Taps rows = taps_inside(top, g->kernel_height, g->dilation_height, g->height);
        for (int ow = 0; ow < g->out_width; ++ow) {
            const int left = ow * g->stride_width - g->pad_left;
            const Taps columns = taps_inside(left, g->kernel_width, g->dilation_width, g->width);
            const index corner = ((image * g->height + top) * g->width + left) * channels;
            const A weight = weights[oh * g->out_width + ow];
            T *own = y + (row * g->out_width + ow) * channels;
#define AVERAGE(c, count) average(g, x, corner + (c), end, own + (c), count, rows, columns, weight)
            EACH_CHANNELS(channels, AVERAGE)
        }
    }
}

// Compute `count` channels of one pixel; `windows` is the image's first output, c the first channel.
INLINE void gather(const Geometry *g, const T *dy, const T *end, const A *weights, index windows, int c, int count,
                   T *dx, Holders rows, Holders columns) {
    vec sum = {0};
    for (int i = 0; i < rows.count; ++i)
        for (int j = 0; j < columns.count; ++j) {
            const int oh = rows.window - i * rows.window_step, ow = columns.window - j * columns.window_step;
            const index output = (index)oh * g->out_width + ow;
            const T *gradient = dy + ((windows + output) * g->channels + c);
            sum += load_part(gradient, count, end) * weights[output];
        }
    store_up_to(dx, sum, count);
}

// Rows first … last - 1 of dx: row i % H of image i / H.
KERNEL(average_pool_backward)(const T *dy /* images * windows * channels */, const A *weights /* windows */,
                              T *dx /* images * pixels * channels */, const Geometry *g, index images, index first,
                              index last) {
    const int channels = g->channels;
    const index outputs = (index)g->out_height * g->out_width;
    const T *end = dy + images * outputs * channels;
    Holders across[BAND];
    for (int begin = 0; begin < g->width; begin += BAND) {
        const int stop = (int)least(begin + BAND, g->width);
        for (int w = begin; w < stop; ++w) across[w - begin] = holders_of_column(g, w);
        for (index row = first; row < last; ++row) {
            const Holders down = holders_of_row(g, (int)(row % g->height));
            const index windows = row / g->height * outputs;
            for (int w = begin; w < stop; ++w) {
                T *pixel = dx + (row * g->width + w) * channels;
                const Holders own = across[w - begin];
#define GATHER(c, count) gather(g, dy, end, weights, windows, c, count, pixel + (c), down, own)
                EACH_CHANNELS(channels, GATHER)
            }
        }
    }
}
