"""Keras's weights without Keras: a file that Keras wrote, and what is refused before anything changes."""

import gzip
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from layers import (
    Affine,
    BatchNormalization,
    Convolution,
    Dropout,
    Flatten,
    Layer,
    LayerNormalization,
    Permute,
    Relu,
    Reshape,
    Residual,
    Sequential,
    Skip,
    parameter,
)
from tests.support.networks import keras_example
from training.files import FileError
from training.interop import from_keras
from training.interop.keras_names import matched
from training.models import Network
from training.models.loading import load_network

FOLDER = Path(__file__).parent / "keras"
HAS_H5PY = importlib.util.find_spec("h5py") is not None
if HAS_H5PY:
    import h5py

needs_h5py = pytest.mark.skipif(not HAS_H5PY, reason="h5py is not installed; the extra `keras` has it")


@pytest.fixture
def example(tmp_path):
    """Return the file that Keras wrote of the network ``keras_example``."""
    file = tmp_path / "small.weights.h5"
    file.write_bytes(gzip.decompress((FOLDER / "small.weights.h5.gz").read_bytes()))
    return file


def small():
    return Network(
        Sequential(Convolution.of(2, 3, 2), BatchNormalization.of(3), Relu(), Dropout(0.5), Affine.of(12, 2)), (2, 3, 3)
    )


def written(tmp_path, name="model.weights.h5", **changed):
    """Write the weights of Keras's twin of ``small``; return the file. A group given as None is left out."""
    rng = np.random.default_rng(0)
    groups = {
        "conv2d": [(2, 2, 2, 3), (3,)],
        "batch_normalization": [(3,)] * 4,
        "dense": [(12, 2), (2,)],
        "dropout": [],
    } | changed
    with h5py.File(tmp_path / name, "w") as file:
        for group, shapes in groups.items():
            if shapes is not None:
                variables = file.create_group(f"layers/{group}/vars")
                for number, shape in enumerate(shapes):
                    given = rng.random(shape).astype("float32") if isinstance(shape, tuple) else shape
                    variables.create_dataset(str(number), data=given)
        file.create_dataset("optimizer/vars/0", data=3)
        file.create_dataset("layers/dropout/seed_generator/vars/0", data=[0, 1])
    return tmp_path / name


@needs_h5py
def test_a_file_of_keras_gives_what_keras_computes(example):
    network = from_keras(keras_example(), str(example))
    with np.load(FOLDER / "small.npz") as known:
        found = network.predict(known["x"])
        assert float(abs(found - known["y"]).max()) <= 1e-5 * float(abs(known["y"]).max())
    assert {layer.eps for layer in network.layers.layers.values() if hasattr(layer, "eps")} == {1e-3}


@needs_h5py
def test_each_number_has_its_place(tmp_path):
    network = from_keras(small(), written(tmp_path), eps=None)
    with h5py.File(tmp_path / "model.weights.h5") as file:
        conv, norm, dense = (file[f"layers/{name}/vars"] for name in ("conv2d", "batch_normalization", "dense"))
        W = network.layers["Convolution1"].W
        for f, c, row, column in np.ndindex(W.shape):
            assert W[f, c, row, column] == conv["0"][row, column, c, f]
        W = network.layers["Affine1"].W.reshape(3, 2, 2, 2)
        for c, row, column, out in np.ndindex(W.shape):
            assert W[c, row, column, out] == dense["0"][(row * 2 + column) * 3 + c, out]
        layer = network.layers["BatchNormalization1"]
        for number, name in enumerate(("gamma", "beta", "running_mean", "running_var")):
            np.testing.assert_array_equal(getattr(layer, name), norm[str(number)][:])
    assert layer.eps == 1e-5
    assert network.layers["Dropout1"].inverted


@needs_h5py
def test_the_networks_own_file_keeps_it(example, tmp_path):
    network = from_keras(keras_example(), example)
    network.save_params(tmp_path / "own.safetensors")
    again, x = load_network(tmp_path / "own.safetensors"), np.ones((2, 2, 7, 5), "float32")
    np.testing.assert_array_equal(again.predict(x), network.predict(x))


