// What every kernel file may use. It stands before each file's own text: no file includes another, since NVRTC
// alone has no headers.
//
// Macros given: T (half16, float or double), ACC (the type of sums: float for half16, else T), INDEX (int or long
// long), T_IS_FLOAT16 / T_IS_FLOAT32 / T_IS_FLOAT64.

// An IEEE half-precision number, kept as its bits: cuda_fp16.h would need the CUDA headers.
struct half16 { unsigned short bits; };

__device__ __forceinline__ float widen(half16 value) {
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
    return result;
}
__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ double widen(double value) { return value; }

// Rounds to nearest, ties to even, as NumPy's astype does.
__device__ __forceinline__ void narrow(float value, half16 &result) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
}
__device__ __forceinline__ void narrow(float value, float &result) { result = value; }
__device__ __forceinline__ void narrow(double value, double &result) { result = value; }

// A grid-stride loop over `count` elements: neighbouring threads have neighbouring elements.
#define FOR_EACH(i, count)                                                                          \
    for (INDEX i = (INDEX)blockIdx.x * blockDim.x + threadIdx.x; i < (count);                       \
         i += (INDEX)gridDim.x * blockDim.x)
