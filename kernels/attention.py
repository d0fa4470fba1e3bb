"""Scaled dot-product attention (Vaswani et al., "Attention is all you need", NeurIPS 2017), without a matrix of scores.

Forward goes over blocks of queries and keeps each row's log Σ exp(score), from which backward computes the
probabilities again (Dao et al., "FlashAttention", NeurIPS 2022). So memory grows with the length of a sequence, not
with its square. The C kernels' threads share blocks of queries in forward, and whole heads in backward.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy

from backend import array_module, profiling, require_active, require_arrays, require_same_device, tuning, workspace
from backend.checks import flag
from backend.threads import single_threaded_blas
from backend.types import Array
from kernels.core.checks import check_dtype
from kernels.core.dispatch import implementation
from kernels.core.dtypes import acc_dtype
from kernels.core.launch import Kernel, block_size
from kernels.core.native import Function, sharers

_QUERIES = 64  # whose scores NumPy computes at a time

_FORWARD, _BACKWARD_QUERIES, _BACKWARD_KEYS = (
    Kernel("attention.cu", name) for name in ("attention", "attention_backward_queries", "attention_backward_keys")
)
_LANES_CUDA, _OWN_CUDA = 32, 4  # of attention.cu

_FORWARD_NATIVE, _BACKWARD_NATIVE = (Function("attention.c", name) for name in ("attention", "attention_backward"))
_OWN_NATIVE, _OTHER_NATIVE = 64, 48  # OWN and OTHER of attention.c


@profiling.operation
def attention(q: Array, k: Array, v: Array, causal: bool = False) -> tuple[Array, Array]:
    """Compute y = softmax(q·kᵀ / √D)·v of each head.

    Args:
        q, k, v: queries, keys and values, (N, heads, T, D), of one floating dtype; float16 is summed in float32.
        causal: let a query see no key after its own, whatever is in it: NaN there reaches no earlier query.

    Returns:
        y: (N, heads, T, D), dtype of ``q``.
        log_sums: log Σ exp(score) of each query, (N, heads, T), in the dtype of sums, for the backward.

    Raises:
        TypeError: an argument is of another type, dtypes are not floating or differ, host and device arrays are mixed,
            or lie on another device than the active one.
        ValueError: the shapes are not one (N, heads, T, D), or D is 0.

    Examples:
        >>> from backend import xp
        >>> from kernels.attention import attention
        >>> q = xp.zeros((1, 1, 2, 1))
        >>> attention(q, q, xp.asarray([[[[1.0], [3.0]]]]), causal=True)[0]
        array([[[[1.],
                 [2.]]]])
    """
    causal = flag("causal", causal)
    _check(q=q, k=k, v=v)
    return implementation(q, _attention_numpy, _attention_cuda, _attention_native)(q, k, v, causal)


@profiling.operation
def attention_backward(
    dy: Array, q: Array, k: Array, v: Array, y: Array, log_sums: Array, causal: bool = False
) -> tuple[Array, Array, Array]:
    """Return the gradients of ``attention``: dq, dk and dv, each (N, heads, T, D) in the dtype of ``q``.

    Args:
        dy: the gradient of ``y``, its shape and dtype.
        q, k, v, causal: as ``attention`` was given them.
        y, log_sums: what it returned.

    Raises:
        TypeError: as ``attention``.
        ValueError: as ``attention``, or ``log_sums`` is not (N, heads, T).
    """
    causal = flag("causal", causal)
    _check(dy=dy, q=q, k=k, v=v, y=y)
    require_arrays(log_sums=log_sums)
    require_same_device(q, log_sums)
    if log_sums.shape != q.shape[:3] or log_sums.dtype != acc_dtype(q.dtype):
        expected, given = (q.shape[:3], acc_dtype(q.dtype)), (log_sums.shape, log_sums.dtype)
        raise ValueError(f"log_sums must be {expected[0]} of {expected[1]}, got {given[0]} of {given[1]}")
    compute = implementation(q, _attention_backward_numpy, _attention_backward_cuda, _attention_backward_native)
    return compute(dy, q, k, v, y, log_sums, causal)


def _check(**arrays: Array) -> None:
    require_arrays(**arrays)
    require_same_device(*arrays.values())
    first, *others = arrays.items()
    require_active(first[1], first[0])
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) > 1 or first[1].ndim != 4:
        given = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(f"attention needs arrays of one shape (N, heads, T, D), got {given}")
    if not first[1].shape[3]:
        raise ValueError(f"attention needs heads of at least one number, got {first[1].shape}")
    check_dtype("attention", first[1])
    for name, array in others:
        if array.dtype != first[1].dtype:
            raise TypeError(f"attention needs one dtype, got {first[0]} {first[1].dtype} and {name} {array.dtype}")


def _attention_numpy(q: Array, k: Array, v: Array, causal: bool) -> tuple[Array, Array]:
    y, log_sums = workspace.empty(q.shape, q.dtype), numpy.empty(q.shape[:3], acc_dtype(q.dtype))
    with single_threaded_blas():
        for n in range(len(q)):
            query, keys, values = _heads(n, q, k, v)
            for rows, seen, visible in _blocks(causal, query, keys, values):
                scores = _scores(query[:, rows], keys[:, seen], visible)
                most = scores.max(axis=-1, keepdims=True)
                weights = numpy.exp(scores - most)
                total = weights.sum(axis=-1, keepdims=True)
                y[n, :, rows] = weights @ values[:, seen] / total
                log_sums[n, :, rows] = (most + numpy.log(total))[..., 0]
    return y, log_sums


def _attention_backward_numpy(
    dy: Array, q: Array, k: Array, v: Array, y: Array, log_sums: Array, causal: bool
) -> tuple[Array, Array, Array]:
    dq, dk, dv = (workspace.empty(q.shape, q.dtype) for _ in range(3))
    with single_threaded_blas():
        for n in range(len(q)):
            slope, query, keys, values, output = _heads(n, dy, q, k, v, y)
            key_sums, value_sums = numpy.zeros_like(keys), numpy.zeros_like(values)
            for rows, seen, visible in _blocks(causal, slope, query, keys, values):
                scores = _scores(query[:, rows], keys[:, seen], visible)
                weights = numpy.exp(scores - log_sums[n, :, rows, None])
                value_sums[:, seen] += weights.swapaxes(-2, -1) @ slope[:, rows]
                means = (slope[:, rows] * output[:, rows]).sum(axis=-1, keepdims=True)
                ds = weights * (slope[:, rows] @ values[:, seen].swapaxes(-2, -1) - means) * _scale(q)
                ds = numpy.where(visible, ds, 0)
                dq[n, :, rows] = ds @ keys[:, seen]
                key_sums[:, seen] += ds.swapaxes(-2, -1) @ query[:, rows]
            dk[n], dv[n] = key_sums, value_sums
    return dq, dk, dv


def _heads(n: int, *arrays: Array) -> list[Array]:
    """Return the heads of a sample, contiguous (heads, T, D) in the dtype of sums."""
    return [numpy.ascontiguousarray(array[n], acc_dtype(array.dtype)) for array in arrays]


def _blocks(causal: bool, *arrays: Array) -> Iterator[tuple[slice, slice, Array]]:
    """Yield some queries at a time, the keys that any of them sees, and which of these each one sees: bool.

    A causal product multiplies later keys by 0, which would make NaN of infinity and NaN. Where ``arrays``, (heads, T,
    D), have such numbers a block is one query, which has no later keys in its product.
    """
    length = arrays[0].shape[1]
    step = _QUERIES if not causal or all(numpy.isfinite(array).all() for array in arrays) else 1
    for first in range(0, length, step):
        rows = slice(first, min(first + step, length))
        seen = slice(0, rows.stop if causal else length)
        yield rows, seen, numpy.tri(rows.stop - first, seen.stop, first if causal else length, bool)


def _scale(q: Array) -> float:
    return 1 / math.sqrt(q.shape[-1])


def _scores(query: Array, keys: Array, visible: Array) -> Array:
    """Return the scaled scores of queries against keys; -inf for keys that a query does not see."""
    return numpy.where(visible, query @ keys.swapaxes(-2, -1) * _scale(query), -numpy.inf)


def _attention_native(q: Array, k: Array, v: Array, causal: bool) -> tuple[Array, Array]:
    dtype, (n, heads, length, depth) = q.dtype, q.shape
    y, log_sums = workspace.empty(q.shape, dtype), numpy.empty(q.shape[:3], acc_dtype(dtype))
    items = n * heads * -(-length // _OWN_NATIVE)
    item_bytes = 2 * _OWN_NATIVE * length * depth // tuning.PRODUCTS_PER_BYTE
    team, room = sharers(items, item_bytes), 2 * (_OWN_NATIVE + _OTHER_NATIVE) * _padded(depth)
    arrays = *map(numpy.ascontiguousarray, (q, k, v)), y, log_sums, workspace.empty(team * room, acc_dtype(dtype))
    sizes = n * heads, length, depth, int(causal), room, team
    _FORWARD_NATIVE.share(dtype, items, item_bytes, *arrays, _scale(q), *sizes)
    return y, log_sums


def _attention_backward_native(
    dy: Array, q: Array, k: Array, v: Array, y: Array, log_sums: Array, causal: bool
) -> tuple[Array, Array, Array]:
    dtype, (n, heads, length, depth) = q.dtype, q.shape
    dq, dk, dv = (workspace.empty(q.shape, dtype) for _ in range(3))
    item_bytes = 5 * length * length * depth // tuning.PRODUCTS_PER_BYTE
    room = (5 * _OWN_NATIVE + 2 * _OTHER_NATIVE + length) * _padded(depth) + _padded(length)
    team = sharers(n * heads, item_bytes)
    given = map(numpy.ascontiguousarray, (dy, q, k, v, y, log_sums))
    arrays = *given, dq, dk, dv, workspace.empty(team * room, acc_dtype(dtype))
    sizes = n * heads, length, depth, int(causal), room, team
    _BACKWARD_NATIVE.share(dtype, n * heads, item_bytes, *arrays, _scale(q), *sizes)
    return dq, dk, dv


def _padded(count: int) -> int:
    """Return the numbers of whole vectors of any processor that ``count`` numbers fill."""
    return -(-count // 16) * 16


def _attention_cuda(q: Array, k: Array, v: Array, causal: bool) -> tuple[Array, Array]:
    library = array_module(q)
    y, log_sums = library.empty(q.shape, q.dtype), library.empty(q.shape[:3], acc_dtype(q.dtype))
    arrays = *map(library.ascontiguousarray, (q, k, v)), y, log_sums
    _FORWARD(_threads(q), *arrays, _scale(q), *_sizes(q), int(causal))
    return y, log_sums


def _attention_backward_cuda(
    dy: Array, q: Array, k: Array, v: Array, y: Array, log_sums: Array, causal: bool
) -> tuple[Array, Array, Array]:
    library = array_module(q)
    dq, dk, dv = (library.empty(q.shape, q.dtype) for _ in range(3))
    means = library.empty(log_sums.shape, log_sums.dtype)
    dy, q, k, v, y, log_sums = map(library.ascontiguousarray, (dy, q, k, v, y, log_sums))
    others = _scale(q), *_sizes(q), int(causal)
    _BACKWARD_QUERIES(_threads(q), dy, q, k, v, y, log_sums, dq, means, *others)
    _BACKWARD_KEYS(_threads(q), dy, q, k, v, log_sums, means, dk, dv, *others)
    return dq, dk, dv


def _sizes(q: Array) -> tuple[int, int, int]:
    return math.prod(q.shape[:3]), q.shape[2], q.shape[3]


def _threads(q: Array) -> int:
    """Return the threads for all tiles of rows: a warp takes a few, and a block's are of one head."""
    heads, length = math.prod(q.shape[:2]), q.shape[2]
    return heads * -(-length // (block_size() // _LANES_CUDA * _OWN_CUDA)) * block_size()
