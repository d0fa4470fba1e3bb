// Rows of a matrix by their indices, and the sum of gradients by row: the two directions of an embedding.
//
// rows_of_indices makes int of the indices, -1 where one is out of range. gather_rows and sum_sorted have one thread for
// each number of a place's row: neighbouring threads read neighbouring numbers.
//
// Deterministic, without atomics: sort_by_row puts the places in the order of their rows, and those of one row in their
// own; each thread counts the places before its own, which have one writer each. Then the threads of a row's first place
// add up all its places in that order, which is the order of the twin on the CPU: the same bits, in type ACC, rounded once.
// A row with many places is one thread's work for each number: sums in parts would have other bits.
//
// Least bytes: gradients once, the rows that occur once, indices once. Sorting compares each place with every other, at
// one address for a whole warp: less than the sums move, up to some ten thousand places.

// Indices are 32-bit, or 64-bit as pairs of words, the lower first; of one that fits, the upper word is 0.
extern "C" __global__ void rows_of_indices(
    const int *__restrict__ indices /* places * words */, int *__restrict__ rows /* places */, INDEX places, int count,
    int words) {
    FOR_EACH(i, places) {
        const int row = indices[i * words];
        const bool fits = (words == 1 || indices[i * words + 1] == 0) && row >= 0 && row < count;
        rows[i] = fits ? row : -1;
    }
}

// The row of each place; NaN where the index is out of range.
extern "C" __global__ void gather_rows(
    const T *__restrict__ weight /* count * size */, const int *__restrict__ indices /* places */,
    T *__restrict__ rows /* numbers */, INDEX numbers, int count, int size, INDEX places) {
    FOR_EACH(i, numbers) {
        const INDEX place = i / size;
        const int row = indices[place];
        if (row < 0) narrow((ACC)__int_as_float(0x7fc00000), rows[i]);
        else rows[i] = weight[(INDEX)row * size + (i - place * size)];
    }
}

// The places in the order of their rows, and the rows in that order.
extern "C" __global__ void sort_by_row(
    const int *__restrict__ indices /* places */, int *__restrict__ order /* places */,
    int *__restrict__ ordered /* places */, int places) {
    FOR_EACH(i, places) {
        const int own = indices[i];
        int before = 0;
        for (int j = 0; j < places; ++j) {
            const int other = indices[j];
            before += other < own || (other == own && j < i);
        }
        order[before] = (int)i;
        ordered[before] = own;
    }
}

// The sum of each row that occurs; the others are not written.
extern "C" __global__ void sum_sorted(
    const T *__restrict__ gradients /* numbers */, const int *__restrict__ order /* places */,
    const int *__restrict__ ordered /* places */, T *__restrict__ sums /* count * size */, INDEX numbers, int places,
    int count, int size) {
    FOR_EACH(i, numbers) {
        const int place = (int)(i / size), row = ordered[place];
        if (row < 0 || (place > 0 && ordered[place - 1] == row)) continue;
        const INDEX column = i - (INDEX)place * size;
        ACC sum = 0;
        for (int k = place; k < places && ordered[k] == row; ++k)
            sum += widen(gradients[(INDEX)order[k] * size + column]);
        narrow(sum, sums[(INDEX)row * size + column]);
    }
}