@needs_h5py
def test_what_a_file_may_lack(tmp_path):
    network = small()
    network.layers["Affine1"].b[...] = network.layers["BatchNormalization1"].gamma[...] = 5
    from_keras(network, written(tmp_path, dense=[(12, 2)], batch_normalization=[(3,), (3,)]))
    assert not network.layers["Affine1"].b.any()
    layer = network.layers["BatchNormalization1"]
    assert (layer.gamma == 1).all()
    assert not layer.beta.any()
    assert layer.running_var.all()


@needs_h5py
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"dense": [(2, 12), (2,)]},
            r"layer Affine1, Affine\(12 → 2\): expected 'layers/dense/vars/0' \(kernel\) of \(12, 2\), got \(2, 12\)",
        ),
        ({"conv2d": [(3, 2, 2, 2), (3,)]}, r"Convolution1, .* \(kernel\) of \(2, 2, 2, 3\), got \(3, 2, 2, 2\)"),
        ({"conv2d": [(2, 2, 2, 3), (2,)]}, r"Convolution1, .*'layers/conv2d/vars/1' \(bias\) of \(3,\), got \(2,\)"),
        ({"conv2d": [(2, 2, 2, 3)] * 3}, r"Convolution1, .*: expected 1 or 2 variables in 'layers/conv2d', got 3"),
        (
            {"batch_normalization": [(3,)] * 3},
            r"BatchNormalization1, .*: expected 4 variables .*, got 3; .*gamma and beta",
        ),
        (
            {"dense_1": [(2, 2)]},
            r"has 2 layers \('layers/dense', 'layers/dense_1'\) of the kind 'dense', .* 1 layers \('Affi",
        ),
        ({"dense": None}, r"the file has none of the kind 'dense', and the network has 1 layers \('Affine1'\): names="),
        ({"p_re_lu": [(3,)]}, r"has 1 layers \('layers/p_re_lu'\) of the kind 'p_re_lu', and the network has none"),
        ({"dense": [(12, 2), np.array([1e300, 0])]}, r"'layers/dense/vars/1' has numbers too large for float32"),
        ({"dense": [(12, 2), np.array([b"a", b"b"])]}, r"expected 'layers/dense/vars/1' as numbers, got .*S1"),
        (
            {"sequential/layers/dense": [(2, 2)]},
            r"layers in 'layers', 'layers/sequential/layers', whose order .*names=",
        ),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_changes(changed, message, tmp_path):
    network = small()
    before = network.params.flat.copy()
    with pytest.raises(ValueError, match=message):
        from_keras(network, written(tmp_path, **changed))
    np.testing.assert_array_equal(network.params.flat, before)
    assert not network.layers["Dropout1"].inverted
    assert network.layers["BatchNormalization1"].eps == 1e-5


@needs_h5py
def test_names_say_what_belongs_where(tmp_path):
    file = written(tmp_path, dense=None, **{"head/layers/dense": [(12, 2), (2,)]}, dense_9=[(12, 2), (2,)])
    names = {"Convolution1": "layers/conv2d", "BatchNormalization1": "layers/batch_normalization"}
    network = from_keras(small(), file, {**names, "Affine1": "layers/head/layers/dense"})
    with h5py.File(file) as opened:
        np.testing.assert_array_equal(network.layers["Affine1"].b, opened["layers/head/layers/dense/vars/1"][:])
    refusal = r"names: 'Afine1' is no layer with parameters of the network, which has Convolution1, Batch.*, Affine1$"
    with pytest.raises(ValueError, match=refusal):
        from_keras(small(), file, {**names, "Afine1": "layers/head/layers/dense"})
    with pytest.raises(ValueError, match=r"one for each layer with parameters, got none for Affine1"):
        from_keras(small(), file, names)
    with pytest.raises(ValueError, match=r"names\['Affine1'\]: expected a group of the file \(.*\), got 'dense'"):
        from_keras(small(), file, {**names, "Affine1": "dense"})
    with pytest.raises(TypeError, match="names must be a mapping"):
        from_keras(small(), file, [1])


