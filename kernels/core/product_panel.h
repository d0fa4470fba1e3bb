// How gemm.c multiplies rows of a by a panel of b: a run of the depth by up to WIDTH columns.
//
// A tile of ROWS rows by VECTORS vectors of sums stays in registers. The panel's last columns may be half a vector. Sums
// of the runs before lie where the tile's do, and are added at the end.
#pragma once

#include "product_packing.h"

enum { STEPS = VECTOR_BYTES == 32 ? 4 : 1 }; // in depth that a whole tile takes without a branch

typedef A narrow __attribute__((vector_size(VECTOR_BYTES / 2), aligned(sizeof(A)), may_alias)); // half a vector

typedef struct {
    const T *a, *packed;               // NULL, or rows of a from `packed_from` on, side by side in each tile
    index a_row, a_depth, packed_from; // strides of a
    const A *b;
    index b_depth; // stride of the panel
    index depth;
    const T *bias; // NULL or `width` numbers
    T *c;
    unsigned char *positive; // as c; or NULL
    A *sums; // between two runs, as c
    index c_row, c_column; // strides of c: one of them is 1
    int width; // columns of the panel
    int is_first, is_last; // of the runs
} Panel;

// Take a step in depth. How many rows and vectors, and whether half a vector more, are constants where this is inlined.
INLINE void add_step(const int rows, const int vectors, const int half, vec sum[ROWS][VECTORS], narrow rest[ROWS],
                     const T *a, index a_row, const A *b) {
    vec right[VECTORS];
    narrow last;
    UNROLL for (int v = 0; v < vectors; ++v) right[v] = load_sums(b + v * LANES);
    if (half) last = *(const narrow *)(b + vectors * LANES);
    UNROLL for (int r = 0; r < rows; ++r) {
        const A left = get(a + r * a_row);
        UNROLL for (int v = 0; v < vectors; ++v) sum[r][v] = fma(all(left), right[v], sum[r][v]);
        if (half) rest[r] = __builtin_elementwise_fma(left - (narrow){0}, last, rest[r]);
    }
}

// Multiply rows of a by a panel.
INLINE void multiply(const int rows, const int vectors, const int half, const Panel *p, index row, A *total,
                     index stride) {
    const index a_row = p->packed ? 1 : p->a_row, a_depth = p->packed ? rows : p->a_depth, b_depth = p->b_depth;
    const T *a = p->packed ? p->packed + (row - p->packed_from) * RUN : p->a + row * a_row;
    const A *b = p->b;
    vec sum[ROWS][VECTORS];
    narrow rest[ROWS];
    UNROLL for (int r = 0; r < rows; ++r) {
        UNROLL for (int v = 0; v < vectors; ++v) sum[r][v] = all(0);
        rest[r] = (narrow){0};
    }
    index k = 0;
    if (rows == ROWS && STEPS > 1)
        for (; k + STEPS <= p->depth; k += STEPS)
            UNROLL for (int step = 0; step < STEPS; ++step, a += a_depth, b += b_depth)
                add_step(rows, vectors, half, sum, rest, a, a_row, b);
#pragma clang loop unroll(disable)
    for (; k < p->depth; ++k, a += a_depth, b += b_depth) add_step(rows, vectors, half, sum, rest, a, a_row, b);
    UNROLL for (int r = 0; r < rows; ++r) {
        UNROLL for (int v = 0; v < vectors; ++v) {
            A *to = total + r * stride + v * LANES;
            store_sums(to, p->is_first ? sum[r][v] : load_sums(to) + sum[r][v]);
        }
        narrow *to = (narrow *)(total + r * stride + vectors * LANES);
        if (half) *to = p->is_first ? rest[r] : *to + rest[r];
    }
}
