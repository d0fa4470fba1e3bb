// Convolution and its input gradient as implicit matrix products on tensor cores: the columns that im2col would write
// exist nowhere, or as tiles in shared memory. Before this text are put tensor_cores.cu, which multiplies tiles, pixels.cu
// and windows.cu, which bring pixels to shared memory, and tile_results.cu, for what becomes of the sums.
//
// x: (N, H, W, C), filters: (FH, FW, C/groups, FN), y: (N, OH, OW, FN). Two products, each of a matrix (rows, depth)
// and a matrix (depth, columns):
//   forward:         y  = windows of x (pixels, taps·C/groups) by filters (taps·C/groups, FN/groups)
//   input gradient:  dx = windows of dy (pixels, taps·FN/groups) by filters, transposed tap by tap
// The input gradient at stride s is s·s such products: pixels with the same remainder by the stride meet the same taps,
// which are every s-th (blockIdx.z is the remainder), so that no product with a zero is made.
//
// blockIdx.x is a tile of BM rows, blockIdx.y a group and a tile of BN of its columns. It goes through the depth, BK at a
// time: filters come tile by tile, pixels so, too, or once for all taps, as a halo. Bias, ReLU and its mask are applied
// to the sums in registers, and the moments for a batch normalization are taken of them: mean and sum of squared
// deviations of each column of the block's tile.
//
// Deterministic: one thread makes and writes each number, in one order.
//
// Least bytes: source, filters, result and mask once each. Blocks share filters and the pixels at their edges, and without
// a halo windows share pixels: they are read again from the caches.
//
// KERNEL says which of the products is compiled: 1 forward, 2 input gradient.

#if TENSOR_CORES

// Forward and input gradient: the source's windows by the filters. `in` and `out` are channels of a group.
template <bool BACKWARD>
__device__ __forceinline__ void gather_product(
    const T *source, const T *filters, const T *bias, T *result, unsigned char *positive, float *means, float *squares,
    int images, const Axis &down, const Axis &across, int in, int out, int groups, int filter_width, int height,
    int width, int rest_down, int rest_across, int scale_down, int scale_across) {
    constexpr int A_TILE = Windows::TILE, TILE = A_TILE + (BACKWARD ? BN * DEEP : BK * (BN + 8));
#if HALO
    extern __shared__ __align__(16) unsigned char memory[];  // the halo lies behind the tiles
    T *const tiles = (T *)memory;
#else
    __shared__ __align__(16) T tiles[STAGES * TILE];
#endif
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int row = warp % WM * 16 * ROW_TILES, column = warp / WM * 8 * COLUMN_TILES;  // of the warp's part
    const int blocks = (out + BN - 1) / BN, group = blockIdx.y / blocks, first_column = blockIdx.y % blocks * BN;
    const int all_in = in * groups, all_out = out * groups, depth = down.taps * across.taps * in;
    const INDEX rows = (INDEX)images * down.rows * across.rows, first_row = (INDEX)blockIdx.x * BM;
    if (first_row >= rows) return;

    Windows windows(source, tiles + STAGES * TILE, down, across, in, groups, group, row, first_row, rows);
    Depth place = windows.begin();  // of this thread's next copy
    const unsigned int address = shared_address(tiles);

    auto load = [&](int stage) {
        const unsigned int to = address + stage * TILE * SIZE;
        windows.load(to, place);
        const bool exists = windows.exists(place);
        if (BACKWARD) {
            const int tap = (down.first + place.a * down.every) * filter_width + across.first + place.b * across.every;
#pragma unroll
            for (int i = 0; i < ROUNDS(BN, DOWN); ++i) {
                const int n = thread / ACROSS + i * DOWN;
                if (n >= BN) break;
                const bool is_filter = exists && first_column + n < out;
                const INDEX from = ((INDEX)tap * out + first_column + n) * all_in + group * in + place.c;
                copy<VECTOR>(to + (A_TILE + n * DEEP + thread % ACROSS * VECTOR) * SIZE, filters + from, is_filter);
            }
        } else {
#pragma unroll
            for (int j = 0; j < ROUNDS(BK * BN, THREADS * WIDE); ++j) {
                const int i = (thread + j * THREADS) * WIDE;
                if (i >= BK * BN) break;
                const int k = place.first + i / BN, f = first_column + i % BN;
                const bool is_filter = (HALO ? exists : k < depth) && f < out;
                copy<WIDE>(to + (A_TILE + i / BN * (BN + 8) + i % BN) * SIZE,
                           filters + ((INDEX)k * all_out + group * out + f), is_filter);
            }
        }
        end_tile();
        windows.next_tile(place);
    };
    float sums[ROW_TILES][COLUMN_TILES][4] = {};
    for (int stage = 0; stage < STAGES - 1; ++stage) load(stage);
    for (int k = 0, reading = 0; k < depth; k += BK) {
        wait_for_tile();
        load(reading == 0 ? STAGES - 1 : reading - 1);  // into the tile that was read last
        const T *tile = tiles + reading * TILE;
        multiply_tile<true, BACKWARD>(sums, windows.next(tile), [&](int i) { return windows.own_row(i); },
                                      tile + A_TILE + column * (BACKWARD ? DEEP : 1));
        reading = reading + 1 == STAGES ? 0 : reading + 1;
    }
    wait_for_all();

    // Rounded as they are stored: what follows sees no other numbers.
    if (!BACKWARD) {
#pragma unroll
        for (int i = 0; i < COLUMN_TILES * 2; ++i) {
            const int n = first_column + column + i / 2 * 8 + lane % 4 * 2 + i % 2;
            const float shift = bias && n < out ? widen(bias[group * out + n]) : 0;
#pragma unroll
            for (int r = 0; r < ROW_TILES * 2; ++r) {
                T number;
                narrow(sums[r / 2][i / 2][r % 2 * 2 + i % 2] + shift, number);
                sums[r / 2][i / 2][r % 2 * 2 + i % 2] = widen(number);
            }
        }
        if (means) {
            __syncthreads();  // the last tile was read
            const INDEX to = (INDEX)blockIdx.x * all_out + group * out + first_column;
            leave_moments(sums, means + to, squares + to, (float *)tiles, (int)min((INDEX)BM, rows - first_row),
                          out - first_column);
        }
    }
    const bool together = out % 2 == 0;
#pragma unroll
    for (int i = 0; i < ROW_TILES; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            INDEX r = first_row + row + 16 * i + lane / 4 + 8 * half;
            if (r >= rows) continue;
            if (BACKWARD) {
                const INDEX line = r / across.rows, image = line / down.rows;
                const int h = (int)(line - image * down.rows) * scale_down + rest_down;
                r = (image * height + h) * width + (r - line * across.rows) * scale_across + rest_across;
            }
#pragma unroll
            for (int j = 0; j < COLUMN_TILES; ++j) {
                const int n = first_column + column + 8 * j + lane % 4 * 2;
                const INDEX at = r * all_out + group * out + n;
                store(result + at, positive ? positive + at : positive, sums[i][j][2 * half],
                      sums[i][j][2 * half + 1], n, out, together);
            }
        }
}

