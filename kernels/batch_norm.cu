// Batch normalization of the columns of an (M, C) matrix: statistics and normalization. core/column_tiles.cu, put before
// this file, says how threads map to the matrix, and why the results are deterministic.
//
// The pass of training also adds the bypass of a residual block and applies a ReLU: neither costs a pass of its own.
//
// Least bytes: statistics M·C·sizeof(T); normalization 2·M·C·sizeof(T), with a bypass M·C·(3·sizeof(T) + 1). The partial
// results are a small share of that.

#define CHUNK 8  // rows that a thread holds in registers, or half as many: so many reads are under way at once

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

// The lanes' moments of each of MANY columns, of `threads` in a row; lane 0 gets the result.
template <int MANY>
__device__ __forceinline__ void merge_lanes(Moments (&own)[MANY], int threads) {
    __shared__ ACC counts[MOST_THREADS], means[MANY * MOST_THREADS], squares[MANY * MOST_THREADS];
    const int t = threadIdx.x;
    for (int half = blockDim.x / 2; half >= threads; half /= 2) {
        counts[t] = own[0].count;  // as that of its neighbours
#pragma unroll
        for (int k = 0; k < MANY; ++k) {
            means[k * MOST_THREADS + t] = own[k].mean;
            squares[k * MOST_THREADS + t] = own[k].squares;
        }
        __syncthreads();
        if (t < half) {
#pragma unroll
            for (int k = 0; k < MANY; ++k) {
                Moments other;
                other.count = counts[t + half];
                other.mean = means[k * MOST_THREADS + t + half];
                other.squares = squares[k * MOST_THREADS + t + half];
                own[k] = merged(own[k], other);
            }
        }
        __syncthreads();
    }
}

__device__ __forceinline__ ACC inverse_deviation(ACC variance, ACC epsilon) { return 1 / sqrt(variance + epsilon); }

// Stage 1 of the statistics: mean and squares (ranges, C). A thread takes the moments of a few rows at a time by their
// own mean, in two passes over registers, and merges them: nothing cancels, and there is one division for CHUNK rows.
template <int MANY, bool WHOLE>
__device__ __forceinline__ void moments_of(
    const T *__restrict__ x, ACC *__restrict__ means, ACC *__restrict__ squares, INDEX tiles, INDEX rows, int channels,
    int width, INDEX range_rows) {
    constexpr int ROWS = MANY > 4 ? CHUNK / 2 : CHUNK;
    for (INDEX tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const Part at = part_of<MANY>(tile, rows, channels, width, range_rows);
        Moments own[MANY];
#pragma unroll
        for (int k = 0; k < MANY; ++k) own[k] = {0, 0, 0};
        for (INDEX first = at.first; first < at.end; first += at.step * ROWS) {
            Numbers<MANY> values[ROWS] = {};
            int count = 0;
#pragma unroll
            for (int r = 0; r < ROWS; ++r) {
                const INDEX row = first + r * at.step;
                if (row < at.end) values[r] = row_at<MANY, WHOLE>(x + row * channels + at.channel), ++count;
            }
#pragma unroll
            for (int k = 0; k < MANY; ++k) {
                ACC sum = 0;
#pragma unroll
                for (int r = 0; r < ROWS; ++r)
                    if (r < count) sum += widen(values[r].at[k]);
                Moments next = {(ACC)count, sum / count, 0};
#pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    const ACC deviation = widen(values[r].at[k]) - next.mean;
                    if (r < count) next.squares += deviation * deviation;
                }
                own[k] = merged(own[k], next);
            }
        }
        merge_lanes<MANY>(own, width / MANY);
        if (threadIdx.x < width / MANY && at.channel < channels) {
            const INDEX out = tile / ((channels + width - 1) / width) * channels + at.channel;
#pragma unroll
            for (int k = 0; k < MANY; ++k) {
                means[out + k] = own[k].mean;
                squares[out + k] = own[k].squares;
            }
        }
    }
}

extern "C" __global__ void batch_norm_moments(
    const T *__restrict__ x /* rows * channels */, ACC *__restrict__ means, ACC *__restrict__ squares, INDEX tiles,
    INDEX rows, int channels, int width, INDEX range_rows) {
    if (is_together(channels, x, 0)) moments_of<TOGETHER, true>(x, means, squares, tiles, rows, channels, width, range_rows);
    else if (channels % TOGETHER == 0)
        moments_of<TOGETHER, false>(x, means, squares, tiles, rows, channels, width, range_rows);
    else moments_of<1, false>(x, means, squares, tiles, rows, channels, width, range_rows);
}

// Stage 2: the moments of a column from those of its ranges, over which lanes go, from `first` to `end` - 1; lane 0 gets
// the result. All ranges but the last of `ranges` have range_rows rows.
template <class Number>
__device__ __forceinline__ Moments of_ranges(
    const Number *means, const Number *squares, Tile at, int channels, int width, int first, int end, int ranges,
    ACC range_rows, ACC last_rows) {
    Moments own[1] = {{0, 0, 0}};
    if (at.channel < channels) {
#pragma unroll 4
        for (int range = first + at.lane; range < end; range += at.lanes) {
            const INDEX in = (INDEX)range * channels + at.channel;
            const Moments next = {range < ranges - 1 ? range_rows : last_rows, widen(means[in]), widen(squares[in])};
            own[0] = merged(own[0], next);
        }
    }
    merge_lanes<1>(own, width);
    return own[0];
}

