// Convolution as an implicit matrix product on tensor cores, for sm_80 and newer: the columns that im2col would write
// exist only as tiles in shared memory.
//
// x: (N, H, W, C), filters: (FH, FW, C/groups, FN), y: (N, OH, OW, FN). Three products, each of a matrix (rows, depth)
// and a matrix (depth, columns):
//   forward:          y  = windows of x (pixels, taps·C/groups) by filters (taps·C/groups, FN/groups)
//   input gradient:   dx = windows of dy (pixels, taps·FN/groups) by filters, transposed tap by tap
//   weight gradient:  dw = windows of x, transposed (taps·C/groups, pixels), by dy (pixels, FN/groups)
// The input gradient at stride s is s·s such products: pixels with the same remainder by the stride meet the same taps,
// which are every s-th (blockIdx.z is the remainder), so that no product with a zero is made.
//
// A block makes BM rows by BN columns of the result, its WM·WN warps each an equal part. It goes through the depth BK
// at a time: cp.async copies the tiles of both matrices to shared memory, STAGES - 1 tiles ahead, padding as zeros;
// ldmatrix (or single loads, where numbers of 4 bytes lie transposed) hands them to the tensor cores. A thread copies
// VECTOR neighbouring numbers of the windows and WIDE of the other matrix at once. Rows of a tile are padded by 16 or
// 32 bytes, so that no two lanes of a load meet in one bank.
//
// float16: one product of float16 numbers, summed in float32. float32 with PASSES 1: one product of TF32, operands
// rounded to 10 bits of fraction. float32 with PASSES 3: each number is the sum of two of TF32, a = big + small, and
// a·b = small·big + big·small + big·big, with an error near that of float32. Tensor cores truncate their sums instead
// of rounding them, which would add up over the depth: so they sum 16 terms only, small ones first, and these sums are
// added in float32 proper. An infinity gives NaN there (infinity - infinity), and so do numbers within 0.03 % of the
// largest.
//
// Deterministic: one thread writes each number, and all sums have a fixed order. The weight gradient is cut into parts
// of the pixels (blockIdx.z), as many as the shapes alone say, which conv_add_parts adds up in order.
//
// Least bytes: source, filters and result once each; parts of a weight gradient are written and read once more.
//
// Macros beside those of the prelude, from kernels/core/tensor_tiles.py: BM BN BK STAGES WM WN PASSES VECTOR WIDE, and
// KERNEL, which of the products is compiled (1 forward, 2 input gradient, 3 weight gradient).

#ifndef T_IS_FLOAT16
#define T_IS_FLOAT16 0
#endif

#define THREADS (32 * WM * WN)
#define ROW_TILES (BM / WM / 16)    // of a warp, 16 rows each
#define COLUMN_TILES (BN / WN / 8)  // of a warp, 8 columns each
#define DEEP (BK + 16 / (int)sizeof(T))  // numbers from a row to the next of a tile that lies along the depth
#define SIZE ((int)sizeof(T))
#define ROUNDS(COUNT, STEP) (((COUNT) + (STEP) - 1) / (STEP))  // of a loop that the compiler has to unroll whole

// Older GPUs and float64 take im2col and cuBLAS: for them the kernels are empty.
#if !defined(T_IS_FLOAT64) && (!defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800)
#define TENSOR_CORES 1
#else
#define TENSOR_CORES 0
#endif

#if TENSOR_CORES

__device__ __forceinline__ unsigned int shared_address(const void *place) {
    return (unsigned int)__cvta_generic_to_shared(place);
}

// Copies COUNT numbers to shared memory, or zeros where they do not exist; `from` may then be any address.
// Numbers of two bytes are copied at once, others until wait_for_tile says so.
template <int COUNT>
__device__ __forceinline__ void copy(unsigned int to, const T *from, bool exists) {
    const int bytes = exists ? COUNT * SIZE : 0;
    if (COUNT * SIZE == 16)
        asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
    else if (COUNT * SIZE == 8)
        asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
    else if (COUNT * SIZE == 4)
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
    else {
        const unsigned short bits = exists ? *(const unsigned short *)from : 0;
        asm volatile("st.shared.u16 [%0], %1;" ::"r"(to), "h"(bits) : "memory");
    }
}

