// Depthwise convolution over channels-last memory, and its gradients: channel c has the filters c·M … c·M + M - 1.
//
// A vector is LANES channels of one pixel. Forward and the input gradient add up a pixel's products with its taps in
// registers, four vectors at a time; the weight gradient adds up a row of windows for each tap. With M > 1, filters are
// M numbers apart in memory, and their vectors are put together lane by lane, as are the last channels'.
//
// Padding costs no branch: the taps inside the image, or the windows that contain a pixel, are ranges (core/windows.h).
// Order of a sum: by fused products over ascending taps, for the input gradient over ascending filters first; for
// weights over the windows of a row, over the rows of a part, and over the parts. Parts are cut by shapes alone. float16
// is summed in float32 and rounded once. Filters are read as (FH, FW, M, C), the bias behind them as (M, C), and 16
// numbers more.
//
// Least bytes: every array once.

#include "core/channels.h"
#include "core/moments.h"
#include "core/windows.h"

// Taps and the numbers that they meet, as far as there are any: steps from one row, and column, of taps to the next.
typedef struct {
    const T *x;
    const A *w;
    index rows, columns, x_row, x_column, w_row, w_column;
} Patch;

INLINE void add_patch(const int V, const int how, const Patch *patch, index x_at, index x_step, index w_at,
                      index count, vec *total) {
    for (index a = 0; a < patch->rows; ++a) {
        const T *x = patch->x + a * patch->x_row + x_at;
        const A *w = patch->w + a * patch->w_row + w_at;
        for (index b = 0; b < patch->columns; ++b, x += patch->x_column, w += patch->w_column)
            UNROLL for (int v = 0; v < V; ++v)
                total[v] = fma(read(how, x + v * LANES, x_step, count), load_sums(w + v * LANES), total[v]);
    }
}

// Computes a row of windows.
INLINE void forward_row(const T *x, const A *w, T *y, unsigned char *positive, const Geometry *g, index images,
                        index filters, index row) {
    const index channels = g->channels, m = filters / channels;
    const T *end = x + images * g->height * g->width * channels;
    const A *bias = w + (index)g->kernel_height * g->kernel_width * filters;
    const int top = row % g->out_height * g->stride_height - g->pad_top;
    const Taps rows = taps_inside(top, g->kernel_height, g->dilation_height, g->height);
    for (int column = 0; column < g->out_width; ++column) {
        const int left = column * g->stride_width - g->pad_left;
        const Taps columns = taps_inside(left, g->kernel_width, g->dilation_width, g->width);
        const index y_first = row / g->out_height * g->height + top + rows.first * g->dilation_height;
        const index place = (row * g->out_width + column) * filters;
        const index x_first = left + columns.first * g->dilation_width;
        Patch patch = {0};
        if (rows.first < rows.end && columns.first < columns.end) {
            patch.x = x + (y_first * g->width + x_first) * channels;
            patch.w = w + (rows.first * g->kernel_width + columns.first) * filters;
            patch.rows = rows.end - rows.first;
            patch.columns = columns.end - columns.first;
        }
        patch.x_row = (index)g->dilation_height * g->width * channels;
        patch.x_column = g->dilation_width * channels;
        patch.w_row = g->kernel_width * filters;
        patch.w_column = filters;
        const index furthest = (patch.rows - 1) * patch.x_row + (patch.columns - 1) * patch.x_column;
        const index readable = m > 1 ? 0 : patch.rows ? end - patch.x - furthest : channels + LANES;
        for (index i = 0; i < m; ++i) {
#define WINDOW(V, how, c, count)                                                                                       \
    {                                                                                                                  \
        vec total[V];                                                                                                  \
        const index f = place + c * m + i;                                                                             \
        UNROLL for (int v = 0; v < V; ++v) total[v] = load_sums(bias + i * channels + c + v * LANES);                  \
        add_patch(V, how, &patch, c, 1, i * channels + c, count, total);                                               \
        UNROLL for (int v = 0; v < V; ++v) {                                                                           \
            if (positive) {                                                                                            \
                total[v] = rounded(total[v]);                                                                          \
                const mask above = total[v] > all(0);                                                                  \
                total[v] = rectified(total[v]);                                                                        \
                if (how == WHOLE) store_mask(positive + f + v * LANES, above);                                         \
                else for (index lane = 0; lane < count; ++lane) positive[f + lane * m] = -above[lane];                 \
            }                                                                                                          \
            write(how, y + f + v * LANES, m, count, total[v]);                                                         \
        }                                                                                                              \
    }
            FOR_CHANNELS(channels, readable, WINDOW)
        }
    }
}

