// Go through the channels of a pixel, a few vectors at a time, whole or not, side by side in memory or apart.
#pragma once

#include "vectors.h"

#define MOST_VECTORS 4

// How LANES channels lie in memory: WHOLE, side by side; PART, of which only the first `count` are the pixel's, but all
// can be read; APART, `count` of them, some numbers from one to the next.
enum { WHOLE, PART, APART };

INLINE vec read(const int how, const T *p, index step, index count) {
    if (how != APART) return load(p);
    A lanes[LANES] = {0};
    for (index i = 0; i < count; ++i) lanes[i] = get(p + i * step);
    return load_sums(lanes);
}

INLINE void write(const int how, T *p, index step, index count, vec value) {
    if (how == WHOLE) {
        store(p, value);
    } else {
        A lanes[LANES];
        store_sums(lanes, value);
        for (index i = 0; i < count; ++i) put(p + i * step, lanes[i]);
    }
}

INLINE void add_sums(const int how, A *p, index count, vec value) {
    if (how == WHOLE) {
        store_sums(p, load_sums(p) + value);
    } else {
        A lanes[LANES];
        store_sums(lanes, value);
        for (index i = 0; i < count; ++i) p[i] += lanes[i];
    }
}

// Calls `work(V, how, channel, count)` for all channels, of which `readable` numbers lie side by side.
#define FOR_CHANNELS(channels, readable, work)                                                                         \
    index channel = 0;                                                                                                 \
    for (; channel + MOST_VECTORS * LANES <= least(channels, (readable)); channel += MOST_VECTORS * LANES)             \
        work(MOST_VECTORS, WHOLE, channel, LANES);                                                                     \
    for (; channel + LANES <= least(channels, (readable)); channel += LANES) work(1, WHOLE, channel, LANES);           \
    for (; channel < channels; channel += LANES) {                                                                     \
        if (channel + LANES <= (readable)) work(1, PART, channel, channels - channel)                                  \
        else work(1, APART, channel, least(LANES, channels - channel))                                                 \
    }
