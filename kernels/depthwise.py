"""Depthwise convolution: each filter sees one channel, so it is a weighted sum of shifted images, not a matrix product.

Sifre, "Rigid-motion scattering for image classification" (2014), section 6.2. All arrays are channels-last memory.
FN = C·M filters: channel c has the filters c·M … c·M + M - 1. Both libraries compute it by the same calls.
"""

from __future__ import annotations

import numpy

from backend import array_module, workspace
from backend.types import Array
from kernels.core.dtypes import acc_dtype
from kernels.core.geometry import Geometry
from kernels.core.tiling import Part, cut, parallel_for
from kernels.sums import axis_sums, column_sums


def forward(source: Array, weight: Array, y: Array, geometry: Geometry) -> None:
    """Write y (N, OH, OW, FN) for source (N, H, W, C) and weight (FN, 1, FH, FW)."""
    dtype = acc_dtype(source.dtype)
    filters = _by_tap(weight, source.shape[3], dtype)

    def add(part: Part) -> None:
        # (n, H, W, C, 1) · (C, M) → (n, OH, OW, C, M)
        pixels = source[part.images][..., None]
        total = workspace.zeros((*y[part.images].shape[:3], *filters.shape[2:]), dtype)
        for tap in geometry.taps:
            product = pixels[:, tap.in_rows, tap.in_columns] * filters[tap.row, tap.column]
            total[:, tap.out_rows, tap.out_columns] += product
        y[part.images] = total.reshape(y[part.images].shape)

    parallel_for(add, _parts(y), source)


def backward_input(dy: Array, weight: Array, dx: Array, geometry: Geometry) -> None:
    """Write dx (N, H, W, C) for dy (N, OH, OW, FN) and weight (FN, 1, FH, FW)."""
    dtype = acc_dtype(dy.dtype)
    c, multiplier = dx.shape[3], len(weight) // dx.shape[3]
    filters = _by_tap(weight, c, dtype)

    def add(part: Part) -> None:
        gradient = dy[part.images].reshape(-1, *dy.shape[1:3], c, multiplier)
        total = workspace.zeros(dx[part.images].shape, dtype)
        for tap in geometry.taps:
            product = gradient[:, tap.out_rows, tap.out_columns] * filters[tap.row, tap.column]
            total[:, tap.in_rows, tap.in_columns] += axis_sums(product, 4)
        dx[part.images] = total

    parallel_for(add, _parts(dy), dy)


def backward_weight(source: Array, dy: Array, dweight: Array, geometry: Geometry) -> None:
    """Write dweight (FN, 1, FH, FW) for source (N, H, W, C) and dy (N, OH, OW, FN)."""
    dtype = acc_dtype(source.dtype)
    c, fn = source.shape[3], dy.shape[3]
    pixels, gradient = source[..., None], dy.reshape(*dy.shape[:3], c, fn // c)
    dweight[...] = 0  # taps that only meet padding
    for tap in geometry.taps:
        product = pixels[:, tap.in_rows, tap.in_columns].astype(dtype, copy=False)
        product = product * gradient[:, tap.out_rows, tap.out_columns]
        dweight[:, 0, tap.row, tap.column] = column_sums(product.reshape(-1, fn))


def _by_tap(weight: Array, channels: int, dtype: numpy.dtype) -> Array:
    """Return (FN, 1, FH, FW) as (FH, FW, C, M), contiguous."""
    fn, _, fh, fw = weight.shape
    filters = weight.reshape(channels, fn // channels, fh, fw).transpose(2, 3, 0, 1)
    return array_module(weight).ascontiguousarray(filters, dtype=dtype)


def _parts(y: Array) -> list[Part]:
    n, oh, ow, fn = y.shape
    return cut(n, 1, oh * ow * fn * acc_dtype(y.dtype).itemsize, array_module(y))
