// Batch normalization of the columns of an (M, C) matrix: statistics, normalization, gradients.
//
// The matrix is cut into tiles of `width` columns (a power of two up to 32) by `range_rows` rows. A block of threads
// works on one tile, or on several in turn: thread t has column t % width and every lanes-th row, from t / width, where
// lanes = block / width. For 32 columns and more a warp reads a run of 32 numbers; for fewer it reads several rows
// that follow one another in memory: reads are coalesced either way.
//
// Deterministic: column sums are made in two stages without atomics. Stage 1 leaves a partial result for each range
// and column; stage 2 puts the ranges together. Within a thread terms come in ascending order, the lanes of a block
// are combined in a fixed tree, and the cut into ranges depends on M and C alone.
//
// The arrays of the second stages' kernels are of the type of sums: T is that type where they are launched.
//
// Least bytes: statistics M·C·sizeof(T); normalization and sums of gradients 2·M·C·sizeof(T); gradient
// 3·M·C·sizeof(T). The partial results are a small share of that.

#define MOST_THREADS 256
#define CHUNK 8  // rows that a thread holds in registers: so many reads are under way at once

// The part of a tile that a thread works on.
struct Tile {
    int channel, lane, lanes;
    INDEX begin, end;  // rows
};

__device__ __forceinline__ Tile tile_of(INDEX tile, INDEX rows, int channels, int width, INDEX range_rows) {
    const int across = (channels + width - 1) / width;
    Tile own;
    own.channel = tile % across * width + threadIdx.x % width;
    own.lane = threadIdx.x / width;
    own.lanes = blockDim.x / width;
    own.begin = tile / across * range_rows;
    own.end = rows - own.begin < range_rows ? rows : own.begin + range_rows;
    if (own.channel >= channels) own.end = own.begin;  // no rows: it only meets the others at the barriers
    return own;
}

// Mean and sum of squared deviations from it, of `count` numbers.
struct Moments { ACC count, mean, squares; };

// The moments of two sets together: Chan, Golub and LeVeque, "Algorithms for computing the sample variance" (1983).
__device__ __forceinline__ Moments merged(Moments a, Moments b) {
    if (a.count == 0) return b;
    if (b.count == 0) return a;
    const ACC delta = b.mean - a.mean, count = a.count + b.count, share = b.count / count;
    Moments both;
    both.count = count;
    both.mean = a.mean + delta * share;
    both.squares = a.squares + b.squares + delta * delta * (a.count * share);
    return both;
}

// The lanes' moments of each column; lane 0 gets the result.
__device__ __forceinline__ Moments merged_lanes(Moments own, int width) {
    __shared__ ACC counts[MOST_THREADS], means[MOST_THREADS], squares[MOST_THREADS];
    const int t = threadIdx.x;
    for (int half = blockDim.x / 2; half >= width; half /= 2) {
        counts[t] = own.count;
        means[t] = own.mean;
        squares[t] = own.squares;
        __syncthreads();
        if (t < half) {
            Moments other;
            other.count = counts[t + half];
            other.mean = means[t + half];
            other.squares = squares[t + half];
            own = merged(own, other);
        }
        __syncthreads();
    }
    return own;
}

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

// Stage 1 of the statistics: mean and squares (ranges, C). A thread takes the moments of a few rows at a time by their
// own mean, in two passes over registers, and merges them: nothing cancels, and there is one division for CHUNK rows.
extern "C" __global__ void batch_norm_moments(
    const T *__restrict__ x /* rows * channels */, ACC *__restrict__ means, ACC *__restrict__ squares, INDEX tiles,
    INDEX rows, int channels, int width, INDEX range_rows) {
    for (INDEX tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const Tile at = tile_of(tile, rows, channels, width, range_rows);
        Moments own = {0, 0, 0};
        for (INDEX first = at.begin + at.lane; first < at.end; first += (INDEX)at.lanes * CHUNK) {
            ACC values[CHUNK], sum = 0;
            int count = 0;
#pragma unroll
            for (int k = 0; k < CHUNK; ++k) {
                const INDEX row = first + (INDEX)k * at.lanes;
                values[k] = row < at.end ? widen(x[row * channels + at.channel]) : (ACC)0;
                count += row < at.end;
                sum += values[k];
            }
            Moments next = {(ACC)count, sum / count, 0};
#pragma unroll
            for (int k = 0; k < CHUNK; ++k)
                if (k < count) next.squares += (values[k] - next.mean) * (values[k] - next.mean);
            own = merged(own, next);
        }
        own = merged_lanes(own, width);
        if (at.lane == 0 && at.channel < channels) {
            const INDEX out = at.begin / range_rows * channels + at.channel;
            means[out] = own.mean;
            squares[out] = own.squares;
        }
    }
}

