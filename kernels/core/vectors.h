// What every C kernel is written with. A file of kernels is compiled once for each type and each level of processor.
//
// Given by the build (build_native.py): T, the type in memory (_Float16, float or double), T_NAME, its name, LEVEL, the
// processor's, and VECTOR_BYTES, how wide its vectors are (16, 32 or 64).
//
// Sums and intermediate results have the type A, which is float for _Float16 and else T. A kernel works on whole vectors
// of LANES numbers of type A, through `load` and `store`, and on the rest one by one, through `get` and `put`.
//
// Nothing is contracted: a * b + c rounds twice, as NumPy does; `fma` rounds once, where a comment says so. A kernel
// runs in one thread, over the range of images or rows that it is given; core/pool.c gives ranges to threads. It
// allocates nothing and calls no library: memory beyond a few fixed-size arrays is given by the caller. Arrays whose
// size is a parameter lie in stack memory, where fixed ones lie in registers: give accumulators constant sizes.
#pragma once

typedef long long index; // of an element, a pixel or a row

#ifdef T_IS_HALF
typedef float A;
#else
typedef T A;
#endif

#define LANES ((int)(VECTOR_BYTES / sizeof(A)))
#define TILE_VECTORS (VECTOR_BYTES == 32 ? 2 : 4) // that a tile of sums is wide: x86-64-v3 has 16 registers, others 32
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("clang loop unroll(full)")

// Vectors need no alignment: channels begin anywhere.
typedef A vec __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(A)), may_alias));
typedef T stored __attribute__((vector_size(VECTOR_BYTES / sizeof(A) * sizeof(T)), aligned(sizeof(T)), may_alias));
typedef __typeof__((vec){0} < (vec){0}) mask; // all bits of a lane set, or none
typedef unsigned char bytes __attribute__((vector_size(VECTOR_BYTES / sizeof(A)), aligned(1), may_alias));

INLINE vec load(const T *p) { return __builtin_convertvector(*(const stored *)p, vec); }
INLINE void store(T *p, vec value) { *(stored *)p = __builtin_convertvector(value, stored); }
INLINE vec load_sums(const A *p) { return *(const vec *)p; }
INLINE void store_sums(A *p, vec value) { *(vec *)p = value; }
INLINE A get(const T *p) { return (A)*p; }
INLINE void put(T *p, A value) { *p = (T)value; }
INLINE vec all(A value) { return value - (vec){0}; } // keeps -0 and NaN
INLINE vec fma(vec a, vec b, vec c) { return __builtin_elementwise_fma(a, b, c); }
INLINE vec choose(mask condition, vec yes, vec no) { return (vec)(((mask)yes & condition) | ((mask)no & ~condition)); }

// As a number of type T: a float may be above 0, and 0 as a _Float16.
INLINE vec rounded(vec value) { return __builtin_convertvector(__builtin_convertvector(value, stored), vec); }

// max(value, 0): NaN passes, and max(-0, 0) is +0.
INLINE vec rectified(vec value) { return choose(value <= all(0), all(0), value); }

// Which lanes are set, as bytes 0 and 1: NumPy's bool.
INLINE void store_mask(unsigned char *p, mask condition) { *(bytes *)p = __builtin_convertvector(-condition, bytes); }
INLINE mask load_mask(const unsigned char *p) { return -__builtin_convertvector(*(const bytes *)p, mask); }

// Numbers of two vectors in turn: of their first halves, a0 b0 a1 b1 …, and of their second halves.
#ifdef T_IS_DOUBLE
#define LANE_BYTES 8
#else
#define LANE_BYTES 4
#endif
#if VECTOR_BYTES / LANE_BYTES == 16
#define LOW_HALVES(a, b)                                                                                               \
    __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define HIGH_HALVES(a, b)                                                                                              \
    __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#elif VECTOR_BYTES / LANE_BYTES == 8
#define LOW_HALVES(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define HIGH_HALVES(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#elif VECTOR_BYTES / LANE_BYTES == 4
#define LOW_HALVES(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define HIGH_HALVES(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#else
#define LOW_HALVES(a, b) __builtin_shufflevector(a, b, 0, 2)
#define HIGH_HALVES(a, b) __builtin_shufflevector(a, b, 1, 3)
#endif

// Transpose LANES vectors in place: interleaving the first half of them with the second rotates the bits of the numbers'
// places by one, so that rows and columns have changed places after as many times as LANES has bits.
INLINE void transpose(vec *block) {
    UNROLL for (int times = LANES; times > 1; times /= 2) {
        vec mixed[LANES];
        UNROLL for (int i = 0; i < LANES / 2; ++i) {
            mixed[2 * i] = LOW_HALVES(block[i], block[i + LANES / 2]);
            mixed[2 * i + 1] = HIGH_HALVES(block[i], block[i + LANES / 2]);
        }
        UNROLL for (int i = 0; i < LANES; ++i) block[i] = mixed[i];
    }
}

