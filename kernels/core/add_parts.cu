// What the two kernels of weight gradients share: the bias's gradient on their way, and adding up their parts. Put before
// convolution_weight.cu and convolution_weight_halo.cu.
#if TENSOR_CORES

// bias += what a thread adds up of a tile of dy, [BK][BN + 8]: every THREADS / BN-th number of its column.
__device__ __forceinline__ void add_own_column(float &bias, const T *dy) {
    const int thread = threadIdx.x;
    for (int k = thread / BN; k < BK; k += THREADS / BN) bias += widen(dy[k * (BN + 8) + thread % BN]);
}

// Leaves the sums of the columns, of which there are `columns` from the first on; `room` is for THREADS numbers.
__device__ __forceinline__ void leave_columns(float *to, float bias, float *room, int columns) {
    static_assert(THREADS % BN == 0, "threads share the columns evenly");
    const int thread = threadIdx.x;
    __syncthreads();  // what was there is read
    room[thread] = bias;
    __syncthreads();
    if (thread >= BN || thread >= columns) return;
    float total = 0;
    for (int i = thread; i < THREADS; i += BN) total += room[i];
    to[thread] = total;
}

#endif  // TENSOR_CORES

// dw and, where it is not null, dbias, of which `parts` has the sums over parts of the pixels. Blocks of 32 numbers by
// 8 threads: thread q of a number adds up the parts q, q + 8, …, and the first adds up these sums, in order.
extern "C" __global__ void __launch_bounds__(256) conv_add_parts(
    const float *__restrict__ parts, T *__restrict__ dw, T *__restrict__ dbias, int count, int weights,
    int part_count) {
#if TENSOR_CORES
    __shared__ float of_thread[256];
    const int i = blockIdx.x * 32 + threadIdx.x % 32;
    float sum = 0;
    if (i < count)
        for (int p = threadIdx.x / 32; p < part_count; p += 8) sum += parts[(INDEX)p * count + i];
    of_thread[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x >= 32 || i >= count) return;
#pragma unroll
    for (int q = 1; q < 8; ++q) sum += of_thread[threadIdx.x + 32 * q];
    narrow(sum, i < weights ? dw[i] : dbias[i - weights]);
#endif
}
