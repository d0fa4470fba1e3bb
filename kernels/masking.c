// Numbers kept where a mask is set, +0 elsewhere: their bits, those of NaN too.
//
// A vector of neighbouring numbers is loaded, masked in a register and stored: nothing is needed twice. No sums: no
// order matters. Least bytes: every array once.

#include "core/vectors.h"

typedef __typeof__((stored){0} < (stored){0}) lanes; // integers as wide as T
typedef lanes bits __attribute__((aligned(sizeof(T)), may_alias));

// `out` may be `values`.
KERNEL(apply_mask)(const T *values /* count */, const unsigned char *kept /* count */, T *out /* count */, index count,
                   index first, index last) {
    index i = first;
    for (; i + LANES <= last; i += LANES)
        *(bits *)(out + i) = *(const bits *)(values + i) & -__builtin_convertvector(*(const bytes *)(kept + i), lanes);
    for (; i < last; ++i)
        out[i] = kept[i] ? values[i] : 0;
    (void)count;
}
