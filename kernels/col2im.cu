// col2im: every pixel of an (N, H, W, C) image sums up what the windows that contain it hold for it.
//
// columns: (N·OH·OW) rows of FH·FW·C numbers. Tap (a, b) of channel c lies at (a·FW + b)·tap_step + c·channel_step
// in a row: (C, 1) for the order (FH, FW, C), (1, FH·FW) for the order (C, FH, FW).
//
// Least bytes: both arrays once, (N·OH·OW·FH·FW·C + N·H·W·C)·sizeof(T).

// Gather: one thread a pixel and channel. It visits the windows that contain its pixel, taps in ascending order, so
// the sum has the order of the loop over taps in col2im.py, bit for bit; no two threads write to one place.
// Neighbouring threads hold neighbouring channels: in the order (FH, FW, C) every read and write is coalesced.
extern "C" __global__ void col2im_gather(
    const T *__restrict__ columns, T *__restrict__ image, INDEX count, int channels, int height, int width,
    int out_height, int out_width, int kernel_height, int kernel_width, int stride_height, int stride_width,
    int pad_top, int pad_left, int dilation_height, int dilation_width, int tap_step, int channel_step) {
    const INDEX row_size = (INDEX)kernel_height * kernel_width * channels;
    FOR_EACH(i, count) {
        const INDEX pixel = i / channels, line = pixel / width, n = line / height;
        const int c = i - pixel * channels, w = pixel - line * width, h = line - n * height;
        ACC sum = 0;
        for (int a = 0; a < kernel_height; ++a) {
            const int y = h + pad_top - a * dilation_height;
            const int oh = y / stride_height;
            if (y < 0 || oh >= out_height || oh * stride_height != y) continue;
            for (int b = 0; b < kernel_width; ++b) {
                const int x = w + pad_left - b * dilation_width;
                const int ow = x / stride_width;
                if (x < 0 || ow >= out_width || ow * stride_width != x) continue;
                const INDEX row = (n * out_height + oh) * out_width + ow;
                const INDEX tap = (INDEX)(a * kernel_width + b) * tap_step + (INDEX)c * channel_step;
                sum += widen(columns[row * row_size + tap]);
            }
        }
        narrow(sum, image[i]);
    }
}

// Scatter-add: one thread a number of the columns, added to its pixel by atomicAdd. `image` starts at zero and is of
// the type of sums. The order of the additions is that in which threads come: the last bits differ from run to run.
extern "C" __global__ void col2im_scatter(
    const T *__restrict__ columns, ACC *__restrict__ image, INDEX count, int channels, int height, int width,
    int out_height, int out_width, int kernel_height, int kernel_width, int stride_height, int stride_width,
    int pad_top, int pad_left, int dilation_height, int dilation_width, int tap_step, int channel_step) {
    const int taps = kernel_height * kernel_width, row_size = taps * channels;
    FOR_EACH(i, count) {
        const INDEX row = i / row_size, line = row / out_width, n = line / out_height;
        const int k = i - row * row_size, ow = row - line * out_width, oh = line - n * out_height;
        const int tap = k / tap_step % taps, c = k / channel_step % channels;
        const int a = tap / kernel_width, b = tap - a * kernel_width;
        const int h = oh * stride_height - pad_top + a * dilation_height;
        const int w = ow * stride_width - pad_left + b * dilation_width;
        if (h < 0 || h >= height || w < 0 || w >= width) continue;
        atomicAdd(&image[((n * height + h) * width + w) * channels + c], widen(columns[i]));
    }
}