// Mean and (biased) variance (C,) from the ranges' moments.
extern "C" __global__ void batch_norm_statistics(
    const T *__restrict__ means /* ranges * channels */, const T *__restrict__ squares /* ranges * channels */,
    T *__restrict__ mean /* channels */, T *__restrict__ variance /* channels */, INDEX tiles, int channels, int width,
    int ranges, ACC range_rows, ACC last_rows) {
    for (INDEX tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const Tile at = tile_of(tile, ranges, channels, width, ranges);
        const Moments own = of_ranges(means, squares, at, channels, width, 0, ranges, ranges, range_rows, last_rows);
        if (at.lane == 0 && at.channel < channels) {
            narrow(own.mean, mean[at.channel]);
            narrow(own.squares / own.count, variance[at.channel]);
        }
    }
}

// The moments of `together` ranges each, which are ranges in turn: where there are more than a pass should read.
extern "C" __global__ void batch_norm_join(
    const T *__restrict__ means /* ranges * channels */, const T *__restrict__ squares /* ranges * channels */,
    T *__restrict__ joined_means, T *__restrict__ joined_squares, INDEX tiles, int channels, int width, int ranges,
    INDEX together, ACC range_rows, ACC last_rows) {
    for (INDEX tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const Tile at = tile_of(tile, ranges, channels, width, together);
        const Moments own =
            of_ranges(means, squares, at, channels, width, at.begin, at.end, ranges, range_rows, last_rows);
        if (at.lane == 0 && at.channel < channels) {
            const INDEX out = at.begin / together * channels + at.channel;
            narrow(own.mean, joined_means[out]);
            narrow(own.squares, joined_squares[out]);
        }
    }
}

// What a pass computes with, for each column of a tile.
struct Columns { ACC center[TILE_COLUMNS], scale[TILE_COLUMNS], shift[TILE_COLUMNS]; };

// y = γ·(x - mean)·inverse + β of a tile. With a bypass, y + bypass; then with `relu` max(·, 0), where a NaN passes;
// `positive` tells, unless it is null, where that is above 0.
template <int MANY>
__device__ __forceinline__ void pass(
    const Columns &by, const T *__restrict__ x, const T *__restrict__ bypass, T *__restrict__ y,
    unsigned char *__restrict__ positive, const Part at, int channels, bool relu) {
    ACC center[MANY], scale[MANY], shift[MANY];
#pragma unroll
    for (int k = 0; k < MANY; ++k) {
        center[k] = by.center[at.column + k];
        scale[k] = by.scale[at.column + k];
        shift[k] = by.shift[at.column + k];
    }
#pragma unroll 2
    for (INDEX row = at.first; row < at.end; row += at.step) {
        const INDEX i = row * channels + at.channel;
        const Numbers<MANY> given = numbers_at<MANY>(x + i);
        Numbers<MANY> added = {}, made;
        Flags<MANY> above;
        if (bypass) added = numbers_at<MANY>(bypass + i);
#pragma unroll
        for (int k = 0; k < MANY; ++k) {
            ACC value = stored(normalized(widen(given.at[k]), center[k], scale[k], shift[k]));
            if (bypass) value = stored(value + widen(added.at[k]));
            if (relu && value <= 0) value = 0;
            narrow(value, made.at[k]);
            above.at[k] = value > 0;
        }
        *(Numbers<MANY> *)(y + i) = made;
        if (positive) *(Flags<MANY> *)(positive + i) = above;
    }
}

__device__ __forceinline__ void pass_of(
    const Columns &by, const T *__restrict__ x, const T *__restrict__ bypass, T *__restrict__ y,
    unsigned char *__restrict__ positive, INDEX tile, INDEX rows, int channels, int width, INDEX pass_rows, bool relu) {
    if (is_together(channels, x, y, bypass, positive))
        pass<TOGETHER>(by, x, bypass, y, positive, part_of<TOGETHER>(tile, rows, channels, width, pass_rows), channels,
                       relu);
    else
        pass<1>(by, x, bypass, y, positive, part_of<1>(tile, rows, channels, width, pass_rows), channels, relu);
}

