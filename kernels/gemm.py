"""Multiply matrices: into given arrays, and with float16 summed in float32.

On the CPU each BLAS call uses one thread, and large products are cut here, by their shapes alone: so each sum has one
order, and the result the same bits for any number of threads.
"""

from __future__ import annotations

import functools

import numpy

from backend import array_module, blas, profiling, require_active, require_arrays, threads, workspace
from backend.types import Array
from kernels.core.tiling import ranges

_PIECE_FLOPS = 32 << 20
"""Multiplications and additions for which cutting a product pays: about 0.3 ms. BLAS multiplies narrow pieces slower: a
(128, 784) by (784, 512) in 12 pieces took 1.8 times as long as whole, in 2 pieces 1.1 times.
"""

_UNPACKED = 1_000_000
"""Multiplications in a product that OpenBLAS, on cores with AVX-512, makes without packing its operands first. Blocks
of a tall matrix times few columns run 1.1 to 1.8 times as fast so (measured: (100352, 144) by (144, 16) at 105 GFLOP/s
instead of 77, (30000, 64) by (64, 64) at 145 instead of 103), and within 5 % where BLAS has no such kernels.
"""

_NARROW = 128  # columns up to which that pays

_HALF = numpy.dtype("float16")


@profiling.operation
def matmul(a: Array, b: Array, out: Array | None = None, bias: Array | None = None) -> Array:
    """Compute ``a`` (M, K) @ ``b`` (K, N) + ``bias`` (N,) as (M, N), into ``out`` if given.

    A large product is shared among the CPU's cores. On the CPU, float16 is multiplied in float32 (there is no
    half-precision BLAS) and rounded once, after the bias.

    Examples:
        >>> from backend import xp
        >>> from kernels.gemm import matmul
        >>> matmul(xp.ones((2, 3)), xp.ones((3, 2)), bias=xp.arange(2.0))
        array([[3., 4.],
               [3., 4.]])
    """
    library = array_module(a, b, out, bias)
    require_active(a, "a")
    require_arrays(b=b)
    if library is not numpy:
        product = blas.gemm(a, b, out)
        if bias is not None:
            product += bias
        return product
    half = a.dtype == _HALF and b.dtype == _HALF
    if half:
        a, b = a.astype(numpy.float32), b.astype(numpy.float32)
    (m, k), n = a.shape, b.shape[1]
    product = out if out is not None and not half else workspace.empty((m, n), a.dtype)
    count = 2 * m * n * k // _PIECE_FLOPS
    if count > 1:
        _multiply_in_pieces(a, b, product, count)
    else:
        with threads.single_threaded_blas():
            matmul_part_numpy(a, b, product)
    if bias is not None:
        product += bias
    return _into(out, product) if half else product


def _multiply_in_pieces(a: Array, b: Array, product: Array, count: int) -> None:
    """Multiply ``a`` @ ``b`` into ``product``, cut along its longer side, the pieces shared among the CPU's cores.

    There are up to 16 pieces, a power of two of at most ``count``.
    """
    by_row = len(a) >= b.shape[1]
    count = min(count, 16, max(product.shape))
    cuts = ranges(max(product.shape), 1 << (count.bit_length() - 1))

    def multiply(index: int) -> None:
        cut = slice(*cuts[index])
        if by_row:
            matmul_part_numpy(a[cut], b, product[cut])
        else:
            matmul_part_numpy(a, b[:, cut], product[:, cut])

    threads.run(multiply, range(len(cuts)))


def _into(out: Array | None, product: Array) -> Array:
    """Return a product of float32 rounded to float16, in ``out`` if given."""
    if out is None:
        return product.astype(numpy.float16)
    out[...] = product
    return out


