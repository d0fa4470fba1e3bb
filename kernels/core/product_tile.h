// The tiles of attention.c: some rows by some vectors of a product of matrices, of which rows may leave out a part.
//
// Registers: ROWS rows by VECTORS vectors of sums, as in gemm.c. A step in depth takes VECTORS loads of b, ROWS numbers of
// a, each spread over a vector, and ROWS * VECTORS fma. Rows that see a part of the depth alone are next to each other
// with one step more or less: a tile takes the few steps that not all of its rows see by themselves.
//
// Order of a sum: its products in the order of the depth, each added by fma, which rounds once, from +0; then the sum is
// added to what was there.
#pragma once

#include "product_registers.h"

// What row r sees: all, or what has a number up to r + shift, or from there on.
typedef struct {
    enum { ALL, UP_TO, FROM } which;
    index shift;
} Seen;

// c = a·b, or c + a·b, or c·keep + a·b with a number of each row, of those steps of the depth that a row sees.
typedef struct {
    const A *a, *b, *keep;
    A *c;
    index a_row, a_depth, b_depth, c_row; // strides; columns are next to each other in b and c
    index depth;
    Seen seen;
    int adds;
} Product;

INLINE index within(index value, index end) { return least(most(value, 0), end); }

// Take a step in depth, for the rows from `first` to `last` - 1.
INLINE void add_step(const int rows, const int vectors, vec sum[ROWS][VECTORS], const A *a, index a_row, const A *b,
                     index first, index last) {
    vec right[VECTORS];
    UNROLL for (int v = 0; v < vectors; ++v) right[v] = load_sums(b + v * LANES);
    UNROLL for (int r = 0; r < rows; ++r) if (first <= r && r < last)
        UNROLL for (int v = 0; v < vectors; ++v) sum[r][v] = fma(all(a[r * a_row]), right[v], sum[r][v]);
}

INLINE void multiply(const int rows, const int vectors, const Product *p, index row) {
    const index a_row = p->a_row, a_depth = p->a_depth, b_depth = p->b_depth, depth = p->depth;
    const index edge = row + p->seen.shift;
    const int which = p->seen.which;
    const index first = which == FROM ? within(edge, depth) : 0; // the first step that some row takes
    const index whole = which == FROM ? within(edge + rows - 1, depth) : 0; // that all rows take
    const index whole_end = which == UP_TO ? within(edge + 1, depth) : depth;
    const index end = which == UP_TO ? within(edge + rows, depth) : depth;
    const A *a = p->a + row * a_row + first * a_depth, *b = p->b + first * b_depth;
    vec sum[ROWS][VECTORS];
    UNROLL for (int r = 0; r < rows; ++r) UNROLL for (int v = 0; v < vectors; ++v) sum[r][v] = all(0);
    index k = first;
#define STEPS(stop, from, to)                                                                                          \
    _Pragma("clang loop unroll(disable)") for (; k < stop; ++k, a += a_depth, b += b_depth)                             \
        add_step(rows, vectors, sum, a, a_row, b, from, to);
    STEPS(whole, 0, k - edge + 1)
    STEPS(whole_end, 0, rows)
    STEPS(end, k - edge, rows)
    UNROLL for (int r = 0; r < rows; ++r) UNROLL for (int v = 0; v < vectors; ++v) {
        A *to = p->c + (row + r) * p->c_row + v * LANES;
        if (p->keep) sum[r][v] += load_sums(to) * all(p->keep[row + r]);
        else if (p->adds) sum[r][v] += load_sums(to);
        store_sums(to, sum[r][v]);
    }
}

INLINE void rows_of(const int vectors, const Product *p, index row, index last) {
    for (int rows; row < last; row += rows) {
        rows = tall(last - row);
        if (rows == 6) multiply(6, vectors, p, row);
        else if (rows == 4) multiply(4, vectors, p, row);
        else if (rows == 2) multiply(2, vectors, p, row);
        else multiply(1, vectors, p, row);
    }
}

// Compute rows from `row` to `last` - 1 of a product, and up to WIDTH of its columns.
static void multiply_rows(const Product *p, index columns, index row, index last) {
    const index vectors = (columns + LANES - 1) / LANES;
    if (vectors == 1) rows_of(1, p, row, last);
    else if (vectors == 2) rows_of(2, p, row, last);
    else if (VECTORS > 2 && vectors == 3) rows_of(3, p, row, last);
    else if (VECTORS > 2) rows_of(4, p, row, last);
}

// Compute `rows` rows of a product, and all its columns, `padded`.
static void multiply_all(Product p, index rows, index padded) {
    for (index column = 0; column < padded; column += WIDTH, p.b += WIDTH, p.c += WIDTH)
        multiply_rows(&p, least(padded - column, WIDTH), 0, rows);
}
