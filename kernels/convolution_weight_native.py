"""The weight gradient of a convolution by a C kernel; ``convolution_weight.c`` describes how it works."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy

from backend import tuning, workspace
from backend.types import Array
from kernels.core.dtypes import acc_dtype
from kernels.core.filters import taps_first
from kernels.core.geometry import Geometry
from kernels.core.layout import target
from kernels.core.native import Function, library, sharers

_SUM, _TOTAL = (Function("convolution_weight.c", name) for name in ("convolution_weight", "convolution_weight_total"))

_UNIT = 16  # filters by which blocks are cut
_BLOCK = 4  # units in a block
_MOST_PARTS = 16
_PART_WINDOWS, _PART_PRODUCTS = 512, 1 << 21  # the least that pay for the partial sums of another part
_FEW_CHANNELS = 6  # of which rows of x are copied; as in the C source
_BAND_WINDOWS, _MOST_BAND_ROWS = 256, 128
_BAND_BYTES = 24 << 10  # of x and dy, where vectors of 64 bytes need them in L1: L2 brings too little
_PRODUCTS_PER_BYTE = 10  # multiplied and added in the time in which a byte is copied


class Plan(NamedTuple):
    """How the work is cut, by shapes and the level of processor alone.

    Attributes:
        parts: into which all rows of windows are cut, each with its partial sums.
        units: of 16 filters in each group.
        blocks: of units in each group.
        band_rows: of windows that are worked on at a time.
        room: numbers of scratch memory.
    """

    parts: int
    units: int
    blocks: int
    band_rows: int
    room: int


@functools.lru_cache(maxsize=1024)
def plan(images: int, geometry: Geometry, channels: int, filters: int, groups: int, itemsize: int, level: str) -> Plan:
    """Return how the work is cut for sums of ``itemsize`` bytes on a level of processor."""
    (oh, ow), own = geometry.output, channels // groups
    k, units = own * geometry.kernel[0] * geometry.kernel[1], -(-filters // groups // _UNIT)
    blocks, rows, windows = -(-units // _BLOCK), images * oh, images * oh * ow
    most = tuning.PARTIAL_SUM_BYTES // (k * groups * units * _UNIT * itemsize)
    worth = min(windows // _PART_WINDOWS, windows * k * filters // _PART_PRODUCTS)
    block, column = min(units, _BLOCK) * _UNIT, own * (geometry.kernel[0] if own < _FEW_CHANNELS else 1)
    band_windows = _BAND_WINDOWS
    if level == "v4":
        band_windows = min(band_windows, _BAND_BYTES // (itemsize * (block + column * geometry.stride[1])))
    band_rows = min(max(band_windows // ow, 1), _MOST_BAND_ROWS)
    reach = (ow - 1) * geometry.stride[1] + geometry.extent[1]
    room = band_rows * (ow * block + reach * column)
    return Plan(max(min(_MOST_PARTS, rows, most, worth), 1), units, blocks, band_rows, room)


def backward_weight(
    source: Array, gradient: Array, geometry: Geometry, groups: int, out: Array, bias_out: Array | None
) -> None:
    """Write the gradients of filters and bias, as ``kernels.convolution.convolution_backward_weight`` says."""
    images, filters, channels, dtype = len(source), len(out), source.shape[3], acc_dtype(source.dtype)
    parts, units, blocks, band_rows, room = plan(
        images, geometry, channels, filters, groups, dtype.itemsize, library().level
    )
    taps, slots, block = geometry.kernel[0] * geometry.kernel[1], groups * units * _UNIT, geometry.block(channels)
    sums = workspace.empty(parts * taps * (channels // groups) * slots, dtype)
    bias_sums = None if bias_out is None else numpy.empty(parts * slots, dtype)
    numbers = images, filters, groups, parts, units, blocks, band_rows, room

    items = parts * groups * blocks
    item_bytes = 2 * gradient.size * out.size // filters // _PRODUCTS_PER_BYTE // items
    team = sharers(items, item_bytes)
    scratch = workspace.empty(team * room, dtype)
    _SUM.share(source.dtype, items, item_bytes, source, gradient, sums, bias_sums, scratch, block, *numbers, team)
    memory, given = taps_first(out), out.dtype if acc_dtype(out.dtype) == dtype else dtype
    dweight, db = target(memory, given), None if bias_out is None else target(bias_out, given)

    rows, arrays = taps * channels // groups, (sums, bias_sums, dweight, db)
    _TOTAL.share(given, rows, sums.nbytes // rows, *arrays, block, filters, groups, parts, units, blocks)
    for array, computed in ((memory, dweight), (bias_out, db)):
        if array is not None and computed is not array:
            array[...] = computed
