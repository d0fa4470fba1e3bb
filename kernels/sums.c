// Sums of a matrix's columns, along the middle axis of an (outer, length, inner) array, and of squares.
//
// core/columns.h says how a matrix is cut. The sums of a strip of columns stay in registers while the rows of a block
// go by; those of squares are four vectors.
//
// Order of sums: the rows of a block in order, then the blocks in order, in double; squares in four vectors in turn,
// which are then added up in a tree, as are their lanes. No order depends on threads. Least bytes: every number once.

#include "core/columns.h"

INLINE void strip_sums(const T *x, A *sums, index width, index rows, int vectors, index last) {
    vec sum[STRIP] = {0};
    for (index row = 0; row < rows; ++row)
        EACH_VECTOR sum[j] += load(x + row * width + place(j, vectors, last));
    EACH_VECTOR store_sums(sums + place(j, vectors, last), sum[j]);
}

// The sums of each part; and the total, where this call does all blocks.
KERNEL(column_sums)(const T *x /* count */, A *sums /* partial */, A *total /* channels */, index partial, index count,
                    index width, index block_rows, index parts, index channels, index blocks, index first,
                    index last_block) {
    for (index block = first; block < last_block; ++block) {
        const T *from = x + block * block_rows * width;
        const index rows = rows_of(block, block_rows, count, width), to = block * width;
#define SUMS(at, vectors, last) strip_sums(from + at, sums + to + at, width, rows, vectors, last)
        EACH_STRIP(width, SUMS)
    }
    const index rest = rest_of(count, width, first);
    for (index i = 0; i < rest; ++i)
        sums[partial - rest + i] = get(x + count - rest + i);
    if (first == 0 && last_block == blocks)
        add_parts(sums, total, parts, channels);
}

// The total of the parts' sums.
KERNEL(column_total)(const A *sums /* parts * channels */, A *total /* channels */, index parts, index channels) {
    add_parts(sums, total, parts, channels);
}

// One sum after the other for each of the outer, from `first` to `last`; inner >= LANES.
KERNEL(middle_sums)(const T *x /* outer * length * inner */, A *sums /* outer * inner */, index outer, index length,
                    index inner, index first, index last_outer) {
    for (index image = first; image < last_outer; ++image) {
        const T *from = x + image * length * inner;
        A *to = sums + image * inner;
#define MIDDLE(at, vectors, last) strip_sums(from + at, to + at, inner, length, vectors, last)
        EACH_STRIP(inner, MIDDLE)
    }
    (void)outer;
}

typedef double wide __attribute__((vector_size(VECTOR_BYTES / sizeof(A) * sizeof(double))));

INLINE wide squared(vec x) {
    const wide exact = __builtin_convertvector(x, wide);
    return exact * exact;
}

// The sums of the squares of neighbouring numbers, in double. A range of `size` numbers is added up by four vectors in
// turn, then these and their lanes in a tree; Python adds up the ranges' sums.
KERNEL(square_sums)(const T *x /* count */, double *sums /* ranges */, index count, index ranges, index size,
                    index first, index last) {
    for (index range = first; range < last; ++range) {
        const index end = least(count, (range + 1) * size);
        index i = range * size;
        wide sum[4] = {{0}, {0}, {0}, {0}};
        for (; i + 4 * LANES <= end; i += 4 * LANES)
            UNROLL for (int k = 0; k < 4; ++k) sum[k] += squared(load(x + i + k * LANES));
        for (; i < end; i += LANES) sum[0] += squared(end - i >= LANES ? load(x + i) : load_some(x + i, end - i));
        wide total = (sum[0] + sum[1]) + (sum[2] + sum[3]);
        UNROLL for (int half = LANES / 2; half > 0; half /= 2)
            UNROLL for (int lane = 0; lane < half; ++lane) total[lane] += total[lane + half];
        sums[range] = total[0];
    }
    (void)ranges;
}
