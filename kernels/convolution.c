// Convolution and its input gradient, directly: columns are not written.
//
// x: (N, H, W, C), filters: (FH, FW, C/groups, FN), y: (N, OH, OW, FN). Two kinds of sums, over taps and channels:
//   forward:         y  = windows of x by filters
//   input gradient:  dx = windows of dy by filters, transposed tap by tap. At stride s these are s·s such sums: pixels
//                    with the same remainder by the stride meet the same taps, so that no product with a zero is made.
//
// Registers: a tile of pixels by vectors of filters is summed up, and written with bias and ReLU
// (core/convolution_tile.h). With few channels its loop over them would be short: there images are copied with a border
// of zeros, a chunk at a time, and all taps of a row of the window are one run of numbers.
//
// Caches: filters are packed in the order in which they are read, padded with zeros to whole vectors. They come from L2
// once for each tile; the pixels of a chunk stay there for all filters.
//
// Order of a sum: that of the tile; of the input gradient the last tap comes first. Zeros of the border are multiplied,
// or skipped where all filters are finite, which is the same. Ranges of pixels may end anywhere: no bit depends on it.
// Least bytes: x, filters, y and mask once each.

#include "core/convolution_tile.h"

#define FEW_CHANNELS 8
#define CHUNK_NUMBERS (1 << 17)  // of x, for which all filters are taken
#define WINDOW_NUMBERS (1 << 16) // of the rows of x that the windows of a position's images are in
// Of 10000 taps: where fewer are inside the images, a tile is taken over several of them. That scatters reads, which
// weighs less where a pixel has many channels.
#define MOST_INSIDE(channels) ((channels) < 64 ? 9000 : 9700)

static index vectors_of(index numbers) { return (numbers + LANES - 1) / LANES; }

// How many vectors of filters, of those left, are taken together: blocks are nearly equal.
static index taken_together(index vectors) {
    const index blocks = (vectors + MOST_VECTORS - 1) / MOST_VECTORS;
    return (vectors + blocks - 1) / blocks;
}

static index pixels_of_tile(index vectors) {
    if (VECTOR_BYTES == 32) return vectors == 1 ? 8 : 6;
    return vectors == 1 ? 12 : vectors == 4 ? 6 : 8;
}

