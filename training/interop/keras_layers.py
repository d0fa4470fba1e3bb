"""The variables that Keras has for a layer: their shapes, and how they become a layer's arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy

from layers import (
    GRU,
    LSTM,
    RNN,
    Affine,
    BatchNormalization,
    Convolution,
    Embedding,
    LayerNormalization,
    MultiHeadAttention,
    PositionalEmbedding,
    PositionwiseAffine,
)
from layers.base import Shape
from training.interop.keras_orders import Leaf

ALL_COLUMNS = slice(None)


class Variable(NamedTuple):
    """A variable of Keras, or the part of one that belongs to one of a layer's arrays.

    Attributes:
        number: its place in Keras's group.
        own: the name of the layer's array.
        title: what Keras calls it.
        shapes: those that it may have.
        turned: makes an array of the shape of these columns of the layer's array.
        columns: of the layer's array, along its last axis; the others belong to other variables.
    """

    number: int
    own: str
    title: str
    shapes: tuple[Shape, ...]
    turned: Callable[[numpy.ndarray], numpy.ndarray]
    columns: slice = ALL_COLUMNS


def variables_of(leaf: Leaf, name: str, shapes: list[Shape]) -> Iterator[Variable]:
    """Yield the variables of Keras's layer, which the group ``name`` of a file has in ``shapes``.

    Raises:
        ValueError: the group has more or fewer, or those of a layer that computes something else.
    """
    layer, count = leaf.layer, len(shapes)
    if isinstance(layer, (BatchNormalization, LayerNormalization)):
        yield from _of_normalization(leaf, name, count)
    elif isinstance(layer, (RNN, LSTM, GRU)):
        yield from _of_cell(leaf, layer, name, shapes)
    elif isinstance(layer, MultiHeadAttention):
        yield from _of_attention(leaf, layer, name, count)
    elif isinstance(layer, (Embedding, PositionalEmbedding)):
        _require_count(leaf, name, count, 1)
        yield Variable(0, "W", "embeddings", (layer.W.shape,), _as_it_is)
    else:
        biased = layer.params.get("b") is not None
        _require_count(leaf, name, count, *((1, 2) if biased else (1,)))
        yield _kernel(leaf)
        if count == 2:
            yield Variable(1, "b", "bias", (layer.params["b"].shape,), _as_it_is)


def _require_count(leaf: Leaf, name: str, count: int, *counts: int) -> None:
    if count not in counts:
        raise ValueError(f"{leaf}: expected {' or '.join(map(str, counts))} variables in {name!r}, got {count}")


def _of_normalization(leaf: Leaf, name: str, count: int) -> Iterator[Variable]:
    known = [("gamma", "gamma"), ("beta", "beta")]
    if isinstance(leaf.layer, BatchNormalization):
        statistics = [("running_mean", "moving_mean"), ("running_var", "moving_variance")]
        known = statistics if count == len(statistics) else known + statistics
    if len(known) != count:
        said = "" if count > len(known) else "; a file does not say which of gamma and beta is missing"
        raise ValueError(f"{leaf}: expected {len(known)} variables in {name!r}, got {count}{said}")
    yield from (_of_features(leaf, number, own, title) for number, (own, title) in enumerate(known))


def _of_cell(leaf: Leaf, layer: RNN | LSTM | GRU, name: str, shapes: list[Shape]) -> Iterator[Variable]:
    """Yield the variables of a recurrent layer's cell. Where Keras has one bias it becomes ``bx``; ``bh`` stays 0."""
    _require_count(leaf, name, len(shapes), 2, 3)
    columns = layer.bx.shape
    turned = _reset_first if isinstance(layer, GRU) else _as_it_is
    yield Variable(0, "Wx", "kernel", (layer.Wx.shape,), turned)
    yield Variable(1, "Wh", "recurrent_kernel", (layer.Wh.shape,), turned)
    if len(shapes) == 2:
        return
    if not isinstance(layer, GRU):
        yield Variable(2, "bx", "bias", (columns,), _as_it_is)
        return
    if shapes[2] == columns:
        raise ValueError(
            f"{leaf}: expected the bias of {(2, *columns)} of a GRU with reset_after=True, got one of {columns} in "
            f"{name!r}, that of reset_after=False, which resets the states before their product and not behind it"
        )
    for row, own in enumerate(("bx", "bh")):
        yield Variable(2, own, "bias", ((2, *columns),), _gates_of_row(row))


