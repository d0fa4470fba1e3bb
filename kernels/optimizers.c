// The updates of training/optim/optimizers.py, number by number, in one pass over memory.
//
// Bits: those of the twins there, NaN, infinities and numbers below the smallest normal one included: every operation is
// rounded, in the order in which it stands. Arithmetic and state are of type A; of _Float16 parameters there is a
// master of type A. A vector has LANES neighbouring numbers; the last ones of a range are computed with zeros after them.
//
// Least bytes for s arrays of state, the master among them: 3·sizeof(T) + 2·s·sizeof(A) a number.

#include "core/vectors.h"

INLINE vec root(vec x) { return __builtin_elementwise_sqrt(x); }

// LANES numbers from p on, or as many as are left, and zeros.
INLINE vec read(const T *p, index left) { return left >= LANES ? load(p) : load_some(p, left); }

INLINE vec read_state(const A *p, index left) {
    if (left >= LANES) return load_sums(p);
    A some[LANES] = {0};
    for (index i = 0; i < left; ++i) some[i] = p[i];
    return load_sums(some);
}

INLINE void write(T *p, vec value, index left) {
    if (left >= LANES) store(p, value);
    else store_some(p, value, left);
}

INLINE void write_state(A *p, vec value, index left) {
    if (left >= LANES) {
        store_sums(p, value);
        return;
    }
    A some[LANES];
    store_sums(some, value);
    for (index i = 0; i < left; ++i) p[i] = some[i];
}

// The master, unless the parameter was set by someone else: then it is not its master rounded, and counts.
INLINE vec widened(vec parameter, vec master) {
    T rounded[LANES];
    store(rounded, master);
    return choose(load(rounded) == parameter, master, parameter);
}

// For each vector p of parameters and g of their gradients: computes formula, which changes p, and writes p.
#define UPDATE(...)                                                                                                    \
    for (index i = first; i < last; i += LANES) {                                                                      \
        const index left = last - i;                                                                                   \
        vec p = read(parameters + i, left), g = read(gradients + i, left);                                             \
        if (master) p = widened(p, read_state(master + i, left));                                                      \
        if (scaled) g *= (A)multiplier;                                                                                \
        if (decay != 0) g = p * (A)decay + g;                                                                          \
        __VA_ARGS__                                                                                                    \
        write(parameters + i, p, left);                                                                                \
        if (master) write_state(master + i, p, left);                                                                  \
    }                                                                                                                  \
    (void)count

// In a formula: begin with an array of state, and write it.
#define STATE(name) vec name##_ = read_state(name + i, left)
#define KEEP(name) write_state(name + i, name##_, left)

KERNEL(sgd)(T *parameters /* count */, const T *gradients /* count */, A *master /* NULL or count */, double lr,
            double decay, int scaled, double multiplier, index count, index first, index last) {
    UPDATE(p -= g * (A)lr;);
}

KERNEL(momentum)(T *parameters /* count */, const T *gradients /* count */, A *master /* NULL or count */,
                 A *v /* count */, double lr, double momentum, double decay, int scaled, double multiplier, index count,
                 index first, index last) {
    UPDATE(STATE(v); v_ = v_ * (A)momentum - g * (A)lr; KEEP(v); p += v_;);
}

KERNEL(nesterov)(T *parameters /* count */, const T *gradients /* count */, A *master /* NULL or count */,
                 A *v /* count */, double lr, double momentum, double decay, int scaled, double multiplier, index count,
                 index first, index last) {
    UPDATE(STATE(v); const vec step = g * (A)lr; v_ = v_ * (A)momentum - step; KEEP(v);
           p -= step - v_ * (A)momentum;);
}

KERNEL(adagrad)(T *parameters /* count */, const T *gradients /* count */, A *master /* NULL or count */,
                A *h /* count */, double lr, double eps, double decay, int scaled, double multiplier, index count,
                index first, index last) {
    UPDATE(STATE(h); h_ += g * g; KEEP(h); p -= g / (root(h_) + (A)eps) * (A)lr;);
}

KERNEL(rmsprop)(T *parameters /* count */, const T *gradients /* count */, A *master /* NULL or count */,
                A *h /* count */, double lr, double eps, double rate, double decay, int scaled, double multiplier,
                index count, index first, index last) {
    UPDATE(STATE(h); h_ += (g * g - h_) * (A)rate; KEEP(h); p -= g / (root(h_) + (A)eps) * (A)lr;);
}

// Adam's step, which moves both averages.
#define ADAM                                                                                                           \
    STATE(m); STATE(v); m_ += (g - m_) * (A)rate1; v_ += (g * g - v_) * (A)rate2; KEEP(m); KEEP(v);                    \
    const vec step = m_ / (root(v_) + (A)scaled_eps) * (A)rate;

KERNEL(adam)(T *parameters /* count */, const T *gradients /* count */, A *master /* NULL or count */,
             A *m /* count */, A *v /* count */, double rate, double scaled_eps, double rate1, double rate2,
             double decay, int scaled, double multiplier, index count, index first, index last) {
    UPDATE(ADAM p -= step;);
}

KERNEL(adamw)(T *parameters /* count */, const T *gradients /* count */, A *master /* NULL or count */,
              A *m /* count */, A *v /* count */, double rate, double scaled_eps, double rate1, double rate2,
              double decay_rate, double decay, int scaled, double multiplier, index count, index first, index last) {
    UPDATE(ADAM p -= step + p * (A)decay_rate;);
}

// average += (value - average)·rate: an exponential moving average of weights.
KERNEL(move_towards)(A *average /* count */, const T *values /* count */, double rate, index count, index first,
                     index last) {
    for (index i = first; i < last; i += LANES) {
        const index left = last - i;
        const vec mean = read_state(average + i, left);
        write_state(average + i, mean + (read(values + i, left) - mean) * (A)rate, left);
    }
    (void)count;
}