// Convolves pixels of a chunk.
static __attribute__((noinline)) void convolve_chunk(const Convolution *c, index first, index last) {
    const index own = c->out / c->groups, rows = 1 + c->taps * (c->in / c->groups);
    const A *filters = c->filters + FLAGS;
    for (index group = 0; group < c->groups; ++group) {
        for (index v = 0, many; v < vectors_of(own); v += many, filters += rows * many * LANES) {
            many = taken_together(vectors_of(own) - v);
            const index channel = group * (c->in / c->groups), filter = group * own + v * LANES, count = own - v * LANES;
            switch (many) { // as pixels_of_tile
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

// How many of a hundred taps along an axis are inside.
static index share_inside(const Axis *axis) {
    index met = 0;
    for (index tap = 0; tap < axis->taps; ++tap) {
        for (index r = 0; r < axis->outputs; ++r)
            met += inside(r * axis->scale + axis->origin + tap * axis->step, axis->size);
    }
    return 100 * met / (axis->taps * axis->outputs);
}

// Convolves pixels, numbered by image, row and column, in chunks that stay in cache: for all filters, or because they
// are copied. Where many taps are outside, a chunk is of whole images, and its pixels are taken by position: a tile then
// has the same position in several images, and a tap that is outside all of them is skipped.
static void convolve(const Convolution *c, T *padded, index room, index first, index last) {
    const Axis *rows = &c->rows, *columns = &c->columns;
    if (first >= last) return;
    const index width = columns->outputs, pixels = rows->outputs * width, below = (rows->taps - 1) * rows->step + 1;
    const int within = !rows->taps || !columns->taps || (rows->origin >= 0 && columns->origin >= 0 &&
        rows->origin + reach(rows) <= rows->size && columns->origin + reach(columns) <= columns->size);
    const int copied = !within && c->in / c->groups < FEW_CHANNELS;
    index together = 1, size = most(CHUNK_NUMBERS / (24 * c->in), 1) * 24, most_rows = 0;
    Convolution chunk = *c;
    if (!within && !copied) {
        chunk.zeros = __builtin_memset(padded, 0, c->in * sizeof(T));
        const index tile = pixels_of_tile(taken_together(vectors_of(c->out / c->groups)));
        const index fit = WINDOW_NUMBERS / (below * columns->size * c->in) / tile * tile;
        if (share_inside(rows) * share_inside(columns) < MOST_INSIDE(c->in)) together = most(least(fit, 24), 1);
    }
    const index row_numbers = copied ? reach(columns) * c->in : 0;
    if (copied) {
        size = room / (reach(rows) * row_numbers) * pixels;
        most_rows = (room / row_numbers - below) / rows->scale + 1;
    }
    for (index end; first < last; first = end) {
        const index image = first / pixels, position = first % pixels, row = position / width;
        const index whole = position ? 0 : (last - first) / pixels;
        end = first + size;
        if (together > 1 && whole) end = first + least(whole, together) * pixels;
        else if (together > 1) end = least(end, (image + 1) * pixels);
        else if (copied && size) end = (image * pixels + size);
        else if (copied) end = image * pixels + least((row + most_rows) * width, pixels);
        end = least(end, last);
        chunk.together = together > 1 && whole ? (end - first) / pixels : 1;
        chunk.x = c->x + image * rows->size * columns->size * c->in;
        chunk.y = c->y + image * c->height * c->width * c->out;
        if (c->positive) chunk.positive = c->positive + image * c->height * c->width * c->out;
        if (copied) {
            const index begin = size ? 0 : row, last_row = size ? rows->outputs - 1 : (end - 1) % pixels / width;
            chunk.rows.size = (last_row - begin) * rows->scale + below;
            chunk.rows.origin = -begin * rows->scale;
            chunk.columns.size = reach(columns);
            chunk.columns.origin = 0;
            for (index i = 0; i <= (end - 1) / pixels - image; ++i)
                pad(c, image + i, begin * rows->scale + rows->origin, chunk.rows.size,
                    padded + i * chunk.rows.size * row_numbers);
            chunk.x = padded;
        }
        convolve_chunk(&chunk, first - image * pixels, end - image * pixels);
    }
}

// Packs filters for the kernels below: for each group and its vectors taken together a row of biases, then the filters
// by tap and channel. For the input gradient (`backward`) taps are in reverse order, and channels and filters of a group
// change places.
KERNEL(convolution_pack)(const T *filters /* taps * channels * out */, const T *bias /* NULL or out */,
                         A *packed /* numbers */, index taps, index channels, index out, index groups, index backward,
                         index numbers) {
    int finite = 1;
    for (index i = 0; i < taps * channels * out; ++i) finite &= get(filters + i) - get(filters + i) == 0;
    for (index i = 0; i < FLAGS; ++i) *packed++ = finite;
    const index own = out / groups, many = backward ? own : channels, all_filters = backward ? channels : own;
    for (index group = 0; group < groups; ++group) {
        for (index v = 0, width; v < all_filters; v += width) {
            width = taken_together(vectors_of(all_filters - v)) * LANES;
            const index count = least(width, all_filters - v);
            for (index k = 0; k < width; ++k) *packed++ = bias && k < count ? get(bias + group * own + v + k) : 0;
            for (index tap = 0; tap < taps; ++tap, packed += many * width) {
                const T *from = filters + (backward ? taps - 1 - tap : tap) * channels * out + group * own;
                for (index begin = 0; begin < many; begin += 128) {
                    const index end = least(begin + 128, many);
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
        g.channels, out, groups, g.out_height, g.out_width, g.kernel_height * g.kernel_width, g.kernel_width, 1, 0};
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
            out, g.channels, groups, g.height, g.width, g.kernel_height * g.kernel_width, g.kernel_width, 1, 0};
        const index pixels = images * c.rows.outputs * c.columns.outputs;
        convolve(&c, padded, room, most(first - before, 0), least(last - before, pixels));
        before += pixels;
    }
}
