// Convolution and its input gradient, directly: columns are not written.
//
// x: (N, H, W, C), filters: (FH, FW, C/groups, FN), y: (N, OH, OW, FN). Two kinds of sums, over taps and channels:
//   forward:         y  = windows of x by filters
//   input gradient:  dx = windows of dy by filters, transposed tap by tap. At stride s these are s·s such sums: pixels
//                    with the same remainder by the stride meet the same taps, so that no product with a zero is made.
//
// Registers: a tile of P pixels by V vectors of filters is summed up, and written with bias and ReLU. A step takes one
// channel of one tap: it loads V vectors of filters, and one number of each pixel, by a pointer of its own. So a tile's
// pixels are any that follow each other, over the ends of rows and images. No branch for the border is in that loop:
// there a tap's pointer is to zeros. With few channels the loop would be too short; the images are copied with a border
// of zeros, a chunk at a time, and all taps of a row of the window are one run of numbers.
//
// Caches: filters are packed in the order in which they are read, padded with zeros to whole vectors. They come from L2
// once for each tile; the pixels of a chunk stay there for all filters.
//
// Order of a sum: taps, rows first (of the input gradient the last tap first), and in each the channels, each product
// added by fma, which rounds once; then the bias. Zeros of the border are multiplied, too. Ranges of pixels may end
// anywhere: no bit depends on it. Least bytes: x, filters, y and mask once each.

#include "core/vectors.h"

#define MOST_VECTORS (VECTOR_BYTES == 32 ? 2 : 4) // x86-64-v3 has 16 registers, the others have 32
#define MOST_PIXELS 12
#define FEW_CHANNELS 8
#define CHUNK_NUMBERS 32768 // of x, for which all filters are taken

// Along one axis of the source: tap i of output r lies at r·scale + origin + i·step, and is tap first + i·every of the
// packed filters. Output r is number place + r·spread of the result's axis.
typedef struct {
    index size, outputs, scale, origin, step, taps, first, every, place, spread;
} Axis;

INLINE Axis windows_of(index size, index windows, index stride, index pad, index dilation, index taps) {
    return (Axis){size, windows, stride, -pad, dilation, taps, 0, 1, 0, 1};
}

// The windows that contain the pixels rest + stride·r of an axis of `pixels`: tap t does where rest + pad - t·dilation
// is a multiple of the stride, and those t are `every` apart, or there are none. The last of them comes first.
INLINE Axis pixels_of(index windows, index pixels, index stride, index pad, index dilation, index taps, index rest) {
    index first = 0, every = 1;
    while (first < taps && (rest + pad - first * dilation) % stride) ++first;
    while (every * dilation % stride) ++every;
    const index count = first < taps ? (taps - first + every - 1) / every : 0, last = first + (count - 1) * every;
    return (Axis){windows, most(pixels - rest + stride - 1, 0) / stride, 1, (rest + pad - last * dilation) / stride,
                  every * dilation / stride, count, taps - 1 - last, every, rest, stride};
}

// What is convolved: images (rows, columns, in) to images (height, width, out).
typedef struct {
    const T *x;
    const A *filters;
    T *y;
    unsigned char *positive;
    Axis rows, columns;
    index image, in, out, groups, height, width, taps, taps_of_row; // x begins with that image
    const T *zeros; // what taps outside the image meet, a channel each; NULL where all are inside
} Convolution;

// Where the windows of a tile's pixels begin in their images and in x, and where their results lie in y.
typedef struct {
    index row[MOST_PIXELS], column[MOST_PIXELS], source[MOST_PIXELS], target[MOST_PIXELS];
} Pixels;

