// Gradients of batch normalization of the columns of an (M, C) matrix. core/column_tiles.cu, put before this file, says
// how threads map to the matrix, and why the results are deterministic.
//
// Where a ReLU follows the normalization, the kernels compute again where its input is positive, with the same
// operations as the forward, instead of reading a mask.
//
// Least bytes: sums of gradients 2·M·C·sizeof(T); gradient 3·M·C·sizeof(T). The partial results are a small share of
// that.

// The lanes' sums of each column; lane 0 gets the result.
__device__ __forceinline__ ACC added_lanes(ACC own, int width) {
    __shared__ ACC sums[MOST_THREADS];
    const int t = threadIdx.x;
    for (int half = blockDim.x / 2; half >= width; half /= 2) {
        sums[t] = own;
        __syncthreads();
        if (t < half) own += sums[t + half];
        __syncthreads();
    }
    return own;
}

// The gradient of the normalization's output from that of the ReLU behind it, if there is one.
__device__ __forceinline__ ACC unrectified(ACC dy, ACC x, ACC center, ACC scale, ACC shift, int relu) {
    return relu && !(stored(normalized(x, center, scale, shift)) > 0) ? (ACC)0 : dy;
}

// Stage 1 of the gradients' sums: Σ dy·(x - mean) and Σ dy (ranges, C).
extern "C" __global__ void batch_norm_products(
    const T *__restrict__ dy /* rows * channels */, const T *__restrict__ x /* rows * channels */,
    const ACC *__restrict__ mean /* channels */, const ACC *__restrict__ inverse /* channels */,
    const T *__restrict__ gamma /* channels */, const T *__restrict__ beta /* channels */, ACC *__restrict__ products,
    ACC *__restrict__ sums, INDEX tiles, INDEX rows, int channels, int width, INDEX range_rows, int relu) {
    for (INDEX tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const Tile at = tile_of(tile, rows, channels, width, range_rows);
        const int c = at.channel < channels ? at.channel : 0;
        const ACC center = mean[c], scale = inverse[c] * widen(gamma[c]), shift = widen(beta[c]);
        ACC product = 0, sum = 0;
#pragma unroll 4
        for (INDEX row = at.begin + at.lane; row < at.end; row += at.lanes) {
            const INDEX i = row * channels + at.channel;
            const ACC number = widen(x[i]);
            const ACC upstream = unrectified(widen(dy[i]), number, center, scale, shift, relu);
            product += upstream * (number - center);
            sum += upstream;
        }
        product = added_lanes(product, width);
        sum = added_lanes(sum, width);
        if (at.lane == 0 && at.channel < channels) {
            const INDEX out = at.begin / range_rows * channels + at.channel;
            products[out] = product;
            sums[out] = sum;
        }
    }
}

// Stage 2: a column's sum of what its ranges left, over which lanes go; lane 0 gets the result.
template <class Number>
__device__ __forceinline__ ACC sum_of_ranges(const Number *parts, Tile at, int channels, int width, int ranges) {
    ACC sum = 0;
    if (at.channel < channels) {
#pragma unroll 4
        for (int range = at.lane; range < ranges; range += at.lanes)
            sum += widen(parts[(INDEX)range * channels + at.channel]);
    }
    return added_lanes(sum, width);
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

// What the gradient's pass computes with, for each column of a tile.
struct Columns {
    ACC center[TILE_COLUMNS], scale[TILE_COLUMNS], shift[TILE_COLUMNS], slope[TILE_COLUMNS], level[TILE_COLUMNS];
};

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
