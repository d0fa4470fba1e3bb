// What convolution.cu does with the sums of a block's tile: moments for a batch normalization, ReLU, and writing. Put
// behind tensor_cores.cu.
#if TENSOR_CORES

// Writes two neighbouring numbers of the result, with ReLU: of `out` columns in all, from `column` on.
__device__ __forceinline__ void store(
    T *to, unsigned char *positive, float first, float second, int column, int out, bool together) {
    const float values[2] = {first, second};
    T numbers[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        narrow(values[i], numbers[i]);
        if (positive) {  // of the rounded number, as ReLU after the convolution sees it
            const float rounded = widen(numbers[i]);
            if (column + i < out) positive[i] = rounded > 0;
            narrow(rounded <= 0 ? 0.0f : rounded, numbers[i]);  // a NaN passes; -0 becomes 0
        }
    }
    if (together && column + 1 < out) {
        struct alignas(2 * sizeof(T)) Pair { T first, second; };
        *(Pair *)to = {numbers[0], numbers[1]};
    } else {
        if (column < out) to[0] = numbers[0];
        if (column + 1 < out) to[1] = numbers[1];
    }
}

// Sums over the rows of a tile, of a number for each of a thread's columns: over the lanes and warps that have the same
// columns, in one order. Every thread gets those of its own columns; `room` is for WM·BN numbers.
__device__ __forceinline__ void sum_rows(float (&own)[COLUMN_TILES][2], float *room) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, column = warp / WM * 8 * COLUMN_TILES + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < COLUMN_TILES; ++j)
#pragma unroll
        for (int k = 0; k < 2; ++k) {
#pragma unroll
            for (int step = 4; step < 32; step *= 2) own[j][k] += __shfl_xor_sync(0xffffffffu, own[j][k], step);
            if (lane < 4) room[warp % WM * BN + column + 8 * j + k] = own[j][k];
        }
    __syncthreads();  // of all warps
#pragma unroll
    for (int j = 0; j < COLUMN_TILES; ++j)
#pragma unroll
        for (int k = 0; k < 2; ++k) {
            own[j][k] = 0;
#pragma unroll
            for (int w = 0; w < WM; ++w) own[j][k] += room[w * BN + column + 8 * j + k];
        }
}

// Leaves the moments of the first `rows` of a block's tile, for its columns of which there are `columns`: the squares
// are of deviations from the mean, as E[x²] - E[x]² would cancel. `room` is for 2·WM·BN numbers.
__device__ __forceinline__ void leave_moments(
    const float (&sums)[ROW_TILES][COLUMN_TILES][4], float *means, float *squares, float *room, int rows, int columns) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row = warp % WM * 16 * ROW_TILES + lane / 4;
    float mean[COLUMN_TILES][2] = {}, square[COLUMN_TILES][2] = {};
#pragma unroll
    for (int i = 0; i < ROW_TILES * 2 * COLUMN_TILES * 2; ++i) {
        const int k = i % 2, j = i / 2 % COLUMN_TILES, half = i / 2 / COLUMN_TILES % 2, r = i / 4 / COLUMN_TILES;
        if (row + 16 * r + 8 * half < rows) mean[j][k] += sums[r][j][2 * half + k];
    }
    sum_rows(mean, room);
#pragma unroll
    for (int j = 0; j < COLUMN_TILES; ++j) mean[j][0] /= rows, mean[j][1] /= rows;
#pragma unroll
    for (int i = 0; i < ROW_TILES * 2 * COLUMN_TILES * 2; ++i) {
        const int k = i % 2, j = i / 2 % COLUMN_TILES, half = i / 2 / COLUMN_TILES % 2, r = i / 4 / COLUMN_TILES;
        const float deviation = sums[r][j][2 * half + k] - mean[j][k];
        if (row + 16 * r + 8 * half < rows) square[j][k] += deviation * deviation;
    }
    sum_rows(square, room + WM * BN);
    if (warp % WM || lane >= 4) return;  // these have every column once
#pragma unroll
    for (int i = 0; i < COLUMN_TILES * 2; ++i) {
        const int n = warp / WM * 8 * COLUMN_TILES + i / 2 * 8 + lane % 4 * 2 + i % 2;
        if (n < columns) means[n] = mean[i / 2][i % 2], squares[n] = square[i / 2][i % 2];
    }
}

#endif  // TENSOR_CORES
