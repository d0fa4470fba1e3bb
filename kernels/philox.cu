// Dropout masks from Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011, section 3.3): the words of backend/philox.py, bit for bit, held against a threshold.
//
// One thread for each block of four random words. It writes four bytes, 0 or 1, as one word: neighbouring threads write
// neighbouring words.
//
// Deterministic: a thread makes its words from the block's position alone. There is no state, no thread waits for
// another, and the bits are the same for every grid.
//
// Least bytes: one written for each element, none read.

// Byte k of keep[i] says whether word k of block first + i is at least the threshold. The seed is the key, the position
// and the stream are the counter's lower and upper half; 64-bit numbers come as lower and upper word.
__device__ __forceinline__ void write_mask(
    unsigned int *__restrict__ keep, INDEX count, unsigned int threshold, unsigned int seed_low, unsigned int seed_high,
    unsigned int stream_low, unsigned int stream_high, unsigned int first_low, unsigned int first_high) {
    const unsigned long long first = (unsigned long long)first_high << 32 | first_low;
    FOR_EACH(i, count) {
        const unsigned long long position = first + i;
        unsigned int c0 = (unsigned int)position, c1 = (unsigned int)(position >> 32), c2 = stream_low,
                     c3 = stream_high, k0 = seed_low, k1 = seed_high;
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
        keep[i] = (unsigned int)(c0 >= threshold) | (unsigned int)(c1 >= threshold) << 8 |
                  (unsigned int)(c2 >= threshold) << 16 | (unsigned int)(c3 >= threshold) << 24;
    }
}

extern "C" __global__ void dropout_mask(
    unsigned int *__restrict__ keep /* count */, INDEX count, unsigned int threshold, unsigned int seed_low,
    unsigned int seed_high, unsigned int stream_low, unsigned int stream_high, unsigned int first_low,
    unsigned int first_high) {
    write_mask(keep, count, threshold, seed_low, seed_high, stream_low, stream_high, first_low, first_high);
}

// The same, where the numbers lie in device memory: a captured launch is repeated with the same arguments.
extern "C" __global__ void dropout_mask_at(
    unsigned int *__restrict__ keep /* count */, const unsigned int *__restrict__ place /* 6 */, INDEX count,
    unsigned int threshold) {
    write_mask(keep, count, threshold, place[0], place[1], place[2], place[3], place[4], place[5]);
}
