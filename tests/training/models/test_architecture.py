"""Files of any network: layers as JSON, made again to the same bits; and what in a file is refused."""

import json
import sys
import textwrap

import numpy as np
import pytest

import backend
import layers
from backend import asnumpy
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
    HuberLoss,
    Layer,
    LayerNormalization,
    LeakyRelu,
    Loss,
    Pooling,
    Relu,
    Relu6,
    Residual,
    Sequential,
    Sigmoid,
    SoftmaxWithLoss,
    Tanh,
    parameter,
)
from layers.losses import NAMES, as_loss
from training.models import Network, TwoLayerNet, saving
from training.models.architecture import describe, rebuild
from training.models.loading import load_network

LAYERS = {
    "Affine": lambda: Affine.of(4, 3),
    "AveragePooling": lambda: AveragePooling(3, 2, (2, 1), (1, 0, 0, 1), 2, "ceil", count_padding=True),
    "BatchNormalization": lambda: BatchNormalization.of(3, momentum=0.75),
    "Convolution": lambda: Convolution.of(4, 6, (3, 2), (2, 1), "same", (1, 2), groups=2),
    "ConvolutionTranspose": lambda: ConvolutionTranspose.of(2, 3, 3, 2, 1, 2),
    "Dropout": lambda: Dropout(0.3),
    "Embedding": lambda: layers.Embedding.of(5, 3),
    "RNN": lambda: layers.RNN.of(4, 3),
    "LSTM": lambda: layers.LSTM.of(4, 3),
    "GRU": lambda: layers.GRU.of(4, 3),
    "Flatten": Flatten,
    "Gelu": Gelu,
    "GlobalAveragePooling": GlobalAveragePooling,
    "LayerNormalization": lambda: LayerNormalization.of((4, 2, 2)),
    "Relu6": Relu6,
    "LeakyRelu": lambda: LeakyRelu(0.3),
    "MultiHeadAttention": lambda: layers.MultiHeadAttention.of(4, 2, causal=True),
    "PositionwiseAffine": lambda: Sequential(
        *(layers.PositionwiseAffine.of(4, 3, bias=bias) for bias in (True, False))
    ),
    "PositionalEncoding": lambda: layers.PositionalEncoding(5, 4),
    "PositionalEmbedding": lambda: layers.PositionalEmbedding.of(5, 4),
    "Permute": lambda: layers.Permute((2, 1, 3)),
    "Reshape": lambda: layers.Reshape((3, 4)),
    "Pooling": lambda: Pooling(2, 3, 2, (0, 1), (2, 1), "ceil"),
    "Relu": Relu,
    "Residual": lambda: Residual(Sequential(Convolution.of(2, 4, 3, pad=1), Relu()), Convolution.of(2, 4, 1)),
    "Sequential": lambda: Sequential({"first": Affine.of(3, 4), "then": Sequential(Relu(), Affine.of(4, 2))}),
    "Sigmoid": Sigmoid,
    "Skip": lambda: layers.Skip(Sequential(Convolution.of(2, 4, 3, pad=1), Relu())),
    "Softmax": layers.Softmax,
    "Tanh": Tanh,
    "AddLayer": layers.AddLayer,
    "MulLayer": layers.MulLayer,
    "no bias": lambda: Sequential(Convolution.of(2, 4, 3, bias=False), Affine.of(36, 2, bias=False)),
    "winograd": lambda: Convolution.of(2, 4, 3, pad=1, winograd=True),
    **{type(as_loss(name)).__name__: lambda name=name: as_loss(name) for name in NAMES},
    "options": lambda: SoftmaxWithLoss(0.1, np.array([1, 2.5]), -1),
}


def through_json(value):
    return json.loads(json.dumps(value, allow_nan=False))


