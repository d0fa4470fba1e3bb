// Weight gradient of a convolution over channels-last memory, with that of the bias:
//     dW[a, b, c, f] = Σ x[pixel that tap (a, b) of the window meets, c] · dy[window, f],    db[f] = Σ dy[window, f].
//
// A tile is P rows of dW, a number of x for each, times V vectors of filters. Its P·V sums stay in registers while a
// band of windows passes: per window P numbers are broadcast and V vectors loaded for P·V products. A band is some rows
// of windows, few enough for their x and dy to stay in cache over all tiles; tiles of three vectors and more fetch
// meanwhile what the next band reads. Where tiles take some of a block's vectors only, dy is packed by vectors: what
// they skip would take their place in L1.
//
// The rows of a tile are channels and, where all taps have the same windows, taps. Padding costs no branch: each tap
// has its range of rows and columns of windows. Fewer channels than FEW_CHANNELS, as the 1 or 3 of a first layer, would
// make a tile of one tap too small: then taps are joined in a tile, for which rows of x are copied into scratch memory
// with zeros for the padding, where there is any; so are those of float16, which are converted there. A vector of dy
// may reach into the next pixel's numbers: such lanes' sums are not used. Where it would reach beyond the array, dy is
// packed.
//
// Order of a sum: by fused products over the windows of a band, then over the bands of a part, then over the parts,
// each ascending. Parts are cut by shapes alone, bands also by the level of processor. Sums of float16 are those of
// float32, rounded once.
//
// An item of work is a part of the rows of windows and a block of up to 64 filters of one group. Sums lie by part, by
// group, by block, as a matrix of FH·FW·C/groups rows and the block's filters, rounded up to 16.
//
// Least bytes: x once for each block of filters, dy once, and the partial sums twice.

#include "core/vectors.h"
#include "core/weight_packing.h"

#define MOST_BAND_ROWS 128
#define UNIT 16        // filters by which blocks are cut: whole vectors of any level
#define FEW_CHANNELS 6 // that would make a tile too small
#define MOST_TILE_ROWS 12
// Data are fetched ahead by tiles with loads to spare: others are slower by it, a fifth on an AMD Zen 3, a tenth on an
// Intel Emerald Rapids.
#define FETCHES(V) (V > 2)

typedef struct {
    const A *x[MOST_BAND_ROWS], *dy[MOST_BAND_ROWS]; // where rows of windows begin, of those whose tap meets a pixel
    index rows;
    index x_step, dy_step;   // numbers from one window of a row to the next
    index dy_vector;         // from one vector of a window's filters to the next
    index x_ahead, dy_ahead; // to the next band's
} Band;

// How rows of dW meet numbers of x: side by side in runs, which lie `jump` numbers apart.
typedef struct {
    index rows, run, jump;
} Form;

INLINE void tile(const int P, const int V, const Band *band, const index *x_at, index dy_at, index columns, A *sums,
                 index width, index line) {
    vec total[MOST_TILE_ROWS][4];
    UNROLL for (int p = 0; p < P; ++p) UNROLL for (int v = 0; v < V; ++v) total[p][v] = (vec){0};
    const index x_ahead = x_at[0] + band->x_ahead, dy_ahead = line * LANES + band->dy_ahead;
    const index dy_vector = band->dy_vector;
    for (index row = 0; row < band->rows; ++row) {
        const A *x = band->x[row], *dy = band->dy[row] + dy_at;
        for (index i = 0; i < columns; ++i, x += band->x_step, dy += band->dy_step) {
            if (FETCHES(V)) __builtin_prefetch(x + x_ahead);
            if (FETCHES(V)) __builtin_prefetch(dy + dy_ahead);
            vec d[4];
            UNROLL for (int v = 0; v < V; ++v) d[v] = load_sums(dy + v * dy_vector);
            UNROLL for (int p = 0; p < P; ++p) {
                const vec value = all(x[x_at[p]]);
                UNROLL for (int v = 0; v < V; ++v) total[p][v] = fma(value, d[v], total[p][v]);
            }
        }
    }
    UNROLL for (int p = 0; p < P; ++p) UNROLL for (int v = 0; v < V; ++v) {
        A *place = sums + p * width + v * LANES;
        store_sums(place, load_sums(place) + total[p][v]);
    }
}

