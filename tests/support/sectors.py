"""Count the 32-byte sectors that a warp's request for global memory touches, by kernel, on representative shapes.

A request of 32 lanes for neighboring numbers of 4 bytes touches 4 sectors; of 8 bytes, 8; for 16 bytes each, 16. The
emulated CUDA device counts them in its COUNT mode. As a program on it, this prints the figures; with ``--write`` it
writes them to the table ``tests/cuda/sectors.json``, and keeps the reasons there.
"""

import json
import sys
from pathlib import Path

import numpy as np

import backend
from backend import asarray, random
from kernels import (
    affine,
    attention,
    batch_norm,
    batch_norm_backward,
    batch_statistics,
    dropout,
    embedding,
    max_pooling,
    pooling,
    softmax,
    totals,
)
from kernels.col2im import col2im
from kernels.convolution import convolution, convolution_backward_input, convolution_backward_weight
from kernels.core.layout import as_nchw
from kernels.core.window import Window
from kernels.gru import gru_step, gru_step_backward
from kernels.im2col import im2col
from kernels.layer_norm import layer_norm, layer_norm_backward
from kernels.lstm import lstm_step, lstm_step_backward
from kernels.sums import column_sums, square_sum
from tests.support.fresh import counted

TABLE = Path(__file__).parents[1] / "cuda" / "sectors.json"
KINDS = ("load", "store", "atomic")


def cases():
    """Yield (description, kernels, call), in float32 with channels-last images."""
    same, halving, overlapping, five = Window(3, 1, 1), Window(2, 2), Window(3, 2, 1), Window(5)
    x, odd, gray = (_images(1, *shape) for shape in ((64, 16, 16), (33, 15, 15), (1, 28, 28)))
    yield "3x3 of 64 channels", ["im2col_hwc"], lambda: im2col(x, same, "HWC")
    yield "3x3 of 33 channels", ["im2col_hwc"], lambda: im2col(odd, same, "HWC")
    yield "5x5 of one channel", ["im2col_hwc"], lambda: im2col(gray, five, "HWC")
    yield "5x5 of one channel", ["im2col_chw"], lambda: im2col(gray, five, "CHW")
    yield "3x3 of 64 channels", ["im2col_chw"], lambda: im2col(x, same, "CHW")
    columns = _numbers(256, 64 * 9)
    for order in ("HWC", "CHW"):
        words = f"3x3 of 64 channels, columns in the order {order}"
        yield words, ["col2im_gather"], lambda order=order: col2im(columns, x.shape, same, order)
        yield words, ["col2im_scatter"], lambda order=order: col2im(columns, x.shape, same, order, "scatter")
    apart = _numbers(64, 64 * 4)
    yield "2x2 of 64 channels", ["col2im_scatter_plain"], lambda: col2im(apart, x.shape, halving, "HWC", "scatter")
    y, argmax = max_pooling.max_pool(x, halving)
    yield "2x2 of 64 channels", ["max_pool"], lambda: max_pooling.max_pool(x, halving)
    yield (
        "2x2 of 64 channels",
        ["max_pool_backward_scatter"],
        lambda: max_pooling.max_pool_backward(y, argmax, x.shape, halving),
    )
    dy, winners = max_pooling.max_pool(x, overlapping)
    yield (
        "3x3, stride 2, of 64 channels",
        ["max_pool_backward_gather"],
        lambda: max_pooling.max_pool_backward(dy, winners, x.shape, overlapping),
    )
    yield "2x2 of 64 channels", ["average_pool"], lambda: pooling.average_pool(x, halving)
    yield "2x2 of 64 channels", ["average_pool_backward"], lambda: pooling.average_pool_backward(y, x.shape, halving)
    yield from _batch_norm_cases()
    yield from _softmax_cases()
    yield from _layer_norm_cases()
    yield from _depthwise_cases()
    yield from _attention_cases()
    yield from _recurrent_cases()
    flat, *matrices = _numbers(4096 * 64), _numbers(4096, 64), _numbers(4096, 3)
    yield "262144", ["square_ranges"], lambda: square_sum(flat)
    for tall in matrices:
        yield f"4096x{tall.shape[1]}", ["sum_ranges", "sum_partials"], lambda tall=tall: column_sums(tall)
    yield "64x1024", ["dropout_mask"], lambda: dropout.dropout_mask((64, 1024), 0.5)
    yield from _cases_between_products()


