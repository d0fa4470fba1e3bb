"""Operators of ONNX as layers: windows over images, means, and other shapes."""

from __future__ import annotations

import math
from typing import Any

import numpy

from layers import (
    AveragePooling,
    Convolution,
    ConvolutionTranspose,
    Flatten,
    GlobalAveragePooling,
    Permute,
    Pooling,
    Reshape,
)
from layers.base import Layer, Shape
from training.files import clipped
from training.interop.onnx_operators import axis_of_sample, reads
from training.interop.onnx_reading import BATCH, Reading
from training.interop.onnx_tidy import Item


def _images(at: Reading, axes: int) -> Shape:
    """Return the shape of samples as images (C, H, W): rows of pixels (C, L) are images one pixel high.

    Raises:
        ValueError: samples do not have the ``axes`` that a window moves along, or it moves along three.
    """
    if axes not in (1, 2) or len(at.shape) != axes + 1:
        raise ValueError(f"layers take images (C, H, W), or rows (C, L); got a window of {axes} axes over {at.shape}")
    return at.shape if axes == 2 else (at.shape[0], 1, at.shape[1])


def _over_images(layer: Layer, images: Shape, at: Reading) -> list[Item]:
    if images == at.shape:
        return [layer]
    channels, _, length = layer.output_shape(images)
    return [Reshape(images), layer, Reshape((channels, length))]


def _pair(at: Reading, name: str, axes: int) -> tuple[int, int]:
    """Return an attribute of a number for each axis, 1 by default.

    Raises:
        ValueError: one is less than 1.
    """
    numbers = at.numbers(name, [1] * axes)
    if min(numbers, default=1) < 1:
        raise ValueError(f"expected {name} of 1 or more, got {clipped(numbers)}")
    return (numbers[0], numbers[1]) if axes == 2 else (1, numbers[0])


