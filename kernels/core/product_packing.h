// How gemm.c brings runs of its operands together in memory, before many tiles of a product read them.
#pragma once

#include "product_registers.h"

enum { RUN = 256 }; // of the depth

// Pack `depth` rows of a panel of b, `stride` numbers from row to row. The numbers behind the panel's last column come
// along, and belong to no sum that is used; but nothing is read beyond `end`.
INLINE void pack(A *panel, const T *b, const T *end, index stride, index depth, int width, int padded) {
    for (index k = 0; k < depth; ++k, b += stride, panel += padded)
        if (padded <= end - b)
            for (int j = 0; j < padded; j += LANES) store_sums(panel + j, load(b + j));
        else
            for (int j = 0; j < padded; ++j) panel[j] = j < width ? get(b + j) : 0;
}

// Pack `count` whole panels of `size` numbers: long pieces of each row of b, as the rows lie in pages of their own, and
// what is read next is fetched ahead within a page alone.
INLINE void pack_together(A *panels, index size, index count, const T *b, index stride, index depth) {
    for (index k = 0; k < depth; ++k, b += stride, panels += WIDTH)
        for (index i = 0; i < count; ++i)
            UNROLL for (int j = 0; j < WIDTH; j += LANES) store_sums(panels + i * size + j, load(b + i * WIDTH + j));
}

// Pack the transpose of `width` rows of `depth` numbers.
INLINE void pack_transposed(A *panel, const T *b, index stride, index depth, int width, int padded) {
    for (int j = 0; j < padded; j += LANES) {
        const int some = least(width - j, LANES), wide = least(padded - j, LANES);
        index k = 0;
        if (some == LANES)
            for (; k + LANES <= depth; k += LANES) {
                vec block[LANES];
                UNROLL for (int i = 0; i < LANES; ++i) block[i] = load(b + (j + i) * stride + k);
                transpose(block);
                UNROLL for (int i = 0; i < LANES; ++i) store_sums(panel + (k + i) * padded + j, block[i]);
            }
        for (; k < depth; ++k)
            for (int i = 0; i < wide; ++i) panel[k * padded + j + i] = i < some ? get(b + (j + i) * stride + k) : 0;
    }
}

// Pack `count` rows of a, which is transposed: for each tile, its rows side by side, and `depth` times that.
INLINE void pack_rows(T *to, const T *a, index stride, index depth, index count) {
    for (index k = 0; k < depth; ++k, a += stride)
        for (index r = 0, rows; r < count; r += rows) {
            rows = tall(count - r);
            if (rows == ROWS) __builtin_memcpy(to + r * RUN + k * ROWS, a + r, ROWS * sizeof(T)); // no call
            else __builtin_memcpy(to + r * RUN + k * rows, a + r, rows * sizeof(T));
        }
}
