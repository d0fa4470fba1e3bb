"""Every operation that has a CUDA kernel, as a function of one geometry, for the checks of the kernels on the host.

Each returns a tuple of NumPy arrays. The same function runs the NumPy code and, inside ``host_kernels.on_host``, the
kernel.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

import backend
from backend.graph_numbers import GraphNumbers, recording
from kernels import (
    affine,
    attention,
    batch_norm,
    batch_norm_backward,
    batch_statistics,
    col2im,
    depthwise,
    dropout,
    embedding,
    gru,
    im2col,
    layer_norm,
    lstm,
    max_pooling,
    pooling,
    softmax,
    sums,
    totals,
)
from kernels.core.dtypes import acc_dtype
from tests.support import geometries, host_kernels
from tests.support.checks import assert_same

_SPECIAL = np.array([0, 0, 1, 1, 2, -1, -2, np.inf, -np.inf, np.nan])


class DeviceLike(np.ndarray):
    """A NumPy array that has its address where CuPy's arrays have it."""

    @property
    def data(self):
        return SimpleNamespace(ptr=self.ctypes.data)


class Operation(NamedTuple):
    """An operation. If ``exact``, the kernel must give the bits of the NumPy code; otherwise ``roundings`` of the
    result's dtype, relative to its largest number, are allowed.
    """

    run: Callable[[geometries.WindowCase], tuple]
    exact: bool = True
    roundings: int = 0

    def __str__(self):
        return self.run.__name__


def _rng(case):
    return np.random.default_rng(case.seed)


def _specials(case, shape):
    """Return numbers with many ties, NaN and infinities."""
    return _rng(case).choice(_SPECIAL, shape).astype(case.dtype)


def _signed(case, shape):
    """Return numbers of every kind except NaN, with zeros of both signs."""
    return _rng(case).choice([0.0, -0.0, 0.5, -1.5, 3.25, np.inf], shape).astype(case.dtype)


def _normal(case, shape):
    return _rng(case).standard_normal(shape).astype(case.dtype)


def _whole(case, shape):
    return _rng(case).integers(-3, 4, shape).astype(case.dtype)


def _wide(case):
    """Return the case, half of the time with channels that a thread takes several of at once."""
    n, c, h, w = case.shape
    return case._replace(shape=(n, c * 8 if case.seed % 2 else c, h, w))


def _outputs(case):
    return (*case.shape[:2], *case.output)


def _columns(case):
    n, c = case.shape[:2]
    (oh, ow), (fh, fw) = case.output, case.window.kernel
    return n * oh * ow, fh * fw * c


def _pixels(case):
    n, c, h, w = case.shape
    return _specials(case, (n, h, w, c)).view(DeviceLike).transpose(0, 3, 1, 2)


def im2col_chw(case):
    return (im2col.im2col(_pixels(case), case.window, "CHW"),)


def im2col_hwc(case):
    return (im2col.im2col(_pixels(case), case.window, "HWC"),)


def gather(case):
    columns = _normal(case, _columns(case))
    return tuple(col2im.col2im(columns, case.shape, case.window, order) for order in ("CHW", "HWC"))


def scatter(case):
    """Run col2im by scatter, on integers where windows overlap: it adds in no fixed order, and sums of integers are
    exact."""
    columns = (_whole if case.window.overlaps else _signed)(case, _columns(case))
    return tuple(col2im.col2im(columns, case.shape, case.window, order, "scatter") for order in ("CHW", "HWC"))


def max_pool(case):
    case = _wide(case)
    x = _specials(case, case.shape)
    y, argmax = max_pooling.max_pool(x, case.window)
    return y, argmax, max_pooling.pool(x, case.window)[0]


def max_pool_backward(case):
    case = _wide(case)
    argmax = backend.asnumpy(max_pooling.max_pool(_whole(case, case.shape), case.window)[1])
    _, winners = max_pooling.pool(_whole(case, case.shape), case.window)
    gradients = [make(case, _outputs(case)) for make in (_normal, _signed)]
    by_argmax = (max_pooling.max_pool_backward(dy, argmax, case.shape, case.window) for dy in gradients)
    by_tap = (max_pooling.pool_backward(dy, winners, case.shape, case.window) for dy in gradients)
    return *by_argmax, *by_tap


def average_pool(case):
    x = _normal(case, case.shape)
    return tuple(pooling.average_pool(x, case.window, padding) for padding in (False, True))


def average_pool_backward(case):
    dy = _normal(case, _outputs(case))
    return tuple(pooling.average_pool_backward(dy, case.shape, case.window, padding) for padding in (False, True))


