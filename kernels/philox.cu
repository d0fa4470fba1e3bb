// Dropout from Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011, section 3.3): the words of backend/philox.py, bit for bit, held against a threshold.
//
// One thread for each block of four random words. It writes four bytes, 0 or 1, as one word, and drops four numbers,
// which it reads and writes at once: neighbouring threads have neighbouring words and numbers.
//
// Deterministic: a thread makes its words from the block's position alone. There is no state, no thread waits for
// another, and the bits are the same for every grid.
//
// Least bytes: one written for each element; where numbers are dropped, 2·sizeof(T) more.

// Where random words begin. The seed is the key, the position and the stream are the counter's lower and upper half;
// 64-bit numbers come as lower and upper word.
struct Place { unsigned int seed_low, seed_high, stream_low, stream_high, first_low, first_high; };

// Byte k of the result says whether word k of block first + i is at least the threshold.
__device__ __forceinline__ unsigned int mask_of(INDEX i, unsigned int threshold, Place place) {
    const unsigned long long first = (unsigned long long)place.first_high << 32 | place.first_low, position = first + i;
    unsigned int c0 = (unsigned int)position, c1 = (unsigned int)(position >> 32), c2 = place.stream_low,
                 c3 = place.stream_high, k0 = place.seed_low, k1 = place.seed_high;
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const unsigned int high0 = __umulhi(c0, 0xD2511F53u), high2 = __umulhi(c2, 0xCD9E8D57u);
        c3 ^= high0 ^ k1;
        c1 ^= high2 ^ k0;
        const unsigned int low0 = c0 * 0xD2511F53u, low2 = c2 * 0xCD9E8D57u;
        c0 = c1;
        c1 = low2;
        c2 = c3;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (unsigned int)(c0 >= threshold) | (unsigned int)(c1 >= threshold) << 8 |
           (unsigned int)(c2 >= threshold) << 16 | (unsigned int)(c3 >= threshold) << 24;
}

// Four numbers in a row, read and written at once.
struct alignas(sizeof(T) < 4 ? 4 * sizeof(T) : 16) Four { T numbers[4]; };

__device__ __forceinline__ void drop(
    const T *__restrict__ x, T *__restrict__ y, unsigned int *__restrict__ keep, INDEX count, INDEX blocks, int aligned,
    unsigned int threshold, Place place) {
    FOR_EACH(i, blocks) {
        const unsigned int mask = mask_of(i, threshold, place);
        keep[i] = mask;
        if (aligned && 4 * i + 4 <= count) {
            Four four = reinterpret_cast<const Four *>(x)[i];
#pragma unroll
            for (int k = 0; k < 4; ++k)
                if (!(mask >> 8 * k & 1)) four.numbers[k] = T{};
            reinterpret_cast<Four *>(y)[i] = four;
        } else {
            for (int k = 0; k < 4 && 4 * i + k < count; ++k) y[4 * i + k] = mask >> 8 * k & 1 ? x[4 * i + k] : T{};
        }
    }
}

extern "C" __global__ void dropout_mask(
    unsigned int *__restrict__ keep /* count */, INDEX count, unsigned int threshold, unsigned int seed_low,
    unsigned int seed_high, unsigned int stream_low, unsigned int stream_high, unsigned int first_low,
    unsigned int first_high) {
    const Place place = {seed_low, seed_high, stream_low, stream_high, first_low, first_high};
    FOR_EACH(i, count) keep[i] = mask_of(i, threshold, place);
}

// The same, where the numbers lie in device memory: a captured launch is repeated with the same arguments.
extern "C" __global__ void dropout_mask_at(
    unsigned int *__restrict__ keep /* count */, const unsigned int *__restrict__ place /* 6 */, INDEX count,
    unsigned int threshold) {
    const Place own = {place[0], place[1], place[2], place[3], place[4], place[5]};
    FOR_EACH(i, count) keep[i] = mask_of(i, threshold, own);
}

// The mask, and x where it is 1, 0 elsewhere, with the bits of x. `aligned`: both arrays begin at a multiple of 16 bytes.
extern "C" __global__ void dropout(
    const T *__restrict__ x /* count */, T *__restrict__ y /* count */, unsigned int *__restrict__ keep /* blocks */,
    INDEX count, INDEX blocks, int aligned, unsigned int threshold, unsigned int seed_low, unsigned int seed_high,
    unsigned int stream_low, unsigned int stream_high, unsigned int first_low, unsigned int first_high) {
    const Place place = {seed_low, seed_high, stream_low, stream_high, first_low, first_high};
    drop(x, y, keep, count, blocks, aligned, threshold, place);
}

extern "C" __global__ void dropout_at(
    const T *__restrict__ x /* count */, T *__restrict__ y /* count */, unsigned int *__restrict__ keep /* blocks */,
    const unsigned int *__restrict__ place /* 6 */, INDEX count, INDEX blocks, int aligned, unsigned int threshold) {
    const Place own = {place[0], place[1], place[2], place[3], place[4], place[5]};
    drop(x, y, keep, count, blocks, aligned, threshold, own);
}
