// Convolution and its input gradient as implicit matrix products on tensor cores: the columns that im2col would write
// exist only as tiles in shared memory (tensor_cores.cu, which is put before this text).
//
// x: (N, H, W, C), filters: (FH, FW, C/groups, FN), y: (N, OH, OW, FN). Two products, each of a matrix (rows, depth)
// and a matrix (depth, columns):
//   forward:         y  = windows of x (pixels, taps·C/groups) by filters (taps·C/groups, FN/groups)
//   input gradient:  dx = windows of dy (pixels, taps·FN/groups) by filters, transposed tap by tap
// The input gradient at stride s is s·s such products: pixels with the same remainder by the stride meet the same taps,
// which are every s-th (blockIdx.z is the remainder), so that no product with a zero is made.
//
// blockIdx.x is a tile of BM rows, blockIdx.y a group and a tile of BN of its columns. A thread copies the same VECTOR
// places along the depth of several rows; which of their taps lie inside the image it keeps as bits, and it goes from
// tap to tap by additions. Bias, ReLU and its mask are applied to the sums in registers, and the moments for a batch
// normalization are taken of them: mean and sum of squared deviations of each column of the block's tile.
//
// Deterministic: one thread makes and writes each number, in one order.
//
// Least bytes: source, filters, result and mask once each. Neighbouring windows share pixels, and blocks share filters:
// they are read again from the caches.
//
// KERNEL says which of the products is compiled: 1 forward, 2 input gradient.

#if TENSOR_CORES

// Along one axis of the source: tap i of row r lies at r·scale + origin + i·step, if that is from 0 to size - 1, and is
// tap first + i·every of the filters.
struct Axis { int size, rows, scale, origin, step, taps, first, every; };

__device__ __forceinline__ Axis windows_of(int size, int rows, int stride, int pad, int dilation, int taps) {
    return {size, rows, stride, -pad, dilation, taps, 0, 1};
}

// The windows that contain the pixels rest + stride·r of an axis of `pixels`: tap t does where rest + pad - t·dilation
// is a multiple of the stride, and those t are `every` apart, or there are none.
__device__ __forceinline__ Axis pixels_of(
    int windows, int pixels, int stride, int pad, int dilation, int taps, int rest) {
    int first = 0, every = 1;
    while (first < taps && (rest + pad - first * dilation) % stride) ++first;
    while (every * dilation % stride) ++every;
    return {windows, (pixels - rest + stride - 1) / stride, 1, (rest + pad - first * dilation) / stride,
            -(every * dilation / stride), first < taps ? (taps - first + every - 1) / every : 0, first, every};
}

// One bit for each of up to 16 taps: whether it lies inside the axis for a row that begins at `start`.
__device__ __forceinline__ unsigned int taps_inside(const Axis &axis, int start) {
    unsigned int bits = 0;
    for (int i = 0; i < axis.taps; ++i) {
        const int place = start + i * axis.step;
        bits |= (unsigned int)(place >= 0 && place < axis.size) << i;
    }
    return bits;
}

// Writes two neighbouring numbers of the result, with ReLU: of `out` columns in all, from `column` on.
__device__ __forceinline__ void store(
    T *to, unsigned char *positive, float first, float second, int column, int out, bool together) {
    const float values[2] = {first, second};
    T numbers[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        narrow(values[i], numbers[i]);
        if (positive) {  // of the rounded number, as ReLU after the convolution sees it
            const float rounded = widen(numbers[i]);
            if (column + i < out) positive[i] = rounded > 0;
            narrow(rounded <= 0 ? 0.0f : rounded, numbers[i]);  // a NaN passes; -0 becomes 0
        }
    }
    if (together && column + 1 < out) {
        struct alignas(2 * sizeof(T)) Pair { T first, second; };
        *(Pair *)to = {numbers[0], numbers[1]};
    } else {
        if (column < out) to[0] = numbers[0];
        if (column + 1 < out) to[1] = numbers[1];
    }
}

