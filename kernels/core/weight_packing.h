// How convolution_weight.c brings rows of x and dy into scratch memory, in the type of sums, before many tiles read
// them.
#pragma once

#include "vectors.h"

INLINE void copy(const T *from, A *to, index count) {
    index i = 0;
    for (; i + LANES <= count; i += LANES) store_sums(to + i, load(from + i));
    for (; i < count; ++i) to[i] = get(from + i);
}

// Packs the filters of a window, whole vectors with zeros at the end, `step` numbers from one to the next.
INLINE void pack(const T *from, A *to, index count, index step) {
    for (; count >= LANES; count -= LANES, from += LANES, to += step) store_sums(to, load(from));
    if (count > 0) store_sums(to, load_some(from, count));
}

INLINE void clear(A *to, index count) {
    for (index i = 0; i < count; ++i) to[i] = 0;
}

// A row of an image: a group's channels of `columns` pixels from -pad on, zeros for those outside of the image.
INLINE void copy_row(const T *row, const Geometry *g, index own, index columns, A *to) {
    const index begin = least(g->pad_left, columns), end = most(least(g->width + g->pad_left, columns), begin);
    clear(to, begin * own);
    if (own == g->channels) {
        copy(row, to + begin * own, (end - begin) * own);
    } else {
        for (index i = begin; i < end; ++i) copy(row + (i - begin) * g->channels, to + i * own, own);
    }
    clear(to + end * own, (columns - end) * own);
}
