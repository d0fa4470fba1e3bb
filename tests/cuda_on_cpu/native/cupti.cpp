// The part of CUPTI that counts launches: one subscriber, called back as a kernel
// launch or a cuBLAS call begins and ends, always as the driver's cuLaunchKernel.
#include <cstdint>

#include "emulator.h"

using namespace coc;

namespace {
enum { OK = 0, INVALID_PARAMETER = 1, MULTIPLE_SUBSCRIBERS = 39 };
enum { DRIVER_API = 1, CU_LAUNCH_KERNEL = 307 };

struct Data {
    int site;  // 0: a call begins, 1: it ends
    const char* function;
};
typedef void (*Callback)(void*, int, uint32_t, const Data*);
Callback callback = nullptr;
void* userdata = nullptr;

void at_launch(int site) {
    Data data{site, "cuLaunchKernel"};
    if (callback) callback(userdata, DRIVER_API, CU_LAUNCH_KERNEL, &data);
}
}  // namespace

EXPORT int cuptiSubscribe(void** subscriber, Callback f, void* data) {
    if (!subscriber || !f) return INVALID_PARAMETER;
    if (callback) return MULTIPLE_SUBSCRIBERS;
    callback = f;
    userdata = data;
    *subscriber = &callback;
    return OK;
}

EXPORT int cuptiEnableCallback(uint32_t enable, void* subscriber, int domain, uint32_t call) {
    if (subscriber != &callback) return INVALID_PARAMETER;
    if (domain == DRIVER_API && call == CU_LAUNCH_KERNEL) launch_hook = enable ? at_launch : nullptr;
    return OK;
}

EXPORT int cuptiUnsubscribe(void* subscriber) {
    if (subscriber != &callback) return INVALID_PARAMETER;
    launch_hook = nullptr;
    callback = nullptr;
    return OK;
}
