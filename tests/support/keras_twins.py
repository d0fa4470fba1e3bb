"""Networks as models of Keras 3, layer by layer; it computes by torch, or by JAX where that is not installed.

    PYTHONPATH=. python -m tests.support.keras_twins recurrent attention

writes these models of tests/training/interop/keras with what Keras computes of them; without a name, all.
"""

import gzip
import importlib.util
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch" if importlib.util.find_spec("torch") else "jax")

import keras
import numpy as np
from keras import layers as k

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
    LayerNormalization,
    LeakyRelu,
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
    Sequential,
    Skip,
    Tanh,
)
from tests.support.networks import KERAS_EXAMPLES

FOLDER = Path(__file__).parents[1] / "training" / "interop" / "keras"

_ACTIVATIONS = {
    Relu: k.ReLU,
    Relu6: lambda: k.ReLU(6.0),
    Tanh: lambda: k.Activation("tanh"),
    Gelu: lambda: k.Activation(lambda x: keras.activations.gelu(x, approximate=True)),
}


def twin(network, seed=0):
    """Return Keras's model of the same layers, with weights and statistics that are not those of new layers."""
    keras.utils.set_random_seed(seed)
    takes_indices = isinstance(next(iter(network.layers.layers.values())), Embedding)
    x = keras.Input(_channels_last(network.input_dim), dtype="int32" if takes_indices else None)
    model = keras.Model(x, _applied(network.layers, x, network.input_dim))
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        around = {"gamma": (1, 0.2), "beta": (0, 0.2), "bias": (0, 0.2), "moving_mean": (0, 0.2)}
        around["embeddings"] = (0, 1)  # Keras's are so small that positions would hardly count
        if variable.name in around:
            mean, deviation = around[variable.name]
            variable.assign(rng.normal(mean, deviation, variable.shape).astype("float32"))
        elif variable.name == "moving_variance":
            variable.assign(rng.uniform(0.5, 1.5, variable.shape).astype("float32"))
    return model


def computed(model, x):
    """Return what Keras computes of samples, given and returned with their channels first, in evaluation."""
    y = keras.ops.convert_to_numpy(model(x.transpose(0, 2, 3, 1) if x.ndim == 4 else x, training=False))
    return y.transpose(0, 3, 1, 2) if y.ndim == 4 else y


def samples_of(network, count, seed):
    """Return samples for a network: indices where it begins with an embedding, else normal numbers."""
    rng, first = np.random.default_rng(seed), next(iter(network.layers.layers.values()))
    shape = (count, *network.input_dim)
    if isinstance(first, Embedding):
        return rng.integers(len(first.W), size=shape, dtype="int32")
    return rng.standard_normal(shape, "float32")


def _channels_last(shape):
    return (*shape[1:], shape[0]) if len(shape) == 3 else shape


def _applied(layer, x, shape):
    if isinstance(layer, Sequential):
        rest = [each for _, each in layer.sublayers()]
        while rest:
            each = rest.pop(0)
            after = each.output_shape(shape)
            if (
                rest
                and {type(each), type(rest[0])} == {Reshape, Permute}
                and len(rest[0].output_shape(after)) != len(shape)
            ):
                after = rest.pop(0).output_shape(after)  # images of a sequence, or a sequence of images
                x = k.Reshape(_channels_last(after))(x)
            else:
                x = _applied(each, x, shape)
            shape = after
        return x
    if isinstance(layer, Residual):
        body = _applied(layer.body, x, shape)
        return k.Add()([body, x if layer.shortcut is None else _applied(layer.shortcut, x, shape)])
    if isinstance(layer, Skip):
        return k.Concatenate()([x, _applied(layer.body, x, shape)])
    if isinstance(layer, Affine):
        x = k.Flatten()(x) if len(shape) > 1 else x
        return k.Dense(layer.W.shape[1], use_bias=layer.b is not None)(x)
    if type(layer) in _OF_SEQUENCES:
        return _OF_SEQUENCES[type(layer)](layer, x, shape)
    if isinstance(layer, (Convolution, ConvolutionTranspose, Pooling, AveragePooling)):
        return _window(layer, x, shape)
    if isinstance(layer, BatchNormalization):
        return k.BatchNormalization()(x)
    if isinstance(layer, LayerNormalization):
        return k.LayerNormalization(axis=-1 if layer.gamma.ndim == 1 else [1, 2, 3])(x)
    if isinstance(layer, GlobalAveragePooling):
        return k.GlobalAveragePooling2D()(x)
    if isinstance(layer, Flatten):
        return k.Flatten()(x)
    if isinstance(layer, Dropout):
        return k.Dropout(layer.dropout_ratio)(x)
    if isinstance(layer, Reshape):
        return k.Reshape(_channels_last(layer.shape))(x)
    if isinstance(layer, Permute) and len(shape) == 2:
        return k.Permute(layer.axes)(x)
    if isinstance(layer, Permute):
        place = {1: 3, 2: 1, 3: 2}  # an axis of (C, H, W) among those of (H, W, C)
        return k.Permute(tuple(place[layer.axes[axis]] for axis in (1, 2, 0)))(x)
    if isinstance(layer, LeakyRelu):
        return k.LeakyReLU(layer.slope)(x)
    return _ACTIVATIONS[type(layer)]()(x)


