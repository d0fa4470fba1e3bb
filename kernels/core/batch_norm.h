// Batch normalization of numbers, as the forward and the backward pass have it.
#pragma once

#include "core/columns.h"

// What is computed with, of every column: rows of `width` numbers, the last two for the gradient only. Another row is
// only there to be read behind the last.
typedef struct {
    vec center, scale, shift, slope, level;
} Factors;

INLINE Factors forward_factors(const A *rows, index width) {
    return (Factors){load_sums(rows), load_sums(rows + width), load_sums(rows + 2 * width), {0}, {0}};
}

INLINE Factors backward_factors(const A *rows, index width) {
    Factors factors = forward_factors(rows, width);
    factors.slope = load_sums(rows + 3 * width);
    factors.level = load_sums(rows + 4 * width);
    return factors;
}

// Rounded, for the backward pass asks again where it was above 0.
INLINE vec normalized(vec x, Factors by) { return rounded((x - by.center) * by.scale + by.shift); }
