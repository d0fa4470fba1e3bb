// The gradient of a fully connected layer's output before its ReLU, and that of the bias.
//
// Columns go in strips of STRIP vectors, whose sums stay in registers while the rows pass by.
//
// Order of sums: of every column, runs of RUN rows from top to bottom, from +0; the runs are added up in order.
// Least bytes: dy and the mask once, dx once.

#include "core/vectors.h"

enum { STRIP = 4, RUN = 256 };

INLINE void strip(const int vectors, const T *dy, const unsigned char *positive, T *dx, T *sums, int rows, int columns) {
    vec total[STRIP] = {0};
    for (int start = 0; start < rows; start += RUN) {
        const int end = least(start + RUN, rows);
        vec sum[STRIP] = {0};
        for (int row = start; row < end; ++row)
            UNROLL for (int v = 0; v < vectors; ++v) {
                const index at = (index)row * columns + v * LANES;
                const vec value = choose(load_mask(positive + at), load(dy + at), all(0));
                store(dx + at, value);
                sum[v] += value;
            }
        UNROLL for (int v = 0; v < vectors; ++v) total[v] += sum[v];
    }
    UNROLL for (int v = 0; v < vectors; ++v) store(sums + v * LANES, total[v]);
}

// dx is dy where it was positive, elsewhere +0; sums are those of its columns, for columns from `first` to `last`.
KERNEL(masked_sums)(const T *dy /* rows * columns */, const unsigned char *positive /* rows * columns */,
                    T *dx /* rows * columns */, T *sums /* columns */, int rows, int columns, int first, int last) {
    int column = first;
    for (; column + STRIP * LANES <= last; column += STRIP * LANES)
        strip(STRIP, dy + column, positive + column, dx + column, sums + column, rows, columns);
    for (; column + LANES <= last; column += LANES)
        strip(1, dy + column, positive + column, dx + column, sums + column, rows, columns);
    A total[LANES] = {0};
    for (int start = 0; start < rows; start += RUN) {
        const int end = least(start + RUN, rows);
        A sum[LANES] = {0};
        for (int row = start; row < end; ++row)
            for (int i = 0; i < last - column; ++i) {
                const index at = (index)row * columns + column + i;
                const A value = positive[at] ? get(dy + at) : 0;
                put(dx + at, value);
                sum[i] += value;
            }
        for (int i = 0; i < last - column; ++i) total[i] += sum[i];
    }
    for (int i = 0; i < last - column; ++i) put(sums + column + i, total[i]);
}
