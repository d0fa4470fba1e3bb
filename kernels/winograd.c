// The transforms of Winograd's F(4×4, 3×3): tiles of pixels to 36 numbers for each channel, and such numbers to 4×4 pixels,
// or to the gradients of 3×3 filters.
//
// Matrix products stand between them (winograd.py). A tile and a vector of channels at a time: its pixels are loaded, in
// zeros where they are outside the image, transformed along rows, then along columns, and the results are written, one
// to each of the 36 matrices (tiles, channels). The numbers of a step are more than the registers; they stay in L1.
//
// Order of a sum: that of a matrix's row, factors of zero left out; then the bias. Least bytes: pixels and results once.

#include "core/vectors.h"

#define PLACES 36 // in the transformed tile: 6×6
#define TILE 4    // pixels along an axis from one tile to the next

// Bᵀ and Aᵀ of Lavin and Gray for the points 0, ±1, ±2. The gradient of outputs is transformed by A.
static const A INPUT[6][6] = {{4, 0, -5, 0, 1, 0},  {0, -4, -4, 1, 1, 0}, {0, 4, -4, -1, 1, 0},
                              {0, -2, -1, 2, 1, 0}, {0, 2, -1, -2, 1, 0}, {0, 4, 0, -5, 0, 1}};
static const A OUTPUT[6][6] = {{1, 1, 1, 1, 1, 0}, {0, 1, -1, 2, -2, 0}, {0, 1, 1, 4, 4, 0}, {0, 1, -1, 8, -8, 1}};
static const A WEIGHT[6][6] = {{(A)1 / 4, -(A)1 / 6, -(A)1 / 6, (A)1 / 24, (A)1 / 24, 0},
                               {0, -(A)1 / 6, (A)1 / 6, (A)1 / 12, -(A)1 / 12, 0},
                               {0, -(A)1 / 6, -(A)1 / 6, (A)1 / 6, (A)1 / 6, 1}}; // Gᵀ
static const A GRADIENT[6][6] = {{1, 0, 0, 0}, {1, 1, 1, 1}, {1, -1, 1, -1}, {1, 2, 4, 8}, {1, -2, 4, -8}, {0, 0, 0, 1}};

// Multiplies numbers (size, size) by a matrix (made, size) along both axes: made = M · numbers · Mᵀ.
INLINE void transform(const int size, const int made, const A matrix[6][6], vec numbers[6][6], vec results[6][6]) {
    vec half[6][6];
    UNROLL for (int pass = 0; pass < 2; ++pass) {
        UNROLL for (int i = 0; i < made; ++i) UNROLL for (int j = 0; j < (pass ? made : size); ++j) {
            vec sum = all(0);
            int begun = 0;
            UNROLL for (int k = 0; k < size; ++k) {
                const A factor = matrix[pass ? j : i][k];
                const vec number = pass ? half[i][k] : numbers[k][j];
                if (factor == 0) continue;
                const vec product = factor == 1 ? number : all(factor) * number;
                sum = begun ? sum + product : product;
                begun = 1;
            }
            if (pass) results[i][j] = sum;
            else half[i][j] = sum;
        }
    }
}

INLINE vec load_lanes(const T *p, index count) { return count < LANES ? load_some(p, count) : load(p); }

INLINE void tiles_of(const int size, const A matrix[6][6], const T *x, A *made, index images, index height, index width,
                     index channels, index first_row, index first_column, index down, index across) {
    const index matrix_size = images * down * across * channels;
    for (index tile = 0; tile < images * down * across; ++tile) {
        const index row = first_row + tile / across % down * TILE, column = first_column + tile % across * TILE;
        const T *image = x + tile / across / down * height * width * channels;
        for (index c = 0; c < channels; c += LANES) {
            vec numbers[6][6], results[6][6];
            const index count = least(channels - c, LANES);
            UNROLL for (int i = 0; i < size; ++i) UNROLL for (int j = 0; j < size; ++j) {
                const int met = row + i >= 0 && row + i < height && column + j >= 0 && column + j < width;
                numbers[i][j] = met ? load_lanes(image + ((row + i) * width + column + j) * channels + c, count) : all(0);
            }
            transform(size, 6, matrix, numbers, results);
            for (int place = 0; place < PLACES; ++place) {
                A *to = made + place * matrix_size + tile * channels + c;
                const vec result = results[place / 6][place % 6];
                if (count == LANES) store_sums(to, result);
                else for (index i = 0; i < count; ++i) to[i] = result[i];
            }
        }
    }
}

