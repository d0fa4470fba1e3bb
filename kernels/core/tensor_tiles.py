"""Choose how a product of a convolution is computed on tensor cores: its tiles, its copies and its grid.

All of it depends on shapes, dtype and alignment alone, and not on the GPU.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy

from kernels.core.geometry import Geometry
from kernels.core.launch import _NARROW, Kernel

FORWARD, BACKWARD_INPUT, BACKWARD_WEIGHT = 1, 2, 3
"""The products of a convolution; the macro ``KERNEL``."""

KERNELS = {FORWARD: "conv_forward", BACKWARD_INPUT: "conv_backward_input", BACKWARD_WEIGHT: "conv_backward_weight"}
"""Their kernels."""

MOST_TAPS = 16
"""Along an axis: a thread keeps a bit for each."""

_BLOCKS = 264  # that fill a large GPU twice over
_SHARED = 48 << 10  # bytes of a block's shared memory that every GPU gives
_CHANNELS = 16  # of a block of convolution_weight_halo.cu
_LEAST_KEPT, _MOST_KEPT = 4, 9  # taps, of which a warp keeps the sums there; with fewer it would not have 16 rows


class Tile(NamedTuple):
    """The macros of tensor_cores.cu for a block: rows, columns and depth of its tile, tiles in shared memory at a time,
    and how many warps share the rows and the columns."""

    BM: int
    BN: int
    BK: int
    STAGES: int
    WM: int
    WN: int

    @property
    def threads(self) -> int:
        """Return the threads of a block."""
        return 32 * self.WM * self.WN


# By dtype, then by columns of the result: the first row whose number is not exceeded. Measured on an H200.
_LARGE = {
    "float32": {16: Tile(128, 16, 16, 3, 4, 1), 32: Tile(128, 32, 16, 3, 4, 1), None: Tile(128, 64, 16, 3, 2, 2)},
    "float16": {16: Tile(128, 16, 32, 3, 4, 1), 32: Tile(128, 32, 32, 3, 4, 1), None: Tile(128, 64, 32, 3, 2, 2)},
}
_SMALL = {  # where the large ones would make too few blocks
    "float32": {16: Tile(64, 16, 16, 4, 4, 1), 32: Tile(64, 32, 16, 3, 2, 2), None: Tile(64, 64, 16, 3, 2, 2)},
    "float16": {16: Tile(64, 16, 32, 4, 4, 1), 32: Tile(64, 32, 32, 3, 2, 2), None: Tile(64, 64, 32, 3, 2, 2)},
}
_WEIGHT = {
    "float32": {16: Tile(64, 16, 32, 3, 4, 1), 32: Tile(64, 32, 16, 4, 2, 2), None: Tile(128, 64, 16, 3, 2, 2)},
    "float16": {16: Tile(64, 16, 32, 4, 4, 1), 32: Tile(64, 32, 32, 4, 2, 2), None: Tile(64, 64, 32, 4, 2, 2)},
}


class Variant(NamedTuple):
    """A text as it is compiled: a product, for one dtype, tile and width of copies; with ``halo`` pixels stay in shared
    memory for all taps, of a weight gradient for so many ``taps``; with 2, while those of other channels are copied."""

    product: int
    dtype: str
    tile: Tile
    passes: int
    vector: int
    wide: int
    wide_index: bool = False
    halo: int = 0
    taps: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        tile = "x".join(map(str, self.tile))
        copies = f"{self.passes} pass(es), copies of {self.vector}, {self.wide}"
        halo = (
            f", halo {self.halo}" + (" of {}x{} taps".format(*self.taps) if self.taps[0] else "") if self.halo else ""
        )
        return f"{KERNELS[self.product]} {self.dtype} {tile}, {copies}{halo}"

    @property
    def file(self) -> str:
        """Return the name of the file with the product's kernel."""
        if self.product != BACKWARD_WEIGHT:
            return "convolution.cu"
        return "convolution_weight_halo.cu" if self.halo else "convolution_weight.cu"

    @property
    def code(self) -> str:
        """Return the source as the compiler gets it."""
        macros = self.tile._asdict() | {
            "PASSES": self.passes,
            "VECTOR": self.vector,
            "WIDE": self.wide,
            "KERNEL": self.product,
            "HALO": self.halo,
            "TAPS_DOWN": self.taps[0],
            "TAPS_ACROSS": self.taps[1],
        }
        lines = [f"#define {name} {value}" for name, value in macros.items()]
        return "\n".join([*lines, Kernel(self.file, KERNELS[self.product]).code(self.dtype, self.wide_index)])


