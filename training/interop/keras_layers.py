"""The variables that Keras has for a layer: their shapes, and how they become a layer's arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy

from layers import (
    Affine,
    BatchNormalization,
    Convolution,
    Flatten,
    GlobalAveragePooling,
    Layer,
    LayerNormalization,
    Permute,
    Reshape,
    Residual,
    Sequential,
    Skip,
)
from layers.base import Shape, joined


@dataclass(frozen=True)
class Leaf:
    """A layer with parameters.

    Attributes:
        place: where it stands in the network.
        layer: the layer.
        images: the shape (C, H, W) of the images that its rows of numbers are, flattened, or None. Keras flattens them
            as (H, W, C).
    """

    place: str
    layer: Layer
    images: Shape | None

    def __str__(self) -> str:
        return f"the layer {self.place}, {self.layer!r}"


class Variable(NamedTuple):
    """A variable of Keras.

    Attributes:
        own: the name of the layer's array.
        title: what Keras calls it.
        shapes: those that it may have.
        turned: makes an array of the layer's shape.
    """

    own: str
    title: str
    shapes: tuple[Shape, ...]
    turned: Callable[[numpy.ndarray], numpy.ndarray]


def leaves(layers: Sequential, shape: Shape) -> list[Leaf]:
    """Return the layers with parameters and without sublayers, in the order of the forward, for samples of ``shape``.

    Raises:
        ValueError: a layer orders numbers in a way that Keras's cannot be brought to.
    """
    found: list[Leaf] = []
    _walk(layers, "", shape, None, found)
    return found


def _walk(layer: Layer, place: str, shape: Shape, images: Shape | None, found: list[Leaf]) -> Shape | None:
    """Add the leaves of a layer for samples of ``shape``; return the images that its output's rows are, or None."""
    if isinstance(layer, Sequential):
        for name, each in layer.sublayers():
            images = _walk(each, joined(place, name), shape, images, found)
            shape = each.output_shape(shape)
        return images
    if isinstance(layer, Residual):
        ends = [_walk(each, joined(place, name), shape, images, found) for name, each in layer.sublayers()]
        ends += [images] * (layer.shortcut is None)
        if ends[0] != ends[1]:
            raise ValueError(f"the layer {place}, {layer!r}, adds numbers that Keras has in two orders")
        return ends[0]
    if isinstance(layer, Skip):
        after = _walk(layer.body, joined(place, "body"), shape, images, found)
        if images or after:
            raise ValueError(f"the layer {place}, {layer!r}, puts numbers side by side that Keras has in another order")
        return None
    after = _images_after(layer, place, shape, images)
    if layer.params:
        by_pixel = isinstance(layer, BatchNormalization) and layer.gamma.shape != shape[:1]
        is_flattened = len(shape) == 3 and (by_pixel or isinstance(layer, Affine))
        found.append(Leaf(place, layer, shape if is_flattened else images))
    return after


def _images_after(layer: Layer, place: str, shape: Shape, images: Shape | None) -> Shape | None:
    if isinstance(layer, (Affine, GlobalAveragePooling)):
        return None
    if isinstance(layer, Flatten) or (isinstance(layer, Reshape) and len(layer.shape) == 1):
        return shape if len(shape) == 3 else images
    if isinstance(layer, Reshape):
        before, after = _grid(images or shape), _grid(layer.shape)
        if before != after:
            raise ValueError(f"the layer {place}, {layer!r}, orders numbers by channels, and Keras's by pixels")
        return None
    moves_channels = isinstance(layer, Permute) and layer.axes[0] != 1
    if moves_channels and (_grid(shape) or _grid(layer.output_shape(shape))):
        raise ValueError(f"the layer {place}, {layer!r}, moves the channels, which Keras has behind the pixels")
    return images


def _grid(shape: Shape) -> int:
    """Return the number of channels of images, or 0 where the order of channels and pixels is all one."""
    return 0 if len(shape) != 3 or shape[0] == 1 or shape[1] * shape[2] == 1 else shape[0]


def variables_of(leaf: Leaf, name: str, shapes: list[Shape]) -> Iterator[Variable]:
    """Yield the variables of Keras's layer, one for each of ``shapes``, which the group ``name`` of a file has.

    Raises:
        ValueError: the group has more or fewer.
    """
    layer, count = leaf.layer, len(shapes)
    if isinstance(layer, (BatchNormalization, LayerNormalization)):
        known = [("gamma", "gamma"), ("beta", "beta")]
        if isinstance(layer, BatchNormalization):
            statistics = [("running_mean", "moving_mean"), ("running_var", "moving_variance")]
            known = statistics if count == len(statistics) else known + statistics
        if len(known) != count:
            said = "" if count > len(known) else "; a file does not say which of gamma and beta is missing"
            raise ValueError(f"{leaf}: expected {len(known)} variables in {name!r}, got {count}{said}")
        yield from (_of_features(leaf, own, title) for own, title in known)
        return
    biased = 1 if layer.params.get("b") is None else 2
    if not 1 <= count <= biased:
        raise ValueError(
            f"{leaf}: expected {' or '.join(map(str, range(1, biased + 1)))} variables in {name!r}, got {count}"
        )
    yield _kernel(leaf)
    if count == 2:
        yield Variable("b", "bias", (layer.params["b"].shape,), _as_it_is)


def _kernel(leaf: Leaf) -> Variable:
    W = leaf.layer.params["W"]
    if isinstance(leaf.layer, Affine):
        return Variable("W", "kernel", (W.shape,), lambda array: _channels_first(array, leaf.images))
    filters, channels, *size = W.shape
    usual = (*size, channels, filters)
    if not isinstance(leaf.layer, Convolution) or channels != 1:
        return Variable("W", "kernel", (usual,), lambda array: array.transpose(3, 2, 0, 1))
    groups = leaf.layer.groups
    depthwise = (*size, groups, filters // groups)

    def turned(array: numpy.ndarray) -> numpy.ndarray:
        return (array.transpose(2, 3, 0, 1) if array.shape == depthwise else array.transpose(3, 2, 0, 1)).reshape(
            W.shape
        )

    return Variable("W", "kernel", (usual, depthwise) if usual != depthwise else (usual,), turned)


def _of_features(leaf: Leaf, own: str, title: str) -> Variable:
    shape = leaf.layer.gamma.shape  # type: ignore[attr-defined]
    if len(shape) == 3:
        channels, *size = shape
        return Variable(own, title, ((*size, channels),), lambda array: array.transpose(2, 0, 1))
    return Variable(own, title, (shape,), lambda array: _channels_first(array, leaf.images))


def _channels_first(array: numpy.ndarray, images: Shape | None) -> numpy.ndarray:
    """Return an array (H·W·C, …) in the order (C·H·W, …) of images (C, H, W); as it is where there are none."""
    if images is None:
        return array
    channels, height, width = images
    return array.reshape(height, width, channels, -1).transpose(2, 0, 1, 3).reshape(array.shape)


def _as_it_is(array: numpy.ndarray) -> numpy.ndarray:
    return array
