"""Networks from TOML files of layers."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from backend import random, xp
from layers import Affine, BatchNormalization, Convolution, Relu, Residual, Sequential
from tests.support.command_line import xpnet
from training.cli.resume import ResumedRun
from training.models import Network, build_for
from training.models.layer_file import check_layer_file
from training.models.loading import load_network
from training.zoo import resnet20

TEXT = """
input = [3, 10, 10]
classes = 4

[[layers]]
type = "Convolution"
filters = 6
size = [3, 1]
pad = "same"
bias = false

[[layers]]
type = "BatchNormalization"

[[layers]]
repeat = 2
layers = [
  { type = "Residual", body = [{ type = "Convolution", filters = 6, size = 3, pad = 1 }, { type = "Relu" }] },
  { type = "Relu" },
]

[[layers]]
type = "Residual"
body = [{ type = "Pooling", pool_h = 2, pool_w = 2, stride = 2 }, { type = "LayerNormalization" }]
shortcut = [{ type = "Convolution", filters = 6, size = 2, stride = 2 }]

[[layers]]
type = "Affine"
outputs = "classes"
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "net.toml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_the_layers_are_those_of_the_file(file):
    random.seed(2)
    network = build_for(str(file), (3, 10, 10), 4)
    assert list(network.layers.layers) == [
        "Convolution1", "BatchNormalization1", "Residual1", "Relu1", "Residual2", "Relu2", "Residual3", "Affine1",
    ]  # fmt: skip
    first = network.layers["Convolution1"]
    assert (first.W.shape, first.b, first.pad) == ((6, 3, 3, 1), None, "same")
    assert network.layers["Affine1"].W.shape == (150, 4)
    assert network.title == "net"
    random.seed(2)
    assert (network.params["W1"] == Convolution.of(3, 6, (3, 1)).W).all(), "weights are drawn as by hand"


def test_a_network_of_the_zoo_can_be_written_in_a_file(file):
    def block(filters, stride=1, shortcut=False):
        norm = '{ type = "BatchNormalization" }'
        conv = f'{{ type = "Convolution", filters = {filters}, size = 3, pad = 1, stride = %d }}'
        bypass = f'{{ type = "Convolution", filters = {filters}, size = 1, stride = {stride} }}'
        body = f'[{conv % stride}, {norm}, {{ type = "Relu" }}, {conv % 1}, {norm}]'
        more = f", shortcut = [{bypass}, {norm}]" if shortcut else ""
        return f'{{ type = "Residual", body = {body}{more} }}, {{ type = "Relu" }},'

    stages = "".join(
        f"{block(filters, stride, stride > 1)}{{ repeat = {3 - (stride > 1)}, layers = [{block(filters)}] }},"
        for filters, stride in ((16, 1), (32, 2), (64, 2))
    )
    stem = (
        '{ type = "Convolution", filters = 16, size = 3, pad = 1 }, { type = "BatchNormalization" }, { type = "Relu" },'
    )
    head = '{ type = "GlobalAveragePooling" }, { type = "Affine", outputs = "classes" }'
    stages = stages.replace(f"{block(16)}{{ repeat = 3", "{ repeat = 3")
    file.write_text(f"layers = [{stem}{stages}{head}]", encoding="utf-8")
    random.seed(0)
    network = build_for(str(file), (3, 32, 32), 10)
    random.seed(0)
    zoo = Network(resnet20(), (3, 32, 32))
    assert list(network.params) == list(zoo.params)
    assert (network.params.flat == zoo.params.flat).all()


