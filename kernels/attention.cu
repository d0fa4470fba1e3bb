// Scaled dot-product attention of (N, heads, length, depth), y = softmax(q·kᵀ·scale)·v, and its gradients. No matrix of
// scores is kept: forward goes over the keys in tiles with a running maximum and sum (Milakov and Gimelshein, "Online
// normalizer calculation for softmax", 2018; Dao et al., "FlashAttention", 2022) and writes the logarithm of each row's
// sum, by which backward computes the probabilities again.
//
// A warp owns OWN neighbouring rows: queries in `attention` and `attention_backward_queries`, keys in
// `attention_backward_keys`. The warps of a block go over the other rows together, LANES at a time, through a tile in
// shared memory: for products of rows a lane has one of the other rows, for weighted sums of them some columns, SPANS
// numbers of each own row in registers. Where depth is more than LANES * SPANS, the scores are computed again for
// further columns. With `causal` a query sees no later key, whatever is in it: NaN there reaches no earlier query.
//
// Deterministic: a number is written by one thread, which adds up in ascending order; a row's sum is added up by its
// warp in a fixed tree, tile after tile. Sums are of type ACC.
//
// Least bytes: forward q, k, v and y once, 4·rows·depth·sizeof(T), and rows·sizeof(ACC); backward 8·rows·depth·sizeof(T)
// and as many of ACC again. A block reads all keys and values of its head, from a cache where other blocks did before.

#define MOST_THREADS 256
#define LANES 32
#define OWN 4
#define SPANS 4
#define ALL_LANES 0xffffffffu
#define OF_BLOCK (MOST_THREADS / LANES * OWN)

// The rows of one head, from the first on.
struct Head { INDEX start; int length, depth; };

// What a block shares: a tile of other rows, without bank conflicts along both axes, and numbers of the own rows, of
// which a warp writes and reads those of its rows alone.
typedef ACC Tile[LANES][LANES + 1];
typedef ACC Own[LANES];

__device__ __forceinline__ ACC larger(ACC a, ACC b) { return b > a ? b : a; }
__device__ __forceinline__ ACC added(ACC a, ACC b) { return a + b; }

// A value of every lane, reduced to one that all of them get, by a butterfly.
#define WARP_REDUCE(name, combine)                                                                             \
    __device__ __forceinline__ ACC name(ACC value) {                                                           \
        for (int step = LANES / 2; step > 0; step /= 2)                                                        \
            value = combine(value, __shfl_xor_sync(ALL_LANES, value, step));                                   \
        return value;                                                                                          \
    }
WARP_REDUCE(warp_maximum, larger)
WARP_REDUCE(warp_sum, added)

// A loop over the tiles of OWN rows a warp: `head` is that of the block, `first` the block's first row in it, `row` the
// warp's. All warps of a block run equally many rounds, since they meet at barriers.
#define FOR_EACH_TILE(head, first, row)                                                                        \
    const int lane = threadIdx.x % LANES, of_block = blockDim.x / LANES * OWN;                                 \
    const int tiles = (length + of_block - 1) / of_block;                                                      \
    Own *own = all_own + threadIdx.x / LANES * OWN;                                                            \
    INDEX at = blockIdx.x;                                                                                     \
    for (Head head; at < rows / length * tiles; at += gridDim.x)                                               \
        if (const int first = (int)(at % tiles) * of_block, row = first + (int)(threadIdx.x / LANES) * OWN;    \
            head = {at / tiles * length, length, depth}, true)

__device__ __forceinline__ ACC number_of(const T *x, Head head, int row, int column) {
    const bool exists = row < head.length && column < head.depth;
    return exists ? widen(x[(head.start + row) * head.depth + column]) : 0;
}

__device__ __forceinline__ void load_tile(const T *x, Head head, int row, int column, Tile &tile) {
    const int lane = threadIdx.x % LANES;
#pragma unroll 1
    for (int i = threadIdx.x / LANES; i < LANES; i += blockDim.x / LANES)
        tile[i][lane] = number_of(x, head, row + i, column + lane);
}

