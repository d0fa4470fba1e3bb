// How the tiles of matrix products lie in registers: ROWS rows by VECTORS vectors of sums, in gemm.c and attention.c.
#pragma once

#include "vectors.h"

#define ALIGNED __attribute__((aligned(VECTOR_BYTES))) // else a vector's load takes two lines of the cache

enum {
    VECTORS = TILE_VECTORS,
    ROWS = 6,
    WIDTH = VECTORS * LANES,
};

// Rows of the next tile: 8 left are 4 and 4, as a tile of 2 takes as long as one of 4.
INLINE int tall(index left) { return left >= 6 && left != 8 ? 6 : left >= 4 ? 4 : left >= 2 ? 2 : 1; }
