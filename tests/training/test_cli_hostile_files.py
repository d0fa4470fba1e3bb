"""Damaged and hostile files at every command: one line that names the file, exit code 1 or 2, and valid JSON."""

import gzip
import json
import os
import sys
import threading

import numpy as np
import pytest
from PIL import Image

import backend
from tests.support.command_line import QUICK, xpnet
from training.data.sources import FILES
from training.loop.run_folder import RunFolder
from training.models import TwoLayerNet, saving
from training.models.loading import load_network


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XPNET_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("XPNET_DATA_DIR", raising=False)


def network():
    made = TwoLayerNet(784, 5, 10)
    made.config = {**made.config, "dataset": "mnist10k", "classes": list("0123456789"), "input_dim": [1, 28, 28]}
    return made


def strict(text):
    """JSON without NaN and Infinity, which Python would take."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def with_config(**changes):
    def write(file):
        made = network()
        arrays = {name: backend.asnumpy(array) for name, array in made.params.items()}
        saving.save_arrays(file, arrays, {**made.config, **changes})

    return write


def cut(file):
    network().save_params(file)
    file.write_bytes(file.read_bytes()[:-5])


MODELS = {
    "empty": lambda file: file.write_bytes(b""),
    "text": lambda file: file.write_text("hello\n" * 100),
    "cut": cut,
    "a pickle": lambda file: file.write_bytes(b"\x80\x04\x95\x00"),
    "no config": lambda file: saving.save_arrays(file, {"W1": np.ones((2, 2), "f4")}),
    "another config": with_config(model="Network\nError: fake"),
    "huge arguments": with_config(arguments={"input_size": 784, "hidden_size": 2**62, "output_size": 10}),
    "other arguments": with_config(arguments={"input_size": 784, "hidden_size": 50, "output_size": 10}),
    "no arguments": with_config(arguments=[1] * 1000),
    "classes of numbers": with_config(classes=[1] * 10),
    "too few classes": with_config(classes=["a"]),
    "another size": with_config(input_dim=[1, 30, 30]),
    "a data set of many letters": with_config(dataset="x" * 10_000),
}


def one_line_about(result, *names):
    assert result.code in (1, 2)
    assert result.out == ""
    (line,) = result.err.splitlines()
    assert line.startswith("Error: ")
    assert len(line) < 1200
    assert line.isprintable()
    for name in names:
        assert str(name) in line


@pytest.mark.parametrize("case", MODELS)
@pytest.mark.parametrize("command", ["evaluate", "evaluate --json", "predict", "predict --json"])
def test_a_model_that_cannot_be_used_is_one_line(tmp_path, case, command):
    folder = tmp_path / "runs" / "a run"
    folder.mkdir(parents=True)
    MODELS[case](folder / "model.safetensors")
    Image.effect_noise((28, 28), 90).save(tmp_path / "a.png")
    name, *options = command.split()
    arguments = [folder] if name == "evaluate" else ["a.png", "--run", folder]
    one_line_about(xpnet(name, *arguments, *options), "model.safetensors")
    newest = [] if name == "evaluate" else ["a.png"]
    one_line_about(xpnet(name, *newest, *options), "model.safetensors")


def test_a_data_set_that_nobody_knows_is_one_line(tmp_path):
    with_config(dataset="pets\x1b[2J")(tmp_path / "model.safetensors")
    one_line_about(xpnet("evaluate", "model.safetensors"), r"pets\x1b[2J")


def objects(file):
    np.savez(file, W1=np.array([{}], object))


@pytest.mark.parametrize(
    "write",
    [
        objects,
        lambda file: file.write_bytes(b"PK\5\6"),
        lambda file: np.savez(file, W1=np.ones((784, 9))),
        lambda file: np.savez(file, **{"W1\x1b[2J" + "x" * 5000: np.ones(3)}),
    ],
    ids=["objects", "no zip", "other shapes", "other names"],
)
def test_an_npz_that_cannot_be_used_is_one_line(tmp_path, write):
    write(tmp_path / "a.npz")
    state = backend.random.default.state
    one_line_about(xpnet("evaluate", "a.npz", "--model", "TwoLayerNet", "--json"), "a.npz")
    assert backend.random.default.state == state


def test_evaluating_an_npz_draws_nothing(tmp_path):
    made = TwoLayerNet(784, 50, 10)
    made.save_params(tmp_path / "a.npz")
    state = backend.random.default.state
    assert xpnet("evaluate", "a.npz", "--model", "TwoLayerNet").code == 0
    assert backend.random.default.state == state


DATA = {
    "empty": lambda content: b"",
    "cut": lambda content: content[:-1],
    "too long": lambda content: content + b"1",
    "a web page": lambda content: b"<html>",
    "damaged gzip": lambda content: gzip.compress(content)[:-9],
    "a bomb": lambda content: gzip.compress(content[:16] + bytes(50 << 20)),
}


@pytest.mark.parametrize("case", DATA)
@pytest.mark.parametrize("command", ["train", "evaluate", "profile"])
def test_data_that_cannot_be_used_are_one_line(tmp_path, case, command):
    network().save_params("model.safetensors")
    whole = {
        FILES[0][0]: bytes.fromhex("00000803 00000002 0000001c 0000001c") + bytes(2 * 784),
        FILES[1][0]: bytes.fromhex("00000801 00000002 0102"),
        FILES[2][0]: bytes.fromhex("00000803 00000002 0000001c 0000001c") + bytes(2 * 784),
        FILES[3][0]: bytes.fromhex("00000801 00000002 0102"),
    }
    for name, content in whole.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / FILES[0][0]).write_bytes(DATA[case](whole[FILES[0][0]]))
    arguments = ["model.safetensors"] if command == "evaluate" else []
    arguments += ["--out", "out"] if command == "train" else []
    one_line_about(xpnet(command, *arguments, "--dataset", "mnist", "--data-dir", tmp_path), FILES[0][0])
    assert not (tmp_path / "out").exists()


def test_a_model_of_nan_is_one_line_or_valid_json(tmp_path):
    made = network()
    made.params["b2"][...] = np.nan
    made.save_params("model.safetensors")
    one_line_about(xpnet("evaluate", "model.safetensors", "--json"), "model.safetensors", "nan")
    Image.effect_noise((28, 28), 90).save(tmp_path / "a.png")
    result = xpnet("predict", "a.png", "--run", "model.safetensors", "--json", "--top", 10)
    if result.code == 0:
        assert strict(result.out)["probability"] is None
    else:
        one_line_about(result, "model.safetensors")


def test_numbers_that_are_not_finite_are_null_in_metrics(tmp_path):
    result = xpnet("train", *QUICK, "--epochs", 1, "--lr", "1e30", "--out", tmp_path / "run", "--json")
    assert result.code == 1
    assert all(map(strict, result.out.splitlines()))
    (line,) = [line for line in result.err.splitlines() if line.startswith("Error")]
    assert "not finite" in line


@pytest.mark.parametrize("command", ["summary", "devices", "kernels"])
def test_every_other_command_prints_valid_json(command):
    assert strict(xpnet(command, "--json").out)


class Broken:
    """An importer for which matplotlib is broken."""

    def __init__(self, error):
        self._error = error

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "matplotlib":
            raise self._error
        return


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libpng16.so.16: cannot open\nshared object file"),
        OSError(28, "No space left on device", "/home/user/.cache/matplotlib/fontlist.json"),
        ValueError("Key backend: 'nonsense' is not a valid value for backend"),
        RuntimeError("can't start new thread"),
        MemoryError(),
        AttributeError("module 'numpy' has no attribute 'int'"),
        SystemExit(3),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_matplotlib_that_does_not_load_loses_nothing(tmp_path, monkeypatch, error, as_json):
    for name in list(sys.modules):
        if name.partition(".")[0] == "matplotlib":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(error), *sys.meta_path])
    result = xpnet("train", *QUICK, "--epochs", 1, "--out", tmp_path / "run", *(["--json"] if as_json else ["--quiet"]))
    assert result.code == 0
    (line,) = [line for line in result.err.splitlines() if line.startswith("Not drawn")]
    names = "learning_curves, confusion_matrix, worst_mistakes, filters"
    assert line.startswith(f"Not drawn: {names} ({type(error).__name__}: ")
    assert line.endswith(f"the best model so far, of epoch 1, is kept in {tmp_path / 'run' / 'model.safetensors'}")
    if as_json:
        *epochs, end = map(strict, result.out.splitlines())
        assert (len(epochs), end["best_epoch"]) == (1, 1)
    else:
        assert "best: " in result.out
    folder = RunFolder(tmp_path / "run")
    assert len(folder.load_metrics()) == 1
    assert folder.load_config()["settings"]["epochs"] == 1
    assert load_network(folder.model).classes == 10
    assert not list(folder.path.glob("*.png"))


def test_no_thread_to_be_had_loses_nothing(tmp_path, monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    arguments = ["train", *QUICK, "--epochs", 1, "--threads", 2, "--quiet", "--out"]
    assert xpnet(*arguments, tmp_path / "with").code == 0
    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")  # put back at the end
    result = xpnet(*arguments, tmp_path / "without")
    assert os.environ["OPENBLAS_NUM_THREADS"] == "1"
    assert (result.code, result.err) == (0, "")
    content, same = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("with", "without"))
    assert content == same
    assert len(list((tmp_path / "without").glob("*.png"))) == 4


def test_a_figure_that_fails_does_not_lose_the_others(tmp_path, monkeypatch):
    def filters(*_):
        raise IndexError("list index out of range")

    monkeypatch.setattr("training.loop.figures.filters", filters)
    result = xpnet("train", *QUICK, "--epochs", 1, "--out", tmp_path / "run", "--quiet")
    assert result.code == 0
    assert result.err.startswith("Not drawn: filters (IndexError: list index out of range); the best model so far")
    assert len(list((tmp_path / "run").glob("*.png"))) == 3


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"a": NaN}', b'{"a": 1, "a": 2}', b"[" * 100_000])
def test_a_damaged_config_of_a_run_is_an_error_in_words(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json"):
        RunFolder(tmp_path).load_config()
