// Depthwise convolution over channels-last memory, and its gradients: channel c has the M filters c·M … c·M + M - 1.
//
// Neighbouring threads have neighbouring channels: reads and writes are coalesced for 32 channels and more. Where M = 1, a
// thread takes MANY channels at once, of 16 bytes together, if it can. Filters are read as (FH, FW, FN) in the type of
// sums. Padding is not read.
//
// Deterministic: every number is written by one thread, which adds up over ascending taps (windows for the weight), in type
// ACC, and rounds once.
//
// Least bytes: every array once.

// The taps of MANY filters.
template <int MANY> struct alignas(MANY * sizeof(ACC) < 16 ? MANY * sizeof(ACC) : 16) Taps { ACC at[MANY]; };

template <int MANY>
__device__ __forceinline__ Taps<MANY> taps_at(const ACC *from) { return *(const Taps<MANY> *)from; }

// One thread for each output. With flags, max(·, 0) of the rounded number follows, where a NaN passes, and where it is
// above 0.
template <int MANY>
__device__ __forceinline__ void forward_of(
    const T *__restrict__ x, const ACC *__restrict__ weight, const T *__restrict__ bias, T *__restrict__ y,
    unsigned char *__restrict__ positive, INDEX count, const Geometry &g, int filters, bool has_bias, bool has_relu) {
    const int multiplier = filters / g.channels;
    FOR_EACH(i, count / MANY) {
        const Position at = position_of(i, g.out_height, g.out_width, filters / MANY);
        const int top = at.row * g.stride_height - g.pad_top, left = at.column * g.stride_width - g.pad_left;
        const int f = at.channel * MANY;
        const T *channel = x + f / multiplier;
        ACC sum[MANY] = {};
        for (int a = 0; a < g.kernel_height; ++a) {
            const int h = top + a * g.dilation_height;
            if (h < 0 || h >= g.height) continue;
            for (int b = 0; b < g.kernel_width; ++b) {
                const int w = left + b * g.dilation_width;
                if (w < 0 || w >= g.width) continue;
                const INDEX pixel = (at.image * g.height + h) * g.width + w;
                const Numbers<MANY> given = numbers_at<MANY>(channel + pixel * g.channels);
                const Taps<MANY> taps = taps_at<MANY>(weight + (a * g.kernel_width + b) * filters + f);
#pragma unroll
                for (int k = 0; k < MANY; ++k) sum[k] += widen(given.at[k]) * taps.at[k];
            }
        }
        Numbers<MANY> made;
        Flags<MANY> above;
#pragma unroll
        for (int k = 0; k < MANY; ++k) {
            narrow(has_bias ? sum[k] + widen(bias[f + k]) : sum[k], made.at[k]);
            const ACC rounded = widen(made.at[k]);
            above.at[k] = rounded > 0;
            if (has_relu && rounded <= 0) narrow((ACC)0, made.at[k]);
        }
        *(Numbers<MANY> *)(y + i * MANY) = made;
        if (has_relu) *(Flags<MANY> *)(positive + i * MANY) = above;
    }
}

extern "C" __global__ void depthwise(
    const T *__restrict__ x /* count / windows / filters * pixels * channels */,
    const ACC *__restrict__ weight /* taps * filters */, const T *__restrict__ bias /* biases */,
    T *__restrict__ y /* count */, unsigned char *__restrict__ positive /* flags */, INDEX count, Geometry g,
    int filters, int biases, INDEX flags) {
    if (filters == g.channels && is_together(filters, x, y, 0, positive))
        forward_of<TOGETHER>(x, weight, bias, y, positive, count, g, filters, biases, flags);
    else forward_of<1>(x, weight, bias, y, positive, count, g, filters, biases, flags);
}

// The input gradient by gather: one thread for each pixel, which visits the windows that contain it.
template <int MANY>
__device__ __forceinline__ void backward_input_of(
    const T *__restrict__ dy, const ACC *__restrict__ weight, T *__restrict__ dx, INDEX count, const Geometry &g,
    int filters) {
    const Start down = start_of(g.dilation_height, g.stride_height);
    const Start across = start_of(g.dilation_width, g.stride_width);
    const int multiplier = filters / g.channels;
    FOR_EACH(i, count / MANY) {
        const Position at = position_of(i, g.height, g.width, g.channels / MANY);
        const Start first = start_of(at.column + g.pad_left, g.stride_width);
        Start y = start_of(at.row + g.pad_top, g.stride_height);
        ACC sum[MANY] = {};
        for (int a = 0; a < g.kernel_height; ++a, next_tap(y, down, g.stride_height)) {
            if (!exists(y, g.out_height)) continue;
            Start x = first;
            for (int b = 0; b < g.kernel_width; ++b, next_tap(x, across, g.stride_width)) {
                if (!exists(x, g.out_width)) continue;
                const INDEX window = (at.image * g.out_height + y.window) * g.out_width + x.window;
                for (int m = 0; m < multiplier; ++m) {
                    const int f = at.channel * MANY * multiplier + m;
                    const Numbers<MANY> upstream = numbers_at<MANY>(dy + window * filters + f);
                    const Taps<MANY> taps = taps_at<MANY>(weight + (a * g.kernel_width + b) * filters + f);
#pragma unroll
                    for (int k = 0; k < MANY; ++k) sum[k] += widen(upstream.at[k]) * taps.at[k];
                }
            }
        }
        Numbers<MANY> made;
#pragma unroll
        for (int k = 0; k < MANY; ++k) narrow(sum[k], made.at[k]);
        *(Numbers<MANY> *)(dx + i * MANY) = made;
    }
}

extern "C" __global__ void depthwise_backward_input(
    const T *__restrict__ dy /* count / pixels / channels * windows * filters */,
    const ACC *__restrict__ weight /* taps * filters */, T *__restrict__ dx /* count */, INDEX count, Geometry g,
    int filters) {
    if (filters == g.channels && is_together(filters, dy, dx))
        backward_input_of<TOGETHER>(dy, weight, dx, count, g, filters);
    else backward_input_of<1>(dy, weight, dx, count, g, filters);
}

// Stage 1 of the weight's gradient, whose terms are places (taps), rows (windows) and columns (filters) of
// core/sum_tiles.cu; sums.cu has stage 2. Blocks that run at the same time read the same pixels for their taps.
extern "C" __global__ void depthwise_backward_weight(
    const T *__restrict__ x /* length / windows * pixels * channels */, const T *__restrict__ dy /* length * inner */,
    ACC *__restrict__ sums /* outer * ranges * inner */, INDEX tiles, INDEX outer, INDEX length, INDEX inner, int width,
    int lanes, INDEX ranges, INDEX range_rows, ACC divisor, Geometry g) {
    const int multiplier = (int)(inner / g.channels);
    const auto term = [=](INDEX tap, INDEX row, INDEX column) {
        const Position at = position_of(row, g.out_height, g.out_width, 1);
        const int a = (int)tap / g.kernel_width, b = (int)tap - a * g.kernel_width;
        const int h = at.row * g.stride_height - g.pad_top + a * g.dilation_height;
        const int w = at.column * g.stride_width - g.pad_left + b * g.dilation_width;
        if (h < 0 || h >= g.height || w < 0 || w >= g.width) return (ACC)0;
        const INDEX pixel = (at.image * g.height + h) * g.width + w;
        return widen(x[pixel * g.channels + column / multiplier]) * widen(dy[row * inner + column]);
    };
    sum_tiles(term, sums, tiles, outer, length, inner, width, lanes, ranges, range_rows, divisor);
}
