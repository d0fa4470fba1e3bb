// The hinge loss of each row of scores, and its gradient.
//
// A margin of a wrong class is max(0, x - x[label] + 1). A row is gone through once, a vector of neighbouring classes
// at a time: its margins become 1 or 0 in dx, times the factor, and their sum and number stay in registers; the label's
// place gets how many there are, while the row is in cache.
//
// Order of sums: those of a row in a vector, then its lanes in a tree; Python adds up the rows. No order depends on
// threads. NaN passes to the loss, and has no gradient. Least bytes: scores and gradients once.

#include "core/vectors.h"

// max(margin, 0), where NaN passes.
INLINE vec positive_part(vec margin) { return choose(margin < all(0), all(0), margin); }

KERNEL(hinge)(const T *x /* rows * classes */, const int *labels /* rows */, T *dx /* rows * classes */,
              A *losses /* rows */, double factor, index rows, index classes, index first, index last) {
    const vec scale = all((A)factor), one = all(1);
    for (index row = first; row < last; ++row) {
        const T *scores = x + row * classes;
        T *gradient = dx + row * classes;
        const A own = get(scores + labels[row]);
        vec sum = all(0), counts = all(0);
        for (index i = 0; i < classes; i += LANES) {
            const index left = classes - i, label = labels[row] - i;
            vec margin = positive_part((left >= LANES ? load(scores + i) : load_some(scores + i, left)) - all(own) + one);
            for (int lane = (int)least(left, LANES); lane < LANES; ++lane) margin[lane] = 0;
            if (label >= 0 && label < LANES) margin[label] = 0;
            const vec wrong = choose(margin > all(0), one, all(0));
            sum += margin;
            counts += wrong;
            if (left >= LANES) store(gradient + i, wrong * scale);
            else store_some(gradient + i, wrong * scale, left);
        }
        UNROLL for (int half = LANES / 2; half > 0; half /= 2)
            UNROLL for (int lane = 0; lane < half; ++lane) {
                sum[lane] += sum[lane + half];
                counts[lane] += counts[lane + half];
            }
        losses[row] = sum[0];
        put(gradient + labels[row], (0 - counts[0]) * (A)factor);
    }
    (void)rows;
}
