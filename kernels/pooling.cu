// Max and average pooling of an (N, H, W, C) image, and their gradients.
//
// Max: the first maximum of a window wins, the first NaN wins over all, padding never wins: it is not looked at. argmax
// is the winner's index row·W + column in its plane.
//
// Neighbouring threads hold neighbouring channels: reads and writes are coalesced for 32 channels and more.

// One thread an output. Least bytes: N·H·W·C·sizeof(T) read, N·OH·OW·C·(sizeof(T) + 4) written.
extern "C" __global__ void max_pool(
    const T *__restrict__ x, T *__restrict__ y, int *__restrict__ argmax, INDEX count, int channels, int height,
    int width, int out_height, int out_width, int kernel_height, int kernel_width, int stride_height,
    int stride_width, int pad_top, int pad_left, int dilation_height, int dilation_width) {
    FOR_EACH(i, count) {
        const INDEX window = i / channels, line = window / out_width, n = line / out_height;
        const int c = i - window * channels, ow = window - line * out_width, oh = line - n * out_height;
        ACC best = 0;
        int where = -1;  // the host made sure that every window has a pixel: it does not stay -1
        for (int a = 0; a < kernel_height; ++a) {
            const int h = oh * stride_height - pad_top + a * dilation_height;
            if (h < 0 || h >= height) continue;
            for (int b = 0; b < kernel_width; ++b) {
                const int w = ow * stride_width - pad_left + b * dilation_width;
                if (w < 0 || w >= width) continue;
                const ACC value = widen(x[((n * height + h) * width + w) * channels + c]);
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

// Gather: one thread a pixel. It visits the windows that contain its pixel, taps in ascending order (the order of the
// loop in pooling.py, bit for bit), and takes the gradient of those that it won. No two threads write to one place.
// Least bytes: N·OH·OW·C·(sizeof(T) + 4) read, N·H·W·C·sizeof(T) written.
extern "C" __global__ void max_pool_backward(
    const T *__restrict__ dy, const int *__restrict__ argmax, T *__restrict__ dx, INDEX count, int channels, int height,
    int width, int out_height, int out_width, int kernel_height, int kernel_width, int stride_height,
    int stride_width, int pad_top, int pad_left, int dilation_height, int dilation_width) {
    FOR_EACH(i, count) {
        const INDEX pixel = i / channels, line = pixel / width, n = line / height;
        const int c = i - pixel * channels, w = pixel - line * width, h = line - n * height;
        ACC sum = 0;
        for (int a = 0; a < kernel_height; ++a) {
            const int top = h + pad_top - a * dilation_height;
            const int oh = top / stride_height;
            if (top < 0 || oh >= out_height || oh * stride_height != top) continue;
            for (int b = 0; b < kernel_width; ++b) {
                const int left = w + pad_left - b * dilation_width;
                const int ow = left / stride_width;
                if (left < 0 || ow >= out_width || ow * stride_width != left) continue;
                const INDEX window = ((n * out_height + oh) * out_width + ow) * channels + c;
                if (argmax[window] == h * width + w) sum += widen(dy[window]);
            }
        }
        narrow(sum, dx[i]);
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

// Gather: one thread an output, taps in ascending order (the order of the loop in pooling.py, bit for bit). No two
// threads write to one place. Least bytes: N·H·W·C·sizeof(T) read, N·OH·OW·C·sizeof(T) written.
extern "C" __global__ void average_pool(
    const T *__restrict__ x, T *__restrict__ y, INDEX count, int channels, int height, int width, int out_height,
    int out_width, int kernel_height, int kernel_width, int stride_height, int stride_width, int pad_top, int pad_left,
    int dilation_height, int dilation_width, int first_row, int end_row, int first_column, int end_column) {
    FOR_EACH(i, count) {
        const INDEX window = i / channels, line = window / out_width, n = line / out_height;
        const int c = i - window * channels, ow = window - line * out_width, oh = line - n * out_height;
        const int top = oh * stride_height - pad_top, left = ow * stride_width - pad_left;
        ACC sum = 0;
        for (int a = 0; a < kernel_height; ++a) {
            const int h = top + a * dilation_height;
            if (h < 0 || h >= height) continue;
            for (int b = 0; b < kernel_width; ++b) {
                const int w = left + b * dilation_width;
                if (w < 0 || w >= width) continue;
                sum += widen(x[((n * height + h) * width + w) * channels + c]);
            }
        }
        const int rows = counted(top, dilation_height, kernel_height, first_row, end_row);
        const int columns = counted(left, dilation_width, kernel_width, first_column, end_column);
        narrow(sum * ((ACC)1 / (ACC)(rows * columns)), y[i]);
    }
}

// Gather: one thread a pixel. It visits the windows that contain its pixel, taps in ascending order (as in pooling.py,
// bit for bit), and takes its share of each one's gradient. No two threads write to one place.
// Least bytes: N·OH·OW·C·sizeof(T) read, N·H·W·C·sizeof(T) written.
extern "C" __global__ void average_pool_backward(
    const T *__restrict__ dy, T *__restrict__ dx, INDEX count, int channels, int height, int width, int out_height,
    int out_width, int kernel_height, int kernel_width, int stride_height, int stride_width, int pad_top, int pad_left,
    int dilation_height, int dilation_width, int first_row, int end_row, int first_column, int end_column) {
    FOR_EACH(i, count) {
        const INDEX pixel = i / channels, line = pixel / width, n = line / height;
        const int c = i - pixel * channels, w = pixel - line * width, h = line - n * height;
        ACC sum = 0;
        for (int a = 0; a < kernel_height; ++a) {
            const int top = h + pad_top - a * dilation_height;
            const int oh = top / stride_height;
            if (top < 0 || oh >= out_height || oh * stride_height != top) continue;
            const int rows = counted(top - pad_top, dilation_height, kernel_height, first_row, end_row);
            for (int b = 0; b < kernel_width; ++b) {
                const int left = w + pad_left - b * dilation_width;
                const int ow = left / stride_width;
                if (left < 0 || ow >= out_width || ow * stride_width != left) continue;
                const int columns = counted(left - pad_left, dilation_width, kernel_width, first_column, end_column);
                const ACC share = (ACC)1 / (ACC)(rows * columns);
                const INDEX window = ((n * out_height + oh) * out_width + ow) * channels + c;
                sum += rounded_product(widen(dy[window]), share);
            }
        }
        narrow(sum, dx[i]);
    }
}
