"""Attention and its gradients written out in float64, and how far rounding may move a result from them."""

import numpy as np

from backend import asnumpy
from kernels.attention import attention, attention_backward
from tests.support.checks import assert_close, laid_out, normal


def arrays(shape, dtype, layout="contiguous"):
    """q, k, v and dy."""
    return [laid_out(normal(shape, dtype, seed), layout) for seed in range(4)]


def plain(q, k, v, causal, dy=None):
    """y and log sums, and with dy the gradients: each a pair of the value and Σ |terms|, in float64."""
    q, k, v, dy = (None if array is None else asnumpy(array).astype("float64") for array in (q, k, v, dy))
    scale, back = 1 / np.sqrt(q.shape[-1]), lambda array: array.swapaxes(-1, -2)
    scores, depth = q @ back(k) * scale, np.abs(q) @ back(np.abs(k)) * scale
    if causal:
        later = ~np.tri(q.shape[2], dtype=bool)
        scores, depth = np.where(later, -np.inf, scores), np.where(later, 0, depth)
    most = scores.max(-1, keepdims=True, initial=-np.inf)
    total = np.exp(scores - most).sum(-1, keepdims=True)
    p = np.exp(scores - most) / total
    log_sums = (most + np.log(total))[..., 0]
    depth = 1 + depth.max(-1, keepdims=True, initial=0)  # a score's error is an error of its exponential
    of_p = p * depth
    y = p @ v
    forward = (y, of_p @ np.abs(v)), (log_sums, np.abs(log_sums) + depth[..., 0])
    if dy is None:
        return forward
    dp, size = dy @ back(v), np.abs(dy) @ back(np.abs(v))
    ds = p * (dp - (dp * p).sum(-1, keepdims=True)) * scale
    of_ds = of_p * (size + (np.abs(dy) * (of_p @ np.abs(v))).sum(-1, keepdims=True)) * scale
    gradients = (
        (ds @ k, of_ds @ np.abs(k)),
        (back(ds) @ q, back(of_ds) @ np.abs(q)),
        (back(p) @ dy, back(of_p) @ np.abs(dy)),
    )
    return *forward, *gradients


def compare(seen, expected, shape, dtype):
    """float16 rounds y once and reads it again for the gradients: one ulp of a term of their sums."""
    wide, of_half = ("float32", 2.0**13) if dtype == "float16" else (dtype, 0)
    for name, kind, array, (value, magnitude) in zip(
        ("y", "log_sums", "dq", "dk", "dv"), (dtype, wide, dtype, dtype, dtype), seen, expected, strict=True
    ):
        of_y = of_half if name in ("dq", "dk") else 0
        try:
            assert_close(array, value, kind, terms=sum(shape[2:]) + 12 + of_y, magnitude=magnitude)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


def both(q, k, v, dy, causal):
    y, log_sums = attention(q, k, v, causal)
    return y, log_sums, *attention_backward(dy, q, k, v, y, log_sums, causal)
