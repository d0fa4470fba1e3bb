// Scaled dot-product attention of heads (length, depth), y = softmax(q·kᵀ·scale)·v, and its gradients. No matrix of
// scores of a whole head is kept: forward goes over blocks of keys with a running maximum and sum of each query (Milakov
// and Gimelshein, "Online normalizer calculation for softmax", 2018; Dao et al., "FlashAttention", 2022) and writes the
// logarithm of the sum, by which backward computes the probabilities again.
//
// A block of up to OWN rows lies transposed, numbers of LANES neighbouring rows in a vector, and meets blocks of up to
// OTHER rows. Their scores, OTHER by OWN, stay in the first level of cache. Forward owns queries: a vector has scores of
// LANES queries against one key, and the maximum and the sum go down the vectors. Backward owns keys, whose gradients it
// adds up in cache, and those of all queries of the head in `scratch`. Products are made in registers, by the tiles of
// product_tile.h. Rows of float16, and those that are not whole vectors, are copied in the type of sums.
//
// With `causal` a query sees no later key, whatever is in it: a product leaves out what is not seen, as 0·NaN is NaN.
//
// Order of sums: the products along a row in order, each by an fma, from +0; those along keys or queries so for a block,
// then block by block, in order; those of dy·y in a vector, then its lanes in a tree. A thread has whole blocks of
// queries (forward) or whole heads (backward): no bit depends on the number of threads.
//
// Least bytes: forward 4·n·sizeof(T), with n = heads·length·depth, and heads·length·sizeof(A); backward 8·n·sizeof(T) and
// the same of A. Forward reads keys and values again for each block of queries, backward what belongs to queries for each
// block of keys.

#include "core/functions.h"
#include "core/product_tile.h"

enum {
    OWN = 64,   // a multiple of WIDTH; as _OWN_NATIVE in attention.py
    OTHER = 48, // as _OTHER_NATIVE there
};

typedef A Scores[OTHER * OWN] ALIGNED; // rows of OWN numbers

// Compute scores of the other rows against the own ones, which are `turned`. Those of panels in which an other row sees
// no own one are left as they are.
static void multiply_scores(A *scores, const A *other, index padded, const A *turned, index depth, index others,
                            index owns, Seen seen) {
    for (index column = 0; column < owns; column += WIDTH) {
        const Product p = {.a = other, .a_row = padded, .a_depth = 1, .b = turned + column * depth, .b_depth = WIDTH,
                           .c = scores + column, .c_row = OWN, .depth = depth};
        const index columns = least(WIDTH, owns - column);
        multiply_rows(&p, columns, seen.which == UP_TO ? within(column - seen.shift, others) : 0,
                      seen.which == FROM ? within(column + columns - seen.shift, others) : others);
    }
}

// Transpose rows into panels of WIDTH; vectors are filled up with 0.
static void turn(A *to, const T *x, index depth, index count) {
    for (index row = 0; row < count; row += LANES)
        for (index d = 0; d < depth; d += LANES) {
            const index some = least(LANES, depth - d);
            vec block[LANES];
            UNROLL for (int i = 0; i < LANES; ++i)
                block[i] = row + i < count ? load_up_to(x + (row + i) * depth + d, some) : all(0);
            transpose(block);
            A *place = to + row / WIDTH * WIDTH * depth + d * WIDTH + row % WIDTH;
            for (index i = 0; i < some; ++i) store_sums(place + i * WIDTH, block[i]);
        }
}

// Return rows of `padded` numbers of the type of sums: where they lie, or copied to `room` and filled up with 0.
static const A *rows_in(A *room, const T *x, index depth, index padded, index count) {
    if (sizeof(T) == sizeof(A) && depth == padded) return (const A *)x;
    for (index row = 0; row < count; ++row)
        for (index d = 0; d < depth; d += LANES)
            store_sums(room + row * padded + d, load_up_to(x + row * depth + d, least(LANES, depth - d)));
    return room;
}

// Bring rows of sums to memory, divided by a number of each, if given.
static void write_rows(T *to, const A *sums, const A *divisors, index depth, index padded, index count) {
    for (index row = 0; row < count; ++row)
        for (index d = 0; d < depth; d += LANES) {
            const vec value = load_sums(sums + row * padded + d);
            store_up_to(to + row * depth + d, divisors ? value / all(divisors[row]) : value, least(LANES, depth - d));
        }
}

INLINE vec larger(vec a, vec b) { return choose(b > a, b, a); }

