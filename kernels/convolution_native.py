"""Convolution and its input gradient by the C kernels of ``convolution.c``: directly, without columns."""

from __future__ import annotations

import numpy

from backend import tuning, workspace
from backend.types import Array
from kernels.batch_statistics import Moments, lines_of
from kernels.core.dtypes import acc_dtype
from kernels.core.filters import taps_first
from kernels.core.geometry import Geometry
from kernels.core.native import Function, sharers

_PACK, _FORWARD, _BACKWARD_INPUT = (
    Function("convolution.c", f"convolution_{name}") for name in ("pack", "forward", "backward_input")
)

_LANES = 16
"""The most numbers of a vector: filters are padded to whole vectors."""

_ROOM = 1 << 15
"""Numbers of padded images that are kept in cache at a time, or more where one window needs more."""


def forward(
    source: Array,
    weight: Array,
    bias: Array | None,
    geometry: Geometry,
    groups: int,
    y: Array,
    positive: Array | None,
    measured: bool = False,
) -> Moments | None:
    """Compute ``y`` (N, OH, OW, FN) of ``source`` (N, H, W, C); with ``positive``, a ReLU follows.

    With ``measured``, return the moments of y's channels, taken while its rows are in cache.
    """
    (n, _, ow, fn), c, dtype = y.shape, source.shape[3], y.dtype
    filters, block = _packed(weight, bias, groups, False), geometry.block(c)
    (eh, ew), sw = geometry.extent, geometry.stride[1]
    room = max(_ROOM, eh * ((ow - 1) * sw + ew) * c)

    lines = lines_of(y, measured)
    item_bytes = lines.each * ow * weight[0].size * fn // tuning.PRODUCTS_PER_BYTE
    team = sharers(lines.blocks, item_bytes)
    arrays = source, filters, y, positive, workspace.empty(team * room, dtype), *lines.arrays
    sizes = filters.size, room, *lines.sizes, team
    _FORWARD.share(dtype, lines.blocks, item_bytes, *arrays, block, n, fn, groups, *sizes)
    return lines.moments


def backward_input(gradient: Array, weight: Array, geometry: Geometry, groups: int, dx: Array) -> None:
    """Compute ``dx`` (N, H, W, C) of ``gradient`` (N, OH, OW, FN)."""
    (n, h, w, c), fn, dtype = dx.shape, len(weight), dx.dtype
    filters, block = _packed(weight, None, groups, True), geometry.block(c)
    (eh, ew), (sh, sw) = geometry.extent, geometry.stride
    room = max(_ROOM, (eh // sh + 1) * (w // sw + ew // sw + 2) * fn)

    remainders = min(sw, w)  # of columns, whose lines are apart
    lines = n * h * remainders
    item_bytes = w * weight[0].size * fn // (sh * sw * max(remainders, 1) * tuning.PRODUCTS_PER_BYTE)
    team = sharers(lines, item_bytes)
    arrays = gradient, filters, dx, workspace.empty(team * room, dtype)
    _BACKWARD_INPUT.share(dtype, lines, item_bytes, *arrays, block, n, fn, groups, filters.size, room, team)


def _packed(weight: Array, bias: Array | None, groups: int, backward: bool) -> Array:
    """Return the filters, and biases, in the order in which the kernels read them."""
    fn, own, fh, fw = weight.shape
    depth, width = (fn // groups, own) if backward else (own, fn // groups)
    size = (1 + groups * (fh * fw * depth + 1) * -(-width // _LANES)) * _LANES
    packed, filters = workspace.empty(size, acc_dtype(weight.dtype)), numpy.ascontiguousarray(taps_first(weight))
    bias = None if bias is None else numpy.ascontiguousarray(bias)
    _PACK(weight.dtype, filters, bias, packed, fh * fw, own, fn, groups, int(backward), size)
    return packed
