// Convolution and its input gradient, directly: neither columns nor a padded image are written.
//
// x: (N, H, W, C), filters: (FH, FW, C/groups, FN), y: (N, OH, OW, FN). Two kinds of sums, over taps and channels:
//   forward:         y  = windows of x by filters
//   input gradient:  dx = windows of dy by filters, transposed tap by tap. At stride s these are s·s such sums: pixels
//                    with the same remainder by the stride meet the same taps, so that no product with a zero is made.
//
// Registers: a tile of some pixels by 1 to MOST_VECTORS vectors of filters is summed up before it is written, with bias
// and ReLU. A step takes one channel of one tap: it loads a vector or some of filters, and one number of each pixel, by
// a pointer of its own. So the pixels of a tile are any that follow each other, over the ends of rows and images, and
// a tap that lies outside the image points to zeros: no branch is in the inner loop. With few channels, tap after tap
// would be too short a loop: there the numbers that a pixel's window meets are first copied side by side.
//
// Caches: filters are packed in the order in which they are read, padded with zeros to whole vectors. They are read
// from L2 once for each tile; the pixels of a chunk stay in L2 for all filters.
//
// Order of a sum: taps, rows first, and in each the channels, each product added by fma (rounded once); then the bias.
// Padding is multiplied too. Ranges of pixels may end anywhere. Least bytes: x, filters, y and mask once each.

#include "core/vectors.h"

#define MOST_VECTORS (VECTOR_BYTES == 32 ? 2 : 4) // x86-64-v3 has 16 registers, the others have 32
#define MOST_PIXELS 12
#define FEW_CHANNELS 8
#define PATCH 256          // numbers of a pixel's window that are copied at a time
#define CHUNK_NUMBERS 32768 // of x, for which all filters are taken

// Along one axis of the source: tap i of output r lies at r·scale + origin + i·step, if that is from 0 to size - 1, and
// is tap first + i·every of the filters. Output r is number place + r·spread of the result's axis.
typedef struct {
    index size, outputs, scale, origin, step, taps, first, every, place, spread;
} Axis;

INLINE Axis windows_of(index size, index windows, index stride, index pad, index dilation, index taps) {
    return (Axis){size, windows, stride, -pad, dilation, taps, 0, 1, 0, 1};
}

// The windows that contain the pixels rest + stride·r of an axis of `pixels`: tap t does where rest + pad - t·dilation
// is a multiple of the stride, and those t are `every` apart, or there are none.
INLINE Axis pixels_of(index windows, index pixels, index stride, index pad, index dilation, index taps, index rest) {
    index first = 0, every = 1;
    while (first < taps && (rest + pad - first * dilation) % stride) ++first;
    while (every * dilation % stride) ++every;
    return (Axis){windows, most(pixels - rest + stride - 1, 0) / stride, 1, (rest + pad - first * dilation) / stride,
                  -(every * dilation / stride), first < taps ? (taps - first + every - 1) / every : 0, first, every, rest, stride};
}

// What is convolved: images of `in` channels to `out`; the outputs are (height, width) of the result.
typedef struct {
    const T *x, *bias, *zeros;
    const A *packed;
    T *y;
    unsigned char *positive;
    Axis rows, columns;
    index numbers, in, out, groups, height, width, kernel_width;
} Convolution;

// The pixels of a tile: where their windows begin, in the image and in x, and where their result lies.
typedef struct {
    index count, row[MOST_PIXELS], column[MOST_PIXELS], source[MOST_PIXELS], target[MOST_PIXELS];
} Pixels;

INLINE index own(const Convolution *c) { return c->in / c->groups; }

static void place(const Convolution *c, index first, index last, index count, Pixels *pixels) {
    const index width = c->columns.outputs, height = c->rows.outputs;
    index column = first % width, row = first / width % height, image = first / width / height;
    pixels->count = least(count, last - first);
    for (index p = 0; p < count; ++p) {
        pixels->row[p] = row * c->rows.scale + c->rows.origin;
        pixels->column[p] = column * c->columns.scale + c->columns.origin;
        pixels->source[p] = ((image * c->rows.size + pixels->row[p]) * c->columns.size + pixels->column[p]) * c->in;
        pixels->target[p] = ((image * c->height + c->rows.place + row * c->rows.spread) * c->width + c->columns.place +
                             column * c->columns.spread) * c->out;
        if (p >= pixels->count) pixels->row[p] = -(1LL << 40); // outside at every tap
        if (++column < width) continue;
        column = 0;
        if (++row < height) continue;
        row = 0;
        ++image;
    }
}

INLINE int inside(index at, index size) { return (unsigned long long)at < (unsigned long long)size; }

// Adds up `count` steps. `fma`: the sums are allowed to round once a step.
INLINE void add_steps(const int P, const int V, vec sums[MOST_PIXELS][4], const T *const from[MOST_PIXELS],
                      const A *filters, index count) {
#pragma clang loop unroll_count(2)
    for (index k = 0; k < count; ++k) {
        vec of_filters[4];
        UNROLL for (int v = 0; v < V; ++v) of_filters[v] = load_sums(filters + (k * V + v) * LANES);
        UNROLL for (int p = 0; p < P; ++p) {
            const vec of_pixel = all(get(from[p] + k));
            UNROLL for (int v = 0; v < V; ++v) sums[p][v] = fma(of_pixel, of_filters[v], sums[p][v]);
        }
    }
}

