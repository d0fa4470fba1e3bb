// A step of a GRU behind its matrix products, and the gradients of its sums.
//
// Rows are samples, vectors neighbouring units; the gates r, z and n of a unit lie H numbers apart. What a step computes
// of a number stays in registers from the sums to the state. Bits: those of the twins in gru.py, whose order of products
// and sums this is; float16 rounds once here, where it is stored, and exp and tanh are those of core/functions.h.
// Least bytes: every array once.

#include "core/functions.h"

KERNEL(gru)(const T *of_inputs /* samples * 3 * hidden */, const T *of_states /* samples * 3 * hidden */,
            const T *before /* samples * hidden */, T *gates /* samples * 3 * hidden */,
            T *products /* samples * hidden */, T *states /* samples * hidden */, index samples, index hidden,
            index first, index last) {
    for (index row = first; row < last; ++row)
        for (index unit = 0; unit < hidden; unit += LANES) {
            const index own = least(LANES, hidden - unit), at = row * hidden + unit, from = row * 3 * hidden + unit;
            vec a[3], b[3];
            UNROLL for (int k = 0; k < 3; ++k) {
                a[k] = load_up_to(of_inputs + from + k * hidden, own);
                b[k] = load_up_to(of_states + from + k * hidden, own);
            }
            const vec r = rounded(vec_sigmoid(a[0] + b[0])), z = rounded(vec_sigmoid(a[1] + b[1]));
            const vec n = rounded(vec_tanh(a[2] + r * b[2]));
            store_up_to(gates + from, r, own);
            store_up_to(gates + from + hidden, z, own);
            store_up_to(gates + from + 2 * hidden, n, own);
            store_up_to(products + at, b[2], own);
            store_up_to(states + at, (all(1) - z) * n + z * load_up_to(before + at, own), own);
        }
    (void)samples;
}

// With dh = dout + (carried + that of the product of the step after); what is carried to the step before is dh·z.
KERNEL(gru_backward)(const T *dout /* samples * hidden */, const T *dproduct /* NULL or samples * hidden */,
                     T *carried /* samples * hidden */, const T *gates /* samples * 3 * hidden */,
                     const T *products /* samples * hidden */, const T *before /* samples * hidden */,
                     T *of_inputs /* samples * 3 * hidden */, T *of_states /* samples * 3 * hidden */, index samples,
                     index hidden, index first, index last) {
    for (index row = first; row < last; ++row)
        for (index unit = 0; unit < hidden; unit += LANES) {
            const index own = least(LANES, hidden - unit), at = row * hidden + unit, from = row * 3 * hidden + unit;
            vec gate[3], slope[3];
            UNROLL for (int k = 0; k < 3; ++k) gate[k] = load_up_to(gates + from + k * hidden, own);
            const vec r = gate[0], z = gate[1], n = gate[2], rest = load_up_to(carried + at, own);
            const vec later = dproduct ? rest + load_up_to(dproduct + at, own) : rest;
            const vec dh = load_up_to(dout + at, own) + later;
            slope[2] = rounded((all(1) - n * n) * (dh * (all(1) - z)));
            slope[1] = (all(1) - z) * z * (dh * (load_up_to(before + at, own) - n));
            slope[0] = (all(1) - r) * r * (slope[2] * load_up_to(products + at, own));
            UNROLL for (int k = 0; k < 3; ++k) {
                store_up_to(of_inputs + from + k * hidden, slope[k], own);
                store_up_to(of_states + from + k * hidden, k == 2 ? slope[k] * r : slope[k], own);
            }
            store_up_to(carried + at, dh * z, own);
        }
    (void)samples;
}
