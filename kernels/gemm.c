// Matrix products c = a @ b, (rows, depth) by (depth, columns), either operand transposed in memory, with a bias and a
// ReLU in the epilogue.
//
// The depth goes in equal runs of at most RUN, multiples of 4, columns in panels of WIDTH, VECTORS vectors. A run of a
// panel of b is packed: its rows lie one after the other, converted to the type of sums, filled up to whole vectors. All
// rows of a then go over it in tiles of ROWS, whose sums stay in registers: for every step in depth VECTORS loads of b,
// ROWS numbers of a, each spread over a vector, and ROWS * VECTORS fma. With few rows b is not packed where it lies in
// order: nothing would be gained.
//
// With vectors of 64 bytes a panel of 64 KiB comes from the second level of cache, 256 bytes for 24 fma of 64 bytes.
// With vectors of 32 a panel is narrow, and a would come from there once for each: so a block of rows goes over 128 KiB
// of panels, and stays in the first level. Where a is transposed, its numbers in lines far from each other, the block is
// packed, too.
//
// Where a is transposed, its rows can take the place of the columns, the transposed result being computed, if that fills
// vectors better: a weight gradient (512, 10) is 10 times 32 vectors, not 512 times 1.
//
// Order of sums: for every element of c, the products of a run are added in the order of the depth, each by an fma, from
// +0; the runs are added up in order. So no bit depends on tiles, panels, ranges or the width of a vector.
//
// Least bytes: a once for each panel, b once, c once for each run.

#include "core/product_panel.h"

#define GROUP 16

enum {
    UNPACKED = 12, // rows up to which b is not packed
    PANELS = VECTOR_BYTES == 32 ? 8 : 1, // of whole runs, that a block of rows goes over
    MOST_PANELS = VECTOR_BYTES == 32 ? 32 : 1,
    BLOCK = 4 * ROWS,
};

// Bring a row of sums to memory, with the bias and the ReLU. A number that is rounded to 0 is not positive.
INLINE void finish_row(const Panel *p, index to, const A *sums) {
    int i = 0;
    for (; i + LANES <= p->width; i += LANES) {
        vec value = load_sums(sums + i);
        if (p->bias) value += load(p->bias + i);
        if (p->positive) {
            value = rounded(value);
            store_mask(p->positive + to + i, value > all(0));
            value = rectified(value);
        }
        store(p->c + to + i, value);
    }
#pragma clang loop unroll(disable) vectorize(disable)
    for (; i < p->width; ++i) {
        A value = sums[i];
        if (p->bias) value += get(p->bias + i);
        if (p->positive) {
            value = (T)value;
            p->positive[to + i] = value > 0;
            if (value <= 0) value = 0;
        }
        put(p->c + to + i, value);
    }
}

// Copy a row of sums, `width` numbers that lie `from_step` and `to_step` apart.
INLINE void copy_sums(A *to, index to_step, const A *from, index from_step, int width) {
    int i = 0;
    if (to_step == 1 && from_step == 1)
        for (; i + LANES <= width; i += LANES) store_sums(to + i, load_sums(from + i));
#pragma clang loop unroll(disable) vectorize(disable)
    for (; i < width; ++i) to[i * to_step] = from[i * from_step];
}

// Fetch the sums of a tile that the runs before have left.
static void fetch(const Panel *p, index row, int rows, A *total) {
    for (int r = 0; r < rows; ++r)
        copy_sums(total + r * WIDTH, 1, p->sums + (row + r) * p->c_row, p->c_column, p->width);
}

// Bring the sums of a tile to memory.
INLINE void finish(const int rows, const Panel *p, index row, const A *total) {
    const index to = row * p->c_row, c_row = p->c_row, c_column = p->c_column;
    if (!p->is_last)
        for (int r = 0; r < rows; ++r) copy_sums(p->sums + to + r * c_row, c_column, total + r * WIDTH, 1, p->width);
    else if (c_column > 1)
        for (int i = 0; i < p->width; ++i)
            UNROLL for (int r = 0; r < rows; ++r) put(p->c + to + i * c_column + r, total[r * WIDTH + i]);
    else
        for (int r = 0; r < rows; ++r) finish_row(p, to + r * c_row, total + r * WIDTH);
}

