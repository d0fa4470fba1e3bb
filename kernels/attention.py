"""Scaled dot-product attention (Vaswani et al., "Attention is all you need", NeurIPS 2017), without a matrix of scores.

Forward goes over blocks of queries and keeps each row's log Σ exp(score), from which backward computes the
probabilities again (Dao et al., "FlashAttention", NeurIPS 2022). So memory grows with the length of a sequence, not
with its square. On the CPU threads share blocks of queries in forward, and whole heads in backward.
"""

from __future__ import annotations

import itertools
import math

import numpy

from backend import array_module, profiling, require_active, require_arrays, require_same_device, tuning, workspace
from backend.checks import flag
from backend.types import Array
from kernels.core.checks import check_dtype
from kernels.core.dispatch import implementation
from kernels.core.dtypes import acc_dtype
from kernels.core.launch import Kernel, block_size
from kernels.core.native import Function, sharers
from kernels.core.tiling import Part, cut, parallel_for
from kernels.gemm import matmul_part

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
    y, wide = workspace.empty(q.shape, q.dtype), acc_dtype(q.dtype)
    log_sums = numpy.empty(q.shape[:3], wide)
    if q.size:
        (heads, keys, values), (of_y, of_sums) = _stacks(wide, q, k, v), _views(q.shape, y, log_sums)

        def compute(part: Part) -> None:
            seen = part.images, slice(0, part.rows.stop if causal else None)
            scores = _scores(heads[part.images, part.rows], keys[seen], part.rows.start if causal else None)
            most = scores.max(axis=-1, keepdims=True)
            scores -= most
            numpy.exp(scores, out=scores)
            total = scores.sum(axis=-1, keepdims=True)
            weighted = matmul_part(scores, values[seen])
            weighted /= total
            of_y[part.images, part.rows] = weighted
            of_sums[part.images, part.rows] = (most + numpy.log(total))[..., 0]

        parallel_for(compute, _parts(heads, causal, keys, values), q)
    return y, log_sums


def _attention_backward_numpy(
    dy: Array, q: Array, k: Array, v: Array, y: Array, log_sums: Array, causal: bool
) -> tuple[Array, Array, Array]:
    gradients, wide = tuple(workspace.empty(q.shape, q.dtype) for _ in range(3)), acc_dtype(q.dtype)
    if not q.size:
        return gradients[0], gradients[1], gradients[2]
    slopes, heads, keys, values, outputs = _stacks(wide, dy, q, k, v, y)
    of_queries, of_keys, of_values, of_sums = _views(q.shape, *gradients, log_sums)
    scale = _scale(q)

    def compute(bands: list[Part]) -> None:
        images = bands[0].images
        key_sums, value_sums = (workspace.zeros(keys[images].shape, wide) for _ in range(2))
        for _, rows in bands:
            seen = images, slice(0, rows.stop if causal else None)
            query, slope = heads[images, rows], slopes[images, rows]
            weights = _scores(query, keys[seen], rows.start if causal else None)
            weights -= of_sums[images, rows][..., None]
            numpy.exp(weights, out=weights)
            value_sums[:, seen[1]] += matmul_part(weights.swapaxes(-2, -1), slope)
            ds = matmul_part(slope, values[seen].swapaxes(-2, -1))
            ds -= (slope * outputs[images, rows]).sum(axis=-1, keepdims=True)
            ds *= weights
            ds *= scale
            if causal:
                _overwrite_later(ds, rows.start, 0)
            of_queries[images, rows] = matmul_part(ds, keys[seen])
            key_sums[:, seen[1]] += matmul_part(ds.swapaxes(-2, -1), query)
        of_keys[images], of_values[images] = key_sums, value_sums

    parts = _parts(heads, causal, slopes, keys, values)
    of_heads = itertools.groupby(parts, key=lambda part: part.images.start)
    parallel_for(compute, [list(bands) for _, bands in of_heads], q)
    return gradients[0], gradients[1], gradients[2]


def _scale(q: Array) -> float:
    return 1 / math.sqrt(q.shape[-1])


def _views(shape: tuple[int, ...], *arrays: Array) -> list[Array]:
    """Return contiguous arrays (N, heads, …) as (N · heads, …)."""
    return [array.reshape(shape[0] * shape[1], *array.shape[2:]) for array in arrays]


def _stacks(dtype: numpy.dtype, *arrays: Array) -> list[Array]:
    """Return arrays (N, heads, T, D) as contiguous stacks (N · heads, T, D) of a dtype."""
    return _views(arrays[0].shape, *(numpy.ascontiguousarray(array, dtype) for array in arrays))


def _parts(heads: Array, causal: bool, *others: Array) -> list[Part]:
    """Return the parts of a stack: some whole heads, or a band of the queries of one, whose scores stay near a cache.

    A causal product multiplies later keys by 0, which would make NaN of infinity and NaN. Where there are such numbers
    a part is one query, which has no later keys in its product. The bands with most keys come first: the others' scores
    then find recycled memory.
    """
    stack, length, _ = heads.shape
    if causal and not all(numpy.isfinite(array).all() for array in (heads, *others)):
        parts = [Part(slice(n, n + 1), slice(i, i + 1)) for n in range(stack) for i in range(length)]
    else:
        parts = cut(stack, length, length * heads.itemsize, numpy)
    return parts[::-1] if causal else parts


def _scores(query: Array, keys: Array, first: int | None) -> Array:
    """Return the scaled scores of queries against keys; -inf for keys after a query, if ``first`` is the first's."""
    scores = matmul_part(query, keys.swapaxes(-2, -1))
    scores *= _scale(query)
    if first is not None:
        _overwrite_later(scores, first, -numpy.inf)
    return scores


def _overwrite_later(scores: Array, first: int, value: float) -> None:
    """Overwrite what queries from ``first`` on have of keys after their own."""
    later = numpy.arange(first, scores.shape[-1]) > numpy.arange(first, first + scores.shape[-2])[:, None]
    numpy.copyto(scores[..., first:], value, where=later)


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
