// The order in which convolution.c reads its filters, and how it brings them into that order, padded with zeros to whole
// vectors.
#pragma once

#include "convolution_tile.h"

INLINE index vectors_of(index numbers) { return (numbers + LANES - 1) / LANES; }

// How many vectors of filters, of those left, are taken together: blocks are nearly equal.
INLINE index taken_together(index vectors) {
    const index blocks = (vectors + TILE_VECTORS - 1) / TILE_VECTORS;
    return (vectors + blocks - 1) / blocks;
}

// Packs FLAGS numbers, and for each group and its vectors taken together a row of biases, then the filters by tap and
// channel. For the input gradient (`backward`) taps are in reverse order, and channels and filters of a group change
// places.
static void pack_filters(const T *filters, const T *bias, A *packed, index taps, index channels, index out,
                         index groups, index backward) {
    int finite = 1;
    for (index i = 0; i < taps * channels * out; ++i) finite &= get(filters + i) - get(filters + i) == 0;
    for (index i = 0; i < FLAGS; ++i) *packed++ = finite;
    const index own = out / groups, many = backward ? own : channels, all_filters = backward ? channels : own;
    for (index group = 0; group < groups; ++group) {
        for (index v = 0, width; v < all_filters; v += width) {
            width = taken_together(vectors_of(all_filters - v)) * LANES;
            const index count = least(width, all_filters - v);
            for (index k = 0; k < width; ++k) *packed++ = bias && k < count ? get(bias + group * own + v + k) : 0;
            for (index tap = 0; tap < taps; ++tap, packed += many * width) {
                const T *from = filters + (backward ? taps - 1 - tap : tap) * channels * out + group * own;
                for (index begin = 0; begin < many; begin += 128) {
                    const index end = least(begin + 128, many);
                    if (backward) {
                        for (index k = 0; k < count; ++k)
                            for (index i = begin; i < end; ++i) packed[i * width + k] = get(from + (v + k) * out + i);
                    } else {
                        for (index i = begin; i < end; ++i)
                            for (index k = 0; k < count; ++k) packed[i * width + k] = get(from + i * out + v + k);
                    }
                    for (index i = begin; i < end; ++i)
                        for (index k = count; k < width; ++k) packed[i * width + k] = 0;
                }
            }
        }
    }
}