// Of each query of a block: the largest score so far, Σ exp(score - most), and the factor by which the last block of keys
// changed what was summed before it.
typedef struct {
    A most[OWN] ALIGNED, total[OWN] ALIGNED, keep[OWN] ALIGNED;
} Running;

// Replace scores by exp(score·scale - most). Where `causal`, query i sees the keys up to number i + shift; scores of later
// keys are left as they are, or become 0.
INLINE void exponentiate(A *scores, Running *run, A scale, index owns, index others, int causal, index shift) {
    const vec lowest = all(-(A)__builtin_inf());
    for (index i = 0; i < owns; i += LANES) {
        A *const column = scores + i;
        const index seen = causal ? within(i + LANES + shift, others) : others;
        if (causal)
            for (index key = most(i + shift + 1, 0); key < seen; ++key)
                store_sums(column + key * OWN,
                           choose(first_lanes(key - i - shift), lowest, load_sums(column + key * OWN)));
        vec highest = lowest, next = lowest, sum = all(0);
        for (index key = 0; key + 1 < seen; key += 2) {
            highest = larger(highest, load_sums(column + key * OWN));
            next = larger(next, load_sums(column + key * OWN + OWN));
        }
        if (seen % 2) next = larger(next, load_sums(column + (seen - 1) * OWN));
        const vec before = load_sums(run->most + i), top = larger(before, larger(highest, next) * all(scale));
        const vec center = choose(top == lowest, all(0), top); // no NaN of -inf - -inf: larger ones may come
        for (index key = 0; key < seen; ++key) {
            const vec power = vec_exp_negative(load_sums(column + key * OWN) * all(scale) - center);
            store_sums(column + key * OWN, power);
            sum += power;
        }
        const vec keep = vec_exp_negative(before - center);
        store_sums(run->most + i, top);
        store_sums(run->keep + i, keep);
        store_sums(run->total + i, load_sums(run->total + i) * keep + sum);
    }
}

// y and log Σ exp(score) of each query; NaN where all its scores are -inf. An item is a block of a head's queries.
KERNEL(attention)(const T *q /* heads * length * depth */, const T *k /* heads * length * depth */,
                  const T *v /* heads * length * depth */, T *y /* heads * length * depth */,
                  A *log_sums /* heads * length */, A *scratch /* threads * room */, double scale, index heads,
                  index length, index depth, int causal, index room, index threads, index thread, index first,
                  index last) {
    const index padded = (depth + LANES - 1) / LANES * LANES, blocks = (length + OWN - 1) / OWN;
    A *const turned = scratch + thread * room, *const sums = turned + OWN * padded;
    A *const key_room = sums + OWN * padded, *const value_room = key_room + OTHER * padded;
    Scores weights;
    for (index item = first; item < last; ++item) {
        const index start = item / blocks * length, query = item % blocks * OWN, owns = least(OWN, length - query);
        const index at = (start + query) * depth, keys = causal ? query + owns : length;
        Running run;
        for (int i = 0; i < OWN; ++i) run.most[i] = -(A)__builtin_inf(), run.total[i] = 0;
        turn(turned, q + at, depth, owns);
        __builtin_memset(sums, 0, owns * padded * sizeof(A));
        for (index key = 0; key < keys; key += OTHER) {
            const index others = least(OTHER, keys - key), from = (start + key) * depth, shift = query - key;
            const A *key_rows = rows_in(key_room, k + from, depth, padded, others);
            const A *value_rows = rows_in(value_room, v + from, depth, padded, others);
            multiply_scores(weights, key_rows, padded, turned, depth, others, owns,
                            (Seen){causal ? FROM : ALL, -shift});
            exponentiate(weights, &run, (A)scale, owns, others, causal, shift);
            const Product weighted = {.a = weights, .a_row = 1, .a_depth = OWN, .b = value_rows, .b_depth = padded,
                                      .c = sums, .c_row = padded, .depth = others, .adds = 1, .keep = run.keep,
                                      .seen = {causal ? UP_TO : ALL, shift}};
            multiply_all(weighted, owns, padded);
        }
        write_rows(y + at, sums, run.total, depth, padded, owns);
        for (index i = 0; i < owns; i += LANES) {
            const vec total = load_sums(run.total + i), logarithm = load_sums(run.most + i) + vec_log(total);
            store_sums(run.total + i, choose(total > all(0), logarithm, total / total));
        }
        __builtin_memcpy(log_sums + start + query, run.total, owns * sizeof(A));
    }
    (void)heads, (void)threads;
}

