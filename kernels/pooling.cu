// Max and average pooling of an (N, H, W, C) image, and their gradients.
//
// Max: the first maximum of a window wins, the first NaN wins over all, padding never wins: it is not looked at. Of each
// winner `winner_bytes` are kept: one for its tap, counted from 0 along the rows of the window, or four for its index
// row·W + column in its plane, an int.
//
// Neighbouring threads hold neighbouring channels: reads and writes are coalesced for 32 channels and more. Max pooling's
// threads take MANY channels at once, of 16 bytes together, where they can (`channels` and `at.channel` count such).
//
// Deterministic: every number is written once, by one thread, which adds up in a fixed order and reads nothing that
// another writes.

// Max: one thread for each output, which looks at the taps in ascending order. Least bytes: N·H·W·C·sizeof(T) read,
// N·OH·OW·C·(sizeof(T) + winner_bytes) written.
template <int MANY>
__device__ __forceinline__ void max_pool_of(
    const T *__restrict__ x, T *__restrict__ y, unsigned char *__restrict__ winners, INDEX count, const Geometry &g,
    int winner_bytes) {
    const int channels = g.channels / MANY;
    FOR_EACH(i, count / MANY) {
        const Position at = position_of(i, g.out_height, g.out_width, channels);
        const int top = at.row * g.stride_height - g.pad_top, left = at.column * g.stride_width - g.pad_left;
        ACC best[MANY] = {};
        int where[MANY] = {};
        bool met = false;  // the host made sure that every window has a pixel
        for (int a = 0; a < g.kernel_height; ++a) {
            const int h = top + a * g.dilation_height;
            if (h < 0 || h >= g.height) continue;
            for (int b = 0; b < g.kernel_width; ++b) {
                const int w = left + b * g.dilation_width;
                if (w < 0 || w >= g.width) continue;
                const INDEX pixel = (at.image * g.height + h) * g.width + w;
                const Numbers<MANY> given = numbers_at<MANY>(x + (pixel * channels + at.channel) * MANY);
                const int place = winner_bytes == 1 ? a * g.kernel_width + b : h * g.width + w;
#pragma unroll
                for (int k = 0; k < MANY; ++k) {
                    const ACC value = widen(given.at[k]);
                    // A NaN is greater than none and none is greater than it: it takes over once, and stays.
                    if (!met || value > best[k] || (value != value && best[k] == best[k])) {
                        best[k] = value;
                        where[k] = place;
                    }
                }
                met = true;
            }
        }
        Numbers<MANY> made;
        Flags<MANY> taps;
#pragma unroll
        for (int k = 0; k < MANY; ++k) {
            narrow(best[k], made.at[k]);
            taps.at[k] = (unsigned char)where[k];
            if (winner_bytes != 1) ((int *)winners)[i * MANY + k] = where[k];
        }
        *(Numbers<MANY> *)(y + i * MANY) = made;
        if (winner_bytes == 1) *(Flags<MANY> *)(winners + i * MANY) = taps;
    }
}

extern "C" __global__ void max_pool(
    const T *__restrict__ x /* count / windows * pixels */, T *__restrict__ y /* count */,
    unsigned char *__restrict__ winners /* count * winner_bytes */, INDEX count, Geometry g, int winner_bytes) {
    if (is_together(g.channels, x, y, 0, winners)) max_pool_of<TOGETHER>(x, y, winners, count, g, winner_bytes);
    else max_pool_of<1>(x, y, winners, count, g, winner_bytes);
}

// The winners of MANY outputs from `first` on: taps, or indices.
template <int MANY>
__device__ __forceinline__ void winners_of(
    const unsigned char *winners, INDEX first, int winner_bytes, int (&found)[MANY]) {
    if (winner_bytes == 1) {
        const Flags<MANY> taps = *(const Flags<MANY> *)(winners + first);
#pragma unroll
        for (int k = 0; k < MANY; ++k) found[k] = taps.at[k];
    } else {
#pragma unroll
        for (int k = 0; k < MANY; ++k) found[k] = ((const int *)winners)[first + k];
    }
}

