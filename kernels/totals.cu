// The totals of an epoch: what a batch adds to them.
//
// One block goes through the batch, a thread has every 256th row. Deterministic: the count is one of whole numbers, and
// one thread adds to the totals.
//
// Least bytes: rows·classes·sizeof(T), and the labels.

#define MOST_THREADS 1024

// Adds loss·rows (rounded, as the host does it), the rows whose largest number is at their label, and the rows. The first
// of equal numbers is the largest, the first NaN is larger than all. Labels are as in softmax.cu.
extern "C" __global__ void add_to_totals(
    double *__restrict__ totals /* 3 */, const ACC *__restrict__ loss /* 1 */,
    const T *__restrict__ y /* rows * classes */, const int *__restrict__ labels /* rows * label_words */, INDEX rows,
    int classes, int label_words) {
    __shared__ int counts[MOST_THREADS];
    const int t = threadIdx.x;
    int count = 0;
    for (INDEX row = t; row < rows; row += blockDim.x) {
        const T *numbers = y + row * classes;
        ACC best = widen(numbers[0]);
        int where = 0;
        for (int k = 1; k < classes; ++k) {
            const ACC value = widen(numbers[k]);
            if (value > best || (value != value && best == best)) {
                best = value;
                where = k;
            }
        }
        const bool fits = label_words == 1 || labels[row * label_words + 1] == 0;
        count += fits && labels[row * label_words] == where;
    }
    counts[t] = count;
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) counts[t] += counts[t + half];
    }
    if (t == 0) {
        totals[0] += rounded_product(loss[0], (ACC)rows);
        totals[1] += counts[0];
        totals[2] += rows;
    }
}
