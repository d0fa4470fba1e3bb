// The functions of core/functions.h, for test_functions.py: count is a multiple of LANES.

#include "core/functions.h"

#define OF_EACH(name)                                                                                                  \
    KERNEL(name)(const T *x, T *y, index count) {                                                                      \
        for (index i = 0; i < count; i += LANES)                                                                       \
            store(y + i, vec_##name(load(x + i)));                                                                     \
    }

OF_EACH(exp)
OF_EACH(log)
OF_EACH(tanh)
OF_EACH(exp_negative)