// Its gradient by gather, where windows overlap: one thread for each pixel. It visits the windows that contain its pixel, taps
// in ascending order (the order of the loop in pooling.py, bit for bit), and takes the gradient of those that it won.
// Least bytes: N·OH·OW·C·(sizeof(T) + winner_bytes) read, N·H·W·C·sizeof(T) written.
template <int MANY>
__device__ __forceinline__ void gather_of(
    const T *__restrict__ dy, const unsigned char *__restrict__ winners, T *__restrict__ dx, INDEX count,
    const Geometry &g, int winner_bytes) {
    const Start down = start_of(g.dilation_height, g.stride_height);
    const Start across = start_of(g.dilation_width, g.stride_width);
    const int channels = g.channels / MANY;
    FOR_EACH(i, count / MANY) {
        const Position at = position_of(i, g.height, g.width, channels);
        const Start first = start_of(at.column + g.pad_left, g.stride_width);
        Start y = start_of(at.row + g.pad_top, g.stride_height);
        ACC sum[MANY] = {};
        for (int a = 0; a < g.kernel_height; ++a, next_tap(y, down, g.stride_height)) {
            if (!exists(y, g.out_height)) continue;
            Start x = first;
            for (int b = 0; b < g.kernel_width; ++b, next_tap(x, across, g.stride_width)) {
                if (!exists(x, g.out_width)) continue;
                const INDEX window = (at.image * g.out_height + y.window) * g.out_width + x.window;
                const INDEX output = (window * channels + at.channel) * MANY;
                const int own = winner_bytes == 1 ? a * g.kernel_width + b : at.row * g.width + at.column;
                int winner[MANY];
                winners_of<MANY>(winners, output, winner_bytes, winner);
                bool won = false;
#pragma unroll
                for (int k = 0; k < MANY; ++k) won |= winner[k] == own;
                if (!won) continue;
                const Numbers<MANY> upstream = numbers_at<MANY>(dy + output);
#pragma unroll
                for (int k = 0; k < MANY; ++k)
                    if (winner[k] == own) sum[k] += widen(upstream.at[k]);
            }
        }
        Numbers<MANY> made;
#pragma unroll
        for (int k = 0; k < MANY; ++k) narrow(sum[k], made.at[k]);
        *(Numbers<MANY> *)(dx + i * MANY) = made;
    }
}

extern "C" __global__ void max_pool_backward_gather(
    const T *__restrict__ dy /* count / pixels * windows */,
    const unsigned char *__restrict__ winners /* count / pixels * windows * winner_bytes */,
    T *__restrict__ dx /* count */, INDEX count, Geometry g, int winner_bytes) {
    if (is_together(g.channels, dy, dx, 0, winners)) gather_of<TOGETHER>(dy, winners, dx, count, g, winner_bytes);
    else gather_of<1>(dy, winners, dx, count, g, winner_bytes);
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
template <int MANY>
__device__ __forceinline__ void scatter_of(
    const T *__restrict__ dy, const unsigned char *__restrict__ winners, T *__restrict__ dx, INDEX count,
    const Geometry &g, int winner_bytes) {
    const int channels = g.channels / MANY;
    FOR_EACH(i, count / MANY) {
        const Position at = position_of(i, g.out_height, g.out_width, channels);
        const Extent rows = extent_of(at.row, g.out_height, g.stride_height, g.pad_top, g.height);
        const Extent columns = extent_of(at.column, g.out_width, g.stride_width, g.pad_left, g.width);
        const int top = at.row * g.stride_height - g.pad_top, left = at.column * g.stride_width - g.pad_left;
        int winner[MANY];
        winners_of<MANY>(winners, i * MANY, winner_bytes, winner);
        if (winner_bytes == 1) {
#pragma unroll
            for (int k = 0; k < MANY; ++k) {
                const int h = top + winner[k] / g.kernel_width * g.dilation_height;
                winner[k] = h * g.width + left + winner[k] % g.kernel_width * g.dilation_width;
            }
        }
        const Numbers<MANY> upstream = numbers_at<MANY>(dy + i * MANY);
        for (int h = rows.begin; h < rows.end; ++h)
            for (int w = columns.begin; w < columns.end; ++w) {
                Numbers<MANY> made;
#pragma unroll
                for (int k = 0; k < MANY; ++k) made.at[k] = h * g.width + w == winner[k] ? upstream.at[k] : T{};
                const INDEX pixel = (at.image * g.height + h) * g.width + w;
                *(Numbers<MANY> *)(dx + (pixel * channels + at.channel) * MANY) = made;
            }
    }
}

extern "C" __global__ void max_pool_backward_scatter(
    const T *__restrict__ dy /* count */, const unsigned char *__restrict__ winners /* count * winner_bytes */,
    T *__restrict__ dx /* count / windows * pixels */, INDEX count, Geometry g, int winner_bytes) {
    if (is_together(g.channels, dy, dx, 0, winners)) scatter_of<TOGETHER>(dy, winners, dx, count, g, winner_bytes);
    else scatter_of<1>(dy, winners, dx, count, g, winner_bytes);
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
