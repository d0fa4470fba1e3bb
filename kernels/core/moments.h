// Mean and sum of squared deviations of the columns of blocks of a matrix. core/columns.h says how the matrix is cut.
//
// The mean of a block's columns comes before the sums of the squares of their deviations from it, while the block is in
// cache: E[x²] - E[x]² would cancel.
#pragma once

#include "columns.h"

INLINE void block_moments(const T *x, A *means, A *squares, index width, index rows, int vectors, index last) {
    vec mean[STRIP] = {0}, square[STRIP] = {0};
    for (index row = 0; row < rows; ++row)
        EACH_VECTOR mean[j] += load(x + row * width + place(j, vectors, last));
    EACH_VECTOR mean[j] /= all(rows);
    for (index row = 0; row < rows; ++row)
        EACH_VECTOR {
            const vec deviation = load(x + row * width + place(j, vectors, last)) - mean[j];
            square[j] = fma(deviation, deviation, square[j]); // one rounding less, and one instruction
        }
    EACH_VECTOR store_sums(means + place(j, vectors, last), mean[j]);
    EACH_VECTOR store_sums(squares + place(j, vectors, last), square[j]);
}

// A matrix of `count` numbers, how it is cut into blocks, and where their moments are left: `partial` of each kind.
typedef struct {
    const T *x;
    A *means, *squares;
    index partial, count, width, block_rows;
} Measured;

// Measures the blocks from `first` to `end` - 1. Rows too few for a wide one belong to the last, and are left as they are.
static __attribute__((noinline)) void measure(const Measured *m, index first, index end) {
    const index width = m->width, wide = m->count / most(width, 1);
    for (index block = first; block < end && block * m->block_rows < wide; ++block) {
        const T *from = m->x + block * m->block_rows * width;
        const index rows = least(m->block_rows, wide - block * m->block_rows), to = block * width;
#define MOMENTS(at, vectors, last)                                                                                     \
    block_moments(from + at, m->means + to + at, m->squares + to + at, width, rows, vectors, last)
        EACH_STRIP(width, MOMENTS)
    }
    const index rest = end * m->block_rows * width >= m->count ? m->count - wide * width : 0;
    for (index i = 0; i < rest; ++i) {
        m->means[m->partial - rest + i] = get(m->x + m->count - rest + i);
        m->squares[m->partial - rest + i] = 0;
    }
}
