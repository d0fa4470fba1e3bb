// Dropout from Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011,
// section 3.3): the words of backend/philox.py, bit for bit, held against a threshold.
//
// A vector has the counters of BLOCKS neighbouring blocks of four words, one in each 64-bit lane. A product reads the
// lower half of a lane alone, so what a round leaves in the upper half is not cleared. Two vectors are computed at once,
// since a round waits for the one before. The words become bytes 0 and 1, the mask, and these drop numbers at once.
//
// Bits: a block's words follow from its position alone, and numbers are copied. Least bytes: one written for each
// element; where numbers are dropped, 2·sizeof(T) more.

#include "core/vectors.h"

#define BLOCKS ((int)(VECTOR_BYTES / 8))
#define SETS 2
#define WORDS (SETS * BLOCKS * 4)
#define LOW 0xFFFFFFFFull

typedef unsigned long long word64;
typedef word64 counters __attribute__((vector_size(VECTOR_BYTES)));
typedef unsigned masks __attribute__((vector_size(VECTOR_BYTES / 2), aligned(1), may_alias));
typedef __typeof__((stored){0} == (stored){0}) whole; // an integer for each number, of its size
typedef whole unaligned __attribute__((aligned(1), may_alias));

// Bytes, 0 or 1, of whether each of WORDS words is at least the threshold, from the block at `position` on.
INLINE void mask_of(unsigned char *keep, word64 position, word64 stream, word64 seed, word64 threshold) {
    counters c0[SETS], c1[SETS], c2[SETS], c3[SETS];
    UNROLL for (int set = 0; set < SETS; ++set) {
        for (int lane = 0; lane < BLOCKS; ++lane) c0[set][lane] = position + set * BLOCKS + lane;
        c1[set] = c0[set] >> 32;
        c2[set] = (counters){0} + stream;
        c3[set] = c2[set] >> 32;
    }
    unsigned k0 = (unsigned)seed, k1 = (unsigned)(seed >> 32);
    UNROLL for (int round = 0; round < 10; ++round) {
        UNROLL for (int set = 0; set < SETS; ++set) {
            const counters product0 = (c0[set] & LOW) * 0xD2511F53ull, product2 = (c2[set] & LOW) * 0xCD9E8D57ull;
            c0[set] = product2 >> 32 ^ c1[set] ^ k0;
            c2[set] = product0 >> 32 ^ c3[set] ^ k1;
            c1[set] = product2;
            c3[set] = product0;
        }
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    UNROLL for (int set = 0; set < SETS; ++set) {
        const counters bytes4 = ((counters)((c0[set] & LOW) >= threshold) & 0x1ull) |
                                ((counters)((c1[set] & LOW) >= threshold) & 0x100ull) |
                                ((counters)((c2[set] & LOW) >= threshold) & 0x10000ull) |
                                ((counters)((c3[set] & LOW) >= threshold) & 0x1000000ull);
        *(masks *)(keep + set * BLOCKS * 4) = __builtin_convertvector(bytes4, masks);
    }
}

// y = x where keep is 1, +0 elsewhere, for WORDS numbers.
INLINE void drop(const T *x, T *y, const unsigned char *keep) {
    UNROLL for (int i = 0; i < WORDS; i += LANES) {
        const whole kept = -__builtin_convertvector(*(const bytes *)(keep + i), whole);
        *(unaligned *)(y + i) = *(const unaligned *)(x + i) & kept;
    }
}

// Numbers of x where the words' mask is 1 and +0 elsewhere, and the mask, for blocks of four words from `first` to
// `last_block`; they begin with the block at `position`.
KERNEL(dropout)(const T *x /* count */, T *y /* count */, unsigned char *keep /* count */, index threshold, index seed,
                index stream, index position, index count, index first, index last_block) {
    const index last = least(4 * last_block, count);
    index i = 4 * first;
    for (; i + WORDS <= last; i += WORDS) {
        mask_of(keep + i, (word64)position + i / 4, stream, seed, threshold);
        drop(x + i, y + i, keep + i);
    }
    if (i < last) {
        unsigned char some[WORDS];
        T numbers[WORDS] = {0};
        mask_of(some, (word64)position + i / 4, stream, seed, threshold);
        for (int k = 0; k < last - i; ++k) numbers[k] = x[i + k];
        drop(numbers, numbers, some);
        for (int k = 0; k < last - i; ++k) {
            keep[i + k] = some[k];
            y[i + k] = numbers[k];
        }
    }
}
