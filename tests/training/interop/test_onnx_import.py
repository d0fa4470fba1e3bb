"""Networks from ONNX: what xpnet wrote comes back, and graphs of others compute what onnxruntime does."""

import importlib.util

import numpy as np
import pytest
from PIL import Image

from backend import asnumpy, random, use
from layers import Affine, BatchNormalization, Convolution, Dropout, Relu, Residual, Sequential
from layers.initializers import unfilled
from tests.support.command_line import xpnet
from tests.support.networks import NETWORKS
from tests.training.interop.test_onnx import CASES, of_the_zoo, session, stirred
from training.data import Normalization, load
from training.interop import export_onnx, from_onnx, layers_from_onnx, to_onnx
from training.models import Network, build_for
from training.models.architecture import describe
from training.models.loading import load_network
from training.models.starting import start_from
from training.optim import Momentum
from training.zoo import NETWORKS as ZOO

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))

pytestmark = pytest.mark.skipif(
    not HAS_ONNX, reason="onnx and onnxruntime, which it is compared with, are not installed"
)


def assert_same(found, expected, tolerance=1e-5):
    """Within that share of the largest number expected, or of 1."""
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert float(abs(found - expected).max()) <= tolerance * max(1, float(abs(expected).max()))


def batch(network, samples=3):
    return np.random.default_rng(1).random((samples, *network.input_dim), "float32")


@pytest.mark.parametrize("name", sorted(ZOO))
def test_a_network_of_the_zoo_comes_back(name):
    network = of_the_zoo(name)
    found = from_onnx(to_onnx(network))
    x = batch(network, 2)
    expected = network.predict(x)
    assert abs(expected).max() > 0
    assert_same(found.predict(x), expected)
    assert found.title == name
    if not any(isinstance(layer, Dropout) for layer in network.layers.layers.values()):  # an export has none
        assert describe(found.layers) == describe(network.layers)


@pytest.mark.parametrize("name", [*NETWORKS, *(f"arguments: {case}" for case in CASES)])
def test_every_layer_and_geometry_comes_back(name):
    random.seed(0)
    if name in NETWORKS:
        network = stirred(NETWORKS[name]())
    else:
        shape, *layers = CASES[name.removeprefix("arguments: ")]()
        features = int(np.prod(Sequential(*layers).output_shape(shape)))
        network = stirred(Network(Sequential(*layers, Affine.of(features, 3)), shape))
    x = batch(network)
    assert_same(from_onnx(to_onnx(network)).predict(x), network.predict(x))


def test_training_goes_on_as_before_the_export():
    """Bit for bit: parameters, statistics, ε and momentum are those of the network."""
    random.seed(0)
    network = stirred(NETWORKS["residual"]())
    network.layers["Residual1"].body["BatchNormalization1"].momentum = 0.8
    again = from_onnx(to_onnx(network))
    before = again.params.flat.copy()
    x, t = batch(network, 8), np.arange(8) % 10
    optimizers = Momentum(0.01), Momentum(0.01)
    for _ in range(3):
        for each, optimizer in zip((network, again), optimizers, strict=True):
            each.step_gradients(x, t)
            optimizer.update(each.params, each.grads)
    np.testing.assert_array_equal(again.params.flat, network.params.flat)
    assert all((abs(again.params[name]) > 0).any() and again.grads[name].any() for name in again.params)
    assert (again.params.flat != before).mean() > 0.9
    for name, array in network.state.items():
        np.testing.assert_array_equal(again.state[name], array)


