// Errors of predictions and the sums of their costs: e², or Huber's (1964).
//
// Number by number: e = x - t, and with w = min(|e|, delta) the cost w·(|e| - w/2), which is e²/2 up to delta and
// linear from there. A vector of neighbouring numbers is loaded once, and its costs are added to the sums in registers:
// nothing is needed twice.
//
// Order of sums: costs of a range of `size` numbers are added up in double, lane by lane, then the lanes in a tree;
// Python adds up the ranges' sums. No order depends on threads. Least bytes: predictions, targets and errors once.

#include "core/vectors.h"

typedef double wide __attribute__((vector_size(VECTOR_BYTES / sizeof(A) * sizeof(double))));

KERNEL(regression)(const T *x /* count */, const T *t /* count */, T *error /* count */, double *sums /* ranges */,
                   int squared, double delta, index count, index ranges, index size, index first, index last) {
    const vec limit = all((A)delta);
    for (index range = first; range < last; ++range) {
        const index end = least(count, (range + 1) * size);
        wide total = {0};
        for (index i = range * size; i < end; i += LANES) {
            const index left = end - i;
            const vec e = left >= LANES ? load(x + i) - load(t + i) : load_some(x + i, left) - load_some(t + i, left);
            const vec far = __builtin_elementwise_abs(e), within = choose(far > limit, limit, far);
            total += __builtin_convertvector(squared ? e * e : within * (far - all((A)0.5) * within), wide);
            if (left >= LANES) store(error + i, e);
            else store_some(error + i, e, left);
        }
        UNROLL for (int half = LANES / 2; half > 0; half /= 2)
            UNROLL for (int lane = 0; lane < half; ++lane) total[lane] += total[lane + half];
        sums[range] = total[0];
    }
    (void)ranges;
}

// The error, cut off at ±delta, / elements.
KERNEL(huber_backward)(const T *error /* count */, T *dx /* count */, double delta, index count, index first,
                       index last) {
    const vec limit = all((A)delta), elements = all(count);
    for (index i = first; i < last; i += LANES) {
        const index left = last - i;
        const vec e = left >= LANES ? load(error + i) : load_some(error + i, left);
        const vec cut = choose(e > limit, limit, choose(e < -limit, -limit, e)) / elements;
        if (left >= LANES) store(dx + i, cut);
        else store_some(dx + i, cut, left);
    }
}
