// How the pixels of a block's windows come to shared memory, for convolution.cu: put behind tensor_cores.cu and pixels.cu.
// `Windows` does it in one of two ways, HALO says in which.
//
// Tap by tap (HALO 0), for any windows: a tile has BK places of the depth, which is (tap, channel), of each row. A thread
// copies the same VECTOR places of several rows; which taps of these lie inside the image it keeps as bits. A pixel is
// asked for once for each tap, mostly of the first level of cache.
//
// As a halo (HALO 1 or 2), for windows at a stride of 1: all pixels that taps of the block's rows meet are in shared
// memory, padding as zeros, in lines of one width; a tap is a distance there. Of BK channels, if there are no more (HALO
// 1), else of BK at a time (HALO 2): while these are read, tap by tap, the next are copied to a second place. So the
// depth is (channels, tap, channel). A pixel is asked for once in a block.
#if TENSOR_CORES

constexpr int ACROSS = BK / VECTOR, DOWN = THREADS / ACROSS;  // threads along the depth; rows that they copy at once
static_assert(THREADS % ACROSS == 0 && BM % DOWN == 0, "a thread copies the same place of several rows");

// Along one axis of the source: tap i of row r lies at r·scale + origin + i·step, if that is from 0 to size - 1, and is
// tap first + i·every of the filters.
struct Axis { int size, rows, scale, origin, step, taps, first, every; };

__device__ __forceinline__ Axis windows_of(int size, int rows, int stride, int pad, int dilation, int taps) {
    return {size, rows, stride, -pad, dilation, taps, 0, 1};
}

// The windows that contain the pixels rest + stride·r of an axis of `pixels`: tap t does where rest + pad - t·dilation
// is a multiple of the stride, and those t are `every` apart, or there are none.
__device__ __forceinline__ Axis pixels_of(
    int windows, int pixels, int stride, int pad, int dilation, int taps, int rest) {
    int first = 0, every = 1;
    while (first < taps && (rest + pad - first * dilation) % stride) ++first;
    while (every * dilation % stride) ++every;
    return {windows, (pixels - rest + stride - 1) / stride, 1, (rest + pad - first * dilation) / stride,
            -(every * dilation / stride), first < taps ? (taps - first + every - 1) / every : 0, first, every};
}

// A place of the depth: tap (a, b), channel c; and the first of its tile among the filters' (tap, channel).
struct Depth { int a, b, c, first; };

#if HALO

struct Windows {
    static constexpr int TILE = 0;  // of windows, beside each tile of filters
    const T *source;
    T *memory;
    const Axis &down, &across;
    const int in, all_in, low_down, low_across, width, image_lines;
    int lines;
    INDEX first_line;
    int own[ROW_TILES];  // where the rows that this lane hands to ldmatrix lie, from that of a tap on
    Depth reading = {};

    // `memory` is for HALO times BK channels of the pixels.
    __device__ __forceinline__ Windows(const T *source, T *memory, const Axis &down, const Axis &across, int in,
                                       int groups, int group, int row, INDEX first_row, INDEX rows)
        : source(source + group * in), memory(memory), down(down), across(across), in(in), all_in(in * groups),
          low_down(min(0, (down.taps - 1) * down.step)), low_across(min(0, (across.taps - 1) * across.step)),
          width(across.rows + (across.taps - 1) * abs(across.step)),
          image_lines(down.rows + (down.taps - 1) * abs(down.step)) {
        first_line = line_of(first_row);
        lines = (int)(line_of(min(first_row + BM, rows) - 1) - first_line) + 1 + image_lines - down.rows;
#pragma unroll
        for (int i = 0; i < ROW_TILES; ++i) {
            const INDEX r = min(first_row + row + 16 * i + (int)threadIdx.x % 16, rows - 1);
            own[i] = ((int)(line_of(r) - first_line) * width + (int)(r % across.rows)) * DEEP;
        }
        copy_channels(0, memory);
    }

    // The line of a row, where images lie one below the other, each with the padding that its windows need.
    __device__ __forceinline__ INDEX line_of(INDEX r) const {
        const Pixel pixel = pixel_at(r, across.rows, down.rows);
        return pixel.image * image_lines + pixel.h;
    }

    __device__ __forceinline__ void copy_channels(int first, T *to) const {
        const int place = (int)threadIdx.x % ACROSS * VECTOR;
        const int left = across.origin + low_across, top = down.origin + low_down;
        Pixel pixel = pixel_at(first_line * width + (int)threadIdx.x / ACROSS, width, image_lines);
        const Pixel step = pixel_at(DOWN, width, image_lines);
        const T *from = source + first + place;
        unsigned int at = shared_address(to + (int)threadIdx.x / ACROSS * DEEP + place);
#pragma unroll 1
        for (int i = (int)threadIdx.x / ACROSS; i < lines * width; i += DOWN, at += DOWN * DEEP * SIZE) {
            const int h = pixel.h + top, w = pixel.w + left;
            const bool exists = h >= 0 && h < down.size && w >= 0 && w < across.size;
            copy<VECTOR>(at, from + ((pixel.image * down.size + h) * across.size + w) * all_in, exists);
            move(pixel, step, width, image_lines);
        }
    }

