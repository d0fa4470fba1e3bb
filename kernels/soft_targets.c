// Labels as weighted distributions: label smoothing, class weights and ignored labels.
//
// A row has ((class is the label ? 1 - smoothing : 0) + smoothing / classes)·weight[class]·factor, rounded as in the
// twin, and zeros where the label is negative. A vector has neighbouring classes of a row, which is written from
// registers as if it had no label; then the label's number is put in its place, while the row is in cache. No sums: no
// order matters.
// Least bytes: labels once, targets once.

#include "core/vectors.h"

KERNEL(soft_targets)(const int *labels /* rows */, const T *weights /* NULL or classes */, T *targets /* rows * classes */,
                     double smoothing, double factor, index rows, index classes, index first, index last) {
    const A share = (A)(smoothing / classes), own = (A)(1 - smoothing) + share, scale = (A)factor;
    for (index row = first; row < last; ++row) {
        T *to = targets + row * classes;
        const int label = labels[row];
        const A other = label < 0 ? 0 : share, times = label < 0 ? 0 : scale;
        index i = 0;
        for (; i + LANES <= classes; i += LANES)
            store(to + i, (weights ? all(other) * load(weights + i) : all(other)) * all(times));
        for (; i < classes; ++i) put(to + i, (weights ? other * get(weights + i) : other) * times);
        if (label >= 0) put(to + label, (weights ? own * get(weights + label) : own) * scale);
    }
    (void)rows;
}
