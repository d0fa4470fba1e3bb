// A step of an LSTM behind its matrix products, and the gradients of its sums.
//
// A thread has a unit of a sample, and neighbouring threads neighbouring units: reads and writes are coalesced; the gates
// i, f, g and o of a unit lie H numbers apart. Deterministic: a number is written by one thread, from no other's. Results
// are of type ACC until they are stored, and those that are read again are rounded first. Least bytes: every array once.

// Least bytes: samples·hidden·16·sizeof(T).
extern "C" __global__ void lstm(
    const T *__restrict__ of_inputs /* samples * 4 * hidden */, const T *__restrict__ of_states /* samples * 4 * hidden */,
    const T *__restrict__ before /* count */, T *__restrict__ gates /* samples * 4 * hidden */,
    T *__restrict__ cells /* count */, T *__restrict__ squashed /* count */, T *__restrict__ states /* count */,
    INDEX count, INDEX samples, INDEX hidden) {
    FOR_EACH(at, count) {
        const INDEX from = at / hidden * 4 * hidden + at % hidden;
        ACC gate[4];
        for (int k = 0; k < 4; ++k) {
            const INDEX place = from + k * hidden;
            const ACC sum = widen(of_inputs[place]) + widen(of_states[place]);
            gate[k] = kept(k == 2 ? tanh(sum) : sigmoid(sum), gates[place]);
        }
        const ACC cell = kept(gate[1] * widen(before[at]) + gate[0] * gate[2], cells[at]);
        narrow(gate[3] * kept(tanh(cell), squashed[at]), states[at]);
    }
}

// With dh = dout + dh of the step after, which the last one lacks: dc += dh·o·(1 - tanh²c), and what goes on to the step
// before is dc·f. Least bytes: samples·hidden·14·sizeof(T).
extern "C" __global__ void lstm_backward(
    const T *__restrict__ dout /* count */, const T *__restrict__ dh /* later */, T *__restrict__ dc /* count */,
    const T *__restrict__ gates /* samples * 4 * hidden */, const T *__restrict__ before /* count */,
    const T *__restrict__ squashed /* count */, T *__restrict__ dsums /* samples * 4 * hidden */, INDEX count,
    INDEX later, INDEX samples, INDEX hidden) {
    FOR_EACH(at, count) {
        const INDEX from = at / hidden * 4 * hidden + at % hidden;
        const ACC i = widen(gates[from]), f = widen(gates[from + hidden]), g = widen(gates[from + 2 * hidden]),
                  o = widen(gates[from + 3 * hidden]), squash = widen(squashed[at]);
        const ACC upstream = widen(dout[at]) + (later ? widen(dh[at]) : (ACC)0);
        const ACC dcell = widen(dc[at]) + (1 - squash * squash) * (upstream * o);
        narrow((1 - i) * i * (dcell * g), dsums[from]);
        narrow((1 - f) * f * (dcell * widen(before[at])), dsums[from + hidden]);
        narrow((1 - g * g) * (dcell * i), dsums[from + 2 * hidden]);
        narrow((1 - o) * o * (upstream * squash), dsums[from + 3 * hidden]);
        narrow(dcell * f, dc[at]);
    }
}
