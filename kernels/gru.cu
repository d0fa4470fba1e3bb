// A step of a GRU behind its matrix products, and the gradients of its sums.
//
// A thread has a unit of a sample, and neighbouring threads neighbouring units: reads and writes are coalesced; the gates
// r, z and n of a unit lie H numbers apart. Deterministic: a number is written by one thread, from no other's. Results
// are of type ACC until they are stored, and those that are read again are rounded first. Least bytes: every array once.

// Least bytes: samples·hidden·12·sizeof(T).
extern "C" __global__ void gru(
    const T *__restrict__ of_inputs /* samples * 3 * hidden */, const T *__restrict__ of_states /* samples * 3 * hidden */,
    const T *__restrict__ before /* count */, T *__restrict__ gates /* samples * 3 * hidden */,
    T *__restrict__ products /* count */, T *__restrict__ states /* count */, INDEX count, INDEX samples, INDEX hidden) {
    FOR_EACH(at, count) {
        const INDEX of_r = at / hidden * 3 * hidden + at % hidden, of_z = of_r + hidden, of_n = of_z + hidden;
        const ACC r = kept(sigmoid(widen(of_inputs[of_r]) + widen(of_states[of_r])), gates[of_r]);
        const ACC z = kept(sigmoid(widen(of_inputs[of_z]) + widen(of_states[of_z])), gates[of_z]);
        const ACC n = kept(tanh(widen(of_inputs[of_n]) + r * widen(of_states[of_n])), gates[of_n]);
        products[at] = of_states[of_n];
        narrow((1 - z) * n + z * widen(before[at]), states[at]);
    }
}

// With dh = dout + (carried + that of the product of the step after, which the last one lacks); what is carried to the
// step before is dh·z. Least bytes: samples·hidden·15·sizeof(T).
extern "C" __global__ void gru_backward(
    const T *__restrict__ dout /* count */, const T *__restrict__ dproduct /* later */, T *__restrict__ carried /* count */,
    const T *__restrict__ gates /* samples * 3 * hidden */, const T *__restrict__ products /* count */,
    const T *__restrict__ before /* count */, T *__restrict__ of_inputs /* samples * 3 * hidden */,
    T *__restrict__ of_states /* samples * 3 * hidden */, INDEX count, INDEX later, INDEX samples, INDEX hidden) {
    FOR_EACH(at, count) {
        const INDEX of_r = at / hidden * 3 * hidden + at % hidden, of_z = of_r + hidden, of_n = of_z + hidden;
        const ACC r = widen(gates[of_r]), z = widen(gates[of_z]), n = widen(gates[of_n]);
        const ACC after = widen(carried[at]) + (later ? widen(dproduct[at]) : (ACC)0), dh = widen(dout[at]) + after;
        const ACC dn = kept((1 - n * n) * (dh * (1 - z)), of_inputs[of_n]);
        const ACC dz = kept((1 - z) * z * (dh * (widen(before[at]) - n)), of_inputs[of_z]);
        const ACC dr = kept((1 - r) * r * (dn * widen(products[at])), of_inputs[of_r]);
        narrow(dn * r, of_states[of_n]);
        narrow(dz, of_states[of_z]);
        narrow(dr, of_states[of_r]);
        narrow(dh * z, carried[at]);
    }
}