@needs_h5py
def test_another_file_is_never_read(tmp_path):
    other = written(tmp_path, "other.weights.h5")
    for number, link in enumerate((h5py.ExternalLink(other.name, "/layers/dense"), h5py.SoftLink("/layers/conv2d"))):
        file = written(tmp_path, f"{number}.weights.h5", dense=None)
        with h5py.File(file, "a") as opened:
            opened["layers/dense"] = link
        with pytest.raises(FileError, match=r"weights.h5 is no file of Keras's weights: 'layers/dense' is a link"):
            from_keras(small(), file)
    file = written(tmp_path, dense=None)
    with h5py.File(file, "a") as opened:
        opened.create_dataset("layers/dense/vars/0", (12, 2), "float32", external=[(other, 0, 96)])
    with pytest.raises(FileError, match="'layers/dense/vars/0' lies in another file"):
        from_keras(small(), file)


@needs_h5py
def test_a_bomb_is_not_unpacked(tmp_path):
    file = written(tmp_path, dense=None)
    with h5py.File(file, "a") as opened:
        pieces = {"chunks": (1 << 11, 1 << 9), "compression": "gzip", "maxshape": (None, None)}
        opened.create_dataset("layers/dense/vars/0", (12, 2), "float32", **pieces)[:] = 0
    assert file.stat().st_size < 1 << 20
    with pytest.raises(FileError, match=r"'layers/dense/vars/0' of 96 bytes is packed in pieces of 4,194,304"):
        from_keras(small(), file)


