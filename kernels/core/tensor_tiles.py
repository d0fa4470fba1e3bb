"""Choose how a product of a convolution is computed on tensor cores: its tiles, its copies and its grid.

All of it depends on shapes, dtype and alignment alone, and not on the GPU.
"""

from __future__ import annotations

import functools
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
    """A text as it is compiled: one of the products, for one dtype, tile and width of copies."""

    product: int
    dtype: str
    tile: Tile
    passes: int
    vector: int
    wide: int
    wide_index: bool = False

    def __str__(self) -> str:
        tile = "x".join(map(str, self.tile))
        return (
            f"{KERNELS[self.product]} {self.dtype} {tile}, {self.passes} pass(es), copies of {self.vector}, {self.wide}"
        )

    @property
    def file(self) -> str:
        """Return the name of the file with the product's kernel."""
        return "convolution_weight.cu" if self.product == BACKWARD_WEIGHT else "convolution.cu"

    @property
    def code(self) -> str:
        """Return the source as the compiler gets it."""
        macros = self.tile._asdict() | {
            "PASSES": self.passes,
            "VECTOR": self.vector,
            "WIDE": self.wide,
            "KERNEL": self.product,
        }
        lines = [f"#define {name} {value}" for name, value in macros.items()]
        return "\n".join([*lines, Kernel(self.file, KERNELS[self.product]).code(self.dtype, self.wide_index)])


class Plan(NamedTuple):
    """The launch of a product: its grid, and for a weight gradient the pixels of each part."""

    variant: Variant
    grid: tuple[int, int, int]
    part_pixels: int = 0


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
        return Plan(Variant(product, dtype, tile, passes, vector, wide, most > _NARROW), (down, across, others))
    parts = max(1, min(_parts_that_fill(down * across), windows // (4 * tile.BK)))
    part_pixels = -(-windows // (parts * tile.BK)) * tile.BK
    parts = -(-windows // part_pixels)
    most = max(most, parts * (fh * fw * in_group + 1) * fn)
    return Plan(Variant(product, dtype, tile, passes, vector, wide, most > _NARROW), (down, across, parts), part_pixels)


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
    """Return the texts that a table of their resources has: every tile, with copies of 16 bytes and 32-bit indices."""
    found = []
    for product in KERNELS:
        for dtype in _LARGE:
            tables = (_WEIGHT,) if product == BACKWARD_WEIGHT else (_LARGE, _SMALL)
            vector = 16 // numpy.dtype(dtype).itemsize
            passes = 3 if dtype == "float32" else 1
            found += [
                Variant(product, dtype, tile, passes, vector, vector) for t in tables for tile in t[dtype].values()
            ]
    return found
