// Convolution and its input gradient, directly: columns are not written.
//
// x: (N, H, W, C), filters: (FH, FW, C/groups, FN), y: (N, OH, OW, FN). Two kinds of sums, over taps and channels:
//   forward:         y  = windows of x by filters
//   input gradient:  dx = windows of dy by filters, transposed tap by tap. At stride s these are s·s such sums: pixels
//                    with the same remainder by the stride meet the same taps, so that no product with a zero is made.
//
// Registers: a tile of pixels by vectors of filters is summed up, and written with bias and ReLU
// (core/convolution_tile.h). Its pixels follow each other in a row, for which rows are copied with a border of zeros
// where a window reaches out of the image. Where images are small, so that much of what a window meets is border or a
// row is shorter than a tile, they have the same position in images that follow each other: no border is read.
//
// Lanes are filters, so that few channels, as the 1 or 3 of a first layer, leave none empty: a step takes one number of
// each pixel, whatever their number is. Undilated taps of a row are one run of FW·C such steps (`joined` in the tile),
// as they lie side by side in x: the inner loop is not begun again for each tap's few channels.
//
// Caches: filters are packed in the order in which they are read (core/filter_packing.h), padded with zeros to whole
// vectors. They come from L2 once for each tile; the pixels of a chunk stay there for all filters.
//
// Order of a sum: that of the tile; of the input gradient the last tap comes first. Zeros of the border are multiplied,
// or skipped where all filters are finite, which is the same. Ranges of rows may end anywhere: no bit depends on it.
// Least bytes: x, filters, y and mask once each.

#include "core/convolution_tile.h"
#include "core/filter_packing.h"
#include "core/moments.h"

#define CHUNK_NUMBERS (1 << 17)  // of x, for which all filters are taken
#define WINDOW_NUMBERS (1 << 16) // of the rows of x that the windows of a position's images are in
#define TILES_TOGETHER 6         // images are taken together in multiples of it: whole tiles of most blocks
#define MOST_TOGETHER 24         // images: their pixels are far from each other
#define MOST_LINES 64            // of a chunk
#define MOST_INSIDE 96           // of a hundred products of a row, as are not made with zeros or twice

// Fetches the row of x that a line names; nothing if it names none.
static void fetch_ahead(const Convolution *c, const Line *line) {
    for (index i = 0; line->ahead && i < c->row_numbers; i += 64 / sizeof(T)) __builtin_prefetch(line->ahead + i);
}

// Convolves lines of pixels, each for some filters.
static __attribute__((noinline)) void convolve_lines(const Convolution *c, const Line *lines, index count) {
    const index own = c->out / c->groups, rows = 1 + c->taps * (c->in / c->groups);
    const A *filters = c->filters + FLAGS;
    for (index group = 0; group < c->groups; ++group) {
        for (index v = 0, many; v < vectors_of(own); v += many, filters += rows * many * LANES) {
            many = taken_together(vectors_of(own) - v);
            const index channel = group * (c->in / c->groups), filter = group * own + v * LANES, left = own - v * LANES;
            for (index i = 0; i < count; ++i) {
                if (!filter) fetch_ahead(c, lines + i); // once, with the first filters
                switch (many) {
#if VECTOR_BYTES == 32
                case 1: compute_line(8, 1, c, lines + i, channel, filter, left, filters); break;
                default: compute_line(6, 2, c, lines + i, channel, filter, left, filters);
#else
                case 1: compute_line(16, 1, c, lines + i, channel, filter, left, filters); break;
                case 2: compute_line(8, 2, c, lines + i, channel, filter, left, filters); break;
                case 3: compute_line(6, 3, c, lines + i, channel, filter, left, filters); break;
                default: compute_line(6, 4, c, lines + i, channel, filter, left, filters);
#endif
                }
            }
        }
    }
}

INLINE index reach(const Axis *axis) { return (axis->outputs - 1) * axis->scale + (axis->taps - 1) * axis->step + 1; }

INLINE int within(const Axis *axis) {
    return !axis->taps || (axis->origin >= 0 && axis->origin + reach(axis) <= axis->size);
}

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