def _attention(layer, x, shape):
    return k.MultiHeadAttention(layer.heads, shape[1] // layer.heads)(x, x, use_causal_mask=layer.causal)


def _positions(layer, x, shape):
    indices = k.Lambda(lambda x: keras.ops.arange(shape[0]))(x)
    return x + k.Embedding(*layer.W.shape)(indices)


_OF_SEQUENCES = {
    Embedding: lambda layer, x, shape: k.Embedding(*layer.W.shape)(x),
    RNN: lambda layer, x, shape: k.SimpleRNN(layer.hidden, return_sequences=True)(x),
    LSTM: lambda layer, x, shape: k.LSTM(layer.hidden, return_sequences=True)(x),
    GRU: lambda layer, x, shape: k.GRU(layer.hidden, return_sequences=True)(x),
    PositionwiseAffine: lambda layer, x, shape: k.Dense(layer.W.shape[1], use_bias=layer.b is not None)(x),
    PositionalEncoding: lambda layer, x, shape: x + layer.positions(shape[0], "float32"),
    PositionalEmbedding: _positions,
    MultiHeadAttention: _attention,
}


def _window(layer, x, shape):
    window = layer.window
    given = {"strides": window.stride, "padding": "same" if window.padding == "same" else "valid"}
    if isinstance(layer, ConvolutionTranspose):
        return k.Conv2DTranspose(layer.W.shape[1], window.kernel, use_bias=layer.b is not None, **given)(x)
    if window.padding != "same" and any(window.padding):  # of a max pooling after a ReLU, 0 is as good as nothing
        top, bottom, left, right = window.padding
        x = k.ZeroPadding2D(((top, bottom), (left, right)))(x)
    if isinstance(layer, Pooling):
        return k.MaxPooling2D(window.kernel, **given)(x)
    if isinstance(layer, AveragePooling):
        return k.AveragePooling2D(window.kernel, **given)(x)
    given |= {"use_bias": layer.b is not None, "dilation_rate": window.dilation}
    if layer.groups == shape[0] > 1:
        return k.DepthwiseConv2D(window.kernel, depth_multiplier=len(layer.W) // shape[0], **given)(x)
    return k.Conv2D(len(layer.W), window.kernel, groups=layer.groups, **given)(x)


def main(names):
    FOLDER.mkdir(exist_ok=True)
    for name in names or KERAS_EXAMPLES:
        network = KERAS_EXAMPLES[name]()
        model, x = twin(network), samples_of(network, 3, seed=1)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, f"{name}.weights.h5")
            model.save_weights(file)
            (FOLDER / f"{name}.weights.h5.gz").write_bytes(gzip.compress(file.read_bytes(), mtime=0))
        np.savez_compressed(FOLDER / f"{name}.npz", x=x, y=computed(model, x))


if __name__ == "__main__":
    main(sys.argv[1:])