// Items are blocks of `block_lines` rows of windows, whose moments are left as in convolution_forward, if asked for. With
// `positive`, max(·, 0) follows, as in activations.c.
KERNEL(depthwise_forward)(const T *x /* images * pixels * channels */, const A *w /* weights */,
                          T *y /* images * windows * filters */,
                          unsigned char *positive /* NULL or images * windows * filters */,
                          A *means /* NULL or partial */, A *squares /* NULL or partial */, const Geometry *geometry,
                          index images, index filters, index weights, index partial, index width, index block_lines,
                          index block_rows, index first, index last) {
    const index lines = images * geometry->out_height;
    const Measured measured = {y, means, squares, partial, lines * geometry->out_width * filters, width, block_rows};
    (void)weights;
    for (index block = first; block < last; ++block) {
        for (index row = block * block_lines; row < least((block + 1) * block_lines, lines); ++row)
            forward_row(x, w, y, positive, geometry, images, filters, row);
        if (means) measure(&measured, block, block + 1);
    }
}

// Rows first … last - 1 of images · rows of pixels. `memory` is for the windows that contain a column.
KERNEL(depthwise_backward_input)(const T *dy /* images * windows * filters */, const A *w /* weights */,
                                 T *dx /* images * pixels * channels */, int *memory /* threads * width * 5 */,
                                 const Geometry *geometry, index images, index filters, index weights,
                                 index threads, index thread, index first, index last) {
    const Geometry *g = geometry;
    const index channels = g->channels, m = filters / channels;
    const T *end = dy + images * g->out_height * g->out_width * filters;
    (void)weights, (void)threads;
    Holders *of_columns = (Holders *)(memory + thread * g->width * 5);
    for (int i = 0; i < g->width; ++i)
        of_columns[i] = holders(i + g->pad_left, g->kernel_width, g->dilation_width, g->stride_width, g->out_width);
    for (index row = first; row < last; ++row) {
        const int place = row % g->height + g->pad_top;
        const Holders rows = holders(place, g->kernel_height, g->dilation_height, g->stride_height, g->out_height);
        for (int column = 0; column < g->width; ++column) {
            const Holders columns = of_columns[column];
            const index window = (row / g->height * g->out_height + rows.window) * g->out_width + columns.window;
            const index to = (row * g->width + column) * channels;
            Patch patch = {0};
            if (rows.count && columns.count) {
                patch.x = dy + window * filters;
                patch.w = w + (rows.tap * g->kernel_width + columns.tap) * filters;
                patch.rows = rows.count;
                patch.columns = columns.count;
            }
            patch.x_row = -(index)rows.window_step * g->out_width * filters;
            patch.x_column = -columns.window_step * filters;
            patch.w_row = (index)rows.tap_step * g->kernel_width * filters;
            patch.w_column = columns.tap_step * filters;
#define PIXEL(V, how, c, count)                                                                                        \
    {                                                                                                                  \
        vec total[V];                                                                                                  \
        UNROLL for (int v = 0; v < V; ++v) total[v] = (vec){0};                                                        \
        for (index i = 0; i < m; ++i) add_patch(V, how, &patch, c * m + i, m, i * channels + c, count, total);         \
        UNROLL for (int v = 0; v < V; ++v) write(how, dx + to + c + v * LANES, 1, count, total[v]);                    \
    }
            const index readable = m > 1 ? 0 : patch.rows ? end - patch.x : channels + LANES;
            FOR_CHANNELS(channels, readable, PIXEL)
        }
    }
}

