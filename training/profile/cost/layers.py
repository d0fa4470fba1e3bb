"""The cost of each layer of the library: operations of its definition, least bytes, and bytes kept for backward."""

from __future__ import annotations

import math

from kernels.max_pooling import MOST_TAPS_OF_A_BYTE
from kernels.winograd import PATCH, TILE
from layers import (
    GRU,
    LSTM,
    RNN,
    Affine,
    AveragePooling,
    BatchNormalization,
    Convolution,
    ConvolutionTranspose,
    Dropout,
    Embedding,
    Flatten,
    Gelu,
    GlobalAveragePooling,
    HingeLoss,
    HuberLoss,
    Layer,
    LayerNormalization,
    LeakyRelu,
    MeanSquaredError,
    MultiHeadAttention,
    Permute,
    Pooling,
    PositionalEmbedding,
    PositionalEncoding,
    PositionwiseAffine,
    Relu,
    Relu6,
    Reshape,
    Residual,
    Sigmoid,
    SigmoidWithLoss,
    Skip,
    Softmax,
    SoftmaxWithLoss,
    Tanh,
)
from layers.affine import permutes_weight
from training.models.outputs import places_in
from training.profile.cost.work import Batch, Cost, Work, formula


def _parameter_bytes(layer: Layer) -> int:
    return sum(array.nbytes for array in layer.params.values())


def _is_copied_flat(x: Batch) -> bool:
    """Return True for images of which a row in the logical order (C, H, W) is a copy of the channels-last memory."""
    return len(x.shape) == 3 and x.shape[0] > 1 and math.prod(x.shape[1:]) > 1


@formula(Affine)
def _affine(layer: Affine, x: Batch, y: Batch) -> Cost:
    permuted = len(x.shape) == 3 and permutes_weight(x.samples, y.shape[0])
    copied = _is_copied_flat(x)
    kept = copied * (layer.W.nbytes if permuted else x.nbytes)
    products = 2 * x.size * y.shape[0]
    return _with_products(layer, x, y, products, kept, keeps_input=permuted or not copied)


@formula(Convolution)
def _convolution(layer: Convolution, x: Batch, y: Batch) -> Cost:
    products = _winograd_flops(x, y) if layer.winograd else 2 * math.prod(y.shape[1:]) * x.samples * layer.W.size
    return _with_products(layer, x, y, products)


@formula(ConvolutionTranspose)
def _convolution_transpose(layer: ConvolutionTranspose, x: Batch, y: Batch) -> Cost:
    return _with_products(layer, x, y, 2 * math.prod(x.shape[1:]) * x.samples * layer.W.size)


def _with_products(
    layer: Affine | Convolution | ConvolutionTranspose | PositionwiseAffine,
    x: Batch,
    y: Batch,
    products: int,
    kept: int = 0,
    keeps_input: bool = True,
) -> Cost:
    """Return the cost of a layer with weights, whose three products take ``products`` operations each."""
    moved, of_bias = x.nbytes + _parameter_bytes(layer) + y.nbytes, 0 if layer.b is None else y.size
    backward = Work(products, of_bias, moved)
    if layer.input_gradient:
        backward += Work(products, 0, layer.W.nbytes + x.nbytes)
    return Cost(Work(products, of_bias, moved), backward, kept, keeps_input)


@formula(PositionwiseAffine)
def _positionwise_affine(layer: PositionwiseAffine, x: Batch, y: Batch) -> Cost:
    return _with_products(layer, x, y, 2 * x.size * y.shape[1])


@formula(MultiHeadAttention)
def _attention(layer: MultiHeadAttention, x: Batch, y: Batch) -> Cost:
    """Return the cost of two projections, and of attention that keeps no scores: backward computes them again.

    An exponential, a maximum, a scaling and a sum are counted for each score; with ``causal`` half of the scores.
    """
    (length, size), pairs = x.shape, x.samples * x.shape[0] ** 2 // (2 if layer.causal else 1)
    projections, of_scores, scores = 2 * x.size * 4 * size, 2 * pairs * size, pairs * layer.heads
    packed, sums = 3 * x.nbytes, x.samples * layer.heads * length * x.acc_itemsize
    kept = packed + x.nbytes + sums  # queries, keys and values; the heads' results
    nbytes = x.nbytes + _parameter_bytes(layer) + y.nbytes + kept
    forward = Work(projections + 2 * of_scores, 4 * x.size + 5 * scores, nbytes)
    backward = Work(2 * projections + 5 * of_scores, 4 * x.size + 8 * scores, 2 * nbytes)
    if not layer.input_gradient:
        backward = Work(
            backward.product_flops - 2 * x.size * 3 * size, backward.other_flops, backward.nbytes - x.nbytes
        )
    return Cost(forward, backward, kept, keeps_input=True)


