// Rows that are reduced to a number each, for softmax.cu and layer_norm.cu: this text is put behind the prelude, before them.
//
// A group of `group` threads has a row: a power of two up to 32, so that groups share a warp and never diverge in one, or
// the whole block. Which, the host decides by the length of a row alone. A thread has every group-th number of it:
// neighbouring threads read neighbouring numbers.
//
// Deterministic: a thread combines its numbers in ascending order, a group its threads' results in a fixed tree.

#define ALL_LANES 0xffffffffu
#define MOST_WARPS 32

// A loop over the rows: `row` is that of the thread's group, `lane` the thread's place in it. All threads of a warp,
// or of a block where groups are larger than a warp, run equally many rounds, since they shuffle or meet at barriers:
// a group past the end has lasting = false, repeats the last row, and must not write.
#define FOR_EACH_ROW(row, lane, lasting, rows, group)                                                          \
    const int lane = threadIdx.x % (group);                                                                    \
    const int together = (group) > 32 ? (group) : 32, place = threadIdx.x % together;                          \
    INDEX row;                                                                                                 \
    bool lasting;                                                                                              \
    for (INDEX first = ((INDEX)blockIdx.x * blockDim.x + threadIdx.x - place) / (group);                       \
         row = first + place / (group), lasting = row < (rows), row = lasting ? row : (rows) - 1, first < (rows); \
         first += (INDEX)gridDim.x * blockDim.x / (group))

__device__ __forceinline__ ACC larger(ACC a, ACC b) { return b > a ? b : a; }
__device__ __forceinline__ ACC added(ACC a, ACC b) { return a + b; }

// A value of every thread of a group, reduced to one that all of them get: within a warp by a butterfly, whose lanes
// all come to the same bits, and between the warps of a block in their order.
#define GROUP_REDUCE(name, combine)                                                                            \
    __device__ __forceinline__ ACC name(ACC value, int group) {                                                \
        for (int step = (group > 32 ? 32 : group) / 2; step > 0; step /= 2)                                    \
            value = combine(value, __shfl_xor_sync(ALL_LANES, value, step));                                   \
        if (group <= 32) return value;                                                                         \
        __shared__ ACC of_warp[MOST_WARPS];                                                                    \
        if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;                                          \
        __syncthreads();                                                                                       \
        value = of_warp[0];                                                                                    \
        for (int warp = 1; warp < group / 32; ++warp) value = combine(value, of_warp[warp]);                   \
        __syncthreads(); /* before anyone writes to of_warp again */                                           \
        return value;                                                                                          \
    }
GROUP_REDUCE(group_maximum, larger)
GROUP_REDUCE(group_sum, added)
