// Layer normalization of the rows of a (rows, size) matrix, and its gradients. Put before this file, core/row_groups.cu says
// which threads have a row, and core/sum_tiles.cu how columns are summed.
//
// Deterministic: every sum comes in a fixed order. Sums are of type ACC, as are the normalized numbers, which are kept for
// the gradients; the results are rounded once.
//
// Least bytes: rows·size·(2·sizeof(T) + sizeof(ACC)) forward and for dx, rows·size·(sizeof(T) + sizeof(ACC)) for dγ. A row
// is read two or three times, all but the first from a cache.

// y = γ·x̂ + β, x̂ = (x - μ) / σ and 1 / σ, with σ = √(σ² + ε); one group for each row. The variance is that of the
// differences, since E[x²] - E[x]² would cancel.
extern "C" __global__ void layer_norm(
    const T *__restrict__ x /* rows * size */, const T *__restrict__ gamma /* size */,
    const T *__restrict__ beta /* size */, T *__restrict__ y /* rows * size */,
    ACC *__restrict__ normalized /* rows * size */, ACC *__restrict__ inverse /* rows */, INDEX rows, int size,
    int group, ACC epsilon) {
    FOR_EACH_ROW(row, lane, lasting, rows, group) {
        const T *numbers = x + row * size;
        ACC sum = 0, squares = 0;
        for (int k = lane; k < size; k += group) sum += widen(numbers[k]);
        const ACC mean = group_sum(sum, group) / size;
        for (int k = lane; k < size; k += group) {
            const ACC difference = widen(numbers[k]) - mean;
            squares += difference * difference;
        }
        const ACC scale = 1 / sqrt(group_sum(squares, group) / size + epsilon);
        if (!lasting) continue;
        if (lane == 0) inverse[row] = scale;
        for (int k = lane; k < size; k += group) {
            const ACC unit = (widen(numbers[k]) - mean) * scale;
            normalized[row * size + k] = unit;
            narrow(unit * widen(gamma[k]) + widen(beta[k]), y[row * size + k]);
        }
    }
}

// dx = (dy·γ - mean(dy·γ) - x̂·mean(dy·γ·x̂)) / σ; one group for each row.
extern "C" __global__ void layer_norm_backward(
    const T *__restrict__ dy /* rows * size */, const ACC *__restrict__ normalized /* rows * size */,
    const ACC *__restrict__ inverse /* rows */, const T *__restrict__ gamma /* size */,
    T *__restrict__ dx /* rows * size */, INDEX rows, int size, int group) {
    FOR_EACH_ROW(row, lane, lasting, rows, group) {
        const T *upstream = dy + row * size;
        const ACC *unit = normalized + row * size;
        ACC level = 0, along = 0;
        for (int k = lane; k < size; k += group) {
            const ACC scaled = widen(upstream[k]) * widen(gamma[k]);
            level += scaled;
            along += scaled * unit[k];
        }
        level = group_sum(level, group) / size;
        along = group_sum(along, group) / size;
        if (!lasting) continue;
        for (int k = lane; k < size; k += group) {
            const ACC scaled = widen(upstream[k]) * widen(gamma[k]);
            narrow((scaled - level - unit[k] * along) * inverse[row], dx[row * size + k]);
        }
    }
}

// Stage 1 of dγ = Σ dy·x̂, the sums of ranges of rows: as sum_ranges of sums.cu, which has stage 2.
extern "C" __global__ void layer_norm_products(
    const T *__restrict__ dy /* outer * length * inner */, const ACC *__restrict__ normalized /* outer * length * inner */,
    ACC *__restrict__ sums /* outer * ranges * inner */, INDEX tiles, INDEX outer, INDEX length, INDEX inner, int width,
    int lanes, INDEX ranges, INDEX range_rows, ACC divisor) {
    const auto term = [=](INDEX place, INDEX row, INDEX column) {
        const INDEX i = (place * length + row) * inner + column;
        return widen(dy[i]) * normalized[i];
    };
    sum_tiles(term, sums, tiles, outer, length, inner, width, lanes, ranges, range_rows, divisor);
}