// Fewer numbers than a vector has, the last ones of an array or of a pixel. Other lanes are 0, or as `load_part` finds
// them in memory before `end`, and are not written.
INLINE void copy_some(void *to, const void *from, index count, int bytes) {
    UNROLL for (int some = LANES; some; some /= 2) if (count & some) {
        __builtin_memcpy(to, from, some * bytes);
        to = (char *)to + some * bytes;
        from = (const char *)from + some * bytes;
    }
}
INLINE vec load_some(const T *p, index count) {
    T lanes[LANES] = {0};
    copy_some(lanes, p, count, sizeof(T));
    return load(lanes);
}
INLINE vec load_part(const T *p, index count, const T *end) {
    return count == LANES || end - p >= LANES ? load(p) : load_some(p, count);
}
typedef _Bool chosen __attribute__((ext_vector_type(VECTOR_BYTES / sizeof(A))));
typedef T chosen_numbers __attribute__((ext_vector_type(VECTOR_BYTES / sizeof(A))));
typedef unsigned char chosen_bytes __attribute__((ext_vector_type(VECTOR_BYTES / sizeof(A))));
INLINE mask first_lanes(index count) {
    mask lane = {0};
    UNROLL for (int i = 0; i < LANES; ++i) lane[i] = i < count ? -1 : 0;
    return lane;
}
INLINE chosen choose_first(index count) { return __builtin_convertvector(first_lanes(count), chosen); }
INLINE void store_some(T *p, vec value, index count) {
    __builtin_masked_store(choose_first(count), (chosen_numbers)__builtin_convertvector(value, stored), p);
}
INLINE void store_some_mask(unsigned char *p, mask condition, index count) {
    __builtin_masked_store(choose_first(count), (chosen_bytes)__builtin_convertvector(-condition, bytes), p);
}
INLINE mask load_some_mask(const unsigned char *p, index count) {
    mask lanes = {0};
    for (index i = 0; i < count; ++i)
        lanes[i] = -p[i];
    return lanes;
}

// A whole vector, or fewer numbers.
INLINE vec load_up_to(const T *p, index count) { return count == LANES ? load(p) : load_some(p, count); }
INLINE mask load_mask_up_to(const unsigned char *p, index count) {
    return count == LANES ? load_mask(p) : load_some_mask(p, count);
}
INLINE void store_up_to(T *p, vec value, index count) {
    if (count == LANES)
        store(p, value);
    else
        store_some(p, value, count);
}
INLINE void store_mask_up_to(unsigned char *p, mask condition, index count) {
    if (count == LANES)
        store_mask(p, condition);
    else
        store_some_mask(p, condition, count);
}

// What an elementwise kernel does: `step(i, own)` for the numbers from `first` to `last`, a vector at a time, of which
// the last may have fewer of its `own`. A number gets the same bits wherever a range ends.
#define EACH(step)                                                                                                     \
    index i = first;                                                                                                   \
    for (; i + LANES <= last; i += LANES) {                                                                            \
        step(i, LANES)                                                                                                 \
    }                                                                                                                  \
    if (i < last) {                                                                                                    \
        step(i, last - i)                                                                                              \
    }                                                                                                                  \
    (void)count;

INLINE index least(index a, index b) { return a < b ? a : b; }
INLINE index most(index a, index b) { return a > b ? a : b; }
INLINE index common_divisor(index a, index b) {
    while (b) {
        const index rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

// A window over images: kernels.core.geometry.STRUCT.
typedef struct {
    int channels, height, width, out_height, out_width, kernel_height, kernel_width, stride_height, stride_width,
        pad_top, pad_left, dilation_height, dilation_width;
} Geometry;

// The head of a function that Python calls, `KERNEL(max_pool)(const T *x /* images * pixels * channels */, …)`, always
// of type void. Python reads the parameters from the source: pointers, Geometry, index, int and double. A comment
// behind an array is the number of its elements, as in prelude.cu; one may be NULL where it begins with "NULL or".
#define JOINED3(name, type, level) name##_##type##_##level
#define JOINED(name, type, level) JOINED3(name, type, level)
#ifdef _WIN32
#define EXPORTED __declspec(dllexport)
#else
#define EXPORTED __attribute__((visibility("default")))
#endif
#define KERNEL(name) EXPORTED void JOINED(name, T_NAME, LEVEL)
