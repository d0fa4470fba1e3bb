"""``xpnet train --init --freeze``: a training that begins with another one's parameters."""

import numpy
import pytest

from tests.support.command_line import xpnet
from training.models.loading import load_network

QUICK = ("--quiet", "--batch-size", 10, "--epochs", 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with data of three classes, of two and of other features, and a run with the first."""
    folder, draw = tmp_path_factory.mktemp("tuning"), numpy.random.default_rng(0)
    for name, classes, features in (("three", 3, 4), ("two", 2, 4), ("wide", 2, 5)):
        numpy.savez(folder / f"{name}.npz", x=draw.normal(size=(60, features)), y=numpy.arange(60) % classes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.cli.run.draw_figures", lambda *_: None)
        assert xpnet("train", "--data", folder / "three.npz", *QUICK, "--out", folder / "run").code == 0
    return folder


def test_frozen_layers_keep_the_parameters_that_they_began_with(folder, tmp_path):
    options = ("--data", folder / "two.npz", "--init", folder / "run", "--freeze", "Affine1, Relu1")
    result = xpnet("train", *options, *QUICK[1:], "--out", tmp_path / "tuned")
    assert result.code == 0
    assert "note     begins with the parameters of " in result.out
    assert result.out.partition("model.safetensors; ")[2].splitlines()[0] == "new layers: Affine3"
    before, after = (load_network(path / "model.safetensors") for path in (folder / "run", tmp_path / "tuned"))
    assert after.classes == 2
    for name in ("W1", "b1"):
        numpy.testing.assert_array_equal(after.params[name], before.params[name])
    apart = numpy.abs(after.params["W2"] - before.params["W2"]).max()
    assert 0 < apart < 0.1  # it began with those and learned
    assert xpnet("train", "--config", tmp_path / "tuned" / "config.toml", "--quiet", "--out", tmp_path / "b").code == 0
    again = load_network(tmp_path / "b" / "model.safetensors")
    numpy.testing.assert_array_equal(again.params.flat, after.params.flat)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--init", "nothing"), "there is no file"),
        (("--init", "run", "--model", "TwoLayerNet"), "is a 'MultiLayerNet', and a TwoLayerNet is to start from it"),
        (("--init", "two.npz"), "has no parameters of the names and shapes that this MultiLayerNet has"),
        (("--freeze", "Conv*"), "no layer is called 'Conv*'; there are Affine1"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_folder_is_made(options, said, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    result = xpnet("train", "--data", "two.npz", *options, *QUICK, "--out", tmp_path / "new")
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert said in result.err
    assert not (tmp_path / "new").exists()


def test_layers_of_other_shapes_begin_anew(folder, tmp_path):
    result = xpnet(
        "train", "--data", folder / "wide.npz", "--init", folder / "run", *QUICK[1:], "--out", tmp_path / "w"
    )
    assert "new layers: Affine1, Affine3" in result.out
