// Max pooling of an (N, H, W, C) image, and its gradient.
//
// The first maximum of a window wins, the first NaN wins over all, padding never wins: it is not looked at. argmax is
// the winner's index row·W + column in its plane.
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
