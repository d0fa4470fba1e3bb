// The taps of a window that meet the image, and the windows that contain a pixel, along one axis.
#pragma once

#include "vectors.h"

typedef struct {
    int first, end;
} Taps;

// The taps inside an image of `size` pixels, of the window whose first tap meets pixel `start` (or padding).
INLINE Taps taps_inside(int start, int taps, int dilation, int size) {
    if (start >= 0 && start + (taps - 1) * dilation < size) return (Taps){0, taps};
    const int end = start < size ? (size - 1 - start) / dilation + 1 : 0;
    return (Taps){start < 0 ? (-1 - start) / dilation + 1 : 0, end < taps ? end : taps};
}

// `count` windows, by ascending taps: number i has the pixel at its tap `tap` + i·tap_step, and is the window
// `window` - i·window_step.
typedef struct {
    int tap, window, count, tap_step, window_step;
} Holders;

// The windows that contain a pixel; `place` is the pixel counted from the first tap of window 0.
INLINE Holders holders(int place, int taps, int dilation, int stride, int windows) {
    const int divisor = (int)common_divisor(stride, dilation);
    const int tap_step = stride / divisor, window_step = dilation / divisor;
    int tap = 0;
    while (tap < tap_step && tap < taps && (place - tap * dilation) % stride) ++tap;
    int window = (place - tap * dilation) / stride;
    if (window >= windows) {
        const int skipped = (window - windows) / window_step + 1;
        tap += skipped * tap_step;
        window -= skipped * window_step;
    }
    const int none = tap >= taps || place < tap * dilation || (place - tap * dilation) % stride;
    const int by_taps = (taps - 1 - tap) / tap_step, by_windows = window / window_step;
    return (Holders){tap, window, none ? 0 : (by_taps < by_windows ? by_taps : by_windows) + 1, tap_step, window_step};
}

INLINE Holders holders_of_row(const Geometry *g, int h) {
    return holders(h + g->pad_top, g->kernel_height, g->dilation_height, g->stride_height, g->out_height);
}

INLINE Holders holders_of_column(const Geometry *g, int w) {
    return holders(w + g->pad_left, g->kernel_width, g->dilation_width, g->stride_width, g->out_width);
}

// What is done for all channels of a pixel: `work(c, count)` for LANES of them from c on. The last begin where the
// channels end with them, so that some are computed twice; fewer channels than LANES are a part of a vector.
#define EACH_CHANNELS(channels, work)                                                                                  \
    if ((channels) < LANES) {                                                                                          \
        work(0, channels);                                                                                             \
    } else {                                                                                                           \
        for (int next = 0; next < (channels); next += LANES) {                                                         \
            const int begin_of_vector = (int)least(next, (channels) - LANES);                                          \
            work(begin_of_vector, LANES);                                                                              \
        }                                                                                                              \
    }

#define BAND 256 // columns of an image whose windows are looked up at once