// Of a hundred taps along an axis, how many are inside.
static index share_inside(const Axis *axis) {
    index met = 0;
    for (index r = 0; r < axis->outputs; ++r) {
        const Met taps = met_by(axis, r);
        met += taps.end - taps.first;
    }
    return 100 * met / (axis->taps * axis->outputs);
}

// Returns how many images are taken together, or 0 where a tile's pixels follow each other in a row.
static index images_together(const Convolution *c) {
    const Axis *rows = &c->rows, *columns = &c->columns;
    const index below = (rows->taps - 1) * rows->step + 1, fit = WINDOW_NUMBERS / most(below * columns->size * c->in, 1);
    const index computed = (columns->outputs + 3) / 4 * 4; // of a row, by tiles of 4 at least
    if (c->filters[0] == 0 || fit < TILES_TOGETHER || !rows->taps || !columns->taps) return 0;
    if (share_inside(columns) * columns->outputs > MOST_INSIDE * computed) return 0;
    return least(fit / TILES_TOGETHER * TILES_TOGETHER, MOST_TOGETHER);
}

// The line of a row of an image, whose windows' first row begins at `source`.
INLINE Line line_of(const Convolution *c, index image, index row, index source, Met rows, Met columns) {
    const index y = c->rows.place + row * c->rows.spread;
    return (Line){source, c->columns.scale * c->in, ((image * c->height + y) * c->width + c->columns.place) * c->out,
                  c->columns.spread * c->out, c->columns.outputs, rows, columns, 0};
}

// Convolves the lines from `first` on, up to `last`, as many as a chunk has; returns where it ends. Where a window
// reaches out of a row, or must meet the zeros around an image, rows are copied with them.
static index convolve_rows(const Convolution *c, T *padded, index room, index first, index last) {
    const Axis *rows = &c->rows, *columns = &c->columns;
    const int skips = c->filters[0] != 0, copied = !within(columns) || (!skips && !within(rows));
    const index image = first / rows->outputs, row = first % rows->outputs, below = (rows->taps - 1) * rows->step + 1;
    Convolution chunk = *c;
    Line lines[MOST_LINES];
    index most_lines = CHUNK_NUMBERS / most(rows->scale * c->row_numbers, 1);
    if (copied) {
        chunk.row_numbers = reach(columns) * c->in;
        most_lines = least((room / chunk.row_numbers - below) / rows->scale + 1, rows->outputs - row);
    }
    const index count = least(least(most(most_lines, 1), MOST_LINES), last - first);
    if (copied) {
        pad(c, image, row * rows->scale + rows->origin, (count - 1) * rows->scale + below, padded);
        chunk.x = padded;
    }
    for (index i = 0; i < count; ++i) {
        const index at = first + i, its_image = at / rows->outputs, its_row = at % rows->outputs;
        const index begin = its_image * c->image_numbers + (its_row * rows->scale + rows->origin) * c->row_numbers;
        const index source = copied ? i * rows->scale * chunk.row_numbers : begin + columns->origin * c->in;
        lines[i] = line_of(c, its_image, its_row, source, skips ? met_by(rows, its_row) : (Met){0, rows->taps},
                           (Met){0, columns->taps});
        if (copied && at + count + 1 < last) lines[i].ahead = c->x + begin + (count + 1) * c->row_numbers;
    }
    convolve_lines(&chunk, lines, count);
    return first + count;
}

// Convolves whole images, each position of all of them together.
static void convolve_positions(const Convolution *c, index image, index images) {
    const Axis *rows = &c->rows, *columns = &c->columns;
    Line lines[MOST_LINES];
    for (index row = 0; row < rows->outputs; ++row) {
        const index begin = image * c->image_numbers + (row * rows->scale + rows->origin) * c->row_numbers;
        const Line all = line_of(c, image, row, begin, met_by(rows, row), (Met){0, 0});
        for (index column = 0, count; column < columns->outputs; column += count) {
            count = least(columns->outputs - column, MOST_LINES);
            for (index i = 0; i < count; ++i) {
                const index across = (column + i) * columns->scale + columns->origin;
                lines[i] = (Line){all.source + across * c->in, c->image_numbers, all.target + (column + i) * all.target_step,
                                  c->height * c->width * c->out, images, all.rows, met_by(columns, column + i), 0};
            }
            convolve_lines(c, lines, count);
        }
    }
}