    __device__ __forceinline__ Depth begin() const { return {0, 0, (int)threadIdx.x % ACROSS * VECTOR, 0}; }
    __device__ __forceinline__ void next_tile(Depth &place) const {
        place.first += in;
        if (++place.b == across.taps) place.b = 0, ++place.a;
        if (place.a == down.taps) place.a = 0, place.c += BK, place.first += BK - down.taps * across.taps * in;
    }
    __device__ __forceinline__ bool exists(const Depth &place) const { return place.c < in; }

    // Copies what the tile of a place needs. When the place is STAGES - 1 taps behind the first, the first tap is read,
    // and the channels before are not read any more.
    __device__ __forceinline__ void load(unsigned int, const Depth &place) {
        if (HALO == 1) return;
        if (place.a * across.taps + place.b != STAGES - 1 || place.c / BK * BK + BK >= in) return;
        copy_channels(place.c / BK * BK + BK, memory + (1 - place.c / BK % 2) * lines * width * DEEP);
    }

    // Where the pixels of the next tap begin; and the rows that this lane hands to ldmatrix, from there.
    __device__ __forceinline__ const T *next(const T *) {
        const int at = (reading.a * down.step - low_down) * width + reading.b * across.step - low_across;
        const T *windows = memory + (reading.c / BK % 2 * lines * width + at) * DEEP;
        next_tile(reading);
        return windows;
    }
    __device__ __forceinline__ int own_row(int i) const { return own[i]; }
};

#else

// One bit for each of up to 16 taps: whether it lies inside the axis for a row that begins at `start`.
__device__ __forceinline__ unsigned int taps_inside(const Axis &axis, int start) {
    unsigned int bits = 0;
    for (int i = 0; i < axis.taps; ++i) {
        const int place = start + i * axis.step;
        bits |= (unsigned int)(place >= 0 && place < axis.size) << i;
    }
    return bits;
}

struct Windows {
    static constexpr int TILE = BM * DEEP, COPIES = BM / DOWN;
    const T *source;
    const Axis &down, &across;
    const int in, all_in, row, taps_down, taps_across, step_a, step_b, step_c;
    INDEX base[COPIES];          // where tap (0, 0) of each row lies
    unsigned int inside[COPIES]; // which taps are inside
    const unsigned int to_own;   // bytes from a tile to this thread's first copy

    __device__ __forceinline__ Windows(const T *source, T *, const Axis &down, const Axis &across, int in, int groups,
                                       int group, int row, INDEX first_row, INDEX rows)
        : source(source), down(down), across(across), in(in), all_in(in * groups), row(row),
          taps_down(across.taps > 0 ? down.taps : 0), taps_across(max(across.taps, 1)),
          step_a(BK / in / taps_across), step_b(BK / in % taps_across), step_c(BK % in),
          to_own(((int)threadIdx.x / ACROSS * DEEP + (int)threadIdx.x % ACROSS * VECTOR) * SIZE) {
        // A thread finds these for one row, or two, and keeps those of the rows that it copies.
        __shared__ INDEX base_of[BM];
        __shared__ unsigned int inside_of[BM];
        for (int i = (int)threadIdx.x; i < BM; i += THREADS) {
            const INDEX r = first_row + i, line = r / across.rows, image = line / down.rows;
            const int h = (int)(line - image * down.rows) * down.scale + down.origin;
            const int w = (int)(r - line * across.rows) * across.scale + across.origin;
            base_of[i] = ((image * down.size + h) * across.size + w) * all_in + group * in;
            inside_of[i] = r < rows ? taps_inside(down, h) | taps_inside(across, w) << 16 : 0;
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < COPIES; ++i) {
            base[i] = base_of[(int)threadIdx.x / ACROSS + i * DOWN];
            inside[i] = inside_of[(int)threadIdx.x / ACROSS + i * DOWN];
        }
    }

    __device__ __forceinline__ Depth begin() const {
        const int place = (int)threadIdx.x % ACROSS * VECTOR;
        return {place / in / taps_across, place / in % taps_across, place % in, 0};
    }
    __device__ __forceinline__ void next_tile(Depth &place) const {
        place.c += step_c, place.b += step_b, place.a += step_a, place.first += BK;
        if (place.c >= in) place.c -= in, ++place.b;
        if (place.b >= taps_across) place.b -= taps_across, ++place.a;
    }
    __device__ __forceinline__ bool exists(const Depth &place) const { return place.a < taps_down; }

    // Copies the windows of the tile of a place.
    __device__ __forceinline__ void load(unsigned int to, const Depth &place) {
        const INDEX offset = ((INDEX)place.a * down.step * across.size + place.b * across.step) * all_in + place.c;
        const unsigned int bits = 1u << (place.a & 15) | 1u << (16 + place.b);
        const bool is_tap = exists(place);
#pragma unroll
        for (int i = 0; i < COPIES; ++i) {
            const bool meets = is_tap && (inside[i] & bits) == bits;
            copy<VECTOR>(to + to_own + i * DOWN * DEEP * SIZE, source + (base[i] + offset), meets);
        }
    }

    // The warp's first row of a tile; and the rows that this lane hands to ldmatrix, from there.
    __device__ __forceinline__ const T *next(const T *tile) { return tile + row * DEEP; }
    __device__ __forceinline__ int own_row(int i) const { return (16 * i + (int)threadIdx.x % 16) * DEEP; }
};

#endif  // HALO
#endif  // TENSOR_CORES
