"""Run C kernels over arrays that end, or begin, at a page that may not be touched: a touch kills the process.

python -m tests.support.guard_pages windows        pooling, im2col and col2im of many geometries
python -m tests.support.guard_pages convolutions   convolutions and their gradients
python -m tests.support.guard_pages rows           normalization, sums, masks and activations
python -m tests.support.guard_pages heads          attention and its gradients
python -m tests.support.guard_pages beyond         read one byte behind an array, for a test of this module
"""

import ctypes
import math
import mmap
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend import workspace
from kernels import (
    activations,
    attention,
    batch_norm,
    batch_norm_backward,
    col2im,
    convolution_weight_native,
    embedding,
    im2col,
    layer_norm,
    masking,
    max_pooling,
    pooling,
    sums,
)
from kernels.convolution import convolution, convolution_backward_input, convolution_backward_weight
from kernels.core import native
from tests.support.geometries import cases


class Guard:
    """Makes arrays between two pages that may not be touched, at the end of the memory between them or at its begin."""

    at_end = True

    def empty(self, shape, dtype="float32"):
        dtype, shape = np.dtype(dtype), shape if isinstance(shape, tuple) else (shape,)
        size = math.prod(shape) * dtype.itemsize
        own = -(-max(size, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
        memory = mmap.mmap(-1, own + 2 * mmap.PAGESIZE)
        begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        for page in (begin, begin + mmap.PAGESIZE + own):
            if ctypes.CDLL(None).mprotect(ctypes.c_void_p(page), mmap.PAGESIZE, 0):
                raise OSError("the page cannot be protected")
        return np.ndarray(shape, dtype, memory, mmap.PAGESIZE + (own - size if self.at_end else 0))

    def images(self, shape, dtype, seed):
        """Return numbers (N, C, H, W) in channels-last memory."""
        n, c, h, w = shape
        x = self.empty((n, h, w, c), dtype)
        x[...] = np.random.default_rng(seed).standard_normal(x.shape)
        return x.transpose(0, 3, 1, 2)


CHANNELS = st.sampled_from([1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33])


@settings(max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(cases(CHANNELS, ceil=True, no_empty_window=True), st.booleans())
def windows(case, at_end):
    guard, window = Guard(), case.window
    guard.at_end, workspace.empty = at_end, guard.empty
    x = guard.images(case.shape, case.dtype, case.seed)
    dy = guard.images((*case.shape[:2], *case.output), case.dtype, 1)
    for winners in (max_pooling.pool(x, window)[1], max_pooling.max_pool(x, window)[1]):
        max_pooling.pool_backward(dy, winners, x.shape, window)
    pooling.average_pool(x, window)
    pooling.average_pool_backward(dy, x.shape, window)
    for order in ("HWC", "CHW"):
        col2im.col2im(im2col.im2col(x, window, order), x.shape, window, order)


FILTERS = st.sampled_from([1, 2, 7, 15, 16, 17, 31, 33, 64, 65])


@settings(max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(cases(CHANNELS, ceil=True), FILTERS, st.booleans())
def convolutions(case, filters, at_end):
    guard, window, channels = Guard(), case.window, case.shape[1]
    guard.at_end, workspace.empty = at_end, guard.empty
    convolution_weight_native._BAND_WINDOWS = 8  # images this small would be one band
    x = guard.images(case.shape, case.dtype, case.seed)
    for groups, fn in ((1, filters), (channels, channels), (channels, 2 * channels)):
        dy = guard.images((case.shape[0], fn, *case.output), case.dtype, 1)
        (fh, fw), own = case.geometry.kernel, channels // groups
        weight, dw = (guard.images((fh, fn, fw, own), case.dtype, seed).transpose(1, 3, 0, 2) for seed in (2, 3))
        db = guard.empty(fn, case.dtype)
        convolution_backward_weight(x, dy, dw.shape, window, groups, dw, db)
        convolution(x, weight, db, window, groups, relu=True)
        convolution_backward_input(dy, weight, x.shape, window, groups)


SIZES = st.integers(0, 9) | st.sampled_from([15, 16, 17, 31, 33, 63, 64, 65, 130])


@settings(max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(st.integers(1, 70), SIZES, st.sampled_from(["float16", "float32", "float64"]), st.booleans())
def rows(count, columns, dtype, at_end):
    """Normalization, sums, masks and activations of matrices. NumPy's own memory is guarded, too."""
    guard = Guard()
    guard.at_end, workspace.empty = at_end, guard.empty
    x, dy = guard.empty((count, columns), dtype), guard.empty((count, columns), dtype)
    gamma, beta = guard.empty(columns, dtype), guard.empty(columns, dtype)
    for index, array in enumerate((x, dy, gamma, beta)):
        array[...] = np.random.default_rng(index).standard_normal(array.shape)
    wide = "float32" if dtype == "float16" else dtype
    running = np.zeros(columns, wide), np.ones(columns, wide)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "empty", guard.empty)
        for relu, bypass in ((False, None), (True, None), (True, dy)):
            _, mean, inverse, _ = batch_norm.batch_norm(x, gamma, beta, *running, 1e-3, 0.9, relu, bypass)
            batch_norm_backward.normalize_backward(dy, x, mean, inverse, gamma, beta if relu else None)
        _, normalized, inverse = layer_norm.layer_norm(x, gamma, beta, 1e-3)
        layer_norm.layer_norm_backward(dy, normalized, inverse, gamma)
        sums.column_sums(x)
        sums.axis_sums(x.reshape(1, count, columns), 1)
        for function in (activations.relu, activations.sigmoid, activations.tanh, activations.gelu):
            function(x)
        for function in (activations.add, activations.multiply, activations.gelu_backward):
            function(dy, x)
        activations.relu6(x)
        _, positive = activations.leaky_relu(x, 0.5)
        activations.leaky_relu_backward(dy, positive, 0.5)
        masking.masked(dy, positive)
        weight, indices = guard.empty((7, columns), dtype), np.arange(count) * 5 % 7
        weight[...] = 1
        embedding.embedding_backward(embedding.embedding(weight, indices), indices, weight)


@settings(max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(SIZES, SIZES.filter(bool), st.sampled_from(["float16", "float32", "float64"]), st.booleans(), st.booleans())
def heads(length, depth, dtype, causal, at_end):
    """Attention of heads (length, depth). The scratch memory of threads is guarded, too."""
    guard = Guard()
    guard.at_end, workspace.empty = at_end, guard.empty
    q, k, v, dy = (guard.empty((1, 2, length, depth), dtype) for _ in range(4))
    for index, array in enumerate((q, k, v, dy)):
        array[...] = np.random.default_rng(index).standard_normal(array.shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "empty", guard.empty)
        y, log_sums = attention.attention(q, k, v, causal)
        attention.attention_backward(dy, q, k, v, y, log_sums, causal)


def beyond():
    array = Guard().empty(8, "uint8")
    ctypes.string_at(array.ctypes.data + array.size, 1)


if __name__ == "__main__":
    assert native.available(), native.refusal()
    checks = {"windows": windows, "convolutions": convolutions, "rows": rows, "heads": heads, "beyond": beyond}
    checks[sys.argv[1]]()
