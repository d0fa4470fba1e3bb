"""Multiply matrices: into given arrays, and with float16 summed in float32.

On the CPU C does so. Its sums have one order, whatever the number of threads and the processor; NumPy's are those of
its BLAS, which is limited to one thread.
"""

from __future__ import annotations

import math

import numpy

from backend import array_module, blas, profiling, require_active, require_arrays, threads, tuning, workspace
from backend.types import Array
from kernels.core import native
from kernels.core.dispatch import implementation
from kernels.core.layout import target
from kernels.core.native import Function

_GEMM = Function("gemm.c", "gemm")

_GROUP = 16  # rows or columns, in gemm.c

_RUN = 256  # of the depth, in gemm.c

_MOST = (1 << 31) - 1  # rows, columns and depth that gemm.c can count

_HALF = numpy.dtype("float16")


@profiling.operation
def matmul(a: Array, b: Array, out: Array | None = None, bias: Array | None = None) -> Array:
    """Compute ``a`` (M, K) @ ``b`` (K, N) + ``bias`` (N,) as (M, N), into ``out`` if given.

    A large product is shared among the CPU's cores. On the CPU, float16 is multiplied in float32 and rounded once,
    after the bias.

    Raises:
        TypeError: an argument is not an array, or host and device arrays are mixed.
        ValueError: the shapes do not fit.

    Examples:
        >>> from backend import xp
        >>> from kernels.gemm import matmul
        >>> matmul(xp.ones((2, 3)), xp.ones((3, 2)), bias=xp.arange(2.0))
        array([[3., 4.],
               [3., 4.]])
    """
    array_module(a, b, out, bias)
    require_active(a, "a")
    if type(b) is not type(a):
        require_arrays(b=b)
    check_product(a, b, out, bias)
    same = a.dtype == b.dtype and (bias is None or bias.dtype == a.dtype)
    return implementation(a, _matmul_numpy, _matmul_cuda, matmul_native if same else None)(a, b, out, bias)


def check_product(a: Array, b: Array, out: Array | None, bias: Array | None) -> None:
    """Raise the ValueError of ``matmul``."""
    given, other = a.shape, b.shape
    if len(given) != 2 or len(other) != 2 or given[1] != other[0]:
        raise ValueError(f"a matrix product needs (M, K) and (K, N), got {given} and {other}")
    if out is not None and out.shape != (given[0], other[1]):
        raise ValueError(f"out must have shape {(given[0], other[1])}, got {out.shape}")
    if bias is not None and bias.shape != other[1:]:
        raise ValueError(f"bias must have shape {other[1:]}, got {bias.shape}")


def _matmul_numpy(a: Array, b: Array, out: Array | None, bias: Array | None) -> Array:
    if a.dtype == _HALF == b.dtype:
        product = _matmul_numpy(a.astype(numpy.float32), b.astype(numpy.float32), None, bias)
        return into(out, product.astype(numpy.float16))
    with threads.single_threaded_blas():
        product = numpy.matmul(a, b, out=out)
    if bias is not None:
        product += bias
    return product


def matmul_native(a: Array, b: Array, out: Array | None, bias: Array | None, positive: Array | None = None) -> Array:
    """Compute ``matmul`` of arrays of one dtype in C, or of stacks of them, (…, M, K) and (…, K, N).

    Args:
        positive: bool (…, M, N), C-contiguous; if given, max(·, 0) follows, and it receives where the result is above
            0.

    Raises:
        ValueError: a matrix has 2³¹ rows or columns.
    """
    dtype, (*stack, rows, depth), columns = a.dtype, a.shape, b.shape[-1]
    if rows > _MOST or depth > _MOST or columns > _MOST:
        raise ValueError(f"matrices have at most {_MOST:,} rows and columns, got {a.shape} and {b.shape}")
    a, a_transposed = _stored(a)
    b, b_transposed = _stored(b)
    if out is None or numpy.may_share_memory(out, a) or numpy.may_share_memory(out, b):
        product = workspace.empty((*stack, rows, columns), dtype)
    else:
        product = target(out, dtype)
    if bias is not None:
        bias = numpy.ascontiguousarray(bias)
    sums = workspace.empty(product.shape) if dtype == _HALF and depth > _RUN else None
    sizes = math.prod(stack), rows, depth, columns
    given = a, b, bias, product, positive, sums, *sizes, a_transposed, b_transposed
    groups = -(-max(rows, columns) // _GROUP)
    item_bytes = math.prod(sizes) // (tuning.PRODUCTS_PER_BYTE * max(groups, 1))
    _GEMM.share(dtype, groups, item_bytes, *given, each=1 if rows >= columns else 2)  # a piece of rows packs b anew
    return product if out is None or product is out else into(out, product)


def _stored(matrix: Array) -> tuple[Array, int]:
    """Return a matrix, or its transpose, as it lies in contiguous memory, and whether it is the transpose."""
    if matrix.flags.c_contiguous:
        return matrix, 0
    transposed = matrix.swapaxes(-2, -1)
    return (transposed, 1) if transposed.flags.c_contiguous else (numpy.ascontiguousarray(matrix), 0)


def into(out: Array | None, result: Array) -> Array:
    """Return a result, in ``out`` if given."""
    if out is None:
        return result
    out[...] = result
    return out


def _matmul_cuda(a: Array, b: Array, out: Array | None, bias: Array | None) -> Array:
    product = blas.gemm(a, b, out)
    if bias is not None:
        product += bias
    return product


def matmul_part(a: Array, b: Array, out: Array | None = None) -> Array:
    """Compute what ``matmul`` does, of a part that ``kernels.core.tiling.parallel_for`` gave to this thread: it is not
    shared again.

    Both may be stacks of equally many matrices, (…, M, K) and (…, K, N).
    """
    if array_module(a, b) is not numpy:
        return blas.gemm(a, b, out)
    _refuse_half(a)
    if not native.computes(a.dtype) or a.dtype != b.dtype:
        return numpy.matmul(a, b, out=out)
    return matmul_native(a, b, out, None)


def add_rows(a: Array, b: Array, total: Array) -> None:
    """Add aᵀ @ b of tall parts (…, M, K) and (…, M, N) to ``total`` (…, K, N), without sharing, as ``matmul_part``.

    On a GPU the product itself does: nothing is allocated or launched besides, and float16 can be added up in float32.
    """
    if array_module(a, b, total) is not numpy:
        blas.gemm(a.swapaxes(-2, -1), b, total, beta=1.0)
    else:
        total += matmul_part(a.swapaxes(-2, -1), b)


def _refuse_half(a: Array) -> None:
    if a.dtype == _HALF:
        raise TypeError("parts of float16 are multiplied in their accumulator's dtype")