// y = γ·(x - mean)·inverse + β with inverse = 1 / √(variance + ε), which the threads of the first range write.
extern "C" __global__ void batch_norm_normalize(
    const T *__restrict__ x /* rows * channels */, const ACC *__restrict__ mean /* channels */,
    const ACC *__restrict__ variance /* channels */, const T *__restrict__ gamma /* channels */,
    const T *__restrict__ beta /* channels */, T *__restrict__ y /* rows * channels */,
    ACC *__restrict__ inverse /* channels */, ACC epsilon, INDEX tiles, INDEX rows, int channels, int width,
    INDEX range_rows) {
    __shared__ Columns by;
    for (INDEX tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const Tile at = tile_of(tile, rows, channels, width, range_rows);
        if (at.lane == 0 && at.channel < channels) {
            const ACC own_inverse = inverse_deviation(variance[at.channel], epsilon);
            by.center[threadIdx.x] = mean[at.channel];
            by.scale[threadIdx.x] = own_inverse * widen(gamma[at.channel]);
            by.shift[threadIdx.x] = widen(beta[at.channel]);
            if (at.begin == 0) inverse[at.channel] = own_inverse;
        }
        __syncthreads();
        pass_of(by, x, 0, y, 0, tile, rows, channels, width, range_rows, false);
        __syncthreads();  // before the next tile's columns
    }
}

// The pass of training: y with the statistics of the ranges' moments, which the threads of the first range write, and by
// which they move the running statistics: old·momentum + new·rest, each product rounded.
__device__ __forceinline__ void forward_pass(
    const T *__restrict__ x, const T *__restrict__ bypass, const ACC *__restrict__ means,
    const ACC *__restrict__ squares, const T *__restrict__ gamma, const T *__restrict__ beta, T *__restrict__ y,
    unsigned char *__restrict__ positive, ACC *__restrict__ mean, ACC *__restrict__ inverse,
    ACC *__restrict__ running_mean, ACC *__restrict__ running_variance, ACC epsilon, ACC momentum, ACC rest,
    INDEX tiles, INDEX rows, int channels, int width, INDEX pass_rows, int ranges, INDEX range_rows, bool relu) {
    __shared__ Columns by;
    for (INDEX tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const Tile at = tile_of(tile, rows, channels, width, pass_rows);
        const INDEX last_rows = rows - (ranges - 1) * range_rows;
        const Moments own =
            of_ranges(means, squares, at, channels, width, 0, ranges, ranges, (ACC)range_rows, (ACC)last_rows);
        if (at.lane == 0 && at.channel < channels) {
            const int c = at.channel;
            const ACC variance = own.squares / own.count, own_inverse = inverse_deviation(variance, epsilon);
            by.center[threadIdx.x] = own.mean;
            by.scale[threadIdx.x] = own_inverse * widen(gamma[c]);
            by.shift[threadIdx.x] = widen(beta[c]);
            if (at.begin == 0) {
                mean[c] = own.mean;
                inverse[c] = own_inverse;
                running_mean[c] = rounded_product(running_mean[c], momentum) + rounded_product(own.mean, rest);
                running_variance[c] = rounded_product(running_variance[c], momentum) + rounded_product(variance, rest);
            }
        }
        __syncthreads();
        pass_of(by, x, bypass, y, positive, tile, rows, channels, width, pass_rows, relu);
        __syncthreads();  // before the next tile's columns
    }
}

extern "C" __global__ void batch_norm_forward(
    const T *__restrict__ x /* rows * channels */, const ACC *__restrict__ means /* ranges * channels */,
    const ACC *__restrict__ squares /* ranges * channels */, const T *__restrict__ gamma /* channels */,
    const T *__restrict__ beta /* channels */, T *__restrict__ y /* rows * channels */,
    ACC *__restrict__ mean /* channels */, ACC *__restrict__ inverse /* channels */,
    ACC *__restrict__ running_mean /* channels */, ACC *__restrict__ running_variance /* channels */, ACC epsilon,
    ACC momentum, ACC rest, INDEX tiles, INDEX rows, int channels, int width, INDEX pass_rows, int ranges,
    INDEX range_rows, int relu) {
    forward_pass(
        x, 0, means, squares, gamma, beta, y, 0, mean, inverse, running_mean, running_variance, epsilon, momentum, rest,
        tiles, rows, channels, width, pass_rows, ranges, range_rows, relu);
}

// The end of a residual block: with a bypass and a ReLU, whose mask is kept, since the bypass is not.
extern "C" __global__ void batch_norm_forward_added(
    const T *__restrict__ x /* rows * channels */, const T *__restrict__ bypass /* rows * channels */,
    const ACC *__restrict__ means /* ranges * channels */, const ACC *__restrict__ squares /* ranges * channels */,
    const T *__restrict__ gamma /* channels */, const T *__restrict__ beta /* channels */,
    T *__restrict__ y /* rows * channels */, unsigned char *__restrict__ positive /* rows * channels */,
    ACC *__restrict__ mean /* channels */, ACC *__restrict__ inverse /* channels */,
    ACC *__restrict__ running_mean /* channels */, ACC *__restrict__ running_variance /* channels */, ACC epsilon,
    ACC momentum, ACC rest, INDEX tiles, INDEX rows, int channels, int width, INDEX pass_rows, int ranges,
    INDEX range_rows) {
    forward_pass(
        x, bypass, means, squares, gamma, beta, y, positive, mean, inverse, running_mean, running_variance, epsilon,
        momentum, rest, tiles, rows, channels, width, pass_rows, ranges, range_rows, true);
}