#define TILE(p, v) case p: tile(p, v, band, x_at, dy_at, columns, sums, width, line); break;
#define TILES(v, cases)                                                                                                \
    static void tile##v(index p, const Band *band, const index *x_at, index dy_at, index columns, A *sums,             \
                        index width, index line) {                                                                     \
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

// The tiles of rows of dW, of which the first meets x_at, times the vectors of a block of filters.
static void tiles(const Band *band, Form form, index x_at, index dy_at, index columns, index vectors, A *sums,
                  index width) {
    const index cuts = (vectors + TILE_VECTORS - 1) / TILE_VECTORS;
    for (index cut = 0; cut < cuts; ++cut) {
        const index v = vectors * cut / cuts, wide = vectors * (cut + 1) / cuts - v, dy_from = dy_at + v * band->dy_vector;
        const index most_rows = least(6 * TILE_VECTORS / wide, MOST_TILE_ROWS); // sums take 12 of 16 registers, 24 of 32
        const index pieces = (form.rows + most_rows - 1) / most_rows;
        for (index piece = 0; piece < pieces; ++piece) {
            const index p = form.rows * piece / pieces, tall = form.rows * (piece + 1) / pieces - p;
            index from[MOST_TILE_ROWS], at = x_at + p / form.run * form.jump, place = p % form.run;
            for (index i = 0; i < tall; ++i, ++place) {
                if (place == form.run) at += form.jump, place = 0;
                from[i] = at + place;
            }
            A *to = sums + p * width + v * LANES;
            if (wide == 1) tile1(tall, band, from, dy_from, columns, to, width, 0);
            if (wide == 2) tile2(tall, band, from, dy_from, columns, to, width, 0);
#if VECTOR_BYTES != 32
            if (wide == 3) tile3(tall, band, from, dy_from, columns, to, width, piece % 3);
            if (wide == 4) tile4(tall, band, from, dy_from, columns, to, width, piece % 4);
#endif
        }
    }
}

// Adds a band's dy to the bias's sums: every fourth window of a row to one of four, and these at the end.
static void add_bias(const Band *band, index columns, index vectors, A *sums) {
    for (index v = 0; v < vectors; ++v) {
        vec total[4] = {{0}, {0}, {0}, {0}};
        for (index row = 0; row < band->rows; ++row) {
            const A *dy = band->dy[row] + v * band->dy_vector;
            index i = 0;
            for (; i + 4 <= columns; i += 4)
                UNROLL for (int j = 0; j < 4; ++j) total[j] += load_sums(dy + (i + j) * band->dy_step);
            for (; i < columns; ++i) total[0] += load_sums(dy + i * band->dy_step);
        }
        A *place = sums + v * LANES;
        store_sums(place, load_sums(place) + ((total[0] + total[1]) + (total[2] + total[3])));
    }
}

// Items first … last - 1 of parts · groups · blocks. A group's filters are `units` units; `room` holds a band's dy, and
// its x with the padding, all rows of the window where it has few channels.
KERNEL(convolution_weight)(const T *x /* images * pixels * channels */, const T *dy /* images * windows * filters */,
                           A *sums /* parts * taps * channels * units * 16 */,
                           A *bias_sums /* NULL or parts * groups * units * 16 */, A *scratch /* threads * room */,
                           const Geometry *geometry, index images, index filters, index groups, index parts,
                           index units, index blocks, index band_rows, index room, index threads, index thread,
                           index first, index last) {
    const Geometry *g = geometry;
    const index kernel_height = g->kernel_height, kernel_width = g->kernel_width, step = g->stride_width;
    const index own = g->channels / groups, own_filters = filters / groups, outputs = images * g->out_height;
    const index x_row = (index)g->width * g->channels, dy_row = g->out_width * filters;
    const index reach = (g->out_width - 1) * step + (kernel_width - 1) * g->dilation_width + 1;
    const index drop = (index)(g->out_height - 1) * g->stride_height + (kernel_height - 1) * g->dilation_height + 1;
    const index k = kernel_height * kernel_width * own;
    const int half = sizeof(T) != sizeof(A), few = own < FEW_CHANNELS;
    const int no_sides = g->pad_left == 0 && reach <= g->width, no_ends = g->pad_top == 0 && drop <= g->height;
    // Do all columns, and all rows, of the window have the same windows, and lie evenly in memory?
    const int even = g->dilation_width == 1, copied = half || (even && few && !(no_sides && no_ends && groups == 1));
    const int columns_joined = even && (copied || (no_sides && groups == 1));
    const int rows_joined = columns_joined && (copied ? few : no_ends);
    const index run = columns_joined ? kernel_width * own : own, tall = rows_joined ? kernel_height : 1;
    const index channels = copied ? own : g->channels, pad = copied ? 0 : g->pad_left;
    const index pixels = copied ? reach : g->width, jump = copied ? reach * own : g->dilation_height * x_row;
    const Form form = {tall * run, run, jump};
    Band all_rows, band;
    scratch += thread * room;
    (void)threads;

    for (index item = first; item < last; ++item) {
        const index part = item / (groups * blocks), group = item / blocks % groups, block = item % blocks;
        const index unit = units * block / blocks, width = (units * (block + 1) / blocks - unit) * UNIT;
        const index used = least(width, own_filters - unit * UNIT), vectors = (used + LANES - 1) / LANES;
        const index filter = group * own_filters + unit * UNIT, slot = ((part * groups + group) * units + unit) * UNIT;
        A *total = sums + slot * k, *bias = bias_sums ? bias_sums + slot : 0;
        clear(total, k * width);
        if (bias) clear(bias, width);

        const index end = outputs * (part + 1) / parts;
        for (index from = outputs * part / parts; from < end; from += band_rows) {
            all_rows.rows = least(band_rows, end - from);
            const index last_window = (from + all_rows.rows) * dy_row - filters + filter;
            const int beyond = last_window + vectors * LANES > outputs * dy_row;
            const int packed = half || beyond || vectors > TILE_VECTORS;
            band.dy_step = all_rows.dy_step = packed ? LANES : filters;
            band.dy_vector = all_rows.dy_vector = packed ? band_rows * g->out_width * LANES : LANES;
            for (index row = 0; row < all_rows.rows; ++row) {
                const T *place = dy + (from + row) * dy_row + filter;
                A *to = scratch + row * g->out_width * LANES;
                all_rows.dy[row] = packed ? to : (const void *)place;
                for (index i = 0; packed && i < g->out_width; ++i, to += LANES, place += filters)
                    pack(place, to, used, all_rows.dy_vector);
            }
            if (bias) add_bias(&all_rows, g->out_width, vectors, bias);

            band.x_step = step * channels;
            band.x_ahead = copied ? 0 : band_rows * g->stride_height * x_row;
            band.dy_ahead = packed ? 0 : band_rows * dy_row;
            for (index a = 0; a < kernel_height; a += tall) {
                band.rows = 0;
                for (index row = 0; row < all_rows.rows; ++row) {
                    const index image = (from + row) / g->out_height, output = (from + row) % g->out_height;
                    const index y = output * g->stride_height + a * g->dilation_height - g->pad_top;
                    if (tall == 1 && (y < 0 || y >= g->height)) continue;
                    const T *place = x + (image * g->height + y) * x_row + group * own;
                    A *to = scratch + band_rows * g->out_width * width + band.rows * tall * jump;
                    band.x[band.rows] = copied ? to : (const void *)place;
                    band.dy[band.rows++] = all_rows.dy[row];
                    for (index i = 0; copied && i < tall; ++i, to += jump, place += g->dilation_height * x_row) {
                        const index below = y + i * g->dilation_height;
                        if (below < 0 || below >= g->height) clear(to, jump);
                        else copy_row(place, g, own, reach, to);
                    }
                }
                for (index b = 0; b < (columns_joined ? 1 : kernel_width); ++b) {
                    // Windows begin … begin + columns - 1 of a row have the tap inside the image.
                    const index offset = b * g->dilation_width - pad, left = pixels - offset;
                    const index begin = offset < 0 ? (-offset + step - 1) / step : 0;
                    const index columns = least(left > 0 ? (left + step - 1) / step : 0, g->out_width) - begin;
                    if (columns > 0)
                        tiles(&band, form, (begin * step + offset) * channels, begin * band.dy_step, columns, vectors,
                              total + (a * kernel_width + b) * own * width, width);
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
    const index k = (index)geometry->kernel_height * geometry->kernel_width * (geometry->channels / groups);
    const index own_filters = filters / groups, slots = groups * units * UNIT;
    for (index group = 0; group < groups; ++group) {
        for (index block = 0; block < blocks; ++block) {
            const index unit = units * block / blocks, width = (units * (block + 1) / blocks - unit) * UNIT;
            const index used = least(width, own_filters - unit * UNIT), slot = (group * units + unit) * UNIT;
            const index filter = group * own_filters + unit * UNIT;
            for (index row = first - (db && first == 0); row < last; ++row) { // -1 is the bias
                const A *from = row < 0 ? bias_sums + slot : sums + slot * k + row * width;
                T *to = row < 0 ? db + filter : dw + row * filters + filter;
                const index next = row < 0 ? slots : slots * k;
                index f = 0;
                for (; f + LANES <= used; f += LANES) {
                    vec total = load_sums(from + f);
                    for (index part = 1; part < parts; ++part) total += load_sums(from + part * next + f);
                    store(to + f, total);
                }
                for (; f < used; ++f) {
                    A total = from[f];
                    for (index part = 1; part < parts; ++part) total += from[part * next + f];
                    put(to + f, total);
                }
            }
        }
    }
}
