"""Filters (FN, C / groups, FH, FW) as the matrices that convolutions multiply by."""

from __future__ import annotations

import functools

import numpy

from backend import array_module
from backend.types import Array


def is_depthwise(weight_shape: tuple[int, ...], groups: int) -> bool:
    """Return whether each filter (FN, C / groups, FH, FW) sees one channel of several."""
    return groups > 1 and weight_shape[1] == 1


def taps_first(weight: Array) -> Array:
    """Return the filters in the order in which kernels read them, as a view (FH, FW, C / groups, FN)."""
    return weight.transpose(2, 3, 1, 0)


def filters_in(memory: Array, shape: tuple[int, int, int, int]) -> Array:
    """Return memory (numbers,) as filters of ``shape`` in the order of ``taps_first``: nothing copies them."""
    fn, c_group, fh, fw = shape
    return memory.reshape(fh, fw, c_group, fn).transpose(3, 2, 0, 1)


def filter_matrices(weight: Array, groups: int, dtype: numpy.dtype) -> list[Array]:
    """Return each group's filters as (FH·FW·C/groups, FN/groups), C-contiguous, of ``dtype``."""
    fn, c_group, fh, fw = weight.shape
    if groups == 1:
        matrix = weight.transpose(2, 3, 1, 0).reshape(-1, fn)
        return [array_module(weight).ascontiguousarray(matrix, dtype=dtype)]
    by_group = weight.reshape(groups, fn // groups, c_group, fh, fw).transpose(0, 3, 4, 2, 1)
    stacked = by_group.reshape(groups, fh * fw * c_group, fn // groups)
    return list(array_module(weight).ascontiguousarray(stacked, dtype=dtype))


def flipped(weight: Array, groups: int) -> Array:
    """Return the filters of the transposed map: (C, FN / groups, FH, FW), rows and columns reversed."""
    fn, c_group, fh, fw = weight.shape
    if groups == 1:
        return weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    by_group = weight[:, :, ::-1, ::-1].reshape(groups, fn // groups, c_group, fh, fw)
    return by_group.transpose(0, 2, 1, 3, 4).reshape(groups * c_group, fn // groups, fh, fw)


@functools.lru_cache(maxsize=1024)
def group_ranges(total: int, groups: int) -> tuple[slice, ...]:
    """Return the channels, or filters, of each group."""
    size = total // groups
    return tuple(slice(group * size, (group + 1) * size) for group in range(groups))
