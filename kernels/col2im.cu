// col2im: every pixel of an (N, H, W, C) image sums up the numbers that the windows containing it hold for it.
//
// columns: (N·OH·OW) rows of FH·FW·C numbers. Tap (a, b) of channel c lies at (a·FW + b)·tap_step + c·channel_step
// in a row: (C, 1) for the order (FH, FW, C), (1, FH·FW) for the order (C, FH, FW).
//
// Least bytes: both arrays once, (N·OH·OW·FH·FW·C + N·H·W·C)·sizeof(T).

// Gather: one thread for each pixel and channel. It visits the windows that contain its pixel, taps in ascending order, so
// the sum has the order of the loop over taps in col2im.py, bit for bit; no two threads write to one place.
// Neighbouring threads hold neighbouring channels: in the order (FH, FW, C) every read and write is coalesced.
extern "C" __global__ void col2im_gather(
    const T *__restrict__ columns /* count / pixels * windows * taps */, T *__restrict__ image /* count */,
    INDEX count, Geometry g, int tap_step, int channel_step) {
    const INDEX row_size = (INDEX)g.kernel_height * g.kernel_width * g.channels;
    const Start down = start_of(g.dilation_height, g.stride_height);
    const Start across = start_of(g.dilation_width, g.stride_width);
    FOR_EACH(i, count) {
        const Position at = position_of(i, g.height, g.width, g.channels);
        const Start first = start_of(at.column + g.pad_left, g.stride_width);
        Start y = start_of(at.row + g.pad_top, g.stride_height);
        ACC sum = 0;
        for (int a = 0; a < g.kernel_height; ++a, next_tap(y, down, g.stride_height)) {
            if (!exists(y, g.out_height)) continue;
            Start x = first;
            for (int b = 0; b < g.kernel_width; ++b, next_tap(x, across, g.stride_width)) {
                if (!exists(x, g.out_width)) continue;
                const INDEX row = (at.image * g.out_height + y.window) * g.out_width + x.window;
                const INDEX tap = (INDEX)(a * g.kernel_width + b) * tap_step + (INDEX)at.channel * channel_step;
                sum += widen(columns[row * row_size + tap]);
            }
        }
        narrow(sum, image[i]);
    }
}

// The index in the image of number i of the columns, or -1 where it lies on padding.
__device__ __forceinline__ INDEX target_of(INDEX i, const Geometry &g, int tap_step, int channel_step) {
    const int taps = g.kernel_height * g.kernel_width;
    const Position at = position_of(i, g.out_height, g.out_width, taps * g.channels);  // "channel" is tap and channel
    const int tap = at.channel / tap_step % taps, c = at.channel / channel_step % g.channels;
    const int a = tap / g.kernel_width, b = tap - a * g.kernel_width;
    const int h = at.row * g.stride_height - g.pad_top + a * g.dilation_height;
    const int w = at.column * g.stride_width - g.pad_left + b * g.dilation_width;
    if (h < 0 || h >= g.height || w < 0 || w >= g.width) return -1;
    return ((at.image * g.height + h) * g.width + w) * g.channels + c;
}

// Scatter-add: one thread for each number of the columns, added to its pixel by atomicAdd. `image` starts at zero and is of
// the type of sums. Not deterministic: the order of the additions is that in which threads come, and the last bits
// differ from run to run. Neighbouring threads hold neighbouring numbers of the columns: reads are coalesced in either
// order, additions in the order (FH, FW, C). It moves more than the least bytes, since a pixel is read and written by
// each window that contains it: in the cache, where it fits.
extern "C" __global__ void col2im_scatter(
    const T *__restrict__ columns /* count */, ACC *__restrict__ image /* count / windows / taps * pixels */,
    INDEX count, Geometry g, int tap_step, int channel_step) {
    FOR_EACH(i, count) {
        const INDEX target = target_of(i, g, tap_step, channel_step);
        if (target >= 0) atomicAdd(&image[target], widen(columns[i]));
    }
}

// Scatter of windows that do not overlap: threads as above, but a pixel belongs to one window at most, so each number
// is stored by the one thread that has it, without atomics, and the result is the same bits every time: those of the
// gather, which is why a number is added to 0 (which makes -0 a +0) before it is stored. Pixels of no window are not
// written: where there are such, `image` starts at zero. Where there are none, it moves the least bytes.
extern "C" __global__ void col2im_scatter_plain(
    const T *__restrict__ columns /* count */, T *__restrict__ image /* count / windows / taps * pixels */,
    INDEX count, Geometry g, int tap_step, int channel_step) {
    FOR_EACH(i, count) {
        const INDEX target = target_of(i, g, tap_step, channel_step);
        if (target >= 0) narrow(0 + widen(columns[i]), image[target]);
    }
}