def test_every_layer_is_tried():
    exported = (getattr(layers, name) for name in layers.__all__)
    kinds = {kind.__name__ for kind in exported if isinstance(kind, type) and issubclass(kind, Layer)}
    assert kinds - {"Layer", "Loss"} <= set(LAYERS)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_every_layer_is_made_again(device, name, dtype):
    layer = LAYERS[name]().astype(dtype)
    again = rebuild(through_json(describe(layer)))
    assert repr(again) == repr(layer)
    assert describe(again) == describe(layer)
    for own, other in ((layer.params, again.params), (layer.state, again.state)):
        shapes = [[(key, a.shape, a.dtype, type(a)) for key, a in arrays.items()] for arrays in (own, other)]
        assert shapes[0] == shapes[1]
    for attribute in (
        "window",
        "groups",
        "winograd",
        "momentum",
        "eps",
        "count_padding",
        "slope",
        "dropout_ratio",
        "heads",
        "causal",
    ):
        assert getattr(layer, attribute, None) == getattr(again, attribute, None)


def images():
    body = Sequential(Convolution.of(4, 4, 3, pad=1), BatchNormalization.of(4, momentum=0.5), Relu())
    return Sequential(
        Convolution.of(2, 4, 3, stride=2, pad="same"), Residual(body), Pooling(2, 2, stride=2), Gelu(),
        Flatten(), LayerNormalization.of(16), Affine.of(16, 6), Dropout(0.25), LeakyRelu(0.1), Affine.of(6, 3),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_network_comes_back_with_loss_and_dtype_to_the_same_bits(device, tmp_path, dtype):
    network = Network(images(), (2, 8, 8), {"classes": ["a", "b", "c"]}, HuberLoss(0.5)).astype(dtype)
    x = backend.random.normal((5, 2, 8, 8), 1, dtype)
    network.predict(x, train_flg=True)  # moves running statistics
    network.save_params(tmp_path / "a.safetensors")
    before = backend.random.default.state
    again = load_network(tmp_path / "a.safetensors")
    assert backend.random.default.state == before
    assert repr(again) == repr(network)
    assert again.config == {"classes": ["a", "b", "c"]}
    assert again.params.flat.dtype == dtype
    assert asnumpy(again.predict(x)).tobytes() == asnumpy(network.predict(x)).tobytes()
    assert again.description() == network.description()
    again.save_params(tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").read_bytes() == (tmp_path / "a.safetensors").read_bytes()


def test_a_model_by_name_comes_back_with_loss_and_dtype(tmp_path):
    network = TwoLayerNet(4, 3, 1, dtype="float64", loss="mean-squared")
    network.save_params(tmp_path / "a.safetensors")
    again = load_network(tmp_path / "a.safetensors")
    assert type(again) is TwoLayerNet
    assert repr(again) == repr(network)
    assert again.params.flat.dtype == "float64"
    assert again.config == network.config


def test_a_file_from_before_descriptions_is_loaded(tmp_path):
    network = TwoLayerNet(4, 3, 2)
    arrays = {name: asnumpy(array) for name, array in network.params.items()}
    saving.save_arrays(tmp_path / "a.safetensors", arrays, network.config)
    again = load_network(tmp_path / "a.safetensors")
    assert repr(again) == repr(network)
    saving.save_arrays(tmp_path / "b.safetensors", arrays)
    with pytest.raises(ValueError, match=r"b.safetensors does not say which model it is: .*call its load_params"):
        load_network(tmp_path / "b.safetensors")


# -- layers of one's own ------------------------------------------------------------------------------------------

OWN = textwrap.dedent(
    """
    from pathlib import Path

    from layers import Layer, SoftmaxWithLoss, parameter

    Path(__file__).with_suffix(".imported").touch()

    class Scale(Layer):
        k, dk = parameter()

        def __init__(self, k, power=1.0, names=("a", "b"), options=None):
            self.k, self.power, self.names, self.options = k, power, names, options

        def forward(self, x):
            return self.save(x * self.k**self.power, x)

    class Hard(SoftmaxWithLoss):
        pass

    class Holder:
        class Inner(Scale):
            pass

    something = 3
    """
)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Writes and imports a module of the user's own; returns it."""
    (tmp_path / "my_layers.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    import my_layers

    yield my_layers
    sys.modules.pop("my_layers", None)


def test_a_layer_of_ones_own_is_imported_only_where_that_is_asked_for(own, tmp_path):
    chain = Sequential(Affine.of(4, 3), own.Scale(np.ones(3, "float32"), 2, ["x"], {"a": [1, None]}))
    network = Network(chain, (4,), loss=own.Hard(0.25))
    network.save_params(tmp_path / "a.safetensors")
    mark = tmp_path / "my_layers.imported"
    mark.unlink()
    del sys.modules["my_layers"]
    with pytest.raises(ValueError, match=r"layer my_layers:(Scale|Hard), a class that is not xpnet's: allow_"):
        load_network(tmp_path / "a.safetensors")
    assert not mark.exists()
    again = load_network(tmp_path / "a.safetensors", allow_import=True)
    assert mark.exists()
    scale = again.layers["Scale1"]
    assert (type(scale).__module__, scale.power, scale.names, scale.options) == (
        "my_layers",
        2,
        ("x",),
        {"a": (1, None)},
    )
    assert again.last_layer.label_smoothing == 0.25
    x = np.ones((2, 4), "float32")
    assert again.predict(x).tobytes() == network.predict(x).tobytes()


def test_a_class_in_a_class_is_found(own):
    inner = own.Holder.Inner(np.ones(3, "float32"))
    assert describe(inner)["type"] == "my_layers:Holder.Inner"
    assert type(rebuild(describe(inner), allow_import=True)) is own.Holder.Inner


class Kept(Layer):
    k, dk = parameter()

    def __init__(self, k, mask=None, *, note=None):
        self.k, self.mask, self.note = k, mask, note


class Unkept(Layer):
    def __init__(self, factor):
        self.scale = factor


class Open(Layer):
    def __init__(self, *factors):
        self.factors = factors


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Unkept(3), "Unkept.__init__ takes 'factor', and the layer keeps no attribute of that name"),
        (lambda: Open(3), r"Open.__init__ takes \*factors: name each argument"),
        (
            lambda: Kept(np.ones(2, "f4"), mask=np.ones(2, "f4")),
            "Kept.mask is an array that is neither a parameter nor state",
        ),
        (lambda: Kept(np.ones(2, "f4"), note=object()), "Kept.note is a object, which JSON does not have"),
        (lambda: Kept(np.ones(2, "f4"), note=float("nan")), "Kept.note is a float"),
        (lambda: type("Local", (Relu,), {"__qualname__": "f.<locals>.Local"})(), "cannot be imported: define it at"),
    ],
)
def test_what_cannot_be_described_is_saved_and_says_why(tmp_path, make, words):
    with pytest.raises(ValueError, match=words):
        describe(make())
    network = Network(Sequential(Affine.of(3, 2), make()), (3,))
    network.save_params(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=rf"does not say which model it is: .*{words}.*; build the network and call"):
        load_network(tmp_path / "a.safetensors")
    network.load_params(tmp_path / "a.safetensors")


