"""Files of parameters: what goes in comes out, whole or not at all."""

import os
import re

import numpy as np
import pytest

import backend
from backend import asnumpy
from layers import Affine, BatchNormalization, Layer, Relu, Residual, Sequential, parameter
from training.models import Network, SimpleConvNet, TwoLayerNet, build, saving

SUFFIXES = [".npz", ".safetensors"]


def normalised(seed, dtype="float32"):
    """A network with running statistics, one of them nested; every array random, state and parameters alike."""
    inner = Sequential(Affine.of(4, 4, "he", dtype), BatchNormalization.of(4, dtype=dtype))
    network = Network(
        Sequential(BatchNormalization.of(4, dtype=dtype), Relu(), Residual(inner), Affine.of(4, 3, "he", dtype)), (4,)
    )
    rng = np.random.default_rng(seed)
    for array in [*network.params.values(), *network.state.values()]:
        array[...] = backend.asarray(rng.uniform(0.5, 1.5, array.shape).astype(dtype))
    return network


def bits(network):
    arrays = {**network.params, **network.state}
    return {name: (array.dtype, array.shape, asnumpy(array).tobytes()) for name, array in arrays.items()}


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_round_trip_of_parameters_and_state(device, tmp_path, suffix, dtype):
    network, other = normalised(1, dtype), normalised(2, dtype)
    places = dict(other.params)
    network.save_params(tmp_path / f"model{suffix}")
    assert listing(tmp_path) == [f"model{suffix}"]
    assert bits(other) != bits(network)
    other.load_params(str(tmp_path / f"model{suffix}"))
    assert bits(other) == bits(network)
    assert all(other.params[name] is view for name, view in places.items())
    np.testing.assert_array_equal(asnumpy(other.params.flat), asnumpy(network.params.flat))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_in_the_file_are_the_books(tmp_path, suffix):
    normalised(1).save_params(tmp_path / f"a{suffix}")
    names = {"gamma1", "beta1", "W1", "b1", "gamma2", "beta2", "W2", "b2"}
    states = {"running_mean1", "running_var1", "running_mean2", "running_var2"}
    assert set(saving.load_arrays(tmp_path / f"a{suffix}")) == names | states
    TwoLayerNet(4, 3, 2).save_params(tmp_path / f"a{suffix}")
    assert set(saving.load_arrays(tmp_path / f"a{suffix}")) == {"W1", "b1", "W2", "b2"}


def test_plain_numpy_reads_and_writes_the_npz(tmp_path):
    network = TwoLayerNet(4, 3, 2)
    network.save_params(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["W2"], network.params["W2"])
    values = {name: np.full(array.shape, i) for i, (name, array) in enumerate(network.params.items())}
    np.savez_compressed(tmp_path / "b.npz", **values)
    network.load_params(tmp_path / "b.npz")
    assert {name: set(array.flat) for name, array in network.params.items()} == {
        "W1": {0.0},
        "b1": {1.0},
        "W2": {2.0},
        "b2": {3.0},
    }


