// im2col: windows of (N, H, W, C) images as rows, N·OH·OW of FH·FW·C numbers. Numbers are copied as they are, and those
// on padding are 0: no sums, no order of them.
//
// In the order (FH, FW, C) a row of a window is one run of memory where it is not dilated, copied by vectors. In the
// order (C, FH, FW) every channel of a pixel goes to another place, taps apart.
//
// Least bytes: both arrays once.

#include "core/windows.h"

typedef unsigned char block __attribute__((vector_size(VECTOR_BYTES), aligned(1), may_alias));

#define STEP (VECTOR_BYTES / (int)sizeof(T))

// Copy `count` numbers: by vectors, the last once more over the one before, or by parts of one.
INLINE void copy_run(T *to, const T *from, index count) {
    if (count >= STEP)
        for (index next = 0; next < count; next += STEP) {
            const index i = least(next, count - STEP);
            *(block *)(to + i) = *(const block *)(from + i);
        }
    else UNROLL for (int part = STEP / 2; part; part /= 2) if (count & part) {
        __builtin_memcpy(to, from, part * sizeof(T));
        to += part;
        from += part;
    }
}

INLINE void zero_run(T *to, index count) {
    for (index i = 0; i < count; ++i) to[i] = 0;
}

// Rows first … last - 1 of the output: row i % OH of image i / OH.
KERNEL(im2col_hwc)(const T *x /* images * pixels * channels */,
                   T *columns /* images * windows * taps * channels */, const Geometry *g, index images, index first,
                   index last) {
    const index channels = g->channels, width = g->kernel_width * channels;
    for (index row = first; row < last; ++row) {
        const int top = (int)(row % g->out_height) * g->stride_height - g->pad_top;
        for (int ow = 0; ow < g->out_width; ++ow) {
            const int left = ow * g->stride_width - g->pad_left;
            const Taps inside = taps_inside(left, g->kernel_width, g->dilation_width, g->width);
            T *to = columns + (row * g->out_width + ow) * g->kernel_height * width;
            for (int a = 0; a < g->kernel_height; ++a, to += width) {
                const int h = top + a * g->dilation_height;
                if (h < 0 || h >= g->height || inside.first >= inside.end) {
                    zero_run(to, width);
                    continue;
                }
                const index begin = (row / g->out_height * g->height + h) * g->width + left;
                zero_run(to, inside.first * channels);
                if (g->dilation_width == 1)
                    copy_run(to + inside.first * channels, x + (begin + inside.first) * channels,
                             (inside.end - inside.first) * channels);
                else
                    for (int b = inside.first; b < inside.end; ++b)
                        copy_run(to + b * channels, x + (begin + b * g->dilation_width) * channels, channels);
                zero_run(to + inside.end * channels, width - inside.end * channels);
            }
        }
    }
    (void)images;
}

#define SOME 64 // channels, and taps, that are copied at once in the order (C, FH, FW)

// Write one window, whose first tap meets row `top` and column `left` of the image.
INLINE void spread(const Geometry *g, const T *image, T *to, int top, int left) {
    static const T zeros[SOME] = {0};
    const int taps = g->kernel_height * g->kernel_width;
    const T *from[SOME]; // of each tap the channels, or zeros
    for (int c = 0; c < g->channels; c += SOME)
        for (int t = 0; t < taps; t += SOME) {
            const int channels = (int)least(SOME, g->channels - c), some = (int)least(SOME, taps - t);
            for (int i = 0; i < some; ++i) {
                const int h = top + (t + i) / g->kernel_width * g->dilation_height;
                const int w = left + (t + i) % g->kernel_width * g->dilation_width;
                const int inside = h >= 0 && h < g->height && w >= 0 && w < g->width;
                from[i] = inside ? image + ((index)h * g->width + w) * g->channels + c : zeros;
            }
            for (int k = 0; k < channels; ++k)
                for (int i = 0; i < some; ++i) to[(index)(c + k) * taps + t + i] = from[i][k];
        }
}

KERNEL(im2col_chw)(const T *x /* images * pixels * channels */,
                   T *columns /* images * windows * taps * channels */, const Geometry *g, index images, index first,
                   index last) {
    const index size = (index)g->kernel_height * g->kernel_width * g->channels;
    for (index row = first; row < last; ++row) {
        const T *image = x + row / g->out_height * g->height * g->width * g->channels;
        const int top = (int)(row % g->out_height) * g->stride_height - g->pad_top;
        for (int ow = 0; ow < g->out_width; ++ow)
            spread(g, image, columns + (row * g->out_width + ow) * size, top, ow * g->stride_width - g->pad_left);
    }
    (void)images;
}