# -- what a file may not say ------------------------------------------------------------------------------------------

GOOD = {"type": "LeakyRelu", "arguments": {"slope": 0.5}}
ARRAYS = {"W": {"array": [4, 2], "dtype": "float32"}, "b": {"array": [2], "dtype": "float32"}}


def affine(**changes):
    return {"type": "Affine", "arguments": {**ARRAYS, **changes}}


def nested(depth):
    layer = GOOD
    for _ in range(depth):
        layer = {"type": "Residual", "arguments": {"body": {"layer": layer}, "shortcut": None}}
    return layer


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (None, "expected a layer with its type, got None"),
        ({"type": 3, "arguments": {}}, "expected a layer with its type"),
        ({"type": "Relu"}, "expected 'Relu' with its arguments"),
        ({"type": "Relu", "arguments": [], "more": 1}, "expected 'Relu' with its arguments"),
        ({"type": "Eval", "arguments": {}}, "'Eval' is not a layer of xpnet"),
        ({"type": "relu", "arguments": {}}, "'relu' is not a layer of xpnet"),
        ({"type": "__class__", "arguments": {}}, "'__class__' is not a layer of xpnet"),
        ({"type": "os:system", "arguments": {"command": "x"}}, "os:system, a class that is not xpnet's"),
        ({"type": "os.path:a b", "arguments": {}}, "expected a layer as module:Class"),
        ({"type": "layers.base:joined", "arguments": {}}, "'layers.base:joined' is not a layer of xpnet"),
        ({"type": "layers.nothing:X", "arguments": {}}, "layers.nothing:X cannot be imported: ModuleNotFoundError"),
        ({"type": "LeakyRelu", "arguments": {"slope": 3}}, "slope must be a finite number, .*got 3"),
        ({"type": "LeakyRelu", "arguments": {"slop": 3}}, "LeakyRelu takes slope, not 'slop'"),
        ({"type": "Affine", "arguments": {}}, "Affine cannot be made from"),
        (affine(W={"array": [4, 2**40], "dtype": "float32"}), "expected the shape and dtype of an array"),
        (affine(W={"array": [4, 2**30], "dtype": "float32"}), "but the file has none left"),
        (affine(W={"array": [5, 2], "dtype": "float32"}), r"weights of shape \(5, 2\), but the file has none left"),
        (affine(W={"array": [4, 2], "dtype": "object"}), "expected the shape and dtype of an array"),
        (affine(W={"array": "4", "dtype": "float32"}), "expected the shape and dtype of an array"),
        (affine(W={"shape": [4, 2]}), "expected a number, a text, a list, a layer or an array"),
        (affine(W=[1, 2]), "needs W as a floating-point array"),
        ({"type": "Sequential", "layers": [GOOD]}, "expected the layers of a Sequential by name"),
        ({"type": "Pooling", "arguments": {"pool_h": 0, "pool_w": 1}}, "pool_h must be a whole number"),
        (nested(60), "expected at most 10,000 layers, 50 in each other"),
    ],
)
def test_a_wrong_description_is_refused(tmp_path, layer, words):
    arrays = {"W1": np.zeros((4, 2), "float32"), "b1": np.zeros(2, "float32")}
    chain = {"type": "Sequential", "layers": {"Affine1": affine(), "Other": layer}}
    if layer and layer.get("type") == "Affine" and layer.get("arguments"):
        del chain["layers"]["Affine1"]
    file = tmp_path / "a.safetensors"
    saving.save_arrays(file, arrays, {"model": "Network", "architecture": chain, "input_shape": [4]})
    before = backend.random.default.state
    with pytest.raises(ValueError, match=words) as error:
        load_network(file)
    assert str(error.value).startswith(f"{file} describes no model that can be built: ")
    assert len(str(error.value)) < 800
    assert backend.random.default.state == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": GOOD}, "expected a Sequential as architecture, got LeakyRelu"),
        ({"architecture": None}, "expected a layer with its type, got None"),
        ({"input_shape": None}, "input_shape is None, expected a list of whole numbers"),
        ({"input_shape": [5]}, "takes 4 numbers per sample"),
        ({"loss": GOOD}, "expected a loss, got LeakyRelu"),
        ({"loss": {"type": "HuberLoss", "arguments": {"delta": -1}}}, "delta must be a finite number"),
        ({"loss": {"type": "SoftmaxWithLoss", "arguments": {"class_weights": [1]}}}, "class_weights must be 2 numbers"),
        ({"loss": {"type": "Loss", "arguments": {}}, "classes": ["a"]}, "classes: expected 2 names"),
    ],
)
def test_a_wrong_word_about_the_network_is_refused(tmp_path, changes, words):
    network, file = Network(Sequential(Affine.of(4, 2)), (4,)), tmp_path / "a.safetensors"
    arrays = {name: asnumpy(array) for name, array in network.params.items()}
    saving.save_arrays(file, arrays, network.description() | changes)
    with pytest.raises(ValueError, match=words):
        load_network(file)


def test_arrays_that_do_not_belong_to_the_layers_are_refused(tmp_path):
    network, file = Network(Sequential(Affine.of(4, 2)), (4,)), tmp_path / "a.safetensors"
    arrays = {name: asnumpy(array) for name, array in network.params.items()}
    saving.save_arrays(file, {**arrays, "W2": np.zeros(3)}, network.description())
    with pytest.raises(ValueError, match="unexpected parameters: 'W2'"):
        load_network(file)


def test_loss_is_no_layer_to_be_made():
    assert issubclass(HuberLoss, Loss)
    with pytest.raises(ValueError, match="allow_import must be True or False, got 2"):
        load_network("a.safetensors", allow_import=2)
