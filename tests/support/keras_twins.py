"""Networks as models of Keras 3, layer by layer; it computes by torch.

    PYTHONPATH=. KERAS_BACKEND=torch python -m tests.support.keras_twins

writes the small model of tests/training/interop/keras with what Keras computes of it.
"""

import gzip
import os
import tempfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
from keras import layers as k

from layers import (
    Affine,
    AveragePooling,
    BatchNormalization,
    Convolution,
    ConvolutionTranspose,
    Dropout,
    Flatten,
    Gelu,
    GlobalAveragePooling,
    LayerNormalization,
    LeakyRelu,
    Permute,
    Pooling,
    Relu,
    Relu6,
    Reshape,
    Residual,
    Sequential,
    Skip,
    Tanh,
)
from tests.support.networks import keras_example

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
    channels, *size = network.input_dim
    x = keras.Input((*size, channels))
    model = keras.Model(x, _applied(network.layers, x, network.input_dim))
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        around = {"gamma": (1, 0.2), "beta": (0, 0.2), "bias": (0, 0.2), "moving_mean": (0, 0.2)}
        if variable.name in around:
            mean, deviation = around[variable.name]
            variable.assign(rng.normal(mean, deviation, variable.shape).astype("float32"))
        elif variable.name == "moving_variance":
            variable.assign(rng.uniform(0.5, 1.5, variable.shape).astype("float32"))
    return model


def computed(model, x):
    """Return what Keras computes of samples, given with their channels first, in evaluation."""
    return keras.ops.convert_to_numpy(model(x.transpose(0, 2, 3, 1) if x.ndim == 4 else x, training=False))


def _applied(layer, x, shape):
    if isinstance(layer, Sequential):
        for _, each in layer.sublayers():
            x, shape = _applied(each, x, shape), each.output_shape(shape)
        return x
    if isinstance(layer, Residual):
        body = _applied(layer.body, x, shape)
        return k.Add()([body, x if layer.shortcut is None else _applied(layer.shortcut, x, shape)])
    if isinstance(layer, Skip):
        return k.Concatenate()([x, _applied(layer.body, x, shape)])
    if isinstance(layer, Affine):
        x = k.Flatten()(x) if len(shape) == 3 else x
        return k.Dense(layer.W.shape[1], use_bias=layer.b is not None)(x)
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
        channels, *size = layer.shape
        return k.Reshape((*size, channels))(x)
    if isinstance(layer, Permute):
        place = {1: 3, 2: 1, 3: 2}  # an axis of (C, H, W) among those of (H, W, C)
        return k.Permute(tuple(place[layer.axes[axis]] for axis in (1, 2, 0)))(x)
    if isinstance(layer, LeakyRelu):
        return k.LeakyReLU(layer.slope)(x)
    return _ACTIVATIONS[type(layer)]()(x)


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


def main():
    FOLDER.mkdir(exist_ok=True)
    network = keras_example()
    model, x = twin(network), np.random.default_rng(1).random((3, *network.input_dim), "float32")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "small.weights.h5")
        model.save_weights(file)
        (FOLDER / "small.weights.h5.gz").write_bytes(gzip.compress(file.read_bytes(), mtime=0))
    np.savez_compressed(FOLDER / "small.npz", x=x, y=computed(model, x))


if __name__ == "__main__":
    main()
