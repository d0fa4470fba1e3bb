// Sums along the middle axis of (outer, length, inner) terms, for sums.cu, layer_norm.cu and depthwise.cu: this text is put
// behind the prelude, before them.
//
// The axis is cut into `ranges` of `range_rows` rows. A block of threads has a tile: `width` neighbouring columns (a power
// of two up to 32) of one range, `lanes` rows at a time (a power of two), for block / (width·lanes) neighbouring places of
// the outer axis. Thread t has column t % width, and every lanes-th row from t / width % lanes on: where there are few
// columns, a warp reads several rows that follow one another in memory, and reads are coalesced. Blocks that run at the
// same time have the same range, whose numbers the places may share.
//
// Deterministic, without atomics, in two stages: a kernel of the first leaves a sum for each range, and sum_partials of
// sums.cu adds these up, by the same code; where there is one range, there is one stage. A thread adds up its rows in
// ascending order, the lanes of a block are added in a fixed tree, and the cut into ranges depends on the shape alone. A
// term passes at most n = ceil(range_rows / lanes) + log2(lanes) additions in the first stage, likewise in the second, and
// a division: so the error is at most about (n₁ + n₂ + 1)·u·Σ|term|, where u is 2⁻²⁴ in float32 and 2⁻⁵³ in float64.

#define MOST_THREADS 1024

// The lanes' sums of each column and place; lane 0 gets the result.
template <class Sum> __device__ __forceinline__ Sum added_lanes(Sum own, int lane, int width, int lanes) {
    __shared__ Sum sums[MOST_THREADS];
    const int t = threadIdx.x;
    for (int half = lanes / 2; half > 0; half /= 2) {
        sums[t] = own;
        __syncthreads();
        if (lane < half) own += sums[t + half * width];
        __syncthreads();
    }
    return own;
}

// Sums of the terms that a function gives for place, row and column; divided.
template <class Term, class Sum, class To>
__device__ __forceinline__ void sum_tiles(
    const Term &term, To *__restrict__ sums, INDEX tiles, INDEX outer, INDEX length, INDEX inner, int width, int lanes,
    INDEX ranges, INDEX range_rows, Sum divisor) {
    const int lane = threadIdx.x / width % lanes, places = blockDim.x / (width * lanes);
    const INDEX across = (inner + width - 1) / width, down = (outer + places - 1) / places;
    for (INDEX tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const INDEX column = tile % across * width + threadIdx.x % width, range = tile / across / down;
        const INDEX place = tile / across % down * places + threadIdx.x / (width * lanes);
        const bool exists = column < inner && place < outer;  // all threads meet the others at the barriers
        const INDEX begin = range * range_rows;
        const INDEX end = !exists ? begin : length - begin < range_rows ? length : begin + range_rows;
        Sum sum = 0;
#pragma unroll 8
        for (INDEX row = begin + lane; row < end; row += lanes) sum += term(place, row, column);
        sum = added_lanes(sum, lane, width, lanes);
        if (lane == 0 && exists) narrow(sum / divisor, sums[(place * ranges + range) * inner + column]);
    }
}
