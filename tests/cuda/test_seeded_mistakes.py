"""The checks on the host find mistakes: each is put into the source of a kernel, and must be found."""

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

from kernels import col2im, max_pooling
from kernels.core.geometry import Geometry
from kernels.core.window import Window
from tests.support import host_kernels
from tests.support import kernel_operations as run
from tests.support.checks import assert_same, normal, whole
from tests.support.host_kernels import MEMORY, RACES

pytestmark = pytest.mark.skipif(not host_kernels.available(), reason=host_kernels.MISSING)


class Mistake(NamedTuple):
    """``new`` in place of the first ``old`` in a file; words is what a sanitizer says, or None for wrong numbers."""

    operation: Callable
    file: str
    old: str
    new: str
    words: str | None = None


_COLUMNS = "for (int w = columns.begin; w < columns.end; ++w)"
_REUSE = "__syncthreads(); /* before anyone writes to of_warp again */"
_SHUFFLE = "value = combine(value, __shfl"
_MOMENTS = "own[k].squares;\n        }\n        __syncthreads();"
_ADDED = "+ t] = own[k];\n        __syncthreads();"
_SUMMED = "sums[t] = own;\n        __syncthreads();"
_BEYOND = "heap-buffer-overflow"

MISTAKES = {
    "index one too far": Mistake(
        run.max_pool, "pooling.cu", "+ at.channel) * MANY);", "+ at.channel + 1) * MANY);", _BEYOND
    ),
    "loop one too long": Mistake(run.scatter, "col2im.cu", "i < (count)", "i <= (count)", _BEYOND),
    "upper bound left out": Mistake(run.gather, "col2im.cu", " && start.window < windows", "", _BEYOND),
    "lower bound left out": Mistake(run.gather, "col2im.cu", " && start.window >= 0", ""),
    "remainder left out": Mistake(run.average_pool_backward, "pooling.cu", "start.rest == 0 && ", ""),
    "borrow left out": Mistake(run.max_pool_backward, "pooling.cu", "--start.window;", ""),
    "bound one too far": Mistake(run.max_pool, "pooling.cu", "w >= g.width", "w > g.width"),
    "first pixel left out": Mistake(run.max_pool, "pooling.cu", "w < 0 ||", "w <= 0 ||"),
    "last maximum wins": Mistake(run.max_pool, "pooling.cu", "value > best[k]", "value >= best[k]"),
    "NaN loses": Mistake(run.max_pool, "pooling.cu", "(value != value && best[k] == best[k])", "false"),
    "taps descending": Mistake(
        run.gather, "col2im.cu", "int b = 0; b < g.kernel_width; ++b", "int b = g.kernel_width - 1; b >= 0; --b"
    ),
    "set instead of added": Mistake(run.max_pool_backward, "pooling.cu", "sum[k] += widen(", "sum[k] = widen("),
    "a zero's sign": Mistake(run.scatter, "col2im.cu", "narrow(0 + widen", "narrow(widen"),
    "losers not written": Mistake(
        run.max_pool_backward, "pooling.cu", _COLUMNS, f"{_COLUMNS} if (h * g.width + w == winner[0])"
    ),
    "gaps not written": Mistake(run.max_pool_backward, "pooling.cu", "end = begin + stride;", "end = begin + 1;"),
    "edge not written": Mistake(run.max_pool_backward, "pooling.cu", "window == windows - 1 || ", ""),
    "no atomic": Mistake(
        run.scatter, "col2im.cu", "atomicAdd(&image[target], widen(columns[i]))", "image[target] += widen(columns[i])",
        "data race",
    ),
    "no barrier": Mistake(
        run.batch_normalization, "batch_norm.cu", _MOMENTS, _MOMENTS.replace("__syncthreads();", ""), "data race"
    ),
    "no barrier in the gradients' sums": Mistake(
        run.batch_normalization, "batch_norm_backward.cu", _ADDED, _ADDED.replace("__syncthreads();", ""), "data race"
    ),
    "no barrier after a broadcast": Mistake(
        run.batch_normalization_with_relu, "batch_norm.cu",
        "__syncthreads();\n        pass_of(by, x, bypass", "pass_of(by, x, bypass", "data race",
    ),
    "another lane's column": Mistake(
        run.batch_normalization_with_relu, "batch_norm.cu", "by.center[at.column + k]", "by.center[k]"
    ),
    "statistics of the last range": Mistake(
        run.batch_normalization_with_relu, "batch_norm.cu", "range < ranges - 1 ? range_rows : last_rows", "range_rows"
    ),
    "ranges of the pass": Mistake(
        run.batch_normalization_with_relu, "batch_norm.cu", "rows - (ranges - 1) * range_rows",
        "rows - (ranges - 1) * pass_rows",
    ),
    "ranges of another group": Mistake(
        run.joined_ranges, "batch_norm.cu", "width, at.begin, at.end, ranges", "width, 0, at.end, ranges"
    ),
    "place of a group": Mistake(
        run.joined_ranges, "batch_norm.cu", "at.begin / together * channels", "at.lane * channels"
    ),
    "variance moves the running mean": Mistake(
        run.batch_normalization_with_relu, "batch_norm.cu", "rounded_product(own.mean, rest)",
        "rounded_product(variance, rest)",
    ),
    "every range moves the running statistics": Mistake(
        run.batch_normalization_with_relu, "batch_norm.cu",
        "if (at.begin == 0) {\n                mean[c]", "{\n                mean[c]",
    ),
    "every other row": Mistake(
        run.batch_normalization_with_relu, "batch_norm.cu", "row += at.step", "row += 2 * at.step"
    ),
    "no bypass": Mistake(
        run.batch_normalization_with_relu, "batch_norm.cu", "value + widen(added.at[k])", "value"
    ),
    "no ReLU": Mistake(run.batch_normalization_with_relu, "batch_norm.cu", "if (relu && value <= 0) value = 0;", ""),
    "a mask of all": Mistake(
        run.batch_normalization_with_relu, "batch_norm.cu", "above.at[k] = value > 0;", "above.at[k] = 1;"
    ),
    "gradient of the normalization alone": Mistake(
        run.batch_normalization_with_relu, "batch_norm_backward.cu", "return relu && !(", "return false && !("
    ),
    "mask without shift": Mistake(
        run.batch_normalization_with_relu, "batch_norm_backward.cu", "stored(normalized(x, center, scale, shift)) > 0",
        "stored(normalized(x, center, scale, 0)) > 0",
    ),
    "bias of the next column": Mistake(run.affine_parts, "affine.cu", "bias[i % columns]", "bias[(i + 1) % columns]"),
    "mask before the bias": Mistake(
        run.affine_parts, "affine.cu", "positive[i] = value > 0;", "positive[i] = widen(y[i]) > 0;"
    ),
    "bias gradient without the mask": Mistake(
        run.affine_parts, "affine.cu", "sum += widen(upstream);", "sum += widen(dy[i]);"
    ),
    "columns beyond the last": Mistake(
        run.affine_parts, "affine.cu", "t < WIDTH && column < columns", "t < WIDTH", _BEYOND
    ),
    "a lane left out": Mistake(run.affine_parts, "affine.cu", "half >= WIDTH;", "half > WIDTH;"),
    "numbers beyond the last": Mistake(run.dropped, "philox.cu", "4 * i + 4 <= count", "4 * i < count", _BEYOND),
    "bytes in another order": Mistake(run.dropped, "philox.cu", "mask >> 8 * k & 1)", "mask >> (24 - 8 * k) & 1)"),
    "scaled, not dropped": Mistake(
        run.dropped, "philox.cu", "four.numbers[k] = T{};", "narrow(0 * widen(four.numbers[k]), four.numbers[k]);"
    ),
    "losses before the end": Mistake(
        run.cross_entropy, "softmax.cu", "sum = group_sum(sum, blockDim.x);\n    if (threadIdx.x == 0) loss",
        "if (threadIdx.x == 0) loss",
    ),
    "one loss for all": Mistake(run.cross_entropy, "softmax.cu", "else sum += own;", "else sum = own;"),
    "no scale": Mistake(run.cross_entropy, "softmax.cu", "scales ? scale[0] : number", "(ACC)1"),
    "last of equal probabilities": Mistake(run.epoch_totals, "totals.cu", "value > best ||", "value >= best ||"),
    "NaN is not the largest": Mistake(run.epoch_totals, "totals.cu", "(value != value && best == best)", "false"),
    "upper word of a label": Mistake(
        run.epoch_totals, "totals.cu", "label_words == 1 || labels[row * label_words + 1] == 0", "true"
    ),
    "counts before the barrier": Mistake(run.epoch_totals, "totals.cu", "__syncthreads();", "", "data race"),
    "no barrier before reuse": Mistake(run.cross_entropy_of_soft_targets, "softmax.cu", _REUSE, "", "data race"),
    "places of a row in another order": Mistake(run.embedding_rows, "embedding.cu", "&& j < i)", "&& j > i)"),
    "a row's last place left out": Mistake(
        run.embedding_rows, "embedding.cu", "k < places && ordered[k] == row", "k + 1 < places && ordered[k] == row"
    ),
    "places beyond the last": Mistake(
        run.embedding_rows, "embedding.cu", "k < places && ordered[k] == row", "ordered[k] == row", _BEYOND
    ),
    "every place writes its row": Mistake(
        run.embedding_rows, "embedding.cu", "(place > 0 && ordered[place - 1] == row)", "false", "data race"
    ),
    "lower word of an index alone": Mistake(run.embedding_rows, "embedding.cu", "indices[i * words];", "indices[i];"),
    "barrier for one": Mistake(
        run.batch_normalization, "batch_norm.cu", _MOMENTS, _MOMENTS.replace("__", "if (t == 0) __")
    ),
    "shuffle for half a warp": Mistake(
        run.cross_entropy, "softmax.cu", _SHUFFLE, f"if (threadIdx.x % 32 < 16) {_SHUFFLE}"
    ),
    "a wrong constant": Mistake(run.dropout_mask, "philox.cu", "0xCD9E8D57u", "0xCD9E8D58u"),
    "signed overflow": Mistake(
        run.im2col_hwc, "im2col.cu", "digit += step + carry;", "digit += step + carry + 2147483647;", "overflow"
    ),
}  # fmt: skip