// Transforms overlapping tiles of 6×6 pixels, or with `gradient` tiles of 4×4. The first begins at (first_row,
// first_column), from which tiles follow down and across.
KERNEL(winograd_tiles)(const T *x /* images * height * width * channels */,
                       A *made /* 36 * images * down * across * channels */, index images, index height, index width,
                       index channels, index first_row, index first_column, index down, index across, index gradient) {
    if (gradient)
        tiles_of(4, GRADIENT, x, made, images, height, width, channels, first_row, first_column, down, across);
    else
        tiles_of(6, INPUT, x, made, images, height, width, channels, first_row, first_column, down, across);
}

// Transforms products to the pixels of y from first_row on, with bias and ReLU; what reaches beyond y is left out.
KERNEL(winograd_outputs)(const A *products /* 36 * images * down * across * filters */,
                         const T *bias /* NULL or filters */, T *y /* images * height * width * filters */,
                         unsigned char *positive /* NULL or images * height * width * filters */, index images,
                         index height, index width, index filters, index first_row, index down, index across) {
    const index matrix_size = images * down * across * filters;
    for (index tile = 0; tile < images * down * across; ++tile) {
        const index row = first_row + tile / across % down * TILE, column = tile % across * TILE;
        for (index f = 0; f < filters; f += LANES) {
            vec numbers[6][6], results[6][6];
            const index count = least(filters - f, LANES);
            for (int place = 0; place < PLACES; ++place) {
                const A *from = products + place * matrix_size + tile * filters + f;
                vec number = all(0);
                if (count == LANES) number = load_sums(from);
                else for (index i = 0; i < count; ++i) number[i] = from[i];
                numbers[place / 6][place % 6] = number;
            }
            transform(6, 4, OUTPUT, numbers, results);
            const vec of_filters = bias ? load_lanes(bias + f, count) : all(0);
            for (int i = 0; i < TILE && row + i < height; ++i) for (int j = 0; j < TILE && column + j < width; ++j) {
                const index at = ((tile / across / down * height + row + i) * width + column + j) * filters + f;
                const vec sum = rounded(results[i][j] + of_filters);
                const mask above = sum > all(0);
                store_up_to(y + at, positive ? rectified(sum) : sum, count);
                if (positive) store_mask_up_to(positive + at, above, count);
            }
        }
    }
}

// Adds up parts, and transforms the sums to the gradients of filters, of the channels from `first` to `last` - 1.
KERNEL(winograd_weights)(const A *totals /* parts * 36 * channels * filters */, T *dw /* filters * channels * 9 */,
                         index parts, index channels, index filters, index first, index last) {
    const index matrix_size = channels * filters;
    for (index c = first; c < last; ++c) for (index f = 0; f < filters; f += LANES) {
        vec numbers[6][6], results[6][6];
        const index count = least(filters - f, LANES);
        for (int place = 0; place < PLACES; ++place) {
            vec sum = all(0);
            for (index part = 0; part < parts; ++part) {
                const A *from = totals + (part * PLACES + place) * matrix_size + c * filters + f;
                vec number = all(0);
                if (count == LANES) number = load_sums(from);
                else for (index i = 0; i < count; ++i) number[i] = from[i];
                sum += number;
            }
            numbers[place / 6][place % 6] = sum;
        }
        transform(6, 3, WEIGHT, numbers, results);
        A lanes[9][LANES];
        UNROLL for (int tap = 0; tap < 9; ++tap) store_sums(lanes[tap], results[tap / 3][tap % 3]);
        for (index i = 0; i < count; ++i)
            for (int tap = 0; tap < 9; ++tap) put(dw + ((f + i) * channels + c) * 9 + tap, lanes[tap][i]);
    }
}
