// The gradients of a convolution's filters and bias on tensor cores, as convolution_weight.cu makes them, for windows at
// a stride of 1 with a multiple of 16 channels and few filters: a pixel is copied to shared memory once for all taps.
// (tensor_cores.cu, pixels.cu and add_parts.cu are put before this text.)
//
// The depth is not the windows, but the places of lines that are as wide as the image and its padding: padding behind a
// line is that before the next, and images lie one below the other in the same way. Where a place is no window, dy
// counts as 0. So the pixel of tap (a, b) of place p is that of place p + a·line + b·dilation - padding, for every p.
// A pixel at the edge that is not finite makes NaN of more taps of its channel than meet it: 0 times that is NaN.
//
// blockIdx.x is 16 channels of x, with all TAPS; blockIdx.y a group and a tile of BN of its filters; blockIdx.z a part
// of the places. A tile is BK places of dy, and the pixels that their taps meet. WN warps share the filters, 16 each,
// and WM the steps along the depth: a warp holds dy's numbers of a step, and goes through the taps. At last the sums of
// the WM are added up. conv_add_parts adds up the parts.
//
// Deterministic: one thread makes each number of a part, in one order, and the parts are added in one order.
//
// Least bytes: as convolution_weight.cu. Pixels between two tiles are asked for twice.
//
// Macros beside those of tensor_cores.cu: TAPS_DOWN TAPS_ACROSS. BM is 16 · TAPS_DOWN · TAPS_ACROSS.

#define CHANNELS 16
#define ROW (CHANNELS + 8)  // numbers from a pixel to the next
#define TAPS (TAPS_DOWN * TAPS_ACROSS)

#if TENSOR_CORES

// sums += a·b for a warp's steps of a tile: `x` and `dy` are its pixels for the first tap and its places, from this warp's
// first step and filter on; taps are `line` and `dilation` pixels apart.
__device__ __forceinline__ void multiply_taps(
    float (&sums)[TAPS][2][4], const T *x, const T *dy, int line, int dilation) {
    const int lane = threadIdx.x % 32;
#pragma unroll 1
    for (int k = 0; k < BK; k += 16 * WM, x += 16 * WM * ROW, dy += 16 * WM * (BN + 8)) {
#if T_IS_FLOAT16
        unsigned int of_b[2][2];
#pragma unroll
        for (int j = 0; j < 2; ++j) load_matrices<true>(of_b[j], shared_address(dy + lane % 16 * (BN + 8) + 8 * j));
        const T *own = x + (lane % 8 + lane / 16 * 8) * ROW + lane / 8 % 2 * 8;
#pragma unroll
        for (int tap = 0; tap < TAPS; ++tap) {
            unsigned int of_a[4];
            load_matrices<true>(
                of_a, shared_address(own + (tap / TAPS_ACROSS * line + tap % TAPS_ACROSS * dilation) * ROW));
#pragma unroll
            for (int j = 0; j < 2; ++j) multiply(sums[tap][j], of_a, of_b[j]);
        }
#else
        const T *own = x + lane % 4 * ROW + lane / 4, *own_b = dy + lane % 4 * (BN + 8) + lane / 4;
        unsigned int big_b[2][2][2], small_b[2][2][2];
#pragma unroll
        for (int i = 0; i < 8; ++i) {  // filters, then two steps of 8 places
            const int j = i / 4, step = i / 2 % 2, r = i % 2;
            split(__float_as_uint(own_b[(8 * step + 4 * r) * (BN + 8) + 8 * j]), big_b[j][step][r], small_b[j][step][r]);
        }
#pragma unroll
        for (int tap = 0; tap < TAPS; ++tap) {
            const T *pixels = own + (tap / TAPS_ACROSS * line + tap % TAPS_ACROSS * dilation) * ROW;
            unsigned int big_a[2][4], small_a[2][4];
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                const int step = i / 4, r = i % 4;
                split(__float_as_uint(pixels[(8 * step + r / 2 * 4) * ROW + r % 2 * 8]), big_a[step][r], small_a[step][r]);
            }
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                if (PASSES == 1) {
#pragma unroll
                    for (int step = 0; step < 2; ++step) multiply(sums[tap][j], big_a[step], big_b[j][step]);
                    continue;
                }
                float part[4] = {};
#pragma unroll
                for (int step = 0; step < 2; ++step) {
                    multiply(part, small_a[step], big_b[j][step]);
                    multiply(part, big_a[step], small_b[j][step]);
                }
#pragma unroll
                for (int step = 0; step < 2; ++step) multiply(part, big_a[step], big_b[j][step]);
#pragma unroll
                for (int r = 0; r < 4; ++r) sums[tap][j][r] += part[r];
            }
        }
#endif
    }
}

#endif  // TENSOR_CORES