def _scores(case):
    """Return a matrix: a few classes, more than a warp has threads, or more than 1024."""
    n, c, h, w = case.shape
    return _normal(case, (n * h, c * w if case.seed % 8 else 1025 + c))


def softmax_of(case):
    return (softmax.softmax(_scores(case)),)


def cross_entropy(case):
    x = _scores(case)
    t = (
        _rng(case)
        .integers(0, x.shape[1], len(x))
        .astype(("int32", "int64", "uint8")[case.seed % 3 if x.shape[1] < 256 else 0])
    )
    loss, y = softmax.softmax_cross_entropy(x, t)
    return loss, y, softmax.softmax_cross_entropy_backward(y, t, 0.5)


def cross_entropy_of_soft_targets(case):
    x = _scores(case)
    t = _rng(case).random(x.shape).astype(case.dtype)
    t /= np.maximum(t.sum(axis=1, keepdims=True), 1)
    loss, y = softmax.softmax_cross_entropy(x, t)
    return loss, y, softmax.softmax_cross_entropy_backward(y, t, 2.0)


class MemoryNumbers(GraphNumbers):
    """Numbers of a graph in memory of the host, from which the kernel reads them."""

    def __init__(self):
        pass

    def add(self, source, dtype):
        with recording(None):
            return np.array(source(), dtype)


def dropout_mask(case):
    backend.random.seed(case.seed)
    masks = dropout.dropout_mask(case.shape, 0.3), dropout.dropout_mask(case.shape, 0.5)
    runs_kernels = dropout.array_module() is not np
    with recording(MemoryNumbers() if runs_kernels else None):
        return *masks, dropout.dropout_mask(case.shape, 0.4)


def dropped(case):
    """Drop numbers of every kind, also where they do not begin at a multiple of 16 bytes, and in a graph."""
    backend.random.seed(case.seed)
    x = _specials(case, (np.prod(case.shape) + 1,)).view(DeviceLike)
    results = [*dropout.dropout(x[:-1], 0.3), *dropout.dropout(x[1:], 0.5)]
    runs_kernels = dropout.array_module() is not np
    with recording(MemoryNumbers() if runs_kernels else None):
        return *results, *dropout.dropout(x, 0.4)


def affine_parts(case):
    """Compute a fully connected layer of whole numbers with a bias and a ReLU, and the gradients of these."""
    rows, columns = (7 * case.shape[0], 13 * case.shape[1])
    y, dy = _specials(case, (rows, columns)), _whole(case, (rows, columns))
    bias, out, plain = _whole(case, columns), np.empty(columns, case.dtype), y.copy()
    affine.add_bias(plain, bias)
    positive = affine.add_bias(y, bias, relu=True)
    assert positive is not None
    return y, positive, plain, affine.bias_gradient(dy, positive, out), out


def epoch_totals(case):
    rows, classes = 30 * case.shape[0], 2 + case.shape[1]
    t = _rng(case).integers(-1, classes + 1, rows).astype(("int32", "int64", "uint8")[case.seed % 3])
    if t.dtype == "int64":
        t[::2] += 1 << 32
    y = _specials(case, (rows, classes)).astype(acc_dtype(case.dtype))
    sums = np.array([0.5, 2, 30])
    totals.add_to_totals(sums, np.array(1.375, y.dtype), y, t)
    totals.add_to_totals(sums, np.array(0.1, y.dtype), y[:1], t[:1])
    return (sums,)


def embedding_rows(case):
    """Gather rows and sum gradients by row, few rows or more than places, with indices of several widths."""
    count, size = 1 + 6 * case.shape[0] * (1 + case.seed % 2), case.shape[1]
    indices = _rng(case).integers(0, count, case.shape[2:]).astype(("int32", "int64", "uint8")[case.seed % 3])
    gradients, sums = _specials(case, (*indices.shape, size)), np.empty((count, size), case.dtype)
    rows = embedding.embedding(_specials(case, (count, size)), indices)
    return (
        rows,
        embedding.embedding_backward(_normal(case, rows.shape), indices, sums),
        embedding.embedding_backward(gradients, indices, np.empty((count, size), case.dtype)),
    )


def attention_of(case):
    """Attend, with and without a view of later keys, and go back: over several tiles, columns and blocks of queries."""
    n, c, h, w = case.shape
    shape = (n, c % 3 + 1, 6 * h if case.seed % 8 else 2 * h, w if case.seed % 16 else 130)
    results = []
    for causal in (False, True):
        q, k, v, dy = (_rng(case).standard_normal((4, *shape)) * 2).astype(case.dtype)
        y, log_sums = attention.attention(q, k, v, causal)
        results += [y, log_sums, *attention.attention_backward(dy, q, k, v, y, log_sums, causal)]
    return tuple(results)