def matmul_part(a: Array, b: Array, out: Array | None = None) -> Array:
    """Compute what ``matmul`` does, of a part that ``kernels.core.tiling.parallel_for`` gave to this thread: it is not
    shared again.

    Both may be stacks of equally many matrices, (…, M, K) and (…, K, N).
    """
    if array_module(a, b) is not numpy:
        return blas.gemm(a, b, out)
    _refuse_half(a)
    product = workspace.empty((*a.shape[:-1], b.shape[-1]), a.dtype) if out is None else out
    matmul_part_numpy(a, b, product)
    return product


def matmul_part_numpy(a: Array, b: Array, out: Array) -> None:
    """Multiply into ``out``, a tall ``a`` or a wide ``b`` in blocks that BLAS need not pack."""
    (m, k), n, stack = a.shape[-2:], b.shape[-1], a.shape[:-2]
    if m * k * n <= _UNPACKED:
        numpy.matmul(a, b, out=out)
        return
    if n > m:
        a, b, out, m, n = b.swapaxes(-2, -1), a.swapaxes(-2, -1), out.swapaxes(-2, -1), n, m
    rows = min(_UNPACKED // max(k * n, 1), 256) // 16 * 16
    if not 32 <= rows < m or not 0 < n <= _NARROW:
        numpy.matmul(a, b, out=out)
        return
    whole = m - m % rows
    left = a[..., :whole, :].reshape(*stack, m // rows, rows, k)
    blocks = out[..., :whole, :].reshape(*stack, m // rows, rows, n)
    numpy.matmul(left, b[..., None, :, :], out=blocks)
    if whole < m:
        numpy.matmul(a[..., whole:, :], b, out=out[..., whole:, :])


def add_rows(a: Array, b: Array, total: Array) -> None:
    """Add aᵀ @ b of tall parts (…, M, K) and (…, M, N) to ``total`` (…, K, N), without sharing, as ``matmul_part``.

    On a GPU the product itself does: nothing is allocated or launched besides, and float16 can be added up in float32.
    """
    if array_module(a, b, total) is not numpy:
        blas.gemm(a.swapaxes(-2, -1), b, total, beta=1.0)
        return
    _refuse_half(a)
    total += matmul_rows_numpy(a, b)


def matmul_rows_numpy(a: Array, b: Array) -> Array:
    """Compute aᵀ @ b in blocks that BLAS need not pack, and add up their products."""
    (m, k), n, stack = a.shape[-2:], b.shape[-1], a.shape[:-2]
    strips, rows = _strips(k, n)
    if m <= rows or not rows:
        return numpy.matmul(a.swapaxes(-2, -1), b)
    whole = m - m % rows
    left = numpy.moveaxis(a[..., :whole, :].reshape(*stack, -1, rows, strips, k // strips), -3, -1)
    right = b[..., :whole, :].reshape(*stack, -1, 1, rows, n)
    total = numpy.matmul(left, right).reshape(*stack, -1, k, n).sum(axis=-3)
    if whole < m:
        total += numpy.matmul(a[..., whole:, :].swapaxes(-2, -1), b[..., whole:, :])
    return total


@functools.cache
def _strips(k: int, n: int) -> tuple[int, int]:
    """Return how to cut ``a`` in aᵀ @ b: into how many strips of columns, and at how many rows (0: not)."""
    if k * n > 24_000 or not k * n:  # measured: more gain nothing
        return 1, 0
    strips = next(count for count in range(1, k + 1) if k % count == 0 and k // count * n <= 5_000)
    return strips, min(_UNPACKED // (k // strips * n), 480) // 16 * 16


def piece_sums(rows: Array, fold: int) -> Array:
    """Compute on a CPU the column sums of a piece of a matrix folded by ``fold``: (M / fold, fold·N) → (N,)."""
    ones = workspace.empty(len(rows), rows.dtype)
    ones.fill(1)
    sums = numpy.matmul(ones, rows)
    return sums if fold == 1 else sums.reshape(fold, -1).sum(axis=0)


def _refuse_half(a: Array) -> None:
    if a.dtype == _HALF:
        raise TypeError("parts of float16 are multiplied in their accumulator's dtype")