// Places pixels from `first` on; those from `last` on, which are not written, where that before them is.
static __attribute__((noinline)) void place(const Convolution *c, index first, index last, int count, Pixels *pixels) {
    const index width = c->columns.outputs, height = c->rows.outputs;
    index column = first % width, row = first / width % height, image = first / width / height;
    for (int p = 0; p < count; ++p) {
        const index down = row * c->rows.scale + c->rows.origin, y = c->rows.place + row * c->rows.spread;
        const index across = column * c->columns.scale + c->columns.origin;
        const index x = c->columns.place + column * c->columns.spread;
        pixels->row[p] = down, pixels->column[p] = across;
        pixels->source[p] = (((image - c->image) * c->rows.size + down) * c->columns.size + across) * c->in;
        pixels->target[p] = ((image * c->height + y) * c->width + x) * c->out;
        if (first + p + 1 >= last || ++column < width) continue;
        column = 0;
        if (++row < height) continue;
        row = 0;
        ++image;
    }
}

INLINE int inside(index at, index size) { return (unsigned long long)at < (unsigned long long)size; }

// Finds the numbers that a tap meets, the same for all channels.
INLINE void meet(const int P, const Convolution *c, const Pixels *pixels, index down, index across, index channel,
                 const T *from[MOST_PIXELS]) {
    const index ahead = (down * c->columns.size + across) * c->in + channel;
    UNROLL for (int p = 0; p < P; ++p) {
        from[p] = c->x + pixels->source[p] + ahead;
        if (c->zeros) {
            const int met = inside(pixels->row[p] + down, c->rows.size) &
                            inside(pixels->column[p] + across, c->columns.size);
            from[p] = met ? from[p] : c->zeros;
        }
        __asm__("" : "+r"(from[p])); // or the compiler computes pointers in a vector, and takes it apart again
    }
}

