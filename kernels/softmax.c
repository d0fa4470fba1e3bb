// Softmax along the rows of a matrix (rows, classes), the cross-entropy against labels, and their gradients.
//
// A vector has LANES neighbouring classes of a row, which is gone through for the maximum, for the exponentials, which
// stay in y, and for the quotients, from a cache. Vectors reach from the end of a row into the next one, which is
// computed after it: what they read there is replaced, what they write there is written again. Only the last vector of
// a range is cut. Of up to SHORT classes, a vector has a class of LANES rows, which are transposed before and after.
// Logarithms are taken for LANES rows at once.
//
// Order of sums: of a long row, in a vector, then its lanes in a tree; of a short one in order; of the rows' losses as
// of a row. A NaN in a row makes all of it NaN, as does +inf. Least bytes: scores and probabilities once,
// 2·rows·classes·sizeof(T), and the labels; the gradient reads probabilities and labels and writes as many bytes as it
// reads of probabilities.

#include "core/functions.h"

#define SHORT 32 // classes, a multiple of LANES

// LANES numbers from p on, of which `left` belong to the row, and `room` to the range; others are replaced.
INLINE vec read(const T *p, index left, index room, A other) {
    if (left >= LANES) return load(p);
    return choose(first_lanes(left), room < LANES ? load_some(p, left) : load(p), all(other));
}

INLINE vec read_targets(const A *p, index left, index room) {
    if (left >= LANES) return load_sums(p);
    A some[LANES] = {0};
    if (room < LANES)
        for (index i = 0; i < left; ++i) some[i] = p[i];
    return choose(first_lanes(left), load_sums(room < LANES ? some : p), all(0));
}

INLINE void write(T *p, vec value, index left, index room) {
    if (room >= LANES) store(p, value);
    else store_some(p, value, left);
}

INLINE A sum_of_lanes(vec value) {
    UNROLL for (int half = LANES / 2; half > 0; half /= 2)
        UNROLL for (int i = 0; i < half; ++i) value[i] += value[i + half];
    return value[0];
}

INLINE A largest_of_lanes(vec value) {
    UNROLL for (int half = LANES / 2; half > 0; half /= 2)
        UNROLL for (int i = 0; i < half; ++i) value[i] = value[i + half] > value[i] ? value[i + half] : value[i];
    return value[0];
}

INLINE vec larger(vec a, vec b) { return choose(b > a, b, a); }

// Softmax of LANES rows or fewer: y = exp(x - most) / total. Against targets the loss of a row is
// log(total)·weight - picked, with the sums of targets, `weight`, and of target·(x - most), `picked`, to which a target
// of 0 adds nothing, whatever the score.
typedef struct {
    A most[LANES], total[LANES], weight[LANES], picked[LANES];
} Rows;

INLINE vec picked_of(vec target, vec shifted) { return choose(target != all(0), target * shifted, all(0)); }

INLINE void long_row(const T *x, const A *targets, T *y, index classes, index room, Rows *rows, index place) {
    const A lowest = -(A)__builtin_inf();
    vec most = all(lowest), next = most, total = all(0), weight = total, picked = total;
    index i = 0;
    for (; i + 2 * LANES <= classes; i += 2 * LANES) {
        most = larger(most, load(x + i));
        next = larger(next, load(x + i + LANES));
    }
    for (; i < classes; i += LANES) most = larger(most, read(x + i, classes - i, room - i, lowest));
    const A largest = largest_of_lanes(larger(most, next));
    for (i = 0; i < classes; i += LANES) {
        const vec shifted = read(x + i, classes - i, room - i, lowest) - all(largest), power = vec_exp_negative(shifted);
        total += power;
        if (targets) {
            const vec target = read_targets(targets + i, classes - i, room - i);
            weight += target;
            picked += picked_of(target, shifted);
        }
        if (sizeof(T) == sizeof(A)) write(y + i, power, classes - i, room - i);
    }
    rows->most[place] = largest;
    rows->total[place] = sum_of_lanes(total);
    if (targets) {
        rows->weight[place] = sum_of_lanes(weight);
        rows->picked[place] = sum_of_lanes(picked);
    }
    const vec inverse = all(1 / rows->total[place]);
    for (i = 0; i < classes; i += LANES) {
        const vec power = sizeof(T) == sizeof(A) ? read(y + i, classes - i, room - i, 0)
                                                 : vec_exp_negative(read(x + i, classes - i, room - i, 0) - all(largest));
        write(y + i, power * inverse, classes - i, room - i);
    }
}

INLINE void short_rows(const T *x, const A *targets, T *y, index classes, index count, index room, Rows *rows) {
    vec tile[SHORT], wanted[SHORT];
    for (index block = 0; block < classes; block += LANES) {
        for (index lane = 0; lane < LANES; ++lane) {
            const index start = least(lane, count - 1) * classes + block; // lanes beyond the rows repeat the last one
            tile[block + lane] = read(x + start, classes - block, room - start, 0);
            if (targets) wanted[block + lane] = read_targets(targets + start, classes - block, room - start);
        }
        transpose(tile + block);
        if (targets) transpose(wanted + block);
    }
    vec most = tile[0], total = all(0), weight = total, picked = total;
    for (index k = 1; k < classes; ++k) most = larger(most, tile[k]);
    for (index k = 0; k < classes; ++k) {
        const vec shifted = tile[k] - most;
        tile[k] = vec_exp_negative(shifted);
        total += tile[k];
        if (targets) {
            weight += wanted[k];
            picked += picked_of(wanted[k], shifted);
        }
    }
    const vec inverse = all(1) / total;
    for (index k = 0; k < classes; ++k) tile[k] *= inverse;
    for (index block = 0; block < classes; block += LANES) transpose(tile + block);
    for (index lane = 0; lane < count; ++lane)
        for (index block = 0; block < classes; block += LANES) {
            const index start = lane * classes + block;
            write(y + start, tile[block + lane], classes - block, room - start);
        }
    store_sums(rows->most, most);
    store_sums(rows->total, total);
    store_sums(rows->weight, weight);
    store_sums(rows->picked, picked);
}