INLINE void add_taps(const int P, const int V, vec sums[MOST_PIXELS][4], const Convolution *c, const Pixels *pixels,
                     index channel, const A *filters) {
    const index many = own(c);
    for (index a = 0; a < c->rows.taps; ++a) {
        for (index b = 0; b < c->columns.taps; ++b) {
            const index down = a * c->rows.step, across = b * c->columns.step;
            const index ahead = (down * c->columns.size + across) * c->in + channel;
            const index tap = (c->rows.first + a * c->rows.every) * c->kernel_width + c->columns.first +
                              b * c->columns.every;
            const T *from[MOST_PIXELS];
            UNROLL for (int p = 0; p < P; ++p) {
                const int met = inside(pixels->row[p] + down, c->rows.size) &
                                inside(pixels->column[p] + across, c->columns.size);
                from[p] = met ? c->x + pixels->source[p] + ahead : c->zeros;
            }
            add_steps(P, V, sums, from, filters + tap * many * V * LANES, many);
        }
    }
}

// Copies what `taps` taps of a row meet, from tap b on: (taps, channels), and up to LANES numbers behind that.
INLINE void copy_window(const Convolution *c, index row, index column, index source, index a, index b, index taps,
                        index channel, T *patch) {
    const index many = own(c), down = a * c->rows.step, step = c->columns.step, count = taps * many;
    const index from = source + (down * c->columns.size + b * step) * c->in + channel;
    column += b * step;
    const int met = inside(row + down, c->rows.size);
    if (met && step == 1 && many == c->in && column >= 0 && column + taps <= c->columns.size) {
        if (from + count + LANES <= c->numbers) {
            for (index i = 0; i < count; i += LANES) *(stored *)(patch + i) = *(const stored *)(c->x + from + i);
        } else {
            for (index i = 0; i < count; ++i) patch[i] = c->x[from + i];
        }
        return;
    }
    for (index t = 0; t < taps; ++t) {
        const T *numbers = met && inside(column + t * step, c->columns.size) ? c->x + from + t * step * c->in : c->zeros;
        for (index i = 0; i < many; ++i) patch[t * many + i] = numbers[i];
    }
}

INLINE void add_patches(const int P, const int V, vec sums[MOST_PIXELS][4], const Convolution *c, const Pixels *pixels,
                        index channel, const A *filters) {
    T patch[MOST_PIXELS][PATCH + LANES];
    const T *from[MOST_PIXELS];
    UNROLL for (int p = 0; p < P; ++p) from[p] = patch[p];
    const index many = own(c), together = c->columns.every == 1 ? least(c->columns.taps, PATCH / many) : 1;
    for (index a = 0; a < c->rows.taps; ++a) {
        for (index b = 0; b < c->columns.taps; b += together) {
            const index taps = least(together, c->columns.taps - b);
            const index tap = (c->rows.first + a * c->rows.every) * c->kernel_width + c->columns.first +
                              b * c->columns.every;
            for (int p = 0; p < P; ++p)
                copy_window(c, pixels->row[p], pixels->column[p], pixels->source[p], a, b, taps, channel, patch[p]);
            add_steps(P, V, sums, from, filters + tap * many * V * LANES, taps * many);
        }
    }
}

// Writes some filters of a pixel, at most a vector of them.
INLINE void write(const Convolution *c, index at, index filter, index count, vec sum) {
    if (c->bias && count == LANES) sum += load(c->bias + filter);
    else if (c->bias) {
        for (index i = 0; i < count; ++i) sum[i] += get(c->bias + filter + i);
    }
    const mask above = sum > all(0);
    if (c->positive) sum = choose(above | (sum != sum), sum, all(0));
    if (count == LANES) {
        store(c->y + at, sum);
        if (c->positive) store_mask(c->positive + at, above);
        return;
    }
    for (index i = 0; i < count; ++i) {
        put(c->y + at + i, sum[i]);
        if (c->positive) c->positive[at + i] = above[i] != 0;
    }
}

// V vectors of filters, from `filter` of a group's on, of the pixels from first to last - 1.
INLINE void block(const int P, const int V, const Convolution *c, index group, index filter, const A *filters,
                  index first, index last) {
    const index of_group = c->out / c->groups, channel = group * own(c);
    for (index pixel = first; pixel < last; pixel += P) {
        Pixels pixels;
        place(c, pixel, last, P, &pixels);
        vec sums[MOST_PIXELS][4];
        UNROLL for (int p = 0; p < P; ++p) UNROLL for (int v = 0; v < V; ++v) sums[p][v] = all(0);
        if (own(c) < FEW_CHANNELS) add_patches(P, V, sums, c, &pixels, channel, filters);
        else add_taps(P, V, sums, c, &pixels, channel, filters);
        UNROLL for (int p = 0; p < P; ++p) UNROLL for (int v = 0; v < V; ++v) {
            const index count = least(of_group - filter - v * LANES, LANES);
            if (p < pixels.count)
                write(c, pixels.target[p] + group * of_group + filter + v * LANES, group * of_group + filter + v * LANES,
                      count, sums[p][v]);
        }
    }
}