static void finish_6(const Panel *p, index row, const A *total) { finish(6, p, row, total); }
static void finish_4(const Panel *p, index row, const A *total) { finish(4, p, row, total); }
static void finish_2(const Panel *p, index row, const A *total) { finish(2, p, row, total); }
static void finish_1(const Panel *p, index row, const A *total) { finish(1, p, row, total); }

// Multiply rows by a panel. The sums of a tile lie in c, if it has their type and its rows whole vectors, else apart.
INLINE void rows_of(const int vectors, const int half, const Panel *p, index row, index last) {
    A tile[ROWS * WIDTH] ALIGNED;
    const int direct = sizeof(T) == sizeof(A) && p->c_column == 1 && p->width == vectors * LANES + half * LANES / 2;
    const index stride = direct ? p->c_row : WIDTH;
    while (row < last) {
        const int rows = tall(last - row);
        A *total = direct ? (A *)p->c + row * p->c_row : tile;
        if (!direct && !p->is_first) fetch(p, row, rows, tile);
        switch (rows) {
        case 6: multiply(6, vectors, half, p, row, total, stride); break;
        case 4: multiply(4, vectors, half, p, row, total, stride); break;
        case 2: multiply(2, vectors, half, p, row, total, stride); break;
        default: multiply(1, vectors, half, p, row, total, stride);
        }
        if (!direct) switch (rows) {
            case 6: finish_6(p, row, tile); break;
            case 4: finish_4(p, row, tile); break;
            case 2: finish_2(p, row, tile); break;
            default: finish_1(p, row, tile);
            }
        else if (p->is_last && (p->bias || p->positive))
            for (int r = 0; r < rows; ++r) finish_row(p, (row + r) * p->c_row, total + r * stride);
        row += rows;
    }
}

INLINE int halves(index columns) { return (columns + LANES / 2 - 1) / (LANES / 2); } // of vectors

// Multiply rows by a panel of any width.
static void multiply_panel(const Panel *p, index row, index last) {
    switch (halves(p->width)) {
    case 1: rows_of(0, 1, p, row, last); break;
    case 2: rows_of(1, 0, p, row, last); break;
    case 3: rows_of(1, 1, p, row, last); break;
    case 4: rows_of(2, 0, p, row, last); break;
#if VECTOR_BYTES != 32
    case 5: rows_of(2, 1, p, row, last); break;
    case 6: rows_of(3, 0, p, row, last); break;
    case 7: rows_of(3, 1, p, row, last); break;
    case 8: rows_of(4, 0, p, row, last); break;
#endif
    }
}