// Stage 2: mean and (biased) variance (C,) from the ranges' moments; lanes go over ranges. The last has last_rows.
extern "C" __global__ void batch_norm_statistics(
    const T *__restrict__ means /* ranges * channels */, const T *__restrict__ squares /* ranges * channels */,
    T *__restrict__ mean /* channels */, T *__restrict__ variance /* channels */, INDEX tiles, int channels, int width,
    int ranges, ACC range_rows, ACC last_rows) {
    for (INDEX tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const Tile at = tile_of(tile, ranges, channels, width, ranges);
        Moments own = {0, 0, 0};
        for (int range = at.lane; range < at.end; range += at.lanes) {
            const INDEX in = (INDEX)range * channels + at.channel;
            const Moments next = {range < ranges - 1 ? range_rows : last_rows, widen(means[in]), widen(squares[in])};
            own = merged(own, next);
        }
        own = merged_lanes(own, width);
        if (at.lane == 0 && at.channel < channels) {
            narrow(own.mean, mean[at.channel]);
            narrow(own.squares / own.count, variance[at.channel]);
        }
    }
}

// y = γ·(x - mean)·inverse + β with inverse = 1 / √(variance + ε), which the threads of the first range write.
extern "C" __global__ void batch_norm_normalize(
    const T *__restrict__ x /* rows * channels */, const ACC *__restrict__ mean /* channels */,
    const ACC *__restrict__ variance /* channels */, const T *__restrict__ gamma /* channels */,
    const T *__restrict__ beta /* channels */, T *__restrict__ y /* rows * channels */,
    ACC *__restrict__ inverse /* channels */, ACC epsilon, INDEX tiles, INDEX rows, int channels, int width,
    INDEX range_rows) {
    for (INDEX tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const Tile at = tile_of(tile, rows, channels, width, range_rows);
        if (at.channel >= channels) continue;
        const ACC center = mean[at.channel], shift = widen(beta[at.channel]);
        const ACC own_inverse = 1 / sqrt(variance[at.channel] + epsilon);
        const ACC scale = own_inverse * widen(gamma[at.channel]);
        if (at.begin == 0 && at.lane == 0) inverse[at.channel] = own_inverse;
#pragma unroll 4
        for (INDEX row = at.begin + at.lane; row < at.end; row += at.lanes) {
            const INDEX i = row * channels + at.channel;
            narrow((widen(x[i]) - center) * scale + shift, y[i]);
        }
    }
}

// Stage 1 of the gradients' sums: Σ dy·(x - mean) and Σ dy (ranges, C).
extern "C" __global__ void batch_norm_products(
    const T *__restrict__ dy /* rows * channels */, const T *__restrict__ x /* rows * channels */,
    const ACC *__restrict__ mean /* channels */, ACC *__restrict__ products, ACC *__restrict__ sums, INDEX tiles,
    INDEX rows, int channels, int width, INDEX range_rows) {
    for (INDEX tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const Tile at = tile_of(tile, rows, channels, width, range_rows);
        const ACC center = at.channel < channels ? mean[at.channel] : (ACC)0;
        ACC product = 0, sum = 0;
#pragma unroll 4
        for (INDEX row = at.begin + at.lane; row < at.end; row += at.lanes) {
            const INDEX i = row * channels + at.channel;
            const ACC upstream = widen(dy[i]);
            product += upstream * (widen(x[i]) - center);
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

// Stage 2: dγ = inverse·Σ dy·(x - mean) and dβ = Σ dy, both (C,); lanes go over ranges.
extern "C" __global__ void batch_norm_parameter_gradients(
    const T *__restrict__ products /* ranges * channels */, const T *__restrict__ sums /* ranges * channels */,
    const T *__restrict__ inverse /* channels */, T *__restrict__ dgamma /* channels */,
    T *__restrict__ dbeta /* channels */, INDEX tiles, int channels, int width, int ranges) {
    for (INDEX tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const Tile at = tile_of(tile, ranges, channels, width, ranges);
        ACC product = 0, sum = 0;
        for (int range = at.lane; range < at.end; range += at.lanes) {
            product += widen(products[(INDEX)range * channels + at.channel]);
            sum += widen(sums[(INDEX)range * channels + at.channel]);
        }
        product = added_lanes(product, width);
        sum = added_lanes(sum, width);
        if (at.lane == 0 && at.channel < channels) {
            narrow(product * widen(inverse[at.channel]), dgamma[at.channel]);
            narrow(sum, dbeta[at.channel]);
        }
    }
}

// dx = γ·inverse·(dy - dβ/M - (x - mean)·inverse·dγ/M).
extern "C" __global__ void batch_norm_backward(
    const T *__restrict__ dy /* rows * channels */, const T *__restrict__ x /* rows * channels */,
    const ACC *__restrict__ mean /* channels */, const ACC *__restrict__ inverse /* channels */,
    const T *__restrict__ gamma /* channels */, const ACC *__restrict__ dgamma /* channels */,
    const ACC *__restrict__ dbeta /* channels */, T *__restrict__ dx /* rows * channels */, INDEX tiles, INDEX rows,
    int channels, int width, INDEX range_rows) {
    for (INDEX tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const Tile at = tile_of(tile, rows, channels, width, range_rows);
        if (at.begin >= at.end) continue;
        const ACC center = mean[at.channel], slope = inverse[at.channel] * dgamma[at.channel] / rows;
        const ACC shift = dbeta[at.channel] / rows, scale = inverse[at.channel] * widen(gamma[at.channel]);
#pragma unroll 4
        for (INDEX row = at.begin + at.lane; row < at.end; row += at.lanes) {
            const INDEX i = row * channels + at.channel;
            narrow((widen(dy[i]) - (widen(x[i]) - center) * slope - shift) * scale, dx[i]);
        }
    }
}
