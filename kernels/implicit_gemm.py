"""Convolution on tensor cores, without columns: the host's side of ``convolution.cu``.

For CUDA GPUs from compute capability 8.0 on, float32 and float16. float32 is computed as three products of TF32, whose
error is below that of a float32 product, or as one where ``backend.allow_tf32`` allows it; sums are float32 always.
``applies`` says where it can be used; elsewhere im2col and cuBLAS do the work.

Tiles, and the parts into which a weight gradient is cut, depend on the shapes alone (``kernels.core.tensor_tiles``):
the same bits on every GPU whose tensor cores sum alike.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy

from backend import current_device, profiling, tf32, workspace
from backend.types import Array
from kernels.core.geometry import Geometry
from kernels.core.launch import KernelError
from kernels.core.tensor_tiles import BACKWARD_INPUT, BACKWARD_WEIGHT, FORWARD, KERNELS, MOST_TAPS, Plan, Variant, plan

_MOST_REMAINDERS = (1 << 16) - 1  # of a pixel by the strides: blocks along a grid's third axis
_RANGES = {name: profiling.Range(name, kind="operation") for name in (*KERNELS.values(), "conv_add_parts")}


def applies(dtype: Any, geometry: Geometry) -> bool:
    """Return whether the active device computes convolutions of ``dtype`` over ``geometry`` on tensor cores."""
    return (
        numpy.dtype(dtype).name in ("float16", "float32")
        and max(geometry.kernel) <= MOST_TAPS
        and geometry.stride[0] * geometry.stride[1] <= _MOST_REMAINDERS
        and current_device().kind == "cuda"
        and _has_tensor_cores(current_device().index)
    )


@functools.cache
def _has_tensor_cores(index: int) -> bool:
    import cupy

    return int(cupy.cuda.Device(index).compute_capability) >= 80


@functools.cache
def _compiled(variant: Variant, name: str) -> Any:
    """Return a kernel as CuPy's RawKernel; CuPy keeps the result on disk.

    Raises:
        KernelError: it does not compile, or the compiler is missing.
    """
    import cupy

    kernel = cupy.RawKernel(variant.code, name)
    try:
        kernel.compile()
    except cupy.cuda.compiler.CompileException as error:
        raise KernelError(f"kernel {name} in convolution.cu ({variant}) does not compile:\n{error}") from error
    except (ImportError, RuntimeError) as error:
        if hasattr(error, "status"):  # the driver's own
            raise
        message = f"kernel {name} in convolution.cu cannot be compiled here: {error}"
        raise KernelError(f"{message}; xpnet devices says what to install") from error
    return kernel


def forward(
    x: Array, filters: Array, bias: Array | None, geometry: Geometry, groups: int = 1, relu: bool = False
) -> Array | tuple[Array, Array]:
    """Compute y = x ⋆ filters + bias.

    Args:
        x: (N, H, W, C), C-contiguous, float16 or float32.
        filters: (FH, FW, C / groups, FN), C-contiguous, of that dtype.
        bias: (FN,) of that dtype, or None.
        geometry: of images (H, W).
        groups: divides C and FN.
        relu: max(·, 0) follows.

    Returns:
        (N, OH, OW, FN), C-contiguous, dtype of ``x``; with ``relu``, that and where it is positive: bool, same shape.

    Raises:
        TypeError: an array is not on the active device, or of another dtype.
        ValueError: an array is not C-contiguous, or shapes do not belong together.
    """
    _check(geometry, groups, x=x, filters=filters, bias=bias)
    n, _, _, c = x.shape
    fn = filters.shape[3]
    _check_shapes("x", x, (n, *geometry.image, c), filters, (*geometry.kernel, c // groups, fn), groups)
    if bias is not None and bias.shape != (fn,):
        raise ValueError(f"bias has shape {bias.shape}, expected {(fn,)}")
    y = workspace.empty((n, *geometry.output, fn), x.dtype)
    positive = workspace.empty(y.shape, bool) if relu else None
    if y.size:
        shapes = n, c, fn, geometry, groups
        chosen = plan(FORWARD, x.dtype.name, *shapes, tf32.is_allowed(), _aligned(x), _aligned(filters))
        numbers = (geometry.struct(c), numpy.int32(n), numpy.int32(fn), numpy.int32(groups))
        _launch(chosen, (x, filters, bias, y, positive, *numbers))
    return y if positive is None else (y, positive)


def backward_input(dy: Array, filters: Array, channels: int, geometry: Geometry, groups: int = 1) -> Array:
    """Compute the gradient of ``forward`` with respect to ``x``, at any stride without col2im.

    Args:
        dy: (N, OH, OW, FN), C-contiguous, float16 or float32.
        filters: (FH, FW, C / groups, FN), C-contiguous, of that dtype.
        channels: C.
        geometry: of images (H, W).

    Returns:
        (N, H, W, C), C-contiguous, dtype of ``dy``.

    Raises:
        TypeError, ValueError: as ``forward``.
    """
    _check(geometry, groups, dy=dy, filters=filters)
    n, fn = len(dy), filters.shape[3]
    expected = (*geometry.kernel, channels // groups, fn)
    _check_shapes("dy", dy, (n, *geometry.output, fn), filters, expected, groups)
    dx = workspace.empty((n, *geometry.image, channels), dy.dtype)
    if dx.size:
        shapes = n, channels, fn, geometry, groups
        chosen = plan(BACKWARD_INPUT, dy.dtype.name, *shapes, tf32.is_allowed(), _aligned(dy), _aligned(filters))
        numbers = (geometry.struct(channels), numpy.int32(n), numpy.int32(fn), numpy.int32(groups))
        _launch(chosen, (dy, filters, dx, *numbers))
    return dx


def backward_weight(
    x: Array, dy: Array, geometry: Geometry, groups: int = 1, bias: bool = False
) -> tuple[Array, Array | None]:
    """Compute the gradients of ``forward`` with respect to ``filters`` and, if asked for, to ``bias``, in one pass.

    Args:
        x: (N, H, W, C), C-contiguous, float16 or float32.
        dy: (N, OH, OW, FN), C-contiguous, of that dtype.
        geometry: of images (H, W).
        groups: divides C and FN.
        bias: its gradient is computed, too.

    Returns:
        (FH, FW, C / groups, FN), C-contiguous, dtype of ``x``, summed in float32; and (FN,), or None.

    Raises:
        TypeError, ValueError: as ``forward``.
    """
    _check(geometry, groups, x=x, dy=dy)
    (n, _, _, c), fn = x.shape, dy.shape[3]
    if c % groups or fn % groups:
        raise ValueError(f"{groups} groups do not divide {c} channels and {fn} filters")
    for name, array, shape in (("x", x, (n, *geometry.image, c)), ("dy", dy, (n, *geometry.output, fn))):
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
    dw = workspace.empty((*geometry.kernel, c // groups, fn), x.dtype)
    dbias = workspace.empty((fn,), x.dtype) if bias else None
    if not x.size or not dy.size:
        dw.fill(0)
        if dbias is not None:
            dbias.fill(0)
        return dw, dbias
    shapes = n, c, fn, geometry, groups
    chosen = plan(BACKWARD_WEIGHT, x.dtype.name, *shapes, tf32.is_allowed(), _aligned(x), _aligned(dy))
    count = dw.size + (fn if bias else 0)
    parts = workspace.empty((chosen.grid[2], count), numpy.float32)
    index = numpy.int64 if chosen.variant.wide_index else numpy.int32
    numbers = (geometry.struct(c), numpy.int32(n), numpy.int32(fn), numpy.int32(groups), index(chosen.part_pixels))
    _launch(chosen, (x, dy, parts, *numbers, numpy.int32(bias)))
    add = _compiled(chosen.variant, "conv_add_parts")
    arguments = (parts, dw, dbias, numpy.int32(count), numpy.int32(dw.size), numpy.int32(len(parts)))
    with _RANGES["conv_add_parts"].of(arguments):
        add((-(-count // 32),), (256,), arguments)
    return dw, dbias


def _launch(chosen: Plan, arguments: tuple[Any, ...]) -> None:
    name = KERNELS[chosen.variant.product]
    kernel = _compiled(chosen.variant, name)
    with _RANGES[name].of(arguments):
        kernel(chosen.grid, (chosen.variant.tile.threads,), arguments)


def _aligned(array: Any) -> int:
    """Return the bytes, up to 16, that the address of an array is a multiple of."""
    address = array.data.ptr
    return next(size for size in (16, 8, 4, 2) if address % size == 0)


def _check(geometry: Geometry, groups: int, **arrays: Any) -> None:
    first = next(iter(arrays.values()))
    if not applies(getattr(first, "dtype", "object"), geometry):
        what = f"{getattr(first, 'dtype', type(first).__name__)}, {geometry}, on {current_device()}"
        raise TypeError(
            f"an implicit product needs float16 or float32, at most {MOST_TAPS} taps along an axis and a GPU of "
            f"compute capability 8.0 or higher, got {what}"
        )
    for name, array in arrays.items():
        if array is None:
            continue
        if type(array).__module__.partition(".")[0] != "cupy" or array.device.id != current_device().index:
            raise TypeError(f"{name} is not on the active device {current_device()}")
        if array.dtype != first.dtype:
            raise TypeError(f"{name} is {array.dtype}, expected {first.dtype}")
        if not array.flags.c_contiguous:
            raise ValueError(f"{name} is not C-contiguous: strides {array.strides} of {array.shape}")
        if name != "bias" and array.ndim != 4:
            raise ValueError(f"{name} has shape {array.shape}, expected 4 dimensions")
    if groups < 1:
        raise ValueError(f"groups must be at least 1, got {groups}")


def _check_shapes(
    name: str, array: Array, shape: tuple[int, ...], filters: Array, filter_shape: tuple[int, ...], groups: int
) -> None:
    channels = filter_shape[2] * groups
    if channels != (array.shape[3] if name == "x" else channels) or filter_shape[3] % groups:
        raise ValueError(f"{groups} groups do not divide {array.shape[3]} channels and {filter_shape[3]} filters")
    for what, given, expected in ((name, array.shape, shape), ("filters", filters.shape, filter_shape)):
        if given != expected:
            raise ValueError(f"{what} has shape {given}, expected {expected}")