static void multiply_matrices(const T *a, const T *b, const T *bias, T *c, unsigned char *positive, A *sums, int rows,
                              int depth, int columns, int a_transposed, int b_transposed, int first_row, int last_row,
                              int first_column, int last_column) {
    A packed[PANELS * RUN * WIDTH] ALIGNED;
    T packed_rows[BLOCK * RUN];
    Panel panels[MOST_PANELS];
    Panel p = {.a_row = a_transposed ? 1 : depth, .a_depth = a_transposed ? rows : 1, .c_row = columns, .c_column = 1};
    if (sizeof(T) == sizeof(A)) sums = (A *)c;
    index b_row = columns;
    const index high = last_row - first_row, wide = last_column - first_column;
    const index upright = high * halves(wide), across = wide * halves(high); // the work
    if (a_transposed && !bias && !positive && across < upright - upright / 8) {
        const T *const left = a;
        const int first = first_row, last = last_row;
        a = b, b = left;
        p.a_row = b_transposed ? depth : 1, p.a_depth = b_transposed ? 1 : columns;
        p.c_row = 1, p.c_column = columns;
        b_row = rows, b_transposed = 0;
        first_row = first_column, last_row = last_column, first_column = first, last_column = last;
    }
    const int in_place = sizeof(T) == sizeof(A) && last_row - first_row <= UNPACKED;
    const index all = depth, runs = most((all + RUN - 1) / RUN, 1), run = most((all + 4 * runs - 1) / (4 * runs) * 4, 4);
    const index fit = least(PANELS * RUN / run, MOST_PANELS);
    for (index column = first_column, end; column < last_column; column = end) {
        end = least(column + fit * WIDTH, last_column);
        for (index k = 0; k < depth || k == 0; k += run) {
            int count = 0;
            p.a = a + k * p.a_depth, p.depth = least(run, depth - k);
            const index together = b_transposed || in_place ? 0 : (end - column) / WIDTH;
            pack_together(packed, run * WIDTH, together, b + k * b_row + column, b_row, p.depth);
            p.is_first = k == 0, p.is_last = k + run >= depth;
            for (index from = column; from < end; from += WIDTH, ++count) {
                p.width = least(WIDTH, end - from);
                p.bias = bias ? bias + from : bias;
                p.c = c + from * p.c_column;
                p.positive = positive ? positive + from : positive;
                p.sums = sums ? sums + from * p.c_column : sums;
                const int padded = p.b_depth = (halves(p.width) + 1) / 2 * LANES;
                A *const panel = packed + count * run * WIDTH;
                p.b = panel;
                if (b_transposed)
                    pack_transposed(panel, b + from * depth + k, depth, p.depth, p.width, padded);
                else if (in_place && p.width % LANES == 0)
                    p.b = (const A *)(b + k * b_row + from), p.b_depth = b_row;
                else if (count >= together)
                    pack(panel, b + k * b_row + from, b + depth * b_row, b_row, p.depth, p.width, padded);
                panels[count] = p;
            }
            const index block = PANELS > 1 ? BLOCK : last_row - first_row;
            for (index row = first_row, end_row; row < last_row; row = end_row) {
                end_row = least(row + block, last_row);
                const int packs = PANELS > 1 && count > 1 && p.a_row == 1;
                if (packs) pack_rows(packed_rows, p.a + row, p.a_depth, p.depth, end_row - row);
                for (int i = 0; i < count; ++i) {
                    panels[i].packed = packs ? packed_rows : 0;
                    panels[i].packed_from = row;
                    multiply_panel(panels + i, row, end_row);
                }
            }
        }
    }
}

// c = max(a @ b + bias, 0), and where it is positive, of a stack of matrices: for a range of its rows or, if there are
// more of these, of its columns, counted in groups of GROUP, which are whole vectors.
// float16 has `sums` if the depth is more than RUN.
KERNEL(gemm)(const T *a /* stack * rows * depth */, const T *b /* stack * depth * columns */,
             const T *bias /* NULL or columns */, T *c /* stack * rows * columns */,
             unsigned char *positive /* NULL or stack * rows * columns */, A *sums /* NULL or stack * rows * columns */,
             int stack, int rows, int depth, int columns, int a_transposed, int b_transposed, index first,
             index last_group) {
    const int by_rows = rows >= columns, length = by_rows ? rows : columns;
    const int begin = (int)(first * GROUP), end = (int)least(last_group * GROUP, length);
    const int first_row = by_rows ? begin : 0, last_row = by_rows ? end : rows;
    const int first_column = by_rows ? 0 : begin, last_column = by_rows ? columns : end;
    const index size = (index)rows * columns;
    for (int s = 0; s < stack; ++s, a += (index)rows * depth, b += (index)depth * columns, c += size)
        multiply_matrices(a, b, bias, c, positive ? positive + s * size : positive, sums ? sums + s * size : sums, rows,
                          depth, columns, a_transposed, b_transposed, first_row, last_row, first_column, last_column);
}