// sums[r] = Σ own_x[row + r][d]·other_x[other + lane][d] over all columns d; 0 where there is no such row.
__device__ __forceinline__ void multiply_rows(
    const T *own_x, const T *other_x, Head head, int row, int other, Tile &tile, Own *own, ACC (&sums)[OWN]) {
    const int lane = threadIdx.x % LANES;
    for (int r = 0; r < OWN; ++r) sums[r] = 0;
#pragma unroll 1
    for (int column = 0; column < head.depth; column += LANES) {
        __syncthreads(); /* before anyone writes to the tile again */
        load_tile(other_x, head, other, column, tile);
        for (int r = 0; r < OWN; ++r) own[r][lane] = number_of(own_x, head, row + r, column + lane);
        __syncthreads();
        const int count = head.depth - column < LANES ? head.depth - column : LANES;
#pragma unroll 4
        for (int d = 0; d < count; ++d) {
            const ACC value = tile[lane][d];
            for (int r = 0; r < OWN; ++r) sums[r] += own[r][d] * value;
        }
    }
}

// Add Σ weight·x[other + j] to the sums of the columns from `column` on, where lane j has the weights of row other + j.
// Rows that are not seen are left out, since 0·NaN is NaN: those past `edge` if the own rows are queries, else those
// before it.
template <bool OWN_QUERIES>
__device__ __forceinline__ void add_weighted(
    const ACC (&weights)[OWN], const T *x, Head head, int row, int other, int column, bool causal, Tile &tile,
    Own *own, ACC (&sums)[OWN][SPANS]) {
    const int lane = threadIdx.x % LANES;
#pragma unroll
    for (int span = 0; span < SPANS; ++span) {
        if (column + span * LANES >= head.depth) return;
        __syncthreads();
        if (span == 0)
            for (int r = 0; r < OWN; ++r) own[r][lane] = weights[r];
        load_tile(x, head, other, column + span * LANES, tile);
        __syncthreads();
#pragma unroll 4
        for (int j = 0; j < LANES; ++j) {
            const ACC value = tile[j][lane];
#pragma unroll
            for (int r = 0; r < OWN; ++r) {
                const int edge = row + r - other;
                if (!causal || (OWN_QUERIES ? j <= edge : j >= edge)) sums[r][span] += own[r][j] * value;
            }
        }
    }
}

__device__ __forceinline__ void write_rows(
    const ACC (&sums)[OWN][SPANS], T *x, Head head, int row, int column, const ACC (&divisors)[OWN]) {
    const int lane = threadIdx.x % LANES;
#pragma unroll
    for (int r = 0; r < OWN; ++r)
#pragma unroll
        for (int span = 0; span < SPANS; ++span) {
            const int d = column + span * LANES + lane;
            if (row + r < head.length && d < head.depth)
                narrow(sums[r][span] / divisors[r], x[(head.start + row + r) * head.depth + d]);
        }
}

// y and log Σ exp(score) of each row; NaN where all its scores are -inf. One warp for OWN queries.
extern "C" __global__ void attention(
    const T *__restrict__ q /* rows * depth */, const T *__restrict__ k /* rows * depth */,
    const T *__restrict__ v /* rows * depth */, T *__restrict__ y /* rows * depth */,
    ACC *__restrict__ log_sums /* rows */, ACC scale, INDEX rows, int length, int depth, int causal) {
    __shared__ Tile tile;
    __shared__ Own all_own[OF_BLOCK];
    const ACC nothing = -(ACC)__int_as_float(0x7f800000);
    FOR_EACH_TILE(head, first, row) {
        const int keys = causal && first + of_block < length ? first + of_block : length;
        for (int column = 0; column < depth; column += LANES * SPANS) {
            ACC most[OWN], total[OWN] = {}, sums[OWN][SPANS] = {};
            for (int r = 0; r < OWN; ++r) most[r] = nothing;
            for (int key = 0; key < keys; key += LANES) {
                ACC weights[OWN];
                multiply_rows(q, k, head, row, key, tile, own, weights);
#pragma unroll
                for (int r = 0; r < OWN; ++r) {
                    const bool seen = key + lane < length && (!causal || key + lane <= row + r);
                    const ACC score = seen ? weights[r] * scale : nothing, before = most[r];
                    most[r] = larger(before, warp_maximum(score));
                    const ACC center = most[r] == nothing ? 0 : most[r]; // no NaN of -inf - -inf: larger ones may come
                    const ACC kept = exp(before - center);
                    weights[r] = exp(score - center);
                    total[r] = total[r] * kept + warp_sum(weights[r]);
                    for (int span = 0; span < SPANS; ++span) sums[r][span] *= kept;
                }
                add_weighted<true>(weights, v, head, row, key, column, causal, tile, own, sums);
            }
            write_rows(sums, y, head, row, column, total);
            for (int r = 0; r < OWN; ++r)
                if (column == 0 && lane == 0 && row + r < length)
                    log_sums[head.start + row + r] = total[r] > 0 ? most[r] + log(total[r]) : total[r] / total[r];
        }
    }
}

