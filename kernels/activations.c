// Activation functions and their gradients, number by number.
//
// A vector of neighbouring numbers is loaded, computed in registers and stored: nothing is needed twice, so that no
// cache is counted on.
//
// Order of sums: there is none over numbers. Bits: those of the twins in activations.py, -0 and NaN included, where
// these round as often: float16 rounds once here, and exp and tanh are those of core/functions.h. Least bytes: every
// array once.

#include "core/functions.h"

// y = max(x, 0), and where it is positive. NaN passes, and is not positive; max(-0, 0) is +0.
KERNEL(relu)(const T *x /* count */, T *y /* count */, unsigned char *positive /* count */, index count, index first,
             index last) {
#define RELU(i, own)                                                                                                   \
    const vec value = load_up_to(x + i, own);                                                                          \
    store_up_to(y + i, rectified(value), own);                                                                         \
    store_mask_up_to(positive + i, value > all(0), own);
    EACH(RELU)
}

// y = min(max(x, 0), 6), and where x lies between. NaN passes, and does not lie between.
KERNEL(relu6)(const T *x /* count */, T *y /* count */, unsigned char *between /* count */, index count, index first,
              index last) {
#define RELU6(i, own)                                                                                                  \
    const vec value = load_up_to(x + i, own), above = rectified(value);                                                \
    store_up_to(y + i, choose(above > all(6), all(6), above), own);                                                    \
    store_mask_up_to(between + i, (value > all(0)) & (value < all(6)), own);
    EACH(RELU6)
}

// y = x where that is above 0, else slope·x, with a slope that T has.
KERNEL(leaky_relu)(const T *x /* count */, double slope, T *y /* count */, unsigned char *positive /* count */,
                   index count, index first, index last) {
    const vec factor = all(slope);
#define LEAKY(i, own)                                                                                                  \
    const vec value = load_up_to(x + i, own);                                                                          \
    const mask above = value > all(0);                                                                                 \
    store_up_to(y + i, choose(above, value, value * factor), own);                                                     \
    store_mask_up_to(positive + i, above, own);
    EACH(LEAKY)
}

KERNEL(leaky_relu_backward)(const T *dy /* count */, const unsigned char *positive /* count */, double slope,
                            T *dx /* count */, index count, index first, index last) {
    const vec factor = all(slope);
#define LEAKY_BACKWARD(i, own)                                                                                         \
    const vec upstream = load_up_to(dy + i, own);                                                                      \
    store_up_to(dx + i, choose(load_mask_up_to(positive + i, own), upstream, upstream * factor), own);
    EACH(LEAKY_BACKWARD)
}

KERNEL(sigmoid)(const T *x /* count */, T *y /* count */, index count, index first, index last) {
#define SIGMOID(i, own) store_up_to(y + i, vec_sigmoid(load_up_to(x + i, own)), own);
    EACH(SIGMOID)
}

KERNEL(sigmoid_backward)(const T *dy /* count */, const T *y /* count */, T *dx /* count */, index count, index first,
                         index last) {
#define SIGMOID_BACKWARD(i, own)                                                                                       \
    const vec value = load_up_to(y + i, own);                                                                          \
    store_up_to(dx + i, (all(1) - value) * value * load_up_to(dy + i, own), own);
    EACH(SIGMOID_BACKWARD)
}

KERNEL(tanh)(const T *x /* count */, T *y /* count */, index count, index first, index last) {
#define TANH(i, own) store_up_to(y + i, vec_tanh(load_up_to(x + i, own)), own);
    EACH(TANH)
}

KERNEL(tanh_backward)(const T *dy /* count */, const T *y /* count */, T *dx /* count */, index count, index first,
                      index last) {
#define TANH_BACKWARD(i, own)                                                                                          \
    const vec value = load_up_to(y + i, own);                                                                          \
    store_up_to(dx + i, (all(1) - value * value) * load_up_to(dy + i, own), own);
    EACH(TANH_BACKWARD)
}

#define ROOT_2_OVER_PI ((A)0.79788456080286535588)
#define CUBIC ((A)0.044715)

// x within ±30, where tanh is long ±1: neither x³ nor x² overflows.
INLINE vec near_zero(vec x) {
    const vec most = all(30);
    return choose(x > most, most, choose(x < -most, -most, x));
}

INLINE vec gelu_tanh(vec near) { return vec_tanh((near * near * all(CUBIC) + all(1)) * near * all(ROOT_2_OVER_PI)); }

// (1 + t)/2·x, with t = tanh(√(2/π)·(x + 0.044715·x³)); the half comes before x, whose double may be no number.
KERNEL(gelu)(const T *x /* count */, T *y /* count */, index count, index first, index last) {
#define GELU(i, own)                                                                                                   \
    const vec value = load_up_to(x + i, own);                                                                          \
    store_up_to(y + i, (gelu_tanh(near_zero(value)) + all(1)) * all((A)0.5) * value, own);
    EACH(GELU)
}

// dy·((1 + t)/2 + x/2·(1 - t²)·√(2/π)·(1 + 3·0.044715·x²)).
KERNEL(gelu_backward)(const T *dy /* count */, const T *x /* count */, T *dx /* count */, index count, index first,
                      index last) {
#define GELU_BACKWARD(i, own)                                                                                          \
    const vec near = near_zero(load_up_to(x + i, own)), t = gelu_tanh(near);                                           \
    const vec inner = (near * near * all((A)(3 * 0.044715)) + all(1)) * near * all(ROOT_2_OVER_PI);                            \
    const vec slope = (inner * (all(1) - t * t) + all(1) + t) * all((A)0.5);                                           \
    store_up_to(dx + i, slope * load_up_to(dy + i, own), own);
    EACH(GELU_BACKWARD)
}

KERNEL(add)(const T *a /* count */, const T *b /* count */, T *y /* count */, index count, index first, index last) {
#define ADD(i, own) store_up_to(y + i, load_up_to(a + i, own) + load_up_to(b + i, own), own);
    EACH(ADD)
}

KERNEL(multiply)(const T *a /* count */, const T *b /* count */, T *y /* count */, index count, index first,
                 index last) {
#define MULTIPLY(i, own) store_up_to(y + i, load_up_to(a + i, own) * load_up_to(b + i, own), own);
    EACH(MULTIPLY)
}

// y = factor·x, with a factor that T has.
KERNEL(scale)(const T *x /* count */, double factor, T *y /* count */, index count, index first, index last) {
    const vec by = all(factor);
#define SCALE(i, own) store_up_to(y + i, load_up_to(x + i, own) * by, own);
    EACH(SCALE)
}