@pytest.mark.parametrize("rows", [False, True])
def test_the_normalization_of_inputs_is_a_layer(rows, tmp_path):
    known = Normalization((0.4, 0.5), (0.2, 0.3))
    layers = [] if rows else [Convolution.of(2, 4, 3, pad=1)]
    layers = Sequential(*layers, Relu(), Affine.of(50 if rows else 100, 3))
    config = {"normalization": known.as_config(), "input_dim": [2, 5, 5], "classes": ["a", "b", "c"]}
    network = Network(layers, (50,) if rows else (2, 5, 5), config)
    run, x = session(network, tmp_path / "model.onnx"), batch(network)
    found = from_onnx(tmp_path / "model.onnx")
    assert_same(found.predict(x), run.run(None, {"x": x})[0])
    assert found.config == {"name": "Network", "classes": ["a", "b", "c"]}
    assert found.params["W1"].size == (50 if rows else 2)


def test_numbers_in_their_own_unit(tmp_path):
    config = {"target_normalization": {"mean": [100.0, -5.0], "std": [10.0, 2.0]}}
    network = Network(Sequential(Affine.of(4, 2, bias=False)), (4,), config, loss="mean-squared")
    run, x = session(network, tmp_path / "model.onnx"), batch(network)
    found = from_onnx(tmp_path / "model.onnx")
    assert_same(found.predict(x), run.run(None, {"x": x})[0])
    assert list(found.layers.layers) == ["Affine1"]
    assert found.last_layer.target_kind == "values"


@pytest.mark.parametrize(
    ("loss", "expected"),
    [("hinge", "classes"), ("softmax", "classes"), ("sigmoid", "labels"), ("huber", "values")],
)
def test_the_loss_is_one_for_what_the_network_predicts(loss, expected):
    model = to_onnx(Network(Sequential(Affine.of(4, 3)), (4,), loss=loss))
    assert from_onnx(model).last_layer.target_kind == expected
    assert from_onnx(model, loss="sigmoid").last_layer.target_kind == "labels"


def test_the_only_output_of_another_program_is_a_number():
    model = to_onnx(Network(Sequential(Affine.of(4, 1)), (4,), loss="sigmoid"))
    model.producer_name = "another"
    found = from_onnx(model)
    assert (found.last_layer.target_kind, found.config, found.title) == ("values", None, "Network")


@pytest.mark.parametrize(
    ("key", "text", "message"), [("classes", "[1", "classes|JSON"), ("classes", '["a"]', "expected 3 names")]
)
def test_damaged_metadata_are_refused(key, text, message):
    import onnx

    model = to_onnx(Network(Sequential(Affine.of(4, 3)), (4,)))
    onnx.helper.set_model_props(model, {key: text})
    with pytest.raises(ValueError, match=message):
        from_onnx(model)


def test_what_is_saved_is_a_model_as_any_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random.seed(0)
    network = stirred(build_for("ResNet20", (3, 32, 32), 5))
    export_onnx(network, "model.onnx")
    from_onnx("model.onnx").save_params("model.safetensors")
    x = batch(network)
    assert_same(load_network("model.safetensors").predict(x), network.predict(x))
    with unfilled():
        new = build_for("ResNet20", (3, 32, 32), 5)
    assert start_from(new, "model.safetensors") == []
    assert_same(new.predict(x), network.predict(x))
    shown = [xpnet("summary", file) for file in ("model.onnx", "model.safetensors")]
    assert [(result.code, result.err) for result in shown] == [(0, ""), (0, "")]
    assert shown[0].out.splitlines()[0] == "ResNet20 (model.onnx) on 3x32x32 images, batch 100, fp32, AdamW"
    assert shown[0].out.splitlines()[1:] == shown[1].out.splitlines()[1:]