def recurrent_steps(case):
    """Make a step of an LSTM and of a GRU, and go back: from the last step, and from one before it."""
    n, c, h, w = case.shape
    unit = (n * h, c * w)
    results = []
    for of_last in (True, False):
        (cells, states, squashed, products), gates = _empty(case, 4, unit, 1), _empty(case, 1, unit, 4)[0]
        lstm.lstm_step(
            _gates(case, unit, 4), _gates(case, unit, 4) / 2, _normal(case, unit), gates, cells, squashed, states
        )
        dc, dsums, dout = _normal(case, unit), _empty(case, 1, unit, 4)[0], _normal(case, unit)
        later = None if of_last else dout / 2
        lstm.lstm_step_backward(dout, later, dc, gates, _normal(case, unit) * 2, squashed, dsums)
        results += [gates, cells, squashed, states, dc, dsums]
        (states,), gates = _empty(case, 1, unit, 1), _empty(case, 1, unit, 3)[0]
        gru.gru_step(_gates(case, unit, 3), _gates(case, unit, 3) / 2, _normal(case, unit), gates, products, states)
        carried = _normal(case, unit) / 2
        of_inputs, of_states = _empty(case, 2, unit, 3)
        gru.gru_step_backward(dout, later, carried, gates, products, _normal(case, unit) * 2, of_inputs, of_states)
        results += [gates, products, states, carried, of_inputs, of_states]
    return tuple(results)


def _gates(case, unit, gates):
    return _normal(case, (unit[0], gates * unit[1]))


def _empty(case, count, unit, gates):
    return [np.empty((unit[0], gates * unit[1]), case.dtype) for _ in range(count)]


def batch_normalization(case):
    n, c, h, w = _wide(case).shape
    x, dy = _normal(case, (max(n * h * w, 1), c)), _normal(case, (max(n * h * w, 1), c))
    gamma, beta = _normal(case, c) + 2, _normal(case, c)
    mean, variance = batch_statistics.batch_statistics(x)
    y, inverse = batch_norm.normalize(x, mean, variance, gamma, beta, 1e-3)
    fixed = batch_norm_backward.normalize_backward_fixed(dy, x, mean, inverse, gamma)
    return mean, variance, y, inverse, *batch_norm_backward.normalize_backward(dy, x, mean, inverse, gamma), *fixed


def batch_normalization_with_relu(case):
    """Normalize as in training, at the end of a residual block and before another layer, and go back."""
    n, c, h, w = _wide(case).shape
    x, dy = (_normal(case, (n * h * w + 1, c)) * factor for factor in (1, 2))
    gamma, beta = _normal(case, c) + 2, _normal(case, c)
    running = [(_normal(case, c) + start).astype(acc_dtype(case.dtype)) for start in range(4)]
    one, two, three, four = running
    y, mean, inverse, _ = batch_norm.batch_norm(x, gamma, beta, one, two, 1e-3, 0.75, relu=True)
    added, *_, positive = batch_norm.batch_norm(x, gamma, beta, three, four, 1e-3, 0.75, relu=True, bypass=dy)
    assert positive is not None
    right = np.equal(positive, added > 0).astype(case.dtype)  # not the mask: a number near 0 may lie on either side
    plain = batch_norm.batch_norm(x, gamma, beta, three, four, 1e-3, 0.75)[0]
    gradients = batch_norm_backward.normalize_backward(dy, x, mean, inverse, gamma, beta)
    return y, mean, inverse, added, right, plain, *running, *gradients


def layer_norm_of(case):
    """Normalize rows of a few numbers, of more than a warp has threads, or of more than 1024, and go back."""
    x = _scores(case) + case.seed % 3
    gamma, beta, dy = _normal(case, x.shape[1]) + 2, _normal(case, x.shape[1]), _normal(case, x.shape) / 2
    y, normalized, inverse = layer_norm.layer_norm(x, gamma, beta, 0.1)
    return y, normalized, inverse, *layer_norm.layer_norm_backward(dy, normalized, inverse, gamma)