// Ends the copies of a tile; each thread does so for each tile, also where it has nothing to copy.
__device__ __forceinline__ void end_tile() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until the oldest tile under way is there, and all threads know.
__device__ __forceinline__ void wait_for_tile() {
    asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2) : "memory");
    __syncthreads();
}
__device__ __forceinline__ void wait_for_all() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// Four or two matrices of 8 rows of 16 bytes; lane 8i + r gives the address of row r of matrix i. Transposed, for
// numbers of two bytes, on request.
template <bool TRANSPOSED>
__device__ __forceinline__ void load_matrices(unsigned int (&r)[4], unsigned int at) {
    if (TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}
template <bool TRANSPOSED>
__device__ __forceinline__ void load_matrices(unsigned int (&r)[2], unsigned int at) {
    if (TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                     : "=r"(r[0]), "=r"(r[1]) : "r"(at) : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                     : "=r"(r[0]), "=r"(r[1]) : "r"(at) : "memory");
}

// d += a·b for 16 rows, 8 columns and a depth of 16 (float16) or 8 (TF32).
__device__ __forceinline__ void multiply(float (&d)[4], const unsigned int (&a)[4], const unsigned int (&b)[2]) {
#if T_IS_FLOAT16
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// A number in TF32: rounded to nearest (PASSES 1), or as two that add up to it but for its last bits (PASSES 3; by
// whole numbers, which are faster; the tensor cores leave out what `small` has beyond TF32). A NaN stays one in either.
__device__ __forceinline__ void split(unsigned int bits, unsigned int &big, unsigned int &small) {
    if (PASSES == 1) {
        asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(big) : "f"(__uint_as_float(bits)));
        return;
    }
    big = (bits + 0x1000u) & 0xffffe000u;
    small = __float_as_uint(__uint_as_float(bits) - __uint_as_float(big));
}

// sums += a·b for a warp's part of a tile. `a` lies as [BM][DEEP] (A_DEEP) or [BK][BM + 8], `b` as [BN][DEEP] (B_DEEP)
// or [BK][BN + 8]; both pointers are to the first row or column of the warp's part.
template <bool A_DEEP, bool B_DEEP>
__device__ __forceinline__ void multiply_tile(float (&sums)[ROW_TILES][COLUMN_TILES][4], const T *a, const T *b) {
    const int lane = threadIdx.x % 32;
#if T_IS_FLOAT16
#pragma unroll
    for (int k = 0; k < BK; k += 16) {
        unsigned int of_a[ROW_TILES][4], of_b[2];
#pragma unroll
        for (int i = 0; i < ROW_TILES; ++i) {
            const T *rows = A_DEEP ? a + (16 * i + lane % 16) * DEEP + k + lane / 16 * 8
                                   : a + (k + lane % 8 + lane / 16 * 8) * (BM + 8) + 16 * i + lane / 8 % 2 * 8;
            load_matrices<!A_DEEP>(of_a[i], shared_address(rows));
        }
#pragma unroll
        for (int j = 0; j < COLUMN_TILES; ++j) {
            const T *rows = B_DEEP ? b + (8 * j + lane % 8) * DEEP + k + lane / 8 % 2 * 8
                                   : b + (k + lane % 16) * (BN + 8) + 8 * j;
            load_matrices<!B_DEEP>(of_b, shared_address(rows));
#pragma unroll
            for (int i = 0; i < ROW_TILES; ++i) multiply(sums[i][j], of_a[i], of_b);
        }
    }
#else
    // Where a tile lies along the depth: from here on by constants alone.
    const T *own_a = a + lane % 4 * (BM + 8) + lane / 4, *own_b = b + lane % 4 * (BN + 8) + lane / 4;
#pragma unroll
    for (int k = 0; k < BK; k += 16) {  // as two steps of 8
        unsigned int big_a[2][ROW_TILES][4], small_a[2][ROW_TILES][4];
#pragma unroll
        for (int step = 0; step < 2; ++step)
#pragma unroll
            for (int i = 0; i < ROW_TILES; ++i) {
                unsigned int bits[4];
                if (A_DEEP)
                    load_matrices<false>(
                        bits, shared_address(a + (16 * i + lane % 16) * DEEP + k + 8 * step + lane / 16 * 4));
                else
#pragma unroll
                    for (int r = 0; r < 4; ++r)
                        bits[r] = __float_as_uint(
                            own_a[(k + 8 * step + r / 2 * 4) * (BM + 8) + 16 * i + r % 2 * 8]);
#pragma unroll
                for (int r = 0; r < 4; ++r) split(bits[r], big_a[step][i][r], small_a[step][i][r]);
            }
#pragma unroll
        for (int j = 0; j < COLUMN_TILES; ++j) {
            unsigned int bits[4], big_b[2][2], small_b[2][2];
            if (B_DEEP)
                load_matrices<false>(bits, shared_address(b + (8 * j + lane % 8) * DEEP + k + lane / 8 * 4));
            else
#pragma unroll
                for (int r = 0; r < 4; ++r)
                    bits[r] = __float_as_uint(own_b[(k + 4 * r) * (BN + 8) + 8 * j]);
#pragma unroll
            for (int r = 0; r < 4; ++r) split(bits[r], big_b[r / 2][r % 2], small_b[r / 2][r % 2]);
            if (PASSES == 1) {
#pragma unroll
                for (int step = 0; step < 2; ++step)
#pragma unroll
                    for (int i = 0; i < ROW_TILES; ++i) multiply(sums[i][j], big_a[step][i], big_b[step]);
                continue;
            }
            float part[ROW_TILES][4] = {};
#pragma unroll
            for (int step = 0; step < 2; ++step) {
#pragma unroll
                for (int i = 0; i < ROW_TILES; ++i) multiply(part[i], small_a[step][i], big_b[step]);
#pragma unroll
                for (int i = 0; i < ROW_TILES; ++i) multiply(part[i], big_a[step][i], small_b[step]);
            }
#pragma unroll
            for (int step = 0; step < 2; ++step)
#pragma unroll
                for (int i = 0; i < ROW_TILES; ++i) multiply(part[i], big_a[step][i], big_b[step]);
#pragma unroll
            for (int i = 0; i < ROW_TILES; ++i)
#pragma unroll
                for (int r = 0; r < 4; ++r) sums[i][j][r] += part[i][r];
        }
    }
#endif
}

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

// Writes two neighbouring numbers of the result, with bias and ReLU: of `out` columns in all, from `column` on.
__device__ __forceinline__ void store(
    T *to, unsigned char *positive, const T *bias, float first, float second, int column, int out, bool together) {
    float values[2] = {first, second};
    T numbers[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        if (bias && column + i < out) values[i] += widen(bias[column + i]);
        narrow(values[i], numbers[i]);
        if (positive) {  // of the rounded number, as ReLU after the convolution sees it
            const float rounded = widen(numbers[i]);
            if (column + i < out) positive[i] = rounded > 0;
            narrow(rounded < 0 ? 0.0f : rounded, numbers[i]);
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

// Forward and input gradient: the source's windows by the filters. `in` and `out` are channels of a group.
template <bool BACKWARD>
__device__ __forceinline__ void gather_product(
    const T *source, const T *filters, const T *bias, T *result, unsigned char *positive, int images, const Axis &down,
    const Axis &across, int in, int out, int groups, int filter_width, int height, int width, int rest_down,
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
                store(result + at, positive ? positive + at : positive, bias ? bias + group * out : bias,
                      sums[i][j][2 * half], sums[i][j][2 * half + 1], n, out, together);
            }
        }
}

#endif  // TENSOR_CORES

#if KERNEL == 1
// y = x ⋆ filters (+ bias, where not null); where `positive` is not null, max(·, 0) of that, and where it is above 0.
extern "C" __global__ void __launch_bounds__(THREADS, 2) conv_forward(
    const T *__restrict__ x /* images * pixels * channels */, const T *__restrict__ filters, const T *__restrict__ bias,
    T *__restrict__ y /* images * windows * out_channels */, unsigned char *__restrict__ positive, Geometry g,
    int images, int out_channels, int groups) {
#if TENSOR_CORES
    const Axis down =
        windows_of(g.height, g.out_height, g.stride_height, g.pad_top, g.dilation_height, g.kernel_height);
    const Axis across = windows_of(g.width, g.out_width, g.stride_width, g.pad_left, g.dilation_width, g.kernel_width);
    gather_product<false>(x, filters, bias, y, positive, images, down, across, g.channels / groups,
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
    gather_product<true>(dy, filters, nullptr, dx, nullptr, images, down, across, out_channels / groups,
                         g.channels / groups, groups, g.kernel_width, g.height, g.width, rest_down, rest_across,
                         g.stride_height, g.stride_width);
#endif
}
#endif

#if KERNEL == 3
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
    static_assert(THREADS % BN == 0 && STAGES * TILE * SIZE >= THREADS * 4, "the bias's sums have a place");
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
        multiply_tile<false, false>(sums, tile + row, tile + A_TILE + column);
        if (sums_bias)
            for (int k = thread / BN; k < BK; k += THREADS / BN)
                bias += widen(tile[A_TILE + k * (BN + 8) + thread % BN]);
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
    if (sums_bias) {
        float *of_thread = (float *)tiles;
        __syncthreads();  // the last tile is read
        of_thread[thread] = bias;
        __syncthreads();
        if (thread < BN && first_column + thread < out) {
            float total = 0;
            for (int i = thread; i < THREADS; i += BN) total += of_thread[i];
            part[(INDEX)depth * out_channels + first_column + thread] = total;
        }
    }
#endif
}

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
#endif
