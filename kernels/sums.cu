// Sums along the middle axis of an (outer, length, inner) array: of columns (outer = 1), of rows (inner = 1), of all.
// core/sum_tiles.cu, put before this file, says how they are made, and how exact they are.
//
// Least bytes: outer·length·inner·sizeof(T). The partial sums are a small share of that.

// Stage 1: the sum of each range, (outer, ranges, inner).
extern "C" __global__ void sum_ranges(
    const T *__restrict__ x /* outer * length * inner */, ACC *__restrict__ sums /* outer * ranges * inner */,
    INDEX tiles, INDEX outer, INDEX length, INDEX inner, int width, int lanes, INDEX ranges, INDEX range_rows,
    ACC divisor) {
    const auto term = [=](INDEX place, INDEX row, INDEX column) {
        return widen(x[(place * length + row) * inner + column]);
    };
    sum_tiles(term, sums, tiles, outer, length, inner, width, lanes, ranges, range_rows, divisor);
}

// Stage 1 of the sum of squares: in double, where no square of a float overflows.
extern "C" __global__ void square_ranges(
    const T *__restrict__ x /* outer * length * inner */, double *__restrict__ sums /* outer * ranges * inner */,
    INDEX tiles, INDEX outer, INDEX length, INDEX inner, int width, int lanes, INDEX ranges, INDEX range_rows,
    double divisor) {
    const auto term = [=](INDEX place, INDEX row, INDEX column) {
        const double value = widen(x[(place * length + row) * inner + column]);
        return value * value;
    };
    sum_tiles(term, sums, tiles, outer, length, inner, width, lanes, ranges, range_rows, divisor);
}

// Stage 2: the sums of all ranges, rounded to T. There is one range of them.
extern "C" __global__ void sum_partials(
    const ACC *__restrict__ x /* outer * length * inner */, T *__restrict__ sums /* outer * ranges * inner */,
    INDEX tiles, INDEX outer, INDEX length, INDEX inner, int width, int lanes, INDEX ranges, INDEX range_rows,
    ACC divisor) {
    const auto term = [=](INDEX place, INDEX row, INDEX column) {
        return widen(x[(place * length + row) * inner + column]);
    };
    sum_tiles(term, sums, tiles, outer, length, inner, width, lanes, ranges, range_rows, divisor);
}
