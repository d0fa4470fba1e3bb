// Definitions for every kernel file. A comment behind an array in a kernel's signature, /* count / windows * pixels */, is
// code: the host holds the array's size to it at each launch, by the names of other parameters and of Geometry's
// members, where pixels, windows and taps are the products of height and width.
//
// This text is put before each file's own: no file includes another, since NVRTC alone has no headers.
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

// A product that is rounded before it is added: the compiler would make one fused operation of the two, and other bits
// than the twin's.
__device__ __forceinline__ float rounded_product(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ double rounded_product(double a, double b) { return __dmul_rn(a, b); }

// A grid-stride loop over `count` elements: neighbouring threads have neighbouring elements.
#define FOR_EACH(i, count)                                                                          \
    for (INDEX i = (INDEX)blockIdx.x * blockDim.x + threadIdx.x; i < (count);                       \
         i += (INDEX)gridDim.x * blockDim.x)

// Neighbouring numbers that a thread reads or writes at once: 16 bytes of them, where rows and arrays begin at multiples of
// that.
#define TOGETHER (16 / (int)sizeof(T))

template <int MANY> struct alignas(MANY * sizeof(T)) Numbers { T at[MANY]; };
template <int MANY> struct alignas(MANY) Flags { unsigned char at[MANY]; };

template <int MANY>
__device__ __forceinline__ Numbers<MANY> numbers_at(const T *from) { return *(const Numbers<MANY> *)from; }

// Whether a row's numbers, or none, can be read and written so, and in another array a byte for each.
__device__ __forceinline__ bool is_together(
    int row, const void *a, const void *b, const void *c = 0, const unsigned char *bytes = 0) {
    return row % TOGETHER == 0 && ((size_t)a | (size_t)b | (size_t)c) % 16 == 0 && (size_t)bytes % TOGETHER == 0;
}

// A number of an (images, rows, columns, channels) array, from its index.
struct Position { INDEX image; int row, column, channel; };

__device__ __forceinline__ Position position_of(INDEX i, int rows, int columns, int channels) {
    const INDEX pixel = i / channels, line = pixel / columns, image = line / rows;
    return {image, (int)(line - image * rows), (int)(pixel - line * columns), (int)(i - pixel * channels)};
}

// A window over images: kernels.core.geometry.Geometry, passed by value. tests/cuda compares the two layouts.
struct Geometry {
    int channels, height, width, out_height, out_width, kernel_height, kernel_width, stride_height, stride_width,
        pad_top, pad_left, dilation_height, dilation_width;
};

// Along one axis, the windows that contain a pixel, tap after tap: tap t lies on it in the window that starts at
// pixel + pad - t·dilation, if that is a multiple of the stride, and no less than 0. Quotient and remainder by the
// stride are divided out for tap 0; from a tap to the next they go down by those of the dilation, with a borrow.
struct Start { int window, rest; };

__device__ __forceinline__ Start start_of(int place, int stride) {
    const int window = place / stride;
    return {window, place - window * stride};
}

__device__ __forceinline__ void next_tap(Start &start, Start step, int stride) {
    start.window -= step.window;
    start.rest -= step.rest;
    if (start.rest < 0) {
        start.rest += stride;
        --start.window;
    }
}

__device__ __forceinline__ bool exists(Start start, int windows) {
    return start.rest == 0 && start.window >= 0 && start.window < windows;
}