class Plan(NamedTuple):
    """The launch of a product: its grid, for a weight gradient the windows of each part, or the places where pixels
    stay in shared memory, and the bytes of that."""

    variant: Variant
    grid: tuple[int, int, int]
    part_pixels: int = 0
    shared: int = 0


@functools.lru_cache(maxsize=4096)
def plan(
    product: int,
    dtype: str,
    n: int,
    c: int,
    fn: int,
    geometry: Geometry,
    groups: int,
    one_pass: bool,
    source_aligned: int,
    other_aligned: int,
) -> Plan:
    """Choose tile, copies and grid for a product of these shapes; the last two arguments are the arrays' alignments in
    bytes.
    """
    windows, (fh, fw), (sh, sw) = n * geometry.output[0] * geometry.output[1], geometry.kernel, geometry.stride
    itemsize = numpy.dtype(dtype).itemsize
    passes = 1 if one_pass or dtype == "float16" else 3
    in_group, out_group = c // groups, fn // groups
    if product == BACKWARD_INPUT:
        vector = wide = _together(itemsize, min(source_aligned, other_aligned), out_group, fn)
        rows, columns, others = n * -(-geometry.image[0] // sh) * -(-geometry.image[1] // sw), in_group, sh * sw
    else:
        vector = _together(itemsize, source_aligned, in_group, c)
        wide = _together(itemsize, other_aligned, out_group, fn)
        rows, columns, others = (windows if product == FORWARD else fh * fw * in_group), out_group, 1
    if product == BACKWARD_WEIGHT:
        tile = _of_columns(_WEIGHT[dtype], columns)
    else:
        tile = _of_columns(_LARGE[dtype], columns)
        if vector == 1 or -(-rows // tile.BM) * -(-columns // tile.BN) * others * groups < _BLOCKS - 8:
            tile = _of_columns(_SMALL[dtype], columns)
    down, across = -(-rows // tile.BM), -(-columns // tile.BN) * groups
    most = max(n * geometry.image[0] * geometry.image[1] * c, windows * fn, fh * fw * in_group * fn)
    if product != BACKWARD_WEIGHT:
        kept = _halo_of_windows(tile, itemsize, product, n, in_group if product == FORWARD else out_group, geometry)
        wide_index = max(most, n * kept.places) > _NARROW
        variant = Variant(product, dtype, kept.tile, passes, vector, wide, wide_index, kept.halo)
        return Plan(variant, (down, across, others), shared=kept.shared)
    kept = _halo_of_weights(tile, itemsize, in_group, out_group, geometry)
    tile = kept.tile
    if kept.halo:
        windows = n * kept.places
        down, across = in_group // _CHANNELS, -(-out_group // tile.BN) * groups
    parts = max(1, min(_parts_that_fill(down * across), windows // (4 * tile.BK)))
    part_pixels = -(-windows // (parts * tile.BK)) * tile.BK
    parts = -(-windows // part_pixels)
    wide_index = max(most, windows, parts * (fh * fw * in_group + 1) * fn) > _NARROW
    taps = geometry.kernel if kept.halo else (0, 0)
    variant = Variant(product, dtype, tile, passes, vector, wide, wide_index, kept.halo, taps)
    return Plan(variant, (down, across, parts), part_pixels, kept.shared)


class _Kept(NamedTuple):
    """Which pixels stay in shared memory for all taps: those of so many steps of channels at a time, or of none; the
    tile then, the bytes of a block's shared memory, and the places of an image with its padding."""

    tile: Tile
    halo: int = 0
    shared: int = 0
    places: int = 0


def _halo_of_windows(tile: Tile, itemsize: int, product: int, n: int, channels: int, geometry: Geometry) -> _Kept:
    """Return what of a block's windows stays in shared memory (core/windows.cu): nothing where that is too much, or
    they come tap by tap for another reason.

    Args:
        channels: that are summed over, of a group.
    """
    if geometry.stride != (1, 1) or not channels or channels % 16 or math.prod(geometry.kernel) < tile.STAGES:
        return _Kept(tile)
    height, width = geometry.output if product == FORWARD else geometry.image
    reach, reach_across = ((k - 1) * d for k, d in zip(geometry.kernel, geometry.dilation, strict=True))
    # Blocks begin at the same places of images again after `period` of them.
    rows, period = n * height * width, height * width // math.gcd(height * width, tile.BM)
    first = numpy.arange(min(period, -(-rows // tile.BM))) * tile.BM
    first, last = (
        each // (height * width) * (height + reach) + each // width % height
        for each in (first, numpy.minimum(first + tile.BM, rows) - 1)
    )
    pixels = int((last - first).max() + 1 + reach) * (width + reach_across)
    for depth in (32, 16):  # all channels at once, if they are no more; else steps of float32 are the shorter ones
        if channels % depth or (channels > depth == 32 and itemsize == 4):
            continue
        deep, halo = depth + 16 // itemsize, min(channels // depth, 2)
        filters = depth * (tile.BN + 8) if product == FORWARD else tile.BN * deep
        shared = (tile.STAGES * filters + halo * pixels * deep) * itemsize
        if shared <= _SHARED:
            return _Kept(tile._replace(BK=depth), halo, shared, (height + reach) * (width + reach_across))
    return _Kept(tile)


def _halo_of_weights(tile: Tile, itemsize: int, channels: int, filters: int, geometry: Geometry) -> _Kept:
    """Return what stays in shared memory for a weight gradient (convolution_weight_halo.cu): nothing where that is too
    much, or does not pay.

    Args:
        channels, filters: of a group.
    """
    taps, (fh, fw), (top, bottom, left, right) = math.prod(geometry.kernel), geometry.kernel, geometry.pads
    sides = geometry.image[0] + max(top, bottom), geometry.image[1] + max(left, right)
    fits = geometry.output[0] <= sides[0] and geometry.output[1] <= sides[1]
    if geometry.stride != (1, 1) or not fits or not _LEAST_KEPT <= taps <= _MOST_KEPT:
        return _Kept(tile)
    if not channels or channels % _CHANNELS or filters > 64:
        return _Kept(tile)
    chosen = _weight_tile(taps, filters)
    reach = (fh - 1) * geometry.dilation[0] * sides[1] + (fw - 1) * geometry.dilation[1]
    numbers = (chosen.BK + reach) * (_CHANNELS + 8) + chosen.BK * (chosen.BN + 8)
    shared = max(chosen.STAGES * numbers * itemsize, (chosen.WM - 1) * chosen.WN * taps * 8 * 32 * 4)
    return _Kept(chosen, 1, shared, math.prod(sides)) if shared <= _SHARED else _Kept(tile)


def _weight_tile(taps: int, filters: int) -> Tile:
    """Return the tile of convolution_weight_halo.cu, whose four warps have 16 filters each, or share the depth."""
    warps = 1 if filters <= 16 else 2 if filters <= 32 else 4
    return Tile(_CHANNELS * taps, 16 * warps, 32 if warps == 4 else 64, 2, 4 // warps, warps)


def _parts_that_fill(blocks: int) -> int:
    """Return into how many parts, of ``blocks`` blocks each, a weight gradient is cut.

    As many as run at once, rounded down: one block more would wait for all others. (64 → 128 channels at 56² took 502
    µs in 27 parts of 10 blocks, 371 in 26.) Where less than nine tenths would be used, as many as run in two waves.
    """
    parts = max(1, _BLOCKS // blocks)
    return parts if 10 * parts * blocks >= 9 * _BLOCKS else max(1, 2 * _BLOCKS // blocks)


def blocks_across(columns: int, groups: int) -> int:
    """Return how many blocks of ``columns`` columns in each group lie along a grid's second axis, by every table."""
    return groups * -(-columns // 64)


def _of_columns(tiles: dict[Any, Tile], columns: int) -> Tile:
    return next(tile for most, tile in tiles.items() if most is None or columns <= most)


def _together(itemsize: int, aligned: int, *counts: int) -> int:
    """Return how many neighbouring numbers a copy of at most 16 bytes takes, where all counts are multiples of it."""
    together = max(aligned // itemsize, 1)
    while any(count % together for count in counts):
        together //= 2
    return together


def variants() -> list[Variant]:
    """Return the texts that a table of their resources has: every tile, with copies of 16 bytes and 32-bit indices; as
    a halo the large ones, for channels that are all there at once or, with 64 columns, in steps; weight gradients of
    3×3 taps."""
    found = []
    for dtype in _LARGE:
        vector = 16 // numpy.dtype(dtype).itemsize
        passes = 3 if dtype == "float32" else 1
        for product in KERNELS:
            tables = (_WEIGHT,) if product == BACKWARD_WEIGHT else (_LARGE, _SMALL)
            found += [
                Variant(product, dtype, tile, passes, vector, vector) for t in tables for tile in t[dtype].values()
            ]
            if product == BACKWARD_WEIGHT:
                halos = [(_weight_tile(9, filters), 1, (3, 3)) for filters in (16, 32, 64)]
            else:
                depths = {16: 16, 32: 32, 64: 16 if dtype == "float32" else 32}
                halos = [
                    (tile._replace(BK=depths[tile.BN]), 1 + (tile.BN == 64), (0, 0)) for tile in _LARGE[dtype].values()
                ]
            found += [Variant(product, dtype, each[0], passes, vector, vector, False, *each[1:]) for each in halos]
    return found