INLINE void softmax_of(const T *x, const A *targets, T *y, index classes, index count, index room, Rows *rows) {
    if (classes <= SHORT) {
        short_rows(x, targets, y, classes, count, room, rows);
        return;
    }
    for (index k = 0; k < count; ++k) {
        const index start = k * classes;
        long_row(x + start, targets ? targets + start : 0, y + start, classes, room - start, rows, k);
    }
}

KERNEL(softmax)(const T *x /* rows * classes */, T *y /* rows * classes */, index rows, index classes, index first,
                index last) {
    Rows found;
    for (index row = first; row < last; row += LANES) {
        const index start = row * classes;
        softmax_of(x + start, 0, y + start, classes, least(LANES, last - row), last * classes - start, &found);
    }
    (void)rows;
}

// y·(dy - Σ dy·y) along each row.
KERNEL(softmax_backward)(const T *dy /* rows * classes */, const T *y /* rows * classes */, T *dx /* rows * classes */,
                         index rows, index classes, index first, index last) {
    for (index row = first; row < last; ++row) {
        const index start = row * classes, end = last * classes;
        vec sum = all(0);
        for (index i = start; i < start + classes; i += LANES) {
            const index left = start + classes - i;
            sum += read(dy + i, left, end - i, 0) * read(y + i, left, end - i, 0);
        }
        const vec total = all(sum_of_lanes(sum));
        for (index i = start; i < start + classes; i += LANES) {
            const index left = start + classes - i;
            const vec value = read(y + i, left, end - i, 0);
            write(dx + i, read(dy + i, left, end - i, 0) * value - value * total, left, end - i);
        }
    }
    (void)rows;
}

INLINE void mean_of(const A *losses, A *loss, index rows) {
    vec sum = all(0);
    for (index i = 0; i < rows; i += LANES) sum += read_targets(losses + i, rows - i, rows - i);
    *loss = sum_of_lanes(sum) / rows;
}

// The mean of the rows' losses, where they were computed in several ranges.
KERNEL(mean_loss)(const A *losses /* rows */, A *loss /* 1 */, index rows) { mean_of(losses, loss, rows); }

// Probabilities and each row's loss, against labels, which are in range, or targets; the mean, if the range is all rows.
KERNEL(cross_entropy)(const T *x /* rows * classes */, const int *labels /* NULL or rows */,
                      const A *targets /* NULL or rows * classes */, T *y /* rows * classes */, A *losses /* rows */,
                      A *loss /* 1 */, index rows, index classes, index first, index last) {
    Rows found = {{0}, {0}, {0}, {0}};
    for (index row = first; row < last; row += LANES) {
        const index count = least(LANES, last - row), start = row * classes, room = last * classes - start;
        if (targets) {
            softmax_of(x + start, targets + start, y + start, classes, count, room, &found);
        } else {
            softmax_of(x + start, 0, y + start, classes, count, room, &found);
            for (index k = 0; k < count; ++k) {
                found.weight[k] = 1;
                found.picked[k] = get(x + start + k * classes + labels[row + k]) - found.most[k];
            }
        }
        const vec weight = load_sums(found.weight), whole = vec_log(load_sums(found.total)) * weight;
        A own[LANES];
        store_sums(own, choose(weight == all(0), all(0), whole) - load_sums(found.picked)); // 0 without targets
        for (index k = 0; k < count; ++k) losses[row + k] = own[k];
    }
    if (last - first == rows) mean_of(losses, loss, rows);
}

// (y - [class is the label])·factor, or of targets (y·Σt - t)·factor.
KERNEL(cross_entropy_backward)(const T *y /* rows * classes */, const int *labels /* NULL or rows */,
                               const A *targets /* NULL or rows * classes */, T *dx /* rows * classes */,
                               double factor, index rows, index classes, index first, index last) {
    const A scale = (A)factor;
    for (index row = first; row < last; ++row) {
        const index start = row * classes, end = last * classes;
        vec sum = all(0);
        if (targets)
            for (index i = start; i < start + classes; i += LANES)
                sum += read_targets(targets + i, start + classes - i, end - i);
        const vec weight = all(targets ? sum_of_lanes(sum) : 1);
        for (index i = start; i < start + classes; i += LANES) {
            const index left = start + classes - i;
            const vec value = read(y + i, left, end - i, 0);
            const vec gradient = targets ? value * weight - read_targets(targets + i, left, end - i) : value;
            write(dx + i, gradient * scale, left, end - i);
        }
        if (labels) put(dx + start + labels[row], (get(y + start + labels[row]) - 1) * scale);
    }
    (void)rows;
}