// Convolves the lines from `first` to `last` - 1: rows of results, numbered by image and row. Results are measured, where
// that is asked for, block by block of so many lines, while they are in cache; `first` begins a block, and `last` ends one.
static void convolve(const Convolution *c, T *padded, index room, index first, index last, const Measured *measured,
                     index block_lines) {
    if (first >= last || !c->columns.outputs) return;
    const index height = c->rows.outputs, together = images_together(c), end = (last + block_lines - 1) / block_lines;
    for (index done = first / block_lines, computed; first < last; done = computed) {
        const index whole = first % height ? 0 : least((last - first) / height, together);
        if (whole >= 4) {
            convolve_positions(c, first / height, whole);
            first += whole * height;
        } else {
            first = convolve_rows(c, padded, room, first, last);
        }
        computed = first < last ? first / block_lines : end;
        if (measured && (done < computed || first == last)) measure(measured, done, computed);
    }
}

// Packs filters, and biases, in the order in which the kernels below read them.
KERNEL(convolution_pack)(const T *filters /* taps * channels * out */, const T *bias /* NULL or out */,
                         A *packed /* numbers */, index taps, index channels, index out, index groups, index backward,
                         index numbers) {
    pack_filters(filters, bias, packed, taps, channels, out, groups, backward);
    (void)numbers;
}

// Items are blocks of `block_lines` rows of results, whose moments are left as batch_norm_moments does, for the columns
// (out) of the results as a matrix: `partial` numbers of each kind, if they are asked for.
KERNEL(convolution_forward)(const T *x /* images * pixels * channels */, const A *filters /* numbers */,
                            T *y /* images * windows * out */, unsigned char *positive /* NULL or images * windows * out */,
                            T *padded /* threads * room */, A *means /* NULL or partial */, A *squares /* NULL or partial */,
                            const Geometry *geometry, index images, index out, index groups, index numbers, index room,
                            index partial, index width, index block_lines, index block_rows, index threads, index thread,
                            index first, index last) {
    const Geometry g = *geometry;
    const index lines = images * g.out_height;
    const Measured measured = {y, means, squares, partial, lines * g.out_width * out, width, block_rows};
    const Convolution c = {
        x, filters, y, positive,
        windows_of(g.height, g.out_height, g.stride_height, g.pad_top, g.dilation_height, g.kernel_height),
        windows_of(g.width, g.out_width, g.stride_width, g.pad_left, g.dilation_width, g.kernel_width),
        g.channels, out, groups, g.out_height, g.out_width, g.kernel_height * g.kernel_width, g.kernel_width,
        (index)g.height * g.width * g.channels, (index)g.width * g.channels};
    convolve(&c, padded + thread * room, room, first * block_lines, least(last * block_lines, lines),
             means ? &measured : 0, block_lines);
    (void)numbers, (void)threads;
}

// Lines are rows of pixels with the same remainders, numbered by the remainders, image and row.
KERNEL(convolution_backward_input)(const T *dy /* images * windows * out */, const A *filters /* numbers */,
                                   T *dx /* images * pixels * channels */, T *padded /* threads * room */,
                                   const Geometry *geometry, index images, index out, index groups,
                                   index numbers, index room, index threads, index thread, index first, index last) {
    const Geometry g = *geometry;
    const index down = least(g.stride_height, g.height), across = least(g.stride_width, g.width); // remainders
    for (index rest = 0, before = 0; rest < down * across; ++rest) {
        const Convolution c = {
            dy, filters, dx, 0,
            pixels_of(g.out_height, g.height, g.stride_height, g.pad_top, g.dilation_height, g.kernel_height,
                      rest / across),
            pixels_of(g.out_width, g.width, g.stride_width, g.pad_left, g.dilation_width, g.kernel_width,
                      rest % across),
            out, g.channels, groups, g.height, g.width, g.kernel_height * g.kernel_width, g.kernel_width,
            (index)g.out_height * g.out_width * out, (index)g.out_width * out};
        const index lines = images * c.rows.outputs;
        convolve(&c, padded + thread * room, room, most(first - before, 0), least(last - before, lines), 0, 1);
        before += lines;
    }
    (void)numbers, (void)threads;
}
