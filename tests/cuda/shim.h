// What CUDA's C++ has and the host's has not, so that a .cu file runs on the CPU: as a program that takes launches from
// its standard input. Blocks come one after another, threads of a block too (in order, or shuffled by a seed), as
// fibers where the file has barriers. Under ThreadSanitizer (XPNET_THREADS) every CUDA thread is a thread of its own.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef XPNET_THREADS
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#else
#include <ucontext.h>
#endif
#include <algorithm>
#include <vector>

#define __device__
#define __forceinline__ inline
#define __shared__ static  // blocks that share memory never run at the same time

struct Dim { int x = 0, y = 0, z = 0; };
static thread_local Dim threadIdx, blockIdx;
static Dim blockDim, gridDim;

namespace host {

[[noreturn]] static void fail(const char *message) {
    fprintf(stderr, "%s (block %d, thread %d)\n", message, blockIdx.x, threadIdx.x);
    fflush(stderr);
    abort();
}

// -- threads of a block -------------------------------------------------------------------------------------------

#ifndef XPNET_THREADS
static std::vector<ucontext_t> fibers;
static ucontext_t scheduler;
static int current;
static bool progress;
#endif

// Threads that have ended count as arrived, as on a GPU.
struct Barrier {
    int expected = 0, arrived = 0, generation = 0;
#ifdef XPNET_THREADS  // a lock for each, since every lock orders the threads that take it
    std::mutex lock;
    std::condition_variable changed;
#endif
    void release() {
        arrived = 0;
        ++generation;
#ifdef XPNET_THREADS
        changed.notify_all();
#else
        progress = true;
#endif
    }
    void wait() {
#ifdef XPNET_THREADS
        std::unique_lock<std::mutex> held(lock);
#endif
        const int mine = generation;
        if (++arrived == expected) return release();
#ifdef XPNET_THREADS
        changed.wait(held, [&] { return generation != mine; });
#else
        while (generation == mine) swapcontext(&fibers[current], &scheduler);
#endif
    }
    void leave() {
#ifdef XPNET_THREADS
        std::unique_lock<std::mutex> held(lock);
#endif
        if (--expected == arrived && arrived) release();
    }
};

struct Block {
    Barrier all;
    std::vector<Barrier> warps;
    std::vector<uint64_t> slots;  // what a thread shows to its warp
    explicit Block(int threads) : warps((threads + 31) / 32), slots(threads) {
        all.expected = threads;
        for (int i = 0; i < threads; ++i) ++warps[i / 32].expected;
    }
    void leave() {
        all.leave();
        warps[threadIdx.x / 32].leave();
    }
};
static thread_local Block *block;

static std::vector<int> order(int count, uint64_t &seed) {
    std::vector<int> result(count);
    for (int i = 0; i < count; ++i) result[i] = i;
    for (int i = count - 1; seed && i > 0; --i) {  // Fisher and Yates, with Marsaglia's xorshift
        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        std::swap(result[i], result[seed % (i + 1)]);
    }
    return result;
}

static uint64_t seed;

#ifdef XPNET_THREADS

template <class Body> void launch(Body body) {
    std::vector<std::thread> threads;
    std::vector<std::unique_ptr<Block>> blocks;
    const auto join = [&] {
        for (auto &thread : threads) thread.join();
        threads.clear();
    };
    for (int b : order(gridDim.x, seed)) {
        blocks.push_back(std::make_unique<Block>(blockDim.x));
        for (int t : order(blockDim.x, seed))
            threads.emplace_back([&body, b, t, own = blocks.back().get()] {
                blockIdx.x = b, threadIdx.x = t, block = own;
                body();
                block->leave();
            });
#ifdef XPNET_SHARED
        join();
#endif
    }
    join();
}

#elif defined(XPNET_BARRIERS)

static void (*entry)();
static std::vector<char> done;

static void start() {
    entry();
    done[current] = 1, progress = true;
    block->leave();
    swapcontext(&fibers[current], &scheduler);
}

template <class Body> void launch(Body body) {
    static Body *running;
    running = &body;
    entry = [] { (*running)(); };
    const int count = blockDim.x;
    constexpr size_t size = 1 << 16;
    static std::vector<char> stacks;
    stacks.resize(count * size);
    for (int b : order(gridDim.x, seed)) {
        Block own(count);
        block = &own, blockIdx.x = b;
        fibers.assign(count, {}), done.assign(count, 0);
        for (int t = 0; t < count; ++t) {
            getcontext(&fibers[t]);
            fibers[t].uc_stack.ss_sp = &stacks[t * size], fibers[t].uc_stack.ss_size = size;
            makecontext(&fibers[t], start, 0);
        }
        while (std::count(done.begin(), done.end(), 0)) {
            progress = false;
            for (int t : order(count, seed))
                if (!done[t]) current = threadIdx.x = t, swapcontext(&scheduler, &fibers[t]);
            if (!progress) fail("a barrier that not every thread reaches");
        }
    }
}

#else

template <class Body> void launch(Body body) {
    for (int b : order(gridDim.x, seed))
        for (int t : order(blockDim.x, seed)) {
            blockIdx.x = b, threadIdx.x = t;
            body();
        }
}

#endif

// -- launches from standard input ---------------------------------------------------------------------------------

static void take(void *target, size_t bytes) {
    if (bytes && fread(target, 1, bytes, stdin) != bytes) exit(0);  // the end of the input
}

template <class Number> Number number() {
    char raw[(sizeof(Number) + 7) / 8 * 8];
    take(raw, sizeof raw);
    Number value;
    memcpy(&value, raw, sizeof value);
    return value;
}

// An array in memory of exactly its size: whatever lies beyond it is AddressSanitizer's.
template <class Element> struct Array {
    size_t bytes = number<int64_t>();
    Element *data = static_cast<Element *>(malloc(bytes));
    Array() { take(data, bytes); }
    Array(const Array &) = delete;
    ~Array() { free(data); }
    void give() const { fwrite(data, 1, bytes, stdout); }
};

template <class To, class From> To bits(From value) {
    static_assert(sizeof(To) == sizeof(From), "");
    To result;
    memcpy(&result, &value, sizeof result);
    return result;
}

template <size_t count> int serve(void (*const (&table)[count])()) {
    for (;;) {
        const int64_t kernel = number<int64_t>();
        gridDim.x = number<int64_t>(), blockDim.x = number<int64_t>(), seed = number<uint64_t>();
        table[kernel]();
        putchar('!');
        fflush(stdout);
    }
}

}  // namespace host