@needs_h5py
def test_what_is_no_such_file_is_refused(tmp_path, example):
    whole = example.read_bytes()
    for damaged in (b"", b"abc", whole[: len(whole) // 2]):
        example.write_bytes(damaged)
        with pytest.raises(FileError, match=r"small.weights.h5 is damaged, or no HDF5 file: "):
            from_keras(keras_example(), example)
    with h5py.File(example, "w") as opened:
        opened.attrs["layer_names"] = [b"dense"]
    with pytest.raises(FileError, match=r"it is of Keras 2; remedy: load it in Keras 3 and save_weights again"):
        from_keras(keras_example(), example)
    with h5py.File(example, "w") as opened:
        group = opened.create_group("layers")
        group["again"] = group  # a hard link to itself: the groups never end
    with pytest.raises(FileError, match=r"expected at most 20,000 groups, 32 in each other"):
        from_keras(keras_example(), example)
    with h5py.File(example, "w") as opened:
        opened.create_dataset("layers/dense/vars/kernel", data=[1.0])
    with pytest.raises(
        FileError, match=r"expected the variables of 'layers/dense' as arrays 0, 1, …, got \['kernel'\]"
    ):
        from_keras(keras_example(), example)


@needs_h5py
def test_every_damaged_byte_is_an_error_or_other_numbers(example):
    whole, network = example.read_bytes(), keras_example()
    before = network.params.flat.copy()
    for place in range(0, len(whole), 401):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        example.write_bytes(damaged)
        try:
            from_keras(network, example)
        except ValueError:
            np.testing.assert_array_equal(network.params.flat, before)
        before = network.params.flat.copy()


def test_arguments(tmp_path):
    with pytest.raises(TypeError, match="network must be a Network"):
        from_keras(None, "a.weights.h5")
    with pytest.raises(TypeError, match=r"file must be the name of a \.weights\.h5 file"):
        from_keras(small(), None)
    with pytest.raises(ValueError, match="eps must be"):
        from_keras(small(), "a.weights.h5", eps=-1)
    with pytest.raises(
        ValueError, match=r"ends in \.weights\.h5, as save_weights of Keras 3 writes it, got model.keras"
    ):
        from_keras(small(), "model.keras")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        from_keras(small(), tmp_path / "a.weights.h5")


def test_without_h5py_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "a.weights.h5").write_bytes(b"")
    with pytest.raises(ModuleNotFoundError, match=r"need the package h5py; remedy: pip install 'xpnet\[keras\]'"):
        from_keras(small(), tmp_path / "a.weights.h5")


class Scale(Layer):
    k, dk = parameter()

    def __init__(self, k):
        self.k = k


ORDERS = {
    "image from rows": ((8,), Affine.of(8, 12), Reshape((3, 2, 2)), Affine.of(12, 2)),
    "other channels": ((4, 2, 3), Reshape((2, 4, 3)), Affine.of(24, 2)),
    "channels moved": ((4, 2, 3), Permute((2, 3, 1)), Flatten(), Affine.of(24, 2)),
    "channels moved, for an affine layer": ((4, 2, 3), Permute((3, 1, 2)), Affine.of(24, 2)),
    "pixels as channels": ((1, 2, 3), Permute((3, 1, 2)), Reshape((6,)), Affine.of(6, 2)),
    "channels moved, for a normalization": ((2, 2, 2), Permute((2, 1, 3)), LayerNormalization.of(2)),
    "channels moved and put side by side": ((2, 2, 2), Permute((2, 1, 3)), Skip(Relu())),
    "two orders": ((2, 2, 2), Flatten(), Residual(Affine.of(8, 8)), Affine.of(8, 2)),
}


@pytest.mark.parametrize("case", ORDERS)
def test_an_order_that_keras_does_not_have_is_refused(case, tmp_path):
    shape, *layers = ORDERS[case]
    known = "Reshape1|Flatten1|Affine1|LayerNormalization1|Skip1|Residual1"
    with pytest.raises(ValueError, match=rf"the layer ({known}), .*Keras"):
        from_keras(Network(Sequential(*layers), shape), tmp_path / "a.weights.h5")


@needs_h5py
def test_pixels_may_change_places(tmp_path):
    """Permute((1, 3, 2)) of channels first is Keras's Permute((2, 1, 3)), before it flattens them as (W, H, C)."""
    W, b, x = np.arange(24 * 2.0).reshape(24, 2), np.ones(2), np.random.default_rng(0).random((5, 4, 2, 3))
    with h5py.File(tmp_path / "a.weights.h5", "w") as file:
        for name, array in (("0", W), ("1", b)):
            file[f"layers/dense/vars/{name}"] = array
    layers = Sequential(Permute((1, 3, 2)), Flatten(), Affine.of(24, 2, dtype="float64"))
    network = Network(layers, (4, 2, 3))
    from_keras(network, tmp_path / "a.weights.h5")
    expected = x.transpose(0, 2, 3, 1).transpose(0, 2, 1, 3).reshape(5, 24) @ W + b
    np.testing.assert_allclose(network.predict(x), expected, rtol=1e-12)


def test_a_layer_of_ones_own_is_refused_by_name():
    with pytest.raises(ValueError, match=r"Scale1, Scale\(\): from_keras knows the weights of Affine, .*, and not"):
        matched([("Scale1", Scale(np.ones(3)))], ["layers/scale"])


def test_layers_of_a_kind_are_taken_by_number():
    layers = [(f"Affine{number}", Affine.of(2, 2)) for number in range(12)]
    groups = sorted(["layers/dense", *(f"layers/dense_{number}" for number in range(1, 12))])
    found = matched(layers, groups)
    assert found["Affine0"] == "layers/dense"
    assert [found[f"Affine{number}"] for number in range(1, 12)] == [f"layers/dense_{n}" for n in range(1, 12)]


def test_depthwise_and_other_convolutions_are_told_apart_where_the_file_tells_them():
    plain, depthwise = Convolution.of(2, 2, 1), Convolution.of(2, 2, 1, groups=2)
    layers = [("A", depthwise), ("B", plain)]
    assert matched(layers, ["layers/conv2d", "layers/depthwise_conv2d"]) == {
        "A": "layers/depthwise_conv2d",
        "B": "layers/conv2d",
    }
    assert matched(layers, ["layers/conv2d", "layers/conv2d_1"]) == {"A": "layers/conv2d", "B": "layers/conv2d_1"}


def test_normalizations_of_flattened_images_are_permuted_too():
    from training.interop.keras_layers import variables_of
    from training.interop.keras_orders import leaves

    network = Network(Sequential(Flatten(), LayerNormalization.of(6), Affine.of(6, 2)), (3, 1, 2))
    (norm, _) = leaves(network.layers, network.input_dim)
    gamma, _ = variables_of(norm, "layers/layer_normalization", [(6,), (6,)])
    np.testing.assert_array_equal(gamma.turned(np.arange(6)), [0, 3, 1, 4, 2, 5])
