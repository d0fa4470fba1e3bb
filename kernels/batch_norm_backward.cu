// Gradients of batch normalization of the columns of an (M, C) matrix. core/column_tiles.cu, put before this file, says
// how threads map to the matrix, and why the results are deterministic.
//
// Where a ReLU follows the normalization, the kernels compute again where its input is positive, with the same
// operations as the forward, instead of reading a mask.
//
// Least bytes: sums of gradients 2·M·C·sizeof(T); gradient 3·M·C·sizeof(T). The partial results are a small share of
// that.

// The lanes' sums of MANY columns each, of `threads` in a row; lane 0 gets the result.
template <int MANY>
__device__ __forceinline__ void add_lanes(ACC (&own)[MANY], int threads) {
    __shared__ ACC sums[MANY * MOST_THREADS];
    const int t = threadIdx.x;
    for (int half = blockDim.x / 2; half >= threads; half /= 2) {
#pragma unroll
        for (int k = 0; k < MANY; ++k) sums[k * MOST_THREADS + t] = own[k];
        __syncthreads();
        if (t < half) {
#pragma unroll
            for (int k = 0; k < MANY; ++k) own[k] += sums[k * MOST_THREADS + t + half];
        }
        __syncthreads();
    }
}

// The gradient of the normalization's output from that of the ReLU behind it, if there is one.
__device__ __forceinline__ ACC unrectified(ACC dy, ACC x, ACC center, ACC scale, ACC shift, int relu) {
    return relu && !(stored(normalized(x, center, scale, shift)) > 0) ? (ACC)0 : dy;
}

// What is computed with, for each column of a tile: the last two for the gradient only.
struct Columns {
    ACC center[TILE_COLUMNS], scale[TILE_COLUMNS], shift[TILE_COLUMNS], slope[TILE_COLUMNS], level[TILE_COLUMNS];
};

// Stage 1 of the gradients' sums: Σ dy·(x - mean) and Σ dy (ranges, C).
template <int MANY, bool WHOLE>
__device__ __forceinline__ void products_of(
    const T *__restrict__ dy, const T *__restrict__ x, const ACC *__restrict__ mean, const ACC *__restrict__ inverse,
    const T *__restrict__ gamma, const T *__restrict__ beta, ACC *__restrict__ products, ACC *__restrict__ sums,
    INDEX tiles, INDEX rows, int channels, int width, INDEX range_rows, int relu) {
    __shared__ Columns by;
    for (INDEX tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const Part at = part_of<MANY>(tile, rows, channels, width, range_rows);
        const int t = threadIdx.x, c = at.channel - at.column + t;
        if (t < width && c < channels) {
            by.center[t] = mean[c];
            by.scale[t] = inverse[c] * widen(gamma[c]);
            by.shift[t] = widen(beta[c]);
        }
        __syncthreads();
        ACC center[MANY], scale[MANY], shift[MANY], product_and_sum[2 * MANY] = {};
#pragma unroll
        for (int k = 0; k < MANY; ++k) {
            center[k] = by.center[at.column + k];
            scale[k] = by.scale[at.column + k];
            shift[k] = by.shift[at.column + k];
        }
#pragma unroll 4
        for (INDEX row = at.first; row < at.end; row += at.step) {
            const INDEX i = row * channels + at.channel;
            const Numbers<MANY> given = row_at<MANY, WHOLE>(x + i), upstreams = row_at<MANY, WHOLE>(dy + i);
#pragma unroll
            for (int k = 0; k < MANY; ++k) {
                const ACC number = widen(given.at[k]);
                const ACC upstream = unrectified(widen(upstreams.at[k]), number, center[k], scale[k], shift[k], relu);
                product_and_sum[2 * k] += upstream * (number - center[k]);
                product_and_sum[2 * k + 1] += upstream;
            }
        }
        add_lanes<2 * MANY>(product_and_sum, width / MANY);
        if (threadIdx.x < width / MANY && at.channel < channels) {
            const INDEX out = tile / ((channels + width - 1) / width) * channels + at.channel;
#pragma unroll
            for (int k = 0; k < MANY; ++k) {
                products[out + k] = product_and_sum[2 * k];
                sums[out + k] = product_and_sum[2 * k + 1];
            }
        }
        __syncthreads();  // before the next tile's columns
    }
}

extern "C" __global__ void batch_norm_products(
    const T *__restrict__ dy /* rows * channels */, const T *__restrict__ x /* rows * channels */,
    const ACC *__restrict__ mean /* channels */, const ACC *__restrict__ inverse /* channels */,
    const T *__restrict__ gamma /* channels */, const T *__restrict__ beta /* channels */, ACC *__restrict__ products,
    ACC *__restrict__ sums, INDEX tiles, INDEX rows, int channels, int width, INDEX range_rows, int relu) {
#define PRODUCTS(MANY, WHOLE)                                                                                          \
    products_of<MANY, WHOLE>(                                                                                          \
        dy, x, mean, inverse, gamma, beta, products, sums, tiles, rows, channels, width, range_rows, relu)
    if (is_together(channels, dy, x)) PRODUCTS(TOGETHER, true);
    else if (channels % TOGETHER == 0) PRODUCTS(TOGETHER, false);
    else PRODUCTS(1, false);
}

