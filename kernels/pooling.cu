// Max and average pooling of an (N, H, W, C) image, and their gradients.
//
// Max: the first maximum of a window wins, the first NaN wins over all, padding never wins: it is not looked at. Of each
// winner `winner_bytes` are kept: one for its tap, counted from 0 along the rows of the window, or four for its index
// row·W + column in its plane, an int.
//
// Neighbouring threads hold neighbouring channels: reads and writes are coalesced for 32 channels and more.
//
// Deterministic: every number is written once, by one thread, which adds up in a fixed order and reads nothing that
// another writes.

// Max: one thread for each output, which looks at the taps in ascending order. Least bytes: N·H·W·C·sizeof(T) read,
// N·OH·OW·C·(sizeof(T) + winner_bytes) written.
extern "C" __global__ void max_pool(
    const T *__restrict__ x /* count / windows * pixels */, T *__restrict__ y /* count */,
    unsigned char *__restrict__ winners /* count * winner_bytes */, INDEX count, Geometry g, int winner_bytes) {
    FOR_EACH(i, count) {
        const Position at = position_of(i, g.out_height, g.out_width, g.channels);
        const int top = at.row * g.stride_height - g.pad_top, left = at.column * g.stride_width - g.pad_left;
        ACC best = 0;
        int where = -1;  // the host made sure that every window has a pixel: it does not stay -1
        for (int a = 0; a < g.kernel_height; ++a) {
            const int h = top + a * g.dilation_height;
            if (h < 0 || h >= g.height) continue;
            for (int b = 0; b < g.kernel_width; ++b) {
                const int w = left + b * g.dilation_width;
                if (w < 0 || w >= g.width) continue;
                const ACC value = widen(x[((at.image * g.height + h) * g.width + w) * g.channels + at.channel]);
                // A NaN is greater than none and none is greater than it: it takes over once, and stays.
                if (where < 0 || value > best || (value != value && best == best)) {
                    best = value;
                    where = winner_bytes == 1 ? a * g.kernel_width + b : h * g.width + w;
                }
            }
        }
        narrow(best, y[i]);
        if (winner_bytes == 1) winners[i] = (unsigned char)where;
        else ((int *)winners)[i] = where;
    }
}

__device__ __forceinline__ int winner_of(const unsigned char *winners, INDEX i, int winner_bytes) {
    return winner_bytes == 1 ? winners[i] : ((const int *)winners)[i];
}

// Its gradient by gather, where windows overlap: one thread for each pixel. It visits the windows that contain its pixel, taps
// in ascending order (the order of the loop in pooling.py, bit for bit), and takes the gradient of those that it won.
// Least bytes: N·OH·OW·C·(sizeof(T) + winner_bytes) read, N·H·W·C·sizeof(T) written.
extern "C" __global__ void max_pool_backward_gather(
    const T *__restrict__ dy /* count / pixels * windows */,
    const unsigned char *__restrict__ winners /* count / pixels * windows * winner_bytes */,
    T *__restrict__ dx /* count */, INDEX count, Geometry g, int winner_bytes) {
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
                const INDEX output =
                    ((at.image * g.out_height + y.window) * g.out_width + x.window) * g.channels + at.channel;
                const int own = winner_bytes == 1 ? a * g.kernel_width + b : at.row * g.width + at.column;
                if (winner_of(winners, output, winner_bytes) == own) sum += widen(dy[output]);
            }
        }
        narrow(sum, dx[i]);
    }
}

// Along one axis, the pixels that the thread of a window writes: the window's own and the gap to the next; for the last
// window up to the image's end.
struct Extent { int begin, end; };

__device__ __forceinline__ Extent extent_of(int window, int windows, int stride, int pad, int size) {
    const int begin = window * stride - pad, end = begin + stride;
    return {begin < 0 ? 0 : begin, window == windows - 1 || end > size ? size : end};
}

// Its gradient by scatter, where windows do not overlap: one thread for each output. The windows' extents cut the image
// into rectangles, and a thread writes all of its own: dy's bits to the winner, 0 to every other pixel. So one launch
// writes every pixel, for any stride, without atomics and without setting memory to zero before. Least bytes: as by
// gather.
extern "C" __global__ void max_pool_backward_scatter(
    const T *__restrict__ dy /* count */, const unsigned char *__restrict__ winners /* count * winner_bytes */,
    T *__restrict__ dx /* count / windows * pixels */, INDEX count, Geometry g, int winner_bytes) {
    FOR_EACH(i, count) {
        const Position at = position_of(i, g.out_height, g.out_width, g.channels);
        const Extent rows = extent_of(at.row, g.out_height, g.stride_height, g.pad_top, g.height);
        const Extent columns = extent_of(at.column, g.out_width, g.stride_width, g.pad_left, g.width);
        int winner = winner_of(winners, i, winner_bytes);
        if (winner_bytes == 1)
            winner = (at.row * g.stride_height - g.pad_top + winner / g.kernel_width * g.dilation_height) * g.width +
                     at.column * g.stride_width - g.pad_left + winner % g.kernel_width * g.dilation_width;
        const T upstream = dy[i];
        for (int h = rows.begin; h < rows.end; ++h)
            for (int w = columns.begin; w < columns.end; ++w)
                dx[((at.image * g.height + h) * g.width + w) * g.channels + at.channel] =
                    h * g.width + w == winner ? upstream : T{};
    }
}