def test_default_name_is_the_books(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network, other = normalised(1), normalised(2)
    network.save_params()
    assert listing(tmp_path) == ["params.npz"]
    other.load_params()
    assert bits(other) == bits(network)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_float64_file_into_a_float32_network(tmp_path, suffix):
    wide, narrow = normalised(1, "float64"), normalised(2, "float32")
    wide.save_params(tmp_path / f"a{suffix}")
    narrow.load_params(tmp_path / f"a{suffix}")
    for name, array in {**narrow.params, **narrow.state}.items():
        assert array.dtype == "float32"
        source = {**wide.params, **wide.state}[name]
        np.testing.assert_array_equal(array, source.astype("float32"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_running_statistics_may_be_missing(tmp_path, suffix):
    network, other = normalised(1), normalised(2)
    states = bits(other)
    saving.save_arrays(tmp_path / f"a{suffix}", dict(network.params))
    other.load_params(tmp_path / f"a{suffix}")
    for name in network.params:
        assert bits(other)[name] == bits(network)[name]
    for name in network.state:
        assert bits(other)[name] == states[name]


PLAIN_LOSS = {"label_smoothing": 0.0, "class_weights": None, "ignore_index": None}


def test_config_travels_in_the_safetensors(tmp_path):
    network = SimpleConvNet((1, 8, 8), {"filter_num": 2, "filter_size": 3, "pad": 1, "stride": 1}, 5, 4)
    network.save_params(tmp_path / "a.safetensors")
    network.save_params(tmp_path / "a.npz")
    config = saving.load_config(tmp_path / "a.safetensors")
    about = {"loss": {"type": "SoftmaxWithLoss", "arguments": PLAIN_LOSS}, "dtype": "float32"}
    assert config == network.config | about == network.description()
    again = build(config)
    again.load_params(tmp_path / "a.safetensors")
    assert bits(again) == bits(network)
    assert saving.load_config(tmp_path / "a.npz") is None
    normalised(1).save_params(tmp_path / "b.safetensors")
    assert saving.load_config(tmp_path / "b.safetensors")["model"] == "Network"


class Scale(Layer):
    """y = s·x, s a single number."""

    s, ds = parameter()

    def __init__(self, s):
        self.s = s

    def forward(self, x):
        return x * self.s

    def backward(self, dout):
        raise NotImplementedError


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_parameters_without_axes(tmp_path, suffix):
    one, two = (Network(Sequential(Scale(np.array(value, "float32"))), (3,)) for value in (1.0, 2.0))
    one.save_params(tmp_path / f"a{suffix}")
    two.load_params(tmp_path / f"a{suffix}")
    assert two.params["s1"].shape == ()
    assert float(two.params["s1"]) == 1.0


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, suffix):
    file, old, new = tmp_path / f"model{suffix}", normalised(1), normalised(2)
    old.save_params(file)
    whole = file.read_bytes()
    write = os.write

    def half(handle, content):
        write(handle, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        for name in (file, tmp_path / f"other{suffix}"):
            with pytest.raises(OSError, match=f"No space left on device: '{re.escape(str(name))}'"):
                new.save_params(name)
            assert listing(tmp_path) == [file.name]
            assert file.read_bytes() == whole
    new.save_params(file)
    old.load_params(file)
    assert bits(old) == bits(new)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        for suffix in SUFFIXES:
            TwoLayerNet(3, 2, 2).save_params(tmp_path / f"a{suffix}")
        (tmp_path / "plain").write_text("")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(["a.npz", "a.safetensors", "plain"], 0o666 & ~umask)


@pytest.mark.parametrize("name", ["model", "model.npy", "model.pkl", "model.npz.bak", ".npz"])
def test_other_names_are_refused(tmp_path, name):
    network = TwoLayerNet(3, 2, 2)
    for action in (network.save_params, network.load_params, saving.load_config):
        with pytest.raises(ValueError, match=rf"\.npz or \.safetensors, got '{re.escape(name)}'"):
            action(tmp_path / name)
    assert listing(tmp_path) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_missing_files_and_folders(tmp_path, suffix):
    network = TwoLayerNet(3, 2, 2)
    for action in (network.load_params, saving.load_config):
        if suffix == ".npz" and action is saving.load_config:
            continue
        with pytest.raises(FileNotFoundError, match=f"nothing{suffix}"):
            action(tmp_path / f"nothing{suffix}")
    with pytest.raises(FileNotFoundError):
        network.save_params(tmp_path / "folder" / f"a{suffix}")
    assert listing(tmp_path) == []


def without(name):
    return lambda arrays: arrays.pop(name)


UNFIT = {
    "a name is missing": (without("W2"), "missing parameters: 'W2'$"),
    "a name is unknown": (lambda arrays: arrays.update(W9=np.ones(2)), "unexpected parameters: 'W9'$"),
    "a state is unknown": (lambda arrays: arrays.update(running_mean3=np.ones(2)), "running_mean3"),
    "a shape is wrong": (lambda arrays: arrays.update(W2=np.ones((3, 4))), r"expected W2 of \(4, 3\), got \(3, 4\)"),
    "a state's shape is wrong": (
        lambda arrays: arrays.update(running_var2=np.ones(1)),
        r"expected running_var2 of \(4,\)",
    ),
    "an array would broadcast": (lambda arrays: arrays.update(b1=np.ones(())), r"expected b1 of \(4,\), got \(\)"),
    "no numbers": (lambda arrays: arrays.update(b1=np.ones(4, bool)), "expected b1 as numbers, got bool"),
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("case", UNFIT)
def test_what_does_not_fit_is_refused_and_changes_nothing(tmp_path, suffix, case):
    change, words = UNFIT[case]
    network, before = normalised(1), bits(normalised(1))
    arrays = {**normalised(2).params, **normalised(2).state}
    change(arrays)
    saving.save_arrays(tmp_path / f"a{suffix}", arrays)
    with pytest.raises(ValueError, match=rf"a\{suffix} .*{words}"):
        network.load_params(tmp_path / f"a{suffix}")
    assert bits(network) == before


def saved(tmp_path, suffix):
    normalised(2).save_params(tmp_path / f"a{suffix}")
    return (tmp_path / f"a{suffix}").read_bytes()


class RunsCode:
    """Whoever unpickles it makes a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def as_objects(path):
    np.savez(path, W1=np.array([RunsCode(path.parent / "made by the file")], object), allow_pickle=True)


def as_npy(path):
    with path.open("wb") as stream:
        np.save(stream, np.ones(3))


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("W1 = [[1, 2], [3, 4]]\n" * 20),
    "zeros": lambda path: path.write_bytes(bytes(1000)),
    "one array": as_npy,
    "pickled objects": as_objects,
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("case", DAMAGE)
def test_other_files_are_refused_by_name(tmp_path, suffix, case):
    network, before = normalised(1), bits(normalised(1))
    DAMAGE[case](tmp_path / "other.npz")
    (tmp_path / "other.npz").rename(tmp_path / f"other{suffix}")
    with pytest.raises(ValueError, match=rf"other\{suffix}"):
        network.load_params(tmp_path / f"other{suffix}")
    if suffix == ".safetensors":
        with pytest.raises(ValueError, match=rf"other\{suffix}"):
            saving.load_config(tmp_path / f"other{suffix}")
    assert bits(network) == before
    assert listing(tmp_path) == [f"other{suffix}"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_cut_file_is_refused_wherever_it_was_cut(tmp_path, suffix):
    content, network, before = saved(tmp_path, suffix), normalised(1), bits(normalised(1))
    for length in range(0, len(content), 7):
        (tmp_path / f"a{suffix}").write_bytes(content[:length])
        with pytest.raises(ValueError, match=rf"a\{suffix}"):
            network.load_params(tmp_path / f"a{suffix}")
    assert bits(network) == before


@pytest.mark.parametrize("kind", ["stored", "compressed", "safetensors"])
def test_a_wrong_bit_is_refused_or_harmless(tmp_path, kind):
    """One bit of a small file at a time. A safetensors has no checksum: of it only the header is tried."""
    arrays = {"W1": np.arange(6, dtype="float32").reshape(2, 3), "b1": np.ones(3, "float32")}
    file = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.npz")
    if kind == "compressed":
        np.savez_compressed(file, **arrays)
    else:
        saving.save_arrays(file, arrays)
    content = file.read_bytes()
    last = 8 + int.from_bytes(content[:8], "little") if kind == "safetensors" else len(content)
    refused = harmless = 0
    for position in range(last):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        file.write_bytes(damaged)
        try:
            loaded = saving.load_arrays(file)
            saving.check_fit(file, loaded, {"W1": (2, 3), "b1": (3,)})
        except ValueError as error:
            refused += str(file) in str(error)
            continue
        except Exception as error:
            raise AssertionError(f"byte {position}: {error!r}, expected a ValueError") from error
        harmless += 1
        if kind != "safetensors":
            for name, array in arrays.items():
                np.testing.assert_array_equal(loaded[name], array, f"byte {position}, {name}")
    assert refused + harmless == last, "an error does not name the file"
    assert refused > last // 3


def test_a_damaged_config_is_refused_by_name(tmp_path):
    from safetensors.numpy import save_file

    save_file({"W1": np.ones(2, "float32")}, tmp_path / "a.safetensors", {"xpnet": "{not json"})
    with pytest.raises(ValueError, match=r"a\.safetensors"):
        saving.load_config(tmp_path / "a.safetensors")
