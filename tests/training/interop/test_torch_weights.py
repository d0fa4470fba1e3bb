"""Weights of PyTorch without PyTorch: names, shapes, and what is refused before anything changes."""

import numpy as np
import pytest

from layers import Affine, BatchNormalization, Convolution, Dropout, Layer, Relu, Residual, Sequential, parameter
from layers.initializers import unfilled
from training.interop import from_torch, to_torch
from training.models import Network, build_for
from training.models.loading import load_network
from training.models.saving import save_arrays


def small():
    body = Sequential(Convolution.of(3, 3, 3, pad=1, bias=False), BatchNormalization.of(3))
    return Network(Sequential(Residual(body), Relu(), Dropout(0.5), Affine.of(48, 2)), (3, 4, 4))


def state(**changed):
    rng = np.random.default_rng(0)
    shapes = {
        "0.body.0.weight": (3, 3, 3, 3),
        **{f"0.body.1.{key}": (3,) for key in ("weight", "bias", "running_mean", "running_var")},
        "3.weight": (2, 48),
        "3.bias": (2,),
    }
    arrays = {key: rng.standard_normal(shape) for key, shape in shapes.items()}
    arrays["0.body.1.num_batches_tracked"] = np.array(7)
    arrays |= {key.replace("_", "."): array for key, array in changed.items()}
    return {key: array for key, array in arrays.items() if array is not None}


def test_what_goes_in_comes_out_and_is_as_pytorch_computes():
    network, given = from_torch(small(), state()), state()
    found = to_torch(network)
    assert set(found) == set(given)
    for key, array in given.items():
        np.testing.assert_array_equal(found[key], array.astype("float32") if array.ndim else 0)
        assert found[key].flags.c_contiguous
    assert network.layers["Residual1"].body["BatchNormalization1"].unbiased
    assert network.layers["Dropout1"].inverted


def test_a_file_keeps_that_it_computes_as_pytorch_does(tmp_path):
    from_torch(small(), state()).save_params(tmp_path / "model.safetensors")
    again = load_network(tmp_path / "model.safetensors")
    assert again.layers["Residual1"].body["BatchNormalization1"].unbiased
    assert again.layers["Dropout1"].inverted


def test_a_bias_that_is_missing_is_zero():
    network = small()
    network.layers["Affine1"].b[...] = 5
    from_torch(network, state(**{"3_bias": None}))
    assert not network.layers["Affine1"].b.any()


def test_a_file(tmp_path):
    save_arrays(tmp_path / "state.safetensors", {key: np.asarray(array) for key, array in state().items()})
    found = to_torch(from_torch(small(), str(tmp_path / "state.safetensors")))
    np.testing.assert_array_equal(found["3.weight"], state()["3.weight"].astype("float32"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"3_weight": np.ones((48, 2))}, r"expected '3.weight' of \(2, 48\), got \(48, 2\)"),
        ({"3_weight": None, "3_bias": None}, r"the state lacks modules '3'"),
        ({"4_weight": np.ones(2)}, r"the state has the unexpected modules '4'"),
        ({"0_body_0_bias": np.ones(3)}, r"Convolution1, .* has no '0.body.0.bias'"),
        ({"3_weight": None}, r"the state has no '3.weight'"),
        ({"3_bias": np.array([1e300, 0])}, r"'3.bias' has numbers too large for float32"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_changes(changed, message):
    network = small()
    before = network.params.flat.copy()
    with pytest.raises(ValueError, match=message):
        from_torch(network, state(**changed))
    np.testing.assert_array_equal(network.params.flat, before)
    assert not network.layers["Dropout1"].inverted


def test_a_pickle_and_what_is_no_state_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"model.pt is a pickle, .*weights_only=True"):
        from_torch(small(), tmp_path / "model.pt")
    with pytest.raises(TypeError, match="state"):
        from_torch(small(), [1, 2])
    with pytest.raises(TypeError, match=r"'3\.weight' as numbers, got"):
        from_torch(small(), state(**{"3_weight": np.array([["a"]])}))
    with pytest.raises(FileNotFoundError, match="there is no file"):
        from_torch(small(), tmp_path / "model.safetensors")


def test_names_that_lack_a_layer_are_refused():
    with pytest.raises(ValueError, match=r"one for each layer with parameters, got none for Residual1.body.Batch"):
        from_torch(small(), state(), names={"Residual1.body.Convolution1": "0.body.0", "Affine1": "3"})
    with pytest.raises(ValueError, match=r"expected one for the layer Residual1\.body.BatchNormalization1"):
        to_torch(small(), names={"Residual1.body.Convolution1": "0.body.0", "Affine1": "3"})


class Scale(Layer):
    k, dk = parameter()

    def __init__(self, k):
        self.k = k


def test_a_layer_of_one_s_own_is_refused_by_name():
    network = Network(Sequential(Scale(np.ones(4, "float32")), Affine.of(4, 2)), (4,))
    with pytest.raises(ValueError, match=r"Scale1, Scale\(\), has parameters that PyTorch has no module for"):
        to_torch(network)


@pytest.mark.parametrize(
    ("name", "first", "last", "some"),
    [
        ("ResNet18", "conv1.weight", "fc.bias", "layer2.0.downsample.1.running_var"),
        ("ResNet50", "conv1.weight", "fc.bias", "layer4.2.conv3.weight"),
        ("VGG11", "features.0.weight", "classifier.6.bias", "features.26.running_mean"),
        ("MobileNetV2", "features.0.0.weight", "classifier.1.bias", "features.18.1.running_var"),
        ("ResNet20", "0.weight", "22.bias", "9.shortcut.0.weight"),
    ],
)
def test_the_names_of_a_network_of_the_zoo_are_torchvisions(name, first, last, some):
    with unfilled():
        network = build_for(name, (3, 32, 32), 3)
    names = list(to_torch(network))
    assert (names[0], names[-1], some in names) == (first, last, True)