_ADDED = "own += sums[t + half * width];\n        __syncthreads();"
_RANGE_END = "length - begin < range_rows ? length : begin + range_rows"

MISTAKES |= {
    f"sums: {name}": Mistake(run.sums_of, "sums.cu", old, new, words)
    for name, old, new, words in (
        ("no barrier", _SUMMED, "sums[t] = own;", "data race"),
        ("no barrier before reuse", _ADDED, _ADDED.partition("\n")[0], "data race"),
        ("barrier for some", _SUMMED, _SUMMED.replace("__", "if (lane < half) __", 1), None),
        ("last range too long", _RANGE_END, "begin + range_rows", _BEYOND),
        ("lanes left out", "half = lanes / 2", "half = lanes / 4", None),
        ("another column's sum", "sums[t + half * width]", "sums[t + half]", None),
        ("column not checked", "column < inner && place < outer", "place < outer", _BEYOND),
        ("place not checked", "column < inner && place < outer", "column < inner", _BEYOND),
        ("ranges on each other", "place * ranges + range", "place + range / ranges", None),
        ("sum, not squares", "return value * value;", "return value;", None),
        ("not divided", "narrow(sum / divisor", "narrow(sum", None),
    )
}


MISTAKES |= {
    f"layer norm: {name}": Mistake(run.layer_norm_of, "layer_norm.cu", old, new, words)
    for name, old, new, words in (
        ("mean of a lane", "mean = group_sum(sum, group) / size", "mean = sum / size", None),
        ("squares of the numbers", "difference = widen(numbers[k]) - mean", "difference = widen(numbers[k])", None),
        ("no epsilon", "/ size + epsilon", "/ size", None),
        ("rows past the end", "if (!lasting) continue;", "", "data race"),
        ("numbers of the first row", "normalized + row * size", "normalized", None),
        ("no mean of the gradient", "scaled - level - unit", "scaled - unit", None),
        ("gradient without scale", "* inverse[row], dx", ", dx", None),
        ("products of the numbers alone", "widen(dy[i]) * normalized[i]", "normalized[i]", None),
        ("lanes of another row", "k += group) sum += widen(numbers[k])", "k += 32) sum += widen(numbers[k])", None),
    )
}

