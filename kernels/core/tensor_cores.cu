// The product of two tiles in shared memory by a block's tensor cores, and the copies that fill them, for sm_80 and
// newer. This text is put behind the prelude, before convolution.cu, convolution_weight.cu, convolution_weight_halo.cu and
// what these are joined with.
//
// A block makes BM rows by BN columns of a result, its WM·WN warps each an equal part. It goes through the depth BK
// at a time: cp.async copies the tiles of both matrices to shared memory, STAGES - 1 tiles ahead, padding as zeros (of
// pixels that stay there for all taps, the filters alone); ldmatrix (or single loads, where numbers of 4 bytes lie
// transposed) hands them to the tensor cores. A thread copies VECTOR neighbouring numbers of the windows and WIDE of the
// other matrix at once. Rows of a tile are padded by 16 or 32 bytes, so that no two lanes of a load meet in one bank; of
// a halo, where eight rows are of one line.
//
// float16: one product of float16 numbers, summed in float32. float32 with PASSES 1: one product of TF32, operands
// rounded to 10 bits of fraction. float32 with PASSES 3: each number is the sum of two of TF32, a = big + small, and
// a·b = small·big + big·small + big·big, with an error near that of float32. Tensor cores truncate their sums instead
// of rounding them, which would add up over the depth: so they sum 16 terms only, small ones first, and these sums are
// added in float32 proper. An infinity gives NaN there (infinity - infinity), and so do numbers within 0.03 % of the
// largest.
//
// Deterministic: a thread adds up its own numbers of the result, in the order of the depth.
//
// Macros beside those of the prelude, from kernels/core/tensor_tiles.py: BM BN BK STAGES WM WN PASSES VECTOR WIDE.

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
// or [BK][BN + 8]; both pointers are to the first row or column of the warp's part. With A_DEEP, though, rows of `a` lie
// anywhere: row 16·i + lane % 16 does at a + own_row(i).
template <bool A_DEEP, bool B_DEEP, class OwnRow>
__device__ __forceinline__ void multiply_tile(
    float (&sums)[ROW_TILES][COLUMN_TILES][4], const T *a, const OwnRow &own_row, const T *b) {
    const int lane = threadIdx.x % 32;
#if T_IS_FLOAT16
#pragma unroll
    for (int k = 0; k < BK; k += 16) {
        unsigned int of_a[ROW_TILES][4], of_b[2];
#pragma unroll
        for (int i = 0; i < ROW_TILES; ++i) {
            const T *rows = A_DEEP ? a + own_row(i) + k + lane / 16 * 8
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
                    load_matrices<false>(bits, shared_address(a + own_row(i) + k + 8 * step + lane / 16 * 4));
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

#endif  // TENSOR_CORES
