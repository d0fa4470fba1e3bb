// The sums of the squares of neighbouring numbers, in double.
//
// A range of `size` numbers is added up by four vectors in turn, then these and their lanes in a tree; Python adds up the
// ranges' sums. No order depends on threads. Least bytes: every number once.

#include "core/vectors.h"

typedef double wide __attribute__((vector_size(VECTOR_BYTES / sizeof(A) * sizeof(double))));

INLINE wide squared(vec x) {
    const wide exact = __builtin_convertvector(x, wide);
    return exact * exact;
}

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
