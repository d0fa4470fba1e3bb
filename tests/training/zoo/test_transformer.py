"""Transformer encoders: learning, PyTorch's numbers, and ONNX."""

import importlib.util

import numpy as np
import pytest

import backend
from backend import asarray, asnumpy, random, xp
from layers import Affine, Embedding, PositionalEncoding, Sequential
from training.interop import from_torch, to_torch
from training.models import Network, build_for
from training.models.loading import load_network
from training.profile.cost import Batch, cost_of
from training.zoo.transformer import char_transformer, encoder, mean_of_positions, vision_transformer

SHAPE, CLASSES = (3, 12, 16), 5


def has(*packages):
    return all(importlib.util.find_spec(package) for package in packages)


def small(classes=CLASSES):
    return Network(vision_transformer(2, 12, 3, 20, SHAPE, classes), SHAPE)


def assert_near(found, expected, tolerance=1e-5):
    assert found.shape == expected.shape
    assert float(abs(found - expected).max()) <= tolerance * max(1, float(abs(expected).max()))


def test_it_learns():
    random.seed(3)
    network = small(4)
    x, t = random.normal((8, *SHAPE), 1.0), xp.asarray([0, 1, 2, 3, 0, 1, 2, 3])
    before = float(network.step_gradients(x, t))
    for _ in range(40):
        network.step_gradients(x, t)
        network.params.flat -= 0.1 * network.grads.flat
    assert float(network.loss(x, t)) < before / 2


def test_a_network_by_name_comes_back_from_its_file(tmp_path):
    random.seed(0)
    network, x = build_for("ViTTiny", (3, 8, 8), 4), random.normal((2, 3, 8, 8), 1.0)
    network.save_params(tmp_path / "model.safetensors")
    again = load_network(tmp_path / "model.safetensors")
    assert (again.title, repr(again)) == ("ViTTiny", repr(network))
    np.testing.assert_array_equal(again.predict(x), network.predict(x))


@pytest.mark.parametrize(("given", "error", "words"), [
    ({"depth": -1}, ValueError, "depth must be a whole number from 0 to .*, got -1"),
    ({"depth": 1.5}, TypeError, "depth must be a whole number from 0 to .*, got 1.5"),
    ({"depth": 0, "hidden": "8"}, TypeError, "hidden must be a whole number from 1 to .*, got '8'"),
    ({"depth": 0, "features": 0}, ValueError, r"features\[0\] must be a whole number of at least 1, got 0"),
    ({"heads": 3}, ValueError, "heads must divide features 8, got 3"),
    ({"causal": "no"}, TypeError, "causal must be True or False, got 'no'"),
])  # fmt: skip
def test_wrong_arguments_of_an_encoder_are_named(given, error, words):
    with pytest.raises(error, match=words):
        encoder(**{"depth": 1, "features": 8, "heads": 2, "hidden": 12, **given})


@pytest.mark.parametrize(("shape", "error", "words"), [
    ("abc", TypeError, r"shape\[0\] must be a whole number of at least 1, got 'abc'"),
    ((8, 8), ValueError, r"shape must be 3 whole numbers, got \(8, 8\)"),
])  # fmt: skip
def test_a_vision_transformer_takes_a_shape_of_images(shape, error, words):
    with pytest.raises(error, match=words):
        vision_transformer(1, 8, 2, 12, shape, 3)