// Sums over the rows of a tile, of a number for each of a thread's columns: over the lanes and warps that have the same
// columns, in one order. Every thread gets those of its own columns; `room` is for WM·BN numbers.
__device__ __forceinline__ void sum_rows(float (&own)[COLUMN_TILES][2], float *room) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, column = warp / WM * 8 * COLUMN_TILES + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < COLUMN_TILES; ++j)
#pragma unroll
        for (int k = 0; k < 2; ++k) {
#pragma unroll
            for (int step = 4; step < 32; step *= 2) own[j][k] += __shfl_xor_sync(0xffffffffu, own[j][k], step);
            if (lane < 4) room[warp % WM * BN + column + 8 * j + k] = own[j][k];
        }
    __syncthreads();  // of all warps
#pragma unroll
    for (int j = 0; j < COLUMN_TILES; ++j)
#pragma unroll
        for (int k = 0; k < 2; ++k) {
            own[j][k] = 0;
#pragma unroll
            for (int w = 0; w < WM; ++w) own[j][k] += room[w * BN + column + 8 * j + k];
        }
}

// Leaves the moments of the first `rows` of a block's tile, for its columns of which there are `columns`: the squares
// are of deviations from the mean, as E[x²] - E[x]² would cancel. `room` is for 2·WM·BN numbers.
__device__ __forceinline__ void leave_moments(
    const float (&sums)[ROW_TILES][COLUMN_TILES][4], float *means, float *squares, float *room, int rows, int columns) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row = warp % WM * 16 * ROW_TILES + lane / 4;
    float mean[COLUMN_TILES][2] = {}, square[COLUMN_TILES][2] = {};
#pragma unroll
    for (int i = 0; i < ROW_TILES * 2 * COLUMN_TILES * 2; ++i) {
        const int k = i % 2, j = i / 2 % COLUMN_TILES, half = i / 2 / COLUMN_TILES % 2, r = i / 4 / COLUMN_TILES;
        if (row + 16 * r + 8 * half < rows) mean[j][k] += sums[r][j][2 * half + k];
    }
    sum_rows(mean, room);
#pragma unroll
    for (int j = 0; j < COLUMN_TILES; ++j) mean[j][0] /= rows, mean[j][1] /= rows;
#pragma unroll
    for (int i = 0; i < ROW_TILES * 2 * COLUMN_TILES * 2; ++i) {
        const int k = i % 2, j = i / 2 % COLUMN_TILES, half = i / 2 / COLUMN_TILES % 2, r = i / 4 / COLUMN_TILES;
        const float deviation = sums[r][j][2 * half + k] - mean[j][k];
        if (row + 16 * r + 8 * half < rows) square[j][k] += deviation * deviation;
    }
    sum_rows(square, room + WM * BN);
    if (warp % WM || lane >= 4) return;  // these have every column once
#pragma unroll
    for (int i = 0; i < COLUMN_TILES * 2; ++i) {
        const int n = warp / WM * 8 * COLUMN_TILES + i / 2 * 8 + lane % 4 * 2 + i % 2;
        if (n < columns) means[n] = mean[i / 2][i % 2], squares[n] = square[i / 2][i % 2];
    }
}

