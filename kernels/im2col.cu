// im2col: every window of an (N, H, W) image as a row of a matrix. Copies only; padding becomes zeros on the way, so no
// padded image is ever made.
//
// source: (N, H, W, source_channels); of these the `channels` from first_channel on are taken (those of a group).
// columns: (N·OH·OW) rows of FH·FW·channels numbers, each row in the order (FH, FW, C) or (C, FH, FW).
// For a band of output rows, g.out_height is its height and g.pad_top is reduced by first_row·stride_height, so that it
// may be negative; g.channels are the channels taken.
//
// A block has a run of neighbouring numbers of the columns, and writes them blockDim.x at a time: neighbouring threads
// write neighbouring numbers, so writes are coalesced for any number of channels. Reads are so along the channels in
// the order (FH, FW, C), or along a row of a one-channel image; what else they meet again comes from the cache, since a
// block's windows overlap. A thread splits its index by divisions once; from there it moves on by blockDim.x,
// which is split as well, digit by digit with carries: the loop has no divisions.
//
// Where the channels come in pairs or fours, the host calls two or four of them one number of 8 bytes.
//
// Deterministic: every number is written once, by one thread, and depends on nothing that is written.
//
// Least bytes: the channels taken read once, the columns written once, (N·H·W·C + N·OH·OW·FH·FW·C)·sizeof(T).

// The index of a number of the columns: image, output row, output column, and three digits for its place in the row.
struct ColumnIndex { int n, oh, ow, slow, middle, fast; };

struct Sizes { int oh, ow, slow, middle, fast; };

__device__ __forceinline__ ColumnIndex index_of(INDEX i, const Sizes &sizes) {
    const INDEX run = i / sizes.fast, line = run / sizes.middle, row = line / sizes.slow;
    const INDEX image_row = row / sizes.ow, n = image_row / sizes.oh;
    return {(int)n,
            (int)(image_row - n * sizes.oh),
            (int)(row - image_row * sizes.ow),
            (int)(line - row * sizes.slow),
            (int)(run - line * sizes.middle),
            (int)(i - run * sizes.fast)};
}

// Adds a step to a digit, both less than `size`; the carry goes in and out.
__device__ __forceinline__ void advance(int &digit, int step, int size, int &carry) {
    digit += step + carry;
    carry = digit >= size;
    if (carry) digit -= size;
}

__device__ __forceinline__ void fill(
    const T *__restrict__ source, T *__restrict__ columns, INDEX count, bool channels_fast, const Geometry &g,
    int source_channels, int first_channel) {
    const int threads = blockDim.x, blocks = gridDim.x;
    const INDEX rounds = (count + threads - 1) / threads;  // of all blocks together
    const INDEX run = (rounds + blocks - 1) / blocks * threads;
    const INDEX begin = blockIdx.x * run, end = begin + run < count ? begin + run : count;
    const Sizes sizes = {g.out_height, g.out_width, channels_fast ? g.kernel_height : g.channels,
                         channels_fast ? g.kernel_width : g.kernel_height, channels_fast ? g.channels : g.kernel_width};
    ColumnIndex at = index_of(begin + threadIdx.x, sizes);
    const ColumnIndex step = index_of(threads, sizes);
    for (INDEX i = begin + threadIdx.x; i < end; i += threads) {
        const int a = channels_fast ? at.slow : at.middle;
        const int b = channels_fast ? at.middle : at.fast;
        const int c = channels_fast ? at.fast : at.slow;
        const int h = at.oh * g.stride_height - g.pad_top + a * g.dilation_height;
        const int w = at.ow * g.stride_width - g.pad_left + b * g.dilation_width;
        T value = {};
        if (h >= 0 && h < g.height && w >= 0 && w < g.width) {
            value = source[(((INDEX)at.n * g.height + h) * g.width + w) * source_channels + first_channel + c];
        }
        columns[i] = value;
        int carry = 0;
        advance(at.fast, step.fast, sizes.fast, carry);
        advance(at.middle, step.middle, sizes.middle, carry);
        advance(at.slow, step.slow, sizes.slow, carry);
        advance(at.ow, step.ow, sizes.ow, carry);
        advance(at.oh, step.oh, sizes.oh, carry);
        at.n += step.n + carry;
    }
}

// Rows in the order (FH, FW, C).
extern "C" __global__ void im2col_hwc(
    const T *__restrict__ source /* count / windows / taps / channels * pixels * source_channels */,
    T *__restrict__ columns /* count */, INDEX count, Geometry g, int source_channels, int first_channel) {
    fill(source, columns, count, true, g, source_channels, first_channel);
}

// Rows in the order (C, FH, FW).
extern "C" __global__ void im2col_chw(
    const T *__restrict__ source /* count / windows / taps / channels * pixels * source_channels */,
    T *__restrict__ columns /* count */, INDEX count, Geometry g, int source_channels, int first_channel) {
    fill(source, columns, count, false, g, source_channels, first_channel);
}
