// Share a kernel's range among threads: xpnet_share, whose calls build_native.py writes for every kernel with a range.
#pragma once

#ifdef _WIN32
#define HIDDEN
#else
#define HIDDEN __attribute__((visibility("hidden")))
#endif

// Compute items `first` to `last` in the thread with a number, from 0.
typedef void Part(const void *given, long long thread, long long first, long long last);

HIDDEN void xpnet_share(Part *part, const void *given, long long count, long long pieces, long long threads);
