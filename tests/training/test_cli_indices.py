"""Networks of indices, such as those of words, and with scores of steps or pixels: what the commands say of them."""

import importlib.util

import pytest
from PIL import Image

from layers import GRU, Affine, Convolution, Embedding, Flatten, Permute, Relu, Sequential
from tests.support.command_line import xpnet
from training.check.lockstep import check_network
from training.models import Network
from training.models.indices import check_for_commands, index_count
from training.profile.meter import example_batch

LAYERS = """
layers = [
  { type = "Embedding", count = 10, size = 6 },
  { type = "GRU", hidden = 5 },
  { type = "Flatten" },
  { type = "Affine", outputs = "classes" },
]
"""
HAS_ONNX = importlib.util.find_spec("onnx") is not None


def of_characters():
    return Network(Sequential(Embedding.of(10, 6), GRU.of(6, 5), Flatten(), Affine.of(20, 2)), (4,))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = "\n".join(f"{n % 7},{n % 5},{n % 3},{n % 2},{'yes' if n % 3 else 'no'}" for n in range(40))
    (tmp_path / "table.csv").write_text(f"a,b,c,d,t\n{rows}\n")
    (tmp_path / "net.toml").write_text(LAYERS)
    of_characters().save_params(tmp_path / "net.safetensors")
    return tmp_path


@pytest.mark.parametrize("words", [
    ("train", "--data", "table.csv", "--model", "net.toml"),
    ("train", "--data", "table.csv", "--model", "net.toml", "--find-lr"),
    ("profile", "--data", "table.csv", "--model", "net.toml"),
    ("predict", "table.csv", "--run", "net.safetensors"),
    ("evaluate", "net.safetensors", "--data", "table.csv"),
], ids=" ".join)  # fmt: skip
def test_a_command_with_data_refuses_them_in_one_line(folder, words):
    before = set(folder.iterdir())
    result = xpnet(*words, "--device", "cpu")
    assert (result.code, result.out) == (2, "")
    name = "net" if "net.toml" in words else "Network"
    assert result.err == (
        f"Error: {name} takes indices, by layer Embedding1, and commands give numbers or pictures: such a network is "
        "trained and used in a program, by training.Trainer\n"
    )
    assert set(folder.iterdir()) == before, "no folder of a run is left"


@pytest.mark.parametrize("words", [
    ("predict", "picture.png", "--run", "pixels.safetensors"),
    ("predict", "table.csv", "--run", "pixels.safetensors"),
    ("evaluate", "pixels.safetensors"),
    ("train", "--model", "pixels.toml"),
    ("train", "--model", "pixels.toml", "--find-lr"),
    ("profile", "--model", "pixels.toml"),
], ids=" ".join)  # fmt: skip
def test_scores_of_pixels_are_refused_in_one_line(folder, words):
    Network(Sequential(Convolution.of(1, 3, 3, pad=1)), (1, 28, 28)).save_params(folder / "pixels.safetensors")
    (folder / "pixels.toml").write_text('layers = [{ type = "Convolution", filters = "classes", size = 1 }]')
    Image.new("L", (28, 28)).save(folder / "picture.png")
    before = set(folder.iterdir())
    result = xpnet(*words, "--device", "cpu")
    assert (result.code, result.out) == (2, "")
    owner = "pixels makes scores (10, 28, 28)" if "pixels.toml" in words else "Network makes scores (3, 28, 28)"
    assert result.err == (
        f"Error: {owner} of a sample, and the data of commands have one target for each sample: such a network is "
        "trained and used in a program, by training.Trainer\n"
    )
    assert set(folder.iterdir()) == before


@pytest.mark.parametrize("words", [
    ("summary", "pixels.safetensors"),
    ("summary", "pixels.safetensors", "--measure"),
    ("summary", "net.safetensors", "--measure"),
    ("profile", "pixels.safetensors", "--steps", 2, "--warmup", 1),
    ("profile", "net.safetensors", "--steps", 2, "--warmup", 1),
], ids=lambda words: " ".join(map(str, words)))  # fmt: skip
def test_what_needs_no_data_takes_them(folder, words):
    Network(Sequential(Convolution.of(1, 3, 3, pad=1)), (1, 28, 28)).save_params(folder / "pixels.safetensors")
    result = xpnet(*words, "--device", "cpu")
    assert (result.code, result.err) == (0, "")
    assert ("Convolution1" if "pixels.safetensors" in words else "Embedding1") in result.out


def test_an_embedding_behind_other_layers_is_not_measured(folder):
    layers = Sequential(Flatten(), Embedding.of(10, 6), GRU.of(6, 5), Flatten(), Affine.of(20, 2))
    Network(layers, (4,)).save_params(folder / "behind.safetensors")
    for words in (("summary", "behind.safetensors", "--measure"), ("profile", "behind.safetensors")):
        result = xpnet(*words, "--device", "cpu")
        assert (result.code, result.out) == (2, "")
        assert "Network takes indices, by layer Embedding1, which is not its first: such a network is" in result.err


def test_examples_are_what_the_network_takes():
    network = of_characters()
    x, t = example_batch(network, 300)
    assert (x.dtype, t.dtype, x.shape, t.shape) == ("int32", "int32", (300, 4), (300,))
    assert {*x.ravel().tolist()} == {*range(10)}
    pixels = Network(Sequential(Convolution.of(1, 3, 3)), (1, 6, 7))
    x, t = example_batch(pixels, 2)
    assert (x.dtype, x.shape, t.shape, {*t.ravel().tolist()}) == ("float32", (2, 1, 6, 7), (2, 4, 5), {0, 1, 2})


def test_a_comparison_of_devices_refuses_them(folder):
    with pytest.raises(ValueError, match="Network takes indices, by layer Embedding1, and"):
        check_network(folder / "net.safetensors")


def test_a_summary_takes_them(folder):
    result = xpnet("summary", "net.safetensors")
    assert (result.code, result.err) == (0, "")
    assert "Embedding1" in result.out


@pytest.mark.skipif(not HAS_ONNX, reason="onnx is not installed")
def test_an_onnx_file_is_no_other(folder):
    from training.interop.onnx_export import export_onnx

    export_onnx(of_characters(), folder / "net.onnx")
    for words in (("evaluate", "net.onnx", "--data", "table.csv"), ("predict", "table.csv", "--run", "net.onnx")):
        result = xpnet(*words)
        assert result.code == 2
        assert "takes indices, by layer Embedding1" in result.err


def test_an_embedding_is_found_wherever_it_stands():
    inner = Sequential(Affine.of(4, 4), Sequential(Relu(), Embedding.of(3, 4)), Flatten(), Affine.of(16, 2))
    assert index_count(inner) is None
    with pytest.raises(ValueError, match=r"takes indices, by layer Sequential1\.Embedding1, and"):
        check_for_commands(Network(inner, (4,)))


def test_which_networks_take_indices():
    assert index_count(of_characters().layers) == len(of_characters().layers[0].W)
    assert index_count(Sequential(Sequential(Embedding.of(3, 4)), Relu())) == 3
    assert index_count(Sequential(Permute((2, 1)), GRU.of(3, 4))) is None
    assert index_count(Sequential()) is None
    check_for_commands(Network(Sequential(Convolution.of(1, 2, 3), Affine.of(8, 2)), (1, 4, 4)))
