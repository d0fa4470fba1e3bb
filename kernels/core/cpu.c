// Which of the library's levels this processor, and its operating system, can run: 0 none, 3 and 4 x86-64-v3 and v4, 8
// arm64. It is compiled for any processor of its kind.
//
// Intel, "Intel 64 and IA-32 architectures software developer's manual", volume 1, sections 14.3 (AVX), 14.5 (FMA), 14.7
// (AVX2) and 15.2 to 15.4 (AVX-512).
#ifdef _WIN32
#define EXPORTED __declspec(dllexport)
#else
#define EXPORTED __attribute__((visibility("default")))
#endif
EXPORTED int xpnet_level(void);
#ifdef _WIN32
int DllMainCRTStartup(void *library, unsigned reason, void *reserved); // Windows calls it when it loads the library
int DllMainCRTStartup(void *library, unsigned reason, void *reserved) { return (void)library, (void)reason, (void)reserved, 1; }
#endif
EXPORTED extern const char xpnet_sources[];

const char xpnet_sources[64] = SOURCES; // what the library is made from: build_native.digest

#ifdef __x86_64__
#include <cpuid.h>

static int has(unsigned value, unsigned bits) { return (value & bits) == bits; }

int xpnet_level(void) {
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    if (!has(c, bit_FMA | bit_OSXSAVE | bit_AVX | bit_F16C | bit_MOVBE)) return 0;
    if (!__get_cpuid(0x80000001, &a, &b, &c, &d) || !has(c, bit_LZCNT)) return 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0)); // the registers that the system saves
    if (!has(low, 0x6) || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    if (!has(b, bit_AVX2 | bit_BMI | bit_BMI2)) return 0;
    const unsigned v4 = bit_AVX512F | bit_AVX512DQ | bit_AVX512CD | bit_AVX512BW | bit_AVX512VL;
    return has(b, v4) && has(low, 0xe6) ? 4 : 3;
}
#else
int xpnet_level(void) { return 8; }
#endif
