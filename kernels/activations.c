// Activation functions and their gradients, number by number.
//
// Bits: those of the twins in activations.py, -0 and NaN included. Least bytes: every array once.

#include "core/vectors.h"

// y = max(x, 0), and where it is positive. NaN passes, and is not positive; max(-0, 0) is +0.
KERNEL(relu)(const T *x /* count */, T *y /* count */, unsigned char *positive /* count */, index count, index first,
             index last) {
    index i = first;
    for (; i + LANES <= last; i += LANES) {
        const vec value = load(x + i);
        const mask above = value > all(0);
        store(y + i, choose(above | (value != value), value, all(0)));
        store_mask(positive + i, above);
    }
    for (; i < last; ++i) {
        const A value = get(x + i);
        positive[i] = value > 0;
        put(y + i, value > 0 || value != value ? value : 0);
    }
    (void)count;
}
