// Sums of the columns of a matrix, and passes that need them.
//
// The `count` numbers of the matrix are read as rows of `width`, which are several of its own where it has few columns,
// and these in blocks of `block_rows`; the cut is made in kernels/core/columns.py, by shapes alone. A block leaves a
// partial sum for each of `width` columns, and behind all of these stand the numbers of the last rows, too few for a
// wide one, as they are. So partial sums make up a matrix of the original's columns, which is added up in its order, in
// double.
//
// Inside a block go strips of up to STRIP vectors of columns, whose sums and factors stay in registers while the rows
// go by. The last vector of a strip ends where the columns do, and computes some of them twice: width >= LANES.
#pragma once

#include "core/vectors.h"

#define STRIP 4

// Where a vector of a strip begins.
INLINE index place(int vector, int vectors, index last) { return vector < vectors - 1 ? vector * LANES : last; }

// Calls of `strip(at, vectors, last)`: the first column, a constant, and where the last vector begins behind it.
#define EACH_STRIP(width, strip)                                                                                       \
    for (index at = 0; at < (width); at += STRIP * LANES) {                                                            \
        const index left = (width) - at, last = left - LANES;                                                          \
        switch (least((left + LANES - 1) / LANES, STRIP)) {                                                            \
        case 1: strip(at, 1, last); break;                                                                             \
        case 2: strip(at, 2, last); break;                                                                             \
        case 3: strip(at, 3, last); break;                                                                             \
        default: strip(at, STRIP, least(last, (STRIP - 1) * LANES));                                                   \
        }                                                                                                              \
    }

// Fetch what the next strip has in the place of a number: a processor fetches ahead only within a row.
INLINE void ahead(const T *p) { __builtin_prefetch(p + STRIP * LANES); }

// How many rows a pass takes together that leaves no sums: of wide ones one, since memory is read fastest in its order.
INLINE index rows_together(index rows, index width) { return width > STRIP * LANES ? 1 : rows; }

#define EACH_VECTOR UNROLL for (int j = 0; j < vectors; ++j)

// The rows of a block, of count / width in all.
INLINE index rows_of(index block, index block_rows, index count, index width) {
    return least(block_rows, count / width - block * block_rows);
}

// The numbers of the last rows, too few for a wide one, which go to the first range of blocks.
INLINE index rest_of(index count, index width, index first) { return first == 0 && width > 0 ? count % width : 0; }

#define CHANNELS 16 // added up at once

// The sums of the columns of a matrix of partial sums, (parts, channels).
INLINE void add_parts(const A *sums, A *total, index parts, index channels) {
    for (index first = 0; first < channels; first += CHANNELS) {
        const index own = least(CHANNELS, channels - first);
        double sum[CHANNELS] = {0};
        for (index part = 0; part < parts; ++part)
            for (index c = 0; c < own; ++c)
                sum[c] += sums[part * channels + first + c];
        for (index c = 0; c < own; ++c)
            total[first + c] = sum[c];
    }
}