// Stage 2: a column's sum of what its ranges left, over which lanes go; lane 0 gets the result.
template <class Number>
__device__ __forceinline__ ACC sum_of_ranges(const Number *parts, Tile at, int channels, int width, int ranges) {
    ACC sum[1] = {};
    if (at.channel < channels) {
#pragma unroll 4
        for (int range = at.lane; range < ranges; range += at.lanes)
            sum[0] += widen(parts[(INDEX)range * channels + at.channel]);
    }
    add_lanes<1>(sum, width);
    return sum[0];
}

// dγ = inverse·Σ dy·(x - mean) and dβ = Σ dy, both (C,).
extern "C" __global__ void batch_norm_parameter_gradients(
    const T *__restrict__ products /* ranges * channels */, const T *__restrict__ sums /* ranges * channels */,
    const T *__restrict__ inverse /* channels */, T *__restrict__ dgamma /* channels */,
    T *__restrict__ dbeta /* channels */, INDEX tiles, int channels, int width, int ranges) {
    for (INDEX tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const Tile at = tile_of(tile, ranges, channels, width, ranges);
        const ACC product = sum_of_ranges(products, at, channels, width, ranges);
        const ACC sum = sum_of_ranges(sums, at, channels, width, ranges);
        if (at.lane == 0 && at.channel < channels) {
            narrow(product * widen(inverse[at.channel]), dgamma[at.channel]);
            narrow(sum, dbeta[at.channel]);
        }
    }
}

template <int MANY>
__device__ __forceinline__ void pass(
    const Columns &by, const T *__restrict__ dy, const T *__restrict__ x, T *__restrict__ dx, const Part at,
    int channels, int relu) {
    ACC center[MANY], scale[MANY], shift[MANY], slope[MANY], level[MANY];
#pragma unroll
    for (int k = 0; k < MANY; ++k) {
        center[k] = by.center[at.column + k];
        scale[k] = by.scale[at.column + k];
        shift[k] = by.shift[at.column + k];
        slope[k] = by.slope[at.column + k];
        level[k] = by.level[at.column + k];
    }
#pragma unroll 2
    for (INDEX row = at.first; row < at.end; row += at.step) {
        const INDEX i = row * channels + at.channel;
        const Numbers<MANY> given = numbers_at<MANY>(x + i), upstreams = numbers_at<MANY>(dy + i);
        Numbers<MANY> made;
#pragma unroll
        for (int k = 0; k < MANY; ++k) {
            const ACC number = widen(given.at[k]);
            const ACC upstream = unrectified(widen(upstreams.at[k]), number, center[k], scale[k], shift[k], relu);
            narrow((upstream - (number - center[k]) * slope[k] - level[k]) * scale[k], made.at[k]);
        }
        *(Numbers<MANY> *)(dx + i) = made;
    }
}

// dγ and dβ from the ranges' sums, which the threads of the first range write, and
// dx = γ·inverse·(dy - dβ/M - (x - mean)·inverse·dγ/M).
extern "C" __global__ void batch_norm_backward(
    const T *__restrict__ dy /* rows * channels */, const T *__restrict__ x /* rows * channels */,
    const ACC *__restrict__ mean /* channels */, const ACC *__restrict__ inverse /* channels */,
    const T *__restrict__ gamma /* channels */, const T *__restrict__ beta /* channels */,
    const ACC *__restrict__ products /* ranges * channels */, const ACC *__restrict__ sums /* ranges * channels */,
    ACC *__restrict__ dgamma /* channels */, ACC *__restrict__ dbeta /* channels */,
    T *__restrict__ dx /* rows * channels */, INDEX tiles, INDEX rows, int channels, int width, INDEX pass_rows,
    int ranges, int relu) {
    __shared__ Columns by;
    for (INDEX tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const Tile at = tile_of(tile, rows, channels, width, pass_rows);
        const ACC product = sum_of_ranges(products, at, channels, width, ranges);
        const ACC sum = sum_of_ranges(sums, at, channels, width, ranges);
        if (at.lane == 0 && at.channel < channels) {
            const int c = at.channel;
            const ACC own_inverse = inverse[c], along = product * own_inverse;
            by.center[threadIdx.x] = mean[c];
            by.scale[threadIdx.x] = own_inverse * widen(gamma[c]);
            by.shift[threadIdx.x] = widen(beta[c]);
            by.slope[threadIdx.x] = own_inverse * along / rows;
            by.level[threadIdx.x] = sum / rows;
            if (at.begin == 0) {
                dgamma[c] = along;
                dbeta[c] = sum;
            }
        }
        __syncthreads();
        if (is_together(channels, dy, x, dx))
            pass<TOGETHER>(
                by, dy, x, dx, part_of<TOGETHER>(tile, rows, channels, width, pass_rows), channels, relu);
        else
            pass<1>(by, dy, x, dx, part_of<1>(tile, rows, channels, width, pass_rows), channels, relu);
        __syncthreads();  // before the next tile's columns
    }
}
