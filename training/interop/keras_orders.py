"""The layers of a network that Keras has variables for, and the order in which Keras keeps the numbers before them.

Keras has the channels of images last, xpnet first: what comes behind a ``Flatten`` lies in another order. Sequences
(T, D) are the same in both.
"""

from __future__ import annotations

from dataclasses import dataclass

from layers import (
    Affine,
    AveragePooling,
    BatchNormalization,
    Convolution,
    ConvolutionTranspose,
    Embedding,
    Flatten,
    GlobalAveragePooling,
    Layer,
    Permute,
    Pooling,
    Reshape,
    Residual,
    Sequential,
    Skip,
)
from layers.base import Shape, joined

_MOVED: Shape = ()
"""In the place of images: those whose channels a ``Permute`` moved. Where Keras has them, only a layer that needs them
last says, or a sum with images; before a ``Flatten`` they may be anywhere."""

_OF_CHANNELS = (Convolution, ConvolutionTranspose, Pooling, AveragePooling, GlobalAveragePooling)


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
        rest = list(reversed(layer.sublayers()))
        while rest:
            name, each = rest.pop()
            if rest and images is None and _is_turned(shape, each, rest[-1][1]):
                shape = rest.pop()[1].output_shape(each.output_shape(shape))
                continue
            images = _walk(each, joined(place, name), shape, images, found)
            shape = each.output_shape(shape)
        return images
    if isinstance(layer, Residual):
        ends = [_walk(each, joined(place, name), shape, images, found) for name, each in layer.sublayers()]
        ends += [images] * (layer.shortcut is None)
        if set(ends) == {None, _MOVED}:
            return None
        if ends[0] != ends[1]:
            raise ValueError(f"the layer {place}, {layer!r}, adds numbers that Keras has in two orders")
        return ends[0]
    if isinstance(layer, Skip):
        after = _walk(layer.body, joined(place, "body"), shape, images, found)
        if images is not None or after is not None:
            raise ValueError(f"the layer {place}, {layer!r}, puts numbers side by side that Keras has in another order")
        return None
    after = _images_after(layer, place, shape, images)
    if layer.params:
        by_pixel = isinstance(layer, BatchNormalization) and layer.gamma.shape != shape[:1]
        is_flattened = len(shape) == 3 and (by_pixel or isinstance(layer, Affine))
        found.append(Leaf(place, layer, shape if is_flattened else images or None))
    return after


def _is_turned(shape: Shape, layer: Layer, following: Layer) -> bool:
    """Return whether two layers make the sequence (H·W, C) of images (C, H, W), or images (C, H, W) of a sequence.

    Keras, whose channels are last anyway, has a ``Reshape`` for both, and the same numbers behind it.
    """
    if isinstance(layer, Reshape) and isinstance(following, Permute):
        return following.axes == (2, 1) and len(shape) == 3 and layer.shape[0] == shape[0]
    if isinstance(layer, Permute) and isinstance(following, Reshape):
        return layer.axes == (2, 1) and len(following.shape) == 3 and following.shape[0] == shape[1]
    return False


def _images_after(layer: Layer, place: str, shape: Shape, images: Shape | None) -> Shape | None:
    if isinstance(layer, Embedding) and len(shape) != 1:
        raise ValueError(f"the layer {place}, {layer!r}: expected indices (T,) of a sequence as in Keras, got {shape}")
    if isinstance(layer, _OF_CHANNELS):
        return None
    if images == _MOVED and (layer.params or isinstance(layer, (Flatten, Reshape))):
        raise ValueError(f"the layer {place}, {layer!r}, takes channels that a Permute moved: Keras has them elsewhere")
    if isinstance(layer, Affine):
        return None
    if isinstance(layer, Flatten) or (isinstance(layer, Reshape) and len(layer.shape) == 1):
        return shape if len(shape) == 3 else images
    if isinstance(layer, Reshape):
        before, after = _grid(images or shape), _grid(layer.shape)
        if before != after:
            raise ValueError(f"the layer {place}, {layer!r}, orders numbers by channels, and Keras's by pixels")
        return None
    moves_channels = isinstance(layer, Permute) and layer.axes[0] != 1
    return _MOVED if moves_channels and (_grid(shape) or _grid(layer.output_shape(shape))) else images


def _grid(shape: Shape) -> int:
    """Return the number of channels of images, or 0 where the order of channels and pixels is all one."""
    return 0 if len(shape) != 3 or shape[0] == 1 or shape[1] * shape[2] == 1 else shape[0]
