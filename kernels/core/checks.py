"""Check the arguments of operations: images, columns, filters and gradients that belong together."""

from __future__ import annotations

from typing import Any

from backend import current_device, require_active, require_arrays, require_same_device
from backend.checks import FLOATING, choice, instance, sizes
from backend.types import Array
from kernels.core.geometry import Geometry
from kernels.core.window import Window, geometry_of

COLUMN_ORDERS = ("CHW", "HWC")
"""Orders of the numbers in a row of columns: channel, row and column of the window, or row, column and channel."""

_WIDE = frozenset(dtype for dtype in FLOATING if dtype.itemsize >= 4)


def check_order(order: str) -> None:
    """Raise a ValueError unless ``order`` names a column order."""
    choice("order", order, COLUMN_ORDERS)


def check_images(operation: str, x: Array) -> None:
    """Raise a ValueError unless ``x`` is a batch of images, a TypeError unless it lies on the active device."""
    require_active(x, "x")
    if x.ndim != 4:
        raise ValueError(f"{operation} needs images (N, C, H, W), got shape {x.shape}")


def check_dtype(operation: str, x: Array) -> None:
    """Raise a TypeError unless ``x`` is of a dtype that kernels calculate with. What only copies takes any."""
    if x.dtype not in FLOATING:
        raise TypeError(f"{operation} needs float16, float32 or float64, got {x.dtype}")


def check_wide_dtype(operation: str, dtype: Any) -> None:
    """Raise a TypeError unless ``dtype`` is one in which a loss is computed: in float16 its sums would overflow."""
    if dtype not in _WIDE:
        raise TypeError(f"{operation} needs float32 or float64, got {dtype}")


def check_gradient(dy: Array, input_shape: tuple[int, ...], channels: int, geometry: Geometry) -> None:
    """Raise a ValueError unless ``dy`` has the shape of the output of an operation that slides a window.

    Args:
        dy: (N, channels, OH, OW).
        input_shape: (N, C, H, W) of the input.
    """
    expected = (input_shape[0], channels, *geometry.output)
    if dy.shape != expected:
        raise ValueError(f"the gradient has shape {dy.shape}, the output {expected}")


def check_pooling(operation: str, x: Array, window: Window) -> Geometry:
    """Return the window laid over images ``x`` that ``operation`` can pool.

    Raises:
        TypeError: an argument is of another type, ``x`` of another dtype or on another device.
        ValueError: ``x`` is not 4-D, or a window holds only padding.
    """
    check_images(operation, x)
    check_dtype(operation, x)
    geometry = instance("window", window, Window, "a Window").over((x.shape[2], x.shape[3]))
    geometry.require_pixels()
    return geometry


def check_pooling_gradient(dy: Array, input_shape: tuple[int, ...], window: Window) -> Geometry:
    """Return the window laid over the images of ``input_shape`` (N, C, H, W), whose pooling has the gradient ``dy``.

    Raises:
        TypeError: an argument is of another type, ``dy`` of another dtype or on another device.
        ValueError: the shape of ``dy`` is not that of the output, or a window holds only padding.
    """
    require_active(dy, "dy")
    geometry = geometry_of(window, input_shape)
    geometry.require_pixels()
    check_dtype("pooling", dy)
    check_gradient(dy, input_shape, input_shape[1], geometry)
    return geometry


_MOST_CHECKED = 4096  # kept by the process
_checked_convolutions: dict[tuple[Any, ...], Geometry] = {}
"""Arguments of convolutions that belong together, by all that the checks depend on. Checking costs more than asking."""


def check_convolution(
    window: Window,
    groups: int,
    input_shape: tuple[int, ...] | None = None,
    weight_shape: tuple[int, ...] | None = None,
    **arrays: Array | None,
) -> Geometry:
    """Return the window laid over the images, if the arguments of a convolution, or of a gradient, belong together.

    Args:
        input_shape, weight_shape: (N, C, H, W) and (FN, C / groups, FH, FW); None for those of ``x`` and ``weight``.
        arrays: of ``x``, ``weight``, ``dy``, ``bias``, ``out`` and ``bias_out`` those that the operation takes, first
            the one that must lie on the active device. The last three may be None.

    Raises:
        TypeError: an argument is of another type, an array of another dtype or on another device.
        ValueError: shapes or dtypes do not belong together; the message has them.
    """
    try:
        forms = [(name, a is None or (type(a), a.shape, a.dtype)) for name, a in arrays.items()]
        shapes = [(shape, *map(type, shape)) for shape in (input_shape, weight_shape) if shape is not None]
        key = (current_device().kind, window, groups, input_shape is None, *shapes, *forms)
        geometry = _checked_convolutions.get(key)
    except (AttributeError, TypeError):  # the checks say what is wrong
        return _check_convolution(window, groups, input_shape, weight_shape, arrays)
    if geometry is None:
        geometry = _check_convolution(window, groups, input_shape, weight_shape, arrays)
        if len(_checked_convolutions) >= _MOST_CHECKED:
            _checked_convolutions.clear()
        _checked_convolutions[key] = geometry
    return geometry


def _check_convolution(
    window: Window,
    groups: int,
    input_shape: tuple[int, ...] | None,
    weight_shape: tuple[int, ...] | None,
    arrays: dict[str, Array | None],
) -> Geometry:
    given: dict[str, Any] = {name: a for name, a in arrays.items() if a is not None or name in ("x", "weight", "dy")}
    first = next(iter(given))
    require_active(given[first], first)
    require_arrays(**given)
    require_same_device(*given.values())
    if "x" in given:
        check_images("convolution", given["x"])
    input_shape = given["x"].shape if input_shape is None else sizes("input_shape", input_shape, 0, 4)
    weight_shape = given["weight"].shape if weight_shape is None else sizes("weight_shape", weight_shape)
    instance("window", window, Window, "a Window")
    if len(weight_shape) != 4 or weight_shape[2:] != window.kernel:
        raise ValueError(f"weight of shape {weight_shape} does not belong to {window}: need (FN, C, FH, FW)")
    if 0 in weight_shape:
        raise ValueError(f"a convolution needs at least one filter and channel, got a weight of shape {weight_shape}")
    (_, channels, *image), filters = input_shape, weight_shape[0]
    if channels % groups or filters % groups:
        raise ValueError(f"{groups} groups do not divide {channels} channels and {filters} filters")
    if weight_shape[1] * groups != channels:
        needed = f"weight {weight_shape} with {groups} group(s) needs {weight_shape[1] * groups}"
        raise ValueError(f"images {input_shape} have {channels} channels; {needed}")
    geometry = window.over((image[0], image[1]))
    operands = {name: array for name, array in given.items() if name not in ("out", "bias_out")}
    for array in operands.values():
        check_dtype("convolution", array)
    if len({array.dtype for array in operands.values()}) > 1:
        dtypes = ", ".join(f"{name} is {array.dtype}" for name, array in operands.items())
        raise ValueError(f"a convolution needs one dtype: {dtypes}")
    if "dy" in given:
        check_gradient(given["dy"], input_shape, filters, geometry)
    for name, shape in (("bias", (filters,)), ("out", weight_shape), ("bias_out", (filters,))):
        if name in given and given[name].shape != shape:
            raise ValueError(f"{name} must have shape {shape}, got {given[name].shape}")
    return geometry
