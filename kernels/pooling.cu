// Max and average pooling of an (N, H, W, C) image, and their gradients.
//
// Max: the first maximum of a window wins, the first NaN wins over all, padding never wins: it is not looked at. argmax
// is the winner's index row·W + column in its plane.
//
// Neighbouring threads hold neighbouring channels: reads and writes are coalesced for 32 channels and more.
//
// Deterministic: every number is written once, by one thread, which adds up in a fixed order and reads nothing that
// another writes.

// Max: one thread an output, which looks at the taps in ascending order. Least bytes: N·H·W·C·sizeof(T) read,
// N·OH·OW·C·(sizeof(T) + 4) written.
extern "C" __global__ void max_pool(
    const T *__restrict__ x /* count / out_height / out_width * height * width */, T *__restrict__ y /* count */,
    int *__restrict__ argmax /* count */, INDEX count, int channels, int height, int width, int out_height,
    int out_width, int kernel_height, int kernel_width, int stride_height, int stride_width, int pad_top, int pad_left,
    int dilation_height, int dilation_width) {
    FOR_EACH(i, count) {
        const Position at = position_of(i, out_height, out_width, channels);
        const int top = at.row * stride_height - pad_top, left = at.column * stride_width - pad_left;
        ACC best = 0;
        int where = -1;  // the host made sure that every window has a pixel: it does not stay -1
        for (int a = 0; a < kernel_height; ++a) {
            const int h = top + a * dilation_height;
            if (h < 0 || h >= height) continue;
            for (int b = 0; b < kernel_width; ++b) {
                const int w = left + b * dilation_width;
                if (w < 0 || w >= width) continue;
                const ACC value = widen(x[((at.image * height + h) * width + w) * channels + at.channel]);
                // A NaN is greater than none and none is greater than it: it takes over once, and stays.
                if (where < 0 || value > best || (value != value && best == best)) {
                    best = value;
                    where = h * width + w;
                }
            }
        }
        narrow(best, y[i]);
        argmax[i] = where;
    }
}

// Its gradient by gather, where windows overlap: one thread a pixel. It visits the windows that contain its pixel, taps
// in ascending order (the order of the loop in pooling.py, bit for bit), and takes the gradient of those that it won.
// Least bytes: N·OH·OW·C·(sizeof(T) + 4) read, N·H·W·C·sizeof(T) written.
extern "C" __global__ void max_pool_backward_gather(
    const T *__restrict__ dy /* count / height / width * out_height * out_width */,
    const int *__restrict__ argmax /* count / height / width * out_height * out_width */,
    T *__restrict__ dx /* count */, INDEX count, int channels, int height, int width, int out_height, int out_width,
    int kernel_height, int kernel_width, int stride_height, int stride_width, int pad_top, int pad_left,
    int dilation_height, int dilation_width) {
    const Start down = start_of(dilation_height, stride_height), across = start_of(dilation_width, stride_width);
    FOR_EACH(i, count) {
        const Position at = position_of(i, height, width, channels);
        const Start first = start_of(at.column + pad_left, stride_width);
        Start y = start_of(at.row + pad_top, stride_height);
        ACC sum = 0;
        for (int a = 0; a < kernel_height; ++a, next_tap(y, down, stride_height)) {
            if (!exists(y, out_height)) continue;
            Start x = first;
            for (int b = 0; b < kernel_width; ++b, next_tap(x, across, stride_width)) {
                if (!exists(x, out_width)) continue;
                const INDEX window =
                    ((at.image * out_height + y.window) * out_width + x.window) * channels + at.channel;
                if (argmax[window] == at.row * width + at.column) sum += widen(dy[window]);
            }
        }
        narrow(sum, dx[i]);
    }
}

// Along one axis, the pixels that a window answers for: its own and the gap to the next, the last window up to the
// image's end.
struct Span { int begin, end; };

__device__ __forceinline__ Span span_of(int window, int windows, int stride, int pad, int size) {
    const int begin = window * stride - pad, end = begin + stride;
    return {begin < 0 ? 0 : begin, window == windows - 1 || end > size ? size : end};
}

// The same by scatter, where they do not: one thread an output. The windows' spans cut the image into rectangles, and a
// thread writes all of its own: dy's bits to the winner, 0 to every other pixel. So one launch writes every pixel, for
// any stride, without atomics and without setting memory to zero before. Least bytes: as by gather.
extern "C" __global__ void max_pool_backward_scatter(
    const T *__restrict__ dy /* count */, const int *__restrict__ argmax /* count */,
    T *__restrict__ dx /* count / out_height / out_width * height * width */, INDEX count, int channels, int height,
    int width, int out_height, int out_width, int stride_height, int stride_width, int pad_top, int pad_left) {
    FOR_EACH(i, count) {
        const Position at = position_of(i, out_height, out_width, channels);
        const Span rows = span_of(at.row, out_height, stride_height, pad_top, height);
        const Span columns = span_of(at.column, out_width, stride_width, pad_left, width);
        const int winner = argmax[i];
        const T upstream = dy[i];
        for (int h = rows.begin; h < rows.end; ++h)
            for (int w = columns.begin; w < columns.end; ++w)
                dx[((at.image * height + h) * width + w) * channels + at.channel] =
                    h * width + w == winner ? upstream : T{};
    }
}

