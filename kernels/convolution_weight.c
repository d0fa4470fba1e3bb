// Weight gradient of a convolution over channels-last memory, with that of the bias:
//     dW[a, b, c, f] = Σ x[pixel that tap (a, b) of the window meets, c] · dy[window, f],    db[f] = Σ dy[window, f].
//
// A tile is P numbers of x (channels; where the window's taps lie side by side in memory, taps and channels) times V
// vectors of filters, whose P·V sums stay in registers while a band of windows passes: per window P numbers are broadcast
// and V vectors loaded for P·V products. A band is some rows of windows, few enough for their x and dy to stay in cache
// over all tiles. Padding costs no branch: each tap has its range of rows and columns of windows. Rows of x are copied
// into scratch memory, with zeros for the padding, where a tap alone has too few channels for a tile, and of float16,
// which is converted there. A vector of dy may reach into the next pixel's numbers: such lanes' sums are not used. Only
// where it would reach beyond the array is dy copied.
//
// Order of a sum: by fused products over the windows of a band, then over the bands of a part, then over the parts,
// each ascending. Bands and parts are cut by shapes alone. Sums of float16 are those of float32, rounded once.
//
// An item of work is a part of the rows of windows and a block of up to 64 filters of one group. Sums lie by part, by
// group, by block as (FH·FW·C/groups, filters of the block, rounded up to 16).
//
// Least bytes: x once for each block of filters, dy once, and the partial sums twice.

#include "core/vectors.h"

#define MOST_ROWS 128 // of windows in a band
#define UNIT 16       // filters by which blocks are cut: whole vectors of any level
#define FEW_CHANNELS 6
#define MOST_VECTORS (VECTOR_BYTES == 32 ? 2 : 4) // of the 16 or 32 registers, a tile's sums take up to 12 or 24

typedef struct {
    const A *x[MOST_ROWS], *dy[MOST_ROWS]; // where rows of windows begin, of those whose tap lies in the image
    index rows, x_step, dy_step;           // numbers from one window of a row to the next
} Band;

INLINE void tile(const int P, const int V, const Band *band, index x_at, index dy_at, index columns, A *sums,
                 index width) {
    vec total[16][4];
    UNROLL for (int p = 0; p < P; ++p) UNROLL for (int v = 0; v < V; ++v) total[p][v] = (vec){0};
    for (index row = 0; row < band->rows; ++row) {
        const A *x = band->x[row] + x_at, *dy = band->dy[row] + dy_at;
        for (index i = 0; i < columns; ++i, x += band->x_step, dy += band->dy_step) {
            vec d[4];
            UNROLL for (int v = 0; v < V; ++v) d[v] = load_sums(dy + v * LANES);
            UNROLL for (int p = 0; p < P; ++p) {
                const vec value = all(x[p]);
                UNROLL for (int v = 0; v < V; ++v) total[p][v] = fma(value, d[v], total[p][v]);
            }
        }
    }
    UNROLL for (int p = 0; p < P; ++p) UNROLL for (int v = 0; v < V; ++v) {
        A *place = sums + p * width + v * LANES;
        store_sums(place, load_sums(place) + total[p][v]);
    }
}

#define TILE(p, v) case p: tile(p, v, band, x_at, dy_at, columns, sums, width); break;
#define TILES(v, cases)                                                                                                \
    static void tile##v(index p, const Band *band, index x_at, index dy_at, index columns, A *sums, index width) {     \
        switch (p) { cases }                                                                                           \
    }
#define TO6(v) TILE(1, v) TILE(2, v) TILE(3, v) TILE(4, v) TILE(5, v) TILE(6, v)
#define TO12(v) TO6(v) TILE(7, v) TILE(8, v) TILE(9, v) TILE(10, v) TILE(11, v) TILE(12, v)
TILES(1, TO12(1))
#if VECTOR_BYTES == 32
TILES(2, TO6(2))
#else
TILES(2, TO12(2))
TILES(3, TO6(3) TILE(7, 3) TILE(8, 3))
TILES(4, TO6(4))
#endif