// Forward and input gradient: the source's windows by the filters. `in` and `out` are channels of a group.
template <bool BACKWARD>
__device__ __forceinline__ void gather_product(
    const T *source, const T *filters, const T *bias, T *result, unsigned char *positive, float *means, float *squares,
    int images, const Axis &down, const Axis &across, int in, int out, int groups, int filter_width, int height, int width, int rest_down,
    int rest_across, int scale_down, int scale_across) {
    constexpr int A_TILE = BM * DEEP, TILE = A_TILE + (BACKWARD ? BN * DEEP : BK * (BN + 8));
    constexpr int ACROSS = BK / VECTOR, DOWN = THREADS / ACROSS, COPIES = BM / DOWN;
    static_assert(THREADS % ACROSS == 0 && BM % DOWN == 0, "a thread copies the same place of several rows");
    __shared__ __align__(16) T tiles[STAGES * TILE];
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int row = warp % WM * 16 * ROW_TILES, column = warp / WM * 8 * COLUMN_TILES;  // of the warp's part
    const int blocks = (out + BN - 1) / BN, group = blockIdx.y / blocks, first_column = blockIdx.y % blocks * BN;
    const int all_in = in * groups, all_out = out * groups, depth = down.taps * across.taps * in;
    const INDEX rows = (INDEX)images * down.rows * across.rows, first_row = (INDEX)blockIdx.x * BM;
    if (first_row >= rows) return;

    // Of each row: where its tap (0, 0) lies, and which taps are inside. A thread finds them for one row, or two, and
    // keeps those of the rows that it copies.
    __shared__ INDEX base_of[BM];
    __shared__ unsigned int inside_of[BM];
    for (int i = thread; i < BM; i += THREADS) {
        const INDEX r = first_row + i, line = r / across.rows, image = line / down.rows;
        const int h = (int)(line - image * down.rows) * down.scale + down.origin;
        const int w = (int)(r - line * across.rows) * across.scale + across.origin;
        base_of[i] = ((image * down.size + h) * across.size + w) * all_in + group * in;
        inside_of[i] = r < rows ? taps_inside(down, h) | taps_inside(across, w) << 16 : 0;
    }
    __syncthreads();
    INDEX base[COPIES];
    unsigned int inside[COPIES];
#pragma unroll
    for (int i = 0; i < COPIES; ++i) {
        base[i] = base_of[thread / ACROSS + i * DOWN];
        inside[i] = inside_of[thread / ACROSS + i * DOWN];
    }
    // Tap and channel of this thread's next copy, and of a step of BK, digit by digit.
    const int taps_across = across.taps > 0 ? across.taps : 1, place = thread % ACROSS * VECTOR;
    int a = place / in / taps_across, b = place / in % taps_across, c = place % in, next = 0;
    const int step_a = BK / in / taps_across, step_b = BK / in % taps_across, step_c = BK % in;
    const unsigned int memory = shared_address(tiles);

    auto load = [&](int stage) {
        const unsigned int to = memory + stage * TILE * SIZE;
        const bool exists = next + place < depth;
        const INDEX offset = ((INDEX)a * down.step * across.size + b * across.step) * all_in + c;
        const unsigned int tap_bits = 1u << (a & 15) | 1u << (16 + b);  // past the depth `a` is no tap
#pragma unroll
        for (int i = 0; i < COPIES; ++i) {
            const bool meets = exists && (inside[i] & tap_bits) == tap_bits;
            copy<VECTOR>(to + ((thread / ACROSS + i * DOWN) * DEEP + place) * SIZE, source + (base[i] + offset), meets);
        }
        if (BACKWARD) {
            const int tap = (down.first + a * down.every) * filter_width + across.first + b * across.every;
#pragma unroll
            for (int i = 0; i < ROUNDS(BN, DOWN); ++i) {
                const int n = thread / ACROSS + i * DOWN;
                if (n >= BN) break;
                const bool is_filter = exists && first_column + n < out;
                const INDEX from = ((INDEX)tap * out + first_column + n) * all_in + group * in + c;
                copy<VECTOR>(to + (A_TILE + n * DEEP + place) * SIZE, filters + from, is_filter);
            }
        } else {
#pragma unroll
            for (int j = 0; j < ROUNDS(BK * BN, THREADS * WIDE); ++j) {
                const int i = (thread + j * THREADS) * WIDE;
                if (i >= BK * BN) break;
                const int k = next + i / BN, f = first_column + i % BN;
                const bool is_filter = k < depth && f < out;
                copy<WIDE>(to + (A_TILE + i / BN * (BN + 8) + i % BN) * SIZE,
                           filters + ((INDEX)k * all_out + group * out + f), is_filter);
            }
        }
        end_tile();
        next += BK;
        c += step_c, b += step_b, a += step_a;
        if (c >= in) c -= in, ++b;
        if (b >= taps_across) b -= taps_across, ++a;
    };
    float sums[ROW_TILES][COLUMN_TILES][4] = {};
    for (int stage = 0; stage < STAGES - 1; ++stage) load(stage);
    for (int k = 0, reading = 0; k < depth; k += BK) {
        wait_for_tile();
        load(reading == 0 ? STAGES - 1 : reading - 1);  // into the tile that was read last
        const T *tile = tiles + reading * TILE;
        multiply_tile<true, BACKWARD>(sums, tile + row * DEEP, tile + A_TILE + column * (BACKWARD ? DEEP : 1));
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
