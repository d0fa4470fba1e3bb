// exp, log, tanh and the sigmoid of vectors; C's library computes number by number.
//
// Each brings its argument close to 0, where a polynomial does, and multiplies by powers of two through the bits of the
// exponent. The coefficients are those of least largest error, found by Remez' exchange in 90 digits and rounded to the
// type: a relative error of the whole function of 2^-26.5 (float) and 2^-55.7 (double) for exp, 2^-28.4 and 2^-57.6 for
// log. With every rounding, the largest errors measured, over one float in seven and five million doubles, are 1.07 units
// in the last place for exp, 0.85 for log and 1.91 for tanh; tests/kernels/test_functions.py holds them to 1.2, 1 and 2.
//
// NaN, infinities, zeros of both signs and denormal numbers give what IEEE 754 recommends, as in NumPy. Where `fma`
// stands, one rounding less is what the error needs.
#pragma once

#include "core/vectors.h"

#ifdef T_IS_DOUBLE
#define FRACTION_BITS 52
#define BIAS 1023
#define LEAST_NORMAL 0x1p-1022
#define LN2_HIGH 0x1.62e42fefa39efp-1
#define LN2_LOW 0x1.abc9e3b39803fp-56
#define LEAST_EXPONENT -746 // e^-745.2 and less rounds to 0
#define MOST_EXPONENT 710   // e^709.8 and more to infinity
static const A exp_terms[] = {0x1.0000000000001p-1, 0x1.5555555555558p-3, 0x1.5555555553d36p-5, 0x1.111111110f7d4p-7,
                              0x1.6c16c1789d4f8p-10, 0x1.a01a01b0227b3p-13, 0x1.a019b8c9806fbp-16,
                              0x1.71ddf674fd5f5p-19, 0x1.2891d5acb7198p-22, 0x1.af63a143b008fp-26};
static const A log_terms[] = {0x1.5555555555558p-1, 0x1.999999999514ep-2, 0x1.2492492e1b73cp-2, 0x1.c71c62b24d53bp-3,
                              0x1.7462c2a6c5a35p-3, 0x1.39fc9fa7b71e1p-3, 0x1.2b6d4f8c2c47ap-3};
#else
#define FRACTION_BITS 23
#define BIAS 127
#define LEAST_NORMAL 0x1p-126f
#define LN2_HIGH 0x1.62e43p-1f
#define LN2_LOW -0x1.05c61p-29f
#define LEAST_EXPONENT -104 // e^-103.98 and less rounds to 0
#define MOST_EXPONENT 89    // e^88.73 and more to infinity
static const A exp_terms[] = {0x1.0p-1f, 0x1.5554dcp-3f, 0x1.5554b8p-5f, 0x1.120be6p-7f, 0x1.6d75eep-10f};
static const A log_terms[] = {0x1.55555cp-1f, 0x1.997be8p-2f, 0x1.2ef106p-2f};
#endif

// 2^n, for whole numbers n of 1 - BIAS to BIAS. Lanes of `mask` are integers as wide as A.
INLINE vec power_of_two(mask n) { return (vec)((n + BIAS) << FRACTION_BITS); }

// terms[0] + terms[1]·x + terms[2]·x² …
INLINE vec polynomial(vec x, const A *terms, int count) {
    vec sum = all(terms[count - 1]);
    UNROLL
    for (int i = count - 2; i >= 0; --i)
        sum = fma(sum, x, all(terms[i]));
    return sum;
}
#define POLYNOMIAL(x, terms) polynomial(x, terms, sizeof(terms) / sizeof(A))

// e^r - 1 and n, where x = n·ln 2 + r, |r| <= ln 2 / 2. x - n·LN2_HIGH is exact.
INLINE vec exp_of_rest(vec x, mask *n) {
    const vec shift = all((A)1.5 * ((index)1 << FRACTION_BITS)); // x + shift has no bits behind the point
    const vec shifted = fma(x, all((A)1.44269504088896340736), shift);
    const vec whole = shifted - shift;
    *n = (mask)shifted - (mask)shift;
    const vec r = fma(whole, all((A)-LN2_LOW), fma(whole, all((A)-LN2_HIGH), x));
    return fma(r * r, POLYNOMIAL(r, exp_terms), r);
}

INLINE vec vec_exp(vec x) {
    x = choose(x < all(LEAST_EXPONENT), all(LEAST_EXPONENT), choose(x > all(MOST_EXPONENT), all(MOST_EXPONENT), x));
    mask n;
    const vec power = exp_of_rest(x, &n) + all(1);
    const mask half = n >> 1; // 2^n alone may be no normal number
    return power * power_of_two(half) * power_of_two(n - half);
}

// e^x for x <= 0, such as a difference from a maximum; NaN stays.
INLINE vec vec_exp_negative(vec x) {
    const A lift = 0x1p64; // 2^n times this is a normal number
    x = choose(x < all(LEAST_EXPONENT), all(LEAST_EXPONENT), x);
    mask n;
    const vec rest = exp_of_rest(x, &n), power = (vec)((n << FRACTION_BITS) + (mask)all(lift));
    return fma(rest, power, power) * all(1 / lift);
}

// With x = m·2^k, √½ <= m < √2, f = m - 1 and s = f / (2 + f): ln m = 2·artanh s = f - s·(f - s²·P(s²)).
INLINE vec vec_log(vec x) {
    const mask denormal = x < all(LEAST_NORMAL), root = (mask)all((A)0.70710678118654752440);
    const vec normal = choose(denormal, x * all((index)1 << FRACTION_BITS), x);
    const mask k = ((mask)normal - root) >> FRACTION_BITS;
    const vec f = (vec)((mask)normal - (k << FRACTION_BITS)) - all(1);
    const vec exponent = __builtin_convertvector(k - (denormal & FRACTION_BITS), vec);
    const vec s = f / (all(2) + f), square = s * s, half = all((A)0.5) * f * f;
    const vec small = fma(exponent, all(LN2_LOW), s * fma(square, POLYNOMIAL(square, log_terms), half));
    const vec logarithm = fma(exponent, all(LN2_HIGH), f - (half - small));
    const vec infinity = all((A)__builtin_inf());
    const vec beyond = choose(x == all(0), -infinity, choose(x == infinity, x, all((A)__builtin_nan(""))));
    return choose((x > all(0)) & (x < infinity), logarithm, beyond);
}

// With e = exp(2·|x|) - 1: tanh |x| = e / (e + 2). The quotient is corrected by what e + 2, `lost`, and itself rounded off.
INLINE vec vec_tanh(vec x) {
    const vec doubled = all(2) * __builtin_elementwise_abs(x), far = all(80); // tanh is ±1 there
    mask n;
    const vec rest = exp_of_rest(choose(doubled > far, far, doubled), &n), power = power_of_two(n);
    const vec e = fma(rest, power, power - all(1)), sum = e + all(2), lost = e - (sum - all(2));
    const vec inverse = all(1) / sum, quotient = e * inverse;
    const vec left = fma(-quotient, lost, fma(-quotient, sum, e));
    return __builtin_elementwise_copysign(fma(left, inverse, quotient), x);
}

// 1 / (1 + exp(-x)) as exp(min(x, 0)) / (1 + exp(-|x|)).
INLINE vec vec_sigmoid(vec x) {
    const vec small = vec_exp(-__builtin_elementwise_abs(x));
    return choose(x < all(0), small, all(1)) / (all(1) + small);
}
