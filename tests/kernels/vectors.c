// What core/vectors.h gives, one function each, for test_vectors.py and test_native.py.

#include "core/vectors.h"

KERNEL(sizes)(int *out /* 4 */) {
    out[0] = LANES;
    out[1] = VECTOR_BYTES;
    out[2] = sizeof(A);
    out[3] = sizeof(Geometry);
}

KERNEL(fields)(const Geometry *g, int *out /* 13 */) {
    const int values[] = {g->channels,     g->height,        g->width,        g->out_height, g->out_width,
                          g->kernel_height, g->kernel_width, g->stride_height, g->stride_width, g->pad_top,
                          g->pad_left,     g->dilation_height, g->dilation_width};
    for (int i = 0; i < 13; ++i)
        out[i] = values[i];
}

// As in kernels: whole vectors, then what is left.
KERNEL(through)(const T *x /* count */, T *y /* count */, index count, index first, index last) {
    index i = first;
    for (; i + LANES <= last; i += LANES)
        store(y + i, load(x + i));
    for (; i < last; ++i)
        put(y + i, get(x + i));
    (void)count;
}

KERNEL(products)(const T *a /* count */, const T *b /* count */, const T *c /* count */, A *twice /* count */,
                 A *once /* count */, index count) {
    for (index i = 0; i + LANES <= count; i += LANES) {
        store_sums(twice + i, load(a + i) * load(b + i) + load(c + i));
        store_sums(once + i, fma(load(a + i), load(b + i), load(c + i)));
    }
}

KERNEL(compared)(const T *a /* count */, const T *b /* count */, unsigned char *less /* count */,
                 T *smaller /* count */, T *smaller_again /* count */, index count) {
    for (index i = 0; i + LANES <= count; i += LANES) {
        const vec left = load(a + i), right = load(b + i);
        store_mask(less + i, left < right);
        store(smaller + i, choose(left < right, left, right));
        store(smaller_again + i, choose(load_mask(less + i), left, right));
    }
}

KERNEL(same)(T *y /* count */, double value, index count) {
    for (index i = 0; i + LANES <= count; i += LANES)
        store(y + i, all((A)value));
}

KERNEL(bounds)(index a, index b, index *out /* 2 */) {
    out[0] = least(a, b);
    out[1] = most(a, b);
}

// Parameters of every kind, for the checks of arguments.
KERNEL(arguments)(const T *x /* rows * columns */, T *y /* rows */, A *sums /* NULL or columns */,
                  const unsigned char *keep /* NULL or rows */, index rows, index columns, int step, double factor) {
    for (index i = 0; i < rows; ++i)
        y[i] = (T)((A)x[i * columns] * (A)factor + step + (keep ? keep[i] : 0));
    for (index j = 0; sums && j < columns; ++j)
        sums[j] = get(x + j);
}

// Which thread computed an item, and how often it was computed; -1 where two threads had one number at a time. An item
// takes so many `steps`.
KERNEL(marked)(int *by /* count */, int *times /* count */, int *inside /* threads */, index steps, index count,
               index threads, index thread, index first, index last) {
    const int alone = __atomic_exchange_n(inside + thread, 1, __ATOMIC_SEQ_CST) == 0;
    for (index i = first; i < last; ++i) {
        by[i] = (int)thread;
        times[i] = alone ? times[i] + 1 : -1;
        for (volatile index step = 0; step < steps; ++step) {
        }
    }
    __atomic_store_n(inside + thread, 0, __ATOMIC_SEQ_CST);
    (void)threads, (void)count;
}