// The gradient of the queries, Σ ds·k over the keys with ds = p·(dy·v - dy·y)·scale, and each row's dy·y. One warp for
// OWN queries.
extern "C" __global__ void attention_backward_queries(
    const T *__restrict__ dy /* rows * depth */, const T *__restrict__ q /* rows * depth */,
    const T *__restrict__ k /* rows * depth */, const T *__restrict__ v /* rows * depth */,
    const T *__restrict__ y /* rows * depth */, const ACC *__restrict__ log_sums /* rows */,
    T *__restrict__ dq /* rows * depth */, ACC *__restrict__ means /* rows */, ACC scale, INDEX rows, int length,
    int depth, int causal) {
    __shared__ Tile tile;
    __shared__ Own all_own[OF_BLOCK];
    const ACC ones[OWN] = {1, 1, 1, 1};
    FOR_EACH_TILE(head, first, row) {
        const int keys = causal && first + of_block < length ? first + of_block : length;
        ACC log_sum[OWN] = {}, mean[OWN] = {};
        for (int r = 0; r < OWN; ++r) {
            for (int column = 0; column < depth; column += LANES)
                mean[r] += number_of(dy, head, row + r, column + lane) * number_of(y, head, row + r, column + lane);
            mean[r] = warp_sum(mean[r]);
            if (row + r >= length) continue;
            log_sum[r] = log_sums[head.start + row + r];
            if (lane == 0) means[head.start + row + r] = mean[r];
        }
        for (int column = 0; column < depth; column += LANES * SPANS) {
            ACC sums[OWN][SPANS] = {};
            for (int key = 0; key < keys; key += LANES) {
                ACC scores[OWN], slopes[OWN];
                multiply_rows(q, k, head, row, key, tile, own, scores);
                multiply_rows(dy, v, head, row, key, tile, own, slopes);
                for (int r = 0; r < OWN; ++r) {
                    const bool seen = key + lane < length && (!causal || key + lane <= row + r);
                    slopes[r] = seen ? exp(scores[r] * scale - log_sum[r]) * (slopes[r] - mean[r]) * scale : 0;
                }
                add_weighted<true>(slopes, k, head, row, key, column, causal, tile, own, sums);
            }
            write_rows(sums, dq, head, row, column, ones);
        }
    }
}

// The gradients of the keys, Σ ds·q over the queries, and of the values, Σ p·dy. One warp for OWN keys.
extern "C" __global__ void attention_backward_keys(
    const T *__restrict__ dy /* rows * depth */, const T *__restrict__ q /* rows * depth */,
    const T *__restrict__ k /* rows * depth */, const T *__restrict__ v /* rows * depth */,
    const ACC *__restrict__ log_sums /* rows */, const ACC *__restrict__ means /* rows */,
    T *__restrict__ dk /* rows * depth */, T *__restrict__ dv /* rows * depth */, ACC scale, INDEX rows, int length,
    int depth, int causal) {
    __shared__ Tile tile;
    __shared__ Own all_own[OF_BLOCK];
    const ACC ones[OWN] = {1, 1, 1, 1};
    FOR_EACH_TILE(head, first, row) {
        for (int column = 0; column < depth; column += LANES * SPANS) {
            ACC of_keys[OWN][SPANS] = {}, of_values[OWN][SPANS] = {};
            for (int query = causal ? first : 0; query < length; query += LANES) {
                ACC scores[OWN], slopes[OWN];
                multiply_rows(k, q, head, row, query, tile, own, scores);
                multiply_rows(v, dy, head, row, query, tile, own, slopes);
                const bool exists = query + lane < length;
                const ACC log_sum = exists ? log_sums[head.start + query + lane] : 0;
                const ACC mean = exists ? means[head.start + query + lane] : 0;
                for (int r = 0; r < OWN; ++r) {
                    const bool seen = exists && row + r < length && (!causal || query + lane >= row + r);
                    scores[r] = seen ? exp(scores[r] * scale - log_sum) : 0;
                    slopes[r] = seen ? scores[r] * (slopes[r] - mean) * scale : 0;
                }
                add_weighted<false>(scores, dy, head, row, query, column, causal, tile, own, of_values);
                add_weighted<false>(slopes, q, head, row, query, column, causal, tile, own, of_keys);
            }
            write_rows(of_keys, dk, head, row, column, ones);
            write_rows(of_values, dv, head, row, column, ones);
        }
    }
}