#endif  // TENSOR_CORES

#if KERNEL == 1
// y = x ⋆ filters (+ bias, where not null); where `positive` is not null, max(·, 0) of that, and where it is above 0.
// Where `means` is not null, the moments of y's channels in each run of BM pixels (kernels.batch_statistics.Moments).
extern "C" __global__ void __launch_bounds__(THREADS, 2) conv_forward(
    const T *__restrict__ x /* images * pixels * channels */, const T *__restrict__ filters, const T *__restrict__ bias,
    T *__restrict__ y /* images * windows * out_channels */, unsigned char *__restrict__ positive,
    float *__restrict__ means, float *__restrict__ squares, Geometry g, int images, int out_channels, int groups) {
#if TENSOR_CORES
    const Axis down =
        windows_of(g.height, g.out_height, g.stride_height, g.pad_top, g.dilation_height, g.kernel_height);
    const Axis across = windows_of(g.width, g.out_width, g.stride_width, g.pad_left, g.dilation_width, g.kernel_width);
    gather_product<false>(x, filters, bias, y, positive, means, squares, images, down, across, g.channels / groups,
                          out_channels / groups, groups, g.kernel_width, g.out_height, g.out_width, 0, 0, 1, 1);
#endif
}
#endif

#if KERNEL == 2
// dx: each pixel's sum over the windows that contain it. blockIdx.z: remainders of its row and column by the stride.
extern "C" __global__ void __launch_bounds__(THREADS, 2) conv_backward_input(
    const T *__restrict__ dy /* images * windows * out_channels */, const T *__restrict__ filters,
    T *__restrict__ dx /* images * pixels * channels */, Geometry g, int images, int out_channels, int groups) {
#if TENSOR_CORES
    const int rest_down = blockIdx.z / g.stride_width, rest_across = blockIdx.z % g.stride_width;
    const Axis down = pixels_of(
        g.out_height, g.height, g.stride_height, g.pad_top, g.dilation_height, g.kernel_height, rest_down);
    const Axis across = pixels_of(
        g.out_width, g.width, g.stride_width, g.pad_left, g.dilation_width, g.kernel_width, rest_across);
    gather_product<true>(dy, filters, nullptr, dx, nullptr, nullptr, nullptr, images, down, across, out_channels / groups,
                         g.channels / groups, groups, g.kernel_width, g.height, g.width, rest_down, rest_across,
                         g.stride_height, g.stride_width);
#endif
}
#endif
