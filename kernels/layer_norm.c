// Layer normalization of the rows of a matrix, both ways: a row is in cache while it is read again.
//
// The mean comes before the squares of the deviations from it, since E[x²] - E[x]² would cancel. A row is added up by
// four vectors in turn, these and their lanes in a tree, and then its last numbers; the sums over rows, which the
// gradients of γ and β are, block by block (parts), and the blocks by column_total of sums.c.
//
// Least bytes: forward rows·size·(2·sizeof(T) + sizeof(A)), backward as many.

#include "core/vectors.h"

// Calls of `step(at, k)` for the whole vectors of a row, by four chains of sums; `i` is then at its last numbers.
#define WHOLE_VECTORS(step)                                                                                            \
    index i = 0;                                                                                                       \
    for (; i + 4 * LANES <= size; i += 4 * LANES)                                                                      \
        UNROLL for (int k = 0; k < 4; ++k) { step(i + k * LANES, k) }                                                  \
    for (; i + LANES <= size; i += LANES) {                                                                            \
        step(i, 0)                                                                                                     \
    }

typedef struct {
    vec lanes[4];
} Sum;

// Of the whole vectors: the last numbers of a row are added one by one.
INLINE A total_of(Sum sum) {
    vec total = (sum.lanes[0] + sum.lanes[1]) + (sum.lanes[2] + sum.lanes[3]);
    UNROLL for (int half = LANES / 2; half > 0; half /= 2)
        UNROLL for (int lane = 0; lane < half; ++lane) total[lane] += total[lane + half];
    return total[0];
}

INLINE A mean_of(const T *x, index size) {
    Sum sum = {0};
#define ADD(at, k) sum.lanes[k] += load(x + (at));
    WHOLE_VECTORS(ADD)
    A total = total_of(sum);
    for (; i < size; ++i)
        total += get(x + i);
    return total / size;
}

INLINE A variance_of(const T *x, A mean, index size) {
    Sum sum = {0};
#define ADD_SQUARE(at, k)                                                                                              \
    const vec deviation = load(x + (at)) - all(mean);                                                                  \
    sum.lanes[k] += deviation * deviation;
    WHOLE_VECTORS(ADD_SQUARE)
    A total = total_of(sum);
    for (; i < size; ++i)
        total += (get(x + i) - mean) * (get(x + i) - mean);
    return total / size;
}

// y = x̂·γ + β with x̂ = (x - mean)·inverse and inverse = 1 / √(variance + ε).
KERNEL(layer_norm)(const T *x /* rows * size */, const A *gamma /* size */, const A *beta /* size */,
                   T *y /* rows * size */, A *normalized /* rows * size */, A *inverses /* rows */, double epsilon,
                   index rows, index size, index first, index last) {
    for (index row = first; row < last; ++row) {
        const T *from = x + row * size;
        const A mean = mean_of(from, size);
        const A inverse = 1 / __builtin_elementwise_sqrt(variance_of(from, mean, size) + (A)epsilon);
        inverses[row] = inverse;
        T *to = y + row * size;
        A *centered = normalized + row * size;
        index i = 0;
        for (; i + LANES <= size; i += LANES) {
            const vec value = (load(from + i) - all(mean)) * all(inverse);
            store_sums(centered + i, value);
            store(to + i, value * load_sums(gamma + i) + load_sums(beta + i));
        }
        for (; i < size; ++i) {
            centered[i] = (get(from + i) - mean) * inverse;
            put(to + i, centered[i] * gamma[i] + beta[i]);
        }
    }
    (void)rows;
}

// dx = (g - mean(g) - x̂·mean(g·x̂))·inverse with g = dy·γ, and each part's sums of dy·x̂ and dy.
KERNEL(layer_norm_backward)(const T *dy /* rows * size */, const A *normalized /* rows * size */,
                            const A *inverses /* rows */, const A *gamma /* size */, T *dx /* rows * size */,
                            A *products /* parts * size */, A *sums /* parts * size */, index rows, index size,
                            index parts, index part_rows, index first, index last_part) {
    for (index part = first; part < last_part; ++part) {
        A *product = products + part * size, *sum = sums + part * size;
        for (index i = 0; i < size; ++i)
            product[i] = sum[i] = 0;
        for (index row = part * part_rows; row < least(rows, (part + 1) * part_rows); ++row) {
            const T *from = dy + row * size;
            const A *centered = normalized + row * size;
            Sum along = {0}, level = {0};
#define ADD_PRODUCTS(at, k)                                                                                            \
    const vec upstream = load(from + (at)), number = load_sums(centered + (at));                                       \
    const vec g = upstream * load_sums(gamma + (at));                                                                  \
    along.lanes[k] += g * number;                                                                                      \
    level.lanes[k] += g;                                                                                               \
    store_sums(product + (at), load_sums(product + (at)) + upstream * number);                                         \
    store_sums(sum + (at), load_sums(sum + (at)) + upstream);
            WHOLE_VECTORS(ADD_PRODUCTS)
            A slope = total_of(along), shift = total_of(level);
            for (; i < size; ++i) {
                const A upstream = get(from + i), g = upstream * gamma[i];
                slope += g * centered[i];
                shift += g;
                product[i] += upstream * centered[i];
                sum[i] += upstream;
            }
            slope /= size;
            shift /= size;
            T *to = dx + row * size;
            const A inverse = inverses[row];
            for (i = 0; i + LANES <= size; i += LANES) {
                const vec g = load(from + i) * load_sums(gamma + i);
                store(to + i, (g - all(shift) - load_sums(centered + i) * all(slope)) * all(inverse));
            }
            for (; i < size; ++i)
                put(to + i, (get(from + i) * gamma[i] - shift - centered[i] * slope) * inverse);
        }
    }
    (void)parts;
}
