"""Convolution on tensor cores, without columns: the host's side of ``convolution.cu``, ``convolution_weight.cu`` and
``convolution_weight_halo.cu``.

For CUDA GPUs from compute capability 8.0 on, float32 and float16. float32 is computed as three products of TF32, whose
error is near that of float32 products, or as one where ``backend.allow_tf32`` allows it; sums are float32 always.
``refusal`` says where it cannot be used, and why: there im2col and cuBLAS do the work.

Tiles, and the parts into which a weight gradient is cut, depend on the shapes alone (``kernels.core.tensor_tiles``):
the same bits on every GPU whose tensor cores sum alike. A combination of shapes, dtypes and alignments is checked and
planned at its first launch only.

All arrays are C-contiguous, of one dtype and on the active device: images (N, H, W, C), filters (FH, FW, C / groups,
FN), outputs (N, OH, OW, FN), bias (FN,).
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy

from backend import current_device, profiling, tf32, workspace
from backend.types import Array
from kernels.batch_statistics import Moments, in_ranges
from kernels.core import compiling
from kernels.core.geometry import Geometry, Pair
from kernels.core.tensor_tiles import (
    BACKWARD_INPUT,
    BACKWARD_WEIGHT,
    FORWARD,
    KERNELS,
    MOST_TAPS,
    Plan,
    Variant,
    blocks_across,
    plan,
)

_MOST_BLOCKS = (1 << 16) - 1  # along a grid's second axis, and its third, which has the remainders by the strides
_MOST_NUMBERS = (1 << 31) - 64  # of a weight gradient, which is counted by int
_OLDEST = 80  # sm_80, the first with TF32 and asynchronous copies
_NAMES = ("images", "filters", "outputs", "bias", "positive")
_RANGES = {name: profiling.Range(name, kind="operation") for name in (*KERNELS.values(), "conv_add_parts")}


def refusal(dtype: numpy.dtype, weight_shape: tuple[int, ...], geometry: Geometry, groups: int) -> str:
    """Return why the active GPU does not convolve so; "" where it does: the choice that every convolution makes.

    Args:
        weight_shape: (FN, C / groups, FH, FW).
    """
    return refusal_by(_capability(current_device().index), dtype, weight_shape, geometry.stride, groups)


def active_capability() -> int | None:
    """Return the compute capability of the active device, 80 for 8.0; None for a CPU."""
    device = current_device()
    return _capability(device.index) if device.kind == "cuda" else None


@functools.lru_cache(maxsize=1024)
def refusal_by(capability: int, dtype: numpy.dtype, weight_shape: tuple[int, ...], stride: Pair, groups: int) -> str:
    """Return what ``refusal`` does, of a GPU of compute ``capability``: 80 is 8.0."""
    filters, channels, *kernel = weight_shape
    if dtype.char not in "ef":
        return f"tensor cores sum in float32; the arrays are {dtype}"
    if capability < _OLDEST:
        return f"needs compute capability {_OLDEST / 10}; the GPU has {capability / 10}"
    if max(kernel) > MOST_TAPS:
        return f"takes at most {MOST_TAPS} taps along an axis; the window has {max(kernel)}"
    if stride[0] * stride[1] > _MOST_BLOCKS:
        return f"takes strides with a product of at most {_MOST_BLOCKS}; the window has {stride}"
    if (blocks := blocks_across(max(channels, filters // groups), groups)) > _MOST_BLOCKS:
        return f"takes at most {_MOST_BLOCKS} groups and blocks of channels; these are {blocks}"
    if (numbers := math.prod(weight_shape) + filters) > _MOST_NUMBERS:
        return f"takes at most {_MOST_NUMBERS:,} numbers in filters and bias; these have {numbers:,}"
    return ""


@functools.cache
def _capability(index: int) -> int:
    """Return the compute capability of a GPU, 80 for 8.0."""
    import cupy

    return int(cupy.cuda.Device(index).compute_capability)


@functools.cache
def _compiled(variant: Variant, name: str) -> Any:
    return compiling.compiled(variant.code, name, f"{variant.file} ({variant})")


def forward(
    x: Array,
    filters: Array,
    bias: Array | None,
    geometry: Geometry,
    groups: int,
    y: Array,
    positive: Array | None,
    measured: bool = False,
) -> Moments | None:
    """Compute y = x ⋆ filters + bias; with ``positive``, max(·, 0) of that, and in ``positive`` (bool) where it is > 0.

    With ``measured``, return the moments of the channels of y before that, for ``kernels.batch_norm``.

    Raises:
        TypeError: an array is not on the active device, or of another dtype.
        ValueError: an array is not C-contiguous, or shapes do not belong together.
    """
    if not y.size:
        return None
    launch = _launch_for(FORWARD, geometry, groups, x, filters, y, bias, positive)
    if not measured:
        launch(x, filters, bias, y, positive, None, None)
        return None
    rows, fn = math.prod(y.shape[:-1]), y.shape[-1]
    cut = in_ranges(rows, fn, launch.plan.variant.tile.BM)
    means, squares = (workspace.empty((cut.ranges, fn), numpy.float32) for _ in range(2))
    launch(x, filters, bias, y, positive, means, squares)
    return Moments(means, squares, rows, cut)


def backward_input(dy: Array, filters: Array, geometry: Geometry, groups: int, dx: Array) -> None:
    """Compute ``dx``, the gradient of ``forward`` with respect to ``x``, at any stride without col2im.

    Raises:
        TypeError, ValueError: as ``forward``.
    """
    if dx.size:
        _launch_for(BACKWARD_INPUT, geometry, groups, dx, filters, dy)(dy, filters, dx)


def backward_weight(x: Array, dy: Array, geometry: Geometry, groups: int, dw: Array, dbias: Array | None) -> None:
    """Compute the gradients of ``forward`` with respect to filters and, if there is ``dbias``, bias, in one pass.

    Raises:
        TypeError, ValueError: as ``forward``.
    """
    if not x.size:
        dw.fill(0)
        if dbias is not None:
            dbias.fill(0)
        return
    launch = _launch_for(BACKWARD_WEIGHT, geometry, groups, x, dw, dy, dbias)
    count = dw.size + (0 if dbias is None else dbias.size)
    parts = workspace.empty((launch.plan.grid[2], count), numpy.float32)
    launch(x, dy, parts)
    arguments = (parts, dw, dbias, numpy.int32(count), numpy.int32(dw.size), numpy.int32(len(parts)))
    _run(_compiled(launch.plan.variant, "conv_add_parts"), (-(-count // 32),), (256,), arguments)


class _Launch(NamedTuple):
    """A launch that was checked: its kernel, how it was planned, and the arguments behind the arrays."""

    kernel: Any
    plan: Plan
    numbers: tuple[Any, ...]

    def __call__(self, *arrays: Array | None) -> None:
        block = (self.plan.variant.tile.threads,)
        _run(self.kernel, self.plan.grid, block, (*arrays, *self.numbers), self.plan.shared)


def _run(kernel: Any, grid: tuple[int, ...], block: tuple[int], arguments: tuple[Any, ...], shared: int = 0) -> None:
    if profiling.is_listened_to():
        with _RANGES[kernel.name].of(arguments):
            kernel(grid, block, arguments, shared_mem=shared)
    else:
        kernel(grid, block, arguments, shared_mem=shared)


def _launch_for(product: int, geometry: Geometry, groups: int, *arrays: Array | None) -> _Launch:
    """Return the launch for arrays in the order of ``_NAMES``."""
    index = current_device().index
    return _checked(product, geometry, groups, tf32.is_allowed(), index, *map(_form, arrays))


class _Form(NamedTuple):
    """Everything of an array that a launch depends on; its address is a multiple of ``aligned`` bytes, up to 16."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    aligned: int
    device: int