// parts[blockIdx.z]: the gradient of the filters over part_pixels places from blockIdx.z·part_pixels on; where with_bias,
// one more row with that of the bias, which the blocks of the first channels add up on their way.
extern "C" __global__ void __launch_bounds__(THREADS, 2) conv_backward_weight(
    const T *__restrict__ x /* images * pixels * channels */,
    const T *__restrict__ dy /* images * windows * out_channels */, float *__restrict__ parts, Geometry g, int images,
    int out_channels, int groups, INDEX part_pixels, int with_bias) {
#if TENSOR_CORES
    constexpr int ACROSS = CHANNELS / VECTOR, DOWN = THREADS / ACROSS;  // threads that share a pixel; pixels at once
    constexpr int ACROSS_DY = BN / WIDE, DOWN_DY = THREADS / ACROSS_DY;
    static_assert(THREADS % ACROSS == 0 && THREADS % ACROSS_DY == 0, "threads share them evenly");
    static_assert(BK % (16 * WM) == 0 && BN == 16 * WN, "warps share them evenly");
    extern __shared__ __align__(16) unsigned char memory[];
    T *const tiles = (T *)memory;
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32, column = warp / WM * 16;
    const int in = g.channels / groups, out = out_channels / groups, depth = TAPS * in;
    const int blocks = (out + BN - 1) / BN, group = blockIdx.y / blocks, first_column = blockIdx.y % blocks * BN;

    // Places: as many behind a line as padding before it, or behind it.
    const int beyond_right = g.out_width - 1 - g.pad_left + (TAPS_ACROSS - 1) * g.dilation_width - (g.width - 1);
    const int beyond_below = g.out_height - 1 - g.pad_top + (TAPS_DOWN - 1) * g.dilation_height - (g.height - 1);
    const int width = g.width + max(max(g.pad_left, beyond_right), 0);
    const int lines = g.height + max(max(g.pad_top, beyond_below), 0);
    const int line = g.dilation_height * width;
    const int pixels = BK + (TAPS_DOWN - 1) * line + (TAPS_ACROSS - 1) * g.dilation_width;
    const int size = pixels * ROW + BK * (BN + 8);
    const INDEX places = (INDEX)images * lines * width, begin = blockIdx.z * part_pixels;
    const INDEX end = begin + part_pixels < places ? begin + part_pixels : places;

    // What this thread copies first of the next tile. Before the first image there is padding: images count from 1 here.
    Pixel of_x = pixel_at(begin + (lines - g.pad_top) * width - g.pad_left + thread / ACROSS, width, lines);
    Pixel of_dy = pixel_at(begin + thread / ACROSS_DY, width, lines);
    const Pixel tile = pixel_at(BK, width, lines), step = pixel_at(DOWN, width, lines);
    const Pixel step_dy = pixel_at(DOWN_DY, width, lines);
    const T *own_x = x + (group * in + blockIdx.x * CHANNELS + thread % ACROSS * VECTOR);
    const int f = first_column + thread % ACROSS_DY * WIDE;
    const T *own_dy = dy + (group * out + f);

    auto load = [&](int stage) {
        const unsigned int to = shared_address(tiles + stage * size);
        Pixel pixel = of_x;
#pragma unroll 1
        for (int i = thread / ACROSS; i < pixels; i += DOWN) {
            const INDEX image = pixel.image - 1;
            const bool exists = image >= 0 && image < images && pixel.h < g.height && pixel.w < g.width;
            copy<VECTOR>(to + (i * ROW + thread % ACROSS * VECTOR) * SIZE,
                         own_x + ((image * g.height + pixel.h) * g.width + pixel.w) * g.channels, exists);
            move(pixel, step, width, lines);
        }
        pixel = of_dy;
#pragma unroll 1
        for (int i = thread / ACROSS_DY; i < BK; i += DOWN_DY) {
            const bool exists = f < out && pixel.image < images && pixel.h < g.out_height && pixel.w < g.out_width;
            copy<WIDE>(to + (pixels * ROW + i * (BN + 8) + thread % ACROSS_DY * WIDE) * SIZE,
                       own_dy + ((pixel.image * g.out_height + pixel.h) * g.out_width + pixel.w) * out_channels, exists);
            move(pixel, step_dy, width, lines);
        }
        end_tile();
        move(of_x, tile, width, lines);
        move(of_dy, tile, width, lines);
    };
    float sums[TAPS][2][4] = {}, bias = 0;
    const bool sums_bias = with_bias && blockIdx.x == 0;
    for (int stage = 0; stage < STAGES - 1; ++stage) load(stage);
    INDEX p = begin;
    for (int reading = 0; p < end; p += BK) {
        wait_for_tile();
        load(reading == 0 ? STAGES - 1 : reading - 1);  // into the tile that was read last
        const T *from = tiles + reading * size, *of_filters = from + pixels * ROW;
        const int first = warp % WM * 16;
        multiply_taps(sums, from + first * ROW, of_filters + first * (BN + 8) + column, line, g.dilation_width);
        if (sums_bias) add_own_column(bias, of_filters);
        reading = reading + 1 == STAGES ? 0 : reading + 1;
    }
    wait_for_all();
    __syncthreads();  // the last tile is read

    // Warps that share filters leave their sums to the first of them, which adds them in order.
    float *room = (float *)tiles + (warp / WM * (WM - 1) * TAPS * 8) * 32 + lane;
    if (warp % WM)
#pragma unroll
        for (int i = 0; i < TAPS * 8; ++i)
            room[((warp % WM - 1) * TAPS * 8 + i) * 32] = sums[i / 8][i / 4 % 2][i % 4];
    __syncthreads();
    float *part = parts + (INDEX)blockIdx.z * (depth + with_bias) * out_channels + group * out;
    if (warp % WM == 0)
#pragma unroll
        for (int i = 0; i < TAPS * 8; ++i) {
            float sum = sums[i / 8][i / 4 % 2][i % 4];
#pragma unroll
            for (int w = 0; w < WM - 1; ++w) sum += room[(w * TAPS * 8 + i) * 32];
            const int k = i / 8 * in + blockIdx.x * CHANNELS + lane / 4 + i % 4 / 2 * 8;
            const int n = first_column + column + i / 4 % 2 * 8 + lane % 4 * 2 + i % 2;
            if (n < out) part[(INDEX)k * out_channels + n] = sum;
        }
    if (sums_bias)
        leave_columns(part + (INDEX)depth * out_channels + first_column, bias, (float *)tiles, out - first_column);
#endif
}