// -- device functions -------------------------------------------------------------------------------------------------

static inline void __syncthreads() { host::block->all.wait(); }
static inline void __syncwarp(unsigned = 0xffffffffu) { host::block->warps[threadIdx.x / 32].wait(); }

template <class Number> Number __shfl_xor_sync(unsigned, Number value, int mask) {
    const int lane = threadIdx.x ^ mask;
    memcpy(&host::block->slots[threadIdx.x], &value, sizeof value);
    __syncwarp();
    if (lane >= blockDim.x) host::fail("a shuffle with a lane beyond the block");
    memcpy(&value, &host::block->slots[lane], sizeof value);
    __syncwarp();
    return value;
}

template <class Number> Number atomicAdd(Number *place, Number value) {
    Number before, after;
    __atomic_load(place, &before, __ATOMIC_RELAXED);
    do after = before + value;
    while (!__atomic_compare_exchange(place, &before, &after, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return before;
}
static inline unsigned __umulhi(unsigned a, unsigned b) { return uint64_t(a) * b >> 32; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline float __int_as_float(int x) { return host::bits<float>(x); }

// The PTX instructions that stand in asm statements, results first; names with _ for the dots.
namespace ptx {

static inline void cvt_f32_f16(float &result, unsigned short value) {
    const int exponent = value >> 10 & 31, digits = value & 1023;
    float size = exponent ? ldexpf(1024 + digits, exponent - 25) : ldexpf(digits, -24);
    if (exponent == 31) size = digits ? NAN : INFINITY;
    result = value >> 15 ? -size : size;
}

static inline void cvt_rn_f16_f32(unsigned short &result, float value) {
    const unsigned bits = host::bits<unsigned>(value), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
    unsigned rounded;
    if (size > 0x7f800000) rounded = 0x7fff;
    else if (size >= 0x477ff000) rounded = 0x7c00;                                        // 65520 and more
    else if (size < 0x38800000) rounded = nearbyintf(ldexpf(host::bits<float>(size), 24));  // subnormal, under 2^-14
    else rounded = (size + 0xfff + (size >> 13 & 1) >> 13) - (112 << 10);
    result = sign | rounded;
}

}  // namespace ptx
