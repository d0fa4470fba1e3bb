"""Matrix products and column sums with the library's rules: out in place, float16 summed in float32."""

from __future__ import annotations

from typing import Any

import numpy

from backend import array_module


def accumulator(dtype: Any) -> numpy.dtype:
    """The dtype in which numbers of ``dtype`` are summed: float32 for float16, otherwise their own."""
    return numpy.dtype("float32") if dtype == numpy.float16 else numpy.dtype(dtype)


def matmul(a: Any, b: Any, out: Any = None) -> Any:
    """``a`` (M, K) @ ``b`` (K, N) → (M, N), into ``out`` if given.

    On the CPU, float16 is multiplied in float32 (there is no half-precision BLAS) and rounded once.
    """
    library = array_module(a, b)
    if library is numpy and a.dtype == numpy.float16:
        product = numpy.matmul(a.astype(numpy.float32), b.astype(numpy.float32))
        if out is None:
            return product.astype(numpy.float16)
        out[...] = product
        return out
    return library.matmul(a, b, out=out)


def column_sums(matrix: Any, out: Any = None) -> Any:
    """The sum of each column of (M, N): (N,), as the product of a row of ones with the matrix.

    BLAS reads a tall matrix at more than twice the speed of ``sum(axis=0)``. float16 is summed in float32.
    """
    library = array_module(matrix)
    wide = matrix.astype(accumulator(matrix.dtype), copy=False)
    sums = library.matmul(library.ones(len(wide), wide.dtype), wide)
    if out is None:
        return sums.astype(matrix.dtype, copy=False)
    out[...] = sums
    return out