// Parts first … last - 1 of the rows of windows: their sums for (FH, FW, M, C), and for the bias as (M, C).
KERNEL(depthwise_backward_weight)(const T *x /* images * pixels * channels */,
                                  const T *dy /* images * windows * filters */, A *sums /* parts * taps * filters */,
                                  A *bias_sums /* NULL or parts * filters */, const Geometry *geometry, index images,
                                  index filters, index parts, index first, index last) {
    const Geometry *g = geometry;
    const index channels = g->channels, m = filters / channels, rows = images * g->out_height;
    const index size = (index)g->kernel_height * g->kernel_width * filters;
    const T *x_end = x + images * g->height * g->width * channels, *dy_end = dy + rows * g->out_width * filters;
    for (index part = first; part < last; ++part) {
        A *part_sums = sums + part * size;
        for (index i = 0; i < size; ++i) part_sums[i] = 0;
        for (index i = 0; bias_sums && i < filters; ++i) bias_sums[part * filters + i] = 0;
        for (index row = rows * part / parts; row < rows * (part + 1) / parts; ++row) {
            const index image = row / g->out_height;
            const int top = row % g->out_height * g->stride_height - g->pad_top;
            const Taps inside = taps_inside(top, g->kernel_height, g->dilation_height, g->height);
            for (index i = 0; i < m; ++i) {
                const T *dy_row = dy + row * g->out_width * filters + i;
#define BIAS(V, how, c, count)                                                                                         \
    {                                                                                                                  \
        vec total[V];                                                                                                  \
        UNROLL for (int v = 0; v < V; ++v) total[v] = (vec){0};                                                        \
        for (index o = 0; o < g->out_width; ++o)                                                                       \
            UNROLL for (int v = 0; v < V; ++v)                                                                         \
                total[v] += read(how, dy_row + o * filters + c * m + v * LANES, m, count);                             \
        UNROLL for (int v = 0; v < V; ++v)                                                                             \
            add_sums(how, bias_sums + part * filters + i * channels + c + v * LANES, count, total[v]);                 \
    }
                if (bias_sums) {
                    FOR_CHANNELS(channels, m > 1 ? 0 : dy_end - (dy_row + (g->out_width - 1) * filters), BIAS)
                }
                for (index a = inside.first; a < inside.end; ++a) {
                    const index y = image * g->height + top + a * g->dilation_height;
                    for (index b = 0; b < g->kernel_width; ++b) {
                        const index offset = b * g->dilation_width - g->pad_left, step = g->stride_width;
                        const index begin = offset < 0 ? (-offset + step - 1) / step : 0, left = g->width - offset;
                        const index end = least(left > 0 ? (left + step - 1) / step : 0, g->out_width);
                        A *to = part_sums + ((a * g->kernel_width + b) * m + i) * channels;
                        if (begin >= end) continue;
                        const T *pixels = x + (y * g->width + begin * step + offset) * channels;
                        const T *windows = dy_row + begin * filters;
#define TAP(V, how, c, count)                                                                                          \
    {                                                                                                                  \
        vec total[V];                                                                                                  \
        UNROLL for (int v = 0; v < V; ++v) total[v] = (vec){0};                                                        \
        for (index o = 0; o < end - begin; ++o)                                                                        \
            UNROLL for (int v = 0; v < V; ++v)                                                                         \
                total[v] = fma(read(how, pixels + o * step * channels + c + v * LANES, 1, count),                      \
                               read(how, windows + o * filters + c * m + v * LANES, m, count), total[v]);              \
        UNROLL for (int v = 0; v < V; ++v) add_sums(how, to + c + v * LANES, count, total[v]);                         \
    }
                        const index left_x = x_end - (pixels + (end - begin - 1) * step * channels);
                        const index left_dy = dy_end - (windows + (end - begin - 1) * filters);
                        FOR_CHANNELS(channels, m > 1 ? 0 : least(left_x, left_dy), TAP)
                    }
                }
            }
        }
    }
}

// Adds up the parts, of (FH, FW, M, C) to (FH, FW, C, M), and of the bias.
KERNEL(depthwise_total)(A *sums /* parts * size */, T *total /* size */, index size, index filters, index channels,
                        index parts) {
    const index m = filters / channels;
    for (index part = 1; part < parts; ++part)
        for (index i = 0; i < size; ++i) sums[i] += sums[part * size + i];
    for (index row = 0; row < size; row += filters)
        for (index i = 0; i < m; ++i)
            for (index c = 0; c < channels; ++c) put(total + row + c * m + i, sums[row + i * channels + c]);
}
