// A step of an LSTM behind its matrix products, and the gradients of its sums.
//
// Rows are samples, vectors neighbouring units; the gates i, f, g and o of a unit lie H numbers apart. What a step
// computes of a number stays in registers from the sums to the state. Bits: those of the twins in lstm.py, whose order of
// products and sums this is; float16 rounds once here, where it is stored, and exp and tanh are those of core/functions.h.
// Least bytes: every array once.

#include "core/functions.h"

KERNEL(lstm)(const T *of_inputs /* samples * 4 * hidden */, const T *of_states /* samples * 4 * hidden */,
             const T *before /* samples * hidden */, T *gates /* samples * 4 * hidden */,
             T *cells /* samples * hidden */, T *squashed /* samples * hidden */, T *states /* samples * hidden */,
             index samples, index hidden, index first, index last) {
    for (index row = first; row < last; ++row)
        for (index unit = 0; unit < hidden; unit += LANES) {
            const index own = least(LANES, hidden - unit), at = row * hidden + unit, from = row * 4 * hidden + unit;
            vec gate[4];
            UNROLL for (int k = 0; k < 4; ++k) {
                const index place = from + k * hidden;
                const vec sum = load_up_to(of_inputs + place, own) + load_up_to(of_states + place, own);
                gate[k] = rounded(k == 2 ? vec_tanh(sum) : vec_sigmoid(sum));
                store_up_to(gates + place, gate[k], own);
            }
            const vec cell = rounded(gate[1] * load_up_to(before + at, own) + gate[0] * gate[2]);
            const vec squash = rounded(vec_tanh(cell));
            store_up_to(cells + at, cell, own);
            store_up_to(squashed + at, squash, own);
            store_up_to(states + at, gate[3] * squash, own);
        }
    (void)samples;
}

// With dh = dout + dh of the step after: dc += dh·o·(1 - tanh²c), and what goes on to the step before is dc·f.
KERNEL(lstm_backward)(const T *dout /* samples * hidden */, const T *dh /* NULL or samples * hidden */,
                      T *dc /* samples * hidden */, const T *gates /* samples * 4 * hidden */,
                      const T *before /* samples * hidden */, const T *squashed /* samples * hidden */,
                      T *dsums /* samples * 4 * hidden */, index samples, index hidden, index first, index last) {
    for (index row = first; row < last; ++row)
        for (index unit = 0; unit < hidden; unit += LANES) {
            const index own = least(LANES, hidden - unit), at = row * hidden + unit, from = row * 4 * hidden + unit;
            vec gate[4], slope[4];
            UNROLL for (int k = 0; k < 4; ++k) gate[k] = load_up_to(gates + from + k * hidden, own);
            const vec squash = load_up_to(squashed + at, own);
            const vec upstream = load_up_to(dout + at, own) + (dh ? load_up_to(dh + at, own) : all(0));
            const vec dcell = load_up_to(dc + at, own) + (all(1) - squash * squash) * (upstream * gate[3]);
            slope[0] = (all(1) - gate[0]) * gate[0] * (dcell * gate[2]);
            slope[1] = (all(1) - gate[1]) * gate[1] * (dcell * load_up_to(before + at, own));
            slope[2] = (all(1) - gate[2] * gate[2]) * (dcell * gate[0]);
            slope[3] = (all(1) - gate[3]) * gate[3] * (upstream * squash);
            UNROLL for (int k = 0; k < 4; ++k) store_up_to(dsums + from + k * hidden, slope[k], own);
            store_up_to(dc + at, dcell * gate[1], own);
        }
    (void)samples;
}
