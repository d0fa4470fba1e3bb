// Softmax along the rows of an (N, classes) matrix, the cross-entropy against labels, and its gradient.
// core/row_groups.cu, put before this file, says which threads have a row.
//
// Deterministic: a row's sum comes in a fixed order, and mean_loss adds up the rows in a fixed order. Sums, exponentials
// and logarithms are of type ACC, and the results are rounded once.
//
// Least bytes: scores once and probabilities once, 2·N·classes·sizeof(T), and the labels: 4 or 8 bytes a row, or
// distributions, N·classes·sizeof(ACC). A row is read three times (maximum, sum, result), the second and third time from a
// cache. The gradient reads probabilities and labels and writes as many bytes as it reads of probabilities.

// The probabilities of a row are exp(x - most) / total.
struct Scale { ACC most, total; };

// No comparison with a NaN is true: it may be left out of `most`, but not of the total, which it makes NaN.
__device__ __forceinline__ Scale row_scale(const T *x, int classes, int lane, int group) {
    Scale scale;
    scale.most = widen(x[0]);
    for (int k = lane; k < classes; k += group) scale.most = larger(scale.most, widen(x[k]));
    scale.most = group_maximum(scale.most, group);
    scale.total = 0;
    for (int k = lane; k < classes; k += group) scale.total += exp(widen(x[k]) - scale.most);
    scale.total = group_sum(scale.total, group);
    return scale;
}

__device__ __forceinline__ void write_probabilities(
    const T *x, T *y, Scale scale, int classes, int lane, int group) {
    for (int k = lane; k < classes; k += group) narrow(exp(widen(x[k]) - scale.most) / scale.total, y[k]);
}

// The class of a row, or -1 where its label is out of range. Labels are 32-bit, or 64-bit as pairs of words, the lower
// first; of a negative number the lower word is out of range, or the upper word is not 0.
__device__ __forceinline__ int label_of(const int *labels, INDEX row, int label_words, int classes) {
    const int label = labels[row * label_words];
    const bool fits = label_words == 1 || labels[row * label_words + 1] == 0;
    return fits && label >= 0 && label < classes ? label : -1;
}

// Probabilities exp(x - most) / Σ exp(x - most); one group for each row.
extern "C" __global__ void softmax(
    const T *__restrict__ x /* rows * classes */, T *__restrict__ y /* rows * classes */, INDEX rows, int classes,
    int group) {
    FOR_EACH_ROW(row, lane, lasting, rows, group) {
        const T *scores = x + row * classes;
        const Scale scale = row_scale(scores, classes, lane, group);
        if (lasting) write_probabilities(scores, y + row * classes, scale, classes, lane, group);
    }
}

// The mean of the rows' losses where one block has them all, from the sum of those that a thread computed.
__device__ __forceinline__ void write_mean(ACC sum, INDEX rows, ACC *loss) {
    sum = group_sum(sum, blockDim.x);
    if (threadIdx.x == 0) loss[0] = sum / rows;
}

// Probabilities and each row's loss (one group for each row), log total - (x[label] - most); NaN where the label is out
// of range. Where no losses are kept, there is one block, which writes their mean.
extern "C" __global__ void cross_entropy_of_indices(
    const T *__restrict__ x /* rows * classes */, const int *__restrict__ labels /* rows * label_words */,
    T *__restrict__ y /* rows * classes */, ACC *__restrict__ losses /* kept */, ACC *__restrict__ loss /* 1 */,
    INDEX kept, INDEX rows, int classes, int group, int label_words) {
    ACC sum = 0;
    FOR_EACH_ROW(row, lane, lasting, rows, group) {
        const T *scores = x + row * classes;
        const Scale scale = row_scale(scores, classes, lane, group);
        if (!lasting) continue;
        write_probabilities(scores, y + row * classes, scale, classes, lane, group);
        if (lane == 0) {
            const int label = label_of(labels, row, label_words, classes);
            const ACC own = label < 0 ? (ACC)__int_as_float(0x7fc00000)
                                      : log(scale.total) - (widen(scores[label]) - scale.most);
            if (kept) losses[row] = own;
            else sum += own;
        }
    }
    if (!kept) write_mean(sum, rows, loss);
}

// The same against distributions t: Σ t·(log total - (x - most)), where a score of -inf costs nothing if its t is 0.
extern "C" __global__ void cross_entropy_of_soft_targets(
    const T *__restrict__ x /* rows * classes */, const ACC *__restrict__ soft_targets /* rows * classes */,
    T *__restrict__ y /* rows * classes */, ACC *__restrict__ losses /* kept */, ACC *__restrict__ mean /* 1 */,
    INDEX kept, INDEX rows, int classes, int group) {
    ACC sum = 0;
    FOR_EACH_ROW(row, lane, lasting, rows, group) {
        const T *scores = x + row * classes;
        const ACC *target = soft_targets + row * classes;
        const Scale scale = row_scale(scores, classes, lane, group);
        const ACC log_total = log(scale.total);
        ACC loss = 0;
        for (int k = lane; k < classes; k += group)
            if (target[k] != 0) loss += target[k] * (log_total - (widen(scores[k]) - scale.most));
        loss = group_sum(loss, group);
        if (!lasting) continue;
        write_probabilities(scores, y + row * classes, scale, classes, lane, group);
        if (lane != 0) continue;
        if (kept) losses[row] = loss;
        else sum += loss;
    }
    if (!kept) write_mean(sum, rows, mean);
}

// The mean of the rows' losses, by one block: a thread adds up every 256th row, the block the threads' sums in a tree.
extern "C" __global__ void mean_loss(
    const T *__restrict__ losses /* rows */, T *__restrict__ loss /* 1 */, INDEX rows) {
    ACC sum = 0;
    FOR_EACH(row, rows) sum += widen(losses[row]);
    sum = group_sum(sum, blockDim.x);
    if (threadIdx.x == 0) narrow(sum / rows, loss[0]);
}

// (y - [class is the label])·scale / N; one thread for each number. The scale lies in device memory, or is `number`.
extern "C" __global__ void cross_entropy_backward_of_indices(
    const T *__restrict__ y /* count */, const int *__restrict__ labels /* rows * label_words */,
    const ACC *__restrict__ scale /* scales */, T *__restrict__ dx /* count */, int scales, ACC number, INDEX count,
    INDEX rows, int classes, int label_words) {
    const ACC factor = (scales ? scale[0] : number) / rows;
    FOR_EACH(i, count) {
        const INDEX row = i / classes;
        const bool is_label = label_of(labels, row, label_words, classes) == i - row * classes;
        narrow((widen(y[i]) - (is_label ? 1 : 0)) * factor, dx[i]);
    }
}

// (y·Σt - t)·scale / N; one group for each row.
extern "C" __global__ void cross_entropy_backward_of_soft_targets(
    const T *__restrict__ y /* rows * classes */, const ACC *__restrict__ soft_targets /* rows * classes */,
    const ACC *__restrict__ scale /* scales */, T *__restrict__ dx /* rows * classes */, int scales, ACC number,
    INDEX rows, int classes, int group) {
    const ACC factor = (scales ? scale[0] : number) / rows;
    FOR_EACH_ROW(row, lane, lasting, rows, group) {
        const T *probabilities = y + row * classes;
        const ACC *target = soft_targets + row * classes;
        ACC total = 0;
        for (int k = lane; k < classes; k += group) total += target[k];
        total = group_sum(total, group);
        if (!lasting) continue;
        for (int k = lane; k < classes; k += group)
            narrow((widen(probabilities[k]) * total - target[k]) * factor, dx[row * classes + k]);
    }
}