// The tiles of `count` rows of sums, numbers of x side by side, times the vectors of a block.
static void tiles(const Band *band, index x_at, index dy_at, index columns, index count, index vectors, A *sums,
                  index width) {
    const index cuts = (vectors + MOST_VECTORS - 1) / MOST_VECTORS;
    for (index cut = 0; cut < cuts; ++cut) {
        const index v = vectors * cut / cuts, wide = vectors * (cut + 1) / cuts - v;
        const index most_rows = VECTOR_BYTES == 32 ? 12 / wide : least(24 / wide, 12);
        const index pieces = (count + most_rows - 1) / most_rows;
        for (index piece = 0; piece < pieces; ++piece) {
            const index p = count * piece / pieces, tall = count * (piece + 1) / pieces - p;
            A *place = sums + p * width + v * LANES;
            const index x_from = x_at + p, dy_from = dy_at + v * LANES;
            if (wide == 1) tile1(tall, band, x_from, dy_from, columns, place, width);
            if (wide == 2) tile2(tall, band, x_from, dy_from, columns, place, width);
#if VECTOR_BYTES != 32
            if (wide == 3) tile3(tall, band, x_from, dy_from, columns, place, width);
            if (wide == 4) tile4(tall, band, x_from, dy_from, columns, place, width);
#endif
        }
    }
}

static void copy(const T *from, A *to, index count) {
    index i = 0;
    for (; i + LANES <= count; i += LANES) store_sums(to + i, load(from + i));
    for (; i < count; ++i) to[i] = get(from + i);
}

static void clear(A *to, index count) {
    for (index i = 0; i < count; ++i) to[i] = 0;
}

// A row of an image: the group's channels of `columns` pixels from -pad on, zeros for those outside of the image.
static void copy_row(const T *row, const Geometry *g, index own, index columns, A *to) {
    const index begin = least(g->pad_left, columns), end = most(least(g->width + g->pad_left, columns), begin);
    clear(to, begin * own);
    if (own == g->channels) {
        copy(row, to + begin * own, (end - begin) * own);
    } else {
        for (index i = begin; i < end; ++i) copy(row + (i - begin) * g->channels, to + i * own, own);
    }
    clear(to + end * own, (columns - end) * own);
}

// Adds the vectors of a band's dy to the bias's sums: four sums for every fourth window, added up at the end.
static void add_bias(const Band *band, index columns, index vectors, A *sums) {
    for (index v = 0; v < vectors; ++v) {
        vec total[4] = {{0}, {0}, {0}, {0}};
        for (index row = 0; row < band->rows; ++row) {
            const A *dy = band->dy[row] + v * LANES;
            index i = 0;
            for (; i + 4 <= columns; i += 4)
                UNROLL for (int j = 0; j < 4; ++j) total[j] += load_sums(dy + (i + j) * band->dy_step);
            for (; i < columns; ++i) total[0] += load_sums(dy + i * band->dy_step);
        }
        A *place = sums + v * LANES;
        store_sums(place, load_sums(place) + ((total[0] + total[1]) + (total[2] + total[3])));
    }
}

