// Batch normalization of the columns of a matrix, with a ReLU behind it. core/columns.h says how the matrix is cut.
//
// The sums of a strip of columns, or its factors, stay in registers while the rows of a block go by. A block is small
// enough to be in cache when it is read again, for the squares behind the mean.
//
// Moments of blocks of rows (core/moments.h), which a convolution leaves as well, are put together by the formula of
// Chan, Golub and LeVeque, "Algorithms for computing the sample variance" (1983), eq. 2.1.
//
// Order of sums: the rows of a block in order, then the blocks in order, in double: no bit depends on a range.
// Least bytes: statistics count·sizeof(T), normalization 2·count·sizeof(T).

#include "core/batch_norm.h"
#include "core/moments.h"

// Mean and sum of squared deviations of each part.
KERNEL(batch_norm_moments)(const T *x /* count */, A *means /* partial */, A *squares /* partial */, index partial,
                           index count, index width, index block_rows, index first, index last_block) {
    measure(&(Measured){x, means, squares, partial, count, width, block_rows}, first, last_block);
}

INLINE void join(const A *means, const A *squares, A *mean, A *variance, index parts, index channels, index own,
                 index rows, index block_rows, index fold) {
    double total[CHANNELS] = {0}, spread[CHANNELS] = {0};
    UNROLL for (int second = 0; second < 2; ++second) {
        for (index part = 0; part < parts; ++part) {
            const index before = part / fold * block_rows, wide = rows / fold; // wide rows
            const double weight = before < wide ? least(block_rows, wide - before) : 1;
            for (index c = 0; c < own; ++c) {
                const double number = means[part * channels + c], deviation = number - total[c];
                if (second)
                    spread[c] += squares[part * channels + c] + weight * (deviation * deviation);
                else
                    total[c] += weight * number;
            }
        }
        for (index c = 0; c < own && !second; ++c)
            total[c] /= rows;
    }
    for (index c = 0; c < own; ++c) {
        mean[c] = total[c];
        variance[c] = spread[c] / rows;
    }
}

// Mean and variance of the columns of all rows from those of the parts. The first parts are `fold` for each block of
// fold·block_rows rows, of which the last may have less; parts behind these are of one row.
KERNEL(batch_norm_statistics)(const A *means /* parts * channels */, const A *squares /* parts * channels */,
                              A *mean /* channels */, A *variance /* channels */, index parts, index channels,
                              index rows, index block_rows, index fold) {
    index c = 0;
    for (; c + CHANNELS <= channels; c += CHANNELS)
        join(means + c, squares + c, mean + c, variance + c, parts, channels, CHANNELS, rows, block_rows, fold);
    if (c < channels)
        join(means + c, squares + c, mean + c, variance + c, parts, channels, channels - c, rows, block_rows, fold);
}

INLINE void block_normalize(const T *x, const T *bypass, const A *factors, T *y, unsigned char *positive, int relu,
                            index from, index width, index rows, int vectors, index last) {
    Factors by[STRIP];
    EACH_VECTOR by[j] = forward_factors(factors + place(j, vectors, last), width);
    for (index row = 0; row < rows; ++row)
        EACH_VECTOR {
            const index at = from + row * width + place(j, vectors, last);
            vec value = normalized(load(x + at), by[j]);
            if (bypass)
                value = rounded(value + load(bypass + at));
            if (positive)
                store_mask(positive + at, value > all(0));
            store(y + at, relu ? rectified(value) : value);
        }
}

// y = (x - center)·scale + shift, by the rows of `factors` (a fourth is only there to be read behind the third), plus
// `bypass` if that is given; with relu max(y, 0), and where y is above 0 in `positive`, if that is given.
KERNEL(batch_norm_normalize)(const T *x /* count */, const T *bypass /* NULL or count */,
                             const A *factors /* 4 * width */, T *y /* count */,
                             unsigned char *positive /* NULL or count */, int relu, index count, index width,
                             index block_rows, index first, index last_block) {
    for (index block = first; block < last_block; ++block) {
        const index rows = rows_of(block, block_rows, count, width), together = rows_together(rows, width);
        for (index row = 0; row < rows; row += together) {
            const index from = (block * block_rows + row) * width;
#define NORMALIZE(at, vectors, last)                                                                                   \
    block_normalize(x, bypass, factors + at, y, positive, relu, from + at, width, together, vectors, last)
            EACH_STRIP(width, NORMALIZE)
        }
    }
    const index rest = rest_of(count, width, first);
    for (index i = 0; i < rest; i += LANES) {
        const index at = count - rest + i, own = least(LANES, rest - i);
        vec value = normalized(load_up_to(x + at, own), forward_factors(factors + i, width));
        if (bypass)
            value = rounded(value + load_up_to(bypass + at, own));
        if (positive)
            store_mask_up_to(positive + at, value > all(0), own);
        store_up_to(y + at, relu ? rectified(value) : value, own);
    }
}