// Average: sum · share, share = 1 / (taps that count). A tap counts where its row is in first_row … end_row - 1 and its
// column in first_column … end_column - 1: inside the image, or inside image and padding. Only pixels of the image are
// ever read.

// The taps of a window that count along one axis.
__device__ __forceinline__ int counted(int start, int dilation, int taps, int first, int end) {
    if (start >= first && start + (taps - 1) * dilation < end) return taps;
    int count = 0;
    for (int tap = 0; tap < taps; ++tap, start += dilation) count += start >= first && start < end;
    return count;
}

// A product that is rounded before it is added: the compiler would make one fused operation of the two, and other bits
// than the twin's.
__device__ __forceinline__ float rounded_product(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ double rounded_product(double a, double b) { return __dmul_rn(a, b); }

// One thread an output, taps in ascending order (the order of the loop in pooling.py, bit for bit).
// Least bytes: N·H·W·C·sizeof(T) read, N·OH·OW·C·sizeof(T) written.
extern "C" __global__ void average_pool(
    const T *__restrict__ x /* count / out_height / out_width * height * width */, T *__restrict__ y /* count */,
    INDEX count, int channels, int height, int width, int out_height, int out_width, int kernel_height,
    int kernel_width, int stride_height, int stride_width, int pad_top, int pad_left, int dilation_height,
    int dilation_width, int first_row, int end_row, int first_column, int end_column) {
    FOR_EACH(i, count) {
        const Position at = position_of(i, out_height, out_width, channels);
        const int top = at.row * stride_height - pad_top, left = at.column * stride_width - pad_left;
        ACC sum = 0;
        for (int a = 0; a < kernel_height; ++a) {
            const int h = top + a * dilation_height;
            if (h < 0 || h >= height) continue;
            for (int b = 0; b < kernel_width; ++b) {
                const int w = left + b * dilation_width;
                if (w < 0 || w >= width) continue;
                sum += widen(x[((at.image * height + h) * width + w) * channels + at.channel]);
            }
        }
        const int rows = counted(top, dilation_height, kernel_height, first_row, end_row);
        const int columns = counted(left, dilation_width, kernel_width, first_column, end_column);
        narrow(sum * ((ACC)1 / (ACC)(rows * columns)), y[i]);
    }
}

// Its gradient by gather: one thread a pixel. It visits the windows that contain its pixel, taps in ascending order (as
// in pooling.py, bit for bit), and takes its share of each one's gradient.
// Least bytes: N·OH·OW·C·sizeof(T) read, N·H·W·C·sizeof(T) written.
extern "C" __global__ void average_pool_backward(
    const T *__restrict__ dy /* count / height / width * out_height * out_width */, T *__restrict__ dx /* count */,
    INDEX count, int channels, int height, int width, int out_height, int out_width, int kernel_height,
    int kernel_width, int stride_height, int stride_width, int pad_top, int pad_left, int dilation_height,
    int dilation_width, int first_row, int end_row, int first_column, int end_column) {
    const Start down = start_of(dilation_height, stride_height), across = start_of(dilation_width, stride_width);
    const ACC whole_share = (ACC)1 / (ACC)(kernel_height * kernel_width);  // the others are divided out one by one
    FOR_EACH(i, count) {
        const Position at = position_of(i, height, width, channels);
        const Start first = start_of(at.column + pad_left, stride_width);
        Start y = start_of(at.row + pad_top, stride_height);
        ACC sum = 0;
        for (int a = 0; a < kernel_height; ++a, next_tap(y, down, stride_height)) {
            if (!exists(y, out_height)) continue;
            const int top = y.window * stride_height - pad_top;
            const int rows = counted(top, dilation_height, kernel_height, first_row, end_row);
            Start x = first;
            for (int b = 0; b < kernel_width; ++b, next_tap(x, across, stride_width)) {
                if (!exists(x, out_width)) continue;
                const int left = x.window * stride_width - pad_left;
                const int taps = rows * counted(left, dilation_width, kernel_width, first_column, end_column);
                const ACC share = taps == kernel_height * kernel_width ? whole_share : (ACC)1 / (ACC)taps;
                const INDEX window =
                    ((at.image * out_height + y.window) * out_width + x.window) * channels + at.channel;
                sum += rounded_product(widen(dy[window]), share);
            }
        }
        narrow(sum, dx[i]);
    }
}