// Items first … last - 1 of parts · groups · blocks. `band_rows` rows of windows make a band; `units` units of filters
// make a group; `room` holds a band's rows of x with their padding, and its dy.
KERNEL(convolution_weight)(const T *x /* images * pixels * channels */, const T *dy /* images * windows * filters */,
                           A *sums /* parts * taps * channels * units * 16 */,
                           A *bias_sums /* NULL or parts * groups * units * 16 */, A *scratch /* room */,
                           const Geometry *geometry, index images, index filters, index groups, index parts,
                           index units, index blocks, index band_rows, index room, index first, index last) {
    const Geometry *g = geometry;
    const index own = g->channels / groups, own_filters = filters / groups, outputs = images * g->out_height;
    const index k = (index)g->kernel_height * g->kernel_width * own;
    const index reach = (index)(g->out_width - 1) * g->stride_width + (index)(g->kernel_width - 1) * g->dilation_width + 1;
    const int half = sizeof(T) != sizeof(A), dense = g->dilation_width == 1;
    const int unpadded = g->pad_left == 0 && reach <= g->width && own == g->channels;
    const int copied = half || (dense && !unpadded && own < FEW_CHANNELS && g->kernel_width > 1);
    const int joined = dense && (copied || unpadded); // a row of the window is one run of numbers
    const index depth = joined ? g->kernel_width * own : own;
    const index wide = copied ? reach : g->width, channels = copied ? own : g->channels, pad = copied ? 0 : g->pad_left;
    Band all_rows, band;
    (void)room;

    for (index item = first; item < last; ++item) {
        const index part = item / (groups * blocks), group = item / blocks % groups, block = item % blocks;
        const index unit = units * block / blocks, width = (units * (block + 1) / blocks - unit) * UNIT;
        const index used = least(width, own_filters - unit * UNIT), vectors = (used + LANES - 1) / LANES;
        const index filter = group * own_filters + unit * UNIT;
        A *total = sums + ((part * groups + group) * units + unit) * UNIT * k - 0;
        A *bias = bias_sums ? bias_sums + ((part * groups + group) * units + unit) * UNIT : 0;
        clear(total, k * width);
        if (bias) clear(bias, width);

        const index end = outputs * (part + 1) / parts;
        for (index from = outputs * part / parts; from < end; from += band_rows) {
            const index rows = least(band_rows, end - from);
            const int beyond = from + rows == outputs && filter + vectors * LANES > filters;
            all_rows.rows = rows;
            all_rows.dy_step = half || beyond ? width : filters;
            for (index row = 0; row < rows; ++row) {
                const T *place = dy + (from + row) * g->out_width * filters + filter;
                all_rows.dy[row] = (const void *)place;
                if (half || beyond) {
                    A *to = scratch + row * g->out_width * width;
                    all_rows.dy[row] = to;
                    for (index i = 0; i < g->out_width; ++i) {
                        copy(place + i * filters, to + i * width, used);
                        clear(to + i * width + used, width - used);
                    }
                }
            }
            if (bias) add_bias(&all_rows, g->out_width, vectors, bias);

            band.x_step = g->stride_width * channels;
            band.dy_step = all_rows.dy_step;
            for (index a = 0; a < g->kernel_height; ++a) {
                band.rows = 0;
                for (index row = 0; row < rows; ++row) {
                    const index image = (from + row) / g->out_height, output = (from + row) % g->out_height;
                    const index y = output * g->stride_height + a * g->dilation_height - g->pad_top;
                    if (y < 0 || y >= g->height) continue;
                    const T *place = x + (image * g->height + y) * g->width * g->channels + group * own;
                    band.x[band.rows] = (const void *)place;
                    if (copied) {
                        A *to = scratch + (band_rows * g->out_width * width + band.rows * reach * own);
                        copy_row(place, g, own, reach, to);
                        band.x[band.rows] = to;
                    }
                    band.dy[band.rows++] = all_rows.dy[row];
                }
                for (index b = 0; b < (joined ? 1 : g->kernel_width); ++b) {
                    const index offset = b * g->dilation_width - pad, step = g->stride_width;
                    const index begin = offset < 0 ? (-offset + step - 1) / step : 0;
                    const index over = wide - offset; // windows before over / step, rounded up, have the tap inside
                    const index columns = least(over > 0 ? (over + step - 1) / step : 0, g->out_width) - begin;
                    A *place = total + (a * g->kernel_width + b) * own * width;
                    if (columns > 0)
                        tiles(&band, (begin * step + offset) * channels, begin * band.dy_step, columns, depth, vectors,
                              place, width);
                }
            }
        }
    }
}

// Adds up the parts in rows first … last - 1 of (FH·FW·C/groups, FN), and with row 0 those of the bias.
KERNEL(convolution_weight_total)(const A *sums /* parts * taps * channels * units * 16 */,
                                 const A *bias_sums /* NULL or parts * groups * units * 16 */,
                                 T *dw /* taps * channels / groups * filters */, T *db /* NULL or filters */,
                                 const Geometry *geometry, index filters, index groups, index parts, index units,
                                 index blocks, index first, index last) {
    const index k = (index)geometry->kernel_height * geometry->kernel_width * geometry->channels / groups;
    const index own_filters = filters / groups, slots = groups * units * UNIT;
    for (index group = 0; group < groups; ++group) {
        for (index block = 0; block < blocks; ++block) {
            const index unit = units * block / blocks, width = (units * (block + 1) / blocks - unit) * UNIT;
            const index used = least(width, own_filters - unit * UNIT), slot = (group * units + unit) * UNIT;
            const index filter = group * own_filters + unit * UNIT;
            for (index row = first; row < last; ++row) {
                const A *from = sums + slot * k + row * width;
                T *to = dw + row * filters + filter;
                index f = 0;
                for (; f + LANES <= used; f += LANES) {
                    vec total = load_sums(from + f);
                    for (index part = 1; part < parts; ++part) total += load_sums(from + part * slots * k + f);
                    store(to + f, total);
                }
                for (; f < used; ++f) {
                    A total = from[f];
                    for (index part = 1; part < parts; ++part) total += from[part * slots * k + f];
                    put(to + f, total);
                }
            }
            for (index f = 0; db && first == 0 && f < used; ++f) {
                A total = bias_sums[slot + f];
                for (index part = 1; part < parts; ++part) total += bias_sums[part * slots + slot + f];
                put(db + filter + f, total);
            }
        }
    }
}
