// Whether a number is infinite or NaN, for the loss scale: such a number less itself is NaN, any other is 0.
//
// A vector of neighbouring numbers is loaded once, and which lanes were wrong stays in a register to the end. No sums:
// the answer depends on no order. Least bytes: every number once.

#include "core/vectors.h"

// Sets finite[0] to 0 if one of the numbers is not finite.
KERNEL(find_overflow)(const T *x /* count */, float *finite /* 1 */, index count) {
    mask wrong = {0};
    for (index i = 0; i < count; i += LANES) {
        const vec value = count - i >= LANES ? load(x + i) : load_some(x + i, count - i);
        wrong |= value - value != all(0);
    }
    for (int lane = 0; lane < LANES; ++lane)
        if (wrong[lane]) *finite = 0;
}