def _reset_first(array: numpy.ndarray) -> numpy.ndarray:
    """Return the columns of a GRU's gates z, r, h in the order r, z, h."""
    update, reset, candidate = numpy.split(array, 3, axis=-1)
    return numpy.concatenate((reset, update, candidate), axis=-1)


def _gates_of_row(row: int) -> Callable[[numpy.ndarray], numpy.ndarray]:
    return lambda array: _reset_first(array[row])


def _of_attention(leaf: Leaf, layer: MultiHeadAttention, name: str, count: int) -> Iterator[Variable]:
    """Yield kernels and biases of the queries, keys, values and outputs, in which Keras has an axis for the heads."""
    _require_count(leaf, name, count, 4, 8)
    each, size = count // 4, len(layer.W_in)
    heads = layer.heads, size // layer.heads

    def row(array: numpy.ndarray) -> numpy.ndarray:
        return array.reshape(size)

    def square(array: numpy.ndarray) -> numpy.ndarray:
        return array.reshape(size, size)

    for place, part in enumerate(("query", "key", "value")):
        columns, number = slice(place * size, (place + 1) * size), place * each
        yield Variable(number, "W_in", f"kernel of the {part}", ((size, *heads),), square, columns)
        if each == 2:
            yield Variable(number + 1, "b_in", f"bias of the {part}", (heads,), row, columns)
    yield Variable(3 * each, "W_out", "kernel of the output", ((*heads, size),), square)
    if each == 2:
        yield Variable(7, "b_out", "bias of the output", ((size,),), _as_it_is)


def _kernel(leaf: Leaf) -> Variable:
    W = leaf.layer.params["W"]
    if isinstance(leaf.layer, (Affine, PositionwiseAffine)):
        return Variable(0, "W", "kernel", (W.shape,), lambda array: _channels_first(array, leaf.images))
    filters, channels, *size = W.shape
    usual = (*size, channels, filters)
    if not isinstance(leaf.layer, Convolution) or channels != 1:
        return Variable(0, "W", "kernel", (usual,), lambda array: array.transpose(3, 2, 0, 1))
    groups = leaf.layer.groups
    depthwise = (*size, groups, filters // groups)

    def turned(array: numpy.ndarray) -> numpy.ndarray:
        return (array.transpose(2, 3, 0, 1) if array.shape == depthwise else array.transpose(3, 2, 0, 1)).reshape(
            W.shape
        )

    return Variable(0, "W", "kernel", (usual, depthwise) if usual != depthwise else (usual,), turned)


def _of_features(leaf: Leaf, number: int, own: str, title: str) -> Variable:
    shape = leaf.layer.gamma.shape  # type: ignore[attr-defined]
    if len(shape) == 3:
        channels, *size = shape
        return Variable(number, own, title, ((*size, channels),), lambda array: array.transpose(2, 0, 1))
    return Variable(number, own, title, (shape,), lambda array: _channels_first(array, leaf.images))


def _channels_first(array: numpy.ndarray, images: Shape | None) -> numpy.ndarray:
    """Return an array (H·W·C, …) in the order (C·H·W, …) of images (C, H, W); as it is where there are none."""
    if images is None:
        return array
    channels, height, width = images
    return array.reshape(height, width, channels, -1).transpose(2, 0, 1, 3).reshape(array.shape)


def _as_it_is(array: numpy.ndarray) -> numpy.ndarray:
    return array