def _form(array: Any) -> _Form | None:
    if array is None:
        return None
    memory = array.data
    address = memory.ptr | 16
    return _Form(array.shape, array.strides, array.dtype.char, address & -address, memory.device_id)


@functools.lru_cache(maxsize=4096)
def _checked(
    product: int, geometry: Geometry, groups: int, one_pass: bool, device: int, *forms: _Form | None
) -> _Launch:
    images, filters, outputs = forms[:3]
    assert images is not None
    assert filters is not None
    assert outputs is not None
    (n, *_, c), fn, dtype = images.shape, outputs.shape[-1], numpy.dtype(images.dtype)
    if groups < 1 or c % groups or fn % groups:
        raise ValueError(f"{groups} groups do not divide {c} channels and {fn} filters")
    if refused := refusal(dtype, (fn, c // groups, *geometry.kernel), geometry, groups):
        raise TypeError(f"an implicit GEMM {refused}")
    shapes = (n, *geometry.image, c), (*geometry.kernel, c // groups, fn), (n, *geometry.output, fn), (fn,)
    for name, form, shape in zip(_NAMES, forms, (*shapes, shapes[2]), strict=False):
        if form is not None:
            _check(name, form, shape, numpy.dtype("?") if name == "positive" else dtype, device)
    # The two that are read, in the order in which the kernel takes them, and the one that is written.
    *read, written = {
        FORWARD: (images, filters, outputs),
        BACKWARD_INPUT: (outputs, filters, images),
        BACKWARD_WEIGHT: (images, outputs, filters),
    }[product]
    if product != BACKWARD_WEIGHT and written.aligned < 2 * dtype.itemsize:  # two numbers are written at once
        name = "outputs" if product == FORWARD else "images"
        raise ValueError(f"{name} begin at a multiple of {written.aligned} bytes, expected {2 * dtype.itemsize}")
    chosen = plan(product, dtype.name, n, c, fn, geometry, groups, one_pass, *(form.aligned for form in read))
    numbers = [geometry.struct(c), *map(numpy.int32, (n, fn, groups))]
    if product == BACKWARD_WEIGHT:
        index = numpy.int64 if chosen.variant.wide_index else numpy.int32
        numbers += [index(chosen.part_pixels), numpy.int32(forms[3] is not None)]
    return _Launch(_compiled(chosen.variant, KERNELS[product]), chosen, tuple(numbers))


def _check(name: str, form: _Form, shape: tuple[int, ...], dtype: numpy.dtype, device: int) -> None:
    if form.device != device:
        raise TypeError(f"{name} lie on cuda:{form.device}, expected cuda:{device}, the active device")
    if form.dtype != dtype.char:
        raise TypeError(f"{name} are {numpy.dtype(form.dtype)}, expected {dtype}")
    if form.shape != shape:
        raise ValueError(f"{name} have shape {form.shape}, expected {shape}")
    if 0 in shape:  # CuPy gives such an array no strides
        return
    step = dtype.itemsize
    for size, stride in zip(reversed(form.shape), reversed(form.strides), strict=True):
        if size > 1 and stride != step:
            raise ValueError(f"{name} are not C-contiguous: strides {form.strides} of {form.shape}")
        step *= size