def test_every_parameter_has_its_gradient():
    """Numerically, in float64, at a few numbers of each array."""
    random.seed(1)
    network = small().astype("float64")
    network.params.flat[...] += random.normal((network.params.flat.size,), 0.1, "float64")
    x, t = random.normal((2, *SHAPE), 1.0, "float64"), xp.asarray([0, 3])
    gradients = {name: array.copy() for name, array in network.gradient(x, t).items()}
    for name, array in network.params.items():
        for place in (0, array.size // 2, array.size - 1):
            at, losses = np.unravel_index(place, array.shape), []
            for step in (1e-5, -2e-5):
                array[at] += step
                losses.append(float(network.loss(x, t)))
            array[at] += 1e-5
            assert abs((losses[0] - losses[1]) / 2e-5 - gradients[name][at]) < 1e-7, (name, at)


def test_no_character_is_seen_before_its_place(device):
    random.seed(0)
    layers = char_transformer(2, 8, 16, depth=1, heads=2).eval()
    pieces = asarray(np.array([[(place + start) // 2 % 2 for place in range(12)] for start in range(4)], "int32"))
    scores, others = layers.forward(pieces), pieces.copy()
    others[:, 7:] = 1 - others[:, 7:]
    found = layers.forward(others)
    np.testing.assert_array_equal(asnumpy(found[:, :7]), asnumpy(scores[:, :7]))
    assert (asnumpy(found[:, 7:]) != asnumpy(scores[:, 7:])).any()


@pytest.mark.parametrize(("arguments", "words"), [
    ({"characters": 0}, "count must be a whole number"),
    ({"characters": 5, "depth": 0}, "depth must be a whole number from 1"),
    ({"characters": 5, "heads": 3}, "heads must divide features 128, got 3"),
    ({"characters": 5, "longest": 0}, "length must be a whole number from 1"),
])  # fmt: skip
def test_wrong_arguments_of_a_network_of_characters_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        char_transformer(**arguments)


@pytest.mark.parametrize("causal", [False, True])
def test_sequences_of_indices(causal):
    """Labels that say whether an index is in a sequence, wherever it is."""
    random.seed(2)
    blocks = encoder(1, 8, 2, 16, causal)
    layers = Embedding.of(6, 8), PositionalEncoding(9, 8), *blocks, *mean_of_positions((5, 8)), Affine.of(8, 2)
    sequential = Sequential(*layers)
    x = np.random.default_rng(0).integers(0, 6, (64, 5))
    assert sequential.forward(x).shape == (64, 2)
    assert sequential.output_shape((5,)) == (2,)


def test_what_is_kept_is_what_the_cost_says():
    """Arrays that attention holds for backward, besides its input."""
    with backend.use("cpu"):
        layer = encoder(1, 12, 3, 20)[0].body.layers["MultiHeadAttention1"]
        x = random.normal((4, 7, 12), 1.0)
        layer.forward(x)
        own = {array.__array_interface__["data"][0]: array.nbytes for array in layer._kept}
        cost = cost_of(layer, Batch(4, (7, 12), np.dtype("float32")))
        assert own.pop(x.__array_interface__["data"][0]) == x.nbytes
        assert sum(own.values()) == cost.kept


@pytest.mark.skipif(not has("torch"), reason="torch is not installed; the extra `bench` has it")
def test_it_is_pytorchs():
    import torch

    from tests.support import torch_sequence_twins as twins

    torch.manual_seed(0)
    network, twin = small(), twins.vision_transformer(2, 12, 3, 20, 12, CLASSES)
    for module in twin.modules():
        if isinstance(module, torch.nn.LayerNorm):
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
        if isinstance(module, torch.nn.MultiheadAttention):
            torch.nn.init.normal_(module.in_proj_bias)
            torch.nn.init.normal_(module.out_proj.bias)
    from_torch(network, twin.state_dict())
    rng = np.random.default_rng(0)
    x, t = rng.random((4, *SHAPE), "float32"), rng.integers(0, CLASSES, 4)
    scores = twin(torch.from_numpy(x))
    assert_near(network.predict(x), scores.detach().numpy())
    torch.nn.functional.cross_entropy(scores, torch.from_numpy(t)).backward()
    gradient = network.gradient(x, t)
    assert_near(gradient["W1"], twin[0].weight.grad.numpy())
    assert_near(gradient["W_in2"], twin[6].body[1].in_proj_weight.grad.numpy().T)
    assert_near(gradient["b_in1"], twin[4].body[1].in_proj_bias.grad.numpy())
    state = to_torch(network)
    assert {name: array.shape for name, array in state.items()} == {
        name: tuple(tensor.shape) for name, tensor in twin.state_dict().items()
    }
    for name, tensor in twin.state_dict().items():
        np.testing.assert_array_equal(state[name], tensor.numpy())


@pytest.mark.skipif(not has("torch"), reason="torch is not installed; the extra `bench` has it")
def test_pytorchs_own_encoder_layer():
    """A block is PyTorch's, with ``norm_first``; the names of its modules are given."""
    import torch

    torch.manual_seed(0)
    twin = torch.nn.TransformerEncoderLayer(
        8, 2, 12, dropout=0, activation=lambda x: torch.nn.functional.gelu(x, approximate="tanh"), batch_first=True,
        norm_first=True,
    )  # fmt: skip
    torch.nn.init.normal_(twin.self_attn.in_proj_bias)
    layers = Sequential(*encoder(1, 8, 2, 12)[:-1], *mean_of_positions((6, 8)))
    network = Network(layers, (6, 8))
    names = {
        "Residual1.body.LayerNormalization1": "norm1", "Residual1.body.MultiHeadAttention1": "self_attn",
        "Residual2.body.LayerNormalization1": "norm2", "Residual2.body.PositionwiseAffine1": "linear1",
        "Residual2.body.PositionwiseAffine2": "linear2",
    }  # fmt: skip
    from_torch(network, twin.state_dict(), names)
    x = np.random.default_rng(0).standard_normal((3, 6, 8)).astype("float32")
    with torch.no_grad():
        assert_near(network.predict(x), twin(torch.from_numpy(x)).mean(1).numpy())
    assert set(to_torch(network, names)) == set(twin.state_dict())


@pytest.mark.skipif(not has("onnx", "onnxruntime"), reason="onnx and onnxruntime are not installed")
@pytest.mark.parametrize("causal", [False, True])
def test_onnxruntime_computes_the_same(tmp_path, causal):
    import onnxruntime

    from training.interop.onnx_export import export_onnx

    random.seed(0)
    layers = PositionalEncoding(7, 12), *encoder(2, 12, 3, 20, causal), *mean_of_positions((7, 12)), Affine.of(12, 3)
    network = Network(Sequential(*layers), (7, 12))
    network.params.flat[...] += random.normal((network.params.flat.size,), 0.1)
    export_onnx(network, tmp_path / "model.onnx")
    run = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for samples in (1, 3):
        x = random.normal((samples, 7, 12), 1.0)
        (found,) = run.run(None, {"x": x})
        assert_near(found, network.predict(x))