def test_a_saved_network_does_not_need_its_file(file, tmp_path):
    network = build_for(str(file), (3, 10, 10), 4)
    network.save_params(tmp_path / "model.safetensors")
    file.unlink()
    again = load_network(tmp_path / "model.safetensors")
    assert (again.title, repr(again.layers)) == ("net", repr(network.layers))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('type = "Affine"', 'type = "Loss"', r"layer 5: type is one of .*Affine, .*, not 'Loss'"),
        ('outputs = "classes"', "outputs = 3", r"the layers make \(3,\) of \(3, 10, 10\), expected \(4,\)"),
        ('outputs = "classes"', "units = 3", "layer 5: Affine takes inputs, outputs, .*, not 'units'"),
        ('outputs = "classes"', "", "layer 5, Affine: .*outputs"),
        ("filters = 6\n", 'filters = "six"\n', "layer 1, Convolution: filters must be a whole number .*'six'"),
        ("filters = 6\n", "filters = { a = 1 }\n", "layer 1: expected a number, a text or a list, got"),
        ("repeat = 2", "repeat = 2.5", "layer 3: repeat must be a whole number"),
        ("repeat = 2", "repeat = 2\nstride = 1", "layer 3: repeat takes layers alone"),
        ("repeat = 2", "repeat = 9999", "expected at most 10,000 layers"),
        ("stride = 2 }]\n\n", "stride = 1 }]\n\n", "layer 4, Residual.*they cannot be added"),
        ("size = 3, pad = 1 }", "size = 30 }", r"layer 3\.1 body 1, Convolution"),
        ("input = [3, 10, 10]", "size = 3", "unknown name 'size': expected name, input, classes and layers"),
        ("input = [3, 10, 10]", "input = [0]", "input.* must be a whole number of at least 1"),
        ("classes = 4", "classes = true", "classes must be"),
        ("classes = 4", 'name = ""', "name: expected a text of 1 to 60 letters, got ''"),
        ("[[layers]]", "[[layer]]", "unknown name 'layer'"),
        ("[[layers]]", "[[layers", "not TOML"),
        (TEXT, "", r"expected layers, as in \[\[layers\]\]"),
        (TEXT, "layers = [3]", "layer 1: expected a table with a type, got 3"),
        (TEXT, 'layers = [{ type = "Residual" }]', "layer 1, Residual: .*body"),
        (TEXT, 'layers = [{ type = "Residual", body = 3 }]', "layer 1 body: expected a list of layers"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(file, old, new, message):
    file.write_text(TEXT.replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError, match=f"(?s)net.toml: .*{message}"):
        build_for(str(file), (3, 10, 10), 4)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(OSError, match=r"none\.toml"):
        build_for(str(tmp_path / "none.toml"), (3, 10, 10), 4)


def test_the_command_takes_a_file_in_the_place_of_a_name(file):
    out = xpnet("summary", "--model", "net.toml", "--batch-size", 2).out
    assert out.startswith("net (new, of no run) on 3x10x10 images, batch 2")
    options = ("--batch-size", 500, "--epochs", 1, "--val", 0.9, "--device", "cpu", "--out", "run")
    result = xpnet("train", "--model", "net.toml", *options)
    assert (result.code, result.err) == (0, "")
    assert "net, " in result.out
    file.unlink()
    assert xpnet("summary", "run").out.startswith("net (run) on 1x28x28 images")
    result = xpnet("train", "--model", "net.toml")
    assert (result.code, result.err) == (2, "Error: Invalid value for '--model': there is no file net.toml\n")


@pytest.mark.parametrize(("old", "new", "message"), [
    ('"Relu"', '"ReLU"', "layer 3.1 body 2: type is one of .*, not 'ReLU'"),
    ("size = [3, 1]", "size = 99\ndepth = 1", "layer 1: Convolution takes .*, not 'depth'"),
    ("[[layers]]", "[[layers", "line 5"),
])  # fmt: skip
def test_a_mistake_in_a_file_is_told_before_data_are_read(file, old, new, message):
    file.write_text(TEXT.replace(old, new, 1), encoding="utf-8")
    result = xpnet("train", "--model", "net.toml", "--data", "no-such-data")
    assert (result.code, result.out) == (2, "")
    assert re.search(f"^Error: Invalid value for '--model': net.toml: .*{message}", result.err)


def test_a_mistake_is_told_without_the_sizes_of_the_data(file):
    file.write_text(TEXT.replace("input = [3, 10, 10]", "").replace('"Relu"', '"ReLU"', 1), encoding="utf-8")
    result = xpnet("train", "--model", "net.toml", "--data", "no-such-data")
    assert (result.code, result.out) == (2, "")
    assert "Invalid value for '--model': net.toml: layer 3.1 body 2: type is one of" in result.err


def test_what_depends_on_the_data_is_told_when_they_are_known(file):
    """The input of a file is the size in which summary shows it; layers may fit the data alone."""
    file.write_text(TEXT.replace("input = [3, 10, 10]", "input = [3, 1, 1]"), encoding="utf-8")
    with pytest.raises(ValueError, match="layer 4 body 1, Pooling"):
        build_for("net.toml", (3, 1, 1), 4)
    check_layer_file(file)
    result = xpnet("train", "--model", "net.toml", "--data", "no-such-data")
    assert "no-such-data" in result.err


def test_a_file_is_checked_without_a_device(file):
    code = "from pathlib import Path; from training.models.layer_file import check_layer_file as check; "
    code += "check(Path('net.toml')); print('checked')"
    environment = {**os.environ, "XPNET_DEVICE": "cuda:99"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "checked\n", "")


def test_a_run_does_not_go_on_with_another_file(file):
    before = build_for(str(file), (3, 10, 10), 4)
    file.write_text(TEXT.replace('"Relu"', '"Tanh"'), encoding="utf-8")
    after = build_for(str(file), (3, 10, 10), 4)
    run = ResumedRun(None, {"model": before.config}, None)
    with pytest.raises(ValueError, match="the file of layers of net has changed since the run began"):
        run.restore(SimpleNamespace(network=after, step=0))
    assert run.restore(SimpleNamespace(network=before, step=0))["resumed"]


def test_the_examples_in_the_documents_are_networks(file):
    """The file of docs/networks.md."""
    document = Path(__file__).parents[3] / "docs" / "networks.md"
    text = document.read_text(encoding="utf-8").partition("```toml\n")[2].partition("```")[0]
    file.write_text(text, encoding="utf-8")
    layers = build_for(str(file), (3, 32, 32), 10).layers
    assert isinstance(layers, Sequential)
    kinds = {type(layer) for layer in layers.layers.values()}
    assert {Convolution, BatchNormalization, Relu, Residual, Affine} <= kinds


def test_a_skip_has_a_body_and_makes_more_channels(tmp_path):
    body = '[{ type = "Convolution", filters = 5, size = 3, pad = 1 }, { type = "Relu" }]'
    (tmp_path / "net.toml").write_text(
        f'layers = [{{ type = "Skip", body = {body} }}, {{ type = "Affine", outputs = "classes" }}]'
    )
    network = build_for(str(tmp_path / "net.toml"), (2, 4, 4), 3)
    assert network.layers["Skip1"].output_shape((2, 4, 4)) == (7, 4, 4)
    assert network.params["W2"].shape == (7 * 16, 3)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize(("shape", "first", "size"), [
    ((7,), 'type = "Embedding", count = 10, size = 6', 6),
    ((1, 4, 9), 'type = "Reshape", shape = [4, 9]', 9),
])  # fmt: skip
def test_layers_of_sequences_take_the_last_axis(tmp_path, kind, shape, first, size):
    (tmp_path / "net.toml").write_text(
        f'layers = [{{ {first} }}, {{ type = "PositionalEncoding", length = 7 }}, {{ type = "{kind}", hidden = 5 }}, '
        f'{{ type = "{kind}", hidden = 3 }}, {{ type = "Flatten" }}, {{ type = "Affine", outputs = "classes" }}]'
    )
    network = build_for(str(tmp_path / "net.toml"), shape, 4)
    assert network.layers["PositionalEncoding1"].size == size
    assert [network.layers[f"{kind}{place}"].Wx.shape[0] for place in (1, 2)] == [size, 5]
    x = xp.ones((2, *shape), "int32" if "Embedding" in first else "float32")
    assert network.layers.forward(x).shape == (2, 4)


@pytest.mark.parametrize(("layers", "shape", "output"), [
    ('{ type = "Convolution", filters = 4, size = 3, pad = 1 }, '
     '{ type = "Convolution", filters = "classes", size = 1 }', (2, 6, 8), (3, 6, 8)),
    ('{ type = "Embedding", count = "classes", size = 5 }, { type = "GRU", hidden = 4 }, '
     '{ type = "PositionwiseAffine", outputs = "classes" }', (7,), (7, 3)),
])  # fmt: skip
def test_layers_may_end_in_scores_of_pixels_or_steps(tmp_path, layers, shape, output):
    (tmp_path / "net.toml").write_text(f"layers = [{layers}]")
    network = build_for(str(tmp_path / "net.toml"), shape, 3)
    assert (network.output_dim, network.classes) == (output, 3)


def test_scores_of_another_number_of_classes_are_refused(tmp_path):
    (tmp_path / "net.toml").write_text('layers = [{ type = "Convolution", filters = 4, size = 1 }]')
    with pytest.raises(ValueError, match=r"the layers make \(4, 6, 8\) of \(2, 6, 8\), expected \(3,\)"):
        build_for(str(tmp_path / "net.toml"), (2, 6, 8), 3)


def test_a_layer_of_sequences_takes_the_inputs_that_are_given(tmp_path):
    (tmp_path / "net.toml").write_text(
        'layers = [{ type = "Reshape", shape = [4, 9] }, { type = "GRU", inputs = 8, hidden = 5 }, '
        '{ type = "Flatten" }, { type = "Affine", outputs = "classes" }]'
    )
    with pytest.raises(ValueError, match=r"layer 2, GRU\(8 → 5\): takes sequences \(T, 8\), got \(4, 9\)"):
        build_for(str(tmp_path / "net.toml"), (1, 4, 9), 4)


@pytest.mark.parametrize(
    ("name", "filters", "parameters"), [("resnet9", 32, 1_646_122), ("resnet9_wide", 48, 3_699_514)]
)
def test_the_networks_of_docs_results(name, filters, parameters):
    """Those in examples, for pictures in color and in gray."""
    file = Path(__file__).parents[3] / "examples" / f"{name}.toml"
    assert build_for(str(file), (3, 32, 32), 10).params.flat.size == parameters
    assert build_for(str(file), (1, 28, 28), 10).params.flat.size == parameters - 2 * filters * 9
