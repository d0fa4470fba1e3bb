// Tiles of the columns of an (M, C) matrix, and the numbers that the forward and the backward of batch normalization
// both compute. This text is put behind the prelude, before batch_norm.cu and batch_norm_backward.cu.
//
// The matrix is cut into tiles of `width` columns (a power of two up to 32) by `range_rows` rows. A block of threads
// works on one tile, or on several in turn: thread t has column t % width and every lanes-th row, from t / width, where
// lanes = block / width. For 32 columns and more a warp reads a run of 32 numbers; for fewer it reads several rows
// that follow one another in memory: reads are coalesced either way.
//
// Deterministic: column sums are made in two stages without atomics. Stage 1 leaves a partial result for each range
// and column; stage 2 puts the ranges together. Within a thread terms come in ascending order, the lanes of a block
// are combined in a fixed tree, and the cut into ranges depends on M and C alone. In training, stage 2 is the
// beginning of the pass that needs its results: each block puts the ranges of its own columns together, all in the
// same order and so with the same bits, which costs less than a launch. That pass is cut into other tiles.
//
// Threads that read the whole matrix take several neighbouring columns where there are enough.
//
// The arrays of the kernels that are a second stage alone are of the type of sums: T is that type where they are
// launched.

#define MOST_THREADS 256

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

#define TILE_COLUMNS 32  // at most

// Numbers of a row, at once or, at an address that does not allow it, one by one.
template <int MANY, bool WHOLE>
__device__ __forceinline__ Numbers<MANY> row_at(const T *from) {
    Numbers<MANY> numbers;
    if (WHOLE) {
        numbers = numbers_at<MANY>(from);
    } else {
#pragma unroll
        for (int k = 0; k < MANY; ++k) numbers.at[k] = from[k];
    }
    return numbers;
}

// The part of a tile that a thread works on which takes MANY neighbouring columns: from `channel` on, number `column` and
// more of the tile. Where sums are made, MANY depends on the number of columns alone.
struct Part {
    int column, channel;
    INDEX first, end, step;  // rows
};

template <int MANY>
__device__ __forceinline__ Part part_of(INDEX tile, INDEX rows, int channels, int width, INDEX range_rows) {
    const int across = (channels + width - 1) / width, threads = width / MANY;
    const INDEX begin = tile / across * range_rows;
    Part own;
    own.column = threadIdx.x % threads * MANY;
    own.channel = tile % across * width + own.column;
    own.first = begin + threadIdx.x / threads;
    own.step = blockDim.x / threads;
    own.end = own.channel >= channels ? begin : rows - begin < range_rows ? rows : begin + range_rows;
    return own;
}

// γ·(x - mean)·inverse + β, before it is rounded: the sum of a product must be fused everywhere or nowhere, since the
// gradients compute it again to know its sign.
__device__ __forceinline__ ACC normalized(ACC x, ACC center, ACC scale, ACC shift) {
    return fma(x - center, scale, shift);
}

// A number as it is stored in an array of T: to float16 small ones become 0.
__device__ __forceinline__ ACC stored(ACC value) {
    T result;
    narrow(value, result);
    return widen(result);
}