def test_commands_take_a_model_of_onnx_as_one_of_their_own(tmp_path, monkeypatch):
    """The same loss, accuracy and classes."""
    monkeypatch.chdir(tmp_path)
    random.seed(0)
    network = build_for("LeNet5", (1, 28, 28), 10)
    network.config |= {"dataset": "mnist10k", "classes": list("0123456789"), "input_dim": [1, 28, 28]}
    network.config |= {"normalization": {"mean": [0.13], "std": [0.31]}}
    network.save_params("own.safetensors")
    export_onnx(network, "model.onnx")
    Image.fromarray(load().test_images[0, 0]).save("picture.png")
    for arguments in (("evaluate",), ("predict", "picture.png", "--run")):
        own, found = (xpnet(*arguments, file) for file in ("own.safetensors", "model.onnx"))
        assert (own.code, found.code) == (0, 0)
        assert found.out.replace("model.onnx", "own.safetensors") == own.out
        assert found.err == own.err


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"\x08" + data, lambda _: b""])
def test_a_damaged_file_is_refused(damage, tmp_path):
    file = tmp_path / "model.onnx"
    export_onnx(Network(Sequential(Affine.of(4, 2)), (4,)), file)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=r"model\.onnx is no ONNX model|the ONNX model is damaged"):
        from_onnx(file)
    result = xpnet("summary", file)
    assert (result.code, len(result.err.splitlines())) == (2, 1)


def test_bytes_that_are_changed_are_refused_in_words(tmp_path):
    """A model that is read all the same, such as one with another weight, is none of these errors."""
    random.seed(0)
    file, rng = tmp_path / "model.onnx", np.random.default_rng(0)
    data = to_onnx(NETWORKS["activations"]()).SerializeToString()
    told = 0
    for _ in range(200):
        changed = bytearray(data)
        for place in rng.integers(0, 3000, 3):
            changed[place] = rng.integers(256)
        file.write_bytes(changed)
        try:
            from_onnx(file)
        except ValueError as error:
            assert not isinstance(error, UnicodeDecodeError)  # noqa: PT017
            told += 1
    assert told > 50


def test_other_arguments_are_refused(tmp_path):
    with pytest.raises(TypeError, match=r"model: expected the name of a file or an onnx\.ModelProto, got int"):
        from_onnx(3)
    with pytest.raises(FileNotFoundError):
        from_onnx(tmp_path / "none.onnx")
    model = to_onnx(Network(Sequential(Affine.of(4, 2)), (4,)))
    with pytest.raises(ValueError, match=r"the input 'x' is \(\?, 4\): samples of shape=\(5,\) do not fit"):
        from_onnx(model, shape=(5,))
    with pytest.raises(ValueError, match="the model has no value 'y'; its outputs are 'scores'"):
        from_onnx(model, output="y")


@pytest.mark.gpu
def test_the_network_is_on_the_active_device():
    """With scalings that become part of weights, which are computed on the host."""
    random.seed(0)
    with use("cpu"):
        network = stirred(NETWORKS["activations"]())
        model, x = to_onnx(network), batch(network)
        expected = network.predict(x)
    with use("cuda"):
        found = from_onnx(model)
        assert type(found.params.flat) is not np.ndarray
        assert_same(asnumpy(found.predict(x)), expected)


def test_the_model_is_not_changed():
    model = to_onnx(Network(Sequential(Affine.of(4, 2), Relu(), Dropout(0.5), Affine.of(2, 2)), (4,)))
    before = model.SerializeToString()
    from_onnx(model)
    assert model.SerializeToString() == before


def test_half_precision_keeps_its_statistics():
    """A batch normalization of float16 has statistics in float32, beyond the largest number of float16."""
    import onnx

    layer = BatchNormalization.of(2)
    layer.running_var[...] = 1e6
    model = to_onnx(Network(Sequential(layer, Affine.of(2, 2)), (2,)))
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    found = from_onnx(model)
    assert found.params.flat.dtype == "float16"
    np.testing.assert_array_equal(found.layers["BatchNormalization1"].running_var, np.full(2, 1e6, "float32"))


def test_residual_connections_are_found_again():
    body = Sequential(Convolution.of(3, 3, 1), Residual(Sequential(Relu())), Relu())
    network = Network(Sequential(Residual(body), Affine.of(12, 2)), (3, 2, 2))
    found = layers_from_onnx(to_onnx(network))
    assert describe(found) == describe(network.layers)
