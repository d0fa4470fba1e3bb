// Threads that compute pieces of a kernel's range.
//
// kernels/core/pool.py starts them. A thread that helps waits here, without the interpreter's lock, and looks for work
// again and again: handing over a piece takes less than a microsecond, where waking a thread takes some 50. It returns
// when none has come for a while. The caller computes pieces, too, and alone where nobody helps in time.
//
// The range is cut into pieces of nearly equal length, which threads take in order. There is one job at a time: who
// comes while another caller has the threads computes alone.
#include <stdatomic.h>

#include "pool.h"

#ifdef _WIN32
#define EXPORTED __declspec(dllexport)
__declspec(dllimport) int SwitchToThread(void);
#define YIELD SwitchToThread()
#else
#define EXPORTED __attribute__((visibility("default")))
int sched_yield(void); // the process's own
#define YIELD sched_yield()
#endif

EXPORTED void xpnet_help(long long microseconds);
EXPORTED void xpnet_forget(void);
EXPORTED extern atomic_int xpnet_awake;

#define SPINS 100 // of a waiting thread between two offers of its core to others

// The state: the job's number << 32 | how many may help, 0 where it is closed << 16 | how many do. A helper enters by
// adding one to it, which fails if the job was closed or another began: the job's data stay until all have left.
#define HELPERS 0xffffull
#define MOST(state) (state >> 16 & HELPERS)

static _Alignas(64) _Atomic unsigned long long state;
static _Alignas(64) atomic_llong next_piece;
static _Alignas(64) atomic_int taken;
_Alignas(64) atomic_int xpnet_awake; // threads inside xpnet_help
static struct {
    Part *part;
    const void *given;
    long long count, pieces;
} job;

static void rest(void) {
#ifdef __x86_64__
    __builtin_ia32_pause();
#else
    __asm__ volatile("isb");
#endif
}

// A clock, and about how far it goes in a microsecond.
static unsigned long long clock_now(void) {
#ifdef __x86_64__
    return __builtin_ia32_rdtsc();
#else
    unsigned long long now;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(now));
    return now;
#endif
}

static unsigned long long clock_rate(void) {
#ifdef __x86_64__
    return 3000;
#else
    unsigned long long hertz;
    __asm__ volatile("mrs %0, cntfrq_el0" : "=r"(hertz));
    return hertz / 1000000 + 1;
#endif
}

static void work(long long thread) {
    long long piece;
    while ((piece = atomic_fetch_add(&next_piece, 1)) < job.pieces)
        job.part(job.given, thread, job.count * piece / job.pieces, job.count * (piece + 1) / job.pieces);
}

// Help with every job, until none has come for so long, not counting the time in which other processes have the core. A
// helper has the number of those inside when it enters: one may have had it before, but leaves only when no piece is
// left.
void xpnet_help(long long microseconds) {
    const unsigned long long microsecond = clock_rate(), patience = microseconds * microsecond;
    unsigned long long waited = 0, known = 0, before = clock_now();
    atomic_fetch_add(&xpnet_awake, 1);
    for (int spins = 1; waited < patience; ++spins) {
        unsigned long long found = atomic_load(&state);
        if (found >> 32 != known && (found & HELPERS) < MOST(found)) {
            if (!atomic_compare_exchange_strong(&state, &found, found + 1)) continue;
            work((found & HELPERS) + 1);
            atomic_fetch_sub(&state, 1);
            known = found >> 32;
            waited = 0;
        } else if (spins % SPINS) {
            rest();
        } else {
            YIELD;
        }
        const unsigned long long now = clock_now(), passed = now - before;
        waited += passed < microsecond ? passed : microsecond;
        before = now;
    }
    atomic_fetch_sub(&xpnet_awake, 1);
}

void xpnet_share(Part *part, const void *given, long long count, long long pieces, long long threads) {
    if (threads <= 1 || pieces <= 1 || atomic_exchange(&taken, 1)) {
        part(given, 0, 0, count);
        return;
    }
    job.part = part, job.given = given, job.count = count, job.pieces = pieces;
    atomic_store(&next_piece, 0);
    const unsigned long long number = (atomic_load(&state) >> 32) + 1, most = threads - 1;
    atomic_store(&state, number << 32 | (most < HELPERS ? most : HELPERS) << 16);
    work(0);
    atomic_fetch_and(&state, ~(HELPERS << 16));
    for (int spins = 1; atomic_load(&state) & HELPERS; ++spins) {
        if (spins % SPINS)
            rest();
        else
            YIELD;
    }
    atomic_store(&taken, 0);
}

// In a process that was forked, in which no other thread goes on: close the job that was under way, whose caller and
// helpers never leave. A new helper would enter it, and leave the next one.
void xpnet_forget(void) {
    atomic_fetch_and(&state, ~(HELPERS << 16 | HELPERS));
    atomic_store(&taken, 0);
    atomic_store(&xpnet_awake, 0);
}
