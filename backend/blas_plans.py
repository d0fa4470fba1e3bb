"""Describe matrix products to cuBLAS: which operands it can read as they lie, and by which flags and strides.

What is row-major here is column-major to cuBLAS: it is told of every matrix's transpose, and computes
outᵀ = rightᵀ @ leftᵀ.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy

Form = tuple[tuple[int, ...], tuple[int, ...], str]
"""Shape, strides in bytes, and dtype character of an array."""

RESULTS = {"e": "ef", "f": "f", "d": "d"}
"""The dtypes of results by that of the operands."""

_DATA_TYPE = {"e": 2, "f": 0, "d": 1}  # cudaDataType_t
_LARGEST = 2**31 - 1  # cuBLAS counts in C's int


class Operand(NamedTuple):
    """Describe a stack of matrices as cuBLAS wants it."""

    transposed: int
    leading: int
    step: int  # elements from one matrix to the next
    bytes: int  # from the first element to the end of the last


class Plan(NamedTuple):
    """Hold all that follows from the forms of a product's operands."""

    shape: tuple[int, ...]  # of the result
    dtype: str
    kind: str  # the operands' dtype
    inner: int  # K
    stack: tuple[int, ...]  # leading axes of the operands, broadcast
    copied: tuple[bool, bool, bool] = (False, False, False)
    """True for those of a, b and out that cuBLAS cannot describe. The next fields are valid only if it can describe
    all."""

    swapped: bool = False  # out is column-major, so outᵀ = bᵀ @ aᵀ is computed
    matrices: int = 1  # in the stack
    sizes: tuple[int, int, int] = (0, 0, 0)  # columns, rows and K of the product that is computed
    flags: tuple[int, int] = (0, 0)  # transposed or not: the second operand, the first
    leading: tuple[int, int, int] = (1, 1, 1)  # of the second, the first and the result
    steps: tuple[int, int, int] = (0, 0, 0)  # elements from one matrix to the next: likewise
    extents: tuple[int, int, int] = (0, 0, 0)  # bytes from the first element to the last's end: first, second, result
    types: tuple[int, int] = (0, 0)  # of operands and result, as cudaDataType_t


@functools.lru_cache(maxsize=4096)
def plan_product(a: Form, b: Form, out: Form | None, dtype: str | None) -> Plan:
    """Return how cuBLAS is to be called for operands of these forms.

    Raises:
        TypeError, ValueError: as ``gemm``.
    """
    asked = f"{named(a)} @ {named(b)}" + ("" if out is None else f" into {named(out)}")
    if dtype is not None:
        asked += f" as {numpy.dtype(dtype)}"
    kind, result = a[2], dtype or (out[2] if out else a[2])
    if kind != b[2] or result not in RESULTS.get(kind, "") or (out and out[2] != result):
        raise TypeError(
            f"cuBLAS multiplies two arrays of float32, float64 or float16 into one of their dtype (float16 also into "
            f"float32); got {asked}"
        )
    if not a[0] or not b[0]:
        raise ValueError(f"a matrix product takes vectors, matrices or stacks of matrices; got {asked}")
    (m, k), (rows, n) = (a[0][-2:] if len(a[0]) > 1 else (1, *a[0])), (b[0][-2:] if len(b[0]) > 1 else (*b[0], 1))
    if k != rows:
        raise ValueError(f"the first matrix needs as many columns as the second has rows; got {asked}")
    try:
        stack = numpy.broadcast_shapes(a[0][:-2], b[0][:-2])
    except ValueError as error:
        raise ValueError(f"the leading axes do not broadcast: {asked}") from error
    shape = (*stack, *((m,) if len(a[0]) > 1 else ()), *((n,) if len(b[0]) > 1 else ()))
    if out is not None and out[0] != shape:
        raise ValueError(f"the product has the shape {shape}; got {asked}")
    if max(m, n, k, math.prod(stack)) > _LARGEST:
        raise ValueError(f"cuBLAS takes at most {_LARGEST:,} rows, columns or matrices; got {asked}")
    made = Plan(shape, result, kind, k, stack)
    if not math.prod(shape) or not k:
        return made
    row, column = len(a[0]) == 1, len(b[0]) == 1
    out = out or (shape, _contiguous_strides(shape, result), result)
    first = _operand(_matrices(a, row, False), stack)
    second = _operand(_matrices(b, False, column), stack)
    target = _operand(_matrices(out, row, column), stack)
    if target is not None and math.prod(stack) > 1 and not target.step:  # the matrices would lie on each other
        target = None
    if target is None or first is None or second is None:
        return made._replace(copied=(first is None, second is None, target is None))
    swapped = bool(target.transposed)
    if swapped:
        first, second, target, m, n = _turned(second), _turned(first), _turned(target), n, m
    return made._replace(
        swapped=swapped,
        matrices=math.prod(stack),
        sizes=(n, m, k),
        flags=(second.transposed, first.transposed),
        leading=(second.leading, first.leading, target.leading),
        steps=(second.step, first.step, target.step),
        extents=(first.bytes, second.bytes, target.bytes),
        types=(_DATA_TYPE[kind], _DATA_TYPE[result]),
    )