@formula(PositionalEmbedding, PositionalEncoding)
def _positional(layer: PositionalEmbedding | PositionalEncoding, x: Batch, y: Batch) -> Cost:
    of_positions = _parameter_bytes(layer) or x.nbytes // max(x.samples, 1)
    learned = x.size if layer.params else 0
    forward = Work(0, x.size, x.nbytes + of_positions + y.nbytes)
    return Cost(forward, Work(0, learned, y.nbytes + x.nbytes + _parameter_bytes(layer)))


def _winograd_flops(x: Batch, y: Batch) -> int:
    """Return the operations of a 3×3 convolution by tiles, with the transforms of inputs, outputs and filters."""
    (channels, *_), (filters, *output) = x.shape, y.shape
    tiles, numbers = x.samples * math.prod(-(-length // TILE) for length in output), PATCH * PATCH
    inputs, outputs, weights = numbers * tiles * channels, TILE * TILE * tiles * filters, 9 * channels * filters
    return 2 * numbers * (tiles * channels * filters + inputs + outputs + weights)


_BY_NUMBER: dict[type[Layer], tuple[int, int, str]] = {
    Relu: (1, 1, "mask"),
    Relu6: (2, 1, "mask"),
    LeakyRelu: (2, 3, "mask"),
    Dropout: (1, 1, "mask"),
    Sigmoid: (7, 3, "output"),
    Tanh: (1, 3, "output"),
    Gelu: (10, 20, "input"),
    Softmax: (4, 4, "output"),
    Flatten: (0, 0, ""),
    Permute: (0, 0, ""),
    Reshape: (0, 0, ""),
}
"""The operations for each number, forward and backward, and what is kept for backward; a mask has a byte a number."""


@formula(*_BY_NUMBER)
def _by_number(layer: Layer, x: Batch, y: Batch) -> Cost:
    forward, backward, kept = next(_BY_NUMBER[kind] for kind in type(layer).__mro__ if kind in _BY_NUMBER)
    mask, nbytes = x.size * (kept == "mask"), x.nbytes + y.nbytes
    read_again = {"mask": mask, "input": x.nbytes, "output": y.nbytes, "": 0}[kept]
    works = Work(0, forward * x.size, nbytes + mask), Work(0, backward * x.size, nbytes + read_again)
    return Cost(*works, mask, keeps_input=kept == "input", keeps_output=kept == "output")


@formula(SoftmaxWithLoss)
def _softmax_with_loss(layer: SoftmaxWithLoss, x: Batch, y: Batch) -> Cost:
    """Return the cost with int32 labels, of samples or of all steps or pixels."""
    rows = x.samples * math.prod(places_in(x.shape))
    labels, probabilities = 4 * rows, x.size * x.acc_itemsize
    forward = Work(0, 4 * x.size + 2 * rows, x.nbytes + labels + probabilities + x.acc_itemsize)
    return Cost(forward, Work(0, 2 * x.size, probabilities + labels + x.nbytes), kept=probabilities + labels)


_LOSS_OPERATIONS: dict[type[Layer], tuple[int, int]] = {
    SigmoidWithLoss: (6, 2),
    MeanSquaredError: (3, 1),
    HuberLoss: (6, 3),
    HingeLoss: (6, 1),
}
"""The operations for each number of a loss, forward and backward."""


@formula(*_LOSS_OPERATIONS)
def _loss(layer: Layer, x: Batch, y: Batch) -> Cost:
    """Return the cost with float32 targets; probabilities, errors or gradients are kept in the dtype of sums."""
    forward, backward = _LOSS_OPERATIONS[type(layer)]
    targets, kept = 4 * x.size, x.size * x.acc_itemsize
    works = (
        Work(0, forward * x.size, x.nbytes + targets + kept + x.acc_itemsize),
        Work(0, backward * x.size, kept + x.nbytes),
    )
    return Cost(*works, kept=kept)


@formula(BatchNormalization)
def _batch_normalization(layer: BatchNormalization, x: Batch, y: Batch) -> Cost:
    is_per_channel = len(x.shape) == 3 and x.shape[0] == len(layer.gamma)
    copied = _is_copied_flat(x) and not is_per_channel
    statistics = 2 * len(layer.gamma) * x.acc_itemsize
    forward = Work(0, 7 * x.size, x.nbytes + _parameter_bytes(layer) + y.nbytes + 2 * statistics)
    backward = Work(0, 9 * x.size, y.nbytes + 2 * x.nbytes + 2 * _parameter_bytes(layer) + statistics)
    return Cost(forward, backward, statistics + copied * x.nbytes, keeps_input=not copied)


@formula(LayerNormalization)
def _layer_normalization(layer: LayerNormalization, x: Batch, y: Batch) -> Cost:
    normalised = x.size * x.acc_itemsize
    forward = Work(0, 8 * x.size, x.nbytes + _parameter_bytes(layer) + y.nbytes + normalised)
    nbytes = y.nbytes + normalised + x.nbytes + layer.gamma.nbytes + _parameter_bytes(layer)
    deviations = x.size // layer.gamma.size * x.acc_itemsize
    return Cost(forward, Work(0, 11 * x.size, nbytes), normalised + deviations)


@formula(Embedding)
def _embedding(layer: Embedding, x: Batch, y: Batch) -> Cost:
    """Return the cost with int32 indices; all rows of the gradient are written."""
    indices = 4 * x.size
    forward = Work(0, 0, indices + 2 * y.nbytes)
    return Cost(forward, Work(0, y.size, indices + y.nbytes + layer.W.nbytes), kept=indices)


_OF_A_CELL: dict[type[Layer], tuple[int, int, int, int]] = {
    RNN: (5, 5, 1, 0),
    LSTM: (36, 30, 2, 5),
    GRU: (30, 32, 1, 4),
}
"""Operations for each number of a state, forward and backward; and what is kept: states of T + 1 steps, others of T."""


@formula(*_OF_A_CELL)
def _recurrent(layer: RNN | LSTM | GRU, x: Batch, y: Batch) -> Cost:
    """Return the cost of all steps; the weights of the states are read once for each."""
    forward, backward, states, kept = next(_OF_A_CELL[kind] for kind in type(layer).__mro__ if kind in _OF_A_CELL)
    rows, steps = x.samples * y.shape[0], y.shape[0]
    of_inputs, of_states = 2 * rows * layer.Wx.size, 2 * rows * layer.Wh.size
    bias, again = 2 * rows * len(layer.bx), max(steps - 1, 0) * layer.Wh.nbytes
    kept_bytes = x.nbytes + states * (y.nbytes + y.nbytes // max(steps, 1)) + kept * y.nbytes
    moved = x.nbytes + _parameter_bytes(layer) + again + y.nbytes + kept_bytes
    back = Work(of_inputs + 2 * of_states, backward * y.size + bias, moved + _parameter_bytes(layer))
    if layer.input_gradient:
        back += Work(of_inputs, 0, layer.Wx.nbytes + x.nbytes)
    return Cost(Work(of_inputs + of_states, forward * y.size + bias, moved), back, kept_bytes)


@formula(Pooling)
def _max_pooling(layer: Pooling, x: Batch, y: Batch) -> Cost:
    taps = math.prod(layer.window.kernel)
    comparisons, winners = y.size * (taps - 1), y.size * (1 if taps <= MOST_TAPS_OF_A_BYTE else 4)
    nbytes = x.nbytes + y.nbytes + winners
    return Cost(Work(0, comparisons, nbytes), Work(0, y.size, nbytes), kept=winners)


@formula(AveragePooling)
def _average_pooling(layer: AveragePooling, x: Batch, y: Batch) -> Cost:
    work = Work(0, y.size * math.prod(layer.window.kernel), x.nbytes + y.nbytes)
    return Cost(work, work)


@formula(GlobalAveragePooling)
def _global_average_pooling(layer: GlobalAveragePooling, x: Batch, y: Batch) -> Cost:
    nbytes = x.nbytes + y.nbytes
    return Cost(Work(0, x.size, nbytes), Work(0, y.size, nbytes))


@formula(Residual)
def _residual(layer: Residual, x: Batch, y: Batch) -> Cost:
    """Return the cost of the two sums alone: body and shortcut have rows of their own."""
    return Cost(Work(0, y.size, 3 * y.nbytes), Work(0, x.size, 3 * x.nbytes))


@formula(Skip)
def _skip(layer: Skip, x: Batch, y: Batch) -> Cost:
    """Return the cost of the copies and the sum alone: the body has rows of its own."""
    return Cost(Work(0, 0, 2 * y.nbytes), Work(0, x.size, 2 * y.nbytes + x.nbytes))
