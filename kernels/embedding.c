// The gradient of an embedding: sums of rows by their indices.
//
// A range is some rows of the output. It is cleared, then all places are gone through in ascending order, and the
// gradients of those whose index is in the range are added to its row, in vectors, in the type of sums. So the order of a
// sum depends on no range. The indices of all places are read once for each range: 4 bytes of each, against the
// gradient's row. Least bytes: gradients once, output once, indices once.

#include "core/vectors.h"

KERNEL(sum_rows)(const T *gradients /* places * size */, const int *indices /* places */, A *sums /* count * size */,
                 index places, index count, index size, index first, index last) {
    __builtin_memset(sums + first * size, 0, (last - first) * size * sizeof(A));
    for (index place = 0; place < places; ++place) {
        const index row = indices[place];
        if (row < first || row >= last) continue;
        const T *from = gradients + place * size;
        A *to = sums + row * size;
        index i = 0;
        for (; i + LANES <= size; i += LANES) store_sums(to + i, load_sums(to + i) + load(from + i));
        for (; i < size; ++i) to[i] += get(from + i);
    }
    (void)count;
}
