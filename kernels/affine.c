// The gradient of a fully connected layer's output before its ReLU, and the sums of its columns, the bias's gradient.
//
// core/columns.h says how a matrix is cut. The sums of a strip of columns stay in registers while the rows of a block
// go by, each number of which is masked, written and added up in one pass.
//
// Order of sums: as sums.c adds up columns, to the same bits: the rows of a block in order, then the blocks in order,
// in double. It depends on no range. Least bytes: dy and the mask once, dx once.

#include "core/columns.h"

INLINE void strip_masked(const T *dy, const unsigned char *positive, T *dx, A *sums, index width, index rows,
                         int vectors, index last) {
    vec sum[STRIP] = {0};
    for (index row = 0; row < rows; ++row)
        EACH_VECTOR {
            const index at = row * width + place(j, vectors, last);
            const vec value = choose(load_mask(positive + at), load(dy + at), all(0));
            store(dx + at, value);
            sum[j] += value;
        }
    EACH_VECTOR store_sums(sums + place(j, vectors, last), sum[j]);
}

// dx is dy where it was positive, elsewhere +0. The sums are those of column_sums.
KERNEL(masked_sums)(const T *dy /* count */, const unsigned char *positive /* count */, T *dx /* count */,
                    A *sums /* partial */, A *total /* channels */, index partial, index count, index width,
                    index block_rows, index parts, index channels, index blocks, index first, index last_block) {
    for (index block = first; block < last_block; ++block) {
        const index from = block * block_rows * width, to = block * width;
        const index rows = rows_of(block, block_rows, count, width);
#define MASKED(at, vectors, last)                                                                                      \
    strip_masked(dy + from + at, positive + from + at, dx + from + at, sums + to + at, width, rows, vectors, last)
        EACH_STRIP(width, MASKED)
    }
    const index rest = rest_of(count, width, first);
    for (index i = count - rest; i < count; ++i) {
        const A value = positive[i] ? get(dy + i) : 0;
        put(dx + i, value);
        sums[partial - count + i] = value;
    }
    if (first == 0 && last_block == blocks)
        add_parts(sums, total, parts, channels);
}
