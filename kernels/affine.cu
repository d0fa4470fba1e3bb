// What stands beside the products of fully connected layers: a bias and a ReLU, and their gradients.
//
// Matrices are (rows, columns), C-contiguous. Neighbouring threads have neighbouring columns: reads and writes are
// coalesced for 32 columns and more.
//
// Deterministic: every number is written by one thread; column sums are added lane by lane in ascending order, and the
// lanes in a fixed tree. No atomics.

#define MOST_THREADS 256
#define WIDTH 32  // columns of a block in bias_gradient

// y + bias, in place; with masks, max(·, 0) of that, where a NaN passes, and where it is above 0. Each step is rounded.
// Least bytes: rows·columns·(2·sizeof(T) + 1).
extern "C" __global__ void add_bias(
    T *__restrict__ y /* count */, const T *__restrict__ bias /* columns */,
    unsigned char *__restrict__ positive /* masks */, INDEX count, int columns, INDEX masks) {
    FOR_EACH(i, count) {
        T sum;
        narrow(widen(y[i]) + widen(bias[i % columns]), sum);
        const ACC value = widen(sum);
        if (masks) {
            positive[i] = value > 0;
            if (value <= 0) narrow((ACC)0, sum);
        }
        y[i] = sum;
    }
}

// The gradient of y + bias behind a ReLU: dx = dy where `positive`, 0 elsewhere, and its column sums, the gradient of
// the bias. A block has WIDTH columns and all rows, a thread every lanes-th of them. Sums are of type ACC.
// Least bytes: rows·columns·(2·sizeof(T) + 1).
extern "C" __global__ void bias_gradient(
    const T *__restrict__ dy /* rows * columns */, const unsigned char *__restrict__ positive /* rows * columns */,
    T *__restrict__ dx /* rows * columns */, T *__restrict__ dbias /* columns */, INDEX tiles, INDEX rows,
    int columns) {
    __shared__ ACC sums[MOST_THREADS];
    const int t = threadIdx.x, lanes = blockDim.x / WIDTH;
    for (INDEX tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const INDEX column = tile * WIDTH + t % WIDTH;
        ACC sum = 0;
        if (column < columns) {
#pragma unroll 4
            for (INDEX row = t / WIDTH; row < rows; row += lanes) {
                const INDEX i = row * columns + column;
                const T upstream = positive[i] ? dy[i] : T{};
                dx[i] = upstream;
                sum += widen(upstream);
            }
        }
        for (int half = blockDim.x / 2; half >= WIDTH; half /= 2) {
            sums[t] = sum;
            __syncthreads();
            if (t < half) sum += sums[t + half];
            __syncthreads();
        }
        if (t < WIDTH && column < columns) narrow(sum, dbias[column]);
    }
}