def _matrices(form: Form, row: bool, column: bool) -> Form:
    """Return the form with an axis of length 1 added where a vector stands for a row or a column."""
    (*shape,), (*strides,), kind = form
    if column:
        shape, strides = [*shape, 1], [*strides, 0]
    if row:
        shape, strides = [*shape[:-1], 1, shape[-1]], [*strides[:-1], 0, strides[-1]]
    return tuple(shape), tuple(strides), kind


def _operand(form: Form, stack: tuple[int, ...]) -> Operand | None:
    """Describe (…, rows, columns), broadcast to a stack of matrices; None if cuBLAS cannot read it as it lies."""
    shape, strides, kind = form
    unit = numpy.dtype(kind).itemsize
    if any(stride % unit or stride < 0 for stride in strides):
        return None
    rows, columns = shape[-2:]
    down, along = strides[-2] // unit, strides[-1] // unit
    if (along == 1 or columns == 1) and (down >= columns or rows == 1):
        transposed, lines, width, leading = 0, rows, columns, down if rows > 1 else columns
    elif (down == 1 or rows == 1) and (along >= rows or columns == 1):
        transposed, lines, width, leading = 1, columns, rows, along if columns > 1 else rows
    else:
        return None
    step = _step(shape[:-2], strides[:-2], stack)
    if step is None or leading > _LARGEST:
        return None
    extent = (math.prod(stack) - 1) * (step // unit) + (lines - 1) * leading + width
    return Operand(transposed, leading, step // unit, extent * unit)


def _step(shape: tuple[int, ...], strides: tuple[int, ...], stack: tuple[int, ...]) -> int | None:
    """Return the stride in bytes by which a broadcast stack is walked through, None if one stride does not do."""
    missing = len(stack) - len(shape)
    step = 0
    covered = 1  # matrices that `step` leads through so far, from the last axis on
    for axis in reversed(range(len(stack))):
        if stack[axis] == 1:
            continue
        stride = strides[axis - missing] if axis >= missing and shape[axis - missing] > 1 else 0
        if covered == 1:
            step = stride
        elif stride != step * covered:
            return None
        covered *= stack[axis]
    return step


def _turned(operand: Operand) -> Operand:
    return operand._replace(transposed=1 - operand.transposed)


def _contiguous_strides(shape: tuple[int, ...], kind: str) -> tuple[int, ...]:
    unit = numpy.dtype(kind).itemsize
    return tuple(unit * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def named(form: Form) -> str:
    """Return a form in words, such as ``(2, 3) float32``."""
    return f"{form[0]} {numpy.dtype(form[2])}"