def _batch_norm_cases():
    for channels in (64, 16):
        x, of_columns = _numbers(2048, channels), _numbers(channels)
        mean, variance = batch_statistics.batch_statistics(x)
        words = f"2048 pixels of {channels} channels"
        kernels = [f"batch_norm_{stage}" for stage in ("moments", "statistics")]
        yield words, kernels, lambda x=x: batch_statistics.batch_statistics(x)
        arguments = (x, mean, variance, of_columns, of_columns, 1e-5)
        yield words, ["batch_norm_normalize"], lambda arguments=arguments: batch_norm.normalize(*arguments)
        kernels = [f"batch_norm_{stage}" for stage in ("products", "backward")]
        given = (x, x, mean, variance, of_columns)
        yield words, kernels, lambda given=given: batch_norm_backward.normalize_backward(*given)
        fixed = batch_norm_backward.normalize_backward_fixed
        yield words, ["batch_norm_parameter_gradients"], lambda given=given, fixed=fixed: fixed(*given)
        trained = (x, of_columns, of_columns, mean, variance, 1e-5, 0.9)
        yield words, ["batch_norm_forward"], lambda trained=trained: batch_norm.batch_norm(*trained)
        cut = batch_statistics.in_ranges(512 * 8, channels, 8)
        ranges = batch_statistics.Moments(_numbers(512, channels), _numbers(512, channels), 512 * 8, cut)
        words_of_ranges = f"512 ranges of {channels} channels"
        yield words_of_ranges, ["batch_norm_join"], lambda ranges=ranges: batch_statistics.join(ranges, 16)
        added = (*trained, True, x)
        yield words, ["batch_norm_forward_added"], lambda added=added: batch_norm.batch_norm(*added)


def _softmax_cases():
    for rows, classes in ((256, 10), (64, 1000)):
        scores, targets = _numbers(rows, classes), _numbers(rows, classes)
        labels = asarray(np.arange(rows, dtype="int32") % classes)
        words = f"{rows} rows of {classes} classes"
        yield words, ["softmax"], lambda x=scores: softmax.softmax(x)
        for of, t in (("indices", labels), ("soft_targets", targets)):
            kernels = [f"cross_entropy_of_{of}", *(["mean_loss"] if of == "indices" and rows > 64 else [])]
            yield words, kernels, lambda x=scores, t=t: softmax.softmax_cross_entropy(x, t)
            kernels = [f"cross_entropy_backward_of_{of}"]
            yield words, kernels, lambda x=scores, t=t: softmax.softmax_cross_entropy_backward(x, t)


def _layer_norm_cases():
    gamma, beta = _numbers(192), _numbers(192)
    x, dy = _numbers(256, 192), _numbers(256, 192)
    _, normalized, inverse = layer_norm(x, gamma, beta, 1e-5)
    yield "256 rows of 192", ["layer_norm"], lambda: layer_norm(x, gamma, beta, 1e-5)
    kernels = ["layer_norm_backward", "layer_norm_products"]
    yield "256 rows of 192", kernels, lambda: layer_norm_backward(dy, normalized, inverse, gamma)


def _depthwise_cases():
    for channels in (64, 33):
        yield from _depthwise_of(_images(1, channels, 16, 16), _numbers(channels, 1, 3, 3))


def _depthwise_of(x, weight):
    window, groups = Window(3, 1, 1), len(weight)
    words = f"3x3 of {groups} channels"
    yield words, ["depthwise"], lambda: convolution(x, weight, None, window, groups)
    backward = [lambda: convolution_backward_input(x, weight, x.shape, window, groups)]
    backward += [lambda: convolution_backward_weight(x, x, weight.shape, window, groups)]
    for of, call in zip(("input", "weight"), backward, strict=True):
        yield words, [f"depthwise_backward_{of}"], call