INLINE A mean_of(const T *dy, const T *y, index depth) {
    vec sum = all(0);
    for (index d = 0; d < depth; d += LANES) {
        const index some = least(LANES, depth - d);
        sum += load_up_to(dy + d, some) * load_up_to(y + d, some);
    }
    UNROLL for (int half = LANES / 2; half > 0; half /= 2)
        UNROLL for (int i = 0; i < half; ++i) sum[i] += sum[i + half];
    return sum[0];
}

// The gradients of whole heads: of values Σ p·dy, of keys Σ ds·q, and of queries Σ ds·k, with p = exp(score - log sum)
// and ds = p·(dy·v - dy·y)·scale.
KERNEL(attention_backward)(const T *dy /* heads * length * depth */, const T *q /* heads * length * depth */,
                           const T *k /* heads * length * depth */, const T *v /* heads * length * depth */,
                           const T *y /* heads * length * depth */, const A *log_sums /* heads * length */,
                           T *dq /* heads * length * depth */, T *dk /* heads * length * depth */,
                           T *dv /* heads * length * depth */, A *scratch /* threads * room */, double scale,
                           index heads, index length, index depth, int causal, index room, index threads, index thread,
                           index first, index last) {
    const index padded = (depth + LANES - 1) / LANES * LANES, block = OWN * padded, other = OTHER * padded;
    A *const keys = scratch + thread * room, *const values = keys + block, *const key_room = values + block;
    A *const key_sums = key_room + block, *const value_sums = key_sums + block, *const query_room = value_sums + block;
    A *const slope_room = query_room + other, *const query_sums = slope_room + other;
    A *const means = query_sums + length * padded;
    Scores weights, slopes; // p and ds
    for (index head = first; head < last; ++head) {
        const index start = head * length;
        __builtin_memset(query_sums, 0, length * padded * sizeof(A));
        for (index i = 0; i < length; ++i) means[i] = mean_of(dy + (start + i) * depth, y + (start + i) * depth, depth);
        for (index key = 0; key < length; key += OWN) {
            const index owns = least(OWN, length - key), from = (start + key) * depth;
            const A *key_rows = rows_in(key_room, k + from, depth, padded, owns);
            turn(keys, k + from, depth, owns);
            turn(values, v + from, depth, owns);
            __builtin_memset(key_sums, 0, 2 * block * sizeof(A));
            for (index query = causal ? key : 0; query < length; query += OTHER) {
                const index others = least(OTHER, length - query), at = (start + query) * depth, shift = query - key;
                const A *rows = rows_in(query_room, q + at, depth, padded, others);
                const A *slope_rows = rows_in(slope_room, dy + at, depth, padded, others);
                const Seen seen = {causal ? UP_TO : ALL, shift}, seeing = {causal ? FROM : ALL, -shift};
                multiply_scores(weights, rows, padded, keys, depth, others, owns, seen);
                multiply_scores(slopes, slope_rows, padded, values, depth, others, owns, seen);
                for (index i = 0; i < others; ++i) {
                    const vec log_sum = all(log_sums[start + query + i]), mean = all(means[query + i]);
                    for (index j = 0; j < (causal ? least(owns, i + shift + 1) : owns); j += LANES) {
                        A *weight = weights + i * OWN + j, *slope = slopes + i * OWN + j;
                        const vec p = vec_exp(load_sums(weight) * all((A)scale) - log_sum);
                        store_sums(weight, p);
                        store_sums(slope, p * (load_sums(slope) - mean) * all((A)scale));
                    }
                }
                Product p = {.a = weights, .a_row = 1, .a_depth = OWN, .b = slope_rows, .b_depth = padded,
                             .c = value_sums, .c_row = padded, .depth = others, .adds = 1, .seen = seeing};
                multiply_all(p, owns, padded);
                p.a = slopes, p.b = rows, p.c = key_sums;
                multiply_all(p, owns, padded);
                p.a_row = OWN, p.a_depth = 1, p.b = key_rows, p.c = query_sums + query * padded;
                p.depth = owns, p.seen = seen;
                multiply_all(p, others, padded);
            }
            write_rows(dk + from, key_sums, 0, depth, padded, owns);
            write_rows(dv + from, value_sums, 0, depth, padded, owns);
        }
        write_rows(dq + start * depth, query_sums, 0, depth, padded, length);
    }
    (void)heads, (void)threads;
}