MISTAKES |= {
    f"depthwise: {name}": Mistake(run.depthwise_images, "depthwise.cu", old, new, words)
    for name, old, new, words in (
        ("channel of the filter", "x + f / multiplier", "x + f % g.channels", None),
        ("taps of the first filter", "* filters + f);", "* filters);", None),
        ("a last row of padding", "h >= g.height) continue;", "h > g.height) continue;", None),
        ("no bias", "has_bias ? sum[k] + widen(bias[f + k]) : sum[k]", "sum[k]", None),
        ("no ReLU", "if (has_relu && rounded <= 0)", "if (false)", None),
        ("a mask of all", "above.at[k] = rounded > 0;", "above.at[k] = 1;", None),
        ("the first filter of a channel", "* MANY * multiplier + m;", "* MANY * multiplier;", None),
        ("windows beyond the last", "exists(x, g.out_width)", "exists(x, g.out_width + 1)", None),
        ("taps of a column", "(int)tap - a * g.kernel_width", "(int)tap * 0", None),
        ("pixels of another channel", "+ column / multiplier", "+ column % g.channels", None),
        ("pixels of the border", "w >= g.width) return", "w > g.width) return", None),
    )
}


_MORE_KEYS = "causal && first + of_block < length ? first + of_block : length"

MISTAKES |= {
    f"attention: {name}": Mistake(run.attention_of, "attention.cu", old, new, words)
    for name, old, new, words in (
        ("a later key is seen", "key + lane <= row + r", "key + lane <= row + r + 1", None),
        ("a key is hidden from its own query", "j <= edge : j >= edge", "j <= edge : j > edge", None),
        ("sums of the maximum before", "sums[r][span] *= kept;", "sums[r][span] *= 1;", None),
        ("total of the maximum before", "total[r] * kept", "total[r]", None),
        ("keys beyond the last", "key + lane < length &&", "", None),
        ("queries beyond the last", "const bool exists = query + lane < length;", "const bool exists = true;", _BEYOND),
        ("rows beyond the last", "if (row + r < head.length && d", "if (d", _BEYOND),
        ("columns beyond the last", "&& d < head.depth)", ")", None),
        ("the first keys alone", _MORE_KEYS, "first + of_block < length ? first + of_block : length", None),
        ("no barrier before reuse", "__syncthreads(); /* before anyone writes to the tile again */", "", "data race"),
        ("no mean slope", "(slopes[r] - mean[r])", "slopes[r]", None),
        ("columns of the first span", "column + span * LANES, tile)", "column, tile)", None),
    )
}