def _window(at: Reading, kernel: tuple[int, ...], images: Shape) -> dict[str, Any]:
    """Return stride, dilation and padding of a window, as layers take them."""
    axes = len(kernel)
    stride, dilation = _pair(at, "strides", axes), _pair(at, "dilations", axes)
    kind, pad = at.attribute("auto_pad", "NOTSET"), at.numbers("pads", [0] * (2 * axes))
    extent = [(size - 1) * step + 1 for size, step in zip(_two(kernel), dilation, strict=True)]
    totals = [
        max(0, (-(-size // step) - 1) * step + span - size)
        for size, step, span in zip(images[1:], stride, extent, strict=True)
    ]
    padding: Any = _padding(kind, totals, pad)
    return {"stride": stride, "pad": "same" if kind == "SAME_UPPER" else padding, "dilation": dilation}


def _padding(kind: str, totals: list[int], pad: list[int]) -> tuple[int, ...]:
    """Return (top, bottom, left, right).

    Args:
        kind: the attribute ``auto_pad``.
        totals: rows and columns of padding where that is to be the same size.
        pad: the attribute ``pads``: the beginnings of all axes, then the ends.
    """
    if kind == "VALID":
        return 0, 0, 0, 0
    if kind == "NOTSET":
        return (pad[0], pad[2], pad[1], pad[3]) if len(pad) == 4 else (0, 0, pad[0], pad[1])
    if kind not in ("SAME_UPPER", "SAME_LOWER"):
        raise ValueError(f"expected NOTSET, VALID, SAME_UPPER or SAME_LOWER as auto_pad, got {kind}")
    first = [total // 2 if kind == "SAME_UPPER" else total - total // 2 for total in totals]
    return first[0], totals[0] - first[0], first[1], totals[1] - first[1]


def _kernel(at: Reading, W: numpy.ndarray) -> tuple[int, ...]:
    """Return the size of the windows of weights, which the attribute ``kernel_shape`` only repeats.

    Raises:
        ValueError: that is another.
    """
    kernel = W.shape[2:]
    given = tuple(at.attribute("kernel_shape", kernel))
    if given != kernel:
        raise ValueError(f"its kernel_shape is {clipped(given)}, and that of W {W.shape} is {kernel}")
    return kernel


def _two(numbers: tuple[int, ...] | list[int]) -> tuple[int, int]:
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (1, numbers[0])


@reads("Conv")
def _convolution(at: Reading) -> list[Item]:
    at.first("images")
    W, b = at.array(1, "W"), at.optional(2, "B")
    kernel = _kernel(at, W)
    images = _images(at, len(kernel))
    window, groups = _window(at, kernel, images), at.attribute("group", 1)
    weight = at.parameter(W.reshape(*W.shape[:2], *_two(kernel)))
    layer = Convolution(weight, None if b is None else at.parameter(b), groups=groups, **window)
    return _over_images(layer, images, at)


@reads("ConvTranspose")
def _convolution_transpose(at: Reading) -> list[Item]:
    at.first("images")
    W, b = at.array(1, "W"), at.optional(2, "B")
    kernel = _kernel(at, W)
    images, axes = _images(at, len(kernel)), len(kernel)
    if at.attribute("group", 1) != 1:
        raise ValueError("ConvolutionTranspose has no groups")
    stride, dilation, kind = (
        _pair(at, "strides", axes),
        _pair(at, "dilations", axes),
        at.attribute("auto_pad", "NOTSET"),
    )
    more = [0, *at.numbers("output_padding", [0] * axes)][-2:]
    size = [
        (count - 1) * step + (taps - 1) * gap + 1 + rest
        for count, step, taps, gap, rest in zip(images[1:], stride, _two(kernel), dilation, more, strict=True)
    ]
    wanted = at.attribute("output_shape", None)
    if wanted is not None:
        kind = kind if kind == "SAME_UPPER" else "SAME_LOWER"
    same = (
        _two(wanted) if wanted is not None else [count * step for count, step in zip(images[1:], stride, strict=True)]
    )
    totals = [full - cut for full, cut in zip(size, same, strict=True)]
    top, bottom, left, right = _padding(kind, totals, at.numbers("pads", [0] * (2 * axes)))
    padding = (top, bottom - more[0], left, right - more[1])
    if min(padding) < 0:
        raise ValueError("its output is larger than what its windows cover (output_padding, output_shape)")
    weight = at.parameter(W.reshape(*W.shape[:2], *_two(kernel)))
    layer = ConvolutionTranspose(weight, None if b is None else at.parameter(b), stride, padding, dilation)
    return _over_images(layer, images, at)


@reads("MaxPool", "AveragePool")
def _pooling(at: Reading) -> list[Item]:
    kernel = tuple(at.attribute("kernel_shape", ()))
    images = _images(at, len(kernel))
    window, size = _window(at, kernel, images), _two(kernel)
    if at.attribute("ceil_mode", 0):
        window["rounding"] = "ceil"
    if at.node.kind == "MaxPool":
        return _over_images(Pooling(*size, **window), images, at)
    counted = bool(at.attribute("count_include_pad", 0))
    return _over_images(AveragePooling(*size, **window, count_padding=counted), images, at)


@reads("GlobalAveragePool")
def _global_average_pool(at: Reading) -> list[Item]:
    return _mean(at.shape, set(range(1, len(at.shape))), keep=True)


@reads("ReduceMean")
def _reduce_mean(at: Reading) -> list[Item]:
    axes = at.attribute("axes", None) if at.opset < 18 else at.optional(1, "axes")
    if axes is None or not len(axes):
        if at.attribute("noop_with_empty_axes", 0):
            return []
        raise ValueError("it is the mean of all samples; layers compute with each sample alone")
    return _mean(at.shape, {axis_of_sample(at, int(axis)) for axis in axes}, bool(at.attribute("keepdims", 1)))


def _mean(shape: Shape, axes: set[int], keep: bool) -> list[Item]:
    """Return the mean along some axes of a sample, as the global average of images."""
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    order = Permute(tuple(axis + 1 for axis in [*kept, *sorted(axes)]))
    channels = math.prod(shape[axis] for axis in kept)
    images = order.output_shape(shape)
    if len(shape) != 3 or len(kept) != 1:
        images = (channels, math.prod(shape[axis] for axis in axes), 1)
    result = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return [order, Reshape(images), GlobalAveragePooling(), Reshape(result if keep else tuple(shape[a] for a in kept))]


@reads("Flatten")
def _flatten(at: Reading) -> list[Item]:
    rank = len(at.shape) + 1
    if at.attribute("axis", 1) not in (1, 1 - rank):
        raise ValueError("it makes the batch part of another axis, or a part of a sample the batch")
    return [Flatten()] if at.shape else [Reshape((1,))]


@reads("Reshape")
def _reshape(at: Reading) -> list[Item]:
    at.first("samples")
    wanted = at.optional(1, "shape") if at.opset >= 5 else numpy.asarray(at.attribute("shape", ()))
    first, *sizes = [int(size) for size in ([] if wanted is None else wanted)] or [0, 0]
    if not at.attribute("allowzero", 0):
        sizes = [at.shape[axis] if size == 0 and axis < len(at.shape) else size for axis, size in enumerate(sizes)]
    numbers = math.prod(at.shape)
    if sizes.count(-1) == 1 and (known := -math.prod(sizes)) > 0:
        sizes[sizes.index(-1)] = numbers // known
    keeps = first in (-1, BATCH, at.input.batch) or (first == 0 and not at.attribute("allowzero", 0))
    if not keeps or min(sizes, default=1) < 1 or math.prod(sizes) != numbers:
        given = ", ".join("the batch" if size == BATCH else str(size) for size in ([] if wanted is None else wanted))
        raise ValueError(f"the shape [{given}] does not keep the batch and the {numbers} numbers of a sample")
    return [Reshape(tuple(sizes))]


@reads("Squeeze", "Unsqueeze")
def _squeeze(at: Reading) -> list[Item]:
    axes = at.attribute("axes", None) if at.opset < 13 else at.optional(1, "axes")
    if axes is None:
        raise ValueError("expected its axes: without them it would drop the batch of one sample")
    if at.node.kind == "Squeeze":
        dropped = {axis_of_sample(at, int(axis)) for axis in axes}
        return [Reshape(tuple(size for axis, size in enumerate(at.shape) if axis not in dropped))]
    rank = len(at.shape) + 1 + len(axes)
    added = {int(axis) % rank for axis in axes}
    if len(added) != len(axes) or not all(-rank <= axis < rank for axis in axes):
        raise ValueError(f"expected axes of {rank}, each once, got {clipped(list(map(int, axes)))}")
    if 0 in added:
        raise ValueError("it adds an axis before the batch")
    sizes = iter(at.shape)
    return [Reshape(tuple(1 if axis in added else next(sizes) for axis in range(1, rank)))]


@reads("Transpose")
def _transpose(at: Reading) -> list[Item]:
    rank = len(at.shape) + 1
    order = at.numbers("perm", list(range(rank))[::-1])
    if order[0] != 0:
        raise ValueError("it moves the batch to another axis")
    return [Permute(tuple(order[1:]))]