def depthwise_images(case):
    """Convolve each channel with one filter or two, with a bias and a ReLU and without, and go back: whole numbers."""
    (n, c, h, w), geometry = _wide(case).shape, case.window.over(case.shape[2:])
    filters, dtype = c * (1 + case.seed // 8 % 2), case.dtype
    weight, bias = _whole(case, (filters, 1, *geometry.kernel)), _whole(case, filters)
    x, dy = _whole(case, (n, h, w, c)), _whole(case, (n, *geometry.output, filters))
    y, rectified, dx = np.empty(dy.shape, dtype), np.empty(dy.shape, dtype), np.empty(x.shape, dtype)
    positive, dweight, dbias = np.empty(dy.shape, bool), np.empty(weight.shape, dtype), np.empty(filters, dtype)
    depthwise.forward(x, weight, None, geometry, y, None)
    depthwise.forward(x, weight, bias, geometry, rectified, positive)
    depthwise.backward_input(dy, weight, dx, geometry)
    depthwise.backward_weight(x, dy, geometry, dweight, dbias)
    return y + 0, rectified, positive, dx + 0, dweight + 0, dbias  # NumPy's sum of -0 alone is -0


def joined_ranges(case):
    """Put ranges of rows together, some of a matrix's at a time."""
    n, c, h, w = case.shape
    rows, channels, range_rows = n * h * w + 1, max(c, 1), 1 + case.seed % 5
    x, dtype = (_normal(case, (rows, channels)) + 3).astype("float64"), acc_dtype(case.dtype)
    parts = [x[first : first + range_rows] for first in range(0, rows, range_rows)]
    means, squares = ([f(part, axis=0) for part in parts] for f in (np.mean, np.var))
    squares = [square * len(part) for square, part in zip(squares, parts, strict=True)]
    cut = batch_statistics.in_ranges(rows, channels, range_rows)
    given = batch_statistics.Moments(np.array(means, dtype), np.array(squares, dtype), rows, cut)
    joined = batch_statistics.join(given, 2 + case.seed % 40)
    return joined.means, joined.squares


def sums_of(case):
    """Sum whole numbers, so that every order gives the same bits: in one stage and in two."""
    x, tall = _whole(case, case.shape), np.resize(_whole(case, (7, max(case.shape[1], 1))), (1500, case.shape[1]))
    return (
        sums.column_sums(tall), sums.axis_sums(x, (1, 3)), sums.axis_means(tall, 1 if case.shape[1] else 0),
        sums.axis_sums(tall, (0, 1)), sums.square_sum(tall), sums.square_sum(x),
    )  # fmt: skip


OPERATIONS = [
    *(Operation(run) for run in (im2col_chw, im2col_hwc, gather, scatter, max_pool, max_pool_backward)),
    *(Operation(run) for run in (average_pool, average_pool_backward, dropout_mask, sums_of, dropped, affine_parts)),
    *(Operation(run) for run in (epoch_totals, embedding_rows, depthwise_images)),
    *(Operation(run, False, 32) for run in (softmax_of, cross_entropy, cross_entropy_of_soft_targets)),
    Operation(attention_of, False, 100),
    Operation(recurrent_steps, False, 32),
    Operation(batch_normalization, False, 200),
    Operation(batch_normalization_with_relu, False, 200),
    Operation(joined_ranges, False, 200),
    Operation(layer_norm_of, False, 200),
]


def example(shape, dtype="float32", seed=1, **arguments):
    """Return a geometry by hand, without padding in names."""
    given: dict = {"kernel": 3, "stride": 1, "padding": 1, "dilation": 1, "rounding": "floor"} | arguments
    pad = given["padding"]
    return geometries.WindowCase(shape, given, (pad, pad, pad, pad), dtype, "contiguous", seed)


EXAMPLES = [
    example((2, 3, 5, 4)),
    example((2, 2, 6, 7), kernel=2, stride=2, padding=0),  # windows side by side
    example((1, 1, 1, 1), kernel=1, padding=0),
    example((2, 3, 2, 2), kernel=1, padding=0),
    example((1, 2, 2, 2), kernel=4, padding=2, dilation=1),  # the window is larger than the image
    example((2, 4, 7, 7), kernel=2, stride=3, padding=0, seed=8),  # the stride is larger than the window
    example((2, 2, 7, 8), stride=2),  # windows overlap, and step over pixels
    example((2, 3, 8, 7), kernel=2, stride=3, dilation=2, padding=1),  # gaps within windows, none between
    example((1, 2, 7, 5), kernel=2, stride=2, padding=0, rounding="ceil"),  # the last windows hang over
    example((0, 3, 4, 4)),
    example((1, 5, 9, 8), dilation=2, seed=16),
]


def check(operation, case, programs, **how):
    """Run the NumPy code and the kernels and compare; return the kernels' results."""
    expected = operation.run(case)
    with host_kernels.on_host(programs, **how):
        actual = operation.run(case)
    for mine, right in zip(actual, expected, strict=True):
        if operation.exact:
            assert_same(mine, right)
            zeros = right == 0
            assert_same(np.signbit(mine[zeros]), np.signbit(right[zeros]))
        else:
            assert mine.dtype == right.dtype
            scale = np.abs(right).max(initial=1).astype("float64")
            error = np.abs(mine.astype("float64") - right).max(initial=0)
            assert error <= operation.roundings * np.finfo(right.dtype).eps * scale
    return actual