static index vectors_of(index numbers) { return (numbers + LANES - 1) / LANES; }

// How many vectors of filters, of those left, are taken together: blocks are nearly equal.
static index together(index vectors) {
    const index blocks = (vectors + MOST_VECTORS - 1) / MOST_VECTORS;
    return (vectors + blocks - 1) / blocks;
}

static void convolve(const Convolution *c, index taps, index first, index last) {
    const index vectors = vectors_of(c->out / c->groups), depth = taps * own(c);
    const index chunk = most(CHUNK_NUMBERS / (24 * c->in), 1) * 24;
    for (index begin = first; begin < last; begin += chunk) {
        const index end = least(begin + chunk, last);
        const A *filters = c->packed;
        for (index group = 0; group < c->groups; ++group) {
            for (index v = 0, many; v < vectors; v += many, filters += depth * many * LANES) {
                many = together(vectors - v);
                switch (many) {
#if VECTOR_BYTES == 32
                case 1: block(8, 1, c, group, v * LANES, filters, begin, end); break;
                default: block(6, 2, c, group, v * LANES, filters, begin, end);
#else
                case 1: block(12, 1, c, group, v * LANES, filters, begin, end); break;
                case 2: block(8, 2, c, group, v * LANES, filters, begin, end); break;
                case 3: block(8, 3, c, group, v * LANES, filters, begin, end); break;
                default: block(6, 4, c, group, v * LANES, filters, begin, end);
#endif
                }
            }
        }
    }
}

// Packs filters for the kernels below, into (group, vectors taken together, tap, channel, filter); `transposed` for
// the input gradient, where channels and filters of a group change places. `lanes` is LANES.
KERNEL(convolution_pack)(const T *filters /* taps * channels * filters_in_all */, A *packed /* numbers */, index taps,
                         index channels, index filters_in_all, index groups, index transposed, index numbers) {
    const index of_group = filters_in_all / groups;
    const index in = transposed ? of_group : channels, out = transposed ? channels : of_group;
    const index step = transposed ? filters_in_all : 1, stride = transposed ? 1 : filters_in_all;
    for (index group = 0; group < groups; ++group) {
        for (index v = 0, many; v < vectors_of(out); v += many) {
            many = together(vectors_of(out) - v);
            const index begin = v * LANES, width = many * LANES, count = least(width, out - begin);
            for (index tap = 0; tap < taps; ++tap) {
                const T *from = filters + tap * channels * filters_in_all + group * of_group + begin * step;
                for (index i = 0; i < in; ++i, packed += width) {
                    for (index k = 0; k < count; ++k) packed[k] = get(from + i * stride + k * step);
                    for (index k = count; k < width; ++k) packed[k] = 0;
                }
            }
        }
    }
    (void)numbers;
}

KERNEL(convolution_forward)(const T *x /* images * pixels * channels */, const A *packed,
                            const T *bias /* NULL or filters */, T *y /* images * windows * filters */,
                            unsigned char *positive /* NULL or images * windows * filters */,
                            const T *zeros /* channels */, const Geometry *geometry, index images, index filters,
                            index groups, index first, index last) {
    const Geometry g = *geometry;
    const Convolution c = {
        x, bias, zeros, packed, y, positive,
        windows_of(g.height, g.out_height, g.stride_height, g.pad_top, g.dilation_height, g.kernel_height),
        windows_of(g.width, g.out_width, g.stride_width, g.pad_left, g.dilation_width, g.kernel_width),
        images * g.height * g.width * g.channels, g.channels, filters, groups, g.out_height, g.out_width,
        g.kernel_width};
    convolve(&c, g.kernel_height * g.kernel_width, first, last);
}

// Pixels are numbered by their remainders, and for each by image, row and column.
KERNEL(convolution_backward_input)(const T *dy /* images * windows * filters */, const A *packed,
                                   T *dx /* images * pixels * channels */, const T *zeros /* filters */,
                                   const Geometry *geometry, index images, index filters, index groups, index first,
                                   index last) {
    const Geometry g = *geometry;
    for (index rest = 0, before = 0; rest < g.stride_height * g.stride_width; ++rest) {
        const Convolution c = {
            dy, 0, zeros, packed, dx, 0,
            pixels_of(g.out_height, g.height, g.stride_height, g.pad_top, g.dilation_height, g.kernel_height,
                      rest / g.stride_width),
            pixels_of(g.out_width, g.width, g.stride_width, g.pad_left, g.dilation_width, g.kernel_width,
                      rest % g.stride_width),
            images * g.out_height * g.out_width * filters, filters, g.channels, groups, g.height, g.width,
            g.kernel_width};
        const index pixels = images * c.rows.outputs * c.columns.outputs;
        convolve(&c, g.kernel_height * g.kernel_width, most(first - before, 0), least(last - before, pixels));
        before += pixels;
    }
}
