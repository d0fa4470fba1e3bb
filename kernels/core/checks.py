"""Check the arguments of operations: images, columns, filters and gradients that belong together."""

from __future__ import annotations

from backend import require_active, require_arrays, require_same_device
from backend.checks import FLOATING, choice, instance, sizes
from backend.types import Array
from kernels.core.geometry import Geometry
from kernels.core.window import Window

COLUMN_ORDERS = ("CHW", "HWC")
"""What runs along a row of columns: channel, row and column of the window, or row, column and channel."""


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


def check_gradient(dy: Array, input_shape: tuple[int, ...], channels: int, geometry: Geometry) -> None:
    """Raise a ValueError unless ``dy`` has the shape of the output of an operation that slides a window.

    Args:
        dy: (N, channels, OH, OW).
        input_shape: (N, C, H, W) of the input.
    """
    expected = (input_shape[0], channels, *geometry.output)
    if dy.shape != expected:
        raise ValueError(f"the gradient has shape {dy.shape}, the output {expected}")


def check_filters(input_shape: tuple[int, ...], weight_shape: tuple[int, ...], window: Window, groups: int) -> Geometry:
    """Return the window laid over the images, if images, filters, window and groups belong together.

    Raises:
        TypeError: an argument is of another type.
        ValueError: they do not belong together; the message has the shapes.
    """
    instance("window", window, Window, "a Window")
    sizes("input_shape", input_shape, 0, 4)
    if len(sizes("weight_shape", weight_shape)) != 4 or tuple(weight_shape[2:]) != window.kernel:
        raise ValueError(f"weight of shape {tuple(weight_shape)} does not belong to {window}: need (FN, C, FH, FW)")
    if groups < 1 or input_shape[1] % groups or weight_shape[0] % groups:
        raise ValueError(f"{groups} groups do not divide {input_shape[1]} channels and {weight_shape[0]} filters")
    if weight_shape[1] * groups != input_shape[1]:
        raise ValueError(
            f"images {tuple(input_shape)} have {input_shape[1]} channels; weight {tuple(weight_shape)} with {groups} "
            f"group(s) needs {weight_shape[1] * groups}"
        )
    return window.over((input_shape[2], input_shape[3]))


def check_one_dtype(**arrays: Array) -> None:
    """Raise unless all arrays are of one dtype and library; errors call them by the names given."""
    require_arrays(**arrays)
    require_same_device(*arrays.values())
    for array in arrays.values():
        check_dtype("convolution", array)
    if len({array.dtype for array in arrays.values()}) > 1:
        given = ", ".join(f"{name} is {array.dtype}" for name, array in arrays.items())
        raise ValueError(f"a convolution needs one dtype: {given}")


def check_convolution(x: Array, weight: Array, bias: Array | None, window: Window, groups: int) -> Geometry:
    """Return the window laid over ``x``, if the arguments of ``convolution`` belong together; else raise."""
    check_images("convolution", x)
    require_arrays(weight=weight)
    geometry = check_filters(x.shape, weight.shape, window, groups)
    check_one_dtype(x=x, weight=weight)
    if bias is not None:
        require_arrays(bias=bias)
        require_same_device(weight, bias)
        if bias.shape != (len(weight),) or bias.dtype != weight.dtype:
            raise ValueError(f"bias is {(len(weight),)} of {weight.dtype}, got {bias.shape} of {bias.dtype}")
    return geometry


def check_backward_input(
    dy: Array, weight: Array, input_shape: tuple[int, ...], window: Window, groups: int
) -> Geometry:
    """Return the window laid over the input, if the arguments of ``convolution_backward_input`` belong together."""
    require_active(dy, "dy")
    require_arrays(weight=weight)
    geometry = check_filters(input_shape, weight.shape, window, groups)
    check_one_dtype(dy=dy, weight=weight)
    check_gradient(dy, input_shape, len(weight), geometry)
    return geometry


def check_backward_weight(
    x: Array,
    dy: Array,
    weight_shape: tuple[int, ...],
    window: Window,
    groups: int,
    out: Array | None,
    bias_out: Array | None,
) -> Geometry:
    """Return the window laid over ``x``, if the arguments of ``convolution_backward_weight`` belong together."""
    check_images("convolution", x)
    given = {"dy": dy, "out": out, "bias_out": bias_out}
    require_arrays(**{name: array for name, array in given.items() if array is not None or name == "dy"})
    require_same_device(x, dy, out, bias_out)
    geometry = check_filters(x.shape, weight_shape, window, groups)
    check_one_dtype(x=x, dy=dy)
    check_gradient(dy, x.shape, weight_shape[0], geometry)
    if out is not None and out.shape != tuple(weight_shape):
        raise ValueError(f"out has shape {out.shape}, the weight {tuple(weight_shape)}")
    return geometry
