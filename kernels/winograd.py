"""3×3 convolution at stride 1 by Winograd's minimal filtering, F(4×4, 3×3): a quarter of the multiplications.

A tile of 4×4 outputs comes from 6×6 inputs. Both are transformed so that the 144 products of a tile and a channel
become 36, and the sums over channels become 36 matrix products (Lavin and Gray, "Fast algorithms for convolutional
neural networks", CVPR 2016, section 4.1, with the interpolation points 0, ±1, ±2). The transforms are C kernels, or
matrix products, too: those along rows and columns at once, as one 36×36 matrix.

Rounding errors are larger than the direct sum's: about 1e-5 of the largest result in float32, not 1e-6. float16 is
computed in float32.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy

from backend import array_module, profiling, workspace
from backend.checks import instance, whole
from backend.types import Array
from kernels import convolution as direct
from kernels.activations import rectify
from kernels.core.checks import check_convolution
from kernels.core.dispatch import implementation
from kernels.core.dtypes import acc_dtype
from kernels.core.filters import flipped
from kernels.core.geometry import Geometry
from kernels.core.layout import as_nchw, target, to_nhwc
from kernels.core.native import Function
from kernels.core.tiling import Part, cut, parallel_for, partial_sums
from kernels.core.window import Window
from kernels.gemm import add_rows, matmul_part
from kernels.im2col import padded, windows
from kernels.sums import column_sums

_TILES, _OUTPUTS, _WEIGHTS = (Function("winograd.c", f"winograd_{name}") for name in ("tiles", "outputs", "weights"))

TILE, PATCH = 4, 6
"""Outputs and inputs of a tile, along each axis."""

_LEAST_TILES = 64
"""Tiles of a part, for which all transformed filters are read: with 384 channels these are 21 MB."""

_TILE_WINDOW, _PATCH_WINDOW = Window(TILE, TILE), Window(PATCH, TILE)

_INPUT = numpy.array(
    [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0],
     [0, 4, 0, -5, 0, 1]]
)  # fmt: skip
_FILTER = numpy.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
_OUTPUT = numpy.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])


def check_window(window: Window, groups: int) -> None:
    """Raise a ValueError unless this file can compute the convolution."""
    instance("window", window, Window, "a Window")
    if window.kernel != (3, 3) or window.stride != (1, 1) or window.dilation != (1, 1) or groups != 1:
        raise ValueError(
            f"winograd needs 3x3 filters, stride 1, no dilation and one group, got {window} and {groups} group(s)"
        )


@profiling.operation
def convolution(
    x: Array, weight: Array, bias: Array | None, window: Window, groups: int = 1, relu: bool = False
) -> Any:
    """Compute what ``kernels.convolution.convolution`` does, for windows that ``check_window`` accepts."""
    groups = whole("groups", groups, 1)
    check_window(window, groups)
    geometry = check_convolution(window, groups, x=x, weight=weight, bias=bias)
    return _convolve(x, weight, bias, geometry, relu)


def _convolve(x: Array, weight: Array, bias: Array | None, geometry: Geometry, relu: bool = False) -> Any:
    source, fn = to_nhwc(x), len(weight)
    y = workspace.empty((len(x), *geometry.output, fn), x.dtype)
    positive = workspace.empty(y.shape, bool) if relu else None
    library, dtype = array_module(x, weight), acc_dtype(x.dtype)
    filters = _filters(weight, dtype)
    patches_of = implementation(x, _patches, _patches, _patches_native)
    write = implementation(x, _write, _write, _write_native)

    def multiply(part: Part) -> None:
        products = matmul_part(patches_of(source, geometry, part, dtype), filters)
        write(products, bias, y[part.images], None if positive is None else positive[part.images], part)

    parallel_for(multiply, _parts(y.shape, x.shape[1], dtype, library), x)
    return as_nchw(y) if positive is None else (as_nchw(y), as_nchw(positive))


@profiling.operation
def convolution_backward_input(
    dy: Array, weight: Array, input_shape: tuple[int, int, int, int], window: Window, groups: int = 1
) -> Array:
    """Compute what ``kernels.convolution.convolution_backward_input`` does: a convolution with the flipped filters."""
    groups = whole("groups", groups, 1)
    check_window(window, groups)
    geometry = check_convolution(window, groups, input_shape, dy=dy, weight=weight)
    if geometry.mirrored is None:  # there are windows that see padding alone
        return direct.convolution_backward_input(dy, weight, input_shape, window)
    return _convolve(dy, flipped(weight, 1), None, geometry.mirrored)


@profiling.operation
def convolution_backward_weight(
    x: Array,
    dy: Array,
    weight_shape: tuple[int, int, int, int],
    window: Window,
    groups: int = 1,
    out: Array | None = None,
    bias_out: Array | None = None,
) -> Array:
    """Compute what ``kernels.convolution.convolution_backward_weight`` does, by the transposed transforms."""
    groups = whole("groups", groups, 1)
    check_window(window, groups)
    geometry = check_convolution(window, groups, None, weight_shape, x=x, dy=dy, out=out, bias_out=bias_out)
    fn, c = weight_shape[:2]
    library, dtype = array_module(x, dy), acc_dtype(x.dtype)
    source, gradient = to_nhwc(x), to_nhwc(dy)
    patches_of = implementation(x, _patches, _patches, _patches_native)
    tiles_of = implementation(x, _gradients, _gradients, _gradients_native)
    parts = partial_sums(_parts(gradient.shape, c, dtype, library), PATCH * PATCH * c * fn * dtype.itemsize)
    totals = workspace.empty((len(parts), PATCH * PATCH, c, fn), dtype)

    def add(index: int) -> None:
        for part in parts[index]:
            tiles = tiles_of(gradient[part.images], part, dtype)
            patches = patches_of(source, geometry, part, dtype)
            if part is parts[index][0]:
                matmul_part(patches.swapaxes(-2, -1), tiles, totals[index])
            else:
                add_rows(patches, tiles, totals[index])

    parallel_for(add, range(len(parts)), x)
    if bias_out is not None:
        column_sums(gradient.reshape(-1, fn), out=bias_out)
    result = library.empty(weight_shape, x.dtype) if out is None else out
    implementation(x, _weights, _weights, _weights_native)(totals, result)
    return result


@functools.cache
def _matrix(name: str, dtype: str, library: str) -> Array:
    """Return a transform along both axes as one matrix: inputs (36, 36), filters (36, 9), outputs (16, 36)."""
    one = {"input": _INPUT, "filter": _FILTER, "output": _OUTPUT}[name]
    matrix = numpy.kron(one, one).astype(dtype)
    if library == "numpy":
        return matrix
    import cupy

    return cupy.asarray(matrix)


def _parts(output: tuple[int, ...], channels: int, dtype: numpy.dtype, library: Any) -> list[Part]:
    """Cut (images, rows of tiles) into parts whose patches and transformed patches together fit a column buffer."""
    n, oh, ow, fn = output
    down, across = -(-oh // TILE), -(-ow // TILE)
    row_bytes = 2 * across * PATCH * PATCH * max(channels, fn) * dtype.itemsize
    return cut(n, down, row_bytes, library, -(-_LEAST_TILES // max(across, 1)))


def _filters(weight: Array, dtype: numpy.dtype) -> Array:
    """Return the transformed filters: (36, C, FN)."""
    library = array_module(weight)
    fn, c = weight.shape[:2]
    taps = library.ascontiguousarray(weight.transpose(2, 3, 1, 0), dtype=dtype).reshape(9, c * fn)
    return matmul_part(_matrix("filter", dtype.name, library.__name__), taps).reshape(PATCH * PATCH, c, fn)


def _patches(source: Array, geometry: Geometry, part: Part, dtype: numpy.dtype) -> Array:
    """Return the transformed patches of a part: (36, tiles, C)."""
    library = array_module(source)
    c, (top, _, left, _), (_, ow) = source.shape[3], geometry.pads, geometry.output
    down = part.rows.stop - part.rows.start
    across = -(-ow // TILE)
    band = padded(
        source[part.images], part.rows.start * TILE - top, down * TILE + 2, -left, across * TILE + 2
    )  # fmt: skip
    tiles = windows(band, _PATCH_WINDOW.over(band.shape[1:3]), Part(slice(0, len(band)), slice(0, down)))
    patches = workspace.empty((PATCH, PATCH, len(band), down, across, c), dtype)
    patches[...] = tiles.transpose(3, 4, 0, 1, 2, 5)
    transformed = matmul_part(_matrix("input", dtype.name, library.__name__), patches.reshape(PATCH * PATCH, -1))
    return transformed.reshape(PATCH * PATCH, -1, c)


def _patches_native(source: Array, geometry: Geometry, part: Part, dtype: numpy.dtype) -> Array:
    (top, _, left, _), (_, ow) = geometry.pads, geometry.output
    return _tiles_native(source[part.images], part.rows.start * TILE - top, -left, ow, part, dtype, gradient=False)


def _gradients_native(gradient: Array, part: Part, dtype: numpy.dtype) -> Array:
    return _tiles_native(gradient, part.rows.start * TILE, 0, gradient.shape[2], part, dtype, gradient=True)


def _tiles_native(
    images: Array, first_row: int, first_column: int, width: int, part: Part, dtype: numpy.dtype, gradient: bool
) -> Array:
    """Return transformed tiles (36, tiles, C) of the images of a part, from a row and a column on."""
    n, h, w, c = images.shape
    down, across = part.rows.stop - part.rows.start, -(-width // TILE)
    made = workspace.empty((PATCH * PATCH, n * down * across, c), dtype)
    _TILES(images.dtype, images, made, n, h, w, c, first_row, first_column, down, across, int(gradient))
    return made


def _weights(totals: Array, out: Array) -> None:
    """Add up parts (parts, 36, C, FN), transform them to gradients of filters, and write these to (FN, C, 3, 3)."""
    (fn, c), library = out.shape[:2], array_module(out)
    to_filters = _matrix("filter", totals.dtype.name, library.__name__).T
    total = workspace.zeros(totals.shape[1:], totals.dtype)
    for part in totals:
        total += part
    by_tap = matmul_part(to_filters, total.reshape(PATCH * PATCH, -1))
    out[...] = by_tap.reshape(3, 3, c, fn).transpose(3, 2, 0, 1)


def _weights_native(totals: Array, out: Array) -> None:
    (fn, c), parts, written = out.shape[:2], len(totals), target(out, out.dtype)
    channel_bytes = (parts + 1) * PATCH * PATCH * fn * totals.itemsize
    _WEIGHTS.share(out.dtype, c, channel_bytes, totals, written, parts, c, fn)
    if written is not out:
        out[...] = written


def _write_native(products: Array, bias: Array | None, y: Array, positive: Array | None, part: Part) -> None:
    n, h, w, fn = y.shape
    bias, down = None if bias is None else numpy.ascontiguousarray(bias), part.rows.stop - part.rows.start
    row, across = part.rows.start * TILE, -(-w // TILE)
    _OUTPUTS(y.dtype, products, bias, y, positive, n, h, w, fn, row, down, across)


def _write(products: Array, bias: Array | None, y: Array, positive: Array | None, part: Part) -> None:
    """Transform products (36, tiles, FN), and write them with bias and ReLU to their places in y (n, OH, OW, FN)."""
    library = array_module(products)
    tiles = matmul_part(_matrix("output", products.dtype.name, library.__name__), products.reshape(PATCH * PATCH, -1))
    if bias is not None:
        pixels = tiles.reshape(-1, len(bias))
        pixels += bias
    written = _write_tiles(tiles, y, part)
    if positive is not None:
        rectify(written, positive[:, part.rows.start * TILE : part.rows.stop * TILE])


def _gradients(gradient: Array, part: Part, dtype: numpy.dtype) -> Array:
    """Return the transformed tiles of the gradient of outputs (n, OH, OW, FN): (36, tiles, FN)."""
    library = array_module(gradient)
    output = _matrix("output", dtype.name, library.__name__).T
    return matmul_part(output, _read_tiles(gradient, part, dtype)).reshape(PATCH * PATCH, -1, gradient.shape[3])


def _write_tiles(tiles: Array, y: Array, part: Part) -> Array:
    """Write tiles (16, n·down·across·FN) to their places in images (n, OH, OW, FN), and return the rows written.

    What reaches beyond the image is cut off.
    """
    n, oh, ow, fn = y.shape
    down, across, first = part.rows.stop - part.rows.start, -(-ow // TILE), part.rows.start * TILE
    rows = min(oh - first, down * TILE)
    placed = tiles.reshape(TILE, TILE, n, down, across, fn).transpose(2, 3, 0, 4, 1, 5)
    target = y[:, first : first + rows]
    if (rows, ow) == (down * TILE, across * TILE) and target.flags.c_contiguous:
        target.reshape(n, down, TILE, across, TILE, fn)[...] = placed
        return target
    whole = workspace.empty((n, down, TILE, across, TILE, fn), tiles.dtype)
    whole[...] = placed
    target[...] = whole.reshape(n, down * TILE, across * TILE, fn)[:, :rows, :ow]
    return target


def _read_tiles(gradient: Array, part: Part, dtype: numpy.dtype) -> Array:
    """Return the inverse of ``_write_tiles``, with zeros beyond the image: (16, n·down·across·FN)."""
    n, _, ow, fn = gradient.shape
    down, across = part.rows.stop - part.rows.start, -(-ow // TILE)
    band = padded(gradient, part.rows.start * TILE, down * TILE, 0, across * TILE)
    tiles = workspace.empty((TILE, TILE, n, down, across, fn), dtype)
    tiles[...] = windows(band, _TILE_WINDOW.over(band.shape[1:3]), Part(slice(0, n), slice(0, down))).transpose(
        3, 4, 0, 1, 2, 5
    )
    return tiles.reshape(TILE * TILE, -1)