MISTAKES |= {
    f"recurrent: {name}": Mistake(run.recurrent_steps, file, old, new, words)
    for name, file, old, new, words in (
        ("gates of the sample before", "lstm.cu", "at / hidden * 4 * hidden + at % hidden;\n        ACC gate[4];",
         "at * 4;\n        ACC gate[4];", None),
        ("dh at the last step", "lstm.cu", "later ? widen(dh[at]) : (ACC)0", "widen(dh[at])", _BEYOND),
        ("cells forgotten", "lstm.cu", "narrow(dcell * f, dc[at])", "narrow(dcell, dc[at])", None),
        ("reset behind tanh", "gru.cu", "tanh(widen(of_inputs[of_n]) + r * widen(of_states[of_n]))",
         "r * tanh(widen(of_inputs[of_n]) + widen(of_states[of_n]))", None),
        ("nothing carried", "gru.cu", "narrow(dh * z, carried[at])", "narrow(0 * dh, carried[at])", None),
    )
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_found(name):
    mistake = MISTAKES[name]
    operation = next(each for each in run.OPERATIONS if each.run is mistake.operation)
    watch = RACES if mistake.words == "data race" else MEMORY
    mutant = host_kernels.Program(mistake.file, watch, edits=[(mistake.old, mistake.new)])
    programs = {mistake.file: mutant}

    def check():
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.closing(mutant))

            def program(file):
                if file not in programs:
                    programs[file] = stack.enter_context(contextlib.closing(host_kernels.Program(file, watch)))
                return programs[file]

            wrong = None
            for case in run.EXAMPLES:
                try:
                    run.check(operation, case, program, seed=case.seed, block=64)
                except AssertionError as error:
                    if isinstance(error, host_kernels.SanitizerError) or not mistake.words:
                        raise
                    wrong = error  # a race can give wrong numbers where the sanitizer missed it: the next case may tell
            if wrong:
                raise wrong

    with pytest.raises(AssertionError) as found:
        check()
    if mistake.words:
        assert isinstance(found.value, host_kernels.SanitizerError)
        assert mistake.words in str(found.value)