// Adds up `count` products for each number of the tile. Sums may round once a product: fma.
INLINE void add_products(const int P, const int V, vec sums[MOST_PIXELS][4], const T *const from[MOST_PIXELS],
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

// Writes a vector of filters of a pixel with ReLU, or the `count` of them that there are.
INLINE void write(const Convolution *c, index at, index count, vec sum) {
    const mask above = sum > all(0);
    if (c->positive) sum = choose(above | (sum != sum), sum, all(0));
    if (count >= LANES) {
        store(c->y + at, sum);
        if (c->positive) store_mask(c->positive + at, above);
    } else {
        store_some(c->y + at, sum, count);
        if (c->positive) store_some_mask(c->positive + at, above, count);
    }
}

// Computes `count` filters, V vectors or less, of the pixels from first to last - 1.
INLINE void block(const int P, const int V, const Convolution *c, index channel, index filter, index count,
                  const A *filters, index first, index last) {
    const index many = c->in / c->groups, width = V * LANES;
    const int joined = !c->zeros && c->columns.step == 1 && c->columns.every == 1 && many == c->in; // a row of taps is one run
    const index runs = joined ? 1 : c->columns.taps, length = joined ? c->columns.taps * many : many;
    for (index pixel = first; pixel < last; pixel += P) {
        Pixels pixels;
        place(c, pixel, last, P, &pixels);
        vec sums[MOST_PIXELS][4];
        UNROLL for (int p = 0; p < P; ++p) UNROLL for (int v = 0; v < V; ++v) sums[p][v] = all(0);
        for (index a = 0; a < c->rows.taps; ++a) {
            for (index b = 0; b < runs; ++b) {
                const T *from[MOST_PIXELS];
                meet(P, c, &pixels, a * c->rows.step, b * c->columns.step, channel, from);
                const index tap = (c->rows.first + a * c->rows.every) * c->taps_of_row + c->columns.first +
                                  b * c->columns.every;
                add_products(P, V, sums, from, filters + (1 + tap * many) * width, length);
            }
        }
        UNROLL for (int p = 0; p < P; ++p) {
            if (pixel + p >= last) break;
            UNROLL for (int v = 0; v < V; ++v)
                write(c, pixels.target[p] + filter + v * LANES, count - v * LANES, sums[p][v] + load_sums(filters + v * LANES));
        }
    }
}

static index vectors_of(index numbers) { return (numbers + LANES - 1) / LANES; }

// How many vectors of filters, of those left, are taken together: blocks are nearly equal.
static index together(index vectors) {
    const index blocks = (vectors + MOST_VECTORS - 1) / MOST_VECTORS;
    return (vectors + blocks - 1) / blocks;
}

static __attribute__((noinline)) void convolve_chunk(const Convolution *c, index first, index last) {
    const index own = c->out / c->groups, rows = 1 + c->taps * (c->in / c->groups);
    const A *filters = c->filters;
    for (index group = 0; group < c->groups; ++group) {
        for (index v = 0, many; v < vectors_of(own); v += many, filters += rows * many * LANES) {
            many = together(vectors_of(own) - v);
            const index channel = group * (c->in / c->groups), filter = group * own + v * LANES, count = own - v * LANES;
            switch (many) {
#if VECTOR_BYTES == 32
            case 1: block(8, 1, c, channel, filter, count, filters, first, last); break;
            default: block(6, 2, c, channel, filter, count, filters, first, last);
#else
            case 1: block(12, 1, c, channel, filter, count, filters, first, last); break;
            case 2: block(8, 2, c, channel, filter, count, filters, first, last); break;
            case 3: block(8, 3, c, channel, filter, count, filters, first, last); break;
            default: block(6, 4, c, channel, filter, count, filters, first, last);
#endif
            }
        }
    }
}

INLINE index reach(const Axis *axis) { return (axis->outputs - 1) * axis->scale + (axis->taps - 1) * axis->step + 1; }

// Copies rows of an image, from `row` on, with zeros for what lies outside it.
static void pad(const Convolution *c, index image, index row, index rows, T *to) {
    const index size = c->columns.size, origin = c->columns.origin, width = reach(&c->columns);
    const index left = least(most(-origin, 0), width), right = most(least(size - origin, width), left);
    for (index r = row; r < row + rows; ++r, to += width * c->in) {
        const int met = r >= 0 && r < c->rows.size;
        const T *from = c->x + ((image * c->rows.size + r) * size + origin) * c->in;
        if (!met || left == right) { __builtin_memset(to, 0, width * c->in * sizeof(T)); continue; }
        __builtin_memset(to, 0, left * c->in * sizeof(T));
        __builtin_memcpy(to + left * c->in, from + left * c->in, (right - left) * c->in * sizeof(T));
        __builtin_memset(to + right * c->in, 0, (width - right) * c->in * sizeof(T));
    }
}

// Convolves pixels, numbered by image, row and column, in chunks that stay in cache. Where a window reaches beyond the
// image, the chunk's windows are copied to `padded` first: whole images, or rows of one.
static void convolve(const Convolution *c, T *padded, index room, index first, index last) {
    const Axis *rows = &c->rows, *columns = &c->columns;
    if (first >= last) return;
    const index height = reach(rows), width = reach(columns), pixels = rows->outputs * columns->outputs;
    const int within = !rows->taps || !columns->taps || (rows->origin >= 0 && columns->origin >= 0 &&
        rows->origin + height <= rows->size && columns->origin + width <= columns->size);
    if (within || c->in / c->groups >= FEW_CHANNELS) {
        const index size = most(CHUNK_NUMBERS / (24 * c->in), 1) * 24;
        Convolution chunk = *c;
        if (!within) chunk.zeros = __builtin_memset(padded, 0, c->in * sizeof(T));
        for (; first < last; first += size) convolve_chunk(&chunk, first, least(first + size, last));
        return;
    }
    const index row_size = width * c->in, images = room / (height * row_size);
    const index band = (room / row_size - (rows->taps - 1) * rows->step - 1) / rows->scale + 1;
    for (index end; first < last; first = end) {
        const index image = first / pixels, row = images ? 0 : first % pixels / columns->outputs;
        end = images ? (image + images) * pixels : image * pixels + least(row + band, rows->outputs) * columns->outputs;
        end = least(end, last);
        const index of_image = images ? rows->outputs : (end - 1) % pixels / columns->outputs + 1 - row;
        Convolution chunk = *c;
        chunk.x = padded;
        chunk.image = image;
        chunk.columns.size = width;
        chunk.columns.origin = 0;
        chunk.rows.size = (of_image - 1) * rows->scale + (rows->taps - 1) * rows->step + 1;
        chunk.rows.origin = -row * rows->scale;
        for (index i = image; i <= (end - 1) / pixels; ++i)
            pad(c, i, row * rows->scale + rows->origin, chunk.rows.size, padded + (i - image) * chunk.rows.size * row_size);
        convolve_chunk(&chunk, first, end);
    }
}

// Packs filters for the kernels below: for each group and its vectors taken together a row of biases, then the filters
// by tap and channel. For the input gradient (`backward`) taps are in reverse order, and channels and filters of a group
// change places.
KERNEL(convolution_pack)(const T *filters /* taps * channels * out */, const T *bias /* NULL or out */,
                         A *packed /* numbers */, index taps, index channels, index out, index groups, index backward,
                         index numbers) {
    const index own = out / groups, many = backward ? own : channels, all_filters = backward ? channels : own;
    for (index group = 0; group < groups; ++group) {
        for (index v = 0, width; v < all_filters; v += width) {
            width = together(vectors_of(all_filters - v)) * LANES;
            const index count = least(width, all_filters - v);
            for (index k = 0; k < width; ++k) *packed++ = bias && k < count ? get(bias + group * own + v + k) : 0;
            for (index tap = 0; tap < taps; ++tap, packed += many * width) {
                const T *from = filters + (backward ? taps - 1 - tap : tap) * channels * out + group * own;
                for (index begin = 0; begin < many; begin += 16) {
                    const index end = least(begin + 16, many);
                    if (backward) {
                        for (index k = 0; k < count; ++k)
                            for (index i = begin; i < end; ++i) packed[i * width + k] = get(from + (v + k) * out + i);
                    } else {
                        for (index i = begin; i < end; ++i)
                            for (index k = 0; k < count; ++k) packed[i * width + k] = get(from + i * out + v + k);
                    }
                    for (index i = begin; i < end; ++i)
                        for (index k = count; k < width; ++k) packed[i * width + k] = 0;
                }
            }
        }
    }
    (void)numbers;
}

KERNEL(convolution_forward)(const T *x /* images * pixels * channels */, const A *filters,
                            T *y /* images * windows * out */, unsigned char *positive /* NULL or images * windows * out */,
                            T *padded /* room */, const Geometry *geometry, index images, index out, index groups,
                            index room, index first, index last) {
    const Geometry g = *geometry;
    const Convolution c = {
        x, filters, y, positive,
        windows_of(g.height, g.out_height, g.stride_height, g.pad_top, g.dilation_height, g.kernel_height),
        windows_of(g.width, g.out_width, g.stride_width, g.pad_left, g.dilation_width, g.kernel_width),
        0, g.channels, out, groups, g.out_height, g.out_width, g.kernel_height * g.kernel_width, g.kernel_width, 0};
    convolve(&c, padded, room, first, last);
    (void)images;
}

// Pixels are numbered by their remainders, and for each by image, row and column.
KERNEL(convolution_backward_input)(const T *dy /* images * windows * out */, const A *filters,
                                   T *dx /* images * pixels * channels */, T *padded /* room */,
                                   const Geometry *geometry, index images, index out, index groups, index room,
                                   index first, index last) {
    const Geometry g = *geometry;
    for (index rest = 0, before = 0; rest < g.stride_height * g.stride_width; ++rest) {
        const Convolution c = {
            dy, filters, dx, 0,
            pixels_of(g.out_height, g.height, g.stride_height, g.pad_top, g.dilation_height, g.kernel_height,
                      rest / g.stride_width),
            pixels_of(g.out_width, g.width, g.stride_width, g.pad_left, g.dilation_width, g.kernel_width,
                      rest % g.stride_width),
            0, out, g.channels, groups, g.height, g.width, g.kernel_height * g.kernel_width, g.kernel_width, 0};
        const index pixels = images * c.rows.outputs * c.columns.outputs;
        convolve(&c, padded, room, most(first - before, 0), least(last - before, pixels));
        before += pixels;
    }
}
