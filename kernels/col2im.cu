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
    const T *__restrict__ columns /* count / height / width * out_height * out_width * kernel_height * kernel_width */,
    T *__restrict__ image /* count */, INDEX count, int channels, int height, int width, int out_height, int out_width,
    int kernel_height, int kernel_width, int stride_height, int stride_width, int pad_top, int pad_left,
    int dilation_height, int dilation_width, int tap_step, int channel_step) {
    const INDEX row_size = (INDEX)kernel_height * kernel_width * channels;
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
                const INDEX row = (at.image * out_height + y.window) * out_width + x.window;
                const INDEX tap = (INDEX)(a * kernel_width + b) * tap_step + (INDEX)at.channel * channel_step;
                sum += widen(columns[row * row_size + tap]);
            }
        }
        narrow(sum, image[i]);
    }
}

// The index in the image of number i of the columns, or -1 where it lies on padding.
__device__ __forceinline__ INDEX target_of(
    INDEX i, int channels, int height, int width, int out_height, int out_width, int kernel_height, int kernel_width,
    int stride_height, int stride_width, int pad_top, int pad_left, int dilation_height, int dilation_width,
    int tap_step, int channel_step) {
    const int taps = kernel_height * kernel_width;
    const Position at = position_of(i, out_height, out_width, taps * channels);  // its channel is a tap and a channel
    const int tap = at.channel / tap_step % taps, c = at.channel / channel_step % channels;
    const int a = tap / kernel_width, b = tap - a * kernel_width;
    const int h = at.row * stride_height - pad_top + a * dilation_height;
    const int w = at.column * stride_width - pad_left + b * dilation_width;
    if (h < 0 || h >= height || w < 0 || w >= width) return -1;
    return ((at.image * height + h) * width + w) * channels + c;
}

// Scatter-add: one thread a number of the columns, added to its pixel by atomicAdd. `image` starts at zero and is of
// the type of sums. Not deterministic: the order of the additions is that in which threads come, and the last bits
// differ from run to run. Neighbouring threads hold neighbouring numbers of the columns: reads are coalesced in either
// order, additions in the order (FH, FW, C). It moves more than the least bytes, since a pixel is read and written by
// each window that contains it: in the cache, where it fits.
extern "C" __global__ void col2im_scatter(
    const T *__restrict__ columns /* count */,
    ACC *__restrict__ image /* count / out_height / out_width / kernel_height / kernel_width * height * width */,
    INDEX count, int channels, int height, int width, int out_height, int out_width, int kernel_height,
    int kernel_width, int stride_height, int stride_width, int pad_top, int pad_left, int dilation_height,
    int dilation_width, int tap_step, int channel_step) {
    FOR_EACH(i, count) {
        const INDEX target = target_of(
            i, channels, height, width, out_height, out_width, kernel_height, kernel_width, stride_height, stride_width,
            pad_top, pad_left, dilation_height, dilation_width, tap_step, channel_step);
        if (target >= 0) atomicAdd(&image[target], widen(columns[i]));
    }
}

// Scatter of windows that do not overlap: threads as above, but a pixel belongs to one window at most, so each number
// is stored by the one thread that has it, without atomics, and the result is the same bits every time: those of the
// gather, which is why a number is added to 0 (which makes -0 a +0) before it is stored. Pixels of no window are not
// written: where there are such, `image` starts at zero. Where there are none, it moves the least bytes.
extern "C" __global__ void col2im_scatter_plain(
    const T *__restrict__ columns /* count */,
    T *__restrict__ image /* count / out_height / out_width / kernel_height / kernel_width * height * width */,
    INDEX count, int channels, int height, int width, int out_height, int out_width, int kernel_height,
    int kernel_width, int stride_height, int stride_width, int pad_top, int pad_left, int dilation_height,
    int dilation_width, int tap_step, int channel_step) {
    FOR_EACH(i, count) {
        const INDEX target = target_of(
            i, channels, height, width, out_height, out_width, kernel_height, kernel_width, stride_height, stride_width,
            pad_top, pad_left, dilation_height, dilation_width, tap_step, channel_step);
        if (target >= 0) narrow(0 + widen(columns[i]), image[target]);
    }
}
