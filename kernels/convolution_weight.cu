// The gradients of a convolution's filters and bias as an implicit matrix product on tensor cores (tensor_cores.cu and
// add_parts.cu are put before this text).
//
// x: (N, H, W, C), dy: (N, OH, OW, FN), dw: (FH, FW, C/groups, FN):
//   dw = windows of x, transposed (taps·C/groups, pixels), by dy (pixels, FN/groups)
//
// The depth is all pixels, many more than dw has numbers. So blockIdx.z is a part of them, as many parts as the shapes
// alone say; blockIdx.x is a tile of BM rows of dw, blockIdx.y a group and a tile of BN of its columns. A thread copies
// the same VECTOR channels of one tap for several pixels. conv_add_parts adds up the parts.
//
// Deterministic: one thread makes each number of a part, and the parts are added in one order.
//
// Least bytes: x, dy and dw once each; the parts, in float32, are written and read once more.

// parts[blockIdx.z]: the gradient of the filters over part_pixels windows from blockIdx.z·part_pixels on; where
// with_bias, one more row with that of the bias, which the blocks of the first columns add up on their way.
extern "C" __global__ void __launch_bounds__(THREADS, 2) conv_backward_weight(
    const T *__restrict__ x /* images * pixels * channels */,
    const T *__restrict__ dy /* images * windows * out_channels */, float *__restrict__ parts, Geometry g, int images,
    int out_channels, int groups, INDEX part_pixels, int with_bias) {
#if TENSOR_CORES
    constexpr int A_TILE = BK * (BM + 8), TILE = A_TILE + BK * (BN + 8);
    constexpr int ACROSS = BM / VECTOR, DOWN = THREADS / ACROSS, COPIES = BK / DOWN;
    static_assert(THREADS % ACROSS == 0 && BK % DOWN == 0, "a thread copies the same columns of several pixels");
    static_assert(STAGES * TILE * SIZE >= THREADS * 4, "the bias's sums have a place");
    __shared__ __align__(16) T tiles[STAGES * TILE];
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int row = warp % WM * 16 * ROW_TILES, column = warp / WM * 8 * COLUMN_TILES;
    const int in = g.channels / groups, out = out_channels / groups, depth = g.kernel_height * g.kernel_width * in;
    const int blocks = (out + BN - 1) / BN, group = blockIdx.y / blocks, first_column = blockIdx.y % blocks * BN;
    const int first_row = blockIdx.x * BM;
    const INDEX windows = (INDEX)images * g.out_height * g.out_width, begin = blockIdx.z * part_pixels;
    const INDEX end = begin + part_pixels < windows ? begin + part_pixels : windows;

    // The tap and channel that this thread copies, and the window, which moves on by DOWN digit by digit.
    const int m = first_row + thread % ACROSS * VECTOR, tap = m / in, c = group * in + m - tap * in;
    const int top = tap / g.kernel_width * g.dilation_height - g.pad_top;
    const int left = tap % g.kernel_width * g.dilation_width - g.pad_left;
    INDEX window = begin + thread / ACROSS, next = begin, image = window / g.out_width / g.out_height;
    int ow = (int)(window % g.out_width), oh = (int)(window / g.out_width % g.out_height);
    const int step_w = DOWN % g.out_width, step_h = DOWN / g.out_width % g.out_height;
    const int step_image = DOWN / g.out_width / g.out_height;
    const unsigned int memory = shared_address(tiles);

    auto load = [&](int stage) {
        const unsigned int to = memory + stage * TILE * SIZE;
#pragma unroll
        for (int i = 0; i < COPIES; ++i) {
            const int h = oh * g.stride_height + top, w = ow * g.stride_width + left;
            const bool meets = m < depth && window < end && h >= 0 && h < g.height && w >= 0 && w < g.width;
            copy<VECTOR>(to + ((thread / ACROSS + i * DOWN) * (BM + 8) + thread % ACROSS * VECTOR) * SIZE,
                         x + (((image * g.height + h) * g.width + w) * g.channels + c), meets);
            window += DOWN, ow += step_w, oh += step_h, image += step_image;
            if (ow >= g.out_width) ow -= g.out_width, ++oh;
            if (oh >= g.out_height) oh -= g.out_height, ++image;
        }
#pragma unroll
        for (int j = 0; j < ROUNDS(BK * BN, THREADS * WIDE); ++j) {
            const int i = (thread + j * THREADS) * WIDE;
            if (i >= BK * BN) break;
            const INDEX p = next + i / BN;
            const int f = first_column + i % BN;
            const bool exists = p < end && f < out;
            copy<WIDE>(to + (A_TILE + i / BN * (BN + 8) + i % BN) * SIZE,
                       dy + (p * out_channels + group * out + f), exists);
        }
        end_tile();
        next += BK;
    };
    float sums[ROW_TILES][COLUMN_TILES][4] = {}, bias = 0;
    const bool sums_bias = with_bias && blockIdx.x == 0;
    for (int stage = 0; stage < STAGES - 1; ++stage) load(stage);
    INDEX p = begin;
    for (int reading = 0; p < end; p += BK) {
        wait_for_tile();
        load(reading == 0 ? STAGES - 1 : reading - 1);  // into the tile that was read last
        const T *tile = tiles + reading * TILE;
        multiply_tile<false, false>(sums, tile + row, [](int) { return 0; }, tile + A_TILE + column);
        if (sums_bias) add_own_column(bias, tile + A_TILE);
        reading = reading + 1 == STAGES ? 0 : reading + 1;
    }
    wait_for_all();

    float *part = parts + (INDEX)blockIdx.z * (depth + with_bias) * out_channels + group * out;
#pragma unroll
    for (int i = 0; i < ROW_TILES; ++i)
#pragma unroll
        for (int j = 0; j < COLUMN_TILES; ++j)
#pragma unroll
            for (int r = 0; r < 4; ++r) {
                const int k = first_row + row + 16 * i + lane / 4 + r / 2 * 8;
                const int f = first_column + column + 8 * j + lane % 4 * 2 + r % 2;
                if (k < depth && f < out) part[(INDEX)k * out_channels + f] = sums[i][j][r];
            }
    if (sums_bias)
        leave_columns(part + (INDEX)depth * out_channels + first_column, bias, (float *)tiles, out - first_column);
#endif
}