// Average: sum · weight, weight = 1 / (taps that count). A tap counts where its row is in first_row … end_row - 1 and its
// column in first_column … end_column - 1: inside the image, or inside image and padding. Only pixels of the image are
// ever read.

// The taps of a window that count along one axis.
__device__ __forceinline__ int counted(int start, int dilation, int taps, int first, int end) {
    if (start >= first && start + (taps - 1) * dilation < end) return taps;
    int count = 0;
    for (int tap = 0; tap < taps; ++tap, start += dilation) count += start >= first && start < end;
    return count;
}

// One thread for each output, taps in ascending order (the order of the loop in pooling.py, bit for bit).
// Least bytes: N·H·W·C·sizeof(T) read, N·OH·OW·C·sizeof(T) written.
extern "C" __global__ void average_pool(
    const T *__restrict__ x /* count / windows * pixels */, T *__restrict__ y /* count */,
    INDEX count, Geometry g, int first_row, int end_row, int first_column, int end_column) {
    FOR_EACH(i, count) {
        const Position at = position_of(i, g.out_height, g.out_width, g.channels);
        const int top = at.row * g.stride_height - g.pad_top, left = at.column * g.stride_width - g.pad_left;
        ACC sum = 0;
        for (int a = 0; a < g.kernel_height; ++a) {
            const int h = top + a * g.dilation_height;
            if (h < 0 || h >= g.height) continue;
            for (int b = 0; b < g.kernel_width; ++b) {
                const int w = left + b * g.dilation_width;
                if (w < 0 || w >= g.width) continue;
                sum += widen(x[((at.image * g.height + h) * g.width + w) * g.channels + at.channel]);
            }
        }
        const int rows = counted(top, g.dilation_height, g.kernel_height, first_row, end_row);
        const int columns = counted(left, g.dilation_width, g.kernel_width, first_column, end_column);
        narrow(sum * ((ACC)1 / (ACC)(rows * columns)), y[i]);
    }
}

// Its gradient by gather: one thread for each pixel. It visits the windows that contain its pixel, taps in ascending order (as
// in pooling.py, bit for bit), and adds up its part of each one's gradient.
// Least bytes: N·OH·OW·C·sizeof(T) read, N·H·W·C·sizeof(T) written.
extern "C" __global__ void average_pool_backward(
    const T *__restrict__ dy /* count / pixels * windows */, T *__restrict__ dx /* count */,
    INDEX count, Geometry g, int first_row, int end_row, int first_column, int end_column) {
    const Start down = start_of(g.dilation_height, g.stride_height);
    const Start across = start_of(g.dilation_width, g.stride_width);
    const ACC full_weight = (ACC)1 / (ACC)(g.kernel_height * g.kernel_width);  // the others are divided out one by one
    FOR_EACH(i, count) {
        const Position at = position_of(i, g.height, g.width, g.channels);
        const Start first = start_of(at.column + g.pad_left, g.stride_width);
        Start y = start_of(at.row + g.pad_top, g.stride_height);
        ACC sum = 0;
        for (int a = 0; a < g.kernel_height; ++a, next_tap(y, down, g.stride_height)) {
            if (!exists(y, g.out_height)) continue;
            const int top = y.window * g.stride_height - g.pad_top;
            const int rows = counted(top, g.dilation_height, g.kernel_height, first_row, end_row);
            Start x = first;
            for (int b = 0; b < g.kernel_width; ++b, next_tap(x, across, g.stride_width)) {
                if (!exists(x, g.out_width)) continue;
                const int left = x.window * g.stride_width - g.pad_left;
                const int taps = rows * counted(left, g.dilation_width, g.kernel_width, first_column, end_column);
                const ACC weight = taps == g.kernel_height * g.kernel_width ? full_weight : (ACC)1 / (ACC)taps;
                const INDEX output =
                    ((at.image * g.out_height + y.window) * g.out_width + x.window) * g.channels + at.channel;
                sum += rounded_product(widen(dy[output]), weight);
            }
        }
        narrow(sum, dx[i]);
    }
}