def on_host(file, watch, operation):
    """Return the results of an operation with the kernels of an unchanged file."""
    with contextlib.closing(host_kernels.Program(file, watch)) as program, host_kernels.on_host(lambda _: program):
        return operation()


def test_columns_stored_where_windows_overlap_are_found(monkeypatch):
    columns = whole((2 * 9, 3 * 4))
    scatter = lambda: col2im.col2im(columns, (2, 3, 4, 4), Window(2), "HWC", "scatter")  # noqa: E731
    right = scatter()
    assert_same(on_host("col2im.cu", MEMORY, scatter), right)
    monkeypatch.setattr(Geometry, "overlaps", False)
    with pytest.raises(AssertionError, match="differ, first at"):
        assert_same(on_host("col2im.cu", MEMORY, scatter), right)
    with pytest.raises(host_kernels.SanitizerError, match="data race"):
        on_host("col2im.cu", RACES, scatter)


def test_gradients_stored_where_windows_overlap_are_found(monkeypatch):
    dy, argmax = normal((1, 2, 3, 3)), np.full((1, 2, 3, 3), 5, "int32")
    backward = lambda: max_pooling.max_pool_backward(dy, argmax, (1, 2, 4, 4), Window(2))  # noqa: E731
    right = backward()
    assert_same(on_host("pooling.cu", MEMORY, backward), right)
    monkeypatch.setattr(Geometry, "overlaps", False)
    with pytest.raises(AssertionError, match="differ, first at"):
        assert_same(on_host("pooling.cu", MEMORY, backward), right)


@pytest.mark.parametrize(
    "window", [Window(2, 3), Window(2, 2), Window(2, 3, 0, 2), Window(1, 2, rounding="ceil")], ids=str
)
def test_pixels_of_no_window_left_as_they_were_are_found(window, monkeypatch):
    columns = whole((np.prod(window.over((7, 7)).output), 3 * window.kernel[0] * window.kernel[1]))
    scatter = lambda: col2im.col2im(columns, (1, 3, 7, 7), window, "CHW", "scatter")  # noqa: E731
    right = scatter()
    assert_same(on_host("col2im.cu", MEMORY, scatter), right)
    monkeypatch.setitem(vars(window.over((7, 7))), "has_gaps", False)
    with pytest.raises(AssertionError, match="differ, first at"):
        assert_same(on_host("col2im.cu", MEMORY, scatter), right)
