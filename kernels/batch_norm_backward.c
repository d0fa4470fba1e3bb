// Gradients of batch normalization, and of a ReLU behind it. core/columns.h says how the matrix is cut.
//
// Where a ReLU follows the normalization, the kernels compute again where its input is positive, with the same
// operations as the forward pass, instead of reading a mask.
//
// The factors of a strip of columns, and its sums, stay in registers while the rows of a block go by; meanwhile the next
// strip's numbers are fetched into cache.
//
// Order of sums: the rows of a block in order, then the blocks in order, in double: no bit depends on a range.
// Least bytes: sums 2·count·sizeof(T), gradient 3·count·sizeof(T).

#include "core/batch_norm.h"

// The gradient of the normalization's output from that of the ReLU behind it, if there is one.
INLINE vec unrectified(vec dy, vec x, Factors by, int relu) {
    return relu ? choose(normalized(x, by) > all(0), dy, all(0)) : dy;
}

INLINE void block_products(const T *dy, const T *x, const A *factors, A *products, A *sums, int relu, index width,
                           index rows, int vectors, index last) {
    Factors by[STRIP];
    vec product[STRIP] = {0}, sum[STRIP] = {0};
    EACH_VECTOR by[j] = forward_factors(factors + place(j, vectors, last), width);
    for (index row = 0; row < rows; ++row)
        EACH_VECTOR {
            const index at = row * width + place(j, vectors, last);
            ahead(x + at), ahead(dy + at);
            const vec number = load(x + at), upstream = unrectified(load(dy + at), number, by[j], relu);
            product[j] = fma(upstream, number - by[j].center, product[j]); // one rounding less, and one instruction
            sum[j] += upstream;
        }
    EACH_VECTOR store_sums(products + place(j, vectors, last), product[j]);
    EACH_VECTOR store_sums(sums + place(j, vectors, last), sum[j]);
}

// Each part's sums of dy·(x - mean) and of dy.
KERNEL(batch_norm_products)(const T *dy /* count */, const T *x /* count */, const A *factors /* 6 * width */,
                            A *products /* partial */, A *sums /* partial */, int relu, index partial, index count,
                            index width, index block_rows, index first, index last_block) {
    for (index block = first; block < last_block; ++block) {
        const index from = block * block_rows * width, rows = rows_of(block, block_rows, count, width);
        const index to = block * width;
#define PRODUCTS(at, vectors, last)                                                                                    \
    block_products(dy + from + at, x + from + at, factors + at, products + to + at, sums + to + at, relu, width, rows, \
                   vectors, last)
        EACH_STRIP(width, PRODUCTS)
    }
    const index rest = rest_of(count, width, first);
    for (index i = 0; i < rest; i += LANES) {
        const index own = least(LANES, rest - i), at = count - rest + i, to = partial - rest + i;
        const Factors by = forward_factors(factors + i, width);
        const vec number = load_up_to(x + at, own), upstream = unrectified(load_up_to(dy + at, own), number, by, relu);
        const vec product = upstream * (number - by.center);
        for (index lane = 0; lane < own; ++lane)
            products[to + lane] = product[lane], sums[to + lane] = upstream[lane];
    }
}

// dγ = inverse·Σ dy·(x - mean) and dβ = Σ dy, from the parts.
KERNEL(batch_norm_parameter_gradients)(const A *products /* parts * channels */, const A *sums /* parts * channels */,
                                       const A *inverse /* channels */, A *dgamma /* channels */,
                                       A *dbeta /* channels */, index parts, index channels) {
    add_parts(products, dgamma, parts, channels);
    add_parts(sums, dbeta, parts, channels);
    for (index c = 0; c < channels; ++c)
        dgamma[c] *= inverse[c];
}

INLINE vec gradient(vec dy, vec x, Factors by, int relu) {
    return (unrectified(dy, x, by, relu) - (x - by.center) * by.slope - by.level) * by.scale;
}

INLINE void block_gradient(const T *dy, const T *x, const A *factors, T *dx, int relu, index width, index rows,
                           int vectors, index last) {
    Factors by[STRIP];
    EACH_VECTOR by[j] = backward_factors(factors + place(j, vectors, last), width);
    for (index row = 0; row < rows; ++row)
        EACH_VECTOR {
            const index at = row * width + place(j, vectors, last);
            store(dx + at, gradient(load(dy + at), load(x + at), by[j], relu));
        }
}

// dx = (dy - (x - center)·slope - level)·scale.
KERNEL(batch_norm_gradient)(const T *dy /* count */, const T *x /* count */, const A *factors /* 6 * width */,
                            T *dx /* count */, int relu, index count, index width, index block_rows, index first,
                            index last_block) {
    for (index block = first; block < last_block; ++block) {
        const index rows = rows_of(block, block_rows, count, width), together = rows_together(rows, width);
        for (index row = 0; row < rows; row += together) {
            const index from = (block * block_rows + row) * width;
#define GRADIENT(at, vectors, last)                                                                                    \
    block_gradient(dy + from + at, x + from + at, factors + at, dx + from + at, relu, width, together, vectors, last)
            EACH_STRIP(width, GRADIENT)
        }
    }
    const index rest = rest_of(count, width, first);
    for (index i = 0; i < rest; i += LANES) {
        const index own = least(LANES, rest - i), at = count - rest + i;
        const vec upstream = load_up_to(dy + at, own), number = load_up_to(x + at, own);
        store_up_to(dx + at, gradient(upstream, number, backward_factors(factors + i, width), relu), own);
    }
}
