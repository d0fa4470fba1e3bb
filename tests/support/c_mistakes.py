"""Mistakes that ``mistakes_in_c.py`` puts into C kernels, and the tests that have to find each."""

from typing import NamedTuple


class Mistake(NamedTuple):
    """``new`` in place of the first ``old`` of a C file, or of a header that it includes; none where ``old`` is empty.

    ``tests`` are those that have to find it: a file of ``tests/kernels``, perhaps with one of its functions,
    "masking::test_any_layout". Where only a certain ``level`` of processor computes otherwise by it, it is that one's.
    """

    file: str
    old: str
    new: str
    tests: str
    level: str = ""


MISTAKES = {
    "a tail left out": Mistake("masking.c", "(; i < last; ++i)", "(; i + 1 < last; ++i)", "masking"),
    "NaN lost": Mistake(
        "activations.c", "rectified(value)", "choose(value > all(0), value, all(0))", "activations::test_relu"
    ),
    "NaN lost behind a depthwise convolution": Mistake(
        "depthwise.c", "rectified(total[v])", "choose(total[v] > all(0), total[v], all(0))",
        "depthwise::test_relu_of_a_convolution",
    ),
    "blocks of a depthwise convolution not measured": Mistake(
        "depthwise.c", "measure(&measured, block, block + 1)", "measure(&measured, block, block)",
        "convolution_measured",
    ),
    "zero is positive": Mistake(
        "activations.c", "value > all(0), own);", "value >= all(0), own);", "activations::test_relu"
    ),
    "slope of the other side": Mistake(
        "activations.c", "choose(above, value, value * factor)", "choose(above, value * factor, value)",
        "activations::test_leaky_relu",
    ),
    "last maximum wins": Mistake("max_pooling.c", "~(value <= best)", "~(value < best)", "pooling::test_who_wins"),
    "NaN loses": Mistake("max_pooling.c", "~(value <= best)", "(value > best)", "pooling::test_who_wins"),
    "NaN is beaten": Mistake("max_pooling.c", " & (best == best)", "", "pooling::test_who_wins"),
    "taps counted by height": Mistake("max_pooling.c", "a * g.kernel_width + b", "a * g.kernel_height + b", "pooling"),
    "gradient set, not added": Mistake(
        "max_pooling.c", "mask), sum + gradient, sum)", "mask), gradient, sum)", "max_pool_backward"
    ),
    "Nesterov without looking ahead": Mistake(
        "optimizers.c", "step - v_ * (A)momentum;)", "step + v_ * (A)momentum;)", "optimizers"
    ),
    "one rate for both averages": Mistake("optimizers.c", "* (A)rate2", "* (A)rate1", "optimizers"),
    "no weight decay": Mistake("optimizers.c", "step + p * (A)decay_rate", "step", "optimizers"),
    "fused, not rounded twice": Mistake("optimizers.c", "p * (A)decay + g;", "fma(p, all((A)decay), g);", "optimizers"),
    "a score's infinity counts": Mistake(
        "softmax.c", "choose(target != all(0), target * shifted, all(0))", "target * shifted",
        "softmax::test_a_class_ruled_out_by_minus_infinity_costs_nothing",
    ),
    "two lanes lost": Mistake(
        "softmax.c", "half > 0; half /= 2)\n        UNROLL for (int i = 0; i < half; ++i) value[i] +=",
        "half > 1; half /= 2)\n        UNROLL for (int i = 0; i < half; ++i) value[i] +=", "softmax",
    ),
    "one not scaled": Mistake("softmax.c", "labels[row]) - 1) * scale", "labels[row]) * scale - 1)", "softmax"),
    "no largest score": Mistake("softmax.c", "shifted = tile[k] - most;", "shifted = tile[k];", "softmax"),
    "filters not turned": Mistake(
        "convolution.c", "backward ? taps - 1 - tap : tap", "tap", "convolution::test_named_geometries"
    ),
    "bias of the first group": Mistake("convolution.c", "bias + group * own + v + k", "bias + v + k", "convolution"),
    "padding of the row before": Mistake(
        "convolution.c", "__builtin_memset(to + right * c->in, 0, (width - right) * c->in * sizeof(T));", "",
        "convolution",
    ),
    "a chunk's image": Mistake("convolution.c", "its_image * c->image_numbers", "0 * c->image_numbers", "convolution"),
    "a position's taps": Mistake(
        "convolution.c", "all.rows, met_by(columns, column + i)", "all.rows, met_by(columns, column)", "convolution"
    ),
    "measured before it is computed": Mistake(
        "convolution.c", "first < last ? first / block_lines : end;", "end;", "convolution_measured"
    ),
    "a block that is not measured": Mistake(
        "convolution.c", "measure(measured, done, computed)", "measure(measured, done + 1, computed)",
        "convolution_measured::test_moments_of_every_geometry",
    ),
    "padding of the weight's gradient": Mistake(
        "convolution_weight.c", "least(g->pad_left, columns)", "least(0 * g->pad_left, columns)",
        "convolution_weight::test_named_geometries",
    ),
    "bias gradient's last windows": Mistake(
        "convolution_weight.c", "for (; i < columns; ++i) total[0] +=", "for (; i + 1 < columns; ++i) total[0] +=",
        "convolution_weight",
    ),
    "no bias": Mistake(
        "gemm.c", "if (p->bias) value += load(p->bias + i);", "",
        "gemm_native::test_every_tail_is_exact_in_whole_numbers",
    ),
    "the first panel packed for all": Mistake(
        "gemm.c", "run * WIDTH, together, b", "run * WIDTH, together > 0, b",
        "gemm_native::test_every_tail_is_exact_in_whole_numbers", "v3",
    ),
    "sums of the last run alone": Mistake("gemm.c", "p.is_first = k == 0,", "p.is_first = 1,", "gemm"),
    "a quarter of the squares": Mistake("sums.c", "(sum[0] + sum[1]) + (sum[2] + sum[3])", "sum[0] + sum[1]",
                                       "sums::test_squares_of_every_size"),
    "gradient without the mask": Mistake("affine.c", "choose(load_mask(positive + at), load(dy + at), all(0))",
                                         "load(dy + at)", "affine::test_gradients_behind_the_relu"),
    "variance by the sum": Mistake("layer_norm.c", "deviation * deviation;", "deviation;", "layer_norm::test_rows"),
    "rows not cleared": Mistake(
        "embedding.c", "(last - first) * size * sizeof(A)", "size * sizeof(A)", "embedding::test_every_shape"
    ),
    "a row of the range before": Mistake("embedding.c", "row < first ||", "row < first - 1 ||", "embedding"),
    "a row's last number left out": Mistake("embedding.c", "(; i < size; ++i)", "(; i + 1 < size; ++i)", "embedding"),
    "cells of the step after": Mistake(
        "lstm.c", "(dcell * load_up_to(before + at, own))", "(dcell * load_up_to(dc + at, own))",
        "recurrent_steps::test_gradients_are_their_definitions",
    ),
    "the gradient from the step after": Mistake(
        "lstm.c", "(dh ? load_up_to(dh + at, own) : all(0))", "all(0)", "recurrent_steps"
    ),
    "the reset gate left out": Mistake(
        "gru.c", "vec_tanh(a[2] + r * b[2])", "vec_tanh(a[2] + b[2])", "recurrent_steps::test_a_step_is_its_definition"
    ),
    "epsilon left out": Mistake("layer_norm.c", " + (A)epsilon", "", "layer_norm"),
    "kept and dropped": Mistake("masking.c", "kept[i] ? values[i] : 0", "kept[i] ? 0 : values[i]", "masking"),
    "sums of keys before not scaled": Mistake(
        "attention.c", "load_sums(run->total + i) * keep + sum", "load_sums(run->total + i) + sum",
        "attention::test_values",
    ),
    "one later key is seen": Mistake(
        "attention.c", ".seen = {causal ? UP_TO : ALL, shift}", ".seen = {causal ? UP_TO : ALL, shift + 1}",
        "attention_native",
    ),
    "an earlier query's gradient": Mistake(
        "attention.c", "seeing = {causal ? FROM : ALL, -shift}", "seeing = {causal ? FROM : ALL, -shift - 1}",
        "attention_native",
    ),
    "slopes without their mean": Mistake("attention.c", "(load_sums(slope) - mean)", "load_sums(slope)", "attention"),
    "nine rounds of Philox": Mistake(
        "dropout.c", "round < 10", "round < 9", "dropout::test_numbers_are_dropped_where_the_mask_says"
    ),
    "a word in another's byte": Mistake("dropout.c", "& 0x10000ull", "& 0x1000000ull", "dropout"),
    "the last block counts whole": Mistake(
        "batch_norm.c", "least(block_rows, wide - before) : 1", "block_rows : 1",
        "batch_norm::test_parts_are_put_together",
    ),
    "no bypass in the last rows": Mistake(
        "batch_norm.c", "if (bypass)\n            value = rounded(value + load_up_to(bypass + at, own));", "",
        "batch_norm::test_fixed_statistics_with_a_bypass",
    ),
    "products with x itself": Mistake(
        "batch_norm_backward.c", "number - by[j].center, product[j]", "number, product[j]",
        "batch_norm::test_parts_are_put_together",
    ),
    "a mean of gradients left in": Mistake(
        "batch_norm_backward.c", " - by.level) * by.scale", ") * by.scale", "batch_norm::test_parts_are_put_together"
    ),
    "a small cost's digits": Mistake(
        "binary_cross_entropy.c", "choose(kept == all(0), s, vec_log(sum) * (s / kept))", "vec_log(sum)",
        "binary_cross_entropy",
    ),
    "costs behind the end": Mistake(
        "binary_cross_entropy.c", "for (int lane = left; lane < LANES; ++lane) cost[lane] = 0;", "",
        "binary_cross_entropy",
    ),
    "the last row of windows left out": Mistake(
        "col2im.c", "i < place.rows; ++i)", "i + 1 < place.rows; ++i)", "col2im::test_every_geometry_to_the_bit"
    ),
    "channels side by side": Mistake(
        "col2im.c", "get(from + c * taps)", "get(from + c)", "col2im::test_every_geometry_to_the_bit"
    ),
    "the label has a margin": Mistake("hinge.c", "if (label >= 0 && label < LANES) margin[label] = 0;", "", "hinge"),
    "classes behind the last": Mistake(
        "hinge.c", "for (int lane = (int)least(left, LANES); lane < LANES; ++lane) margin[lane] = 0;", "", "hinge"
    ),
    "a dilated row is one run": Mistake(
        "im2col.c", "if (g->dilation_width == 1)", "if (1)", "im2col::test_named_geometries"
    ),
    "taps of another width": Mistake(
        "im2col.c", "(t + i) / g->kernel_width * g->dilation_height", "(t + i) / g->kernel_height * g->dilation_height",
        "im2col::test_named_geometries",
    ),
    "infinity is finite": Mistake("loss_scale.c", "value - value != all(0)", "value != value", "loss_scale"),
    "the first lanes alone": Mistake(
        "loss_scale.c", "lane < LANES; ++lane)", "lane < LANES / 2; ++lane)", "loss_scale"
    ),
    "every window counts as many": Mistake(
        "pooling.c", "weights[oh * g->out_width + ow]", "weights[0]", "pooling::test_averages_have_the_bits_of_numpy"
    ),
    "every window's gradient counts as many": Mistake(
        "pooling.c", "* weights[output]", "* weights[0]", "pooling::test_averages_have_the_bits_of_numpy"
    ),
    "half of a far error": Mistake("regression.c", "all((A)0.5) * within", "all((A)0.5) * far", "regression"),
    "a negative error is not cut off": Mistake("regression.c", "choose(e < -limit, -limit, e)", "e", "regression"),
    "no share for the label itself": Mistake(
        "soft_targets.c", "own = (A)(1 - smoothing) + share", "own = (A)(1 - smoothing)", "soft_targets"
    ),
    "weights by place, not by label": Mistake(
        "soft_targets.c", "own * get(weights + label)", "own * get(weights)", "soft_targets"
    ),
    "a factor of another point": Mistake(
        "winograd.c", "{0, 1, -1, 8, -8, 1}", "{0, 1, -1, 8, -4, 1}", "winograd::test_against_plain_loops"
    ),
    "a gradient's other point": Mistake(
        "winograd.c", "{1, -2, 4, -8}, {0", "{1, -2, 4, 8}, {0", "winograd::test_against_plain_loops"
    ),
    "gradients of Winograd's filters as outputs": Mistake(
        "winograd.c", "transform(6, 3, WEIGHT", "transform(6, 3, OUTPUT", "winograd"
    ),
}  # fmt: skip
"""By name. The first of a file is cheap to find: it is that of ``--one-each``."""
