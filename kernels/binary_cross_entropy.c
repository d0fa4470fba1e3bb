// The cross-entropy of independent labels against scores: probabilities and the sum of the costs.
//
// Number by number: with s = exp(-|x|), cost = (x > 0 ? 1 - t : t)·|x| + log(1 + s) and y = (x > 0 ? 1 : s) / (1 + s);
// nothing overflows, and a cost near 0 keeps its digits. A vector of neighbouring numbers is loaded once, and its costs
// are added to the sums in registers: nothing is needed twice.
//
// Order of sums: costs of a range of `size` numbers are added up in double, lane by lane, then the lanes in a tree;
// Python adds up the ranges' sums. No order depends on threads. Least bytes: scores and targets once, probabilities
// once.

#include "core/functions.h"

typedef double wide __attribute__((vector_size(VECTOR_BYTES / sizeof(A) * sizeof(double))));

// log(1 + s) for 0 <= s <= 1: what 1 + s rounds off is made good by the quotient (Goldberg, "What every computer scientist
// should know about floating-point arithmetic", 1991, theorem 4).
INLINE vec log_of_1_and(vec s) {
    const vec sum = all(1) + s, kept = sum - all(1);
    return choose(kept == all(0), s, vec_log(sum) * (s / kept));
}

KERNEL(binary_cross_entropy)(const T *x /* count */, const T *t /* count */, T *y /* count */,
                             double *sums /* ranges */, index count, index ranges, index size, index first,
                             index last) {
    for (index range = first; range < last; ++range) {
        const index end = least(count, (range + 1) * size);
        wide total = {0};
        for (index i = range * size; i < end; i += LANES) {
            const index left = end - i;
            const vec score = left >= LANES ? load(x + i) : load_some(x + i, left);
            const vec target = left >= LANES ? load(t + i) : load_some(t + i, left);
            const vec far = __builtin_elementwise_abs(score), small = vec_exp_negative(-far);
            const mask positive = score > all(0);
            const vec weight = choose(positive, all(1) - target, target);
            // a score may be infinite where that is right: 0·∞ would be NaN
            vec cost = choose(weight == all(0), all(0), weight * far) + log_of_1_and(small);
            const vec probability = choose(positive, all(1), small) / (all(1) + small);
            if (left >= LANES) {
                store(y + i, probability);
            } else {
                store_some(y + i, probability, left);
                for (int lane = left; lane < LANES; ++lane) cost[lane] = 0;
            }
            total += __builtin_convertvector(cost, wide);
        }
        UNROLL for (int half = LANES / 2; half > 0; half /= 2)
            UNROLL for (int lane = 0; lane < half; ++lane) total[lane] += total[lane + half];
        sums[range] = total[0];
    }
    (void)ranges;
}

// (y - t) / elements.
KERNEL(binary_cross_entropy_backward)(const T *y /* count */, const T *t /* count */, T *dx /* count */, index count,
                                      index first, index last) {
    const vec elements = all(count);
    index i = first;
    for (; i + LANES <= last; i += LANES) store(dx + i, (load(y + i) - load(t + i)) / elements);
    if (i < last) store_some(dx + i, (load_some(y + i, last - i) - load_some(t + i, last - i)) / elements, last - i);
}