def _cases_between_products():
    matrix, mask, vector = _numbers(64, 1024), dropout.dropout_mask((64, 1024), 0.5), _numbers(1024)
    yield "64x1024", ["dropout"], lambda: dropout.dropout(matrix, 0.5)
    yield "64x1024", ["add_bias"], lambda: affine.add_bias(matrix, vector, relu=True)
    yield "64x1024", ["bias_gradient"], lambda: affine.bias_gradient(matrix, mask, vector)
    rows, indices, of_rows = _numbers(256, 64), asarray(np.arange(256, dtype="int32") * 7 % 65), _numbers(65, 64)
    yield "256 rows of 64 of 65", ["rows_of_indices", "gather_rows"], lambda: embedding.embedding(of_rows, indices)
    yield (
        "256 rows of 64 of 65",
        ["sort_by_row", "sum_sorted"],
        lambda: embedding.embedding_backward(rows, indices, of_rows),
    )
    scores, labels, sums = _numbers(256, 10), asarray(np.arange(256, dtype="int32") % 10), backend.xp.zeros(3)
    yield "256 rows of 10 classes", ["add_to_totals"], lambda: totals.add_to_totals(sums, vector[0], scores, labels)


def _attention_cases():
    q, k, v, dy = (_numbers(1, 2, 128, 64) for _ in range(4))
    y, log_sums = attention.attention(q, k, v)
    words = "2 heads of 128 rows of 64"
    yield words, ["attention"], lambda: attention.attention(q, k, v)
    kernels = [f"attention_backward_{of}" for of in ("queries", "keys")]
    yield words, kernels, lambda: attention.attention_backward(dy, q, k, v, y, log_sums)


def _recurrent_cases():
    words, unit = "64 samples of 128 units", (64, 128)
    a, b, c, d, dout, dh, dc = (_numbers(*unit) for _ in range(7))
    wide = [_numbers(64, 4 * 128) for _ in range(3)]
    yield words, ["lstm"], lambda: lstm_step(wide[0], wide[1], a, wide[2], b, c, d)
    yield words, ["lstm_backward"], lambda: lstm_step_backward(dout, dh, dc, wide[2], a, c, wide[0])
    three = [_numbers(64, 3 * 128) for _ in range(3)]
    yield words, ["gru"], lambda: gru_step(three[0], three[1], a, three[2], b, d)
    yield words, ["gru_backward"], lambda: gru_step_backward(dout, dh, dc, three[2], b, a, three[0], three[1])


def _numbers(*shape):
    return random.uniform(shape)


def _images(n, c, h, w):
    return as_nchw(_numbers(n, h, w, c))


def measure():
    """Return {"kernel: case": {"load": sectors a request, …}} for the kinds of access that a kernel has."""
    import cuda_on_cpu

    found = {}
    with backend.use("cuda"):
        for words, kernels, call in cases():
            cuda_on_cpu.reset()
            call()
            for name in kernels:
                kernel = cuda_on_cpu.kernels()[name]
                found[f"{name}: {words}"] = {
                    kind: round(kernel[f"{kind}_sectors"] / kernel[f"{kind}_requests"], 2)
                    for kind in KINDS
                    if kernel[f"{kind}_requests"]
                }
    return found


def figures():
    """Return the result of ``measure`` from a new process."""
    return json.loads(counted("sectors"))


def main():
    found = measure()
    if sys.argv[1:] == ["--write"]:
        old = json.loads(TABLE.read_text()) if TABLE.exists() else {}
        table = {case: kinds | {"reason": old.get(case, {}).get("reason", "")} for case, kinds in found.items()}
        lines = ",\n".join(f"  {json.dumps(case)}: {json.dumps(entry)}" for case, entry in table.items())
        TABLE.write_text(f"{{\n{lines}\n}}\n")
    else:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
