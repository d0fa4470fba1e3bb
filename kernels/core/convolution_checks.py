"""What a convolution asks of its arguments: shapes, dtypes and libraries that belong together."""

from __future__ import annotations

from typing import Any

from backend import require_arrays, require_same_device
from backend.checks import instance, sizes
from kernels.core.checks import check_dtype, check_gradient, check_images
from kernels.core.window import Window


def check_shapes(input_shape: tuple, weight_shape: tuple, window: Window, groups: int = 1) -> None:
    """Raises a ValueError unless images, filters, window and groups belong together.

    Raises:
        TypeError: an argument is not of the kind at all.
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


def one_dtype(**arrays: Any) -> None:
    """Raises unless all arrays have one dtype and library; they are called by the names given."""
    require_arrays(**arrays)
    require_same_device(*arrays.values())
    for array in arrays.values():
        check_dtype("convolution", array)
    if len({array.dtype for array in arrays.values()}) > 1:
        given = ", ".join(f"{name} is {array.dtype}" for name, array in arrays.items())
        raise ValueError(f"a convolution needs one dtype: {given}")


def check_bias(bias: Any, weight: Any) -> None:
    """Raises unless ``bias`` is None or belongs to the filters."""
    if bias is not None:
        require_arrays(bias=bias)
        require_same_device(weight, bias)
        if bias.shape != (len(weight),) or bias.dtype != weight.dtype:
            raise ValueError(f"bias is {(len(weight),)} of {weight.dtype}, got {bias.shape} of {bias.dtype}")


def check_backward_weight(
    x: Any, dy: Any, weight_shape: tuple, window: Window, groups: int, out: Any, bias_out: Any
) -> None:
    """Raises unless the arguments of ``convolution_backward_weight`` belong together."""
    check_images("convolution", x)
    given = {"dy": dy, "out": out, "bias_out": bias_out}
    require_arrays(**{name: array for name, array in given.items() if array is not None or name == "dy"})
    require_same_device(x, dy, out, bias_out)
    check_shapes(x.shape, weight_shape, window, groups)
    one_dtype(x=x, dy=dy)
    check_gradient(dy, x.shape, weight_shape[0], window.over(x.shape[2:]))
    if out is not None and out.shape != tuple(weight_shape):
        raise ValueError(f"out has shape {out.shape}, the weight {tuple(weight_shape)}")
