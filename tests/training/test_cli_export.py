"""``xpnet export``, and ``xpnet summary`` of ONNX: what they refuse, without the package onnx."""

import sys

import pytest

from tests.support.command_line import xpnet
from training.models import TwoLayerNet


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_without_the_package_the_remedy_is_said(monkeypatch):
    TwoLayerNet(4, 3, 2).save_params("model.safetensors")
    monkeypatch.setitem(sys.modules, "onnx", None)
    result = xpnet("export", "model.safetensors", "--onnx")
    assert (result.code, result.out) == (2, "")
    assert result.err == "Error: ONNX needs the package onnx; remedy: pip install 'xpnet[onnx]'\n"


def test_a_summary_of_an_onnx_file_without_the_package_says_the_remedy(tmp_path, monkeypatch):
    (tmp_path / "model.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnx", None)
    result = xpnet("summary", "model.onnx")
    assert (result.code, result.out) == (2, "")
    assert result.err == "Error: ONNX needs the package onnx; remedy: pip install 'xpnet[onnx]'\n"


@pytest.mark.parametrize("command", ["summary", "evaluate", "predict", "profile"])
def test_another_ending_is_told_which_there_are(command, tmp_path):
    (tmp_path / "E.ONNX").write_bytes(b"")
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    arguments = {"predict": ("rows.csv", "--run", "E.ONNX")}.get(command, ("E.ONNX",))
    result = xpnet(command, *arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err == "Error: expected the name of a model to end in .safetensors or .onnx, got 'E.ONNX'\n"


def test_mistakes_are_told_in_one_line(tmp_path):
    TwoLayerNet(4, 3, 2).save_params("model.safetensors")
    for arguments, message in (
        (("model.safetensors",), "expected a format: --onnx"),
        (("none.safetensors", "--onnx"), "there is no file none.safetensors"),
        (("--onnx",), "no run with a model in runs/"),
    ):
        result = xpnet("export", *arguments)
        assert (result.code, result.out) == (2, "")
        assert message in result.err
        assert len(result.err.splitlines()) == 1
